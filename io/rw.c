/* SPDX-License-Identifier: MIT */
/*
 * rw.c -- reading and writing: what the calls of a task come to.
 *
 * Reads of a connected stream socket that reeve made go through its stream (io/stream.c).
 * Everything else, in both directions, is one op after another on the worker where the task
 * happens to run.
 *
 * The kernel keeps the order of two sends on one socket only if the first has completed before the
 * second is made. So each fd has one writer at a time, who keeps its turn until all of its bytes
 * are out:
 *
 *     free    -> WRITER             [send_all, rv_writer_begin]
 *     WRITER  -> WRITER, another's  [end_turn]     first come, first served
 *     WRITER  -> free               [end_turn]
 *
 * On a stream of ours who gets the turn takes along what those behind him have, if it is not much:
 * one request of several pieces, in the order in which they came. That may send less than all of
 * it; whoever's bytes are out is told so, the others are back in front of the queue, and the next
 * of them has the turn.
 *
 *     waits -> taken    [collect]      by the one who has the turn, op says with which request
 *     taken -> told     [share_out]    all sent, or it wanted to leave
 *     taken -> waits    [share_out]    not all of it, or nothing
 *     waits -> told     [end_wait]     its turn, or never
 *
 * What would be the only request of its submission is not made one: send(2) without waiting, then
 * the ring for what is left. At one connection that halves the entries into the ring.
 *
 * (1) Who has the turn is counted in the slot once, with the op that it uses for piece after piece.
 * (2) Who waits for it is in the list `turns`, its frame on its stack, and is not counted. Whoever
 *     takes it out, under the slot's lock, has set its result, or its op.
 * (3) Who leaves while waiting has sent nothing, unless a request that took it along sent a part.
 * (4) Who has been taken stays until that request has completed: its memory is in use. If its time
 *     is over it says so and asks for the request's end; the others get on without it.
 *
 * Threads: tasks; rv_turns_end - anyone.
 */
#include "io/rw.h"

#include <errno.h>
#include <reeve/net.h>
#include <sys/socket.h>

#include "io/buf.h"
#include "io/fdtab.h"
#include "io/io.h"
#include "io/op.h"
#include "io/req.h"
#include "io/stream.h"
#include "io/uring_compat.h"
#include "io/zc.h"
#include "mem/die.h"
#include "sched/pick.h"
#include "sched/wait.h"

#define PIECE_MAX (UINT32_C(1) << 30) /* bytes of one op: the kernel stops at 2^31 less a page */

/* What one request takes along. More would save nothing, and delay those whose bytes are out. */
#define ALONG_BYTES ((size_t)64 << 10)
#define ALONG_PIECES 64

/* ---- reading --------------------------------------------------------------------------------- */

/* One op into the caller's memory. */
static ssize_t read_once(struct rv_io_worker *iw, enum rv_op_code code, int fd, reeve_time deadline,
                         void *buf, size_t len)
{
    struct rv_op *op = rv_op_take(iw, RV_OPK_TASK, code, fd);
    if (!op)
        return -ENOMEM;
    op->addr = buf;
    op->len = len < PIECE_MAX ? (uint32_t)len : PIECE_MAX;
    op->off = UINT64_MAX;
    return rv_op_run(iw, op, deadline, NULL);
}

/* Into a block of our own, held from now on. It is no borrowed one: who holds those may be waiting
 * for this very reader. */
static ssize_t read_block(struct rv_io_worker *iw, enum rv_op_code code, int fd,
                          reeve_time deadline, struct rv_lease **ret_lease)
{
    struct rv_lease *l = rv_lease_extra(iw, false);
    if (!l)
        return -ENOMEM;
    ssize_t n = read_once(iw, code, fd, deadline, l->pub.data, l->pub.cap);
    if (n <= 0) {
        rv_lease_return(rv_io_self(), l);
        return n;
    }
    l->pub.len = (size_t)n;
    *ret_lease = l;
    return n;
}

