/* SPDX-License-Identifier: MIT */
/*
 * scope_test.c -- sched/scope.c: a task is done after the last of its children, over any number of
 * generations; what failures do to a scope; what a scope frees at its end.
 */
#define CHECK_MAIN
#include "tests/sched/host.h"

/* ---- children outlive the function, not the task ---- */

struct line {
    struct host_event go;
    unsigned ended; /* one thread: virtual time */
};

static int last_of_line(void *arg)
{
    struct line *l = arg;
    CHECK_OK(host_wait(&l->go, 0));
    l->ended++;
    return 0;
}

static int has_a_child_and_returns(void *arg)
{
    CHECK_OK(reeve_go(last_of_line, arg));
    return 11;
}

static int waits_for_a_child_that_returned(void *arg)
{
    struct line *l = arg;
    reeve_task *t;
    int result = 77;
    CHECK_OK(reeve_spawn(&t, has_a_child_and_returns, l));
    CHECK_EQ(reeve_join(t, &result, reeve_in(REEVE_SEC)), -ETIMEDOUT);
    CHECK_EQ(result, 77);
    host_set(host_self(), &l->go);
    CHECK_OK(reeve_join(t, &result, 0));
    CHECK_EQ(result, 11);
    CHECK_EQ(l->ended, 1);
    return 0;
}

TEST(a_task_is_done_when_its_last_child_is)
{
    struct line l = { 0 };
    CHECK_EQ(host_run_virtual(1, waits_for_a_child_that_returned, &l), 0);
    l = (struct line){ 0 };
    CHECK_EQ(host_run_virtual(3, waits_for_a_child_that_returned, &l), 0);
}

static int joins_inline_what_lasts(void *arg)
{
    struct line *l = arg;
    reeve_task *t;
    int result = 77;
    host_set(host_self(), &l->go);
    CHECK_OK(reeve_spawn(&t, has_a_child_and_returns, l));
    CHECK_OK(reeve_join(t, &result, 0)); /* its function on this stack, its child elsewhere */
    CHECK_EQ(result, 11);
    CHECK_EQ(l->ended, 1);
    return 0;
}

TEST(a_child_run_inline_is_done_when_its_last_child_is)
{
    struct line l = { 0 };
    CHECK_EQ(host_run_virtual(1, joins_inline_what_lasts, &l), 0);
}

struct dynasty {
    struct line *last;
    unsigned to_come;
};

static int generation(void *arg)
{
    struct dynasty *d = arg;
    CHECK_EQ(d->last->ended, 0);
    return --d->to_come ? reeve_go(generation, d) : reeve_go(last_of_line, d->last);
}

static int starts_a_dynasty(void *arg)
{
    struct dynasty d = { .last = arg, .to_come = host_times(100000) };
    reeve_task *t;
    CHECK_OK(reeve_spawn(&t, generation, &d));
    CHECK_EQ(reeve_join(t, NULL, reeve_in(REEVE_SEC)), -ETIMEDOUT);
    CHECK_EQ(d.to_come, 0);
    host_set(host_self(), &d.last->go);
    CHECK_OK(reeve_join(t, NULL, 0));
    CHECK_EQ(d.last->ended, 1);
    return 0;
}

/* The last one's end completes all of them, from the bottom up, on one small stack. */
TEST(a_hundred_thousand_generations_end_at_once)
{
    struct line l = { 0 };
    CHECK_EQ(host_run_with(&(struct host_opts){ .tasks_max = 110000, .virtual = true },
                           starts_a_dynasty, &l),
             0);
}

static int tree(void *arg)
{
    uintptr_t depth = (uintptr_t)arg;
    rv_add_relaxed((RV_ATOMIC(unsigned) *)host_self()->arg, 1u);
    for (int i = 0; i < 3 && depth > 0; i++)
        CHECK_OK(reeve_go(tree, (void *)(depth - 1)));
    return 0;
}

