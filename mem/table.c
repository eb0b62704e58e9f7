/* SPDX-License-Identifier: MIT */
/*
 * table.c -- shards of two hash sets each, pins, and what is left when an entry goes.
 *
 *     cur == A, old == NULL
 *     cur == B, old == A     B was made because A is too full, or full of what was deleted; each
 *                            change of the shard moves a few entries        [move_some]
 *     cur == B, old == NULL  A is empty: it waits in the limbo              [end_move]
 *
 * (1) An entry is in one of the two sets, for an instant in both: it enters cur before it leaves
 *     old. A reader looks into old first, then into cur.
 * (2) cur is changed after old and before the first entry moves. A reader reads cur first, then
 *     old; so it cannot miss a set by that. If it found nothing and cur is another one by now, it
 *     looks again. A side is not freed, and its address is none other's, while a reader is in its
 *     section.
 * (3) pins: 0 means that nobody can get it any more. A finder adds one only to what is not 0, in a
 *     section: the memory is there, even if the entry is not in the table any more.
 * (4) While cur is at most 3/8 full its set does not grow by itself, and a move to one of twice the
 *     size takes at most 1/8 as many changes as there are entries. If there is no memory for it
 *     the set may have to grow at once (CK does that); its old array goes to the limbo as all does.
 * (5) Nothing leaves the limbo before its policy's ring of hits was drained: it may hold the node.
 * (6) Seen by ThreadSanitizer: the sets' own accesses are not. What is written before a put is
 *     ordered before what finders read by pins: a release there, an acquire in same_key().
 *
 * Threads: any; sets, policy, limbo - whoever holds the shard's lock; a set may be read in a
 * section.
 */
#include "mem/table.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "mem/alloc.h"
#include "mem/die.h"
#include "mem/fault.h"

enum { SHARDS_MAX = 1024, SLOTS_MIN = 64, MOVES = 8, LIMBO_MAX = 32 };

struct rv_side {
    ck_hs_t set;
    size_t slots;
    size_t removed;             /* since it is the current one */
    ck_epoch_entry_t limbo;
};

/* In front of each array of a set. */
struct array {
    struct rv_shard *shard;     /* whose limbo it goes to; NULL: nobody sees it yet */
    ck_epoch_entry_t limbo;
    char pad[64 - sizeof(void *) - sizeof(ck_epoch_entry_t)];
};

static_assert(sizeof(struct array) == 64, "an array's lines begin where its block's do");
static_assert(offsetof(struct rv_entry, key) == 0, "an entry is taken for its key");

/* ---- what Concurrency Kit wants to know --------------------------------------------------- */

static unsigned long key_hash(const void *key, unsigned long seed)
{
    (void)seed;
    return (unsigned long)((const struct rv_key *)key)->hash;
}

/* The first is an entry of the set, the second what is looked for. */
static bool same_key(const void *in_set, const void *wanted)
{
    const struct rv_entry *e = in_set;
    const struct rv_key *key = wanted;
    (void)rv_load_acquire(&e->pins);    /* pairs with publish() */
    return e->key.hash == key->hash && e->key.len == key->len &&
           (key->len == 0 || memcmp(e->key.data, key->data, key->len) == 0);
}

static void *array_new(size_t bytes)
{
    struct array *a = rv_alloc(sizeof *a + bytes);
    if (a == NULL)
        return NULL;
    a->shard = NULL;
    return a + 1;
}

static void free_array(ck_epoch_entry_t *entry)
{
    rv_free((char *)entry - offsetof(struct array, limbo));
}

static void array_free(void *block, size_t bytes, bool later)
{
    struct array *a = (struct array *)block - 1;
    (void)bytes;
    if (later && a->shard != NULL)
        rv_limbo_put(&a->shard->limbo, &a->limbo, free_array);
    else
        rv_free(a);
}

static struct ck_malloc allocator = { .malloc = array_new, .free = array_free };

