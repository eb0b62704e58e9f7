/* SPDX-License-Identifier: MIT */
/*
 * copy.c -- from one descriptor to another, in the kernel where it can.
 *
 * How depends on what the two are; each row is a step, which moves a piece and is repeated:
 *
 *     file   -> file            copy_file_range, on the offload pool
 *     file   -> socket          sendfile, while the piece is in the page cache; else as below
 *     file   -> pipe            splice by the ring: a thread of the kernel's waits for the disk
 *     pipe   -> file            splice by the ring
 *     pipe   -> pipe, socket    splice, here, which never waits
 *     stream -> pipe            the same; what was received ahead goes first, from its leases
 *     stream -> socket, file    splice into a pipe of our own, and from there as above
 *     foreign Unix socket ->    splice by the ring, from 16 KiB on
 *     pipe
 *     what the kernel refuses,  read and write through a block of memory
 *     and all other kinds
 *
 * (1) No byte is lost: nothing is taken out of `from` for good before it is delivered. A file is
 *     read at an offset, and its position set at the end, past what was delivered. What came from a
 *     stream and was not delivered is put back before the stream, as leases. From a foreign socket
 *     it goes to a pipe in one step, or is looked at (MSG_PEEK), delivered, then discarded: a pipe
 *     of our own in between could not be emptied back into it. From a pipe that cannot be spliced
 *     it is duplicated (tee), delivered, then discarded. Only a device gives what it cannot take
 *     back: then the delivery waits for no deadline.
 * (2) Pieces are bounded, and others run in between: a fast pair of descriptors does not keep its
 *     worker.
 * (3) What runs here must not wait. A pipe is told so by SPLICE_F_NONBLOCK; a socket listens only
 *     to its file's O_NONBLOCK, which is set: for good on ours, which the ring uses in the same way
 *     with it and without, until the end of the call on a foreign one. Whether a MiB is in the
 *     page cache is asked at its last byte, and if that is not, at every 64 KiB; a hole in between
 *     is a wait for the disk in this thread, outside of reeve code, so that others can take care of
 *     its connections (loan.c).
 * (4) sendfile and splice raise SIGPIPE in the calling thread and know no flag against it. It is
 *     blocked around them, and eaten where the thread is a host's. A write to a pipe would raise it
 *     in the thread that submits it, some time later: so memory is written to our own pipe, which
 *     has a reader, and spliced from there.
 * (5) Both numbers stay these files' from the first look at them until the end, also while the call
 *     waits for its turn to write to `to`; it is the one reader of a stream. The close of either
 *     ends what waits in the ring, for whichever of them that is, and the loop looks. Who waits for
 *     his turn hears of the close of `from` when it is his.
 *
 * Why not the ring alone: it hands every splice to threads of the kernel, one for each request that
 * waits, so 10 000 slow receivers would be as many threads. Measured: CPU of the sender in us per
 * MiB, file in the page cache to a loopback TCP socket, median of 8 runs of 512 MiB (most of it is
 * TCP, so the runs of one row differ by a third among themselves):
 *
 *     in pieces of                                            256 KiB   1 MiB
 *     sendfile(2), blocking                                               499
 *     sendfile without waiting, and a poll when full              386     372
 *     the ring's splice into a pipe, splice from there here       423     408
 *     both splices by the ring                                    382     447
 *     read and send through memory, by the ring                   618     498
 *
 * And of all this together, in one call for the file: 0.85 of a loop of sendfile(2); in calls of 64
 * KiB 1.5, since each call looks at both descriptors: some ten calls of the system, 5 us.
 *
 * Threads: tasks.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <reeve/fd.h>
#include <reeve/offload.h>
#include <reeve/time.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "io/buf.h"
#include "io/fdtab.h"
#include "io/io.h"
#include "io/op.h"
#include "io/req.h"
#include "io/rw.h"
#include "io/stream.h"
#include "io/uring_compat.h"
#include "mem/die.h"
#include "sched/loan.h"
#include "sched/wait.h"

#define HERE_MAX ((size_t)256 << 10)  /* bytes that a step here moves: some 80 us of TCP */
#define PIPE_MAX ((size_t)1 << 20)    /* of our own pipe, which the ring fills */
#define CACHED_MAX ((size_t)1 << 20)  /* that is asked for at a time: some 0.7 us each */
#define RANGE_MAX ((size_t)16 << 20)  /* of a copy_file_range, which nothing interrupts */
#define SPLICE_MIN 16384              /* bytes that are worth a thread of the kernel's */
#define PROBE_EVERY ((size_t)64 << 10)
#define AT_POSITION UINT64_MAX

