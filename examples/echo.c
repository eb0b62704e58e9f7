/* SPDX-License-Identifier: MIT */
/*
 * echo.c -- an echo server to run and to measure.
 *
 *     echo HOST:PORT [--workers N] [--cpu LIST] [--conns-max N] [--idle SECONDS] [--stats]
 *
 * It says "listening on HOST:PORT" once it does (port 0 takes a free one), serves until SIGTERM or
 * SIGINT, then drains: what was received is still echoed, idle connections are closed, and the exit
 * status is 0. --cpu pins worker i to the i-th CPU of a list like 0,2-3. --stats prints the
 * runtime's counters at the end.
 */
#include <reeve/reeve.h>
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define CPUS_MAX 1024

struct options {
    const char *addr;
    unsigned workers, conns_max;
    long idle_s;
    int cpus[CPUS_MAX];
    unsigned ncpus;
    bool stats;
    int signals; /* a signalfd */
};

static void print_stats(void)
{
    struct reeve_stats st;
    reeve_stats(reeve_self(), &st);
    printf("stats enters=%llu sqes=%llu cqes=%llu accepted=%llu spawned=%llu polls=%llu "
           "passes=%llu parks=%llu wakes_sent=%llu steals_tried=%llu steals_got=%llu "
           "timers_fired=%llu enobufs=%llu cq_overflows=%llu shed=%llu emfile=%llu\n",
           (unsigned long long)st.enters, (unsigned long long)st.sqes, (unsigned long long)st.cqes,
           (unsigned long long)st.accepted, (unsigned long long)st.spawned,
           (unsigned long long)st.polls, (unsigned long long)st.passes,
           (unsigned long long)st.parks, (unsigned long long)st.wakes_sent,
           (unsigned long long)st.steals_tried, (unsigned long long)st.steals_got,
           (unsigned long long)st.timers_fired, (unsigned long long)st.enobufs,
           (unsigned long long)st.cq_overflows, (unsigned long long)st.shed,
           (unsigned long long)st.emfile);
}

static int echo(int fd, void *ctx)
{
    (void)ctx;
    struct reeve_buf *buf;
    ssize_t n;
    while ((n = reeve_buf_recv(fd, &buf, 0)) > 0)
        if ((n = reeve_buf_send(fd, buf, reeve_in(10 * REEVE_SEC))) < 0)
            break;
    return (int)n;
}

static void listening(int fd, void *ctx)
{
    (void)ctx;
    struct sockaddr_storage addr;
    socklen_t len = sizeof addr;
    char host[INET6_ADDRSTRLEN] = "?";
    if (getsockname(fd, (struct sockaddr *)&addr, &len) < 0)
        return;
    if (addr.ss_family == AF_INET6) {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&addr;
        inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof host);
        printf("listening on [%s]:%u\n", host, ntohs(in6->sin6_port));
    } else {
        struct sockaddr_in *in = (struct sockaddr_in *)&addr;
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof host);
        printf("listening on %s:%u\n", host, ntohs(in->sin_port));
    }
    fflush(stdout);
}

static int serve(void *arg)
{
    struct options *o = arg;
    return reeve_serve_with(&(struct reeve_serve){ .addr = o->addr,
                                                   .handler = echo,
                                                   .listening = listening,
                                                   .conns_max = o->conns_max,
                                                   .idle_ns = o->idle_s * REEVE_SEC },
                            0);
}

struct watch {
    reeve_task *server;
    int signals;
};

/* Waits for the signal that ends the program, without stopping anybody else. */
static int watch_signal(void *arg)
{
    struct watch *watch = arg;
    struct signalfd_siginfo info;
    ssize_t n = reeve_read(watch->signals, &info, sizeof info, 0);
    if (n > 0)
        reeve_cancel(watch->server); /* which is its drain */
    return n < 0 ? (int)n : 0;
}

static int root(void *arg)
{
    struct options *o = arg;
    reeve_task *server, *watcher;
    int result, r = reeve_spawn(&server, serve, o, .name = "server");
    if (r < 0)
        return r;
    struct watch watch = { server, o->signals };
    r = reeve_spawn(&watcher, watch_signal, &watch, .name = "watcher");
    if (r < 0)
        return r;
    reeve_join(server, &result, 0);
    reeve_cancel(watcher);
    reeve_join(watcher, NULL, 0);
    if (o->stats)
        print_stats();
    return result;
}

static int bad(const char *why, const char *what)
{
    fprintf(stderr, "echo: %s: %s\n", why, what);
    return 2;
}

static bool parse_number(const char *text, long min, long max, long *ret)
{
    char *end;
    errno = 0;
    long n = strtol(text, &end, 10);
    if (errno || end == text || *end || n < min || n > max)
        return false;
    *ret = n;
    return true;
}

static bool parse_cpus(struct options *o, const char *text)
{
    int n = reeve_cpus_parse(text, o->cpus, CPUS_MAX);
    o->ncpus = n < 0 ? 0 : (unsigned)n;
    return n > 0;
}

/* 0, or the exit status. */
static int parse(struct options *o, int argc, char **argv)
{
    static const struct option longs[] = {
        { "workers", required_argument, NULL, 'w' }, { "cpu", required_argument, NULL, 'c' },
        { "conns-max", required_argument, NULL, 'm' }, { "idle", required_argument, NULL, 'i' },
        { "stats", no_argument, NULL, 's' }, { NULL, 0, NULL, 0 },
    };
    int c;
    long n;
    while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        if (c == 'w' && parse_number(optarg, 1, 1024, &n))
            o->workers = (unsigned)n;
        else if (c == 'm' && parse_number(optarg, 1, 1 << 20, &n))
            o->conns_max = (unsigned)n;
        else if (c == 'i' && parse_number(optarg, 1, 1 << 20, &n))
            o->idle_s = n;
        else if (c == 's')
            o->stats = true;
        else if (c != 'c' || !parse_cpus(o, optarg))
            return c == '?' ? 2 : bad("out of range or no number", optarg);
    }
    if (optind + 1 != argc)
        return bad("usage", "echo HOST:PORT [--workers N] [--cpu LIST] [--conns-max N] "
                            "[--idle SECONDS] [--stats]");
    o->addr = argv[optind];
    return 0;
}

int main(int argc, char **argv)
{
    static struct options o;
    char why[256];
    sigset_t ends;
    int r = parse(&o, argc, argv);
    if (r != 0)
        return r;
    if (reeve_check(why, sizeof why) < 0)
        return fprintf(stderr, "echo: %s\n", why), 1;
    if (o.ncpus && o.workers == 0)
        o.workers = o.ncpus;
    if (o.ncpus && o.ncpus < o.workers)
        return bad("fewer CPUs than workers", "--cpu");
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigprocmask(SIG_BLOCK, &ends, NULL); /* before any thread is made: they inherit it */
    o.signals = signalfd(-1, &ends, SFD_CLOEXEC);
    r = reeve_run(root, &o, .name = "echo", .workers = o.workers, .cpus = o.ncpus ? o.cpus : NULL);
    close(o.signals);
    if (r < 0)
        return fprintf(stderr, "echo: %s: %s\n", o.addr, strerror(-r)), 1;
    return 0;
}
