/* SPDX-License-Identifier: MIT */
/*
 * engine_uring.c -- workers on io_uring: the engine of every program that is not a test.
 *
 * Each worker has a ring, a ring of buffers from which the kernel picks, and an eventfd. Only the
 * worker's thread enters its ring. Ops become SQEs as they are queued; they leave in one system
 * call at the end of the pass, in which the kernel also makes the completions that are due.
 *
 *     queue, cancel -> SQE, or, when the SQ is full, backlog -> [reap, park] -> kernel
 *     kernel -> CQ -> [reap] -> rv_op_complete()
 *
 * (1) An op in the backlog says what for: BEHIND_REQUEST, its SQE is not made; BEHIND_CANCEL, its
 *     cancellation is not. The backlog goes first, in order, so a cancellation is behind its
 *     request. An op that completes meanwhile leaves the backlog at once.
 * (2) A wake is latched: a message to the ring becomes a completion, which ends a wait that begins
 *     later; so does the eventfd, on which a read is always in flight. The message needs a kernel
 *     that can send one from anywhere, and a ring that is enabled; else it is the eventfd.
 * (3) Completions are copied out of the CQ before any is acted upon: what they lead to may need
 *     room in it, and enters the kernel only from here.
 * (4) Buffers given back are published once, before the ring is entered. A receive that went ahead
 *     of them would find none, and wait for the next to come home.
 * (5) Transfers of files do not wait for the end of the pass where a device may be idle for want of
 *     them: a disk that completed all it had in one burst would stand still until the last of the
 *     tasks that it woke has run. FEED of them at a time leave at once, until FED_ENOUGH are under
 *     way: then the device has more to do than this pass takes. What the page cache answers at
 *     once has no device behind it; where that is most of them, the next few are not tried.
 * (6) A send without copying that has completed but for its notification cannot be cancelled: the
 *     end waits for it, however long the peer takes to acknowledge.
 * (7) The ring and the eventfd stay open until no thread is left that could wake the worker.
 *
 * Threads: wake, due and the calls of the system - anyone; start, stop - one, while no worker runs;
 * queue, cancel, provide, collect - the worker's, or the holder of its loan; the rest - the
 * worker's.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "io/caps.h"
#include "io/io.h"
#include "io/op.h"
#include "io/req.h"
#include "io/ring.h"
#include "io/uring_compat.h"
#include "mem/alloc.h"
#include "mem/die.h"
#include "sched/pick.h"

#define SQ_ENTRIES 256u
#define CQ_ENTRIES 4096u /* far above what a pass brings: an overflow costs an allocation each */
#define GROUP_ID 0
#define BATCH 64u        /* completions copied out at a time */
#define PREFETCH_MIN 4u  /* of fewer, what they touch was in use a moment ago */
#define FETCH_ROUNDS 8u  /* of 20 completions each */
#define COLLECT_MAX 1024u
#define FEED 4u          /* transfers: fewer cost more of the CPU, more leave the device idle */
#define FED_ENOUGH 16u
#define FEED_BACK_MAX 1024u
#define READY_ENOUGH 61u /* tasks: a pass runs no more of them, so more completions can wait */

enum { BEHIND_REQUEST = 1, BEHIND_CANCEL = 2 }; /* op->driver_bits; see (1) */

/* user_data of completions that have no op. */
enum {
    ID_WAKE = 0 << 4 | RV_OPK_ENGINE,
    ID_EVENT = 1 << 4 | RV_OPK_ENGINE,
    ID_CANCEL = 2 << 4 | RV_OPK_ENGINE,
};

struct uring {
    struct rv_ring ring;
    struct rv_bufring bufs;
    bool bufs_added; /* since the last publish */
    bool event_armed;
    uint32_t notifying; /* see (6) */
    uint32_t disk;                 /* transfers queued and not completed, see (5) */
    uint32_t disk_new, disk_begun; /* since the last enter: not submitted yet, and submitted */
    uint32_t feed_not, feed_back;  /* so many will not be tried; so many were not, the last time */
    int event_fd;
    uint64_t event_value;                     /* what the read puts there: of no interest */
    struct rv_op *behind_first, *behind_last; /* the backlog */
};

/* ---- calls of the system --------------------------------------------------------------------- */

