/* SPDX-License-Identifier: MIT */
/*
 * slab.h -- equal objects in one mapping, named by a 32-bit index, never unmapped before the end.
 *
 * A stale index can always be looked at: its memory is there and still holds an object of the same
 * kind. Whoever keeps a generation in the object can therefore tell a stale handle from a live one.
 * An object is zero when it is used for the first time; after that the slab never writes to it, so
 * what was in it when it was given back is in it when it is taken again.
 *
 * Taking and giving work on the caller's magazine, a LIFO array of free indices that belongs to one
 * thread; an empty or full one exchanges a batch with the depot, which is shared. mag NULL: a
 * thread without magazines; it works on the depot. Free objects lie in magazines, up to mag_max
 * each: a take can find the slab full while other threads hold that many. Who promises a number of
 * objects makes cap larger, by RV_MAG_MAX for each thread; untouched objects cost nothing.
 *
 *     struct widget *w = rv_slab_at(&slab, rv_slab_take(&slab, &mag));
 */
#ifndef RV_MEM_SLAB_H
#define RV_MEM_SLAB_H

#include <stddef.h>
#include <stdint.h>

#include "mem/die.h"
#include "mem/fault.h"
#include "mem/lock.h"
#include "mem/rv_atomic.h"

#define RV_NIL UINT32_MAX       /* no object */
#define RV_MAG_MAX 128          /* indices in a magazine */
#define RV_MAG_BATCH 64         /* indices that move between a magazine and the depot at once */

/* {0} is empty. Belongs to one thread; flushed before that thread ends. */
struct rv_mag {
    uint32_t n;
    uint32_t idx[RV_MAG_MAX];   /* idx[n - 1] is taken next */
};

/* Aligned to cache lines: what embeds one comes from rv_alloc_aligned(). */
struct rv_slab {
    /* Constant after rv_slab_init(). */
    unsigned char *base;        /* object i is at base + i * bytes */
    uint32_t bytes;             /* of one object, a multiple of 16 */
    uint32_t cap;               /* objects */
    uint32_t batch;             /* RV_MAG_BATCH, less in small slabs */
    uint32_t mag_max;           /* twice that: what a magazine holds at most */
    const char *fault_name;
    uint32_t *depot;            /* free indices, a LIFO array of cap entries behind the objects */
    RV_ATOMIC(uint32_t) *taken; /* one bit an object, kept with RV_DEBUG only */
    size_t map_bytes;

    /* Under the lock; the two counts may be read by anyone. */
    struct rv_lock lock RV_ALIGNED_LINE;
    RV_ATOMIC(uint32_t) fresh;      /* objects from here on have never been used */
    RV_ATOMIC(uint32_t) depot_n;
};

/* bytes: 1 .. 1 MiB, rounded up to 16; cap: 1 .. 2^31. The first object is page-aligned, so objects
 * of whole cache lines are line-aligned. fault_name: a literal, the fault point of init and of each
 * take. 0, -EINVAL or -ENOMEM. */
int rv_slab_init(struct rv_slab *slab, size_t bytes, uint32_t cap, const char *fault_name);

/* Unmaps everything; all indices are dangling from now on. A {0} slab is fine. */
void rv_slab_finish(struct rv_slab *slab);

/* Objects not known to be free. Those in magazines are counted as live: up to mag_max too many for
 * each magazine. Threads: any. */
uint32_t rv_slab_live(const struct rv_slab *slab);

/* Moves all of a magazine to the depot. Its owner calls it before its thread ends. */
void rv_mag_flush(struct rv_slab *slab, struct rv_mag *mag);

/* The slow halves and the debug check, in slab.c. */
uint32_t rv_slab_refill(struct rv_slab *slab, struct rv_mag *mag);
void rv_slab_flush(struct rv_slab *slab, struct rv_mag *mag, uint32_t idx);
void rv_slab_mark(struct rv_slab *slab, uint32_t idx, bool taken);

static inline void *rv_slab_at(const struct rv_slab *slab, uint32_t idx)
{
    RV_ASSERT(idx < slab->cap);
    return slab->base + (size_t)idx * slab->bytes;
}

/* An index, or RV_NIL when none is to be had. Threads: the owner of mag; with NULL, any. */
static inline uint32_t rv_slab_take(struct rv_slab *slab, struct rv_mag *mag)
{
    uint32_t idx;
    if (RV_FAULT(slab->fault_name))
        return RV_NIL;
    if (__builtin_expect(mag != NULL && mag->n > 0, 1))
        idx = mag->idx[--mag->n];
    else
        idx = rv_slab_refill(slab, mag);
#ifdef RV_DEBUG
    if (idx != RV_NIL)
        rv_slab_mark(slab, idx, true);
#endif
    return idx;
}

/* The index is free from now on. Threads: the owner of mag, which need not have taken it. */
static inline void rv_slab_give(struct rv_slab *slab, struct rv_mag *mag, uint32_t idx)
{
    RV_ASSERT(idx < slab->cap);
#ifdef RV_DEBUG
    rv_slab_mark(slab, idx, false);
#endif
    if (__builtin_expect(mag != NULL && mag->n < slab->mag_max, 1))
        mag->idx[mag->n++] = idx;
    else
        rv_slab_flush(slab, mag, idx);
}

#endif
