/* SPDX-License-Identifier: MIT */
/*
 * rwlock_test.c -- sched/rwlock.c: readers together, writers alone, everybody in turn.
 */
#define CHECK_MAIN
#include "tests/sched/duel.h"
#include "tests/sched/host.h"
#include <reeve/sync.h>

enum { MANY = 100 };

struct fixture {
    struct reeve_rwlock l;
    struct host_event go[MANY];
    char inside[2 * MANY + 1]; /* who got in, in that order */
    int n, next;
    reeve_time until;
};

/* Virtual time passes only once nobody has anything to do. */
static void let_others_run(void)
{
    CHECK_OK(reeve_sleep(reeve_in(1)));
}

static void check_unused(struct fixture *f)
{
    for (int i = 0; i < 3; i++)
        CHECK_EQ(f->l.opaque[i], 0);
}

/* Get in, and stay until told. */
static int reads(void *arg)
{
    struct fixture *f = arg;
    int me = f->next++, r = reeve_rwlock_read(&f->l, f->until);
    if (r < 0)
        return r;
    f->inside[f->n++] = 'r';
    CHECK_OK(host_wait(&f->go[me], 0));
    reeve_rwlock_unlock(&f->l);
    return 0;
}

static int writes(void *arg)
{
    struct fixture *f = arg;
    int me = f->next++, r = reeve_rwlock_write(&f->l, f->until);
    if (r < 0)
        return r;
    f->inside[f->n++] = 'w';
    CHECK_OK(host_wait(&f->go[me], 0));
    reeve_rwlock_unlock(&f->l);
    return 0;
}

/* Spawns readers and writers in the order of the letters, and looks who is inside. */
static void come(struct fixture *f, reeve_task **t, const char *who, const char *inside)
{
    for (int i = 0; who[i]; i++) {
        CHECK_OK(reeve_spawn(&t[i], who[i] == 'r' ? reads : writes, f));
        let_others_run();
    }
    CHECK_STR_EQ(f->inside, inside);
}

static void leave(struct fixture *f, int who, const char *inside)
{
    host_set(host_self(), &f->go[who]);
    let_others_run();
    CHECK_STR_EQ(f->inside, inside);
}

static void check_result(reeve_task *t, int want)
{
    int r = 1;
    CHECK_OK(reeve_join(t, &r, 0));
    CHECK_EQ(r, want);
}

/* ---- order ---- */

static int stand_in_line(void *arg)
{
    struct fixture *f = arg;
    reeve_task *t[9];
    come(f, t, "rrwrrwwr", "rr"); /* the waiting writer stops new readers */
    leave(f, 0, "rr");
    leave(f, 1, "rrw");
    leave(f, 2, "rrwrr");         /* the two readers behind it come together */
    leave(f, 4, "rrwrr");
    leave(f, 3, "rrwrrw");
    leave(f, 5, "rrwrrww");
    leave(f, 6, "rrwrrwwr");
    leave(f, 7, "rrwrrwwr");
    for (int i = 0; i < 8; i++)
        check_result(t[i], 0);
    check_unused(f);
    return 0;
}

TEST(readers_and_writers_get_in_in_the_order_in_which_they_came)
{
    for (uint32_t workers = 1; workers <= 3; workers++) {
        struct fixture f = { 0 };
        CHECK_EQ(host_run_virtual(workers, stand_in_line, &f), 0);
    }
}

static int come_in_masses(void *arg)
{
    struct fixture *f = arg;
    reeve_task *t[MANY];
    CHECK_OK(reeve_rwlock_write(&f->l, 0));
    for (int i = 0; i < MANY; i++)
        come(f, &t[i], i == MANY - 1 ? "w" : "r", "");
    CHECK_EQ(f->n, 0);
    reeve_rwlock_unlock(&f->l);
    let_others_run();
    CHECK_EQ(f->n, MANY - 1);
    for (int i = 0; i < MANY; i++)
        host_set(host_self(), &f->go[i]);
    for (int i = 0; i < MANY; i++)
        check_result(t[i], 0);
    CHECK_EQ(f->inside[MANY - 1], 'w');
    check_unused(f);
    return 0;
}

TEST(all_readers_up_to_the_next_writer_are_let_in_together)
{
    for (uint32_t workers = 1; workers <= 2; workers++) {
        struct fixture f = { 0 };
        CHECK_EQ(host_run_virtual(workers, come_in_masses, &f), 0);
    }
}

/* ---- deadlines and cancellation ---- */

static int gives_up_writing(void *arg)
{
    struct fixture *f = arg;
    reeve_task *t[4];
    come(f, t, "rwrw", "r");
    reeve_cancel(t[1]);
    let_others_run();
    CHECK_STR_EQ(f->inside, "rr"); /* nothing is between the readers any more */
    leave(f, 0, "rr");
    leave(f, 2, "rrw");
    leave(f, 3, "rrw");
    for (int i = 0; i < 4; i++)
        check_result(t[i], i == 1 ? -ECANCELED : 0);
    check_unused(f);
    return 0;
}

