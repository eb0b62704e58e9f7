/* SPDX-License-Identifier: MIT */
/*
 * bench_cache.c -- what caches are worth and what they cost.
 *
 *     bench_cache [--json] [--quick] [--case NAME]... | --plot DIR
 *
 *     hit_1t, _l1      a key found and returned: in a cache of one level, and with an L1 in front
 *     hit_1t_lru ...   the same with the other policies
 *     hit_2t, _l1 ...  two workers at once that look for the same keys: ns_per_op of each of them,
 *                      against one alone, and speedup, by how much more they do together
 *     miss_load        a key that is not there is loaded, by a load that does nothing
 *     put              a key that is there gets another value
 *     zipf_1.0_10pct   20 000 keys of Zipf 1.0 in a cache of 2 000 entries
 *     loop_1.1         2 200 keys again and again; a cache of 2 000
 *     recency          what was used lately is used again
 *     scan             Zipf 1.0, and at times a long run of keys that never come again
 *     shifting         Zipf 1.0 over other keys after each of eight parts
 *     wonders          Zipf 1.0, a third of it keys that come once
 *     shards_16        Zipf 1.0 in 16 shards of 1 000 entries, against one of 16 000
 *
 * The former give ns_per_op and allocs_per_op, how often anything in the library asked for memory.
 * The latter give hit_ratio_POLICY, in percent: medians over traces made from several seeds.
 * `smart` and `belady` are said in cache_peers.c; `lru` is this library's, which does exactly what
 * the name says. --plot draws hit ratio over size into DIR.
 */
#include <string.h>

#include <reeve/cache.h>

#include "tests/bench/bench_cache.h"

static const char *plot_dir;

static struct cache_shape zipf = { "zipf_1.0", TRACE_ZIPF, 20000, 1.0, 2000 };
static struct cache_shape loop = { "loop", TRACE_LOOP, 2200, 0, 2000 };
static struct cache_shape recency = { "recency", TRACE_RECENCY, 800, 0, 2000 };
static struct cache_shape scan = { "scan", TRACE_SCAN, 10000, 1.0, 2000 };
static struct cache_shape shifting = { "shifting", TRACE_SHIFTING, 10000, 1.0, 2000 };
static struct cache_shape wonders = { "wonders", TRACE_WONDERS, 10000, 1.0, 2000 };
static struct cache_shape large = { "large", TRACE_ZIPF, 160000, 1.0, 16000 };

#define COST(what, policy, levels) &(struct cache_cost){ (what), (policy), (levels) }

static const struct bench_case cases[] = {
    { .name = "hit_1t", .run = cache_cost_1t, .ctx = COST(CACHE_HIT, REEVE_S3FIFO, 1) },
    { .name = "hit_1t_l1", .run = cache_cost_1t, .ctx = COST(CACHE_HIT, REEVE_S3FIFO, 2) },
    { .name = "hit_1t_lru", .run = cache_cost_1t, .ctx = COST(CACHE_HIT, REEVE_LRU, 1) },
    { .name = "hit_1t_sieve", .run = cache_cost_1t, .ctx = COST(CACHE_HIT, REEVE_SIEVE, 1) },
    { .name = "hit_1t_adaptive", .run = cache_cost_1t, .ctx = COST(CACHE_HIT, REEVE_ADAPTIVE, 1) },
    { .name = "hit_2t", .run = cache_cost_2t, .ctx = COST(CACHE_HIT, REEVE_S3FIFO, 1) },
    { .name = "hit_2t_l1", .run = cache_cost_2t, .ctx = COST(CACHE_HIT, REEVE_S3FIFO, 2) },
    { .name = "hit_2t_adaptive", .run = cache_cost_2t, .ctx = COST(CACHE_HIT, REEVE_ADAPTIVE, 1) },
    { .name = "miss_load", .run = cache_cost_1t, .ctx = COST(CACHE_MISS, REEVE_S3FIFO, 1) },
    { .name = "put", .run = cache_cost_1t, .ctx = COST(CACHE_PUT, REEVE_S3FIFO, 1) },
    { .name = "zipf_1.0_10pct", .run = cache_ratio, .ctx = &zipf },
    { .name = "loop_1.1", .run = cache_ratio, .ctx = &loop },
    { .name = "recency", .run = cache_ratio, .ctx = &recency },
    { .name = "scan", .run = cache_ratio, .ctx = &scan },
    { .name = "shifting", .run = cache_ratio, .ctx = &shifting },
    { .name = "wonders", .run = cache_ratio, .ctx = &wonders },
    { .name = "shards_16", .run = cache_shards, .ctx = &large },
};

static int option(const char *name, const char *value)
{
    if (strcmp(name, "--plot") != 0 || value == NULL)
        return 0;
    plot_dir = value;
    return 2;
}

static bool instead(struct bench *b)
{
    if (plot_dir == NULL)
        return false;
    cache_plot(b, plot_dir);
    return true;
}

int main(int argc, char **argv)
{
    static const struct bench_program program = {
        .name = "cache",
        .cases = cases,
        .cases_n = sizeof cases / sizeof cases[0],
        .option = option,
        .usage = "  --plot DIR   write figures of hit ratio over size into DIR, and end\n",
        .instead = instead,
    };
    return bench_main(&program, argc, argv);
}
