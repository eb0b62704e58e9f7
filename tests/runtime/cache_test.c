/* SPDX-License-Identifier: MIT */
/*
 * The cache as one task sees it: what it holds, for how long, and what becomes of what it drops.
 */
#define CHECK_MAIN
#include "tests/runtime/cache_box.h"

#include <pthread.h>
#include <sys/wait.h>

static struct reeve_bytes text(const char *s)
{
    return (struct reeve_bytes){ s, strlen(s) };
}

static void put_and_borrow(reeve_cache *c)
{
    CHECK_EQ(get(c, 1, 0), -ENOENT);
    CHECK_OK(put(c, 1, 10));
    CHECK_OK(put(c, 2, 20));
    for (int i = 0; i < 5; i++) {
        CHECK_EQ(get(c, 1, 0), 10);
        CHECK_EQ(get(c, 2, 0), 20);
    }
    CHECK_EQ(get(c, 3, 0), -ENOENT);
    CHECK_EQ(drop_key(c, 1), 0);
    CHECK_EQ(drop_key(c, 1), -ENOENT);
    CHECK_EQ(get(c, 1, 0), -ENOENT);
    CHECK_EQ(get(c, 2, 0), 20);
}

TEST(what_was_put_is_lent_until_it_is_removed)
{
    with_cache((struct reeve_cache_opts){ 0 }, put_and_borrow);
    CHECK_EQ(dropped(REEVE_DROP_REMOVED), 2);
    CHECK_EQ(dropped(REEVE_DROP_CLOSED), 2);
}

static void keys_of_any_bytes(reeve_cache *c)
{
    static const char zeroes[4] = { 0 };
    struct reeve_bytes keys[] = { { NULL, 0 }, { zeroes, 1 },   { zeroes, 2 },
                                  { "a\0b", 3 }, { "a\0c", 3 }, text("a") };
    enum { N = sizeof keys / sizeof *keys };
    for (uint64_t i = 0; i < N; i++)
        CHECK_OK(reeve_cache_put(c, keys[i], box_new(i, i)));
    for (int again = 0; again < 3; again++)
        for (uint64_t i = 0; i < N; i++) {
            struct reeve_value v;
            CHECK_OK(reeve_cache_borrow(c, keys[i], &v, 0));
            CHECK_EQ(box_of(v)->key, i);
            CHECK_EQ(v.ttl_ns, -1);
            reeve_cache_return(c, v);
        }
}

TEST(keys_may_be_empty_and_hold_zeroes)
{
    with_cache((struct reeve_cache_opts){ 0 }, keys_of_any_bytes);
}

static void replace_what_is_lent(reeve_cache *c)
{
    uint64_t key = 1;
    long before = dropped(REEVE_DROP_REPLACED);
    CHECK_OK(put(c, 1, 10));
    for (int i = 0; i < 3; i++)
        CHECK_EQ(get(c, 1, 0), 10);
    struct reeve_value v;
    CHECK_OK(reeve_cache_borrow(c, key_of(&key), &v, 0));
    CHECK_OK(put(c, 1, 11));
    CHECK_EQ(get(c, 1, 0), 11);
    CHECK_EQ(box_of(v)->round, 10);
    CHECK_EQ(dropped(REEVE_DROP_REPLACED), before);
    reeve_cache_return(c, v);
    while (dropped(REEVE_DROP_REPLACED) == before) /* a front lets go of it a moment later */
        reeve_sleep(0);
    CHECK_OK(reeve_cache_borrow(c, key_of(&key), &v, 0));
    CHECK_EQ(drop_key(c, 1), 0);
    CHECK_EQ(box_of(v)->round, 11);
    reeve_cache_return(c, v);
}

TEST(a_value_outlives_its_place_while_it_is_lent)
{
    with_cache((struct reeve_cache_opts){ 0 }, replace_what_is_lent);
}

static void clear_all(reeve_cache *c)
{
    uint64_t key = 3;
    struct reeve_value v;
    for (uint64_t i = 0; i < 100; i++)
        CHECK_OK(put(c, i, i));
    CHECK_OK(reeve_cache_borrow(c, key_of(&key), &v, 0));
    reeve_cache_clear(c);
    for (uint64_t i = 0; i < 100; i++)
        CHECK_EQ(get(c, i, 0), -ENOENT);
    CHECK_EQ(box_of(v)->round, 3);
    reeve_cache_return(c, v);
    CHECK_OK(put(c, 3, 33));
    CHECK_EQ(get(c, 3, 0), 33);
    struct reeve_cache_stats s;
    reeve_cache_stats(c, &s);
    CHECK_EQ(s.l2.entries, 1);
}

