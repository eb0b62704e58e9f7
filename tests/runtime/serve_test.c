/* SPDX-License-Identifier: MIT */
/*
 * serve_test.c -- runtime/serve.c: what comes in is served, whatever the peers do; limits hold; the
 * end is a drain.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>

#include "runtime/runtime.h"
#include "tests/runtime/server.h"

/* ---- echo ------------------------------------------------------------------------------------ */

/* One connection of a client in tasks: one writes, another reads and compares. */
struct stream {
    struct server *sv;
    int fd;
    uint64_t seed; /* where in the pattern its bytes begin */
    size_t len;
};

enum { PIECE_MAX = 1 << 20 };

/* In pieces of 1 B .. 1 MiB, each order of magnitude as often as the others. */
static size_t piece_of(uint32_t *random)
{
    *random = *random * 1664525 + 1013904223;
    uint32_t bits = (*random >> 8) % 21;
    return (size_t)1 << bits | ((*random >> 13) & ((1u << bits) - 1));
}

static int write_stream(void *arg)
{
    struct stream *s = arg;
    uint32_t random = (uint32_t)s->seed;
    unsigned char *buf = malloc(2 * PIECE_MAX);
    CHECK(buf);
    for (size_t at = 0; at < s->len;) {
        size_t n = piece_of(&random);
        if (n > s->len - at)
            n = s->len - at;
        fill_pattern(buf, n, s->seed + at);
        CHECK_EQ(reeve_write(s->fd, buf, n, LONG), (ssize_t)n);
        at += n;
    }
    free(buf);
    return 0;
}

static int read_stream(void *arg)
{
    struct stream *s = arg;
    uint32_t random = (uint32_t)s->seed + 1;
    unsigned char *buf = malloc(2 * PIECE_MAX);
    CHECK(buf);
    for (size_t at = 0; at < s->len;) {
        ssize_t n = reeve_read(s->fd, buf, piece_of(&random), LONG);
        CHECK_GT(n, 0);
        check_pattern(buf, (size_t)n, s->seed + at);
        at += (size_t)n;
    }
    free(buf);
    return 0;
}

static int play_stream(void *arg)
{
    struct stream *s = arg;
    char addr[32];
    snprintf(addr, sizeof addr, "127.0.0.1:%d", s->sv->port);
    s->fd = (int)CHECK_OK(reeve_dial(addr, LONG));
    reeve_task *writer;
    CHECK_OK(reeve_spawn(&writer, write_stream, s));
    CHECK_OK(read_stream(s));
    CHECK_OK(reeve_join(writer, NULL, LONG));
    return reeve_close(s->fd);
}

enum { STREAMS = 48 };

static int play_streams(void *arg)
{
    static struct stream s[STREAMS];
    reeve_group g = { 0 };
    for (size_t i = 0; i < STREAMS; i++) {
        s[i] = (struct stream){ .sv = arg,
                                .seed = i * 1000003,
                                .len = i % 4 ? 10000 * i : (2 << 20) / SLOWER };
        CHECK_OK(reeve_go(play_stream, &s[i], .group = &g));
    }
    return reeve_group_wait(&g, 0);
}

TEST(every_byte_of_many_connections_comes_back_in_order)
{
    struct server sv = { .how.handler = echo };
    server_start(&sv, 2);
    CHECK_EQ(reeve_run(play_streams, &sv, .workers = 2), 0);
    CHECK_EQ(rv_load_acquire(&sv.total), STREAMS);
    CHECK_EQ(server_stop(&sv), 0);
    CHECK_EQ(rv_load_acquire(&sv.live), 0);
    server_end(&sv);
}

TEST(client_and_server_in_one_runtime_echo_as_well)
{
    struct server sv = { .how.handler = echo };
    server_start(&sv, 2);
    CHECK_EQ(reeve_call(sv.rt, play_streams, &sv, 0), 0);
    CHECK_EQ(server_stop(&sv), 0);
    server_end(&sv);
}

TEST(a_peer_that_sends_one_byte_at_a_time_is_echoed)
{
    struct server sv = { .how.handler = echo };
    server_start(&sv, 2);
    int fd = peer_connect(sv.port);
    unsigned n = times(4000);
    unsigned char *out = malloc(n), *back = malloc(n);
    CHECK(out && back);
    fill_pattern(out, n, 0);
    for (unsigned i = 0; i < n; i++)
        peer_send(fd, &out[i], 1);
    peer_receive(fd, back, n);
    check_pattern(back, n, 0);
    free(out);
    free(back);
    close(fd);
    CHECK_EQ(server_stop(&sv), 0);
    server_end(&sv);
}

/* ---- peers that misbehave -------------------------------------------------------------------- */