/* -ERESTARTSYS and those after it, of the kernel's linux/errno.h. */
enum { RESTART_LEAST = -512, RESTART_MOST = -516 };

enum kind { A_FILE, A_PIPE, A_SOCKET, A_DEVICE };

struct copy {
    int to, from;
    enum kind to_kind, from_kind;
    int to_flags, from_flags; /* O_* */
    bool plain;             /* through memory: the kernel has refused */
    reeve_time deadline;    /* the caller's */
    int64_t until;
    uint32_t was;           /* of rv_io_enter() */
    size_t left;
    off_t pos;              /* a file's: of the next byte to deliver */
    off_t cached_end;       /* up to there it was in the page cache a moment ago */
    struct rv_writer turn;  /* to `to` */
    struct rv_hold hold;    /* on `from`, where it is a stream of ours */
    struct rv_op *pin[2];   /* on both, so that the close of one ends a wait for the other */
    int pipe[2];            /* our own; -1: not made yet */
    size_t pipe_bytes;      /* what it holds */
    size_t in_pipe;         /* taken out of `from`, not delivered yet */
    struct rv_lease *block; /* NULL: not made yet */
};

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* ---- calls that do not wait ------------------------------------------------------------------ */

enum how { SENDFILE, SPLICE, TEE };

/* Bytes, 0 at the end, -EAGAIN: not now; -errno. errno is as before. Never inlined: errno's address
 * must not be kept across a switch of stacks. */
__attribute__((noinline)) static ssize_t here(enum how how, int to, int from, off_t *pos,
                                              size_t len)
{
    int saved = errno;
    sigset_t broken, was;
    sigemptyset(&broken);
    sigaddset(&broken, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &broken, &was); /* (4) */
    ssize_t n = how == SENDFILE ? sendfile(to, from, pos, len)
                : how == TEE    ? tee(from, to, len, SPLICE_F_NONBLOCK)
                                : splice(from, NULL, to, NULL, len, SPLICE_F_NONBLOCK);
    if (n < 0)
        n = errno == EINTR ? -EAGAIN : -errno;
    if (!sigismember(&was, SIGPIPE)) {
        if (n < (ssize_t)len) /* it may have sent some and then found out */
            sigtimedwait(&broken, NULL, &(struct timespec){ 0 });
        pthread_sigmask(SIG_SETMASK, &was, NULL);
    }
    errno = saved;
    return n;
}

/* 1: it is; 0: the file ends before it; -1: it is not. */
__attribute__((noinline)) static int byte_is_cached(int fd, off_t at)
{
    int saved = errno;
    char byte;
    ssize_t n = preadv2(fd, &(struct iovec){ &byte, 1 }, 1, at, RWF_NOWAIT);
    errno = saved;
    return (int)n;
}

/* How many of the next bytes of a file can be sent without waiting for a disk, as far as one can
 * tell: (3). Where the last one is, most likely those before it are: to ask at more places costs
 * more than the waits that it would spare. */
static size_t cached_bytes(int fd, off_t at, size_t len)
{
    int end = byte_is_cached(fd, at + (off_t)len - 1);
    size_t i = 0;
    if (end > 0)
        return len;
    for (; i < len; i += PROBE_EVERY)
        if (byte_is_cached(fd, at + (off_t)i) < 0)
            return i;
    return end == 0 ? len : i - PROBE_EVERY;
}

__attribute__((noinline)) static void set_flags(int fd, int flags)
{
    int saved = errno;
    fcntl(fd, F_SETFL, flags);
    errno = saved;
}

/* What is in there already is taken out, n bytes of it. */
__attribute__((noinline)) static ssize_t take_out(int fd, bool socket, void *into, size_t n)
{
    int saved = errno;
    ssize_t got;
    do
        got = socket ? recv(fd, into, n, MSG_TRUNC | MSG_DONTWAIT) : read(fd, into, n);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        got = -errno;
    errno = saved;
    return got;
}

/* Into our own pipe, which is empty and holds it. */
__attribute__((noinline)) static void put_in(int fd, const void *data, size_t n)
{
    int saved = errno;
    RV_MUST(write(fd, data, n) == (ssize_t)n);
    errno = saved;
}

