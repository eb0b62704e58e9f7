/* SPDX-License-Identifier: MIT */
/*
 * deque_test.c -- sched/deque.h against a plain array, one thread, then against thieves.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <pthread.h>

#include "mem/fault.h"
#include "sched/deque.h"

enum { THIEVES = 3 };

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* ---- one thread, against a model ---- */

enum { MODEL_MAX = 8 };

/* What the deque should hold, oldest first. */
struct model {
    uint64_t e[MODEL_MAX];
    unsigned n, cap;
};

static uint64_t model_take(struct model *m, unsigned at)
{
    if (m->n == 0)
        return 0;
    uint64_t e = m->e[at];
    memmove(&m->e[at], &m->e[at + 1], (m->n - at - 1) * sizeof e);
    m->n--;
    return e;
}

static void step_both(struct rv_deque *d, struct model *m, unsigned op, uint64_t e)
{
    bool lost = true;
    switch (op) {
    default:
        CHECK_EQ(rv_deque_push(d, e), m->n < m->cap);
        if (m->n < m->cap)
            m->e[m->n++] = e;
        break;
    case 4:
    case 5:
        CHECK_EQ(rv_deque_pop(d), model_take(m, m->n - 1));
        break;
    case 6:
        CHECK_EQ(rv_deque_steal(d, &lost), model_take(m, 0));
        CHECK(!lost);
        break;
    case 7:
        CHECK_EQ(rv_deque_take_oldest(d), model_take(m, 0));
        break;
    }
    CHECK_EQ(rv_deque_len(d), m->n);
    CHECK_EQ(rv_deque_peek(d), m->n ? m->e[m->n - 1] : 0);
}

TEST(any_sequence_of_operations_matches_a_plain_array)
{
    for (unsigned cap = 1; cap <= MODEL_MAX; cap *= 2) {
        struct rv_deque d = {0};
        struct model m = {.cap = cap};
        uint64_t seed = 88172645463325252u + cap;
        CHECK_OK(rv_deque_init(&d, cap));
        for (uint64_t i = 1; i <= 200000; i++)
            step_both(&d, &m, (unsigned)(next_random(&seed) >> 20) % 8, i);
        rv_deque_finish(&d);
    }
}

TEST(indices_may_wrap_around_2_to_the_64)
{
    struct rv_deque d = {0};
    struct model m = {.cap = 4};
    uint64_t seed = 7;
    CHECK_OK(rv_deque_init(&d, 4));
    d.top_seen = UINT64_MAX - 50;
    rv_store_relaxed(&d.top, UINT64_MAX - 50);
    rv_store_relaxed(&d.bottom, UINT64_MAX - 50);
    for (uint64_t i = 1; i <= 2000; i++)
        step_both(&d, &m, (unsigned)(next_random(&seed) >> 20) % 8, i);
    CHECK(rv_load_relaxed(&d.top) < 4000);      /* it did wrap */
    rv_deque_finish(&d);
}

TEST(a_full_deque_refuses_until_an_entry_is_taken)
{
    struct rv_deque d = {0};
    bool lost;
    CHECK_OK(rv_deque_init(&d, 4));
    for (uint64_t e = 1; e <= 4; e++)
        CHECK(rv_deque_push(&d, e));
    CHECK(!rv_deque_push(&d, 5));
    CHECK_EQ(rv_deque_steal(&d, &lost), 1);
    CHECK(rv_deque_push(&d, 5));
    CHECK(!rv_deque_push(&d, 6));
    CHECK_EQ(rv_deque_pop(&d), 5);
    CHECK(rv_deque_push(&d, 6));
    CHECK_EQ(rv_deque_take_oldest(&d), 2);
    rv_deque_finish(&d);
}

TEST(a_huge_deque_costs_only_the_pages_it_uses)
{
    struct rv_deque d = {0};
    CHECK_OK(rv_deque_init(&d, UINT64_C(1) << 26));     /* 512 MiB of slots */
    for (uint64_t e = 1; e <= 1000; e++)
        CHECK(rv_deque_push(&d, e));
    for (uint64_t e = 1000; e >= 1; e--)
        CHECK_EQ(rv_deque_pop(&d), e);
    struct rusage use;
    CHECK_EQ(getrusage(RUSAGE_SELF, &use), 0);
    CHECK_LT(use.ru_maxrss, 256 * 1024);
    rv_deque_finish(&d);
    rv_deque_finish(&d);        /* again: nothing left to do */
}

TEST(init_without_memory_is_an_error)
{
    if (!rv_fault_available())
        SKIP("built without fault points");
    struct rv_deque d = {0};
    rv_fault_fail_nth(1);
    CHECK_EQ(rv_deque_init(&d, 8), -ENOMEM);
    rv_fault_off();
    rv_deque_finish(&d);
}