TEST(a_peer_that_closes_its_half_gets_the_rest_and_then_the_end)
{
    enum { LEN = 400000 };
    struct server sv = { .how.handler = echo };
    server_start(&sv, 2);
    static unsigned char out[LEN], back[LEN];
    fill_pattern(out, LEN, 7);
    for (unsigned round = 0; round < times(20) + 2; round++) {
        size_t len = round ? LEN / round : LEN;
        int fd = peer_connect(sv.port);
        for (size_t sent = 0, got = 0; got < len;) { /* never so far ahead that both sides block */
            size_t n = len - sent < 65536 ? len - sent : 65536;
            peer_send(fd, out + sent, n);
            sent += n;
            if (sent == len)
                CHECK_EQ(shutdown(fd, SHUT_WR), 0);
            peer_receive(fd, back + got, sent - got);
            got = sent;
        }
        CHECK_MEM_EQ(back, out, len);
        peer_end(fd);
    }
    CHECK_EQ(server_stop(&sv), 0);
    server_end(&sv);
}

TEST(what_was_sent_before_the_half_close_is_echoed_though_nobody_had_read)
{
    struct server sv = { .how.handler = echo };
    server_start(&sv, 1);
    char back[32];
    for (unsigned i = 0; i < 200; i++) {
        int fd = peer_connect(sv.port);
        peer_send(fd, "all at once", 11);
        CHECK_EQ(shutdown(fd, SHUT_WR), 0);
        peer_receive(fd, back, 11);
        CHECK_MEM_EQ(back, "all at once", 11);
        peer_end(fd);
    }
    CHECK_EQ(server_stop(&sv), 0);
    server_end(&sv);
}

TEST(peers_that_reset_end_their_own_connection_only)
{
    struct server sv = { .how.handler = echo };
    server_start(&sv, 2);
    static char data[100000];
    int witness = peer_connect(sv.port);
    for (unsigned i = 0; i < 100; i++) {
        int fd = peer_connect(sv.port);
        if (i % 3)
            CHECK_GT(send(fd, data, i % 3 == 1 ? 1 : sizeof data, MSG_NOSIGNAL | MSG_DONTWAIT), 0);
        peer_reset(fd);
        peer_echo(witness, "still here", 10);
    }
    AWAIT(rv_load_acquire(&sv.total) == 101); /* the last may be waiting to be accepted */
    AWAIT(stats_of(sv.rt).conns_live == 1);
    peer_echo(witness, "and after", 9);
    close(witness);
    CHECK_EQ(server_stop(&sv), 0);
    server_end(&sv);
}

/* Echoes with little patience for peers that do not read. */
static int echo_impatiently(int fd, void *ctx)
{
    struct server *sv = ctx;
    char buf[65536];
    ssize_t n;
    while ((n = reeve_read(fd, buf, sizeof buf, 0)) > 0)
        if ((n = reeve_write(fd, buf, (size_t)n, reeve_in(300 * REEVE_MS))) < 0)
            break;
    if (n == -ETIMEDOUT)
        sem_post(&sv->event);
    return (int)n;
}

TEST(a_peer_that_never_reads_times_out_while_others_go_on)
{
    struct server sv = { .how.handler = echo_impatiently };
    server_start(&sv, 2);
    static char data[65536];
    int deaf = peer_connect(sv.port), other = peer_connect(sv.port);
    peer_echo(other, "before", 6);
    uint64_t sent = 0;
    ssize_t n;
    struct pollfd room = { .fd = deaf, .events = POLLOUT };
    do { /* until the server has stopped reading, because it cannot write */
        n = send(deaf, data, sizeof data, MSG_NOSIGNAL | MSG_DONTWAIT);
        sent += n > 0 ? (uint64_t)n : 0;
    } while (n > 0 || (n < 0 && errno == EAGAIN && poll(&room, 1, 100) > 0));
    CHECK_GT(sent, 0);
    for (int i = 0; i < 20; i++)
        peer_echo(other, "meanwhile", 9);
    while (sem_trywait(&sv.event) < 0) /* it may just have been slow: then it can take some more */
        if (send(deaf, data, sizeof data, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
            pause_ms(1);
    peer_echo(other, "after", 5);
    close(other);
    close(deaf);
    CHECK_EQ(server_stop(&sv), 0);
    server_end(&sv);
}

/* ---- limits ---------------------------------------------------------------------------------- */

TEST(conns_max_holds_and_the_rest_is_served_later)
{
    enum { MAX = 4, PEERS = 30 };
    struct server sv = { .how = { .handler = echo, .conns_max = MAX } };
    server_start(&sv, 2);
    int fd[PEERS];
    struct pollfd answered[PEERS];
    for (int i = 0; i < PEERS; i++) {
        fd[i] = peer_connect(sv.port);
        peer_send(fd[i], "?", 1);
        answered[i] = (struct pollfd){ .fd = fd[i], .events = POLLIN };
    }
    AWAIT(stats_of(sv.rt).shed > 0 && rv_load_acquire(&sv.live) == MAX);
    for (int served = 0; served < PEERS; served++) {
        char byte;
        CHECK_GT(poll(answered, PEERS, -1), 0);
        int i = 0;
        while (!answered[i].revents)
            i++;
        peer_receive(fd[i], &byte, 1);
        CHECK_LE(stats_of(sv.rt).conns_live, MAX);
        CHECK_LE(stats_of(sv.rt).accepted, (uint64_t)(served + MAX));
        close(fd[i]);
        answered[i].fd = -1;
    }
    AWAIT(stats_of(sv.rt).conns_live == 0);
    CHECK_EQ(rv_load_acquire(&sv.total), PEERS);
    CHECK_EQ(rv_load_acquire(&sv.most), MAX);
    CHECK_EQ(server_stop(&sv), 0);
    server_end(&sv);
}

/* At least so many descriptors may be open. */
static void need_fds(rlim_t n)
{
    struct rlimit lim;
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &lim), 0);
    if (lim.rlim_cur >= n)
        return;
    lim.rlim_cur = n;
    if (lim.rlim_max < n || setrlimit(RLIMIT_NOFILE, &lim) < 0)
        SKIP("too few descriptors are allowed");
}

