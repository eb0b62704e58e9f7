/* SPDX-License-Identifier: MIT */
/*
 * net.c -- the side that is called: listen, accept; and the acceptor behind a server.
 *
 * A socket made here is entered in the fd table before anybody else learns its number. NODELAY is
 * set on listeners: what they accept inherits it, which saves a system call a connection.
 *
 * The acceptor keeps one accept in flight while somebody waits in take, multishot if there is room
 * for many, and lists what comes in between:
 *
 *     no op  -> op     [rv_acceptor_take]
 *     op     -> no op  [rv_acceptor_complete, with its last completion]
 *
 * (1) Everything under the acceptor's lock; who clears `token` fires it, after the unlock, and
 *     touches the acceptor no more: it is on the stack of the task that is woken.
 * (2) The accept is made again by take alone. A task that does not take does not accept, but for
 *     what a multishot in flight brings until it is cancelled, at WAITING_MAX.
 *
 * Threads: listen - anyone; accept, start, take, stop - a task; complete - the op's worker,
 * or the holder of its loan.
 */
#include "io/net.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <reeve/net.h>
#include <sys/socket.h>

#include "io/addr.h"
#include "io/fdtab.h"
#include "io/io.h"
#include "io/op.h"
#include "mem/die.h"
#include "sched/wait.h"

#define BACKLOG 4096
#define WAITING_MAX 128u /* taken by nobody: the multishot is cancelled */
/* A multishot takes whatever the backlog holds in one go, before anybody can stop it. So there must
 * be room for a whole backlog when it is made, and when it is told to stop. */
#define MULTI_ROOM (2u * BACKLOG)
#define PAUSE_NS (100 * REEVE_MS)

/* ---- listening ------------------------------------------------------------------------------- */

/* iw NULL: a foreign thread. */
static int listen_on(struct rv_io_worker *iw, const char *addr, int backlog)
{
    struct rv_addr a;
    int r = rv_addr_read(addr, true, &a);
    if (r < 0)
        return r;
    if (a.type == SOCK_DGRAM)
        return -EAFNOSUPPORT;
    const struct rv_io_driver *driver = iw ? iw->driver : &rv_io_driver_uring;
    int fd = rv_addr_bind(driver, &a, backlog > 0 ? backlog : BACKLOG);
    if (fd < 0 || a.type != SOCK_STREAM)
        return fd; /* a plain one: what it accepts is asked for its type, see adopt() */
    r = rv_fd_made(iw, fd, 0, NULL);
    if (r >= 0)
        return fd;
    driver->close(fd);
    return r;
}

int reeve_listen(const char *addr, int backlog)
{
    struct rv_worker *w = rv_worker_self();
    if (!w)
        return listen_on(NULL, addr, backlog);
    uint32_t was = rv_rt_enter(w);
    int fd = listen_on(rv_io_of(w), addr, backlog);
    rv_rt_leave(w, was);
    return fd;
}

/* ---- accepting, one at a time ---------------------------------------------------------------- */

/* accept(2): what a connection may bring along that went wrong before it was accepted. */
static bool not_the_listeners_fault(int error)
{
    switch (-error) {
    case ECONNABORTED:
    case EPROTO:
    case ENOPROTOOPT:
    case ENETDOWN:
    case ENETUNREACH:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ENONET:
        return true;
    default:
        return false;
    }
}

static bool is_ours(struct rv_fd *f)
{
    uint64_t word = rv_fd_lock(f);
    rv_fd_unlock(f, word);
    return word & RV_FD_OURS;
}

/* Enters a connection that was accepted into the table; closes it if that cannot be. A listener
 * from elsewhere may be of any kind. */
