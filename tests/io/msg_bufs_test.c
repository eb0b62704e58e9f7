/* SPDX-License-Identifier: MIT */
/*
 * msg_bufs_test.c -- several leases at once: all that is there, in order, and each goes home once.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <reeve/socket.h>

#include "tests/io/pair.h"

#define SOON reeve_in(2 * REEVE_MS)
enum { TOGETHER = 8 };

static void return_all(struct reeve_buf **bufs, size_t n)
{
    for (size_t i = 0; i < n; i++)
        reeve_buf_return(bufs[i]);
}

/* Lets data come in until at least two buffers of it are unread. */
static void await_two(int fd)
{
    struct rv_fd *f = rv_fd_slot(fd);
    uint32_t unread = 0;
    while (unread < 2) {
        CHECK_EQ(reeve_sleep(0), 0);
        uint64_t word = rv_fd_lock(f);
        unread = f->unread_bufs;
        rv_fd_unlock(f, word);
    }
}

static int in_order(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    static unsigned char data[300000];
    struct reeve_buf *bufs[TOGETHER];
    size_t at = 0, n = 0;
    fill_pattern(data, sizeof data, 0);
    peer_send(p.peer, data, sizeof data);
    while (at < sizeof data) {
        size_t max = 1 + at % TOGETHER, sum = 0;
        ssize_t len = reeve_buf_recvv(p.fd, bufs, max, &n, LONG);
        CHECK_GT(len, 0);
        CHECK(n >= 1 && n <= max);
        for (size_t i = 0; i < n; i++) {
            check_pattern(bufs[i]->data, bufs[i]->len, at + sum);
            sum += bufs[i]->len;
        }
        CHECK_EQ(sum, len);
        at += sum;
        return_all(bufs, n);
    }
    n = 4711;
    CHECK_EQ(reeve_buf_recvv(p.fd, bufs, TOGETHER, &n, SOON), -ETIMEDOUT);
    peer_send(p.peer, "end", 3);
    close(p.peer);
    p.peer = -1;
    CHECK_EQ(reeve_buf_recvv(p.fd, bufs, TOGETHER, &n, LONG), 3); /* and not the end as well */
    return_all(bufs, n);
    CHECK_EQ(reeve_buf_recvv(p.fd, bufs, TOGETHER, &n, LONG), 0);
    CHECK_EQ(reeve_buf_recvv(p.fd, bufs, 0, &n, LONG), -EINVAL);
    pair_close(&p);
    CHECK_EQ(reeve_buf_recvv(-1, bufs, 1, &n, LONG), -EBADF);
    return 0;
}

TEST(all_that_is_there_comes_in_order_and_no_more_than_asked_for)
{
    RUN_BOTH(in_order);
}

static int two_at_once(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    static unsigned char data[100000];
    struct reeve_buf *bufs[TOGETHER];
    size_t n = 0;
    peer_send(p.peer, data, sizeof data);
    CHECK_GT(reeve_buf_recvv(p.fd, bufs, 1, &n, LONG), 0);
    CHECK_EQ(n, 1);
    return_all(bufs, n);
    await_two(p.fd);
    CHECK_GT(reeve_buf_recvv(p.fd, bufs, 2, &n, LONG), 0);
    CHECK_EQ(n, 2);
    return_all(bufs, n);
    pair_close(&p);
    return 0;
}

TEST(several_that_are_there_come_in_one_call)
{
    RUN_BOTH(two_at_once);
}

static int echo_back(void *arg)
{
    int fd = *(int *)arg;
    struct reeve_buf *bufs[TOGETHER];
    size_t n;
    ssize_t len;
    while ((len = reeve_buf_recvv(fd, bufs, TOGETHER, &n, LONG)) > 0)
        CHECK_EQ(reeve_buf_sendv(fd, bufs, n, LONG), len);
    return (int)len;
}

static int echoed(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    static unsigned char data[65536], back[65536];
    reeve_task *t;
    int result = 1;
    CHECK_OK(reeve_spawn(&t, echo_back, &p.fd));
    fill_pattern(data, sizeof data, 0);
    for (int round = 0; round < 100; round++) {
        peer_send(p.peer, data, sizeof data);
        for (size_t at = 0; at < sizeof back;) {
            ssize_t n = recv(p.peer, back + at, sizeof back - at, MSG_DONTWAIT);
            CHECK(n > 0 || errno == EAGAIN);
            at += n > 0 ? (size_t)n : 0;
            CHECK_EQ(reeve_sleep(0), 0);
        }
        check_pattern(back, sizeof back, 0);
    }
    CHECK_EQ(shutdown(p.peer, SHUT_WR), 0);
    CHECK_EQ(reeve_join(t, &result, LONG), 0);
    CHECK_EQ(result, 0);
    pair_close(&p);
    return 0;
}

