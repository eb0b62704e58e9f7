/* SPDX-License-Identifier: MIT */
/*
 * pick.c -- the order in which a worker runs its tasks.
 *
 * Four classes, the best one first. So that a better class cannot starve a worse one, a class that
 * has been passed over often enough is served once: HIGH gets at least 1 of 8 picks, NORMAL 1 of
 * 16, LOW 1 of 32. Within a class:
 *
 *     heap      deadlines of their own, if due before who has waited longest in the queues;
 *               fifteen times in a row at most
 *     slot      the task just woken by the running one (NORMAL only); three times in a row at
 *               most while others wait, then it queues like anybody
 *     pinned    tasks that must run here; nobody steals them
 *     ring      woken tasks, first in first out
 *     deque     fresh tasks, newest first; thieves take the oldest
 *     heap      if it was not due
 *     injector  what came from other threads, and what did not fit
 *
 * Ring (with pinned) and deque are served in turn while both hold work: deque first would let a
 * growing tree of spawns starve those whose I/O has completed. Every injector_every-th pick serves
 * the injector first, and every 16th from a queue the deque's oldest end, so that neither can be
 * starved by what keeps coming in at the other end.
 *
 * Most programs use NORMAL alone, without deadlines of their own: then one load tells that there
 * is nothing else, and the rest of the classes costs nothing.
 *
 * (1) w->ready has a bit for each other class and for each heap that may hold work. A bit is set by
 *     who queues and cleared when a pick has found nothing: thieves leave it behind.
 * (2) A claimed entry is dropped by whoever meets it, and does not count as a pick.
 *
 * Threads: the worker.
 */
#include "sched/pick.h"

#include "mem/die.h"
#include "sched/park.h"
#include "sched/scope.h"

enum { STALE_MIN = 64, OLDEST_EVERY = 16, HEAP_RUN_MAX = 15, SHARE_MAX = 128 };

/* A class gets one pick in so many, however busy the better ones are. */
static const uint8_t floor_of[RV_CLASSES] = {
    [RV_LOW] = 32, [RV_NORMAL] = 16, [RV_HIGH] = 8, [RV_URGENT] = UINT8_MAX
};

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

void rv_pop_claimed(struct rv_worker *w, struct rv_lane *l)
{
    uint64_t entry;
    while ((entry = rv_deque_peek(&l->deque)) != 0) {
        struct rv_task *t = rv_task_at(w->sched, rv_entry_index(entry));
        if (!(rv_load_relaxed(&t->st) & RV_ST_CLAIMED))
            return;
        if (rv_deque_pop(&l->deque) == entry) /* else a thief drops it */
            rv_task_release(w->sched, w, t, RV_ST_QUEUED);
        if (l->stale)
            l->stale--;
    }
    l->stale = 0;
}

/* Drops the claimed entries wherever they lie. Two units that take turns on one deque bury each
 * other's entries, and without this a long pair of them would fill the slab with done tasks that
 * only an entry still holds. It runs when half of the deque may be stale, so what it costs, an
 * entry looked at twice, has been paid for by claims. */
static void sift(struct rv_worker *w, struct rv_lane *l)
{
    uint64_t entry, *kept = w->sieve;
    while ((entry = rv_deque_pop(&l->deque)) != 0) {
        struct rv_task *t = rv_task_at(w->sched, rv_entry_index(entry));
        if (rv_load_relaxed(&t->st) & RV_ST_CLAIMED)
            rv_task_release(w->sched, w, t, RV_ST_QUEUED);
        else
            *kept++ = entry;
    }
    while (kept != w->sieve)
        RV_MUST(rv_deque_push(&l->deque, *--kept)); /* it was in there before */
    l->stale = 0;
}

void rv_tidy_deque(struct rv_worker *w, struct rv_lane *l)
{
    if (l->stale >= STALE_MIN && l->stale > rv_deque_len(&l->deque) / 2)
        sift(w, l);
}

uint32_t rv_queued(struct rv_worker *w)
{
    uint32_t n = rv_load_relaxed(&w->slot) != 0;
    for (unsigned c = 0; c < RV_CLASSES; c++)
        n += rv_lane_stealable(&w->lane[c]) + w->lane[c].pinned_len + w->lane[c].heap.n;
    return n;
}