TEST(a_writer_that_gives_up_lets_in_the_readers_behind_it)
{
    struct fixture f = { 0 };
    CHECK_EQ(host_run_virtual(1, gives_up_writing, &f), 0);
}

static int is_too_late(void *arg)
{
    struct fixture *f = arg;
    reeve_task *t[3];
    CHECK_OK(reeve_rwlock_write(&f->l, 0));
    reeve_time until = f->until = reeve_now() + REEVE_MS;
    come(f, t, "rw", "");
    f->until = 0;
    come(f, t + 2, "r", "");
    check_result(t[0], -ETIMEDOUT);
    check_result(t[1], -ETIMEDOUT);
    CHECK_EQ(reeve_now(), until);
    reeve_rwlock_unlock(&f->l);
    leave(f, 2, "r");
    check_result(t[2], 0);
    check_unused(f);
    return 0;
}

TEST(a_wait_ends_at_its_deadline)
{
    struct fixture f = { 0 };
    CHECK_EQ(host_run_virtual(1, is_too_late, &f), 0);
}

static int polls(void *arg)
{
    struct fixture *f = arg;
    reeve_task *t[2];
    f->until = REEVE_POLL;
    CHECK_OK(reeve_rwlock_read(&f->l, REEVE_POLL));
    come(f, t, "rw", "r");
    check_result(t[1], -ETIMEDOUT);
    leave(f, 0, "r");
    check_result(t[0], 0);
    reeve_rwlock_unlock(&f->l);
    CHECK_OK(reeve_rwlock_write(&f->l, REEVE_POLL));
    come(f, t, "rw", "r");
    check_result(t[0], -ETIMEDOUT);
    check_result(t[1], -ETIMEDOUT);
    reeve_rwlock_unlock(&f->l);
    check_unused(f);
    return 0;
}

TEST(a_poll_gets_what_is_to_be_had_at_once)
{
    struct fixture f = { 0 };
    CHECK_EQ(host_run_virtual(1, polls, &f), 0);
}

/* Gets in, and out again at once: a cancelled task cannot wait. */
static int reads_or_writes_once(struct fixture *f, bool writer)
{
    int r = writer ? reeve_rwlock_write(&f->l, 0) : reeve_rwlock_read(&f->l, 0);
    f->next++;
    if (r == 0)
        reeve_rwlock_unlock(&f->l);
    return r;
}

static int reads_once(void *arg)
{
    return reads_or_writes_once(arg, false);
}

static int writes_once(void *arg)
{
    return reads_or_writes_once(arg, true);
}

static int is_granted_and_cancelled(void *arg)
{
    struct fixture *f = arg;
    for (int first = 0; first < 2; first++)
        for (int writer = 0; writer < 2; writer++) {
            reeve_task *t;
            CHECK_OK(reeve_rwlock_write(&f->l, 0));
            CHECK_OK(reeve_spawn(&t, writer ? writes_once : reads_once, f));
            let_others_run();
            if (first)
                reeve_cancel(t); /* its wait is over, but it has not run, and is still in line */
            reeve_rwlock_unlock(&f->l);
            if (!first)
                reeve_cancel(t);
            check_result(t, 0);
            check_unused(f);
        }
    CHECK_EQ(f->next, 4);
    return 0;
}

TEST(who_was_let_in_is_in_although_cancelled)
{
    struct fixture f = { 0 };
    CHECK_EQ(host_run_virtual(1, is_granted_and_cancelled, &f), 0);
}

/* ---- many at once ---- */

struct crowd {
    struct reeve_rwlock l;
    RV_ATOMIC(uint32_t) readers, writers, next;
    RV_ATOMIC(uint64_t) together, got;
    uint64_t value; /* guarded */
    uint32_t times;
    bool deadlines;
};

static void reads_inside(struct crowd *c, uint32_t i)
{
    uint32_t others = rv_add_acq_rel(&c->readers, 1u);
    CHECK_EQ(rv_load_acquire(&c->writers), 0);
    uint64_t value = c->value;
    if (others)
        rv_add_relaxed(&c->together, (uint64_t)1);
    if (i % 4 == 0)
        (void)reeve_sleep(0);
    CHECK_EQ(c->value, value);
    rv_sub_acq_rel(&c->readers, 1u);
}

static void writes_inside(struct crowd *c, uint32_t i)
{
    CHECK_EQ(rv_add_acq_rel(&c->writers, 1u), 0);
    CHECK_EQ(rv_load_acquire(&c->readers), 0);
    c->value++;
    if (i % 16 == 0)
        (void)reeve_sleep(0);
    CHECK_EQ(rv_sub_acq_rel(&c->writers, 1u), 1);
}

