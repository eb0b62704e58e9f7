/* SPDX-License-Identifier: MIT */
/*
 * stack.h -- the pool of task stacks.
 *
 * A stack of a class promises 16, 64, 256 KiB or 1 MiB and lies in a slot of four times that, of
 * which only touched pages cost memory. Its record is in the slot, at the top, so that a
 * task parked in shallow frames holds one page, record included. The top of the slot, one page:
 *
 *      low addresses                                                         end of the slot
 *     ... | deeper frames | shallow frames | struct rv_stack | colour 0..15 lines | canary line |
 *                                     top -^
 *
 * The colour differs from slot to slot, or the records and first frames of all stacks would
 * compete for the same few sets of the first-level cache. Below `low` is a guard page
 * (MADV_GUARD_INSTALL, Linux 6.13); on older kernels one guard page serves eight stacks and the
 * canary of the slot below is checked when a stack is given back.
 *
 * A stack is hot (its memory and record are there) or cold (an index, and no memory at all). Free
 * hot stacks lie in the magazines of threads and in a depot; above a high-water mark they go cold.
 */
#ifndef RV_MEM_STACK_H
#define RV_MEM_STACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mem/die.h"
#include "mem/fault.h"
#include "mem/lock.h"
#include "mem/rv_atomic.h"

#define RV_STACK_CLASSES 4
#define RV_STACK_MAG_MAX 32     /* stacks of one class in a magazine */
#define RV_STACK_MAG_BATCH 16   /* stacks that move between a magazine and the depot at once */
#define RV_STACK_BYTES_MIN 4096U
#define RV_STACK_BYTES_MAX (1U << 20)

#if defined(__SANITIZE_ADDRESS__)
#define RV_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define RV_ASAN 1
#endif
#endif

/* The record of a hot stack. sp, next, tsan_fiber and asan_fake are the holder's; the others it
 * reads and leaves as they are. */
struct rv_stack {
    void *sp;                   /* the saved context; NULL: none was built here yet */
    unsigned char *low;         /* first usable byte */
    unsigned char *top;         /* one past the last usable byte; 64-byte aligned */
    struct rv_stack *next;      /* free for the holder; the pool's link while the stack is free */
    void *tsan_fiber;           /* the holder's; kept over give and take, see on_trim */
    void *asan_fake;            /* the holder's */
    uint32_t index;             /* of its slot in its class */
    uint32_t valgrind_id;
    uint8_t class;
    uint8_t guarded;            /* a guard page is below low; else the canary of the slot below */
};

/* {0} is empty. Belongs to one thread; flushed before that thread ends. */
struct rv_stack_mag {
    uint32_t n[RV_STACK_CLASSES];
    struct rv_stack *head[RV_STACK_CLASSES];
};

/* The slots of one class and the shared part of their free ones. */
struct rv_stack_depot {
    struct rv_lock lock RV_ALIGNED_LINE;        /* guards all but slot_bytes */
    uint32_t cap;               /* slots reserved; 0: not yet */
    uint32_t committed;         /* slots readable and writable */
    RV_ATOMIC(uint32_t) fresh;  /* slots from here on were never used: also the number created */
    RV_ATOMIC(uint32_t) hot_n;
    RV_ATOMIC(uint32_t) cold_n;
    uint32_t *hot;              /* indices of hot free slots, a LIFO array of cap entries */
    uint32_t *cold;             /* the same of cold ones */
    unsigned char *base;        /* slot i is at base + i * slot_bytes */
    size_t slot_bytes;
    RV_ATOMIC(uint64_t) trimmed;
    RV_ATOMIC(uint64_t) refused;
};

/* Aligned to cache lines: what embeds one comes from rv_alloc_aligned(). */
struct rv_stack_pool {
    struct rv_stack_depot depot[RV_STACK_CLASSES];
    uint32_t stacks_max;        /* of each class */
    uint32_t guard_bytes;
    bool guard_install;         /* the kernel has MADV_GUARD_INSTALL */

    /* May be set after init, before the first take. */
    uint32_t hot_max[RV_STACK_CLASSES];         /* the depot's high-water mark */
    uint32_t hot_keep[RV_STACK_CLASSES];        /* what rv_stack_pool_ease() leaves */
    void (*on_trim)(struct rv_stack *);         /* last sight of a record: the stack goes cold */
};

/* Approximate; stacks in magazines count as live. */
struct rv_stack_stats {
    uint64_t created;           /* slots used at least once */
    uint64_t live;              /* neither in the depot nor cold */
    uint64_t hot;               /* free in the depot, memory kept */
    uint64_t cold;              /* free, memory given back */
    uint64_t trimmed;           /* times a stack went cold */
    uint64_t refused;           /* takes that found none */
};

