/* SPDX-License-Identifier: MIT */
/*
 * wait_test.c -- one wait and all who may end it: a waker, a deadline, a cancellation, and those
 * who come too late.
 *
 * The code is all of sched/. One worker runs the task that waits, so that the other threads are
 * free to come at any point of its parking; with two workers it is resumed on either.
 */
#include "tests/explore/explore_main.h"
#include "tests/explore/sched_model.h"

static void one_worker(reeve_fn *fn)
{
    model_setup_with(1);
    model_post(fn, NULL);
    rv_sched_close(&model.s);
}

static void two_workers(reeve_fn *fn)
{
    model_setup_with(2);
    model_post(fn, NULL);
    rv_sched_close(&model.s);
}

static void set_first(void *arg)
{
    (void)arg;
    model_set(0);
}

static void cancel_all(void *arg)
{
    (void)arg;
    rv_sched_cancel(&model.s, NULL);
}

/* ---- a waker ---- */

static int wait_for_ever(void *arg)
{
    (void)arg;
    RV_MUST(model_wait(0, RV_NEVER) == 0);
    model.count[0]++;
    return 0;
}

static void woken_task(void)
{
    one_worker(wait_for_ever);
}

static void woken_task_of_two(void)
{
    two_workers(wait_for_ever);
}

static void came_back(void)
{
    RV_MUST(model.count[0] == 1);
    model_finish();
}

static const struct explore woken = {
    .name = "wait: park and fire",
    .setup = woken_task,
    .threads = { MODEL_WORKER_0, { "waker", set_first, NULL } },
    .finish = came_back,
    .preemptions = 4,
    .delays = 2,
};

TEST(a_waker_ends_the_wait_whenever_it_comes)
{
    explore(&woken);
}

static const struct explore woken_of_two = {
    .name = "wait: park and fire, two workers",
    .setup = woken_task_of_two,
    .threads = { MODEL_WORKER_0, MODEL_WORKER_1, { "waker", set_first, NULL } },
    .finish = came_back,
    .preemptions = 1,
    .delays = 1,
};

TEST(a_woken_task_goes_on_once_on_one_of_two_workers)
{
    explore(&woken_of_two);
}

/* ---- a cancellation ---- */

static int wait_or_cancelled(void *arg)
{
    (void)arg;
    int r = model_wait(0, RV_NEVER);
    RV_MUST(r == 0 || r == -ECANCELED);
    model.count[0]++;
    model.result[0] = r;
    return 0;
}

static void cancelled_task(void)
{
    one_worker(wait_or_cancelled);
}

/* It may be cancelled before it began. */
static void came_back_or_skipped(void)
{
    struct rv_counters *n = &model.s.workers[0]->n;
    RV_MUST(model.count[0] + rv_load_relaxed(&n->skipped) == 1);
    model_finish();
}

static const struct explore cancelled = {
    .name = "wait: park and cancel",
    .setup = cancelled_task,
    .threads = { MODEL_WORKER_0, { "canceller", cancel_all, NULL } },
    .finish = came_back_or_skipped,
    .preemptions = 3,
    .delays = 1,
};

TEST(a_cancellation_ends_the_wait_whenever_it_comes)
{
    explore(&cancelled);
}

static const struct explore fired_and_cancelled = {
    .name = "wait: fire and cancel",
    .setup = cancelled_task,
    .threads = { MODEL_WORKER_0,
                 { "canceller", cancel_all, NULL },
                 { "waker", set_first, NULL } },
    .finish = came_back_or_skipped,
    .preemptions = 3,
};

TEST(of_waker_and_canceller_one_ends_the_wait)
{
    explore(&fired_and_cancelled);
}

/* ---- a deadline ---- */

static int wait_until(void *arg)
{
    (void)arg;
    int64_t until = explore_now() + 1000;
    int r = model_wait(0, until);
    RV_MUST(r == 0 || (r == -ETIMEDOUT && explore_now() >= until));
    model.count[0]++;
    return 0;
}

static void timed_task(void)
{
    one_worker(wait_until);
}

static const struct explore timed = {
    .name = "wait: fire and time out",
    .setup = timed_task,
    .threads = { MODEL_WORKER_0, { "waker", set_first, NULL } },
    .finish = came_back,
    .preemptions = 3,
    .delays = 2,
};

TEST(of_waker_and_deadline_one_ends_the_wait)
{
    explore(&timed);
}

static int wait_until_or_cancelled(void *arg)
{
    (void)arg;
    int64_t until = explore_now() + 1000;
    int r = model_wait(0, until);
    RV_MUST(r == 0 || r == -ECANCELED || (r == -ETIMEDOUT && explore_now() >= until));
    model.count[0]++;
    return 0;
}

static void timed_cancelled_task(void)
{
    one_worker(wait_until_or_cancelled);
}

static const struct explore all_three = {
    .name = "wait: fire, time out and cancel",
    .setup = timed_cancelled_task,
    .threads = { MODEL_WORKER_0,
                 { "canceller", cancel_all, NULL },
                 { "waker", set_first, NULL } },
    .finish = came_back_or_skipped,
    .preemptions = 2,
};

TEST(of_waker_deadline_and_canceller_one_ends_the_wait)
{
    explore(&all_three);
}

/* ---- those who come too late ---- */

/* The first wait ends by its deadline or by the first waker, who has its token in either case. The
 * second ends only when it is told to. */
static int wait_twice(void *arg)
{
    (void)arg;
    struct rv_worker *w = rv_worker_self();
    struct rv_task *t = w->cur;
    uint64_t token = rv_wait_arm(w->sched, t, 0);
    rv_store_release(&model.token[1], token);
    int why = rv_wait_park(w, t, explore_now() + 1000);
    RV_MUST(why == RV_WOKEN || why == RV_TIMED_OUT);
    model.result[1] = why;

    RV_MUST(model_wait(0, RV_NEVER) == 0);
    RV_MUST(rv_load_relaxed(&model.word[0]) == 1);
    model.count[0]++;
    return 0;
}

static void waits_twice(void)
{
    one_worker(wait_twice);
}

static void fire_first_wait(void *arg)
{
    (void)arg;
    uint64_t token = rv_load_acquire(&model.token[1]);
    if (token != 0)
        model.result[2] = rv_wait_fire(&model.s, NULL, token, RV_WOKEN, UINT32_MAX);
}

static void set_second(void *arg)
{
    (void)arg;
    rv_store_release(&model.word[0], 1u);
    model_set(0);
}

static void who_fired_ended_it(void)
{
    RV_MUST(model.result[1] == (model.result[2] ? RV_WOKEN : RV_TIMED_OUT));
    came_back();
}

static const struct explore late = {
    .name = "wait: a token of the last wait",
    .setup = waits_twice,
    .threads = { MODEL_WORKER_0,
                 { "late", fire_first_wait, NULL },
                 { "waker", set_second, NULL } },
    .finish = who_fired_ended_it,
    .preemptions = 3,
};

TEST(a_late_token_does_not_end_the_next_wait)
{
    explore(&late);
}
