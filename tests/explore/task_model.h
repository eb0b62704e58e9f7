/* SPDX-License-Identifier: MIT */
/*
 * task_model.h -- tasks without a scheduler: each thread of a model is one task on a worker of its
 * own. For what tasks meet on (mutex, channels, select), where queues and stealing would only be in
 * the way of a deep search.
 *
 * The wait word and its argument are wait.c's own. What is replaced is how a task leaves its stack
 * and how it is made ready: the thread itself does what the next context would do (dispatch.c's
 * hook), and then sleeps until it is made ready, which happens once for each wait, or until its
 * worker's next timer.
 */
#ifndef TESTS_EXPLORE_TASK_MODEL_H
#define TESTS_EXPLORE_TASK_MODEL_H

#include <reeve/task.h>

#include <string.h>

#include "mem/die.h"
#include "sched/dispatch.h"
#include "sched/loan.h"
#include "sched/pick.h"
#include "sched/ready.h"
#include "sched/sched.h"
#include "sched/scope.h"
#include "sched/wait.h"
#include "tests/explore/explore.h"

enum { TASKS_MAX = 4 };

static struct {
    struct rv_sched s;
    struct rv_worker w[TASKS_MAX];
    RV_ALIGNED_LINE struct rv_task t[TASKS_MAX];
    struct rv_worker *workers[TASKS_MAX];
    RV_ATOMIC(uint32_t) ready[TASKS_MAX];
    reeve_fn *fn[TASKS_MAX];
    int result[TASKS_MAX];
    uint32_t count[8];
    RV_ATOMIC(uint32_t) busy;
} model;

/* ---- in place of dispatch.c, ready.c, pick.c and scope.c ---- */

struct rv_worker *rv_suspend(struct rv_worker *w, enum rv_hook hook)
{
    struct rv_task *t = w->cur;
    uint32_t *ready = &model.ready[w->index];
    RV_MUST(hook == RV_HOOK_PARK);
    w->cur = NULL;
    rv_wait_parked(w, t);
    while (rv_xchg_acq_rel(ready, 0u) == 0) {
        const struct rv_timer *min = rv_timers_min(&w->timers);
        if (!explore_wait(ready, 0, min ? min->at : RV_NEVER, "its wait")) {
            w->now = explore_now();
            rv_wait_timers(w);
        }
    }
    w->cur = t;
    return w;
}

void rv_ready_on(struct rv_sched *s, struct rv_worker *w, struct rv_task *t, uint32_t home)
{
    (void)w, (void)home;
    uint32_t *ready = &model.ready[rv_task_index(s, t)];
    RV_MUST(rv_xchg_acq_rel(ready, 1u) == 0); /* once for each wait */
    explore_wake(ready, 1);
}

void rv_ready_fifo(struct rv_sched *s, struct rv_worker *w, struct rv_task *t)
{
    rv_ready_on(s, w, t, UINT32_MAX);
}

struct rv_worker *rv_yield(struct rv_worker *w)
{
    return w;
}

uint32_t rv_random(struct rv_worker *w)
{
    return explore_choose(2) ? w->rng = UINT32_MAX : 0;
}

bool rv_pass_broken(struct rv_worker *w)
{
    return rv_load_relaxed(&w->resched) != 0;
}

void rv_scope_link(struct rv_sched *s, struct rv_task *t)
{
    (void)s;
    rv_store_relaxed(&t->linked, RV_LINK_IN);
}

_Noreturn void rv_die_outside(const char *call)
{
    rv_die("%s was called outside a task.", call);
}

void rv_loan_back(struct rv_worker *w)
{
    rv_die("rv_loan_back: the loan of worker %u was never given.", w->index);
}

/* All tasks are of one class here. */
bool rv_boost(struct rv_sched *s, uint32_t idx, uint32_t gen, unsigned cls)
{
    (void)s, (void)idx, (void)gen, (void)cls;
    rv_die("rv_boost: nobody is of a better class.");
}

bool rv_boost_raise(struct rv_sched *s, uint32_t idx, uint32_t gen, unsigned cls)
{
    return rv_boost(s, idx, gen, cls);
}

void rv_unboost(struct rv_task *t)
{
    (void)t;
    rv_die("rv_unboost: nobody was boosted.");
}

/* ---- the tasks ---- */

static inline void model_task(unsigned i, reeve_fn *fn)
{
    struct rv_worker *w = &model.w[i];
    struct rv_task *t = &model.t[i];
    model.s.tasks.base = (unsigned char *)model.t;
    model.s.tasks.bytes = sizeof *t;
    model.s.tasks.cap = TASKS_MAX;
    model.s.workers = model.workers;
    model.s.nworkers = TASKS_MAX;
    model.workers[i] = w;
    model.fn[i] = fn;
    w->sched = &model.s;
    w->index = i;
    w->budget = 1000;
    RV_MUST(rv_timers_init(&w->timers, 8) == 0);
    rv_store_relaxed(&t->ctl, (uint64_t)1 << 32);
    rv_set_kind(t, REEVE_NORMAL, 0);
    t->parent = RV_NIL;
}

/* Thread i of the model. */
static inline void model_run(void *arg)
{
    unsigned i = (unsigned)(uintptr_t)arg;
    struct rv_worker *w = &model.w[i];
    rv_local_set(&w->local);
    w->now = explore_now();
    w->cur = &model.t[i];
    model.result[i] = model.fn[i](NULL);
    w->cur = NULL;
    rv_local_set(NULL);
}

#define MODEL_TASK(i) { "task " #i, model_run, (void *)(uintptr_t)(i) }

/* Cancels task i, as cancel.c would: the flag first, then a look at its wait. */
static inline void model_cancel(unsigned i)
{
    struct rv_worker *self = rv_worker_self();
    rv_or_acq_rel(&model.t[i].ctl, (uint64_t)RV_CTL_CANCELLED);
    rv_wait_kick(&model.s, self, &model.t[i]);
}

/* Nobody else is in here; with a point between entering and leaving. */
static inline void model_alone(void)
{
    RV_MUST(rv_add_relaxed(&model.busy, 1u) == 0);
    rv_sub_relaxed(&model.busy, 1u);
}

#endif
