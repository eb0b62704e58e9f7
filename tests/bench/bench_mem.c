/* SPDX-License-Identifier: MIT */
/*
 * bench_mem.c -- what memory costs: pools of objects and blocks against mimalloc, and the profiler.
 *
 *     bench_mem [--json] [--quick] [--case NAME]...
 *
 *     pool_same, _1k, _16k    an object borrowed and returned by one task: 64 bytes, 1 and 16 KiB
 *     pool_burst, _1k, _16k   the same, 200 borrowed before they are returned
 *     pool_cross, _1k, _16k   a task borrows, one on another worker returns, both at the same time
 *                             and a ring of 256 pointers between them
 *     pool_turns, _1k, _16k   the same in turns, 200 objects each: the time of both, without what
 *                             it takes to wake the other
 *     alloc_64 .. alloc_1m    a block of reeve_alloc, taken and freed
 *     profiler_cost, _burst   pool_same and pool_burst_1k with the profiler on, against off
 *     profiler_alloc          the same for alloc_1k
 *     profiler_16k            the same for blocks of 16 KiB that are filled: so large ones are
 *                             followed often, but there is more to do with them
 *     arena_4k                200 blocks taken, touched and freed by a process that has just begun,
 *                             out of a prefaulted arena against out of the allocator
 *     steady                  what misses in a million borrowings, of objects and of blocks
 *
 * Both sides of a case run in turns, each in a process of its own, inside tasks. All times are ns
 * for one object, borrowing and returning together.
 */
#include <reeve/mem.h>
#include <reeve/pool.h>
#include <reeve/reeve.h>

#if !defined(RV_NO_MIMALLOC) /* under a sanitizer the peer is the sanitizer's */
#include <mimalloc.h>
#endif
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/harness.h"

enum { BURST = 200, OPS = 1 << 20, CROSSINGS = 400, RING = 256, ROUNDS = 5 };

static int cpus[2];

static void must(const char *what, long r)
{
    if (r >= 0)
        return;
    fprintf(stderr, "bench_mem: %s: %s\n", what, strerror((int)-r));
    exit(1);
}

/* ---- the two sides: what takes and what gives ------------------------------------------------ */

enum side { POOL, BLOCK, MIMALLOC };

struct job {
    enum side side;
    size_t bytes;
    bool followed;  /* by the profiler */
    void (*run)(const struct job *job);
};

static reeve_pool *pool;    /* of this process: one side in each */
static double ns;           /* what it took in all, and for how many */
static double ops;

#if defined(RV_NO_MIMALLOC)
#define peer_malloc malloc
#define peer_free free
#else
#define peer_malloc mi_malloc
#define peer_free mi_free
#endif

/* The first word is written, as anybody would. */
static inline __attribute__((always_inline)) void *take(enum side side, size_t bytes)
{
    void *object = side == POOL ? reeve_pool_borrow(pool)
                                : side == BLOCK ? reeve_alloc(bytes) : peer_malloc(bytes);
    *(volatile uint64_t *)object = 1;
    return object;
}

static inline __attribute__((always_inline)) void give(enum side side, void *object)
{
    if (side == POOL)
        reeve_pool_return(pool, object);
    else if (side == BLOCK)
        reeve_free(object);
    else
        peer_free(object);
}

/* ---- on one worker --------------------------------------------------------------------------- */

static inline __attribute__((always_inline)) void singly(enum side side, size_t bytes, int n)
{
    int64_t t0 = bench_now();
    for (int i = 0; i < n; i++)
        give(side, take(side, bytes));
    ns += (double)(bench_now() - t0);
    ops += n;
}

/* One loop for each side, so that no side pays for choosing. */
static void one_by_one(const struct job *job)
{
    if (job->side == POOL)
        singly(POOL, job->bytes, OPS);
    else if (job->side == BLOCK)
        singly(BLOCK, job->bytes, OPS);
    else
        singly(MIMALLOC, job->bytes, OPS);
}

static inline __attribute__((always_inline)) void bursts(enum side side, size_t bytes)
{
    void *objects[BURST];
    int64_t t0 = bench_now();
    for (int round = 0; round < OPS / BURST; round++) {
        for (int i = 0; i < BURST; i++)
            objects[i] = take(side, bytes);
        for (int i = 0; i < BURST; i++)
            give(side, objects[i]);
    }
    ns += (double)(bench_now() - t0);
    ops += OPS / BURST * BURST;
}

