/* SPDX-License-Identifier: MIT */
/*
 * zc.c -- sending without copying: the network card reads the lease itself.
 *
 *     task    | takes the turn, queues | result           | goes on
 *     kernel  |                  sends | completion, MORE |     acknowledged: notification
 *     lease   | the op's -------------------------------------------------------------> home
 *
 * The task goes on with the first completion, as after any send; only the lease waits for the
 * second. Whether that comes at all the first one says, by MORE, even if it is an error.
 *
 * (1) Leases only: their memory outlives the task, and nobody fills it again before it is home.
 * (2) The turn is given up with the first completion: the kernel keeps the order from there on.
 * (3) The fd's slot is left with the first completion, too: the kernel holds the file, and not by
 *     its number.
 * (4) Where it would be no gain, or cannot be done, the data is copied: a socket that does not know
 *     it, no memory for the notification, what a short send has left.
 * (5) A kernel before 6.2 cannot say whether it copied after all, and refuses to be asked: then
 *     that send is copied, and the next ones do not ask.
 *
 * Nobody calls it unasked: on loopback, and wherever a packet is looked into, the kernel copies
 * after all, later and for more than an ordinary send.
 *
 * Threads: send - a task; through - the task, or the op's worker.
 */
#include "io/zc.h"

#include <errno.h>
#include <sys/socket.h>

#include "io/buf.h"
#include "io/fdtab.h"
#include "io/io.h"
#include "io/op.h"
#include "io/rw.h"
#include "io/uring_compat.h"
#include "mem/die.h"
#include "sched/wait.h"

void rv_zc_through(struct rv_io_worker *iw, struct rv_op *op)
{
    /* The first one releases what it did, the second acquires it. */
    uint8_t before = rv_add_acq_rel(&op->halves, (uint8_t)1);
    RV_MUST(before < 2);
    if (before == 0)
        return;
    struct rv_lease *l = op->ctx;
    rv_op_release(iw, op);
    rv_lease_return(iw, l);
}

/* What an ordinary send may still do better. */
static bool copies_instead(int res)
{
    return res == -EOPNOTSUPP || res == -EINVAL || res == -ENOMEM || res == -ENOBUFS ||
           res == -EAGAIN || res == -EINTR;
}

/* Runs the op, which is the caller's half afterwards. */
static int run(struct rv_io_worker *iw, struct rv_fd *f, struct rv_op *op, int64_t until)
{
    struct rv_sched *s = iw->io->sched;
    struct rv_task *t = iw->w->cur;
    op->token = rv_wait_arm(s, t, rv_op_id(NULL, op));
    rv_op_queue(iw, op);
    rv_wait_park(iw->w, t, until);
    return rv_op_result(s, op, rv_fd_leave(f, op));
}

/* The rest, by copying. All of it, or -errno. */
static ssize_t copy_rest(int fd, const unsigned char *data, size_t len, size_t at, int64_t until)
{
    while (at < len) {
        struct rv_io_worker *iw = rv_io_self();
        int n = rv_wait_check(iw->io->sched, iw->w->cur);
        struct rv_op *op = n < 0 ? NULL : rv_op_take(iw, RV_OPK_TASK, RV_OP_SEND, fd);
        if (!op)
            return n < 0 ? n : -ENOMEM;
        op->addr = (void *)(uintptr_t)(data + at);
        op->len = (uint32_t)(len - at);
        op->msg_flags = MSG_NOSIGNAL | MSG_WAITALL;
        n = rv_op_run(iw, op, until, NULL);
        if (n <= 0)
            return n < 0 ? n : -EIO;
        at += (size_t)n;
    }
    return (ssize_t)len;
}

/* With the turn. Takes the lease. */
static ssize_t send_in_turn(struct rv_io_worker *iw, int fd, struct rv_lease *l, int64_t until)
{
    struct rv_fd *f = rv_fd_slot(fd);
    const unsigned char *data = l->pub.data;
    size_t len = l->pub.len;
    struct rv_op *op = iw->io->caps.send_zc ? rv_op_take(iw, RV_OPK_SEND_ZC, RV_OP_SEND_ZC, fd)
                                            : NULL;
    int r = op ? rv_fd_enter(f, op) : 0;
    if (!op || r < 0) {
        if (op)
            rv_op_release(iw, op);
        ssize_t n = r < 0 ? r : copy_rest(fd, data, len, 0, until);
        if (r == 0)
            rv_count(&rv_io_self()->n.zc_plain, 1);
        rv_lease_return(rv_io_self(), l);
        return n;
    }
    op->ctx = l;
    l->pub.opaque[1] = RV_LEASE_COMING; /* whoever still takes it for his is wrong from here on */
    op->addr = (void *)(uintptr_t)data;
    op->len = (uint32_t)len;
    op->msg_flags = MSG_NOSIGNAL | MSG_WAITALL;
    bool mute = rv_load_relaxed(&iw->io->zc_mute) != 0;
    op->off = mute ? 0 : RV_URING_SEND_ZC_REPORT_USAGE;
    rv_store_relaxed(&op->halves, (uint8_t)0);
    r = run(iw, f, op, until);
    iw = rv_io_self();
    if (r == -EINVAL && !mute) /* (5) */
        rv_store_relaxed(&iw->io->zc_mute, 1U);
    bool copy = r >= 0 || copies_instead(r);
    if (copy)
        rv_count(r > 0 ? &iw->n.zc_sent : &iw->n.zc_plain, 1);
    ssize_t n = copy ? copy_rest(fd, data, len, r > 0 ? (size_t)r : 0, until) : r;
    rv_zc_through(rv_io_self(), op);
    return n;
}

ssize_t rv_zc_send(struct rv_io_worker *iw, int fd, struct rv_lease *l, int64_t until)
{
    struct rv_writer turn;
    int r = fd < 0 ? -EBADF : rv_wait_check(iw->io->sched, iw->w->cur);
    bool nothing = r < 0 || l->pub.len == 0;
    if (!nothing)
        r = rv_writer_begin(iw, fd, until, &turn);
    iw = rv_io_self();
    if (nothing || r < 0) {
        rv_lease_return(iw, l);
        return r;
    }
    ssize_t n = send_in_turn(iw, fd, l, until);
    bool closed = rv_writer_end(rv_io_self(), &turn);
    return n < 0 && closed ? -ECANCELED : n;
}
