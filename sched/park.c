/* SPDX-License-Identifier: MIT */
/*
 * park.c -- sleeping, waking, and the argument that no work is left behind.
 *
 * A worker with nothing to do sleeps in its engine. Waking one costs some 40 us round trip for as
 * little as 0.3 us of work, so not every piece of work that could be stolen wakes a thief. Instead
 * one of the idle workers, the sentinel, does not sleep for good: it ticks, every 200 us at first
 * and then ever more slowly up to 10 ms, looks at the others' queues and steals. While it is
 * there, publishing stealable work costs a load. When a full 10 ms tick has seen no pick anywhere
 * it resigns, and an idle runtime wakes up for nothing.
 *
 *     running  -> parked    [publish_parked]   parked = 1, counted in nparked
 *     parked   -> running   [unpark]           by itself: a completion, a timer, a tick, a re-scan
 *     parked   -> claimed   [claim_parked]     by a waker: parked = 2 (search) or 3 (look into your
 *                                              inbox); its wake is latched: it may come too early
 *     claimed  -> running   [unpark]
 *
 *     no sentinel -> sentinel   [sentinel_until, appoint]
 *     sentinel    -> none       [resign]       it found work, or a quiet tick
 *
 * Nothing is lost, because of each two who could miss each other one looks after a full fence
 * following its own announcement:
 *
 * (1) Inbox. The sender pushes, fences, reads `parked`. The parker stores parked, fences, reads
 *     its inbox. In the order of the fences, if the sender's is first the parker sees the message;
 *     else the sender sees parked and claims it.
 * (2) Injector. The poster pushes, fences, reads `searching`, then every `parked`. A parker is as
 *     in (1). A searcher that the poster relied on leaves the search either by parking, which
 *     re-scans after its fence, or by finding work: the last one to do that looks at the injector
 *     again and wakes another.
 * (3) Stealable work with a sentinel ticking: found within one tick.
 * (4) Stealable work without one. The producer pushes, then reads `sentinel` and `nparked`,
 *     without a fence of its own: whoever gives up the sentinel's place, or sleeps untimed while
 *     nobody has it, runs membarrier(PRIVATE_EXPEDITED) after the announcement, which puts a full
 *     fence into every running thread of this process; then it re-scans all queues. So either the
 *     producer sees the announcement and wakes a worker, or the re-scan sees the push. Where the
 *     kernel refuses membarrier the producer fences itself.
 * (5) A claim is one compare-and-swap of `parked`, so at most one waker wakes a worker, with one
 *     system call.
 * (6) Where stuck workers are rescued (loan.c), the sentinel ticks at least every millisecond, and
 *     resigns only when all others sleep; a worker about to run tasks appoints one if there is
 *     none.
 *
 * Hence: runnable work waits at most one tick while a worker is parked.
 *
 * Threads: rv_park - the worker; wakes - anyone.
 */
#include "sched/park.h"

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mem/die.h"
#include "sched/loan.h"
#include "sched/pick.h"

enum { PARKED = 1, CLAIMED_TO_SEARCH = 2, CLAIMED = 3 };
enum { EASE_AFTER_MS = 1000, EASE_EVERY_MS = 20, EASE_STACKS = 1024 };
enum { TICK_US = 200, TICK_MAX_US = 10000, TICK_SHIFT_MAX = 6 };
enum { RESCUE_TICK_MAX_US = 1000 };

static long membarrier(int cmd)
{
    return syscall(SYS_membarrier, cmd, 0, 0);
}

void rv_fences_init(struct rv_sched *s)
{
    s->light_fences = membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0;
#if defined(__SANITIZE_THREAD__)
    s->light_fences = false; /* the sanitizer sees only fences of its own */
#endif
}

/* The parker's side of (4). */
static void heavy_fence(struct rv_sched *s)
{
    rv_fence_seqcst();
    if (s->light_fences)
        RV_MUST(membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0);
}

