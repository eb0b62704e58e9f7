/* SPDX-License-Identifier: MIT */
/*
 * policy_test.c -- the policies against naive references of them, and what they are worth.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include "mem/policy.h"
#include "tests/bench/traces.h"
#include "tests/mem/policy_reference.h"

/* A trace with its keys numbered 0 .. n - 1 in the order of their first use. */
static struct {
    uint32_t *id;
    size_t len;
    uint64_t *key;      /* by id */
    size_t *weight, *ones;
    size_t n;
} trace;

static void number_keys(const uint64_t *keys, size_t len)
{
    size_t size = 1024;
    while (size < 4 * len)
        size *= 2;
    uint32_t *cell = malloc(size * sizeof *cell);
    CHECK(cell);
    memset(cell, 0xff, size * sizeof *cell);
    for (size_t i = 0; i < len; i++) {
        size_t at = trace_mix(keys[i] + 77) & (size - 1);
        while (cell[at] != UINT32_MAX && trace.key[cell[at]] != keys[i])
            at = (at + 1) & (size - 1);
        if (cell[at] == UINT32_MAX) {
            cell[at] = (uint32_t)trace.n;
            trace.key[trace.n++] = keys[i];
        }
        trace.id[i] = cell[at];
    }
    free(cell);
}

static void make_trace(enum trace_kind kind, size_t len, size_t n, double s, uint64_t seed)
{
    uint64_t *keys = malloc(len * sizeof *keys);
    free(trace.id);
    free(trace.key);
    free(trace.weight);
    free(trace.ones);
    trace.id = malloc(len * sizeof *trace.id);
    trace.key = malloc(len * sizeof *trace.key);
    trace.weight = malloc(len * sizeof *trace.weight);
    trace.ones = malloc(len * sizeof *trace.ones);
    CHECK(keys && trace.id && trace.key && trace.weight && trace.ones);
    trace.n = 0;
    trace.len = len;
    trace_make(kind, keys, len, n, s, seed);
    number_keys(keys, len);
    for (size_t i = 0; i < trace.n; i++) {
        trace.weight[i] = trace_weight(trace.key[i]);
        trace.ones[i] = 1;
    }
    free(keys);
}

/* ---- the policies themselves, one or several shards ------------------------------------------ */

static struct {
    struct rv_policy shard[16];
    unsigned shards;
    struct rv_node *node;       /* by id */
    uint32_t *victims;          /* of the last request, in order */
    size_t victims_n;
} cache;

static const enum rv_policy_kind kinds[] = { RV_POLICY_S3FIFO, RV_POLICY_LRU, RV_POLICY_SIEVE,
                                             RV_POLICY_ADAPTIVE };
static const char *const names[] = { "S3FIFO", "LRU", "SIEVE", "ADAPTIVE", "smart", "smart-short",
                                     "belady" };

static void open_cache(enum rv_policy_kind kind, unsigned shards, size_t bytes, size_t entries)
{
    cache.shards = shards;
    for (unsigned i = 0; i < shards; i++)
        CHECK_OK(rv_policy_init(&cache.shard[i], kind, bytes / shards, entries / shards,
                                entries / shards, 1));
    cache.node = calloc(trace.n + 1, sizeof *cache.node);
    cache.victims = calloc(trace.n + 1, sizeof *cache.victims);
    CHECK(cache.node && cache.victims);
}

static void close_cache(void)
{
    for (unsigned i = 0; i < cache.shards; i++)
        rv_policy_finish(&cache.shard[i]);
    free(cache.node);
    free(cache.victims);
}

static struct rv_policy *shard_of(uint32_t id)
{
    return &cache.shard[cache.shards > 1 ? trace_mix(trace.key[id] ^ 5) >> 60 : 0];
}

