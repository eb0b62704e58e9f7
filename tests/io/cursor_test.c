/* SPDX-License-Identifier: MIT */
/*
 * cursor_test.c -- a cursor reads what was written, in order, within its buffer, and moves bytes
 * only when it must.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <reeve/cursor.h>

#include "io/buf.h"
#include "tests/io/pair.h"


enum { CAP = 256 };

static struct reeve_buf *borrow(void)
{
    struct reeve_buf *b = NULL;
    CHECK_EQ(reeve_buf_borrow(&b, LONG), 0);
    CHECK_EQ(b->cap, CAP);
    return b;
}

static unsigned char *memory_of(struct reeve_buf *b)
{
    return ((struct rv_lease *)b)->mem;
}

static int over_nothing(void *arg)
{
    (void)arg;
    struct reeve_cursor c = { 0 };
    char byte;
    size_t len = 7;
    CHECK(reeve_cursor_empty(&c));
    CHECK(reeve_cursor_full(&c));
    CHECK_EQ(reeve_cursor_data(&c), 0);
    CHECK_EQ(reeve_cursor_space(&c), 0);
    CHECK(reeve_cursor_view(&c, &len) == NULL);
    CHECK_EQ(len, 0);
    len = 7;
    CHECK(reeve_cursor_room(&c, &len) == NULL);
    CHECK_EQ(len, 0);
    CHECK_EQ(reeve_cursor_read(&c, &byte, 1), 0);
    CHECK_EQ(reeve_cursor_write(&c, "x", 1), -EAGAIN);
    CHECK_EQ(reeve_cursor_write(&c, NULL, 0), 0);
    reeve_cursor_advance(&c, 0);
    reeve_cursor_commit(&c, 0);
    reeve_cursor_compact(&c);
    CHECK(reeve_cursor_take(&c) == NULL);
    c = reeve_cursor_over(NULL);
    CHECK(c.buf == NULL);
    return 0;
}

TEST(a_cursor_over_nothing_has_neither_data_nor_space)
{
    RUN(over_nothing, .workers = 1, .buf_bytes = CAP);
}

/* ---- against a naive queue ------------------------------------------------------------------- */

struct model {
    unsigned char bytes[CAP];
    size_t len;
};

static uint32_t seed;

static uint32_t draw(uint32_t below)
{
    seed = seed * 1664525 + 1013904223;
    return (seed >> 8) % below;
}

static void model_take(struct model *m, size_t n)
{
    memmove(m->bytes, m->bytes + n, m->len - n);
    m->len -= n;
}

static void model_put(struct model *m, const unsigned char *data, size_t n)
{
    memcpy(m->bytes + m->len, data, n);
    m->len += n;
}

static void compare(const struct reeve_cursor *c, const struct model *m)
{
    size_t data, room;
    const unsigned char *view = reeve_cursor_view(c, &data);
    const unsigned char *behind = reeve_cursor_room(c, &room);
    CHECK_EQ(data, m->len);
    CHECK_EQ(reeve_cursor_data(c), m->len);
    CHECK_EQ(reeve_cursor_space(c), CAP - m->len);
    CHECK_EQ(reeve_cursor_empty(c), m->len == 0);
    CHECK_EQ(reeve_cursor_full(c), m->len == CAP);
    CHECK_MEM_EQ(view, m->bytes, m->len);
    CHECK(behind == view + data);
    CHECK(view >= memory_of(c->buf));
    CHECK(behind + room == memory_of(c->buf) + CAP);
}

static void one_step(struct reeve_cursor *c, struct model *m, uint64_t *at)
{
    unsigned char some[CAP + 8], got[CAP + 8];
    size_t n = draw(draw(4) ? 40 : CAP + 8), room, before = m->len;
    switch (draw(7)) {
    case 0: case 1:
        fill_pattern(some, n, *at);
        if (n > CAP - m->len) {
            CHECK_EQ(reeve_cursor_write(c, some, n), -EAGAIN);
            return;
        }
        CHECK_EQ(reeve_cursor_write(c, some, n), (ssize_t)n);
        model_put(m, some, n);
        *at += n;
        return;
    case 2: case 3:
        n = n < before ? n : before;
        CHECK_EQ(reeve_cursor_peek(c, got, n), (ssize_t)n);
        CHECK_MEM_EQ(got, m->bytes, n);
        CHECK_EQ(reeve_cursor_read(c, got, CAP + 8 - draw(2)), (ssize_t)before);
        CHECK_MEM_EQ(got, m->bytes, before);
        model_take(m, before);
        return;
    case 4:
        n = n < before ? n : before;
        reeve_cursor_advance(c, n);
        model_take(m, n);
        return;
    case 5:
        fill_pattern(reeve_cursor_room(c, &room), n < CAP - (c->write) ? n : CAP - c->write, *at);
        n = n < room ? n : room;
        model_put(m, reeve_cursor_room(c, NULL), n);
        reeve_cursor_commit(c, n);
        *at += n;
        return;
    default:
        reeve_cursor_compact(c);
        CHECK(reeve_cursor_view(c, NULL) == memory_of(c->buf));
        return;
    }
}

static int against_a_model(void *arg)
{
    (void)arg;
    struct model m = { .len = 0 };
    struct reeve_cursor c = { .buf = borrow() };
    uint64_t at = 0;
    for (seed = 1; seed < 20; seed++) {
        uint32_t kept = seed;
        for (int i = 0; i < 2000; i++) {
            one_step(&c, &m, &at);
            compare(&c, &m);
        }
        seed = kept;
    }
    CHECK_GT(at, 100000);
    reeve_buf_return(reeve_cursor_take(&c));
    return 0;
}

