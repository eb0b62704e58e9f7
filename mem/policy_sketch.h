/* SPDX-License-Identifier: MIT */
/*
 * policy_sketch.h -- about how often a key was used lately: a count-min sketch of 8-bit counters.
 *
 * After Einziger, Friedman and Manes, "TinyLFU: a highly efficient cache admission policy" (2017):
 * each key has four counters, of which the smallest counts, and at the end of each sample all
 * counts are halved, so that what was popular long ago is forgotten.
 *
 * Unlike there, who is in the cache counts its uses itself, exactly; the sketch holds the counts
 * of those who are not. So the many uses of the few do not blur the counts of the others, and a
 * hit does not touch the sketch:
 *
 *     uses = rv_sketch_estimate(s, hash), age = s->age     a key enters
 *     uses = rv_sketch_aged(s, uses, age), age = s->age    before it is read or counted up
 *     rv_sketch_raise(s, hash, uses)                       it leaves
 *
 * and rv_sketch_use() at each use of any key, which is what time is measured in.
 * Threads: whoever holds the shard's lock.
 */
#ifndef RV_MEM_POLICY_SKETCH_H
#define RV_MEM_POLICY_SKETCH_H

#include <stddef.h>
#include <stdint.h>

/* Uses for each entry in a sample. It is long, since counts err by their square root; what becomes
 * unpopular at once is for rv_sketch_halve(). */
enum { RV_SKETCH_SAMPLE = 256, RV_SKETCH_MAX = 255 };

struct rv_sketch {
    uint64_t *words;            /* 8 counters each */
    size_t count;               /* of the words; a power of two */
    size_t ageing;              /* words from here on are still to be halved; count: none */
    size_t entries;             /* that it counts for */
    uint64_t seen;              /* uses in this sample, and half of those before */
    uint8_t age;                /* how often it was halved, modulo 256 */
};

/* For so many entries. 0, -ENOMEM. */
int rv_sketch_init(struct rv_sketch *s, size_t entries);
void rv_sketch_finish(struct rv_sketch *s);

/* It counts for so many entries from now on. Without memory it stays as it is. */
void rv_sketch_grow(struct rv_sketch *s, size_t entries);

/* A use; at the end of a sample it is halved. */
void rv_sketch_use(struct rv_sketch *s);

/* Forgets half of what it knows. */
void rv_sketch_halve(struct rv_sketch *s);

/* What is left of a count that was true at that age. */
static inline unsigned rv_sketch_aged(const struct rv_sketch *s, unsigned uses, uint8_t age)
{
    uint8_t halvings = (uint8_t)(s->age - age);
    return halvings < 16 ? uses >> halvings : 0;
}

/* The key was used so often: more than RV_SKETCH_MAX is not remembered. */
void rv_sketch_raise(struct rv_sketch *s, uint64_t hash, unsigned uses);

/* 0 .. RV_SKETCH_MAX */
unsigned rv_sketch_estimate(const struct rv_sketch *s, uint64_t hash);

#endif
