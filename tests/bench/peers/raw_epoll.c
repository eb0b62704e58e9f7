/* SPDX-License-Identifier: MIT */
/*
 * raw_epoll.c -- an echo server with nothing between it and epoll: what reeve has to beat.
 *
 * Edge triggered: a receive that fills less than the buffer has emptied the socket, so a request
 * costs one recv, one send and its share of one epoll_wait, and no descriptor is polled again for
 * nothing (level triggered costs one poll more per request). All connections of a thread share one
 * buffer, which stays in the first-level cache.
 *
 *     raw_epoll HOST:PORT [--cpu LIST] [--threads N] [--stall BYTES]
 *
 * SIGTERM: prints "requests M" and ends. With --stall requests have that size and may ask for CPU
 * time before the answer (stall.h).
 *
 * (1) Bytes that the socket did not take are kept in `rest`; the connection is not read again until
 *     they are gone, so bytes stay in order and a client that does not read holds one buffer.
 *     EPOLLOUT is asked for only then.
 * (2) `rest` exists only while a client is behind: nothing is allocated per request or connection.
 *
 * With --threads N the first thread accepts and deals connections round robin over all threads.
 * Threads: a row of `conns` belongs to the thread that was dealt its descriptor, everything else to
 * its own thread.
 */
#include "raw.h"
#include "stall.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

enum { EVENTS = 512, BUF_BYTES = 65536, RETRY_MS = 100 };

struct conn {
    unsigned char *rest; /* NULL: the peer keeps up */
    uint32_t rest_off, rest_len;
};

struct server {
    int ep, index;
    pthread_t thread;
    uint64_t requests;
    unsigned dealt;
    bool accept_paused; /* out of descriptors: tried again after a while */
    struct epoll_event events[EVENTS];
    unsigned char buf[BUF_BYTES];
};

static struct raw_opts opts;
static struct server *servers;
static struct conn *conns;
static struct stall *stalls; /* a row for each connection, if requests may stall */
static size_t conns_n;
static int door, signals, stop_event;

static void watch(int ep, int op, int fd, uint32_t events)
{
    struct epoll_event ev = { .events = events, .data.fd = fd };
    if (epoll_ctl(ep, op, fd, &ev) < 0)
        raw_die("epoll_ctl: %s", strerror(errno));
}

