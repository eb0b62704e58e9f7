/* SPDX-License-Identifier: MIT */
/*
 * pick.h -- which task runs next, and where a task that may run is put.
 */
#ifndef RV_SCHED_PICK_H
#define RV_SCHED_PICK_H

#include "sched/park.h"
#include "sched/worker.h"

/* The next task of this worker's own queues and the injector, claimed; NULL: none. Counts as a
 * pick of the pass.
 * *ret_fresh: it has no stack yet. */
struct rv_task *rv_pick(struct rv_worker *w, bool *ret_fresh);
/* Takes what a queue entry names: the task, or NULL when somebody claimed it before. */
struct rv_task *rv_claim(struct rv_worker *w, uint64_t entry, bool *ret_fresh);
/* The pass has used up its picks or its time, or somebody wants a pass boundary. */
static inline bool rv_pass_over(struct rv_worker *w)
{
    return w->budget <= 0 || rv_load_relaxed(&w->resched);
}
/* To be called at each pick: looks at the clock at every 8th, and ends the pass after it if the
 * time is used up. */
static inline void rv_look_at_clock(struct rv_worker *w)
{
    uint64_t limit = w->sched->pass_tsc;
    if (w->budget % 8 == 0 && limit && rv_tsc() - w->pass_tsc > limit)
        w->budget = 1;
}
/* How far a frame lies below the record of its stack, in lines, as far as eight bits count. */
static inline uint8_t rv_depth(const struct rv_stack *st, const void *frame)
{
    uintptr_t lines = ((uintptr_t)st - (uintptr_t)frame) / RV_CACHE_LINE;
    return lines < UINT8_MAX ? (uint8_t)lines : UINT8_MAX;
}
/* False if a pick would certainly find nothing. */
static inline bool rv_any_ready(struct rv_worker *w)
{
    return rv_load_relaxed(&w->runq.head) != rv_load_relaxed(&w->runq.tail) ||
           rv_load_relaxed(&w->deque.bottom) != rv_load_relaxed(&w->deque.top) ||
           w->pinned_head != NULL || rv_load_relaxed(&w->slot) != 0 ||
           rv_load_relaxed(&w->sched->injector.len) != 0;
}
/* How many tasks wait in this worker's own queues. */
uint32_t rv_queued(struct rv_worker *w);

/* Makes a woken task ready: on this worker (w NULL: a foreign thread), or where it is pinned.
 * Woken by a running task it gets the slot. */
void rv_ready(struct rv_sched *s, struct rv_worker *w, struct rv_task *t);
/* The same, but behind everybody: yields. */
void rv_ready_fifo(struct rv_sched *s, struct rv_worker *w, struct rv_task *t);
/* The same, on worker `home` (UINT32_MAX: this one): where the task's stream lives. */
void rv_ready_on(struct rv_sched *s, struct rv_worker *w, struct rv_task *t, uint32_t home);
/* Pops claimed entries off the newest end of the deque until it meets a live one. */
void rv_pop_claimed(struct rv_worker *w);
/* Drops claimed entries wherever they lie, when there may be many. */
void rv_tidy_deque(struct rv_worker *w);
void rv_fresh_slow(struct rv_sched *s, struct rv_worker *w, struct rv_task *t);
/* Makes a fresh task startable: deque, the worker that it is pinned to, or the injector. */
static inline void rv_fresh(struct rv_sched *s, struct rv_worker *w, struct rv_task *t)
{
    if (w == NULL || t->pin != 0) {
        rv_fresh_slow(s, w, t);
        return;
    }
    if (rv_deque_push(&w->deque, rv_entry(rv_task_gen(t), rv_task_index(s, t), true)))
        rv_notify(w);
    else
        rv_fresh_slow(s, w, t);
}
/* The same, to start on that worker and then anywhere: a new connection's handler. */
void rv_fresh_on(struct rv_sched *s, struct rv_worker *w, struct rv_task *t, uint32_t where);
/* A task message from the inbox. */
void rv_task_message(struct rv_worker *w, struct rv_msg *m);

void rv_inject(struct rv_sched *s, struct rv_msg *m);
struct rv_msg *rv_injector_take(struct rv_sched *s);
/* Takes work from other workers into this one's queues; false: found none. last_pass: the slot of
 * a victim too, if its task has waited there for long. */
bool rv_steal(struct rv_worker *w, bool last_pass);
uint32_t rv_random(struct rv_worker *w);

#endif
