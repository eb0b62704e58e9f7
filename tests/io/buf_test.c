/* SPDX-License-Identifier: MIT */
/*
 * buf_test.c -- leases: lent once, brought home once.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include "io/buf.h"
#include "tests/io/pair.h"

#define LONG reeve_in(20 * REEVE_SEC)
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
    peer_send(p.peer, "y", 1);
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
        CHECK_EQ(reeve_spawn(NULL, borrow_one, &who[i], .group = &g), 0);
        CHECK_EQ(reeve_sleep(reeve_in(REEVE_MS)), 0);
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
    CHECK_EQ(reeve_spawn(&t, borrow_one, &who), 0);
    CHECK_EQ(reeve_sleep(reeve_in(REEVE_MS)), 0);
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
