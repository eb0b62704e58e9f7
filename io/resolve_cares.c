/* SPDX-License-Identifier: MIT */
/*
 * resolve_cares.c -- looking names up by c-ares, where reeve is built with it (REEVE_CARES).
 *
 * It brings what getaddrinfo cannot: how long an answer is true, and a bound on how long a lookup
 * takes. It knows /etc/hosts and resolv.conf, but not what else nsswitch.conf names. A lookup has a
 * channel of its own, which reads the configuration afresh, and is driven on the thread that asked
 * until nothing is outstanding; so nothing here is shared but the library's own start.
 *
 * Threads: any that may block.
 */
#include "io/resolve.h"

#ifdef RV_CARES
#include <ares.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <reeve/time.h>

#define TIMEOUT_MS 2000 /* of the first try at each server; c-ares doubles it for later ones */
#define TRIES 3

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int library; /* its status */

static void start_library(void)
{
    library = ares_library_init(ARES_LIB_INIT_ALL);
}

static int error_of(int status)
{
    switch (status) {
    case ARES_SUCCESS:
        return 0;
    case ARES_ENODATA:
    case ARES_ENOTFOUND:
    case ARES_ENONAME:
        return -ENOENT;
    case ARES_ETIMEOUT:
    case ARES_ECONNREFUSED:
    case ARES_ESERVFAIL: /* passing, by DNS's own account: getaddrinfo says EAI_AGAIN */
    case ARES_ENOTINITIALIZED:
        return -EAGAIN;
    case ARES_ENOMEM:
        return -ENOMEM;
    case ARES_EBADNAME:
    case ARES_EBADSTR:
        return -EINVAL;
    default:
        return -EREMOTEIO;
    }
}

struct lookup {
    struct rv_names *names;
    int error;
};

static void on_answer(void *arg, int status, int timeouts, struct ares_addrinfo *answer)
{
    struct lookup *l = arg;
    (void)timeouts;
    l->error = error_of(status);
    const struct ares_addrinfo_node *node = answer ? answer->nodes : NULL;
    for (; node && l->error == 0; node = node->ai_next) {
        int64_t ttl_ns = node->ai_ttl * REEVE_SEC;
        if (l->names->ttl_ns < 0 || ttl_ns < l->names->ttl_ns)
            l->names->ttl_ns = ttl_ns;
        rv_names_add(l->names, node->ai_addr);
    }
    if (l->error == 0 && l->names->n == 0)
        l->error = -ENOENT;
    ares_freeaddrinfo(answer);
}

/* Waits for one of the channel's sockets, or its timeout, and acts upon that. False: it waits for
 * nothing. */
static bool turn(ares_channel channel)
{
    ares_socket_t fd[ARES_GETSOCK_MAXNUM];
    struct pollfd wait[ARES_GETSOCK_MAXNUM];
    struct timeval tv;
    int bits = ares_getsock(channel, fd, ARES_GETSOCK_MAXNUM);
    nfds_t n = 0;
    for (int i = 0; i < ARES_GETSOCK_MAXNUM; i++) {
        int in = ARES_GETSOCK_READABLE(bits, i) ? POLLIN : 0;
        int out = ARES_GETSOCK_WRITABLE(bits, i) ? POLLOUT : 0;
        if (in || out)
            wait[n++] = (struct pollfd){ .fd = fd[i], .events = (short)(in | out) };
    }
    if (n == 0)
        return false;
    int ms = -1;
    if (ares_timeout(channel, NULL, &tv))
        ms = (int)(tv.tv_sec * 1000 + (tv.tv_usec + 999) / 1000);
    if (poll(wait, n, ms) <= 0)
        ares_process_fd(channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    for (nfds_t i = 0; i < n; i++)
        if (wait[i].revents)
            ares_process_fd(channel, wait[i].revents & ~POLLOUT ? wait[i].fd : ARES_SOCKET_BAD,
                            wait[i].revents & POLLOUT ? wait[i].fd : ARES_SOCKET_BAD);
    return true;
}

int rv_lookup_cares_from(const char *servers, const char *host, struct rv_names *ret_names)
{
    struct lookup l = { .names = ret_names, .error = -EREMOTEIO };
    struct ares_options options = { .timeout = TIMEOUT_MS, .tries = TRIES };
    struct ares_addrinfo_hints hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
    ares_channel channel;
    pthread_once(&once, start_library);
    int status = library;
    if (status == ARES_SUCCESS)
        status = ares_init_options(&channel, &options, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES);
    if (status != ARES_SUCCESS)
        return error_of(status);
    if (servers && (status = ares_set_servers_ports_csv(channel, servers)) != ARES_SUCCESS) {
        ares_destroy(channel);
        return error_of(status);
    }
    ares_getaddrinfo(channel, host, NULL, &hints, on_answer, &l);
    while (turn(channel))
        ;
    ares_destroy(channel);
    return l.error;
}

int rv_lookup_cares(const char *host, struct rv_names *ret_names)
{
    return rv_lookup_cares_from(NULL, host, ret_names);
}
#endif
