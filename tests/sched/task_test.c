/* SPDX-License-Identifier: MIT */
/*
 * task_test.c -- sched/task.c: the life of a descriptor. Each task's function or its .skipped is
 * called, exactly once; its copied argument lives as long as it does; its descriptor comes back.
 */
#define CHECK_MAIN
#include "tests/sched/host.h"

/* How often the one and the other were called, and with what. */
struct calls {
    RV_ATOMIC(unsigned) fn, skipped;
    unsigned char bytes[64];
};

static int run_it(void *arg)
{
    rv_add_relaxed(&((struct calls *)arg)->fn, 1u);
    return 0;
}

static void skip_it(void *arg)
{
    CHECK(rv_worker_self()->cur == NULL);
    rv_add_relaxed(&((struct calls *)arg)->skipped, 1u);
}

static void check_skipped_once(struct calls *c)
{
    CHECK_EQ(rv_load_relaxed(&c->fn), 0);
    CHECK_EQ(rv_load_relaxed(&c->skipped), 1);
    memset(c, 0, sizeof *c);
}

/* ---- what never starts ---- */

static int lets_children_expire(void *arg)
{
    struct calls *c = arg;
    reeve_task *t;
    int result = 77;
    for (int inlined = 0; inlined < 2; inlined++) {
        CHECK_OK(reeve_spawn(&t, run_it, c, .skipped = skip_it, .deadline = reeve_in(REEVE_MS)));
        host_compute(REEVE_MS);
        if (!inlined)
            reeve_sleep(0);
        CHECK_OK(reeve_join(t, &result, 0));
        CHECK_EQ(result, -ETIMEDOUT);
        check_skipped_once(c);
    }
    CHECK_OK(reeve_go(run_it, c, .skipped = skip_it, .deadline = 1));
    reeve_sleep(0);
    check_skipped_once(c);
    CHECK_OK(reeve_go(run_it, c, .deadline = 1)); /* nobody wants to know */
    return 0;
}

TEST(a_task_whose_deadline_passed_in_the_queue_is_skipped_once)
{
    struct calls c = { 0 };
    struct host *h = host_create_with(&(struct host_opts){ .virtual = true });
    CHECK_EQ(host_run_on(h, lets_children_expire, &c), 0);
    CHECK_EQ(host_counts(h).skipped, 4);
    CHECK_EQ(host_counts(h).expired, 4);
    CHECK_EQ(host_counts(h).cancelled, 0);
    CHECK_EQ(rv_load_relaxed(&c.fn), 0);
    host_destroy(h);
}

static int cancels_children(void *arg)
{
    struct calls *c = arg;
    reeve_task *t;
    int result = 77;
    for (int inlined = 0; inlined < 2; inlined++) {
        CHECK_OK(reeve_spawn(&t, run_it, c, .skipped = skip_it));
        reeve_cancel(t);
        if (!inlined)
            reeve_sleep(0);
        CHECK_OK(reeve_join(t, &result, 0));
        CHECK_EQ(result, -ECANCELED);
        check_skipped_once(c);
    }
    return 0;
}

TEST(a_task_that_was_cancelled_before_it_started_is_skipped_once)
{
    struct calls c = { 0 };
    struct host *h = host_create_with(&(struct host_opts){ .virtual = true });
    CHECK_EQ(host_run_on(h, cancels_children, &c), 0);
    CHECK_EQ(host_counts(h).skipped, 2);
    CHECK_EQ(host_counts(h).cancelled, 2);
    CHECK_EQ(host_counts(h).expired, 0);
    host_destroy(h);
}

static int spawns_though_cancelled(void *arg)
{
    struct calls *c = arg;
    reeve_task *t;
    int result = 77;
    CHECK_EQ(reeve_sleep(reeve_in(REEVE_SEC)), -ECANCELED);
    CHECK_OK(reeve_spawn(&t, run_it, c, .skipped = skip_it));
    CHECK_OK(reeve_join(t, &result, 0));
    CHECK_EQ(result, -ECANCELED);
    CHECK_OK(reeve_go(run_it, c, .skipped = skip_it));
    return 0;
}

static int cancels_a_spawner(void *arg)
{
    reeve_task *t;
    CHECK_OK(reeve_spawn(&t, spawns_though_cancelled, arg));
    CHECK_OK(reeve_sleep(reeve_in(REEVE_MS)));
    reeve_cancel(t);
    return reeve_join(t, NULL, 0);
}

