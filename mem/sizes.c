/* SPDX-License-Identifier: MIT */
/*
 * sizes.c -- blocks of any size: pools for 64 bytes to 64 KiB, the allocator for the rest.
 *
 *     64  96  128  192  256  384 ... 32768  49152  65536        two for each doubling: a third of a
 *      0   1    2    3    4    5 ...    18     19     20        block is unused at most
 *
 * A block's head (pool.h) says where it is from: a pool of ours, or LARGE. So reeve_free() needs to
 * know nothing, and a block that is not from here is found out.
 *
 * (1) A pool is made when its size is first asked for, and never ends: a block may be freed late,
 *     by a destructor at the end of the program.
 * (2) What is aligned to more than 16 is LARGE whatever its size: pools of aligned blocks would be
 *     pools of blocks twice as long. Who needs many makes an object pool of them.
 *
 *     LARGE:  block | room for align ... bytes, offset | head | aligned block ...
 *
 * Threads: any.
 */
#include "mem/sizes.h"

#include <stdio.h>

#include "mem/alloc.h"
#include "mem/die.h"
#include "mem/pool.h"
#include "mem/prof.h"

#define ALIGN_USUAL ((size_t)16)
#define ALIGN_MAX ((size_t)1 << 20)
#define IDLE_BYTES ((size_t)1 << 20)
#define IDLE_LEAST 16
#define IDLE_MOST 1024
/* No address of a pool, whatever its low bits. */
#define LARGE ((uintptr_t)0x6c61726765ull << 2)

static struct {
    struct rv_lock lock;                        /* guards the making of pools */
    RV_ATOMIC(uint32_t) made[RV_SIZES];
    struct reeve_pool pool[RV_SIZES];
} sizes;

static struct {
    RV_ATOMIC(uint64_t) live_bytes, live_objects, allocations, frees;
    RV_ATOMIC(int64_t) follow_in; /* bytes until the profiler follows one */
} large;

/* Before the head of a large block. */
struct large_head {
    size_t bytes;
    size_t offset;      /* from what the allocator gave */
    struct rv_pool_head head;
};

/* ---- pools ----------------------------------------------------------------------------------- */

static int make_pool(uint32_t class)
{
    size_t bytes = rv_size_bytes(class), idle = IDLE_BYTES / bytes;
    char name[32];
    snprintf(name, sizeof name, "alloc %zu", bytes);
    rv_lock_acquire(&sizes.lock);
    int r = 0;
    if (rv_load_relaxed(&sizes.made[class]) == 0) {
        sizes.pool[class].is_size_class = true;
        r = rv_pool_init(&sizes.pool[class], &(struct reeve_pool_opts){
            .bytes = bytes,
            .idle_max = idle > IDLE_MOST ? IDLE_MOST : idle < IDLE_LEAST ? IDLE_LEAST
                                                                         : (unsigned)idle,
            .name = name,
        });
        if (r == 0)
            rv_store_release(&sizes.made[class], 1U); /* pairs with small() */
    }
    rv_lock_release(&sizes.lock);
    return r;
}

void rv_sizes_forked(void)
{
    rv_lock_init(&sizes.lock);
}

/* Inside the public function; see rv_pool_get(). */
static inline __attribute__((always_inline)) void *small(size_t bytes)
{
    uint32_t class = rv_size_class(bytes);
    RV_ASSERT(class < RV_SIZES);
    RV_ASSERT(rv_size_bytes(class) >= bytes);
    if (__builtin_expect(rv_load_acquire(&sizes.made[class]) == 0, 0) && make_pool(class) < 0)
        return NULL;    /* the load pairs with make_pool() */
    return rv_pool_get(&sizes.pool[class]);
}

/* ---- large and aligned blocks ---------------------------------------------------------------- */

static struct large_head *large_head(void *block)
{
    return (struct large_head *)block - 1;
}

/* Every one that is too long for the pools, since that costs little beside making it; of the others
 * one in so many bytes. */
