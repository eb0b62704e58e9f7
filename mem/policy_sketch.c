/* SPDX-License-Identifier: MIT */
/*
 * policy_sketch.c -- four counters of a key, all in one cache line, and halving by and by.
 *
 * (1) A counter stops at 15.
 * (2) Halving takes a few words at each addition after the sample's end: no single one pays for all
 *     of them. Meanwhile some keys count double; a sample is much longer than that.
 * (3) Of the four only the smallest are counted up: the others are that high because of other keys.
 * (4) To double the table is to copy it behind itself: a place gets one bit more, and both places
 *     that it can become hold what it held.
 * Threads: whoever holds the shard's lock.
 */
#include "mem/policy_sketch.h"

#include <errno.h>
#include <string.h>

#include "mem/alloc.h"
#include "mem/die.h"
#include "mem/rv_atomic.h"

enum { BLOCK = RV_CACHE_LINE / sizeof(uint64_t) };
enum { WORDS_MIN = 32, WIDTH = 4, AGE_AT_ONCE = 16, SPAN_MIN = 8, SPAN_MAX = 64 };

/* Of a key: the block, and above it the bits that choose the counters in there. */
static inline uint64_t *block_of(const struct rv_sketch *s, uint64_t hash, uint64_t *ret_mixed)
{
    uint64_t mixed = (hash ^ hash >> 32) * UINT64_C(0xc3a5c85c97cb3127);
    *ret_mixed = mixed >> 44;
    return s->words + ((mixed >> 8) & (s->count - 1) & ~(size_t)(BLOCK - 1));
}

/* The i-th counter of a key: one of the 32 in two words. */
static inline uint64_t *counter_of(uint64_t *block, uint64_t mixed, unsigned i, unsigned *ret_at)
{
    unsigned five = (unsigned)(mixed >> (5 * i)) & 31;
    *ret_at = five % 16 * 4;
    return block + 2 * i + five / 16;
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
    s->span = SPAN_MIN;
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
        s->words[i] = s->words[i] >> 1 & UINT64_C(0x7777777777777777);
    s->ageing = end;
}

void rv_sketch_add(struct rv_sketch *s, uint64_t hash)
{
    RV_ASSERT(s->count > 0);
    uint64_t mixed, *block = block_of(s, hash, &mixed);
    unsigned least = rv_sketch_estimate(s, hash);
    for (unsigned i = 0, at; i < 4 && least < 15; i++) {
        uint64_t *word = counter_of(block, mixed, i, &at);
        if ((*word >> at & 15) == least)
            *word += UINT64_C(1) << at;
    }
    if (s->ageing < s->count)
        age(s);
    if (++s->seen < (uint64_t)s->span * s->entries)
        return;
    s->ageing = 0;
    s->seen /= 2;
    s->span = s->span < SPAN_MAX ? 2 * s->span : SPAN_MAX;
}

unsigned rv_sketch_estimate(const struct rv_sketch *s, uint64_t hash)
{
    uint64_t mixed, *block = block_of(s, hash, &mixed);
    unsigned least = 15;
    for (unsigned i = 0, at; i < 4; i++) {
        const uint64_t *word = counter_of(block, mixed, i, &at);
        unsigned seen = (unsigned)(*word >> at & 15);
        least = seen < least ? seen : least;
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
    if (s->ageing == s->count)
        s->ageing = 0;          /* else it is being halved just now */
    s->seen /= 2;
    s->span = SPAN_MIN;
}
