/* SPDX-License-Identifier: MIT */
/*
 * cache_hit.c -- what a request to a cache costs: a hit, a miss with its load, a put.
 *
 * Each side is a process of its own with a runtime of one or two workers. Keys are drawn before
 * from a Zipf distribution; the loops do nothing but look up and touch the first word of what they
 * get. Two workers draw from the same keys, each in an order of its own: what is hot is hot
 * for both.
 *
 * ns_per_op is CPU time, of which it makes no difference what else runs on the machine; speedup is
 * by the clock, and wants a quiet one.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <reeve/cache.h>
#include <reeve/mem.h>
#include <reeve/reeve.h>

#include "tests/bench/bench_cache.h"

enum { KEYS = 1000, ENTRIES = 4000, DRAWN = 1 << 16, HITS = 1 << 20, MISSES = 1 << 14, ROUNDS = 5 };

struct side {
    const struct cache_cost *cost;
    int workers;
    int cpus[2];
};

/* Of this process: one side in each. */
static struct {
    reeve *rt;
    reeve_cache *cache;
    const struct side *side;
    uint32_t drawn[DRAWN];
    uint64_t value, next_key;
    atomic_int ready;
    atomic_llong cpu_ns;    /* of all workers, in the loops */
    double took_ns;         /* by the clock; of the last repetition */
} p;

static void must(const char *what, long r)
{
    if (r >= 0)
        return;
    fprintf(stderr, "bench_cache: %s: %s\n", what, strerror((int)-r));
    exit(1);
}

static int load(void *ctx, struct reeve_bytes key, struct reeve_value *ret)
{
    (void)ctx;
    (void)key;
    *ret = (struct reeve_value){ .data = &p.value, .len = sizeof p.value };
    return 0;
}

/* ---- what is measured ------------------------------------------------------------------------ */

static inline void borrow(uint64_t key, uint64_t *sum)
{
    struct reeve_value value;
    struct reeve_bytes bytes = { &key, sizeof key };
    must("borrow", reeve_cache_borrow(p.cache, bytes, &value, 0));
    *sum += *(volatile uint64_t *)value.data;
    reeve_cache_return(p.cache, value);
}

static void hit(uint64_t *sum, unsigned from)
{
    for (unsigned i = from; i < from + HITS; i++)
        borrow(p.drawn[i % DRAWN], sum);
}

static void miss(uint64_t *sum)
{
    for (int i = 0; i < MISSES; i++)
        borrow(++p.next_key, sum);
}

static void put(uint64_t *sum)
{
    for (int i = 0; i < MISSES; i++) {
        uint64_t key = p.drawn[i];
        struct reeve_value value = { .data = &p.value, .len = sizeof p.value };
        must("put", reeve_cache_put(p.cache, (struct reeve_bytes){ &key, sizeof key }, value));
    }
    *sum += MISSES;
}

static void run_once(uint64_t *sum, int me)
{
    switch (p.side->cost->what) {
    case CACHE_HIT:
        hit(sum, (unsigned)me * (DRAWN / 2));
        break;
    case CACHE_MISS:
        miss(sum);
        break;
    case CACHE_PUT:
        put(sum);
        break;
    }
}

/* ---- running --------------------------------------------------------------------------------- */

static int fill(void *arg)
{
    const struct cache_cost *cost = p.side->cost;
    struct reeve_cache_opts o = { .policy = cost->policy, .entries_max = ENTRIES,
                                  .levels = cost->levels, .load = load };
    uint64_t sum = 0;
    (void)arg;
    must("cache", reeve_cache_create(&p.cache, &o, 0));
    for (uint64_t key = 0; key < KEYS; key++)
        borrow(key, &sum);
    p.next_key = UINT64_C(1) << 32;
    return 0;
}

/* Of the thread, in loops that do not wait, and so stay on it; else of the process, which has but
 * one worker then. */
