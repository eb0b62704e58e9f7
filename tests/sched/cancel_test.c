/* SPDX-License-Identifier: MIT */
/*
 * cancel_test.c -- sched/cancel.c: whom a cancellation reaches, and whom not.
 */
#define CHECK_MAIN
#include "tests/sched/host.h"

/* What became of the tasks of a test. */
static struct {
    RV_ATOMIC(unsigned) started, cancelled, skipped, other;
} saw;

static void forget(void)
{
    memset(&saw, 0, sizeof saw);
}

/* Waits for an hour, or so it thinks. */
static int waits(void *arg)
{
    (void)arg;
    rv_add_relaxed(&saw.started, 1u);
    int r = reeve_sleep(reeve_in(3600 * REEVE_SEC));
    rv_add_relaxed(r == -ECANCELED ? &saw.cancelled : &saw.other, 1u);
    CHECK_EQ(reeve_sleep(reeve_in(REEVE_SEC)), r); /* it sticks */
    CHECK_EQ(reeve_sleep(0), r);
    return r;
}

static void never_started(void *arg)
{
    (void)arg;
    rv_add_relaxed(&saw.skipped, 1u);
}

static void go_waits(int n)
{
    for (int i = 0; i < n; i++)
        CHECK_OK(reeve_go(waits, NULL, .skipped = never_started));
}

/* Lets everything that can go on do so, in virtual time. */
static void settle(void)
{
    CHECK_OK(reeve_sleep(reeve_in(REEVE_MS)));
}

/* Spawns fn, lets it come to rest, cancels it and waits for its end, which must come at once; its
 * result. */
static int cancel_one(reeve_fn *fn, void *arg)
{
    reeve_task *t;
    int result = 77;
    forget();
    CHECK_OK(reeve_spawn(&t, fn, arg));
    settle();
    reeve_time now = reeve_now();
    reeve_cancel(t);
    reeve_cancel(t);
    CHECK_OK(reeve_join(t, &result, 0));
    CHECK_EQ(reeve_now(), now);
    return result;
}

/* ---- whom it reaches ---- */

static int cancels_a_sleeper(void *arg)
{
    (void)arg;
    CHECK_EQ(cancel_one(waits, NULL), -ECANCELED);
    CHECK_EQ(saw.cancelled, 1);
    return 0;
}

TEST(a_wait_that_the_task_is_in_ends)
{
    CHECK_EQ(host_run_virtual(1, cancels_a_sleeper, NULL), 0);
}

static int has_grandchildren(void *arg)
{
    uintptr_t depth = (uintptr_t)arg;
    for (int i = 0; i < 3 && depth > 0; i++)
        CHECK_OK(reeve_go(has_grandchildren, (void *)(depth - 1), .skipped = never_started));
    return waits(NULL);
}

static int cancels_a_tree(void *arg)
{
    (void)arg;
    CHECK_EQ(cancel_one(has_grandchildren, (void *)4), -ECANCELED);
    CHECK_EQ(saw.cancelled, 1 + 3 + 9 + 27 + 81);
    return 0;
}

TEST(sleeping_grandchildren_are_reached)
{
    CHECK_EQ(host_run_virtual(1, cancels_a_tree, NULL), 0);
    CHECK_EQ(host_run_virtual(3, cancels_a_tree, NULL), 0);
}

static int returns_with_sleeping_children(void *arg)
{
    go_waits(3);
    (void)arg;
    return 0;
}

static int has_children_that_returned(void *arg)
{
    (void)arg;
    for (int i = 0; i < 3; i++)
        CHECK_OK(reeve_go(returns_with_sleeping_children, NULL));
    return 0;
}

static int cancels_what_returned(void *arg)
{
    (void)arg;
    CHECK_EQ(cancel_one(has_children_that_returned, NULL), 0);
    CHECK_EQ(saw.cancelled, 9);
    return 0;
}

TEST(what_sleeps_below_functions_that_returned_is_reached)
{
    CHECK_EQ(host_run_virtual(1, cancels_what_returned, NULL), 0);
    CHECK_EQ(host_run_virtual(3, cancels_what_returned, NULL), 0);
}

