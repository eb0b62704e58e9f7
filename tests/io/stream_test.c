/* SPDX-License-Identifier: MIT */
/*
 * stream_test.c -- what a reader gets, from peers of all kinds.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <poll.h>

#include "io/fdtab.h"
#include "io/stream.h"
#include "tests/io/pair.h"

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
    pair_send(&p, "now", 3);
    CHECK_EQ(reeve_read(p.fd, buf, sizeof buf, REEVE_POLL), 3);
    struct pair q = pair_make();
    pair_send(&q, "first", 5);
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
        pair_send(&p, "now", 3);
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
    uint64_t borrowed = COUNTER(borrowed);
    CHECK_GE(borrowed, 2);
    reeve_buf_return(held);
    peer_send(q.peer, "three", 5);
    CHECK_EQ(reeve_read(q.fd, buf, sizeof buf, LONG), 5);
    CHECK_EQ(COUNTER(borrowed), borrowed); /* from the group again */
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

/* ---- leases that stay away ------------------------------------------------------------------- */

enum { GROUP = 8 };

/* All buffers of the group, held by the program. */
static void hold_all(struct pair *p, struct reeve_buf *held[GROUP])
{
    for (int i = 0; i < GROUP; i++) {
        peer_send(p->peer, "held", 4);
        CHECK_EQ(reeve_buf_recv(p->fd, &held[i], LONG), 4);
    }
    CHECK_EQ(my_io()->group.free, 0);
}

static void give_all(struct reeve_buf *held[GROUP])
{
    for (int i = 0; i < GROUP; i++)
        reeve_buf_return(held[i]);
}

/* The first message may wait for a tenth of a second or two, until it is known that the group is
 * held. From then on none waits: a poll takes what has come. */
static int reads_on(void *arg)
{
    (void)arg;
    struct pair p = pair_make(), q = pair_make();
    struct reeve_buf *held[GROUP], *b = NULL;
    struct rv_io *io = my_io()->io;
    hold_all(&p, held);
    for (int i = 0; i < 600; i++) {
        char text[32];
        reeve_time until = rv_load_relaxed(&my_io()->group.held) ? REEVE_POLL : LONG;
        snprintf(text, sizeof text, "message %d", i);
        pair_send(&q, text, strlen(text));
        if (i % 2) {
            CHECK_EQ(reeve_buf_recv(q.fd, &b, until), (ssize_t)strlen(text));
            CHECK_MEM_EQ(b->data, text, strlen(text));
            reeve_buf_return(b);
        } else {
            char back[32];
            CHECK_EQ(reeve_read(q.fd, back, sizeof back, until), (ssize_t)strlen(text));
            CHECK_MEM_EQ(back, text, strlen(text));
        }
    }
    CHECK_GE(COUNTER(borrowed), 590);
    CHECK_EQ(io->borrow.extra, 0);
    give_all(held);
    uint64_t borrowed = COUNTER(borrowed);
    char c;
    CHECK_EQ(reeve_read(q.fd, &c, 1, REEVE_POLL), -ETIMEDOUT);
    for (int i = 0; i < 20; i++) { /* from the group again */
        peer_send(q.peer, "x", 1);
        CHECK_EQ(reeve_read(q.fd, &c, 1, LONG), 1);
    }
    CHECK_LE(COUNTER(borrowed), borrowed + 1); /* one may have been on its way */
    CHECK_EQ(rv_load_relaxed(&my_io()->group.held), 0);
    pair_close(&p);
    pair_close(&q);
    return 0;
}

TEST(while_a_program_keeps_its_leases_streams_read_on_without_waiting_for_them)
{
    RUN(reads_on, .workers = 1, .bufs = GROUP);
}

/* Readers that wait for silent peers while the group is held. */
static int silent(void *arg)
{
    (void)arg;
    enum { QUIET = 20 };
    struct pair p = pair_make(), q[QUIET];
    struct reeve_buf *held[GROUP];
    struct reading r[QUIET];
    struct reeve_group g = { 0 };
    struct rv_io *io = my_io()->io;
    hold_all(&p, held);
    for (int i = 0; i < QUIET; i++) {
        q[i] = pair_make();
        r[i] = (struct reading){ .fd = q[i].fd };
        CHECK_EQ(reeve_spawn(NULL, read_some, &r[i], .group = &g), 0);
    }
    while (!rv_load_relaxed(&my_io()->group.held))
        CHECK_EQ(reeve_sleep(reeve_in(10 * REEVE_MS)), 0);
    for (int i = 0; i < 20; i++)
        CHECK_EQ(reeve_sleep(reeve_in(REEVE_MS)), 0);
    CHECK_EQ(io->borrow.extra, 0);
    CHECK_EQ(io->borrow.out, 0);
    for (int i = 0; i < QUIET; i++)
        peer_send(q[i].peer, "at last", 7);
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    for (int i = 0; i < QUIET; i++)
        CHECK_EQ(r[i].result, 7);
    CHECK_EQ(io->borrow.extra, 0);
    give_all(held);
    for (int i = 0; i < QUIET; i++)
        pair_close(&q[i]);
    pair_close(&p);
    return 0;
}

