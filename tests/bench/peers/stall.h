/* SPDX-License-Identifier: MIT */
/*
 * stall.h -- requests that ask the server to compute: what both servers of the stall benchmarks do.
 *
 * A request has a fixed size. Its first 4 bytes, the lowest first, say how many microseconds of
 * its thread's CPU time the server spends before it answers; the answer is the request itself.
 * CPU time, not time: who is preempted while it spins has not spun.
 *
 * Requests may come in parts, or several at once; so this follows the stream of bytes and may be
 * given any part of it.
 */
#ifndef TESTS_BENCH_PEERS_STALL_H
#define TESTS_BENCH_PEERS_STALL_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

enum { STALL_HEADER = 4 };

struct stall {
    uint32_t at; /* so many bytes of the current request were seen */
    uint32_t us; /* what they say */
};

static inline int64_t stall_cpu_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

static inline void stall_spin(uint32_t us)
{
    int64_t until = stall_cpu_ns() + us * INT64_C(1000);
    while (stall_cpu_ns() < until)
        ;
}

/** How many of these n bytes belong to the current request. If its end is among them, it has spun
 * when this returns: they may go back. */
static inline size_t stall_next(struct stall *s, size_t size, const unsigned char *bytes, size_t n)
{
    size_t part = n < size - s->at ? n : size - s->at;
    for (size_t i = 0; i < part && s->at + i < STALL_HEADER; i++)
        s->us |= (uint32_t)bytes[i] << 8 * (s->at + i);
    s->at += (uint32_t)part;
    if (s->at < size)
        return part;
    if (s->us)
        stall_spin(s->us);
    *s = (struct stall){ 0 };
    return part;
}

#endif
