/* SPDX-License-Identifier: MIT */
/*
 * op.c -- the life of an op, and the promise that each one completes exactly once.
 *
 *     FREE       -> IDLE         [rv_op_take]
 *     IDLE, DONE -> QUEUED       [rv_op_queue]        DONE: a multishot armed again, a retry
 *     QUEUED     -> CANCELLING   [rv_op_cancel]       on the op's worker only
 *     QUEUED, CANCELLING -> DONE [rv_op_complete]     with the completion that has no RV_OPF_MORE
 *     QUEUED, CANCELLING -> NOTIFYING [complete_zc]   sent, and the kernel still reads the memory
 *     NOTIFYING  -> DONE         [rv_op_complete]     it has let go
 *     IDLE, DONE -> FREE         [rv_op_release]      the generation grows
 *
 * (1) A completion whose generation or state does not fit ends the process, in release too: some
 *     memory has been written by the kernel that nobody reserved for it any more.
 * (2) Only the worker that took an op queues it, cancels it and completes it: its ring is the only
 *     one that knows it. Whoever it belongs to afterwards may release it, on any worker.
 * (3) A cancellation from elsewhere travels by the op's own node. The word `cancel` says for which
 *     generation, and while it is not 0 the node is under way: whoever wants another one cancelled
 *     meanwhile only raises the word. The node's journey may end after the op's; it then finds a
 *     generation that is over, or an op that lives on another worker, and asks again from there.
 * (4) A cancelled op still completes, and what it came to counts: data that was read is returned,
 *     a connection that was accepted is handed over.
 *
 * (5) Of a SEND_ZC the task is through when it has read the result, the kernel with the last
 *     completion, in either order: whoever is the second one sends the lease home and releases it.
 *
 * Threads: take, queue, complete - the op's worker, or the holder of its loan; release - any
 * worker; cancel - anyone.
 */
#include "io/op.h"

#include <errno.h>

#include "io/buf.h"
#include "io/fdtab.h"
#include "io/io.h"
#include "io/net.h"
#include "io/req.h"
#include "io/stream.h"
#include "io/uring_compat.h"
#include "io/zc.h"
#include "mem/die.h"
#include "sched/pick.h"
#include "sched/wait.h"

#define INDEX_SHIFT 4
#define STREAM_GEN_SHIFT 52
_Static_assert(RV_FDS_MAX <= 1u << (STREAM_GEN_SHIFT - 32), "an fd has its place in a stream's id");
#define RETRIES_MAX 8 /* of EAGAIN, which a queue that was full for a moment answers */
#define NUDGE_PASSES 2

struct rv_op *rv_op_of(struct rv_io *io, uint64_t id)
{
    return rv_slab_at(&io->ops, (uint32_t)id >> INDEX_SHIFT);
}

static uint64_t index_of(const struct rv_io *io, const struct rv_op *op)
{
    return (uint64_t)(((const unsigned char *)op - io->ops.base) / sizeof *op);
}

struct rv_op *rv_op_take(struct rv_io_worker *iw, enum rv_op_kind kind, enum rv_op_code code,
                         int fd)
{
    struct rv_io *io = iw->io;
    uint32_t index = rv_slab_take(&io->ops, &iw->by->local.op_mag);
    if (__builtin_expect(index == RV_NIL, 0))
        return NULL;
    struct rv_op *op = rv_slab_at(&io->ops, index);
    RV_ASSERT(rv_load_relaxed(&op->state) == RV_OPS_FREE);
    uint64_t gen = rv_load_relaxed(&op->gen);
    if (__builtin_expect(gen == 0, 0))
        rv_store_relaxed(&op->gen, (uint32_t)(gen = 1));
    uint64_t low = (uint64_t)index << INDEX_SHIFT | kind;
    if (kind == RV_OPK_STREAM)
        op->id = gen << STREAM_GEN_SHIFT | (uint64_t)fd << 32 | low;
    else
        op->id = gen << 32 | low;
    op->addr = NULL;
    op->off = 0;
    rv_store_relaxed(&op->iw, iw);
    op->fd = fd;
    op->len = 0;
    op->msg_flags = 0;
    op->code = (uint8_t)code;
    op->kind = (uint8_t)kind;
    op->retries = 0;
    rv_store_relaxed(&op->state, (uint8_t)RV_OPS_IDLE);
    return op;
}

