/* SPDX-License-Identifier: MIT */
/*
 * cond_test.c -- sched/cond.c: every signal ends a wait, and whoever returns holds the mutex.
 */
#define CHECK_MAIN
#include "tests/sched/duel.h"
#include "tests/sched/host.h"
#include <reeve/sync.h>

enum { MANY = 100 };

struct fixture {
    struct reeve_mutex m;
    struct reeve_cond c;
    int order[MANY], n; /* who came back, guarded */
    int next;
    reeve_time until;
};

/* Virtual time passes only once nobody has anything to do. */
static void let_others_run(void)
{
    CHECK_OK(reeve_sleep(reeve_in(1)));
}

static void check_unused(struct fixture *f)
{
    CHECK_EQ(f->m.opaque[0], 0);
    CHECK_EQ(f->m.opaque[1], 0);
    CHECK_EQ(f->c.opaque[0], 0); /* nobody waits */
    CHECK_EQ(f->c.opaque[2], 0);
}

static int waits(void *arg)
{
    struct fixture *f = arg;
    CHECK_OK(reeve_mutex_lock(&f->m, 0));
    int me = f->next++;
    int r = reeve_cond_wait(&f->c, &f->m, f->until);
    f->order[f->n++] = me;
    reeve_mutex_unlock(&f->m); /* aborts, if it is not held */
    return r;
}

static void come(struct fixture *f, reeve_task **t, int n)
{
    int was = f->next;
    for (int i = 0; i < n; i++) {
        CHECK_OK(reeve_spawn(&t[i], waits, f));
        let_others_run();
    }
    CHECK_EQ(f->next, was + n);
}

static void check_result(reeve_task *t, int want)
{
    int r = 1;
    CHECK_OK(reeve_join(t, &r, 0));
    CHECK_EQ(r, want);
}

/* ---- signals ---- */

static int signals_one_by_one(void *arg)
{
    struct fixture *f = arg;
    reeve_task *t[10];
    reeve_cond_signal(&f->c); /* nobody waits: it is not remembered */
    come(f, t, 10);
    for (int i = 0; i < 10; i++) {
        let_others_run();
        CHECK_EQ(f->n, i);
        reeve_cond_signal(&f->c);
        let_others_run();
        CHECK_EQ(f->n, i + 1);
        CHECK_EQ(f->order[i], i);
        check_result(t[i], 0);
    }
    check_unused(f);
    return 0;
}

TEST(a_signal_ends_the_wait_of_the_one_who_has_waited_longest)
{
    for (uint32_t workers = 1; workers <= 3; workers++) {
        struct fixture f = { 0 };
        CHECK_EQ(host_run_virtual(workers, signals_one_by_one, &f), 0);
    }
}

static int broadcasts(void *arg)
{
    struct fixture *f = arg;
    reeve_task *t[MANY];
    come(f, t, MANY);
    CHECK_OK(reeve_mutex_lock(&f->m, 0));
    reeve_cond_broadcast(&f->c);
    CHECK_EQ(rv_queued(rv_worker_self()), 0); /* nobody was woken to wait for the mutex */
    let_others_run();
    CHECK_EQ(f->n, 0);
    reeve_mutex_unlock(&f->m);
    CHECK_EQ(rv_queued(rv_worker_self()), 1);
    for (int i = 0; i < MANY; i++)
        check_result(t[i], 0);
    for (int i = 0; i < MANY; i++)
        CHECK_EQ(f->order[i], i);
    check_unused(f);
    return 0;
}

TEST(a_broadcast_ends_all_waits_and_wakes_one_at_a_time)
{
    struct fixture f = { 0 };
    CHECK_EQ(host_run_virtual(1, broadcasts, &f), 0);
}

static int broadcasts_without_the_mutex(void *arg)
{
    struct fixture *f = arg;
    reeve_task *t[MANY];
    come(f, t, MANY);
    reeve_cond_broadcast(&f->c);
    CHECK_LE(rv_queued(rv_worker_self()), 1);
    for (int i = 0; i < MANY; i++)
        check_result(t[i], 0);
    check_unused(f);
    return 0;
}

