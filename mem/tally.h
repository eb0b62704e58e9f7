/* SPDX-License-Identifier: MIT */
/*
 * tally.h -- a counter that many threads change and few read: one line of the cache for each of
 * some groups of threads.
 *
 * A thread adds to the line that its record (local.h) falls on; threads without one share the
 * first. What one line holds says nothing, the sum of all does: what is taken away here may have
 * been added there. For a value that is compared and swapped a plain RV_ATOMIC word is the thing.
 *
 * {0} is nought. Threads: any; reading is exact while nobody changes it.
 */
#ifndef RV_MEM_TALLY_H
#define RV_MEM_TALLY_H

#include <stdint.h>

#include "mem/local.h"
#include "mem/rv_atomic.h"

enum { RV_TALLY_LINES = 16 };

struct rv_tally {
    struct {
        RV_ALIGNED_LINE RV_ATOMIC(uint64_t) n;
    } line[RV_TALLY_LINES];
};

static inline void rv_tally_add(struct rv_tally *t, uint64_t n)
{
    uint64_t record = (uint64_t)(uintptr_t)rv_local_get() / RV_CACHE_LINE;
    rv_add_relaxed(&t->line[(record * UINT64_C(0x9e3779b97f4a7c15)) >> 60].n, n);
}

static inline void rv_tally_sub(struct rv_tally *t, uint64_t n)
{
    rv_tally_add(t, UINT64_C(0) - n);
}

static inline uint64_t rv_tally_get(const struct rv_tally *t)
{
    uint64_t sum = 0;
    for (int i = 0; i < RV_TALLY_LINES; i++)
        sum += rv_load_relaxed(&t->line[i].n);
    return sum;
}

#endif
