/* SPDX-License-Identifier: MIT */
/*
 * arena.c -- the file arena: one registration of memory for all rings, and blocks of it to lend.
 *
 * Registered memory is pinned once and for all, and charged to RLIMIT_MEMLOCK, so there is little
 * of it: a quarter of that limit, and no more than RV_ARENA_BYTES. Where it does not fit the arena
 * is plain memory; everything works, and rv_arena_stats() tells.
 *
 *     source ring -- registers the memory, and does nothing else
 *         | clone, when a worker's first fixed request is to be made, by its own thread
 *         v
 *     ring 0  ring 1  ring 2 ...        all under index 0
 *
 * So a task may borrow a block on one worker and read into it on another. A kernel that cannot
 * clone pins the memory once for each ring.
 *
 * Blocks are cut by halving. One bitmap for each size says which are free; a block that comes home
 * melts together with its other half as long as that is free, too.
 *
 *     free[0]   4 KiB   page 0, 1, 2, ...        bit i: the block of size 4 KiB << order that
 *     free[1]   8 KiB   page 0, 2, 4, ...        begins at page i << order
 *     ...
 *
 * (1) No ring but the source registers anything else under any index.
 * (2) The source ring has no owner (it is no SINGLE_ISSUER): every thread may clone from it.
 * (3) Who asks while others wait queues behind them, however small his block: otherwise a large one
 *     would wait for ever.
 * (4) What a worker's ring knows is written by its own thread only.
 *
 * Threads: borrow - a task; fixed - the worker's thread; return, stats - anyone; finish - one.
 */
#include "io/arena.h"

#include <errno.h>
#include <reeve/offload.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/uio.h>

#include "io/buf.h"
#include "io/file.h"
#include "io/io.h"
#include "io/ring.h"
#include "mem/alloc.h"
#include "mem/die.h"
#include "mem/fault.h"
#include "mem/lock.h"
#include "sched/sync.h"

#define ORDERS 10u
#define PAGES (RV_ARENA_BYTES / RV_ARENA_BLOCK_MIN)
#define WORDS (PAGES / 64)
#define REGISTERED_MIN (UINT32_C(256) << 10) /* less is not worth it: plain, but all of it */
_Static_assert(RV_ARENA_BLOCK_MIN << (ORDERS - 1) == RV_ARENA_BYTES, "the last order is all of it");

enum source { PLAIN, CLONED, EACH }; /* how a ring comes to know the memory */
enum known { NOT_ASKED, KNOWN, REFUSED };

/* Written by the worker's thread. */
struct on_ring {
    RV_ALIGNED_LINE RV_ATOMIC(uint32_t) known;
    RV_ATOMIC(uint64_t) fixed, plain;
};

struct rv_blocks {
    /* Constant once it is made. */
    struct rv_io *io;
    unsigned char *base;
    size_t bytes;
    struct rv_lease *leases; /* one for each page; a block has the one of its first page */
    enum source source;
    struct rv_ring ring;     /* CLONED: where from */
    struct on_ring *rings;   /* one for each worker */

    /* Under the lock. */
    struct rv_lock lock;
    struct rv_waitq waiting;
    uint64_t waits;
    uint64_t free[ORDERS][WORDS];
};

/* ---- cutting and melting: under the lock ----------------------------------------------------- */

static bool is_free(const struct rv_blocks *b, unsigned order, unsigned i)
{
    return b->free[order][i / 64] >> (i % 64) & 1;
}

static void flip(struct rv_blocks *b, unsigned order, unsigned i)
{
    b->free[order][i / 64] ^= UINT64_C(1) << (i % 64);
}

/* The first free block of this very size, or -1. */
static int find(const struct rv_blocks *b, unsigned order)
{
    unsigned words = ((PAGES >> order) + 63) / 64;
    for (unsigned w = 0; w < words; w++)
        if (b->free[order][w])
            return (int)(w * 64 + (unsigned)__builtin_ctzll(b->free[order][w]));
    return -1;
}

/* The first page of a block, which is free no longer; -1: there is none. */
static int cut(struct rv_blocks *b, unsigned order)
{
    int i = -1;
    unsigned at = order;
    while (at < ORDERS && (i = find(b, at)) < 0)
        at++;
    if (i < 0)
        return -1;
    flip(b, at, (unsigned)i);
    while (at > order) { /* the first half is cut on, the second one is free */
        at--;
        i *= 2;
        flip(b, at, (unsigned)i + 1);
    }
    return i << order;
}

static void melt(struct rv_blocks *b, unsigned page, unsigned order)
{
    unsigned i = page >> order;
    RV_ASSERT(!is_free(b, order, i));
    while (order + 1 < ORDERS && is_free(b, order, i ^ 1)) {
        flip(b, order, i ^ 1);
        order++;
        i /= 2;
    }
    flip(b, order, i);
}