TEST(what_is_written_is_read_in_order_whatever_the_sizes)
{
    RUN(against_a_model, .workers = 1, .buf_bytes = CAP);
}

/* ---- moving bytes ---------------------------------------------------------------------------- */

static int lazy(void *arg)
{
    (void)arg;
    struct reeve_cursor c = { .buf = borrow() };
    unsigned char *mem = memory_of(c.buf), some[CAP], got[CAP];
    fill_pattern(some, CAP, 0);
    CHECK_EQ(reeve_cursor_write(&c, some, 200), 200);
    CHECK_EQ(reeve_cursor_read(&c, got, 150), 150);
    CHECK_EQ(reeve_cursor_write(&c, some + 200, 56), 56); /* fits behind: nothing moves */
    CHECK(reeve_cursor_view(&c, NULL) == mem + 150);
    CHECK_EQ(reeve_cursor_write(&c, some, 151), -EAGAIN); /* does not fit: nothing moves either */
    CHECK(reeve_cursor_view(&c, NULL) == mem + 150);
    CHECK_MEM_EQ(mem + 150, some + 150, 106);
    CHECK_EQ(reeve_cursor_write(&c, some, 150), 150); /* now it must */
    CHECK(reeve_cursor_view(&c, NULL) == mem);
    CHECK(reeve_cursor_full(&c));
    CHECK_MEM_EQ(mem, some + 150, 106);
    CHECK_MEM_EQ(mem + 106, some, 150);
    reeve_cursor_advance(&c, CAP);
    CHECK_EQ(reeve_cursor_write(&c, some, CAP), CAP); /* empty: it begins at the front again */
    CHECK(reeve_cursor_view(&c, NULL) == mem);
    reeve_buf_return(reeve_cursor_take(&c));
    return 0;
}

TEST(bytes_move_only_when_the_space_behind_them_does_not_do)
{
    RUN(lazy, .workers = 1, .buf_bytes = CAP);
}

/* ---- leases ---------------------------------------------------------------------------------- */

static int from_the_net_to_the_net(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    struct reeve_buf *b = NULL;
    char byte, got[CAP];
    peer_send(p.peer, "xhello, net", 11);
    CHECK_EQ(reeve_read(p.fd, &byte, 1, LONG), 1); /* what is left of the buffer has moved on */
    CHECK_EQ(reeve_buf_recv(p.fd, &b, LONG), 10);
    CHECK(b->data == memory_of(b) + 1);
    struct reeve_cursor c = reeve_cursor_over(b);
    CHECK(reeve_cursor_view(&c, NULL) == b->data);
    CHECK_EQ(reeve_cursor_data(&c), 10);
    CHECK_EQ(reeve_cursor_space(&c), CAP - 10);
    reeve_cursor_advance(&c, 7);
    CHECK_EQ(reeve_cursor_write(&c, "work", 4), 4);
    b = reeve_cursor_take(&c);
    CHECK(c.buf == NULL);
    CHECK(b->data == memory_of(b) + 8);
    CHECK_EQ(b->len, 7);
    CHECK_EQ(reeve_buf_send(p.fd, b, LONG), 7);
    CHECK_EQ(recv(p.peer, got, sizeof got, 0), 7);
    CHECK_MEM_EQ(got, "network", 7);
    pair_close(&p);
    return 0;
}

TEST(a_received_lease_is_sent_on_from_where_the_cursor_stands)
{
    RUN(from_the_net_to_the_net, .workers = 1, .buf_bytes = CAP);
}

static int use_after_return(void *arg)
{
    (void)arg;
    struct reeve_cursor c = { .buf = borrow() };
    reeve_buf_return(c.buf);
    reeve_cursor_write(&c, "x", 1);
    return 0;
}

static int advance_too_far(void *arg)
{
    (void)arg;
    struct reeve_cursor c = { .buf = borrow() };
    reeve_cursor_write(&c, "x", 1);
    reeve_cursor_advance(&c, 2);
    return 0;
}

static int commit_too_much(void *arg)
{
    (void)arg;
    struct reeve_cursor c = { .buf = borrow(), .read = 10, .write = 10 };
    reeve_cursor_commit(&c, CAP - 9);
    return 0;
}

static int stray_positions(void *arg)
{
    (void)arg;
    struct reeve_cursor c = { .buf = borrow(), .write = CAP + 1 };
    reeve_cursor_view(&c, NULL);
    return 0;
}

static int stray_data(void *arg)
{
    (void)arg;
    struct reeve_buf *b = borrow();
    b->data += 1;
    b->len = CAP;
    reeve_cursor_over(b);
    return 0;
}

TEST(misuse_ends_the_program_with_a_sentence)
{
    uring_or_skip();
    struct reeve_opts o = { .workers = 1, .buf_bytes = CAP };
    o.fn = use_after_return;
    CHECK_DIES("reeve_cursor_room was given", reeve_run_with(&o));
    o.fn = advance_too_far;
    CHECK_DIES("reeve_cursor_advance was to pass over 2 bytes where there are 1",
               reeve_run_with(&o));
    o.fn = commit_too_much;
    CHECK_DIES("reeve_cursor_commit was told of 247 bytes", reeve_run_with(&o));
    o.fn = stray_positions;
    CHECK_DIES("positions are outside its buffer", reeve_run_with(&o));
    o.fn = stray_data;
    CHECK_DIES("data outside of it", reeve_run_with(&o));
}