/* What is no stream of ours: a foreign socket's buffer is picked when the data has come, too. */
static ssize_t read_lease(struct rv_io_worker *iw, int fd, reeve_time deadline,
                          struct rv_lease **ret_lease)
{
    if (iw->driver->socket_type(fd) < 0)
        return read_block(iw, RV_OP_READ, fd, deadline, ret_lease);
    struct rv_op *op = rv_op_take(iw, RV_OPK_TASK, RV_OP_RECV_PICK, fd);
    if (!op)
        return -ENOMEM;
    struct rv_lease *l = NULL;
    int n = rv_op_run(iw, op, deadline, &l);
    if (n == -ENOBUFS) {
        if (rv_io_self() == iw)
            rv_group_widen(iw);
        return read_block(rv_io_self(), RV_OP_RECV, fd, deadline, ret_lease);
    }
    if (n > 0) {
        l->pub.opaque[1] = RV_LEASE_OUT;
        *ret_lease = l;
    }
    return n;
}

/* The slot of a stream of ours, locked; NULL: it is something else. */
static struct rv_fd *lock_stream(int fd, uint64_t *ret_word)
{
    struct rv_fd *f = rv_fd_slot(fd);
    if (!f)
        return NULL;
    uint64_t word = rv_fd_lock(f);
    if (word & RV_FD_STREAM) {
        rv_fd_check(f, word);
        *ret_word = word;
        return f;
    }
    rv_fd_unlock(f, word);
    return NULL;
}

static ssize_t read_any(struct rv_io_worker *iw, int fd, void *buf, size_t len, reeve_time deadline)
{
    uint64_t word;
    int r = rv_wait_check(iw->io->sched, iw->w->cur);
    if (r < 0 || len == 0)
        return r;
    if (fd < 0)
        return -EBADF;
    struct rv_fd *f = lock_stream(fd, &word);
    if (f)
        return rv_stream_copy(iw, f, word, deadline, buf, len);
    return read_once(iw, RV_OP_READ, fd, deadline, buf, len);
}

ssize_t reeve_read(int fd, void *buf, size_t len, reeve_time deadline)
{
    uint32_t was;
    struct rv_io_worker *iw = rv_io_enter("reeve_read", &was);
    ssize_t n = read_any(iw, fd, buf, len, deadline);
    rv_io_exit(was);
    return n;
}

static ssize_t recv_lease(struct rv_io_worker *iw, int fd, struct reeve_buf **ret_buf,
                          reeve_time deadline)
{
    uint64_t word;
    int r = rv_wait_check(iw->io->sched, iw->w->cur);
    if (r < 0)
        return r;
    if (fd < 0)
        return -EBADF;
    struct rv_lease *l = NULL;
    struct rv_fd *f = lock_stream(fd, &word);
    ssize_t n = f ? rv_stream_take(iw, f, word, deadline, &l) : read_lease(iw, fd, deadline, &l);
    if (n > 0)
        *ret_buf = &l->pub;
    return n;
}

ssize_t reeve_buf_recv(int fd, struct reeve_buf **ret_buf, reeve_time deadline)
{
    uint32_t was;
    struct rv_io_worker *iw = rv_io_enter("reeve_buf_recv", &was);
    ssize_t n = recv_lease(iw, fd, ret_buf, deadline);
    rv_io_exit(was);
    return n;
}

/* ---- turns ----------------------------------------------------------------------------------- */

enum { WAITS, ITS_TURN, ALL_SENT }; /* rv_turn.result; or -errno */

struct rv_turn {
    struct rv_sched *sched;
    uint64_t token;
    /* a ring: the slot names the last, whose next is the first; taken: the list of those that were
     * taken together */
    struct rv_turn *next;
    const unsigned char *data; /* what is left to send; NULL: it cannot be taken along */
    size_t len;
    uint64_t op;               /* the request that it was taken along with; 0: none */
    int result;
    int leaving;               /* taken, but it wants to leave: why, as -errno */
};

