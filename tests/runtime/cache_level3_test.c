/* SPDX-License-Identifier: MIT */
/*
 * The cache with all three levels: down into the file and up again, and nothing that was removed
 * comes back from there, not after a restart either.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <reeve/reeve.h>
#include <reeve/cache.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "runtime/cache.h"

enum { L2 = 16, MANY = 200 };

static char path[64];
static atomic_long loads, drops;
static int64_t clock_ns = 1000 * REEVE_SEC;

static int64_t clock_now(void)
{
    return clock_ns;
}

static void remove_file(void)
{
    unlink(path);
}

static void name_file(void)
{
    snprintf(path, sizeof path, "/tmp/reeve-cache-%ld", (long)getpid());
    remove_file();
    atexit(remove_file);
}

static void note_drop(void *ctx, struct reeve_value value, int cause)
{
    (void)ctx;
    (void)cause;
    (void)value;
    atomic_fetch_add(&drops, 1);
}

static struct reeve_bytes key_of(const int *number)
{
    return (struct reeve_bytes){ number, sizeof *number };
}

/* "NUMBER ROUND" */
static struct reeve_value text_value(int number, int round)
{
    char text[64];
    int n = snprintf(text, sizeof text, "%d %d", number, round);
    char *block = reeve_alloc((size_t)n + 1);
    CHECK(block != NULL);
    memcpy(block, text, (size_t)n + 1);
    return (struct reeve_value){ .data = block, .len = (size_t)n + 1 };
}

static int put(reeve_cache *c, int number, int round)
{
    return reeve_cache_put(c, key_of(&number), text_value(number, round));
}

static int get(reeve_cache *c, int number)
{
    struct reeve_value v;
    int n = -1, round = -1, r = reeve_cache_borrow(c, key_of(&number), &v, 0);
    if (r < 0)
        return r;
    CHECK_EQ(((const char *)v.data)[v.len - 1], '\0');
    CHECK_EQ(sscanf(v.data, "%d %d", &n, &round), 2);
    CHECK_EQ(n, number);
    reeve_cache_return(c, v);
    return round;
}

static int load(void *ctx, struct reeve_bytes key, struct reeve_value *ret)
{
    (void)ctx;
    int number;
    memcpy(&number, key.data, sizeof number);
    atomic_fetch_add(&loads, 1);
    *ret = text_value(number, 9999);
    return 0;
}

struct run {
    struct reeve_cache_opts o;
    void (*test)(reeve_cache *c);
};

static int run_one(void *arg)
{
    struct run *run = arg;
    reeve_cache *c;
    CHECK_OK(rv_cache_create(&c, &run->o, &(struct rv_cache_tweaks){ .now = clock_now }, 0));
    run->test(c);
    reeve_cache_destroy(c, 0);
    return 0;
}

static struct reeve_cache_opts three(void)
{
    return (struct reeve_cache_opts){ .levels = 3,
                                      .entries_max = L2,
                                      .shards = 1,
                                      .l1_entries = 4,
                                      .l3_path = path,
                                      .l3_bytes = 4 << 20,
                                      .l3_tag = 1,
                                      .drop = note_drop };
}

static void with(struct reeve_cache_opts o, void (*test)(reeve_cache *))
{
    struct run run = { o, test };
    CHECK_OK(reeve_run(run_one, &run, .workers = 2));
}

/* How many of the keys are there, each as it was put. */
static int present(reeve_cache *c, int from, int to, int round)
{
    int n = 0;
    for (int i = from; i < to; i++) {
        int r = get(c, i);
        CHECK(r == round || r == -ENOENT);
        n += r == round;
    }
    return n;
}

static void overflow(reeve_cache *c)
{
    struct reeve_cache_stats s;
    for (int i = 0; i < MANY; i++)
        CHECK_OK(put(c, i, 1));
    reeve_cache_stats(c, &s);
    CHECK_EQ(s.l2.evictions, MANY - L2);
    CHECK_GT(s.l3.inserts, 0);
    CHECK_LE(s.l3.inserts, s.l2.evictions);
    int n = present(c, 0, MANY, 1);
    CHECK_GE(n, (int)(s.l3.inserts));
    reeve_cache_stats(c, &s);
    CHECK_GT(s.l3.hits, 0);
    CHECK_EQ(s.loads, 0);
}

