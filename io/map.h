/* SPDX-License-Identifier: MIT */
/*
 * map.h -- what is behind a mapped file: its record, and the two halves of opening one.
 *
 *     struct rv_map_source src = { .path = path, .fd = -1, .flags = flags, .len = len };
 *     r = reeve_offload(rv_map_look, &src, until);   // may block: opens, measures, makes longer
 *     r = rv_map_make(&map, &src);                   // never blocks
 */
#ifndef RV_IO_MAP_H
#define RV_IO_MAP_H

#include <reeve/map.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mem/rv_atomic.h"
#include "sched/offload.h"

#define RV_MAPS_MAX 65536u /* of the process; the kernel's own default is not larger */

/* A mapped file, in a slab of the process: a record that is free can still be looked at. */
struct rv_map {
    /* What the handler of a fault looks at, on any thread and without a lock: map_guard.c. */
    RV_ATOMIC(uint32_t) seq;    /* odd: the next two are about to change */
    RV_ATOMIC(uint32_t) broken; /* zeroes stand where the file should */
    RV_ATOMIC(uintptr_t) start; /* 0: no memory */
    RV_ATOMIC(size_t) bytes;    /* in whole pages */
    int fd, prot;

    size_t len; /* of the file, as far as it is mapped */
    int flags;  /* REEVE_MAP_* */
    RV_ATOMIC(uint32_t) gen;    /* odd: open; grows at each open and close */
    RV_ATOMIC(uint32_t) calls;  /* that the pool works on */
    /* the pages from the first to behind the last that was said to be used so: << 32 |; 0: none */
    RV_ATOMIC(uint64_t) random;
    RV_ATOMIC(uint64_t) candid; /* what mincore(2) tells whom: see tells_truth() in map.c */
    struct rv_offload_job end;  /* takes it down */
};

/* Which file it is, and in what state. */
struct rv_map_id {
    uint64_t dev, ino, size;
    int64_t mtime_s, mtime_ns;
};

struct rv_map_source {
    const char *path; /* NULL: fd */
    int fd;           /* in: an open file of the caller's, -1 with a path; out: the map's own */
    int flags;
    size_t len; /* in: as for reeve_map_open; out: of the map */
    struct rv_map_id id;
    uint64_t candid;
    bool ran; /* rv_map_look() has: what it returned is about the file */
};

/* 0, or -EINVAL: flags that do not go together. */
int rv_map_flags(int flags);
/* The first half, on a thread that may block. arg: struct rv_map_source. 0, and src->fd is the
 * caller's to close or to make a map of; or -errno. */
int rv_map_look(void *arg);
/* The second half: takes src->fd, whatever it returns. 0, -ENOMEM, -EAGAIN, or what mmap says. */
int rv_map_make(struct reeve_map *ret_map, struct rv_map_source *src);
/* Gives up between the halves. */
void rv_map_drop(struct rv_map_source *src);

/* The file at a path. 0 or -errno; it may block. */
int rv_map_identify(const char *path, struct rv_map_id *ret_id);

/* What a map of so many bytes takes from a bound: whole pages, at least one. */
size_t rv_map_charge(size_t len);

/* The file's size as far as this machine knows it, without asking another one; or -errno. errno
 * may change. In signal handlers, too. */
int64_t rv_map_size(int fd);

/* Whether a page of the range is among those that were said to be used at random. */
bool rv_map_is_random(const struct rv_map *m, size_t off, size_t len);

/* For the handler: the address is in a map, whose page there cannot be had. Puts zeroes there and
 * marks the map. False: it is in no map. errno may change. */
bool rv_map_mend(uintptr_t address);

#endif