/* How many bytes a socket has received; 0 too where that cannot be told. */
__attribute__((noinline)) static int received(int fd)
{
    int saved = errno, n = 0;
    if (ioctl(fd, FIONREAD, &n) < 0)
        n = 0;
    errno = saved;
    return n;
}

__attribute__((noinline)) static short ready_for(int fd, short events)
{
    int saved = errno;
    struct pollfd p = { .fd = fd, .events = events };
    int r = poll(&p, 1, 0);
    errno = saved;
    return r > 0 ? p.revents : 0;
}

/* ---- calls that wait ------------------------------------------------------------------------- */

/* One request of the ring; what it came to. */
static ssize_t run(struct copy *c, const struct rv_op *how, int64_t until)
{
    struct rv_io_worker *iw = rv_io_self();
    int r = rv_wait_check(iw->io->sched, iw->w->cur);
    if (r < 0)
        return r;
    struct rv_op *op = rv_op_take(iw, RV_OPK_TASK, (enum rv_op_code)how->code, how->fd);
    if (!op)
        return -ENOMEM;
    op->addr = how->addr;
    op->len = how->len;
    op->off = how->off;
    op->msg_flags = how->msg_flags;
    if (rv_op_pin_for(c->pin[0], op) && rv_op_pin_for(c->pin[1], op)) /* (5) */
        return rv_op_run(iw, op, until, NULL);
    rv_op_release(iw, op);
    return -ECANCELED;
}

/* The deadline of a read from `from`. */
static int64_t read_until(struct copy *c)
{
    return c->hold.f ? rv_stream_until(rv_io_self(), &c->hold, c->deadline) : c->until;
}

/* -EAGAIN: it is ready, try again; else what ended the wait. */
static int await(struct copy *c, int fd, short events)
{
    struct rv_req poll = { .opcode = IORING_OP_POLL_ADD, .fd = fd, .op_flags = (uint16_t)events };
    struct rv_op op = { .code = RV_OP_REQUEST, .fd = fd, .addr = &poll };
    ssize_t n = run(c, &op, fd == c->from ? read_until(c) : c->until);
    return n < 0 ? (int)n : -EAGAIN;
}

/* The same for both ends: which one it was that was not ready, nobody says. */
static int await_both(struct copy *c)
{
    if (!ready_for(c->from, POLLIN))
        return await(c, c->from, POLLIN);
    return await(c, c->to, POLLOUT);
}

/* By the ring, which leaves it to a thread of the kernel's. pos: in `from`, or AT_POSITION. */
static ssize_t by_ring(struct copy *c, int to, int from, uint64_t pos, size_t len)
{
    struct rv_req splice = {
        .opcode = IORING_OP_SPLICE,
        .fd = to,
        .off = AT_POSITION,
        .fd_in = from,
        .addr = pos,
        .len = (uint32_t)least(len, PIPE_MAX),
        .op_flags = SPLICE_F_NONBLOCK,
    };
    return run(c, &(struct rv_op){ .code = RV_OP_REQUEST, .fd = to, .addr = &splice }, c->until);
}

/* Into memory. A socket that is only looked at keeps it. */
static ssize_t receive(struct copy *c, void *mem, size_t len, uint64_t pos, bool look)
{
    struct rv_op op = { .code = RV_OP_READ, .fd = c->from, .addr = mem, .off = pos };
    op.len = (uint32_t)len;
    if (c->from_kind == A_SOCKET) {
        op.code = RV_OP_RECV;
        op.msg_flags = look ? MSG_PEEK : 0;
    }
    return run(c, &op, read_until(c));
}

static int make_block(struct copy *c)
{
    if (!c->block)
        c->block = rv_lease_extra(rv_io_self(), false);
    return c->block ? 0 : -ENOMEM;
}

static int make_pipe(struct copy *c)
{
    if (c->pipe[0] >= 0)
        return 0;
    int r = reeve_pipe(c->pipe, least(c->left, PIPE_MAX));
    if (r > 0)
        c->pipe_bytes = (size_t)r;
    return r;
}

/* Our pipe, with what is in it: it is still where it came from. */
static void drop_pipe(struct copy *c)
{
    if (c->pipe[0] >= 0) {
        close(c->pipe[0]);
        close(c->pipe[1]);
    }
    c->pipe[0] = c->pipe[1] = -1;
    c->in_pipe = 0;
}

