/* SPDX-License-Identifier: MIT */
/*
 * cancel.c -- cancellation: a flag, a walk down the tree, and a kick for whoever waits.
 *
 * Cancelling a task sets a flag in its control word, ends (or asks its engine to end) the wait
 * that it is in, and does the same to every child that its scope's list holds. Children that are
 * not in the list need no visit: one that has not started sees its scope's flag when it is picked,
 * one that runs and has never suspended looks when it links itself.
 *
 * (1) The flag is set before the lists are walked, and a child links itself under the lock before
 *     it looks at the flag: so either the walk finds it or it finds the flag.
 * (2) The walk keeps a work list instead of recursing: a chain of a million nested tasks costs no
 *     stack. What is on the list is held by RV_ST_PINNED, taken under its scope's lock while it
 *     was still a child; msg.aux is the list's link.
 * (3) A scope that holds cancellation (a server's connections) is passed by; its owner cancels it
 *     when its time has come. So is what was spawned under a shield: it ends by its deadline.
 *
 * Threads: anyone.
 */
#include "mem/die.h"
#include "sched/loan.h"
#include "sched/scope.h"
#include "sched/wait.h"

/* Flags every child of the scope and adds it to the list. */
static uint32_t flag_kids(struct rv_sched *s, struct rv_task *scope, uint32_t gen, uint32_t list)
{
    rv_lock_acquire(&scope->lock);
    if (rv_task_gen(scope) != gen) { /* ended before we came */
        rv_lock_release(&scope->lock);
        return list;
    }
    for (uint32_t i = scope->kids; i != RV_NIL;) {
        struct rv_task *kid = rv_task_at(s, i);
        uint32_t next = kid->sib_next;
        if (!(rv_load_relaxed(&kid->ctl) & (RV_CTL_HOLDS | RV_CTL_SPARED)) &&
            !(rv_or_acq_rel(&kid->ctl, (uint64_t)RV_CTL_CANCELLED) & RV_CTL_CANCELLED)) {
            rv_or_acq_rel(&kid->st, RV_ST_PINNED);
            kid->msg.aux = list;
            list = i;
        }
        i = next;
    }
    rv_lock_release(&scope->lock);
    return list;
}

static void cancel_below(struct rv_sched *s, struct rv_worker *w, struct rv_task *t, uint32_t gen)
{
    uint32_t list = flag_kids(s, t, gen, RV_NIL);
    while (list != RV_NIL) {
        struct rv_task *kid = rv_task_at(s, list);
        list = kid->msg.aux;
        rv_wait_kick(s, w, kid);
        list = flag_kids(s, kid, rv_task_gen(kid), list);
        rv_task_release(s, w, kid, RV_ST_PINNED);
    }
}

/* A kick may come to an op on this worker's ring. */
void rv_cancel_below(struct rv_sched *s, struct rv_task *t, uint32_t gen)
{
    struct rv_worker *self = rv_worker_self(), *w = self && self->sched == s ? self : NULL;
    uint32_t was = w ? rv_rt_enter(w) : 0;
    cancel_below(s, w, t, gen);
    if (w)
        rv_rt_leave(w, was);
}

void rv_cancel(struct rv_sched *s, struct rv_worker *w, struct rv_task *t, uint32_t gen)
{
    uint64_t ctl = rv_load_relaxed(&t->ctl);
    do {
        if ((uint32_t)(ctl >> 32) != gen || ctl & RV_CTL_CANCELLED)
            return;
    } while (!rv_cas(&t->ctl, &ctl, ctl | RV_CTL_CANCELLED));
    uint32_t was = w ? rv_rt_enter(w) : 0;
    rv_wait_kick(s, w, t);
    if (w)
        rv_rt_leave(w, was);
    rv_cancel_below(s, t, gen);
}
