/* SPDX-License-Identifier: MIT */
/*
 * The workers' fronts: what gets in, what one change anywhere does to all of them, and that they
 * keep nothing alive that is gone.
 */
#define CHECK_MAIN
#include "tests/runtime/cache_box.h"

static struct reeve_cache_stats stats_of(reeve_cache *c)
{
    struct reeve_cache_stats s;
    reeve_cache_stats(c, &s);
    return s;
}

static void second_sighting(reeve_cache *c)
{
    CHECK_OK(put(c, 1, 1));
    CHECK_EQ(get(c, 1, 0), 1);
    CHECK_EQ(stats_of(c).l1.inserts, 0);
    CHECK_EQ(get(c, 1, 0), 1);
    CHECK_EQ(stats_of(c).l1.inserts, 1);
    CHECK_EQ(stats_of(c).l1.hits, 0);
    for (int i = 0; i < 10; i++)
        CHECK_EQ(get(c, 1, 0), 1);
    struct reeve_cache_stats s = stats_of(c);
    CHECK_EQ(s.l1.hits, 10);
    CHECK_EQ(s.l2.hits, 2);
    CHECK_EQ(s.l1.entries, 1);
    CHECK_EQ(s.l1.bytes, s.l2.bytes);
    for (uint64_t i = 100; i < 200; i++) /* a scan */
        CHECK_OK(put(c, i, i));
    for (uint64_t i = 100; i < 200; i++)
        CHECK_EQ(get(c, i, 0), (int64_t)i);
    CHECK_LE(stats_of(c).l1.inserts, 3); /* two of one hash's place, at worst */
}

TEST(what_is_found_twice_gets_into_the_front)
{
    with_cache_on(1, (struct cached){ { .levels = 2, .entries_max = 1000 }, second_sighting, 0 });
}

static void bounded(reeve_cache *c)
{
    for (uint64_t i = 0; i < 500; i++)
        CHECK_OK(put(c, i, i));
    for (uint64_t i = 0; i < 500; i++)
        for (int again = 0; again < 3; again++)
            CHECK_EQ(get(c, i, 0), (int64_t)i);
    struct reeve_cache_stats s = stats_of(c);
    CHECK_LE(s.l1.entries, 64);
    CHECK_GE(s.l1.entries, 48);
    CHECK_EQ(s.l1.inserts - s.l1.evictions, s.l1.entries);
    CHECK_EQ(s.l2.entries, 500);
}

TEST(a_front_holds_no_more_than_it_may)
{
    with_cache_on(1, (struct cached){ { .levels = 2, .l1_entries = 64 }, bounded, 0 });
}

/* ---- several workers ---- */

enum { WORKERS = 3 };
static reeve_cache *the_cache;
static struct reeve_value kept[WORKERS];

/* Has a worker's front hold key 1; keeps one loan of it. */
static int warm_front(void *arg)
{
    uint64_t key = 1;
    int me = *(int *)arg;
    for (int i = 0; i < 4; i++)
        CHECK_EQ(get(the_cache, 1, 0), 1);
    CHECK_OK(reeve_cache_borrow(the_cache, key_of(&key), &kept[me], 0));
    return 0;
}

static int look_again(void *arg)
{
    int64_t want = *(int64_t *)arg;
    CHECK_EQ(get(the_cache, 1, 0), want);
    return 0;
}

static void on_worker(int worker, reeve_fn *fn, void *arg)
{
    reeve_task *t;
    CHECK_OK(reeve_spawn(&t, fn, arg, .worker = worker + 1));
    CHECK_OK(reeve_join(t, NULL, 0));
}

