/* SPDX-License-Identifier: MIT */
/*
 * join_test.c -- tiny trees of tasks on two workers: spawn, complete, join, cancel, groups.
 *
 * Parent and child are pinned to different workers where they shall meet: then they run at the
 * same time without spending preemptions on it. At the end every descriptor and every stack is
 * back, so a reference dropped twice or never is found.
 */
#include "tests/explore/explore_main.h"
#include "tests/explore/sched_model.h"

/* The root runs on worker 0. */
static void root(reeve_fn *fn)
{
    model_setup();
    struct reeve_spawn how = { .fn = fn, .worker = 1 };
    RV_MUST(rv_sched_post(&model.s, &how) == 0);
    rv_sched_close(&model.s);
}

static int nothing(void *arg)
{
    (void)arg;
    model.count[0]++;
    return 7;
}

static void child_ran(void)
{
    RV_MUST(model.count[0] == 1);
    model_finish();
}

#define BOTH_WORKERS MODEL_WORKER_0, MODEL_WORKER_1

/* ---- join ---- */

static int spawn_and_join_there(void *arg)
{
    (void)arg;
    reeve_task *t;
    int r = 0;
    RV_MUST(reeve_spawn(&t, nothing, NULL, .worker = 2) == 0);
    RV_MUST(reeve_join(t, &r, 0) == 0);
    RV_MUST(r == 7);
    return 0;
}

static void joins_there(void)
{
    root(spawn_and_join_there);
}

static const struct explore join_there = {
    .name = "join: a child on the other worker",
    .setup = joins_there,
    .threads = { BOTH_WORKERS },
    .finish = child_ran,
    .preemptions = 2,
};

TEST(a_join_gets_the_result_of_a_child_elsewhere)
{
    explore(&join_there);
}

static int spawn_and_join(void *arg)
{
    (void)arg;
    reeve_task *t;
    int r = 0;
    RV_MUST(reeve_spawn(&t, nothing, NULL) == 0);
    RV_MUST(reeve_join(t, &r, 0) == 0);
    RV_MUST(r == 7);
    return 0;
}

static void joins(void)
{
    root(spawn_and_join);
}

static const struct explore join_stolen = {
    .name = "join: a child that joiner and thief both want",
    .setup = joins,
    .threads = { BOTH_WORKERS },
    .finish = child_ran,
    .preemptions = 2,
};

TEST(a_child_is_run_by_its_joiner_or_by_a_thief)
{
    explore(&join_stolen);
}

static int join_late(void *arg)
{
    (void)arg;
    reeve_task *t;
    int r = 0;
    RV_MUST(reeve_spawn(&t, nothing, NULL, .worker = 2) == 0);
    int why = reeve_join(t, &r, explore_now() + 1000);
    if (why == 0) {
        RV_MUST(r == 7);
        return 0;
    }
    RV_MUST(why == -ETIMEDOUT);
    RV_MUST(reeve_join(t, &r, 0) == 0);
    RV_MUST(r == 7);
    return 0;
}

static void joins_late(void)
{
    root(join_late);
}

static const struct explore join_deadline = {
    .name = "join: a deadline, and again",
    .setup = joins_late,
    .threads = { BOTH_WORKERS },
    .finish = child_ran,
    .preemptions = 2,
};

TEST(a_join_that_timed_out_can_be_made_again)
{
    explore(&join_deadline);
}

/* ---- nobody joins ---- */

static int spawn_and_leave(void *arg)
{
    (void)arg;
    reeve_task *t;
    RV_MUST(reeve_spawn(&t, nothing, NULL, .worker = 2) == 0);
    return 0;
}

static void leaves(void)
{
    root(spawn_and_leave);
}

static const struct explore unjoined = {
    .name = "join: a handle that nobody joins",
    .setup = leaves,
    .threads = { BOTH_WORKERS },
    .finish = child_ran,
    .preemptions = 2,
};

TEST(the_scope_frees_a_child_that_nobody_joins)
{
    explore(&unjoined);
}

/* ---- cancel ---- */

static int wait_to_be_cancelled(void *arg)
{
    (void)arg;
    int r = model_wait(0, RV_NEVER);
    RV_MUST(r == -ECANCELED);
    model.count[0]++;
    return r;
}

static int cancel_and_join(void *arg)
{
    (void)arg;
    reeve_task *t;
    int r = 0;
    RV_MUST(reeve_spawn(&t, wait_to_be_cancelled, NULL, .worker = 2) == 0);
    reeve_cancel(t);
    RV_MUST(reeve_join(t, &r, 0) == 0);
    RV_MUST(r == -ECANCELED);
    return 0;
}

static void cancels(void)
{
    root(cancel_and_join);
}

static const struct explore cancel_one = {
    .name = "cancel: a child at any point of its life",
    .setup = cancels,
    .threads = { BOTH_WORKERS },
    .finish = model_finish,
    .preemptions = 2,
};

TEST(a_cancelled_child_ends_whenever_it_hears_of_it)
{
    explore(&cancel_one);
}

