/* SPDX-License-Identifier: MIT */
/*
 * chan.c -- channels: a bounded ring with a lock at each end, and who waits at them.
 *
 *              in.pos                      out.pos
 *     put ->   [in.lock]  slots ...  ...   [out.lock]   -> take
 *              in.waiting: receivers       out.waiting: senders
 *
 * Senders meet only each other at the one end, receivers at the other (the two locks of Michael and
 * Scott's queue, PODC 1996, on a ring). Each end remembers where it last saw the other, and looks
 * again only when that makes the ring seem full or empty: so a stream of elements moves the ends'
 * cache lines between CPUs once for many elements.
 *
 * Who waits is queued at the end that will serve him: a receiver at `in`, where the next sender
 * comes by anyway, and a sender at `out`. So an operation that finds nobody waiting takes one lock,
 * and so does handing an element to a receiver who waits.
 *
 * (1) in.pos changes under in.lock only, out.pos under out.lock only, and both only grow:
 *     out.pos <= in.pos <= out.pos + cap. The slots between them are full and belong to `out`, the
 *     others to `in`. A pos is stored after its slot was used; the other end reads it before.
 * (2) With in.lock free: if a receiver waits, the ring is empty. A receiver queues under in.lock,
 *     after it has seen out.pos == in.pos: in.pos stands still, so out.pos does. Who puts looks at
 *     the queue first, under the same lock, and puts nothing into the ring while somebody waits.
 * (3) With out.lock free: if a sender waits, the ring is full. A sender queues under out.lock,
 *     after it has seen in.pos == out.pos + cap: out.pos stands still, so in.pos does. Who takes
 *     while somebody waits holds both locks, and fills the slot that it has emptied from the queue.
 * (4) So no wake-up is lost: the last look and the queueing are under the lock under which the next
 *     one who could serve looks at the queue. And nobody overtakes who waits.
 * (5) An element is copied under a lock, exactly when a pos changes or a waiter is served. A wait
 *     ends once, by its wait word: it is served by whoever claims it first, or it ends by itself
 *     and leaves the queue. So nothing is lost, and nothing done twice.
 * (6) closed changes under both locks, once, and the close then empties both queues. With it seen
 *     or unseen under either lock everything above holds: nobody queues after it, by (2) there is
 *     nothing to drain where receivers wait, and what senders that wait have brought was not sent.
 * (7) Who fails to claim a wait throws its record out of the queue, and takes the next. Records
 *     that cannot be claimed any more do not count in (2) and (3).
 * (8) The release of the last lock is the last that anybody does to a channel, and destroy takes
 *     both; who was served does not come back to it. So who received the answer that it made the
 *     channel for may destroy it at once.
 * (9) Who was served goes on only when its server has done with it, the wake included: else its
 *     runtime could end with it, before a server elsewhere has told a worker of that to wake up.
 *     A server of the same runtime lets go just before it makes the task ready.
 *
 * Without slots (cap 0) both queues are at in.lock, and either is empty, or holds only what cannot
 * be claimed or belongs to the same select as all of the other.
 *
 * A ring with a sequence number per slot (Vyukov's) needs no lock to pass an element, but as many
 * locked instructions at each end, two: the second is the fence before the look for who waits. And
 * there "empty" and "full" are guesses while somebody is half done.
 *
 * Threads: any; what waits - tasks.
 */
#include "sched/chan.h"

#include <errno.h>

#include "mem/alloc.h"
#include "sched/dispatch.h"
#include "sched/pick.h"

enum { YIELD_EVERY = 256 };

/* ---- the ends of a wait ---- */

/* The first who waits and can still be served: it is the caller's, until rv_chan_wake(). */
static inline struct rv_chan_waiter *next_waiter(struct rv_waitq *q)
{
    struct rv_waiter *n;
    while ((n = rv_waitq_pop(q)) != NULL) {
        struct rv_chan_waiter *it = (struct rv_chan_waiter *)n;
        n->granted = true;
        unsigned was = rv_wait_claim(n->sched, n->token, RV_WOKEN);
        if (__builtin_expect(was == RV_WW_IDLE, 0))
            continue;
        it->choice->was = was;
        it->choice->won = it->index;
        return it;
    }
    return NULL;
}