/* >= 0 or -errno; errno is as before. Never inlined: errno's address must not be kept across a
 * switch of stacks. */
__attribute__((noinline)) static int call(long number, long a, long b, long c, long d, long e)
{
    int before = errno;
    long ret = syscall(number, a, b, c, d, e);
    if (ret < 0) {
        ret = -errno;
        errno = before;
    }
    return (int)ret;
}

static int sys_socket(int family, int type, int protocol)
{
    return call(SYS_socket, family, type, protocol, 0, 0);
}

static int sys_bind(int fd, const struct sockaddr *addr, socklen_t len)
{
    return call(SYS_bind, fd, (long)(intptr_t)addr, (long)len, 0, 0);
}

static int sys_listen(int fd, int backlog)
{
    return call(SYS_listen, fd, backlog, 0, 0, 0);
}

static int sys_pending(int fd)
{
    char byte;
    int n = call(SYS_recvfrom, fd, (long)(intptr_t)&byte, 1, MSG_PEEK | MSG_DONTWAIT, 0);
    return n >= 0;
}

static int sys_setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    return call(SYS_setsockopt, fd, level, name, (long)(intptr_t)value, (long)len);
}

static int sys_getsockopt(int fd, int name, void *value, socklen_t len)
{
    return call(SYS_getsockopt, fd, SOL_SOCKET, name, (long)(intptr_t)value, (long)(intptr_t)&len);
}

static int sys_shutdown(int fd, int how)
{
    return call(SYS_shutdown, fd, how, 0, 0, 0);
}

static int sys_close(int fd)
{
    return call(SYS_close, fd, 0, 0, 0, 0);
}

static int sys_vacate(int fd, int nowhere)
{
    int r = call(SYS_dup3, nowhere, fd, O_CLOEXEC, 0, 0);
    return r < 0 ? r : 0;
}

static int sys_socket_type(int fd)
{
    int type = 0, r = sys_getsockopt(fd, SO_TYPE, &type, sizeof type);
    return r < 0 ? r : type;
}

static int sys_cookie(int fd, uint64_t *ret_cookie)
{
    return sys_getsockopt(fd, SO_COOKIE, ret_cookie, sizeof *ret_cookie);
}

/* ---- from ops to SQEs ------------------------------------------------------------------------ */

/* Plain ops differ in this; the rest is added in fill(). */
static const struct {
    uint8_t opcode, flags;
    uint16_t ioprio;
} plan[RV_OP_CODES] = {
    [RV_OP_NOP] = { IORING_OP_NOP, 0, 0 },
    [RV_OP_ACCEPT] = { IORING_OP_ACCEPT, 0, 0 },
    [RV_OP_ACCEPT_MULTI] = { IORING_OP_ACCEPT, 0, RV_URING_ACCEPT_MULTISHOT },
    [RV_OP_CONNECT] = { IORING_OP_CONNECT, 0, 0 },
    [RV_OP_RECV] = { IORING_OP_RECV, 0, 0 },
    [RV_OP_RECV_PICK] = { IORING_OP_RECV, IOSQE_BUFFER_SELECT, 0 },
    [RV_OP_RECV_MULTI] = { IORING_OP_RECV, IOSQE_BUFFER_SELECT, RV_URING_RECV_MULTISHOT },
    [RV_OP_SEND] = { IORING_OP_SEND, 0, 0 },
    [RV_OP_SEND_ZC] = { IORING_OP_SEND_ZC, 0, 0 },
    [RV_OP_READ] = { IORING_OP_READ, 0, 0 },
    [RV_OP_WRITE] = { IORING_OP_WRITE, 0, 0 },
    [RV_OP_REQUEST] = { IORING_OP_NOP, 0, 0 }, /* fill_request() says what */
};

/* See (4). */
static inline void publish(struct uring *u)
{
    if (u->bufs_added) {
        rv_bufring_publish(&u->bufs);
        u->bufs_added = false;
    }
}

static void tell_counters(struct rv_io_worker *iw)
{
    const struct uring *u = iw->engine;
    rv_store_relaxed(&iw->n.enters, u->ring.enters);
    rv_store_relaxed(&iw->n.sqes, u->ring.sqes);
    rv_store_relaxed(&iw->n.overflows, u->ring.overflows);
}

