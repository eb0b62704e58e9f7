/* SPDX-License-Identifier: MIT */
/*
 * io.h -- the io layer of one runtime, and the seam behind which an engine hides.
 *
 *     reeve_read, reeve_accept ...          what a task calls: net.c rw.c buf.c
 *     fd table, streams, leases, ops        the same for every engine: fdtab.c stream.c buf.c op.c
 *     ------------------------------------- struct rv_io_driver
 *     io_uring | simulator | ...            moves bytes and says when: engine_uring.c
 *
 * An engine is two tables: struct rv_engine (sched/engine.h) drives a worker, struct rv_io_driver
 * moves ops. Of the first, these entries are common and made here: message = rv_io_message,
 * cancel = rv_op_cancel, stand_in = rv_io_stand_in. Everything that completes goes through
 * rv_op_complete().
 */
#ifndef RV_IO_IO_H
#define RV_IO_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "io/arena.h"
#include "io/buf.h"
#include "io/caps.h"
#include "io/op.h"
#include "mem/rv_atomic.h"
#include "mem/slab.h"
#include "sched/engine.h"
#include "sched/loan.h"
#include "sched/worker.h"

struct rv_io;
struct rv_io_worker;
struct rv_resolver;

/* What an engine provides. `start` and `stop` are called by the thread that creates and destroys
 * the runtime, while no worker runs; queue, cancel and provide by the worker's own thread; the
 * calls of the system by any thread. */
struct rv_io_driver {
    const char *name;

    /* What there is: accept_multishot, recv_optlen, rwf_nosignal matter to the io layer, the rest
     * to the engine itself. 0 or -errno, as rv_caps_probe(). */
    int (*probe)(struct rv_caps *ret_caps, const struct rv_caps_off *off);

    /* Makes and takes down a worker's engine state, iw->engine. The buffers of the worker's group
     * are iw->group.base + id * buf_bytes, id < bufs; all of them are out at first: rv_io_create()
     * provides each. 0 or -errno. */
    int (*start)(struct rv_io_worker *iw);
    void (*stop)(struct rv_io_worker *iw);

    /* The op is the engine's until its last rv_op_complete(), which never happens inside this
     * call. It cannot fail: what does not fit now waits. */
    void (*queue)(struct rv_io_worker *iw, struct rv_op *op);

    /* Asks for the end of a queued op: it is tried once if it has not been yet, then its last
     * completion comes, with -ECANCELED or whatever it came to, and never inside this call. Asking
     * twice does no harm. */
    void (*cancel)(struct rv_io_worker *iw, struct rv_op *op);

    /* Sends at once what fits, without waiting, if that is cheaper now than a request: bytes,
     * -EAGAIN if not or none fit, -errno. NULL: it never is. */
    ssize_t (*send_now)(struct rv_io_worker *iw, int fd, const void *data, size_t len);

    /* The buffer id of the worker's group may be picked again. */
    void (*provide)(struct rv_io_worker *iw, uint32_t id);

    /* The calls of the system that an engine may have to play: >= 0 or -errno. */
    int (*socket)(int family, int type, int protocol);
    int (*bind)(int fd, const struct sockaddr *addr, socklen_t len);
    int (*listen)(int fd, int backlog);
    int (*setsockopt)(int fd, int level, int name, const void *value, socklen_t len);
    int (*shutdown)(int fd, int how);
    int (*close)(int fd);
    /* Makes the open number mean what `nowhere` means, and keeps it taken; what it was goes. NULL:
     * nobody looks on while something is closed. */
    int (*vacate)(int fd, int nowhere);
    int (*socket_type)(int fd);                    /* SOCK_STREAM ...; -ENOTSOCK, -EBADF */
    /* 1: data or the end waits in it; NULL: unknown */
    int (*pending)(int fd);
    int (*cookie)(int fd, uint64_t *ret_cookie);   /* SO_COOKIE: which socket this number is now */

    /* Makes memory known to the worker's ring, under index 0 of fixed reads and writes: as the ring
     * `from` knows it, or, where that is negative, anew. On the worker's own thread. NULL: there is
     * no such thing. 0 or -errno. */
    int (*fix)(struct rv_io_worker *iw, const struct iovec *memory, int from);
};

/* What the kernel is really asked: for everything but the simulator. */
extern const struct rv_io_driver rv_io_driver_uring;
extern const struct rv_engine rv_engine_uring;

/* Plain counters of one worker, relaxed so that reading them is no race. rv_io_counters_add() in
 * io.c lists them too. */
struct rv_io_counters {
    RV_ATOMIC(uint64_t) ops, cancels, retries;
    RV_ATOMIC(uint64_t) enters, sqes, cqes, overflows, backlogged;
    /* streams: armed, parked for want of buffers, ended over their bound */
    RV_ATOMIC(uint64_t) arms, starved, capped;
    /* received into the heap for want of buffers; sent along with another's send */
    RV_ATOMIC(uint64_t) relieved, taken_along;
    /* sent without a copy; of these, copied by the kernel after all; leases that had to be */
    RV_ATOMIC(uint64_t) zc_sent, zc_copied, zc_plain;
    /* waits for one to borrow; come home from elsewhere */
    RV_ATOMIC(uint64_t) borrowed, lease_waits, leases_home;
    RV_ATOMIC(uint64_t) accepted, accept_pauses; /* by acceptors; EMFILE and ENFILE */
};

