/* SPDX-License-Identifier: MIT */
/*
 * task.c -- the life of a task descriptor, from spawn to the last reference.
 *
 * A descriptor is held by up to four kinds of references, each a bit in st, and is free once it is
 * DONE and none is left.
 *
 *     free             -> QUEUED (HANDLE)     [rv_task_make]     counted in its scope
 *     QUEUED           -> CLAIMED             [rv_claim]         its entry was met: it starts on a
 *                                                                stack of its own
 *     QUEUED HANDLE    -> QUEUED CLAIMED ..   [reeve_join]       its joiner runs it; the entry is
 *                                                                met later and dropped
 *     CLAIMED          -> .. DONE             [rv_task_run]      function returned, scope empty
 *     .. JOINER        -> .. DONE             [task_done]        the same step wakes who waits
 *     .. PINNED        -> ..                  [rv_cancel]        a canceller has it on its list
 *     DONE, none left  -> free                [rv_task_release]  by whoever dropped the last one;
 *                                                                the generation grows
 *
 * (1) A task without a handle is known to its queue entry alone until it first suspends, so its
 *     start and its end need no atomic operation on st. That is most tasks.
 * (2) A child that its joiner runs on top of itself is known to the joiner alone once its entry
 *     was popped: the same holds.
 * (3) A descriptor's memory is never unmapped while the scheduler lives. Whoever is late finds
 *     another generation, or a wait word with another arm number, and stops.
 * (4) fn, arg and skipped share memory with what a running task needs; they are read once, before
 *     the first is written.
 *
 * Threads: a task's flags, copy and result are its own until DONE publishes them.
 */
#include <errno.h>
#include <string.h>

#include "mem/alloc.h"
#include "mem/die.h"
#include "sched/loan.h"
#include "sched/pick.h"
#include "sched/scope.h"
#include "sched/wait.h"
#include "sched/watchdog.h"

#define REFS (RV_ST_QUEUED | RV_ST_HANDLE | RV_ST_PINNED)

void rv_task_first_use(struct rv_task *t)
{
    RV_ASSERT(rv_load_relaxed(&t->ctl) == 0);
    rv_store_relaxed(&t->ctl, (uint64_t)1 << 32);
    rv_store_relaxed(&t->live, RV_SCOPE_OPEN);
    t->kids = RV_NIL;
}

void rv_task_release(struct rv_sched *s, struct rv_worker *w, struct rv_task *t, uint32_t ref)
{
    uint32_t old = rv_and_acq_rel(&t->st, ~ref);
    RV_ASSERT(old & ref);
    if (((old & ~ref) & (REFS | RV_ST_DONE)) == RV_ST_DONE)
        rv_task_free(s, w, t);
}

int rv_spawn_check(const struct rv_sched *s, const struct reeve_spawn *how)
{
    if (how->fn == NULL || (how->copy && how->arg == NULL) || how->deadline < 0)
        return -EINVAL;
    if (how->priority < 0 || how->priority > REEVE_URGENT)
        return -EINVAL;
    if (how->worker < 0 || (uint32_t)how->worker > s->nworkers)
        return -EINVAL;
    if (how->copy > RV_COPY_MAX)
        return -E2BIG;
    return how->stack_bytes && rv_stack_class(how->stack_bytes) < 0 ? -EINVAL : 0;
}

static int copy_argument(struct rv_task *t, const struct reeve_spawn *how)
{
    void *to = t->copy;
    if (how->copy > RV_COPY_INLINE) {
        to = rv_alloc(how->copy);
        if (to == NULL)
            return -ENOMEM;
        memcpy(t->copy, &to, sizeof to);
        t->flags |= RV_TF_HEAP_COPY;
    }
    memcpy(to, how->arg, how->copy);
    rv_store_release(&t->start.arg, to);
    return 0;
}

static void drop_copy(struct rv_task *t)
{
    if (!(t->flags & RV_TF_HEAP_COPY))
        return;
    void *block;
    memcpy(&block, t->copy, sizeof block);
    rv_free(block);
    t->flags &= (uint8_t)~RV_TF_HEAP_COPY;
}