/* What began meanwhile, as far as one can tell: completions that nobody has seen yet may stand for
 * all that was there before. */
static uint32_t disk_under_way(const struct uring *u)
{
    bool unseen = rv_ring_has_cqe(&u->ring) || rv_ring_taskrun(&u->ring);
    return unseen ? u->disk_begun : u->disk - u->disk_new;
}

/* Lets the transfers that are queued begin; see (5). Not from the backlog, which is on its way into
 * the kernel, and not for a worker that lent its ring. */
static __attribute__((noinline)) void feed_device(struct rv_io_worker *iw)
{
    struct uring *u = iw->engine;
    if (u->feed_not > 0) {
        u->feed_not--;
        return;
    }
    if (u->behind_first || iw->by != iw->w || disk_under_way(u) >= FED_ENOUGH)
        return;
    uint32_t n = u->disk_new, tail = rv_ring_load(u->ring.k_cq_tail);
    publish(u); /* a receive may be among what is queued */
    rv_ring_submit(&u->ring); /* if it fails: the enter at the end of the pass has them too */
    tell_counters(iw);
    u->disk_begun += n;
    u->disk_new = 0;
    if (rv_ring_load(u->ring.k_cq_tail) - tail > n / 2)
        u->feed_back = u->feed_back < FEED_BACK_MAX ? 2 * u->feed_back + FED_ENOUGH : FEED_BACK_MAX;
    else
        u->feed_back = 0;
    u->feed_not = u->feed_back;
}

static void fill_request(struct rv_io_worker *iw, struct io_uring_sqe *sqe, const struct rv_op *op)
{
    struct uring *u = iw->engine;
    const struct rv_req *req = op->addr;
    sqe->fd = req->fd; /* also where that is no fd: the op has -1 then */
    sqe->opcode = req->opcode;
    sqe->flags = req->sqe_flags;
    sqe->ioprio = req->ioprio;
    sqe->off = req->off;
    sqe->addr = req->addr;
    sqe->len = req->len;
    sqe->rw_flags = (int)req->op_flags;
    sqe->buf_index = req->buf_index;
    sqe->splice_fd_in = req->fd_in;
    if (op->kind == RV_OPK_DISK) {
        u->disk++;
        if (++u->disk_new >= FEED)
            feed_device(iw);
    }
}

static inline void fill(struct rv_io_worker *iw, struct io_uring_sqe *sqe, const struct rv_op *op)
{
    sqe->opcode = plan[op->code].opcode;
    sqe->flags = plan[op->code].flags;
    sqe->ioprio = plan[op->code].ioprio;
    sqe->fd = op->fd;
    sqe->addr = (uint64_t)(uintptr_t)op->addr;
    sqe->len = op->len;
    sqe->msg_flags = op->msg_flags;
    sqe->user_data = rv_op_id(NULL, op);
    switch (op->code) {
    case RV_OP_READ:
    case RV_OP_WRITE:
    case RV_OP_CONNECT:
        sqe->off = op->off;
        break;
    case RV_OP_SEND_ZC:
        sqe->ioprio = (uint16_t)op->off;
        break;
    case RV_OP_ACCEPT:
    case RV_OP_ACCEPT_MULTI:
        sqe->accept_flags = SOCK_CLOEXEC;
        break;
    case RV_OP_RECV_MULTI:
        if (iw->io->caps.recv_optlen)
            rv_uring_sqe_optlen(sqe, (uint32_t)op->off);
        sqe->buf_group = GROUP_ID;
        break;
    case RV_OP_RECV_PICK:
        sqe->buf_group = GROUP_ID;
        break;
    case RV_OP_REQUEST:
        fill_request(iw, sqe, op);
        break;
    default:
        break;
    }
}

static void fill_cancel(struct io_uring_sqe *sqe, const struct rv_op *op)
{
    sqe->opcode = IORING_OP_ASYNC_CANCEL;
    sqe->flags = IOSQE_CQE_SKIP_SUCCESS;
    sqe->fd = -1;
    sqe->addr = rv_op_id(NULL, op);
    sqe->user_data = ID_CANCEL;
}

/* ---- the backlog ----------------------------------------------------------------------------- */

