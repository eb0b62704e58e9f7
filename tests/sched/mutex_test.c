/* SPDX-License-Identifier: MIT */
/*
 * mutex_test.c -- sched/mutex.c: one holder at a time, in turn, and nobody forgotten.
 */
#define CHECK_MAIN
#include "tests/sched/duel.h"
#include "tests/sched/host.h"
#include <reeve/sync.h>

#include "sched/ready.h"

/* A mutex with something to guard, and notes of who had it. */
enum { NOTES_MAX = 128 };

struct guarded {
    struct reeve_mutex m;
    struct host_event go;
    int noted[NOTES_MAX], notes;
    int next; /* number for the next task */
    int result;
    reeve_time until;
};

static void note(struct guarded *g, int what)
{
    CHECK_LT(g->notes, NOTES_MAX);
    g->noted[g->notes++] = what;
}

static void check_unused(const struct reeve_mutex *m)
{
    CHECK_EQ(m->opaque[0], 0);
    CHECK_EQ(m->opaque[1], 0);
}

/* Virtual time passes only once nobody has anything to do. */
static void let_others_run(void)
{
    CHECK_OK(reeve_sleep(reeve_in(1)));
}

/* Locks with its deadline, notes its number, unlocks; notes ~number if it could not. */
static int locks_once(void *arg)
{
    struct guarded *g = arg;
    int me = g->next++;
    int r = reeve_mutex_lock(&g->m, g->until);
    g->result = r;
    note(g, r == 0 ? me : ~me);
    if (r == 0)
        reeve_mutex_unlock(&g->m);
    return r;
}

/* ---- what is to be had at once ---- */

static int takes_what_is_free(void *arg)
{
    struct guarded *g = arg;
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(reeve_mutex_lock(&g->m, i == 0 ? 0 : i == 1 ? REEVE_POLL : (reeve_time)1), 0);
        CHECK_NE(g->m.opaque[0], 0);
        reeve_mutex_unlock(&g->m);
        check_unused(&g->m);
    }
    return 0;
}

TEST(a_free_mutex_is_given_whatever_the_deadline)
{
    struct guarded g = { 0 };
    CHECK_EQ(host_run_virtual(1, takes_what_is_free, &g), 0);
}

static int is_cancelled_and_locks(void *arg)
{
    struct guarded *g = arg;
    CHECK_EQ(host_wait(&g->go, 0), -ECANCELED);
    CHECK_EQ(reeve_mutex_lock(&g->m, 0), 0);
    reeve_mutex_unlock(&g->m);
    return 0;
}

static int cancels_one_that_locks(void *arg)
{
    struct guarded *g = arg;
    reeve_task *t;
    int r = -1;
    CHECK_OK(reeve_spawn(&t, is_cancelled_and_locks, g));
    let_others_run();
    reeve_cancel(t);
    CHECK_OK(reeve_join(t, &r, 0));
    return r;
}

TEST(a_free_mutex_is_given_to_a_cancelled_task)
{
    struct guarded g = { 0 };
    CHECK_EQ(host_run_virtual(1, cancels_one_that_locks, &g), 0);
}

static int polls_a_held_one(void *arg)
{
    struct guarded *g = arg;
    CHECK_OK(reeve_mutex_lock(&g->m, 0));
    g->until = REEVE_POLL;
    CHECK_OK(reeve_go(locks_once, g));
    let_others_run();
    CHECK_EQ(g->result, -ETIMEDOUT);
    reeve_mutex_unlock(&g->m);
    check_unused(&g->m);
    return 0;
}

TEST(a_poll_of_a_held_mutex_times_out_at_once)
{
    struct guarded g = { 0 };
    CHECK_EQ(host_run_virtual(1, polls_a_held_one, &g), 0);
}

/* ---- order ---- */

