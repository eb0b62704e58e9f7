/* SPDX-License-Identifier: MIT */
/*
 * sim_op.c -- what the simulated kernel makes of an op.
 *
 *     NONE   -> QUEUED   [queue, in engine_sim.c]
 *     QUEUED -> HELD     [rv_sim_submit]
 *     HELD   -> NONE     [finish]   its last completion lies in its worker's cq
 *
 * A held op waits at its file. Whenever something changes there a try becomes due for it, soon or
 * later; it does what it can, or waits on. What goes wrong goes wrong in a try: an errno in place
 * of an effect, less than was asked for, a multishot that ends.
 *
 * (1) An op is tried at least once, even when its cancellation comes before its submission.
 * (2) A try either has an effect and says so, or has none: bytes are taken out of a socket only
 *     into a completion.
 * (3) The completions of one op keep their order in the cq; others may overtake them.
 * (4) An op on a real descriptor waits nowhere: it looks again when the world has moved, see
 *     sim_real.c.
 * (5) After so many faults an op of a task is left alone, since its caller gives up at some point.
 */
#include <reeve/time.h>
#include <errno.h>
#include <poll.h>

#include "io/req.h"
#include "io/sim_world.h"
#include "io/uring_compat.h"
#include "mem/alloc.h"
#include "mem/die.h"
#include "sched/worker.h"

#define FAULTS_MAX 4
#define CONNECT_TRIES 40
#define SYN_AGAIN_NS (1 * REEVE_MS)
#define SYN_DOUBLED_MAX 10

static uint32_t index_of(const struct rv_sim_op *k)
{
    return (uint32_t)(k - rv_sim_world->ops);
}

struct rv_sim_op *rv_sim_op_of(const struct rv_op *op)
{
    struct rv_sim *sim = rv_sim_world;
    return &sim->ops[((const unsigned char *)op - sim->io->ops.base) / sizeof *op];
}

/* ---- completions ----------------------------------------------------------------------------- */

static void append(struct rv_sim_worker *sw, struct rv_sim_cqe cqe)
{
    if (sw->cq_n == sw->cq_cap) {
        uint32_t cap = 2 * sw->cq_cap;
        struct rv_sim_cqe *more = rv_alloc(cap * sizeof *more);
        RV_MUST(more != NULL);
        for (uint32_t i = 0; i < sw->cq_n; i++)
            more[i] = sw->cq[i];
        rv_free(sw->cq);
        sw->cq = more;
        sw->cq_cap = cap;
    }
    sw->cq[sw->cq_n++] = cqe;
}

static void post(struct rv_sim_op *k, int32_t res, uint32_t flags)
{
    struct rv_sim_cqe cqe = { k->id, res, flags };
    bool of_task = k->op->kind == RV_OPK_TASK || k->op->kind == RV_OPK_DISK;
    if (flags & RV_OPF_MORE || !of_task)
        k->faults = 0;
    rv_sim_record(RV_SIM_POST, k->sw->w->index, index_of(k), (int64_t)flags << 32 | (uint32_t)res);
    if (rv_sim_canary_now(RV_SIM_DROP_COMPLETION))
        return;
    append(k->sw, cqe);
    if (!(flags & RV_OPF_MORE) && rv_sim_canary_now(RV_SIM_TWICE_COMPLETION))
        append(k->sw, cqe);
}

/* The op is the kernel's no longer. */
static void finish(struct rv_sim_op *k, int32_t res, uint32_t flags)
{
    struct rv_sim_file *f = k->file;
    RV_MUST(k->state == RV_SIM_OP_HELD);
    k->state = RV_SIM_OP_NONE;
    k->file = NULL;
    rv_sim_world->real_waits -= k->waits;
    k->waits = false;
    if (f) {
        if (k->next)
            k->next->prev = k->prev;
        if (k->prev)
            k->prev->next = k->next;
        else
            f->ops = k->next;
        f->ops_held--;
    }
    if (k->cancel && res != -ECANCELED)
        rv_sim_world->result.seen.cancels_lost++;
    if (res == -ECANCELED)
        rv_sim_world->result.seen.cancels_won++;
    post(k, res, flags);
    if (f)
        rv_sim_file_drop(f);
}

