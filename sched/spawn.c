/* SPDX-License-Identifier: MIT */
/*
 * spawn.c -- the calls of task.h: spawn, join, cancel, groups, sleep.
 *
 * Join runs the child. A child that nobody has started yet is started by its joiner, as a call on
 * the joiner's own stack: no switch, no second stack, and a tree of a million tasks is walked
 * depth first in the memory of its depth. What is in the way of that is checked first:
 *
 * (1) The child's promised stack bytes must remain below the joiner's frames.
 * (2) Its scope must descend from the joiner's, or a cancellation of the joiner would not reach
 *     what it waits for.
 * (3) Its deadline must not be later than the join's, or the join could not end in time.
 * (4) It must not be pinned to another worker.
 * (5) The pass must have picks left: an inline start is a pick. When they are used up the joiner
 *     yields once, so that whoever is ready, and the engine, get their turn, and looks again.
 *
 * The child's queue entry is usually the newest of this worker's deque, and popping it claims the
 * child. If it lies deeper, or elsewhere, the child is claimed by compare-and-swap and its entry is
 * dropped by whoever meets it. Claimed entries at the newest end are popped after each inline run,
 * and all of them are sifted out when they may be half of the deque: so none pile up.
 *
 * Threads: the running task.
 */
#include <errno.h>

#include "mem/die.h"
#include "sched/dispatch.h"
#include "sched/loan.h"
#include "sched/pick.h"
#include "sched/scope.h"
#include "sched/wait.h"
#include "sched/watchdog.h"

/* How far up (2) looks for the joiner among a child's owners. */
enum { ANCESTORS_MAX = 16 };

void rv_die_outside(const char *call)
{
    rv_die("%s was called outside a task: only tasks can wait or spawn; use reeve_post or "
           "reeve_call here.",
           call);
}

void rv_die_two_joiners(void)
{
    rv_die("two tasks wait for the same task or group: a handle has one joiner.");
}

struct rv_task *rv_task_of(struct rv_sched *s, const reeve_task *handle, const char *call)
{
    uintptr_t h = (uintptr_t)handle;
    uint32_t idx = (uint32_t)h - 1;
    if (idx >= s->tasks.cap)
        rv_die("%s was given something that is no task handle.", call);
    struct rv_task *t = rv_task_at(s, idx);
    /* Joined before, it may not be free yet: an entry or a canceller still refers to it. */
    if (rv_task_gen(t) != (uint32_t)(h >> 32) || !(rv_load_relaxed(&t->st) & RV_ST_HANDLE))
        rv_die(
            "%s was given the handle of a task that was joined before, or whose scope has ended.",
            call);
    return t;
}

/* The record of an explicit group, made at the first spawn into it. */
static int group_of(struct rv_worker *w, reeve_group *group, struct rv_task **ret)
{
    struct rv_sched *s = w->sched;
    if (group->opaque != 0) {
        *ret =
            rv_task_of(s, (const reeve_task *)(uintptr_t)group->opaque, "reeve_spawn into a group");
        return 0;
    }
    if (w->cur->groups == UINT16_MAX)
        return -EAGAIN;
    struct rv_task *g = rv_scope_make(s, w, w->cur);
    if (g == NULL)
        return -EAGAIN;
    w->cur->groups++;
    group->opaque = (uintptr_t)rv_handle_of(s, g);
    *ret = g;
    return 0;
}

/* Ends an empty group of the running task. */
static void drop_group(struct rv_worker *w, reeve_group *group, struct rv_task *g)
{
    rv_scope_free(w->sched, w, g, w->cur);
    w->cur->groups--;
    group->opaque = 0;
}

