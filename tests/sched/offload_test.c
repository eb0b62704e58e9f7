/* SPDX-License-Identifier: MIT */
/*
 * offload_test.c -- sched/offload.c: what blocks runs on threads of the pool; never more of them
 * than allowed, and none for longer than needed; what is queued can be given up, what runs cannot.
 */
#define CHECK_MAIN
#include "tests/sched/host.h"

#include <signal.h>

#include "sched/offload.h"

/* ---- a scheduler with a pool ---- */

struct scene {
    struct host *h;
    struct rv_offload pool;
    reeve_fn *fn;
    void *arg;
};

static struct scene scene;

/* Runs fn(arg) as the root task of a scheduler with a pool of so many threads; its result. */
static int play(uint32_t workers, uint32_t max, reeve_fn *fn, void *arg)
{
    scene.h = host_create(workers, 1000);
    rv_offload_init(&scene.pool, max, "test", NULL);
    scene.h->s.offload = &scene.pool;
    int r = host_run_on(scene.h, fn, arg);
    rv_offload_finish(&scene.pool);
    CHECK_EQ(rv_load_relaxed(&scene.pool.threads), 0);
    CHECK_EQ(rv_load_relaxed(&scene.pool.queued), 0);
    host_destroy(scene.h);
    return r;
}

static struct rv_offload_stats stats(void)
{
    struct rv_offload_stats st;
    rv_offload_stats(&scene.pool, &st);
    return st;
}

/* Lets others run until so many calls are queued. */
static void await_queued(uint64_t n)
{
    while (stats().queued != n)
        CHECK_OK(reeve_sleep(0));
}

/* A door at which blocking functions stop, and count. {0} is closed. */
struct door {
    RV_ATOMIC(uint32_t) open, inside, peak, passed;
};

