/* SPDX-License-Identifier: MIT */
/*
 * sim_dgram.c -- the simulated datagram sockets: UDP between the addresses of one host.
 *
 * A message is copied when it is sent, into the queue of the socket that it is for, and is on its
 * way there for a while:
 *
 *     first                                           n
 *       | arrived, in this order | on the way | room | cap
 *
 * (1) A message is there whole or not at all, and once. What does not fit its receiver's memory is
 *     cut off, and said to be.
 * (2) Those of one sender to one socket arrive in the order in which they were sent, unless the
 *     network reorders; those of several mingle.
 * (3) A network that loses nothing has no room for more than the receiver's queue has: who sends
 *     waits. On any other, what finds the queue full is lost, as with UDP.
 * (4) Whose a message is to be is decided when it is sent. To a connected socket that is nobody's
 *     it comes back as ECONNREFUSED, later and once.
 *
 * Threads: the simulation's.
 */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>

#include "io/sim_world.h"
#include "mem/alloc.h"
#include "mem/die.h"

#define LONGEST 65507u /* 65535 less the headers of IPv4 and UDP */

struct rv_sim_mail {
    struct rv_sim_mail *next;
    uint64_t sender; /* the cookie of its socket */
    struct sockaddr_storage from;
    socklen_t from_len;
    uint32_t len;
    unsigned char bytes[];
};

static uint32_t index_of(const struct rv_sim_file *f)
{
    return (uint32_t)(f - rv_sim_world->files);
}

/* ---- addresses ------------------------------------------------------------------------------- */

static socklen_t len_of(const struct sockaddr_storage *a)
{
    return a->ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
}

/* A mapped address of IPv6 as the one of IPv4 that it is, and none at all as this host. */
static void make_plain(struct sockaddr_storage *a)
{
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)a;
    if (a->ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
        struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = in6->sin6_port };
        memcpy(&in.sin_addr, in6->sin6_addr.s6_addr + 12, sizeof in.sin_addr);
        *a = (struct sockaddr_storage){ 0 };
        memcpy(a, &in, sizeof in);
    }
    if (!rv_sim_is_any(a))
        return;
    if (a->ss_family == AF_INET)
        ((struct sockaddr_in *)a)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    else
        ((struct sockaddr_in6 *)a)->sin6_addr = in6addr_loopback;
}

/* As a socket of that family is told of it. */
static void make_seen(struct sockaddr_storage *a, sa_family_t family)
{
    if (family != AF_INET6 || a->ss_family != AF_INET)
        return;
    const struct sockaddr_in *in = (const struct sockaddr_in *)a;
    struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = in->sin_port };
    memset(in6.sin6_addr.s6_addr + 10, 0xff, 2);
    memcpy(in6.sin6_addr.s6_addr + 12, &in->sin_addr, sizeof in->sin_addr);
    memcpy(a, &in6, sizeof in6);
}

/* Reads an address that a caller gave. 0 or -errno. */
static int read_address(const struct rv_sim_file *f, const void *addr, socklen_t len,
                        struct sockaddr_storage *ret)
{
    *ret = (struct sockaddr_storage){ 0 };
    if (len < sizeof(sa_family_t))
        return -EINVAL;
    memcpy(ret, addr, len < sizeof *ret ? len : sizeof *ret);
    if (ret->ss_family != AF_INET && ret->ss_family != AF_INET6)
        return -EAFNOSUPPORT;
    if (len < len_of(ret) || *rv_sim_port_of(ret) == 0)
        return -EINVAL;
    make_plain(ret);
    return f->addr.ss_family == AF_INET && ret->ss_family != AF_INET ? -EAFNOSUPPORT : 0;
}

static void bind_somewhere(struct rv_sim_file *f)
{
    if (f->addr_len != 0)
        return;
    *rv_sim_port_of(&f->addr) = rv_sim_free_port();
    f->addr_len = len_of(&f->addr);
}

/* Where a message from here to there comes from. False: no way leads there. */
static bool source_of(struct rv_sim_file *f, struct sockaddr_storage *to,
                      struct sockaddr_storage *ret)
{
    *ret = f->addr;
    bool bound = !rv_sim_is_any(ret);
    make_plain(ret);
    if (bound)
        return ret->ss_family == to->ss_family;
    *ret = *to; /* every address is this host's */
    *rv_sim_port_of(ret) = *rv_sim_port_of(&f->addr);
    return true;
}

/* The socket that a message is for, one that is connected to its sender before others; NULL. */
static struct rv_sim_file *receiver_of(struct sockaddr_storage *from, struct sockaddr_storage *to)
{
    struct rv_sim *sim = rv_sim_world;
    struct rv_sim_file *any = NULL;
    for (uint32_t i = 0; i < sim->files_max; i++) {
        struct rv_sim_file *f = &sim->files[i];
        if (f->kind != RV_SIM_DGRAM || f->fd < 0 || f->addr_len == 0 || !rv_sim_meets(&f->addr, to))
            continue;
        if (f->to_len == 0)
            any = f;
        else if (rv_sim_meets(&f->to, from))
            return f;
    }
    return any;
}

