/* SPDX-License-Identifier: MIT */
/*
 * clock.c -- how the CPU's counter becomes a clock.
 *
 * The rate of the counter is measured once against CLOCK_MONOTONIC, over 0.2 ms. Each end of it is
 * a reading of the kernel's clock between two of the counter; of a few such readings the tightest
 * counts, so that an interruption does not. The span is then taken as long as the ticks allow:
 * the rate, in ns per tick, comes out too low by what two readings take of 0.2 ms, never too high.
 *
 * rv_fastclock must not run ahead of CLOCK_MONOTONIC, which itself may be slewed by 1 in 2000
 * (adjtimex). So it counts slower than measured, by SLOW, and catches up at the next
 * synchronisation. In a window of 1 ms it falls behind, where a reading takes at most 0.5 us, by
 *
 *     1 ms x (SLOW + 1/2000 + 2 x 0.5 us / 0.2 ms) = 6.5 us, and the 2 us that a base may be old
 *
 * which is less than RV_FASTCLOCK_LAG_NS (usual are 40 ns a reading, and 2 us in all). The window
 * is counted in ticks: if the counter jumps, because a virtual machine was moved, it ends at once.
 *
 * Threads: any; the measured rate is the same for all.
 */
#include "sched/clock.h"

#include <time.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "mem/die.h"
#include "mem/rv_atomic.h"

#define MEASURE_NS INT64_C(200000)
#define WINDOW_US  UINT64_C(1000)
#define BASE_US    UINT64_C(2)      /* a base that took longer to read is not kept */
#define SLOW       (1.0 / 1000)
#define TRIES      5
#define SCALE      4294967296.0     /* rates are in ns per tick, times 2^32 */

/* The measured rate; 0: not yet. */
static RV_ATOMIC(uint64_t) rate;

int64_t rv_clock_ns(void)
{
    struct timespec now;
    int r = clock_gettime(CLOCK_MONOTONIC, &now);
    RV_MUST(r == 0);
    return (int64_t)now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

bool rv_tsc_invariant(void)
{
#if defined(__x86_64__)
    unsigned a, b, c, d;
    return __get_cpuid(0x80000007, &a, &b, &c, &d) && (d & 1u << 8);
#else
    return true;
#endif
}

/* The two clocks at one moment: ns, while the counter went from tsc to tsc + width. */
struct moment {
    uint64_t tsc, width;
    int64_t ns;
};

static struct moment read_once(void)
{
    struct moment m;
    m.tsc = rv_tsc();
    m.ns = rv_clock_ns();
    m.width = rv_tsc() - m.tsc;
    return m;
}

static struct moment read_well(void)
{
    struct moment best = read_once();
    for (int i = 1; i < TRIES; i++) {
        struct moment m = read_once();
        if (m.width < best.width)
            best = m;
    }
    return best;
}

static uint64_t measure_rate(void)
{
    struct moment a = read_well(), b;
    while (rv_clock_ns() - a.ns < MEASURE_NS)
        rv_cpu_relax();
    b = read_well();
    uint64_t ticks = b.tsc + b.width - a.tsc;
    RV_MUST(ticks > 0);
    return (uint64_t)((double)(b.ns - a.ns) / (double)ticks * SCALE);
}

/* Two threads that come first together both measure; the first result is everyone's. */
static uint64_t tsc_rate(void)
{
    uint64_t known = rv_load_relaxed(&rate);
    if (known == 0) {
        uint64_t mine = measure_rate();
        RV_MUST(mine > 0);
        if (rv_cas_relaxed(&rate, &known, mine))
            known = mine;
    }
    return known;
}

uint64_t rv_tsc_per_us(void)
{
    uint64_t ticks = (uint64_t)(1000 * SCALE / (double)tsc_rate() + 0.5);
    return ticks > 0 ? ticks : 1;
}

void rv_fastclock_init(struct rv_fastclock *c)
{
    *c = (struct rv_fastclock){0};
    if (rv_tsc_invariant()) {
        c->mult = (uint64_t)((double)tsc_rate() * (1 - SLOW));
        c->window = WINDOW_US * rv_tsc_per_us();
    }
    (void)rv_fastclock_sync(c);
}

int64_t rv_fastclock_sync(struct rv_fastclock *c)
{
    struct moment m = read_once();
    if (c->window != 0) {
        for (int i = 1; i < TRIES && m.width > c->window / WINDOW_US * BASE_US; i++)
            m = read_once();
        /* Based on the later reading of the counter, so that time is not counted twice. A base that
         * is too old is marked as used up: the next call asks again. */
        bool fresh = m.width <= c->window / WINDOW_US * BASE_US;
        c->base_tsc = m.tsc + m.width - (fresh ? 0 : c->window);
        c->base_ns = m.ns;
    }
    if (m.ns > c->last_ns)
        c->last_ns = m.ns;
    return c->last_ns;
}
