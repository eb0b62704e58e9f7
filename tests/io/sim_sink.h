/* SPDX-License-Identifier: MIT */
/*
 * sim_sink.h -- the scenario of many senders, few buffers, and a receiver that keeps them for a
 * while.
 *
 * Nobody answers, so whoever holds a buffer gives it back at some point, and with a single one per
 * worker everybody must get on: streams starve and are fed again, all the time. Some of the sockets
 * are of reeve's making, others come from elsewhere. In wild runs receivers leave early and all are
 * cancelled at some point.
 */
#ifndef TESTS_IO_SIM_SINK_H
#define TESTS_IO_SIM_SINK_H

#include "tests/io/sim_echo.h"

#define SENDERS 8
#define SINK_ADDR "127.0.0.1:7900"

struct sink;

struct sender {
    struct sink *sink;
    int id;
    int pair[2]; /* sockets from elsewhere; 0: it dials */
    uint32_t total, got;
    bool ended; /* its receiver saw the end */
};

struct sink {
    bool wild;
    bool borrows; /* senders use leases, too; else some sockets come from elsewhere */
    int senders;
    struct sender sender[SENDERS];
    int listener;
    struct reeve_buf *parcel[PARCELS]; /* leases that somebody outside gives back */
};

/* All of it, perhaps by way of a lease, of which there are few, too. */
static ssize_t sink_write(const struct sink *k, int fd, const unsigned char *bytes, size_t n)
{
    if (!k->borrows || rv_sim_chance(700))
        return reeve_write(fd, bytes, n, 0);
    struct reeve_buf *b;
    int r;
    while ((r = reeve_buf_borrow(&b, rv_sim_chance(200) ? reeve_in(rv_sim_draw(9000)) : 0)) < 0)
        if (r != -ETIMEDOUT)
            return r;
    if (rv_sim_chance(200))
        dawdle();
    n = n < b->cap ? n : b->cap;
    memcpy(b->data, bytes, n);
    b->len = n;
    return reeve_buf_send(fd, b, 0);
}

static bool sink_went_on(const struct sink *k, ssize_t n)
{
    if (k->wild && n < 0)
        CHECK(n == -ECANCELED || n == -EPIPE || n == -ECONNRESET || n == -ECONNREFUSED);
    else
        CHECK_OK(n);
    return n > 0;
}

/* The first byte says who sends. */
static int sink_send(void *arg)
{
    struct sender *s = arg;
    unsigned char bytes[256] = { (unsigned char)s->id };
    int fd = s->pair[0] ? s->pair[0] : reeve_dial(SINK_ADDR, 0);
    if (!sink_went_on(s->sink, fd))
        return 0;
    bool on = sink_went_on(s->sink, reeve_write(fd, bytes, 1, 0));
    for (uint32_t at = 0; on && at < s->total;) {
        uint32_t n = 1 + rv_sim_draw(sizeof bytes);
        n = n < s->total - at ? n : s->total - at;
        for (uint32_t i = 0; i < n; i++)
            bytes[i] = echo_byte(s->id, at + i);
        ssize_t sent = sink_write(s->sink, fd, bytes, n);
        on = sink_went_on(s->sink, sent);
        at += on ? (uint32_t)sent : 0;
    }
    CHECK_EQ(reeve_close(fd), 0);
    return 0;
}

static void sink_check(struct sink *k, struct sender **from, const unsigned char *bytes, size_t n)
{
    size_t i = 0;
    if (!*from && n > 0) {
        CHECK_LT(bytes[0], k->senders);
        *from = &k->sender[bytes[i++]];
    }
    for (; i < n; i++)
        CHECK_EQ(bytes[i], echo_byte((*from)->id, (*from)->got++));
}

struct sink_conn {
    struct sink *sink;
    int fd;
};

static int sink_receive(void *arg)
{
    const struct sink_conn *c = arg;
    struct sink *k = c->sink;
    struct sender *from = NULL;
    unsigned char bytes[700];
    for (;;) {
        struct reeve_buf *b = NULL;
        size_t most = 1 + rv_sim_draw(sizeof bytes);
        bool copy = rv_sim_chance(400);
        ssize_t n = copy ? reeve_read(c->fd, bytes, most, 0) : reeve_buf_recv(c->fd, &b, 0);
        if (!sink_went_on(k, n))
            break;
        if (!copy)
            dawdle();
        sink_check(k, &from, copy ? bytes : b->data, (size_t)n);
        uint32_t where = rv_sim_draw(2 * PARCELS);
        if (where < PARCELS && !k->parcel[where])
            k->parcel[where] = b;
        else
            reeve_buf_return(b);
        if (k->wild && rv_sim_chance(30))
            break;
    }
    if (!k->wild) {
        CHECK(from && !from->ended);
        from->ended = true;
    }
    CHECK_EQ(reeve_close(c->fd), 0);
    return 0;
}

