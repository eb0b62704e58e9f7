/* SPDX-License-Identifier: MIT */
/*
 * net_test.c -- listening, accepting, dialling, and the acceptor behind a server.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include "io/fdtab.h"
#include "io/net.h"
#include "tests/io/pair.h"

#define SOON reeve_in(2 * REEVE_MS)

/* ---- listening ------------------------------------------------------------------------------- */

static int option(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof value;
    CHECK_EQ(getsockopt(fd, level, name, &value, &len), 0);
    return value;
}

TEST(a_listener_needs_no_runtime_and_has_sane_options)
{
    int fd = (int)CHECK_OK(reeve_listen("127.0.0.1:0", 0));
    CHECK_EQ(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    CHECK_EQ(option(fd, SOL_SOCKET, SO_REUSEADDR), 1);
    CHECK_EQ(option(fd, SOL_SOCKET, SO_ACCEPTCONN), 1);
    CHECK_NE(address_of(fd).sin_port, 0);
    CHECK_EQ(reeve_close(fd), 0);
}

TEST(a_listener_refuses_what_is_no_address)
{
    static const char *const wrong[] = { "", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", ":80" };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK_EQ(reeve_listen(wrong[i], 0), -EINVAL);
    CHECK_EQ(reeve_listen("example.org:80", 0), -EAFNOSUPPORT);
}

TEST(a_port_that_is_taken_is_an_error)
{
    int fd = (int)CHECK_OK(reeve_listen("127.0.0.1:0", 0));
    char text[32];
    snprintf(text, sizeof text, "127.0.0.1:%u", ntohs(address_of(fd).sin_port));
    CHECK_EQ(reeve_listen(text, 0), -EADDRINUSE);
    CHECK_EQ(reeve_close(fd), 0);
}

TEST(a_star_serves_both_families)
{
    int fd = (int)CHECK_OK(reeve_listen("*:0", 0));
    struct sockaddr_in6 bound;
    socklen_t len = sizeof bound;
    CHECK_EQ(getsockname(fd, (struct sockaddr *)&bound, &len), 0);
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_port = bound.sin6_port,
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int peer = socket(AF_INET, SOCK_STREAM, 0);
    CHECK_EQ(connect(peer, (struct sockaddr *)&to, sizeof to), 0);
    close(peer);
    CHECK_EQ(reeve_close(fd), 0);
}

/* ---- accepting and dialling ------------------------------------------------------------------ */

static int options_of_both(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    char text[32];
    snprintf(text, sizeof text, "localhost:%u", ntohs(address_of(p.listener).sin_port));
    int dialled = (int)CHECK_OK(reeve_dial(text, LONG));
    int fds[2] = { p.fd, dialled };
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(fcntl(fds[i], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
        CHECK_EQ(option(fds[i], IPPROTO_TCP, TCP_NODELAY), 1);
    }
    int other = (int)CHECK_OK(reeve_accept(p.listener, LONG));
    char buf[8];
    CHECK_EQ(reeve_write(dialled, "ping", 4, LONG), 4);
    CHECK_EQ(reeve_read(other, buf, sizeof buf, LONG), 4);
    CHECK_EQ(reeve_write(other, "pong", 4, LONG), 4);
    CHECK_EQ(reeve_read(dialled, buf, sizeof buf, LONG), 4);
    CHECK_MEM_EQ(buf, "pong", 4);
    CHECK_EQ(reeve_close(dialled), 0);
    CHECK_EQ(reeve_read(other, buf, sizeof buf, LONG), 0);
    CHECK_EQ(reeve_close(other), 0);
    pair_close(&p);
    return 0;
}

TEST(accepted_and_dialled_sockets_are_cloexec_and_nodelay_and_talk)
{
    RUN(options_of_both, .workers = 1);
    RUN(options_of_both, .workers = 2);
}

static int dial_fails(void *arg)
{
    (void)arg;
    char text[32];
    int fd = (int)CHECK_OK(reeve_listen("127.0.0.1:0", 0));
    snprintf(text, sizeof text, "127.0.0.1:%u", ntohs(address_of(fd).sin_port));
    CHECK_EQ(reeve_close(fd), 0);
    CHECK_EQ(reeve_dial(text, LONG), -ECONNREFUSED);
    CHECK_EQ(reeve_dial("*:80", LONG), -EINVAL);
    CHECK_EQ(reeve_dial("127.0.0.1:0", LONG), -EINVAL);
    CHECK(!is_open(fd));
    return 0;
}

TEST(a_dial_that_is_refused_says_so_and_leaves_no_descriptor)
{
    RUN(dial_fails, .workers = 1);
}

struct call {
    int fd, result;
    const char *addr;
};

static int dial_it(void *arg)
{
    struct call *c = arg;
    c->result = reeve_dial(c->addr, LONG);
    return 0;
}

/* Until so many connections are there to be accepted. */
static void await_backlog(int listener, uint32_t n)
{
    struct tcp_info info;
    for (;;) {
        socklen_t len = sizeof info;
        CHECK_EQ(getsockopt(listener, IPPROTO_TCP, TCP_INFO, &info, &len), 0);
        if (info.tcpi_unacked >= n)
            return;
        sched_yield();
    }
}

static int dial_hangs(void *arg)
{
    (void)arg;
    int listener = (int)CHECK_OK(reeve_listen("127.0.0.1:0", 1)), peers[2];
    char text[32];
    snprintf(text, sizeof text, "127.0.0.1:%u", ntohs(address_of(listener).sin_port));
    for (int i = 0; i < 2; i++)
        peers[i] = peer_connect(listener);
    await_backlog(listener, 2); /* that of 1 is full now */
    int free_before = dup(0);
    close(free_before);
    CHECK_EQ(reeve_dial(text, reeve_in(20 * REEVE_MS)), -ETIMEDOUT);
    struct call c = { .addr = text };
    reeve_task *t;
    CHECK_EQ(reeve_spawn(&t, dial_it, &c), 0);
    await_asleep(t);
    reeve_cancel(t);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(c.result, -ECANCELED);
    await_closed(free_before);
    for (int i = 0; i < 2; i++)
        close(peers[i]);
    CHECK_EQ(reeve_close(listener), 0);
    return 0;
}

TEST(a_dial_that_nobody_answers_times_out_or_is_cancelled)
{
    RUN(dial_hangs, .workers = 1);
}

static int accept_it(void *arg)
{
    struct call *c = arg;
    c->result = reeve_accept(c->fd, LONG);
    return 0;
}

static int accept_ends(void *arg)
{
    (void)arg;
    int listener = (int)CHECK_OK(reeve_listen("127.0.0.1:0", 0));
    CHECK_EQ(reeve_accept(listener, REEVE_POLL), -ETIMEDOUT);
    CHECK_EQ(reeve_accept(listener, SOON), -ETIMEDOUT);
    struct call c = { .fd = listener };
    reeve_task *t;
    CHECK_EQ(reeve_spawn(&t, accept_it, &c), 0);
    await_waiter(listener, AN_OP);
    reeve_cancel(t);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(c.result, -ECANCELED);
    int peer = peer_connect(listener);
    await_backlog(listener, 1);
    int fd = (int)CHECK_OK(reeve_accept(listener, REEVE_POLL));
    CHECK_EQ(reeve_accept(fd, LONG), -EINVAL);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    CHECK_EQ(reeve_accept(null, LONG), -ENOTSOCK);
    close(null);
    CHECK_EQ(reeve_close(fd), 0);
    CHECK_EQ(reeve_close(listener), 0);
    close(peer);
    return 0;
}

TEST(an_accept_times_out_is_cancelled_and_says_what_is_no_listener)
{
    RUN(accept_ends, .workers = 1);
}

enum { ACCEPTERS = 8 };

static int shared_listener(void *arg)
{
    (void)arg;
    int listener = (int)CHECK_OK(reeve_listen("127.0.0.1:0", 0)), peers[ACCEPTERS];
    struct call c[ACCEPTERS];
    struct reeve_group g = { 0 };
    for (int i = 0; i < ACCEPTERS; i++) {
        c[i] = (struct call){ .fd = listener };
        CHECK_EQ(reeve_spawn(NULL, accept_it, &c[i], .group = &g), 0);
    }
    for (int i = 0; i < ACCEPTERS; i++)
        peers[i] = peer_connect(listener);
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    for (int i = 0; i < ACCEPTERS; i++) {
        CHECK_GE(c[i].result, 0);
        for (int j = 0; j < i; j++)
            CHECK_NE(c[i].result, c[j].result);
    }
    for (int i = 0; i < ACCEPTERS; i++) {
        CHECK_EQ(reeve_close(c[i].result), 0);
        close(peers[i]);
    }
    CHECK_EQ(reeve_close(listener), 0);
    return 0;
}

TEST(several_tasks_accept_from_one_listener)
{
    RUN(shared_listener, .workers = 2);
}

/* ---- the acceptor ---------------------------------------------------------------------------- */

enum { CROWD = 300 };

static void take_all(uint32_t room)
{
    int listener = (int)CHECK_OK(reeve_listen("127.0.0.1:0", 0)), peers[CROWD];
    struct rv_acceptor a;
    rv_acceptor_start(&a, listener);
    CHECK_EQ(rv_acceptor_take(&a, room, SOON), -ETIMEDOUT);
    for (int i = 0; i < CROWD; i++)
        peers[i] = peer_connect(listener);
    for (int i = 0; i < CROWD; i++) {
        int fd = (int)CHECK_OK(rv_acceptor_take(&a, room, LONG));
        CHECK_EQ(reeve_write(fd, "hi", 2, LONG), 2);
        CHECK_EQ(reeve_close(fd), 0);
    }
    CHECK_EQ(rv_acceptor_take(&a, room, SOON), -ETIMEDOUT);
    rv_acceptor_stop(&a);
    char buf[4];
    for (int i = 0; i < CROWD; i++) {
        CHECK_EQ(recv(peers[i], buf, sizeof buf, 0), 2);
        close(peers[i]);
    }
    CHECK_EQ(reeve_close(listener), 0);
}

static int takes(void *arg)
{
    (void)arg;
    take_all(1);
    take_all(100000);
    CHECK_EQ(COUNTER(accepted), 2 * CROWD);
    return 0;
}

TEST(an_acceptor_hands_over_every_connection)
{
    RUN(takes, .workers = 1);
    RUN(takes, .workers = 2);
    setenv("REEVE_CAPS_OFF", "accept_multishot", 1);
    RUN(takes, .workers = 1);
}

static int little_room(void *arg)
{
    (void)arg;
    int listener = (int)CHECK_OK(reeve_listen("127.0.0.1:0", 0)), peers[20];
    struct rv_acceptor a;
    rv_acceptor_start(&a, listener);
    for (int i = 0; i < 20; i++)
        peers[i] = peer_connect(listener);
    int fd = (int)CHECK_OK(rv_acceptor_take(&a, 1, LONG));
    CHECK_EQ(COUNTER(accepted), 1); /* the others wait in the kernel */
    rv_acceptor_stop(&a);
    CHECK_EQ(reeve_close(fd), 0);
    for (int i = 0; i < 20; i++)
        close(peers[i]);
    CHECK_EQ(reeve_close(listener), 0);
    return 0;
}

TEST(with_little_room_an_acceptor_accepts_one_by_one)
{
    RUN(little_room, .workers = 1);
}

static int not_taken(void *arg)
{
    (void)arg;
    int listener = (int)CHECK_OK(reeve_listen("127.0.0.1:0", 0)), peers[CROWD];
    struct rv_acceptor a;
    rv_acceptor_start(&a, listener);
    CHECK_EQ(rv_acceptor_take(&a, 100000, SOON), -ETIMEDOUT);
    for (int i = 0; i < CROWD; i++) {
        peers[i] = peer_connect(listener);
        CHECK_EQ(reeve_sleep(reeve_in(10 * REEVE_US)), 0);
    }
    CHECK_LE(COUNTER(accepted), CROWD / 2); /* the others wait in the kernel */
    for (int i = 0; i < CROWD; i++)
        CHECK_EQ(reeve_close((int)CHECK_OK(rv_acceptor_take(&a, 100000, LONG))), 0);
    rv_acceptor_stop(&a);
    for (int i = 0; i < CROWD; i++)
        close(peers[i]);
    CHECK_EQ(reeve_close(listener), 0);
    return 0;
}

TEST(an_acceptor_whose_task_is_busy_stops_accepting)
{
    RUN(not_taken, .workers = 1);
}

static int stops(void *arg)
{
    (void)arg;
    int listener = (int)CHECK_OK(reeve_listen("127.0.0.1:0", 0)), peers[20];
    struct rv_acceptor a;
    peers[0] = peer_connect(listener);
    await_backlog(listener, 1); /* it is the first */
    rv_acceptor_start(&a, listener);
    for (int i = 1; i < 20; i++)
        peers[i] = peer_connect(listener);
    int fd = (int)CHECK_OK(rv_acceptor_take(&a, 100000, LONG));
    rv_acceptor_stop(&a);
    CHECK_EQ(a.op, 0);
    CHECK_EQ(a.waiting, 0);
    CHECK_EQ(reeve_close(listener), 0);
    /* closed by stop, or reset with the backlog: nobody is left hanging */
    for (int i = 0; i < 20; i++) {
        struct timeval limit = { .tv_sec = i == 0 ? 0 : 120, .tv_usec = 1000 };
        char c;
        CHECK_EQ(setsockopt(peers[i], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
        ssize_t n = recv(peers[i], &c, 1, 0);
        CHECK(i == 0 ? n < 0 && errno == EAGAIN : n == 0 || errno == ECONNRESET);
        close(peers[i]);
    }
    CHECK_EQ(reeve_close(fd), 0);
    return 0;
}

TEST(a_stopped_acceptor_closes_what_nobody_took)
{
    RUN(stops, .workers = 1);
}

static int take_one(void *arg)
{
    struct call *c = arg;
    struct rv_acceptor a;
    rv_acceptor_start(&a, c->fd);
    c->result = rv_acceptor_take(&a, 100000, LONG);
    rv_acceptor_stop(&a);
    return 0;
}

static int taker_ends(void *arg)
{
    (void)arg;
    for (int i = 0; i < 20; i++) {
        struct call c = { .fd = (int)CHECK_OK(reeve_listen("127.0.0.1:0", 0)) };
        reeve_task *t;
        CHECK_EQ(reeve_spawn(&t, take_one, &c), 0);
        CHECK_EQ(reeve_sleep(reeve_in(100 * REEVE_US)), 0);
        if (i % 2)
            reeve_cancel(t);
        else
            CHECK_EQ(reeve_close(c.fd), 0);
        CHECK_EQ(reeve_join(t, NULL, LONG), 0);
        if (i % 2) {
            CHECK(c.result == -ECANCELED || c.result == 0);
            CHECK_EQ(reeve_close(c.fd), 0);
        } else {
            CHECK_EQ(c.result, -EBADF);
        }
        await_closed(c.fd);
    }
    return 0;
}

TEST(an_acceptor_ends_with_its_listener_and_with_its_task)
{
    RUN(taker_ends, .workers = 1);
    RUN(taker_ends, .workers = 2);
}

static int no_descriptors(void *arg)
{
    (void)arg;
    int listener = (int)CHECK_OK(reeve_listen("127.0.0.1:0", 0));
    int peers[2] = { peer_connect(listener), peer_connect(listener) };
    struct rv_acceptor a;
    struct rlimit lim, was;
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &was), 0);
    lim = was;
    lim.rlim_cur = (rlim_t)peers[1] + 1;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &lim), 0);
    reeve_time begin = reeve_now();
    rv_acceptor_start(&a, listener);
    while (COUNTER(accept_pauses) == 0)
        CHECK_EQ(rv_acceptor_take(&a, 100000, reeve_in(10 * REEVE_MS)), -ETIMEDOUT);
    uint64_t ops = COUNTER(ops);
    CHECK_EQ(rv_acceptor_take(&a, 100000, reeve_in(10 * REEVE_MS)), -ETIMEDOUT);
    /* It does not even try while it pauses, for 100 ms each time. */
    CHECK_LE(COUNTER(ops) - ops, (uint64_t)(reeve_now() - begin + REEVE_MS) / (100 * REEVE_MS));
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &was), 0);
    int fd = (int)CHECK_OK(rv_acceptor_take(&a, 100000, LONG));
    rv_acceptor_stop(&a);
    CHECK_EQ(reeve_close(fd), 0);
    CHECK_EQ(reeve_close(listener), 0);
    close(peers[0]);
    close(peers[1]);
    return 0;
}

TEST(an_acceptor_pauses_when_descriptors_run_out_and_goes_on)
{
    RUN(no_descriptors, .workers = 1);
}

TEST(waiting_outside_a_task_ends_the_process_with_a_sentence)
{
    char c;
    CHECK_DIES("reeve_accept was called outside a task", reeve_accept(0, 0));
    CHECK_DIES("reeve_dial was called outside a task", reeve_dial("127.0.0.1:1", 0));
    CHECK_DIES("reeve_read was called outside a task", reeve_read(0, &c, 1, 0));
    CHECK_DIES("reeve_write was called outside a task", reeve_write(0, &c, 1, 0));
}
