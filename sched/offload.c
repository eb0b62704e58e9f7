/* SPDX-License-Identifier: MIT */
/*
 * offload.c -- a pool of threads for calls that block.
 *
 * One queue, one lock. A job either wakes an idle thread or makes a new one, until there are max;
 * then whoever is done first takes it. Idle threads are a stack: the one that fell asleep last
 * works next, so those at the bottom sleep on until their time is over, and the pool shrinks to
 * what the load needs.
 *
 *     queued  -> running   [take]                under the lock
 *     queued  -> removed   [rv_offload_remove]   under the lock: its caller gives up
 *     queued  -> failed    [rv_offload_finish, not_made]
 *     running -> over      [work]                done() is told; the job is not ours any more
 *
 * A pool may be played instead, by the simulator: then it has no threads, and `queued -> running`
 * is rv_offload_take(), called by the one who plays it.
 *
 * (1) While a job is queued some thread will look at the queue: each one looks, under the lock,
 *     before it sleeps or leaves, and leaves within the same hold of the lock in which it finds
 *     nothing. One that was woken or is being made has yet to look.
 * (2) A thread that could not be made was counted already, so others may have relied on it. If it
 *     was the only one, all that is queued fails.
 * (3) A sleeper's record lies on its thread's stack. It is taken off the stack of idle ones and
 *     marked under the lock; only the futex call comes after, and that needs no more than the
 *     address: a wake at one that has become somebody else's is a spurious wake.
 * (4) Nobody joins a sleeping thread: each that leaves joins the one that left before it, and
 *     finish the last. So not more than one has left and is not joined.
 * (5) A running call cannot be taken back: its task waits on, deaf to cancellation and deadline.
 *
 * Threads: run - a task; start, remove, stats - anyone; init, finish - one.
 */
#include "sched/offload.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "mem/die.h"
#include "mem/fault.h"
#include "mem/thread.h"
#include "sched/wait.h"

/* A thread without work, on its own stack. */
struct rv_sleeper {
    struct rv_sleeper *next, *prev;
    RV_ATOMIC(uint32_t) woken; /* a futex */
};

/* ---- the queue and the stack of idle threads: under the lock ---- */

static void push_job(struct rv_offload *o, struct rv_offload_job *job)
{
    job->queued = true;
    rv_count(&o->queued, 1);
    if (o->first == NULL) {
        job->next = job->prev = job;
        o->first = job;
        return;
    }
    job->next = o->first;
    job->prev = o->first->prev;
    job->prev->next = job;
    o->first->prev = job;
}

static void unlink_job(struct rv_offload *o, struct rv_offload_job *job)
{
    RV_ASSERT(job->queued && o->first != NULL);
    job->queued = false;
    rv_count(&o->queued, UINT64_MAX); /* one less */
    job->next->prev = job->prev;
    job->prev->next = job->next;
    if (o->first == job)
        o->first = job->next == job ? NULL : job->next;
}

/* The oldest, which begins; NULL: none is queued. */
static struct rv_offload_job *pop_job(struct rv_offload *o)
{
    struct rv_offload_job *job = o->first;
    if (job == NULL)
        return NULL;
    unlink_job(o, job);
    RV_ASSERT(!job->queued);
    rv_count(&o->run, 1);
    return job;
}

static void push_sleeper(struct rv_offload *o, struct rv_sleeper *me)
{
    rv_store_relaxed(&me->woken, 0u);
    me->prev = NULL;
    me->next = o->idle;
    if (me->next)
        me->next->prev = me;
    o->idle = me;
}

static void unlink_sleeper(struct rv_offload *o, struct rv_sleeper *s)
{
    RV_ASSERT(rv_load_relaxed(&s->woken) == 0);
    if (s->next)
        s->next->prev = s->prev;
    if (s->prev)
        s->prev->next = s->next;
    else
        o->idle = s->next;
}

/* NULL: none is idle. The caller wakes it once it has let go of the lock. */
static struct rv_sleeper *pop_sleeper(struct rv_offload *o)
{
    struct rv_sleeper *s = o->idle;
    if (s == NULL)
        return NULL;
    unlink_sleeper(o, s);
    rv_store_release(&s->woken, 1u); /* pairs with sleep_until() */
    return s;
}

/* ---- futexes ---- */

static void futex_wake(RV_ATOMIC(uint32_t) * word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* Sleeps while *word is value; false: the time has come. Other reasons to return are its caller's
 * to find. */
static bool futex_wait(RV_ATOMIC(uint32_t) * word, uint32_t value, int64_t until)
{
    struct timespec ts = { until / REEVE_SEC, until % REEVE_SEC };
    long r = syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, value,
                     until == RV_NEVER ? NULL : &ts, NULL, FUTEX_BITSET_MATCH_ANY);
    return r == 0 || errno != ETIMEDOUT;
}

/* ---- the threads ---- */

/* False: nobody woke it in time. */
static bool sleep_until(struct rv_sleeper *me, int64_t until)
{
    while (rv_load_acquire(&me->woken) == 0) /* pairs with pop_sleeper() */
        if (!futex_wait(&me->woken, 0, until))
            return false;
    return true;
}

