/* SPDX-License-Identifier: MIT */
/*
 * stream.c -- receiving ahead of the reader.
 *
 * A multishot recv is queued once and completes for each piece of data, in a buffer of its worker's
 * group, until it ends for one of the reasons below. Pieces nobody waits for are listed in the fd's
 * slot; a waiting reader gets its piece directly. What ends it, and what then:
 *
 *     its own limit, or ours                   again at once, or when the unread has been read
 *     no buffer (ENOBUFS)                      again when buffers have come home, or, for a reader
 *                                              that has waited long or while a group is held, once
 *                                              into a block of the heap, when there is something
 *     the end of the stream, or an error       kept in the slot, after all data
 *     somebody needs the socket itself         the op goes (rv_stream_hold)
 *     the fd is closed                         the op goes, and the last one out closes the fd
 *
 * The state of the op belongs to its home worker, the one where the first reader ran:
 *
 *     IDLE     -> FLYING    [arm]                      nobody has to ask again: RV_FD_ARMED
 *     IDLE     -> STARVED   [arm]                      too few buffers
 *     STARVED  -> FLYING    [feed, relieve]            relieve: a poll, or a recv into the heap
 *     FLYING   -> ENDING    [rv_stream_stop, leave]    cancelled, the last completion is awaited
 *     FLYING, ENDING -> IDLE, STARVED, FLYING          [landed]
 *     IDLE, STARVED  -> gone [rv_stream_stop, leave]   FLYING, ENDING -> gone [landed]
 *     ... -> GONE -> gone   [retire, rv_stream_message] while a message for it is under way
 *
 * (1) The slot is consistent whenever its lock is free: a reader waits only if nothing is unread,
 *     the stream has not ended, and RV_FD_ARMED says that it will be told. One without room waits
 *     for the op to go, whatever is unread, and retire tells it.
 * (2) Data is delivered in order: the home worker appends, one reader at a time takes. A reader
 *     that takes a piece in two bites keeps RV_FD_READER set in between, which keeps others out.
 * (3) Who takes a reader out of the slot has filled in its frame, under the lock, and keeps its
 *     token: after that the frame is the reader's and the slot none of its business.
 * (4) An op in an older generation than its slot, or in a closing one, delivers nothing.
 * (5) stream_wants is under the slot's lock, and while it is not 0 the op's node is under way; so
 *     an op goes only when it is 0.
 * (6) Cancelling a multishot recv loses nothing: what has not been completed stays in the socket.
 * (7) A starving stream is in its worker's list, and RV_FD_STARVED says so: whoever waits for its
 *     data then looks again after a while, and asks for relief.
 * (8) Who holds the stream keeps RV_FD_READER set, and is counted. Nobody but a reader asks for an
 *     op, so once it has gone there is none until the hold ends.
 * (9) A group is held if more than half of it was out for HELD_NS. That is found out when somebody
 *     starves: from then on, until half of the group is home, what comes home is counted, and
 *     taken for one of those that were out at first. So it is never found too early.
 * (10) A flight begins only when less than half of the bound is unread, and brings no more than the
 *     bound, or a buffer more: so one and a half times the bound is the most that is ever unread.
 *
 * While a group is held nobody waits for buffers any more, since those who hold them may be waiting
 * for this very data. A block of the heap is taken when data has come, so that a silent connection
 * costs none.
 *
 * Threads: take, copy, detach, hold and what goes with it - anyone, under the lock; all else - the
 * home worker, or the holder of its loan.
 */
#include "io/stream.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "io/buf.h"
#include "io/io.h"
#include "io/op.h"
#include "io/req.h"
#include "io/uring_compat.h"
#include "mem/alloc.h"
#include "mem/die.h"
#include "sched/pick.h"
#include "sched/wait.h"

#define MERGE_MAX 1024u              /* bytes: above that a buffer of its own is cheaper */
#define PATIENCE_NS (100 * REEVE_MS) /* of a reader whose stream starves */
#define HELD_NS     (100 * REEVE_MS)

enum { IDLE, FLYING, ENDING, STARVED, GONE };

/* ---- the slot's lists ------------------------------------------------------------------------ */

static void append(struct rv_fd *f, struct rv_lease *l)
{
    rv_lease_link(l, NULL);
    if (f->last)
        rv_lease_link(f->last, l);
    else
        f->first = l;
    f->last = l;
    f->unread_bufs++;
    f->unread_bytes += l->pub.len;
}

static void put_back(struct rv_fd *f, struct rv_lease *l)
{
    rv_lease_link(l, f->first);
    f->first = l;
    if (!f->last)
        f->last = l;
    f->unread_bufs++;
    f->unread_bytes += l->pub.len;
}

static struct rv_lease *pop(struct rv_fd *f)
{
    struct rv_lease *l = f->first;
    f->first = rv_lease_next(l);
    if (!f->first)
        f->last = NULL;
    f->unread_bufs--;
    f->unread_bytes -= l->pub.len;
    return l;
}

/* Half of what it may hold is unread: time to stop, or too early to go on. */
static bool well_filled(const struct rv_io *io, const struct rv_fd *f)
{
    return f->unread_bytes >= io->stream_bytes_max / 2 || f->unread_bufs >= io->stream_bufs_max / 2;
}

