/* SPDX-License-Identifier: MIT */
/*
 * stack.c -- reserving, guarding, sharing and cooling the stacks of tasks.
 *
 *     depot.base                                           committed            cap
 *     | slot 0 | slot 1 | ... used at least once ... | ready | address space only |
 *                                                  fresh
 *     slot: | guard page | usable ............................ | record | colour | canary line |
 *           0            low                                   top                      slot_bytes
 *
 * (1) Every slot below fresh is held, in one magazine, in hot[0 .. hot_n) or in cold[0 .. cold_n).
 * (2) A slot that is not cold has its record and its canary line; a cold one is all zero and holds
 *     no memory. Where a record lies follows from its index.
 * (3) Committed slots are one mapping to the kernel: guards that MADV_GUARD_INSTALL set are marks
 *     in the page tables, and outlive MADV_DONTNEED. (On older kernels a guard splits mappings, and
 *     a process has 65 530: so one serves GUARD_EVERY slots, and there are GUARDS_MAX of them.)
 * (4) A stack that runs over where there is no guard first destroys the canary line of the slot
 *     below. Both lines are looked at when a stack is given back: zero (cold) or the canary.
 * (5) Lists hold indices, not links: a batch moves as one copy under the lock and no record is
 *     touched there. Page faults, and cooling, happen outside of it. The kernel is called under
 *     it only to ready a slot that was never used.
 *
 *     fresh -> held        [rv_stack_take -> find_slots, build]
 *     held <-> magazine    [rv_stack_give, rv_stack_take]
 *     magazine -> hot      [rv_stack_flush, rv_stack_mag_flush -> put_slots]
 *     hot -> held, rest to the magazine   [rv_stack_refill -> find_slots]
 *     magazine, hot -> cold               [put_slots, rv_stack_pool_trim -> cool]
 *     cold -> held         [rv_stack_refill -> find_slots, build]
 *
 * Threads: take, give, rv_stack_mag_flush - the magazine's owner, or anyone with NULL; trim, stats
 * - anyone; init, finish - one, while nobody else uses the pool.
 */
#include "mem/stack.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "mem/alloc.h"

#ifdef RV_ASAN
#include <sanitizer/asan_interface.h>
#endif

#if defined(__has_include)
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#endif
#endif
#ifndef VALGRIND_STACK_REGISTER
#define VALGRIND_STACK_REGISTER(low, top) 0U
#define VALGRIND_STACK_DEREGISTER(id) ((void)(id))
#endif

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102          /* Linux 6.13 */
#endif

#define LINE ((size_t)RV_CACHE_LINE)
#define RECORD_BYTES ((sizeof(struct rv_stack) + LINE - 1) / LINE * LINE)
#define COLOURS 16
#define CANARY_WORDS (RV_CACHE_LINE / sizeof(uint64_t))
#define CANARY UINT64_C(0xd6a91c35e07b42f8)
#define STACKS_MAX (1U << 24)           /* 64 TiB of addresses in the largest class */
#define GUARD_EVERY 8
#define GUARDS_MAX 12288                /* of each class, two mappings each: a third of 65 530 */
#define COMMIT_MIN 16
#define COMMIT_MAX 1024
#define HOT_PROMISE_BYTES_MAX ((size_t)128 << 20)       /* a depot keeps hot what promises this */

static_assert(sizeof(struct rv_stack) <= 96, "a parked task's page holds more than its record");
static_assert(RECORD_BYTES + (COLOURS + 1) * RV_CACHE_LINE <= 4096 / 3, "and most of it is stack");
static_assert(RV_STACK_MAG_BATCH < RV_STACK_MAG_MAX, "a flush leaves a magazine with something");

enum slot_kind { SLOT_NONE, SLOT_HOT, SLOT_COLD };

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* ---- one slot ------------------------------------------------------------------------------- */

static unsigned char *slot_at(const struct rv_stack_depot *d, uint32_t i)
{
    RV_ASSERT(i < d->cap);
    return d->base + i * d->slot_bytes;
}

static RV_ATOMIC(uint64_t) *canary_at(const struct rv_stack_depot *d, uint32_t i)
{
    return (void *)(slot_at(d, i) + d->slot_bytes - LINE);
}

static struct rv_stack *record_at(const struct rv_stack_depot *d, uint32_t i)
{
    size_t colour = i % COLOURS;
    return (void *)(slot_at(d, i) + d->slot_bytes - (1 + colour) * LINE - RECORD_BYTES);
}

