/* SPDX-License-Identifier: MIT */
/** cache.h -- a bounded store of values by key, which many tasks read at once.
 *
 * A value is a pointer and a length. Whoever borrows one has it pinned: it may be replaced, removed
 * or evicted meanwhile, but it stays whole, where it is, until it is returned. What is not there is
 * loaded, by one call of `load` however many tasks ask for it; each of them waits by its own
 * deadline, and a load that everybody has given up still fills the cache.
 *
 * Levels. The shared table is L2. In front of it each worker may have a small one of its own, L1,
 * whose hits touch nothing that other workers write. Behind it there may be a file, L3: what L2
 * evicts goes there, what L2 misses is looked for there, and it survives the program. A key is one
 * thing in all of them: put, remove, clear and invalidate are through with every level when they
 * return.
 *
 * Who owns: put and load hand a value over to the cache, which hands it to `drop`, once, when it is
 * out of the cache and nobody has it borrowed any more. Keys are copied.
 *
 * Who may call: create, destroy, warm: a task. All else: any thread, where only a task can wait, of
 * whatever runtime. None of it in a signal handler. In a child of fork the cache is a useless copy:
 * borrow, put and remove say -ECHILD, destroy does nothing.
 */
#ifndef REEVE_CACHE_H
#define REEVE_CACHE_H

#include <reeve/bytes.h>
#include <reeve/time.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A value, as it is put, loaded, borrowed and dropped. */
struct reeve_value {
    void *data;       /**< whatever it is; a cache with an L3 or .blocks wants len bytes there */
    size_t len;
    int64_t ttl_ns;   /**< put, loaded: so long it is good; 0: the cache's ttl_ns; < 0: for ever.
                       * Borrowed: what is left of that, at least 1; < 0: for ever */
    uintptr_t opaque; /**< a borrowed value's way back; yours only to copy */
};

/** A cache. It belongs to whoever created it, and is destroyed once. */
typedef struct reeve_cache reeve_cache;

/** Which entry goes when there is no room. */
enum {
    REEVE_S3FIFO,  /**< three queues (Yang and others 2023): the default, and good on most */
    REEVE_LRU,     /**< the one that was not used for longest */
    REEVE_SIEVE,   /**< a queue with a moving hand (Zhang and others 2024): lasting favourites */
    REEVE_ADAPTIVE /**< W-TinyLFU (Einziger and others 2017) with a window that fits itself to the
                    * trace: withstands loops and scans; its changes cost a little more */
};

/** Why a value was dropped. */
enum {
    REEVE_DROP_REPLACED = 1, /**< another was put or loaded for its key */
    REEVE_DROP_EVICTED,      /**< there was no room */
    REEVE_DROP_EXPIRED,      /**< its time was over */
    REEVE_DROP_REMOVED,      /**< reeve_cache_remove() */
    REEVE_DROP_CLEARED,      /**< reeve_cache_clear(), reeve_cache_invalidate() */
    REEVE_DROP_REFUSED,      /**< loaded, but it never got in: it is too large, there was no memory,
                              * or its key was put, removed or cleared while it was being loaded */
    REEVE_DROP_CLOSED,       /**< reeve_cache_destroy() */
    REEVE_DROP_CAUSES
};

/** What an entry weighs besides key and value where nobody weighs: about the memory that it costs.
 */
enum { REEVE_CACHE_ENTRY_BYTES = 192 };

