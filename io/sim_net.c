/* SPDX-License-Identifier: MIT */
/*
 * sim_net.c -- the simulated sockets: listeners, connections, and the bytes between them. Those of
 * datagrams have their own file, sim_dgram.c; Unix sockets are real ones.
 *
 * What is played is what Linux does on a TCP socket as far as a program can tell: a connection is
 * two bounded queues of bytes; what was sent is on its way for a while and arrives in pieces, the
 * end of the stream behind all bytes; a reset overtakes what has not arrived, leaves what has, and
 * is reported once; a socket that is closed with unread data resets its peer.
 *
 *     FREE       -> PLAIN                  [rv_sim_sys_socket]
 *     FREE       -> DGRAM                  [rv_sim_sys_socket]
 *     FREE       -> STREAM                 [rv_sim_connect]    the accepting side, in the queue
 *     PLAIN      -> LISTENER               [rv_sim_sys_listen]
 *     PLAIN      -> CONNECTING -> STREAM   [rv_sim_connect]    CONNECTING while the queue is full
 *     any        -> FREE                   [rv_sim_file_drop]  no fd, op or queue refers to it
 *
 * (1) A number is the lowest free one, as the kernel's are, so that it is used again at once.
 * (2) Whatever changes what an op could do at a socket calls rv_sim_ready() for it.
 * (3) A socket is closed by the io layer only when no op of its refers to it any more.
 */
#include "io/sim_world.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "mem/alloc.h"
#include "mem/die.h"

#define EPHEMERAL_FIRST 40000

/* Which call a RV_SIM_CALL event is about. */
enum { CALL_SOCKET = 1, CALL_BIND, CALL_LISTEN, CALL_SHUTDOWN, CALL_CLOSE, CALL_FREED };

/* ---- the table ------------------------------------------------------------------------------- */

int rv_sim_net_init(struct rv_sim *sim)
{
    sim->files_max = 2 * sim->fds_max + 64; /* connections not accepted have no number */
    sim->files = rv_alloc_zero(sim->files_max * sizeof *sim->files);
    sim->fds = rv_alloc_zero(sim->fds_max * sizeof *sim->fds);
    sim->port_next = EPHEMERAL_FIRST;
    return sim->files && sim->fds ? 0 : -ENOMEM;
}

void rv_sim_net_finish(struct rv_sim *sim)
{
    for (uint32_t i = 0; sim->files && i < sim->files_max; i++) {
        rv_free(sim->files[i].in.bytes);
        rv_sim_mail_drop(&sim->files[i]);
    }
    rv_free(sim->files);
    rv_free(sim->fds);
    sim->files = NULL;
    sim->fds = NULL;
}

uint32_t rv_sim_net_open(const struct rv_sim *sim)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < sim->files_max; i++)
        n += sim->files[i].kind != RV_SIM_FREE;
    return n;
}

static uint32_t index_of(const struct rv_sim_file *f)
{
    return (uint32_t)(f - rv_sim_world->files);
}

struct rv_sim_file *rv_sim_file_of(int fd)
{
    const struct rv_sim *sim = rv_sim_world;
    uint32_t i = (uint32_t)fd - RV_SIM_FD_FIRST;
    if (fd < RV_SIM_FD_FIRST || i >= sim->fds_max || sim->fds[i] == 0)
        return NULL;
    return &sim->files[sim->fds[i] - 1];
}

/* A socket with one reference, the caller's; NULL: there are too many. */
static struct rv_sim_file *take_file(uint8_t kind)
{
    struct rv_sim *sim = rv_sim_world;
    for (uint32_t i = 0; i < sim->files_max; i++) {
        struct rv_sim_file *f = &sim->files[i];
        if (f->kind != RV_SIM_FREE)
            continue;
        *f = (struct rv_sim_file){ .kind = kind, .fd = -1, .refs = 1, .cookie = ++sim->cookies };
        return f;
    }
    return NULL;
}

/* Gives the socket the lowest free number; -EMFILE. */
static int take_fd(struct rv_sim_file *f)
{
    struct rv_sim *sim = rv_sim_world;
    for (uint32_t i = 0; i < sim->fds_max; i++) {
        if (sim->fds[i] != 0)
            continue;
        sim->fds[i] = index_of(f) + 1;
        f->fd = RV_SIM_FD_FIRST + (int)i;
        return f->fd;
    }
    return -EMFILE;
}

