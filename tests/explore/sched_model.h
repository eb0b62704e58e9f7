/* SPDX-License-Identifier: MIT */
/*
 * sched_model.h -- a whole scheduler of two workers as a model: sched/ itself, on an engine whose
 * park is the explorer's.
 *
 * The threads of a model are the workers, each in rv_worker_run(), and foreign threads that post.
 * The claim that all such models share: they come to an end. A wake-up that is lost leaves a task
 * in a queue while every worker sleeps, and the explorer says that all threads wait. At the end all
 * that was taken must have come back.
 *
 * The sentinel ticks while others run; time passes only when all sleep, so its ticks cost nothing
 * until then. It would hide a wake-up that is lost between the others: for_ever makes its ticks
 * endless.
 */
#ifndef TESTS_EXPLORE_SCHED_MODEL_H
#define TESTS_EXPLORE_SCHED_MODEL_H

#include <reeve/task.h>

#include <string.h>

#include "mem/die.h"
#include "sched/dispatch.h"
#include "sched/park.h"
#include "sched/pick.h"
#include "sched/sched.h"
#include "sched/scope.h"
#include "sched/wait.h"
#include "tests/explore/explore.h"

enum { MODEL_WORKERS = 2 };

static struct {
    struct rv_sched s;
    RV_ATOMIC(uint32_t) latch[MODEL_WORKERS];   /* 1: a wake is pending */
    RV_ATOMIC(uint32_t) word[4];                /* a test's own */
    RV_ATOMIC(uint64_t) token[4];
    reeve_task *task[4];
    uint32_t count[4];
    int result[4];
    bool for_ever;
} model;

/* ---- the engine ---- */

static bool model_reap(struct rv_worker *w, uint32_t ready)
{
    (void)w, (void)ready;
    return false;
}

static bool model_busy(struct rv_worker *w)
{
    (void)w;
    return false;
}

static void model_park(struct rv_worker *w, int64_t until)
{
    uint32_t *latch = &model.latch[w->index];
    if (model.for_ever && rv_load_relaxed(&w->sched->sentinel) == w->index + 1)
        until = RV_NEVER;
    explore_wait(latch, 0, until, "its park");
    (void)rv_xchg_acq_rel(latch, 0u); /* pairs with model_wake() */
}

static void model_wake(struct rv_worker *w)
{
    (void)rv_xchg_acq_rel(&model.latch[w->index], 1u);
    explore_wake(&model.latch[w->index], 1);
}

static void model_cancel(struct rv_sched *s, struct rv_worker *self, uint64_t op)
{
    (void)s, (void)self, (void)op;
}

static int64_t model_now(struct rv_sched *s)
{
    (void)s;
    return explore_now();
}

static const struct rv_engine model_engine = {
    .name = "model",
    .reap = model_reap,
    .busy = model_busy,
    .park = model_park,
    .wake = model_wake,
    .cancel = model_cancel,
    .now = model_now,
};

/* ---- beginning and end ---- */

static void model_setup_with(uint32_t workers)
{
    struct rv_sched_opts opts = {
        .engine = &model_engine,
        .workers = workers,
        .tasks_max = 8,
        .injector_every = 61,
        .pass_picks = 61,
        .no_guard_install = true,
    };
    RV_MUST(rv_sched_init(&model.s, &opts) == 0);
}

static inline void model_setup(void)
{
    model_setup_with(MODEL_WORKERS);
}

static inline void model_post(reeve_fn *fn, void *arg)
{
    RV_MUST(rv_sched_post(&model.s, &(struct reeve_spawn){ .fn = fn, .arg = arg }) == 0);
}

static void model_worker(void *arg)
{
    struct rv_worker *w = model.s.workers[(uintptr_t)arg];
    rv_worker_bind(w);
    rv_worker_run(w);
    rv_worker_unbind(w);
}

/* ---- for its tasks ---- */

/* Something that one task waits for and anybody may set, once: 0, who waits, or MODEL_SET. */
#define MODEL_SET UINT64_MAX

/* Waits for token[i]; 0, -ETIMEDOUT or -ECANCELED. until: RV_NEVER, or a time. */
static inline int model_wait(unsigned i, int64_t until)
{
    struct rv_worker *w = rv_worker_self();
    struct rv_task *t = w->cur;
    uint64_t unset = 0;
    int r = rv_wait_check(w->sched, t);
    if (r < 0)
        return r;
    uint64_t token = rv_wait_arm(w->sched, t, 0);
    if (!rv_cas(&model.token[i], &unset, token)) { /* pairs with model_set() */
        RV_MUST(unset == MODEL_SET);
        rv_wait_disarm(t);
        return 0;
    }
    int why = rv_wait_park(w, t, rv_deadline(t, until));
    if (!rv_cas(&model.token[i], &token, 0))
        return 0; /* set: that beats a deadline */
    RV_MUST(why != RV_WOKEN);
    return why == RV_TIMED_OUT ? -ETIMEDOUT : -ECANCELED;
}

static inline void model_set(unsigned i)
{
    uint64_t was = rv_xchg_acq_rel(&model.token[i], MODEL_SET);
    RV_MUST(was != MODEL_SET);
    if (was)
        rv_wait_fire(&model.s, rv_worker_self(), was, RV_WOKEN, UINT32_MAX);
}

#define MODEL_WORKER_0 { "worker 0", model_worker, (void *)0 }
#define MODEL_WORKER_1 { "worker 1", model_worker, (void *)1 }

/* Everything that was taken has come back, but the two outermost scopes; all wakes were counted. */
static void model_finish(void)
{
    struct rv_sched *s = &model.s;
    struct rv_stack_stats stacks;
    for (uint32_t i = 0; i < s->nworkers; i++) {
        struct rv_worker *w = s->workers[i];
        rv_mag_flush(&s->tasks, &w->local.task_mag);
        rv_stack_mag_flush(&s->stacks, &w->local.stack_mag);
        RV_MUST(rv_queued(w) == 0);
        RV_MUST(rv_inbox_empty(&w->inbox));
        RV_MUST(rv_load_relaxed(&w->parked) == 0);
    }
    rv_stack_pool_stats(&s->stacks, &stacks);
    RV_MUST(stacks.live == 0);
    RV_MUST(rv_load_relaxed(&s->injector.len) == 0);
    RV_MUST(rv_load_relaxed(&s->nparked) == 0);
    RV_MUST(rv_load_relaxed(&s->searching) == 0);
    RV_MUST(rv_slab_live(&s->tasks) == 2);
}

#endif
