/* SPDX-License-Identifier: MIT */
/*
 * injector.c -- the queue that all workers share: what foreign threads post, and what found a
 * queue full.
 *
 * A list under a lock, with its length beside it so that looking costs a load. Its nodes are in
 * the tasks, so it cannot be full and allocates nothing: its bound is tasks_max.
 *
 * Threads: any.
 */
#include "sched/pick.h"

#include "mem/die.h"

void rv_inject(struct rv_sched *s, struct rv_msg *m)
{
    struct rv_injector *in = &s->injector;
    RV_ASSERT(m->kind == RV_MSG_FRESH || m->kind == RV_MSG_READY);
    m->link.next = NULL;
    rv_lock_acquire(&in->lock);
    if (in->head)
        in->tail->link.next = &m->link;
    else
        in->head = m;
    in->tail = m;
    rv_store_relaxed(&in->len, rv_load_relaxed(&in->len) + 1);
    rv_store_relaxed(&in->total, rv_load_relaxed(&in->total) + 1);
    rv_lock_release(&in->lock);
}

struct rv_msg *rv_injector_take(struct rv_sched *s)
{
    struct rv_injector *in = &s->injector;
    if (rv_load_relaxed(&in->len) == 0)
        return NULL;
    rv_lock_acquire(&in->lock);
    struct rv_msg *m = in->head;
    if (m) {
        in->head = rv_msg_next(m);
        rv_store_relaxed(&in->len, rv_load_relaxed(&in->len) - 1);
    }
    rv_lock_release(&in->lock);
    RV_ASSERT(m == NULL || m->kind != 0);
    return m;
}
