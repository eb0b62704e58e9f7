/* SPDX-License-Identifier: MIT */
/*
 * context.h -- leaving one stack and going on on another.
 *
 * A context that does not run is a stack pointer, st->sp; its registers lie on the stack above it.
 * A switch saves and loads what a called function must preserve, and nothing else. In particular
 * not the floating-point environment (rounding mode, exception masks): who changes it restores it
 * before any call that may switch, or the change stays with the thread and meets other tasks.
 *
 * A context is built once on a stack and then lives as long as that stack is hot. A pooled stack is
 * parked in the middle of its entry function's loop, and switching to it again goes on there.
 *
 *     no context   -> parked            [rv_context_build]
 *     no context   -> running           [rv_context_adopt, the thread's own stack]
 *     parked       -> running           [rv_switch, as `to`; the first time in entry()]
 *     running      -> parked            [rv_switch, as `from`]
 *     parked       -> no context        [rv_context_retire]
 *
 * (1) A context is parked only when rv_switch() has saved it. Who makes a context findable does so
 *     on the stack that was switched to. Done on the context's own stack, another thread could go
 *     on with registers not yet saved; ThreadSanitizer builds report that, see context.c.
 * (2) One thread at a time switches to a parked context: finding it means taking it.
 *
 * Threads: build, retire - whoever holds the stack; adopt, switch - the thread it is about.
 */
#ifndef RV_SCHED_CONTEXT_H
#define RV_SCHED_CONTEXT_H

#include <stddef.h>

#include "mem/die.h"
#include "mem/rv_atomic.h"
#include "mem/stack.h"

#if defined(__x86_64__)
#include "sched/context_x86_64.h"
#else
#error "No context switch for this architecture: add one, see context_x86_64.h."
#endif

#if defined(RV_ASAN)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(RV_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

/* Lays out a context on a stack that has none: the first switch to it calls entry(), which starts
 * with rv_switch_entered() and never returns. Backtraces end above entry(). */
void rv_context_build(struct rv_stack *st, void (*entry)(void));

/* Ends a parked context: its stack is about to lose its memory. Not for adopted ones. */
void rv_context_retire(struct rv_stack *st);

/* Fills the record of the stack that the calling thread was born with, so that switches can leave
 * it and come back. Its bounds are the thread's; where these cannot be found out, narrower ones. */
void rv_context_adopt(struct rv_stack *self);

#if defined(RV_TSAN)
/* The half of rv_switch() that ThreadSanitizer shall see; returns to->sp. */
void *rv_context_hand_over(struct rv_stack *from, struct rv_stack *to);
#endif

/* Leaves `from`, on which the caller runs, for the parked context of `to`. Returns when somebody
 * switches to `from`, perhaps on another thread: whatever was derived from the thread before, such
 * as the address of a thread-local variable, is wrong after.
 *
 * Always inlined: ThreadSanitizer keeps a call stack for each context, and a function entered on
 * the one and left on the other would upset both. context.c says which edges it is told. */
static inline __attribute__((always_inline)) void rv_switch(struct rv_stack *from,
                                                            struct rv_stack *to)
{
    RV_ASSERT(from != to);
    RV_ASSERT(to->sp != NULL);
#if defined(RV_ASAN)
    __sanitizer_start_switch_fiber(&from->asan_fake, to->low, (size_t)(to->top - to->low));
#endif
#if defined(RV_TSAN)
    void *fiber = to->tsan_fiber;
    void *load_sp = rv_context_hand_over(from, to);     /* from here on *to is not ours to read */
    __tsan_switch_to_fiber(fiber, __tsan_switch_to_fiber_no_sync);
    __tsan_acquire(&to->tsan_fiber);
    rv_context_swap(&from->sp, load_sp);
#else
    rv_context_swap(&from->sp, to->sp);
#endif
#if defined(RV_ASAN)
    __sanitizer_finish_switch_fiber(from->asan_fake, NULL, NULL);
#endif
}

/* What an entry function does first. */
static inline __attribute__((always_inline)) void rv_switch_entered(struct rv_stack *self)
{
    RV_ASSERT(self->sp != NULL);
#if defined(RV_ASAN)
    __sanitizer_finish_switch_fiber(self->asan_fake, NULL, NULL);
#endif
}

#endif