TEST(a_spawn_into_a_cancelled_scope_succeeds_and_is_skipped)
{
    struct calls c = { 0 };
    CHECK_EQ(host_run_virtual(1, cancels_a_spawner, &c), 0);
    CHECK_EQ(rv_load_relaxed(&c.skipped), 2);
    CHECK_EQ(rv_load_relaxed(&c.fn), 0);
}

/* One pick a pass: each task is entered from the scheduler's own context, where the one stack that
 * cannot be had ends it. */
static int finds_no_stack(void *arg)
{
    struct calls *c = arg;
    reeve_task *t;
    reeve_group g = { 0 };
    int result = 77;
    CHECK_OK(reeve_spawn(&t, run_it, c, .skipped = skip_it, .stack_bytes = 1 << 20));
    rv_fault_only("stack.take");
    rv_fault_fail_nth(1);
    reeve_sleep(0);
    CHECK(rv_fault_last_name() != NULL);
    CHECK_OK(reeve_join(t, &result, 0));
    CHECK_EQ(result, -ENOMEM);
    check_skipped_once(c);

    CHECK_OK(reeve_go(run_it, c, .skipped = skip_it, .stack_bytes = 1 << 20, .group = &g));
    rv_fault_fail_nth(1);
    CHECK_EQ(reeve_group_wait(&g, 0), -ENOMEM);
    check_skipped_once(c);
    rv_fault_off();
    return 0;
}

TEST(a_task_for_which_no_stack_can_be_had_is_skipped_once)
{
    if (!rv_fault_available())
        SKIP("built without fault points");
    struct calls c = { 0 };
    struct host *h = host_create_with(&(struct host_opts){ .virtual = true, .pass_picks = 1 });
    CHECK_EQ(host_run_on(h, finds_no_stack, &c), 0);
    CHECK_EQ(host_counts(h).skipped, 2);
    CHECK_EQ(host_counts(h).cancelled, 0);
    CHECK_EQ(host_counts(h).expired, 0);
    host_destroy(h);
}

static void check_the_copy(void *arg)
{
    unsigned char *bytes = arg;
    for (int i = 0; i < 64; i++)
        CHECK_EQ(bytes[i], i ^ 0x5a);
    memset(bytes, 0, 64);
    host_self()->arg = NULL; /* seen */
}

static int skips_with_a_copy(void *arg)
{
    unsigned char bytes[65536];
    const size_t sizes[] = { 64, 4096, 65536 };
    for (int k = 0; k < 3; k++) {
        for (int i = 0; i < 64; i++)
            bytes[i] = (unsigned char)(i ^ 0x5a);
        host_self()->arg = arg;
        CHECK_OK(reeve_go(host_nothing, bytes, .copy = sizes[k], .skipped = check_the_copy,
                          .deadline = 1));
        memset(bytes, 0, sizeof bytes);
        reeve_sleep(0);
        CHECK(host_self()->arg == NULL);
    }
    return 0;
}

TEST(skipped_gets_the_copied_argument)
{
    int something;
    CHECK_EQ(host_run_virtual(1, skips_with_a_copy, &something), 0);
}

static void waits_in_skipped(void *arg)
{
    (void)arg;
    reeve_sleep(0);
}

static void spawns_in_skipped(void *arg)
{
    (void)arg;
    reeve_go(host_nothing, NULL);
}

static void joins_in_skipped(void *arg)
{
    reeve_join(arg, NULL, 0);
}

static int skips_badly(void *arg)
{
    reeve_task *t;
    CHECK_OK(reeve_spawn(&t, host_nothing, NULL, .deadline = 1,
                         .skipped = *(void (**)(void *))arg));
    reeve_join(t, NULL, 0); /* it is skipped on the joiner's stack, and still outside any task */
    return 0;
}

static int run_skips_badly(void (*skipped)(void *))
{
    struct host *h = host_create_with(&(struct host_opts){ .virtual = true });
    return host_run_on(h, skips_badly, &skipped);
}

TEST(a_call_that_waits_or_spawns_in_skipped_aborts)
{
    CHECK_DIES("reeve_sleep was called outside a task", run_skips_badly(waits_in_skipped));
    CHECK_DIES("reeve_spawn was called outside a task", run_skips_badly(spawns_in_skipped));
    CHECK_DIES("reeve_join was called outside a task", run_skips_badly(joins_in_skipped));
}

/* Tasks of all kinds, while their scopes are cancelled and deadlines pass: some start, some do
 * not, and each is heard of once. */
enum { MIXED = 4000 };

static struct calls mixed[MIXED];

static int starts_or_not(void *arg)
{
    struct calls *c = *(struct calls **)arg;
    rv_add_relaxed(&c->fn, 1u);
    return (c - mixed) % 5 ? 0 : reeve_sleep(reeve_in((c - mixed) % 7 * REEVE_US));
}

