/* SPDX-License-Identifier: MIT */
/*
 * waitgroup_test.c -- sched/waitgroup.c: whoever waits goes on when all is done, and not before.
 */
#define CHECK_MAIN
#include "tests/sched/duel.h"
#include "tests/sched/host.h"
#include <reeve/sync.h>

enum { MANY = 100 };

struct fixture {
    struct reeve_waitgroup g;
    int through;
    reeve_time until;
};

/* Virtual time passes only once nobody has anything to do. */
static void let_others_run(void)
{
    CHECK_OK(reeve_sleep(reeve_in(1)));
}

static void check_unused(const struct reeve_waitgroup *g)
{
    CHECK_EQ(g->opaque[0], 0);
    CHECK_EQ(g->opaque[2], 0);
}

static int waits(void *arg)
{
    struct fixture *f = arg;
    int r = reeve_waitgroup_wait(&f->g, f->until);
    f->through += r == 0;
    return r;
}

static void check_result(reeve_task *t, int want)
{
    int r = 9;
    CHECK_OK(reeve_join(t, &r, 0));
    CHECK_EQ(r, want);
}

static int many_wait(void *arg)
{
    struct fixture *f = arg;
    CHECK_EQ(reeve_waitgroup_wait(&f->g, REEVE_POLL), 0); /* there is nothing to wait for */
    for (int round = 0; round < 3; round++) {
        reeve_task *t[MANY];
        f->through = 0;
        reeve_waitgroup_add(&f->g, 2);
        for (int i = 0; i < MANY; i++)
            CHECK_OK(reeve_spawn(&t[i], waits, f));
        let_others_run();
        reeve_waitgroup_add(&f->g, 1);
        for (int i = 0; i < 3; i++) {
            let_others_run();
            CHECK_EQ(f->through, 0);
            CHECK_EQ(reeve_waitgroup_wait(&f->g, REEVE_POLL), -ETIMEDOUT);
            reeve_waitgroup_done(&f->g);
        }
        CHECK_EQ(reeve_waitgroup_wait(&f->g, REEVE_POLL), 0);
        for (int i = 0; i < MANY; i++)
            check_result(t[i], 0);
        check_unused(&f->g);
    }
    return 0;
}

TEST(all_who_wait_go_on_when_the_count_is_0_again_and_again)
{
    for (uint32_t workers = 1; workers <= 3; workers++) {
        struct fixture f = { 0 };
        CHECK_EQ(host_run_virtual(workers, many_wait, &f), 0);
    }
}

static int some_leave(void *arg)
{
    struct fixture *f = arg;
    reeve_task *t[3];
    reeve_time until = reeve_now() + REEVE_MS;
    reeve_waitgroup_add(&f->g, 1);
    for (int i = 0; i < 3; i++) {
        f->until = i == 1 ? until : 0;
        CHECK_OK(reeve_spawn(&t[i], waits, f));
        let_others_run();
    }
    reeve_cancel(t[2]);
    check_result(t[2], -ECANCELED);
    check_result(t[1], -ETIMEDOUT);
    CHECK_EQ(reeve_now(), until);
    reeve_waitgroup_done(&f->g);
    check_result(t[0], 0);
    check_unused(&f->g);

    reeve_waitgroup_add(&f->g, 1); /* and when all have left */
    CHECK_EQ(reeve_waitgroup_wait(&f->g, reeve_in(REEVE_US)), -ETIMEDOUT);
    CHECK_EQ(f->g.opaque[0], 2); /* one, and nobody waits */
    CHECK_EQ(f->g.opaque[2], 0);
    reeve_waitgroup_done(&f->g);
    check_unused(&f->g);
    return 0;
}

TEST(who_is_late_or_cancelled_leaves)
{
    struct fixture f = { 0 };
    CHECK_EQ(host_run_virtual(1, some_leave, &f), 0);
}

static int done_and_cancelled(void *arg)
{
    struct fixture *f = arg;
    for (int first = 0; first < 2; first++) {
        reeve_task *t;
        reeve_waitgroup_add(&f->g, 1);
        CHECK_OK(reeve_spawn(&t, waits, f));
        let_others_run();
        if (first)
            reeve_cancel(t);
        reeve_waitgroup_done(&f->g);
        if (!first)
            reeve_cancel(t);
        check_result(t, 0);
        check_unused(&f->g);
    }
    return 0;
}

TEST(that_all_is_done_beats_a_cancellation)
{
    struct fixture f = { 0 };
    CHECK_EQ(host_run_virtual(1, done_and_cancelled, &f), 0);
}

/* ---- many at once ---- */

