/* SPDX-License-Identifier: MIT */
/*
 * dial.c -- connecting: to an address as it is written, or to the first that answers of those that
 * a name stands for (RFC 8305, "happy eyeballs").
 *
 * One address is tried by the calling task itself. Several race: each attempt is a child task with
 * a socket of its own, since a task waits for one operation at a time. The next one starts when one
 * has failed, or when RV_DIAL_DELAY_NS have gone by since the last start; the first connection
 * wins.
 *
 *     not started -> running -> over      [start; connected, failed or skipped: over]
 *     nobody      -> winner               [over, by the first attempt with a connection]
 *
 * (1) No attempt outlives the call: whatever has happened to the caller, each is cancelled and
 *     joined. An attempt ends when its socket's last completion has come, so the losers' sockets
 *     are closed by then.
 * (2) A connection that was made counts, however late: it beats deadline and cancellation.
 * (3) An attempt fires the caller's wait at most once for each time that it was armed: who clears
 *     `token`, under the lock, fires it after the unlock.
 * (4) Attempts inherit the caller's deadline, class and cancellation, as all tasks do. The deadline
 *     of the call itself bounds their connects.
 * (5) Where no child can be had, and where the deadline is past and nothing may be waited for, the
 *     attempts are made one after the other.
 *
 * Threads: dial, dial_names - a task; an attempt - a task, below that one; skipped - anyone.
 */
#include "io/dial.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <reeve/net.h>
#include <reeve/socket.h>
#include <reeve/task.h>
#include <sys/socket.h>

#include "io/addr.h"
#include "io/fdtab.h"
#include "io/io.h"
#include "io/op.h"
#include "io/req.h"
#include "io/resolve.h"
#include "mem/alloc.h"
#include "mem/die.h"
#include "sched/wait.h"

/* ---- one address ----------------------------------------------------------------------------- */

/* A fresh socket of that kind, entered in the table. */
static int make_socket(struct rv_io_worker *iw, const struct rv_addr *a, uint32_t *ret_gen)
{
    const struct rv_io_driver *driver = iw->driver;
    bool inet = a->to.ss_family != AF_UNIX, tcp = inet && a->type == SOCK_STREAM;
    int type = a->type | SOCK_CLOEXEC | (inet ? 0 : SOCK_NONBLOCK), r = 0, one = 1;
    int fd = driver->socket(a->to.ss_family, type, 0);
    if (fd < 0)
        return fd;
    if (tcp)
        r = driver->setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (r >= 0)
        r = rv_fd_made(iw, fd, a->type == SOCK_STREAM ? RV_FD_STREAM : 0, ret_gen);
    if (r >= 0)
        return fd;
    driver->close(fd);
    return r;
}

static int connect_tcp(struct rv_io_worker *iw, int fd, const struct rv_addr *a,
                       reeve_time deadline)
{
    struct rv_op *op = rv_op_take(iw, RV_OPK_TASK, RV_OP_CONNECT, fd);
    if (!op)
        return -ENOMEM;
    op->addr = (void *)(uintptr_t)&a->to;
    op->off = a->len;
    return rv_op_run(iw, op, deadline, NULL);
}

/* One try, and the socket is as any other from then on. Never inlined: errno's address must not be
 * kept across a switch of stacks. */
__attribute__((noinline)) static int connect_now(int fd, const struct rv_addr *a)
{
    int before = errno;
    int r = connect(fd, (const struct sockaddr *)&a->to, a->len) < 0 ? -errno : 0;
    if (fcntl(fd, F_SETFL, 0) < 0)
        r = -errno;
    errno = before;
    return r;
}

/* Whether somebody listens is known at once; -EAGAIN: he has no room. That has to be waited for in
 * the system call, on a thread of the ring's: a Unix socket that wants to connect is always
 * writable, so the ring by itself would try again and again, and a cancellation that comes between
 * two tries finds nothing. */
static int connect_unix(struct rv_io_worker *iw, int fd, const struct rv_addr *a,
                        reeve_time deadline)
{
    int r = connect_now(fd, a);
    if (r != -EAGAIN)
        return r;
    struct rv_req req = { .opcode = IORING_OP_CONNECT, .sqe_flags = IOSQE_ASYNC, .fd = fd };
    req.addr = rv_req_ptr(&a->to);
    req.off = a->len;
    return rv_req_run(iw, &req, deadline);
}