/* ---- bytes ----------------------------------------------------------------------------------- */

static void move_on(struct rv_sim_file *f)
{
    struct rv_sim_pipe *p = &f->in;
    if (p->moving || (p->arrived == p->sent && (!p->fin || p->eof)))
        return;
    p->moving = true;
    rv_sim_at(rv_sim_world->now + rv_sim_delay(), RV_SIM_DUE_ARRIVE, index_of(f), f->cookie);
}

static void arrive(struct rv_sim_file *f)
{
    struct rv_sim_pipe *p = &f->in;
    uint32_t n = p->sent - p->arrived;
    p->moving = false;
    if (f->dead)
        return;
    if (p->one_byte && n > 1)
        n = 1;
    else if (n > 1 && rv_sim_chance(512))
        n = 1 + rv_sim_draw(n);
    p->arrived += n;
    if (p->arrived == p->sent && p->fin && (n == 0 || rv_sim_chance(512)))
        p->eof = true;
    rv_sim_record(RV_SIM_ARRIVE, UINT32_MAX, f->cookie, (int64_t)n << 1 | p->eof);
    move_on(f);
    rv_sim_ready(f);
}

static int make_pipe(struct rv_sim_pipe *p, uint32_t cap, bool one_byte)
{
    rv_free(p->bytes); /* of an attempt that failed */
    p->bytes = rv_alloc(cap);
    p->cap = cap;
    p->one_byte = one_byte;
    return p->bytes ? 0 : -ENOMEM;
}

static void put(struct rv_sim_pipe *p, const unsigned char *from, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        p->bytes[(p->head + p->sent + i) % p->cap] = from[i];
    p->sent += n;
}

static void get(struct rv_sim_pipe *p, unsigned char *to, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        to[i] = p->bytes[(p->head + i) % p->cap];
    p->head = (p->head + n) % p->cap;
    p->sent -= n;
    p->arrived -= n;
}

bool rv_sim_readable(const struct rv_sim_file *f)
{
    if (f->kind == RV_SIM_DGRAM)
        return f->box.arrived > 0 || f->err || f->shut & RV_SIM_SHUT_READ;
    return f->in.arrived > 0 || f->in.eof || f->err || f->dead || f->kind != RV_SIM_STREAM ||
           f->shut & RV_SIM_SHUT_READ;
}

static bool stream_writable(const struct rv_sim_file *f)
{
    bool room = !f->peer || f->peer->in.sent < f->peer->in.cap;
    return room || f->err || f->dead || f->shut & RV_SIM_SHUT_WRITE;
}

short rv_sim_poll(struct rv_sim_file *f)
{
    bool over = f->dead || (f->in.eof && f->shut & RV_SIM_SHUT_WRITE);
    switch (f->kind) {
    case RV_SIM_DGRAM:
        return rv_sim_mail_poll(f);
    case RV_SIM_LISTENER:
        return f->shut ? POLLIN | POLLRDHUP | POLLHUP : f->queue_first ? POLLIN : 0;
    case RV_SIM_CONNECTING:
        return 0;
    case RV_SIM_STREAM:
        return (short)((rv_sim_readable(f) ? POLLIN : 0) | (stream_writable(f) ? POLLOUT : 0) |
                       (f->err ? POLLERR : 0) | (over ? POLLHUP : 0) |
                       (f->dead || f->in.eof || f->shut & RV_SIM_SHUT_READ ? POLLRDHUP : 0));
    default:
        return POLLOUT | POLLHUP;
    }
}

int32_t rv_sim_recv(struct rv_sim_file *f, void *to, uint32_t len)
{
    struct msghdr m = { .msg_iov = &(struct iovec){ to, len }, .msg_iovlen = 1 };
    if (f->kind == RV_SIM_DGRAM)
        return rv_sim_mail_recv(f, &m, 0);
    if (f->kind != RV_SIM_STREAM)
        return f->kind == RV_SIM_CONNECTING ? RV_SIM_WAIT : -ENOTCONN;
    if (len == 0)
        return 0;
    uint32_t n = f->in.arrived < len ? f->in.arrived : len;
    if (n == 0) {
        int err = f->err;
        f->err = 0;
        if (err)
            return -err;
        return f->dead || f->in.eof || f->shut & RV_SIM_SHUT_READ ? 0 : RV_SIM_WAIT;
    }
    get(&f->in, to, n);
    if (rv_sim_canary_now(RV_SIM_WRONG_BYTE))
        *(unsigned char *)to ^= 0x20;
    if (f->peer)
        rv_sim_ready(f->peer);
    return (int32_t)n;
}

