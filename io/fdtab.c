/* SPDX-License-Identifier: MIT */
/*
 * fdtab.c -- who uses a descriptor, and when it may really be closed.
 *
 * The kernel closes a number at once and hands it out again, while operations on the old file go
 * on: they would then deliver to the new owner of the number. So close(2) comes last. Each op that
 * is to be queued for an fd enters its slot first; reeve_close marks the slot, ends what is in
 * flight, and whoever leaves last closes.
 *
 *     63                32 31                12 11            0
 *     | generation        | in flight          | flags        |    struct rv_fd's word
 *
 *     foreign -> ours                 [rv_fd_made]
 *     any     -> any, count + 1       [rv_fd_enter; a stream while it exists; a reader, a writer]
 *     any     -> closing              [rv_fd_close]
 *     closing, count 0 -> vacated, then foreign, generation + 1, then close(2)
 *                                     [rv_fd_settle_closing]
 *     ours    -> ours, generation + 1 [rv_fd_made, after a close(2) behind our back]
 *     ours    -> foreign, generation + 1 [rv_fd_file_made, likewise]
 *     foreign, count 0 -> ours                      [rv_fd_adopt]
 *     ours, count 0    -> foreign, generation + 1   [rv_fd_release]
 *
 * (1) The word is written under its lock only, so taking the lock is the one atomic
 *     read-modify-write of an entry, and releasing it is a plain store.
 * (2) Nothing is in the slot's lists that is not in its count. A waiting reader and those who wait
 *     for their turn to write are not counted: they have no op, and a close throws them out.
 * (3) The kernel cannot hand out the number before settle() has reset the slot.
 * (4) What entered in one generation touches nothing of another: it carries the generation along,
 *     and leaves without a trace if that is over.
 * (5) By (3) there is a moment in which the slot is foreign and the number still open. An op that
 *     came in then would be queued on a file that nobody can reach any more, wait there for ever,
 *     and keep it from being closed. So where other threads may come, the file leaves its number
 *     before that, while the slot still says that it is closing; what is at the number in that
 *     moment answers -EBADF to every transfer.
 *
 * Threads: everything - anyone; release - a task; forget - one, while no worker of its runtime
 * runs.
 */
#include "io/fdtab.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <reeve/net.h>
#include <sched.h>
#include <sys/mman.h>

#include "io/buf.h"
#include "io/io.h"
#include "io/op.h"
#include "io/rw.h"
#include "io/stream.h"
#include "mem/alloc.h"
#include "mem/die.h"
#include "mem/forked.h"
#include "sched/wait.h"

#define SPINS 100

struct rv_fd *rv_fd_table;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static RV_ATOMIC(int) highest; /* the largest fd ever made by reeve */
static RV_ATOMIC(bool) unchecked;

/* In a child of fork the descriptors are plain ones: the streams are the parent's, and receive in
 * its rings. */
static void forked(void)
{
    if (rv_fd_table) /* a private mapping without a file: it reads as zero from then on */
        RV_MUST(madvise(rv_fd_table, sizeof(struct rv_fd) * RV_FDS_MAX, MADV_DONTNEED) == 0);
    rv_store_relaxed(&highest, 0);
}

static void make_table(void)
{
    rv_fd_table = rv_map_lazy(sizeof(struct rv_fd) * RV_FDS_MAX);
    rv_fork_hook(forked);
}

int rv_fd_table_init(void)
{
    pthread_once(&once, make_table);
    return rv_fd_table ? 0 : -ENOMEM;
}

/* The holder is at work, for some tens of nanoseconds, or was preempted: then it needs a CPU. */
uint64_t rv_fd_lock_slow(struct rv_fd *f)
{
    for (unsigned spins = 0;; spins++) {
        uint64_t word = rv_load_relaxed(&f->word);
        /* Acquires; pairs with the release in rv_fd_unlock(). */
        if (!(word & RV_FD_LOCK) && rv_cas(&f->word, &word, word | RV_FD_LOCK))
            return word;
        if (spins < SPINS)
            rv_cpu_relax();
        else
            sched_yield();
    }
}

