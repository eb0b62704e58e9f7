/* SPDX-License-Identifier: MIT */
/*
 * clock_test.c -- sched/clock.c. Every check is an inequality that holds whatever interrupts it:
 * clocks are read before and after what is being checked.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <pthread.h>

#include "mem/rv_atomic.h"
#include "sched/clock.h"

/* Two reads of the counter and the kernel's clock may be this far out of order inside the CPU. */
enum { NOISE_NS = 200 };

/* One reading, between two of the kernel's clock. */
static void check_reading(struct rv_fastclock *c, int64_t *last)
{
    int64_t before = rv_clock_ns();
    int64_t now = rv_fastclock_now(c);
    int64_t after = rv_clock_ns();
    CHECK_GE(now, *last);
    CHECK_LE(now, after + NOISE_NS);
    CHECK_GE(now, before - RV_FASTCLOCK_LAG_NS);
    *last = now;
}

TEST(the_fast_clock_is_never_back_never_ahead_and_hardly_behind)
{
    struct rv_fastclock c;
    int64_t last = 0, end = rv_clock_ns() + 50 * INT64_C(1000000);
    rv_fastclock_init(&c);
    while (last < end)
        check_reading(&c, &last);
}

TEST(a_fast_clock_left_alone_is_right_when_read_again)
{
    struct rv_fastclock c;
    int64_t last = 0;
    rv_fastclock_init(&c);
    for (int i = 0; i < 10; i++) {
        usleep(3000);
        check_reading(&c, &last);
    }
}

TEST(a_counter_that_jumps_is_noticed)
{
    struct rv_fastclock c;
    int64_t last = 0, before;
    uint64_t base;
    rv_fastclock_init(&c);
    if (!rv_tsc_invariant())
        SKIP("the counter is not used here");
    check_reading(&c, &last);
    c.base_tsc += UINT64_C(1) << 40;    /* as if it had been set back by minutes */
    check_reading(&c, &last);
    do {                                /* by a little, which shows for as long */
        (void)rv_fastclock_sync(&c);
        base = c.base_tsc += 1000000;
        before = rv_clock_ns();
        last = rv_fastclock_now(&c);
    } while (rv_tsc() >= base);
    CHECK_GE(last, before - RV_FASTCLOCK_LAG_NS);
    c.base_tsc -= UINT64_C(1) << 40;    /* or forward */
    check_reading(&c, &last);
}

TEST(without_an_invariant_counter_it_is_the_kernels_clock)
{
    struct rv_fastclock c;
    rv_fastclock_init(&c);
    c.window = 0;
    for (int i = 0; i < 1000; i++) {
        int64_t before = rv_clock_ns();
        int64_t now = rv_fastclock_now(&c);
        CHECK_GE(now, before);
        CHECK_LE(now, rv_clock_ns());
    }
}

TEST(what_was_returned_is_never_gone_back_on)
{
    struct rv_fastclock c;
    rv_fastclock_init(&c);
    c.last_ns = rv_clock_ns() + INT64_C(3600000000000);
    int64_t later = c.last_ns;
    CHECK_EQ(rv_fastclock_now(&c), later);
    CHECK_EQ(rv_fastclock_sync(&c), later);
    CHECK_EQ(rv_fastclock_now(&c), later);
}

TEST(a_doubted_clock_asks_the_kernel)
{
    struct rv_fastclock c;
    rv_fastclock_init(&c);
    for (int i = 0; i < 1000; i++) {
        (void)rv_fastclock_now(&c);
        int64_t seen = rv_clock_ns();
        for (int n = i % 3; n >= 0; n--)
            rv_fastclock_doubt(&c);
        CHECK_GE(rv_fastclock_now(&c), seen);
    }
}

/* The kernel's clock between two readings of the counter, as narrow as a few attempts allow. */
static int64_t bracket(uint64_t *ret_low, uint64_t *ret_high)
{
    int64_t ns = 0;
    uint64_t width = UINT64_MAX;
    for (int i = 0; i < 10; i++) {
        uint64_t low = rv_tsc();
        int64_t now = rv_clock_ns();
        uint64_t high = rv_tsc();
        if (high - low < width) {
            width = high - low;
            *ret_low = low;
            *ret_high = high;
            ns = now;
        }
    }
    return ns;
}

TEST(ticks_per_microsecond_agree_with_the_kernel_to_one_percent)
{
    uint64_t low[2] = {0}, high[2] = {0}, per_us = rv_tsc_per_us();
    if (!rv_tsc_invariant())
        SKIP("the counter has no constant rate here");
    int64_t from = bracket(&low[0], &high[0]);
    while (rv_clock_ns() - from < 5000000)
        rv_cpu_relax();
    uint64_t ns = (uint64_t)(bracket(&low[1], &high[1]) - from);
    uint64_t least = (low[1] - high[0]) / per_us * 1000;
    uint64_t most = (high[1] - low[0]) / per_us * 1000 + 1000;
    CHECK_LE(least, ns + ns / 100);
    CHECK_GE(most, ns - ns / 100);
}

static RV_ATOMIC(uint32_t) arrived;

static void *ask(void *arg)
{
    (void)rv_add_acq_rel(&arrived, 1);
    while (rv_load_acquire(&arrived) < 4)
        rv_cpu_relax();
    *(uint64_t *)arg = rv_tsc_per_us();
    return NULL;
}

TEST(threads_that_ask_first_together_get_one_answer)
{
    pthread_t threads[4];
    uint64_t per_us[4];
    for (int i = 0; i < 4; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, ask, &per_us[i]), 0);
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
        CHECK_EQ(per_us[i], per_us[0]);
        CHECK_GE(per_us[i], 1);
        CHECK_EQ(per_us[i], rv_tsc_per_us());
    }
}
