/* SPDX-License-Identifier: MIT */
/*
 * pool.h -- a pool from inside, and the halves of borrowing and returning that are in every call.
 *
 *     block                      object
 *     | room for align ... head  | bytes ...  (guard: debug builds)
 *     0                          offset
 *
 * The head says whose the object is and whether it is on loan, so that a stranger's object and one
 * that comes back twice are recognised; while it is idle it may hold a link, while it is on loan
 * the profiler's mark.
 *
 *     owner: pool + IDLE -> pool + LIVE, or LOUD if there is a reset    [rv_pool_get]
 *            pool + LIVE, LOUD -> pool + FOLLOWED, by the profiler      [rv_pool_follow]
 *            pool + LIVE, LOUD, FOLLOWED -> pool + IDLE                 [rv_pool_put]
 *
 * What is LOUD or FOLLOWED has more to do when it comes back; what is neither does not ask.
 *
 * A magazine is an array of idle objects that belongs to one seat (pool_seat.h).
 */
#ifndef RV_MEM_POOL_H
#define RV_MEM_POOL_H

#include <ck_stack.h>
#include <reeve/pool.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mem/local.h"
#include "mem/lock.h"
#include "mem/pool_seat.h"
#include "mem/rv_atomic.h"

enum {
    RV_POOL_MAG_MAX = 128,      /* objects in a magazine */
    RV_POOL_TABLES = 8,         /* each at least twice as long as the one before, up to RV_SEATS */
    RV_POOL_IDLE = 0, RV_POOL_LIVE = 1, RV_POOL_LOUD = 2, RV_POOL_FOLLOWED = 3, RV_POOL_STATES = 3
};

struct rv_pool_head {
#ifdef RV_DEBUG
    uint64_t sum;               /* of the object's bytes while it is idle */
    uint64_t unused;
#endif
    union {
        ck_stack_entry_t link;  /* idle, and in `back` */
        uint64_t mark;          /* followed by the profiler */
    };
    uintptr_t owner;            /* the pool + its state */
};

/* Written by the holder of the seat, but for the two words that say so. Returns need no counter:
 * what was returned is hits + n - moved. The words that every call writes are not the first:
 * allocators like to put blocks at equal offsets in their pages, and the heads of objects there
 * would look to the CPU's store buffer, which compares 12 bits, like the words at the same offset
 * here. */
struct rv_pool_mag {
    RV_ATOMIC(uint64_t) dropped;
    RV_ATOMIC(uint64_t) moved;      /* from the depot, less those that went there or were dropped */
    RV_ATOMIC(size_t) n;
    RV_ATOMIC(size_t) limit;        /* cap; others set 0: let go of all at the next return */
    RV_ATOMIC(uint64_t) hits;
    RV_ATOMIC(uint64_t) follow_at;  /* hits at which the profiler follows one; others set it too */
    uint32_t cap;                   /* at most RV_POOL_MAG_MAX; constant */
    void *object[];                 /* object[n - 1] is taken next */
};

typedef RV_ATOMIC(struct rv_pool_mag *) rv_pool_slot;

/* Stands where there is none: it has nothing and takes nothing. */
extern struct rv_pool_mag rv_pool_no_mag;

/* Where the memory of a pool's objects is from, if not from the allocator; rv_alloc()'s rules hold,
 * what is in it may be anything. Called with no lock held. */
struct rv_pool_source {
    void *(*take)(struct reeve_pool *pool, size_t bytes);
    void (*give)(struct reeve_pool *pool, void *block, size_t bytes);
};

/* {0} with bytes and so on set by rv_pool_init(). Aligned to cache lines. */
struct reeve_pool {
    /* Written when a magazine is made; read by every call. */
    RV_ATOMIC(uint32_t) seats;      /* the table has so many slots, and a newer one more */
    RV_ATOMIC(rv_pool_slot *) table;

    /* Constant. */
    void *ctx;
    int (*init)(void *ctx, void *object);
    void (*reset)(void *ctx, void *object);
    void (*finish)(void *ctx, void *object);
    size_t bytes, offset, align;
    uint32_t idle_max, objects_max;
    uint32_t forks;                 /* of which process it is */
    uintptr_t live;                 /* the owner of an object on loan that nobody follows */
    char name[32];
    /* Set before rv_pool_init(): its objects are blocks of reeve_alloc(). NULL: it is a user's. */
    const struct rv_pool_source *source;

    /* Under the lock; the two counts may be looked at by anyone. */
    RV_ALIGNED_LINE struct rv_lock lock;
    RV_ATOMIC(uint32_t) depot_n;
    RV_ATOMIC(uint32_t) mags_left;  /* what new magazines may still hold in all */
    rv_pool_slot *tables[RV_POOL_TABLES]; /* all that there were; somebody may still read them */
    void **depot;                   /* idle objects, idle_max at most; the one to use first last */

    /* By anyone. */
    RV_ALIGNED_LINE RV_ATOMIC(int64_t) room; /* idle objects that depot and back may still take */
#if defined(RV_TSAN) || defined(RV_ATOMIC_BACKEND)
    RV_ATOMIC(uintptr_t) back;      /* returned by who has no magazine; the newest one's link */
#else
    ck_stack_t back;
#endif
    RV_ATOMIC(uint64_t) objects, peak;
    RV_ATOMIC(uint64_t) hits, misses, refused, returned, dropped; /* without a magazine */
    RV_ATOMIC(int64_t) follow_in;   /* without a magazine: so many until one is followed */