int32_t rv_sim_send(struct rv_sim_file *f, const void *from, uint32_t len)
{
    struct iovec piece = { (void *)(uintptr_t)from, len };
    struct msghdr m = { .msg_iov = &piece, .msg_iovlen = 1 };
    if (f->kind == RV_SIM_DGRAM)
        return rv_sim_mail_send(f, &m);
    if (f->kind == RV_SIM_CONNECTING)
        return RV_SIM_WAIT;
    if (f->err) {
        int err = f->err;
        f->err = 0;
        return -err;
    }
    if (f->kind != RV_SIM_STREAM || f->dead || f->shut & RV_SIM_SHUT_WRITE)
        return -EPIPE;
    if (len == 0)
        return 0;
    if (!f->peer) { /* nobody is there any more, and says so */
        rv_sim_break(f, 0);
        return (int32_t)len;
    }
    struct rv_sim_pipe *p = &f->peer->in;
    uint32_t room = p->cap - p->sent;
    uint32_t n = room < len ? room : len;
    if (n == 0)
        return RV_SIM_WAIT;
    put(p, from, n);
    move_on(f->peer);
    return (int32_t)n;
}

/* ---- the end of a connection ----------------------------------------------------------------- */

/* Has the reset reach the socket, soon or (err given) now. */
static void reset_at(struct rv_sim_file *f, int err)
{
    if (err) {
        f->dead = true;
        f->err = err;
        f->in.sent = f->in.arrived;
        rv_sim_record(RV_SIM_BREAK, UINT32_MAX, f->cookie, err);
        rv_sim_world->result.seen.resets++;
        rv_sim_ready(f);
    } else if (!f->breaking) {
        f->breaking = true;
        rv_sim_at(rv_sim_world->now + rv_sim_delay(), RV_SIM_DUE_BREAK, index_of(f), f->cookie);
    }
}

void rv_sim_break(struct rv_sim_file *f, int err)
{
    struct rv_sim_file *peer = f->peer;
    if (f->kind != RV_SIM_STREAM || f->dead)
        return;
    f->peer = NULL;
    if (peer) {
        peer->peer = NULL;
        reset_at(peer, 0);
    }
    reset_at(f, err);
}

void rv_sim_file_due(const struct rv_sim_due *due)
{
    struct rv_sim_file *f = &rv_sim_world->files[due->index];
    if (f->kind == RV_SIM_FREE || f->cookie != due->gen)
        return;
    if (f->kind == RV_SIM_DGRAM) {
        rv_sim_mail_due(f, due);
    } else if (due->kind == RV_SIM_DUE_ARRIVE) {
        arrive(f);
    } else if (!f->dead) {
        f->breaking = false;
        rv_sim_break(f, f->in.eof ? EPIPE : ECONNRESET);
    }
}

/* The peer hears that nothing more will come. */
static void finish_sending(struct rv_sim_file *f)
{
    if (!f->peer || f->peer->in.fin)
        return;
    f->peer->in.fin = true;
    move_on(f->peer);
}

static void leave_connection(struct rv_sim_file *f)
{
    struct rv_sim_file *peer = f->peer;
    bool unread = f->in.sent > 0;
    if (!peer)
        return;
    if (!unread)
        finish_sending(f);
    f->peer = NULL;
    peer->peer = NULL;
    if (unread)
        reset_at(peer, 0);
    rv_sim_ready(peer);
}

void rv_sim_file_drop(struct rv_sim_file *f)
{
    RV_MUST(f->refs > 0);
    if (--f->refs > 0)
        return;
    RV_MUST(f->ops == NULL && f->ops_held == 0);
    while (f->queue_first) {
        struct rv_sim_file *waiting = f->queue_first;
        f->queue_first = waiting->queue_next;
        rv_sim_break(waiting, ECONNRESET);
        rv_sim_file_drop(waiting);
    }
    leave_connection(f);
    rv_sim_mail_drop(f);
    rv_sim_record(RV_SIM_CALL, UINT32_MAX, CALL_FREED, (int64_t)f->cookie);
    rv_free(f->in.bytes);
    f->in.bytes = NULL;
    f->kind = RV_SIM_FREE;
}

