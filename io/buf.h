/* SPDX-License-Identifier: MIT */
/*
 * buf.h -- leases: who has which buffer.
 *
 * There are two kinds. A *picked* lease is a buffer of a worker's group, which its kernel ring
 * fills when data has come; its record stands in an array beside the group, at the same index. A
 * *borrowed* one is a block from the heap, record and memory together, that a task fills itself.
 * Both look the same to whoever holds them.
 *
 * Of a group the kernel has a window only, and fills those that came home last again first: memory
 * that is in the caches already, and the rest of the group is never touched.
 *
 *     struct rv_lease  | data len cap owner state | msg: list link, inbox node | memory |
 *                        '--- struct reeve_buf --'
 */
#ifndef RV_IO_BUF_H
#define RV_IO_BUF_H

#include <reeve/buf.h>
#include <stdbool.h>
#include <stdint.h>

#include "mem/lock.h"
#include "mem/rv_atomic.h"
#include "sched/inbox.h"

struct rv_io;
struct rv_io_worker;
struct rv_sched;
struct rv_worker;

/* The words that a record's state can be: a stray pointer shows none of them. */
enum rv_lease_state {
    RV_LEASE_AWAY = 0x5eeb0f01,    /* the kernel may pick it, or it lies in the pool */
    RV_LEASE_PENDING = 0x5eeb0f02, /* received, and not read yet */
    RV_LEASE_OUT = 0x5eeb0f03,     /* somebody's */
    RV_LEASE_COMING = 0x5eeb0f04,  /* on its way home through an inbox */
};

struct rv_lease {
    /* opaque[0]: the owner, see buf.c; opaque[1]: the state */
    struct reeve_buf pub;
    /* link: in a list of unread data, in the pool, or in an inbox; aux: the id */
    struct rv_msg msg;
    unsigned char *mem;     /* where the buffer begins */
};
_Static_assert(sizeof(struct rv_lease) == 64, "a lease is one cache line");

static inline struct rv_lease *rv_lease_next(const struct rv_lease *l)
{
    ck_stack_entry_t *e = l->msg.link.next;
    return e ? (struct rv_lease *)((char *)e - offsetof(struct rv_lease, msg)) : NULL;
}

static inline void rv_lease_link(struct rv_lease *l, struct rv_lease *next)
{
    l->msg.link.next = next ? &next->msg.link : NULL;
}

/* The buffers that a worker's kernel ring picks from. The worker's own, but for `starved`. */
struct rv_group {
    /* buffer id begins at base + id * bytes; touched when it is filled */
    unsigned char *base;
    struct rv_lease *leases;    /* the record of buffer id */
    size_t bytes;
    uint32_t bufs;
    uint32_t free;              /* how many nobody has, less what was used and we have not seen */
    uint32_t offered;           /* of these, how many the kernel may pick */
    uint32_t window;            /* as many as it should have */
    uint32_t fresh;             /* ids from here on have never been offered */
    uint32_t calm;              /* so many more picks, and the window gets narrower */
    struct rv_lease *shelf;     /* the others, the last one home first */
    RV_ATOMIC(uint32_t) starved; /* 1: streams wait; who sends a lease home then wakes the worker */
    /* Leases that stay away: `stayed` of those that were out at `since` are out still, or more. */
    bool watched;               /* what comes home is to be told to rv_stream_home() */
    uint32_t stayed;
    int64_t since;              /* 0: nobody has starved since half of the group was home */
    RV_ATOMIC(uint32_t) held;   /* 1: more than half was out for HELD_NS: see stream.c (9) */
};

/* A task that waits for a lease to borrow; on its stack. */
struct rv_borrower;

/* The pool of leases for borrowing, shared by the runtime's workers. Everything under the lock. */
struct rv_borrow {
    struct rv_lock lock;
    uint32_t out, out_max;          /* borrowed now, and at most */
    uint32_t extra;                 /* beyond that: see rv_lease_extra() */
    uint32_t idle;                  /* blocks kept in the list */
    struct rv_lease *idle_list;
    struct rv_borrower *first, *last; /* first come, first served */
};

/* The group of a worker and its records. 0 or -ENOMEM. finish: {0} is fine. */
int rv_group_init(struct rv_io_worker *iw, size_t bytes, uint32_t bufs);
void rv_group_finish(struct rv_io_worker *iw);

/* The engine has started: offers the first window. */
void rv_group_open(struct rv_io_worker *iw);

/* A receive found no buffer: widens the window, if not all that are free are in it already. Whether
 * the receive may be made again at once. */
bool rv_group_widen(struct rv_io_worker *iw);

/* Frees the idle blocks. Borrowed ones, if the program still has any, are its loss. */
void rv_borrow_finish(struct rv_borrow *b);

/* The buffer that a completion of this worker says was picked, with res bytes in it. */
struct rv_lease *rv_lease_picked(struct rv_io_worker *iw, uint32_t cflags, int32_t res);

/* Sends a lease home, whatever it is. iw: the calling worker; NULL: a foreign thread. It must not
 * be in a list. */
void rv_lease_return(struct rv_io_worker *iw, struct rv_lease *l);

/* The same for a whole list. */
void rv_lease_return_all(struct rv_io_worker *iw, struct rv_lease *first);

/* The lease behind a user's buffer, OUT; else the end: `call` was given something else. */
_Noreturn void rv_lease_misused(const struct reeve_buf *buf, const char *call);
static inline struct rv_lease *rv_lease_of(struct reeve_buf *buf, const char *call)
{
    if (__builtin_expect(!buf || buf->opaque[1] != RV_LEASE_OUT, 0))
        rv_lease_misused(buf, call);
    return (struct rv_lease *)buf;
}

/* A lease to fill, waiting for one until `until` (see rv_deadline()). 0 or -errno. In a task. */
int rv_lease_borrow(struct rv_lease **ret_lease, int64_t until);

/* A lease of the heap, OUT and empty, for data that waits; NULL: no memory, or, for who can do
 * without (`bounded`), there are as many such leases as all groups have buffers. */
struct rv_lease *rv_lease_extra(struct rv_io_worker *iw, bool bounded);

/* The runtime goes: whether any of a list of leases is its own. Then all that are go with it. */
bool rv_lease_forget(struct rv_lease *first, const struct rv_io *io);

/* A lease that comes home through its worker's inbox. */
void rv_lease_message(struct rv_io_worker *iw, struct rv_msg *m);

#endif