struct rv_io_worker {
    struct rv_worker *w;            /* whose it is */
    /* Who acts for it: w itself, or the holder of its loan (sched/loan.c). What is woken goes to
     * this one, and magazines and clock are this one's: they belong to a thread. */
    struct rv_worker *by;
    struct rv_io *io;
    const struct rv_io_driver *driver;
    void *engine;                   /* the driver's */
    struct rv_op *starved_first, *starved_last; /* streams that wait for buffers */
    uint32_t inflight;              /* ops queued and not completed */
    /* the worker's thread is about to end: nothing is armed again */
    bool leaving;
    RV_ATOMIC(uint32_t) streams;    /* that live here */
    struct rv_group group;          /* the buffers that its kernel ring picks from */
    struct rv_io_counters n;
};

struct rv_io {
    struct rv_sched *sched;
    const struct rv_io_driver *driver;
    struct rv_slab ops;
    struct rv_caps caps;
    struct rv_borrow borrow;        /* leases that tasks fill themselves */
    struct rv_arena arena;          /* aligned ones, for files */
    struct rv_resolver *resolver;   /* names that tasks dial */
    struct rv_io_worker *workers;   /* sched->nworkers of them */
    size_t buf_bytes;               /* a multiple of 64 */
    size_t zc_bytes_min;            /* leases from so many bytes on are sent without a copy */
    RV_ATOMIC(uint32_t) zc_mute;    /* 1: this kernel does not tell whether it copied after all */
    uint32_t bufs;                  /* per worker, a power of two */
    int nowhere;                    /* opened with O_PATH: every transfer says -EBADF; or -1 */
    /* What a stream may hold unread before it stops; half as much more may come: stream.c (10). */
    uint32_t stream_bytes_max, stream_bufs_max;
};

struct rv_io_opts {
    size_t buf_bytes;               /* 0: 16 KiB */
    size_t bufs;                    /* per worker, 0: 1024; rounded up to a power of two */
    size_t zc_bytes;                /* as zc_bytes_min; 0: none are */
    const struct rv_caps_off *caps_off; /* NULL: nothing is switched off */
    const struct rv_io_driver *driver;  /* NULL: rv_io_driver_uring */
};

/* Makes the io state of every worker of the scheduler and hangs it into sched->io and worker->io.
 * The workers exist (rv_worker_init) and do not run. 0, -EINVAL, -ENOMEM, and what
 * rv_caps_probe() and rv_ring_init() say. */
int rv_io_create(struct rv_io **ret_io, struct rv_sched *sched, const struct rv_io_opts *opts);

/* Takes it down; no worker runs any more. fds that are still open stay open. NULL is fine. */
void rv_io_destroy(struct rv_io *io);

/* struct rv_engine's message, for all engines. */
void rv_io_message(struct rv_worker *w, struct rv_msg *m);

/* struct rv_engine's stand_in, for all engines. */
void rv_io_stand_in(struct rv_worker *w, struct rv_worker *by);

/* The first half of an engine's detach, on the worker's thread: nothing is armed again from now on.
 * The engine then cancels and completes until iw->inflight is 0, and calls the second half. */
void rv_io_leave(struct rv_io_worker *iw);
void rv_io_left(struct rv_io_worker *iw);

/* Adds a worker's counters to *sum, which is its caller's alone. */
void rv_io_counters_add(struct rv_io_counters *sum, const struct rv_io_counters *n);

/* Whether no other thread can begin an operation: this is the one worker of the only runtime. */
bool rv_io_alone(const struct rv_io *io);

static inline struct rv_io_worker *rv_io_of(struct rv_worker *w)
{
    return w->io;
}

/* The worker of the calling task; else the end: `call` cannot be used here. */
_Noreturn void rv_io_outside(const char *call);
static inline struct rv_io_worker *rv_io_in_task(const char *call)
{
    struct rv_worker *w = rv_worker_self();
    if (__builtin_expect(!w || !w->cur, 0))
        rv_io_outside(call);
    return rv_io_of(w);
}

/* The same after a wait, when it may be another one. */
static inline struct rv_io_worker *rv_io_self(void)
{
    return rv_io_of(rv_worker_self());
}

/* The frame of every call of a task that comes to this layer: from enter to exit the worker's state
 * is not lent to anybody. *ret_was is for exit, which may be on another worker. */
static inline struct rv_io_worker *rv_io_enter(const char *call, uint32_t *ret_was)
{
    struct rv_io_worker *iw = rv_io_in_task(call);
    *ret_was = rv_rt_enter(iw->w);
    return iw;
}
static inline void rv_io_exit(uint32_t was)
{
    rv_rt_leave(rv_worker_self(), was);
}

#endif
