/* SPDX-License-Identifier: MIT */
/*
 * sync.h -- what mutex, rwlock, cond, sem, once, barrier and wait group have in common.
 *
 * Each of them is one word that says everything as long as nobody waits, and a queue (waitq.h)
 * under a lock beside it. A bit of the word says that there is a queue; as long as it is set, what
 * changes the word in a way that waiters care about takes the lock first. So:
 *
 * (1) No wake-up is lost: a waiter sets the bit by a compare-and-swap that fails if there is
 *     something to be had, and who gives cannot pass by the bit.
 * (2) Nobody touches the object after the step that lets the last waiter go on: it may be gone.
 * (3) Except on a mutex, a wait that ends by RV_WOKEN was granted: the waiter needs no look.
 */
#ifndef RV_SCHED_SYNC_H
#define RV_SCHED_SYNC_H

#include <reeve/sync.h>

#include "mem/lock.h"
#include "sched/waitq.h"

/* The structs of sync.h are seen through others here; tell the compiler. */
#define RV_OVERLAY __attribute__((may_alias))

/* How many are let go under one hold of a lock. */
enum { RV_WAKES_MAX = 32 };

/* ---- who holds a lock ---- */

/* A task as a lock's owner: its descriptor's address, which tells the tasks of two runtimes apart,
 * its own class, less one, and the last ten bits of its generation; the rest is the lock's.
 *
 *     63 .. 54    53 .. 48   47 .. 6        5, 4    3 .. 0
 *     generation  the lock   address / 64   class   the lock  */
#define RV_WHO_GEN ((uintptr_t)1023 << 54)
#define RV_WHO_ADDRESS (((uintptr_t)1 << 48) - 64)
#define RV_WHO (RV_WHO_GEN | RV_WHO_ADDRESS)
#define RV_WHO_CLASS_SHIFT 4
#define RV_WHO_CLASS ((uintptr_t)3 << RV_WHO_CLASS_SHIFT)

static inline uintptr_t rv_who(struct rv_task *t)
{
    RV_ASSERT(((uintptr_t)t & ~RV_WHO_ADDRESS) == 0);
    /* The generation is the upper half of ctl, so its last bits are 32 .. 41. */
    return (uintptr_t)t | (uintptr_t)((rv_cls(t) - 1) & 3) << RV_WHO_CLASS_SHIFT |
           ((uintptr_t)rv_load_relaxed(&t->ctl) << 22 & RV_WHO_GEN);
}

static inline bool rv_same(uintptr_t word, uintptr_t who)
{
    return ((word ^ who) & RV_WHO) == 0;
}

/* ---- waiting and waking ---- */

/* A wait is about to begin. 0: until *ret_end; or the error that it ends with at once. */
static inline int rv_wait_bound(struct rv_worker *w, reeve_time until, int64_t *ret_end)
{
    int r = rv_wait_check(w->sched, w->cur);
    if (r < 0)
        return r;
    *ret_end = rv_deadline(w->cur, until);
    return *ret_end <= w->now ? -ETIMEDOUT : 0;
}

/* What a wait that ended for this reason, with nothing granted, returns. */
static inline int rv_wait_error(int why)
{
    RV_ASSERT(why == RV_TIMED_OUT || why == RV_CANCELLED);
    return why == RV_TIMED_OUT ? -ETIMEDOUT : -ECANCELED;
}

/* Takes a waiter out of whatever circle it is in, but never the last one out of a queue. */
static inline void rv_waiter_unlink(struct rv_waiter *n)
{
    n->next->prev = n->prev;
    n->prev->next = n->next;
}

/* Ends these waits. The worker's slot is for the one who was woken last, and it runs first: so the
 * first in line is woken last. */
static inline void rv_wake_all(const struct rv_wake *wakes, int n)
{
    for (int i = 1; i < n; i++)
        rv_wake(wakes[i]);
    if (n > 0)
        rv_wake(wakes[0]);
}

/* ---- gates: where tasks wait until all of them are let go at once ---- */

/* {0} is a gate. Who waits is let go when `round` is no longer what it was. */
struct rv_gate {
    struct rv_lock lock;
    uint32_t round;
    struct rv_waitq q;
};

struct rv_gate_waiter {
    struct rv_waiter w;
    uint32_t round;
    int result;
    bool let_go; /* in time, although perhaps not yet with a result */
};

/* Waits. The lock is held and comes back released. What rv_gate_open() was given; or -ETIMEDOUT or
 * -ECANCELED, and then the lock is held, for the caller to put right what it has changed. A wait
 * that ended so, while the gate was being opened, has let_go set. */
int rv_gate_wait(struct rv_gate *gate, struct rv_worker *w, struct rv_gate_waiter *me, int64_t end);
/* Lets all who wait go, with a result >= 0 or an error. The lock is held and comes back released.
 * */
void rv_gate_open(struct rv_gate *gate, int result);
/* Moves all who wait into a circle of their own, of which `end` is the last. The lock is held.
 * Those who leave it meanwhile unlink themselves. */
void rv_gate_detach(struct rv_gate *gate, struct rv_waiter *end);

/* ---- the mutex, as the condition sees it ---- */

struct RV_OVERLAY rv_mutex {
    RV_ATOMIC(uintptr_t) word;
    uintptr_t queue; /* guarded by a lock of a table, see mutex.c */
};

/* Who waits for a mutex, or for a signal and then for a mutex. */
struct rv_locker {
    _Alignas(16) struct rv_waiter w;
    uintptr_t who;
    struct rv_mutex *mutex;
    unsigned cls;   /* 0 .. 3: in which its owner is to run */
    bool woken;     /* it was called to look at the lock; under the lock of the mutex's queue */
    bool moved;     /* it is in the mutex's queue, or was; under the condition's lock */
    uint32_t round; /* the condition's, when it came */
};

static inline struct rv_mutex *rv_mutex_of(struct reeve_mutex *mutex)
{
    return (struct rv_mutex *)mutex;
}

static inline bool rv_mutex_is_held_by(struct rv_mutex *m, uintptr_t who)
{
    /* Acquires: who finds itself there was handed the lock; pairs with the release in hand_over().
     * */
    return rv_same(rv_load_acquire(&m->word), who);
}

/* In a child of fork: the table of locks is free. */
void rv_mutex_forked(void);
/* Adds a task whose wait is armed to those who wait for its mutex. Returns whom to wake: nobody
 * (sched NULL), or this one, if the mutex is free. */
struct rv_wake rv_mutex_adopt(struct rv_locker *n);
/* The wait of a task that is in the mutex's queue has ended, and not for good: waits on until it
 * has the mutex. why: RV_WOKEN; or what ended it, and then it leaves. 0, -ETIMEDOUT or -ECANCELED.
 * */
int rv_mutex_wait(struct rv_worker *w, struct rv_locker *n, int why, int64_t end);

#endif