static uint64_t queue_turn(struct rv_fd *f, uint64_t word, struct rv_turn *me)
{
    if (word & RV_FD_TURNS) {
        me->next = f->turns->next;
        f->turns->next = me;
    } else {
        me->next = me;
    }
    f->turns = me;
    return word | RV_FD_TURNS;
}

static uint64_t unqueue_turn(struct rv_fd *f, uint64_t word, struct rv_turn *me)
{
    struct rv_turn *before = f->turns;
    while (before->next != me)
        before = before->next;
    before->next = me->next;
    if (f->turns == me)
        f->turns = before == me ? NULL : before;
    return f->turns ? word : word & ~(uint64_t)RV_FD_TURNS;
}

/* The first in the queue, told that it is his turn, or why it will never be. */
static uint64_t end_wait(struct rv_io_worker *iw, struct rv_fd *f, uint64_t word, int result)
{
    struct rv_turn *first = f->turns->next;
    struct rv_sched *s = first->sched;
    word = unqueue_turn(f, word, first);
    first->result = result;
    rv_wait_fire(s, iw && iw->w->sched == s ? iw->by : NULL, first->token, RV_WOKEN, UINT32_MAX);
    return word;
}

uint64_t rv_turns_end(struct rv_io_worker *iw, struct rv_fd *f, uint64_t word, int error)
{
    while (word & RV_FD_TURNS)
        word = end_wait(iw, f, word, error);
    return word;
}

/* Waits for the turn, with the slot locked; unlocks. ITS_TURN, ALL_SENT, -errno. */
static int await_turn(struct rv_io_worker *iw, struct rv_fd *f, uint64_t word, int64_t until,
                      struct rv_turn *me)
{
    struct rv_task *t = iw->w->cur;
    me->token = rv_wait_arm(me->sched, t, 0);
    rv_fd_unlock(f, queue_turn(f, word, me));
    for (;;) {
        int why = rv_wait_park(iw->w, t, until);
        int error = why == RV_TIMED_OUT ? -ETIMEDOUT : -ECANCELED;
        word = rv_fd_lock(f);
        if (me->result == WAITS && me->op) { /* (4) */
            me->leaving = error;
            me->token = rv_wait_arm(me->sched, t, me->op);
            rv_fd_unlock(f, word);
            iw = rv_io_self();
            continue;
        }
        if (me->result == WAITS) { /* (3) */
            word = unqueue_turn(f, word, me);
            me->result = error;
        }
        rv_fd_unlock(f, word);
        return me->result;
    }
}

/* Lets the next writer go on. Whether a close cut in. */
static bool end_turn(struct rv_io_worker *iw, struct rv_fd *f, uint32_t gen)
{
    uint64_t word = rv_fd_lock(f);
    if (__builtin_expect(rv_fd_gen(word) != gen, 0)) {
        rv_fd_unlock(f, word);
        return true;
    }
    f->sending = NULL;
    if (__builtin_expect(word & RV_FD_TURNS, 0)) {
        rv_fd_unlock(f, end_wait(iw, f, word, 1));
        return false;
    }
    rv_fd_settle(f, (word & ~(uint64_t)RV_FD_WRITER) - RV_FD_COUNT_ONE);
    return word & RV_FD_CLOSING;
}

/* The slot is locked, and closing or somebody else's to write to. Waits, and leaves it locked again
 * with *word to unlock it; or unlocks it and says why, or ALL_SENT. */
