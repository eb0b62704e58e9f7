/* SPDX-License-Identifier: MIT */
/*
 * epoch.c -- records for sections, limbos for what was unlinked.
 *
 *     slots   | own, found by hash of the worker's record | borrowed, found by trying |
 *             0                                      OWN                          OWN + LENT
 *
 *     owner of an own slot       0 -> worker   [rv_epoch_slot]       for good
 *     owner of a borrowed slot   0 -> 1        [rv_epoch_slot]       1 -> 0   [rv_epoch_leave]
 *
 * (1) A record is used by one thread at a time: an own slot's owner is the rv_local of one thread;
 *     a borrowed slot is whoever's that set its owner to 1.
 * (2) An address of a worker that has ended may become another's: it takes over the slot, in which
 *     nobody is. More workers than own slots: the others borrow.
 * (3) What is put in a limbo was unlinked before, and a full fence lies between: who can still find
 *     it has entered in the epoch that the entry is noted under, or earlier. ck_epoch_call() itself
 *     has no fence, and on x86 its load may pass the store that unlinks.
 * (4) In a child that fork(2) made, sections of threads that are not there last for ever: nothing
 *     is given back, and nothing is given back too early.
 *
 * Threads: enter, leave - any; limbos - whoever holds the owner's lock; init, finish - one.
 */
#include "mem/epoch.h"

#include <errno.h>
#include <pthread.h>

#include "mem/alloc.h"
#include "mem/die.h"

enum { OWN_BITS = 5, OWN = 1 << OWN_BITS, LENT = 32 };

int rv_epoch_init(struct rv_epoch *ep)
{
    struct rv_epoch_slot *slots;
    slots = rv_alloc_aligned((OWN + LENT) * sizeof *slots, RV_CACHE_LINE);
    if (slots == NULL)
        return -ENOMEM;
    ck_epoch_init(&ep->ck);
    for (unsigned i = 0; i < OWN + LENT; i++) {
        rv_store_relaxed(&slots[i].owner, (uintptr_t)0);
        ck_epoch_register(&ep->ck, &slots[i].record, NULL);
    }
    ep->slots = slots;
    ep->own_shift = 64 - OWN_BITS;
    return 0;
}

void rv_epoch_finish(struct rv_epoch *ep)
{
    for (unsigned i = 0; ep->slots != NULL && i < OWN + LENT; i++)
        RV_MUST(ep->slots[i].record.active == 0);       /* else somebody is still reading */
    rv_free(ep->slots);
    ep->slots = NULL;
}

/* The worker's own slot, which becomes that at its first section; NULL: all are others'. */
static struct rv_epoch_slot *own_slot(struct rv_epoch *ep, uintptr_t me)
{
    uint64_t first = (uint64_t)me * UINT64_C(0x9e3779b97f4a7c15) >> ep->own_shift;
    RV_ASSERT((me & 1) == 0);
    for (unsigned i = 0; i < OWN; i++) {
        struct rv_epoch_slot *slot = &ep->slots[(first + i) % OWN];
        uintptr_t owner = rv_load_relaxed(&slot->owner);
        if (owner == me || (owner == 0 && rv_cas(&slot->owner, &owner, me)))
            return slot;
    }
    return NULL;
}

struct rv_epoch_slot *rv_epoch_slot(struct rv_epoch *ep, uintptr_t me)
{
    struct rv_epoch_slot *slot = me != 0 ? own_slot(ep, me) : NULL;
    uint64_t thread = (uint64_t)pthread_self() * UINT64_C(0x9e3779b97f4a7c15) >> 32;
    if (slot != NULL)
        return slot;
    for (unsigned i = 0;; i++) {
        uintptr_t free = 0;
        slot = &ep->slots[OWN + (thread + i) % LENT];
        /* Acquires; pairs with rv_epoch_leave(). */
        if (rv_load_relaxed(&slot->owner) == 0 && rv_cas(&slot->owner, &free, (uintptr_t)1))
            return slot;
        if (i % LENT == LENT - 1)
            rv_cpu_relax();     /* all are lent: for as long as a section is */
    }
}

void rv_limbo_init(struct rv_epoch *ep, struct rv_limbo *limbo)
{
    ck_epoch_register(&ep->ck, &limbo->record, NULL);
}

void rv_limbo_put(struct rv_limbo *limbo, ck_epoch_entry_t *entry, ck_epoch_cb_t *function)
{
    rv_fence_seqcst();          /* (3) */
    ck_epoch_call(&limbo->record, entry, function);
}

void rv_limbo_poll(struct rv_limbo *limbo, ck_stack_t *ret_list)
{
    RV_ASSERT(limbo->record.active == 0);
    ck_epoch_poll_deferred(&limbo->record, ret_list);
#ifdef RV_TSAN
    rv_fence_seqcst();          /* meets rv_epoch_leave() */
#endif
}

void rv_limbo_take_all(struct rv_limbo *limbo, ck_stack_t *ret_list)
{
    RV_ASSERT(limbo->record.active == 0);
    /* With no section open every poll is a grace period. */
    while (rv_limbo_count(limbo) > 0)
        rv_limbo_poll(limbo, ret_list);
}

#ifdef RV_HOLDS

/* What threads hold, by thread: debug builds only, so that no build has a thread-local word more.
 * With more holders at once than this some are not counted. */
enum { HOLDERS = 64 };

static struct {
    RV_ATOMIC(uintptr_t) thread;        /* 0: free */
    RV_ATOMIC(uint32_t) count;          /* its thread's own */
} holders[HOLDERS];

/* The index of the calling thread's counter, or that of a free one; HOLDERS: there is none. */
static unsigned holder(bool add)
{
    uintptr_t me = (uintptr_t)pthread_self();
    for (unsigned i = 0; i < HOLDERS; i++)
        if (rv_load_relaxed(&holders[i].thread) == me)
            return i;
    for (unsigned i = 0; add && i < HOLDERS; i++) {
        uintptr_t none = 0;
        if (rv_load_relaxed(&holders[i].thread) == 0 && rv_cas(&holders[i].thread, &none, me))
            return i;
    }
    return HOLDERS;
}

__attribute__((noinline)) void rv_hold_begin(void)
{
    unsigned i = holder(true);
    if (i < HOLDERS)
        rv_store_relaxed(&holders[i].count, rv_load_relaxed(&holders[i].count) + 1);
}

__attribute__((noinline)) void rv_hold_end(void)
{
    unsigned i = holder(false);
    if (i == HOLDERS)
        return;
    uint32_t count = rv_load_relaxed(&holders[i].count);
    RV_ASSERT(count > 0);
    rv_store_relaxed(&holders[i].count, count - 1);
    if (count == 1)
        rv_store_release(&holders[i].thread, (uintptr_t)0);     /* pairs with holder() */
}

__attribute__((noinline)) bool rv_hold_any(void)
{
    return holder(false) < HOLDERS;
}

#endif
