/* SPDX-License-Identifier: MIT */
/*
 * op.h -- one request to the kernel (or to whoever plays the kernel), from the moment it is queued
 * until its last completion has come.
 *
 * An op lives in a slab that all workers of a runtime share, never on a stack: its memory outlives
 * every late completion and every stale cancellation. Its name, the id, is what the kernel gets as
 * user_data and what the scheduler knows as "the op this task waits for":
 *
 *     63            32 31                 4 3     0
 *     | generation     | index in the slab | kind  |
 *     | gen 12 | fd 20 | index in the slab | kind  |    of STREAM: data finds its fd without the op
 *
 * The generation grows at each release, and a fresh one is never 0, so an id is never 0 and does
 * not name two uses of one op (of a stream: not within 4096 uses).
 */
#ifndef RV_IO_OP_H
#define RV_IO_OP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mem/rv_atomic.h"
#include "sched/inbox.h"

struct rv_fd;
struct rv_io;
struct rv_io_worker;
struct rv_lease;
struct rv_sched;
struct rv_worker;

/* What happens when it completes; the low bits of its id. */
enum rv_op_kind {
    RV_OPK_TASK,     /* a task waits: the result is stored, the token fired, the task releases it */
    /* a wait gets one pass of the engine: the token is fired, the op releases itself */
    RV_OPK_NUDGE,
    RV_OPK_STREAM,   /* the receiving half of a socket, io/stream.c */
    RV_OPK_ACCEPTOR, /* a server's accepting socket, io/net.c */
    RV_OPK_DISK,     /* as TASK: a file's bytes, for which a device may be idle meanwhile */
    RV_OPK_SEND_ZC,  /* as TASK, with a second completion behind it, io/zc.c */
    RV_OPK_ENGINE,   /* no op behind it: the engine's own, never passed to rv_op_complete() */
};

/* What is asked for. Completions carry what Linux would say: a value >= 0 or -errno, and flags of
 * enum rv_op_flag. `multi` requests complete many times; the last one lacks RV_OPF_MORE. */
enum rv_op_code {
    RV_OP_NOP,
    RV_OP_ACCEPT,       /* fd -> a connection, CLOEXEC */
    RV_OP_ACCEPT_MULTI, /* the same, multi */
    RV_OP_CONNECT,      /* fd, addr = struct sockaddr, off = its length */
    RV_OP_RECV,         /* fd, addr, len, msg_flags */
    RV_OP_RECV_PICK,    /* fd: into a buffer of this worker's group, picked when data is there */
    RV_OP_RECV_MULTI,   /* the same, multi; ends by itself after about `off` bytes, if it can */
    RV_OP_SEND,         /* fd, addr, len, msg_flags */
    /* The same without copying, of kind SEND_ZC: if the first completion, the send's own, has MORE,
     * the kernel uses the memory until the second one. */
    RV_OP_SEND_ZC,
    /* fd, addr, len, off (UINT64_MAX: the file's position), msg_flags = RWF_* */
    RV_OP_READ,
    RV_OP_WRITE,        /* the same */
    RV_OP_REQUEST,      /* addr = struct rv_req: whatever it says (io/req.h) */
    RV_OP_CODES
};

enum rv_op_flag {
    RV_OPF_BUFFER = 1, /* a buffer was picked: its id is in the upper 16 bits */
    RV_OPF_MORE = 2,   /* this was not the last completion */
};
#define RV_OPF_BUFFER_SHIFT 16

/* See the table in op.c. */
enum rv_op_state {
    RV_OPS_FREE,
    RV_OPS_IDLE,
    RV_OPS_QUEUED,
    RV_OPS_CANCELLING,
    RV_OPS_NOTIFYING,
    RV_OPS_DONE
};

struct rv_op {
    /* The request and its result: all that a message on its way out touches. */
    void *addr;                 /* RECV_PICK, when it has completed: the lease */
    uint64_t off;
    uint64_t token;             /* TASK, NUDGE: the wait that the last completion fires */
    RV_ATOMIC(struct rv_io_worker *) iw; /* whose it is: only there it is queued and cancelled */
    uint64_t id;
    RV_ATOMIC(uint32_t) gen;    /* the id's generation, for those who must not read the id */
    int32_t fd;
    uint32_t len;
    uint32_t msg_flags;         /* MSG_* of sockets, RWF_* of the others */
    int32_t res;
    uint8_t code, kind;
    RV_ATOMIC(uint8_t) state;   /* enum rv_op_state */
    uint8_t retries;            /* how often it was queued again after EAGAIN */

