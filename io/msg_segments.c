/* SPDX-License-Identifier: MIT */
/*
 * msg_segments.c -- many datagrams in one call of the kernel.
 *
 * UDP_SEGMENT beside a message tells the kernel to cut it into datagrams of that size, as late as
 * it can; UDP_GRO beside one that came tells how it is to be cut. A route or a device that cannot
 * do the former refuses the message whole, with one of several errors; then the datagrams go out
 * one by one, and what was really wrong, if that was not it, says so again.
 *
 * (1) One message holds at most SEGMENTS_MAX datagrams and BYTES_MAX bytes. Each but the last of a
 *     call is a whole number of segments: only the last segment of all is short.
 *
 * (2) Who sends over a Unix socket may put a descriptor where the size of a segment was expected.
 *     It is closed.
 *
 * Threads: tasks.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <reeve/socket.h>
#include <string.h>

#include "io/io.h"
#include "io/msg.h"
#include "sched/wait.h"

#define SEGMENTS_MAX 64   /* UDP_MAX_SEGMENTS of Linux 4.18; newer ones take more */
#define BYTES_MAX 65507u  /* of a datagram: 65535 less the headers of IPv4 and UDP */

/* Control data of one int, or room for it. */
union note {
    char bytes[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
};

struct burst {
    const unsigned char *data;
    size_t len, segment;
    const struct sockaddr *to;
    socklen_t to_len;
};

/* Part of it: one datagram, or as many as `cut` says there are in it. */
static ssize_t send_part(struct rv_io_worker *iw, int fd, const struct burst *b, size_t at,
                         size_t len, bool cut, int64_t until)
{
    struct iovec piece = { (void *)(uintptr_t)(b->data + at), len };
    struct msghdr msg = {
        .msg_name = (void *)(uintptr_t)b->to,
        .msg_namelen = b->to ? b->to_len : 0,
        .msg_iov = &piece,
        .msg_iovlen = 1,
    };
    union note note = { .bytes = { 0 } };
    if (cut) {
        const uint16_t segment = (uint16_t)b->segment;
        msg.msg_control = note.bytes;
        msg.msg_controllen = CMSG_SPACE(sizeof segment);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = IPPROTO_UDP;
        c->cmsg_type = UDP_SEGMENT;
        c->cmsg_len = CMSG_LEN(sizeof segment);
        memcpy(CMSG_DATA(c), &segment, sizeof segment);
    }
    return rv_sendmsg(iw, fd, &msg, 0, until);
}

/* What the kernel, or the route, says that has no such thing, or not for these. */
static bool cannot_cut(ssize_t error)
{
    switch (-error) {
    case EINVAL:
    case EIO: /* the device takes no checksums */
    case EOPNOTSUPP:
    case ENOPROTOOPT:
    case EMSGSIZE: /* a segment is longer than a packet of this route */
        return true;
    default:
        return false;
    }
}

static ssize_t send_burst(struct rv_io_worker *iw, int fd, const struct burst *b, int64_t until)
{
    size_t many = BYTES_MAX / b->segment, at = 0;
    if (many > SEGMENTS_MAX)
        many = SEGMENTS_MAX;
    bool cut = many > 1 && b->len > b->segment && rv_socket_real(iw->driver) &&
               rv_socket_ask(fd, SO_PROTOCOL) == IPPROTO_UDP;
    while (at < b->len) {
        size_t left = b->len - at, part = cut ? many * b->segment : b->segment;
        if (part > left)
            part = left;
        bool several = part > b->segment;
        ssize_t n = send_part(iw, fd, b, at, part, several, until);
        iw = rv_io_self();
        if (several && cannot_cut(n)) {
            cut = false;
            continue;
        }
        if (n < 0)
            return at > 0 ? (ssize_t)at : n;
        at += part;
    }
    return (ssize_t)at;
}

ssize_t reeve_send_segments(int fd, const void *buf, size_t len, size_t segment,
                            const struct sockaddr *to, socklen_t to_len, reeve_time deadline)
{
    struct burst b = { buf, len, segment, to, to_len };
    uint32_t was;
    struct rv_io_worker *iw = rv_io_enter("reeve_send_segments", &was);
    ssize_t n = segment == 0 ? -EINVAL : fd < 0 ? -EBADF : 0;
    if (n == 0)
        n = send_burst(iw, fd, &b, rv_deadline(iw->w->cur, deadline));
    rv_io_exit(was);
    return n;
}

ssize_t reeve_recv_segments(int fd, void *buf, size_t len, size_t *ret_segment,
                            struct sockaddr_storage *ret_from, socklen_t *ret_from_len,
                            reeve_time deadline)
{
    union note note = { .bytes = { 0 } };
    struct iovec piece = { buf, len };
    struct msghdr msg = { .msg_control = note.bytes, .msg_controllen = sizeof note.bytes };
    uint32_t was;
    struct rv_io_worker *iw = rv_io_enter("reeve_recv_segments", &was);
    ssize_t n = rv_recv_whole(iw, fd, &msg, &piece, 1, ret_from, ret_from_len,
                              rv_deadline(iw->w->cur, deadline));
    rv_msg_drop_fds(rv_io_self(), &msg); /* (2) */
    rv_io_exit(was);
    if (n < 0)
        return n;
    int segment = (int)n;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c))
        if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO)
            memcpy(&segment, CMSG_DATA(c), sizeof segment);
    *ret_segment = (size_t)segment;
    return n;
}