/* ---- sides --------------------------------------------------------------------------------- */

static struct rv_side *side_new(struct rv_shard *s, size_t slots)
{
    struct rv_side *side = RV_FAULT("table.side") ? NULL : rv_alloc_zero(sizeof *side);
    if (side == NULL)
        return NULL;
    if (!ck_hs_init(&side->set, CK_HS_MODE_SPMC | CK_HS_MODE_OBJECT | CK_HS_MODE_DELETE, key_hash,
                    same_key, &allocator, slots, 0)) {
        rv_free(side);
        return NULL;
    }
    ((struct array *)(void *)side->set.map - 1)->shard = s;
    side->slots = slots;
    return side;
}

static void side_free(struct rv_side *side)
{
    if (side == NULL)
        return;
    ck_hs_destroy(&side->set);
    rv_free(side);
}

static void free_side(ck_epoch_entry_t *entry)
{
    side_free((struct rv_side *)(void *)((char *)entry - offsetof(struct rv_side, limbo)));
}

/* The set may have grown, into an array that has no shard yet. */
static bool side_put(struct rv_shard *s, struct rv_side *side, struct rv_entry *e)
{
    if (!ck_hs_put_unique(&side->set, e->key.hash, e))
        return false;
    ((struct array *)(void *)side->set.map - 1)->shard = s;
    return true;
}

static void begin_move(struct rv_shard *s)
{
    struct rv_side *cur = rv_load_relaxed(&s->cur);
    size_t count = ck_hs_count(&cur->set), slots = cur->slots;
    if (rv_load_relaxed(&s->old) != NULL)
        return;
    if (count < slots / 8 * 3 && cur->removed < slots / 4)
        return;
    if (count < slots / 16 && slots > SLOTS_MIN)
        slots /= 2;
    while (count >= slots / 4)
        slots *= 2;
    struct rv_side *side = side_new(s, slots);
    if (side == NULL)
        return;                         /* the next change tries again */
    ck_hs_iterator_init(&s->cursor);
    rv_store_release(&s->old, cur);     /* pairs with look(); the order is (2) */
    rv_store_release(&s->cur, side);
}

static void end_move(struct rv_shard *s, struct rv_side *old)
{
    RV_ASSERT(ck_hs_count(&old->set) == 0);
    rv_store_release(&s->old, (struct rv_side *)NULL);
    rv_limbo_put(&s->limbo, &old->limbo, free_side);
}

static void move_some(struct rv_shard *s)
{
    struct rv_side *old = rv_load_relaxed(&s->old), *cur = rv_load_relaxed(&s->cur);
    void *found;
    for (unsigned i = 0; old != NULL && i < MOVES; i++) {
        if (!ck_hs_next(&old->set, &s->cursor, &found)) {
            end_move(s, old);
            return;
        }
        struct rv_entry *e = found;
        if (!side_put(s, cur, e)) {
            s->cursor.offset--;         /* no memory; it stays where it is until the next change */
            return;
        }
        ck_hs_remove(&old->set, e->key.hash, e);
    }
}

/* ---- looking ------------------------------------------------------------------------------- */

/* In a section, or under the lock. */
static struct rv_entry *look(struct rv_shard *s, const struct rv_key *key)
{
    for (;;) {
        struct rv_side *cur = rv_load_acquire(&s->cur);     /* both pair with begin_move() */
        struct rv_side *old = rv_load_acquire(&s->old);
        struct rv_entry *e = old != NULL ? ck_hs_get(&old->set, key->hash, key) : NULL;
        if (e == NULL)
            e = ck_hs_get(&cur->set, key->hash, key);
        if (e != NULL)
            return e;
        rv_fence_acquire();             /* with what a move stored before it took the entry */
        if (rv_load_relaxed(&s->cur) == cur)
            return NULL;
    }
}

