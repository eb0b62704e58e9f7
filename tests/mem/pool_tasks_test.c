/* SPDX-License-Identifier: MIT */
/*
 * pool_tasks_test.c -- pools under tasks that move from worker to worker between borrowing and
 * returning, in one runtime after another, with hooks that wait and the profiler on.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <reeve/mem.h>
#include <reeve/pool.h>
#include <reeve/reeve.h>

#include "mem/pool_seat.h"

enum { TASKS = 40, ROUNDS = 150, RUNTIMES = 4, WORKERS = 3, IDLE_MAX = 40 };

static struct {
    reeve_pool *pool;
    reeve_chan *chan;
    bool reset_waits;
} t;

static void reset(void *ctx, void *object)
{
    (void)ctx;
    *(uint64_t *)object = 0;
    if (t.reset_waits)
        reeve_sleep(0);
}

/* Borrows, swaps with another task by way of the channel, and returns what it got. */
static int swap_objects(void *arg)
{
    (void)arg;
    for (uint64_t i = 0; i < ROUNDS; i++) {
        uint64_t *object = reeve_pool_borrow(t.pool);
        CHECK(object != NULL);
        *object = i + 1;
        CHECK_OK(reeve_chan_send(t.chan, &object, 0));
        CHECK_OK(reeve_chan_recv(t.chan, &object, 0));
        CHECK_NE(*object, 0);
        unsigned char *block = reeve_alloc(i * 37 % 5000);
        CHECK(block != NULL);
        reeve_sleep(0);
        reeve_free(block);
        reeve_pool_return(t.pool, object);
    }
    return 0;
}

static int swap_all(void *arg)
{
    reeve_group g = { 0 };
    for (int i = 0; i < TASKS; i++)
        CHECK_OK(reeve_go(swap_objects, arg, .group = &g));
    CHECK_OK(reeve_group_wait(&g, 0));
    return 0;
}

static void in_runtimes(bool reset_waits)
{
    struct reeve_pool_opts o = { .bytes = 64, .idle_max = IDLE_MAX, .reset = reset };
    t.reset_waits = reset_waits;
    CHECK_OK(reeve_pool_create(&t.pool, &o));
    t.chan = reeve_chan_create(sizeof(void *), TASKS);
    CHECK(t.chan != NULL);
    CHECK_OK(reeve_memory_profile_start(1024));
    for (int i = 0; i < RUNTIMES; i++) {
        reeve *rt;
        CHECK_OK(reeve_create(&rt, &(struct reeve_opts){ .workers = WORKERS }));
        CHECK_OK(reeve_call(rt, swap_all, NULL, 0));
        CHECK_OK(reeve_shutdown(rt, LONG));
        reeve_destroy(rt);
    }
    reeve_memory_profile_stop();
    struct reeve_pool_stats s;
    struct reeve_memory m;
    reeve_pool_stats(t.pool, &s);
    CHECK_EQ(s.live, 0);
    CHECK_LE(s.idle, IDLE_MAX);
    CHECK_EQ(s.returned, RUNTIMES * TASKS * ROUNDS);
    CHECK_EQ(s.hits + s.misses, s.returned);
    CHECK_EQ(s.misses, s.idle + s.dropped);
    reeve_pool_destroy(t.pool);
    reeve_chan_destroy(t.chan);
    reeve_memory_stats(&m);
    CHECK_EQ(m.live_objects, 0);
}

TEST(tasks_that_move_keep_the_books)
{
    in_runtimes(false);
}

TEST(a_reset_that_waits_loses_nothing)
{
    in_runtimes(true);
}

TEST(runtimes_that_come_and_go_leave_their_seats)
{
    struct rv_local local = { 0 };
    in_runtimes(false);
    CHECK_EQ(rv_seat_take(&local), 1);
    rv_seat_leave(&local);
}