/* ---- tries ----------------------------------------------------------------------------------- */

static void arm(struct rv_sim_op *k, int64_t delay)
{
    if (k->armed)
        return;
    k->armed = true;
    rv_sim_at(rv_sim_world->now + delay, RV_SIM_DUE_TRY, index_of(k), k->id);
}

void rv_sim_ready(struct rv_sim_file *f)
{
    for (struct rv_sim_op *k = f->ops; k; k = k->next)
        arm(k, rv_sim_chance(768) ? 0 : rv_sim_delay());
}

/* (4) */
static void wait_for_a_step(struct rv_sim_op *k)
{
    rv_sim_world->real_waits += !k->waits;
    k->waits = true;
    k->seen = rv_sim_world->steps;
}

void rv_sim_look(void)
{
    struct rv_sim *sim = rv_sim_world;
    uint32_t n = sim->real_waits ? rv_load_relaxed(&sim->io->ops.fresh) : 0;
    for (uint32_t i = 0; i < n; i++) {
        struct rv_sim_op *k = &sim->ops[i];
        if (k->state == RV_SIM_OP_HELD && k->waits && k->seen != sim->steps)
            arm(k, rv_sim_delay());
    }
}

/* -error in so many of 1024 cases, else 0. */
static int32_t fault(struct rv_sim_op *k, uint16_t rate, int error)
{
    if (k->faults >= FAULTS_MAX || !rv_sim_chance(rate))
        return 0;
    k->faults++;
    rv_sim_world->result.seen.faults++;
    rv_sim_record(RV_SIM_FAULT, k->sw->w->index, index_of(k), error);
    return -error;
}

static uint32_t some_of(uint32_t len)
{
    bool shorter = len > 1 && rv_sim_chance(rv_sim_world->opts.faults.shorter);
    return shorter ? 1 + rv_sim_draw(len) : len;
}

ssize_t rv_sim_send_now(int fd, const void *data, size_t len)
{
    const struct rv_sim_faults *rate = &rv_sim_world->opts.faults;
    struct rv_sim_file *f = rv_sim_file_of(fd);
    if (!f && !rv_sim_is_real(fd))
        return -EBADF;
    if (!f || rv_sim_world->answering || rv_sim_chance(512))
        return -EAGAIN;
    if (rv_sim_chance(rate->nobufs))
        return -ENOBUFS;
    if (rv_sim_chance(rate->pipe))
        rv_sim_break(f, EPIPE);
    int32_t r = rv_sim_send(f, data, some_of(len < UINT32_MAX ? (uint32_t)len : UINT32_MAX));
    return r == RV_SIM_WAIT ? -EAGAIN : r;
}

/* What may happen to any call; 0: nothing. */
static int32_t any_fault(struct rv_sim_op *k)
{
    const struct rv_sim_faults *rate = &rv_sim_world->opts.faults;
    int32_t r = fault(k, rate->eintr, EINTR);
    if (r == 0)
        r = fault(k, rate->eagain, EAGAIN);
    return r ? r : fault(k, rate->nomem, ENOMEM);
}

/* It moves a message, which is whole or not at all. */
static bool of_messages(const struct rv_sim_op *k)
{
    return k->file ? k->file->kind == RV_SIM_DGRAM : rv_sim_real_messages(k->op->fd);
}

/* The connection may break under it, which is then what it finds. */
static void break_sometimes(struct rv_sim_op *k, bool send)
{
    const struct rv_sim_faults *rate = &rv_sim_world->opts.faults;
    if (!k->file || k->file->kind == RV_SIM_DGRAM)
        return;
    if (fault(k, rate->reset, ECONNRESET) != 0)
        rv_sim_break(k->file, ECONNRESET);
    else if (send && fault(k, rate->pipe, EPIPE) != 0)
        rv_sim_break(k->file, EPIPE);
}

static int32_t accept_one(struct rv_sim_op *k, bool abort)
{
    return k->file ? rv_sim_accept(k->file, abort) : rv_sim_real_accept(k->op->fd, abort);
}

