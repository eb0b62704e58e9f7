/* SPDX-License-Identifier: MIT */
/** mem.h -- memory blocks of any size, and who has how much memory.
 *
 * Blocks of up to 64 KiB come from pools, one for each of 21 sizes: 64, 96, 128, 192 ... 49152,
 * 65536 bytes; a block is the smallest that holds what was asked for. Each pool keeps up to 1 MiB
 * of idle blocks (16 to 1024 of them). Larger blocks, and those that are aligned to more than 16,
 * come from the allocator below and go back to it at once; from some MiB on their pages go to the
 * kernel, which takes a millisecond for 16 MiB. Who needs such often makes an object pool of them.
 *
 * A program that wants its memory at hand before it serves sets up an arena, one mapping in which
 * the pools find their blocks as long as it lasts, and bounds, by reeve_memory_setup().
 *
 * Who owns: whoever was given a block, or got it from him, until it is freed, once, on any thread:
 * another worker than the one that took it costs no more, a thread that is no worker a little.
 *
 * Who may call: any thread, in a task or not; not signal handlers.
 */
#ifndef REEVE_MEM_H
#define REEVE_MEM_H

#include <reeve/time.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A block of at least so many bytes (0: of 1), aligned to 16; what is in it is anything. NULL:
 * there is no memory. */
REEVE_API void *reeve_alloc(size_t bytes);

/** The same with a higher alignment: a power of two up to 1 MiB, for cache lines, SIMD, O_DIRECT.
 * NULL: there is no memory, or align is no such number.
 *     void *sector = reeve_alloc_aligned(4096, 4096); */
REEVE_API void *reeve_alloc_aligned(size_t bytes, size_t align);

/** Frees a block of the two above. NULL: does nothing; a block freed twice, or not from here:
 * abort, as far as it can be told. */
REEVE_API void reeve_free(void *block);

/* ---- an arena, and bounds -------------------------------------------------------------------- */

struct reeve_memory_opts {
    /** Blocks of up to 64 KiB come from one mapping of so many bytes, rounded up to 2 MiB, at most
     * 1 TiB; when it is full, from the allocator. It is cut into parts of 512 KiB, each of which
     * holds blocks of one size. 0: no arena. */
    size_t arena_bytes;
    bool prefault;      /**< all of the arena is in memory at once, and stays there */
    bool huge_pages;    /**< the kernel is asked for huge pages; where it has none, small ones do */
    size_t idle_bytes;  /**< so much may lie idle of each size, but 2 to 2^20 blocks; 0: 1 MiB, but
                         * 16 to 1024 blocks */
    /** All blocks, in use and idle, with what is kept beside each (16 bytes and more), have so much
     * memory at most. Who asks for more when all of it is in use gets NULL. Idle blocks at hand
     * with other workers stay theirs. 0: no limit. */
    size_t bytes_max;
};

/** Says where blocks come from, once, before the first is asked for. 0; -EBUSY: it was said, or
 * there were blocks; -EINVAL: no opts, more than 1 TiB, or an arena of 0 bytes that is to be
 * prefaulted; -ENOMEM.
 *     struct reeve_memory_opts o = { .arena_bytes = 64 << 20, .prefault = true };
 *     if ((r = reeve_memory_setup(&o)) < 0) return r; */
REEVE_API int reeve_memory_setup(const struct reeve_memory_opts *opts);

/** Frees idle blocks, the largest first, until those left have idle_bytes or less; returns how many
 * bytes it freed. Those at hand with other workers count, but only they can let go of them: they
 * are asked to. An arena that was not prefaulted gives the memory of parts in which nothing is left
 * to the kernel. */
REEVE_API size_t reeve_memory_trim(size_t idle_bytes);

/* ---- how much, in all ------------------------------------------------------------------------ */

/** What reeve_alloc and all object pools (pool.h) have together. */
struct reeve_memory {
    uint64_t live_bytes;   /**< in use; a block counts with the size of its pool */
    uint64_t live_objects;
    uint64_t idle_bytes;   /**< kept for the next who asks */
    uint64_t peak_bytes;   /**< so many were in use or idle at a time */
    uint64_t allocations;  /**< blocks and objects taken, ever */
    uint64_t frees;        /**< and given back */
    /** How often anything in the library asked the allocator or the kernel for memory, ever. What
     * leaves this as it is allocates nothing: a server that is warm, for example. */
    uint64_t heap_requests;
    uint64_t arena_bytes;       /**< of the arena; 0: there is none */
    uint64_t arena_used_bytes;  /**< of its blocks that the pools have, in use or idle */
    uint64_t arena_misses;      /**< blocks that it did not have, and the allocator was asked for */
};

/** Exact while nobody takes or frees, a little apart otherwise. */
REEVE_API void reeve_memory_stats(struct reeve_memory *ret_memory);

/** One pool, of blocks or objects. */
struct reeve_memory_pool {
    char name[32];         /**< "alloc 4096", or what its creator called it */
    size_t bytes;          /**< of one of its objects */
    uint64_t live, idle, peak;
    uint64_t hits, misses, returned, dropped;   /**< as in struct reeve_pool_stats */
};

/** Writes up to cap pools; returns how many there are. */
REEVE_API size_t reeve_memory_pools(struct reeve_memory_pool *ret_pools, size_t cap);

/* ---- who has it: the profiler ---------------------------------------------------------------- */

/** What was taken by one call in the program. The figures are estimates made from samples. */
struct reeve_memory_site {
    const void *site;      /**< the address after the call; NULL: all that found no room */
    uint64_t live_bytes, live_objects;   /**< not given back yet */
    uint64_t peak_bytes;   /**< so many were live at a time */
    uint64_t bytes, objects;             /**< taken since the profiler was started */
};

/** Starts sampling: about one in every so many bytes that are taken is followed from the call that
 * took it to its return. 0: 512 KiB, which costs less than one percent of writing to what is taken;
 * 1: every object and block. What an earlier run found is forgotten. 0; -EBUSY: it is running;
 * -ENOMEM. */
REEVE_API int reeve_memory_profile_start(size_t period_bytes);

/** Stops sampling. What was found can still be read, and live figures still fall as objects come
 * back. It costs nothing any more. Not running: does nothing. */
REEVE_API void reeve_memory_profile_stop(void);

/** Writes up to cap call sites, those with the most live bytes first; returns how many there are.
 * `addr2line -e PROGRAM ADDRESS` names one (less the address where the program is loaded).
 *     struct reeve_memory_site top[10];
 *     size_t n = reeve_memory_profile_read(top, 10); */
REEVE_API size_t reeve_memory_profile_read(struct reeve_memory_site *ret_sites, size_t cap);

#ifdef __cplusplus
}
#endif
#endif /* REEVE_MEM_H */