static int yields_above_a_sleeper(void *arg)
{
    go_waits(2);
    while (reeve_sleep(0) == 0)
        host_compute(REEVE_US);
    (void)arg;
    return 1;
}

static int has_a_yielding_child(void *arg)
{
    reeve_task *t;
    int result = 77;
    CHECK_OK(reeve_spawn(&t, yields_above_a_sleeper, NULL));
    CHECK_EQ(reeve_sleep(reeve_in(3600 * REEVE_SEC)), -ECANCELED);
    CHECK_EQ(reeve_join(t, &result, 0), -ECANCELED);
    (void)arg;
    return 2;
}

static int cancels_a_yielder(void *arg)
{
    reeve_task *t;
    int result = 77;
    (void)arg;
    forget();
    CHECK_OK(reeve_spawn(&t, has_a_yielding_child, NULL));
    for (int i = 0; i < 200; i++)
        reeve_sleep(0);
    reeve_cancel(t);
    CHECK_OK(reeve_join(t, &result, 0));
    CHECK_EQ(result, 2);
    CHECK_EQ(saw.cancelled, 2);
    return 0;
}

TEST(a_task_that_only_yields_is_reached_through_its_parent)
{
    CHECK_EQ(host_run_virtual(1, cancels_a_yielder, NULL), 0);
    CHECK_EQ(host_run_virtual(3, cancels_a_yielder, NULL), 0);
}

/* Never waits but for children that it runs itself; ends when one is not started any more. */
static int spawns_and_joins_for_ever(void *arg)
{
    (void)arg;
    for (;;) {
        reeve_task *t;
        int result = 0;
        CHECK_OK(reeve_spawn(&t, host_nothing, NULL));
        int r = reeve_join(t, &result, 0);
        if (r < 0 || result < 0)
            return -ECANCELED;
    }
}

static int has_a_busy_child(void *arg)
{
    (void)arg;
    CHECK_OK(reeve_go(spawns_and_joins_for_ever, NULL));
    CHECK_EQ(reeve_sleep(reeve_in(3600 * REEVE_SEC)), -ECANCELED);
    return 2;
}

static int cancels_a_busy_one(void *arg)
{
    reeve_task *t;
    (void)arg;
    CHECK_OK(reeve_spawn(&t, has_a_busy_child, NULL));
    for (int i = 0; i < 20; i++)
        reeve_sleep(0);
    reeve_cancel(t);
    return reeve_join(t, NULL, 0);
}

TEST(a_task_that_does_nothing_but_spawn_and_join_is_reached_through_its_parent)
{
    CHECK_EQ(host_run_virtual(1, cancels_a_busy_one, NULL), 0);
    CHECK_EQ(host_run(2, 1000, cancels_a_busy_one, NULL), 0);
}

static int waits_with_unstarted_children(void *arg)
{
    reeve_cancel(*(reeve_task **)arg);
    go_waits(5);
    return waits(NULL);
}

static int returns_with_unstarted_children(void *arg)
{
    go_waits(5);
    reeve_cancel(arg);
    return 0;
}

static int spawns_returns_with_unstarted_children(void *arg)
{
    return reeve_go(returns_with_unstarted_children, *(reeve_task **)arg);
}

static int cancels_before_they_start(void *arg)
{
    static reeve_task *t;
    (void)arg;
    forget();
    CHECK_OK(reeve_spawn(&t, waits_with_unstarted_children, &t));
    CHECK_OK(reeve_join(t, NULL, 0));
    CHECK_EQ(saw.skipped, 5);
    CHECK_EQ(saw.cancelled, 1);
    return 0;
}

TEST(what_has_not_started_never_starts)
{
    CHECK_EQ(host_run_virtual(1, cancels_before_they_start, NULL), 0);
}

static int cancels_grandparents_of_the_unstarted(void *arg)
{
    static reeve_task *t;
    (void)arg;
    forget();
    CHECK_OK(reeve_spawn(&t, spawns_returns_with_unstarted_children, &t));
    CHECK_OK(reeve_sleep(reeve_in(REEVE_US)));
    CHECK_OK(reeve_join(t, NULL, 0));
    CHECK_EQ(saw.skipped, 5);
    CHECK_EQ(saw.started, 0);
    return 0;
}