static void skips_mixed(void *arg)
{
    rv_add_relaxed(&(*(struct calls **)arg)->skipped, 1u);
}

static int spawns_a_few(void *arg)
{
    unsigned first = (unsigned)(uintptr_t)arg;
    reeve_task *t[20];
    for (unsigned i = 0; i < 20; i++) {
        struct calls *c[20] = { &mixed[first + i] };
        CHECK_OK(reeve_spawn(i % 3 ? &t[i] : NULL, starts_or_not, c,
                             .copy = i % 2 ? sizeof c[0] : sizeof c, .skipped = skips_mixed,
                             .deadline = i % 4 ? 0 : reeve_in((int64_t)i * REEVE_US)));
    }
    for (unsigned i = 0; i < 20; i++)
        if (i % 3 == 1)
            (void)reeve_join(t[i], NULL, reeve_in(REEVE_MS));
    if (first % 3 == 0)
        reeve_cancel(t[19]);
    return first % 40 ? 0 : -EIO; /* cancels what is left */
}

static int spawns_all_kinds(void *arg)
{
    reeve_group g = { 0 };
    (void)arg;
    for (uintptr_t i = 0; i < MIXED; i += 20)
        CHECK_OK(reeve_go(spawns_a_few, (void *)i));
    for (uintptr_t i = 0; i < 20; i++)
        CHECK_OK(reeve_go(host_nothing, NULL, .group = &g));
    return reeve_group_wait(&g, 0);
}

static void check_all_kinds(void)
{
    unsigned started = 0, skipped = 0;
    for (int i = 0; i < MIXED; i++) {
        unsigned fn = rv_load_relaxed(&mixed[i].fn), no = rv_load_relaxed(&mixed[i].skipped);
        CHECK_EQ(fn + no, 1);
        started += fn;
        skipped += no;
    }
    CHECK_GT(started, 0);
    CHECK_GT(skipped, 0);
}

TEST(each_task_is_started_or_skipped_never_both_and_never_neither)
{
    CHECK_EQ(host_run_with(&(struct host_opts){ .workers = 3, .tasks_max = MIXED + 500,
                                                .virtual = true },
                           spawns_all_kinds, NULL),
             0);
    check_all_kinds();
}

TEST(each_task_is_started_or_skipped_on_real_threads_too)
{
    CHECK_EQ(host_run(4, MIXED + 500, spawns_all_kinds, NULL), 0);
    check_all_kinds();
}

/* ---- what it holds ---- */

static int reads_its_parents_copy(void *arg)
{
    unsigned char *bytes = arg;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 1000; i++)
            CHECK_EQ(bytes[i], 0xa5);
        CHECK_OK(reeve_sleep(reeve_in(REEVE_MS)));
    }
    return 0;
}

static int hands_its_copy_down(void *arg)
{
    return reeve_go(reads_its_parents_copy, arg);
}

/* Would be given the block that was freed too early. */
static void scribble(void)
{
    void *block[50];
    for (int i = 0; i < 50; i++) {
        block[i] = rv_alloc(1000);
        memset(block[i], i, 1000);
    }
    for (int i = 0; i < 50; i++)
        rv_free(block[i]);
}

static int copies_down(void *arg)
{
    unsigned char bytes[1000];
    reeve_task *t;
    (void)arg;
    memset(bytes, 0xa5, sizeof bytes);
    CHECK_OK(reeve_spawn(&t, hands_its_copy_down, bytes, .copy = sizeof bytes));
    CHECK_EQ(reeve_join(t, NULL, reeve_in(REEVE_US)), -ETIMEDOUT);
    scribble();
    CHECK_OK(reeve_join(t, NULL, 0));
    CHECK_OK(reeve_go(hands_its_copy_down, bytes, .copy = sizeof bytes));
    CHECK_OK(reeve_sleep(reeve_in(REEVE_US)));
    scribble();
    return 0;
}

TEST(a_copied_argument_lives_until_the_task_is_done_and_not_just_its_function)
{
    CHECK_EQ(host_run_virtual(1, copies_down, NULL), 0);
}

static int copies_a_lot(void *arg)
{
    static unsigned char bytes[65536];
    reeve_task *t;
    (void)arg;
    for (unsigned i = 0; i < host_times(20000); i++) {
        CHECK_OK(reeve_spawn(&t, host_nothing, bytes, .copy = sizeof bytes));
        CHECK_OK(reeve_join(t, NULL, 0));
    }
    return 0;
}

