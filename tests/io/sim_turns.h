/* SPDX-License-Identifier: MIT */
/*
 * sim_turns.h -- the scenario of many writers to one socket.
 *
 * Each writer sends calls of its own, by every way there is: a write, a lease, pieces, a turn that
 * it keeps for several requests. Some have a deadline, some are cancelled, in some runs the socket
 * is closed under them. What arrives must be whole calls, one after the other, of which only the
 * last of a writer who failed may be cut short; and who was told that all is out is right.
 *
 * A byte says who sent it and at which offset of his call, modulo 16:
 *
 *     | writer, 4 bits | offset, 4 bits |
 */
#ifndef TESTS_IO_SIM_TURNS_H
#define TESTS_IO_SIM_TURNS_H

#include "tests/io/sim_seeds.h"

#include <reeve/reeve.h>

#include "io/fdtab.h"
#include "io/io.h"
#include "io/rw.h"
#include "io/stream.h"
#include "sched/wait.h"

#define TURN_WRITERS 12
#define TURN_CALLS 20
#define TURN_BYTES 300

/* Calls of this process that ended at their deadline. */
static uint64_t turns_timed_out;

struct turns;

struct turn_writer {
    struct turns *turns;
    int id, calls;
    int len[TURN_CALLS];    /* no multiple of 16: a call that ends is seen to end */
    ssize_t got[TURN_CALLS]; /* what each call said */
    int made;               /* calls */
    bool over, skipped;
};

struct turns {
    bool shaky;             /* deadlines, cancellations, perhaps a close */
    bool faulty;            /* calls fail */
    int writers;
    int pair[2];            /* written to; read from */
    bool closed;
    struct turn_writer writer[TURN_WRITERS];
    unsigned char *arrived;
    size_t bytes, cap;
    uint64_t requests;      /* that went out with several pieces */
};

/* A pause, in which others do something. */
static void turn_dawdle(void)
{
    switch (rv_sim_draw(6)) {
    case 0: reeve_sleep(0); break;
    case 1: reeve_sleep(reeve_in(rv_sim_draw(200000))); break;
    case 2: rv_sim_preempt(); break;
    default: break;
    }
}

static void turn_fill(unsigned char *bytes, int id, int len)
{
    for (int i = 0; i < len; i++)
        bytes[i] = (unsigned char)(id << 4 | (i & 15));
}

static ssize_t turn_send_lease(int fd, const unsigned char *bytes, size_t len, reeve_time until)
{
    struct reeve_buf *b;
    int r = reeve_buf_borrow(&b, until);
    if (r < 0)
        return r;
    size_t n = len < b->cap ? len : b->cap;
    memcpy(b->data, bytes, n);
    b->len = n;
    ssize_t sent = reeve_buf_send(fd, b, until);
    return sent < 0 || n == len ? sent : -EMSGSIZE;
}

static ssize_t turn_send_pieces(int fd, const unsigned char *bytes, size_t len, reeve_time until)
{
    struct iovec piece[5];
    uint32_t was;
    size_t n = 0, at = 0;
    for (; n < 4; n++) {
        size_t some = rv_sim_draw((uint32_t)(len - at) + 1);
        piece[n] = (struct iovec){ (void *)(uintptr_t)(bytes + at), some };
        at += some;
    }
    piece[n++] = (struct iovec){ (void *)(uintptr_t)(bytes + at), len - at };
    struct rv_io_worker *iw = rv_io_enter("a test", &was);
    ssize_t sent = rv_wait_check(iw->io->sched, iw->w->cur);
    if (sent == 0)
        sent = rv_send_iov(iw, fd, rv_deadline(iw->w->cur, until), piece, n);
    rv_io_exit(was);
    return sent;
}

static ssize_t turn_call(struct turn_writer *w, const unsigned char *bytes, size_t len)
{
    struct turns *x = w->turns;
    reeve_time until = x->shaky && rv_sim_chance(200) ? reeve_in(rv_sim_draw(300000)) : 0;
    uint32_t how = rv_sim_draw(4);
    if (how == 0 && len <= 256)
        return turn_send_lease(x->pair[0], bytes, len, until);
    if (how == 1)
        return turn_send_pieces(x->pair[0], bytes, len, until);
    return reeve_write(x->pair[0], bytes, len, until);
}

