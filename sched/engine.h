/* SPDX-License-Identifier: MIT */
/*
 * engine.h -- the seam between the scheduler and whatever makes waiting possible.
 *
 * The scheduler declares this table and never defines one: io/ has the io_uring engine and the
 * simulated one. All calls but wake, cancel and those of the loan are made by the worker itself, on
 * the thread that drives it.
 */
#ifndef RV_SCHED_ENGINE_H
#define RV_SCHED_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

struct rv_worker;
struct rv_sched;
struct rv_msg;

struct rv_engine {
    const char *name;
    /* The worker's thread takes possession of (gives up) its engine state, w->io. 0 or -errno. */
    int (*attach)(struct rv_worker *w);
    void (*detach)(struct rv_worker *w);
    /* Submits what is queued and dispatches what has completed; never blocks. `ready` is how many
     * tasks are ready already: with enough of them it need not dig for more. True if any
     * completion was dispatched. */
    bool (*reap)(struct rv_worker *w, uint32_t ready);
    /* True while reap has something to do: unsubmitted requests, or completions. Costs a few
     * loads. */
    bool (*busy)(struct rv_worker *w);
    /* True if completions wait for reap. Costs a few loads. NULL: none ever come by themselves. */
    bool (*arrived)(struct rv_worker *w);
    /* Submits, then blocks until a completion, a wake or `until` (RV_NEVER: no limit). Completions
     * stay for reap. */
    void (*park)(struct rv_worker *w, int64_t until);
    /* Ends the target's park, or its next one. Any thread; latched, so it may come before the
     * park. */
    void (*wake)(struct rv_worker *target);
    /* Asks for the op's cancellation; its final completion still comes. Stale ops are ignored.
     * `self` is the calling worker, NULL on a foreign thread; the op may live on another worker. */
    void (*cancel)(struct rv_sched *s, struct rv_worker *self, uint64_t op);
    /* A message of an io kind (>= RV_MSG_IO) from this worker's inbox. */
    void (*message)(struct rv_worker *w, struct rv_msg *m);
    /* For the loan of a worker that is stuck in a task's code, see loan.c; NULL where there is no
     * such thing. due: whether a visit to its engine would bring anything; any thread. fetch:
     * submits, and makes completions exist, in a signal handler on the worker's thread. By the
     * holder of the loan: stand_in says who acts for the worker from now on, collect dispatches
     * what there is, without entering the engine. */
    bool (*due)(struct rv_worker *w);
    void (*fetch)(struct rv_worker *w);
    void (*stand_in)(struct rv_worker *w, struct rv_worker *by);
    bool (*collect)(struct rv_worker *w);
    /* Absolute monotonic ns; NULL: the real clock. */
    int64_t (*now)(struct rv_sched *s);
};

#endif
