/* SPDX-License-Identifier: MIT */
/*
 * days.h -- bad days: one call of each kind that queues operations, in a state in which it would
 * succeed, and what is to become of it when one of its operations completes otherwise.
 *
 * A row is a call. prepare() does what others do before it: a peer that sends, a file that is
 * there. The call looks at its own effect: what it says that it has moved lies at the other end. A
 * day is what rows work on; it is new for each cell of the table.
 *
 *     row x result x the operation that completes so (skip: the first, the second ...)
 *
 * (1) A result < 0 says nothing that is not true: the operation has done nothing. So the call says
 *     that very error, or succeeds, wholly; after an error the same call succeeds.
 * (2) A result >= 0 (one byte, or none, and it was not even that) is a lie for most operations: the
 *     call comes to an end that can be told to somebody, and no effect is looked at. Lies that no
 *     kernel could tell are left out: may_say().
 * (3) Peers queue nothing, here or there: what is counted are the call's operations alone.
 *
 * The engine is the includer's: see "by the engine".
 */
#ifndef TESTS_IO_DAYS_H
#define TESTS_IO_DAYS_H

#include "tests/io/names.h"
#include "tests/io/pair.h"
#include "tests/io/scratch.h"

#include <linux/io_uring.h>
#include <poll.h>
#include <reeve/fd.h>
#include <reeve/file.h>
#include <reeve/frame.h>
#include <reeve/proc.h>
#include <reeve/socket.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "io/op.h"
#include "io/req.h"
#include "io/uring_compat.h"
#include "io/zc.h"

#define LATER reeve_in(10 * REEVE_US)

enum {
    DAY_MORE = 12,
    DAY_HEARD = 16384,
    DAY_OPS = 200,        /* of one call, at most */
    DAY_COPY = 100,       /* bytes */
    DAY_COPY_BIG = 32768, /* what a splice from a foreign socket is worth */
    DAY_PROGRAM = 66000,  /* more than a pipe takes at once */
};

struct day {
    struct pair p;             /* need_streams() */
    int foreign, foreign_peer; /* a socket that reeve did not make, and the other end */
    char at[64];               /* where p.listener is */
    int dgram[2], pipe[2], file, event;
    int more[DAY_MORE];        /* what a row has made beside; they are closed at the end */
    unsigned more_n;
    reeve_group others;        /* tasks that play other people */
    bool lies;                 /* what was said was not so: nothing is looked at */
    const char *text;          /* what peers say, over and over */
    size_t due, said, taken;   /* of that: to be said, said, received */
    bool saying;
    int speaker;               /* who says it */
    size_t heard_n;            /* what the plain peer has received */
    bool hearing;
    int from, to, sink;        /* of a copy: the ends, and where it is looked at; from: a log */
    size_t size, done;
    uint16_t port;             /* of the listener for names */
    struct sockaddr_un name[2];
    socklen_t name_len[2];
    struct reeve_reader reader;
    struct reeve_inotify inotify;
    reeve_log *log;
    unsigned char buf[4096], heard[DAY_HEARD];
};

/* What completed as it was told, and which operation that was. */
struct answered {
    bool met;
    uint8_t code;   /* enum rv_op_code */
    uint8_t opcode; /* IORING_OP_* of RV_OP_REQUEST */
};

/* ---- by the engine --------------------------------------------------------------------------- */

/* Streams of reeve's (p, at), whose peers are plain, and a foreign socket. */
static void make_streams(struct day *d);
/* The peer at that end says what is due of d->text. */
static void plain_say(struct day *d, int fd);
/* From now on the peer receives what comes; now all that was sent is in d->heard, which is so many
 * bytes more at least. */
static void plain_listen(struct day *d);
static void plain_heard(struct day *d, size_t n);
/* Somebody connects to p.listener. */
static void plain_connect(struct day *d);
/* A listener at all addresses; its port. */
static int listen_everywhere(uint16_t *ret_port);
/* The operation behind the next `skip` completes with `result`; and whether it has, and it is no
 * more. */
static void tell(unsigned skip, int result);
static struct answered told(void);

/* A signal that is not delivered but read; made before there are tasks. */
static int day_signals = -1;

static inline void day_begin(void)
{
    if (day_signals >= 0)
        return;
    day_signals = (int)CHECK_OK(reeve_signal_open((int[]){ SIGUSR1 }, 1));
    PLAY(.host = "one.test", .addr = { "127.0.0.1" });
    PLAY(.host = "two.test", .addr = { "127.0.0.1", "127.0.0.2" });
}

/* ---- a day ----------------------------------------------------------------------------------- */

static inline void set_up(struct day *d)
{
    memset(d, 0, offsetof(struct day, buf));
    d->p = (struct pair){ -1, -1, -1 };
    d->foreign = d->foreign_peer = -1;
    d->text = "hello";
    fill_pattern(d->buf, sizeof d->buf, 0);
    CHECK_EQ(reeve_socket_pair(SOCK_DGRAM, d->dgram), 0);
    CHECK_OK(reeve_pipe(d->pipe, 0));
    d->file = (int)CHECK_OK(reeve_open(scratch("file"), O_RDWR | O_CREAT | O_TRUNC, 0600, LONG));
    CHECK_EQ(pwrite(d->file, d->buf, sizeof d->buf, 0), sizeof d->buf);
    d->event = eventfd(1, EFD_CLOEXEC);
    CHECK_GE(d->event, 0);
}

static inline void need_streams(struct day *d)
{
    if (d->p.fd < 0)
        make_streams(d);
}

static inline int keep(struct day *d, int fd)
{
    CHECK_GE(fd, 0);
    CHECK_LT(d->more_n, DAY_MORE);
    return d->more[d->more_n++] = fd;
}

static inline void tear_down(struct day *d)
{
    if (d->others.opaque) {
        reeve_group_cancel(&d->others);
        (void)reeve_group_wait(&d->others, 0);
    }
    reeve_reader_finish(&d->reader);
    reeve_inotify_close(&d->inotify);
    (void)reeve_log_close(d->log, LONG);
    if (d->p.listener >= 0) {
        CHECK_EQ(reeve_close(d->p.fd), 0);
        CHECK_EQ(reeve_close(d->p.peer), 0);
        CHECK_EQ(reeve_close(d->p.listener), 0);
    }
    if (d->foreign >= 0 && d->foreign != d->p.peer) {
        CHECK_EQ(reeve_close(d->foreign), 0);
        CHECK_EQ(reeve_close(d->foreign_peer), 0);
    }
    for (unsigned i = 0; i < d->more_n; i++)
        CHECK_EQ(reeve_close(d->more[i]), 0);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(reeve_close(d->dgram[i]), 0);
        CHECK_EQ(reeve_close(d->pipe[i]), 0);
    }
    CHECK_EQ(reeve_close(d->file), 0);
    close(d->event);
}

/* Bytes of the text that were received. */
static inline ssize_t took(struct day *d, const void *data, ssize_t n)
{
    size_t len = strlen(d->text);
    for (ssize_t i = 0; i < n && !d->lies; i++)
        CHECK_EQ(((const char *)data)[i], d->text[d->taken++ % len]);
    return n;
}

/* All that is there; of that the end is what was written: before it may lie what a write that
 * failed had written. */
static inline ssize_t wrote(struct day *d, int other_end, const void *data, ssize_t len, ssize_t n)
{
    static unsigned char there[70000];
    int has = 0;
    if (d->lies || n != len)
        return n;
    CHECK_EQ(ioctl(other_end, FIONREAD, &has), 0);
    CHECK_GE(has, len);
    CHECK_LE(has, sizeof there);
    CHECK_EQ(read(other_end, there, sizeof there), has);
    CHECK_MEM_EQ(there + has - len, data, (size_t)len);
    return n;
}

/* The same of what went to p.peer. */
static inline ssize_t was_heard(struct day *d, const void *data, ssize_t len, ssize_t n)
{
    if (n < 0 || d->lies)
        return n;
    plain_heard(d, (size_t)n);
    CHECK_GE(d->heard_n, n);
    if (n == len)
        CHECK_MEM_EQ(d->heard + d->heard_n - len, data, (size_t)len);
    return n;
}

static inline void someone(struct day *d, reeve_fn *fn)
{
    CHECK_EQ(reeve_go(fn, d, .group = &d->others), 0);
}

