/* SPDX-License-Identifier: MIT */
/*
 * echo_load.c -- loads an echo server: every byte checked, latency percentiles.
 *
 *     echo_load 127.0.0.1:7000 --conns 500 --seconds 5 --cpu 1
 *     echo_load 127.0.0.1:7000 --conns 64 --rate 5000             open loop: latency from when due
 *     echo_load 127.0.0.1:7000 --idle 10000 --conns 0 --seconds 60
 *     echo_load 127.0.0.1:7000 --pid $(pidof echo)       adds the server's CPU time per request
 *
 * It is a program of its own, in plain C over epoll, so that it measures any server alike. It has
 * to be cheap itself: per request one recv, one send, two clock reads, one compare, no allocation.
 * What is in which file is said in echo_load.h; this one holds the command line, the threads and
 * the report.
 *
 * Threads: `config` is written before they start; what each one measured is added up when they
 * have ended.
 */
#include "echo_load.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

enum {
    CONNS_MAX = 1000000,
    SIZE_MAX_BYTES = 64 << 20,
    RATE_MAX = 100000000,
    QUEUE_MAX = 1 << 20,
    SPIN_US_MAX = 10000000,
};

struct config config = {
    .conns = 50, .size = 64, .threads = 1, .seconds = 5, .warmup = 1,
    .poisson = true, .seed = 1, .queue = 1024, .nice = NICE_AS_IS,
};
struct addrinfo *target;
atomic_bool interrupted;

_Noreturn void die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("echo_load: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(1);
}

/* ---- the command line ------------------------------------------------------------------------ */

static const char usage[] =
    "usage: echo_load HOST:PORT [options]\n"
    "  --conns N      connections that send (50)\n"
    "  --size BYTES   message size (64)\n"
    "  --seconds S    measured time (5), after\n"
    "  --warmup S     time that does not count (1)\n"
    "  --threads N    threads that share the connections (1)\n"
    "  --cpu LIST     thread i runs on the i-th of these CPUs: --cpu 1 or --cpu 2,3\n"
    "  --idle N       open N more connections, one exchange each, and hold them\n"
    "  --pid PID      also report that process's CPU time per request\n"
    "  --histogram    print the latencies' distribution\n"
    "  --json         print one JSON object (after one when all connections are open)\n"
    "  --nice N       run at this niceness, -20 .. 19, and preempt quickly\n"
    "Open loop: latency counts from when a request was due, sent or not.\n"
    "  --rate R       so many requests per second, all connections together\n"
    "  --arrivals A   poisson: random gaps and connections (the default); constant: equal gaps,\n"
    "                 connections in turn\n"
    "  --seed N       the same schedule again (1)\n"
    "  --queue N      requests that a connection may have under way; more are dropped (1024)\n"
    "For servers that spin when asked: the first 4 bytes of a message, the lowest first, are the\n"
    "microseconds of CPU time to spend before the reply.\n"
    "  --spin US      what messages that ask to spin ask for, and\n"
    "  --share F      the share of messages that do, 0 .. 1\n"
    "  --spread S     which they are: random (the default), or evenly spread\n"
    "  --self-test    check the histogram and the schedule, no server needed\n"
    "Ends early on SIGINT or SIGTERM. Exit status 1 if anything went wrong.\n";

static int64_t number(const char *option, const char *value, int64_t min, int64_t max)
{
    char *end;
    errno = 0;
    int64_t n = strtoll(value, &end, 10);
    if (errno || end == value || *end || n < min || n > max)
        die("%s takes a whole number from %" PRId64 " to %" PRId64 ", not '%s'", option, min, max,
            value);
    return n;
}

static double real(const char *option, const char *value, double min, double max)
{
    char *end;
    double x = strtod(value, &end);
    if (end == value || *end || !(x >= min && x <= max))
        die("%s takes a number from %g to %g, not '%s'", option, min, max, value);
    return x;
}

static void parse_cpus(const char *list)
{
    for (const char *s = list;;) {
        char *end;
        long cpu = strtol(s, &end, 10);
        if (end == s || cpu < 0 || cpu >= CPU_SETSIZE || (*end && *end != ',') ||
            config.cpus_n == THREADS_MAX)
            die("--cpu takes numbers with commas between them, not '%s'", list);
        config.cpus[config.cpus_n++] = (int)cpu;
        if (!*end)
            return;
        s = end + 1;
    }
}

static void parse_arrivals(const char *value)
{
    config.poisson = !strcmp(value, "poisson");
    if (!config.poisson && strcmp(value, "constant") != 0)
        die("--arrivals takes poisson or constant, not '%s'", value);
}

