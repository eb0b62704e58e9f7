/* SPDX-License-Identifier: MIT */
/*
 * table_items.h -- what tests put into a table: items that show whether they are whole, and books
 * on all that were made, dropped and freed.
 */
#ifndef TESTS_MEM_TABLE_ITEMS_H
#define TESTS_MEM_TABLE_ITEMS_H

#include "tests/check.h"

#include "mem/alloc.h"
#include "mem/table.h"

enum { OWN_CAUSE = RV_CAUSE_OWN };

/* What a cache would keep: a key and a value that shows whether it is whole. */
struct item {
    struct rv_entry entry;
    RV_ATOMIC(uint32_t) dropped;
    uint64_t value[4];
    char key[];
};

static RV_ATOMIC(uint64_t) made, freed, drops;

static inline void free_item(void *ctx, struct rv_entry *entry)
{
    struct item *item = (struct item *)entry;
    (void)ctx;
    CHECK_EQ(rv_load_relaxed(&entry->pins), 0);
    CHECK_EQ(rv_load_relaxed(&item->dropped), 1);
    CHECK(!rv_hold_any());
    memset(item->value, 0xdd, sizeof item->value);
    rv_add_relaxed(&freed, UINT64_C(1));
    rv_free(item);
}

static inline void open_table(struct rv_table *t, unsigned shards, int policy, size_t bytes,
                              size_t entries)
{
    CHECK_OK(rv_table_init(t, &(struct rv_table_opts){ .shards = shards, .policy = policy,
                                                       .bytes_max = bytes, .entries_max = entries,
                                                       .release = free_item }));
}

static inline struct item *make_item(struct rv_table *t, const void *key, size_t len,
                                     uint64_t value, size_t weight)
{
    struct item *item = rv_alloc_zero(sizeof *item + len);
    CHECK(item);
    if (len > 0)
        memcpy(item->key, key, len);
    item->entry.key = rv_table_key(t, item->key, len);
    item->entry.node.weight = weight;
    for (int i = 0; i < 4; i++)
        item->value[i] = value + (uint64_t)i;
    rv_add_relaxed(&made, UINT64_C(1));
    return item;
}

/* As a cache does: the last one drops the value. */
static inline void unpin(struct rv_table *t, struct rv_entry *e)
{
    struct item *item = (struct item *)e;
    if (!rv_table_unpin(t, e))
        return;
    CHECK_NE(rv_entry_cause(e), RV_CAUSE_NONE);
    CHECK_EQ(rv_add_relaxed(&item->dropped, 1u), 0);
    rv_add_relaxed(&drops, UINT64_C(1));
    rv_table_retire(t, e);
}

/* How many went, and for how many of them this was the cause. */
static inline unsigned drop_all(struct rv_table *t, struct rv_entry *gone, unsigned cause,
                                unsigned *ret_of)
{
    struct rv_entry *e;
    unsigned n = 0, of = 0;
    while ((e = rv_gone_next(&gone)) != NULL) {
        of += rv_entry_cause(e) == cause;
        n++;
        unpin(t, e);
    }
    if (ret_of)
        *ret_of = of;
    return n;
}

static inline unsigned put(struct rv_table *t, const void *key, size_t len, uint64_t value,
                           size_t weight)
{
    struct rv_entry *gone = NULL;
    CHECK_OK(rv_table_put(t, &make_item(t, key, len, value, weight)->entry, 0, &gone));
    return drop_all(t, gone, 0, NULL);
}

/* Whether the value is there, and that one. */
static inline bool has(struct rv_table *t, const void *key, size_t len, uint64_t value)
{
    struct rv_key k = rv_table_key(t, key, len);
    struct rv_entry *e = rv_table_find(t, &k);
    if (e == NULL)
        return false;
    bool same = ((struct item *)e)->value[0] == value;
    unpin(t, e);
    return same;
}

static inline bool drop(struct rv_table *t, const void *key, size_t len)
{
    struct rv_key k = rv_table_key(t, key, len);
    struct rv_entry *gone = NULL;
    bool there = rv_table_remove(t, &k, OWN_CAUSE, &gone);
    CHECK_EQ(drop_all(t, gone, OWN_CAUSE, NULL), there);
    return there;
}

/* Empties and closes it; all that was made must have been dropped and freed. */
static inline void close_table(struct rv_table *t)
{
    for (unsigned i = 0; i < t->shards_n; i++) {
        struct rv_entry *gone = NULL;
        while (rv_table_evict(t, i, 64, OWN_CAUSE, &gone) > 0) {
            drop_all(t, gone, 0, NULL);
            gone = NULL;
        }
    }
    CHECK_EQ(rv_table_count(t), 0);
    CHECK_EQ(rv_table_weight(t), 0);
    CHECK_EQ(rv_table_lent(t), 0);
    rv_table_finish(t);
    CHECK_EQ(rv_load_relaxed(&made), rv_load_relaxed(&freed));
    CHECK_EQ(rv_load_relaxed(&made), rv_load_relaxed(&drops));
}

#endif
