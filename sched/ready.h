/* SPDX-License-Identifier: MIT */
/*
 * ready.h -- where a task that may run is put.
 */
#ifndef RV_SCHED_READY_H
#define RV_SCHED_READY_H

#include "sched/park.h"
#include "sched/worker.h"

/* The class in which a task runs now, as an index: its own, or a better one that it was lent
 * because somebody of that class waits for it. */
static inline unsigned rv_class_by(const struct rv_task *t, uint64_t ctl)
{
    unsigned own = rv_cls(t), lent = RV_MANY_CLASSES ? ctl >> RV_CTL_LENT_SHIFT & 7 : 0;
    return (lent > own ? lent : own) - 1;
}
static inline unsigned rv_class(struct rv_task *t)
{
    return rv_class_by(t, rv_load_relaxed(&t->ctl));
}

static inline struct rv_task *rv_task_of_msg(struct rv_msg *m)
{
    return (struct rv_task *)((unsigned char *)m - offsetof(struct rv_task, msg));
}
static inline uint64_t rv_entry_of(struct rv_sched *s, struct rv_task *t, bool fresh)
{
    return rv_entry(rv_task_gen(t), rv_task_index(s, t), fresh);
}
static inline uint64_t rv_msg_entry(struct rv_sched *s, struct rv_msg *m)
{
    return rv_entry_of(s, rv_task_of_msg(m), m->kind == RV_MSG_FRESH);
}

/* Writes the published line if it has changed. */
static inline void rv_show(struct rv_worker *w)
{
    uint32_t shown = w->ready & ~w->hidden;
    if (rv_load_relaxed(&w->shown) != shown)
        rv_store_relaxed(&w->shown, shown);
}

/* It queues like most: NORMAL, not pinned, without a deadline of its own. */
static inline bool rv_is_ordinary(const struct rv_task *t, uint64_t ctl)
{
    uint64_t lent = RV_MANY_CLASSES ? ctl & (uint64_t)7 << RV_CTL_LENT_SHIFT : 0;
    return ((t->flags & RV_TF_SPECIAL) | lent) == 0;
}

/* Makes a woken task ready: on this worker (w NULL: a foreign thread), or where it is pinned.
 * Woken by a running task it gets the slot. */
void rv_ready(struct rv_sched *s, struct rv_worker *w, struct rv_task *t);
/* The same, but never into the slot. */
void rv_ready_fifo(struct rv_sched *s, struct rv_worker *w, struct rv_task *t);
/* The same for one that yields: behind everybody of its class, whatever its deadline. One that
 * yields until another has done something must not be in the way of that other. */
void rv_ready_last(struct rv_sched *s, struct rv_worker *w, struct rv_task *t);
/* The same, on worker `home` (UINT32_MAX: this one): where the task's stream lives. */
void rv_ready_on(struct rv_sched *s, struct rv_worker *w, struct rv_task *t, uint32_t home);
/* Adds an entry to the ring of its class, or to the injector. */
void rv_push_ring(struct rv_worker *w, unsigned c, uint64_t entry, struct rv_msg *m);

void rv_fresh_slow(struct rv_sched *s, struct rv_worker *w, struct rv_task *t);
/* Makes a fresh task startable: deque or heap of its class, the worker that it is pinned to, or the
 * injector. */
static inline void rv_fresh(struct rv_sched *s, struct rv_worker *w, struct rv_task *t)
{
    if (w == NULL || t->flags & RV_TF_SPECIAL) {
        rv_fresh_slow(s, w, t);
        return;
    }
    struct rv_lane *l = &w->lane[RV_NORMAL];
    if (rv_deque_push(&l->deque, rv_entry_of(s, t, true)))
        rv_notify(w);
    else
        rv_fresh_slow(s, w, t);
}
/* The same, to start on that worker and then anywhere: a new connection's handler. */
void rv_fresh_on(struct rv_sched *s, struct rv_worker *w, struct rv_task *t, uint32_t where);
/* A task message from the inbox. */
void rv_task_message(struct rv_worker *w, struct rv_msg *m);
/* The same from the inbox of another worker, whose loan `by` holds. */
void rv_task_message_for(struct rv_worker *by, struct rv_worker *of, struct rv_msg *m);

/* ---- heap.c: deadlines of their own ---- */

void rv_heap_push(struct rv_worker *w, unsigned c, struct rv_task *t, uint64_t entry);
/* The entry of class c that is due first, of this worker's heap and the injector's; 0: none. */
uint64_t rv_heap_take(struct rv_worker *w, unsigned c);
/* What was taken from a heap has run until now: so long do such tasks take. */
void rv_heap_timed(struct rv_worker *w);
/* True if it goes before whoever has waited longest in the queues of its class. */
bool rv_heap_is_due(struct rv_worker *w, unsigned c);
/* Drops entries whose tasks were claimed, when there may be many. */
void rv_heap_tidy(struct rv_worker *w, unsigned c);
/* Asks another worker to hand over the better half of its heaps, by way of the injector. */
void rv_heap_ask(struct rv_worker *w, struct rv_worker *victim);

/* ---- boost.c ---- */

/* Lends the task class cls (REEVE_*) until rv_unboost() was called as often as this returned true;
 * false: it is over, nothing happened. The task is named, not followed: it may be over. Any
 * thread. */
bool rv_boost(struct rv_sched *s, uint32_t idx, uint32_t gen, unsigned cls);
/* The same without counting: for who has counted before and now asks for more. */
bool rv_boost_raise(struct rv_sched *s, uint32_t idx, uint32_t gen, unsigned cls);
void rv_unboost(struct rv_task *t);
/* For a task that runs here: lends it the class, uncounted, to its end. */
void rv_lend(struct rv_task *t, unsigned cls);
/* Moves entries of this worker's queues to the class that their tasks are in now. */
void rv_promote(struct rv_worker *w);

/* ---- injector.c ---- */

int rv_injector_init(struct rv_injector *in, uint32_t cap);
void rv_injector_finish(struct rv_injector *in);
void rv_inject(struct rv_sched *s, struct rv_msg *m);
void rv_inject_dated(struct rv_sched *s, unsigned c, const struct rv_timer *e, uint32_t n);
struct rv_msg *rv_injector_take(struct rv_sched *s, unsigned c);
/* A fair share of the list of class c, at most `most` (not 0), as a list; NULL: it is empty. */
struct rv_msg *rv_injector_take_share(struct rv_sched *s, unsigned c, uint32_t most);
uint64_t rv_injector_take_dated(struct rv_sched *s, unsigned c);
void rv_injector_promote(struct rv_sched *s);

#endif
