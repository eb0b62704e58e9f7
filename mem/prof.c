/* SPDX-License-Identifier: MIT */
/*
 * prof.c -- the profiler's table of call sites.
 *
 * One object in so many is followed (prof.h) and stands for the others: with a mean gap of g
 * objects it counts g times. Gaps are drawn evenly from 1 .. 2 g - 1, so that no pattern of the
 * program's own falls in step with them.
 *
 * (1) An entry gets its address once, by a swap, and keeps it until the profiler is started anew.
 * (2) A mark names its entry and the run it is from; what an earlier run followed is not booked.
 * (3) The table is mapped when the profiler is first started, and stays: objects that were followed
 *     come back at any time. What finds no place is booked on entry 0, which has no address.
 *
 * Threads: any; start and stop lock.
 */
#include "mem/prof.h"

#include <errno.h>
#include <reeve/mem.h>
#include <stdlib.h>

#include "mem/alloc.h"
#include "mem/die.h"
#include "mem/pool.h"

#define PERIOD_USUAL ((uint64_t)512 << 10)
#define ENTRIES 4096U
#define PROBES 32U

struct entry {
    RV_ATOMIC(uintptr_t) site;  /* 0: vacant */
    RV_ATOMIC(int64_t) live_bytes, live_objects;
    RV_ATOMIC(int64_t) peak_bytes;
    RV_ATOMIC(uint64_t) bytes, objects;
};

/* What a mark says, in its 64 bits. */
enum { ENTRY_BITS = 12, RUN_BITS = 8, WEIGHT_BITS = 64 - ENTRY_BITS - RUN_BITS };
_Static_assert(ENTRIES == 1U << ENTRY_BITS, "an entry's number fits");

RV_ATOMIC(uint64_t) rv_prof_period;

static struct {
    struct rv_lock lock;        /* guards starting and stopping */
    RV_ATOMIC(struct entry *) entry;
    RV_ATOMIC(uint32_t) run;
    RV_ATOMIC(uint64_t) dice;
} prof;

uint64_t rv_prof_weight(size_t bytes)
{
    uint64_t period = rv_load_relaxed(&rv_prof_period);
    uint64_t weight = period > UINT64_MAX - bytes ? period / bytes : (period + bytes / 2) / bytes;
    return weight > 0 ? weight : 1;
}