static void parse_spread(const char *value)
{
    config.spin_even = !strcmp(value, "even");
    if (!config.spin_even && strcmp(value, "random") != 0)
        die("--spread takes random or even, not '%s'", value);
}

static bool parse_whole(const char *option, const char *value)
{
    const struct {
        const char *name;
        int64_t *to, min, max;
    } options[] = {
        { "--conns", &config.conns, 0, CONNS_MAX },
        { "--size", &config.size, 1, SIZE_MAX_BYTES },
        { "--threads", &config.threads, 1, THREADS_MAX },
        { "--idle", &config.idle, 0, CONNS_MAX },
        { "--pid", &config.pid, 1, INT32_MAX },
        { "--seed", &config.seed, 0, INT64_MAX },
        { "--queue", &config.queue, 1, QUEUE_MAX },
        { "--spin", &config.spin_us, 1, SPIN_US_MAX },
        { "--nice", &config.nice, -20, 19 },
    };
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
        if (!strcmp(option, options[i].name)) {
            *options[i].to = number(option, value, options[i].min, options[i].max);
            return true;
        }
    return false;
}

static void parse_value(const char *option, const char *value)
{
    if (parse_whole(option, value))
        return;
    if (!strcmp(option, "--seconds"))
        config.seconds = real(option, value, 0.01, 86400);
    else if (!strcmp(option, "--warmup"))
        config.warmup = real(option, value, 0, 86400);
    else if (!strcmp(option, "--rate"))
        config.rate = real(option, value, 0.01, RATE_MAX);
    else if (!strcmp(option, "--share"))
        config.spin_share = real(option, value, 0, 1);
    else if (!strcmp(option, "--arrivals"))
        parse_arrivals(value);
    else if (!strcmp(option, "--spread"))
        parse_spread(value);
    else if (!strcmp(option, "--cpu"))
        parse_cpus(value);
    else
        die("there is no option %s\n%s", option, usage);
}

static void check_config(void)
{
    if (!config.addr)
        die("which server? give its address as HOST:PORT\n%s", usage);
    if (!config.conns && !config.idle)
        die("--conns 0 without --idle would do nothing");
    if (!config.spin_us != (config.spin_share == 0))
        die("--spin and --share need each other");
    if (config.spin_us && (config.size < SPIN_HEADER || config.size > SPIN_SIZE_MAX))
        die("with --spin, --size is from %d to %d", SPIN_HEADER, SPIN_SIZE_MAX);
    if (config.spin_us && config.idle)
        die("--idle sends messages without a spin time; not together with --spin");
    if (config.rate > 0 && config.conns && config.conns * config.queue > INT64_C(1) << 28)
        die("%" PRId64 " connections with %" PRId64 " requests under way each are too many: "
            "lower --queue", config.conns, config.queue);
    if (config.threads > config.conns)
        config.threads = config.conns ? config.conns : 1;
}

static void parse(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            fputs(usage, stdout);
            exit(0);
        } else if (!strcmp(argv[i], "--self-test")) {
            exit(self_test());
        } else if (!strcmp(argv[i], "--json")) {
            config.json = true;
        } else if (!strcmp(argv[i], "--histogram")) {
            config.histogram = true;
        } else if (argv[i][0] != '-') {
            if (config.addr)
                die("two addresses: %s and %s", config.addr, argv[i]);
            config.addr = argv[i];
        } else if (i + 1 == argc) {
            die("%s is the last word: an option lacks its value\n%s", argv[i], usage);
        } else {
            parse_value(argv[i], argv[i + 1]);
            i++;
        }
    }
    check_config();
}

static void resolve(void)
{
    char host[256];
    const char *colon = strrchr(config.addr, ':');
    if (!colon || colon == config.addr || !colon[1])
        die("'%s' is not an address; write HOST:PORT, like 127.0.0.1:7000", config.addr);
    size_t len = (size_t)(colon - config.addr);
    bool bracketed = config.addr[0] == '[' && config.addr[len - 1] == ']';
    snprintf(host, sizeof host, "%.*s", (int)(bracketed ? len - 2 : len), config.addr + bracketed);
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
    int r = getaddrinfo(host, colon + 1, &hints, &target);
    if (r)
        die("cannot resolve %s: %s", config.addr, gai_strerror(r));
}

