/* SPDX-License-Identifier: MIT */
/*
 * inbox.h -- messages to one worker, from any thread.
 *
 * Concurrency Kit's stack, in the one mode that needs neither a double-width swap nor deferred
 * freeing: producers push by compare-and-swap, the one consumer takes all by exchange. Nobody pops
 * a single message, so it does no harm that a head can be met again. The consumer reverses what it
 * took: messages come in the order of their pushes.
 *
 * (1) A message is a member of something that outlives its journey (a task, an op, a lease) and is
 *     in at most one inbox at a time.
 * (2) It belongs to the inbox from its push until a drain returns it, and then to the consumer,
 *     who asks for rv_msg_next() before doing anything that may send the message again.
 *
 * Concurrency Kit's atomics are inline assembly. ThreadSanitizer does not see those, and would
 * report each message as a race; nor can they be annotated from outside, since the push writes the
 * link after any release announced before it. So there the same two operations are spelled in C11
 * atomics, with the orders they have on x86 or stronger ones.
 *
 * Threads: push, empty - anyone; drain - the consumer.
 */
#ifndef RV_SCHED_INBOX_H
#define RV_SCHED_INBOX_H

#include <ck_stack.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mem/rv_atomic.h"

struct rv_msg {
    ck_stack_entry_t link;
    uint8_t kind;
    uint8_t flags;
    uint16_t aux16;
    uint32_t aux;
};
_Static_assert(sizeof(struct rv_msg) == 16, "every task and every op carries one");
_Static_assert(offsetof(struct rv_msg, link) == 0, "a link is cast to its message");

/* Zeroed, it is an empty inbox. */
struct rv_inbox {
#if defined(RV_TSAN) || defined(RV_ATOMIC_BACKEND)
    RV_ALIGNED_LINE RV_ATOMIC(uintptr_t) head;      /* the newest ck_stack_entry_t, or 0 */
#else
    RV_ALIGNED_LINE ck_stack_t stack;
#endif
};

#if defined(RV_TSAN) || defined(RV_ATOMIC_BACKEND)

static inline bool rv_inbox_empty(struct rv_inbox *in)
{
    return rv_load_relaxed(&in->head) == 0;
}

static inline void rv_inbox_push(struct rv_inbox *in, struct rv_msg *m)
{
    uintptr_t head = rv_load_relaxed(&in->head);
    do
        m->link.next = (ck_stack_entry_t *)head;
    while (!rv_cas(&in->head, &head, (uintptr_t)&m->link));
}

static inline ck_stack_entry_t *rv_inbox_take(struct rv_inbox *in)
{
    return (ck_stack_entry_t *)rv_xchg_acq_rel(&in->head, 0);
}

#else

/* True if a drain would return nothing now. Orders nothing: who goes to sleep on the answer has a
 * full fence between announcing so and asking. */
static inline bool rv_inbox_empty(struct rv_inbox *in)
{
    return ck_pr_load_ptr(&in->stack.head) == NULL;
}

/* Adds a message. What its producer did before is visible to the drain that returns it. */
static inline void rv_inbox_push(struct rv_inbox *in, struct rv_msg *m)
{
    ck_stack_push_upmc(&in->stack, &m->link);
}

/* All messages, newest first. */
static inline ck_stack_entry_t *rv_inbox_take(struct rv_inbox *in)
{
    return ck_stack_batch_pop_upmc(&in->stack);
}

#endif

/* The message after this one in what a drain returned; NULL: this was the last. */
static inline struct rv_msg *rv_msg_next(const struct rv_msg *m)
{
    return (struct rv_msg *)m->link.next;
}

/* Takes all messages, oldest first. NULL: there are none, which costs one load to learn. */
static inline struct rv_msg *rv_inbox_drain(struct rv_inbox *in)
{
    if (rv_inbox_empty(in))
        return NULL;
    ck_stack_entry_t *newest = rv_inbox_take(in), *oldest = NULL;
    while (newest) {
        ck_stack_entry_t *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    return (struct rv_msg *)oldest;
}

#endif