TEST(a_silent_connection_costs_no_memory_while_a_group_is_held)
{
    RUN(silent, .workers = 1, .bufs = GROUP);
}

static int bounded(void *arg)
{
    (void)arg;
    struct pair p = pair_make(), q = pair_make();
    struct reeve_buf *held[GROUP], *more[GROUP], *b = NULL;
    hold_all(&p, held);
    for (int i = 0; i < GROUP; i++) { /* as many of the heap */
        peer_send(q.peer, "more", 4);
        CHECK_EQ(reeve_buf_recv(q.fd, &more[i], LONG), 4);
    }
    CHECK_EQ(my_io()->io->borrow.extra, GROUP);
    peer_send(q.peer, "last", 4);
    CHECK_EQ(reeve_buf_recv(q.fd, &b, reeve_in(300 * REEVE_MS)), -ETIMEDOUT);
    CHECK_EQ(my_io()->io->borrow.extra, GROUP);
    reeve_buf_return(more[0]);
    CHECK_EQ(reeve_buf_recv(q.fd, &b, LONG), 4);
    CHECK_MEM_EQ(b->data, "last", 4);
    reeve_buf_return(b);
    for (int i = 1; i < GROUP; i++)
        reeve_buf_return(more[i]);
    CHECK_EQ(my_io()->io->borrow.extra, 0);
    give_all(held);
    pair_close(&p);
    pair_close(&q);
    return 0;
}

TEST(leases_of_the_heap_are_bounded_and_then_the_data_waits_in_the_kernel)
{
    RUN(bounded, .workers = 1, .bufs = GROUP);
}

static int close_held(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    struct reeve_buf *held[GROUP];
    struct rv_hold hold;
    hold_all(&p, held);
    for (int i = 0; i < 12; i++) { /* in whatever state the relief is */
        struct pair q = pair_make();
        struct reading r = { .fd = q.fd };
        reeve_task *t;
        CHECK_EQ(reeve_spawn(&t, read_some, &r), 0);
        await_waiter(q.fd, A_READER);
        if (i % 3)
            CHECK_EQ(reeve_sleep(reeve_in(i % 3 * 90 * REEVE_MS)), 0);
        if (i % 4 == 0)
            peer_send(q.peer, "x", 1);
        if (i % 2) {
            reeve_cancel(t);
            CHECK_EQ(reeve_join(t, NULL, LONG), 0);
            CHECK_EQ(rv_stream_hold(my_io(), q.fd, INT64_MAX, &hold), 0);
            rv_stream_let_go(my_io(), &hold);
        } else {
            CHECK_EQ(reeve_close(q.fd), 0);
            CHECK_EQ(reeve_join(t, NULL, LONG), 0);
            CHECK(r.result == -ECANCELED || r.result == 1);
            await_closed(q.fd);
            q.fd = -1;
        }
        pair_close(&q);
    }
    give_all(held);
    pair_close(&p);
    return 0;
}

TEST(a_stream_in_relief_can_be_closed_left_and_held)
{
    RUN(close_held, .workers = 1, .bufs = GROUP);
}

/* ---- those who never read -------------------------------------------------------------------- */

enum { DEAF = 24 };

/* Everybody sends what fits. Whether anything did. */
static bool send_all_deaf(struct pair p[DEAF])
{
    static char much[1 << 14];
    bool any = false;
    for (int i = 0; i < DEAF; i++)
        any |= send(p[i].peer, much, sizeof much, MSG_DONTWAIT | MSG_NOSIGNAL) > 0;
    return any;
}