TEST(copied_arguments_do_not_pile_up)
{
    struct rusage before, after;
    CHECK_EQ(getrusage(RUSAGE_SELF, &before), 0);
    CHECK_EQ(host_run(1, 100, copies_a_lot, NULL), 0);
    CHECK_EQ(getrusage(RUSAGE_SELF, &after), 0);
    if (HOST_SLOWER == 1) /* a sanitizer keeps freed blocks; 1.3 GB were copied */
        CHECK_LT(after.ru_maxrss - before.ru_maxrss, 200 * 1024);
}

/* ---- the descriptor ---- */

static int compares_handles(void *arg)
{
    reeve_task *t, *seen[64];
    (void)arg;
    for (int i = 0; i < 64; i++) {
        CHECK_OK(reeve_spawn(&t, host_nothing, NULL));
        CHECK(t != NULL);
        for (int k = 0; k < i; k++)
            CHECK(t != seen[k]);
        seen[i] = t;
        CHECK_OK(reeve_join(t, NULL, 0));
    }
    CHECK_LT(rv_load_relaxed(&host_self()->s.tasks.fresh), 200);
    return 0;
}

TEST(a_descriptor_is_used_again_and_its_handle_is_not)
{
    CHECK_EQ(host_run_virtual(1, compares_handles, NULL), 0);
}

static int wraps_a_generation(void *arg)
{
    (void)arg;
    struct rv_sched *s = &host_self()->s;
    reeve_task *t;
    CHECK_OK(reeve_spawn(&t, host_nothing, NULL));
    struct rv_task *d = rv_task_of(s, t, "test");
    CHECK_OK(reeve_join(t, NULL, 0));
    /* As if it had been used four thousand million times. */
    rv_store_relaxed(&d->ctl, (uint64_t)UINT32_MAX << 32);
    CHECK_OK(reeve_spawn(&t, host_nothing, NULL));
    CHECK(rv_task_of(s, t, "test") == d);
    CHECK_EQ((uint64_t)(uintptr_t)t >> 32, UINT32_MAX);
    CHECK_OK(reeve_join(t, NULL, 0));
    CHECK_EQ(rv_task_gen(d), 1); /* 0 is one that was never used */
    CHECK_OK(reeve_spawn(&t, host_nothing, NULL));
    CHECK_EQ((uint64_t)(uintptr_t)t >> 32, 1);
    return reeve_join(t, NULL, 0);
}

TEST(generations_begin_again_at_1)
{
    CHECK_EQ(host_run_virtual(1, wraps_a_generation, NULL), 0);
}

static int returns_its_argument(void *arg)
{
    return (int)(intptr_t)arg;
}

static int makes_counts(void *arg)
{
    (void)arg;
    reeve_task *t;
    for (int i = 0; i < 10; i++)
        CHECK_OK(reeve_go(returns_its_argument, (void *)(intptr_t)(i < 3 ? -EIO : i)));
    CHECK_OK(reeve_spawn(&t, returns_its_argument, (void *)-EPIPE));
    CHECK_OK(reeve_join(t, NULL, 0));
    return 0;
}

TEST(spawns_starts_ends_and_failures_are_counted)
{
    struct host *h = host_create_with(&(struct host_opts){ .virtual = true });
    CHECK_EQ(host_run_on(h, makes_counts, NULL), 0);
    struct host_counts n = host_counts(h);
    CHECK_EQ(n.spawned, 11);
    CHECK_EQ(rv_load_relaxed(&h->s.posted), 1);
    CHECK_EQ(n.started, 12);
    CHECK_EQ(n.completed, 12);
    CHECK_EQ(n.failed, 4);
    CHECK_EQ(n.skipped, 0);
    CHECK_EQ(n.inline_runs, 1);
    host_destroy(h);
}

static int outlived_by_its_child(void *arg)
{
    return reeve_go(host_waiter, arg);
}

static int counts_completions(void *arg)
{
    reeve_task *t;
    CHECK_OK(reeve_spawn(&t, outlived_by_its_child, arg));
    reeve_sleep(reeve_in(REEVE_MS));
    CHECK_EQ(host_counts(host_self()).started, 3);
    CHECK_EQ(host_counts(host_self()).completed, 0);
    host_set(host_self(), arg);
    CHECK_OK(reeve_join(t, NULL, 0));
    CHECK_EQ(host_counts(host_self()).completed, 2);
    return 0;
}

TEST(a_task_counts_as_completed_when_its_scope_is_empty)
{
    struct host_event e = { 0 };
    CHECK_EQ(host_run_virtual(1, counts_completions, &e), 0);
}
