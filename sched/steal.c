/* SPDX-License-Identifier: MIT */
/*
 * steal.c -- taking work from other workers.
 *
 * Victims are tried in order from a random start. From a deque comes the oldest entry, which in a
 * tree of spawns is the largest subtree; only then, from a ring, half of it, oldest first: units
 * that yielded are in there, warm, and their children in the victim's deque. A slot only on the
 * last pass, and only if its task has waited for long: one that was just woken runs next on its
 * own worker, and taking it would cost both.
 *
 * (1) A stolen entry belongs to the thief from the moment its compare-and-swap succeeded.
 * (2) Pinned tasks are in no stealable queue.
 *
 * Threads: the thief.
 */
#include "mem/die.h"
#include "sched/pick.h"

/* How long a task waits in a slot before a thief may take it. */
enum { SLOT_AGE_US = 50 };

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

static uint64_t steal_from(struct rv_worker *w, struct rv_worker *victim, bool last_pass)
{
    uint64_t e = 0;
    bool lost = false;
    do {
        e = rv_deque_steal(&victim->deque, &lost);
    } while (e == 0 && lost);
    if (e == 0)
        rv_runq_steal(&victim->runq, &w->runq, &e);
    if (e == 0 && last_pass)
        e = steal_slot(w, victim);
    return e;
}

bool rv_steal(struct rv_worker *w, bool last_pass)
{
    struct rv_sched *s = w->sched;
    RV_ASSERT(s->nworkers > 1);
    RV_ASSERT(rv_load_relaxed(&w->slot) == 0);
    uint32_t start = rv_random(w) % s->nworkers;
    for (uint32_t i = 0; i < s->nworkers; i++) {
        struct rv_worker *victim = s->workers[(start + i) % s->nworkers];
        if (victim == w)
            continue;
        rv_count(&w->n.steals_tried, 1);
        uint64_t e = steal_from(w, victim, last_pass);
        if (e == 0)
            continue;
        rv_count(&w->n.steals_got, 1);
        rv_store_relaxed(&w->slot_tsc, rv_tsc());
        rv_store_release(&w->slot, e); /* it runs first; pairs with the exchange of who takes it */
        return true;
    }
    return false;
}
