/* SPDX-License-Identifier: MIT */
/*
 * ready_test.c -- sched/ready.c: classes. Who goes first, who is not starved, and what a better
 * class does to workers that sleep or run.
 */
#define CHECK_MAIN
#include "sched/pick.h"
#include "tests/sched/host.h"

static struct {
    char text[8192];
    unsigned n;
} ran;

static int notes(void *arg)
{
    CHECK_LT(ran.n, sizeof ran.text - 1);
    ran.text[ran.n++] = *(const char *)arg;
    ran.text[ran.n] = '\0';
    return 0;
}

static const char letters[] = "?lnhu";

/* Two of each class, the worst first; then all are ready at a time. */
static int spawns_all_classes(void *arg)
{
    (void)arg;
    for (int c = REEVE_LOW; c <= REEVE_URGENT; c++)
        for (int i = 0; i < 2; i++)
            CHECK_OK(reeve_go(notes, (void *)(uintptr_t)&letters[c], .priority = c));
    return 0;
}

TEST(a_better_class_goes_first)
{
    ran.n = 0;
    CHECK_EQ(host_run_virtual(1, spawns_all_classes, NULL), 0);
    CHECK_STR_EQ(ran.text, "uuhhnnll");
}

/* ---- nobody is starved ---- */

static bool over;
static unsigned turns[5];

static int takes_turns(void *arg)
{
    int class = (int)(intptr_t)arg;
    while (!over) {
        turns[class]++;
        CHECK_OK(reeve_sleep(0));
    }
    return 0;
}

static int counts_turns(void *arg)
{
    unsigned classes = (unsigned)(uintptr_t)arg;
    memset(turns, 0, sizeof turns);
    over = false;
    for (int c = REEVE_LOW; c <= REEVE_URGENT; c++)
        for (int i = 0; i < 3 && classes & 1u << c; i++)
            CHECK_OK(reeve_go(takes_turns, (void *)(intptr_t)c, .priority = c));
    while (turns[REEVE_URGENT]++ < 20000)
        CHECK_OK(reeve_sleep(0));
    over = true;
    return 0;
}

static int counts_turns_urgently(void *arg)
{
    reeve_task *t;
    CHECK_OK(reeve_spawn(&t, counts_turns, arg, .priority = REEVE_URGENT));
    return reeve_join(t, NULL, 0);
}

/* The root and its waits count as picks too, so a few are spared. */
TEST(each_class_gets_its_floor_under_a_saturated_better_one)
{
    CHECK_EQ(host_run_virtual(1, counts_turns_urgently, (void *)0x1e), 0);
    unsigned all = turns[1] + turns[2] + turns[3] + turns[4];
    CHECK_GE(turns[REEVE_HIGH] * 8 + 64, all);
    CHECK_GE(turns[REEVE_NORMAL] * 16 + 64, all);
    CHECK_GE(turns[REEVE_LOW] * 32 + 64, all);
    CHECK_LE(turns[REEVE_LOW] * 31, all); /* and no more than that */
}

TEST(the_lowest_class_gets_at_least_three_percent_beside_urgent_alone)
{
    CHECK_EQ(host_run_virtual(1, counts_turns_urgently, (void *)(1 << 1 | 1 << 4)), 0);
    CHECK_GE(turns[REEVE_LOW] * 100, 3 * (turns[REEVE_LOW] + turns[REEVE_URGENT]));
}

/* ---- every way into every queue ---- */

static RV_ATOMIC(unsigned) done;

static int works_a_little(void *arg)
{
    (void)arg;
    for (int i = 0; i < 3; i++)
        CHECK_OK(reeve_sleep(i % 2 ? reeve_in(REEVE_US) : 0));
    rv_add_acq_rel(&done, 1u);
    return 0;
}

