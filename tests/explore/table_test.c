/* SPDX-License-Identifier: MIT */
/*
 * table_test.c -- readers of the concurrent table while its sets move, while entries are replaced,
 * removed and freed, in every order.
 *
 * The sets and epochs of Concurrency Kit are in here as they are: each of their calls is one step.
 * What is explored is what this project adds: two sets and which is read first, pins, the lists of
 * what is gone, and when memory is given back.
 */
#include "tests/explore/explore_main.h"

#include <string.h>

#include "mem/alloc.h"
#include "mem/die.h"
#include "mem/table.h"

/* So many fill the first set of 64 places as far as it may be: the next put begins to move it. */
enum { FULL = 24, KEYS = FULL + 4 };

/* Under the seed of these models it is among the last that a move takes. */
enum { REPLACED = 8 };

struct item {
    struct rv_entry entry;
    uint32_t k;
    uint32_t version;
    RV_ATOMIC(uint32_t) ended;      /* dropped: 1, freed: 2 */
};

static struct {
    struct rv_table table;
    struct item items[KEYS], others[2];
} m;

/* From here on the memory would be somebody else's, and full of other things. */
static void free_item(void *ctx, struct rv_entry *entry)
{
    (void)ctx;
    RV_MUST(rv_add_relaxed(&((struct item *)entry)->ended, 1u) == 1);
    rv_store_relaxed(&entry->pins, 1000u);
}

static void put(struct item *item, uint32_t k, uint32_t version, struct rv_entry **gone)
{
    item->k = k;
    item->version = version;
    item->entry.key = rv_table_key(&m.table, &item->k, sizeof item->k);
    item->entry.node.weight = 1;
    RV_MUST(rv_table_put(&m.table, &item->entry, 0, gone) == 0);
}

static void unpin(struct rv_entry *e)
{
    if (!rv_table_unpin(&m.table, e))
        return;
    RV_MUST(rv_add_relaxed(&((struct item *)e)->ended, 1u) == 0);
    rv_table_retire(&m.table, e);
}

static void unpin_all(struct rv_entry *gone)
{
    struct rv_entry *e;
    while ((e = rv_gone_next(&gone)) != NULL)
        unpin(e);
}

static void fill(void)
{
    struct rv_entry *gone = NULL;
    struct rv_seed seed = { 1, 2 };
    RV_MUST(rv_table_init(&m.table, &(struct rv_table_opts){
                                        .policy = RV_POLICY_LRU, .bytes_max = 1000,
                                        .entries = 1, .release = free_item, .seed = &seed }) == 0);
    for (uint32_t k = 0; k < FULL; k++)
        put(&m.items[k], k, 0, &gone);
    RV_MUST(gone == NULL);
}

/* The version that is there, 0 or 1; -1: none. While it is pinned it does not end. */
static int look_up(uint32_t k)
{
    struct rv_key key = rv_table_key(&m.table, &k, sizeof k);
    struct rv_entry *e = rv_table_find(&m.table, &key);
    if (e == NULL)
        return -1;
    struct item *item = (struct item *)e;
    RV_MUST(item->k == k);
    RV_MUST(rv_load_relaxed(&item->ended) == 0);
    int version = (int)item->version;
    unpin(e);
    return version;
}

/* Which of the keys is moved first depends on their hashes; any may be asked for. */
static void finds(void *arg)
{
    (void)arg;
    uint32_t k = explore_choose(2) ? 3 : 11;
    RV_MUST(look_up(k) == 0);
}

static void adds_one(void *arg)
{
    struct rv_entry *gone = NULL;
    (void)arg;
    put(&m.items[FULL], FULL, 0, &gone);
    put(&m.items[FULL + 1], FULL + 1, 0, &gone);
    RV_MUST(gone == NULL);
}

static void replaces(void *arg)
{
    struct rv_entry *gone = NULL;
    (void)arg;
    put(&m.others[0], REPLACED, 1, &gone);
    unpin_all(gone);
}

/* Once the new one was seen the old one is not any more; and one of them is there always. */
static void finds_old_then_new(void *arg)
{
    (void)arg;
    int first = look_up(REPLACED), then = look_up(REPLACED);
    RV_MUST(first >= 0 && then >= first);
}

static void removes(void *arg)
{
    struct rv_entry *gone = NULL;
    uint32_t k = 3;
    struct rv_key key = rv_table_key(&m.table, &k, sizeof k);
    (void)arg;
    rv_table_remove(&m.table, &key, RV_CAUSE_OWN, &gone);
    unpin_all(gone);
    rv_table_sweep(&m.table);
}

static void finds_or_not(void *arg)
{
    (void)arg;
    int version = look_up(3);
    RV_MUST(version <= 0);
}

/* Everything ends once. */
static void close_all(void)
{
    struct rv_entry *gone = NULL;
    rv_policy_check(&m.table.shards[0].policy);
    rv_table_evict(&m.table, 0, 2 * KEYS, RV_CAUSE_OWN, &gone);
    unpin_all(gone);
    RV_MUST(rv_table_lent(&m.table) == 0);
    rv_table_finish(&m.table);
    for (int i = 0; i < FULL; i++)
        RV_MUST(rv_load_relaxed(&m.items[i].ended) == 2);
}

static const struct explore moving = {
    .name = "table: a set moves",
    .setup = fill,
    .threads = { { "reader", finds, NULL }, { "writer", adds_one, NULL } },
    .finish = close_all,
    .preemptions = 3,
    .delays = 1,
};

TEST(what_is_there_is_found_while_its_set_moves)
{
    explore(&moving);
}

static const struct explore replacing = {
    .name = "table: replaced in a set that moves",
    .setup = fill,
    .threads = { { "reader", finds_old_then_new, NULL },
                 { "replacer", replaces, NULL },
                 { "adder", adds_one, NULL } },
    .finish = close_all,
    .preemptions = 2,
};

TEST(one_of_two_is_found_while_one_replaces_the_other)
{
    explore(&replacing);
}

static const struct explore removing = {
    .name = "table: removed and freed",
    .setup = fill,
    .threads = { { "reader", finds_or_not, NULL },
                 { "other reader", finds_or_not, NULL },
                 { "remover", removes, NULL } },
    .finish = close_all,
    .preemptions = 3,
};

TEST(nothing_is_freed_that_a_reader_can_still_see)
{
    explore(&removing);
}
