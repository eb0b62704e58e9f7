/* SPDX-License-Identifier: MIT */
/*
 * cache_front.c -- L1: what each worker keeps at hand, so that a hit writes no line of others.
 *
 *     slots    | hash, ticket | hash, ticket | hash, ticket | hash, ticket |  a set: one line
 *     ticket   | entry, what is lent, lent here: the worker's line | given back elsewhere |
 *
 * A ticket is one pin of a shared entry, under which its worker lends the value any number of
 * times; mem/bias.h counts the loans. When the slot gives the entry up and nothing is out any more,
 * the worker, or whoever returns the last, gives the pin back.
 *
 *     empty -> open      [rv_front_admit]   for an entry that the worker has found in L2 before
 *     open  -> closed    [close_slot]       for another entry; or because this one is gone
 *     closed -> empty    [close_slot]       nothing is lent: the ticket is used again
 *     closed -> freed    [rv_front_return]  by who returns the last
 *
 * (1) A ticket's own fields and the slots are their worker's. A task that borrows does not suspend
 *     between the look for its worker and the end of what it does to the front.
 * (2) A hit is one only if the entry has no cause, the cache's generation and time left; the cause
 *     is set before the entry leaves the table. So one change there ends the hits of all workers.
 * (3) What is gone and still pinned here is let go of soon: who takes an entry out of the table
 *     sees which workers may have it and sends each a task that sweeps its front. The entry's bits
 *     are set before its cause is looked at, and the other way round over there, with full fences:
 *     one of the two sees the other. A task is under way once at a time.
 * (4) Hits tell L2's policy: those that keep heat in the node are told until it is hot, the others
 *     at the 1st, 2nd, 4th, 8th and each 16th hit. The ring of hits is written without a section:
 *     the entry is pinned, so it is retired, and the ring drained, later than that.
 * (5) One sighting is not enough to get in: a table of hashes remembers it, and the second counts.
 *     A scan passes by.
 *
 * Threads: the worker whose front it is; return, ask - any.
 */
#include <string.h>

#include "mem/alloc.h"
#include "mem/bias.h"
#include "mem/die.h"
#include "runtime/cache.h"
#include "runtime/cache_task.h"

enum { WAYS = 4, USES_MAX = 15 };

struct ticket {
    struct rv_cache_entry *e;
    void *data;
    size_t len;
    uint64_t gen;
    struct rv_cache_front *front; /* never changes */
    uint32_t hits;
    uint8_t uses; /* hits, halved at each fight for a place in the set */
    bool timed;
    struct rv_bias loans;
};

struct rv_slot {
    uint64_t hash;
    struct ticket *ticket; /* NULL: the slot is empty */
};
_Static_assert(sizeof(struct rv_slot) * WAYS == RV_CACHE_LINE, "a set is a line");

static struct rv_slot *set_of(struct rv_cache_front *f, uint64_t hash)
{
    return &f->slots[(hash & f->mask) * WAYS];
}

int rv_front_create(struct rv_cache_front **ret_front, struct reeve_cache *c, struct rv_worker *w)
{
    struct rv_cache_front *f = rv_alloc_aligned(sizeof *f, RV_CACHE_LINE);
    if (f == NULL)
        return -ENOMEM;
    memset(f, 0, sizeof *f);
    f->cache = c;
    f->worker = w;
    *ret_front = f;
    if (c->o.levels < 2)
        return 0;
    uint32_t sets = 1;
    while (sets * WAYS < c->o.l1_entries)
        sets *= 2;
    f->mask = sets - 1;
    f->door_mask = sets * WAYS * 4 - 1;
    size_t bytes = (size_t)sets * WAYS * sizeof *f->slots;
    f->slots = rv_alloc_aligned(bytes, RV_CACHE_LINE);
    f->door = rv_alloc_zero((f->door_mask + (size_t)1) * sizeof *f->door);
    if (f->slots == NULL || f->door == NULL)
        return -ENOMEM; /* the caller destroys it, and needs no slots for that */
    memset(f->slots, 0, bytes);
    return 0;
}

/* Ends the ticket in a slot. What it lent last comes back later, and takes the ticket with it; else
 * it stays in *ret_spare for another entry. Returns an entry whose last pin this was. */
static struct rv_cache_entry *close_slot(struct rv_slot *slot, struct ticket **ret_spare)
{
    struct ticket *t = slot->ticket;
    struct rv_cache_front *f = t->front;
    struct rv_cache_entry *e = t->e;
    unsigned cause = rv_entry_cause(&e->in);
    bool removed = cause == RV_CAUSE_REPLACED || cause == REEVE_DROP_REMOVED ||
                   cause == RV_CAUSE_CLEARED;
    rv_count(&f->counts[removed ? RV_CC_L1_REMOVES : RV_CC_L1_EVICTIONS], 1);
    rv_count(&f->entries, (uint64_t)-1);
    rv_count(&f->bytes, -(uint64_t)e->in.node.weight);
    slot->ticket = NULL;
    if (!rv_bias_close(&t->loans))
        return NULL;
    *ret_spare = t;
    return rv_table_unpin(&f->cache->table, &e->in) ? e : NULL;
}

