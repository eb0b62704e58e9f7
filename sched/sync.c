/* SPDX-License-Identifier: MIT */
/*
 * sync.c -- gates: where tasks wait until all of them are let go at once.
 *
 * The gate's number of rounds tells who is let go: those who came before it changed. Letting many
 * go takes long, and each of them may run out of time meanwhile, or come back and wait again. So
 * they are moved, in one step, to a circle that ends in a record on the opener's stack; the opener
 * grants and wakes a batch of them at a time, and whoever's wait ends by itself unlinks itself,
 * knowing by its round which of the two circles it is in.
 *
 *     in the gate's queue, round == gate's   -> in the opener's circle  [rv_gate_detach]
 *     in the gate's queue                    -> gone                    [rv_gate_wait, in vain]
 *     in the opener's circle, round behind   -> granted                 [rv_gate_open]
 *     in the opener's circle                 -> gone, let_go            [rv_gate_wait]
 *
 * (1) The opener holds the lock when it finds its circle empty, and touches the gate no more.
 *
 * Threads: wait - tasks; open - anyone.
 */
#include "sched/sync.h"

int rv_gate_wait(struct rv_gate *gate, struct rv_worker *w, struct rv_gate_waiter *me, int64_t end)
{
    struct rv_task *t = w->cur;
    me->round = gate->round;
    me->let_go = false;
    rv_waiter_begin(w, &me->w);
    rv_waitq_add(&gate->q, &me->w);
    rv_lock_release(&gate->lock);
    int why = rv_wait_park(w, t, end);
    if (why == RV_WOKEN)
        return me->result;
    rv_lock_acquire(&gate->lock);
    if (me->w.granted) {
        rv_lock_release(&gate->lock);
        return me->result;
    }
    me->let_go = me->round != gate->round;
    if (me->let_go)
        rv_waiter_unlink(&me->w);
    else
        rv_waitq_remove(&gate->q, &me->w);
    return rv_wait_error(why);
}

void rv_gate_detach(struct rv_gate *gate, struct rv_waiter *end)
{
    end->granted = false;
    gate->round++;
    rv_waitq_add(&gate->q, end);
    gate->q.first = NULL;
}

void rv_gate_open(struct rv_gate *gate, int result)
{
    struct rv_waiter end;
    rv_gate_detach(gate, &end);
    for (;;) {
        struct rv_wake wakes[RV_WAKES_MAX];
        int n = 0;
        while (n < RV_WAKES_MAX && end.next != &end) {
            struct rv_gate_waiter *first = (struct rv_gate_waiter *)end.next;
            RV_ASSERT(first->round != gate->round);
            rv_waiter_unlink(&first->w);
            first->result = result;
            wakes[n++] = rv_waiter_grant(&first->w);
        }
        bool more = end.next != &end;
        rv_lock_release(&gate->lock);
        rv_wake_all(wakes, n);
        if (!more)
            return;
        rv_lock_acquire(&gate->lock);
    }
}
