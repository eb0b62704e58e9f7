/* SPDX-License-Identifier: MIT */
/*
 * deque.c -- where a deque's slots come from. The algorithm is in deque.h: its paths are hot and
 * short.
 *
 * The slots are one lazily touched mapping, sized for the most tasks that can be alive at once. It
 * costs nothing until it is used, and as it never grows no thief can hold on to an old array.
 *
 * Threads: the owner only, before the first thief comes and after the last one left.
 */
#include "sched/deque.h"

#include <errno.h>

#include "mem/alloc.h"

int rv_deque_init(struct rv_deque *d, uint64_t cap)
{
    RV_MUST(cap >= 1 && cap <= UINT64_C(1) << 32);
    RV_MUST((cap & (cap - 1)) == 0);
    RV_ATOMIC(uint64_t) *slots = rv_map_lazy(cap * sizeof *slots);
    if (!slots)
        return -ENOMEM;
    d->slots = slots;
    d->mask = cap - 1;
    d->top_seen = 0;
    rv_store_relaxed(&d->top, 0);
    rv_store_relaxed(&d->bottom, 0);
    return 0;
}

void rv_deque_finish(struct rv_deque *d)
{
    if (!d->slots)
        return;
    rv_unmap(d->slots, (d->mask + 1) * sizeof *d->slots);
    d->slots = NULL;
}
