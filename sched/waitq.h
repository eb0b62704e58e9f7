/* SPDX-License-Identifier: MIT */
/*
 * waitq.h -- a queue of tasks that wait for one thing, first come, first served.
 *
 * Everything that tasks meet on (locks, semaphores, channels) keeps one or more of these, guarded
 * by a lock of its own. The waiter's record lies on its stack:
 *
 *     struct rv_waiter me;                       waker:
 *     lock                                       lock
 *     look again; otherwise                      n = rv_waitq_pop(&q); take what it came for along
 *     rv_waiter_begin(w, &me);                   struct rv_wake wake = rv_waiter_grant(n);
 *     rv_waitq_add(&q, &me);                     unlock
 *     unlock                                     rv_wake(wake);
 *     rv_wait_park(...)
 *     lock; me.granted? else rv_waitq_remove(&q, &me); unlock
 *
 * (1) Who is in a queue has not been granted, and the other way round: both change under the lock.
 * (2) A waiter whose wait ended by its deadline or by cancellation takes the lock once more. What
 *     it was granted meanwhile is its own: a result beats a deadline.
 * (3) A granted record may be gone at the unlock, so the waker carries a copy of what it needs.
 * (4) Tasks of several runtimes may meet, and threads of none: a waiter brings its scheduler along,
 *     and a stranger who wakes it keeps that from ending meanwhile (grace.h).
 *
 * Threads: all of it under the queue's lock, except rv_wake - anyone.
 */
#ifndef RV_SCHED_WAITQ_H
#define RV_SCHED_WAITQ_H

#include "mem/die.h"
#include "sched/grace.h"
#include "sched/wait.h"

struct rv_waiter {
    struct rv_waiter *next, *prev; /* a circle */
    struct rv_sched *sched;
    uint64_t token;
    bool granted;
};

/* {0} is an empty queue. */
struct rv_waitq {
    struct rv_waiter *first;
};

/* Every one of these is woken, once. sched NULL: nobody. */
struct rv_wake {
    struct rv_sched *sched;
    uint64_t token;
    unsigned ticket; /* a stranger's; 0: the worker's own runtime */
};

/* Arms the running task's wait. The rest of the record, what it came for, is the caller's. */
static inline void rv_waiter_begin(struct rv_worker *w, struct rv_waiter *n)
{
    n->sched = w->sched;
    n->granted = false;
    n->token = rv_wait_arm(w->sched, w->cur, 0);
}

/* Adds it as the last. */
static inline void rv_waitq_add(struct rv_waitq *q, struct rv_waiter *n)
{
    RV_ASSERT(!n->granted);
    if (q->first == NULL) {
        n->next = n->prev = n;
        q->first = n;
        return;
    }
    n->next = q->first;
    n->prev = q->first->prev;
    n->prev->next = n;
    q->first->prev = n;
}

static inline void rv_waitq_remove(struct rv_waitq *q, struct rv_waiter *n)
{
    RV_ASSERT(q->first != NULL && !n->granted);
    if (n->next == n) {
        q->first = NULL;
        return;
    }
    n->next->prev = n->prev;
    n->prev->next = n->next;
    if (q->first == n)
        q->first = n->next;
}

/* Takes the first; NULL: nobody waits. */
static inline struct rv_waiter *rv_waitq_pop(struct rv_waitq *q)
{
    struct rv_waiter *n = q->first;
    if (n)
        rv_waitq_remove(q, n);
    return n;
}

/* How to wake it. */
static inline struct rv_wake rv_waiter_wake(const struct rv_waiter *n)
{
    struct rv_worker *self = rv_worker_self();
    bool ours = self && self->sched == n->sched;
    return (struct rv_wake){ n->sched, n->token, ours ? 0 : rv_grace_enter() };
}

/* What it waits for is its own from here on. */
static inline struct rv_wake rv_waiter_grant(struct rv_waiter *n)
{
    RV_ASSERT(!n->granted);
    n->granted = true;
    return rv_waiter_wake(n);
}

/* Ends the wait, if it has not ended by itself. Without the lock: it may be this worker's next. */
static inline void rv_wake(struct rv_wake wake)
{
    struct rv_worker *w = wake.ticket ? NULL : rv_worker_self();
    rv_wait_fire(wake.sched, w, wake.token, RV_WOKEN, UINT32_MAX);
    if (wake.ticket)
        rv_grace_leave(wake.ticket);
}

#endif
