/* SPDX-License-Identifier: MIT */
/*
 * stream_reeve.c -- reeve's echo server for large messages: several leases at a time.
 *
 *     stream_reeve HOST:PORT [--workers N] [--cpu LIST] [--stats]
 *
 * SIGTERM or SIGINT: it drains and ends with status 0.
 */
#include <reeve/reeve.h>
#include <reeve/socket.h>

#include "raw.h"

enum { TOGETHER = 8 }; /* as many buffers as raw_uring sends at once */

struct server {
    struct raw_opts opts;
    int signals;
};

static int echo(int fd, void *ctx)
{
    struct reeve_buf *bufs[TOGETHER];
    size_t n;
    ssize_t len;
    (void)ctx;
    while ((len = reeve_buf_recvv(fd, bufs, TOGETHER, &n, 0)) > 0)
        if ((len = reeve_buf_sendv(fd, bufs, n, 0)) < 0)
            break;
    return (int)len;
}

static void listening(int fd, void *ctx)
{
    (void)ctx;
    raw_announce(fd);
}

static int accept_all(void *arg)
{
    return reeve_serve_with(
        &(struct reeve_serve){ .addr = arg, .handler = echo, .listening = listening }, 0);
}

/* The root task: the server runs beside it until a signal comes. */
static int serve(void *arg)
{
    struct server *s = arg;
    struct signalfd_siginfo what;
    struct reeve_stats st;
    reeve_task *task;
    int r = reeve_spawn(&task, accept_all, (void *)(uintptr_t)s->opts.addr);
    if (r >= 0)
        r = (int)reeve_read(s->signals, &what, sizeof what, 0);
    if (r < 0)
        return r;
    reeve_cancel(task);
    r = reeve_join(task, NULL, 0);
    reeve_stats(reeve_self(), &st);
    if (s->opts.stats)
        printf("stats enters=%llu sqes=%llu\n", (unsigned long long)st.enters,
               (unsigned long long)st.sqes);
    return r;
}

int main(int argc, char **argv)
{
    struct server s = { .opts = raw_parse(argc, argv) };
    s.signals = raw_signals();
    int r = reeve_run(serve, &s, .workers = (unsigned)s.opts.threads,
                      .cpus = s.opts.cpus_n ? s.opts.cpus : NULL);
    if (r < 0)
        raw_die("%s: %s", argv[0], strerror(-r));
    return 0;
}