TEST(conns_max_holds_for_a_flood_that_is_larger_than_it)
{
    enum { MAX = 600, PEERS = 1500 };
    need_fds(2 * PEERS + 100);
    struct server sv = { .how = { .handler = echo, .conns_max = MAX } };
    server_start(&sv, 2);
    static int fd[PEERS];
    for (int i = 0; i < PEERS; i++)
        fd[i] = peer_connect(sv.port);
    AWAIT(stats_of(sv.rt).shed > 0);
    CHECK_LE(stats_of(sv.rt).accepted, MAX);
    for (int i = 0; i < PEERS; i++) {
        peer_echo(fd[i], "my turn", 7);
        CHECK_LE(stats_of(sv.rt).accepted, (uint64_t)(i + MAX));
        close(fd[i]);
    }
    AWAIT(stats_of(sv.rt).conns_live == 0);
    CHECK_EQ(rv_load_acquire(&sv.total), PEERS);
    CHECK_LE(rv_load_acquire(&sv.most), MAX);
    CHECK_EQ(server_stop(&sv), 0);
    server_end(&sv);
}

/* Lets the process open so many descriptors more than it has. */
static void allow_fds(unsigned more)
{
    struct rlimit lim;
    int next = dup(0);
    CHECK_OK(next);
    close(next);
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &lim), 0);
    lim.rlim_cur = (rlim_t)next + more;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &lim), 0);
}

TEST(when_descriptors_run_out_accepting_pauses_without_spinning_and_recovers)
{
    enum { PEERS = 60, SERVERS = 3, SPARE = 10, PAUSES = 4 };
    struct server sv = { .how = { .handler = echo, .conns_max = 1000 } };
    int fd[PEERS];
    uring_or_skip();
    reeve *rt;
    CHECK_OK(reeve_create(&rt, &(struct reeve_opts){ .workers = 2 }));
    for (int i = 0; i < PEERS; i++)
        fd[i] = peer_socket();
    allow_fds(SERVERS + SPARE); /* the kernel looks at the limit when an accept is requested */
    server_post(&sv, rt);
    await_sem(&sv.listening);
    for (int i = 0; i < PEERS; i++) {
        CHECK_OK(peer_try(fd[i], sv.port));
        peer_send(fd[i], "?", 1);
    }
    AWAIT(stats_of(sv.rt).emfile > 0 && stats_of(sv.rt).accepted == SPARE);
    struct reeve_stats a = stats_of(sv.rt), b;
    while (b = stats_of(sv.rt), b.emfile < a.emfile + PAUSES)
        pause_ms(10);
    CHECK_LE(b.enters - a.enters, (b.emfile - a.emfile) * 40); /* a few for each pause */
    CHECK_LE(b.passes - a.passes, (b.emfile - a.emfile) * 100);
    CHECK_EQ(b.accepted, SPARE);
    for (int i = 0; i < PEERS; i++) { /* in the order in which they came; each makes room */
        char byte;
        peer_receive(fd[i], &byte, 1);
        close(fd[i]);
    }
    AWAIT(stats_of(sv.rt).conns_live == 0);
    CHECK_EQ(rv_load_acquire(&sv.total), PEERS);
    CHECK_EQ(server_stop(&sv), 0);
    server_end(&sv);
}

