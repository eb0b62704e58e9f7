/* SPDX-License-Identifier: MIT */
/*
 * Random operations on a cache and on a plain array that says what it may hold. Whatever the cache
 * lends is what the array says; what the array says is there may be missing only where there was no
 * room. The seed is printed when they differ.
 */
#define CHECK_MAIN
#include "tests/runtime/cache_box.h"

#ifdef RV_TSAN
enum { KEYS = 64, STEPS = 1500 };
#else
enum { KEYS = 64, STEPS = 8000 };
#endif

static struct {
    uint64_t round;  /* 0: not there */
    int64_t expires; /* 0: never */
} model[KEYS];

static uint64_t random_state, round_now, source[KEYS]; /* source: what a load would find; 0: -EIO */
static uint64_t seed; /* of the walk */
static bool may_miss;
static unsigned long hits, missing;

static uint64_t random_u64(void)
{
    random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407;
    return random_state >> 33;
}

static void agree(bool cond, const char *what, uint64_t key)
{
    if (!cond)
        check_failed(__FILE__, __LINE__, "seed %" PRIu64 ": %s %" PRIu64, seed, what, key);
}

static bool is_there(uint64_t key)
{
    return model[key].round != 0 &&
           (model[key].expires == 0 || clock_now() < model[key].expires);
}

static int load(void *ctx, struct reeve_bytes key, struct reeve_value *ret)
{
    (void)ctx;
    uint64_t number;
    memcpy(&number, key.data, sizeof number);
    if (source[number] == 0)
        return -EREMOTEIO;
    *ret = box_new(number, source[number]);
    return 0;
}

static void try_get(reeve_cache *c, uint64_t key, bool loads)
{
    int64_t got = get(c, key, 0), want = (int64_t)model[key].round;
    if (is_there(key) && got == want) {
        hits++;
        return;
    }
    if (is_there(key)) {
        agree(may_miss, "lost key", key);
        missing++;
    }
    if (!loads) {
        agree(got == -ENOENT, "lent what it may not: key", key);
        model[key].round = 0;
        return;
    }
    agree(got == (source[key] != 0 ? (int64_t)source[key] : -EREMOTEIO), "loaded wrongly key", key);
    model[key].round = source[key];
    model[key].expires = 0;
}

static void try_put(reeve_cache *c, uint64_t key)
{
    struct reeve_value v = box_new(key, ++round_now);
    int64_t ttl = random_u64() % 2 ? (int64_t)(random_u64() % (100 * REEVE_MS)) + 1 : 0;
    v.ttl_ns = ttl;
    CHECK_OK(reeve_cache_put(c, key_of(&key), v));
    model[key].round = round_now;
    model[key].expires = ttl > 0 ? clock_now() + ttl : 0;
}

static void try_remove(reeve_cache *c, uint64_t key)
{
    int r = drop_key(c, key);
    CHECK(r == 0 || r == -ENOENT);
    if (r == 0)
        agree(is_there(key), "removed what it may not have: key", key);
    else
        agree(!is_there(key) || may_miss, "did not remove key", key);
    model[key].round = 0;
}

static void forget_all(reeve_cache *c)
{
    if (random_u64() % 2)
        reeve_cache_clear(c);
    else
        reeve_cache_invalidate(c);
    memset(model, 0, sizeof model);
}

static void step(reeve_cache *c, bool loads)
{
    uint64_t what = random_u64() % 100, key = random_u64() % KEYS * (random_u64() % KEYS) / KEYS;
    if (what < 60)
        try_get(c, key, loads);
    else if (what < 80)
        try_put(c, key);
    else if (what < 88)
        try_remove(c, key);
    else if (what < 96)
        clock_pass((int64_t)(random_u64() % (10 * REEVE_MS)));
    else if (what < 99)
        source[key] = random_u64() % 4 != 0 ? ++round_now : 0;
    else if (random_u64() % 2)
        reeve_cache_expire(c, random_u64() % 8);
    else if (random_u64() % 4 == 0)
        forget_all(c);
}

static void walk(reeve_cache *c)
{
    bool loads = c->o.load != NULL;
    memset(model, 0, sizeof model);
    memset(source, 0, sizeof source);
    random_state = seed;
    for (int i = 0; i < STEPS; i++)
        step(c, loads);
}

static void walks(struct reeve_cache_opts o)
{
    for (seed = 1; seed <= 4; seed++)
        for (int policy = REEVE_S3FIFO; policy <= REEVE_ADAPTIVE; policy++) {
            o.policy = policy;
            with_cache(o, walk);
        }
    CHECK_GT(hits, 10000);
    if (may_miss)
        CHECK_GT(missing, 100);
}

TEST(a_cache_with_room_agrees_with_an_array)
{
    walks((struct reeve_cache_opts){ .entries_max = 10 * KEYS, .shards = 1, .l1_entries = 16 });
}

TEST(a_cache_without_room_never_lends_anything_else)
{
    may_miss = true;
    walks((struct reeve_cache_opts){ .entries_max = KEYS / 3, .shards = 2, .l1_entries = 8 });
}

TEST(a_cache_that_loads_agrees_with_an_array)
{
    walks((struct reeve_cache_opts){
        .entries_max = 10 * KEYS, .shards = 1, .l1_entries = 16, .load = load });
}

TEST(a_cache_that_loads_and_has_no_room_never_lends_anything_else)
{
    may_miss = true;
    walks((struct reeve_cache_opts){
        .entries_max = KEYS / 3, .shards = 1, .l1_entries = 8, .load = load });
}