/* stacks_max: 1 .. 2^24, for each class. no_guard_install: act as on an old kernel. 0, -EINVAL.
 * Reserves nothing; a class is reserved at its first take, and if the address space for stacks_max
 * is not to be had (RLIMIT_AS, sanitizers), then for as many as is. */
int rv_stack_pool_init(struct rv_stack_pool *pool, uint32_t stacks_max, bool no_guard_install);

/* Unmaps everything, calling on_trim for each hot free stack. All magazines were flushed and all
 * stacks given back before, or their records never meet on_trim. A {0} pool is fine. */
void rv_stack_pool_finish(struct rv_stack_pool *pool);

/* The class for a promise of bytes: 0 .. 3, or -EINVAL outside 4 KiB .. 1 MiB. */
int rv_stack_class(size_t bytes);

/* The bytes a class promises. */
static inline size_t rv_stack_promise(unsigned class)
{
    RV_ASSERT(class < RV_STACK_CLASSES);
    return (size_t)16384 << (2 * class);
}

/* Lets up to max free stacks go cold until each depot holds at most keep hot ones; how many did.
 * Giving keeps the depots below their marks by itself; this is for a runtime that fell idle. It
 * takes about 1 us for each. Threads: any. */
uint32_t rv_stack_pool_trim(struct rv_stack_pool *pool, uint32_t keep, uint32_t max);

/* For a pool whose high-water marks were raised, so that a peak that comes again finds its stacks
 * warm: whether it holds more hot ones than hot_keep; and letting up to max of those go cold, the
 * oldest first. How many did. Threads: any. */
bool rv_stack_pool_is_warm(struct rv_stack_pool *pool);
uint32_t rv_stack_pool_ease(struct rv_stack_pool *pool, uint32_t max);

/* Threads: any. */
void rv_stack_pool_stats(const struct rv_stack_pool *pool, struct rv_stack_stats *ret_stats);

/* Moves all of a magazine to the depots, or lets them go cold. Its owner calls it before its thread
 * ends. */
void rv_stack_mag_flush(struct rv_stack_pool *pool, struct rv_stack_mag *mag);

/* The slow halves, in stack.c. */
struct rv_stack *rv_stack_refill(struct rv_stack_pool *pool, struct rv_stack_mag *mag,
                                 unsigned class);
void rv_stack_flush(struct rv_stack_pool *pool, struct rv_stack_mag *mag, struct rv_stack *st);
void rv_stack_check_canaries(const struct rv_stack_pool *pool, const struct rv_stack *st);
void rv_stack_unpoison(struct rv_stack *st);

/* The bytes left between sp, somewhere on this stack, and its low end. */
static inline size_t rv_stack_room(const struct rv_stack *st, const void *sp)
{
    RV_ASSERT((const unsigned char *)sp >= st->low && (const unsigned char *)sp <= st->top);
    return (size_t)((const unsigned char *)sp - st->low);
}

/* A stack, or NULL when none can be had. st->sp is what it was when given, or NULL.
 * mag NULL: a thread without magazines. Threads: the owner of mag. Fault point: "stack.take". */
static inline struct rv_stack *rv_stack_take(struct rv_stack_pool *pool, struct rv_stack_mag *mag,
                                             unsigned class)
{
    struct rv_stack *st;
    RV_ASSERT(class < RV_STACK_CLASSES);
    if (RV_FAULT("stack.take"))
        return NULL;
    if (__builtin_expect(mag != NULL && mag->n[class] > 0, 1)) {
        st = mag->head[class];
        mag->head[class] = st->next;
        mag->n[class]--;
    } else {
        st = rv_stack_refill(pool, mag, class);
    }
#ifdef RV_ASAN
    if (st != NULL)
        rv_stack_unpoison(st);
#endif
    return st;
}

/* Nothing runs on it any more, and nothing on it is looked at. Aborts if a canary beside it is
 * damaged. Threads: the owner of mag, which need not have taken it. */
static inline void rv_stack_give(struct rv_stack_pool *pool, struct rv_stack_mag *mag,
                                 struct rv_stack *st)
{
    if (!pool->guard_install)
        rv_stack_check_canaries(pool, st);
    RV_ASSERT(st->class < RV_STACK_CLASSES);
    if (__builtin_expect(mag != NULL && mag->n[st->class] < RV_STACK_MAG_MAX, 1)) {
        st->next = mag->head[st->class];
        mag->head[st->class] = st;
        mag->n[st->class]++;
    } else {
        rv_stack_flush(pool, mag, st);
    }
}

#endif