static int has_many_wait(void *arg)
{
    struct guarded *g = arg;
    reeve_group all = { 0 };
    CHECK_OK(reeve_mutex_lock(&g->m, 0));
    for (int i = 0; i < 20; i++) {
        CHECK_OK(reeve_go(locks_once, g, .group = &all));
        let_others_run();
        CHECK_EQ(g->next, i + 1);
    }
    CHECK_EQ(g->notes, 0);
    reeve_mutex_unlock(&g->m);
    CHECK_OK(reeve_group_wait(&all, 0));
    CHECK_EQ(g->notes, 20);
    for (int i = 0; i < 20; i++)
        CHECK_EQ(g->noted[i], i);
    check_unused(&g->m);
    return 0;
}

TEST(those_who_wait_get_it_in_the_order_in_which_they_came)
{
    struct guarded g = { 0 };
    CHECK_EQ(host_run_virtual(1, has_many_wait, &g), 0);
    g = (struct guarded){ 0 };
    CHECK_EQ(host_run_virtual(3, has_many_wait, &g), 0);
}

static int passes_a_called_one(void *arg)
{
    struct guarded *g = arg;
    reeve_group all = { 0 };
    CHECK_OK(reeve_mutex_lock(&g->m, 0));
    CHECK_OK(reeve_go(locks_once, g, .group = &all));
    let_others_run();
    reeve_mutex_unlock(&g->m); /* calls it, but it does not run yet */
    int passes = 0;
    while (reeve_mutex_lock(&g->m, REEVE_POLL) == 0) {
        reeve_mutex_unlock(&g->m);
        CHECK_LE(++passes, 1000);
    }
    CHECK_EQ(passes, 16);
    CHECK_EQ(g->notes, 0);
    CHECK_OK(reeve_group_wait(&all, 0));
    check_unused(&g->m);
    return 0;
}

TEST(sixteen_may_pass_a_called_waiter_and_then_it_is_handed_over)
{
    struct guarded g = { 0 };
    CHECK_EQ(host_run_virtual(1, passes_a_called_one, &g), 0);
}

static int is_looked_at_in_vain(void *arg)
{
    struct guarded *g = arg;
    reeve_group all = { 0 };
    CHECK_OK(reeve_mutex_lock(&g->m, 0));
    CHECK_OK(reeve_go(locks_once, g, .group = &all));
    CHECK_OK(reeve_go(locks_once, g, .group = &all));
    let_others_run();
    reeve_mutex_unlock(&g->m);
    CHECK_EQ(reeve_mutex_lock(&g->m, REEVE_POLL), 0);
    let_others_run(); /* the called one finds it taken */
    CHECK_EQ(g->notes, 0);
    reeve_mutex_unlock(&g->m);
    CHECK_EQ(reeve_mutex_lock(&g->m, REEVE_POLL), -ETIMEDOUT);
    CHECK_OK(reeve_mutex_lock(&g->m, 0)); /* behind both */
    CHECK_EQ(g->notes, 2);
    CHECK_EQ(g->noted[0], 0);
    reeve_mutex_unlock(&g->m);
    CHECK_OK(reeve_group_wait(&all, 0));
    check_unused(&g->m);
    return 0;
}

TEST(a_waiter_that_found_it_taken_again_is_handed_it_next)
{
    struct guarded g = { 0 };
    CHECK_EQ(host_run_virtual(1, is_looked_at_in_vain, &g), 0);
}

/* ---- deadlines and cancellation ---- */

static int waits_too_long(void *arg)
{
    struct guarded *g = arg;
    reeve_task *late, *patient;
    int r = 1;
    CHECK_OK(reeve_mutex_lock(&g->m, 0));
    reeve_time until = g->until = reeve_now() + REEVE_MS;
    CHECK_OK(reeve_spawn(&late, locks_once, g));
    let_others_run();
    g->until = 0;
    CHECK_OK(reeve_spawn(&patient, locks_once, g));
    let_others_run();
    CHECK_EQ(g->notes, 0);
    CHECK_OK(reeve_join(late, &r, 0));
    CHECK_EQ(r, -ETIMEDOUT);
    CHECK_EQ(reeve_now(), until);
    reeve_mutex_unlock(&g->m);
    CHECK_OK(reeve_join(patient, &r, 0));
    CHECK_EQ(r, 0);
    check_unused(&g->m);
    return 0;
}

