/* SPDX-License-Identifier: MIT */
/*
 * pick.h -- which task runs next, and where a task that may run is put.
 */
#ifndef RV_SCHED_PICK_H
#define RV_SCHED_PICK_H

#include "sched/worker.h"

/* The next task of this worker's own queues and the injector, claimed; NULL: none. Counts as a
 * pick of the pass.
 * *ret_fresh: it has no stack yet. */
struct rv_task *rv_pick(struct rv_worker *w, bool *ret_fresh);
/* Takes what a queue entry names: the task, or NULL when somebody claimed it before. */
struct rv_task *rv_claim(struct rv_worker *w, uint64_t entry, bool *ret_fresh);
/* The pass has used up its picks or its time, or somebody wants a pass boundary. */
bool rv_pass_over(struct rv_worker *w);
/* How many tasks wait in this worker's own queues. */
uint32_t rv_queued(struct rv_worker *w);

/* Makes a woken task ready: on this worker (w NULL: a foreign thread), or where it is pinned.
 * Woken by a running task it gets the slot. */
void rv_ready(struct rv_sched *s, struct rv_worker *w, struct rv_task *t);
/* The same, but behind everybody: yields. */
void rv_ready_fifo(struct rv_sched *s, struct rv_worker *w, struct rv_task *t);
/* The same, on worker `home` (UINT32_MAX: this one): where the task's stream lives. */
void rv_ready_on(struct rv_sched *s, struct rv_worker *w, struct rv_task *t, uint32_t home);
/* Makes a fresh task startable: deque, the worker that it is pinned to, or the injector. */
void rv_fresh(struct rv_sched *s, struct rv_worker *w, struct rv_task *t);
/* The same, to start on that worker and then anywhere: a new connection's handler. */
void rv_fresh_on(struct rv_sched *s, struct rv_worker *w, struct rv_task *t, uint32_t where);
/* Pops claimed entries off the newest end of the deque until it meets a live one. */
void rv_pop_claimed(struct rv_worker *w);
/* A task message from the inbox. */
void rv_task_message(struct rv_worker *w, struct rv_msg *m);

void rv_inject(struct rv_sched *s, struct rv_msg *m);
struct rv_msg *rv_injector_take(struct rv_sched *s);
/* Takes work from other workers into this one's queues; false: found none. last_pass: the slot of
 * a victim too, if its task has waited there for long. */
bool rv_steal(struct rv_worker *w, bool last_pass);
uint32_t rv_random(struct rv_worker *w);

#endif
