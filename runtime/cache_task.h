/* SPDX-License-Identifier: MIT */
/*
 * cache_task.h -- tasks that belong to no task, but to the runtime.
 */
#ifndef RV_RUNTIME_CACHE_TASK_H
#define RV_RUNTIME_CACHE_TASK_H

#include <reeve/task.h>

struct rv_sched;

/* Spawns into the scheduler's outermost scope: what the caller's task does, or is told, does not
 * concern it. A task of this scheduler can do so as long as it runs, in its own class; anybody else
 * posts, and is refused once the runtime is closing. 0, -EAGAIN, -ENOMEM, -ESHUTDOWN. */
int rv_cache_spawn(struct rv_sched *s, const struct reeve_spawn *how);

#endif
