/* SPDX-License-Identifier: MIT */
/*
 * stream_test.c -- what a reader gets, from peers of all kinds.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <poll.h>

#include "io/fdtab.h"
#include "tests/io/pair.h"

#define LONG reeve_in(20 * REEVE_SEC)
#define SOON reeve_in(2 * REEVE_MS)

/* ---- order, ends ----------------------------------------------------------------------------- */

struct sender {
    int fd;
    size_t total, piece_max; /* 0: at random */
};

static void *send_pattern(void *arg)
{
    struct sender *s = arg;
    unsigned char buf[5000];
    unsigned seed = 1;
    for (size_t at = 0; at < s->total;) {
        size_t n = s->piece_max ? s->piece_max : 1 + (size_t)rand_r(&seed) % sizeof buf;
        if (n > s->total - at)
            n = s->total - at;
        fill_pattern(buf, n, at);
        peer_send(s->fd, buf, n);
        at += n;
    }
    CHECK_EQ(shutdown(s->fd, SHUT_WR), 0);
    return NULL;
}

static void receive_all(size_t total, size_t piece_max, size_t read_max)
{
    struct pair p = pair_make();
    struct sender s = { p.peer, total, piece_max };
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, send_pattern, &s), 0);
    static unsigned char buf[100000];
    unsigned seed = 2;
    size_t at = 0;
    ssize_t n;
    for (;;) {
        size_t want = 1 + (size_t)rand_r(&seed) % read_max;
        CHECK_GE(n = reeve_read(p.fd, buf, want, LONG), 0);
        if (n == 0)
            break;
        CHECK_LE((size_t)n, want);
        check_pattern(buf, (size_t)n, at);
        at += (size_t)n;
    }
    CHECK_EQ(at, total);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    pair_close(&p);
}

static int pieces(void *arg)
{
    (void)arg;
    receive_all(3 << 20, 0, 100000);
    receive_all(1 << 20, 0, 100);
    return 0;
}

TEST(bytes_come_in_order_whatever_pieces_they_are_sent_and_read_in)
{
    RUN(pieces, .workers = 2);
}

static int one_byte(void *arg)
{
    (void)arg;
    receive_all(5000, 1, 100000);
    receive_all(5000, 0, 1);
    return 0;
}

TEST(a_byte_at_a_time_is_enough_for_sender_and_reader)
{
    RUN(one_byte, .workers = 1);
}

static int leases(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    struct sender s = { p.peer, 1 << 20, 0 };
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, send_pattern, &s), 0);
    struct reeve_buf *b = NULL;
    size_t at = 0;
    ssize_t n;
    while ((n = reeve_buf_recv(p.fd, &b, LONG)) > 0) {
        CHECK_EQ(b->len, n);
        CHECK_LE(b->len, b->cap);
        check_pattern(b->data, b->len, at);
        at += b->len;
        reeve_buf_return(b);
    }
    CHECK_EQ(n, 0);
    CHECK_EQ(at, s.total);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    pair_close(&p);
    return 0;
}

TEST(leases_bring_the_same_bytes)
{
    RUN(leases, .workers = 2);
}

static int end_sticks(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    char buf[8];
    struct reeve_buf *b = NULL;
    peer_send(p.peer, "last", 4);
    CHECK_EQ(shutdown(p.peer, SHUT_WR), 0);
    read_exactly(p.fd, buf, 4);
    CHECK_MEM_EQ(buf, "last", 4);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(reeve_read(p.fd, buf, sizeof buf, LONG), 0);
        CHECK_EQ(reeve_buf_recv(p.fd, &b, LONG), 0);
    }
    CHECK(b == NULL);
    pair_close(&p);
    return 0;
}

TEST(the_end_comes_after_all_data_and_stays)
{
    RUN(end_sticks, .workers = 1);
}

static int half_close(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    char buf[8];
    CHECK_EQ(shutdown(p.peer, SHUT_WR), 0);
    CHECK_EQ(reeve_read(p.fd, buf, sizeof buf, LONG), 0);
    CHECK_EQ(reeve_write(p.fd, "still", 5, LONG), 5);
    CHECK_EQ(recv(p.peer, buf, sizeof buf, 0), 5);
    CHECK_MEM_EQ(buf, "still", 5);
    pair_close(&p);
    return 0;
}

TEST(a_peer_that_has_ended_its_half_still_receives)
{
    RUN(half_close, .workers = 1);
}

