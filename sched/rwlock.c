/* SPDX-License-Identifier: MIT */
/*
 * rwlock.c -- many readers or one writer, in the order in which they come.
 *
 *     state   WRITTEN set: the rest is the writer (sync.h: rv_who)
 *             else: 63 .. 6 the number of readers
 *             QUEUED: somebody waits
 *
 *     n readers -> n + 1         [read_now]              while nobody waits
 *     free -> WRITTEN            [write_now]             the same
 *     n -> n - 1, WRITTEN -> 0   [reeve_rwlock_unlock]   the same
 *     any -> QUEUED              [wait_in_line]
 *     QUEUED -> the next ones    [let_in]                under the lock
 *
 * It is handed over: who leaves it makes the first in line, or all readers up to the next writer,
 * its holders, and then wakes them. So what a waiter was woken for nobody can take away.
 *
 * (1) While QUEUED is set only the holder of the lock changes the state.
 * (2) The first in line is one that cannot be let in: whoever changes that, by unlocking or by
 *     leaving the line, lets in who can be.
 *
 * Threads: tasks.
 */
#include "sched/scope.h"
#include "sched/sync.h"

#define WRITTEN ((uint64_t)1)
#define QUEUED ((uint64_t)2)
#define READER ((uint64_t)64)

struct RV_OVERLAY rwlock {
    RV_ATOMIC(uint64_t) state;
    struct rv_lock lock;
    struct rv_waitq q;
};
_Static_assert(sizeof(struct rwlock) <= sizeof(struct reeve_rwlock), "it must fit");

struct line {
    struct rv_waiter w;
    uint64_t who; /* 0: a reader */
};

/* A task as a writer. */
static inline uint64_t writer(struct rv_task *t)
{
    return (rv_who(t) & RV_WHO) | WRITTEN;
}

/* Both acquire and pair with the unlock that made room. *seen: the state. */
static inline bool read_now(struct rwlock *l, uint64_t *seen)
{
    while (!(*seen & (WRITTEN | QUEUED)))
        if (rv_cas(&l->state, seen, *seen + READER))
            return true;
    return false;
}

static inline bool write_now(struct rwlock *l, uint64_t *seen, uint64_t who)
{
    while (*seen == 0)
        if (rv_cas(&l->state, seen, who))
            return true;
    return false;
}

/* Lets in who can be, as many as one batch takes. True: there may be more. Under the lock, with
 * QUEUED set or nobody in line. */
static bool let_in_some(struct rwlock *l, uint64_t state, struct rv_wake *wakes, int *ret_n)
{
    int n = 0;
    state &= ~QUEUED;
    while (l->q.first && n < RV_WAKES_MAX) {
        struct line *first = (struct line *)l->q.first;
        if (state & WRITTEN || (first->who && state != 0))
            break;
        state = first->who ? first->who : state + READER;
        rv_waitq_pop(&l->q);
        wakes[n++] = rv_waiter_grant(&first->w);
    }
    bool more = l->q.first != NULL;
    /* Releases what the last holder did to those who were let in. */
    rv_store_release(&l->state, more ? state | QUEUED : state);
    *ret_n = n;
    return more && n == RV_WAKES_MAX;
}

/* The lock has changed to this state. It is held, and comes back released. */
static void let_in(struct rwlock *l, uint64_t state)
{
    for (;;) {
        struct rv_wake wakes[RV_WAKES_MAX];
        int n;
        bool more = let_in_some(l, state, wakes, &n);
        rv_lock_release(&l->lock);
        rv_wake_all(wakes, n);
        if (!more)
            return;
        rv_lock_acquire(&l->lock);
        state = rv_load_relaxed(&l->state);
        if (!(state & QUEUED)) {
            rv_lock_release(&l->lock);
            return;
        }
    }
}