/* ---- streams --------------------------------------------------------------------------------- */

static inline void hello(struct day *d)
{
    need_streams(d);
    d->due += strlen(d->text);
    plain_say(d, d->p.peer);
}

static inline void foreign_hello(struct day *d)
{
    need_streams(d);
    d->due += strlen(d->text);
    plain_say(d, d->foreign_peer);
}

static inline void listening(struct day *d)
{
    need_streams(d);
    plain_listen(d);
}

static inline void hello_and_listening(struct day *d)
{
    hello(d);
    plain_listen(d);
}

static inline ssize_t stream_read(struct day *d)
{
    return took(d, d->buf, reeve_read(d->p.fd, d->buf, sizeof d->buf, LONG));
}

static inline ssize_t foreign_read(struct day *d)
{
    return took(d, d->buf, reeve_read(d->foreign, d->buf, sizeof d->buf, LONG));
}

static inline ssize_t stream_write(struct day *d)
{
    return was_heard(d, d->buf, 1000, reeve_write(d->p.fd, d->buf, 1000, LONG));
}

static inline ssize_t buf_echo(struct day *d)
{
    struct reeve_buf *b;
    ssize_t n = reeve_buf_recv(d->p.fd, &b, LONG);
    if (n <= 0)
        return n;
    memcpy(d->buf, b->data, (size_t)n);
    took(d, d->buf, n);
    return was_heard(d, d->buf, n, reeve_buf_send(d->p.fd, b, LONG));
}

static inline ssize_t leases_there_and_back(struct day *d)
{
    struct reeve_buf *b[4];
    size_t n, at = 0;
    ssize_t len = reeve_buf_recvv(d->p.fd, b, 4, &n, LONG);
    if (len <= 0)
        return len;
    for (size_t i = 0; i < n; at += b[i++]->len)
        memcpy(d->buf + at, b[i]->data, b[i]->len);
    took(d, d->buf, len);
    return was_heard(d, d->buf, len, reeve_buf_sendv(d->p.fd, b, n, LONG));
}

static inline ssize_t foreign_lease(struct day *d)
{
    struct reeve_buf *b;
    ssize_t n = reeve_buf_recv(d->foreign, &b, LONG);
    if (n <= 0)
        return n;
    took(d, b->data, n);
    reeve_buf_return(b);
    return n;
}

static inline ssize_t send_without_copying(struct day *d)
{
    struct reeve_buf *b;
    uint32_t was;
    CHECK_EQ(reeve_buf_borrow(&b, LONG), 0);
    CHECK_GE(b->cap, 1000);
    memcpy(b->data, d->buf, 1000);
    b->len = 1000;
    struct rv_io_worker *iw = rv_io_enter("days_test", &was);
    ssize_t n = rv_zc_send(iw, d->p.fd, (struct rv_lease *)b, INT64_MAX);
    rv_io_exit(was);
    return was_heard(d, d->buf, 1000, n);
}

/* Two pieces that lie one behind the other. */
static inline ssize_t pieces_to(int fd, struct day *d)
{
    struct iovec piece[2] = { { d->buf, 10 }, { d->buf + 10, 20 } };
    return reeve_sendv(fd, piece, 2, LONG);
}

static inline ssize_t stream_sendv(struct day *d)
{
    return was_heard(d, d->buf, 30, pieces_to(d->p.fd, d));
}

static inline ssize_t stream_sendmsg(struct day *d)
{
    struct iovec piece = { d->buf, 100 };
    struct msghdr msg = { .msg_iov = &piece, .msg_iovlen = 1 };
    return was_heard(d, d->buf, 100, reeve_sendmsg(d->p.fd, &msg, 0, LONG));
}

static inline ssize_t stream_recvv(struct day *d)
{
    struct iovec piece[2] = { { d->buf, 2 }, { d->buf + 2, 100 } };
    return took(d, d->buf, reeve_recvv(d->p.fd, piece, 2, LONG));
}

static inline void someone_connects(struct day *d)
{
    need_streams(d);
    plain_connect(d);
}

static inline ssize_t accept_one(struct day *d)
{
    int fd = reeve_accept(d->p.listener, LONG);
    if (fd < 0)
        return fd;
    CHECK_EQ(reeve_close(fd), 0);
    return 0;
}

static inline ssize_t dialled(int fd)
{
    if (fd < 0)
        return fd;
    CHECK_EQ(reeve_close(fd), 0);
    return 0;
}

static inline ssize_t dial_one(struct day *d)
{
    return dialled(reeve_dial(d->at, LONG));
}

/* ---- names of hosts -------------------------------------------------------------------------- */

static inline void a_name(struct day *d)
{
    playing()->now = played_now;
    if (!d->port)
        keep(d, listen_everywhere(&d->port));
}

static inline ssize_t dial_host(struct day *d, const char *host)
{
    char text[64];
    snprintf(text, sizeof text, "%s:%d", host, d->port);
    return dialled(reeve_dial(text, LONG));
}

static inline ssize_t dial_name(struct day *d)
{
    return dial_host(d, "one.test");
}

static inline ssize_t dial_two_addresses(struct day *d)
{
    return dial_host(d, "two.test");
}

static inline ssize_t look_up_name(struct day *d)
{
    struct sockaddr_storage to;
    socklen_t len;
    (void)d;
    int r = reeve_addr_lookup("udp:two.test:53", AF_INET, &to, &len, LONG);
    if (r == 0)
        CHECK_EQ(((struct sockaddr_in *)&to)->sin_addr.s_addr, htonl(INADDR_LOOPBACK));
    return r;
}

/* ---- pipes and what is like them ------------------------------------------------------------- */

static inline ssize_t pipe_write(struct day *d)
{
    return wrote(d, d->pipe[0], d->buf, 10, reeve_write(d->pipe[1], d->buf, 10, LONG));
}

static inline ssize_t pipe_sendv(struct day *d)
{
    return wrote(d, d->pipe[0], d->buf, 30, pieces_to(d->pipe[1], d));
}

static inline void pipe_hello(struct day *d)
{
    CHECK_EQ(write(d->pipe[1], d->text, strlen(d->text)), strlen(d->text));
}

static inline ssize_t pipe_read(struct day *d)
{
    return took(d, d->buf, reeve_read(d->pipe[0], d->buf, sizeof d->buf, LONG));
}

static inline ssize_t pipe_recvv(struct day *d)
{
    struct iovec piece[2] = { { d->buf, 2 }, { d->buf + 2, 100 } };
    return took(d, d->buf, reeve_recvv(d->pipe[0], piece, 2, LONG));
}

static inline ssize_t wait_readable(struct day *d)
{
    return reeve_wait_fd(d->event, POLLIN, LONG);
}

static inline ssize_t wait_writable(struct day *d)
{
    return reeve_wait_fd(d->pipe[1], POLLOUT, LONG);
}

static inline ssize_t event_read(struct day *d)
{
    uint64_t n = 0;
    ssize_t r = reeve_read(d->event, &n, sizeof n, LONG);
    if (r == sizeof n && !d->lies)
        CHECK_EQ(n, 1);
    return r;
}

static inline int rings(void *arg)
{
    struct day *d = arg;
    uint64_t n = 1;
    if (reeve_sleep(LATER) == 0)
        CHECK_EQ(write(d->event, &n, sizeof n), sizeof n);
    return 0;
}

static inline void event_later(struct day *d)
{
    uint64_t n;
    if (!d->due++)
        CHECK_EQ(read(d->event, &n, sizeof n), sizeof n);
    if (d->due == 1)
        someone(d, rings);
}

static inline ssize_t event_write(struct day *d)
{
    uint64_t n = 2;
    ssize_t r = reeve_write(d->event, &n, sizeof n, LONG);
    if (r == sizeof n && !d->lies) {
        CHECK_EQ(read(d->event, &n, sizeof n), sizeof n);
        CHECK_EQ(n, 3);
    }
    return r;
}

static inline void a_signal(struct day *d)
{
    (void)d;
    CHECK_EQ(kill(getpid(), SIGUSR1), 0); /* twice is once */
}

static inline ssize_t signal_next(struct day *d)
{
    int signo = reeve_signal_next(day_signals, LONG);
    if (signo >= 0 && !d->lies)
        CHECK_EQ(signo, SIGUSR1);
    return signo < 0 ? signo : 0;
}

