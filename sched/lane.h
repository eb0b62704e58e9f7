/* SPDX-License-Identifier: MIT */
/*
 * lane.h -- the queues of one class on one worker.
 *
 *     deque    fresh tasks, newest first; thieves take the oldest
 *     ring     woken tasks, first in first out; thieves take half
 *     heap     tasks with a deadline of their own, earliest first; nobody steals from it, but the
 *              owner hands half of it over when it is asked to
 *     pinned   tasks that must run here, first in first out
 *
 * Threads: the owner; ring and deque also thieves.
 */
#ifndef RV_SCHED_LANE_H
#define RV_SCHED_LANE_H

#include <stdint.h>

#include "sched/deque.h"
#include "sched/inbox.h"
#include "sched/runq.h"
#include "sched/timers.h"

/* Classes as indices: REEVE_LOW - 1 .. REEVE_URGENT - 1. */
enum { RV_LOW, RV_NORMAL, RV_HIGH, RV_URGENT, RV_CLASSES };

/* In a mask of what may be ready: the queues of class c, and its heap. */
#define RV_READY_QUEUES(c) (1u << (c))
#define RV_READY_HEAP(c) (16u << (c))

struct rv_lane {
    struct rv_msg *pinned_head, *pinned_tail;
    uint32_t pinned_len;
    uint32_t turn;      /* the queues are served in turn */
    int32_t oldest_in;  /* picks until the deque's oldest end is served */
    uint32_t stale;     /* at most so many entries of the deque were claimed by a joiner */
    uint32_t heap_stale;
    uint32_t heap_run;  /* picks in a row that the heap won */
    int64_t dated_ns;   /* smoothed run time of what came from the heap */
    int64_t waiting_since; /* when some entry that may still be queued was; 0: unknown */
    struct rv_timers heap; /* at: the deadline; task, seq: the entry's halves */
    struct rv_runq ring;
    struct rv_deque deque;
};

/* A queue entry as an element of a heap, and back. */
static inline struct rv_timer rv_heap_entry(int64_t deadline, uint64_t entry)
{
    return (struct rv_timer){ deadline, (uint32_t)entry, (uint32_t)(entry >> 32) };
}
static inline uint64_t rv_entry_of_heap(struct rv_timer e)
{
    return (uint64_t)e.seq << 32 | e.task;
}

/* What thieves may take: too many or too few for everybody but the owner. */
static inline uint32_t rv_lane_stealable(struct rv_lane *l)
{
    return rv_runq_len(&l->ring) + (uint32_t)rv_deque_len(&l->deque);
}

#endif
