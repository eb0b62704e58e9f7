/* SPDX-License-Identifier: MIT */
/*
 * msg_many_test.c -- many messages in one call: what is there is taken, what is not is waited for.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <reeve/socket.h>

#include "tests/io/pair.h"

#define SOON reeve_in(2 * REEVE_MS)
enum { MANY = 20, ROOM = 8 };

struct many {
    struct mmsghdr msgs[MANY];
    struct iovec pieces[MANY];
    char bytes[MANY][ROOM];
};

/* Messages of 0, 1, 2 ... bytes, each of them its number; or room for as many. */
static void prepare(struct many *m, bool full)
{
    memset(m, 0, sizeof *m);
    for (size_t i = 0; i < MANY; i++) {
        memset(m->bytes[i], (int)i, ROOM);
        m->pieces[i] = (struct iovec){ m->bytes[i], full ? i % ROOM : ROOM };
        m->msgs[i].msg_hdr.msg_iov = &m->pieces[i];
        m->msgs[i].msg_hdr.msg_iovlen = 1;
    }
}

static int many_at_once(void *arg)
{
    (void)arg;
    int fds[2], got = 0;
    static struct many out, in;
    CHECK_EQ(reeve_socket_pair(SOCK_DGRAM, fds), 0);
    prepare(&out, true);
    prepare(&in, false);
    CHECK_EQ(reeve_sendmmsg(fds[0], out.msgs, 8, 0, LONG), 8);
    CHECK_EQ(out.msgs[7].msg_len, 7);
    while (got < 8) {
        int n = reeve_recvmmsg(fds[1], in.msgs + got, MANY - (unsigned)got, 0, LONG);
        CHECK_GT(n, 0);
        got += n;
    }
    CHECK_EQ(got, 8);
    for (int i = 0; i < 8; i++) {
        CHECK_EQ(in.msgs[i].msg_len, (unsigned)i);
        if (i > 0)
            CHECK_EQ(in.bytes[i][0], i);
    }
    CHECK_EQ(reeve_recvmmsg(fds[1], in.msgs, MANY, 0, SOON), -ETIMEDOUT);
    CHECK_EQ(reeve_recvmmsg(fds[1], in.msgs, MANY, MSG_DONTWAIT, LONG), -EAGAIN);
    CHECK_EQ(reeve_sendto(fds[0], "too long for it", 15, NULL, 0, LONG), 15);
    CHECK_EQ(reeve_recvmmsg(fds[1], in.msgs, MANY, 0, LONG), 1);
    CHECK_EQ(in.msgs[0].msg_hdr.msg_flags & MSG_TRUNC, MSG_TRUNC);
    CHECK_EQ(reeve_close(fds[0]), 0);
    CHECK_EQ(reeve_close(fds[1]), 0);
    return 0;
}

TEST(all_messages_that_are_there_come_in_one_call_and_in_order)
{
    RUN_BOTH(many_at_once);
}

struct party {
    int fd, result;
    struct many m;
};

static int send_many(void *arg)
{
    struct party *p = arg;
    prepare(&p->m, true);
    p->result = reeve_sendmmsg(p->fd, p->m.msgs, MANY, 0, LONG);
    return 0;
}

static int receive_many(void *arg)
{
    struct party *p = arg;
    prepare(&p->m, false);
    p->result = reeve_recvmmsg(p->fd, p->m.msgs, MANY, 0, LONG);
    return 0;
}

/* A Unix receiver has room for fewer than these: its sender waits, and then goes on. */
static int waits_for_room(void *arg)
{
    (void)arg;
    static struct party s, r;
    int fds[2];
    reeve_task *t;
    CHECK_EQ(reeve_socket_pair(SOCK_DGRAM, fds), 0);
    while (reeve_sendto(fds[0], "x", 1, NULL, 0, REEVE_POLL) == 1)
        ;
    s.fd = fds[0];
    CHECK_OK(reeve_spawn(&t, send_many, &s));
    await_waiter(fds[0], AN_OP);
    r.fd = fds[1];
    for (int last = 0; last < MANY - 1;) {
        CHECK_EQ(receive_many(&r), 0);
        CHECK_GT(r.result, 0);
        for (int i = 0; i < r.result; i++)
            if (r.m.msgs[i].msg_len > 0 && r.m.bytes[i][0] != 'x') {
                CHECK_GT(r.m.bytes[i][0], last);
                last = r.m.bytes[i][0];
            }
    }
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(s.result, MANY);
    CHECK_EQ(reeve_close(fds[0]), 0);
    CHECK_EQ(reeve_close(fds[1]), 0);
    return 0;
}

