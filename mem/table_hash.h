/* SPDX-License-Identifier: MIT */
/*
 * table_hash.h -- the hash of keys: SipHash-1-3 under a random seed.
 *
 * Written after Aumasson and Bernstein, "SipHash: a fast short-input PRF" (2012): a keyed function,
 * so that who does not know the seed cannot choose keys that collide. One round for each word and
 * three at the end is what the hash tables of several languages settled on.
 */
#ifndef RV_MEM_TABLE_HASH_H
#define RV_MEM_TABLE_HASH_H

#include <stddef.h>
#include <stdint.h>

struct rv_seed {
    uint64_t k0, k1;
};

/* From the kernel; on kernels that have none to give yet, from clocks and addresses. */
struct rv_seed rv_seed_random(void);

/* With c rounds for each word and d at the end. */
uint64_t rv_siphash(struct rv_seed seed, unsigned c, unsigned d, const void *data, size_t len);

/* The one for tables: c = 1, d = 3. */
uint64_t rv_hash(struct rv_seed seed, const void *data, size_t len);

#endif
