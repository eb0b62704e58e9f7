/* SPDX-License-Identifier: MIT */
/*
 * watch.c -- the watch cell: a sequence lock, and who waits for the next value.
 *
 *     seq    2 * version      the words are that version's value
 *            2 * version + 1  the next one is being written, under the lock
 *
 * (1) Whoever writes holds the lock, and makes seq odd before and even after it. A reader takes the
 *     words between two reads of the same even seq; the words are atomics, so to read one that is
 *     being written is no race, only useless (Boehm, "Can seqlocks get along with programming
 *     language memory models?", MSPC 2012). A reader who fails often takes the lock: the writer may
 *     have been preempted.
 * (2) A waiter queues under the lock, after it has seen there that the latest version is the one it
 *     knows: so the next set, which needs the lock, finds it in the queue. No update is lost.
 * (3) The queue is in order of the version known: versions grow, and who knows a newer one came
 *     later. A set takes from the front all who know an older one, and wakes them after the unlock.
 *     A record that was taken stays until its waker says that it is done: the wait may have ended
 *     by a deadline, and the waiter's runtime must not end before the wake.
 * (4) A woken waiter copies the value itself, after the lock: what it sees is whole and never older
 *     than what it was woken for.
 * (5) closed is written under the lock, once; nobody queues after it. It is looked at after the
 *     version: who was not closed out has seen the last value.
 *
 * Threads: any; wait, where it has to - tasks.
 */
#include <reeve/watch.h>

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "mem/alloc.h"
#include "mem/lock.h"
#include "sched/chan.h"

enum { TRIES = 16 };

struct reeve_watch {
    size_t bytes;
    RV_ATOMIC(uint64_t) seq;
    struct rv_lock lock;
    bool closed;
    struct rv_waitq waiting;
    RV_ATOMIC(uint64_t) words[]; /* the value */
};

struct waiter {
    struct rv_waiter w; /* first */
    uint64_t known;     /* the version it has */
    struct rv_lock served;
};

/* ---- the value ---- */

static void write_value(struct reeve_watch *c, const unsigned char *from)
{
    for (size_t done = 0, i = 0; done < c->bytes; done += sizeof(uint64_t), i++) {
        uint64_t word = 0;
        size_t left = c->bytes - done;
        memcpy(&word, from + done, left < sizeof word ? left : sizeof word);
        rv_store_release(&c->words[i], word); /* after the odd seq; pairs with read_value() */
    }
}

/* Acquires each word: who sees one of a later version sees its odd seq too. */
static void read_value(struct reeve_watch *c, unsigned char *to)
{
    for (size_t done = 0, i = 0; to && done < c->bytes; done += sizeof(uint64_t), i++) {
        uint64_t word = rv_load_acquire(&c->words[i]); /* pairs with write_value() */
        size_t left = c->bytes - done;
        memcpy(to + done, &word, left < sizeof word ? left : sizeof word);
    }
}

/* The latest value into a place of the caller's own; its version. */
static uint64_t read_latest(struct reeve_watch *c, void *to)
{
    for (int i = 0; i < TRIES; i++) {
        uint64_t seq = rv_load_acquire(&c->seq); /* pairs with the last store of reeve_watch_set */
        if (seq & 1) {
            rv_cpu_relax();
            continue;
        }
        read_value(c, to);
        if (rv_load_relaxed(&c->seq) == seq)
            return seq / 2;
    }
    rv_lock_acquire(&c->lock);
    uint64_t seq = rv_load_relaxed(&c->seq);
    RV_ASSERT(!(seq & 1));
    read_value(c, to);
    rv_lock_release(&c->lock);
    return seq / 2;
}

uint64_t reeve_watch_get(reeve_watch *c, void *value)
{
    return read_latest(c, value);
}

/* ---- set and close: wake those who know less ---- */

/* It keeps its own runtime until `served` is released. */
static void wake_served(struct waiter *it)
{
    struct rv_worker *self = rv_worker_self();
    struct rv_sched *s = it->w.sched;
    rv_wait_fire(s, self && self->sched == s ? self : NULL, it->w.token, RV_WOKEN, UINT32_MAX);
    rv_lock_release(&it->served); /* it may be gone now; pairs with wait_for_news() */
}

