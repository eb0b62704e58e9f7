/* SPDX-License-Identifier: MIT */
/*
 * table.h -- a concurrent hash table of pinned entries, in shards, each with its policy: what the
 * caches are made of.
 *
 *     table --- epoch
 *       |
 *     shards, chosen by the top bits of a key's hash
 *       |  | cur, old: hash sets of entries, by the low bits; readers go in without the lock |
 *       |  | lock, limbo, count | policy |
 *
 * Readers are in an epoch section and look into Concurrency Kit's hash set (one writer, many
 * readers); writers hold the shard's lock for as long as it takes to change a few words. Neither
 * ever calls its user or waits for anything else. A set that gets too full is moved to another, a
 * few entries at each change, and so is one in which too much was deleted; nobody pays for all.
 *
 * An entry is the user's struct with an rv_entry in it. It is never changed once it is in the
 * table; to change a value is to put another entry. Who found an entry has it pinned: it may be
 * removed meanwhile, but it is there, whole, until it is unpinned.
 *
 *     being made -> in the table                     [rv_table_put]
 *     in the table -> gone, with a cause             [rv_table_put, _remove, _take, _evict]
 *     gone -> ended: the last pin was given back     [rv_table_unpin returned true]
 *     ended -> released: no reader can see it any more    [rv_table_retire, later opts.release]
 *
 * How a cache is made of it (runtime/cache.c):
 *
 *     lookup   key = rv_table_key(t, data, len); e = rv_table_find(t, &key), which counts as a hit
 *              for the policy. Pinned: e is lent to the caller. Expired? rv_table_take(t, e, cause)
 *              removes this very entry, if it still is there, and it is a miss.
 *     return   rv_table_unpin(e); if that is true then the caller was the last: drop its value,
 *              with rv_entry_cause(e), then rv_table_retire(t, e).
 *     kept     who keeps an entry pinned to lend it again asks rv_entry_cause(e) first: it is not 0
 *              from before the entry cannot be found any more, and who finds what came after it
 *              finds that too.
 *     put      make the entry, its key and weight, then rv_table_put(t, e, how, &gone).
 *     remove   rv_table_remove(t, &key, cause, &gone).
 *     drops    put, remove and evict hand over the pins that the table had, as a list: go through
 *              it by rv_gone_next() *after* the call and treat each as in `return`. So callbacks
 *              run outside of locks and sections, each once, with its cause.
 *     weight   what is in the table is never above the capacity. An entry that is gone but still
 *              pinned is not in it any more; rv_table_lent() says how much that is together.
 *     shards   rv_policy_fits() of a shard bounds an item: -E2BIG. To make a larger set is to clear
 *              9 bytes a place at once, under the lock: so many shards that one has no more than
 *              some ten thousand entries, and say how many entries are expected.
 *
 * Threads: any, for all but init and finish.
 */
#ifndef RV_MEM_TABLE_H
#define RV_MEM_TABLE_H

#include <ck_hs.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mem/epoch.h"
#include "mem/lock.h"
#include "mem/policy.h"
#include "mem/rv_atomic.h"
#include "mem/table_hash.h"

/* Any bytes, also none, also with NULs. data: lent; an entry's own lives as long as the entry. */
struct rv_key {
    uint64_t hash;
    const void *data;
    size_t len;
};

/* Why an entry is gone. The user may have more causes of his own, from RV_CAUSE_OWN on. */
enum rv_cause { RV_CAUSE_NONE, RV_CAUSE_REPLACED, RV_CAUSE_EVICTED, RV_CAUSE_OWN };

/* What a hit touches is in its first 40 bytes: allocated on a line, it is one line. */
struct rv_entry {
    struct rv_key key;                  /* first: a set's comparison takes an entry for a key */
    RV_ATOMIC(uint32_t) pins;           /* the table's, while it is in it, and each finder's */
    RV_ATOMIC(uint8_t) cause;           /* not 0: it is gone, or about to go */
    struct rv_node node;
    union {
        struct rv_entry *next;          /* in the list of those that are gone */
        ck_epoch_entry_t limbo;         /* after rv_table_retire() */
    } after;
};

/* Why it is gone; RV_CAUSE_NONE: it was in the table when somebody looked, or is not yet. */
static inline unsigned rv_entry_cause(struct rv_entry *e)
{
    return rv_load_acquire(&e->cause);  /* pairs with take_out() and swap_in() */
}

struct rv_side;

struct rv_shard {
    /* Read by readers. */
    RV_ATOMIC(struct rv_side *) cur RV_ALIGNED_LINE;    /* where new ones go */
    RV_ATOMIC(struct rv_side *) old;                    /* what is being moved; mostly NULL */

