/* SPDX-License-Identifier: MIT */
/*
 * runq_test.c -- sched/runq.h against plain arrays, one thread, then with workers that steal from
 * each other.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <pthread.h>

#include "sched/runq.h"

enum { SLOTS = RV_RUNQ_SLOTS };

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* An empty ring that has seen `index` entries come and go. */
static void ring_init(struct rv_runq *q, uint64_t index)
{
    memset(q, 0, sizeof *q);
    q->head_seen = index;
    rv_store_relaxed(&q->head, index);
    rv_store_relaxed(&q->tail, index);
}

static void fill(struct rv_runq *q, uint64_t first, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        CHECK(rv_runq_push(q, first + i));
}

/* ---- one thread ---- */

TEST(entries_come_out_in_the_order_they_went_in)
{
    struct rv_runq q;
    ring_init(&q, 0);
    for (int round = 0; round < 10; round++) {
        fill(&q, 1, SLOTS - 1);
        for (uint64_t e = 1; e <= SLOTS - 1; e++)
            CHECK_EQ(e % 2 ? rv_runq_pop(&q) : rv_runq_pop_solo(&q), e);
        CHECK_EQ(rv_runq_pop(&q), 0);
        CHECK_EQ(rv_runq_pop_solo(&q), 0);
    }
}

TEST(a_full_ring_refuses_until_an_entry_is_taken)
{
    struct rv_runq q;
    ring_init(&q, 0);
    fill(&q, 1, SLOTS);
    CHECK(!rv_runq_push(&q, 1000));
    CHECK_EQ(rv_runq_len(&q), SLOTS);
    CHECK_EQ(rv_runq_room(&q), 0);
    CHECK_EQ(rv_runq_pop(&q), 1);
    CHECK(rv_runq_push(&q, 1000));
    CHECK(!rv_runq_push(&q, 1001));
    CHECK_EQ(rv_runq_pop_solo(&q), 2);
    CHECK(rv_runq_push(&q, 1001));
    CHECK(!rv_runq_push(&q, 1002));
}

TEST(a_thief_gets_the_older_half_rounded_up_in_order)
{
    for (unsigned n = 1; n <= SLOTS; n++) {
        struct rv_runq victim, mine;
        uint64_t first = 0;
        ring_init(&victim, n);
        ring_init(&mine, 3 * n);
        fill(&victim, 1, n);
        unsigned half = n - n / 2;
        CHECK_EQ(rv_runq_steal(&victim, &mine, &first), half);
        CHECK_EQ(first, 1);
        CHECK_EQ(rv_runq_len(&mine), half - 1);
        for (uint64_t e = 2; e <= half; e++)
            CHECK_EQ(rv_runq_pop(&mine), e);
        for (uint64_t e = half + 1; e <= n; e++)
            CHECK_EQ(rv_runq_pop(&victim), e);
        CHECK_EQ(rv_runq_len(&victim), 0);
    }
}

TEST(stealing_from_an_empty_ring_leaves_everything_alone)
{
    struct rv_runq victim, mine;
    uint64_t first = 42;
    ring_init(&victim, 5);
    ring_init(&mine, 0);
    fill(&mine, 1, 2);
    CHECK_EQ(rv_runq_steal(&victim, &mine, &first), 0);
    CHECK_EQ(first, 42);
    CHECK_EQ(rv_runq_len(&mine), 2);
}

TEST(a_thief_takes_no_more_than_fits)
{
    for (unsigned room = 0; room < 4 && room < SLOTS / 2; room++) {
        struct rv_runq victim, mine;
        uint64_t first = 0;
        ring_init(&victim, 0);
        ring_init(&mine, 0);
        fill(&victim, 1000, SLOTS);
        fill(&mine, 1, SLOTS - room);
        unsigned fits = room + 1 < SLOTS / 2 ? room + 1 : SLOTS / 2;
        CHECK_EQ(rv_runq_steal(&victim, &mine, &first), fits);
        CHECK_EQ(first, 1000);
        CHECK_EQ(rv_runq_len(&victim), SLOTS - fits);
        for (uint64_t e = 1; e <= SLOTS - room; e++)
            CHECK_EQ(rv_runq_pop(&mine), e);
        for (uint64_t e = 1001; e < 1000 + fits; e++)
            CHECK_EQ(rv_runq_pop(&mine), e);
        CHECK_EQ(rv_runq_pop(&victim), 1000 + fits);
    }
}

