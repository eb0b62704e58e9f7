/* SPDX-License-Identifier: MIT */
/*
 * scope.h -- descriptors by reference, scopes by count, cancellation by walk. See task.c, scope.c
 * and cancel.c.
 */
#ifndef RV_SCHED_SCOPE_H
#define RV_SCHED_SCOPE_H

#include "sched/worker.h"

/* Prepares a descriptor for its first use ever. */
void rv_task_first_use(struct rv_task *t);

/* A descriptor with an open, empty scope; NULL: tasks_max reached. w NULL: a foreign thread. */
static inline struct rv_task *rv_task_take(struct rv_sched *s, struct rv_worker *w)
{
    uint32_t idx = rv_slab_take(&s->tasks, w ? &w->local.task_mag : NULL);
    if (__builtin_expect(idx == RV_NIL, 0))
        return NULL;
    struct rv_task *t = rv_task_at(s, idx);
    if (__builtin_expect(rv_task_gen(t) == 0, 0))
        rv_task_first_use(t);
    RV_ASSERT(t->kids == RV_NIL && t->spawned == 0 && t->groups == 0);
    RV_ASSERT(rv_load_relaxed(&t->live) == RV_SCOPE_OPEN);
    return t;
}

/* Before a child is published: under a shield its owner's cancellation is not its own. The
 * generation and this are all that a free descriptor's ctl holds, and nobody else writes it. */
static inline void rv_task_spare(struct rv_task *t, const struct rv_task *owner)
{
    if (__builtin_expect(rv_load_relaxed(&owner->ctl) & RV_CTL_SHIELDED, 0))
        rv_or_acq_rel(&t->ctl, (uint64_t)RV_CTL_SPARED);
}

/* Drops one RV_ST_* reference, and frees the descriptor if that was the last and it is done. */
void rv_task_release(struct rv_sched *s, struct rv_worker *w, struct rv_task *t, uint32_t ref);
/* Frees a done descriptor that nothing refers to, and whose scope is as rv_task_take() wants it. */
static inline void rv_task_free(struct rv_sched *s, struct rv_worker *w, struct rv_task *t)
{
    RV_ASSERT(t->kids == RV_NIL && t->spawned == 0 && t->groups == 0);
    RV_ASSERT(rv_load_relaxed(&t->live) == RV_SCOPE_OPEN);
    uint64_t next = (rv_load_relaxed(&t->ctl) >> 32) + 1;
    /* A canceller's compare-and-swap with the old generation fails from here on. The generation
     * after the last one is 1: 0 is a descriptor that was never used. */
    rv_store_relaxed(&t->ctl, (next + (next >> 32)) << 32);
    rv_slab_give(&s->tasks, w ? &w->local.task_mag : NULL, rv_task_index(s, t));
}
/* Runs a claimed task's function, or its .skipped, on the running stack; completes it as far as it
 * can. inlined: its joiner runs it; then true means that it is done and that the joiner has to
 * count it out of its scope and drop its references. */
bool rv_task_run(struct rv_worker **pw, struct rv_task *t, bool inlined);
/* Completes a task whose function has returned and whose last child is done. Returns the scope
 * that it leaves. */
struct rv_task *rv_task_finish(struct rv_sched *s, struct rv_worker *w, struct rv_task *t);
/* Ends a claimed task that cannot start: calls .skipped, with the reason as its result. */
bool rv_task_skip(struct rv_worker *w, struct rv_task *t, int reason, bool inlined);
/* The spawn behind reeve_spawn_with and reeve_post: w NULL on a foreign thread. The task is made
 * and counted in its parent, but not yet startable: rv_fresh() does that. */
int rv_task_make(struct rv_sched *s, struct rv_worker *w, struct rv_task *parent,
                 const struct reeve_spawn *how, bool handle, struct rv_task **ret_task);
/* 0, or what is wrong with the options. */
int rv_spawn_check(const struct rv_sched *s, const struct reeve_spawn *how);

/* A new scope without a function, owned by `owner`: an explicit group; NULL: tasks_max reached. */
struct rv_task *rv_scope_make(struct rv_sched *s, struct rv_worker *w, struct rv_task *owner);
/* Frees a scope whose last child is done. */
void rv_scope_free(struct rv_sched *s, struct rv_worker *w, struct rv_task *scope,
                   struct rv_task *owner);
/* `spawned` is folded into live before it can overflow: half of it, since children that are alive,
 * fewer than that, may yet be taken back from it. */
#define RV_SPAWNED_MAX (1u << 30)
void rv_scope_fold(struct rv_task *scope);

/* Counts a child in; cur: the running task, NULL outside any. */
static inline void rv_scope_enter(struct rv_task *scope, struct rv_task *cur)
{
    if (scope != cur)
        rv_add_acq_rel(&scope->live, 1);
    else if (__builtin_expect(++scope->spawned >= RV_SPAWNED_MAX, 0))
        rv_scope_fold(scope);
}

/* Lets go of the owner's hold, so that the last child finds that it is the last. True: there is
 * none left now. */
bool rv_scope_close(struct rv_task *scope);
/* Waits, whatever happens, for all children of the running task, which nobody joins; cancels them
 * first if result < 0, as the end of its function would. */
void rv_scope_wait(int result);
/* For sched.c: an outermost scope has become empty. */
void rv_scope_empty(struct rv_sched *s, struct rv_worker *w, struct rv_task *scope);
/* A child is done; completes the scope's owner if that was the last, and so on upwards. */
void rv_scope_leave(struct rv_sched *s, struct rv_worker *w, struct rv_task *scope);
/* Adds the child to its scope's list, where cancellations find it: at its first suspension at the
 * latest. */
void rv_scope_link(struct rv_sched *s, struct rv_task *t);
void rv_scope_unlink(struct rv_sched *s, struct rv_task *t);
/* Frees done children whose handles nobody joined. */
void rv_scope_drop_unjoined(struct rv_sched *s, struct rv_worker *w, struct rv_task *scope);
/* The first failure of a guarded member: remembered, and the group is cancelled. */
void rv_scope_fail(struct rv_sched *s, struct rv_worker *w, struct rv_task *scope, int result);
/* Waits until the task or group is done: 0, -ETIMEDOUT or -ECANCELED. The worker may have changed.
 * */
int rv_done_wait(struct rv_worker *w, struct rv_task *t, int64_t until);

/* Flags and kicks what is below a task that was flagged already. */
void rv_cancel_below(struct rv_sched *s, struct rv_task *t, uint32_t gen);
/* Cancels the task and everything in its scope. gen: the generation meant; another one: nothing
 * happens. */
void rv_cancel(struct rv_sched *s, struct rv_worker *w, struct rv_task *t, uint32_t gen);

_Noreturn void rv_die_outside(const char *call);
_Noreturn void rv_die_two_joiners(void);
/* The worker of the running task; aborts with a sentence naming the call outside a task. */
static inline struct rv_worker *rv_in_task(const char *call)
{
    struct rv_worker *w = rv_worker_self();
    if (__builtin_expect(w == NULL || w->cur == NULL, 0))
        rv_die_outside(call);
    return w;
}
/* The task behind a handle; aborts with a sentence naming the call if it was joined before. */
struct rv_task *rv_task_of(struct rv_sched *s, const reeve_task *handle, const char *call);
static inline reeve_task *rv_handle_of(struct rv_sched *s, struct rv_task *t)
{
    return (reeve_task *)((uintptr_t)rv_task_gen(t) << 32 | (rv_task_index(s, t) + 1));
}

#endif