static int reset(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    char buf[8];
    peer_send(p.peer, "x", 1);
    read_exactly(p.fd, buf, 1);
    peer_reset(p.peer);
    p.peer = -1;
    CHECK_EQ(reeve_read(p.fd, buf, sizeof buf, LONG), -ECONNRESET);
    CHECK_EQ(reeve_read(p.fd, buf, sizeof buf, LONG), -ECONNRESET);
    pair_close(&p);
    return 0;
}

TEST(a_reset_is_an_error_that_stays)
{
    RUN(reset, .workers = 1);
}

/* ---- deadlines, cancellation, second readers ------------------------------------------------- */

static int times_out(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    char buf[8];
    struct reeve_buf *b = NULL;
    CHECK_EQ(reeve_read(p.fd, buf, sizeof buf, SOON), -ETIMEDOUT);
    CHECK_EQ(reeve_buf_recv(p.fd, &b, SOON), -ETIMEDOUT);
    peer_send(p.peer, "after", 5);
    read_exactly(p.fd, buf, 5);
    CHECK_MEM_EQ(buf, "after", 5);
    pair_close(&p);
    return 0;
}

TEST(a_read_that_timed_out_loses_nothing)
{
    RUN(times_out, .workers = 1);
}

static int polls(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    char buf[8];
    CHECK_EQ(reeve_read(p.fd, buf, sizeof buf, REEVE_POLL), -ETIMEDOUT);
    peer_send(p.peer, "now", 3);
    CHECK_EQ(reeve_read(p.fd, buf, sizeof buf, REEVE_POLL), 3);
    struct pair q = pair_make();
    peer_send(q.peer, "first", 5);
    CHECK_EQ(reeve_read(q.fd, buf, sizeof buf, REEVE_POLL), 5);
    pair_close(&p);
    pair_close(&q);
    return 0;
}

TEST(a_poll_takes_what_has_arrived_and_else_times_out)
{
    RUN(polls, .workers = 1);
}

struct reading {
    int fd;
    ssize_t result;
    char buf[16];
};

static int read_some(void *arg)
{
    struct reading *r = arg;
    r->result = reeve_read(r->fd, r->buf, sizeof r->buf, LONG);
    return 0;
}

static int poll_some(void *arg)
{
    struct reading *r = arg;
    r->result = reeve_read(r->fd, r->buf, sizeof r->buf, REEVE_POLL);
    return 0;
}

static int poll_from_afar(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    for (int i = 0; i < 200; i++) {
        struct reading r = { .fd = p.fd };
        reeve_task *t;
        peer_send(p.peer, "now", 3);
        CHECK_EQ(reeve_spawn(&t, poll_some, &r, .worker = 1 + i % 2), 0);
        CHECK_EQ(reeve_join(t, NULL, LONG), 0);
        CHECK_EQ(r.result, 3);
        CHECK_EQ(reeve_spawn(&t, poll_some, &r, .worker = 1 + i % 2), 0);
        CHECK_EQ(reeve_join(t, NULL, LONG), 0);
        CHECK_EQ(r.result, -ETIMEDOUT);
    }
    pair_close(&p);
    return 0;
}

TEST(a_poll_from_another_worker_takes_what_has_arrived_as_well)
{
    RUN(poll_from_afar, .workers = 2);
}

static int cancelled(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    struct reading r = { .fd = p.fd };
    reeve_task *t;
    CHECK_EQ(reeve_spawn(&t, read_some, &r), 0);
    await_waiter(p.fd, A_READER);
    reeve_cancel(t);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(r.result, -ECANCELED);
    peer_send(p.peer, "after", 5);
    read_exactly(p.fd, r.buf, 5);
    pair_close(&p);
    return 0;
}

TEST(a_cancelled_reader_leaves_the_stream_to_the_next)
{
    RUN(cancelled, .workers = 1);
    RUN(cancelled, .workers = 2);
}

static int second(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    struct reading r = { .fd = p.fd };
    reeve_task *t;
    char buf[8];
    struct reeve_buf *b = NULL;
    CHECK_EQ(reeve_spawn(&t, read_some, &r), 0);
    await_waiter(p.fd, A_READER);
    CHECK_EQ(reeve_read(p.fd, buf, sizeof buf, LONG), -EBUSY);
    CHECK_EQ(reeve_buf_recv(p.fd, &b, LONG), -EBUSY);
    peer_send(p.peer, "first", 5);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(r.result, 5);
    pair_close(&p);
    return 0;
}

