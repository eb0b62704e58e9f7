/* SPDX-License-Identifier: MIT */
/*
 * once.c -- something that is done once, by whoever comes first.
 *
 *     state   0        not yet done
 *             DONE     done
 *             else     the task that runs it (sync.h: rv_who)
 *
 *     0 -> running        [reeve_once_run]
 *     running -> DONE, 0  [finish]           under the gate's lock: it succeeded, it failed
 *
 * (1) Who waits saw, under the gate's lock, that it was running: so the end of that run lets it go.
 *
 * Threads: tasks.
 */
#include "sched/scope.h"
#include "sched/sync.h"

#define DONE ((uint64_t)1)

struct RV_OVERLAY once {
    RV_ATOMIC(uint64_t) state;
    struct rv_gate gate;
};
_Static_assert(sizeof(struct once) <= sizeof(struct reeve_once), "it must fit");

static int finish(struct once *o, int result)
{
    result = result < 0 ? result : 0;
    rv_lock_acquire(&o->gate.lock);
    RV_ASSERT(rv_load_relaxed(&o->state) & RV_WHO);
    /* Publishes what fn wrote; pairs with the acquire in reeve_once_run(). */
    rv_store_release(&o->state, result < 0 ? 0 : DONE);
    rv_gate_open(&o->gate, result);
    return result;
}

/* It is running. Waits for the end of that run; its result, or why it was not waited for.
 * *ret_again: it is not running any more. */
static int wait_for_it(struct rv_worker *w, struct once *o, reeve_time until, bool *ret_again)
{
    int64_t end;
    struct rv_gate_waiter me;
    int r = rv_wait_bound(w, until, &end);
    if (r < 0)
        return r;
    rv_lock_acquire(&o->gate.lock);
    *ret_again = !(rv_load_relaxed(&o->state) & RV_WHO);
    if (*ret_again) {
        rv_lock_release(&o->gate.lock);
        return 0;
    }
    r = rv_gate_wait(&o->gate, w, &me, end);
    if (!me.w.granted)
        rv_lock_release(&o->gate.lock);
    return r;
}

int reeve_once_run(struct reeve_once *once, reeve_fn *fn, void *arg, reeve_time until)
{
    struct once *o = (struct once *)once;
    uint64_t seen = rv_load_acquire(&o->state); /* pairs with the release in finish() */
    if (__builtin_expect(seen == DONE, 1))
        return 0;
    struct rv_worker *w = rv_in_task("reeve_once_run");
    uint64_t who = rv_who(w->cur) & RV_WHO;
    for (;; seen = rv_load_acquire(&o->state)) {
        if (seen == DONE)
            return 0;
        if (seen == 0) {
            if (rv_cas(&o->state, &seen, who))
                return finish(o, fn(arg));
            continue;
        }
        if (seen == who)
            rv_die("reeve_once_run was called by the very function that it is running.");
        bool again = false;
        int r = wait_for_it(w, o, until, &again);
        if (!again)
            return r;
    }
}