int32_t rv_sim_mail_connect(struct rv_sim_file *f, const struct sockaddr *addr, socklen_t len)
{
    struct sockaddr_storage to;
    if (len >= sizeof addr->sa_family && addr->sa_family == AF_UNSPEC) {
        f->to_len = 0;
        return 0;
    }
    int r = read_address(f, addr, len, &to);
    if (r < 0)
        return r;
    bind_somewhere(f);
    f->to = to;
    f->to_len = len_of(&to);
    return 0;
}

/* ---- the queue ------------------------------------------------------------------------------- */

void rv_sim_mail_open(struct rv_sim_file *f)
{
    static const uint32_t caps[] = { 1, 2, 3, 8, 32 };
    f->box.cap = caps[rv_sim_draw(sizeof caps / sizeof *caps)];
}

/* Who waited for room there tries again. */
static void make_room(struct rv_sim_file *f)
{
    struct rv_sim *sim = rv_sim_world;
    if (!f->box.crowded)
        return;
    f->box.crowded = false;
    for (uint32_t i = 0; i < sim->files_max; i++)
        if (sim->files[i].kind == RV_SIM_DGRAM)
            rv_sim_ready(&sim->files[i]);
}

void rv_sim_mail_drop(struct rv_sim_file *f)
{
    struct rv_sim_mail *next;
    for (struct rv_sim_mail *m = f->box.first; m; m = next) {
        next = m->next;
        rv_free(m);
    }
    f->box.first = NULL;
    make_room(f);
}

static void move_on(struct rv_sim_file *f)
{
    struct rv_sim_box *b = &f->box;
    if (b->moving || b->arrived == b->n)
        return;
    b->moving = true;
    rv_sim_at(rv_sim_world->now + rv_sim_delay(), RV_SIM_DUE_ARRIVE, index_of(f), f->cookie);
}

void rv_sim_mail_due(struct rv_sim_file *f, const struct rv_sim_due *due)
{
    struct rv_sim_box *b = &f->box;
    if (due->kind == RV_SIM_DUE_ARRIVE) {
        uint32_t n = b->n - b->arrived;
        b->moving = false;
        if (n > 1 && rv_sim_chance(512))
            n = 1 + rv_sim_draw(n);
        b->arrived += n;
        rv_sim_record(RV_SIM_ARRIVE, UINT32_MAX, f->cookie, n);
        move_on(f);
    } else {
        f->breaking = false;
        f->err = ECONNREFUSED;
        rv_sim_record(RV_SIM_BREAK, UINT32_MAX, f->cookie, ECONNREFUSED);
    }
    rv_sim_ready(f);
}

/* The network does it, in so many of 1024 cases. */
static bool misfortune(const struct rv_sim_file *f, uint16_t rate)
{
    if (!rv_sim_chance(rate))
        return false;
    rv_sim_world->result.seen.faults++;
    rv_sim_record(RV_SIM_FAULT, UINT32_MAX, f->cookie, 0);
    return true;
}

/* Among those on their way: behind those of its own sender, or anywhere. */
static void enqueue(struct rv_sim_file *f, struct rv_sim_mail *mail)
{
    struct rv_sim_box *b = &f->box;
    uint32_t least = b->arrived, i = 0;
    bool in_order = !misfortune(f, rv_sim_world->opts.faults.reorder);
    for (const struct rv_sim_mail *m = b->first; m; m = m->next) {
        i++;
        if (in_order && m->sender == mail->sender && i > least)
            least = i;
    }
    uint32_t at = least + rv_sim_draw(b->n - least + 1);
    struct rv_sim_mail **link = &b->first;
    for (i = 0; i < at; i++)
        link = &(*link)->next;
    mail->next = *link;
    *link = mail;
    b->n++;
    move_on(f);
}

/* ---- messages -------------------------------------------------------------------------------- */

/* What is wrong with it, which is told once. */
static int32_t take_error(struct rv_sim_file *f)
{
    int err = f->err;
    f->err = 0;
    return -err;
}

static size_t length_of(const struct msghdr *m)
{
    size_t len = 0;
    for (size_t i = 0; i < m->msg_iovlen && len <= LONGEST; i++)
        len += m->msg_iov[i].iov_len <= LONGEST ? m->msg_iov[i].iov_len : LONGEST + 1;
    return len;
}

static struct rv_sim_mail *copy_of(const struct msghdr *m, uint32_t len)
{
    struct rv_sim_mail *mail = rv_alloc(sizeof *mail + len);
    if (!mail)
        return NULL;
    mail->len = len;
    uint32_t at = 0;
    for (size_t i = 0; i < m->msg_iovlen; i++) {
        size_t n = m->msg_iov[i].iov_len;
        if (n > 0)
            memcpy(mail->bytes + at, m->msg_iov[i].iov_base, n);
        at += (uint32_t)n;
    }
    return mail;
}

/* Nobody is there: (4). */
static void come_back(struct rv_sim_file *f)
{
    if (f->to_len == 0 || f->breaking || misfortune(f, rv_sim_world->opts.faults.lose))
        return;
    f->breaking = true;
    rv_sim_at(rv_sim_world->now + rv_sim_delay(), RV_SIM_DUE_BREAK, index_of(f), f->cookie);
}