TEST(a_broadcast_without_the_mutex_wakes_one_at_a_time_too)
{
    struct fixture f = { 0 };
    CHECK_EQ(host_run_virtual(1, broadcasts_without_the_mutex, &f), 0);
    f = (struct fixture){ 0 };
    CHECK_EQ(host_run_virtual(1, broadcasts_without_the_mutex, &f), 0);
}

static int uses_two_mutexes(void *arg)
{
    struct fixture *f = arg; /* two: one condition, two mutexes */
    reeve_task *t;
    come(f, &t, 1);
    CHECK_OK(reeve_mutex_lock(&f[1].m, 0));
    reeve_task *other;
    CHECK_OK(reeve_spawn(&other, waits, f));
    let_others_run();
    reeve_cond_broadcast(&f->c); /* our own mutex has nothing to do with theirs */
    check_result(t, 0);
    check_result(other, 0);
    CHECK_OK(reeve_spawn(&other, waits, f));
    let_others_run();
    CHECK_EQ(reeve_cond_wait(&f->c, &f[1].m, reeve_in(1000)), -ETIMEDOUT);
    reeve_mutex_unlock(&f[1].m);
    reeve_cond_signal(&f->c);
    check_result(other, 0);
    check_unused(f);
    check_unused(&f[1]);
    return 0;
}

TEST(those_who_wait_may_use_different_mutexes)
{
    struct fixture f[2] = { 0 };
    CHECK_EQ(host_run_virtual(1, uses_two_mutexes, f), 0);
}

/* ---- deadlines and cancellation: always with the mutex held at the end ---- */

static int ends_late(void *arg)
{
    struct fixture *f = arg;
    reeve_task *t;
    reeve_time until = f->until = reeve_now() + REEVE_MS;
    come(f, &t, 1);
    CHECK_OK(reeve_mutex_lock(&f->m, 0));
    CHECK_OK(reeve_sleep(until + REEVE_MS)); /* it wants the mutex, and cannot have it */
    CHECK_EQ(f->n, 0);
    reeve_mutex_unlock(&f->m);
    check_result(t, -ETIMEDOUT);
    CHECK_EQ(f->n, 1);
    check_unused(f);
    return 0;
}

TEST(a_late_one_waits_for_the_mutex_whatever_the_deadline)
{
    struct fixture f = { 0 };
    CHECK_EQ(host_run_virtual(1, ends_late, &f), 0);
}

static int waits_and_wants_to_sleep(void *arg)
{
    CHECK_EQ(waits(arg), -ECANCELED);
    return reeve_sleep(reeve_in(REEVE_SEC));
}

static int is_cancelled_once_more(void *arg)
{
    struct fixture *f = arg;
    reeve_task *t;
    CHECK_OK(reeve_spawn(&t, waits_and_wants_to_sleep, f));
    let_others_run();
    CHECK_OK(reeve_mutex_lock(&f->m, 0));
    reeve_cancel(t);
    let_others_run();
    reeve_mutex_unlock(&f->m);
    check_result(t, -ECANCELED);
    return 0;
}

TEST(a_cancelled_one_stays_cancelled)
{
    struct fixture f = { 0 };
    CHECK_EQ(host_run_virtual(1, is_cancelled_once_more, &f), 0);
}

static int is_cancelled(void *arg)
{
    struct fixture *f = arg;
    reeve_task *t[3];
    come(f, t, 3);
    CHECK_OK(reeve_mutex_lock(&f->m, 0));
    reeve_cancel(t[1]);
    let_others_run();
    CHECK_EQ(f->n, 0);
    reeve_mutex_unlock(&f->m);
    check_result(t[1], -ECANCELED);
    CHECK_EQ(f->n, 1);
    reeve_cond_broadcast(&f->c);
    check_result(t[0], 0);
    check_result(t[2], 0);
    check_unused(f);
    return 0;
}

TEST(a_cancelled_one_waits_for_the_mutex_all_the_same)
{
    struct fixture f = { 0 };
    CHECK_EQ(host_run_virtual(1, is_cancelled, &f), 0);
}

