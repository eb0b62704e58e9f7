/* SPDX-License-Identifier: MIT */
/*
 * spawn_test.c -- sched/spawn.c: what task.h says about spawn, join and groups, and its misuse.
 */
#define CHECK_MAIN
#include "tests/sched/host.h"

#include <alloca.h>

/* ---- join runs the child ---- */

/* What a child saw of the place where it ran. */
struct place {
    unsigned char *frame;
    struct rv_stack *on;
    uint32_t worker;
    unsigned runs;
    int result;
};

static int look(void *arg)
{
    struct place *p = arg;
    p->frame = __builtin_frame_address(0);
    p->on = rv_worker_self()->on;
    p->worker = rv_worker_self()->index;
    p->runs++;
    return p->result;
}

/* Spawns look() as *how says, joins it, and says whether it ran on the joiner's stack, which the
 * counter of inline runs must confirm. */
static bool joined_inline(struct place *p, const struct reeve_spawn *how, reeve_time until)
{
    struct reeve_spawn spawn = *how;
    reeve_task *t;
    int result = -1;
    spawn.fn = look;
    spawn.arg = p;
    p->runs = 0;
    CHECK_OK(reeve_spawn_with(&t, &spawn));
    CHECK_EQ(p->runs, 0);
    uint64_t before = host_counts(host_self()).inline_runs;
    CHECK_OK(reeve_join(t, &result, until));
    CHECK_EQ(result, p->result);
    CHECK_EQ(p->runs, 1);
    struct rv_stack *on = rv_worker_self()->on;
    unsigned char *frame = __builtin_frame_address(0);
    bool same = p->on == on;
    CHECK_EQ(same, p->frame >= on->low && p->frame < frame);
    CHECK_EQ(host_counts(host_self()).inline_runs - before, same);
    return same;
}

static int joins_inline(void *arg)
{
    (void)arg;
    struct place p = { .result = 7 };
    CHECK(joined_inline(&p, &(struct reeve_spawn){ 0 }, 0));
    CHECK(joined_inline(&p, &(struct reeve_spawn){ .copy = 0, .priority = REEVE_LOW }, 0));
    CHECK(joined_inline(&p, &(struct reeve_spawn){ .stack_bytes = 4096 }, 0));
    return 0;
}

TEST(join_runs_an_unstarted_child_on_the_joiners_stack)
{
    CHECK_EQ(host_run_virtual(1, joins_inline, NULL), 0);
}

static int joins_a_large_child(void *arg)
{
    (void)arg;
    struct place p = { 0 };
    CHECK(!joined_inline(&p, &(struct reeve_spawn){ .stack_bytes = 1 << 20 }, 0));
    return 0;
}

TEST(a_child_that_was_promised_more_stack_than_is_left_gets_its_own)
{
    CHECK_EQ(host_run_virtual(1, joins_a_large_child, NULL), 0);
}

static int joins_deep_down(void *arg)
{
    (void)arg;
    struct place p = { 0 };
    struct rv_stack *on = rv_worker_self()->on;
    size_t promise = rv_stack_promise(1);
    size_t room = rv_stack_room(on, __builtin_frame_address(0));
    volatile unsigned char *used = alloca(room - promise + 1);
    used[0] = 1;
    CHECK(!joined_inline(&p, &(struct reeve_spawn){ 0 }, 0));
    CHECK(joined_inline(&p, &(struct reeve_spawn){ .stack_bytes = 16384 }, 0));
    return 0;
}

TEST(a_joiner_that_used_up_its_stack_gives_its_child_another)
{
    CHECK_EQ(host_run_virtual(1, joins_deep_down, NULL), 0);
}

enum { LEVELS = 20000 };

static int joins_below(void *arg)
{
    uintptr_t level = (uintptr_t)arg;
    reeve_task *t;
    int depth = 0;
    if (level == 0)
        return 0;
    CHECK_OK(reeve_spawn(&t, joins_below, (void *)(level - 1)));
    CHECK_OK(reeve_join(t, &depth, 0));
    return depth + 1;
}

TEST(joins_nested_as_deep_as_you_like_do_not_overflow)
{
    struct host *h = host_create_with(
        &(struct host_opts){ .tasks_max = LEVELS + 10, .virtual = true, .pass_picks = INT32_MAX });
    int levels = (int)host_times(LEVELS);
    CHECK_EQ(host_run_on(h, joins_below, (void *)(uintptr_t)levels), levels);
    CHECK_LT(host_counts(h).inline_runs, (unsigned)levels); /* some stacks were too short */
    CHECK_GT(host_counts(h).inline_runs, (unsigned)levels / 2);
    host_destroy(h);
}

static int joins_by_deadline(void *arg)
{
    (void)arg;
    struct place p = { 0 };
    reeve_time soon = reeve_in(REEVE_SEC), later = reeve_in(2 * REEVE_SEC);
    CHECK(!joined_inline(&p, &(struct reeve_spawn){ 0 }, soon)); /* it could run for ever */
    CHECK(!joined_inline(&p, &(struct reeve_spawn){ .deadline = later }, soon));
    CHECK(joined_inline(&p, &(struct reeve_spawn){ .deadline = soon }, soon));
    CHECK(joined_inline(&p, &(struct reeve_spawn){ .deadline = soon }, later));
    CHECK(joined_inline(&p, &(struct reeve_spawn){ .deadline = later }, 0));
    return 0;
}

