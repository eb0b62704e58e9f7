/* SPDX-License-Identifier: MIT */
/*
 * wait_test.c -- sched/wait.c: each wait ends once, for one reason; deadlines and their timers.
 */
#define CHECK_MAIN
#include "tests/sched/host.h"

/* ---- tokens ---- */

static int fires_before_it_parks(void *arg)
{
    struct rv_worker *w = rv_worker_self();
    struct rv_sched *s = w->sched;
    struct rv_task *t = w->cur;
    (void)arg;
    uint64_t token = rv_wait_arm(s, t, 0);
    CHECK(rv_wait_fire(s, w, token, RV_WOKEN, UINT32_MAX));
    CHECK(!rv_wait_fire(s, w, token, RV_TIMED_OUT, UINT32_MAX));
    CHECK(!rv_wait_fire(s, w, token, RV_CANCELLED, UINT32_MAX));
    CHECK_EQ(rv_wait_park(w, t, RV_NEVER), RV_WOKEN);
    w = rv_worker_self();
    CHECK(!rv_wait_fire(s, w, token, RV_WOKEN, UINT32_MAX)); /* over */
    uint64_t next = rv_wait_arm(s, t, 0);
    CHECK_NE(next, token);
    CHECK(!rv_wait_fire(s, w, token, RV_WOKEN, UINT32_MAX)); /* that was another wait */
    CHECK(rv_wait_disarm(t));
    CHECK(!rv_wait_fire(s, w, next, RV_WOKEN, UINT32_MAX));
    return 0;
}

TEST(a_token_ends_one_wait_once)
{
    CHECK_EQ(host_run_virtual(1, fires_before_it_parks, NULL), 0);
    CHECK_EQ(host_run_virtual(2, fires_before_it_parks, NULL), 0);
}

static int disarms_what_was_fired(void *arg)
{
    struct rv_worker *w = rv_worker_self();
    struct rv_task *t = w->cur;
    (void)arg;
    uint64_t token = rv_wait_arm(w->sched, t, 0);
    CHECK(rv_wait_fire(w->sched, w, token, RV_WOKEN, UINT32_MAX));
    CHECK(!rv_wait_disarm(t));
    token = rv_wait_arm(w->sched, t, 0);
    CHECK(rv_wait_disarm(t));
    CHECK_EQ(rv_queued(w), 0); /* nobody made it ready while it runs */
    return 0;
}

TEST(a_disarm_says_whether_the_wait_was_fired)
{
    CHECK_EQ(host_run_virtual(1, disarms_what_was_fired, NULL), 0);
}

static int counts_arms(void *arg)
{
    struct rv_worker *w = rv_worker_self();
    struct rv_task *t = w->cur;
    (void)arg;
    /* As if it had waited four thousand million times: the arm number of a token wraps. */
    rv_store_relaxed(&t->ww, (uint64_t)UINT32_MAX << 4);
    for (int i = 0; i < 4; i++) {
        uint64_t token = rv_wait_arm(w->sched, t, 0);
        CHECK(rv_wait_fire(w->sched, w, token, RV_WOKEN, UINT32_MAX));
        CHECK_EQ(rv_wait_park(w, t, RV_NEVER), RV_WOKEN);
        w = rv_worker_self();
        CHECK(!rv_wait_fire(w->sched, w, token, RV_WOKEN, UINT32_MAX));
    }
    CHECK_OK(reeve_sleep(reeve_in(REEVE_US)));
    return 0;
}

TEST(arm_numbers_may_wrap)
{
    CHECK_EQ(host_run_virtual(1, counts_arms, NULL), 0);
}

/* Many threads fire the same tokens; each wait ends once and each task runs on once. */
enum { WAITERS = 64, FIRERS = 3 };

struct arena {
    struct host *h;
    RV_ATOMIC(uint64_t) token[WAITERS];
    RV_ATOMIC(uint64_t) won;   /* by those who fired */
    RV_ATOMIC(uint64_t) woken; /* by those who waited */
    RV_ATOMIC(bool) over;
    RV_ATOMIC(unsigned) next;
};

