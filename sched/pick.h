/* SPDX-License-Identifier: MIT */
/*
 * pick.h -- which task runs next, and where a task that may run is put.
 */
#ifndef RV_SCHED_PICK_H
#define RV_SCHED_PICK_H

#include "sched/admit.h"
#include "sched/park.h"
#include "sched/ready.h"
#include "sched/worker.h"

/* So many picks in a row the slot wins while others wait. */
enum { RV_SLOT_RUN_MAX = 3 };
/* Where the slot's task is what rv_pick() would choose: chooses it, without the search; it has a
 * stack. NULL: it takes a search to know. */
static inline struct rv_task *rv_pick_slot(struct rv_worker *w)
{
    uint64_t e = rv_load_relaxed(&w->slot), picks = rv_load_relaxed(&w->n.picks) + 1;
    struct rv_lane *l = &w->lane[RV_NORMAL];
    /* A stolen entry may be fresh: rv_pick() claims it, and finds a stack. */
    if (e == 0 || rv_entry_fresh(e) || e == w->sample || w->slot_run >= RV_SLOT_RUN_MAX ||
        w->injector_in <= 1 || l->oldest_in <= 1 || (w->budget & w->clock_mask) == 0 ||
        (picks & (RV_SAMPLE_EVERY - 2)) == 0 ||
        (RV_MANY_CLASSES && (w->ready | rv_load_relaxed(&w->sched->injector.ready)) != 0))
        return NULL;
    if (w->sched->nworkers == 1)
        rv_store_relaxed(&w->slot, 0);
    else if ((e = rv_xchg_acq_rel(&w->slot, 0)) == 0) /* a thief's; pairs with fill_slot() */
        return NULL;
    w->injector_in--;
    l->oldest_in--;
    w->slot_run++;
    w->budget--;
    rv_store_relaxed(&w->n.picks, picks);
    return rv_task_at(w->sched, rv_entry_index(e));
}
/* The next task of this worker's own queues and the injector, claimed; NULL: none. Counts as a
 * pick of the pass.
 * *ret_fresh: it has no stack yet. */
struct rv_task *rv_pick(struct rv_worker *w, bool *ret_fresh);
/* Takes what a queue entry names: the task, or NULL when somebody claimed it before. */
struct rv_task *rv_claim(struct rv_worker *w, uint64_t entry, bool *ret_fresh);
/* Somebody wants a pass boundary; or tasks of a better class than NORMAL wait for I/O of this
 * worker's, and some has completed. */
bool rv_pass_broken(struct rv_worker *w);
/* The pass has used up its picks or its time, somebody wants a pass boundary, or better tasks do.
 * */
static inline bool rv_pass_over(struct rv_worker *w)
{
    if (RV_MANY_CLASSES && __builtin_expect(rv_load_relaxed(&w->resched), 0) && rv_pass_broken(w))
        return true;
    return w->budget <= 0;
}
/* Around a task's wait for I/O of worker w's; `end` wherever it runs then. */
static inline bool rv_urgent_begin(struct rv_worker *w, struct rv_task *t)
{
    bool urgent = rv_class(t) > RV_NORMAL;
    if (__builtin_expect(urgent, 0)) {
        rv_add_relaxed(&w->urgent_io, 1u);
        /* Each pass begins so from now on. */
        rv_or_relaxed(&w->resched, (uint32_t)RV_RESCHED_WATCH);
    }
    return urgent;
}
static inline void rv_urgent_end(struct rv_worker *w, bool urgent)
{
    if (__builtin_expect(urgent, 0))
        rv_sub_relaxed(&w->urgent_io, 1u);
}
/* The running task had better let others run: the pass is over, a better class waits, or I/O that
 * better tasks wait for is done. */
static inline bool rv_need_resched(struct rv_worker *w)
{
    if (rv_pass_over(w))
        return true;
    uint32_t ready = w->ready | rv_load_relaxed(&w->sched->injector.ready);
    uint32_t classes = (ready | ready >> 4) & 15;
    return classes >> (rv_class(w->cur) + 1) != 0;
}
/* To be called at each pick: looks at the clock at every 8th, or at each where picks are so long
 * that looking costs nothing beside them, and ends the pass after it if the time is used up. */
static inline void rv_look_at_clock(struct rv_worker *w)
{
    uint64_t limit = w->sched->pass_tsc;
    if ((w->budget & w->clock_mask) == 0 && limit && rv_tsc() - w->pass_tsc > limit)
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
    struct rv_lane *l = &w->lane[RV_NORMAL];
    return rv_load_relaxed(&l->ring.head) != rv_load_relaxed(&l->ring.tail) ||
           rv_load_relaxed(&l->deque.bottom) != rv_load_relaxed(&l->deque.top) ||
           l->pinned_head != NULL || rv_load_relaxed(&w->slot) != 0 ||
           (RV_MANY_CLASSES && w->ready != 0) ||
           rv_load_relaxed(&w->sched->injector.len) != 0;
}
/* How many tasks wait in this worker's own queues. */
uint32_t rv_queued(struct rv_worker *w);

/* Pops claimed entries off the newest end of the lane's deque until it meets a live one. */
void rv_pop_claimed(struct rv_worker *w, struct rv_lane *l);
/* Drops claimed entries wherever they lie, when there may be many. */
void rv_tidy_deque(struct rv_worker *w, struct rv_lane *l);
/* Clears what `ready` says of queues that thieves have emptied: others look at it before they go to
 * sleep. */
void rv_tidy_ready(struct rv_worker *w);
/* The worker leaves its last task for its own context: ends the timing of a pick. */
void rv_stop_timing(struct rv_worker *w);

/* Takes work from other workers into this one's queues; false: found none. last_pass: the slot of
 * a victim too, if its task has waited there for long. */
bool rv_steal(struct rv_worker *w, bool last_pass);
/* At a pass boundary: takes over, or asks for, a better class or an earlier deadline than this
 * worker has, if one randomly chosen other shows any. */
void rv_look_elsewhere(struct rv_worker *w);
uint32_t rv_random(struct rv_worker *w);

#endif
