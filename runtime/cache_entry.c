/* SPDX-License-Identifier: MIT */
/*
 * cache_entry.c -- entries: made, put, expired, gone, dropped.
 *
 *     made -> filled           [rv_cache_entry_fill, _fail]
 *     filled -> in the table   [rv_cache_enter]      in the wheel too, if it expires
 *     in the table -> gone     [rv_cache_enter, _reap, _take, remove, clear]
 *     gone -> settled          [rv_cache_settle]     out of the wheel, demoted if it was evicted
 *     settled -> dropped       [rv_cache_end]        when the last pin is given back
 *
 * When what has expired goes: at a lookup that finds it; and at each change of its shard, which
 * asks the wheel for a few before it makes room otherwise. So what is dead never takes room from
 * what is put, and an idle cache needs no timer that wakes an idle program. In the same way a few
 * of an older generation go with each change.
 *
 * Threads: any.
 */
#include <errno.h>
#include <string.h>

#include "mem/alloc.h"
#include "mem/die.h"
#include "runtime/cache.h"
#include <reeve/mem.h>

enum { REAP_MOST = 4, SHED_MOST = 8 };

struct rv_cache_entry *rv_cache_entry_new(struct reeve_cache *c, const struct rv_key *key)
{
    struct rv_cache_entry *e = rv_alloc_aligned(sizeof *e + key->len, RV_CACHE_LINE);
    if (e == NULL)
        return NULL;
    memset(e, 0, sizeof *e);
    if (key->len > 0)
        memcpy(e->key, key->data, key->len);
    e->in.key = (struct rv_key){ .hash = key->hash, .data = e->key, .len = key->len };
    e->cache = c;
    e->gen = rv_load_acquire(&c->gen); /* pairs with reeve_cache_invalidate() */
    return e;
}

static int64_t later(int64_t now, int64_t ns)
{
    return ns > 0 && ns < RV_NEVER - now ? now + ns : RV_NEVER;
}

void rv_cache_entry_fill(struct reeve_cache *c, struct rv_cache_entry *e, struct reeve_value value)
{
    struct reeve_bytes key = { e->key, e->in.key.len };
    int64_t ttl = value.ttl_ns != 0 ? value.ttl_ns : c->o.ttl_ns;
    int64_t refresh = c->o.load != NULL ? c->o.refresh_ns : 0;
    int64_t now = ttl > 0 || refresh > 0 ? c->now() : 0;
    e->data = value.data;
    e->len = value.len;
    e->spoke.expires = later(now, ttl);
    int64_t soft = later(now, refresh);
    rv_store_relaxed(&e->soft, soft < e->spoke.expires ? soft : e->spoke.expires);
    size_t weight = c->o.weigh != NULL ? c->o.weigh(c->o.ctx, key, value)
                                       : key.len + value.len + REEVE_CACHE_ENTRY_BYTES;
    e->in.node.weight = weight > 0 ? weight : 1;
}

void rv_cache_entry_fail(struct reeve_cache *c, struct rv_cache_entry *e, int error)
{
    e->error = error;
    e->spoke.expires = later(c->now(), c->o.negative_ns);
    rv_store_relaxed(&e->soft, e->spoke.expires);
    e->in.node.weight = e->in.key.len + REEVE_CACHE_ENTRY_BYTES;
}

void rv_cache_settle(struct reeve_cache *c, struct rv_entry *first, struct rv_entry *end)
{
    uint64_t gen = rv_load_acquire(&c->gen);
    for (struct rv_entry *in = first; in != end; in = in->after.next) {
        struct rv_cache_entry *e = rv_cache_entry(in);
        rv_wheel_remove(&e->spoke);
        if (e->gen != gen && rv_entry_cause(in) == RV_CAUSE_EVICTED)
            rv_store_release(&in->cause, (uint8_t)RV_CAUSE_CLEARED);
        unsigned cause = rv_entry_cause(in);
        if (c->store != NULL && e->error == 0 && e->gen == gen &&
            (cause == RV_CAUSE_EVICTED || cause == REEVE_DROP_CLOSED))
            rv_l3_demote(c, e, cause == REEVE_DROP_CLOSED ? c->closed_at : REEVE_POLL);
        rv_cache_count(c, RV_CC_GONE + cause, 1);
    }
}

static struct rv_entry *entry_at(struct rv_spoke *s)
{
    return (struct rv_entry *)(void *)((char *)s - offsetof(struct rv_cache_entry, spoke));
}

