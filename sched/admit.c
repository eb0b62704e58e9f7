/* SPDX-License-Identifier: MIT */
/*
 * admit.c -- whether work may enter.
 *
 * A server that takes on more than it can do finishes nothing in time. So work is refused where it
 * enters (a post, a new connection), and only there: what a task spawns belongs to work that was
 * let in already. Two bounds, each per class: how many may wait for their start, and how long they
 * wait. The second follows CoDel (Nichols and Jacobson, ACM Queue 2012): a queue that is long for
 * a moment is doing its job; one whose every sample has been above the target for a whole interval
 * is standing, and then nothing is let in until a sample is below it.
 *
 * (1) A queue that nobody enters is not sampled: when the last sample is older than an interval the
 *     standing queue is over.
 *
 * Threads: any.
 */
#include "sched/admit.h"

#include <errno.h>

#include "mem/die.h"

#define INTERVAL_NS (100 * REEVE_MS)

static bool stands(struct rv_admission *a, unsigned c, int64_t now)
{
    int64_t since = rv_load_relaxed(&a->of[c].above_since);
    if (since == 0 || now - since < INTERVAL_NS)
        return false;
    return now - rv_load_relaxed(&a->of[c].sampled_at) < INTERVAL_NS; /* (1) */
}

int rv_admit(struct rv_sched *s, unsigned c, int64_t now)
{
    struct rv_admission *a = s->admission;
    RV_ASSERT(c < RV_CLASSES);
    if (a == NULL)
        return 0;
    uint32_t most = a->waiting_max[c];
    /* Counted first, so that many who come at a time cannot pass the bound together. */
    if ((rv_add_relaxed(&a->of[c].waiting, 1u) < most || most == 0) && !stands(a, c, now))
        return 0;
    rv_sub_relaxed(&a->of[c].waiting, 1u);
    rv_add_relaxed(&a->of[c].refused, (uint64_t)1);
    return -EAGAIN;
}

void rv_admit_started(struct rv_sched *s, unsigned c)
{
    RV_ASSERT(s->admission != NULL && c < RV_CLASSES);
    RV_MUST(rv_sub_relaxed(&s->admission->of[c].waiting, 1u) > 0);
}

void rv_admit_sample_slow(struct rv_worker *w, unsigned c, uint64_t ns)
{
    struct rv_admission *a = w->sched->admission;
    if (a->delay_max == 0)
        return;
    int64_t now = w->now ? w->now : 1;
    rv_store_relaxed(&a->of[c].sampled_at, now);
    if ((int64_t)ns <= a->delay_max)
        rv_store_relaxed(&a->of[c].above_since, 0);
    else if (rv_load_relaxed(&a->of[c].above_since) == 0)
        rv_store_relaxed(&a->of[c].above_since, now);
}
