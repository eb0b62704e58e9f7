/* SPDX-License-Identifier: MIT */
/*
 * What the tests of the cache share: values that know whether they are whole, a clock, a cache in a
 * runtime.
 *
 * A box is a value with canaries, and a count of all boxes that were dropped. Who is lent a box
 * checks it; who drops one breaks it.
 */
#ifndef TESTS_RUNTIME_CACHE_BOX_H
#define TESTS_RUNTIME_CACHE_BOX_H

#include "tests/check.h"

#include <reeve/reeve.h>
#include <reeve/cache.h>
#include <stdatomic.h>

#include "runtime/cache.h"

#define WHOLE UINT64_C(0x600d600d600d600d)

struct box {
    uint64_t front;
    uint64_t key, round;
    uint64_t back;
};

static atomic_long boxes_made, boxes_dropped, boxes_by_cause[REEVE_DROP_CAUSES];

static inline struct reeve_value box_new(uint64_t key, uint64_t round)
{
    struct box *b = malloc(sizeof *b);
    CHECK(b != NULL);
    *b = (struct box){ WHOLE ^ key, key, round, WHOLE ^ round };
    atomic_fetch_add(&boxes_made, 1);
    return (struct reeve_value){ .data = b, .len = sizeof *b };
}

static inline struct box *box_of(struct reeve_value value)
{
    struct box *b = value.data;
    CHECK_EQ(value.len, sizeof *b);
    CHECK_EQ(b->front, WHOLE ^ b->key);
    CHECK_EQ(b->back, WHOLE ^ b->round);
    return b;
}

static inline void box_free(struct reeve_value value)
{
    struct box *b = box_of(value);
    b->front = b->back = 0;
    free(b);
    atomic_fetch_add(&boxes_dropped, 1);
}

static inline void box_drop(void *ctx, struct reeve_value value, int cause)
{
    (void)ctx;
    CHECK(cause > 0 && cause < REEVE_DROP_CAUSES);
    box_free(value);
    atomic_fetch_add(&boxes_by_cause[cause], 1);
}

/* Each was dropped, once (twice would have hit a canary, or a freed block). */
static inline void boxes_are_gone(void)
{
    CHECK_EQ(atomic_load(&boxes_made), atomic_load(&boxes_dropped));
}

static inline long dropped(int cause)
{
    return atomic_load(&boxes_by_cause[cause]);
}

static inline struct reeve_bytes key_of(const uint64_t *number)
{
    return (struct reeve_bytes){ number, sizeof *number };
}

static inline int put(reeve_cache *c, uint64_t key, uint64_t round)
{
    struct reeve_value v = box_new(key, round);
    int r = reeve_cache_put(c, key_of(&key), v);
    if (r < 0)
        box_free(v);
    return r;
}

/* The round of a key's value; or the error. */
static inline int64_t get(reeve_cache *c, uint64_t key, reeve_time until)
{
    struct reeve_value v;
    int r = reeve_cache_borrow(c, key_of(&key), &v, until);
    if (r < 0)
        return r;
    CHECK_EQ(box_of(v)->key, key);
    int64_t round = (int64_t)box_of(v)->round;
    reeve_cache_return(c, v);
    return round;
}

static inline int drop_key(reeve_cache *c, uint64_t key)
{
    return reeve_cache_remove(c, key_of(&key));
}

/* ---- a clock that stands ---- */

static _Atomic(int64_t) clock_ns = 1000 * REEVE_SEC;

static inline int64_t clock_now(void)
{
    return atomic_load(&clock_ns);
}

static inline void clock_pass(int64_t ns)
{
    atomic_fetch_add(&clock_ns, ns);
}

/* ---- a cache in a runtime ---- */

struct cached {
    struct reeve_cache_opts opts;
    void (*test)(reeve_cache *cache);
    bool real_time;
};

static inline int run_cached(void *arg)
{
    const struct cached *it = arg;
    const struct rv_cache_tweaks tweaks = { .now = it->real_time ? NULL : clock_now };
    reeve_cache *c;
    CHECK_OK(rv_cache_create(&c, &it->opts, &tweaks, 0));
    it->test(c);
    reeve_cache_destroy(c, 0);
    boxes_are_gone();
    return 0;
}

static inline void with_cache_on(unsigned workers, struct cached it)
{
    it.opts.drop = it.opts.drop ? it.opts.drop : box_drop;
    CHECK_OK(reeve_run(run_cached, &it, .workers = workers));
}

/* Runs test(cache) in a task, twice: with the shared table alone, and with workers' fronts. */
static inline void with_cache(struct reeve_cache_opts opts, void (*test)(reeve_cache *))
{
    for (opts.levels = 1; opts.levels <= 2; opts.levels++)
        with_cache_on(1, (struct cached){ opts, test, false });
}

#endif