static void fall_behind(struct rv_io_worker *iw, struct rv_op *op, uint8_t why)
{
    struct uring *u = iw->engine;
    rv_count(&iw->n.backlogged, 1);
    if (op->driver_bits == 0) {
        op->driver_next = NULL;
        if (u->behind_last)
            u->behind_last->driver_next = op;
        else
            u->behind_first = op;
        u->behind_last = op;
    }
    op->driver_bits |= why;
}

/* Makes the SQEs of what is behind, as far as there is room. */
static void catch_up(struct rv_io_worker *iw)
{
    struct uring *u = iw->engine;
    struct rv_op *op;
    while ((op = u->behind_first) != NULL) {
        if (op->driver_bits & BEHIND_REQUEST) {
            struct io_uring_sqe *sqe = rv_ring_sqe(&u->ring);
            if (!sqe)
                return;
            fill(iw, sqe, op);
            op->driver_bits &= (uint8_t)~BEHIND_REQUEST;
        }
        if (op->driver_bits & BEHIND_CANCEL) {
            struct io_uring_sqe *sqe = rv_ring_sqe(&u->ring);
            if (!sqe)
                return;
            fill_cancel(sqe, op);
        }
        op->driver_bits = 0;
        u->behind_first = op->driver_next;
        if (!u->behind_first)
            u->behind_last = NULL;
    }
}

/* It has completed, so there is nothing left to cancel. */
static void drop_behind(struct uring *u, struct rv_op *op)
{
    struct rv_op *before = NULL, *at = u->behind_first;
    for (; at != op; at = at->driver_next) {
        RV_MUST(at);
        before = at;
    }
    if (before)
        before->driver_next = op->driver_next;
    else
        u->behind_first = op->driver_next;
    if (u->behind_last == op)
        u->behind_last = before;
    op->driver_bits = 0;
}

/* ---- the driver ------------------------------------------------------------------------------ */

static void queue(struct rv_io_worker *iw, struct rv_op *op)
{
    struct uring *u = iw->engine;
    struct io_uring_sqe *sqe = u->behind_first ? NULL : rv_ring_sqe(&u->ring);
    if (__builtin_expect(sqe != NULL, 1))
        fill(iw, sqe, op);
    else
        fall_behind(iw, op, BEHIND_REQUEST);
}

static void cancel(struct rv_io_worker *iw, struct rv_op *op)
{
    struct uring *u = iw->engine;
    struct io_uring_sqe *sqe = u->behind_first ? NULL : rv_ring_sqe(&u->ring);
    if (sqe)
        fill_cancel(sqe, op);
    else
        fall_behind(iw, op, BEHIND_CANCEL);
}

static void provide(struct rv_io_worker *iw, uint32_t id)
{
    struct uring *u = iw->engine;
    const struct rv_group *g = &iw->group;
    rv_bufring_add(&u->bufs, g->base + (size_t)id * g->bytes, (uint32_t)g->bytes, (uint16_t)id);
    u->bufs_added = true;
}

static void stop(struct rv_io_worker *iw)
{
    struct uring *u = iw->engine;
    if (!u)
        return;
    rv_ring_finish(&u->ring); /* first: only its owner, who is gone, might unregister the buffers */
    rv_bufring_finish(&u->ring, &u->bufs);
    if (u->event_fd >= 0)
        sys_close(u->event_fd);
    rv_free(u);
    iw->engine = NULL;
}

/* The ring and its buffers together. Both are charged to RLIMIT_MEMLOCK: where they do not fit side
 * by side, the CQ makes room. */
static int make_ring(struct rv_io *io, struct uring *u)
{
    for (unsigned cq = CQ_ENTRIES;; cq /= 2) {
        int r = rv_ring_init(&u->ring, SQ_ENTRIES, cq, RV_RING_FLAGS, &io->caps.off);
        if (r >= 0)
            r = rv_bufring_init(&u->ring, &u->bufs, io->bufs, GROUP_ID);
        if (r != -ENOMEM || cq / 2 < 2 * SQ_ENTRIES)
            return r;
        rv_ring_finish(&u->ring);
    }
}