/* On its waiter's stack: which must be its own again once the wait is over. */
struct job {
    struct reeve_waitgroup g;
    RV_ATOMIC(int) written[4];
};

static int does_its_part(void *arg)
{
    struct job *j = arg;
    for (int i = 0; i < 4; i++)
        if (rv_xchg_acq_rel(&j->written[i], 1) == 0)
            break;
    reeve_waitgroup_done(&j->g);
    return 0;
}

static int waits_for_its_parts(void *arg)
{
    uint32_t times = *(uint32_t *)arg;
    for (uint32_t i = 0; i < times; i++) {
        struct job j = { 0 };
        unsigned char over[sizeof j];
        reeve_group parts = { 0 };
        reeve_waitgroup_add(&j.g, 4);
        for (int k = 0; k < 4; k++)
            CHECK_OK(reeve_go(does_its_part, &j, .group = &parts));
        while (reeve_waitgroup_wait(&j.g, i % 3 ? 0 : reeve_in((i % 8) * REEVE_US)) < 0)
            ;
        for (int k = 0; k < 4; k++)
            CHECK_EQ(rv_load_relaxed(&j.written[k]), 1);
        memset(over, 0x5a, sizeof over);
        memcpy(&j, over, sizeof j);
        CHECK_OK(reeve_group_wait(&parts, 0));
        CHECK_MEM_EQ(&j, over, sizeof j);
    }
    return 0;
}

static int has_many_jobs(void *arg)
{
    reeve_group g = { 0 };
    for (int i = 0; i < 3; i++)
        CHECK_OK(reeve_go(waits_for_its_parts, arg, .group = &g));
    return reeve_group_wait(&g, 0);
}

TEST(it_may_go_away_as_soon_as_its_wait_is_over)
{
    for (uint32_t workers = 2; workers <= 4; workers++) {
        uint32_t times = host_times(6000);
        CHECK_EQ(host_run(workers, 100, has_many_jobs, &times), 0);
    }
}

static void waits_as_the_other_is_done(void *ctx, int who, uint32_t round)
{
    struct reeve_waitgroup *g = (struct reeve_waitgroup *)ctx + round % 2;
    if (who) {
        CHECK_OK(reeve_waitgroup_wait(g, 0));
        memset(g, 0, sizeof *g);
        reeve_waitgroup_add(g, 1); /* for the round after the next */
    } else {
        reeve_waitgroup_done(g);
    }
}

TEST(no_end_is_missed_between_two_when_nobody_else_comes)
{
    struct reeve_waitgroup g[2] = { 0 };
    reeve_waitgroup_add(&g[0], 1);
    reeve_waitgroup_add(&g[1], 1);
    duel(waits_as_the_other_is_done, g, 20000);
}

/* ---- foreign threads ---- */

struct relay {
    struct reeve_waitgroup there;
    uint64_t value;
    uint32_t times;
    RV_ATOMIC(uint32_t) turn;
};

static void *is_done_outside(void *arg)
{
    struct relay *x = arg;
    for (uint32_t i = 1; i <= x->times; i++) {
        while (rv_load_acquire(&x->turn) != i)
            sched_yield();
        x->value = i;
        reeve_waitgroup_done(&x->there);
    }
    return NULL;
}

static int waits_for_outside(void *arg)
{
    struct relay *x = arg;
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, is_done_outside, x), 0);
    for (uint32_t i = 1; i <= x->times; i++) {
        reeve_waitgroup_add(&x->there, 1);
        rv_store_release(&x->turn, i);
        CHECK_OK(reeve_waitgroup_wait(&x->there, 0));
        CHECK_EQ(x->value, i);
    }
    CHECK_EQ(pthread_join(thread, NULL), 0);
    return 0;
}

TEST(a_foreign_thread_may_be_done)
{
    struct relay x = { .times = host_times(5000) };
    CHECK_EQ(host_run(2, 100, waits_for_outside, &x), 0);
}

/* ---- misuse ---- */

static int is_done_too_often(void *arg)
{
    struct fixture *f = arg;
    reeve_waitgroup_add(&f->g, 1);
    reeve_waitgroup_done(&f->g);
    reeve_waitgroup_done(&f->g);
    return 0;
}

TEST(misuse_aborts_and_says_how)
{
    struct fixture f = { 0 };
    CHECK_DIES("reeve_waitgroup_done was called more often than was added",
               host_run_virtual(1, is_done_too_often, &f));
    CHECK_DIES("reeve_waitgroup_wait was called outside a task",
               (void)reeve_waitgroup_wait(&f.g, 0));
}
