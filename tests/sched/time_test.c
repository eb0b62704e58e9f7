/* SPDX-License-Identifier: MIT */
/*
 * time_test.c -- sched/time.c: what time.h says about now, in and sleep.
 */
#define CHECK_MAIN
#include "tests/sched/host.h"

static int64_t kernel_ns(void)
{
    struct timespec ts;
    CHECK_EQ(clock_gettime(CLOCK_MONOTONIC, &ts), 0);
    return (int64_t)ts.tv_sec * REEVE_SEC + ts.tv_nsec;
}

/* ---- now ---- */

static void check_now(void)
{
    reeve_time last = reeve_now();
    CHECK_GT(last, 0);
    for (int i = 0; i < 100000; i++) {
        int64_t before = kernel_ns();
        reeve_time now = reeve_now();
        CHECK_GE(now, last);
        CHECK_LE(now, kernel_ns());                     /* never ahead */
        CHECK_GE(now, before - 10 * RV_FASTCLOCK_LAG_NS); /* and hardly behind */
        last = now;
    }
}

static int checks_now(void *arg)
{
    (void)arg;
    check_now();
    return 0;
}

TEST(now_is_the_kernels_monotonic_clock_in_and_outside_a_task)
{
    check_now();
    CHECK_EQ(host_run(1, 10, checks_now, NULL), 0);
}

static int sees_virtual_time(void *arg)
{
    (void)arg;
    reeve_time start = reeve_now();
    host_compute(5);
    CHECK_EQ(reeve_now(), start + 5);
    CHECK_EQ(reeve_in(7), start + 12);
    return 0;
}

TEST(an_engine_may_bring_its_own_time)
{
    CHECK_EQ(host_run_virtual(1, sees_virtual_time, NULL), 0);
}

/* ---- in ---- */

TEST(in_saturates_and_is_never_0)
{
    CHECK_EQ(reeve_in(INT64_MAX), INT64_MAX - 1);
    CHECK_EQ(reeve_in(INT64_MAX - 1), INT64_MAX - 1);
    CHECK_LT(reeve_in(INT64_MIN), 0);
    CHECK_LT(reeve_in(INT64_MIN + 1), 0);
    reeve_time now = reeve_in(0), before = reeve_in(-REEVE_SEC), after = reeve_in(REEVE_SEC);
    CHECK_LE(now, reeve_now());
    CHECK_LT(before, now);
    CHECK_GE(after, now + REEVE_SEC);
}

static int asks_for_zero(void *arg)
{
    (void)arg;
    CHECK_EQ(reeve_in(-reeve_now()), REEVE_POLL);
    CHECK_EQ(reeve_in(1 - reeve_now()), 1);
    CHECK_EQ(reeve_in(-1 - reeve_now()), -1);
    return 0;
}

TEST(the_moment_that_would_be_0_is_one_already_past)
{
    CHECK_EQ(host_run_virtual(1, asks_for_zero, NULL), 0);
}

/* ---- sleep ---- */

static int sleeps_a_while(void *arg)
{
    (void)arg;
    for (int i = 0; i < 20; i++) {
        int64_t end = kernel_ns() + i * 100 * REEVE_US;
        CHECK_OK(reeve_sleep(end));
        CHECK_GE(kernel_ns(), end);
    }
    return 0;
}

TEST(a_sleep_never_ends_early)
{
    CHECK_EQ(host_run(1, 10, sleeps_a_while, NULL), 0);
    CHECK_EQ(host_run(2, 10, sleeps_a_while, NULL), 0);
}

static int sleeps_for_long(void *arg)
{
    (void)arg;
    reeve_time end = reeve_in(INT64_C(365) * 24 * 3600 * REEVE_SEC);
    CHECK_OK(reeve_sleep(end));
    CHECK_EQ(reeve_now(), end);
    return 0;
}

TEST(a_year_passes_in_virtual_time)
{
    CHECK_EQ(host_run_virtual(1, sleeps_for_long, NULL), 0);
}

static int is_cancelled_in_its_longest_sleep(void *arg)
{
    int *ends = arg;
    CHECK_EQ(reeve_sleep(reeve_in(INT64_MAX)), -ECANCELED);
    CHECK_EQ(reeve_sleep(INT64_MAX), -ECANCELED);
    ++*ends;
    return 0;
}

static int cancels_the_longest_sleep(void *arg)
{
    reeve_task *t;
    CHECK_OK(reeve_spawn(&t, is_cancelled_in_its_longest_sleep, arg));
    CHECK_OK(reeve_sleep(reeve_in(3600 * REEVE_SEC)));
    CHECK_EQ(*(int *)arg, 0);
    reeve_cancel(t);
    return reeve_join(t, NULL, 0);
}

TEST(a_sleep_until_the_end_of_time_can_be_cancelled)
{
    int ends = 0;
    CHECK_EQ(host_run_virtual(1, cancels_the_longest_sleep, &ends), 0);
    CHECK_EQ(ends, 1);
}

static int sleeps_until_forever(void *arg)
{
    (void)arg;
    CHECK_EQ(reeve_sleep(INT64_MAX), -ETIMEDOUT);
    return 0;
}

