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

/* Has waited before, so that it is among the woken tasks and not under the joiner's children. */
static int count_turns(void *arg)
{
    unsigned *turns = arg;
    for (;;) {
        int r = reeve_sleep(0);
        if (r < 0)
            return r;
        ++*turns;
    }
}

static int join_in_a_loop(void *arg)
{
    unsigned *turns = arg, runs = 0, before = 0;
    reeve_task *t, *other;
    CHECK_OK(reeve_spawn(&other, count_turns, turns));
    while (*turns == 0)
        reeve_sleep(0);
    before = *turns;
    for (unsigned i = 1; i <= 10 * 61; i++) {
        CHECK_OK(reeve_spawn(&t, count_up, &runs));
        CHECK_OK(reeve_join(t, NULL, 0));
        CHECK_EQ(runs, i);
        CHECK_GE(*turns - before, i / 61);
        CHECK_LE(*turns - before, i); /* most of the joins were inline */
    }
    reeve_cancel(other);
    return 0;
}

TEST(a_join_whose_pass_has_no_picks_left_lets_another_task_run_first)
{
    unsigned turns = 0;
    CHECK_EQ(host_run_virtual(1, join_in_a_loop, &turns), 0);
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
    unsigned *turns = arg, before;
    reeve_task *t, *other;
    CHECK_OK(reeve_spawn(&other, count_turns, turns));
    while (*turns == 0)
        reeve_sleep(0);
    before = *turns;
    for (unsigned i = 1; i <= 40; i++) {
        CHECK_OK(reeve_spawn(&t, burn, NULL));
        CHECK_OK(reeve_join(t, NULL, 0));
        CHECK_GE(*turns - before, i / 10); /* 100 us, looked at every 8th pick */
    }
    reeve_cancel(other);
    return 0;
}

TEST(a_join_whose_pass_has_no_time_left_lets_another_task_run_first)
{
    unsigned turns = 0;
    CHECK_EQ(host_run(1, 100, join_slow_children, &turns), 0);
}

/* Children that hand their own children's handles up. */
struct family {
    reeve_task *child, *grandchild;
    struct host_event born, over;
    struct place place;
};

static int hands_its_child_up(void *arg)
{
    struct family *f = arg;
    CHECK_OK(reeve_spawn(&f->grandchild, look, &f->place));
    host_set(host_self(), &f->born);
    return host_wait(&f->over, 0);
}

static int joins_a_grandchild(void *arg)
{
    struct family *f = arg;
    CHECK_OK(reeve_spawn(&f->child, hands_its_child_up, f));
    CHECK_OK(host_wait(&f->born, 0));
    CHECK_OK(reeve_join(f->grandchild, NULL, 0));
    CHECK_EQ(f->place.runs, 1);
    CHECK(f->place.on == rv_worker_self()->on);
    host_set(host_self(), &f->over);
    return reeve_join(f->child, NULL, 0);
}

TEST(a_grandchild_is_run_inline_as_a_child_is)
{
    struct family f = { 0 };
    CHECK_EQ(host_run_virtual(1, joins_a_grandchild, &f), 0);
}

static int joins_its_sibling(void *arg)
{
    struct family *f = arg;
    CHECK_OK(reeve_join(f->grandchild, NULL, 0));
    CHECK_EQ(f->place.runs, 1);
    CHECK(f->place.on != rv_worker_self()->on);
    return 0;
}

static int has_two_children(void *arg)
{
    struct family *f = arg;
    CHECK_OK(reeve_spawn(&f->grandchild, look, &f->place));
    CHECK_OK(reeve_spawn(&f->child, joins_its_sibling, f));
    return reeve_join(f->child, NULL, 0);
}

TEST(a_sibling_is_not_run_inline_since_cancelling_its_joiner_would_not_reach_it)
{
    struct family f = { 0 };
    CHECK_EQ(host_run_virtual(1, has_two_children, &f), 0);
}

/* ---- results and arguments ---- */

static int gives(void *arg)
{
    return (int)(intptr_t)arg;
}

static int joins_for_results(void *arg)
{
    (void)arg;
    const int results[] = { 0, 1, INT32_MAX, -1, -EPERM, INT32_MIN };
    for (unsigned i = 0; i < sizeof results / sizeof *results; i++) {
        reeve_task *a, *b, *c;
        int result = 99;
        void *what = (void *)(intptr_t)results[i];
        CHECK_OK(reeve_spawn(&a, gives, what)); /* claimed while its entry lies under b's and c's */
        CHECK_OK(reeve_spawn(&b, gives, what));
        CHECK_OK(reeve_spawn(&c, gives, what));
        CHECK_EQ(reeve_join(a, &result, 0), 0);
        CHECK_EQ(result, results[i]);
        reeve_sleep(0); /* c, or both, run on stacks of their own */
        result = 99;
        CHECK_EQ(reeve_join(b, &result, 0), 0);
        CHECK_EQ(result, results[i]);
        CHECK_EQ(reeve_join(c, NULL, 0), 0);
    }
    return 0;
}

