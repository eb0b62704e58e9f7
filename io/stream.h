/* SPDX-License-Identifier: MIT */
/*
 * stream.h -- the receiving half of a stream socket: data that comes in before anybody asks for it,
 * in leases, on the worker where the first reader was.
 */
#ifndef RV_IO_STREAM_H
#define RV_IO_STREAM_H

#include <reeve/time.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "io/fdtab.h"

struct rv_io_worker;
struct rv_lease;
struct rv_op;
struct rv_sched;
struct rv_task;

/* A task that waits for data, on its stack. Who takes it out of its slot, under the slot's lock,
 * has filled in what became of the wait. */
struct rv_reader {
    struct rv_sched *sched;
    uint64_t token;          /* also in the slot */
    /* a lease with more in it comes with RV_FD_READER set: what is left goes back */
    size_t room;
    struct rv_lease *lease;  /* handed over */
    int end;                 /* no lease: 1 the stream's end, or -errno */
};

/* What the stream wants of its home worker. */
enum { RV_STREAM_ARM = 1, RV_STREAM_STOP = 2, RV_STREAM_RELIEVE = 4, RV_STREAM_NUDGE = 8 };

/* Reads for the running task, with the slot locked and `word` just seen; both unlock. take hands
 * over the next lease, copy moves bytes out. Bytes, 0 at the end, -errno. The worker may have
 * changed. */
ssize_t rv_stream_take(struct rv_io_worker *iw, struct rv_fd *f, uint64_t word, reeve_time deadline,
                       struct rv_lease **ret_lease);
ssize_t rv_stream_copy(struct rv_io_worker *iw, struct rv_fd *f, uint64_t word, reeve_time deadline,
                       void *buf, size_t len);

/* Completions of a STREAM op, on its home worker. */
void rv_stream_complete(struct rv_io_worker *iw, struct rv_op *op, int32_t res, uint32_t cflags);

/* The frequent one, a piece of data with more to come, without a look at the op. False: the stream
 * is not the fd's any more, and nothing was done. */
bool rv_stream_piece(struct rv_io_worker *iw, struct rv_fd *f, struct rv_op *op, int32_t res,
                     uint32_t cflags);

/* Requests from elsewhere have arrived. */
void rv_stream_message(struct rv_io_worker *iw, struct rv_op *op);

/* The stream's fd was closed or its number taken over: ends it, whatever it is doing. Home worker.
 * */
void rv_stream_stop(struct rv_io_worker *iw, struct rv_op *op);

/* Buffers have come home: starved streams go on, if there are enough. Home worker. */
void rv_stream_feed(struct rv_io_worker *iw);

/* Takes the waiting reader out of the slot, with what it gets; under the lock. The reader, by
 * value: after the unlock its frame may be gone. sched NULL: there was none. */
struct rv_reader rv_stream_detach(struct rv_fd *f, struct rv_lease *lease, int end);

/* Wakes a detached reader. */
void rv_stream_wake(struct rv_io_worker *iw, const struct rv_reader *r);

#endif