static __attribute__((noinline)) uint64_t take_injected(struct rv_worker *w, unsigned c)
{
    if (rv_load_relaxed(&w->sched->injector.of[c].len) == 0)
        return 0;
    struct rv_lane *l = &w->lane[c];
    uint32_t room = rv_runq_room(&l->ring) + 1;
    struct rv_msg *m = rv_injector_take_share(w->sched, c, room < SHARE_MAX ? room : SHARE_MAX);
    if (m == NULL)
        return 0;
    rv_fastclock_doubt(&w->clock);
    struct rv_msg *rest = rv_msg_next(m);
    uint64_t entry = rv_msg_entry(w->sched, m);
    if (rest && c != RV_NORMAL)
        w->ready |= RV_READY_QUEUES(c);
    while (rest) {
        struct rv_msg *next = rv_msg_next(rest);
        RV_MUST(rv_runq_push(&l->ring, rv_msg_entry(w->sched, rest))); /* thieves only make room */
        rest = next;
    }
    rv_show(w);
    return entry;
}

static __attribute__((noinline, cold)) uint64_t take_pinned(struct rv_worker *w, struct rv_lane *l)
{
    struct rv_msg *m = l->pinned_head;
    if (m == NULL)
        return 0;
    l->pinned_head = rv_msg_next(m);
    l->pinned_len--;
    return rv_msg_entry(w->sched, m);
}

/* Asks for the memory that the ring's next task will need first: between its last run and this one
 * the kernel has been at work on as many connections as there are tasks, and its frames are in no
 * near cache any more. Without this an echo of 500 connections spends 8 % of its time waiting for
 * them. Nothing is read through the pointer: the entry may be a thief's by now, and the task gone.
 * */
static inline void fetch_next(struct rv_worker *w, struct rv_lane *l)
{
    enum { LINES = 6 };
    uint64_t h = rv_load_relaxed(&l->ring.head);
    if (h == rv_load_relaxed(&l->ring.tail))
        return;
    uint64_t e = rv_load_relaxed(&l->ring.slots[h % RV_RUNQ_SLOTS]);
    struct rv_task *t = rv_task_at(w->sched, rv_entry_index(e));
    const unsigned char *record = (const unsigned char *)rv_load_relaxed(&t->run.stack);
    const unsigned char *frames = record - (size_t)rv_load_relaxed(&t->depth) * RV_CACHE_LINE;
    __builtin_prefetch(record);
    for (int i = -1; i < LINES; i++)
        __builtin_prefetch(frames + i * RV_CACHE_LINE, 1);
}

RV_ALWAYS uint64_t take_ring(struct rv_worker *w, struct rv_lane *l)
{
    bool solo = w->sched->nworkers == 1;
    if (__builtin_expect(l->pinned_head != NULL && l->turn & 2, 0))
        return take_pinned(w, l);
    uint64_t e = solo ? rv_runq_pop_solo(&l->ring) : rv_runq_pop(&l->ring);
    if (e == 0)
        return take_pinned(w, l);
    fetch_next(w, l);
    return e;
}

/* The slot is not empty: its entry, unless it has won often enough while others waited. */
static __attribute__((noinline)) uint64_t take_slot(struct rv_worker *w)
{
    struct rv_lane *l = &w->lane[RV_NORMAL];
    uint64_t e = rv_load_relaxed(&w->slot);
    if (w->sched->nworkers == 1)
        rv_store_relaxed(&w->slot, 0);
    else if ((e = rv_xchg_acq_rel(&w->slot, 0)) == 0)
        return 0;
    if (w->slot_run++ < RV_SLOT_RUN_MAX)
        return e;
    w->slot_run = 0;
    if (l->pinned_head == NULL && rv_lane_stealable(l) == 0)
        return e;
    rv_push_ring(w, RV_NORMAL, e, &rv_task_at(w->sched, rv_entry_index(e))->msg);
    return 0;
}

/* The pick that belongs to the injector; never two in a row, or with injector_every 1 what yields
 * into a full ring, and so into the injector, would starve the ring. */
static __attribute__((noinline, cold)) uint64_t serve_injector(struct rv_worker *w)
{
    w->injector_in = (int32_t)w->sched->injector_every;
    w->elders = !w->elders;
    return w->elders || w->injector_in > 1 ? take_injected(w, RV_NORMAL) : 0;
}

