/* SPDX-License-Identifier: MIT */
/*
 * sendfile.c -- a file to a TCP connection by sendfile(2), in a loop, blocking: see send.h.
 */
#include <sys/sendfile.h>

#include "send.h"

static int dial(const char *addr)
{
    char host[64];
    const char *colon = strrchr(addr, ':');
    struct addrinfo *found, hints = { .ai_socktype = SOCK_STREAM };
    if (!colon || colon - addr >= (int)sizeof host)
        raw_die("sendfile: '%s' is no HOST:PORT", addr);
    snprintf(host, sizeof host, "%.*s", (int)(colon - addr), addr);
    if (getaddrinfo(host, colon + 1, &hints, &found) != 0)
        raw_die("sendfile: no address is found for %s", addr);
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, found->ai_addr, found->ai_addrlen) < 0)
        raw_die("sendfile: %s: %s", addr, strerror(errno));
    freeaddrinfo(found);
    return fd;
}

static int64_t send_mib(const struct send_job *j, int conn, int64_t mib)
{
    int64_t sent = 0;
    while (sent < mib << 20) {
        off_t at = 0;
        while (at < j->bytes) {
            ssize_t n = sendfile(conn, j->file, &at, (size_t)(j->bytes - at));
            if (n <= 0)
                raw_die("sendfile: %s", n < 0 ? strerror(errno) : "the file has shrunk");
            sent += n;
        }
    }
    return sent;
}

int main(int argc, char **argv)
{
    struct send_job j = send_parse(argc, argv);
    int conn = dial(j.addr);
    send_mib(&j, conn, j.mib / 4);
    send_begin(&j);
    send_report(&j, send_mib(&j, conn, j.mib));
    return 0;
}