/* ---- making it ------------------------------------------------------------------------------- */

/* As much of the limit as files may have. 0: not even the least. */
static size_t affordable(const struct rv_io *io)
{
    struct rlimit limit;
    size_t bytes = RV_ARENA_BYTES;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY)
        return bytes;
    uint64_t share = limit.rlim_cur / 4;
    if (!io->caps.clone_buffers)
        share /= io->sched->nworkers;
    while (bytes > share && bytes > REGISTERED_MIN)
        bytes /= 2;
    return bytes <= share ? bytes : 0;
}

/* Pins the memory, if that can be. */
static enum source settle_source(struct rv_blocks *b)
{
    struct iovec memory = { b->base, b->bytes };
    if (!b->io->caps.clone_buffers)
        return EACH;
    if (RV_FAULT("arena.register") ||
        rv_ring_init(&b->ring, 1, 0, IORING_SETUP_CLAMP, &b->io->caps.off) < 0)
        return PLAIN;
    if (rv_ring_register(&b->ring, IORING_REGISTER_BUFFERS, &memory, 1) == 0)
        return CLONED;
    rv_ring_finish(&b->ring);
    return PLAIN;
}

static void unmake(struct rv_blocks *b)
{
    rv_ring_finish(&b->ring);
    rv_unmap(b->base, b->bytes);
    rv_free(b->leases);
    rv_free(b->rings);
    rv_free(b);
}

/* On a thread of the pool: pinning takes a while, and a ring may have to wait for its memory. */
static int build(void *arg)
{
    struct rv_io *io = arg;
    size_t share = affordable(io);
    size_t rings_bytes = sizeof(struct on_ring) * io->sched->nworkers;
    struct rv_blocks *b = rv_alloc_zero(sizeof *b);
    if (!b)
        return -ENOMEM;
    b->io = io;
    b->bytes = share ? share : RV_ARENA_BYTES;
    b->base = rv_map_lazy(b->bytes);
    b->leases = rv_alloc_aligned(sizeof *b->leases * PAGES, RV_CACHE_LINE);
    b->rings = rv_alloc_aligned(rings_bytes, RV_CACHE_LINE);
    if (!b->base || !b->leases || !b->rings) {
        unmake(b);
        return -ENOMEM;
    }
    memset(b->leases, 0, sizeof *b->leases * PAGES);
    memset(b->rings, 0, rings_bytes);
    rv_lock_init(&b->lock);
    unsigned whole = 0;
    while (RV_ARENA_BLOCK_MIN << whole < b->bytes)
        whole++;
    flip(b, whole, 0);
    b->source = share && io->driver->fix ? settle_source(b) : PLAIN;
    rv_store_release(&io->arena.blocks, b); /* pairs with blocks_of() */
    return 0;
}

/* By the pool; by the task itself where there is none. Not to be cancelled: others wait for it. */
static int make(void *io)
{
    bool was = rv_masked_begin();
    int r = reeve_offload(build, io, RV_NEVER);
    rv_masked_end(was);
    return r == -ENOTSUP || r == -EAGAIN ? build(io) : r;
}

static struct rv_blocks *blocks_of(struct rv_io *io)
{
    return rv_load_acquire(&io->arena.blocks); /* pairs with build() */
}

void rv_arena_finish(struct rv_arena *a)
{
    struct rv_blocks *b = rv_load_relaxed(&a->blocks);
    if (b)
        unmake(b);
    rv_store_relaxed(&a->blocks, NULL);
}

/* ---- lending --------------------------------------------------------------------------------- */

struct borrower {
    struct rv_waiter w; /* first */
    unsigned order;
    int page; /* granted */
};

static struct rv_lease *lend(struct rv_blocks *b, unsigned page, unsigned order)
{
    struct rv_lease *l = &b->leases[page];
    RV_MUST(l->pub.opaque[1] != RV_LEASE_OUT);
    l->mem = b->base + (size_t)page * RV_ARENA_BLOCK_MIN;
    l->msg.aux = order;
    l->pub = (struct reeve_buf){
        .data = l->mem,
        .cap = (size_t)RV_ARENA_BLOCK_MIN << order,
        .opaque = { (uintptr_t)b->io + RV_LEASE_ARENA, RV_LEASE_OUT },
    };
    return l;
}

/* Serves those who wait, in their order, as far as it goes. The lock is held and comes back
 * released. */
static void serve(struct rv_blocks *b)
{
    int n;
    do {
        struct rv_wake wakes[RV_WAKES_MAX];
        struct borrower *who;
        for (n = 0; n < RV_WAKES_MAX && (who = (struct borrower *)b->waiting.first); n++) {
            who->page = cut(b, who->order);
            if (who->page < 0)
                break;
            rv_waitq_pop(&b->waiting);
            wakes[n] = rv_waiter_grant(&who->w);
        }
        rv_lock_release(&b->lock);
        rv_wake_all(wakes, n);
        if (n == RV_WAKES_MAX)
            rv_lock_acquire(&b->lock);
    } while (n == RV_WAKES_MAX);
}

