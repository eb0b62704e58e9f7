/* SPDX-License-Identifier: MIT */
/*
 * rv_atomic_explore.h -- the back end of mem/rv_atomic.h that hands every access to the explorer.
 *
 * One OS thread runs all threads of a model, so the words are plain ones.
 */
#ifndef TESTS_EXPLORE_RV_ATOMIC_EXPLORE_H
#define TESTS_EXPLORE_RV_ATOMIC_EXPLORE_H

#include <stdatomic.h>

#include "tests/explore/explore.h"

#define RV_ATOMIC(T) __typeof__(T)

#define EXPLORE_STRING_(x) #x
#define EXPLORE_STRING(x) EXPLORE_STRING_(x)
#define EXPLORE_WHERE __FILE__ ":" EXPLORE_STRING(__LINE__)

/* The value as the word would hold it, in the low bytes of 64 bits. */
#define EXPLORE_BITS(p, v)                                                                         \
    __extension__({                                                                                \
        __typeof__(*(p)) explore_v_ = (v);                                                         \
        uint64_t explore_bits_ = 0;                                                                \
        __builtin_memcpy(&explore_bits_, &explore_v_, sizeof explore_v_);                          \
        explore_bits_;                                                                             \
    })
#define EXPLORE_VALUE(p, access)                                                                   \
    __extension__({                                                                                \
        union {                                                                                    \
            uint64_t bits;                                                                         \
            __typeof__(*(p)) v;                                                                    \
        } explore_u_ = { access };                                                                 \
        explore_u_.v;                                                                              \
    })

#define rv_at_load(p, order)                                                                       \
    EXPLORE_VALUE(p, explore_load(p, sizeof *(p), EXPLORE_WHERE))
#define rv_at_store(p, v, order)                                                                   \
    explore_store(p, sizeof *(p), EXPLORE_BITS(p, v), (order) == memory_order_seq_cst,             \
                  EXPLORE_WHERE)
#define rv_at_xchg(p, v, order)                                                                    \
    EXPLORE_VALUE(p, explore_rmw(p, sizeof *(p), EXPLORE_XCHG, EXPLORE_BITS(p, v), EXPLORE_WHERE))
#define rv_at_cas(p, expected, v, order, failed)                                                   \
    explore_cas(p, sizeof *(p), expected, EXPLORE_BITS(p, v), EXPLORE_WHERE)
#define rv_at_add(p, v, order)                                                                     \
    EXPLORE_VALUE(p, explore_rmw(p, sizeof *(p), EXPLORE_ADD, (uint64_t)(v), EXPLORE_WHERE))
#define rv_at_sub(p, v, order)                                                                     \
    EXPLORE_VALUE(p, explore_rmw(p, sizeof *(p), EXPLORE_SUB, (uint64_t)(v), EXPLORE_WHERE))
#define rv_at_or(p, v, order)                                                                      \
    EXPLORE_VALUE(p, explore_rmw(p, sizeof *(p), EXPLORE_OR, (uint64_t)(v), EXPLORE_WHERE))
#define rv_at_and(p, v, order)                                                                     \
    EXPLORE_VALUE(p, explore_rmw(p, sizeof *(p), EXPLORE_AND, (uint64_t)(v), EXPLORE_WHERE))
#define rv_at_fence(order) explore_fence((order) == memory_order_seq_cst)

static inline void rv_at_relax(void)
{
    explore_relax();
}

#endif
