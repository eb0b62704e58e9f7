/* SPDX-License-Identifier: MIT */
/*
 * grace_test.c -- strangers who wake tasks, and the end of the scheduler that these belong to, in
 * every order.
 */
#include "tests/explore/explore_main.h"

#include "mem/die.h"
#include "mem/lock.h"
#include "sched/grace.h"

/* A scheduler, as far as strangers know: it is there while somebody waits, and until its end. */
static struct {
    struct rv_lock lock;
    bool waits;
    RV_ATOMIC(uint32_t) there;
} m;

static void begin(void)
{
    m.waits = true;
    rv_store_relaxed(&m.there, 1u);
}

static void stranger(void *arg)
{
    (void)arg;
    rv_lock_acquire(&m.lock);
    unsigned ticket = m.waits ? rv_grace_enter() : 0;
    rv_lock_release(&m.lock);
    if (ticket == 0)
        return;
    RV_MUST(rv_load_acquire(&m.there) == 1);
    rv_grace_leave(ticket);
}

/* The task's wait ends by itself, and its runtime with it. */
static void end(void *arg)
{
    (void)arg;
    rv_lock_acquire(&m.lock);
    m.waits = false;
    rv_lock_release(&m.lock);
    rv_grace_wait();
    rv_store_release(&m.there, 0u);
}

/* Another runtime ends meanwhile, with which nobody has to do. */
static void end_of_another(void *arg)
{
    (void)arg;
    rv_grace_wait();
}

static const struct explore one_stranger = {
    .name = "grace: one stranger",
    .setup = begin,
    .threads = { { "stranger", stranger, NULL }, { "end", end, NULL } },
    .preemptions = 4,
    .delays = 2,
};

static const struct explore two_strangers = {
    .name = "grace: two strangers",
    .setup = begin,
    .threads = { { "a", stranger, NULL }, { "b", stranger, NULL }, { "end", end, NULL } },
    .preemptions = 3,
    .delays = 1,
};

static const struct explore two_ends = {
    .name = "grace: two ends",
    .setup = begin,
    .threads = { { "stranger", stranger, NULL },
                 { "end", end, NULL },
                 { "another", end_of_another, NULL } },
    .preemptions = 3,
    .delays = 1,
};

TEST(a_scheduler_outlives_the_strangers_who_found_its_tasks)
{
    explore(&one_stranger);
    explore(&two_strangers);
    explore(&two_ends);
}
