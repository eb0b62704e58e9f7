/* SPDX-License-Identifier: MIT */
/*
 * prof.h -- the memory profiler's inner side: which object is followed, and where it is booked.
 *
 * Who hands out objects draws a gap, counts down, and follows the object at which it ends:
 * rv_prof_took() books it on the call that asked for it and gives a mark, to be kept with the
 * object, by which rv_prof_gave() finds that again. An object stands for all those in its gap: its
 * weight.
 *
 * Threads: any.
 */
#ifndef RV_MEM_PROF_H
#define RV_MEM_PROF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mem/rv_atomic.h"

/* Mean bytes from one followed object to the next; 0: the profiler is off. */
extern RV_ATOMIC(uint64_t) rv_prof_period;

static inline bool rv_prof_on(void)
{
    return rv_load_acquire(&rv_prof_period) != 0; /* pairs with start() */
}

/* Of objects of that size: how many one stands for, and how many to count to the next. >= 1. */
uint64_t rv_prof_weight(size_t bytes);
uint64_t rv_prof_gap(size_t bytes);

/* An object was taken by the call that returns to site, and is followed. */
uint64_t rv_prof_took(const void *site, size_t bytes, uint64_t weight);

/* It was given back. */
void rv_prof_gave(uint64_t mark, size_t bytes);

/* In a child of fork: its lock has no holder. */
void rv_prof_forked(void);

#endif