TEST(what_is_evicted_is_found_in_the_file)
{
    name_file();
    with(three(), overflow);
}

static void change_below(reeve_cache *c)
{
    struct reeve_cache_stats s;
    for (int i = 0; i < MANY; i++)
        CHECK_OK(put(c, i, 1));
    for (int i = 0; i < 50; i++) /* most of these are in the file alone */
        CHECK_OK(put(c, i, 2));
    int there = 0;
    for (int i = 50; i < 100; i++)
        there += reeve_cache_remove(c, key_of(&i)) == 0;
    CHECK_GT(there, 0);
    for (int again = 0; again < 3; again++) {
        for (int i = MANY; i < 2 * MANY; i++) /* all of that is pushed out again */
            CHECK_OK(put(c, i, 1));
        CHECK_EQ(present(c, 50, 100, 1), 0);
        present(c, 0, 50, 2);
    }
    reeve_cache_stats(c, &s);
    CHECK_GT(s.l3.removes, 0);
    reeve_cache_clear(c);
    CHECK_EQ(present(c, 0, 2 * MANY, 1), 0);
    for (int i = 0; i < MANY; i++)
        CHECK_OK(put(c, i, 3));
    reeve_cache_invalidate(c);
    CHECK_EQ(present(c, 0, 2 * MANY, 3), 0);
}

TEST(a_change_reaches_the_file_and_nothing_stale_comes_back)
{
    name_file();
    with(three(), change_below);
}

static void leave_some(reeve_cache *c)
{
    for (int i = 0; i < L2; i++)
        CHECK_OK(put(c, i, 5));
    struct reeve_value v = text_value(100, 5);
    int number = 100;
    v.ttl_ns = 3600 * REEVE_SEC;
    CHECK_OK(reeve_cache_put(c, key_of(&number), v));
    CHECK_EQ(get(c, 100), 5);
}

static void find_them(reeve_cache *c)
{
    CHECK_EQ(present(c, 0, L2, 5), L2);
    struct reeve_value v;
    int number = 100;
    CHECK_OK(reeve_cache_borrow(c, key_of(&number), &v, 0));
    CHECK(v.ttl_ns > 0 && v.ttl_ns <= 3600 * REEVE_SEC);
    reeve_cache_return(c, v);
    int gone = 3;
    CHECK_OK(reeve_cache_remove(c, key_of(&gone)));
}

static void find_all_but_one(reeve_cache *c)
{
    CHECK_EQ(get(c, 3), -ENOENT);
    CHECK_EQ(get(c, 5), 5);
}

static void find_nothing(reeve_cache *c)
{
    CHECK_EQ(present(c, 0, L2, 5), 0);
}

TEST(what_the_cache_held_is_there_in_the_next_run_of_the_program)
{
    name_file();
    struct reeve_cache_opts o = three();
    o.entries_max = 4 * L2; /* all of it goes down at the end, which waits for room in the file */
    with(o, leave_some);
    with(o, find_them);
    with(o, find_all_but_one);
    o.l3_tag = 2;
    with(o, find_nothing);
}

static void load_what_is_nowhere(reeve_cache *c)
{
    for (int i = 0; i < MANY; i++)
        CHECK_EQ(get(c, i), 9999);
    CHECK_EQ(atomic_load(&loads), MANY);
    for (int i = 0; i < MANY; i++)
        CHECK_EQ(get(c, i), 9999);
    struct reeve_cache_stats s;
    reeve_cache_stats(c, &s);
    CHECK_EQ((int64_t)s.loads, atomic_load(&loads));
    CHECK_EQ(s.l3.hits + s.loads, s.l2.misses);
}

TEST(what_is_in_no_level_is_loaded)
{
    name_file();
    struct reeve_cache_opts o = three();
    o.load = load;
    with(o, load_what_is_nowhere);
}

