/* SPDX-License-Identifier: MIT */
/*
 * msg_vec.c -- from several places at once, and into them.
 *
 * What is asked of the kernel depends on what the fd is:
 *
 *                       sendv                     recvv
 *     a stream of ours  its writers' turn: rw.c   what is unread is copied: stream.c
 *     other streams     its writers' turn         recvmsg
 *     messages          one sendmsg               one recvmsg, which must have had room
 *     no socket         its writers' turn         readv at the file's position
 *
 * (1) recvv waits for the first byte only. Then it takes what is there, piece after piece, and asks
 *     for nothing that would have to be waited for.
 *
 * Threads: tasks.
 */
#include <errno.h>
#include <limits.h>
#include <reeve/socket.h>

#include "io/fdtab.h"
#include "io/io.h"
#include "io/msg.h"
#include "io/req.h"
#include "io/rw.h"
#include "io/stream.h"
#include "io/uring_compat.h"
#include "sched/wait.h"

static ssize_t send_all(struct rv_io_worker *iw, int fd, const struct iovec *pieces, size_t count,
                        int64_t until)
{
    int r = rv_wait_check(iw->io->sched, iw->w->cur);
    ssize_t sum = rv_pieces_sum(pieces, count);
    int kind = fd < 0 ? -EBADF : rv_socket_kind(iw, fd);
    if (r < 0 || sum < 0 || kind == -EBADF)
        return r < 0 ? r : sum < 0 ? sum : kind;
    if (kind >= 0 && kind != SOCK_STREAM) {
        struct msghdr msg = { .msg_iov = (struct iovec *)(uintptr_t)pieces, .msg_iovlen = count };
        return rv_sendmsg(iw, fd, &msg, 0, until);
    }
    return sum == 0 ? 0 : rv_send_iov(iw, fd, until, pieces, count);
}

ssize_t reeve_sendv(int fd, const struct iovec *pieces, size_t count, reeve_time deadline)
{
    uint32_t was;
    struct rv_io_worker *iw = rv_io_enter("reeve_sendv", &was);
    ssize_t n = send_all(iw, fd, pieces, count, rv_deadline(iw->w->cur, deadline));
    rv_io_exit(was);
    return n;
}

/* ---- receiving ------------------------------------------------------------------------------- */

/* One piece after the other, while something is unread: (1). */
static ssize_t copy_unread(struct rv_io_worker *iw, int fd, const struct iovec *pieces,
                           size_t count, reeve_time deadline)
{
    struct rv_pieces left = { pieces, count, 0 };
    struct rv_fd *f = rv_fd_slot(fd);
    struct iovec next;
    uint32_t gen = 0;
    ssize_t got = 0;
    while (rv_pieces_next(&left, &next, 1) > 0) {
        uint64_t word = rv_fd_lock(f);
        rv_fd_check(f, word);
        bool other = !(word & RV_FD_STREAM) || (got > 0 && rv_fd_gen(word) != gen);
        if (other || (got > 0 && !f->first)) {
            rv_fd_unlock(f, word);
            return got > 0 ? got : -EBADF;
        }
        gen = rv_fd_gen(word);
        ssize_t n = rv_stream_copy(iw, f, word, got > 0 ? REEVE_POLL : deadline, next.iov_base,
                                   next.iov_len);
        if (n <= 0)
            return got > 0 ? got : n;
        got += n;
        rv_pieces_skip(&left, (size_t)n);
        iw = rv_io_self();
    }
    return got;
}

static ssize_t readv_once(struct rv_io_worker *iw, int fd, const struct iovec *pieces, size_t count,
                          int64_t until)
{
    struct rv_req req = {
        .opcode = IORING_OP_READV,
        .fd = fd,
        .off = UINT64_MAX, /* the file's position; what has none does not look */
        .addr = rv_req_ptr(pieces),
        .len = (uint32_t)count,
    };
    return rv_req_run(iw, &req, until);
}

static ssize_t recv_some(struct rv_io_worker *iw, int fd, const struct iovec *pieces, size_t count,
                         reeve_time deadline)
{
    int64_t until = rv_deadline(iw->w->cur, deadline);
    int r = rv_wait_check(iw->io->sched, iw->w->cur);
    ssize_t sum = rv_pieces_sum(pieces, count);
    if (r < 0 || sum < 0)
        return r < 0 ? r : sum;
    struct rv_fd *f = rv_fd_slot(fd);
    if (f && rv_load_relaxed(&f->word) & RV_FD_STREAM)
        return copy_unread(iw, fd, pieces, count, deadline);
    int kind = fd < 0 ? -EBADF : rv_socket_kind(iw, fd);
    if (kind == -EBADF)
        return kind;
    if (kind >= 0 && kind != SOCK_STREAM)
        return rv_recv_whole(iw, fd, &(struct msghdr){ 0 }, pieces, count, NULL, NULL, until);
    if (sum == 0)
        return 0;
    size_t few = count < IOV_MAX ? count : IOV_MAX; /* the others have their turn next time */
    if (kind < 0)
        return readv_once(iw, fd, pieces, few, until);
    struct msghdr msg = { .msg_iov = (struct iovec *)(uintptr_t)pieces, .msg_iovlen = few };
    return rv_recvmsg(iw, fd, &msg, 0, until);
}

ssize_t reeve_recvv(int fd, const struct iovec *pieces, size_t count, reeve_time deadline)
{
    uint32_t was;
    struct rv_io_worker *iw = rv_io_enter("reeve_recvv", &was);
    ssize_t n = recv_some(iw, fd, pieces, count, deadline);
    rv_io_exit(was);
    return n;
}
