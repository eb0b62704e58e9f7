/* SPDX-License-Identifier: MIT */
/*
 * fdtab_test.c -- closing: who is told, and when the number is free.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <sys/eventfd.h>

#include "io/fdtab.h"
#include "tests/io/pair.h"

#define LONG reeve_in(20 * REEVE_SEC)

struct reading {
    int fd;
    ssize_t result;
    char buf[32];
};

static int read_some(void *arg)
{
    struct reading *r = arg;
    r->result = reeve_read(r->fd, r->buf, sizeof r->buf, LONG);
    return 0;
}

static int accept_one(void *arg)
{
    struct reading *r = arg;
    r->result = reeve_accept(r->fd, LONG);
    return 0;
}

static int wakes(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    struct reading r = { .fd = p.fd }, a = { .fd = p.listener };
    struct reeve_group g = { 0 };
    CHECK_EQ(reeve_spawn(NULL, read_some, &r, .group = &g), 0);
    CHECK_EQ(reeve_spawn(NULL, accept_one, &a, .group = &g), 0);
    await_waiter(p.fd, A_READER);
    await_waiter(p.listener, AN_OP);
    CHECK_EQ(reeve_close(p.fd), 0);
    CHECK_EQ(reeve_close(p.listener), 0);
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    CHECK_EQ(r.result, -ECANCELED);
    CHECK_EQ(a.result, -ECANCELED);
    await_closed(p.fd);
    await_closed(p.listener);
    CHECK_EQ(recv(p.peer, r.buf, 1, 0), 0);
    close(p.peer);
    return 0;
}

TEST(a_close_wakes_who_waits_and_then_frees_the_number)
{
    RUN(wakes, .workers = 1);
    RUN(wakes, .workers = 2);
}

static int at_once(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    char c;
    CHECK_EQ(reeve_read(p.fd, &c, 1, REEVE_POLL), -ETIMEDOUT); /* a stream is in flight now */
    CHECK_EQ(reeve_close(p.fd), 0);
    CHECK(is_open(p.fd)); /* its op has not ended, for nobody has entered the kernel */
    CHECK_EQ(recv(p.peer, &c, 1, MSG_DONTWAIT), 0);
    await_closed(p.fd);
    p.fd = -1;
    pair_close(&p);
    return 0;
}

TEST(a_connection_is_shut_down_at_once_though_the_number_is_not_free)
{
    RUN(at_once, .workers = 1);
}

static int write_much(void *arg)
{
    struct reading *r = arg;
    static char much[1 << 20];
    r->result = reeve_write(r->fd, much, sizeof much, LONG);
    return 0;
}

static int close_full_pipe(void *arg)
{
    (void)arg;
    int ends[2];
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    struct reading r = { .fd = ends[1] };
    reeve_task *t;
    CHECK_EQ(reeve_spawn(&t, write_much, &r), 0);
    await_waiter(ends[1], AN_OP);
    CHECK_EQ(reeve_sleep(reeve_in(REEVE_MS)), 0);
    CHECK_EQ(reeve_close(ends[1]), 0);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(r.result, -ECANCELED);
    await_closed(ends[1]);
    CHECK_EQ(reeve_close(ends[0]), 0);
    return 0;
}

TEST(a_close_ends_a_write_to_a_pipe_that_nobody_reads)
{
    RUN(close_full_pipe, .workers = 1);
    RUN(close_full_pipe, .workers = 2);
}

static int says_ebadf(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    char c;
    struct reeve_buf *b = NULL;
    CHECK_EQ(reeve_read(p.fd, &c, 1, REEVE_POLL), -ETIMEDOUT); /* a stream is in flight now */
    CHECK_EQ(reeve_close(p.fd), 0);
    if (is_open(p.fd)) {
        CHECK_EQ(reeve_read(p.fd, &c, 1, LONG), -EBADF);
        CHECK_EQ(reeve_buf_recv(p.fd, &b, LONG), -EBADF);
        CHECK_EQ(reeve_write(p.fd, &c, 1, LONG), -EBADF);
        CHECK_EQ(reeve_accept(p.fd, LONG), -EBADF);
        CHECK_EQ(reeve_close(p.fd), -EBADF);
    }
    await_closed(p.fd);
    CHECK_EQ(reeve_read(p.fd, &c, 1, LONG), -EBADF);
    CHECK_EQ(reeve_write(p.fd, &c, 1, LONG), -EBADF);
    CHECK_EQ(reeve_accept(p.fd, LONG), -EBADF);
    CHECK_EQ(reeve_close(p.fd), -EBADF);
    CHECK_EQ(reeve_close(-1), -EBADF);
    CHECK_EQ(reeve_close(INT_MAX), -EBADF);
    CHECK_EQ(reeve_read(-1, &c, 1, LONG), -EBADF);
    CHECK_EQ(reeve_write(-1, &c, 1, LONG), -EBADF);
    CHECK_EQ(reeve_accept(-1, LONG), -EBADF);
    CHECK_EQ(reeve_buf_recv(-1, &b, LONG), -EBADF);
    p.fd = -1;
    pair_close(&p);
    return 0;
}

