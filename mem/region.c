/* SPDX-License-Identifier: MIT */
/*
 * region.c -- one mapping, cut into spans, which are cut into blocks of one size each.
 *
 *     span:   vacant -> open     [open_span, for its kind]
 *             open -> full       [take_from: the last block that was left]
 *             full -> open       [rv_region_give]
 *             open -> vacant     [rv_region_give: the last block that was out]
 *
 * Nothing is cut before it is needed: a span hands out what came back, then what was never out.
 * Each kind has a lock, since pools come here for one size at a time, and only when their own idle
 * blocks do not do.
 *
 * (1) A span that is neither vacant nor fresh has a block out, or is just being opened or vacated
 *     under the lock of its kind. So who holds a block may read the kind of its span.
 * (2) Open spans are in the list of their kind, vacant ones in the region's, full ones in none.
 * (3) What is not out is poisoned under AddressSanitizer, but for the link of what came back. Debug
 *     builds fill it, and look at it when it is taken again.
 * (4) In a child of fork, where another thread may have been at work on the lists, nothing is taken
 *     any more, and what comes back is lost; blocks that are out stay whose they are.
 *
 * Threads: see region.h.
 */
#include "mem/region.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "mem/alloc.h"
#include "mem/die.h"
#include "mem/fault.h"
#include "mem/forked.h"
#include "mem/stack.h"

#ifdef RV_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/lsan_interface.h>
#endif

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23          /* Linux 5.14 */
#endif

#define NONE UINT32_MAX
#define BLOCK_ALIGN ((size_t)16)

/* ---- what is not out ------------------------------------------------------------------------- */

static void poison(void *start, size_t bytes)
{
#ifdef RV_ASAN
    ASAN_POISON_MEMORY_REGION(start, bytes);
#endif
    (void)start;
    (void)bytes;
}

static void unpoison(void *start, size_t bytes)
{
#ifdef RV_ASAN
    ASAN_UNPOISON_MEMORY_REGION(start, bytes);
#endif
    (void)start;
    (void)bytes;
}

#ifdef RV_DEBUG
enum { FREED = 0xdb };

static void fill(unsigned char *block, size_t bytes)
{
    memset(block + sizeof(void *), FREED, bytes - sizeof(void *));
}

static void check_filled(const unsigned char *block, size_t bytes)
{
    const unsigned char *first = block + sizeof(void *);
    size_t others = bytes - sizeof(void *) - 1;
    if (*first != FREED || memcmp(first, first + 1, others) != 0)   /* each equals the next */
        rv_die("Arena: a block was written to after it was freed.");
}
#else
static void fill(unsigned char *block, size_t bytes)
{
    (void)block;
    (void)bytes;
}

static void check_filled(const unsigned char *block, size_t bytes)
{
    (void)block;
    (void)bytes;
}
#endif

/* ---- spans ----------------------------------------------------------------------------------- */

static unsigned char *start_of(const struct rv_region *r, uint32_t at)
{
    return r->base + at * RV_REGION_SPAN;
}

static void link_open(struct rv_region *r, struct rv_region_kind *k, uint32_t at)
{
    r->span[at].prev = NONE;
    r->span[at].next = k->open;
    if (k->open != NONE)
        r->span[k->open].prev = at;
    k->open = at;
}

static void unlink_open(struct rv_region *r, struct rv_region_kind *k, uint32_t at)
{
    struct rv_region_span *s = &r->span[at];
    if (s->next != NONE)
        r->span[s->next].prev = s->prev;
    if (s->prev != NONE)
        r->span[s->prev].next = s->next;
    else
        k->open = s->next;
}

