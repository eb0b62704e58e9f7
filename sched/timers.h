/* SPDX-License-Identifier: MIT */
/*
 * timers.h -- a worker's timers: a 4-ary heap of values, earliest first.
 *
 * An entry names a task and one wait of that task; it is never a node inside the task. So nothing
 * is removed from the middle. A wait that ended leaves its entry behind, to be dropped when it
 * comes up with numbers that match no longer, or when the heap has doubled and is swept.
 *
 * Threads: the owner only.
 */
#ifndef RV_SCHED_TIMERS_H
#define RV_SCHED_TIMERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rv_timer {
    int64_t at;                 /* absolute, ns */
    uint32_t task;              /* whose wait, and */
    uint32_t seq;               /* which of its waits */
};
_Static_assert(sizeof(struct rv_timer) == 16, "four children are one cache line");

/* Below this many entries a sweep is not worth its calls. */
#define RV_TIMERS_SWEEP_MIN 64u

struct rv_timers {
    struct rv_timer *heap;
    uint32_t n, cap;
    uint32_t kept;              /* what the last sweep left */
    void *map;
    size_t map_bytes;
};

/* An empty heap for at most cap entries, at least 1. It costs address space, and memory only where
 * entries touch it. 0 or -ENOMEM. */
int rv_timers_init(struct rv_timers *t, uint32_t cap);

/* Gives the heap back, entries or not. A zeroed one is fine. */
void rv_timers_finish(struct rv_timers *t);

/* Adds an entry; false: full. Entries of one time come out in no particular order. */
bool rv_timers_push(struct rv_timers *t, struct rv_timer e);

/* The earliest entry, NULL if there is none. Valid until the next push, pop or sweep. */
static inline const struct rv_timer *rv_timers_min(const struct rv_timers *t)
{
    return t->n > 0 ? t->heap : NULL;
}

/* Removes and returns the earliest entry; there must be one. */
struct rv_timer rv_timers_pop(struct rv_timers *t);

/* True once the heap has doubled since its last sweep, and so may be more than half stale. The
 * pushes since then outnumber half of what a sweep looks at: it costs O(1) for each. */
static inline bool rv_timers_want_sweep(const struct rv_timers *t)
{
    return t->n >= RV_TIMERS_SWEEP_MIN && t->n / 2 >= t->kept;
}

/* Drops the entries for which live() says false, in O(n). live() leaves the heap alone. */
void rv_timers_sweep(struct rv_timers *t, bool (*live)(void *ctx, const struct rv_timer *e),
                     void *ctx);

#endif