static int spawn(struct rv_worker *w, reeve_task **ret_task, const struct reeve_spawn *how,
                 const void *site)
{
    struct rv_sched *s = w->sched;
    int r = rv_spawn_check(s, how);
    if (r < 0)
        return r;
    struct rv_task *scope = w->cur;
    bool first = how->group && how->group->opaque == 0;
    if (how->group && (r = group_of(w, how->group, &scope)) < 0)
        return r;
    struct rv_task *t;
    r = rv_task_make(s, w, scope, how, ret_task != NULL, &t);
    if (r < 0) {
        if (first) /* nothing was spawned into it: there is nothing to wait for */
            drop_group(w, how->group, scope);
        return r;
    }
    if (ret_task)
        *ret_task = rv_handle_of(s, t);
    rv_watch_spawn(s, rv_task_index(s, t), site);
    rv_count(&w->n.spawned, 1);
    rv_fresh(s, w, t);
    return 0;
}

/* A spawn that says nothing but what to run, and perhaps whether it is joined, by a task that has
 * nothing special to pass on: most of them. */
static inline struct rv_task *make_plain(struct rv_worker *w, const struct reeve_spawn *how,
                                         bool handle)
{
    struct rv_sched *s = w->sched;
    struct rv_task *cur = w->cur;
    struct rv_task *t = rv_task_take(s, w);
    if (__builtin_expect(t == NULL, 0))
        return NULL;
    rv_store_relaxed(&t->start.fn, how->fn);
    rv_store_release(&t->start.arg, how->arg);
    rv_store_release(&t->start.skipped, how->skipped);
    t->deadline = cur->deadline;
    t->name = how->name;
    rv_store_relaxed(&t->kind, s->plain_kind);
    t->flags = 0;
    rv_store_relaxed(&t->linked, RV_LINK_NEVER);
    t->pin = 0;
    t->parent = rv_task_index(s, cur);
    rv_store_relaxed(&t->st, (uint32_t)(RV_ST_QUEUED | (handle ? RV_ST_HANDLE : 0)));
    rv_scope_enter(cur, cur);
    return t;
}

static inline bool is_plain(const struct rv_task *cur, const struct reeve_spawn *how)
{
    uint64_t said = how->copy | how->stack_bytes | (uint64_t)how->deadline |
                    (uintptr_t)how->group | (unsigned)how->priority | (unsigned)how->worker;
    return how->fn != NULL && (said | (cur->flags & RV_TF_SPECIAL)) == 0;
}

/* Never inlined: its return address is where the task was spawned. */
__attribute__((noinline)) int reeve_spawn_with(reeve_task **ret_task,
                                               const struct reeve_spawn *how)
{
    struct rv_worker *w = rv_in_task("reeve_spawn");
    if (!is_plain(w->cur, how))
        return spawn(w, ret_task, how, __builtin_return_address(0));
    struct rv_task *t = make_plain(w, how, ret_task != NULL);
    if (__builtin_expect(t == NULL, 0))
        return -EAGAIN;
    if (ret_task)
        *ret_task = rv_handle_of(w->sched, t);
    rv_watch_spawn(w->sched, rv_task_index(w->sched, t), __builtin_return_address(0));
    rv_count(&w->n.spawned, 1);
    rv_fresh(w->sched, w, t);
    return 0;
}

static bool descends(struct rv_sched *s, const struct rv_task *t, const struct rv_task *from)
{
    for (int i = 0; i < ANCESTORS_MAX && t->parent != RV_NIL; i++) {
        t = rv_task_at(s, t->parent);
        if (t == from)
            return true;
    }
    return false;
}

/* (1) to (4). */
static inline bool may_inline(struct rv_worker *w, const struct rv_task *t, int64_t until)
{
    struct rv_task *cur = w->cur;
    if (rv_stack_room(w->on, __builtin_frame_address(0)) < rv_stack_promise(rv_stack_class_of(t)))
        return false;
    if (until != RV_NEVER && (t->deadline == 0 || t->deadline > until))
        return false;
    if (t->pin != 0 && t->pin != w->index + 1)
        return false;
    return t->parent == rv_task_index(w->sched, cur) || descends(w->sched, t, cur);
}