/* Delivers what is in our own pipe. Bytes, less after an error; or -errno. */
static ssize_t drain(struct copy *c)
{
    size_t had = c->in_pipe;
    ssize_t n = 0;
    while (c->in_pipe > 0) {
        size_t some = least(c->in_pipe, HERE_MAX);
        n = c->to_kind == A_FILE ? by_ring(c, c->to, c->pipe[0], AT_POSITION, c->in_pipe)
                                 : here(SPLICE, c->to, c->pipe[0], NULL, some);
        if (n > 0)
            c->in_pipe -= (size_t)n;
        else if (n == -EAGAIN)
            n = await(c, c->to, POLLOUT);
        if (n <= 0 && n != -EAGAIN)
            break;
    }
    if (c->in_pipe < had)
        return (ssize_t)(had - c->in_pipe);
    return n < 0 ? n : -EIO;
}

/* To a pipe, see (4). Bytes, less after an error; or -errno. */
static ssize_t deliver_to_pipe(struct copy *c, const unsigned char *data, size_t len)
{
    size_t at = 0;
    ssize_t n = make_pipe(c);
    if (n < 0)
        return n;
    while (at < len && c->in_pipe == 0) {
        c->in_pipe = least(len - at, c->pipe_bytes);
        put_in(c->pipe[1], data + at, c->in_pipe);
        n = drain(c);
        if (n > 0)
            at += (size_t)n;
    }
    if (c->in_pipe > 0)
        drop_pipe(c);
    return at > 0 ? (ssize_t)at : n;
}

/* Writes them all, and says how many it came to: less after an error, which is told if it is 0. */
static ssize_t deliver(struct copy *c, const unsigned char *data, size_t len)
{
    if (c->to_kind == A_PIPE)
        return deliver_to_pipe(c, data, len);
    struct rv_op op = { .code = RV_OP_WRITE, .fd = c->to, .off = AT_POSITION };
    if (c->to_kind == A_SOCKET) {
        op.code = RV_OP_SEND;
        op.msg_flags = MSG_NOSIGNAL;
    }
    size_t at = 0;
    ssize_t n = 0;
    while (at < len) {
        op.addr = (void *)(uintptr_t)(data + at);
        op.len = (uint32_t)(len - at);
        n = run(c, &op, c->until);
        if (n <= 0)
            break;
        at += (size_t)n;
    }
    if (at > 0)
        return (ssize_t)at;
    return n < 0 ? n : -EIO; /* 0 of something is no progress, and no reason */
}

/* ---- steps through memory -------------------------------------------------------------------- */

static ssize_t file_through_memory(struct copy *c)
{
    unsigned char *mem = c->block->mem;
    size_t len = least(c->left, c->block->pub.cap);
    ssize_t n = receive(c, mem, len, (uint64_t)c->pos, false);
    if (n > 0)
        n = deliver(c, mem, (size_t)n);
    if (n > 0)
        c->pos += n;
    return n;
}

/* Looked at, delivered, discarded: (1). */
static ssize_t socket_through_memory(struct copy *c)
{
    unsigned char *mem = c->block->mem;
    size_t len = least(c->left, c->block->pub.cap);
    ssize_t n = receive(c, mem, len, 0, true);
    if (n > 0)
        n = deliver(c, mem, (size_t)n);
    for (ssize_t at = 0, k; at < n; at += k)
        if ((k = take_out(c->from, true, mem, (size_t)(n - at))) <= 0)
            break;
    return n;
}

/* The same with a second pipe to look into. */
static ssize_t pipe_through_memory(struct copy *c)
{
    unsigned char *mem = c->block->mem;
    int r = make_pipe(c);
    if (r < 0)
        return r;
    ssize_t n = here(TEE, c->pipe[1], c->from, NULL, least(c->left, c->block->pub.cap));
    if (n == -EAGAIN)
        return await(c, c->from, POLLIN);
    if (n > 0)
        n = take_out(c->pipe[0], false, mem, (size_t)n);
    if (n > 0)
        n = deliver(c, mem, (size_t)n);
    for (ssize_t at = 0, k; at < n; at += k)
        if ((k = take_out(c->from, false, mem, (size_t)(n - at))) <= 0)
            break;
    return n;
}

