/* SPDX-License-Identifier: MIT */
/*
 * mutex.c -- a lock in two words: who holds it, and who waits.
 *
 * The first word is the owner (sync.h: rv_who) with a few bits and a small number beside it; 0 is
 * unlocked. The second is the circle of waiters, and in its low four bits the classes that may be
 * among them; it is guarded by a lock from a table, found by the mutex's address, which outlives
 * every mutex.
 *
 *     QUEUED    somebody waits
 *     CALLED    the first waiter was woken to look at the lock, and has not looked yet
 *     HANDOVER  the next unlock makes the first waiter the owner
 *     BOOSTED   the owner runs in a better class on account of this lock
 *     passes    how many have taken the lock since the first waiter was called
 *
 *     free -> held                  [reeve_mutex_lock, slip_in]    by one compare-and-swap
 *     held -> free                  [reeve_mutex_unlock]           the same, if nobody waits
 *     held -> held, QUEUED          [get_in_line]
 *     QUEUED -> free, CALLED        [unlock_slow]                  and wakes the first waiter
 *     held, CALLED -> free, CALLED  [unlock_slow]                  one compare-and-swap again
 *     free, CALLED -> held          [settle]                       the called one came in time,
 *     free, CALLED -> held, passes  [slip_in]                      or somebody else did
 *     held, CALLED -> HANDOVER      [settle, slip_in]              once it has seen the lock held,
 *                                                                  or at PASSES_MAX passes
 *     HANDOVER -> held by the first [unlock_slow]
 *
 * Why not hand over at every unlock: then every lock of a contended mutex costs a suspension and a
 * switch, whether or not the one that is called could run by now. Two workers and 64 tasks that
 * lock, count and unlock: 15 to 20 ns a round this way, 60 to 90 with a hand-over each time.
 *
 * (1) Waiters are called, and handed the lock, in the order in which they came. One that was called
 *     stays the first until it has the lock or leaves.
 * (2) While anybody waits, the lock is held, or a waiter was called and has not looked: a called
 *     one that leaves takes a free lock with it, or clears CALLED in a step that fails if it is
 *     free.
 * (3) With QUEUED and not CALLED, or with HANDOVER or BOOSTED, an unlock takes the queue's lock:
 *     who holds that may rely on the owner to stay the owner, and alive.
 * (4) At most one boost is counted for a mutex, as long as BOOSTED is set; its owner takes it back.
 *
 * A waiter of a better class than somebody before it asks for a hand-over: so the one before it is
 * soon the owner, and boosted, and not stuck as a called waiter in a class that is not served.
 *
 * Threads: tasks; rv_mutex_adopt - anyone.
 */
#include <string.h>

#include "sched/ready.h"
#include "sched/scope.h"
#include "sched/sync.h"

#define QUEUED ((uintptr_t)1)
#define CALLED ((uintptr_t)2)
#define HANDOVER ((uintptr_t)4)
#define BOOSTED ((uintptr_t)8)
#define PASS ((uintptr_t)1 << 48)
#define PASSES ((uintptr_t)63 << 48)
#define CLASSES ((uintptr_t)15) /* of the second word */

/* Large enough that a hand-over, a suspension and a switch or two, is a small part of what passes
 * cost; small enough that a waiter which is not run for long is not kept waiting by a loop on
 * another worker. Nobody spins before it waits: that was measured to gain nothing. */
enum { PASSES_MAX = 16, TABLE = 64 };

_Static_assert(sizeof(struct rv_mutex) == sizeof(struct reeve_mutex), "the public one is this");
_Static_assert(PASSES_MAX <= PASSES / PASS, "they must fit");

static struct {
    RV_ALIGNED_LINE struct rv_lock lock;
} table[TABLE];

/* Whoever held one of them is not in this process. */
void rv_mutex_forked(void)
{
    memset(table, 0, sizeof table);
}

