/* SPDX-License-Identifier: MIT */
/*
 * sem_test.c -- sched/sem.c: no permit is lost, made up, or taken out of turn.
 */
#define CHECK_MAIN
#include "tests/sched/duel.h"
#include "tests/sched/host.h"
#include <reeve/sync.h>

struct fixture {
    struct reeve_sem s;
    int order[64], n; /* in which tasks got a permit */
    int next;
    reeve_time until;
};

/* Virtual time passes only once nobody has anything to do. */
static void let_others_run(void)
{
    CHECK_OK(reeve_sleep(reeve_in(1)));
}

/* How many permits can be had at once. */
static int permits(struct reeve_sem *s)
{
    int n = 0;
    while (reeve_sem_wait(s, REEVE_POLL) == 0)
        n++;
    for (int i = 0; i < n; i++)
        CHECK_EQ(reeve_sem_post(s), 0);
    return n;
}

static int waits(void *arg)
{
    struct fixture *f = arg;
    int me = f->next++;
    int r = reeve_sem_wait(&f->s, f->until);
    if (r == 0)
        f->order[f->n++] = me;
    return r;
}

/* ---- counting ---- */

static int counts(void *arg)
{
    struct fixture *f = arg;
    CHECK_EQ(reeve_sem_init(&f->s, 3, 5), 0);
    CHECK_EQ(permits(&f->s), 3);
    CHECK_EQ(reeve_sem_post(&f->s), 0);
    CHECK_EQ(reeve_sem_post(&f->s), 0);
    CHECK_EQ(reeve_sem_post(&f->s), -EINVAL);
    CHECK_EQ(permits(&f->s), 5);
    for (int i = 0; i < 5; i++)
        CHECK_EQ(reeve_sem_wait(&f->s, 0), 0);
    CHECK_EQ(reeve_sem_wait(&f->s, REEVE_POLL), -ETIMEDOUT);
    CHECK_EQ(permits(&f->s), 0);
    return 0;
}

TEST(it_counts_up_to_its_maximum_and_down_to_0)
{
    struct fixture f = { 0 };
    CHECK_EQ(host_run_virtual(1, counts, &f), 0);
}

static int counts_from_0(void *arg)
{
    struct fixture *f = arg;
    CHECK_EQ(reeve_sem_wait(&f->s, REEVE_POLL), -ETIMEDOUT);
    for (int i = 0; i < 100000; i++)
        CHECK_EQ(reeve_sem_post(&f->s), 0);
    CHECK_EQ(permits(&f->s), 100000);
    return 0;
}

TEST(a_zeroed_one_has_no_permit_and_no_maximum)
{
    struct fixture f = { 0 };
    CHECK_EQ(host_run_virtual(1, counts_from_0, &f), 0);
}

TEST(init_refuses_what_makes_no_sense_and_changes_nothing)
{
    struct reeve_sem s, before;
    memset(&s, 0x77, sizeof s);
    before = s;
    CHECK_EQ(reeve_sem_init(&s, 0, 0), -EINVAL);
    CHECK_EQ(reeve_sem_init(&s, 1, 0), -EINVAL);
    CHECK_EQ(reeve_sem_init(&s, 3, 2), -EINVAL);
    CHECK_MEM_EQ(&s, &before, sizeof s);
    CHECK_EQ(reeve_sem_init(&s, UINT32_MAX, UINT32_MAX), 0);
    CHECK_EQ(reeve_sem_post(&s), -EINVAL);
    CHECK_EQ(reeve_sem_init(&s, 0, 1), 0);
    CHECK_EQ(reeve_sem_post(&s), 0);
    CHECK_EQ(reeve_sem_post(&s), -EINVAL);
}

/* ---- waiting ---- */

