/* SPDX-License-Identifier: MIT */
/*
 * stats_test.c -- runtime/stats.c: each counter counts what the manual says, by a scene of its own.
 *
 * Where the numbers must be exact one worker plays the scene.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include "runtime/runtime.h"
#include "tests/runtime/server.h"

static struct reeve_stats now(void)
{
    return stats_of(reeve_self());
}

/* Yields until so many tasks more than in `was` have started; of one worker, so each of them has
 * gone on until it waited, or ended. */
static void await_started(const struct reeve_stats *was, uint64_t n)
{
    while (now().started - was->started < n)
        CHECK_OK(reeve_sleep(0));
}

static int run(reeve_fn *scene, unsigned workers)
{
    uring_or_skip();
    return reeve_run(scene, NULL, .workers = workers);
}

/* ---- tasks ----------------------------------------------------------------------------------- */

static int end_well(void *arg)
{
    (void)arg;
    return 3;
}

static int end_badly(void *arg)
{
    (void)arg;
    return -EIO;
}

static int wait_for_ever(void *arg)
{
    (void)arg;
    return reeve_sleep(reeve_in(INT64_MAX));
}

static int count_ends(void *arg)
{
    (void)arg;
    struct reeve_stats a = now();
    reeve_group g = { 0 };
    reeve_task *t;
    for (int i = 0; i < 5; i++)
        CHECK_OK(reeve_go(end_well, NULL, .group = &g));
    for (int i = 0; i < 3; i++)
        CHECK_OK(reeve_spawn(&t, end_badly, NULL, .group = &g));
    CHECK_OK(reeve_group_wait(&g, 0));
    for (int i = 0; i < 2; i++) {
        CHECK_OK(reeve_spawn(&t, end_well, NULL, .deadline = 1));
        CHECK_OK(reeve_join(t, NULL, 0));
    }
    for (int i = 0; i < 4; i++) {
        CHECK_OK(reeve_spawn(&t, end_well, NULL));
        reeve_cancel(t);
        CHECK_OK(reeve_join(t, NULL, 0));
    }
    struct reeve_stats b = now();
    CHECK_EQ(b.spawned - a.spawned, 14);
    CHECK_EQ(b.started - a.started, 8);
    CHECK_EQ(b.completed - a.completed, 8);
    CHECK_EQ(b.failed - a.failed, 3);
    CHECK_EQ(b.expired - a.expired, 2);
    CHECK_EQ(b.cancelled - a.cancelled, 4);
    CHECK_EQ(b.skipped - a.skipped, 6);
    CHECK_EQ(b.tasks_live, a.tasks_live);
    return 0;
}

TEST(each_end_of_a_task_has_its_counter)
{
    CHECK_EQ(run(count_ends, 1), 0);
}

static int cancel_one_that_runs(void *arg)
{
    (void)arg;
    reeve_task *t;
    struct reeve_stats a = now();
    CHECK_OK(reeve_spawn(&t, wait_for_ever, NULL));
    await_started(&a, 1);
    reeve_cancel(t);
    CHECK_OK(reeve_join(t, NULL, 0));
    struct reeve_stats b = now();
    CHECK_EQ(b.cancelled, a.cancelled);
    CHECK_EQ(b.skipped, a.skipped);
    CHECK_EQ(b.completed - a.completed, 1);
    CHECK_EQ(b.failed - a.failed, 1);
    return 0;
}

TEST(a_task_that_had_started_is_not_counted_as_cancelled)
{
    CHECK_EQ(run(cancel_one_that_runs, 1), 0);
}

static int leave_a_waiter(void *arg)
{
    (void)arg;
    CHECK_OK(reeve_go(wait_for_ever, NULL));
    return 0;
}

static int complete_late(void *arg)
{
    (void)arg;
    reeve_task *t;
    struct reeve_stats a = now();
    CHECK_OK(reeve_spawn(&t, leave_a_waiter, NULL));
    await_started(&a, 2); /* its function has returned, its child waits */
    CHECK_EQ(now().completed, a.completed);
    CHECK_EQ(now().tasks_live - a.tasks_live, 2);
    reeve_cancel(t);
    CHECK_OK(reeve_join(t, NULL, 0));
    CHECK_EQ(now().completed - a.completed, 2);
    CHECK_EQ(now().tasks_live, a.tasks_live);
    return 0;
}

TEST(a_task_is_complete_when_its_scope_is_empty)
{
    CHECK_EQ(run(complete_late, 1), 0);
}

enum { CROWD = 1000 };

