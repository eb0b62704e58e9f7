/* SPDX-License-Identifier: MIT */
/*
 * injector.c -- the queue that all workers share: what foreign threads post, what found a queue
 * full, and deadlines that a worker was asked to share.
 *
 * For each class a list, first in first out, and a heap of those with a deadline of their own, all
 * under one lock. What there is can be seen without it: `ready` has a bit for each list of another
 * class than NORMAL and for each heap. Lists are linked through the tasks, and a heap has room for
 * all tasks there can be, so nothing here allocates or is full.
 *
 * A worker takes its share of a list at a time, and queues what it does not run at once in its own
 * ring, where others can steal it: with many posts the lock is taken for one in a hundred.
 *
 * Threads: any.
 */
#include "sched/pick.h"

#include <errno.h>

#include "mem/die.h"
#include "sched/ready.h"
#include "sched/sched.h"

int rv_injector_init(struct rv_injector *in, uint32_t cap)
{
    int r = 0;
    for (unsigned c = 0; c < RV_CLASSES && r == 0; c++) {
        rv_store_relaxed(&in->of[c].earliest, RV_NEVER);
        r = rv_timers_init(&in->of[c].heap, cap);
    }
    return r;
}

void rv_injector_finish(struct rv_injector *in)
{
    for (unsigned c = 0; c < RV_CLASSES; c++)
        rv_timers_finish(&in->of[c].heap);
}

/* Under the lock. */
static void count(struct rv_injector *in, int n)
{
    rv_store_relaxed(&in->len, rv_load_relaxed(&in->len) + (uint32_t)n);
    if (n > 0)
        rv_store_relaxed(&in->total, rv_load_relaxed(&in->total) + (uint64_t)n);
}

static void show(struct rv_injector *in, uint32_t bit, bool any)
{
    uint32_t ready = rv_load_relaxed(&in->ready);
    uint32_t now = any ? ready | bit : ready & ~bit;
    if (now != ready)
        rv_store_relaxed(&in->ready, now);
}

static void heap_changed(struct rv_injector *in, unsigned c)
{
    const struct rv_timer *min = rv_timers_min(&in->of[c].heap);
    rv_store_relaxed(&in->of[c].earliest, min ? min->at : RV_NEVER);
    show(in, RV_READY_HEAP(c), min != NULL);
}

static void add_last(struct rv_injector *in, unsigned c, struct rv_msg *m)
{
    m->link.next = NULL;
    if (in->of[c].head)
        in->of[c].tail->link.next = &m->link;
    else
        in->of[c].head = m;
    in->of[c].tail = m;
    rv_store_relaxed(&in->of[c].len, rv_load_relaxed(&in->of[c].len) + 1);
    if (c != RV_NORMAL)
        show(in, RV_READY_QUEUES(c), true);
}

void rv_inject(struct rv_sched *s, struct rv_msg *m)
{
    struct rv_injector *in = &s->injector;
    RV_ASSERT(m->kind == RV_MSG_FRESH || m->kind == RV_MSG_READY);
    struct rv_task *t = rv_task_of_msg(m);
    unsigned c = rv_class(t);
    rv_lock_acquire(&in->lock);
    if (t->flags & RV_TF_DATED) {
        RV_MUST(rv_timers_push(&in->of[c].heap, rv_heap_entry(t->deadline, rv_msg_entry(s, m))));
        heap_changed(in, c);
    } else {
        add_last(in, c, m);
        if (in->of[c].sample == NULL) {
            in->of[c].sample = m;
            in->of[c].sample_at = rv_sched_now(s);
        }
    }
    count(in, 1);
    rv_lock_release(&in->lock);
}

/* Ends the watch, if m is what was watched: since when, else 0. Under the lock. */
static int64_t watched(struct rv_injector *in, unsigned c, const struct rv_msg *m)
{
    if (in->of[c].sample != m)
        return 0;
    in->of[c].sample = NULL;
    return in->of[c].sample_at;
}

