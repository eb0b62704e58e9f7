/* SPDX-License-Identifier: MIT */
/*
 * epoch.h -- reading without locks what others unlink: memory is given back only when nobody who
 * could have seen it is still looking (Fraser's epochs, by Concurrency Kit's ck_epoch).
 *
 *     struct rv_epoch_slot *in = rv_epoch_enter(&ep);
 *     ... find something, look at it, pin what is to be kept ...
 *     rv_epoch_leave(in);
 *
 * A section belongs to the thread that entered it and is over before that may run another task: it
 * holds no wait and no callback. In debug builds rv_hold_any() tells whether the thread is inside
 * one, or holds a table's lock; the scheduler can assert that it is not when a task suspends.
 *
 * Sections need records. A worker keeps one for good, found by its rv_local; any other thread
 * borrows one for the length of a section. Nothing is registered, nothing is left when it ends.
 * What was unlinked waits in a limbo, which somebody else's lock guards.
 */
#ifndef RV_MEM_EPOCH_H
#define RV_MEM_EPOCH_H

#include <ck_epoch.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mem/local.h"
#include "mem/rv_atomic.h"

struct rv_epoch_slot {
    ck_epoch_record_t record;           /* on lines of its own */
    RV_ATOMIC(uintptr_t) owner;         /* whose it is; see epoch.c */
};

struct rv_epoch {
    ck_epoch_t ck;
    struct rv_epoch_slot *slots;        /* first the workers' own, then those that are borrowed */
    unsigned own_shift;                 /* a hash's top bits are the index of an own one */
};

/* What waits until nobody can see it any more. Its owner's lock guards it. */
struct rv_limbo {
    ck_epoch_record_t record;
};

/* 0 or -ENOMEM. Nobody is in a section when it is finished; what is in limbos was taken out. */
int rv_epoch_init(struct rv_epoch *ep);
void rv_epoch_finish(struct rv_epoch *ep);

/* Debug builds count what the calling thread holds; but not in models, all of whose threads are one
 * to the system. */
#if defined(RV_DEBUG) && !defined(RV_ATOMIC_BACKEND)
#define RV_HOLDS 1
#endif

#ifdef RV_HOLDS
void rv_hold_begin(void);
void rv_hold_end(void);
bool rv_hold_any(void);
#else
static inline void rv_hold_begin(void)
{
}

static inline void rv_hold_end(void)
{
}

static inline bool rv_hold_any(void)
{
    return false;
}
#endif

/* The slow half, in epoch.c. */
struct rv_epoch_slot *rv_epoch_slot(struct rv_epoch *ep, uintptr_t me);

/* Begins a section; sections may be inside one another. Threads: any. */
static inline struct rv_epoch_slot *rv_epoch_enter(struct rv_epoch *ep)
{
    uintptr_t me = (uintptr_t)rv_local_get();
    uint64_t mixed = (uint64_t)me * UINT64_C(0x9e3779b97f4a7c15);
    struct rv_epoch_slot *slot = &ep->slots[mixed >> ep->own_shift];
    if (__builtin_expect(me == 0 || rv_load_relaxed(&slot->owner) != me, 0))
        slot = rv_epoch_slot(ep, me);
    rv_hold_begin();
    ck_epoch_begin(&slot->record, NULL);
    return slot;
}

/* Ends it, on the same thread. */
static inline void rv_epoch_leave(struct rv_epoch_slot *slot)
{
#ifdef RV_TSAN
    rv_fence_seqcst();  /* ThreadSanitizer does not see CK's own; meets rv_limbo_poll() */
#endif
    ck_epoch_end(&slot->record, NULL);
    rv_hold_end();
    if (rv_load_relaxed(&slot->owner) & 1)
        rv_store_release(&slot->owner, (uintptr_t)0);   /* pairs with rv_epoch_slot() */
}

/* A limbo lives as long as its epoch. */
void rv_limbo_init(struct rv_epoch *ep, struct rv_limbo *limbo);

/* Has function(entry) called later, by rv_limbo_run(): the entry's object was made unreachable
 * before. */
void rv_limbo_put(struct rv_limbo *limbo, ck_epoch_entry_t *entry, ck_epoch_cb_t *function);

/* How many wait. */
static inline unsigned rv_limbo_count(const struct rv_limbo *limbo)
{
    return limbo->record.n_pending;
}

/* Moves what nobody can see any more to the list, which is whoever's; and lets time go on. */
void rv_limbo_poll(struct rv_limbo *limbo, ck_stack_t *ret_list);

/* Moves all of it: for the end, when there are no readers. */
void rv_limbo_take_all(struct rv_limbo *limbo, ck_stack_t *ret_list);

#endif