int rv_task_make(struct rv_sched *s, struct rv_worker *w, struct rv_task *parent,
                 const struct reeve_spawn *how, bool handle, struct rv_task **ret_task)
{
    struct rv_task *cur = w ? w->cur : NULL;
    struct rv_task *t = rv_task_take(s, w);
    if (t == NULL)
        return -EAGAIN;
    rv_store_relaxed(&t->start.fn, how->fn);
    rv_store_release(&t->start.arg, how->arg);
    rv_store_release(&t->start.skipped, how->skipped);
    t->flags = 0;
    rv_store_relaxed(&t->linked, RV_LINK_NEVER);
    if (how->copy) {
        int r = copy_argument(t, how);
        if (r < 0) {
            rv_task_free(s, w, t);
            return r;
        }
    }
    t->deadline = how->deadline;
    if (cur && cur->deadline && (t->deadline == 0 || cur->deadline < t->deadline))
        t->deadline = cur->deadline;
    t->name = how->name;
    unsigned cls = how->priority ? (unsigned)how->priority : cur ? rv_cls(cur) : REEVE_NORMAL;
    rv_set_kind(t, cls,
                how->stack_bytes ? (unsigned)rv_stack_class(how->stack_bytes) : s->stack_class);
    if (how->deadline)
        t->flags |= RV_TF_DATED;
    if (how->deadline || how->worker || cls != REEVE_NORMAL)
        t->flags |= RV_TF_SPECIAL;
    if (cur)
        rv_task_spare(t, cur);
    t->pin = (uint16_t)how->worker;
    t->parent = rv_task_index(s, parent);
    rv_watch_spawn(s, rv_task_index(s, t), NULL);
    if (how->group && !handle)
        t->flags |= RV_TF_GUARDED;
    rv_store_relaxed(&t->st, (uint32_t)(RV_ST_QUEUED | (handle ? RV_ST_HANDLE : 0)));
    rv_scope_enter(parent, cur);
    *ret_task = t;
    return 0;
}

/* Sets DONE and wakes the joiner, or frees. From here on the descriptor is no longer ours. */
static void task_done(struct rv_sched *s, struct rv_worker *w, struct rv_task *t)
{
    uint32_t st = rv_or_acq_rel(&t->st, RV_ST_DONE); /* pairs with rv_done_wait() setting JOINER */
    RV_ASSERT(!(st & RV_ST_DONE));
    if (!(st & REFS))
        rv_task_free(s, w, t);
    else if (st & RV_ST_JOINER) /* by now its wait may be over, and the token stale */
        rv_wait_fire(s, w, rv_load_relaxed(&t->joiner), RV_WOKEN, UINT32_MAX);
}

/* A task that its joiner ran is done: the joiner, right below, counts it out and frees it. */
static void complete_inline(struct rv_sched *s, struct rv_task *t)
{
    uint32_t st = rv_load_relaxed(&t->st);
    if (__builtin_expect(st & RV_ST_JOINER, 0))
        rv_die_two_joiners();
    if (rv_linked(t) && !(st & RV_ST_HANDLE))
        rv_scope_unlink(s, t);
    if (rv_was_linked(t) || st & RV_ST_QUEUED)
        rv_or_acq_rel(&t->st, RV_ST_DONE);
    else
        rv_store_relaxed(&t->st, st | RV_ST_DONE); /* (2) */
}

/* The task's function has returned and its scope is empty. Returns the scope that has to be left.
 * */
static struct rv_task *complete(struct rv_sched *s, struct rv_worker *w, struct rv_task *t)
{
    uint32_t st = rv_load_relaxed(&t->st);
    if (rv_linked(t) && !(st & RV_ST_HANDLE))
        rv_scope_unlink(s, t);
    struct rv_task *scope = rv_task_at(s, t->parent);
    /* Its scope frees it if nobody ever joins; so the scope must find it. */
    if (st & RV_ST_HANDLE && !rv_linked(t))
        rv_scope_link(s, t);
    if (st == RV_ST_CLAIMED && !rv_was_linked(t))
        rv_task_free(s, w, t); /* (1) */
    else
        task_done(s, w, t);
    return scope;
}

struct rv_task *rv_task_finish(struct rv_sched *s, struct rv_worker *w, struct rv_task *t)
{
    rv_count(&w->n.completed[rv_cls_index(t)], 1);
    drop_copy(t); /* its children may have used it */
    if (t->kids != RV_NIL)
        rv_scope_drop_unjoined(s, w, t);
    rv_store_relaxed(&t->live, RV_SCOPE_OPEN); /* as the next to take it wants it */
    return complete(s, w, t);
}

/* Nothing of the task is left to wait for. */
static bool end(struct rv_worker *w, struct rv_task *t, bool inlined)
{
    struct rv_sched *s = w->sched;
    drop_copy(t);
    if (t->kids != RV_NIL)
        rv_scope_drop_unjoined(s, w, t);
    rv_store_relaxed(&t->live, RV_SCOPE_OPEN);
    if (inlined)
        complete_inline(s, t);
    else
        rv_scope_leave(s, w, complete(s, w, t));
    return inlined;
}

