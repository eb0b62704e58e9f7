/* SPDX-License-Identifier: MIT */
/*
 * region.h -- one mapping out of which pools take blocks of a few sizes: the arena of mem.h. (The
 * buffers that rings know are another one: io/arena.h.)
 *
 *     mapping | span | span | span | ... never used |         spans of 512 KiB, from a huge page on
 *     span    | block | block | ... never used | rest |       blocks of one kind, that is one size
 *
 * A span belongs to a kind as long as one of its blocks is out; then any kind may have it. What a
 * kind cannot use, the rest of its spans, is less than a block: an eighth of a span at 64 KiB.
 *
 * Threads: init, finish - one, while nobody else uses it; the rest - any.
 */
#ifndef RV_MEM_REGION_H
#define RV_MEM_REGION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mem/lock.h"
#include "mem/rv_atomic.h"

enum { RV_REGION_KINDS = 24 };
#define RV_REGION_SPAN ((size_t)512 << 10)
#define RV_REGION_STEP ((size_t)2 << 20)        /* a region is a multiple of this: a huge page */
#define RV_REGION_MAX ((size_t)1 << 40)

struct rv_region_how {
    size_t bytes;           /* 1 .. RV_REGION_MAX, rounded up to RV_REGION_STEP */
    bool prefault;          /* every page is there at once, and stays */
    bool huge_pages;        /* ask for huge pages; it may be in vain */
    const size_t *block_bytes;  /* of each kind, multiples of 16 up to a span; read by init only */
    uint32_t kinds;         /* at most RV_REGION_KINDS */
};

/* What all blocks of a size have in common. Under its lock, but for what others count. */
struct rv_region_kind {
    RV_ALIGNED_LINE struct rv_lock lock;
    uint32_t open;              /* the first of its spans that have blocks left */
    uint32_t stride;            /* bytes of a block; constant */
    uint32_t blocks;            /* in a span; constant */
    RV_ATOMIC(uint64_t) out;    /* blocks that somebody has */
};

/* Under the lock of its kind while it has one, else under the region's. */
struct rv_region_span {
    uint32_t kind;
    uint32_t out;           /* blocks that somebody has */
    uint32_t fresh;         /* blocks from here on were never out since it is of this kind */
    uint32_t next, prev;    /* among the open ones of its kind; next: among the vacant ones too */
    void *back;             /* blocks that came back, linked through their first word */
};

struct rv_region {
    /* Constant. */
    unsigned char *base;
    size_t bytes;
    struct rv_region_span *span;
    uint32_t spans, forks;
    bool prefaulted;
    void *map;
    size_t map_bytes;

    /* Under the lock; taken after that of a kind. */
    RV_ALIGNED_LINE struct rv_lock lock;
    uint32_t vacant;            /* the first of the spans that were used and are nobody's */
    uint32_t fresh;             /* spans from here on were never used */
    RV_ATOMIC(uint64_t) misses; /* blocks that it did not have */

    struct rv_region_kind kind[RV_REGION_KINDS];
};

/* Maps it. {0} before; 0, -EINVAL or -ENOMEM. */
int rv_region_init(struct rv_region *region, const struct rv_region_how *how);

/* Unmaps it, with all blocks that are still out. {0} is fine. */
void rv_region_finish(struct rv_region *region);

/* A block of that kind, aligned to 16, with anything in it; NULL: there is none left. */
void *rv_region_take(struct rv_region *region, uint32_t kind);

/* Whether a block is from here; false for {0}. */
static inline bool rv_region_owns(const struct rv_region *region, const void *block)
{
    return (uintptr_t)block - (uintptr_t)region->base < region->bytes;
}

/* Takes back a block of its own. */
void rv_region_give(struct rv_region *region, void *block);

/* Lets the kernel have the pages of vacant spans, unless they were prefaulted; how many bytes. */
size_t rv_region_cool(struct rv_region *region);

/* Bytes of all blocks that somebody has. */
uint64_t rv_region_used(const struct rv_region *region);

#endif
