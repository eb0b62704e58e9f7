/* SPDX-License-Identifier: MIT */
/*
 * fault_test.c -- the n-th point fails, once, whoever reaches it.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <pthread.h>

#include "mem/fault.h"

static void need_faults(void)
{
    if (!rv_fault_available())
        SKIP("built without RV_FAULTS");
}

static int three_points(void)
{
    if (RV_FAULT("first"))
        return 1;
    if (RV_FAULT("second.a"))
        return 2;
    if (RV_FAULT("second.b"))
        return 3;
    return 0;
}

TEST(the_nth_point_fails_once)
{
    need_faults();
    for (int n = 1; n <= 3; n++) {
        rv_fault_fail_nth((uint64_t)n);
        CHECK_EQ(three_points(), n);
        CHECK_EQ(three_points(), 0);
        CHECK_EQ(rv_fault_count(), n + 3);
    }
}

TEST(the_failed_point_is_named_and_the_loop_over_all_points_ends)
{
    need_faults();
    static const char *const names[] = {"first", "second.a", "second.b"};
    uint64_t n;
    for (n = 1; rv_fault_fail_nth(n), three_points(), rv_fault_last_name() != NULL; n++)
        CHECK_STR_EQ(rv_fault_last_name(), names[n - 1]);
    CHECK_EQ(n, 4);
}

TEST(zero_counts_and_fails_nothing)
{
    need_faults();
    rv_fault_fail_nth(0);
    for (int i = 0; i < 100; i++)
        CHECK_EQ(three_points(), 0);
    CHECK_EQ(rv_fault_count(), 300);
    CHECK(rv_fault_last_name() == NULL);
}

TEST(disarmed_nothing_fails_and_nothing_is_counted)
{
    rv_fault_fail_nth(2);
    rv_fault_off();
    for (int i = 0; i < 100; i++)
        CHECK_EQ(three_points(), 0);
    CHECK_EQ(rv_fault_count(), 0);
}

TEST(only_points_of_the_asked_name_count)
{
    need_faults();
    rv_fault_only("second");
    rv_fault_fail_nth(2);
    CHECK_EQ(three_points(), 3);
    rv_fault_only("first");
    rv_fault_fail_nth(2);
    CHECK_EQ(three_points(), 0);
    CHECK_EQ(three_points(), 1);
    rv_fault_off();
    rv_fault_fail_nth(2);
    CHECK_EQ(three_points(), 2);
}

enum { THREADS = 4, ROUNDS = 1000 };

static void *reach(void *arg)
{
    intptr_t failed = 0;
    (void)arg;
    for (int i = 0; i < ROUNDS; i++)
        failed += RV_FAULT("thread") != 0;
    return (void *)failed;
}

TEST(among_threads_exactly_one_point_fails)
{
    need_faults();
    pthread_t thread[THREADS];
    intptr_t failed = 0;
    rv_fault_fail_nth(THREADS * ROUNDS / 2);
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&thread[i], NULL, reach, NULL), 0);
    for (int i = 0; i < THREADS; i++) {
        void *mine;
        CHECK_EQ(pthread_join(thread[i], &mine), 0);
        failed += (intptr_t)mine;
    }
    CHECK_EQ(failed, 1);
    CHECK_EQ(rv_fault_count(), THREADS * ROUNDS);
}