TEST(join_gives_the_result_of_the_function)
{
    CHECK_EQ(host_run_virtual(1, joins_for_results, NULL), 0);
    CHECK_EQ(host_run_virtual(3, joins_for_results, NULL), 0);
}

struct bytes {
    size_t n;
    unsigned char b[65536 + 1];
};

static size_t bytes_expected;

static unsigned char pattern(size_t i)
{
    return (unsigned char)(i * 31 + i / 256 + 5);
}

static int check_bytes_are_there(void *arg)
{
    unsigned char *b = arg;
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < bytes_expected; i++)
            CHECK_EQ(b[i], pattern(i));
        reeve_sleep(0);
    }
    memset(b, 0xee, bytes_expected); /* it is the task's own */
    return 0;
}

static int copies(void *arg)
{
    struct bytes *from = arg;
    const size_t sizes[] = { 1, 7, 8, 47, 48, 49, 64, 4096, 65535, 65536 };
    reeve_task *t;
    for (unsigned k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        bytes_expected = sizes[k];
        for (size_t i = 0; i < sizes[k]; i++)
            from->b[i] = pattern(i);
        CHECK_OK(reeve_spawn(&t, check_bytes_are_there, from->b, .copy = sizes[k]));
        memset(from->b, 0, sizes[k]);
        CHECK_OK(reeve_join(t, NULL, 0));
        CHECK_EQ(from->b[0], 0);
    }
    t = (reeve_task *)arg;
    CHECK_EQ(reeve_spawn(&t, check_bytes_are_there, from->b, .copy = 65537), -E2BIG);
    CHECK_EQ(reeve_spawn(&t, check_bytes_are_there, from->b, .copy = SIZE_MAX), -E2BIG);
    CHECK(t == (reeve_task *)arg);
    return 0;
}

TEST(a_copied_argument_may_have_up_to_64_kib)
{
    struct bytes *from = calloc(1, sizeof *from);
    CHECK_EQ(host_run_virtual(1, copies, from), 0);
    free(from);
}

static int sees_its_argument(void *arg)
{
    CHECK_EQ((uintptr_t)arg % 16, 0);
    return 0;
}

static int copies_small_and_large(void *arg)
{
    for (size_t n = 1; n < 200; n++)
        CHECK_OK(reeve_go(sees_its_argument, arg, .copy = n));
    return 0;
}

TEST(a_copied_argument_is_aligned_for_any_type)
{
    struct bytes *from = calloc(1, sizeof *from);
    CHECK_EQ(host_run_virtual(1, copies_small_and_large, from), 0);
    free(from);
}

static void must_not_be_skipped(void *arg)
{
    (void)arg;
    CHECK(!"a spawn that failed called .skipped");
}

static int spawns_badly(void *arg)
{
    (void)arg;
    static int something;
    const struct reeve_spawn bad[] = {
        { .fn = NULL },
        { .fn = look, .copy = 1 },
        { .fn = look, .arg = &something, .copy = 1, .deadline = -1 },
        { .fn = look, .deadline = REEVE_POLL },
        { .fn = look, .deadline = INT64_MIN },
        { .fn = look, .priority = -1 },
        { .fn = look, .priority = REEVE_URGENT + 1 },
        { .fn = look, .priority = INT32_MAX },
        { .fn = look, .worker = -1 },
        { .fn = look, .worker = 3 },
        { .fn = look, .worker = INT32_MAX },
        { .fn = look, .stack_bytes = 1 },
        { .fn = look, .stack_bytes = 4095 },
        { .fn = look, .stack_bytes = (1 << 20) + 1 },
        { .fn = look, .stack_bytes = SIZE_MAX },
    };
    reeve_task *const untouched = (reeve_task *)&something;
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct reeve_spawn how = bad[i];
        reeve_group g = { 0 };
        reeve_task *t = untouched;
        how.skipped = must_not_be_skipped;
        CHECK_EQ(reeve_spawn_with(&t, &how), -EINVAL);
        CHECK(t == untouched);
        how.group = &g;
        CHECK_EQ(reeve_spawn_with(NULL, &how), -EINVAL);
        CHECK_EQ(g.opaque, 0);
    }
    return 0;
}