TEST(a_second_reader_is_told_that_the_stream_is_busy)
{
    RUN(second, .workers = 1);
}

static int idle(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    char buf[8];
    rv_fd_set_idle(p.fd, 0, REEVE_MS);
    CHECK_EQ(reeve_read(p.fd, buf, sizeof buf, 0), -ETIMEDOUT);
    pair_close(&p);
    return 0;
}

TEST(deadline_0_is_the_idle_time_of_the_connection)
{
    RUN(idle, .workers = 1);
}

static int drain(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    struct reading r = { .fd = p.fd };
    reeve_task *t;
    CHECK_EQ(reeve_spawn(&t, read_some, &r), 0);
    await_waiter(p.fd, A_READER);
    rv_fd_drain(my_io(), p.fd, 0);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(r.result, -ESHUTDOWN);
    peer_send(p.peer, "pending", 7);
    while (!rv_fd_slot(p.fd)->first)
        CHECK_EQ(reeve_sleep(0), 0);
    read_exactly(p.fd, r.buf, 7);
    CHECK_EQ(reeve_read(p.fd, r.buf, 1, LONG), -ESHUTDOWN);
    CHECK_EQ(reeve_write(p.fd, "bye", 3, LONG), 3);
    pair_close(&p);
    return 0;
}

TEST(a_drain_ends_reads_that_would_wait_and_no_others)
{
    RUN(drain, .workers = 1);
}

/* ---- between workers ------------------------------------------------------------------------- */

static int on_both(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    for (int i = 0; i < 200; i++) {
        struct reading r = { .fd = p.fd };
        reeve_task *t;
        CHECK_EQ(reeve_spawn(&t, read_some, &r, .worker = 1 + i % 2), 0);
        if (i % 3 == 0)
            CHECK_EQ(reeve_sleep(0), 0);
        peer_send(p.peer, "hello", 5);
        CHECK_EQ(reeve_join(t, NULL, LONG), 0);
        CHECK_EQ(r.result, 5);
        CHECK_MEM_EQ(r.buf, "hello", 5);
    }
    pair_close(&p);
    return 0;
}

TEST(a_stream_is_read_from_any_worker)
{
    RUN(on_both, .workers = 2);
}

/* ---- bounds ---------------------------------------------------------------------------------- */

/* What a peer can send until it is stopped, when nobody reads but one byte. */
static size_t flood(struct pair *p)
{
    static unsigned char buf[65536];
    size_t sent = 0;
    unsigned quiet = 0;
    while (quiet < 200) {
        fill_pattern(buf, sizeof buf, sent);
        ssize_t n = send(p->peer, buf, sizeof buf, MSG_DONTWAIT | MSG_NOSIGNAL);
        quiet = n > 0 ? 0 : quiet + 1;
        sent += n > 0 ? (size_t)n : 0;
        CHECK_LT(sent, 64u << 20);
        CHECK_EQ(reeve_sleep(0), 0);
    }
    return sent;
}

static int never_reads(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    static unsigned char buf[65536];
    struct rv_io *io = my_io()->io;
    peer_send(p.peer, (unsigned char[]){ pattern(0) }, 1);
    CHECK_EQ(reeve_read(p.fd, buf, 1, LONG), 1);
    size_t sent = flood(&p), at = 0;
    CHECK_LE(rv_fd_slot(p.fd)->unread_bytes, io->stream_bytes_max + 2 * io->buf_bytes);
    CHECK_EQ(shutdown(p.peer, SHUT_WR), 0);
    ssize_t n;
    while ((n = reeve_read(p.fd, buf, sizeof buf, LONG)) > 0) {
        check_pattern(buf, (size_t)n, at);
        at += (size_t)n;
    }
    CHECK_EQ(n, 0);
    CHECK_EQ(at, sent);
    pair_close(&p);
    return 0;
}

TEST(a_sender_is_stopped_when_nobody_reads)
{
    uring_or_skip();
    struct rv_caps caps;
    CHECK_OK(rv_caps_probe(&caps, NULL));
    if (!caps.recv_optlen)
        SKIP("this kernel has no limit for a multishot recv");
    RUN(never_reads, .workers = 1);
}

