/* SPDX-License-Identifier: MIT */
/*
 * bench_net.c -- sockets beyond small requests over TCP: large messages, datagrams, Unix sockets.
 *
 *     bench_net [--json] [--quick] [--case NAME]...
 *
 * As in bench_echo.c: server and load have a CPU each, the sides take turns in short rounds, and
 * the figure that counts is the server's CPU time per unit of work.
 *
 *     case           what is done                                          peers
 *     stream64K_x4   4 connections, each echoes messages of 64 KiB         raw_uring raw_epoll
 *     udp_echo       50 clients, each with one datagram of 64 B under way  raw_epoll
 *     udp_echo_many  the same, and both take and send many in one call     raw_epoll
 *     udp_echo_x1    one client                                            raw_epoll
 *     unix_echo      50 Unix connections, each with 64 B under way         raw_epoll
 *     unix_echo_x1   one connection                                        raw_epoll
 */
#include "tests/bench/harness.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    SIDES_MAX = 3, STOP_MS = 10000, MESSAGE = 65536, MIB = 1 << 20,
    CLIENTS_MAX = 64, REQUEST = 64, LOST_MS = 500, LOST_MAX = 10,
};

/* One server in a comparison, and what was measured of it. */
struct side {
    const char *name; /* as JSON calls the peer; reeve comes first */
    char path[BENCH_PATH + 64];
    const char *const *more; /* further arguments */
    struct bench_samples cpu, rate;
};

struct sides {
    struct side v[SIDES_MAX];
    int n;
};

/* Loads the server at `addr` once, adds what it cost to the side's samples. 0, or -errno. */
typedef int measure_fn(struct bench *b, const struct bench_case *c, const char *addr, pid_t server,
                       struct side *side);

static void side_add(struct bench *b, struct sides *s, const char *name, const char *file)
{
    struct side *side = &s->v[s->n++];
    *side = (struct side){ .name = name };
    snprintf(side->path, sizeof side->path, "%s/%s", b->peerdir, file);
}

static int measure(struct bench *b, const struct bench_case *c, struct side *side, measure_fn *fn)
{
    struct bench_proc p;
    char addr[64];
    struct bench_server how = {
        .path = side->path, .workers = 1, .cpus = b->cpus, .cpus_n = 1,
        .shared_cpu = b->cpu_load == b->cpu_server, .more = side->more,
    };
    int r = bench_server_start(b, &p, &how, addr);
    if (r < 0)
        return r;
    r = fn(b, c, addr, p.pid, side);
    int status = bench_stop(&p, SIGTERM, STOP_MS);
    if (status != 0)
        bench_fail(b, side->path, "after SIGTERM it ended with status %d. It said: %s", status,
                   p.said);
    return r;
}

/* Rounds in which every side has its turn, then the figures. */
static void compare(struct bench *b, const struct bench_case *c, struct sides *s, measure_fn *fn,
                    const char *cpu, const char *rate)
{
    int rounds = b->quick ? 3 : 15;
    for (int round = 0; round < rounds && (round == 0 || bench_time_left(b)); round++)
        for (int i = 0; i < s->n; i++)
            if (measure(b, c, &s->v[i], fn) < 0) {
                bench_fail(b, c->name, "%s could not be measured", s->v[i].path);
                return;
            }
    for (int i = 1; i < s->n; i++)
        bench_emit(b, c->name, cpu, &s->v[0].cpu, s->v[i].name, &s->v[i].cpu);
    for (int i = 1; i < s->n; i++)
        bench_emit(b, c->name, rate, &s->v[0].rate, s->v[i].name, &s->v[i].rate);
}

/* ---- large messages -------------------------------------------------------------------------- */

static int load_stream(struct bench *b, const struct bench_case *c, const char *addr, pid_t server,
                       struct side *side)
{
    struct bench_loaded got;
    struct bench_load load = {
        .conns = (int)c->arg, .threads = 1, .size = MESSAGE, .watch = server,
        .warmup = b->quick ? 0.1 : 0.15, .seconds = b->quick ? 0.3 : 0.5,
        .cpus = { b->cpu_load }, .cpus_n = 1,
    };
    int r = bench_load_run(b, addr, &load, &got);
    if (r < 0)
        return r;
    bench_add(&side->cpu, got.cpu_ns_per_req * (MIB / MESSAGE));
    bench_add(&side->rate, got.req_per_s * MESSAGE / 1e6);
    return 0;
}