TEST(an_argument_out_of_range_is_refused_and_changes_nothing)
{
    CHECK_EQ(host_run_virtual(2, spawns_badly, NULL), 0);
}

static int spawns_well(void *arg)
{
    for (int priority = REEVE_LOW; priority <= REEVE_URGENT; priority++)
        CHECK_OK(reeve_go(count_up, arg, .priority = priority));
    for (int worker = 0; worker <= 2; worker++)
        CHECK_OK(reeve_go(count_up, arg, .worker = worker));
    CHECK_OK(reeve_go(count_up, arg, .stack_bytes = 4096));
    CHECK_OK(reeve_go(count_up, arg, .stack_bytes = 1 << 20));
    CHECK_OK(reeve_go(count_up, arg, .deadline = INT64_MAX));
    CHECK_OK(reeve_go(count_up, arg, .name = "counter"));
    return 0;
}

TEST(the_ends_of_each_argument_are_in_range)
{
    unsigned n = 0;
    CHECK_EQ(host_run_virtual(2, spawns_well, &n), 0);
    CHECK_EQ(n, 11);
}

static uint8_t class_seen;

static int notes_its_class(void *arg)
{
    (void)arg;
    class_seen = (uint8_t)rv_cls(rv_worker_self()->cur);
    return 0;
}

static int spawns_notes_its_class(void *arg)
{
    reeve_task *t;
    CHECK_OK(reeve_spawn(&t, notes_its_class, NULL, .priority = (int)(intptr_t)arg));
    return reeve_join(t, NULL, 0);
}

static int spawns_by_class(void *arg)
{
    (void)arg;
    reeve_task *t;
    CHECK_EQ(rv_cls(rv_worker_self()->cur), REEVE_NORMAL);
    CHECK_OK(spawns_notes_its_class(NULL));
    CHECK_EQ(class_seen, REEVE_NORMAL);
    CHECK_OK(reeve_spawn(&t, spawns_notes_its_class, NULL, .priority = REEVE_HIGH));
    CHECK_OK(reeve_join(t, NULL, 0));
    CHECK_EQ(class_seen, REEVE_HIGH);
    CHECK_OK(reeve_spawn(&t, spawns_notes_its_class, (void *)REEVE_LOW, .priority = REEVE_HIGH));
    CHECK_OK(reeve_join(t, NULL, 0));
    CHECK_EQ(class_seen, REEVE_LOW);
    return 0;
}

TEST(an_unsaid_priority_is_the_spawners)
{
    CHECK_EQ(host_run_virtual(1, spawns_by_class, NULL), 0);
}

/* ---- limits ---- */

enum { TASKS_MAX = 300 };

static int fills_up(void *arg)
{
    unsigned *ran = arg, n = 0, counted = 0;
    reeve_group empty = { 0 };
    struct host *h = host_self();
    int r;
    while ((r = reeve_go(count_up, ran)) == 0)
        n++;
    CHECK_EQ(r, -EAGAIN);
    CHECK_GE(n, TASKS_MAX - 1); /* this one lives, too */
    CHECK_LE(n, h->s.tasks.cap);
    reeve_task *t = (reeve_task *)arg;
    CHECK_EQ(reeve_spawn(&t, count_up, &counted, .skipped = must_not_be_skipped), -EAGAIN);
    CHECK(t == (reeve_task *)arg);
    CHECK_EQ(reeve_go(count_up, &counted, .group = &empty), -EAGAIN);
    CHECK_EQ(empty.opaque, 0);
    while (*ran < n)
        reeve_sleep(0);
    for (unsigned i = 0; i < n; i++)
        CHECK_OK(reeve_go(count_up, ran));
    CHECK_EQ(counted, 0);
    return (int)n;
}

TEST(at_tasks_max_a_spawn_says_eagain_until_one_is_done)
{
    unsigned ran = 0;
    struct host *h =
        host_create_with(&(struct host_opts){ .tasks_max = TASKS_MAX, .virtual = true });
    int n = host_run_on(h, fills_up, &ran);
    CHECK_EQ(ran, 2 * n);
    host_destroy(h);
}

static int fails_the_first_spawn(void *arg)
{
    unsigned char some[100] = { 0 };
    reeve_group g = { 0 };
    rv_fault_only("alloc");
    rv_fault_fail_nth(1);
    CHECK_EQ(reeve_go(count_up, some, .copy = sizeof some, .group = &g), -ENOMEM);
    rv_fault_off();
    CHECK_EQ(g.opaque, 0);
    (void)arg;
    return 0; /* and it need not wait for the group that never began */
}