/* Claims an unstarted child for its joiner. l: the lane that it was queued in, if it was here. */
RV_ALWAYS bool claim_for_join(struct rv_worker *w, struct rv_lane *l, struct rv_task *t)
{
    uint64_t entry = rv_entry(rv_task_gen(t), rv_task_index(w->sched, t), true);
    if (rv_deque_peek(&l->deque) == entry && rv_deque_pop(&l->deque) == entry) {
        /* Handle and entry are both ours: nobody else can claim it. */
        rv_store_relaxed(&t->st, RV_ST_CLAIMED | RV_ST_HANDLE);
        return true;
    }
    uint32_t st = RV_ST_QUEUED | RV_ST_HANDLE;
    bool claimed = rv_cas(&t->st, &st, st | RV_ST_CLAIMED);
    if (claimed && t->flags & RV_TF_DATED) { /* its entry is in this heap, or elsewhere */
        uint32_t was = rv_rt_enter(w);
        l->heap_stale++;
        rv_heap_tidy(w, (unsigned)(l - w->lane));
        rv_rt_leave(w, was);
    } else if (claimed) { /* in this deque, or elsewhere */
        l->stale++;
        rv_tidy_deque(w, l);
    }
    return claimed;
}

static __attribute__((noinline)) bool claim_special(struct rv_worker *w, unsigned c,
                                                    struct rv_task *t)
{
    return claim_for_join(w, &w->lane[c], t);
}

/* Tasks on one stack are one unit: pinned if any is, in the best class of all. */
static void __attribute__((noinline)) join_unit(struct rv_task *cur, struct rv_task *t)
{
    if (cur->pin) {
        t->pin = cur->pin;
        t->flags |= RV_TF_SPECIAL;
    }
    if (rv_class(cur) > rv_class(t))
        rv_lend(t, rv_class(cur) + 1);
}

/* A claimed task is about to run on the stack of the running one. */
static inline void begin_inline(struct rv_worker *w, struct rv_task *t)
{
    if (__builtin_expect(w->cur->flags & RV_TF_SPECIAL, 0))
        join_unit(w->cur, t);
    rv_look_at_clock(w);
    w->injector_in--; /* the next pick from a queue serves it if this one would have */
    w->budget--;
    rv_count(&w->n.inline_runs, 1);
}

/* Runs a claimed child on the joiner's stack. True: done, and counted out of its scope. */
static inline bool run_inline(struct rv_worker **pw, struct rv_task *t)
{
    struct rv_worker *w = *pw;
    struct rv_task *cur = w->cur;
    begin_inline(w, t);
    bool done = rv_task_run(pw, t, true);
    w = *pw;
    w->cur = cur;
    if (!done)
        return false;
    struct rv_task *scope = rv_task_at(w->sched, t->parent);
    if (scope == cur)
        cur->spawned--;
    else
        rv_scope_leave(w->sched, w, scope);
    return true;
}

/* The child is done: its result, and its descriptor's end. */
static inline int collect(struct rv_worker *w, struct rv_task *t, int *ret_result)
{
    if (ret_result)
        *ret_result = t->result;
    if (rv_linked(t))
        rv_scope_unlink(w->sched, t);
    uint32_t st = rv_load_relaxed(&t->st);
    if (!rv_was_linked(t) && st == (RV_ST_CLAIMED | RV_ST_HANDLE | RV_ST_DONE))
        rv_task_free(w->sched, w, t);
    else
        rv_task_release(w->sched, w, t, RV_ST_HANDLE);
    return 0;
}

