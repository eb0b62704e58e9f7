/* SPDX-License-Identifier: MIT */
/*
 * pipeline.c -- a pipeline server: metrics from TCP clients, by stages, into a file and to
 * subscribers.
 *
 *     pipeline ADDR [--out FILE] [--subscribe ADDR] [--workers N] [--window RECORDS] [--every MS]
 *              [--drop PREFIX] [--queue TEXTS] [--drain SECONDS] [--sync]
 *
 * Clients connect to ADDR and send lines "KEY VALUE": a key of up to 39 printable characters, and a
 * number. Keys that begin with PREFIX ("debug." unless said otherwise) are dropped. The others are
 * gathered by key until there are RECORDS of them (10000) or MS milliseconds (100) have passed, and
 * each window is written to FILE, or to the standard output, as lines "KEY COUNT SUM MIN MAX". The
 * same lines go to everybody who is connected to the second address.
 *
 * A client hears "ok N" once its first N lines are in the file (with --sync: on the disk), and
 * "error N: REASON" when line N is no record. On SIGTERM or SIGINT no more clients are accepted,
 * what they have sent (for one second, if somebody never pauses) goes through all the stages, and
 * the server ends with status 0. If that takes longer than SECONDS (10), what is left is given up,
 * and the status is 1; what was acknowledged is in the file either way.
 *
 * Try it (in three terminals):
 *
 *     build/release/examples/pipeline 127.0.0.1:7001 --subscribe 127.0.0.1:7002 --out /tmp/metrics
 *     nc 127.0.0.1 7002
 *     printf 'cpu 3\ncpu 5\nroom.kitchen 21.5\ndebug.x 1\noops\n' | nc -N 127.0.0.1 7001
 *
 * The stages are in pipeline_clients.c, pipeline_stages.c, pipeline_file.c, pipeline_subscribers.c;
 * what flows between them in pipeline.h.
 */
#include "pipeline.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHAN_BATCHES = 16, CHAN_WINDOWS = 2 };

void *need(size_t bytes)
{
    void *p = malloc(bytes);
    if (p)
        return p;
    fprintf(stderr, "pipeline: out of memory\n");
    exit(1);
}

/* ---- the two servers ------------------------------------------------------------------------- */

static void say_where(const char *what, int fd)
{
    struct sockaddr_storage addr;
    socklen_t len = sizeof addr;
    char host[INET6_ADDRSTRLEN] = "?";
    if (getsockname(fd, (struct sockaddr *)&addr, &len) < 0)
        return;
    bool six = addr.ss_family == AF_INET6;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&addr;
    struct sockaddr_in *in = (struct sockaddr_in *)&addr;
    inet_ntop(addr.ss_family, six ? (void *)&in6->sin6_addr : (void *)&in->sin_addr, host,
              sizeof host);
    fprintf(stderr, six ? "pipeline: %s on [%s]:%u\n" : "pipeline: %s on %s:%u\n", what, host,
            ntohs(six ? in6->sin6_port : in->sin_port));
}

static void clients_listen(int fd, void *ctx)
{
    (void)ctx;
    say_where("clients", fd);
}

static void subscribers_listen(int fd, void *ctx)
{
    (void)ctx;
    say_where("subscribers", fd);
}

/* A server that ends by itself ends the program. */
static int serve(struct pipeline *p, const struct reeve_serve *how)
{
    int r = reeve_serve_with(how, 0);
    reeve_chan_send(p->end, &r, REEVE_POLL);
    return r;
}

static int serve_clients(void *pipeline)
{
    struct pipeline *p = pipeline;
    return serve(p, &(struct reeve_serve){ .addr = p->addr,
                                           .handler = client_task,
                                           .ctx = p,
                                           .listening = clients_listen,
                                           .drain_ns = p->drain_ns });
}

static int serve_subscribers(void *pipeline)
{
    struct pipeline *p = pipeline;
    return serve(p, &(struct reeve_serve){ .addr = p->subscribe_addr,
                                           .handler = subscriber_task,
                                           .ctx = p,
                                           .listening = subscribers_listen,
                                           .drain_ns = p->drain_ns });
}

static int await_signal(void *pipeline)
{
    struct pipeline *p = pipeline;
    struct signalfd_siginfo info;
    int why = 0;
    ssize_t n = reeve_read(p->signals, &info, sizeof info, 0);
    if (n > 0)
        reeve_chan_send(p->end, &why, REEVE_POLL);
    return n < 0 ? (int)n : 0;
}

/* ---- beginning and end ----------------------------------------------------------------------- */