/* Queues, with the lock held, which comes back released. 0, or why it left. */
static int await_block(struct rv_blocks *b, struct borrower *me, int64_t until)
{
    struct rv_worker *w = rv_worker_self();
    rv_waiter_begin(w, &me->w);
    rv_waitq_add(&b->waiting, &me->w);
    b->waits++;
    rv_lock_release(&b->lock);
    int why = rv_wait_park(w, w->cur, until);
    if (why == RV_WOKEN)
        return 0;
    rv_lock_acquire(&b->lock);
    bool granted = me->w.granted;
    if (!granted)
        rv_waitq_remove(&b->waiting, &me->w);
    serve(b); /* who was behind a larger wish may be served now */
    return granted ? 0 : rv_wait_error(why);
}

int rv_arena_borrow(struct rv_lease **ret_lease, size_t bytes, int64_t until)
{
    struct rv_io *io = rv_io_self()->io;
    struct borrower me = { .page = -1 };
    if (bytes == 0)
        return -EINVAL;
    if (bytes > RV_ARENA_BYTES)
        return -ERANGE;
    struct rv_blocks *b = blocks_of(io);
    if (__builtin_expect(!b, 0)) {
        int r = reeve_once_run(&io->arena.once, make, io, until);
        if (r < 0)
            return r;
        b = blocks_of(io);
    }
    if (bytes > b->bytes)
        return -ERANGE;
    while ((size_t)RV_ARENA_BLOCK_MIN << me.order < bytes)
        me.order++;
    rv_lock_acquire(&b->lock);
    if (!b->waiting.first) /* (3) */
        me.page = cut(b, me.order);
    if (me.page >= 0) {
        rv_lock_release(&b->lock);
    } else {
        int r = await_block(b, &me, until);
        if (r < 0)
            return r;
    }
    *ret_lease = lend(b, (unsigned)me.page, me.order);
    return 0;
}

void rv_arena_return(struct rv_io *io, struct rv_lease *l)
{
    struct rv_blocks *b = blocks_of(io);
    RV_MUST(b && l >= b->leases && l < b->leases + PAGES);
    l->pub.opaque[1] = RV_LEASE_AWAY;
    unsigned order = l->msg.aux;
    rv_lock_acquire(&b->lock);
    melt(b, (unsigned)(l - b->leases), order);
    serve(b);
}

/* ---- rings ----------------------------------------------------------------------------------- */

/* Makes the worker's ring know the memory, once. */
static uint32_t introduce(struct rv_blocks *b, struct rv_io_worker *iw)
{
    struct iovec memory = { b->base, b->bytes };
    int r = RV_FAULT("arena.fix") ? -ENOMEM
                                  : iw->driver->fix(iw, &memory,
                                                    b->source == CLONED ? b->ring.fd : -1);
    return r < 0 ? REFUSED : KNOWN;
}

bool rv_arena_fixed(struct rv_io_worker *iw, const struct rv_lease *l)
{
    if (l->pub.opaque[0] != (uintptr_t)iw->io + RV_LEASE_ARENA)
        return false; /* no block, or another runtime's */
    struct rv_blocks *b = blocks_of(iw->io);
    struct on_ring *on = &b->rings[iw->w->index];
    uint32_t known = rv_load_relaxed(&on->known);
    if (__builtin_expect(known == NOT_ASKED && b->source != PLAIN, 0)) {
        known = introduce(b, iw); /* (4) */
        rv_store_relaxed(&on->known, known);
    }
    rv_count(known == KNOWN ? &on->fixed : &on->plain, 1);
    return known == KNOWN;
}

void rv_arena_stats(struct rv_io *io, struct rv_arena_stats *ret_stats)
{
    struct rv_blocks *b = blocks_of(io);
    struct rv_arena_stats st = { 0 };
    for (uint32_t i = 0; b && i < io->sched->nworkers; i++) {
        uint32_t known = rv_load_relaxed(&b->rings[i].known);
        st.rings += known == KNOWN;
        st.rings_plain += known == REFUSED;
        st.fixed += rv_load_relaxed(&b->rings[i].fixed);
        st.plain += rv_load_relaxed(&b->rings[i].plain);
    }
    if (b) {
        st.bytes = b->bytes;
        st.registered = b->source == CLONED || st.rings > 0;
        rv_lock_acquire(&b->lock);
        st.waits = b->waits;
        rv_lock_release(&b->lock);
    }
    *ret_stats = st;
}
