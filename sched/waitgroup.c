/* SPDX-License-Identifier: MIT */
/*
 * waitgroup.c -- a count of what is under way, and a wait until it is 0.
 *
 *     state   63 .. 1  the count    0  somebody waits
 *
 * (1) The bit is set and cleared under the gate's lock, and is only set while the count is not 0.
 * (2) The step to 0 with somebody waiting is made under the lock too: whoever sees 0 may free the
 *     group, so it must be the last that is done to it but for letting the waiters go.
 *
 * Threads: wait - tasks; add, done - anyone.
 */
#include "sched/scope.h"
#include "sched/sync.h"

#define WAITING 1u
#define ONE 2u

struct RV_OVERLAY waitgroup {
    RV_ATOMIC(uint64_t) state;
    struct rv_gate gate;
};
_Static_assert(sizeof(struct waitgroup) <= sizeof(struct reeve_waitgroup), "it must fit");

void reeve_waitgroup_add(struct reeve_waitgroup *group, uint32_t n)
{
    struct waitgroup *g = (struct waitgroup *)group;
    (void)rv_add_relaxed(&g->state, (uint64_t)n * ONE);
}

/* The last is done, and somebody waits. False: it is not so any more. */
static bool open_it(struct waitgroup *g)
{
    rv_lock_acquire(&g->gate.lock);
    uint64_t seen = WAITING | ONE;
    /* Releases, and acquires what those before us released, for who finds 0. */
    if (rv_cas(&g->state, &seen, (uint64_t)0)) {
        rv_gate_open(&g->gate, 0);
        return true;
    }
    rv_lock_release(&g->gate.lock);
    return false;
}

void reeve_waitgroup_done(struct reeve_waitgroup *group)
{
    struct waitgroup *g = (struct waitgroup *)group;
    uint64_t seen = rv_load_relaxed(&g->state);
    for (;;) {
        if (seen < ONE)
            rv_die("reeve_waitgroup_done was called more often than was added.");
        if (seen == (WAITING | ONE)) {
            if (open_it(g))
                return;
            seen = rv_load_relaxed(&g->state);
        } else if (rv_cas(&g->state, &seen, seen - ONE)) { /* pairs with who finds 0 */
            return;
        }
    }
}

/* Under the lock: waits, or finds that there is nothing to wait for. */
static int wait_for_zero(struct rv_worker *w, struct waitgroup *g, int64_t end)
{
    struct rv_gate_waiter me;
    uint64_t seen = rv_load_acquire(&g->state);
    do {
        if (seen == 0) {
            rv_lock_release(&g->gate.lock);
            return 0;
        }
    } while (!rv_cas(&g->state, &seen, seen | WAITING));
    int r = rv_gate_wait(&g->gate, w, &me, end);
    if (me.w.granted)
        return r;
    if (me.let_go)
        r = 0;
    else if (g->gate.q.first == NULL)
        rv_and_acq_rel(&g->state, ~(uint64_t)WAITING);
    rv_lock_release(&g->gate.lock);
    return r;
}

int reeve_waitgroup_wait(struct reeve_waitgroup *group, reeve_time until)
{
    struct rv_worker *w = rv_in_task("reeve_waitgroup_wait");
    struct waitgroup *g = (struct waitgroup *)group;
    int64_t end;
    if (rv_load_acquire(&g->state) == 0) /* pairs with every done */
        return 0;
    int r = rv_wait_bound(w, until, &end);
    if (r < 0)
        return r;
    rv_lock_acquire(&g->gate.lock);
    return wait_for_zero(w, g, end);
}