    /* Under the lock. */
    struct rv_lock lock RV_ALIGNED_LINE;
    RV_ATOMIC(size_t) count, weight;    /* for those who ask without the lock */
    ck_hs_iterator_t cursor;            /* in old */
    struct rv_limbo limbo;
    struct rv_policy policy;
};

struct rv_table_opts {
    unsigned shards;            /* a power of two, at most 1024; 0: 1 */
    int policy;                 /* enum rv_policy_kind */
    size_t bytes_max;           /* of all shards; 0: no limit, then there is one of entries */
    size_t entries_max;
    size_t entries;             /* how many are expected; 0: entries_max, or nobody knows */
    void (*release)(void *ctx, struct rv_entry *entry);    /* gives the memory back; any thread */
    void *ctx;
    const struct rv_seed *seed; /* tests; NULL: a random one */
};

struct rv_table {
    struct rv_epoch epoch;
    struct rv_seed seed;
    struct rv_shard *shards;
    unsigned shards_n, shift;   /* hash >> shift is a shard's index, if there are several */
    void (*release)(void *ctx, struct rv_entry *entry);
    void *ctx;
    RV_ATOMIC(size_t) lent RV_ALIGNED_LINE;     /* weight of those gone but pinned */
};

/* Its own struct is the caller's, aligned to cache lines. 0, -EINVAL, -ENOMEM. */
int rv_table_init(struct rv_table *t, const struct rv_table_opts *opts);

/* The table is empty: take everything out by rv_table_evict() before; and no entry is pinned.
 * What was retired is freed. {0} is fine. */
void rv_table_finish(struct rv_table *t);

struct rv_key rv_table_key(const struct rv_table *t, const void *data, size_t len);

static inline struct rv_shard *rv_table_shard(const struct rv_table *t, uint64_t hash)
{
    return &t->shards[t->shards_n > 1 ? hash >> t->shift : 0];
}

/* The entry of that key, pinned, or NULL. It counts as a hit. */
struct rv_entry *rv_table_find(struct rv_table *t, const struct rv_key *key);

/* The same, but no hit. */
struct rv_entry *rv_table_peek(struct rv_table *t, const struct rv_key *key);

/* One pin more of an entry that the caller has pinned. */
void rv_table_pin(struct rv_entry *e);

/* Gives a pin back. True: it was the last, and the entry is gone: the caller drops what is in it
 * and then calls rv_table_retire(). */
bool rv_table_unpin(struct rv_table *t, struct rv_entry *e)
    __attribute__((warn_unused_result));

/* Has the memory freed when no reader can see it any more. */
void rv_table_retire(struct rv_table *t, struct rv_entry *e);

enum { RV_PUT_PINNED = 1, RV_PUT_ABSENT = 2 };

/* Puts an entry with key and node.weight set, hash by rv_table_key(). What it replaces and what had
 * to leave for it is pushed in front of *gone; the entry itself may be among them. how:
 * RV_PUT_PINNED, it is pinned for the caller too; RV_PUT_ABSENT, only if the key is not there.
 * 0; -E2BIG, it does not fit into a shard; -EEXIST; -ENOMEM. On failure the entry is the caller's
 * as before. */
int rv_table_put(struct rv_table *t, struct rv_entry *e, unsigned how, struct rv_entry **gone);

/* Removes the key. Whether it was there; then it is in front of *gone. */
bool rv_table_remove(struct rv_table *t, const struct rv_key *key, unsigned cause,
                     struct rv_entry **gone);

/* Removes this very entry, which the caller has pinned. Whether it was there. */
bool rv_table_take(struct rv_table *t, struct rv_entry *e, unsigned cause, struct rv_entry **gone);

/* Removes up to `most` entries of a shard, in the order of its policy; how many. For clearing. */
unsigned rv_table_evict(struct rv_table *t, unsigned shard, unsigned most, unsigned cause,
                        struct rv_entry **gone);

/* Takes the first off a list of those gone; NULL: it is empty. The caller has the pin that the
 * table had. */
struct rv_entry *rv_gone_next(struct rv_entry **gone);

/* Frees what was retired and nobody can see any more: for who has time. */
void rv_table_sweep(struct rv_table *t);

/* Each at some moment. */
size_t rv_table_count(const struct rv_table *t);
size_t rv_table_weight(const struct rv_table *t);
size_t rv_table_lent(const struct rv_table *t);

/* So many places at most are looked at to find an entry, or a place for one; tests. */
size_t rv_table_reach(struct rv_table *t);

#endif