TEST(without_conns_max_some_descriptors_are_left_for_other_uses)
{
    enum { PEERS = 200, LIMIT = 100, OTHERS = 64 };
    struct server sv = { .how.handler = echo };
    int fd[PEERS];
    uring_or_skip();
    struct rlimit lim, was;
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &was), 0);
    lim = was;
    lim.rlim_cur = LIMIT + OTHERS;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &lim), 0);
    server_start(&sv, 1); /* it has looked at the limit when it listens */
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &was), 0);
    need_fds(2 * PEERS + 100);
    for (int i = 0; i < PEERS; i++)
        fd[i] = peer_connect(sv.port);
    AWAIT(stats_of(sv.rt).shed > 0 && rv_load_acquire(&sv.live) == LIMIT);
    CHECK_EQ(stats_of(sv.rt).accepted, LIMIT);
    for (int i = 0; i < PEERS; i++) {
        peer_echo(fd[i], "hello", 5);
        close(fd[i]);
    }
    CHECK_EQ(server_stop(&sv), 0);
    CHECK_EQ(rv_load_acquire(&sv.most), LIMIT);
    server_end(&sv);
}

static int echo_and_note_end(int fd, void *ctx)
{
    struct server *sv = ctx;
    int r = echo_until_end(fd);
    rv_add_acq_rel(&sv->total, r == -ETIMEDOUT);
    sem_post(&sv->event);
    return r;
}

TEST(idle_connections_end_after_idle_ns)
{
    enum { PEERS = 5 };
    struct server sv = { .how = { .handler = echo_and_note_end, .idle_ns = 30 * REEVE_MS } };
    server_start(&sv, 2);
    int fd[PEERS];
    for (int i = 0; i < PEERS; i++)
        fd[i] = peer_connect(sv.port);
    for (int i = 0; i < PEERS; i++)
        peer_end(fd[i]); /* nothing was asked, so nothing comes but the end */
    for (int i = 0; i < PEERS; i++)
        await_sem(&sv.event);
    CHECK_EQ(rv_load_acquire(&sv.total), PEERS);
    CHECK_EQ(server_stop(&sv), 0); /* the handlers have not only said so, but ended */
    CHECK_GE(stats_of(sv.rt).failed, PEERS);
    server_end(&sv);
}

/* A read with a deadline of its own is not the server's business. */
static int read_patiently(int fd, void *ctx)
{
    struct server *sv = ctx;
    char byte;
    CHECK_EQ(reeve_read(fd, &byte, 1, 0), -ETIMEDOUT);
    sem_post(&sv->event);
    CHECK_EQ(reeve_read(fd, &byte, 1, LONG), 1);
    sem_post(&sv->event);
    return 0;
}

TEST(idle_ns_is_what_deadline_0_means_and_nothing_else)
{
    struct server sv = { .how = { .handler = read_patiently, .idle_ns = REEVE_MS } };
    server_start(&sv, 1);
    int fd = peer_connect(sv.port);
    await_sem(&sv.event);
    pause_ms(20); /* twenty times idle_ns: the read is still there */
    peer_send(fd, "x", 1);
    await_sem(&sv.event);
    peer_end(fd);
    CHECK_EQ(server_stop(&sv), 0);
    server_end(&sv);
}

/* ---- draining -------------------------------------------------------------------------------- */

#define PATIENT (120 * REEVE_SEC) /* a drain that ends by itself */

/* Reads one byte, says so, waits until the test lets it go on, and echoes what has come then. */
static int echo_after_go(int fd, void *ctx)
{
    struct server *sv = ctx;
    char first;
    CHECK_EQ(reeve_read(fd, &first, 1, LONG), 1);
    sem_post(&sv->event);
    CHECK_OK(await_fd(sv->go_fd));
    int r = echo_until_end(fd);
    rv_add_acq_rel(&sv->total, r == -ESHUTDOWN);
    return r;
}

TEST(a_drain_echoes_what_was_received_and_ends_idle_readers)
{
    enum { PEERS = 8 };
    struct server sv = { .how = { .handler = echo_after_go, .drain_ns = PATIENT } };
    server_start(&sv, 2);
    int fd[PEERS];
    char back[16];
    for (int i = 0; i < PEERS; i++) {
        fd[i] = peer_connect(sv.port);
        peer_send(fd[i], "1", 1);
        await_sem(&sv.event);
        if (i % 2)
            peer_send(fd[i], "the rest", 8);
    }
    server_cancel(&sv);
    await_closed_door(sv.port); /* it drains now */
    signal_fd(sv.go_fd, PEERS);
    for (int i = 0; i < PEERS; i++) {
        if (i % 2) {
            peer_receive(fd[i], back, 8);
            CHECK_MEM_EQ(back, "the rest", 8);
        }
        peer_end(fd[i]);
    }
    CHECK_EQ(server_wait(&sv), 0);
    CHECK_EQ(rv_load_acquire(&sv.total), PEERS);
    server_end(&sv);
}

/* The same, but nothing was read before the drain. */
static int echo_only_after_go(int fd, void *ctx)
{
    struct server *sv = ctx;
    sem_post(&sv->event);
    CHECK_OK(await_fd(sv->go_fd));
    int r = echo_until_end(fd);
    rv_add_acq_rel(&sv->total, r == -ESHUTDOWN);
    return r;
}

