/* SPDX-License-Identifier: MIT */
/*
 * steal_test.c -- sched/steal.c: what a thief takes, from whom, and that nothing is run twice.
 */
#define CHECK_MAIN
#include "tests/sched/host.h"

/* ---- one theft ---- */

static int nothing_yet(void *arg)
{
    (void)arg;
    return 0;
}

/* A scheduler that nobody drives yet. */
static struct host *begin(uint32_t workers)
{
    struct host *h = host_create_with(&(struct host_opts){ .workers = workers, .virtual = true });
    h->s.us_tsc = rv_tsc_per_us(); /* slots have an age */
    return h;
}

static void end(struct host *h)
{
    rv_local_set(NULL);
    CHECK_EQ(host_run_on(h, host_nothing, NULL), 0);
    host_destroy(h);
}

static struct rv_task *make(struct host *h, struct rv_worker *w, int pin)
{
    struct rv_task *t;
    CHECK_OK(rv_task_make(&h->s, w, h->s.work,
                          &(struct reeve_spawn){ .fn = nothing_yet, .worker = pin }, false, &t));
    rv_add_relaxed(&h->s.posted, (uint64_t)1);
    return t;
}

static uint64_t entry_of(struct host *h, struct rv_task *t)
{
    return rv_entry(rv_task_gen(t), rv_task_index(&h->s, t), true);
}

/* Fresh tasks in a worker's ring, oldest first. */
static void fill_ring(struct host *h, struct rv_worker *w, struct rv_task *t[], int n)
{
    rv_local_set(&w->local);
    for (int i = 0; i < n; i++) {
        t[i] = make(h, w, 0);
        CHECK(rv_runq_push(&w->lane[RV_NORMAL].ring, entry_of(h, t[i])));
    }
}

static void fill_deque(struct host *h, struct rv_worker *w, struct rv_task *t[], int n)
{
    rv_local_set(&w->local);
    for (int i = 0; i < n; i++)
        rv_fresh(&h->s, w, t[i] = make(h, w, 0));
}

TEST(with_nothing_to_steal_each_victim_is_tried_once)
{
    struct host *h = begin(4);
    struct rv_worker *thief = h->s.workers[2];
    CHECK(!rv_steal(thief, false));
    CHECK(!rv_steal(thief, true));
    CHECK_EQ(rv_load_relaxed(&thief->n.steals_tried), 6);
    CHECK_EQ(rv_load_relaxed(&thief->n.steals_got), 0);
    CHECK_EQ(rv_load_relaxed(&thief->slot), 0);
    end(h);
}

TEST(from_a_ring_half_is_taken_and_the_oldest_runs_first)
{
    for (int n = 1; n <= 11; n++) {
        struct host *h = begin(2);
        struct rv_worker *victim = h->s.workers[0], *thief = h->s.workers[1];
        struct rv_task *t[11];
        fill_ring(h, victim, t, n);
        CHECK(rv_steal(thief, false));
        CHECK_EQ(rv_load_relaxed(&thief->slot), entry_of(h, t[0]));
        CHECK_EQ(rv_runq_len(&thief->lane[RV_NORMAL].ring), (n + 1) / 2 - 1);
        CHECK_EQ(rv_runq_len(&victim->lane[RV_NORMAL].ring), n / 2);
        for (int i = 1; i < (n + 1) / 2; i++)
            CHECK_EQ(rv_load_relaxed(&thief->lane[RV_NORMAL].ring.slots[i - 1]), entry_of(h, t[i]));
        CHECK_EQ(rv_load_relaxed(&thief->n.steals_got), 1);
        end(h);
    }
}

TEST(from_a_deque_the_oldest_is_taken)
{
    struct host *h = begin(2);
    struct rv_worker *victim = h->s.workers[0], *thief = h->s.workers[1];
    struct rv_task *t[5];
    fill_deque(h, victim, t, 5);
    CHECK(rv_steal(thief, false));
    CHECK_EQ(rv_load_relaxed(&thief->slot), entry_of(h, t[0]));
    CHECK_EQ(rv_deque_len(&victim->lane[RV_NORMAL].deque), 4);
    CHECK_EQ(rv_deque_peek(&victim->lane[RV_NORMAL].deque), entry_of(h, t[4]));
    end(h);
}

TEST(a_slot_is_taken_in_the_last_pass_and_when_it_has_aged)
{
    host_needs_order();
    struct host *h = begin(2);
    struct rv_worker *victim = h->s.workers[0], *thief = h->s.workers[1];
    uint64_t entry = entry_of(h, make(h, NULL, 0));
    rv_store_relaxed(&victim->slot, entry);
    rv_store_relaxed(&victim->slot_tsc, 0);
    CHECK(!rv_steal(thief, false)); /* however old */
    h->s.us_tsc = UINT64_MAX / 100; /* a microsecond that takes centuries */
    rv_store_relaxed(&victim->slot_tsc, rv_tsc());
    CHECK(!rv_steal(thief, true));
    h->s.us_tsc = rv_tsc_per_us();
    rv_store_relaxed(&victim->slot_tsc, rv_tsc() - 51 * h->s.us_tsc);
    CHECK(rv_steal(thief, true));
    CHECK_EQ(rv_load_relaxed(&thief->slot), entry);
    CHECK_EQ(rv_load_relaxed(&victim->slot), 0);
    end(h);
}

