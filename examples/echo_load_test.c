/* SPDX-License-Identifier: MIT */
/*
 * echo_load_test.c -- `echo_load --self-test`: the histogram and the schedule do what they claim.
 *
 * All of it is arithmetic on fixed seeds: it passes or fails the same way every time. Bounds on
 * random draws are six standard deviations wide.
 *
 * Threads: one.
 */
#include "echo_load.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { SAID_MAX = 10 };

static int wrong;

static void __attribute__((format(printf, 2, 3))) expect(bool holds, const char *fmt, ...)
{
    va_list ap;
    if (holds || ++wrong > SAID_MAX)
        return;
    va_start(ap, fmt);
    fputs("self-test: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
}

static bool near(double x, double wanted, double tolerance)
{
    return fabs(x - wanted) <= tolerance;
}

/* Every bucket begins where the one before ends, holds its first and last value, and is no wider
 * than 1/128 of its values. */
static void buckets_have_no_gaps(void)
{
    for (unsigned i = 0; i < BUCKETS; i++) {
        uint64_t low = bucket_low(i), next = bucket_low(i + 1);
        uint64_t last = i + 1 < BUCKETS ? next - 1 : UINT64_MAX;
        expect(low <= last, "bucket %u is empty", i);
        expect(bucket_of(low) == i && bucket_of(last) == i, "bucket %u misses an end", i);
        expect(last - low <= low / SUB, "bucket %u is %" PRIu64 " wide", i, last - low + 1);
    }
}

static void percentiles_are_those_of_the_values(void)
{
    static struct histogram h, other, sum;
    memset(&h, 0, sizeof h);
    for (uint64_t v = 1; v <= 100000; v++)
        histogram_add(v % 2 ? &h : &other, v * 1000);
    sum = h;
    histogram_merge(&sum, &other);
    expect(sum.count == 100000 && sum.max == 100000000, "merged: %" PRIu64 " values, max %" PRIu64,
           sum.count, sum.max);
    static const double shares[] = { 0.001, 0.1, 0.5, 0.9, 0.99, 0.999 };
    for (size_t i = 0; i < sizeof shares / sizeof shares[0]; i++) {
        double got = histogram_at(&sum, shares[i]), wanted = shares[i] * 1e8;
        expect(near(got, wanted, wanted / SUB + 1000), "p%g is %g, not %g", 100 * shares[i], got,
               wanted);
    }
    expect(histogram_at(&sum, 1) == 1e8, "the last value is not the largest");
    memset(&h, 0, sizeof h);
    expect(histogram_at(&h, 0.5) == 0, "an empty histogram has a median");
    histogram_add(&h, 7);
    expect(histogram_at(&h, 0.99) == 7, "the percentile of one value is another one");
}

static void constant_schedules_are_even(void)
{
    enum { THREADS = 3, CONNS = 7, N = 7000 };
    int64_t last[THREADS];
    uint64_t on[CONNS] = { 0 };
    uint32_t begin = 0;
    for (uint32_t t = 0; t < THREADS; t++) {
        uint32_t conns = CONNS / THREADS + (t < CONNS % THREADS);
        struct schedule s = schedule_make(false, 7000, 1, t, THREADS, conns, CONNS);
        double gap = 1e9 / 7000 * CONNS / conns;
        struct arrival first = schedule_next(&s), a = first;
        expect(near((double)first.at_ns, gap * t / THREADS, 2), "thread %u begins at %" PRId64, t,
               first.at_ns);
        for (int k = 1; a.at_ns < SEC; k++) {
            on[begin + a.conn]++;
            last[t] = a.at_ns;
            a = schedule_next(&s);
            double since = (double)(a.at_ns - first.at_ns);
            expect(near(since, k * gap, 2), "gap %d is uneven", k);
        }
        expect(SEC - last[t] <= (int64_t)gap + 1, "thread %u stops early", t);
        begin += conns;
    }
    for (int c = 0; c < CONNS; c++)
        expect(near((double)on[c], N / CONNS, 1), "connection %d got %" PRIu64, c, on[c]);
}

/* Gaps and connections of a Poisson process of 10000 in all, on the last of 4 threads. */
static void poisson_schedules_are_random(void)
{
    enum { CONNS = 16, N = 100000 };
    struct schedule s = schedule_make(true, 10000, 42, 3, 4, CONNS, 4 * CONNS);
    double mean = 1e9 / 2500, sum = 0, squares = 0, longer = 0;
    uint64_t on[CONNS] = { 0 };
    int64_t before = 0;
    for (int i = 0; i < N; i++) {
        struct arrival a = schedule_next(&s);
        double gap = (double)(a.at_ns - before) / mean;
        expect(gap >= 0 && a.conn < CONNS, "arrival %d is out of order or on no connection", i);
        before = a.at_ns;
        sum += gap;
        squares += gap * gap;
        longer += gap > 2;
        on[a.conn]++;
    }
    expect(near(sum / N, 1, 0.019), "the mean gap is %g of what it should be", sum / N);
    expect(near(squares / N, 2, 0.085), "the gaps' second moment is %g, not 2", squares / N);
    expect(near(longer / N, exp(-2), 0.0065), "%g of the gaps are longer than two means",
           longer / N);
    for (int c = 0; c < CONNS; c++)
        expect(near((double)on[c], N / CONNS, 460), "connection %d got %" PRIu64, c, on[c]);
}

static void a_seed_is_a_schedule(void)
{
    struct schedule a = schedule_make(true, 1000, 5, 0, 2, 4, 8);
    struct schedule again = a, b = schedule_make(true, 1000, 6, 0, 2, 4, 8);
    struct schedule c = schedule_make(true, 1000, 5, 1, 2, 4, 8);
    int like_b = 0, like_c = 0;
    for (int i = 0; i < 1000; i++) {
        struct arrival x = schedule_next(&a), y = schedule_next(&again);
        expect(x.at_ns == y.at_ns && x.conn == y.conn, "arrival %d differs at the same seed", i);
        like_b += schedule_next(&b).at_ns == x.at_ns;
        like_c += schedule_next(&c).at_ns == x.at_ns;
    }
    expect(!like_b && !like_c, "another seed, or thread, gives the same arrivals");
}

static void a_random_share_is_random(void)
{
    enum { N = 100000 };
    struct share s = share_make(0.256, false, 1, 0, 2), other = share_make(0.256, false, 1, 1, 2);
    struct share none = share_make(0, false, 1, 0, 1), all = share_make(1, false, 1, 0, 1);
    int hit = 0, pairs = 0, both = 0;
    bool before = false;
    for (int i = 0; i < N; i++) {
        bool now = share_next(&s);
        hit += now;
        pairs += now && before;
        both += now && share_next(&other);
        before = now;
        expect(!share_next(&none) && share_next(&all), "a share of 0 or 1 is not exact");
    }
    expect(near(hit, 0.256 * N, 830), "%d of %d, not a share of 0.256", hit, N);
    expect(near(pairs, 0.256 * 0.256 * N, 550), "%d times two in a row", pairs);
    expect(near(both, 0.256 * hit, 420), "%d times both threads at once", both);
}

static void an_even_share_is_even(void)
{
    enum { THREADS = 4, N = 100000, EVERY = 125 };
    int last[THREADS], n = 0;
    for (int t = 0; t < THREADS; t++) {
        struct share s = share_make(1.0 / EVERY, true, 1, (uint32_t)t, THREADS);
        last[t] = 0;
        for (int i = 1; i <= N; i++) {
            if (!share_next(&s))
                continue;
            int gap = i - last[t];
            expect(last[t] ? near(gap, EVERY, 1) : gap <= EVERY + 1, "a gap of %d", gap);
            last[t] = i;
            n++;
        }
        expect(!t || near((last[t - 1] - last[t] + N) % EVERY, EVERY / THREADS, 2),
               "threads %d and %d are not shifted", t - 1, t);
    }
    expect(near(n, THREADS * N / EVERY, THREADS), "%d in all", n);
}

int self_test(void)
{
    buckets_have_no_gaps();
    percentiles_are_those_of_the_values();
    constant_schedules_are_even();
    poisson_schedules_are_random();
    a_seed_is_a_schedule();
    a_random_share_is_random();
    an_even_share_is_even();
    puts(wrong ? "self-test: failed" : "self-test: ok");
    return wrong != 0;
}