TEST(a_cleared_cache_is_empty)
{
    with_cache((struct reeve_cache_opts){ .shards = 4 }, clear_all);
    CHECK_EQ(dropped(REEVE_DROP_CLEARED), 200);
}

static void invalidate_all(reeve_cache *c)
{
    for (uint64_t i = 0; i < 100; i++)
        CHECK_OK(put(c, i, i));
    for (int again = 0; again < 3; again++)
        CHECK_EQ(get(c, 7, 0), 7);
    long before = dropped(REEVE_DROP_CLEARED);
    reeve_cache_invalidate(c);
    CHECK_EQ(get(c, 7, 0), -ENOENT);
    CHECK_EQ(drop_key(c, 8), -ENOENT);
    for (uint64_t i = 0; i < 100; i++)
        CHECK_OK(put(c, 1000 + i, i));
    for (uint64_t i = 0; i < 100; i++)
        CHECK_EQ(get(c, 1000 + i, 0), (int64_t)i);
    struct reeve_cache_stats s;
    reeve_cache_stats(c, &s);
    CHECK_EQ(s.l2.entries, 100);
    CHECK_GE(dropped(REEVE_DROP_CLEARED) + dropped(REEVE_DROP_REMOVED), before + 99);
}

TEST(what_was_invalidated_is_not_lent_and_makes_room)
{
    with_cache((struct reeve_cache_opts){ .policy = REEVE_LRU, .entries_max = 1000 },
               invalidate_all);
}

/* ---- time ---- */

static void expire_one(reeve_cache *c)
{
    uint64_t key = 2;
    struct reeve_value v = box_new(2, 2);
    v.ttl_ns = 100 * REEVE_MS;
    CHECK_OK(put(c, 1, 1));
    CHECK_OK(reeve_cache_put(c, key_of(&key), v));
    v = box_new(3, 3);
    v.ttl_ns = -1;
    key = 3;
    CHECK_OK(reeve_cache_put(c, key_of(&key), v));
    for (int i = 0; i < 3; i++)
        for (int64_t k = 1; k <= 3; k++)
            CHECK_EQ(get(c, (uint64_t)k, 0), k);
    key = 1;
    CHECK_OK(reeve_cache_borrow(c, key_of(&key), &v, 0));
    CHECK_EQ(v.ttl_ns, REEVE_SEC);
    clock_pass(100 * REEVE_MS);
    CHECK_EQ(get(c, 1, 0), 1);
    CHECK_EQ(get(c, 2, 0), -ENOENT);
    clock_pass(900 * REEVE_MS);
    CHECK_EQ(get(c, 1, 0), -ENOENT);
    CHECK_EQ(box_of(v)->round, 1);
    reeve_cache_return(c, v);
    CHECK_EQ(get(c, 3, 0), 3);
}

TEST(a_value_is_lent_until_its_time_is_over)
{
    with_cache((struct reeve_cache_opts){ .ttl_ns = REEVE_SEC }, expire_one);
    CHECK_EQ(dropped(REEVE_DROP_EXPIRED), 4);
}

static void expired_make_room(reeve_cache *c)
{
    for (uint64_t i = 0; i < 50; i++)
        CHECK_OK(put(c, i, i));
    for (uint64_t i = 0; i < 50; i++) {
        struct reeve_value v = box_new(100 + i, i);
        uint64_t key = 100 + i;
        v.ttl_ns = -1;
        CHECK_OK(reeve_cache_put(c, key_of(&key), v));
    }
    clock_pass(2 * REEVE_SEC);
    for (uint64_t i = 0; i < 50; i++)
        CHECK_OK(put(c, 200 + i, i));
    for (uint64_t i = 0; i < 50; i++)
        CHECK_EQ(get(c, 100 + i, 0), (int64_t)i);
    struct reeve_cache_stats s;
    reeve_cache_stats(c, &s);
    CHECK_EQ(s.l2.evictions, 0);
    CHECK_EQ(s.dropped[REEVE_DROP_EXPIRED], 50);
    clock_pass(2 * REEVE_SEC);
    size_t n = reeve_cache_expire(c, 10);
    CHECK_EQ(n, 10);
    CHECK_EQ(reeve_cache_expire(c, SIZE_MAX), 40);
    CHECK_EQ(reeve_cache_expire(c, SIZE_MAX), 0);
}