TEST(a_pinned_task_is_never_stolen)
{
    struct host *h = begin(2);
    struct rv_worker *victim = h->s.workers[0], *thief = h->s.workers[1];
    rv_local_set(&victim->local);
    for (int i = 0; i < 5; i++)
        rv_fresh(&h->s, victim, make(h, victim, 1));
    CHECK_EQ(rv_queued(victim), 5);
    CHECK(!rv_steal(thief, false));
    CHECK(!rv_steal(thief, true));
    CHECK_EQ(rv_queued(victim), 5);
    end(h);
}

TEST(whoever_has_work_is_found)
{
    for (uint32_t has = 0; has < 7; has++) {
        struct host *h = begin(8);
        struct rv_task *t[1];
        fill_deque(h, h->s.workers[has], t, 1);
        CHECK(rv_steal(h->s.workers[7], false));
        CHECK_EQ(rv_load_relaxed(&h->s.workers[7]->slot), entry_of(h, t[0]));
        end(h);
    }
}

TEST(thieves_do_not_all_begin_with_the_same_victim)
{
    unsigned first[8] = { 0 };
    for (int round = 0; round < 200; round++) {
        static uint32_t rng = 1;
        struct host *h = begin(8);
        struct rv_worker *thief = h->s.workers[7];
        struct rv_task *t[1];
        for (uint32_t i = 0; i < 7; i++)
            fill_deque(h, h->s.workers[i], t, 1);
        thief->rng = rng;
        CHECK(rv_steal(thief, false));
        rng = thief->rng;
        for (uint32_t i = 0; i < 7; i++)
            first[i] += rv_deque_len(&h->s.workers[i]->lane[RV_NORMAL].deque) == 0;
        end(h);
    }
    for (int i = 0; i < 7; i++)
        CHECK_GT(first[i], 5);
}

/* ---- many ---- */

enum { NODES = 40000 };

static RV_ATOMIC(uint8_t) visits[NODES];
static RV_ATOMIC(unsigned) ran_on[8];

/* Node i has the children 3i + 1 .. 3i + 3. */
static int visit(void *arg)
{
    uintptr_t i = (uintptr_t)arg, limit = host_times(NODES);
    CHECK_EQ(rv_add_relaxed(&visits[i], 1), 0);
    rv_add_relaxed(&ran_on[rv_worker_self()->index], 1u);
    for (uintptr_t kid = 3 * i + 1; kid <= 3 * i + 3 && kid < limit; kid++)
        CHECK_OK(reeve_go(visit, (void *)kid));
    if (i % 7 == 0)
        CHECK_OK(reeve_sleep(0)); /* through the ring, too */
    return 0;
}

static void check_visits(struct host *h)
{
    CHECK_EQ(host_run_on(h, visit, NULL), 0);
    for (unsigned i = 0; i < host_times(NODES); i++)
        CHECK_EQ(rv_load_relaxed(&visits[i]), 1);
    CHECK_GE(host_counts(h).steals_tried, host_counts(h).steals_got);
}

TEST(a_tree_of_tasks_is_spread_and_each_runs_once)
{
    struct host *h = host_create_with(
        &(struct host_opts){ .workers = 4, .tasks_max = NODES + 10, .virtual = true });
    check_visits(h);
    CHECK_GT(host_counts(h).steals_got, 3);
    for (int i = 0; i < 4; i++)
        CHECK_GT(rv_load_relaxed(&ran_on[i]), host_times(NODES) / 20);
    host_destroy(h);
}

TEST(a_tree_of_tasks_on_real_threads_runs_each_once)
{
    struct host *h = host_create(4, NODES + 10);
    check_visits(h);
    host_destroy(h);
}

/* A worker that computes cannot run what it has spawned: only thieves can, and they must. */
static int adds_one(void *arg)
{
    rv_add_acq_rel((RV_ATOMIC(unsigned) *)arg, 1u);
    return 0;
}

static int leaves_all_to_thieves(void *arg)
{
    RV_ATOMIC(unsigned) *n = arg;
    for (unsigned round = 1; round <= host_times(1600); round++) {
        for (int i = 0; i < 20; i++)
            CHECK_OK(reeve_go(adds_one, arg));
        while (rv_load_acquire(n) < 20 * round)
            sched_yield();
        if (round % 64 == 0) /* long enough for the others to fall asleep for good */
            CHECK_OK(reeve_sleep(reeve_in(40 * REEVE_MS)));
    }
    return 0;
}

TEST(what_a_computing_task_has_spawned_is_run_by_thieves)
{
    RV_ATOMIC(unsigned) n = 0;
    struct host *h = host_create(4, 1000);
    CHECK_EQ(host_run_on(h, leaves_all_to_thieves, (void *)&n), 0);
    CHECK_GE(host_counts(h).steals_got, host_times(1600));
    host_destroy(h);
}