/* False: it is gone for good. */
static bool pin(struct rv_entry *e)
{
    uint32_t pins = rv_load_relaxed(&e->pins);
    while (pins != 0)
        if (rv_cas(&e->pins, &pins, pins + 1))      /* acquires; pairs with publish() */
            return true;
    return false;
}

/* In a section. An entry of which the last pin is gone left the set before: looking again finds its
 * heir, or nothing. */
static struct rv_entry *look_and_pin(struct rv_shard *s, const struct rv_key *key)
{
    struct rv_entry *e;
    do
        e = look(s, key);
    while (e != NULL && !pin(e));
    return e;
}

static void enter(struct rv_shard *s)
{
    rv_lock_acquire(&s->lock);
    rv_hold_begin();
}

/* Calls what the limbo gave back: outside of the lock. */
static void free_all(struct rv_table *t, ck_stack_t *list);

/* Ends a change. */
static void leave(struct rv_table *t, struct rv_shard *s)
{
    ck_stack_t ended = CK_STACK_INITIALIZER;
    if (rv_limbo_count(&s->limbo) >= LIMBO_MAX) {
        rv_limbo_poll(&s->limbo, &ended);
        rv_policy_drain(&s->policy);    /* (5) */
    }
    rv_store_relaxed(&s->count, s->policy.entries);
    rv_store_relaxed(&s->weight, s->policy.bytes);
    rv_hold_end();
    rv_lock_release(&s->lock);
    free_all(t, &ended);
}

struct rv_entry *rv_table_find(struct rv_table *t, const struct rv_key *key)
{
    struct rv_shard *s = rv_table_shard(t, key->hash);
    struct rv_epoch_slot *in = rv_epoch_enter(&t->epoch);
    struct rv_entry *e = look_and_pin(s, key);
    bool full = e != NULL && rv_policy_touch(&s->policy, &e->node);
    rv_epoch_leave(in);
    if (full && rv_lock_try(&s->lock)) {
        rv_policy_drain(&s->policy);
        rv_lock_release(&s->lock);
    }
    return e;
}

struct rv_entry *rv_table_peek(struct rv_table *t, const struct rv_key *key)
{
    struct rv_epoch_slot *in = rv_epoch_enter(&t->epoch);
    struct rv_entry *e = look_and_pin(rv_table_shard(t, key->hash), key);
    rv_epoch_leave(in);
    return e;
}

void rv_table_pin(struct rv_entry *e)
{
    uint32_t pins = rv_add_relaxed(&e->pins, 1u);
    RV_MUST(pins != 0);
}

/* ---- changing ------------------------------------------------------------------------------ */

/* From here on whoever finds it reads what was written to it before. */
static void publish(struct rv_entry *e, uint32_t pins)
{
    rv_store_release(&e->pins, pins);   /* pairs with pin() and same_key() */
}

/* Takes an entry, which is not in the policy any more, out of its set. */
static void take_out(struct rv_table *t, struct rv_shard *s, struct rv_entry *e, unsigned cause,
                     struct rv_entry **gone)
{
    struct rv_side *old = rv_load_relaxed(&s->old), *cur = rv_load_relaxed(&s->cur);
    rv_store_release(&e->cause, (uint8_t)cause);    /* first; pairs with rv_entry_cause() */
    if (old == NULL || ck_hs_remove(&old->set, e->key.hash, e) == NULL) {
        RV_MUST(ck_hs_remove(&cur->set, e->key.hash, e) == e);
        cur->removed++;
    }
    e->after.next = *gone;
    *gone = e;
    rv_add_relaxed(&t->lent, e->node.weight);   /* until the table's pin is given back too */
}

/* In place of the one of the same key; one or the other is found at any time. In a set that is
 * being moved nothing is exchanged: CK may do that by way of a place that the cursor has passed.
 * False: there is no memory. */
