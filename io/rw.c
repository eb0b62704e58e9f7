/* SPDX-License-Identifier: MIT */
/*
 * rw.c -- reading and writing: what the calls of a task come to.
 *
 * Reads of a connected stream socket that reeve made go through its stream (io/stream.c). Everything
 * else, in both directions, is one op after another on the worker where the task happens to run.
 *
 * The kernel keeps the order of two sends on one socket only if the first has completed before the
 * second is made. So each fd has one writer at a time, who keeps its turn until all of its bytes
 * are out:
 *
 *     free    -> WRITER           [begin_turn]
 *     WRITER  -> WRITER, another's  [end_turn]     first come, first served
 *     WRITER  -> free             [end_turn]
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

/* Into a block of our own, held from now on. */
static ssize_t read_block(struct rv_io_worker *iw, enum rv_op_code code, int fd, reeve_time deadline,
                          struct rv_lease **ret_lease)
{
    struct rv_lease *l;
    int r = rv_lease_borrow(&l, rv_deadline(iw->w->cur, deadline));
    if (r < 0)
        return r;
    iw = rv_io_of(rv_worker_self());
    ssize_t n = read_once(iw, code, fd, deadline, l->pub.data, l->pub.cap);
    if (n <= 0) {
        rv_lease_return(rv_io_of(rv_worker_self()), l);
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
        return read_block(rv_io_of(rv_worker_self()), RV_OP_RECV, fd, deadline, ret_lease);
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

ssize_t reeve_read(int fd, void *buf, size_t len, reeve_time deadline)
{
    struct rv_io_worker *iw = rv_io_in_task("reeve_read");
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

ssize_t reeve_buf_recv(int fd, struct reeve_buf **ret_buf, reeve_time deadline)
{
    struct rv_io_worker *iw = rv_io_in_task("reeve_buf_recv");
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

/* ---- turns ----------------------------------------------------------------------------------- */

struct rv_turn {
    struct rv_sched *sched;
    uint64_t token;
    struct rv_turn *next; /* a ring: the slot names the last, whose next is the first */
    int result;           /* 0: waits; 1: its turn; -errno */
};

static void queue_turn(struct rv_fd *f, struct rv_turn *me)
{
    if (f->turns) {
        me->next = f->turns->next;
        f->turns->next = me;
    } else {
        me->next = me;
    }
    f->turns = me;
}

static void unqueue_turn(struct rv_fd *f, struct rv_turn *me)
{
    struct rv_turn *before = f->turns;
    while (before->next != me)
        before = before->next;
    before->next = me->next;
    if (f->turns == me)
        f->turns = before == me ? NULL : before;
}

static void fire_turn(struct rv_io_worker *iw, struct rv_turn *turn, int result)
{
    struct rv_sched *s = turn->sched;
    turn->result = result;
    rv_wait_fire(s, iw && iw->w->sched == s ? iw->w : NULL, turn->token, RV_WOKEN, UINT32_MAX);
}

void rv_turns_end(struct rv_io_worker *iw, struct rv_fd *f, int error)
{
    while (f->turns) {
        struct rv_turn *first = f->turns->next;
        unqueue_turn(f, first);
        fire_turn(iw, first, error);
    }
}

/* Waits for the turn, with the slot locked; unlocks. 0: it is ours. */
static int await_turn(struct rv_io_worker *iw, struct rv_fd *f, uint64_t word, int64_t until)
{
    struct rv_turn me = {.sched = iw->io->sched};
    me.token = rv_wait_arm(me.sched, iw->w->cur, 0);
    queue_turn(f, &me);
    rv_fd_unlock(f, word);
    int why = rv_wait_park(iw->w, iw->w->cur, until);
    word = rv_fd_lock(f);
    int result = me.result;
    if (result == 0)
        unqueue_turn(f, &me);
    rv_fd_unlock(f, word);
    if (result == 0)
        return why == RV_TIMED_OUT ? -ETIMEDOUT : -ECANCELED; /* (3) */
    return result < 0 ? result : 0;
}

/* Lets the next writer go on. Whether a close cut in. */
static bool end_turn(struct rv_io_worker *iw, struct rv_fd *f, struct rv_op *op, uint32_t gen)
{
    if (!f)
        return false;
    uint64_t word = rv_fd_lock(f);
    if (rv_fd_gen(word) != gen) {
        rv_fd_unlock(f, word);
        return true;
    }
    if (op)
        rv_fd_unlink(f, op);
    if (f->turns) {
        struct rv_turn *first = f->turns->next;
        unqueue_turn(f, first);
        fire_turn(iw, first, 1);
        rv_fd_unlock(f, word);
        return false;
    }
    rv_fd_settle(f, (word & ~(uint64_t)RV_FD_WRITER) - RV_FD_COUNT_ONE);
    return word & RV_FD_CLOSING;
}

/* Chooses the request that fits the fd. */
static void choose(const struct rv_io_worker *iw, bool ours, struct rv_op *op)
{
    if (ours || iw->driver->socket_type(op->fd) >= 0) {
        op->code = RV_OP_SEND;
        op->msg_flags = MSG_NOSIGNAL | MSG_WAITALL;
    } else {
        op->code = RV_OP_WRITE;
        op->off = UINT64_MAX;
        op->msg_flags = iw->io->caps.rwf_nosignal ? RV_RWF_NOSIGNAL : 0;
    }
}

/* Gets the turn, and leaves the slot locked, with *ret_word to unlock it. */
static int take_turn(struct rv_io_worker *iw, struct rv_fd *f, int64_t until, uint64_t *ret_word)
{
    uint64_t word = rv_fd_lock(f);
    uint32_t gen = rv_fd_gen(word);
    rv_fd_check(f, word);
    if (word & RV_FD_CLOSING) {
        rv_fd_unlock(f, word);
        return -EBADF;
    }
    if (!(word & RV_FD_WRITER)) {
        *ret_word = (word | RV_FD_WRITER) + RV_FD_COUNT_ONE;
        return 0;
    }
    int r = await_turn(iw, f, word, until);
    if (r < 0)
        return r;
    word = rv_fd_lock(f);
    *ret_word = word;
    if (rv_fd_gen(word) == gen && !(word & RV_FD_CLOSING))
        return 0;
    rv_fd_unlock(f, word);
    end_turn(rv_io_of(rv_worker_self()), f, NULL, gen);
    return -ECANCELED;
}

/* Gets the turn, and an op for it, in the slot's list. 0 or -errno. The worker may have changed. */
static int begin_turn(struct rv_io_worker *iw, int fd, int64_t until, struct rv_op **ret_op)
{
    struct rv_fd *f = rv_fd_slot(fd);
    uint64_t word = 0;
    int r = f ? take_turn(iw, f, until, &word) : 0;
    if (r < 0)
        return r;
    iw = rv_io_of(rv_worker_self());
    struct rv_op *op = rv_op_take(iw, RV_OPK_TASK, RV_OP_SEND, fd);
    if (op && f)
        rv_fd_link(f, op);
    if (f)
        rv_fd_unlock(f, word);
    if (!op) {
        end_turn(iw, f, NULL, rv_fd_gen(word));
        return -ENOMEM;
    }
    op->fd_gen = rv_fd_gen(word);
    choose(iw, word & RV_FD_OURS, op);
    *ret_op = op;
    return 0;
}

/* ---- writing --------------------------------------------------------------------------------- */

/* Sends what is left, piece after piece. What the last piece came to: > 0 means that all is out. */
static int send_pieces(struct rv_io_worker *iw, struct rv_fd *f, struct rv_op *op, int64_t until,
                       const unsigned char *data, size_t len)
{
    struct rv_sched *s = iw->io->sched;
    struct rv_task *t = iw->w->cur;
    for (;;) {
        op->addr = (void *)(uintptr_t)data;
        op->len = len < PIECE_MAX ? (uint32_t)len : PIECE_MAX;
        op->token = rv_wait_arm(s, t, rv_op_id(iw->io, op));
        rv_op_queue(iw, op);
        rv_wait_park(iw->w, t, until);
        if (op->res <= 0 || (size_t)op->res == len)
            return op->res;
        data += op->res;
        len -= (size_t)op->res;
        int r = rv_wait_check(s, t);
        if (r < 0 || (f && rv_load_relaxed(&f->word) & RV_FD_CLOSING))
            return -ECANCELED;
        iw = rv_io_of(rv_worker_self());
        rv_store_relaxed(&op->iw, iw); /* a cancellation that goes astray asks its way: op.c (3) */
    }
}

static ssize_t send_all(struct rv_io_worker *iw, int fd, reeve_time deadline, const void *data,
                        size_t len)
{
    struct rv_sched *s = iw->io->sched;
    struct rv_fd *f = rv_fd_slot(fd);
    int64_t until = rv_deadline(iw->w->cur, deadline);
    struct rv_op *op;
    int r = begin_turn(iw, fd, until, &op);
    if (r < 0)
        return r;
    r = send_pieces(rv_io_of(rv_worker_self()), f, op, until, data, len);
    iw = rv_io_of(rv_worker_self());
    op->res = r;
    bool closed = end_turn(iw, f, op, op->fd_gen);
    if (r <= 0)
        r = r == 0 && !closed ? -EIO : rv_op_result(s, op, closed); /* 0 of something: no progress */
    rv_op_release(iw, op);
    return r < 0 ? r : (ssize_t)len;
}

ssize_t reeve_write(int fd, const void *buf, size_t len, reeve_time deadline)
{
    struct rv_io_worker *iw = rv_io_in_task("reeve_write");
    int r = rv_wait_check(iw->io->sched, iw->w->cur);
    if (r < 0 || len == 0)
        return r;
    return fd < 0 ? -EBADF : send_all(iw, fd, deadline, buf, len);
}

ssize_t reeve_buf_send(int fd, struct reeve_buf *buf, reeve_time deadline)
{
    struct rv_io_worker *iw = rv_io_in_task("reeve_buf_send");
    struct rv_lease *l = rv_lease_of(buf, "reeve_buf_send");
    if (buf->data < l->mem || buf->len > buf->cap ||
        (size_t)(buf->data - l->mem) > buf->cap - buf->len)
        rv_die("reeve_buf_send was given data outside its buffer.");
    ssize_t n = rv_wait_check(iw->io->sched, iw->w->cur);
    if (n == 0 && fd < 0)
        n = -EBADF;
    if (n == 0 && buf->len > 0) {
        n = send_all(iw, fd, deadline, buf->data, buf->len);
        iw = rv_io_of(rv_worker_self());
    }
    rv_lease_return(iw, l);
    return n;
}