TEST(a_child_that_may_run_longer_than_the_join_is_not_run_inline)
{
    CHECK_EQ(host_run_virtual(1, joins_by_deadline, NULL), 0);
}

static int inherits_its_deadline(void *arg)
{
    (void)arg;
    struct place p = { 0 };
    CHECK(joined_inline(&p, &(struct reeve_spawn){ 0 }, 0));
    CHECK(joined_inline(&p, &(struct reeve_spawn){ .deadline = reeve_in(9 * REEVE_SEC) }, 0));
    return 0;
}

static int spawns_with_a_deadline(void *arg)
{
    (void)arg;
    reeve_task *t;
    int result = -1;
    CHECK_OK(reeve_spawn(&t, inherits_its_deadline, NULL, .deadline = reeve_in(REEVE_SEC)));
    CHECK_OK(reeve_join(t, &result, 0));
    return result;
}

TEST(a_joiner_with_a_deadline_of_its_own_runs_its_children_inline)
{
    CHECK_EQ(host_run_virtual(1, spawns_with_a_deadline, NULL), 0);
}

static int joins_pinned(void *arg)
{
    (void)arg;
    for (int worker = 1; worker <= 3; worker++) {
        struct place p = { 0 };
        uint32_t me = rv_worker_self()->index;
        bool same = joined_inline(&p, &(struct reeve_spawn){ .worker = worker }, 0);
        CHECK_EQ(p.worker, worker - 1);
        CHECK(!same || p.worker == me);
    }
    return 0;
}

TEST(a_child_that_is_pinned_elsewhere_is_not_run_inline)
{
    CHECK_EQ(host_run_virtual(3, joins_pinned, NULL), 0);
}

static int count_up(void *arg)
{
    ++*(unsigned *)arg;
    return 0;
}

static int join_in_a_loop(void *arg)
{
    unsigned *others = arg, runs = 0;
    reeve_task *t;
    CHECK_OK(reeve_go(count_up, others));
    for (unsigned i = 1; i <= 200; i++) {
        CHECK_OK(reeve_spawn(&t, count_up, &runs));
        CHECK_OK(reeve_join(t, NULL, 0));
        CHECK_EQ(runs, i);
        if (i < 50)
            CHECK_EQ(*others, 0); /* newest first: it is the older entry */
        if (i > 61)
            CHECK_EQ(*others, 1);
    }
    return 0;
}

TEST(a_join_whose_pass_has_no_picks_left_lets_another_task_run_first)
{
    unsigned others = 0;
    CHECK_EQ(host_run_virtual(1, join_in_a_loop, &others), 0);
}

/* Takes at least a millisecond of real time. */
static int burn(void *arg)
{
    (void)arg;
    int64_t end = rv_clock_ns() + REEVE_MS;
    while (rv_clock_ns() < end)
        rv_cpu_relax();
    return 0;
}

static int join_slow_children(void *arg)
{
    unsigned *others = arg;
    reeve_task *t;
    CHECK_OK(reeve_go(count_up, others));
    for (unsigned i = 1; i <= 20; i++) {
        CHECK_OK(reeve_spawn(&t, burn, NULL));
        CHECK_OK(reeve_join(t, NULL, 0));
        if (i > 9)
            CHECK_EQ(*others, 1); /* 100 us, looked at every 8th pick */
    }
    return 0;
}

TEST(a_join_whose_pass_has_no_time_left_lets_another_task_run_first)
{
    unsigned others = 0;
    CHECK_EQ(host_run(1, 100, join_slow_children, &others), 0);
}

static int hands_its_child_up(void *arg)
{
    return reeve_spawn(arg, count_up, host_self()->arg) < 0 ? -1 : 0;
}

static int hands_a_group_member_up(void *arg)
{
    reeve_group g = { 0 };
    CHECK_OK(reeve_spawn(arg, count_up, host_self()->arg, .group = &g));
    return reeve_group_wait(&g, 0);
}

/* The child's scope ends before the join: only what an unended scope holds may be joined. */
static int joins_a_grandchild(void *arg)
{
    unsigned *runs = arg;
    reeve_task *child, *grandchild;
    struct rv_task *me = rv_worker_self()->cur;
    CHECK_OK(reeve_spawn(&child, hands_its_child_up, &grandchild));
    while (rv_load_relaxed(&rv_task_of(me ? host_self()->arg ? &host_self()->s : NULL : NULL, child,
                                       "test")
                                ->st) &
           RV_ST_QUEUED)
        reeve_sleep(0);
    CHECK_OK(reeve_join(grandchild, NULL, 0));
    CHECK_EQ(*runs, 1);
    CHECK_OK(reeve_join(child, NULL, 0));
    return 0;
}