static int start(struct rv_io_worker *iw)
{
    struct rv_io *io = iw->io;
    struct uring *u = rv_alloc_aligned(sizeof *u, RV_CACHE_LINE);
    if (!u)
        return -ENOMEM;
    *u = (struct uring){ .event_fd = -1 };
    iw->engine = u;
    int r = make_ring(io, u);
    if (r >= 0)
        r = u->event_fd = call(SYS_eventfd2, 0, EFD_CLOEXEC, 0, 0, 0);
    if (r < 0)
        stop(iw);
    return r < 0 ? r : 0;
}

/* Worth it when this send would be submitted alone: nothing else waits for the next entry, and
 * nobody is ready who would add to it. It counts as a pick, so that a task that only sends meets
 * the end of the pass. */
static ssize_t send_now(struct rv_io_worker *iw, int fd, const void *data, size_t len)
{
    struct uring *u = iw->engine;
    struct rv_worker *w = iw->w;
    if (rv_ring_unsubmitted(&u->ring) || rv_any_ready(w) || rv_pass_over(w))
        return -EAGAIN;
    w->budget--;
    int n = call(SYS_sendto, fd, (long)(intptr_t)data, (long)len, MSG_DONTWAIT | MSG_NOSIGNAL, 0);
    return n == -EINTR ? -EAGAIN : n;
}

static int fix(struct rv_io_worker *iw, const struct iovec *memory, int from)
{
    struct uring *u = iw->engine;
    struct rv_uring_clone_buffers clone = { .src_fd = (uint32_t)from };
    if (from >= 0)
        return rv_ring_register(&u->ring, RV_URING_REGISTER_CLONE_BUFFERS, &clone, 1);
    return rv_ring_register(&u->ring, IORING_REGISTER_BUFFERS, memory, 1);
}

const struct rv_io_driver rv_io_driver_uring = {
    .name = "io_uring",
    .probe = rv_caps_probe,
    .start = start,
    .stop = stop,
    .queue = queue,
    .cancel = cancel,
    .send_now = send_now,
    .provide = provide,
    .socket = sys_socket,
    .bind = sys_bind,
    .listen = sys_listen,
    .setsockopt = sys_setsockopt,
    .shutdown = sys_shutdown,
    .close = sys_close,
    .vacate = sys_vacate,
    .socket_type = sys_socket_type,
    .pending = sys_pending,
    .cookie = sys_cookie,
    .fix = fix,
};

/* ---- reaping --------------------------------------------------------------------------------- */

/* The read by which the eventfd wakes the ring; see (2). Without an SQE it is tried again later. */
static void arm_event(struct uring *u)
{
    struct io_uring_sqe *sqe = rv_ring_sqe(&u->ring);
    if (!sqe)
        return;
    sqe->opcode = IORING_OP_READ;
    sqe->fd = u->event_fd;
    sqe->addr = (uint64_t)(uintptr_t)&u->event_value;
    sqe->len = sizeof u->event_value;
    sqe->user_data = ID_EVENT;
    u->event_armed = true;
}

/* The kinds that the engine keeps count of. True: it was nobody else's. */
static bool note(struct uring *u, const struct rv_cqe *cqe)
{
    switch (rv_op_kind(cqe->user_data)) {
    case RV_OPK_DISK:
        u->disk--;
        return false;
    case RV_OPK_SEND_ZC:
        u->notifying += cqe->flags & RV_URING_CQE_F_NOTIF ? -1u : (cqe->flags & RV_OPF_MORE) != 0;
        return false;
    default:
        if (cqe->user_data == ID_EVENT)
            u->event_armed = false;
        return true;
    }
}

static void complete(struct rv_io_worker *iw, const struct rv_cqe *cqe)
{
    struct uring *u = iw->engine;
    if (rv_op_kind(cqe->user_data) >= RV_OPK_DISK && note(u, cqe))
        return;
    uint32_t flags = cqe->flags & (0xffff0000u | RV_OPF_BUFFER | RV_OPF_MORE);
    if (__builtin_expect(u->behind_first != NULL && !(flags & RV_OPF_MORE), 0)) {
        struct rv_op *op = rv_op_of(iw->io, cqe->user_data);
        if (op->driver_bits)
            drop_behind(u, op);
    }
    rv_op_complete(iw, cqe->user_data, cqe->res, flags);
}
_Static_assert(RV_OPK_DISK + 1 == RV_OPK_SEND_ZC && RV_OPK_SEND_ZC + 1 == RV_OPK_ENGINE,
               "what note() knows comes last");
