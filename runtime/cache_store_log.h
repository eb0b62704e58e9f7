/* SPDX-License-Identifier: MIT */
/*
 * cache_store_log.h -- the log of a store: what it is made of, and how things are added to it.
 *
 * Everything that changes a store is a record at the log's end: values, removals, clears. The log
 * goes round the ring, and beginning a segment evicts all that was in it.
 *
 *     a segment of the ring
 *     old -> prepared   [rv_store_prepare]   its pages can be written to without a wait for the
 *                                            disk; what it holds is still found
 *     prepared -> head  [begin, when the head is full]    what it held is gone
 *     old -> head       [the same, if a removal needs the room and cannot wait]
 *     head -> old       [begin, of the next]
 */
#ifndef RV_RUNTIME_CACHE_STORE_LOG_H
#define RV_RUNTIME_CACHE_STORE_LOG_H

#include <stdbool.h>

#include "runtime/cache_store.h"
#include "runtime/cache_store_file.h"
#include "runtime/cache_store_index.h"
#include "sched/offload.h"

/* Where the log ends. */
struct rv_store_end {
    uint64_t seq;   /* 0: there is no segment */
    uint32_t slots; /* that the segment has, with its marks */
    size_t within;  /* where its next record would begin */
    bool sealed;    /* nothing is added to it */
};

struct rv_store {
    struct rv_store_file file; /* constant while open; the head under the lock */
    struct rv_store_index index;
    struct rv_offload *offload;
    int64_t (*now)(void);

    struct rv_lock lock RV_ALIGNED_LINE; /* of the log: whoever changes anything; one record long */
    struct rv_store_end end;
    uint64_t next;   /* the segment to begin when the head is full */
    bool next_ready; /* it is prepared */
    bool preparing;  /* `job` is on its way */
    bool closed;
    struct rv_offload_job job;
    struct rv_store_held {
        uint32_t entries;
        uint64_t bytes;
    } *places; /* what is live in each place of the ring */

    /* Changed under the lock, read by anyone. */
    RV_ATOMIC(uint32_t) broken; /* something could not be written: all is gone */
    RV_ATOMIC(uint64_t) entries, bytes;
    RV_ATOMIC(uint64_t) inserts, removes, evictions, dropped, torn, discards;

    RV_ATOMIC(uint32_t) refs; /* the user, and the job on its way */
};

/* What is to be added. */
struct rv_store_item {
    enum rv_store_kind kind;
    uint64_t hash, content; /* content: what key and value sum to */
    const void *key, *data;
    size_t key_len, len;
    int64_t expires_ns;
};

/* Adds a value; under the lock. 0; -EAGAIN: the head is full and the next segment is not prepared;
 * -ENOMEM; -EIO. */
int rv_store_add(struct rv_store *s, const struct rv_store_item *item);

/* Adds a removal, if there is something to remove; under the lock. 0, -ENOENT, -EIO. */
int rv_store_drop(struct rv_store *s, uint64_t hash);

/* Adds a clear; under the lock. 0, -EIO. */
int rv_store_drop_all(struct rv_store *s);

/* The position at which the log ends. */
uint64_t rv_store_end_at(const struct rv_store *s);

/* The largest size of a record. */
size_t rv_store_record_max(const struct rv_store_file *f);

/* Makes the pages of the segment to begin ready to be written to, and says so. May block; without
 * the lock. */
void rv_store_prepare(struct rv_store *s);

/* Has the pool do that, if it is not done; without the lock. */
void rv_store_prepare_soon(struct rv_store *s);

/* The last reference frees the store. */
void rv_store_unref(struct rv_store *s);

#endif