static long long cpu_ns(void)
{
    struct timespec t;
    clock_gettime(p.side->workers > 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_PROCESS_CPUTIME_ID, &t);
    return (long long)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Begins when all of them are there. */
static int work(void *arg)
{
    uint64_t sum = 0;
    (void)arg;
    int me = atomic_fetch_add(&p.ready, 1);
    while (atomic_load(&p.ready) < p.side->workers)
        reeve_sleep(0);
    long long begun = cpu_ns();
    run_once(&sum, me);
    atomic_fetch_add(&p.cpu_ns, cpu_ns() - begun);
    return sum == 1;    /* it is used */
}

static int all_work(void *arg)
{
    reeve_task *task[2];
    atomic_store(&p.ready, 0);
    for (int i = 0; i < p.side->workers; i++)
        must("spawn", reeve_spawn(&task[i], work, arg, .worker = i + 1));
    for (int i = 0; i < p.side->workers; i++)
        must("join", reeve_join(task[i], NULL, 0));
    return 0;
}

static void begin(const struct side *side)
{
    struct trace_random r = { 1 };
    double *sums = trace_zipf_sums(KEYS, 1.0);
    if (sums == NULL)
        exit(1);
    for (int i = 0; i < DRAWN; i++)
        p.drawn[i] = (uint32_t)trace_zipf_key(sums, KEYS, &r);
    free(sums);
    p.side = side;
    must("runtime", reeve_create(&p.rt, &(struct reeve_opts){ .workers = side->workers,
                                                              .cpus = side->cpus }));
    must("fill", reeve_call(p.rt, fill, NULL, 0));
}

static double operations(const struct side *side)
{
    return side->cost->what == CACHE_HIT ? HITS : MISSES;
}

/* One repetition: ns of CPU time for each operation. */
static double once(void *ctx)
{
    const struct side *side = ctx;
    if (p.rt == NULL)
        begin(side);
    atomic_store(&p.cpu_ns, 0);
    int64_t t0 = bench_now();
    must("call", reeve_call(p.rt, all_work, NULL, 0));
    p.took_ns = (double)(bench_now() - t0);
    return (double)atomic_load(&p.cpu_ns) / operations(side) / side->workers;
}

/* The same, by the clock, and of a worker. */
static double clock_once(void *ctx)
{
    once(ctx);
    return p.took_ns / operations(ctx);
}

/* The same, but how often anything asked for memory, for each operation. */
static double allocations_once(void *ctx)
{
    const struct side *side = ctx;
    struct reeve_memory before, after;
    if (p.rt == NULL)
        begin(side);
    must("call", reeve_call(p.rt, all_work, NULL, 0));
    reeve_memory_stats(&before);
    must("call", reeve_call(p.rt, all_work, NULL, 0));
    reeve_memory_stats(&after);
    double asked = (double)(after.heap_requests - before.heap_requests);
    return asked / operations(side) / side->workers;
}

static struct side side_of(const struct bench *b, const struct cache_cost *cost, int workers)
{
    return (struct side){ .cost = cost, .workers = workers,
                          .cpus = { b->cpu_server, b->cpu_load } };
}

static bool allocations(struct bench *b, const struct bench_case *c, struct side *side)
{
    struct bench_samples s = { .n = 0 };
    if (bench_ns_alone(&s, NULL, allocations_once, side, 1, -1) < 0)
        return false;
    bench_emit(b, c->name, "allocs_per_op", &s, NULL, NULL);
    return true;
}

void cache_cost_1t(struct bench *b, const struct bench_case *c)
{
    struct bench_samples ns = { .n = 0 };
    struct side side = side_of(b, c->ctx, 1);
    int rounds = b->quick ? 1 : ROUNDS;
    bool well = true;
    for (int i = 0; i < rounds && well; i++)
        well = bench_ns_alone(&ns, NULL, once, &side, b->quick ? 3 : 5, b->cpu_server) == 0;
    if (well)
        bench_emit(b, c->name, "ns_per_op", &ns, NULL, NULL);
    if (!well || !allocations(b, c, &side))
        bench_fail(b, c->name, "it did not end well");
}

/* Adds a few repetitions of each side, in turns. */
static bool in_turns(struct bench *b, double (*measure)(void *), struct side *alone,
                     struct side *both, struct bench_samples *one, struct bench_samples *two)
{
    bool well = true;
    for (int i = 0; i < (b->quick ? 2 : ROUNDS) && well; i++)
        well = bench_ns_alone(one, NULL, measure, alone, b->quick ? 2 : 4, b->cpu_server) == 0 &&
               bench_ns_alone(two, NULL, measure, both, b->quick ? 2 : 4, -1) == 0;
    return well;
}

/* Against one worker: two do twice the work, and speedup says in how much less time. */
void cache_cost_2t(struct bench *b, const struct bench_case *c)
{
    struct bench_samples one = { .n = 0 }, two = { .n = 0 }, speedup = { .n = 0 };
    struct bench_samples one_took = { .n = 0 }, two_took = { .n = 0 };
    struct side alone = side_of(b, c->ctx, 1), both = side_of(b, c->ctx, 2);
    if (b->cpu_server == b->cpu_load) {
        bench_skip(c->name, "there is but one CPU");
        return;
    }
    if (!in_turns(b, once, &alone, &both, &one, &two) ||
        !in_turns(b, clock_once, &alone, &both, &one_took, &two_took)) {
        bench_fail(b, c->name, "a side did not end well");
        return;
    }
    bench_emit(b, c->name, "ns_per_op", &two, "one_worker", &one);
    bench_add(&speedup, 2 * bench_median(&one_took) / bench_median(&two_took));
    bench_emit(b, c->name, "speedup", &speedup, NULL, NULL);
    if (!allocations(b, c, &both))
        bench_fail(b, c->name, "it did not end well");
}