void rv_op_release(struct rv_io_worker *iw, struct rv_op *op)
{
    uint8_t state = rv_load_relaxed(&op->state);
    RV_MUST(state == RV_OPS_IDLE || state == RV_OPS_DONE);
    uint32_t gen = rv_load_relaxed(&op->gen) + 1;
    rv_store_relaxed(&op->state, (uint8_t)RV_OPS_FREE);
    rv_store_relaxed(&op->gen, gen ? gen : 1);
    rv_slab_give(&iw->io->ops, &iw->by->local.op_mag, (uint32_t)op->id >> INDEX_SHIFT);
}

void rv_op_queue(struct rv_io_worker *iw, struct rv_op *op)
{
    uint8_t state = rv_load_relaxed(&op->state);
    RV_MUST(state == RV_OPS_IDLE || state == RV_OPS_DONE);
    RV_ASSERT(rv_load_relaxed(&op->iw) == iw);
    rv_store_relaxed(&op->state, (uint8_t)RV_OPS_QUEUED);
    iw->inflight++;
    rv_count(&iw->n.ops, 1);
    iw->driver->queue(iw, op);
}

/* It says that it was cancelled, and nobody asked for that: it was for a thread of the kernel's,
 * and there could be none (RLIMIT_NPROC, or no memory). */
static bool had_no_thread(const struct rv_io_worker *iw, uint8_t state, int32_t res)
{
    return res == -ECANCELED && state == RV_OPS_QUEUED && !iw->leaving;
}

/* Whether the request should simply be made again: nothing has happened, and nobody asked for its
 * end. A connect that was interrupted goes on by itself. */
static bool again(const struct rv_io_worker *iw, struct rv_op *op, uint8_t state, int32_t res)
{
    if (state != RV_OPS_QUEUED || op->code == RV_OP_CONNECT)
        return false;
    if (res == -EINTR)
        return true;
    bool passing = res == -EAGAIN || had_no_thread(iw, state, res);
    return passing && op->retries++ < RETRIES_MAX;
}

static void complete_task(struct rv_io_worker *iw, struct rv_op *op, uint8_t state, int32_t res,
                          uint32_t cflags)
{
    if (cflags & RV_OPF_BUFFER) {
        op->addr = rv_lease_picked(iw, cflags, res);
        if (res <= 0)
            rv_lease_return(iw, op->addr);
    }
    if (res < 0 && again(iw, op, state, res)) {
        rv_count(&iw->n.retries, 1);
        rv_op_queue(iw, op);
        return;
    }
    if (had_no_thread(iw, state, res))
        res = -ENOMEM;
    bool nothing = res == -EINTR || res == -EAGAIN;
    op->res = nothing && state == RV_OPS_CANCELLING ? -ECANCELED : res;
    /* Releases the result to the task, which acquires it when it runs again; it owns the op then.
     * */
    rv_wait_fire(iw->io->sched, iw->by, op->token, RV_WOKEN, UINT32_MAX);
}

/* The send's completion, and the one that says that the kernel has let go: alone, or the second. */
static void complete_zc(struct rv_io_worker *iw, struct rv_op *op, uint8_t state, int32_t res,
                        uint32_t cflags)
{
    bool more = cflags & RV_OPF_MORE;
    RV_MUST(state != RV_OPS_NOTIFYING || !more);
    if (state == RV_OPS_NOTIFYING) {
        if ((uint32_t)res & RV_URING_NOTIF_USAGE_ZC_COPIED)
            rv_count(&iw->n.zc_copied, 1);
        rv_zc_through(iw, op);
        return;
    }
    if (more)
        rv_store_relaxed(&op->state, (uint8_t)RV_OPS_NOTIFYING);
    else
        rv_store_relaxed(&op->halves, (uint8_t)1); /* the task still waits: it is the second */
    bool nothing = res == -EINTR || res == -EAGAIN;
    op->res = nothing && state == RV_OPS_CANCELLING ? -ECANCELED : res;
    /* As in complete_task(); but the op stays ours until both are through with it. */
    rv_wait_fire(iw->io->sched, iw->by, op->token, RV_WOKEN, UINT32_MAX);
}

/* The first pass has submitted what was queued before the nudge, the second has dispatched it. */
static void complete_nudge(struct rv_io_worker *iw, struct rv_op *op)
{
    if (++op->retries < NUDGE_PASSES && !iw->leaving) {
        rv_op_queue(iw, op);
        return;
    }
    uint64_t token = op->token;
    rv_op_release(iw, op);
    /* It is still in its slot, and looks again: see look_again() in stream.c. */
    rv_wait_fire(iw->io->sched, iw->by, token, RV_CANCELLED, UINT32_MAX);
}

/* The fd in a stream's id. */
static struct rv_fd *stream_slot(uint64_t id)
{
    return &rv_fd_table[(id >> 32) & ((1u << (STREAM_GEN_SHIFT - 32)) - 1)];
}