/* ---- the beginning of one -------------------------------------------------------------------- */

bool rv_sim_is_any(const struct sockaddr_storage *a)
{
    if (a->ss_family == AF_INET)
        return ((const struct sockaddr_in *)a)->sin_addr.s_addr == htonl(INADDR_ANY);
    return IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)a)->sin6_addr);
}

uint16_t *rv_sim_port_of(struct sockaddr_storage *a)
{
    if (a->ss_family == AF_INET)
        return &((struct sockaddr_in *)a)->sin_port;
    return &((struct sockaddr_in6 *)a)->sin6_port;
}

/* A connection to `to` meets the socket bound to `at`. */
bool rv_sim_meets(struct sockaddr_storage *at, struct sockaddr_storage *to)
{
    if (*rv_sim_port_of(at) != *rv_sim_port_of(to))
        return false;
    if (at->ss_family != to->ss_family)
        return at->ss_family == AF_INET6 && rv_sim_is_any(at); /* which is both families' */
    if (rv_sim_is_any(at))
        return true;
    if (at->ss_family == AF_INET)
        return ((struct sockaddr_in *)at)->sin_addr.s_addr ==
               ((struct sockaddr_in *)to)->sin_addr.s_addr;
    return memcmp(&((struct sockaddr_in6 *)at)->sin6_addr, &((struct sockaddr_in6 *)to)->sin6_addr,
                  sizeof(struct in6_addr)) == 0;
}

static struct rv_sim_file *listener_at(struct sockaddr_storage *to)
{
    struct rv_sim *sim = rv_sim_world;
    for (uint32_t i = 0; i < sim->files_max; i++) {
        struct rv_sim_file *f = &sim->files[i];
        if (f->kind == RV_SIM_LISTENER && f->fd >= 0 && !f->shut && rv_sim_meets(&f->addr, to))
            return f;
    }
    return NULL;
}

/* The queues of a new connection: mostly small, so that they fill up. */
static int make_pipes(struct rv_sim_file *a, struct rv_sim_file *b)
{
    static const uint32_t caps[] = { 1, 7, 64, 100, 1000, 4096, 16384, 65536 };
    uint16_t rate = rv_sim_world->opts.faults.one_byte;
    uint32_t n = sizeof caps / sizeof *caps;
    int r = make_pipe(&a->in, caps[rv_sim_draw(n)], rv_sim_chance(rate));
    if (r == 0)
        r = make_pipe(&b->in, caps[rv_sim_draw(n)], rv_sim_chance(rate));
    return r;
}

static int32_t establish(struct rv_sim_file *f, struct rv_sim_file *listener)
{
    struct rv_sim_file *other = take_file(RV_SIM_STREAM);
    if (!other || make_pipes(f, other) < 0) {
        if (other)
            rv_sim_file_drop(other);
        return -ENOMEM;
    }
    f->kind = RV_SIM_STREAM;
    f->peer = other;
    other->peer = f;
    if (listener->queue_first)
        listener->queue_last->queue_next = other;
    else
        listener->queue_first = other;
    listener->queue_last = other;
    listener->queued++;
    rv_sim_ready(listener);
    return 0;
}

int32_t rv_sim_connect(struct rv_sim_file *f, const struct sockaddr *addr, socklen_t len)
{
    struct sockaddr_storage to = { 0 };
    if (f->kind == RV_SIM_DGRAM)
        return rv_sim_mail_connect(f, addr, len);
    if (f->kind == RV_SIM_STREAM)
        return -EISCONN;
    if (f->kind == RV_SIM_LISTENER)
        return -EINVAL;
    if (f->shut)
        return -ECONNRESET; /* shut down while it tried */
    memcpy(&to, addr, len < sizeof to ? len : sizeof to);
    struct rv_sim_file *listener = listener_at(&to);
    if (!listener) {
        f->kind = RV_SIM_PLAIN;
        return -ECONNREFUSED;
    }
    if (listener->queued > listener->backlog) {
        f->kind = RV_SIM_CONNECTING;
        return RV_SIM_WAIT;
    }
    return establish(f, listener);
}

