/* SPDX-License-Identifier: MIT */
/*
 * ready.c -- where a task that may run is put.
 *
 *     fresh, with nothing special         the deque of its class, here
 *     woken by a running task, NORMAL     the slot: it runs next, here
 *     woken otherwise, or yielding        the ring of its class, here
 *     with a deadline of its own          the heap of its class, here
 *     pinned                              its worker's list of pinned tasks
 *     from a foreign thread, or no room   the injector
 *
 * (1) Whatever is in no queue belongs to whoever holds it: an entry is in one queue, once.
 * (2) A full ring or deque spills into the injector, which is bounded by the number of tasks, and
 *     the spiller tells a sleeping worker.
 * (3) Filling the slot wakes nobody who is not needed as sentinel: its task runs next, here.
 *     Thieves take it only when it has waited long.
 * (4) A task of a better class than the running one wakes a sleeping worker at once: the running
 *     one may compute for long.
 *
 * Threads: the worker; ready and fresh also foreign threads, with w NULL.
 */
#include "sched/ready.h"

#include "mem/die.h"
#include "sched/loan.h"
#include "sched/pick.h"
#include "sched/scope.h"

/* A fresh task is about to be queued by its node. Until that is taken out of its list again, its
 * joiner must not start it: it could suspend, and be queued by the same node twice. False: the
 * joiner already has. */
static bool hold_node(struct rv_task *t)
{
    uint32_t st = rv_load_relaxed(&t->st);
    if (!(st & RV_ST_HANDLE)) { /* nobody else knows it */
        rv_store_relaxed(&t->st, st | RV_ST_NODE);
        return true;
    }
    return !(rv_or_acq_rel(&t->st, (uint32_t)RV_ST_NODE) & RV_ST_CLAIMED);
}

/* Says that class c has work here, to the next pick and to the others. */
static void mark(struct rv_worker *w, uint32_t bit)
{
    w->ready |= bit;
    rv_show(w);
}

/* After queueing here what the others may take. Outside any task the first entry is about to run
 * here. */
static inline void tell_normal(struct rv_worker *w)
{
    if (w->sched->nworkers > 1 && (w->cur || rv_lane_stealable(&w->lane[RV_NORMAL]) > 1))
        rv_notify(w);
}

static void tell(struct rv_worker *w, unsigned c)
{
    struct rv_sched *s = w->sched;
    if (s->nworkers == 1)
        return;
    if (w->cur && c > rv_class(w->cur))
        rv_wake_one(s); /* (4) */
    else if (w->cur || rv_lane_stealable(&w->lane[c]) + w->lane[c].heap.n > 1)
        rv_notify(w);
}

void rv_push_ring(struct rv_worker *w, unsigned c, uint64_t entry, struct rv_msg *m)
{
    struct rv_lane *l = &w->lane[c];
    if (rv_runq_push(&l->ring, entry)) {
        if (c != RV_NORMAL)
            mark(w, RV_READY_QUEUES(c));
        tell(w, c);
        return;
    }
    struct rv_task *t = rv_task_at(w->sched, rv_entry_index(entry));
    if (rv_entry_fresh(entry) && !hold_node(t)) {
        rv_task_release(w->sched, w, t, RV_ST_QUEUED); /* its joiner was faster */
        return;
    }
    m->kind = rv_entry_fresh(entry) ? RV_MSG_FRESH : RV_MSG_READY;
    rv_inject(w->sched, m);
    rv_wake_one(w->sched);
}

static void push_heap(struct rv_worker *w, unsigned c, struct rv_task *t, uint64_t entry)
{
    rv_heap_push(w, c, t, entry);
    tell(w, c);
}

/* Into the queues of this worker, in order. */
static void enqueue(struct rv_worker *w, struct rv_task *t, bool fresh)
{
    unsigned c = rv_class(t);
    uint64_t entry = rv_entry_of(w->sched, t, fresh);
    if (t->flags & RV_TF_DATED)
        push_heap(w, c, t, entry);
    else
        rv_push_ring(w, c, entry, &t->msg);
}

static void push_pinned(struct rv_worker *w, struct rv_task *t, uint8_t kind)
{
    struct rv_msg *m = &t->msg;
    unsigned c = rv_class(t);
    struct rv_lane *l = &w->lane[c];
    if (t->flags & RV_TF_DATED) {
        rv_heap_push(w, c, t, rv_entry_of(w->sched, t, kind == RV_MSG_FRESH));
        return;
    }
    m->kind = kind;
    m->link.next = NULL;
    if (l->pinned_head)
        l->pinned_tail->link.next = &m->link;
    else
        l->pinned_head = m;
    l->pinned_tail = m;
    l->pinned_len++;
    if (c != RV_NORMAL)
        mark(w, RV_READY_QUEUES(c));
}

/* Puts a pinned task where it must run, or one that only has to go elsewhere. */
static void place(struct rv_sched *s, struct rv_worker *w, struct rv_task *t, uint32_t where,
                  uint8_t kind)
{
    struct rv_worker *to = s->workers[where];
    unsigned c = rv_class(t);
    if (kind == RV_MSG_FRESH)
        hold_node(t);
    if (to == w) {
        uint32_t was = rv_rt_enter(w); /* a task may come here too, by waking or spawning another */
        if (t->pin)
            push_pinned(w, t, kind);
        else
            enqueue(w, t, kind == RV_MSG_FRESH);
        rv_rt_leave(w, was);
        return;
    }
    rv_send(s, to, &t->msg, kind);
    if (c > RV_NORMAL) /* it looks into its inbox at the end of its pass: which is now */
        rv_store_relaxed(&to->resched, (uint32_t)RV_RESCHED_NOW);
}