static void run_stream(struct bench *b, const struct bench_case *c)
{
    static struct sides s;
    s.n = 0;
    side_add(b, &s, "reeve", "stream_reeve");
    side_add(b, &s, "raw_uring", "raw_uring");
    side_add(b, &s, "raw_epoll", "raw_epoll");
    compare(b, c, &s, load_stream, "cpu_ns_per_mib", "mb_per_s");
}

/* ---- datagrams, and the clients of Unix sockets ---------------------------------------------- */

static void run_unix(struct bench *b, const struct bench_case *c);

/* The load is this very process: a closed loop of clients, each with a socket and one request. */
struct clients {
    int ep, n;
    bool lossy; /* what is not answered for long is asked again */
    int fd[CLIENTS_MAX];
    uint64_t sent[CLIENTS_MAX]; /* the number of the request under way; 0: none */
    uint64_t number, answered;
};

static int ask(struct clients *c, int i)
{
    uint64_t request[REQUEST / sizeof(uint64_t)] = { c->sent[i], (uint64_t)i };
    return send(c->fd[i], request, sizeof request, 0) == sizeof request ? 0 : -errno;
}

static int ask_next(struct clients *c, int i)
{
    c->sent[i] = ++c->number;
    return ask(c, i);
}

/* An answer, if it is the one that is awaited: a late one of a repeated request is not. */
static int hear(struct clients *c, int i)
{
    uint64_t answer[REQUEST / sizeof(uint64_t)];
    ssize_t n = recv(c->fd[i], answer, sizeof answer, 0);
    if (n < 0)
        return errno == EAGAIN ? 0 : -errno;
    if (n != sizeof answer || answer[1] != (uint64_t)i)
        return -EPROTO;
    if (answer[0] != c->sent[i])
        return 0;
    c->sent[i] = 0;
    c->answered++;
    return 1;
}

static int ask_again(struct clients *c)
{
    int r = 0;
    for (int i = 0; i < c->n && r == 0; i++)
        if (c->sent[i])
            r = ask(c, i);
    return r;
}

/* Until `end` clients ask anew when they are answered; then only the answers are awaited. */
static int run_clients(struct clients *c, int64_t end)
{
    int under_way = 0, lost = 0, r = 0;
    for (; under_way < c->n && r == 0; under_way++)
        r = ask_next(c, under_way);
    while (under_way > 0 && r == 0) {
        struct epoll_event events[CLIENTS_MAX];
        int n = epoll_wait(c->ep, events, CLIENTS_MAX, LOST_MS);
        if (n == 0)
            r = ++lost == LOST_MAX ? -ETIMEDOUT : c->lossy ? ask_again(c) : 0;
        bool more = bench_now() < end;
        for (int k = 0; k < n && r == 0; k++) {
            int i = (int)events[k].data.u32, heard = hear(c, i);
            r = heard < 0 ? heard : heard && more ? ask_next(c, i) : 0;
            under_way -= heard > 0 && !more;
        }
    }
    return r;
}

/* A client's socket, connected. -errno. */
static int open_client(const struct sockaddr *to, socklen_t len, int type)
{
    int fd = socket(to->sa_family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && connect(fd, to, len) < 0) {
        int r = -errno;
        close(fd);
        return r;
    }
    return fd < 0 ? -errno : fd;
}

static int open_clients(struct clients *c, int n, const struct sockaddr *to, socklen_t len,
                        int type)
{
    *c = (struct clients){ .ep = epoll_create1(EPOLL_CLOEXEC), .lossy = type == SOCK_DGRAM };
    if (c->ep < 0)
        return -errno;
    while (c->n < n) {
        struct epoll_event ev = { .events = EPOLLIN, .data.u32 = (uint32_t)c->n };
        int fd = c->fd[c->n] = open_client(to, len, type);
        if (fd < 0)
            return fd;
        c->n++;
        if (epoll_ctl(c->ep, EPOLL_CTL_ADD, fd, &ev) < 0)
            return -errno;
    }
    return 0;
}

