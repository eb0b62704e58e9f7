/* SPDX-License-Identifier: MIT */
/*
 * zc.h -- sending a lease without copying it.
 */
#ifndef RV_IO_ZC_H
#define RV_IO_ZC_H

#include <stdint.h>
#include <sys/types.h>

struct rv_io_worker;
struct rv_lease;
struct rv_op;

/* Sends the pub.len bytes at pub.data, all of them, to a stream socket, in one piece among what
 * others send, and takes the lease whatever it returns: it goes home when the kernel has let go of
 * it, which may be after a close of the fd, and which the end of the runtime waits for. Bytes, or
 * -errno as of reeve_write: then an unknown part was sent. A socket or a ring that cannot do it is
 * sent a copy. In a task; the worker may have changed. */
ssize_t rv_zc_send(struct rv_io_worker *iw, int fd, struct rv_lease *l, int64_t until);

/* One of the two who use such an op is through with it: op.c (5). */
void rv_zc_through(struct rv_io_worker *iw, struct rv_op *op);

#endif
