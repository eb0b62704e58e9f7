/* SPDX-License-Identifier: MIT */
/*
 * park.h -- sleeping and waking. The protocol and its proof are in park.c.
 */
#ifndef RV_SCHED_PARK_H
#define RV_SCHED_PARK_H

#include "sched/worker.h"

/* The slow half of rv_notify: nobody ticks, so a parked worker has to. */
void rv_notify_slow(struct rv_sched *s);

/* After publishing stealable work on this worker. With a sentinel ticking, or nobody parked, there
 * is nothing to do. */
static inline void rv_notify(struct rv_worker *w)
{
    struct rv_sched *s = w->sched;
    if (s->nworkers == 1)
        return;
    if (s->light_fences)
        rv_compiler_barrier(); /* pairs with the membarrier in park.c */
    else
        rv_fence_seqcst(); /* pairs with the fence in park.c */
    if (rv_load_relaxed(&s->sentinel) == 0 && rv_load_relaxed(&s->nparked) != 0)
        rv_notify_slow(s);
}

/* At a pass boundary: wakes a parked worker if what waits here is worth it, or if nobody ticks. */
void rv_share(struct rv_worker *w);
/* This worker has something to do: it is no longer the sentinel, nor searching. */
void rv_found_work(struct rv_worker *w);

#endif
