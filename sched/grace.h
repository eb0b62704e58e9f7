/* SPDX-License-Identifier: MIT */
/*
 * grace.h -- waking a task of somebody else's runtime, which may end as soon as the task runs.
 *
 *     with the task's record locked:  unsigned ticket = rv_grace_enter();
 *     without the lock:               ... wake it, touch its scheduler ...
 *                                     rv_grace_leave(ticket);
 *     at the end of a scheduler:      rv_grace_wait();
 */
#ifndef RV_SCHED_GRACE_H
#define RV_SCHED_GRACE_H

/* A ticket, never 0. While anybody holds it, no scheduler goes that was there when it was drawn. */
unsigned rv_grace_enter(void);
void rv_grace_leave(unsigned ticket);
/* Returns when all tickets are back that were drawn before. May sleep: not on a worker. */
void rv_grace_wait(void);
/* In a child of fork: nobody is inside. */
void rv_grace_forked(void);

#endif
