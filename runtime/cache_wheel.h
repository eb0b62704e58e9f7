/* SPDX-License-Identifier: MIT */
/*
 * cache_wheel.h -- a timing wheel: which entries of a shard expire next, without looking at others;
 * and which were there before a moment in time.
 *
 * Levels of slots, each 32 times as coarse as the one before; a tick is about a millisecond. What
 * is added goes into the slot of its time, as fine as that can be said from here; when time reaches
 * a slot, all that is in it is taken out at once, as a list, and filed anew a few at a time.
 *
 *     added -> a slot             [rv_wheel_add]
 *     a slot -> the spill         [rv_wheel_due: its time has come]
 *     the spill -> a slot, finer  [rv_wheel_due: not expired yet]
 *     the spill -> the caller     [rv_wheel_due: expired]
 *     anywhere -> the old ones    [rv_wheel_age: all that is in the wheel]
 *     the old ones -> the caller  [rv_wheel_old]
 *     anywhere -> nowhere         [rv_wheel_remove]
 *
 * What never expires is in the wheel too, beside the slots.
 *
 * The clock may jump. Forwards, slots come due together; backwards, what is added lands in the
 * spill, and is looked at now and then until it has expired: nothing is lost, nothing is too early.
 *
 * Threads: whoever holds the shard's lock.
 */
#ifndef RV_RUNTIME_CACHE_WHEEL_H
#define RV_RUNTIME_CACHE_WHEEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RV_WHEEL_LEVELS = 6, RV_WHEEL_BITS = 5, RV_WHEEL_SLOTS = 1 << RV_WHEEL_BITS };

/* In the entry, or the head of a circle. next NULL: it is in no wheel. */
struct rv_spoke {
    struct rv_spoke *next, *prev;
    int64_t expires; /* set before it is added; INT64_MAX: never */
};

struct rv_wheel {
    uint64_t tick; /* so far time has come */
    struct rv_spoke spill, never, old; /* heads, as are the slots */
    struct rv_spoke slot[RV_WHEEL_LEVELS][RV_WHEEL_SLOTS];
    uint32_t used[RV_WHEEL_LEVELS]; /* a bit for each slot that may hold something */
};

void rv_wheel_init(struct rv_wheel *wheel, int64_t now);
void rv_wheel_add(struct rv_wheel *wheel, struct rv_spoke *spoke);
/* One that is in no wheel is fine. */
void rv_wheel_remove(struct rv_spoke *spoke);

/* False: nothing in it will ever expire. */
static inline bool rv_wheel_turns(const struct rv_wheel *wheel)
{
    uint32_t used = 0;
    for (unsigned level = 0; level < RV_WHEEL_LEVELS; level++)
        used |= wheel->used[level];
    return used != 0 || wheel->spill.next != &wheel->spill;
}

/* False: nothing has come due that was not looked at yet. */
static inline bool rv_wheel_spilled(const struct rv_wheel *wheel)
{
    return wheel->spill.next != &wheel->spill;
}

/* One that has expired, out of the wheel now; NULL: none was found. *looks: how many it may look
 * at, counted down. */
struct rv_spoke *rv_wheel_due(struct rv_wheel *wheel, int64_t now, unsigned *looks);

/* Everything that is in the wheel is old from now on, and does not expire any more. */
void rv_wheel_age(struct rv_wheel *wheel);
/* One of those, out of the wheel now; NULL: none is left. */
struct rv_spoke *rv_wheel_old(struct rv_wheel *wheel);

#endif