static int end_at_once(void *arg)
{
    (void)arg;
    return 7;
}

static int cancel_too_late(void *arg)
{
    (void)arg;
    reeve_task *t;
    int r = 0;
    RV_MUST(reeve_spawn(&t, end_at_once, NULL, .worker = 2) == 0);
    reeve_cancel(t);
    RV_MUST(reeve_join(t, &r, 0) == 0);
    RV_MUST(r == 7 || r == -ECANCELED);
    reeve_cancel(t); /* the handle is gone: nothing happens, to nobody */
    RV_MUST(reeve_spawn(&t, end_at_once, NULL, .worker = 2) == 0);
    RV_MUST(reeve_join(t, &r, 0) == 0);
    RV_MUST(r == 7);
    return 0;
}

static void cancels_late(void)
{
    root(cancel_too_late);
}

static const struct explore cancel_late = {
    .name = "cancel: while the child ends",
    .setup = cancels_late,
    .threads = { BOTH_WORKERS },
    .finish = model_finish,
    .preemptions = 2,
};

TEST(a_cancel_while_the_child_ends_meets_nobody_else)
{
    explore(&cancel_late);
}

/* A child of a child, which waits; the cancellation must find it below. */
static int parent_of_waiter(void *arg)
{
    (void)arg;
    RV_MUST(reeve_spawn(NULL, wait_to_be_cancelled, NULL, .worker = 2) == 0);
    return 0;
}

static int cancel_below(void *arg)
{
    (void)arg;
    reeve_task *t;
    int r = 0;
    RV_MUST(reeve_spawn(&t, parent_of_waiter, NULL, .worker = 2) == 0);
    reeve_cancel(t);
    RV_MUST(reeve_join(t, &r, 0) == 0);
    RV_MUST(r == 0 || r == -ECANCELED);
    return 0;
}

static void cancels_below(void)
{
    root(cancel_below);
}

static const struct explore cancel_tree = {
    .name = "cancel: a grandchild that waits",
    .setup = cancels_below,
    .threads = { BOTH_WORKERS },
    .finish = model_finish,
    .preemptions = 2,
};

TEST(a_cancellation_finds_what_waits_below)
{
    explore(&cancel_tree);
}

static void cancel_from_outside(void *arg)
{
    (void)arg;
    rv_sched_cancel(&model.s, NULL);
}

static int join_waiter(void *arg)
{
    (void)arg;
    reeve_task *t;
    RV_MUST(reeve_spawn(&t, wait_to_be_cancelled, NULL, .worker = 2) == 0);
    int r = reeve_join(t, NULL, 0);
    RV_MUST(r == 0 || r == -ECANCELED);
    return 0;
}

static void joins_waiter(void)
{
    root(join_waiter);
}

static const struct explore cancel_outside = {
    .name = "cancel: from outside, joiner and child",
    .setup = joins_waiter,
    .threads = { BOTH_WORKERS, { "canceller", cancel_from_outside, NULL } },
    .finish = model_finish,
    .preemptions = 1,
};

TEST(a_cancellation_from_outside_ends_joiner_and_child)
{
    explore(&cancel_outside);
}

/* ---- groups ---- */

static int group_of_two(void *arg)
{
    (void)arg;
    reeve_group g = { 0 };
    RV_MUST(reeve_spawn(NULL, nothing, NULL, .group = &g, .worker = 2) == 0);
    RV_MUST(reeve_spawn(NULL, nothing, NULL, .group = &g) == 0);
    RV_MUST(reeve_group_wait(&g, 0) == 0);
    RV_MUST(model.count[0] == 2);
    return 0;
}

static void waits_for_group(void)
{
    root(group_of_two);
}

static const struct explore group = {
    .name = "group: two members, one elsewhere",
    .setup = waits_for_group,
    .threads = { BOTH_WORKERS },
    .finish = model_finish,
    .preemptions = 2,
};

TEST(a_group_ends_with_its_last_member)
{
    explore(&group);
}

static int fail_at_once(void *arg)
{
    (void)arg;
    return -EIO;
}

static int wait_or_skip(void *arg)
{
    (void)arg;
    int r = model_wait(0, RV_NEVER);
    RV_MUST(r == -ECANCELED);
    return r;
}

static int failing_group(void *arg)
{
    (void)arg;
    reeve_group g = { 0 };
    RV_MUST(reeve_spawn(NULL, wait_or_skip, NULL, .group = &g, .worker = 2) == 0);
    RV_MUST(reeve_spawn(NULL, fail_at_once, NULL, .group = &g, .worker = 1) == 0);
    RV_MUST(reeve_group_wait(&g, 0) == -EIO);
    return 0;
}

static void waits_for_failing(void)
{
    root(failing_group);
}

static const struct explore group_fails = {
    .name = "group: one fails, the other waits elsewhere",
    .setup = waits_for_failing,
    .threads = { BOTH_WORKERS },
    .finish = model_finish,
    .preemptions = 2,
};

TEST(a_failure_cancels_the_other_member)
{
    explore(&group_fails);
}
