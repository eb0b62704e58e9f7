/* SPDX-License-Identifier: MIT */
/*
 * sched_sleep.c -- a million sleeping tasks on one worker.
 *
 * Arming is spawning a task and running it until it sleeps; the task that spawns waits after each
 * batch until all of it sleeps. Firing is the timer's end, the task's resumption and its end. The
 * moments at which they wake are scattered at random over a span that is short beside what firing
 * all of them takes, and it is counted from the first of them: so the timers are in no order, and
 * nothing is waited for while the clock runs.
 *
 * The first round takes fresh memory for every stack; the later ones find the stacks warm.
 */
#include "tests/bench/bench_sched.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SLEEPERS = 1000000, SLEEPERS_QUICK = 100000, BATCH = 256, ROUNDS_MAX = 16 };
enum { BYTES_EACH = 8192 }; /* of memory that each may need at most */
#define SPREAD_NS (2 * REEVE_MS)
#define FIRST_ARMING (INT64_C(10000)) /* ns a task that the first round gives to arming */

/* What the child measured; shared with it. */
static struct measured {
    long n;
    int rounds;
    double arm[ROUNDS_MAX], fire[ROUNDS_MAX]; /* ns a task */
} *measured;

static long armed, woken; /* one worker: one thread */
static int64_t due;

static int64_t wakes_at(uint64_t i)
{
    return due + (int64_t)((i * UINT64_C(0x9e3779b97f4a7c15) >> 32) % (uint64_t)SPREAD_NS);
}

static int sleeper(void *arg)
{
    int64_t at = wakes_at((uintptr_t)arg);
    armed++;
    sched_must(reeve_sleep(at));
    if (reeve_now() < at)
        sched_must(-ETIME);
    woken++;
    return 0;
}

/* Gives arming the time that the round before took and some more; false: it took longer. */
static bool round_of(long n, int64_t arming, double *ret_arm, double *ret_fire)
{
    reeve_group group = { 0 };
    armed = woken = 0;
    int64_t t0 = bench_now();
    due = t0 + arming;
    for (long i = 0; i < n; i++) {
        sched_must(reeve_go(sleeper, (void *)(intptr_t)i, .group = &group));
        while (i % BATCH == BATCH - 1 && armed <= i)
            reeve_sleep(0);
    }
    while (armed < n)
        reeve_sleep(0);
    int64_t t1 = bench_now();
    sched_must(reeve_group_wait(&group, 0));
    int64_t t2 = bench_now();
    if (woken != n)
        sched_must(-EIO);
    *ret_arm = (double)(t1 - t0) / (double)n;
    *ret_fire = (double)(t2 - due) / (double)n;
    return t1 < due;
}

static void sleepers(long n)
{
    struct measured *m = measured;
    double arm, fire;
    double each = m->rounds == 0 ? (double)FIRST_ARMING : m->arm[m->rounds - 1] * 1.2;
    while (!round_of(n, (int64_t)(each * (double)n) + REEVE_MS, &arm, &fire))
        each = arm * 2;
    if (m->rounds < ROUNDS_MAX) {
        m->arm[m->rounds] = arm;
        m->fire[m->rounds++] = fire;
    }
}

static double once(void *ctx)
{
    (void)ctx;
    return sched_measure(1, sleepers, measured->n, 1);
}

static void emit(struct bench *b, const char *name, const double *v, int from, int to)
{
    struct bench_samples s = { 0 };
    for (int i = from; i < to; i++)
        bench_add(&s, v[i]);
    bench_emit(b, name, "ns_per_op", &s, NULL, NULL);
}

void sched_sleepers(struct bench *b, const struct bench_case *c)
{
    struct bench_samples ns = { 0 }, rss = { 0 };
    double both[ROUNDS_MAX];
    void *shared = mmap(NULL, sizeof *measured, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) {
        bench_fail(b, c->name, "no memory: %s", strerror(errno));
        return;
    }
    measured = shared;
    long room = sysconf(_SC_AVPHYS_PAGES) / (BYTES_EACH / 1024) * (sysconf(_SC_PAGESIZE) / 1024);
    measured->n = b->quick ? SLEEPERS_QUICK : SLEEPERS;
    if (measured->n > room) {
        bench_skip("some of the sleepers", "there is memory for %ld", room);
        measured->n = room;
    }
    if (bench_ns_alone(&ns, &rss, once, NULL, b->quick ? 1 : 5, b->cpu_server) < 0) {
        bench_fail(b, c->name, "the process that measured it did not end well");
        return;
    }
    for (int i = 0; i < measured->rounds; i++)
        both[i] = measured->arm[i] + measured->fire[i];
    emit(b, c->name, both, 1, measured->rounds);
    emit(b, "sleep_1M_arm", measured->arm, 1, measured->rounds);
    emit(b, "sleep_1M_fire", measured->fire, 1, measured->rounds);
    emit(b, "sleep_1M_first", both, 0, 1);
    bench_emit(b, c->name, "rss_bytes", &rss, NULL, NULL);
    munmap(shared, sizeof *measured);
}