static bool slot_has_guard(const struct rv_stack_pool *pool, uint32_t i)
{
    return pool->guard_install || (i % GUARD_EVERY == 0 && i / GUARD_EVERY < GUARDS_MAX);
}

_Noreturn static void die_of_overflow(uint32_t i)
{
    rv_die("a task overflowed its stack (what lies beside stack %u was overwritten); "
           "spawn it with a larger stack_bytes.", i);
}

/* Zero is fine too where the slot may be cold. */
static void canary_check(const struct rv_stack_depot *d, uint32_t i, bool maybe_cold)
{
    for (unsigned w = 0; w < CANARY_WORDS; w++) {
        uint64_t seen = rv_load_relaxed(&canary_at(d, i)[w]);
        if (seen != CANARY && (seen != 0 || !maybe_cold))
            die_of_overflow(i);
    }
}

/* Sets the canary of a slot that may be cold, and checks what was there: the stack above may have
 * run over meanwhile. Each word is exchanged, so that the first access to a fresh page writes:
 * reading it first would take two page faults, one for the kernel's page of zeroes and one to
 * replace that. Relaxed: the holder of the slot above reads the line meanwhile. */
static void canary_claim(const struct rv_stack_depot *d, uint32_t i)
{
    for (unsigned w = 0; w < CANARY_WORDS; w++) {
        uint64_t seen = rv_xchg_relaxed(&canary_at(d, i)[w], CANARY);
        if (seen != CANARY && seen != 0)
            die_of_overflow(i);
    }
}

/* Turns a cold or fresh slot, which nobody else looks at except for its canary, into a stack. */
static struct rv_stack *build(const struct rv_stack_pool *pool, unsigned class, uint32_t i)
{
    const struct rv_stack_depot *d = &pool->depot[class];
    struct rv_stack *st = record_at(d, i);
    bool guarded = slot_has_guard(pool, i);
    canary_claim(d, i);
    *st = (struct rv_stack){
        .low = slot_at(d, i) + (guarded ? pool->guard_bytes : 0),
        .top = (unsigned char *)st,
        .index = i,
        .class = (uint8_t)class,
        .guarded = guarded,
    };
    st->valgrind_id = VALGRIND_STACK_REGISTER(st->low, st->top);
    RV_ASSERT((uintptr_t)st->top % LINE == 0);
    return st;
}

/* The last thing done with a record. */
static void retire(const struct rv_stack_pool *pool, unsigned class, uint32_t i)
{
    struct rv_stack *st = record_at(&pool->depot[class], i);
    RV_ASSERT(st->index == i);
    if (pool->on_trim != NULL)
        pool->on_trim(st);
    VALGRIND_STACK_DEREGISTER(st->valgrind_id);
}

void rv_stack_check_canaries(const struct rv_stack_pool *pool, const struct rv_stack *st)
{
    const struct rv_stack_depot *d = &pool->depot[st->class % RV_STACK_CLASSES];
    /* The record lies beside the line: it may be gone too, and is believed only if it fits. */
    if (st->class >= RV_STACK_CLASSES || st->index >= d->cap || record_at(d, st->index) != st)
        die_of_overflow(st->index);
    canary_check(d, st->index, false);
    if (!slot_has_guard(pool, st->index))
        canary_check(d, st->index - 1, true);
}

/* Frames abandoned on it (a task that never returned) left their red zones behind. */
void rv_stack_unpoison(struct rv_stack *st)
{
#ifdef RV_ASAN
    __asan_unpoison_memory_region(st->low, (size_t)(st->top - st->low));
#else
    (void)st;
#endif
}

/* ---- one class ------------------------------------------------------------------------------ */

/* Under the lock: gets the addresses, all that were asked for or the largest half, quarter, ... of
 * it that is to be had. */
static int reserve(const struct rv_stack_pool *pool, struct rv_stack_depot *d)
{
    uint32_t cap = pool->stacks_max;
    uint32_t *lists = rv_map_lazy(2 * sizeof *lists * cap);
    unsigned char *base = NULL;
    while (lists != NULL && base == NULL && cap > 0) {
        base = rv_map_reserve(cap * d->slot_bytes);
        cap = base != NULL ? cap : cap / 2;
    }
    if (base == NULL) {
        rv_unmap(lists, 2 * sizeof *lists * pool->stacks_max);
        return -ENOMEM;
    }
    madvise(base, cap * d->slot_bytes, MADV_NOHUGEPAGE);    /* fails only where THP is off */
    d->hot = lists;
    d->cold = lists + pool->stacks_max;
    d->base = base;
    d->cap = cap;
    return 0;
}

