/* SPDX-License-Identifier: MIT */
/*
 * msg_test.c -- datagrams and the general forms: what arrives, what is reported, and what a wait
 * leaves behind when it ends early.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <poll.h>
#include <reeve/socket.h>

#include "tests/io/pair.h"

#define SOON reeve_in(2 * REEVE_MS)

/* A bound socket and its address. */
struct place {
    int fd;
    struct sockaddr_storage at;
    socklen_t len;
};

static struct place place_make(const char *addr)
{
    struct place p = { .len = sizeof p.at };
    p.fd = (int)CHECK_OK(reeve_bind(addr));
    CHECK_EQ(getsockname(p.fd, (struct sockaddr *)&p.at, &p.len), 0);
    return p;
}

static ssize_t send_to(const struct place *from, const struct place *to, const void *data,
                       size_t len, reeve_time until)
{
    return reeve_sendto(from->fd, data, len, (const struct sockaddr *)&to->at, to->len, until);
}

/* ---- what arrives ---------------------------------------------------------------------------- */

static void talk(const char *addr)
{
    struct place a = place_make(addr), b = place_make(addr);
    struct sockaddr_storage from;
    socklen_t from_len = 0;
    char buf[16];
    CHECK_EQ(fcntl(a.fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    CHECK_EQ(send_to(&a, &b, "one", 3, LONG), 3);
    CHECK_EQ(send_to(&a, &b, "", 0, LONG), 0);
    CHECK_EQ(send_to(&a, &b, "three", 5, LONG), 5);
    CHECK_EQ(reeve_recvfrom(b.fd, buf, sizeof buf, &from, &from_len, LONG), 3);
    CHECK_MEM_EQ(buf, "one", 3);
    CHECK_EQ(from_len, a.len);
    CHECK_MEM_EQ(&from, &a.at, from_len);
    CHECK_EQ(reeve_recvfrom(b.fd, buf, sizeof buf, NULL, NULL, LONG), 0); /* and not the end */
    CHECK_EQ(reeve_recvfrom(b.fd, buf, 5, &from, NULL, LONG), 5);
    CHECK_MEM_EQ(buf, "three", 5);
    CHECK_EQ(reeve_sendto(b.fd, "back", 4, (struct sockaddr *)&from, from_len, LONG), 4);
    CHECK_EQ(reeve_recvfrom(a.fd, buf, sizeof buf, NULL, NULL, LONG), 4);
    CHECK_EQ(reeve_close(a.fd), 0);
    CHECK_EQ(reeve_close(b.fd), 0);
}

static int talk_both(void *arg)
{
    (void)arg;
    talk("udp:127.0.0.1:0");
    talk("unixgram:@");
    return 0;
}

TEST(messages_keep_their_borders_and_tell_their_sender)
{
    RUN_BOTH(talk_both);
}

static int cut_short(void *arg)
{
    (void)arg;
    struct place a = place_make("udp:127.0.0.1:0"), b = place_make("udp:127.0.0.1:0");
    struct sockaddr_storage from = { 0 }, before;
    socklen_t len = 4711;
    char buf[8] = "";
    memset(&from, 0x5a, sizeof from);
    before = from;
    for (int ready = 0; ready < 2; ready++) { /* at once, and after a wait */
        CHECK_EQ(send_to(&a, &b, "0123456789", 10, LONG), 10);
        CHECK_EQ(send_to(&a, &b, "next", 4, LONG), 4);
        CHECK_EQ(reeve_recvfrom(b.fd, buf, 4, &from, &len, LONG), -EMSGSIZE);
        CHECK_MEM_EQ(buf, "0123", 4);
        CHECK_EQ(buf[4], 0);
        CHECK_EQ(len, 4711);
        CHECK_MEM_EQ(&from, &before, sizeof from);
        CHECK_EQ(reeve_recvfrom(b.fd, buf, 4, NULL, NULL, LONG), 4);
        CHECK_MEM_EQ(buf, "next", 4);
    }
    CHECK_EQ(send_to(&a, &b, "x", 1, LONG), 1);
    CHECK_EQ(reeve_recvfrom(b.fd, buf, 0, NULL, NULL, LONG), -EMSGSIZE);
    CHECK_EQ(reeve_close(a.fd), 0);
    CHECK_EQ(reeve_close(b.fd), 0);
    return 0;
}

TEST(a_message_without_room_is_an_error_and_never_silently_short)
{
    RUN_BOTH(cut_short);
}

static int connected(void *arg)
{
    (void)arg;
    struct place a = place_make("udp:127.0.0.1:0"), b = place_make("udp:127.0.0.1:0");
    char buf[8];
    CHECK_EQ(connect(a.fd, (struct sockaddr *)&b.at, b.len), 0);
    CHECK_EQ(reeve_sendto(a.fd, "hi", 2, NULL, 0, LONG), 2);
    CHECK_EQ(reeve_write(a.fd, "you", 3, LONG), 3);
    CHECK_EQ(reeve_recvfrom(b.fd, buf, sizeof buf, NULL, NULL, LONG), 2);
    CHECK_EQ(reeve_read(b.fd, buf, sizeof buf, LONG), 3);
    CHECK_EQ(reeve_close(b.fd), 0);
    await_closed(b.fd);
    CHECK_EQ(reeve_sendto(a.fd, "?", 1, NULL, 0, LONG), 1);
    CHECK_EQ(reeve_recvfrom(a.fd, buf, sizeof buf, NULL, NULL, LONG), -ECONNREFUSED);
    CHECK_EQ(reeve_close(a.fd), 0);
    return 0;
}

TEST(a_connected_socket_needs_no_address_and_hears_that_nobody_is_there)
{
    RUN_BOTH(connected);
}

/* ---- what is refused ------------------------------------------------------------------------- */

static int refused(void *arg)
{
    (void)arg;
    static char big[70000];
    struct place a = place_make("udp:127.0.0.1:0"), u = place_make("unixgram:@");
    struct sockaddr_in6 six = { .sin6_family = AF_INET6, .sin6_port = 1 };
    int ends[2];
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    CHECK_EQ(send_to(&a, &a, big, 65508, LONG), -EMSGSIZE);
    u.len = sizeof six;
    CHECK_EQ(send_to(&a, &u, "x", 1, LONG), -EAFNOSUPPORT);
    CHECK_EQ(reeve_sendto(a.fd, "x", 1, (struct sockaddr *)&six, sizeof six, LONG),
             -EAFNOSUPPORT);
    CHECK_EQ(reeve_sendto(a.fd, "x", 1, NULL, 0, LONG), -EDESTADDRREQ);
    CHECK_EQ(reeve_sendto(a.fd, "x", 1, (struct sockaddr *)&a.at, 3, LONG), -EINVAL);
    CHECK_EQ(reeve_sendto(ends[1], "x", 1, NULL, 0, LONG), -ENOTSOCK);
    CHECK_EQ(reeve_recvfrom(ends[0], big, 1, NULL, NULL, LONG), -ENOTSOCK);
    CHECK_EQ(reeve_sendto(-1, "x", 1, NULL, 0, LONG), -EBADF);
    CHECK_EQ(reeve_recvfrom(-1, big, 1, NULL, NULL, LONG), -EBADF);
    CHECK_EQ(reeve_sendto(900, "x", 1, NULL, 0, LONG), -EBADF);
    CHECK_EQ(reeve_recvfrom(900, big, 1, NULL, NULL, LONG), -EBADF);
    CHECK_EQ(reeve_close(a.fd), 0);
    await_closed(a.fd);
    CHECK_EQ(reeve_sendto(a.fd, "x", 1, NULL, 0, LONG), -EBADF);
    CHECK_EQ(reeve_recvfrom(a.fd, big, 1, NULL, NULL, LONG), -EBADF);
    CHECK_EQ(reeve_close(u.fd), 0);
    close(ends[0]);
    close(ends[1]);
    return 0;
}

TEST(what_cannot_be_sent_or_received_says_why)
{
    RUN_BOTH(refused);
}

/* ---- waits that end early -------------------------------------------------------------------- */

struct awaited {
    int fd;
    ssize_t got;
    reeve_time until;
};

static int receive(void *arg)
{
    struct awaited *w = arg;
    char buf[64];
    struct sockaddr_storage from;
    socklen_t len;
    w->got = reeve_recvfrom(w->fd, buf, sizeof buf, &from, &len, w->until);
    return 0;
}

static int early_ends(void *arg)
{
    (void)arg;
    struct place a = place_make("udp:127.0.0.1:0");
    struct awaited w = { a.fd, 1, LONG };
    reeve_task *t;
    char buf[4];
    CHECK_EQ(reeve_recvfrom(a.fd, buf, 4, NULL, NULL, REEVE_POLL), -ETIMEDOUT);
    CHECK_EQ(reeve_recvfrom(a.fd, buf, 4, NULL, NULL, SOON), -ETIMEDOUT);
    CHECK_EQ(send_to(&a, &a, "late", 4, LONG), 4);
    CHECK_EQ(poll(&(struct pollfd){ .fd = a.fd, .events = POLLIN }, 1, -1), 1);
    CHECK_EQ(reeve_recvfrom(a.fd, buf, 4, NULL, NULL, REEVE_POLL), 4); /* what is there counts */

    CHECK_OK(reeve_spawn(&t, receive, &w));
    await_waiter(a.fd, AN_OP);
    reeve_cancel(t);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(w.got, -ECANCELED);
    CHECK_EQ(send_to(&a, &a, "kept", 4, LONG), 4); /* it took nothing with it */
    CHECK_EQ(reeve_recvfrom(a.fd, buf, 4, NULL, NULL, LONG), 4);

    w = (struct awaited){ a.fd, 1, LONG };
    CHECK_OK(reeve_spawn(&t, receive, &w));
    await_waiter(a.fd, AN_OP);
    CHECK_EQ(reeve_close(a.fd), 0);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(w.got, -ECANCELED);
    await_closed(a.fd);
    return 0;
}

TEST(a_wait_for_a_message_ends_with_its_deadline_its_task_and_its_socket)
{
    RUN_BOTH(early_ends);
}

static int send_cancelled(void *arg)
{
    int fd = *(int *)arg;
    char byte = 0;
    while (reeve_sendto(fd, &byte, 1, NULL, 0, LONG) == 1)
        ;
    return (int)reeve_sendto(fd, &byte, 1, NULL, 0, LONG);
}

/* A Unix receiver that does not receive stops its sender. */
static int full(void *arg)
{
    (void)arg;
    int fds[2], sent = 0, got = 0, result = 0;
    char byte;
    CHECK_EQ(reeve_socket_pair(SOCK_DGRAM, fds), 0);
    while (reeve_sendto(fds[0], "x", 1, NULL, 0, REEVE_POLL) == 1)
        sent++;
    CHECK_GT(sent, 0);
    CHECK_EQ(reeve_sendto(fds[0], "x", 1, NULL, 0, SOON), -ETIMEDOUT);
    reeve_task *t;
    CHECK_OK(reeve_spawn(&t, send_cancelled, &fds[0]));
    await_waiter(fds[0], AN_OP);
    reeve_cancel(t);
    CHECK_EQ(reeve_join(t, &result, LONG), 0);
    CHECK_EQ(result, -ECANCELED);
    while (reeve_recvfrom(fds[1], &byte, 1, NULL, NULL, REEVE_POLL) == 1)
        got++;
    CHECK_EQ(got, sent); /* who waited in vain has sent nothing */
    CHECK_EQ(reeve_sendto(fds[0], "x", 1, NULL, 0, SOON), 1);
    CHECK_EQ(reeve_close(fds[0]), 0);
    CHECK_EQ(reeve_close(fds[1]), 0);
    return 0;
}

TEST(a_receiver_that_is_full_stops_its_sender_and_loses_nothing)
{
    RUN_BOTH(full);
}

enum { RECEIVERS = 20 };

static int several(void *arg)
{
    (void)arg;
    struct place a = place_make("udp:127.0.0.1:0");
    struct awaited w[RECEIVERS];
    reeve_task *t[RECEIVERS];
    for (int i = 0; i < RECEIVERS; i++) {
        w[i] = (struct awaited){ a.fd, -1, LONG };
        CHECK_OK(reeve_spawn(&t[i], receive, &w[i]));
    }
    await_waiter(a.fd, AN_OP);
    size_t sum = 0, expected = 0;
    static const char bytes[RECEIVERS + 1];
    for (size_t i = 1; i <= RECEIVERS; i++, expected += i - 1)
        CHECK_EQ(send_to(&a, &a, bytes, i, LONG), (ssize_t)i);
    for (int i = 0; i < RECEIVERS; i++) {
        CHECK_EQ(reeve_join(t[i], NULL, LONG), 0);
        CHECK_GT(w[i].got, 0);
        sum += (size_t)w[i].got;
    }
    CHECK_EQ(sum, expected);
    CHECK_EQ(reeve_close(a.fd), 0);
    return 0;
}

TEST(of_several_receivers_each_gets_one_message)
{
    RUN_BOTH(several);
}

/* ---- who never has to wait ------------------------------------------------------------------- */

static int set_flag(void *arg)
{
    reeve_sleep(SOON);
    rv_store_relaxed((RV_ATOMIC(int) *)arg, 1);
    return 0;
}

static int chatter(void *arg)
{
    (void)arg;
    struct place a = place_make("udp:127.0.0.1:0");
    static RV_ATOMIC(int) flag;
    reeve_task *t;
    char byte;
    rv_store_relaxed(&flag, 0);
    CHECK_OK(reeve_spawn(&t, set_flag, (void *)&flag));
    while (!rv_load_relaxed(&flag)) {
        CHECK_EQ(send_to(&a, &a, "x", 1, LONG), 1);
        CHECK_EQ(reeve_recvfrom(a.fd, &byte, 1, NULL, NULL, LONG), 1);
    }
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(reeve_close(a.fd), 0);
    return 0;
}

TEST(a_task_that_always_finds_a_message_lets_others_run)
{
    RUN(chatter, .workers = 1);
}

static int poller(void *arg)
{
    (void)arg;
    struct place a = place_make("udp:127.0.0.1:0");
    static RV_ATOMIC(int) flag;
    reeve_task *t;
    char byte;
    rv_store_relaxed(&flag, 0);
    CHECK_OK(reeve_spawn(&t, set_flag, (void *)&flag));
    while (!rv_load_relaxed(&flag))
        CHECK_EQ(reeve_recvfrom(a.fd, &byte, 1, NULL, NULL, REEVE_POLL), -ETIMEDOUT);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(reeve_close(a.fd), 0);
    return 0;
}

TEST(a_task_that_polls_an_empty_socket_lets_others_run)
{
    RUN(poller, .workers = 1);
}

static int entries_saved(void *arg)
{
    (void)arg;
    struct place a = place_make("udp:127.0.0.1:0");
    char byte;
    uint64_t before = COUNTER(ops);
    for (int i = 0; i < 500; i++) {
        CHECK_EQ(send_to(&a, &a, "x", 1, LONG), 1);
        CHECK_EQ(reeve_recvfrom(a.fd, &byte, 1, NULL, NULL, LONG), 1);
    }
    CHECK_LT(COUNTER(ops) - before, 500);
    CHECK_EQ(reeve_close(a.fd), 0);
    return 0;
}

TEST(what_can_be_done_at_once_is_no_request_to_the_ring)
{
#ifdef RV_FORCE_MIGRATE
    SKIP("every wake goes elsewhere, so somebody is always ready");
#endif
    RUN(entries_saved, .workers = 1);
}

/* ---- close raced with a receiver, and with reuse of the number ------------------------------- */

static int receive_old(void *arg)
{
    char buf[8];
    ssize_t n = reeve_recvfrom(*(int *)arg, buf, sizeof buf, NULL, NULL, LONG);
    if (n == 3)
        CHECK_MEM_EQ(buf, "old", 3); /* never the next owner's */
    return (int)n;
}

static int reuse(void *arg)
{
    (void)arg;
    for (int round = 0; round < 200; round++) {
        struct place a = place_make("udp:127.0.0.1:0");
        int result = 0, fd = a.fd;
        reeve_task *t;
        char buf[4];
        CHECK_OK(reeve_spawn(&t, receive_old, &fd));
        await_waiter(a.fd, AN_OP);
        if (round % 3 == 1)
            CHECK_EQ(send_to(&a, &a, "old", 3, LONG), 3);
        CHECK_EQ(reeve_close(a.fd), 0);
        struct place b = place_make("udp:127.0.0.1:0");
        CHECK_EQ(send_to(&b, &b, "new", 3, LONG), 3);
        CHECK_EQ(reeve_join(t, &result, LONG), 0);
        CHECK(result == -ECANCELED || (round % 3 == 1 && result == 3));
        CHECK_EQ(reeve_recvfrom(b.fd, buf, 4, NULL, NULL, LONG), 3);
        CHECK_MEM_EQ(buf, "new", 3);
        CHECK_EQ(reeve_close(b.fd), 0);
        await_closed(a.fd);
    }
    return 0;
}

TEST(a_receiver_that_is_closed_on_gets_nothing_of_the_numbers_next_owner)
{
    RUN_BOTH(reuse);
}

/* ---- the general forms ----------------------------------------------------------------------- */

static int flags_told(void *arg)
{
    (void)arg;
    int fds[2], ends[2];
    char buf[4], control[CMSG_SPACE(sizeof(int))];
    CHECK_EQ(reeve_socket_pair(SOCK_SEQPACKET, fds), 0);
    struct iovec piece = { buf, sizeof buf };
    struct msghdr msg = { .msg_iov = &piece, .msg_iovlen = 1 };
    CHECK_EQ(reeve_sendto(fds[0], "123456", 6, NULL, 0, LONG), 6);
    CHECK_EQ(reeve_recvmsg(fds[1], &msg, MSG_PEEK, LONG), 4);
    CHECK_EQ(msg.msg_flags & MSG_TRUNC, MSG_TRUNC);
    CHECK_EQ(reeve_recvmsg(fds[1], &msg, MSG_TRUNC, LONG), 6);
    msg.msg_flags = 0;
    CHECK_EQ(reeve_recvmsg(fds[1], &msg, MSG_DONTWAIT, LONG), -EAGAIN);

    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    CHECK_EQ(reeve_fd_send(fds[0], ends, 2, "x", 1, LONG), 1);
    CHECK_EQ(reeve_fd_send(fds[0], ends, 1, "x", 1, LONG), 1);
    msg.msg_control = control;
    msg.msg_controllen = CMSG_LEN(sizeof(int));
    CHECK_EQ(reeve_recvmsg(fds[1], &msg, 0, LONG), 1);
    CHECK_EQ(msg.msg_flags & MSG_CTRUNC, MSG_CTRUNC);
    int got;
    memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof got);
    CHECK_EQ(fcntl(got, F_GETFD), FD_CLOEXEC);
    close(got);
    msg.msg_control = NULL;
    msg.msg_controllen = 0;
    CHECK_EQ(reeve_recvmsg(fds[1], &msg, 0, LONG), 1);
    CHECK_EQ(reeve_close(fds[0]), 0);
    CHECK_EQ(reeve_recvmsg(fds[1], &msg, 0, LONG), 0);
    CHECK_EQ(reeve_close(fds[1]), 0);
    close(ends[0]);
    close(ends[1]);
    return 0;
}

TEST(what_did_not_fit_shows_in_the_flags_as_with_recvmsg)
{
    RUN_BOTH(flags_told);
}

/* The error queue is never "readable": the wait for it is one of its own. */
static int error_queue(void *arg)
{
    (void)arg;
    struct place a = place_make("udp:127.0.0.1:0"), b = place_make("udp:127.0.0.1:0");
    char buf[4];
    int on = 1;
    struct iovec piece = { buf, sizeof buf };
    struct msghdr msg = { .msg_iov = &piece, .msg_iovlen = 1 };
    CHECK_EQ(setsockopt(a.fd, IPPROTO_IP, IP_RECVERR, &on, sizeof on), 0);
    CHECK_EQ(connect(a.fd, (struct sockaddr *)&b.at, b.len), 0);
    CHECK_EQ(reeve_close(b.fd), 0);
    await_closed(b.fd);
    CHECK_EQ(reeve_recvmsg(a.fd, &msg, MSG_ERRQUEUE, SOON), -ETIMEDOUT);
    CHECK_EQ(reeve_sendto(a.fd, "lost", 4, NULL, 0, LONG), 4);
    CHECK_EQ(reeve_recvmsg(a.fd, &msg, MSG_ERRQUEUE, LONG), 4);
    CHECK_MEM_EQ(buf, "lost", 4);
    CHECK_EQ(msg.msg_flags & MSG_ERRQUEUE, MSG_ERRQUEUE);
    CHECK_EQ(reeve_close(a.fd), 0);
    return 0;
}

TEST(what_was_lost_comes_back_through_the_error_queue)
{
    RUN_BOTH(error_queue);
}

enum { VECTOR = 150, PIECE = 40000 };

struct sending {
    int fd;
    unsigned char *data;
};

static int send_vector(void *arg)
{
    struct sending *s = arg;
    struct iovec v[VECTOR];
    for (size_t i = 0; i < VECTOR; i++) /* an empty one now and then */
        v[i] = (struct iovec){ s->data + i * PIECE, i % 10 == 3 ? 0 : PIECE };
    struct msghdr msg = { .msg_iov = v, .msg_iovlen = VECTOR };
    ssize_t sum = (VECTOR - VECTOR / 10) * PIECE;
    CHECK_EQ(reeve_sendmsg(s->fd, &msg, 0, LONG), sum);
    return 0;
}

/* Two that send at a time: the bytes of each stay together, however slowly they are taken. */
static int in_turns(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    size_t all = (size_t)VECTOR * PIECE, sum = (VECTOR - VECTOR / 10) * (size_t)PIECE;
    unsigned char *data = malloc(2 * all), *into = malloc(2 * sum);
    memset(data, 1, all);
    memset(data + all, 2, all);
    struct sending s[2] = { { p.fd, data }, { p.fd, data + all } };
    reeve_task *t[2];
    for (int i = 0; i < 2; i++)
        CHECK_OK(reeve_spawn(&t[i], send_vector, &s[i]));
    for (size_t at = 0; at < 2 * sum;) {
        ssize_t n = recv(p.peer, into + at, 2 * sum - at, MSG_DONTWAIT);
        CHECK(n > 0 || errno == EAGAIN);
        at += n > 0 ? (size_t)n : 0;
        CHECK_EQ(reeve_sleep(0), 0);
    }
    for (size_t i = 1; i < 2 * sum; i++)
        CHECK(into[i] == into[i - 1] || i == sum);
    for (int i = 0; i < 2; i++)
        CHECK_EQ(reeve_join(t[i], NULL, LONG), 0);
    pair_close(&p);
    free(data);
    free(into);
    return 0;
}

TEST(a_message_to_a_stream_goes_out_whole_and_in_one_turn)
{
    RUN_BOTH(in_turns);
}

static int stream_dontwait(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    static char data[1 << 16];
    struct iovec piece = { data, sizeof data };
    struct msghdr msg = { .msg_iov = &piece, .msg_iovlen = 1 };
    size_t sent = 0, got = 0;
    ssize_t n;
    while ((n = reeve_sendmsg(p.fd, &msg, MSG_DONTWAIT, LONG)) > 0)
        sent += (size_t)n;
    CHECK_EQ(n, -EAGAIN);
    while ((n = reeve_sendmsg(p.fd, &msg, 0, SOON)) > 0) /* what was on its way has made room */
        sent += (size_t)n;
    CHECK_EQ(n, -ETIMEDOUT);
    CHECK_EQ(reeve_socket_shutdown(p.fd, SHUT_WR), 0);
    while ((n = recv(p.peer, data, sizeof data, 0)) > 0)
        got += (size_t)n;
    CHECK_GE(got, sent);
    CHECK_EQ(reeve_sendmsg(p.fd, &msg, 0, LONG), -EPIPE); /* and no signal */
    pair_close(&p);
    return 0;
}

TEST(a_stream_without_room_is_not_waited_for_if_so_asked)
{
    RUN_BOTH(stream_dontwait);
}

static int around_a_stream(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    char buf[8];
    struct iovec piece = { buf, sizeof buf };
    struct msghdr msg = { .msg_iov = &piece, .msg_iovlen = 1 };
    peer_send(p.peer, "direct", 6);
    CHECK_EQ(reeve_recvmsg(p.fd, &msg, 0, LONG), 6);
    CHECK_EQ(reeve_recvmsg(p.fd, &msg, 0, SOON), -ETIMEDOUT);
    peer_send(p.peer, "ahead", 5);
    CHECK_EQ(reeve_read(p.fd, buf, 2, LONG), 2);
    CHECK_EQ(reeve_recvmsg(p.fd, &msg, 0, LONG), -EBUSY);
    CHECK_EQ(reeve_read(p.fd, buf, 8, LONG), 3);
    CHECK_EQ(reeve_recvmsg(p.fd, &msg, 0, SOON), -ETIMEDOUT); /* which ends the receiving ahead */
    peer_send(p.peer, "direct", 6);
    CHECK_EQ(reeve_recvmsg(p.fd, &msg, MSG_PEEK, LONG), 6);
    CHECK_EQ(reeve_recvmsg(p.fd, &msg, 0, LONG), 6);
    CHECK_MEM_EQ(buf, "direct", 6);
    peer_send(p.peer, "back", 4);
    CHECK_EQ(reeve_read(p.fd, buf, 8, LONG), 4);
    close(p.peer);
    p.peer = -1;
    CHECK_EQ(reeve_read(p.fd, buf, 8, LONG), 0);
    CHECK_EQ(reeve_recvmsg(p.fd, &msg, 0, LONG), 0);
    pair_close(&p);
    return 0;
}

TEST(what_a_stream_has_received_ahead_is_not_gone_around)
{
    RUN_BOTH(around_a_stream);
}

static int receive_message(void *arg)
{
    char buf[8];
    struct iovec piece = { buf, sizeof buf };
    struct msghdr msg = { .msg_iov = &piece, .msg_iovlen = 1 };
    return (int)reeve_recvmsg(*(int *)arg, &msg, 0, LONG);
}

static int stream_closed(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    int result = 0;
    reeve_task *t;
    CHECK_OK(reeve_spawn(&t, receive_message, &p.fd));
    await_waiter(p.fd, AN_OP);
    CHECK_EQ(reeve_close(p.fd), 0);
    CHECK_EQ(reeve_join(t, &result, LONG), 0);
    CHECK_EQ(result, -ECANCELED);
    await_closed(p.fd);
    p.fd = -1;
    pair_close(&p);
    return 0;
}

TEST(a_stream_that_is_closed_under_a_recvmsg_ends_it)
{
    RUN_BOTH(stream_closed);
}
