/* SPDX-License-Identifier: MIT */
/*
 * dispatch.c -- from one stack to the next.
 *
 * A task that suspends picks the next one itself and switches straight to its stack; only when
 * there is none, or the pass is over, does it switch to the scheduler's context on the thread's
 * own stack. A fresh task gets the worker's spare stack. A stack whose task has ended runs the
 * next fresh task without any switch, or parks its context inside the loop of unit_main() and
 * becomes the spare: contexts in the pool are alive and only resumed.
 *
 * (1) A suspending task must not be resumed before its registers are saved. So what makes it
 *     findable (the PARKED state, a queue) is done by the context that runs next, right after the
 *     switch: the hook.
 * (2) The same for a stack that is given back: the next context does it.
 * (3) After a switch nothing that was computed before it about the worker is valid.
 * (4) A unit is all tasks on one stack; the innermost one, cur, stands for it.
 * (5) For a task time does not go back. Workers' clocks lag behind the kernel's by different
 *     amounts; who comes to another worker makes that one ask the kernel.
 *
 * Threads: the worker's.
 */
#include "sched/dispatch.h"

#include <errno.h>

#include "mem/die.h"
#include "mem/epoch.h"
#include "sched/context.h"
#include "sched/loan.h"
#include "sched/pick.h"
#include "sched/scope.h"
#include "sched/wait.h"

static void keep_stack(struct rv_worker *w, struct rv_stack *st)
{
    if (w->spare == NULL && st->class == w->sched->stack_class)
        w->spare = st;
    else
        rv_stack_give(&w->sched->stacks, &w->local.stack_mag, st);
}

/* Does for the context that was just left what it asked for. */
RV_ALWAYS void after_switch(struct rv_worker *w)
{
    enum rv_hook hook = w->hook;
    w->hook = RV_HOOK_NONE;
    switch (hook) {
    case RV_HOOK_NONE:
        break;
    case RV_HOOK_PARK:
        rv_wait_parked(w, w->hook_task);
        break;
    case RV_HOOK_YIELD:
        rv_ready_last(w->sched, w, w->hook_task);
        break;
    case RV_HOOK_STACK:
        keep_stack(w, w->hook_stack);
        break;
    }
}

/* Switches stacks. Returns when the left one is resumed, on the worker that it returns. */
RV_ALWAYS struct rv_worker *switch_to(struct rv_worker *w, struct rv_stack *to)
{
    struct rv_stack *from = w->on;
    RV_ASSERT(from != to);
    RV_ASSERT(rv_load_relaxed(&w->loan.in_rt));
    w->on = to;
    rv_switch(from, to);
    struct rv_worker *self = rv_worker_self();
    if (__builtin_expect(self != w, 0))
        rv_fastclock_doubt(&self->clock); /* (5) */
    after_switch(self);
    return self;
}

/* The stack of a unit has nothing more to run: on with a fresh task, or away from it. */
static void unit_next(struct rv_worker *w)
{
    bool fresh = false;
    struct rv_task *next = rv_pass_over(w) ? NULL : rv_pick(w, &fresh);
    w->cur = NULL;
    if (next && fresh && rv_stack_class_of(next) == w->on->class) {
        w->start = next;
        return;
    }
    w->hook = RV_HOOK_STACK;
    w->hook_stack = w->on;
    if (next && !fresh) {
        w->cur = next;
        switch_to(w, rv_load_relaxed(&next->run.stack));
    } else {
        w->start = next; /* of another stack class: the scheduler's context finds it a stack */
        switch_to(w, &w->thread_stack);
    }
}

static void unit_main(void)
{
    struct rv_worker *w = rv_worker_self();
    rv_switch_entered(w->on);
    after_switch(w);
    for (;;) {
        w = rv_worker_self();
        struct rv_task *t = w->start;
        RV_ASSERT(t != NULL);
        w->start = NULL;
        rv_rt_leave(w, 0);
        rv_task_run(&w, t, false);
        rv_rt_begin(w);
        unit_next(w);
    }
}

/* A context for a fresh task of this class; NULL: none to be had. */
static struct rv_stack *unit_stack(struct rv_worker *w, uint8_t class)
{
    struct rv_stack *st = w->spare;
    if (st && st->class == class) {
        w->spare = NULL;
        return st;
    }
    st = rv_stack_take(&w->sched->stacks, &w->local.stack_mag, class);
    if (st && st->sp == NULL)
        rv_context_build(st, unit_main);
    return st;
}

/* The worker on which the caller runs again; NULL: there is no stack to be had for it. */
RV_ALWAYS struct rv_worker *enter(struct rv_worker *w, struct rv_task *t, bool fresh)
{
    if (!fresh) {
        w->cur = t;
        return switch_to(w, rv_load_relaxed(&t->run.stack));
    }
    struct rv_stack *st = unit_stack(w, rv_stack_class_of(t));
    if (st == NULL)
        return NULL;
    w->cur = NULL;
    w->start = t;
    return switch_to(w, st);
}

bool rv_enter(struct rv_worker *w, struct rv_task *t, bool fresh)
{
    return enter(w, t, fresh) != NULL;
}

struct rv_worker *rv_suspend(struct rv_worker *w, enum rv_hook hook)
{
    struct rv_task *t = w->cur, *next = NULL;
    bool fresh = false, go_on = !rv_pass_over(w);
    RV_ASSERT(!rv_hold_any()); /* no wait inside an epoch's section or under a table's lock */
    w->hook = hook;
    w->hook_task = t;
    rv_store_relaxed(&t->run.stack, w->on);
    rv_store_relaxed(&t->depth, rv_depth(w->on, __builtin_frame_address(0)));
    if (go_on && (next = rv_pick_slot(w)) != NULL) {
        w->cur = next;
        return switch_to(w, rv_load_relaxed(&next->run.stack));
    }
    if (go_on)
        next = rv_pick(w, &fresh);
    struct rv_worker *on;
    if (next && (on = enter(w, next, fresh)) != NULL)
        return on;
    w->cur = NULL;
    w->start = next; /* none to be had: the scheduler's context skips it */
    return switch_to(w, &w->thread_stack);
}

static struct rv_worker *yield(struct rv_worker *w)
{
    struct rv_task *t = w->cur;
    bool fresh = false;
    RV_ASSERT(!rv_hold_any());
    struct rv_task *next = NULL;
    if (!rv_pass_over(w)) {
        if (rv_any_ready(w))
            next = rv_pick(w, &fresh);
        if (next == NULL) { /* nobody else: a pick of itself */
            w->budget--;
            rv_count(&w->n.picks, 1);
            return w;
        }
    }
    w->hook = RV_HOOK_YIELD;
    w->hook_task = t;
    rv_store_relaxed(&t->depth, rv_depth(w->on, __builtin_frame_address(0)));
    struct rv_worker *on;
    if (next && (on = enter(w, next, fresh)) != NULL)
        return on;
    w->cur = NULL;
    w->start = next;
    return switch_to(w, &w->thread_stack);
}

struct rv_worker *rv_yield(struct rv_worker *w)
{
    RV_ASSERT(!rv_load_relaxed(&w->loan.in_rt));
    rv_rt_begin(w);
    w = yield(w);
    rv_rt_leave(w, 0);
    return w;
}

void rv_dispatch_finish(struct rv_worker *w)
{
    RV_ASSERT(w->cur == NULL && w->start == NULL);
    if (w->spare)
        rv_stack_give(&w->sched->stacks, &w->local.stack_mag, w->spare);
    w->spare = NULL;
}
