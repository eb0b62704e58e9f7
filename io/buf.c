/* SPDX-License-Identifier: MIT */
/*
 * buf.c -- leases: lent, and brought home.
 *
 *     AWAY    -> PENDING  [rv_lease_picked]    the kernel filled it
 *     PENDING -> OUT      [rv_stream_take]     a task has it
 *     AWAY    -> OUT      [rv_lease_borrow, rv_lease_extra; rw.c, what it received at once]
 *     PENDING, OUT -> AWAY    [rv_lease_return]  at home, or of the pool
 *     PENDING, OUT -> COMING  [rv_lease_return]  elsewhere: by its worker's inbox
 *     COMING  -> AWAY     [rv_lease_message]
 *
 * (1) The state is a word that stray memory does not hold by chance; a buffer that does not say OUT
 *     when its user gives it away is not his, and that ends the process.
 * (2) A picked lease is given to the kernel by its own worker only. From elsewhere it travels
 *     without waking anybody, unless its home says that streams wait for buffers there. Returner:
 *     push, fence, look at `starved`. Home: set `starved`, fence, look into the inbox, sleep. One
 *     of the two sees the other.
 * (3) The kernel has a window of the group: offered <= window, but just after it got narrower, and
 *     offered < window only if nothing else is free. The window is doubled when a receive finds no
 *     buffer, and halved after CALM_PICKS without that.
 * (4) At most out_max leases are borrowed; a returned one goes to who has waited longest. Extra
 *     ones are counted apart: data must not wait for a borrower, who may be waiting for it.
 *
 * Threads: return - anyone; picked, message - the group's worker; borrow - a task.
 */
#include "io/buf.h"

#include <errno.h>
#include <stddef.h>

#include "io/io.h"
#include "io/stream.h"
#include "mem/alloc.h"
#include "mem/die.h"
#include "sched/wait.h"

#define IDLE_MAX 64 /* blocks that the pool keeps for the next borrower */

/* Buffers that the kernel has at least: one system call uses up to about so many. */
#define WINDOW_MIN 64u
#define CALM_PICKS 65536u /* without a receive that found none; then half of the window may do */

/* opaque[0]: the struct rv_io_worker of a picked lease; else the struct rv_io plus one of these, or
 * plus RV_LEASE_ARENA, io/arena.h. */
enum { BORROWED = 1, EXTRA = 2 };

/* ---- the group of a worker ------------------------------------------------------------------- */

int rv_group_init(struct rv_io_worker *iw, size_t bytes, uint32_t bufs)
{
    struct rv_group *g = &iw->group;
    g->base = rv_map_lazy(bytes * bufs);
    g->leases = rv_map_lazy(sizeof *g->leases * bufs);
    g->bytes = bytes;
    g->bufs = g->free = bufs;
    g->window = bufs < WINDOW_MIN ? bufs : WINDOW_MIN;
    g->calm = CALM_PICKS;
    if (!g->base || !g->leases) {
        rv_group_finish(iw);
        return -ENOMEM;
    }
    return 0;
}

void rv_group_finish(struct rv_io_worker *iw)
{
    struct rv_group *g = &iw->group;
    rv_unmap(g->base, g->bytes * g->bufs);
    rv_unmap(g->leases, sizeof *g->leases * g->bufs);
    *g = (struct rv_group){ 0 };
}

/* Offers what there is, until the window is full: what is warm, then what was never touched. */
static __attribute__((noinline)) void offer(struct rv_io_worker *iw)
{
    struct rv_group *g = &iw->group;
    while (g->offered < g->window) {
        uint32_t id = g->fresh;
        if (g->shelf) {
            id = g->shelf->msg.aux;
            g->shelf = rv_lease_next(g->shelf);
        } else if (g->fresh < g->bufs) {
            g->fresh++;
        } else {
            return;
        }
        iw->driver->provide(iw, id);
        g->offered++;
    }
}

/* One was picked: the warmest takes its place. */
static inline void replace(struct rv_io_worker *iw)
{
    struct rv_group *g = &iw->group;
    struct rv_lease *warm = g->shelf;
    if (__builtin_expect(!warm || g->offered != g->window, 0)) {
        g->offered--;
        offer(iw);
        return;
    }
    g->shelf = rv_lease_next(warm);
    iw->driver->provide(iw, warm->msg.aux);
}