static void note_victims(struct rv_node *victims)
{
    cache.victims_n = 0;
    for (struct rv_node *v = victims; v; v = v->next)
        cache.victims_n++;
    size_t i = cache.victims_n;         /* they were pushed in front */
    for (struct rv_node *v = victims; v; v = v->next)
        cache.victims[--i] = (uint32_t)(v - cache.node);
}

static bool request(uint32_t id, const size_t *weight)
{
    struct rv_policy *p = shard_of(id);
    struct rv_node *node = &cache.node[id], *victims = NULL;
    bool hit = node->queue != RV_QUEUE_NONE;
    cache.victims_n = 0;
    if (hit) {
        if (rv_policy_touch(p, node))
            rv_policy_drain(p);
    } else if (rv_policy_fits(p, weight[id])) {
        node->hash = trace_mix(trace.key[id] ^ 99);
        node->weight = weight[id];
        rv_policy_insert(p, node, &victims);
        note_victims(victims);
    }
    CHECK(p->bytes <= p->bytes_max);
    CHECK(p->entries <= p->entries_max);
    return hit;
}

/* The hit ratio in percent of the policy itself. */
static double run(enum rv_policy_kind kind, unsigned shards, size_t bytes, size_t entries)
{
    size_t hits = 0;
    open_cache(kind, shards, bytes, entries);
    for (size_t i = 0; i < trace.len; i++)
        hits += request(trace.id[i], bytes ? trace.weight : trace.ones);
    for (unsigned i = 0; i < shards; i++)
        rv_policy_check(&cache.shard[i]);
    close_cache();
    return 100.0 * (double)hits / (double)trace.len;
}

static double run_reference(enum ref_kind kind, size_t bytes, size_t entries)
{
    struct ref r;
    size_t hits = 0;
    ref_init(&r, kind, bytes, entries, bytes ? trace.weight : trace.ones, trace.n);
    for (size_t i = 0; i < trace.len; i++)
        hits += ref_request(&r, trace.id[i]);
    ref_finish(&r);
    return 100.0 * (double)hits / (double)trace.len;
}

/* The best that can be: whose next use is farthest goes, the newcomer among them. */
static double run_belady(size_t entries)
{
    size_t *next = malloc(trace.len * sizeof *next), *last = malloc(trace.n * sizeof *last);
    uint32_t *in = malloc((entries + 1) * sizeof *in);
    size_t n = 0, hits = 0;
    CHECK(next && last && in);
    for (size_t i = 0; i < trace.n; i++)
        last[i] = SIZE_MAX;
    for (size_t i = trace.len; i-- > 0; last[trace.id[i]] = i)
        next[i] = last[trace.id[i]];
    for (size_t i = 0; i < trace.n; i++)
        last[i] = SIZE_MAX;             /* from here on: the next use; SIZE_MAX: not in */
    bool *is_in = calloc(trace.n, 1);
    CHECK(is_in);
    for (size_t i = 0; i < trace.len; i++) {
        uint32_t id = trace.id[i];
        hits += is_in[id];
        last[id] = next[i];
        if (is_in[id])
            continue;
        is_in[id] = true;
        in[n++] = id;
        if (n <= entries)
            continue;
        size_t worst = 0;
        for (size_t k = 1; k < n; k++)
            if (last[in[k]] > last[in[worst]])
                worst = k;
        is_in[in[worst]] = false;
        in[worst] = in[--n];
    }
    free(next);
    free(last);
    free(in);
    free(is_in);
    return 100.0 * (double)hits / (double)trace.len;
}

/* ---- oracles --------------------------------------------------------------------------------- */