void rv_fd_check_cookie(const struct rv_fd *f, uint64_t word)
{
    uint64_t cookie;
    int fd = rv_fd_number(f);
    if ((word & (RV_FD_OURS | RV_FD_CLOSING)) != RV_FD_OURS || rv_load_relaxed(&unchecked))
        return;
    if (f->driver->cookie(fd, &cookie) < 0 || cookie != f->cookie)
        rv_die("fd %d was made by reeve and closed by somebody else: close it with reeve_close.",
               fd);
}

void rv_fd_check_switch(bool on)
{
    rv_store_relaxed(&unchecked, !on);
}

void rv_fd_link(struct rv_fd *f, struct rv_op *op)
{
    op->prev = NULL;
    op->next = f->ops;
    if (op->next)
        op->next->prev = op;
    f->ops = op;
}

void rv_fd_unlink(struct rv_fd *f, struct rv_op *op)
{
    if (op->next)
        op->next->prev = op->prev;
    if (op->prev)
        op->prev->next = op->next;
    else
        f->ops = op->next;
}

int rv_fd_enter(struct rv_fd *f, struct rv_op *op)
{
    if (!f)
        return 0;
    uint64_t word = rv_fd_lock(f);
    rv_fd_check(f, word);
    if (word & RV_FD_CLOSING) {
        rv_fd_unlock(f, word);
        return -EBADF;
    }
    RV_MUST((word & RV_FD_COUNT_MASK) != RV_FD_COUNT_MASK);
    op->fd_gen = rv_fd_gen(word);
    rv_fd_link(f, op);
    rv_fd_unlock(f, word + RV_FD_COUNT_ONE);
    return 0;
}

bool rv_fd_leave(struct rv_fd *f, struct rv_op *op)
{
    if (!f)
        return false;
    uint64_t word = rv_fd_lock(f);
    if (rv_fd_gen(word) != op->fd_gen) { /* (4) */
        rv_fd_unlock(f, word);
        return true;
    }
    rv_fd_unlink(f, op);
    rv_fd_settle(f, word - RV_FD_COUNT_ONE);
    return word & RV_FD_CLOSING;
}

/* Who plays the kernel for this caller. A foreign thread has no runtime, so it has the real one. */
static const struct rv_io_driver *driver_of(const struct rv_io_worker *iw)
{
    return iw ? iw->driver : &rv_io_driver_uring;
}

static uint64_t next_gen(uint64_t word)
{
    uint32_t gen = rv_fd_gen(word) + 1;
    return (uint64_t)(gen ? gen : 1) << 32;
}

/* The calling thread's runtime; NULL: it is no worker. */
static const struct rv_io *io_here(void)
{
    struct rv_worker *w = rv_worker_self();
    return w && rv_io_of(w) ? rv_io_of(w)->io : NULL;
}

/* Whether somebody else may look at a descriptor while the caller closes it. */
static bool is_watched(const struct rv_io_driver *driver)
{
    const struct rv_io *io = io_here();
    return driver->vacate && !(io && rv_io_alone(io));
}

/* Empties the number; (5). A thread that is no worker opens what it needs for that. */
static void vacate(const struct rv_io_driver *driver, int fd)
{
    const struct rv_io *io = io_here();
    int before = errno, nowhere = io ? io->nowhere : open("/", O_PATH | O_CLOEXEC);
    errno = before;
    if (nowhere < 0)
        return;
    driver->vacate(fd, nowhere);
    if (!io)
        driver->close(nowhere);
}

void rv_fd_settle_closing(struct rv_fd *f, uint64_t word)
{
    if (word & RV_FD_COUNT_MASK) {
        rv_fd_unlock(f, word);
        return;
    }
    const struct rv_io_driver *driver = f->driver;
    RV_MUST(!f->ops && !f->sending && !f->stream && !f->first && !f->turns);
    if (is_watched(driver)) {
        rv_fd_unlock(f, word + RV_FD_COUNT_ONE); /* counted in, so that nobody else comes here */
        vacate(driver, rv_fd_number(f));
        uint64_t now = rv_fd_lock(f);
        if (rv_fd_gen(now) != rv_fd_gen(word)) { /* closed behind our back, and made anew */
            rv_fd_unlock(f, now);
            return;
        }
    }
    f->driver = NULL;
    rv_fd_unlock(f, next_gen(word)); /* (3) */
    driver->close(rv_fd_number(f));
}

