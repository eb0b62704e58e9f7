/* SPDX-License-Identifier: MIT */
/*
 * io.c -- the io state of a runtime: made before its workers run, taken down after.
 *
 * Threads: create, destroy - one, while no worker runs; leave, left - the worker; message,
 * stand_in - the worker, or the holder of its loan.
 */
#include "io/io.h"

#include <errno.h>
#include <fcntl.h>
#include <reeve/net.h>
#include <stddef.h>
#include <string.h>

#include "io/fdtab.h"
#include "io/resolve.h"
#include "io/stream.h"
#include "mem/alloc.h"
#include "mem/die.h"

#define BUF_BYTES 16384u
#define BUF_BYTES_MIN 256u
#define BUF_BYTES_MAX (UINT32_C(1) << 30)
#define BUFS 1024u
#define BUFS_MAX 32768u             /* what a ring of buffers holds */
#define STREAM_BUFS_MAX 8u          /* unread, of one stream */
#define OPS_MAX (UINT32_C(1) << 28) /* the index in an id has 28 bits */

static RV_ATOMIC(uint32_t) runtimes; /* that have an io state */

static uint32_t round_up_pow2(uint32_t n)
{
    uint32_t p = 1;
    while (p < n)
        p *= 2;
    return p;
}

/* One op a waiting task, one a stream, and what magazines hold back. Untouched ones cost nothing.
 * */
static uint32_t ops_cap(const struct rv_sched *s)
{
    uint64_t cap = (uint64_t)s->tasks_max + RV_FDS_MAX + (uint64_t)s->nworkers * RV_MAG_MAX * 2;
    return cap < OPS_MAX ? (uint32_t)cap : OPS_MAX;
}

static int set_sizes(struct rv_io *io, const struct rv_io_opts *opts)
{
    size_t bytes = opts->buf_bytes ? opts->buf_bytes : BUF_BYTES;
    size_t bufs = opts->bufs ? opts->bufs : BUFS;
    if (bytes > BUF_BYTES_MAX || bufs > BUFS_MAX)
        return -EINVAL;
    if (bytes < BUF_BYTES_MIN)
        bytes = BUF_BYTES_MIN;
    io->buf_bytes = (bytes + RV_CACHE_LINE - 1) & ~(size_t)(RV_CACHE_LINE - 1);
    io->bufs = round_up_pow2((uint32_t)bufs);
    io->zc_bytes_min = opts->zc_bytes ? opts->zc_bytes : SIZE_MAX;
    io->stream_bufs_max = STREAM_BUFS_MAX;
    uint64_t stream_bytes = (uint64_t)io->buf_bytes * STREAM_BUFS_MAX;
    io->stream_bytes_max = stream_bytes < INT32_MAX ? (uint32_t)stream_bytes : INT32_MAX;
    io->borrow.out_max = io->bufs * io->sched->nworkers;
    rv_lock_init(&io->borrow.lock);
    return 0;
}

static int make_worker(struct rv_io *io, struct rv_worker *w)
{
    struct rv_io_worker *iw = &io->workers[w->index];
    iw->w = iw->by = w;
    iw->io = io;
    iw->driver = io->driver;
    int r = rv_group_init(iw, io->buf_bytes, io->bufs);
    if (r < 0)
        return r;
    r = io->driver->start(iw);
    if (r < 0) {
        rv_group_finish(iw);
        return r;
    }
    rv_group_open(iw);
    w->io = iw;
    return 0;
}

static int make_workers(struct rv_io *io)
{
    for (uint32_t i = 0; i < io->sched->nworkers; i++) {
        int r = make_worker(io, io->sched->workers[i]);
        if (r < 0)
            return r;
    }
    return 0;
}

