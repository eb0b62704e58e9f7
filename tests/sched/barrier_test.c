/* SPDX-License-Identifier: MIT */
/*
 * barrier_test.c -- sched/barrier.c: nobody goes on before all have come, and then everybody does.
 */
#define CHECK_MAIN
#include "tests/sched/host.h"
#include <reeve/sync.h>

struct fixture {
    struct reeve_barrier b;
    int through;
    reeve_time until;
};

/* Virtual time passes only once nobody has anything to do. */
static void let_others_run(void)
{
    CHECK_OK(reeve_sleep(reeve_in(1)));
}

static int comes(void *arg)
{
    struct fixture *f = arg;
    int r = reeve_barrier_wait(&f->b, f->until);
    f->through += r >= 0;
    return r;
}

static void check_result(reeve_task *t, int want)
{
    int r = 9;
    CHECK_OK(reeve_join(t, &r, 0));
    CHECK_EQ(r, want);
}

static int meet(void *arg)
{
    struct fixture *f = arg;
    for (int n = 1; n < 80; n += 13) {
        reeve_task *t[80];
        CHECK_EQ(reeve_barrier_init(&f->b, (uint32_t)n), 0);
        for (int round = 0; round < 3; round++) {
            f->through = 0;
            for (int i = 0; i < n - 1; i++)
                CHECK_OK(reeve_spawn(&t[i], comes, f));
            let_others_run();
            CHECK_EQ(f->through, 0);
            CHECK_EQ(reeve_barrier_wait(&f->b, 0), 1);
            for (int i = 0; i < n - 1; i++)
                check_result(t[i], 0);
            CHECK_EQ(f->through, n - 1);
        }
    }
    return 0;
}

TEST(the_last_to_come_lets_all_go_again_and_again)
{
    for (uint32_t workers = 1; workers <= 3; workers++) {
        struct fixture f = { 0 };
        CHECK_EQ(host_run_virtual(workers, meet, &f), 0);
    }
}

static int some_leave(void *arg)
{
    struct fixture *f = arg;
    reeve_task *t[4];
    reeve_time until = reeve_now() + REEVE_MS;
    CHECK_EQ(reeve_barrier_init(&f->b, 3), 0);
    CHECK_EQ(reeve_barrier_wait(&f->b, REEVE_POLL), -ETIMEDOUT);
    CHECK_OK(reeve_spawn(&t[0], comes, f));
    let_others_run();
    CHECK_EQ(reeve_barrier_wait(&f->b, REEVE_POLL), -ETIMEDOUT); /* the second of three */
    f->until = until;
    CHECK_OK(reeve_spawn(&t[1], comes, f));
    let_others_run();
    check_result(t[1], -ETIMEDOUT);
    CHECK_EQ(reeve_now(), until);
    f->until = 0;
    CHECK_OK(reeve_spawn(&t[2], comes, f));
    let_others_run();
    reeve_cancel(t[2]);
    check_result(t[2], -ECANCELED);
    CHECK_EQ(f->through, 0);
    CHECK_OK(reeve_spawn(&t[3], comes, f));
    let_others_run();
    CHECK_EQ(f->through, 0);
    CHECK_EQ(reeve_barrier_wait(&f->b, REEVE_POLL), 1); /* the last need not wait */
    check_result(t[0], 0);
    check_result(t[3], 0);
    return 0;
}

TEST(who_leaves_is_not_counted)
{
    struct fixture f = { 0 };
    CHECK_EQ(host_run_virtual(1, some_leave, &f), 0);
}

/* The barrier opens while a cancelled one, whose wait is over, has not run; then after it has. */
static int open_and_cancel(void *arg)
{
    struct fixture *f = arg;
    for (int first = 0; first < 2; first++) {
        reeve_task *t;
        CHECK_EQ(reeve_barrier_init(&f->b, 2), 0);
        CHECK_OK(reeve_spawn(&t, comes, f));
        let_others_run();
        if (first)
            reeve_cancel(t);
        CHECK_EQ(reeve_barrier_wait(&f->b, 0), 1);
        if (!first)
            reeve_cancel(t);
        check_result(t, 0);
    }
    return 0;
}

TEST(one_that_was_counted_goes_on_although_cancelled)
{
    struct fixture f = { 0 };
    CHECK_EQ(host_run_virtual(1, open_and_cancel, &f), 0);
}

TEST(a_barrier_for_nobody_is_refused)
{
    struct reeve_barrier b, before;
    memset(&b, 0x77, sizeof b);
    before = b;
    CHECK_EQ(reeve_barrier_init(&b, 0), -EINVAL);
    CHECK_MEM_EQ(&b, &before, sizeof b);
}

/* ---- many at once ---- */

struct march {
    struct reeve_barrier b;
    uint32_t n, rounds;
    RV_ATOMIC(uint32_t) came; /* in all rounds */
    RV_ATOMIC(uint64_t) lasts, left;
    bool deadlines;
};