static inline void a_change(struct day *d)
{
    if (!d->inotify.is_open) {
        CHECK_EQ(reeve_inotify_open(&d->inotify), 0);
        CHECK_OK(reeve_inotify_add(&d->inotify, scratch("file"), IN_MODIFY, LONG));
    }
    CHECK_EQ(pwrite(d->file, "x", 1, 0), 1);
}

static inline ssize_t change_next(struct day *d)
{
    struct reeve_inotify_event e;
    int r = reeve_inotify_next(&d->inotify, &e, LONG);
    if (r == 0 && !d->lies)
        CHECK_EQ(e.mask, IN_MODIFY);
    return r;
}

/* ---- messages -------------------------------------------------------------------------------- */

static inline ssize_t message_came(struct day *d, int fd, const void *data, ssize_t len, ssize_t n)
{
    char got[4096];
    if (n == len && !d->lies) {
        CHECK_EQ(recv(fd, got, sizeof got, MSG_DONTWAIT), len);
        CHECK_MEM_EQ(got, data, (size_t)len);
    }
    return n;
}

static inline ssize_t dgram_send(struct day *d)
{
    ssize_t n = reeve_sendto(d->dgram[0], d->buf, 10, NULL, 0, LONG);
    return message_came(d, d->dgram[1], d->buf, 10, n);
}

static inline void dgram_hello(struct day *d)
{
    CHECK_EQ(send(d->dgram[0], d->text, 5, 0), 5);
}

static inline ssize_t dgram_recv(struct day *d)
{
    ssize_t n = reeve_recvfrom(d->dgram[1], d->buf, sizeof d->buf, NULL, NULL, LONG);
    return took(d, d->buf, n);
}

static inline ssize_t dgram_sendv(struct day *d)
{
    return message_came(d, d->dgram[1], d->buf, 30, pieces_to(d->dgram[0], d));
}

static inline ssize_t dgram_recvv(struct day *d)
{
    struct iovec piece[2] = { { d->buf, 2 }, { d->buf + 2, 100 } };
    return took(d, d->buf, reeve_recvv(d->dgram[1], piece, 2, LONG));
}

static inline ssize_t dgram_sendmsg(struct day *d)
{
    struct iovec piece = { d->buf, 100 };
    struct msghdr msg = { .msg_iov = &piece, .msg_iovlen = 1 };
    ssize_t n = reeve_sendmsg(d->dgram[0], &msg, 0, LONG);
    return message_came(d, d->dgram[1], d->buf, 100, n);
}

static inline ssize_t dgram_recvmsg(struct day *d)
{
    struct iovec piece = { d->buf, 100 };
    struct msghdr msg = { .msg_iov = &piece, .msg_iovlen = 1 };
    return took(d, d->buf, reeve_recvmsg(d->dgram[1], &msg, 0, LONG));
}

enum { MANY = 3 };

static inline void many_of(struct day *d, struct mmsghdr msgs[MANY], struct iovec piece[MANY])
{
    memset(msgs, 0, MANY * sizeof *msgs);
    for (int i = 0; i < MANY; i++) {
        piece[i] = (struct iovec){ d->buf + 20 * i, 10 };
        msgs[i].msg_hdr.msg_iov = &piece[i];
        msgs[i].msg_hdr.msg_iovlen = 1;
    }
}

static inline ssize_t dgram_sendmmsg(struct day *d)
{
    struct mmsghdr msgs[MANY];
    struct iovec piece[MANY];
    many_of(d, msgs, piece);
    int n = reeve_sendmmsg(d->dgram[0], msgs, MANY, 0, LONG);
    for (int i = 0; i < n && !d->lies; i++) {
        CHECK_EQ(msgs[i].msg_len, 10);
        message_came(d, d->dgram[1], d->buf + 20 * i, 10, 10);
    }
    return n;
}

static inline void dgram_many(struct day *d)
{
    for (int i = 0; i < MANY; i++)
        dgram_hello(d);
}

static inline ssize_t dgram_recvmmsg(struct day *d)
{
    struct mmsghdr msgs[MANY];
    struct iovec piece[MANY];
    many_of(d, msgs, piece);
    int n = reeve_recvmmsg(d->dgram[1], msgs, MANY, 0, LONG);
    for (int i = 0; i < n && !d->lies; i++) {
        CHECK_EQ(msgs[i].msg_len, 5);
        took(d, piece[i].iov_base, 5);
    }
    return n;
}

static inline ssize_t dgram_segments(struct day *d)
{
    ssize_t n = reeve_send_segments(d->dgram[0], d->buf, 30, 10, NULL, 0, LONG);
    for (ssize_t at = 0; at < n && !d->lies; at += 10)
        message_came(d, d->dgram[1], d->buf + at, 10, 10);
    return n;
}

static inline ssize_t dgram_recv_segments(struct day *d)
{
    size_t segment;
    ssize_t n = reeve_recv_segments(d->dgram[1], d->buf, sizeof d->buf, &segment, NULL, NULL, LONG);
    if (n > 0 && !d->lies)
        CHECK_EQ(segment, n);
    return took(d, d->buf, n);
}