/* The lock of the mutex's queue. Nobody holds two of them. */
static struct rv_lock *queue_lock(const struct rv_mutex *m)
{
    uint64_t hash = ((uintptr_t)m >> 4) * UINT64_C(0x9e3779b97f4a7c15);
    return &table[hash / (UINT64_MAX / TABLE + 1)].lock;
}

static inline bool is_free(uintptr_t word)
{
    return (word & RV_WHO_ADDRESS) == 0;
}

/* The class, 0 .. 3, that the owner is known to run in. */
static inline int class_of(uintptr_t word)
{
    return (int)(word >> RV_WHO_CLASS_SHIFT & 3);
}

/* ---- the queue, under its lock ---- */

static struct rv_locker *first_of(const struct rv_mutex *m)
{
    return (struct rv_locker *)(m->queue & ~CLASSES);
}

static void add(struct rv_mutex *m, struct rv_locker *n)
{
    struct rv_waitq q = { m->queue ? &first_of(m)->w : NULL };
    rv_waitq_add(&q, &n->w);
    m->queue = (uintptr_t)q.first | (m->queue & CLASSES) | (uintptr_t)1 << n->cls;
}

static void take_out(struct rv_mutex *m, struct rv_locker *n)
{
    struct rv_waitq q = { &first_of(m)->w };
    rv_waitq_remove(&q, &n->w);
    m->queue = q.first ? (uintptr_t)q.first | (m->queue & CLASSES) : 0;
}

/* The best class of all who wait; -1: nobody does. Only if there may be several is it looked up. */
static int best_waiting(struct rv_mutex *m)
{
    uintptr_t classes = m->queue & CLASSES;
    if (classes & (classes - 1)) {
        struct rv_waiter *first = &first_of(m)->w, *n = first;
        classes = 0;
        do {
            classes |= (uintptr_t)1 << ((struct rv_locker *)n)->cls;
            n = n->next;
        } while (n != first);
        m->queue = (uintptr_t)first | classes;
    }
    return classes ? 63 - __builtin_clzl(classes) : -1;
}

/* Whether this one, that is about to be added, is of a better class than some who came before. */
static bool outranks(const struct rv_mutex *m, const struct rv_locker *n)
{
    return m->queue & (((uintptr_t)1 << n->cls) - 1);
}

/* The owner is to run in the best class of those who wait for it; s is the scheduler of one of
 * them. Under the queue's lock: from the moment that BOOSTED is set the owner waits for us before
 * it unlocks, so it lives. */
static void raise_owner(struct rv_mutex *m, struct rv_sched *s)
{
    int best = best_waiting(m);
    uintptr_t next, seen = rv_load_relaxed(&m->word);
    struct rv_task *t;
    do {
        if (is_free(seen) || class_of(seen) >= best)
            return;
        t = (struct rv_task *)(seen & RV_WHO_ADDRESS);
        if ((uintptr_t)t - (uintptr_t)s->tasks.base >= (uintptr_t)s->tasks.cap * sizeof *t)
            return; /* a task of another runtime */
        next = (seen & ~RV_WHO_CLASS) | (uintptr_t)best << RV_WHO_CLASS_SHIFT | BOOSTED;
    } while (!rv_cas(&m->word, &seen, next));
    uint32_t idx = rv_task_index(s, t), gen = rv_task_gen(t);
    unsigned cls = (unsigned)best + REEVE_LOW;
    if (seen & BOOSTED)
        rv_boost_raise(s, idx, gen, cls);
    else if (!rv_boost(s, idx, gen, cls))
        rv_and_acq_rel(&m->word, ~BOOSTED);
}

/* ---- locking ---- */

/* Takes the lock if it is free, before those who wait. *seen: the word. */
static bool slip_in(struct rv_mutex *m, uintptr_t *seen, uintptr_t who)
{
    while (is_free(*seen)) {
        uintptr_t next = *seen | who;
        RV_ASSERT(!(*seen & (HANDOVER | BOOSTED)));
        if (*seen & QUEUED && (next += PASS) / PASS % 64 >= PASSES_MAX)
            next |= HANDOVER;
        if (rv_cas(&m->word, seen, next)) /* acquires; pairs with whichever unlock freed it */
            return true;
    }
    return false;
}

