/* SPDX-License-Identifier: MIT */
/*
 * host.h -- a scheduler without I/O, for tests of sched/ alone: an engine that parks on a futex.
 */
#ifndef TESTS_SCHED_HOST_H
#define TESTS_SCHED_HOST_H

#include <reeve/task.h>
#include <reeve/time.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "mem/alloc.h"
#include "sched/sched.h"
#include "sched/scope.h"
#include "tests/check.h"

struct host {
    struct rv_sched s;
    RV_ATOMIC(uint32_t) latch[64]; /* one for each worker: 1 = a wake is pending */
    int result;
};

static inline bool host_reap(struct rv_worker *w, uint32_t ready)
{
    (void)w, (void)ready;
    return false;
}

static inline bool host_busy(struct rv_worker *w)
{
    (void)w;
    return false;
}

static inline void host_park(struct rv_worker *w, int64_t until)
{
    struct host *h = w->sched->io;
    RV_ATOMIC(uint32_t) *latch = &h->latch[w->index];
    int64_t ns = until == RV_NEVER ? 0 : until - rv_clock_ns();
    struct timespec ts = { ns / 1000000000, ns % 1000000000 };
    if (until == RV_NEVER || ns > 0)
        syscall(SYS_futex, latch, FUTEX_WAIT_PRIVATE, 0, until == RV_NEVER ? NULL : &ts, NULL, 0);
    (void)rv_xchg_acq_rel(latch, 0u);
}

static inline void host_wake(struct rv_worker *w)
{
    struct host *h = w->sched->io;
    (void)rv_xchg_acq_rel(&h->latch[w->index], 1u);
    syscall(SYS_futex, &h->latch[w->index], FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static inline void host_cancel(struct rv_sched *s, struct rv_worker *self, uint64_t op)
{
    (void)s, (void)self, (void)op;
}

static const struct rv_engine host_engine = {
    .name = "host",
    .reap = host_reap,
    .busy = host_busy,
    .park = host_park,
    .wake = host_wake,
    .cancel = host_cancel,
};

static inline void *host_thread(void *arg)
{
    struct rv_worker *w = arg;
    rv_worker_bind(w);
    rv_worker_run(w);
    rv_worker_unbind(w);
    return NULL;
}

struct host_root {
    struct host *h;
    reeve_fn *fn;
    void *arg;
};

static int host_supervise(void *arg)
{
    struct host_root *root = arg;
    reeve_task *t;
    int result;
    CHECK_OK(reeve_spawn(&t, root->fn, root->arg));
    CHECK_OK(reeve_join(t, &result, 0));
    root->h->result = result;
    rv_sched_close(&root->h->s);
    return 0;
}

static inline struct host *host_create(uint32_t workers, uint32_t tasks_max)
{
    struct host *h = rv_alloc_aligned(sizeof *h, 64);
    memset(h, 0, sizeof *h);
    CHECK_OK(rv_sched_init(&h->s, &(struct rv_sched_opts){ .engine = &host_engine,
                                                           .workers = workers,
                                                           .tasks_max = tasks_max,
                                                           .stack_class = 1,
                                                           .injector_every = 61,
                                                           .pass_picks = 61,
                                                           .pass_ns = 100000 }));
    h->s.io = h;
    return h;
}

/* Runs fn(arg) as the root task on so many workers; its result. The scheduler is h until
 * host_destroy(). */
static inline int host_run_on(struct host *h, reeve_fn *fn, void *arg)
{
    pthread_t threads[64];
    uint32_t workers = h->s.nworkers;
    struct host_root root = { h, fn, arg };
    CHECK_OK(rv_sched_post(&h->s, &(struct reeve_spawn){ .fn = host_supervise, .arg = &root }));
    for (uint32_t i = 1; i < workers; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, host_thread, h->s.workers[i]), 0);
    host_thread(h->s.workers[0]);
    for (uint32_t i = 1; i < workers; i++)
        pthread_join(threads[i], NULL);
    return h->result;
}

static inline void host_destroy(struct host *h)
{
    rv_sched_finish(&h->s);
    rv_free(h);
}

static inline int host_run(uint32_t workers, uint32_t tasks_max, reeve_fn *fn, void *arg)
{
    struct host *h = host_create(workers, tasks_max);
    int r = host_run_on(h, fn, arg);
    /* Everything that was taken has come back but the two outermost scopes. */
    for (uint32_t i = 0; i < workers; i++)
        rv_mag_flush(&h->s.tasks, &h->s.workers[i]->local.task_mag);
    CHECK_EQ(rv_slab_live(&h->s.tasks), 2u);
    host_destroy(h);
    return r;
}

#endif