static int queue_for_turn(struct rv_io_worker *iw, struct rv_fd *f, int64_t until, uint64_t *word,
                          struct rv_turn *me)
{
    uint32_t gen = rv_fd_gen(*word);
    if (*word & RV_FD_CLOSING) {
        rv_fd_unlock(f, *word);
        return -EBADF;
    }
    int r = await_turn(iw, f, *word, until, me);
    if (r != ITS_TURN)
        return r;
    *word = rv_fd_lock(f);
    if (rv_fd_gen(*word) == gen && !(*word & RV_FD_CLOSING))
        return r;
    rv_fd_unlock(f, *word);
    end_turn(rv_io_self(), f, gen);
    return -ECANCELED;
}

/* ---- writing --------------------------------------------------------------------------------- */

static void plan_write(const struct rv_io_worker *iw, bool socket, struct rv_op *op)
{
    if (socket) {
        op->code = RV_OP_SEND;
        op->msg_flags = MSG_NOSIGNAL | MSG_WAITALL;
    } else {
        op->code = RV_OP_WRITE;
        op->off = UINT64_MAX;
        op->msg_flags = iw->io->caps.rwf_nosignal ? RV_RWF_NOSIGNAL : 0;
    }
}

/* Sends what is left, piece after piece. What the last piece came to: > 0 means that all is out. */
static inline __attribute__((always_inline)) int
send_pieces(struct rv_io_worker *iw, struct rv_fd *f, struct rv_op *op, int64_t until,
            const unsigned char *data, size_t len)
{
    struct rv_sched *s = iw->io->sched;
    struct rv_task *t = iw->w->cur;
    for (;;) {
        op->addr = (void *)(uintptr_t)data;
        op->len = len < PIECE_MAX ? (uint32_t)len : PIECE_MAX;
        op->retries = 0;
        op->token = rv_wait_arm(s, t, rv_op_id(NULL, op));
        rv_op_queue(iw, op);
        rv_wait_park(iw->w, t, until);
        if (__builtin_expect(op->res <= 0 || (size_t)op->res == len, 1))
            return op->res;
        data += op->res;
        len -= (size_t)op->res;
        if (rv_wait_check(s, t) < 0 || rv_load_relaxed(&f->word) & RV_FD_CLOSING)
            return -ECANCELED;
        iw = rv_io_self();
        rv_store_relaxed(&op->iw, iw); /* a cancellation that goes astray asks its way: op.c (3) */
        op->retries = 0;
    }
}

/* For an fd beyond the table: without turns. */
static ssize_t send_untracked(struct rv_io_worker *iw, int fd, int64_t until,
                              const unsigned char *data, size_t len)
{
    for (size_t at = 0; at < len;) {
        struct rv_op *op = rv_op_take(iw, RV_OPK_TASK, RV_OP_SEND, fd);
        if (!op)
            return -ENOMEM;
        plan_write(iw, iw->driver->socket_type(fd) >= 0, op);
        op->addr = (void *)(uintptr_t)(data + at);
        op->len = len - at < PIECE_MAX ? (uint32_t)(len - at) : PIECE_MAX;
        int n = rv_op_run(iw, op, until, NULL);
        if (n <= 0)
            return n < 0 ? n : -EIO;
        at += (size_t)n;
        iw = rv_io_self();
    }
    return (ssize_t)len;
}

/* What would be the only request of its submission is not made one, but sent by a plain call that
 * does not wait: at one connection that halves the entries into the ring. The slot is locked and
 * the turn ours. Bytes sent, with the slot locked again; -errno, with the turn given up. */
static inline __attribute__((always_inline)) ssize_t
send_at_once(struct rv_io_worker *iw, struct rv_fd *f, int fd, uint64_t *word, const void *data,
             size_t len)
{
    uint32_t gen = rv_fd_gen(*word);
    rv_fd_unlock(f, *word);
    ssize_t n = iw->driver->send_now(iw, fd, data, len);
    if (n < 0 && n != -EAGAIN)
        return end_turn(iw, f, gen) ? -ECANCELED : n;
    *word = rv_fd_lock(f);
    if (rv_fd_gen(*word) == gen && !(*word & RV_FD_CLOSING))
        return n < 0 ? 0 : n;
    rv_fd_unlock(f, *word);
    end_turn(iw, f, gen);
    return -ECANCELED;
}