/* Under the lock: makes slot i usable; it is the first that never was. */
static int ready_slot(const struct rv_stack_pool *pool, struct rv_stack_depot *d, uint32_t i)
{
    if (i == d->committed) {
        uint32_t more = d->committed < COMMIT_MIN ? COMMIT_MIN : min_u32(d->committed, COMMIT_MAX);
        more = min_u32(more, d->cap - d->committed);
        if (rv_map_commit(slot_at(d, i), more * d->slot_bytes) < 0)
            return -ENOMEM;
        d->committed += more;
    }
    if (!slot_has_guard(pool, i))
        return 0;
    if (RV_FAULT("stack.guard"))
        return -ENOMEM;
    int failed = pool->guard_install
                     ? madvise(slot_at(d, i), pool->guard_bytes, MADV_GUARD_INSTALL)
                     : mprotect(slot_at(d, i), pool->guard_bytes, PROT_NONE);
    return failed ? -ENOMEM : 0;
}

/* Finds up to want hot slots, or else one cold or fresh one; how many and of which kind. */
static uint32_t find_slots(const struct rv_stack_pool *pool, struct rv_stack_depot *d,
                           uint32_t *ret_idx, uint32_t want, enum slot_kind *ret_kind)
{
    uint32_t n = 1;
    *ret_kind = SLOT_NONE;
    rv_lock_acquire(&d->lock);
    uint32_t hot_n = rv_load_relaxed(&d->hot_n), cold_n = rv_load_relaxed(&d->cold_n);
    uint32_t fresh = rv_load_relaxed(&d->fresh);
    if (hot_n > 0) {
        n = min_u32(want, hot_n);
        memcpy(ret_idx, d->hot + hot_n - n, n * sizeof *ret_idx);
        rv_store_relaxed(&d->hot_n, hot_n - n);
        *ret_kind = SLOT_HOT;
    } else if (cold_n > 0) {
        *ret_idx = d->cold[cold_n - 1];
        rv_store_relaxed(&d->cold_n, cold_n - 1);
        *ret_kind = SLOT_COLD;
    } else if ((d->cap > 0 || reserve(pool, d) == 0) && fresh < d->cap &&
               ready_slot(pool, d, fresh) == 0) {
        *ret_idx = fresh;
        rv_store_relaxed(&d->fresh, fresh + 1);
        *ret_kind = SLOT_COLD;
    }
    rv_lock_release(&d->lock);
    return *ret_kind == SLOT_NONE ? 0 : n;
}

static void sort(uint32_t *idx, uint32_t n)
{
    for (uint32_t i = 1; i < n; i++) {
        uint32_t v = idx[i], j = i;
        for (; j > 0 && idx[j - 1] > v; j--)
            idx[j] = idx[j - 1];
        idx[j] = v;
    }
}

/* Lets slots that only the caller knows go cold. Sorted, because neighbours go in one system call,
 * at a quarter of the price of one each. It fails in memory that the host locked: then the slot is
 * cold in all but its memory. */
static void cool(struct rv_stack_pool *pool, unsigned class, uint32_t *idx, uint32_t n)
{
    struct rv_stack_depot *d = &pool->depot[class];
    RV_ASSERT(n <= RV_STACK_MAG_BATCH);
    sort(idx, n);
    for (uint32_t i = 0, run; i < n; i += run) {
        for (run = 0; i + run < n && idx[i + run] == idx[i] + run; run++)
            retire(pool, class, idx[i + run]);
        madvise(slot_at(d, idx[i]), run * d->slot_bytes, MADV_DONTNEED);
    }
    rv_lock_acquire(&d->lock);
    uint32_t cold_n = rv_load_relaxed(&d->cold_n);
    RV_MUST(cold_n + n <= rv_load_relaxed(&d->fresh));
    memcpy(d->cold + cold_n, idx, n * sizeof *idx);
    rv_store_relaxed(&d->cold_n, cold_n + n);
    rv_store_relaxed(&d->trimmed, rv_load_relaxed(&d->trimmed) + n);
    rv_lock_release(&d->lock);
}

