/* SPDX-License-Identifier: MIT */
/*
 * cache_task.c -- spawning past the caller's own scope.
 *
 * (1) The outermost scope is open while any task of it runs, and the caller is one of those: what
 *     it enters there cannot be too late. Only strangers have to ask whether the runtime is
 *     closing.
 *
 * Threads: any.
 */
#include "runtime/cache_task.h"

#include "sched/ready.h"
#include "sched/sched.h"
#include "sched/scope.h"

int rv_cache_spawn(struct rv_sched *s, const struct reeve_spawn *how)
{
    struct rv_worker *w = rv_worker_self();
    struct rv_task *t;
    if (w == NULL || w->sched != s || w->cur == NULL)
        return rv_sched_post(s, how);
    struct reeve_spawn same = *how;
    if (same.priority == 0)
        same.priority = (int)rv_cls(w->cur);
    int r = rv_task_make(s, NULL, s->work, &same, false, &t);
    if (r < 0)
        return r;
    rv_count(&w->n.spawned, 1);
    rv_fresh(s, w, t);
    return 0;
}
