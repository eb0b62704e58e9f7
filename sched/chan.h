/* SPDX-License-Identifier: MIT */
/*
 * chan.h -- the inside of a channel, for chan.c and select.c. See chan.c for the argument.
 */
#ifndef RV_SCHED_CHAN_H
#define RV_SCHED_CHAN_H

#include <reeve/chan.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "mem/die.h"
#include "mem/lock.h"
#include "mem/rv_atomic.h"
#include "sched/ready.h"
#include "sched/waitq.h"

/* One end of a channel: where elements go in, or where they come out. Everything but pos is guarded
 * by the lock; so are pos's changes. */
struct rv_end {
    struct rv_lock lock;
    uint32_t ops;            /* elements that passed this end, for the yields */
    struct rv_waitq waiting; /* who waits for what this end does; see chan.c */
    size_t at;               /* the slot of pos */
    RV_ATOMIC(uint64_t) seen; /* the other end's pos when this end last looked; it only grows */
    RV_ALIGNED_LINE RV_ATOMIC(uint64_t) pos; /* how many elements went in, or out, through slots */
};

struct reeve_chan {
    size_t elem_bytes;
    size_t cap;
    unsigned char *slots; /* cap * elem_bytes, behind this record */
    bool closed;          /* written under both locks, read under either */
    RV_ALIGNED_LINE struct rv_end in;
    RV_ALIGNED_LINE struct rv_end out;
};

/* A wait, for one thing or for one of several. It is its wait word that says how it ends: whoever
 * serves it claims it first (rv_wait_claim), and what is below is his until he lets go.
 *
 * Letting go, by `served`, is the last that he does to the other side, the wake included: until
 * then the record is there, and the runtime that it belongs to. Who was served waits for it, and
 * does not come back to the channel: that may be gone. */
struct rv_choice {
    struct rv_lock served;
    uint32_t won; /* the case */
    unsigned was; /* what the claim has found */
};

static inline void rv_choice_init(struct rv_choice *choice)
{
    rv_lock_init_held(&choice->served);
}

/* The record of a task that waits to send or to receive. The element is where the task said. */
struct rv_chan_waiter {
    struct rv_waiter w; /* first */
    union {
        const void *from;
        void *to;
    };
    struct rv_choice *choice;
    uint32_t index; /* of the case */
    int result;     /* set by who serves it */
};

/* The end that serves those who wait to send (out), or to receive (in); without slots there is but
 * one lock. */
static inline struct rv_lock *rv_chan_guard(struct reeve_chan *c, bool sends)
{
    return sends && c->cap ? &c->out.lock : &c->in.lock;
}
static inline struct rv_waitq *rv_chan_queue(struct reeve_chan *c, bool sends)
{
    return sends ? &c->out.waiting : &c->in.waiting;
}

/* Both ends. Locks are taken in the order of the channels' addresses, out before in. */
static inline void rv_chan_lock(struct reeve_chan *c)
{
    if (c->cap)
        rv_lock_acquire(&c->out.lock);
    rv_lock_acquire(&c->in.lock);
}
static inline void rv_chan_unlock(struct reeve_chan *c)
{
    bool two = c->cap != 0; /* who comes after the first release may free it, if there is but one */
    rv_lock_release(&c->in.lock);
    if (two)
        rv_lock_release(&c->out.lock);
}

/* With both ends locked: does it, or -EAGAIN (it would have to wait) or -EPIPE. *ret_served: whom
 * to wake after the unlock, or NULL; set in any case. */
int rv_chan_put(struct reeve_chan *c, const void *from, struct rv_chan_waiter **ret_served);
int rv_chan_take(struct reeve_chan *c, void *to, struct rv_chan_waiter **ret_served);

/* Without a lock: wakes who was served, and lets it go. */
static inline void rv_chan_wake(struct rv_chan_waiter *n)
{
    struct rv_choice *choice = n->choice;
    struct rv_sched *s = n->w.sched;
    struct rv_task *t = rv_task_at(s, (uint32_t)(n->w.token >> 32));
    struct rv_worker *self = rv_worker_self();
    bool asleep = choice->was == RV_WW_PARKED;
    if (asleep && self && self->sched == s) {
        /* It runs when it is made ready, not before; and this runtime does not end under us. */
        rv_lock_init(&choice->served);
        rv_ready_on(s, self, t, UINT32_MAX);
        return;
    }
    if (asleep)
        rv_ready_on(s, NULL, t, UINT32_MAX);
    rv_lock_release(&choice->served); /* pairs with rv_choice_await() */
}

/* It was served: returns when the other side has let go. */
static inline void rv_choice_await(struct rv_choice *choice)
{
    if (__builtin_expect(rv_lock_is_held(&choice->served), 0))
        rv_lock_acquire(&choice->served); /* pairs with the release in rv_chan_wake() */
}
/* Takes back a record that nobody will serve, if it is still in its queue. */
void rv_chan_withdraw(struct reeve_chan *c, bool sends, struct rv_chan_waiter *me);

/* What a wait that ended for `why` without a result returns. */
static inline int rv_chan_error(int why)
{
    return why == RV_TIMED_OUT ? -ETIMEDOUT : -ECANCELED;
}

#endif