TEST(a_first_spawn_that_fails_leaves_the_group_empty)
{
    if (!rv_fault_available())
        SKIP("built without fault points");
    CHECK_EQ(host_run_virtual(1, fails_the_first_spawn, NULL), 0);
}

/* What is claimed by its joiner leaves its queue entry behind for a while; these patterns leave
 * the most. */
static int spawns_eight_and_joins(void *arg)
{
    int order = (int)(intptr_t)arg;
    unsigned runs = 0, rounds = host_times(125000);
    for (unsigned i = 0; i < rounds; i++) {
        reeve_task *t[8];
        for (int k = 0; k < 8; k++)
            CHECK_OK(reeve_spawn(&t[k], count_up, &runs));
        for (int k = 0; k < 8; k++)
            CHECK_OK(reeve_join(t[order > 0 ? k : order < 0 ? 7 - k : (k * 5 + (int)i) % 8], NULL,
                                0));
    }
    CHECK_EQ(runs, 8 * rounds);
    CHECK_LE(rv_deque_len(&rv_worker_self()->lane[RV_NORMAL].deque), 8);
    return 0;
}

TEST(a_million_spawns_joined_in_order_leave_no_stale_entries)
{
    CHECK_EQ(host_run(1, 1000, spawns_eight_and_joins, (void *)1), 0);
}

TEST(a_million_spawns_joined_backwards_leave_no_stale_entries)
{
    CHECK_EQ(host_run(1, 1000, spawns_eight_and_joins, (void *)-1), 0);
}

TEST(a_million_spawns_joined_in_any_order_leave_no_stale_entries)
{
    CHECK_EQ(host_run(1, 1000, spawns_eight_and_joins, (void *)0), 0);
}

static RV_ATOMIC(unsigned) shared_runs;

static int count_shared(void *arg)
{
    (void)arg;
    rv_add_relaxed(&shared_runs, 1u);
    return 0;
}

static int spawns_eight_among_thieves(void *arg)
{
    (void)arg;
    unsigned rounds = host_times(40000);
    rv_store_relaxed(&shared_runs, 0u);
    for (unsigned i = 0; i < rounds; i++) {
        reeve_task *t[8];
        for (int k = 0; k < 8; k++)
            CHECK_OK(reeve_spawn(&t[k], count_shared, NULL));
        for (int k = 0; k < 8; k++)
            CHECK_OK(reeve_join(t[k], NULL, 0));
    }
    CHECK_EQ(rv_load_relaxed(&shared_runs), 8 * rounds);
    return 0;
}

TEST(spawns_and_joins_among_thieves_stay_within_a_thousand_tasks)
{
    CHECK_EQ(host_run(4, 1000, spawns_eight_among_thieves, NULL), 0);
}

/* ---- joins that end otherwise ---- */

static int joins_too_early(void *arg)
{
    struct host_event *e = arg;
    reeve_task *t;
    int result = 77;
    CHECK_OK(reeve_spawn(&t, host_waiter, e));
    CHECK_EQ(reeve_join(t, &result, REEVE_POLL), -ETIMEDOUT);
    CHECK_EQ(reeve_join(t, &result, reeve_in(REEVE_SEC)), -ETIMEDOUT);
    CHECK_EQ(reeve_join(t, &result, REEVE_POLL), -ETIMEDOUT);
    CHECK_EQ(result, 77);
    host_set(host_self(), e);
    CHECK_EQ(reeve_join(t, &result, 0), 0);
    CHECK_EQ(result, 0);
    return 0;
}

TEST(a_join_that_timed_out_can_be_made_again)
{
    struct host_event e = { 0 };
    CHECK_EQ(host_run_virtual(1, joins_too_early, &e), 0);
}

static int joins_what_is_over(void *arg)
{
    (void)arg;
    reeve_task *t;
    int result = 77;
    CHECK_OK(reeve_spawn(&t, gives, (void *)5));
    reeve_sleep(reeve_in(REEVE_SEC));
    CHECK_EQ(reeve_join(t, &result, REEVE_POLL), 0);
    CHECK_EQ(result, 5);
    return 0;
}

TEST(a_result_that_is_there_beats_a_deadline_that_has_passed)
{
    CHECK_EQ(host_run_virtual(1, joins_what_is_over, NULL), 0);
}

/* As cleanup does that has to wait. */
static int waits_in_spite_of_all(void *arg)
{
    struct rv_task *cur = rv_worker_self()->cur;
    rv_wait_mask(cur, true);
    int r = host_wait(arg, 0);
    rv_wait_mask(cur, false);
    return r;
}

