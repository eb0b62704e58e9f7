/* SPDX-License-Identifier: MIT */
/*
 * scope.c -- scopes: who owns whom, how many are left, and where cancellation finds them.
 *
 * Every descriptor can own children: those that the task spawns, or those of an explicit group. A
 * scope ends when its owner has closed it and its last child is done.
 *
 * live counts down from a bias so that the owner pays nothing for the common case. A task that
 * spawns into its own scope adds to `spawned`, a plain field that only it touches; a child that is
 * done subtracts from live, wherever it ran; closing adds spawned and removes the bias, in one
 * addition. So live is 0 exactly when the scope is closed and empty, and whoever brings it there
 * (the owner by closing, or a child by leaving) completes the owner. Members of an explicit group
 * may spawn into it from anywhere, so there each entry is an atomic addition.
 *
 * (1) A child joined inline by the owner itself is taken back from `spawned`: spawn-and-join loops
 *     touch live not at all.
 * (2) The list of kids holds children that have suspended (so that a cancellation finds them) and
 *     done ones whose handles are out (so that the scope's end frees them). It is guarded by the
 *     scope's lock; a child is linked only while it is counted, and a scope is not freed while its
 *     count is not 0.
 * (3) Whoever links itself links its owners too, from the bottom up, if they are not yet: an owner
 *     that computes, or has returned, without ever suspending must not hide what waits below it.
 * (4) Locks are taken one at a time.
 *
 * Threads: enter - the owner, or a member for groups; close - the owner; leave, link, unlink -
 * anyone.
 */
#include "sched/scope.h"

#include <errno.h>

#include "mem/die.h"
#include "sched/wait.h"

void rv_scope_fold(struct rv_task *scope)
{
    rv_add_acq_rel(&scope->live, (int64_t)(RV_SPAWNED_MAX / 2));
    scope->spawned -= RV_SPAWNED_MAX / 2;
}

bool rv_scope_close(struct rv_task *scope)
{
    int64_t add = (int64_t)scope->spawned - RV_SCOPE_OPEN;
    scope->spawned = 0;
    /* Pairs with the subtraction in rv_scope_leave(): what the children wrote is ours when none is
     * left. */
    return rv_add_acq_rel(&scope->live, add) + add == 0;
}

/* The last child of a closed group is done: its owner may go on. */
static void group_empty(struct rv_sched *s, struct rv_worker *w, struct rv_task *g)
{
    uint32_t st = rv_or_acq_rel(&g->st, RV_ST_DONE); /* pairs with rv_done_wait() setting JOINER */
    RV_ASSERT(!(st & RV_ST_DONE));
    if (st & RV_ST_JOINER) /* by now its wait may be over, and the token stale */
        rv_wait_fire(s, w, rv_load_relaxed(&g->joiner), RV_WOKEN, UINT32_MAX);
}

void rv_scope_leave(struct rv_sched *s, struct rv_worker *w, struct rv_task *scope)
{
    for (;;) { /* once for each generation that ends with its last child */
        /* Pairs with the addition in rv_scope_close(). */
        int64_t left = rv_sub_acq_rel(&scope->live, 1) - 1;
        RV_ASSERT(left >= 0);
        if (left != 0)
            return;
        if (scope->flags & RV_TF_GROUP) {
            if (scope->parent == RV_NIL)
                rv_scope_empty(s, w, scope);
            else
                group_empty(s, w, scope);
            return;
        }
        scope = rv_task_finish(s, w, scope);
    }
}

void rv_scope_wait(int result)
{
    struct rv_worker *w = rv_worker_self();
    struct rv_task *t = w->cur;
    RV_ASSERT(!(rv_load_relaxed(&t->st) & RV_ST_HANDLE));
    if (t->spawned == 0 && rv_load_relaxed(&t->live) == RV_SCOPE_OPEN)
        return;
    if (result < 0)
        rv_cancel(w->sched, w, t, rv_task_gen(t));
    /* Its last child wakes it, instead of completing it, and reads that off flags at any time:
     * from here on nothing is written there, by the wait either. */
    t->flags = (t->flags | RV_TF_GROUP) & (uint8_t)~RV_TF_TIMED_OUT;
    if (!rv_scope_close(t)) {
        rv_wait_mask(t, true);
        RV_MUST(rv_done_wait(w, t, RV_NEVER) == 0);
        rv_wait_mask(t, false);
        w = rv_worker_self();
    }
    t->flags &= (uint8_t)~RV_TF_GROUP;
    rv_scope_drop_unjoined(w->sched, w, t);
    rv_store_relaxed(&t->live, RV_SCOPE_OPEN);
    rv_and_acq_rel(&t->st, ~(uint32_t)RV_ST_DONE);
}