struct reeve_cache_opts {
    int policy;         /**< REEVE_S3FIFO and so on */
    size_t bytes_max;   /**< of all entries' weights together; 0: no limit */
    size_t entries_max; /**< how many there may be; 0: no limit; both 0: 1000 */
    size_t entries;     /**< how many are expected, where only bytes_max is set; 0: nobody knows */
    unsigned shards;    /**< a power of two up to 1024, each with its part of the capacity and a
                         * lock; no entry can weigh more than such a part; fewer where
                         * entries_max is less. 0: one for each 1024
                         * entries and 1 MiB, 64 at most */
    int64_t ttl_ns;     /**< how long a value is good; 0: for ever */
    int64_t refresh_ns; /**< so old, a value is still lent, but loaded anew in the background; less
                         * than ttl_ns. A failure leaves it as it is, and the next try is
                         * refresh_ns later. What comes from L3 is loaded anew when it is borrowed
                         * again, since its age is not known. 0: never */
    int64_t negative_ns; /**< how long a key's load error is remembered, and returned to all who
                          * ask; not -ECANCELED, -ENOMEM, -EDEADLK. 0: not at all */
    int64_t load_ns;    /**< a load that lasts longer is late: its waits end. 0: no limit */
    unsigned levels;    /**< 1: the shared table; 2: and L1; 3: and L3; 0: 2 */
    unsigned l1_entries; /**< of each worker's L1, up to 65536. It pins them: what was evicted, and
                          * lies there, is dropped a little later. 0: 1024, or
                          * 4 entries_max if that is less */
    const char *l3_path; /**< the file, for levels 3; made if it is not there */
    size_t l3_bytes;    /**< of the file; 0: 64 MiB */
    uint64_t l3_tag;    /**< of what is in the file: one with another tag is begun anew */
    bool blocks;        /**< values are blocks of reeve_alloc(), or NULL: the cache frees them
                         * itself, after drop has seen them. With levels 3 that is so in any case */
    void *ctx;          /**< passed to the three below */

    /** Finds the value of a key. It runs in a task of its own, may wait, use other keys of the
     * cache and start tasks; its own key is -EDEADLK, and so is a key whose load waits for this
     * one. >= 0: *ret is the value; or -errno. NULL: nothing is loaded. */
    int (*load)(void *ctx, struct reeve_bytes key, struct reeve_value *ret);

    /** What an entry weighs, at least 1; called once for each, it must not use the cache. NULL:
     * key.len + value.len + REEVE_CACHE_ENTRY_BYTES. */
    size_t (*weigh)(void *ctx, struct reeve_bytes key, struct reeve_value value);

    /** The cache is done with a value: called once for each, on whatever thread was the last to
     * have it, inside the call that let go of it, with no lock held. It must not wait; it may use
     * the cache, unless that is being destroyed. NULL: nobody needs to know. */
    void (*drop)(void *ctx, struct reeve_value value, int cause);
};

/** Makes a cache. Waits only to read an L3. 0; -EINVAL: opts make no sense; -ENOMEM; and with an L3
 * what opening the file said, -EBUSY: it is in use, here or in another program; -ENOTSUP: the
 * runtime has no offload pool; -ETIMEDOUT, -ECANCELED. Outside a task: abort.
 *     struct reeve_cache_opts o = { .entries_max = 10000, .ttl_ns = 60 * REEVE_SEC, .load = fetch,
 *                                   .blocks = true };
 *     int r = reeve_cache_create(&users, &o, 0); */
REEVE_API int reeve_cache_create(reeve_cache **ret_cache, const struct reeve_cache_opts *opts,
                                 reeve_time until);

/** Ends a cache that nobody uses any more, in a task of the runtime it was created in. Loads that
 * still run are waited for until then, and cancelled and waited for after that. What is in L2 goes
 * to L3, if there is one; every value is dropped. NULL: does nothing. A value that is still
 * borrowed: abort. */
REEVE_API void reeve_cache_destroy(reeve_cache *cache, reeve_time until);

/** Lends the value of a key, until reeve_cache_return(). Key: any bytes, also none. If it is not
 * there it is loaded, and that is waited for.
 *
 * 0: *ret_value is the value. -ENOENT: it is not there, and there is no load. What load said, or
 * had said (negative_ns). -EDEADLK: this is the load that would have to be waited for, or what it
 * started. -EAGAIN, -ENOMEM: no task, no memory for a load. -ETIMEDOUT, -ECANCELED: the wait has
 * ended, the load goes on. A deadline that has passed already starts none. -ECANCELED, -ESHUTDOWN
 * also: the runtime is being shut down, and the load with it. -ENOTSUP: it would have to be loaded,
 * and this is no task. -ECHILD: in a child of fork.
 *     struct reeve_value v;
 *     int r = reeve_cache_borrow(users, (struct reeve_bytes){ name, strlen(name) }, &v, 0);
 *     if (r < 0) return r;
 *     r = greet(v.data);
 *     reeve_cache_return(users, v); */
