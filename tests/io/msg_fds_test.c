/* SPDX-License-Identifier: MIT */
/*
 * msg_fds_test.c -- descriptors that travel: each arrives, or is closed, and none leaks.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <dirent.h>
#include <reeve/socket.h>
#include <sys/resource.h>

#include "tests/io/pair.h"

#define SOON reeve_in(2 * REEVE_MS)

static int open_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;
    CHECK(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static void talk_through(int in, int out)
{
    char byte = 0;
    CHECK_EQ(write(in, "!", 1), 1);
    CHECK_EQ(read(out, &byte, 1), 1);
    CHECK_EQ(byte, '!');
}

static void pass(int from, int to)
{
    int ends[2], got[3] = { -1, -1, 4711 };
    size_t n = 0;
    char text[8];
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    CHECK_EQ(reeve_fd_send(from, ends, 2, "pipe", 4, LONG), 4);
    close(ends[0]);
    close(ends[1]);
    CHECK_EQ(reeve_fd_recv(to, got, 3, &n, text, sizeof text, LONG), 4);
    CHECK_EQ(n, 2);
    CHECK_EQ(got[2], 4711);
    CHECK_MEM_EQ(text, "pipe", 4);
    CHECK_EQ(fcntl(got[0], F_GETFD) & fcntl(got[1], F_GETFD), FD_CLOEXEC);
    talk_through(got[1], got[0]);
    close(got[0]);
    close(got[1]);
}

static int every_kind(void *arg)
{
    (void)arg;
    static const int types[] = { SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET };
    int before = open_fds(), fds[2];
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(reeve_socket_pair(types[i], fds), 0);
        pass(fds[0], fds[1]);
        pass(fds[1], fds[0]);
        CHECK_EQ(reeve_close(fds[0]), 0);
        CHECK_EQ(reeve_close(fds[1]), 0);
        await_closed(fds[1]);
    }
    CHECK_EQ(open_fds(), before);
    return 0;
}

TEST(descriptors_arrive_over_every_kind_of_unix_socket)
{
    RUN_BOTH(every_kind);
}

/* ---- a receiver that waits ------------------------------------------------------------------- */

struct receiver {
    int fd, got;
    size_t n;
    ssize_t len;
};

static int receive(void *arg)
{
    struct receiver *r = arg;
    char byte;
    r->len = reeve_fd_recv(r->fd, &r->got, 1, &r->n, &byte, 1, LONG);
    return 0;
}

static int waited_for(void *arg)
{
    (void)arg;
    int fds[2], ends[2];
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    CHECK_EQ(reeve_socket_pair(SOCK_STREAM, fds), 0);
    struct receiver r = { fds[1], -1, 0, 0 };
    reeve_task *t;
    CHECK_EQ(reeve_fd_recv(fds[1], &r.got, 1, &r.n, &r, 1, SOON), -ETIMEDOUT);
    CHECK_OK(reeve_spawn(&t, receive, &r));
    await_waiter(fds[1], AN_OP);
    CHECK_EQ(reeve_fd_send(fds[0], &ends[1], 1, "x", 1, LONG), 1);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(r.len, 1);
    CHECK_EQ(r.n, 1);
    talk_through(r.got, ends[0]);
    close(r.got);

    CHECK_OK(reeve_spawn(&t, receive, &r));
    await_waiter(fds[1], AN_OP);
    reeve_cancel(t);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(r.len, -ECANCELED);
    CHECK_EQ(reeve_fd_send(fds[0], &ends[1], 1, "x", 1, LONG), 1);
    CHECK_EQ(reeve_close(fds[0]), 0);
    int got;
    CHECK_EQ(reeve_fd_recv(fds[1], &got, 1, &r.n, &r, 1, LONG), 1); /* nothing was taken along */
    close(got);
    r.n = 4711;
    CHECK_EQ(reeve_fd_recv(fds[1], &got, 1, &r.n, &r.fd, 1, LONG), 0);
    CHECK_EQ(r.n, 0);
    CHECK_EQ(reeve_close(fds[1]), 0);
    close(ends[0]);
    close(ends[1]);
    return 0;
}