void rv_chan_withdraw(struct reeve_chan *c, bool sends, struct rv_chan_waiter *me)
{
    struct rv_lock *lock = rv_chan_guard(c, sends);
    rv_lock_acquire(lock);
    if (!me->w.granted)
        rv_waitq_remove(rv_chan_queue(c, sends), &me->w);
    rv_lock_release(lock);
}

/* ---- under the locks ---- */

static inline void copy(const struct reeve_chan *c, void *to, const void *from)
{
    if (c->elem_bytes == sizeof(uint64_t))
        memcpy(to, from, sizeof(uint64_t));
    else if (c->elem_bytes != 0)
        memcpy(to, from, c->elem_bytes);
}

/* Into the slot at in.pos, which is free. */
static inline void fill(struct reeve_chan *c, const void *from)
{
    uint64_t pos = rv_load_relaxed(&c->in.pos);
    copy(c, c->slots + c->in.at * c->elem_bytes, from);
    c->in.at = c->in.at + 1 == c->cap ? 0 : c->in.at + 1;
    rv_store_release(&c->in.pos, pos + 1); /* publishes the slot; pairs with is_empty() */
}

/* Out of the slot at out.pos, which is full. */
static inline void drain(struct reeve_chan *c, void *to)
{
    uint64_t pos = rv_load_relaxed(&c->out.pos);
    if (to)
        copy(c, to, c->slots + c->out.at * c->elem_bytes);
    c->out.at = c->out.at + 1 == c->cap ? 0 : c->out.at + 1;
    rv_store_release(&c->out.pos, pos + 1); /* gives the slot back; pairs with is_full() */
}

/* At `in`. */
static inline bool is_full(struct reeve_chan *c)
{
    uint64_t pos = rv_load_relaxed(&c->in.pos);
    if (pos - rv_load_relaxed(&c->in.seen) < c->cap)
        return false;
    uint64_t seen = rv_load_acquire(&c->out.pos); /* pairs with drain() */
    rv_store_relaxed(&c->in.seen, seen);
    return pos - seen == c->cap;
}

/* At `out`. */
static inline bool is_empty(struct reeve_chan *c)
{
    uint64_t pos = rv_load_relaxed(&c->out.pos);
    if (pos != rv_load_relaxed(&c->out.seen))
        return false;
    uint64_t seen = rv_load_acquire(&c->in.pos); /* pairs with fill() */
    rv_store_relaxed(&c->out.seen, seen);
    return pos == seen;
}

/* Under in.lock. */
static inline int put(struct reeve_chan *c, const void *from, struct rv_chan_waiter **ret)
{
    struct rv_chan_waiter *n = *ret = NULL;
    if (__builtin_expect(c->closed, 0))
        return -EPIPE;
    if (c->in.waiting.first && (n = *ret = next_waiter(&c->in.waiting)) != NULL) {
        RV_ASSERT(rv_load_relaxed(&c->in.pos) == rv_load_relaxed(&c->out.pos));
        if (n->to)
            copy(c, n->to, from);
        n->result = 0;
    } else if (c->cap == 0 || is_full(c)) {
        return -EAGAIN;
    } else {
        fill(c, from);
    }
    c->in.ops++;
    return 0;
}

/* Under both locks: takes from the ring and lets the first sender who waits fill the gap. */
static int take_and_refill(struct reeve_chan *c, void *to, struct rv_chan_waiter **ret)
{
    *ret = NULL;
    if (is_empty(c))
        return -EAGAIN;
    drain(c, to);
    c->out.ops++;
    struct rv_chan_waiter *n = *ret = next_waiter(&c->out.waiting);
    if (n == NULL)
        return 0;
    RV_ASSERT(rv_load_relaxed(&c->in.pos) - rv_load_relaxed(&c->out.pos) == c->cap - 1);
    fill(c, n->from);
    n->result = 0;
    return 0;
}

/* Under in.lock, without slots. */
static inline int meet(struct reeve_chan *c, void *to, struct rv_chan_waiter **ret)
{
    struct rv_chan_waiter *n = *ret = next_waiter(&c->out.waiting);
    if (n == NULL)
        return c->closed ? -EPIPE : -EAGAIN;
    if (to)
        copy(c, to, n->from);
    n->result = 0;
    c->in.ops++;
    return 0;
}

int rv_chan_put(struct reeve_chan *c, const void *from, struct rv_chan_waiter **ret)
{
    return put(c, from, ret);
}