TEST(a_drain_echoes_what_came_before_the_first_read)
{
    enum { PEERS = 8 };
    struct server sv = { .how = { .handler = echo_only_after_go, .drain_ns = PATIENT } };
    server_start(&sv, 2);
    int fd[PEERS];
    char back[16];
    for (int i = 0; i < PEERS; i++) {
        fd[i] = peer_connect(sv.port);
        peer_send(fd[i], "a request", 9);
        await_sem(&sv.event);
    }
    server_cancel(&sv);
    await_closed_door(sv.port);
    signal_fd(sv.go_fd, PEERS);
    for (int i = 0; i < PEERS; i++) {
        peer_receive(fd[i], back, 9);
        CHECK_MEM_EQ(back, "a request", 9);
        peer_end(fd[i]);
    }
    CHECK_EQ(server_wait(&sv), 0);
    CHECK_EQ(rv_load_acquire(&sv.total), PEERS);
    server_end(&sv);
}

/* All that the peer has sent lies in the server's socket. */
static void await_arrival(int fd)
{
    int unacknowledged = 1;
    while (unacknowledged) {
        CHECK_EQ(ioctl(fd, SIOCOUTQ, &unacknowledged), 0);
        if (unacknowledged)
            pause_ms(1);
    }
}

TEST(a_drain_answers_every_request_that_had_arrived)
{
    enum { PEERS = 16 };
    for (unsigned round = 0; round < times(60); round++) {
        struct server sv = { .how = { .handler = echo, .drain_ns = PATIENT } };
        server_start(&sv, 1 + round % 3);
        int fd[PEERS];
        char back[8];
        for (int i = 0; i < PEERS; i++) {
            fd[i] = peer_connect(sv.port);
            peer_echo(fd[i], "before", 6);
        }
        for (int i = 0; i < PEERS; i++)
            peer_send(fd[i], "the last", 8);
        for (int i = 0; i < PEERS; i++)
            await_arrival(fd[i]);
        server_cancel(&sv);
        for (int i = 0; i < PEERS; i++) {
            peer_receive(fd[i], back, 8);
            CHECK_MEM_EQ(back, "the last", 8);
            peer_end(fd[i]);
        }
        CHECK_EQ(server_wait(&sv), 0);
        server_end(&sv);
    }
}

TEST(a_drain_ends_idle_connections_at_once)
{
    enum { PEERS = 20 };
    struct server sv = { .how.handler = echo };
    server_start(&sv, 2);
    int fd[PEERS];
    for (int i = 0; i < PEERS; i++) {
        fd[i] = peer_connect(sv.port);
        peer_echo(fd[i], "hello", 5);
    }
    CHECK_EQ(server_stop(&sv), 0);
    for (int i = 0; i < PEERS; i++)
        peer_end(fd[i]);
    CHECK_EQ(stats_of(sv.rt).conns_live, 0);
    server_end(&sv);
}

/* All calls but reads that find nothing work as before while the server drains. */
static int talk_through_the_drain(int fd, void *ctx)
{
    struct server *sv = ctx;
    char byte;
    struct reeve_buf *buf;
    sem_post(&sv->event);
    CHECK_OK(await_fd(sv->go_fd));
    CHECK_EQ(reeve_read(fd, &byte, 1, 0), -ESHUTDOWN);
    CHECK_EQ(reeve_read(fd, &byte, 1, LONG), -ESHUTDOWN);
    CHECK_EQ(reeve_buf_recv(fd, &buf, 0), -ESHUTDOWN);
    CHECK_EQ(reeve_sleep(reeve_in(5 * REEVE_MS)), 0);
    CHECK_OK(reeve_buf_borrow(&buf, 0));
    memcpy(buf->data, "farewell", buf->len = 8);
    CHECK_EQ(reeve_buf_send(fd, buf, LONG), 8);
    return 0;
}

TEST(a_draining_handler_can_do_all_but_wait_for_more)
{
    struct server sv = { .how = { .handler = talk_through_the_drain, .drain_ns = PATIENT } };
    server_start(&sv, 2);
    char back[8];
    int fd = peer_connect(sv.port);
    await_sem(&sv.event);
    server_cancel(&sv);
    await_closed_door(sv.port);
    signal_fd(sv.go_fd, 1);
    peer_receive(fd, back, 8);
    CHECK_MEM_EQ(back, "farewell", 8);
    peer_end(fd);
    CHECK_EQ(server_wait(&sv), 0);
    server_end(&sv);
}

/* Less than the 10 s that a drain lasts when nothing is said. */
#define IGNORED_FOR (8 * REEVE_SEC)

static int ignore_the_drain(int fd, void *ctx)
{
    struct server *sv = ctx;
    (void)fd;
    sem_post(&sv->event);
    int r = reeve_sleep(reeve_in(IGNORED_FOR));
    rv_add_acq_rel(&sv->total, r == -ECANCELED);
    return r;
}