static int turn_write(void *arg)
{
    struct turn_writer *w = arg;
    const struct turns *x = w->turns;
    unsigned char bytes[TURN_BYTES + 16];
    for (int i = 0; i < w->calls && !x->closed; i++) {
        turn_fill(bytes, w->id, w->len[i]);
        w->made++;
        w->got[i] = turn_call(w, bytes, (size_t)w->len[i]);
        turns_timed_out += w->got[i] == -ETIMEDOUT;
        if (w->got[i] < 0) {
            if (!x->shaky && !x->faulty)
                CHECK_EQ(w->got[i], w->len[i]);
            break;
        }
        CHECK_EQ(w->got[i], w->len[i]);
        if (rv_sim_chance(300))
            turn_dawdle();
    }
    w->over = true;
    return 0;
}

static void turn_skip(void *arg)
{
    ((struct turn_writer *)arg)->skipped = true;
}

static void turn_keep(struct turns *x, const unsigned char *bytes, size_t n)
{
    CHECK_LE(x->bytes + n, x->cap);
    memcpy(x->arrived + x->bytes, bytes, n);
    x->bytes += n;
}

/* The receiver reads slowly, and now and then by way of a hold: what was received first, then
 * nothing ahead, and then on as before. */
static void turn_hold(struct turns *x)
{
    struct rv_hold hold;
    struct rv_lease *l;
    uint32_t was;
    struct rv_io_worker *iw = rv_io_enter("a test", &was);
    int r = rv_stream_hold(iw, x->pair[1], rv_sim_chance(512) ? INT64_MAX : -1, &hold);
    if (r < 0) {
        CHECK_EQ(r, -ECANCELED);
        rv_io_exit(was);
        return;
    }
    ssize_t n;
    CHECK(!rv_fd_slot(x->pair[1])->stream);
    while ((n = rv_stream_unread(&hold, &l)) > 0) {
        if (rv_sim_chance(200)) {
            rv_stream_put_back(rv_io_self(), &hold, l);
            break;
        }
        turn_keep(x, l->pub.data, (size_t)n);
        rv_lease_return(rv_io_self(), l);
    }
    CHECK(n > 0 || n == -EAGAIN || n == 0 || n == -ECONNRESET);
    rv_stream_let_go(rv_io_self(), &hold);
    rv_io_exit(was);
}

static int turn_receive(void *arg)
{
    struct turns *x = arg;
    unsigned char bytes[400];
    for (;;) {
        ssize_t n = reeve_read(x->pair[1], bytes, 1 + rv_sim_draw(sizeof bytes), 0);
        if (n <= 0) {
            CHECK(n == 0 || n == -ECONNRESET);
            return 0;
        }
        turn_keep(x, bytes, (size_t)n);
        turn_dawdle();
        if (rv_sim_chance(60))
            turn_hold(x);
    }
}

static int turns_root(void *arg)
{
    struct turns *x = arg;
    reeve_group all = { 0 };
    reeve_task *receiver, *t[TURN_WRITERS];
    CHECK_EQ(rv_sim_pair(x->pair), 0);
    CHECK_EQ(reeve_adopt(x->pair[0]), 0);
    CHECK_EQ(reeve_adopt(x->pair[1]), 0);
    CHECK_EQ(reeve_adopt(x->pair[1]), -EEXIST);
    CHECK_EQ(reeve_spawn(&receiver, turn_receive, x), 0);
    for (int i = 0; i < x->writers; i++)
        CHECK_EQ(reeve_spawn(&t[i], turn_write, &x->writer[i], .group = &all,
                             .skipped = turn_skip), 0);
    for (int i = 0; x->shaky && i < 3; i++) {
        CHECK_EQ(reeve_sleep(reeve_in(rv_sim_draw(2000000))), 0);
        if (rv_sim_chance(512))
            reeve_cancel(t[rv_sim_draw((uint32_t)x->writers)]);
    }
    if (x->shaky && rv_sim_chance(256)) {
        x->closed = true;
        CHECK_EQ(reeve_close(x->pair[0]), 0);
    }
    for (int i = 0; i < x->writers; i++)
        CHECK_EQ(reeve_join(t[i], NULL, 0), 0);
    CHECK_EQ(reeve_group_wait(&all, 0), 0);
    if (!x->closed)
        CHECK_EQ(reeve_close(x->pair[0]), 0);
    CHECK_EQ(reeve_join(receiver, NULL, 0), 0);
    CHECK_EQ(reeve_close(x->pair[1]), 0);
    return 0;
}

