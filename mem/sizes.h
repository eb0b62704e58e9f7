/* SPDX-License-Identifier: MIT */
/*
 * sizes.h -- reeve_alloc() from inside: the sizes, and what is larger than all of them.
 */
#ifndef RV_MEM_SIZES_H
#define RV_MEM_SIZES_H

#include <reeve/mem.h>
#include <stddef.h>
#include <stdint.h>

enum { RV_SIZES = 21, RV_SIZES_MAX = 65536 };

/* The size that holds so many bytes, 0 .. RV_SIZES_MAX; and how many it holds. */
static inline uint32_t rv_size_class(size_t bytes)
{
    if (bytes <= 64)
        return 0;
    /* 2^k < bytes <= 2^(k+1): the upper or the lower of the two sizes in there. */
    uint32_t k = 63U - (uint32_t)__builtin_clzll((unsigned long long)bytes - 1);
    return 2 * (k - 6) + (bytes > ((size_t)3 << (k - 1)) ? 2 : 1);
}

static inline size_t rv_size_bytes(uint32_t class)
{
    return (class % 2 == 0 ? (size_t)64 : (size_t)96) << (class / 2);
}

/* In a child of fork: its lock has no holder. */
void rv_sizes_forked(void);

/* Adds what blocks that are not from a pool have, and says what is in the arena. */
void rv_sizes_stats(struct reeve_memory *sum);

#endif
