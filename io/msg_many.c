/* SPDX-License-Identifier: MIT */
/*
 * msg_many.c -- many messages in one call of the system.
 *
 * io_uring has no request for that, and needs none: what is there is taken by recvmmsg(2), which
 * does not wait, and when nothing is there the ring waits for one message. So with sending.
 *
 * (1) What one call moves counts as that many picks of the pass (msg.c), so that a socket that is
 *     never empty does not keep the worker for longer than a pass.
 *
 * Threads: tasks.
 */
#include <errno.h>
#include <reeve/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "io/fdtab.h"
#include "io/io.h"
#include "io/msg.h"
#include "sched/wait.h"

#define MANY_MAX 1024u /* UIO_MAXIOV: of more the kernel takes so many */

struct batch {
    struct mmsghdr *msgs;
    unsigned n;
    int flags;
};

/* These two are never inlined: errno's address must not be kept across a switch of stacks. */
__attribute__((noinline)) static int sys_recvmmsg(int fd, void *arg)
{
    struct batch *b = arg;
    int before = errno;
    long n = syscall(SYS_recvmmsg, fd, b->msgs, b->n, b->flags | MSG_DONTWAIT, NULL);
    if (n < 0)
        n = -errno;
    errno = before;
    return (int)n;
}

__attribute__((noinline)) static int sys_sendmmsg(int fd, void *arg)
{
    struct batch *b = arg;
    int before = errno;
    long n = syscall(SYS_sendmmsg, fd, b->msgs, b->n, b->flags | MSG_DONTWAIT);
    if (n < 0)
        n = -errno;
    errno = before;
    return (int)n;
}

/* As many as go at once; else the first, waiting for it. How many. */
static int some(struct rv_io_worker *iw, int fd, struct batch *b, bool send, int64_t until)
{
    bool now = b->flags & MSG_DONTWAIT && rv_socket_real(iw->driver), tried = false;
    if (now || rv_msg_worth_trying(&iw)) {
        int n = rv_socket_call(fd, send ? sys_sendmmsg : sys_recvmmsg, b);
        if (n > 1)
            iw->w->budget -= n - 1; /* (1) */
        tried = n == -EAGAIN;
        if (now || (n != -EAGAIN && n != -EINTR))
            return n;
    }
    int len = rv_msg_request(iw, fd, &b->msgs->msg_hdr, b->flags, send, tried, until);
    if (len < 0)
        return len;
    b->msgs->msg_len = (unsigned)len;
    return 1;
}

/* 0: this call may be made. */
static int may_call(struct rv_io_worker *iw, int fd, unsigned n)
{
    int r = rv_wait_check(iw->io->sched, iw->w->cur);
    if (r < 0)
        return r;
    int kind = n == 0 ? -EINVAL : fd < 0 ? -EBADF : rv_socket_kind(iw, fd);
    return kind < 0 ? kind : kind == SOCK_STREAM ? -EOPNOTSUPP : 0;
}

int reeve_recvmmsg(int fd, struct mmsghdr *msgs, unsigned n, int flags, reeve_time deadline)
{
    uint32_t was;
    struct rv_io_worker *iw = rv_io_enter("reeve_recvmmsg", &was);
    struct batch b = { msgs, n < MANY_MAX ? n : MANY_MAX, flags | MSG_CMSG_CLOEXEC };
    int r = may_call(iw, fd, n);
    if (r == 0)
        r = some(iw, fd, &b, false, rv_deadline(iw->w->cur, deadline));
    rv_io_exit(was);
    return r;
}

int reeve_sendmmsg(int fd, struct mmsghdr *msgs, unsigned n, int flags, reeve_time deadline)
{
    uint32_t was;
    struct rv_io_worker *iw = rv_io_enter("reeve_sendmmsg", &was);
    int64_t until = rv_deadline(iw->w->cur, deadline);
    int r = may_call(iw, fd, n);
    unsigned sent = 0;
    while (r >= 0 && sent < n) {
        unsigned left = n - sent;
        struct batch b = { msgs + sent, left < MANY_MAX ? left : MANY_MAX, flags | MSG_NOSIGNAL };
        r = some(rv_io_self(), fd, &b, true, until);
        sent += r > 0 ? (unsigned)r : 0;
    }
    rv_io_exit(was);
    return sent > 0 ? (int)sent : r;
}
