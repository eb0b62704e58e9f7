/* SPDX-License-Identifier: MIT */
/*
 * net.h -- the accepting half of a server.
 *
 * One task starts an acceptor, takes connections from it and stops it; the memory is the caller's.
 *
 *     rv_acceptor_start(&a, listener);
 *     while ((fd = rv_acceptor_take(&a, room, deadline)) >= 0) ...
 *     rv_acceptor_stop(&a);
 */
#ifndef RV_IO_NET_H
#define RV_IO_NET_H

#include <reeve/time.h>
#include <stdbool.h>
#include <stdint.h>

#include "mem/lock.h"

struct rv_io_worker;
struct rv_op;

struct rv_acceptor {
    int fd;
    /* guards all that follows: the op completes on another worker, perhaps */
    struct rv_lock lock;
    uint64_t op;              /* the id of the accept in flight; 0: none */
    uint64_t token;           /* the task waits; 0: it does not */
    int64_t resume_at;        /* no accept before that time: descriptors ran out; 0: any time */
    int32_t error;            /* what ends it */
    /* connections accepted and not taken, in a list through their slots */
    uint32_t room;            /* for more of them in the taker's view, at the last take */
    uint32_t waiting;
    int first, last;
};

void rv_acceptor_start(struct rv_acceptor *a, int listener);

/* The next connection, with room for so many more in the caller's view, itself included (>= 1):
 * with little room they are accepted one by one, so that the rest stays in the listener's backlog.
 * When descriptors run out it pauses for 100 ms and goes on. The fd; -ETIMEDOUT, -ECANCELED; what
 * ended the listener. */
int rv_acceptor_take(struct rv_acceptor *a, uint32_t room, reeve_time deadline);

/* Ends the accept in flight, waits for it (cancelled or not), and closes the connections that
 * nobody took. */
void rv_acceptor_stop(struct rv_acceptor *a);

/* Completions of an ACCEPTOR op. */
void rv_acceptor_complete(struct rv_io_worker *iw, struct rv_op *op, int32_t res, uint32_t cflags);

#endif
