/* SPDX-License-Identifier: MIT */
/*
 * stats.c -- the counters of all workers, added up for whoever asks, and the check whether reeve
 * can run here at all.
 *
 * (1) What is over is read before what was spawned, so their difference, the tasks that live, is
 *     never less than what it was when the reading began.
 *
 * Threads: any, while the workers go on.
 */
#include "io/caps.h"
#include "io/proc.h"
#include "io/resolve.h"
#include "mem/alloc.h"
#include "runtime/runtime.h"
#include "sched/admit.h"
#include "sched/watchdog.h"

static void add_worker(struct reeve_stats *st, struct rv_worker *w)
{
    struct rv_counters *n = &w->n;
    st->cancelled += rv_load_relaxed(&n->cancelled);
    st->skipped += rv_load_relaxed(&n->skipped);
    st->polls += rv_load_relaxed(&n->picks) + rv_load_relaxed(&n->inline_runs);
    st->inline_runs += rv_load_relaxed(&n->inline_runs);
    st->passes += rv_load_relaxed(&n->passes);
    st->parks += rv_load_relaxed(&n->parks);
    st->wakes_sent += rv_load_relaxed(&n->wakes_sent);
    st->steals_tried += rv_load_relaxed(&n->steals_tried);
    st->steals_got += rv_load_relaxed(&n->steals_got);
    st->timers_fired += rv_load_relaxed(&n->timers_fired);
    st->boosts += rv_load_relaxed(&n->boosts);
    st->rescue_signals += rv_load_relaxed(&n->rescue_signals);
    st->loans_given += rv_load_relaxed(&n->loans_given);
    st->loans_taken += rv_load_relaxed(&n->loans_taken);
}

static void sum_times(struct reeve_times *ret, const struct rv_hist *h)
{
    *ret = (struct reeve_times){
        .count = rv_hist_count(h),
        .min = rv_hist_min(h),
        .mean = (uint64_t)rv_hist_mean(h),
        .p50 = rv_hist_percentile(h, 50),
        .p90 = rv_hist_percentile(h, 90),
        .p95 = rv_hist_percentile(h, 95),
        .p99 = rv_hist_percentile(h, 99),
        .p999 = rv_hist_percentile(h, 99.9),
        .max = rv_hist_max(h),
    };
}

/* The times of a class, all workers together; `sum` is room to add them up in. */
static void add_times(struct reeve_class_stats *c, struct rv_sched *s, unsigned i,
                      struct rv_hist *sum)
{
    rv_hist_reset(sum);
    for (uint32_t k = 0; k < s->nworkers; k++)
        rv_hist_merge(sum, &s->workers[k]->hists->delay[i]);
    sum_times(&c->delay, sum);
    rv_hist_reset(sum);
    for (uint32_t k = 0; k < s->nworkers; k++)
        rv_hist_merge(sum, &s->workers[k]->hists->run[i]);
    sum_times(&c->run, sum);
}

static void add_classes(struct reeve_stats *st, struct rv_sched *s)
{
    struct rv_hist *sum = rv_alloc(sizeof *sum); /* too large for a task's stack */
    for (unsigned i = 0; i < RV_CLASSES; i++) {
        struct reeve_class_stats *c = &st->classes[i];
        for (uint32_t k = 0; k < s->nworkers; k++) {
            struct rv_counters *n = &s->workers[k]->n;
            c->completed += rv_load_relaxed(&n->completed[i]);
            c->started += rv_load_relaxed(&n->started[i]);
            c->failed += rv_load_relaxed(&n->failed[i]);
            c->expired += rv_load_relaxed(&n->expired[i]);
            c->late += rv_load_relaxed(&n->late[i]);
        }
        c->active = c->started > c->completed ? c->started - c->completed : 0;
        if (s->admission)
            c->refused = rv_load_relaxed(&s->admission->of[i].refused);
        if (sum)
            add_times(c, s, i, sum);
        st->started += c->started;
        st->completed += c->completed;
        st->expired += c->expired;
        st->failed += c->failed;
    }
    rv_free(sum);
}

static void add_arena(struct reeve_stats *st, struct rv_io *io)
{
    struct rv_arena_stats arena;
    rv_arena_stats(io, &arena);
    st->aligned_bytes_live = arena.bytes;
    st->aligned_fixed = arena.fixed;
    st->aligned_plain = arena.plain;
    st->aligned_waits = arena.waits;
}

static void add_programs(struct reeve_stats *st)
{
    struct rv_proc_counts proc;
    rv_proc_counts(&proc);
    st->programs_started = proc.started;
    st->programs_ended = proc.ended;
    st->programs_refused = proc.refused;
    st->programs_pooled = proc.pooled;
    st->programs_live = proc.started > proc.ended ? proc.started - proc.ended : 0;
}

void reeve_stats(reeve *rt, struct reeve_stats *ret_stats)
{
    struct rv_sched *s = &rt->sched;
    struct reeve_stats st = { .workers = s->nworkers };
    struct rv_io_counters io = { 0 };
    struct rv_stack_stats stacks;
    struct rv_offload_stats offload;
    for (uint32_t i = 0; i < s->nworkers; i++) {
        add_worker(&st, s->workers[i]);
        rv_io_counters_add(&io, &rt->io->workers[i].n);
    }
    add_classes(&st, s);
    rv_fence_acquire(); /* (1) */
    for (uint32_t i = 0; i < s->nworkers; i++)
        st.spawned += rv_load_relaxed(&s->workers[i]->n.spawned);
    st.spawned += rv_load_relaxed(&s->posted);
    rv_stack_pool_stats(&s->stacks, &stacks);
    rv_offload_stats(&rt->offload, &offload);
    st.wakes_sent += rv_load_relaxed(&s->foreign_wakes);
    st.injected = rv_load_relaxed(&s->injector.total);
    uint64_t over = st.completed + st.skipped;
    st.tasks_live = st.spawned > over ? st.spawned - over : 0;
    st.stacks_live = stacks.live;
    st.offloads = offload.run;
    st.offloads_removed = offload.removed;
    st.offload_threads_peak = offload.threads_peak;
    st.offload_threads_live = offload.threads;
    st.offload_queued_live = offload.queued;
    st.lookups = rv_load_relaxed(&rt->io->resolver->lookups);
    st.lookups_known = rv_load_relaxed(&rt->io->resolver->hits);
    st.lookups_shared = rv_load_relaxed(&rt->io->resolver->shared);
    add_arena(&st, rt->io);
    add_programs(&st);
    st.stalls = rv_watchdog_stalls(s);
    st.enters = io.enters;
    st.sqes = io.sqes;
    st.cqes = io.cqes;
    st.cq_overflows = io.overflows;
    st.enobufs = io.starved;
    st.heap_recvs = io.relieved;
    st.sends_along = io.taken_along;
    st.lease_waits = io.lease_waits;
    st.heap_leases = io.borrowed;
    st.zc_sent = io.zc_sent;
    st.zc_copied = io.zc_copied;
    st.zc_plain = io.zc_plain;
    st.conns_live = rv_load_relaxed(&rt->conns_live);
    st.accepted = io.accepted;
    st.shed = rv_load_relaxed(&rt->shed);
    st.emfile = io.accept_pauses;
    *ret_stats = st;
}

int reeve_check(char *sentence, size_t cap)
{
    return rv_uring_refused(sentence, cap);
}