static void *fires_all(void *arg)
{
    struct arena *a = arg;
    while (!rv_load_acquire(&a->over))
        for (int i = 0; i < WAITERS; i++) {
            uint64_t token = rv_load_acquire(&a->token[i]);
            if (token && rv_wait_fire(&a->h->s, NULL, token, RV_WOKEN, UINT32_MAX))
                rv_add_relaxed(&a->won, (uint64_t)1);
        }
    return NULL;
}

static int waits_again_and_again(void *arg)
{
    struct arena *a = arg;
    unsigned me = rv_add_relaxed(&a->next, 1u);
    for (unsigned i = 0; i < host_times(2000); i++) {
        struct rv_worker *w = rv_worker_self();
        struct rv_task *t = w->cur;
        CHECK_OK(rv_wait_check(w->sched, t));
        rv_store_release(&a->token[me], rv_wait_arm(w->sched, t, 0));
        int why = rv_wait_park(w, t, i % 3 ? RV_NEVER : reeve_in((int64_t)(i % 50) * REEVE_US));
        CHECK(why == RV_WOKEN || why == RV_TIMED_OUT);
        if (why == RV_WOKEN)
            rv_add_relaxed(&a->woken, (uint64_t)1);
    }
    return 0;
}

static int is_fired_at(void *arg)
{
    struct arena *a = arg;
    pthread_t threads[FIRERS];
    reeve_group g = { 0 };
    a->h = host_self();
    for (int i = 0; i < FIRERS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, fires_all, a), 0);
    for (int i = 0; i < WAITERS; i++)
        CHECK_OK(reeve_go(waits_again_and_again, a, .group = &g));
    CHECK_OK(reeve_group_wait(&g, 0));
    rv_store_release(&a->over, true);
    for (int i = 0; i < FIRERS; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    CHECK_GE(rv_load_relaxed(&a->won), rv_load_relaxed(&a->woken));
    CHECK_GT(rv_load_relaxed(&a->woken), 0);
    return 0;
}

TEST(of_all_who_end_a_wait_at_once_one_wins_and_the_task_runs_on_once)
{
    struct arena a = { 0 };
    CHECK_EQ(host_run(2, 1000, is_fired_at, &a), 0);
}

/* What was written before the wait was ended is there after it, whether the waiter had parked. */
struct letter {
    struct host *h;
    RV_ATOMIC(uint64_t) token;
    uint64_t text; /* plain */
    RV_ATOMIC(bool) over;
};

static void *writes_letters(void *arg)
{
    struct letter *l = arg;
    for (uint64_t i = 1; !rv_load_acquire(&l->over); i++) {
        uint64_t token;
        while ((token = rv_xchg_acq_rel(&l->token, (uint64_t)0)) == 0 &&
               !rv_load_acquire(&l->over))
            rv_cpu_relax();
        if (token == 0)
            break;
        l->text = i;
        CHECK(rv_wait_fire(&l->h->s, NULL, token, RV_WOKEN, UINT32_MAX));
    }
    return NULL;
}

static int reads_letters(void *arg)
{
    struct letter *l = arg;
    pthread_t writer;
    l->h = host_self();
    CHECK_EQ(pthread_create(&writer, NULL, writes_letters, l), 0);
    int64_t enough = rv_clock_ns() + 20 * REEVE_SEC; /* on a machine that is busy with much else */
    for (uint64_t i = 1; i <= host_times(50000) && (i % 64 || rv_clock_ns() < enough); i++) {
        struct rv_worker *w = rv_worker_self();
        struct rv_task *t = w->cur;
        rv_store_release(&l->token, rv_wait_arm(w->sched, t, 0));
        for (uint64_t k = 0; k < i % 64; k++) /* sometimes the answer is there before it parks */
            rv_cpu_relax();
        CHECK_EQ(rv_wait_park(w, t, RV_NEVER), RV_WOKEN);
        CHECK_EQ(l->text, i);
    }
    rv_store_release(&l->over, true);
    CHECK_EQ(pthread_join(writer, NULL), 0);
    return 0;
}

TEST(what_was_written_before_the_wait_ended_is_there_after_it)
{
    struct letter l = { 0 };
    CHECK_EQ(host_run(1, 100, reads_letters, &l), 0);
}