struct rv_reader rv_stream_detach(struct rv_fd *f, struct rv_lease *lease, int end)
{
    struct rv_reader none = { 0 }, *r = rv_load_relaxed(&f->reader);
    if (!r)
        return none;
    rv_store_relaxed(&f->reader, NULL);
    r->lease = lease;
    r->end = end;
    return *r;
}

static void fire(struct rv_io_worker *iw, const struct rv_reader *r, unsigned reason)
{
    if (!r->sched)
        return;
    struct rv_worker *w = iw && iw->w->sched == r->sched ? iw->by : NULL;
    rv_wait_fire(r->sched, w, r->token, reason, UINT32_MAX);
}

void rv_stream_wake(struct rv_io_worker *iw, const struct rv_reader *r)
{
    fire(iw, r, RV_WOKEN);
}

/* Wakes one that is in its slot still, with nothing in its hands: it takes this for a cancellation,
 * and finds that there is none. */
static void look_again(struct rv_io_worker *iw, const struct rv_reader *r)
{
    fire(iw, r, RV_CANCELLED);
}

/* ---- arming, on the home worker -------------------------------------------------------------- */

/* Whether the group is held: (9). */
static bool look_at_group(struct rv_io_worker *iw)
{
    struct rv_group *g = &iw->group;
    int64_t now = rv_worker_now(iw->by);
    if (g->since && now - g->since < HELD_NS)
        return rv_load_relaxed(&g->held);
    if (g->since)
        rv_store_relaxed(&g->held, g->stayed > g->bufs / 2 ? 1U : 0U);
    g->since = now;
    g->stayed = g->bufs - g->free;
    g->watched = true;
    return rv_load_relaxed(&g->held);
}

static bool relieve(struct rv_io_worker *iw, struct rv_op *op);

/* Puts it among those who starve. Its reader, if one waits, by value. */
static struct rv_reader enlist(struct rv_io_worker *iw, struct rv_op *op)
{
    struct rv_fd *f = rv_fd_slot(op->fd);
    op->stream_state = STARVED;
    op->next = NULL;
    op->prev = iw->starved_last;
    if (op->prev)
        op->prev->next = op;
    else
        iw->starved_first = op;
    iw->starved_last = op;
    rv_count(&iw->n.starved, 1);
    /* Before this worker sleeps it fences and looks into its inbox (park.c); who sends a lease
     * there fences before looking at this. One of the two sees the other. */
    rv_store_relaxed(&iw->group.starved, 1U);
    struct rv_reader told = { 0 };
    uint64_t word = rv_fd_lock(f);
    if (f->stream == op) {
        word |= RV_FD_STARVED;
        if (rv_load_relaxed(&f->reader))
            told = *rv_load_relaxed(&f->reader);
    }
    rv_fd_unlock(f, word);
    return told;
}

/* Its reader, if one waits, looks after it from now on: see park_reader(). */
static void starve(struct rv_io_worker *iw, struct rv_op *op)
{
    struct rv_reader told = enlist(iw, op);
    bool held = look_at_group(iw);
    if (!held || !told.sched || !relieve(iw, op))
        look_again(iw, &told);
}

static void unstarve(struct rv_io_worker *iw, struct rv_op *op)
{
    struct rv_fd *f = rv_fd_slot(op->fd);
    if (op->prev)
        op->prev->next = op->next;
    else
        iw->starved_first = op->next;
    if (op->next)
        op->next->prev = op->prev;
    else
        iw->starved_last = op->prev;
    if (!iw->starved_first)
        rv_store_relaxed(&iw->group.starved, 0U);
    uint64_t word = rv_fd_lock(f);
    rv_fd_unlock(f, f->stream == op ? word & ~(uint64_t)RV_FD_STARVED : word);
}

static void fly(struct rv_io_worker *iw, struct rv_op *op)
{
    op->stream_state = FLYING;
    op->off = iw->io->stream_bytes_max;
    rv_count(&iw->n.arms, 1);
    rv_op_queue(iw, op);
}

/* Receives once into a block of the heap. */
static void fly_with(struct rv_io_worker *iw, struct rv_op *op, struct rv_lease *l)
{
    op->stream_state = FLYING;
    op->code = RV_OP_RECV;
    op->ctx = l;
    op->addr = l->mem;
    op->len = (uint32_t)l->pub.cap;
    rv_count(&iw->n.relieved, 1);
    rv_op_queue(iw, op);
}

/* Looks for data, without a block; false: no memory. */
static bool look(struct rv_io_worker *iw, struct rv_op *op)
{
    struct rv_req *readable = rv_alloc(sizeof *readable); /* the flight's: freed in looked() */
    if (!readable)
        return false;
    *readable = (struct rv_req){ .opcode = IORING_OP_POLL_ADD, .fd = op->fd, .op_flags = POLLIN };
    op->stream_state = FLYING;
    op->code = RV_OP_REQUEST;
    op->addr = readable;
    rv_op_queue(iw, op);
    return true;
}

/* A starved stream goes on without a buffer. Otherwise who holds all of them while he waits for
 * this very reader would wait for ever. Without data it would hold the block for as long as its
 * peer is silent, so then it looks for data first. False: it starves on, the reader will ask. */