TEST(a_receiver_that_waits_gets_them_or_leaves_them_there)
{
    RUN_BOTH(waited_for);
}

/* ---- what does not fit ----------------------------------------------------------------------- */

static int too_many(void *arg)
{
    (void)arg;
    int fds[2], many[REEVE_FDS_MAX + 1], got[REEVE_FDS_MAX], before = open_fds();
    size_t n = 4711;
    char byte[2];
    CHECK_EQ(reeve_socket_pair(SOCK_SEQPACKET, fds), 0);
    for (int i = 0; i <= REEVE_FDS_MAX; i++)
        many[i] = fds[0];
    CHECK_EQ(reeve_fd_send(fds[0], many, REEVE_FDS_MAX + 1, "x", 1, LONG), -EINVAL);
    CHECK_EQ(reeve_fd_send(fds[0], many, 0, "x", 1, LONG), -EINVAL);
    CHECK_EQ(reeve_fd_send(fds[0], many, 1, "x", 0, LONG), -EINVAL);
    got[0] = 4711;
    for (size_t max = 0; max < 5; max++) { /* odd and even: control data is padded */
        CHECK_EQ(reeve_fd_send(fds[0], many, max + 1, "x", 1, LONG), 1);
        CHECK_EQ(reeve_fd_recv(fds[1], got, max, &n, byte, 1, LONG), -EMSGSIZE);
        CHECK_EQ(n, 4711);
        CHECK_EQ(got[0], 4711);
        CHECK_EQ(open_fds(), before + 2);
    }
    CHECK_EQ(reeve_fd_send(fds[0], many, 2, "xyz", 3, LONG), 3);
    CHECK_EQ(reeve_fd_recv(fds[1], got, 2, &n, byte, 2, LONG), -EMSGSIZE);
    CHECK_EQ(open_fds(), before + 2);
    CHECK_EQ(reeve_fd_send(fds[0], many, REEVE_FDS_MAX, "x", 1, LONG), 1);
    CHECK_EQ(reeve_fd_recv(fds[1], got, REEVE_FDS_MAX, &n, byte, 1, LONG), 1);
    CHECK_EQ(n, REEVE_FDS_MAX);
    for (size_t i = 0; i < n; i++)
        close(got[i]);
    CHECK_EQ(reeve_close(fds[0]), 0);
    CHECK_EQ(reeve_close(fds[1]), 0);
    await_closed(fds[0]);
    CHECK_EQ(open_fds(), before);
    return 0;
}

TEST(descriptors_that_do_not_fit_are_closed_and_said_to_have_come)
{
    RUN_BOTH(too_many);
}

static int no_numbers_left(void *arg)
{
    (void)arg;
    int fds[2], five[5], got[5], before = open_fds();
    size_t n = 4711;
    char byte;
    CHECK_EQ(reeve_socket_pair(SOCK_SEQPACKET, fds), 0);
    for (int i = 0; i < 5; i++)
        five[i] = fds[0];
    CHECK_EQ(reeve_fd_send(fds[0], five, 5, "x", 1, LONG), 1);
    struct rlimit old, few;
    int next = dup(0);
    close(next);
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
    few = (struct rlimit){ (rlim_t)next + 2, old.rlim_max };
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
    CHECK_EQ(reeve_fd_recv(fds[1], got, 5, &n, &byte, 1, LONG), -EMFILE);
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
    CHECK_EQ(n, 4711);
    CHECK_EQ(open_fds(), before + 2);
    CHECK_EQ(reeve_close(fds[0]), 0);
    CHECK_EQ(reeve_close(fds[1]), 0);
    return 0;
}

TEST(descriptors_for_which_no_number_is_left_are_all_closed)
{
    RUN(no_numbers_left, .workers = 1);
}

