/* SPDX-License-Identifier: MIT */
/** socket.h -- sockets that carry messages, descriptors that travel, vectors.
 *
 * net.h is about connections; this is about the rest: UDP, Unix datagrams and seqpackets. Their
 * addresses are written as those of net.h, with the kind in front:
 *
 *     udp:127.0.0.1:53   udp:[::1]:53   udp:*:53      datagrams over IP
 *     unixgram:/run/x    unixgram:@x    unixgram:@    Unix datagrams: a file; a name that is no
 *                                                     file; any free name
 *     unix:/run/x        unixpacket:/run/x            connections, for reeve_listen and reeve_dial;
 *                                                     unixpacket's keep the borders of messages
 *
 * A path has at most 107 bytes. A socket file that its process left behind is replaced when the
 * next one binds there; one to which any socket is bound, and whatever is no socket, never is. The
 * file stays when the socket is closed: unlink it, or leave it for the next.
 *
 * fds stay plain. What is not here is best asked of the system: getsockname, getpeername, connect
 * on a datagram socket (which never waits), and setsockopt for KEEPALIVE, NODELAY, SNDBUF, RCVBUF,
 * LINGER, REUSEPORT, USER_TIMEOUT, BROADCAST, multicast ... all mean here what they mean there.
 *
 * Errors that every waiting call here has are those of net.h: -EBADF, -ECANCELED, -ETIMEDOUT,
 * -ENOMEM; and -ENOTSOCK. Outside a task a call that waits aborts. A call that has waited in vain
 * has sent nothing, or taken nothing, unless it says so.
 */
#ifndef REEVE_SOCKET_H
#define REEVE_SOCKET_H

#include <reeve/buf.h>
#include <reeve/time.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- making them --------------------------------------------------------------------------- */

/** Makes a datagram socket and binds it. Port 0, or "@" alone, lets the kernel choose, and
 * getsockname tells. It never waits, and may be called on any thread.
 *
 * The fd; -EINVAL: malformed, or an address of connections; -ENAMETOOLONG: the path;
 * -EAFNOSUPPORT: a host name; -ENODEV: no such interface; -EADDRINUSE, -EADDRNOTAVAIL, -EACCES,
 * -ENOENT: the kernel's view of it; -EMFILE, -ENFILE, -ENOMEM.
 *     int fd = reeve_bind("udp:127.0.0.1:0"); */
REEVE_API int reeve_bind(const char *addr);

/** Two Unix sockets connected to each other. type: SOCK_STREAM, SOCK_DGRAM or SOCK_SEQPACKET. It
 * never waits, and may be called on any thread. 0; -EINVAL: another type; -EMFILE, -ENFILE. */
REEVE_API int reeve_socket_pair(int type, int ret_fds[2]);

/** Shuts a connection down, as shutdown(2): how is SHUT_RD, SHUT_WR or SHUT_RDWR. What others are
 * sending at that moment fails with -EPIPE. It never waits, and may be called on any thread. 0;
 * -EBADF, -ENOTSOCK, -ENOTCONN, -EINVAL. */
REEVE_API int reeve_socket_shutdown(int fd, int how);

/** An address of numbers, or a path, for the calls below. It asks nobody. *ret_len is the length
 * that the kernel wants. 0; -EINVAL, -ENAMETOOLONG, -ENODEV; -EAFNOSUPPORT: a host name.
 *     struct sockaddr_storage to;
 *     socklen_t len;
 *     int r = reeve_addr_parse("udp:127.0.0.1:53", &to, &len); */
REEVE_API int reeve_addr_parse(const char *addr, struct sockaddr_storage *ret, socklen_t *ret_len);

/** The same, and a host name is looked up, as reeve_dial (net.h) does: for those who send to many
 * from one socket. family: AF_INET or AF_INET6, as that socket is, or AF_UNSPEC; of a name that has
 * several such addresses it is the first.
 *
 * 0; what reeve_addr_parse says; -EAFNOSUPPORT: it has no address of that family; -ENOENT: there is
 * no such name; -ETIMEDOUT, -ECANCELED, and what else reeve_dial says of a name. A deadline that
 * has passed still gets what is known already.
 *     r = reeve_addr_lookup("udp:time.example.org:123", AF_INET, &to, &len, until); */
REEVE_API int reeve_addr_lookup(const char *addr, int family, struct sockaddr_storage *ret,
                                socklen_t *ret_len, reeve_time until);