static _Noreturn void complain(uint64_t id, int32_t res)
{
    rv_die("a completion (%#llx, result %d) came for an operation that is not in flight.",
           (unsigned long long)id, res);
}

void rv_op_complete(struct rv_io_worker *iw, uint64_t id, int32_t res, uint32_t cflags)
{
    struct rv_op *op = rv_op_of(iw->io, id);
    enum rv_op_kind kind = rv_op_kind(id);
    uint32_t piece = RV_OPF_MORE | RV_OPF_BUFFER;
    if (kind == RV_OPK_STREAM && (cflags & piece) == piece && res > 0 &&
        rv_stream_piece(iw, stream_slot(id), op, res, cflags))
        return;
    uint8_t state = rv_load_relaxed(&op->state);
    bool flying = state == RV_OPS_QUEUED || state == RV_OPS_CANCELLING ||
                  state == RV_OPS_NOTIFYING;
    if (__builtin_expect(!flying || op->id != id || rv_load_relaxed(&op->iw) != iw, 0))
        complain(id, res);
    if (!(cflags & RV_OPF_MORE)) {
        rv_store_relaxed(&op->state, (uint8_t)RV_OPS_DONE);
        iw->inflight--;
    }
    switch (kind) {
    case RV_OPK_TASK:
    case RV_OPK_DISK:
        RV_MUST(!(cflags & RV_OPF_MORE));
        complete_task(iw, op, state, res, cflags);
        break;
    case RV_OPK_NUDGE:
        complete_nudge(iw, op);
        break;
    case RV_OPK_STREAM:
        rv_stream_complete(iw, op, res, cflags);
        break;
    case RV_OPK_ACCEPTOR:
        rv_acceptor_complete(iw, op, res, cflags);
        break;
    case RV_OPK_SEND_ZC:
        complete_zc(iw, op, state, res, cflags);
        break;
    default:
        complain(id, res);
    }
}

/* ---- prefetching ----------------------------------------------------------------------------- */

/* A waiting task's frames, where its reader is, lie around it: some lines below, saved by the
 * switch, and some above, which it returns through. */
enum { LINES_BELOW = 3, LINES_ABOVE = 2 };

static void prefetch_task(const struct rv_sched *s, uint64_t token)
{
    const unsigned char *t = s->tasks.base + (token >> 32) * sizeof(struct rv_task);
    __builtin_prefetch(t, 1);
    __builtin_prefetch(t + RV_CACHE_LINE, 1);
}

static void prefetch_reader(const struct rv_sched *s, struct rv_fd *f)
{
    const unsigned char *r = (const unsigned char *)rv_load_relaxed(&f->reader);
    if (!r)
        return;
    for (int line = -LINES_BELOW; line <= LINES_ABOVE; line++)
        __builtin_prefetch(r + line * RV_CACHE_LINE, 1);
    prefetch_task(s, rv_load_relaxed(&f->token));
}

/* Two rounds, so that the misses of each overlap: what the ids name, then what that names. */
void rv_op_prefetch(struct rv_io_worker *iw, const uint64_t *ids, size_t stride, unsigned n)
{
    const struct rv_sched *s = iw->io->sched;
    const char *at = (const char *)ids, *end = at + n * stride;
    for (const char *p = at; p < end; p += stride) {
        uint64_t id = *(const uint64_t *)p;
        bool stream = rv_op_kind(id) == RV_OPK_STREAM;
        __builtin_prefetch(stream ? (void *)stream_slot(id) : rv_op_of(iw->io, id), 1);
    }
    for (const char *p = at; p < end; p += stride) {
        uint64_t id = *(const uint64_t *)p;
        if (rv_op_kind(id) == RV_OPK_STREAM)
            prefetch_reader(s, stream_slot(id));
        else if (rv_op_kind(id) == RV_OPK_TASK || rv_op_kind(id) == RV_OPK_DISK)
            prefetch_task(s, rv_op_of(iw->io, id)->token);
    }
}

/* ---- cancellation ---------------------------------------------------------------------------- */

void rv_op_cancel_here(struct rv_io_worker *iw, struct rv_op *op)
{
    if (rv_load_relaxed(&op->state) != RV_OPS_QUEUED)
        return;
    rv_store_relaxed(&op->state, (uint8_t)RV_OPS_CANCELLING);
    rv_count(&iw->n.cancels, 1);
    iw->driver->cancel(iw, op);
}