static int has_many_wait(void *arg)
{
    struct fixture *f = arg;
    reeve_group g = { 0 };
    CHECK_EQ(reeve_sem_init(&f->s, 0, 1), 0);
    for (int i = 0; i < 20; i++) {
        CHECK_OK(reeve_go(waits, f, .group = &g));
        let_others_run();
        CHECK_EQ(f->next, i + 1);
    }
    for (int i = 0; i < 20; i++) {
        CHECK_EQ(reeve_sem_post(&f->s), 0); /* never beyond the maximum: each is taken at once */
        CHECK_EQ(reeve_sem_wait(&f->s, REEVE_POLL), -ETIMEDOUT);
    }
    CHECK_EQ(f->n, 0);
    CHECK_EQ(reeve_sem_post(&f->s), 0);
    CHECK_EQ(reeve_sem_post(&f->s), -EINVAL);
    CHECK_OK(reeve_group_wait(&g, 0));
    CHECK_EQ(f->n, 20);
    CHECK_EQ(permits(&f->s), 1);
    return 0;
}

TEST(a_posted_permit_belongs_to_who_waits_and_nobody_gets_in_before)
{
    struct fixture f = { 0 };
    CHECK_EQ(host_run_virtual(1, has_many_wait, &f), 0);
}

static int posts_one_by_one(void *arg)
{
    struct fixture *f = arg;
    reeve_group g = { 0 };
    for (int i = 0; i < 20; i++) {
        CHECK_OK(reeve_go(waits, f, .group = &g));
        let_others_run();
    }
    for (int i = 0; i < 20; i++) {
        CHECK_EQ(reeve_sem_post(&f->s), 0);
        let_others_run();
        CHECK_EQ(f->n, i + 1);
        CHECK_EQ(f->order[i], i);
    }
    return reeve_group_wait(&g, 0);
}

TEST(those_who_wait_are_served_in_order)
{
    struct fixture f = { 0 };
    CHECK_EQ(host_run_virtual(1, posts_one_by_one, &f), 0);
    f = (struct fixture){ 0 };
    CHECK_EQ(host_run_virtual(3, posts_one_by_one, &f), 0);
}

static int has_some_leave(void *arg)
{
    struct fixture *f = arg;
    reeve_task *t[4];
    int want[4] = { 0, -ECANCELED, -ETIMEDOUT, -ETIMEDOUT }, r;
    reeve_time until = reeve_now() + REEVE_MS;
    for (int i = 0; i < 4; i++) {
        f->until = i == 2 ? until : 0;
        CHECK_OK(reeve_spawn(&t[i], waits, f, .deadline = i == 3 ? until + 1 : 0));
        let_others_run();
    }
    reeve_cancel(t[1]);
    for (int i = 3; i > 0; i--) {
        CHECK_OK(reeve_join(t[i], &r, 0));
        CHECK_EQ(r, want[i]);
    }
    CHECK_EQ(reeve_now(), until + 1);
    CHECK_EQ(reeve_sem_post(&f->s), 0);
    CHECK_OK(reeve_join(t[0], &r, 0));
    CHECK_EQ(r, 0);
    CHECK_EQ(permits(&f->s), 0);
    CHECK_EQ(reeve_sem_wait(&f->s, reeve_in(REEVE_MS)), -ETIMEDOUT); /* alone in line */
    CHECK_EQ(reeve_sem_post(&f->s), 0);
    CHECK_EQ(permits(&f->s), 1);
    return 0;
}

TEST(who_is_late_or_cancelled_leaves_and_takes_no_permit)
{
    struct fixture f = { 0 };
    CHECK_EQ(host_run_virtual(1, has_some_leave, &f), 0);
}

static int posts_and_cancels(void *arg)
{
    struct fixture *f = arg;
    for (int first = 0; first < 2; first++) {
        reeve_task *t;
        int r = 1;
        CHECK_OK(reeve_spawn(&t, waits, f));
        let_others_run();
        if (first)
            reeve_cancel(t); /* its wait is over, but it has not run, and is still in line */
        CHECK_EQ(reeve_sem_post(&f->s), 0);
        if (!first)
            reeve_cancel(t);
        CHECK_OK(reeve_join(t, &r, 0));
        CHECK_EQ(r, 0);
        CHECK_EQ(permits(&f->s), 0);
    }
    return 0;
}