void rv_front_destroy(struct rv_cache_front *f)
{
    if (f == NULL)
        return;
    for (uint64_t i = 0; f->slots != NULL && f->door != NULL && i < (f->mask + UINT64_C(1)) * WAYS;
         i++) {
        struct ticket *spare = NULL;
        if (f->slots[i].ticket == NULL)
            continue;
        struct rv_cache_entry *e = close_slot(&f->slots[i], &spare);
        if (spare == NULL)
            rv_die("reeve_cache_destroy: a value is still borrowed.");
        rv_free(spare);
        if (e != NULL)
            rv_cache_end(f->cache, e);
    }
    rv_free(f->slots);
    rv_free(f->door);
    rv_free(f);
}

/* (4) */
static void note_hit(struct reeve_cache *c, struct ticket *t)
{
    struct rv_node *node = &t->e->in.node;
    uint32_t hits = t->hits++;
    if (c->heat_max > 0 ? rv_load_relaxed(&node->heat) >= c->heat_max
                        : hits % 16 != 0 && (hits & (hits - 1)) != 0)
        return;
    struct rv_shard *s = rv_table_shard(&c->table, t->e->in.key.hash);
    if (rv_policy_touch(&s->policy, node) && rv_lock_try(&s->lock)) {
        rv_policy_drain(&s->policy);
        rv_lock_release(&s->lock);
    }
}

