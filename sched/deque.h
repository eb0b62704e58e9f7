/* SPDX-License-Identifier: MIT */
/*
 * deque.h -- the work-stealing deque of fresh tasks (Chase and Lev, SPAA 2005; what must be ordered
 * is worked out by Le, Pop, Cohen and Zappa Nardelli, PPoPP 2013).
 *
 * The owner pushes and pops at the bottom, newest first; thieves take at the top, oldest first.
 * They meet only over the last entry, which one compare-and-swap of top decides. Indices count for
 * ever; an index modulo the capacity is a slot.
 *
 *       top (next to be stolen)            bottom (next free)
 *        v                                  v
 *     ...[oldest] ... ... ... ... [newest] [ ] ...
 *        thieves ->                <- owner
 *
 * (1) top never decreases, and only a compare-and-swap moves it. Who moved it from t to t + 1 has
 *     taken entry t.
 * (2) bottom - top <= capacity: a slot is not overwritten while its entry can still be taken. The
 *     deque does not grow. A push can fail, and its caller has a place for the overflow.
 * (3) The owner takes entry b without touching top if, after its exchange bottom = b, it reads a
 *     top below b. No thief takes the same entry: it would have read top = b and then, not seeing
 *     the exchange, a bottom above b. These four accesses are sequentially consistent. In their
 *     one order the thief's read of top stands before its read of bottom, that before the owner's
 *     exchange, and that before the owner's read of top, which must then give b or more.
 *
 * Le et al. put fences there; an exchange is what a fence costs on x86, the thief's two loads cost
 * nothing, and every tool that knows C11 understands them.
 *
 * Entries are words other than 0; what they mean is the caller's business. An entry whose task
 * was claimed by other means stays until somebody takes it and throws it away.
 *
 * Threads: init, finish, push, pop, peek, take_oldest - the owner only; steal, len - anyone.
 */
#ifndef RV_SCHED_DEQUE_H
#define RV_SCHED_DEQUE_H

#include <stdbool.h>
#include <stdint.h>

#include "mem/die.h"
#include "mem/rv_atomic.h"

struct rv_deque {
    /* written by thieves, and by the owner over the last entry */
    RV_ALIGNED_LINE RV_ATOMIC(uint64_t) top;

    /* written by the owner */
    RV_ALIGNED_LINE RV_ATOMIC(uint64_t) bottom;
    uint64_t top_seen;              /* a value that top had; it is never below that again */

    /* constant after init */
    uint64_t mask;                  /* capacity - 1 */
    RV_ATOMIC(uint64_t) *slots;
};

/* An empty deque of cap slots, a power of two, at most 2^32. It costs address space, and memory
 * only where entries touch it. 0 or -ENOMEM. */
int rv_deque_init(struct rv_deque *d, uint64_t cap);

/* Gives the slots back, entries or not. A zeroed deque is fine. */
void rv_deque_finish(struct rv_deque *d);

/* Adds an entry as the newest; false: full. */
static inline bool rv_deque_push(struct rv_deque *d, uint64_t e)
{
    RV_ASSERT(e != 0);
    uint64_t b = rv_load_relaxed(&d->bottom);
    if (b - d->top_seen > d->mask) {
        /* Pairs with the swaps of top: who took an entry has read its slot before we reuse it. */
        d->top_seen = rv_load_acquire(&d->top);
        if (b - d->top_seen > d->mask)
            return false;
    }
    rv_store_relaxed(&d->slots[b & d->mask], e);
    rv_store_release(&d->bottom, b + 1);    /* publishes the slot to rv_deque_steal()'s load */
    return true;
}

/* Takes the newest entry; 0: empty. */
static inline uint64_t rv_deque_pop(struct rv_deque *d)
{
    uint64_t b = rv_load_relaxed(&d->bottom);
    uint64_t t = rv_load_relaxed(&d->top);
    if (b == t)
        return 0;           /* for certain: nobody else raises bottom, and top does not pass it */
    RV_ASSERT(b - t <= d->mask + 1);
    b--;
    /* Pairs with rv_deque_steal()'s loads, see (3). It releases too: a thief may read this value
     * instead of a push's, and needs the slots below it as much. */
    (void)rv_xchg_seqcst(&d->bottom, b);
    t = rv_load_seqcst(&d->top);
    if ((int64_t)(b - t) > 0)
        return rv_load_relaxed(&d->slots[b & d->mask]);

    /* It is the last entry, or that is gone: in both cases the deque is now empty, at b + 1. */
    uint64_t e = 0;
    if (b == t) {
        e = rv_load_relaxed(&d->slots[b & d->mask]);
        if (!rv_cas_seqcst(&d->top, &t, b + 1))
            e = 0;
    }
    rv_store_release(&d->bottom, b + 1);
    return e;
}

/* The newest entry, left where it is; 0: empty. A hint for deciding whether to pop: a thief may
 * take it at any time, so the next pop gives this entry or 0. */
static inline uint64_t rv_deque_peek(struct rv_deque *d)
{
    uint64_t b = rv_load_relaxed(&d->bottom);
    if (b == rv_load_relaxed(&d->top))
        return 0;
    return rv_load_relaxed(&d->slots[(b - 1) & d->mask]);
}

/* Takes the oldest entry, from any thread. 0: there was none, or (*ret_lost) somebody else was
 * faster and there may be more. *ret_lost is set in every case. */
static inline uint64_t rv_deque_steal(struct rv_deque *d, bool *ret_lost)
{
    *ret_lost = false;
    uint64_t t = rv_load_seqcst(&d->top);
    uint64_t b = rv_load_seqcst(&d->bottom);    /* pairs with rv_deque_push() and rv_deque_pop() */
    if ((int64_t)(b - t) <= 0)
        return 0;
    uint64_t e = rv_load_relaxed(&d->slots[t & d->mask]);
    /* Gives the slot, now read, back to rv_deque_push(); pairs with its acquire. */
    if (!rv_cas_seqcst(&d->top, &t, t + 1)) {
        *ret_lost = true;
        return 0;
    }
    return e;
}

/* Takes the oldest entry, as the owner, who tries again when a thief was faster; 0: empty. */
static inline uint64_t rv_deque_take_oldest(struct rv_deque *d)
{
    uint64_t b = rv_load_relaxed(&d->bottom);
    uint64_t t = rv_load_relaxed(&d->top);
    while (b != t) {
        RV_ASSERT(b - t <= d->mask + 1);
        uint64_t e = rv_load_relaxed(&d->slots[t & d->mask]);
        if (rv_cas_seqcst(&d->top, &t, t + 1))      /* a failure puts the top it met into t */
            return e;
    }
    return 0;
}

/* How many entries there are: for the owner never too few, for everybody else an estimate. */
static inline uint64_t rv_deque_len(struct rv_deque *d)
{
    uint64_t t = rv_load_relaxed(&d->top);
    uint64_t b = rv_load_relaxed(&d->bottom);
    return (int64_t)(b - t) > 0 ? b - t : 0;
}

#endif
