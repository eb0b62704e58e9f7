/* SPDX-License-Identifier: MIT */
/*
 * rw.h -- one writer at a time, for each fd.
 */
#ifndef RV_IO_RW_H
#define RV_IO_RW_H

#include <sys/types.h>
#include <sys/uio.h>

#include "io/fdtab.h"

struct rv_io_worker;

/* The turn to write, held for as many requests as its holder likes: what he sends stays together.
 *
 *     struct rv_writer turn;
 *     r = rv_writer_begin(iw, fd, until, &turn);
 *     ... rv_req_run(rv_io_self(), ...) as often as needed ...
 *     closed = rv_writer_end(rv_io_self(), &turn);
 */
struct rv_writer {
    struct rv_fd *f; /* NULL: an fd beyond the table, which has no turns */
    uint32_t gen;
};

/* Waits for it. 0: the number stays this file's until the end, even if it is closed. -EBADF:
 * closed; -ETIMEDOUT, -ECANCELED: and nothing is held. In a task; the worker may have changed. */
int rv_writer_begin(struct rv_io_worker *iw, int fd, int64_t until, struct rv_writer *ret_turn);

/* The next one's turn. Whether a close cut in: then what failed did so for that reason. */
bool rv_writer_end(struct rv_io_worker *iw, const struct rv_writer *turn);

/* Sends all of the pieces to a stream socket, a pipe or a file, as reeve_write does with one: the
 * sum of their lengths, or -errno, after which an unknown part was sent. The array is left as it
 * is; `count` is any number. In a task; the worker may have changed. */
ssize_t rv_send_iov(struct rv_io_worker *iw, int fd, int64_t until, const struct iovec *pieces,
                    size_t count);

/* Ends the wait of everybody who queues to send; under the slot's lock. The new word. */
uint64_t rv_turns_end(struct rv_io_worker *iw, struct rv_fd *f, uint64_t word, int error);

#endif
