/* SPDX-License-Identifier: MIT */
/*
 * wait_fd.c -- waiting until a descriptor is ready, for code that reads and writes by itself.
 *
 * One poll request of the ring, which completes once: nothing stays behind in the kernel, whatever
 * the library does with its descriptor between two waits. It is an op like any other, so it ends by
 * deadline, cancellation and close.
 *
 * (1) A stream that reeve receives ahead of its readers says nothing by its descriptor: what came
 *     is in leases already. Waiting for it to be readable is refused; whether it can be written is
 *     answered as for every other socket.
 *
 * Threads: tasks.
 */
#include <errno.h>
#include <poll.h>
#include <reeve/fd.h>

#include "io/fdtab.h"
#include "io/io.h"
#include "io/req.h"
#include "io/uring_compat.h"

/* POLLERR, POLLHUP and POLLNVAL are told without being asked for, and asking does no harm. */
#define TOLD (POLLERR | POLLHUP | POLLNVAL)
#define READABLE (POLLIN | POLLPRI | POLLRDNORM | POLLRDBAND | POLLRDHUP)
#define WRITABLE (POLLOUT | POLLWRNORM | POLLWRBAND)

/* Whether reeve has begun to receive ahead from it: (1). */
static bool received_ahead(int fd)
{
    struct rv_fd *f = rv_fd_slot(fd);
    if (!f)
        return false;
    uint64_t word = rv_fd_lock(f);
    bool ahead = word & RV_FD_STREAM && (f->stream || f->first || word & RV_FD_ENDED);
    rv_fd_unlock(f, word);
    return ahead;
}

static int wait_fd(struct rv_io_worker *iw, int fd, short events, reeve_time until)
{
    if (fd < 0)
        return -EBADF;
    if (events & ~(READABLE | WRITABLE | TOLD))
        return -EINVAL;
    if (events & READABLE && received_ahead(fd))
        return -EBUSY;
    struct rv_req poll = {
        .opcode = IORING_OP_POLL_ADD,
        .fd = fd,
        .op_flags = (uint16_t)(events & ~TOLD),
    };
    return rv_req_run(iw, &poll, until);
}

int reeve_wait_fd(int fd, short events, reeve_time until)
{
    uint32_t was;
    struct rv_io_worker *iw = rv_io_enter("reeve_wait_fd", &was);
    int r = wait_fd(iw, fd, events, until);
    rv_io_exit(was);
    return r;
}
