/* SPDX-License-Identifier: MIT */
/*
 * lock.c -- the slow halves of the four-byte lock: spin a little, then sleep.
 *
 * (1) Whoever may sleep has set the word to 2 before, so the release that ends its wait sees 2 and
 *     wakes. The kernel compares the word with 2 again before it lets the thread sleep.
 * (2) A thread that slept takes the lock as 2, not 1: others may sleep too, and it cannot know. The
 *     price is at most one wake of nobody.
 * (3) Spinning is bounded, and about as long as a sleep and a wake cost: a preempted holder on a
 *     machine of two CPUs burns nothing more.
 * Threads: any, not in signal handlers.
 */
#include "mem/lock.h"

#include <assert.h>
#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SPINS 64                /* at some 10 to 50 ns each */

static_assert(sizeof(struct rv_lock) == sizeof(uint32_t), "the kernel waits on a 32-bit word");

static bool spin_acquire(struct rv_lock *lock)
{
    for (int i = 0; i < SPINS; i++) {
        if (rv_load_relaxed(&lock->word) == 0 && rv_lock_try(lock))
            return true;
        rv_cpu_relax();
    }
    return false;
}

void rv_lock_wait(struct rv_lock *lock)
{
    if (spin_acquire(lock))
        return;
    /* Acquires; pairs with the exchange in rv_lock_release(). */
    while (rv_xchg_acq_rel(&lock->word, 2U) != 0)
        syscall(SYS_futex, &lock->word, FUTEX_WAIT_PRIVATE, 2, NULL, NULL, 0);
    RV_ASSERT(rv_load_relaxed(&lock->word) == 2);
}

void rv_lock_wake(struct rv_lock *lock)
{
    long woken = syscall(SYS_futex, &lock->word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    RV_ASSERT(woken >= 0);
    (void)woken;
}
