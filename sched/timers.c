/* SPDX-License-Identifier: MIT */
/*
 * timers.c -- the 4-ary heap.
 *
 * Children of i are 4i + 1 .. 4i + 4. Four children are 64 bytes and are always looked at together,
 * so the array starts 48 bytes into its mapping: then each such group is one cache line.
 *
 *     map   |  -  |  -  |  -  |  0  |  1     2     3     4  |  5     6     7     8  | ...
 *           '------ one line ------' '---- children of 0 ---' '---- children of 1 ---'
 *
 * Half the depth of a binary heap, and a push compares once per level: most timers are pushed later
 * than those that are there, and stay where they are put.
 *
 * (1) No entry is earlier than its parent.
 * (2) Entries move as values; nobody outside keeps an index or a pointer.
 *
 * Threads: the owner only.
 */
#include "sched/timers.h"

#include <errno.h>

#include "mem/alloc.h"
#include "mem/die.h"

/* Entries left free before the root, so that children share a cache line. */
#define LEAD 3u

int rv_timers_init(struct rv_timers *t, uint32_t cap)
{
    RV_MUST(cap >= 1);
    RV_MUST(cap <= UINT32_C(1) << 30);      /* 4i + 4 has to fit an index */
    size_t bytes = ((size_t)cap + LEAD) * sizeof(struct rv_timer);
    struct rv_timer *map = rv_map_lazy(bytes);
    if (!map)
        return -ENOMEM;
    *t = (struct rv_timers){.heap = map + LEAD, .cap = cap, .map = map, .map_bytes = bytes};
    return 0;
}

void rv_timers_finish(struct rv_timers *t)
{
    if (!t->map)
        return;
    rv_unmap(t->map, t->map_bytes);
    *t = (struct rv_timers){0};
}

/* Puts e into the hole at i or above it, moving later parents down. */
static void sift_up(struct rv_timer *heap, uint32_t i, struct rv_timer e)
{
    while (i > 0) {
        uint32_t parent = (i - 1) / 4;
        if (heap[parent].at <= e.at)
            break;
        heap[i] = heap[parent];
        i = parent;
    }
    heap[i] = e;
}

/* The earliest of the children that start at first, which is below n. The order of four times is
 * a coin toss to the branch predictor, so the usual case compares in pairs and adds the results. */
static uint32_t earliest_child(const struct rv_timer *heap, uint32_t first, uint32_t n)
{
    if (n - first >= 4) {
        uint32_t a = first + (heap[first + 1].at < heap[first].at);
        uint32_t b = first + 2 + (heap[first + 3].at < heap[first + 2].at);
        return a + (b - a) * (heap[b].at < heap[a].at);
    }
    uint32_t best = first;
    for (uint32_t i = first + 1; i < n; i++)
        best = heap[i].at < heap[best].at ? i : best;
    return best;
}

/* Puts e into the hole at i or below it, moving earlier children up. */
static void sift_down(struct rv_timer *heap, uint32_t n, uint32_t i, struct rv_timer e)
{
    for (;;) {
        uint32_t first = 4 * i + 1;
        if (first >= n)
            break;
        uint32_t child = earliest_child(heap, first, n);
        if (heap[child].at >= e.at)
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = e;
}

bool rv_timers_push(struct rv_timers *t, struct rv_timer e)
{
    RV_ASSERT(t->heap != NULL);
    if (t->n == t->cap)
        return false;
    sift_up(t->heap, t->n++, e);
    return true;
}

struct rv_timer rv_timers_pop(struct rv_timers *t)
{
    RV_MUST(t->n > 0);
    struct rv_timer min = t->heap[0];
    t->n--;
    if (t->n > 0)
        sift_down(t->heap, t->n, 0, t->heap[t->n]);
    return min;
}

void rv_timers_sweep(struct rv_timers *t, bool (*live)(void *ctx, const struct rv_timer *e),
                     void *ctx)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < t->n; i++)
        if (live(ctx, &t->heap[i]))
            t->heap[kept++] = t->heap[i];
    RV_ASSERT(kept <= t->n);
    t->n = kept;
    t->kept = kept;
    /* Floyd's construction: from the last parent to the root, let each sink into its children. */
    for (uint32_t i = kept > 1 ? (kept - 2) / 4 + 1 : 0; i-- > 0;)
        sift_down(t->heap, kept, i, t->heap[i]);
}
