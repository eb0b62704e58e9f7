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
 *     free    -> WRITER             [send_all]
 *     WRITER  -> WRITER, another's  [end_turn]     first come, first served
 *     WRITER  -> free               [end_turn]
 *
 * What would be the only request of its submission is not made one: send(2) without waiting, then
 * the ring for what is left. At one connection that halves the entries into the ring.
 *
 * (1) Who has the turn is counted in the slot once, with the op that it uses for piece after piece.
 * (2) Who waits for it is in the list `turns`, its frame on its stack, and is not counted. Whoever
 *     takes it out, under the slot's lock, has set its result.
 * (3) Who leaves while waiting has sent nothing.
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
#include "io/stream.h"
#include "io/uring_compat.h"
#include "mem/die.h"
#include "sched/pick.h"
#include "sched/wait.h"

#define PIECE_MAX (UINT32_C(1) << 30) /* bytes of one op: the kernel stops at 2^31 less a page */

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
    struct rv_lease *l = rv_lease_extra(iw);
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
    if (n == -ENOBUFS)
        return read_block(rv_io_self(), RV_OP_RECV, fd, deadline, ret_lease);
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

struct rv_turn {
    struct rv_sched *sched;
    uint64_t token;
    struct rv_turn *next; /* a ring: the slot names the last, whose next is the first */
    int result;           /* 0: waits; 1: its turn; -errno */
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

/* Waits for the turn, with the slot locked; unlocks. 0: it is ours. */
static int await_turn(struct rv_io_worker *iw, struct rv_fd *f, uint64_t word, int64_t until)
{
    struct rv_turn me = { .sched = iw->io->sched };
    me.token = rv_wait_arm(me.sched, iw->w->cur, 0);
    rv_fd_unlock(f, queue_turn(f, word, &me));
    int why = rv_wait_park(iw->w, iw->w->cur, until);
    word = rv_fd_lock(f);
    int result = me.result;
    if (result == 0)
        word = unqueue_turn(f, word, &me);
    rv_fd_unlock(f, word);
    if (result == 0)
        return why == RV_TIMED_OUT ? -ETIMEDOUT : -ECANCELED; /* (3) */
    return result < 0 ? result : 0;
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
 * with *word to unlock it; or unlocks it and says why. */
static int queue_for_turn(struct rv_io_worker *iw, struct rv_fd *f, int64_t until, uint64_t *word)
{
    uint32_t gen = rv_fd_gen(*word);
    if (*word & RV_FD_CLOSING) {
        rv_fd_unlock(f, *word);
        return -EBADF;
    }
    int r = await_turn(iw, f, *word, until);
    if (r < 0)
        return r;
    *word = rv_fd_lock(f);
    if (rv_fd_gen(*word) == gen && !(*word & RV_FD_CLOSING))
        return 0;
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
static int send_pieces(struct rv_io_worker *iw, struct rv_fd *f, struct rv_op *op, int64_t until,
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
static ssize_t send_at_once(struct rv_io_worker *iw, struct rv_fd *f, uint64_t *word,
                            const void *data, size_t len)
{
    uint32_t gen = rv_fd_gen(*word);
    rv_fd_unlock(f, *word);
    ssize_t n = iw->driver->send_now(iw, rv_fd_number(f), data, len);
    if (n < 0 && n != -EAGAIN)
        return end_turn(iw, f, gen) ? -ECANCELED : n;
    *word = rv_fd_lock(f);
    if (rv_fd_gen(*word) == gen && !(*word & RV_FD_CLOSING))
        return n < 0 ? 0 : n;
    rv_fd_unlock(f, *word);
    end_turn(iw, f, gen);
    return -ECANCELED;
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
    if (__builtin_expect(word & (RV_FD_CLOSING | RV_FD_WRITER), 0)) {
        int e = queue_for_turn(iw, f, until, &word);
        if (e < 0)
            return e;
        iw = rv_io_self();
    } else {
        word = (word | RV_FD_WRITER) + RV_FD_COUNT_ONE;
    }
    uint32_t gen = rv_fd_gen(word);
    ssize_t sent = 0;
    if (word & RV_FD_STREAM && iw->driver->send_now && !rv_any_ready(iw->w)) {
        sent = send_at_once(iw, f, &word, data, len);
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
    if (n == 0 && buf->len > 0) {
        n = send_all(iw, fd, deadline, buf->data, buf->len);
        iw = rv_io_self();
    }
    rv_lease_return(iw, l);
    rv_rt_leave(iw->w, was);
    return n;
}