/* What a slot lets go of when its generation is over. */
struct cut {
    struct rv_reader reader;
    struct rv_lease *unread;
    struct rv_op *stop; /* its stream, which lives on the caller's worker */
    struct rv_op *ask;  /* its stream, which lives elsewhere and has to be asked */
};

/* The op is in the slot, so it is nobody else's yet. */
static void cancel(struct rv_io_worker *iw, struct rv_op *op)
{
    struct rv_sched *s = rv_load_relaxed(&op->iw)->io->sched;
    rv_op_cancel(s, iw && iw->w->sched == s ? iw->w : NULL, rv_op_id(NULL, op));
}

/* Throws everybody out; under the lock. */
static struct cut cut_off(struct rv_io_worker *iw, struct rv_fd *f, uint64_t *word)
{
    struct cut c = { .reader = rv_stream_detach(f, NULL, -ECANCELED), .unread = f->first };
    f->first = f->last = NULL;
    f->unread_bufs = 0;
    f->unread_bytes = 0;
    *word = rv_turns_end(iw, f, *word, -ECANCELED);
    struct rv_op *s = f->stream;
    if (s && iw && rv_load_relaxed(&s->iw) == iw) {
        c.stop = s;
    } else if (s) {
        if (!s->stream_wants)
            c.ask = s;
        s->stream_wants |= RV_STREAM_STOP; /* from here on it does not go away unasked */
    }
    if (f->sending)
        cancel(iw, f->sending);
    for (struct rv_op *op = f->ops; op; op = op->next)
        cancel(iw, op);
    return c;
}

/* The rest of it, after the unlock. */
static void cut_done(struct rv_io_worker *iw, const struct cut *c)
{
    rv_stream_wake(iw, &c->reader);
    rv_lease_return_all(iw, c->unread);
    if (c->stop)
        rv_stream_stop(iw, c->stop);
    if (c->ask) {
        struct rv_io_worker *home = rv_load_relaxed(&c->ask->iw);
        rv_send(home->io->sched, home->w, &c->ask->msg, RV_IO_MSG_STREAM);
    }
}

/* So that a runtime that goes need not look at the whole table. */
static void raise_highest(int fd)
{
    int seen = rv_load_relaxed(&highest);
    while (seen < fd && !rv_cas_relaxed(&highest, &seen, fd))
        ;
}

/* The slot, locked, is ours from now on, and anew; unlocks. What it was before is cut off. The new
 * generation. */
static uint32_t take_over(struct rv_io_worker *iw, struct rv_fd *f, uint64_t word, unsigned flags)
{
    struct cut c = { 0 };
    raise_highest(rv_fd_number(f));
    if (word & (RV_FD_OURS | RV_FD_COUNT_MASK))
        c = cut_off(iw, f, &word);
    word = next_gen(word) | RV_FD_OURS | flags;
    f->first = f->last = NULL;
    f->stream = f->sending = f->ops = NULL;
    f->driver = driver_of(iw);
    f->end = 0;
#ifdef RV_DEBUG
    RV_MUST(f->driver->cookie(rv_fd_number(f), &f->cookie) == 0);
#endif
    rv_fd_unlock(f, word);
    cut_done(iw, &c);
    return rv_fd_gen(word);
}

int rv_fd_made(struct rv_io_worker *iw, int fd, unsigned flags, uint32_t *ret_gen)
{
    int r = rv_fd_table_init();
    if (r < 0)
        return r;
    struct rv_fd *f = rv_fd_slot(fd);
    if (!f)
        return -EMFILE;
    uint64_t word = rv_fd_lock(f);
    rv_fd_check(f, word);
    uint32_t gen = take_over(iw, f, word, flags);
    if (ret_gen)
        *ret_gen = gen;
    return 0;
}