TEST(what_has_not_started_below_a_function_that_returned_never_starts)
{
    CHECK_EQ(host_run_virtual(1, cancels_grandparents_of_the_unstarted, NULL), 0);
}

static int cancels_itself(void *arg)
{
    go_waits(2);
    settle();
    reeve_cancel(*(reeve_task **)arg);
    CHECK_EQ(reeve_sleep(reeve_in(REEVE_SEC)), -ECANCELED);
    CHECK_OK(reeve_go(waits, NULL, .skipped = never_started));
    return 3;
}

static int spawns_what_cancels_itself(void *arg)
{
    static reeve_task *t;
    int result = 77;
    (void)arg;
    forget();
    CHECK_OK(reeve_spawn(&t, cancels_itself, &t));
    CHECK_OK(reeve_join(t, &result, 0));
    CHECK_EQ(result, 3);
    CHECK_EQ(saw.cancelled, 2);
    CHECK_EQ(saw.skipped, 1);
    return 0;
}

TEST(a_task_may_cancel_itself)
{
    CHECK_EQ(host_run_virtual(1, spawns_what_cancels_itself, NULL), 0);
}

static int owns_groups(void *arg)
{
    uintptr_t depth = (uintptr_t)arg;
    reeve_group g = { 0 }, never_waited_in = { 0 };
    CHECK_OK(reeve_go(waits, NULL, .group = &g));
    CHECK_OK(reeve_go(waits, NULL, .group = &never_waited_in));
    if (depth > 0)
        CHECK_OK(reeve_go(owns_groups, (void *)(depth - 1), .group = &g));
    CHECK_EQ(reeve_group_wait(&g, 0), -ECANCELED);
    CHECK_EQ(reeve_group_wait(&never_waited_in, 0), -ECANCELED);
    return -ECANCELED;
}

static int cancels_group_owners(void *arg)
{
    (void)arg;
    CHECK_EQ(cancel_one(owns_groups, (void *)9), -ECANCELED);
    CHECK_EQ(saw.cancelled, 20);
    return 0;
}

TEST(groups_that_are_owned_below_are_reached)
{
    CHECK_EQ(host_run_virtual(1, cancels_group_owners, NULL), 0);
    CHECK_EQ(host_run_virtual(3, cancels_group_owners, NULL), 0);
}

static int joins_a_chain(void *arg)
{
    uintptr_t depth = (uintptr_t)arg;
    reeve_task *t;
    int result = 0;
    if (depth == 0)
        return waits(NULL);
    CHECK_OK(reeve_spawn(&t, joins_a_chain, (void *)(depth - 1)));
    int r = reeve_join(t, &result, 0); /* most run on their joiner's stack */
    return r < 0 ? r : result;
}

static int cancels_a_chain(void *arg)
{
    (void)arg;
    CHECK_EQ(cancel_one(joins_a_chain, (void *)(uintptr_t)host_times(20000)), -ECANCELED);
    CHECK_EQ(saw.cancelled, 1);
    return 0;
}

TEST(a_chain_of_twenty_thousand_joins_is_walked_without_recursion)
{
    CHECK_EQ(host_run_with(&(struct host_opts){ .tasks_max = 30000, .virtual = true },
                           cancels_a_chain, NULL),
             0);
}

static int returns_above_a_chain(void *arg)
{
    unsigned *to_come = arg;
    return --*to_come ? reeve_go(returns_above_a_chain, to_come) : reeve_go(waits, NULL);
}

static int cancels_generations(void *arg)
{
    unsigned to_come = host_times(100000);
    (void)arg;
    CHECK_EQ(cancel_one(returns_above_a_chain, &to_come), 0);
    CHECK_EQ(saw.cancelled, 1);
    return 0;
}

TEST(a_hundred_thousand_generations_are_walked_without_recursion)
{
    CHECK_EQ(host_run_with(&(struct host_opts){ .tasks_max = 110000, .virtual = true },
                           cancels_generations, NULL),
             0);
}

