/* SPDX-License-Identifier: MIT */
/*
 * alloc.h -- the one door to memory: small blocks from mimalloc, large ranges from the kernel.
 *
 * Blocks come from mimalloc, or from libc when built with RV_NO_MIMALLOC (only then do sanitizers
 * see them). Whoever took a block, any thread may free it. Mappings are in bytes, rounded up to
 * pages. All return NULL or -ENOMEM when there is none. Fault points: "alloc", "map.reserve",
 * "map.commit", "map.lazy".
 */
#ifndef RV_MEM_ALLOC_H
#define RV_MEM_ALLOC_H

#include <stddef.h>
#include <stdint.h>

/* How many blocks and mappings were asked for, by any of the calls below, ever. What allocates
 * nothing leaves it as it is. */
uint64_t rv_alloc_requests(void);

void *rv_alloc(size_t bytes) __attribute__((malloc, warn_unused_result));
void *rv_alloc_zero(size_t bytes) __attribute__((malloc, warn_unused_result));
/* align: a power of two. */
void *rv_alloc_aligned(size_t bytes, size_t align) __attribute__((malloc, warn_unused_result));
/* Any of the three above; NULL is fine. */
void rv_free(void *block);

size_t rv_page_bytes(void);

/* bytes rounded up to whole pages. */
size_t rv_page_round(size_t bytes);

/* Address space and nothing else: not readable, not counted, until a part is committed. */
void *rv_map_reserve(size_t bytes) __attribute__((warn_unused_result));

/* Makes a part of a reservation readable and writable; 0 or -ENOMEM. It is zero when first read.
 * start: on a page. Committing parts in ascending order keeps them one mapping to the kernel. */
int rv_map_commit(void *start, size_t bytes) __attribute__((warn_unused_result));

/* Readable, writable and zero at once; a page costs memory only when it is first touched. */
void *rv_map_lazy(size_t bytes) __attribute__((warn_unused_result));

/* The whole of a reservation or mapping; start NULL is fine. */
void rv_unmap(void *start, size_t bytes);

#endif