/* Connects by the running task, in reeve code. The fd or -errno. */
static int connect_to(struct rv_io_worker *iw, const struct rv_addr *a, reeve_time deadline)
{
    uint32_t gen;
    int r = rv_wait_check(iw->io->sched, iw->w->cur);
    if (r < 0)
        return r;
    int fd = make_socket(iw, a, &gen);
    if (fd < 0)
        return fd;
    bool tcp = a->to.ss_family != AF_UNIX;
    r = tcp ? connect_tcp(iw, fd, a, deadline) : connect_unix(iw, fd, a, deadline);
    if (r >= 0)
        return fd;
    rv_fd_close(rv_io_self(), fd, gen);
    return r;
}

static int connect_host(int type, const struct rv_host *host, uint16_t port, reeve_time deadline)
{
    struct rv_addr a = { .type = type };
    uint32_t was;
    a.len = rv_host_sockaddr(host, port, &a.to);
    struct rv_io_worker *iw = rv_io_enter("reeve_dial", &was);
    int r = connect_to(iw, &a, deadline);
    rv_io_exit(was);
    return r;
}

/* ---- several --------------------------------------------------------------------------------- */

struct attempt {
    struct race *race;
    reeve_task *task; /* NULL: by the caller itself */
    int result;       /* the fd, or -errno */
};

struct race {
    const struct rv_names *names;
    struct rv_sched *sched;
    int64_t until;
    uint16_t port;
    uint32_t started;

    struct rv_lock lock; /* guards what follows */
    uint64_t token;      /* the caller waits; 0: it does not */
    uint32_t over, failed;
    int winner;          /* its fd; -1: nobody yet */
    struct attempt attempt[RV_NAMES_MAX];
};

static void wake(struct rv_sched *s, uint64_t token)
{
    struct rv_worker *w = rv_worker_self();
    if (!w || w->sched != s) {
        rv_wait_fire(s, NULL, token, RV_WOKEN, UINT32_MAX);
        return;
    }
    uint32_t was = rv_rt_enter(w);
    rv_wait_fire(s, w, token, RV_WOKEN, UINT32_MAX);
    rv_rt_leave(w, was);
}

/* The attempt is over, and the caller hears of it. False: somebody else has won before. */
static bool over(struct attempt *a, int result)
{
    struct race *c = a->race;
    rv_lock_acquire(&c->lock);
    bool late = result >= 0 && c->winner >= 0;
    if (result >= 0 && !late)
        c->winner = result;
    a->result = result;
    c->over++;
    c->failed += result < 0;
    uint64_t token = c->token;
    c->token = 0;
    rv_lock_release(&c->lock);
    if (token)
        wake(c->sched, token); /* (3) */
    return !late;
}

static int attempt(void *arg)
{
    struct attempt *a = arg;
    struct race *c = a->race;
    int fd = connect_host(SOCK_STREAM, &c->names->host[a - c->attempt], c->port, c->until);
    if (!over(a, fd))
        reeve_close(fd);
    return 0;
}

/* It was cancelled or late before it began, and then so is the race; or there was no stack. */
static void skipped(void *arg)
{
    over(arg, -ENOMEM);
}

/* The next attempt, in a task of its own; false: there is none to be had. */
static bool start(struct race *c)
{
    struct attempt *a = &c->attempt[c->started];
    a->race = c;
    int r = reeve_spawn(&a->task, attempt, a, .skipped = skipped, .name = "dial");
    if (r < 0)
        return false;
    c->started++;
    return true;
}

/* The next attempt, by the caller itself. */
static void do_next(struct race *c)
{
    struct attempt *a = &c->attempt[c->started++];
    a->race = c;
    attempt(a);
}

struct score {
    uint32_t over, failed;
    bool won;
};

static struct score score_of(struct race *c)
{
    rv_lock_acquire(&c->lock);
    struct score s = { c->over, c->failed, c->winner >= 0 };
    rv_lock_release(&c->lock);
    return s;
}

