/* SPDX-License-Identifier: MIT */
/*
 * 07_stats.c -- the counters: what happened, and what it cost.
 *
 * Run build/release/examples/07_stats; you will see, with other numbers where there are dots:
 *
 *     1000 spawned: 990 started, 10 expired; 980 went well, 10 failed
 *     ... of the joins ran the child on the spot; there were ... passes
 *     10 timers fired; workers slept ... times and entered the kernel ... times
 *
 * Each is a sum over all workers and only grows: look twice and subtract. Looking costs the workers
 * nothing, and any thread may look.
 */
#include <reeve/reeve.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { TASKS = 1000, SLEEPS = 10 };

static int step(void *arg)
{
    return *(int *)arg % 100 == 7 ? -EIO : 0;
}

static int root(void *arg)
{
    (void)arg;
    struct reeve_stats a, b;
    reeve_task *task;
    int r = 0;
    reeve_stats(reeve_self(), &a);
    for (int i = 0; i < TASKS && r == 0; i++) {
        reeve_time deadline = i % 100 == 8; /* 1 is long past, 0 is none */
        if ((r = reeve_spawn(&task, step, &i, .copy = sizeof i, .deadline = deadline)) == 0)
            r = reeve_join(task, NULL, 0);
    }
    for (int i = 0; i < SLEEPS && r == 0; i++)
        r = reeve_sleep(reeve_in(REEVE_MS));
    reeve_stats(reeve_self(), &b);
    if (r < 0)
        return r;
    uint64_t failed = b.failed - a.failed, completed = b.completed - a.completed;
    printf("%" PRIu64 " spawned: %" PRIu64 " started, %" PRIu64 " expired; ", b.spawned - a.spawned,
           b.started - a.started, b.expired - a.expired);
    printf("%" PRIu64 " went well, %" PRIu64 " failed\n", completed - failed, failed);
    printf("%" PRIu64 " of the joins ran the child on the spot; there were %" PRIu64 " passes\n",
           b.inline_runs - a.inline_runs, b.passes - a.passes);
    printf("%" PRIu64 " timers fired; workers slept %" PRIu64
           " times and entered the kernel %" PRIu64 " times\n",
           b.timers_fired - a.timers_fired, b.parks - a.parks, b.enters - a.enters);
    return 0;
}

int main(void)
{
    int r = reeve_run(root, NULL);
    return r < 0 ? fprintf(stderr, "07_stats: %s\n", strerror(-r)), 1 : 0;
}