/* Numbers as good as random: a counter, mixed (splitmix64, Steele and others 2014). */
static uint64_t draw(void)
{
    uint64_t z = rv_add_relaxed(&prof.dice, UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t rv_prof_gap(size_t bytes)
{
    uint64_t weight = rv_prof_weight(bytes);
    return 1 + draw() % (2 * weight - 1);
}

/* ---- booking --------------------------------------------------------------------------------- */

static uint32_t find(struct entry *table, uintptr_t site)
{
    uint64_t hash = (site ^ (site >> 17)) * UINT64_C(0x9e3779b97f4a7c15);
    for (uint32_t i = 0; i < PROBES; i++) {
        uint32_t at = ((uint32_t)(hash >> 40) + i) % ENTRIES;
        uintptr_t was = rv_load_relaxed(&table[at].site);
        if (at == 0 || (was != 0 && was != site))
            continue;
        if (was == site || rv_cas_relaxed(&table[at].site, &was, site) || was == site)
            return at;
    }
    return 0;
}

uint64_t rv_prof_took(const void *site, size_t bytes, uint64_t weight)
{
    struct entry *table = rv_load_acquire(&prof.entry); /* pairs with start() */
    uint64_t weight_max = (UINT64_C(1) << WEIGHT_BITS) - 1;
    RV_ASSERT(table != NULL);
    if (weight > weight_max)
        weight = weight_max;
    uint32_t at = find(table, (uintptr_t)site);
    struct entry *e = &table[at];
    int64_t more = (int64_t)(weight * bytes), live = rv_add_relaxed(&e->live_bytes, more) + more;
    rv_add_relaxed(&e->live_objects, (int64_t)weight);
    rv_add_relaxed(&e->bytes, weight * bytes);
    rv_add_relaxed(&e->objects, weight);
    int64_t peak = rv_load_relaxed(&e->peak_bytes);
    while (live > peak && !rv_cas_relaxed(&e->peak_bytes, &peak, live))
        continue;
    uint64_t run = rv_load_relaxed(&prof.run) % (1U << RUN_BITS);
    return at | run << ENTRY_BITS | weight << (ENTRY_BITS + RUN_BITS);
}

void rv_prof_gave(uint64_t mark, size_t bytes)
{
    struct entry *table = rv_load_acquire(&prof.entry);
    uint64_t weight = mark >> (ENTRY_BITS + RUN_BITS);
    uint64_t run = (mark >> ENTRY_BITS) % (1U << RUN_BITS);
    RV_ASSERT(table != NULL);
    RV_ASSERT(weight > 0);
    if (run != rv_load_relaxed(&prof.run) % (1U << RUN_BITS))
        return;
    struct entry *e = &table[mark % ENTRIES];
    rv_sub_relaxed(&e->live_bytes, (int64_t)(weight * bytes));
    rv_sub_relaxed(&e->live_objects, (int64_t)weight);
}

void rv_prof_forked(void)
{
    rv_lock_init(&prof.lock);
}

/* ---- the calls ------------------------------------------------------------------------------- */

static void forget(struct entry *table)
{
    for (uint32_t i = 0; i < ENTRIES; i++) {
        rv_store_relaxed(&table[i].site, 0U);
        rv_store_relaxed(&table[i].live_bytes, 0);
        rv_store_relaxed(&table[i].live_objects, 0);
        rv_store_relaxed(&table[i].peak_bytes, 0);
        rv_store_relaxed(&table[i].bytes, 0U);
        rv_store_relaxed(&table[i].objects, 0U);
    }
}

static int start(uint64_t period)
{
    struct entry *table = rv_load_relaxed(&prof.entry);
    if (rv_prof_on())
        return -EBUSY;
    if (table == NULL)
        table = rv_map_lazy(ENTRIES * sizeof *table);
    else
        forget(table);
    if (table == NULL)
        return -ENOMEM;
    rv_add_relaxed(&prof.run, 1U);
    rv_store_release(&prof.entry, table);   /* pairs with rv_prof_took() */
    rv_store_release(&rv_prof_period, period); /* pairs with rv_prof_on() */
    return 0;
}

int reeve_memory_profile_start(size_t period_bytes)
{
    rv_lock_acquire(&prof.lock);
    int r = start(period_bytes > 0 ? period_bytes : PERIOD_USUAL);
    if (r == 0)
        rv_pool_each(rv_pool_arm, NULL);
    rv_lock_release(&prof.lock);
    return r;
}

void reeve_memory_profile_stop(void)
{
    rv_lock_acquire(&prof.lock);
    rv_store_relaxed(&rv_prof_period, 0U);
    rv_pool_each(rv_pool_arm, NULL);
    rv_lock_release(&prof.lock);
}

static uint64_t positive(int64_t v)
{
    return v > 0 ? (uint64_t)v : 0;
}

static void insert(struct reeve_memory_site *sites, size_t *n, size_t cap,
                   const struct reeve_memory_site *site)
{
    size_t at = *n < cap ? (*n)++ : cap;
    while (at > 0 && sites[at - 1].live_bytes < site->live_bytes) {
        if (at < cap)
            sites[at] = sites[at - 1];
        at--;
    }
    if (at < cap)
        sites[at] = *site;
}

size_t reeve_memory_profile_read(struct reeve_memory_site *ret_sites, size_t cap)
{
    struct entry *table = rv_load_acquire(&prof.entry);
    size_t there = 0, written = 0;
    for (uint32_t i = 0; table != NULL && i < ENTRIES; i++) {
        struct entry *e = &table[i];
        struct reeve_memory_site site = {
            .site = (const void *)rv_load_relaxed(&e->site),
            .live_bytes = positive(rv_load_relaxed(&e->live_bytes)),
            .live_objects = positive(rv_load_relaxed(&e->live_objects)),
            .peak_bytes = positive(rv_load_relaxed(&e->peak_bytes)),
            .bytes = rv_load_relaxed(&e->bytes),
            .objects = rv_load_relaxed(&e->objects),
        };
        if (site.objects == 0)
            continue;
        there++;
        insert(ret_sites, &written, cap, &site);
    }
    return there;
}