int rv_chan_take(struct reeve_chan *c, void *to, struct rv_chan_waiter **ret)
{
    if (c->cap == 0)
        return meet(c, to, ret);
    int r = take_and_refill(c, to, ret);
    return r == -EAGAIN && c->closed ? -EPIPE : r;
}

/* ---- send and receive ---- */

/* Now and then, after an operation that did not wait: a pass boundary if this pass has lasted long
 * enough. */
static __attribute__((noinline)) int breathe(reeve_time until)
{
    struct rv_worker *w = until < 0 ? NULL : rv_worker_self();
    if (w == NULL || w->cur == NULL)
        return 0;
    uint64_t limit = w->sched->pass_tsc;
    if (limit && rv_tsc() - w->pass_tsc > limit)
        w->budget = 0;
    if (rv_pass_over(w))
        rv_yield(w);
    return 0;
}

static inline int done(uint32_t ops, reeve_time until)
{
    return __builtin_expect(ops % YIELD_EVERY == 0, 0) ? breathe(until) : 0;
}

/* With the guard of the queue locked, which this releases: queues the running task and waits. */
static int wait_for(struct reeve_chan *c, bool sends, struct rv_chan_waiter *me, reeve_time until,
                    const char *call)
{
    struct rv_lock *lock = rv_chan_guard(c, sends);
    if (until < 0) {
        rv_lock_release(lock);
        return -ETIMEDOUT;
    }
    struct rv_worker *w = rv_in_task(call);
    struct rv_task *t = w->cur;
    int r = rv_wait_check(w->sched, t);
    if (r < 0) {
        rv_lock_release(lock);
        return r;
    }
    struct rv_choice choice;
    rv_choice_init(&choice);
    me->choice = &choice;
    me->index = 0;
    rv_waiter_begin(w, &me->w);
    rv_waitq_add(rv_chan_queue(c, sends), &me->w);
    rv_lock_release(lock);
    int why = rv_wait_park(w, t, rv_deadline(t, until));
    if (__builtin_expect(why != RV_WOKEN, 0)) {
        rv_chan_withdraw(c, sends, me);
        return rv_chan_error(why);
    }
    rv_choice_await(&choice);
    return me->result;
}

static __attribute__((noinline)) int wait_to_send(struct reeve_chan *c, const void *elem,
                                                  reeve_time until)
{
    struct rv_chan_waiter me;
    me.from = elem;
    return wait_for(c, true, &me, until, "reeve_chan_send");
}

static __attribute__((noinline)) int wait_to_recv(struct reeve_chan *c, void *elem,
                                                  reeve_time until)
{
    struct rv_chan_waiter me;
    me.to = elem;
    return wait_for(c, false, &me, until, "reeve_chan_recv");
}

/* The ring was full. True: it still is, and `out` is locked for the sender to queue. */
static __attribute__((noinline)) bool stays_full(struct reeve_chan *c)
{
    rv_lock_acquire(&c->out.lock);
    /* If it is full then it stays full; the load pairs with fill(), but nothing is read. */
    if (!c->closed && rv_load_acquire(&c->in.pos) - rv_load_relaxed(&c->out.pos) == c->cap)
        return true;
    rv_lock_release(&c->out.lock);
    return false;
}

int reeve_chan_send(reeve_chan *c, const void *elem, reeve_time until)
{
    if (elem == NULL && c->elem_bytes != 0)
        return -EINVAL;
    for (;;) {
        struct rv_chan_waiter *served;
        rv_lock_acquire(&c->in.lock);
        int r = put(c, elem, &served);
        uint32_t ops = c->in.ops;
        if (r == -EAGAIN && c->cap == 0)
            return wait_to_send(c, elem, until);
        rv_lock_release(&c->in.lock);
        if (r == 0) {
            if (served)
                rv_chan_wake(served);
            return done(ops, until);
        }
        if (r == -EPIPE)
            return r;
        if (until < 0)
            return -ETIMEDOUT;
        if (stays_full(c))
            return wait_to_send(c, elem, until);
    }
}

static __attribute__((noinline)) int recv_unbuffered(struct reeve_chan *c, void *elem,
                                                     reeve_time until)
{
    struct rv_chan_waiter *served;
    rv_lock_acquire(&c->in.lock);
    int r = meet(c, elem, &served);
    uint32_t ops = c->in.ops;
    if (r == -EAGAIN)
        return wait_to_recv(c, elem, until);
    rv_lock_release(&c->in.lock);
    if (r < 0)
        return r;
    rv_chan_wake(served);
    return done(ops, until);
}