static int joins_and_is_cancelled(void *arg)
{
    struct host_event *e = arg;
    reeve_task *t, *over;
    int result = 77;
    CHECK_OK(reeve_spawn(&over, gives, (void *)5));
    CHECK_OK(reeve_spawn(&t, waits_in_spite_of_all, e));
    reeve_sleep(reeve_in(REEVE_US)); /* both start by themselves */
    CHECK_EQ(reeve_join(t, &result, 0), -ECANCELED);
    CHECK_EQ(reeve_join(t, &result, reeve_in(REEVE_SEC)), -ECANCELED);
    CHECK_EQ(result, 77);
    CHECK_EQ(reeve_join(over, &result, 0), 0); /* that was already there */
    CHECK_EQ(result, 5);
    host_set(host_self(), e);
    return 6;
}

static int cancels_a_joiner(void *arg)
{
    reeve_task *t;
    int result = 77;
    CHECK_OK(reeve_spawn(&t, joins_and_is_cancelled, arg));
    CHECK_OK(reeve_sleep(reeve_in(REEVE_SEC)));
    reeve_cancel(t);
    CHECK_EQ(reeve_join(t, &result, 0), 0);
    CHECK_EQ(result, 6);
    return 0;
}

TEST(a_cancelled_joiner_hears_so_unless_the_result_is_there)
{
    struct host_event e = { 0 };
    CHECK_EQ(host_run_virtual(1, cancels_a_joiner, &e), 0);
}

/* A stranger holds the handle of a task whose scope ends at the same moment as the task. */
struct relay {
    reeve_task *handle;
    struct host_event given, go;
    bool joining;
    int result;
};

static int owner_of_the_scope(void *arg)
{
    struct relay *r = arg;
    CHECK_OK(reeve_spawn(&r->handle, host_waiter, &r->go));
    host_set(host_self(), &r->given);
    return 0;
}

static int stranger(void *arg)
{
    struct relay *r = arg;
    CHECK_OK(host_wait(&r->given, 0));
    r->joining = true;
    CHECK_OK(reeve_join(r->handle, &r->result, 0));
    return 0;
}

static int relays(void *arg)
{
    struct relay *r = arg;
    unsigned rounds = host_times(2000);
    for (unsigned i = 0; i < rounds; i++) {
        reeve_task *owner, *joiner;
        memset(r, 0, sizeof *r);
        r->result = 77;
        CHECK_OK(reeve_spawn(&joiner, stranger, r));
        CHECK_OK(reeve_spawn(&owner, owner_of_the_scope, r));
        while (!r->joining)
            reeve_sleep(0);
        host_set(host_self(), &r->go);
        CHECK_OK(reeve_join(owner, NULL, 0));
        CHECK_OK(reeve_join(joiner, NULL, 0));
        CHECK_EQ(r->result, 0);
    }
    return 0;
}

TEST(a_join_from_outside_the_scope_is_safe_when_the_scope_ends_meanwhile)
{
    struct relay r;
    CHECK_EQ(host_run_virtual(1, relays, &r), 0);
    CHECK_EQ(host_run_virtual(3, relays, &r), 0);
}

/* ---- groups ---- */

static int waits_for_a_group(void *arg)
{
    unsigned *runs = arg;
    reeve_group g = { 0 };
    CHECK_EQ(reeve_group_wait(&g, 0), 0); /* empty */
    reeve_group_cancel(&g);
    for (unsigned round = 1; round <= 3; round++) { /* it can be used again */
        uint64_t before = host_counts(host_self()).inline_runs;
        for (int i = 0; i < 10; i++)
            CHECK_OK(reeve_go(count_up, runs, .group = &g));
        CHECK_NE(g.opaque, 0);
        CHECK_EQ(reeve_group_wait(&g, 0), 0);
        CHECK_EQ(g.opaque, 0);
        CHECK_EQ(*runs, 10 * round);
        if (host_self()->s.nworkers == 1)
            CHECK_EQ(host_counts(host_self()).inline_runs - before, 10);
    }
    return 0;
}

TEST(a_group_wait_runs_unstarted_members_itself)
{
    unsigned runs = 0;
    CHECK_EQ(host_run_virtual(1, waits_for_a_group, &runs), 0);
    runs = 0;
    CHECK_EQ(host_run_virtual(3, waits_for_a_group, &runs), 0);
}

static int joins_a_member(void *arg)
{
    unsigned *runs = arg;
    reeve_group g = { 0 };
    reeve_task *t;
    int result = 77;
    CHECK_OK(reeve_go(count_up, runs, .group = &g));
    CHECK_OK(reeve_spawn(&t, gives, (void *)-EPERM, .group = &g));
    CHECK_OK(reeve_go(count_up, runs, .group = &g));
    CHECK_OK(reeve_join(t, &result, 0));
    CHECK_EQ(result, -EPERM);
    CHECK_OK(reeve_spawn(&t, gives, (void *)5, .group = &g)); /* not joined: the group frees it */
    CHECK_EQ(reeve_group_wait(&g, 0), 0);
    CHECK_EQ(*runs, 2);
    return 0;
}

