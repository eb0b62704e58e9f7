/* SPDX-License-Identifier: MIT */
/** net.h -- sockets as plain file descriptors.
 *
 * Addresses are strings: "127.0.0.1:80", "[::1]:80", "[fe80::1%eth0]:80", "localhost:80" (that is
 * 127.0.0.1). Every socket made here is TCP, CLOEXEC and NODELAY, listeners are REUSEADDR, and no
 * send raises SIGPIPE.
 *
 * fds stay plain: getsockopt, getpeername, passing to other C code, all work. One rule: reeve reads
 * ahead on a stream socket that it made, from the first reeve_read or reeve_buf_recv on, so from
 * then on read it through reeve only and close it with reeve_close, never with close(2).
 * Descriptors that come from elsewhere (pipes, eventfds, signalfds, terminals, sockets) are read
 * and written as they are, and may be closed either way once nothing waits on them.
 *
 * Errors that every waiting call here has, besides its own: -EBADF: fd is not open, or is being
 * closed; -ECANCELED: reeve_close(fd) came while it waited, or the task is cancelled; -ETIMEDOUT;
 * -ENOMEM. Outside a task a call that waits aborts.
 */
#ifndef REEVE_NET_H
#define REEVE_NET_H

#include <reeve/time.h>
#include <stddef.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Makes a listening socket. Besides numbers and "localhost" the host may be "*": every address of
 * this machine, IPv6 and IPv4. Port 0 lets the kernel choose, and getsockname tells. backlog 0:
 * 4096. It never waits, and may be called on any thread.
 *
 * The fd, or -EINVAL: malformed; -EAFNOSUPPORT: a host name or another kind of address; -ENODEV: no
 * such interface; -EADDRINUSE, -EADDRNOTAVAIL, -EACCES: the kernel's view of it; -EMFILE, -ENFILE,
 * -ENOMEM. */
REEVE_API int reeve_listen(const char *addr, int backlog);

/** Waits for the next connection and returns its fd. What went wrong with a connection before it
 * was accepted is not the listener's failure and is tried again, as accept(2) asks. Several tasks
 * may accept from one listener.
 *
 * Errors of its own: -EMFILE, -ENFILE, -ENOBUFS: no descriptor or memory (wait before trying again;
 * reeve_serve_with does all that); -EINVAL: not a listening socket. */
REEVE_API int reeve_accept(int fd, reeve_time until);

/** Connects to an address and returns the fd. No name server is asked: the host is a number or
 * "localhost".
 *
 * Errors of its own: -EINVAL: malformed, "*" or port 0; -EAFNOSUPPORT, -ENODEV: as above;
 * -ECONNREFUSED, -ENETUNREACH, -EHOSTUNREACH and what else connect(2) reports; -EMFILE, -ENFILE.
 *     int fd = reeve_dial("127.0.0.1:6379", reeve_in(2 * REEVE_SEC)); */
REEVE_API int reeve_dial(const char *addr, reeve_time until);

/** Reads what is there, at least one byte and at most len, waiting until there is something. From a
 * regular file it reads at the file's position.
 *
 * The number of bytes; 0: the end, or len is 0. Errors of its own: -EBUSY: another task is reading
 * this socket; -ECONNRESET and what else read(2) reports; -ESHUTDOWN: the server is draining
 * (serve.h) and nothing is pending. */
REEVE_API ssize_t reeve_read(int fd, void *buf, size_t len, reeve_time until);

/** Writes all of it, waiting as often as needed. Several tasks may write to one socket: the bytes
 * of each call stay together.
 *
 * len, or -EPIPE, -ECONNRESET and what else write(2) reports. After an error an unknown part was
 * written, so a stream is of no further use: close it. */
REEVE_API ssize_t reeve_write(int fd, const void *buf, size_t len, reeve_time until);

/** Closes fd. It never waits: tasks that wait on it get -ECANCELED, calls that come later -EBADF, a
 * TCP connection is shut down at once, and the number is free for reuse when the kernel has ended
 * the last operation on it. What a late write error would have said is lost: fsync first where that
 * matters. Any thread, inside a task or not.
 *
 * 0, or -EBADF: fd is not open, or is being closed already. */
REEVE_API int reeve_close(int fd);

#ifdef __cplusplus
}
#endif
#endif /* REEVE_NET_H */
