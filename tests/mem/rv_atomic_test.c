/* SPDX-License-Identifier: MIT */
/*
 * rv_atomic_test.c -- the operations do what their names say, and the fences order.
 *
 * The two tests of fences fail when a fence is left out: the first if two CPUs are free to run it,
 * by a load that passes a store, as x86 does; the second under ThreadSanitizer.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <pthread.h>
#include <sched.h>
#include <time.h>

#include "mem/rv_atomic.h"

TEST(changing_operations_return_the_old_value)
{
    RV_ATOMIC(uint32_t) word = 5;
    CHECK_EQ(rv_add_acq_rel(&word, 3U), 5);
    CHECK_EQ(rv_add_relaxed(&word, 1U), 8);
    CHECK_EQ(rv_sub_acq_rel(&word, 2U), 9);
    CHECK_EQ(rv_or_acq_rel(&word, 8U), 7);
    CHECK_EQ(rv_and_acq_rel(&word, 9U), 15);
    CHECK_EQ(rv_xchg_acq_rel(&word, 77U), 9);
    CHECK_EQ(rv_load_seqcst(&word), 77);
}

TEST(a_failed_cas_changes_nothing_and_reports_what_it_found)
{
    RV_ATOMIC(uint64_t) word = 5;
    uint64_t expected = 4;
    CHECK(!rv_cas(&word, &expected, 9));
    CHECK_EQ(expected, 5);
    CHECK_EQ(rv_load_acquire(&word), 5);
    CHECK(rv_cas(&word, &expected, 9));
    CHECK(!rv_cas_relaxed(&word, &expected, 1));
    CHECK_EQ(expected, 9);
    CHECK(rv_cas_seqcst(&word, &expected, 10));
    CHECK_EQ(rv_load_relaxed(&word), 10);
}

/* ---- two threads that write one word each and read the other's ------------------------------- */

enum { ROUNDS = 200000, SECONDS = 10 };

static struct {
    RV_ATOMIC(int) flag[2][ROUNDS];
    int seen[2][ROUNDS];
    RV_ATOMIC(int) at[2];       /* the round each is in, so that they run side by side */
    RV_ATOMIC(int) rounds;      /* of which there are fewer where others use the CPUs, too */
} dekker = { .rounds = ROUNDS };

/* Waits for the other side's round, and then a moment that differs from round to round and from
 * side to side: in some rounds both sides then store and load in the same nanoseconds. */
static void meet(int me, int round)
{
    rv_store_release(&dekker.at[me], round);
    for (int spins = 0; rv_load_acquire(&dekker.at[!me]) < round; spins++)
        if (spins >= 1000)
            sched_yield();
    for (int delay = round / (me ? 1 : 64) % 64; delay > 0; delay--)
        rv_compiler_barrier();
}

static void *dekker_side(void *arg)
{
    int me = arg != NULL, other = !me;
    time_t began = time(NULL);
    for (int i = 0; i < rv_load_relaxed(&dekker.rounds); i++) {
        if (me == 0 && i % 64 == 0 && time(NULL) - began > SECONDS)
            rv_store_relaxed(&dekker.rounds, i + 1); /* seen by who has met us in this round */
        meet(me, i);
        rv_store_relaxed(&dekker.flag[me][i], 1);
        rv_fence_seqcst();
        dekker.seen[me][i] = rv_load_relaxed(&dekker.flag[other][i]);
    }
    rv_store_release(&dekker.at[me], ROUNDS);
    return NULL;
}

TEST(of_two_that_write_fence_and_read_one_sees_the_other)
{
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, dekker_side, &dekker), 0);
    dekker_side(NULL);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    for (int i = 0; i < rv_load_relaxed(&dekker.rounds); i++)
        CHECK(dekker.seen[0][i] || dekker.seen[1][i]);
}

static struct {
    int payload;
    RV_ATOMIC(int) ready;
} mail;

static void *post(void *arg)
{
    mail.payload = 42;
    rv_fence_release();
    rv_store_relaxed(&mail.ready, 1);
    return arg;
}

/* The payload is plain: where ThreadSanitizer does not see the fences, it calls this a race. */
TEST(a_release_fence_publishes_to_an_acquire_fence)
{
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, post, NULL), 0);
    while (rv_load_relaxed(&mail.ready) == 0)
        rv_cpu_relax();
    rv_fence_acquire();
    CHECK_EQ(mail.payload, 42);
    CHECK_EQ(pthread_join(thread, NULL), 0);
}
