/* SPDX-License-Identifier: MIT */
/*
 * raw.h -- what these servers share: their command line, their listening socket, their CPUs.
 *
 * A header of static inlines, so that each server stays one translation unit that reads from top to
 * bottom. Nothing here runs per request.
 */
#ifndef TESTS_BENCH_PEERS_RAW_H
#define TESTS_BENCH_PEERS_RAW_H

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { RAW_THREADS_MAX = 64 };

struct raw_opts {
    const char *addr;
    const char *unix_addr; /* "unix:@NAME": where to listen instead */
    int threads;
    int cpus[RAW_THREADS_MAX]; /* thread i runs on cpus[i % cpus_n]; none: wherever it likes */
    int cpus_n;
    size_t stall_bytes; /* not 0: requests of this size may ask to spin (stall.h) */
    bool rescue_off, stats; /* for those who have a rescue, or counters */
};

/** One sentence on stderr, exit 1. */
static inline _Noreturn void raw_die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    exit(1);
}

static inline void raw_parse_cpus(const char *prog, const char *list, struct raw_opts *o)
{
    for (const char *s = list; *s;) {
        char *end;
        long cpu = strtol(s, &end, 10);
        if (end == s || cpu < 0 || cpu >= CPU_SETSIZE || o->cpus_n == RAW_THREADS_MAX)
            raw_die("%s: --cpu takes numbers with commas between them, not '%s'", prog, list);
        o->cpus[o->cpus_n++] = (int)cpu;
        s = *end == ',' ? end + 1 : end;
    }
}

/** A whole number, or 0. */
static inline long raw_number(const char *text)
{
    char *end;
    long n = strtol(text, &end, 10);
    return *end ? 0 : n;
}

/** --workers is --threads: the echo example's command line works here too. */
static inline struct raw_opts raw_parse(int argc, char **argv)
{
    struct raw_opts o = { .threads = 1 };
    long stall = 0;
    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;
        if (more && (!strcmp(argv[i], "--threads") || !strcmp(argv[i], "--workers")))
            o.threads = (int)raw_number(argv[++i]);
        else if (more && !strcmp(argv[i], "--cpu"))
            raw_parse_cpus(argv[0], argv[++i], &o);
        else if (more && !strcmp(argv[i], "--stall"))
            stall = raw_number(argv[++i]);
        else if (more && !strcmp(argv[i], "--rescue"))
            o.rescue_off = !strcmp(argv[++i], "off");
        else if (more && !strcmp(argv[i], "--unix"))
            o.unix_addr = argv[++i];
        else if (!strcmp(argv[i], "--stats"))
            o.stats = true;
        else if (argv[i][0] != '-' && !o.addr)
            o.addr = argv[i];
        else
            raw_die("%s: what is '%s'? usage: HOST:PORT [--cpu LIST] [--threads N] "
                    "[--stall BYTES]", argv[0], argv[i]);
    }
    if (!o.addr || !strrchr(o.addr, ':'))
        raw_die("%s: usage: HOST:PORT [--unix unix:@NAME] [--cpu LIST] [--threads N]", argv[0]);
    if (o.threads < 1 || o.threads > RAW_THREADS_MAX)
        raw_die("%s: --threads must be between 1 and %d", argv[0], RAW_THREADS_MAX);
    if (stall != 0 && (stall < 4 || stall > 4096))
        raw_die("%s: --stall takes the size of a request, 4 to 4096", argv[0]);
    o.stall_bytes = (size_t)stall;
    if (o.unix_addr)
        o.addr = o.unix_addr;
    return o;
}

static inline int raw_listen_unix(const char *name)
{
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    size_t len = strlen(name);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (len >= sizeof to.sun_path - 1)
        raw_die("unix:@%s is too long", name);
    memcpy(to.sun_path + 1, name, len);
    socklen_t to_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + len);
    if (fd < 0 || bind(fd, (struct sockaddr *)&to, to_len) < 0 || listen(fd, 4096) < 0)
        raw_die("cannot listen on unix:@%s: %s", name, strerror(errno));
    return fd;
}

/** The listening socket. What is accepted inherits TCP_NODELAY, so it costs no call there. */
static inline int raw_listen(const char *addr)
{
    if (!strncmp(addr, "unix:@", 6))
        return raw_listen_unix(addr + 6);
    char host[256];
    const char *colon = strrchr(addr, ':');
    size_t len = (size_t)(colon - addr);
    bool bracketed = len >= 2 && addr[0] == '[' && addr[len - 1] == ']';
    snprintf(host, sizeof host, "%.*s", (int)(bracketed ? len - 2 : len), addr + bracketed);
    struct addrinfo *ai, hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
    int r = getaddrinfo(host, colon + 1, &hints, &ai);
    if (r)
        raw_die("cannot resolve %s: %s", addr, gai_strerror(r));
    int one = 1, fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) < 0 ||
        bind(fd, ai->ai_addr, ai->ai_addrlen) < 0 || listen(fd, 4096) < 0)
        raw_die("cannot listen on %s: %s", addr, strerror(errno));
    freeaddrinfo(ai);
    return fd;
}

/** Says that clients may connect; the port is the real one, also when 0 was asked for. */
static inline void raw_announce(int fd)
{
    struct sockaddr_storage ss;
    socklen_t len = sizeof ss;
    char host[128], port[16];
    if (getsockname(fd, (struct sockaddr *)&ss, &len) == 0 && ss.ss_family == AF_UNIX) {
        const char *name = ((struct sockaddr_un *)&ss)->sun_path + 1;
        size_t head = offsetof(struct sockaddr_un, sun_path) + 1;
        printf("listening on unix:@%.*s\n", (int)(len - head), name);
        fflush(stdout);
        return;
    }
    if (getnameinfo((struct sockaddr *)&ss, len, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV))
        raw_die("cannot tell the address of the listening socket");
    printf(strchr(host, ':') ? "listening on [%s]:%s\n" : "listening on %s:%s\n", host, port);
    fflush(stdout);
}

static inline void raw_pin(const struct raw_opts *o, int thread)
{
    if (!o->cpus_n)
        return;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(o->cpus[thread % o->cpus_n], &set);
    if (sched_setaffinity(0, sizeof set, &set) < 0)
        raw_die("cannot run on CPU %d: %s", o->cpus[thread % o->cpus_n], strerror(errno));
}

/** Raises the descriptor limit to the hard one and returns it: the table has that many rows. */
static inline size_t raw_fds_max(void)
{
    struct rlimit lim;
    if (getrlimit(RLIMIT_NOFILE, &lim) < 0)
        raw_die("getrlimit: %s", strerror(errno));
    lim.rlim_cur = lim.rlim_max < 1048576 ? lim.rlim_max : 1048576;
    if (setrlimit(RLIMIT_NOFILE, &lim) < 0)
        raw_die("setrlimit: %s", strerror(errno));
    return (size_t)lim.rlim_cur;
}

/** SIGTERM and SIGINT as a descriptor, which the loop watches like any other. */
static inline int raw_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        raw_die("signalfd: %s", strerror(errno));
    return fd;
}

#endif
