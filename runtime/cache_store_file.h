/* SPDX-License-Identifier: MIT */
/*
 * cache_store_file.h -- the file of a store: what is where in it, and how it is read and written.
 *
 *     0      2048     4096
 *     | head | head   | segment | segment | ...                 a ring of equal segments
 *
 *     a segment  | record 2 | record 3 | ... |  free  | ... | slot 3 | slot 2 | slot 1 | slot 0 |
 *     a record   | check at hash expires key_len value_len | key | value |     in whole words
 *     a slot     | check hash at size sum |                                    32 bytes
 *
 * A position in the log is the number of bytes that were given out before it, as if the ring had no
 * end: the segment's number times its size, plus the offset in it. No two records ever have the
 * same, and each record and each slot carries its own under its checksum, so that what is left of
 * an earlier lap is known for it. A slot says of its record what the index must know, and is a
 * second copy of what the record says of itself: either is enough to know that a key has changed.
 * Slots 0 and 1 are alike and mark the beginning: they say where the segment before it ended.
 *
 * Numbers are in the machine's own order, which the head tells.
 */
#ifndef RV_RUNTIME_CACHE_STORE_FILE_H
#define RV_RUNTIME_CACHE_STORE_FILE_H

#include <reeve/map.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "mem/table_hash.h"

#define RV_STORE_HEAD_BYTES ((size_t)4096)
#define RV_STORE_SEGMENT_MIN ((size_t)4096)
#define RV_STORE_SEGMENT_MAX ((size_t)1 << 30)
#define RV_STORE_SEGMENTS_MIN 4u
#define RV_STORE_SEGMENTS_MAX (1u << 24)
#define RV_STORE_MARKS 2u /* slots that mark a segment's beginning */

/* In the low bits of a position, which is a multiple of 8 without them. */
enum rv_store_kind {
    RV_STORE_VALUE,
    RV_STORE_REMOVAL, /* of all before it that has this hash */
    RV_STORE_CLEAR,   /* of all before it */
    RV_STORE_MARK,    /* hash: where the log was, 0: nowhere; size: slots of the segment before */
};
#define RV_STORE_KINDS ((uint64_t)7)

/* What is known of a record without reading it. */
struct rv_store_entry {
    uint64_t hash, at; /* at: position and kind */
    uint32_t size;     /* without what fills the last word */
    uint32_t sum;      /* of the record's check: it is this very one */
};

struct rv_store_slot {
    uint64_t check;
    struct rv_store_entry entry;
};

struct rv_store_record {
    uint64_t check; /* of all that follows */
    uint64_t at, hash;
    int64_t expires_ns; /* wall clock; 0: never */
    uint32_t key_len, value_len;
};

struct rv_store_head {
    uint64_t check, magic;
    uint32_t version, order;
    uint64_t segment_bytes, segments, tag;
    struct rv_seed seed;
    uint64_t serial; /* grows each time the heads are written; the larger one counts */
    uint64_t floor;  /* position: what is before it is gone */
    uint64_t end;    /* position where the log ended when it was closed; 0: it was not */
    uint64_t next;   /* no segment from this number on was begun when this was written */
};

struct rv_store_file {
    int fd; /* it holds the lock */
    unsigned shift;
    uint32_t segments;
    bool by_fd; /* this process may not use process_vm_writev(2) */
    struct reeve_map map;
    struct rv_store_head head; /* as it is in the file, or is to be */
    uint64_t seed;             /* of checks */
};

static inline size_t rv_store_words(size_t bytes)
{
    return (bytes + 7) & ~(size_t)7;
}

static inline uint64_t rv_store_seq(const struct rv_store_file *f, uint64_t at)
{
    return at >> f->shift;
}

static inline uint32_t rv_store_place(const struct rv_store_file *f, uint64_t seq)
{
    return (uint32_t)(seq % f->segments);
}

/* Offset in its segment. */
static inline size_t rv_store_within(const struct rv_store_file *f, uint64_t at)
{
    return (size_t)(at & (((uint64_t)1 << f->shift) - 1) & ~RV_STORE_KINDS);
}

/* Offset in the file. */
static inline size_t rv_store_start(const struct rv_store_file *f, uint64_t seq)
{
    return RV_STORE_HEAD_BYTES + ((size_t)rv_store_place(f, seq) << f->shift);
}

static inline size_t rv_store_offset(const struct rv_store_file *f, uint64_t at)
{
    return rv_store_start(f, rv_store_seq(f, at)) + rv_store_within(f, at);
}

static inline size_t rv_store_slot_offset(const struct rv_store_file *f, uint64_t seq, uint32_t idx)
{
    size_t bytes = sizeof(struct rv_store_slot);
    return rv_store_start(f, seq) + ((size_t)1 << f->shift) - bytes * ((size_t)idx + 1);
}

static inline size_t rv_store_bytes(const struct rv_store_file *f)
{
    return RV_STORE_HEAD_BYTES + ((size_t)f->segments << f->shift);
}

/* Of bytes, begun with what is known of those before them. Any change of one word changes it. */
uint64_t rv_store_sum(uint64_t begun, const void *data, size_t len);

/* Of a record, given what its content (key, then value) sums to. */
uint64_t rv_store_record_check(const struct rv_store_file *f, const struct rv_store_record *r,
                               uint64_t content);

/* Makes a slot of its entry; and whether it is one. */
void rv_store_slot_seal(const struct rv_store_file *f, struct rv_store_slot *slot, uint32_t idx);
bool rv_store_slot_ok(const struct rv_store_file *f, const struct rv_store_slot *slot,
                      uint32_t idx);

/* The head that counts, and which fits f's geometry and the tag: into f->head. False: there is
 * none. May block. */
bool rv_store_head_read(struct rv_store_file *f, uint64_t tag);
/* A new one, under which nothing in the file is valid. Is not written yet. */
void rv_store_head_new(struct rv_store_file *f, uint64_t tag);
/* Both copies. 0 or -EIO. */
int rv_store_head_write(struct rv_store_file *f);

/* Where the next `pieces` of what is to be written go. */
struct rv_store_target {
    size_t offset;
    unsigned pieces;
};
#define RV_STORE_PIECES_MAX 4u
#define RV_STORE_TARGETS_MAX 2u

/* Writes into the map, in order, from the first to the last. 0; -EIO: an unknown part was. */
int rv_store_write(struct rv_store_file *f, const struct iovec *from,
                   const struct rv_store_target *to, unsigned targets);

/* Reads what is in memory: 0; -EAGAIN: not all is, or the file is shorter. */
int rv_store_read_now(const struct rv_store_file *f, const struct iovec *to, int n, size_t offset);
/* May block. 0; -EIO: the file is shorter, or its disk fails. */
int rv_store_read(const struct rv_store_file *f, const struct iovec *to, int n, size_t offset);

#endif