static int sleeps_with_a_deadline(void *arg)
{
    reeve_task *t;
    int result = 77;
    reeve_time own = reeve_in(REEVE_SEC);
    (void)arg;
    CHECK_OK(reeve_spawn(&t, sleeps_until_forever, NULL, .deadline = own));
    CHECK_OK(reeve_join(t, &result, 0));
    CHECK_EQ(result, 0);
    CHECK_EQ(reeve_now(), own);
    return 0;
}

TEST(a_tasks_deadline_ends_its_sleep)
{
    CHECK_EQ(host_run_virtual(1, sleeps_with_a_deadline, NULL), 0);
}

/* A sleep that ends exactly at the task's deadline has come to pass. */
static int sleeps_until_its_deadline(void *arg)
{
    (void)arg;
    CHECK_EQ(reeve_sleep(rv_worker_self()->cur->deadline), 0);
    CHECK_EQ(reeve_sleep(reeve_in(1)), -ETIMEDOUT);
    return 0;
}

static int spawns_what_sleeps_until_its_deadline(void *arg)
{
    reeve_task *t;
    (void)arg;
    CHECK_OK(reeve_spawn(&t, sleeps_until_its_deadline, NULL, .deadline = reeve_in(REEVE_SEC)));
    return reeve_join(t, NULL, 0);
}

TEST(a_sleep_until_the_tasks_own_deadline_is_no_timeout)
{
    CHECK_EQ(host_run_virtual(1, spawns_what_sleeps_until_its_deadline, NULL), 0);
}

/* ---- a yield ---- */

static int takes_turns(void *arg)
{
    unsigned *turns = arg;
    for (int i = 0; i < 100; i++) {
        ++*turns;
        CHECK_OK(reeve_sleep(i % 3 == 0 ? 0 : i % 3 == 1 ? REEVE_POLL : INT64_MIN));
    }
    return 0;
}

static int yields_to_all(void *arg)
{
    unsigned turns[5] = { 0 };
    (void)arg;
    for (int i = 0; i < 5; i++)
        CHECK_OK(reeve_go(takes_turns, &turns[i]));
    while (turns[0] == 0 || turns[4] == 0)
        reeve_sleep(0); /* now all have started, and stand in one line */
    unsigned start = turns[0];
    for (unsigned i = 1; i <= 50; i++) {
        CHECK_OK(reeve_sleep(0));
        for (int k = 0; k < 5; k++) {
            CHECK_GE(turns[k] + 5, start + i);
            CHECK_LE(turns[k], start + i + 5);
        }
    }
    return 0;
}

TEST(a_yield_lets_everybody_who_is_ready_run)
{
    CHECK_EQ(host_run_virtual(1, yields_to_all, NULL), 0);
}

static int yields_alone(void *arg)
{
    uint64_t passes = host_counts(host_self()).passes;
    (void)arg;
    for (int i = 0; i < 61 * 10; i++)
        CHECK_OK(reeve_sleep(0));
    CHECK_GE(host_counts(host_self()).passes - passes, 9);
    return 0;
}

TEST(who_yields_alone_goes_on_but_lets_the_passes_end)
{
    CHECK_EQ(host_run_virtual(1, yields_alone, NULL), 0);
}

static int computes_beyond_its_deadline(void *arg)
{
    (void)arg;
    CHECK_OK(reeve_sleep(0));
    host_compute(REEVE_SEC);
    CHECK_EQ(reeve_sleep(0), -ETIMEDOUT); /* at once, not a pass later */
    return 0;
}

static int spawns_what_computes(void *arg)
{
    reeve_task *t;
    (void)arg;
    CHECK_OK(reeve_spawn(&t, computes_beyond_its_deadline, NULL, .deadline = reeve_in(REEVE_MS)));
    return reeve_join(t, NULL, 0);
}

TEST(a_yield_says_that_the_tasks_deadline_has_passed)
{
    CHECK_EQ(host_run_virtual(1, spawns_what_computes, NULL), 0);
}

static int yields_though_cancelled(void *arg)
{
    unsigned *turns = arg;
    CHECK_EQ(reeve_sleep(reeve_in(REEVE_SEC)), -ECANCELED);
    CHECK_GT(*turns, 0);
    unsigned before = *turns;
    for (int i = 0; i < 20; i++)
        CHECK_EQ(reeve_sleep(0), -ECANCELED);
    CHECK_GE(*turns, before + 10); /* it yielded in any case */
    return 0;
}

static int cancels_a_yielder(void *arg)
{
    unsigned turns = 0;
    reeve_task *t;
    (void)arg;
    CHECK_OK(reeve_spawn(&t, yields_though_cancelled, &turns));
    CHECK_OK(reeve_sleep(reeve_in(REEVE_MS)));
    CHECK_OK(reeve_go(takes_turns, &turns));
    while (turns == 0)
        reeve_sleep(0);
    reeve_cancel(t);
    return reeve_join(t, NULL, 0);
}

TEST(a_yield_of_a_cancelled_task_yields_and_says_so)
{
    CHECK_EQ(host_run_virtual(1, cancels_a_yielder, NULL), 0);
}
