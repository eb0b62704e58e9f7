/* SPDX-License-Identifier: MIT */
/*
 * req.c -- running a request that its caller wrote out.
 *
 * The ring copies it into its queue. Where the kernel's ring does not know the opcode, a thread of
 * the offload pool makes the system call of the same meaning (req_plain.c), and the task waits for
 * that: slower, and not to be cancelled once begun, but the same answer.
 *
 * (1) A request lies in its caller's frame. It is read again each time that the op is queued, and
 *     the caller is there until the last completion.
 * (2) A second descriptor, and the one that a thread of the pool uses, are pinned (op.h): their
 *     numbers do not become other files' under the call.
 * (3) A request that a kernel thread was at, and was interrupted in, may come back with an error
 *     that the kernel keeps to itself otherwise, and that means "call again": opening a named pipe
 *     does. It is made again, unless it was us who interrupted it.
 *
 * Threads: tasks.
 */
#include "io/req.h"

#include <errno.h>
#include <reeve/offload.h>
#include <sys/wait.h>

#include "io/caps.h"
#include "io/io.h"
#include "io/op.h"
#include "io/uring_compat.h"
#include "sched/wait.h"

/* -ERESTARTSYS and those after it, of the kernel's linux/errno.h. */
enum { RESTART_LEAST = -512, RESTART_MOST = -516 };

static int plain(void *arg)
{
    return rv_req_plain(arg);
}

bool rv_req_known(const struct rv_io *io, unsigned opcode)
{
    switch (opcode) { /* these two can be switched off by name */
    case RV_URING_OP_FTRUNCATE:
        return io->caps.ftruncate;
    case RV_URING_OP_WAITID:
        return io->caps.waitid;
    default:
        return rv_caps_op(&io->caps, opcode);
    }
}

bool rv_req_counts_bytes(const struct rv_req *req)
{
    switch (req->opcode) {
    case IORING_OP_READ:
    case IORING_OP_READV:
    case IORING_OP_READ_FIXED:
    case IORING_OP_WRITE:
    case IORING_OP_WRITEV:
    case IORING_OP_WRITE_FIXED:
    case IORING_OP_RECVMSG: /* one sent may have no bytes */
    case IORING_OP_SPLICE:
    case IORING_OP_TEE:
        return true;
    default:
        return false;
    }
}

/* The fd whose close concerns the request; -1: what stands in its place is none. */
static int fd_of(const struct rv_req *req)
{
    bool process = req->opcode == RV_URING_OP_WAITID && req->len != P_PIDFD;
    return process ? -1 : req->fd;
}

static int run_plain(struct rv_io_worker *iw, const struct rv_req *req, int64_t deadline)
{
    struct rv_op *pin;
    int r = rv_op_pin(iw, fd_of(req), &pin);
    if (r < 0)
        return r;
    r = reeve_offload(plain, (void *)(uintptr_t)req, deadline);
    rv_op_unpin(pin);
    return r;
}

/* also: what the second descriptor is pinned by, or NULL. */
static int run_once(struct rv_io_worker *iw, const struct rv_req *req, struct rv_op *also,
                    int64_t deadline)
{
    if (!rv_req_known(iw->io, req->opcode))
        return run_plain(iw, req, deadline);
    enum rv_op_kind kind = req->disk ? RV_OPK_DISK : RV_OPK_TASK;
    struct rv_op *op = rv_op_take(iw, kind, RV_OP_REQUEST, fd_of(req));
    if (!op)
        return -ENOMEM;
    op->addr = (void *)(uintptr_t)req;
    if (rv_op_pin_for(also, op))
        return rv_op_run(iw, op, deadline, NULL);
    rv_op_release(iw, op);
    return -ECANCELED;
}

/* See (3). */
static int run(struct rv_io_worker *iw, const struct rv_req *req, struct rv_op *also,
               int64_t deadline)
{
    int r = run_once(iw, req, also, deadline);
    while (__builtin_expect(r <= RESTART_LEAST && r >= RESTART_MOST, 0)) {
        iw = rv_io_self();
        r = rv_wait_why(iw->io->sched, iw->w->cur);
        if (r == 0)
            r = run_once(iw, req, also, deadline);
        if (r == -EBADF) /* it was not before */
            r = -ECANCELED;
    }
    return r;
}

int rv_req_run(struct rv_io_worker *iw, const struct rv_req *req, int64_t deadline)
{
    int r = rv_wait_check(iw->io->sched, iw->w->cur);
    if (r < 0)
        return r;
    if (!req->also)
        return run(iw, req, NULL, deadline);
    struct rv_op *pin;
    r = rv_op_pin(iw, req->also - 1, &pin);
    if (r < 0)
        return r;
    r = run(iw, req, pin, deadline);
    rv_op_unpin(pin);
    return r;
}