/* A server whose handlers ignore the drain: how long they could, and how many timers fired in that
 * time; false: one of them was never cancelled. */
static bool stop_ignored(int64_t drain_ns, int64_t *ret_ns, uint64_t *ret_timers)
{
    struct server sv = { .how = { .handler = ignore_the_drain, .drain_ns = drain_ns } };
    int fd[4];
    server_start(&sv, 2);
    for (int i = 0; i < 4; i++) {
        fd[i] = peer_connect(sv.port);
        await_sem(&sv.event);
    }
    int64_t begin = reeve_now();
    uint64_t timers = stats_of(sv.rt).timers_fired;
    int r = server_stop(&sv);
    *ret_timers = stats_of(sv.rt).timers_fired - timers;
    *ret_ns = reeve_now() - begin;
    bool all = rv_load_acquire(&sv.total) == 4;
    if (all)
        CHECK_EQ(r, -ECANCELED);
    for (int i = 0; i < 4; i++)
        peer_end(fd[i]);
    server_end(&sv);
    return all;
}

TEST(a_handler_that_ignores_the_drain_is_cancelled_after_drain_ns)
{
    int64_t ns;
    uint64_t timers;
    int tries = 0;
    while (!stop_ignored(50 * REEVE_MS, &ns, &timers)) /* or this machine stood still for seconds */
        CHECK_LT(++tries, 3);
    CHECK_GE(ns, 50 * REEVE_MS);
    CHECK_EQ(timers, 1);
}

TEST(a_negative_drain_ns_cancels_without_waiting_for_anything)
{
    int64_t ns, least[] = { -1, -3600 * REEVE_SEC, INT64_MIN };
    uint64_t timers;
    for (int i = 0; i < 3; i++) {
        CHECK(stop_ignored(least[i], &ns, &timers));
        CHECK_EQ(timers, 0);
    }
}

TEST(a_deadline_ends_a_server_in_the_same_way)
{
    for (unsigned i = 0; i < 20; i++) {
        struct server sv = { .how.handler = echo, .lasts_ns = 20 * REEVE_MS };
        server_start(&sv, 1 + i % 3);
        int fd = peer_socket();
        if (peer_try(fd, sv.port) == 0 && i % 2) /* the server may be over by now */
            (void)!send(fd, "hello", 5, MSG_NOSIGNAL);
        CHECK_EQ(server_wait(&sv), -ETIMEDOUT);
        await_closed_door(sv.port);
        close(fd);
        CHECK_EQ(stats_of(sv.rt).conns_live, 0);
        server_end(&sv);
    }
}

TEST(the_deadline_of_a_server_is_not_its_connections_own)
{
    struct server sv = { .how = { .handler = talk_through_the_drain, .drain_ns = PATIENT },
                         .lasts_ns = 500 * REEVE_MS };
    server_start(&sv, 2);
    char back[8];
    int fd = peer_socket();
    bool over = peer_try(fd, sv.port) < 0;
    while (!over && sem_trywait(&sv.event) < 0)
        over = sem_trywait(&sv.ended) == 0;
    if (over)
        SKIP("this machine was too slow to accept in time");
    await_closed_door(sv.port); /* the deadline has passed */
    signal_fd(sv.go_fd, 1);
    peer_receive(fd, back, 8);
    CHECK_MEM_EQ(back, "farewell", 8);
    peer_end(fd);
    CHECK_EQ(server_wait(&sv), -ETIMEDOUT);
    server_end(&sv);
}

TEST(a_shutdown_drains_every_server)
{
    struct server a = { .how.handler = echo }, b = { .how.handler = echo };
    server_start(&a, 2);
    server_post(&b, a.rt);
    await_sem(&b.listening);
    int fa = peer_connect(a.port), fb = peer_connect(b.port);
    peer_echo(fa, "hello", 5);
    peer_echo(fb, "hello", 5);
    CHECK_EQ(reeve_shutdown(a.rt, 0), 0);
    CHECK_EQ(server_wait(&a), 0);
    CHECK_EQ(server_wait(&b), 0);
    peer_end(fa);
    peer_end(fb);
    reeve_destroy(a.rt);
    server_free(&a);
    server_free(&b);
}

static int shut_down_inside(int fd, void *ctx)
{
    struct server *sv = ctx;
    CHECK_EQ(reeve_shutdown(reeve_self(), 0), 0);
    CHECK_EQ(reeve_write(fd, "bye", 3, LONG), 3);
    sem_post(&sv->event);
    return 0;
}

TEST(a_handler_may_shut_down_the_runtime_that_serves_it)
{
    struct server sv = { .how.handler = shut_down_inside };
    server_start(&sv, 2);
    char back[3];
    int fd = peer_connect(sv.port);
    peer_receive(fd, back, 3);
    CHECK_MEM_EQ(back, "bye", 3);
    peer_end(fd);
    CHECK_EQ(server_wait(&sv), 0);
    server_end(&sv);
}

