/* SPDX-License-Identifier: MIT */
/*
 * classes_reeve.c -- what a task costs that knows nothing of classes.
 *
 *     classes_reeve
 *
 * Prints the nanoseconds of a spawn and join, of a yield alone, of a switch between two tasks, of a
 * call of fib(27), and of a spawn into a group of a thousand: the best of seven rounds each, in one
 * line. It is built twice: with the library as it is, and with one that has no classes
 * (RV_ONE_CLASS); bench_sched's case classes_cost compares them.
 */
#include <reeve/reeve.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ROUNDS = 7, MANY = 1000, FIB = 27 };

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void must(int r)
{
    if (r < 0)
        abort();
}

static int nothing(void *arg)
{
    (void)arg;
    return 0;
}

static double spawn_join(long n)
{
    for (long i = 0; i < n; i++) {
        reeve_task *t;
        must(reeve_spawn(&t, nothing, NULL));
        must(reeve_join(t, NULL, 0));
    }
    return (double)n;
}

static int yields(void *arg)
{
    for (long i = (long)(intptr_t)arg; i > 0; i--)
        must(reeve_sleep(0));
    return 0;
}

static double yield_alone(long n)
{
    yields((void *)(intptr_t)n);
    return (double)n;
}

static double switch_two(long n)
{
    reeve_group g = { 0 };
    for (int i = 0; i < 2; i++)
        must(reeve_go(yields, (void *)(intptr_t)(n / 2), .group = &g));
    must(reeve_group_wait(&g, 0));
    return (double)n;
}

static int fib(void *arg)
{
    intptr_t n = (intptr_t)arg;
    reeve_task *t;
    int r;
    if (n < 2)
        return (int)n;
    must(reeve_spawn(&t, fib, (void *)(n - 1)));
    int b = fib((void *)(n - 2));
    must(reeve_join(t, &r, 0));
    return r + b;
}

static double fib_once(long n)
{
    (void)n;
    return 2.618 * fib((void *)(intptr_t)FIB); /* calls: 2 fib(n + 1) - 1, about */
}

static double spawn_many(long n)
{
    for (long i = 0; i < n / MANY; i++) {
        reeve_group g = { 0 };
        for (int k = 0; k < MANY; k++)
            must(reeve_go(nothing, NULL, .group = &g));
        must(reeve_group_wait(&g, 0));
    }
    return (double)n;
}

static int root(void *arg)
{
    static double (*const what[])(long) = { spawn_join, yield_alone, switch_two, fib_once,
                                            spawn_many };
    (void)arg;
    for (size_t i = 0; i < sizeof what / sizeof *what; i++) {
        double best = 1e18;
        for (int round = 0; round < ROUNDS; round++) {
            double t0 = now_ns(), ops = what[i](200000), ns = (now_ns() - t0) / ops;
            best = ns < best ? ns : best;
        }
        printf("%.3f%c", best, i + 1 < sizeof what / sizeof *what ? ' ' : '\n');
    }
    return 0;
}

int main(void)
{
    return reeve_run(root, NULL, .workers = 1) < 0;
}