static bool swap_in(struct rv_table *t, struct rv_shard *s, struct rv_entry *e,
                    struct rv_entry *was, struct rv_entry **gone)
{
    struct rv_side *old = rv_load_relaxed(&s->old), *cur = rv_load_relaxed(&s->cur);
    void *before = was;
    rv_store_release(&was->cause, (uint8_t)RV_CAUSE_REPLACED);  /* pairs with rv_entry_cause() */
    if (old != NULL && ck_hs_get(&old->set, e->key.hash, was) == was) {
        if (!side_put(s, cur, e)) {
            rv_store_release(&was->cause, (uint8_t)RV_CAUSE_NONE);
            return false;
        }
        ck_hs_remove(&old->set, e->key.hash, was);
    } else {
        RV_MUST(ck_hs_fas(&cur->set, e->key.hash, e, &before));
    }
    RV_MUST(before == was);
    was->after.next = *gone;
    *gone = was;
    rv_add_relaxed(&t->lent, was->node.weight);
    return true;
}

static struct rv_entry *entry_of(struct rv_node *node)
{
    return (struct rv_entry *)(void *)((char *)node - offsetof(struct rv_entry, node));
}

static void take_victims(struct rv_table *t, struct rv_shard *s, struct rv_node *victims,
                         struct rv_entry **gone)
{
    while (victims != NULL) {
        struct rv_node *next = victims->next;
        take_out(t, s, entry_of(victims), RV_CAUSE_EVICTED, gone);
        victims = next;
    }
}

/* Under the lock. */
static int put(struct rv_table *t, struct rv_shard *s, struct rv_entry *e, unsigned how,
               struct rv_entry **gone)
{
    struct rv_entry *was = look(s, &e->key);
    struct rv_node *victims = NULL;
    if (was != NULL && (how & RV_PUT_ABSENT))
        return -EEXIST;
    move_some(s);
    publish(e, how & RV_PUT_PINNED ? 2 : 1);
    if (was == NULL) {
        begin_move(s);
        if (RV_FAULT("table.put") || !side_put(s, rv_load_relaxed(&s->cur), e))
            return -ENOMEM;
        rv_policy_insert(&s->policy, &e->node, &victims);
    } else {
        if (!swap_in(t, s, e, was, gone))
            return -ENOMEM;
        rv_policy_replace(&s->policy, &was->node, &e->node, &victims);
    }
    take_victims(t, s, victims, gone);
    return 0;
}

int rv_table_put(struct rv_table *t, struct rv_entry *e, unsigned how, struct rv_entry **gone)
{
    struct rv_shard *s = rv_table_shard(t, e->key.hash);
    if (!rv_policy_fits(&s->policy, e->node.weight))
        return -E2BIG;
    e->node.hash = e->key.hash;
    e->node.queue = RV_QUEUE_NONE;
    rv_store_relaxed(&e->node.heat, (uint8_t)0);
    rv_store_relaxed(&e->cause, (uint8_t)RV_CAUSE_NONE);
    enter(s);
    int r = put(t, s, e, how, gone);
    leave(t, s);
    return r;
}

/* Under the lock. */
static void take(struct rv_table *t, struct rv_shard *s, struct rv_entry *e, unsigned cause,
                 struct rv_entry **gone)
{
    rv_policy_remove(&s->policy, &e->node);
    take_out(t, s, e, cause, gone);
    move_some(s);
    begin_move(s);
}

bool rv_table_remove(struct rv_table *t, const struct rv_key *key, unsigned cause,
                     struct rv_entry **gone)
{
    struct rv_shard *s = rv_table_shard(t, key->hash);
    enter(s);
    struct rv_entry *e = look(s, key);
    if (e != NULL)
        take(t, s, e, cause, gone);
    leave(t, s);
    return e != NULL;
}

bool rv_table_take(struct rv_table *t, struct rv_entry *e, unsigned cause, struct rv_entry **gone)
{
    struct rv_shard *s = rv_table_shard(t, e->key.hash);
    enter(s);
    bool there = look(s, &e->key) == e;
    if (there)
        take(t, s, e, cause, gone);
    leave(t, s);
    return there;
}

