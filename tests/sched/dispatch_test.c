/* SPDX-License-Identifier: MIT */
/*
 * dispatch_test.c -- sched/dispatch.c: who runs on which stack, and how few there are.
 */
#define CHECK_MAIN
#include "tests/sched/host.h"

#include <alloca.h>

static uint64_t stacks_created(void)
{
    struct rv_stack_stats st;
    rv_stack_pool_stats(&rv_worker_self()->sched->stacks, &st);
    return st.created;
}

static int count_up(void *arg)
{
    ++*(unsigned *)arg;
    return 0;
}

static int queues_many(void *arg)
{
    unsigned runs = 0, n = *(unsigned *)arg;
    for (unsigned i = 0; i < n; i++)
        CHECK_OK(reeve_go(count_up, &runs));
    CHECK_EQ(stacks_created(), 1);
    while (runs < n)
        reeve_sleep(0);
    CHECK_LE(stacks_created(), 2); /* this task's, and the one that all others ran on in turn */
    return 0;
}

TEST(a_million_tasks_that_never_suspend_need_one_stack)
{
    unsigned n = host_times(1000000);
    CHECK_EQ(host_run_with(&(struct host_opts){ .tasks_max = n + 10, .virtual = true },
                           queues_many, &n),
             0);
}

static int sleeps(void *arg)
{
    return reeve_sleep(*(reeve_time *)arg);
}

static int has_sleepers(void *arg)
{
    (void)arg;
    for (int round = 0; round < 10; round++) {
        reeve_time until = reeve_in(REEVE_SEC);
        for (int i = 0; i < 200; i++)
            CHECK_OK(reeve_go(sleeps, &until));
        CHECK_OK(reeve_sleep(until + 1));
        CHECK_LE(stacks_created(), 202); /* the same ones, again and again */
        CHECK_GE(stacks_created(), 201);
    }
    return 0;
}

TEST(a_task_that_suspends_keeps_its_stack_until_it_ends)
{
    CHECK_EQ(host_run_virtual(1, has_sleepers, NULL), 0);
}

static int returns_above_a_sleeper(void *arg)
{
    return reeve_go(host_waiter, arg);
}

static int has_many_that_returned(void *arg)
{
    struct host_event e[200] = { 0 };
    (void)arg;
    for (int i = 0; i < 200; i++) {
        CHECK_OK(reeve_go(returns_above_a_sleeper, &e[i]));
        CHECK_OK(reeve_sleep(reeve_in(REEVE_US)));
    }
    CHECK_LE(stacks_created(), 202); /* the sleepers' and not their parents' */
    for (int i = 0; i < 200; i++)
        host_set(host_self(), &e[i]);
    return 0;
}

TEST(a_function_that_returned_gives_its_stack_back_while_its_children_live)
{
    CHECK_EQ(host_run_virtual(1, has_many_that_returned, NULL), 0);
}

/* ---- sizes ---- */

static int uses_what_was_promised(void *arg)
{
    size_t promise = *(size_t *)arg;
    struct rv_stack *on = rv_worker_self()->on;
    CHECK_GE(rv_stack_promise(on->class), promise);
    CHECK_GE(rv_stack_room(on, __builtin_frame_address(0)), promise);
    volatile unsigned char *all = alloca(promise);
    for (size_t i = 0; i < promise; i += 512)
        all[i] = (unsigned char)i;
    CHECK_OK(reeve_sleep(reeve_in(REEVE_US)));
    for (size_t i = 0; i < promise; i += 512)
        CHECK_EQ(all[i], (unsigned char)i);
    return 0;
}

static int spawns_all_sizes(void *arg)
{
    static size_t sizes[] = { 4096, 16384, 16385, 65536, 65537, 262144, 300000, 1 << 20 };
    (void)arg;
    for (int round = 0; round < 3; round++) {
        reeve_group g = { 0 };
        for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            reeve_task *t;
            CHECK_OK(reeve_go(uses_what_was_promised, &sizes[i], .stack_bytes = sizes[i],
                              .group = &g));
            CHECK_OK(reeve_spawn(&t, uses_what_was_promised, &sizes[i],
                                 .stack_bytes = sizes[i]));
            CHECK_OK(reeve_join(t, NULL, 0));
        }
        CHECK_OK(reeve_group_wait(&g, 0));
    }
    return 0;
}

TEST(a_task_may_use_as_much_stack_as_it_asked_for)
{
    CHECK_EQ(host_run_virtual(1, spawns_all_sizes, NULL), 0);
    CHECK_EQ(host_run_virtual(3, spawns_all_sizes, NULL), 0);
    CHECK_EQ(host_run(3, 1000, spawns_all_sizes, NULL), 0);
}