static int crowd(void *arg)
{
    (void)arg;
    reeve_group g = { 0 };
    struct reeve_stats a = now();
    for (int i = 0; i < CROWD; i++)
        CHECK_OK(reeve_go(wait_for_ever, NULL, .group = &g));
    struct reeve_stats queued = now();
    CHECK_EQ(queued.tasks_live - a.tasks_live, CROWD);
    CHECK_LT(queued.stacks_live, a.stacks_live + CROWD / 10); /* unstarted ones have none */
    while (now().started - a.started < CROWD)
        CHECK_OK(reeve_sleep(0));
    struct reeve_stats waiting = now();
    CHECK_EQ(waiting.tasks_live - a.tasks_live, CROWD);
    CHECK_GE(waiting.stacks_live, CROWD);
    reeve_group_cancel(&g);
    CHECK_EQ(reeve_group_wait(&g, 0), -ECANCELED);
    CHECK_EQ(now().tasks_live, a.tasks_live);
    CHECK_LT(now().stacks_live, a.stacks_live + CROWD / 10);
    return 0;
}

TEST(gauges_go_up_with_a_crowd_and_down_again)
{
    CHECK_EQ(run(crowd, 1), 0);
}

/* ---- scheduling ------------------------------------------------------------------------------ */

static int count_polls(void *arg)
{
    (void)arg;
    reeve_task *t;
    struct reeve_stats a = now();
    for (int i = 0; i < 10; i++) {
        CHECK_OK(reeve_spawn(&t, end_well, NULL));
        CHECK_OK(reeve_join(t, NULL, 0));
    }
    struct reeve_stats b = now();
    CHECK_EQ(b.inline_runs - a.inline_runs, 10);
    CHECK_GE(b.polls - a.polls, 10);
    for (int i = 0; i < 200; i++)
        CHECK_OK(reeve_sleep(0));
    struct reeve_stats c = now();
    CHECK_EQ(c.inline_runs, b.inline_runs);
    CHECK_EQ(c.polls - b.polls, 200);
    CHECK_GE(c.passes - b.passes, 200 / 61);
    CHECK_LE(c.passes - b.passes, 200);
    struct reeve_stats d = c;
    for (unsigned i = 1; i <= 10 || d.parks - c.parks < 10; i++) { /* a late one need not park */
        CHECK_OK(reeve_sleep(reeve_in(REEVE_MS)));
        d = now();
        CHECK_EQ(d.timers_fired - c.timers_fired, i);
    }
    CHECK_GE(d.enters - c.enters, d.parks - c.parks); /* it sleeps in the ring */
    return 0;
}

TEST(polls_passes_parks_and_timers_are_counted)
{
    uring_or_skip();
    int64_t hour = 3600 * REEVE_SEC; /* passes end by picks alone: a child is joined where it is */
    CHECK_EQ(reeve_run(count_polls, NULL, .workers = 1, .pass_ns = hour), 0);
}

TEST(a_post_to_a_sleeping_worker_is_injected_and_wakes_it)
{
    uring_or_skip();
    reeve *rt;
    CHECK_OK(reeve_create(&rt, &(struct reeve_opts){ .workers = 1 }));
    unsigned woken = 0; /* one that is about to sleep may find the task by itself */
    for (unsigned i = 0; woken < 10; i++) {
        AWAIT(rv_load_acquire(&rt->sched.workers[0]->parked));
        struct reeve_stats a = stats_of(rt);
        CHECK_OK(reeve_post(rt, &(struct reeve_spawn){ .fn = end_well }));
        AWAIT(stats_of(rt).completed == i + 1);
        struct reeve_stats b = stats_of(rt);
        CHECK_EQ(b.injected - a.injected, 1);
        CHECK_LE(b.wakes_sent - a.wakes_sent, 1);
        CHECK_EQ(b.spawned - a.spawned, 1);
        woken += b.wakes_sent > a.wakes_sent;
    }
    reeve_destroy(rt);
}

static RV_ATOMIC(int) stolen;

static int be_stolen(void *arg)
{
    (void)arg;
    rv_add_acq_rel(&stolen, 1);
    return 0;
}

/* Its worker does nothing but wait, so the other one has to come and take the children. */
static int hold_the_worker(void *arg)
{
    (void)arg;
    struct reeve_stats a = now();
    for (int i = 0; i < 20; i++)
        CHECK_OK(reeve_go(be_stolen, NULL));
    AWAIT(rv_load_acquire(&stolen) == 20);
    struct reeve_stats b = now();
    CHECK_GT(b.steals_got, a.steals_got);
    CHECK_GE(b.steals_tried - a.steals_tried, b.steals_got - a.steals_got);
    return 0;
}

TEST(steals_are_counted)
{
    CHECK_EQ(run(hold_the_worker, 2), 0);
}

/* ---- rings and buffers ----------------------------------------------------------------------- */

struct ends {
    int fd, peer;
};

