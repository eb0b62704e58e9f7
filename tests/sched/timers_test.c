/* SPDX-License-Identifier: MIT */
/*
 * timers_test.c -- sched/timers.c against sorting.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include "mem/fault.h"
#include "sched/timers.h"

enum { CAP = 4096 };

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static struct rv_timer entry(int64_t at, uint32_t n)
{
    return (struct rv_timer){.at = at, .task = n, .seq = n ^ 0x5a5a5a5a};
}

static void check_heap(const struct rv_timers *t)
{
    for (uint32_t i = 1; i < t->n; i++)
        CHECK(t->heap[(i - 1) / 4].at <= t->heap[i].at);
}

static int by_time(const void *a, const void *b)
{
    const struct rv_timer *x = a, *y = b;
    return (x->at > y->at) - (x->at < y->at);
}

/* Empties the heap and checks that it held exactly these entries, each with its own numbers. */
static void drain_and_compare(struct rv_timers *t, struct rv_timer *e, uint32_t n)
{
    static bool seen[1 << 17];
    memset(seen, 0, sizeof seen);
    qsort(e, n, sizeof *e, by_time);
    CHECK_EQ(t->n, n);
    for (uint32_t i = 0; i < n; i++) {
        CHECK_EQ(rv_timers_min(t)->at, e[i].at);
        struct rv_timer min = rv_timers_pop(t);
        CHECK_EQ(min.at, e[i].at);
        CHECK_EQ(min.seq, min.task ^ 0x5a5a5a5a);
        CHECK(!seen[min.task]);
        seen[min.task] = true;
    }
    for (uint32_t i = 0; i < n; i++)
        CHECK(seen[e[i].task]);
    CHECK(rv_timers_min(t) == NULL);
}

TEST(entries_come_out_sorted_for_every_size)
{
    struct rv_timers t;
    static struct rv_timer e[CAP];
    uint64_t seed = 1;
    CHECK_OK(rv_timers_init(&t, CAP));
    for (uint32_t n = 0; n <= CAP; n += n < 40 ? 1 : 507) {
        for (uint32_t i = 0; i < n; i++) {
            e[i] = entry((int64_t)(next_random(&seed) % 1000), i);
            CHECK(rv_timers_push(&t, e[i]));
            check_heap(&t);
        }
        drain_and_compare(&t, e, n);
    }
    rv_timers_finish(&t);
}

TEST(the_ends_of_time_have_their_place)
{
    struct rv_timers t;
    struct rv_timer e[] = {entry(INT64_MAX, 0), entry(0, 1), entry(INT64_MIN, 2), entry(-1, 3),
                           entry(INT64_MAX, 4), entry(1, 5)};
    CHECK_OK(rv_timers_init(&t, 8));
    for (int i = 0; i < 6; i++)
        CHECK(rv_timers_push(&t, e[i]));
    CHECK_EQ(rv_timers_min(&t)->at, INT64_MIN);
    drain_and_compare(&t, e, 6);
    rv_timers_finish(&t);
}

/* Pushes and pops in any mixture; what comes out is never earlier than an entry still inside. */
TEST(the_earliest_entry_is_always_first)
{
    struct rv_timers t;
    uint64_t seed = 5;
    uint32_t in = 0, out = 0;
    CHECK_OK(rv_timers_init(&t, 64));
    for (int i = 0; i < 200000; i++) {
        uint64_t r = next_random(&seed) >> 8;
        if (r % 2) {
            bool room = t.n < 64;
            CHECK_EQ(rv_timers_push(&t, entry((int64_t)(r >> 40), 0)), room);
            in += room;
        } else if (t.n > 0) {
            struct rv_timer min = rv_timers_pop(&t);
            CHECK(!rv_timers_min(&t) || min.at <= rv_timers_min(&t)->at);
            out++;
        }
        check_heap(&t);
        CHECK_EQ(t.n, in - out);
    }
    CHECK(out > 10000);
    rv_timers_finish(&t);
}

TEST(a_full_heap_refuses_and_keeps_what_it_has)
{
    struct rv_timers t;
    CHECK_OK(rv_timers_init(&t, 3));
    for (uint32_t i = 0; i < 3; i++)
        CHECK(rv_timers_push(&t, entry(10 - i, i)));
    CHECK(!rv_timers_push(&t, entry(0, 9)));
    CHECK_EQ(rv_timers_pop(&t).at, 8);
    CHECK(rv_timers_push(&t, entry(0, 9)));
    CHECK_EQ(rv_timers_pop(&t).at, 0);
    rv_timers_finish(&t);
    rv_timers_finish(&t);
}