void rv_group_open(struct rv_io_worker *iw)
{
    offer(iw);
}

bool rv_group_widen(struct rv_io_worker *iw)
{
    struct rv_group *g = &iw->group;
    if (!g->shelf && g->fresh == g->bufs)
        return false;
    if (g->calm < CALM_PICKS || g->offered == 0) { /* else others found none in the same call */
        g->window = g->window < g->bufs ? 2 * g->window : g->bufs;
        g->calm = CALM_PICKS;
        offer(iw);
    }
    return true;
}

static void narrow(struct rv_group *g)
{
    g->calm = CALM_PICKS;
    if (g->window >= 2 * WINDOW_MIN)
        g->window /= 2;
}

/* The record's first time: until now nothing has touched its memory. */
static void begin(struct rv_io_worker *iw, struct rv_lease *l, uint32_t id)
{
    struct rv_group *g = &iw->group;
    RV_MUST(l->pub.opaque[1] == 0);
    l->mem = g->base + (size_t)id * g->bytes;
    l->msg.aux = id;
    l->pub.cap = g->bytes;
    l->pub.opaque[0] = (uintptr_t)iw;
}

struct rv_lease *rv_lease_picked(struct rv_io_worker *iw, uint32_t cflags, int32_t res)
{
    struct rv_group *g = &iw->group;
    uint32_t id = cflags >> RV_OPF_BUFFER_SHIFT;
    RV_MUST(id < g->bufs);
    struct rv_lease *l = &g->leases[id];
    if (__builtin_expect(l->pub.opaque[1] != RV_LEASE_AWAY, 0))
        begin(iw, l, id);
    l->pub.data = l->mem;
    l->pub.len = res > 0 ? (size_t)res : 0;
    l->pub.opaque[1] = RV_LEASE_PENDING;
    g->free--;
    replace(iw);
    if (__builtin_expect(--g->calm == 0, 0))
        narrow(g);
    return l;
}

/* On the group's own worker. */
static void home(struct rv_io_worker *iw, struct rv_lease *l)
{
    struct rv_group *g = &iw->group;
    l->pub.opaque[1] = RV_LEASE_AWAY;
    g->free++;
    if (g->offered < g->window) {
        g->offered++;
        iw->driver->provide(iw, l->msg.aux);
    } else {
        rv_lease_link(l, g->shelf);
        g->shelf = l;
    }
    if (__builtin_expect(g->watched, 0))
        rv_stream_home(iw);
}

void rv_lease_message(struct rv_io_worker *iw, struct rv_msg *m)
{
    struct rv_lease *l = (struct rv_lease *)((char *)m - offsetof(struct rv_lease, msg));
    RV_MUST(l->pub.opaque[1] == RV_LEASE_COMING);
    rv_count(&iw->n.leases_home, 1);
    home(iw, l);
}

static void send_home(struct rv_io_worker *to, struct rv_lease *l)
{
    l->pub.opaque[1] = RV_LEASE_COMING;
    l->msg.kind = RV_IO_MSG_LEASE;
    rv_inbox_push(&to->w->inbox, &l->msg);
    rv_fence_seqcst(); /* (2); pairs with the fence in park.c */
    if (rv_load_relaxed(&to->group.starved))
        rv_wake_worker(to->io->sched, to->w);
}

/* ---- borrowing ------------------------------------------------------------------------------- */

struct rv_borrower {
    struct rv_sched *sched;
    uint64_t token;
    struct rv_borrower *next;
    struct rv_lease *lease; /* handed over; then it is out of the queue */
    bool granted;           /* the same, but he has to make the block himself */
};

/* The longest waiter, taken out of the queue; NULL: nobody waits. Under the lock. */
static struct rv_borrower *next_borrower(struct rv_borrow *b)
{
    struct rv_borrower *who = b->first;
    if (who) {
        b->first = who->next;
        if (!b->first)
            b->last = NULL;
    }
    return who;
}

static bool leave_queue(struct rv_borrow *b, struct rv_borrower *who)
{
    struct rv_borrower *before = NULL, *at = b->first;
    while (at && at != who) {
        before = at;
        at = at->next;
    }
    if (!at)
        return false;
    if (before)
        before->next = who->next;
    else
        b->first = who->next;
    if (b->last == who)
        b->last = before;
    return true;
}

