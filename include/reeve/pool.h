/* SPDX-License-Identifier: MIT */
/** pool.h -- object pools: objects of one kind that are made once and used again and again.
 *
 * Each worker keeps a few idle objects at hand, which it takes and puts back without a lock; what
 * it has too many or too few of it exchanges in batches with a store that all share. An object may
 * be returned by another worker than the one that borrowed it, or by a thread that is none.
 *
 * Who owns: an object is its borrower's, or whoever's he hands it to, until it is returned, once.
 * While it is idle it is the pool's and nobody touches it. Builds with assertions check that when
 * it is borrowed again; with AddressSanitizer every such access is reported where it happens.
 *
 * Hooks run on the thread that calls the pool, with no lock held; they may use other pools.
 * Who may call: any thread, in a task or not; create and destroy: see there. Not signal handlers.
 */
#ifndef REEVE_POOL_H
#define REEVE_POOL_H

#include <reeve/time.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A pool. It belongs to whoever created it, and is destroyed once. */
typedef struct reeve_pool reeve_pool;

struct reeve_pool_opts {
    size_t bytes;         /**< of an object, 1 .. 1 GiB */
    size_t align;         /**< a power of two up to 1 MiB; 0: 16 */
    unsigned idle_max;    /**< so many may lie idle in all, with the workers and in the store, up to
                           * 2^24; 0: 16 MiB of them, but not less than 16 or more than 1024 */
    unsigned objects_max; /**< so many exist in all, idle and borrowed; 0: no limit */
    unsigned prefault;    /**< so many are made at once and touched, at most idle_max; 0: none */
    const char *name;     /**< for the profiler, which keeps 31 characters of it; NULL: "pool" */
    void *ctx;            /**< passed to the hooks */
    /** Makes an object, whose bytes are 0, fit to be borrowed: once, before its first use. >= 0, or
     * -errno: then there is no object. NULL: it has no state that outlives a return, and what is in
     * it when it is borrowed is anything, unless it has one of the hooks below. */
    int (*init)(void *ctx, void *object);
    /** Runs when an object is returned: what its next borrower shall not see ends here. */
    void (*reset)(void *ctx, void *object);
    /** Runs before the memory of an object is freed. */
    void (*finish)(void *ctx, void *object);
};

struct reeve_pool_stats {
    uint64_t hits;     /**< borrowed, and an idle one was there */
    uint64_t misses;   /**< borrowed, and one was made for it */
    uint64_t refused;  /**< not borrowed: none could be made */
    uint64_t returned;
    uint64_t dropped;  /**< freed: too many were idle, or the pool was trimmed */
    uint64_t idle;     /**< idle now */
    uint64_t live;     /**< borrowed now */
    uint64_t peak;     /**< so many existed at a time, idle and borrowed */
    double hit_rate;   /**< hits / (hits + misses); 0 before the first */
};

/** Makes a pool. 0; -EINVAL: opts make no sense; -ENOMEM; or what init said to one of the objects
 * made at once. Any thread.
 *     struct reeve_pool_opts o = { .bytes = sizeof(struct session), .reset = session_reset };
 *     if ((r = reeve_pool_create(&sessions, &o)) < 0) return r; */
REEVE_API int reeve_pool_create(reeve_pool **ret_pool, const struct reeve_pool_opts *opts);

/** Frees the pool and its idle objects. Nobody uses it any more; an object that is still borrowed:
 * abort (in a child of fork, where the borrower may be gone, it is lost instead). NULL: does
 * nothing. */
REEVE_API void reeve_pool_destroy(reeve_pool *pool);

/** An object, the caller's from now on. NULL: none is idle, and none can be made: no memory,
 * objects_max exist, or init failed. It never waits. */
REEVE_API void *reeve_pool_borrow(reeve_pool *pool);

/** Gives an object back to the pool that it is from. Any thread; NULL: does nothing; an object that
 * is not on loan from this pool: abort. */
REEVE_API void reeve_pool_return(reeve_pool *pool, void *object);

/** The counters: exact while nobody uses the pool, a little apart otherwise. Any thread. */
REEVE_API void reeve_pool_stats(reeve_pool *pool, struct reeve_pool_stats *ret_stats);

/** Frees idle objects until `idle` of them or fewer are left; returns how many it freed. Those at
 * hand with other workers count, but only they can let go of them: they are asked to, and do when
 * they next return an object. Any thread. */
REEVE_API size_t reeve_pool_trim(reeve_pool *pool, size_t idle);

/** Frees all that is idle, as reeve_pool_trim(pool, 0) does. */
REEVE_API size_t reeve_pool_clear(reeve_pool *pool);

#ifdef __cplusplus
}
#endif
#endif /* REEVE_POOL_H */
