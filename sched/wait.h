/* SPDX-License-Identifier: MIT */
/*
 * wait.h -- suspension: the one way in which a task waits for anything.
 *
 *     int r = rv_wait_check(s, t);             // cancelled already?
 *     uint64_t token = rv_wait_arm(s, t, 0);
 *     ... publish the token where the waker will look ...
 *     switch (rv_wait_park(w, t, rv_deadline(t, deadline))) ...
 *     w = rv_worker_self();                    // it may be another one now
 */
#ifndef RV_SCHED_WAIT_H
#define RV_SCHED_WAIT_H

#include <errno.h>

#include "sched/scope.h"
#include "sched/worker.h"

/* Why a wait ended. */
enum { RV_WOKEN = 1, RV_TIMED_OUT, RV_CANCELLED };
enum { RV_WW_IDLE, RV_WW_ARMED, RV_WW_PARKED, RV_WW_FIRED }; /* low 2 bits; reason in bits 2..3 */

/* The effective deadline of a wait by the running task: the earlier of the argument and its own;
 * RV_NEVER: none. */
static inline int64_t rv_deadline(struct rv_task *t, int64_t deadline)
{
    int64_t until = deadline ? deadline : RV_NEVER;
    int64_t own = t->deadline;
    if (own == 0 || own >= until || rv_load_relaxed(&t->ctl) & RV_CTL_MASKED)
        return until;
    return own;
}

/* The task is cancelled, and neither masks that nor is shielded from it. */
static inline bool rv_is_cancelled(uint64_t ctl)
{
    return (ctl & (RV_CTL_CANCELLED | RV_CTL_MASKED | RV_CTL_SHIELDED)) == RV_CTL_CANCELLED;
}

/* 0, or what a wait that begins now must return at once: -ECANCELED when the task is cancelled. (A
 * passed deadline does not refuse: the wait is tried once, see rv_wait_park.) */
static inline int rv_wait_check(struct rv_sched *s, struct rv_task *t)
{
    if (__builtin_expect(!rv_linked(t), 0))
        rv_scope_link(s, t);
    uint64_t ctl = rv_load_relaxed(&t->ctl);
    return rv_is_cancelled(ctl) ? -ECANCELED : 0;
}
/* Arms the running task's wait word and returns the token by which any thread may end this one
 * wait: publish it where the waker will look, then park. With op != 0 (an I/O op's id, which the
 * engine's cancel understands) only the op's final completion may fire the wait: deadline and
 * cancellation go through the engine's cancel. An armed wait that turns out unnecessary is ended
 * by rv_wait_disarm, which returns false if it was fired already. */
uint64_t rv_wait_arm(struct rv_sched *s, struct rv_task *t, uint64_t op);
bool rv_wait_disarm(struct rv_task *t);
/* Suspends the running task until its armed wait is fired, `until` (see rv_deadline) passes, or it
 * is cancelled; returns RV_WOKEN, RV_TIMED_OUT or RV_CANCELLED; for an op always RV_WOKEN, see
 * rv_wait_why. An `until` already past still lets the engine submit the op and complete it once;
 * without an op it returns at once. The worker may have changed. */
int rv_wait_park(struct rv_worker *w, struct rv_task *t, int64_t until);
/* Cleanup that must wait although the task is cancelled or late masks both for itself. */
void rv_wait_mask(struct rv_task *t, bool on);
/* After an op's wait that ended in cancellation: -ETIMEDOUT or -ECANCELED, whichever asked for it;
 * 0: nobody did. */
int rv_wait_why(struct rv_sched *s, struct rv_task *t);
/* Ends the wait with the reason unless it has ended. True for the one caller that did. Any thread;
 * w NULL on foreign ones. home: worker to resume on, or UINT32_MAX for the caller's. */
bool rv_wait_fire(struct rv_sched *s, struct rv_worker *w, uint64_t token, unsigned reason,
                  uint32_t home);
/* The same in two steps. claim: the caller's alone from now on, and still asleep; what the wait was
 * before, ARMED or PARKED, or IDLE for whoever came too late. Then, for one that was PARKED,
 * rv_ready_on() lets the task run; one that was ARMED goes on by itself, maybe at once. */
unsigned rv_wait_claim(struct rv_sched *s, uint64_t token, unsigned reason);
/* Fires or cancels whatever wait the task is in because it was cancelled. */
void rv_wait_kick(struct rv_sched *s, struct rv_worker *w, struct rv_task *t);
/* Fires every timer that is due. */
void rv_wait_timers(struct rv_worker *w);
/* The same for the worker `of`, by the holder of its loan, to which what is woken goes. */
void rv_wait_timers_for(struct rv_worker *by, struct rv_worker *of, int64_t now);
/* For dispatch.c: the stack of the parking task has been left. */
void rv_wait_parked(struct rv_worker *w, struct rv_task *t);
/* Adds an entry to the worker's heap, sweeping stale ones out when it has doubled. */
void rv_timer_push(struct rv_worker *w, struct rv_timer e);

#endif