int rv_done_wait(struct rv_worker *w, struct rv_task *t, int64_t until)
{
    struct rv_sched *s = w->sched;
    struct rv_task *cur = w->cur;
    while (!(rv_load_acquire(&t->st) & RV_ST_DONE)) {
        int r = rv_wait_check(s, cur);
        if (r < 0)
            return r;
        rv_store_relaxed(&t->joiner, rv_wait_arm(s, cur, 0));
        uint32_t old =
            rv_or_acq_rel(&t->st, RV_ST_JOINER); /* publishes joiner; pairs with task_done() */
        if (old & RV_ST_JOINER)
            rv_die_two_joiners();
        int why = RV_WOKEN;
        if (old & RV_ST_DONE)
            rv_wait_disarm(cur);
        else
            why = rv_wait_park(w, cur, until);
        w = rv_worker_self();
        old = rv_and_acq_rel(&t->st, ~(uint32_t)RV_ST_JOINER);
        if (old & RV_ST_DONE)
            return 0; /* a result beats a deadline */
        if (why != RV_WOKEN)
            return why == RV_TIMED_OUT ? -ETIMEDOUT : -ECANCELED;
    }
    return 0;
}

static inline int join(struct rv_worker *w, struct rv_task *t, int *ret_result, int64_t until)
{
    for (;;) {
        uint32_t st = rv_load_acquire(&t->st);
        if (st & RV_ST_DONE)
            return collect(w, t, ret_result);
        if (st & RV_ST_CLAIMED || !may_inline(w, t, until))
            break;
        if (rv_pass_over(w)) {
            (void)rv_wait_check(w->sched, w->cur); /* a loop of joins must be found by cancellers */
            rv_yield(w);
            w = rv_worker_self();
            continue;
        }
        bool special = t->flags & RV_TF_SPECIAL;
        unsigned c = __builtin_expect(special, 0) ? rv_class(t) : RV_NORMAL;
        if (!(special ? claim_special(w, c, t) : claim_for_join(w, &w->lane[RV_NORMAL], t)))
            break;
        bool done = run_inline(&w, t);
        if (w->lane[RV_NORMAL].stale)
            rv_pop_claimed(w, &w->lane[RV_NORMAL]);
        if (__builtin_expect(special, 0))
            rv_pop_claimed(w, &w->lane[c]);
        if (done)
            return collect(w, t, ret_result);
        break;
    }
    int r = rv_done_wait(w, t, until);
    return r < 0 ? r : collect(rv_worker_self(), t, ret_result);
}

int reeve_join(reeve_task *handle, int *ret_result, reeve_time deadline)
{
    struct rv_worker *w = rv_in_task("reeve_join");
    struct rv_sched *s = w->sched;
    struct rv_task *t = rv_task_of(s, handle, "reeve_join");
    struct rv_task *cur = w->cur, *scope = rv_task_at(s, t->parent);
    int64_t until = rv_deadline(cur, deadline);
    if (t == cur)
        rv_die("reeve_join was called by a task on itself, which would wait for ever.");
    if (scope == cur)
        return join(w, t, ret_result, until);
    /* The scope may end when the task is done, and would free what we came for: be counted in. */
    rv_add_acq_rel(&scope->live, 1);
    int r = join(w, t, ret_result, until);
    rv_scope_leave(s, rv_worker_self(), scope);
    return r;
}

void reeve_cancel(reeve_task *handle)
{
    struct rv_worker *w = rv_in_task("reeve_cancel");
    uintptr_t h = (uintptr_t)handle;
    uint32_t idx = (uint32_t)h - 1;
    if (idx >= w->sched->tasks.cap || h >> 32 == 0)
        rv_die("reeve_cancel was given something that is no task handle.");
    rv_cancel(w->sched, w, rv_task_at(w->sched, idx), (uint32_t)(h >> 32));
}

/* Starts a member whose entry was popped, on the waiting owner's stack. */
static void run_member(struct rv_worker **pw, struct rv_task *t, uint64_t entry)
{
    bool fresh;
    if (rv_claim(*pw, entry, &fresh) == NULL)
        return;
    if (!(rv_load_relaxed(&t->st) & RV_ST_HANDLE)) {
        /* Nobody else knows it: its owner becomes its joiner. */
        rv_store_relaxed(&t->st, RV_ST_CLAIMED | RV_ST_HANDLE);
        if (run_inline(pw, t))
            collect(*pw, t, NULL);
        return;
    }
    /* Its joiner may come at any time, from anywhere: it ends as if it ran on a stack of its own.
     * */
    struct rv_task *cur = (*pw)->cur;
    begin_inline(*pw, t);
    rv_task_run(pw, t, false);
    (*pw)->cur = cur;
}

