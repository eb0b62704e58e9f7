/* SPDX-License-Identifier: MIT */
/*
 * msg.c -- sending and receiving messages.
 *
 * Whatever is asked for, it is one msghdr and one of two system calls. While this worker has
 * nothing else to do, the call itself is made first, without waiting: what can be done at once
 * costs no entry into the ring, and a server that has fallen behind empties its socket as fast as a
 * loop around recvmsg(2) would. When it would have to wait, the request goes to the ring, which
 * polls first, since nothing was there a moment ago.
 *
 *     worth it?  -> recvmsg(2), MSG_DONTWAIT -> done
 *         no  \                      -EAGAIN \
 *              `-> the ring                  `-> the ring, POLL_FIRST
 *
 * (1) A try counts as a pick of the pass. Who never has to wait meets the end of the pass, and
 *     lets others run before the next try.
 * (2) While the call is made the fd's slot counts it, so the number cannot be another socket's.
 * (3) A stream has one writer at a time (rw.c), and is received from by itself (stream.c): who
 *     sends to it here takes the turn, and who receives from it holds it meanwhile.
 * (4) msghdr and all it points to are in the frame of the task or of its caller, who is there until
 *     the request has completed.
 *
 * Threads: tasks; rv_socket_call - anyone.
 */
#include "io/msg.h"

#include <errno.h>
#include <limits.h>
#include <reeve/socket.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "io/fdtab.h"
#include "io/io.h"
#include "io/req.h"
#include "io/rw.h"
#include "io/stream.h"
#include "io/uring_compat.h"
#include "sched/dispatch.h"
#include "sched/pick.h"
#include "sched/wait.h"

#define PIECES 64u                   /* of a stream's vector, in one request */
#define BYTES_MAX (UINT32_C(1) << 30) /* of one request: the kernel stops at 2^31 less a page */

/* ---- pieces ---------------------------------------------------------------------------------- */

size_t rv_pieces_next(const struct rv_pieces *p, struct iovec *ret, size_t cap)
{
    size_t n = 0, bytes = 0, skip = p->skip;
    for (size_t i = 0; i < p->count && n < cap && bytes < BYTES_MAX; i++, skip = 0) {
        size_t len = p->at[i].iov_len - skip, room = BYTES_MAX - bytes;
        if (len == 0)
            continue;
        ret[n].iov_base = (char *)p->at[i].iov_base + skip;
        ret[n].iov_len = len < room ? len : room;
        bytes += ret[n++].iov_len;
    }
    return n;
}

void rv_pieces_skip(struct rv_pieces *p, size_t n)
{
    while (p->count > 0 && p->at->iov_len - p->skip <= n) {
        n -= p->at->iov_len - p->skip;
        p->at++;
        p->count--;
        p->skip = 0;
    }
    p->skip += n;
}

ssize_t rv_pieces_sum(const struct iovec *pieces, size_t count)
{
    size_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        if (pieces[i].iov_len > (size_t)SSIZE_MAX - sum)
            return -EINVAL;
        sum += pieces[i].iov_len;
    }
    return (ssize_t)sum;
}

/* ---- at once --------------------------------------------------------------------------------- */

bool rv_socket_real(const struct rv_io_driver *driver)
{
    return driver == &rv_io_driver_uring;
}

int rv_socket_kind(struct rv_io_worker *iw, int fd)
{
    struct rv_fd *f = rv_fd_slot(fd);
    uint64_t word = f ? rv_load_relaxed(&f->word) : 0;
    if (word & RV_FD_STREAM)
        return SOCK_STREAM;
    return word & RV_FD_OURS ? SOCK_DGRAM : iw->driver->socket_type(fd);
}

