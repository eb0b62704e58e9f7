/* SPDX-License-Identifier: MIT */
/*
 * dispatch.h -- from one stack to the next.
 */
#ifndef RV_SCHED_DISPATCH_H
#define RV_SCHED_DISPATCH_H

#include "sched/worker.h"

/* Leaves the running task's stack for the next task's, or for the scheduler's context. Returns
 * when the task runs again, with the worker that it runs on. hook says what the next context does
 * for it. In reeve code (loan.h). */
struct rv_worker *rv_suspend(struct rv_worker *w, enum rv_hook hook);
/* Lets others run, if there are any. Returns the worker, which may have changed. Not in reeve code
 * (loan.h). */
struct rv_worker *rv_yield(struct rv_worker *w);
/* From the scheduler's context: runs the task until control comes back. false: a fresh task for
 * which there is no stack. */
bool rv_enter(struct rv_worker *w, struct rv_task *t, bool fresh);
/* Gives up the contexts that a worker holds, at its end. */
void rv_dispatch_finish(struct rv_worker *w);

#endif