static int grows_trees(void *arg)
{
    RV_ATOMIC(unsigned) *n = arg;
    for (int round = 0; round < 4; round++) {
        reeve_task *t;
        rv_store_relaxed(n, 0u);
        CHECK_OK(reeve_spawn(&t, tree, (void *)7));
        CHECK_OK(reeve_join(t, NULL, 0));
        CHECK_EQ(rv_load_relaxed(n), (3 * 3 * 3 * 3 * 3 * 3 * 3 * 3 - 1) / 2);
    }
    return 0;
}

TEST(a_join_waits_for_all_generations_on_real_threads)
{
    RV_ATOMIC(unsigned) n;
    CHECK_EQ(host_run(4, 10000, grows_trees, &n), 0);
}

static int leaves_children_behind(void *arg)
{
    for (int i = 0; i < 100; i++)
        CHECK_OK(reeve_go(tree, (void *)(uintptr_t)(i % 3)));
    (void)arg;
    return 0;
}

TEST(the_root_task_waits_for_what_it_spawned_too)
{
    RV_ATOMIC(unsigned) n = 0;
    CHECK_EQ(host_run(4, 10000, leaves_children_behind, (void *)&n), 0);
    CHECK_EQ(rv_load_relaxed(&n), 34 * 1 + 33 * 4 + 33 * 13);
}

/* ---- failures ---- */

static int fails(void *arg)
{
    (void)arg;
    return -EIO;
}

static int has_failing_children(void *arg)
{
    struct line *l = arg;
    reeve_task *t;
    int result = 77;
    CHECK_OK(reeve_go(last_of_line, l));
    for (int i = 0; i < 10; i++)
        CHECK_OK(reeve_go(fails, NULL));
    CHECK_OK(reeve_spawn(&t, fails, NULL));
    CHECK_OK(reeve_join(t, &result, 0));
    CHECK_EQ(result, -EIO);
    CHECK_OK(reeve_sleep(reeve_in(REEVE_SEC))); /* nobody was cancelled */
    CHECK_EQ(host_counts(host_self()).failed, 11);
    host_set(host_self(), &l->go);
    return 0;
}

TEST(a_failure_in_a_tasks_own_scope_is_counted_and_nobody_hears_of_it)
{
    struct line l = { 0 };
    CHECK_EQ(host_run_virtual(1, has_failing_children, &l), 0);
    CHECK_EQ(l.ended, 1);
}

static int sees_cancellation(void *arg)
{
    unsigned *seen = arg;
    int r = reeve_sleep(reeve_in(3600 * REEVE_SEC));
    *seen += r == -ECANCELED;
    return r;
}

static int fails_with_children(void *arg)
{
    for (int i = 0; i < 5; i++)
        CHECK_OK(reeve_go(sees_cancellation, arg));
    CHECK_OK(reeve_sleep(reeve_in(REEVE_SEC)));
    CHECK_OK(reeve_go(sees_cancellation, arg)); /* this one never starts */
    return -EIO;
}

static int joins_a_failure(void *arg)
{
    reeve_task *t;
    int result = 77;
    CHECK_OK(reeve_spawn(&t, fails_with_children, arg));
    CHECK_OK(reeve_join(t, &result, 0));
    CHECK_EQ(result, -EIO);
    CHECK_EQ(*(unsigned *)arg, 5);
    CHECK_LT(reeve_now(), 10 * REEVE_SEC);
    return 0;
}

TEST(a_task_that_fails_cancels_its_children_and_waits_for_them)
{
    unsigned seen = 0;
    CHECK_EQ(host_run_virtual(1, joins_a_failure, &seen), 0);
}

static int fails_later(void *arg)
{
    CHECK_OK(reeve_sleep(reeve_in(REEVE_SEC)));
    return (int)(intptr_t)arg;
}