int rv_socket_call(int fd, int (*call)(int fd, void *arg), void *arg)
{
    struct rv_fd *f = rv_fd_slot(fd);
    if (!f)
        return call(fd, arg);
    uint64_t word = rv_fd_lock(f);
    uint32_t gen = rv_fd_gen(word);
    rv_fd_check(f, word);
    if (word & RV_FD_CLOSING) {
        rv_fd_unlock(f, word);
        return -EBADF;
    }
    rv_fd_unlock(f, word + RV_FD_COUNT_ONE); /* (2) */
    int r = call(fd, arg);
    word = rv_fd_lock(f);
    if (rv_fd_gen(word) != gen) {
        rv_fd_unlock(f, word);
        return r;
    }
    rv_fd_settle(f, word - RV_FD_COUNT_ONE);
    return r < 0 && word & RV_FD_CLOSING ? -ECANCELED : r;
}

/* These are never inlined: errno's address must not be kept across a switch of stacks. And they are
 * not libc's, which makes each a point where a thread can be cancelled. */
__attribute__((noinline)) int rv_socket_ask(int fd, int option)
{
    int before = errno, value = 0;
    socklen_t len = sizeof value;
    if (getsockopt(fd, SOL_SOCKET, option, &value, &len) < 0)
        value = -errno;
    errno = before;
    return value;
}

struct attempt {
    struct msghdr *msg;
    int flags;
    bool simple; /* one piece, no control data, no stream */
};

__attribute__((noinline)) static int sys_sendmsg(int fd, void *arg)
{
    struct attempt *a = arg;
    int before = errno;
    const struct msghdr *m = a->msg;
    int flags = a->flags | MSG_DONTWAIT;
    long n = a->simple ? syscall(SYS_sendto, fd, m->msg_iov->iov_base, m->msg_iov->iov_len, flags,
                                 m->msg_name, (long)m->msg_namelen)
                       : syscall(SYS_sendmsg, fd, m, flags);
    if (n < 0)
        n = -errno;
    errno = before;
    return (int)n;
}

/* A simple one by the cheaper call, which says by the length what a msghdr says by a flag. */
static long recv_simple(int fd, struct msghdr *m, int flags)
{
    size_t room = m->msg_iov->iov_len;
    socklen_t *len = m->msg_name ? &m->msg_namelen : NULL;
    long n = syscall(SYS_recvfrom, fd, m->msg_iov->iov_base, room, flags | MSG_TRUNC, m->msg_name,
                     len);
    if (n < 0)
        return n;
    m->msg_flags = (size_t)n > room ? MSG_TRUNC : 0;
    return (size_t)n > room && !(flags & MSG_TRUNC) ? (long)room : n;
}

__attribute__((noinline)) static int sys_recvmsg(int fd, void *arg)
{
    struct attempt *a = arg;
    int before = errno;
    int flags = a->flags | MSG_DONTWAIT;
    long n = a->simple ? recv_simple(fd, a->msg, flags) : syscall(SYS_recvmsg, fd, a->msg, flags);
    if (n < 0)
        n = -errno;
    errno = before;
    return (int)n;
}

bool rv_msg_worth_trying(struct rv_io_worker **iw)
{
    struct rv_worker *w = (*iw)->w;
    if (!rv_socket_real((*iw)->driver) || rv_any_ready(w))
        return false;
    if (rv_pass_over(w)) { /* (1); a yield is done outside of reeve code */
        rv_rt_leave(w, 0);
        w = rv_yield(w);
        rv_rt_begin(w);
        *iw = rv_io_of(w);
        if (rv_any_ready(w))
            return false;
    }
    w->budget--;
    return true;
}

int rv_msg_request(struct rv_io_worker *iw, int fd, struct msghdr *msg, int flags, bool send,
                   bool tried, int64_t until)
{
    if (tried && until <= iw->w->now)
        return -ETIMEDOUT;
    struct rv_req req = {
        .opcode = send ? IORING_OP_SENDMSG : IORING_OP_RECVMSG,
        .ioprio = tried ? RV_URING_RECVSEND_POLL_FIRST : 0,
        .fd = fd,
        .addr = rv_req_ptr(msg),
        .len = 1,
        .op_flags = (uint32_t)flags,
    };
    return rv_req_run(iw, &req, until);
}

enum what { SEND, RECV, RECV_WHOLE }; /* of the last, only MSG_TRUNC is asked for of its flags */

