/* SPDX-License-Identifier: MIT */
/*
 * wait_fd_test.c -- readiness of descriptors that somebody else reads and writes.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <poll.h>
#include <reeve/fd.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "tests/io/pair.h"

#define SOON reeve_in(2 * REEVE_MS)

struct waiting_task {
    int fd;
    short events;
    int result;
    reeve_time until;
};

static int wait_in_task(void *arg)
{
    struct waiting_task *w = arg;
    w->result = reeve_wait_fd(w->fd, w->events, w->until);
    return 0;
}

/* ---- what is ready --------------------------------------------------------------------------- */

static int readiness(void *arg)
{
    (void)arg;
    int ends[2];
    char c;
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    CHECK_EQ(reeve_wait_fd(ends[0], POLLIN | POLLOUT, LONG), POLLOUT);
    struct waiting_task w = { ends[0], POLLIN, 0, LONG };
    reeve_task *t;
    CHECK_EQ(reeve_spawn(&t, wait_in_task, &w), 0);
    await_waiter(ends[0], AN_OP);
    CHECK_EQ(write(ends[1], "x", 1), 1);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(w.result, POLLIN);
    CHECK_EQ(reeve_wait_fd(ends[0], POLLIN, LONG), POLLIN); /* until somebody reads */
    CHECK_EQ(read(ends[0], &c, 1), 1);
    close(ends[1]);
    int r = reeve_wait_fd(ends[0], POLLIN | POLLRDHUP, LONG);
    CHECK_EQ(r & (POLLIN | POLLRDHUP | POLLHUP), POLLIN | POLLRDHUP | POLLHUP);
    CHECK_EQ(reeve_wait_fd(ends[0], 0, LONG) & POLLHUP, POLLHUP); /* told without being asked */
    close(ends[0]);
    return 0;
}

TEST(it_says_what_is_ready_as_poll_does)
{
    RUN(readiness, .workers = 1);
    RUN(readiness, .workers = 2);
}

static int kinds(void *arg)
{
    (void)arg;
    int ends[2], file = memfd_create("wait_fd_test", MFD_CLOEXEC), event = eventfd(0, EFD_CLOEXEC);
    CHECK_EQ(reeve_wait_fd(file, POLLIN | POLLOUT, REEVE_POLL), POLLIN | POLLOUT);
    CHECK_EQ(reeve_wait_fd(event, POLLIN, REEVE_POLL), -ETIMEDOUT);
    int set = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event want = { .events = EPOLLIN };
    CHECK_EQ(epoll_ctl(set, EPOLL_CTL_ADD, event, &want), 0);
    CHECK_EQ(eventfd_write(event, 1), 0);
    CHECK_EQ(reeve_wait_fd(event, POLLIN, LONG), POLLIN);
    CHECK_EQ(reeve_wait_fd(set, POLLIN, LONG), POLLIN); /* another loop's */
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    CHECK_EQ(reeve_wait_fd(ends[1], POLLOUT, LONG), POLLOUT);
    close(ends[0]);
    CHECK_EQ(reeve_wait_fd(ends[1], POLLOUT, LONG) & POLLERR, POLLERR);
    close(ends[1]);
    close(event);
    close(set);
    close(file);
    return 0;
}

TEST(every_kind_of_descriptor_can_be_waited_for)
{
    RUN(kinds, .workers = 1);
}

static int wrong(void *arg)
{
    (void)arg;
    int ends[2];
    CHECK_EQ(reeve_wait_fd(-1, POLLIN, LONG), -EBADF);
    CHECK_EQ(reeve_wait_fd(1 << 19, POLLIN, LONG), -EBADF);
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    CHECK_EQ(reeve_wait_fd(ends[0], (short)0x4000, LONG), -EINVAL);
    close(ends[0]);
    CHECK_EQ(reeve_wait_fd(ends[0], POLLIN, LONG), -EBADF);
    close(ends[1]);
    return 0;
}

TEST(what_is_no_descriptor_or_no_event_is_refused)
{
    RUN(wrong, .workers = 1);
    CHECK_DIES("reeve_wait_fd", reeve_wait_fd(0, POLLIN, 0));
}

/* ---- streams of reeve's ---------------------------------------------------------------------- */