static int loses_a_member(void *arg)
{
    unsigned *seen = arg;
    for (int with_handles = 0; with_handles < 2; with_handles++) {
        reeve_group g = { 0 };
        reeve_task *t;
        *seen = 0;
        for (int i = 0; i < 5; i++)
            CHECK_OK(reeve_spawn(i % 2 ? &t : NULL, sees_cancellation, seen, .group = &g));
        CHECK_OK(reeve_go(fails_later, (void *)-EPROTO, .group = &g));
        CHECK_OK(reeve_go(fails_later, (void *)-EIO, .deadline = reeve_in(2 * REEVE_SEC),
                          .group = &g));
        CHECK_OK(reeve_sleep(reeve_in(REEVE_US)));
        int r = reeve_group_wait(&g, 0);
        CHECK(r == -EPROTO || r == -EIO); /* they fail at one time */
        CHECK_EQ(*seen, 5);
    }
    CHECK_LT(reeve_now(), 10 * REEVE_SEC);
    return 0;
}

TEST(the_first_failure_of_a_member_cancels_the_group_and_is_returned)
{
    unsigned seen;
    CHECK_EQ(host_run_virtual(1, loses_a_member, &seen), 0);
}

static int first_of_many_failures(void *arg)
{
    (void)arg;
    reeve_group g = { 0 };
    for (int i = 0; i < 6; i++)
        CHECK_OK(reeve_go(fails_later, (void *)(intptr_t)(i == 3 ? -EDOM : -ECANCELED),
                          .group = &g));
    int r = reeve_group_wait(&g, 0);
    CHECK(r == -EDOM || r == -ECANCELED);
    CHECK_OK(reeve_go(fails_later, (void *)5, .group = &g));
    CHECK_EQ(reeve_group_wait(&g, 0), 0); /* what it was used for before is forgotten */
    return 0;
}

TEST(a_group_that_failed_can_be_used_again)
{
    CHECK_EQ(host_run_virtual(1, first_of_many_failures, NULL), 0);
}

static int has_a_failing_member_with_a_handle(void *arg)
{
    struct line *l = arg;
    reeve_group g = { 0 };
    reeve_task *joined, *unjoined;
    int result = 77;
    CHECK_OK(reeve_go(last_of_line, l, .group = &g));
    CHECK_OK(reeve_spawn(&joined, fails, NULL, .group = &g));
    CHECK_OK(reeve_spawn(&unjoined, fails, NULL, .group = &g));
    CHECK_OK(reeve_join(joined, &result, 0));
    CHECK_EQ(result, -EIO);
    CHECK_OK(reeve_sleep(reeve_in(REEVE_SEC)));
    CHECK_EQ(l->ended, 0);
    host_set(host_self(), &l->go);
    CHECK_EQ(reeve_group_wait(&g, 0), 0);
    CHECK_EQ(l->ended, 1);
    return 0;
}

TEST(the_failure_of_a_member_with_a_handle_is_its_joiners_business)
{
    struct line l = { 0 };
    CHECK_EQ(host_run_virtual(1, has_a_failing_member_with_a_handle, &l), 0);
    l = (struct line){ 0 };
    CHECK_EQ(host_run_virtual(3, has_a_failing_member_with_a_handle, &l), 0);
}

static int has_members_that_never_start(void *arg)
{
    (void)arg;
    reeve_group g = { 0 };
    CHECK_OK(reeve_go(host_nothing, NULL, .group = &g));
    CHECK_OK(reeve_go(host_nothing, NULL, .group = &g, .deadline = 1));
    CHECK_EQ(reeve_group_wait(&g, 0), -ETIMEDOUT);

    CHECK_OK(reeve_go(host_nothing, NULL, .group = &g));
    reeve_group_cancel(&g);
    CHECK_EQ(reeve_group_wait(&g, 0), -ECANCELED);
    return 0;
}

TEST(a_member_that_never_starts_is_a_failure_of_its_group)
{
    CHECK_EQ(host_run_virtual(1, has_members_that_never_start, NULL), 0);
}

