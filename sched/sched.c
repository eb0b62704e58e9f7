/* SPDX-License-Identifier: MIT */
/*
 * sched.c -- a scheduler from beginning to end.
 *
 * Two scopes own everything. The work scope owns the root task and what was posted. The keep scope
 * owns tasks that watch over the end of the work, and the work scope itself.
 *
 *     open     -> closing    [rv_sched_close]   posts are refused; the work scope is closed
 *     closing  -> done       [work_done]        the last of the work is done: on_done, then the
 *                                               keep scope is closed
 *     done     -> stopping   [rv_scope_empty]   the last watcher is done: the workers leave when
 *                                               they are idle
 *
 * (1) A post enters the work scope before it looks whether it is refused. So the scope cannot end
 *     between the look and the spawn, and what was not refused runs or is skipped.
 *
 * Threads: init, finish - one, while no worker runs; the rest - any.
 */
#include "sched/sched.h"

#include <errno.h>
#include <string.h>

#include "mem/alloc.h"
#include "mem/die.h"
#include "mem/forked.h"
#include "mem/pool_seat.h"
#include "sched/context.h"
#include "sched/grace.h"
#include "sched/park.h"
#include "sched/pick.h"
#include "sched/scope.h"
#include "sched/sync.h"

enum { WORTH_NS = 50000 }; /* a wake-up and its way back cost about 40 us */

static int make_workers(struct rv_sched *s)
{
    s->workers = rv_alloc_zero(s->nworkers * sizeof *s->workers);
    if (s->workers == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < s->nworkers; i++) {
        struct rv_worker *w = rv_alloc_aligned(sizeof *w, RV_CACHE_LINE);
        if (w == NULL)
            return -ENOMEM;
        memset(w, 0, sizeof *w);
        s->workers[i] = w;
        int r = rv_worker_init(w, s, i);
        if (r < 0)
            return r;
    }
    return 0;
}

static int make_scopes(struct rv_sched *s)
{
    struct rv_task *keep = rv_scope_make(s, NULL, NULL);
    if (keep == NULL)
        return -ENOMEM;
    s->keep = keep;
    struct rv_task *work = rv_scope_make(s, NULL, NULL);
    if (work == NULL)
        return -ENOMEM;
    s->work = work;
    rv_scope_enter(keep, NULL);
    return 0;
}

static int init(struct rv_sched *s, const struct rv_sched_opts *o)
{
    uint32_t cap = o->tasks_max + 2;      /* the two scopes */
    cap += RV_MAG_MAX * (o->workers + 1); /* free ones that lie in magazines */
    int r = rv_slab_init(&s->tasks, sizeof(struct rv_task), cap, "task.take");
    if (r < 0)
        return r;
    r = rv_stack_pool_init(&s->stacks, cap, o->no_guard_install);
    if (r < 0)
        return r;
    s->stacks.on_trim = rv_context_retire;
    for (unsigned c = 0; c < RV_STACK_CLASSES; c++)
        s->stacks.hot_max[c] = UINT32_MAX; /* idle workers let them go cold: see park.c */
    r = rv_injector_init(&s->injector, cap);
    if (r < 0)
        return r;
    r = make_workers(s);
    return r < 0 ? r : make_scopes(s);
}

static int make_admission(struct rv_sched *s, const struct rv_sched_opts *o)
{
    bool any = o->delay_max > 0;
    for (unsigned c = 0; c < RV_CLASSES; c++)
        any |= o->waiting_max[c] != 0;
    if (!any)
        return 0;
    struct rv_admission *a = rv_alloc_zero(sizeof *a);
    if (a == NULL)
        return -ENOMEM;
    a->delay_max = o->delay_max;
    memcpy(a->waiting_max, o->waiting_max, sizeof a->waiting_max);
    s->admission = a;
    return 0;
}

static void forked(void)
{
    rv_mutex_forked();
    rv_grace_forked();
}