static bool relieve(struct rv_io_worker *iw, struct rv_op *op)
{
    int (*pending)(int fd) = rv_fd_slot(op->fd)->driver->pending;
    if (op->stream_state != STARVED)
        return true;
    struct rv_lease *l = rv_lease_extra(iw, true);
    if (!l)
        return false;
    unstarve(iw, op);
    if (pending && pending(op->fd) > 0) {
        fly_with(iw, op, l);
        return true;
    }
    rv_lease_return(iw, l);
    if (!look(iw, op))
        enlist(iw, op);
    return op->stream_state == FLYING;
}

/* A new recv on an empty group fails at once, data or not: it would spin. Once streams starve, one
 * eighth of the group has to be home before any goes on, or they would take turns at starving. */
static bool enough(const struct rv_group *g)
{
    return g->free >= (g->bufs + 7) / 8;
}

static bool lacks_buffers(const struct rv_io_worker *iw)
{
    return iw->group.free == 0 || (iw->starved_first && !enough(&iw->group));
}

static void arm(struct rv_io_worker *iw, struct rv_op *op)
{
    RV_ASSERT(op->stream_state == IDLE);
    if (lacks_buffers(iw))
        starve(iw, op);
    else
        fly(iw, op);
}

/* Starved streams go on, if there are enough buffers. */
static void feed(struct rv_io_worker *iw)
{
    if (!enough(&iw->group))
        return;
    /* All of them, though there may be fewer buffers: which ones have data the kernel alone knows,
     * and one that has none and is armed costs nothing, while it would keep another's place for as
     * long as its peer is silent. Who finds no buffer starves again, until 1/8 is free again. */
    while (iw->starved_first) {
        struct rv_op *op = iw->starved_first;
        unstarve(iw, op);
        fly(iw, op);
    }
}

void rv_stream_home(struct rv_io_worker *iw)
{
    struct rv_group *g = &iw->group;
    if (g->stayed > 0)
        g->stayed--;
    if (g->free >= (g->bufs + 1) / 2) {
        g->since = 0;
        rv_store_relaxed(&g->held, 0U);
    }
    if (iw->starved_first)
        feed(iw);
    g->watched = g->since != 0 || iw->starved_first;
}

/* ---- the end of a stream's op, on the home worker -------------------------------------------- */

/* Somebody waits in the slot, which is locked, for the op to go. */
static bool is_held(const struct rv_fd *f)
{
    const struct rv_reader *r = rv_load_relaxed(&f->reader);
    return r && r->room == 0;
}

/* Takes the op out of its slot, locked, and the lock off. */
static void retire(struct rv_io_worker *iw, struct rv_op *op, uint64_t word)
{
    struct rv_fd *f = rv_fd_slot(op->fd);
    struct rv_reader holder = { 0 }, other = { 0 };
    bool awaited = op->stream_wants != 0; /* (5) */
    rv_store_relaxed(&iw->streams, rv_load_relaxed(&iw->streams) - 1);
    op->stream_state = GONE;
    if (rv_fd_gen(word) == op->fd_gen) {
        RV_ASSERT(f->stream == op);
        f->stream = NULL;
        if (is_held(f))
            holder = rv_stream_detach(f, NULL, 0);
        else if (rv_load_relaxed(&f->reader)) /* of another runtime: its own has to receive now */
            other = *rv_load_relaxed(&f->reader);
        rv_fd_settle(f, (word & ~(uint64_t)RV_FD_ARMED) - RV_FD_COUNT_ONE);
    } else {
        rv_fd_unlock(f, word);
    }
    if (!awaited)
        rv_op_release(iw, op);
    rv_stream_wake(iw, &holder);
    look_again(iw, &other);
}

void rv_stream_stop(struct rv_io_worker *iw, struct rv_op *op)
{
    switch (op->stream_state) {
    case FLYING:
        op->stream_state = ENDING;
        rv_op_cancel_here(iw, op);
        break;
    case STARVED:
        unstarve(iw, op);
        retire(iw, op, rv_fd_lock(rv_fd_slot(op->fd)));
        break;
    case IDLE:
        retire(iw, op, rv_fd_lock(rv_fd_slot(op->fd)));
        break;
    default: /* its last completion, or its message, will see to it */
        break;
    }
}

/* A reader whose deadline has passed still gets what is there: a pass of this worker, which submits
 * and dispatches what brings it, and then its wait is over. Without an op it is over at once. */
static void nudge(struct rv_io_worker *iw, uint64_t token)
{
    struct rv_op *op = rv_op_take(iw, RV_OPK_NUDGE, RV_OP_NOP, -1);
    if (!op) {
        rv_wait_fire(iw->io->sched, iw->by, token, RV_CANCELLED, UINT32_MAX); /* as look_again() */
        return;
    }
    op->token = token;
    rv_op_queue(iw, op);
}

/* The op goes, if its fd is held still when it comes to that; else it goes on. */
static void leave(struct rv_io_worker *iw, struct rv_op *op)
{
    struct rv_fd *f = rv_fd_slot(op->fd);
    if (op->stream_state == FLYING)
        rv_stream_stop(iw, op);
    if (op->stream_state != STARVED && op->stream_state != IDLE)
        return;
    if (op->stream_state == STARVED)
        unstarve(iw, op);
    op->stream_state = IDLE;
    uint64_t word = rv_fd_lock(f);
    if (is_held(f)) {
        retire(iw, op, word);
        return;
    }
    rv_fd_unlock(f, word);
    if (word & RV_FD_ARMED)
        arm(iw, op);
}

