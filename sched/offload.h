/* SPDX-License-Identifier: MIT */
/*
 * offload.h -- a pool of threads for calls that block.
 *
 *     struct rv_offload o;                       // one for each runtime
 *     rv_offload_init(&o, 8, "web", NULL);       // no thread yet
 *     r = rv_offload_run(&o, fn, arg, until);    // a task waits for fn
 *     r = rv_offload_start(&o, &job);            // nobody waits: job.done will be called
 *     rv_offload_finish(&o);
 */
#ifndef RV_SCHED_OFFLOAD_H
#define RV_SCHED_OFFLOAD_H

#include <reeve/offload.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

#include "mem/lock.h"
#include "mem/rv_atomic.h"

#define RV_OFFLOAD_MAX 4096u
#define RV_OFFLOAD_IDLE_NS (10 * REEVE_SEC)

struct rv_sleeper;

/* A request. It is the pool's from rv_offload_start until done is called, or until it was removed;
 * the caller of rv_offload_start fills in fn, arg and done. */
struct rv_offload_job {
    struct rv_offload_job *next, *prev; /* in the queue, a circle */
    reeve_fn *fn;
    void *arg;
    /* Called once, with what fn returned, on the thread that ran it; the job may be freed in it.
     * Where fn was never called it says why: -ESHUTDOWN, on the thread that finishes the pool, or
     * -EAGAIN or -ENOMEM, on one that could not make the pool's only thread: there it may come
     * before rv_offload_start returns. */
    void (*done)(struct rv_offload_job *job, int result);
    bool queued; /* the pool's */
};

struct rv_offload {
    struct rv_lock lock;         /* guards everything but what never changes */
    RV_ATOMIC(uint32_t) threads; /* alive, or being made; a futex for who waits for 0 */
    struct rv_offload_job *first;
    struct rv_sleeper *idle; /* the threads without work, the latest to fall asleep first */
    pthread_t left;          /* the last that has left, not yet joined */
    bool has_left;
    bool closing;

    uint32_t max;
    bool spread;     /* its threads run on these, not where their creator is pinned */
    cpu_set_t cpus;
    int64_t idle_ns; /* how long a thread waits for work; tests set it before the first call */
    char name[16];
    /* Not NULL: the pool has no threads. Called, without the lock, for each job that was queued; a
     * negative result says that there is nobody who could ever take it, and fails all that is
     * queued. Who plays the pool takes jobs with rv_offload_take(). */
    int (*played)(void *ctx);
    void *played_ctx;

    /* Written under the lock, read by anyone. */
    RV_ATOMIC(uint64_t) threads_peak, queued, run, removed;
};

struct rv_offload_stats {
    uint64_t threads, threads_peak; /* alive; and as many as ever were */
    uint64_t queued;                /* calls in the queue */
    uint64_t run;                   /* calls whose function has begun */
    uint64_t removed;               /* calls that left the queue: cancelled, expired */
};

/* max: how many threads at most, RV_OFFLOAD_MAX at most; 0: there is no pool. name: of the runtime.
 * cpus: where its threads run; NULL: where the threads run that make them. Both are copied. */
void rv_offload_init(struct rv_offload *o, uint32_t max, const char *name, const cpu_set_t *cpus);
/* Takes no more, tells those in the queue -ESHUTDOWN, waits for those that run and for the end of
 * all threads. Once, by one thread; {0} is fine. Before the schedulers of waiting tasks end. */
void rv_offload_finish(struct rv_offload *o);

/* reeve_offload() with a pool; o NULL is none. */
int rv_offload_run(struct rv_offload *o, reeve_fn *fn, void *arg, reeve_time until);

/* Runs job->fn(job->arg) and then job->done. 0; or, and then done is never called: -ENOTSUP: there
 * is no pool, -ESHUTDOWN: it is being finished. Any thread. */
int rv_offload_start(struct rv_offload *o, struct rv_offload_job *job);
/* Takes a job out of the queue. True: it is the caller's again, and neither fn nor done is called;
 * false: it has begun. The job must not be over, or not be freed by that. Any thread. */
bool rv_offload_remove(struct rv_offload *o, struct rv_offload_job *job);

/* For who plays the pool: the oldest job, which has begun with that. The caller calls its fn, and
 * done with what that returned. NULL: none is queued. */
struct rv_offload_job *rv_offload_take(struct rv_offload *o);

void rv_offload_stats(struct rv_offload *o, struct rv_offload_stats *ret_stats);

#endif
