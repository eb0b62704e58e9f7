/* SPDX-License-Identifier: MIT */
/*
 * raw_epoll_udp.c -- a UDP echo server with nothing between it and epoll.
 *
 * Edge triggered: each round receives and answers until the socket is empty, so a request costs one
 * recvfrom, one sendto and its share of one epoll_wait.
 *
 *     raw_epoll_udp HOST:PORT [--cpu LIST] [--many]
 *
 * --many takes and sends up to MANY messages in one call, recvmmsg and sendmmsg.
 *
 * SIGTERM: prints "requests M" and ends.
 *
 * Threads: one.
 */
#include "many.h"
#include "raw.h"

#include <sys/epoll.h>

enum { EVENTS = 16, BUF_BYTES = 65536 };

static int udp_bind(const char *addr)
{
    char host[256];
    const char *colon = strrchr(addr, ':');
    struct addrinfo *ai, hints = { .ai_socktype = SOCK_DGRAM, .ai_flags = AI_PASSIVE };
    snprintf(host, sizeof host, "%.*s", (int)(colon - addr), addr);
    int r = getaddrinfo(host, colon + 1, &hints, &ai);
    if (r)
        raw_die("cannot resolve %s: %s", addr, gai_strerror(r));
    int fd = socket(ai->ai_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, ai->ai_addr, ai->ai_addrlen) < 0)
        raw_die("cannot bind to %s: %s", addr, strerror(errno));
    freeaddrinfo(ai);
    return fd;
}

/* Empties the socket. How many requests there were. */
static uint64_t answer(int fd)
{
    static unsigned char buf[BUF_BYTES];
    struct sockaddr_storage from;
    uint64_t requests = 0;
    for (;;) {
        socklen_t len = sizeof from;
        ssize_t n = recvfrom(fd, buf, sizeof buf, 0, (struct sockaddr *)&from, &len);
        if (n < 0 && errno == EAGAIN)
            return requests;
        if (n < 0 || sendto(fd, buf, (size_t)n, 0, (struct sockaddr *)&from, len) < 0)
            raw_die("recvfrom or sendto: %s", strerror(errno));
        requests++;
    }
}

static uint64_t answer_many(int fd)
{
    static struct many m;
    uint64_t requests = 0;
    for (;;) {
        many_reset(&m);
        int n = recvmmsg(fd, m.msgs, MANY, 0, NULL);
        if (n < 0 && errno == EAGAIN)
            return requests;
        if (n > 0)
            many_turn(&m, n);
        if (n < 0 || sendmmsg(fd, m.msgs, (unsigned)n, 0) != n)
            raw_die("recvmmsg or sendmmsg: %s", strerror(errno));
        requests += (uint64_t)n;
    }
}

int main(int argc, char **argv)
{
    bool many = !strcmp(argv[argc - 1], "--many");
    argc -= many;
    struct raw_opts opts = raw_parse(argc, argv);
    uint64_t requests = 0;
    raw_pin(&opts, 0);
    int signals = raw_signals(), fd = udp_bind(opts.addr), ep = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event door = { .events = EPOLLIN | EPOLLET, .data.fd = fd };
    struct epoll_event end = { .events = EPOLLIN, .data.fd = signals };
    if (ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, fd, &door) < 0 ||
        epoll_ctl(ep, EPOLL_CTL_ADD, signals, &end) < 0)
        raw_die("epoll: %s", strerror(errno));
    raw_announce(fd);
    for (;;) {
        struct epoll_event events[EVENTS];
        int n = epoll_wait(ep, events, EVENTS, -1);
        if (n < 0 && errno != EINTR)
            raw_die("epoll_wait: %s", strerror(errno));
        for (int i = 0; i < n; i++) {
            if (events[i].data.fd == signals) {
                printf("requests %llu\n", (unsigned long long)requests);
                return 0;
            }
            requests += many ? answer_many(fd) : answer(fd);
        }
    }
}