TEST(a_permit_that_was_granted_beats_a_cancellation)
{
    struct fixture f = { 0 };
    CHECK_EQ(host_run_virtual(1, posts_and_cancels, &f), 0);
}

static int takes_when_cancelled(void *arg)
{
    struct fixture *f = arg;
    while (reeve_sleep(reeve_in(REEVE_SEC)) == 0)
        ;
    CHECK_EQ(reeve_sem_wait(&f->s, 0), 0);
    CHECK_EQ(reeve_sem_wait(&f->s, 0), -ECANCELED);
    return 0;
}

static int cancels_a_taker(void *arg)
{
    struct fixture *f = arg;
    reeve_task *t;
    int r = 1;
    CHECK_EQ(reeve_sem_post(&f->s), 0);
    CHECK_OK(reeve_spawn(&t, takes_when_cancelled, f));
    let_others_run();
    reeve_cancel(t);
    CHECK_OK(reeve_join(t, &r, 0));
    return r;
}

TEST(a_cancelled_task_gets_what_is_there_and_does_not_wait)
{
    struct fixture f = { 0 };
    CHECK_EQ(host_run_virtual(1, cancels_a_taker, &f), 0);
}

/* ---- many at once ---- */

enum { PERMITS = 3 };

struct crowd {
    struct reeve_sem s;
    RV_ATOMIC(int) inside;
    RV_ATOMIC(uint64_t) got, missed;
    uint32_t times;
    bool deadlines;
};

static int comes_and_goes(void *arg)
{
    struct crowd *c = arg;
    for (uint32_t i = 0; i < c->times; i++) {
        reeve_time until = c->deadlines ? reeve_in((int64_t)(i * 37 % 20) * REEVE_US) : 0;
        int r = reeve_sem_wait(&c->s, until);
        if (r == -ECANCELED)
            return 0;
        if (r < 0) {
            CHECK_EQ(r, -ETIMEDOUT);
            rv_add_relaxed(&c->missed, (uint64_t)1);
            continue;
        }
        CHECK_LT(rv_add_acq_rel(&c->inside, 1), PERMITS);
        if (i % 8 == 0)
            (void)reeve_sleep(i % 16 ? 0 : reeve_in(2 * REEVE_US));
        rv_sub_acq_rel(&c->inside, 1);
        CHECK_EQ(reeve_sem_post(&c->s), 0);
        rv_add_relaxed(&c->got, (uint64_t)1);
    }
    return 0;
}

static int is_a_crowd(void *arg)
{
    struct crowd *c = arg;
    reeve_group g = { 0 };
    for (int i = 0; i < 10; i++)
        CHECK_OK(reeve_go(comes_and_goes, c, .group = &g));
    CHECK_OK(reeve_group_wait(&g, 0));
    CHECK_EQ(permits(&c->s), PERMITS);
    CHECK_EQ(rv_load_relaxed(&c->got) + rv_load_relaxed(&c->missed), 10 * c->times);
    return 0;
}

TEST(no_more_are_inside_than_there_are_permits)
{
    for (uint32_t workers = 1; workers <= 4; workers++) {
        struct crowd c = { .times = host_times(10000), .deadlines = workers % 2 == 0 };
        CHECK_EQ(reeve_sem_init(&c.s, PERMITS, PERMITS), 0);
        CHECK_EQ(host_run(workers, 100, is_a_crowd, &c), 0);
    }
}

