/* SPDX-License-Identifier: MIT */
/*
 * park_test.c -- sleeping and waking: runnable work never waits while every worker sleeps.
 *
 * The code is all of sched/, with two workers. Each model ends only if every wake-up that is owed
 * comes; the numbers are those of the argument in park.c.
 */
#include "tests/explore/explore_main.h"
#include "tests/explore/sched_model.h"
#include "tests/explore/world.h"

static int run_one(void *arg)
{
    (void)arg;
    model.count[0]++;
    return 0;
}

static void one_ran(void)
{
    RV_MUST(model.count[0] == 1);
    model_finish();
}

static void two_ran(void)
{
    RV_MUST(model.count[0] == 2);
    model_finish();
}

static void all_posted_ran(void)
{
    RV_MUST(model.count[0] == 1 + model.count[1]);
    model_finish();
}

/* Nobody's tick: only wakes end a sleep. */
static void no_ticks(void)
{
    model_setup();
    model.for_ever = true;
}

/* ---- (2): the injector ---- */

static void post_and_close(void *arg)
{
    (void)arg;
    model_post(run_one, NULL);
    rv_sched_close(&model.s);
}

static const struct explore post = {
    .name = "park: a post from outside",
    .setup = no_ticks,
    .threads = { MODEL_WORKER_0, MODEL_WORKER_1, { "poster", post_and_close, NULL } },
    .finish = one_ran,
    .preemptions = 2,
};

TEST(a_post_from_outside_wakes_a_sleeper)
{
    explore(&post);
}

static const struct explore post_tso = {
    .name = "park: a post from outside, store buffers",
    .setup = no_ticks,
    .threads = { MODEL_WORKER_0, MODEL_WORKER_1, { "poster", post_and_close, NULL } },
    .finish = one_ran,
    .preemptions = 1,
    .delays = 1,
};

TEST(a_post_from_outside_wakes_a_sleeper_with_store_buffers)
{
    explore(&post_tso);
}

/* The other one may have closed before. */
static void post_if_open(void *arg)
{
    (void)arg;
    int r = rv_sched_post(&model.s, &(struct reeve_spawn){ .fn = run_one });
    RV_MUST(r == 0 || r == -ESHUTDOWN);
    model.count[1] += r == 0;
}

static const struct explore two_posts = {
    .name = "park: two posters",
    .setup = no_ticks,
    .threads = { MODEL_WORKER_0, MODEL_WORKER_1,
                 { "poster 0", post_if_open, NULL },
                 { "poster 1", post_and_close, NULL } },
    .finish = all_posted_ran,
    .preemptions = 1,
};

TEST(two_posters_wake_who_is_needed)
{
    explore(&two_posts);
}

/* The first task does not end before the second has run: that takes both workers. */
static int spin_for_the_other(void *arg)
{
    (void)arg;
    model.count[0]++;
    while (rv_load_acquire(&model.word[0]) == 0)
        rv_cpu_relax();
    return 0;
}

static int release_the_other(void *arg)
{
    (void)arg;
    model.count[0]++;
    rv_store_release(&model.word[0], 1u);
    return 0;
}

static void post_both_and_close(void *arg)
{
    (void)arg;
    model_post(spin_for_the_other, NULL);
    model_post(release_the_other, NULL);
    rv_sched_close(&model.s);
}

static const struct explore both_needed = {
    .name = "park: two posts that need both workers",
    .setup = no_ticks,
    .threads = { MODEL_WORKER_0, MODEL_WORKER_1, { "poster", post_both_and_close, NULL } },
    .finish = two_ran,
    .preemptions = 2,
};

TEST(two_posts_wake_two_workers)
{
    explore(&both_needed);
}

/* ---- (1): the inbox ---- */

static void post_pinned_and_close(void *arg)
{
    struct reeve_spawn how = { .fn = run_one, .worker = (int)(intptr_t)arg };
    RV_MUST(rv_sched_post(&model.s, &how) == 0);
    rv_sched_close(&model.s);
}

static const struct explore inbox = {
    .name = "park: a message to one worker",
    .setup = no_ticks,
    .threads = { MODEL_WORKER_0, MODEL_WORKER_1,
                 { "sender", post_pinned_and_close, (void *)2 } },
    .finish = one_ran,
    .preemptions = 2,
};

TEST(a_message_wakes_the_worker_that_it_is_for)
{
    explore(&inbox);
}

static const struct explore inbox_tso = {
    .name = "park: a message to one worker, store buffers",
    .setup = no_ticks,
    .threads = { MODEL_WORKER_0, MODEL_WORKER_1,
                 { "sender", post_pinned_and_close, (void *)2 } },
    .finish = one_ran,
    .preemptions = 1,
    .delays = 2,
};

TEST(a_message_wakes_the_worker_that_it_is_for_with_store_buffers)
{
    explore(&inbox_tso);
}

static void post_pinned(void *arg)
{
    struct reeve_spawn how = { .fn = run_one, .worker = (int)(intptr_t)arg };
    RV_MUST(rv_sched_post(&model.s, &how) == 0);
    if (rv_add_acq_rel(&model.word[1], 1u) == 1)
        rv_sched_close(&model.s);
}

static const struct explore two_messages = {
    .name = "park: two messages to one worker",
    .setup = no_ticks,
    .threads = { MODEL_WORKER_0, MODEL_WORKER_1,
                 { "sender 0", post_pinned, (void *)2 },
                 { "sender 1", post_pinned, (void *)2 } },
    .finish = two_ran,
    .preemptions = 1,
};

TEST(two_messages_wake_their_worker_once_each)
{
    explore(&two_messages);
}

/* ---- (3) and (4): work that could be stolen ---- */

static int child(void *arg)
{
    (void)arg;
    model.count[0]++;
    rv_store_release(&model.word[0], 1u);
    return 0;
}

/* Does not return before its child has run: somebody else must take it. */
static int spawn_and_spin(void *arg)
{
    (void)arg;
    model.count[0]++;
    RV_MUST(reeve_spawn(NULL, child, NULL) == 0);
    while (rv_load_acquire(&model.word[0]) == 0)
        rv_cpu_relax();
    return 0;
}

static void with_parent(void)
{
    world_light_fences = false;
    model_setup();
    model_post(spawn_and_spin, NULL);
    rv_sched_close(&model.s);
}

static void with_parent_light(void)
{
    world_light_fences = true;
    model_setup();
    model_post(spawn_and_spin, NULL);
    rv_sched_close(&model.s);
}

static const struct explore spawned = {
    .name = "park: a child that only the other worker can run",
    .setup = with_parent,
    .threads = { MODEL_WORKER_0, MODEL_WORKER_1 },
    .finish = two_ran,
    .preemptions = 2,
};

TEST(stealable_work_is_found_within_a_tick)
{
    explore(&spawned);
}

static const struct explore spawned_tso = {
    .name = "park: the same with store buffers, producers fence",
    .setup = with_parent,
    .threads = { MODEL_WORKER_0, MODEL_WORKER_1 },
    .finish = two_ran,
    .preemptions = 1,
    .delays = 2,
};

TEST(stealable_work_is_found_with_store_buffers)
{
    explore(&spawned_tso);
}

static const struct explore spawned_light = {
    .name = "park: the same with store buffers, parkers use membarrier",
    .setup = with_parent_light,
    .threads = { MODEL_WORKER_0, MODEL_WORKER_1 },
    .finish = two_ran,
    .preemptions = 1,
    .delays = 2,
};

TEST(stealable_work_is_found_when_only_parkers_fence)
{
    explore(&spawned_light);
}
