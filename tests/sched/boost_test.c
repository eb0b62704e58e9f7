/* SPDX-License-Identifier: MIT */
/*
 * boost_test.c -- sched/boost.c: a lent class, wherever the task is.
 */
#define CHECK_MAIN
#include "sched/pick.h"
#include "tests/sched/host.h"

static struct rv_task *self(void)
{
    return rv_worker_self()->cur;
}

static bool lend_to(struct rv_task *t, unsigned cls)
{
    struct rv_sched *s = rv_worker_self()->sched;
    return rv_boost(s, rv_task_index(s, t), rv_task_gen(t), cls);
}

static int borrows_a_class(void *arg)
{
    struct rv_task *t = self();
    struct rv_sched *s = rv_worker_self()->sched;
    (void)arg;
    CHECK(lend_to(t, REEVE_HIGH));
    CHECK_EQ(rv_class(t), RV_HIGH);
    CHECK(lend_to(t, REEVE_LOW)); /* counts, but takes nothing away */
    CHECK_EQ(rv_class(t), RV_HIGH);
    CHECK(rv_boost_raise(s, rv_task_index(s, t), rv_task_gen(t), REEVE_URGENT));
    CHECK_EQ(rv_class(t), RV_URGENT);
    rv_unboost(t);
    CHECK_EQ(rv_class(t), RV_URGENT);
    rv_unboost(t);
    CHECK_EQ(rv_class(t), RV_NORMAL);
    CHECK_EQ(rv_cls(t), REEVE_NORMAL);
    CHECK(!rv_boost(s, rv_task_index(s, t), rv_task_gen(t) + 1, REEVE_HIGH));
    CHECK_EQ(rv_class(t), RV_NORMAL);
    return 0;
}

TEST(a_class_is_lent_until_the_last_loan_is_back)
{
    CHECK_EQ(host_run_virtual(1, borrows_a_class, NULL), 0);
}

/* ---- one that is queued already ---- */

static char order[64]; /* of those that ran after the loan */
static unsigned n;
static struct rv_task *holder;

static int notes_after_a_turn(void *arg)
{
    if (*(const char *)arg == 'H')
        holder = self();
    CHECK_OK(reeve_sleep(0));
    order[n++] = *(const char *)arg;
    return 0;
}

static int lends_to_the_queued(void *arg)
{
    bool pinned = arg;
    n = 0;
    holder = NULL;
    memset(order, 0, sizeof order);
    for (int i = 0; i < 4; i++)
        CHECK_OK(reeve_go(notes_after_a_turn, (void *)(uintptr_t)"l", .priority = REEVE_LOW));
    CHECK_OK(reeve_go(notes_after_a_turn, (void *)(uintptr_t)"H", .priority = REEVE_LOW,
                      .worker = pinned));
    for (int i = 0; i < 4; i++)
        CHECK_OK(reeve_go(notes_after_a_turn, (void *)(uintptr_t)"n"));
    while (!holder)
        CHECK_OK(reeve_sleep(0));
    n = 0; /* what has run by now does not matter */
    memset(order, 0, sizeof order);
    CHECK(lend_to(holder, REEVE_URGENT));
    reeve_sleep(0);
    return 0;
}

TEST(a_queued_task_that_is_lent_a_better_class_goes_first)
{
    for (uintptr_t pinned = 0; pinned < 2; pinned++) {
        CHECK_EQ(host_run_virtual(1, lends_to_the_queued, (void *)pinned), 0);
        CHECK_EQ(order[0], 'H');
        CHECK(strchr(order, 'l') != NULL);
    }
}

/* ---- a unit ---- */

static int is_low_on_a_high_stack(void *arg)
{
    (void)arg;
    CHECK_EQ(rv_cls(self()), REEVE_LOW);
    CHECK_EQ(rv_class(self()), RV_HIGH);
    return 0;
}

static int joins_a_low_child(void *arg)
{
    reeve_task *t;
    (void)arg;
    CHECK_OK(reeve_spawn(&t, is_low_on_a_high_stack, NULL, .priority = REEVE_LOW));
    return reeve_join(t, NULL, 0);
}

static int joins_a_high_child(void *arg)
{
    reeve_task *t;
    CHECK_OK(reeve_spawn(&t, joins_a_low_child, arg, .priority = REEVE_HIGH));
    return reeve_join(t, NULL, 0);
}

TEST(tasks_on_one_stack_are_in_the_best_class_of_all)
{
    CHECK_EQ(host_run_virtual(1, joins_a_high_child, NULL), 0);
}
