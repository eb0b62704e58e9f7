/* SPDX-License-Identifier: MIT */
/*
 * lock.h -- a four-byte lock for sections of less than about 100 ns.
 *
 * It spins a little, because the holder is nearly always on another CPU and nearly done; then it
 * sleeps in the kernel, because the holder may have been preempted and spinning would burn the very
 * CPU it waits for. {0} is unlocked. Never held across anything that suspends a task. Not fair, not
 * recursive. Not for signal handlers: the thread they interrupt may be the holder.
 *
 *     word 0 free, 1 held, 2 held and perhaps waited for
 *     0 -> 1  [rv_lock_acquire, rv_lock_try]     0, 1 -> 2  [rv_lock_wait]
 *     1 -> 0  [rv_lock_release]                  2 -> 0     [rv_lock_release, which wakes one]
 */
#ifndef RV_MEM_LOCK_H
#define RV_MEM_LOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "mem/die.h"
#include "mem/rv_atomic.h"

struct rv_lock {
    RV_ATOMIC(uint32_t) word;
};

/* The slow halves, in lock.c. */
void rv_lock_wait(struct rv_lock *lock);
void rv_lock_wake(struct rv_lock *lock);

static inline void rv_lock_init(struct rv_lock *lock)
{
    rv_store_relaxed(&lock->word, 0U);
}

/* Held from the beginning, on behalf of whoever will release it: a way to wait for that, by
 * rv_lock_acquire(). */
static inline void rv_lock_init_held(struct rv_lock *lock)
{
    rv_store_relaxed(&lock->word, 1U);
}

/* Whether somebody holds it; if not, what the last holder did is the caller's to see. */
static inline bool rv_lock_is_held(struct rv_lock *lock)
{
    return rv_load_acquire(&lock->word) != 0; /* pairs with rv_lock_release() */
}

/* True: the caller holds it now. */
static inline bool rv_lock_try(struct rv_lock *lock)
{
    uint32_t seen = 0;
    return rv_cas(&lock->word, &seen, 1U);      /* acquires; pairs with rv_lock_release() */
}

static inline void rv_lock_acquire(struct rv_lock *lock)
{
    if (!rv_lock_try(lock))
        rv_lock_wait(lock);
}

static inline void rv_lock_release(struct rv_lock *lock)
{
    uint32_t seen = rv_xchg_acq_rel(&lock->word, 0U);       /* releases; pairs with every taker */
    RV_ASSERT(seen != 0);
    if (__builtin_expect(seen == 2, 0))
        rv_lock_wake(lock);
}

#endif