TEST(calls_on_a_closed_descriptor_say_so)
{
    RUN(says_ebadf, .workers = 1);
}

static int reuse(void *arg)
{
    (void)arg;
    int listener = (int)CHECK_OK(reeve_listen("127.0.0.1:0", 0)), before = -1, same = 0;
    for (int i = 0; i < 200; i++) {
        char text[32], buf[64];
        int peer = peer_connect(listener);
        int fd = (int)CHECK_OK(reeve_accept(listener, LONG));
        same += fd == before;
        before = fd;
        snprintf(text, sizeof text, "hello %d", i);
        peer_send(peer, text, strlen(text));
        ssize_t n = reeve_read(fd, buf, sizeof buf, LONG);
        CHECK_EQ(n, (ssize_t)strlen(text));
        CHECK_MEM_EQ(buf, text, (size_t)n);
        peer_send(peer, "nobody reads this", 17);
        if (i % 2)
            CHECK_EQ(reeve_sleep(0), 0);
        CHECK_EQ(reeve_close(fd), 0);
        if (i % 3)
            await_closed(fd);
        close(peer);
    }
    CHECK_GE(same, 50);
    CHECK_EQ(reeve_close(listener), 0);
    return 0;
}

TEST(a_number_handed_out_again_delivers_only_its_own_data)
{
    RUN(reuse, .workers = 1);
    RUN(reuse, .workers = 2);
}

/* ---- races ----------------------------------------------------------------------------------- */

static int close_it(void *arg)
{
    CHECK_EQ(reeve_close(*(int *)arg), 0);
    return 0;
}

static int race(void *arg)
{
    (void)arg;
    int listener = (int)CHECK_OK(reeve_listen("127.0.0.1:0", 0));
    for (int i = 0; i < 400; i++) {
        int peer = peer_connect(listener);
        int fd = (int)CHECK_OK(reeve_accept(listener, LONG));
        struct reading r = { .fd = fd };
        struct reeve_group g = { 0 };
        if (i % 4 == 0)
            CHECK_EQ(reeve_read(fd, r.buf, 1, REEVE_POLL), -ETIMEDOUT);
        CHECK_EQ(reeve_spawn(NULL, read_some, &r, .group = &g, .worker = 1 + i % 2), 0);
        if (i % 3 == 0)
            CHECK_EQ(reeve_sleep(0), 0);
        CHECK_EQ(reeve_spawn(NULL, close_it, &fd, .group = &g, .worker = 1 + i / 2 % 2), 0);
        if (i % 5 == 0)
            peer_send(peer, "data", 4);
        CHECK_EQ(reeve_group_wait(&g, LONG), 0);
        CHECK(r.result == -ECANCELED || r.result == -EBADF || r.result == 4);
        char c;
        ssize_t n = recv(peer, &c, 1, 0); /* shut down at once; reset where data was unread */
        CHECK(n == 0 || (n < 0 && errno == ECONNRESET));
        close(peer);
        await_closed(fd);
    }
    CHECK_EQ(reeve_close(listener), 0);
    return 0;
}

TEST(a_close_may_race_with_reads_on_every_worker)
{
    RUN(race, .workers = 2);
}

static void *close_from_outside(void *arg)
{
    CHECK_EQ(reeve_close(*(int *)arg), 0);
    return NULL;
}

static int foreign_thread(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    struct reading r = { .fd = p.fd };
    reeve_task *t;
    pthread_t thread;
    CHECK_EQ(reeve_spawn(&t, read_some, &r), 0);
    await_waiter(p.fd, A_READER);
    CHECK_EQ(pthread_create(&thread, NULL, close_from_outside, &p.fd), 0);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(r.result, -ECANCELED);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    await_closed(p.fd);
    p.fd = -1;
    pair_close(&p);
    return 0;
}

TEST(any_thread_may_close)
{
    RUN(foreign_thread, .workers = 1);
}

