/* SPDX-License-Identifier: MIT */
/*
 * buf_test.c -- leases: lent once, brought home once.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include "io/buf.h"
#include "tests/io/pair.h"

#define SOON reeve_in(2 * REEVE_MS)

static int received(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    struct reeve_buf *b = NULL;
    peer_send(p.peer, "some bytes", 10);
    CHECK_EQ(reeve_buf_recv(p.fd, &b, LONG), 10);
    CHECK_EQ(b->len, 10);
    CHECK_EQ(b->cap, 4096);
    CHECK_MEM_EQ(b->data, "some bytes", 10);
    b->data += 5;
    b->len -= 5;
    CHECK_EQ(reeve_buf_send(p.fd, b, LONG), 5);
    char buf[16];
    CHECK_EQ(recv(p.peer, buf, sizeof buf, 0), 5);
    CHECK_MEM_EQ(buf, "bytes", 5);
    pair_close(&p);
    return 0;
}

TEST(a_lease_holds_what_came_and_sends_any_part_of_it)
{
    RUN(received, .workers = 1, .buf_bytes = 4096);
}

/* ---- coming home ----------------------------------------------------------------------------- */

static int return_it(void *arg)
{
    reeve_buf_return(arg);
    return 0;
}

static void *return_from_outside(void *arg)
{
    reeve_buf_return(arg);
    return NULL;
}

static int round_trips(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    for (int i = 0; i < 300; i++) {
        struct reeve_buf *b = NULL;
        peer_send(p.peer, "x", 1);
        CHECK_EQ(reeve_buf_recv(p.fd, &b, LONG), 1);
        if (i % 3 == 0) {
            CHECK_EQ(reeve_go(return_it, b, .worker = 1), 0);
        } else if (i % 3 == 1) {
            CHECK_EQ(reeve_go(return_it, b, .worker = 2), 0);
        } else {
            pthread_t thread;
            CHECK_EQ(pthread_create(&thread, NULL, return_from_outside, b), 0);
            CHECK_EQ(pthread_join(thread, NULL), 0);
        }
    }
    CHECK_GE(COUNTER(leases_home), 100);
    pair_close(&p);
    return 0;
}

TEST(a_lease_comes_home_from_any_thread)
{
    RUN(round_trips, .workers = 2, .bufs = 2);
    RUN(round_trips, .workers = 2, .bufs = 1);
}

static int last_one(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    struct reeve_buf *held = NULL, *b = NULL;
    pthread_t thread;
    peer_send(p.peer, "x", 1);
    CHECK_EQ(reeve_buf_recv(p.fd, &held, LONG), 1);
    pair_send(&p, "y", 1);
    CHECK_EQ(reeve_buf_recv(p.fd, &b, SOON), -ETIMEDOUT); /* starved: the only one is held */
    CHECK_EQ(COUNTER(starved), 1);
    CHECK_EQ(pthread_create(&thread, NULL, return_from_outside, held), 0);
    CHECK_EQ(reeve_buf_recv(p.fd, &b, LONG), 1); /* a sleeping worker is woken by it */
    CHECK_EQ(pthread_join(thread, NULL), 0);
    reeve_buf_return(b);
    pair_close(&p);
    return 0;
}

TEST(who_brings_a_lease_home_wakes_a_worker_that_starves)
{
    RUN(last_one, .workers = 1, .bufs = 1);
}

/* ---- the window of a group ------------------------------------------------------------------- */

static int few_buffers(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    struct rv_group *g = &my_io()->group;
    for (int i = 0; i < 2000; i++) {
        struct reeve_buf *b = NULL;
        peer_send(p.peer, "x", 1);
        CHECK_EQ(reeve_buf_recv(p.fd, &b, LONG), 1);
        reeve_buf_return(b);
    }
    CHECK_EQ(g->bufs, 1024);
    CHECK_LE(g->fresh, 66); /* a window, and one that was out when another was picked */
    CHECK_EQ(g->free, g->bufs);
    pair_close(&p);
    return 0;
}

TEST(what_came_home_last_is_filled_first_and_most_of_a_group_is_never_touched)
{
    RUN(few_buffers, .workers = 1);
}

enum { CROWD = 40 };