/* The slot is locked, the turn ours. All of it, or -errno; the turn is over. Inlined twice, so that
 * who does not queue pays nothing for those who do. */
static inline __attribute__((always_inline)) ssize_t
send_in_turn(struct rv_io_worker *iw, struct rv_fd *f, int fd, uint64_t word, int64_t until,
             const void *data, size_t len)
{
    uint32_t gen = rv_fd_gen(word);
    ssize_t sent = 0;
    if (word & RV_FD_STREAM && iw->driver->send_now && !rv_any_ready(iw->w)) {
        sent = send_at_once(iw, f, fd, &word, data, len);
        if (sent < 0)
            return sent;
    }
    if ((size_t)sent == len) {
        rv_fd_unlock(f, word);
        end_turn(iw, f, gen);
        return sent;
    }
    struct rv_op *op = f->sending = rv_op_take(iw, RV_OPK_TASK, RV_OP_SEND, fd);
    rv_fd_unlock(f, word);
    if (__builtin_expect(!op, 0)) {
        end_turn(iw, f, gen);
        return -ENOMEM;
    }
    plan_write(iw, word & RV_FD_OURS || iw->driver->socket_type(fd) >= 0, op);
    int r = send_pieces(iw, f, op, until, (const unsigned char *)data + sent, len - (size_t)sent);
    iw = rv_io_self();
    op->res = r;
    bool closed = end_turn(iw, f, gen);
    if (__builtin_expect(r <= 0, 0)) /* 0 of something is no progress, and no reason */
        r = r == 0 && !closed ? -EIO : rv_op_result(iw->io->sched, op, closed);
    rv_op_release(iw, op);
    return r < 0 ? r : (ssize_t)len;
}

/* ---- taking along ---------------------------------------------------------------------------- */

/* Takes those who wait behind `me` out of the queue, as long as there is room, for the request with
 * this id. The number of pieces. The slot is locked. */
static size_t collect(struct rv_fd *f, uint64_t *word, struct rv_turn *me, uint64_t id,
                      struct iovec piece[ALONG_PIECES])
{
    struct rv_turn *last = me;
    size_t n = 0, room = ALONG_BYTES - me->len;
    piece[n++] = (struct iovec){ (void *)(uintptr_t)me->data, me->len };
    while (*word & RV_FD_TURNS && n < ALONG_PIECES) {
        struct rv_turn *first = f->turns->next;
        if (first->sched != me->sched || !first->data || first->len > room)
            break;
        *word = unqueue_turn(f, *word, first);
        first->op = id;
        room -= first->len;
        piece[n++] = (struct iovec){ (void *)(uintptr_t)first->data, first->len };
        last = last->next = first;
    }
    last->next = NULL;
    return n;
}

static void count_sent(struct rv_turn *t, size_t *sent)
{
    size_t n = *sent < t->len ? *sent : t->len;
    t->data += n;
    t->len -= n;
    *sent -= n;
}

static void tell(struct rv_io_worker *iw, struct rv_turn *t, int result)
{
    struct rv_sched *s = t->sched;
    t->result = result;
    rv_wait_fire(s, iw->w->sched == s ? iw->by : NULL, t->token, RV_WOKEN, UINT32_MAX);
}

/* The request has sent so many bytes: tells those who were taken what became of theirs. The slot is
 * locked; `over`: it is closed, or somebody else's. The new word. */