/* The lock is held. The next job; NULL: there is none, and no use in waiting any longer. */
static struct rv_offload_job *take(struct rv_offload *o)
{
    struct rv_sleeper me;
    bool late = false;
    while (o->first == NULL) {
        if (late || o->closing)
            return NULL;
        int64_t now = rv_clock_ns();
        int64_t until = o->idle_ns < RV_NEVER - now ? now + o->idle_ns : RV_NEVER;
        push_sleeper(o, &me);
        rv_lock_release(&o->lock);
        sleep_until(&me, until);
        rv_lock_acquire(&o->lock);
        late = rv_load_relaxed(&me.woken) == 0; /* who was woken late was woken: see (1) */
        if (late)
            unlink_sleeper(o, &me);
    }
    return pop_job(o);
}

/* The lock is held, and is let go of here. */
static void count_down(struct rv_offload *o)
{
    uint32_t n = rv_load_relaxed(&o->threads);
    RV_ASSERT(n > 0);
    rv_store_release(&o->threads, n - 1); /* pairs with rv_offload_finish() */
    rv_lock_release(&o->lock);
    if (n == 1)
        futex_wake(&o->threads);
}

static void *work(void *arg)
{
    struct rv_offload *o = arg;
    struct rv_offload_job *job;
    pthread_setname_np(pthread_self(), o->name);
    if (o->spread) /* if those CPUs were taken away meanwhile: then where it is */
        pthread_setaffinity_np(pthread_self(), sizeof o->cpus, &o->cpus);
    rv_lock_acquire(&o->lock);
    while ((job = take(o)) != NULL) {
        rv_lock_release(&o->lock);
        void (*done)(struct rv_offload_job *, int) = job->done;
        done(job, job->fn(job->arg));
        rv_lock_acquire(&o->lock);
    }
    pthread_t before = o->left; /* (4) */
    bool has_before = o->has_left;
    o->left = pthread_self();
    o->has_left = true;
    count_down(o);
    if (has_before)
        pthread_join(before, NULL);
    return NULL;
}

/* Takes all jobs out of the queue and tells them; the lock is held, and is let go of while they are
 * told. */
static void fail_all(struct rv_offload *o, int error)
{
    while (o->first) {
        struct rv_offload_job *job = o->first;
        unlink_job(o, job);
        rv_lock_release(&o->lock);
        job->done(job, error);
        rv_lock_acquire(&o->lock);
    }
}

/* The thread was counted, see (2). */
static void not_made(struct rv_offload *o, int error)
{
    rv_lock_acquire(&o->lock);
    if (rv_load_relaxed(&o->threads) == 1)
        fail_all(o, error);
    count_down(o);
}

static void make(struct rv_offload *o)
{
    pthread_t thread; /* it knows itself, and says so when it leaves */
    int r = RV_FAULT("offload.thread") ? -EAGAIN : rv_thread_start(&thread, work, o);
    if (r < 0)
        not_made(o, r);
}

/* ---- the pool ---- */

void rv_offload_init(struct rv_offload *o, uint32_t max, const char *name, const cpu_set_t *cpus)
{
    RV_ASSERT(max <= RV_OFFLOAD_MAX);
    memset(o, 0, sizeof *o);
    o->max = max;
    o->idle_ns = RV_OFFLOAD_IDLE_NS;
    o->spread = cpus != NULL;
    if (cpus)
        o->cpus = *cpus;
    snprintf(o->name, sizeof o->name, "%.11s/off", name);
}

void rv_offload_finish(struct rv_offload *o)
{
    struct rv_sleeper *s;
    uint32_t n;
    rv_lock_acquire(&o->lock);
    o->closing = true;
    fail_all(o, -ESHUTDOWN);
    while ((s = pop_sleeper(o)) != NULL)
        futex_wake(&s->woken);
    rv_lock_release(&o->lock);
    while ((n = rv_load_acquire(&o->threads)) != 0) /* pairs with count_down() */
        futex_wait(&o->threads, n, RV_NEVER);
    rv_lock_acquire(&o->lock); /* the last one may still hold it */
    bool has_left = o->has_left;
    o->has_left = false;
    rv_lock_release(&o->lock);
    if (has_left)
        pthread_join(o->left, NULL);
    RV_ASSERT(o->first == NULL);
    RV_ASSERT(o->idle == NULL);
}

static void tell_player(struct rv_offload *o)
{
    int r = o->played(o->played_ctx);
    if (r >= 0)
        return;
    rv_lock_acquire(&o->lock);
    fail_all(o, r);
    rv_lock_release(&o->lock);
}

struct rv_offload_job *rv_offload_take(struct rv_offload *o)
{
    RV_ASSERT(o->played != NULL);
    rv_lock_acquire(&o->lock);
    struct rv_offload_job *job = pop_job(o);
    rv_lock_release(&o->lock);
    return job;
}