static void fulfil(struct rv_io_worker *iw, struct rv_op *op, unsigned wants, uint64_t token)
{
    if (wants & RV_STREAM_ARM && op->stream_state == IDLE)
        arm(iw, op);
    if (wants & RV_STREAM_RELIEVE) {
        look_at_group(iw);
        relieve(iw, op);
    }
    if (wants & RV_STREAM_NUDGE)
        nudge(iw, token);
    if (wants & RV_STREAM_LEAVE)
        leave(iw, op);
}

void rv_stream_message(struct rv_io_worker *iw, struct rv_op *op)
{
    struct rv_fd *f = rv_fd_slot(op->fd);
    uint64_t word = rv_fd_lock(f);
    unsigned wants = op->stream_wants;
    uint64_t token = rv_load_relaxed(&f->token);
    op->stream_wants = 0;
    bool over = f->stream != op || word & RV_FD_CLOSING;
    rv_fd_unlock(f, word);
    if (op->stream_state == GONE)
        rv_op_release(iw, op);
    else if (over || wants & RV_STREAM_STOP)
        rv_stream_stop(iw, op);
    else
        fulfil(iw, op, wants, token);
}

/* ---- completions, on the home worker --------------------------------------------------------- */

/* The stream holds more than it should while others may need the buffers. */
static bool greedy(const struct rv_io_worker *iw, const struct rv_fd *f)
{
    const struct rv_io *io = iw->io;
    return iw->group.free < iw->group.bufs / 4 &&
           (f->unread_bufs > io->stream_bufs_max || f->unread_bytes > io->stream_bytes_max);
}

/* A small piece is copied behind what is unread already, where there is room: a peer that sends
 * byte by byte must not hold a buffer for each. */
static bool merge(struct rv_fd *f, const struct rv_lease *l)
{
    struct reeve_buf *last = f->last ? &f->last->pub : NULL;
    size_t len = l->pub.len;
    if (!last || len > MERGE_MAX)
        return false;
    if ((size_t)(last->data - f->last->mem) + last->len + len > last->cap)
        return false;
    memcpy(last->data + last->len, l->pub.data, len);
    last->len += len;
    f->unread_bytes += len;
    return true;
}

/* Whether a piece larger than its room is the reader's nevertheless: then it keeps others out until
 * it has put the rest back. */
static bool takes_a_part(const struct rv_reader *waiting, uint64_t *word)
{
    if (waiting->room == 0)
        return false;
    *word = (*word | RV_FD_READER) + RV_FD_COUNT_ONE;
    return true;
}

/* A piece of data goes to the reader that waits, or behind what is unread. The slot is locked, and
 * unlocked. */
static void push(struct rv_io_worker *iw, struct rv_fd *f, uint64_t word, struct rv_lease *l)
{
    struct rv_reader *waiting = rv_load_relaxed(&f->reader);
    if (waiting && (l->pub.len <= waiting->room || takes_a_part(waiting, &word))) {
        RV_ASSERT(!f->first);
        struct rv_reader r = rv_stream_detach(f, l, 0);
        rv_fd_unlock(f, word);
        rv_stream_wake(iw, &r);
        return;
    }
    struct rv_op *op = f->stream;
    if (merge(f, l)) {
        rv_fd_unlock(f, word);
        rv_lease_return(iw, l);
        return;
    }
    append(f, l);
    bool stop = greedy(iw, f);
    rv_fd_unlock(f, word);
    if (stop && op->stream_state == FLYING) {
        rv_count(&iw->n.capped, 1);
        rv_stream_stop(iw, op);
    }
}

/* Whether the op is its fd's stream still, and may deliver: (4). */
static bool delivers(const struct rv_fd *f, uint64_t word, const struct rv_op *op)
{
    return f->stream == op && !(word & RV_FD_CLOSING);
}

bool rv_stream_piece(struct rv_io_worker *iw, struct rv_fd *f, struct rv_op *op, int32_t res,
                     uint32_t cflags)
{
    uint64_t word = rv_fd_lock(f);
    if (__builtin_expect(!delivers(f, word, op), 0)) {
        rv_fd_unlock(f, word);
        return false;
    }
    push(iw, f, word, rv_lease_picked(iw, cflags, res));
    return true;
}

/* Whether the recv may be made again after it ended so. */
static bool passing(int32_t res)
{
    return res > 0 || res == -ENOBUFS || res == -ECANCELED || res == -EINTR || res == -EAGAIN;
}

/* The stream has come to its end: all data is in the slot, and the end is behind it. */
static void finish(struct rv_io_worker *iw, struct rv_op *op, uint64_t word, int32_t res)
{
    struct rv_fd *f = rv_fd_slot(op->fd);
    f->end = res == 0 ? 1 : res;
    struct rv_reader r = rv_stream_detach(f, NULL, f->end);
    retire(iw, op, word | RV_FD_ENDED);
    rv_stream_wake(iw, &r);
}