int rv_sched_init(struct rv_sched *s, const struct rv_sched_opts *o)
{
    if (o->workers < 1 || o->workers > RV_WORKERS_MAX || o->tasks_max < 1 ||
        o->tasks_max > 1u << 28)
        return -EINVAL;
    if (o->stack_class >= RV_STACK_CLASSES || o->injector_every < 1 || o->pass_picks < 1 ||
        o->pass_ns < 0)
        return -EINVAL;
    rv_fork_hook(forked);
    s->forks = rv_forks();
    s->engine = o->engine;
    s->nworkers = o->workers;
    s->tasks_max = o->tasks_max;
    s->stack_class = o->stack_class;
    s->plain_kind = (uint8_t)(REEVE_NORMAL | o->stack_class << 4);
    s->injector_every = o->injector_every;
    s->pass_picks = o->pass_picks;
#ifdef RV_RANDOM_SCHED
    s->random = true;
#endif
    s->us_tsc = o->pass_ns ? rv_tsc_per_us() : 1;
    s->pass_tsc = (uint64_t)o->pass_ns * s->us_tsc / 1000;
    s->worth_tsc = (uint64_t)(o->worth_ns ? o->worth_ns : WORTH_NS) * s->us_tsc / 1000;
    rv_fences_init(s);
    int r = init(s, o);
    if (r == 0)
        r = make_admission(s, o);
    if (r < 0)
        rv_sched_finish(s);
    return r;
}

void rv_sched_finish(struct rv_sched *s)
{
    rv_grace_wait();
    for (uint32_t i = 0; s->workers && i < s->nworkers; i++) {
        struct rv_worker *w = s->workers[i];
        if (w == NULL)
            continue;
        if (w->sched) {
            rv_mag_flush(&s->tasks, &w->local.task_mag);
            rv_stack_mag_flush(&s->stacks, &w->local.stack_mag);
            rv_seat_leave(&w->local);
            rv_worker_finish(w);
        }
        rv_free(w);
    }
    rv_free(s->workers);
    s->workers = NULL;
    rv_injector_finish(&s->injector);
    rv_free(s->admission);
    s->admission = NULL;
    rv_stack_pool_finish(&s->stacks);
    rv_slab_finish(&s->tasks);
}

static void stop(struct rv_sched *s)
{
    rv_store_release(&s->stopping, 1u); /* pairs with the acquire in rescan(), after its fence */
    for (uint32_t i = 0; i < s->nworkers; i++)
        rv_wake_worker(s, s->workers[i]);
}

static void work_done(struct rv_sched *s, struct rv_worker *w)
{
    uint32_t not_yet = 0;
    if (!rv_cas(&s->ended, &not_yet, 1u))
        return; /* a post that came too late has left again */
    if (s->on_done)
        s->on_done(s, w);
    /* Its hold on the scope was entered in make_scopes(): leaving may be the last thing. */
    if (rv_scope_close(s->keep))
        RV_MUST(!"the work scope is in the keep scope until here");
    rv_scope_leave(s, w, s->keep);
}

void rv_scope_empty(struct rv_sched *s, struct rv_worker *w, struct rv_task *scope)
{
    if (scope == s->work)
        work_done(s, w);
    else
        stop(s);
}

int64_t rv_sched_now(struct rv_sched *s)
{
    return s->engine->now ? s->engine->now(s) : rv_clock_ns();
}

static int post_into(struct rv_sched *s, struct rv_task *scope, const struct reeve_spawn *how)
{
    struct rv_task *t;
    int r = rv_spawn_check(s, how);
    if (r == 0 && how->group)
        r = -EINVAL;
    if (r < 0)
        return r;
    unsigned c = how->priority ? (unsigned)how->priority - 1 : RV_NORMAL;
    bool admit = s->admission && scope == s->work;
    if (admit && (r = rv_admit(s, c, rv_sched_now(s))) < 0)
        return r;
    r = rv_task_make(s, NULL, scope, how, false, &t);
    if (r < 0) {
        if (admit)
            rv_admit_started(s, c);
        return r;
    }
    if (admit)
        t->flags |= RV_TF_POSTED;
    rv_add_relaxed(&s->posted, (uint64_t)1);
    struct rv_worker *self = rv_worker_self();
    rv_fresh(s, self && self->sched == s && self->cur ? self : NULL, t);
    return 0;
}

int rv_sched_post(struct rv_sched *s, const struct reeve_spawn *how)
{
    rv_add_acq_rel(&s->work->live, 1); /* see (1); pairs with rv_sched_close() */
    int r = rv_load_seqcst(&s->closing) ? -ESHUTDOWN : post_into(s, s->work, how);
    rv_scope_leave(s, NULL, s->work);
    return r;
}

int rv_sched_keep(struct rv_sched *s, const struct reeve_spawn *how)
{
    return post_into(s, s->keep, how);
}

void rv_sched_close(struct rv_sched *s)
{
    uint32_t open = 0;
    if (!rv_cas_seqcst(&s->closing, &open, 1u))
        return;
    if (rv_scope_close(s->work))
        work_done(s, rv_worker_self());
}

void rv_sched_cancel(struct rv_sched *s, struct rv_worker *self)
{
    rv_cancel(s, self, s->work, rv_task_gen(s->work));
}