/* Adds the running task to those who wait, with its wait armed. False: it has the lock. */
static bool get_in_line(struct rv_worker *w, struct rv_mutex *m, struct rv_locker *n)
{
    struct rv_lock *lock = queue_lock(m);
    rv_lock_acquire(lock);
    uintptr_t seen = rv_load_relaxed(&m->word), ask = outranks(m, n) ? QUEUED | HANDOVER : QUEUED;
    do {
        if (slip_in(m, &seen, n->who)) {
            rv_lock_release(lock);
            return false;
        }
    } while (!rv_cas(&m->word, &seen, seen | ask));
    rv_waiter_begin(w, &n->w);
    add(m, n);
    raise_owner(m, w->sched);
    rv_lock_release(lock);
    return true;
}

static int lock_slow(struct rv_worker *w, struct rv_mutex *m, uintptr_t who, uintptr_t seen,
                     reeve_time until)
{
    if (slip_in(m, &seen, who))
        return 0;
    if (rv_same(seen, who))
        rv_die("reeve_mutex_lock was called by the task that holds the mutex already.");
    int64_t end;
    int r = rv_wait_bound(w, until, &end);
    if (r < 0)
        return r;
    struct rv_locker n = { .who = who, .mutex = m, .cls = rv_class(w->cur) };
    if (!get_in_line(w, m, &n))
        return 0;
    int why = rv_wait_park(w, w->cur, end);
    return rv_mutex_wait(rv_worker_self(), &n, why, end);
}

int reeve_mutex_lock(struct reeve_mutex *mutex, reeve_time until)
{
    struct rv_worker *w = rv_in_task("reeve_mutex_lock");
    struct rv_mutex *m = rv_mutex_of(mutex);
    uintptr_t seen = 0, who = rv_who(w->cur);
    if (__builtin_expect(rv_cas(&m->word, &seen, who), 1)) /* acquires; pairs with the unlock */
        return 0;
    return lock_slow(w, m, who, seen, until);
}

/* ---- the end of a wait ---- */

enum outcome { HAS_IT, WAITS_ON, HAS_LEFT };

/* What comes of a waiter whose wait has ended; stay: it is not to leave. Under the queue's lock. */
static enum outcome settle(struct rv_mutex *m, struct rv_locker *n, bool stay)
{
    enum outcome what;
    uintptr_t next, seen = rv_load_acquire(&m->word); /* pairs with the release in hand_over() */
    bool last = n->w.next == &n->w;
    do {
        if (rv_same(seen, n->who))
            return HAS_IT; /* handed over, and out of the queue */
        what = stay ? WAITS_ON : HAS_LEFT;
        if (n->woken && is_free(seen)) {
            what = HAS_IT;
            next = n->who | (last ? 0 : QUEUED);
        } else if (stay) {
            next = n->woken ? (seen & ~(CALLED | PASSES)) | HANDOVER : seen;
        } else if (last) {
            next = seen & ~(QUEUED | CALLED | HANDOVER | PASSES);
        } else {
            next = n->woken ? seen & ~(CALLED | PASSES) : seen;
        }
    } while (!rv_cas(&m->word, &seen, next));
    n->woken = false;
    if (what != WAITS_ON)
        take_out(m, n);
    return what;
}

int rv_mutex_wait(struct rv_worker *w, struct rv_locker *n, int why, int64_t end)
{
    struct rv_mutex *m = n->mutex;
    struct rv_lock *lock = queue_lock(m);
    for (;;) {
        if (rv_mutex_is_held_by(m, n->who))
            return 0;
        rv_lock_acquire(lock);
        enum outcome what = settle(m, n, why == RV_WOKEN);
        if (what == WAITS_ON)
            rv_waiter_begin(w, &n->w);
        raise_owner(m, w->sched);
        rv_lock_release(lock);
        if (what != WAITS_ON)
            return what == HAS_IT ? 0 : rv_wait_error(why);
        why = rv_wait_park(w, w->cur, end);
        w = rv_worker_self();
    }
}