static void files_max(void)
{
    struct rlimit lim;
    getrlimit(RLIMIT_NOFILE, &lim);
    lim.rlim_cur = lim.rlim_max;
    setrlimit(RLIMIT_NOFILE, &lim);
    if (lim.rlim_cur != RLIM_INFINITY &&
        (rlim_t)(config.conns + config.idle + config.threads + 16) > lim.rlim_cur)
        die("%" PRId64 " connections need more descriptors than the limit of %llu (ulimit -Hn)",
            config.conns + config.idle, (unsigned long long)lim.rlim_cur);
}

/* ---- the report ------------------------------------------------------------------------------ */

/* One line per quarter of a power of two, empty ones left out. */
static void print_histogram(const struct histogram *h)
{
    uint64_t seen = 0;
    for (unsigned i = 0; i < BUCKETS; i += SUB / 4) {
        uint64_t n = 0;
        for (unsigned k = i; k < i + SUB / 4 && k < BUCKETS; k++)
            n += h->buckets[k];
        if (!n)
            continue;
        seen += n;
        double share = (double)n / (double)h->count;
        printf("  %10.1f us %10" PRIu64 " %8.4f %% ", (double)bucket_low(i) / 1e3, n,
               100 * (double)seen / (double)h->count);
        for (int bar = (int)(share * 100); bar > 0; bar--)
            putchar('#');
        putchar('\n');
    }
}

static double at_us(const struct histogram *h, double share)
{
    return histogram_at(h, share) / 1e3;
}

/* `plain` is the latency of the requests that did not ask to spin, t->latency that of all. */
static void report_json(const struct loader *t, const struct histogram *plain, uint64_t idle_closed)
{
    const struct histogram *h = &t->latency;
    double s = (double)t->measured_ns / 1e9, n = h->count ? (double)h->count : 1;
    printf("{\"conns\":%" PRId64 ",\"idle\":%" PRId64 ",\"size\":%" PRId64 ",\"seconds\":%.3f,"
           "\"requests\":%" PRIu64 ",\"requests_all\":%" PRIu64 ",\"errors\":%" PRIu64
           ",\"idle_closed\":%" PRIu64,
           config.conns, config.idle, config.size, s, h->count,
           t->requests_all + (uint64_t)config.idle, t->errors, idle_closed);
    printf(",\"req_per_s\":%.0f,\"p50_us\":%.2f,\"p90_us\":%.2f,\"p99_us\":%.2f,\"p999_us\":%.2f,"
           "\"max_us\":%.2f,\"load_cpu_ns_per_req\":%.0f",
           s > 0 ? (double)h->count / s : 0, at_us(h, 0.5), at_us(h, 0.9), at_us(h, 0.99),
           at_us(h, 0.999), (double)h->max / 1e3, (double)t->cpu_ns / n);
    if (config.pid)
        printf(",\"server_cpu_ns_per_req\":%.1f,\"cpu_clock\":\"%s\"",
               (double)t->server_cpu_ns / n, meter_name());
    if (config.rate > 0)
        printf(",\"rate\":%.1f,\"arrivals\":\"%s\",\"dropped\":%" PRIu64
               ",\"lag_p50_us\":%.2f,\"lag_p99_us\":%.2f,\"lag_max_us\":%.2f",
               config.rate, config.poisson ? "poisson" : "constant", t->dropped,
               at_us(&t->lag, 0.5), at_us(&t->lag, 0.99), (double)t->lag.max / 1e3);
    if (config.spin_us)
        printf(",\"spun\":%" PRIu64 ",\"plain_p50_us\":%.2f,\"plain_p99_us\":%.2f,"
               "\"plain_p999_us\":%.2f,\"plain_max_us\":%.2f",
               t->spun.count, at_us(plain, 0.5), at_us(plain, 0.99), at_us(plain, 0.999),
               (double)plain->max / 1e3);
    puts("}");
}

static void print_percentiles(const char *what, const struct histogram *h)
{
    printf("  %-11s p50 %.1f us   p90 %.1f us   p99 %.1f us   p99.9 %.1f us   max %.1f us\n", what,
           at_us(h, 0.5), at_us(h, 0.9), at_us(h, 0.99), at_us(h, 0.999), (double)h->max / 1e3);
}

