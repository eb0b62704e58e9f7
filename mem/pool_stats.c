/* SPDX-License-Identifier: MIT */
/*
 * pool_stats.c -- all pools: their list, their counters, and what they hold in all.
 *
 * Borrowing and returning count in the magazine that they work on anyway; whoever wants to know
 * adds up. Only what goes to the allocator and back, which is rare, is counted in words that all
 * share.
 *
 * (1) live is what was borrowed and not returned, idle what lies in magazines or takes up room of
 *     the depot: both follow from counters, none is kept.
 * (2) The list has a lock of its own. Under it the locks of pools are taken, never the other way.
 * (3) What pools that are gone did is remembered, so that sums never fall.
 *
 * Threads: any.
 */
#include <reeve/mem.h>
#include <string.h>

#include "mem/alloc.h"
#include "mem/die.h"
#include "mem/forked.h"
#include "mem/pool.h"
#include "mem/prof.h"
#include "mem/sizes.h"

static struct {
    struct rv_lock lock;
    struct reeve_pool *first;
    uint64_t gone_taken, gone_given; /* by pools that were destroyed */
} list;

static RV_ATOMIC(uint64_t) held, held_peak;

/* A lock that was held when the process forked has no holder in the child. */
static void forked(void)
{
    rv_sizes_forked();
    rv_prof_forked();
    rv_lock_init(&list.lock);
    for (struct reeve_pool *p = list.first; p != NULL; p = p->next)
        rv_lock_init(&p->lock);
}

void rv_pool_list_add(struct reeve_pool *pool)
{
    rv_fork_hook(forked);
    rv_lock_acquire(&list.lock);
    pool->prev = NULL;
    pool->next = list.first;
    if (pool->next != NULL)
        pool->next->prev = pool;
    list.first = pool;
    rv_pool_arm(NULL, pool);
    rv_lock_release(&list.lock);
}

void rv_pool_list_remove(struct reeve_pool *pool)
{
    struct reeve_pool_stats last;
    reeve_pool_stats(pool, &last);
    rv_lock_acquire(&list.lock);
    list.gone_taken += last.hits + last.misses;
    list.gone_given += last.returned;
    if (pool->next != NULL)
        pool->next->prev = pool->prev;
    if (pool->prev != NULL)
        pool->prev->next = pool->next;
    else
        list.first = pool->next;
    rv_lock_release(&list.lock);
}

void rv_pool_each(void (*visit)(void *ctx, struct reeve_pool *pool), void *ctx)
{
    rv_lock_acquire(&list.lock);
    for (struct reeve_pool *p = list.first; p != NULL; p = p->next)
        visit(ctx, p);
    rv_lock_release(&list.lock);
}

void rv_pool_held(size_t bytes)
{
    uint64_t now = rv_add_relaxed(&held, bytes) + bytes, peak = rv_load_relaxed(&held_peak);
    while (now > peak && !rv_cas_relaxed(&held_peak, &peak, now))
        continue;
}

void rv_pool_freed(size_t bytes)
{
    uint64_t before = rv_sub_relaxed(&held, bytes);
    RV_ASSERT(before >= bytes);
    (void)before;
}

void rv_pool_arm(void *ctx, struct reeve_pool *pool)
{
    bool on = rv_prof_on();
    (void)ctx;
    rv_lock_acquire(&pool->lock);   /* a magazine is made before this, or learns of it itself */
    rv_store_relaxed(&pool->follow_in, on ? (int64_t)rv_prof_gap(pool->bytes) : 0);
    for (uint32_t i = 0; i < rv_load_acquire(&pool->seats); i++) {
        struct rv_pool_mag *mag = rv_pool_mag_at(pool, i);
        if (mag != &rv_pool_no_mag)
            rv_store_relaxed(&mag->follow_at, on ? rv_load_relaxed(&mag->hits) +
                                                       rv_prof_gap(pool->bytes)
                                                 : UINT64_MAX);
    }
    rv_lock_release(&pool->lock);
}

static uint64_t positive(int64_t v)
{
    return v > 0 ? (uint64_t)v : 0;     /* counters were read at different moments */
}

void reeve_pool_stats(reeve_pool *pool, struct reeve_pool_stats *ret_stats)
{
    struct reeve_pool_stats s = {
        .returned = rv_load_relaxed(&pool->returned),
        .hits = rv_load_relaxed(&pool->hits),
        .misses = rv_load_relaxed(&pool->misses),
        .refused = rv_load_relaxed(&pool->refused),
        .dropped = rv_load_relaxed(&pool->dropped),
        .peak = rv_load_relaxed(&pool->peak),
    };
    rv_lock_acquire(&pool->lock);   /* no magazine is made meanwhile */
    int64_t idle = (int64_t)pool->idle_max - rv_load_relaxed(&pool->room);
    for (uint32_t i = 0; i < rv_load_relaxed(&pool->seats); i++) {
        struct rv_pool_mag *mag = rv_pool_mag_at(pool, i);
        if (mag == &rv_pool_no_mag)
            continue;
        uint64_t n = rv_load_relaxed(&mag->n), hits = rv_load_relaxed(&mag->hits);
        s.returned += hits + n - rv_load_relaxed(&mag->moved);
        s.hits += hits;
        s.dropped += rv_load_relaxed(&mag->dropped);
        idle += (int64_t)n - (int64_t)mag->cap;
    }
    rv_lock_release(&pool->lock);
    s.idle = positive(idle);
    s.live = positive((int64_t)(s.hits + s.misses - s.returned));
    s.hit_rate = s.hits + s.misses > 0 ? (double)s.hits / (double)(s.hits + s.misses) : 0;
    *ret_stats = s;
}

static void add_pool(void *ctx, struct reeve_pool *pool)
{
    struct reeve_memory *sum = ctx;
    struct reeve_pool_stats s;
    reeve_pool_stats(pool, &s);
    sum->live_objects += s.live;
    sum->live_bytes += s.live * pool->bytes;
    sum->idle_bytes += s.idle * pool->bytes;
    sum->allocations += s.hits + s.misses;
    sum->frees += s.returned;
}

void reeve_memory_stats(struct reeve_memory *ret_memory)
{
    struct reeve_memory sum = { 0 };
    rv_pool_each(add_pool, &sum);
    rv_lock_acquire(&list.lock);
    sum.allocations += list.gone_taken;
    sum.frees += list.gone_given;
    rv_lock_release(&list.lock);
    rv_sizes_stats(&sum);
    sum.peak_bytes = rv_load_relaxed(&held_peak);
    sum.heap_requests = rv_alloc_requests();
    *ret_memory = sum;
}

/* Where reeve_memory_pools() writes. */
struct rows {
    struct reeve_memory_pool *row;
    size_t n, cap;
};

static void write_row(void *ctx, struct reeve_pool *pool)
{
    struct rows *rows = ctx;
    struct reeve_pool_stats s;
    if (rows->n++ >= rows->cap)
        return;
    reeve_pool_stats(pool, &s);
    struct reeve_memory_pool *row = &rows->row[rows->n - 1];
    *row = (struct reeve_memory_pool){
        .bytes = pool->bytes,
        .live = s.live,
        .idle = s.idle,
        .peak = s.peak,
        .hits = s.hits,
        .misses = s.misses,
        .returned = s.returned,
        .dropped = s.dropped,
    };
    memcpy(row->name, pool->name, sizeof row->name);
}

size_t reeve_memory_pools(struct reeve_memory_pool *ret_pools, size_t cap)
{
    struct rows rows = { ret_pools, 0, cap };
    rv_pool_each(write_row, &rows);
    return rows.n;
}