TEST(a_sender_of_many_waits_for_room_and_goes_on_where_it_was)
{
    RUN_BOTH(waits_for_room);
}

static int partly(void *arg)
{
    (void)arg;
    static struct many m;
    static char big[70000];
    int udp = (int)CHECK_OK(reeve_bind("udp:127.0.0.1:0")), fds[2];
    struct sockaddr_in at = address_of(udp);
    CHECK_EQ(connect(udp, (struct sockaddr *)&at, sizeof at), 0);
    prepare(&m, true);
    m.pieces[3] = (struct iovec){ big, sizeof big };
    CHECK_EQ(reeve_sendmmsg(udp, m.msgs, MANY, 0, LONG), 3);
    CHECK_EQ(reeve_sendmmsg(udp, m.msgs + 3, MANY - 3, 0, LONG), -EMSGSIZE);
    CHECK_EQ(reeve_sendmmsg(udp, m.msgs, 0, 0, LONG), -EINVAL);
    CHECK_EQ(reeve_recvmmsg(udp, m.msgs, 0, 0, LONG), -EINVAL);
    CHECK_EQ(reeve_recvmmsg(-1, m.msgs, 1, 0, LONG), -EBADF);
    CHECK_EQ(reeve_sendmmsg(900, m.msgs, 1, 0, LONG), -EBADF);
    CHECK_EQ(reeve_socket_pair(SOCK_STREAM, fds), 0);
    CHECK_EQ(reeve_sendmmsg(fds[0], m.msgs, 1, 0, LONG), -EOPNOTSUPP);
    CHECK_EQ(reeve_recvmmsg(fds[0], m.msgs, 1, 0, LONG), -EOPNOTSUPP);
    CHECK_EQ(reeve_close(fds[0]), 0);
    CHECK_EQ(reeve_close(fds[1]), 0);
    CHECK_EQ(reeve_close(udp), 0);
    return 0;
}

TEST(of_many_those_before_the_one_that_fails_count)
{
    RUN_BOTH(partly);
}

static int ended_early(void *arg)
{
    (void)arg;
    static struct party r;
    int fds[2];
    reeve_task *t;
    CHECK_EQ(reeve_socket_pair(SOCK_DGRAM, fds), 0);
    r.fd = fds[0];
    CHECK_OK(reeve_spawn(&t, receive_many, &r));
    await_waiter(fds[0], AN_OP);
    reeve_cancel(t);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(r.result, -ECANCELED);
    CHECK_OK(reeve_spawn(&t, receive_many, &r));
    await_waiter(fds[0], AN_OP);
    CHECK_EQ(reeve_close(fds[0]), 0);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(r.result, -ECANCELED);
    CHECK_EQ(reeve_close(fds[1]), 0);
    await_closed(fds[0]);
    return 0;
}

TEST(a_wait_for_many_ends_with_its_task_and_its_socket)
{
    RUN_BOTH(ended_early);
}

static int set_flag(void *arg)
{
    reeve_sleep(SOON);
    rv_store_relaxed((RV_ATOMIC(int) *)arg, 1);
    return 0;
}

static int never_empty(void *arg)
{
    (void)arg;
    static struct many m;
    static RV_ATOMIC(int) flag;
    int fds[2];
    reeve_task *t;
    CHECK_EQ(reeve_socket_pair(SOCK_DGRAM, fds), 0);
    rv_store_relaxed(&flag, 0);
    CHECK_OK(reeve_spawn(&t, set_flag, (void *)&flag));
    prepare(&m, true);
    while (!rv_load_relaxed(&flag)) {
        for (int left = reeve_sendmmsg(fds[0], m.msgs, 8, 0, LONG); left > 0;)
            left -= (int)CHECK_OK(reeve_recvmmsg(fds[1], m.msgs, 8, 0, LONG));
    }
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(reeve_close(fds[0]), 0);
    CHECK_EQ(reeve_close(fds[1]), 0);
    return 0;
}

TEST(a_task_that_always_finds_many_lets_others_run)
{
    RUN(never_empty, .workers = 1);
}