/* Under the lock of k: a span for it, or NONE. */
static uint32_t open_span(struct rv_region *r, struct rv_region_kind *k)
{
    RV_ASSERT(rv_lock_is_held(&k->lock));
    RV_ASSERT(k->open == NONE);
    rv_lock_acquire(&r->lock);
    uint32_t at = r->vacant;
    if (at != NONE)
        r->vacant = r->span[at].next;
    else if (r->fresh < r->spans)
        at = r->fresh++;
    rv_lock_release(&r->lock);
    if (at == NONE)
        return NONE;
    r->span[at] = (struct rv_region_span){ .kind = (uint32_t)(k - r->kind) };
    link_open(r, k, at);
    return at;
}

/* Under the lock of k: all blocks of a span are back. */
static void vacate(struct rv_region *r, struct rv_region_kind *k, uint32_t at)
{
    RV_ASSERT(r->span[at].out == 0);
    unlink_open(r, k, at);
    poison(start_of(r, at), RV_REGION_SPAN);
    rv_lock_acquire(&r->lock);
    r->span[at].next = r->vacant;
    r->vacant = at;
    rv_lock_release(&r->lock);
}

/* Under the lock of k: a block of an open span. */
static void *take_from(struct rv_region *r, struct rv_region_kind *k, uint32_t at)
{
    struct rv_region_span *s = &r->span[at];
    unsigned char *block = s->back;
    RV_ASSERT(s->out < k->blocks);
    if (block != NULL) {
        s->back = *(void **)(void *)block;
        unpoison(block, k->stride);
        check_filled(block, k->stride);
    } else {
        block = start_of(r, at) + (size_t)s->fresh++ * k->stride;
        unpoison(block, k->stride);
    }
    if (++s->out == k->blocks)
        unlink_open(r, k, at);
    rv_store_relaxed(&k->out, rv_load_relaxed(&k->out) + 1);
    return block;
}

/* ---- the calls ------------------------------------------------------------------------------- */

void *rv_region_take(struct rv_region *r, uint32_t kind)
{
    void *block = NULL;
    RV_ASSERT(kind < RV_REGION_KINDS);
    RV_ASSERT(r->kind[kind].stride > 0);
    if (RV_FAULT("region.take") || r->forks != rv_forks())
        return NULL;
    struct rv_region_kind *k = &r->kind[kind];
    rv_lock_acquire(&k->lock);
    uint32_t at = k->open != NONE ? k->open : open_span(r, k);
    if (at != NONE)
        block = take_from(r, k, at);
    rv_lock_release(&k->lock);
    if (block == NULL)
        rv_add_relaxed(&r->misses, 1U);
    return block;
}

void rv_region_give(struct rv_region *r, void *block)
{
    RV_ASSERT(rv_region_owns(r, block));
    size_t offset = (size_t)((unsigned char *)block - r->base);
    uint32_t at = (uint32_t)(offset / RV_REGION_SPAN);
    struct rv_region_span *s = &r->span[at];
    struct rv_region_kind *k = &r->kind[s->kind];   /* (1) */
    RV_MUST(offset % RV_REGION_SPAN % k->stride == 0);
    if (r->forks != rv_forks())
        return;
    rv_lock_acquire(&k->lock);
    RV_MUST(s->out > 0);
    fill(block, k->stride);
    poison((unsigned char *)block + sizeof(void *), k->stride - sizeof(void *));
    *(void **)block = s->back;
    s->back = block;
    rv_store_relaxed(&k->out, rv_load_relaxed(&k->out) - 1);
    if (s->out-- == k->blocks)
        link_open(r, k, at);
    if (s->out == 0)
        vacate(r, k, at);
    rv_lock_release(&k->lock);
}

size_t rv_region_cool(struct rv_region *r)
{
    size_t cooled = 0;
    if (r->prefaulted || r->base == NULL || r->forks != rv_forks())
        return 0;
    rv_lock_acquire(&r->lock);
    uint32_t first = r->vacant, last = NONE;
    r->vacant = NONE;           /* they are ours meanwhile; who needs one takes a fresh one */
    rv_lock_release(&r->lock);
    for (uint32_t at = first; at != NONE; at = r->span[at].next) {
        if (madvise(start_of(r, at), RV_REGION_SPAN, MADV_DONTNEED) == 0)
            cooled += RV_REGION_SPAN;
        last = at;
    }
    if (last == NONE)
        return 0;
    rv_lock_acquire(&r->lock);
    r->span[last].next = r->vacant;
    r->vacant = first;
    rv_lock_release(&r->lock);
    return cooled;
}