static void in_bursts(const struct job *job)
{
    if (job->side == POOL)
        bursts(POOL, job->bytes);
    else if (job->side == BLOCK)
        bursts(BLOCK, job->bytes);
    else
        bursts(MIMALLOC, job->bytes);
}

static void filled(const struct job *job)
{
    int64_t t0 = bench_now();
    for (int i = 0; i < OPS / 16; i++) {
        void *block = take(BLOCK, job->bytes);
        memset(block, i, job->bytes);
        __asm__ volatile("" : : "r"(block) : "memory");
        give(BLOCK, block);
    }
    ns += (double)(bench_now() - t0);
    ops += OPS / 16;
}

static void few(const struct job *job)
{
    if (job->side == BLOCK)
        singly(BLOCK, job->bytes, OPS / 64);
    else
        singly(MIMALLOC, job->bytes, OPS / 64);
}

/* ---- from one worker to the other ------------------------------------------------------------ */

static struct {
    const struct job *job;
    void *objects[BURST];
} crossing;

static int take_all(void *arg)
{
    (void)arg;
    enum side side = crossing.job->side;
    int64_t t0 = bench_now();
    for (int i = 0; i < BURST; i++)
        crossing.objects[i] = take(side, crossing.job->bytes);
    ns += (double)(bench_now() - t0);
    return 0;
}

static int give_all(void *arg)
{
    (void)arg;
    enum side side = crossing.job->side;
    int64_t t0 = bench_now();
    for (int i = 0; i < BURST; i++)
        give(side, crossing.objects[i]);
    ns += (double)(bench_now() - t0);
    return 0;
}

static void on_worker(int worker, reeve_fn *fn)
{
    reeve_task *task;
    must("spawn", reeve_spawn(&task, fn, NULL, .worker = worker));
    must("join", reeve_join(task, NULL, 0));
}

static void in_turns(const struct job *job)
{
    crossing.job = job;
    for (int i = 0; i < CROSSINGS; i++) {
        on_worker(1, take_all);
        on_worker(2, give_all);
    }
    ops += CROSSINGS * BURST;
}

/* A ring with one producer and one consumer; who finds it full or empty lets others run. */
static struct {
    _Alignas(64) _Atomic(unsigned) head;
    _Alignas(64) _Atomic(unsigned) tail;
    _Alignas(64) void *place[RING];
} ring;

static inline __attribute__((always_inline)) int produce(enum side side, size_t bytes)
{
    for (unsigned i = 0; i < OPS; i++) {
        void *object = take(side, bytes);
        while (i - atomic_load_explicit(&ring.head, memory_order_acquire) == RING)
            reeve_sleep(0);
        ring.place[i % RING] = object;
        atomic_store_explicit(&ring.tail, i + 1, memory_order_release);
    }
    return 0;
}

static inline __attribute__((always_inline)) int consume(enum side side)
{
    for (unsigned i = 0; i < OPS; i++) {
        while (atomic_load_explicit(&ring.tail, memory_order_acquire) == i)
            reeve_sleep(0);
        give(side, ring.place[i % RING]);
        atomic_store_explicit(&ring.head, i + 1, memory_order_release);
    }
    return 0;
}

static int produce_all(void *arg)
{
    const struct job *job = arg;
    return job->side == POOL ? produce(POOL, job->bytes) : produce(MIMALLOC, job->bytes);
}

static int consume_all(void *arg)
{
    const struct job *job = arg;
    return job->side == POOL ? consume(POOL) : consume(MIMALLOC);
}

static void meet(const struct job *job)
{
    reeve_task *a, *b;
    atomic_store(&ring.head, 0);
    atomic_store(&ring.tail, 0);
    void *arg = (void *)(uintptr_t)job;
    int64_t t0 = bench_now();
    must("spawn", reeve_spawn(&a, produce_all, arg, .worker = 1));
    must("spawn", reeve_spawn(&b, consume_all, arg, .worker = 2));
    must("join", reeve_join(a, NULL, 0));
    must("join", reeve_join(b, NULL, 0));
    ns += (double)(bench_now() - t0);
    ops += OPS;
}