static void try_accept(struct rv_sim_op *k)
{
    const struct rv_sim_faults *rate = &rv_sim_world->opts.faults;
    bool multi = k->op->code == RV_OP_ACCEPT_MULTI;
    for (;;) {
        int32_t r = any_fault(k);
        if (r == 0)
            r = fault(k, rate->mfile, rv_sim_chance(512) ? EMFILE : ENFILE);
        if (r == 0)
            r = fault(k, rate->nobufs, ENOBUFS);
        if (r == 0)
            r = accept_one(k, rv_sim_chance(rate->abort));
        if (r == RV_SIM_WAIT) {
            if (!k->file)
                wait_for_a_step(k);
            return;
        }
        if (r < 0 || !multi || rv_sim_chance(rate->unmulti)) {
            finish(k, r, 0);
            return;
        }
        post(k, r, RV_OPF_MORE);
    }
}

static void try_connect(struct rv_sim_op *k)
{
    static const int errors[] = { ENETUNREACH, EHOSTUNREACH, ECONNREFUSED, ETIMEDOUT };
    const struct rv_sim_faults *rate = &rv_sim_world->opts.faults;
    bool asks_nobody = k->file->kind == RV_SIM_DGRAM;
    int32_t r = fault(k, rate->refuse, errors[rv_sim_draw(asks_nobody ? 2 : 4)]);
    if (r == 0)
        r = rv_sim_connect(k->file, k->op->addr, (socklen_t)k->op->off);
    uint32_t doubled = k->tries < SYN_DOUBLED_MAX ? k->tries : SYN_DOUBLED_MAX;
    if (r == RV_SIM_WAIT && (++k->tries < CONNECT_TRIES || rate->refuse == 0)) {
        arm(k, (SYN_AGAIN_NS << doubled) + rv_sim_delay()); /* no room there: asked again */
        return;
    }
    finish(k, r == RV_SIM_WAIT ? -ETIMEDOUT : r, 0);
}

/* The MSG_* of what is a call for sockets; the others have flags of another kind. */
static uint32_t flags_of(const struct rv_op *op)
{
    if (op->code == RV_OP_REQUEST)
        return ((const struct rv_req *)op->addr)->op_flags;
    return op->code == RV_OP_SEND || op->code == RV_OP_RECV ? op->msg_flags : 0;
}

/* Where the bytes after the first `moved` lie, as many as lie in one place; 0: no more are. */
static uint32_t piece_at(const struct rv_op *op, uint64_t moved, unsigned char **ret_mem)
{
    if (op->code != RV_OP_REQUEST) {
        *ret_mem = (unsigned char *)op->addr + moved;
        return op->len - (uint32_t)moved;
    }
    const struct rv_req *req = op->addr;
    const struct msghdr *m = (const struct msghdr *)(uintptr_t)req->addr;
    for (size_t i = 0; i < m->msg_iovlen; i++) {
        const struct iovec *v = &m->msg_iov[i];
        if (moved < v->iov_len) {
            *ret_mem = (unsigned char *)v->iov_base + moved;
            return (uint32_t)(v->iov_len - moved);
        }
        moved -= v->iov_len;
    }
    return 0;
}

static int32_t send_bytes(struct rv_sim_op *k, const void *from, uint32_t n)
{
    return k->file ? rv_sim_send(k->file, from, n)
                   : rv_sim_real_send(k->op->fd, from, n, flags_of(k->op));
}

static int32_t recv_bytes(struct rv_sim_op *k, void *to, uint32_t n)
{
    return k->file ? rv_sim_recv(k->file, to, n)
                   : rv_sim_real_recv(k->op->fd, to, n, flags_of(k->op));
}

static bool readable(const struct rv_sim_op *k)
{
    return k->file ? rv_sim_readable(k->file) : rv_sim_real_ready(k->op->fd, POLLIN);
}

/* Moves bytes from or to the caller's memory. With MSG_WAITALL it goes on until all are there, or
 * nothing more is to be had: then what it has counts. Of several pieces the next one is begun if
 * the one before went in one go. */