static int cancels_at_random(void *arg)
{
    struct crowd *c = arg;
    for (uint32_t round = 0; round < host_times(1500); round++) {
        reeve_task *t[6];
        for (int i = 0; i < 6; i++)
            CHECK_OK(reeve_spawn(&t[i], comes_and_goes, c));
        for (uint32_t i = 0; i < round % 5; i++)
            CHECK_OK(reeve_sleep(0));
        for (int i = 0; i < 6; i += 2)
            reeve_cancel(t[i]);
        for (int i = 0; i < 6; i++)
            CHECK_OK(reeve_join(t[i], NULL, 0));
        CHECK_EQ(permits(&c->s), PERMITS);
    }
    return 0;
}

TEST(cancellation_races_with_grants_and_no_permit_is_lost)
{
    for (uint32_t workers = 2; workers <= 4; workers++) {
        struct crowd c = { .times = 20 };
        CHECK_EQ(reeve_sem_init(&c.s, PERMITS, PERMITS), 0);
        CHECK_EQ(host_run(workers, 100, cancels_at_random, &c), 0);
    }
}

static void waits_as_the_other_posts(void *ctx, int who, uint32_t round)
{
    struct reeve_sem *s = ctx;
    if ((who ^ (int)(round / 64)) & 1)
        CHECK_EQ(reeve_sem_post(s), 0);
    else
        CHECK_EQ(reeve_sem_wait(s, 0), 0);
}

TEST(no_permit_is_lost_between_two_when_nobody_else_comes)
{
    struct reeve_sem s = { { 0 } };
    duel(waits_as_the_other_posts, &s, 15000);
    CHECK_EQ(s.opaque[0], 0);
    CHECK_EQ(reeve_sem_init(&s, 0, 1), 0);
    duel(waits_as_the_other_posts, &s, 15000);
    CHECK_EQ(s.opaque[0], 0);
}

/* ---- foreign threads ---- */

struct stranger {
    struct reeve_sem there, back;
    uint32_t times;
};

static void *posts_from_outside(void *arg)
{
    struct stranger *x = arg;
    for (uint32_t i = 0; i < x->times; i++)
        CHECK_EQ(reeve_sem_post(&x->there), 0);
    return NULL;
}

static int takes_from_outside(void *arg)
{
    struct stranger *x = arg;
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, posts_from_outside, x), 0);
    for (uint32_t i = 0; i < x->times; i++)
        CHECK_EQ(reeve_sem_wait(&x->there, 0), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(permits(&x->there), 0);
    return 0;
}

TEST(a_foreign_thread_may_post)
{
    for (uint32_t workers = 1; workers <= 2; workers++) {
        struct stranger x = { .times = host_times(50000) };
        CHECK_EQ(host_run(workers, 100, takes_from_outside, &x), 0);
    }
}

/* Each waits for the other's permit: one that is lost hangs both. */
static int pings(void *arg)
{
    struct stranger *x = arg;
    for (uint32_t i = 0; i < x->times; i++) {
        CHECK_EQ(reeve_sem_post(&x->there), 0);
        CHECK_EQ(reeve_sem_wait(&x->back, 0), 0);
    }
    return 0;
}

static int pongs(void *arg)
{
    struct stranger *x = arg;
    for (uint32_t i = 0; i < x->times; i++) {
        CHECK_EQ(reeve_sem_wait(&x->there, 0), 0);
        CHECK_EQ(reeve_sem_post(&x->back), 0);
    }
    return 0;
}

static void *runs_the_other(void *arg)
{
    CHECK_EQ(host_run(1, 100, pongs, arg), 0);
    return NULL;
}

TEST(tasks_of_two_runtimes_may_meet)
{
    struct stranger x = { .times = host_times(5000) };
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, runs_the_other, &x), 0);
    CHECK_EQ(host_run(2, 100, pings, &x), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
}

TEST(waiting_outside_a_task_aborts)
{
    struct reeve_sem s = { { 0 } };
    CHECK_DIES("reeve_sem_wait was called outside a task", (void)reeve_sem_wait(&s, 0));
}
