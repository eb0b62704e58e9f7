/* SPDX-License-Identifier: MIT */
/*
 * req.h -- a request written out by its caller, for all that the engine need not know about.
 *
 * Sockets and streams have op codes of their own, because an engine treats each of them in its own
 * way. Everything else (files, names, polls, splices) is the same to it: copy the caller's words
 * into the ring, and hand back what came of them. Those words are struct rv_req.
 *
 *     rv_req_run()     the task waits, the ring does it; what the ring does not know goes to the
 *                      offload pool, where rv_req_plain() makes the system call
 *     rv_req_plain()   the same request as a system call: the pool's, and the simulator's
 */
#ifndef RV_IO_REQ_H
#define RV_IO_REQ_H

#include <stdbool.h>
#include <stdint.h>

struct rv_io;
struct rv_io_worker;

/* A submission queue entry in the kernel's own terms (linux/io_uring.h says what each opcode reads
 * where). It and all that it points to stay as they are until the request has completed. */
struct rv_req {
    uint8_t opcode;     /* IORING_OP_*, RV_URING_OP_* */
    uint8_t sqe_flags;  /* IOSQE_* */
    uint16_t ioprio;
    int32_t fd;         /* also the one whose reeve_close ends the request */
    uint64_t off;       /* or the second address */
    uint64_t addr;
    uint32_t len;
    uint32_t op_flags;  /* of reading, syncing, opening, splicing ... */
    uint16_t buf_index; /* of fixed reads and writes */
    bool disk;          /* moves a file's bytes: an engine may be in a hurry to begin it */
    int32_t fd_in;      /* of splices */
    int32_t also;       /* 1 + another fd whose reeve_close ends the request; 0: none */
};

static inline uint64_t rv_req_ptr(const void *p)
{
    return (uint64_t)(uintptr_t)p;
}

/* Whether the ring itself takes this request. */
bool rv_req_known(const struct rv_io *io, unsigned opcode);

/* Whether its answer counts bytes, so that 0 is the end and not success. */
bool rv_req_counts_bytes(const struct rv_req *req);

/* Performs the request for the running task, in reeve code (rv_io_enter). What it came to, or
 * -EBADF, -ETIMEDOUT, -ECANCELED, -ENOMEM; by the pool also the errors of reeve_offload(). A
 * request that has begun and cannot be cancelled is waited for: the call returns late rather than
 * leave memory in use. The worker may have changed. */
int rv_req_run(struct rv_io_worker *iw, const struct rv_req *req, int64_t deadline);

/* The request as a system call of the calling thread, which it may block. Any thread. What it came
 * to; -EINVAL: there is no such call. */
int rv_req_plain(const struct rv_req *req);

#endif
