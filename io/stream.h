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

struct reeve_buf;
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
    /* A lease with more in it comes with RV_FD_READER set: what is left goes back. 0: no reader,
     * but one who waits for the op to go (rv_stream_hold). */
    size_t room;
    struct rv_lease *lease;  /* handed over */
    int end;                 /* no lease: 1 the stream's end, or -errno */
};

/* What the stream wants of its home worker. */
enum {
    RV_STREAM_ARM = 1,
    RV_STREAM_STOP = 2,
    RV_STREAM_RELIEVE = 4,
    RV_STREAM_NUDGE = 8,
    RV_STREAM_LEAVE = 16, /* who holds it waits for the op to go */
};

/* Reads for the running task, with the slot locked and `word` just seen; both unlock. take hands
 * over the next lease, copy moves bytes out. Bytes, 0 at the end, -errno. The worker may have
 * changed. */
ssize_t rv_stream_take(struct rv_io_worker *iw, struct rv_fd *f, uint64_t word, reeve_time deadline,
                       struct rv_lease **ret_lease);
ssize_t rv_stream_copy(struct rv_io_worker *iw, struct rv_fd *f, uint64_t word, reeve_time deadline,
                       void *buf, size_t len);

/* What is unread now, for who has just taken a lease in this generation of the slot: as many as
 * there are and max allows, without a wait. How many. Locks and unlocks. */
size_t rv_stream_take_more(struct rv_io_worker *iw, struct rv_fd *f, uint32_t gen,
                           struct reeve_buf **ret_bufs, size_t max);

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

/* A buffer has come home to a group that is watched: starved streams go on, if there are enough.
 * Home worker. */
void rv_stream_home(struct rv_io_worker *iw);

/* ---- the way around a stream ------------------------------------------------------------------
 *
 * For who needs the socket itself: to splice from it, poll it, pass it on, hand it to others. He
 * becomes the fd's one reader and ends the receiving ahead; what was received already comes first,
 * as leases, then everything is in the socket. The next read after that receives ahead again.
 *
 *     struct rv_hold hold;
 *     r = rv_stream_hold(iw, fd, until, &hold);            // what is no stream of ours: r 0, too
 *     iw = rv_io_self();
 *     while (r == 0 && (n = rv_stream_unread(&hold, &lease)) > 0)
 *         ... use it, rv_lease_return(iw, lease), or rv_stream_put_back(iw, &hold, lease) ...
 *     if (r == 0 && n == -EAGAIN)
 *         ... the raw fd, by rv_req_run() or rv_op_run(); iw = rv_io_self() after each ...
 *     if (r == 0)
 *         rv_stream_let_go(rv_io_self(), &hold);
 */
struct rv_hold {
    struct rv_fd *f; /* NULL: no stream of ours, so there is nothing to hold */
    uint32_t gen;
};

/* Waits until the kernel receives nothing ahead any more. A deadline already past (REEVE_POLL)
 * waits for that one answer of the stream's home worker all the same. 0: held, until let go:
 * others who read get -EBUSY, and the number stays this socket's even if it is closed; what waits
 * in the ring for the raw fd ends with -ECANCELED then, like every op. -EBUSY: another task reads;
 * -EBADF, -ETIMEDOUT, -ECANCELED: and nothing is held. In a task; the worker may have changed. */
int rv_stream_hold(struct rv_io_worker *iw, int fd, int64_t until, struct rv_hold *ret_hold);

/* The same for who cannot use what was received already: -EBUSY if there is any; and the end of the
 * stream, once it was received, is in the socket still. */
int rv_stream_release(struct rv_io_worker *iw, int fd, int64_t until, struct rv_hold *ret_hold);

/* What was received and not read, one lease at a time: its length, > 0, with *ret_lease OUT and the
 * caller's; -EAGAIN: nothing more, the rest is in the socket; 0: the stream has ended; -ESHUTDOWN:
 * a drain, and nothing is pending; -ECANCELED: closed; -errno: what the stream ended with. */
ssize_t rv_stream_unread(const struct rv_hold *hold, struct rv_lease **ret_lease);

/* A lease, or what is left of it (pub.data, pub.len), back to the front. */
void rv_stream_put_back(struct rv_io_worker *iw, const struct rv_hold *hold, struct rv_lease *l);

/* The deadline of a read by the holder: rv_deadline(), and where `deadline` is 0 also the idle time
 * of a server's connection. */
int64_t rv_stream_until(struct rv_io_worker *iw, const struct rv_hold *hold, reeve_time deadline);

/* Others may read again. The worker is the caller's; once for each hold. */
void rv_stream_let_go(struct rv_io_worker *iw, const struct rv_hold *hold);

/* ---- for fdtab.c ----------------------------------------------------------------------------- */

/* Takes the waiting reader out of the slot, with what it gets; under the lock. The reader, by
 * value: after the unlock its frame may be gone. sched NULL: there was none. */
struct rv_reader rv_stream_detach(struct rv_fd *f, struct rv_lease *lease, int end);

/* Wakes a detached reader. */
void rv_stream_wake(struct rv_io_worker *iw, const struct rv_reader *r);

#endif