/* ---- running --------------------------------------------------------------------------------- */

static int in_task(void *arg)
{
    const struct job *job = arg;
    job->run(job);
    return 0;
}

/* One repetition, in this process's runtime. */
static double once(void *ctx)
{
    static reeve *rt;
    struct job *job = ctx;
    if (rt == NULL) {
        bool two = job->run == in_turns || job->run == meet;
        struct reeve_opts o = { .workers = two ? 2 : 1, .cpus = two ? cpus : NULL };
        must("create", reeve_create(&rt, &o));
        if (job->side == POOL)
            must("pool", reeve_pool_create(&pool, &(struct reeve_pool_opts){
                .bytes = job->bytes, .idle_max = 1024 }));
        if (job->followed)
            must("profiler", reeve_memory_profile_start(0));
    }
    ns = ops = 0;
    must("call", reeve_call(rt, in_task, job, 0));
    return ns / ops;
}

struct match {
    struct job ours, theirs;
    const char *peer;
};

static void compare(struct bench *b, const struct bench_case *c)
{
    struct match *m = c->ctx;
    struct bench_samples ours = { .n = 0 }, theirs = { .n = 0 };
    bool two = m->ours.run == in_turns || m->ours.run == meet;
    int reps = b->quick ? 2 : 4;
    cpus[0] = b->cpu_server;
    cpus[1] = b->cpu_load;
    if (two && cpus[0] == cpus[1]) {
        bench_skip(c->name, "there is but one CPU");
        return;
    }
    for (int i = 0; i < ROUNDS && (i == 0 || bench_time_left(b)); i++)
        if (bench_ns_alone(&ours, NULL, once, &m->ours, reps, two ? -1 : b->cpu_server) < 0 ||
            bench_ns_alone(&theirs, NULL, once, &m->theirs, reps, two ? -1 : b->cpu_server) < 0) {
            bench_fail(b, c->name, "a side did not end well");
            return;
        }
    bench_emit(b, c->name, "ns_per_op", &ours, m->peer, &theirs);
}

/* ---- the first blocks of a process ----------------------------------------------------------- */

/* The repetition that does not count does nothing, so that the one that does is the first. */
static double first_blocks(void *ctx)
{
    const struct reeve_memory_opts *o = ctx;
    enum { BYTES = 4096, WRITES = 8 };
    static bool begun;
    void *blocks[BURST];
    if (!begun) {
        begun = true;
        must("setup", o->arena_bytes > 0 ? reeve_memory_setup(o) : 0);
        return 0;
    }
    int64_t t0 = bench_now();
    for (int i = 0; i < BURST; i++) {
        blocks[i] = take(BLOCK, BYTES);
        for (int at = 0; at < BYTES; at += BYTES / WRITES)
            ((volatile char *)blocks[i])[at] = 1;
    }
    for (int i = 0; i < BURST; i++)
        give(BLOCK, blocks[i]);
    return (double)(bench_now() - t0) / BURST;
}

static void begin(struct bench *b, const struct bench_case *c)
{
    enum { PROCESSES = 15 };
    static struct reeve_memory_opts arena = { .arena_bytes = 4 << 20, .prefault = true }, none;
    struct bench_samples with = { .n = 0 }, without = { .n = 0 };
    for (int i = 0; i < PROCESSES && (i == 0 || bench_time_left(b)); i++)
        if (bench_ns_alone(&with, NULL, first_blocks, &arena, 1, b->cpu_server) < 0 ||
            bench_ns_alone(&without, NULL, first_blocks, &none, 1, b->cpu_server) < 0) {
            bench_fail(b, c->name, "a side did not end well");
            return;
        }
    bench_emit(b, c->name, "ns_per_op", &with, "no_arena", &without);
}

/* ---- nothing is allocated once it runs ------------------------------------------------------- */

static uint64_t misses_of_all(void)
{
    struct reeve_memory_pool pools[32];
    uint64_t misses = 0;
    size_t n = reeve_memory_pools(pools, 32);
    for (size_t i = 0; i < n && i < 32; i++)
        misses += pools[i].misses;
    return misses;
}