static void on_accept(struct server *s)
{
    int fd;
    s->accept_paused = false;
    while ((fd = accept4(door, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if ((size_t)fd >= conns_n)
            raw_die("descriptor %d is beyond the table of %zu", fd, conns_n);
        if (stalls)
            stalls[fd] = (struct stall){ 0 };
        struct server *to = &servers[s->dealt++ % (unsigned)opts.threads];
        watch(to->ep, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLRDHUP | EPOLLET);
    }
    if (errno == EMFILE || errno == ENFILE)
        s->accept_paused = true;
    else if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
        raw_die("accept: %s", strerror(errno));
}

static void hang_up(int fd)
{
    free(conns[fd].rest);
    conns[fd] = (struct conn){ 0 };
    close(fd);
}

/* The socket is full: keep what is left and wait for room (1). */
static bool keep_rest(struct server *s, int fd, const unsigned char *at, size_t len)
{
    struct conn *c = &conns[fd];
    c->rest = malloc(len);
    if (!c->rest)
        return false;
    memcpy(c->rest, at, len);
    c->rest_off = 0;
    c->rest_len = (uint32_t)len;
    watch(s->ep, EPOLL_CTL_MOD, fd, EPOLLOUT | EPOLLRDHUP | EPOLLET);
    return true;
}

/* What did not fit goes first: 1 it is gone, 0 still full, -1 the peer is. */
static int flush_rest(struct server *s, int fd)
{
    struct conn *c = &conns[fd];
    while (c->rest_off < c->rest_len) {
        ssize_t n = send(fd, c->rest + c->rest_off, c->rest_len - c->rest_off, MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN ? 0 : -1;
        c->rest_off += (uint32_t)n;
    }
    free(c->rest);
    *c = (struct conn){ 0 };
    watch(s->ep, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLRDHUP | EPOLLET);
    return 1;
}

/* Answers n bytes, request by request if each may stall. How many went out; -1: the peer is gone.
 * What does not go out has spun all the same. */
static ssize_t answer(struct server *s, int fd, size_t n)
{
    size_t due = 0, out = 0;
    while (due < n) {
        due += stalls ? stall_next(&stalls[fd], opts.stall_bytes, s->buf + due, n - due) : n;
        ssize_t sent = send(fd, s->buf + out, due - out, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN)
            return -1;
        out += sent < 0 ? 0 : (size_t)sent;
    }
    return (ssize_t)out;
}

static void on_ready(struct server *s, int fd, uint32_t events)
{
    if (conns[fd].rest) {
        int r = flush_rest(s, fd);
        if (r < 0)
            hang_up(fd);
        if (r <= 0)
            return;
    }
    for (;;) {
        ssize_t n = recv(fd, s->buf, BUF_BYTES, 0);
        if (n <= 0) {
            if (n == 0 || errno != EAGAIN)
                hang_up(fd);
            return;
        }
        s->requests++;
        ssize_t sent = answer(s, fd, (size_t)n);
        if (sent < 0 || (sent < n && !keep_rest(s, fd, s->buf + sent, (size_t)(n - sent)))) {
            hang_up(fd);
            return;
        }
        if (sent < n || (n < BUF_BYTES && !(events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))))
            return; /* drained: a later byte or FIN is a new edge */
    }
}

static void *serve(void *arg)
{
    struct server *s = arg;
    raw_pin(&opts, s->index);
    for (;;) {
        int n = epoll_wait(s->ep, s->events, EVENTS, s->accept_paused ? RETRY_MS : -1);
        if (n < 0 && errno != EINTR)
            raw_die("epoll_wait: %s", strerror(errno));
        if (s->accept_paused)
            on_accept(s);
        for (int i = 0; i < n; i++) {
            int fd = s->events[i].data.fd;
            if (fd == stop_event || fd == signals)
                return NULL;
            if (fd == door)
                on_accept(s);
            else
                on_ready(s, fd, s->events[i].events);
        }
    }
}

int main(int argc, char **argv)
{
    opts = raw_parse(argc, argv);
    conns_n = raw_fds_max();
    conns = calloc(conns_n, sizeof *conns);
    servers = calloc((size_t)opts.threads, sizeof *servers);
    stalls = opts.stall_bytes ? calloc(conns_n, sizeof *stalls) : NULL;
    if (!conns || !servers || (opts.stall_bytes && !stalls))
        raw_die("out of memory");
    signals = raw_signals();
    stop_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    door = raw_listen(opts.addr);
    for (int i = 0; i < opts.threads; i++) {
        servers[i].index = i;
        servers[i].ep = epoll_create1(EPOLL_CLOEXEC);
        if (servers[i].ep < 0 || stop_event < 0)
            raw_die("epoll_create1 or eventfd: %s", strerror(errno));
        watch(servers[i].ep, EPOLL_CTL_ADD, i ? stop_event : signals, EPOLLIN);
    }
    watch(servers[0].ep, EPOLL_CTL_ADD, door, EPOLLIN | EPOLLET);
    for (int i = 1; i < opts.threads; i++)
        if (pthread_create(&servers[i].thread, NULL, serve, &servers[i]))
            raw_die("cannot start thread %d", i);
    raw_announce(door);
    serve(&servers[0]); /* a process of one thread: its descriptors are looked up without atomics */
    uint64_t requests = servers[0].requests, one = 1;
    if (write(stop_event, &one, sizeof one) != sizeof one)
        raw_die("cannot stop the other threads");
    for (int i = 1; i < opts.threads; i++) {
        pthread_join(servers[i].thread, NULL);
        requests += servers[i].requests;
    }
    printf("requests %llu\n", (unsigned long long)requests);
    return 0;
}