/* The messages of all have come before anybody receives, so one system call finds many. */
static int crowd(void *arg)
{
    (void)arg;
    struct rv_group *g = &my_io()->group;
    struct pair p[CROWD];
    struct reeve_buf *b[CROWD];
    char c;
    g->window = 1;
    for (int i = 0; i < CROWD; i++) {
        p[i] = pair_make();
        CHECK_EQ(reeve_read(p[i].fd, &c, 1, REEVE_POLL), -ETIMEDOUT); /* it is received from */
    }
    for (int i = 0; g->offered > 1; i++) { /* until the window is what it should be */
        peer_send(p[0].peer, "y", 1);
        CHECK_EQ(reeve_buf_recv(p[0].fd, &b[i % 2], LONG), 1);
        reeve_buf_return(b[i % 2]);
    }
    for (int i = 0; i < CROWD; i++)
        pair_send(&p[i], "x", 1);
    for (int i = 0; i < CROWD; i++)
        CHECK_EQ(reeve_buf_recv(p[i].fd, &b[i], LONG), 1);
    CHECK_GE(g->window, 2);
    CHECK_EQ(COUNTER(starved), 0);
    CHECK_EQ(COUNTER(relieved), 0);
    CHECK_EQ(g->free, g->bufs - CROWD);
    for (int i = 0; i < CROWD; i++)
        reeve_buf_return(b[i]);
    CHECK_EQ(g->free, g->bufs);
    for (int i = 0; i < CROWD; i++)
        pair_close(&p[i]);
    return 0;
}

TEST(a_receive_that_finds_no_buffer_widens_the_window_and_nobody_starves)
{
    RUN(crowd, .workers = 1);
}

static int calm(void *arg)
{
    (void)arg;
    struct rv_group *g = &my_io()->group;
    struct pair p = pair_make();
    g->window = g->bufs;
    g->calm = 10;
    for (int i = 0; i < 300; i++) {
        struct reeve_buf *b = NULL;
        peer_send(p.peer, "x", 1);
        CHECK_EQ(reeve_buf_recv(p.fd, &b, LONG), 1);
        reeve_buf_return(b);
    }
    CHECK_EQ(g->window, g->bufs / 2);
    CHECK_EQ(g->offered, g->window);
    CHECK_EQ(g->free, g->bufs);
    pair_close(&p);
    return 0;
}

TEST(a_window_that_was_wide_enough_for_long_gets_narrower)
{
    RUN(calm, .workers = 1, .bufs = 256);
}

static int foreign(void *arg)
{
    (void)arg;
    struct rv_group *g = &my_io()->group;
    struct reeve_buf *b = NULL;
    int fds[2];
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    g->window = 1;
    while (g->offered > 0) { /* none: what is picked is not made up for */
        peer_send(fds[0], "x", 1);
        CHECK_EQ(reeve_buf_recv(fds[1], &b, LONG), 1);
        uint32_t before = g->offered;
        g->window = 0;
        reeve_buf_return(b);
        CHECK_EQ(g->offered, before);
    }
    g->window = 1;
    peer_send(fds[0], "last", 4);
    CHECK_EQ(reeve_buf_recv(fds[1], &b, LONG), 4); /* of the heap, this once */
    CHECK_EQ(COUNTER(borrowed), 1);
    CHECK_EQ(g->window, 2);
    CHECK_EQ(g->offered, 2);
    reeve_buf_return(b);
    peer_send(fds[0], "next", 4);
    CHECK_EQ(reeve_buf_recv(fds[1], &b, LONG), 4);
    CHECK_EQ(COUNTER(borrowed), 1);
    reeve_buf_return(b);
    close(fds[0]);
    close(fds[1]);
    return 0;
}

TEST(a_foreign_socket_that_finds_no_buffer_widens_the_window_too)
{
    RUN(foreign, .workers = 1);
}

/* ---- borrowing ------------------------------------------------------------------------------- */

static int borrow_and_send(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    for (int i = 0; i < 100; i++) {
        struct reeve_buf *b = NULL;
        CHECK_EQ(reeve_buf_borrow(&b, LONG), 0);
        CHECK_EQ(b->len, 0);
        CHECK_EQ(b->cap, 16384);
        memcpy(b->data, "borrowed", 8);
        b->len = 8;
        CHECK_EQ(reeve_buf_send(p.fd, b, LONG), 8);
        char buf[16];
        CHECK_EQ(recv(p.peer, buf, sizeof buf, 0), 8);
        CHECK_MEM_EQ(buf, "borrowed", 8);
    }
    CHECK_EQ(my_io()->io->borrow.out, 0);
    pair_close(&p);
    return 0;
}

TEST(a_borrowed_lease_is_empty_and_as_large_as_the_others)
{
    RUN(borrow_and_send, .workers = 1);
}

struct borrower {
    int result;
    struct reeve_buf *buf;
    unsigned order;
};

static unsigned order;

static int borrow_one(void *arg)
{
    struct borrower *b = arg;
    b->result = reeve_buf_borrow(&b->buf, LONG);
    b->order = ++order;
    return 0;
}

/* Until one more has queued. */
static void await_lease_wait(uint64_t before)
{
    while (COUNTER(lease_waits) == before)
        CHECK_EQ(reeve_sleep(0), 0);
}

