/* SPDX-License-Identifier: MIT */
/*
 * pick.c -- the order in which a worker runs its tasks.
 *
 *     slot      the task just woken by the running one; three times in a row at most, then it
 *     queues like anybody pinned    tasks that must run here; nobody steals them
 *     ring      woken tasks, first in first out
 *     deque     fresh tasks, newest first; thieves take the oldest
 *     injector  what came from other threads, and what did not fit
 *
 * Ring (with pinned) and deque are served in turn while both hold work: deque first would let a
 * growing tree of spawns starve those whose I/O has completed. Every injector_every-th pick serves
 * the injector first, and every 16th from a queue the deque's oldest end, so that neither can be
 * starved by what keeps coming in at the other end.
 *
 * (1) Whatever is in no queue belongs to whoever holds it: an entry is in one queue, once.
 * (2) A full ring or deque spills into the injector, which is bounded by the number of tasks, and
 *     the spiller tells a sleeping worker.
 * (3) Filling the slot wakes nobody who is not needed as sentinel: its task runs next, here.
 *     Thieves take it only when it has waited long.
 *
 * Threads: the worker; ready and fresh also foreign threads, with w NULL.
 */
#include "sched/pick.h"

#include "mem/die.h"
#include "sched/park.h"
#include "sched/scope.h"

enum { SLOT_RUN_MAX = 3, STALE_MIN = 64, OLDEST_EVERY = 16 };

static inline uint64_t entry_of(struct rv_sched *s, struct rv_task *t, bool fresh)
{
    return rv_entry(rv_task_gen(t), rv_task_index(s, t), fresh);
}

RV_ALWAYS struct rv_task *claim(struct rv_worker *w, uint64_t entry, bool *ret_fresh)
{
    struct rv_task *t = rv_task_at(w->sched, rv_entry_index(entry));
    RV_ASSERT((uint32_t)(entry >> 32) == rv_task_gen(t));
    *ret_fresh = rv_entry_fresh(entry);
    if (!*ret_fresh)
        return t;
    uint32_t st = rv_load_acquire(&t->st);
    for (;;) {
        if (st & RV_ST_CLAIMED) {
            rv_task_release(w->sched, w, t, RV_ST_QUEUED);
            return NULL;
        }
        if (!(st & RV_ST_HANDLE)) { /* this entry is all there is */
            rv_store_relaxed(&t->st, RV_ST_CLAIMED);
            return t;
        }
        if (rv_cas(&t->st, &st, (st & ~(uint32_t)(RV_ST_QUEUED | RV_ST_NODE)) | RV_ST_CLAIMED))
            return t;
    }
}

struct rv_task *rv_claim(struct rv_worker *w, uint64_t entry, bool *ret_fresh)
{
    return claim(w, entry, ret_fresh);
}

void rv_pop_claimed(struct rv_worker *w)
{
    uint64_t entry;
    while ((entry = rv_deque_peek(&w->deque)) != 0) {
        struct rv_task *t = rv_task_at(w->sched, rv_entry_index(entry));
        if (!(rv_load_relaxed(&t->st) & RV_ST_CLAIMED))
            return;
        if (rv_deque_pop(&w->deque) == entry) /* else a thief drops it */
            rv_task_release(w->sched, w, t, RV_ST_QUEUED);
        if (w->stale)
            w->stale--;
    }
    w->stale = 0;
}

/* Drops the claimed entries wherever they lie. Two units that take turns on one deque bury each
 * other's entries, and without this a long pair of them would fill the slab with done tasks that
 * only an entry still holds. It runs when half of the deque may be stale, so what it costs, an
 * entry looked at twice, has been paid for by claims. */
static void sift(struct rv_worker *w)
{
    uint64_t entry, *kept = w->sieve;
    while ((entry = rv_deque_pop(&w->deque)) != 0) {
        struct rv_task *t = rv_task_at(w->sched, rv_entry_index(entry));
        if (rv_load_relaxed(&t->st) & RV_ST_CLAIMED)
            rv_task_release(w->sched, w, t, RV_ST_QUEUED);
        else
            *kept++ = entry;
    }
    while (kept != w->sieve)
        RV_MUST(rv_deque_push(&w->deque, *--kept)); /* it was in there before */
    w->stale = 0;
}

void rv_tidy_deque(struct rv_worker *w)
{
    if (w->stale >= STALE_MIN && w->stale > rv_deque_len(&w->deque) / 2)
        sift(w);
}

uint32_t rv_queued(struct rv_worker *w)
{
    return rv_runq_len(&w->runq) + w->pinned_len + (uint32_t)rv_deque_len(&w->deque) +
           (rv_load_relaxed(&w->slot) != 0);
}

static uint64_t msg_entry(struct rv_sched *s, struct rv_msg *m)
{
    struct rv_task *t = (struct rv_task *)((unsigned char *)m - offsetof(struct rv_task, msg));
    return entry_of(s, t, m->kind == RV_MSG_FRESH);
}

static uint64_t take_injected(struct rv_worker *w)
{
    struct rv_msg *m = rv_injector_take(w->sched);
    return m ? msg_entry(w->sched, m) : 0;
}

