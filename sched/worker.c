/* SPDX-License-Identifier: MIT */
/*
 * worker.c -- one pass of a worker, and the thread that makes passes.
 *
 * rv_worker_step() makes one pass and never blocks: it drains the inbox, fires timers that are
 * due, runs tasks until none is ready or the pass is over, and then submits and reaps once. Not
 * once per suspension: a runtime that does that spends more than half of its time in the kernel's
 * entry code. A thread makes passes until it has nothing to do and parks; a simulator makes passes
 * of many workers on one thread.
 *
 * (1) A pass ends after pass_picks picks, after pass_ns (looked at every 8th pick), or when
 *     somebody sets resched.
 * (2) Only the worker's own thread touches its engine, its timers and the fields above `parked`.
 * (3) A task that can get no stack is skipped here, with -ENOMEM.
 *
 * Threads: the one that the worker is bound to.
 */
#include "sched/worker.h"

#include <errno.h>
#include <string.h>

#include "mem/alloc.h"
#include "mem/die.h"
#include "sched/context.h"
#include "sched/dispatch.h"
#include "sched/loan.h"
#include "sched/park.h"
#include "sched/pick.h"
#include "sched/scope.h"
#include "sched/wait.h"

static uint64_t pow2_at_least(uint64_t n)
{
    uint64_t p = 64;
    while (p < n)
        p *= 2;
    return p;
}

/* Other classes than NORMAL are rarely so full; what does not fit goes to the injector. */
enum { LANE_MAX = 1 << 16, CLOCK_EVERY = 8 };

static int init_lane(struct rv_lane *l, uint64_t cap)
{
    l->oldest_in = 1;
    int r = rv_deque_init(&l->deque, cap);
    return r < 0 ? r : rv_timers_init(&l->heap, cap < LANE_MAX ? (uint32_t)cap : LANE_MAX);
}

int rv_worker_init(struct rv_worker *w, struct rv_sched *s, uint32_t index)
{
    w->sched = s;
    w->local.owner = s;
    w->index = index;
    w->rng = 0x9e3779b9u * (index + 1);
    w->injector_in = (int32_t)s->injector_every;
    w->clock_mask = CLOCK_EVERY - 1;
    rv_store_relaxed(&w->loan.in_rt, 1u); /* all but a task's own code is reeve code */
    rv_store_relaxed(&w->loan.timer_at, RV_NEVER);
    rv_fastclock_init(&w->clock);
    uint64_t cap = pow2_at_least(s->tasks.cap);
    w->sieve_bytes = cap * sizeof *w->sieve;
    int r = rv_timers_init(&w->timers, 2 * s->tasks.cap);
    for (unsigned c = 0; c < RV_CLASSES && r == 0; c++)
        r = init_lane(&w->lane[c], c == RV_NORMAL || cap < LANE_MAX ? cap : LANE_MAX);
    if (r == 0 && (w->sieve = rv_map_lazy(w->sieve_bytes)) == NULL)
        r = -ENOMEM;
    if (r == 0 && (w->hists = rv_map_lazy(sizeof *w->hists)) == NULL)
        r = -ENOMEM;
    rv_store_relaxed(&w->shown_deadline, RV_NEVER);
    if (r < 0)
        rv_worker_finish(w);
    return r;
}

void rv_worker_finish(struct rv_worker *w)
{
    if (w->sched == NULL)
        return;
    RV_ASSERT(w->cur == NULL);
    for (unsigned c = 0; c < RV_CLASSES; c++) {
        rv_deque_finish(&w->lane[c].deque);
        rv_timers_finish(&w->lane[c].heap);
    }
    rv_timers_finish(&w->timers);
    if (w->hists)
        rv_unmap(w->hists, sizeof *w->hists);
    if (w->sieve)
        rv_unmap(w->sieve, w->sieve_bytes);
    w->sched = NULL;
}

void rv_worker_bind(struct rv_worker *w)
{
    rv_local_set(&w->local);
    rv_context_adopt(&w->thread_stack);
    w->on = &w->thread_stack;
}

void rv_worker_unbind(struct rv_worker *w)
{
    RV_ASSERT(w->on == &w->thread_stack);
    w->on = NULL;
    rv_local_set(NULL);
}

int64_t rv_worker_now(struct rv_worker *w)
{
    const struct rv_engine *e = w->sched->engine;
    return e->now ? e->now(w->sched) : rv_fastclock_now(&w->clock);
}

