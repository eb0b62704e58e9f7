/* SPDX-License-Identifier: MIT */
/*
 * time.c -- the calls of time.h.
 *
 * A worker reads the time from its own fast clock; a foreign thread, and one inside a simulation,
 * from where its engine says.
 *
 * Threads: any; reeve_sleep - a task.
 */
#include <reeve/time.h>
#include <errno.h>

#include "mem/die.h"
#include "sched/dispatch.h"
#include "sched/scope.h"
#include "sched/wait.h"

reeve_time reeve_now(void)
{
    struct rv_worker *w = rv_worker_self();
    return w ? rv_worker_now(w) : rv_clock_ns();
}

reeve_time reeve_in(int64_t ns)
{
    int64_t now = reeve_now();
    if (ns > RV_NEVER - 1 - now)
        return RV_NEVER - 1;
    return now + ns != 0 ? now + ns : REEVE_POLL; /* 0 would mean the task's own */
}

int reeve_sleep(reeve_time until)
{
    struct rv_worker *w = rv_in_task("reeve_sleep");
    struct rv_sched *s = w->sched;
    struct rv_task *t = w->cur;
    /* a yield, whatever it returns: a loop that polls must not hog its worker */
    if (until <= w->now) {
        rv_yield(w);
        int r = rv_wait_check(s, t);
        if (__builtin_expect(r < 0, 0))
            return r;
        if (t->deadline == 0)
            return 0;
        return rv_deadline(t, 0) <= rv_worker_now(rv_worker_self()) ? -ETIMEDOUT : 0;
    }
    int r = rv_wait_check(s, t);
    if (r < 0)
        return r;
    int64_t end = rv_deadline(t, until);
    rv_wait_arm(s, t, 0);
    if (rv_wait_park(w, t, end) == RV_CANCELLED)
        return -ECANCELED;
    return end < until ? -ETIMEDOUT : 0;
}