TEST(a_server_that_begins_during_a_shutdown_ends_at_once)
{
    uring_or_skip();
    struct server sv = { .how.handler = echo };
    reeve *rt;
    for (int i = 0; i < 50; i++) {
        CHECK_OK(reeve_create(&rt, &(struct reeve_opts){ .workers = 2 }));
        server_post(&sv, rt);
        CHECK_EQ(reeve_shutdown(rt, 0), 0);
        CHECK_EQ(server_wait(&sv), 0);
        reeve_destroy(rt);
        server_free(&sv);
    }
}

/* ---- beginnings ------------------------------------------------------------------------------ */

static int begin(void *arg)
{
    return reeve_serve_with(arg, 0);
}

TEST(what_cannot_be_served_is_refused_before_anything_is)
{
    uring_or_skip();
    reeve *rt;
    char taken[32];
    CHECK_OK(reeve_create(&rt, NULL));
    static const struct {
        struct reeve_serve how;
        int error;
    } wrong[] = {
        { { .handler = echo }, -EINVAL },
        { { .addr = "127.0.0.1:0" }, -EINVAL },
        { { .addr = "", .handler = echo }, -EINVAL },
        { { .addr = "127.0.0.1", .handler = echo }, -EINVAL },
        { { .addr = "127.0.0.1:99999", .handler = echo }, -EINVAL },
        { { .addr = "example.org:80", .handler = echo }, -EAFNOSUPPORT },
        { { .addr = "192.0.2.1:0", .handler = echo }, -EADDRNOTAVAIL },
        { { .addr = "127.0.0.1:0", .handler = echo, .idle_ns = -1 }, -EINVAL },
        { { .addr = "127.0.0.1:0", .handler = echo, .backlog = -1 }, -EINVAL },
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK_EQ(reeve_call(rt, begin, (void *)&wrong[i].how, 0), wrong[i].error);
    CHECK_EQ(reeve_call(rt, begin, NULL, 0), -EINVAL);
    struct server sv = { .how.handler = echo };
    server_post(&sv, rt);
    await_sem(&sv.listening);
    snprintf(taken, sizeof taken, "127.0.0.1:%d", sv.port);
    struct reeve_serve again = { .addr = taken, .handler = echo };
    CHECK_EQ(reeve_call(rt, begin, &again, 0), -EADDRINUSE);
    CHECK_EQ(server_stop(&sv), 0);
    server_end(&sv);
    CHECK_DIES("reeve_serve", reeve_serve_with(&again, 0));
}

static reeve *serving_runtime;
static int listenings;

static void note_listening(int fd, void *ctx)
{
    CHECK_NE(reeve_self(), NULL); /* in the serving task */
    CHECK_EQ(reeve_self(), serving_runtime);
    listenings++;
    server_listening(fd, ctx);
}

TEST(listening_tells_the_port_once_and_connections_can_come_in_from_then_on)
{
    uring_or_skip();
    struct server sv = { .how = { .handler = echo, .listening = note_listening } };
    CHECK_OK(reeve_create(&serving_runtime, NULL));
    server_post(&sv, serving_runtime);
    await_sem(&sv.listening);
    CHECK_GT(sv.port, 0);
    int fd = peer_connect(sv.port);
    peer_echo(fd, "hello", 5);
    close(fd);
    CHECK_EQ(server_stop(&sv), 0);
    CHECK_EQ(listenings, 1);
    server_end(&sv);
}

/* ---- handlers -------------------------------------------------------------------------------- */

struct late {
    struct server *sv;
    int fd;
};

static int write_after_go(void *arg)
{
    struct late *l = arg;
    CHECK_OK(await_fd(l->sv->go_fd));
    CHECK_EQ(reeve_write(l->fd, "late", 4, LONG), 4);
    return 0;
}

static int leave_a_writer(int fd, void *ctx)
{
    struct late l = { ctx, fd };
    CHECK_OK(reeve_go(write_after_go, &l, .copy = sizeof l));
    sem_post(&l.sv->event);
    return 0;
}

TEST(a_connection_is_closed_when_the_tasks_of_its_handler_are_done_too)
{
    struct server sv = { .how.handler = leave_a_writer };
    server_start(&sv, 2);
    char back[4];
    int fd[3];
    for (int i = 0; i < 3; i++) {
        fd[i] = peer_connect(sv.port);
        await_sem(&sv.event); /* the handler returns now */
    }
    CHECK_EQ(stats_of(sv.rt).conns_live, 3);
    signal_fd(sv.go_fd, 3);
    for (int i = 0; i < 3; i++) {
        peer_receive(fd[i], back, 4);
        CHECK_MEM_EQ(back, "late", 4);
        peer_end(fd[i]);
    }
    CHECK_EQ(server_stop(&sv), 0);
    server_end(&sv);
}

static int fail(int fd, void *ctx)
{
    (void)fd;
    (void)ctx;
    return -EPROTO;
}

TEST(a_handler_that_fails_ends_its_connection_and_nothing_else)
{
    struct server sv = { .how.handler = fail };
    server_start(&sv, 2);
    for (int i = 0; i < 20; i++)
        peer_end(peer_connect(sv.port));
    AWAIT(stats_of(sv.rt).conns_live == 0);
    AWAIT(stats_of(sv.rt).failed >= 20); /* the last of them is counted after its close */
    CHECK_EQ(stats_of(sv.rt).failed, 20);
    CHECK_EQ(server_stop(&sv), 0);
    server_end(&sv);
}

TEST(connections_are_spread_over_the_workers)
{
    enum { PEERS = 200 };
    need_fds(2 * PEERS + 100);
    struct server sv = { .how.handler = echo };
    server_start(&sv, 2);
    int fd[PEERS];
    for (int i = 0; i < PEERS; i++)
        fd[i] = peer_connect(sv.port);
    for (int i = 0; i < PEERS; i++)
        peer_echo(fd[i], "hello", 5);
    for (int i = 0; i < 2; i++)
        CHECK_GT(rv_load_acquire(&sv.rt->threads[i].conns), PEERS / 5);
    for (int i = 0; i < PEERS; i++)
        close(fd[i]);
    CHECK_EQ(server_stop(&sv), 0);
    for (int i = 0; i < 2; i++)
        CHECK_EQ(rv_load_acquire(&sv.rt->threads[i].conns), 0);
    server_end(&sv);
}

/* ---- beside other work ----------------------------------------------------------------------- */

enum { FIB_N = SLOWER > 1 ? 14 : 18, ROUNDS = 40 };

static int fib(void *arg)
{
    intptr_t n = (intptr_t)arg;
    reeve_task *t;
    int a, b;
    if (n < 2)
        return (int)n;
    CHECK_OK(reeve_spawn(&t, fib, (void *)(n - 1)));
    b = fib((void *)(n - 2));
    CHECK_OK(reeve_join(t, &a, 0));
    return a + b;
}

struct beside {
    struct server sv;
    bool over;
    unsigned fibs;
    unsigned prompt; /* echoes that took a handful of passes */
};

static int echo_beside(void *arg)
{
    struct beside *b = arg;
    char addr[32], back[8];
    snprintf(addr, sizeof addr, "127.0.0.1:%d", b->sv.port);
    int fd = (int)CHECK_OK(reeve_dial(addr, LONG));
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t before = stats_of(reeve_self()).passes;
        CHECK_EQ(reeve_write(fd, "request", 7, LONG), 7);
        for (ssize_t at = 0, n; at < 7; at += n)
            CHECK_GT(n = reeve_read(fd, back + at, (size_t)(7 - at), LONG), 0);
        b->prompt += stats_of(reeve_self()).passes - before <= 200;
    }
    b->over = true;
    return reeve_close(fd);
}