/* Signalled under the mutex, so it waits for that; then its deadline passes, or it is cancelled. */
static int is_signalled_before(void *arg)
{
    struct fixture *f = arg;
    reeve_task *t[4];
    reeve_time until = f->until = reeve_now() + REEVE_MS;
    come(f, t, 4);
    CHECK_OK(reeve_mutex_lock(&f->m, 0));
    reeve_cond_signal(&f->c);
    reeve_cond_signal(&f->c);
    let_others_run();
    reeve_cancel(t[1]);
    let_others_run();
    CHECK_OK(reeve_sleep(until + REEVE_MS));
    CHECK_EQ(f->n, 0);
    reeve_mutex_unlock(&f->m);
    check_result(t[0], 0);
    check_result(t[1], 0);
    check_result(t[2], -ETIMEDOUT);
    check_result(t[3], -ETIMEDOUT);
    CHECK_EQ(f->order[0], 0); /* it kept its place */
    CHECK_EQ(f->order[1], 1);
    check_unused(f);
    return 0;
}

TEST(a_signal_beats_a_deadline_and_a_cancellation)
{
    struct fixture f = { 0 };
    CHECK_EQ(host_run_virtual(1, is_signalled_before, &f), 0);
}

/* Its wait has ended by cancellation, but the task has not run when the signal comes. */
static int is_signalled_after(void *arg)
{
    struct fixture *f = arg;
    reeve_task *t[3];
    for (int held = 0; held < 2; held++)
        for (int all = 0; all < 2; all++) {
            come(f, t, 2);
            if (held)
                CHECK_OK(reeve_mutex_lock(&f->m, 0));
            reeve_cancel(t[0]);
            if (all)
                reeve_cond_broadcast(&f->c);
            else
                reeve_cond_signal(&f->c);
            if (held)
                reeve_mutex_unlock(&f->m);
            check_result(t[0], 0);
            if (!all)
                reeve_cond_signal(&f->c);
            check_result(t[1], 0);
            check_unused(f);
        }
    return 0;
}

TEST(one_that_was_signalled_before_it_could_leave_was_signalled)
{
    struct fixture f = { 0 };
    CHECK_EQ(host_run_virtual(1, is_signalled_after, &f), 0);
}

static int keeps_it_locked(void *arg)
{
    struct fixture *f = arg;
    reeve_task *t;
    f->until = REEVE_POLL;
    CHECK_OK(reeve_mutex_lock(&f->m, 0));
    CHECK_EQ(reeve_cond_wait(&f->c, &f->m, REEVE_POLL), -ETIMEDOUT);
    reeve_mutex_unlock(&f->m);
    CHECK_OK(reeve_spawn(&t, waits, f));
    check_result(t, -ETIMEDOUT);
    CHECK_EQ(f->n, 1);
    return 0;
}

TEST(a_poll_says_that_nobody_signalled_and_keeps_the_mutex)
{
    struct fixture f = { 0 };
    CHECK_EQ(host_run_virtual(1, keeps_it_locked, &f), 0);
}

static int waits_when_cancelled(void *arg)
{
    struct fixture *f = arg;
    while (reeve_sleep(reeve_in(REEVE_SEC)) == 0)
        ;
    CHECK_OK(reeve_mutex_lock(&f->m, 0));
    uintptr_t word = f->m.opaque[0];
    CHECK_EQ(reeve_cond_wait(&f->c, &f->m, 0), -ECANCELED);
    CHECK_EQ(f->m.opaque[0], word);
    reeve_mutex_unlock(&f->m);
    CHECK_EQ(reeve_sleep(reeve_in(1)), -ECANCELED); /* still: nothing was left masked */
    return 0;
}

static int cancels_before(void *arg)
{
    reeve_task *t;
    CHECK_OK(reeve_spawn(&t, waits_when_cancelled, arg));
    let_others_run();
    reeve_cancel(t);
    check_result(t, 0);
    check_unused(arg);
    return 0;
}

TEST(a_cancelled_task_does_not_wait_and_keeps_the_mutex)
{
    struct fixture f = { 0 };
    CHECK_EQ(host_run_virtual(1, cancels_before, &f), 0);
}

/* ---- many at once ---- */

/* A bounded buffer of numbers. */
struct buffer {
    struct reeve_mutex m;
    struct reeve_cond not_full, not_empty;
    uint32_t slots[4], len;
    uint64_t put, taken, sum_put, sum_taken; /* guarded */
    uint32_t times, producers_left;
    bool deadlines;
};