/* Comes, with a short deadline a few times, then for good. */
static int comes_at_last(struct march *m, uint32_t round)
{
    for (uint32_t i = 0; m->deadlines && i < 3; i++) {
        int r = reeve_barrier_wait(&m->b, reeve_in((round + i) % 16 * REEVE_US));
        if (r >= 0)
            return r;
        CHECK_EQ(r, -ETIMEDOUT);
        rv_add_relaxed(&m->left, (uint64_t)1);
        CHECK_OK(reeve_sleep(0));
    }
    return reeve_barrier_wait(&m->b, 0);
}

/* Nobody goes on with round r + 1 before all have come in round r. */
static int marches(void *arg)
{
    struct march *m = arg;
    for (uint32_t round = 0; round < m->rounds; round++) {
        rv_add_acq_rel(&m->came, 1u);
        int r = comes_at_last(m, round);
        CHECK_OK(r);
        rv_add_relaxed(&m->lasts, (uint64_t)r);
        CHECK_GE(rv_load_acquire(&m->came), (round + 1) * m->n);
    }
    return 0;
}

static int march(void *arg)
{
    struct march *m = arg;
    reeve_group g = { 0 };
    CHECK_EQ(reeve_barrier_init(&m->b, m->n), 0);
    for (uint32_t i = 0; i < m->n; i++)
        CHECK_OK(reeve_go(marches, m, .group = &g));
    CHECK_OK(reeve_group_wait(&g, 0));
    CHECK_EQ(rv_load_relaxed(&m->lasts), m->rounds);
    return 0;
}

TEST(in_every_round_all_come_before_anybody_goes_on)
{
    for (uint32_t workers = 1; workers <= 4; workers++) {
        struct march m = { .n = 5, .rounds = host_times(10000) };
        CHECK_EQ(host_run(workers, 100, march, &m), 0);
        struct march many = { .n = 70, .rounds = host_times(500) };
        CHECK_EQ(host_run(workers, 100, march, &many), 0);
    }
}

TEST(deadlines_race_with_the_last_to_come_and_nobody_is_counted_twice)
{
    for (uint32_t workers = 2; workers <= 4; workers++) {
        struct march m = { .n = 5, .rounds = host_times(4000), .deadlines = true };
        CHECK_EQ(host_run(workers, 100, march, &m), 0);
        struct march many = { .n = 70, .rounds = host_times(300), .deadlines = true };
        CHECK_EQ(host_run(workers, 100, march, &many), 0);
    }
}

/* Hundreds on one worker run out of time while, on another, the last one opens for them. */
enum { HUNDREDS = 300 };

struct rush {
    struct reeve_barrier b;
    RV_ATOMIC(uint32_t) on, late;
    reeve_time until;
};

static int rushes(void *arg)
{
    struct rush *x = arg;
    int r = reeve_barrier_wait(&x->b, x->until);
    CHECK(r == 0 || r == -ETIMEDOUT);
    rv_add_relaxed(r == 0 ? &x->on : &x->late, 1u);
    return 0;
}

static int comes_in_the_rush(void *arg)
{
    struct rush *x = arg;
    for (uint32_t round = 0; round < host_times(200); round++) {
        reeve_group g = { 0 };
        CHECK_EQ(reeve_barrier_init(&x->b, HUNDREDS + 1), 0);
        rv_store_relaxed(&x->on, 0u);
        rv_store_relaxed(&x->late, 0u);
        x->until = reeve_in(300 * REEVE_US);
        for (int i = 0; i < HUNDREDS; i++)
            CHECK_OK(reeve_go(rushes, x, .group = &g, .worker = 2));
        while (reeve_now() < x->until - (int64_t)(round % 20) * REEVE_US)
            rv_cpu_relax();
        int r = reeve_barrier_wait(&x->b, REEVE_POLL);
        CHECK(r == 1 || r == -ETIMEDOUT);
        CHECK_OK(reeve_group_wait(&g, 0));
        CHECK_EQ(rv_load_relaxed(&x->on), r == 1 ? HUNDREDS : 0);
        CHECK_EQ(rv_load_relaxed(&x->late), r == 1 ? 0 : HUNDREDS);
    }
    return 0;
}

static int begins_the_rush(void *arg)
{
    reeve_task *t;
    CHECK_OK(reeve_spawn(&t, comes_in_the_rush, arg, .worker = 1));
    return reeve_join(t, NULL, 0);
}

TEST(when_it_opens_all_who_were_counted_go_on)
{
    struct rush x = { .until = 0 };
    CHECK_EQ(host_run(2, 1000, begins_the_rush, &x), 0);
}

/* ---- misuse ---- */

TEST(misuse_aborts_and_says_how)
{
    struct fixture f = { 0 };
    CHECK_DIES("reeve_barrier_wait was called on a barrier that was not initialised",
               host_run_virtual(1, comes, &f));
    CHECK_DIES("reeve_barrier_wait was called outside a task",
               (void)reeve_barrier_wait(&f.b, 0));
}