/* Stands in line, with the wait armed. False: it was let in at once. */
static bool get_in_line(struct rv_worker *w, struct rwlock *l, struct line *me)
{
    rv_lock_acquire(&l->lock);
    uint64_t seen = rv_load_relaxed(&l->state);
    do {
        if (me->who ? write_now(l, &seen, me->who) : read_now(l, &seen)) {
            rv_lock_release(&l->lock);
            return false;
        }
    } while (!rv_cas(&l->state, &seen, seen | QUEUED));
    rv_waiter_begin(w, &me->w);
    rv_waitq_add(&l->q, &me->w);
    rv_lock_release(&l->lock);
    return true;
}

/* who: as a writer; 0: as a reader. */
static int wait_in_line(struct rv_worker *w, struct rwlock *l, uint64_t who, reeve_time until)
{
    int64_t end;
    int r = rv_wait_bound(w, until, &end);
    if (r < 0)
        return r;
    struct line me = { .who = who };
    if (!get_in_line(w, l, &me))
        return 0;
    int why = rv_wait_park(w, w->cur, end);
    if (why == RV_WOKEN)
        return 0;
    rv_lock_acquire(&l->lock);
    if (me.w.granted) {
        rv_lock_release(&l->lock);
        return 0;
    }
    rv_waitq_remove(&l->q, &me.w);
    let_in(l, rv_load_relaxed(&l->state));
    return rv_wait_error(why);
}

static void must_not_write(uint64_t seen, uint64_t who, const char *call)
{
    if (seen & WRITTEN && rv_same(seen, who))
        rv_die("%s was called by the task that holds the lock for writing.", call);
}

int reeve_rwlock_read(struct reeve_rwlock *lock, reeve_time until)
{
    struct rv_worker *w = rv_in_task("reeve_rwlock_read");
    struct rwlock *l = (struct rwlock *)lock;
    uint64_t seen = rv_load_relaxed(&l->state);
    if (__builtin_expect(read_now(l, &seen), 1))
        return 0;
    must_not_write(seen, writer(w->cur), "reeve_rwlock_read");
    return wait_in_line(w, l, 0, until);
}

int reeve_rwlock_write(struct reeve_rwlock *lock, reeve_time until)
{
    struct rv_worker *w = rv_in_task("reeve_rwlock_write");
    struct rwlock *l = (struct rwlock *)lock;
    uint64_t seen = 0, who = writer(w->cur);
    if (__builtin_expect(write_now(l, &seen, who), 1))
        return 0;
    must_not_write(seen, who, "reeve_rwlock_write");
    return wait_in_line(w, l, who, until);
}

/* Somebody seems to wait. False: nobody does any more. */
static bool unlock_slow(struct rwlock *l)
{
    rv_lock_acquire(&l->lock);
    /* Acquires what the readers before us released: the writer after us comes after them too. */
    uint64_t seen = rv_load_acquire(&l->state);
    if (!(seen & QUEUED)) {
        rv_lock_release(&l->lock);
        return false;
    }
    let_in(l, seen & WRITTEN ? QUEUED : seen - READER);
    return true;
}

void reeve_rwlock_unlock(struct reeve_rwlock *lock)
{
    struct rv_worker *w = rv_in_task("reeve_rwlock_unlock");
    struct rwlock *l = (struct rwlock *)lock;
    uint64_t seen = rv_load_relaxed(&l->state);
    for (;;) {
        if ((seen & ~QUEUED) == 0)
            rv_die("reeve_rwlock_unlock was called on a lock that nobody holds.");
        if (seen & WRITTEN && !rv_same(seen, writer(w->cur)))
            rv_die("reeve_rwlock_unlock was called by a task that does not hold the lock, while "
                   "another writes.");
        if (seen & QUEUED) {
            if (unlock_slow(l))
                return;
            seen = rv_load_relaxed(&l->state);
            continue;
        }
        uint64_t next = seen & WRITTEN ? 0 : seen - READER;
        if (rv_cas(&l->state, &seen, next)) /* releases; pairs with who comes next */
            return;
    }
}