int rv_io_create(struct rv_io **ret_io, struct rv_sched *sched, const struct rv_io_opts *opts)
{
    RV_MUST(sched->nworkers > 0);
    struct rv_io *io = rv_alloc_aligned(sizeof *io, RV_CACHE_LINE);
    if (!io)
        return -ENOMEM;
    memset(io, 0, sizeof *io);
    rv_add_relaxed(&runtimes, 1);
    io->sched = sched;
    io->nowhere = -1;
    io->driver = opts->driver ? opts->driver : &rv_io_driver_uring;
    int r = set_sizes(io, opts);
    if (r >= 0)
        r = io->driver->probe(&io->caps, opts->caps_off);
    if (r >= 0)
        r = rv_fd_table_init();
    if (r >= 0 && io->driver->vacate) /* without it closing is as in other programs: fdtab.c (5) */
        io->nowhere = open("/", O_PATH | O_CLOEXEC);
    if (r >= 0)
        r = rv_slab_init(&io->ops, sizeof(struct rv_op), ops_cap(sched), "io.op");
    if (r >= 0)
        r = rv_resolver_create(&io->resolver, sched);
    size_t bytes = sizeof *io->workers * sched->nworkers;
    if (r >= 0) {
        io->workers = rv_alloc_aligned(bytes, RV_CACHE_LINE);
        r = io->workers ? 0 : -ENOMEM;
    }
    if (r >= 0) {
        memset(io->workers, 0, bytes);
        sched->io = io;
        r = make_workers(io);
    }
    if (r < 0) {
        rv_io_destroy(io);
        return r;
    }
    *ret_io = io;
    return 0;
}

void rv_io_destroy(struct rv_io *io)
{
    if (!io)
        return;
    uint32_t n = io->workers ? io->sched->nworkers : 0;
    if (n)
        rv_fd_forget(io->workers, n);
    for (uint32_t i = 0; i < n; i++) {
        struct rv_io_worker *iw = &io->workers[i];
        if (!iw->w || !iw->w->io)
            continue;
        io->driver->stop(iw);
        rv_group_finish(iw);
        iw->w->io = NULL;
    }
    rv_free(io->workers);
    rv_resolver_destroy(io->resolver);
    rv_slab_finish(&io->ops);
    rv_borrow_finish(&io->borrow);
    rv_arena_finish(&io->arena);
    io->sched->io = NULL;
    if (io->nowhere >= 0)
        io->driver->close(io->nowhere);
    rv_free(io);
    rv_sub_relaxed(&runtimes, 1);
}

bool rv_io_alone(const struct rv_io *io)
{
    return io->sched->nworkers == 1 && rv_load_relaxed(&runtimes) == 1;
}

void rv_io_message(struct rv_worker *w, struct rv_msg *m)
{
    struct rv_io_worker *iw = rv_io_of(w);
    struct rv_op *op = (struct rv_op *)((char *)m - offsetof(struct rv_op, msg));
    switch (m->kind) {
    case RV_IO_MSG_CANCEL:
        rv_op_message(iw, op);
        break;
    case RV_IO_MSG_STREAM:
        rv_stream_message(iw, op);
        break;
    case RV_IO_MSG_LEASE:
        rv_lease_message(iw, m);
        break;
    default:
        rv_die("a message of kind %u is none of the io layer's.", m->kind);
    }
}

void rv_io_stand_in(struct rv_worker *w, struct rv_worker *by)
{
    rv_io_of(w)->by = by;
}

void rv_io_leave(struct rv_io_worker *iw)
{
    iw->leaving = true;
    while (iw->starved_first)
        rv_stream_stop(iw, iw->starved_first);
}

void rv_io_left(struct rv_io_worker *iw)
{
    RV_MUST(iw->inflight == 0);
    rv_mag_flush(&iw->io->ops, &iw->w->local.op_mag);
}

_Noreturn void rv_io_outside(const char *call)
{
    rv_die("%s was called outside a task: only a task can wait.", call);
}

int reeve_close(int fd)
{
    struct rv_worker *w = rv_worker_self();
    if (!w)
        return rv_fd_close(NULL, fd, 0);
    uint32_t was = rv_rt_enter(w);
    int r = rv_fd_close(rv_io_of(w), fd, 0);
    rv_rt_leave(w, was);
    return r;
}

void rv_io_counters_add(struct rv_io_counters *sum, const struct rv_io_counters *n)
{
    RV_ATOMIC(uint64_t) *to = (RV_ATOMIC(uint64_t) *)sum;
    const RV_ATOMIC(uint64_t) *from = (const RV_ATOMIC(uint64_t) *)n;
    for (size_t i = 0; i < sizeof *sum / sizeof *to; i++)
        rv_store_relaxed(&to[i], rv_load_relaxed(&to[i]) + rv_load_relaxed(&from[i]));
}
