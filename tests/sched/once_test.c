/* SPDX-License-Identifier: MIT */
/*
 * once_test.c -- sched/once.c: it runs once, and everybody waits for the end of it.
 */
#define CHECK_MAIN
#include "tests/sched/host.h"
#include <reeve/sync.h>

enum { MANY = 100 };

struct fixture {
    struct reeve_once o;
    struct host_event go;
    int runs, result; /* of fn */
    int value;
    reeve_time until;
};

/* Virtual time passes only once nobody has anything to do. */
static void let_others_run(void)
{
    CHECK_OK(reeve_sleep(reeve_in(1)));
}

static int counts_its_runs(void *arg)
{
    struct fixture *f = arg;
    f->runs++;
    return f->result;
}

/* fn that takes its time. */
static int runs_until_told(void *arg)
{
    struct fixture *f = arg;
    f->runs++;
    CHECK_OK(host_wait(&f->go, 0));
    f->value = 42;
    return f->result;
}

static int asks(void *arg)
{
    struct fixture *f = arg;
    int r = reeve_once_run(&f->o, runs_until_told, f, f->until);
    if (r == 0)
        CHECK_EQ(f->value, 42);
    return r;
}

static void check_result(reeve_task *t, int want)
{
    int r = 1;
    CHECK_OK(reeve_join(t, &r, 0));
    CHECK_EQ(r, want);
}

static int asks_again_and_again(void *arg)
{
    struct fixture *f = arg;
    f->result = -EIO;
    CHECK_EQ(reeve_once_run(&f->o, counts_its_runs, f, REEVE_POLL), -EIO);
    CHECK_EQ(reeve_once_run(&f->o, counts_its_runs, f, REEVE_POLL), -EIO);
    CHECK_EQ(f->runs, 2);
    f->result = 7;
    for (int i = 0; i < 3; i++)
        CHECK_EQ(reeve_once_run(&f->o, counts_its_runs, f, REEVE_POLL), 0);
    CHECK_EQ(f->runs, 3);
    return 0;
}

TEST(it_runs_until_it_succeeds_and_then_no_more)
{
    struct fixture f = { 0 };
    CHECK_EQ(host_run_virtual(1, asks_again_and_again, &f), 0);
    CHECK_EQ(reeve_once_run(&f.o, counts_its_runs, &f, 0), 0); /* done: from anywhere */
}

static int many_ask(void *arg)
{
    struct fixture *f = arg;
    reeve_task *t[MANY];
    for (int i = 0; i < MANY; i++)
        CHECK_OK(reeve_spawn(&t[i], asks, f));
    let_others_run();
    CHECK_EQ(f->runs, 1);
    host_set(host_self(), &f->go);
    for (int i = 0; i < MANY; i++)
        check_result(t[i], f->result < 0 ? f->result : 0);
    CHECK_EQ(f->runs, 1);
    return 0;
}

TEST(all_who_come_meanwhile_wait_for_the_one_run)
{
    for (uint32_t workers = 1; workers <= 3; workers++) {
        struct fixture f = { .result = 3 };
        CHECK_EQ(host_run_virtual(workers, many_ask, &f), 0);
    }
}

TEST(a_failure_is_that_of_all_who_waited_for_it)
{
    for (uint32_t workers = 1; workers <= 3; workers++) {
        struct fixture f = { .result = -EIO };
        CHECK_EQ(host_run_virtual(workers, many_ask, &f), 0);
    }
}

static int fails_and_is_asked_again(void *arg)
{
    struct fixture *f = arg;
    CHECK_OK(many_ask(f));
    f->result = 0;
    f->go = (struct host_event){ 0 };
    reeve_task *t;
    CHECK_OK(reeve_spawn(&t, asks, f));
    let_others_run();
    CHECK_EQ(f->runs, 2);
    host_set(host_self(), &f->go);
    check_result(t, 0);
    return 0;
}

TEST(after_a_failure_the_next_one_runs_it_again)
{
    struct fixture f = { .result = -EIO };
    CHECK_EQ(host_run_virtual(1, fails_and_is_asked_again, &f), 0);
}