static int owner_is_cancelled(void *arg)
{
    unsigned *seen = arg;
    reeve_group g = { 0 };
    for (int i = 0; i < 3; i++)
        CHECK_OK(reeve_go(sees_cancellation, seen, .group = &g));
    CHECK_EQ(reeve_group_wait(&g, 0), -ECANCELED);
    CHECK_EQ(*seen, 3);
    CHECK_OK(reeve_go(sees_cancellation, seen, .group = &g)); /* never starts */
    CHECK_EQ(reeve_group_wait(&g, 0), -ECANCELED);
    CHECK_EQ(*seen, 3);
    return 0;
}

static int cancels_a_group_owner(void *arg)
{
    reeve_task *t;
    CHECK_OK(reeve_spawn(&t, owner_is_cancelled, arg));
    CHECK_OK(reeve_sleep(reeve_in(REEVE_SEC)));
    reeve_cancel(t);
    CHECK_OK(reeve_join(t, NULL, 0));
    CHECK_LT(reeve_now(), 10 * REEVE_SEC);
    return 0;
}

TEST(the_groups_of_a_cancelled_task_are_cancelled_and_waited_for)
{
    unsigned seen = 0;
    CHECK_EQ(host_run_virtual(1, cancels_a_group_owner, &seen), 0);
}

static int waits_until(void *arg)
{
    unsigned *seen = arg;
    reeve_group g = { 0 };
    for (int i = 0; i < 3; i++)
        CHECK_OK(reeve_go(sees_cancellation, seen, .group = &g));
    reeve_time end = reeve_in(REEVE_SEC);
    CHECK_EQ(reeve_group_wait(&g, end), -ETIMEDOUT);
    CHECK_GE(reeve_now(), end);
    CHECK_EQ(*seen, 3);
    CHECK_EQ(g.opaque, 0);
    for (int i = 0; i < 3; i++)
        CHECK_OK(reeve_go(sees_cancellation, seen, .group = &g));
    CHECK_EQ(reeve_group_wait(&g, REEVE_POLL), -ETIMEDOUT); /* they never start */
    CHECK_EQ(*seen, 3);
    CHECK_OK(reeve_sleep(reeve_in(REEVE_SEC))); /* its own waits work as before */
    return 0;
}

TEST(a_group_wait_that_times_out_cancels_the_members_and_waits_for_them)
{
    unsigned seen = 0;
    CHECK_EQ(host_run_virtual(1, waits_until, &seen), 0);
}

/* Members spawn members. */
struct crowd {
    reeve_group g;
    RV_ATOMIC(unsigned) n;
};

static int brings_others(void *arg)
{
    struct crowd *c = arg;
    unsigned n = rv_add_relaxed(&c->n, 1u);
    for (int i = 0; i < 2 && n < 500; i++)
        CHECK_OK(reeve_go(brings_others, c, .group = &c->g));
    if (n % 16 == 0)
        CHECK_OK(reeve_sleep(reeve_in((int64_t)n * REEVE_US)));
    return 0;
}

static int gathers_a_crowd(void *arg)
{
    (void)arg;
    for (int round = 0; round < 20; round++) {
        struct crowd c = { 0 };
        CHECK_OK(reeve_go(brings_others, &c, .group = &c.g));
        CHECK_EQ(reeve_group_wait(&c.g, 0), 0);
        CHECK_EQ(rv_load_relaxed(&c.n), 1001);
    }
    return 0;
}

TEST(members_may_spawn_into_their_group)
{
    CHECK_EQ(host_run_with(&(struct host_opts){ .workers = 3, .tasks_max = 5000, .virtual = true },
                           gathers_a_crowd, NULL),
             0);
    CHECK_EQ(host_run(4, 5000, gathers_a_crowd, NULL), 0);
}