/* Passes a place on: with the block that was returned, or, where that is NULL, without. */
static void pass_on(struct rv_io *io, struct rv_io_worker *iw, struct rv_lease *l)
{
    struct rv_borrow *b = &io->borrow;
    rv_lock_acquire(&b->lock);
    struct rv_borrower *who = next_borrower(b);
    uint64_t token = who ? who->token : 0;
    struct rv_lease *spare = NULL;
    if (who) {
        who->lease = l;
        who->granted = true;
    } else {
        b->out--;
        if (l && b->idle < IDLE_MAX) {
            rv_lease_link(l, b->idle_list);
            b->idle_list = l;
            b->idle++;
        } else {
            spare = l;
        }
    }
    rv_lock_release(&b->lock);
    rv_free(spare);
    struct rv_worker *w = iw && iw->io == io ? iw->by : NULL;
    if (token)
        rv_wait_fire(io->sched, w, token, RV_WOKEN, UINT32_MAX);
}

static struct rv_lease *new_block(struct rv_io *io, unsigned kind)
{
    struct rv_lease *l = rv_alloc_aligned(sizeof *l + io->buf_bytes, RV_CACHE_LINE);
    if (!l)
        return NULL;
    *l = (struct rv_lease){ .mem = (unsigned char *)(l + 1) };
    l->pub.opaque[0] = (uintptr_t)io | kind;
    l->pub.cap = io->buf_bytes;
    return l;
}

static void lend_block(struct rv_io_worker *iw, struct rv_lease *l)
{
    l->pub.data = l->mem;
    l->pub.len = 0;
    l->pub.opaque[1] = RV_LEASE_OUT;
    rv_count(&iw->n.borrowed, 1);
}

/* A place is ours: the block for it. */
static int make_block(struct rv_io_worker *iw, struct rv_lease *l, struct rv_lease **ret_lease)
{
    if (!l)
        l = new_block(iw->io, BORROWED);
    if (!l) {
        pass_on(iw->io, iw, NULL);
        return -ENOMEM;
    }
    lend_block(iw, l);
    *ret_lease = l;
    return 0;
}

/* One more or one less; false: there are too many already. */
static bool count_extra(struct rv_io *io, int change, bool bounded)
{
    struct rv_borrow *b = &io->borrow;
    rv_lock_acquire(&b->lock);
    bool room = !bounded || b->extra < b->out_max;
    if (room)
        b->extra += (uint32_t)change;
    rv_lock_release(&b->lock);
    return room;
}

struct rv_lease *rv_lease_extra(struct rv_io_worker *iw, bool bounded)
{
    if (!count_extra(iw->io, 1, bounded))
        return NULL;
    struct rv_lease *l = new_block(iw->io, EXTRA);
    if (l)
        lend_block(iw, l);
    else
        count_extra(iw->io, -1, false);
    return l;
}

/* Queues for a place, with the lock held. 0: ours; -ETIMEDOUT, -ECANCELED. */
static int await_place(struct rv_io_worker *iw, int64_t until, struct rv_lease **ret_block)
{
    struct rv_borrow *b = &iw->io->borrow;
    struct rv_borrower me = { .sched = iw->io->sched };
    me.token = rv_wait_arm(me.sched, iw->w->cur, 0);
    if (b->last)
        b->last->next = &me;
    else
        b->first = &me;
    b->last = &me;
    rv_lock_release(&b->lock);
    rv_count(&iw->n.lease_waits, 1);
    int why = rv_wait_park(iw->w, iw->w->cur, until);
    if (why != RV_WOKEN) {
        rv_lock_acquire(&b->lock);
        bool waiting = leave_queue(b, &me);
        rv_lock_release(&b->lock);
        if (waiting)
            return why == RV_TIMED_OUT ? -ETIMEDOUT : -ECANCELED;
    }
    RV_ASSERT(me.granted);
    *ret_block = me.lease;
    return 0;
}