static void inject(struct rv_sched *s, struct rv_task *t, uint8_t kind)
{
    if (kind == RV_MSG_FRESH)
        hold_node(t);
    t->msg.kind = kind;
    rv_inject(s, &t->msg);
    rv_wake_one(s);
}

#ifdef RV_FORCE_MIGRATE
/* A build for tests: whoever is woken wakes up on another worker. */
static bool migrate(struct rv_sched *s, struct rv_worker *w, struct rv_task *t)
{
    if (w == NULL || s->nworkers == 1 || t->pin)
        return false;
    rv_send(s, s->workers[(w->index + 1) % s->nworkers], &t->msg, RV_MSG_READY);
    return true;
}
#else
static inline bool migrate(struct rv_sched *s, struct rv_worker *w, struct rv_task *t)
{
    (void)s, (void)w, (void)t;
    return false;
}
#endif

void rv_ready_fifo(struct rv_sched *s, struct rv_worker *w, struct rv_task *t)
{
    uint64_t ctl = rv_load_relaxed(&t->ctl);
    struct rv_lane *l = &w->lane[RV_NORMAL];
    if (__builtin_expect(rv_is_ordinary(t, ctl), 1)) {
        uint64_t entry = rv_entry((uint32_t)(ctl >> 32), rv_task_index(s, t), false);
        if (__builtin_expect(rv_runq_push(&l->ring, entry), 1)) {
            tell_normal(w);
            return;
        }
    }
    place(s, w, t, t->pin ? t->pin - 1u : w->index, RV_MSG_READY);
}

void rv_ready_last(struct rv_sched *s, struct rv_worker *w, struct rv_task *t)
{
    if (t->flags & RV_TF_DATED && t->pin == 0)
        rv_push_ring(w, rv_class(t), rv_entry_of(s, t, false), &t->msg);
    else
        rv_ready_fifo(s, w, t);
}

/* It runs next, here. */
static void fill_slot(struct rv_sched *s, struct rv_worker *w, uint64_t entry)
{
    uint64_t old = rv_load_relaxed(&w->slot);
    if (s->nworkers == 1) { /* its age matters to thieves alone */
        rv_store_relaxed(&w->slot, entry);
    } else {
        rv_store_relaxed(&w->slot_tsc, rv_tsc());
        old = rv_xchg_acq_rel(
            &w->slot, entry); /* publishes the task; pairs with the exchange of who takes it */
    }
    if (old) {
        uint32_t was = rv_rt_enter(w);
        rv_push_ring(w, RV_NORMAL, old, &rv_task_at(s, rv_entry_index(old))->msg);
        rv_rt_leave(w, was);
    }
    rv_notify(w);
}

void rv_ready(struct rv_sched *s, struct rv_worker *w, struct rv_task *t)
{
    if (migrate(s, w, t))
        return;
    uint64_t ctl = rv_load_relaxed(&t->ctl);
    if (w && w->cur && rv_is_ordinary(t, ctl))
        fill_slot(s, w, rv_entry((uint32_t)(ctl >> 32), rv_task_index(s, t), false));
    else if (w)
        rv_ready_fifo(s, w, t); /* by a completion or a timer: in order */
    else if (t->pin)
        place(s, w, t, t->pin - 1u, RV_MSG_READY);
    else
        inject(s, t, RV_MSG_READY);
}

void rv_ready_on(struct rv_sched *s, struct rv_worker *w, struct rv_task *t, uint32_t home)
{
    if (home == UINT32_MAX || (w && w->index == home) || t->pin)
        rv_ready(s, w, t);
    else if (!migrate(s, w, t))
        place(s, w, t, home, RV_MSG_READY);
}

/* A fresh task that is not ordinary, on this worker; false: no room, or none of its class. */
static bool queue_fresh(struct rv_worker *w, unsigned c, struct rv_task *t)
{
    uint64_t entry = rv_entry_of(w->sched, t, true);
    bool queued = true;
    uint32_t was = rv_rt_enter(w);
    if (t->flags & RV_TF_DATED) {
        push_heap(w, c, t, entry);
    } else if (c != RV_NORMAL && rv_deque_push(&w->lane[c].deque, entry)) {
        mark(w, RV_READY_QUEUES(c));
        tell(w, c);
    } else {
        queued = false;
    }
    rv_rt_leave(w, was);
    return queued;
}

void rv_fresh_slow(struct rv_sched *s, struct rv_worker *w, struct rv_task *t)
{
    unsigned c = rv_class(t);
    if (t->flags & RV_TF_SPECIAL && rv_load_relaxed(&s->classes) == 0)
        rv_store_relaxed(&s->classes, 1u);
    if (t->pin) {
        place(s, w, t, t->pin - 1u, RV_MSG_FRESH);
        return;
    }
    if (w == NULL || !queue_fresh(w, c, t))
        inject(s, t, RV_MSG_FRESH);
}

void rv_fresh_on(struct rv_sched *s, struct rv_worker *w, struct rv_task *t, uint32_t where)
{
    place(s, w, t, where, RV_MSG_FRESH);
}

void rv_task_message(struct rv_worker *w, struct rv_msg *m)
{
    struct rv_task *t = rv_task_of_msg(m);
    if (t->pin == w->index + 1)
        push_pinned(w, t, m->kind);
    else
        enqueue(w, t, m->kind == RV_MSG_FRESH);
}

void rv_task_message_for(struct rv_worker *by, struct rv_worker *of, struct rv_msg *m)
{
    rv_task_message(rv_task_of_msg(m)->pin == of->index + 1 ? of : by, m);
}