static int group_in_group(void *arg)
{
    uintptr_t depth = (uintptr_t)arg;
    reeve_group g = { 0 };
    for (int i = 0; i < 3 && depth; i++)
        CHECK_OK(reeve_go(group_in_group, (void *)(depth - 1), .group = &g));
    if (depth == 0)
        return reeve_sleep(0);
    return reeve_group_wait(&g, 0);
}

static int groups_in_groups(void *arg)
{
    for (unsigned i = 0; i < host_times(64); i++)
        CHECK_OK(group_in_group((void *)(uintptr_t)(2 + i % 5)));
    (void)arg;
    return 0;
}

TEST(groups_nest)
{
    CHECK_EQ(host_run(4, 10000, groups_in_groups, NULL), 0);
}

static int has_many_groups(void *arg)
{
    reeve_group g[50] = { { 0 } };
    unsigned *seen = arg;
    for (int i = 0; i < 50; i++)
        CHECK_OK(reeve_go(sees_cancellation, seen, .group = &g[i]));
    CHECK_OK(reeve_sleep(reeve_in(REEVE_US)));
    for (int i = 0; i < 50; i++) {
        reeve_group_cancel(&g[(i * 7) % 50]);
        CHECK_EQ(reeve_group_wait(&g[(i * 7) % 50], 0), -ECANCELED);
        CHECK_EQ(*seen, i + 1);
    }
    return 0;
}

TEST(a_task_may_own_many_groups_and_wait_for_them_in_any_order)
{
    unsigned seen = 0;
    CHECK_EQ(host_run_virtual(1, has_many_groups, &seen), 0);
}

/* ---- what is freed ---- */

static int leaves_handles(void *arg)
{
    (void)arg;
    for (int i = 0; i < 40; i++) {
        reeve_task *t;
        CHECK_OK(reeve_spawn(&t, i % 2 ? host_nothing : group_in_group, (void *)1));
        if (i % 5 == 0)
            reeve_sleep(0);
    }
    return 0;
}

static int leaves_handles_often(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < host_times(3000); i++) {
        reeve_task *t;
        CHECK_OK(reeve_spawn(&t, leaves_handles, NULL));
        if (i % 2)
            CHECK_OK(reeve_join(t, NULL, 0));
        else /* and this handle lives as long as the root task */
            CHECK_OK(reeve_go(leaves_handles, NULL));
        if (i % 64 == 0)
            reeve_sleep(0);
    }
    return 0;
}

/* host_destroy() sees to it that none is left. */
TEST(handles_that_nobody_joined_are_freed_with_their_scope)
{
    CHECK_EQ(host_run(1, 10000, leaves_handles_often, NULL), 0);
    CHECK_EQ(host_run(3, 10000, leaves_handles_often, NULL), 0);
}

static int waits_for_its_scope(void *arg)
{
    struct line *l = arg;
    rv_scope_wait(0); /* nobody is in it */
    for (unsigned round = 1; round <= 3; round++) {
        reeve_task *t;
        l->go = (struct host_event){ 0 };
        CHECK_OK(reeve_go(has_a_child_and_returns, l));
        struct line line = { .go = { HOST_EVENT_SET } };
        CHECK_OK(reeve_spawn(&t, has_a_child_and_returns, &line));
        CHECK_OK(reeve_sleep(reeve_in(REEVE_US)));
        host_set(host_self(), &l->go);
        rv_scope_wait(0);
        CHECK_EQ(l->ended, round);
    }
    return 0;
}

static int fails_and_waits_for_its_scope(void *arg)
{
    unsigned *seen = arg;
    for (int i = 0; i < 3; i++)
        CHECK_OK(reeve_go(sees_cancellation, seen));
    CHECK_OK(reeve_sleep(reeve_in(REEVE_US)));
    rv_scope_wait(-EIO);
    CHECK_EQ(*seen, 3);
    return 0;
}