TEST(a_wait_ends_at_its_deadline_and_the_next_in_line_gets_it)
{
    struct guarded g = { 0 };
    CHECK_EQ(host_run_virtual(1, waits_too_long, &g), 0);
}

static int waits_for_ever(void *arg)
{
    struct guarded *g = arg;
    reeve_task *t;
    int r = 1;
    CHECK_OK(reeve_mutex_lock(&g->m, 0));
    reeve_time until = reeve_now() + REEVE_MS;
    CHECK_OK(reeve_spawn(&t, locks_once, g, .deadline = until));
    let_others_run();
    CHECK_OK(reeve_join(t, &r, 0));
    CHECK_EQ(r, -ETIMEDOUT);
    CHECK_EQ(reeve_now(), until);
    reeve_mutex_unlock(&g->m);
    check_unused(&g->m);
    return 0;
}

TEST(the_tasks_own_deadline_bounds_it_too)
{
    struct guarded g = { 0 };
    CHECK_EQ(host_run_virtual(1, waits_for_ever, &g), 0);
}

/* Three wait for a held mutex; the middle one, then the first, is cancelled. */
struct three {
    struct guarded g;
    reeve_task *t[3];
};

static void begin_three(struct three *x)
{
    CHECK_OK(reeve_mutex_lock(&x->g.m, 0));
    for (int i = 0; i < 3; i++) {
        CHECK_OK(reeve_spawn(&x->t[i], locks_once, &x->g));
        let_others_run();
    }
    CHECK_EQ(x->g.next, 3);
}

static void end_three(struct three *x, int r0, int r1, int r2)
{
    int want[3] = { r0, r1, r2 };
    for (int i = 0; i < 3; i++) {
        int r = 1;
        CHECK_OK(reeve_join(x->t[i], &r, 0));
        CHECK_EQ(r, want[i]);
    }
    check_unused(&x->g.m);
}

static int cancels_in_the_middle(void *arg)
{
    struct three *x = arg;
    begin_three(x);
    reeve_cancel(x->t[1]);
    let_others_run();
    reeve_cancel(x->t[0]);
    let_others_run();
    CHECK_EQ(x->g.notes, 2);
    reeve_mutex_unlock(&x->g.m);
    end_three(x, -ECANCELED, -ECANCELED, 0);
    return 0;
}

TEST(who_is_cancelled_leaves_the_line)
{
    struct three x = { 0 };
    CHECK_EQ(host_run_virtual(1, cancels_in_the_middle, &x), 0);
}

/* The wait has ended by cancellation, but the task has not run when the unlock calls it. */
static int calls_a_cancelled_one(void *arg)
{
    struct three *x = arg;
    begin_three(x);
    reeve_cancel(x->t[0]);
    reeve_mutex_unlock(&x->g.m);
    end_three(x, 0, 0, 0);
    return 0;
}

TEST(a_cancelled_waiter_that_was_called_takes_the_free_lock)
{
    struct three x = { 0 };
    CHECK_EQ(host_run_virtual(1, calls_a_cancelled_one, &x), 0);
}

/* The same, but somebody passes it; and then nobody is left who was called. */
static int passes_a_cancelled_one(void *arg)
{
    struct three *x = arg;
    begin_three(x);
    reeve_cancel(x->t[0]);
    reeve_mutex_unlock(&x->g.m);
    CHECK_EQ(reeve_mutex_lock(&x->g.m, REEVE_POLL), 0);
    let_others_run();
    CHECK_EQ(x->g.notes, 1);
    reeve_mutex_unlock(&x->g.m);
    end_three(x, -ECANCELED, 0, 0);
    return 0;
}

