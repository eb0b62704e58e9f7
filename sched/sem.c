/* SPDX-License-Identifier: MIT */
/*
 * sem.c -- a counting semaphore that hands its permits over.
 *
 *     state   63 .. 1  permits    0  somebody waits
 *
 *     n -> n - 1         [reeve_sem_wait]   one compare-and-swap
 *     n -> n + 1         [reeve_sem_post]   the same, if nobody waits
 *     0 -> 0, waiting    [wait_in_line]     under the lock
 *     waiting -> 0       [give, wait_in_line, when the last has gone]   under the lock
 *
 * (1) Who waits found no permit, and as long as anybody waits none is counted: a posted one goes to
 *     the first in line. So nobody can take a permit that a waiter was called for, and a waiter is
 *     called once.
 * (2) The bit is set and cleared under the lock, and while it is set nobody else changes the state.
 *
 * Threads: wait - tasks; post - anyone.
 */
#include "sched/scope.h"
#include "sched/sync.h"

#define WAITING 1u
#define PERMIT 2u

struct RV_OVERLAY sem {
    RV_ATOMIC(uint64_t) state;
    struct rv_lock lock;
    uint32_t max; /* 0: none */
    struct rv_waitq q;
};
_Static_assert(sizeof(struct sem) <= sizeof(struct reeve_sem), "it must fit");

int reeve_sem_init(struct reeve_sem *sem, uint32_t value, uint32_t max)
{
    if (max == 0 || value > max)
        return -EINVAL;
    struct sem *s = (struct sem *)sem;
    rv_store_relaxed(&s->state, (uint64_t)value * PERMIT);
    rv_lock_init(&s->lock);
    s->max = max;
    s->q.first = NULL;
    return 0;
}

/* False: there was none. *seen: the state. */
static inline bool take(struct sem *s, uint64_t *seen)
{
    while (*seen >= PERMIT)
        if (rv_cas(&s->state, seen, *seen - PERMIT)) /* acquires; pairs with reeve_sem_post() */
            return true;
    return false;
}

static int wait_in_line(struct rv_worker *w, struct sem *s, reeve_time until)
{
    int64_t end;
    struct rv_waiter me;
    int r = rv_wait_bound(w, until, &end);
    if (r < 0)
        return r;
    rv_lock_acquire(&s->lock);
    uint64_t seen = rv_load_relaxed(&s->state);
    do {
        if (take(s, &seen)) {
            rv_lock_release(&s->lock);
            return 0;
        }
    } while (!rv_cas(&s->state, &seen, (uint64_t)WAITING));
    rv_waiter_begin(w, &me);
    rv_waitq_add(&s->q, &me);
    rv_lock_release(&s->lock);

    int why = rv_wait_park(w, w->cur, end);
    if (why == RV_WOKEN)
        return 0;
    rv_lock_acquire(&s->lock);
    if (!me.granted) {
        r = rv_wait_error(why);
        rv_waitq_remove(&s->q, &me);
        if (s->q.first == NULL)
            rv_store_relaxed(&s->state, (uint64_t)0);
    }
    rv_lock_release(&s->lock);
    return r;
}

int reeve_sem_wait(struct reeve_sem *sem, reeve_time until)
{
    struct rv_worker *w = rv_in_task("reeve_sem_wait");
    struct sem *s = (struct sem *)sem;
    uint64_t seen = rv_load_relaxed(&s->state);
    return __builtin_expect(take(s, &seen), 1) ? 0 : wait_in_line(w, s, until);
}

/* Somebody seems to wait: the permit is for the first. False: nobody does any more. */
static bool give(struct sem *s)
{
    rv_lock_acquire(&s->lock);
    struct rv_waiter *first = rv_waitq_pop(&s->q);
    if (first == NULL) {
        rv_lock_release(&s->lock);
        return false;
    }
    RV_ASSERT(rv_load_relaxed(&s->state) == WAITING);
    struct rv_wake wake = rv_waiter_grant(first);
    if (s->q.first == NULL)
        rv_store_relaxed(&s->state, (uint64_t)0);
    rv_lock_release(&s->lock);
    rv_wake(wake);
    return true;
}

int reeve_sem_post(struct reeve_sem *sem)
{
    struct sem *s = (struct sem *)sem;
    uint64_t seen = rv_load_relaxed(&s->state);
    for (;;) {
        if (seen & WAITING) {
            if (give(s))
                return 0;
            seen = rv_load_relaxed(&s->state);
            continue;
        }
        if (s->max != 0 && seen / PERMIT >= s->max)
            return -EINVAL;
        if (rv_cas(&s->state, &seen, seen + PERMIT)) /* releases; pairs with take() */
            return 0;
    }
}
