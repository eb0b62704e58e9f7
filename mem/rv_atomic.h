/* SPDX-License-Identifier: MIT */
/*
 * rv_atomic.h -- every atomic access of the project, with its memory order in its name.
 *
 * One door, so that the memory model underneath can be exchanged without touching the code above:
 *
 *     C11       <stdatomic.h> as it is.
 *     TSan      the same, but ThreadSanitizer does not see stand-alone fences: there each fence is
 *               a sequentially consistent read-modify-write of one global word. It orders more
 *               than the fence would, never less.
 *     other     a build that defines RV_ATOMIC_BACKEND as the name of a header gets that header
 *               instead. It defines RV_ATOMIC(T), C11's memory_order_* and the rv_at_*() below; a
 *               model explorer that runs every interleaving is such a back end.
 *
 * p is a pointer to an RV_ATOMIC(T). Operations that change a value return the old one. rv_cas*()
 * are strong: false means that *p was not *expected, and *expected now holds what it was.
 */
#ifndef RV_MEM_RV_ATOMIC_H
#define RV_MEM_RV_ATOMIC_H

#include <stdint.h>

#define RV_CACHE_LINE 64
#define RV_ALIGNED_LINE __attribute__((aligned(RV_CACHE_LINE)))

#if defined(__SANITIZE_THREAD__)
#define RV_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define RV_TSAN 1
#endif
#endif

/* ---- back ends ------------------------------------------------------------------------------ */

#if defined(RV_ATOMIC_BACKEND)
#include RV_ATOMIC_BACKEND
#else

#include <stdatomic.h>

#define RV_ATOMIC(T) _Atomic(T)

#define rv_at_load(p, order) atomic_load_explicit(p, order)
#define rv_at_store(p, v, order) atomic_store_explicit(p, v, order)
#define rv_at_xchg(p, v, order) atomic_exchange_explicit(p, v, order)
#define rv_at_cas(p, expected, v, order, failed)                                                   \
    atomic_compare_exchange_strong_explicit(p, expected, v, order, failed)
#define rv_at_add(p, v, order) atomic_fetch_add_explicit(p, v, order)
#define rv_at_sub(p, v, order) atomic_fetch_sub_explicit(p, v, order)
#define rv_at_or(p, v, order) atomic_fetch_or_explicit(p, v, order)
#define rv_at_and(p, v, order) atomic_fetch_and_explicit(p, v, order)

#if defined(RV_TSAN)
/* The word every fence meets on; a fence of any order pairs with every other fence through it. */
extern RV_ATOMIC(uint32_t) rv_fence_word;
#define rv_at_fence(order) ((void)rv_at_add(&rv_fence_word, 1U, memory_order_seq_cst))
#else
#define rv_at_fence(order) atomic_thread_fence(order)
#endif

/* Tells the CPU that this thread spins; orders nothing. */
static inline void rv_at_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");
#else
    __asm__ volatile("");
#endif
}

#endif

/* ---- the names used everywhere --------------------------------------------------------------- */

#define rv_load_relaxed(p) rv_at_load(p, memory_order_relaxed)
#define rv_load_acquire(p) rv_at_load(p, memory_order_acquire)
#define rv_load_seqcst(p) rv_at_load(p, memory_order_seq_cst)

#define rv_store_relaxed(p, v) rv_at_store(p, v, memory_order_relaxed)
#define rv_store_release(p, v) rv_at_store(p, v, memory_order_release)
#define rv_store_seqcst(p, v) rv_at_store(p, v, memory_order_seq_cst)

#define rv_xchg_relaxed(p, v) rv_at_xchg(p, v, memory_order_relaxed)
#define rv_xchg_acq_rel(p, v) rv_at_xchg(p, v, memory_order_acq_rel)
#define rv_xchg_seqcst(p, v) rv_at_xchg(p, v, memory_order_seq_cst)

#define rv_cas(p, expected, v)                                                                     \
    rv_at_cas(p, expected, v, memory_order_acq_rel, memory_order_acquire)
#define rv_cas_relaxed(p, expected, v)                                                             \
    rv_at_cas(p, expected, v, memory_order_relaxed, memory_order_relaxed)
#define rv_cas_seqcst(p, expected, v)                                                              \
    rv_at_cas(p, expected, v, memory_order_seq_cst, memory_order_seq_cst)

#define rv_add_relaxed(p, v) rv_at_add(p, v, memory_order_relaxed)
#define rv_add_acq_rel(p, v) rv_at_add(p, v, memory_order_acq_rel)
#define rv_sub_relaxed(p, v) rv_at_sub(p, v, memory_order_relaxed)
#define rv_sub_acq_rel(p, v) rv_at_sub(p, v, memory_order_acq_rel)
#define rv_or_relaxed(p, v) rv_at_or(p, v, memory_order_relaxed)
#define rv_or_acq_rel(p, v) rv_at_or(p, v, memory_order_acq_rel)
#define rv_and_relaxed(p, v) rv_at_and(p, v, memory_order_relaxed)
#define rv_and_acq_rel(p, v) rv_at_and(p, v, memory_order_acq_rel)

#define rv_fence_seqcst() rv_at_fence(memory_order_seq_cst)
#define rv_fence_acquire() rv_at_fence(memory_order_acquire)
#define rv_fence_release() rv_at_fence(memory_order_release)

/* Keeps the compiler, and nobody else, from moving memory accesses across it. */
static inline void rv_compiler_barrier(void)
{
    __asm__ volatile("" ::: "memory");
}

static inline void rv_cpu_relax(void)
{
    rv_at_relax();
}

#endif