static int has_some_leave(void *arg)
{
    struct fixture *f = arg;
    reeve_task *t[4];
    int want[4] = { 0, -ECANCELED, -ETIMEDOUT, -ETIMEDOUT };
    reeve_time until = reeve_now() + REEVE_MS;
    for (int i = 0; i < 4; i++) {
        f->until = i == 2 ? until : i == 3 ? REEVE_POLL : 0;
        CHECK_OK(reeve_spawn(&t[i], asks, f));
        let_others_run();
    }
    reeve_cancel(t[1]);
    for (int i = 3; i > 0; i--)
        check_result(t[i], want[i]);
    CHECK_EQ(reeve_now(), until);
    host_set(host_self(), &f->go);
    check_result(t[0], 0);
    return 0;
}

TEST(who_is_late_or_cancelled_leaves_and_the_run_goes_on)
{
    struct fixture f = { 0 };
    CHECK_EQ(host_run_virtual(1, has_some_leave, &f), 0);
}

/* The run ends before who was cancelled has run. */
static int ends_and_is_cancelled(void *arg)
{
    struct fixture *f = arg;
    reeve_task *t[2];
    for (int i = 0; i < 2; i++) {
        CHECK_OK(reeve_spawn(&t[i], asks, f));
        let_others_run();
    }
    host_set(host_self(), &f->go);
    CHECK_OK(reeve_sleep(0)); /* the runner ends; the other is next */
    reeve_cancel(t[1]);
    check_result(t[1], 0);
    check_result(t[0], 0);
    return 0;
}

TEST(the_result_beats_a_cancellation)
{
    struct fixture f = { 0 };
    CHECK_EQ(host_run_virtual(1, ends_and_is_cancelled, &f), 0);
}

/* ---- many at once ---- */

struct race {
    struct reeve_once o;
    RV_ATOMIC(uint32_t) runs, ok;
    uint64_t value; /* what fn writes, read by everybody */
    RV_ATOMIC(uint32_t) failures_left;
    RV_ATOMIC(uint32_t) next;
};

static int fails_at_first(void *arg)
{
    struct race *x = arg;
    rv_add_relaxed(&x->runs, 1u);
    (void)reeve_sleep(0);
    uint32_t left = rv_load_relaxed(&x->failures_left);
    if (left > 0) {
        rv_store_relaxed(&x->failures_left, left - 1);
        return -EIO;
    }
    x->value = 42;
    return 0;
}

static int races(void *arg)
{
    struct race *x = arg;
    uint32_t me = rv_add_relaxed(&x->next, 1u);
    for (;;) {
        int r = reeve_once_run(&x->o, fails_at_first, x,
                               me % 3 ? 0 : reeve_in((int64_t)(me % 7) * REEVE_US));
        if (r == 0)
            break;
        CHECK(r == -EIO || r == -ETIMEDOUT);
        if (r == -ETIMEDOUT)
            CHECK_OK(reeve_sleep(0));
    }
    CHECK_EQ(x->value, 42);
    rv_add_relaxed(&x->ok, 1u);
    return 0;
}

static int many_races(void *arg)
{
    (void)arg;
    for (uint32_t i = 0; i < host_times(5000); i++) {
        struct race x = { .failures_left = i % 4 };
        reeve_group g = { 0 };
        for (int k = 0; k < 6; k++)
            CHECK_OK(reeve_go(races, &x, .group = &g));
        CHECK_OK(reeve_group_wait(&g, 0));
        CHECK_EQ(rv_load_relaxed(&x.runs), i % 4 + 1);
        CHECK_EQ(rv_load_relaxed(&x.ok), 6);
    }
    return 0;
}

TEST(of_all_who_race_one_runs_it)
{
    for (uint32_t workers = 2; workers <= 4; workers++)
        CHECK_EQ(host_run(workers, 100, many_races, NULL), 0);
}

/* ---- misuse ---- */

static int runs_itself(void *arg)
{
    struct fixture *f = arg;
    return reeve_once_run(&f->o, runs_itself, f, 0);
}

TEST(misuse_aborts_and_says_how)
{
    struct fixture f = { 0 };
    CHECK_DIES("reeve_once_run was called by the very function that it is running",
               host_run_virtual(1, runs_itself, &f));
    CHECK_DIES("reeve_once_run was called outside a task",
               (void)reeve_once_run(&f.o, counts_its_runs, &f, 0));
}
