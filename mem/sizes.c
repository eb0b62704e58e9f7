/* SPDX-License-Identifier: MIT */
/*
 * sizes.c -- blocks of any size: pools for 64 bytes to 64 KiB, over an arena if the program set one
 * up (region.h), and over the allocator; the allocator for the rest.
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
 * (3) What was set up, and the arena, are constant from the first block on: who made that, or saw
 *     that it was made, has `begun` or `made` behind it.
 * (4) Pools and large blocks are charged for what they have, idle or not, before they ask for it,
 *     if there is a bound. Who finds it reached frees what lies idle in all of them, then tries
 *     once more.
 *
 *     LARGE:  block | room for align ... bytes, offset | head | aligned block ...
 *
 * Threads: any.
 */
#include "mem/sizes.h"

#include <errno.h>
#include <stdio.h>

#include "mem/alloc.h"
#include "mem/die.h"
#include "mem/pool.h"
#include "mem/prof.h"
#include "mem/region.h"
#include "mem/tally.h"

#define ALIGN_USUAL ((size_t)16)
#define ALIGN_MAX ((size_t)1 << 20)
#define IDLE_BYTES ((size_t)1 << 20)    /* if the program does not say */
#define IDLE_LEAST 16
#define IDLE_MOST 1024
#define IDLE_LEAST_ASKED 2              /* if it does */
#define IDLE_MOST_ASKED ((size_t)1 << 20)
/* No address of a pool, whatever its low bits. */
#define LARGE ((uintptr_t)0x6c61726765ull << 2)

static struct {
    struct rv_lock lock;                /* guards setting up and the making of pools */
    RV_ATOMIC(uint32_t) begun;          /* too late to set up: it was, or there are blocks */
    struct reeve_memory_opts opts;
    struct rv_region arena;             /* {0}: none */
    RV_ATOMIC(uint64_t) charged;        /* bytes, if there is a bound */
    RV_ATOMIC(uint32_t) made[RV_SIZES];
    struct reeve_pool pool[RV_SIZES];
} sizes;

static struct {
    struct rv_tally live_bytes, live_objects, allocations, frees;
    RV_ATOMIC(int64_t) follow_in; /* bytes until the profiler follows one */
} large;

/* Before the head of a large block. */
struct large_head {
    size_t bytes;
    size_t offset;      /* from what the allocator gave */
    struct rv_pool_head head;
};

/* ---- where they have their memory from ------------------------------------------------------- */

static bool charge(size_t bytes)
{
    uint64_t max = sizes.opts.bytes_max, charged = rv_load_relaxed(&sizes.charged);
    if (max == 0)
        return true;
    RV_ASSERT(charged <= max);
    do
        if (bytes > max - charged)
            return false;
    while (!rv_cas_relaxed(&sizes.charged, &charged, charged + bytes));
    return true;
}

static void discharge(size_t bytes)
{
    if (sizes.opts.bytes_max > 0)
        rv_sub_relaxed(&sizes.charged, bytes);
}

static bool is_made(uint32_t class)
{
    return rv_load_acquire(&sizes.made[class]) != 0;    /* pairs with make_pool() */
}

/* Or after idle blocks were freed, those of the largest sizes first. */
static bool charge_somehow(size_t bytes)
{
    for (uint32_t class = RV_SIZES; class > 0; class--) {
        if (charge(bytes))
            return true;
        if (bytes > sizes.opts.bytes_max)
            return false;
        if (is_made(class - 1))
            reeve_pool_clear(&sizes.pool[class - 1]);
    }
    return charge(bytes);
}

static void *take_block(struct reeve_pool *pool, size_t bytes)
{
    void *block = NULL;
    if (!charge_somehow(bytes))
        return NULL;
    if (sizes.arena.base != NULL)
        block = rv_region_take(&sizes.arena, (uint32_t)(pool - sizes.pool));
    if (block == NULL)
        block = rv_alloc(bytes);
    if (block == NULL)
        discharge(bytes);
    return block;
}

static void give_block(struct reeve_pool *pool, void *block, size_t bytes)
{
    (void)pool;
    if (rv_region_owns(&sizes.arena, block))
        rv_region_give(&sizes.arena, block);
    else
        rv_free(block);
    discharge(bytes);
}

static const struct rv_pool_source source = { take_block, give_block };

/* ---- pools ----------------------------------------------------------------------------------- */

static unsigned idle_blocks(size_t bytes)
{
    bool asked = sizes.opts.idle_bytes > 0;
    size_t n = (asked ? sizes.opts.idle_bytes : IDLE_BYTES) / bytes;
    size_t least = asked ? IDLE_LEAST_ASKED : IDLE_LEAST;
    size_t most = asked ? IDLE_MOST_ASKED : IDLE_MOST;
    return (unsigned)(n < least ? least : n > most ? most : n);
}

