/* SPDX-License-Identifier: MIT */
/*
 * cache_wheel.c -- the slots of the wheel.
 *
 * (1) What is in a slot of level n has a time, in ticks, less than 32 of that level's slots after
 *     the tick at which it was filed, and not in the same slot as that tick, unless a whole turn
 *     away. So when the tick has passed the beginning of a slot, all in it is due, or belongs into
 *     a finer one.
 * (2) Times are rounded up to whole ticks: what comes out of the finest level has expired.
 * (3) What is too far away for the coarsest level is filed at its end, and filed again from there.
 * (4) The spill is looked at from its front; what has not expired and has no slot (the clock went
 *     back) goes to its end.
 *
 * Threads: whoever holds the shard's lock.
 */
#include "runtime/cache_wheel.h"

#include <string.h>

#include "mem/die.h"

enum { TICK_SHIFT = 20 }; /* 2^20 ns */

static uint64_t tick_of(int64_t ns)
{
    return ns > 0 ? (uint64_t)ns >> TICK_SHIFT : 0;
}

static void init_head(struct rv_spoke *head)
{
    head->next = head->prev = head;
}

void rv_wheel_init(struct rv_wheel *w, int64_t now)
{
    memset(w, 0, sizeof *w);
    w->tick = tick_of(now);
    init_head(&w->spill);
    init_head(&w->never);
    init_head(&w->old);
    for (unsigned level = 0; level < RV_WHEEL_LEVELS; level++)
        for (unsigned slot = 0; slot < RV_WHEEL_SLOTS; slot++)
            init_head(&w->slot[level][slot]);
}

/* As the last of the circle. */
static void append(struct rv_spoke *head, struct rv_spoke *s)
{
    s->next = head;
    s->prev = head->prev;
    s->prev->next = head->prev = s;
}

static void unlink_spoke(struct rv_spoke *s)
{
    RV_ASSERT(s->next->prev == s && s->prev->next == s);
    s->next->prev = s->prev;
    s->prev->next = s->next;
    s->next = NULL;
}

/* Into its slot; false: its time has come already, as far as the wheel knows. */
static bool file(struct rv_wheel *w, struct rv_spoke *s)
{
    uint64_t when = tick_of(s->expires) + 1; /* (2) */
    if (when <= w->tick)
        return false;
    unsigned level = 0;
    while (level < RV_WHEEL_LEVELS - 1 &&
           (when - w->tick) >> (RV_WHEEL_BITS * level) >= RV_WHEEL_SLOTS)
        level++;
    unsigned shift = RV_WHEEL_BITS * level;
    uint64_t most = (uint64_t)(RV_WHEEL_SLOTS - 1) << shift;
    if (when - w->tick > most && level == RV_WHEEL_LEVELS - 1)
        when = w->tick + most; /* (3) */
    unsigned slot = (unsigned)(when >> shift) % RV_WHEEL_SLOTS;
    append(&w->slot[level][slot], s);
    w->used[level] |= UINT32_C(1) << slot;
    return true;
}

void rv_wheel_add(struct rv_wheel *w, struct rv_spoke *s)
{
    RV_ASSERT(s->next == NULL);
    if (s->expires == INT64_MAX)
        append(&w->never, s);
    else if (!file(w, s))
        append(&w->spill, s);
}

void rv_wheel_remove(struct rv_spoke *s)
{
    if (s->next != NULL)
        unlink_spoke(s);
}

/* All of one circle to the end of another. */
static void splice(struct rv_spoke *to, struct rv_spoke *from)
{
    if (from->next == from)
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    init_head(from);
}

/* Time goes on: spills the slots that it has reached. */
static void turn(struct rv_wheel *w, uint64_t to)
{
    for (unsigned level = 0; level < RV_WHEEL_LEVELS; level++) {
        unsigned shift = RV_WHEEL_BITS * level;
        uint64_t from = w->tick >> shift, passed = (to >> shift) - from;
        if (passed > RV_WHEEL_SLOTS)
            passed = RV_WHEEL_SLOTS;
        for (uint64_t i = 1; i <= passed && w->used[level] != 0; i++) {
            unsigned slot = (unsigned)(from + i) % RV_WHEEL_SLOTS;
            if (w->used[level] >> slot & 1)
                splice(&w->spill, &w->slot[level][slot]);
            w->used[level] &= ~(UINT32_C(1) << slot);
        }
    }
    w->tick = to;
}

struct rv_spoke *rv_wheel_due(struct rv_wheel *w, int64_t now, unsigned *looks)
{
    if (tick_of(now) > w->tick)
        turn(w, tick_of(now));
    while (w->spill.next != &w->spill && *looks > 0) {
        struct rv_spoke *s = w->spill.next;
        --*looks;
        unlink_spoke(s);
        if (s->expires <= now)
            return s;
        if (!file(w, s))
            append(&w->spill, s);
    }
    return NULL;
}

void rv_wheel_age(struct rv_wheel *w)
{
    splice(&w->old, &w->never);
    splice(&w->old, &w->spill);
    for (unsigned level = 0; level < RV_WHEEL_LEVELS; level++) {
        for (unsigned slot = 0; w->used[level] != 0 && slot < RV_WHEEL_SLOTS; slot++)
            splice(&w->old, &w->slot[level][slot]);
        w->used[level] = 0;
    }
}

struct rv_spoke *rv_wheel_old(struct rv_wheel *w)
{
    struct rv_spoke *s = w->old.next;
    if (s == &w->old)
        return NULL;
    unlink_spoke(s);
    return s;
}