/* Puts hot slots of the caller into the depot, or lets them go cold if that has enough. */
static void put_slots(struct rv_stack_pool *pool, unsigned class, uint32_t *idx, uint32_t n)
{
    struct rv_stack_depot *d = &pool->depot[class];
    rv_lock_acquire(&d->lock);
    uint32_t hot_n = rv_load_relaxed(&d->hot_n);
    bool room = hot_n + n <= pool->hot_max[class];
    if (room) {
        RV_MUST(hot_n + n <= rv_load_relaxed(&d->fresh));
        memcpy(d->hot + hot_n, idx, n * sizeof *idx);
        rv_store_relaxed(&d->hot_n, hot_n + n);
    }
    rv_lock_release(&d->lock);
    if (!room)
        cool(pool, class, idx, n);
}

/* ---- the slow halves of take and give -------------------------------------------------------- */

struct rv_stack *rv_stack_refill(struct rv_stack_pool *pool, struct rv_stack_mag *mag,
                                 unsigned class)
{
    struct rv_stack_depot *d = &pool->depot[class];
    uint32_t idx[RV_STACK_MAG_BATCH];
    enum slot_kind kind;
    RV_ASSERT(mag == NULL || mag->head[class] == NULL);
    uint32_t n = find_slots(pool, d, idx, mag != NULL ? RV_STACK_MAG_BATCH : 1, &kind);
    if (kind == SLOT_NONE) {
        rv_add_relaxed(&d->refused, UINT64_C(1));
        return NULL;
    }
    if (kind == SLOT_COLD)
        return build(pool, class, idx[0]);
    for (uint32_t i = 0; i + 1 < n; i++) {
        struct rv_stack *st = record_at(d, idx[i]);
        st->next = mag->head[class];
        mag->head[class] = st;
        mag->n[class]++;
    }
    return record_at(d, idx[n - 1]);
}

/* Puts the older ones of a magazine back, all but the `keep` given last. */
static void mag_shrink(struct rv_stack_pool *pool, struct rv_stack_mag *mag, unsigned class,
                       uint32_t keep)
{
    uint32_t idx[RV_STACK_MAG_BATCH], n = 0;
    struct rv_stack **link = &mag->head[class];
    for (uint32_t i = 0; i < keep; i++)
        link = &(*link)->next;
    struct rv_stack *st = *link;
    *link = NULL;
    RV_ASSERT(mag->n[class] >= keep);
    mag->n[class] = keep;
    while (st != NULL) {
        idx[RV_STACK_MAG_BATCH - ++n] = st->index;      /* backwards: the youngest on top */
        st = st->next;
        if (n == RV_STACK_MAG_BATCH || st == NULL) {
            put_slots(pool, class, idx + RV_STACK_MAG_BATCH - n, n);
            n = 0;
        }
    }
}

void rv_stack_flush(struct rv_stack_pool *pool, struct rv_stack_mag *mag, struct rv_stack *st)
{
    unsigned class = st->class;
    if (mag == NULL) {
        put_slots(pool, class, &(uint32_t){st->index}, 1);
        return;
    }
    RV_ASSERT(mag->n[class] == RV_STACK_MAG_MAX);
    mag_shrink(pool, mag, class, RV_STACK_MAG_MAX - RV_STACK_MAG_BATCH);
    st->next = mag->head[class];
    mag->head[class] = st;
    mag->n[class]++;
}

void rv_stack_mag_flush(struct rv_stack_pool *pool, struct rv_stack_mag *mag)
{
    for (unsigned class = 0; class < RV_STACK_CLASSES; class++)
        if (mag->n[class] > 0)
            mag_shrink(pool, mag, class, 0);
}

/* ---- the pool ------------------------------------------------------------------------------- */

int rv_stack_class(size_t bytes)
{
    if (bytes < RV_STACK_BYTES_MIN || bytes > RV_STACK_BYTES_MAX)
        return -EINVAL;
    unsigned class = 0;
    while (rv_stack_promise(class) < bytes)
        class++;
    return (int)class;
}

/* On arm, code built with stack-clash protection counts on 64 KiB: it may step over less. */
static uint32_t guard_bytes(void)
{
    size_t page = rv_page_bytes();
#if defined(__aarch64__)
    return page > 65536 ? (uint32_t)page : 65536;
#else
    return (uint32_t)page;
#endif
}

static bool kernel_installs_guards(uint32_t bytes)
{
    void *probe = rv_map_lazy(bytes);
    bool installs = probe != NULL && madvise(probe, bytes, MADV_GUARD_INSTALL) == 0;
    rv_unmap(probe, bytes);
    return installs;
}

