/* SPDX-License-Identifier: MIT */
/*
 * heap_test.c -- sched/heap.c: earliest deadline first, beside those who have none, and on more
 * than one worker.
 */
#define CHECK_MAIN
#include "sched/pick.h"
#include "tests/sched/host.h"

enum { CROWD = 200 };

static int order[4096];
static unsigned ran;

static int notes(void *arg)
{
    CHECK_LT(ran, 4096);
    order[ran++] = (int)(intptr_t)arg;
    return 0;
}

static int spawns_dated(void *arg)
{
    for (int i = 0; i < CROWD; i++) {
        int at = i * 77 % CROWD;
        CHECK_OK(reeve_go(notes, (void *)(intptr_t)at, .deadline = reeve_in((at + 1) * REEVE_MS),
                          .priority = (int)(intptr_t)arg));
    }
    return 0;
}

TEST(in_a_class_the_earliest_deadline_goes_first)
{
    for (intptr_t class = REEVE_LOW; class <= REEVE_URGENT; class++) {
        ran = 0;
        CHECK_EQ(host_run_virtual(1, spawns_dated, (void *)class), 0);
        CHECK_EQ(ran, CROWD);
        for (int i = 0; i < CROWD; i++)
            CHECK_EQ(order[i], i);
    }
}

static int spawns_dated_by_class(void *arg)
{
    (void)arg;
    CHECK_OK(reeve_go(notes, (void *)2, .deadline = reeve_in(1), .priority = REEVE_NORMAL));
    CHECK_OK(reeve_go(notes, (void *)1, .deadline = reeve_in(REEVE_SEC), .priority = REEVE_HIGH));
    return 0;
}

TEST(a_better_class_goes_before_an_earlier_deadline)
{
    ran = 0;
    CHECK_EQ(host_run_virtual(1, spawns_dated_by_class, NULL), 0);
    CHECK_EQ(order[0], 1);
    CHECK_EQ(order[1], 2);
}

/* An inherited deadline bounds a task but is not its place in the queue. */
static int spawns_heirs(void *arg)
{
    (void)arg;
    for (intptr_t i = 0; i < 3; i++)
        CHECK_OK(reeve_go(notes, (void *)i));
    return 0;
}

static int spawns_a_dated_parent(void *arg)
{
    reeve_task *t;
    CHECK_OK(reeve_spawn(&t, spawns_heirs, arg, .deadline = reeve_in(REEVE_SEC)));
    return reeve_join(t, NULL, 0);
}

TEST(an_inherited_deadline_is_no_place_in_the_queue)
{
    ran = 0;
    CHECK_EQ(host_run_virtual(1, spawns_a_dated_parent, NULL), 0);
    CHECK_EQ(ran, 3);
    CHECK_EQ(order[0], 2); /* newest first, as any */
}

/* ---- expiry ---- */

static int spawns_what_comes_too_late(void *arg)
{
    reeve_task *t;
    int result = 77;
    (void)arg;
    CHECK_OK(reeve_spawn(&t, notes, NULL, .deadline = reeve_in(REEVE_MS)));
    CHECK_OK(reeve_go(notes, NULL, .deadline = reeve_in(REEVE_MS), .priority = REEVE_HIGH));
    CHECK_OK(reeve_spawn(NULL, notes, (void *)9, .deadline = reeve_in(REEVE_SEC)));
    host_compute(2 * REEVE_MS);
    CHECK_OK(reeve_sleep(0));
    CHECK_OK(reeve_join(t, &result, 0));
    CHECK_EQ(result, -ETIMEDOUT);
    return 0;
}

static int is_late(void *arg)
{
    (void)arg;
    host_compute(2 * REEVE_MS);
    return 0;
}

static int has_a_late_one(void *arg)
{
    reeve_task *t;
    CHECK_OK(spawns_what_comes_too_late(arg));
    CHECK_OK(reeve_spawn(&t, is_late, NULL, .deadline = reeve_in(REEVE_MS)));
    return reeve_join(t, NULL, 0);
}

TEST(what_expires_in_the_queue_never_runs_and_both_kinds_of_late_are_counted)
{
    struct host *h = host_create_with(&(struct host_opts){ .virtual = true });
    ran = 0;
    CHECK_EQ(host_run_on(h, has_a_late_one, NULL), 0);
    CHECK_EQ(ran, 1);
    CHECK_EQ(order[0], 9);
    struct rv_counters *n = &h->s.workers[0]->n;
    CHECK_EQ(rv_load_relaxed(&n->expired[RV_NORMAL]), 1);
    CHECK_EQ(rv_load_relaxed(&n->expired[RV_HIGH]), 1);
    CHECK_EQ(rv_load_relaxed(&n->late[RV_NORMAL]), 1);
    host_destroy(h);
}

/* ---- beside those without a deadline ---- */

static unsigned undated_turns;
static bool over;

static int keeps_taking_turns(void *arg)
{
    (void)arg;
    while (!over) {
        undated_turns++;
        CHECK_OK(reeve_sleep(0));
    }
    return 0;
}