static int streams(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    char c;
    CHECK_EQ(reeve_wait_fd(p.fd, POLLIN, REEVE_POLL), -ETIMEDOUT); /* nobody has read from it yet */
    peer_send(p.peer, "ab", 2);
    CHECK_EQ(reeve_wait_fd(p.fd, POLLIN, LONG), POLLIN);
    CHECK_EQ(reeve_read(p.fd, &c, 1, LONG), 1);
    CHECK_EQ(reeve_wait_fd(p.fd, POLLIN, LONG), -EBUSY);
    CHECK_EQ(reeve_wait_fd(p.fd, POLLIN | POLLOUT, LONG), -EBUSY);
    CHECK_EQ(reeve_wait_fd(p.fd, POLLOUT, LONG), POLLOUT);
    CHECK_EQ(reeve_read(p.fd, &c, 1, LONG), 1);
    close(p.peer);
    p.peer = -1;
    CHECK_EQ(reeve_read(p.fd, &c, 1, LONG), 0);
    CHECK_EQ(reeve_wait_fd(p.fd, POLLIN, LONG), -EBUSY);
    pair_close(&p);
    return 0;
}

TEST(a_stream_that_reeve_receives_from_is_busy)
{
    RUN(streams, .workers = 1);
    RUN(streams, .workers = 2);
}

/* ---- the end of a wait ----------------------------------------------------------------------- */

static int ends_of_waits(void *arg)
{
    (void)arg;
    int fd = eventfd(0, EFD_CLOEXEC);
    struct waiting_task w = { fd, POLLIN, 0, LONG };
    reeve_task *t;
    CHECK_EQ(reeve_wait_fd(fd, POLLIN, SOON), -ETIMEDOUT);
    CHECK_EQ(reeve_spawn(&t, wait_in_task, &w), 0);
    await_waiter(fd, AN_OP);
    reeve_cancel(t);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(w.result, -ECANCELED);
    CHECK_EQ(reeve_spawn(&t, wait_in_task, &w), 0);
    await_waiter(fd, AN_OP);
    CHECK_EQ(reeve_close(fd), 0);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(w.result, -ECANCELED);
    await_closed(fd);
    return 0;
}

TEST(a_wait_ends_by_deadline_cancellation_and_close)
{
    RUN(ends_of_waits, .workers = 1);
    RUN(ends_of_waits, .workers = 2);
}

enum { WAITERS = 20, ROUNDS = 200 };

static int several(void *arg)
{
    (void)arg;
    int fd = eventfd(0, EFD_CLOEXEC);
    struct waiting_task w[WAITERS];
    struct reeve_group g = { 0 };
    for (int i = 0; i < WAITERS; i++) {
        w[i] = (struct waiting_task){ fd, POLLIN, 0, LONG };
        CHECK_EQ(reeve_spawn(NULL, wait_in_task, &w[i], .group = &g), 0);
    }
    await_waiter(fd, AN_OP);
    CHECK_EQ(eventfd_write(fd, 1), 0);
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    for (int i = 0; i < WAITERS; i++)
        CHECK_EQ(w[i].result, POLLIN);
    CHECK_EQ(reeve_close(fd), 0);
    return 0;
}

TEST(several_tasks_may_wait_for_one_descriptor)
{
    RUN(several, .workers = 1);
    RUN(several, .workers = 2);
}

/* The close, the event and the wait come in whatever order they like. */
static int raced(void *arg)
{
    (void)arg;
    for (int i = 0; i < ROUNDS; i++) {
        int ends[2];
        CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
        struct waiting_task w = { ends[0], POLLIN, 0, LONG };
        reeve_task *t;
        CHECK_EQ(reeve_spawn(&t, wait_in_task, &w), 0);
        if (i % 3)
            reeve_sleep(0);
        if (i % 2)
            CHECK_EQ(write(ends[1], "x", 1), 1);
        CHECK_EQ(reeve_close(ends[0]), 0);
        CHECK_EQ(reeve_join(t, NULL, LONG), 0);
        CHECK(w.result == -ECANCELED || w.result == -EBADF || (w.result == POLLIN && i % 2));
        await_closed(ends[0]);
        close(ends[1]);
    }
    return 0;
}

TEST(a_close_that_races_a_wait_frees_the_number_once)
{
    RUN(raced, .workers = 1);
    RUN(raced, .workers = 2);
}
