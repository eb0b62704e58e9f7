/* SPDX-License-Identifier: MIT */
/**
 * bench_cache.h -- what the files of bench_cache share: traces, and who is measured on them.
 */
#ifndef TESTS_BENCH_BENCH_CACHE_H
#define TESTS_BENCH_BENCH_CACHE_H

#include <stddef.h>
#include <stdint.h>

#include "tests/bench/harness.h"
#include "tests/bench/traces.h"

/** The policies, in the order of enum rv_policy_kind, and those that they are compared with. */
enum cache_who {
    CACHE_S3FIFO,
    CACHE_LRU,
    CACHE_SIEVE,
    CACHE_ADAPTIVE,
    CACHE_SMART, /**< the lowest score goes; in effect the least often used, counted for ever */
    CACHE_BELADY, /**< whose next use is farthest away goes: the best that can be */
    CACHE_WHO
};

extern const char *const cache_names[CACHE_WHO];

/** What keys are asked for, and in a cache of how many entries. */
struct cache_shape {
    const char *name;
    enum trace_kind kind;
    size_t n;       /**< see trace_make() */
    double s;
    size_t entries; /**< the cache's */
};

/** A trace with its keys numbered 0 .. n - 1 in the order of their first use. */
struct cache_trace {
    uint32_t *id;
    size_t len;
    uint64_t *key; /**< by id */
    size_t n;
};

/** Ends the process if there is no memory. */
void cache_trace_make(struct cache_trace *t, const struct cache_shape *shape, size_t len,
                      uint64_t seed);
void cache_trace_free(struct cache_trace *t);

/** Memory full of zeros, or the end of the process. */
void *cache_array(size_t n, size_t bytes);

/** The share of requests that hit, in percent, of a cache of so many entries. */
double cache_hit_ratio(enum cache_who who, const struct cache_trace *t, size_t entries);

/** The same for the two that are no policies of ours. */
double cache_peer_ratio(enum cache_who who, const struct cache_trace *t, size_t entries);

/** What a request to a cache is, in a cache of which kind. */
struct cache_cost {
    enum { CACHE_HIT, CACHE_MISS, CACHE_PUT } what;
    int policy;      /**< REEVE_S3FIFO and so on */
    unsigned levels; /**< of the cache: 1 or 2 */
};

/** Writes an SVG of hit ratio over size for each trace into the folder, by gnuplot. */
void cache_plot(struct bench *b, const char *dir);

/* ---- the cases ---- */

/* cache_ratio.c; c->ctx is a struct cache_shape */
void cache_ratio(struct bench *b, const struct bench_case *c);
void cache_shards(struct bench *b, const struct bench_case *c);

/* cache_hit.c; c->ctx is a struct cache_cost */
void cache_cost_1t(struct bench *b, const struct bench_case *c);
void cache_cost_2t(struct bench *b, const struct bench_case *c);

#endif