/* Takes a parked worker for the caller to wake. */
static bool claim_parked(struct rv_sched *s, struct rv_worker *to, uint32_t claim)
{
    uint32_t parked = PARKED;
    if (rv_load_relaxed(&to->parked) != PARKED || !rv_cas(&to->parked, &parked, claim))
        return false;
    rv_sub_acq_rel(&s->nparked, 1u);
    return true;
}

static void wake(struct rv_sched *s, struct rv_worker *to)
{
    struct rv_worker *self = rv_worker_self();
    if (self && self->sched == s)
        rv_count(&self->n.wakes_sent, 1);
    else
        rv_add_relaxed(&s->foreign_wakes, 1u);
    s->engine->wake(to);
}

void rv_wake_worker(struct rv_sched *s, struct rv_worker *to)
{
    rv_fence_seqcst(); /* pairs with publish_parked(); see (1) */
    if (claim_parked(s, to, CLAIMED))
        wake(s, to);
}

void rv_wake_quietly(struct rv_sched *s, struct rv_worker *to)
{
    rv_fence_seqcst(); /* pairs with publish_parked(); see loan.c (5) */
    if (claim_parked(s, to, CLAIMED))
        s->engine->wake(to);
}

void rv_send(struct rv_sched *s, struct rv_worker *to, struct rv_msg *m, uint8_t kind)
{
    RV_ASSERT(kind != 0);
    m->kind = kind;
    rv_inbox_push(&to->inbox, m);
    rv_wake_worker(s, to);
}

/* Leaves the search. True: it was the last one, and somebody who pushed into the injector may have
 * relied on it. */
static bool leave_search(struct rv_sched *s)
{
    if (rv_sub_acq_rel(&s->searching, 1u) != 1)
        return false;
    /* pairs with that in rv_wake_one(): who relied on this search pushed before */
    rv_fence_seqcst();
    return rv_load_relaxed(&s->injector.len) != 0;
}

void rv_wake_one(struct rv_sched *s)
{
    rv_fence_seqcst(); /* pairs with publish_parked() and leave_search(); see (2) */
    for (uint32_t i = 0; i < s->nworkers; i++) {
        struct rv_worker *to = s->workers[i];
        if (rv_load_relaxed(&s->nparked) == 0 || rv_load_relaxed(&s->searching) != 0)
            return;
        if (rv_load_relaxed(&to->parked) != PARKED)
            continue;
        rv_add_acq_rel(&s->searching, 1u);
        if (claim_parked(s, to, CLAIMED_TO_SEARCH)) {
            wake(s, to);
            return;
        }
        /* It woke up by itself. Others may have relied on the search that did not come to be. */
        if (leave_search(s))
            i = UINT32_MAX;
    }
}

/* Appoints a sleeping worker. True: there is a sentinel now, or nobody sleeps. */
static bool appoint(struct rv_sched *s)
{
    for (uint32_t i = 0; i < s->nworkers; i++) {
        struct rv_worker *to = s->workers[i];
        uint32_t none = 0;
        if (rv_load_relaxed(&to->parked) != PARKED)
            continue;
        if (!rv_cas(&s->sentinel, &none, i + 1))
            return true; /* somebody else has just appointed one */
        if (claim_parked(s, to, CLAIMED)) {
            wake(s, to);
            return true;
        }
        /* It woke up by itself. Who went to sleep meanwhile relied on it: as in resign(). */
        rv_store_release(&s->sentinel, 0u);
        heavy_fence(s);
        return rv_load_relaxed(&s->nparked) == 0;
    }
    return true;
}

void rv_notify_slow(struct rv_sched *s)
{
    while (!appoint(s))
        rv_cpu_relax();
}

/* What others could take off this worker. */
static uint32_t stealable(struct rv_worker *w)
{
    uint32_t n = rv_load_relaxed(&w->slot) != 0;
    for (unsigned c = 0; c < RV_CLASSES; c++)
        n += rv_lane_stealable(&w->lane[c]) + w->lane[c].heap.n;
    return n;
}