static void message(struct rv_worker *w, struct rv_msg *m)
{
    if (m->kind >= RV_MSG_IO) {
        w->sched->engine->message(w, m);
    } else if (m->kind == RV_MSG_CALL) {
        struct rv_call_msg *call = (struct rv_call_msg *)m;
        call->fn(w, call);
    } else {
        rv_task_message(w, m);
    }
}

static bool drain_inbox(struct rv_worker *w)
{
    struct rv_msg *m = rv_inbox_drain(&w->inbox);
    bool any = m != NULL;
    if (any)
        rv_fastclock_doubt(&w->clock); /* tasks may have come that have seen another clock */
    while (m) {
        struct rv_msg *next = rv_msg_next(m); /* handling it may send it on */
        message(w, m);
        m = next;
    }
    return any;
}

/* Runs tasks until none is ready or the pass is over. Each entry comes back here when the tasks
 * that it led to have run out. */
static bool run_tasks(struct rv_worker *w)
{
    bool ran = false, many = w->sched->nworkers > 1;
    for (;;) {
        bool fresh = true;
        struct rv_task *t = w->start;
        w->start = NULL;
        if (t == NULL && (rv_pass_over(w) || (t = rv_pick(w, &fresh)) == NULL))
            return ran;
        /* Before the task, which may run for long: others rely on a search, or on a tick, that it
         * would hold up. */
        if (!ran && many) {
            rv_found_work(w);
            rv_loan_watch(w->sched);
        }
        ran = true;
        if (!rv_enter(w, t, fresh))
            rv_task_skip(w, t, -ENOMEM, false);
    }
}

/* Smooths the run time of a pick, by which sharing decides. */
static void measure(struct rv_worker *w, uint64_t picks)
{
    if (w->sched->pass_tsc == 0 || picks == 0)
        return;
    uint64_t mean = (rv_tsc() - w->pass_tsc) / picks;
    w->mean_tsc = w->mean_tsc ? (7 * w->mean_tsc + mean) / 8 : mean;
    if (w->mean_tsc == 0)
        w->mean_tsc = 1;
    w->clock_mask = w->mean_tsc > w->sched->us_tsc ? 0 : CLOCK_EVERY - 1;
}

bool rv_worker_step(struct rv_worker *w)
{
    struct rv_sched *s = w->sched;
    RV_ASSERT(rv_worker_self() == w);
    w->budget = s->pass_picks;
    uint32_t watch = rv_load_relaxed(&w->urgent_io) ? RV_RESCHED_WATCH : 0;
    rv_store_relaxed(&w->resched, watch);
    w->now = rv_worker_now(w);
    w->pass_tsc = s->pass_tsc ? rv_tsc() : 0;
    uint64_t picks = rv_load_relaxed(&w->n.picks);

    bool ran = drain_inbox(w);
    if (__builtin_expect(rv_load_relaxed(&w->promote), 0))
        rv_promote(w);
    rv_wait_timers(w);
    ran |= run_tasks(w);
    rv_stop_timing(w);
    rv_count(&w->n.passes, 1);
    measure(w, rv_load_relaxed(&w->n.picks) - picks);
    if (__builtin_expect(w->ready != 0, 0))
        rv_tidy_ready(w);
    if (s->nworkers > 1) {
        rv_share(w);
        if (rv_load_relaxed(&s->classes))
            rv_look_elsewhere(w);
    }
    return s->engine->reap(w, rv_queued(w)) || ran;
}

bool rv_worker_has_work(struct rv_worker *w)
{
    return rv_queued(w) != 0 || !rv_inbox_empty(&w->inbox) ||
           rv_load_relaxed(&w->sched->injector.len) != 0 || w->sched->engine->busy(w);
}

int64_t rv_worker_until(struct rv_worker *w)
{
    const struct rv_timer *min = rv_timers_min(&w->timers);
    return min ? min->at : RV_NEVER;
}

void rv_worker_run(struct rv_worker *w)
{
    struct rv_sched *s = w->sched;
    bool many = s->nworkers > 1;
    for (;;) {
        if (rv_worker_step(w) && many)
            rv_found_work(w);
        if (rv_worker_has_work(w))
            continue;
        if (many && (rv_steal(w, false) || rv_steal(w, true) || rv_loan_look(w))) {
            rv_found_work(w);
        } else if (rv_load_acquire(&s->stopping)) {
            break;
        } else {
            rv_park(w);
        }
    }
    rv_dispatch_finish(w);
    if (w->searching)
        rv_sub_acq_rel(&s->searching, 1u);
    w->searching = false;
}