/* Lets what was just sent come in, as a piece of its own, unless the stream has stopped. */
static void await_piece(const struct rv_fd *f, uint64_t before)
{
    while (rv_load_relaxed(&f->word) & RV_FD_ARMED && f->unread_bytes == before)
        CHECK_EQ(reeve_sleep(0), 0);
}

static void send_piece(struct pair *p, size_t len, size_t at)
{
    unsigned char buf[4096];
    struct rv_fd *f = rv_fd_slot(p->fd);
    uint64_t before = f->unread_bytes;
    fill_pattern(buf, len, at);
    peer_send(p->peer, buf, len);
    await_piece(f, before);
}

static void read_pieces(struct pair *p, size_t total)
{
    unsigned char buf[4096];
    for (size_t at = 0; at < total;) {
        ssize_t n = reeve_read(p->fd, buf, sizeof buf, LONG);
        CHECK_GT(n, 0);
        check_pattern(buf, (size_t)n, at);
        at += (size_t)n;
    }
}

enum { PIECE = 2000, PIECES = 80 };

static int greedy(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    struct rv_fd *f = rv_fd_slot(p.fd);
    char c;
    CHECK_EQ(reeve_read(p.fd, &c, 1, REEVE_POLL), -ETIMEDOUT);
    for (int i = 0; i < PIECES; i++)
        send_piece(&p, PIECE, (size_t)i * PIECE);
    CHECK_EQ(COUNTER(capped), 1);
    CHECK_LE(f->unread_bufs, 50);
    read_pieces(&p, PIECE * PIECES);
    pair_close(&p);
    return 0;
}

TEST(a_stream_that_nobody_reads_does_not_take_all_buffers)
{
    RUN(greedy, .workers = 1, .bufs = 64);
}

static int merged(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    struct rv_fd *f = rv_fd_slot(p.fd);
    char c;
    CHECK_EQ(reeve_read(p.fd, &c, 1, REEVE_POLL), -ETIMEDOUT);
    for (size_t i = 0; i < 3000; i++)
        send_piece(&p, 1, i);
    CHECK_LE(f->unread_bufs, 1 + 3000 / 512);
    CHECK_EQ(COUNTER(starved), 0);
    read_pieces(&p, 3000);
    pair_close(&p);
    return 0;
}

TEST(small_pieces_share_a_buffer)
{
    RUN(merged, .workers = 1, .bufs = 16, .buf_bytes = 512);
}

static int relief(void *arg)
{
    (void)arg;
    struct pair p = pair_make(), q = pair_make();
    struct reeve_buf *held = NULL, *b = NULL;
    char buf[8];
    peer_send(p.peer, "held", 4);
    CHECK_EQ(reeve_buf_recv(p.fd, &held, LONG), 4); /* the only buffer, and it stays here */
    peer_send(q.peer, "one", 3);
    CHECK_EQ(reeve_read(q.fd, buf, sizeof buf, LONG), 3);
    CHECK_MEM_EQ(buf, "one", 3);
    peer_send(q.peer, "two", 3);
    CHECK_EQ(reeve_buf_recv(q.fd, &b, LONG), 3);
    CHECK_MEM_EQ(b->data, "two", 3);
    reeve_buf_return(b);
    CHECK_GE(COUNTER(borrowed), 2);
    reeve_buf_return(held);
    peer_send(q.peer, "three", 5);
    CHECK_EQ(reeve_read(q.fd, buf, sizeof buf, LONG), 5);
    CHECK_EQ(COUNTER(borrowed), 2); /* from the group again */
    pair_close(&p);
    pair_close(&q);
    return 0;
}

TEST(who_holds_all_buffers_and_reads_on_is_not_stuck)
{
    RUN(relief, .workers = 1, .bufs = 1);
}

static int relief_elsewhere(void *arg)
{
    (void)arg;
    struct pair p = pair_make(), q = pair_make();
    struct reeve_buf *held = NULL;
    struct reading r = { .fd = q.fd };
    reeve_task *t;
    peer_send(p.peer, "held", 4);
    CHECK_EQ(reeve_buf_recv(p.fd, &held, LONG), 4);
    CHECK_EQ(reeve_read(q.fd, r.buf, 1, REEVE_POLL), -ETIMEDOUT); /* q's home is here, too */
    peer_send(q.peer, "far", 3);
    CHECK_EQ(reeve_spawn(&t, read_some, &r, .worker = 2), 0);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(r.result, 3);
    reeve_buf_return(held);
    pair_close(&p);
    pair_close(&q);
    return 0;
}

