/* SPDX-License-Identifier: MIT */
/*
 * zc_test.c -- leases that the kernel reads after the send has returned.
 *
 * On loopback the kernel copies when the packet reaches the receiver. So data for which that has no
 * room stays in the lease, and this is how these tests make the notification wait.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <reeve/fd.h>

#include "io/op.h"
#include "io/zc.h"
#include "sched/wait.h"
#include "tests/io/pair.h"

#define SOON reeve_in(2 * REEVE_MS)

enum { BUF = 16384 };

static void need_zc(void)
{
    if (!my_io()->io->caps.send_zc)
        SKIP("this kernel cannot send without copying");
}

static ssize_t zc_send(int fd, struct reeve_buf *b, reeve_time until)
{
    uint32_t was;
    struct rv_io_worker *iw = rv_io_enter("zc_test", &was);
    ssize_t n = rv_zc_send(iw, fd, (struct rv_lease *)b, rv_deadline(iw->w->cur, until));
    rv_io_exit(was);
    return n;
}

/* A borrowed lease with the next BUF bytes of the pattern. */
static struct reeve_buf *filled(uint64_t at)
{
    struct reeve_buf *b;
    CHECK_EQ(reeve_buf_borrow(&b, LONG), 0);
    CHECK_GE(b->cap, BUF);
    fill_pattern(b->data, BUF, at);
    b->len = BUF;
    return b;
}

static uint32_t leases_out(void)
{
    struct rv_borrow *b = &my_io()->io->borrow;
    rv_lock_acquire(&b->lock);
    uint32_t out = b->out;
    rv_lock_release(&b->lock);
    return out;
}

static void await_home(uint32_t out)
{
    while (leases_out() > out)
        CHECK_EQ(reeve_sleep(0), 0);
}

struct drain {
    int fd;
    uint64_t at, until; /* bytes; until 0: the end */
    pthread_t thread;
};

static void *drain(void *arg)
{
    struct drain *d = arg;
    unsigned char buf[20000];
    ssize_t n = 1;
    while ((d->until == 0 || d->at < d->until) && (n = read(d->fd, buf, sizeof buf)) > 0) {
        check_pattern(buf, (size_t)n, d->at);
        d->at += (uint64_t)n;
    }
    CHECK_GE(n, 0);
    return NULL;
}

static void start_drain(struct drain *d)
{
    CHECK_EQ(pthread_create(&d->thread, NULL, drain, d), 0);
}

/* ---- order and contents ---------------------------------------------------------------------- */

enum { LEASES = 600 };

static int in_order(void *arg)
{
    (void)arg;
    need_zc();
    struct pair p = pair_make();
    struct drain d = { .fd = p.peer };
    start_drain(&d);
    uint64_t at = 0;
    for (int i = 0; i < LEASES; i++) { /* of 4 leases, each is filled anew as soon as it is home */
        CHECK_EQ(zc_send(p.fd, filled(at), LONG), BUF);
        at += BUF;
        if (i % 3 == 0) { /* ordinary sends in between */
            unsigned char some[500];
            fill_pattern(some, sizeof some, at);
            CHECK_EQ(reeve_write(p.fd, some, sizeof some, LONG), (ssize_t)sizeof some);
            at += sizeof some;
        }
    }
    CHECK_EQ(reeve_close(p.fd), 0);
    p.fd = -1;
    CHECK_EQ(pthread_join(d.thread, NULL), 0);
    CHECK_EQ(d.at, at);
    await_home(0);
    pair_close(&p);
    return 0;
}

TEST(what_is_sent_without_copying_arrives_in_order_and_unchanged)
{
    RUN(in_order, .workers = 1, .bufs = 4);
    RUN(in_order, .workers = 2, .bufs = 4);
    RUN(in_order, .workers = 2);
}

struct sender {
    int fd;
    unsigned char letter;
    ssize_t result;
    reeve_time until;
};

enum { SENDERS = 6, EACH = 40 };

static int send_letters(void *arg)
{
    struct sender *s = arg;
    for (int i = 0; i < EACH; i++) {
        struct reeve_buf *b;
        CHECK_EQ(reeve_buf_borrow(&b, LONG), 0);
        memset(b->data, s->letter, b->len = BUF);
        CHECK_EQ(zc_send(s->fd, b, LONG), BUF);
    }
    return 0;
}

static void *receive_letters(void *arg)
{
    int fd = *(int *)arg;
    unsigned char *buf = malloc(BUF);
    for (int i = 0; i < SENDERS * EACH; i++) {
        CHECK_EQ(recv(fd, buf, BUF, MSG_WAITALL), BUF);
        for (int k = 1; k < BUF; k++)
            CHECK_EQ(buf[k], buf[0]);
    }
    free(buf);
    return NULL;
}