TEST(a_called_waiter_that_leaves_takes_no_call_with_it)
{
    struct three x = { 0 };
    CHECK_EQ(host_run_virtual(1, passes_a_cancelled_one, &x), 0);
}

/* Handed over while its wait had ended by cancellation. */
static int hands_over_to_a_cancelled_one(void *arg)
{
    struct three *x = arg;
    begin_three(x);
    reeve_mutex_unlock(&x->g.m);
    CHECK_EQ(reeve_mutex_lock(&x->g.m, REEVE_POLL), 0);
    let_others_run(); /* the first asks for a hand-over */
    reeve_cancel(x->t[0]);
    reeve_mutex_unlock(&x->g.m);
    end_three(x, 0, 0, 0);
    return 0;
}

TEST(what_was_handed_over_beats_a_cancellation)
{
    struct three x = { 0 };
    CHECK_EQ(host_run_virtual(1, hands_over_to_a_cancelled_one, &x), 0);
}

/* ---- many at once ---- */

struct crowd {
    struct reeve_mutex m;
    struct reeve_mutex others[8];
    uint64_t inside, count; /* guarded */
    RV_ATOMIC(uint64_t) got, late, cancelled;
    uint32_t tasks, times;
    bool deadlines, sleeps;
};

static void goes_inside(struct crowd *c)
{
    CHECK_EQ(c->inside++, 0);
    c->count++;
    CHECK_EQ(c->inside--, 1);
}

static int locks_many_times(void *arg)
{
    struct crowd *c = arg;
    for (uint32_t i = 0; i < c->times; i++) {
        reeve_time until = c->deadlines ? reeve_in((int64_t)(i * 37 % 20) * REEVE_US) : 0;
        int r = reeve_mutex_lock(&c->m, until);
        if (r == 0) {
            goes_inside(c);
            if (c->sleeps && i % 8 == 0)
                (void)reeve_sleep(i % 16 ? 0 : reeve_in(2 * REEVE_US));
            reeve_mutex_unlock(&c->m);
            rv_add_relaxed(&c->got, (uint64_t)1);
        } else if (r == -ETIMEDOUT) {
            rv_add_relaxed(&c->late, (uint64_t)1);
        } else {
            CHECK_EQ(r, -ECANCELED);
            rv_add_relaxed(&c->cancelled, (uint64_t)1);
            return 0;
        }
    }
    return 0;
}

static int is_a_crowd(void *arg)
{
    struct crowd *c = arg;
    reeve_group g = { 0 };
    for (uint32_t i = 0; i < c->tasks; i++)
        CHECK_OK(reeve_go(locks_many_times, c, .group = &g));
    CHECK_OK(reeve_group_wait(&g, 0));
    CHECK_EQ(c->count, rv_load_relaxed(&c->got));
    check_unused(&c->m);
    return 0;
}

TEST(one_task_at_a_time_is_inside)
{
    for (uint32_t workers = 1; workers <= 4; workers++) {
        struct crowd c = { .tasks = 8, .times = host_times(100000) };
        CHECK_EQ(host_run(workers, 100, is_a_crowd, &c), 0);
        CHECK_EQ(c.count, (uint64_t)c.tasks * c.times);
    }
}

TEST(it_may_be_held_across_waits)
{
    for (uint32_t workers = 1; workers <= 3; workers++) {
        struct crowd c = { .tasks = 8, .times = host_times(4000), .sleeps = true };
        CHECK_EQ(host_run(workers, 100, is_a_crowd, &c), 0);
        CHECK_EQ(c.count, (uint64_t)c.tasks * c.times);
    }
}

TEST(deadlines_race_with_grants_and_nobody_is_forgotten)
{
    for (uint32_t workers = 2; workers <= 4; workers++) {
        struct crowd c = {
            .tasks = 12, .times = host_times(6000), .sleeps = true, .deadlines = true
        };
        CHECK_EQ(host_run(workers, 100, is_a_crowd, &c), 0);
        CHECK_GT(c.count, 0);
    }
}