static int open_two(void *arg)
{
    (void)arg;
    reeve_cache *c, *other = NULL;
    struct reeve_cache_opts o = three();
    CHECK_OK(reeve_cache_create(&c, &o, 0));
    CHECK_EQ(reeve_cache_create(&other, &o, 0), -EBUSY);
    CHECK(other == NULL);
    reeve_cache_destroy(c, 0);
    o.l3_path = "/nowhere/at/all";
    CHECK_EQ(reeve_cache_create(&c, &o, 0), -ENOENT);
    return 0;
}

TEST(a_file_has_one_cache)
{
    name_file();
    CHECK_OK(reeve_run(open_two, NULL, .workers = 1));
}

/* ---- invalidation and loads ---- */

static void *invalidate(void *arg)
{
    reeve_cache_invalidate(arg);
    return NULL;
}

/* A key of the first shard that is in the file. */
static int find_below(reeve_cache *c)
{
    for (int key = 0; key < MANY; key++) {
        struct rv_key k = rv_table_key(&c->table, &key, sizeof key);
        struct reeve_value v;
        if (rv_cache_shard(c, k.hash) != &c->shards[0] || rv_l3_get(c, &k, &v) < 0)
            continue;
        reeve_free(v.data);
        return key;
    }
    CHECK(false);
    return -1;
}

/* The invalidation has begun, and stops at the second shard, before it clears the file. */
static void ask_meanwhile(reeve_cache *c)
{
    pthread_t thread;
    for (int i = 0; i < MANY; i++)
        CHECK_OK(put(c, i, 1));
    int key = find_below(c);
    uint64_t gen = rv_load_acquire(&c->gen);
    rv_cache_lock(&c->shards[1]);
    CHECK_EQ(pthread_create(&thread, NULL, invalidate, c), 0);
    while (rv_load_acquire(&c->gen) == gen)
        sched_yield();
    get(c, key);
    rv_cache_unlock(&c->shards[1]);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(get(c, key), -ENOENT);
    CHECK_OK(put(c, key, 2));
    CHECK_EQ(get(c, key), 2);
}

TEST(a_load_during_an_invalidation_brings_nothing_back_from_the_file)
{
    name_file();
    struct reeve_cache_opts o = three();
    o.shards = 2;
    with(o, ask_meanwhile);
}

/* ---- times ---- */

static void live_long(reeve_cache *c)
{
    int first = -1;
    struct reeve_value v = text_value(first, 1);
    v.ttl_ns = INT64_MAX - 2 * clock_now();
    CHECK_OK(reeve_cache_put(c, key_of(&first), v));
    for (int i = 0; i < L2; i++)
        CHECK_OK(put(c, i, 1));
    struct reeve_cache_stats s;
    reeve_cache_stats(c, &s);
    CHECK_EQ(s.l3.entries, 1);
    CHECK_EQ(get(c, first), 1);
}

TEST(a_time_beyond_the_wall_clock_is_kept_in_the_file)
{
    name_file();
    struct reeve_cache_opts o = three();
    o.policy = REEVE_LRU;
    with(o, live_long);
}

/* ---- the end, in a cancelled task ---- */

enum { LARGE = 100000, LARGE_MANY = 400 };
static struct reeve_sem full;

static struct reeve_cache_opts large(void)
{
    struct reeve_cache_opts o = three();
    o.entries_max = LARGE_MANY;
    o.l3_bytes = 64 << 20;
    return o;
}

static int end_cancelled(void *arg)
{
    (void)arg;
    reeve_cache *c;
    struct reeve_cache_opts o = large();
    CHECK_OK(reeve_cache_create(&c, &o, 0));
    for (int i = 0; i < LARGE_MANY; i++) {
        char *block = reeve_alloc(LARGE);
        CHECK(block != NULL);
        memset(block, i, LARGE);
        CHECK_OK(reeve_cache_put(c, key_of(&i), (struct reeve_value){ block, LARGE, 0, 0 }));
    }
    CHECK_OK(reeve_sem_post(&full));
    CHECK_EQ(reeve_sleep(reeve_in(60 * REEVE_SEC)), -ECANCELED);
    reeve_cache_destroy(c, 0);
    CHECK_EQ(reeve_sleep(0), -ECANCELED);
    return 0;
}