static int wrong(void *arg)
{
    (void)arg;
    int fds[2], bad[2] = { 0, 900 }, none = -1, got;
    size_t n;
    char byte;
    CHECK_EQ(reeve_socket_pair(SOCK_SEQPACKET, fds), 0);
    CHECK_EQ(reeve_fd_send(fds[0], bad, 2, "x", 1, LONG), -EBADF);
    CHECK_EQ(reeve_fd_send(fds[0], &none, 1, "x", 1, LONG), -EBADF);
    CHECK_EQ(reeve_fd_send(-1, bad, 1, "x", 1, LONG), -EBADF);
    CHECK_EQ(reeve_fd_recv(-1, &got, 1, &n, &byte, 1, LONG), -EBADF);
    CHECK_EQ(reeve_fd_recv(0, &got, 1, &n, &byte, 1, LONG), -ENOTSOCK);
    int udp = (int)CHECK_OK(reeve_bind("udp:127.0.0.1:0"));
    struct sockaddr_in at = address_of(udp);
    CHECK_EQ(connect(udp, (struct sockaddr *)&at, sizeof at), 0);
    CHECK_EQ(reeve_fd_send(udp, bad, 1, "x", 1, LONG), -EOPNOTSUPP);
    CHECK_EQ(reeve_close(udp), 0);
    CHECK_EQ(reeve_close(fds[1]), 0);
    CHECK_EQ(reeve_fd_send(fds[0], bad, 1, "x", 1, LONG), -EPIPE);
    CHECK_EQ(reeve_close(fds[0]), 0);
    return 0;
}

TEST(what_cannot_be_passed_says_why)
{
    int null = open("/dev/null", O_RDWR);
    CHECK_EQ(dup2(null, 0), 0);
    RUN(wrong, .workers = 1);
}

/* ---- streams of reeve's ---------------------------------------------------------------------- */

/* Sends p->fd over a pair and closes it here: the copy that arrived. */
static int hand_over(struct pair *p)
{
    int fds[2], got = -1;
    size_t n = 0;
    char byte;
    CHECK_EQ(reeve_socket_pair(SOCK_SEQPACKET, fds), 0);
    CHECK_EQ(reeve_fd_send(fds[0], &p->fd, 1, "x", 1, LONG), 1);
    CHECK_EQ(reeve_close(p->fd), 0);
    await_closed(p->fd);
    p->fd = -1;
    CHECK_EQ(reeve_fd_recv(fds[1], &got, 1, &n, &byte, 1, LONG), 1);
    CHECK_EQ(n, 1);
    CHECK_EQ(reeve_close(fds[0]), 0);
    CHECK_EQ(reeve_close(fds[1]), 0);
    return got;
}

static int stream_passed(void *arg)
{
    (void)arg;
    for (int read_before = 0; read_before < 2; read_before++) {
        struct pair p = pair_make();
        char buf[8];
        if (read_before) { /* so it is received from ahead */
            peer_send(p.peer, "ours", 4);
            CHECK_EQ(reeve_read(p.fd, buf, sizeof buf, LONG), 4);
        }
        int got = hand_over(&p);
        peer_send(p.peer, "theirs", 6);
        CHECK_EQ(recv(got, buf, sizeof buf, 0), 6);
        CHECK_MEM_EQ(buf, "theirs", 6);
        CHECK_EQ(send(got, "yes", 3, MSG_NOSIGNAL), 3); /* our close did not shut it down */
        CHECK_EQ(recv(p.peer, buf, sizeof buf, 0), 3);
        close(got);
        pair_close(&p);
    }
    return 0;
}

TEST(a_stream_that_is_passed_takes_nothing_from_who_gets_it)
{
    RUN_BOTH(stream_passed);
}

static int read_some(void *arg)
{
    char buf[8];
    return (int)reeve_read(*(int *)arg, buf, sizeof buf, LONG);
}