static void report_text(const struct loader *t, const struct histogram *plain, uint64_t idle_closed)
{
    const struct histogram *h = &t->latency;
    double s = (double)t->measured_ns / 1e9, n = h->count ? (double)h->count : 1;
    printf("%s: %" PRId64 " connections, messages of %" PRId64 " bytes, %.2f s", config.addr,
           config.conns, config.size, s);
    if (config.idle)
        printf(", %" PRId64 " more held idle (%" PRIu64 " closed by the server)", config.idle,
               idle_closed);
    printf("\n  requests/s  %.0f\n", s > 0 ? (double)h->count / s : 0);
    print_percentiles("latency", h);
    if (config.spin_us) {
        print_percentiles("plain", plain);
        print_percentiles("spun", &t->spun);
        printf("  share spun  %.2f %%\n", 100 * (double)t->spun.count / n);
    }
    if (config.rate > 0) {
        print_percentiles("load's lag", &t->lag);
        printf("  dropped     %" PRIu64 "\n", t->dropped);
    }
    if (config.pid)
        printf("  server CPU  %.0f ns per request, %.0f %% of one CPU (%s)\n",
               (double)t->server_cpu_ns / n, (double)t->server_cpu_ns / 1e7 / s, meter_name());
    printf("  load CPU    %.0f ns per request\n", (double)t->cpu_ns / n);
    printf("  errors      %" PRIu64 "\n", t->errors);
    if (config.histogram)
        print_histogram(h);
}

static void report(struct loader *t, uint64_t idle_closed)
{
    static struct histogram plain;
    plain = t->latency;
    histogram_merge(&t->latency, &t->spun);
    (config.json ? report_json : report_text)(t, &plain, idle_closed);
    if (t->dropped)
        fprintf(stderr, "echo_load: %" PRIu64 " requests were dropped: the percentiles are those "
                "of the others\n", t->dropped);
    if (t->errors)
        fprintf(stderr, "echo_load: %" PRIu64 " errors, the first: %s\n", t->errors,
                t->first_error);
}

/* ---- the run --------------------------------------------------------------------------------- */

static void on_signal(int signo)
{
    (void)signo;
    interrupted = true;
}

/* How many of the idle connections the server has closed meanwhile. */
static uint64_t idle_closed(const int *fds)
{
    uint64_t closed = 0;
    for (int64_t i = 0; i < config.idle; i++) {
        char byte;
        ssize_t n = recv(fds[i], &byte, 1, MSG_DONTWAIT | MSG_PEEK);
        closed += n == 0 || (n < 0 && errno != EAGAIN);
    }
    return closed;
}

static int *idle_open_all(void)
{
    int *fds = calloc((size_t)config.idle + 1, sizeof *fds);
    unsigned char *reply = malloc((size_t)config.size);
    if (!fds || !reply)
        die("out of memory");
    for (int64_t i = 0; i < config.idle; i++)
        fds[i] = idle_open(reply);
    free(reply);
    return fds;
}

static void add_up(struct loader *t, const struct loader *l)
{
    histogram_merge(&t->latency, &l->latency);
    histogram_merge(&t->spun, &l->spun);
    histogram_merge(&t->lag, &l->lag);
    t->requests_all += l->requests_all;
    t->dropped += l->dropped;
    t->cpu_ns += l->cpu_ns;
    if (!t->errors)
        memcpy(t->first_error, l->first_error, sizeof t->first_error);
    t->errors += l->errors;
}

static void run_all(struct loader *loaders)
{
    loop_init();
    for (int64_t i = 0; i < config.threads; i++) {
        struct loader *l = &loaders[i];
        l->index = (int)i;
        l->conns_n = (uint32_t)(config.conns / config.threads);
        l->conns_n += i < config.conns % config.threads;
        l->conns = calloc(l->conns_n + 1, sizeof *l->conns);
        if (!l->conns)
            die("out of memory");
        if (i && pthread_create(&l->thread, NULL, loader_run, l))
            die("cannot start thread %d", (int)i);
    }
    loader_run(&loaders[0]);
    for (int64_t i = 1; i < config.threads; i++) {
        pthread_join(loaders[i].thread, NULL);
        add_up(&loaders[0], &loaders[i]);
    }
}

static void clean_up(struct loader *loaders, int *idle)
{
    for (int64_t i = 0; i < config.threads; i++) {
        free(loaders[i].conns);
        free(loaders[i].requests);
        free(loaders[i].buf);
    }
    free(loaders);
    free(idle);
    free(pattern);
    freeaddrinfo(target);
}

int main(int argc, char **argv)
{
    parse(argc, argv);
    resolve();
    files_max();
    pattern_make();
    struct sigaction sa = { .sa_handler = on_signal }; /* no SA_RESTART: waits end at once */
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    struct loader *loaders = calloc((size_t)config.threads, sizeof *loaders);
    if (!loaders)
        die("out of memory");
    if (config.pid)
        meter_open();
    int *idle = idle_open_all();
    run_all(loaders);
    report(&loaders[0], idle_closed(idle));
    bool failed = loaders[0].errors != 0;
    clean_up(loaders, idle); /* sockets are closed by the exit */
    return failed;
}