static int spawns_what_waits_for_its_scope(void *arg)
{
    unsigned seen = 0;
    CHECK_OK(reeve_go(waits_for_its_scope, arg));
    CHECK_OK(reeve_go(fails_and_waits_for_its_scope, &seen));
    CHECK_OK(reeve_sleep(reeve_in(REEVE_SEC)));
    CHECK_EQ(seen, 3);
    return 0;
}

TEST(a_task_can_wait_for_its_own_scope_and_go_on)
{
    struct line l = { 0 };
    CHECK_EQ(host_run_virtual(1, spawns_what_waits_for_its_scope, &l), 0);
    CHECK_EQ(l.ended, 3);
}

static int ends_on_another_worker(void *arg)
{
    CHECK_OK(reeve_sleep(0));
    rv_add_relaxed((RV_ATOMIC(unsigned) *)host_self()->arg, 1u);
    (void)arg;
    return 0;
}

static int waits_for_scopes_often(void *arg)
{
    uint32_t n = rv_worker_self()->sched->nworkers;
    for (unsigned i = 0; i < host_times(2000); i++) {
        for (int k = 0; k < 4; k++)
            CHECK_OK(reeve_go(tree, (void *)1));
        CHECK_OK(reeve_go(ends_on_another_worker, NULL, .worker = 1 + (int)(i % n)));
        if (i % 3 == 0)
            reeve_sleep(0);
        rv_scope_wait(0);
    }
    (void)arg;
    return 0;
}

static int several_wait_for_scopes_often(void *arg)
{
    for (int i = 0; i < 4; i++)
        CHECK_OK(reeve_go(waits_for_scopes_often, arg));
    return 0;
}

TEST(waiting_for_ones_own_scope_works_on_real_threads)
{
    RV_ATOMIC(unsigned) n = 0;
    CHECK_EQ(host_run(4, 1000, several_wait_for_scopes_often, (void *)&n), 0);
    CHECK_EQ(rv_load_relaxed(&n), 4 * host_times(2000) * (4 * 4 + 1));
}

/* ---- counting ---- */

/* As if the task had spawned that many children, all of them done. */
static void pretend(struct rv_task *t, uint32_t spawned)
{
    t->spawned += spawned;
    rv_sub_acq_rel(&t->live, (int64_t)spawned);
}

/* Just before the count is folded, children are spawned that are joined inline after it. */
static int is_taken_back_from(void *arg)
{
    struct rv_task *cur = rv_worker_self()->cur;
    reeve_task *t[20];
    (void)arg;
    pretend(cur, RV_SPAWNED_MAX - 10);
    for (int i = 0; i < 20; i++)
        CHECK_OK(reeve_spawn(&t[i], host_nothing, NULL));
    CHECK_LT(cur->spawned, RV_SPAWNED_MAX - 10);
    for (int i = 19; i >= 0; i--)
        CHECK_OK(reeve_join(t[i], NULL, 0));
    return 0;
}

/* It is just then that a group is begun, which counts as a child, too. */
static int begins_a_group(void *arg)
{
    reeve_group g = { 0 };
    (void)arg;
    pretend(rv_worker_self()->cur, RV_SPAWNED_MAX - 1);
    CHECK_OK(reeve_go(host_nothing, NULL, .group = &g));
    CHECK_OK(reeve_go(host_nothing, NULL));
    CHECK_LT(rv_worker_self()->cur->spawned, RV_SPAWNED_MAX - 1);
    return reeve_group_wait(&g, 0);
}

static int spawns_a_billion(void *arg)
{
    (void)arg;
    for (int round = 0; round < 5; round++) {
        reeve_task *t;
        CHECK_OK(reeve_spawn(&t, round % 2 ? begins_a_group : is_taken_back_from, NULL));
        CHECK_OK(reeve_join(t, NULL, 0));
    }
    return 0;
}

TEST(a_task_may_spawn_billions_in_its_life)
{
    CHECK_EQ(host_run_with(&(struct host_opts){ .virtual = true, .pass_picks = INT32_MAX },
                           spawns_a_billion, NULL),
             0);
}