static int stream_in_use(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    char buf[8];
    int fds[2], both[2] = { 0, p.fd }, result = 0;
    reeve_task *t;
    CHECK_EQ(reeve_socket_pair(SOCK_SEQPACKET, fds), 0);
    CHECK_OK(reeve_spawn(&t, read_some, &p.fd));
    await_waiter(p.fd, A_READER);
    CHECK_EQ(reeve_fd_send(fds[0], both, 2, "x", 1, LONG), -EBUSY);
    peer_send(p.peer, "unread", 6);
    CHECK_EQ(reeve_join(t, &result, LONG), 0);
    CHECK_EQ(result, 6);
    peer_send(p.peer, "unread", 6);
    CHECK_EQ(reeve_read(p.fd, buf, 2, LONG), 2);
    CHECK_EQ(reeve_fd_send(fds[0], both, 2, "x", 1, LONG), -EBUSY);
    CHECK_EQ(reeve_read(p.fd, buf, sizeof buf, LONG), 4);
    CHECK_EQ(reeve_recvfrom(fds[1], buf, 1, NULL, NULL, REEVE_POLL), -ETIMEDOUT); /* none came */
    int got = hand_over(&p);
    close(got);
    CHECK_EQ(reeve_close(fds[0]), 0);
    CHECK_EQ(reeve_close(fds[1]), 0);
    pair_close(&p);
    return 0;
}

TEST(a_stream_with_a_reader_or_with_unread_data_is_not_passed)
{
    RUN_BOTH(stream_in_use);
}

static int adopted(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    char buf[8];
    int got = hand_over(&p);
    CHECK_EQ(reeve_adopt(got), 0);
    peer_send(p.peer, "adopted", 7);
    read_exactly(got, buf, 7);
    CHECK_EQ(reeve_close(got), 0);
    CHECK_EQ(recv(p.peer, buf, sizeof buf, 0), 0);
    pair_close(&p);
    return 0;
}

TEST(a_stream_that_arrived_can_be_adopted)
{
    RUN_BOTH(adopted);
}

/* A carrier that was read ahead would have lost its descriptors: that is said, not hidden. */
static int carrier_read(void *arg)
{
    (void)arg;
    int fds[2], got = -1, before;
    size_t n = 0;
    char buf[8];
    CHECK_EQ(reeve_socket_pair(SOCK_STREAM, fds), 0);
    CHECK_EQ(reeve_write(fds[0], "text", 4, LONG), 4);
    CHECK_EQ(reeve_read(fds[1], buf, 2, LONG), 2);
    CHECK_EQ(reeve_fd_recv(fds[1], &got, 1, &n, buf, 8, LONG), -EBUSY);
    CHECK_EQ(reeve_read(fds[1], buf, 8, LONG), 2);
    CHECK_EQ(reeve_fd_recv(fds[1], &got, 1, &n, buf, 8, SOON), -ETIMEDOUT);
    CHECK_EQ(reeve_fd_send(fds[0], &fds[0], 1, "x", 1, LONG), 1);
    CHECK_EQ(reeve_fd_recv(fds[1], &got, 1, &n, buf, 8, LONG), 1);
    CHECK_EQ(n, 1);
    close(got);
    before = open_fds();
    CHECK_EQ(reeve_fd_send(fds[0], &fds[0], 1, "y", 1, LONG), 1);
    CHECK_EQ(reeve_read(fds[1], buf, 8, LONG), 1); /* the bytes without them: none leaks */
    CHECK_EQ(open_fds(), before);
    CHECK_EQ(reeve_close(fds[0]), 0);
    CHECK_EQ(reeve_close(fds[1]), 0);
    return 0;
}

TEST(a_carrier_that_is_read_ahead_says_so_and_leaks_nothing)
{
    RUN_BOTH(carrier_read);
}

/* ---- races and company ----------------------------------------------------------------------- */