int rv_fd_adopt(struct rv_io_worker *iw, int fd)
{
    if (fd < 0)
        return -EBADF;
    int type = driver_of(iw)->socket_type(fd);
    if (type != SOCK_STREAM)
        return type < 0 ? type : -EPROTOTYPE;
    int r = rv_fd_table_init();
    if (r < 0)
        return r;
    struct rv_fd *f = rv_fd_slot(fd);
    if (!f)
        return -EMFILE;
    uint64_t word = rv_fd_lock(f);
    rv_fd_check(f, word);
    if (word & RV_FD_CLOSING)
        r = -EBADF;
    else if (word & RV_FD_OURS)
        r = -EEXIST;
    else if (word & RV_FD_COUNT_MASK)
        r = -EBUSY;
    if (r < 0)
        rv_fd_unlock(f, word);
    else
        take_over(iw, f, word, RV_FD_STREAM);
    return r;
}

/* Makes a slot foreign again that is held or no stream. 0 or -errno. */
static int disown(struct rv_io_worker *iw, struct rv_fd *f, const struct rv_hold *hold)
{
    uint64_t word = rv_fd_lock(f), held = hold->f ? RV_FD_COUNT_ONE : 0;
    rv_fd_check(f, word);
    int r = 0;
    if (word & RV_FD_CLOSING || (hold->f && rv_fd_gen(word) != hold->gen))
        r = hold->f ? -ECANCELED : -EBADF;
    else if (!(word & RV_FD_OURS))
        r = iw->driver->socket_type(rv_fd_number(f)) == -EBADF ? -EBADF : 0;
    else if ((word & RV_FD_COUNT_MASK) != held)
        r = -EBUSY;
    else
        f->driver = NULL;
    bool ends = r == 0 && word & RV_FD_OURS;
    rv_fd_unlock(f, ends ? next_gen(word) : word);
    rv_stream_let_go(iw, hold); /* of a generation that is over: nothing */
    return r;
}

int rv_fd_release(struct rv_io_worker *iw, int fd, int64_t until)
{
    struct rv_hold hold;
    int r = rv_stream_release(iw, fd, until, &hold);
    if (r < 0)
        return r;
    struct rv_fd *f = rv_fd_slot(fd);
    iw = rv_io_self();
    if (!f)
        return iw->driver->socket_type(fd) == -EBADF ? -EBADF : 0;
    return disown(iw, f, &hold);
}

void rv_fd_file_made(struct rv_io_worker *iw, int fd)
{
    struct rv_fd *f = rv_fd_slot(fd);
    if (!f)
        return;
    struct cut c = { 0 };
    uint64_t word = rv_fd_lock(f);
    rv_fd_check(f, word);
    if (word & (RV_FD_OURS | RV_FD_COUNT_MASK)) {
        c = cut_off(iw, f, &word);
        word = next_gen(word);
        f->stream = f->sending = f->ops = NULL;
        f->driver = NULL;
    }
    rv_fd_unlock(f, word);
    cut_done(iw, &c);
}

/* A foreign one that nobody uses, locked; it need not be open. */
static int close_unused(struct rv_fd *f, uint64_t word)
{
    const struct rv_io_driver *driver = f->driver;
    int fd = rv_fd_number(f);
    if (is_watched(driver) && driver->socket_type(fd) != -EBADF) {
        rv_fd_settle(f, word | RV_FD_CLOSING);
        return 0;
    }
    f->driver = NULL;
    rv_fd_unlock(f, word);
    return driver->close(fd) == -EBADF ? -EBADF : 0;
}

int rv_fd_close(struct rv_io_worker *iw, int fd, uint32_t gen)
{
    if (fd < 0)
        return -EBADF;
    struct rv_fd *f = rv_fd_table_init() == 0 ? rv_fd_slot(fd) : NULL;
    if (!f)
        return driver_of(iw)->close(fd) == -EBADF ? -EBADF : 0;
    uint64_t word = rv_fd_lock(f);
    rv_fd_check(f, word);
    if (word & RV_FD_CLOSING || (gen && gen != rv_fd_gen(word))) {
        rv_fd_unlock(f, word);
        return -EBADF;
    }
    if (!f->driver)
        f->driver = driver_of(iw);
    if (!(word & (RV_FD_OURS | RV_FD_COUNT_MASK)))
        return close_unused(f, word);
    struct cut c = cut_off(iw, f, &word);
    if (!(word & RV_FD_COUNT_MASK)) {
        rv_fd_settle(f, word | RV_FD_CLOSING);
        cut_done(iw, &c);
        return 0;
    }
    const struct rv_io_driver *driver = f->driver;
    /* Counted in, so that the number stays this socket's while it is shut down. */
    rv_fd_unlock(f, (word | RV_FD_CLOSING) + RV_FD_COUNT_ONE);
    if (word & RV_FD_OURS)
        driver->shutdown(fd, SHUT_RDWR);
    cut_done(iw, &c);
    rv_fd_settle(f, rv_fd_lock(f) - RV_FD_COUNT_ONE);
    return 0;
}