/* One worker does all: it computes, by spawning and joining, until the echoes are through. */
static int compute_beside(void *arg)
{
    struct beside *b = arg;
    CHECK_OK(reeve_go(echo_beside, b));
    while (!b->over) {
        CHECK_EQ(fib((void *)(intptr_t)FIB_N), FIB_N == 18 ? 2584 : 377);
        b->fibs++;
    }
    return 0;
}

TEST(requests_are_answered_while_the_only_worker_computes_by_fork_and_join)
{
    struct beside b = { .sv.how.handler = echo };
    server_start(&b.sv, 1);
    CHECK_EQ(reeve_call(b.sv.rt, compute_beside, &b, 0), 0);
    CHECK_GE(b.fibs, 1);
    CHECK_GT(b.prompt, 0); /* all but those that loopback, which has threads, delivers late */
    CHECK_EQ(server_stop(&b.sv), 0);
    server_end(&b.sv);
}

TEST(an_idle_server_makes_no_wake_ups)
{
    struct server sv = { .how.handler = echo };
    server_start(&sv, 3);
    int fd[10];
    for (int i = 0; i < 10; i++) {
        fd[i] = peer_connect(sv.port);
        peer_echo(fd[i], "hello", 5);
    }
    struct reeve_stats a, b;
    do { /* what was begun comes to rest sooner or later */
        a = stats_of(sv.rt);
        pause_ms(500);
        b = stats_of(sv.rt);
    } while (a.parks != b.parks || a.enters != b.enters || a.passes != b.passes ||
             a.wakes_sent != b.wakes_sent);
    for (int i = 0; i < 10; i++)
        peer_echo(fd[i], "again", 5);
    AWAIT(stats_of(sv.rt).parks > b.parks);
    for (int i = 0; i < 10; i++)
        close(fd[i]);
    CHECK_EQ(server_stop(&sv), 0);
    server_end(&sv);
}
