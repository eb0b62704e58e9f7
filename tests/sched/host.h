/* SPDX-License-Identifier: MIT */
/*
 * host.h -- a scheduler without I/O, for tests of sched/ alone.
 *
 * It has two drivers. In real time each worker has a thread and parks on a futex. In virtual time
 * one thread makes the passes of all workers in turn, and the clock stands still until nobody has
 * anything to do; then it jumps to the next timer. There a run is the same every time, an hour of
 * sleep costs nothing, and waiting for what never comes fails at once instead of hanging.
 *
 * host_destroy() checks that all that was taken has come back: descriptors, stacks, queue entries,
 * and that each task that was spawned was started or skipped.
 */
#ifndef TESTS_SCHED_HOST_H
#define TESTS_SCHED_HOST_H

#include <reeve/task.h>
#include <reeve/time.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "mem/alloc.h"
#include "mem/fault.h"
#include "sched/grace.h"
#include "sched/park.h"
#include "sched/pick.h"
#include "sched/dispatch.h"
#include "sched/sched.h"
#include "sched/scope.h"
#include "sched/wait.h"
#include "tests/check.h"

enum { HOST_WORKERS_MAX = 64 };

#if defined(RV_TSAN)
enum { HOST_SLOWER = 16 };
#elif defined(RV_ASAN)
enum { HOST_SLOWER = 4 };
#else
enum { HOST_SLOWER = 1 };
#endif

/* A number of repetitions, fewer where a sanitizer makes each one slow. */
static inline uint32_t host_times(uint32_t n)
{
    return n / HOST_SLOWER ? n / HOST_SLOWER : 1;
}

struct host {
    struct rv_sched s;
    RV_ATOMIC(uint32_t) latch[HOST_WORKERS_MAX]; /* one for each worker: 1 = a wake is pending */
    reeve_fn *fn;                                /* the root task's */
    void *arg;
    int result;
    bool virtual;
    bool spoilt;             /* tests that leave something behind on purpose: no check at the end */
    RV_ATOMIC(int64_t) now;  /* virtual time */
    RV_ATOMIC(uint64_t) looks; /* how often a worker came back from its park */
};

struct host_opts {
    uint32_t workers, tasks_max; /* 0: 1 and 1000 */
    uint32_t injector_every;     /* 0: 61 */
    int32_t pass_picks;          /* 0: 61 */
    int64_t pass_ns;             /* 0: 100 us in real time, untimed in virtual time */
    bool virtual;
};

/* ---- the engine ---- */

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
    struct timespec ts = { ns / REEVE_SEC, ns % REEVE_SEC };
    if (until == RV_NEVER || ns > 0)
        syscall(SYS_futex, latch, FUTEX_WAIT_PRIVATE, 0, until == RV_NEVER ? NULL : &ts, NULL, 0);
    (void)rv_xchg_acq_rel(latch, 0u); /* pairs with host_wake() */
    rv_add_relaxed(&h->looks, (uint64_t)1);
}