static double steady_once(void *ctx)
{
    (void)ctx;
    static struct job objects = { .side = POOL, .bytes = 64, .run = in_bursts };
    static struct job blocks = { .side = BLOCK, .bytes = 4096, .run = in_bursts };
    once(&objects);
    once(&blocks);
    uint64_t before = misses_of_all();
    once(&objects);
    once(&blocks);
    return (double)(misses_of_all() - before);
}

static void steady(struct bench *b, const struct bench_case *c)
{
    struct bench_samples misses = { .n = 0 };
    if (bench_ns_alone(&misses, NULL, steady_once, NULL, 2, b->cpu_server) < 0)
        bench_fail(b, c->name, "it did not end well");
    else
        bench_emit(b, c->name, "misses", &misses, NULL, NULL);
}

#define AGAINST_MIMALLOC(how, our_side, size)                                                      \
    &(struct match){ { .side = (our_side), .bytes = (size), .run = (how) },                        \
                     { .side = MIMALLOC, .bytes = (size), .run = (how) }, "mimalloc" }
#define PROFILED(how, our_side, size)                                                              \
    &(struct match){ { .side = (our_side), .bytes = (size), .followed = true, .run = (how) },      \
                     { .side = (our_side), .bytes = (size), .run = (how) }, "profiler_off" }

static const struct bench_case cases[] = {
    { .name = "pool_same", .run = compare, .ctx = AGAINST_MIMALLOC(one_by_one, POOL, 64) },
    { .name = "pool_same_1k", .run = compare, .ctx = AGAINST_MIMALLOC(one_by_one, POOL, 1024) },
    { .name = "pool_same_16k", .run = compare, .ctx = AGAINST_MIMALLOC(one_by_one, POOL, 16384) },
    { .name = "pool_burst", .run = compare, .ctx = AGAINST_MIMALLOC(in_bursts, POOL, 64) },
    { .name = "pool_burst_1k", .run = compare, .ctx = AGAINST_MIMALLOC(in_bursts, POOL, 1024) },
    { .name = "pool_burst_16k", .run = compare, .ctx = AGAINST_MIMALLOC(in_bursts, POOL, 16384) },
    { .name = "pool_cross", .run = compare, .ctx = AGAINST_MIMALLOC(meet, POOL, 64) },
    { .name = "pool_cross_1k", .run = compare, .ctx = AGAINST_MIMALLOC(meet, POOL, 1024) },
    { .name = "pool_cross_16k", .run = compare, .ctx = AGAINST_MIMALLOC(meet, POOL, 16384) },
    { .name = "pool_turns", .run = compare, .ctx = AGAINST_MIMALLOC(in_turns, POOL, 64) },
    { .name = "pool_turns_1k", .run = compare, .ctx = AGAINST_MIMALLOC(in_turns, POOL, 1024) },
    { .name = "pool_turns_16k", .run = compare, .ctx = AGAINST_MIMALLOC(in_turns, POOL, 16384) },
    { .name = "alloc_64", .run = compare, .ctx = AGAINST_MIMALLOC(one_by_one, BLOCK, 64) },
    { .name = "alloc_1k", .run = compare, .ctx = AGAINST_MIMALLOC(one_by_one, BLOCK, 1024) },
    { .name = "alloc_16k", .run = compare, .ctx = AGAINST_MIMALLOC(one_by_one, BLOCK, 16384) },
    { .name = "alloc_1m", .run = compare, .ctx = AGAINST_MIMALLOC(few, BLOCK, 1 << 20) },
    { .name = "profiler_cost", .run = compare, .ctx = PROFILED(one_by_one, POOL, 64) },
    { .name = "profiler_burst", .run = compare, .ctx = PROFILED(in_bursts, POOL, 1024) },
    { .name = "profiler_alloc", .run = compare, .ctx = PROFILED(one_by_one, BLOCK, 1024) },
    { .name = "profiler_16k", .run = compare, .ctx = PROFILED(filled, BLOCK, 16384) },
    { .name = "arena_4k", .run = begin },
    { .name = "steady", .run = steady },
};

int main(int argc, char **argv)
{
    static const struct bench_program program = { .name = "mem",
                                                  .cases = cases,
                                                  .cases_n = sizeof cases / sizeof cases[0] };
    return bench_main(&program, argc, argv);
}
