/* SPDX-License-Identifier: MIT */
/*
 * barrier.c -- n tasks wait for each other.
 *
 * (1) Who is counted is in the gate's queue, and the other way round: both change under its lock,
 *     and the last to come, which is in neither, sets the count to 0 and opens.
 * (2) Whoever's wait ends by itself after that was let go: it counted.
 *
 * Threads: wait - tasks.
 */
#include "sched/scope.h"
#include "sched/sync.h"

struct RV_OVERLAY barrier {
    uint32_t n;    /* constant */
    uint32_t here; /* under the gate's lock */
    struct rv_gate gate;
};
_Static_assert(sizeof(struct barrier) <= sizeof(struct reeve_barrier), "it must fit");

int reeve_barrier_init(struct reeve_barrier *barrier, uint32_t n)
{
    if (n == 0)
        return -EINVAL;
    *(struct barrier *)barrier = (struct barrier){ .n = n };
    return 0;
}

/* The last to come opens. The gate's lock is held and comes back released. */
static int come_last(struct barrier *b)
{
    b->here = 0;
    rv_gate_open(&b->gate, 0);
    return 1;
}

int reeve_barrier_wait(struct reeve_barrier *barrier, reeve_time until)
{
    struct rv_worker *w = rv_in_task("reeve_barrier_wait");
    struct barrier *b = (struct barrier *)barrier;
    if (b->n == 0)
        rv_die("reeve_barrier_wait was called on a barrier that was not initialised.");
    int64_t end;
    struct rv_gate_waiter me;
    int bound = rv_wait_bound(w, until, &end);
    rv_lock_acquire(&b->gate.lock);
    RV_ASSERT(b->here < b->n);
    if (b->here + 1 == b->n)
        return come_last(b);
    if (bound < 0) {
        rv_lock_release(&b->gate.lock);
        return bound;
    }
    b->here++;
    int r = rv_gate_wait(&b->gate, w, &me, end);
    if (me.w.granted)
        return r;
    if (me.let_go)
        r = 0;
    else
        b->here--;
    rv_lock_release(&b->gate.lock);
    return r;
}
