/* SPDX-License-Identifier: MIT */
/*
 * sched_meet.c -- what it costs to meet: channels and the mutex.
 *
 * chan_roundtrip: two tasks on one worker, a rendezvous there and one back. chan_Np: N producers
 * send numbers through one channel that holds 128 of them to one consumer, on two workers; one
 * operation is an item. mutex: a lock and an unlock, uncontended; mutex_w2: of two tasks on two
 * workers that want nothing but the same mutex. The peer in Go does the same.
 */
#include "tests/bench/bench_sched.h"

#include <errno.h>
#include <stdint.h>

enum { ROUND_TRIPS = 500000, LOCKS = 5000000, LOCKS_CONTENDED = 500000, HELD = 128 };

/* ---- a round trip ---------------------------------------------------------------------------- */

struct wires {
    reeve_chan *there, *back;
    long n;
};

static int answer(void *arg)
{
    struct wires *w = arg;
    uint64_t v;
    for (long i = 0; i < w->n; i++) {
        sched_must(reeve_chan_recv(w->there, &v, 0));
        v++;
        sched_must(reeve_chan_send(w->back, &v, 0));
    }
    return 0;
}

static reeve_chan *make_chan(size_t capacity)
{
    reeve_chan *c = reeve_chan_create(sizeof(uint64_t), capacity);
    if (c == NULL)
        sched_must(-ENOMEM);
    return c;
}

static void round_trips(long n)
{
    struct wires w = { make_chan(0), make_chan(0), n };
    reeve_task *t;
    uint64_t v = 0;
    sched_must(reeve_spawn(&t, answer, &w));
    for (long i = 0; i < n; i++) {
        sched_must(reeve_chan_send(w.there, &v, 0));
        sched_must(reeve_chan_recv(w.back, &v, 0));
    }
    sched_must(reeve_join(t, NULL, 0));
    if (v != (uint64_t)n)
        sched_must(-EIO);
    reeve_chan_destroy(w.there);
    reeve_chan_destroy(w.back);
}

double sched_chan_roundtrip(void *ctx)
{
    (void)ctx;
    return sched_measure(1, round_trips, ROUND_TRIPS, ROUND_TRIPS);
}

/* ---- producers and a consumer ---------------------------------------------------------------- */

struct producer {
    reeve_chan *chan;
    uint64_t from, to;
};

static int produce(void *arg)
{
    struct producer *p = arg;
    for (uint64_t i = p->from; i < p->to; i++)
        sched_must(reeve_chan_send(p->chan, &i, 0));
    return 0;
}

static void transfer(int producers, long n)
{
    struct producer p[8];
    reeve_group group = { 0 };
    reeve_chan *chan = make_chan(HELD);
    uint64_t sum = 0, items = (uint64_t)n, each = items / (uint64_t)producers, v;
    for (int i = 0; i < producers; i++) {
        p[i] = (struct producer){ chan, (uint64_t)i * each, (uint64_t)(i + 1) * each };
        sched_must(reeve_go(produce, &p[i], .group = &group));
    }
    for (uint64_t i = 0; i < items; i++) {
        sched_must(reeve_chan_recv(chan, &v, 0));
        sum += v;
    }
    sched_must(reeve_group_wait(&group, 0));
    if (sum != items * (items - 1) / 2)
        sched_must(-EIO);
    reeve_chan_destroy(chan);
}

static void from_1(long n)
{
    transfer(1, n);
}

static void from_2(long n)
{
    transfer(2, n);
}

static void from_8(long n)
{
    transfer(8, n);
}

/* ctx points to the number of items. */
static double chan_1p(void *ctx)
{
    return sched_measure(2, from_1, *(long *)ctx, (double)*(long *)ctx);
}

static double chan_2p(void *ctx)
{
    return sched_measure(2, from_2, *(long *)ctx, (double)*(long *)ctx);
}

static double chan_8p(void *ctx)
{
    return sched_measure(2, from_8, *(long *)ctx, (double)*(long *)ctx);
}

void sched_chan_producers(struct bench *b, const struct bench_case *c)
{
    static double (*const cases[])(void *) = { chan_1p, chan_2p, chan_8p };
    long items = b->quick ? 1000000 : 10000000;
    int rounds = b->quick ? 2 : 5;
    struct bench_samples ns = { 0 }, go = { 0 }, rss = { 0 };
    bool peer = b->peers;
    for (int i = 0; i < rounds; i++) {
        if (bench_ns_alone(&ns, NULL, cases[c->arg], &items, 2, -1) < 0) {
            bench_fail(b, c->name, "the process that measured it did not end well");
            return;
        }
        peer = peer && bench_peer_case(b, "go", c->name, -1, &go, &rss);
    }
    bench_emit(b, c->name, "ns_per_op", &ns, "go", &go);
}

/* ---- the mutex ------------------------------------------------------------------------------- */

static struct reeve_mutex mutex;
static long guarded;

static void lock_and_unlock(long n)
{
    for (long i = 0; i < n; i++) {
        sched_must(reeve_mutex_lock(&mutex, 0));
        guarded++;
        reeve_mutex_unlock(&mutex);
    }
}

static int contend(void *arg)
{
    lock_and_unlock(*(long *)arg);
    return 0;
}

static void lock_from_both(long n)
{
    reeve_group group = { 0 };
    guarded = 0;
    for (int worker = 1; worker <= 2; worker++)
        sched_must(reeve_go(contend, &n, .worker = worker, .group = &group));
    sched_must(reeve_group_wait(&group, 0));
    if (guarded != 2 * n)
        sched_must(-EIO);
}

double sched_mutex(void *ctx)
{
    (void)ctx;
    return sched_measure(1, lock_and_unlock, LOCKS, LOCKS);
}

double sched_mutex_w2(void *ctx)
{
    (void)ctx;
    return sched_measure(2, lock_from_both, LOCKS_CONTENDED, 2.0 * LOCKS_CONTENDED);
}