/* The pick that belongs to the deque's oldest end. Inline runs are not counted towards it: in a
 * tree of spawns it would start the largest subtrees here, one at each pass, and leave thieves the
 * crumbs. */
static __attribute__((noinline, cold)) uint64_t serve_oldest(struct rv_lane *l)
{
    l->oldest_in = OLDEST_EVERY;
    return rv_deque_take_oldest(&l->deque);
}

/* For tests: any order that the queues allow, instead of the one that they are served in. */
static __attribute__((noinline, cold)) void shuffle(struct rv_worker *w, struct rv_lane *l)
{
    uint32_t draw = rv_random(w);
    l->turn = draw >> 8;
    l->oldest_in = 1 + (draw >> 16) % 4;
    w->injector_in = 1 + (int32_t)((draw >> 20) % 4);
    if (draw >> 31)
        w->slot_run = RV_SLOT_RUN_MAX; /* the slot queues like anybody */
}

RV_ALWAYS uint64_t take_queues(struct rv_worker *w, struct rv_lane *l)
{
    uint64_t e;
    if (__builtin_expect(w->sched->random, 0))
        shuffle(w, l);
    if (--l->oldest_in <= 0 && (e = serve_oldest(l)) != 0)
        return e;
    if (l == &w->lane[RV_NORMAL]) {
        if (rv_load_relaxed(&w->slot) == 0)
            w->slot_run = 0;
        else if ((e = take_slot(w)) != 0)
            return e;
    }
    if (l->turn++ & 1) {
        if ((e = rv_deque_pop(&l->deque)) != 0 || (e = take_ring(w, l)) != 0)
            return e;
    } else {
        if ((e = take_ring(w, l)) != 0 || (e = rv_deque_pop(&l->deque)) != 0)
            return e;
    }
    return 0;
}

/* NORMAL's next entry where there are no deadlines of their own; 0: there is none. */
RV_ALWAYS uint64_t next_normal(struct rv_worker *w)
{
    uint64_t e;
    if (--w->injector_in <= 0 && (e = serve_injector(w)) != 0)
        return e;
    if ((e = take_queues(w, &w->lane[RV_NORMAL])) != 0)
        return e;
    return take_injected(w, RV_NORMAL);
}

/* The heap goes first when it is due, but not for ever; when it is not, every other time. */
static bool heap_goes_first(struct rv_worker *w, struct rv_lane *l, unsigned c)
{
    uint32_t most = rv_heap_is_due(w, c) ? HEAP_RUN_MAX : 1;
    l->heap_run = l->heap_run < most ? l->heap_run + 1 : 0;
    return l->heap_run != 0;
}

/* The same of any class, with its heaps. */
static uint64_t next_of(struct rv_worker *w, unsigned c, uint32_t ready)
{
    struct rv_lane *l = &w->lane[c];
    bool dated = ready & RV_READY_HEAP(c);
    uint64_t e;
    if (dated && heap_goes_first(w, l, c) && (e = rv_heap_take(w, c)) != 0)
        return e;
    if (c != RV_NORMAL && l->turn % 4 == 3 && (e = take_injected(w, c)) != 0) {
        l->turn++;
        return e;
    }
    if ((e = c == RV_NORMAL ? next_normal(w) : take_queues(w, l)) != 0)
        return e;
    if (c != RV_NORMAL && (e = take_injected(w, c)) != 0)
        return e;
    if (dated && (e = rv_heap_take(w, c)) != 0)
        return e;
    w->ready &= ~(RV_READY_QUEUES(c) | RV_READY_HEAP(c)); /* (1) */
    rv_show(w);
    return 0;
}

/* The class whose turn it is, of those in `classes`, which has at least one. */
static unsigned choose(struct rv_worker *w, uint32_t classes)
{
    unsigned best = 31 - (unsigned)__builtin_clz(classes), choice = best;
    for (unsigned c = best; c-- > 0;)
        if (classes & 1u << c && ++w->skipped[c] >= floor_of[c])
            choice = c; /* of several whose time has come the worst; the others come next */
    w->skipped[choice] = 0;
    return choice;
}