static uint64_t share_out(struct rv_io_worker *iw, struct rv_fd *f, uint64_t word,
                          struct rv_turn *me, size_t sent, bool over)
{
    struct rv_turn *first = NULL, *last = NULL, *next;
    count_sent(me, &sent);
    for (struct rv_turn *t = me->next; t; t = next) {
        next = t->next; /* its frame is gone once it has been told */
        t->op = 0;
        count_sent(t, &sent);
        if (t->len == 0) {
            tell(iw, t, ALL_SENT);
        } else if (t->leaving || over) {
            tell(iw, t, t->leaving ? t->leaving : -ECANCELED);
        } else {
            first = first ? first : t;
            if (last)
                last->next = t;
            last = t;
        }
    }
    if (!first)
        return word;
    last->next = word & RV_FD_TURNS ? f->turns->next : first;
    if (word & RV_FD_TURNS)
        f->turns->next = first;
    else
        f->turns = last;
    return word | RV_FD_TURNS;
}

/* Sends with one request what `me`, who has the turn, and those behind him have. The slot is
 * locked; 0: locked again, and me->len is left to be sent in this turn; else the turn is over:
 * ALL_SENT, -errno. */
static int send_along(struct rv_io_worker *iw, struct rv_fd *f, uint64_t *word, int64_t until,
                      struct rv_turn *me)
{
    struct iovec piece[ALONG_PIECES];
    struct msghdr all = { .msg_iov = piece };
    struct rv_req req = { .opcode = IORING_OP_SENDMSG, .fd = rv_fd_number(f),
                          .addr = rv_req_ptr(&all), .len = 1, .op_flags = MSG_NOSIGNAL };
    struct rv_sched *s = iw->io->sched;
    struct rv_task *t = iw->w->cur;
    uint32_t gen = rv_fd_gen(*word);
    struct rv_op *op = rv_op_take(iw, RV_OPK_TASK, RV_OP_REQUEST, rv_fd_number(f));
    if (!op)
        return 0; /* the ordinary way will say so */
    all.msg_iovlen = collect(f, word, me, rv_op_id(NULL, op), piece);
    rv_count(&iw->n.taken_along, all.msg_iovlen - 1);
    f->sending = op;
    rv_fd_unlock(f, *word);
    op->addr = &req;
    op->token = rv_wait_arm(s, t, rv_op_id(NULL, op));
    rv_op_queue(iw, op); /* nobody who was taken can ask for its end before */
    rv_wait_park(iw->w, t, until);
    iw = rv_io_self();

    int res = op->res, why = rv_wait_why(s, t);
    *word = rv_fd_lock(f);
    bool over = rv_fd_gen(*word) != gen || *word & RV_FD_CLOSING;
    *word = share_out(iw, f, *word, me, res > 0 ? (size_t)res : 0, over);
    int r = me->len == 0 ? ALL_SENT : 0;
    if (r == 0 && over)
        r = why ? why : -ECANCELED;
    else if (r == 0 && res <= 0) /* whose end was asked for by another goes on */
        r = res == -ECANCELED ? why : res < 0 ? res : -EIO;
    if (rv_fd_gen(*word) == gen)
        f->sending = NULL;
    rv_op_release(iw, op);
    if (r == 0)
        return r;
    rv_fd_unlock(f, *word);
    end_turn(iw, f, gen);
    return r;
}

/* The slot is locked, and closing or somebody else's to write to. */
static __attribute__((noinline)) ssize_t send_queued(struct rv_io_worker *iw, struct rv_fd *f,
                                                     uint64_t word, int64_t until,
                                                     const void *data, size_t len)
{
    struct rv_turn me = { .sched = iw->io->sched, .data = data, .len = len };
    int r = queue_for_turn(iw, f, until, &word, &me);
    uint64_t some = RV_FD_STREAM | RV_FD_TURNS;
    if (r == ITS_TURN) {
        iw = rv_io_self();
        r = (word & some) == some && me.len <= ALONG_BYTES ? send_along(iw, f, &word, until, &me)
                                                           : 0;
    }
    if (r != 0)
        return r == ALL_SENT ? (ssize_t)len : r;
    ssize_t n = send_in_turn(rv_io_self(), f, rv_fd_number(f), word, until, me.data, me.len);
    return n < 0 ? n : (ssize_t)len;
}