/* ---- descriptors from elsewhere -------------------------------------------------------------- */

static int foreign_fd(void *arg)
{
    (void)arg;
    int fd = eventfd(0, EFD_CLOEXEC);
    struct reading r = { .fd = fd };
    reeve_task *t;
    CHECK_EQ(reeve_spawn(&t, read_some, &r), 0);
    await_waiter(fd, AN_OP);
    CHECK_EQ(reeve_close(fd), 0);
    CHECK_EQ(reeve_close(fd), -EBADF);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(r.result, -ECANCELED);
    CHECK(!is_open(fd));
    fd = eventfd(0, EFD_CLOEXEC);
    CHECK_EQ(reeve_close(fd), 0);
    CHECK(!is_open(fd));
    return 0;
}

TEST(a_descriptor_from_elsewhere_can_be_closed_here)
{
    RUN(foreign_fd, .workers = 1);
}

/* The slot that a foreign close(2) leaves behind does not stand in the way of the next owner. */
static int abandoned(void *arg)
{
    (void)arg;
    int listener = (int)CHECK_OK(reeve_listen("127.0.0.1:0", 0));
    int ends[2];
    char buf[8];
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    struct reading r = { .fd = ends[0] };
    reeve_task *t;
    CHECK_EQ(reeve_spawn(&t, read_some, &r), 0);
    await_waiter(ends[0], AN_OP);
    CHECK_EQ(reeve_sleep(reeve_in(REEVE_MS)), 0); /* a sleep submits what is queued */
    int peer = peer_connect(listener);
    close(ends[0]);
    int fd = (int)CHECK_OK(reeve_accept(listener, LONG));
    CHECK_EQ(fd, ends[0]);
    peer_send(peer, "mine", 4);
    CHECK_EQ(reeve_read(fd, buf, sizeof buf, LONG), 4);
    CHECK_MEM_EQ(buf, "mine", 4);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(r.result, -ECANCELED);
    CHECK_EQ(reeve_close(fd), 0);
    CHECK_EQ(reeve_close(listener), 0);
    close(ends[1]);
    close(peer);
    return 0;
}

TEST(an_op_on_a_number_that_changed_hands_disturbs_nobody)
{
    RUN(abandoned, .workers = 1);
}

#ifdef RV_DEBUG
static const bool debug = true;
#else
static const bool debug;
#endif

static int closed_behind_our_back(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    char c;
    CHECK_EQ(reeve_read(p.fd, &c, 1, REEVE_POLL), -ETIMEDOUT);
    close(p.fd);
    return (int)reeve_read(p.fd, &c, 1, LONG);
}

TEST(debug_builds_notice_a_close_behind_our_back)
{
    uring_or_skip();
    if (!debug)
        SKIP("not a debug build");
    CHECK_DIES("close it with reeve_close", reeve_run(closed_behind_our_back, NULL, .workers = 1));
}

TEST(closing_needs_no_runtime)
{
    int ends[2];
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    CHECK_EQ(reeve_close(ends[0]), 0);
    CHECK_EQ(reeve_close(ends[0]), -EBADF);
    CHECK_EQ(reeve_close(ends[1]), 0);
    int fd = (int)CHECK_OK(reeve_listen("127.0.0.1:0", 0));
    CHECK_EQ(reeve_close(fd), 0);
    CHECK(!is_open(fd));
}

/* ---- runtimes come and go -------------------------------------------------------------------- */

static int left_open;

static int leave_open(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    char c;
    CHECK_EQ(reeve_read(p.fd, &c, 1, REEVE_POLL), -ETIMEDOUT);
    CHECK_EQ(reeve_close(p.listener), 0);
    left_open = p.fd;
    return p.peer;
}

static int go_on(void *arg)
{
    char buf[8];
    CHECK_EQ(reeve_read(left_open, buf, sizeof buf, LONG), 5);
    CHECK_EQ(reeve_write(left_open, "again", 5, LONG), 5);
    CHECK_EQ(recv(*(int *)arg, buf, sizeof buf, 0), 5);
    return 0;
}

TEST(a_connection_outlives_its_runtime_and_goes_on_in_the_next)
{
    uring_or_skip();
    int peer = (int)CHECK_OK(reeve_run(leave_open, NULL, .workers = 2));
    CHECK(is_open(left_open));
    peer_send(peer, "hello", 5);
    CHECK_EQ(reeve_run(go_on, &peer, .workers = 1), 0);
    CHECK_EQ(reeve_close(left_open), 0);
    CHECK(!is_open(left_open));
    close(peer);
}