TEST(what_has_expired_leaves_before_anything_is_evicted)
{
    with_cache((struct reeve_cache_opts){ .policy = REEVE_LRU,
                                          .entries_max = 100,
                                          .ttl_ns = REEVE_SEC },
               expired_make_room);
}

static void jump_about(reeve_cache *c)
{
    int64_t start = clock_now();
    CHECK_OK(put(c, 1, 1));
    clock_pass(-500 * REEVE_SEC); /* back: it lives longer by that, but not for ever */
    CHECK_EQ(get(c, 1, 0), 1);
    CHECK_OK(put(c, 2, 2));
    clock_pass(REEVE_SEC);
    CHECK_EQ(get(c, 2, 0), -ENOENT);
    CHECK_EQ(get(c, 1, 0), 1);
    clock_pass(1000 * REEVE_SEC); /* far ahead */
    CHECK_OK(put(c, 3, 3));
    CHECK_EQ(get(c, 1, 0), -ENOENT);
    clock_pass(-1000 * REEVE_SEC);
    CHECK_OK(put(c, 4, 4));
    CHECK_EQ(get(c, 3, 0), 3);
    clock_pass(2 * REEVE_SEC);
    CHECK_EQ(reeve_cache_expire(c, SIZE_MAX), 1);
    clock_pass(1000 * REEVE_SEC);
    CHECK_EQ(reeve_cache_expire(c, SIZE_MAX), 1);
    struct reeve_cache_stats s;
    reeve_cache_stats(c, &s);
    CHECK_EQ(s.l2.entries, 0);
    clock_ns = start;
}

TEST(a_clock_that_jumps_loses_nothing_and_keeps_nothing_for_ever)
{
    with_cache((struct reeve_cache_opts){ .ttl_ns = REEVE_SEC }, jump_about);
}

/* Many that come due in the wheel with one that has expired, and stand before it there. */
static void expire_behind_others(reeve_cache *c)
{
    enum { OTHERS = 200 };
    const int64_t tick = INT64_C(1) << 20;
    clock_pass(32 * tick - clock_now() % (32 * tick)); /* a slot of the wheel begins */
    for (uint64_t i = 0; i <= OTHERS; i++) {
        struct reeve_value v = box_new(i, 1);
        v.ttl_ns = (i < OTHERS ? 150 : 130) * tick;
        CHECK_OK(reeve_cache_put(c, key_of(&i), v));
    }
    clock_pass(140 * tick);
    CHECK_EQ(reeve_cache_expire(c, 1), 1);
    CHECK_EQ(reeve_cache_expire(c, 1000), 0);
    clock_pass(20 * tick);
    CHECK_EQ(reeve_cache_expire(c, 50), 50);
    CHECK_EQ(reeve_cache_expire(c, 1000), OTHERS - 50);
}

TEST(what_has_expired_is_dropped_however_many_have_not)
{
    with_cache((struct reeve_cache_opts){ .shards = 1 }, expire_behind_others);
}

/* ---- room ---- */

static void fill_small(reeve_cache *c)
{
    struct reeve_cache_stats s;
    for (uint64_t i = 0; i < 100; i++)
        CHECK_OK(put(c, i, i));
    reeve_cache_stats(c, &s);
    CHECK_EQ(s.l2.entries, 2);
}

TEST(there_are_no_more_entries_than_may_be_however_many_shards)
{
    with_cache((struct reeve_cache_opts){ .entries_max = 2, .shards = 2 }, fill_small);
    with_cache((struct reeve_cache_opts){ .entries_max = 2, .shards = 8 }, fill_small);
}

static void fill_up(reeve_cache *c)
{
    struct reeve_cache_stats s;
    for (uint64_t i = 0; i < 5000; i++) {
        CHECK_OK(put(c, i, i));
        get(c, i / 2, 0);
        reeve_cache_stats(c, &s);
        CHECK_LE(s.l2.entries, 100);
        CHECK_LE(s.l2.bytes, 50000);
    }
    CHECK_GT(s.l2.entries, 50);
    CHECK_EQ(s.l2.inserts, s.l2.entries + s.l2.evictions);
}

TEST(a_full_cache_evicts)
{
    for (int policy = REEVE_S3FIFO; policy <= REEVE_ADAPTIVE; policy++)
        with_cache((struct reeve_cache_opts){ .policy = policy,
                                              .entries_max = 100,
                                              .bytes_max = 50000,
                                              .l1_entries = 16 },
                   fill_up);
    CHECK_GT(dropped(REEVE_DROP_EVICTED), 1000);
}

