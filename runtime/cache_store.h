/* SPDX-License-Identifier: MIT */
/*
 * cache_store.h -- a bounded store of byte records in a mapped file: the third level of a cache.
 *
 * It survives a restart of the program. What was stored whole is found again; what is torn,
 * foreign, damaged or of another version is recognised and discarded, never served. It is a cache:
 * any record may be gone at any time, the oldest first, but no get ever finds another value than
 * the last one that was put, or one that was removed:
 *
 * - Once rv_store_put() or rv_store_remove() has returned, whatever it returned, no get finds an
 *   older value of that key: not on another thread, not after the end of the process, however it
 *   ended. (What was under way then is there or is not.)
 * - After a loss of power, or whatever else undoes the latest writes to the file: what is found is
 *   what was in the store at some earlier moment, less some records; nothing is mixed of two
 *   moments. A removal whose record reached the disk holds, even if something before it did not:
 *   then what is older is given up. How this comes to be: cache_store_scan.c.
 * - Damage to one place of the file costs one record at most. Damage to more of them may cost all,
 *   but never shows a value that does not count, as long as the file was closed. (If it was not,
 *   damage to the very end of the log may look like writes that were lost.)
 *
 *     struct rv_store_opts opts = { .path = "cache.l3", .bytes = 64 << 20 };
 *     if ((r = rv_store_open(&s, &opts, 0)) < 0) return r;
 *     struct rv_key key = { .data = "a", .len = 1 };             // the hash is not looked at
 *     r = rv_store_put(s, &key, value, len, 0, REEVE_POLL);
 *     if ((r = rv_store_get(s, &key, &data, &n, NULL, 0)) == 0) use(data, n), reeve_free(data);
 *     rv_store_close(s, 0);
 *
 * Threads: open, close - a task; the rest - any thread, in tasks or not, any number at a time. In
 * a task they stop no worker: what is not in memory is fetched while the task is suspended, so only
 * what takes a reeve_time suspends. On a foreign thread they block instead, and never suspend.
 */
#ifndef RV_RUNTIME_CACHE_STORE_H
#define RV_RUNTIME_CACHE_STORE_H

#include <reeve/time.h>
#include <stddef.h>
#include <stdint.h>

#include "mem/table.h"

struct rv_store;

struct rv_store_opts {
    const char *path;     /* made if it is not there; what else is there is overwritten */
    size_t bytes;         /* of the file, rounded up to whole segments */
    size_t segment_bytes; /* what is evicted at a time, and bounds a record; a power of two from
                            * 4096 on; 0: bytes / 32, but from 64 KiB (or less, so that there are
                            * four) to 1 MiB */
    uint64_t tag;         /* of the user: a file with another one is foreign and begins anew */
    int64_t (*now)(void); /* wall clock, ns since 1970; NULL: the system's. Any thread */
};

struct rv_store_stats {
    uint64_t hits, misses;     /* of gets; a hit gave out a value */
    uint64_t inserts, removes; /* puts and removes that returned 0 */
    uint64_t evictions;        /* records that made room for newer ones */
    uint64_t expired;          /* misses on a record whose time was over */
    uint64_t torn;             /* records found damaged: at open, and by gets (misses, too) */
    uint64_t dropped;          /* puts that found no room prepared: -EAGAIN */
    uint64_t discards;         /* at open: 1 if all or a part of the file was given up */
    uint64_t bytes, bytes_max; /* of the records that can be found, with their keys */
    uint64_t entries;
};

/* Reads the file's directory, on the pool. 0; -EINVAL: no path, bytes 0, segment_bytes; -EBUSY:
 * it is open already, here or in another process; -EFBIG, -ENOSPC and what else the file says;
 * -ENOMEM; -ENOTSUP: the runtime has no offload pool; -ETIMEDOUT, -ECANCELED. The store must be
 * closed before its runtime ends. */
int rv_store_open(struct rv_store **ret_store, const struct rv_store_opts *opts, reeve_time until);

/* The value, in a block from reeve_alloc() that is then the caller's (never NULL). ret_expires_ns
 * may be NULL. In a task, waits for the disk; REEVE_POLL: -ETIMEDOUT says it is not in memory.
 * 0; -ENOENT; -ENOMEM; -EIO: the file was shortened under us, or its disk fails; -ETIMEDOUT,
 * -ECANCELED, -EAGAIN: of the wait. */
int rv_store_get(struct rv_store *s, const struct rv_key *key, void **ret_data, size_t *ret_len,
                 int64_t *ret_expires_ns, reeve_time until);

/* In a task: waits until the key's record is in memory, so that a get with REEVE_POLL finds it if
 * it follows soon. 0, also if there is none; errors as of get. On a foreign thread: 0. */
int rv_store_fetch(struct rv_store *s, const struct rv_key *key, reeve_time until);

/* Copies. expires_ns: wall clock; 0: never. Room is prepared by the pool ahead of need; a task that
 * is faster than that waits for it, and with REEVE_POLL it never waits and gets -EAGAIN.
 * 0; -E2BIG: rv_store_fits() says so; -EAGAIN; -ENOMEM; -EIO; -ETIMEDOUT, -ECANCELED. Whatever it
 * returns, an older value of that key is gone. */
int rv_store_put(struct rv_store *s, const struct rv_key *key, const void *data, size_t len,
                 int64_t expires_ns, reeve_time until);

/* Never suspends. When it returns, the removal is in the file. 0; -ENOENT; -EIO: it could not be
 * written, and the store finds nothing at all from now on. */
int rv_store_remove(struct rv_store *s, const struct rv_key *key);

/* Removes all, in the same sense. 0; -EIO. */
int rv_store_clear(struct rv_store *s);

/* Waits until all that was done is on the disk, where a loss of power does not undo it. In a task.
 * 0; -EIO, -ENOSPC: a disk that fails; -ETIMEDOUT, -ECANCELED, -ENOTSUP. */
int rv_store_flush(struct rv_store *s, reeve_time until);

/* The largest value that a key of that length may have; 0: none, not even an empty one. */
size_t rv_store_fits(const struct rv_store *s, size_t key_len);

void rv_store_stats(struct rv_store *s, struct rv_store_stats *ret_stats);
/* The counters, not the gauges. */
void rv_store_stats_reset(struct rv_store *s);

/* Starts writing to the disk what is not there yet, lets go of the file (another one may open it as
 * soon as this returns) and frees the store. NULL: does nothing. */
void rv_store_close(struct rv_store *s, reeve_time until);

#endif