static int open_udp(struct clients *c, int n, const char *addr)
{
    struct sockaddr_in to = { .sin_family = AF_INET };
    char host[64];
    const char *colon = strrchr(addr, ':');
    snprintf(host, sizeof host, "%.*s", (int)(colon - addr), addr);
    to.sin_port = htons((uint16_t)atoi(colon + 1));
    if (inet_pton(AF_INET, host, &to.sin_addr) != 1)
        return -EINVAL;
    return open_clients(c, n, (struct sockaddr *)&to, sizeof to, SOCK_DGRAM);
}

/* Where the server of a Unix case listens: a name of this process's own, which is no file. */
static char unix_name[32];

static int open_unix(struct clients *c, int n)
{
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    size_t len = strlen(unix_name);
    memcpy(to.sun_path + 1, unix_name, len); /* behind a 0 */
    return open_clients(c, n, (struct sockaddr *)&to,
                        (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + len),
                        SOCK_STREAM);
}

static int load_clients(struct bench *b, const struct bench_case *bc, const char *addr,
                        pid_t server, struct side *side)
{
    static struct clients c;
    int64_t second = 1000000000, warmup = second / 10, window = second * (b->quick ? 3 : 5) / 10;
    bench_pin(b->cpu_load);
    int r = bc->run == run_unix ? open_unix(&c, (int)bc->arg)
                                : open_udp(&c, (int)bc->arg, addr);
    if (r == 0)
        r = run_clients(&c, bench_now() + warmup);
    /* Nothing is under way at either end, so the server sleeps and its time is all accounted. */
    int64_t begun = bench_now();
    uint64_t cpu = bench_cpu_ns(server), answered = c.answered;
    if (r == 0)
        r = run_clients(&c, begun + window);
    double s = (double)(bench_now() - begun) / 1e9;
    cpu = bench_cpu_ns(server) - cpu;
    answered = c.answered - answered;
    for (int i = 0; i < c.n; i++)
        close(c.fd[i]);
    close(c.ep);
    if (r < 0 || answered == 0)
        return r < 0 ? r : -EIO;
    bench_add(&side->cpu, (double)cpu / (double)answered);
    bench_add(&side->rate, (double)answered / s);
    return 0;
}

static void run_udp(struct bench *b, const struct bench_case *c)
{
    static const char *const many[] = { "--many", NULL };
    static struct sides s;
    s.n = 0;
    side_add(b, &s, "reeve", "udp_reeve");
    side_add(b, &s, "raw_epoll", "raw_epoll_udp");
    if (c->ctx)
        s.v[0].more = s.v[1].more = many;
    compare(b, c, &s, load_clients, "cpu_ns_per_req", "req_per_s");
}

/* ---- Unix sockets ---------------------------------------------------------------------------- */

static void run_unix(struct bench *b, const struct bench_case *c)
{
    static char where[48];
    static const char *const more[] = { "--unix", where, NULL };
    static struct sides s;
    snprintf(unix_name, sizeof unix_name, "reeve-bench-%d", (int)getpid());
    snprintf(where, sizeof where, "unix:@%s", unix_name);
    s.n = 0;
    side_add(b, &s, "reeve", "stream_reeve");
    side_add(b, &s, "raw_epoll", "raw_epoll");
    s.v[0].more = s.v[1].more = more;
    compare(b, c, &s, load_clients, "cpu_ns_per_req", "req_per_s");
}

int main(int argc, char **argv)
{
    static const struct bench_case cases[] = {
        { .name = "stream64K_x4", .run = run_stream, .arg = 4 },
        { .name = "udp_echo", .run = run_udp, .arg = 50 },
        { .name = "udp_echo_many", .run = run_udp, .arg = 50, .ctx = "many" },
        { .name = "udp_echo_x1", .run = run_udp, .arg = 1 },
        { .name = "unix_echo", .run = run_unix, .arg = 50 },
        { .name = "unix_echo_x1", .run = run_unix, .arg = 1 },
    };
    static const struct bench_program program = {
        .name = "net", .cases = cases, .cases_n = sizeof cases / sizeof cases[0],
    };
    return bench_main(&program, argc, argv);
}