static void count_delay(struct rv_sched *s, unsigned c, int64_t since)
{
    struct rv_worker *w = rv_worker_self();
    uint64_t ns = (uint64_t)(rv_sched_now(s) - since);
    if (w == NULL || w->sched != s)
        return;
    rv_hist_add(&w->hists->delay[c], ns);
    rv_admit_sample(w, c, ns);
}

void rv_inject_dated(struct rv_sched *s, unsigned c, const struct rv_timer *e, uint32_t n)
{
    struct rv_injector *in = &s->injector;
    RV_ASSERT(n > 0 && c < RV_CLASSES);
    rv_lock_acquire(&in->lock);
    for (uint32_t i = 0; i < n; i++)
        RV_MUST(rv_timers_push(&in->of[c].heap, e[i]));
    heap_changed(in, c);
    count(in, (int)n);
    rv_lock_release(&in->lock);
}

/* Cuts the first n off the list, which has as many. Under the lock. Since when a watched one among
 * them waited; 0: none was watched. */
static int64_t cut(struct rv_injector *in, unsigned c, uint32_t n)
{
    struct rv_msg *last = in->of[c].head;
    int64_t since = watched(in, c, last);
    for (uint32_t i = 1; i < n; i++) {
        last = rv_msg_next(last);
        since |= watched(in, c, last); /* one at most is */
    }
    count(in, -(int)n); /* first: who sees the sum finds what it is the sum of, or the lock */
    in->of[c].head = rv_msg_next(last);
    last->link.next = NULL;
    rv_store_relaxed(&in->of[c].len, rv_load_relaxed(&in->of[c].len) - n);
    if (c != RV_NORMAL)
        show(in, RV_READY_QUEUES(c), in->of[c].head != NULL);
    return since;
}

struct rv_msg *rv_injector_take_share(struct rv_sched *s, unsigned c, uint32_t most)
{
    struct rv_injector *in = &s->injector;
    RV_ASSERT(most > 0);
    if (rv_load_relaxed(&in->of[c].len) == 0)
        return NULL;
    rv_lock_acquire(&in->lock);
    struct rv_msg *m = in->of[c].head;
    uint32_t share = (rv_load_relaxed(&in->of[c].len) + s->nworkers - 1) / s->nworkers;
    int64_t since = m ? cut(in, c, share < most ? share : most) : 0;
    rv_lock_release(&in->lock);
    RV_ASSERT(m == NULL || m->kind != 0);
    if (since)
        count_delay(s, c, since);
    return m;
}

struct rv_msg *rv_injector_take(struct rv_sched *s, unsigned c)
{
    return rv_injector_take_share(s, c, 1);
}

uint64_t rv_injector_take_dated(struct rv_sched *s, unsigned c)
{
    struct rv_injector *in = &s->injector;
    uint64_t entry = 0;
    if (rv_load_relaxed(&in->of[c].earliest) == RV_NEVER)
        return 0;
    rv_lock_acquire(&in->lock);
    if (rv_timers_min(&in->of[c].heap)) {
        count(in, -1);
        entry = rv_entry_of_heap(rv_timers_pop(&in->of[c].heap));
        heap_changed(in, c);
    }
    rv_lock_release(&in->lock);
    return entry;
}

void rv_injector_promote(struct rv_sched *s)
{
    struct rv_injector *in = &s->injector;
    rv_lock_acquire(&in->lock);
    for (unsigned c = 0; c + 1 < RV_CLASSES; c++) {
        struct rv_msg *m = in->of[c].head;
        in->of[c].head = NULL;
        rv_store_relaxed(&in->of[c].len, 0u);
        in->of[c].sample = NULL; /* it may be in another list now */
        while (m) { /* each back where its class is now: the order within a class stays */
            struct rv_msg *next = rv_msg_next(m);
            add_last(in, rv_class(rv_task_of_msg(m)), m);
            m = next;
        }
        if (c != RV_NORMAL)
            show(in, RV_READY_QUEUES(c), in->of[c].head != NULL);
    }
    rv_lock_release(&in->lock);
}
