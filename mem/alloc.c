/* SPDX-License-Identifier: MIT */
/*
 * alloc.c -- the one file that calls the allocator and maps memory.
 *
 * Small blocks come from mimalloc: a task that moved to another thread frees there what it took
 * here, and mimalloc makes that one push. Ranges that need addresses more than memory (slabs,
 * stacks, deques) come from mmap with MAP_NORESERVE: untouched pages cost and count nothing.
 *
 * Each request is counted (but in the explorer, where that would be one more thing to interleave):
 * that nothing is allocated on a path is a claim that tests and benchmarks can check.
 * Threads: any.
 */
#include "mem/alloc.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "mem/die.h"
#include "mem/fault.h"
#include "mem/tally.h"

#ifndef RV_NO_MIMALLOC
#include <mimalloc.h>
#endif

static struct rv_tally requests;

static inline void count_request(void)
{
#if !defined(RV_ATOMIC_BACKEND)
    rv_tally_add(&requests, 1);
#endif
}

uint64_t rv_alloc_requests(void)
{
    return rv_tally_get(&requests);
}

void *rv_alloc(size_t bytes)
{
    count_request();
    if (RV_FAULT("alloc"))
        return NULL;
#ifdef RV_NO_MIMALLOC
    return malloc(bytes > 0 ? bytes : 1);
#else
    return mi_malloc(bytes);
#endif
}

void *rv_alloc_zero(size_t bytes)
{
    count_request();
    if (RV_FAULT("alloc"))
        return NULL;
#ifdef RV_NO_MIMALLOC
    return calloc(1, bytes > 0 ? bytes : 1);
#else
    return mi_zalloc(bytes);
#endif
}

#ifndef RV_NO_MIMALLOC
/* mimalloc before 2.1 takes its short way for 256, 512 and 1024 bytes that are to be aligned to no
 * more than that, and then aligns them to 128 (its issue 700). One byte more goes the long way. */
static size_t not_misaligned(size_t bytes, size_t align)
{
    enum { SAFE_ALIGN = 128, SHORT_WAY = 1024 };
    bool affected = align > SAFE_ALIGN && bytes >= align && bytes <= SHORT_WAY;
    return affected ? bytes + (bytes % align == 0) : bytes;
}
#endif

void *rv_alloc_aligned(size_t bytes, size_t align)
{
    RV_ASSERT(align > 0);
    RV_ASSERT((align & (align - 1)) == 0);
    count_request();
    if (RV_FAULT("alloc"))
        return NULL;
#ifdef RV_NO_MIMALLOC
    void *block = NULL;
    if (align < sizeof(void *))
        align = sizeof(void *);
    return posix_memalign(&block, align, bytes > 0 ? bytes : 1) == 0 ? block : NULL;
#else
    return mi_malloc_aligned(not_misaligned(bytes, align), align);
#endif
}

void rv_free(void *block)
{
#ifdef RV_NO_MIMALLOC
    free(block);
#else
    mi_free(block);
#endif
}

size_t rv_page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

size_t rv_page_round(size_t bytes)
{
    size_t page = rv_page_bytes();
    RV_ASSERT(bytes <= SIZE_MAX - page);
    return (bytes + page - 1) & ~(page - 1);
}

static void *map(size_t bytes, int prot)
{
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    RV_ASSERT(bytes > 0);
    count_request();
    void *start = mmap(NULL, rv_page_round(bytes), prot, flags, -1, 0);
    return start == MAP_FAILED ? NULL : start;
}

void *rv_map_reserve(size_t bytes)
{
    return RV_FAULT("map.reserve") ? NULL : map(bytes, PROT_NONE);
}

void *rv_map_lazy(size_t bytes)
{
    return RV_FAULT("map.lazy") ? NULL : map(bytes, PROT_READ | PROT_WRITE);
}

int rv_map_commit(void *start, size_t bytes)
{
    RV_ASSERT((uintptr_t)start % rv_page_bytes() == 0);
    count_request();
    if (RV_FAULT("map.commit"))
        return -ENOMEM;
    return mprotect(start, rv_page_round(bytes), PROT_READ | PROT_WRITE) == 0 ? 0 : -ENOMEM;
}

void rv_unmap(void *start, size_t bytes)
{
    if (start == NULL || munmap(start, rv_page_round(bytes)) == 0)
        return;
    /* The kernel may have merged it with a neighbour, and at the limit of mappings it cannot split
     * them again. The addresses are lost then, the memory is not. */
    RV_MUST(errno == ENOMEM);
    madvise(start, rv_page_round(bytes), MADV_DONTNEED);
}