_Static_assert(RV_OPF_BUFFER == RV_URING_CQE_F_BUFFER, "flags are passed on as they are");
_Static_assert(RV_OPF_MORE == RV_URING_CQE_F_MORE, "flags are passed on as they are");
_Static_assert(RV_OPF_BUFFER_SHIFT == RV_URING_CQE_BUFFER_SHIFT, "and so is the buffer's id");

static void prefetch(struct rv_io_worker *iw, const struct rv_cqe *batch, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (batch[i].flags & RV_OPF_BUFFER)
            __builtin_prefetch(&iw->group.leases[batch[i].flags >> RV_OPF_BUFFER_SHIFT], 1);
    rv_op_prefetch(iw, &batch[0].user_data, sizeof batch[0], n);
}

/* Acts on what is in the CQ, but on no more than `max`: what a pass cannot run is better left in
 * there, where it needs no place in a queue and its memory is still to be fetched. How many. */
static uint32_t dispatch(struct rv_io_worker *iw, uint32_t max)
{
    struct uring *u = iw->engine;
    struct rv_cqe batch[BATCH];
    uint32_t total = 0;
    unsigned n;
    do {
        unsigned room = max - total < BATCH ? max - total : BATCH;
        n = rv_ring_peek(&u->ring, batch, room); /* (3) */
        if (n >= PREFETCH_MIN)
            prefetch(iw, batch, n);
        for (unsigned i = 0; i < n; i++)
            complete(iw, &batch[i]);
        total += n;
    } while (n > 0 && total < max);
    return total;
}

/* Everything that is to go out with the next enter. */
static void prepare(struct rv_io_worker *iw)
{
    struct uring *u = iw->engine;
    if (u->behind_first)
        catch_up(iw);
    if (!u->event_armed && !iw->leaving)
        arm_event(u);
    publish(u);
}

static void enter(struct rv_io_worker *iw, unsigned min_complete, int64_t until)
{
    struct uring *u = iw->engine;
    int r = rv_ring_enter(&u->ring, min_complete, 0, until);
    if (r < 0 && r != -EAGAIN && r != -EBUSY) /* these two pass: reap, and try again */
        rv_die("io_uring_enter failed on worker %u (%d).", iw->w->index, r);
    u->disk_new = u->disk_begun = 0;
    tell_counters(iw);
}

static bool reap(struct rv_worker *w, uint32_t ready)
{
    struct rv_io_worker *iw = rv_io_of(w);
    struct uring *u = iw->engine;
    uint32_t total = 0, n;
    do {
        prepare(iw);
        if (rv_ring_unsubmitted(&u->ring) || rv_ring_taskrun(&u->ring) ||
            rv_ring_overflowed(&u->ring))
            enter(iw, 0, RV_RING_NOW);
        n = dispatch(iw, READY_ENOUGH);
        total += n;
        ready += n; /* nearly each completion makes a task ready */
    } while (n > 0 && ready < READY_ENOUGH && rv_ring_taskrun(&u->ring));
    rv_store_relaxed(&iw->n.cqes, u->ring.cqes);
    return total > 0;
}

static bool arrived(struct rv_worker *w)
{
    struct uring *u = rv_io_of(w)->engine;
    return rv_ring_has_cqe(&u->ring) || rv_ring_taskrun(&u->ring) || u->behind_first;
}

static bool busy(struct rv_worker *w)
{
    struct uring *u = rv_io_of(w)->engine;
    return rv_ring_has_cqe(&u->ring) || rv_ring_unsubmitted(&u->ring) ||
           rv_ring_taskrun(&u->ring) || u->behind_first || rv_ring_overflowed(&u->ring);
}

static void park(struct rv_worker *w, int64_t until)
{
    struct rv_io_worker *iw = rv_io_of(w);
    struct uring *u = iw->engine;
    prepare(iw);
    bool stay = u->behind_first || rv_ring_has_cqe(&u->ring);
    enter(iw, stay ? 0 : 1, stay ? RV_RING_NOW : until);
}