static inline void host_wake(struct rv_worker *w)
{
    struct host *h = w->sched->io;
    (void)rv_xchg_acq_rel(&h->latch[w->index], 1u);
    if (!h->virtual)
        syscall(SYS_futex, &h->latch[w->index], FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static inline void host_cancel(struct rv_sched *s, struct rv_worker *self, uint64_t op)
{
    (void)s, (void)self, (void)op;
}

static inline int64_t host_virtual_now(struct rv_sched *s)
{
    return rv_load_relaxed(&((struct host *)s->io)->now);
}

static const struct rv_engine host_engine = {
    .name = "host",
    .reap = host_reap,
    .busy = host_busy,
    .park = host_park,
    .wake = host_wake,
    .cancel = host_cancel,
};

static const struct rv_engine host_virtual_engine = {
    .name = "virtual host",
    .reap = host_reap,
    .busy = host_busy,
    .wake = host_wake,
    .cancel = host_cancel,
    .now = host_virtual_now,
};

/* ---- a scheduler and its end ---- */

static inline struct host *host_create_with(const struct host_opts *o)
{
    struct host *h = rv_alloc_aligned(sizeof *h, RV_CACHE_LINE);
    CHECK(h != NULL);
    memset(h, 0, sizeof *h);
    h->virtual = o->virtual;
    rv_store_relaxed(&h->now, REEVE_SEC);
    struct rv_sched_opts opts = {
        .engine = o->virtual ? &host_virtual_engine : &host_engine,
        .workers = o->workers ? o->workers : 1,
        .tasks_max = o->tasks_max ? o->tasks_max : 1000,
        .stack_class = 1,
        .injector_every = o->injector_every ? o->injector_every : 61,
        .pass_picks = o->pass_picks ? o->pass_picks : 61,
        .pass_ns = o->pass_ns ? o->pass_ns : o->virtual ? 0 : 100 * REEVE_US,
    };
    CHECK(opts.workers <= HOST_WORKERS_MAX);
    CHECK_OK(rv_sched_init(&h->s, &opts));
    h->s.io = h;
    return h;
}

static inline struct host *host_create(uint32_t workers, uint32_t tasks_max)
{
    return host_create_with(&(struct host_opts){ .workers = workers, .tasks_max = tasks_max });
}

/* The counters of all workers, added up. */
struct host_counts {
    uint64_t spawned, started, completed, cancelled, expired, late, skipped, failed, inline_runs,
        passes, parks, wakes_sent, steals_tried, steals_got, timers_fired, picks;
};

static inline struct host_counts host_counts(struct host *h)
{
    struct host_counts c = { 0 };
    for (uint32_t i = 0; i < h->s.nworkers; i++) {
        struct rv_counters *n = &h->s.workers[i]->n;
        c.spawned += rv_load_relaxed(&n->spawned);
        for (unsigned k = 0; k < RV_CLASSES; k++) {
            c.started += rv_load_relaxed(&n->started[k]);
            c.completed += rv_load_relaxed(&n->completed[k]);
            c.expired += rv_load_relaxed(&n->expired[k]);
            c.failed += rv_load_relaxed(&n->failed[k]);
            c.late += rv_load_relaxed(&n->late[k]);
        }
        c.cancelled += rv_load_relaxed(&n->cancelled);
        c.skipped += rv_load_relaxed(&n->skipped);
        c.inline_runs += rv_load_relaxed(&n->inline_runs);
        c.passes += rv_load_relaxed(&n->passes);
        c.parks += rv_load_relaxed(&n->parks);
        c.wakes_sent += rv_load_relaxed(&n->wakes_sent);
        c.steals_tried += rv_load_relaxed(&n->steals_tried);
        c.steals_got += rv_load_relaxed(&n->steals_got);
        c.timers_fired += rv_load_relaxed(&n->timers_fired);
        c.picks += rv_load_relaxed(&n->picks);
    }
    return c;
}

/* Everything that was taken has come back, but the two outermost scopes. */
static inline void host_check_clean(struct host *h)
{
    struct rv_stack_stats stacks;
    rv_grace_wait(); /* who woke its last task from elsewhere may not be through with it */
    struct host_counts n = host_counts(h);
    for (uint32_t i = 0; i < h->s.nworkers; i++) {
        struct rv_worker *w = h->s.workers[i];
        rv_mag_flush(&h->s.tasks, &w->local.task_mag);
        rv_stack_mag_flush(&h->s.stacks, &w->local.stack_mag);
        CHECK_EQ(rv_queued(w), 0);
        CHECK(rv_inbox_empty(&w->inbox));
    }
    CHECK_EQ(rv_load_relaxed(&h->s.injector.len), 0);
    CHECK_EQ(rv_load_relaxed(&h->s.nparked), 0);
    CHECK_EQ(rv_load_relaxed(&h->s.searching), 0);
    CHECK_EQ(rv_slab_live(&h->s.tasks), 2);
    rv_stack_pool_stats(&h->s.stacks, &stacks);
    CHECK_EQ(stacks.live, 0);
    CHECK_EQ(n.spawned + rv_load_relaxed(&h->s.posted), n.started + n.skipped);
    CHECK_EQ(n.started, n.completed);
}

static inline void host_destroy(struct host *h)
{
    if (!h->spoilt)
        host_check_clean(h);
    rv_sched_finish(&h->s);
    rv_free(h);
}

/* ---- the drivers ---- */

static inline void *host_thread(void *arg)
{
    struct rv_worker *w = arg;
    rv_worker_bind(w);
    rv_worker_run(w);
    rv_worker_unbind(w);
    return NULL;
}

/* Workers 1 and up on threads of their own, worker 0 on this one. */
static inline void host_run_threads(struct host *h)
{
    pthread_t threads[HOST_WORKERS_MAX];
    for (uint32_t i = 1; i < h->s.nworkers; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, host_thread, h->s.workers[i]), 0);
    host_thread(h->s.workers[0]);
    for (uint32_t i = 1; i < h->s.nworkers; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
}

/* One pass, of what was stolen if there is nothing else: else idle workers could steal one task
 * from each other for ever. */
static inline bool host_turn(struct rv_worker *w)
{
    rv_local_set(&w->local);
    if (rv_worker_step(w) || rv_worker_has_work(w))
        return true;
    if (w->sched->nworkers == 1 || !(rv_steal(w, false) || rv_steal(w, true)))
        return false;
    rv_worker_step(w);
    return true;
}

/* Jumps to the next timer of any worker. */
static inline void host_jump(struct host *h)
{
    int64_t next = RV_NEVER;
    for (uint32_t i = 0; i < h->s.nworkers; i++) {
        int64_t until = rv_worker_until(h->s.workers[i]);
        next = until < next ? until : next;
    }
    if (next == RV_NEVER)
        check_failed(__FILE__, __LINE__, "all tasks wait, and none for anything that will come");
    if (next > rv_load_relaxed(&h->now))
        rv_store_relaxed(&h->now, next);
}

static inline void host_run_virtual_on(struct host *h)
{
    for (uint32_t i = 0; i < h->s.nworkers; i++)
        rv_worker_bind(h->s.workers[i]);
    for (;;) {
        bool any = false;
        for (uint32_t i = 0; i < h->s.nworkers; i++)
            any |= host_turn(h->s.workers[i]);
        for (uint32_t i = 0; i < h->s.nworkers; i++) /* a later one may have sent it something */
            any |= rv_worker_has_work(h->s.workers[i]);
        if (!any && rv_load_acquire(&h->s.stopping))
            break;
        if (!any)
            host_jump(h);
    }
    for (uint32_t i = 0; i < h->s.nworkers; i++) {
        rv_local_set(&h->s.workers[i]->local);
        rv_dispatch_finish(h->s.workers[i]);
        rv_worker_unbind(h->s.workers[i]);
    }
}

/* The root task. From its end on nothing is posted any more. */
static int host_root(void *arg)
{
    struct host *h = arg;
    h->result = h->fn(h->arg);
    rv_sched_close(&h->s);
    return h->result;
}

/* Runs fn(arg) as the root task; its result. The scheduler is h until host_destroy(). */
static inline int host_run_on(struct host *h, reeve_fn *fn, void *arg)
{
    h->fn = fn;
    h->arg = arg;
    CHECK_OK(rv_sched_post(&h->s, &(struct reeve_spawn){ .fn = host_root, .arg = h }));
    if (h->virtual)
        host_run_virtual_on(h);
    else
        host_run_threads(h);
    return h->result;
}

static inline int host_run_with(const struct host_opts *o, reeve_fn *fn, void *arg)
{
    struct host *h = host_create_with(o);
    int r = host_run_on(h, fn, arg);
    host_destroy(h);
    return r;
}

/* In real time, on so many workers. */
static inline int host_run(uint32_t workers, uint32_t tasks_max, reeve_fn *fn, void *arg)
{
    return host_run_with(&(struct host_opts){ .workers = workers, .tasks_max = tasks_max }, fn,
                         arg);
}

/* In virtual time. */
static inline int host_run_virtual(uint32_t workers, reeve_fn *fn, void *arg)
{
    return host_run_with(&(struct host_opts){ .workers = workers, .virtual = true }, fn, arg);
}

/* ---- for the tasks of a test ---- */

static inline struct host *host_self(void)
{
    return rv_worker_self()->sched->io;
}

/* Lets virtual time pass while the calling task runs. */
static inline void host_compute(int64_t ns)
{
    CHECK(host_self()->virtual);
    rv_add_relaxed(&host_self()->now, ns);
}

/* Something that one task waits for and anybody may set, once. {0} is unset. */
struct host_event {
    RV_ATOMIC(uint64_t) word; /* 0, the token of who waits, or HOST_EVENT_SET */
};

#define HOST_EVENT_SET UINT64_MAX

static inline int host_wait(struct host_event *e, reeve_time deadline)
{
    struct rv_worker *w = rv_worker_self();
    struct rv_task *t = w->cur;
    uint64_t unset = 0;
    int r = rv_wait_check(w->sched, t);
    if (r < 0)
        return r;
    uint64_t token = rv_wait_arm(w->sched, t, 0);
    if (!rv_cas(&e->word, &unset, token)) { /* pairs with host_set() */
        CHECK(unset == HOST_EVENT_SET);
        rv_wait_disarm(t);
        return 0;
    }
    int why = rv_wait_park(w, t, rv_deadline(t, deadline));
    if (!rv_cas(&e->word, &token, (uint64_t)0))
        return 0; /* set: that beats a deadline */
    return why == RV_TIMED_OUT ? -ETIMEDOUT : -ECANCELED;
}

/* From a task of h or from any other thread. */
static inline void host_set(struct host *h, struct host_event *e)
{
    uint64_t was = rv_xchg_acq_rel(&e->word, HOST_EVENT_SET);
    CHECK(was != HOST_EVENT_SET);
    if (was)
        rv_wait_fire(&h->s, rv_worker_self(), was, RV_WOKEN, UINT32_MAX);
}

/* For tests whose claim is the order in which a worker serves its queues. */
#ifdef RV_RANDOM_SCHED
#define host_needs_order() SKIP("this build picks in any order")
#else
#define host_needs_order() ((void)0)
#endif

/* Two functions that many tests spawn. */
static inline int host_nothing(void *arg)
{
    (void)arg;
    return 0;
}

/* Waits for a host_event for ever; counted by nobody. */
static inline int host_waiter(void *arg)
{
    return host_wait(arg, 0);
}

#endif
