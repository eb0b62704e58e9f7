/* SPDX-License-Identifier: MIT */
/*
 * admit.h -- whether work may enter: a bound on how many wait in a class, and on how long.
 */
#ifndef RV_SCHED_ADMIT_H
#define RV_SCHED_ADMIT_H

#include "sched/worker.h"

/* The flags of a mask are under RV_LOW .. RV_URGENT. */
struct rv_admission {
    uint32_t waiting_max[RV_CLASSES]; /* entered and not yet started; 0: no bound */
    int64_t delay_max;                /* ns; 0: no bound */
    struct {
        RV_ATOMIC(uint32_t) waiting;
        /* Since when every sample of the queue's delay was above delay_max; 0: the last was not. */
        RV_ATOMIC(int64_t) above_since;
        RV_ATOMIC(int64_t) sampled_at;
        RV_ATOMIC(uint64_t) refused;
    } of[RV_CLASSES];
};

/* Asks for a task of this class to enter: 0, and it is counted until rv_admit_started(), or
 * -EAGAIN. Any thread. */
int rv_admit(struct rv_sched *s, unsigned c, int64_t now);
/* It has started, or never will. */
void rv_admit_started(struct rv_sched *s, unsigned c);

/* A task of class c waited so long in a queue. */
void rv_admit_sample_slow(struct rv_worker *w, unsigned c, uint64_t ns);
static inline void rv_admit_sample(struct rv_worker *w, unsigned c, uint64_t ns)
{
    if (w->sched->admission)
        rv_admit_sample_slow(w, c, ns);
}

#endif
