/* SPDX-License-Identifier: MIT */
/*
 * sim_heap.c -- what is due in a simulation, earliest first: a binary heap.
 *
 * Nothing is taken out before its time: who is no longer interested is recognised by its number
 * when the time comes. Things due at the same time come in the order of their ties, which are
 * drawn.
 *
 * Threads: the simulation's.
 */
#include <errno.h>
#include <string.h>

#include "io/sim_world.h"
#include "mem/alloc.h"
#include "mem/die.h"

#define FIRST_CAP 256u

static bool before(const struct rv_sim_due *a, const struct rv_sim_due *b)
{
    return a->at != b->at ? a->at < b->at : a->tie < b->tie;
}

static int grow(struct rv_sim_heap *h)
{
    uint32_t cap = h->cap ? 2 * h->cap : FIRST_CAP;
    struct rv_sim_due *due = rv_alloc(cap * sizeof *due);
    if (!due)
        return -ENOMEM;
    if (h->n)
        memcpy(due, h->due, h->n * sizeof *due);
    rv_free(h->due);
    h->due = due;
    h->cap = cap;
    return 0;
}

int rv_sim_heap_init(struct rv_sim_heap *h)
{
    return grow(h);
}

int rv_sim_heap_push(struct rv_sim_heap *h, const struct rv_sim_due *due)
{
    if (h->n == h->cap && grow(h) < 0)
        return -ENOMEM;
    uint32_t i = h->n++;
    for (; i > 0 && before(due, &h->due[(i - 1) / 2]); i = (i - 1) / 2)
        h->due[i] = h->due[(i - 1) / 2];
    h->due[i] = *due;
    return 0;
}

struct rv_sim_due rv_sim_heap_pop(struct rv_sim_heap *h)
{
    RV_MUST(h->n > 0);
    struct rv_sim_due first = h->due[0], last = h->due[--h->n];
    uint32_t i = 0;
    for (uint32_t child; (child = 2 * i + 1) < h->n; i = child) {
        if (child + 1 < h->n && before(&h->due[child + 1], &h->due[child]))
            child++;
        if (!before(&h->due[child], &last))
            break;
        h->due[i] = h->due[child];
    }
    if (h->n > 0)
        h->due[i] = last;
    return first;
}