/** The words for an address: "127.0.0.1:53", "[::1]:53", "unix:/run/x", "unix:@x", and "unix:" for
 * a socket without a name. Their length, without the 0 at the end; -ENOSPC: cap is too small;
 * -EAFNOSUPPORT: another family; -EINVAL: too short to be one. */
REEVE_API int reeve_addr_text(const struct sockaddr *addr, socklen_t len, char *ret_text,
                              size_t cap);

/* ---- messages ------------------------------------------------------------------------------ */

/** Sends one message. to NULL: to whom the socket is connected.
 *
 * len; -EMSGSIZE: too long for one message; -ECONNREFUSED: an earlier one found nobody there;
 * -EDESTADDRREQ, -EAFNOSUPPORT, -EISCONN and what else sendto(2) reports. Where the receiver, or
 * the way there, has no room it waits.
 *     n = reeve_sendto(fd, answer, len, (struct sockaddr *)&from, from_len, 0); */
REEVE_API ssize_t reeve_sendto(int fd, const void *buf, size_t len, const struct sockaddr *to,
                               socklen_t to_len, reeve_time until);

/** Receives one message, waiting for it. ret_from and ret_from_len: who sent it; both may be NULL.
 *
 * Its length: 0 is a message without bytes (of a seqpacket, the end). -EMSGSIZE: it was longer than
 * len: the first len bytes are in buf, the rest is lost. -ECONNREFUSED, and what else recvfrom(2)
 * reports. */
REEVE_API ssize_t reeve_recvfrom(int fd, void *buf, size_t len, struct sockaddr_storage *ret_from,
                                 socklen_t *ret_from_len, reeve_time until);

/** The general form of sending: sendmsg(2), which waits. flags: MSG_MORE, MSG_OOB, ...; with
 * MSG_DONTWAIT it is -EAGAIN instead of a wait. To a stream socket all of it goes out, in one turn
 * with reeve_write's others. The bytes sent, or -errno; after an error of a stream an unknown part
 * was sent. */
REEVE_API ssize_t reeve_sendmsg(int fd, const struct msghdr *msg, int flags, reeve_time until);

/** The general form of receiving: recvmsg(2), which waits. Descriptors that come are CLOEXEC. What
 * did not fit shows in msg->msg_flags as there: MSG_TRUNC, MSG_CTRUNC. Bytes; 0: no bytes, or the
 * end of a stream; -errno, and *msg is as it was. -EBUSY: a stream of which reeve has received more
 * already (reeve_read receives ahead): read that first. */
REEVE_API ssize_t reeve_recvmsg(int fd, struct msghdr *msg, int flags, reeve_time until);

/* ---- many datagrams at once ---------------------------------------------------------------- */

struct mmsghdr; /* <sys/socket.h> with _GNU_SOURCE */

/** Receives up to n messages (of 1024 at most) in one call, recvmmsg(2): waits for the first and
 * takes along what is there. How many; the length of each in msg_len, and what did not fit in its
 * msg_hdr.msg_flags, MSG_TRUNC. -EINVAL: n is 0; -EOPNOTSUPP: a stream socket; otherwise as
 * reeve_recvmsg. */
REEVE_API int reeve_recvmmsg(int fd, struct mmsghdr *msgs, unsigned n, int flags,
                             reeve_time until);

/** Sends n messages, sendmmsg(2), waiting as often as needed. How many went out, the length of each
 * in msg_len: fewer than n if the next one failed, and only if that was the first, -errno. -EINVAL:
 * n is 0; -EOPNOTSUPP: a stream socket; otherwise as reeve_sendmsg. */
REEVE_API int reeve_sendmmsg(int fd, struct mmsghdr *msgs, unsigned n, int flags,
                             reeve_time until);

/** Sends len bytes as datagrams of `segment` bytes each, the last one perhaps shorter: in as few
 * system calls as the kernel allows (UDP GSO), one by one where it has no such thing. to NULL: to
 * whom the socket is connected.
 *
 * The bytes sent: fewer than len, but whole datagrams, if something went wrong on the way. -EINVAL:
 * segment is 0; -EMSGSIZE: a segment is too long for a datagram; otherwise as reeve_sendto. */
REEVE_API ssize_t reeve_send_segments(int fd, const void *buf, size_t len, size_t segment,
                                      const struct sockaddr *to, socklen_t to_len,
                                      reeve_time until);