static void locks_as_the_other_unlocks(void *ctx, int who, uint32_t round)
{
    struct crowd *c = ctx;
    reeve_time until = who && round % 8 == 0 ? reeve_in((int64_t)(round % 5) * REEVE_US) : 0;
    int r = reeve_mutex_lock(&c->m, until);
    if (r == 0) {
        goes_inside(c);
        reeve_mutex_unlock(&c->m);
    } else {
        CHECK_EQ(r, -ETIMEDOUT);
    }
}

TEST(no_call_is_lost_between_two_when_nobody_else_comes)
{
    struct crowd c = { .tasks = 2 };
    duel(locks_as_the_other_unlocks, &c, 100000);
    check_unused(&c.m);
}

/* Cancelled tasks are replaced by new ones while others go on. */
static int cancels_at_random(void *arg)
{
    struct crowd *c = arg;
    uint64_t got = 0;
    for (uint32_t round = 0; round < host_times(1500); round++) {
        reeve_task *t[4];
        for (int i = 0; i < 4; i++)
            CHECK_OK(reeve_spawn(&t[i], locks_many_times, c));
        for (uint32_t i = 0; i < round % 5; i++)
            CHECK_OK(reeve_sleep(0));
        for (int i = 0; i < 4; i += 2)
            reeve_cancel(t[i]);
        for (int i = 0; i < 4; i++)
            CHECK_OK(reeve_join(t[i], NULL, 0));
        got = rv_load_relaxed(&c->got);
        CHECK_EQ(c->count, got);
        check_unused(&c->m);
    }
    CHECK_GT(got, 0);
    return 0;
}

TEST(cancellation_races_with_grants_and_nobody_is_forgotten)
{
    for (uint32_t workers = 2; workers <= 4; workers++) {
        struct crowd c = { .times = 20, .sleeps = true };
        CHECK_EQ(host_run(workers, 100, cancels_at_random, &c), 0);
    }
}

/* Everybody locks two of eight in ascending order: many mutexes, nested, share the table. */
static int locks_two(void *arg)
{
    struct crowd *c = arg;
    for (uint32_t i = 0; i < c->times; i++) {
        uint32_t a = i * 7 % 8, b = i * 5 % 8, low = a < b ? a : b, high = a < b ? b : a;
        CHECK_OK(reeve_mutex_lock(&c->others[low], 0));
        if (high != low)
            CHECK_OK(reeve_mutex_lock(&c->others[high], 0));
        if (i % 16 == 0)
            CHECK_OK(reeve_sleep(0));
        if (high != low)
            reeve_mutex_unlock(&c->others[high]);
        reeve_mutex_unlock(&c->others[low]);
    }
    return 0;
}

static int nests(void *arg)
{
    struct crowd *c = arg;
    reeve_group g = { 0 };
    for (uint32_t i = 0; i < c->tasks; i++)
        CHECK_OK(reeve_go(locks_two, c, .group = &g));
    CHECK_OK(reeve_group_wait(&g, 0));
    for (int i = 0; i < 8; i++)
        check_unused(&c->others[i]);
    return 0;
}

TEST(several_may_be_held_at_once)
{
    struct crowd c = { .tasks = 8, .times = host_times(4000) };
    CHECK_EQ(host_run(3, 100, nests, &c), 0);
}

/* ---- classes ---- */

/* Tasks of several classes, in the order in which they come. */
struct ranks {
    struct reeve_mutex m;
    struct rv_task *task[4];
    struct host_event go[4];
    unsigned after[4]; /* in which class each was after its unlock */
    int n;
};

static int holds_and_waits(void *arg)
{
    struct ranks *x = arg;
    int me = x->n++;
    x->task[me] = rv_worker_self()->cur;
    int r = reeve_mutex_lock(&x->m, 0);
    if (r < 0)
        return r;
    CHECK_OK(host_wait(&x->go[me], 0));
    reeve_mutex_unlock(&x->m);
    x->after[me] = rv_class(x->task[me]) + REEVE_LOW;
    return 0;
}