static int together(void *arg)
{
    (void)arg;
    need_zc();
    struct pair p = pair_make();
    struct sender s[SENDERS];
    struct reeve_group g = { 0 };
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, receive_letters, &p.peer), 0);
    for (int i = 0; i < SENDERS; i++) {
        s[i] = (struct sender){ .fd = p.fd, .letter = (unsigned char)('a' + i) };
        CHECK_EQ(reeve_spawn(NULL, send_letters, &s[i], .group = &g), 0);
    }
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    await_home(0);
    pair_close(&p);
    return 0;
}

TEST(the_bytes_of_each_lease_stay_together)
{
    RUN(together, .workers = 1);
    RUN(together, .workers = 2, .bufs = 4);
}

/* ---- between the two completions ------------------------------------------------------------- */

enum { AWAY = 20 }; /* leases: far more than the receiver's buffer, less than both buffers */

/* Sends leases to a receiver that does not read: the last ones stay away until it does. How many
 * bytes. */
static uint64_t fill_up(struct pair *p)
{
    int small = 32768, large = 4 << 20;
    CHECK_EQ(setsockopt(p->peer, SOL_SOCKET, SO_RCVBUF, &small, sizeof small), 0);
    CHECK_EQ(setsockopt(p->fd, SOL_SOCKET, SO_SNDBUF, &large, sizeof large), 0);
    for (uint64_t i = 0; i < AWAY; i++)
        CHECK_EQ(zc_send(p->fd, filled(i * BUF), LONG), BUF);
    CHECK_GE(leases_out(), 4); /* the notifications wait, and the task did not */
    return (uint64_t)AWAY * BUF;
}

static int notified(void *arg)
{
    (void)arg;
    need_zc();
    struct pair p = pair_make();
    struct drain d = { .fd = p.peer, .until = fill_up(&p) };
    start_drain(&d);
    await_home(0);
    CHECK_EQ(pthread_join(d.thread, NULL), 0);
    CHECK_EQ(d.at, d.until);
    CHECK_EQ(COUNTER(zc_sent), AWAY);
    CHECK_EQ(COUNTER(zc_plain), 0);
    pair_close(&p);
    return 0;
}

TEST(a_send_returns_before_its_lease_is_home)
{
    RUN(notified, .workers = 1);
    RUN(notified, .workers = 2);
}

/* The task that has sent is cancelled, which is none of the kernel's business any more. */
static RV_ATOMIC(bool) has_filled;

static int fill_in_task(void *arg)
{
    fill_up(arg);
    rv_store_release(&has_filled, true);
    CHECK_EQ(reeve_sleep(LONG), -ECANCELED);
    return 0;
}

static int cancelled_between(void *arg)
{
    (void)arg;
    need_zc();
    struct pair p = pair_make();
    reeve_task *t;
    rv_store_relaxed(&has_filled, false);
    CHECK_EQ(reeve_spawn(&t, fill_in_task, &p), 0);
    while (!rv_load_acquire(&has_filled))
        CHECK_EQ(reeve_sleep(0), 0);
    reeve_cancel(t);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_GE(leases_out(), 4);
    struct drain d = { .fd = p.peer, .until = (uint64_t)AWAY * BUF };
    start_drain(&d);
    await_home(0);
    CHECK_EQ(pthread_join(d.thread, NULL), 0);
    CHECK_EQ(d.at, d.until);
    pair_close(&p);
    return 0;
}

TEST(a_cancellation_between_the_completions_changes_nothing)
{
    RUN(cancelled_between, .workers = 1);
    RUN(cancelled_between, .workers = 2);
}

/* The number is free at once, for another socket; the data still arrives, the lease comes home. */
static int closed_between(void *arg)
{
    (void)arg;
    need_zc();
    struct pair p = pair_make();
    uint64_t sent = fill_up(&p);
    int fd = p.fd;
    CHECK_EQ(shutdown(fd, SHUT_WR), 0);
    CHECK_EQ(reeve_close(fd), 0);
    await_closed(fd);
    struct pair other = pair_make();
    CHECK_GE(leases_out(), 4);
    struct drain d = { .fd = p.peer };
    start_drain(&d);
    CHECK_EQ(pthread_join(d.thread, NULL), 0);
    CHECK_EQ(d.at, sent);
    await_home(0);
    p.fd = -1;
    pair_close(&p);
    pair_close(&other);
    return 0;
}