static size_t weigh_round(void *ctx, struct reeve_bytes key, struct reeve_value value)
{
    (void)ctx;
    (void)key;
    return (size_t)box_of(value)->round;
}

static void too_large(reeve_cache *c)
{
    CHECK_OK(put(c, 1, 100));
    CHECK_EQ(put(c, 1, 101), -E2BIG); /* put() frees what is still its own */
    CHECK_EQ(get(c, 1, 0), 100);
    CHECK_OK(put(c, 2, 0)); /* weighs 1 */
    struct reeve_cache_stats s;
    reeve_cache_stats(c, &s);
    CHECK_LE(s.l2.bytes, 100);
}

TEST(a_value_that_does_not_fit_stays_its_owners)
{
    with_cache((struct reeve_cache_opts){ .policy = REEVE_LRU,
                                          .bytes_max = 100,
                                          .shards = 1,
                                          .weigh = weigh_round },
               too_large);
}

/* ---- bad input, misuse ---- */

static int try_options(void *arg)
{
    (void)arg;
    static const struct reeve_cache_opts bad[] = {
        { .policy = -1 },        { .policy = 4 },
        { .levels = 4 },         { .levels = 3 },
        { .shards = 3 },         { .shards = 2048 },
        { .ttl_ns = -1 },        { .negative_ns = -1 },
        { .refresh_ns = -1 },    { .ttl_ns = 5, .refresh_ns = 5 },
        { .l1_entries = 65537 }, { .load_ns = -1 },
        { .entries_max = SIZE_MAX, .shards = 1 },
        { .bytes_max = 1, .entries = SIZE_MAX },
    };
    reeve_cache *c = NULL;
    CHECK_EQ(reeve_cache_create(&c, NULL, 0), -EINVAL);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_EQ(reeve_cache_create(&c, &bad[i], 0), -EINVAL);
    CHECK(c == NULL);
    CHECK_OK(reeve_cache_create(&c, &(struct reeve_cache_opts){ .blocks = true }, 0));
    CHECK_EQ(reeve_cache_put(c, text("a"), (struct reeve_value){ .len = 1 }), -EINVAL);
    CHECK_OK(reeve_cache_put(c, text("a"), (struct reeve_value){ .len = 0 }));
    CHECK_OK(reeve_cache_put(c, text("b"), (struct reeve_value){ reeve_alloc(9), 9, 0, 0 }));
    CHECK_OK(reeve_cache_put(c, text("b"), (struct reeve_value){ reeve_alloc(8), 8, 0, 0 }));
    CHECK_EQ(reeve_cache_warm(c, NULL, 0, 0), -EINVAL);
    reeve_cache_destroy(c, 0);
    reeve_cache_destroy(NULL, 0);
    return 0;
}

TEST(options_that_make_no_sense_are_refused)
{
    CHECK_OK(reeve_run(try_options, NULL, .workers = 1));
}

/* What goes wrong, by number. */
static int misuse(void *arg)
{
    static int nothing;
    reeve_cache *c, *other;
    struct reeve_cache_opts o = { .levels = 2 };
    struct reeve_value v = { .data = &nothing }, w;
    int what = *(int *)arg;
    CHECK_OK(reeve_cache_create(&c, &o, 0));
    CHECK_OK(reeve_cache_create(&other, &o, 0));
    CHECK_OK(reeve_cache_put(c, text("a"), v));
    for (int i = 0; i < (what & 1 ? 1 : 3); i++) { /* the shared entry, or a front's ticket */
        CHECK_OK(reeve_cache_borrow(c, text("a"), &w, 0));
        if (i < (what & 1 ? 0 : 2))
            reeve_cache_return(c, w);
    }
    if (what < 2)
        reeve_cache_return(other, w);
    else if (what < 4)
        reeve_cache_destroy(c, 0);
    else
        reeve_cache_return(c, v);
    return 0;
}

TEST(misuse_ends_the_program_with_a_sentence)
{
    for (int what = 0; what < 2; what++)
        CHECK_DIES("not on loan from this cache", reeve_run(misuse, &what, .workers = 1));
    for (int what = 2; what < 4; what++)
        CHECK_DIES("still borrowed", reeve_run(misuse, &what, .workers = 1));
    for (int what = 4; what < 6; what++)
        CHECK_DIES("was not borrowed", reeve_run(misuse, &what, .workers = 1));
    CHECK_DIES("outside a task", {
        reeve_cache *c;
        reeve_cache_create(&c, &(struct reeve_cache_opts){ 0 }, 0);
    });
}

