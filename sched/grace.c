/* SPDX-License-Identifier: MIT */
/*
 * grace.c -- how a scheduler waits for strangers to let go of it.
 *
 * A foreign thread, or a worker of another runtime, that releases a semaphore wakes a task by
 * putting it into a queue of that task's runtime, and then tells a worker. In between the task may
 * run, be the last one, and its runtime be destroyed. So strangers draw a ticket while the task
 * still waits, and a scheduler's end waits until they are back: sleepable RCU in the small, with
 * two counters that take turns (McKenney, LWN 2006).
 *
 *     phase 0: strangers count in inside[0]     rv_grace_wait() makes it 1, waits for inside[0] = 0
 *     phase 1: strangers count in inside[1]     and so on
 *
 * (1) A ticket is drawn when the counter has been raised and the phase is still the counter's. The
 *     raise and the phase's change are both sequentially consistent: either the end sees the count,
 *     or the stranger sees the new phase, takes its count back, and tries again.
 * (2) Who counts in the new phase does not matter to the end that changed it: the tasks of its
 *     runtime are over by then, and nobody can find one to wake.
 * (3) One end at a time, or a second change of phase would let newcomers into the counter that the
 *     first waits for.
 *
 * Threads: any.
 */
#include "sched/grace.h"

#include <limits.h>
#include <linux/futex.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mem/die.h"
#include "mem/lock.h"
#include "mem/rv_atomic.h"

static RV_ATOMIC(uint32_t) phase;
static RV_ATOMIC(uint32_t) inside[2]; /* futexes for the one who waits for 0 */
static RV_ATOMIC(uint32_t) awaited;
static struct rv_lock ends;

static void leave(uint32_t p)
{
    uint32_t left = rv_at_sub(&inside[p], 1u, memory_order_seq_cst) - 1;
    RV_ASSERT(left != UINT32_MAX);
    /* The end stores awaited before its last look at the counter. */
    if (left == 0 && rv_load_seqcst(&awaited) != 0)
        syscall(SYS_futex, &inside[p], FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

unsigned rv_grace_enter(void)
{
    for (;;) {
        uint32_t p = rv_load_seqcst(&phase) & 1;
        (void)rv_at_add(&inside[p], 1u, memory_order_seq_cst);
        if ((rv_load_seqcst(&phase) & 1) == p)
            return p + 1;
        leave(p);
    }
}

void rv_grace_leave(unsigned ticket)
{
    RV_ASSERT(ticket == 1 || ticket == 2);
    leave(ticket - 1);
}

void rv_grace_forked(void)
{
    rv_store_relaxed(&inside[0], 0u);
    rv_store_relaxed(&inside[1], 0u);
    rv_store_relaxed(&awaited, 0u);
    rv_lock_init(&ends);
}

void rv_grace_wait(void)
{
    rv_lock_acquire(&ends);
    uint32_t p = rv_at_add(&phase, 1u, memory_order_seq_cst) & 1, n;
    rv_store_seqcst(&awaited, 1u);
    while ((n = rv_load_seqcst(&inside[p])) != 0)
        syscall(SYS_futex, &inside[p], FUTEX_WAIT_PRIVATE, n, NULL, NULL, 0);
    rv_store_seqcst(&awaited, 0u);
    rv_lock_release(&ends);
}
