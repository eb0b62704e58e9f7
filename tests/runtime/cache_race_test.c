/* SPDX-License-Identifier: MIT */
/*
 * Tasks on several workers, and threads of none, that borrow, return, put, remove, clear and expire
 * the same few keys: nobody ever sees a value that is torn, freed or another key's, and each value
 * is dropped once.
 */
#define CHECK_MAIN
#include "tests/runtime/cache_box.h"

#include <pthread.h>

enum { WORKERS = 3, TASKS = 12, STRANGERS = 2, KEYS = 40, LOANS = 4 };
#ifdef RV_TSAN
enum { ROUNDS = 2500 };
#else
enum { ROUNDS = 20000 };
#endif
static unsigned rounds = ROUNDS;
static reeve_cache *the_cache;

static uint64_t next_random(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + 1442695040888963407;
    return *state >> 33;
}

static int load(void *ctx, struct reeve_bytes key, struct reeve_value *ret)
{
    (void)ctx;
    uint64_t number;
    memcpy(&number, key.data, sizeof number);
    if (number % 3 == 0)
        reeve_sleep(0);
    if (number % 7 == 0)
        return -EREMOTEIO;
    *ret = box_new(number, 0);
    return 0;
}

static void borrow_one(struct reeve_value *slot, uint64_t key, reeve_time until)
{
    struct reeve_value v;
    if (slot->data != NULL) {
        box_of(*slot);
        reeve_cache_return(the_cache, *slot);
        slot->data = NULL;
    }
    int r = reeve_cache_borrow(the_cache, key_of(&key), &v, until);
    CHECK(r == 0 || r == -ENOENT || r == -EREMOTEIO || r == -ETIMEDOUT || r == -ENOTSUP);
    if (r < 0)
        return;
    CHECK_EQ(box_of(v)->key, key);
    *slot = v;
}

/* Favourites, so that fronts fill, and others. */
static uint64_t some_key(uint64_t *state)
{
    uint64_t r = next_random(state);
    return r % 4 != 0 ? r / 4 % 5 : r / 4 % KEYS;
}

static void work(uint64_t seed, bool in_task)
{
    struct reeve_value loan[LOANS] = { { 0 } };
    uint64_t state = seed;
    for (unsigned i = 0; i < rounds; i++) {
        uint64_t what = next_random(&state) % 64, key = some_key(&state);
        if (what < 48)
            borrow_one(&loan[what % LOANS], key, what % 16 == 0 ? REEVE_POLL : 0);
        else if (what < 56)
            put(the_cache, key, i);
        else if (what < 60)
            drop_key(the_cache, key);
        else if (what == 60 && i % 8 == 0)
            reeve_cache_clear(the_cache);
        else if (what == 61 && i % 16 == 0)
            reeve_cache_invalidate(the_cache);
        else if (what == 62)
            clock_pass(5 * REEVE_MS);
        else if (in_task)
            reeve_sleep(0);
        if (what == 63)
            reeve_cache_expire(the_cache, 2);
    }
    for (int i = 0; i < LOANS; i++)
        if (loan[i].data != NULL) {
            box_of(loan[i]);
            reeve_cache_return(the_cache, loan[i]);
        }
}

static int work_in_task(void *arg)
{
    work((uint64_t)(uintptr_t)arg, true);
    return 0;
}

static void *work_in_thread(void *arg)
{
    work((uint64_t)(uintptr_t)arg, false);
    return NULL;
}

static int join_strangers(void *arg)
{
    pthread_t *threads = arg;
    for (int i = 0; i < STRANGERS; i++)
        pthread_join(threads[i], NULL);
    return 0;
}

static void all_at_once(reeve_cache *c)
{
    pthread_t threads[STRANGERS];
    reeve_group g = { 0 };
    the_cache = c;
    for (uintptr_t i = 0; i < STRANGERS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, work_in_thread, (void *)(1000 + i)), 0);
    for (uintptr_t i = 0; i < TASKS; i++)
        CHECK_OK(reeve_go(work_in_task, (void *)(i + 1), .group = &g));
    CHECK_OK(reeve_group_wait(&g, 0));
    CHECK_OK(reeve_offload(join_strangers, threads, 0));
}

static void race(struct reeve_cache_opts o)
{
    with_cache_on(WORKERS, (struct cached){ o, all_at_once, false });
}

TEST(values_in_the_shared_table_are_whole_and_dropped_once)
{
    race((struct reeve_cache_opts){ .levels = 1, .entries_max = 24 });
}

TEST(values_in_fronts_are_whole_and_dropped_once)
{
    race((struct reeve_cache_opts){ .levels = 2, .entries_max = 24, .l1_entries = 8 });
}

TEST(values_that_are_loaded_and_expire_are_whole_and_dropped_once)
{
    for (int policy = REEVE_S3FIFO; policy <= REEVE_ADAPTIVE; policy++) {
        rounds = ROUNDS / 2;
        race((struct reeve_cache_opts){ .levels = 2,
                                        .policy = policy,
                                        .entries_max = 30,
                                        .shards = 2,
                                        .l1_entries = 8,
                                        .ttl_ns = 20 * REEVE_MS,
                                        .refresh_ns = 5 * REEVE_MS,
                                        .negative_ns = 2 * REEVE_MS,
                                        .load = load });
    }
}