/* Two sockets of datagrams with names, of which reeve knows nothing: more[0] and more[1]. */
static inline void named_sockets(struct day *d)
{
    for (int i = 0; i < 2 && d->more_n < 2; i++) {
        struct sockaddr_un any = { .sun_family = AF_UNIX };
        int fd = keep(d, socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        CHECK_EQ(bind(fd, (struct sockaddr *)&any, sizeof any.sun_family), 0);
        d->name_len[i] = sizeof d->name[i];
        CHECK_EQ(getsockname(fd, (struct sockaddr *)&d->name[i], &d->name_len[i]), 0);
    }
}

static inline ssize_t send_to_name(struct day *d)
{
    ssize_t n = reeve_sendto(d->more[0], d->buf, 10, (struct sockaddr *)&d->name[1],
                             d->name_len[1], LONG);
    return message_came(d, d->more[1], d->buf, 10, n);
}

static inline void named_hello(struct day *d)
{
    named_sockets(d);
    CHECK_EQ(sendto(d->more[0], d->text, 5, 0, (struct sockaddr *)&d->name[1], d->name_len[1]), 5);
}

static inline ssize_t recv_from_name(struct day *d)
{
    struct sockaddr_storage from;
    socklen_t len = 0;
    ssize_t n = reeve_recvfrom(d->more[1], d->buf, sizeof d->buf, &from, &len, LONG);
    if (n > 0 && !d->lies) {
        CHECK_EQ(len, d->name_len[0]);
        CHECK_MEM_EQ(&from, &d->name[0], len);
    }
    return took(d, d->buf, n);
}

/* A pair in more[0] and more[1]. */
static inline void pair_of(struct day *d, int type)
{
    int fds[2];
    if (d->more_n > 0)
        return;
    CHECK_EQ(reeve_socket_pair(type, fds), 0);
    keep(d, fds[0]);
    keep(d, fds[1]);
}

static inline void packets(struct day *d)
{
    pair_of(d, SOCK_SEQPACKET);
}

static inline ssize_t packet_send(struct day *d)
{
    ssize_t n = reeve_sendto(d->more[0], d->buf, 10, NULL, 0, LONG);
    return message_came(d, d->more[1], d->buf, 10, n);
}

static inline ssize_t packet_write(struct day *d)
{
    return message_came(d, d->more[1], d->buf, 10, reeve_write(d->more[0], d->buf, 10, LONG));
}

static inline void packet_hello(struct day *d)
{
    packets(d);
    CHECK_EQ(send(d->more[0], d->text, 5, 0), 5);
}

static inline ssize_t packet_recv(struct day *d)
{
    ssize_t n = reeve_recvfrom(d->more[1], d->buf, sizeof d->buf, NULL, NULL, LONG);
    return took(d, d->buf, n);
}

static inline ssize_t packet_read(struct day *d)
{
    return took(d, d->buf, reeve_read(d->more[1], d->buf, sizeof d->buf, LONG));
}

/* ---- Unix streams ---------------------------------------------------------------------------- */

static inline void unix_pair(struct day *d)
{
    pair_of(d, SOCK_STREAM);
}

static inline void unix_hello(struct day *d)
{
    unix_pair(d);
    CHECK_EQ(send(d->more[0], d->text, 5, MSG_NOSIGNAL), 5);
}

static inline ssize_t unix_read(struct day *d)
{
    return took(d, d->buf, reeve_read(d->more[1], d->buf, sizeof d->buf, LONG));
}

static inline ssize_t unix_write(struct day *d)
{
    return wrote(d, d->more[1], d->buf, 1000, reeve_write(d->more[0], d->buf, 1000, LONG));
}

static inline ssize_t unix_recvmsg(struct day *d)
{
    struct iovec piece = { d->buf, 100 };
    struct msghdr msg = { .msg_iov = &piece, .msg_iovlen = 1 };
    return took(d, d->buf, reeve_recvmsg(d->more[1], &msg, 0, LONG));
}

static inline ssize_t unix_sendmsg(struct day *d)
{
    struct iovec piece[2] = { { d->buf, 40 }, { d->buf + 40, 60 } };
    struct msghdr msg = { .msg_iov = piece, .msg_iovlen = 2 };
    return wrote(d, d->more[1], d->buf, 100, reeve_sendmsg(d->more[0], &msg, 0, LONG));
}

union rights {
    char bytes[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
};

/* The descriptor that came is one for the same thing. */
static inline void check_same(int came, int fd)
{
    struct stat is, was;
    CHECK_EQ(fstat(came, &is), 0);
    CHECK_EQ(fstat(fd, &was), 0);
    CHECK_EQ(is.st_ino, was.st_ino);
    CHECK_EQ(is.st_mode, was.st_mode);
    CHECK_EQ(close(came), 0);
}

static inline ssize_t send_one_fd(struct day *d, int fd)
{
    ssize_t n = reeve_fd_send(d->more[0], &fd, 1, "x", 1, LONG);
    if (n <= 0 || d->lies)
        return n;
    union rights room;
    char byte;
    struct iovec piece = { &byte, 1 };
    struct msghdr msg = { .msg_iov = &piece, .msg_iovlen = 1, .msg_control = room.bytes,
                          .msg_controllen = sizeof room.bytes };
    CHECK_EQ(recvmsg(d->more[1], &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT), 1);
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    CHECK(c && c->cmsg_type == SCM_RIGHTS);
    int came;
    memcpy(&came, CMSG_DATA(c), sizeof came);
    check_same(came, fd);
    return n;
}

static inline ssize_t fd_send(struct day *d)
{
    return send_one_fd(d, d->event);
}

/* Which is held until it has gone. */
static inline void two_pairs(struct day *d)
{
    int ends[2];
    if (d->more_n > 0)
        return;
    unix_pair(d);
    CHECK_EQ(reeve_socket_pair(SOCK_STREAM, ends), 0);
    keep(d, ends[0]);
    keep(d, ends[1]);
}

static inline ssize_t fd_send_stream(struct day *d)
{
    return send_one_fd(d, d->more[2]);
}

static inline void an_fd_comes(struct day *d)
{
    union rights rights = { .bytes = { 0 } };
    struct iovec piece = { "x", 1 };
    struct msghdr msg = { .msg_iov = &piece, .msg_iovlen = 1, .msg_control = rights.bytes,
                          .msg_controllen = sizeof rights.bytes };
    unix_pair(d);
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &d->event, sizeof(int));
    CHECK_EQ(sendmsg(d->more[0], &msg, MSG_NOSIGNAL), 1);
}

static inline ssize_t fd_recv(struct day *d)
{
    int fd;
    size_t n = 0;
    char byte;
    ssize_t len = reeve_fd_recv(d->more[1], &fd, 1, &n, &byte, 1, LONG);
    if (len > 0) {
        CHECK_EQ(n, 1);
        check_same(fd, d->event);
    }
    return len;
}

/* ---- records --------------------------------------------------------------------------------- */

static inline void a_line(struct day *d)
{
    d->text = "hello\n";
    hello(d);
    d->reader.fd = d->p.fd;
}

static inline void a_line_in_a_pipe(struct day *d)
{
    d->text = "hello\n";
    pipe_hello(d);
    d->reader.fd = d->pipe[0];
}

static inline void a_sized_record(struct day *d)
{
    d->text = "\5hello";
    pipe_hello(d);
    d->reader.fd = d->pipe[0];
}

static inline void bytes_in_a_pipe(struct day *d)
{
    pipe_hello(d);
    d->reader.fd = d->pipe[0];
}

static inline ssize_t record_is(const struct day *d, const struct reeve_record *record,
                                const char *text, int r)
{
    if (r == 1 && !d->lies) {
        CHECK_EQ(record->len, strlen(text));
        CHECK_MEM_EQ(record->data, text, strlen(text));
    }
    return r;
}

static inline ssize_t next_line(struct day *d)
{
    struct reeve_record record;
    int r = reeve_reader_line(&d->reader, &record, LONG);
    return record_is(d, &record, "hello", r);
}

static inline ssize_t next_until(struct day *d)
{
    struct reeve_record record;
    int r = reeve_reader_until(&d->reader, "o\n", 2, &record, LONG);
    return record_is(d, &record, "hell", r);
}

static inline ssize_t next_sized(struct day *d)
{
    struct reeve_record record;
    int r = reeve_reader_sized(&d->reader, REEVE_LEN_8, &record, LONG);
    return record_is(d, &record, "hello", r);
}

static inline ssize_t next_bytes(struct day *d)
{
    struct reeve_record record;
    int r = reeve_reader_bytes(&d->reader, 5, &record, LONG);
    return record_is(d, &record, "hello", r);
}

/* ---- files ----------------------------------------------------------------------------------- */

static inline ssize_t file_holds(const struct day *d, const void *data, ssize_t len, off_t at,
                                 ssize_t n)
{
    unsigned char there[8192];
    if (n == len && !d->lies) {
        CHECK_EQ(pread(d->file, there, (size_t)len, at), len);
        CHECK_MEM_EQ(there, data, (size_t)len);
    }
    return n;
}

static inline ssize_t opened_file(int fd)
{
    if (fd < 0)
        return fd;
    CHECK_EQ(reeve_close(fd), 0);
    return 0;
}

static inline ssize_t file_open(struct day *d)
{
    (void)d;
    return opened_file(reeve_open(scratch("file"), O_RDONLY, 0, LONG));
}

static inline ssize_t file_open_with(struct day *d)
{
    (void)d;
    return opened_file(reeve_open_with(&(struct reeve_open){ .path = scratch("file") }, LONG));
}

/* What is read is the pattern, which the buffer does not hold before. */
static inline ssize_t was_read(struct day *d, const unsigned char *data, size_t at, ssize_t n)
{
    if (n > 0 && !d->lies)
        check_pattern(data, (size_t)n, at);
    return n;
}

static inline ssize_t file_read(struct day *d)
{
    memset(d->buf, 0, 100);
    return was_read(d, d->buf, 7, reeve_pread(d->file, d->buf, 100, 7, LONG));
}

static inline ssize_t file_readv(struct day *d)
{
    struct iovec piece[2] = { { d->buf, 10 }, { d->buf + 10, 20 } };
    memset(d->buf, 0, 30);
    return was_read(d, d->buf, 7, reeve_preadv(d->file, piece, 2, 7, LONG));
}

static inline ssize_t file_write(struct day *d)
{
    return file_holds(d, d->buf, 100, 7, reeve_pwrite(d->file, d->buf, 100, 7, LONG));
}

static inline ssize_t file_vector(struct day *d)
{
    struct iovec piece[2] = { { d->buf, 10 }, { d->buf + 10, 20 } };
    return file_holds(d, d->buf, 30, 7, reeve_pwritev(d->file, piece, 2, 7, LONG));
}

static inline ssize_t aligned_read(struct day *d)
{
    struct reeve_buf *b;
    int r = reeve_buf_borrow_aligned(&b, 4096, LONG);
    if (r < 0)
        return r;
    ssize_t n = was_read(d, b->data, 0, reeve_buf_pread(d->file, b, 0, LONG));
    reeve_buf_return(b);
    return n;
}

static inline ssize_t aligned_write(struct day *d)
{
    struct reeve_buf *b;
    int r = reeve_buf_borrow_aligned(&b, 4096, LONG);
    if (r < 0)
        return r;
    memset(b->data, 'y', 4096);
    b->len = 4096;
    ssize_t n = file_holds(d, b->data, 4096, 0, reeve_buf_pwrite(d->file, b, 0, LONG));
    reeve_buf_return(b);
    return n;
}

static inline ssize_t file_sync(struct day *d)
{
    return reeve_fdatasync(d->file, LONG);
}

static inline ssize_t file_fsync(struct day *d)
{
    return reeve_fsync(d->file, LONG);
}

static inline ssize_t stat_of(const struct statx *st, int r)
{
    if (r == 0)
        CHECK_EQ(st->stx_size, 4096);
    return r;
}

static inline ssize_t file_stat(struct day *d)
{
    struct statx st = { 0 };
    return stat_of(&st, reeve_fstat(d->file, &st, LONG));
}

static inline ssize_t name_stat(struct day *d)
{
    struct statx st = { 0 };
    (void)d;
    return stat_of(&st, reeve_stat(scratch("file"), &st, LONG));
}

static inline ssize_t file_is_long(const struct day *d, off_t len, int r)
{
    struct stat st;
    CHECK_EQ(fstat(d->file, &st), 0);
    CHECK_EQ(st.st_size, r == 0 ? len : 4096);
    return r;
}

static inline ssize_t file_allocate(struct day *d)
{
    return file_is_long(d, 8192, reeve_fallocate(d->file, 0, 0, 8192, LONG));
}

static inline ssize_t file_truncate(struct day *d)
{
    return file_is_long(d, 100, reeve_ftruncate(d->file, 100, LONG));
}

static inline ssize_t file_advise(struct day *d)
{
    return reeve_file_use(d->file, REEVE_FILE_WILL_NEED, 0, 4096, LONG);
}

static inline bool there_is(const char *name)
{
    return faccessat(AT_FDCWD, scratch(name), F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* One name is there, and another is not. */
static inline void names(struct day *d)
{
    (void)d;
    scratch_file(scratch("old"), "x", 1);
    unlink(scratch("new"));
    rmdir(scratch("new"));
}

static inline ssize_t now_there_is(const char *name, int r)
{
    CHECK_EQ(there_is(name), r == 0);
    return r;
}

static inline ssize_t file_rename(struct day *d)
{
    (void)d;
    return now_there_is("new", reeve_rename(scratch("old"), scratch("new"), LONG));
}

static inline ssize_t file_link(struct day *d)
{
    (void)d;
    return now_there_is("new", reeve_link(scratch("old"), scratch("new"), LONG));
}

static inline ssize_t file_symlink(struct day *d)
{
    (void)d;
    return now_there_is("new", reeve_symlink("old", scratch("new"), LONG));
}

static inline ssize_t make_directory(struct day *d)
{
    (void)d;
    return now_there_is("new", reeve_mkdir(scratch("new"), 0700, LONG));
}

static inline ssize_t file_unlink(struct day *d)
{
    (void)d;
    int r = reeve_unlink(scratch("old"), LONG);
    CHECK_EQ(there_is("old"), r < 0);
    return r;
}

static inline void a_directory(struct day *d)
{
    names(d);
    CHECK_EQ(mkdir(scratch("new"), 0700), 0);
}

static inline ssize_t remove_directory(struct day *d)
{
    (void)d;
    int r = reeve_rmdir(scratch("new"), LONG);
    CHECK_EQ(there_is("new"), r < 0);
    return r;
}

static inline void three_entries(struct day *d)
{
    (void)d;
    mkdir(scratch("dir"), 0700);
    scratch_file(scratch("dir/a"), "x", 1);
    scratch_file(scratch("dir/b"), "x", 1);
    scratch_file(scratch("dir/c"), "x", 1);
}

static inline ssize_t read_directory(struct day *d)
{
    struct reeve_dir_entry e;
    reeve_dir *dir;
    int seen = 0, n;
    (void)d;
    int r = reeve_dir_open(&dir, scratch("dir"), LONG);
    if (r < 0)
        return r;
    for (n = 0; (r = reeve_dir_read(dir, &e, LONG)) > 0; n++)
        seen |= 1 << (e.name[0] - 'a');
    reeve_dir_close(dir);
    if (r == 0)
        CHECK_EQ(seen, 7);
    return r < 0 ? r : n;
}

/* ---- logs ------------------------------------------------------------------------------------ */

static inline void open_log_ahead(struct day *d, size_t ahead)
{
    struct reeve_log_opts opts = { .path = scratch("log"), .ahead_bytes = ahead };
    if (d->log)
        return;
    unlink(opts.path);
    CHECK_EQ(reeve_log_open(&d->log, &opts, LONG), 0);
    d->from = keep(d, open(opts.path, O_RDONLY | O_CLOEXEC));
    d->size = ahead;
}

static inline void a_log(struct day *d)
{
    open_log_ahead(d, 0);
}

static inline void a_log_with_zeroes_ahead(struct day *d)
{
    open_log_ahead(d, 8192);
}

/* Behind the one before, without a gap, and nothing else is there unless it is zeroes. */
static inline ssize_t record_stands(struct day *d, int64_t at)
{
    unsigned char there[100];
    struct stat st;
    if (at >= 0 && !d->lies) {
        CHECK_EQ(at, d->done);
        CHECK_EQ(fstat(d->from, &st), 0);
        d->done += sizeof there;
        if (d->size == 0)
            CHECK_EQ(st.st_size, d->done);
        CHECK_EQ(pread(d->from, there, sizeof there, at), sizeof there);
        CHECK_MEM_EQ(there, d->buf, sizeof there);
    }
    return at < 0 ? at : 0;
}

static inline ssize_t log_append(struct day *d)
{
    return record_stands(d, reeve_log_append(d->log, d->buf, 100, LONG));
}

static inline ssize_t log_append_and_sync(struct day *d)
{
    ssize_t at = record_stands(d, reeve_log_append_later(d->log, d->buf, 100, LONG));
    return at < 0 ? at : reeve_log_sync(d->log, LONG);
}

/* From beginning to end. */
static inline ssize_t log_life(struct day *d)
{
    struct reeve_log_opts opts = { .path = scratch("life"), .ahead_bytes = 8192 };
    reeve_log *log;
    unlink(opts.path);
    int r = reeve_log_open(&log, &opts, LONG);
    if (r < 0)
        return r;
    int64_t at = reeve_log_append_later(log, d->buf, 100, LONG);
    if (!d->lies)
        CHECK(at <= 0);
    r = reeve_log_close(log, LONG);
    struct stat st;
    CHECK_EQ(stat(opts.path, &st), 0);
    if (at == 0 && r == 0 && !d->lies)
        CHECK_EQ(st.st_size, 100);
    return at < 0 ? at : r;
}

/* ---- copies ---------------------------------------------------------------------------------- */

/* From there to there; and where it arrives. */
static inline void copy_between(struct day *d, int from, int to, int sink)
{
    d->from = from;
    d->to = to;
    d->sink = sink;
    d->size = DAY_COPY;
}

static inline int new_file(struct day *d, int flags)
{
    return keep(d, open(scratch("copied"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | flags, 0600));
}

static inline int from_file(struct day *d)
{
    CHECK_EQ(lseek(d->file, 0, SEEK_SET), 0);
    return d->file;
}

/* Two more pipe ends; returns that to read from. */
static inline int more_pipe(struct day *d, int *ret_write)
{
    int ends[2];
    CHECK_OK(reeve_pipe(ends, 0));
    *ret_write = keep(d, ends[1]);
    return keep(d, ends[0]);
}

/* A Unix stream, of reeve's or not; returns one end. */
static inline int more_stream(struct day *d, bool ours, int *ret_other)
{
    int ends[2];
    if (ours)
        CHECK_EQ(reeve_socket_pair(SOCK_STREAM, ends), 0);
    else
        CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    *ret_other = keep(d, ends[1]);
    return keep(d, ends[0]);
}

static inline void feed(int fd, size_t len)
{
    static unsigned char data[DAY_COPY_BIG];
    fill_pattern(data, len, 0);
    CHECK_EQ(write(fd, data, len), (ssize_t)len);
}

/* What is there is moved at once; so it comes when somebody waits for it. */
static inline int feeds_pipe(void *arg)
{
    struct day *d = arg;
    if (reeve_sleep(LATER) == 0)
        feed(d->pipe[1], DAY_COPY);
    return 0;
}

static inline int feeds_stream(void *arg)
{
    struct day *d = arg;
    if (reeve_sleep(LATER) == 0)
        feed(d->foreign_peer, DAY_COPY);
    return 0;
}

/* A pipe that takes nothing, and is emptied when somebody waits for that. */
static inline void fill_up(struct day *d, int fd)
{
    static const char much[4096];
    d->due = (size_t)fcntl(fd, F_GETPIPE_SZ);
    for (size_t at = 0; at < d->due; at += sizeof much)
        CHECK_EQ(write(fd, much, sizeof much), sizeof much);
}

static inline void fill_up_stream(struct day *d, int fd)
{
    static const char much[4096];
    ssize_t n;
    while ((n = send(fd, much, sizeof much, MSG_DONTWAIT | MSG_NOSIGNAL)) > 0)
        d->due += (size_t)n;
}

static inline int empties_sink(void *arg)
{
    struct day *d = arg;
    char some[4096];
    if (reeve_sleep(LATER) != 0)
        return 0;
    while (d->due > 0) {
        ssize_t n = read(d->sink, some, d->due < sizeof some ? d->due : sizeof some);
        CHECK_GT(n, 0);
        d->due -= (size_t)n;
    }
    return 0;
}

static inline void file_to_file(struct day *d)
{
    int to = new_file(d, 0);
    copy_between(d, from_file(d), to, to);
}

static inline void file_to_appended(struct day *d)
{
    int to = new_file(d, O_APPEND);
    copy_between(d, from_file(d), to, to);
}

static inline void file_to_pipe(struct day *d)
{
    copy_between(d, from_file(d), d->pipe[1], d->pipe[0]);
}

static inline void file_to_full_pipe(struct day *d)
{
    file_to_pipe(d);
    fill_up(d, d->to);
    someone(d, empties_sink);
}

static inline void file_to_full_stream(struct day *d)
{
    int other, to = more_stream(d, true, &other);
    copy_between(d, from_file(d), to, other);
    fill_up_stream(d, to);
    someone(d, empties_sink);
}

/* Which does not say what of it is cached. */
static inline void memory_to_stream(struct day *d)
{
    int other, to = more_stream(d, true, &other), from = memfd_create("day", MFD_CLOEXEC);
    copy_between(d, keep(d, from), to, other);
    feed(from, DAY_COPY);
    CHECK_EQ(lseek(from, 0, SEEK_SET), 0);
}

static inline void pipe_to_file(struct day *d)
{
    int to = new_file(d, 0);
    copy_between(d, d->pipe[0], to, to);
    someone(d, feeds_pipe);
}

static inline void pipe_to_appended(struct day *d)
{
    int to = new_file(d, O_APPEND);
    copy_between(d, d->pipe[0], to, to);
    someone(d, feeds_pipe);
}

static inline void pipe_to_pipe(struct day *d)
{
    int to, sink = more_pipe(d, &to);
    copy_between(d, d->pipe[0], to, sink);
    someone(d, feeds_pipe);
}

static inline void pipe_to_full_pipe(struct day *d)
{
    int to, sink = more_pipe(d, &to);
    copy_between(d, d->pipe[0], to, sink);
    feed(d->pipe[1], DAY_COPY);
    fill_up(d, to);
    someone(d, empties_sink);
}

static inline void pipe_to_stream(struct day *d)
{
    int other, to = more_stream(d, true, &other);
    copy_between(d, d->pipe[0], to, other);
    someone(d, feeds_pipe);
}

/* The source's other end is foreign_peer for the time. */
static inline void from_stream(struct day *d, bool ours, int to, int sink)
{
    copy_between(d, more_stream(d, ours, &d->foreign_peer), to, sink);
    someone(d, feeds_stream);
}

static inline void stream_to_pipe(struct day *d)
{
    from_stream(d, true, d->pipe[1], d->pipe[0]);
}

static inline void stream_to_file(struct day *d)
{
    int to = new_file(d, 0);
    from_stream(d, true, to, to);
}

static inline void stream_to_appended(struct day *d)
{
    int to = new_file(d, O_APPEND);
    from_stream(d, true, to, to);
}

static inline void stream_to_stream(struct day *d)
{
    int other, to = more_stream(d, true, &other);
    from_stream(d, true, to, other);
}

static inline void foreign_to_pipe(struct day *d)
{
    from_stream(d, false, d->pipe[1], d->pipe[0]);
}

static inline void foreign_to_file(struct day *d)
{
    int to = new_file(d, 0);
    from_stream(d, false, to, to);
}

static inline void foreign_to_stream(struct day *d)
{
    int other, to = more_stream(d, true, &other);
    from_stream(d, false, to, other);
}

static inline void much_foreign_to_pipe(struct day *d)
{
    int other;
    copy_between(d, more_stream(d, false, &other), d->pipe[1], d->pipe[0]);
    d->size = DAY_COPY_BIG;
    feed(other, d->size);
}

static inline void pipe_to_tcp(struct day *d)
{
    need_streams(d);
    copy_between(d, d->pipe[0], d->p.fd, d->p.peer);
    someone(d, feeds_pipe);
}

/* What has arrived of the copy is that part of the source, and no byte more. */
static inline void check_arrived(struct day *d, size_t n)
{
    static unsigned char there[DAY_COPY_BIG + 1];
    bool file = lseek(d->sink, 0, SEEK_CUR) >= 0;
    for (size_t at = 0; at < n;) {
        ssize_t k = file ? pread(d->sink, there + at, sizeof there - at, (off_t)(d->done + at))
                         : read(d->sink, there + at, n - at);
        CHECK_GT(k, 0);
        at += (size_t)k;
        CHECK_LE(at, n);
    }
    int more = 0;
    if (!file)
        CHECK_EQ(ioctl(d->sink, FIONREAD, &more), 0);
    CHECK_EQ(more, 0);
    check_pattern(there, n, d->done);
}

/* Goes on where the last one stopped. */
static inline ssize_t copy_on(struct day *d)
{
    ssize_t n = reeve_copy(d->to, d->from, d->size - d->done, LONG);
    if (n > 0 && !d->lies)
        check_arrived(d, (size_t)n);
    d->done += n > 0 ? (size_t)n : 0;
    return n;
}

static inline ssize_t tee_pipe(struct day *d)
{
    ssize_t n = reeve_tee(d->to, d->from, DAY_COPY, LONG);
    int more = 0;
    if (n <= 0 || d->lies)
        return n;
    check_arrived(d, (size_t)n);
    CHECK_EQ(ioctl(d->from, FIONREAD, &more), 0);
    CHECK_EQ(more, DAY_COPY);
    return n;
}

/* ---- programs -------------------------------------------------------------------------------- */

static inline struct reeve_exec cat(void)
{
    static char name[] = "cat";
    static char *const argv[] = { name, NULL };
    return (struct reeve_exec){ .argv = argv };
}

/* A wait that went wrong leaves the program as it was. */
static inline ssize_t start_and_wait(struct day *d)
{
    struct reeve_exec exec = cat();
    struct reeve_ended ended = { .status = -1 };
    reeve_proc *p;
    (void)d;
    int r = reeve_proc_start(&p, &exec, LONG);
    if (r < 0)
        return r;
    r = reeve_proc_wait(p, &ended, LONG);
    if (r < 0)
        CHECK_EQ(reeve_proc_wait(p, &ended, LONG), 0);
    CHECK_EQ(ended.status, 0);
    return r;
}

static inline ssize_t start_and_stop(struct day *d)
{
    struct reeve_exec exec = cat();
    struct reeve_ended ended = { 0 };
    int in[] = { d->pipe[0] };
    reeve_proc *p;
    exec.fds = in;
    exec.fds_n = 1;
    int r = reeve_proc_start(&p, &exec, LONG);
    if (r < 0)
        return r;
    r = reeve_proc_stop(p, &ended, LONG);
    CHECK(WIFSIGNALED(ended.status));
    return r;
}

/* Through so many programs, each of which passes on what it reads. */
static inline ssize_t through_programs(const struct day *d, size_t programs, size_t len)
{
    static char in[DAY_PROGRAM], out[DAY_PROGRAM + 1];
    struct reeve_exec execs[] = { cat(), cat() };
    struct reeve_io io = { .in = { in, len }, .out = out, .out_max = sizeof out };
    fill_pattern((unsigned char *)in, len, 0);
    int r = programs == 1 ? reeve_proc_run(execs, &io, LONG)
                          : reeve_proc_chain(execs, programs, &io, LONG);
    if (r == 0 && !d->lies) {
        CHECK_EQ(io.status, 0);
        CHECK_EQ(io.out_len, len);
        check_pattern((unsigned char *)out, len, 0);
    }
    return r;
}

static inline ssize_t run_cat(struct day *d)
{
    return through_programs(d, 1, DAY_PROGRAM);
}

static inline ssize_t run_two_cats(struct day *d)
{
    return through_programs(d, 2, 100);
}

/* ---- the table ------------------------------------------------------------------------------- */

enum {
    SOME = 1,       /* a success may be a part of it */
    CONNECTS = 2,   /* a connect that is interrupted goes on by itself: it is not made again */
    AS_IS = 4,      /* the next call goes on where this one stopped: nothing is to be prepared */
    OUTLIVES = 8,   /* it succeeds although one operation has failed */
    POOLED = 16,    /* no operation at all: the pool for blocking calls does it */
    TRUE_ONLY = 32, /* it is told no lies, for the reason that stands there */
    PROGRAMS = 64,  /* it costs some ms */
    GOES_ON = 256,  /* what went well before counts, or it does without what failed */
    RING_ONLY = 128, /* not in a simulation, for the reason that stands there */
};

struct row {
    const char *name;
    void (*prepare)(struct day *d); /* NULL: nothing */
    ssize_t (*call)(struct day *d);
    ssize_t whole;                  /* what a success says */
    unsigned how;
};

static const struct row rows[] = {
    { "read of a stream", hello, stream_read, 5, SOME },
    { "lease there and back", hello_and_listening, buf_echo, 5, SOME },
    { "leases there and back", hello_and_listening, leases_there_and_back, 5, SOME },
    { "write to a stream", listening, stream_write, 1000, 0 },
    { "pieces to a stream", listening, stream_sendv, 30, 0 },
    { "pieces from a stream", hello, stream_recvv, 5, SOME },
    { "sendmsg to a stream", listening, stream_sendmsg, 100, 0 },
    { "send without copying", listening, send_without_copying, 1000, 0 },
    { "read of a foreign socket", foreign_hello, foreign_read, 5, SOME },
    { "lease of a foreign socket", foreign_hello, foreign_lease, 5, SOME },
    { "accept", someone_connects, accept_one, 0, 0 },
    { "dial", need_streams, dial_one, 0, CONNECTS },
    { "dial of a name", a_name, dial_name, 0, CONNECTS },
    { "dial of a name with two addresses", a_name, dial_two_addresses, 0, OUTLIVES | CONNECTS },
    { "address of a name", a_name, look_up_name, 0, POOLED },

    { "write to a pipe", NULL, pipe_write, 10, 0 },
    { "pieces to a pipe", NULL, pipe_sendv, 30, 0 },
    { "read of a pipe", pipe_hello, pipe_read, 5, SOME },
    { "pieces from a pipe", pipe_hello, pipe_recvv, 5, SOME },
    { "poll", NULL, wait_readable, POLLIN, 0 },
    { "poll for room", NULL, wait_writable, POLLOUT, 0 },
    { "read of an eventfd", NULL, event_read, 8, 0 },
    { "read of an eventfd that nobody has written to yet", event_later, event_read, 8, 0 },
    /* Half of a number or of a record is nothing that these could say. */
    { "write to an eventfd", NULL, event_write, 8, TRUE_ONLY },
    { "signal", a_signal, signal_next, 0, TRUE_ONLY },
    { "inotify", a_change, change_next, 0, TRUE_ONLY },

    { "send of a datagram", NULL, dgram_send, 10, 0 },
    { "receive of a datagram", dgram_hello, dgram_recv, 5, 0 },
    { "pieces in a datagram", NULL, dgram_sendv, 30, 0 },
    { "datagram into pieces", dgram_hello, dgram_recvv, 5, 0 },
    { "sendmsg of a datagram", NULL, dgram_sendmsg, 100, 0 },
    { "recvmsg of a datagram", dgram_hello, dgram_recvmsg, 5, 0 },
    { "send of many", NULL, dgram_sendmmsg, MANY, SOME | GOES_ON },
    { "receive of many", dgram_many, dgram_recvmmsg, MANY, SOME },
    { "send of segments", NULL, dgram_segments, 30, SOME | GOES_ON },
    { "receive of segments", dgram_hello, dgram_recv_segments, 5, 0 },
    { "send to an address", named_sockets, send_to_name, 10, 0 },
    { "receive with the sender's address", named_hello, recv_from_name, 5, 0 },
    { "send of a packet", packets, packet_send, 10, 0 },
    { "write of a packet", packets, packet_write, 10, 0 },
    { "receive of a packet", packet_hello, packet_recv, 5, 0 },
    { "read of a packet", packet_hello, packet_read, 5, 0 },
    { "read of a Unix stream", unix_hello, unix_read, 5, SOME },
    { "write to a Unix stream", unix_pair, unix_write, 1000, 0 },
    { "sendmsg to a Unix stream", unix_pair, unix_sendmsg, 100, 0 },
    { "recvmsg from a Unix stream", unix_hello, unix_recvmsg, 5, SOME },
    { "send of a descriptor", unix_pair, fd_send, 1, 0 },
    { "send of a stream's descriptor", two_pairs, fd_send_stream, 1, 0 },
    /* Where there is no message there is no control data either, and it would be looked at. */
    { "receive of a descriptor", an_fd_comes, fd_recv, 1, TRUE_ONLY },

    { "line of a stream", a_line, next_line, 1, AS_IS },
    { "line of a pipe", a_line_in_a_pipe, next_line, 1, AS_IS },
    { "record with a delimiter", a_line_in_a_pipe, next_until, 1, AS_IS },
    /* A length that never came could be any. */
    { "record behind its length", a_sized_record, next_sized, 1, AS_IS | TRUE_ONLY },
    { "record of so many bytes", bytes_in_a_pipe, next_bytes, 1, AS_IS },

    { "open", NULL, file_open, 0, 0 },
    { "open with all options", NULL, file_open_with, 0, 0 },
    { "pread", NULL, file_read, 100, 0 },
    { "preadv", NULL, file_readv, 30, 0 },
    { "pwrite", NULL, file_write, 100, 0 },
    { "pwritev", NULL, file_vector, 30, 0 },
    { "pread of an aligned buffer", NULL, aligned_read, 4096, 0 },
    { "pwrite of an aligned buffer", NULL, aligned_write, 4096, 0 },
    { "fsync", NULL, file_fsync, 0, 0 },
    { "fdatasync", NULL, file_sync, 0, 0 },
    { "statx", NULL, file_stat, 0, 0 },
    { "statx of a name", NULL, name_stat, 0, 0 },
    { "fallocate", NULL, file_allocate, 0, 0 },
    { "ftruncate", NULL, file_truncate, 0, 0 },
    { "fadvise", NULL, file_advise, 0, 0 },
    { "rename", names, file_rename, 0, 0 },
    { "link", names, file_link, 0, 0 },
    { "symlink", names, file_symlink, 0, 0 },
    { "unlink", names, file_unlink, 0, 0 },
    { "mkdir", names, make_directory, 0, 0 },
    { "rmdir", a_directory, remove_directory, 0, 0 },
    { "directory", three_entries, read_directory, 3, 0 },
    { "append to a log", a_log, log_append, 0, 0 },
    { "append to a log with zeroes ahead", a_log_with_zeroes_ahead, log_append, 0, GOES_ON },
    { "append later, and sync", a_log, log_append_and_sync, 0, 0 },
    { "log from beginning to end", NULL, log_life, 0, GOES_ON },

    { "copy of a file to a file", file_to_file, copy_on, DAY_COPY, AS_IS | POOLED },
    { "copy of a file to the end of one", file_to_appended, copy_on, DAY_COPY, SOME | AS_IS },
    { "copy of a file to a pipe", file_to_pipe, copy_on, DAY_COPY, SOME | AS_IS },
    { "copy of a file to a full pipe", file_to_full_pipe, copy_on, DAY_COPY, SOME | AS_IS },
    /* These would wait for what they were told to be in their own pipe, which nobody else has. */
    { "copy of a file to a full stream", file_to_full_stream, copy_on, DAY_COPY,
      SOME | AS_IS | TRUE_ONLY },
    { "copy of memory to a stream", memory_to_stream, copy_on, DAY_COPY,
      SOME | AS_IS | TRUE_ONLY },
    { "copy of a pipe to a file", pipe_to_file, copy_on, DAY_COPY, SOME | AS_IS },
    { "copy of a pipe to the end of a file", pipe_to_appended, copy_on, DAY_COPY, SOME | AS_IS },
    { "copy of a pipe to a pipe", pipe_to_pipe, copy_on, DAY_COPY, SOME | AS_IS },
    { "copy of a pipe to a full pipe", pipe_to_full_pipe, copy_on, DAY_COPY, SOME | AS_IS },
    { "copy of a pipe to a stream", pipe_to_stream, copy_on, DAY_COPY, SOME | AS_IS },
    /* Sockets that are played cannot be spliced. */
    { "copy of a pipe to TCP", pipe_to_tcp, copy_on, DAY_COPY, SOME | AS_IS | RING_ONLY },
    { "copy of a stream to a pipe", stream_to_pipe, copy_on, DAY_COPY, SOME | AS_IS },
    { "copy of a stream to a file", stream_to_file, copy_on, DAY_COPY, SOME | AS_IS },
    { "copy of a stream to the end of a file", stream_to_appended, copy_on, DAY_COPY,
      SOME | AS_IS },
    { "copy of a stream to a stream", stream_to_stream, copy_on, DAY_COPY, SOME | AS_IS },
    { "copy of a foreign socket to a pipe", foreign_to_pipe, copy_on, DAY_COPY, SOME | AS_IS },
    { "copy of a foreign socket to a file", foreign_to_file, copy_on, DAY_COPY, SOME | AS_IS },
    { "copy of a foreign socket to a stream", foreign_to_stream, copy_on, DAY_COPY, SOME | AS_IS },
    { "copy of much to a pipe", much_foreign_to_pipe, copy_on, DAY_COPY_BIG, SOME | AS_IS },
    { "tee", pipe_to_pipe, tee_pipe, DAY_COPY, AS_IS },

    { "program", NULL, start_and_wait, 0, PROGRAMS },
    { "program that is stopped", NULL, start_and_stop, 0, PROGRAMS | OUTLIVES },
    { "program on bytes", NULL, run_cat, 0, PROGRAMS },
    { "chain of programs", NULL, run_two_cats, 0, PROGRAMS },
};

enum { ROWS = sizeof rows / sizeof *rows };

static const int results[] = { -ECANCELED, -EINTR,   -ENOMEM, -EAGAIN, 1,       0,      -ECONNRESET,
                               -EPIPE,     -ENOBUFS, -EMFILE, -EIO,    -EFAULT, -ENOSPC };

enum { RESULTS = sizeof results / sizeof *results };

/* ---- what is sane ---------------------------------------------------------------------------- */

/* Whether such an operation could say this, see (2): a count of bytes, or that something is ready;
 * but no descriptor, no buffer and no success of something that was to happen. */
static inline bool may_say(const struct row *row, struct answered a, int result)
{
    if (result < 0)
        return true;
    if (row->how & TRUE_ONLY)
        return false;
    if (a.code == RV_OP_REQUEST) {
        struct rv_req req = { .opcode = a.opcode };
        return rv_req_counts_bytes(&req) || (a.opcode == IORING_OP_POLL_ADD && result == 1);
    }
    return a.code == RV_OP_RECV || a.code == RV_OP_RECV_MULTI || a.code == RV_OP_READ ||
           a.code == RV_OP_WRITE || a.code == RV_OP_SEND || a.code == RV_OP_SEND_ZC ||
           (a.code == RV_OP_RECV_PICK && result == 0);
}

static inline void strange(const struct row *row, int result, unsigned skip, ssize_t got,
                           const char *what)
{
    check_failed(__FILE__, __LINE__, "%s, operation %u told %d, said %zd: %s", row->name, skip,
                 result, got, what);
}

/* Nothing has happened to it: it is made again, by the io layer or by the stream. Nobody has asked
 * for a cancellation, so one that comes says that the kernel had no thread for it, for a moment. */
static inline bool is_made_again(const struct row *row, struct answered a, int result)
{
    bool unasked = result == -ECANCELED && a.code != RV_OP_SEND_ZC;
    return !(row->how & CONNECTS) && (result == -EINTR || result == -EAGAIN || unasked);
}

/* To have written nothing is no progress, and no reason: it is never taken for a success. */
static inline bool is_nothing(struct answered a, int result)
{
    bool writes = a.code == RV_OP_SEND || a.code == RV_OP_WRITE;
    bool request = a.code == RV_OP_REQUEST &&
                   (a.opcode == IORING_OP_WRITE || a.opcode == IORING_OP_WRITEV);
    return result == 0 && (writes || request);
}

/* Whether the call may succeed although this has failed: a stream receives again, or ahead; what
 * cannot be sent without a copy is copied. What is durable, and how long a file is, no call says
 * for itself. */
static inline bool is_survived(const struct row *row, struct answered a, int result)
{
    bool file = a.code == RV_OP_REQUEST &&
                (a.opcode == IORING_OP_FSYNC || a.opcode == RV_URING_OP_FTRUNCATE);
    return row->how & OUTLIVES || is_made_again(row, a, result) || a.code == RV_OP_RECV_MULTI ||
           (a.code == RV_OP_RECV_PICK && result == -ENOBUFS) ||
           (a.code == RV_OP_SEND_ZC && (result == -ENOMEM || result == -ENOBUFS)) ||
           (row->how & (AS_IS | GOES_ON) && !file);
}

/* Everything that the call may say. */
static inline bool is_sane(const struct row *row, struct answered a, int result, ssize_t got)
{
    if (!a.met)
        return got == row->whole || (row->how & SOME && !(row->how & AS_IS) && got > 0);
    if (is_nothing(a, result) && got == row->whole)
        return row->how & (AS_IS | GOES_ON);
    if (result >= 0) /* what is half there is an error */
        return (got >= 0 && got <= row->whole) || got == -EIO || got == -EMSGSIZE ||
               got == -EPROTO;
    if (got >= 0)
        return is_survived(row, a, result) &&
               (got == row->whole || (row->how & SOME && got > 0));
    if (result == -ECANCELED && a.code == RV_OP_CONNECT)
        return got == -ENOMEM;
    return got == result && !(row->how & OUTLIVES) && !is_made_again(row, a, result);
}

/* What ends a stream, or spoils a log, for good. */
static inline bool is_spoilt(struct answered a, int result)
{
    bool passing = result == -ECANCELED || result == -ENOBUFS || result == -EINTR ||
                   result == -EAGAIN;
    return (a.code == RV_OP_RECV_MULTI && !passing);
}

static inline bool is_log(const struct row *row)
{
    return row->call == log_append || row->call == log_append_and_sync;
}

/* The same call, and nothing is wrong any more. */
static inline void call_again(struct day *d, const struct row *row, struct answered a, int result,
                              unsigned skip, ssize_t got)
{
    bool sync = a.code == RV_OP_REQUEST && a.opcode == IORING_OP_FSYNC;
    ssize_t before = got > 0 ? got : 0;
    if (got >= 0 && !(row->how & AS_IS && got < row->whole))
        return;
    if (row->prepare && !(row->how & AS_IS))
        row->prepare(d);
    ssize_t again = row->call(d);
    if (is_spoilt(a, result) || (sync && is_log(row))) {
        if (again != got)
            strange(row, result, skip, again, "it was over");
    } else if (again != row->whole - before && !(row->how & SOME && !before && again > 0)) {
        strange(row, result, skip, again, "the second time");
    }
}

/* One cell of the table; what was met. */
static inline struct answered day_cell(const struct row *row, int result, unsigned skip)
{
    static struct day d;
    set_up(&d);
    d.lies = result >= 0;
    if (row->prepare)
        row->prepare(&d);
    uint64_t retries = COUNTER(retries);
    tell(skip, result);
    ssize_t got = row->call(&d);
    struct answered a = told();
    if (!is_sane(row, a, result, got))
        strange(row, result, skip, got, "that is not sane");
    bool counted = a.code != RV_OP_RECV_MULTI && a.code != RV_OP_SEND_ZC;
    if (a.met && counted && is_made_again(row, a, result) && COUNTER(retries) <= retries)
        strange(row, result, skip, got, "it was not made again");
    if (result < 0)
        call_again(&d, row, a, result, skip, got);
    tear_down(&d);
    return a;
}

#endif