static int cancels_its_own_group(void *arg)
{
    reeve_group *g = arg;
    settle();
    reeve_group_cancel(g);
    reeve_group_cancel(g);
    CHECK_EQ(reeve_sleep(reeve_in(REEVE_SEC)), -ECANCELED);
    return 0;
}

static int has_a_member_that_cancels(void *arg)
{
    reeve_group g = { 0 };
    reeve_task *t;
    (void)arg;
    forget();
    for (int i = 0; i < 4; i++)
        CHECK_OK(reeve_spawn(i % 2 ? &t : NULL, waits, NULL, .group = &g));
    CHECK_OK(reeve_go(cancels_its_own_group, &g, .group = &g));
    CHECK_EQ(reeve_group_wait(&g, 0), -ECANCELED);
    CHECK_EQ(saw.cancelled, 4);
    CHECK_OK(reeve_sleep(reeve_in(REEVE_SEC))); /* the owner was not meant */
    return 0;
}

TEST(a_member_may_cancel_its_group_and_the_owner_is_not_touched)
{
    CHECK_EQ(host_run_virtual(1, has_a_member_that_cancels, NULL), 0);
}

/* ---- whom it does not reach ---- */

static int has_three_children(void *arg)
{
    reeve_task *t[3];
    (void)arg;
    forget();
    for (int i = 0; i < 3; i++)
        CHECK_OK(reeve_spawn(&t[i], has_grandchildren, (void *)1));
    settle();
    reeve_cancel(t[1]);
    settle();
    CHECK_EQ(saw.cancelled, 4);
    CHECK_EQ(saw.started, 12);
    return -EIO; /* the others */
}

TEST(siblings_and_parents_are_not_reached)
{
    CHECK_EQ(host_run_virtual(1, has_three_children, NULL), -EIO);
    CHECK_EQ(saw.cancelled, 12);
}

static int waits_masked(void *arg)
{
    struct rv_task *cur = rv_worker_self()->cur;
    CHECK_EQ(host_wait(arg, 0), -ECANCELED);
    rv_wait_mask(cur, true);
    CHECK_OK(reeve_sleep(reeve_in(REEVE_SEC)));
    CHECK_OK(reeve_sleep(0));
    rv_wait_mask(cur, false);
    CHECK_EQ(reeve_sleep(0), -ECANCELED);
    CHECK_EQ(reeve_sleep(reeve_in(REEVE_SEC)), -ECANCELED);
    return 4;
}

static int cancels_the_masked(void *arg)
{
    reeve_task *t;
    int result = 77;
    CHECK_OK(reeve_spawn(&t, waits_masked, arg));
    settle();
    reeve_cancel(t);
    settle();
    reeve_cancel(t);
    CHECK_OK(reeve_join(t, &result, 0));
    CHECK_EQ(result, 4);
    return 0;
}

TEST(a_masked_wait_goes_on)
{
    struct host_event e = { 0 };
    CHECK_EQ(host_run_virtual(1, cancels_the_masked, &e), 0);
}

/* As a server does with its connections: the scope lies below the task, but the cancellation stops
 * there until the owner passes it on. */
static int owns_a_holding_scope(void *arg)
{
    struct rv_worker *w = rv_worker_self();
    struct rv_sched *s = w->sched;
    struct rv_task *cur = w->cur, *scope = rv_scope_make(s, w, cur), *t;
    (void)arg;
    rv_or_acq_rel(&scope->ctl, (uint64_t)RV_CTL_HOLDS);
    for (int i = 0; i < 3; i++) {
        CHECK_OK(rv_task_make(s, w, scope, &(struct reeve_spawn){ .fn = waits }, false, &t));
        rv_count(&w->n.spawned, 1);
        rv_fresh(s, w, t);
    }
    CHECK_EQ(reeve_sleep(reeve_in(3600 * REEVE_SEC)), -ECANCELED);
    rv_wait_mask(cur, true);
    settle();
    CHECK_EQ(saw.cancelled, 0);
    CHECK_EQ(saw.started, 3);
    CHECK(!rv_scope_close(scope));
    rv_cancel(s, rv_worker_self(), scope, rv_task_gen(scope));
    CHECK_EQ(rv_done_wait(rv_worker_self(), scope, RV_NEVER), 0);
    rv_wait_mask(cur, false);
    rv_scope_free(s, rv_worker_self(), scope, cur);
    CHECK_EQ(saw.cancelled, 3);
    return 5;
}