static void check_class(struct ranks *x, int who, int cls)
{
    CHECK_EQ(rv_class(x->task[who]) + REEVE_LOW, cls);
}

static int are_ranked(void *arg)
{
    static const int cls[4] = { REEVE_LOW, REEVE_NORMAL, REEVE_URGENT, REEVE_HIGH };
    static const int first[4] = { REEVE_LOW, REEVE_NORMAL, REEVE_URGENT, REEVE_URGENT };
    struct ranks *x = arg;
    reeve_group g = { 0 };
    for (int i = 0; i < 4; i++) {
        CHECK_OK(reeve_go(holds_and_waits, x, .group = &g, .priority = cls[i]));
        let_others_run();
        check_class(x, 0, first[i]);
    }
    for (int i = 0; i < 4; i++) {
        check_class(x, i, i < 2 ? REEVE_URGENT : cls[i]); /* the third is URGENT, and waits */
        host_set(host_self(), &x->go[i]);
        let_others_run();
        CHECK_EQ(x->after[i], cls[i]);
    }
    CHECK_OK(reeve_group_wait(&g, 0));
    check_unused(&x->m);
    return 0;
}

TEST(the_holder_runs_in_the_best_class_of_those_who_wait)
{
    struct ranks x = { 0 };
    CHECK_EQ(host_run_virtual(1, are_ranked, &x), 0);
}

static int the_best_leaves(void *arg)
{
    struct ranks *x = arg;
    reeve_group g = { 0 };
    reeve_task *urgent;
    CHECK_OK(reeve_go(holds_and_waits, x, .group = &g, .priority = REEVE_LOW));
    let_others_run();
    CHECK_OK(reeve_go(holds_and_waits, x, .group = &g, .priority = REEVE_LOW));
    let_others_run();
    CHECK_OK(reeve_spawn(&urgent, holds_and_waits, x, .priority = REEVE_URGENT));
    let_others_run();
    CHECK_OK(reeve_go(holds_and_waits, x, .group = &g, .priority = REEVE_HIGH));
    let_others_run();
    reeve_cancel(urgent);
    CHECK_OK(reeve_join(urgent, NULL, 0));
    host_set(host_self(), &x->go[0]);
    let_others_run();
    CHECK_EQ(x->after[0], REEVE_LOW);
    check_class(x, 1, REEVE_HIGH); /* not that of the one that has left */
    host_set(host_self(), &x->go[1]);
    host_set(host_self(), &x->go[3]);
    CHECK_OK(reeve_group_wait(&g, 0));
    CHECK_EQ(x->after[1], REEVE_LOW);
    check_unused(&x->m);
    return 0;
}

TEST(one_that_has_left_lends_its_class_to_nobody)
{
    struct ranks x = { 0 };
    CHECK_EQ(host_run_virtual(1, the_best_leaves, &x), 0);
}

/* A LOW holder, NORMAL tasks that would keep the worker to themselves, and an URGENT one that
 * waits. */
enum { TURNS = 200 };

struct inversion {
    struct reeve_mutex m;
    uint64_t hog_turns, waited; /* of the NORMAL ones; those of them while the URGENT one waited */
    bool over;
};

static int holds_for_many_turns(void *arg)
{
    struct inversion *x = arg;
    CHECK_OK(reeve_mutex_lock(&x->m, 0));
    for (int i = 0; i < TURNS; i++)
        CHECK_OK(reeve_sleep(0));
    reeve_mutex_unlock(&x->m);
    return 0;
}

static int hogs(void *arg)
{
    struct inversion *x = arg;
    for (; !x->over; x->hog_turns++)
        CHECK_OK(reeve_sleep(0));
    return 0;
}

static int is_urgent(void *arg)
{
    struct inversion *x = arg;
    uint64_t before = x->hog_turns;
    CHECK_OK(reeve_mutex_lock(&x->m, 0));
    x->waited = x->hog_turns - before;
    reeve_mutex_unlock(&x->m);
    x->over = true;
    return 0;
}

