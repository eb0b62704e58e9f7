/* SPDX-License-Identifier: MIT */
/*
 * req_plain.c -- a request of the ring as the system call that means the same.
 *
 * Each opcode reads the fields of its entry as linux/io_uring.h lays them out; the table is that
 * reading, one line each. It serves rings that do not know an opcode, and the simulator.
 *
 * Threads: any; the calling one may block.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <poll.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io/req.h"
#include "io/uring_compat.h"

static void *ptr(uint64_t word)
{
    return (void *)(uintptr_t)word;
}

/* The call's answer as -errno; errno stays as it was. */
static int said(long r, int saved)
{
    int error = errno;
    errno = saved;
    return r < 0 ? -error : (int)r;
}

static long transfer_at(const struct rv_req *q, bool write, off_t off)
{
    struct iovec one = { ptr(q->addr), q->len };
    bool vector = q->opcode == IORING_OP_READV || q->opcode == IORING_OP_WRITEV;
    const struct iovec *v = vector ? ptr(q->addr) : &one;
    int n = vector ? (int)q->len : 1;
    return write ? pwritev2(q->fd, v, n, off, (int)q->op_flags)
                 : preadv2(q->fd, v, n, off, (int)q->op_flags);
}

/* At an offset, or (-1) at the file's position. The ring does not mind an offset where there are
 * none, in a pipe or a socket. */
static long transfer(const struct rv_req *q, bool write)
{
    long n = transfer_at(q, write, (off_t)q->off);
    return n < 0 && errno == ESPIPE ? transfer_at(q, write, -1) : n;
}

static long poll_once(const struct rv_req *q)
{
    struct pollfd p = { .fd = q->fd, .events = (short)q->op_flags };
    int r = poll(&p, 1, -1);
    if (r > 0 && p.revents & POLLNVAL) {
        errno = EBADF;
        return -1;
    }
    return r > 0 ? p.revents : r;
}

/* Offsets of UINT64_MAX mean that the fd is a pipe, or has a position of its own. */
static long splice_once(const struct rv_req *q)
{
    loff_t in = (loff_t)q->addr, out = (loff_t)q->off;
    return splice(q->fd_in, in == -1 ? NULL : &in, q->fd, out == -1 ? NULL : &out, q->len,
                  q->op_flags & ~RV_URING_SPLICE_F_FD_IN_FIXED);
}

static long names(const struct rv_req *q)
{
    const char *path = ptr(q->addr);
    switch (q->opcode) {
    case IORING_OP_OPENAT:
        return openat(q->fd, path, (int)q->op_flags, (mode_t)q->len);
    case IORING_OP_OPENAT2:
        return syscall(SYS_openat2, q->fd, path, ptr(q->off), (size_t)q->len);
    case IORING_OP_STATX:
        return statx(q->fd, path, (int)q->op_flags, q->len, ptr(q->off));
    case IORING_OP_RENAMEAT:
        return renameat2(q->fd, path, (int)q->len, ptr(q->off), q->op_flags);
    case IORING_OP_LINKAT:
        return linkat(q->fd, path, (int)q->len, ptr(q->off), (int)q->op_flags);
    case IORING_OP_UNLINKAT:
        return unlinkat(q->fd, path, (int)q->op_flags);
    case IORING_OP_SYMLINKAT:
        return symlinkat(path, q->fd, ptr(q->off));
    default:
        return mkdirat(q->fd, path, (mode_t)q->len);
    }
}

static long files(const struct rv_req *q)
{
    switch (q->opcode) {
    case IORING_OP_FSYNC:
        return q->op_flags & IORING_FSYNC_DATASYNC ? fdatasync(q->fd) : fsync(q->fd);
    case IORING_OP_SYNC_FILE_RANGE:
        return sync_file_range(q->fd, (off_t)q->off, q->len, q->op_flags);
    case IORING_OP_FALLOCATE:
        return fallocate(q->fd, (int)q->len, (off_t)q->off, (off_t)q->addr);
    case IORING_OP_FADVISE: /* answers with the error itself */
        return -(long)posix_fadvise(q->fd, (off_t)q->off, q->len, (int)q->op_flags);
    case IORING_OP_MADVISE:
        return madvise(ptr(q->addr), q->len, (int)q->op_flags);
    case RV_URING_OP_FTRUNCATE:
        return ftruncate(q->fd, (off_t)q->off);
    case IORING_OP_SPLICE:
        return splice_once(q);
    default:
        return tee(q->fd_in, q->fd, q->len, q->op_flags);
    }
}

/* Never inlined: errno's address must not be kept across a switch of stacks. */
__attribute__((noinline)) int rv_req_plain(const struct rv_req *q)
{
    int saved = errno;
    switch (q->opcode) {
    case IORING_OP_NOP:
        return 0;
    case IORING_OP_READ:
    case IORING_OP_READV:
    case IORING_OP_READ_FIXED:
        return said(transfer(q, false), saved);
    case IORING_OP_WRITE:
    case IORING_OP_WRITEV:
    case IORING_OP_WRITE_FIXED:
        return said(transfer(q, true), saved);
    case IORING_OP_SENDMSG:
        return said(sendmsg(q->fd, ptr(q->addr), (int)q->op_flags), saved);
    case IORING_OP_RECVMSG:
        return said(recvmsg(q->fd, ptr(q->addr), (int)q->op_flags), saved);
    case IORING_OP_POLL_ADD:
        return said(poll_once(q), saved);
    case RV_URING_OP_WAITID: /* addr2: siginfo; len: the kind of id; file_index: options */
        return said(waitid((idtype_t)q->len, (id_t)q->fd, ptr(q->off), q->fd_in), saved);
    case IORING_OP_FADVISE:
        return (int)files(q);
    case IORING_OP_FSYNC:
    case IORING_OP_SYNC_FILE_RANGE:
    case IORING_OP_FALLOCATE:
    case IORING_OP_MADVISE:
    case RV_URING_OP_FTRUNCATE:
    case IORING_OP_SPLICE:
    case IORING_OP_TEE:
        return said(files(q), saved);
    case IORING_OP_OPENAT:
    case IORING_OP_OPENAT2:
    case IORING_OP_STATX:
    case IORING_OP_RENAMEAT:
    case IORING_OP_LINKAT:
    case IORING_OP_UNLINKAT:
    case IORING_OP_SYMLINKAT:
    case IORING_OP_MKDIRAT:
        return said(names(q), saved);
    default:
        return -EINVAL;
    }
}
