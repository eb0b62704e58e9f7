/* SPDX-License-Identifier: MIT */
/*
 * bench_sched.c -- what tasks cost: switching, spawning, joining, stealing, waking; sleeping and
 * meeting; what priorities and deadlines do.
 *
 *     bench_sched [--case NAME] [--quick] [--peers] [--json]
 *
 * Each case runs in a child process of its own, in a runtime that lives as long as the child, so
 * that the first round warms everything up and is not counted; the time is taken inside the task
 * unless a case says otherwise. Cases that end in _w2 have two workers, and a line against one
 * worker or their peers. This file has the simplest cases and the table; the others are in
 * sched_*.c.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "io/caps.h"
#include "io/ring.h"
#include "mem/alloc.h"
#include "sched/deque.h"
#include "tests/bench/bench_sched.h"

/* As the harness does with the peers, if it may. */
static void raise_priority(void)
{
    enum { RAISED_NICE = -10 };
    setpriority(PRIO_PROCESS, 0, RAISED_NICE);
}

reeve *sched_runtime_with(const struct reeve_opts *opts)
{
    static reeve *rt;
    if (rt == NULL) {
        raise_priority();
        int r = reeve_create(&rt, opts);
        if (r < 0) {
            fprintf(stderr, "bench_sched: no runtime: %s\n", strerror(-r));
            exit(1);
        }
    }
    return rt;
}

reeve *sched_runtime(unsigned workers)
{
    return sched_runtime_with(&(struct reeve_opts){ .workers = workers, .tasks_max = 1 << 21 });
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

double sched_measure(unsigned workers, void (*run)(long), long n, double ops)
{
    struct work work = { run, n, 0 };
    if (reeve_call(sched_runtime(workers), timed, &work, 0) < 0)
        return -1;
    return work.ns / ops;
}

void sched_must(int r)
{
    if (r < 0) {
        fprintf(stderr, "bench_sched: %s\n", strerror(-r));
        abort();
    }
}

void sched_spin(int64_t ns)
{
    int64_t until = bench_now() + ns;
    while (bench_now() < until)
        continue;
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
        sched_must(reeve_go(yielder, &each, .group = &g));
    sched_must(reeve_group_wait(&g, 0));
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
    return sched_measure(1, yield_alone, 2000000, 2000000);
}

static double case_switch_2(void *ctx)
{
    (void)ctx;
    return sched_measure(1, switch_among_2, 2000000, 2000000);
}

static double case_switch_1000(void *ctx)
{
    (void)ctx;
    return sched_measure(1, switch_among_1000, 2000000, 2000000);
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
        sched_must(reeve_spawn(&t, nothing, NULL));
        sched_must(reeve_join(t, NULL, 0));
    }
}

static void spawn_all_then_wait(long n)
{
    reeve_group g = { 0 };
    for (; n > 0; n--)
        sched_must(reeve_go(nothing, NULL, .group = &g));
    sched_must(reeve_group_wait(&g, 0));
}

static double case_spawn_join(void *ctx)
{
    (void)ctx;
    return sched_measure(1, spawn_and_join, 1000000, 1000000);
}

static double case_spawn_1M(void *ctx)
{
    (void)ctx;
    return sched_measure(1, spawn_all_then_wait, 1000000, 1000000);
}

/* ---- waking ---------------------------------------------------------------------------------- */

enum { WAKES = 2000 };

/* From a task on one worker to one on the other and back: both were asleep each time. */
static int ping(void *arg)
{
    (void)arg;
    reeve_task *t;
    for (int i = 0; i < WAKES; i++) {
        sched_must(reeve_spawn(&t, nothing, NULL, .worker = 2));
        sched_must(reeve_join(t, NULL, 0));
    }
    return 0;
}

static void round_trips(long n)
{
    (void)n;
    reeve_task *t;
    sched_must(reeve_spawn(&t, ping, NULL, .worker = 1));
    sched_must(reeve_join(t, NULL, 0));
}

/* Each side has a CPU of its own: a wake within one CPU is another thing, and cheaper. */
static int wake_cpus[2];