/* ---- the loan, sched/loan.c ------------------------------------------------------------------ */

/* Any thread. */
static bool due(struct rv_worker *w)
{
    struct uring *u = rv_io_of(w)->engine;
    return rv_ring_is_due(&u->ring);
}

/* In a signal handler of the worker's thread, which was in nobody's code but the user's. What was
 * queued before the task began to compute leaves too: the answers to other requests. */
static void fetch(struct rv_worker *w)
{
    struct rv_io_worker *iw = rv_io_of(w);
    struct uring *u = iw->engine;
    unsigned rounds = FETCH_ROUNDS;
    prepare(iw);
    do {
        enter(iw, 0, RV_RING_NOW);
    } while (--rounds > 0 && rv_ring_taskrun(&u->ring));
}

/* By the holder of the worker's loan. Bounded: the owner may be waiting for its return. */
static bool collect(struct rv_worker *w)
{
    struct rv_io_worker *iw = rv_io_of(w);
    struct uring *u = iw->engine;
    uint32_t n = dispatch(iw, COLLECT_MAX);
    rv_store_relaxed(&iw->n.cqes, u->ring.cqes);
    return n > 0;
}

/* ---- waking ---------------------------------------------------------------------------------- */

static void wake(struct rv_worker *target)
{
    struct rv_io_worker *iw = rv_io_of(target);
    struct uring *u = iw->engine;
    if (rv_ring_msg(&iw->io->caps, u->ring.fd, ID_WAKE) == 0)
        return;
    const uint64_t one = 1; /* it can fail only if 2^64 wakes are unread */
    while (call(SYS_write, u->event_fd, (long)(intptr_t)&one, sizeof one, 0, 0) == -EINTR)
        ;
}

/* ---- a worker's thread comes and goes ---------------------------------------------------------
 * */

/* The kernel's threads for requests that block belong to the thread, not to the ring, and their
 * number was settled by the first ring that it ever had, however small. As many as ours would have
 * got; a refusal leaves what there is. */
static void settle_kernel_threads(struct rv_ring *ring)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    uint32_t most = cpus > 0 && cpus < SQ_ENTRIES / 4 ? 4 * (uint32_t)cpus : SQ_ENTRIES;
    uint32_t bounded_unbounded[2] = { most, 0 }; /* 0: as it is */
    rv_ring_register(ring, IORING_REGISTER_IOWQ_MAX_WORKERS, bounded_unbounded, 2);
}

static int attach(struct rv_worker *w)
{
    struct rv_io_worker *iw = rv_io_of(w);
    struct uring *u = iw->engine;
    int r = rv_ring_enable(&u->ring);
    if (r >= 0)
        settle_kernel_threads(&u->ring);
    return r;
}

/* Asks for the end of everything that this ring has in flight. */
static void cancel_all(struct rv_io_worker *iw)
{
    struct uring *u = iw->engine;
    struct io_uring_sqe *sqe;
    while ((sqe = rv_ring_sqe(&u->ring)) == NULL)
        enter(iw, 0, RV_RING_NOW);
    sqe->opcode = IORING_OP_ASYNC_CANCEL;
    sqe->fd = -1;
    sqe->cancel_flags = IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL;
    sqe->user_data = ID_CANCEL;
}

static void detach(struct rv_worker *w)
{
    struct rv_io_worker *iw = rv_io_of(w);
    struct uring *u = iw->engine;
    rv_io_leave(iw);
    while (iw->inflight > 0 || u->event_armed) {
        prepare(iw);
        if (iw->inflight > u->notifying || u->event_armed) /* else it would complete for itself */
            cancel_all(iw);
        enter(iw, 1, RV_RING_FOREVER);
        dispatch(iw, UINT32_MAX);
    }
    rv_io_left(iw);
}

const struct rv_engine rv_engine_uring = {
    .name = "io_uring",
    .attach = attach,
    .detach = detach,
    .reap = reap,
    .busy = busy,
    .arrived = arrived,
    .park = park,
    .wake = wake,
    .cancel = rv_op_cancel,
    .message = rv_io_message,
    .now = NULL,
    .due = due,
    .fetch = fetch,
    .stand_in = rv_io_stand_in,
    .collect = collect,
};
