/* SPDX-License-Identifier: MIT */
/*
 * bench_sched.c -- what tasks cost: switching, spawning, joining, stealing, waking.
 *
 *     bench_sched [--case NAME] [--quick] [--peers] [--json]
 *
 * Each case runs in a child process of its own, in a runtime that lives as long as the child, so
 * that the first round warms everything up and is not counted; the time is taken inside the task.
 * Cases that end in _w2 have two workers and, beside their peers, a line against one worker.
 */
#include <reeve/reeve.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/caps.h"
#include "io/ring.h"
#include "mem/alloc.h"
#include "sched/deque.h"
#include "tests/bench/harness.h"

static reeve *runtime(unsigned workers)
{
    static reeve *rt;
    if (rt == NULL) {
        int r = reeve_create(&rt, &(struct reeve_opts){ .workers = workers, .tasks_max = 1 << 21 });
        if (r < 0) {
            fprintf(stderr, "bench_sched: no runtime: %s\n", strerror(-r));
            exit(1);
        }
    }
    return rt;
}

/* A measured piece of work: `run` does n operations. */
struct work {
    void (*run)(long n);
    long n;
    double ns;
};

static int timed(void *arg)
{
    struct work *work = arg;
    int64_t t0 = bench_now();
    work->run(work->n);
    work->ns = (double)(bench_now() - t0);
    return 0;
}

static double measure(unsigned workers, void (*run)(long), long n, double ops)
{
    struct work work = { run, n, 0 };
    if (reeve_call(runtime(workers), timed, &work, 0) < 0)
        return -1;
    return work.ns / ops;
}

static void must(int r)
{
    if (r < 0) {
        fprintf(stderr, "bench_sched: %s\n", strerror(-r));
        abort();
    }
}

/* ---- switching ------------------------------------------------------------------------------- */

static int yielder(void *arg)
{
    for (long n = *(long *)arg; n > 0; n--)
        reeve_sleep(0);
    return 0;
}

static void yield_alone(long n)
{
    yielder(&n);
}

/* So many tasks that take turns. */
static void yield_among(long tasks, long total)
{
    long each = total / tasks;
    reeve_group g = { 0 };
    for (long i = 0; i < tasks; i++)
        must(reeve_go(yielder, &each, .group = &g));
    must(reeve_group_wait(&g, 0));
}

static void switch_among_2(long n)
{
    yield_among(2, n);
}

static void switch_among_1000(long n)
{
    yield_among(1000, n);
}

static double case_yield(void *ctx)
{
    (void)ctx;
    return measure(1, yield_alone, 2000000, 2000000);
}

static double case_switch_2(void *ctx)
{
    (void)ctx;
    return measure(1, switch_among_2, 2000000, 2000000);
}

static double case_switch_1000(void *ctx)
{
    (void)ctx;
    return measure(1, switch_among_1000, 2000000, 2000000);
}

/* ---- spawning -------------------------------------------------------------------------------- */

static int nothing(void *arg)
{
    (void)arg;
    return 0;
}

static void spawn_and_join(long n)
{
    reeve_task *t;
    for (; n > 0; n--) {
        must(reeve_spawn(&t, nothing, NULL));
        must(reeve_join(t, NULL, 0));
    }
}

static void spawn_all_then_wait(long n)
{
    reeve_group g = { 0 };
    for (; n > 0; n--)
        must(reeve_go(nothing, NULL, .group = &g));
    must(reeve_group_wait(&g, 0));
}

static double case_spawn_join(void *ctx)
{
    (void)ctx;
    return measure(1, spawn_and_join, 1000000, 1000000);
}

static double case_spawn_1M(void *ctx)
{
    (void)ctx;
    return measure(1, spawn_all_then_wait, 1000000, 1000000);
}

/* ---- fork and join --------------------------------------------------------------------------- */

/* Ten children a node down to a million leaves, whose numbers are added up on the way back. */
struct sky {
    long base, leaves, sum;
};