/* Runs unstarted members of the group whose entries lie at the newest end of this worker's deque.
 * */
static struct rv_worker *run_members(struct rv_worker *w, struct rv_task *g, int64_t until)
{
    struct rv_sched *s = w->sched;
    uint32_t group = rv_task_index(s, g);
    unsigned c = rv_cls(g) - 1; /* of the owner; members of other classes have to be picked */
    for (;;) {
        rv_pop_claimed(w, &w->lane[c]);
        uint64_t entry = rv_deque_pop(&w->lane[c].deque);
        if (entry == 0)
            return w;
        /* Only an entry that nobody else can take stays what it is while we look at it. */
        struct rv_task *t = rv_task_at(s, rv_entry_index(entry));
        bool ours = t->parent == group && may_inline(w, t, until);
        if (ours && !rv_pass_over(w)) {
            run_member(&w, t, entry);
            continue;
        }
        RV_MUST(rv_deque_push(&w->lane[c].deque, entry)); /* it was in there before */
        rv_notify(w);
        if (!ours)
            return w;
        rv_yield(w);
        w = rv_worker_self();
    }
}

/* The owner cannot wait any longer: cancels the members, and waits for their end all the same,
 * since none may outlive the group. */
static void end_group(struct rv_worker *w, struct rv_task *g)
{
    struct rv_task *cur = w->cur;
    bool masked = rv_load_relaxed(&cur->ctl) & RV_CTL_MASKED;
    rv_cancel(w->sched, w, g, rv_task_gen(g));
    rv_wait_mask(cur, true);
    RV_MUST(rv_done_wait(w, g, RV_NEVER) == 0);
    if (!masked)
        rv_wait_mask(cur, false);
}

int reeve_group_wait(reeve_group *group, reeve_time deadline)
{
    struct rv_worker *w = rv_in_task("reeve_group_wait");
    struct rv_sched *s = w->sched;
    if (group->opaque == 0)
        return 0;
    struct rv_task *g =
        rv_task_of(s, (const reeve_task *)(uintptr_t)group->opaque, "reeve_group_wait");
    struct rv_task *cur = w->cur;
    if (g->parent != rv_task_index(s, cur))
        rv_die("reeve_group_wait was called by a task that does not own the group: its first "
               "spawner waits for it.");
    w = run_members(w, g, rv_deadline(cur, deadline));
    int r = 0;
    if (!rv_scope_close(g)) {
        r = rv_done_wait(w, g, rv_deadline(cur, deadline));
        w = rv_worker_self();
        if (r < 0)
            end_group(w, g);
        w = rv_worker_self();
    }
    if (r == 0)
        r = g->result;
    drop_group(w, group, g);
    return r;
}

void reeve_group_cancel(reeve_group *group)
{
    struct rv_worker *w = rv_in_task("reeve_group_cancel");
    if (group->opaque == 0)
        return;
    uint64_t h = group->opaque;
    rv_cancel(w->sched, w, rv_task_at(w->sched, (uint32_t)h - 1), (uint32_t)(h >> 32));
}

int reeve_shield(reeve_time until)
{
    struct rv_worker *w = rv_in_task("reeve_shield");
    struct rv_task *t = w->cur;
    if (until <= 0)
        return -EINVAL;
    t->deadline = until; /* bounds the waits, and is inherited by what is spawned from here on */
    t->flags |= RV_TF_SPECIAL;
    rv_or_acq_rel(&t->ctl, (uint64_t)RV_CTL_SHIELDED);
    return 0;
}

bool reeve_need_resched(void)
{
    struct rv_worker *w = rv_in_task("reeve_need_resched");
    rv_look_at_clock(w);
    return rv_need_resched(w);
}
