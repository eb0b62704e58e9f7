/* SPDX-License-Identifier: MIT */
/*
 * echo_load_conn.c -- one connection: what it sends, and whether exactly that comes back.
 *
 * (1) Message k of connection c is a window of one random pattern; where it begins depends on both.
 *     Nothing is written per request, yet a lost, doubled, late or crossed byte is a mismatch.
 *     Only messages that carry a spin time (--spin) are put together, behind a header.
 * (2) Edge triggered: a receive that fills less than the buffer has emptied the socket. The buffer
 *     is one byte longer than a message, so a whole reply is always such a receive, and a server
 *     that sends too much is caught.
 * (3) Requests of one connection go out in order, each as soon as it has begun, whether or not the
 *     one before has been answered; what the socket does not take waits for its next edge.
 *
 * Threads: the connection's own.
 */
#include "echo_load.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

unsigned char *pattern;

void pattern_make(void)
{
    size_t bytes = (size_t)config.size + WINDOWS;
    pattern = malloc(bytes);
    if (!pattern)
        die("out of memory");
    uint64_t random = 0;
    for (size_t i = 0; i < bytes; i++)
        pattern[i] = (unsigned char)random_next(&random);
}

/* Message k; valid until the next call. */
static const unsigned char *message(struct loader *l, const struct conn *c, uint32_t k)
{
    const unsigned char *window = pattern + ((k * 61 + c->id * 577) & (WINDOWS - 1));
    if (!config.spin_us)
        return window;
    uint32_t us = c->requests[k % l->depth].spin_us;
    for (int i = 0; i < SPIN_HEADER; i++)
        l->composed[i] = (unsigned char)(us >> 8 * i);
    memcpy(l->composed + SPIN_HEADER, window, (size_t)config.size - SPIN_HEADER);
    return l->composed;
}

void conn_fail(struct loader *l, struct conn *c, const char *fmt, ...)
{
    if (!l->errors++) {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(l->first_error, sizeof l->first_error, fmt, ap);
        va_end(ap);
    }
    close(c->fd);
    c->fd = -1;
    l->lost++;
    l->under_way -= c->made - c->got;
    c->got = c->sent = c->made;
}

/* Sends until all that has begun is out or the socket is full; its next edge goes on from there. */
static void send_some(struct loader *l, struct conn *c)
{
    while (c->sent != c->made) {
        size_t left = (size_t)config.size - c->sent_bytes;
        ssize_t n = send(c->fd, message(l, c, c->sent) + c->sent_bytes, left, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            if (errno != EAGAIN)
                conn_fail(l, c, "send: %s", strerror(errno));
            return;
        }
        c->sent_bytes += (uint32_t)n;
        if (c->sent_bytes == config.size) {
            c->sent_bytes = 0;
            c->sent++;
        }
    }
}

void request_begin(struct loader *l, struct conn *c, int64_t at)
{
    bool spins = config.spin_us && share_next(&l->spins);
    c->requests[c->made++ % l->depth] =
        (struct request){ .begun = at, .spin_us = spins ? (uint32_t)config.spin_us : 0 };
    l->under_way++;
    send_some(l, c);
}

/* A request of a closed loop counts if its reply came inside the window; of an open loop if it was
 * due there, however late its reply is. */
static void request_end(struct loader *l, struct conn *c)
{
    const struct request *r = &c->requests[c->got % l->depth];
    int64_t now = clock_ns(CLOCK_MONOTONIC), counts = config.rate > 0 ? r->begun : now;
    if (counts >= begin_ns && counts < end_ns)
        histogram_add(r->spin_us ? &l->spun : &l->latency, (uint64_t)(now - r->begun));
    c->got++;
    c->got_bytes = 0;
    l->under_way--;
    l->requests_all++;
    if (config.rate == 0)
        l->ready[l->ready_n++] = c; /* at most one per event: there is room */
}

/* Checks bytes that came back. False: the connection has failed. */
static bool check(struct loader *l, struct conn *c, const unsigned char *bytes, size_t n)
{
    while (n) {
        size_t left = (size_t)config.size - c->got_bytes, part = n < left ? n : left;
        if (c->got == c->made) {
            conn_fail(l, c, "mismatch: more bytes came back than were sent");
            return false;
        }
        if (memcmp(bytes, message(l, c, c->got) + c->got_bytes, part) != 0) {
            conn_fail(l, c, "mismatch: message %" PRIu32 " came back changed, near byte %" PRIu32,
                      c->got, c->got_bytes);
            return false;
        }
        c->got_bytes += (uint32_t)part;
        bytes += part;
        n -= part;
        if (c->got_bytes == config.size)
            request_end(l, c);
    }
    return true;
}

static void receive(struct loader *l, struct conn *c)
{
    ssize_t n;
    do {
        n = recv(c->fd, l->buf, l->buf_bytes, 0);
        if (n < 0) {
            if (errno != EAGAIN && errno != EINTR)
                conn_fail(l, c, "recv: %s", strerror(errno));
            return;
        }
        if (n == 0) {
            conn_fail(l, c, "the server closed a connection");
            return;
        }
    } while (check(l, c, l->buf, (size_t)n) && (size_t)n == l->buf_bytes);
}

void take_replies(struct loader *l, struct epoll_event *events, int64_t ns)
{
    struct timespec limit = { ns / SEC, ns % SEC };
    if (l->blocking) {
        receive(l, &l->conns[0]);
        return;
    }
    int n = epoll_pwait2(l->ep, events, EVENTS, &limit, NULL);
    for (int i = 0; i < n; i++) {
        struct conn *c = events[i].data.ptr;
        if ((events[i].events & EPOLLOUT) && c->sent != c->made)
            send_some(l, c);
        if ((events[i].events & ~(uint32_t)EPOLLOUT) && c->fd >= 0)
            receive(l, c);
    }
}

int connect_once(void)
{
    int one = 1, fd = socket(target->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("cannot open another socket: %s (see ulimit -n)", strerror(errno));
    struct timeval limit = { .tv_sec = 5 };
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (connect(fd, target->ai_addr, target->ai_addrlen) < 0)
        die("cannot connect to %s: %s%s", config.addr, strerror(errno),
            errno == ECONNREFUSED ? " (is the server running?)" : "");
    return fd;
}

void conn_open(struct loader *l, struct conn *c, uint32_t id)
{
    struct request *requests = c->requests;
    *c = (struct conn){ .fd = connect_once(), .id = id, .requests = requests };
    if (l->blocking) {
        struct timeval tick = { .tv_usec = TICK_MS * 1000 };
        setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &tick, sizeof tick);
        return;
    }
    struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c };
    if (fcntl(c->fd, F_SETFL, O_NONBLOCK) < 0 || epoll_ctl(l->ep, EPOLL_CTL_ADD, c->fd, &ev) < 0)
        die("cannot watch a connection: %s", strerror(errno));
}

int idle_open(unsigned char *reply)
{
    int fd = connect_once();
    if (send(fd, pattern, (size_t)config.size, MSG_NOSIGNAL) != (ssize_t)config.size)
        die("cannot send on an idle connection: %s", strerror(errno));
    for (int64_t got = 0; got < config.size;) {
        ssize_t n = recv(fd, reply, (size_t)(config.size - got), 0);
        if (n <= 0)
            die("no reply on an idle connection: %s", n ? strerror(errno) : "closed");
        if (memcmp(reply, pattern + got, (size_t)n) != 0)
            die("mismatch: a message came back changed on an idle connection");
        got += n;
    }
    return fd;
}