int32_t rv_sim_accept(struct rv_sim_file *f, bool abort)
{
    if (f->kind != RV_SIM_LISTENER || f->shut)
        return -EINVAL;
    struct rv_sim_file *next = f->queue_first;
    if (!next)
        return RV_SIM_WAIT;
    int fd = abort ? -ECONNABORTED : take_fd(next);
    if (fd == -EMFILE)
        return fd;
    f->queue_first = next->queue_next;
    f->queued--;
    if (abort) {
        rv_sim_break(next, ECONNRESET);
        rv_sim_file_drop(next);
    }
    return fd;
}

/* ---- the calls of the system ----------------------------------------------------------------- */

static int said(uint32_t call, int result)
{
    rv_sim_record(RV_SIM_CALL, UINT32_MAX, call, result);
    return result;
}

int rv_sim_sys_socket(int family, int type, int protocol)
{
    const struct rv_sim_faults *faults = &rv_sim_world->opts.faults;
    int kind = type & ~(SOCK_CLOEXEC | SOCK_NONBLOCK);
    rv_sim_leave_sometimes();
    if (family != AF_INET && family != AF_INET6 && family != AF_UNIX)
        return said(CALL_SOCKET, -EAFNOSUPPORT);
    if (family != AF_UNIX && kind != SOCK_STREAM && kind != SOCK_DGRAM)
        return said(CALL_SOCKET, -EPROTONOSUPPORT);
    if (rv_sim_chance(faults->mfile)) {
        rv_sim_world->result.seen.faults++;
        return said(CALL_SOCKET, rv_sim_chance(512) ? -EMFILE : -ENFILE);
    }
    if (family == AF_UNIX) {
        int fd = socket(family, type, protocol);
        return said(CALL_SOCKET, fd < 0 ? -errno : fd);
    }
    struct rv_sim_file *f = take_file(kind == SOCK_DGRAM ? RV_SIM_DGRAM : RV_SIM_PLAIN);
    if (!f)
        return said(CALL_SOCKET, -ENFILE);
    if (kind == SOCK_DGRAM)
        rv_sim_mail_open(f);
    f->addr.ss_family = (sa_family_t)family;
    int fd = take_fd(f);
    if (fd < 0)
        rv_sim_file_drop(f);
    return said(CALL_SOCKET, fd);
}

int rv_sim_pair(int ret_fds[2])
{
    struct rv_sim_file *a = take_file(RV_SIM_PLAIN), *b = take_file(RV_SIM_PLAIN);
    int r = a && b ? make_pipes(a, b) : -ENFILE;
    int x = r == 0 ? take_fd(a) : r, y = x >= 0 ? take_fd(b) : x;
    if (y < 0) {
        if (x >= 0)
            rv_sim_world->fds[x - RV_SIM_FD_FIRST] = 0;
        if (a)
            rv_sim_file_drop(a);
        if (b)
            rv_sim_file_drop(b);
        return y;
    }
    a->kind = b->kind = RV_SIM_STREAM;
    a->peer = b;
    b->peer = a;
    ret_fds[0] = x;
    ret_fds[1] = y;
    return 0;
}

/* By a socket of that kind. */
static bool is_taken(struct sockaddr_storage *at, uint8_t kind)
{
    struct rv_sim *sim = rv_sim_world;
    for (uint32_t i = 0; i < sim->files_max; i++) {
        struct rv_sim_file *other = &sim->files[i];
        if (other->kind == kind && other->fd >= 0 && other->addr_len != 0 &&
            (rv_sim_meets(&other->addr, at) || rv_sim_meets(at, &other->addr)))
            return true;
    }
    return false;
}

/* Those that a run chooses itself lie below. */
uint16_t rv_sim_free_port(void)
{
    struct rv_sim *sim = rv_sim_world;
    if (sim->port_next < EPHEMERAL_FIRST) /* once around */
        sim->port_next = EPHEMERAL_FIRST;
    return htons(sim->port_next++);
}