static int puts_numbers(void *arg)
{
    struct buffer *b = arg;
    for (uint32_t i = 1; i <= b->times; i++) {
        CHECK_OK(reeve_mutex_lock(&b->m, 0));
        while (b->len == 4) {
            int r = reeve_cond_wait(&b->not_full, &b->m,
                                    b->deadlines ? reeve_in((i % 20) * REEVE_US) : 0);
            CHECK(r == 0 || (b->deadlines && r == -ETIMEDOUT));
        }
        b->slots[b->len++] = i;
        b->put++;
        b->sum_put += i;
        reeve_mutex_unlock(&b->m);
        reeve_cond_signal(&b->not_empty);
    }
    CHECK_OK(reeve_mutex_lock(&b->m, 0));
    if (--b->producers_left == 0)
        reeve_cond_broadcast(&b->not_empty);
    reeve_mutex_unlock(&b->m);
    return 0;
}

static int takes_numbers(void *arg)
{
    struct buffer *b = arg;
    CHECK_OK(reeve_mutex_lock(&b->m, 0));
    for (uint32_t i = 0;; i++) {
        while (b->len == 0 && b->producers_left > 0) {
            int r = reeve_cond_wait(&b->not_empty, &b->m,
                                    b->deadlines ? reeve_in((i % 20) * REEVE_US) : 0);
            CHECK(r == 0 || (b->deadlines && r == -ETIMEDOUT));
        }
        if (b->len == 0)
            break;
        b->sum_taken += b->slots[--b->len];
        b->taken++;
        reeve_cond_signal(&b->not_full); /* with the mutex held: that must work as well */
    }
    reeve_mutex_unlock(&b->m);
    return 0;
}

static int fills_and_empties(void *arg)
{
    struct buffer *b = arg;
    reeve_group g = { 0 };
    b->producers_left = 4;
    for (int i = 0; i < 4; i++) {
        CHECK_OK(reeve_go(puts_numbers, b, .group = &g));
        CHECK_OK(reeve_go(takes_numbers, b, .group = &g));
    }
    CHECK_OK(reeve_group_wait(&g, 0));
    CHECK_EQ(b->taken, (uint64_t)4 * b->times);
    CHECK_EQ(b->sum_taken, b->sum_put);
    CHECK_EQ(b->m.opaque[0], 0);
    return 0;
}

TEST(a_bounded_buffer_loses_nothing)
{
    for (uint32_t workers = 1; workers <= 4; workers++) {
        struct buffer b = { .times = host_times(10000), .deadlines = workers > 2 };
        CHECK_EQ(host_run(workers, 100, fills_and_empties, &b), 0);
    }
}

/* Waiters with deadlines, and some cancelled, while others signal, broadcast, and hold the mutex.
 * */
struct storm {
    struct reeve_mutex m;
    struct reeve_cond c;
    uint64_t inside; /* guarded */
    RV_ATOMIC(bool) over;
    uint32_t times;
};

static int is_in_the_storm(void *arg)
{
    struct storm *s = arg;
    for (uint32_t i = 0; i < s->times; i++) {
        if (reeve_mutex_lock(&s->m, 0) < 0)
            return 0;
        CHECK_EQ(s->inside++, 0);
        s->inside--;
        int r = reeve_cond_wait(&s->c, &s->m, reeve_in((int64_t)(i * 37 % 50) * REEVE_US));
        CHECK_EQ(s->inside++, 0);
        s->inside--;
        reeve_mutex_unlock(&s->m);
        if (r == -ECANCELED)
            return 0;
        CHECK(r == 0 || r == -ETIMEDOUT);
    }
    return 0;
}

static int makes_the_storm(void *arg)
{
    struct storm *s = arg;
    for (uint32_t i = 0; !rv_load_relaxed(&s->over); i++) {
        if (i % 4 == 0) {
            CHECK_OK(reeve_mutex_lock(&s->m, 0));
            CHECK_EQ(s->inside, 0);
        }
        if (i % 3 == 0)
            reeve_cond_broadcast(&s->c);
        else
            reeve_cond_signal(&s->c);
        if (i % 4 == 0)
            reeve_mutex_unlock(&s->m);
        CHECK_OK(reeve_sleep(i % 8 ? 0 : reeve_in(REEVE_US)));
    }
    return 0;
}