static int cancels_above_a_holding_scope(void *arg)
{
    reeve_task *t;
    int result = 77;
    (void)arg;
    forget();
    CHECK_OK(reeve_spawn(&t, owns_a_holding_scope, NULL));
    settle();
    reeve_cancel(t);
    CHECK_OK(reeve_join(t, &result, 0));
    CHECK_EQ(result, 5);
    return 0;
}

TEST(a_scope_that_holds_is_passed_by_until_its_owner_cancels_it)
{
    CHECK_EQ(host_run_virtual(1, cancels_above_a_holding_scope, NULL), 0);
}

/* ---- from anywhere, at any time ---- */

static void *cancels_all_work(void *arg)
{
    rv_sched_cancel(arg, NULL);
    return NULL;
}

static int is_cancelled_from_outside(void *arg)
{
    pthread_t thread;
    forget();
    go_waits(100);
    CHECK_OK(reeve_sleep(reeve_in(REEVE_MS)));
    CHECK_EQ(pthread_create(&thread, NULL, cancels_all_work, rv_worker_self()->sched), 0);
    CHECK_EQ(reeve_sleep(reeve_in(3600 * REEVE_SEC)), -ECANCELED);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    (void)arg;
    return 6;
}

TEST(all_work_can_be_cancelled_from_a_foreign_thread)
{
    CHECK_EQ(host_run(3, 1000, is_cancelled_from_outside, NULL), 6);
    CHECK_EQ(saw.cancelled + saw.skipped, 100);
}

/* A canceller has set the flag of a task, which ends meanwhile, and then looks at the wait of
 * whoever has the descriptor now. */
static int is_kicked_by_mistake(void *arg)
{
    struct host_event *e = arg;
    reeve_task *t;
    int result = 77;
    CHECK_OK(reeve_spawn(&t, host_waiter, e));
    settle();
    rv_wait_kick(&host_self()->s, rv_worker_self(), rv_task_of(&host_self()->s, t, "test"));
    settle();
    CHECK_EQ(reeve_join(t, &result, REEVE_POLL), -ETIMEDOUT);
    host_set(host_self(), e);
    CHECK_OK(reeve_join(t, &result, 0));
    return result;
}

TEST(a_canceller_that_comes_late_leaves_the_wait_of_the_next_one_alone)
{
    struct host_event e = { 0 };
    CHECK_EQ(host_run_virtual(1, is_kicked_by_mistake, &e), 0);
}

/* Tasks that are cancelled by one and joined by another at about the time when they end by
 * themselves, among tasks that nobody cancels: these must never hear of it. */
struct pair {
    reeve_task *handle;
    struct host_event given;
};

static int ends_soon(void *arg)
{
    for (uintptr_t i = (uintptr_t)arg % 4; i > 0; i--)
        if (reeve_sleep(i % 2 ? 0 : reeve_in(1)) < 0)
            return -ECANCELED;
    return 0;
}

static int cancels_late(void *arg)
{
    struct pair *p = arg;
    CHECK_OK(host_wait(&p->given, 0));
    for (int i = 0; i < 3; i++) {
        reeve_cancel(p->handle);
        CHECK_OK(reeve_sleep(0));
    }
    return 0;
}

static int joins_the_cancelled(void *arg)
{
    for (unsigned i = 0; i < host_times(3000); i++) {
        struct pair p = { 0 };
        reeve_task *canceller;
        CHECK_OK(reeve_spawn(&canceller, cancels_late, &p));
        CHECK_OK(reeve_spawn(&p.handle, ends_soon, (void *)(uintptr_t)i));
        host_set(host_self(), &p.given);
        if (i % 2)
            CHECK_OK(reeve_sleep(0));
        CHECK_OK(reeve_join(p.handle, NULL, 0));
        CHECK_OK(reeve_join(canceller, NULL, 0));
    }
    (void)arg;
    return 0;
}