unsigned rv_cache_reap(struct reeve_cache *c, struct rv_cache_shard *sh, unsigned most,
                       struct rv_entry **gone)
{
    struct rv_entry *before = *gone;
    struct rv_spoke *s;
    unsigned n = 0, looks = 2 * most;
    if (!rv_wheel_turns(&sh->wheel))
        return 0;
    int64_t now = c->now();
    while (n < most && (s = rv_wheel_due(&sh->wheel, now, &looks)) != NULL) {
        /* What is in the wheel is in the table, which has it pinned. */
        RV_MUST(rv_table_take(&c->table, entry_at(s), RV_CAUSE_EXPIRED, gone));
        n++;
    }
    rv_cache_settle(c, *gone, before);
    return n;
}

/* A few of what was there before an invalidation. The first change after it comes by here before it
 * puts anything, so all that is in the wheel then is old. */
static void shed_old(struct reeve_cache *c, struct rv_cache_shard *sh, struct rv_entry **gone)
{
    uint64_t gen = rv_load_acquire(&c->gen);
    struct rv_entry *before = *gone;
    struct rv_spoke *s;
    if (sh->gen != gen) {
        sh->gen = gen;
        rv_wheel_age(&sh->wheel);
    }
    for (int i = 0; i < SHED_MOST && (s = rv_wheel_old(&sh->wheel)) != NULL; i++)
        RV_MUST(rv_table_take(&c->table, entry_at(s), RV_CAUSE_CLEARED, gone));
    rv_cache_settle(c, *gone, before);
}

int rv_cache_enter(struct reeve_cache *c, struct rv_cache_shard *sh, struct rv_cache_entry *e,
                   unsigned how, struct rv_entry **gone)
{
    shed_old(c, sh, gone);
    if (!(how & RV_PUT_PINNED))
        e->gen = sh->gen; /* a put is of the present */
    else if (e->gen != sh->gen)
        return -ESTALE;
    rv_cache_reap(c, sh, REAP_MOST, gone);
    struct rv_entry *before = *gone;
    int r = rv_table_put(&c->table, &e->in, how, gone);
    if (r < 0)
        return r;
    rv_l3_remove(c, &e->in.key);
    if (rv_entry_cause(&e->in) == RV_CAUSE_NONE)
        rv_wheel_add(&sh->wheel, &e->spoke);
    rv_cache_settle(c, *gone, before);
    rv_cache_count(c, RV_CC_L2_INSERTS, 1);
    return 0;
}

void rv_cache_take(struct reeve_cache *c, struct rv_cache_entry *e, unsigned cause)
{
    struct rv_cache_shard *sh = rv_cache_shard(c, e->in.key.hash);
    struct rv_entry *gone = NULL;
    rv_cache_lock(sh);
    if (rv_table_take(&c->table, &e->in, cause, &gone))
        rv_cache_settle(c, gone, NULL);
    rv_cache_unlock(sh);
    rv_cache_let_go(c, gone);
    rv_cache_unpin(c, e);
}

void rv_cache_let_go(struct reeve_cache *c, struct rv_entry *gone)
{
    struct rv_entry *in;
    uint32_t fronts = 0;
    if (gone != NULL)
        rv_fence_seqcst(); /* the causes before the fronts; meets rv_front_admit() */
    while ((in = rv_gone_next(&gone)) != NULL) {
        uint32_t held = rv_load_relaxed(&rv_cache_entry(in)->fronts);
        if (rv_table_unpin(&c->table, in))
            rv_cache_end(c, rv_cache_entry(in));
        else
            fronts |= held;
    }
    if (fronts != 0)
        rv_front_ask(c, fronts);
}

void rv_cache_unpin(struct reeve_cache *c, struct rv_cache_entry *e)
{
    if (rv_table_unpin(&c->table, &e->in))
        rv_cache_end(c, e);
}

void rv_cache_end(struct reeve_cache *c, struct rv_cache_entry *e)
{
    unsigned cause = rv_entry_cause(&e->in);
    struct reeve_value value = { .data = e->data, .len = e->len };
    RV_ASSERT(!rv_hold_any());
    if (e->error == 0) {
        rv_cache_count(c, RV_CC_DROPPED + cause, 1);
        if (c->o.drop != NULL)
            c->o.drop(c->o.ctx, value, (int)cause);
        if (c->o.blocks)
            reeve_free(value.data);
    }
    rv_table_retire(&c->table, &e->in);
}

int64_t rv_cache_left(struct reeve_cache *c, int64_t expires)
{
    if (expires == RV_NEVER)
        return -1;
    int64_t left = expires - c->now();
    return left > 0 ? left : 1;
}

void rv_cache_lend(struct reeve_cache *c, struct rv_cache_entry *e, struct reeve_value *ret_value)
{
    *ret_value = (struct reeve_value){ .data = e->data,
                                       .len = e->len,
                                       .ttl_ns = rv_cache_left(c, e->spoke.expires),
                                       .opaque = (uintptr_t)e };
}
