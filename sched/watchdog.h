/* SPDX-License-Identifier: MIT */
/*
 * watchdog.h -- a thread that notices tasks which keep a worker for too long, and says where they
 * are.
 */
#ifndef RV_SCHED_WATCHDOG_H
#define RV_SCHED_WATCHDOG_H

#include <reeve/runtime.h>

#include "sched/worker.h"

struct rv_watchdog;

/* Starts the watchdog of a scheduler whose s->signal is taken, and whose workers do not run yet.
 * 0, -ENOMEM or -EAGAIN. */
int rv_watchdog_start(struct rv_sched *s, int64_t stall_ns,
                      void (*on_stall)(void *ctx, const struct reeve_stall *stall), void *ctx);
/* Waits until its thread has ended. None: nothing happens. */
void rv_watchdog_stop(struct rv_sched *s);
/* How many stalls there were. Any thread, before the workers are gone. */
uint64_t rv_watchdog_stalls(const struct rv_sched *s);

/* The signal has come. In its handler, on the worker's thread; context is the handler's. */
void rv_watch_called(struct rv_worker *w, void *context);

/* Notes from where a task was spawned; NULL: not by a call of a task's. */
static inline void rv_watch_spawn(struct rv_sched *s, uint32_t task, const void *site)
{
    if (__builtin_expect(s->sites != NULL, 0))
        s->sites[task] = site;
}

#endif
