/* SPDX-License-Identifier: MIT */
/*
 * clock.h -- the time: the kernel's monotonic clock, the CPU's counter, and one made of both.
 *
 * Reading the kernel's clock costs about 20 ns, the counter about 9. A worker that wants the time
 * at every step keeps a struct rv_fastclock: it asks the kernel once a millisecond and counts on
 * from there. It may lag behind the kernel's clock, by less than RV_FASTCLOCK_LAG_NS, but is not
 * ahead of it: nothing that waits for a time is told too early that it has come.
 *
 * Threads: an rv_fastclock belongs to one thread at a time; the rest - anyone.
 */
#ifndef RV_SCHED_CLOCK_H
#define RV_SCHED_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

/* CLOCK_MONOTONIC, ns. */
int64_t rv_clock_ns(void);

/* The CPU's cycle counter. Not ordered with the instructions around it. */
static inline uint64_t rv_tsc(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t ticks;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
    return ticks;
#else
    return (uint64_t)rv_clock_ns();
#endif
}

/* How many ticks of it make a microsecond, at least 1. The first call measures for 0.2 ms. */
uint64_t rv_tsc_per_us(void);

/* True if the counter runs at one rate on every CPU, whatever their clock rate and sleep. */
bool rv_tsc_invariant(void);

#define RV_FASTCLOCK_LAG_NS INT64_C(10000)

struct rv_fastclock {
    uint64_t base_tsc;          /* where the counter stood when the kernel's clock said base_ns */
    int64_t base_ns;
    int64_t last_ns;            /* what was returned last */
    uint64_t mult;              /* ns in a tick, times 2^32, rounded down and a little more */
    uint64_t window;            /* ticks that base is good for; 0: always ask the kernel */
};

/* Where the counter is not invariant, the clock will be the kernel's. */
void rv_fastclock_init(struct rv_fastclock *c);

/* Asks the kernel; what rv_fastclock_now() falls back on. */
int64_t rv_fastclock_sync(struct rv_fastclock *c);

/* The time, ns; never less than it was before on the same clock. */
static inline int64_t rv_fastclock_now(struct rv_fastclock *c)
{
    if (c->window == 0)
        return rv_fastclock_sync(c);
    uint64_t ticks = rv_tsc() - c->base_tsc;
    if (ticks >= c->window)     /* also when the counter was set back: then this is enormous */
        return rv_fastclock_sync(c);
    int64_t now = c->base_ns + (int64_t)(ticks * c->mult >> 32);
    if (now > c->last_ns)
        c->last_ns = now;
    return c->last_ns;
}

/* Some other clock may have said more than this one so far: the next reading asks the kernel, and
 * no clock is ahead of that. */
static inline void rv_fastclock_doubt(struct rv_fastclock *c)
{
    c->base_tsc -= c->window;
}

#endif
