/* SPDX-License-Identifier: MIT */
/*
 * engine_uring_test.c -- the engine as its worker sees it: waking, reaping, ending, and what it
 * does without the things that older kernels lack.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <sys/eventfd.h>

#include "io/ring.h"
#include "tests/io/pair.h"

#define LONG reeve_in(20 * REEVE_SEC)

/* ---- waking ---------------------------------------------------------------------------------- */

static int answer(void *arg)
{
    return (int)(intptr_t)arg;
}

static void call_often(unsigned workers)
{
    reeve *rt;
    uring_or_skip();
    CHECK_EQ(reeve_create(&rt, &(struct reeve_opts){ .workers = workers }), 0);
    for (int i = 0; i < 300; i++)
        CHECK_EQ(reeve_call(rt, answer, (void *)(intptr_t)i, LONG), i);
    CHECK_EQ(reeve_shutdown(rt, LONG), 0);
    reeve_destroy(rt);
}

TEST(a_sleeping_worker_is_woken_from_outside)
{
    call_often(1);
    call_often(2);
}

TEST(a_sleeping_worker_is_woken_through_its_eventfd_too)
{
    setenv("REEVE_CAPS_OFF", "send_msg_ring", 1);
    call_often(1);
    call_often(2);
}

/* ---- kernels that lack something ------------------------------------------------------------- */

static int echo_once(void *arg)
{
    struct pair *p = arg;
    struct reeve_buf *b = NULL;
    for (int i = 0; i < 50; i++) {
        ssize_t n = reeve_buf_recv(p->fd, &b, LONG);
        CHECK_EQ(n, 4);
        CHECK_EQ(reeve_buf_send(p->fd, b, LONG), 4);
    }
    return 0;
}

static int echo(void *arg)
{
    (void)arg;
    enum { PAIRS = 8 };
    struct pair p[PAIRS];
    struct reeve_group g = { 0 };
    for (int i = 0; i < PAIRS; i++) {
        p[i] = pair_make();
        CHECK_EQ(reeve_spawn(NULL, echo_once, &p[i], .group = &g), 0);
    }
    for (int r = 0; r < 50; r++) {
        char buf[8];
        for (int i = 0; i < PAIRS; i++)
            peer_send(p[i].peer, "echo", 4);
        for (int i = 0; i < PAIRS; i++) {
            while (recv(p[i].peer, buf, sizeof buf, MSG_DONTWAIT) != 4)
                CHECK_EQ(reeve_sleep(0), 0);
            CHECK_MEM_EQ(buf, "echo", 4);
        }
    }
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    for (int i = 0; i < PAIRS; i++)
        pair_close(&p[i]);
    return 0;
}

#define OLD_KERNEL                                                                                 \
    "defer_taskrun,coop_taskrun,taskrun_flag,single_issuer,submit_all,registered_ring_fd,"         \
    "no_iowait,abs_timer,send_msg_ring,optlen,accept_multishot,rwf_nosignal,guard_install"

TEST(what_a_kernel_lacks_costs_time_and_nothing_else)
{
    static const char *const lacking[] = {
        "",
        "defer_taskrun",
        "defer_taskrun,coop_taskrun",
        "taskrun_flag",
        "single_issuer",
        "submit_all",
        "registered_ring_fd",
        "no_iowait",
        "abs_timer",
        "send_msg_ring",
        "optlen",
        "accept_multishot",
        OLD_KERNEL,
    };
    for (size_t i = 0; i < sizeof lacking / sizeof *lacking; i++) {
        setenv("REEVE_CAPS_OFF", lacking[i], 1);
        RUN(echo, .workers = 1);
        RUN(echo, .workers = 2);
    }
}

/* ---- reaping --------------------------------------------------------------------------------- */

static int few_enters(void *arg)
{
    CHECK_EQ(echo(arg), 0);
    struct rv_sched *s = my_io()->io->sched;
    uint64_t passes = 0, parks = 0;
    for (uint32_t i = 0; i < s->nworkers; i++) {
        passes += rv_load_relaxed(&s->workers[i]->n.passes);
        parks += rv_load_relaxed(&s->workers[i]->n.parks);
    }
    /* One for each pass, one for each sleep; again only to fetch what one enter left over. */
    CHECK_LE(COUNTER(enters), passes + parks + COUNTER(cqes) / 20);
    CHECK_GE(COUNTER(sqes), 400);
    return 0;
}

TEST(the_kernel_is_entered_once_a_pass)
{
    RUN(few_enters, .workers = 1);
}

enum { FLOOD = 5000 }; /* more than a completion queue holds */

static int count_down(void *arg)
{
    uint64_t value;
    CHECK_EQ(reeve_read(*(int *)arg, &value, sizeof value, LONG), 8);
    return 0;
}

static int overflow(void *arg)
{
    (void)arg;
    static int fds[FLOOD];
    struct rlimit lim;
    struct reeve_group g = { 0 };
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &lim), 0);
    lim.rlim_cur = lim.rlim_max;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &lim), 0);
    if (lim.rlim_max < FLOOD + 100)
        SKIP("too few descriptors are allowed here");
    for (int i = 0; i < FLOOD; i++) {
        fds[i] = (int)CHECK_OK(eventfd(0, EFD_CLOEXEC));
        CHECK_EQ(reeve_spawn(NULL, count_down, &fds[i], .group = &g), 0);
    }
    while (COUNTER(sqes) < FLOOD)
        CHECK_EQ(reeve_sleep(0), 0);
    const uint64_t one = 1;
    for (int i = 0; i < FLOOD; i++) /* without task switches: all complete inside these calls */
        CHECK_EQ(write(fds[i], &one, sizeof one), 8);
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    CHECK_GE(COUNTER(overflows), 1);
    for (int i = 0; i < FLOOD; i++)
        close(fds[i]);
    return 0;
}

TEST(completions_that_the_queue_had_no_room_for_are_counted_and_come)
{
    setenv("REEVE_CAPS_OFF", "defer_taskrun,coop_taskrun,taskrun_flag", 1);
    RUN(overflow, .workers = 1);
}

/* ---- the end --------------------------------------------------------------------------------- */

static int leave_streams(void *arg)
{
    (void)arg;
    char c;
    for (int i = 0; i < 20; i++) {
        struct pair p = pair_make();
        CHECK_EQ(reeve_read(p.fd, &c, 1, REEVE_POLL), -ETIMEDOUT);
    }
    return 0;
}

TEST(a_runtime_ends_with_streams_in_flight)
{
    RUN(leave_streams, .workers = 1);
    RUN(leave_streams, .workers = 2);
}

TEST(a_thread_may_run_one_runtime_after_another)
{
    struct rv_ring r;
    for (int i = 0; i < 40; i++) /* a thread has 16 places for ring indexes */
        RUN(echo, .workers = 1);
    CHECK_OK(rv_ring_init(&r, 8, 0, RV_RING_FLAGS, NULL));
    CHECK_OK(rv_ring_enable(&r));
    CHECK_NE(r.enter_flags, 0); /* there is one left, so each was given back */
    rv_ring_finish(&r);
}
