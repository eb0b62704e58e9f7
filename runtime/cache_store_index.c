/* SPDX-License-Identifier: MIT */
/*
 * cache_store_index.c -- shards of open addressing with linear probing, up to three quarters full.
 *
 * When a segment of the log is overwritten, its records are gone at once, and their entries are
 * stale: nobody looks for them. An entry that is stale is passed over, and its place is given to
 * the next that is set and comes by. A shard that is full is moved to an array for twice what is
 * live in it, which leaves the stale ones behind.
 *
 * (1) An entry can be reached from its hash's own place without passing an empty one.
 * (2) There is at most one entry of a hash, stale or not.
 * (3) Only the thread that may change the index moves a shard; the shard's lock is held for the
 *     exchange of the two arrays and not for the copying, so a find never waits for that.
 *
 * Threads: find - any; the rest - one at a time.
 */
#include "runtime/cache_store_index.h"

#include <errno.h>
#include <string.h>

#include "mem/alloc.h"
#include "mem/die.h"

#define CAP_MIN 16u
#define SHARD_FILE_BYTES ((size_t)1 << 18) /* so much of the file for a shard */
#define BITS_MAX 12u

int rv_store_index_init(struct rv_store_index *x, const struct rv_store_file *file)
{
    unsigned bits = 0;
    size_t bytes = rv_store_bytes(file);
    while (bits < BITS_MAX && bytes >> (bits + 1) >= SHARD_FILE_BYTES)
        bits++;
    size_t shards_bytes = sizeof(struct rv_store_shard) << bits;
    *x = (struct rv_store_index){ .file = file, .bits = bits };
    x->shards = rv_alloc_aligned(shards_bytes, RV_CACHE_LINE);
    x->seqs = rv_alloc_zero(file->segments * sizeof *x->seqs);
    if (x->shards == NULL || x->seqs == NULL) {
        rv_free(x->shards);
        rv_free((void *)x->seqs);
        *x = (struct rv_store_index){ 0 };
        return -ENOMEM;
    }
    memset((void *)x->shards, 0, shards_bytes);
    return 0;
}

void rv_store_index_finish(struct rv_store_index *x)
{
    for (uint32_t i = 0; x->shards && i < rv_store_shards(x); i++)
        rv_free(x->shards[i].entries);
    rv_free(x->shards);
    rv_free((void *)x->seqs);
    *x = (struct rv_store_index){ 0 };
}

/* The entry of that hash, or where the search ended: cap, an empty place or none at all. */
static uint32_t place_of(const struct rv_store_shard *sh, uint64_t hash)
{
    uint32_t mask = sh->cap - 1;
    if (sh->cap == 0)
        return 0;
    for (uint32_t i = (uint32_t)hash & mask;; i = (i + 1) & mask) {
        const struct rv_store_entry *e = &sh->entries[i];
        if (e->at == 0 || e->hash == hash)
            return i;
    }
}

static bool is_there(const struct rv_store_shard *sh, uint32_t i)
{
    return i < sh->cap && sh->entries[i].at != 0;
}

bool rv_store_index_find(struct rv_store_index *x, uint64_t hash, struct rv_store_entry *ret_entry)
{
    struct rv_store_shard *sh = rv_store_shard(x, hash);
    rv_lock_acquire(&sh->lock);
    uint32_t i = place_of(sh, hash);
    bool found = is_there(sh, i) && rv_store_is_live(x, sh->entries[i].at);
    if (found)
        *ret_entry = sh->entries[i];
    rv_lock_release(&sh->lock);
    return found;
}

/* ---- changes ---- */

static bool is_full(uint32_t used, uint32_t cap)
{
    return used + 1 > cap / 4 * 3;
}

static uint32_t count_live(const struct rv_store_index *x, const struct rv_store_shard *sh)
{
    uint32_t live = 0;
    for (uint32_t i = 0; i < sh->cap; i++)
        live += sh->entries[i].at != 0 && rv_store_is_live(x, sh->entries[i].at);
    return live;
}