int rv_stack_pool_init(struct rv_stack_pool *pool, uint32_t stacks_max, bool no_guard_install)
{
    RV_ASSERT(pool != NULL);
    if (stacks_max == 0 || stacks_max > STACKS_MAX)
        return -EINVAL;
    uint32_t guard = guard_bytes();
    *pool = (struct rv_stack_pool){
        .stacks_max = stacks_max,
        .guard_bytes = guard,
        .guard_install = !no_guard_install && kernel_installs_guards(guard),
    };
    for (unsigned class = 0; class < RV_STACK_CLASSES; class++) {
        size_t slot = 4 * rv_stack_promise(class), least = 4 * (size_t)guard;
        pool->depot[class].slot_bytes = slot > least ? slot : least;
        pool->hot_max[class] = (uint32_t)(HOT_PROMISE_BYTES_MAX / rv_stack_promise(class));
    memcpy(pool->hot_keep, pool->hot_max, sizeof pool->hot_keep);
        rv_lock_init(&pool->depot[class].lock);
    }
    return 0;
}

void rv_stack_pool_finish(struct rv_stack_pool *pool)
{
    for (unsigned class = 0; class < RV_STACK_CLASSES; class++) {
        struct rv_stack_depot *d = &pool->depot[class];
        for (uint32_t i = 0; i < rv_load_relaxed(&d->hot_n); i++)
            retire(pool, class, d->hot[i]);
        rv_unmap(d->hot, 2 * sizeof *d->hot * pool->stacks_max);
        rv_unmap(d->base, d->cap * d->slot_bytes);
    }
    *pool = (struct rv_stack_pool){0};
}

/* The oldest of the depot: the ones at the start of its list. */
static uint32_t detach_oldest(struct rv_stack_depot *d, uint32_t *ret_idx, uint32_t keep,
                              uint32_t max)
{
    rv_lock_acquire(&d->lock);
    uint32_t hot_n = rv_load_relaxed(&d->hot_n);
    uint32_t n = hot_n > keep ? min_u32(max, hot_n - keep) : 0;
    if (n > 0) {
        memcpy(ret_idx, d->hot, n * sizeof *ret_idx);
        memmove(d->hot, d->hot + n, (hot_n - n) * sizeof *d->hot);
        rv_store_relaxed(&d->hot_n, hot_n - n);
    }
    rv_lock_release(&d->lock);
    return n;
}

static uint32_t trim_class(struct rv_stack_pool *pool, unsigned class, uint32_t keep, uint32_t max)
{
    uint32_t idx[RV_STACK_MAG_BATCH], done = 0, n;
    do {
        uint32_t want = min_u32(max - done, RV_STACK_MAG_BATCH);
        n = want ? detach_oldest(&pool->depot[class], idx, keep, want) : 0;
        if (n > 0)
            cool(pool, class, idx, n);
        done += n;
    } while (n > 0);
    return done;
}

uint32_t rv_stack_pool_trim(struct rv_stack_pool *pool, uint32_t keep, uint32_t max)
{
    uint32_t done = 0;
    for (unsigned class = 0; class < RV_STACK_CLASSES; class++)
        done += trim_class(pool, class, keep, max - done);
    RV_ASSERT(done <= max);
    return done;
}

uint32_t rv_stack_pool_ease(struct rv_stack_pool *pool, uint32_t max)
{
    uint32_t done = 0;
    for (unsigned class = 0; class < RV_STACK_CLASSES; class++)
        done += trim_class(pool, class, pool->hot_keep[class], max - done);
    RV_ASSERT(done <= max);
    return done;
}

bool rv_stack_pool_is_warm(struct rv_stack_pool *pool)
{
    bool warm = false;
    for (unsigned class = 0; class < RV_STACK_CLASSES; class++)
        warm |= rv_load_relaxed(&pool->depot[class].hot_n) > pool->hot_keep[class];
    return warm;
}

void rv_stack_pool_stats(const struct rv_stack_pool *pool, struct rv_stack_stats *ret_stats)
{
    struct rv_stack_stats s = {0};
    for (unsigned class = 0; class < RV_STACK_CLASSES; class++) {
        const struct rv_stack_depot *d = &pool->depot[class];
        s.hot += rv_load_relaxed(&d->hot_n);
        s.cold += rv_load_relaxed(&d->cold_n);
        s.created += rv_load_relaxed(&d->fresh);
        s.trimmed += rv_load_relaxed(&d->trimmed);
        s.refused += rv_load_relaxed(&d->refused);
    }
    s.live = s.created > s.hot + s.cold ? s.created - s.hot - s.cold : 0;
    *ret_stats = s;
}