    struct reeve_pool *next, *prev; /* in the list of all pools, under its lock */
};

/* Prepares a pool in the caller's memory, all zero but for its source, and adds it to the list.
 * Errors as reeve_pool_create(). */
int rv_pool_init(struct reeve_pool *pool, const struct reeve_pool_opts *opts);

/* Frees everything but the pool itself. */
void rv_pool_finish(struct reeve_pool *pool);

/* What an object of so many bytes takes up in all, if it is aligned as usual. A multiple of 8. */
size_t rv_pool_block_bytes(size_t bytes);

/* The slow halves, in pool.c. */
void *rv_pool_get_slow(struct reeve_pool *pool, const void *site);
void rv_pool_put_slow(struct reeve_pool *pool, void *object);
void *rv_pool_follow(struct reeve_pool *pool, struct rv_pool_mag *mag, void *object,
                     const void *site);
void rv_pool_ask(struct reeve_pool *pool, void *object);

/* What debug and AddressSanitizer builds do when an object goes idle and when it no longer is. */
void rv_pool_seal(struct reeve_pool *pool, void *object);
void rv_pool_unseal(struct reeve_pool *pool, void *object);

/* ---- all pools: pool_stats.c ----------------------------------------------------------------- */

void rv_pool_list_add(struct reeve_pool *pool);
void rv_pool_list_remove(struct reeve_pool *pool);

/* Calls visit with each pool, under the list's lock. */
void rv_pool_each(void (*visit)(void *ctx, struct reeve_pool *pool), void *ctx);

/* So many bytes were taken from the allocator, or given back to it. */
void rv_pool_held(size_t bytes);
void rv_pool_freed(size_t bytes);

/* From now on one in so many objects is followed. */
void rv_pool_arm(void *ctx, struct reeve_pool *pool);

static inline struct rv_pool_head *rv_pool_head(void *object)
{
    return (struct rv_pool_head *)object - 1;
}

/* The magazine of a thread with that record, or the one that stands for none. */
static inline __attribute__((always_inline)) struct rv_pool_mag *
rv_pool_mag_of(struct reeve_pool *pool, const struct rv_local *local)
{
    if (__builtin_expect(local == NULL, 0))
        return &rv_pool_no_mag;
    uint32_t seat = local->seat;
    /* Both pair with grow_table(). The table is at least as new as the number, hence as long. */
    if (__builtin_expect(seat >= rv_load_acquire(&pool->seats), 0))
        return &rv_pool_no_mag;
    return rv_load_relaxed(&rv_load_acquire(&pool->table)[seat]);
}

/* The magazine of a seat below pool->seats, for others than its holder. */
static inline struct rv_pool_mag *rv_pool_mag_at(struct reeve_pool *pool, uint32_t seat)
{
    rv_pool_slot *table = rv_load_acquire(&pool->table);    /* pairs with grow_table() */
    return rv_load_acquire(&table[seat]);                   /* pairs with make_mag() */
}

static inline bool rv_pool_is_sealed(void)
{
#if defined(RV_DEBUG) || defined(RV_ASAN)
    return true;
#else
    return false;
#endif
}

/* reeve_pool_borrow(), inside the public function: the profiler books on the address to which that
 * returns. It is only asked for where it is needed, or it would have to be kept all the way. */
static inline __attribute__((always_inline)) void *rv_pool_get(struct reeve_pool *pool)
{
    struct rv_pool_mag *mag = rv_pool_mag_of(pool, rv_local_peek());
    size_t n = rv_load_relaxed(&mag->n);
    if (__builtin_expect(n == 0, 0))
        return rv_pool_get_slow(pool, __builtin_return_address(0));
    void *object = mag->object[n - 1];
    uint64_t hits = rv_load_relaxed(&mag->hits) + 1;
    rv_store_relaxed(&mag->n, n - 1);
    rv_store_relaxed(&mag->hits, hits);
    if (rv_pool_is_sealed())
        rv_pool_unseal(pool, object);
    rv_pool_head(object)->owner = pool->live;
    if (__builtin_expect(hits >= rv_load_relaxed(&mag->follow_at), 0))
        return rv_pool_follow(pool, mag, object, __builtin_return_address(0));
    return object;
}

/* reeve_pool_return(). */
static inline __attribute__((always_inline)) void rv_pool_put(struct reeve_pool *pool, void *object)
{
    if (__builtin_expect(rv_pool_head(object)->owner != ((uintptr_t)pool + RV_POOL_LIVE), 0))
        rv_pool_ask(pool, object);
    rv_pool_head(object)->owner = (uintptr_t)pool + RV_POOL_IDLE;
    if (rv_pool_is_sealed())
        rv_pool_seal(pool, object);
    struct rv_pool_mag *mag = rv_pool_mag_of(pool, rv_local_peek());
    size_t n = rv_load_relaxed(&mag->n);
    if (__builtin_expect(n >= rv_load_relaxed(&mag->limit), 0)) {
        rv_pool_put_slow(pool, object);
        return;
    }
    mag->object[n] = object;
    rv_store_relaxed(&mag->n, n + 1);
}

#endif