/* The function has returned r: the scope is closed, and the task is complete now or with its last
 * child. */
static bool body_done(struct rv_worker *w, struct rv_task *t, int r, bool inlined)
{
    struct rv_sched *s = w->sched;
    if (__builtin_expect(t->groups != 0, 0))
        rv_die("a task%s%s ended without waiting for its group: call reeve_group_wait() before "
               "returning.",
               t->name ? " " : "", t->name ? t->name : "");
    t->result = r;
    bool childless = t->spawned == 0 && rv_load_relaxed(&t->live) == RV_SCOPE_OPEN;
    if (t->deadline && !(t->flags & RV_TF_GROUP) && t->deadline <= rv_worker_now(w))
        rv_count(&w->n.late[rv_cls_index(t)], 1);
    if (r < 0) {
        rv_count(&w->n.failed[rv_cls_index(t)], 1);
        if (t->flags & RV_TF_GUARDED)
            rv_scope_fail(s, w, rv_task_at(s, t->parent), r);
        if (!childless)
            rv_cancel(s, w, t, rv_task_gen(t));
    }
    if (!childless) {
        rv_scope_link(s, t); /* what has not started yet below must hear of a cancellation above */
        if (!rv_scope_close(t))
            return false; /* its last child completes it, anywhere */
    }
    rv_count(&w->n.completed[rv_cls_index(t)], 1);
    return end(w, t, inlined);
}

/* Why the task must not start: 0, -ETIMEDOUT, -ECANCELED. */
static int refused(struct rv_worker *w, struct rv_task *t)
{
    uint64_t own = rv_load_relaxed(&t->ctl);
    uint64_t scope = rv_load_relaxed(&rv_task_at(w->sched, t->parent)->ctl);
    if (__builtin_expect((own | scope) & RV_CTL_CANCELLED, 0) &&
        (own & (RV_CTL_CANCELLED | RV_CTL_SPARED)) != RV_CTL_SPARED)
        return -ECANCELED;
    return t->deadline && t->deadline <= rv_worker_now(w) ? -ETIMEDOUT : 0;
}

bool rv_task_skip(struct rv_worker *w, struct rv_task *t, int reason, bool inlined)
{
    rv_skipped_fn *skipped = rv_load_relaxed(&t->start.skipped);
    void *arg = rv_load_relaxed(&t->start.arg);
    struct rv_task *below = w->cur;
    w->cur = NULL; /* outside any task: what waits aborts */
    if (skipped) {
        uint32_t was = rv_load_relaxed(&w->loan.in_rt);
        rv_rt_leave(w, 0);
        skipped(arg);
        rv_rt_enter(w);
        rv_rt_leave(w, was);
    }
    w->cur = below;
    rv_count(&w->n.skipped, 1);
    if (t->flags & RV_TF_POSTED)
        rv_admit_started(w->sched, rv_cls(t) - 1);
    if (reason == -ETIMEDOUT)
        rv_count(&w->n.expired[rv_cls_index(t)], 1);
    else if (reason == -ECANCELED)
        rv_count(&w->n.cancelled, 1);
    t->result = reason;
    if (t->flags & RV_TF_GUARDED) /* it did not do what it was spawned for */
        rv_scope_fail(w->sched, w, rv_task_at(w->sched, t->parent), reason);
    return end(w, t, inlined);
}

bool rv_task_run(struct rv_worker **pw, struct rv_task *t, bool inlined)
{
    struct rv_worker *w = *pw;
    int reason = refused(w, t);
    if (__builtin_expect(reason != 0, 0)) {
        bool done = rv_task_skip(w, t, reason, inlined);
        *pw = rv_worker_self();
        return done;
    }
    reeve_fn *fn = rv_load_relaxed(&t->start.fn);
    void *arg = rv_load_relaxed(&t->start.arg);
    rv_store_relaxed(&t->run.stack, w->on); /* overwrites fn, see (4) */
    rv_store_release(&t->run.until, RV_NEVER);
    rv_store_release(&t->run.op, 0);
    if (__builtin_expect(t->flags & RV_TF_POSTED, 0))
        rv_admit_started(w->sched, rv_cls(t) - 1);
    w->cur = t;
    rv_count(&w->n.started[rv_cls_index(t)], 1);
    RV_ASSERT(!rv_load_relaxed(&w->loan.in_rt));
    int r = fn(arg);
    *pw = w = rv_worker_self();
    if (__builtin_expect(w == NULL, 0))
        rv_die("a task that called fork() returned in the child: end it there by _exit or exec.");
    RV_ASSERT(w->cur == t);
    return body_done(w, t, r, inlined);
}
