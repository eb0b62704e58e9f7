/* SPDX-License-Identifier: MIT */
/*
 * arena.h -- the file arena: aligned buffers that every ring of a runtime knows, so that the kernel
 * need not look up and pin their pages for each read and write.
 *
 * Its blocks are leases like the others (io/buf.h). It is made when the first one is borrowed.
 */
#ifndef RV_IO_ARENA_H
#define RV_IO_ARENA_H

#include <reeve/sync.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mem/rv_atomic.h"

struct rv_blocks;
struct rv_io;
struct rv_io_worker;
struct rv_lease;

#define RV_ARENA_BYTES (UINT32_C(2) << 20) /* and the largest block */
#define RV_ARENA_BLOCK_MIN UINT32_C(4096)  /* what any device is content with as an alignment */

enum { RV_LEASE_ARENA = 4 }; /* in a lease's opaque[0]: the struct rv_io plus this */

/* {0} is an arena that is not made yet. */
struct rv_arena {
    struct reeve_once once;
    RV_ATOMIC(struct rv_blocks *) blocks;
};

struct rv_arena_stats {
    size_t bytes;          /* 0: not made */
    bool registered;       /* its memory is pinned, for the rings to know */
    uint32_t rings, rings_plain; /* that know it; that were asked to, and could not */
    uint64_t fixed, plain; /* reads and writes of its memory, the fixed ones and the others */
    uint64_t waits;        /* borrowers that had to wait */
};

/* A block of at least so many bytes, waiting for one until `until` (see rv_deadline()). 0; -EINVAL:
 * no bytes; -ERANGE: more than the whole arena; -ETIMEDOUT, -ECANCELED, -ENOMEM. In a task; the
 * worker may have changed. */
int rv_arena_borrow(struct rv_lease **ret_lease, size_t bytes, int64_t until);

/* The way back. Any thread. */
void rv_arena_return(struct rv_io *io, struct rv_lease *l);

/* Whether a read or write of this lease, made on this worker next, may be a fixed one (of buffer
 * index 0); counts it. The worker's own thread. */
bool rv_arena_fixed(struct rv_io_worker *iw, const struct rv_lease *l);

void rv_arena_stats(struct rv_io *io, struct rv_arena_stats *ret_stats);

/* No worker runs any more, and the rings are gone. */
void rv_arena_finish(struct rv_arena *a);

#endif