static int make_pool(uint32_t class)
{
    size_t bytes = rv_size_bytes(class);
    char name[32];
    snprintf(name, sizeof name, "alloc %zu", bytes);
    rv_lock_acquire(&sizes.lock);
    int r = 0;
    rv_store_release(&sizes.begun, 1U);     /* pairs with begin() */
    if (rv_load_relaxed(&sizes.made[class]) == 0) {
        sizes.pool[class].source = &source;
        r = rv_pool_init(&sizes.pool[class], &(struct reeve_pool_opts){
            .bytes = bytes,
            .idle_max = idle_blocks(bytes),
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
    if (__builtin_expect(!is_made(class), 0) && make_pool(class) < 0)
        return NULL;
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

/* From now on nothing is set up any more. */
static void begin(void)
{
    if (rv_load_acquire(&sizes.begun) != 0) /* pairs with whoever began, and with what he set up */
        return;
    rv_lock_acquire(&sizes.lock);
    rv_store_release(&sizes.begun, 1U);
    rv_lock_release(&sizes.lock);
}

static void *take_large(size_t bytes, size_t align, const void *site)
{
    size_t head = sizeof(struct large_head), offset = head > align ? head : align;
    offset = (offset + align - 1) & ~(align - 1);
    if (bytes > SIZE_MAX / 2 - offset)
        return NULL;
    begin();
    if (!charge_somehow(offset + bytes))
        return NULL;
    unsigned char *start = rv_alloc_aligned(offset + bytes, align);
    if (start == NULL) {
        discharge(offset + bytes);
        return NULL;
    }
    void *block = start + offset;
    struct large_head *h = large_head(block);
    *h = (struct large_head){ .bytes = bytes,
                              .offset = offset,
                              .head = { .owner = LARGE | RV_POOL_LIVE } };
    rv_pool_held(offset + bytes);
    rv_tally_add(&large.live_bytes, bytes);
    rv_tally_add(&large.live_objects, 1);
    rv_tally_add(&large.allocations, 1);
    follow_large(h, site);
    return block;
}

static void free_large(void *block)
{
    struct large_head *h = large_head(block);
    if (h->head.owner == (LARGE | RV_POOL_FOLLOWED))
        rv_prof_gave(h->head.mark, h->bytes);
    h->head.owner = LARGE | RV_POOL_IDLE;
    rv_tally_sub(&large.live_bytes, h->bytes);
    rv_tally_sub(&large.live_objects, 1);
    rv_tally_add(&large.frees, 1);
    rv_pool_freed(h->offset + h->bytes);
    discharge(h->offset + h->bytes);
    rv_free((unsigned char *)block - h->offset);
}

static uint64_t positive(uint64_t n)
{
    return (int64_t)n > 0 ? n : 0;      /* its parts were read at different moments */
}

void rv_sizes_stats(struct reeve_memory *sum)
{
    sum->live_bytes += positive(rv_tally_get(&large.live_bytes));
    sum->live_objects += positive(rv_tally_get(&large.live_objects));
    sum->allocations += rv_tally_get(&large.allocations);
    sum->frees += rv_tally_get(&large.frees);
    if (rv_load_acquire(&sizes.begun) == 0 || sizes.arena.base == NULL) /* pairs with setup */
        return;
    sum->arena_bytes = sizes.arena.bytes;
    sum->arena_used_bytes = rv_region_used(&sizes.arena);
    sum->arena_misses = rv_load_relaxed(&sizes.arena.misses);
}

/* ---- setting up, and letting go -------------------------------------------------------------- */

/* Under the lock. */
static int set_up(const struct reeve_memory_opts *o)
{
    size_t block_bytes[RV_SIZES];
    if (rv_load_relaxed(&sizes.begun) != 0)
        return -EBUSY;
    for (uint32_t class = 0; class < RV_SIZES; class++)
        block_bytes[class] = rv_pool_block_bytes(rv_size_bytes(class));
    int r = o->arena_bytes == 0 ? 0 : rv_region_init(&sizes.arena, &(struct rv_region_how){
        .bytes = o->arena_bytes,
        .prefault = o->prefault,
        .huge_pages = o->huge_pages,
        .block_bytes = block_bytes,
        .kinds = RV_SIZES,
    });
    if (r < 0)
        return r;
    sizes.opts = *o;
    rv_store_release(&sizes.begun, 1U);     /* pairs with begin() */
    return 0;
}

int reeve_memory_setup(const struct reeve_memory_opts *opts)
{
    if (opts == NULL || (opts->arena_bytes == 0 && (opts->prefault || opts->huge_pages)))
        return -EINVAL;
    rv_lock_acquire(&sizes.lock);
    int r = set_up(opts);
    rv_lock_release(&sizes.lock);
    return r;
}

static size_t idle_of(uint32_t class)
{
    struct reeve_pool_stats s = { 0 };
    if (is_made(class))
        reeve_pool_stats(&sizes.pool[class], &s);
    return (size_t)s.idle;
}

/* Frees idle blocks of one size until `bytes` less lie idle or there is none; how many bytes. */
static size_t let_go(uint32_t class, size_t bytes)
{
    size_t each = rv_size_bytes(class), idle = idle_of(class), n = (bytes + each - 1) / each;
    if (idle == 0)
        return 0;
    return reeve_pool_trim(&sizes.pool[class], idle > n ? idle - n : 0) * each;
}

size_t reeve_memory_trim(size_t idle_bytes)
{
    size_t left = 0, freed = 0;
    for (uint32_t class = 0; class < RV_SIZES; class++)
        left += idle_of(class) * rv_size_bytes(class);
    for (uint32_t class = RV_SIZES; class > 0 && left > idle_bytes; class--) {
        size_t now = let_go(class - 1, left - idle_bytes);
        left = left > now ? left - now : 0;
        freed += now;
    }
    if (rv_load_acquire(&sizes.begun) != 0) /* pairs with setting up */
        rv_region_cool(&sizes.arena);
    return freed;
}

/* ---- the calls ------------------------------------------------------------------------------- */

/* None is inlined, even over files: the profiler books on the address to which they return, and
 * what they read in their own line is the thread's. */

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

__attribute__((noinline)) void reeve_free(void *block)
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