/* What it gave cannot be put back, so it is delivered whatever else ends this call: a deadline, a
 * cancellation, the close of the device. */
static ssize_t device_through_memory(struct copy *c)
{
    unsigned char *mem = c->block->mem;
    size_t len = least(c->left, c->block->pub.cap);
    ssize_t n = receive(c, mem, len, AT_POSITION, false);
    if (n <= 0)
        return n;
    struct rv_task *t = rv_io_self()->w->cur;
    struct rv_op *pin = c->pin[0];
    int64_t until = c->until;
    bool masked = rv_load_relaxed(&t->ctl) & RV_CTL_MASKED;
    c->until = RV_NEVER;
    c->pin[0] = NULL;
    if (!masked)
        rv_wait_mask(t, true);
    n = deliver(c, mem, (size_t)n);
    if (!masked)
        rv_wait_mask(t, false);
    c->until = until;
    c->pin[0] = pin;
    return n;
}

/* A lease that came from the stream: what cannot be delivered, or was not asked for, goes back. */
static ssize_t deliver_lease(struct copy *c, struct rv_lease *l)
{
    ssize_t n = deliver(c, l->pub.data, least(l->pub.len, c->left));
    if (n > 0) {
        l->pub.data += n;
        l->pub.len -= (size_t)n;
    }
    if (l->pub.len > 0)
        rv_stream_put_back(rv_io_self(), &c->hold, l);
    else
        rv_lease_return(rv_io_self(), l);
    return n;
}

static ssize_t stream_through_memory(struct copy *c)
{
    struct rv_lease *l = c->block;
    ssize_t n = receive(c, l->mem, l->pub.cap, 0, false);
    if (n <= 0)
        return n;
    c->block = NULL;
    l->pub.data = l->mem;
    l->pub.len = (size_t)n;
    return deliver_lease(c, l);
}

static ssize_t through_memory(struct copy *c)
{
    int r = make_block(c);
    if (r < 0)
        return r;
    if (c->hold.f)
        return stream_through_memory(c);
    switch (c->from_kind) {
    case A_FILE:
        return file_through_memory(c);
    case A_PIPE:
        return pipe_through_memory(c);
    case A_SOCKET:
        return socket_through_memory(c);
    default:
        return device_through_memory(c);
    }
}

/* ---- steps inside the kernel ----------------------------------------------------------------- */

struct range {
    int to, from;
    off_t pos;
    size_t len;
};

static int copy_range(void *arg)
{
    struct range *q = arg;
    ssize_t n = copy_file_range(q->from, &q->pos, q->to, NULL, q->len, 0);
    return n < 0 ? -errno : (int)n;
}

/* Files without a size of their own (proc) seem empty to the call: a read has the last word. */
static ssize_t file_to_file(struct copy *c)
{
    struct range q = { c->to, c->from, c->pos, least(c->left, RANGE_MAX) };
    int n = reeve_offload(copy_range, &q, c->until);
    if (n == 0 || n == -EAGAIN)
        return -EINVAL;
    if (n > 0)
        c->pos += n;
    return n;
}

static ssize_t file_to_socket(struct copy *c)
{
    off_t pos = c->pos;
    ssize_t n;
    if (pos >= c->cached_end)
        c->cached_end = pos + (off_t)cached_bytes(c->from, pos, least(c->left, CACHED_MAX));
    size_t cached = least((size_t)(c->cached_end - pos), least(c->left, HERE_MAX));
    if (cached > 0) {
        struct rv_worker *w = rv_worker_self();
        rv_rt_leave(w, c->was); /* (3) */
        n = here(SENDFILE, c->to, c->from, &pos, cached);
        rv_rt_enter(w);
        if (n == -EAGAIN) {
            c->cached_end = pos; /* who knows when it goes on */
            return await(c, c->to, POLLOUT);
        }
    } else {
        int r = make_pipe(c);
        if (r < 0)
            return r;
        n = by_ring(c, c->pipe[1], c->from, (uint64_t)pos, c->left);
        if (n > 0) {
            c->in_pipe = (size_t)n;
            n = drain(c);
        }
    }
    if (n > 0)
        c->pos += n;
    return n;
}

static ssize_t file_to_pipe(struct copy *c)
{
    if (!ready_for(c->to, POLLOUT))
        return await(c, c->to, POLLOUT);
    ssize_t n = by_ring(c, c->to, c->from, (uint64_t)c->pos, c->left);
    if (n > 0)
        c->pos += n;
    return n;
}