unsigned rv_table_evict(struct rv_table *t, unsigned shard, unsigned most, unsigned cause,
                        struct rv_entry **gone)
{
    struct rv_shard *s = &t->shards[shard];
    struct rv_node *node;
    unsigned n = 0;
    RV_MUST(shard < t->shards_n);
    enter(s);
    while (n < most && (node = rv_policy_evict(&s->policy)) != NULL) {
        take_out(t, s, entry_of(node), cause, gone);
        n++;
    }
    move_some(s);
    begin_move(s);
    leave(t, s);
    return n;
}

struct rv_entry *rv_gone_next(struct rv_entry **gone)
{
    struct rv_entry *e = *gone;
    if (e != NULL)
        *gone = e->after.next;
    return e;
}

/* ---- the end of entries -------------------------------------------------------------------- */

bool rv_table_unpin(struct rv_table *t, struct rv_entry *e)
{
    uint32_t pins = rv_sub_acq_rel(&e->pins, 1u);   /* pairs with itself: the last sees all */
    RV_MUST(pins != 0);
    if (pins > 1)
        return false;
    RV_MUST(rv_entry_cause(e) != RV_CAUSE_NONE);    /* else a pin was given back that nobody had */
    rv_sub_relaxed(&t->lent, e->node.weight);
    return true;
}

/* Its mark in the limbo; what is done stands in free_all(), which knows the table. */
static void retired(ck_epoch_entry_t *entry)
{
    (void)entry;
}

void rv_table_retire(struct rv_table *t, struct rv_entry *e)
{
    struct rv_shard *s = rv_table_shard(t, e->key.hash);
    RV_MUST(rv_load_relaxed(&e->pins) == 0);
    enter(s);
    rv_limbo_put(&s->limbo, &e->after.limbo, retired);
    leave(t, s);
}

static void free_all(struct rv_table *t, ck_stack_t *list)
{
    ck_stack_entry_t *at = CK_STACK_FIRST(list);
    while (at != NULL) {
        char *link = (char *)at - offsetof(ck_epoch_entry_t, stack_entry);
        ck_epoch_entry_t *entry = (ck_epoch_entry_t *)(void *)link;
        at = CK_STACK_NEXT(at);
        RV_ASSERT(!rv_hold_any());
        if (entry->function == retired)
            t->release(t->ctx, (void *)(link - offsetof(struct rv_entry, after.limbo)));
        else
            entry->function(entry);
    }
}

void rv_table_sweep(struct rv_table *t)
{
    for (unsigned i = 0; i < t->shards_n; i++) {
        struct rv_shard *s = &t->shards[i];
        ck_stack_t ended = CK_STACK_INITIALIZER;
        enter(s);
        if (rv_limbo_count(&s->limbo) > 0) {
            rv_limbo_poll(&s->limbo, &ended);
            rv_policy_drain(&s->policy);    /* (5) */
        }
        leave(t, s);
        free_all(t, &ended);
    }
}

/* ---- the table ----------------------------------------------------------------------------- */

struct rv_key rv_table_key(const struct rv_table *t, const void *data, size_t len)
{
    return (struct rv_key){ .hash = rv_hash(t->seed, data, len), .data = data, .len = len };
}

static size_t share(size_t whole, unsigned shards)
{
    size_t part = whole / shards;
    return whole > 0 && part == 0 ? 1 : part;
}