static void try_transfer(struct rv_sim_op *k, bool send)
{
    struct rv_op *op = k->op;
    unsigned char *mem = NULL;
    uint32_t how = flags_of(op);
    bool whole_only = of_messages(k);
    for (;;) {
        uint32_t left = piece_at(op, k->moved, &mem);
        int32_t r = any_fault(k);
        if (r == 0 && send)
            r = fault(k, rv_sim_world->opts.faults.nobufs, ENOBUFS);
        if (r == 0) {
            uint32_t n = whole_only ? left : some_of(left);
            break_sometimes(k, send);
            r = send ? send_bytes(k, mem, n) : recv_bytes(k, mem, n);
        }
        if (r == RV_SIM_WAIT && !(how & MSG_DONTWAIT)) {
            if (!k->file)
                wait_for_a_step(k);
            return;
        }
        if (r > 0)
            k->moved += (uint64_t)r;
        bool whole = op->code == RV_OP_REQUEST && (uint32_t)r == left;
        bool more = r > 0 && (how & MSG_WAITALL || whole) && piece_at(op, k->moved, &mem) > 0;
        if (!more) {
            int32_t none = r == RV_SIM_WAIT ? -EAGAIN : r;
            finish(k, k->moved ? (int32_t)k->moved : none, 0);
            return;
        }
        if (rv_sim_chance(512)) {
            arm(k, rv_sim_delay());
            return;
        }
    }
}

/* ---- buffers that the kernel picks ----------------------------------------------------------- */

/* Into the next provided buffer; the number of bytes, with *ret_flags set, or why not. A new
 * request fails at once where there is none, an old one when something has come. */
static int32_t fill_buffer(struct rv_sim_op *k, bool first, uint32_t *ret_flags)
{
    struct rv_sim_worker *sw = k->sw;
    const struct rv_group *g = &sw->iw->group;
    int32_t r = any_fault(k);
    if (r == 0 && (first || readable(k)))
        r = sw->provided_n == 0 ? -ENOBUFS
                                : fault(k, rv_sim_world->opts.faults.nobufs, ENOBUFS);
    if (r < 0) {
        rv_sim_world->result.seen.starved += r == -ENOBUFS;
        return r;
    }
    if (sw->provided_n == 0)
        return RV_SIM_WAIT;
    uint32_t id = sw->provided[sw->provided_first];
    break_sometimes(k, false);
    uint32_t room = (uint32_t)g->bytes;
    r = recv_bytes(k, g->base + (size_t)id * g->bytes, of_messages(k) ? room : some_of(room));
    if (r <= 0)
        return r;
    if (!rv_sim_canary_now(RV_SIM_EARLY_BUFFER)) {
        sw->provided_first = (sw->provided_first + 1) % g->bufs;
        sw->provided_n--;
    }
    *ret_flags = RV_OPF_BUFFER | id << RV_OPF_BUFFER_SHIFT;
    return r;
}

static void try_pick(struct rv_sim_op *k, bool first)
{
    const struct rv_sim *sim = rv_sim_world;
    bool multi = k->op->code == RV_OP_RECV_MULTI;
    uint64_t limit = sim->io->caps.recv_optlen && k->op->off ? k->op->off : UINT64_MAX;
    for (;; first = false) {
        uint32_t flags = 0;
        int32_t r = fill_buffer(k, first, &flags);
        if (r == RV_SIM_WAIT) {
            if (!k->file)
                wait_for_a_step(k);
            return;
        }
        if (r > 0)
            k->moved += (uint64_t)r;
        if (r <= 0 || !multi || k->moved >= limit || rv_sim_chance(sim->opts.faults.unmulti)) {
            finish(k, r, flags);
            return;
        }
        post(k, r, flags | RV_OPF_MORE);
        if (rv_sim_chance(512)) { /* what is left comes later */
            if (readable(k))
                arm(k, rv_sim_delay());
            else if (!k->file)
                wait_for_a_step(k);
            return;
        }
    }
}

/* ---- requests that their caller wrote out ---------------------------------------------------- */

static bool writes(const struct rv_req *q)
{
    switch (q->opcode) {
    case IORING_OP_WRITE:
    case IORING_OP_WRITEV:
    case IORING_OP_WRITE_FIXED:
    case IORING_OP_FSYNC:
    case IORING_OP_FALLOCATE:
    case RV_URING_OP_FTRUNCATE:
        return true;
    default:
        return false;
    }
}