uint64_t rv_region_used(const struct rv_region *r)
{
    uint64_t used = 0;
    for (uint32_t i = 0; i < RV_REGION_KINDS; i++)
        used += rv_load_relaxed(&r->kind[i].out) * r->kind[i].stride;
    return used;
}

/* ---- from beginning to end ------------------------------------------------------------------- */

static bool is_sane(const struct rv_region_how *how)
{
    bool sane = how->bytes > 0 && how->bytes <= RV_REGION_MAX && how->kinds <= RV_REGION_KINDS;
    for (uint32_t i = 0; sane && i < how->kinds; i++) {
        size_t bytes = how->block_bytes[i];
        sane = bytes >= BLOCK_ALIGN && bytes % BLOCK_ALIGN == 0 && bytes <= RV_REGION_SPAN;
    }
    return sane;
}

/* Every page is there afterwards, and zero. */
static int populate(unsigned char *start, size_t bytes)
{
    if (RV_FAULT("region.prefault"))
        return -ENOMEM;
    if (madvise(start, bytes, MADV_POPULATE_WRITE) == 0)
        return 0;
    if (errno != EINVAL)
        return -ENOMEM;
    for (size_t at = 0, page = rv_page_bytes(); at < bytes; at += page) /* an older kernel */
        *(volatile unsigned char *)(start + at) = 0;
    return 0;
}

/* Nothing to put right, see (4); forks are counted where somebody has asked to be told. */
static void forked(void)
{
}

int rv_region_init(struct rv_region *r, const struct rv_region_how *how)
{
    if (!is_sane(how))
        return -EINVAL;
    rv_fork_hook(forked);
    size_t bytes = (how->bytes + RV_REGION_STEP - 1) & ~(RV_REGION_STEP - 1);
    size_t map_bytes = bytes + RV_REGION_STEP;
    unsigned char *map = rv_map_lazy(map_bytes);
    if (map == NULL)
        return -ENOMEM;
    size_t skip = -(uintptr_t)map & (RV_REGION_STEP - 1);
    struct rv_region_span *span = rv_alloc_zero(bytes / RV_REGION_SPAN * sizeof *span);
    if (span == NULL)
        goto no_spans;
    if (how->huge_pages)
        madvise(map + skip, bytes, MADV_HUGEPAGE);
    if (how->prefault && populate(map + skip, bytes) < 0)
        goto no_pages;
    *r = (struct rv_region){ .base = map + skip, .bytes = bytes, .span = span,
                             .spans = (uint32_t)(bytes / RV_REGION_SPAN), .forks = rv_forks(),
                             .prefaulted = how->prefault, .map = map, .map_bytes = map_bytes,
                             .vacant = NONE };
    for (uint32_t i = 0; i < how->kinds; i++) {
        r->kind[i].open = NONE;
        r->kind[i].stride = (uint32_t)how->block_bytes[i];
        r->kind[i].blocks = (uint32_t)(RV_REGION_SPAN / how->block_bytes[i]);
    }
    poison(r->base, bytes);
#ifdef RV_ASAN
    __lsan_register_root_region(r->base, bytes);    /* blocks may be all that points to others */
#endif
    return 0;
no_pages:
    rv_free(span);
no_spans:
    rv_unmap(map, map_bytes);
    return -ENOMEM;
}

void rv_region_finish(struct rv_region *r)
{
    if (r->base == NULL)
        return;
#ifdef RV_ASAN
    __lsan_unregister_root_region(r->base, r->bytes);
#endif
    unpoison(r->base, r->bytes);
    rv_unmap(r->map, r->map_bytes);
    rv_free(r->span);
    memset(r, 0, sizeof *r);
}