/* The call that begins at `at`: its writer, and how far it goes. */
static size_t turn_run(const struct turns *x, size_t at)
{
    size_t n = 0;
    while (at + n < x->bytes && x->arrived[at + n] >> 4 == x->arrived[at] >> 4 &&
           (x->arrived[at + n] & 15) == (n & 15))
        n++;
    return n;
}

static void turns_check(const struct turns *x)
{
    int next[TURN_WRITERS] = { 0 };
    for (size_t at = 0, n; at < x->bytes; at += n) {
        int id = x->arrived[at] >> 4;
        CHECK_LT(id, x->writers);
        const struct turn_writer *w = &x->writer[id];
        n = turn_run(x, at);
        CHECK_GT(n, 0);
        CHECK_LT(next[id], w->made); /* no call that was not made, none twice */
        int call = next[id]++;
        if (w->got[call] >= 0 && !(x->closed && at + n == x->bytes))
            CHECK_EQ(n, w->len[call]);
        else if (x->closed) /* what ended the call was perhaps not what became of its bytes */
            CHECK_LE(n, w->len[call]);
        else
            CHECK_LT(n, w->len[call]);
    }
    for (int i = 0; i < x->writers && !x->closed; i++) {
        const struct turn_writer *w = &x->writer[i];
        CHECK(w->over != w->skipped);
        if (!x->shaky && !x->faulty)
            CHECK_EQ(w->made, w->calls);
        if (w->made > 0 && w->got[w->made - 1] >= 0)
            CHECK_EQ(next[i], w->made);
        else if (w->made > 0)
            CHECK_GE(next[i], w->made - 1);
    }
}

static void turns_simulate(uint64_t seed, struct rv_sim_opts *opts, struct rv_sim_result *ret,
                           bool shaky, bool faulty)
{
    static struct turns x;
    uint64_t y = seeds_mix(seed);
    x = (struct turns){ .shaky = shaky, .faulty = faulty,
                        .writers = 2 + (int)(y % (TURN_WRITERS - 1)) };
    for (int i = 0; i < x.writers; i++) {
        struct turn_writer *w = &x.writer[i];
        uint64_t z = seeds_mix(y + (uint64_t)i);
        *w = (struct turn_writer){ .turns = &x, .id = i, .calls = 1 + (int)(z % TURN_CALLS) };
        for (int c = 0; c < w->calls; c++) {
            int len = 1 + (int)(seeds_mix(z + (uint64_t)c) % (c % 4 ? 40 : TURN_BYTES));
            w->len[c] = len % 16 ? len : len + 1;
            x.cap += (size_t)w->len[c];
        }
    }
    x.arrived = malloc(x.cap);
    CHECK(x.arrived);
    opts->faults.shorter = (uint16_t)(y / 32 % 3 * 400);
    opts->faults.one_byte = (uint16_t)(y / 96 % 3 * 100);
    opts->faults.eintr = opts->faults.eagain = faulty ? 40 : 0;
    opts->faults.nobufs = faulty ? 10 : 0;
    opts->bufs = 8;
    opts->fn = turns_root;
    opts->arg = &x;
    seeds_simulate(opts, ret);
    CHECK_EQ(ret->result, 0);
    turns_check(&x);
    free(x.arrived);
}

static void turns_run_quiet(uint64_t seed, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    turns_simulate(seed, opts, ret, false, seed % 3 == 0);
}

static void turns_run_wild(uint64_t seed, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    turns_simulate(seed, opts, ret, true, seed % 3 == 0);
}

#endif