int rv_lease_borrow(struct rv_lease **ret_lease, int64_t until)
{
    struct rv_io_worker *iw = rv_io_self();
    struct rv_borrow *b = &iw->io->borrow;
    struct rv_lease *l = NULL;
    rv_lock_acquire(&b->lock);
    if (b->out == b->out_max) { /* as long as anybody waits, too: (4) */
        int r = await_place(iw, until, &l);
        if (r < 0)
            return r;
        return make_block(rv_io_self(), l, ret_lease);
    }
    b->out++;
    if (b->idle_list) {
        l = b->idle_list;
        b->idle_list = rv_lease_next(l);
        b->idle--;
    }
    rv_lock_release(&b->lock);
    return make_block(iw, l, ret_lease);
}

void rv_borrow_finish(struct rv_borrow *b)
{
    while (b->idle_list) {
        struct rv_lease *l = b->idle_list;
        b->idle_list = rv_lease_next(l);
        rv_free(l);
    }
    b->idle = 0;
}

/* ---- giving back ----------------------------------------------------------------------------- */

/* One that is no buffer of this worker's. */
static __attribute__((noinline)) void return_other(struct rv_io_worker *iw, struct rv_lease *l)
{
    uintptr_t owner = l->pub.opaque[0];
    if (owner & BORROWED) {
        l->pub.opaque[1] = RV_LEASE_AWAY;
        pass_on((struct rv_io *)(owner - BORROWED), iw, l);
    } else if (owner & EXTRA) {
        l->pub.opaque[1] = RV_LEASE_AWAY;
        count_extra((struct rv_io *)(owner - EXTRA), -1, false);
        rv_free(l);
    } else if (owner & RV_LEASE_ARENA) {
        rv_arena_return((struct rv_io *)(owner - RV_LEASE_ARENA), l);
    } else {
        send_home((struct rv_io_worker *)owner, l);
    }
}

void rv_lease_return(struct rv_io_worker *iw, struct rv_lease *l)
{
    if (__builtin_expect(l->pub.opaque[0] == (uintptr_t)iw, 1))
        home(iw, l);
    else
        return_other(iw, l);
}

void rv_lease_return_all(struct rv_io_worker *iw, struct rv_lease *first)
{
    while (first) {
        struct rv_lease *next = rv_lease_next(first);
        rv_lease_return(iw, first);
        first = next;
    }
}

bool rv_lease_forget(struct rv_lease *first, const struct rv_io *io)
{
    bool any = false;
    for (struct rv_lease *l = first; l; l = rv_lease_next(l)) {
        uintptr_t owner = l->pub.opaque[0];
        any |= owner & EXTRA ? (struct rv_io *)(owner - EXTRA) == io
                             : ((struct rv_io_worker *)owner)->io == io;
    }
    for (struct rv_lease *l = any ? first : NULL, *next; l; l = next) {
        next = rv_lease_next(l);
        if (l->pub.opaque[0] & EXTRA)
            rv_free(l);
    }
    return any;
}

_Noreturn void rv_lease_misused(const struct reeve_buf *buf, const char *call)
{
    if (!buf)
        rv_die("%s was given no buffer.", call);
    switch (buf->opaque[1]) {
    case RV_LEASE_AWAY:
    case RV_LEASE_PENDING:
    case RV_LEASE_COMING:
        rv_die("%s was given a buffer that has been returned already.", call);
    default:
        rv_die("%s was given something that is not a leased buffer.", call);
    }
}

/* ---- the public calls ------------------------------------------------------------------------ */

int reeve_buf_borrow(struct reeve_buf **ret_buf, reeve_time deadline)
{
    uint32_t was;
    struct rv_io_worker *iw = rv_io_enter("reeve_buf_borrow", &was);
    struct rv_lease *l = NULL;
    int r = rv_wait_check(iw->io->sched, iw->w->cur);
    if (r == 0)
        r = rv_lease_borrow(&l, rv_deadline(iw->w->cur, deadline));
    rv_io_exit(was);
    if (r < 0)
        return r;
    *ret_buf = &l->pub;
    return 0;
}

void reeve_buf_return(struct reeve_buf *buf)
{
    if (!buf)
        return;
    struct rv_lease *l = rv_lease_of(buf, "reeve_buf_return");
    struct rv_worker *w = rv_worker_self();
    if (!w) {
        rv_lease_return(NULL, l);
        return;
    }
    uint32_t was = rv_rt_enter(w);
    rv_lease_return(rv_io_of(w), l);
    rv_rt_leave(w, was);
}