/* At `out`, locked, where senders wait. */
static __attribute__((noinline)) int take_from_full(struct reeve_chan *c, void *elem)
{
    struct rv_chan_waiter *served;
    rv_lock_acquire(&c->in.lock);
    int r = take_and_refill(c, elem, &served);
    rv_lock_release(&c->in.lock);
    rv_lock_release(&c->out.lock);
    if (served)
        rv_chan_wake(served);
    return r;
}

/* The ring seemed empty. -EAGAIN: it is not; otherwise the call's result. */
static __attribute__((noinline)) int recv_empty(struct reeve_chan *c, void *elem, reeve_time until)
{
    rv_lock_acquire(&c->in.lock);
    /* If it is empty then it stays empty; pairs with drain(), but nothing is read. */
    bool empty = rv_load_relaxed(&c->in.pos) == rv_load_acquire(&c->out.pos);
    if (empty && !c->closed)
        return wait_to_recv(c, elem, until);
    rv_lock_release(&c->in.lock);
    return empty ? -EPIPE : -EAGAIN;
}

/* Without a lock: nothing to take, as it seems, so that `out` is not worth locking. */
static inline bool seems_empty(struct reeve_chan *c)
{
    uint64_t pos = rv_load_relaxed(&c->out.pos);
    return pos == rv_load_relaxed(&c->out.seen) && pos == rv_load_relaxed(&c->in.pos);
}

static __attribute__((noinline)) int recv_buffered(struct reeve_chan *c, void *elem,
                                                   reeve_time until)
{
    for (;;) {
        int r = -EAGAIN;
        if (!seems_empty(c)) {
            rv_lock_acquire(&c->out.lock);
            if (__builtin_expect(c->out.waiting.first != NULL, 0)) {
                r = take_from_full(c, elem);
            } else if (!is_empty(c)) {
                drain(c, elem);
                uint32_t ops = ++c->out.ops;
                rv_lock_release(&c->out.lock);
                return done(ops, until);
            } else {
                rv_lock_release(&c->out.lock);
            }
        }
        if (r == -EAGAIN)
            r = recv_empty(c, elem, until);
        if (r != -EAGAIN)
            return r;
    }
}

int reeve_chan_recv(reeve_chan *c, void *elem, reeve_time until)
{
    return c->cap ? recv_buffered(c, elem, until) : recv_unbuffered(c, elem, until);
}

/* ---- from create to destroy ---- */

reeve_chan *reeve_chan_create(size_t elem_bytes, size_t capacity)
{
    size_t bytes;
    if (__builtin_mul_overflow(elem_bytes, capacity, &bytes) ||
        __builtin_add_overflow(bytes, sizeof(struct reeve_chan), &bytes) || bytes > PTRDIFF_MAX)
        return NULL;
    struct reeve_chan *c = rv_alloc_aligned(bytes, RV_CACHE_LINE);
    if (c == NULL)
        return NULL;
    memset(c, 0, sizeof *c);
    c->elem_bytes = elem_bytes;
    c->cap = capacity;
    c->slots = (unsigned char *)(c + 1);
    return c;
}

/* Adds all who wait in a queue to a list by next, with -EPIPE; returns where the list goes on. */
static struct rv_waiter **turn_away(struct rv_waitq *q, struct rv_waiter **end)
{
    struct rv_chan_waiter *it;
    while ((it = next_waiter(q)) != NULL) {
        it->result = -EPIPE;
        *end = &it->w;
        end = &it->w.next;
    }
    return end;
}

void reeve_chan_close(reeve_chan *c)
{
    struct rv_waiter *list, *n;
    rv_chan_lock(c);
    c->closed = true;
    *turn_away(&c->out.waiting, turn_away(&c->in.waiting, &list)) = NULL;
    rv_chan_unlock(c);
    while ((n = list) != NULL) {
        list = n->next; /* it may be gone once it is woken */
        rv_chan_wake((struct rv_chan_waiter *)n);
    }
}

void reeve_chan_destroy(reeve_chan *c)
{
    if (c == NULL)
        return;
    rv_chan_lock(c);
    if (c->in.waiting.first || c->out.waiting.first)
        rv_die("reeve_chan_destroy: a task still waits on the channel; close it and join them.");
    rv_chan_unlock(c);
    rv_free(c);
}