static int is_woken_at_home(void *arg)
{
    struct host_event *e = arg;
    CHECK_OK(host_wait(e, 0));
    return (int)rv_worker_self()->index;
}

static int wakes_elsewhere(void *arg)
{
    struct rv_worker *w = rv_worker_self();
    struct rv_sched *s = w->sched;
    (void)arg;
    for (uint32_t home = 0; home < 4; home++) {
        struct host_event e = { 0 };
        reeve_task *t;
        int result = -1;
        CHECK_OK(reeve_spawn(&t, is_woken_at_home, &e));
        CHECK_OK(reeve_sleep(reeve_in(REEVE_US)));
        uint64_t token = rv_xchg_acq_rel(&e.word, HOST_EVENT_SET);
        CHECK(rv_wait_fire(s, rv_worker_self(), token, RV_WOKEN, home));
        CHECK_OK(reeve_join(t, &result, 0));
        if (home != rv_worker_self()->index)
            CHECK_EQ(result, home);
    }
    return 0;
}

TEST(a_task_can_be_woken_where_its_stream_lives)
{
#ifdef RV_FORCE_MIGRATE
    SKIP("this build wakes everybody elsewhere");
#endif
    CHECK_EQ(host_run_virtual(4, wakes_elsewhere, NULL), 0);
}

/* ---- deadlines ---- */

static int waits_by_deadline(void *arg)
{
    struct host_event never = { 0 };
    reeve_time start = reeve_now(), own = *(reeve_time *)arg;
    CHECK_EQ(rv_deadline(rv_worker_self()->cur, 0), own);
    CHECK_EQ(rv_deadline(rv_worker_self()->cur, own + 1), own);
    CHECK_EQ(rv_deadline(rv_worker_self()->cur, own - 1), own - 1);
    CHECK_EQ(rv_deadline(rv_worker_self()->cur, REEVE_POLL), REEVE_POLL);
    CHECK_EQ(host_wait(&never, start + REEVE_MS), -ETIMEDOUT);
    CHECK_EQ(reeve_now(), start + REEVE_MS);
    CHECK_EQ(host_wait(&never, REEVE_POLL), -ETIMEDOUT);
    CHECK_EQ(host_wait(&never, start), -ETIMEDOUT);
    CHECK_EQ(reeve_now(), start + REEVE_MS); /* these did not wait */
    CHECK_EQ(host_wait(&never, 0), -ETIMEDOUT);
    CHECK_EQ(reeve_now(), own);
    for (int i = 0; i < 3; i++) { /* it sticks */
        CHECK_EQ(host_wait(&never, 0), -ETIMEDOUT);
        CHECK_EQ(host_wait(&never, reeve_in(REEVE_SEC)), -ETIMEDOUT);
        CHECK_EQ(reeve_sleep(reeve_in(REEVE_SEC)), -ETIMEDOUT);
        CHECK_EQ(reeve_sleep(0), -ETIMEDOUT);
    }
    CHECK_EQ(reeve_now(), own);
    return 7;
}

static int has_a_deadline(void *arg)
{
    reeve_task *t;
    int result = -1;
    (void)arg;
    reeve_time own = reeve_in(5 * REEVE_SEC);
    CHECK_OK(reeve_spawn(&t, waits_by_deadline, &own, .deadline = own));
    CHECK_OK(reeve_join(t, &result, 0));
    CHECK_EQ(result, 7);
    CHECK_EQ(rv_deadline(rv_worker_self()->cur, 0), RV_NEVER);
    return 0;
}

TEST(a_tasks_deadline_bounds_each_of_its_waits)
{
    CHECK_EQ(host_run_virtual(1, has_a_deadline, NULL), 0);
}

static int waits_for_children_too_long(void *arg)
{
    struct host_event *e = arg;
    reeve_task *t;
    reeve_group g = { 0 };
    CHECK_OK(reeve_spawn(&t, host_waiter, e)); /* inherits the deadline: it ends, too */
    int result = 77;
    CHECK_EQ(reeve_join(t, &result, 0), 0);
    CHECK_EQ(result, -ETIMEDOUT);
    CHECK_OK(reeve_go(host_nothing, NULL, .group = &g));
    CHECK_EQ(reeve_group_wait(&g, 0), -ETIMEDOUT); /* it never started */
    return 0;
}