static ssize_t send_all(struct rv_io_worker *iw, int fd, reeve_time deadline, const void *data,
                        size_t len)
{
    struct rv_fd *f = rv_fd_slot(fd);
    int64_t until = rv_deadline(iw->w->cur, deadline);
    if (__builtin_expect(!f, 0))
        return send_untracked(iw, fd, until, data, len);
    uint64_t word = rv_fd_lock(f);
    rv_fd_check(f, word);
    if (__builtin_expect(word & (RV_FD_CLOSING | RV_FD_WRITER), 0))
        return send_queued(iw, f, word, until, data, len);
    return send_in_turn(iw, f, fd, (word | RV_FD_WRITER) + RV_FD_COUNT_ONE, until, data, len);
}

/* ---- for other calls ------------------------------------------------------------------------- */

int rv_writer_begin(struct rv_io_worker *iw, int fd, int64_t until, struct rv_writer *ret_turn)
{
    struct rv_fd *f = rv_fd_slot(fd);
    *ret_turn = (struct rv_writer){ 0 };
    if (!f)
        return fd < 0 ? -EBADF : 0;
    uint64_t word = rv_fd_lock(f);
    rv_fd_check(f, word);
    if (word & (RV_FD_CLOSING | RV_FD_WRITER)) {
        struct rv_turn me = { .sched = iw->io->sched };
        int r = queue_for_turn(iw, f, until, &word, &me);
        if (r < 0)
            return r;
    } else {
        word = (word | RV_FD_WRITER) + RV_FD_COUNT_ONE;
    }
    *ret_turn = (struct rv_writer){ f, rv_fd_gen(word) };
    rv_fd_unlock(f, word);
    return 0;
}

bool rv_writer_end(struct rv_io_worker *iw, const struct rv_writer *turn)
{
    return turn->f && end_turn(iw, turn->f, turn->gen);
}

/* Takes n bytes off the front of a list of pieces. */
static void advance(struct iovec **piece, size_t *count, size_t n)
{
    while (*count > 0 && n >= (*piece)->iov_len) {
        n -= (*piece)->iov_len;
        (*piece)++;
        (*count)--;
    }
    if (*count > 0) {
        (*piece)->iov_base = (char *)(*piece)->iov_base + n;
        (*piece)->iov_len -= n;
    }
}

/* One that every ring takes, of a running task. */
static int run_request(struct rv_req *req, int64_t until)
{
    struct rv_io_worker *iw = rv_io_self();
    struct rv_op *op = rv_op_take(iw, RV_OPK_TASK, RV_OP_REQUEST, req->fd);
    if (!op)
        return -ENOMEM;
    op->addr = req;
    return rv_op_run(iw, op, until, NULL);
}

/* A few pieces, in a copy of the list; the turn is the caller's. 0 or -errno. */
static int send_some(int fd, bool socket, int64_t until, struct iovec *piece, size_t count)
{
    advance(&piece, &count, 0);
    while (count > 0) {
        struct msghdr all = { .msg_iov = piece, .msg_iovlen = count };
        struct rv_req req = { .fd = fd };
        if (socket) {
            req.opcode = IORING_OP_SENDMSG;
            req.addr = rv_req_ptr(&all);
            req.len = 1;
            req.op_flags = MSG_NOSIGNAL | MSG_WAITALL;
        } else {
            req.opcode = IORING_OP_WRITEV;
            req.addr = rv_req_ptr(piece);
            req.len = (uint32_t)count;
            req.off = UINT64_MAX;
            req.op_flags = rv_io_self()->io->caps.rwf_nosignal ? RV_RWF_NOSIGNAL : 0;
        }
        int n = run_request(&req, until);
        if (n <= 0)
            return n < 0 ? n : -EIO;
        advance(&piece, &count, (size_t)n);
    }
    return 0;
}

/* As many pieces as a request takes, in a copy, and of a last one so much that the sum is one that
 * it can say. Bytes. */
