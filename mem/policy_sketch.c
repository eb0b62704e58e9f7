/* SPDX-License-Identifier: MIT */
/*
 * policy_sketch.c -- four counters of a key, all in one cache line, and halving by and by.
 *
 *     words   | a block, 64 counters of 8 bits: 16 for keys' first ones, 16 for their second ... |
 *
 * (1) A counter stops at RV_SKETCH_MAX.
 * (2) Halving takes a few words at each key that leaves: no single one pays for all of them.
 *     Meanwhile some keys count double; a sample is much longer than that.
 * (3) Of the four only those are raised that are less than the key's count: the others are that
 *     high because of other keys.
 * (4) To double the table is to copy it behind itself: a place gets one bit more, and both places
 *     that it can become hold what it held.
 * (5) 16 .. 32 bytes for each entry.
 * Threads: whoever holds the shard's lock.
 */
#include "mem/policy_sketch.h"

#include <errno.h>
#include <string.h>

#include "mem/alloc.h"
#include "mem/die.h"
#include "mem/rv_atomic.h"

enum { BLOCK = RV_CACHE_LINE / sizeof(uint64_t) };
enum { WORDS_MIN = 32, WIDTH = 2, AGE_AT_ONCE = 16 };

/* Of a key: the block, and above it the bits that choose the counters in there. */
static inline uint64_t *block_of(const struct rv_sketch *s, uint64_t hash, uint64_t *ret_mixed)
{
    uint64_t mixed = (hash ^ hash >> 32) * UINT64_C(0xc3a5c85c97cb3127);
    *ret_mixed = mixed >> 44;
    return s->words + ((mixed >> 8) & (s->count - 1) & ~(size_t)(BLOCK - 1));
}

/* The i-th counter of a key: one of the 16 in two words. */
static inline uint64_t *counter_of(uint64_t *block, uint64_t mixed, unsigned i, unsigned *ret_at)
{
    unsigned four = (unsigned)(mixed >> (4 * i)) & 15;
    *ret_at = four % 8 * 8;
    return block + 2 * i + four / 8;
}

static uint64_t *words_new(size_t count)
{
    uint64_t *words = rv_alloc_aligned(count * sizeof *words, RV_CACHE_LINE);
    if (words != NULL)
        memset(words, 0, count * sizeof *words);
    return words;
}

int rv_sketch_init(struct rv_sketch *s, size_t entries)
{
    size_t count = WORDS_MIN;
    while (count < WIDTH * entries)
        count *= 2;
    uint64_t *words = words_new(count);
    if (words == NULL)
        return -ENOMEM;
    *s = (struct rv_sketch){ .words = words, .count = count, .ageing = count };
    s->entries = entries > WORDS_MIN ? entries : WORDS_MIN;
    return 0;
}

void rv_sketch_finish(struct rv_sketch *s)
{
    rv_free(s->words);
    *s = (struct rv_sketch){0};
}

static void age(struct rv_sketch *s)
{
    size_t end = s->ageing + AGE_AT_ONCE < s->count ? s->ageing + AGE_AT_ONCE : s->count;
    for (size_t i = s->ageing; i < end; i++)
        s->words[i] = s->words[i] >> 1 & UINT64_C(0x7f7f7f7f7f7f7f7f);
    s->ageing = end;
}

void rv_sketch_raise(struct rv_sketch *s, uint64_t hash, unsigned uses)
{
    RV_ASSERT(s->count > 0);
    uint64_t mixed, *block = block_of(s, hash, &mixed);
    uint64_t to = uses < RV_SKETCH_MAX ? uses : RV_SKETCH_MAX;
    for (unsigned i = 0, at; i < 4; i++) {
        uint64_t *word = counter_of(block, mixed, i, &at);
        uint64_t is = *word >> at & RV_SKETCH_MAX;
        if (is < to)
            *word += (to - is) << at;
    }
    if (s->ageing < s->count)
        age(s);
}

unsigned rv_sketch_estimate(const struct rv_sketch *s, uint64_t hash)
{
    uint64_t mixed, *block = block_of(s, hash, &mixed);
    unsigned least = RV_SKETCH_MAX;
    for (unsigned i = 0, at; i < 4; i++) {
        const uint64_t *word = counter_of(block, mixed, i, &at);
        unsigned is = (unsigned)(*word >> at & RV_SKETCH_MAX);
        least = is < least ? is : least;
    }
    return least;
}

void rv_sketch_grow(struct rv_sketch *s, size_t entries)
{
    if (entries > s->entries)
        s->entries = entries;
    if (WIDTH * entries <= s->count)
        return;
    uint64_t *words = words_new(2 * s->count);
    if (words == NULL)
        return;
    while (s->ageing < s->count)
        age(s);
    memcpy(words, s->words, s->count * sizeof *words);
    memcpy(words + s->count, s->words, s->count * sizeof *words);
    rv_free(s->words);
    s->words = words;
    s->count *= 2;
    s->ageing = s->count;
}

void rv_sketch_halve(struct rv_sketch *s)
{
    s->seen /= 2;
    if (s->ageing < s->count)
        return;                 /* it is being halved just now */
    s->ageing = 0;
    s->age++;
}

void rv_sketch_use(struct rv_sketch *s)
{
    if (++s->seen >= (uint64_t)RV_SKETCH_SAMPLE * s->entries)
        rv_sketch_halve(s);
}