static ssize_t pipe_to_any(struct copy *c)
{
    if (c->to_kind == A_FILE) {
        if (!ready_for(c->from, POLLIN))
            return await(c, c->from, POLLIN);
        return by_ring(c, c->to, c->from, AT_POSITION, c->left);
    }
    ssize_t n = here(SPLICE, c->to, c->from, NULL, least(c->left, HERE_MAX));
    return n == -EAGAIN ? await_both(c) : n;
}

__attribute__((noinline)) static bool is_unix(int fd)
{
    int saved = errno, domain = 0;
    socklen_t len = sizeof domain;
    bool yes = getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 && domain == AF_UNIX;
    errno = saved;
    return yes;
}

/* By a thread of the kernel's. It must not wait there if somebody else reads the socket empty: it
 * would do so with the pipe locked, and whoever touches the pipe then would stand still with his
 * whole worker. Unix sockets heed SPLICE_F_NONBLOCK; TCP heeds the file's O_NONBLOCK alone, which
 * is not ours to change, since a copy in the other direction may rely on it. Interrupted there it
 * says what only the kernel itself should see. */
static ssize_t foreign_to_pipe(struct copy *c)
{
    bool late = c->until <= rv_worker_now(rv_worker_self()); /* then that thread never begins */
    if (late || received(c->from) < SPLICE_MIN || !is_unix(c->from))
        return through_memory(c);
    if (!ready_for(c->to, POLLOUT))
        return await(c, c->to, POLLOUT);
    ssize_t n = by_ring(c, c->to, c->from, AT_POSITION, c->left);
    return n <= RESTART_LEAST && n >= RESTART_MOST ? -EAGAIN : n;
}

static ssize_t stream_to_any(struct copy *c)
{
    if (c->to_kind == A_PIPE) {
        ssize_t n = here(SPLICE, c->to, c->from, NULL, least(c->left, HERE_MAX));
        return n == -EAGAIN ? await_both(c) : n;
    }
    int r = make_pipe(c);
    if (r < 0)
        return r;
    ssize_t n = here(SPLICE, c->pipe[1], c->from, NULL, least(c->left, HERE_MAX));
    if (n == -EAGAIN)
        return await(c, c->from, POLLIN);
    if (n <= 0)
        return n;
    c->in_pipe = (size_t)n;
    return drain(c);
}

/* One piece. Bytes; 0: the end; -EAGAIN: go on; -errno. */
static ssize_t step(struct copy *c)
{
    if (c->hold.f) {
        struct rv_lease *l;
        ssize_t n = rv_stream_unread(&c->hold, &l);
        if (n > 0)
            return deliver_lease(c, l);
        if (n != -EAGAIN)
            return n;
    }
    if (c->plain || c->to_kind == A_DEVICE)
        return through_memory(c);
    if (c->hold.f)
        return stream_to_any(c);
    if (c->from_kind == A_PIPE)
        return pipe_to_any(c);
    if (c->from_kind == A_SOCKET && c->to_kind == A_PIPE)
        return foreign_to_pipe(c);
    if (c->from_kind != A_FILE)
        return through_memory(c);
    return c->to_kind == A_FILE     ? file_to_file(c)
           : c->to_kind == A_SOCKET ? file_to_socket(c)
                                    : file_to_pipe(c);
}

/* ---- what a step left behind ----------------------------------------------------------------- */

/* Empties our pipe into leases, the last one first in the list. False: no memory. */
static bool pipe_to_leases(struct copy *c, struct rv_lease **ret_list)
{
    while (c->in_pipe > 0) {
        struct rv_lease *l = rv_lease_extra(rv_io_self(), false);
        if (!l)
            return false;
        ssize_t n = take_out(c->pipe[0], false, l->mem, least(c->in_pipe, l->pub.cap));
        RV_MUST(n > 0); /* it is our own, and holds that */
        l->pub.len = (size_t)n;
        rv_lease_link(l, *ret_list);
        *ret_list = l;
        c->in_pipe -= (size_t)n;
    }
    return true;
}

/* What came from a stream and was not delivered is the stream's again. Without the memory for that
 * the stream ends behind what there was memory for, rather than go on with a hole. */
