/* SPDX-License-Identifier: MIT */
/*
 * cond.c -- waiting for something that a mutex guards.
 *
 * Whoever is signalled needs the mutex next. If it were woken for that, all whom a broadcast wakes
 * would run at once, find the mutex taken, and wait again. So a signal moves the waiter, as it lies
 * there with its wait armed, to those who wait for its mutex: it is woken when it can have that.
 *
 *     in the condition's queue -> in the mutex's queue    [hand_to_mutex, by signal or broadcast]
 *     in the condition's queue -> in the opener's circle  [reeve_cond_broadcast; see sync.c]
 *     in either of these       -> gone                    [leave]  its wait ended by itself
 *
 * (1) A wait that ends by RV_WOKEN was woken on behalf of the mutex: the waiter was moved there.
 * (2) Who was moved, or was among those whom a broadcast found, was signalled, and says 0, however
 *     its wait ended.
 * (3) The mutex's queue lock is taken with the condition's held, never the other way round.
 * (4) `waiting` is read without the lock by who signals: nobody misses a waiter that unlocked the
 *     mutex before the signaller locked it to change what is waited for.
 *
 * Threads: wait - tasks; signal, broadcast - anyone.
 */
#include "sched/scope.h"
#include "sched/sync.h"

struct RV_OVERLAY cond {
    RV_ATOMIC(uint64_t) waiting; /* how many; changed under the gate's lock */
    struct rv_gate gate;
};
_Static_assert(sizeof(struct cond) <= sizeof(struct reeve_cond), "it must fit");

static void count(struct cond *c, int by)
{
    rv_store_relaxed(&c->waiting, rv_load_relaxed(&c->waiting) + (uint64_t)by);
}

/* Its wait has ended by itself. True: it was not signalled. */
static bool leave(struct cond *c, struct rv_locker *me)
{
    rv_lock_acquire(&c->gate.lock);
    bool signalled = me->moved;
    if (!me->moved) {
        count(c, -1);
        signalled = me->round != c->gate.round;
        if (signalled)
            rv_waiter_unlink(&me->w);
        else
            rv_waitq_remove(&c->gate.q, &me->w);
    }
    rv_lock_release(&c->gate.lock);
    return !signalled;
}

/* Locks the mutex again, cancelled or not, late or not. */
static void lock_again(struct reeve_mutex *mutex, struct rv_locker *me)
{
    struct rv_worker *w = rv_worker_self();
    struct rv_task *t = w->cur;
    if (rv_mutex_is_held_by(me->mutex, me->who))
        return;
    bool masked = rv_load_relaxed(&t->ctl) & RV_CTL_MASKED;
    if (!masked)
        rv_wait_mask(t, true);
    if (me->moved)
        RV_MUST(rv_mutex_wait(w, me, RV_WOKEN, RV_NEVER) == 0);
    else
        RV_MUST(reeve_mutex_lock(mutex, RV_NEVER) == 0);
    if (!masked)
        rv_wait_mask(t, false);
}

int reeve_cond_wait(struct reeve_cond *cond, struct reeve_mutex *mutex, reeve_time until)
{
    struct rv_worker *w = rv_in_task("reeve_cond_wait");
    struct cond *c = (struct cond *)cond;
    struct rv_task *t = w->cur;
    /* In its own class: what was lent to it on account of the mutex ends with the unlock. */
    struct rv_locker me = {
        .who = rv_who(t), .mutex = rv_mutex_of(mutex), .cls = (rv_cls(t) - 1) & 3
    };
    int64_t end;
    if (!rv_mutex_is_held_by(me.mutex, me.who))
        rv_die("reeve_cond_wait was given a mutex that the task does not hold.");
    int r = rv_wait_bound(w, until, &end);
    if (r < 0)
        return r;
    rv_lock_acquire(&c->gate.lock);
    me.round = c->gate.round;
    rv_waiter_begin(w, &me.w);
    rv_waitq_add(&c->gate.q, &me.w);
    count(c, 1);
    rv_lock_release(&c->gate.lock);
    reeve_mutex_unlock(mutex);

    int why = rv_wait_park(w, t, end);
    if (why != RV_WOKEN && leave(c, &me))
        r = rv_wait_error(why);
    lock_again(mutex, &me);
    return r;
}

/* Signals one that has just been taken out of its queue. */
static struct rv_wake hand_to_mutex(struct cond *c, struct rv_waiter *n)
{
    struct rv_locker *locker = (struct rv_locker *)n;
    RV_ASSERT(!locker->moved);
    locker->moved = true;
    count(c, -1);
    return rv_mutex_adopt(locker);
}

void reeve_cond_signal(struct reeve_cond *cond)
{
    struct cond *c = (struct cond *)cond;
    struct rv_wake wake = { 0 };
    if (rv_load_relaxed(&c->waiting) == 0)
        return;
    rv_lock_acquire(&c->gate.lock);
    struct rv_waiter *first = rv_waitq_pop(&c->gate.q);
    if (first)
        wake = hand_to_mutex(c, first);
    rv_lock_release(&c->gate.lock);
    if (wake.sched)
        rv_wake(wake);
}

void reeve_cond_broadcast(struct reeve_cond *cond)
{
    struct cond *c = (struct cond *)cond;
    struct rv_waiter last;
    if (rv_load_relaxed(&c->waiting) == 0)
        return;
    rv_lock_acquire(&c->gate.lock);
    rv_gate_detach(&c->gate, &last);
    for (;;) {
        struct rv_wake wakes[RV_WAKES_MAX];
        int n = 0;
        for (int i = 0; i < RV_WAKES_MAX && last.next != &last; i++) {
            struct rv_waiter *first = last.next;
            rv_waiter_unlink(first);
            wakes[n] = hand_to_mutex(c, first);
            n += wakes[n].sched != NULL;
        }
        bool more = last.next != &last;
        rv_lock_release(&c->gate.lock);
        rv_wake_all(wakes, n);
        if (!more)
            return;
        rv_lock_acquire(&c->gate.lock);
    }
}
