/* SPDX-License-Identifier: MIT */
/*
 * task.h -- the task descriptor: what a task is between its spawn and its last reference.
 *
 * A descriptor is a slab object of 192 bytes, three cache lines, and the only memory that an
 * unstarted task has. An explicit group is a descriptor too, one without a function: every scope
 * that can own children is then the same thing, found by the same index and cancelled by the same
 * walk.
 *
 *     line 0   who it is: start or run, deadline, generation and flags, state bits, parent, class
 *     line 1   its scope (children) and its wait (wait word, timer, joiner)
 *     line 2   48 bytes of .copy, and the node by which it travels through inboxes and the injector
 */
#ifndef RV_SCHED_TASK_H
#define RV_SCHED_TASK_H

#include <reeve/task.h>
#include <stddef.h>

#include "mem/lock.h"
#include "mem/rv_atomic.h"
#include "mem/slab.h"
#include "mem/stack.h"
#include "sched/inbox.h"

#define RV_COPY_INLINE 48u
#define RV_COPY_MAX 65536u
#define RV_NEVER INT64_MAX

/* st: the reference bits. A descriptor is free once DONE is set and QUEUED, HANDLE and PINNED are
 * clear; whoever makes that true by one atomic operation frees it. See the table in task.c. */
enum {
    RV_ST_QUEUED = 1,  /* a queue entry of the unstarted task exists somewhere */
    RV_ST_CLAIMED = 2, /* started, or being skipped: nobody else may start it */
    RV_ST_DONE = 4,    /* function returned and scope empty: result is final */
    RV_ST_JOINER = 8,  /* joiner holds the token of who waits for DONE */
    RV_ST_HANDLE = 16, /* a reeve_task * is out, not yet joined */
    RV_ST_PINNED = 32, /* on a canceller's work list */
    /* its queue entry is its msg node: it cannot start before that was taken out */
    RV_ST_NODE = 64,
};

/* linked: whether it is in its scope's list of children. Once it was, a canceller may hold it. */
enum { RV_LINK_NEVER, RV_LINK_IN, RV_LINK_OUT };

/* ctl: generation in the upper half, these flags in the lower. One word, so that a late cancel by
 * handle is refused by the same compare-and-swap that would set the flag. */
enum {
    RV_CTL_CANCELLED = 1,
    RV_CTL_HOLDS = 2,  /* its owner's cancellation stops here: a server's drain */
    RV_CTL_MASKED = 4, /* its waits ignore cancellation and its own deadline: cleanup */
    RV_CTL_SHIELDED = 8, /* its waits ignore cancellation: reeve_shield() */
    RV_CTL_SPARED = 16,  /* spawned under a shield: its scope's cancellation does not reach it */
    RV_CTL_LENT_SHIFT = 8, /* 3 bits: the class lent to it, and how often; see boost.c */
    RV_CTL_LOANS_SHIFT = 16,
};

/* flags: written by the task itself, by its spawner before it is published, or under its scope's
 * lock. */
enum {
    RV_TF_GROUP = 1,     /* no function: an explicit group's record */
    RV_TF_HEAP_COPY = 2, /* .copy lives in an allocated block, its address in copy[0..7] */
    RV_TF_SPECIAL = 4,   /* pinned, dated, shielded, or of another class than NORMAL */
    RV_TF_TIMED_OUT = 8, /* the op it waits for was cancelled by its deadline */
    RV_TF_GUARDED =
        16, /* its failure cancels its group: spawned without a handle into an explicit one */
    RV_TF_DATED = 32,  /* it was given a deadline of its own: it queues by that */
    RV_TF_POSTED = 64, /* it is counted by admit.c until it starts */
};

/* The scope counter starts at this bias, which its owner removes when it starts to wait: only then
 * can a child that ends find that it was the last. */
#define RV_SCOPE_OPEN (INT64_C(1) << 62)

typedef void rv_skipped_fn(void *arg);