    /* Where it is listed, and how others reach it. */
    struct rv_op *next, *prev;  /* in its fd's list; STREAM: in its worker's list of starved ones */
    struct rv_op *driver_next;  /* the driver's */
    void *ctx;                  /* ACCEPTOR: whose; SEND_ZC: the lease */
    struct rv_msg msg;          /* carries requests to its worker */
    RV_ATOMIC(uint32_t) cancel; /* generation to cancel; not 0: msg is on its way, see op.c */
    uint32_t fd_gen;            /* generation of the fd's slot when it was entered */
    uint8_t stream_state;       /* io/stream.c */
    uint8_t stream_wants;       /* under the slot's lock; not 0: msg is on its way */
    uint8_t driver_bits;        /* the driver's, from one use of the op to the next */
    RV_ATOMIC(uint8_t) halves;  /* SEND_ZC: how many of two are through with it */
    uint8_t spare[4];
};
_Static_assert(sizeof(struct rv_op) == 128, "an op is two cache lines");

/* Messages of the io layer. */
enum { RV_IO_MSG_CANCEL = 16, RV_IO_MSG_STREAM, RV_IO_MSG_LEASE };

/* An IDLE op, whose request is all zero; NULL: none is left. The calling thread is the worker's. */
struct rv_op *rv_op_take(struct rv_io_worker *iw, enum rv_op_kind kind, enum rv_op_code code,
                         int fd);

/* Its id: what to give to rv_wait_arm() and to the kernel. */
static inline uint64_t rv_op_id(const struct rv_io *io, const struct rv_op *op)
{
    (void)io;
    return op->id;
}

static inline enum rv_op_kind rv_op_kind(uint64_t id)
{
    return (enum rv_op_kind)(id & 15);
}

/* The op that the id names, which may have moved on to another generation. */
struct rv_op *rv_op_of(struct rv_io *io, uint64_t id);

/* Hands it to the engine of the worker iw, which is the op's and the caller's. IDLE or DONE
 * before. */
void rv_op_queue(struct rv_io_worker *iw, struct rv_op *op);

/* Performs a TASK op for the running task: enters the fd, waits for the last completion, leaves,
 * releases the op. The result; -EBADF, -ETIMEDOUT, -ECANCELED. The worker may have changed.
 * ret_lease: the buffer that was picked, if the result is > 0; NULL for requests that pick none. */
int rv_op_run(struct rv_io_worker *iw, struct rv_op *op, int64_t deadline,
              struct rv_lease **ret_lease);

/* The second half of it, for who has entered and armed by himself: what the result means. */
int rv_op_result(struct rv_sched *s, const struct rv_op *op, bool closed);

/* Keeps a number what it is, for a call that uses it between its requests or beside their own fd:
 * an op that is never queued stands in the slot. A close has nothing to cancel there but the op
 * that the pin stands for then, and leaves the number to whoever is in the slot last. 0, and
 * *ret_pin is NULL for an fd beyond the table; -EBADF, -ENOMEM. unpin: NULL is fine. */
int rv_op_pin(struct rv_io_worker *iw, int fd, struct rv_op **ret_pin);
void rv_op_unpin(struct rv_op *pin);

/* From now on a close of the pin's fd cancels this op too, which is about to be queued by the
 * running task; it may be over by then. False: the close has come already. pin NULL: true. */
bool rv_op_pin_for(struct rv_op *pin, const struct rv_op *op);

/* IDLE or DONE: nobody will ever complete it. The caller's worker need not be the op's. */
void rv_op_release(struct rv_io_worker *iw, struct rv_op *op);

/* For the engine: the request with this id has completed. Aborts if there is no such request. */
void rv_op_complete(struct rv_io_worker *iw, uint64_t id, int32_t res, uint32_t cflags);

/* struct rv_engine's cancel, for all engines: any thread, any id, however stale. */
void rv_op_cancel(struct rv_sched *s, struct rv_worker *self, uint64_t id);

/* The same on the op's own worker, for an op that is certainly the caller's. */
void rv_op_cancel_here(struct rv_io_worker *iw, struct rv_op *op);

/* Asks for the memory that completing these n ids will touch, before the first is completed: after
 * a round over many connections little of it is in a near cache. Each id lies `stride` bytes behind
 * the one before. */
void rv_op_prefetch(struct rv_io_worker *iw, const uint64_t *ids, size_t stride, unsigned n);

/* The cancellation asked for from elsewhere has arrived. */
void rv_op_message(struct rv_io_worker *iw, struct rv_op *op);

#endif