/* Waits until one more attempt than `seen` is over. 0, -ETIMEDOUT or -ECANCELED. */
static int await_news(struct race *c, uint32_t seen, int64_t until)
{
    uint32_t was;
    struct rv_io_worker *iw = rv_io_enter("reeve_dial", &was);
    struct rv_task *t = iw->w->cur;
    int why = rv_wait_check(c->sched, t) < 0 ? RV_CANCELLED : RV_WOKEN;
    if (why == RV_WOKEN) {
        rv_lock_acquire(&c->lock);
        bool news = c->over > seen;
        if (!news)
            c->token = rv_wait_arm(c->sched, t, 0);
        rv_lock_release(&c->lock);
        if (!news)
            why = rv_wait_park(iw->w, t, until);
        rv_lock_acquire(&c->lock);
        c->token = 0;
        rv_lock_release(&c->lock);
    }
    rv_io_exit(was);
    return why == RV_WOKEN ? 0 : why == RV_TIMED_OUT ? -ETIMEDOUT : -ECANCELED;
}

/* Runs the attempts until somebody has won, all have failed, or there is no more time. 0, or what
 * ended it. */
static int run(struct race *c)
{
    uint32_t granted = 1; /* attempts that may have started: one for each delay that has passed */
    int64_t next_at = 0;
    bool poll = c->until <= reeve_now();
    for (;;) {
        struct score s = score_of(c);
        bool all = c->started == c->names->n;
        if (s.won || (all && s.over == c->started))
            return 0;
        if (!all && c->started < granted + s.failed) {
            if (!poll && start(c)) {
                next_at = reeve_now() + RV_DIAL_DELAY_NS;
                continue;
            }
            if (s.over == c->started) { /* (5) */
                do_next(c);
                continue;
            }
        }
        bool waits_for_more = !all && next_at < c->until;
        int r = await_news(c, s.over, waits_for_more ? next_at : c->until);
        if (r == -ECANCELED || (r == -ETIMEDOUT && !waits_for_more))
            return r;
        if (r == -ETIMEDOUT) {
            granted++;
            next_at += RV_DIAL_DELAY_NS;
        }
    }
}

/* Ends every attempt; see (1). */
static void end(struct race *c)
{
    struct rv_task *t = rv_worker_self()->cur;
    bool masked = rv_load_relaxed(&t->ctl) & RV_CTL_MASKED;
    for (uint32_t i = 0; i < c->started; i++)
        if (c->attempt[i].task)
            reeve_cancel(c->attempt[i].task);
    if (!masked)
        rv_wait_mask(t, true);
    for (uint32_t i = 0; i < c->started; i++)
        if (c->attempt[i].task)
            RV_MUST(reeve_join(c->attempt[i].task, NULL, 0) == 0);
    if (!masked)
        rv_wait_mask(t, false);
    RV_ASSERT(c->over == c->started && c->token == 0);
}

/* How much an attempt's error says to whoever dials a name. */
static int weight(int error, bool late)
{
    switch (-error) {
    case ENOMEM: /* perhaps it was skipped, which a deadline does too */
        return late ? 4 : 3;
    case ETIMEDOUT:
        return late ? 4 : 2;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
        return 3; /* it was not even tried */
    case ENETUNREACH:
    case EAFNOSUPPORT:
    case EADDRNOTAVAIL:
        return 1; /* this host has no use for such an address: nothing about the other side */
    default:
        return 2;
    }
}

/* Whether the caller is cancelled, and its race with it. */
static bool is_cancelled(const struct race *c)
{
    uint32_t was;
    struct rv_io_worker *iw = rv_io_enter("reeve_dial", &was);
    bool cancelled = rv_wait_check(c->sched, iw->w->cur) < 0;
    rv_io_exit(was);
    return cancelled;
}

/* What to say of a race in which every attempt has failed: the first of the weightiest errors. But
 * those of a cancelled race say nothing: some were ended by that, or never began. */
static int verdict(const struct race *c)
{
    if (is_cancelled(c))
        return -ECANCELED;
    bool late = c->until <= reeve_now();
    int most = 0, error = 0;
    for (uint32_t i = 0; i < c->started; i++) {
        int w = weight(c->attempt[i].result, late);
        if (w > most) {
            most = w;
            error = c->attempt[i].result;
        }
    }
    return most == 4 ? -ETIMEDOUT : error;
}