/* The last completion of this flight: what becomes of the stream. */
static void settle(struct rv_io_worker *iw, struct rv_op *op, int32_t res)
{
    struct rv_fd *f = rv_fd_slot(op->fd);
    uint64_t word = rv_fd_lock(f);
    op->stream_state = IDLE;
    if (rv_fd_gen(word) != op->fd_gen || word & RV_FD_CLOSING) {
        retire(iw, op, word);
        return;
    }
    if (!passing(res)) {
        finish(iw, op, word, res);
        return;
    }
    if (iw->leaving || is_held(f)) { /* the fd may outlive this runtime: see rv_fd_forget() */
        retire(iw, op, word);
        return;
    }
    bool pause = !rv_load_relaxed(&f->reader) && well_filled(iw->io, f);
    rv_fd_unlock(f, pause ? word & ~(uint64_t)RV_FD_ARMED : word); /* (1) */
    if (!pause && res == -ENOBUFS && !rv_group_widen(iw))
        starve(iw, op);
    else if (!pause)
        arm(iw, op);
}

/* The last completion of this flight. Whatever became of it, there is one less in the air, and one
 * that starves may take its place: the buffer that this one did not take comes home to nobody. */
static void landed(struct rv_io_worker *iw, struct rv_op *op, int32_t res)
{
    settle(iw, op, res);
    if (iw->starved_first && !iw->leaving)
        feed(iw);
}

/* Back to what it is in ordinary times. */
static void ordinary(struct rv_op *op)
{
    op->code = RV_OP_RECV_MULTI;
    op->ctx = op->addr = NULL;
    op->len = 0;
}

/* A starved stream has looked for data. */
static void looked(struct rv_io_worker *iw, struct rv_op *op, int32_t res)
{
    rv_free(op->addr);
    ordinary(op);
    bool there = res > 0 && op->stream_state == FLYING && lacks_buffers(iw) && !iw->leaving;
    struct rv_lease *l = there ? rv_lease_extra(iw, true) : NULL;
    if (l)
        fly_with(iw, op, l);
    else
        landed(iw, op, res > 0 || res == -ENOMEM ? -EAGAIN : res);
}

/* The block that a relief was received into, or nothing was. */
static void relieved(struct rv_io_worker *iw, struct rv_op *op, int32_t res)
{
    struct rv_fd *f = rv_fd_slot(op->fd);
    struct rv_lease *l = op->ctx;
    ordinary(op);
    uint64_t word = rv_fd_lock(f);
    if (res > 0 && delivers(f, word, op)) {
        l->pub.len = (size_t)res;
        l->pub.opaque[1] = RV_LEASE_PENDING;
        push(iw, f, word, l);
    } else {
        rv_fd_unlock(f, word);
        rv_lease_return(iw, l);
    }
    landed(iw, op, res);
}

void rv_stream_complete(struct rv_io_worker *iw, struct rv_op *op, int32_t res, uint32_t cflags)
{
    if (op->code != RV_OP_RECV_MULTI) {
        if (op->code == RV_OP_RECV)
            relieved(iw, op, res);
        else
            looked(iw, op, res);
        return;
    }
    struct rv_fd *f = rv_fd_slot(op->fd);
    bool data = cflags & RV_OPF_BUFFER && res > 0;
    if (!data || !rv_stream_piece(iw, f, op, res, cflags)) {
        if (cflags & RV_OPF_BUFFER)
            rv_lease_return(iw, rv_lease_picked(iw, cflags, res));
        if (data) /* for nobody */
            rv_stream_stop(iw, op);
    }
    if (!(cflags & RV_OPF_MORE))
        landed(iw, op, res);
}

/* ---- reading --------------------------------------------------------------------------------- */

/* What is left to do after the unlock: something here, or a message there. */
struct request {
    struct rv_op *here, *there;
    unsigned wants;
    uint64_t token; /* the reader's, for a nudge */
};

/* Asks the stream's home for something; under the lock. */
static void request(struct rv_io_worker *iw, struct rv_fd *f, unsigned want, struct request *ret)
{
    struct rv_op *op = f->stream;
    ret->wants |= want;
    ret->token = rv_load_relaxed(&f->token);
    if (rv_load_relaxed(&op->iw) == iw) {
        ret->here = op;
        return;
    }
    if (!op->stream_wants)
        ret->there = op;
    op->stream_wants |= (uint8_t)want;
}

static void perform(struct rv_io_worker *iw, const struct request *q)
{
    if (q->here)
        fulfil(iw, q->here, q->wants, q->token);
    if (q->there) {
        struct rv_io_worker *home = rv_load_relaxed(&q->there->iw);
        rv_send(home->io->sched, home->w, &q->there->msg, RV_IO_MSG_STREAM);
    }
}

/* Sees to it that the stream receives; under the lock. 0 or -ENOMEM. */
static int request_arm(struct rv_io_worker *iw, struct rv_fd *f, uint64_t *word,
                       struct request *ret)
{
    if (!f->stream) {
        struct rv_op *op = rv_op_take(iw, RV_OPK_STREAM, RV_OP_RECV_MULTI, rv_fd_number(f));
        if (!op)
            return -ENOMEM;
        op->fd_gen = rv_fd_gen(*word);
        op->stream_state = IDLE;
        op->stream_wants = 0;
        f->stream = op;
        *word += RV_FD_COUNT_ONE;
        rv_store_relaxed(&iw->streams, rv_load_relaxed(&iw->streams) + 1);
    }
    *word |= RV_FD_ARMED;
    request(iw, f, RV_STREAM_ARM, ret);
    return 0;
}

