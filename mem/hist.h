/* SPDX-License-Identifier: MIT */
/*
 * hist.h -- a histogram of times or sizes, exact to 1 part in 64, from 0 to 2^45 - 1.
 *
 * 40 octaves of 64 buckets: octave 0 counts the values 0 .. 63 one by one, octave k the values
 * 2^(k+5) .. 2^(k+6) - 1 in steps of 2^(k-1). In nanoseconds it ends at 9.7 hours; what is larger
 * is counted in the last bucket, and the maximum is exact even so. {0} is an empty histogram.
 *
 * Threads: rv_hist_add, _merge into it, _reset - one writer; reading - anyone at any time, who then
 * sees each counter as it was at some moment, not all at the same one.
 */
#ifndef RV_MEM_HIST_H
#define RV_MEM_HIST_H

#include <stdint.h>

#include "mem/rv_atomic.h"

#define RV_HIST_SUB_BITS 6
#define RV_HIST_OCTAVES 40
#define RV_HIST_BUCKETS (RV_HIST_OCTAVES << RV_HIST_SUB_BITS)

struct rv_hist {
    RV_ATOMIC(uint64_t) total;      /* values counted */
    RV_ATOMIC(uint64_t) sum;        /* of them all */
    RV_ATOMIC(uint64_t) max;
    RV_ATOMIC(uint64_t) min_not;    /* ~minimum, so that zero means none */
    RV_ATOMIC(uint64_t) count[RV_HIST_BUCKETS];
};

/* The bucket that counts v. */
static inline unsigned rv_hist_bucket(uint64_t v)
{
    unsigned octave, bucket;
    if (v < (1U << RV_HIST_SUB_BITS))
        return (unsigned)v;
    octave = (unsigned)(63 - RV_HIST_SUB_BITS - __builtin_clzll(v));
    bucket = (octave << RV_HIST_SUB_BITS) + (unsigned)(v >> octave);
    return bucket < RV_HIST_BUCKETS ? bucket : RV_HIST_BUCKETS - 1;
}

/* Counts v n times. Plain loads and stores: there is one writer. */
static inline void rv_hist_add_n(struct rv_hist *h, uint64_t v, uint64_t n)
{
    RV_ATOMIC(uint64_t) *count = &h->count[rv_hist_bucket(v)];
    if (n == 0)
        return;
    rv_store_relaxed(count, rv_load_relaxed(count) + n);
    rv_store_relaxed(&h->total, rv_load_relaxed(&h->total) + n);
    rv_store_relaxed(&h->sum, rv_load_relaxed(&h->sum) + v * n);
    if (v > rv_load_relaxed(&h->max))
        rv_store_relaxed(&h->max, v);
    if (~v > rv_load_relaxed(&h->min_not))
        rv_store_relaxed(&h->min_not, ~v);
}

static inline void rv_hist_add(struct rv_hist *h, uint64_t v)
{
    rv_hist_add_n(h, v, 1);
}

/* The largest value counted in the same bucket as v: what HdrHistogram calls the highest
 * equivalent value. */
uint64_t rv_hist_highest_equivalent(uint64_t v);

/* The smallest value that percent (0 .. 100) of all counted values do not exceed, as the highest
 * equivalent value of its bucket, but never above the maximum. 0 when empty. */
uint64_t rv_hist_percentile(const struct rv_hist *h, double percent);

uint64_t rv_hist_count(const struct rv_hist *h);
uint64_t rv_hist_min(const struct rv_hist *h);      /* exact; 0 when empty */
uint64_t rv_hist_max(const struct rv_hist *h);      /* exact; 0 when empty */
double rv_hist_mean(const struct rv_hist *h);       /* 0 when empty */

/* Adds what `from` counted to `into`. The caller is the writer of `into` only. */
void rv_hist_merge(struct rv_hist *into, const struct rv_hist *from);

/* Forgets everything. */
void rv_hist_reset(struct rv_hist *h);

#endif
