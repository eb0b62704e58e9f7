/* SPDX-License-Identifier: MIT */
/*
 * mutex_test.c -- the mutex of tasks, in every order: one holds it, and whoever waits gets it, its
 * deadline or its cancellation.
 */
#include "tests/explore/explore_main.h"
#include "tests/explore/task_model.h"

#include <reeve/sync.h>

static struct reeve_mutex mutex;

static int lock_once(void *arg)
{
    (void)arg;
    RV_MUST(reeve_mutex_lock(&mutex, 0) == 0);
    model_alone();
    model.count[0]++;
    reeve_mutex_unlock(&mutex);
    return 0;
}

static int lock_twice(void *arg)
{
    lock_once(arg);
    return lock_once(arg);
}

static int lock_in_time(void *arg)
{
    (void)arg;
    int64_t until = explore_now() + 1000;
    int r = reeve_mutex_lock(&mutex, until);
    if (r == 0) {
        model_alone();
        reeve_mutex_unlock(&mutex);
    } else {
        RV_MUST(r == -ETIMEDOUT && explore_now() >= until);
    }
    return r;
}

static int lock_or_cancelled(void *arg)
{
    (void)arg;
    int r = reeve_mutex_lock(&mutex, 0);
    if (r == 0) {
        model_alone();
        reeve_mutex_unlock(&mutex);
    } else {
        RV_MUST(r == -ECANCELED);
    }
    return r;
}

static int cancel_zero(void *arg)
{
    (void)arg;
    model_cancel(0);
    return 0;
}

static void is_free(void)
{
    RV_MUST(mutex.opaque[0] == 0);
    RV_MUST(mutex.opaque[1] == 0);
}

static void tasks(reeve_fn *a, reeve_fn *b, reeve_fn *c)
{
    mutex = (struct reeve_mutex){ 0 };
    model_task(0, a);
    model_task(1, b);
    if (c)
        model_task(2, c);
}

static void two_twice(void)
{
    tasks(lock_twice, lock_twice, NULL);
}

static void four_came(void)
{
    is_free();
    RV_MUST(model.count[0] == 4);
}

static const struct explore contended = {
    .name = "mutex: two tasks, twice",
    .setup = two_twice,
    .threads = { MODEL_TASK(0), MODEL_TASK(1) },
    .finish = four_came,
    .preemptions = 4,
    .delays = 2,
};

TEST(one_task_holds_it_and_the_next_gets_it)
{
    explore(&contended);
}

static void three_once(void)
{
    tasks(lock_once, lock_once, lock_once);
}

static void three_came(void)
{
    is_free();
    RV_MUST(model.count[0] == 3);
}

static const struct explore three = {
    .name = "mutex: three tasks",
    .setup = three_once,
    .threads = { MODEL_TASK(0), MODEL_TASK(1), MODEL_TASK(2) },
    .finish = three_came,
    .preemptions = 3,
    .delays = 1,
};

TEST(of_three_tasks_none_is_forgotten)
{
    explore(&three);
}

static void one_in_time(void)
{
    tasks(lock_in_time, lock_once, lock_once);
}

static void two_came(void)
{
    is_free();
    RV_MUST(model.count[0] == 2);
}

static const struct explore deadline = {
    .name = "mutex: a deadline",
    .setup = one_in_time,
    .threads = { MODEL_TASK(0), MODEL_TASK(1), MODEL_TASK(2) },
    .finish = two_came,
    .preemptions = 3,
    .delays = 1,
};

TEST(who_leaves_at_its_deadline_leaves_no_gap)
{
    explore(&deadline);
}

static void one_cancelled(void)
{
    tasks(lock_or_cancelled, lock_once, lock_once);
    model_task(3, cancel_zero);
}

static const struct explore cancelled = {
    .name = "mutex: a cancellation",
    .setup = one_cancelled,
    .threads = { MODEL_TASK(0), MODEL_TASK(1), MODEL_TASK(2), MODEL_TASK(3) },
    .finish = two_came,
    .preemptions = 3,
};

TEST(who_is_cancelled_leaves_no_gap)
{
    explore(&cancelled);
}
