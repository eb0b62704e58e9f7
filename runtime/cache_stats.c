/* SPDX-License-Identifier: MIT */
/*
 * cache_stats.c -- the counts of all fronts, added up.
 *
 * Each worker counts for itself, and nobody else writes there. So a reset does not set anything to
 * 0: it remembers what was counted until then.
 *
 * Threads: any.
 */
#include <string.h>

#include "runtime/cache.h"

static void add_up(struct reeve_cache *c, uint64_t ret_counts[RV_CC_COUNT])
{
    for (unsigned k = 0; k < RV_CC_COUNT; k++) {
        ret_counts[k] = rv_load_relaxed(&c->counts[k]);
        for (uint32_t i = 0; i < c->sched->nworkers; i++)
            ret_counts[k] += rv_load_relaxed(&c->fronts[i]->counts[k]);
    }
}

static void fill_levels(struct reeve_cache *c, const uint64_t n[RV_CC_COUNT],
                        struct reeve_cache_stats *ret)
{
    ret->l1 = (struct reeve_cache_level){ .hits = n[RV_CC_L1_HITS],
                                          .misses = n[RV_CC_L1_MISSES],
                                          .inserts = n[RV_CC_L1_INSERTS],
                                          .removes = n[RV_CC_L1_REMOVES],
                                          .evictions = n[RV_CC_L1_EVICTIONS] };
    for (uint32_t i = 0; i < c->sched->nworkers; i++) {
        ret->l1.entries += rv_load_relaxed(&c->fronts[i]->entries);
        ret->l1.bytes += rv_load_relaxed(&c->fronts[i]->bytes);
    }
    const uint64_t *gone = &n[RV_CC_GONE];
    ret->l2 = (struct reeve_cache_level){
        .hits = n[RV_CC_L2_HITS],
        .misses = n[RV_CC_L2_MISSES],
        .inserts = n[RV_CC_L2_INSERTS],
        .removes = gone[REEVE_DROP_REPLACED] + gone[REEVE_DROP_REMOVED] + gone[REEVE_DROP_CLEARED],
        .evictions = gone[REEVE_DROP_EVICTED],
        .entries = rv_table_count(&c->table),
        .bytes = rv_table_weight(&c->table),
    };
    ret->l3.inserts = n[RV_CC_L3_INSERTS];
    rv_l3_stats(c, &ret->l3);
}

void reeve_cache_stats(reeve_cache *c, struct reeve_cache_stats *ret_stats)
{
    if (c->forks != rv_forks()) {
        *ret_stats = (struct reeve_cache_stats){ 0 };
        return;
    }
    struct reeve_cache_stats s = { .lent_bytes = rv_table_lent(&c->table) };
    uint64_t n[RV_CC_COUNT];
    add_up(c, n);
    rv_lock_acquire(&c->lock);
    for (unsigned k = 0; k < RV_CC_COUNT; k++)
        n[k] -= c->base[k];
    s.load_ns_max = c->load_ns_max;
    rv_lock_release(&c->lock);
    fill_levels(c, n, &s);
    s.negative_hits = n[RV_CC_NEGATIVE];
    s.loads = n[RV_CC_LOADS];
    s.load_errors = n[RV_CC_LOAD_ERRORS];
    s.refreshes = n[RV_CC_REFRESHES];
    s.shared = n[RV_CC_SHARED];
    s.load_ns = n[RV_CC_LOAD_NS];
    memcpy(s.dropped, &n[RV_CC_DROPPED], sizeof s.dropped);
    *ret_stats = s;
}

void reeve_cache_stats_reset(reeve_cache *c)
{
    uint64_t n[RV_CC_COUNT];
    if (c->forks != rv_forks())
        return;
    add_up(c, n);
    rv_lock_acquire(&c->lock);
    memcpy(c->base, n, sizeof n);
    c->load_ns_max = 0;
    rv_lock_release(&c->lock);
    rv_l3_stats_reset(c);
}
