/* SPDX-License-Identifier: MIT */
/*
 * msg_sock.c -- sockets without connections: making them, their addresses, their end.
 *
 * A socket made here is entered in the fd table before anybody else learns its number: with the
 * flag of a stream if it is one, so that it is received from ahead, and without for what keeps the
 * borders of messages.
 *
 * Threads: any.
 */
#include <errno.h>
#include <reeve/socket.h>
#include <string.h>

#include "io/addr.h"
#include "io/fdtab.h"
#include "io/io.h"
#include "io/msg.h"

/* The io layer of the calling task, in reeve code until leave(); NULL: a foreign thread. */
static struct rv_io_worker *enter(uint32_t *ret_was)
{
    struct rv_worker *w = rv_worker_self();
    if (!w)
        return NULL;
    *ret_was = rv_rt_enter(w);
    return rv_io_of(w);
}

static void leave(struct rv_io_worker *iw, uint32_t was)
{
    if (iw)
        rv_io_exit(was);
}

static int bind_to(struct rv_io_worker *iw, const char *addr)
{
    struct rv_addr a;
    int r = rv_addr_read(addr, true, &a);
    if (r < 0)
        return r;
    if (a.type != SOCK_DGRAM)
        return -EINVAL;
    const struct rv_io_driver *driver = iw ? iw->driver : &rv_io_driver_uring;
    int fd = rv_addr_bind(driver, &a, 0);
    if (fd < 0)
        return fd;
    r = rv_fd_made(iw, fd, 0, NULL);
    if (r >= 0)
        return fd;
    driver->close(fd);
    return r;
}

int reeve_bind(const char *addr)
{
    uint32_t was = 0;
    struct rv_io_worker *iw = enter(&was);
    int fd = bind_to(iw, addr);
    leave(iw, was);
    return fd;
}

/* ---- pairs ----------------------------------------------------------------------------------- */

static int plain_pair(int type, int *ret_fds)
{
    int before = errno;
    int r = socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ret_fds) < 0 ? -errno : 0;
    errno = before;
    return r;
}

static int pair(struct rv_io_worker *iw, int type, int *ret_fds)
{
    const struct rv_io_driver *driver = iw ? iw->driver : &rv_io_driver_uring;
    unsigned flags = type == SOCK_STREAM ? RV_FD_STREAM : 0;
    int fds[2];
    if (type != SOCK_STREAM && type != SOCK_DGRAM && type != SOCK_SEQPACKET)
        return -EINVAL;
    int r = plain_pair(type, fds);
    if (r < 0)
        return r;
    r = rv_fd_made(iw, fds[0], flags, NULL);
    if (r < 0) {
        driver->close(fds[0]);
        driver->close(fds[1]);
        return r;
    }
    r = rv_fd_made(iw, fds[1], flags, NULL);
    if (r < 0) {
        rv_fd_close(iw, fds[0], 0);
        driver->close(fds[1]);
        return r;
    }
    memcpy(ret_fds, fds, sizeof fds);
    return 0;
}

int reeve_socket_pair(int type, int ret_fds[2])
{
    uint32_t was = 0;
    struct rv_io_worker *iw = enter(&was);
    int r = pair(iw, type, ret_fds);
    leave(iw, was);
    return r;
}

/* ---- the end --------------------------------------------------------------------------------- */

struct end {
    const struct rv_io_driver *driver;
    int how;
};

static int shut_down(int fd, void *arg)
{
    const struct end *e = arg;
    return e->driver->shutdown(fd, e->how);
}

int reeve_socket_shutdown(int fd, int how)
{
    uint32_t was = 0;
    struct rv_io_worker *iw = enter(&was);
    struct end e = { iw ? iw->driver : &rv_io_driver_uring, how };
    int r = rv_fd_table_init();
    if (r == 0)
        r = fd < 0 ? -EBADF : rv_socket_call(fd, shut_down, &e);
    leave(iw, was);
    return r;
}

/* ---- addresses ------------------------------------------------------------------------------- */

int reeve_addr_parse(const char *addr, struct sockaddr_storage *ret, socklen_t *ret_len)
{
    struct rv_addr a;
    int r = rv_addr_read(addr, false, &a);
    if (r < 0)
        return r;
    if (a.len == 0)
        return -EAFNOSUPPORT;
    *ret = a.to;
    *ret_len = a.len;
    return 0;
}

int reeve_addr_text(const struct sockaddr *addr, socklen_t len, char *ret_text, size_t cap)
{
    return rv_addr_text(addr, len, ret_text, cap);
}
