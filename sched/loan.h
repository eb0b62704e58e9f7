/* SPDX-License-Identifier: MIT */
/*
 * loan.h -- the marks around reeve's own code, and the loan of a worker that is stuck in a task's
 * code. Why and how is in loan.c.
 *
 *     uint32_t was = rv_rt_enter(w);      // from here on the worker's state is ours alone
 *     ... what only the worker may touch ...
 *     rv_rt_leave(w, was);                // after a suspension: rv_rt_leave(rv_worker_self(), was)
 *
 * Marks nest. What needs one, and what does not, is in the table in loan.c.
 */
#ifndef RV_SCHED_LOAN_H
#define RV_SCHED_LOAN_H

#include "sched/park.h"
#include "sched/worker.h"

/* struct rv_loan's state. */
enum rv_loan_state { RV_LOAN_NONE, RV_LOAN_LENT, RV_LOAN_TAKEN, RV_LOAN_AWAITED };

/* The slow half of rv_rt_enter(): takes the loan back, or waits until it is given back. */
void rv_loan_back(struct rv_worker *w);

/* Enters reeve code on the worker's own thread, which is not in it: rv_rt_leave(w, 0) ends it. */
RV_ALWAYS void rv_rt_begin(struct rv_worker *w)
{
    rv_store_relaxed(&w->loan.in_rt, 1u);
    rv_compiler_barrier(); /* a signal handler of this thread lends only before this store */
    /* Pairs with the release in rv_loan_take(): what the holder did is ours to see. */
    if (__builtin_expect(rv_load_acquire(&w->loan.state) != RV_LOAN_NONE, 0))
        rv_loan_back(w);
}

/* The same where it may be in it. Returns what rv_rt_leave() is to put back. */
RV_ALWAYS uint32_t rv_rt_enter(struct rv_worker *w)
{
    uint32_t was = rv_load_relaxed(&w->loan.in_rt);
    rv_rt_begin(w);
    return was;
}

RV_ALWAYS void rv_rt_leave(struct rv_worker *w, uint32_t was)
{
    rv_compiler_barrier(); /* and only after this one */
    rv_store_relaxed(&w->loan.in_rt, was);
}

/* Makes signals possible for this worker's thread, and ends that. The worker's thread. */
void rv_loan_attach(struct rv_worker *w);
void rv_loan_detach(struct rv_worker *w);

/* The signal has come. In its handler, on the worker's thread. */
void rv_loan_called(struct rv_worker *w);

/* For a worker with nothing to do: looks after all others. True: it took a loan, and there may be
 * something to do now. */
bool rv_loan_look(struct rv_worker *w);

/* Whether some other worker's loan waits to be taken: the last look before a sleep. */
bool rv_loan_offered(struct rv_worker *w);

/* Does for a worker what its loan allows, if it is to be had. */
bool rv_loan_take(struct rv_worker *by, struct rv_worker *of);

/* A worker that is not the sentinel is about to run tasks. While anybody does, somebody idle has to
 * look after him. */
static inline void rv_loan_watch(struct rv_sched *s)
{
    if (s->rescue_ns != 0 && rv_load_relaxed(&s->sentinel) == 0 &&
        rv_load_relaxed(&s->nparked) != 0)
        rv_notify_slow(s);
}

#endif
