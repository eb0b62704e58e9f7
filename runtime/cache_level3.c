/* SPDX-License-Identifier: MIT */
/*
 * cache_level3.c -- between the table and the store in a file.
 *
 *     L2 -> L3   [rv_l3_demote]   evicted for lack of room, or at the end of the cache
 *     L3 -> L2   [rv_l3_get]      a load looks here first; what it finds moves up, and is gone here
 *
 * (1) A record is written and removed under the lock of its key's shard, with the change of L2 that
 *     it belongs to; what a load has read fills only if nothing has changed the key since. So L3
 *     never has anything older than the last change, nor brings it back.
 * (2) Under that lock nothing waits: a record for which no room is prepared is not written. The old
 *     one is gone in any case.
 * (3) Times in the file are the wall clock's: they go on while the program does not run.
 *
 * Threads: any; get - a task.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include <reeve/mem.h>

#include "mem/die.h"
#include "runtime/cache.h"
#include "runtime/cache_store.h"

static int64_t wall_ns(void)
{
    struct timespec ts;
    RV_MUST(clock_gettime(CLOCK_REALTIME, &ts) == 0);
    return (int64_t)ts.tv_sec * REEVE_SEC + ts.tv_nsec;
}

int rv_l3_open(struct reeve_cache *c, reeve_time until)
{
    if (c->o.levels < 3)
        return 0;
    struct rv_store_opts opts = { .path = c->o.l3_path,
                                  .bytes = c->o.l3_bytes,
                                  .tag = c->o.l3_tag };
    return rv_store_open(&c->store, &opts, until);
}

void rv_l3_close(struct reeve_cache *c, reeve_time until)
{
    rv_store_close(c->store, until);
    c->store = NULL;
}

/* What the store said, and that it can be used. */
static int heard(struct reeve_cache *c, int r)
{
    if (r == -EIO)
        rv_store_relaxed(&c->l3_failed, 1u);
    return r;
}

int rv_l3_get(struct reeve_cache *c, const struct rv_key *key, struct reeve_value *ret_value)
{
    int64_t expires;
    if (c->store == NULL || rv_load_relaxed(&c->l3_failed) != 0)
        return -ENOENT;
    /* What is there may be of before an invalidation; pairs with reeve_cache_invalidate(). */
    if (rv_load_acquire(&c->l3_closed) != 0)
        return -ENOENT;
    struct reeve_value value = { 0 };
    if (heard(c, rv_store_get(c->store, key, &value.data, &value.len, &expires, 0)) < 0)
        return -ENOENT;
    int64_t left = expires > 0 ? expires - wall_ns() : 0;
    if (expires > 0 && left <= 0) {
        reeve_free(value.data);
        return -ENOENT;
    }
    value.ttl_ns = expires > 0 ? left : -1;
    *ret_value = value;
    return 0;
}

void rv_l3_demote(struct reeve_cache *c, struct rv_cache_entry *e, reeve_time until)
{
    int64_t expires = 0;
    if (rv_load_relaxed(&c->l3_failed) != 0)
        return;
    if (e->spoke.expires != RV_NEVER) {
        int64_t left = e->spoke.expires - c->now();
        if (left <= 0)
            return;
        int64_t now = wall_ns();
        expires = left < INT64_MAX - now ? now + left : INT64_MAX;
    }
    if (heard(c, rv_store_put(c->store, &e->in.key, e->data, e->len, expires, until)) == 0)
        rv_cache_count(c, RV_CC_L3_INSERTS, 1);
}

bool rv_l3_remove(struct reeve_cache *c, const struct rv_key *key)
{
    return c->store != NULL && heard(c, rv_store_remove(c->store, key)) == 0;
}

void rv_l3_clear(struct reeve_cache *c)
{
    if (c->store != NULL)
        heard(c, rv_store_clear(c->store));
}

void rv_l3_stats(struct reeve_cache *c, struct reeve_cache_level *ret_level)
{
    struct rv_store_stats s;
    if (c->store == NULL)
        return;
    rv_store_stats(c->store, &s);
    ret_level->hits = s.hits;
    ret_level->misses = s.misses;
    ret_level->removes = s.removes;
    ret_level->evictions = s.evictions;
    ret_level->entries = s.entries;
    ret_level->bytes = s.bytes;
}

void rv_l3_stats_reset(struct reeve_cache *c)
{
    if (c->store != NULL)
        rv_store_stats_reset(c->store);
}
