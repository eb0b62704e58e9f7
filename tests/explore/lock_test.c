/* SPDX-License-Identifier: MIT */
/*
 * lock_test.c -- the four-byte lock and its sleepers, in every order.
 *
 * The code is mem/lock.c itself, but for the number of times that it spins before it sleeps: once,
 * so that the sleep is reached. Its futex is the explorer's: nothing but a wake ends a sleep.
 */
#include "tests/explore/explore_main.h"

#include "mem/die.h"
#include "mem/lock.h"

static struct {
    struct rv_lock lock;
    RV_ATOMIC(uint32_t) busy;   /* an access inside, where another thread may cut in */
    uint32_t count;
} m;

static void enter_once(void)
{
    rv_lock_acquire(&m.lock);
    RV_MUST(rv_add_relaxed(&m.busy, 1u) == 0);
    m.count++;
    rv_sub_relaxed(&m.busy, 1u);
    rv_lock_release(&m.lock);
}

static void enters(void *arg)
{
    for (uintptr_t i = 0; i < (uintptr_t)arg; i++)
        enter_once();
}

static void tries(void *arg)
{
    (void)arg;
    if (!rv_lock_try(&m.lock))
        return;
    RV_MUST(rv_add_relaxed(&m.busy, 1u) == 0);
    rv_sub_relaxed(&m.busy, 1u);
    rv_lock_release(&m.lock);
}

static void is_free(void)
{
    RV_MUST(rv_load_relaxed(&m.lock.word) == 0);
}

static void came_in(uint32_t times)
{
    is_free();
    RV_MUST(m.count == times);
}

static void three_times(void)
{
    came_in(3);
}

static void four_times(void)
{
    came_in(4);
}

static const struct explore three_threads = {
    .name = "lock: three threads",
    .threads = { { "a", enters, (void *)1 },
                 { "b", enters, (void *)1 },
                 { "c", enters, (void *)1 } },
    .finish = three_times,
    .preemptions = 4,
    .delays = 1,
};

TEST(one_holds_it_and_whoever_sleeps_is_woken)
{
    explore(&three_threads);
}

static const struct explore twice = {
    .name = "lock: two threads, twice",
    .threads = { { "a", enters, (void *)2 }, { "b", enters, (void *)2 } },
    .finish = four_times,
    .preemptions = 5,
    .delays = 2,
};

TEST(it_can_be_taken_again_at_once)
{
    explore(&twice);
}

static const struct explore with_try = {
    .name = "lock: acquire and try",
    .threads = { { "a", enters, (void *)1 }, { "b", enters, (void *)1 }, { "t", tries, NULL } },
    .finish = is_free,
    .preemptions = 4,
    .delays = 1,
};

TEST(a_try_never_sleeps_and_never_shares)
{
    explore(&with_try);
}