static size_t copy_some(const struct iovec *pieces, size_t count, size_t skip,
                        struct iovec copy[ALONG_PIECES], size_t *ret_n)
{
    size_t n = 0, bytes = 0;
    for (; n < count && n < ALONG_PIECES && bytes < PIECE_MAX; n++, skip = 0) {
        size_t len = pieces[n].iov_len - skip, room = PIECE_MAX - bytes;
        copy[n].iov_base = (char *)pieces[n].iov_base + skip;
        copy[n].iov_len = len < room ? len : room;
        bytes += copy[n].iov_len;
    }
    *ret_n = n;
    return bytes;
}

ssize_t rv_send_iov(struct rv_io_worker *iw, int fd, int64_t until, const struct iovec *pieces,
                    size_t count)
{
    struct iovec copy[ALONG_PIECES];
    struct rv_writer turn;
    size_t at = 0, skip = 0;
    ssize_t total = 0;
    int r = rv_writer_begin(iw, fd, until, &turn);
    if (r < 0)
        return r;
    bool ours = turn.f && rv_load_relaxed(&turn.f->word) & RV_FD_OURS;
    bool socket = ours || rv_io_self()->driver->socket_type(fd) >= 0;
    while (r == 0 && at < count) {
        size_t n, bytes = copy_some(pieces + at, count - at, skip, copy, &n);
        size_t last = copy[n - 1].iov_len + (n == 1 ? skip : 0);
        bool part = last < pieces[at + n - 1].iov_len;
        skip = part ? last : 0;
        at += part ? n - 1 : n;
        r = send_some(fd, socket, until, copy, n);
        total += (ssize_t)bytes;
    }
    bool closed = rv_writer_end(rv_io_self(), &turn);
    return r < 0 && closed ? -ECANCELED : r < 0 ? r : total;
}

ssize_t reeve_write(int fd, const void *buf, size_t len, reeve_time deadline)
{
    uint32_t was;
    struct rv_io_worker *iw = rv_io_enter("reeve_write", &was);
    ssize_t n = rv_wait_check(iw->io->sched, iw->w->cur);
    if (n == 0 && len > 0)
        n = fd < 0 ? -EBADF : send_all(iw, fd, deadline, buf, len);
    rv_io_exit(was);
    return n;
}

/* Whether fd is something that a lease can be sent to without a copy. */
static __attribute__((noinline)) bool is_socket(const struct rv_io_worker *iw, int fd)
{
    const struct rv_fd *f = rv_fd_slot(fd);
    return (f && rv_load_relaxed(&f->word) & RV_FD_OURS) || iw->driver->socket_type(fd) >= 0;
}

ssize_t reeve_buf_send(int fd, struct reeve_buf *buf, reeve_time deadline)
{
    uint32_t was;
    struct rv_io_worker *iw = rv_io_enter("reeve_buf_send", &was);
    struct rv_lease *l = rv_lease_of(buf, "reeve_buf_send");
    if (buf->data < l->mem || buf->len > buf->cap ||
        (size_t)(buf->data - l->mem) > buf->cap - buf->len)
        rv_die("reeve_buf_send was given data outside its buffer.");
    ssize_t n = rv_wait_check(iw->io->sched, iw->w->cur);
    if (n == 0 && fd < 0)
        n = -EBADF;
    if (__builtin_expect(n == 0 && buf->len >= iw->io->zc_bytes_min, 0) && is_socket(iw, fd)) {
        /* it takes the lease */
        n = rv_zc_send(iw, fd, l, rv_deadline(iw->w->cur, deadline));
        rv_io_exit(was);
        return n;
    }
    if (n == 0 && buf->len > 0) {
        n = send_all(iw, fd, deadline, buf->data, buf->len);
        iw = rv_io_self();
    }
    rv_lease_return(iw, l);
    rv_rt_leave(iw->w, was);
    return n;
}