/* Request by request: the same hits, the same victims in the same order. */
static size_t same_as_reference(enum rv_policy_kind kind, size_t bytes, size_t entries,
                              const char *what)
{
    static const enum ref_kind ref_kinds[] = { REF_S3FIFO, REF_LRU, REF_SIEVE, REF_ADAPTIVE };
    struct ref r;
    size_t hits = 0;
    const size_t *weight = bytes ? trace.weight : trace.ones;
    ref_init(&r, ref_kinds[kind], bytes, entries, weight, trace.n);
    open_cache(kind, 1, bytes, entries);
    for (size_t i = 0; i < trace.len; i++) {
        bool hit = request(trace.id[i], weight), ref_hit = ref_request(&r, trace.id[i]);
        if (hit != ref_hit)
            check_failed(__FILE__, __LINE__, "%s: request %zu: a hit %d, reference %d", what, i,
                         hit, ref_hit);
        bool same = cache.victims_n == r.victims_n &&
                    memcmp(cache.victims, r.victims, r.victims_n * sizeof *r.victims) == 0;
        if (!same)
            check_failed(__FILE__, __LINE__, "%s: request %zu: other victims (%zu, %zu)", what, i,
                         cache.victims_n, r.victims_n);
        hits += hit;
    }
    CHECK_EQ(cache.shard[0].entries, ref_entries(&r));
    rv_policy_check(&cache.shard[0]);
    close_cache();
    ref_finish(&r);
    return hits;
}

static const struct {
    enum trace_kind kind;
    size_t n;
    double s;
} shapes[] = { { TRACE_ZIPF, 3000, 1.0 },     { TRACE_ZIPF, 3000, 0.7 },
               { TRACE_SCAN, 2000, 0.9 },     { TRACE_LOOP, 330, 0 },
               { TRACE_SHIFTING, 2000, 1.0 }, { TRACE_WONDERS, 2000, 0.9 },
               { TRACE_RECENCY, 200, 0 } };

static void exact_on_all_traces(enum rv_policy_kind kind)
{
    static const size_t capacities[] = { 1, 2, 9, 100, 300 };
    char what[128];
    size_t hits = 0;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (uint64_t seed = 1; seed <= 2; seed++) {
            make_trace(shapes[i].kind, 10000, shapes[i].n, shapes[i].s, seed);
            for (size_t c = 0; c < sizeof capacities / sizeof capacities[0]; c++) {
                snprintf(what, sizeof what, "%s on %s, seed %d, %zu entries", names[kind],
                         trace_names[shapes[i].kind], (int)seed, capacities[c]);
                hits += same_as_reference(kind, 0, capacities[c], what);
                snprintf(what, sizeof what, "%s on %s, seed %d, %zu x 200 bytes", names[kind],
                         trace_names[shapes[i].kind], (int)seed, capacities[c]);
                hits += same_as_reference(kind, capacities[c] * 200, 0, what);
            }
            hits += same_as_reference(kind, 20000, 120, "both limits");
        }
    CHECK_GT(hits, 50000); /* else there was nothing to compare */
}

TEST(lru_is_exactly_its_reference)
{
    exact_on_all_traces(RV_POLICY_LRU);
}

TEST(sieve_is_exactly_its_reference)
{
    exact_on_all_traces(RV_POLICY_SIEVE);
}

TEST(s3fifo_is_exactly_its_reference)
{
    exact_on_all_traces(RV_POLICY_S3FIFO);
}

/* What runs on one thread, and long: there is nothing in it for a sanitizer of threads. */
static void not_for_tsan(void)
{
#ifdef RV_TSAN
    SKIP("one thread only");
#endif
}

/* Over several seeds: of one trace alone, chance decides about more than that. */
TEST(adaptive_is_within_half_a_point_of_its_reference)
{
    enum { SEEDS = 2 };
    not_for_tsan();
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        double own = 0, its = 0, own_bytes = 0, its_bytes = 0;
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
            make_trace(shapes[i].kind, 100000, shapes[i].n, shapes[i].s, seed);
            own += run(RV_POLICY_ADAPTIVE, 1, 0, 300) / SEEDS;
            its += run_reference(REF_ADAPTIVE, 0, 300) / SEEDS;
            own_bytes += run(RV_POLICY_ADAPTIVE, 1, 90000, 0) / SEEDS;
            its_bytes += run_reference(REF_ADAPTIVE, 90000, 0) / SEEDS;
        }
        printf("adaptive on %-8s s %.1f: %.2f, reference %.2f; by bytes %.2f, %.2f\n",
               trace_names[shapes[i].kind], shapes[i].s, own, its, own_bytes, its_bytes);
        CHECK(fabs(own - its) <= 0.5);
        /* A loop over things of many sizes is at an edge: one admitted more or less by chance
         * decides about many others, so the two part. */
        CHECK(shapes[i].kind == TRACE_LOOP || fabs(own_bytes - its_bytes) <= 0.5);
    }
}

