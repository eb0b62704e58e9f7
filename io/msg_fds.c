/* SPDX-License-Identifier: MIT */
/*
 * msg_fds.c -- descriptors that travel beside a message, over SCM_RIGHTS.
 *
 * (1) A stream of reeve's that is sent does not receive ahead: the other side would miss what was
 *     received here. It is held from before the message is made until it has gone.
 * (2) What came with a message is either all handed over, or all closed. There is room for as many
 *     as the kernel ever sends, so that what it cuts off (MSG_CTRUNC) it could not open.
 * (3) What came is a plain descriptor: the table forgets what it knew of the number's last owner.
 *
 * Threads: tasks.
 */
#include <errno.h>
#include <reeve/socket.h>
#include <string.h>

#include "io/fdtab.h"
#include "io/io.h"
#include "io/msg.h"
#include "io/stream.h"
#include "sched/wait.h"

#define PIDFD 4 /* SCM_PIDFD, newer than the headers of the oldest system: Linux 6.5 */

/* Room for descriptors, and for the credentials and the pidfd that the socket may have been asked
 * to receive. */
union control {
    char bytes[CMSG_SPACE(sizeof(int) * REEVE_FDS_MAX) + CMSG_SPACE(sizeof(struct ucred)) +
               CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
};

/* ---- sending --------------------------------------------------------------------------------- */

static void let_go(const struct rv_hold *holds, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (holds[i].f)
            rv_stream_let_go(rv_io_self(), &holds[i]);
}

/* The same number stands further in front. */
static bool is_repeated(const int *fds, size_t at)
{
    for (size_t i = 0; i < at; i++)
        if (fds[i] == fds[at])
            return true;
    return false;
}

/* All that are streams of ours: (1). */
static int hold(const int *fds, size_t n, int64_t until, struct rv_hold *ret_holds)
{
    for (size_t i = 0; i < n; i++) {
        ret_holds[i] = (struct rv_hold){ 0 };
        int r = fds[i] < 0 ? -EBADF : 0;
        if (r == 0 && !is_repeated(fds, i))
            r = rv_stream_release(rv_io_self(), fds[i], until, &ret_holds[i]);
        if (r < 0) {
            let_go(ret_holds, i);
            return r;
        }
    }
    return 0;
}

/* Others than Unix sockets would drop the descriptors and say nothing. */
static int may_carry(int fd)
{
    int family = rv_socket_ask(fd, SO_DOMAIN);
    return family < 0 ? family : family == AF_UNIX ? 0 : -EOPNOTSUPP;
}

static ssize_t send_fds(struct rv_io_worker *iw, int fd, const int *fds, size_t n,
                        struct iovec *piece, int64_t until)
{
    union control control;
    struct msghdr msg = {
        .msg_iov = piece,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = CMSG_SPACE(sizeof(int) * n),
    };
    memset(control.bytes, 0, msg.msg_controllen);
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * n);
    memcpy(CMSG_DATA(c), fds, sizeof(int) * n);
    return rv_sendmsg(iw, fd, &msg, 0, until);
}

ssize_t reeve_fd_send(int fd, const int *fds, size_t n, const void *data, size_t len,
                      reeve_time deadline)
{
    struct iovec piece = { (void *)(uintptr_t)data, len };
    struct rv_hold holds[REEVE_FDS_MAX];
    if (n == 0 || n > REEVE_FDS_MAX || len == 0)
        return -EINVAL;
    uint32_t was;
    struct rv_io_worker *iw = rv_io_enter("reeve_fd_send", &was);
    int64_t until = rv_deadline(iw->w->cur, deadline);
    ssize_t sent = may_carry(fd);
    if (sent == 0)
        sent = hold(fds, n, until, holds);
    if (sent == 0) {
        sent = send_fds(rv_io_self(), fd, fds, n, &piece, until);
        let_go(holds, n);
    }
    rv_io_exit(was);
    return sent;
}

/* ---- receiving ------------------------------------------------------------------------------- */

/* A pidfd of the sender, which has no place in what is handed over. */
static void drop_pidfd(struct rv_io_worker *iw, struct cmsghdr *c)
{
    int fd;
    memcpy(&fd, CMSG_DATA(c), sizeof fd);
    if (fd < 0)
        return;
    rv_fd_file_made(iw, fd);
    iw->driver->close(fd);
}

/* The descriptors in a message's control data: how many. */
static size_t found(struct rv_io_worker *iw, struct msghdr *msg, int *ret_fds)
{
    size_t n = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        size_t bytes = c->cmsg_len - CMSG_LEN(0);
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == PIDFD && bytes == sizeof(int))
            drop_pidfd(iw, c);
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS ||
            bytes > sizeof(int) * (REEVE_FDS_MAX - n))
            continue;
        memcpy(ret_fds + n, CMSG_DATA(c), bytes);
        n += bytes / sizeof(int);
    }
    return n;
}

/* Plain descriptors from now on: (3). */
static void made(struct rv_io_worker *iw, const int *fds, size_t n, bool close)
{
    for (size_t i = 0; i < n; i++) {
        rv_fd_file_made(iw, fds[i]);
        if (close)
            iw->driver->close(fds[i]);
    }
}

void rv_msg_drop_fds(struct rv_io_worker *iw, struct msghdr *msg)
{
    int fds[REEVE_FDS_MAX];
    made(iw, fds, found(iw, msg, fds), true);
}

/* Why these cannot be handed over; 0: they can. */
static int refused(const struct msghdr *msg, size_t n, size_t max)
{
    if (n > max || msg->msg_flags & MSG_TRUNC)
        return -EMSGSIZE;
    return msg->msg_flags & MSG_CTRUNC ? -EMFILE : 0;
}

ssize_t reeve_fd_recv(int fd, int *ret_fds, size_t max, size_t *ret_n, void *buf, size_t len,
                      reeve_time deadline)
{
    union control control;
    int fds[REEVE_FDS_MAX];
    struct iovec piece = { buf, len };
    struct msghdr msg = {
        .msg_iov = &piece,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof control.bytes,
    };
    uint32_t was;
    struct rv_io_worker *iw = rv_io_enter("reeve_fd_recv", &was);
    ssize_t got = rv_recvmsg(iw, fd, &msg, 0, rv_deadline(iw->w->cur, deadline));
    iw = rv_io_self();
    if (got >= 0) {
        size_t n = found(iw, &msg, fds);
        int r = refused(&msg, n, max);
        made(iw, fds, n, r < 0);
        if (r < 0) {
            got = r;
        } else {
            if (n > 0)
                memcpy(ret_fds, fds, sizeof(int) * n);
            *ret_n = n;
        }
    }
    rv_io_exit(was);
    return got;
}
