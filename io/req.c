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
 * (2) What the pool does is not counted in the fd's slot: a close does not end it, and the number
 *     may be another file's when it comes to run. So only requests whose fd is no fd at all, or
 *     cannot be closed by others, may be unknown to the ring; see rv_req_run().
 *
 * Threads: tasks.
 */
#include "io/req.h"

#include <errno.h>
#include <reeve/offload.h>

#include "io/caps.h"
#include "io/io.h"
#include "io/op.h"
#include "sched/wait.h"

static int plain(void *arg)
{
    return rv_req_plain(arg);
}

bool rv_req_known(const struct rv_io *io, unsigned opcode)
{
    return rv_caps_op(&io->caps, opcode);
}

int rv_req_run(struct rv_io_worker *iw, const struct rv_req *req, int64_t deadline)
{
    int r = rv_wait_check(iw->io->sched, iw->w->cur);
    if (r < 0)
        return r;
    if (!rv_req_known(iw->io, req->opcode))
        return reeve_offload(plain, (void *)(uintptr_t)req, deadline);
    struct rv_op *op = rv_op_take(iw, RV_OPK_TASK, RV_OP_REQUEST, req->fd);
    if (!op)
        return -ENOMEM;
    op->addr = (void *)(uintptr_t)req;
    return rv_op_run(iw, op, deadline, NULL);
}