TEST(sixteen_shards_are_within_half_a_point_of_one)
{
    not_for_tsan();
    static const enum trace_kind some[] = { TRACE_ZIPF, TRACE_SHIFTING, TRACE_WONDERS };
    for (int i = 0; i < 3; i++) {
        make_trace(some[i], 600000, 100000, 1.0, 4);
        for (int k = 0; k < 4; k++) {
            double one = run(kinds[k], 1, 0, 16000), sixteen = run(kinds[k], 16, 0, 16000);
            printf("%-8s on %-8s: one shard %.2f, sixteen %.2f\n", names[k], trace_names[some[i]],
                   one, sixteen);
            /* After a shift SIEVE's hand has a long way through what was popular: with sixteen
             * hands less so, and it is better by more than that. */
            bool better = kinds[k] == RV_POLICY_SIEVE && some[i] == TRACE_SHIFTING;
            CHECK(sixteen >= one - 0.5);
            CHECK(better || sixteen <= one + 0.5);
        }
    }
}

/* ---- the sketch ------------------------------------------------------------------------------ */

TEST(a_sketch_keeps_the_counts_of_those_that_left)
{
    enum { KEYS = 1000 };
    struct rv_sketch s;
    CHECK_OK(rv_sketch_init(&s, KEYS));
    for (uint64_t k = 0; k < KEYS; k++)
        rv_sketch_raise(&s, trace_mix(k), (unsigned)(k % 200));
    rv_sketch_raise(&s, trace_mix(KEYS), 10000);
    CHECK_EQ(rv_sketch_estimate(&s, trace_mix(KEYS)), RV_SKETCH_MAX);
    unsigned exact = 0;
    for (uint64_t k = 0; k < KEYS; k++) {
        CHECK_GE(rv_sketch_estimate(&s, trace_mix(k)), k % 200);
        exact += rv_sketch_estimate(&s, trace_mix(k)) == k % 200;
    }
    CHECK_GT(exact, KEYS * 9 / 10);
    for (size_t entries = KEYS; entries <= 16 * KEYS; entries += KEYS) {
        rv_sketch_grow(&s, entries);
        for (uint64_t k = 0; k < KEYS; k++)
            CHECK_GE(rv_sketch_estimate(&s, trace_mix(k)), k % 200);
    }
    rv_sketch_finish(&s);
}

TEST(halving_halves_those_who_are_in_and_those_who_left)
{
    enum { KEYS = 1000 };
    struct rv_sketch s;
    CHECK_OK(rv_sketch_init(&s, KEYS));
    for (unsigned halvings = 0; halvings < 5; halvings++) {
        rv_sketch_raise(&s, trace_mix(1), 200);
        CHECK_EQ(rv_sketch_estimate(&s, trace_mix(1)), 200);
        uint8_t age = s.age;
        for (uint64_t i = 0; i < (uint64_t)RV_SKETCH_SAMPLE * KEYS; i++)
            rv_sketch_use(&s);
        CHECK_EQ(rv_sketch_aged(&s, 200, age), 100);
        for (unsigned i = 0; s.ageing < s.count; i++) {
            rv_sketch_raise(&s, trace_mix(2), 0);   /* a few words each */
            CHECK_LT(i, KEYS);
        }
        CHECK_EQ(rv_sketch_estimate(&s, trace_mix(1)), 100);
        s.seen = 0;
    }
    CHECK_EQ(rv_sketch_aged(&s, 60000, (uint8_t)(s.age - 16)), 0);
    rv_sketch_finish(&s);
}