static int is_never_cancelled(void *arg)
{
    RV_ATOMIC(unsigned) *over = arg;
    while (rv_load_acquire(over) < 4) {
        reeve_task *t;
        CHECK_OK(reeve_spawn(&t, ends_soon, (void *)3));
        CHECK_OK(reeve_sleep(reeve_in(1)));
        CHECK_OK(reeve_join(t, NULL, 0));
    }
    return 0;
}

static int has_some_cancelled(void *arg)
{
    reeve_task *t[4];
    for (int i = 0; i < 4; i++) {
        CHECK_OK(reeve_spawn(&t[i], joins_the_cancelled, NULL));
        CHECK_OK(reeve_go(is_never_cancelled, arg));
    }
    for (int i = 0; i < 4; i++) {
        CHECK_OK(reeve_join(t[i], NULL, 0));
        rv_add_acq_rel((RV_ATOMIC(unsigned) *)arg, 1u);
    }
    return 0;
}

TEST(a_cancellation_that_comes_when_the_task_ends_hits_nobody_else)
{
    RV_ATOMIC(unsigned) over = 0;
    CHECK_EQ(host_run(4, 1000, has_some_cancelled, (void *)&over), 0);
}

/* One begins to wait on one worker just when it is cancelled from another. */
static RV_ATOMIC(bool) awake;

static int keeps_its_worker_awake(void *arg)
{
    (void)arg;
    while (rv_load_relaxed(&awake))
        CHECK_OK(reeve_sleep(0));
    return 0;
}

static int waits_for_nothing(void *arg)
{
    struct host_event never = { 0 };
    (void)arg;
    return host_wait(&never, 0);
}

static int cancels_at_the_last_moment(void *arg)
{
    (void)arg;
    rv_store_relaxed(&awake, true);
    CHECK_OK(reeve_go(keeps_its_worker_awake, NULL, .worker = 2));
    int64_t enough = rv_clock_ns() + 20 * REEVE_SEC; /* on a machine that is busy with much else */
    for (unsigned i = 0; i < host_times(60000) && (i % 64 || rv_clock_ns() < enough); i++) {
        reeve_task *t;
        int result = 77;
        CHECK_OK(reeve_spawn(&t, waits_for_nothing, NULL, .worker = 2));
        for (unsigned k = 0; k < i % 128; k++)
            rv_cpu_relax();
        reeve_cancel(t);
        CHECK_OK(reeve_join(t, &result, 0));
        CHECK_EQ(result, -ECANCELED);
    }
    rv_store_relaxed(&awake, false);
    return 0;
}

static int pins_the_canceller(void *arg)
{
    reeve_task *t;
    CHECK_OK(reeve_spawn(&t, cancels_at_the_last_moment, arg, .worker = 1));
    return reeve_join(t, NULL, 0);
}

TEST(a_cancellation_that_comes_when_a_wait_begins_is_not_lost)
{
    CHECK_EQ(host_run(2, 100, pins_the_canceller, NULL), 0);
}

/* Trees that grow while they are cancelled: everybody hears of it, or the test would
 * take an hour. */
static int grows_and_waits(void *arg)
{
    uintptr_t depth = (uintptr_t)arg;
    reeve_group g = { 0 };
    if (depth > 0) {
        for (int i = 0; i < 2; i++)
            CHECK_OK(reeve_go(grows_and_waits, (void *)(depth - 1), .group = i ? &g : NULL));
        if (depth % 3 == 0)
            reeve_sleep(0);
    }
    int r = g.opaque ? reeve_group_wait(&g, 0) : reeve_sleep(reeve_in(3600 * REEVE_SEC));
    return depth % 2 ? 0 : r;
}

static int cancels_growing_trees(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < host_times(300); i++) {
        reeve_task *t;
        CHECK_OK(reeve_spawn(&t, grows_and_waits, (void *)7));
        for (unsigned k = 0; k < i % 40; k++)
            CHECK_OK(reeve_sleep(k % 8 ? 0 : reeve_in(1)));
        reeve_cancel(t);
        CHECK_OK(reeve_join(t, NULL, 0));
    }
    return 0;
}

