/* SPDX-License-Identifier: MIT */
/*
 * local.h -- the record of the calling thread, found through the library's only thread-local word.
 *
 * The hazard: a task can suspend on one thread and go on on another. Compilers do not know that.
 * They compute the address of a thread-local variable once and keep it, in a register or on the
 * task's stack, across the call that suspends; afterwards the task reads and writes the variable of
 * the *old* thread. `volatile` does not help, since it is the address that is kept. Hence:
 *
 * (1) no other thread-local variable in the library;
 * (2) this one is touched only inside two functions that compilers may not inline, clone or infer
 *     anything about, and by rv_local_peek(), whose two instructions a compiler may place but not
 *     take apart, leave out, or make one of two;
 * (3) the pointer they return is itself such a kept address: it is used up to the next call that
 *     may suspend, and asked for again after it.
 *
 * Threads: a record belongs to its thread; nobody else touches the magazines.
 */
#ifndef RV_MEM_LOCAL_H
#define RV_MEM_LOCAL_H

#include "mem/slab.h"
#include "mem/stack.h"

/* Begins a worker, or stands alone on a thread that has none. {0} is a fresh one. */
struct rv_local {
    void *owner;                    /* the runtime this thread belongs to */
    uint32_t seat;                  /* its place in every pool; see pool_seat.h */
    struct rv_stack_mag stack_mag;
    struct rv_mag task_mag;
    struct rv_mag op_mag;
};

/* The record last set on this thread; NULL: none. */
struct rv_local *rv_local_get(void);

/* The same in the line of the caller, for calls of a few nanoseconds that would spend a third of
 * their time on the way there and back. The address is formed, used and forgotten within one
 * volatile asm that claims to touch memory: no compiler keeps it, moves it across a call, or takes
 * the result of an earlier one for it. A test looks at where these instructions end up. */
static inline __attribute__((always_inline)) struct rv_local *rv_local_peek(void)
{
#if defined(__x86_64__) && defined(__LP64__) && !defined(RV_ATOMIC_BACKEND)
    struct rv_local *local;
    __asm__ volatile("movq rv_local_word@gottpoff(%%rip), %0\n\t"
                     "movq %%fs:(%0), %0"
                     : "=r"(local)
                     :
                     : "memory");
    return local;
#else
    return rv_local_get();
#endif
}

/* Lends the record to this thread, until it is set to another or to NULL. */
void rv_local_set(struct rv_local *local);

#endif