static void follow_large(struct large_head *h, const void *site)
{
    bool each = h->bytes > RV_SIZES_MAX;
    int64_t bytes = h->bytes > 0 ? (int64_t)h->bytes : 1;
    if (!rv_prof_on() || (!each && rv_sub_relaxed(&large.follow_in, bytes) > bytes))
        return;
    if (!each)
        rv_store_relaxed(&large.follow_in, (int64_t)rv_prof_gap(1));
    h->head.mark = rv_prof_took(site, h->bytes, each ? 1 : rv_prof_weight((size_t)bytes));
    h->head.owner = LARGE | RV_POOL_FOLLOWED;
}

static void *take_large(size_t bytes, size_t align, const void *site)
{
    size_t head = sizeof(struct large_head), offset = head > align ? head : align;
    offset = (offset + align - 1) & ~(align - 1);
    if (bytes > SIZE_MAX / 2 - offset)
        return NULL;
    unsigned char *start = rv_alloc_aligned(offset + bytes, align);
    if (start == NULL)
        return NULL;
    void *block = start + offset;
    struct large_head *h = large_head(block);
    *h = (struct large_head){ .bytes = bytes,
                              .offset = offset,
                              .head = { .owner = LARGE | RV_POOL_LIVE } };
    rv_pool_held(offset + bytes);
    rv_add_relaxed(&large.live_bytes, bytes);
    rv_add_relaxed(&large.live_objects, 1U);
    rv_add_relaxed(&large.allocations, 1U);
    follow_large(h, site);
    return block;
}

static void free_large(void *block)
{
    struct large_head *h = large_head(block);
    if (h->head.owner == (LARGE | RV_POOL_FOLLOWED))
        rv_prof_gave(h->head.mark, h->bytes);
    h->head.owner = LARGE | RV_POOL_IDLE;
    rv_sub_relaxed(&large.live_bytes, h->bytes);
    rv_sub_relaxed(&large.live_objects, 1U);
    rv_add_relaxed(&large.frees, 1U);
    rv_pool_freed(h->offset + h->bytes);
    rv_free((unsigned char *)block - h->offset);
}

void rv_large_stats(struct reeve_memory *sum)
{
    sum->live_bytes += rv_load_relaxed(&large.live_bytes);
    sum->live_objects += rv_load_relaxed(&large.live_objects);
    sum->allocations += rv_load_relaxed(&large.allocations);
    sum->frees += rv_load_relaxed(&large.frees);
}

/* ---- the calls ------------------------------------------------------------------------------- */

/* Both not inlined, even over files: the profiler books on the address to which they return. */

__attribute__((noinline)) void *reeve_alloc(size_t bytes)
{
    if (__builtin_expect(bytes > RV_SIZES_MAX, 0))
        return take_large(bytes, ALIGN_USUAL, __builtin_return_address(0));
    return small(bytes);
}

__attribute__((noinline)) void *reeve_alloc_aligned(size_t bytes, size_t align)
{
    if (align == 0 || (align & (align - 1)) != 0 || align > ALIGN_MAX)
        return NULL;
    if (align > ALIGN_USUAL || bytes > RV_SIZES_MAX)
        return take_large(bytes, align > ALIGN_USUAL ? align : ALIGN_USUAL,
                          __builtin_return_address(0));
    return small(bytes);
}

void reeve_free(void *block)
{
    if (block == NULL)
        return;
    uintptr_t owner = rv_pool_head(block)->owner & ~(uintptr_t)RV_POOL_STATES;
    uintptr_t at = owner - (uintptr_t)&sizes.pool[0];
    if (__builtin_expect(at < sizeof sizes.pool && at % sizeof sizes.pool[0] == 0, 1)) {
        rv_pool_put(&sizes.pool[at / sizeof sizes.pool[0]], block);
        return;
    }
    if (owner != LARGE)
        rv_die("reeve_free: this block is not from reeve_alloc.");
    if (rv_pool_head(block)->owner == (LARGE | RV_POOL_IDLE))
        rv_die("reeve_free: this block was freed twice.");
    free_large(block);
}