/* ---- no stack to be had ---- */

static void count_skips(void *arg)
{
    ++*(unsigned *)arg;
}

/* A suspending task finds a fresh one next, and no stack for it. The scheduler's own context tries
 * once more; with a stack then, nobody has noticed. */
static int goes_short_of_a_stack(void *arg)
{
    unsigned runs = 0, skips = 0;
    (void)arg;
    rv_fault_only("stack.take");
    for (unsigned i = 1; i <= 20; i++) {
        CHECK_OK(reeve_go(count_up, &runs, .stack_bytes = 1 << 20,
                          .skipped = count_skips));
        rv_fault_fail_nth(1);
        if (i % 2)
            CHECK_OK(reeve_sleep(0));
        else
            CHECK_OK(reeve_sleep(reeve_in(REEVE_US)));
        CHECK(rv_fault_last_name() != NULL);
        while (runs + skips < i)
            CHECK_OK(reeve_sleep(0));
    }
    rv_fault_off();
    CHECK_EQ(runs, 20);
    CHECK_EQ(skips, 0);
    return 0;
}

TEST(a_stack_that_cannot_be_had_for_a_moment_loses_no_task)
{
    if (!rv_fault_available())
        SKIP("built without fault points");
    CHECK_EQ(host_run_virtual(1, goes_short_of_a_stack, NULL), 0);
}

/* ---- switches ---- */

/* What is in registers and on the stack is there again after a suspension, on whatever worker. */
static int keeps_its_values(void *arg)
{
    uint64_t x = (uintptr_t)arg + 1, sum = 0, expected = 0;
    double d = (double)x;
    uint64_t on_stack[16];
    for (uint64_t i = 0; i < 16; i++)
        on_stack[i] = x * i;
    for (uint64_t i = 0; i < 200; i++) {
        sum += x ^ i;
        d += 0.5;
        CHECK_OK(reeve_sleep(i % 50 ? 0 : reeve_in(REEVE_US)));
        expected = 0;
        for (uint64_t k = 0; k <= i; k++)
            expected += x ^ k;
        CHECK_EQ(sum, expected);
        CHECK_EQ(on_stack[i % 16], x * (i % 16));
    }
    CHECK(d == (double)x + 100.0);
    return 0;
}

static int many_keep_their_values(void *arg)
{
    (void)arg;
    for (uintptr_t i = 0; i < 100; i++)
        CHECK_OK(reeve_go(keeps_its_values, (void *)i));
    return 0;
}

TEST(a_task_finds_its_values_again_after_each_suspension)
{
    CHECK_EQ(host_run_virtual(1, many_keep_their_values, NULL), 0);
    CHECK_EQ(host_run(4, 1000, many_keep_their_values, NULL), 0);
}

/* ---- a unit: joiner and child on one stack ---- */

struct unit {
    struct host_event e;
    struct rv_stack *on;
    bool over;
};

static int suspends_inline(void *arg)
{
    struct unit *u = arg;
    u->on = rv_worker_self()->on;
    CHECK_OK(host_wait(&u->e, 0));
    CHECK(u->on == rv_worker_self()->on);
    u->over = true;
    return 0;
}

static int joins_what_suspends(void *arg)
{
    struct unit *u = arg;
    reeve_task *t;
    CHECK_OK(reeve_spawn(&t, suspends_inline, u));
    CHECK_OK(reeve_join(t, NULL, 0));
    if (host_self()->s.nworkers == 1) /* else somebody may have stolen it */
        CHECK(u->on == rv_worker_self()->on);
    CHECK(u->over);
    return 0;
}

static int has_units(void *arg)
{
    struct unit u[50] = { 0 };
    (void)arg;
    for (int i = 0; i < 50; i++) {
        CHECK_OK(reeve_go(joins_what_suspends, &u[i]));
        reeve_sleep(0);
    }
    CHECK_OK(reeve_sleep(reeve_in(REEVE_MS)));
    if (host_self()->s.nworkers == 1)
        CHECK_LE(stacks_created(), 52);
    for (int i = 0; i < 50; i++)
        host_set(host_self(), &u[(i * 7) % 50].e);
    CHECK_OK(reeve_sleep(reeve_in(REEVE_MS)));
    for (int i = 0; i < 50; i++)
        CHECK(u[i].over);
    return 0;
}

TEST(a_child_that_suspends_on_its_joiners_stack_holds_no_other)
{
    CHECK_EQ(host_run_with(&(struct host_opts){ .virtual = true, .pass_picks = INT32_MAX },
                           has_units, NULL),
             0);
    CHECK_EQ(host_run_virtual(3, has_units, NULL), 0);
}