TEST(popping_an_empty_heap_aborts)
{
    struct rv_timers t;
    CHECK_OK(rv_timers_init(&t, 3));
    CHECK_DIES("t->n > 0", rv_timers_pop(&t));
    rv_timers_finish(&t);
}

/* ---- sweeping ---- */

/* Lives while its number is not a multiple of *ctx; counts its calls by entry. */
static uint8_t asked[CAP];

static bool not_multiple(void *ctx, const struct rv_timer *e)
{
    CHECK_EQ(asked[e->task], 0);
    asked[e->task]++;
    return e->task % *(uint32_t *)ctx != 0;
}

TEST(a_sweep_drops_the_stale_entries_and_only_those)
{
    struct rv_timers t;
    static struct rv_timer e[CAP];
    uint64_t seed = 3;
    CHECK_OK(rv_timers_init(&t, CAP));
    for (uint32_t n = 0; n <= 1200; n += n < 30 ? 1 : 117) {
        for (uint32_t factor = 1; factor <= 4; factor++) {
            uint32_t kept = 0;
            for (uint32_t i = 0; i < n; i++) {
                struct rv_timer x = entry((int64_t)(next_random(&seed) % 500), i);
                CHECK(rv_timers_push(&t, x));
                if (i % factor != 0)
                    e[kept++] = x;
            }
            memset(asked, 0, sizeof asked);
            rv_timers_sweep(&t, not_multiple, &factor);
            for (uint32_t i = 0; i < n; i++)
                CHECK_EQ(asked[i], 1);
            check_heap(&t);
            CHECK_EQ(t.kept, kept);
            drain_and_compare(&t, e, kept);
        }
    }
    rv_timers_finish(&t);
}

static bool is_live(void *ctx, const struct rv_timer *e)
{
    return ((bool *)ctx)[e->task];
}

TEST(a_sweep_is_wanted_at_64_and_then_at_twice_what_was_kept)
{
    struct rv_timers t;
    bool live[512] = {false};
    uint32_t n = 0;
    CHECK_OK(rv_timers_init(&t, 512));
    for (; n < 63; n++) {
        live[n] = true;
        CHECK(rv_timers_push(&t, entry(n, n)));
        CHECK(!rv_timers_want_sweep(&t));
    }
    for (; n < 100; n++) {
        live[n] = true;
        CHECK(rv_timers_push(&t, entry(n, n)));
        CHECK(rv_timers_want_sweep(&t));
    }
    rv_timers_sweep(&t, is_live, live);
    for (; n < 200; n++) {
        CHECK(!rv_timers_want_sweep(&t));
        CHECK(rv_timers_push(&t, entry(n, n)));
    }
    CHECK(rv_timers_want_sweep(&t));
    rv_timers_sweep(&t, is_live, live);
    CHECK_EQ(t.n, 100);
    memset(live, 0, sizeof live);
    rv_timers_sweep(&t, is_live, live);
    CHECK_EQ(t.n, 0);
    rv_timers_finish(&t);
}

/* Waits that end early leave stale entries; sweeping when wanted bounds the heap by what lives. */
TEST(a_heap_of_a_hundred_waits_stays_small_through_a_million)
{
    struct rv_timers t;
    static bool live[1 << 20];
    uint32_t most = 0, sweeps = 0;
    CHECK_OK(rv_timers_init(&t, 1 << 16));
    for (uint32_t i = 0; i < 1 << 20; i++) {
        live[i] = true;
        if (i >= 100)
            live[i - 100] = false;
        if (rv_timers_want_sweep(&t)) {
            rv_timers_sweep(&t, is_live, live);
            sweeps++;
        }
        CHECK(rv_timers_push(&t, entry((int64_t)i + 1000000, i)));
        most = t.n > most ? t.n : most;
    }
    CHECK_LE(most, 201);
    CHECK_LE(sweeps, (1 << 20) / 90);
    rv_timers_finish(&t);
}

TEST(children_share_a_cache_line)
{
    struct rv_timers t;
    CHECK_OK(rv_timers_init(&t, 100));
    for (uint32_t i = 0; i < 20; i++)
        CHECK_EQ((uintptr_t)&t.heap[4 * i + 1] % 64, 0);
    rv_timers_finish(&t);
}

TEST(init_without_memory_is_an_error)
{
    if (!rv_fault_available())
        SKIP("built without fault points");
    struct rv_timers t = {0};
    rv_fault_fail_nth(1);
    CHECK_EQ(rv_timers_init(&t, 8), -ENOMEM);
    rv_fault_off();
    rv_timers_finish(&t);
}