/* Waits for a task to end by itself, until then; after that cancels it. Its result. */
static int finish(reeve_task *task, reeve_time until)
{
    int result = 0;
    if (reeve_join(task, &result, until) < 0) {
        reeve_cancel(task);
        reeve_join(task, &result, 0);
        result = -ETIMEDOUT;
    }
    return result;
}

/* What a stage that had to be cancelled has left in front of it. */
static void discard(struct pipeline *p)
{
    struct batch b;
    struct window *w;
    while (reeve_chan_recv(p->parsed, &b, REEVE_POLL) == 0)
        client_release(b.client);
    while (reeve_chan_recv(p->kept, &b, REEVE_POLL) == 0)
        client_release(b.client);
    while (reeve_chan_recv(p->windows, &w, REEVE_POLL) == 0)
        window_release(w);
}

enum { FILTER, AGGREGATE, FILE_STAGE, CLIENTS, SUBSCRIBERS, WATCH, TASKS };

static int start(struct pipeline *p, reeve_task *tasks[TASKS])
{
    static const struct reeve_spawn how[TASKS] = {
        [FILTER] = { .fn = filter_task, .name = "filter" },
        [AGGREGATE] = { .fn = aggregate_task, .name = "aggregate" },
        [FILE_STAGE] = { .fn = file_task, .name = "file" },
        [CLIENTS] = { .fn = serve_clients, .name = "clients" },
        [SUBSCRIBERS] = { .fn = serve_subscribers, .name = "subscribers" },
        [WATCH] = { .fn = await_signal, .name = "watch" },
    };
    for (int i = 0; i < TASKS; i++) {
        struct reeve_spawn one = how[i];
        one.arg = p;
        tasks[i] = NULL;
        if (i == SUBSCRIBERS && !p->subscribe_addr)
            continue;
        int r = reeve_spawn_with(&tasks[i], &one);
        if (r < 0)
            return r;
    }
    return 0;
}

/* From the source on: a stage ends when what it reads from is closed and empty. */
static int drain(struct pipeline *p, reeve_task *tasks[TASKS])
{
    reeve_time until = reeve_in(p->drain_ns + REEVE_SEC); /* serve has a clock of its own */
    struct batch hurry = { .client = NULL };
    int worst = 0, r;
    atomic_store(&p->read_until, reeve_in(REEVE_SEC));
    reeve_cancel(tasks[CLIENTS]);
    reeve_chan_send(p->parsed, &hurry, until); /* clients wait for their windows */
    reeve_join(tasks[CLIENTS], &worst, 0);
    reeve_chan_close(p->parsed);
    for (int i = FILTER; i <= FILE_STAGE; i++)
        if ((r = finish(tasks[i], until)) < 0 && worst >= 0)
            worst = r;
    close_hub(p);
    if (tasks[SUBSCRIBERS]) {
        reeve_cancel(tasks[SUBSCRIBERS]);
        reeve_join(tasks[SUBSCRIBERS], NULL, 0);
    }
    reeve_cancel(tasks[WATCH]);
    reeve_join(tasks[WATCH], NULL, 0);
    discard(p);
    return worst;
}

static int root(void *arg)
{
    struct pipeline *p = arg;
    reeve_task *tasks[TASKS];
    int why, r = start(p, tasks);
    if (r < 0)
        return r;
    r = reeve_chan_recv(p->end, &why, 0);
    int end = drain(p, tasks);
    if (r < 0)
        return r;
    return why < 0 ? why : end;
}

static int run(struct pipeline *p)
{
    p->parsed = reeve_chan_create(sizeof(struct batch), CHAN_BATCHES);
    p->kept = reeve_chan_create(sizeof(struct batch), CHAN_BATCHES);
    p->windows = reeve_chan_create(sizeof(struct window *), CHAN_WINDOWS);
    p->end = reeve_chan_create(sizeof(int), 1);
    int r = -ENOMEM;
    if (p->parsed && p->kept && p->windows && p->end)
        r = reeve_run(root, p, .name = "pipeline", .workers = p->workers);
    reeve_chan_destroy(p->end);
    reeve_chan_destroy(p->windows);
    reeve_chan_destroy(p->kept);
    reeve_chan_destroy(p->parsed);
    return r;
}

