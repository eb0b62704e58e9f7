/* SPDX-License-Identifier: MIT */
/*
 * copy_reeve.c -- a file to a TCP connection by reeve_copy: see send.h.
 */
#include <reeve/fd.h>
#include <reeve/reeve.h>

#include "send.h"

/* Bytes, or -errno. */
static int64_t send_mib(const struct send_job *j, int conn, int64_t mib)
{
    int64_t sent = 0;
    while (sent < mib << 20) {
        ssize_t n;
        if (lseek(j->file, 0, SEEK_SET) < 0)
            return -errno;
        while ((n = reeve_copy(conn, j->file, 0, 0)) > 0)
            sent += n;
        if (n < 0)
            return n;
    }
    return sent;
}

static int send_all(void *arg)
{
    struct send_job *j = arg;
    int conn = reeve_dial(j->addr, 0);
    if (conn < 0)
        return conn;
    int64_t n = send_mib(j, conn, j->mib / 4);
    if (n >= 0) {
        send_begin(j);
        n = send_mib(j, conn, j->mib);
    }
    if (n > 0)
        send_report(j, n);
    reeve_close(conn);
    return n < 0 ? (int)n : 0;
}

int main(int argc, char **argv)
{
    struct send_job j = send_parse(argc, argv);
    int r = reeve_run(send_all, &j, .workers = 1);
    if (r < 0)
        raw_die("copy_reeve: %s", strerror(-r));
    return 0;
}
