/* SPDX-License-Identifier: MIT */
/*
 * echo_load_math.h -- what echo_load computes without touching the world: a histogram, random
 * numbers, and the schedule of an open loop.
 *
 * Everything here is a pure function of its arguments, so `echo_load --self-test` can hold it
 * against what it claims (echo_load_test.c).
 */
#ifndef EXAMPLES_ECHO_LOAD_MATH_H
#define EXAMPLES_ECHO_LOAD_MATH_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

/* ---- a log-linear histogram: 128 buckets per power of two, so a value is known to 0.8 % ----- */

enum { SUB_BITS = 7, SUB = 1 << SUB_BITS, BUCKETS = (64 - SUB_BITS + 1) << SUB_BITS };

struct histogram {
    uint64_t count, max;
    uint64_t buckets[BUCKETS];
};

static inline unsigned bucket_of(uint64_t value)
{
    unsigned shift = value < SUB ? 0 : 63 - SUB_BITS - (unsigned)__builtin_clzll(value);
    return shift * SUB + (unsigned)(value >> shift);
}

/** The smallest value of a bucket; of the one behind the last: 2^64 - 1. */
static inline uint64_t bucket_low(unsigned i)
{
    unsigned shift = i < 2 * SUB ? 0 : i / SUB - 1;
    return i == BUCKETS ? UINT64_MAX : (uint64_t)(i - shift * SUB) << shift;
}

static inline void histogram_add(struct histogram *h, uint64_t value)
{
    h->buckets[bucket_of(value)]++;
    h->count++;
    if (value > h->max)
        h->max = value;
}

/** The middle of the bucket that holds the value below which `share` of all values lie. */
static inline double histogram_at(const struct histogram *h, double share)
{
    uint64_t rank = (uint64_t)(share * (double)h->count), seen = 0;
    for (unsigned i = 0; i < BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen > rank) {
            double middle = ((double)bucket_low(i) + (double)bucket_low(i + 1)) / 2;
            return middle < (double)h->max ? middle : (double)h->max;
        }
    }
    return (double)h->max;
}

static inline void histogram_merge(struct histogram *to, const struct histogram *from)
{
    for (unsigned i = 0; i < BUCKETS; i++)
        to->buckets[i] += from->buckets[i];
    to->count += from->count;
    if (from->max > to->max)
        to->max = from->max;
}

/* ---- random numbers (splitmix64: Steele, Lea, Flood 2014) ----------------------------------- */

static inline uint64_t random_mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

static inline uint64_t random_next(uint64_t *state)
{
    return random_mix(*state += 0x9e3779b97f4a7c15);
}

/** Uniform in (0, 1]. */
static inline double random_unit(uint64_t *state)
{
    return ((double)(random_next(state) >> 11) + 1) * 0x1p-53;
}

/* ---- the schedule: when the next request is due, and on which connection --------------------- */

/*
 * It does not depend on what the server does. Poisson: independent clients, gaps exponentially
 * distributed, each request on a connection drawn at random. Constant: equal gaps, connections in
 * turn.
 */
struct schedule {
    uint64_t random;
    double gap_ns; /* the mean */
    double at_ns;  /* of the last arrival; a double is exact to 0.01 ns for a day */
    bool poisson;
    uint32_t conns_n, conn;
};

/* A part of all requests, drawn at random or evenly spread among them. */
struct share {
    uint64_t random;
    double part, due; /* even: when due has grown to 1 it is this one's turn */
    bool even;
};

struct arrival {
    int64_t at_ns; /* since the schedule's beginning */
    uint32_t conn;
};

/**
 * Of thread `index` of `threads`, which has `conns_n` of all `conns`: its part of `rate` requests
 * per second. Constant schedules of several threads are shifted against each other.
 */
static inline struct schedule schedule_make(bool poisson, double rate, uint64_t seed,
                                            uint32_t index, uint32_t threads, uint32_t conns_n,
                                            uint32_t conns)
{
    uint64_t mixed = random_mix(seed + 1) ^ random_mix(~(uint64_t)index);
    double gap = 1e9 / rate * conns / conns_n;
    return (struct schedule){
        .random = mixed, .gap_ns = gap, .poisson = poisson, .conns_n = conns_n,
        .at_ns = poisson ? 0 : gap * ((double)index / threads - 1),
        .conn = conns_n - 1,
    };
}

static inline struct arrival schedule_next(struct schedule *s)
{
    if (s->poisson) {
        s->at_ns -= log(random_unit(&s->random)) * s->gap_ns;
        s->conn = (uint32_t)(random_next(&s->random) % s->conns_n);
    } else {
        s->at_ns += s->gap_ns;
        s->conn = s->conn + 1 < s->conns_n ? s->conn + 1 : 0;
    }
    return (struct arrival){ (int64_t)s->at_ns, s->conn };
}

/** The requests of thread `index`. Even shares of several threads are shifted against each other,
 * so that with equal rates they take turns. */
static inline struct share share_make(double part, bool even, uint64_t seed, uint32_t index,
                                      uint32_t threads)
{
    return (struct share){
        .random = random_mix(~seed) ^ random_mix(index + UINT64_C(1)), .part = part,
        .due = (double)index / threads, .even = even,
    };
}

/** Whether the next request is one of them. */
static inline bool share_next(struct share *s)
{
    if (!s->even)
        return random_unit(&s->random) <= s->part;
    s->due += s->part;
    if (s->due < 1)
        return false;
    s->due -= 1;
    return true;
}

#endif