static int skynet(void *arg)
{
    struct sky *sky = arg, child[10];
    reeve_task *t[10];
    if (sky->leaves == 1) {
        sky->sum = sky->base;
        return 0;
    }
    long each = sky->leaves / 10;
    for (int i = 0; i < 10; i++) {
        child[i] = (struct sky){ sky->base + i * each, each, 0 };
        must(reeve_spawn(&t[i], skynet, &child[i]));
    }
    for (int i = 9; i >= 0; i--) {
        must(reeve_join(t[i], NULL, 0));
        sky->sum += child[i].sum;
    }
    return 0;
}

static void skynet_leaves(long n)
{
    struct sky sky = { 0, n, 0 };
    skynet(&sky);
    if (sky.sum != n * (n - 1) / 2)
        must(-EIO);
}

/* The left child is spawned, the right one called: one spawn for every other call. */
static int fib(void *arg)
{
    long n = (long)(intptr_t)arg;
    reeve_task *t;
    int left;
    if (n < 2)
        return (int)n;
    must(reeve_spawn(&t, fib, (void *)(intptr_t)(n - 1)));
    int right = fib((void *)(intptr_t)(n - 2));
    must(reeve_join(t, &left, 0));
    return left + right;
}

#define FIB_32       2178309
#define FIB_32_CALLS 7049155.0

static void fib_of(long n)
{
    if (fib((void *)(intptr_t)n) != FIB_32)
        must(-EIO);
}

static double case_skynet(void *ctx)
{
    return measure(ctx ? 2 : 1, skynet_leaves, 1000000, 1000000);
}

static double case_fib(void *ctx)
{
    return measure(ctx ? 2 : 1, fib_of, 32, FIB_32_CALLS);
}

enum { SKYNET, FIB };

/* One and two workers in turns: how much faster the second makes it. */
static void compare_workers(struct bench *b, const struct bench_case *c)
{
    double (*once)(void *) = c->arg == FIB ? case_fib : case_skynet;
    struct bench_samples one = { 0 }, two = { 0 }, rss = { 0 }, speedup = { 0 };
    int rounds = b->quick ? 2 : 5, reps = b->quick ? 3 : 5;
    for (int i = 0; i < rounds; i++) {
        int r = bench_ns_alone(&one, NULL, once, NULL, reps, b->cpu_server);
        if (r == 0)
            r = bench_ns_alone(&two, &rss, once, &two, reps, -1);
        if (r < 0) {
            bench_fail(b, c->name, "a round failed");
            return;
        }
    }
    bench_emit(b, c->name, "ns_per_op", &two, "one_worker", &one);
    bench_add(&speedup, bench_median(&one) / bench_median(&two));
    bench_emit(b, c->name, "speedup", &speedup, NULL, NULL);
    bench_emit(b, c->name, "rss_bytes", &rss, NULL, NULL);
}

/* ---- waking ---------------------------------------------------------------------------------- */

enum { WAKES = 2000 };

/* From a task on one worker to one on the other and back: both were asleep each time. */
static int ping(void *arg)
{
    (void)arg;
    reeve_task *t;
    for (int i = 0; i < WAKES; i++) {
        must(reeve_spawn(&t, nothing, NULL, .worker = 2));
        must(reeve_join(t, NULL, 0));
    }
    return 0;
}

static void round_trips(long n)
{
    (void)n;
    reeve_task *t;
    must(reeve_spawn(&t, ping, NULL, .worker = 1));
    must(reeve_join(t, NULL, 0));
}

static double wake_reeve(void *ctx)
{
    (void)ctx;
    return measure(2, round_trips, WAKES, WAKES);
}

/* The same between two bare rings: a message there, a message back. */
struct bare {
    struct rv_ring ring[2];
    struct rv_caps caps;
    pthread_barrier_t ready;
    double ns;
};

static void await_message(struct rv_ring *ring)
{
    struct rv_cqe cqe[4];
    while (rv_ring_peek(ring, cqe, 4) == 0)
        rv_ring_enter(ring, 1, 0, RV_RING_FOREVER);
}

