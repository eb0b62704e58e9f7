/* SPDX-License-Identifier: MIT */
/*
 * hist.c -- reading and merging histograms; counting is in hist.h.
 *
 * The layout and the meaning of a percentile are those of HdrHistogram (Gil Tene).
 *
 * (1) Bucket b < 128 counts the value b. Any other counts the 2^o values from m * 2^o on, where
 *     o = b / 64 - 1 and m = b % 64 + 64: a width of at most 1/64 of the value.
 * (2) A reader adds up the buckets it sees and ranks within that sum; the writer's total may be of
 *     another moment, and a rank above the sum would find no bucket.
 * Threads: add, merge into, reset - the one writer; all else - anyone.
 */
#include "mem/hist.h"

#include "mem/die.h"

static uint64_t highest_in_bucket(unsigned bucket)
{
    RV_ASSERT(bucket < RV_HIST_BUCKETS);
    if (bucket < (2U << RV_HIST_SUB_BITS))
        return bucket;
    unsigned octave = (bucket >> RV_HIST_SUB_BITS) - 1;
    uint64_t m = (bucket & ((1U << RV_HIST_SUB_BITS) - 1)) + (1U << RV_HIST_SUB_BITS);
    return ((m + 1) << octave) - 1;
}

uint64_t rv_hist_highest_equivalent(uint64_t v)
{
    return highest_in_bucket(rv_hist_bucket(v));
}

/* The rank, from 1, of the value that percent of total values do not exceed. 99.9 % of 1000 is 999:
 * the product is lowered by a few units in its last place, or rounding would make it 1000. */
static uint64_t rank_of(double percent, uint64_t total)
{
    double exact = (percent < 0 ? 0 : percent > 100 ? 100 : percent) * (double)total / 100.0;
    exact -= exact * 0x1p-50;
    uint64_t rank = (uint64_t)exact;
    if ((double)rank < exact)
        rank++;
    return rank < 1 ? 1 : rank > total ? total : rank;
}

uint64_t rv_hist_percentile(const struct rv_hist *h, double percent)
{
    uint64_t total = 0, seen = 0, max;
    unsigned b;
    for (b = 0; b < RV_HIST_BUCKETS; b++)
        total += rv_load_relaxed(&h->count[b]);
    if (total == 0)
        return 0;
    uint64_t rank = rank_of(percent, total);
    for (b = 0; b < RV_HIST_BUCKETS - 1; b++) {
        seen += rv_load_relaxed(&h->count[b]);
        if (seen >= rank)
            break;
    }
    max = rv_load_relaxed(&h->max);
    if (b == RV_HIST_BUCKETS - 1 || highest_in_bucket(b) > max)
        return max;
    return highest_in_bucket(b);
}

uint64_t rv_hist_count(const struct rv_hist *h)
{
    return rv_load_relaxed(&h->total);
}

uint64_t rv_hist_min(const struct rv_hist *h)
{
    return rv_load_relaxed(&h->total) == 0 ? 0 : ~rv_load_relaxed(&h->min_not);
}

uint64_t rv_hist_max(const struct rv_hist *h)
{
    return rv_load_relaxed(&h->max);
}

double rv_hist_mean(const struct rv_hist *h)
{
    uint64_t total = rv_load_relaxed(&h->total);
    return total == 0 ? 0 : (double)rv_load_relaxed(&h->sum) / (double)total;
}

static void add_to(RV_ATOMIC(uint64_t) *counter, uint64_t n)
{
    rv_store_relaxed(counter, rv_load_relaxed(counter) + n);
}

static void raise_to(RV_ATOMIC(uint64_t) *bound, uint64_t v)
{
    if (v > rv_load_relaxed(bound))
        rv_store_relaxed(bound, v);
}

void rv_hist_merge(struct rv_hist *into, const struct rv_hist *from)
{
    RV_ASSERT(into != from);
    for (unsigned b = 0; b < RV_HIST_BUCKETS; b++) {
        uint64_t n = rv_load_relaxed(&from->count[b]);
        if (n > 0)
            add_to(&into->count[b], n);
    }
    add_to(&into->sum, rv_load_relaxed(&from->sum));
    raise_to(&into->max, rv_load_relaxed(&from->max));
    raise_to(&into->min_not, rv_load_relaxed(&from->min_not));
    add_to(&into->total, rv_load_relaxed(&from->total));
}

void rv_hist_reset(struct rv_hist *h)
{
    rv_store_relaxed(&h->total, UINT64_C(0));
    rv_store_relaxed(&h->sum, UINT64_C(0));
    rv_store_relaxed(&h->max, UINT64_C(0));
    rv_store_relaxed(&h->min_not, UINT64_C(0));
    for (unsigned b = 0; b < RV_HIST_BUCKETS; b++)
        rv_store_relaxed(&h->count[b], UINT64_C(0));
}
