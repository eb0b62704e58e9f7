/* SPDX-License-Identifier: MIT */
/*
 * serve.c -- a server in one call.
 *
 * The calling task starts an accepting child and joins it; usually the child runs right on the
 * caller's stack. It takes connections from the listener and starts a handler for each on the
 * better of two workers picked at random, by the connections that they have (the power of two
 * choices, Mitzenmacher 2001): a connection's receiving lives where its handler first reads, so
 * placing connections places the work.
 *
 *     serving  -> draining   [reeve_serve_with]  the child has ended: cancelled, deadline,
 *     shutdown, or the listener failed draining -> drained    [reeve_serve_with]  the last handler
 *     has ended draining -> cancelling [reeve_serve_with]  drain_ns has passed: what is left is
 *     cancelled and waited for
 *
 * (1) Whoever wants the end cancels the accepting child. The serving task itself is not cancelled
 *     by a shutdown, so what comes after reeve_serve_with() in it still works.
 * (2) Handlers live in a scope of their own that holds cancellation: a drain is not a cancellation.
 * (3) A connection is in the server's list from before its handler is startable until its fd is
 *     closed; the list is complete once the accepting child has ended, and only then the drain
 *     walks it.
 * (4) The server's record is on the serving task's stack: it returns only when nobody refers to it.
 *
 * Threads: the serving task, its child, the handlers; rv_servers_drain - any, with the runtime's
 * lock.
 */
#include <reeve/net.h>
#include <reeve/serve.h>
#include <errno.h>
#include <stddef.h>
#include <sys/resource.h>

#include "io/fdtab.h"
#include "io/net.h"
#include "mem/die.h"
#include "runtime/runtime.h"
#include "sched/loan.h"
#include "sched/pick.h"
#include "sched/scope.h"
#include "sched/wait.h"

#define DRAIN_NS (10 * REEVE_SEC)
enum { FDS_FOR_OTHERS = 64 };

/* One connection: the handler task's own copy, in its descriptor. */
struct conn {
    struct rv_server *sv;
    int fd;
    uint32_t gen; /* of the fd's slot */
    struct conn *next, *prev;
    uint32_t worker;
};

struct rv_server {
    struct reeve *rt;
    const struct reeve_serve *how;
    struct rv_task *scope; /* of the handlers */
    struct rv_task *child; /* accepts */
    uint32_t child_gen;
    int door;
    unsigned conns_max;
    struct rv_server *next; /* in the runtime's list, under its lock */

    struct rv_lock lock; /* guards what follows */
    struct conn *conns;
    unsigned live;
    uint64_t waiter; /* the accepting child's wait for a place; 0: it does not wait */
};

static void list(struct rv_server *sv, struct conn *c)
{
    rv_lock_acquire(&sv->lock);
    c->prev = NULL;
    c->next = sv->conns;
    if (sv->conns)
        sv->conns->prev = c;
    sv->conns = c;
    sv->live++;
    rv_lock_release(&sv->lock);
    rv_add_relaxed(&sv->rt->threads[c->worker].conns, 1u);
    rv_add_relaxed(&sv->rt->conns_live, (uint64_t)1);
}

/* Closes the connection, and tells an accepting child that waits for its place. */
static void end_conn(struct conn *c)
{
    struct rv_server *sv = c->sv;
    struct rv_worker *w = rv_worker_self();
    reeve_close(c->fd);
    /* Before its place is given away, so that nobody ever counts more than conns_max. */
    rv_sub_relaxed(&sv->rt->threads[c->worker].conns, 1u);
    rv_sub_relaxed(&sv->rt->conns_live, (uint64_t)1);
    rv_lock_acquire(&sv->lock);
    if (c->next)
        c->next->prev = c->prev;
    if (c->prev)
        c->prev->next = c->next;
    else
        sv->conns = c->next;
    sv->live--;
    uint64_t waiter = sv->waiter;
    sv->waiter = 0;
    rv_lock_release(&sv->lock);
    if (waiter)
        rv_wait_fire(&sv->rt->sched, w, waiter, RV_WOKEN, UINT32_MAX);
}

static int run_conn(void *arg)
{
    struct conn *c = arg;
    int r = c->sv->how->handler(c->fd, c->sv->how->ctx);
    rv_scope_wait(r); /* tasks that the handler spawned may still use the fd */
    end_conn(c);
    return r < 0 ? r : 1;
}

static void skip_conn(void *arg)
{
    end_conn(arg);
}