TEST(a_member_with_a_handle_is_joined_like_any_task)
{
    unsigned runs = 0;
    CHECK_EQ(host_run_virtual(1, joins_a_member, &runs), 0);
    runs = 0;
    CHECK_EQ(host_run_virtual(3, joins_a_member, &runs), 0);
}

static int yields_a_lot(void *arg)
{
    (void)arg;
    for (int i = 0; i < 300; i++)
        CHECK_OK(reeve_sleep(i % 100 ? 0 : reeve_in(REEVE_US)));
    return 0;
}

static int owns_a_group_and_is_pinned(void *arg)
{
    uint32_t *home = arg;
    for (int round = 0; round < 20; round++) {
        reeve_group g = { 0 };
        reeve_task *t;
        for (int i = 0; i < 2; i++) /* the newest is run inline: with a handle, and without */
            CHECK_OK(reeve_spawn((round + i) % 2 ? &t : NULL, yields_a_lot, NULL, .group = &g));
        CHECK_OK(reeve_group_wait(&g, 0));
        CHECK_EQ(rv_worker_self()->index, *home);
        CHECK_OK(reeve_spawn(&t, yields_a_lot, NULL));
        CHECK_OK(reeve_join(t, NULL, 0));
        CHECK_EQ(rv_worker_self()->index, *home);
    }
    return 0;
}

static int pins_group_owners(void *arg)
{
    (void)arg;
    static uint32_t homes[2] = { 0, 1 };
    reeve_group g = { 0 };
    for (int i = 0; i < 2; i++) /* and two workers that steal what they can get */
        CHECK_OK(reeve_go(owns_a_group_and_is_pinned, &homes[i], .worker = i + 1, .group = &g));
    return reeve_group_wait(&g, 0);
}

TEST(a_pinned_task_stays_put_whatever_it_runs_inline)
{
    CHECK_EQ(host_run_virtual(4, pins_group_owners, NULL), 0);
}

static int joins_pinned_here(void *arg)
{
    unsigned *runs = arg;
    int here = (int)rv_worker_self()->index + 1;
    reeve_task *t[3];
    struct host_event e = { 0 };
    for (int round = 0; round < 10; round++) {
        memset(&e, 0, sizeof e);
        CHECK_OK(reeve_spawn(&t[0], host_waiter, &e, .worker = here));
        CHECK_OK(reeve_spawn(&t[1], count_up, runs, .worker = here));
        CHECK_OK(reeve_go(count_up, runs, .worker = here));
        CHECK_EQ(reeve_join(t[1], NULL, 0), 0);
        host_set(host_self(), &e);
        CHECK_OK(reeve_spawn(&t[2], count_up, runs, .worker = here));
        CHECK_EQ(reeve_join(t[2], NULL, 0), 0);
        CHECK_EQ(reeve_join(t[0], NULL, 0), 0);
    }
    return 0;
}

static int sets_the_event(void *arg)
{
    host_set(host_self(), arg);
    return 0;
}

/* The child waits while the entry by which it was spawned still lies in a queue of pinned tasks,
 * and is woken from before that entry. */
static int wakes_a_pinned_child(void *arg)
{
    unsigned *runs = arg;
    int here = (int)rv_worker_self()->index + 1;
    for (int round = 0; round < 10; round++) {
        struct host_event e = { 0 };
        reeve_task *t;
        CHECK_OK(reeve_go(sets_the_event, &e, .worker = here));
        CHECK_OK(reeve_spawn(&t, host_waiter, &e, .worker = here));
        CHECK_OK(reeve_go(count_up, runs, .worker = here));
        CHECK_EQ(reeve_join(t, NULL, 0), 0);
    }
    return 0;
}

TEST(a_child_pinned_to_the_joiners_worker_can_be_joined_at_any_time)
{
    unsigned runs = 0;
    CHECK_EQ(host_run_virtual(1, joins_pinned_here, &runs), 0);
    CHECK_EQ(runs, 30);
    CHECK_EQ(host_run_virtual(1, wakes_a_pinned_child, &runs), 0);
    CHECK_EQ(runs, 40);
}

/* ---- misuse: one sentence that names the call, then abort ---- */

static int run_misuse(reeve_fn *fn, void *arg)
{
    struct host *h = host_create_with(&(struct host_opts){ .workers = 1, .virtual = true });
    return host_run_on(h, fn, arg);
}