static void sink_skip(void *arg)
{
    CHECK_EQ(reeve_close(((const struct sink_conn *)arg)->fd), 0);
}

static void sink_start(struct sink *k, int fd)
{
    struct sink_conn c = { k, fd };
    CHECK_EQ(reeve_go(sink_receive, &c, .copy = sizeof c, .skipped = sink_skip), 0);
}

static int sink_accept(void *arg)
{
    struct sink *k = arg;
    for (int i = 0; i < k->senders; i++) {
        int fd = k->sender[i].pair[1] ? 0 : reeve_accept(k->listener, 0);
        if (fd < 0) {
            CHECK(k->wild && fd == -ECANCELED);
            return 0;
        }
        if (fd > 0)
            sink_start(k, fd);
    }
    return 0;
}

static void sink_skip_sender(void *arg)
{
    struct sender *s = arg;
    if (s->pair[0])
        CHECK_EQ(reeve_close(s->pair[0]), 0);
}

static int sink_root(void *arg)
{
    struct sink *k = arg;
    reeve_group all = { 0 };
    k->listener = (int)CHECK_OK(reeve_listen(SINK_ADDR, 2));
    CHECK_EQ(reeve_go(sink_accept, k, .group = &all), 0);
    for (int i = 0; i < k->senders; i++) {
        struct sender *s = &k->sender[i];
        if (!k->borrows && rv_sim_chance(400)) {
            CHECK_EQ(rv_sim_pair(s->pair), 0);
            sink_start(k, s->pair[1]);
        }
        CHECK_EQ(reeve_go(sink_send, s, .group = &all, .skipped = sink_skip_sender), 0);
    }
    if (k->wild && rv_sim_chance(700)) {
        CHECK_EQ(reeve_sleep(reeve_in(rv_sim_draw(9000000))), 0);
        reeve_group_cancel(&all);
    }
    int r = reeve_group_wait(&all, 0);
    CHECK(r == 0 || (k->wild && r == -ECANCELED)); /* cancelled before they started */
    CHECK_EQ(reeve_close(k->listener), 0);
    return k->wild && rv_sim_chance(512) ? -ECANCELED : 0; /* which cancels receivers */
}

static void sink_foreign(void *arg)
{
    struct sink *k = arg;
    uint32_t which = rv_sim_draw(PARCELS);
    reeve_buf_return(k->parcel[which]);
    k->parcel[which] = NULL;
}

/* The parcels that nobody outside came for. */
static int sink_tidy(void *arg)
{
    struct sink *k = arg;
    reeve_task *t;
    CHECK_EQ(reeve_spawn(&t, sink_root, k), 0);
    CHECK_EQ(reeve_join(t, NULL, 0), 0);
    for (int i = 0; i < PARCELS; i++)
        reeve_buf_return(k->parcel[i]);
    memset(k->parcel, 0, sizeof k->parcel);
    return 0;
}

static void sink_simulate(uint64_t seed, struct rv_sim_opts *opts, struct rv_sim_result *ret,
                          bool wild)
{
    static struct sink k;
    uint64_t x = seeds_mix(seed);
    k = (struct sink){ .wild = wild, .senders = 1 + (int)(x % SENDERS) };
    for (int i = 0; i < k.senders; i++)
        k.sender[i] = (struct sender){ .sink = &k, .id = i,
                                       .total = (uint32_t)(seeds_mix(x + (uint64_t)i) % 3000) };
    opts->bufs = (size_t)1 << x / 8 % 5;
    k.borrows = seed % 2;
    opts->faults.shorter = (uint16_t)(x / 64 % 3 * 400);
    opts->faults.one_byte = (uint16_t)(x / 256 % 3 * 100);
    opts->faults.unmulti = (uint16_t)(x / 1024 % 3 * 100);
    opts->fn = sink_tidy;
    opts->arg = &k;
    opts->foreign = sink_foreign;
    seeds_simulate(opts, ret);
    CHECK_EQ(ret->result, 0);
    for (int i = 0; i < k.senders; i++) {
        CHECK_LE(k.sender[i].got, k.sender[i].total);
        CHECK_EQ(k.sender[i].ended, !wild);
        if (!wild)
            CHECK_EQ(k.sender[i].got, k.sender[i].total);
    }
}

static void sink_run(uint64_t seed, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    sink_simulate(seed, opts, ret, false);
}

static void sink_run_wild(uint64_t seed, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    sink_simulate(seed, opts, ret, true);
}

#endif