/* The better of two workers picked at random. */
static uint32_t place(struct rv_server *sv, struct rv_worker *w)
{
    struct rv_thread *th = sv->rt->threads;
    uint32_t n = sv->rt->sched.nworkers;
    if (n == 1)
        return 0;
    uint32_t a = rv_random(w) % n;
    uint32_t b = (a + 1 + rv_random(w) % (n - 1)) % n;
    return rv_load_relaxed(&th[a].conns) <= rv_load_relaxed(&th[b].conns) ? a : b;
}

/* Starts a handler for an accepted connection. What cannot be served is closed, and counted. */
static void start_conn(struct rv_server *sv, int fd)
{
    struct rv_fd *f = rv_fd_slot(fd);
    uint32_t gen = f ? rv_fd_gen(rv_load_relaxed(&f->word)) : 0;
    struct rv_worker *w = rv_worker_self();
    struct rv_sched *s = w->sched;
    struct conn c = { .sv = sv, .fd = fd, .gen = gen, .worker = place(sv, w) };
    struct rv_task *t;
    _Static_assert(sizeof c <= RV_COPY_INLINE, "a connection costs no allocation");
    unsigned class = rv_cls(w->cur) - 1;
    int r = rv_admit(s, class, w->now);
    if (r < 0) {
        rv_add_relaxed(&sv->rt->shed, (uint64_t)1);
        reeve_close(fd);
        return;
    }
    r = rv_task_make(s, w, sv->scope,
                         &(struct reeve_spawn){ .fn = run_conn,
                                                .arg = &c,
                                                .copy = sizeof c,
                                                .skipped = skip_conn,
                                                .name = "connection" },
                         false, &t);
    if (r < 0) {
        if (s->admission)
            rv_admit_started(s, class);
        rv_add_relaxed(&sv->rt->shed, (uint64_t)1);
        reeve_close(fd);
        return;
    }
    if (s->admission)
        t->flags |= RV_TF_POSTED;
    t->deadline = 0; /* the server's own deadline ends accepting, not the connections */
    rv_count(&w->n.spawned, 1);
    if (sv->how->idle_ns)
        rv_fd_set_idle(fd, gen, sv->how->idle_ns);
    list(sv, t->start.arg);
    rv_fresh_on(s, w, t, c.worker);
}

/* Waits until there is a place for one more. How many there are, or -ECANCELED or -ETIMEDOUT. */
static int wait_place(struct rv_server *sv)
{
    int r = 0;
    rv_lock_acquire(&sv->lock);
    unsigned live = sv->live;
    rv_lock_release(&sv->lock);
    if (live < sv->conns_max)
        return (int)(sv->conns_max - live < INT32_MAX ? sv->conns_max - live : INT32_MAX);
    rv_add_relaxed(&sv->rt->shed, (uint64_t)1);
    while (r == 0) {
        struct rv_worker *w = rv_worker_self();
        struct rv_task *t = w->cur;
        r = rv_wait_check(w->sched, t);
        if (r < 0)
            break;
        rv_lock_acquire(&sv->lock);
        bool full = sv->live >= sv->conns_max;
        if (full)
            sv->waiter = rv_wait_arm(w->sched, t, 0);
        rv_lock_release(&sv->lock);
        if (!full)
            break;
        int why = rv_wait_park(w, t, rv_deadline(t, 0));
        rv_lock_acquire(&sv->lock);
        sv->waiter = 0;
        rv_lock_release(&sv->lock);
        r = why == RV_WOKEN ? 0 : why == RV_TIMED_OUT ? -ETIMEDOUT : -ECANCELED;
    }
    return r < 0 ? r : 1;
}

/* The accepting child: until it is cancelled, its deadline passes, or the listener fails. */
static int accept_loop(void *arg)
{
    struct rv_server *sv = arg;
    struct rv_acceptor a;
    rv_acceptor_start(&a, sv->door);
    int r;
    while ((r = wait_place(sv)) > 0 && (r = rv_acceptor_take(&a, (uint32_t)r, 0)) >= 0)
        start_conn(sv, r);
    rv_acceptor_stop(&a);
    return r;
}

static unsigned conns_limit(const struct reeve_serve *how)
{
    struct rlimit lim;
    if (how->conns_max)
        return how->conns_max;
    if (getrlimit(RLIMIT_NOFILE, &lim) < 0 || lim.rlim_cur <= 2 * FDS_FOR_OTHERS)
        return FDS_FOR_OTHERS;
    return lim.rlim_cur < RV_FDS_MAX ? (unsigned)lim.rlim_cur - FDS_FOR_OTHERS : RV_FDS_MAX;
}

