/* SPDX-License-Identifier: MIT */
/*
 * 02_tasks.c -- spawn, join, results: a computation spread over all CPUs.
 *
 * Run build/release/examples/02_tasks; you will see:
 *
 *     17984 primes below 200000, counted by 50 tasks
 *
 * Each task gets its own copy of its argument (.copy), so the loop may reuse the variable. What a
 * task returns comes out of the join; negative numbers are errors, here and everywhere.
 */
#include <reeve/reeve.h>
#include <stdio.h>
#include <string.h>

enum { TASKS = 50, LIMIT = 200000, STEP = LIMIT / TASKS };

static int is_prime(int n)
{
    for (int d = 2; d <= n / d; d++)
        if (n % d == 0)
            return 0;
    return n > 1;
}

static int count_primes(void *arg)
{
    int first = *(int *)arg, found = 0;
    for (int n = first; n < first + STEP; n++)
        found += is_prime(n);
    return found;
}

static int root(void *arg)
{
    (void)arg;
    reeve_task *task[TASKS];
    int total = 0, found, r;
    for (int i = 0; i < TASKS; i++) {
        int first = i * STEP;
        if ((r = reeve_spawn(&task[i], count_primes, &first, .copy = sizeof first)) < 0)
            return r; /* what was spawned before is waited for, whatever we return */
    }
    for (int i = 0; i < TASKS; i++) {
        if ((r = reeve_join(task[i], &found, 0)) < 0 || (r = found) < 0)
            return r; /* the join's error, or the task's */
        total += found;
    }
    printf("%d primes below %d, counted by %d tasks\n", total, LIMIT, TASKS);
    return 0;
}

int main(void)
{
    int r = reeve_run(root, NULL);
    return r < 0 ? fprintf(stderr, "02_tasks: %s\n", strerror(-r)), 1 : 0;
}
