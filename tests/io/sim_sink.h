/* SPDX-License-Identifier: MIT */
/*
 * sim_sink.h -- the scenario of many senders, few buffers, and a receiver that keeps them for a while.
 *
 * Nobody answers, so whoever holds a buffer gives it back at some point, and with a single one per
 * worker everybody must get on: streams starve and are fed again, all the time.
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
    uint32_t total, got;
    bool ended; /* its receiver saw the end */
};

struct sink {
    int senders;
    struct sender sender[SENDERS];
    int listener;
    struct reeve_buf *parcel[PARCELS]; /* leases that somebody outside gives back */
};

/* The first byte says who sends. */
static int sink_send(void *arg)
{
    struct sender *s = arg;
    unsigned char bytes[512] = { (unsigned char)s->id };
    int fd = (int)CHECK_OK(reeve_dial(SINK_ADDR, 0));
    CHECK_EQ(reeve_write(fd, bytes, 1, 0), 1);
    for (uint32_t at = 0; at < s->total;) {
        uint32_t n = 1 + rv_sim_draw(sizeof bytes);
        n = n < s->total - at ? n : s->total - at;
        for (uint32_t i = 0; i < n; i++)
            bytes[i] = echo_byte(s->id, at + i);
        CHECK_EQ(reeve_write(fd, bytes, n, 0), n);
        at += n;
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
        CHECK_OK(n);
        if (n == 0)
            break;
        if (!copy)
            dawdle();
        sink_check(k, &from, copy ? bytes : b->data, (size_t)n);
        uint32_t where = rv_sim_draw(2 * PARCELS);
        if (where < PARCELS && !k->parcel[where])
            k->parcel[where] = b;
        else
            reeve_buf_return(b);
    }
    CHECK(from && !from->ended);
    from->ended = true;
    CHECK_EQ(reeve_close(c->fd), 0);
    return 0;
}

static int sink_accept(void *arg)
{
    struct sink *k = arg;
    for (int i = 0; i < k->senders; i++) {
        struct sink_conn c = { k, (int)CHECK_OK(reeve_accept(k->listener, 0)) };
        CHECK_EQ(reeve_go(sink_receive, &c, .copy = sizeof c), 0);
    }
    return 0;
}

static int sink_root(void *arg)
{
    struct sink *k = arg;
    reeve_group all = { 0 };
    k->listener = (int)CHECK_OK(reeve_listen(SINK_ADDR, 2));
    CHECK_EQ(reeve_go(sink_accept, k, .group = &all), 0);
    for (int i = 0; i < k->senders; i++)
        CHECK_EQ(reeve_go(sink_send, &k->sender[i], .group = &all), 0);
    CHECK_EQ(reeve_group_wait(&all, 0), 0);
    for (int i = 0; i < PARCELS; i++)
        reeve_buf_return(k->parcel[i]);
    memset(k->parcel, 0, sizeof k->parcel);
    CHECK_EQ(reeve_close(k->listener), 0);
    return 0;
}

static void sink_foreign(void *arg)
{
    struct sink *k = arg;
    uint32_t which = rv_sim_draw(PARCELS);
    reeve_buf_return(k->parcel[which]);
    k->parcel[which] = NULL;
}

static void sink_run(uint64_t seed, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    static struct sink k;
    uint64_t x = seeds_mix(seed);
    k = (struct sink){ .senders = 1 + (int)(x % SENDERS) };
    for (int i = 0; i < k.senders; i++)
        k.sender[i] = (struct sender){ .sink = &k, .id = i,
                                       .total = (uint32_t)(seeds_mix(x + (uint64_t)i) % 3000) };
    opts->bufs = (size_t)1 << x / 8 % 5;
    opts->faults.shorter = (uint16_t)(x / 64 % 3 * 400);
    opts->faults.one_byte = (uint16_t)(x / 256 % 3 * 100);
    opts->faults.unmulti = (uint16_t)(x / 1024 % 3 * 100);
    opts->fn = sink_root;
    opts->arg = &k;
    opts->foreign = sink_foreign;
    seeds_simulate(opts, ret);
    CHECK_EQ(ret->result, 0);
    for (int i = 0; i < k.senders; i++) {
        CHECK(k.sender[i].ended);
        CHECK_EQ(k.sender[i].got, k.sender[i].total);
    }
}

#endif
