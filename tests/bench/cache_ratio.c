/* SPDX-License-Identifier: MIT */
/*
 * cache_ratio.c -- how many requests hit: every policy on one trace, against those that it is
 * compared with.
 *
 * The policies run by themselves, without a table around them: a hit ratio depends on neither.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mem/policy.h"
#include "tests/bench/bench_cache.h"

enum { PER_ENTRY = 300, SEEDS = 5, SEEDS_QUICK = 2, SHARDS = 16 };

const char *const cache_names[CACHE_WHO] = { "s3fifo",   "lru",   "sieve",
                                             "adaptive", "smart", "belady" };

void *cache_array(size_t n, size_t bytes)
{
    void *array = calloc(n + 1, bytes);
    if (array != NULL)
        return array;
    fprintf(stderr, "bench_cache: there is no memory\n");
    exit(1);
}

/* ---- traces ---------------------------------------------------------------------------------- */

static void number_keys(struct cache_trace *t, const uint64_t *keys)
{
    size_t size = 1024;
    while (size < 2 * t->len)
        size *= 2;
    uint32_t *cell = cache_array(size, sizeof *cell);   /* ids, plus one */
    for (size_t i = 0; i < t->len; i++) {
        size_t at = trace_mix(keys[i] + 77) & (size - 1);
        while (cell[at] != 0 && t->key[cell[at] - 1] != keys[i])
            at = (at + 1) & (size - 1);
        if (cell[at] == 0) {
            t->key[t->n++] = keys[i];
            cell[at] = (uint32_t)t->n;
        }
        t->id[i] = cell[at] - 1;
    }
    free(cell);
}

void cache_trace_make(struct cache_trace *t, const struct cache_shape *shape, size_t len,
                      uint64_t seed)
{
    uint64_t *keys = cache_array(len, sizeof *keys);
    trace_make(shape->kind, keys, len, shape->n, shape->s, seed);
    *t = (struct cache_trace){ .id = cache_array(len, sizeof *t->id), .len = len,
                               .key = cache_array(len, sizeof *t->key) };
    number_keys(t, keys);
    free(keys);
}

void cache_trace_free(struct cache_trace *t)
{
    free(t->id);
    free(t->key);
    *t = (struct cache_trace){ .id = NULL };
}

/* ---- policies -------------------------------------------------------------------------------- */

static bool request(struct rv_policy *p, struct rv_node *node, uint64_t key)
{
    struct rv_node *victims = NULL;
    if (node->queue != RV_QUEUE_NONE) {
        if (rv_policy_touch(p, node))
            rv_policy_drain(p);
        return true;
    }
    node->hash = trace_mix(key ^ 99);
    node->weight = 1;
    rv_policy_insert(p, node, &victims);
    return false;
}

static double ratio_of(enum cache_who who, const struct cache_trace *t, size_t entries,
                       unsigned shards)
{
    struct rv_policy *shard = cache_array(shards, sizeof *shard);
    struct rv_node *nodes = cache_array(t->n, sizeof *nodes);
    size_t hits = 0, part = entries / shards;
    for (unsigned i = 0; i < shards; i++)
        if (rv_policy_init(&shard[i], (enum rv_policy_kind)who, 0, part, part, i + 1) < 0)
            exit(1);
    for (size_t i = 0; i < t->len; i++) {
        uint64_t key = t->key[t->id[i]];
        hits += request(&shard[trace_mix(key ^ 5) % shards], &nodes[t->id[i]], key);
    }
    for (unsigned i = 0; i < shards; i++)
        rv_policy_finish(&shard[i]);
    free(shard);
    free(nodes);
    return 100.0 * (double)hits / (double)t->len;
}

double cache_hit_ratio(enum cache_who who, const struct cache_trace *t, size_t entries)
{
    return who > CACHE_ADAPTIVE ? cache_peer_ratio(who, t, entries) : ratio_of(who, t, entries, 1);
}

/* ---- cases ----------------------------------------------------------------------------------- */

static void emit(struct bench *b, const char *case_name, const struct bench_samples by[CACHE_WHO])
{
    static const enum cache_who ours[] = { CACHE_S3FIFO, CACHE_ADAPTIVE, CACHE_SIEVE, CACHE_LRU };
    static const enum cache_who theirs[] = { CACHE_LRU, CACHE_SMART, CACHE_BELADY };
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++) {
        char metric[32];
        snprintf(metric, sizeof metric, "hit_ratio_%s", cache_names[ours[i]]);
        for (size_t k = 0; k < sizeof theirs / sizeof theirs[0]; k++)
            if (ours[i] != theirs[k] && bench_median(&by[theirs[k]]) > 0)
                bench_emit(b, case_name, metric, &by[ours[i]], cache_names[theirs[k]],
                           &by[theirs[k]]);
    }
}

void cache_ratio(struct bench *b, const struct bench_case *c)
{
    const struct cache_shape *shape = c->ctx;
    struct bench_samples by[CACHE_WHO];
    memset(by, 0, sizeof by);
    for (uint64_t seed = 1; seed <= (b->quick ? SEEDS_QUICK : SEEDS); seed++) {
        struct cache_trace t;
        cache_trace_make(&t, shape, PER_ENTRY * shape->entries, seed);
        for (int who = 0; who < CACHE_WHO; who++)
            bench_add(&by[who], cache_hit_ratio((enum cache_who)who, &t, shape->entries));
        cache_trace_free(&t);
        if (shape->kind == TRACE_LOOP)
            break;      /* it is the same for every seed */
    }
    emit(b, c->name, by);
}

/* Many shards, each with its own part of the capacity, against one: the same hits, about. */
void cache_shards(struct bench *b, const struct bench_case *c)
{
    const struct cache_shape *shape = c->ctx;
    struct cache_trace t;
    cache_trace_make(&t, shape, PER_ENTRY / 5 * shape->entries, 1);
    for (int who = 0; who <= CACHE_ADAPTIVE; who++) {
        struct bench_samples many = { .n = 0 }, one = { .n = 0 };
        char metric[32];
        snprintf(metric, sizeof metric, "hit_ratio_%s", cache_names[who]);
        bench_add(&many, ratio_of((enum cache_who)who, &t, shape->entries, SHARDS));
        bench_add(&one, ratio_of((enum cache_who)who, &t, shape->entries, 1));
        bench_emit(b, c->name, metric, &many, "one_shard", &one);
    }
    cache_trace_free(&t);
}