REEVE_API int reeve_cache_borrow(reeve_cache *cache, struct reeve_bytes key,
                                 struct reeve_value *ret_value, reeve_time until);

/** Gives a borrowed value back, on any thread. One that is not on loan from this cache: abort, as
 * far as it can be told. */
REEVE_API void reeve_cache_return(reeve_cache *cache, struct reeve_value value);

/** Puts a value, or replaces what is there. A load of that key that is under way does not get in
 * any more: who waits for it gets what it loads, who asks from now on gets this value.
 *
 * 0: the value is the cache's, which may have dropped it already (ADAPTIVE lets in whom it expects
 * to see again). Else it is the caller's as before, and the key is as it was: -E2BIG: it weighs
 * more than a shard holds; -ENOMEM; -EINVAL: a length without data, where values are blocks;
 * -ECHILD. */
REEVE_API int reeve_cache_put(reeve_cache *cache, struct reeve_bytes key, struct reeve_value value);

/** Removes a key from all levels. Who borrows it from now on does not get the value of before, nor
 * what a load that is under way will find. 0; -ENOENT: it was not there; -ECHILD. */
REEVE_API int reeve_cache_remove(reeve_cache *cache, struct reeve_bytes key);

/** Drops everything. It takes time for each entry; what others put meanwhile may go too. */
REEVE_API void reeve_cache_clear(reeve_cache *cache);

/** Makes everything that is there invalid, at once and however much it is: nobody gets it any more.
 * It is dropped little by little, by later changes. */
REEVE_API void reeve_cache_invalidate(reeve_cache *cache);

/** Drops what has expired, up to `most` entries; returns how many. Who borrows never gets an
 * expired value, and each put drops a few in its shard, so that they take no room from others: this
 * is for who wants them gone although nothing is put. */
REEVE_API size_t reeve_cache_expire(reeve_cache *cache, size_t most);

/** Loads those of n keys that are not there, up to 64 at a time, and waits for them. 0: all are
 * there, or were. Else the first error that a load ended with, and all others were tried all the
 * same; or -ETIMEDOUT, -ECANCELED; -EINVAL: there is no load. Outside a task: abort. */
REEVE_API int reeve_cache_warm(reeve_cache *cache, const struct reeve_bytes keys[], size_t n,
                               reeve_time until);

/** One level. A hit rate is hits / (hits + misses). */
struct reeve_cache_level {
    uint64_t hits, misses; /**< L2 is asked for what L1 misses, L3 for what L2 misses */
    uint64_t inserts;      /**< L1: taken over from L2; L3: demoted from L2 */
    uint64_t removes;      /**< by put, remove, clear, invalidate, not by lack of room or time; L3:
                            * also what moved up to L2 */
    uint64_t evictions;    /**< for lack of room */
    uint64_t entries, bytes; /**< now; bytes: L1, L2 of weight, L3 of the file */
};

/** Everything but `entries`, `bytes` and `lent_bytes` counts since the cache was made, or since
 * reeve_cache_stats_reset(). */
struct reeve_cache_stats {
    struct reeve_cache_level l1, l2, l3;
    uint64_t negative_hits; /**< borrows that were told a remembered error */
    uint64_t loads;         /**< that have ended; among them */
    uint64_t load_errors;
    uint64_t refreshes;     /**< begun because a value was refresh_ns old */
    uint64_t shared;        /**< borrows that waited for a load which another had begun */
    uint64_t load_ns;       /**< that all loads took together; */
    uint64_t load_ns_max;   /**< and the longest one */
    uint64_t dropped[REEVE_DROP_CAUSES]; /**< values, by cause */
    uint64_t lent_bytes;    /**< weight of what is not in the cache any more but still pinned */
};

/** The counters: exact while nobody uses the cache, a little apart otherwise. */
REEVE_API void reeve_cache_stats(reeve_cache *cache, struct reeve_cache_stats *ret_stats);

/** They count from 0 again. */
REEVE_API void reeve_cache_stats_reset(reeve_cache *cache);

#ifdef __cplusplus
}
#endif
#endif /* REEVE_CACHE_H */