static int adopt(struct rv_io_worker *iw, int listener, int fd)
{
    unsigned flags = RV_FD_STREAM;
    struct rv_fd *f = rv_fd_slot(listener);
    if (!f || !is_ours(f)) {
        flags = iw->driver->socket_type(fd) == SOCK_STREAM ? RV_FD_STREAM : 0;
        int one = 1; /* refused where it is not TCP: fine */
        iw->driver->setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
    int r = rv_fd_made(iw, fd, flags, NULL);
    if (r >= 0)
        return fd;
    iw->driver->close(fd);
    return r;
}

static int accept_one(struct rv_io_worker *iw, int fd, reeve_time deadline)
{
    struct rv_sched *s = iw->io->sched;
    struct rv_task *t = iw->w->cur;
    if (fd < 0)
        return -EBADF;
    for (;;) {
        int r = rv_wait_check(s, t);
        if (r < 0)
            return r;
        struct rv_op *op = rv_op_take(iw, RV_OPK_TASK, RV_OP_ACCEPT, fd);
        if (!op)
            return -ENOMEM;
        r = rv_op_run(iw, op, deadline, NULL);
        iw = rv_io_self();
        if (r >= 0)
            return adopt(iw, fd, r);
        if (!not_the_listeners_fault(r))
            return r;
    }
}

int reeve_accept(int fd, reeve_time deadline)
{
    uint32_t was;
    struct rv_io_worker *iw = rv_io_enter("reeve_accept", &was);
    int r = accept_one(iw, fd, deadline);
    rv_io_exit(was);
    return r;
}

/* ---- the acceptor ---------------------------------------------------------------------------- */

void rv_acceptor_start(struct rv_acceptor *a, int listener)
{
    *a = (struct rv_acceptor){ .fd = listener, .first = -1, .last = -1 };
}

static void list(struct rv_acceptor *a, int fd)
{
    rv_fd_slot(fd)->accept_next = -1;
    if (a->last >= 0)
        rv_fd_slot(a->last)->accept_next = fd;
    else
        a->first = fd;
    a->last = fd;
    a->waiting++;
}

static int unlist(struct rv_acceptor *a)
{
    int fd = a->first;
    if (fd < 0)
        return -EAGAIN;
    a->first = rv_fd_slot(fd)->accept_next;
    if (a->first < 0)
        a->last = -1;
    a->waiting--;
    return fd;
}

/* No connection but an answer: what it means. Under the lock. */
static void note_error(struct rv_io_worker *iw, struct rv_acceptor *a, int32_t error)
{
    switch (-error) {
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        a->resume_at = rv_worker_now(iw->by) + PAUSE_NS;
        rv_count(&iw->n.accept_pauses, 1);
        break;
    case ECANCELED:
    case EINTR:
    case EAGAIN:
        break;
    default:
        if (!not_the_listeners_fault(error))
            a->error = error;
    }
}

void rv_acceptor_complete(struct rv_io_worker *iw, struct rv_op *op, int32_t res, uint32_t cflags)
{
    struct rv_acceptor *a = op->ctx;
    struct rv_fd *f = rv_fd_slot(op->fd);
    bool last = !(cflags & RV_OPF_MORE);
    int fd = res >= 0 ? adopt(iw, op->fd, res) : res;
    rv_count(&iw->n.accepted, fd >= 0);
    if (last && rv_fd_leave(f, op) && fd < 0)
        fd = -EBADF; /* the listener was closed */
    rv_lock_acquire(&a->lock);
    if (fd >= 0)
        list(a, fd);
    else
        note_error(iw, a, fd);
    /* The room shrinks while a multishot goes on; from a backlog's worth on it is one by one. */
    bool stop = !last && (a->waiting >= WAITING_MAX || a->room < a->waiting + MULTI_ROOM / 2);
    if (last)
        a->op = 0;
    uint64_t token = a->token;
    a->token = 0;
    rv_lock_release(&a->lock); /* (1) */
    if (stop)
        rv_op_cancel(iw->io->sched, iw->w, rv_op_id(NULL, op));
    if (last)
        rv_op_release(iw, op);
    if (token)
        rv_wait_fire(iw->io->sched, iw->by, token, RV_WOKEN, UINT32_MAX);
}

/* Makes the accept. Under the lock; the op is queued by the caller, afterwards. */
static int accept_again(struct rv_io_worker *iw, struct rv_acceptor *a, uint32_t room,
                        struct rv_op **ret_op)
{
    bool multi = room >= MULTI_ROOM && iw->io->caps.accept_multishot;
    enum rv_op_code code = multi ? RV_OP_ACCEPT_MULTI : RV_OP_ACCEPT;
    struct rv_op *op = rv_op_take(iw, RV_OPK_ACCEPTOR, code, a->fd);
    if (!op)
        return -ENOMEM;
    int r = rv_fd_enter(rv_fd_slot(a->fd), op);
    if (r < 0) {
        rv_op_release(iw, op);
        return r;
    }
    op->ctx = a;
    a->op = rv_op_id(NULL, op);
    *ret_op = op;
    return 0;
}

/* Waits until something has happened, a pause is over, or the deadline passes. Under the lock,
 * which it takes off. */
static int await_news(struct rv_io_worker *iw, struct rv_acceptor *a, uint32_t room, int64_t until)
{
    struct rv_worker *w = iw->w;
    struct rv_op *op = NULL;
    int64_t now = rv_worker_now(w);
    if (a->resume_at && a->resume_at <= now)
        a->resume_at = 0;
    int r = !a->op && !a->resume_at ? accept_again(iw, a, room, &op) : 0;
    if (r < 0) {
        rv_lock_release(&a->lock);
        return r;
    }
    bool pausing = a->resume_at && a->resume_at < until;
    int64_t wait_until = pausing ? a->resume_at : until;
    a->token = rv_wait_arm(w->sched, w->cur, 0);
    rv_lock_release(&a->lock);
    if (op)
        rv_op_queue(iw, op);
    int why = rv_wait_park(w, w->cur, wait_until);
    rv_lock_acquire(&a->lock);
    a->token = 0;
    rv_lock_release(&a->lock);
    if (why == RV_CANCELLED)
        return -ECANCELED;
    return why == RV_TIMED_OUT && !pausing ? -ETIMEDOUT : 0;
}

static int take(struct rv_io_worker *iw, struct rv_acceptor *a, uint32_t room, reeve_time deadline)
{
    struct rv_sched *s = iw->io->sched;
    struct rv_task *t = iw->w->cur;
    int64_t until = rv_deadline(t, deadline);
    int r = rv_wait_check(s, t);
    while (r >= 0) {
        iw = rv_io_self();
        rv_lock_acquire(&a->lock);
        a->room = room;
        int fd = unlist(a);
        int error = a->error;
        if (fd >= 0 || error < 0) {
            rv_lock_release(&a->lock);
            return fd >= 0 ? fd : error;
        }
        r = await_news(iw, a, room, until);
    }
    return r;
}

int rv_acceptor_take(struct rv_acceptor *a, uint32_t room, reeve_time deadline)
{
    uint32_t was;
    struct rv_io_worker *iw = rv_io_enter("rv_acceptor_take", &was);
    int r = take(iw, a, room, deadline);
    rv_io_exit(was);
    return r;
}

/* The accept in flight, and the task waits for its end; 0: there is none. */
static uint64_t await_end(struct rv_io_worker *iw, struct rv_acceptor *a)
{
    rv_lock_acquire(&a->lock);
    uint64_t op = a->op;
    if (op)
        a->token = rv_wait_arm(iw->io->sched, iw->w->cur, 0);
    rv_lock_release(&a->lock);
    return op;
}

void rv_acceptor_stop(struct rv_acceptor *a)
{
    uint32_t was;
    struct rv_io_worker *iw = rv_io_enter("rv_acceptor_stop", &was);
    struct rv_sched *s = iw->io->sched;
    struct rv_task *t = iw->w->cur;
    bool masked = rv_load_relaxed(&t->ctl) & RV_CTL_MASKED;
    uint64_t op;
    if (!masked)
        rv_wait_mask(t, true);
    while ((op = await_end(iw, a)) != 0) {
        rv_op_cancel(s, iw->w, op);
        rv_wait_park(iw->w, t, RV_NEVER);
        iw = rv_io_self();
    }
    if (!masked)
        rv_wait_mask(t, false);
    int fd;
    while ((fd = unlist(a)) >= 0)
        rv_fd_close(iw, fd, 0);
    rv_io_exit(was);
}