static int waits(void *arg)
{
    (void)arg;
    struct reeve_buf *out[2] = { NULL }, *b = NULL;
    struct borrower who[3] = { 0 };
    struct reeve_group g = { 0 };
    for (int i = 0; i < 2; i++)
        CHECK_EQ(reeve_buf_borrow(&out[i], LONG), 0);
    CHECK_EQ(reeve_buf_borrow(&b, SOON), -ETIMEDOUT);
    CHECK_EQ(reeve_buf_borrow(&b, REEVE_POLL), -ETIMEDOUT);
    for (int i = 0; i < 3; i++) {
        uint64_t before = COUNTER(lease_waits);
        CHECK_EQ(reeve_spawn(NULL, borrow_one, &who[i], .group = &g), 0);
        await_lease_wait(before);
    }
    reeve_buf_return(out[0]);
    reeve_buf_return(out[1]);
    while (order < 2)
        CHECK_EQ(reeve_sleep(0), 0);
    CHECK_EQ(who[0].order + who[1].order, 3);
    CHECK_EQ(who[2].order, 0);
    reeve_buf_return(who[0].buf);
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(who[i].result, 0);
    reeve_buf_return(who[1].buf);
    reeve_buf_return(who[2].buf);
    CHECK_EQ(my_io()->io->borrow.out, 0);
    CHECK_GE(COUNTER(lease_waits), 4);
    return 0;
}

TEST(who_borrows_when_all_are_out_waits_his_turn)
{
    RUN(waits, .workers = 1, .bufs = 2);
}

static int cancelled_borrower(void *arg)
{
    (void)arg;
    struct reeve_buf *out = NULL, *b = NULL;
    struct borrower who = { 0 };
    reeve_task *t;
    CHECK_EQ(reeve_buf_borrow(&out, LONG), 0);
    uint64_t before = COUNTER(lease_waits);
    CHECK_EQ(reeve_spawn(&t, borrow_one, &who), 0);
    await_lease_wait(before);
    reeve_cancel(t);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(who.result, -ECANCELED);
    reeve_buf_return(out);
    CHECK_EQ(reeve_buf_borrow(&b, REEVE_POLL), 0);
    reeve_buf_return(b);
    return 0;
}

TEST(a_cancelled_borrower_takes_nothing)
{
    RUN(cancelled_borrower, .workers = 1, .bufs = 1);
}

static int takes_it_anyway(void *arg)
{
    (void)arg;
    struct reeve_buf *b = NULL;
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(reeve_buf_borrow(&b, SOON), 0);
        b->len = 1;
        CHECK_EQ(reeve_buf_send(i % 2 ? -1 : 999, b, LONG), -EBADF);
        CHECK_EQ(reeve_buf_borrow(&b, SOON), 0);
        CHECK_EQ(reeve_buf_send(-1, b, LONG), -EBADF); /* empty, too */
    }
    return 0;
}

TEST(send_takes_the_lease_whatever_it_returns)
{
    RUN(takes_it_anyway, .workers = 1, .bufs = 1);
}

/* ---- misuse ---------------------------------------------------------------------------------- */

static int return_twice(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    struct reeve_buf *b = NULL;
    peer_send(p.peer, "x", 1);
    CHECK_EQ(reeve_buf_recv(p.fd, &b, LONG), 1);
    reeve_buf_return(b);
    reeve_buf_return(b);
    return 0;
}

static int send_returned(void *arg)
{
    (void)arg;
    struct reeve_buf *b = NULL;
    CHECK_EQ(reeve_buf_borrow(&b, LONG), 0);
    reeve_buf_return(b);
    return (int)reeve_buf_send(1, b, LONG);
}

static int return_foreign(void *arg)
{
    (void)arg;
    char text[] = "text";
    struct reeve_buf mine = { .data = (unsigned char *)text, .len = 4, .cap = 4 };
    reeve_buf_return(&mine);
    return 0;
}

static int send_outside(void *arg)
{
    (void)arg;
    struct reeve_buf *b = NULL;
    CHECK_EQ(reeve_buf_borrow(&b, LONG), 0);
    b->data += 1;
    b->len = b->cap;
    return (int)reeve_buf_send(1, b, LONG);
}

TEST(misuse_of_a_lease_ends_the_process_with_a_sentence)
{
    uring_or_skip();
    struct reeve_buf *b = NULL;
    CHECK_DIES("reeve_buf_return was given a buffer that has been returned already",
               reeve_run(return_twice, NULL, .workers = 1));
    CHECK_DIES("reeve_buf_send was given a buffer that has been returned already",
               reeve_run(send_returned, NULL, .workers = 1));
    CHECK_DIES("reeve_buf_return was given something that is not a leased buffer",
               reeve_run(return_foreign, NULL, .workers = 1));
    CHECK_DIES("data outside its buffer", reeve_run(send_outside, NULL, .workers = 1));
    CHECK_DIES("reeve_buf_borrow was called outside a task", reeve_buf_borrow(&b, 0));
    reeve_buf_return(NULL);
}