static int inherits(void *arg)
{
    reeve_time *until = arg;
    CHECK_EQ(rv_worker_self()->cur->deadline, *until);
    return 0;
}

static int spawns_with_deadlines(void *arg)
{
    (void)arg;
    reeve_time own = rv_worker_self()->cur->deadline;
    reeve_time sooner = own - REEVE_MS, later = own + REEVE_MS;
    reeve_task *t[4];
    reeve_group g = { 0 };
    CHECK_OK(reeve_spawn(&t[0], inherits, &own));
    CHECK_OK(reeve_spawn(&t[1], inherits, &sooner, .deadline = sooner));
    CHECK_OK(reeve_spawn(&t[2], inherits, &own, .deadline = later));
    CHECK_OK(reeve_spawn(&t[3], inherits, &own, .group = &g));
    for (int i = 0; i < 4; i++)
        CHECK_OK(reeve_join(t[i], NULL, 0));
    return reeve_group_wait(&g, 0);
}

static int spawns_those_with_deadlines(void *arg)
{
    reeve_task *t;
    int result = 77;
    CHECK_OK(reeve_spawn(&t, spawns_with_deadlines, NULL, .deadline = reeve_in(REEVE_SEC)));
    CHECK_OK(reeve_join(t, &result, 0));
    CHECK_EQ(result, 0);
    CHECK_OK(reeve_spawn(&t, waits_for_children_too_long, arg, .deadline = reeve_in(REEVE_SEC)));
    CHECK_OK(reeve_join(t, &result, 0));
    CHECK_EQ(result, 0);
    return 0;
}

TEST(a_deadline_is_inherited_and_the_earlier_one_counts)
{
    struct host_event e = { 0 };
    CHECK_EQ(host_run_virtual(1, spawns_those_with_deadlines, &e), 0);
}

static int waits_masked_beyond_its_deadline(void *arg)
{
    struct rv_task *cur = rv_worker_self()->cur;
    (void)arg;
    CHECK_EQ(reeve_sleep(reeve_in(REEVE_SEC)), -ETIMEDOUT);
    rv_wait_mask(cur, true);
    reeve_time end = reeve_in(REEVE_SEC);
    CHECK_EQ(reeve_sleep(end), 0);
    CHECK_GE(reeve_now(), end);
    CHECK_EQ(reeve_sleep(0), 0);
    rv_wait_mask(cur, false);
    CHECK_EQ(reeve_sleep(end + REEVE_SEC), -ETIMEDOUT);
    return 0;
}

static int spawns_what_masks(void *arg)
{
    reeve_task *t;
    int result = 77;
    (void)arg;
    CHECK_OK(reeve_spawn(&t, waits_masked_beyond_its_deadline, NULL,
                         .deadline = reeve_in(REEVE_MS)));
    CHECK_OK(reeve_join(t, &result, 0));
    return result;
}

TEST(a_masked_wait_ignores_the_tasks_own_deadline)
{
    CHECK_EQ(host_run_virtual(1, spawns_what_masks, NULL), 0);
}

/* ---- timers ---- */

enum { SLEEPERS = 100000 };

struct order {
    reeve_time last;
    uint32_t woken;
};

struct sleeper {
    struct order *order;
    reeve_time until;
};

static int sleeps_until(void *arg)
{
    struct sleeper *me = arg;
    CHECK_OK(reeve_sleep(me->until));
    CHECK_EQ(reeve_now(), me->until); /* virtual time: neither early nor late */
    CHECK_GE(me->until, me->order->last);
    me->order->last = me->until;
    me->order->woken++;
    return 0;
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Each holds a stack, and ThreadSanitizer has room for some thousand. */
static uint32_t sleepers(void)
{
    return host_times(SLEEPERS) < SLEEPERS ? 4000 : SLEEPERS;
}

static int spawns_sleepers(void *arg)
{
    struct order *o = arg;
    uint64_t seed = 88172645463325252u;
    uint32_t n = sleepers();
    o->last = 0;
    o->woken = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct sleeper s = { o, reeve_now() + 1 + (int64_t)(next_random(&seed) % REEVE_SEC) };
        CHECK_OK(reeve_go(sleeps_until, &s, .copy = sizeof s, .stack_bytes = 4096));
    }
    return 0;
}