/* Whether the cheaper calls do. Of a stream recvfrom would throw away what MSG_TRUNC is to count,
 * so the socket must be one of ours that is none. */
static bool is_simple(int fd, const struct msghdr *msg, enum what what)
{
    if (what == RECV || msg->msg_iovlen != 1 || msg->msg_controllen != 0)
        return false;
    struct rv_fd *f = rv_fd_slot(fd);
    uint64_t word = f ? rv_load_relaxed(&f->word) : 0;
    return what == SEND || (word & (RV_FD_OURS | RV_FD_STREAM)) == RV_FD_OURS;
}

/* One sendmsg or recvmsg, waiting for it if need be. */
static int transfer(struct rv_io_worker *iw, int fd, struct msghdr *msg, int flags, enum what what,
                    int64_t until)
{
    bool send = what == SEND;
    bool now = flags & MSG_DONTWAIT && rv_socket_real(iw->driver), tried = false;
    if (now || (!(flags & MSG_WAITALL && !send) && rv_msg_worth_trying(&iw))) {
        struct attempt a = { msg, flags, is_simple(fd, msg, what) };
        int n = rv_socket_call(fd, send ? sys_sendmsg : sys_recvmsg, &a);
        tried = n == -EAGAIN;
        if (now || (n != -EAGAIN && n != -EINTR))
            return n;
    }
    return rv_msg_request(iw, fd, msg, flags, send, tried, until);
}

/* ---- one message, or all of a stream's ------------------------------------------------------- */

/* With the turn: request after request, the control data with the first. */
static ssize_t send_pieces(struct rv_io_worker *iw, int fd, const struct msghdr *msg, int flags,
                           int64_t until)
{
    struct rv_pieces left = { msg->msg_iov, msg->msg_iovlen, 0 };
    struct iovec now[PIECES];
    struct msghdr m = *msg;
    ssize_t sum = rv_pieces_sum(left.at, left.count), sent = 0;
    if (sum < 0)
        return sum;
    m.msg_iov = now;
    do {
        m.msg_iovlen = rv_pieces_next(&left, now, PIECES);
        int n = transfer(iw, fd, &m, flags | MSG_WAITALL, SEND, until);
        if (n == -EAGAIN && flags & MSG_DONTWAIT && sent > 0)
            return sent;
        if (n < 0 || (n == 0 && sum > 0)) /* 0 of something is no progress, and no reason */
            return n < 0 ? n : -EIO;
        sent += n;
        rv_pieces_skip(&left, (size_t)n);
        m.msg_control = NULL;
        m.msg_controllen = 0;
        iw = rv_io_self();
    } while (sent < sum);
    return sent;
}

static ssize_t send_stream(struct rv_io_worker *iw, int fd, const struct msghdr *msg, int flags,
                           int64_t until)
{
    struct rv_writer turn;
    bool now = flags & MSG_DONTWAIT;
    int r = rv_writer_begin(iw, fd, now ? REEVE_POLL : until, &turn);
    if (r < 0)
        return now && r == -ETIMEDOUT ? -EAGAIN : r;
    ssize_t n = send_pieces(rv_io_self(), fd, msg, flags, until);
    bool closed = rv_writer_end(rv_io_self(), &turn);
    return n < 0 && closed ? -ECANCELED : n;
}

ssize_t rv_sendmsg(struct rv_io_worker *iw, int fd, const struct msghdr *msg, int flags,
                   int64_t until)
{
    int r = rv_wait_check(iw->io->sched, iw->w->cur);
    if (r >= 0)
        r = rv_socket_kind(iw, fd);
    if (r < 0)
        return r;
    flags |= MSG_NOSIGNAL;
    if (r == SOCK_STREAM)
        return send_stream(iw, fd, msg, flags, until);
    return transfer(iw, fd, (struct msghdr *)(uintptr_t)msg, flags, SEND, until);
}

