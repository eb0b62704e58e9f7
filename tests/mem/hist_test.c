/* SPDX-License-Identifier: MIT */
/*
 * hist_test.c -- percentiles against the sorted values themselves; the bounds of every bucket.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <pthread.h>

#include "mem/hist.h"

enum { VALUES = 20000 };

static struct rv_hist a, b, all;
static uint64_t values[VALUES];

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

/* Every magnitude alike: a random number cut to a random length. */
static void fill(unsigned bits_max)
{
    uint64_t state = 88172645463325252U;
    for (int i = 0; i < VALUES; i++) {
        uint64_t v = next_random(&state);
        values[i] = v >> (64 - 1 - next_random(&state) % bits_max);
    }
}

static int ascending(const void *x, const void *y)
{
    uint64_t u = *(const uint64_t *)x, v = *(const uint64_t *)y;
    return (u > v) - (u < v);
}

TEST(an_empty_histogram_reads_as_zero)
{
    CHECK_EQ(rv_hist_count(&a), 0);
    CHECK_EQ(rv_hist_min(&a), 0);
    CHECK_EQ(rv_hist_max(&a), 0);
    CHECK_EQ(rv_hist_percentile(&a, 50), 0);
    CHECK(rv_hist_mean(&a) == 0);
}

TEST(buckets_cover_every_value_once_and_in_order)
{
    uint64_t v = 0;
    for (unsigned bucket = 0; bucket < RV_HIST_BUCKETS; bucket++) {
        CHECK_EQ(rv_hist_bucket(v), bucket);
        uint64_t last = rv_hist_highest_equivalent(v);
        CHECK_EQ(rv_hist_bucket(last), bucket);
        v = last + 1;
    }
    CHECK_EQ(v, UINT64_C(1) << 45);
}

TEST(a_bucket_is_never_wider_than_a_64th_of_its_values)
{
    for (uint64_t v = 1; v < UINT64_C(1) << 45; v += v / 7 + 1)
        CHECK_LE(rv_hist_highest_equivalent(v) - v, v / 64);
}

TEST(percentiles_are_those_of_the_sorted_values_to_the_bucket)
{
    static const unsigned thousandths[] = {0, 1, 1000, 10000, 25000, 50000, 75000, 90000, 95000,
                                           99000, 99900, 99990, 99999, 100000};
    fill(45);
    for (int i = 0; i < VALUES; i++)
        rv_hist_add(&a, values[i]);
    qsort(values, VALUES, sizeof values[0], ascending);
    for (size_t p = 0; p < sizeof thousandths / sizeof thousandths[0]; p++) {
        uint64_t rank = ((uint64_t)thousandths[p] * VALUES + 99999) / 100000;
        uint64_t exact = values[rank > 0 ? rank - 1 : 0];
        uint64_t expected = rv_hist_highest_equivalent(exact);
        if (expected > values[VALUES - 1])
            expected = values[VALUES - 1];
        CHECK_EQ(rv_hist_percentile(&a, thousandths[p] / 1000.0), expected);
    }
}

TEST(rounding_does_not_shift_a_percentile_by_one)
{
    for (uint64_t v = 0; v < 10; v++)
        rv_hist_add_n(&a, v, 100);
    CHECK_EQ(rv_hist_percentile(&a, 10), 0);
    CHECK_EQ(rv_hist_percentile(&a, 10.1), 1);
    CHECK_EQ(rv_hist_percentile(&a, 70), 6);
    CHECK_EQ(rv_hist_percentile(&a, 99.9), 9);
    rv_hist_reset(&a);
    for (uint64_t v = 1; v <= 1000; v++)
        rv_hist_add(&a, v <= 999 ? 1 : 100);
    CHECK_EQ(rv_hist_percentile(&a, 99.9), 1);
    CHECK_EQ(rv_hist_percentile(&a, 99.91), 100);
    rv_hist_reset(&a);
    rv_hist_add_n(&a, 1, 7);            /* 0.07 % of 10000, which computes to 7.000000000000001 */
    rv_hist_add_n(&a, 100, 9993);
    CHECK_EQ(rv_hist_percentile(&a, 0.07), 1);
    CHECK_EQ(rv_hist_percentile(&a, 0.08), 100);
}

TEST(count_minimum_maximum_and_mean_are_exact)
{
    double sum = 0;
    fill(40);
    for (int i = 0; i < VALUES; i++) {
        rv_hist_add(&a, values[i]);
        sum += (double)values[i];
    }
    qsort(values, VALUES, sizeof values[0], ascending);
    double off = rv_hist_mean(&a) - sum / VALUES;
    CHECK_EQ(rv_hist_count(&a), VALUES);
    CHECK_EQ(rv_hist_min(&a), values[0]);
    CHECK_EQ(rv_hist_max(&a), values[VALUES - 1]);
    CHECK(off > -1 && off < 1);
}

TEST(values_beyond_the_range_count_in_the_last_bucket)
{
    rv_hist_add(&a, 5);
    rv_hist_add(&a, UINT64_C(1) << 50);
    CHECK_EQ(rv_hist_count(&a), 2);
    CHECK_EQ(rv_hist_percentile(&a, 50), 5);
    CHECK_EQ(rv_hist_percentile(&a, 100), UINT64_C(1) << 50);
    CHECK_EQ(rv_hist_max(&a), UINT64_C(1) << 50);
}

TEST(merged_halves_equal_the_whole)
{
    fill(45);
    for (int i = 0; i < VALUES; i++) {
        rv_hist_add(i % 3 ? &a : &b, values[i]);
        rv_hist_add(&all, values[i]);
    }
    rv_hist_merge(&a, &b);
    CHECK_MEM_EQ(&a, &all, sizeof a);
}

TEST(merging_an_empty_one_changes_nothing)
{
    rv_hist_add(&a, 7);
    rv_hist_merge(&a, &b);
    CHECK_EQ(rv_hist_min(&a), 7);
    CHECK_EQ(rv_hist_max(&a), 7);
    rv_hist_merge(&b, &a);
    CHECK_EQ(rv_hist_min(&b), 7);
    CHECK_EQ(rv_hist_count(&b), 1);
}

TEST(reset_forgets_everything)
{
    rv_hist_add_n(&a, 12345, 10);
    rv_hist_add_n(&a, 12345, 0);
    CHECK_EQ(rv_hist_count(&a), 10);
    rv_hist_reset(&a);
    CHECK_MEM_EQ(&a, &b, sizeof a);
}

static RV_ATOMIC(int) writing;

static void *write_values(void *arg)
{
    for (int i = 0; i < VALUES; i++)
        rv_hist_add(&a, values[i]);
    rv_store_release(&writing, 0);      /* pairs with the acquire in the reader's loop */
    return arg;
}

TEST(a_reader_beside_the_writer_sees_sense_at_any_time)
{
    pthread_t thread;
    uint64_t seen = 0;
    fill(30);
    rv_store_relaxed(&writing, 1);
    CHECK_EQ(pthread_create(&thread, NULL, write_values, NULL), 0);
    while (rv_load_acquire(&writing)) {
        uint64_t count = rv_hist_count(&a);
        CHECK_LE(seen, count);
        seen = count;
        uint64_t most = rv_hist_percentile(&a, 99);
        CHECK_LE(most, rv_hist_max(&a));
    }
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(rv_hist_count(&a), VALUES);
}
