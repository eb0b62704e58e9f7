/* SPDX-License-Identifier: MIT */
/*
 * lock_test.c -- mutual exclusion under contention, and waiters that sleep and are woken.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>

#include "mem/lock.h"

enum { THREADS = 4, ROUNDS = 50000 };

static struct {
    struct rv_lock lock;
    long count;                 /* plain: only the lock protects it */
    RV_ATOMIC(int) tid;
} shared;

static void *count(void *arg)
{
    for (int i = 0; i < ROUNDS; i++) {
        rv_lock_acquire(&shared.lock);
        shared.count++;
        rv_lock_release(&shared.lock);
    }
    return arg;
}

TEST(no_increment_under_the_lock_is_lost)
{
    pthread_t thread[THREADS];
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&thread[i], NULL, count, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_join(thread[i], NULL), 0);
    CHECK_EQ(shared.count, THREADS * ROUNDS);
    CHECK_EQ(rv_load_relaxed(&shared.lock.word), 0);
}

TEST(a_held_lock_is_not_taken_twice)
{
    struct rv_lock lock;
    rv_lock_init(&lock);
    CHECK(rv_lock_try(&lock));
    CHECK(!rv_lock_try(&lock));
    rv_lock_release(&lock);
    CHECK(rv_lock_try(&lock));
}

static void *take_once(void *arg)
{
    rv_store_release(&shared.tid, (int)syscall(SYS_gettid));
    rv_lock_acquire(&shared.lock);
    shared.count++;
    rv_lock_release(&shared.lock);
    return arg;
}

/* The letter the kernel gives a thread's state, 'S' for one that sleeps. */
static char thread_state(int tid)
{
    char path[64], state = 0;
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid);
    FILE *f = fopen(path, "r");
    CHECK(f != NULL);
    CHECK_EQ(fscanf(f, "%*d %*s %c", &state), 1);
    fclose(f);
    return state;
}

TEST(a_waiter_sleeps_until_the_release)
{
    pthread_t thread;
    int tid;
    rv_lock_acquire(&shared.lock);
    CHECK_EQ(pthread_create(&thread, NULL, take_once, NULL), 0);
    while ((tid = rv_load_acquire(&shared.tid)) == 0 || rv_load_relaxed(&shared.lock.word) != 2 ||
           thread_state(tid) != 'S')
        sched_yield();
    CHECK_EQ(shared.count, 0);
    rv_lock_release(&shared.lock);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(shared.count, 1);
}

TEST(every_sleeping_waiter_gets_its_turn)
{
    pthread_t thread[THREADS];
    rv_lock_acquire(&shared.lock);
    for (int i = 0; i < THREADS; i++) {
        rv_store_relaxed(&shared.tid, 0);
        CHECK_EQ(pthread_create(&thread[i], NULL, take_once, NULL), 0);
        int tid;
        while ((tid = rv_load_acquire(&shared.tid)) == 0 || thread_state(tid) != 'S')
            sched_yield();
    }
    rv_lock_release(&shared.lock);
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_join(thread[i], NULL), 0);
    CHECK_EQ(shared.count, THREADS);
}

TEST(releasing_a_free_lock_dies_in_debug_builds)
{
#ifdef RV_DEBUG
    struct rv_lock lock = {0};
    CHECK_DIES("does not hold", rv_lock_release(&lock));
#else
    SKIP("built without RV_DEBUG");
#endif
}
