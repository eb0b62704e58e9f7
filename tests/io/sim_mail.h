/* SPDX-License-Identifier: MIT */
/*
 * sim_mail.h -- the scenario of messages: senders, each with a way to one box, by every call that
 * moves messages, over UDP that is played and over Unix sockets that are real.
 *
 * A letter says who wrote it, which it is and how long, and the rest of it follows from that. So
 * whoever receives one knows what was sent: each is there whole or cut where there was no room, at
 * most once, and never one whose sender was told that it failed. Where nothing gets lost, each one
 * that was sent is there in the end, and to a box with one reader those of a sender come in order.
 *
 * Wild runs have faults, deadlines and cancelled calls; some of them lose letters, some let them
 * overtake each other, and in some sockets are closed under those who wait.
 */
#ifndef TESTS_IO_SIM_MAIL_H
#define TESTS_IO_SIM_MAIL_H

#include "tests/io/sim_seeds.h"

#include <dirent.h>
#include <netinet/in.h>
#include <poll.h>
#include <reeve/fd.h>
#include <reeve/reeve.h>
#include <reeve/socket.h>

#define BOXES 3
#define SENDERS 6
#define LETTERS 24
#define LETTER_LEAST 5u
#define LETTER_MOST 700u
#define BATCH 4
#define FDS_MOST 3
#define BOX_PORT 7000
#define SENDER_PORT 7100
#define LOOKS_MOST 20000

enum mail_kind { UDP4, UDP6, UDP_ANY, UNIX_DGRAM, UNIX_PACKET, UNIX_NAMED, MAIL_KINDS };
enum letter_state { UNSENT, SENDING, SENT, FAILED };

struct mail;

struct box {
    struct mail *mail;
    enum mail_kind kind;
    int fd, readers;
    int other; /* of a pair: where its senders write; -1: none */
    bool closed, other_closed;
    uint32_t sent, got;             /* letters, and those without bytes: */
    uint32_t empties, empties_sent, empties_got;
    int last[SENDERS];              /* that was received */
};

struct sender {
    struct mail *mail;
    struct box *box;
    int id, fd, next;
    bool connected, closed;
    struct sockaddr_storage to, seen; /* seen: where its letters come from */
    socklen_t to_len, seen_len;
    struct {
        uint8_t state, got, fds;
        uint16_t len;
    } letter[LETTERS];
};

struct mail {
    bool wild, loses, reorders, closes;
    bool over;  /* readers may leave */
    uint32_t cut, failed, late;
    int boxes, senders;
    struct box box[BOXES];
    struct sender sender[SENDERS];
};

static inline bool is_udp(const struct box *b)
{
    return b->kind <= UDP_ANY;
}

static inline bool is_pair(const struct box *b)
{
    return b->kind == UNIX_DGRAM || b->kind == UNIX_PACKET;
}

/* ---- letters --------------------------------------------------------------------------------- */

static inline unsigned char letter_byte(int id, int n, uint32_t i)
{
    return (unsigned char)(id * 61 + n * 17 + (int)i * 3 + (int)(i >> 8) + 1);
}

static inline uint32_t write_letter(struct sender *s, int n, uint32_t len, unsigned char *bytes)
{
    s->letter[n].len = (uint16_t)len;
    s->letter[n].state = SENDING;
    for (uint32_t i = LETTER_LEAST; i < len; i++)
        bytes[i] = letter_byte(s->id, n, i);
    bytes[0] = (unsigned char)s->id;
    bytes[1] = (unsigned char)n;
    bytes[2] = (unsigned char)len;
    bytes[3] = (unsigned char)(len >> 8);
    bytes[4] = letter_byte(s->id, n, 4);
    return len;
}

static inline uint32_t draw_len(void)
{
    return LETTER_LEAST + rv_sim_draw(rv_sim_chance(700) ? 60 : LETTER_MOST - LETTER_LEAST + 1);
}