/* ---- what they are worth --------------------------------------------------------------------- */

struct worth {
    double by[7];       /* in the order of names */
};

static struct worth measure(const char *what, size_t entries)
{
    struct worth w;
    for (int k = 0; k < 4; k++)
        w.by[k] = run(kinds[k], 1, 0, entries);
    w.by[4] = run_reference(REF_SMART, 0, entries);
    w.by[5] = run_reference(REF_SMART_SHORT, 0, entries);
    w.by[6] = run_belady(entries);
    printf("%-30s", what);
    for (int k = 0; k < 7; k++)
        printf(" %s %.2f", names[k], w.by[k]);
    printf("\n");
    return w;
}

enum { S3FIFO, LRU, SIEVE, ADAPTIVE, SMART, SMART_SHORT, BELADY };

TEST(s3fifo_and_adaptive_beat_lru_by_six_points_on_zipf)
{
    not_for_tsan();
    make_trace(TRACE_ZIPF, 300000, 10000, 1.0, 5);
    struct worth w = measure("zipf 1.0, 10 %", 1000);
    CHECK(w.by[S3FIFO] >= w.by[LRU] + 6);
    CHECK(w.by[ADAPTIVE] >= w.by[LRU] + 6);
}

TEST(adaptive_keeps_half_of_the_best_on_a_loop)
{
    not_for_tsan();
    make_trace(TRACE_LOOP, 100000, 1100, 0, 6);
    struct worth w = measure("loop of 1.1 x capacity", 1000);
    CHECK(w.by[ADAPTIVE] >= 0.5 * w.by[BELADY]);
}

TEST(adaptive_is_within_half_a_point_of_lru_where_only_recency_counts)
{
    not_for_tsan();
    make_trace(TRACE_RECENCY, 200000, 400, 0, 7);
    struct worth w = measure("recency", 1000);
    CHECK(w.by[ADAPTIVE] >= w.by[LRU] - 0.5);
}

/* A score that keeps the count of every key for ever is the best that anybody without a knowledge
 * of the future can do where the same keys stay popular for ever. ADAPTIVE, which forgets and has
 * memory for counts of few keys, must come so close that it hardly shows; where anything changes it
 * must be better. */
#define HARDLY 0.2

TEST(adaptive_is_at_least_lru_and_hardly_less_than_the_smart_score_or_better)
{
    not_for_tsan();
    make_trace(TRACE_ZIPF, 300000, 10000, 1.0, 8);
    struct worth zipf = measure("zipf 1.0", 1000);
    make_trace(TRACE_SHIFTING, 300000, 5000, 1.0, 8);
    struct worth shifting = measure("shifting hot set", 1000);
    make_trace(TRACE_SCAN, 300000, 5000, 1.0, 8);
    struct worth scan = measure("zipf 1.0 with scans", 1000);
    CHECK(zipf.by[ADAPTIVE] >= zipf.by[LRU]);
    CHECK(zipf.by[ADAPTIVE] >= zipf.by[SMART_SHORT]);
    CHECK(zipf.by[ADAPTIVE] >= zipf.by[SMART] - HARDLY);
    CHECK(shifting.by[ADAPTIVE] >= shifting.by[LRU]);
    CHECK(shifting.by[ADAPTIVE] >= shifting.by[SMART]);
    CHECK(shifting.by[ADAPTIVE] >= shifting.by[SMART_SHORT]);
    CHECK(scan.by[ADAPTIVE] >= scan.by[LRU]);
    CHECK(scan.by[ADAPTIVE] >= scan.by[SMART_SHORT]);
    CHECK(scan.by[ADAPTIVE] >= scan.by[SMART] - HARDLY);
}
