/* SPDX-License-Identifier: MIT */
/*
 * heap.c -- tasks with a deadline of their own: earliest deadline first, within their class.
 *
 * Each worker has a heap per class, and so has the injector; a pick takes the earlier of the two
 * heads. A worker's heap is private, because a shared one would cost every pick a lock. A thief
 * that finds nothing better asks its owner instead: the owner, at its next pick, moves the better
 * half of what is not pinned to the injector.
 *
 * Those without a deadline must not starve beside those with one, nor the other way round. Who
 * waits in a queue counts as due some time after it was queued, the sooner the better its class:
 * an earlier deadline goes first. Else heap and queues are served in turn.
 *
 * (1) A task in a heap may be claimed by its joiner; its entry is then dropped when it comes up,
 *     or swept out when half of the heap may be such.
 *
 * Threads: the worker; rv_heap_ask - another one.
 */
#include "mem/die.h"
#include "sched/pick.h"
#include "sched/ready.h"
#include "sched/scope.h"

enum { STALE_MIN = 64, SHARE_MAX = 64, HELD_MAX = 8, HOPE = 2 };

/* How long after it was queued a task without a deadline counts as due. */
static const int64_t due_after[RV_CLASSES] = {
    [RV_LOW] = 1000 * REEVE_MS,
    [RV_NORMAL] = 100 * REEVE_MS,
    [RV_HIGH] = 10 * REEVE_MS,
    [RV_URGENT] = REEVE_MS,
};

/* Says what the heap of class c now begins with. */
static void show(struct rv_worker *w, unsigned c)
{
    const struct rv_timer *min = rv_timers_min(&w->lane[c].heap);
    if (min)
        w->ready |= RV_READY_HEAP(c);
    else
        w->ready &= ~RV_READY_HEAP(c);
    int64_t best = RV_NEVER;
    for (unsigned i = RV_CLASSES; i-- > 0 && best == RV_NEVER;)
        if (w->ready & RV_READY_HEAP(i))
            best = rv_timers_min(&w->lane[i].heap)->at;
    if (rv_load_relaxed(&w->shown_deadline) != best)
        rv_store_relaxed(&w->shown_deadline, best);
    rv_show(w);
}

void rv_heap_push(struct rv_worker *w, unsigned c, struct rv_task *t, uint64_t entry)
{
    struct rv_lane *l = &w->lane[c];
    RV_ASSERT(t->deadline != 0);
    struct rv_timer e = rv_heap_entry(t->deadline, entry);
    if (t->pin == 0)
        w->hidden &= ~RV_READY_HEAP(c);
    if (rv_timers_push(&l->heap, e))
        show(w, c);
    else if (t->pin == 0)
        rv_inject_dated(w->sched, c, &e, 1);
    else
        rv_die("more than %u pinned tasks of one class wait with deadlines on one worker.",
               l->heap.cap);
}

/* The earliest that can still be done in time, by how long such tasks take. Under overload the
 * earliest deadline is the one that is about to be missed: who runs it is late for the next one,
 * too, and so on. What is passed over stays; it expires, or finds less to do before it. */
static uint64_t take_hopeful(struct rv_worker *w, struct rv_lane *l)
{
    struct rv_timer held[HELD_MAX], e = rv_timers_pop(&l->heap);
    bool timed = w->sched->pass_tsc != 0; /* else time is not the CPU's */
    int64_t now = timed ? rv_worker_now(w) : 0;
    uint32_t n = 0;
    while (timed && e.at > now && e.at < now + HOPE * l->dated_ns && l->heap.n > 0 &&
           n < HELD_MAX) {
        held[n++] = e;
        e = rv_timers_pop(&l->heap);
    }
    while (n > 0)
        RV_MUST(rv_timers_push(&l->heap, held[--n])); /* it was in there before */
    if (timed && e.at > now) {
        w->dated_tsc = rv_tsc();
        w->dated_lane = l;
    }
    return rv_entry_of_heap(e);
}

void rv_heap_timed(struct rv_worker *w)
{
    struct rv_lane *l = w->dated_lane;
    int64_t ns = (int64_t)((rv_tsc() - w->dated_tsc) * 1000 / w->sched->us_tsc);
    if (l->dated_ns && ns > 2 * l->dated_ns) /* it was interrupted, or is an exception */
        ns = 2 * l->dated_ns;
    l->dated_ns = l->dated_ns ? (7 * l->dated_ns + ns) / 8 : ns;
    w->dated_tsc = 0;
}