/* Adds t to its scope's list, unless one of its children was faster. True: cancelled by that, since
 * the walk came before us. */
static bool link_one(struct rv_sched *s, struct rv_task *scope, struct rv_task *t)
{
    uint32_t me = rv_task_index(s, t);
    bool late = false;
    rv_lock_acquire(&scope->lock);
    if (!rv_linked(t)) {
        t->sib_prev = RV_NIL;
        t->sib_next = scope->kids;
        if (scope->kids != RV_NIL)
            rv_task_at(s, scope->kids)->sib_prev = me;
        scope->kids = me;
        rv_store_relaxed(&t->linked, RV_LINK_IN);
        if (rv_load_relaxed(&scope->ctl) & RV_CTL_CANCELLED &&
            !(rv_load_relaxed(&t->ctl) & (RV_CTL_HOLDS | RV_CTL_SPARED)))
            late = !(rv_or_acq_rel(&t->ctl, (uint64_t)RV_CTL_CANCELLED) & RV_CTL_CANCELLED);
    }
    rv_lock_release(&scope->lock);
    return late;
}

void rv_scope_link(struct rv_sched *s, struct rv_task *t)
{
    for (; t->parent != RV_NIL && !rv_linked(t); t = rv_task_at(s, t->parent))
        if (link_one(s, rv_task_at(s, t->parent), t))
            rv_cancel_below(s, t, rv_task_gen(t));
}

static void unlink_locked(struct rv_sched *s, struct rv_task *scope, struct rv_task *t)
{
    if (t->sib_next != RV_NIL)
        rv_task_at(s, t->sib_next)->sib_prev = t->sib_prev;
    if (t->sib_prev != RV_NIL)
        rv_task_at(s, t->sib_prev)->sib_next = t->sib_next;
    else
        scope->kids = t->sib_next;
    rv_store_relaxed(&t->linked, RV_LINK_OUT);
}

void rv_scope_unlink(struct rv_sched *s, struct rv_task *t)
{
    RV_ASSERT(rv_linked(t));
    if (t->parent == RV_NIL)
        return;
    struct rv_task *scope = rv_task_at(s, t->parent);
    rv_lock_acquire(&scope->lock);
    unlink_locked(s, scope, t);
    rv_lock_release(&scope->lock);
}

void rv_scope_drop_unjoined(struct rv_sched *s, struct rv_worker *w, struct rv_task *scope)
{
    for (;;) {
        rv_lock_acquire(&scope->lock);
        uint32_t idx = scope->kids;
        if (idx == RV_NIL) {
            rv_lock_release(&scope->lock);
            return;
        }
        struct rv_task *t = rv_task_at(s, idx);
        unlink_locked(s, scope, t);
        rv_lock_release(&scope->lock);
        rv_task_release(s, w, t, RV_ST_HANDLE);
    }
}

void rv_scope_fail(struct rv_sched *s, struct rv_worker *w, struct rv_task *scope, int result)
{
    rv_lock_acquire(&scope->lock);
    bool first = scope->result == 0;
    if (first)
        scope->result = result;
    rv_lock_release(&scope->lock);
    if (first)
        rv_cancel(s, w, scope, rv_task_gen(scope));
}

struct rv_task *rv_scope_make(struct rv_sched *s, struct rv_worker *w, struct rv_task *owner)
{
    struct rv_task *g = rv_task_take(s, w);
    if (g == NULL)
        return NULL;
    g->deadline = 0;
    g->name = NULL;
    g->result = 0;
    g->pin = 0;
    g->flags = RV_TF_GROUP;
    rv_store_relaxed(&g->linked, RV_LINK_NEVER);
    rv_set_kind(g, owner ? rv_cls(owner) : REEVE_NORMAL, 0);
    g->parent = owner ? rv_task_index(s, owner) : RV_NIL;
    if (owner)
        rv_task_spare(g, owner);
    rv_store_relaxed(&g->st, (uint32_t)(RV_ST_CLAIMED | RV_ST_HANDLE));
    if (owner) {
        rv_scope_enter(owner, owner);
        rv_scope_link(s, g);
    }
    return g;
}

void rv_scope_free(struct rv_sched *s, struct rv_worker *w, struct rv_task *scope,
                   struct rv_task *owner)
{
    rv_scope_drop_unjoined(s, w, scope);
    if (owner) {
        rv_scope_unlink(s, scope);
        owner->spawned--;
    }
    rv_store_relaxed(&scope->live, RV_SCOPE_OPEN);
    rv_or_acq_rel(&scope->st, RV_ST_DONE);
    rv_task_release(s, w, scope, RV_ST_HANDLE);
}