/* The slot of an fd that is ours and open, locked; NULL: it is not, or no longer. */
static struct rv_fd *lock_ours(int fd, uint32_t gen, uint64_t *ret_word)
{
    struct rv_fd *f = rv_fd_slot(fd);
    if (!f)
        return NULL;
    uint64_t word = rv_fd_lock(f);
    bool open = (word & (RV_FD_OURS | RV_FD_CLOSING)) == RV_FD_OURS;
    if (!open || (gen && gen != rv_fd_gen(word))) {
        rv_fd_unlock(f, word);
        return NULL;
    }
    *ret_word = word;
    return f;
}

void rv_fd_set_idle(int fd, uint32_t gen, int64_t idle_ns)
{
    uint64_t word;
    struct rv_fd *f = lock_ours(fd, gen, &word);
    if (!f)
        return;
    f->idle_ns = idle_ns;
    rv_fd_unlock(f, idle_ns ? word | RV_FD_IDLE : word & ~(uint64_t)RV_FD_IDLE);
}

bool rv_fd_pending(const struct rv_fd *f)
{
    return f->driver->pending && f->driver->pending(rv_fd_number(f)) > 0;
}

void rv_fd_drain(struct rv_io_worker *iw, int fd, uint32_t gen)
{
    uint64_t word;
    struct rv_fd *f = lock_ours(fd, gen, &word);
    if (!f)
        return;
    if (rv_fd_pending(f)) { /* its reader is about to get that; the next read finds the drain */
        rv_fd_unlock(f, word | RV_FD_DRAIN);
        return;
    }
    struct rv_reader r = rv_stream_detach(f, NULL, -ESHUTDOWN);
    rv_fd_unlock(f, word | RV_FD_DRAIN);
    rv_stream_wake(iw, &r);
}

static bool among(const struct rv_io_worker *iw, const struct rv_io_worker *workers, uint32_t n)
{
    return iw >= workers && iw < workers + n;
}

/* The leases and the op are in memory that is about to be unmapped: nothing is given back. A stream
 * that loses data so can only be closed. */
static void forget(struct rv_fd *f, const struct rv_io_worker *workers, uint32_t n)
{
    uint64_t word = rv_fd_lock(f);
    if (f->stream && among(rv_load_relaxed(&f->stream->iw), workers, n)) {
        f->stream = NULL;
        word = (word & ~(uint64_t)(RV_FD_ARMED | RV_FD_STARVED)) - RV_FD_COUNT_ONE;
    }
    if (f->first && rv_lease_forget(f->first, workers->io)) {
        f->first = f->last = NULL;
        f->unread_bufs = 0;
        f->unread_bytes = 0;
        f->end = -ECANCELED;
        word |= RV_FD_ENDED;
    }
    rv_fd_settle(f, word);
}

void rv_fd_forget(const struct rv_io_worker *workers, uint32_t n)
{
    for (int fd = 0; fd <= rv_load_relaxed(&highest); fd++)
        forget(&rv_fd_table[fd], workers, n);
}

/* ---- the public calls ------------------------------------------------------------------------ */

int reeve_adopt(int fd)
{
    struct rv_worker *w = rv_worker_self();
    if (!w)
        return rv_fd_adopt(NULL, fd);
    uint32_t was = rv_rt_enter(w);
    int r = rv_fd_adopt(rv_io_of(w), fd);
    rv_rt_leave(w, was);
    return r;
}

int reeve_fd_release(int fd, reeve_time until)
{
    uint32_t was;
    struct rv_io_worker *iw = rv_io_enter("reeve_fd_release", &was);
    int r = rv_wait_check(iw->io->sched, iw->w->cur);
    if (r == 0)
        r = rv_fd_release(iw, fd, rv_deadline(iw->w->cur, until));
    rv_io_exit(was);
    return r;
}