static void print_counters(const struct pipeline *p)
{
    const struct {
        const char *name;
        const atomic_ullong *counter;
    } counters[] = {
        { "clients", &p->clients },     { "lines", &p->lines },
        { "malformed", &p->malformed }, { "copied_bytes", &p->copied },
        { "filtered", &p->filtered },   { "records", &p->records },
        { "windows", &p->windows_filed }, { "rows", &p->rows },
        { "bytes", &p->bytes },         { "subscribers", &p->subscribed },
        { "dropped_subscribers", &p->dropped },
    };
    fprintf(stderr, "pipeline:");
    for (size_t i = 0; i < sizeof counters / sizeof counters[0]; i++)
        fprintf(stderr, " %s=%llu", counters[i].name,
                (unsigned long long)atomic_load(counters[i].counter));
    fprintf(stderr, "\n");
}

/* ---- options --------------------------------------------------------------------------------- */

static int bad(const char *why, const char *what)
{
    fprintf(stderr, "pipeline: %s: %s\n", why, what);
    return 2;
}

static bool parse_number(const char *text, long min, long max, long *ret)
{
    char *end;
    errno = 0;
    *ret = strtol(text, &end, 10);
    return !errno && end != text && !*end && *ret >= min && *ret <= max;
}

/* 0, or the exit status. */
static int parse(struct pipeline *p, int argc, char **argv)
{
    static const struct option longs[] = {
        { "out", required_argument, NULL, 'o' },    { "subscribe", required_argument, NULL, 's' },
        { "workers", required_argument, NULL, 'w' }, { "window", required_argument, NULL, 'r' },
        { "every", required_argument, NULL, 'e' },  { "drop", required_argument, NULL, 'd' },
        { "queue", required_argument, NULL, 'q' },  { "drain", required_argument, NULL, 't' },
        { "sync", no_argument, NULL, 'y' },         { NULL, 0, NULL, 0 },
    };
    int c;
    long n = 0;
    while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        if (c == '?')
            return 2;
        if (strchr("wreqt", c) && !parse_number(optarg, 1, 1 << 20, &n))
            return bad("no number, or out of range", optarg);
        switch (c) {
        case 'o': p->out_path = optarg; break;
        case 's': p->subscribe_addr = optarg; break;
        case 'w': p->workers = (unsigned)n; break;
        case 'r': p->window_records = (unsigned)n; break;
        case 'e': p->every_ns = n * REEVE_MS; break;
        case 'd': p->drop = optarg; break;
        case 'q': p->queue_max = (unsigned)n; break;
        case 't': p->drain_ns = n * REEVE_SEC; break;
        default: p->sync = true; break;
        }
    }
    if (optind + 1 != argc)
        return bad("usage", "pipeline ADDR [--out FILE] [--subscribe ADDR] [--workers N] "
                            "[--window RECORDS] [--every MS] [--drop PREFIX] [--queue TEXTS] "
                            "[--drain SECONDS] [--sync]");
    p->addr = argv[optind];
    return 0;
}

/* The file is opened here so that what is wrong with it is said at once; a fifo waits here for its
 * reader. 0, or the exit status. */
static int open_out(struct pipeline *p)
{
    struct stat st;
    if (p->out_path)
        p->out = open(p->out_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    if (p->out < 0 || fstat(p->out, &st) < 0)
        return fprintf(stderr, "pipeline: %s: %s\n", p->out_path, strerror(errno)), 1;
    if (p->out_path && S_ISREG(st.st_mode)) {
        close(p->out);
        p->out = -1;
    } else if (p->sync) {
        return bad("--sync needs a regular file", "--out");
    }
    return 0;
}

int main(int argc, char **argv)
{
    static struct pipeline p = { .drop = "debug.",
                                 .window_records = 10000,
                                 .queue_max = 64,
                                 .every_ns = 100 * REEVE_MS,
                                 .drain_ns = 10 * REEVE_SEC,
                                 .out = STDOUT_FILENO };
    char why[256];
    sigset_t ends;
    int r = parse(&p, argc, argv);
    if (r != 0)
        return r;
    if (reeve_check(why, sizeof why) < 0)
        return fprintf(stderr, "pipeline: %s\n", why), 1;
    if ((r = open_out(&p)) != 0)
        return r;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigprocmask(SIG_BLOCK, &ends, NULL); /* before any thread is made: they inherit it */
    signal(SIGPIPE, SIG_IGN);            /* the output may be a pipe */
    p.signals = signalfd(-1, &ends, SFD_CLOEXEC);
    r = run(&p);
    print_counters(&p);
    close(p.signals);
    if (p.out_path && p.out >= 0 && close(p.out) < 0 && r >= 0)
        r = -errno;
    if (r < 0)
        return fprintf(stderr, "pipeline: %s\n", strerror(-r)), 1;
    return 0;
}