struct rv_wake rv_mutex_adopt(struct rv_locker *n)
{
    struct rv_mutex *m = n->mutex;
    struct rv_lock *lock = queue_lock(m);
    struct rv_wake wake = { 0 };
    rv_lock_acquire(lock);
    uintptr_t seen = rv_load_relaxed(&m->word), ask = outranks(m, n) ? QUEUED | HANDOVER : QUEUED;
    uintptr_t next;
    do {
        next = seen | (is_free(seen) ? QUEUED | CALLED : ask);
    } while (!rv_cas(&m->word, &seen, next));
    n->woken = !(seen & CALLED) && next & CALLED;
    if (n->woken)
        wake = rv_waiter_wake(&n->w);
    RV_ASSERT(!n->woken || m->queue == 0);
    add(m, n);
    raise_owner(m, n->w.sched);
    rv_lock_release(lock);
    return wake;
}

/* ---- unlocking ---- */

/* Makes the first waiter the owner. If it was the only one then it, and the mutex, may be gone
 * right after the store. */
static struct rv_wake hand_over(struct rv_mutex *m, struct rv_locker *first)
{
    uintptr_t who = first->who;
    take_out(m, first);
    struct rv_wake wake = rv_waiter_grant(&first->w);
    bool more = m->queue != 0;
    /* Releases; pairs with who finds itself the owner. */
    rv_store_release(&m->word, more ? who | QUEUED : who);
    if (more)
        raise_owner(m, wake.sched);
    return wake;
}

/* The owner unlocks, with somebody waiting or itself boosted. Under the queue's lock nobody else
 * changes the word. */
static struct rv_wake free_it(struct rv_mutex *m, uintptr_t seen)
{
    struct rv_locker *first = first_of(m);
    struct rv_wake wake = { 0 };
    if (first == NULL) {
        rv_store_release(&m->word, (uintptr_t)0);
        return wake;
    }
    if (seen & HANDOVER)
        return hand_over(m, first);
    if (!first->woken) {
        first->woken = true;
        wake = rv_waiter_wake(&first->w);
        seen &= ~PASSES;
    }
    rv_store_release(&m->word, (seen & PASSES) | QUEUED | CALLED);
    return wake;
}

static void unlock_slow(struct rv_worker *w, struct rv_mutex *m, uintptr_t who, uintptr_t seen)
{
    if (is_free(seen))
        rv_die("reeve_mutex_unlock was called on a mutex that nobody holds.");
    if (!rv_same(seen, who))
        rv_die("reeve_mutex_unlock was called by a task that does not hold the mutex.");
    while (!(seen & (HANDOVER | BOOSTED)) && (!(seen & QUEUED) || seen & CALLED))
        if (rv_cas(&m->word, &seen, seen & (QUEUED | CALLED | PASSES))) /* releases */
            return;
    struct rv_lock *lock = queue_lock(m);
    rv_lock_acquire(lock);
    seen = rv_load_relaxed(&m->word);
    struct rv_wake wake = free_it(m, seen);
    rv_lock_release(lock);
    if (seen & BOOSTED)
        rv_unboost(w->cur);
    if (wake.sched)
        rv_wake(wake);
}

void reeve_mutex_unlock(struct reeve_mutex *mutex)
{
    struct rv_worker *w = rv_in_task("reeve_mutex_unlock");
    struct rv_mutex *m = rv_mutex_of(mutex);
    uintptr_t who = rv_who(w->cur), seen = who;
    if (__builtin_expect(!rv_cas(&m->word, &seen, 0), 0)) /* releases; pairs with the next lock */
        unlock_slow(w, m, who, seen);
}