static int shard_init(struct rv_table *t, struct rv_shard *s, const struct rv_table_opts *o)
{
    size_t bytes = share(o->bytes_max, t->shards_n), entries = share(o->entries_max, t->shards_n);
    size_t expected = share(o->entries > 0 ? o->entries : o->entries_max, t->shards_n);
    size_t slots = SLOTS_MIN;
    uint32_t seed = (uint32_t)rv_hash(t->seed, &s, sizeof s);
    int r = rv_policy_init(&s->policy, (enum rv_policy_kind)o->policy, bytes, entries, expected,
                           seed);
    if (r < 0)
        return r;
    while (slots / 8 * 3 <= expected)
        slots *= 2;
    rv_lock_init(&s->lock);
    rv_limbo_init(&t->epoch, &s->limbo);
    rv_store_relaxed(&s->cur, side_new(s, slots));
    return rv_load_relaxed(&s->cur) != NULL ? 0 : -ENOMEM;
}

int rv_table_init(struct rv_table *t, const struct rv_table_opts *opts)
{
    unsigned shards = opts->shards > 0 ? opts->shards : 1;
    if (shards > SHARDS_MAX || (shards & (shards - 1)) != 0 || opts->release == NULL)
        return -EINVAL;
    memset(t, 0, sizeof *t);
    int r = rv_epoch_init(&t->epoch);
    if (r < 0)
        return r;
    t->seed = opts->seed != NULL ? *opts->seed : rv_seed_random();
    t->release = opts->release;
    t->ctx = opts->ctx;
    t->shards_n = shards;
    t->shift = 64 - (unsigned)__builtin_ctz(shards);
    t->shards = rv_alloc_aligned(shards * sizeof *t->shards, RV_CACHE_LINE);
    r = t->shards != NULL ? 0 : -ENOMEM;
    if (r == 0)
        memset(t->shards, 0, shards * sizeof *t->shards);
    for (unsigned i = 0; i < shards && r == 0; i++)
        r = shard_init(t, &t->shards[i], opts);
    if (r < 0)
        rv_table_finish(t);
    return r;
}

static void shard_finish(struct rv_table *t, struct rv_shard *s)
{
    ck_stack_t ended = CK_STACK_INITIALIZER;
    RV_MUST(s->policy.entries == 0);    /* else what the entries hold would be lost */
    if (s->limbo.record.global != NULL)
        rv_limbo_take_all(&s->limbo, &ended);
    free_all(t, &ended);
    side_free(rv_load_relaxed(&s->old));
    side_free(rv_load_relaxed(&s->cur));
    rv_policy_finish(&s->policy);
}

void rv_table_finish(struct rv_table *t)
{
    RV_MUST(rv_load_relaxed(&t->lent) == 0);    /* else an entry is still pinned */
    for (unsigned i = 0; t->shards != NULL && i < t->shards_n; i++)
        shard_finish(t, &t->shards[i]);
    rv_free(t->shards);
    t->shards = NULL;
    rv_epoch_finish(&t->epoch);
}

size_t rv_table_count(const struct rv_table *t)
{
    size_t sum = 0;
    for (unsigned i = 0; i < t->shards_n; i++)
        sum += rv_load_relaxed(&t->shards[i].count);
    return sum;
}

size_t rv_table_weight(const struct rv_table *t)
{
    size_t sum = 0;
    for (unsigned i = 0; i < t->shards_n; i++)
        sum += rv_load_relaxed(&t->shards[i].weight);
    return sum;
}

size_t rv_table_lent(const struct rv_table *t)
{
    return rv_load_relaxed(&t->lent);
}

/* The longest way in a set, by its own books. */
static size_t longest(struct rv_side *side)
{
    struct ck_hs_stat stat = { .probe_maximum = 0 };
    if (side != NULL)
        ck_hs_stat(&side->set, &stat);
    return stat.probe_maximum;
}

size_t rv_table_reach(struct rv_table *t)
{
    size_t most = 0;
    for (unsigned i = 0; i < t->shards_n; i++) {
        struct rv_shard *s = &t->shards[i];
        enter(s);
        size_t way = longest(rv_load_relaxed(&s->old)) + longest(rv_load_relaxed(&s->cur));
        leave(t, s);
        most = way > most ? way : most;
    }
    return most;
}