static inline bool same_key(const struct rv_key *a, const struct rv_key *b)
{
    return a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

static void lend(struct ticket *t, struct reeve_value *ret_value)
{
    rv_bias_take(&t->loans);
    *ret_value = (struct reeve_value){
        .data = t->data,
        .len = t->len,
        .ttl_ns = t->timed ? rv_cache_left(t->front->cache, t->e->spoke.expires) : -1,
        .opaque = (uintptr_t)t | 1,
    };
}

bool rv_front_lend(struct rv_cache_front *f, const struct rv_key *key,
                   struct reeve_value *ret_value)
{
    struct reeve_cache *c = f->cache;
    struct rv_slot *set = set_of(f, key->hash);
    for (unsigned i = 0; i < WAYS; i++) {
        struct ticket *t = set[i].ticket;
        if (set[i].hash != key->hash || t == NULL || !same_key(&t->e->in.key, key))
            continue;
        if (rv_entry_cause(&t->e->in) != RV_CAUSE_NONE || t->gen != rv_load_acquire(&c->gen))
            break; /* (2); L2 finds what there is now, and a place for it, this one */
        if (t->timed && c->now() >= rv_load_relaxed(&t->e->soft))
            break;
        if (t->uses < USES_MAX)
            t->uses++;
        note_hit(c, t);
        lend(t, ret_value);
        rv_count(&f->counts[RV_CC_L1_HITS], 1);
        return true;
    }
    rv_count(&f->counts[RV_CC_L1_MISSES], 1);
    return false;
}

/* (5) The last two of each place are remembered, so that two that take turns get in. */
static bool seen_before(struct rv_cache_front *f, uint64_t hash)
{
    uint32_t *door = &f->door[hash & f->door_mask & ~UINT32_C(1)];
    uint32_t tag = (uint32_t)(hash >> 32) | 1;
    if (door[0] == tag || door[1] == tag)
        return true;
    door[1] = door[0];
    door[0] = tag;
    return false;
}

/* The slot of that hash, or an empty one, or one whose entry is gone, or the least used. */
static struct rv_slot *place_for(struct rv_cache_front *f, uint64_t hash)
{
    struct rv_slot *set = set_of(f, hash), *least = set;
    for (unsigned i = 0; i < WAYS; i++)
        if (set[i].ticket != NULL && set[i].hash == hash)
            return &set[i];
    for (unsigned i = 0; i < WAYS; i++) {
        struct ticket *t = set[i].ticket;
        if (t == NULL || rv_entry_cause(&t->e->in) != RV_CAUSE_NONE)
            return &set[i];
        if (t->uses < least->ticket->uses)
            least = &set[i];
    }
    for (unsigned i = 0; i < WAYS; i++)
        set[i].ticket->uses /= 2;
    return least;
}

static void open_slot(struct rv_slot *slot, struct ticket *t, struct rv_cache_entry *e)
{
    struct rv_cache_front *f = t->front;
    t->e = e;
    t->data = e->data;
    t->len = e->len;
    t->gen = e->gen;
    t->hits = t->uses = 0;
    t->timed = rv_load_relaxed(&e->soft) != RV_NEVER;
    rv_bias_open(&t->loans);
    slot->hash = e->in.key.hash;
    slot->ticket = t;
    rv_count(&f->counts[RV_CC_L1_INSERTS], 1);
    rv_count(&f->entries, 1);
    rv_count(&f->bytes, e->in.node.weight);
}

static struct ticket *ticket_new(struct rv_cache_front *f)
{
    struct ticket *t = rv_alloc_aligned(sizeof *t, RV_CACHE_LINE);
    if (t == NULL)
        return NULL;
    memset(t, 0, sizeof *t);
    t->front = f;
    return t;
}

void rv_front_admit(struct rv_cache_front *f, struct rv_cache_entry *e,
                    struct reeve_value *ret_value)
{
    struct reeve_cache *c = f->cache;
    struct rv_cache_entry *ended = NULL;
    struct ticket *t = NULL;
    bool in = false;
    if (seen_before(f, e->in.key.hash)) {
        struct rv_slot *slot = place_for(f, e->in.key.hash);
        if (slot->ticket != NULL)
            ended = close_slot(slot, &t);
        if (t == NULL)
            t = ticket_new(f);
        if (t != NULL) {
            rv_or_acq_rel(&e->fronts, UINT32_C(1) << f->worker->index % 32);
            rv_fence_seqcst(); /* (3); meets rv_cache_let_go() */
            in = rv_entry_cause(&e->in) == RV_CAUSE_NONE;
        }
        if (in) {
            open_slot(slot, t, e);
            lend(t, ret_value);
        } else {
            rv_free(t);
        }
    }
    if (!in)
        rv_cache_lend(c, e, ret_value);
    if (ended != NULL)
        rv_cache_end(c, ended);
}

void rv_front_return(struct reeve_cache *c, const struct reeve_value *value)
{
    struct ticket *t = (void *)(value->opaque & ~(uintptr_t)1);
    if (t->front->cache != c || t->data != value->data)
        rv_die("reeve_cache_return was given a value that is not on loan from this cache.");
    if (t->front->worker == rv_worker_self() && rv_bias_is_open(&t->loans)) {
        if (!rv_bias_give(&t->loans))
            rv_die("reeve_cache_return was given a value twice.");
        return;
    }
    if (!rv_bias_give_elsewhere(&t->loans))
        return;
    struct rv_cache_entry *e = t->e;
    rv_free(t);
    rv_cache_unpin(c, e);
}

/* ---- letting go of what is gone -------------------------------------------------------------- */

/* On its worker. */
static void sweep(struct rv_cache_front *f)
{
    for (uint64_t i = 0; i < (f->mask + UINT64_C(1)) * WAYS; i++) {
        struct ticket *t = f->slots[i].ticket, *spare = NULL;
        if (t == NULL || rv_entry_cause(&t->e->in) == RV_CAUSE_NONE)
            continue;
        struct rv_cache_entry *ended = close_slot(&f->slots[i], &spare);
        rv_free(spare);
        if (ended != NULL)
            rv_cache_end(f->cache, ended);
    }
}

static int run_sweep(void *arg)
{
    struct rv_cache_front *f = *(struct rv_cache_front **)arg;
    /* Acquires, and comes before the looks: who asks from now on starts another; pairs with
     * rv_front_ask(). */
    rv_xchg_acq_rel(&f->asked, 0u);
    sweep(f);
    rv_cache_over(f->cache);
    return 0;
}

static void skip_sweep(void *arg)
{
    struct rv_cache_front *f = *(struct rv_cache_front **)arg;
    rv_xchg_acq_rel(&f->asked, 0u);
    rv_cache_over(f->cache);
}

static void ask(struct rv_cache_front *f)
{
    struct reeve_cache *c = f->cache;
    if (rv_xchg_acq_rel(&f->asked, 1u) != 0) /* pairs with run_sweep() */
        return;
    rv_cache_begin(c);
    int r = rv_cache_spawn(c->sched, &(struct reeve_spawn){ .fn = run_sweep,
                                                            .arg = &f,
                                                            .copy = sizeof f,
                                                            .skipped = skip_sweep,
                                                            .worker = (int)f->worker->index + 1,
                                                            .name = "cache sweep" });
    if (r < 0) /* what is gone stays until the slots are used again, or the cache ends */
        skip_sweep(&f);
}

void rv_front_ask(struct reeve_cache *c, uint32_t fronts)
{
    for (uint32_t i = 0; i < c->sched->nworkers; i++)
        if (fronts >> i % 32 & 1 && c->fronts[i]->slots != NULL)
            ask(c->fronts[i]);
}