uint64_t rv_heap_take(struct rv_worker *w, unsigned c)
{
    struct rv_lane *l = &w->lane[c];
    const struct rv_timer *mine = rv_timers_min(&l->heap);
    int64_t shared = rv_load_relaxed(&w->sched->injector.of[c].earliest);
    uint64_t entry;
    if (shared != RV_NEVER && (mine == NULL || shared < mine->at))
        if ((entry = rv_injector_take_dated(w->sched, c)) != 0)
            return entry;
    if (mine == NULL)
        return 0;
    entry = take_hopeful(w, l);
    show(w, c);
    return entry;
}

bool rv_heap_is_due(struct rv_worker *w, unsigned c)
{
    struct rv_lane *l = &w->lane[c];
    const struct rv_timer *mine = rv_timers_min(&l->heap);
    int64_t at = rv_load_relaxed(&w->sched->injector.of[c].earliest);
    if (mine && mine->at < at)
        at = mine->at;
    if (at == RV_NEVER)
        return false;
    return at <= (l->waiting_since ? l->waiting_since : w->now) + due_after[c];
}

static bool is_wanted(void *ctx, const struct rv_timer *e)
{
    struct rv_worker *w = ctx;
    uint64_t entry = rv_entry_of_heap(*e);
    struct rv_task *t = rv_task_at(w->sched, rv_entry_index(entry));
    if (!rv_entry_fresh(entry) || !(rv_load_relaxed(&t->st) & RV_ST_CLAIMED))
        return true;
    rv_task_release(w->sched, w, t, RV_ST_QUEUED);
    return false;
}

void rv_heap_tidy(struct rv_worker *w, unsigned c)
{
    struct rv_lane *l = &w->lane[c];
    if (l->heap_stale < STALE_MIN || l->heap_stale <= l->heap.n / 2)
        return;
    rv_timers_sweep(&l->heap, is_wanted, w);
    l->heap_stale = 0;
    show(w, c);
}

/* Moves the earlier half, at most SHARE_MAX, to the injector; what is pinned stays. */
static void share(struct rv_worker *w, unsigned c)
{
    struct rv_lane *l = &w->lane[c];
    struct rv_timer out[SHARE_MAX], stay[SHARE_MAX];
    uint32_t n = l->heap.n - l->heap.n / 2, outs = 0, stays = 0;
    while (l->heap.n > 0 && outs < n && outs < SHARE_MAX && stays < SHARE_MAX) {
        struct rv_timer e = rv_timers_pop(&l->heap);
        struct rv_task *t = rv_task_at(w->sched, rv_entry_index(rv_entry_of_heap(e)));
        if (t->pin)
            stay[stays++] = e;
        else
            out[outs++] = e;
    }
    for (uint32_t i = 0; i < stays; i++)
        RV_MUST(rv_timers_push(&l->heap, stay[i])); /* it was in there before */
    if (outs == 0 && stays == l->heap.n)
        w->hidden |= RV_READY_HEAP(c); /* or who looks for work would ask for ever */
    show(w, c);
    if (outs == 0)
        return;
    rv_inject_dated(w->sched, c, out, outs);
    rv_wake_one(w->sched);
}

static void asked(struct rv_worker *w, struct rv_call_msg *m)
{
    struct rv_worker *thief =
        (struct rv_worker *)((unsigned char *)m - offsetof(struct rv_worker, ask));
    for (unsigned c = RV_CLASSES; c-- > 0;)
        if (w->ready & RV_READY_HEAP(c)) {
            share(w, c);
            break;
        }
    rv_store_release(&thief->asking, 0u); /* pairs with rv_heap_ask(): the message is free again */
}

void rv_heap_ask(struct rv_worker *w, struct rv_worker *victim)
{
    RV_ASSERT(w != victim);
    if (rv_load_acquire(&w->asking))
        return;
    rv_store_relaxed(&w->asking, 1u);
    rv_count(&w->n.asked, 1);
    w->ask.fn = asked;
    rv_send(w->sched, victim, &w->ask.msg, RV_MSG_CALL);
    rv_store_relaxed(&victim->resched, (uint32_t)RV_RESCHED_NOW);
}