static void try_poll(struct rv_sim_op *k, uint32_t events)
{
    int32_t r = any_fault(k);
    if (r == 0)
        r = rv_sim_poll(k->file) & (int32_t)(events | POLLERR | POLLHUP);
    if (r != 0)
        finish(k, r, 0);
}

/* A message from or to a simulated socket. */
static void try_message(struct rv_sim_op *k, const struct rv_req *q)
{
    struct msghdr *m = (struct msghdr *)(uintptr_t)q->addr;
    bool send = q->opcode == IORING_OP_SENDMSG;
    int32_t r = any_fault(k);
    if (r == 0 && send)
        r = fault(k, rv_sim_world->opts.faults.nobufs, ENOBUFS);
    if (r == 0)
        r = send ? rv_sim_mail_send(k->file, m) : rv_sim_mail_recv(k->file, m, q->op_flags);
    if (r == RV_SIM_WAIT && q->op_flags & MSG_DONTWAIT)
        r = -EAGAIN;
    if (r != RV_SIM_WAIT)
        finish(k, r, 0);
}

/* A stream has nothing to say beside its bytes. */
static void say_plain(struct msghdr *m)
{
    m->msg_namelen = 0;
    m->msg_controllen = 0;
    m->msg_flags = 0;
}

/* For a socket that is simulated. */
static void try_socket_request(struct rv_sim_op *k)
{
    const struct rv_req *q = k->op->addr;
    bool message = q->opcode == IORING_OP_SENDMSG || q->opcode == IORING_OP_RECVMSG;
    if (message && k->file->kind == RV_SIM_DGRAM) {
        try_message(k, q);
    } else if (message) {
        try_transfer(k, q->opcode == IORING_OP_SENDMSG);
        if (q->opcode == IORING_OP_RECVMSG && k->state == RV_SIM_OP_NONE && k->moved > 0)
            say_plain((struct msghdr *)(uintptr_t)q->addr);
    } else if (q->opcode == IORING_OP_POLL_ADD) {
        try_poll(k, q->op_flags);
    } else {
        finish(k, -EINVAL, 0);
    }
}

/* By a real descriptor, or by none. */
static void try_real(struct rv_sim_op *k, const struct rv_req *q)
{
    int32_t r = any_fault(k);
    if (r == 0 && writes(q))
        r = fault(k, rv_sim_world->opts.faults.disk, rv_sim_chance(512) ? EIO : ENOSPC);
    if (r == 0)
        r = rv_sim_real_request(q, some_of);
    bool socket = q->opcode == IORING_OP_SENDMSG || q->opcode == IORING_OP_RECVMSG;
    if (r != RV_SIM_WAIT)
        finish(k, r, 0);
    else if (socket && q->op_flags & MSG_DONTWAIT)
        finish(k, -EAGAIN, 0);
    else
        wait_for_a_step(k);
}

/* Descriptors, say, that go with its first byte. */
static bool brings_more(const struct rv_req *q)
{
    return ((const struct msghdr *)(uintptr_t)q->addr)->msg_controllen > 0;
}

static void try_request(struct rv_sim_op *k)
{
    const struct rv_req *q = k->op->addr;
    if (k->file)
        try_socket_request(k);
    else if (q->opcode == IORING_OP_SENDMSG && rv_sim_real_stream(q->fd) && !brings_more(q))
        try_transfer(k, true);
    else
        try_real(k, q);
}

/* As the request that it would be, if its caller had written one out. */
static void try_read_or_write(struct rv_sim_op *k, bool write)
{
    const struct rv_op *op = k->op;
    if (k->file) {
        try_transfer(k, write);
        return;
    }
    struct rv_req q = { .opcode = write ? IORING_OP_WRITE : IORING_OP_READ,
                        .fd = op->fd,
                        .off = op->off,
                        .addr = rv_req_ptr(op->addr),
                        .len = op->len,
                        .op_flags = op->msg_flags };
    try_real(k, &q);
}