void rv_op_cancel(struct rv_sched *s, struct rv_worker *self, uint64_t id)
{
    struct rv_io *io = s->io;
    uint32_t gen = (uint32_t)(id >> 32);
    struct rv_op *op = rv_op_of(io, id);
    if (rv_load_relaxed(&op->gen) != gen)
        return;
    struct rv_io_worker *iw = rv_load_relaxed(&op->iw);
    if (self && iw == self->io) {
        rv_op_cancel_here(iw, op);
        return;
    }
    uint32_t asked = rv_load_relaxed(&op->cancel);
    do {
        if (asked != 0 && (int32_t)(gen - asked) <= 0)
            return;
    } while (!rv_cas(&op->cancel, &asked, gen)); /* releases; pairs with rv_op_message() */
    if (asked == 0)
        rv_send(s, iw->w, &op->msg, RV_IO_MSG_CANCEL);
}

void rv_op_message(struct rv_io_worker *iw, struct rv_op *op)
{
    uint32_t gen = rv_xchg_acq_rel(&op->cancel, 0U); /* pairs with rv_op_cancel() */
    struct rv_io *io = iw->io;
    rv_op_cancel(io->sched, iw->w, (uint64_t)gen << 32 | index_of(io, op) << INDEX_SHIFT); /* (3) */
}

/* ---- an op and a task that waits for it ------------------------------------------------------ */

/* What a close made of it, and no result of its own: an error, or the end that a shutdown brings.
 * A file that was synced or made while its descriptor was being closed was synced or made. */
static bool is_by_close(const struct rv_op *op, int res)
{
    if (res == 0 && op->code == RV_OP_REQUEST)
        return rv_req_counts_bytes(op->addr);
    return res <= 0;
}

int rv_op_result(struct rv_sched *s, const struct rv_op *op, bool closed)
{
    int res = op->res; /* read once: a compiler may read it together with `state`, see (5) */
    if (res != -ECANCELED && !(closed && is_by_close(op, res)))
        return res;
    int why = rv_wait_why(s, rv_worker_self()->cur);
    return why ? why : -ECANCELED;
}

int rv_op_run(struct rv_io_worker *iw, struct rv_op *op, int64_t deadline,
              struct rv_lease **ret_lease)
{
    struct rv_sched *s = iw->io->sched;
    struct rv_task *t = iw->w->cur;
    struct rv_fd *f = rv_fd_slot(op->fd);
    int r = rv_fd_enter(f, op);
    if (r < 0) {
        rv_op_release(iw, op);
        return r;
    }
    op->token = rv_wait_arm(s, t, rv_op_id(NULL, op));
    rv_op_queue(iw, op);
    struct rv_worker *home = iw->w;
    bool urgent = rv_urgent_begin(home, t);
    rv_wait_park(home, t, rv_deadline(t, deadline));
    rv_urgent_end(home, urgent);
    r = rv_op_result(s, op, rv_fd_leave(f, op));
    if (ret_lease && r > 0)
        *ret_lease = op->addr;
    rv_op_release(rv_io_self(), op);
    return r;
}

/* ---- pins ------------------------------------------------------------------------------------ */

int rv_op_pin(struct rv_io_worker *iw, int fd, struct rv_op **ret_pin)
{
    struct rv_fd *f = rv_fd_slot(fd);
    *ret_pin = NULL;
    if (!f)
        return 0;
    struct rv_op *pin = rv_op_take(iw, RV_OPK_TASK, RV_OP_NOP, fd);
    if (!pin)
        return -ENOMEM;
    int r = rv_fd_enter(f, pin);
    if (r < 0)
        rv_op_release(iw, pin);
    else
        *ret_pin = pin;
    return r;
}

/* Its id is what a close reads, under the slot's lock, to cancel it: so it is that op's for as long
 * as the op may be in flight. One that is over has another generation, and is left alone. */
bool rv_op_pin_for(struct rv_op *pin, const struct rv_op *op)
{
    if (!pin)
        return true;
    struct rv_fd *f = rv_fd_slot(pin->fd);
    uint64_t word = rv_fd_lock(f);
    bool open = rv_fd_gen(word) == pin->fd_gen && !(word & RV_FD_CLOSING);
    if (open)
        pin->id = op->id;
    rv_fd_unlock(f, word);
    return open;
}

void rv_op_unpin(struct rv_op *pin)
{
    if (!pin)
        return;
    struct rv_io_worker *iw = rv_io_self();
    rv_fd_leave(rv_fd_slot(pin->fd), pin);
    pin->id = index_of(iw->io, pin) << INDEX_SHIFT; /* its own again, for the release */
    rv_op_release(iw, pin);
}