static void change_everywhere(reeve_cache *c)
{
    the_cache = c;
    for (int how = 0; how < 5; how++) {
        int64_t want = how == 1 ? 2 : -ENOENT;
        struct reeve_value v = box_new(1, 1);
        uint64_t key = 1;
        v.ttl_ns = how == 4 ? REEVE_SEC : 0;
        CHECK_OK(reeve_cache_put(c, key_of(&key), v));
        for (int i = 0; i < WORKERS; i++)
            on_worker(i, warm_front, &i);
        CHECK_EQ(stats_of(c).l1.entries, WORKERS);
        long before = atomic_load(&boxes_dropped);
        if (how == 0)
            CHECK_EQ(drop_key(c, 1), 0);
        else if (how == 1)
            CHECK_OK(put(c, 1, 2));
        else if (how == 2)
            reeve_cache_clear(c);
        else if (how == 3)
            reeve_cache_invalidate(c);
        else
            clock_pass(REEVE_SEC);
        for (int i = 0; i < WORKERS; i++)
            on_worker(i, look_again, &want);
        CHECK_EQ(atomic_load(&boxes_dropped), before);
        for (int i = 0; i < WORKERS; i++)
            reeve_cache_return(c, kept[i]); /* on whatever worker this is */
        while (atomic_load(&boxes_dropped) == before) /* nothing touches those fronts any more */
            CHECK_OK(reeve_sleep(reeve_in(REEVE_MS)));
        reeve_cache_clear(c);
        while (stats_of(c).l1.entries > 0)
            CHECK_OK(reeve_sleep(reeve_in(REEVE_MS)));
    }
}

TEST(one_change_reaches_all_fronts_and_they_let_go_of_what_is_gone)
{
    with_cache_on(WORKERS, (struct cached){ { .levels = 2, .ttl_ns = 0 }, change_everywhere, 0 });
}

static int return_one(void *arg)
{
    reeve_cache_return(the_cache, kept[*(int *)arg]);
    return 0;
}

static void return_elsewhere(reeve_cache *c)
{
    the_cache = c;
    CHECK_OK(put(c, 1, 1));
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < WORKERS; i++)
            on_worker(i, warm_front, &i);
        for (int i = 0; i < WORKERS; i++) {
            int next = (i + 1) % WORKERS;
            on_worker(i, return_one, &next);
        }
    }
    for (int i = 0; i < WORKERS; i++)
        on_worker(i, warm_front, &i);
    CHECK_EQ(drop_key(c, 1), 0);
    while (stats_of(c).l1.entries > 0) /* swept, with loans that are still out */
        CHECK_OK(reeve_sleep(reeve_in(REEVE_MS)));
    CHECK_GT(stats_of(c).lent_bytes, 0);
    for (int i = 0; i < WORKERS; i++) {
        CHECK_EQ(box_of(kept[i])->round, 1);
        CHECK_EQ(atomic_load(&boxes_dropped), 0);
        int next = (i + 1) % WORKERS;
        on_worker(i, return_one, &next);
    }
    CHECK_EQ(atomic_load(&boxes_dropped), 1);
    CHECK_EQ(stats_of(c).lent_bytes, 0);
}

TEST(a_loan_may_come_back_on_another_worker)
{
    with_cache_on(WORKERS, (struct cached){ { .levels = 2 }, return_elsewhere, 0 });
}

static void return_twice(reeve_cache *c)
{
    uint64_t key = 1;
    struct reeve_value v;
    CHECK_OK(put(c, 1, 1));
    for (int i = 0; i < 3; i++)
        CHECK_EQ(get(c, 1, 0), 1);
    CHECK_OK(reeve_cache_borrow(c, key_of(&key), &v, 0));
    reeve_cache_return(c, v);
    reeve_cache_return(c, v);
}

TEST(a_value_returned_twice_ends_the_program_with_a_sentence)
{
    CHECK_DIES("given a value twice",
               with_cache_on(1, (struct cached){ { .levels = 2 }, return_twice, 0 }));
}

/* What the front answers, the shared table's policy hears of: hot keys stay when others come. */
static void stay_hot(reeve_cache *c)
{
    for (uint64_t i = 0; i < 20; i++)
        CHECK_OK(put(c, i, i));
    for (uint64_t i = 1000; i < 4000; i++) {
        for (uint64_t k = 0; k < 20; k++)
            CHECK_EQ(get(c, k, 0), (int64_t)k);
        CHECK_OK(put(c, i, i));
    }
    struct reeve_cache_stats s = stats_of(c);
    CHECK_GT(s.l1.hits, 10 * s.l2.hits);
}

TEST(what_is_hot_in_a_front_is_hot_in_the_table)
{
    for (int policy = REEVE_S3FIFO; policy <= REEVE_ADAPTIVE; policy++)
        with_cache_on(1, (struct cached){ { .policy = policy,
                                            .levels = 2,
                                            .entries_max = 100,
                                            .l1_entries = 4096 }, /* no five of 20 in one set */
                                          stay_hot, 0 });
}