static ssize_t receive(struct rv_io_worker *iw, int fd, struct msghdr *msg, int flags,
                       enum what what, int64_t until)
{
    struct rv_hold hold = { 0 };
    struct rv_fd *f = rv_fd_slot(fd);
    int r = rv_wait_check(iw->io->sched, iw->w->cur);
    bool stream = f && rv_load_relaxed(&f->word) & RV_FD_STREAM;
    if (r == 0 && fd < 0)
        r = -EBADF;
    if (r == 0 && stream)
        r = rv_stream_release(iw, fd, until, &hold);
    if (r < 0)
        return r;
    r = transfer(rv_io_self(), fd, msg, flags | MSG_CMSG_CLOEXEC, what, until);
    if (stream)
        rv_stream_let_go(rv_io_self(), &hold);
    return r;
}

ssize_t rv_recvmsg(struct rv_io_worker *iw, int fd, struct msghdr *msg, int flags, int64_t until)
{
    return receive(iw, fd, msg, flags, RECV, until);
}

ssize_t rv_recv_whole(struct rv_io_worker *iw, int fd, struct msghdr *msg,
                      const struct iovec *pieces, size_t count, struct sockaddr_storage *ret_from,
                      socklen_t *ret_from_len, int64_t until)
{
    struct sockaddr_storage from; /* the kernel writes it for a message that had no room, too */
    msg->msg_name = ret_from ? &from : NULL;
    msg->msg_namelen = ret_from ? sizeof from : 0;
    msg->msg_iov = (struct iovec *)(uintptr_t)pieces;
    msg->msg_iovlen = count;
    ssize_t n = receive(iw, fd, msg, 0, RECV_WHOLE, until);
    if (n < 0 || msg->msg_flags & MSG_TRUNC)
        return n < 0 ? n : -EMSGSIZE;
    if (ret_from)
        memcpy(ret_from, &from, msg->msg_namelen);
    if (ret_from_len)
        *ret_from_len = ret_from ? msg->msg_namelen : 0;
    return n;
}

/* ---- what a task calls ----------------------------------------------------------------------- */

ssize_t reeve_sendmsg(int fd, const struct msghdr *msg, int flags, reeve_time deadline)
{
    uint32_t was;
    struct rv_io_worker *iw = rv_io_enter("reeve_sendmsg", &was);
    ssize_t n = rv_sendmsg(iw, fd, msg, flags, rv_deadline(iw->w->cur, deadline));
    rv_io_exit(was);
    return n;
}

ssize_t reeve_recvmsg(int fd, struct msghdr *msg, int flags, reeve_time deadline)
{
    uint32_t was;
    struct rv_io_worker *iw = rv_io_enter("reeve_recvmsg", &was);
    ssize_t n = rv_recvmsg(iw, fd, msg, flags, rv_deadline(iw->w->cur, deadline));
    rv_io_exit(was);
    return n;
}

ssize_t reeve_sendto(int fd, const void *buf, size_t len, const struct sockaddr *to,
                     socklen_t to_len, reeve_time deadline)
{
    struct iovec piece = { (void *)(uintptr_t)buf, len };
    struct msghdr msg = {
        .msg_name = (void *)(uintptr_t)to,
        .msg_namelen = to ? to_len : 0,
        .msg_iov = &piece,
        .msg_iovlen = 1,
    };
    uint32_t was;
    struct rv_io_worker *iw = rv_io_enter("reeve_sendto", &was);
    ssize_t n = rv_sendmsg(iw, fd, &msg, 0, rv_deadline(iw->w->cur, deadline));
    rv_io_exit(was);
    return n;
}

ssize_t reeve_recvfrom(int fd, void *buf, size_t len, struct sockaddr_storage *ret_from,
                       socklen_t *ret_from_len, reeve_time deadline)
{
    uint32_t was;
    struct rv_io_worker *iw = rv_io_enter("reeve_recvfrom", &was);
    struct iovec piece = { buf, len };
    ssize_t n = rv_recv_whole(iw, fd, &(struct msghdr){ 0 }, &piece, 1, ret_from, ret_from_len,
                              rv_deadline(iw->w->cur, deadline));
    rv_io_exit(was);
    return n;
}