static void resume(struct rv_io_worker *iw, struct rv_fd *f, uint64_t word)
{
    struct request q = { 0 };
    if (!well_filled(iw->io, f))
        request_arm(iw, f, &word, &q); /* if it fails, the next read that waits does it */
    rv_fd_unlock(f, word);
    perform(iw, &q);
}

/* After something was read: a stream that had stopped because nobody read goes on. */
static inline void unlock_and_resume(struct rv_io_worker *iw, struct rv_fd *f, uint64_t word)
{
    if (__builtin_expect(word & (RV_FD_ARMED | RV_FD_ENDED | RV_FD_CLOSING), 1))
        rv_fd_settle(f, word);
    else
        resume(iw, f, word);
}

/* -errno: why this task may not read now; 0: it may. */
static int may_read(const struct rv_fd *f, uint64_t word)
{
    if (word & RV_FD_CLOSING)
        return -EBADF;
    return rv_load_relaxed(&f->reader) || word & RV_FD_READER ? -EBUSY : 0;
}

static int64_t read_until(const struct rv_fd *f, uint64_t word, const struct rv_worker *w,
                          reeve_time deadline)
{
    int64_t until = rv_deadline(w->cur, deadline);
    if (deadline != 0 || !(word & RV_FD_IDLE))
        return until;
    int64_t idle = w->now + f->idle_ns;
    return idle < until ? idle : until;
}

/* The reader is in the slot, which is locked: parks it, until something is there for it or its time
 * is over. One whose stream starves looks after it now and then; who makes a stream starve, has
 * looked for what arrived (nudge), or whose runtime ends, wakes it with nothing in its hands. 0:
 * taken out of the slot by somebody; -ETIMEDOUT, -ECANCELED, -ENOMEM: by itself. */
static int park_reader(struct rv_io_worker *iw, struct rv_fd *f, uint64_t word, int64_t until,
                       struct rv_reader *r, struct request q)
{
    struct rv_task *t = iw->w->cur;
    for (;;) {
        bool once = until <= iw->w->now;
        bool starved = word & RV_FD_STARVED;
        int64_t look_at = starved ? rv_worker_now(iw->w) + PATIENCE_NS : RV_NEVER;
        r->token = rv_wait_arm(r->sched, t, 0);
        rv_store_relaxed(&f->token, r->token);
        struct rv_io_worker *lives = rv_load_relaxed(&f->stream->iw);
        struct rv_worker *home = lives->io == iw->io ? lives->w : iw->w;
        if (once && lives->io == iw->io)
            request(iw, f, RV_STREAM_NUDGE, &q);
        else if (once) /* the stream lives in another runtime, which fires no wait of ours */
            look_at = until;
        rv_fd_unlock(f, word); /* from here on the stream may go */
        if (__builtin_expect(q.here || q.there, 0))
            perform(iw, &q);
        int64_t wake_at = once || look_at < until ? look_at : until;
        bool urgent = rv_urgent_begin(home, t);
        int why = rv_wait_park(iw->w, t, wake_at);
        rv_urgent_end(home, urgent);
        if (why == RV_WOKEN)
            return 0;
        iw = rv_io_self();
        word = rv_fd_lock(f);
        if (rv_load_relaxed(&f->reader) != r) { /* the result came first, and counts */
            rv_fd_unlock(f, word);
            return 0;
        }
        int64_t now = rv_worker_now(iw->w);
        int cancelled = why == RV_CANCELLED ? rv_wait_check(r->sched, t) : 0;
        if (once || cancelled || now >= until) {
            rv_store_relaxed(&f->reader, NULL);
            rv_fd_unlock(f, word);
            return cancelled ? cancelled : -ETIMEDOUT;
        }
        q = (struct request){ 0 };
        int e = 0;
        if (!(word & RV_FD_ARMED))
            e = request_arm(iw, f, &word, &q);
        else if (word & RV_FD_STARVED && now >= look_at)
            request(iw, f, RV_STREAM_RELIEVE, &q);
        if (e < 0) {
            rv_store_relaxed(&f->reader, NULL);
            rv_fd_unlock(f, word);
            return e;
        }
    }
}

/* Sees to it that a stream receives which does not, or which starves; under the lock. */
static int rouse(struct rv_io_worker *iw, struct rv_fd *f, uint64_t *word, struct request *ret)
{
    if (!(*word & RV_FD_ARMED))
        return request_arm(iw, f, word, ret);
    struct rv_io_worker *home = rv_load_relaxed(&f->stream->iw);
    if (rv_load_relaxed(&home->group.held))
        request(iw, f, RV_STREAM_RELIEVE, ret);
    return 0;
}

/* Waits for the next piece; nothing is unread. Unlocks. 1: r->lease, with RV_FD_READER held if it
 * is more than r->room; 0: the end; -errno. */