static struct ends connect_ends(void)
{
    struct ends e;
    struct sockaddr_in in;
    socklen_t len = sizeof in;
    int listener = (int)CHECK_OK(reeve_listen("127.0.0.1:0", 0));
    CHECK_EQ(getsockname(listener, (struct sockaddr *)&in, &len), 0);
    e.peer = peer_connect(ntohs(in.sin_port));
    e.fd = (int)CHECK_OK(reeve_accept(listener, LONG));
    CHECK_EQ(reeve_close(listener), 0);
    return e;
}

static int count_requests(void *arg)
{
    (void)arg;
    struct ends e = connect_ends();
    char byte;
    struct reeve_stats a = now();
    for (int i = 0; i < 10; i++) {
        peer_send(e.peer, "x", 1);
        CHECK_EQ(reeve_read(e.fd, &byte, 1, LONG), 1);
        CHECK_EQ(reeve_write(e.fd, "y", 1, LONG), 1);
        peer_receive(e.peer, &byte, 1);
    }
    struct reeve_stats b = now();
    CHECK_GE(b.sqes - a.sqes, 1);
    CHECK_GE(b.cqes - a.cqes, 10); /* what came; what went may have gone by plain calls */
    CHECK_GE(b.enters - a.enters, 10);
    CHECK_EQ(b.cq_overflows, 0);
    CHECK_EQ(b.enobufs, 0);
    CHECK_EQ(reeve_close(e.fd), 0);
    close(e.peer);
    return 0;
}

TEST(requests_completions_and_enters_are_counted)
{
    CHECK_EQ(run(count_requests, 1), 0);
}

/* With two buffers, both lent out, a third piece has to wait. */
static int run_out_of_buffers(void *arg)
{
    (void)arg;
    struct ends e = connect_ends();
    struct reeve_buf *held[3];
    for (int i = 0; i < 2; i++) {
        peer_send(e.peer, "x", 1);
        CHECK_EQ(reeve_buf_recv(e.fd, &held[i], LONG), 1);
    }
    peer_send(e.peer, "z", 1);
    do { /* a wait that is late from the beginning is none */
        CHECK_EQ(reeve_buf_recv(e.fd, &held[2], reeve_in(REEVE_MS)), -ETIMEDOUT);
    } while (now().enobufs == 0);
    reeve_buf_return(held[0]);
    reeve_buf_return(held[1]);
    CHECK_EQ(reeve_buf_recv(e.fd, &held[2], LONG), 1);
    CHECK_EQ(held[2]->data[0], 'z');
    reeve_buf_return(held[2]);
    CHECK_EQ(reeve_close(e.fd), 0);
    close(e.peer);
    return 0;
}

static int borrow_all(void *arg)
{
    (void)arg;
    struct reeve_buf *held[2], *none;
    struct reeve_stats a = now();
    CHECK_OK(reeve_buf_borrow(&held[0], 0));
    CHECK_OK(reeve_buf_borrow(&held[1], 0));
    CHECK_EQ(now().lease_waits, a.lease_waits);
    do { /* a wait that is late from the beginning is none */
        CHECK_EQ(reeve_buf_borrow(&none, reeve_in(REEVE_MS)), -ETIMEDOUT);
    } while (now().lease_waits == a.lease_waits);
    CHECK_EQ(now().lease_waits - a.lease_waits, 1);
    CHECK_EQ(now().heap_leases - a.heap_leases, 2);
    reeve_buf_return(held[0]);
    reeve_buf_return(held[1]);
    return 0;
}

TEST(a_receive_that_finds_no_buffer_waits_and_is_counted)
{
    uring_or_skip();
    CHECK_EQ(reeve_run(run_out_of_buffers, NULL, .workers = 1, .bufs = 2), 0);
}

TEST(leases_from_the_heap_and_waits_for_them_are_counted)
{
    uring_or_skip();
    CHECK_EQ(reeve_run(borrow_all, NULL, .workers = 1, .bufs = 2), 0);
}

/* ---- servers --------------------------------------------------------------------------------- */

TEST(connections_are_counted_as_they_come_and_go)
{
    enum { CONNS = 10 };
    struct server sv = { .how.handler = echo };
    server_start(&sv, 2);
    CHECK_EQ(stats_of(sv.rt).conns_live, 0);
    int peer[CONNS];
    for (int i = 0; i < CONNS; i++) {
        peer[i] = peer_connect(sv.port);
        peer_echo(peer[i], "hello", 5);
    }
    CHECK_EQ(stats_of(sv.rt).conns_live, CONNS);
    CHECK_EQ(stats_of(sv.rt).accepted, CONNS);
    CHECK_EQ(stats_of(sv.rt).shed, 0);
    for (int i = 0; i < CONNS; i++)
        close(peer[i]);
    AWAIT(stats_of(sv.rt).conns_live == 0);
    CHECK_EQ(stats_of(sv.rt).accepted, CONNS);
    CHECK_EQ(stats_of(sv.rt).emfile, 0);
    CHECK_EQ(server_stop(&sv), 0);
    server_end(&sv);
}