/* A letter lies there, or as much of it as there was room for. */
static inline struct sender *read_letter(struct box *b, const unsigned char *bytes, size_t len,
                                         size_t room)
{
    CHECK_GE(len, LETTER_LEAST);
    CHECK_LT(bytes[0], b->mail->senders);
    CHECK_LT(bytes[1], LETTERS);
    struct sender *s = &b->mail->sender[bytes[0]];
    int n = bytes[1];
    uint32_t whole = s->letter[n].len;
    CHECK(s->box == b);
    CHECK(s->letter[n].state == SENDING || s->letter[n].state == SENT);
    CHECK_EQ(bytes[2] | bytes[3] << 8, whole);
    CHECK_EQ(len, whole < room ? whole : room);
    for (uint32_t i = LETTER_LEAST - 1; i < len; i++)
        CHECK_EQ(bytes[i], letter_byte(s->id, n, i));
    CHECK_EQ(s->letter[n].got++, 0);
    if (b->readers == 1 && !b->mail->reorders) {
        CHECK_GT(n, b->last[s->id]);
        b->last[s->id] = n;
    }
    b->got++;
    b->mail->cut += len < whole;
    rv_sim_note((uint64_t)s->id << 8 | (uint64_t)n, (int64_t)len);
    return s;
}

static inline void check_sender(struct sender *s, const struct sockaddr_storage *from,
                                socklen_t len)
{
    if (!is_udp(s->box))
        return;
    CHECK_EQ(len, s->box->kind == UDP4 ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
    if (s->seen_len == 0) {
        s->seen = *from;
        s->seen_len = len;
    }
    CHECK_EQ(len, s->seen_len);
    CHECK_MEM_EQ(from, &s->seen, len);
    if (!s->connected) /* in both families the port stands there */
        CHECK_EQ(((const struct sockaddr_in *)from)->sin_port, htons(SENDER_PORT + s->id));
}

/* n: what a call said that has room for so many bytes. */
static inline struct sender *take(struct box *b, const unsigned char *bytes, ssize_t n, size_t room)
{
    if (n == -EMSGSIZE)
        n = (ssize_t)room;
    if (n > 0)
        return read_letter(b, bytes, (size_t)n, room);
    if (n == 0 && !b->closed) {
        CHECK(b->kind != UNIX_PACKET || b->other_closed);
        if (b->kind != UNIX_PACKET)
            CHECK_LT(b->empties_got++, b->empties);
    }
    return NULL;
}

/* ---- what may go wrong ----------------------------------------------------------------------- */

static inline reeve_time perhaps_soon(const struct mail *m)
{
    return m->wild && rv_sim_chance(300) ? reeve_in(rv_sim_draw(20000)) : 0;
}

static inline bool by_close(ssize_t r)
{
    return r == -EBADF || r == -ECANCELED || r == -ECONNREFUSED || r == -EPIPE ||
           r == -ECONNRESET || r == -ENOTCONN;
}

static inline void check_failure(const struct mail *m, ssize_t r, bool closed)
{
    bool fault = m->wild && (r == -ETIMEDOUT || r == -ECANCELED || r == -ENOMEM || r == -ENOBUFS);
    if (!fault && !(closed && by_close(r)))
        check_failed(__FILE__, __LINE__, "a call failed: %s", strerror((int)-r));
}

static inline bool nobody_listens(const struct sender *s)
{
    return s->closed || s->box->closed || s->box->other_closed;
}

/* Of `count` letters from `next` on the first `sent` have gone, or r says why they have not. */
static inline void settle(struct sender *s, int count, int sent, ssize_t r)
{
    struct mail *m = s->mail;
    if (sent < count && r < 0)
        check_failure(m, r, nobody_listens(s));
    m->late += r == -ETIMEDOUT || r == -ECANCELED;
    for (int i = 0; i < count; i++) {
        int n = s->next + i;
        s->letter[n].state = i < sent ? SENT : FAILED;
        if (i >= sent)
            CHECK_EQ(s->letter[n].got, 0);
    }
    s->box->sent += (uint32_t)sent;
    m->failed += (uint32_t)(count - sent);
    rv_sim_note((uint64_t)s->id, r);
}

/* ---- sending --------------------------------------------------------------------------------- */

static inline const struct sockaddr *to_of(const struct sender *s)
{
    return s->connected ? NULL : (const struct sockaddr *)&s->to;
}

static inline void send_one(struct sender *s, bool empty)
{
    unsigned char bytes[LETTER_MOST];
    uint32_t len = empty ? 0 : write_letter(s, s->next, draw_len(), bytes);
    socklen_t to_len = s->connected ? 0 : s->to_len;
    s->box->empties += empty;
    ssize_t r = reeve_sendto(s->fd, bytes, len, to_of(s), to_len, perhaps_soon(s->mail));
    CHECK(r < 0 || r == (ssize_t)len);
    if (!empty) {
        settle(s, 1, r > 0, r);
        return;
    }
    s->box->empties_sent += r == 0;
    if (r < 0)
        check_failure(s->mail, r, nobody_listens(s));
}

static inline void cut_up(unsigned char *bytes, uint32_t len, struct iovec piece[3])
{
    uint32_t a = rv_sim_draw(len + 1), b = rv_sim_draw(len - a + 1);
    piece[0] = (struct iovec){ bytes, a };
    piece[1] = (struct iovec){ bytes + a, b };
    piece[2] = (struct iovec){ bytes + a + b, len - a - b };
}

static inline void send_pieces_of_one(struct sender *s)
{
    unsigned char bytes[LETTER_MOST];
    struct iovec piece[3];
    uint32_t len = write_letter(s, s->next, draw_len(), bytes);
    cut_up(bytes, len, piece);
    struct msghdr msg = { .msg_name = (void *)(uintptr_t)to_of(s),
                          .msg_namelen = s->connected ? 0 : s->to_len,
                          .msg_iov = piece, .msg_iovlen = 3 };
    bool now = rv_sim_chance(200);
    ssize_t r = s->connected && rv_sim_chance(512)
                    ? reeve_sendv(s->fd, piece, 3, perhaps_soon(s->mail))
                    : reeve_sendmsg(s->fd, &msg, now ? MSG_DONTWAIT : 0, perhaps_soon(s->mail));
    CHECK(r < 0 || r == (ssize_t)len);
    settle(s, 1, r > 0, now && r == -EAGAIN ? 0 : r);
}

static inline int batch_of(const struct sender *s)
{
    int n = 1 + (int)rv_sim_draw(BATCH);
    return n < LETTERS - s->next ? n : LETTERS - s->next;
}

static inline void send_many(struct sender *s)
{
    unsigned char bytes[BATCH][LETTER_MOST];
    struct iovec piece[BATCH];
    struct mmsghdr msgs[BATCH] = { 0 };
    int count = batch_of(s);
    for (int i = 0; i < count; i++) {
        piece[i] = (struct iovec){ bytes[i], write_letter(s, s->next + i, draw_len(), bytes[i]) };
        msgs[i].msg_hdr = (struct msghdr){ .msg_name = (void *)(uintptr_t)to_of(s),
                                           .msg_namelen = s->connected ? 0 : s->to_len,
                                           .msg_iov = &piece[i], .msg_iovlen = 1 };
    }
    int r = reeve_sendmmsg(s->fd, msgs, (unsigned)count, 0, perhaps_soon(s->mail));
    for (int i = 0; i < r; i++)
        CHECK_EQ(msgs[i].msg_len, piece[i].iov_len);
    settle(s, count, r > 0 ? r : 0, r);
}

/* The last one is shorter. */
static inline void send_cut(struct sender *s)
{
    unsigned char bytes[BATCH * 100];
    int count = batch_of(s);
    uint32_t segment = 20 + rv_sim_draw(80), len = 0;
    for (int i = 0; i < count; i++)
        len += write_letter(s, s->next + i, i < count - 1 ? segment : 5 + rv_sim_draw(15),
                            bytes + len);
    ssize_t r = reeve_send_segments(s->fd, bytes, len, segment, to_of(s),
                                    s->connected ? 0 : s->to_len, perhaps_soon(s->mail));
    CHECK(r < 0 || r == (ssize_t)len || r % segment == 0);
    settle(s, count, r < 0 ? 0 : (int)((r + segment - 1) / segment), r < 0 ? r : 0);
}

/* From one lease, or from two. False: there is none to be had. */
static inline bool send_leases(struct sender *s)
{
    struct reeve_buf *buf[2];
    unsigned char bytes[LETTER_MOST];
    size_t n = 1 + rv_sim_draw(2);
    for (size_t i = 0; i < n; i++) {
        int r = reeve_buf_borrow(&buf[i], reeve_in(rv_sim_draw(20000)));
        if (r == 0)
            continue;
        CHECK(r == -ETIMEDOUT || (s->mail->wild && r == -ECANCELED));
        if (i > 0)
            reeve_buf_return(buf[0]);
        return false;
    }
    if (nobody_listens(s)) { /* it has become so meanwhile */
        for (size_t i = 0; i < n; i++)
            reeve_buf_return(buf[i]);
        return true;
    }
    uint32_t len = write_letter(s, s->next, LETTER_LEAST + rv_sim_draw(200), bytes);
    uint32_t first = n == 1 ? len : rv_sim_draw(len + 1);
    memcpy(buf[0]->data, bytes, buf[0]->len = first);
    if (n == 2)
        memcpy(buf[1]->data, bytes + first, buf[1]->len = len - first);
    ssize_t r = n == 1 ? reeve_buf_send(s->fd, buf[0], perhaps_soon(s->mail))
                       : reeve_buf_sendv(s->fd, buf, n, perhaps_soon(s->mail));
    CHECK(r < 0 || r == (ssize_t)len);
    settle(s, 1, r > 0, r);
    return true;
}

static inline void send_plain(struct sender *s)
{
    unsigned char bytes[LETTER_MOST];
    uint32_t len = write_letter(s, s->next, draw_len(), bytes);
    ssize_t r = reeve_write(s->fd, bytes, len, perhaps_soon(s->mail));
    CHECK(r < 0 || r == (ssize_t)len);
    settle(s, 1, r > 0, r);
}

/* A file that says whose it is. */
static inline int make_token(int id, int n)
{
    unsigned char text[2] = { (unsigned char)id, (unsigned char)n };
    int fd = memfd_create("token", MFD_CLOEXEC);
    CHECK_GE(fd, 0);
    CHECK_EQ(pwrite(fd, text, sizeof text, 0), sizeof text);
    return fd;
}

static inline void send_tokens(struct sender *s)
{
    unsigned char bytes[LETTER_MOST];
    int fds[FDS_MOST], n = 1 + (int)rv_sim_draw(FDS_MOST);
    uint32_t len = write_letter(s, s->next, draw_len(), bytes);
    for (int i = 0; i < n; i++)
        fds[i] = make_token(s->id, s->next);
    s->letter[s->next].fds = (uint8_t)n;
    ssize_t r = reeve_fd_send(s->fd, fds, (size_t)n, bytes, len, perhaps_soon(s->mail));
    CHECK(r < 0 || r == (ssize_t)len);
    settle(s, 1, r > 0, r);
    for (int i = 0; i < n; i++)
        CHECK_EQ(reeve_close(fds[i]), 0);
}

/* One call, of those that this way takes; `next` is behind it then. */
static inline int send_some(void *arg)
{
    struct sender *s = arg;
    bool unixlike = !is_udp(s->box);
    int before = s->next;
    if (nobody_listens(s))
        return 0;
    switch (rv_sim_draw(8)) {
    case 0:
        send_one(s, false);
        break;
    case 1:
        send_many(s);
        break;
    case 2:
        if (s->box->kind != UNIX_PACKET)
            send_one(s, true);
        return 0;
    case 3:
        send_cut(s);
        break;
    case 4:
        if (s->connected && !send_leases(s))
            return 0;
        break;
    case 5:
        if (s->connected)
            send_plain(s);
        break;
    case 6:
        if (unixlike && s->connected && !s->mail->closes)
            send_tokens(s);
        break;
    default:
        send_pieces_of_one(s);
    }
    for (s->next = before; s->next < LETTERS && s->letter[s->next].state != UNSENT; s->next++)
        ;
    return 0;
}

/* ---- receiving ------------------------------------------------------------------------------- */

static inline size_t draw_room(void)
{
    return rv_sim_chance(150) ? LETTER_LEAST + rv_sim_draw(60) : LETTER_MOST;
}

static inline ssize_t receive_one(struct box *b)
{
    unsigned char bytes[LETTER_MOST];
    struct sockaddr_storage from;
    socklen_t from_len;
    size_t room = draw_room(), segment = 0;
    bool segments = rv_sim_chance(300);
    reeve_time until = perhaps_soon(b->mail);
    ssize_t n = segments
                    ? reeve_recv_segments(b->fd, bytes, room, &segment, &from, &from_len, until)
                    : reeve_recvfrom(b->fd, bytes, room, &from, &from_len, until);
    struct sender *s = take(b, bytes, n, room);
    if (s && n > 0) {
        CHECK_EQ(n, s->letter[bytes[1]].len);
        check_sender(s, &from, from_len);
    }
    if (segments && n >= 0)
        CHECK_EQ(segment, n);
    return n == -EMSGSIZE ? 0 : n;
}

/* Looking at it first changes nothing. */
static inline ssize_t receive_header(struct box *b)
{
    unsigned char bytes[LETTER_MOST] = { 0 }, peeked[sizeof bytes] = { 0 };
    struct sockaddr_storage from;
    size_t room = draw_room(), first = rv_sim_draw((uint32_t)room + 1);
    struct iovec piece[2] = { { bytes, first }, { bytes + first, room - first } };
    struct msghdr msg = { .msg_name = &from, .msg_namelen = sizeof from, .msg_iov = piece,
                          .msg_iovlen = 2 };
    struct msghdr look = { .msg_iov = &(struct iovec){ peeked, room }, .msg_iovlen = 1 };
    bool now = rv_sim_chance(100), peek = b->readers == 1 && rv_sim_chance(200);
    int flags = (rv_sim_chance(300) ? MSG_TRUNC : 0) | (now ? MSG_DONTWAIT : 0);
    ssize_t seen = peek ? reeve_recvmsg(b->fd, &look, MSG_PEEK, perhaps_soon(b->mail)) : -1;
    if (b->closed)
        return 0;
    ssize_t n = reeve_recvmsg(b->fd, &msg, flags, perhaps_soon(b->mail));
    if (now && n == -EAGAIN)
        return 0;
    if (peek && seen > 0 && n > 0)
        CHECK_MEM_EQ(bytes, peeked, (size_t)seen);
    bool cut = n >= 0 && msg.msg_flags & MSG_TRUNC;
    if (flags & MSG_TRUNC && n >= 0)
        CHECK_EQ(cut, n > (ssize_t)room);
    struct sender *s = take(b, bytes, cut ? (ssize_t)room : n, room);
    if (s && flags & MSG_TRUNC)
        CHECK_EQ(n, s->letter[bytes[1]].len);
    if (s)
        check_sender(s, &from, msg.msg_namelen);
    return n;
}

static inline ssize_t receive_many(struct box *b)
{
    unsigned char bytes[BATCH][LETTER_MOST];
    struct iovec piece[BATCH];
    struct mmsghdr msgs[BATCH] = { 0 };
    unsigned count = 1 + rv_sim_draw(BATCH);
    for (unsigned i = 0; i < count; i++) {
        piece[i] = (struct iovec){ bytes[i], LETTER_MOST };
        msgs[i].msg_hdr = (struct msghdr){ .msg_iov = &piece[i], .msg_iovlen = 1 };
    }
    int n = reeve_recvmmsg(b->fd, msgs, count, 0, perhaps_soon(b->mail));
    CHECK_LE(n, (int)count);
    for (int i = 0; i < n; i++)
        take(b, bytes[i], msgs[i].msg_len, LETTER_MOST);
    return n;
}

static inline ssize_t receive_plain(struct box *b)
{
    unsigned char bytes[LETTER_MOST];
    size_t room = draw_room();
    struct iovec piece[3];
    cut_up(bytes, (uint32_t)room, piece);
    bool vector = rv_sim_chance(512);
    ssize_t n = vector ? reeve_recvv(b->fd, piece, 3, perhaps_soon(b->mail))
                       : reeve_read(b->fd, bytes, room, perhaps_soon(b->mail));
    struct sender *s = take(b, bytes, n, room);
    if (s && n > 0 && vector)
        CHECK_EQ(n, s->letter[bytes[1]].len);
    return n == -EMSGSIZE ? 0 : n;
}

/* What does not fit a buffer is cut off. */
static inline ssize_t receive_lease(struct box *b)
{
    struct reeve_buf *buf[2];
    size_t one = 1;
    ssize_t n = rv_sim_chance(512) ? reeve_buf_recv(b->fd, buf, perhaps_soon(b->mail))
                                   : reeve_buf_recvv(b->fd, buf, 2, &one, perhaps_soon(b->mail));
    if (n <= 0) {
        take(b, NULL, n, 0);
        return n;
    }
    CHECK_EQ(one, 1);
    CHECK_EQ(buf[0]->len, n);
    if (b->readers == 1 && rv_sim_chance(300)) /* it is kept for a while */
        (void)reeve_sleep(reeve_in(rv_sim_draw(20000)));
    take(b, buf[0]->data, n, buf[0]->cap);
    reeve_buf_return(buf[0]);
    return n;
}

static inline void check_token(int fd, const unsigned char *bytes)
{
    unsigned char text[2];
    CHECK_EQ(pread(fd, text, sizeof text, 0), sizeof text);
    CHECK_MEM_EQ(text, bytes, sizeof text);
    CHECK_EQ(reeve_close(fd), 0);
}

static inline ssize_t receive_tokens(struct box *b)
{
    unsigned char bytes[LETTER_MOST];
    int fds[FDS_MOST];
    size_t max = rv_sim_chance(800) ? FDS_MOST : rv_sim_draw(FDS_MOST), got = 0;
    size_t room = draw_room();
    ssize_t n = reeve_fd_recv(b->fd, fds, max, &got, bytes, room, perhaps_soon(b->mail));
    if (n == -EMSGSIZE) { /* too many, or too long: all that came with it is closed */
        size_t len = bytes[2] | (size_t)bytes[3] << 8;
        take(b, bytes, (ssize_t)(len < room ? len : room), room);
        return 0;
    }
    struct sender *s = take(b, bytes, n, room);
    if (s)
        CHECK_EQ(got, s->letter[bytes[1]].fds);
    for (size_t i = 0; n >= 0 && i < got; i++)
        check_token(fds[i], bytes);
    return n;
}

static inline ssize_t receive_some(struct box *b)
{
    switch (rv_sim_draw(6)) {
    case 0:
        return receive_header(b);
    case 1:
        return receive_many(b);
    case 2:
        return receive_plain(b);
    case 3:
        return receive_lease(b);
    case 4:
        return is_udp(b) ? receive_one(b) : receive_tokens(b);
    default:
        return receive_one(b);
    }
}

static inline int take_some(void *arg)
{
    struct box *b = arg;
    ssize_t n = 0;
    if (b->closed)
        return 0;
    if (rv_sim_chance(200)) {
        n = reeve_wait_fd(b->fd, POLLIN, perhaps_soon(b->mail));
        if (n >= 0)
            CHECK(n & (POLLIN | POLLERR | POLLHUP));
    }
    if (n >= 0 && !b->closed)
        n = receive_some(b);
    b->mail->late += n == -ETIMEDOUT || n == -ECANCELED;
    if (n < 0 && !(b->mail->over && n == -ECANCELED))
        check_failure(b->mail, n, b->closed || b->other_closed);
    rv_sim_note(99, n);
    return 0;
}

/* ---- tasks ----------------------------------------------------------------------------------- */

/* By this task, or by a child that may be cancelled meanwhile. */
static inline void do_it(const struct mail *m, reeve_fn *fn, void *arg)
{
    reeve_task *t;
    if (!m->wild || !rv_sim_chance(150)) {
        fn(arg);
        return;
    }
    if (reeve_spawn(&t, fn, arg) < 0)
        return;
    (void)reeve_sleep(reeve_in(rv_sim_draw(20000)));
    reeve_cancel(t);
    while (reeve_join(t, NULL, 0) < 0)
        CHECK_EQ(reeve_shield(reeve_in(REEVE_SEC)), 0); /* cancelled ourselves */
}

static inline int send_all_of(void *arg)
{
    struct sender *s = arg;
    while (s->next < LETTERS && !nobody_listens(s)) {
        do_it(s->mail, send_some, s);
        if (rv_sim_chance(100))
            (void)reeve_sleep(reeve_in(rv_sim_draw(10000)));
    }
    return 0;
}

static inline int read_all_of(void *arg)
{
    struct box *b = arg;
    while (!b->mail->over && !b->closed && !(b->other_closed && b->kind == UNIX_PACKET))
        do_it(b->mail, take_some, b);
    return 0;
}

/* Somebody closes a box or a way to it, under those who use it. */
static inline int close_something(void *arg)
{
    struct mail *m = arg;
    (void)reeve_sleep(reeve_in(rv_sim_draw(100000)));
    struct box *b = &m->box[rv_sim_draw((uint32_t)m->boxes)];
    if (is_pair(b) && rv_sim_chance(512)) {
        b->other_closed = true;
        CHECK_EQ(reeve_close(b->other), 0);
        return 0;
    }
    b->closed = true;
    CHECK_EQ(reeve_close(b->fd), 0);
    struct sender *s = &m->sender[rv_sim_draw((uint32_t)m->senders)];
    if (is_pair(s->box))
        return 0;
    s->closed = true;
    CHECK_EQ(reeve_close(s->fd), 0);
    return 0;
}

/* ---- from beginning to end ------------------------------------------------------------------- */

static inline void address_of(const struct mail *m, const struct box *b, bool bind, char text[64])
{
    static const char *const host[] = { "127.0.0.1", "[::1]", "127.0.0.1" };
    int i = (int)(b - m->box);
    if (b->kind == UNIX_NAMED)
        snprintf(text, 64, "unixgram:@reeve-sim-mail-%d-%d", (int)getpid(), i);
    else
        snprintf(text, 64, "udp:%s:%d", bind && b->kind == UDP_ANY ? "*" : host[b->kind],
                 BOX_PORT + i);
}

static inline void open_box(struct mail *m, struct box *b)
{
    char text[64];
    int fds[2];
    b->mail = m;
    b->readers = 1 + (int)rv_sim_draw(2);
    b->other = -1;
    for (int i = 0; i < SENDERS; i++)
        b->last[i] = -1;
    if (is_pair(b)) {
        CHECK_EQ(reeve_socket_pair(b->kind == UNIX_DGRAM ? SOCK_DGRAM : SOCK_SEQPACKET, fds), 0);
        b->fd = fds[0];
        b->other = fds[1];
        return;
    }
    address_of(m, b, true, text);
    b->fd = (int)CHECK_OK(reeve_bind(text));
}

static inline void open_way(struct mail *m, struct sender *s)
{
    char text[64], own[64] = "unixgram:@";
    s->connected = is_pair(s->box) || rv_sim_chance(512);
    s->fd = s->box->other;
    if (is_pair(s->box))
        return;
    address_of(m, s->box, false, text);
    CHECK_EQ(reeve_addr_parse(text, &s->to, &s->to_len), 0);
    if (is_udp(s->box))
        snprintf(own, sizeof own, "udp:%s:%d", s->box->kind == UDP6 ? "[::1]" : "127.0.0.1",
                 SENDER_PORT + s->id);
    s->fd = (int)CHECK_OK(s->connected ? reeve_dial(text, 0) : reeve_bind(own));
}

static inline bool all_there(const struct mail *m)
{
    for (int i = 0; i < m->boxes; i++) {
        const struct box *b = &m->box[i];
        bool open = !b->closed && !(b->other_closed && b->kind == UNIX_PACKET);
        CHECK(b->got <= b->sent && b->empties_got <= b->empties_sent);
        if (open && (b->got < b->sent || b->empties_got < b->empties_sent))
            return false;
    }
    return true;
}

/* Until what is on its way has arrived. */
static inline void await_letters(const struct mail *m)
{
    if (m->loses) {
        CHECK_EQ(reeve_sleep(reeve_in(300 * REEVE_SEC)), 0);
        CHECK(all_there(m) || m->loses);
        return;
    }
    for (int i = 0; !all_there(m); i++) {
        CHECK_LT(i, LOOKS_MOST); /* a letter is lost */
        CHECK_EQ(reeve_sleep(reeve_in(100 * REEVE_MS)), 0);
    }
}

static inline void close_all(struct mail *m)
{
    for (int i = 0; i < m->senders; i++)
        if (!m->sender[i].closed && !is_pair(m->sender[i].box))
            CHECK_EQ(reeve_close(m->sender[i].fd), 0);
    for (int i = 0; i < m->boxes; i++) {
        struct box *b = &m->box[i];
        if (!b->closed)
            CHECK_EQ(reeve_close(b->fd), 0);
        if (b->other >= 0 && !b->other_closed)
            CHECK_EQ(reeve_close(b->other), 0);
    }
}

static inline int mail_root(void *arg)
{
    struct mail *m = arg;
    reeve_task *reader[2 * BOXES], *sender[SENDERS], *closer;
    int readers = 0;
    for (int i = 0; i < m->boxes; i++)
        open_box(m, &m->box[i]);
    for (int i = 0; i < m->senders; i++)
        open_way(m, &m->sender[i]);
    for (int i = 0; i < m->boxes; i++)
        for (int j = 0; j < m->box[i].readers; j++)
            CHECK_OK(reeve_spawn(&reader[readers++], read_all_of, &m->box[i]));
    for (int i = 0; i < m->senders; i++)
        CHECK_OK(reeve_spawn(&sender[i], send_all_of, &m->sender[i]));
    if (m->closes) {
        CHECK_OK(reeve_spawn(&closer, close_something, m));
        CHECK_OK(reeve_join(closer, NULL, 0));
    }
    for (int i = 0; i < m->senders; i++)
        CHECK_OK(reeve_join(sender[i], NULL, 0));
    await_letters(m);
    m->over = true;
    for (int i = 0; i < readers; i++)
        reeve_cancel(reader[i]);
    for (int i = 0; i < readers; i++)
        CHECK_OK(reeve_join(reader[i], NULL, 0));
    close_all(m);
    return 0;
}

static inline int open_files_now(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;
    CHECK(d != NULL);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static struct mail mail;

static inline void mail_run(bool wild, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    uint64_t x = seeds_mix(opts->seed);
    int before = open_files_now();
    mail = (struct mail){ .wild = wild, .boxes = 1 + (int)(x % BOXES),
                          .senders = 1 + (int)(x / 8 % SENDERS) };
    for (int i = 0; i < mail.boxes; i++)
        mail.box[i].kind = (enum mail_kind)(seeds_mix(x + (uint64_t)i) % MAIL_KINDS);
    for (int i = 0; i < mail.senders; i++)
        mail.sender[i] = (struct sender){ .mail = &mail, .id = i,
                                          .box = &mail.box[i % mail.boxes] };
    opts->fn = mail_root;
    opts->arg = &mail;
    opts->faults.shorter = 300; /* which no message may ever be */
    if (wild) {
        mail.loses = x / 64 % 3 == 0;
        mail.reorders = x / 256 % 3 == 0;
        mail.closes = x / 1024 % 4 == 0;
        opts->faults.lose = mail.loses ? 100 : 0;
        opts->faults.reorder = mail.reorders ? 200 : 0;
        opts->faults.eintr = 20;
        opts->faults.eagain = 20;
        opts->faults.nomem = 10;
        opts->faults.nobufs = 10;
    }
    seeds_simulate(opts, ret);
    CHECK_EQ(ret->result, 0);
    CHECK_EQ(open_files_now(), before);
}

static inline void mail_run_quiet(uint64_t seed, struct rv_sim_opts *opts,
                                  struct rv_sim_result *ret)
{
    (void)seed;
    mail_run(false, opts, ret);
}

static inline void mail_run_wild(uint64_t seed, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    (void)seed;
    mail_run(true, opts, ret);
}

#endif