TEST(a_close_before_the_notification_loses_neither_data_nor_lease)
{
    RUN(closed_between, .workers = 1);
    RUN(closed_between, .workers = 2);
}

static RV_ATOMIC(bool) root_is_over;
static RV_ATOMIC(bool) has_read;
static struct pair left;
static uint64_t left_bytes;

static void *read_late(void *arg)
{
    (void)arg;
    while (!rv_load_acquire(&root_is_over))
        sched_yield();
    struct drain d = { .fd = left.peer, .until = left_bytes };
    rv_store_release(&has_read, true);
    drain(&d);
    CHECK_EQ(d.at, left_bytes);
    return NULL;
}

static int leave(void *arg)
{
    (void)arg;
    need_zc();
    left = pair_make();
    left_bytes = fill_up(&left);
    rv_store_release(&root_is_over, true);
    return 0;
}

TEST(the_end_of_a_runtime_waits_for_its_notifications)
{
    for (unsigned workers = 1; workers <= 2; workers++) {
        pthread_t thread;
        rv_store_relaxed(&root_is_over, false);
        rv_store_relaxed(&has_read, false);
        uring_or_skip();
        CHECK_EQ(pthread_create(&thread, NULL, read_late, NULL), 0);
        CHECK_EQ(reeve_run(leave, NULL, .workers = workers), 0);
        CHECK(rv_load_acquire(&has_read)); /* before that nothing could have been let go */
        CHECK_EQ(pthread_join(thread, NULL), 0);
        pair_close(&left);
    }
}

/* ---- errors ---------------------------------------------------------------------------------- */

/* Sends until it cannot go on, and says why. */
static int one_send(void *arg)
{
    struct sender *s = arg;
    for (s->result = 1; s->result > 0;) {
        struct reeve_buf *b;
        s->result = reeve_buf_borrow(&b, LONG);
        if (s->result < 0)
            break;
        memset(b->data, 0, b->len = BUF);
        s->result = zc_send(s->fd, b, s->until);
    }
    return 0;
}