static int storms(void *arg)
{
    struct storm *s = arg;
    reeve_task *maker;
    CHECK_OK(reeve_spawn(&maker, makes_the_storm, s));
    for (uint32_t round = 0; round < host_times(400); round++) {
        reeve_task *t[40];
        for (int i = 0; i < 40; i++)
            CHECK_OK(reeve_spawn(&t[i], is_in_the_storm, s));
        for (uint32_t i = 0; i < round % 5; i++)
            CHECK_OK(reeve_sleep(0));
        for (int i = 0; i < 40; i += 4)
            reeve_cancel(t[i]);
        for (int i = 0; i < 40; i++)
            CHECK_OK(reeve_join(t[i], NULL, 0));
    }
    rv_store_relaxed(&s->over, true);
    CHECK_OK(reeve_join(maker, NULL, 0));
    CHECK_EQ(s->m.opaque[0], 0);
    CHECK_EQ(s->c.opaque[0], 0);
    return 0;
}

TEST(deadlines_and_cancellation_race_with_signals_and_nobody_is_forgotten)
{
    for (uint32_t workers = 2; workers <= 3; workers++) {
        struct storm s = { .times = 5 };
        CHECK_EQ(host_run(workers, 200, storms, &s), 0);
    }
}

/* One waits for what the other changes; who does which changes. */
struct flag {
    struct reeve_mutex m;
    struct reeve_cond c;
    bool up; /* guarded */
};

static void waits_as_the_other_signals(void *ctx, int who, uint32_t round)
{
    struct flag *f = ctx;
    CHECK_OK(reeve_mutex_lock(&f->m, 0));
    if ((who ^ (int)(round / 64)) & 1) {
        while (!f->up)
            CHECK_OK(reeve_cond_wait(&f->c, &f->m, 0));
        f->up = false;
        reeve_mutex_unlock(&f->m);
        return;
    }
    f->up = true;
    if (round % 3 == 0)
        reeve_cond_signal(&f->c);
    reeve_mutex_unlock(&f->m);
    if (round % 3 == 1)
        reeve_cond_signal(&f->c);
    else if (round % 3 == 2)
        reeve_cond_broadcast(&f->c);
}

TEST(no_signal_is_missed_between_two_when_nobody_else_comes)
{
    struct flag f = { .up = false };
    duel(waits_as_the_other_signals, &f, 20000);
    CHECK_EQ(f.m.opaque[0], 0);
    CHECK_EQ(f.c.opaque[0], 0);
}

/* ---- from elsewhere ---- */

static void *signals_from_outside(void *arg)
{
    struct storm *s = arg;
    for (uint32_t i = 0; !rv_load_relaxed(&s->over); i++)
        if (i % 2)
            reeve_cond_signal(&s->c);
        else
            reeve_cond_broadcast(&s->c);
    return NULL;
}

static int is_signalled_from_outside(void *arg)
{
    struct storm *s = arg;
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, signals_from_outside, s), 0);
    CHECK_OK(reeve_mutex_lock(&s->m, 0));
    for (uint32_t i = 0; i < s->times; i++)
        CHECK_OK(reeve_cond_wait(&s->c, &s->m, 0));
    reeve_mutex_unlock(&s->m);
    rv_store_relaxed(&s->over, true);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    return 0;
}

TEST(a_foreign_thread_may_signal)
{
    for (uint32_t workers = 1; workers <= 2; workers++) {
        struct storm s = { .times = host_times(2000) };
        CHECK_EQ(host_run(workers, 100, is_signalled_from_outside, &s), 0);
    }
}

/* ---- misuse ---- */

static int does_not_hold_it(void *arg)
{
    struct fixture *f = arg;
    return reeve_cond_wait(&f->c, &f->m, 0);
}

TEST(misuse_aborts_and_says_how)
{
    struct fixture f = { 0 };
    CHECK_DIES("reeve_cond_wait was given a mutex that the task does not hold",
               host_run_virtual(1, does_not_hold_it, &f));
    CHECK_DIES("reeve_cond_wait was called outside a task",
               (void)reeve_cond_wait(&f.c, &f.m, 0));
}