static int pinned(void *arg)
{
    reeve_task *t;
    int result = -1;
    CHECK_EQ(reeve_spawn(&t, relief_elsewhere, arg, .worker = 1), 0);
    CHECK_EQ(reeve_join(t, &result, LONG), 0);
    return result;
}

TEST(a_reader_on_another_worker_than_the_stream_is_not_stuck_either)
{
    RUN(pinned, .workers = 2, .bufs = 1);
}

struct echo {
    int fd, rounds;
};

static int echo(void *arg)
{
    struct echo *e = arg;
    struct reeve_buf *b = NULL;
    for (int i = 0; i < e->rounds; i++) {
        for (size_t got = 0; got < 8;) {
            CHECK_GT(reeve_buf_recv(e->fd, &b, LONG), 0);
            size_t len = b->len;
            CHECK_EQ(reeve_sleep(0), 0); /* while it is held others starve */
            CHECK_EQ(reeve_buf_send(e->fd, b, LONG), (ssize_t)len);
            got += len;
        }
    }
    return 0;
}

enum { CROWD = 64, ROUNDS = 50 };

static int starve(void *arg)
{
    (void)arg;
    struct pair p[CROWD];
    struct echo e[CROWD];
    struct reeve_group g = { 0 };
    for (int i = 0; i < CROWD; i++) {
        p[i] = pair_make();
        e[i] = (struct echo){ p[i].fd, ROUNDS };
        CHECK_EQ(reeve_spawn(NULL, echo, &e[i], .group = &g), 0);
    }
    for (int r = 0; r < ROUNDS; r++) {
        char text[CROWD][32], back[9];
        for (int i = 0; i < CROWD; i++) {
            snprintf(text[i], sizeof text[i], "%03d-%04d", i, r);
            peer_send(p[i].peer, text[i], 8);
        }
        for (int i = 0; i < CROWD; i++) {
            size_t got = 0;
            while (got < 8) {
                ssize_t n = recv(p[i].peer, back + got, 8 - got, MSG_DONTWAIT);
                CHECK(n > 0 || (n < 0 && errno == EAGAIN));
                got += n > 0 ? (size_t)n : 0;
                CHECK_EQ(reeve_sleep(0), 0);
            }
            CHECK_MEM_EQ(back, text[i], 8);
        }
    }
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    CHECK_GE(COUNTER(starved), 1);
    for (int i = 0; i < CROWD; i++)
        pair_close(&p[i]);
    return 0;
}

TEST(running_out_of_buffers_delays_and_fails_nothing)
{
    RUN(starve, .workers = 1, .bufs = 2);
    RUN(starve, .workers = 2, .bufs = 2);
    RUN(starve, .workers = 1, .bufs = 1);
}

TEST(without_a_limit_in_the_kernel_the_bound_is_ours)
{
    setenv("REEVE_CAPS_OFF", "optlen", 1);
    RUN(pieces, .workers = 2);
    RUN(greedy, .workers = 1, .bufs = 64);
    RUN(starve, .workers = 2, .bufs = 2);
}

static int closed_starving(void *arg)
{
    (void)arg;
    struct pair p[8];
    struct reeve_buf *held[2] = { NULL };
    for (int i = 0; i < 8; i++)
        p[i] = pair_make();
    for (int i = 0; i < 2; i++) {
        peer_send(p[i].peer, "held", 4);
        CHECK_EQ(reeve_buf_recv(p[i].fd, &held[i], LONG), 4);
    }
    char c;
    for (int i = 2; i < 8; i++) {
        peer_send(p[i].peer, "more", 4);
        CHECK_EQ(reeve_read(p[i].fd, &c, 1, SOON), -ETIMEDOUT);
    }
    for (int i = 2; i < 7; i++) {
        pair_close(&p[i]);
        await_closed(p[i].fd);
    }
    reeve_buf_return(held[0]);
    reeve_buf_return(held[1]);
    CHECK_EQ(reeve_read(p[7].fd, &c, 1, LONG), 1);
    pair_close(&p[7]);
    pair_close(&p[0]);
    pair_close(&p[1]);
    return 0;
}

TEST(a_starved_stream_can_be_closed_and_another_goes_on)
{
    RUN(closed_starving, .workers = 1, .bufs = 2);
}