TEST(a_hundred_thousand_sleepers_wake_in_the_order_of_their_deadlines)
{
    struct order o;
    CHECK_EQ(host_run_with(&(struct host_opts){ .tasks_max = SLEEPERS + 10, .virtual = true },
                           spawns_sleepers, &o),
             0);
    CHECK_EQ(o.woken, sleepers());
}

/* A server's connection: its deadline moves on with each request and is nearly never met. The first
 * wait makes an entry; that comes up, and is put off to where the wait ends then. Only the next
 * wait makes a new one. */
static int moves_its_deadline_on(void *arg)
{
    struct rv_worker *w = rv_worker_self();
    (void)arg;
    for (int i = 0; i < 1000; i++) {
        struct host_event e = { 0 };
        reeve_task *t;
        CHECK_OK(reeve_spawn(&t, host_waiter, &e, .worker = 1));
        reeve_sleep(0);
        host_set(host_self(), &e);
        CHECK_OK(reeve_join(t, NULL, LONG));
        CHECK_LE(w->timers.n, 2);
        host_compute(REEVE_SEC);
    }
    return 0;
}

TEST(a_deadline_that_moves_on_does_not_leave_a_timer_at_each_step)
{
    CHECK_EQ(host_run_virtual(1, moves_its_deadline_on, NULL), 0);
}

/* Waits with that deadline, and is woken at once. */
static void wait_in_passing(reeve_time end)
{
    struct rv_worker *w = rv_worker_self();
    struct rv_task *t = w->cur;
    uint64_t token = rv_wait_arm(w->sched, t, 0);
    CHECK(rv_wait_fire(w->sched, w, token, RV_WOKEN, UINT32_MAX));
    CHECK_EQ(rv_wait_park(w, t, end), RV_WOKEN);
}

struct alarm {
    struct host_event e;
    reeve_time at;
};

static int sets_off(void *arg)
{
    struct alarm *a = arg;
    CHECK_OK(reeve_sleep(a->at));
    host_set(host_self(), &a->e);
    return 0;
}

static int has_its_timer_put_off(void *arg)
{
    struct rv_worker *w = rv_worker_self();
    struct host_event never = { 0 };
    (void)arg;
    for (int i = 0; i < 100; i++) {
        reeve_time start = reeve_now();
        struct alarm alarm = { .at = start + 50 };
        CHECK_OK(reeve_go(sets_off, &alarm));
        wait_in_passing(start + 10);                   /* leaves an entry for then */
        CHECK_OK(host_wait(&alarm.e, start + 100));    /* which is put off to then */
        CHECK_EQ(reeve_now(), start + 50);
        CHECK_EQ(host_wait(&never, start + 60), -ETIMEDOUT);
        CHECK_EQ(reeve_now(), start + 60);
        CHECK_EQ(host_wait(&never, start + 110), -ETIMEDOUT);
        CHECK_EQ(reeve_now(), start + 110);
        CHECK_LE(w->timers.n, RV_TIMERS_SWEEP_MIN + 1);
    }
    return 0;
}

TEST(a_timer_that_was_put_off_does_not_delay_an_earlier_one)
{
    CHECK_EQ(host_run_virtual(1, has_its_timer_put_off, NULL), 0);
}

/* One waits with a far deadline and is woken, and then with nearer and nearer ones. */
static int draws_its_deadline_in(void *arg)
{
    struct rv_worker *w = rv_worker_self();
    (void)arg;
    for (int i = 0; i < 5000; i++) {
        wait_in_passing(reeve_in((5000 - i) * REEVE_SEC));
        CHECK_LE(w->timers.n, 2 * RV_TIMERS_SWEEP_MIN); /* the stale ones are swept out */
    }
    return 0;
}

TEST(stale_timers_are_swept_out)
{
    CHECK_EQ(host_run_virtual(1, draws_its_deadline_in, NULL), 0);
}