void rv_share(struct rv_worker *w)
{
    struct rv_sched *s = w->sched;
    uint32_t waiting;
    if (rv_load_relaxed(&s->nparked) == 0 || (waiting = stealable(w)) == 0)
        return;
    uint64_t worth = s->worth_tsc;
    uint64_t mean = w->mean_tsc ? w->mean_tsc : worth;
    if (waiting * mean > worth)
        rv_wake_one(s);
    else
        rv_notify(w);
}

/* Of other classes, and of deadlines that this worker has not asked for yet: the answer to a
 * question comes by the injector, and wakes somebody. */
static uint32_t shown_by(struct rv_worker *w, struct rv_worker *other)
{
    uint32_t shown = rv_load_relaxed(&other->shown), n = 0;
    for (unsigned c = 0; c < RV_CLASSES && shown & 15; c++)
        if (shown & RV_READY_QUEUES(c)) /* thieves may have emptied it and its owner be asleep */
            n += rv_lane_stealable(&other->lane[c]);
    return n + (rv_load_relaxed(&w->asking) ? 0 : shown >> 4);
}

static uint32_t queued_elsewhere(struct rv_worker *w)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < w->sched->nworkers; i++) {
        struct rv_worker *other = w->sched->workers[i];
        if (other != w)
            n += rv_lane_stealable(&other->lane[RV_NORMAL]) + (rv_load_relaxed(&other->slot) != 0) +
                 shown_by(w, other);
    }
    return n;
}

static uint64_t picks_elsewhere(struct rv_worker *w)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < w->sched->nworkers; i++)
        if (w->sched->workers[i] != w)
            n += rv_load_relaxed(&w->sched->workers[i]->n.picks) +
                 rv_load_relaxed(&w->sched->workers[i]->n.inline_runs);
    return n;
}

static bool is_sentinel(struct rv_worker *w)
{
    return rv_load_relaxed(&w->sched->sentinel) == w->index + 1;
}

/* Gives up the sentinel's place; see (4). */
static void resign(struct rv_worker *w)
{
    struct rv_sched *s = w->sched;
    rv_store_release(&s->sentinel, 0u);
    w->tick_shift = 0;
    heavy_fence(s);
    if ((queued_elsewhere(w) != 0 || stealable(w) != 0) && rv_load_relaxed(&s->nparked) != 0)
        rv_notify_slow(s);
}

void rv_found_work(struct rv_worker *w)
{
    struct rv_sched *s = w->sched;
    if (is_sentinel(w))
        resign(w);
    if (!w->searching)
        return;
    w->searching = false;
    if (leave_search(s))
        rv_wake_one(s);
}

/* For a worker that is not parked yet itself. */
static bool others_run(struct rv_sched *s)
{
    return rv_load_relaxed(&s->nparked) + 1 < s->nworkers;
}

/* The next tick, and what it is at most. Who looks after stuck workers has to come round often. */
static int64_t tick_ns(struct rv_worker *w)
{
    struct rv_sched *s = w->sched;
    int64_t most = s->rescue_ns ? RESCUE_TICK_MAX_US : TICK_MAX_US;
    int64_t us = (int64_t)TICK_US << w->tick_shift;
    if (w->tick_shift <= TICK_SHIFT_MAX)
        w->tick_shift++;
    if (s->rescue_ns && s->rescue_ns < TICK_US * REEVE_US)
        us = us * s->rescue_ns / (TICK_US * REEVE_US);
    return (us < most ? us : most) * REEVE_US;
}

/* Whether a tick that has seen no pick was the last. A worker that is stuck picks nothing either:
 * who looks after it stays until all others sleep. */
static bool is_quiet(struct rv_worker *w)
{
    return w->sched->rescue_ns ? !others_run(w->sched) : w->tick_shift > TICK_SHIFT_MAX;
}

