/* SPDX-License-Identifier: MIT */
/*
 * policy_ghost.h -- the keys that were evicted last, by their hashes.
 *
 * It remembers the last so many pushes, less those that were taken back; how many is said at each
 * push. {0} remembers nothing. What there is no memory for is forgotten.
 * Threads: whoever holds the shard's lock.
 */
#ifndef RV_MEM_POLICY_GHOST_H
#define RV_MEM_POLICY_GHOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rv_ghost {
    uint64_t *ring;             /* pushes by number, modulo ring_size */
    uint64_t *slots;            /* a hash table of the remembered: push number + 1, or 0 */
    size_t ring_size;           /* a power of two; the table is twice as large */
    uint64_t head, tail;        /* the numbers of the next push and of the oldest remembered */
};

/* Room for so many from the start. 0, -ENOMEM. */
int rv_ghost_init(struct rv_ghost *g, size_t keep);
void rv_ghost_finish(struct rv_ghost *g);

/* Remembers a hash, which is not remembered, and of all only the last `keep` (at least one). */
void rv_ghost_push(struct rv_ghost *g, uint64_t hash, size_t keep);

/* Whether it was remembered; it is not any more. */
bool rv_ghost_take(struct rv_ghost *g, uint64_t hash);

#endif