/* ---- an owner and thieves ---- */

struct arena {
    struct rv_deque d;
    RV_ATOMIC(uint8_t) *taken;          /* how often entry i was taken */
    uint64_t *payload;                  /* plain memory, written before the push of i */
    uint64_t entries;
    RV_ATOMIC(uint64_t) total;
    RV_ATOMIC(bool) over;               /* the owner will push no more, and saw it empty */
};

static void arena_init(struct arena *a, uint64_t cap, uint64_t entries)
{
    memset(a, 0, sizeof *a);
    CHECK_OK(rv_deque_init(&a->d, cap));
    a->entries = entries;
    a->taken = calloc(entries + 1, sizeof *a->taken);
    a->payload = calloc(entries + 1, sizeof *a->payload);
    CHECK(a->taken && a->payload);
}

static void arena_take(struct arena *a, uint64_t e)
{
    CHECK(e >= 1);
    CHECK(e <= a->entries);
    CHECK_EQ(a->payload[e], e * 3);
    CHECK_EQ(rv_add_relaxed(&a->taken[e], 1), 0);
    (void)rv_add_relaxed(&a->total, 1);
}

static void *thief(void *arg)
{
    struct arena *a = arg;
    bool lost = false;
    while (!rv_load_acquire(&a->over) || lost) {
        uint64_t e = rv_deque_steal(&a->d, &lost);
        if (e)
            arena_take(a, e);
        else
            rv_cpu_relax();
    }
    return NULL;
}

static void arena_push(struct arena *a, uint64_t e)
{
    a->payload[e] = e * 3;
    while (!rv_deque_push(&a->d, e)) {
        uint64_t oldest = rv_deque_take_oldest(&a->d);
        if (oldest)
            arena_take(a, oldest);
    }
}

/* Runs the owner beside thieves, drains the deque, and checks that nothing is missing. */
static void contest(struct arena *a, void (*owner)(struct arena *))
{
    pthread_t threads[THIEVES];
    for (int i = 0; i < THIEVES; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, thief, a), 0);
    owner(a);
    for (uint64_t e; (e = rv_deque_pop(&a->d));)
        arena_take(a, e);
    rv_store_release(&a->over, true);
    for (int i = 0; i < THIEVES; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    CHECK_EQ(rv_load_relaxed(&a->total), a->entries);
    rv_deque_finish(&a->d);
    free(a->taken);
    free(a->payload);
}

static void push_and_pop_at_random(struct arena *a)
{
    uint64_t seed = 2463534242u, next = 1;
    while (next <= a->entries) {
        uint64_t burst = next_random(&seed) % 8;
        for (uint64_t i = 0; i < burst && next <= a->entries; i++)
            arena_push(a, next++);
        burst = next_random(&seed) % 8;
        for (uint64_t i = 0; i < burst; i++) {
            uint64_t e = i == 3 ? rv_deque_take_oldest(&a->d) : rv_deque_pop(&a->d);
            if (e)
                arena_take(a, e);
        }
    }
}

TEST(each_entry_is_taken_once_by_the_owner_or_a_thief)
{
    for (uint64_t cap = 2; cap <= 128; cap *= 8) {
        struct arena a;
        arena_init(&a, cap, 300000);
        contest(&a, push_and_pop_at_random);
    }
}

static void push_one_pop_one(struct arena *a)
{
    for (uint64_t next = 1; next <= a->entries; next++) {
        arena_push(a, next);
        uint64_t hint = rv_deque_peek(&a->d);
        uint64_t e = rv_deque_pop(&a->d);
        CHECK(hint == 0 || hint == next);
        CHECK(e == 0 || e == next);
        CHECK_EQ(rv_deque_len(&a->d), 0);
        if (e)
            arena_take(a, e);
    }
}

TEST(the_last_entry_goes_to_the_owner_or_to_one_thief)
{
    for (uint64_t cap = 1; cap <= 2; cap++) {
        struct arena a;
        arena_init(&a, cap, 500000);
        contest(&a, push_one_pop_one);
    }
}

static void push_two_pop_two(struct arena *a)
{
    for (uint64_t next = 1; next + 1 <= a->entries; next += 2) {
        arena_push(a, next);
        arena_push(a, next + 1);
        for (int i = 0; i < 2; i++) {
            uint64_t e = rv_deque_pop(&a->d);
            if (e)
                arena_take(a, e);
        }
    }
}

/* With two entries the owner takes the newer one without a swap while thieves move to the same. */
TEST(the_newest_but_one_race_gives_no_entry_twice)
{
    struct arena a;
    arena_init(&a, 4, 1000000);
    contest(&a, push_two_pop_two);
}
