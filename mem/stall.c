/* SPDX-License-Identifier: MIT */
/*
 * stall.c -- one call in thousands sleeps: mostly for less than a time slice, sometimes for more.
 *
 * (1) A call changes nothing but the time: errno stays, nothing is allocated, no lock is taken. So
 *     it may come from a signal handler, and from a child that shares its parent's memory.
 *
 * Threads: any; each draws for itself.
 */
#include "mem/stall.h"

#ifdef RV_STALLS

#include <errno.h>
#include <stdint.h>
#include <time.h>

/* Not seen by the compiler's instruments: not called by itself, and no business of a sanitizer,
 * which takes a worker and its tasks for threads of their own. */
#define RV_PLAIN __attribute__((no_instrument_function, no_sanitize("thread")))

enum { CALLS = 1 << 17, SHORT = 12, LONG = 1 }; /* of so many calls so many stall */
#define SHORT_NS 512000
#define LONG_NS 5000000

static _Thread_local uint64_t state;

/* Marsaglia's xorshift64; the time makes two threads and two runs differ. */
static RV_PLAIN uint64_t draw(void)
{
    struct timespec t;
    if (state == 0) {
        clock_gettime(CLOCK_MONOTONIC, &t);
        state = ((uint64_t)t.tv_nsec * UINT64_C(0x9e3779b97f4a7c15) ^ (uintptr_t)&state) | 1;
    }
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static RV_PLAIN void stall(void)
{
    uint64_t x = draw();
    uint32_t which = (uint32_t)(x >> 20) & (CALLS - 1);
    if (__builtin_expect(which >= SHORT + LONG, 1))
        return;
    int before = errno;
    long ns = which < LONG ? LONG_NS : (long)((x >> 40) % SHORT_NS);
    nanosleep(&(struct timespec){ .tv_nsec = ns }, NULL);
    errno = before;
}

RV_PLAIN void __cyg_profile_func_enter(void *function, void *caller)
{
    (void)function;
    (void)caller;
    stall();
}

RV_PLAIN void __cyg_profile_func_exit(void *function, void *caller)
{
    (void)function;
    (void)caller;
    stall();
}

#endif