int rv_sim_sys_bind(int fd, const struct sockaddr *addr, socklen_t len)
{
    struct sockaddr_storage at = { 0 };
    if (rv_sim_is_real(fd))
        return said(CALL_BIND, bind(fd, addr, len) < 0 ? -errno : 0);
    struct rv_sim_file *f = rv_sim_file_of(fd);
    if (!f)
        return said(CALL_BIND, -EBADF);
    bool mail = f->kind == RV_SIM_DGRAM;
    if ((!mail && f->kind != RV_SIM_PLAIN) || f->addr_len != 0 || len > sizeof f->addr)
        return said(CALL_BIND, -EINVAL);
    memcpy(&at, addr, len);
    if (*rv_sim_port_of(&at) == 0)
        *rv_sim_port_of(&at) = rv_sim_free_port();
    else if (is_taken(&at, mail ? RV_SIM_DGRAM : RV_SIM_LISTENER))
        return said(CALL_BIND, -EADDRINUSE);
    f->addr = at;
    f->addr_len = len;
    return said(CALL_BIND, 0);
}

int rv_sim_sys_listen(int fd, int backlog)
{
    if (rv_sim_is_real(fd))
        return said(CALL_LISTEN, listen(fd, backlog) < 0 ? -errno : 0);
    struct rv_sim_file *f = rv_sim_file_of(fd);
    if (!f)
        return said(CALL_LISTEN, -EBADF);
    if (f->kind != RV_SIM_PLAIN || f->addr_len == 0)
        return said(CALL_LISTEN, -EINVAL);
    f->kind = RV_SIM_LISTENER;
    f->backlog = backlog > 0 ? (uint32_t)backlog : 1;
    return said(CALL_LISTEN, 0);
}

int rv_sim_sys_setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    if (rv_sim_is_real(fd))
        return setsockopt(fd, level, name, value, len) < 0 ? -errno : 0;
    return rv_sim_file_of(fd) ? 0 : -EBADF;
}

int rv_sim_sys_shutdown(int fd, int how)
{
    rv_sim_leave_sometimes();
    if (rv_sim_is_real(fd))
        return said(CALL_SHUTDOWN, shutdown(fd, how) < 0 ? -errno : 0);
    struct rv_sim_file *f = rv_sim_file_of(fd);
    if (!f)
        return said(CALL_SHUTDOWN, -EBADF);
    if (f->kind == RV_SIM_PLAIN && !f->ops)
        return said(CALL_SHUTDOWN, -ENOTCONN);
    if (how == SHUT_RD || how == SHUT_RDWR)
        f->shut |= RV_SIM_SHUT_READ;
    if (how == SHUT_WR || how == SHUT_RDWR) {
        f->shut |= RV_SIM_SHUT_WRITE;
        finish_sending(f);
    }
    rv_sim_ready(f);
    bool none = f->kind == RV_SIM_DGRAM && f->to_len == 0; /* and it is shut down all the same */
    return said(CALL_SHUTDOWN, none ? -ENOTCONN : 0);
}

int rv_sim_sys_close(int fd)
{
    rv_sim_leave_sometimes();
    if (fd >= 0 && fd < RV_SIM_FD_FIRST) /* a file's */
        return said(CALL_CLOSE, close(fd) < 0 ? -errno : 0);
    struct rv_sim_file *f = rv_sim_file_of(fd);
    if (!f)
        return said(CALL_CLOSE, -EBADF);
    if (f->ops_held != 0)
        rv_die("simulation, seed %llu: fd %d was closed while the kernel held %u operations on it.",
               (unsigned long long)rv_sim_world->opts.seed, fd, f->ops_held);
    rv_sim_world->fds[fd - RV_SIM_FD_FIRST] = 0;
    f->fd = -1;
    rv_sim_file_drop(f);
    return said(CALL_CLOSE, 0);
}

int rv_sim_sys_socket_type(int fd)
{
    int type;
    socklen_t len = sizeof type;
    if (rv_sim_is_real(fd))
        return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 ? -errno : type;
    const struct rv_sim_file *f = rv_sim_file_of(fd);
    return !f ? -EBADF : f->kind == RV_SIM_DGRAM ? SOCK_DGRAM : SOCK_STREAM;
}

int rv_sim_sys_cookie(int fd, uint64_t *ret_cookie)
{
    const struct rv_sim_file *f = rv_sim_file_of(fd);
    socklen_t len = sizeof *ret_cookie;
    if (rv_sim_is_real(fd))
        return getsockopt(fd, SOL_SOCKET, SO_COOKIE, ret_cookie, &len) < 0 ? -errno : 0;
    if (!f)
        return -EBADF;
    *ret_cookie = f->cookie;
    return 0;
}
