/* SPDX-License-Identifier: MIT */
/*
 * slab.c -- the shared half of a slab: its mapping, its depot and its never-used tail.
 *
 *     base                                            depot                 taken
 *     | used objects ... | fresh: never touched ...   | free indices, LIFO  | debug bits |
 *     0              fresh                        cap
 *
 * (1) Every index below fresh is live, in one magazine, or in depot[0 .. depot_n).
 * (2) fresh only grows; it is raised when the depot is empty, so used memory is used again first,
 *     and a run of takes from an unused slab yields ascending indices: sequential memory.
 * (3) The free list is an array beside the objects, not links inside them: moving a batch is one
 *     memcpy, touches no object, and leaves the content of free objects alone.
 *
 *     fresh -> live           [rv_slab_take -> take_batch]
 *     live -> in a magazine   [rv_slab_give]            in a magazine -> live   [rv_slab_take]
 *     in a magazine -> depot  [rv_slab_flush, rv_mag_flush]
 *     depot -> in a magazine  [rv_slab_refill -> take_batch]
 *
 * Threads: take, give, rv_mag_flush - the magazine's owner, or anyone with NULL; at, live - anyone;
 * init, finish - one, while nobody else uses the slab.
 */
#include "mem/slab.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "mem/alloc.h"

#define OBJECT_BYTES_MAX (1U << 20)
#define CAP_MAX (1U << 31)
#define SHARES 256              /* in a small slab a batch is at most this part of it */

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

int rv_slab_init(struct rv_slab *slab, size_t bytes, uint32_t cap, const char *fault_name)
{
    RV_ASSERT(fault_name != NULL);
    if (bytes == 0 || bytes > OBJECT_BYTES_MAX || cap == 0 || cap > CAP_MAX)
        return -EINVAL;
    size_t stride = (bytes + 15) & ~(size_t)15;
    size_t objects_bytes = rv_page_round(stride * cap);
    size_t depot_bytes = rv_page_round(sizeof(uint32_t) * cap);
    size_t taken_bytes = (size_t)cap / 8 + sizeof(uint32_t);
    size_t map_bytes = objects_bytes + depot_bytes + taken_bytes;
    unsigned char *base = RV_FAULT(fault_name) ? NULL : rv_map_lazy(map_bytes);
    if (base == NULL)
        return -ENOMEM;
    uint32_t batch = min_u32(RV_MAG_BATCH, cap / SHARES + 1);
    *slab = (struct rv_slab){
        .base = base,
        .bytes = (uint32_t)stride,
        .cap = cap,
        .batch = batch,
        .mag_max = 2 * batch,
        .fault_name = fault_name,
        .depot = (uint32_t *)(void *)(base + objects_bytes),
        .taken = (void *)(base + objects_bytes + depot_bytes),
        .map_bytes = map_bytes,
    };
    rv_lock_init(&slab->lock);
    return 0;
}

void rv_slab_finish(struct rv_slab *slab)
{
    if (slab->base == NULL)
        return;
    rv_unmap(slab->base, slab->map_bytes);
    *slab = (struct rv_slab){0};
}

/* Moves up to want free indices to ret_idx, the one to use first last; how many. */
static uint32_t take_batch(struct rv_slab *slab, uint32_t *ret_idx, uint32_t want)
{
    rv_lock_acquire(&slab->lock);
    uint32_t free_n = rv_load_relaxed(&slab->depot_n), fresh = rv_load_relaxed(&slab->fresh), n;
    RV_ASSERT(free_n <= fresh);
    if (free_n > 0) {
        n = min_u32(want, free_n);
        memcpy(ret_idx, slab->depot + free_n - n, n * sizeof *ret_idx);
        rv_store_relaxed(&slab->depot_n, free_n - n);
    } else {
        n = min_u32(want, slab->cap - fresh);
        for (uint32_t i = 0; i < n; i++)
            ret_idx[i] = fresh + n - 1 - i;
        rv_store_relaxed(&slab->fresh, fresh + n);
    }
    rv_lock_release(&slab->lock);
    return n;
}

static void give_batch(struct rv_slab *slab, const uint32_t *idx, uint32_t n)
{
    rv_lock_acquire(&slab->lock);
    uint32_t free_n = rv_load_relaxed(&slab->depot_n);
    RV_MUST(free_n + n <= rv_load_relaxed(&slab->fresh));   /* else something was given twice */
    memcpy(slab->depot + free_n, idx, n * sizeof *idx);
    rv_store_relaxed(&slab->depot_n, free_n + n);
    rv_lock_release(&slab->lock);
}

uint32_t rv_slab_refill(struct rv_slab *slab, struct rv_mag *mag)
{
    uint32_t idx = RV_NIL;
    if (mag == NULL) {
        take_batch(slab, &idx, 1);
        return idx;
    }
    RV_ASSERT(mag->n == 0);
    mag->n = take_batch(slab, mag->idx, slab->batch);
    return mag->n > 0 ? mag->idx[--mag->n] : RV_NIL;
}

/* Of a full magazine the older half goes: the younger is what the caches still hold. */
void rv_slab_flush(struct rv_slab *slab, struct rv_mag *mag, uint32_t idx)
{
    if (mag == NULL) {
        give_batch(slab, &idx, 1);
        return;
    }
    RV_ASSERT(mag->n == slab->mag_max);
    give_batch(slab, mag->idx, slab->batch);
    mag->n -= slab->batch;
    memmove(mag->idx, mag->idx + slab->batch, mag->n * sizeof mag->idx[0]);
    mag->idx[mag->n++] = idx;
}

void rv_mag_flush(struct rv_slab *slab, struct rv_mag *mag)
{
    RV_ASSERT(mag->n <= slab->mag_max);
    if (mag->n > 0)
        give_batch(slab, mag->idx, mag->n);
    mag->n = 0;
}

uint32_t rv_slab_live(const struct rv_slab *slab)
{
    uint32_t free_n = rv_load_relaxed(&slab->depot_n), fresh = rv_load_relaxed(&slab->fresh);
    return fresh > free_n ? fresh - free_n : 0;     /* two moments: the difference may be off */
}

/* The order of marks is that of the hand-over they check; relaxed, or they would hide races in the
 * caller from ThreadSanitizer. */
void rv_slab_mark(struct rv_slab *slab, uint32_t idx, bool taken)
{
    RV_ATOMIC(uint32_t) *word = &slab->taken[idx / 32];
    uint32_t bit = UINT32_C(1) << (idx % 32), old;
    old = taken ? rv_or_relaxed(word, bit) : rv_and_relaxed(word, ~bit);
    if (taken == ((old & bit) != 0))
        rv_die("%s: object %u was %s twice.", slab->fault_name, idx,
               taken ? "taken" : "given back");
}
