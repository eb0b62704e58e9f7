/* SPDX-License-Identifier: MIT */
/*
 * policy_ghost.c -- a ring of hashes in the order in which they came, and a table to find them.
 *
 *     ring   | ... tail | hashes of the remembered pushes and of those taken back | head ... |
 *     slots  | 0 | 17 | 0 | 4 | ...   numbers of pushes, plus one, at the places of their hashes
 *
 * (1) tail <= head <= tail + ring_size. A push is remembered if tail <= its number < head and the
 *     table holds it.
 * (2) The table is open, with linear probing, at most half full; taking out closes the gap, so
 *     there are no tombstones.
 * Threads: whoever holds the shard's lock.
 */
#include "mem/policy_ghost.h"

#include <errno.h>

#include "mem/alloc.h"
#include "mem/die.h"

static size_t place_of(const struct rv_ghost *g, uint64_t hash)
{
    /* The hash's top bits are the same within a shard, its low ones choose places in the table. */
    return (size_t)(hash * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (2 * g->ring_size - 1);
}

static uint64_t hash_at(const struct rv_ghost *g, size_t place)
{
    return g->ring[(g->slots[place] - 1) & (g->ring_size - 1)];
}

static void note(struct rv_ghost *g, uint64_t number)
{
    size_t mask = 2 * g->ring_size - 1;
    size_t i = place_of(g, g->ring[number & (g->ring_size - 1)]);
    while (g->slots[i] != 0)
        i = (i + 1) & mask;
    g->slots[i] = number + 1;
}

/* Empties a place, and moves up those behind it that would not be found otherwise. */
static void erase(struct rv_ghost *g, size_t hole)
{
    size_t mask = 2 * g->ring_size - 1;
    for (size_t i = (hole + 1) & mask; g->slots[i] != 0; i = (i + 1) & mask) {
        size_t home = place_of(g, hash_at(g, i));
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            g->slots[hole] = g->slots[i];
            hole = i;
        }
    }
    g->slots[hole] = 0;
}

/* The place of the hash, or -1. */
static ptrdiff_t find(const struct rv_ghost *g, uint64_t hash)
{
    size_t mask = 2 * g->ring_size - 1;
    for (size_t i = place_of(g, hash); g->slots[i] != 0; i = (i + 1) & mask)
        if (hash_at(g, i) == hash)
            return (ptrdiff_t)i;
    return -1;
}

/* Forgets the oldest push, if it was not taken back. */
static void forget(struct rv_ghost *g)
{
    uint64_t number = g->tail;
    ptrdiff_t place = find(g, g->ring[number & (g->ring_size - 1)]);
    if (place >= 0 && g->slots[place] == number + 1)
        erase(g, (size_t)place);
    g->tail++;
}

/* A ring of at least `keep`, with what is remembered now. */
static int resize(struct rv_ghost *g, size_t keep)
{
    struct rv_ghost more = { .ring_size = 16, .head = g->head, .tail = g->tail };
    while (more.ring_size < keep)
        more.ring_size *= 2;
    more.ring = rv_alloc(more.ring_size * sizeof *more.ring);
    more.slots = rv_alloc_zero(2 * more.ring_size * sizeof *more.slots);
    if (more.ring == NULL || more.slots == NULL) {
        rv_free(more.ring);
        rv_free(more.slots);
        return -ENOMEM;
    }
    for (uint64_t n = g->tail; n < g->head; n++)
        more.ring[n & (more.ring_size - 1)] = g->ring[n & (g->ring_size - 1)];
    for (size_t i = 0; g->ring_size > 0 && i < 2 * g->ring_size; i++)
        if (g->slots[i] != 0)
            note(&more, g->slots[i] - 1);
    rv_free(g->ring);
    rv_free(g->slots);
    *g = more;
    return 0;
}

int rv_ghost_init(struct rv_ghost *g, size_t keep)
{
    *g = (struct rv_ghost){0};
    return resize(g, keep);
}

void rv_ghost_finish(struct rv_ghost *g)
{
    rv_free(g->ring);
    rv_free(g->slots);
    *g = (struct rv_ghost){0};
}

void rv_ghost_push(struct rv_ghost *g, uint64_t hash, size_t keep)
{
    RV_ASSERT(keep > 0);
    if (keep > g->ring_size && resize(g, keep) < 0 && g->ring_size == 0)
        return;
    if (keep > g->ring_size)
        keep = g->ring_size;
    RV_ASSERT(find(g, hash) < 0);
    while (g->head - g->tail >= keep)
        forget(g);
    g->ring[g->head & (g->ring_size - 1)] = hash;
    g->head++;
    note(g, g->head - 1);
}

bool rv_ghost_take(struct rv_ghost *g, uint64_t hash)
{
    ptrdiff_t place = g->ring_size > 0 ? find(g, hash) : -1;
    if (place < 0)
        return false;
    erase(g, (size_t)place);
    return true;
}