static uint64_t take_pinned(struct rv_worker *w)
{
    struct rv_msg *m = w->pinned_head;
    if (m == NULL)
        return 0;
    w->pinned_head = rv_msg_next(m);
    w->pinned_len--;
    return msg_entry(w->sched, m);
}

/* Asks for the memory that the ring's next task will need first: between its last run and this one
 * the kernel has been at work on as many connections as there are tasks, and its frames are in no
 * near cache any more. Without this an echo of 500 connections spends 8 % of its time waiting for
 * them. Nothing is read through the pointer: the entry may be a thief's by now, and the task gone.
 * */
static inline void fetch_next(struct rv_worker *w)
{
    enum { LINES = 6 };
    uint64_t h = rv_load_relaxed(&w->runq.head);
    if (h == rv_load_relaxed(&w->runq.tail))
        return;
    uint64_t e = rv_load_relaxed(&w->runq.slots[h % RV_RUNQ_SLOTS]);
    struct rv_task *t = rv_task_at(w->sched, rv_entry_index(e));
    const unsigned char *record = (const unsigned char *)rv_load_relaxed(&t->run.stack);
    const unsigned char *frames = record - (size_t)rv_load_relaxed(&t->depth) * RV_CACHE_LINE;
    __builtin_prefetch(record);
    for (int i = -1; i < LINES; i++)
        __builtin_prefetch(frames + i * RV_CACHE_LINE, 1);
}

RV_ALWAYS uint64_t take_ring(struct rv_worker *w)
{
    bool solo = w->sched->nworkers == 1;
    if (__builtin_expect(w->pinned_head != NULL && w->turn & 2, 0))
        return take_pinned(w);
    uint64_t e = solo ? rv_runq_pop_solo(&w->runq) : rv_runq_pop(&w->runq);
    if (e == 0)
        return take_pinned(w);
    fetch_next(w);
    return e;
}

/* A fresh task is about to be queued by its node. Until that is taken out of its list again, its
 * joiner must not start it: it could suspend, and be queued by the same node twice. False: the
 * joiner already has. */
static bool hold_node(struct rv_task *t)
{
    return !(rv_or_acq_rel(&t->st, (uint32_t)RV_ST_NODE) & RV_ST_CLAIMED);
}

RV_ALWAYS void push_ring(struct rv_worker *w, uint64_t entry, struct rv_msg *m)
{
    if (rv_runq_push(&w->runq, entry)) {
        /* Outside any task the first entry is about to run here: not worth waking anybody. */
        if (w->sched->nworkers > 1 && (w->cur != NULL || rv_runq_len(&w->runq) > 1))
            rv_notify(w);
        return;
    }
    struct rv_task *t = rv_task_at(w->sched, rv_entry_index(entry));
    if (rv_entry_fresh(entry) && !hold_node(t)) {
        rv_task_release(w->sched, w, t, RV_ST_QUEUED); /* its joiner was faster */
        return;
    }
    m->kind = rv_entry_fresh(entry) ? RV_MSG_FRESH : RV_MSG_READY;
    rv_inject(w->sched, m);
    rv_wake_one(w->sched);
}

/* The slot is not empty: its entry, unless it has won often enough. */
static uint64_t take_slot(struct rv_worker *w)
{
    uint64_t e = rv_load_relaxed(&w->slot);
    if (w->sched->nworkers == 1)
        rv_store_relaxed(&w->slot, 0);
    else if ((e = rv_xchg_acq_rel(&w->slot, 0)) == 0)
        return 0;
    if (w->slot_run++ < SLOT_RUN_MAX)
        return e;
    w->slot_run = 0;
    push_ring(w, e, &rv_task_at(w->sched, rv_entry_index(e))->msg);
    return 0;
}

/* The pick that belongs to the injector; never two in a row, or with injector_every 1 what yields
 * into a full ring, and so into the injector, would starve the ring. */
static uint64_t serve_injector(struct rv_worker *w)
{
    w->injector_in = (int32_t)w->sched->injector_every;
    w->elders = !w->elders;
    return w->elders || w->injector_in > 1 ? take_injected(w) : 0;
}

/* The pick that belongs to the deque's oldest end. Inline runs are not counted towards it: in a
 * tree of spawns it would start the largest subtrees here, one at each pass, and leave thieves the
 * crumbs. */
static uint64_t serve_oldest(struct rv_worker *w)
{
    w->oldest_in = OLDEST_EVERY;
    return rv_deque_take_oldest(&w->deque);
}

/* The next entry by the order above; 0: there is none. */
RV_ALWAYS uint64_t next_entry(struct rv_worker *w)
{
    uint64_t e;
    if (--w->injector_in <= 0 && (e = serve_injector(w)) != 0)
        return e;
    if (--w->oldest_in <= 0 && (e = serve_oldest(w)) != 0)
        return e;
    if (rv_load_relaxed(&w->slot) == 0)
        w->slot_run = 0;
    else if ((e = take_slot(w)) != 0)
        return e;
    if (w->turn++ & 1) {
        if ((e = rv_deque_pop(&w->deque)) != 0 || (e = take_ring(w)) != 0)
            return e;
    } else {
        if ((e = take_ring(w)) != 0 || (e = rv_deque_pop(&w->deque)) != 0)
            return e;
    }
    return take_injected(w);
}