static int spawns_in_all_ways(void *arg)
{
    unsigned n = (unsigned)(uintptr_t)arg;
    uint32_t workers = rv_worker_self()->sched->nworkers;
    for (unsigned i = 0; i < n; i++) {
        reeve_task *t;
        struct reeve_spawn how = { .fn = works_a_little,
                                   .priority = (int)(i % 5),
                                   .deadline = i % 3 == 0 ? reeve_in(3600 * REEVE_SEC) : 0,
                                   .worker = i % 7 == 0 ? 1 + (int)(i % workers) : 0 };
        CHECK_OK(reeve_spawn_with(i % 4 == 0 ? &t : NULL, &how));
        if (i % 8 == 0)
            CHECK_OK(reeve_join(t, NULL, 0));
        if (i % 64 == 0)
            CHECK_OK(reeve_sleep(0));
    }
    return 0;
}

TEST(each_of_many_runs_once_whatever_its_class_deadline_and_worker)
{
    for (uint32_t workers = 1; workers <= 4; workers++) {
        for (int virtual = 0; virtual < 2; virtual ++) {
            unsigned n = virtual ? 3000 : host_times(20000);
            rv_store_relaxed(&done, 0u);
            struct host_opts o = { .workers = workers, .tasks_max = n + 10, .virtual = virtual };
            CHECK_EQ(host_run_with(&o, spawns_in_all_ways, (void *)(uintptr_t)n), 0);
            CHECK_EQ(rv_load_relaxed(&done), n);
        }
    }
}

/* A tree of joins in another class needs no more memory than in NORMAL. */
static int tree(void *arg)
{
    uintptr_t depth = (uintptr_t)arg;
    reeve_task *t[4];
    for (int i = 0; i < 4 && depth; i++)
        CHECK_OK(reeve_spawn(&t[i], tree, (void *)(depth - 1)));
    for (int i = 0; i < 4 && depth; i++)
        CHECK_OK(reeve_join(t[i], NULL, 0));
    return 0;
}

static int grows_a_tree_in_its_class(void *arg)
{
    reeve_task *t;
    CHECK_OK(reeve_spawn(&t, tree, (void *)8, .priority = (int)(intptr_t)arg));
    return reeve_join(t, NULL, 0);
}

TEST(a_tree_of_joins_fits_into_few_tasks_in_any_class)
{
    host_needs_order();
    for (intptr_t c = REEVE_LOW; c <= REEVE_URGENT; c++) {
        CHECK_EQ(host_run_with(&(struct host_opts){ .tasks_max = 3000, .virtual = true },
                               grows_a_tree_in_its_class, (void *)c),
                 0);
        CHECK_EQ(host_run_with(&(struct host_opts){ .workers = 3, .tasks_max = 40000 },
                               grows_a_tree_in_its_class, (void *)c),
                 0);
    }
}

/* ---- a better class does not wait for a worker that computes ---- */

static RV_ATOMIC(bool) urgent_ran;

static int says_it_ran(void *arg)
{
    (void)arg;
    rv_store_release(&urgent_ran, true);
    return 0;
}

/* It never yields: only another worker can run what it spawned. */
static int computes_until_the_urgent_ran(void *arg)
{
    (void)arg;
    CHECK_OK(reeve_go(says_it_ran, NULL, .priority = REEVE_URGENT));
    while (!rv_load_acquire(&urgent_ran))
        rv_cpu_relax();
    return 0;
}

TEST(a_sleeping_worker_takes_over_a_better_class_from_one_that_computes)
{
    for (int i = 0; i < 20; i++) {
        rv_store_relaxed(&urgent_ran, false);
        CHECK_EQ(host_run(2, 100, computes_until_the_urgent_ran, NULL), 0);
    }
}

static int is_asked_to_yield(void *arg)
{
    (void)arg;
    CHECK(!reeve_need_resched());
    CHECK_OK(reeve_go(host_nothing, NULL));
    CHECK(!reeve_need_resched()); /* its own class can wait */
    CHECK_OK(reeve_go(host_nothing, NULL, .priority = REEVE_HIGH));
    CHECK(reeve_need_resched());
    CHECK_OK(reeve_sleep(0));
    CHECK(!reeve_need_resched());
    return 0;
}

TEST(who_computes_is_told_when_a_better_class_waits)
{
    CHECK_EQ(host_run_virtual(1, is_asked_to_yield, NULL), 0);
}