static void give_back(struct copy *c)
{
    struct rv_lease *list = NULL, *next;
    if (!c->hold.f || c->in_pipe == 0)
        return;
    if (!pipe_to_leases(c, &list))
        rv_io_self()->driver->shutdown(c->from, SHUT_RDWR);
    for (; list; list = next) {
        next = rv_lease_next(list);
        rv_stream_put_back(rv_io_self(), &c->hold, list);
    }
}

/* ---- the two ends ---------------------------------------------------------------------------- */

static bool is(int fd, unsigned flag)
{
    struct rv_fd *f = rv_fd_slot(fd);
    return f && rv_load_relaxed(&f->word) & flag;
}

static bool is_closing(const struct copy *c)
{
    return is(c->to, RV_FD_CLOSING) || is(c->from, RV_FD_CLOSING);
}

/* mode: the one of O_RDONLY and O_WRONLY for which it must not have been opened. */
static int kind_of(int fd, int mode, enum kind *ret_kind, int *ret_flags, struct stat *ret_st)
{
    int flags = *ret_flags = fd < 0 ? -1 : fcntl(fd, F_GETFL);
    if (flags >= 0 && is(fd, RV_FD_STREAM)) {
        *ret_kind = A_SOCKET;
        *ret_st = (struct stat){ 0 };
        return 0;
    }
    if (flags < 0 || flags & O_PATH || (flags & O_ACCMODE) == mode || fstat(fd, ret_st) < 0)
        return -EBADF;
    if (S_ISDIR(ret_st->st_mode))
        return -EISDIR;
    if (S_ISSOCK(ret_st->st_mode)) {
        *ret_kind = A_SOCKET;
        return rv_io_self()->driver->socket_type(fd) == SOCK_STREAM ? 0 : -EINVAL;
    }
    bool file = S_ISREG(ret_st->st_mode) || S_ISBLK(ret_st->st_mode);
    *ret_kind = file ? A_FILE : S_ISFIFO(ret_st->st_mode) ? A_PIPE : A_DEVICE;
    return 0;
}

static int look(struct copy *c)
{
    struct stat from, to;
    int r = kind_of(c->from, O_WRONLY, &c->from_kind, &c->from_flags, &from);
    if (r == 0)
        r = kind_of(c->to, O_RDONLY, &c->to_kind, &c->to_flags, &to);
    if (r < 0)
        return r;
    bool same = from.st_dev == to.st_dev && from.st_ino == to.st_ino;
    return same && (c->from_kind == A_FILE || c->from_kind == A_PIPE) ? -EINVAL : 0;
}

__attribute__((noinline)) static int look_at_both(struct copy *c)
{
    int saved = errno, r = look(c);
    errno = saved;
    return r;
}

/* What another copy may have changed while this one waited for its turn: the flags of a foreign
 * socket, which are set for as long as one copies to it (3), and where a file is read from. */
__attribute__((noinline)) static int look_again(struct copy *c)
{
    int saved = errno, r = 0;
    if (c->to_kind == A_SOCKET && (c->to_flags = fcntl(c->to, F_GETFL)) < 0)
        r = -EBADF;
    if (c->from_kind == A_FILE && (c->pos = lseek(c->from, 0, SEEK_CUR)) < 0)
        r = -EBADF;
    errno = saved;
    return r;
}

static int pin(struct copy *c)
{
    int r = rv_op_pin(rv_io_self(), c->from, &c->pin[0]);
    return r < 0 ? r : rv_op_pin(rv_io_self(), c->to, &c->pin[1]);
}

static void unpin(struct copy *c)
{
    rv_op_unpin(c->pin[0]);
    rv_op_unpin(c->pin[1]);
}

/* The step came to nothing; whether another way is left. */
static bool refused(struct copy *c, ssize_t n)
{
    bool other_way = n == -EINVAL || n == -EXDEV || n == -EOPNOTSUPP || n == -ENOSYS ||
                     n == -EPERM || n == -EBADF;
    if (!other_way || c->plain)
        return false;
    give_back(c);
    drop_pipe(c);
    c->plain = true;
    return true;
}

/* Between two steps: others run, and what ends the call is looked at. */
static int between(struct copy *c)
{
    rv_rt_leave(rv_worker_self(), c->was);
    int r = reeve_sleep(0);
    rv_rt_enter(rv_worker_self());
    if (r < 0)
        return r;
    if (is_closing(c))
        return -ECANCELED;
    return c->until <= rv_worker_now(rv_worker_self()) ? -ETIMEDOUT : 0;
}

