/* SPDX-License-Identifier: MIT */
/*
 * sched.h -- building a scheduler, posting to it, ending it.
 *
 *     rv_sched_init -> io state -> rv_sched_post ... rv_worker_run (each worker) ... ->
 *     rv_sched_finish
 */
#ifndef RV_SCHED_SCHED_H
#define RV_SCHED_SCHED_H

#include "sched/worker.h"

struct rv_sched_opts {
    const struct rv_engine *engine;
    uint32_t workers; /* 1 .. RV_WORKERS_MAX */
    uint32_t tasks_max;
    uint8_t stack_class; /* of tasks that do not say */
    uint32_t injector_every;
    int32_t pass_picks;
    int64_t pass_ns; /* 0: passes are not timed, nothing looks at the CPU's counter: simulations */
    bool no_guard_install;
    uint32_t waiting_max[RV_CLASSES]; /* posted and not yet started, by class; 0: no bound */
    int64_t worth_ns;   /* so much work waiting is worth waking a worker for; 0: 50 us */
    int64_t delay_max;                /* of a queue, for posts to be let in; 0: no bound */
};

/* Makes the scheduler and its workers; the engine's state, s->io and w->io, is the caller's next
 * step. 0, -EINVAL or -ENOMEM. *s is zeroed memory, cache-line aligned. */
int rv_sched_init(struct rv_sched *s, const struct rv_sched_opts *opts);

/* No worker runs any more. A zeroed one is fine. */
void rv_sched_finish(struct rv_sched *s);

/* Spawns a task from outside into the scope of all work. 0, or what rv_spawn_check and
 * rv_task_make say; -ESHUTDOWN once rv_sched_close was called. Any thread. */
int rv_sched_post(struct rv_sched *s, const struct reeve_spawn *how);
/* The same into the scope of housekeeping, which ends after the work has: for who watches over its
 * end. */
int rv_sched_keep(struct rv_sched *s, const struct reeve_spawn *how);

/* The time, ns, for who may be no worker. Any thread. */
int64_t rv_sched_now(struct rv_sched *s);

/* Takes no more posts; when what was posted is done, the workers stop. Any thread, any number of
 * times. */
void rv_sched_close(struct rv_sched *s);
/* Cancels all work that was posted. Any thread. */
void rv_sched_cancel(struct rv_sched *s, struct rv_worker *self);

#endif