static void try_op(struct rv_sim_op *k)
{
    bool first = !k->tried;
    k->tried = true;
    switch (k->op->code) {
    case RV_OP_ACCEPT:
    case RV_OP_ACCEPT_MULTI:
        try_accept(k);
        break;
    case RV_OP_CONNECT:
        try_connect(k);
        break;
    case RV_OP_RECV:
    case RV_OP_SEND:
        try_transfer(k, k->op->code == RV_OP_SEND);
        break;
    case RV_OP_READ:
    case RV_OP_WRITE:
        try_read_or_write(k, k->op->code == RV_OP_WRITE);
        break;
    case RV_OP_RECV_PICK:
    case RV_OP_RECV_MULTI:
        try_pick(k, first);
        break;
    case RV_OP_REQUEST:
        try_request(k);
        break;
    default:
        finish(k, -EINVAL, 0);
    }
}

/* ---- from the queue to the kernel, and the end ----------------------------------------------- */

void rv_sim_op_cancel(struct rv_sim_op *k)
{
    if (!k->tried || rv_sim_chance(512))
        try_op(k); /* (1), and: it completes just before */
    if (k->state != RV_SIM_OP_HELD)
        return;
    if (k->file && k->file->kind == RV_SIM_CONNECTING)
        k->file->kind = RV_SIM_PLAIN;
    bool partly = k->moved > 0 && k->op->code != RV_OP_RECV_MULTI;
    finish(k, partly ? (int32_t)k->moved : -ECANCELED, 0);
}

void rv_sim_op_due(const struct rv_sim_due *due)
{
    struct rv_sim_op *k = &rv_sim_world->ops[due->index];
    if (k->state != RV_SIM_OP_HELD || k->id != due->gen)
        return;
    if (due->kind == RV_SIM_DUE_CANCEL) {
        rv_sim_op_cancel(k);
    } else {
        k->armed = false;
        try_op(k);
    }
}

/* The op is held at a file. */
static bool wait_at(struct rv_sim_op *k, struct rv_sim_file *f)
{
    if (!f)
        return false;
    f->refs++;
    f->ops_held++;
    k->file = f;
    k->prev = NULL;
    k->next = f->ops;
    if (k->next)
        k->next->prev = k;
    f->ops = k;
    return true;
}

/* All but connections over TCP, which are played; those of Unix sockets are requests. */
static bool may_be_real(const struct rv_op *op)
{
    return op->code == RV_OP_REQUEST || (rv_sim_is_real(op->fd) && op->code != RV_OP_CONNECT);
}

/* The answer that was put into its mouth, see rv_sim_answer(). */
static bool answers(struct rv_sim_op *k)
{
    struct rv_sim *sim = rv_sim_world;
    if (!sim->answering || k->op->kind == RV_OPK_NUDGE || k->op->kind == RV_OPK_ACCEPTOR)
        return false;
    if (sim->answer_skips-- > 0)
        return false;
    const struct rv_req *q = k->op->code == RV_OP_REQUEST ? k->op->addr : NULL;
    sim->answering = false;
    sim->answered_opcode = q ? q->opcode : 0;
    sim->result.seen.faults++;
    rv_sim_record(RV_SIM_FAULT, k->sw->w->index, index_of(k), -sim->answer);
    finish(k, sim->answer, 0);
    return true;
}

static void begin(struct rv_sim_op *k)
{
    k->state = RV_SIM_OP_HELD;
    rv_sim_record(RV_SIM_SUBMIT, k->sw->w->index, index_of(k), k->op->fd);
    if (k->op->code == RV_OP_NOP) {
        finish(k, 0, 0);
        return;
    }
    if (answers(k))
        return;
    if (!wait_at(k, rv_sim_file_of(k->op->fd)) && !may_be_real(k->op)) {
        finish(k, -EBADF, 0);
        return;
    }
    if (k->cancel)
        rv_sim_op_cancel(k);
    else if (rv_sim_chance(512))
        try_op(k);
    else
        arm(k, rv_sim_delay());
}

void rv_sim_submit(struct rv_sim_worker *sw, bool all)
{
    uint32_t n = all || sw->sq_n == 0 ? sw->sq_n : 1 + rv_sim_draw(sw->sq_n);
    for (; n > 0; n--) {
        struct rv_sim_op *k = sw->sq_first;
        sw->sq_first = k->next;
        if (!sw->sq_first)
            sw->sq_last = NULL;
        sw->sq_n--;
        begin(k);
    }
}