/* Under the lock, which this releases: wakes whoever waits and does not know the version;
 * UINT64_MAX: everybody. */
static void wake_older(struct reeve_watch *c, uint64_t version)
{
    struct rv_waiter *list, **end = &list, *n;
    while ((n = c->waiting.first) != NULL && ((struct waiter *)n)->known < version) {
        rv_waitq_pop(&c->waiting)->granted = true;
        *end = n;
        end = &n->next;
    }
    *end = NULL;
    rv_lock_release(&c->lock);
    while ((n = list) != NULL) {
        list = n->next;
        wake_served((struct waiter *)n);
    }
}

int reeve_watch_set(reeve_watch *c, const void *value)
{
    if (value == NULL && c->bytes != 0)
        return -EINVAL;
    rv_lock_acquire(&c->lock);
    if (c->closed) {
        rv_lock_release(&c->lock);
        return -EPIPE;
    }
    uint64_t seq = rv_load_relaxed(&c->seq);
    rv_store_relaxed(&c->seq, seq + 1);
    write_value(c, value);
    rv_store_release(&c->seq, seq + 2); /* publishes the words; pairs with read_latest() */
    wake_older(c, seq / 2 + 1);
    return 0;
}

void reeve_watch_close(reeve_watch *c)
{
    rv_lock_acquire(&c->lock);
    c->closed = true;
    wake_older(c, UINT64_MAX);
}

/* ---- wait ---- */

/* Under the lock. 1: the running task has to wait. 0: there is news. Or what the call returns. */
static int may_wait(struct reeve_watch *c, uint64_t known, reeve_time until)
{
    if (rv_load_relaxed(&c->seq) / 2 != known)
        return 0;
    if (c->closed)
        return -EPIPE;
    if (until < 0)
        return -ETIMEDOUT;
    struct rv_worker *w = rv_in_task("reeve_watch_wait");
    int r = rv_wait_check(w->sched, w->cur);
    return r < 0 ? r : 1;
}

/* Queues the running task until the next set or close, unless there was one. 0: look again. */
static int wait_for_news(struct reeve_watch *c, uint64_t known, reeve_time until)
{
    struct waiter me = { .known = known };
    rv_lock_init_held(&me.served);
    rv_lock_acquire(&c->lock);
    int r = may_wait(c, known, until);
    if (r <= 0) {
        rv_lock_release(&c->lock);
        return r;
    }
    struct rv_worker *w = rv_worker_self();
    rv_waiter_begin(w, &me.w);
    rv_waitq_add(&c->waiting, &me.w);
    rv_lock_release(&c->lock);
    int why = rv_wait_park(w, w->cur, rv_deadline(w->cur, until));
    bool granted = why == RV_WOKEN;
    if (!granted) {
        rv_lock_acquire(&c->lock);
        granted = me.w.granted;
        if (!granted)
            rv_waitq_remove(&c->waiting, &me.w);
        rv_lock_release(&c->lock);
    }
    if (!granted)
        return rv_chan_error(why);
    rv_lock_acquire(&me.served); /* pairs with wake_older() */
    return 0;
}

int reeve_watch_wait(reeve_watch *c, void *value, uint64_t *version, reeve_time until)
{
    for (;;) {
        /* Looked at first, so that value is touched only if there is something new. A version
         * between two values counts as the older one. */
        if (rv_load_acquire(&c->seq) / 2 != *version) {
            *version = read_latest(c, value);
            return 0;
        }
        int r = wait_for_news(c, *version, until);
        if (r < 0)
            return r;
    }
}

/* ---- from create to destroy ---- */

reeve_watch *reeve_watch_create(size_t bytes)
{
    size_t room;
    if (__builtin_add_overflow(bytes, sizeof(struct reeve_watch) + sizeof(uint64_t), &room) ||
        room > PTRDIFF_MAX)
        return NULL;
    struct reeve_watch *c = rv_alloc_zero(room);
    if (c)
        c->bytes = bytes;
    return c;
}

void reeve_watch_destroy(reeve_watch *c)
{
    if (c == NULL)
        return;
    rv_lock_acquire(&c->lock);
    if (c->waiting.first)
        rv_die("reeve_watch_destroy: a task still waits on the cell; close it and join them.");
    rv_lock_release(&c->lock);
    rv_free(c);
}
