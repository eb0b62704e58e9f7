/* SPDX-License-Identifier: MIT */
/** net.h -- sockets as plain file descriptors.
 *
 * Addresses are strings: "127.0.0.1:80", "[::1]:80", "[fe80::1%eth0]:80", "localhost:80" (that is
 * 127.0.0.1), "example.org:80" (to dial), "unix:/run/x" and "unix:@x" (Unix sockets: socket.h has
 * more of them). Every socket made here is CLOEXEC, those of TCP are NODELAY, their listeners
 * REUSEADDR, and no send raises SIGPIPE.
 *
 * fds stay plain: getsockopt, getpeername, passing to other C code, all work. One rule: reeve reads
 * ahead on a stream socket that it made, from the first reeve_read or reeve_buf_recv on, so from
 * then on read it through reeve only and close it with reeve_close, never with close(2).
 * Descriptors that come from elsewhere (pipes, eventfds, signalfds, terminals, sockets) are read
 * and written as they are, and may be closed either way once nothing waits on them. reeve_adopt and
 * reeve_fd_release lead from one kind to the other.
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
 * this machine, IPv6 and IPv4. Port 0 lets the kernel choose, and getsockname tells. A Unix
 * socket's file is made, and one that nobody uses any more replaced; it stays when the listener is
 * closed. backlog 0: 4096. It never waits, and may be called on any thread.
 *
 * The fd, or -EINVAL: malformed; -ENAMETOOLONG: a path above 107 bytes; -EAFNOSUPPORT: a host name,
 * or an address of datagrams; -ENODEV: no such interface; -EADDRINUSE, -EADDRNOTAVAIL, -EACCES,
 * -ENOENT: the kernel's view of it; -EMFILE, -ENFILE, -ENOMEM. */
REEVE_API int reeve_listen(const char *addr, int backlog);

/** Waits for the next connection and returns its fd. What went wrong with a connection before it
 * was accepted is not the listener's failure and is tried again, as accept(2) asks. Several tasks
 * may accept from one listener.
 *
 * Errors of its own: -EMFILE, -ENFILE, -ENOBUFS: no descriptor or memory (wait before trying again;
 * reeve_serve_with does all that); -EINVAL: not a listening socket. */
REEVE_API int reeve_accept(int fd, reeve_time until);

/** Connects to an address and returns the fd; `until` bounds all that it takes. A socket for
 * datagrams (socket.h) gets a port of its own, and sends to that address and hears from it alone:
 * of a name, the first address to which this host has a way.
 *
 * A name is looked up on a thread of the offload pool: by getaddrinfo, or by c-ares in a library
 * that was built with it. All tasks that ask for one name share one lookup, each to its own
 * deadline. The answer is remembered for 30 s (c-ares: as long as the name server says, 300 s at
 * most), that there is none for 1 s. A lookup that hangs goes on without those who asked: at most
 * half of the pool's threads look names up, and the runtime's end waits for those that do.
 *
 * A name may have several addresses. IPv6 and IPv4 take turns in being tried (RFC 8305), each in a
 * task of its own below the caller's: the next when one has failed, or beside it when 250 ms have
 * gone by, and the first connection wins. The other sockets are closed when this returns. With
 * REEVE_POLL a name must be known already, and each address is tried once.
 *
 * Errors of its own: of the address, -EINVAL: malformed, "*", port 0 or what cannot be a name;
 * -ENAMETOOLONG: a path above 107 bytes; -ENODEV: no such interface. Of the name, -ENOENT: there is
 * no such name, or it has no address; -EAGAIN: no name server answers, or the pool has no thread
 * and could not make one: perhaps later; -EREMOTEIO: a name server will not answer; -ENOTSUP: the
 * runtime has no offload pool; -ESHUTDOWN: it is being destroyed. Of the connection, -ECONNREFUSED,
 * -ENETUNREACH, -EHOSTUNREACH, -ETIMEDOUT (there is no telling it from until) and what else
 * connect(2) reports, for a path also -ENOENT, -EACCES and -EPROTOTYPE; -EMFILE, -ENFILE, -ENOBUFS.
 * When several addresses have failed: want of memory or descriptors, if that kept one from being
 * tried; otherwise the first error that tells of the other side, which -ENETUNREACH, -EADDRNOTAVAIL
 * and -EAFNOSUPPORT do not.
 *     int fd = reeve_dial("example.org:80", reeve_in(2 * REEVE_SEC)); */
REEVE_API int reeve_dial(const char *addr, reeve_time until);

/** Reads what is there, at least one byte and at most len, waiting until there is something. From a
 * regular file it reads at the file's position.
 *
 * The number of bytes; 0: the end, or len is 0. Errors of its own: -EBUSY: another task is reading
 * this socket; -ECONNRESET and what else read(2) reports; -ESHUTDOWN: the server is draining
 * (serve.h) and nothing is pending. */
REEVE_API ssize_t reeve_read(int fd, void *buf, size_t len, reeve_time until);

/** Writes all of it, waiting as often as needed. Several tasks may write to one socket: the bytes
 * of each call stay together, in the order of the calls, and what had to wait for another's write
 * goes out along with others that did. Who leaves before his bytes have begun to go out has sent
 * nothing. While they go out along with others the result is what became of them: len if all are
 * out, even if the deadline passed meanwhile; -ETIMEDOUT or -ECANCELED only if some are not.
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

/** Takes a connected stream socket that comes from elsewhere (inherited, passed, made by another
 * library) as if reeve had made it: it is read ahead, and the rule above holds for it. It is this
 * number that is reeve's: nothing may be read through a duplicate of it (dup, another process), and
 * the connection lasts until all of them are closed. Options of the socket stay as they are. It
 * never waits. Any thread, inside a task or not.
 *
 * 0, or -EBADF: fd is not open, or is being closed; -ENOTSOCK, -EPROTOTYPE: no stream socket;
 * -EEXIST: it is reeve's already; -EBUSY: a task is using it; -EMFILE: the number is above a
 * million; -ENOMEM. */
REEVE_API int reeve_adopt(int fd);

/** The way back: from now on fd is a plain descriptor, for close(2), exec or another library. It
 * waits until the kernel has ended the reading ahead, which it does at once.
 *
 * 0, also for a descriptor that never was reeve's. -EBUSY: another task is using it, or data was
 * received that nobody has read: reeve_read it with REEVE_POLL, and try again. -EBADF, -ETIMEDOUT,
 * -ECANCELED: nothing has changed.
 *     while ((r = reeve_fd_release(fd, 0)) == -EBUSY)
 *         if ((n = reeve_read(fd, rest, sizeof rest, REEVE_POLL)) > 0)
 *             keep(rest, n); */
REEVE_API int reeve_fd_release(int fd, reeve_time until);

#ifdef __cplusplus
}
#endif
#endif /* REEVE_NET_H */
