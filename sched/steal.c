/* SPDX-License-Identifier: MIT */
/*
 * steal.c -- taking work from other workers.
 *
 * The best class that anybody shows comes first, whoever has it; within a class victims are tried
 * in order from a random start. From a deque comes the oldest entry, which in a tree of spawns is
 * the largest subtree; only then, from a ring, half of it, oldest first: units that yielded are in
 * there, warm, and their children in the victim's deque. A slot only on the last pass, and only if
 * its task has waited for long: one that was just woken runs next on its own worker, and taking it
 * would cost both. Heaps are private: who sees nothing else asks their owner to share.
 *
 * (1) A stolen entry belongs to the thief from the moment its compare-and-swap succeeded.
 * (2) Pinned tasks are in no stealable queue.
 * (3) What a worker shows of its other classes and heaps may be late, either way; NORMAL's queues
 *     are looked at themselves.
 *
 * Threads: the thief.
 */
#include "mem/die.h"
#include "sched/pick.h"

/* How long a task waits in a slot before a thief may take it; and by how much another worker's
 * deadline must be earlier to be asked for. */
enum { SLOT_AGE_US = 50, EARLIER_US = 50 };

static uint64_t steal_slot(struct rv_worker *w, struct rv_worker *victim)
{
    uint64_t e = rv_load_acquire(&victim->slot);
    if (e == 0)
        return 0;
    uint64_t age = rv_tsc() - rv_load_relaxed(&victim->slot_tsc);
    if (!w->sched->random && age < SLOT_AGE_US * w->sched->us_tsc)
        return 0;
    return rv_cas(&victim->slot, &e, 0) ? e : 0;
}

static uint64_t steal_from(struct rv_worker *w, struct rv_worker *victim, unsigned c,
                           bool last_pass)
{
    uint64_t e = 0;
    bool lost = false;
    do {
        e = rv_deque_steal(&victim->lane[c].deque, &lost);
    } while (e == 0 && lost);
    if (e == 0 && rv_runq_steal(&victim->lane[c].ring, &w->lane[c].ring, &e) > 1 &&
        c != RV_NORMAL) {
        w->ready |= RV_READY_QUEUES(c);
        rv_show(w);
    }
    if (e == 0 && last_pass && c == RV_NORMAL)
        e = steal_slot(w, victim);
    return e;
}

/* A stolen entry runs first. */
static void keep(struct rv_worker *w, unsigned c, uint64_t e)
{
    rv_count(&w->n.steals_got, 1);
    rv_fastclock_doubt(&w->clock);
    if (c != RV_NORMAL) {
        rv_push_ring(w, c, e, &rv_task_at(w->sched, rv_entry_index(e))->msg);
        return;
    }
    rv_store_relaxed(&w->slot_tsc, rv_tsc());
    rv_store_release(&w->slot, e); /* pairs with the exchange of who takes it */
}

static bool steal_class(struct rv_worker *w, unsigned c, bool last_pass)
{
    struct rv_sched *s = w->sched;
    uint32_t start = rv_random(w) % s->nworkers;
    for (uint32_t i = 0; i < s->nworkers; i++) {
        struct rv_worker *victim = s->workers[(start + i) % s->nworkers];
        if (victim == w)
            continue;
        if (c != RV_NORMAL && !(rv_load_relaxed(&victim->shown) & RV_READY_QUEUES(c)))
            continue;
        rv_count(&w->n.steals_tried, 1);
        uint64_t e = steal_from(w, victim, c, last_pass);
        if (e == 0)
            continue;
        keep(w, c, e);
        return true;
    }
    return false;
}

/* Asks somebody who shows deadlines to share them. What comes arrives by the injector. */
static void ask_anybody(struct rv_worker *w)
{
    struct rv_sched *s = w->sched;
    uint32_t start = rv_random(w) % s->nworkers;
    for (uint32_t i = 0; i < s->nworkers; i++) {
        struct rv_worker *victim = s->workers[(start + i) % s->nworkers];
        if (victim != w && rv_load_relaxed(&victim->shown) >= RV_READY_HEAP(0)) {
            rv_heap_ask(w, victim);
            return;
        }
    }
}

/* What the others show. */
static uint32_t shown_elsewhere(struct rv_worker *w)
{
    struct rv_sched *s = w->sched;
    uint32_t shown = 0;
    for (uint32_t i = 0; i < s->nworkers; i++)
        if (s->workers[i] != w)
            shown |= rv_load_relaxed(&s->workers[i]->shown);
    return shown;
}

bool rv_steal(struct rv_worker *w, bool last_pass)
{
    RV_ASSERT(w->sched->nworkers > 1);
    RV_ASSERT(rv_load_relaxed(&w->slot) == 0);
    uint32_t shown = rv_load_relaxed(&w->sched->classes) ? shown_elsewhere(w) : 0;
    for (unsigned c = RV_CLASSES; c-- > 0;)
        if ((c == RV_NORMAL || shown & RV_READY_QUEUES(c)) && steal_class(w, c, last_pass))
            return true;
    if (shown >= RV_READY_HEAP(0))
        ask_anybody(w);
    return false;
}

/* The best class of a mask, its heaps counted in; -1: none. */
static int best_of(uint32_t ready)
{
    uint32_t classes = (ready | ready >> 4) & 15;
    return classes ? 31 - __builtin_clz(classes) : -1;
}

void rv_look_elsewhere(struct rv_worker *w)
{
    struct rv_sched *s = w->sched;
    struct rv_worker *other = s->workers[rv_random(w) % s->nworkers];
    uint32_t shown = rv_load_relaxed(&other->shown);
    int theirs = best_of(shown), mine = best_of(w->ready);
    if (other == w || theirs < 0 || theirs < mine)
        return;
    unsigned c = (unsigned)theirs;
    if (theirs > mine && theirs > RV_NORMAL && shown & RV_READY_QUEUES(c)) {
        uint64_t e = steal_from(w, other, c, false);
        rv_count(&w->n.steals_tried, 1);
        if (e != 0) {
            keep(w, c, e);
            return;
        }
    }
    int64_t at = rv_load_relaxed(&other->shown_deadline);
    if (shown & RV_READY_HEAP(c) &&
        (theirs > mine || at < rv_load_relaxed(&w->shown_deadline) - EARLIER_US * REEVE_US))
        rv_heap_ask(w, other);
}