void rv_servers_drain(struct reeve *rt)
{
    struct rv_worker *w = rv_worker_self();
    for (struct rv_server *sv = rt->servers; sv; sv = sv->next)
        rv_cancel(&rt->sched, w && w->sched == &rt->sched ? w : NULL, sv->child, sv->child_gen);
}

static void enlist(struct rv_server *sv, struct rv_task *child)
{
    struct reeve *rt = sv->rt;
    sv->child = child;
    sv->child_gen = rv_task_gen(child);
    pthread_mutex_lock(&rt->lock);
    sv->next = rt->servers;
    rt->servers = sv;
    if (rt->draining)
        rv_servers_drain(rt);
    pthread_mutex_unlock(&rt->lock);
}

static void delist(struct rv_server *sv)
{
    struct reeve *rt = sv->rt;
    pthread_mutex_lock(&rt->lock);
    struct rv_server **at = &rt->servers;
    while (*at != sv)
        at = &(*at)->next;
    *at = sv->next;
    pthread_mutex_unlock(&rt->lock);
}

/* Accepts until the end. What ended it: -ECANCELED, -ETIMEDOUT, or what the listener said. */
static int serve(struct rv_server *sv, reeve_time until)
{
    struct rv_sched *s = &sv->rt->sched;
    reeve_task *child;
    int result = 0;
    int r = reeve_spawn(&child, accept_loop, sv, .deadline = until, .name = "acceptor");
    if (r < 0)
        return r;
    enlist(sv, rv_task_of(s, child, "reeve_serve"));
    struct rv_task *cur = rv_worker_self()->cur;
    bool masked = false;
    int why = 0; /* that we stopped waiting for it */
    while ((r = reeve_join(child, &result, until)) < 0) {
        why = why ? why : r;
        reeve_cancel(child);
        rv_wait_mask(cur, masked = true);
        until = 0;
    }
    delist(sv);
    if (masked)
        rv_wait_mask(cur, false);
    return why && result == -ECANCELED ? why : result;
}

/* Waits for the handlers: by themselves until drain_ns has passed, cancelled then. True: all ended
 * by themselves. */
static bool drain(struct rv_server *sv)
{
    struct rv_sched *s = &sv->rt->sched;
    struct rv_worker *w = rv_worker_self();
    struct rv_task *cur = w->cur;
    int64_t ns = sv->how->drain_ns ? sv->how->drain_ns : DRAIN_NS;
    uint32_t mark = rv_rt_enter(w);
    rv_lock_acquire(&sv->lock);
    for (struct conn *c = sv->conns; c; c = c->next)
        rv_fd_drain(w->io, c->fd, c->gen);
    rv_lock_release(&sv->lock);
    rv_rt_leave(w, mark);

    bool was = rv_load_relaxed(&cur->ctl) & RV_CTL_MASKED;
    bool clean = rv_scope_close(sv->scope);
    rv_wait_mask(cur, true);
    if (!clean && !(clean = ns > 0 && rv_done_wait(w, sv->scope, reeve_in(ns)) == 0)) {
        rv_cancel(s, rv_worker_self(), sv->scope, rv_task_gen(sv->scope));
        RV_MUST(rv_done_wait(rv_worker_self(), sv->scope, RV_NEVER) == 0);
    }
    if (!was)
        rv_wait_mask(cur, false);
    return clean;
}

int reeve_serve_with(const struct reeve_serve *how, reeve_time until)
{
    struct rv_worker *w = rv_in_task("reeve_serve");
    if (how == NULL || how->addr == NULL || how->handler == NULL || how->idle_ns < 0 ||
        how->backlog < 0)
        return -EINVAL;
    struct rv_server sv = { .rt = (struct reeve *)w->sched,
                            .how = how,
                            .conns_max = conns_limit(how) };
    sv.door = reeve_listen(how->addr, how->backlog);
    if (sv.door < 0)
        return sv.door;
    sv.scope = rv_scope_make(w->sched, w, w->cur);
    if (sv.scope == NULL) {
        reeve_close(sv.door);
        return -EAGAIN;
    }
    rv_or_acq_rel(&sv.scope->ctl, (uint64_t)RV_CTL_HOLDS);
    if (how->listening)
        how->listening(sv.door, how->ctx);
    int why = serve(&sv, until);
    reeve_close(sv.door);
    bool clean = drain(&sv);
    w = rv_worker_self();
    rv_scope_free(w->sched, w, sv.scope, w->cur);
    if (why != -ECANCELED)
        return why;
    return clean ? 0 : -ECANCELED;
}
