/* SPDX-License-Identifier: MIT */
/*
 * 06_threads.c -- a runtime beside a program that has threads of its own.
 *
 * Run build/release/examples/06_threads; you will see:
 *
 *     4 threads posted 100 tasks, the sum is 4950
 *     a call returned 5050
 *     after the shutdown: Cannot send after transport endpoint shutdown
 *
 * reeve_post hands work over and does not wait; reeve_call waits for the result. A shutdown refuses
 * more, and waits for what was posted.
 */
#include <reeve/reeve.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { THREADS = 4, EACH = 25 };
static reeve *runtime;
static atomic_int sum, next, refused;

static int add(void *number)
{
    return atomic_fetch_add(&sum, *(int *)number) + *(int *)number;
}

static void *post_numbers(void *arg)
{
    for (int i = 0; i < EACH; i++) {
        int n = atomic_fetch_add(&next, 1);
        if (reeve_post(runtime, &(struct reeve_spawn){ .fn = add, .arg = &n, .copy = sizeof n }) < 0)
            atomic_fetch_add(&refused, 1);
    }
    return arg;
}