TEST(a_tree_that_grows_while_it_is_cancelled_is_reached_everywhere)
{
    CHECK_EQ(host_run(4, 10000, cancels_growing_trees, NULL), 0);
}

/* ---- shields ---- */

static int cleans_up(void *arg)
{
    struct host_event never = { 0 };
    int *seen = arg;
    reeve_task *t;
    CHECK_EQ(host_wait(&never, 0), -ECANCELED);
    CHECK_EQ(reeve_shield(0), -EINVAL);
    CHECK_EQ(reeve_shield(-1), -EINVAL);
    reeve_time start = reeve_now();
    CHECK_OK(reeve_shield(start + 100));
    CHECK_EQ(reeve_sleep(start + 10), 0); /* waits work again */
    CHECK_EQ(reeve_now(), start + 10);
    CHECK_OK(reeve_spawn(&t, host_nothing, NULL)); /* and what is spawned from here on starts */
    int result = 77;
    CHECK_OK(reeve_join(t, &result, 0));
    CHECK_EQ(result, 0);
    reeve_group g = { 0 };
    CHECK_OK(reeve_go(host_nothing, NULL, .group = &g));
    CHECK_EQ(reeve_group_wait(&g, 0), 0);
    CHECK_EQ(host_wait(&never, 0), -ETIMEDOUT); /* until then */
    CHECK_EQ(reeve_now(), start + 100);
    CHECK_EQ(reeve_sleep(start + 200), -ETIMEDOUT);
    ++*seen;
    return 0;
}

static int cancels_what_cleans_up(void *arg)
{
    reeve_task *t;
    CHECK_OK(reeve_spawn(&t, cleans_up, arg));
    CHECK_OK(reeve_sleep(reeve_in(10)));
    reeve_cancel(t);
    return reeve_join(t, NULL, 0);
}

TEST(under_a_shield_waits_and_children_work_until_it_ends)
{
    int seen = 0;
    CHECK_EQ(host_run_virtual(1, cancels_what_cleans_up, &seen), 0);
    CHECK_EQ(host_run_virtual(3, cancels_what_cleans_up, &seen), 0);
    CHECK_EQ(seen, 2);
}

static int waits_in_vain(void *arg)
{
    struct host_event never = { 0 };
    *(int *)arg = host_wait(&never, 0);
    return 0;
}

/* A shield taken before the cancellation, and one child on either side of it. */
static int shields_half_of_its_children(void *arg)
{
    int *results = arg;
    CHECK_OK(reeve_go(waits_in_vain, &results[0]));
    CHECK_OK(reeve_sleep(reeve_in(5)));
    CHECK_OK(reeve_shield(reeve_in(1000)));
    CHECK_OK(reeve_go(waits_in_vain, &results[1]));
    reeve_task *t;
    CHECK_OK(reeve_spawn(&t, waits_in_vain, &results[2]));
    CHECK_OK(reeve_sleep(reeve_in(100)));
    reeve_cancel(t); /* meant for the child itself: that holds */
    CHECK_OK(reeve_join(t, NULL, 0));
    CHECK_EQ(results[2], -ECANCELED);
    return 0;
}

static int cancels_the_shielded(void *arg)
{
    reeve_task *t;
    CHECK_OK(reeve_spawn(&t, shields_half_of_its_children, arg));
    CHECK_OK(reeve_sleep(reeve_in(50)));
    reeve_cancel(t);
    return reeve_join(t, NULL, 0);
}

TEST(a_shield_covers_what_is_spawned_under_it_and_nothing_older)
{
    for (uint32_t workers = 1; workers < 4; workers++) {
        int results[3] = { 77, 77, 77 };
        CHECK_EQ(host_run_virtual(workers, cancels_the_shielded, results), 0);
        CHECK_EQ(results[0], -ECANCELED);
        CHECK_EQ(results[1], -ETIMEDOUT);
    }
}