/* Decides whether this worker ticks. Returns until when it may sleep for that reason. */
static int64_t sentinel_until(struct rv_worker *w)
{
    struct rv_sched *s = w->sched;
    uint32_t none = 0;
    uint64_t picks = picks_elsewhere(w);
    if (is_sentinel(w) && picks == w->tick_picks && is_quiet(w)) {
        resign(w);
        if (s->rescue_ns == 0 || !others_run(s)) /* (6): one may have woken up before that */
            return RV_NEVER;
    }
    if (!is_sentinel(w)) {
        if (!others_run(s) || !rv_cas(&s->sentinel, &none, w->index + 1))
            return RV_NEVER;
        w->tick_shift = 0;
    }
    if (picks != w->tick_picks && w->tick_shift > TICK_SHIFT_MAX)
        w->tick_shift = TICK_SHIFT_MAX; /* somebody works: no quiet tick */
    w->tick_picks = picks;
    return rv_worker_now(w) + tick_ns(w);
}

/* Anything that this worker would have to stay up for. */
static bool rescan(struct rv_worker *w, bool others)
{
    return rv_worker_has_work(w) || rv_load_acquire(&w->sched->stopping) || rv_loan_offered(w) ||
           (others && queued_elsewhere(w) != 0);
}

static void publish_parked(struct rv_worker *w)
{
    struct rv_sched *s = w->sched;
    rv_store_relaxed(&w->parked, PARKED);
    rv_add_acq_rel(&s->nparked, 1u);
    if (w->searching) {
        w->searching = false;
        rv_sub_acq_rel(&s->searching, 1u);
    }
    rv_fence_seqcst(); /* pairs with the fences in rv_wake_worker() and rv_wake_one() */
}

static void unpark(struct rv_worker *w)
{
    uint32_t was = rv_xchg_acq_rel(&w->parked, 0u);
    RV_ASSERT(was != 0);
    if (was == PARKED)
        rv_sub_acq_rel(&w->sched->nparked, 1u);
    else if (was == CLAIMED_TO_SEARCH)
        w->searching = true;
}

/* Stacks stay warm after a peak, since it may come again, but not for ever: when they have been
 * surplus for a second, whoever goes to sleep lets some of them go cold, and worker 0 sleeps no
 * longer than until it is time for the next. Returns until when. */
static int64_t ease_stacks(struct rv_worker *w)
{
    struct rv_sched *s = w->sched;
    int64_t at = rv_load_relaxed(&s->ease_at);
    if (__builtin_expect(!rv_stack_pool_is_warm(&s->stacks), 1)) {
        if (at != 0)
            rv_store_relaxed(&s->ease_at, 0);
        return RV_NEVER;
    }
    int64_t now = rv_worker_now(w);
    if (at == 0 && rv_cas(&s->ease_at, &at, now + EASE_AFTER_MS * REEVE_MS))
        at = now + EASE_AFTER_MS * REEVE_MS;
    if (now >= at && rv_cas(&s->ease_at, &at, now + EASE_EVERY_MS * REEVE_MS)) {
        rv_stack_pool_ease(&s->stacks, EASE_STACKS);
        at = now + EASE_EVERY_MS * REEVE_MS;
    }
    return w->index == 0 ? at : RV_NEVER;
}

void rv_park(struct rv_worker *w)
{
    struct rv_sched *s = w->sched;
    bool many = s->nworkers > 1;
    int64_t ease = ease_stacks(w);
    int64_t tick = many ? sentinel_until(w) : RV_NEVER;
    publish_parked(w);
    if (many && tick == RV_NEVER && rv_load_relaxed(&s->sentinel) == 0)
        heavy_fence(s);
    if (!rescan(w, many && tick == RV_NEVER)) {
        int64_t until = rv_worker_until(w);
        until = ease < until ? ease : until;
        rv_count(&w->n.parks, 1);
        s->engine->park(w, tick < until ? tick : until);
    }
    unpark(w);
}