int rv_dial_names(const struct rv_names *names, uint16_t port, reeve_time deadline)
{
    RV_ASSERT(names->n > 0 && names->n <= RV_NAMES_MAX);
    if (names->n == 1)
        return connect_host(SOCK_STREAM, &names->host[0], port, deadline);
    struct rv_worker *w = rv_in_task("reeve_dial");
    struct race *c = rv_alloc_zero(sizeof *c);
    if (!c)
        return -ENOMEM;
    c->names = names;
    c->sched = w->sched;
    c->until = rv_deadline(w->cur, deadline);
    c->port = port;
    c->winner = -1;
    int r = run(c);
    end(c);
    if (c->winner >= 0) /* (2) */
        r = c->winner;
    else if (r == 0)
        r = verdict(c);
    rv_free(c);
    return r;
}

/* ---- dialling -------------------------------------------------------------------------------- */

/* What a name means; *ret_names is the caller's to free. */
static int look_up(struct rv_addr *a, const char *call, reeve_time deadline,
                   struct rv_names **ret_names)
{
    struct rv_names *names = rv_alloc(sizeof *names); /* much for the stack of a small task */
    uint32_t was;
    if (!names)
        return -ENOMEM;
    for (char *p = a->name; *p; p++) /* DNS does not tell them apart */
        *p = *p >= 'A' && *p <= 'Z' ? (char)(*p - 'A' + 'a') : *p;
    struct rv_io_worker *iw = rv_io_enter(call, &was);
    int r = rv_resolve(iw->io->resolver, a->name, names, deadline);
    rv_io_exit(was);
    if (r < 0)
        rv_free(names);
    else
        *ret_names = names;
    return r;
}

/* Datagrams: nobody answers, so there is nothing to race. The first address to which this host has
 * a way, which the kernel says at once. */
static int connect_datagrams(const struct rv_names *names, uint16_t port, reeve_time deadline)
{
    int most = 0, error = -ENOENT;
    for (uint32_t i = 0; i < names->n; i++) {
        int r = connect_host(SOCK_DGRAM, &names->host[i], port, deadline);
        if (r >= 0 || r == -ECANCELED || r == -ETIMEDOUT)
            return r;
        int w = weight(r, false);
        if (w > most) {
            most = w;
            error = r;
        }
    }
    return error;
}

static int dial_name(struct rv_addr *a, reeve_time deadline)
{
    struct rv_names *names;
    int r = look_up(a, "reeve_dial", deadline, &names);
    if (r < 0)
        return r;
    r = a->type == SOCK_DGRAM ? connect_datagrams(names, a->port, deadline)
                              : rv_dial_names(names, a->port, deadline);
    rv_free(names);
    return r;
}

int reeve_dial(const char *addr, reeve_time deadline)
{
    struct rv_addr a;
    uint32_t was;
    struct rv_io_worker *iw = rv_io_enter("reeve_dial", &was);
    int r = rv_addr_read(addr, false, &a);
    bool name = r == 0 && a.len == 0;
    if (r == 0 && !name)
        r = connect_to(iw, &a, deadline);
    rv_io_exit(was);
    return name ? dial_name(&a, deadline) : r;
}

/* ---- addresses without a connection ---------------------------------------------------------- */

/* The first of that family, 0: of any. */
static const struct rv_host *host_of(const struct rv_names *names, int family)
{
    for (uint32_t i = 0; i < names->n; i++)
        if (family == AF_UNSPEC || names->host[i].family == family)
            return &names->host[i];
    return NULL;
}

int reeve_addr_lookup(const char *addr, int family, struct sockaddr_storage *ret,
                      socklen_t *ret_len, reeve_time until)
{
    struct rv_addr a;
    struct rv_names *names;
    rv_in_task("reeve_addr_lookup");
    int r = rv_addr_read(addr, false, &a);
    if (r < 0)
        return r;
    if (a.len > 0) {
        if (family != AF_UNSPEC && a.to.ss_family != family)
            return -EAFNOSUPPORT;
        *ret = a.to;
        *ret_len = a.len;
        return 0;
    }
    r = look_up(&a, "reeve_addr_lookup", until, &names);
    if (r < 0)
        return r;
    const struct rv_host *host = host_of(names, family);
    if (host)
        *ret_len = rv_host_sockaddr(host, a.port, ret);
    rv_free(names);
    return host ? 0 : -EAFNOSUPPORT;
}