/* What a ring should hold, oldest first. */
struct model {
    uint64_t e[SLOTS];
    unsigned n;
};

static uint64_t model_pop(struct model *m)
{
    if (m->n == 0)
        return 0;
    uint64_t e = m->e[0];
    memmove(&m->e[0], &m->e[1], --m->n * sizeof e);
    return e;
}

static void steal_both(struct rv_runq q[2], struct model m[2], unsigned victim)
{
    unsigned mine = !victim;
    unsigned n = m[victim].n - m[victim].n / 2;
    uint64_t first = 0;
    if (n > SLOTS - m[mine].n + 1)
        n = SLOTS - m[mine].n + 1;
    CHECK_EQ(rv_runq_steal(&q[victim], &q[mine], &first), n);
    if (n == 0)
        return;
    CHECK_EQ(first, model_pop(&m[victim]));
    for (unsigned i = 1; i < n; i++)
        m[mine].e[m[mine].n++] = model_pop(&m[victim]);
}

/* Two rings, each stealing from the other; bursts, so that they run full and empty. */
static void compare_with_models(uint64_t index, unsigned steps)
{
    struct rv_runq q[2];
    struct model m[2] = {{.n = 0}, {.n = 0}};
    uint64_t seed = 88172645463325252u, e = 1;
    ring_init(&q[0], index);
    ring_init(&q[1], index);
    for (unsigned i = 0; i < steps; i++) {
        uint64_t r = next_random(&seed) >> 16;
        unsigned at = r & 1, burst = (unsigned)(r >> 8) % (SLOTS / 2 + 1);
        unsigned op = (unsigned)(r >> 1) % 8;
        for (; op < 4 && burst > 0; burst--, e++) {
            CHECK_EQ(rv_runq_push(&q[at], e), m[at].n < SLOTS);
            if (m[at].n < SLOTS)
                m[at].e[m[at].n++] = e;
        }
        for (; op >= 4 && op < 7 && burst > 0; burst--)
            CHECK_EQ(burst % 3 ? rv_runq_pop(&q[at]) : rv_runq_pop_solo(&q[at]), model_pop(&m[at]));
        if (op == 7)
            steal_both(q, m, at);
        CHECK_EQ(rv_runq_len(&q[at]), m[at].n);
    }
    CHECK(rv_load_relaxed(&q[0].head) - index > SLOTS);
}

TEST(any_sequence_of_operations_matches_plain_arrays)
{
    compare_with_models(0, 100000);
}

TEST(indices_pass_2_to_the_32_and_wrap_at_2_to_the_64)
{
    compare_with_models(UINT32_MAX - 3 * SLOTS, 5000);
    compare_with_models(UINT64_MAX - 3 * SLOTS, 5000);
}

/* ---- workers that steal from each other ---- */

enum { WORKERS = 3, ENTRIES = 300000 };

static struct rv_runq rings[WORKERS];
static uint64_t payload[ENTRIES + 1];           /* plain memory, written before the push */
static RV_ATOMIC(uint8_t) taken[ENTRIES + 1];
static RV_ATOMIC(uint64_t) total;

static void take(uint64_t e)
{
    CHECK(e >= 1);
    CHECK(e <= ENTRIES);
    CHECK_EQ(payload[e], e * 3);
    CHECK_EQ(rv_add_relaxed(&taken[e], 1), 0);
    (void)rv_add_relaxed(&total, 1);
}

static void rings_init(void)
{
    for (int i = 0; i < WORKERS; i++)
        ring_init(&rings[i], UINT32_MAX - 1000);
}