static int await(struct rv_io_worker *iw, struct rv_fd *f, uint64_t word, reeve_time deadline,
                 struct rv_reader *r)
{
    struct request q = { 0 };
    int e = 0;
    if (word & RV_FD_ENDED)
        e = f->end;
    else if (word & RV_FD_DRAIN && !rv_fd_pending(f))
        e = -ESHUTDOWN;
    else if ((word & (RV_FD_ARMED | RV_FD_STARVED)) != RV_FD_ARMED)
        e = rouse(iw, f, &word, &q);
    if (e != 0) {
        rv_fd_unlock(f, word);
        return e == 1 ? 0 : e;
    }
    r->sched = iw->io->sched;
    rv_store_relaxed(&f->reader, r);
    e = park_reader(iw, f, word, read_until(f, word, iw->w, deadline), r, q);
    if (e < 0)
        return e;
    if (r->lease)
        return 1;
    return r->end == 1 ? 0 : r->end;
}

ssize_t rv_stream_take(struct rv_io_worker *iw, struct rv_fd *f, uint64_t word, reeve_time deadline,
                       struct rv_lease **ret_lease)
{
    struct rv_reader r = { .room = SIZE_MAX };
    int e = may_read(f, word);
    if (e < 0) {
        rv_fd_unlock(f, word);
        return e;
    }
    if (f->first) {
        r.lease = pop(f);
        unlock_and_resume(iw, f, word);
    } else if ((e = await(iw, f, word, deadline, &r)) <= 0) {
        return e;
    }
    r.lease->pub.opaque[1] = RV_LEASE_OUT;
    *ret_lease = r.lease;
    return (ssize_t)r.lease->pub.len;
}

size_t rv_stream_take_more(struct rv_io_worker *iw, struct rv_fd *f, uint32_t gen,
                           struct reeve_buf **ret_bufs, size_t max)
{
    size_t n = 0;
    uint64_t word = rv_fd_lock(f);
    if (rv_fd_gen(word) != gen || may_read(f, word) < 0) {
        rv_fd_unlock(f, word);
        return 0;
    }
    for (; n < max && f->first; n++) {
        struct rv_lease *l = pop(f);
        l->pub.opaque[1] = RV_LEASE_OUT;
        ret_bufs[n] = &l->pub;
    }
    unlock_and_resume(iw, f, word);
    return n;
}

/* The rest of a piece that was too large goes back to the front, and others may read again. */
static void copied_part(struct rv_io_worker *iw, struct rv_fd *f, uint32_t gen, struct rv_lease *l)
{
    uint64_t word = rv_fd_lock(f);
    if (rv_fd_gen(word) != gen) {
        rv_fd_unlock(f, word);
        rv_lease_return(iw, l);
        return;
    }
    word = (word & ~(uint64_t)RV_FD_READER) - RV_FD_COUNT_ONE;
    if (word & RV_FD_CLOSING) {
        rv_fd_settle(f, word);
        rv_lease_return(iw, l);
        return;
    }
    put_back(f, l);
    unlock_and_resume(iw, f, word);
}

/* Moves whole pieces out, as many as fit; the first one does. Unlocks. */
static ssize_t copy_whole(struct rv_io_worker *iw, struct rv_fd *f, uint64_t word, void *buf,
                          size_t len)
{
    struct rv_lease *l = f->first, *next;
    size_t total = 0, at = 0;
    while (f->first && f->first->pub.len <= len - total)
        total += pop(f)->pub.len;
    unlock_and_resume(iw, f, word);
    for (; at < total; l = next) { /* what was taken is still linked */
        next = rv_lease_next(l);
        memcpy((unsigned char *)buf + at, l->pub.data, l->pub.len);
        at += l->pub.len;
        rv_lease_return(iw, l);
    }
    return (ssize_t)total;
}

ssize_t rv_stream_copy(struct rv_io_worker *iw, struct rv_fd *f, uint64_t word, reeve_time deadline,
                       void *buf, size_t len)
{
    struct rv_reader r = { .room = len };
    uint32_t gen = rv_fd_gen(word);
    int e = may_read(f, word);
    if (e < 0) {
        rv_fd_unlock(f, word);
        return e;
    }
    if (f->first && f->first->pub.len <= len)
        return copy_whole(iw, f, word, buf, len);
    if (f->first) {
        r.lease = pop(f);
        rv_fd_unlock(f, (word | RV_FD_READER) + RV_FD_COUNT_ONE);
    } else {
        e = await(iw, f, word, deadline, &r);
        if (e <= 0)
            return e;
        iw = rv_io_self();
    }
    struct reeve_buf *piece = &r.lease->pub;
    if (piece->len <= len) {
        ssize_t n = (ssize_t)piece->len;
        memcpy(buf, piece->data, piece->len);
        rv_lease_return(iw, r.lease);
        return n;
    }
    memcpy(buf, piece->data, len);
    piece->data += len;
    piece->len -= len;
    copied_part(iw, f, gen, r.lease);
    return (ssize_t)len;
}

/* ---- the way around a stream ----------------------------------------------------------------- */

/* No hold any more, if the slot, locked, is still what was held; unlocks. */
static void end_hold(struct rv_fd *f, uint64_t word, uint32_t gen)
{
    if (rv_fd_gen(word) == gen)
        rv_fd_settle(f, (word & ~(uint64_t)RV_FD_READER) - RV_FD_COUNT_ONE);
    else
        rv_fd_unlock(f, word);
}