static int end_and_look(void *arg)
{
    reeve_task *task;
    CHECK_OK(reeve_sem_init(&full, 0, 1));
    CHECK_OK(reeve_spawn(&task, end_cancelled, arg));
    CHECK_OK(reeve_sem_wait(&full, 0));
    reeve_cancel(task);
    CHECK_OK(reeve_join(task, NULL, 0));
    reeve_cache *c;
    struct reeve_cache_opts o = large();
    struct reeve_cache_stats s;
    CHECK_OK(reeve_cache_create(&c, &o, 0));
    reeve_cache_stats(c, &s);
    CHECK_EQ(s.l3.entries, LARGE_MANY);
    reeve_cache_destroy(c, 0);
    return 0;
}

TEST(what_a_cancelled_task_destroys_goes_into_the_file_all_the_same)
{
    name_file();
    CHECK_OK(reeve_run(end_and_look, NULL, .workers = 2));
}

/* ---- several workers ---- */

enum { KEYS = 60, ROUNDS = 2000 };
static atomic_int newest[KEYS]; /* the round of each key's last put; written before it */
static struct reeve_mutex writer[KEYS];

static uint64_t next_random(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + 1442695040888963407;
    return *state >> 33;
}

static reeve_cache *the_cache;

/* A key's values grow: nobody may find an older one than was there when he asked. */
static int churn(void *arg)
{
    uint64_t state = (uint64_t)(uintptr_t)arg;
    for (int i = 0; i < ROUNDS; i++) {
        int key = (int)(next_random(&state) % KEYS), what = (int)(next_random(&state) % 8);
        if (what < 5) {
            int before = atomic_load(&newest[key]), r = get(the_cache, key);
            CHECK(r == -ENOENT || r >= before);
            continue;
        }
        CHECK_OK(reeve_mutex_lock(&writer[key], 0));
        int round = atomic_load(&newest[key]) + 1;
        if (what < 7)
            CHECK_OK(put(the_cache, key, round));
        else
            reeve_cache_remove(the_cache, key_of(&key));
        atomic_store(&newest[key], round); /* after a removal: what was there was less */
        reeve_mutex_unlock(&writer[key]);
    }
    return 0;
}

static void churn_all(reeve_cache *c)
{
    reeve_group g = { 0 };
    the_cache = c;
    for (uintptr_t i = 1; i <= 6; i++)
        CHECK_OK(reeve_go(churn, (void *)i, .group = &g));
    CHECK_OK(reeve_group_wait(&g, 0));
}

TEST(no_level_gives_out_an_older_value_than_the_last)
{
    name_file();
    with(three(), churn_all);
}

/* Nobody knows how long what comes from the file has been there: it is loaded anew in the
 * background, though the clock stands still. */
static void is_refreshed(reeve_cache *c)
{
    struct reeve_cache_stats s;
    do {
        for (int i = 0; i < MANY; i++)
            CHECK_OK(put(c, i, 1));
        CHECK_OK(reeve_sleep(reeve_in(REEVE_MS)));
        reeve_cache_stats(c, &s);
    } while (s.l3.inserts == 0); /* its room is prepared in the background */
    CHECK_EQ(s.refreshes, 0);
    while (s.refreshes == 0) {
        for (int i = 0; i < MANY; i++)
            for (int twice = 0; twice < 2; twice++)
                CHECK_GE(get(c, i), 1);
        reeve_cache_stats(c, &s);
    }
    CHECK_GE(s.l3.hits, 1);
}

TEST(what_comes_from_the_file_is_refreshed)
{
    struct reeve_cache_opts o = three();
    o.load = load;
    o.refresh_ns = 10 * REEVE_SEC;
    name_file();
    struct run run = { o, is_refreshed };
    CHECK_EQ(reeve_run(run_one, &run, .workers = 1), 0);
}