static ssize_t move_all(struct copy *c)
{
    size_t moved = 0;
    ssize_t n = 0;
    while (c->left > 0) {
        n = step(c);
        if (n > 0) {
            moved += (size_t)n;
            c->left -= (size_t)n;
        } else if (n != -EAGAIN && !refused(c, n)) {
            break;
        }
        if (c->in_pipe > 0 || (c->left > 0 && (n = between(c)) < 0))
            break;
    }
    if (moved > 0)
        return (ssize_t)moved;
    return n <= 0 && is_closing(c) ? -ECANCELED : n; /* the shutdown of a close looks like an end */
}

/* With both ends held. */
static ssize_t copy_held(struct copy *c)
{
    int r = look_again(c);
    if (r < 0)
        return r;
    bool blocking = c->to_kind == A_SOCKET && !(c->to_flags & O_NONBLOCK);
    if (blocking)
        set_flags(c->to, c->to_flags | O_NONBLOCK);
    if (c->hold.f && !(c->from_flags & O_NONBLOCK))
        set_flags(c->from, c->from_flags | O_NONBLOCK);
    off_t began = c->pos;
    ssize_t n = move_all(c);
    give_back(c);
    drop_pipe(c);
    if (c->block)
        rv_lease_return(rv_io_self(), c->block);
    if (c->from_kind == A_FILE && c->pos != began)
        lseek(c->from, c->pos, SEEK_SET); /* it cannot fail: the position was reached by reading */
    if (blocking && !is(c->to, RV_FD_OURS))
        set_flags(c->to, c->to_flags);
    return n;
}

static ssize_t copy_in_turn(struct copy *c)
{
    ssize_t n = rv_writer_begin(rv_io_self(), c->to, c->until, &c->turn);
    if (n < 0)
        return n;
    n = rv_stream_hold(rv_io_self(), c->from, c->until, &c->hold);
    if (n == 0) {
        n = is_closing(c) ? -ECANCELED : copy_held(c);
        rv_stream_let_go(rv_io_self(), &c->hold);
    } else if (is_closing(c)) {
        n = -ECANCELED;
    }
    rv_writer_end(rv_io_self(), &c->turn);
    return n;
}

/* Runs it with both numbers pinned, and looked at. */
static ssize_t pinned(struct copy *c, ssize_t (*run)(struct copy *c))
{
    struct rv_io_worker *iw = rv_io_self();
    ssize_t n = rv_wait_check(iw->io->sched, iw->w->cur);
    if (n < 0)
        return n;
    c->until = rv_deadline(iw->w->cur, c->deadline);
    n = pin(c);
    if (n == 0)
        n = look_at_both(c);
    if (n == 0)
        n = run(c);
    unpin(c);
    return n;
}

ssize_t reeve_copy(int to, int from, size_t len, reeve_time until)
{
    struct copy c = { .to = to, .from = from, .deadline = until, .pipe = { -1, -1 } };
    c.left = len == 0 || len > SSIZE_MAX ? SSIZE_MAX : len;
    rv_io_enter("reeve_copy", &c.was);
    ssize_t n = pinned(&c, copy_in_turn);
    rv_io_exit(c.was);
    return n;
}

/* ---- tee ------------------------------------------------------------------------------------- */

static ssize_t tee_in_turn(struct copy *c)
{
    if (c->from_kind != A_PIPE || c->to_kind != A_PIPE)
        return -EINVAL;
    if (c->left == 0)
        return 0;
    ssize_t n = rv_writer_begin(rv_io_self(), c->to, c->until, &c->turn);
    if (n < 0)
        return n;
    n = is_closing(c) ? -ECANCELED : 0;
    while (n == 0 && (n = here(TEE, c->to, c->from, NULL, c->left)) == -EAGAIN)
        if ((n = await_both(c)) == -EAGAIN)
            n = between(c);
    rv_writer_end(rv_io_self(), &c->turn);
    return n;
}

ssize_t reeve_tee(int to, int from, size_t len, reeve_time until)
{
    struct copy c = { .to = to, .from = from, .deadline = until };
    c.left = least(len, SSIZE_MAX);
    rv_io_enter("reeve_tee", &c.was);
    ssize_t n = pinned(&c, tee_in_turn);
    rv_io_exit(c.was);
    return n;
}