static __attribute__((noinline)) uint64_t next_by_class(struct rv_worker *w)
{
    if (w->dated_tsc != 0)
        rv_heap_timed(w);
    uint32_t ready = w->ready | rv_load_relaxed(&w->sched->injector.ready);
    uint32_t classes = ((ready | ready >> 4) & 15) | RV_READY_QUEUES(RV_NORMAL);
    unsigned c = choose(w, classes);
    for (;;) {
        uint64_t e = next_of(w, c, ready);
        if (e != 0)
            return e;
        classes &= ~(1u << c);
        if (classes == 0)
            return 0;
        c = 31 - (unsigned)__builtin_clz(classes); /* it was empty: the best of the others */
    }
}

/* The next entry by the order above; 0: there is none. */
RV_ALWAYS uint64_t next_entry(struct rv_worker *w)
{
    if (RV_MANY_CLASSES &&
        __builtin_expect(w->ready | rv_load_relaxed(&w->sched->injector.ready), 0))
        return next_by_class(w);
    return next_normal(w);
}

void rv_tidy_ready(struct rv_worker *w)
{
    for (unsigned c = 0; c < RV_CLASSES; c++)
        if (rv_lane_stealable(&w->lane[c]) + w->lane[c].pinned_len == 0)
            w->ready &= ~RV_READY_QUEUES(c);
    rv_show(w);
}

bool rv_pass_broken(struct rv_worker *w)
{
    const struct rv_engine *e = w->sched->engine;
    return rv_load_relaxed(&w->resched) & RV_RESCHED_NOW || (e->arrived && e->arrived(w));
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

/* ---- what is timed --------------------------------------------------------------------------- */

static __attribute__((noinline, cold)) void count_delay(struct rv_worker *w)
{
    unsigned c = w->sample_class;
    uint64_t ns = w->sample_tsc ? (rv_tsc() - w->sample_tsc) * 1000 / w->sched->us_tsc
                                : (uint64_t)(rv_worker_now(w) - w->sample_at);
    rv_hist_add(&w->hists->delay[c], ns);
    rv_admit_sample(w, c, ns);
    w->sample = 0;
    w->lane[c].waiting_since = 0;
}

/* Begins to watch the entry that was queued last in some class, taking the classes in turn: as if
 * it had been queued now, a pick at most after it was. So queueing itself need not look at any
 * clock. An older sample that was never met went to a thief. */
static void watch_one(struct rv_worker *w)
{
    for (unsigned i = 0; i < RV_CLASSES; i++) {
        w->sample_class = (w->sample_class + 1) % RV_CLASSES;
        struct rv_lane *l = &w->lane[w->sample_class];
        uint64_t tail = rv_load_relaxed(&l->ring.tail);
        uint64_t entry = rv_deque_peek(&l->deque);
        if (rv_runq_len(&l->ring) != 0)
            entry = rv_load_relaxed(&l->ring.slots[(tail - 1) % RV_RUNQ_SLOTS]);
        if (entry == 0)
            continue;
        w->sample = entry;
        w->sample_at = l->waiting_since = w->now;
        w->sample_tsc = w->sched->pass_tsc ? rv_tsc() : 0;
        return;
    }
}

/* Ends the timing of a pick; true: begins that of the next. */
static __attribute__((noinline, cold)) void time_run(struct rv_worker *w, struct rv_task *t,
                                                     bool begin)
{
    rv_stop_timing(w);
    if (begin)
        watch_one(w);
    if (!begin || w->sched->pass_tsc == 0)
        return;
    w->run_tsc = rv_tsc();
    w->run_class = rv_class(t);
}

/* Counts the pick; the last of each RV_SAMPLE_EVERY is timed until the next. */
static inline void count_pick(struct rv_worker *w, struct rv_task *t, uint64_t entry)
{
    uint64_t picks = rv_load_relaxed(&w->n.picks) + 1;
    rv_store_relaxed(&w->n.picks, picks);
    w->budget--;
    if (__builtin_expect(w->sample == entry, 0))
        count_delay(w);
    if (__builtin_expect((picks & (RV_SAMPLE_EVERY - 2)) == 0, 0))
        time_run(w, t, (picks & 1) == 0);
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
        count_pick(w, t, e);
        return t;
    }
}

void rv_stop_timing(struct rv_worker *w)
{
    if (w->run_tsc) {
        uint64_t ns = (rv_tsc() - w->run_tsc) * 1000 / w->sched->us_tsc;
        rv_hist_add(&w->hists->run[w->run_class], ns);
    }
    w->run_tsc = 0;
    if (w->dated_tsc)
        rv_heap_timed(w);
}