static int joins_twice(void *arg)
{
    (void)arg;
    reeve_task *t;
    CHECK_OK(reeve_spawn(&t, host_nothing, NULL));
    CHECK_OK(reeve_join(t, NULL, 0));
    return reeve_join(t, NULL, 0);
}

static int joins_twice_under_another(void *arg)
{
    (void)arg;
    reeve_task *t, *above;
    CHECK_OK(reeve_spawn(&t, host_nothing, NULL));
    CHECK_OK(reeve_spawn(&above, host_nothing, NULL)); /* t's queue entry stays for now */
    CHECK_OK(reeve_join(t, NULL, 0));
    return reeve_join(t, NULL, 0);
}

static int joins_twice_much_later(void *arg)
{
    (void)arg;
    reeve_task *t, *next;
    CHECK_OK(reeve_spawn(&t, host_nothing, NULL));
    CHECK_OK(reeve_join(t, NULL, 0));
    for (int i = 0; i < 1000; i++) { /* its descriptor has been used again, and is now */
        CHECK_OK(reeve_spawn(&next, host_nothing, NULL));
        if (i < 999)
            CHECK_OK(reeve_join(next, NULL, 0));
    }
    return reeve_join(t, NULL, 0);
}

TEST(joining_twice_aborts)
{
    CHECK_DIES("reeve_join was given the handle of a task that was joined before",
               run_misuse(joins_twice, NULL));
    CHECK_DIES("reeve_join was given the handle of a task that was joined before",
               run_misuse(joins_twice_under_another, NULL));
    CHECK_DIES("reeve_join was given the handle of a task that was joined before",
               run_misuse(joins_twice_much_later, NULL));
}

static int leaves_a_handle(void *arg)
{
    CHECK_OK(reeve_spawn((reeve_task **)arg, host_nothing, NULL));
    return 0;
}

static int joins_after_the_scope(void *arg)
{
    (void)arg;
    reeve_task *left, *t;
    CHECK_OK(reeve_spawn(&t, leaves_a_handle, &left));
    CHECK_OK(reeve_join(t, NULL, 0));
    return reeve_join(left, NULL, 0);
}

TEST(joining_after_the_scope_has_ended_aborts)
{
    CHECK_DIES("reeve_join was given the handle of a task that was joined before, or whose scope",
               run_misuse(joins_after_the_scope, NULL));
}

static reeve_task *self;

static int joins_itself(void *arg)
{
    (void)arg;
    return reeve_join(self, NULL, 0);
}

static int spawns_what_joins_itself(void *arg)
{
    (void)arg;
    CHECK_OK(reeve_spawn(&self, joins_itself, NULL));
    return reeve_sleep(reeve_in(REEVE_SEC));
}

TEST(joining_oneself_aborts)
{
    CHECK_DIES("reeve_join was called by a task on itself",
               run_misuse(spawns_what_joins_itself, NULL));
}

struct contested {
    reeve_task *t;
    struct host_event e;
};

static int joins_the_contested(void *arg)
{
    return reeve_join(((struct contested *)arg)->t, NULL, 0);
}

/* Both joiners wait. */
static int two_wait_for_one(void *arg)
{
    struct contested *c = arg;
    CHECK_OK(reeve_spawn(&c->t, host_waiter, &c->e));
    CHECK_OK(reeve_sleep(reeve_in(REEVE_SEC)));
    CHECK_OK(reeve_go(joins_the_contested, c));
    CHECK_OK(reeve_go(joins_the_contested, c));
    return reeve_sleep(reeve_in(REEVE_SEC));
}

static int sleeps_a_second(void *arg)
{
    (void)arg;
    return reeve_sleep(reeve_in(REEVE_SEC));
}

/* The one joiner runs the task on its own stack while the other waits for it. */
static int one_runs_it_one_waits(void *arg)
{
    struct contested *c = arg;
    CHECK_OK(reeve_spawn(&c->t, sleeps_a_second, NULL));
    CHECK_OK(reeve_go(joins_the_contested, c));
    return reeve_join(c->t, NULL, 0);
}

TEST(joining_by_two_tasks_at_a_time_aborts)
{
    struct contested c = { 0 };
    CHECK_DIES("two tasks wait for the same task or group", run_misuse(two_wait_for_one, &c));
    CHECK_DIES("two tasks wait for the same task or group", run_misuse(one_runs_it_one_waits, &c));
}

