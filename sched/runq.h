/* SPDX-License-Identifier: MIT */
/*
 * runq.h -- the queue of woken tasks: a bounded FIFO ring from which thieves take half.
 *
 * Only the owner adds, at the tail. The owner takes one entry, a thief takes half, both by the same
 * means: copy, then move head by compare-and-swap (the scheme of runqgrab in Go's scheduler). What
 * was copied counts only if the swap succeeds.
 *
 *          head (oldest)                 tail (next free)
 *           v                             v
 *     [ ]  [a] [b] [c] [d] [e] [f] [g]   [ ]  ...  256 slots
 *           '-- a thief takes --'
 *
 * (1) head <= tail <= head + 256. Indices have 64 bits and only grow: a head that is met again is
 *     the same head, so a swap that succeeds had copied what is there.
 * (2) The owner overwrites a slot only after it saw head beyond it.
 * (3) A thief copies into the free slots of its own ring, where it is the owner, and publishes them
 *     by its own tail.
 *
 * Slots are atomic, since a slow thief may read one while the owner overwrites it. The thief's swap
 * then fails.
 *
 * Threads: push, pop, pop_solo, room - the owner only; steal - anyone, into a ring of its own;
 * len - anyone.
 */
#ifndef RV_SCHED_RUNQ_H
#define RV_SCHED_RUNQ_H

#include <stdbool.h>
#include <stdint.h>

#include "mem/die.h"
#include "mem/rv_atomic.h"

/* A power of two. A model checker builds this file with 4, to meet every overflow and wrap. */
#ifndef RV_RUNQ_SLOTS
#define RV_RUNQ_SLOTS 256u
#endif
_Static_assert((RV_RUNQ_SLOTS & (RV_RUNQ_SLOTS - 1)) == 0, "indices wrap at 2^64");

/* Zeroed, it is an empty queue. */
struct rv_runq {
    /* written by whoever takes */
    RV_ALIGNED_LINE RV_ATOMIC(uint64_t) head;

    /* written by the owner */
    RV_ALIGNED_LINE RV_ATOMIC(uint64_t) tail;
    uint64_t head_seen;             /* a value that head had; it is never below that again */
    RV_ALIGNED_LINE RV_ATOMIC(uint64_t) slots[RV_RUNQ_SLOTS];
};

/* How many entries the owner can add for certain. */
static inline uint32_t rv_runq_room(struct rv_runq *q)
{
    uint64_t t = rv_load_relaxed(&q->tail);
    /* Pairs with the swaps of head: who took entries has read their slots before we reuse them. */
    q->head_seen = rv_load_acquire(&q->head);
    RV_ASSERT(t - q->head_seen <= RV_RUNQ_SLOTS);
    return RV_RUNQ_SLOTS - (uint32_t)(t - q->head_seen);
}

/* Adds an entry as the newest; false: full. */
static inline bool rv_runq_push(struct rv_runq *q, uint64_t e)
{
    RV_ASSERT(e != 0);
    uint64_t t = rv_load_relaxed(&q->tail);
    if (t - q->head_seen >= RV_RUNQ_SLOTS && rv_runq_room(q) == 0)
        return false;
    rv_store_relaxed(&q->slots[t % RV_RUNQ_SLOTS], e);
    rv_store_release(&q->tail, t + 1);      /* publishes the slot to rv_runq_steal()'s load */
    return true;
}

/* Takes the oldest entry; 0: empty. */
static inline uint64_t rv_runq_pop(struct rv_runq *q)
{
    uint64_t t = rv_load_relaxed(&q->tail);
    uint64_t h = rv_load_relaxed(&q->head);
    while (h != t) {
        RV_ASSERT(t - h <= RV_RUNQ_SLOTS);
        uint64_t e = rv_load_relaxed(&q->slots[h % RV_RUNQ_SLOTS]);
        if (rv_cas(&q->head, &h, h + 1))    /* a failure puts the head that a thief left into h */
            return e;
    }
    return 0;
}

/* The same where nobody ever steals, as in a runtime of one worker: without the swap. */
static inline uint64_t rv_runq_pop_solo(struct rv_runq *q)
{
    uint64_t h = rv_load_relaxed(&q->head);
    if (h == rv_load_relaxed(&q->tail))
        return 0;
    uint64_t e = rv_load_relaxed(&q->slots[h % RV_RUNQ_SLOTS]);
    rv_store_release(&q->head, h + 1);      /* for rv_runq_room(), which is on this thread, too */
    return e;
}

/* How many of len entries a thief takes that has room for `most`. */
static inline uint32_t rv_runq_half(uint64_t len, uint32_t most)
{
    uint32_t n = (uint32_t)(len - len / 2);
    return n < most ? n : most;
}

/* Takes the older half of the victim's entries, rounded up: the oldest is *ret_first, the others
 * are added to `mine`, the thief's own ring, in their order; no more than fit. Returns how many it
 * took; 0: none were there. The victim's owner and other thieves may use both rings meanwhile. */
static inline uint32_t rv_runq_steal(struct rv_runq *victim, struct rv_runq *mine,
                                     uint64_t *ret_first)
{
    RV_ASSERT(victim != mine);
    uint64_t mt = rv_load_relaxed(&mine->tail);
    uint32_t most = rv_runq_room(mine) + 1;
    uint64_t h = rv_load_acquire(&victim->head);    /* before tail, so that tail is not below it */
    for (;;) {
        uint64_t len = rv_load_acquire(&victim->tail) - h;  /* pairs with rv_runq_push() */
        if (len == 0)
            return 0;
        if (len > RV_RUNQ_SLOTS) {                  /* head moved between the two loads */
            h = rv_load_acquire(&victim->head);
            continue;
        }
        uint32_t n = rv_runq_half(len, most);
        uint64_t first = rv_load_relaxed(&victim->slots[h % RV_RUNQ_SLOTS]);
        for (uint32_t i = 1; i < n; i++) {
            uint64_t e = rv_load_relaxed(&victim->slots[(h + i) % RV_RUNQ_SLOTS]);
            rv_store_relaxed(&mine->slots[(mt + i - 1) % RV_RUNQ_SLOTS], e);
        }
        /* Gives the slots, now read, back to the victim; pairs with the load in rv_runq_room(). */
        if (!rv_cas(&victim->head, &h, h + n))
            continue;
        if (n > 1)
            rv_store_release(&mine->tail, mt + n - 1);      /* publishes them, as a push does */
        *ret_first = first;
        return n;
    }
}

/* How many entries there are: for the owner never too few, for everybody else an estimate. */
static inline uint32_t rv_runq_len(struct rv_runq *q)
{
    uint64_t h = rv_load_relaxed(&q->head);
    uint64_t t = rv_load_relaxed(&q->tail);
    return (int64_t)(t - h) > 0 ? (uint32_t)(t - h) : 0;
}

#endif