static double wake_reeve(void *ctx)
{
    (void)ctx;
    sched_runtime_with(&(struct reeve_opts){ .workers = 2, .cpus = wake_cpus });
    return sched_measure(2, round_trips, WAKES, WAKES);
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
    bench_pin(wake_cpus[side]);
    sched_must(rv_ring_enable(mine));
    pthread_barrier_wait(&bare->ready);
    int64_t t0 = bench_now();
    for (int i = 0; i < WAKES; i++) {
        if (side == 0)
            sched_must(rv_ring_msg(&bare->caps, other->fd, 1));
        await_message(mine);
        if (side == 1)
            sched_must(rv_ring_msg(&bare->caps, other->fd, 1));
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
    raise_priority();
    memset(&bare, 0, sizeof bare);
    sched_must(rv_caps_probe(&bare.caps, NULL));
    for (int i = 0; i < 2; i++)
        sched_must(rv_ring_init(&bare.ring[i], 8, 16, RV_RING_FLAGS, NULL));
    pthread_barrier_init(&bare.ready, NULL, 2);
    sched_must(-pthread_create(&far, NULL, bare_far_side, &bare));
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
    wake_cpus[0] = b->cpu_server;
    wake_cpus[1] = b->cpu_load;
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
    sched_must(rv_deque_init(d, 1024));
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
        sched_must(-EIO);
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
    { .name = "skynet_1M", .once = sched_skynet, .rss = true },
    { .name = "skynet_1M_w2", .run = sched_two_workers, .arg = SCHED_SKYNET },
    { .name = "fib_32", .once = sched_fib, .rss = true },
    { .name = "fib_32_w2", .run = sched_two_workers, .arg = SCHED_FIB },
    { .name = "nqueens_11", .once = sched_nqueens, .rss = true },
    { .name = "nqueens_11_w2", .run = sched_two_workers, .arg = SCHED_NQUEENS },
    { .name = "matmul_512", .once = sched_matmul, .rss = true },
    { .name = "matmul_512_w2", .run = sched_two_workers, .arg = SCHED_MATMUL },
    { .name = "wake_roundtrip", .run = wake_roundtrip },
    { .name = "sleep_1M", .run = sched_sleepers },
    { .name = "deque", .once = case_deque },
    { .name = "chan_roundtrip", .once = sched_chan_roundtrip },
    { .name = "chan_1p", .run = sched_chan_producers, .arg = 0 },
    { .name = "chan_2p", .run = sched_chan_producers, .arg = 1 },
    { .name = "chan_8p", .run = sched_chan_producers, .arg = 2 },
    { .name = "mutex", .once = sched_mutex },
    { .name = "mutex_w2", .once = sched_mutex_w2 },
    { .name = "urgent_delay", .run = sched_urgent, .arg = 0 },
    { .name = "urgent_timer", .run = sched_urgent, .arg = 1 },
    { .name = "low_share", .run = sched_low_share },
    { .name = "edf_feasible", .run = sched_edf, .arg = SCHED_FEASIBLE },
    { .name = "edf_overload", .run = sched_edf, .arg = SCHED_OVERLOAD },
    { .name = "fifo_overload", .run = sched_edf, .arg = SCHED_FIFO_OVERLOAD },
    { .name = "classes_cost", .run = sched_classes_cost },
    { .name = "preset_balanced", .run = sched_preset, .arg = REEVE_BALANCED },
    { .name = "preset_throughput", .run = sched_preset, .arg = REEVE_THROUGHPUT },
    { .name = "preset_latency", .run = sched_preset, .arg = REEVE_LATENCY },
    { .name = "spawn_many_local", .once = sched_spawn_many_local, .wide = true },
    { .name = "spawn_many_remote_idle", .once = sched_spawn_many_remote_idle, .wide = true },
    { .name = "spawn_many_remote_busy1", .once = sched_spawn_many_remote_busy1, .wide = true },
    { .name = "spawn_many_remote_busy2", .once = sched_spawn_many_remote_busy2, .wide = true },
    { .name = "yield_many", .once = sched_yield_many, .wide = true },
    { .name = "ping_pong", .once = sched_ping_pong, .wide = true },
    { .name = "chained_spawn", .once = sched_chained_spawn, .wide = true },
};

int main(int argc, char **argv)
{
    return bench_main(
        &(struct bench_program){
            .name = "sched", .cases = cases, .cases_n = sizeof cases / sizeof *cases },
        argc, argv);
}