/* A receive that is cancelled as its message comes either has it, or leaves it. */
static int cancelled_or_not(void *arg)
{
    (void)arg;
    int fds[2], before = open_fds(), kept = 0;
    CHECK_EQ(reeve_socket_pair(SOCK_SEQPACKET, fds), 0);
    for (int round = 0; round < 500; round++) {
        struct receiver r = { fds[1], -1, 0, 0 };
        reeve_task *t;
        CHECK_OK(reeve_spawn(&t, receive, &r));
        if (round % 4)
            await_waiter(fds[1], AN_OP);
        CHECK_EQ(reeve_fd_send(fds[0], fds, 1, "x", 1, LONG), 1);
        reeve_cancel(t);
        CHECK_EQ(reeve_join(t, NULL, LONG), 0);
        if (r.len == -ECANCELED || r.len == 0) { /* 0: it never ran */
            kept++;
            CHECK_EQ(receive(&r), 0);
        }
        CHECK_EQ(r.len, 1);
        CHECK_EQ(r.n, 1);
        close(r.got);
    }
    CHECK_LE(kept, 500);
    CHECK_EQ(reeve_close(fds[0]), 0);
    CHECK_EQ(reeve_close(fds[1]), 0);
    await_closed(fds[1]);
    CHECK_EQ(open_fds(), before);
    return 0;
}

TEST(a_receive_that_is_cancelled_as_descriptors_come_leaks_none)
{
    RUN_BOTH(cancelled_or_not);
}

static int with_credentials(void *arg)
{
    (void)arg;
    int fds[2], many[REEVE_FDS_MAX], got[REEVE_FDS_MAX], on = 1;
    size_t n = 0;
    char byte;
    CHECK_EQ(reeve_socket_pair(SOCK_STREAM, fds), 0);
    CHECK_EQ(setsockopt(fds[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on), 0);
    for (int i = 0; i < REEVE_FDS_MAX; i++)
        many[i] = fds[0];
    CHECK_EQ(reeve_fd_send(fds[0], many, REEVE_FDS_MAX, "x", 1, LONG), 1);
    CHECK_EQ(reeve_fd_recv(fds[1], got, REEVE_FDS_MAX, &n, &byte, 1, LONG), 1);
    CHECK_EQ(n, REEVE_FDS_MAX);
    for (size_t i = 0; i < n; i++)
        close(got[i]);
    CHECK_EQ(reeve_close(fds[0]), 0);
    CHECK_EQ(reeve_close(fds[1]), 0);
    return 0;
}

#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76
#endif

/* A socket may be told to receive a pidfd of the sender with each message. */
static int with_pidfd(void *arg)
{
    (void)arg;
    int fds[2], got[REEVE_FDS_MAX], many[REEVE_FDS_MAX], on = 1;
    size_t n = 0;
    char byte;
    CHECK_EQ(reeve_socket_pair(SOCK_SEQPACKET, fds), 0);
    if (setsockopt(fds[1], SOL_SOCKET, SO_PASSPIDFD, &on, sizeof on) < 0)
        SKIP("this kernel sends no pidfds");
    CHECK_EQ(setsockopt(fds[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on), 0);
    for (int i = 0; i < REEVE_FDS_MAX; i++)
        many[i] = fds[0];
    int before = open_fds();
    for (size_t some = 1; some <= REEVE_FDS_MAX; some += REEVE_FDS_MAX - 1) {
        CHECK_EQ(reeve_fd_send(fds[0], many, some, "x", 1, LONG), 1);
        CHECK_EQ(reeve_fd_recv(fds[1], got, REEVE_FDS_MAX, &n, &byte, 1, LONG), 1);
        CHECK_EQ(n, some);
        for (size_t i = 0; i < n; i++)
            close(got[i]);
    }
    CHECK_EQ(open_fds(), before);
    CHECK_EQ(reeve_close(fds[0]), 0);
    CHECK_EQ(reeve_close(fds[1]), 0);
    return 0;
}

TEST(a_pidfd_that_comes_beside_them_does_not_stay_open)
{
    RUN(with_pidfd, .workers = 1);
}

TEST(credentials_beside_them_take_no_room_from_descriptors)
{
    RUN(with_credentials, .workers = 1);
}