int rv_offload_start(struct rv_offload *o, struct rv_offload_job *job)
{
    if (o == NULL || o->max == 0)
        return -ENOTSUP;
    rv_lock_acquire(&o->lock);
    if (o->closing) {
        rv_lock_release(&o->lock);
        return -ESHUTDOWN;
    }
    push_job(o, job);
    if (o->played) {
        rv_lock_release(&o->lock);
        tell_player(o);
        return 0;
    }
    struct rv_sleeper *s = pop_sleeper(o);
    uint32_t n = rv_load_relaxed(&o->threads);
    bool grow = s == NULL && n < o->max;
    if (grow) {
        rv_store_relaxed(&o->threads, n + 1);
        if (n + 1 > rv_load_relaxed(&o->threads_peak))
            rv_store_relaxed(&o->threads_peak, (uint64_t)n + 1);
    }
    rv_lock_release(&o->lock);
    if (s)
        futex_wake(&s->woken);
    if (grow)
        make(o);
    return 0;
}

bool rv_offload_remove(struct rv_offload *o, struct rv_offload_job *job)
{
    rv_lock_acquire(&o->lock);
    bool queued = job->queued;
    if (queued) {
        unlink_job(o, job);
        rv_count(&o->removed, 1);
    }
    rv_lock_release(&o->lock);
    return queued;
}

void rv_offload_stats(struct rv_offload *o, struct rv_offload_stats *ret_stats)
{
    *ret_stats = (struct rv_offload_stats){
        .threads = rv_load_relaxed(&o->threads),
        .threads_peak = rv_load_relaxed(&o->threads_peak),
        .queued = rv_load_relaxed(&o->queued),
        .run = rv_load_relaxed(&o->run),
        .removed = rv_load_relaxed(&o->removed),
    };
}

/* ---- a task that waits for its call ---- */

#define OVER UINT64_MAX /* no token: those begin with a descriptor's index */

/* On the stack of the task. */
struct call {
    struct rv_offload_job job; /* first */
    struct rv_sched *sched;
    uint32_t home; /* the worker that it called on, and is to go on on */
    int result;
    RV_ATOMIC(uint64_t) word; /* the token of the task's wait; OVER: the result is there */
};

static void call_done(struct rv_offload_job *job, int result)
{
    struct call *c = (struct call *)job;
    struct rv_sched *s = c->sched;
    uint32_t home = c->home;
    c->result = result;
    /* Publishes the result, pairs with is_over(); the record may be gone at once. A token of a wait
     * that has ended by itself fires nothing. */
    uint64_t token = rv_xchg_acq_rel(&c->word, OVER);
    rv_wait_fire(s, NULL, token, RV_WOKEN, home);
}

static bool is_over(struct call *c)
{
    return rv_load_acquire(&c->word) == OVER; /* pairs with call_done() */
}

/* It runs, so it is waited for; see (5). */
static void wait_on(struct call *c)
{
    struct rv_worker *w = rv_worker_self();
    struct rv_task *t = w->cur;
    bool masked = rv_load_relaxed(&t->ctl) & RV_CTL_MASKED;
    uint64_t last = rv_load_acquire(&c->word); /* pairs with call_done() */
    if (last == OVER)
        return;
    if (!masked)
        rv_wait_mask(t, true);
    uint64_t token = rv_wait_arm(w->sched, t, 0);
    if (rv_cas(&c->word, &last, token)) /* pairs with call_done() */
        RV_MUST(rv_wait_park(w, t, RV_NEVER) == RV_WOKEN);
    else
        rv_wait_disarm(t);
    if (!masked)
        rv_wait_mask(t, false);
    RV_ASSERT(is_over(c));
}

int rv_offload_run(struct rv_offload *o, reeve_fn *fn, void *arg, reeve_time until)
{
    struct rv_worker *w = rv_in_task("reeve_offload");
    struct rv_sched *s = w->sched;
    struct rv_task *t = w->cur;
    if (fn == NULL)
        return -EINVAL;
    int r = rv_wait_check(s, t);
    if (r < 0)
        return r;
    int64_t end = rv_deadline(t, until);
    if (end != RV_NEVER && end <= rv_worker_now(w))
        return -ETIMEDOUT;
    struct call c = { .job = { .fn = fn, .arg = arg, .done = call_done },
                      .sched = s,
                      .home = w->index };
    rv_store_relaxed(&c.word, rv_wait_arm(s, t, 0)); /* published by the pool's lock */
    r = rv_offload_start(o, &c.job);
    if (r < 0) {
        rv_wait_disarm(t);
        return r;
    }
    int why = rv_wait_park(w, t, end);
    if (why != RV_WOKEN && !is_over(&c)) {
        if (rv_offload_remove(o, &c.job))
            return why == RV_TIMED_OUT ? -ETIMEDOUT : -ECANCELED;
        wait_on(&c);
    }
    RV_ASSERT(is_over(&c));
    return c.result;
}

int reeve_offload(reeve_fn *fn, void *arg, reeve_time until)
{
    return rv_offload_run(rv_in_task("reeve_offload")->sched->offload, fn, arg, until);
}