TEST(calls_outside_a_task_abort_and_say_which)
{
    reeve_task *t = NULL;
    reeve_group g = { 0 };
    CHECK_DIES("reeve_spawn was called outside a task", reeve_go(host_nothing, NULL));
    CHECK_DIES("reeve_join was called outside a task", reeve_join(t, NULL, 0));
    CHECK_DIES("reeve_cancel was called outside a task", reeve_cancel(t));
    CHECK_DIES("reeve_group_wait was called outside a task", reeve_group_wait(&g, 0));
    CHECK_DIES("reeve_group_cancel was called outside a task", reeve_group_cancel(&g));
    CHECK_DIES("reeve_sleep was called outside a task", reeve_sleep(0));
}

static int joins_a_number(void *arg)
{
    return reeve_join(arg, NULL, 0);
}

static int cancels_a_number(void *arg)
{
    reeve_cancel(arg);
    return 0;
}

TEST(a_number_that_is_no_handle_aborts)
{
    int here;
    void *numbers[] = { NULL, (void *)100, (void *)UINTPTR_MAX, &here };
    for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        CHECK_DIES("reeve_join was given ", run_misuse(joins_a_number, numbers[i]));
        if (i != 3) /* what looks like an old handle is one, to a cancel */
            CHECK_DIES("reeve_cancel was given something that is no task handle",
                       run_misuse(cancels_a_number, numbers[i]));
    }
}

static int leaves_a_group(void *arg)
{
    (void)arg;
    reeve_group g = { 0 };
    CHECK_OK(reeve_go(host_nothing, NULL, .group = &g));
    return 0;
}

static int spawns_what_leaves_a_group(void *arg)
{
    reeve_task *t;
    CHECK_OK(reeve_spawn(&t, leaves_a_group, NULL, .name = arg));
    return reeve_join(t, NULL, 0);
}

TEST(ending_without_waiting_for_a_group_aborts)
{
    CHECK_DIES("a task ended without waiting for its group",
               run_misuse(spawns_what_leaves_a_group, NULL));
    CHECK_DIES("a task gatherer ended without waiting for its group",
               run_misuse(spawns_what_leaves_a_group, "gatherer"));
}

static int waits_for_a_strange_group(void *arg)
{
    return reeve_group_wait(arg, 0);
}

static int has_its_group_waited_for(void *arg)
{
    (void)arg;
    reeve_group g = { 0 };
    CHECK_OK(reeve_go(host_nothing, NULL, .group = &g));
    CHECK_OK(reeve_go(waits_for_a_strange_group, &g));
    return reeve_sleep(reeve_in(REEVE_SEC));
}

static int member_waits_for_its_group(void *arg)
{
    (void)arg;
    reeve_group g = { 0 };
    CHECK_OK(reeve_go(waits_for_a_strange_group, &g, .group = &g));
    return reeve_group_wait(&g, 0);
}

TEST(waiting_for_the_group_of_another_task_aborts)
{
    CHECK_DIES("reeve_group_wait was called by a task that does not own the group",
               run_misuse(has_its_group_waited_for, NULL));
    CHECK_DIES("reeve_group_wait was called by a task that does not own the group",
               run_misuse(member_waits_for_its_group, NULL));
}

static int uses_an_old_group(void *arg)
{
    reeve_group g = { 0 }, old;
    CHECK_OK(reeve_go(host_nothing, NULL, .group = &g));
    old = g;
    CHECK_OK(reeve_group_wait(&g, 0));
    return arg ? reeve_group_wait(&old, 0) : reeve_go(host_nothing, NULL, .group = &old);
}

TEST(a_copy_of_a_group_that_was_waited_for_aborts)
{
    CHECK_DIES("reeve_spawn", run_misuse(uses_an_old_group, NULL));
    CHECK_DIES("reeve_group_wait", run_misuse(uses_an_old_group, "wait"));
}

static int cancels_what_is_over(void *arg)
{
    (void)arg;
    for (int round = 0; round < 300; round++) {
        reeve_task *old, *t;
        struct host_event e = { 0 };
        CHECK_OK(reeve_spawn(&old, host_nothing, NULL));
        CHECK_OK(reeve_join(old, NULL, 0));
        CHECK_OK(reeve_spawn(&t, host_waiter, &e)); /* most likely in the same descriptor */
        reeve_sleep(0);
        reeve_cancel(old);
        host_set(host_self(), &e);
        int result = -1;
        CHECK_OK(reeve_join(t, &result, 0));
        CHECK_EQ(result, 0);
        reeve_cancel(t);
        reeve_cancel(old);
    }
    return 0;
}

TEST(cancelling_a_task_that_is_over_does_nothing)
{
    CHECK_EQ(host_run_virtual(1, cancels_what_is_over, NULL), 0);
    CHECK_EQ(host_run_virtual(3, cancels_what_is_over, NULL), 0);
}
