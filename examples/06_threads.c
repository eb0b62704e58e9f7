/* SPDX-License-Identifier: MIT */
/*
 * 06_threads.c -- a runtime in a program that has threads of its own.
 *
 * Run build/release/examples/06_threads; you will see:
 *
 *     a call from main returned 42
 *     4 threads posted 100 numbers, their sum is 4950
 *     one more: Cannot send after transport endpoint shutdown
 *
 * reeve_call waits for the result, reeve_post does not. A shutdown waits for all and refuses more.
 */
#include <reeve/reeve.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { THREADS = 4, EACH = 25 };
static reeve *runtime;
static atomic_int next, posted, sum;

static int answer(void *arg)
{
    return *(int *)arg * 6;
}

static int add(void *number)
{
    sum += *(int *)number;
    return 0;
}

static void *post_numbers(void *arg)
{
    for (int i = 0; i < EACH; i++) {
        int n = next++;
        struct reeve_spawn how = { .fn = add, .arg = &n, .copy = sizeof n };
        posted += reeve_post(runtime, &how) == 0;
    }
    return arg;
}

int main(void)
{
    pthread_t thread[THREADS];
    int seven = 7, n = 0, r = reeve_create(&runtime, NULL);
    if (r < 0)
        return fprintf(stderr, "06_threads: %s\n", strerror(-r)), 1;
    printf("a call from main returned %d\n", reeve_call(runtime, answer, &seven, 0));
    while (n < THREADS && pthread_create(&thread[n], NULL, post_numbers, NULL) == 0)
        n++;
    for (int i = 0; i < n; i++)
        pthread_join(thread[i], NULL);
    r = reeve_shutdown(runtime, reeve_in(10 * REEVE_SEC));
    printf("%d threads posted %d numbers, their sum is %d\n", n, posted, sum);
    printf("one more: %s\n", strerror(-reeve_call(runtime, answer, &seven, 0)));
    reeve_destroy(runtime);
    return r < 0 ? fprintf(stderr, "06_threads: %s\n", strerror(-r)), 1 : 0;
}
