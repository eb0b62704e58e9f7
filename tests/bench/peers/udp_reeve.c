/* SPDX-License-Identifier: MIT */
/*
 * udp_reeve.c -- reeve's UDP echo server: one socket, one task.
 *
 *     udp_reeve HOST:PORT [--workers N] [--cpu LIST] [--stats] [--many]
 *
 * --many takes and sends up to MANY messages in one call.
 *
 * SIGTERM or SIGINT: it ends with status 0.
 */
#include <reeve/reeve.h>
#include <reeve/socket.h>

#include "many.h"
#include "raw.h"

struct server {
    struct raw_opts opts;
    int signals;
    bool many;
};

static int echo_many(int fd)
{
    static struct many m;
    for (;;) {
        many_reset(&m);
        int n = reeve_recvmmsg(fd, m.msgs, MANY, 0, 0);
        if (n < 0)
            return n;
        many_turn(&m, n);
        n = reeve_sendmmsg(fd, m.msgs, (unsigned)n, 0, 0);
        if (n < 0)
            return n;
    }
}

static int echo_each(int fd)
{
    static unsigned char buf[65536];
    struct sockaddr_storage from;
    socklen_t len;
    for (;;) {
        ssize_t n = reeve_recvfrom(fd, buf, sizeof buf, &from, &len, 0);
        if (n >= 0)
            n = reeve_sendto(fd, buf, (size_t)n, (struct sockaddr *)&from, len, 0);
        if (n < 0)
            return (int)n;
    }
}

static int echo(void *arg)
{
    struct server *s = arg;
    char addr[280];
    snprintf(addr, sizeof addr, "udp:%s", s->opts.addr);
    int fd = reeve_bind(addr);
    if (fd < 0)
        raw_die("cannot bind to %s: %s", addr, strerror(-fd));
    raw_announce(fd);
    return s->many ? echo_many(fd) : echo_each(fd);
}

/* The root task: the server runs beside it until a signal comes. */
static int serve(void *arg)
{
    struct server *s = arg;
    struct signalfd_siginfo what;
    struct reeve_stats st;
    reeve_task *task;
    int result;
    int r = reeve_spawn(&task, echo, s);
    if (r >= 0)
        r = (int)reeve_read(s->signals, &what, sizeof what, 0);
    if (r < 0)
        return r;
    reeve_cancel(task);
    r = reeve_join(task, &result, 0);
    reeve_stats(reeve_self(), &st);
    if (s->opts.stats)
        printf("stats enters=%llu sqes=%llu\n", (unsigned long long)st.enters,
               (unsigned long long)st.sqes);
    return r < 0 ? r : result == -ECANCELED ? 0 : result;
}

int main(int argc, char **argv)
{
    struct server s = { .many = !strcmp(argv[argc - 1], "--many") };
    s.opts = raw_parse(argc - s.many, argv);
    s.signals = raw_signals();
    int r = reeve_run(serve, &s, .workers = (unsigned)s.opts.threads,
                      .cpus = s.opts.cpus_n ? s.opts.cpus : NULL);
    if (r < 0)
        raw_die("%s: %s", argv[0], strerror(-r));
    return 0;
}