/* Pushes its share of the entries, taking some itself; then helps until all are gone. */
static void *worker(void *arg)
{
    uint64_t id = (uintptr_t)arg, seed = 1234567 + id, e = id + 1;
    struct rv_runq *mine = &rings[id];
    while (rv_load_relaxed(&total) < ENTRIES) {
        uint64_t burst = next_random(&seed) % (SLOTS + 2), first;
        for (; burst > 0 && e <= ENTRIES; burst--, e += WORKERS) {
            payload[e] = e * 3;
            if (!rv_runq_push(mine, e))
                take(e);
        }
        burst = next_random(&seed) % (SLOTS / 2);
        for (uint64_t got; burst > 0 && (got = rv_runq_pop(mine)); burst--)
            take(got);
        struct rv_runq *victim = &rings[(id + 1 + next_random(&seed) % (WORKERS - 1)) % WORKERS];
        if (rv_runq_steal(victim, mine, &first))
            take(first);
    }
    return NULL;
}

TEST(each_entry_is_taken_once_while_all_steal_from_all)
{
    pthread_t threads[WORKERS];
    rings_init();
    for (uintptr_t i = 0; i < WORKERS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, worker, (void *)i), 0);
    for (int i = 0; i < WORKERS; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    CHECK_EQ(rv_load_relaxed(&total), ENTRIES);
    for (int i = 0; i < WORKERS; i++)
        CHECK_EQ(rv_runq_len(&rings[i]), 0);
}

/* Steals from ring 0 only; everything it ever gets must come in ascending order. */
static void *orderly_thief(void *arg)
{
    struct rv_runq *mine = &rings[(uintptr_t)arg];
    uint64_t last = 0, e;
    while (rv_load_relaxed(&total) < ENTRIES) {
        uint32_t n = rv_runq_steal(&rings[0], mine, &e);
        CHECK(n <= SLOTS / 2);
        for (uint32_t i = 0; i < n; i++) {
            if (i > 0)
                e = rv_runq_pop(mine);
            CHECK(e > last);
            last = e;
            take(e);
        }
    }
    CHECK_EQ(rv_runq_len(mine), 0);
    return NULL;
}

TEST(whoever_takes_from_one_ring_sees_its_order)
{
    pthread_t threads[WORKERS];
    uint64_t seed = 99, e = 1, last = 0, got;
    rings_init();
    for (uintptr_t i = 1; i < WORKERS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, orderly_thief, (void *)i), 0);
    while (rv_load_relaxed(&total) < ENTRIES) {
        uint64_t burst = next_random(&seed) % SLOTS;
        for (; burst > 0 && e <= ENTRIES; burst--, e++) {
            payload[e] = e * 3;
            if (!rv_runq_push(&rings[0], e))
                break;
        }
        burst = next_random(&seed) % (SLOTS / 2);
        for (; burst > 0 && (got = rv_runq_pop(&rings[0])); burst--) {
            CHECK(got > last);
            last = got;
            take(got);
        }
    }
    for (int i = 1; i < WORKERS; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
}

/* ---- memory that comes with an entry ---- */

static RV_ATOMIC(uint32_t) stage;       /* relaxed: only the rings order memory here */

static void await(uint32_t n)
{
    while (rv_load_relaxed(&stage) != n)
        rv_cpu_relax();
}

static void *first_thief(void *arg)
{
    uint64_t first = 0;
    (void)arg;
    await(1);
    CHECK_EQ(rv_runq_steal(&rings[0], &rings[1], &first), 2);
    CHECK_EQ(first, 1);
    rv_store_relaxed(&stage, 2);
    return NULL;
}

static void *second_thief(void *arg)
{
    uint64_t first = 0;
    (void)arg;
    await(2);
    CHECK_EQ(rv_runq_steal(&rings[1], &rings[2], &first), 1);
    CHECK_EQ(payload[first], 222);
    return NULL;
}

TEST(an_entry_stolen_twice_brings_its_memory_along)
{
    pthread_t threads[2];
    rings_init();
    CHECK_EQ(pthread_create(&threads[0], NULL, first_thief, NULL), 0);
    CHECK_EQ(pthread_create(&threads[1], NULL, second_thief, NULL), 0);
    payload[2] = 222;
    fill(&rings[0], 1, 3);
    rv_store_relaxed(&stage, 1);
    for (int i = 0; i < 2; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
}