/* ---- reading them ---------------------------------------------------------------------------- */

static bool is_gauge(size_t offset)
{
    return offset == offsetof(struct reeve_stats, workers) ||
           offset == offsetof(struct reeve_stats, tasks_live) ||
           offset == offsetof(struct reeve_stats, stacks_live) ||
           offset == offsetof(struct reeve_stats, conns_live);
}

static int work(void *arg)
{
    (void)arg;
    reeve_task *t;
    for (int i = 0; i < 50; i++) {
        CHECK_OK(reeve_spawn(&t, i % 2 ? end_well : end_badly, NULL));
        CHECK_OK(reeve_sleep(0));
        CHECK_OK(reeve_join(t, NULL, 0));
    }
    return 0;
}

TEST(counters_only_grow_while_the_workers_go_on)
{
    uring_or_skip();
    reeve *rt;
    CHECK_OK(reeve_create(&rt, &(struct reeve_opts){ .workers = 2 }));
    struct reeve_stats was = stats_of(rt);
    unsigned posted = 0;
    int64_t enough = rv_clock_ns() + 20 * REEVE_SEC; /* on a machine that is busy with much else */
    for (unsigned i = 0; i < times(20000) && (i % 64 || rv_clock_ns() < enough); i++) {
        if (i % 10 == 0 && was.tasks_live < 1000) {
            CHECK_OK(reeve_post(rt, &(struct reeve_spawn){ .fn = work }));
            posted++;
        }
        struct reeve_stats is = stats_of(rt);
        for (size_t at = 0; at < offsetof(struct reeve_stats, classes); at += sizeof(uint64_t))
            if (!is_gauge(at))
                CHECK_GE(*(uint64_t *)((char *)&is + at), *(uint64_t *)((char *)&was + at));
        CHECK_EQ(is.workers, 2);
        CHECK_LE(is.tasks_live, is.spawned);
        was = is;
    }
    CHECK_EQ(reeve_shutdown(rt, 0), 0);
    was = stats_of(rt); /* of a runtime that is over, they are exact */
    CHECK_EQ(was.spawned, posted * 51);
    CHECK_EQ(was.completed, posted * 51);
    CHECK_EQ(was.failed, posted * 25);
    CHECK_EQ(was.tasks_live, 0);
    reeve_destroy(rt);
}

/* ---- calls that block ------------------------------------------------------------------------ */

static int offload_some(void *arg)
{
    (void)arg;
    struct reeve_stats st = now();
    CHECK_EQ(st.offload_threads_live, 0);
    for (int i = 0; i < 4; i++)
        CHECK_EQ(reeve_offload(end_well, NULL, 0), 3);
    CHECK_EQ(reeve_offload(end_badly, NULL, 0), -EIO);
    st = now();
    CHECK_EQ(st.offloads, 5);
    CHECK_EQ(st.offloads_removed, 0);
    CHECK_EQ(st.offload_queued_live, 0);
    CHECK_GE(st.offload_threads_live, 1);
    CHECK_GE(st.offload_threads_peak, st.offload_threads_live);
    return 0;
}

TEST(blocking_calls_are_counted)
{
    CHECK_EQ(run(offload_some, 1), 0);
}

/* ---- programs -------------------------------------------------------------------------------- */

static int runs_a_program(void *arg)
{
    char *argv[] = { "/bin/true", NULL };
    struct reeve_exec how = { .argv = argv };
    struct reeve_stats a, b, c, d;
    reeve_proc *p;
    (void)arg;
    reeve_stats(reeve_self(), &a);
    CHECK_EQ(reeve_proc_start(&p, &how, LONG), 0);
    reeve_stats(reeve_self(), &b);
    CHECK_EQ(b.programs_started - a.programs_started, 1);
    CHECK_EQ(b.programs_live - a.programs_live, 1);
    CHECK_EQ(reeve_proc_wait(p, NULL, LONG), 0);
    reeve_stats(reeve_self(), &c);
    CHECK_EQ(c.programs_ended - a.programs_ended, 1);
    CHECK_EQ(c.programs_live, a.programs_live);
    argv[0] = "/there/is/no/such/program";
    CHECK_EQ(reeve_proc_start(&p, &how, LONG), -ENOENT);
    reeve_stats(reeve_self(), &d);
    CHECK_EQ(d.programs_started, c.programs_started);
    CHECK_EQ(d.programs_refused - c.programs_refused, 1);
    return 0;
}

TEST(programs_are_counted)
{
    uring_or_skip();
    CHECK_EQ(reeve_run(runs_a_program, NULL, .workers = 1), 0);
}
