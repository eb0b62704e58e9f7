/* SPDX-License-Identifier: MIT */
/*
 * tally_test.c -- counters of many threads: nothing is lost, whoever adds and whoever takes away,
 * and threads that have records do not get into each other's way.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <pthread.h>

#include "mem/tally.h"

enum { THREADS = 4, ROUNDS = 50000 };

static struct rv_tally tally;
static RV_ALIGNED_LINE struct {
    RV_ALIGNED_LINE struct rv_local local;
} record[THREADS];

static void *add_some(void *arg)
{
    uintptr_t i = (uintptr_t)arg;
    rv_local_set(i % 2 ? &record[i].local : NULL);
    for (int round = 0; round < ROUNDS; round++) {
        rv_tally_add(&tally, 3);
        rv_tally_sub(&tally, 1);
    }
    rv_local_set(NULL);
    return NULL;
}

TEST(what_many_threads_add_is_all_there)
{
    pthread_t thread[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&thread[i], NULL, add_some, (void *)i), 0);
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_join(thread[i], NULL), 0);
    CHECK_EQ(rv_tally_get(&tally), 2 * THREADS * ROUNDS);
}

TEST(what_one_thread_added_another_may_take_away)
{
    rv_tally_add(&tally, 7);
    for (int i = 0; i < THREADS; i++) {
        rv_local_set(&record[i].local);
        rv_tally_sub(&tally, 1);
    }
    CHECK_EQ(rv_tally_get(&tally), 7 - THREADS);
}

TEST(records_fall_on_different_lines)
{
    enum { RECORDS = 64 };
    static RV_ALIGNED_LINE struct {
        RV_ALIGNED_LINE struct rv_local local;
    } many[RECORDS];
    unsigned lines = 0;
    CHECK_EQ(sizeof tally.line[0], RV_CACHE_LINE);
    CHECK_EQ((uintptr_t)&tally % RV_CACHE_LINE, 0);
    for (int i = 0; i < RECORDS; i++) {
        rv_local_set(&many[i].local);
        rv_tally_add(&tally, 1);
    }
    for (int i = 0; i < RV_TALLY_LINES; i++) {
        lines += rv_load_relaxed(&tally.line[i].n) > 0;
        CHECK_LE(rv_load_relaxed(&tally.line[i].n), RECORDS / 4);
    }
    CHECK_GE(lines, RV_TALLY_LINES / 2);
}