/** Receives what one call of the kernel hands over: where UDP_GRO is on (setsockopt(fd,
 * IPPROTO_UDP, UDP_GRO, &one, sizeof one)), datagrams of one sender that came together, one behind
 * the other. *ret_segment: the length of each but the last, which may be shorter; without GRO, or
 * if one came alone, that of the whole. Give it 64 KiB: otherwise as reeve_recvfrom. */
REEVE_API ssize_t reeve_recv_segments(int fd, void *buf, size_t len, size_t *ret_segment,
                                      struct sockaddr_storage *ret_from, socklen_t *ret_from_len,
                                      reeve_time until);

/* ---- descriptors that travel --------------------------------------------------------------- */

#define REEVE_FDS_MAX 253 /* in one message: the kernel's bound */

/** Sends copies of n descriptors over a Unix socket, with len bytes beside them; len is at least 1.
 * They stay open here; close them when the other side is to have them alone. A stream socket of
 * reeve's among them stops receiving ahead first.
 *
 * len; -EINVAL: n or len is 0, or n more than REEVE_FDS_MAX; -EBADF: one is not open; -EBUSY: one
 * is a stream that a task reads, or of which something is received and not read: the other side
 * would never see that; -EOPNOTSUPP: fd is no Unix socket; -ETOOMANYREFS: too many are under way;
 * -EMSGSIZE, -EPIPE, and what else sendmsg(2) reports. */
REEVE_API ssize_t reeve_fd_send(int fd, const int *fds, size_t n, const void *data, size_t len,
                                reeve_time until);

/** Receives a message and up to `max` descriptors with it, CLOEXEC, now the caller's: plain ones,
 * until reeve_adopt (net.h). Read a stream that brings descriptors with this alone: others receive
 * its bytes without them, and they are closed.
 *
 * The number of bytes, and *ret_n descriptors in ret_fds; 0: the end. Nothing leaks: if all that
 * came cannot be handed over, they are closed, the message is lost, and it is -EMSGSIZE: more than
 * max, or more bytes than len in one message; -EMFILE: more than this process may open. -EBUSY: a
 * stream of which reeve has received more already.
 *     int got[1];
 *     size_t n;
 *     ssize_t len = reeve_fd_recv(fd, got, 1, &n, text, sizeof text, reeve_in(REEVE_SEC)); */
REEVE_API ssize_t reeve_fd_recv(int fd, int *ret_fds, size_t max, size_t *ret_n, void *buf,
                                size_t len, reeve_time until);

/* ---- vectors ------------------------------------------------------------------------------- */

/** Writes the pieces one behind the other, all of them: reeve_write (net.h) of what is not in one
 * place. They stay together among the writes of others. Over a socket of messages they are one
 * message. The sum of their lengths, or -errno, after which an unknown part was written. */
REEVE_API ssize_t reeve_sendv(int fd, const struct iovec *pieces, size_t count, reeve_time until);

/** Reads what is there, at least one byte, into the pieces one after the other: reeve_read (net.h)
 * into several places. From a socket of messages it is one message, and -EMSGSIZE if that was
 * longer. The number of bytes; 0: the end, or no piece has room. */
REEVE_API ssize_t reeve_recvv(int fd, const struct iovec *pieces, size_t count, reeve_time until);

#define REEVE_BUFS_MAX 64 /* leases in one call */

/** Receives what is there into leased buffers: reeve_buf_recv (buf.h) once, and again as long as
 * there is more that need not be waited for, up to `max` buffers. The number of bytes in all, and
 * *ret_n buffers in ret_bufs are yours; otherwise as reeve_buf_recv. */
REEVE_API ssize_t reeve_buf_recvv(int fd, struct reeve_buf **ret_bufs, size_t max, size_t *ret_n,
                                  reeve_time until);

/** Sends the bytes of n leased buffers in one go, and takes the leases whatever it returns: with
 * large messages that is much cheaper than one by one. The number of bytes; -EINVAL: n is more than
 * REEVE_BUFS_MAX; otherwise as reeve_buf_send (buf.h).
 *     while ((len = reeve_buf_recvv(fd, bufs, 16, &n, 0)) > 0)
 *         if ((len = reeve_buf_sendv(fd, bufs, n, 0)) < 0) break; */
REEVE_API ssize_t reeve_buf_sendv(int fd, struct reeve_buf *const *bufs, size_t n,
                                  reeve_time until);

#ifdef __cplusplus
}
#endif
#endif /* REEVE_SOCKET_H */