/* Waits until the op has gone; the slot is held, and locked; unlocks. On failure it is held no
 * more. */
static int await_gone(struct rv_io_worker *iw, struct rv_fd *f, uint64_t word, int64_t until)
{
    struct rv_reader me = { .sched = iw->io->sched };
    struct rv_task *t = iw->w->cur;
    uint32_t gen = rv_fd_gen(word);
    int64_t wake_at = until > iw->w->now ? until : RV_NEVER; /* its home answers within a pass */
    while (f->stream) {
        struct request q = { 0 };
        me.token = rv_wait_arm(me.sched, t, 0);
        rv_store_relaxed(&f->token, me.token);
        rv_store_relaxed(&f->reader, &me);
        request(iw, f, RV_STREAM_LEAVE, &q);
        rv_fd_unlock(f, word);
        perform(iw, &q);
        int why = rv_wait_park(iw->w, t, wake_at);
        iw = rv_io_self();
        word = rv_fd_lock(f);
        if (rv_load_relaxed(&f->reader) == &me)
            rv_store_relaxed(&f->reader, NULL);
        int e = 0;
        if (rv_fd_gen(word) != gen || word & RV_FD_CLOSING)
            e = -ECANCELED;
        else if (why == RV_CANCELLED && f->stream)
            e = rv_wait_check(me.sched, t);
        if (e == 0 && f->stream && rv_worker_now(iw->w) >= wake_at)
            e = -ETIMEDOUT;
        if (e < 0) {
            end_hold(f, word, gen);
            return e;
        }
    }
    rv_fd_unlock(f, word);
    return 0;
}

int rv_stream_hold(struct rv_io_worker *iw, int fd, int64_t until, struct rv_hold *ret_hold)
{
    struct rv_fd *f = rv_fd_slot(fd);
    if (fd < 0)
        return -EBADF;
    uint64_t word = f ? rv_fd_lock(f) : 0;
    if (!(word & RV_FD_STREAM)) {
        if (f)
            rv_fd_unlock(f, word);
        *ret_hold = (struct rv_hold){ 0 };
        return 0;
    }
    rv_fd_check(f, word);
    int e = may_read(f, word);
    if (e < 0) {
        rv_fd_unlock(f, word);
        return e;
    }
    struct rv_hold hold = { f, rv_fd_gen(word) };
    e = await_gone(iw, f, (word | RV_FD_READER) + RV_FD_COUNT_ONE, until);
    if (e == 0)
        *ret_hold = hold;
    return e;
}

int rv_stream_release(struct rv_io_worker *iw, int fd, int64_t until, struct rv_hold *ret_hold)
{
    struct rv_hold hold;
    int e = rv_stream_hold(iw, fd, until, &hold);
    if (e < 0)
        return e;
    uint64_t word = hold.f ? rv_fd_lock(hold.f) : 0;
    if (hold.f && rv_fd_gen(word) == hold.gen && hold.f->first) {
        end_hold(hold.f, word, hold.gen);
        return -EBUSY;
    }
    if (hold.f)
        rv_fd_unlock(hold.f, word);
    *ret_hold = hold;
    return 0;
}

ssize_t rv_stream_unread(const struct rv_hold *hold, struct rv_lease **ret_lease)
{
    struct rv_fd *f = hold->f;
    if (!f)
        return -EAGAIN;
    uint64_t word = rv_fd_lock(f);
    struct rv_lease *l = NULL;
    ssize_t n = -EAGAIN;
    if (rv_fd_gen(word) != hold->gen || word & RV_FD_CLOSING)
        n = -ECANCELED;
    else if (f->first)
        l = pop(f);
    else if (word & RV_FD_ENDED)
        n = f->end == 1 ? 0 : f->end;
    else if (word & RV_FD_DRAIN && !rv_fd_pending(f))
        n = -ESHUTDOWN;
    rv_fd_unlock(f, word);
    if (!l)
        return n;
    l->pub.opaque[1] = RV_LEASE_OUT;
    *ret_lease = l;
    return (ssize_t)l->pub.len;
}

void rv_stream_put_back(struct rv_io_worker *iw, const struct rv_hold *hold, struct rv_lease *l)
{
    struct rv_fd *f = hold->f;
    uint64_t word = rv_fd_lock(f);
    bool open = rv_fd_gen(word) == hold->gen && !(word & RV_FD_CLOSING);
    if (open) {
        l->pub.opaque[1] = RV_LEASE_PENDING;
        put_back(f, l);
    }
    rv_fd_unlock(f, word);
    if (!open)
        rv_lease_return(iw, l);
}

int64_t rv_stream_until(struct rv_io_worker *iw, const struct rv_hold *hold, reeve_time deadline)
{
    struct rv_fd *f = hold->f;
    if (!f)
        return rv_deadline(iw->w->cur, deadline);
    uint64_t word = rv_fd_lock(f);
    int64_t until = read_until(f, word, iw->w, deadline);
    rv_fd_unlock(f, word);
    return until;
}

void rv_stream_let_go(struct rv_io_worker *iw, const struct rv_hold *hold)
{
    (void)iw;
    if (hold->f)
        end_hold(hold->f, rv_fd_lock(hold->f), hold->gen);
}