struct rv_task {
    union {
        /* until it is claimed; atomic because who is late for the last user's wait reads this as
         * `run`, see look_at_wait() */
        struct {
            RV_ATOMIC(reeve_fn *) fn;
            RV_ATOMIC(void *) arg;
            RV_ATOMIC(rv_skipped_fn *) skipped;
        } start;
        struct { /* from then on */
            /* where its frames are; several tasks share one after inline joins */
            RV_ATOMIC(struct rv_stack *) stack;
            RV_ATOMIC(int64_t) until; /* the running wait's deadline, RV_NEVER when none */
            RV_ATOMIC(uint64_t) op;   /* the I/O op that this wait is for; 0: the wait word alone */
        } run;
    };
    int64_t deadline;        /* its own, absolute ns; 0: none */
    RV_ATOMIC(uint64_t) ctl; /* generation << 32 | RV_CTL_* */
    const char *name;
    RV_ATOMIC(uint32_t) st; /* RV_ST_* */
    uint32_t parent; /* the descriptor whose scope it is in; RV_NIL: the runtime's root scope */
    int32_t result;
    RV_ATOMIC(uint8_t) kind; /* class (REEVE_LOW .. REEVE_URGENT) and stack class, four bits each;
                              * atomic because who lends a class may be late */
    /* of its frames below the stack's record, in cache lines, when it was left */
    RV_ATOMIC(uint8_t) depth;
    uint8_t flags; /* RV_TF_* */
    RV_ATOMIC(uint8_t) linked; /* RV_LINK_*, written under its scope's lock */

    RV_ATOMIC(int64_t) live; /* children not yet done, biased; see scope.c */
    uint32_t spawned;        /* children spawned by the owner itself, not yet in live */
    struct rv_lock lock;     /* guards kids and the children's sib links */
    uint32_t kids;           /* list of linked children */
    uint32_t sib_next, sib_prev;
    uint16_t pin;              /* worker index + 1 that it must run on; 0: any */
    uint16_t groups;           /* explicit groups begun and not yet waited for */
    RV_ATOMIC(uint64_t) ww;    /* the wait word: arm << 4 | RV_WW_*; see wait.c */
    RV_ATOMIC(uint64_t) timer; /* worker << 32 | seq of its live timer-heap entry; 0: none */
    int64_t armed_at;          /* that entry's time; the task's own */
    RV_ATOMIC(uint64_t) joiner; /* wait token of who joins; valid while RV_ST_JOINER is set */

    unsigned char copy[RV_COPY_INLINE] __attribute__((aligned(16)));
    struct rv_msg msg; /* link in one inbox, injector or work list at a time */
};
_Static_assert(sizeof(struct rv_task) == 192, "a million queued tasks must fit in 192 MB");

/* A queue entry: generation << 32 | (index + 1) << 1 | fresh. A fresh entry starts a task that may
 * have been claimed by its joiner meanwhile; the other kind resumes a task that waits for nothing
 * else. Never 0. */
static inline uint64_t rv_entry(uint32_t gen, uint32_t idx, bool fresh)
{
    return (uint64_t)gen << 32 | (uint64_t)(idx + 1) << 1 | fresh;
}
static inline uint32_t rv_entry_index(uint64_t e)
{
    return ((uint32_t)e >> 1) - 1;
}
static inline bool rv_entry_fresh(uint64_t e)
{
    return e & 1;
}
static inline bool rv_linked(struct rv_task *t)
{
    return rv_load_relaxed(&t->linked) == RV_LINK_IN;
}
static inline bool rv_was_linked(struct rv_task *t)
{
    return rv_load_relaxed(&t->linked) != RV_LINK_NEVER;
}
/* A build for a benchmark alone: every task is NORMAL and nothing asks for classes, so that what
 * they cost can be measured. */
#ifdef RV_ONE_CLASS
enum { RV_MANY_CLASSES = 0 };
#else
enum { RV_MANY_CLASSES = 1 };
#endif
static inline unsigned rv_cls(const struct rv_task *t)
{
    return RV_MANY_CLASSES ? rv_load_relaxed(&t->kind) & 15 : REEVE_NORMAL;
}
/* As an index, RV_LOW .. RV_URGENT. */
static inline size_t rv_cls_index(const struct rv_task *t)
{
    return (size_t)rv_cls(t) - 1;
}
static inline uint8_t rv_stack_class_of(const struct rv_task *t)
{
    return rv_load_relaxed(&t->kind) >> 4;
}
static inline void rv_set_kind(struct rv_task *t, unsigned cls, unsigned stack_class)
{
    rv_store_relaxed(&t->kind, (uint8_t)(cls | stack_class << 4));
}
static inline uint32_t rv_task_gen(struct rv_task *t)
{
    return (uint32_t)(rv_load_relaxed(&t->ctl) >> 32);
}

#endif
