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
#include "runtime/runtime.h"

static void add_worker(struct reeve_stats *st, struct rv_worker *w)
{
    struct rv_counters *n = &w->n;
    for (unsigned c = 0; c < RV_CLASSES; c++) {
        st->started += rv_load_relaxed(&n->started[c]);
        st->completed += rv_load_relaxed(&n->completed[c]);
        st->expired += rv_load_relaxed(&n->expired[c]);
        st->failed += rv_load_relaxed(&n->failed[c]);
    }
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
}

void reeve_stats(reeve *rt, struct reeve_stats *ret_stats)
{
    struct rv_sched *s = &rt->sched;
    struct reeve_stats st = { .workers = s->nworkers };
    struct rv_io_counters io = { 0 };
    struct rv_stack_stats stacks;
    for (uint32_t i = 0; i < s->nworkers; i++) {
        add_worker(&st, s->workers[i]);
        rv_io_counters_add(&io, &rt->io->workers[i].n);
    }
    rv_fence_acquire(); /* (1) */
    for (uint32_t i = 0; i < s->nworkers; i++)
        st.spawned += rv_load_relaxed(&s->workers[i]->n.spawned);
    st.spawned += rv_load_relaxed(&s->posted);
    rv_stack_pool_stats(&s->stacks, &stacks);
    st.wakes_sent += rv_load_relaxed(&s->foreign_wakes);
    st.injected = rv_load_relaxed(&s->injector.total);
    uint64_t over = st.completed + st.skipped;
    st.tasks_live = st.spawned > over ? st.spawned - over : 0;
    st.stacks_live = stacks.live;
    st.enters = io.enters;
    st.sqes = io.sqes;
    st.cqes = io.cqes;
    st.cq_overflows = io.overflows;
    st.enobufs = io.starved;
    st.lease_waits = io.lease_waits;
    st.heap_leases = io.borrowed;
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