TEST(large_messages_are_echoed_unharmed)
{
    RUN_BOTH(echoed);
}

/* With only so many leases to borrow, each that is not given back is missed. */
static int taken(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    struct reeve_buf *bufs[REEVE_BUFS_MAX + 1];
    struct { int fd; size_t n; ssize_t expected; } tries[] = {
        { p.fd, 3, 9 }, { -1, 3, -EBADF }, { 900, 3, -EBADF },
        { p.fd, REEVE_BUFS_MAX + 1, -EINVAL }, { p.fd, REEVE_BUFS_MAX, 3 * REEVE_BUFS_MAX },
        { p.fd, 0, 0 },
    };
    for (int round = 0; round < 3; round++)
        for (size_t k = 0; k < sizeof tries / sizeof *tries; k++) {
            for (size_t i = 0; i < tries[k].n; i++) {
                CHECK_EQ(reeve_buf_borrow(&bufs[i], LONG), 0);
                memcpy(bufs[i]->data, "abc", 3);
                bufs[i]->len = 3;
            }
            CHECK_EQ(reeve_buf_sendv(tries[k].fd, bufs, tries[k].n, LONG), tries[k].expected);
        }
    pair_close(&p);
    return 0;
}

TEST(leases_that_are_sent_go_home_whatever_comes_of_it)
{
    RUN(taken, .workers = 1, .bufs = 128);
}

static int misused(void *arg)
{
    struct pair p = pair_make();
    struct reeve_buf *b[2];
    CHECK_EQ(reeve_buf_borrow(&b[0], LONG), 0);
    b[1] = b[0];
    if (arg)
        b[0]->len = b[0]->cap + 1;
    return (int)reeve_buf_sendv(p.fd, b, arg ? 1 : 2, LONG);
}

TEST(a_lease_sent_twice_or_past_its_end_ends_the_process)
{
    uring_or_skip();
    CHECK_DIES("outside its buffer", reeve_run(misused, "", .workers = 1));
    CHECK_DIES("reeve_buf_sendv", reeve_run(misused, NULL, .workers = 1));
}

static int foreign(void *arg)
{
    (void)arg;
    int fds[2];
    struct reeve_buf *bufs[2];
    size_t n = 0;
    CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
    CHECK_EQ(reeve_write(fds[1], "pipe", 4, LONG), 4);
    CHECK_EQ(reeve_buf_recvv(fds[0], bufs, 2, &n, LONG), 4);
    CHECK_EQ(n, 1);
    CHECK_EQ(reeve_buf_sendv(fds[1], bufs, 1, LONG), 4);
    CHECK_EQ(reeve_buf_recvv(fds[0], bufs, 2, &n, LONG), 4);
    CHECK_MEM_EQ(bufs[0]->data, "pipe", 4);
    return_all(bufs, n);
    close(fds[0]);
    close(fds[1]);
    return 0;
}

TEST(what_is_no_stream_of_ours_comes_one_at_a_time)
{
    RUN(foreign, .workers = 1);
}

static int receive(void *arg)
{
    struct reeve_buf *bufs[2];
    size_t n;
    return (int)reeve_buf_recvv(*(int *)arg, bufs, 2, &n, LONG);
}

static int ended_early(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    int result = 0;
    reeve_task *t;
    CHECK_OK(reeve_spawn(&t, receive, &p.fd));
    await_waiter(p.fd, A_READER);
    reeve_cancel(t);
    CHECK_EQ(reeve_join(t, &result, LONG), 0);
    CHECK_EQ(result, -ECANCELED);
    CHECK_OK(reeve_spawn(&t, receive, &p.fd));
    await_waiter(p.fd, A_READER);
    CHECK_EQ(reeve_close(p.fd), 0);
    CHECK_EQ(reeve_join(t, &result, LONG), 0);
    CHECK_EQ(result, -ECANCELED);
    await_closed(p.fd);
    p.fd = -1;
    pair_close(&p);
    return 0;
}

TEST(a_wait_for_leases_ends_with_its_task_and_its_fd)
{
    RUN_BOTH(ended_early);
}