static int inverts(void *arg)
{
    struct inversion *x = arg;
    reeve_group g = { 0 };
    CHECK_OK(reeve_go(holds_for_many_turns, x, .group = &g, .priority = REEVE_LOW));
    let_others_run();
    for (int i = 0; i < 4; i++)
        CHECK_OK(reeve_go(hogs, x, .group = &g));
    CHECK_OK(reeve_sleep(0));
    CHECK_OK(reeve_go(is_urgent, x, .group = &g, .priority = REEVE_URGENT));
    CHECK_OK(reeve_group_wait(&g, 0));
    return 0;
}

TEST(an_urgent_waiter_is_not_kept_waiting_by_tasks_of_a_class_in_between)
{
    struct inversion x = { 0 };
    CHECK_EQ(host_run_virtual(1, inverts, &x), 0);
    CHECK_LT(x.waited, TURNS); /* without a loan the holder gets one turn in 32 */
}

static int locks_in_its_class(void *arg)
{
    struct crowd *c = arg;
    for (uint32_t i = 0; i < c->times; i++) {
        int r = reeve_mutex_lock(&c->m, i % 3 ? 0 : reeve_in((int64_t)(i % 20) * REEVE_US));
        if (r == -ECANCELED)
            return 0;
        if (r < 0)
            continue;
        goes_inside(c);
        if (i % 8 == 0)
            (void)reeve_sleep(i % 16 ? 0 : reeve_in(2 * REEVE_US));
        reeve_mutex_unlock(&c->m);
        uint64_t ctl = rv_load_relaxed(&rv_worker_self()->cur->ctl);
        CHECK_EQ(ctl >> RV_CTL_LOANS_SHIFT & 0xffff, 0);
    }
    return 0;
}

static int mixes_classes(void *arg)
{
    struct crowd *c = arg;
    for (uint32_t round = 0; round < host_times(150); round++) {
        reeve_task *t[8];
        for (int i = 0; i < 8; i++)
            CHECK_OK(reeve_spawn(&t[i], locks_in_its_class, c, .priority = REEVE_LOW + i % 4));
        for (uint32_t i = 0; i < round % 5; i++)
            CHECK_OK(reeve_sleep(0));
        for (int i = 0; i < 8; i += 3)
            reeve_cancel(t[i]);
        for (int i = 0; i < 8; i++)
            CHECK_OK(reeve_join(t[i], NULL, 0));
        check_unused(&c->m);
    }
    return 0;
}

TEST(every_loan_of_a_class_is_paid_back_at_the_unlock)
{
    for (uint32_t workers = 1; workers <= 4; workers++) {
        struct crowd c = { .times = 50 };
        CHECK_EQ(host_run(workers, 100, mixes_classes, &c), 0);
    }
}

/* ---- its memory ---- */

/* Two tasks share a record; the last to unlock it writes over it, as its free would. */
struct shared {
    struct reeve_mutex m;
    int refs;
};

static int lets_go(void *arg)
{
    struct shared *s = arg;
    CHECK_OK(reeve_mutex_lock(&s->m, 0));
    bool last = --s->refs == 0;
    reeve_mutex_unlock(&s->m);
    if (last)
        memset(s, 0x5a, sizeof *s);
    return 0;
}

static int shares(void *arg)
{
    (void)arg;
    unsigned char over[sizeof(struct shared)];
    memset(over, 0x5a, sizeof over);
    for (uint32_t i = 0; i < host_times(20000); i++) {
        struct shared s = { .refs = 3 };
        reeve_group g = { 0 };
        for (int k = 0; k < 3; k++)
            CHECK_OK(reeve_go(lets_go, &s, .group = &g));
        CHECK_OK(reeve_sleep(0));
        CHECK_OK(reeve_group_wait(&g, 0));
        CHECK_MEM_EQ(&s, over, sizeof s);
    }
    return 0;
}