/* See (3). */
static int move(struct rv_store_index *x, struct rv_store_shard *sh)
{
    uint32_t live = count_live(x, sh), used = 0;
    struct rv_store_shard larger = { .cap = CAP_MIN };
    while (larger.cap < (UINT32_C(1) << 30) && is_full(live + live / 2, larger.cap))
        larger.cap *= 2;
    larger.entries = rv_alloc_zero(larger.cap * sizeof *larger.entries);
    if (larger.entries == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < sh->cap; i++) {
        const struct rv_store_entry *e = &sh->entries[i];
        if (e->at == 0 || !rv_store_is_live(x, e->at))
            continue;
        larger.entries[place_of(&larger, e->hash)] = *e;
        used++;
    }
    RV_ASSERT(used == live);
    struct rv_store_entry *old = sh->entries;
    rv_lock_acquire(&sh->lock);
    sh->entries = larger.entries;
    sh->cap = larger.cap;
    sh->used = used;
    rv_lock_release(&sh->lock);
    rv_free(old);
    return 0;
}

int rv_store_index_reserve(struct rv_store_index *x, uint64_t hash)
{
    struct rv_store_shard *sh = rv_store_shard(x, hash);
    if (!is_full(sh->used, sh->cap) || is_there(sh, place_of(sh, hash)))
        return 0;
    return move(x, sh);
}

/* A stale entry on the way to the hash's empty place; or that place. */
static uint32_t stale_or_empty(const struct rv_store_index *x, const struct rv_store_shard *sh,
                               uint64_t hash)
{
    uint32_t mask = sh->cap - 1, i = (uint32_t)hash & mask;
    while (sh->entries[i].at != 0 && rv_store_is_live(x, sh->entries[i].at))
        i = (i + 1) & mask;
    return i;
}

bool rv_store_index_set(struct rv_store_index *x, const struct rv_store_entry *entry,
                        struct rv_store_entry *ret_old)
{
    struct rv_store_shard *sh = rv_store_shard(x, entry->hash);
    rv_lock_acquire(&sh->lock);
    uint32_t i = place_of(sh, entry->hash);
    bool was = is_there(sh, i), live = was && rv_store_is_live(x, sh->entries[i].at);
    if (live)
        *ret_old = sh->entries[i];
    if (!was) {
        RV_MUST(!is_full(sh->used, sh->cap));
        i = stale_or_empty(x, sh, entry->hash);
        sh->used += sh->entries[i].at == 0;
    }
    sh->entries[i] = *entry;
    rv_lock_release(&sh->lock);
    return live;
}

/* Makes the place empty, and moves up what could not be reached any more; see (1). */
static void take_out(struct rv_store_shard *sh, uint32_t hole)
{
    uint32_t mask = sh->cap - 1;
    for (uint32_t i = (hole + 1) & mask; sh->entries[i].at != 0; i = (i + 1) & mask) {
        uint32_t own = (uint32_t)sh->entries[i].hash & mask;
        if (((i - own) & mask) < ((i - hole) & mask))
            continue; /* its own place is behind the hole */
        sh->entries[hole] = sh->entries[i];
        hole = i;
    }
    sh->entries[hole] = (struct rv_store_entry){ 0 };
    sh->used--;
}

bool rv_store_index_drop(struct rv_store_index *x, uint64_t hash, struct rv_store_entry *ret_old)
{
    struct rv_store_shard *sh = rv_store_shard(x, hash);
    rv_lock_acquire(&sh->lock);
    uint32_t i = place_of(sh, hash);
    bool was = is_there(sh, i), live = was && rv_store_is_live(x, sh->entries[i].at);
    if (live)
        *ret_old = sh->entries[i];
    if (was)
        take_out(sh, i);
    rv_lock_release(&sh->lock);
    return live;
}