/* Draws the worker's next random number (xorshift, Marsaglia 2003). */
uint32_t rv_random(struct rv_worker *w)
{
    uint32_t x = w->rng;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return w->rng = x;
}

struct rv_task *rv_pick(struct rv_worker *w, bool *ret_fresh)
{
    rv_look_at_clock(w);
    for (;;) {
        uint64_t e = next_entry(w);
        if (e == 0)
            return NULL;
        struct rv_task *t = claim(w, e, ret_fresh);
        if (t == NULL)
            continue;
        w->budget--;
        rv_count(&w->n.picks, 1);
        return t;
    }
}

static void push_pinned(struct rv_worker *w, struct rv_msg *m, uint8_t kind)
{
    m->kind = kind;
    m->link.next = NULL;
    if (w->pinned_head)
        w->pinned_tail->link.next = &m->link;
    else
        w->pinned_head = m;
    w->pinned_tail = m;
    w->pinned_len++;
}

/* Puts a pinned task where it must run, or one that only has to go elsewhere. */
static void place(struct rv_sched *s, struct rv_worker *w, struct rv_task *t, uint32_t where,
                  uint8_t kind)
{
    struct rv_worker *to = s->workers[where];
    if (kind == RV_MSG_FRESH)
        hold_node(t);
    if (to != w)
        rv_send(s, to, &t->msg, kind);
    else if (t->pin)
        push_pinned(w, &t->msg, kind);
    else
        push_ring(w, entry_of(s, t, kind == RV_MSG_FRESH), &t->msg);
}

static void inject(struct rv_sched *s, struct rv_task *t, uint8_t kind)
{
    if (kind == RV_MSG_FRESH)
        hold_node(t);
    t->msg.kind = kind;
    rv_inject(s, &t->msg);
    rv_wake_one(s);
}

#ifdef RV_FORCE_MIGRATE
/* A build for tests: whoever is woken wakes up on another worker. */
static bool migrate(struct rv_sched *s, struct rv_worker *w, struct rv_task *t)
{
    if (w == NULL || s->nworkers == 1 || t->pin)
        return false;
    rv_send(s, s->workers[(w->index + 1) % s->nworkers], &t->msg, RV_MSG_READY);
    return true;
}
#else
static inline bool migrate(struct rv_sched *s, struct rv_worker *w, struct rv_task *t)
{
    (void)s, (void)w, (void)t;
    return false;
}
#endif

void rv_ready_fifo(struct rv_sched *s, struct rv_worker *w, struct rv_task *t)
{
    if (t->pin)
        place(s, w, t, t->pin - 1u, RV_MSG_READY);
    else
        push_ring(w, entry_of(s, t, false), &t->msg);
}

void rv_ready(struct rv_sched *s, struct rv_worker *w, struct rv_task *t)
{
    if (migrate(s, w, t))
        return;
    if (t->pin) {
        place(s, w, t, t->pin - 1u, RV_MSG_READY);
    } else if (w == NULL) {
        inject(s, t, RV_MSG_READY);
    } else if (w->cur == NULL) { /* woken by a completion or a timer: in order */
        push_ring(w, entry_of(s, t, false), &t->msg);
    } else {
        uint64_t e = entry_of(s, t, false);
        rv_store_relaxed(&w->slot_tsc, rv_tsc());
        uint64_t old = rv_load_relaxed(&w->slot);
        if (s->nworkers == 1)
            rv_store_relaxed(&w->slot, e);
        else
            old = rv_xchg_acq_rel(
                &w->slot, e); /* publishes the task; pairs with the exchange of who takes it */
        if (old)
            push_ring(w, old, &rv_task_at(s, rv_entry_index(old))->msg);
        rv_notify(w);
    }
}

void rv_ready_on(struct rv_sched *s, struct rv_worker *w, struct rv_task *t, uint32_t home)
{
    if (home == UINT32_MAX || (w && w->index == home) || t->pin)
        rv_ready(s, w, t);
    else if (!migrate(s, w, t))
        place(s, w, t, home, RV_MSG_READY);
}

void rv_fresh_slow(struct rv_sched *s, struct rv_worker *w, struct rv_task *t)
{
    if (t->pin)
        place(s, w, t, t->pin - 1u, RV_MSG_FRESH);
    else
        inject(s, t, RV_MSG_FRESH);
}

void rv_fresh_on(struct rv_sched *s, struct rv_worker *w, struct rv_task *t, uint32_t where)
{
    place(s, w, t, where, RV_MSG_FRESH);
}

void rv_task_message(struct rv_worker *w, struct rv_msg *m)
{
    struct rv_task *t = (struct rv_task *)((unsigned char *)m - offsetof(struct rv_task, msg));
    uint8_t kind = m->kind;
    if (t->pin == w->index + 1)
        push_pinned(w, m, kind);
    else
        push_ring(w, entry_of(w->sched, t, kind == RV_MSG_FRESH), m);
}