static int stop_at(void *arg)
{
    struct door *d = arg;
    uint32_t n = rv_add_relaxed(&d->inside, 1u) + 1, peak = rv_load_relaxed(&d->peak);
    while (n > peak && !rv_cas(&d->peak, &peak, n))
        ;
    while (rv_load_acquire(&d->open) == 0) /* pairs with open_door() */
        syscall(SYS_futex, &d->open, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
    rv_sub_relaxed(&d->inside, 1u);
    return (int)rv_add_relaxed(&d->passed, 1u);
}

static void open_door(struct door *d)
{
    rv_store_release(&d->open, 1u);
    syscall(SYS_futex, &d->open, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

static void await_inside(struct door *d, uint32_t n)
{
    while (rv_load_relaxed(&d->inside) != n)
        CHECK_OK(reeve_sleep(0));
}

/* Tasks: offload what stops at the door. */
static int calls_door(void *arg)
{
    return reeve_offload(stop_at, arg, 0);
}

/* ---- a call ---- */

struct where {
    pthread_t thread;
    struct rv_worker *worker;
    char name[16];
    bool blocked, faults_blocked;
    int seen;
};

static int note_where(void *arg)
{
    struct where *at = arg;
    sigset_t set;
    at->thread = pthread_self();
    at->worker = rv_worker_self();
    pthread_getname_np(pthread_self(), at->name, sizeof at->name);
    CHECK_EQ(pthread_sigmask(SIG_SETMASK, NULL, &set), 0);
    at->blocked = sigismember(&set, SIGTERM) && sigismember(&set, SIGPIPE) &&
                  sigismember(&set, SIGALRM) && sigismember(&set, SIGRTMIN + 1);
    at->faults_blocked = sigismember(&set, SIGSEGV);
    at->seen++;
    return 4711;
}

static int call_once(void *arg)
{
    struct where at = { .seen = 1 };
    (void)arg;
    CHECK_EQ(stats().threads, 0); /* none before the first call */
    CHECK_EQ(reeve_offload(note_where, &at, 0), 4711);
    CHECK_EQ(at.seen, 2);
    CHECK(!pthread_equal(at.thread, pthread_self()));
    CHECK(at.worker == NULL);
    CHECK_STR_EQ(at.name, "test/off");
    CHECK(at.blocked);
    CHECK(!at.faults_blocked);
    CHECK_EQ(stats().run, 1);
    CHECK_EQ(stats().threads, 1);
    return 0;
}

TEST(a_call_runs_on_a_thread_of_the_pool_and_returns_what_its_function_did)
{
    sigset_t before, after;
    CHECK_EQ(pthread_sigmask(SIG_SETMASK, NULL, &before), 0);
    CHECK_EQ(play(1, 4, call_once, NULL), 0);
    CHECK_EQ(pthread_sigmask(SIG_SETMASK, NULL, &after), 0);
    for (int i = 1; i < 65; i++)
        CHECK_EQ(sigismember(&before, i), sigismember(&after, i));
}

static int fail(void *arg)
{
    (void)arg;
    return -EBADMSG;
}

static int call_badly(void *arg)
{
    (void)arg;
    CHECK_EQ(reeve_offload(fail, NULL, 0), -EBADMSG);
    CHECK_EQ(reeve_offload(NULL, NULL, 0), -EINVAL);
    return 0;
}

TEST(an_error_of_the_function_is_returned_and_a_call_needs_a_function)
{
    CHECK_EQ(play(1, 1, call_badly, NULL), 0);
}

static int call_in_vain(void *arg)
{
    (void)arg;
    struct where at = { 0 };
    CHECK_EQ(reeve_offload(note_where, &at, 0), -ENOTSUP);
    CHECK_EQ(at.seen, 0);
    CHECK_OK(reeve_sleep(reeve_in(REEVE_US))); /* the task can still wait */
    return 0;
}

TEST(without_a_pool_a_call_is_not_supported)
{
    CHECK_EQ(play(1, 0, call_in_vain, NULL), 0);
    CHECK_EQ(host_run(1, 10, call_in_vain, NULL), 0); /* no pool at all */
}

TEST(a_call_outside_a_task_aborts)
{
    CHECK_DIES("reeve_offload was called outside a task", reeve_offload(fail, NULL, 0));
}

static int call_again(void *arg)
{
    (void)arg;
    return reeve_offload(fail, NULL, 0);
}

static int nest(void *arg)
{
    return reeve_offload(call_again, arg, 0);
}

TEST(an_offloaded_function_is_not_in_a_task)
{
    CHECK_DIES("reeve_offload was called outside a task", play(1, 2, nest, NULL));
}

static int sees_home(void *arg)
{
    struct where at = { 0 };
    uint32_t home = rv_worker_self()->index;
    (void)arg;
    for (uint32_t i = 0; i < host_times(100); i++) {
        CHECK_OK(reeve_offload(note_where, &at, 0));
        CHECK_EQ(rv_worker_self()->index, home);
    }
    return 0;
}

static int pinned_calls(void *arg)
{
    (void)arg;
    reeve_group g = { 0 };
    for (int i = 1; i <= 3; i++)
        CHECK_OK(reeve_go(sees_home, NULL, .worker = i, .group = &g));
    return reeve_group_wait(&g, 0);
}

TEST(a_pinned_task_goes_on_on_its_worker)
{
    CHECK_EQ(play(3, 2, pinned_calls, NULL), 0);
}

static int note_cpus(void *arg)
{
    return pthread_getaffinity_np(pthread_self(), sizeof(cpu_set_t), arg);
}

/* A call from a task on a pinned thread: where may it run? */
static int call_pinned(void *arg)
{
    cpu_set_t *all = arg, one, seen;
    int cpu = 0;
    while (!CPU_ISSET(cpu, all))
        cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    CHECK_EQ(pthread_setaffinity_np(pthread_self(), sizeof one, &one), 0);
    CHECK_OK(reeve_offload(note_cpus, &seen, 0));
    CHECK(CPU_EQUAL(&seen, scene.pool.spread ? all : &one));
    return pthread_setaffinity_np(pthread_self(), sizeof *all, all);
}

static int call_pinned_spread(void *arg)
{
    scene.pool.spread = true; /* as if init had been told */
    scene.pool.cpus = *(cpu_set_t *)arg;
    return call_pinned(arg);
}

TEST(the_threads_run_on_the_cpus_that_the_pool_was_given)
{
    cpu_set_t all;
    CHECK_EQ(sched_getaffinity(0, sizeof all, &all), 0);
    CHECK_EQ(play(1, 1, call_pinned, &all), 0);
    CHECK_EQ(play(1, 1, call_pinned_spread, &all), 0);
}

/* ---- growing and shrinking ---- */

/* Lets others run until a thread has fallen asleep. */
static void await_idle(void)
{
    bool idle = false;
    while (!idle) {
        rv_lock_acquire(&scene.pool.lock);
        idle = scene.pool.idle != NULL;
        rv_lock_release(&scene.pool.lock);
        CHECK_OK(reeve_sleep(0));
    }
}

static int call_the_idle(void *arg)
{
    struct where at = { 0 };
    (void)arg;
    for (uint32_t i = 0; i < host_times(1000); i++) {
        CHECK_OK(reeve_offload(note_where, &at, 0));
        await_idle();
    }
    CHECK_EQ(stats().threads_peak, 1);
    return 0;
}

TEST(while_a_thread_is_idle_no_other_is_made)
{
    CHECK_EQ(play(1, 4, call_the_idle, NULL), 0);
}

static int fill(void *arg)
{
    struct door d = { 0 };
    reeve_group g = { 0 };
    (void)arg;
    for (int i = 0; i < 3; i++) {
        CHECK_OK(reeve_go(calls_door, &d, .group = &g));
        await_inside(&d, (uint32_t)i + 1);
        CHECK_EQ(stats().threads, i + 1); /* one more for each call that finds none idle */
    }
    for (int i = 0; i < 20; i++)
        CHECK_OK(reeve_go(calls_door, &d, .group = &g));
    await_queued(20);
    CHECK_EQ(stats().threads, 3);
    open_door(&d);
    CHECK_OK(reeve_group_wait(&g, 0));
    CHECK_EQ(rv_load_relaxed(&d.passed), 23);
    CHECK_EQ(rv_load_relaxed(&d.peak), 3);
    CHECK_EQ(stats().threads_peak, 3);
    CHECK_EQ(stats().run, 23);
    CHECK_EQ(stats().removed, 0);
    return 0;
}

TEST(the_pool_grows_with_what_blocks_and_never_beyond_its_bound)
{
    CHECK_EQ(play(1, 3, fill, NULL), 0);
    CHECK_EQ(play(2, 3, fill, NULL), 0);
}

/* Sleeps until the pool has no thread left. */
static void await_no_threads(void)
{
    uint32_t n;
    while ((n = rv_load_acquire(&scene.pool.threads)) != 0)
        syscall(SYS_futex, &scene.pool.threads, FUTEX_WAIT_PRIVATE, n, NULL, NULL, 0);
}

static int call_by_turns(void *arg)
{
    struct where at = { 0 };
    struct door d = { 0 };
    reeve_group g = { 0 };
    (void)arg;
    for (int i = 0; i < 4; i++)
        CHECK_OK(reeve_go(calls_door, &d, .group = &g));
    await_inside(&d, 4);
    open_door(&d);
    CHECK_OK(reeve_group_wait(&g, 0));
    await_no_threads();
    CHECK_EQ(reeve_offload(note_where, &at, 0), 4711); /* and grows again */
    CHECK_EQ(stats().threads_peak, 4);
    return 0;
}

static int with_short_idle(void *arg)
{
    scene.pool.idle_ns = 3 * REEVE_MS;
    return call_by_turns(arg);
}

TEST(idle_threads_leave_and_come_back_with_new_work)
{
    CHECK_EQ(play(1, 4, with_short_idle, NULL), 0);
}

static int light_load(void *arg)
{
    struct where at = { 0 };
    struct door d = { 0 };
    reeve_group g = { 0 };
    scene.pool.idle_ns = 100 * REEVE_MS;
    (void)arg;
    for (int i = 0; i < 8; i++)
        CHECK_OK(reeve_go(calls_door, &d, .group = &g));
    await_inside(&d, 8);
    open_door(&d);
    CHECK_OK(reeve_group_wait(&g, 0));
    /* If calls went round over the eight, none would ever be idle for long. */
    while (stats().threads > 2)
        CHECK_OK(reeve_offload(note_where, &at, 0));
    return 0;
}

TEST(under_a_light_load_the_pool_shrinks_to_what_it_needs)
{
    CHECK_EQ(play(1, 8, light_load, NULL), 0);
}

static int never_idle(void *arg)
{
    struct where at = { 0 };
    scene.pool.idle_ns = *(int64_t *)arg;
    for (uint32_t i = 0; i < host_times(500); i++)
        CHECK_EQ(reeve_offload(note_where, &at, 0), 4711);
    return 0;
}

TEST(no_call_is_lost_to_a_thread_that_leaves_at_that_moment)
{
    static const int64_t idle[] = { 0, REEVE_US, 20 * REEVE_US, INT64_MAX };
    for (size_t i = 0; i < sizeof idle / sizeof *idle; i++)
        CHECK_EQ(play(1, 2, never_idle, (void *)(uintptr_t)&idle[i]), 0);
}

/* ---- giving up ---- */

struct two {
    struct door first, second;
};

static int cancel_queued(void *arg)
{
    struct two d = { 0 };
    reeve_task *runs, *waits;
    int r;
    (void)arg;
    CHECK_OK(reeve_spawn(&runs, calls_door, &d.first));
    await_inside(&d.first, 1);
    CHECK_OK(reeve_spawn(&waits, calls_door, &d.second));
    await_queued(1);
    reeve_cancel(waits);
    CHECK_OK(reeve_join(waits, &r, 0)); /* although the pool is as full as before */
    CHECK_EQ(r, -ECANCELED);
    CHECK_EQ(stats().queued, 0);
    CHECK_EQ(stats().removed, 1);
    open_door(&d.first);
    CHECK_OK(reeve_join(runs, &r, 0));
    CHECK_EQ(r, 0);
    CHECK_EQ(stats().run, 1);
    CHECK_EQ(rv_load_relaxed(&d.second.peak), 0); /* it never ran */
    return 0;
}

TEST(cancelling_a_queued_call_removes_it)
{
    CHECK_EQ(play(1, 1, cancel_queued, NULL), 0);
    CHECK_EQ(play(2, 1, cancel_queued, NULL), 0);
}

static int expire_queued(void *arg)
{
    struct two d = { 0 };
    reeve_task *runs, *waits;
    int r;
    (void)arg;
    CHECK_OK(reeve_spawn(&runs, calls_door, &d.first));
    await_inside(&d.first, 1);
    CHECK_EQ(reeve_offload(stop_at, &d.second, reeve_in(REEVE_MS)), -ETIMEDOUT);
    CHECK_OK(reeve_spawn(&waits, calls_door, &d.second, .deadline = reeve_in(REEVE_MS)));
    CHECK_OK(reeve_join(waits, &r, 0));
    CHECK_EQ(r, -ETIMEDOUT); /* its own deadline, in the queue or before it began */
    open_door(&d.first);
    CHECK_OK(reeve_join(runs, &r, 0));
    CHECK_EQ(reeve_offload(stop_at, &d.second, REEVE_POLL), -ETIMEDOUT); /* past: not at all */
    CHECK_EQ(reeve_offload(stop_at, &d.second, 1), -ETIMEDOUT);
    CHECK_EQ(rv_load_relaxed(&d.second.peak), 0);
    return 0;
}

TEST(a_deadline_removes_a_queued_call_and_a_past_one_starts_none)
{
    CHECK_EQ(play(1, 1, expire_queued, NULL), 0);
}

static int cancelled_before(void *arg)
{
    struct door *d = arg;
    while (reeve_sleep(0) != -ECANCELED)
        ;
    CHECK_EQ(reeve_offload(stop_at, d, 0), -ECANCELED);
    CHECK_EQ(reeve_offload(stop_at, d, REEVE_POLL), -ECANCELED);
    return 0;
}

static int cancel_before(void *arg)
{
    struct door d = { 0 };
    reeve_task *t;
    int r;
    (void)arg;
    CHECK_OK(reeve_spawn(&t, cancelled_before, &d));
    CHECK_OK(reeve_sleep(0));
    reeve_cancel(t);
    CHECK_OK(reeve_join(t, &r, 0));
    CHECK(r == 0 || r == -ECANCELED); /* the latter: on two workers it may not have begun */
    CHECK_EQ(rv_load_relaxed(&d.peak), 0);
    return 0;
}

TEST(a_cancelled_task_starts_no_call)
{
    CHECK_EQ(play(1, 1, cancel_before, NULL), 0);
}

static int late_caller(void *arg)
{
    int r = calls_door(arg);
    CHECK_EQ(reeve_sleep(reeve_in(REEVE_SEC)), -ECANCELED); /* it is deaf no longer */
    return r;
}

static int cancel_running(void *arg)
{
    struct door d = { .passed = 17 };
    reeve_task *t;
    int r;
    (void)arg;
    CHECK_OK(reeve_spawn(&t, late_caller, &d));
    await_inside(&d, 1);
    reeve_cancel(t);
    CHECK_EQ(reeve_join(t, &r, reeve_in(2 * REEVE_MS)), -ETIMEDOUT); /* it stays */
    open_door(&d);
    CHECK_OK(reeve_join(t, &r, 0));
    CHECK_EQ(r, 17);
    CHECK_EQ(stats().removed, 0);
    return 0;
}

TEST(a_running_call_is_waited_for_when_its_task_is_cancelled)
{
    CHECK_EQ(play(1, 1, cancel_running, NULL), 0);
    CHECK_EQ(play(2, 1, cancel_running, NULL), 0);
}

struct timed {
    struct door door;
    int64_t ns;
};

static int calls_in_time(void *arg)
{
    struct timed *c = arg;
    return reeve_offload(stop_at, &c->door, reeve_in(c->ns));
}

static int expire_running(void *arg)
{
    struct timed c = { .door.passed = 18, .ns = 2 * REEVE_MS };
    reeve_task *t = NULL;
    int r;
    (void)arg;
    while (rv_load_relaxed(&c.door.inside) == 0) { /* again if it was over before it began */
        if (t == NULL)
            CHECK_OK(reeve_spawn(&t, calls_in_time, &c));
        if (reeve_join(t, &r, reeve_in(REEVE_US)) == 0) {
            CHECK_EQ(r, -ETIMEDOUT);
            t = NULL;
            c.ns *= 2;
        }
    }
    CHECK_EQ(reeve_join(t, &r, reeve_in(2 * c.ns)), -ETIMEDOUT);
    open_door(&c.door);
    CHECK_OK(reeve_join(t, &r, 0));
    CHECK_EQ(r, 18); /* late, with its result */
    return 0;
}

TEST(a_running_call_is_waited_for_beyond_its_deadline)
{
    CHECK_EQ(play(1, 1, expire_running, NULL), 0);
}

struct turn {
    RV_ATOMIC(uint32_t) * next;
    uint32_t mine;
};

static int take_turn(void *arg)
{
    struct turn *t = arg;
    return rv_add_relaxed(t->next, 1u) == t->mine ? 0 : -EPROTO;
}

static int calls_turn(void *arg)
{
    return reeve_offload(take_turn, arg, 0);
}

static int in_order(void *arg)
{
    static RV_ATOMIC(uint32_t) next;
    struct turn turns[50];
    struct door d = { 0 };
    reeve_group g = { 0 };
    reeve_task *runs, *out;
    int r;
    (void)arg;
    CHECK_OK(reeve_spawn(&runs, calls_door, &d));
    await_inside(&d, 1);
    for (uint32_t i = 0; i < 50; i++) {
        turns[i] = (struct turn){ &next, i };
        CHECK_OK(reeve_go(calls_turn, &turns[i], .group = &g));
        await_queued(i + 1);
        if (i % 10 == 5) { /* one leaves from among them */
            CHECK_OK(reeve_spawn(&out, calls_turn, NULL));
            await_queued(i + 2);
            reeve_cancel(out);
            CHECK_OK(reeve_join(out, &r, 0));
            CHECK_EQ(r, -ECANCELED);
        }
    }
    open_door(&d);
    CHECK_OK(reeve_join(runs, NULL, 0));
    return reeve_group_wait(&g, 0);
}

TEST(calls_run_in_the_order_in_which_they_came)
{
    CHECK_EQ(play(1, 1, in_order, NULL), 0);
}

/* ---- when there are no threads to be had ---- */

static int call_without_threads(void *arg)
{
    struct where at = { 0 };
    struct door d = { 0 };
    reeve_task *t;
    int r;
    (void)arg;
    rv_fault_only("offload.thread");
    rv_fault_fail_nth(1);
    CHECK_EQ(reeve_offload(note_where, &at, 0), -EAGAIN);
    CHECK_EQ(at.seen, 0);
    CHECK_EQ(stats().threads, 0);
    CHECK_EQ(stats().queued, 0);
    CHECK_EQ(reeve_offload(note_where, &at, 0), 4711); /* the next try may have better luck */
    CHECK_OK(reeve_spawn(&t, calls_door, &d));
    await_inside(&d, 1);
    rv_fault_fail_nth(1);
    open_door(&d); /* which may be before the next call or after it: it is queued or runs at once */
    CHECK_EQ(reeve_offload(note_where, &at, 0), 4711);
    CHECK_OK(reeve_join(t, &r, 0));
    rv_fault_off();
    return 0;
}

TEST(a_call_fails_only_if_the_pool_has_no_thread_at_all)
{
    if (!rv_fault_available())
        SKIP("built without fault points");
    CHECK_EQ(play(1, 4, call_without_threads, NULL), 0);
}

static int waits_behind(void *arg)
{
    struct two d = { 0 };
    reeve_task *a, *b;
    int r;
    (void)arg;
    CHECK_OK(reeve_spawn(&a, calls_door, &d.first));
    await_inside(&d.first, 1);
    rv_fault_only("offload.thread");
    rv_fault_fail_nth(1);
    CHECK_OK(reeve_spawn(&b, calls_door, &d.second));
    while (!rv_fault_last_name())
        CHECK_OK(reeve_sleep(0));
    rv_fault_off();
    await_queued(1);
    CHECK_EQ(stats().threads, 1);
    open_door(&d.second);
    open_door(&d.first);
    CHECK_OK(reeve_join(a, &r, 0));
    CHECK_EQ(r, 0);
    CHECK_OK(reeve_join(b, &r, 0));
    CHECK_EQ(r, 0);
    CHECK_EQ(stats().threads_peak, 2);
    CHECK_EQ(stats().run, 2);
    return 0;
}

TEST(a_call_for_which_no_thread_can_be_made_waits_for_those_there_are)
{
    if (!rv_fault_available())
        SKIP("built without fault points");
    CHECK_EQ(play(1, 2, waits_behind, NULL), 0);
}

/* ---- detached jobs ---- */

struct detached {
    struct rv_offload_job job; /* first */
    RV_ATOMIC(uint32_t) told;
    int result;
    pthread_t by;
};

static void tell(struct rv_offload_job *job, int result)
{
    struct detached *d = (struct detached *)job;
    d->result = result;
    d->by = pthread_self();
    rv_add_acq_rel(&d->told, 1u); /* pairs with the loads in the tests */
    syscall(SYS_futex, &d->told, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void await_told(struct detached *d)
{
    while (rv_load_acquire(&d->told) == 0)
        syscall(SYS_futex, &d->told, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
    CHECK_EQ(rv_load_relaxed(&d->told), 1);
}

/* Thread creation that fails late, after others have come to rely on the thread: here, played. */
TEST(all_that_is_queued_fails_if_the_only_thread_cannot_be_made)
{
    if (!rv_fault_available())
        SKIP("built without fault points");
    struct rv_offload o;
    struct where at = { 0 };
    struct detached d[3] = { 0 };
    rv_offload_init(&o, 1, "test", NULL);
    rv_store_relaxed(&o.threads, 1u); /* somebody is making the thread */
    for (int i = 0; i < 3; i++)
        d[i].job = (struct rv_offload_job){ .fn = note_where, .arg = &at, .done = tell };
    CHECK_OK(rv_offload_start(&o, &d[0].job));
    CHECK_OK(rv_offload_start(&o, &d[1].job));
    rv_store_relaxed(&o.threads, 0u);
    rv_fault_only("offload.thread");
    rv_fault_fail_nth(1);
    CHECK_OK(rv_offload_start(&o, &d[2].job));
    rv_fault_off();
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(rv_load_relaxed(&d[i].told), 1);
        CHECK_EQ(d[i].result, -EAGAIN);
    }
    CHECK_EQ(at.seen, 0);
    CHECK_EQ(rv_load_relaxed(&o.queued), 0);
    rv_store_relaxed(&d[0].told, 0u);
    CHECK_OK(rv_offload_start(&o, &d[0].job));
    await_told(&d[0]);
    CHECK_EQ(d[0].result, 4711);
    rv_offload_finish(&o);
}

TEST(a_detached_job_is_told_its_result_on_the_thread_that_ran_it)
{
    struct rv_offload o;
    struct where at = { 0 };
    struct detached d = { .job = { .fn = note_where, .arg = &at, .done = tell } };
    rv_offload_init(&o, 2, "a-name-that-is-too-long", NULL);
    CHECK_OK(rv_offload_start(&o, &d.job));
    await_told(&d);
    CHECK_EQ(d.result, 4711);
    CHECK(pthread_equal(d.by, at.thread));
    CHECK_STR_EQ(at.name, "a-name-that/off");
    CHECK(!rv_offload_remove(&o, &d.job)); /* it is over */
    rv_offload_finish(&o);
}

static void free_it(struct rv_offload_job *job, int result)
{
    CHECK_EQ(result, 0);
    free(job);
}

TEST(a_detached_job_may_free_itself)
{
    struct rv_offload o;
    rv_offload_init(&o, 3, "test", NULL);
    for (uint32_t i = 0; i < host_times(1000); i++) {
        struct rv_offload_job *job = malloc(sizeof *job);
        CHECK(job);
        *job = (struct rv_offload_job){ .fn = host_nothing, .done = free_it };
        while (rv_load_relaxed(&o.queued) > 100)
            sched_yield();
        CHECK_OK(rv_offload_start(&o, job));
    }
    while (rv_load_relaxed(&o.queued))
        sched_yield();
    rv_offload_finish(&o);
}

static void *finish_pool(void *arg)
{
    rv_offload_finish(arg);
    return NULL;
}

TEST(finishing_waits_for_what_runs_and_refuses_the_rest)
{
    struct rv_offload o;
    struct door door = { 0 };
    pthread_t finisher;
    struct detached runs = { .job = { .fn = stop_at, .arg = &door, .done = tell } };
    struct detached waits = runs, late = runs;
    rv_offload_init(&o, 1, "test", NULL);
    CHECK_OK(rv_offload_start(&o, &runs.job));
    while (rv_load_relaxed(&door.inside) == 0)
        sched_yield();
    CHECK_OK(rv_offload_start(&o, &waits.job));
    CHECK_EQ(pthread_create(&finisher, NULL, finish_pool, &o), 0);
    await_told(&waits);
    CHECK_EQ(waits.result, -ESHUTDOWN);
    CHECK_EQ(rv_offload_start(&o, &late.job), -ESHUTDOWN);
    CHECK_EQ(rv_load_relaxed(&late.told), 0);
    CHECK_EQ(rv_load_relaxed(&runs.told), 0);
    CHECK_EQ(rv_load_relaxed(&o.threads), 1); /* so the finisher has not returned */
    open_door(&door);
    CHECK_EQ(pthread_join(finisher, NULL), 0);
    CHECK_EQ(rv_load_relaxed(&runs.told), 1);
    CHECK_EQ(runs.result, 0);
}

TEST(a_pool_that_was_never_used_or_is_all_zero_can_be_finished)
{
    struct rv_offload o = { 0 };
    rv_offload_finish(&o);
    rv_offload_init(&o, RV_OFFLOAD_MAX, "test", NULL);
    rv_offload_finish(&o);
}

/* ---- all at once ---- */

enum { CALLERS = 40 };

static RV_ATOMIC(uint64_t) ran;

static int add_one(void *arg)
{
    rv_add_relaxed(&ran, (uint64_t)1);
    ++*(uint64_t *)arg;
    return 7;
}

static int calls_much(void *arg)
{
    uint64_t mine = 0;
    uint32_t n = *(uint32_t *)arg;
    for (uint32_t i = 0; i < n; i++) {
        CHECK_EQ(reeve_offload(add_one, &mine, 0), 7);
        CHECK_EQ(mine, i + 1);
    }
    return 0;
}

static int race(void *arg)
{
    reeve_group g = { 0 };
    for (int i = 0; i < CALLERS; i++)
        CHECK_OK(reeve_go(calls_much, arg, .group = &g));
    CHECK_OK(reeve_group_wait(&g, 0));
    CHECK_EQ(rv_load_relaxed(&ran), (uint64_t)CALLERS * *(uint32_t *)arg);
    CHECK_LE(stats().threads_peak, 3);
    return 0;
}

TEST(forty_thousand_calls_from_four_workers_each_run_once)
{
    uint32_t each = host_times(40000) / CALLERS;
    CHECK_EQ(play(4, 3, race, &each), 0);
}

/* Calls whose deadlines and cancellations come at any moment: each runs and says so, or does not
 * run and says that. */
static int calls_hastily(void *arg)
{
    uint64_t mine = 0, said = 0;
    int r = 0;
    for (uint32_t i = 0; i < 20 && r != -ECANCELED; i++) {
        r = reeve_offload(add_one, &mine, reeve_in((int64_t)(i * (uintptr_t)arg % 50) * REEVE_US));
        CHECK(r == 7 || r == -ETIMEDOUT || r == -ECANCELED);
        said += r == 7;
        CHECK_EQ(mine, said);
    }
    return 0;
}

static int haste(void *arg)
{
    reeve_task *t[CALLERS];
    scene.pool.idle_ns = 30 * REEVE_US; /* threads come and go as well */
    for (uint32_t round = 0; round < *(uint32_t *)arg; round++) {
        for (uintptr_t i = 0; i < CALLERS; i++)
            CHECK_OK(reeve_spawn(&t[i], calls_hastily, (void *)(i + round)));
        for (uint32_t i = 0; i < CALLERS; i++) {
            if ((i + round) % 3 == 0)
                reeve_cancel(t[i]);
            CHECK_OK(reeve_join(t[i], NULL, 0));
        }
    }
    CHECK_EQ(stats().run, rv_load_relaxed(&ran));
    return 0;
}

TEST(deadlines_and_cancellations_race_with_threads_that_come_and_go)
{
    uint32_t rounds = host_times(100);
    CHECK_EQ(play(4, 3, haste, &rounds), 0);
}