static void *bare_side(struct bare *bare, int side)
{
    struct rv_ring *mine = &bare->ring[side], *other = &bare->ring[1 - side];
    must(rv_ring_enable(mine));
    pthread_barrier_wait(&bare->ready);
    int64_t t0 = bench_now();
    for (int i = 0; i < WAKES; i++) {
        if (side == 0)
            must(rv_ring_msg(&bare->caps, other->fd, 1));
        await_message(mine);
        if (side == 1)
            must(rv_ring_msg(&bare->caps, other->fd, 1));
    }
    bare->ns = (double)(bench_now() - t0);
    return NULL;
}

static void *bare_far_side(void *arg)
{
    return bare_side(arg, 1);
}

static double wake_bare(void *ctx)
{
    static struct bare bare;
    pthread_t far;
    (void)ctx;
    memset(&bare, 0, sizeof bare);
    must(rv_caps_probe(&bare.caps, NULL));
    for (int i = 0; i < 2; i++)
        must(rv_ring_init(&bare.ring[i], 8, 16, RV_RING_FLAGS, NULL));
    pthread_barrier_init(&bare.ready, NULL, 2);
    must(-pthread_create(&far, NULL, bare_far_side, &bare));
    bare_side(&bare, 0);
    pthread_join(far, NULL);
    return bare.ns / WAKES;
}

static void wake_roundtrip(struct bench *b, const struct bench_case *c)
{
    struct bench_samples ours = { 0 }, bare = { 0 };
    struct rv_caps caps;
    bool message = rv_caps_probe(&caps, NULL) == 0 && caps.send_msg_ring;
    int rounds = b->quick ? 2 : 5, reps = b->quick ? 3 : 5;
    for (int i = 0; i < rounds; i++) {
        int r = bench_ns_alone(&ours, NULL, wake_reeve, NULL, reps, -1);
        if (r == 0 && message)
            r = bench_ns_alone(&bare, NULL, wake_bare, NULL, reps, -1);
        if (r < 0) {
            bench_fail(b, c->name, "a round failed");
            return;
        }
    }
    if (!message)
        bench_skip("bare_msg_ring", "this kernel has no SEND_MSG_RING");
    bench_emit(b, c->name, "ns_per_op", &ours, "bare_msg_ring", &bare);
}

/* ---- the deque alone ------------------------------------------------------------------------- */

static double case_deque(void *ctx)
{
    (void)ctx;
    enum { ROUNDS = 20000, DEEP = 100 };
    struct rv_deque *d = rv_alloc_aligned(sizeof *d, 64);
    memset(d, 0, sizeof *d);
    must(rv_deque_init(d, 1024));
    uint64_t sum = 0;
    int64_t t0 = bench_now();
    for (int r = 0; r < ROUNDS; r++) {
        for (uint64_t i = 1; i <= DEEP; i++)
            rv_deque_push(d, i);
        for (int i = 0; i < DEEP; i++)
            sum += rv_deque_pop(d);
    }
    double ns = (double)(bench_now() - t0);
    if (sum != (uint64_t)ROUNDS * DEEP * (DEEP + 1) / 2)
        must(-EIO);
    rv_deque_finish(d);
    rv_free(d);
    return ns / (2.0 * ROUNDS * DEEP);
}

static const struct bench_case cases[] = {
    { .name = "yield", .once = case_yield },
    { .name = "switch_2", .once = case_switch_2 },
    { .name = "switch_1000", .once = case_switch_1000 },
    { .name = "spawn_join", .once = case_spawn_join },
    { .name = "spawn_1M", .once = case_spawn_1M, .rss = true },
    { .name = "skynet_1M", .once = case_skynet, .rss = true },
    { .name = "skynet_1M_w2", .run = compare_workers, .arg = SKYNET },
    { .name = "fib_32", .once = case_fib, .rss = true },
    { .name = "fib_32_w2", .run = compare_workers, .arg = FIB },
    { .name = "wake_roundtrip", .run = wake_roundtrip },
    { .name = "deque", .once = case_deque },
};

int main(int argc, char **argv)
{
    return bench_main(
        &(struct bench_program){
            .name = "sched", .cases = cases, .cases_n = sizeof cases / sizeof *cases },
        argc, argv);
}
