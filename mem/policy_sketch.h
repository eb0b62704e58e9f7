/* SPDX-License-Identifier: MIT */
/*
 * policy_sketch.h -- about how often a key was seen lately: a count-min sketch of 4-bit counters.
 *
 * After Einziger, Friedman and Manes, "TinyLFU: a highly efficient cache admission policy" (2017):
 * each key has four counters, of which the smallest counts, and at the end of each sample all
 * counters are halved, so that what was popular long ago is forgotten.
 * Threads: whoever holds the shard's lock.
 */
#ifndef RV_MEM_POLICY_SKETCH_H
#define RV_MEM_POLICY_SKETCH_H

#include <stddef.h>
#include <stdint.h>

struct rv_sketch {
    uint64_t *words;            /* 16 counters each */
    size_t count;               /* of the words; a power of two */
    size_t ageing;              /* words from here on are still to be halved; count: none */
    size_t entries;             /* that it counts for */
    unsigned span;              /* a sample is so many uses for each of them */
    uint64_t seen;              /* uses in this sample, less what ageing took */
};

/* For so many entries. 0, -ENOMEM. */
int rv_sketch_init(struct rv_sketch *s, size_t entries);
void rv_sketch_finish(struct rv_sketch *s);

/* It counts for so many entries from now on. Without memory it stays as it is. */
void rv_sketch_grow(struct rv_sketch *s, size_t entries);

void rv_sketch_add(struct rv_sketch *s, uint64_t hash);

/* Forgets half of what it knows, and makes samples short again: other keys are popular now. */
void rv_sketch_halve(struct rv_sketch *s);

/* 0 .. 15 */
unsigned rv_sketch_estimate(const struct rv_sketch *s, uint64_t hash);

#endif
