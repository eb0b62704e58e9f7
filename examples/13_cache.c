/* SPDX-License-Identifier: MIT */
/*
 * 13_cache.c -- a cache that loads what it lacks: a thousand tasks ask for three prices, and each
 * is looked up once.
 *
 * Run build/release/examples/13_cache; you will see:
 *
 *     1000 tasks, 3 lookups
 *     tea costs 7 now
 *     gold: No such file or directory
 *
 * Who borrows a value has it pinned until it is returned, whatever happens to the cache meanwhile.
 * An error is told to all who wait for it; the next who asks has it looked up again, unless the
 * cache is told to remember errors (negative_ns).
 */
#include <reeve/cache.h>
#include <reeve/reeve.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static reeve_cache *prices;

/* Looks a price up, which takes a while; in a task of its own. */
static int look_up(void *ctx, struct reeve_bytes key, struct reeve_value *ret)
{
    (void)ctx;
    int r = reeve_sleep(reeve_in(20 * REEVE_MS));
    if (r < 0 || key.len == strlen("gold"))
        return r < 0 ? r : -ENOENT;
    int *price = reeve_alloc(sizeof *price);
    if (price == NULL)
        return -ENOMEM;
    *price = (int)key.len;
    *ret = (struct reeve_value){ .data = price, .len = sizeof *price };
    return 0;
}

static int price_of(void *thing)
{
    struct reeve_bytes key = { thing, strlen(thing) };
    struct reeve_value v;
    int r = reeve_cache_borrow(prices, key, &v, reeve_in(5 * REEVE_SEC));
    if (r < 0)
        return r;
    r = *(const int *)v.data;
    reeve_cache_return(prices, v);
    return r;
}

static int change_price(const char *thing, int to)
{
    int *price = reeve_alloc(sizeof *price), r = -ENOMEM;
    if (price != NULL) {
        *price = to;
        r = reeve_cache_put(prices, (struct reeve_bytes){ thing, strlen(thing) },
                            (struct reeve_value){ .data = price, .len = sizeof *price });
    }
    if (r < 0)
        reeve_free(price); /* what was not put is still ours */
    return r;
}

static int ask_all(void)
{
    static char *const things[] = { "tea", "pepper", "cardamom" };
    struct reeve_cache_stats stats;
    reeve_group tasks = { 0 };
    int r = 0, n = 0;
    while (n < 1000 && (r = reeve_go(price_of, things[n % 3], .group = &tasks)) == 0)
        n++;
    int failed = reeve_group_wait(&tasks, 0);
    reeve_cache_stats(prices, &stats);
    printf("%d tasks, %d lookups\n", n, (int)stats.loads);
    return r < 0 ? r : failed;
}

static int root(void *arg)
{
    (void)arg;
    struct reeve_cache_opts opts = { .entries_max = 100,
                                     .ttl_ns = 60 * REEVE_SEC,
                                     .blocks = true, /* reeve_free() ends a value */
                                     .load = look_up };
    int r = reeve_cache_create(&prices, &opts, 0);
    if (r < 0)
        return r;
    r = ask_all();
    if (r == 0 && (r = change_price("tea", 7)) == 0)
        printf("tea costs %d now\n", price_of("tea"));
    if (r == 0)
        printf("gold: %s\n", strerror(-price_of("gold")));
    reeve_cache_destroy(prices, 0);
    return r;
}

int main(void)
{
    int r = reeve_run(root, NULL, .workers = 2);
    return r < 0 ? fprintf(stderr, "13_cache: %s\n", strerror(-r)), 1 : 0;
}