/* Its entry lies on one worker's heap, the wait it belongs to is over, and the task waits, with and
 * without deadlines, on others. */
static int wanders(void *arg)
{
    uint64_t seed = (uintptr_t)arg * 2654435761u + 1;
    for (int i = 0; i < 300; i++) {
        struct rv_worker *w = rv_worker_self();
        struct rv_task *t = w->cur;
        int64_t ns = 1 + (int64_t)(next_random(&seed) % 1000) * REEVE_US;
        reeve_time end = reeve_in(ns);
        if (next_random(&seed) % 2) {
            CHECK_OK(reeve_sleep(end));
            CHECK_GE(reeve_now(), end);
            CHECK_LE(reeve_now(), end + 30 * REEVE_SEC); /* not by chance, much later */
        } else { /* woken at once, on another worker */
            uint64_t token = rv_wait_arm(w->sched, t, 0);
            uint32_t home = (uint32_t)(next_random(&seed) % w->sched->nworkers);
            CHECK(rv_wait_fire(w->sched, w, token, RV_WOKEN, home));
            CHECK_EQ(rv_wait_park(w, t, end), RV_WOKEN);
        }
    }
    return 0;
}

static int spawns_wanderers(void *arg)
{
    (void)arg;
    for (uintptr_t i = 0; i < 100; i++)
        CHECK_OK(reeve_go(wanders, (void *)i));
    return 0;
}

TEST(a_deadline_is_met_on_whatever_worker_the_task_waits)
{
    CHECK_EQ(host_run_virtual(4, spawns_wanderers, NULL), 0);
}

/* The same on real threads, where entries come up while their tasks wait elsewhere. Joins that
 * nearly always end before their deadlines leave entries behind that are put off, and then a wait
 * ends by its deadline, or the test would take an hour. */
static int yields_some(void *arg)
{
    for (uintptr_t i = (uintptr_t)arg % 8; i > 0; i--)
        CHECK_OK(reeve_sleep(0));
    return 0;
}

static int joins_in_time(void *arg)
{
    struct host_event never = { 0 };
    for (uintptr_t i = 0; i < host_times(600); i++) {
        reeve_task *t;
        CHECK_OK(reeve_spawn(&t, yields_some, (void *)((uintptr_t)arg + i)));
        while (reeve_join(t, NULL, reeve_in((int64_t)(50 + i % 200) * REEVE_US)) < 0)
            ;
        if (i % 32 == 0) {
            reeve_time end = reeve_in((int64_t)(i % 5) * 100 * REEVE_US);
            CHECK_EQ(host_wait(&never, end), -ETIMEDOUT);
            CHECK_GE(reeve_now(), end);
        }
    }
    return 0;
}

static int many_join_in_time(void *arg)
{
    (void)arg;
    for (uintptr_t i = 0; i < 200; i++)
        CHECK_OK(reeve_go(joins_in_time, (void *)i));
    return 0;
}

TEST(deadlines_are_met_on_real_threads)
{
    CHECK_EQ(host_run(4, 2000, many_join_in_time, NULL), 0);
}

/* Workers' clocks lag behind the kernel's, each by its own amount. A task that is passed between
 * workers compares what they say. */
static int reads_the_time_everywhere(void *arg)
{
    (void)arg;
    reeve_time last = 0;
    for (uint32_t i = 0; i < host_times(3000); i++) {
        reeve_task *t;
        CHECK_GE(reeve_now(), last);
        last = reeve_now();
        CHECK_OK(reeve_spawn(&t, yields_some, (void *)(uintptr_t)i));
        CHECK_OK(reeve_join(t, NULL, 0));
        CHECK_GE(reeve_now(), last);
        last = reeve_now();
        CHECK_OK(reeve_sleep(i % 16 ? 0 : last + REEVE_US));
    }
    return 0;
}

static int many_read_the_time(void *arg)
{
    for (int i = 0; i < 8; i++)
        CHECK_OK(reeve_go(reads_the_time_everywhere, arg));
    return 0;
}

TEST(for_a_task_time_does_not_go_back)
{
    CHECK_EQ(host_run(4, 2000, many_read_the_time, NULL), 0);
}