TEST(the_last_holder_may_free_it)
{
    CHECK_EQ(host_run(3, 100, shares, NULL), 0);
}

/* ---- two runtimes ---- */

static int is_a_crowd_in_one_of_two(void *arg)
{
    struct crowd *c = arg;
    reeve_group g = { 0 };
    for (uint32_t i = 0; i < c->tasks; i++)
        CHECK_OK(reeve_go(locks_many_times, c, .group = &g));
    return reeve_group_wait(&g, 0);
}

static void *runs_one_of_two(void *arg)
{
    CHECK_EQ(host_run(2, 100, is_a_crowd_in_one_of_two, arg), 0);
    return NULL;
}

TEST(tasks_of_two_runtimes_may_meet)
{
    struct crowd c = { .tasks = 3, .times = host_times(20000), .sleeps = true };
    pthread_t other;
    CHECK_EQ(pthread_create(&other, NULL, runs_one_of_two, &c), 0);
    runs_one_of_two(&c);
    CHECK_EQ(pthread_join(other, NULL), 0);
    CHECK_EQ(c.count, (uint64_t)2 * c.tasks * c.times);
    check_unused(&c.m);
}

/* ---- misuse ---- */

static int locks_twice(void *arg)
{
    struct guarded *g = arg;
    CHECK_OK(reeve_mutex_lock(&g->m, 0));
    return reeve_mutex_lock(&g->m, 0);
}

static int holds_until_told(void *arg)
{
    struct guarded *g = arg;
    CHECK_OK(reeve_mutex_lock(&g->m, 0));
    return host_wait(&g->go, 0);
}

static int unlocks_a_strangers(void *arg)
{
    struct guarded *g = arg;
    CHECK_OK(reeve_go(holds_until_told, g));
    let_others_run();
    reeve_mutex_unlock(&g->m);
    return 0;
}

static int unlocks_what_nobody_holds(void *arg)
{
    struct guarded *g = arg;
    reeve_mutex_unlock(&g->m);
    return 0;
}

static int ends_with_it(void *arg)
{
    struct guarded *g = arg;
    return reeve_mutex_lock(&g->m, 0);
}

/* The descriptor of a task that ended holding it may be the next one's; that one is a stranger. */
static int unlocks_its_predecessors(void *arg)
{
    struct guarded *g = arg;
    reeve_task *t;
    CHECK_OK(reeve_spawn(&t, ends_with_it, g));
    CHECK_OK(reeve_join(t, NULL, 0));
    CHECK_OK(reeve_spawn(&t, unlocks_what_nobody_holds, g));
    return reeve_join(t, NULL, 0);
}

static int polls_twice(void *arg)
{
    struct guarded *g = arg;
    CHECK_OK(reeve_mutex_lock(&g->m, 0));
    return reeve_mutex_lock(&g->m, REEVE_POLL);
}

TEST(misuse_aborts_and_says_how)
{
    struct guarded g = { 0 };
    CHECK_DIES("reeve_mutex_lock was called by the task that holds the mutex already",
               host_run_virtual(1, locks_twice, &g));
    CHECK_DIES("reeve_mutex_lock was called by the task that holds the mutex already",
               host_run_virtual(1, polls_twice, &g));
    CHECK_DIES("reeve_mutex_unlock was called by a task that does not hold the mutex",
               host_run_virtual(1, unlocks_a_strangers, &g));
    CHECK_DIES("reeve_mutex_unlock was called by a task that does not hold the mutex",
               host_run_virtual(1, unlocks_its_predecessors, &g));
    CHECK_DIES("reeve_mutex_unlock was called on a mutex that nobody holds",
               host_run_virtual(1, unlocks_what_nobody_holds, &g));
    CHECK_DIES("reeve_mutex_lock was called outside a task", (void)reeve_mutex_lock(&g.m, 0));
    CHECK_DIES("reeve_mutex_unlock was called outside a task", reeve_mutex_unlock(&g.m));
}
