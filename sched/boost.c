/* SPDX-License-Identifier: MIT */
/*
 * boost.c -- lending a task a better class, because somebody of that class waits for it.
 *
 * The holder of a lock runs in the class of the best of its waiters until it gives the lock back.
 * The loan is in the task's control word, next to its generation: a loan to a task that is over
 * fails by the same compare-and-swap.
 *
 *     ctl:  generation (32) | loans (16) | 5 | lent class (3) | flags (8)
 *
 * A task that is queued already, in a worse class, must be found. Nobody knows where it is, so
 * every worker is told to look through the queues of its own before its next pick, and the lender
 * looks through the injector. That costs some microseconds a worker, and happens only when a
 * better class waits for a worse one.
 *
 * (1) A worker reads the class of a task before it queues it, and looks for lent classes after it
 *     was told, which is after the loan: what it queued by the old class it finds.
 * (2) An entry that a thief carries from a worker that has not looked to one that has is missed.
 *     It is then served in its old class, whose bound on starvation holds.
 *
 * Threads: boost - anyone; unboost - the task; promote - the worker.
 */
#include "mem/die.h"
#include "sched/pick.h"
#include "sched/ready.h"

#define LOAN ((uint64_t)1 << RV_CTL_LOANS_SHIFT)
#define LENT ((uint64_t)7 << RV_CTL_LENT_SHIFT)

static void look_for_it(struct rv_sched *s)
{
    for (uint32_t i = 0; i < s->nworkers; i++) {
        struct rv_worker *w = s->workers[i];
        rv_store_release(&w->promote, 1u); /* pairs with the exchange in rv_promote(); (1) */
        /* It looks at the next pass boundary, which is now. */
        rv_store_relaxed(&w->resched, (uint32_t)RV_RESCHED_NOW);
    }
    rv_injector_promote(s);
}

static bool lend(struct rv_sched *s, uint32_t idx, uint32_t gen, unsigned cls, uint64_t loan)
{
    struct rv_task *t = rv_task_at(s, idx);
    uint64_t ctl = rv_load_relaxed(&t->ctl), next;
    unsigned was;
    RV_ASSERT(cls >= REEVE_LOW && cls <= REEVE_URGENT);
    do {
        if ((uint32_t)(ctl >> 32) != gen || (ctl >> RV_CTL_LOANS_SHIFT & 0xffff) == 0xffff)
            return false;
        was = rv_class_by(t, ctl) + 1;
        next = ctl + loan;
        if (cls > (ctl >> RV_CTL_LENT_SHIFT & 7))
            next = (next & ~LENT) | (uint64_t)cls << RV_CTL_LENT_SHIFT;
    } while (!rv_cas(&t->ctl, &ctl, next));
    if (cls > was) {
        struct rv_worker *self = rv_worker_self();
        if (self && self->sched == s)
            rv_count(&self->n.boosts, 1);
        rv_store_relaxed(&s->classes, 1u);
        look_for_it(s);
    }
    return true;
}

bool rv_boost(struct rv_sched *s, uint32_t idx, uint32_t gen, unsigned cls)
{
    return lend(s, idx, gen, cls, LOAN);
}

bool rv_boost_raise(struct rv_sched *s, uint32_t idx, uint32_t gen, unsigned cls)
{
    return lend(s, idx, gen, cls, 0);
}

void rv_lend(struct rv_task *t, unsigned cls)
{
    uint64_t ctl = rv_load_relaxed(&t->ctl);
    while (cls > (ctl >> RV_CTL_LENT_SHIFT & 7) &&
           !rv_cas(&t->ctl, &ctl, (ctl & ~LENT) | (uint64_t)cls << RV_CTL_LENT_SHIFT))
        ;
}

void rv_unboost(struct rv_task *t)
{
    uint64_t ctl = rv_load_relaxed(&t->ctl), next;
    do {
        RV_MUST((ctl >> RV_CTL_LOANS_SHIFT & 0xffff) != 0);
        next = ctl - LOAN;
        if ((next >> RV_CTL_LOANS_SHIFT & 0xffff) == 0)
            next &= ~LENT;
    } while (!rv_cas(&t->ctl, &ctl, next));
}

/* Takes each entry of the ring out and puts it where it belongs now. */
static void sort_ring(struct rv_worker *w, unsigned c)
{
    for (uint32_t n = rv_runq_len(&w->lane[c].ring); n > 0; n--) {
        uint64_t entry = rv_runq_pop(&w->lane[c].ring);
        if (entry == 0)
            return; /* thieves were faster */
        struct rv_task *t = rv_task_at(w->sched, rv_entry_index(entry));
        rv_push_ring(w, rv_class(t), entry, &t->msg);
    }
}

static void sort_heap(struct rv_worker *w, unsigned c)
{
    struct rv_timers *h = &w->lane[c].heap;
    uint32_t n = 0;
    struct rv_timer worse[64]; /* the earliest; a loan to one that is due later can wait */
    while (rv_timers_min(h) && n < sizeof worse / sizeof *worse) {
        struct rv_timer e = rv_timers_pop(h);
        struct rv_task *t = rv_task_at(w->sched, rv_entry_index(rv_entry_of_heap(e)));
        if (rv_class(t) > c)
            rv_heap_push(w, rv_class(t), t, rv_entry_of_heap(e));
        else
            worse[n++] = e;
    }
    while (n > 0)
        RV_MUST(rv_timers_push(h, worse[--n])); /* it was in there before */
}

static void sort_pinned(struct rv_worker *w, unsigned c)
{
    struct rv_msg *m = w->lane[c].pinned_head;
    w->lane[c].pinned_head = NULL;
    w->lane[c].pinned_len = 0;
    while (m) {
        struct rv_msg *next = rv_msg_next(m);
        rv_task_message(w, m);
        m = next;
    }
}

void rv_promote(struct rv_worker *w)
{
    if (!rv_xchg_acq_rel(&w->promote, 0u))
        return;
    for (unsigned c = 0; c + 1 < RV_CLASSES; c++) {
        sort_ring(w, c);
        sort_heap(w, c);
        sort_pinned(w, c);
    }
    /* The slot runs next anyway, in its class. */
}