static int deaf(void *arg)
{
    (void)arg;
    struct pair p[DEAF], q = pair_make();
    struct rv_io *io = my_io()->io;
    char c, back[8];
    int small = 1 << 13, stopped = 0;
    for (int i = 0; i < DEAF; i++) {
        p[i] = pair_make();
        CHECK_EQ(setsockopt(p[i].peer, SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
        CHECK_EQ(setsockopt(p[i].fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small), 0);
        CHECK_EQ(reeve_read(p[i].fd, &c, 1, REEVE_POLL), -ETIMEDOUT); /* armed, then forgotten */
    }
    for (int round = 0; stopped < 20; round++) {
        stopped = send_all_deaf(p) ? 0 : stopped + 1; /* in the end every writer is stopped */
        CHECK_LT(round, 3000);
        peer_send(q.peer, "ping", 4);
        read_exactly(q.fd, back, 4); /* who reads is served all the same */
        CHECK_EQ(reeve_write(q.fd, "pong", 4, LONG), 4);
        CHECK_EQ(recv(q.peer, back, 4, MSG_WAITALL), 4);
    }
    uint64_t bytes = 0, bufs = 0;
    for (int i = 0; i < DEAF; i++) {
        const struct rv_fd *f = rv_fd_slot(p[i].fd);
        CHECK_LE(f->unread_bytes, io->stream_bytes_max + 2 * io->buf_bytes);
        bytes += f->unread_bytes;
        bufs += f->unread_bufs;
    }
    CHECK_LE(bufs, 64);
    CHECK_LE(io->borrow.extra, 1); /* nothing for them from the heap */
    CHECK_GT(bytes, 0);
    for (int i = 0; i < DEAF; i++)
        pair_close(&p[i]);
    CHECK_EQ(io->borrow.extra, 0);
    pair_close(&q);
    return 0;
}

TEST(connections_that_are_never_read_cost_their_watermark_and_stop_nobody)
{
    RUN(deaf, .workers = 1, .bufs = 64, .buf_bytes = 4096);
}

/* ---- the way around -------------------------------------------------------------------------- */

static int held_stream(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    struct rv_hold hold;
    struct rv_lease *l = NULL;
    char buf[16];
    for (int i = 0; i < 50; i++) {
        peer_send(p.peer, "ahead", 5);
        CHECK_EQ(reeve_read(p.fd, buf, 1, LONG), 1);
        CHECK_EQ(rv_stream_release(my_io(), p.fd, INT64_MAX, &hold), -EBUSY);
        CHECK_EQ(rv_stream_hold(my_io(), p.fd, i % 2 ? INT64_MAX : REEVE_POLL, &hold), 0);
        CHECK(!rv_fd_slot(p.fd)->stream);
        peer_send(p.peer, "in it", 5);
        CHECK_EQ(reeve_read(p.fd, buf, sizeof buf, LONG), -EBUSY);
        CHECK_EQ(rv_stream_hold(my_io(), p.fd, INT64_MAX, &hold), -EBUSY);
        CHECK_EQ(rv_stream_unread(&hold, &l), 4);
        CHECK_MEM_EQ(l->pub.data, "head", 4);
        l->pub.data++;
        l->pub.len--;
        rv_stream_put_back(my_io(), &hold, l);
        CHECK_EQ(rv_stream_unread(&hold, &l), 3);
        CHECK_MEM_EQ(l->pub.data, "ead", 3);
        rv_lease_return(my_io(), l);
        CHECK_EQ(rv_stream_unread(&hold, &l), -EAGAIN);
        CHECK_EQ(recv(p.fd, buf, sizeof buf, 0), 5);
        CHECK_MEM_EQ(buf, "in it", 5);
        rv_stream_let_go(my_io(), &hold);
    }
    CHECK_EQ(shutdown(p.peer, SHUT_WR), 0);
    CHECK_EQ(reeve_read(p.fd, buf, sizeof buf, LONG), 0);
    CHECK_EQ(rv_stream_hold(my_io(), p.fd, INT64_MAX, &hold), 0);
    CHECK_EQ(rv_stream_unread(&hold, &l), 0);
    CHECK_EQ(recv(p.fd, buf, sizeof buf, MSG_DONTWAIT), 0);
    rv_stream_let_go(my_io(), &hold);
    int ends[2];
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    CHECK_EQ(rv_stream_hold(my_io(), ends[0], INT64_MAX, &hold), 0); /* nothing to hold */
    CHECK_EQ(rv_stream_unread(&hold, &l), -EAGAIN);
    rv_stream_let_go(my_io(), &hold);
    close(ends[0]);
    close(ends[1]);
    CHECK_EQ(rv_stream_hold(my_io(), -1, INT64_MAX, &hold), -EBADF);
    pair_close(&p);
    return 0;
}

TEST(who_holds_a_stream_finds_first_the_leases_then_the_socket)
{
    RUN(held_stream, .workers = 1);
    RUN(held_stream, .workers = 2, NO_RESCUE);
}

static int close_while_held(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    struct rv_hold hold;
    struct rv_lease *l = NULL;
    char c;
    peer_send(p.peer, "unread", 6);
    CHECK_EQ(reeve_read(p.fd, &c, 1, LONG), 1);
    CHECK_EQ(rv_stream_hold(my_io(), p.fd, INT64_MAX, &hold), 0);
    CHECK_EQ(rv_stream_unread(&hold, &l), 5);
    CHECK_EQ(reeve_close(p.fd), 0);
    CHECK(is_open(p.fd)); /* it stays this socket's until it is let go */
    rv_stream_put_back(my_io(), &hold, l);
    CHECK_EQ(rv_stream_unread(&hold, &l), -ECANCELED);
    rv_stream_let_go(my_io(), &hold);
    CHECK(!is_open(p.fd));
    p.fd = -1;
    pair_close(&p);
    return 0;
}

TEST(a_held_number_is_not_reused_before_it_is_let_go)
{
    RUN(close_while_held, .workers = 1);
}

/* ---- few buffers ----------------------------------------------------------------------------- */

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
    struct reeve_buf *held[4] = { NULL };
    for (int i = 0; i < 8; i++)
        p[i] = pair_make();
    for (int i = 0; i < 4; i++) { /* those of the group, and as many of the heap: all there are */
        peer_send(p[i].peer, "held", 4);
        CHECK_EQ(reeve_buf_recv(p[i].fd, &held[i], LONG), 4);
    }
    char c;
    for (int i = 4; i < 8; i++) {
        peer_send(p[i].peer, "more", 4);
        CHECK_EQ(reeve_read(p[i].fd, &c, 1, SOON), -ETIMEDOUT);
    }
    for (int i = 4; i < 7; i++) {
        pair_close(&p[i]);
        await_closed(p[i].fd);
    }
    for (int i = 0; i < 4; i++)
        reeve_buf_return(held[i]);
    CHECK_EQ(reeve_read(p[7].fd, &c, 1, LONG), 1);
    pair_close(&p[7]);
    for (int i = 0; i < 4; i++)
        pair_close(&p[i]);
    return 0;
}

TEST(a_starved_stream_can_be_closed_and_another_goes_on)
{
    RUN(closed_starving, .workers = 1, .bufs = 2);
}

/* ---- what a kernel may lack ------------------------------------------------------------------ */

/* Every field of struct rv_caps_off, by its name, and what a runtime says without it. */
static const struct {
    const char *name;
    int says; /* 0: it does without */
} optional[] = {
    { "io_uring", -ENOSYS },
    { "defer_taskrun", 0 },
    { "single_issuer", 0 },
    { "taskrun_flag", 0 },
    { "coop_taskrun", 0 },
    { "submit_all", 0 },
    { "registered_ring_fd", 0 },
    { "no_iowait", 0 },
    { "abs_timer", 0 },
    { "buf_ring", -EOPNOTSUPP },
    { "recv_multishot", -EOPNOTSUPP },
    { "recv_optlen", 0 },
    { "accept_multishot", 0 },
    { "send_msg_ring", 0 },
    { "clone_buffers", 0 },
    { "min_timeout", 0 },
    { "recvsend_bundle", 0 },
    { "send_zc", 0 },
    { "waitid", 0 },
    { "ftruncate", 0 },
    { "guard_install", 0 },
    { "rwf_nosignal", 0 },
};
_Static_assert(sizeof optional / sizeof *optional == sizeof(struct rv_caps_off) / sizeof(bool),
               "each capability has its line");

/* A little of everything, on an echo of our own. */
static int all_kinds(void *arg)
{
    receive_all(100000, 0, 5000);
    CHECK_EQ(polls(arg), 0);
    CHECK_EQ(times_out(arg), 0);
    CHECK_EQ(cancelled(arg), 0);
    return held_stream(arg);
}

TEST(each_optional_capability_can_be_missing)
{
    uring_or_skip();
    for (size_t i = 0; i < sizeof optional / sizeof *optional; i++) {
        setenv("REEVE_CAPS_OFF", optional[i].name, 1);
        for (unsigned workers = 1; workers <= 2; workers++) {
            int r = reeve_run(all_kinds, NULL, .workers = workers, NO_RESCUE);
            if (r != optional[i].says)
                check_failed(__FILE__, __LINE__, "without %s: %d", optional[i].name, r);
            if (optional[i].says || i % 8 != 3) /* the heavy part, for some of them */
                continue;
            CHECK_EQ(reeve_run(starve, NULL, .workers = workers, .bufs = 2), 0);
        }
    }
}