static int ends_of_sends(void *arg)
{
    (void)arg;
    need_zc();
    for (int how = 0; how < 3; how++) {
        struct pair p = pair_make();
        struct sender s = { p.fd, 0, 0, how == 0 ? reeve_in(30 * REEVE_MS) : LONG };
        reeve_task *t;
        int small = 65536;
        CHECK_EQ(setsockopt(p.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
        CHECK_EQ(reeve_spawn(&t, one_send, &s), 0);
        if (how > 0)
            await_waiter(p.fd, AN_OP);
        if (how == 1)
            reeve_cancel(t);
        if (how == 2)
            CHECK_EQ(reeve_close(p.fd), 0);
        CHECK_EQ(reeve_join(t, NULL, LONG), 0);
        /* What was under way may have found room: then the next one is told of the close. */
        CHECK(s.result == (how == 0 ? -ETIMEDOUT : -ECANCELED) || (how == 2 && s.result == -EBADF));
        if (how == 2) {
            await_closed(p.fd);
            p.fd = -1;
        }
        peer_reset(p.peer); /* what it did not read is let go with the connection */
        p.peer = -1;
        await_home(0);
        pair_close(&p);
    }
    return 0;
}

TEST(a_send_without_copying_ends_by_deadline_cancellation_and_close)
{
    RUN(ends_of_sends, .workers = 1);
    RUN(ends_of_sends, .workers = 2);
}

static int wrong(void *arg)
{
    (void)arg;
    need_zc();
    struct pair p = pair_make();
    CHECK_EQ(zc_send(-1, filled(0), LONG), -EBADF);
    CHECK_EQ(zc_send(1 << 19, filled(0), LONG), -EBADF);
    struct reeve_buf *b = filled(0);
    b->len = 0;
    CHECK_EQ(zc_send(p.fd, b, LONG), 0);
    int ends[2];
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    CHECK_EQ(zc_send(ends[1], filled(0), LONG), -ENOTSOCK);
    close(ends[0]);
    close(ends[1]);
    await_home(0); /* taken, whatever it returned */
    peer_reset(p.peer);
    p.peer = -1;
    ssize_t n;
    while ((n = zc_send(p.fd, filled(0), LONG)) > 0)
        ;
    CHECK(n == -EPIPE || n == -ECONNRESET);
    CHECK_EQ(zc_send(p.fd, filled(0), LONG), -EPIPE); /* and no signal */
    await_home(0);
    pair_close(&p);
    return 0;
}

TEST(an_error_takes_the_lease_too_and_raises_no_signal)
{
    RUN(wrong, .workers = 1);
    RUN(wrong, .workers = 2);
}

static int copied(void *arg)
{
    (void)arg;
    int ends[2];
    unsigned char buf[BUF];
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    CHECK_EQ(zc_send(ends[0], filled(0), LONG), BUF);
    read_exactly(ends[1], buf, sizeof buf);
    check_pattern(buf, sizeof buf, 0);
    await_home(0);
    CHECK_EQ(COUNTER(zc_sent), 0);
    CHECK_EQ(COUNTER(zc_plain), 1);
    close(ends[0]);
    close(ends[1]);
    return 0;
}

TEST(a_socket_that_cannot_do_it_is_sent_a_copy)
{
    RUN(copied, .workers = 1);
}

TEST(a_kernel_that_cannot_do_it_sends_a_copy)
{
    CHECK_EQ(setenv("REEVE_CAPS_OFF", "send_zc", 1), 0);
    RUN(copied, .workers = 1);
}

/* ---- what is counted ------------------------------------------------------------------------- */

static int counts(void *arg)
{
    (void)arg;
    unsigned char buf[BUF];
    struct reeve_stats st;
    need_zc();
    struct pair p = pair_make();
    for (int i = 0; i < 4; i++) {
        if (i == 2) /* as after a kernel's refusal to be asked */
            rv_store_relaxed(&my_io()->io->zc_mute, 1U);
        CHECK_EQ(zc_send(p.fd, filled(0), LONG), BUF);
        CHECK_EQ(recv(p.peer, buf, sizeof buf, MSG_WAITALL), BUF);
        await_home(0);
    }
    reeve_stats(reeve_self(), &st);
    CHECK_EQ(st.zc_sent + st.zc_plain, 4);
    CHECK_LE(st.zc_plain, 1); /* a kernel before 6.2 */
    CHECK_EQ(st.zc_copied, st.zc_plain ? 0 : 2); /* loopback */
    pair_close(&p);
    return 0;
}

TEST(leases_are_counted_by_how_they_were_sent)
{
    RUN(counts, .workers = 1);
}

static int misused(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    fill_up(&p);
    struct reeve_buf *b = filled(0);
    CHECK_EQ(zc_send(p.fd, b, LONG), BUF);
    reeve_buf_return(b);
    return 0;
}

TEST(a_lease_that_was_sent_is_not_its_senders_any_more)
{
    uring_or_skip();
    CHECK_DIES("has been returned already", reeve_run(misused, NULL, .workers = 1));
}

/* ---- as an option ---------------------------------------------------------------------------- */

static int echoes_by_option(void *arg)
{
    struct pair p = pair_make();
    struct reeve_buf *b;
    (void)arg;
    for (int i = 0; i < 50; i++) {
        unsigned char sent[3000], got[3000];
        size_t len = i % 2 ? 100 : sizeof sent; /* below the option's bytes, and above */
        fill_pattern(sent, len, (uint64_t)i * sizeof sent);
        CHECK_EQ(send(p.peer, sent, len, 0), (ssize_t)len);
        for (size_t done = 0; done < len;) {
            ssize_t n = CHECK_OK(reeve_buf_recv(p.fd, &b, LONG));
            CHECK_EQ(reeve_buf_send(p.fd, b, LONG), n);
            CHECK_EQ(recv(p.peer, got + done, (size_t)n, MSG_WAITALL), n);
            done += (size_t)n;
        }
        CHECK_EQ(memcmp(sent, got, len), 0);
    }
    pair_close(&p);
    return 0;
}

/* The option is about sockets: what is none is written to as ever. */
static int pipes_by_option(void *arg)
{
    int ends[2];
    unsigned char buf[BUF];
    (void)arg;
    CHECK_GE(reeve_pipe(ends, BUF), 0);
    CHECK_EQ(reeve_buf_send(ends[1], filled(0), LONG), BUF);
    read_exactly(ends[0], buf, sizeof buf);
    check_pattern(buf, sizeof buf, 0);
    CHECK_EQ(COUNTER(zc_sent) + COUNTER(zc_plain), 0);
    CHECK_EQ(reeve_close(ends[0]), 0);
    CHECK_EQ(reeve_close(ends[1]), 0);
    return 0;
}

TEST(a_lease_goes_into_a_pipe_whatever_the_option_says)
{
    RUN(pipes_by_option, .workers = 1, .zc_bytes = 1);
}

TEST(leases_of_many_bytes_are_sent_so_where_the_runtime_is_told_to)
{
    RUN(echoes_by_option, .workers = 1, .zc_bytes = 2000);
    RUN(echoes_by_option, .workers = 2, .zc_bytes = 1);
}