/* One dated task after the other, each due at once. */
static int relays(void *arg)
{
    uintptr_t left = (uintptr_t)arg;
    if (left == 0)
        over = true;
    else
        CHECK_OK(reeve_go(relays, (void *)(left - 1), .deadline = reeve_in(REEVE_SEC)));
    return 0;
}

static int relays_beside_others(void *arg)
{
    CHECK_OK(reeve_go(keeps_taking_turns, NULL));
    CHECK_OK(reeve_go(relays, arg, .deadline = reeve_in(50 * REEVE_MS)));
    return 0;
}

static int group_relays(void *arg)
{
    reeve_group g = { 0 };
    CHECK_OK(reeve_go(relays_beside_others, arg, .group = &g));
    return reeve_group_wait(&g, 0);
}

TEST(deadlines_do_not_starve_those_without_nor_the_other_way_round)
{
    undated_turns = 0, over = false;
    CHECK_EQ(host_run_virtual(1, group_relays, (void *)1000), 0);
    CHECK_GE(undated_turns, 1000 / 16);
}

static int yields_until_the_other_ran(void *arg)
{
    (void)arg;
    while (ran == 0)
        CHECK_OK(reeve_sleep(0));
    return 0;
}

static int spawns_two_that_depend(void *arg)
{
    (void)arg;
    CHECK_OK(reeve_go(yields_until_the_other_ran, NULL, .deadline = reeve_in(REEVE_MS)));
    CHECK_OK(reeve_go(notes, NULL, .deadline = reeve_in(REEVE_SEC)));
    return 0;
}

TEST(one_that_yields_is_not_in_the_way_of_a_later_deadline)
{
    ran = 0;
    CHECK_EQ(host_run_virtual(1, spawns_two_that_depend, NULL), 0);
    CHECK_EQ(ran, 1);
}

/* ---- joins ---- */

static int joins_dated_children(void *arg)
{
    for (uintptr_t i = 0; i < (uintptr_t)arg; i++) {
        reeve_task *t;
        CHECK_OK(reeve_spawn(&t, host_nothing, NULL, .deadline = reeve_in(3600 * REEVE_SEC)));
        CHECK_OK(reeve_join(t, NULL, reeve_in(7200 * REEVE_SEC)));
    }
    CHECK_LE(rv_worker_self()->lane[RV_NORMAL].heap.n, 130);
    return 0;
}

TEST(spawning_and_joining_with_deadlines_leaves_no_stale_entries)
{
    CHECK_EQ(host_run_virtual(1, joins_dated_children, (void *)20000), 0);
}

/* ---- several workers ---- */

static RV_ATOMIC(uint32_t) by_worker[4];

static int counts_its_worker(void *arg)
{
    (void)arg;
    rv_add_relaxed(&by_worker[rv_worker_self()->index], 1u);
    return 0;
}

/* The spawner computes on: its private heap must be shared by asking. */
static int fills_a_heap(void *arg)
{
    (void)arg;
    for (int i = 0; i < CROWD; i++)
        CHECK_OK(reeve_go(counts_its_worker, NULL, .deadline = reeve_in(3600 * REEVE_SEC)));
    for (int i = 0; i < 100000; i++) {
        uint32_t elsewhere = 0;
        for (uint32_t k = 0; k < 4; k++)
            if (k != rv_worker_self()->index)
                elsewhere += rv_load_relaxed(&by_worker[k]);
        if (elsewhere)
            return 0;
        CHECK_OK(reeve_sleep(reeve_in(10 * REEVE_US)));
    }
    return -ETIME;
}

TEST(idle_workers_ask_for_a_share_of_a_private_heap)
{
    for (uint32_t k = 0; k < 4; k++)
        rv_store_relaxed(&by_worker[k], 0u);
    struct host *h = host_create_with(&(struct host_opts){ .workers = 2, .virtual = true });
    CHECK_OK(host_run_on(h, fills_a_heap, NULL));
    uint64_t asked = rv_load_relaxed(&h->s.workers[0]->n.asked) +
                     rv_load_relaxed(&h->s.workers[1]->n.asked);
    CHECK_GT(asked, 0);
    host_destroy(h);
}

static int spawns_pinned_and_dated(void *arg)
{
    (void)arg;
    for (int i = 0; i < CROWD; i++)
        CHECK_OK(reeve_go(counts_its_worker, NULL, .deadline = reeve_in(3600 * REEVE_SEC),
                          .worker = 1 + i % 2));
    return 0;
}

TEST(a_pinned_task_with_a_deadline_is_never_handed_over)
{
    for (int virtual = 0; virtual < 2; virtual ++) {
        for (uint32_t k = 0; k < 4; k++)
            rv_store_relaxed(&by_worker[k], 0u);
        CHECK_EQ(host_run_with(&(struct host_opts){ .workers = 4, .virtual = virtual },
                               spawns_pinned_and_dated, NULL),
                 0);
        CHECK_EQ(rv_load_relaxed(&by_worker[0]), CROWD / 2);
        CHECK_EQ(rv_load_relaxed(&by_worker[1]), CROWD / 2);
    }
}