static int32_t deliver(struct rv_sim_file *f, const struct msghdr *m, uint32_t len,
                       struct sockaddr_storage *from, struct sockaddr_storage *to)
{
    uint16_t lose = rv_sim_world->opts.faults.lose;
    struct rv_sim_file *receiver = receiver_of(from, to);
    if (!receiver) {
        come_back(f);
        return (int32_t)len;
    }
    bool full = receiver->box.n >= receiver->box.cap;
    if (full && lose == 0) { /* (3) */
        receiver->box.crowded = true;
        return RV_SIM_WAIT;
    }
    if (full || misfortune(f, lose))
        return (int32_t)len;
    struct rv_sim_mail *mail = copy_of(m, len);
    if (!mail)
        return -ENOBUFS;
    mail->sender = f->cookie;
    mail->from = *from;
    make_seen(&mail->from, receiver->addr.ss_family);
    mail->from_len = len_of(&mail->from);
    enqueue(receiver, mail);
    return (int32_t)len;
}

int32_t rv_sim_mail_send(struct rv_sim_file *f, const struct msghdr *m)
{
    struct sockaddr_storage from, to = f->to;
    size_t len = length_of(m);
    int r = 0;
    if (f->err)
        return take_error(f);
    if (f->shut & RV_SIM_SHUT_WRITE)
        return -EPIPE;
    if (len > LONGEST)
        return -EMSGSIZE;
    if (m->msg_name)
        r = read_address(f, m->msg_name, m->msg_namelen, &to);
    else if (f->to_len == 0)
        r = -EDESTADDRREQ;
    if (r < 0)
        return r;
    bind_somewhere(f);
    return source_of(f, &to, &from) ? deliver(f, m, (uint32_t)len, &from, &to) : -ENETUNREACH;
}

/* Into the pieces; how much fits. */
static uint32_t spread(const struct rv_sim_mail *mail, const struct msghdr *m)
{
    uint32_t at = 0;
    for (size_t i = 0; i < m->msg_iovlen && at < mail->len; i++) {
        size_t room = m->msg_iov[i].iov_len, left = mail->len - at;
        size_t n = room < left ? room : left;
        if (n > 0)
            memcpy(m->msg_iov[i].iov_base, mail->bytes + at, n);
        at += (uint32_t)n;
    }
    return at;
}

/* What stands beside the bytes. */
static void tell_header(struct msghdr *m, const struct rv_sim_mail *mail, int flags)
{
    socklen_t len = mail ? mail->from_len : 0;
    if (m->msg_name && len > 0)
        memcpy(m->msg_name, &mail->from, len < m->msg_namelen ? len : m->msg_namelen);
    m->msg_namelen = m->msg_name ? len : 0;
    m->msg_controllen = 0;
    m->msg_flags = flags;
}

int32_t rv_sim_mail_recv(struct rv_sim_file *f, struct msghdr *m, uint32_t flags)
{
    struct rv_sim_box *b = &f->box;
    struct rv_sim_mail *mail = b->first;
    int say = (int)(flags & MSG_CMSG_CLOEXEC);
    if (f->err)
        return take_error(f);
    if (b->arrived == 0) {
        if (!(f->shut & RV_SIM_SHUT_READ))
            return RV_SIM_WAIT;
        tell_header(m, NULL, say);
        return 0;
    }
    if (mail->len > 0 && rv_sim_canary_now(RV_SIM_WRONG_BYTE))
        mail->bytes[0] ^= 0x20;
    uint32_t len = mail->len, n = spread(mail, m);
    tell_header(m, mail, n < len ? say | MSG_TRUNC : say);
    if (!(flags & MSG_PEEK)) {
        b->first = mail->next;
        b->n--;
        b->arrived--;
        rv_free(mail);
        make_room(f);
    }
    return (int32_t)(flags & MSG_TRUNC ? len : n);
}

/* Unconnected it may always send: whether there is room depends on whom to. */
static bool writable(struct rv_sim_file *f)
{
    struct sockaddr_storage from;
    if (f->to_len == 0 || rv_sim_world->opts.faults.lose != 0 || f->shut & RV_SIM_SHUT_WRITE ||
        !source_of(f, &f->to, &from))
        return true;
    struct rv_sim_file *receiver = receiver_of(&from, &f->to);
    bool full = receiver && receiver->box.n >= receiver->box.cap;
    if (full)
        receiver->box.crowded = true;
    return !full;
}

short rv_sim_mail_poll(struct rv_sim_file *f)
{
    uint8_t both = RV_SIM_SHUT_READ | RV_SIM_SHUT_WRITE;
    int events = writable(f) ? POLLOUT : 0;
    if (f->box.arrived > 0)
        events |= POLLIN;
    if (f->err)
        events |= POLLERR;
    if (f->shut & RV_SIM_SHUT_READ)
        events |= POLLIN | POLLRDHUP;
    if ((f->shut & both) == both)
        events |= POLLHUP;
    return (short)events;
}