static int comes_and_goes(void *arg)
{
    struct crowd *c = arg;
    uint32_t seed = rv_add_relaxed(&c->next, 1u);
    for (uint32_t i = 0; i < c->times; i++) {
        seed = seed * 1664525 + 1013904223;
        bool writer = seed >> 30 == 0;
        reeve_time until = c->deadlines ? reeve_in((int64_t)(seed >> 8) % 20 * REEVE_US) : 0;
        int r = writer ? reeve_rwlock_write(&c->l, until) : reeve_rwlock_read(&c->l, until);
        if (r == -ECANCELED)
            return 0;
        CHECK(r == 0 || (c->deadlines && r == -ETIMEDOUT));
        if (r < 0)
            continue;
        if (writer)
            writes_inside(c, i);
        else
            reads_inside(c, i);
        reeve_rwlock_unlock(&c->l);
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
    if (rv_worker_self()->sched->nworkers == 1) /* where who yields inside is not alone there */
        CHECK_GT(rv_load_relaxed(&c->together), 0);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(c->l.opaque[i], 0);
    return 0;
}

TEST(a_writer_is_alone_inside_and_readers_are_together)
{
    for (uint32_t workers = 1; workers <= 4; workers++) {
        struct crowd c = { .times = host_times(10000), .deadlines = workers % 2 == 0 };
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
        for (int i = 0; i < 3; i++)
            CHECK_EQ(c->l.opaque[i], 0);
    }
    return 0;
}

TEST(cancellation_races_with_grants_and_nobody_is_forgotten)
{
    for (uint32_t workers = 2; workers <= 4; workers++) {
        struct crowd c = { .times = 20 };
        CHECK_EQ(host_run(workers, 100, cancels_at_random, &c), 0);
    }
}

/* Reader and writer, writer and writer; the one that may give up leaves as the other unlocks. */
static void locks_as_the_other_unlocks(void *ctx, int who, uint32_t round)
{
    struct crowd *c = ctx;
    bool writer = who || round % 3 == 0;
    reeve_time until = round % 4 == 0 ? reeve_in((int64_t)(round % 5) * REEVE_US) : 0;
    int r = writer ? reeve_rwlock_write(&c->l, until) : reeve_rwlock_read(&c->l, until);
    if (r < 0) {
        CHECK_EQ(r, -ETIMEDOUT);
        return;
    }
    if (writer)
        writes_inside(c, 1);
    else
        reads_inside(c, 1);
    reeve_rwlock_unlock(&c->l);
}

TEST(nobody_is_forgotten_between_two_when_nobody_else_comes)
{
    struct crowd c = { .times = 0 };
    duel(locks_as_the_other_unlocks, &c, 100000);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(c.l.opaque[i], 0);
}

static int goes_on_in_one_of_two(void *arg)
{
    reeve_group g = { 0 };
    for (int i = 0; i < 4; i++)
        CHECK_OK(reeve_go(comes_and_goes, arg, .group = &g));
    return reeve_group_wait(&g, 0);
}

static void *runs_one_of_two(void *arg)
{
    CHECK_EQ(host_run(2, 100, goes_on_in_one_of_two, arg), 0);
    return NULL;
}

TEST(tasks_of_two_runtimes_may_meet)
{
    struct crowd c = { .times = host_times(10000) };
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, runs_one_of_two, &c), 0);
    runs_one_of_two(&c);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(rv_load_relaxed(&c.got), (uint64_t)8 * c.times);
}

/* ---- misuse ---- */

static int writes_twice(void *arg)
{
    struct fixture *f = arg;
    CHECK_OK(reeve_rwlock_write(&f->l, 0));
    return reeve_rwlock_write(&f->l, 0);
}

static int writes_and_reads(void *arg)
{
    struct fixture *f = arg;
    CHECK_OK(reeve_rwlock_write(&f->l, 0));
    return reeve_rwlock_read(&f->l, REEVE_POLL);
}

static int unlocks_a_writers(void *arg)
{
    struct fixture *f = arg;
    reeve_task *t;
    come(f, &t, "w", "w");
    reeve_rwlock_unlock(&f->l);
    return 0;
}

static int unlocks_what_nobody_holds(void *arg)
{
    struct fixture *f = arg;
    CHECK_OK(reeve_rwlock_read(&f->l, 0));
    reeve_rwlock_unlock(&f->l);
    reeve_rwlock_unlock(&f->l);
    return 0;
}

TEST(misuse_aborts_and_says_how)
{
    struct fixture f = { 0 };
    CHECK_DIES("reeve_rwlock_write was called by the task that holds the lock for writing",
               host_run_virtual(1, writes_twice, &f));
    CHECK_DIES("reeve_rwlock_read was called by the task that holds the lock for writing",
               host_run_virtual(1, writes_and_reads, &f));
    CHECK_DIES("reeve_rwlock_unlock was called by a task that does not hold the lock",
               host_run_virtual(1, unlocks_a_writers, &f));
    CHECK_DIES("reeve_rwlock_unlock was called on a lock that nobody holds",
               host_run_virtual(1, unlocks_what_nobody_holds, &f));
    CHECK_DIES("reeve_rwlock_read was called outside a task", (void)reeve_rwlock_read(&f.l, 0));
    CHECK_DIES("reeve_rwlock_write was called outside a task", (void)reeve_rwlock_write(&f.l, 0));
    CHECK_DIES("reeve_rwlock_unlock was called outside a task", reeve_rwlock_unlock(&f.l));
}