/* ---- threads ---- */

static int no_load(void *ctx, struct reeve_bytes key, struct reeve_value *ret)
{
    (void)ctx;
    (void)key;
    (void)ret;
    return -EIO;
}

static void *stranger(void *arg)
{
    reeve_cache *c = arg;
    CHECK_EQ(get(c, 1, 0), 1);
    CHECK_EQ(get(c, 1, 0), 1);
    CHECK_EQ(get(c, 2, 0), -ENOTSUP);
    CHECK_OK(put(c, 2, 2));
    CHECK_EQ(get(c, 2, REEVE_POLL), 2);
    CHECK_EQ(drop_key(c, 1), 0);
    return NULL;
}

static int run_stranger(void *arg)
{
    pthread_t t;
    CHECK_EQ(pthread_create(&t, NULL, stranger, arg), 0);
    pthread_join(t, NULL);
    return 0;
}

static void use_from_a_thread(reeve_cache *c)
{
    CHECK_OK(put(c, 1, 1));
    for (int i = 0; i < 4; i++)
        CHECK_EQ(get(c, 1, 0), 1);
    CHECK_OK(reeve_offload(run_stranger, c, 0));
    CHECK_EQ(get(c, 1, 0), -EIO);
    CHECK_EQ(get(c, 2, 0), 2);
}

TEST(a_thread_that_is_no_task_gets_what_is_there)
{
    with_cache((struct reeve_cache_opts){ .load = no_load }, use_from_a_thread);
}

/* ---- fork ---- */

static void fork_and_go_on(reeve_cache *c)
{
    uint64_t key = 1;
    struct reeve_value v;
    int status;
    CHECK_OK(put(c, 1, 1));
    for (int i = 0; i < 3; i++)
        CHECK_EQ(get(c, 1, 0), 1);
    CHECK_OK(reeve_cache_borrow(c, key_of(&key), &v, 0));
    fflush(NULL);
    pid_t child = fork();
    CHECK_GE(child, 0);
    if (child == 0) {
        bool told = get(c, 1, 0) == -ECHILD && put(c, 2, 2) == -ECHILD &&
                    drop_key(c, 1) == -ECHILD && reeve_cache_expire(c, 9) == 0;
        reeve_cache_return(c, v);
        reeve_cache_clear(c);
        reeve_cache_destroy(c, 0);
        _exit(told ? 0 : 1);
    }
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
    reeve_cache_return(c, v);
    CHECK_EQ(get(c, 1, 0), 1);
}

TEST(in_a_child_of_fork_a_cache_says_so_and_the_parent_goes_on)
{
    with_cache((struct reeve_cache_opts){ 0 }, fork_and_go_on);
}

/* ---- counters ---- */

static void count(reeve_cache *c)
{
    struct reeve_cache_stats s;
    CHECK_OK(put(c, 1, 1));
    CHECK_OK(put(c, 1, 2));
    CHECK_OK(put(c, 2, 2));
    for (int i = 0; i < 10; i++)
        CHECK_EQ(get(c, 1, 0), 2);
    get(c, 5, 0);
    CHECK_EQ(drop_key(c, 2), 0);
    reeve_cache_stats(c, &s);
    CHECK_EQ(s.l1.hits + s.l2.hits, 10);
    CHECK_EQ(s.l2.misses, 1);
    CHECK_EQ(s.l2.inserts, 3);
    CHECK_EQ(s.l2.removes, 2);
    CHECK_EQ(s.l2.entries, 1);
    CHECK_EQ(s.l2.bytes, sizeof(uint64_t) + sizeof(struct box) + REEVE_CACHE_ENTRY_BYTES);
    CHECK_EQ(s.dropped[REEVE_DROP_REPLACED], 1);
    CHECK_EQ(s.dropped[REEVE_DROP_REMOVED], 1);
    CHECK_EQ(s.lent_bytes, 0);
    reeve_cache_stats_reset(c);
    reeve_cache_stats(c, &s);
    CHECK_EQ(s.l1.hits + s.l2.hits + s.l2.inserts + s.dropped[REEVE_DROP_REPLACED], 0);
    CHECK_EQ(s.l2.entries, 1);
    get(c, 1, 0);
    reeve_cache_stats(c, &s);
    CHECK_EQ(s.l1.hits + s.l2.hits, 1);
}

TEST(hits_misses_and_drops_are_counted)
{
    with_cache((struct reeve_cache_opts){ 0 }, count);
}
