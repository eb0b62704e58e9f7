/* SPDX-License-Identifier: MIT */
/*
 * traces.h -- sequences of requests for caches, each made from a seed: the same everywhere.
 *
 * A trace is an array of keys; what a key weighs follows from the key alone. The shapes:
 *
 *     zipf        key k of n with a probability as 1 / (k + 1)^s, in an order that no key tells
 *     scan        zipf, and at times a long run of keys that never come again
 *     loop        0, 1, ... n - 1, again and again
 *     shifting    zipf over other keys after each of several equal parts
 *     wonders     zipf, and among them many keys that come once
 *     recency     what was used lately is used again, and new ones come all the time
 */
#ifndef TESTS_BENCH_TRACES_H
#define TESTS_BENCH_TRACES_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

enum trace_kind {
    TRACE_ZIPF,
    TRACE_SCAN,
    TRACE_LOOP,
    TRACE_SHIFTING,
    TRACE_WONDERS,
    TRACE_RECENCY,
    TRACE_KINDS
};

static const char *const trace_names[TRACE_KINDS] = { "zipf",     "scan",    "loop",
                                                      "shifting", "wonders", "recency" };

struct trace_random {
    uint64_t state;
};

/* splitmix64 (Steele, Lea and Flood, 2014). */
static inline uint64_t trace_draw(struct trace_random *r)
{
    uint64_t z = r->state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* 0 .. 1, without 1 */
static inline double trace_unit(struct trace_random *r)
{
    return (double)(trace_draw(r) >> 11) * 0x1p-53;
}

/* The sums of the weights of keys 0 .. k; free() it. */
static inline double *trace_zipf_sums(size_t n, double s)
{
    double *sums = malloc(n * sizeof *sums), sum = 0;
    for (size_t k = 0; sums != NULL && k < n; k++)
        sums[k] = sum += 1 / pow((double)(k + 1), s);
    return sums;
}

static inline uint64_t trace_zipf_key(const double *sums, size_t n, struct trace_random *r)
{
    double u = trace_unit(r) * sums[n - 1];
    size_t low = 0, high = n - 1;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (sums[middle] > u)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* A key of its own for each number: a bijection, so that neighbours are strangers. */
static inline uint64_t trace_mix(uint64_t z)
{
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* Bytes, 16 .. 8 Ki, most of them small. */
static inline size_t trace_weight(uint64_t key)
{
    uint64_t z = trace_mix(key + 1);
    return (size_t)(16 + (z >> 32) % 112) << (z % 7 * (z >> 8 & 1));
}

/* Requests drawn among the keys used last: how far back falls off exponentially, with this mean. */
static inline void trace_recency(uint64_t *keys, size_t len, double mean, struct trace_random *r)
{
    uint64_t fresh = 0;
    for (size_t i = 0; i < len; i++) {
        size_t back = (size_t)(-log(1 - trace_unit(r)) * mean);
        bool new_one = back >= i || trace_draw(r) % 8 == 0;
        keys[i] = new_one ? trace_mix(UINT64_C(1) << 40 | fresh++) : keys[i - 1 - back];
    }
}

/* Fills keys. n: the universe, or the length of the loop, or for recency the mean distance. */
static inline void trace_make(enum trace_kind kind, uint64_t *keys, size_t len, size_t n, double s,
                              uint64_t seed)
{
    struct trace_random r = { seed };
    double *sums = kind == TRACE_LOOP || kind == TRACE_RECENCY ? NULL : trace_zipf_sums(n, s);
    size_t run = 0;
    if (kind == TRACE_RECENCY)
        trace_recency(keys, len, (double)n, &r);
    for (size_t i = 0; i < len && kind != TRACE_RECENCY; i++) {
        uint64_t once = UINT64_C(1) << 41 | i, part = i / (len / 8 + 1);
        if (kind == TRACE_SCAN && run == 0 && trace_draw(&r) % (2 * n) == 0)
            run = n / 2;
        if (kind == TRACE_LOOP)
            keys[i] = trace_mix(i % n);
        else if (run > 0 || (kind == TRACE_WONDERS && trace_draw(&r) % 3 == 0))
            keys[i] = trace_mix(once);
        else if (kind == TRACE_SHIFTING)
            keys[i] = trace_mix(part << 32 | trace_zipf_key(sums, n, &r));
        else
            keys[i] = trace_mix(trace_zipf_key(sums, n, &r));
        run -= run > 0;
    }
    free(sums);
}

#endif
