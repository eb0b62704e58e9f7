/* SPDX-License-Identifier: MIT */
/*
 * msg.h -- messages over sockets: the two calls that all of socket.h comes to.
 */
#ifndef RV_IO_MSG_H
#define RV_IO_MSG_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

struct rv_io_driver;
struct rv_io_worker;

/* What kind of socket this is: SOCK_STREAM, SOCK_DGRAM (or whatever else keeps the borders of
 * messages); -ENOTSOCK, -EBADF. */
int rv_socket_kind(struct rv_io_worker *iw, int fd);

/* The system is the real one: its calls may be made. */
bool rv_socket_real(const struct rv_io_driver *driver);

/* A number that a real socket says of itself: SO_DOMAIN, SO_PROTOCOL ... or -errno. */
int rv_socket_ask(int fd, int option);

/* sendmsg and recvmsg for the running task, in reeve code (rv_io_enter), until `until` (see
 * rv_deadline()). Bytes or -errno; over a stream rv_sendmsg sends all. The worker may have
 * changed. */
ssize_t rv_sendmsg(struct rv_io_worker *iw, int fd, const struct msghdr *msg, int flags,
                   int64_t until);
ssize_t rv_recvmsg(struct rv_io_worker *iw, int fd, struct msghdr *msg, int flags, int64_t until);

/* rv_recvmsg of a message that must have had room: -EMSGSIZE if it had not. msg is zero but for
 * control data, which the caller may ask for. Who sent it, if that is asked for, is told unless
 * this fails. */
ssize_t rv_recv_whole(struct rv_io_worker *iw, int fd, struct msghdr *msg,
                      const struct iovec *pieces, size_t count, struct sockaddr_storage *ret_from,
                      socklen_t *ret_from_len, int64_t until);

/* Closes the descriptors that came beside a message and that nobody asked for. Where there was room
 * for control data, that must be zero or the kernel's. */
void rv_msg_drop_fds(struct rv_io_worker *iw, struct msghdr *msg);

/* The two halves of these. Whether to try at once, by a call of the system that does not wait:
 * nobody else would add to the entry into the ring. It may yield. */
bool rv_msg_worth_trying(struct rv_io_worker **iw);
/* The request to the ring; tried: the answer to a try was -EAGAIN, a moment ago. */
int rv_msg_request(struct rv_io_worker *iw, int fd, struct msghdr *msg, int flags, bool send,
                   bool tried, int64_t until);

/* A call of the system that does not wait, with the number kept from being closed meanwhile. What
 * `call` says, >= 0 or -errno; -EBADF: it is being closed; -ECANCELED: that came in between. Any
 * thread, once there is a table. */
int rv_socket_call(int fd, int (*call)(int fd, void *arg), void *arg);

/* Where one is in an array of pieces. */
struct rv_pieces {
    const struct iovec *at;
    size_t count; /* from `at` on */
    size_t skip;  /* of the first */
};

/* What lies ahead, as up to `cap` pieces of 1 GiB together at most: how many. */
size_t rv_pieces_next(const struct rv_pieces *p, struct iovec *ret, size_t cap);
/* n bytes are done. */
void rv_pieces_skip(struct rv_pieces *p, size_t n);
/* How many bytes there are; -EINVAL: more than a ssize_t can say. */
ssize_t rv_pieces_sum(const struct iovec *pieces, size_t count);

#endif
