/* SPDX-License-Identifier: MIT */
/*
 * cache_plot.c -- hit ratio over cache size, all policies and traces, as SVG figures.
 *
 * The figures are the same each time: the traces are made from a seed, and who runs on them is
 * deterministic. gnuplot draws them; where it is not installed nothing is drawn, which is said.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/bench/bench_cache.h"

enum { LEN = 400000, SIZES_MAX = 16 };

static const struct {
    struct cache_shape shape;   /* entries: the largest size drawn */
    const char *title, *file;
} figures[] = {
    { { "zipf_1.0", TRACE_ZIPF, 10000, 1.0, 5000 }, "Zipf 1.0, 10 000 keys", "zipf" },
    { { "zipf_0.8", TRACE_ZIPF, 10000, 0.8, 5000 }, "Zipf 0.8, 10 000 keys", "zipf_0.8" },
    { { "scan", TRACE_SCAN, 5000, 1.0, 5000 }, "Zipf 1.0, 5 000 keys, and scans", "scan" },
    { { "loop", TRACE_LOOP, 1100, 0, 1200 }, "A loop of 1 100 keys", "loop" },
    { { "shifting", TRACE_SHIFTING, 5000, 1.0, 5000 }, "Zipf 1.0, other keys after each eighth",
      "shifting" },
    { { "wonders", TRACE_WONDERS, 5000, 1.0, 5000 }, "Zipf 1.0, a third of it keys that come once",
      "wonders" },
    { { "recency", TRACE_RECENCY, 400, 0, 1000 }, "What was used lately is used again",
      "recency" },
};

/* Sizes from a hundredth of the largest to all of it; those of a loop, evenly. */
static size_t sizes_of(const struct cache_shape *shape, size_t sizes[SIZES_MAX])
{
    static const double shares[] = { 0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2,
                                     0.3,  0.4,  0.5,  0.6,  0.7, 0.85, 1 };
    size_t n = sizeof shares / sizeof shares[0];
    for (size_t i = 0; i < n; i++) {
        double share = shape->kind == TRACE_LOOP ? (double)(i + 1) / (double)n : shares[i];
        sizes[i] = (size_t)((double)shape->entries * share);
    }
    return n;
}

static void write_data(FILE *out, const struct cache_shape *shape)
{
    size_t sizes[SIZES_MAX], n = sizes_of(shape, sizes);
    struct cache_trace t;
    cache_trace_make(&t, shape, LEN, 1);
    fprintf(out, "$data << END\n");
    for (size_t i = 0; i < n; i++) {
        fprintf(out, "%zu", sizes[i]);
        for (int who = 0; who < CACHE_WHO; who++)
            fprintf(out, " %.2f", cache_hit_ratio((enum cache_who)who, &t, sizes[i]));
        fprintf(out, "\n");
    }
    fprintf(out, "END\n");
    cache_trace_free(&t);
}

static void write_orders(FILE *out, const char *path, const char *title)
{
    static const struct {
        enum cache_who who;
        const char *label, *colour, *dash;
    } lines[] = {
        { CACHE_BELADY, "Belady", "#999999", "2" },
        { CACHE_ADAPTIVE, "ADAPTIVE", "#d62728", "1" },
        { CACHE_S3FIFO, "S3FIFO", "#1f77b4", "1" },
        { CACHE_SIEVE, "SIEVE", "#2ca02c", "1" },
        { CACHE_LRU, "LRU", "#000000", "1" },
        { CACHE_SMART, "smart", "#ff7f0e", "4" },
    };
    fprintf(out, "set terminal svg size 640,420 dynamic noenhanced font 'sans-serif,13' "
                 "background '#ffffff' name 'reeve'\n"
                 "set output '%s'\nset title '%s'\nset xlabel 'entries in the cache'\n"
                 "set ylabel 'hits, %%'\nset yrange [0:100]\nset xrange [0:*]\n"
                 "set grid linecolor rgb '#dddddd' linewidth 1\n"
                 "set key outside right center\nplot ", path, title);
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        fprintf(out, "%s$data using 1:%d title '%s' with linespoints pointtype 7 pointsize 0.3 "
                     "linewidth 1.6 dashtype %s linecolor rgb '%s'", i > 0 ? ", " : "",
                lines[i].who + 2, lines[i].label, lines[i].dash, lines[i].colour);
    fprintf(out, "\n");
}

/* The orders to gnuplot are a file, so that a failing one can be looked at. */
static int draw(const char *dir, size_t figure)
{
    char path[BENCH_PATH], orders[BENCH_PATH], command[BENCH_PATH + 64];
    snprintf(orders, sizeof orders, "%s/hit_ratio.gnuplot", dir);
    FILE *out = fopen(orders, "we");
    if (out == NULL)
        return -errno;
    snprintf(path, sizeof path, "%s/hit_ratio_%s.svg", dir, figures[figure].file);
    write_data(out, &figures[figure].shape);
    write_orders(out, path, figures[figure].title);
    fclose(out);
    snprintf(command, sizeof command, "LC_ALL=C gnuplot '%s'", orders);
    int r = system(command) == 0 ? 0 : -EIO;
    if (r == 0)
        unlink(orders);
    else
        fprintf(stderr, "bench_cache: gnuplot did not like %s\n", orders);
    if (r == 0)
        printf("%s\n", path);
    return r;
}

void cache_plot(struct bench *b, const char *dir)
{
    if (system("command -v gnuplot >/dev/null 2>&1") != 0) {
        bench_skip("the plot", "gnuplot is not installed (Debian: gnuplot-nox)");
        return;
    }
    if (mkdir(dir, 0777) < 0 && errno != EEXIST) {
        bench_fail(b, "the plot", "%s: %s", dir, strerror(errno));
        return;
    }
    for (size_t i = 0; i < sizeof figures / sizeof figures[0]; i++) {
        int r = draw(dir, i);
        if (r < 0)
            bench_fail(b, "the plot", "%s: %s", figures[i].title, strerror(-r));
    }
}
