/* SPDX-License-Identifier: MIT */
/*
 * dispatch.h -- from one stack to the next.
 */
#ifndef RV_SCHED_DISPATCH_H
#define RV_SCHED_DISPATCH_H

#include "sched/worker.h"

/* Leaves the running task's stack for the next task's, or for the scheduler's context. Returns
 * when the task runs again, maybe on another worker. hook says what the next context does for it.
 * */
void rv_suspend(struct rv_worker *w, enum rv_hook hook);
/* Lets others run, if there are any. The worker may have changed. */
void rv_yield(struct rv_worker *w);
/* From the scheduler's context: runs the task until control comes back. false: a fresh task for
 * which there is no stack. */
bool rv_enter(struct rv_worker *w, struct rv_task *t, bool fresh);
/* Gives up the contexts that a worker holds, at its end. */
void rv_dispatch_finish(struct rv_worker *w);

#endif
