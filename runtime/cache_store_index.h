/* SPDX-License-Identifier: MIT */
/*
 * cache_store_index.h -- where the records of a store are: a hash table in shards, in memory.
 *
 *     rv_store_index_init(&x, &file);
 *     rv_store_index_reserve(&x, hash);             // the only one that allocates
 *     rv_store_index_set(&x, &entry, &old);         // takes the place of one of the same hash
 *     found = rv_store_index_find(&x, hash, &entry);
 *
 * Entries are told apart by their hash alone. Of two keys with the same one (of 64 bits, under the
 * file's own seed) the later takes the other's place: a cache may lose what it holds.
 *
 * Threads: find - any; the rest - one at a time (whoever holds the lock of the log).
 */
#ifndef RV_RUNTIME_CACHE_STORE_INDEX_H
#define RV_RUNTIME_CACHE_STORE_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mem/lock.h"
#include "mem/rv_atomic.h"
#include "runtime/cache_store_file.h"

/* What gets have counted, in the shard of their key. */
struct rv_store_gets {
    RV_ATOMIC(uint64_t) hits, misses, expired, torn;
};

struct rv_store_shard {
    struct rv_lock lock RV_ALIGNED_LINE; /* for a search, or a change of a few entries */
    uint32_t cap;                        /* a power of two; 0: nothing yet */
    uint32_t used;                       /* with what is stale */
    struct rv_store_entry *entries;      /* at 0: none */
    struct rv_store_gets n;
};

struct rv_store_index {
    const struct rv_store_file *file;
    struct rv_store_shard *shards;
    unsigned bits; /* of the hash, from the top, that choose the shard */
    /* What the places of the ring hold, and from where on it counts: the rest is stale. Stored
     * before the first byte of a segment is overwritten. */
    RV_ATOMIC(uint64_t) *seqs;
    RV_ATOMIC(uint64_t) floor;
};

/* 0 or -ENOMEM; then {0}. */
int rv_store_index_init(struct rv_store_index *x, const struct rv_store_file *file);
/* {0} is fine. */
void rv_store_index_finish(struct rv_store_index *x);

static inline struct rv_store_shard *rv_store_shard(const struct rv_store_index *x, uint64_t hash)
{
    return &x->shards[x->bits ? hash >> (64 - x->bits) : 0];
}

static inline uint32_t rv_store_shards(const struct rv_store_index *x)
{
    return 1u << x->bits;
}

/* Whether what was at that position still is. */
static inline bool rv_store_is_live(const struct rv_store_index *x, uint64_t at)
{
    uint64_t seq = rv_store_seq(x->file, at);
    /* Both pair with the releases in cache_store_log.c. */
    return rv_load_acquire(&x->seqs[rv_store_place(x->file, seq)]) == seq &&
           at >= rv_load_acquire(&x->floor);
}

bool rv_store_index_find(struct rv_store_index *x, uint64_t hash, struct rv_store_entry *ret_entry);

/* Makes sure that one more, of that hash, can be set. 0 or -ENOMEM. */
int rv_store_index_reserve(struct rv_store_index *x, uint64_t hash);

/* True: one of the same hash was there, and is in *ret_old. Reserved before. */
bool rv_store_index_set(struct rv_store_index *x, const struct rv_store_entry *entry,
                        struct rv_store_entry *ret_old);

/* True: it was there, and is in *ret_old. */
bool rv_store_index_drop(struct rv_store_index *x, uint64_t hash, struct rv_store_entry *ret_old);

#endif
