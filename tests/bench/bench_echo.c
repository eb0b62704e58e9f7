/* SPDX-License-Identifier: MIT */
/*
 * bench_echo.c -- the echo server against raw io_uring and raw epoll, on one CPU each.
 *
 *     bench_echo [--json] [--quick] [--peers] [--case NAME]... [--server PATH] [--demo]
 *
 * Server and load are processes of their own, the server pinned to the first CPU, the load to the
 * second. A round starts each server in turn, loads it for the same time, and stops it; the figure
 * that counts is the server's CPU time per request, because it does not depend on how fast the load
 * is. Rounds are short and many, not long and few: the speed of a machine drifts within seconds,
 * and only what was measured close together can be compared.
 *
 *     case          connections  what it is about
 *     64B_x1                  1  latency: two sleeps and two wakes per request
 *     64B_x50                50  moderate batches
 *     64B_x500              500  a saturated server, large batches
 *     64B_x500_w2           500  two workers against one; the load shares their CPUs
 *     idle_10k            10000  resident memory per connection that is doing nothing
 *     allocs                500  two workers: how often the library asks for memory, per request,
 *                                once it is warm; 64B_x50 and 64B_x500 say that of one worker
 *     stall_64pct            64  handlers that compute: open loop, many stalls of 1 ms
 *     stall_rare             64  open loop, rare stalls of 20 ms: what they do to the others
 *     idle_wakeups          100  how often a server wakes while nothing happens
 */
#include "tests/bench/harness.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { SIDES_MAX = 5, STOP_MS = 10000, LAG_MAX_US = 1000 };

/* One server in a comparison, and what was measured of it. */
struct side {
    const char *name; /* as JSON calls the peer; reeve comes first */
    char path[BENCH_PATH + 64];
    int workers;
    bool stats; /* takes --stats, prints "enters" */
    const char *const *more; /* further arguments */
    struct bench_samples cpu, rate, p50, p99, p999, enters;
};

struct sides {
    struct side v[SIDES_MAX];
    int n;
};

static const char *server_override;
static bool demo;
static int stall_workers = 2;

static struct side *side_add(struct sides *s, const char *name, const char *path)
{
    struct side *side = &s->v[s->n++];
    *side = (struct side){ .name = name, .workers = 1 };
    snprintf(side->path, sizeof side->path, "%s", path);
    return side;
}

static void add_reeve(struct bench *b, struct sides *s, const char *name, int workers)
{
    char path[BENCH_PATH + 64];
    snprintf(path, sizeof path, "%s/../../examples/echo", b->bindir);
    struct side *side = side_add(s, name, server_override ? server_override : path);
    side->workers = workers;
    side->stats = true;
}

static void add_raw(struct bench *b, struct sides *s, const char *name)
{
    char path[BENCH_PATH + 64];
    snprintf(path, sizeof path, "%s/%s", b->peerdir, name);
    side_add(s, name, path);
}

static void add_others(struct bench *b, struct sides *s)
{
    const char *tokio = bench_peer(b, "tokio_echo"), *go = bench_peer(b, "go_echo");
    if (tokio)
        side_add(s, "tokio", tokio);
    if (go)
        side_add(s, "go", go);
}

static int start(struct bench *b, struct bench_proc *p, const struct side *side,
                 const struct bench_load *load, bool shared, char addr[64])
{
    struct bench_server how = {
        .path = side->path, .workers = side->workers, .cpus = b->cpus, .cpus_n = side->workers,
        .stats = side->stats, .shared_cpu = shared, .realtime = load && load->realtime,
        .more = side->more,
    };
    return bench_server_start(b, p, &how, addr);
}

/* Stops a server and says so if it did not end the way a server should. */
static void stop(struct bench *b, struct bench_proc *p, const struct side *side)
{
    int status = bench_stop(p, SIGTERM, STOP_MS);
    if (status != 0 && status != -SIGTERM)
        bench_fail(b, side->path, "after SIGTERM it ended with status %d. It said: %s", status,
                   p->said);
}

/* Says what makes an open loop's latencies less than the truth about the server. */
static void check_load(const struct side *side, const struct bench_loaded *got)
{
    if (got->dropped > 0)
        fprintf(stderr, "note: %.0f requests to %s were dropped; percentiles are of the others\n",
                got->dropped, side->path);
    if (got->lag_p99_us > LAG_MAX_US)
        fprintf(stderr, "note: the load of %s was late itself, p99 %.0f us\n", side->path,
                got->lag_p99_us);
}

/* One server, loaded once. */
static int measure(struct bench *b, struct side *side, struct bench_load load, bool shared)
{
    struct bench_proc p;
    struct bench_loaded got;
    char addr[64];
    if (start(b, &p, side, &load, shared, addr) < 0)
        return -EIO;
    load.watch = p.pid;
    int r = bench_load_run(b, addr, &load, &got);
    stop(b, &p, side);
    if (r < 0)
        return r;
    check_load(side, &got);
    bench_add(&side->cpu, got.cpu_ns_per_req);
    bench_add(&side->rate, got.req_per_s);
    bench_add(&side->p50, got.p50_us);
    bench_add(&side->p99, got.p99_us);
    bench_add(&side->p999, got.p999_us);
    double enters = bench_number(p.said, "enters", -1);
    if (enters >= 0 && got.requests_all > 0)
        bench_add(&side->enters, enters / got.requests_all);
    return 0;
}

/* Rounds in which every side has its turn. False: reeve's server cannot be measured. */
static bool take_turns(struct bench *b, struct sides *s, const char *case_name,
                       const struct bench_load *common, int rounds, bool shared)
{
    struct bench_load load = *common;
    bool lost[SIDES_MAX] = { false };
    for (int round = 0; round < rounds && (round == 0 || bench_time_left(b)); round++)
        for (int i = 0; i < s->n; i++) {
            load.seed = round + 1; /* the same for every side */
            if (lost[i] || measure(b, &s->v[i], load, shared) == 0)
                continue;
            lost[i] = true;
            bench_fail(b, case_name, "%s could not be measured", s->v[i].path);
            if (i == 0)
                return false;
        }
    return true;
}

static void emit_all(struct bench *b, const char *case_name, const struct sides *s)
{
    const struct side *us = &s->v[0];
    for (int i = 1; i < s->n; i++)
        bench_emit(b, case_name, "cpu_ns_per_req", &us->cpu, s->v[i].name, &s->v[i].cpu);
    for (int i = 1; i < s->n; i++)
        bench_emit(b, case_name, "req_per_s", &us->rate, s->v[i].name, &s->v[i].rate);
    for (int i = 1; i < s->n; i++)
        bench_emit(b, case_name, "p50_us", &us->p50, s->v[i].name, &s->v[i].p50);
    for (int i = 1; i < s->n; i++)
        bench_emit(b, case_name, "p99_us", &us->p99, s->v[i].name, &s->v[i].p99);
    for (int i = 1; i < s->n; i++)
        bench_emit(b, case_name, "p999_us", &us->p999, s->v[i].name, &s->v[i].p999);
    for (int i = 1; i < s->n && us->enters.n; i++)
        if (s->v[i].enters.n)
            bench_emit(b, case_name, "enters_per_req", &us->enters, s->v[i].name,
                       &s->v[i].enters);
}

static struct bench_load echo_load(const struct bench *b, int conns, int threads)
{
    struct bench_load load = {
        .conns = conns, .threads = threads, .size = 64,
        .warmup = b->quick ? 0.1 : 0.15, .seconds = b->quick ? 0.3 : 0.5,
        .cpus = { b->cpu_load }, .cpus_n = 1,
    };
    return load;
}

/*
 * How often the library asks the allocator or the kernel for memory, by its own counter, in 100000
 * requests to a server that is warm (see peers/allocs_reeve.c, which counts).
 */
static void emit_allocs(struct bench *b, const char *case_name, int conns, int workers)
{
    static struct sides s;
    struct bench_proc server, holder;
    char addr[64];
    const char *counted;
    s.n = 0;
    add_raw(b, &s, "allocs_reeve");
    s.v[0].workers = workers;
    struct bench_load load = echo_load(b, conns, 1);
    load.warmup = 0;
    load.seconds = 600; /* it is stopped when there were enough */
    if (start(b, &server, &s.v[0], &load, workers > 1 || b->cpu_load == b->cpu_server, addr) < 0) {
        bench_fail(b, case_name, "%s could not be started", s.v[0].path);
        return;
    }
    int r = bench_load_start(b, &holder, addr, &load);
    if (r == 0) {
        r = bench_await(&server, "counted ", 60000, &counted);
        bench_stop(&holder, SIGTERM, STOP_MS);
    }
    if (r == 0)
        bench_emit_value(b, case_name, "allocs_per_req",
                         bench_number(counted, "heap_requests", -1) /
                             bench_number(counted, "requests", -1));
    else
        bench_fail(b, case_name, "%s did not get its requests: %s", s.v[0].path, strerror(-r));
    stop(b, &server, &s.v[0]);
}

static void run_allocs(struct bench *b, const struct bench_case *c)
{
    emit_allocs(b, c->name, (int)c->arg, b->cpus_n > 1 ? 2 : 1);
}

static void run_echo(struct bench *b, const struct bench_case *c)
{
    static struct sides s;
    s.n = 0;
    add_reeve(b, &s, "reeve", 1);
    add_raw(b, &s, "raw_uring");
    add_raw(b, &s, "raw_epoll");
    add_others(b, &s);
    struct bench_load load = echo_load(b, (int)c->arg, 1);
    if (take_turns(b, &s, c->name, &load, b->quick ? 3 : 21, b->cpu_load == b->cpu_server))
        emit_all(b, c->name, &s);
    if (c->arg > 1 && !server_override && bench_time_left(b)) /* one connection alone takes long */
        emit_allocs(b, c->name, (int)c->arg, 1);
}

/* Two load threads, one on each CPU, at a higher priority than the server; so for both sides. */
static void run_two_workers(struct bench *b, const struct bench_case *c)
{
    static struct sides s;
    if (b->cpu_load == b->cpu_server) {
        bench_skip(c->name, "it needs two CPUs");
        return;
    }
    s.n = 0;
    add_reeve(b, &s, "reeve", 2);
    add_reeve(b, &s, "one_worker", 1);
    struct bench_load load = echo_load(b, (int)c->arg, 2);
    load.cpus[0] = b->cpu_server;
    load.cpus[1] = b->cpu_load;
    load.cpus_n = 2;
    if (take_turns(b, &s, c->name, &load, b->quick ? 3 : 21, true))
        emit_all(b, c->name, &s);
}

/*
 * Requests that make the server compute, in an open loop; server and load share all CPUs, and the
 * load has the higher priority. `us` of computing for each request that asks for it, `share` of all
 * CPUs' time in total. If they are rare, they are spread evenly: two at once, which leave a server
 * of two threads nobody to answer, would be a matter of luck. Then the percentiles are those of the
 * requests that do not compute.
 */
static void run_stalls(struct bench *b, const char *case_name, int us, double share, bool rare)
{
    enum { CONNS_EACH = 32, RATE_EACH = 2500 };
    static const char *const raw[] = { "--stall", "64", NULL };
    static const char *const on[] = { "--stall", "64", "--rescue", "on", NULL };
    static const char *const off[] = { "--stall", "64", "--rescue", "off", NULL };
    static struct sides s;
    int n = stall_workers;
    if (b->cpus_n < n) {
        bench_skip(case_name, "it needs %d CPUs", n);
        return;
    }
    if (!b->realtime)
        bench_skip("real-time priority", "it is not permitted, so other programs' use of these "
                   "CPUs shows in the latencies of %s", case_name);
    s.n = 0;
    add_raw(b, &s, "stall_reeve");
    add_raw(b, &s, "stall_reeve");
    s.v[1].name = "rescue_off";
    add_raw(b, &s, "raw_epoll");
    s.v[0].more = on;
    s.v[1].more = off;
    s.v[2].more = raw;
    for (int i = 0; i < s.n; i++)
        s.v[i].workers = n;
    struct bench_load load = {
        .conns = CONNS_EACH * n, .threads = n, .size = 64, .cpus_n = n, .realtime = true,
        .warmup = 0.15, .seconds = b->quick ? 0.8 : 3, .rate = RATE_EACH * n,
        .spin_us = us, .share = share * 1e6 / us / RATE_EACH, .even = rare, .plain = rare,
    };
    memcpy(load.cpus, b->cpus, sizeof load.cpus);
    if (take_turns(b, &s, case_name, &load, b->quick ? 1 : 11, true))
        emit_all(b, case_name, &s);
}

static void run_stall_64pct(struct bench *b, const struct bench_case *c)
{
    run_stalls(b, c->name, 1000, 0.64, false);
}

static void run_stall_rare(struct bench *b, const struct bench_case *c)
{
    run_stalls(b, c->name, 20000, 0.05, true);
}

/* As many idle connections as were asked for, or as the descriptor limit allows. */
static int idle_possible(long wanted)
{
    struct rlimit lim;
    if (getrlimit(RLIMIT_NOFILE, &lim) < 0 || lim.rlim_max == RLIM_INFINITY)
        return (int)wanted;
    long most = (long)lim.rlim_max - 200;
    return (int)(wanted < most ? wanted : most);
}

/* Starts a server and, once it is warm, holds `idle` connections to it. */
static int hold_idle(struct bench *b, struct side *side, int idle, struct bench_proc *server,
                     struct bench_proc *holder, uint64_t *ret_rss_before)
{
    char addr[64];
    struct bench_loaded ignored;
    if (start(b, server, side, NULL, b->cpu_load == b->cpu_server, addr) < 0)
        return -EIO;
    struct bench_load warm = echo_load(b, 64, 1);
    struct bench_load hold = { .idle = idle, .seconds = 600, .cpus = { b->cpu_load }, .cpus_n = 1 };
    int r = bench_load_run(b, addr, &warm, &ignored);
    *ret_rss_before = bench_rss(server->pid);
    if (r == 0)
        r = bench_load_start(b, holder, addr, &hold);
    if (r < 0)
        stop(b, server, side);
    return r;
}

/*
 * What 10000 connections add to the server's resident memory. The server is warm before: buffers
 * and tables that it fills once are not what a connection costs.
 */
static void idle_memory(struct bench *b, struct side *side, int idle)
{
    struct bench_proc server, holder;
    uint64_t before;
    if (hold_idle(b, side, idle, &server, &holder, &before) < 0)
        return;
    double grown = (double)bench_rss(server.pid) - (double)before;
    bench_stop(&holder, SIGTERM, STOP_MS);
    stop(b, &server, side);
    bench_add(&side->p50, grown / idle);
}

static void run_idle_memory(struct bench *b, const struct bench_case *c)
{
    static struct sides s;
    s.n = 0;
    add_reeve(b, &s, "reeve", 1);
    add_others(b, &s);
    int idle = idle_possible(c->arg), rounds = b->quick ? 1 : 3;
    if (idle < c->arg)
        bench_skip("some of the idle connections", "the descriptor limit allows %d", idle);
    for (int round = 0; round < rounds; round++)
        for (int i = 0; i < s.n; i++)
            idle_memory(b, &s.v[i], idle);
    if (!s.v[0].p50.n) {
        bench_fail(b, c->name, "%s could not be measured", s.v[0].path);
        return;
    }
    if (s.n == 1)
        bench_emit(b, c->name, "rss_bytes", &s.v[0].p50, NULL, NULL);
    for (int i = 1; i < s.n; i++)
        bench_emit(b, c->name, "rss_bytes", &s.v[0].p50, s.v[i].name, &s.v[i].p50);
}

/* Voluntary switches of a server that holds connections on which nothing happens. */
static void run_idle_wakeups(struct bench *b, const struct bench_case *c)
{
    static struct sides s;
    struct bench_proc server, holder;
    uint64_t unused;
    s.n = 0;
    add_reeve(b, &s, "reeve", 1);
    if (hold_idle(b, &s.v[0], (int)c->arg, &server, &holder, &unused) < 0) {
        bench_fail(b, c->name, "%s could not be measured", s.v[0].path);
        return;
    }
    poll(NULL, 0, 200); /* what the last exchange set going has come to rest */
    int64_t begun = bench_now();
    uint64_t switches = bench_switches(server.pid), cpu = bench_cpu_ns(server.pid);
    poll(NULL, 0, 3000);
    double s_passed = (double)(bench_now() - begun) / 1e9;
    switches = bench_switches(server.pid) - switches;
    cpu = bench_cpu_ns(server.pid) - cpu;
    bench_stop(&holder, SIGTERM, STOP_MS);
    stop(b, &server, &s.v[0]);
    bench_emit_value(b, c->name, "wakeups_per_s", (double)switches / s_passed);
    if (!b->json)
        printf("%-16s CPU time in these %.1f s: %.1f us\n", c->name, s_passed, (double)cpu / 1e3);
}

static void demo_table(struct sides *s, int conns)
{
    printf("\n%d connections   requests/s   p50 us   p99 us  p99.9 us   CPU ns/request\n", conns);
    for (int i = 0; i < s->n; i++) {
        const struct side *x = &s->v[i];
        printf("  %-14s %12.0f %8.0f %8.0f %9.0f %16.0f\n", x->name, bench_median(&x->rate),
               bench_median(&x->p50), bench_median(&x->p99), bench_median(&x->p999),
               bench_median(&x->cpu));
    }
    printf("  reeve's CPU time per request is");
    for (int i = 1; i < s->n; i++)
        printf("%s %.2f x that of %s", i > 1 ? "," : "",
               bench_median(&s->v[0].cpu) / bench_median(&s->v[i].cpu), s->v[i].name);
    printf(".\n");
}

/* A comparison to look at: 50 and 500 connections, 15 to 20 seconds. */
static bool run_demo(struct bench *b)
{
    static struct sides s;
    static const int conns[] = { 50, 500 };
    if (!demo)
        return false;
    printf("Echo of 64 bytes: reeve, raw io_uring and raw epoll in turns, the server on CPU %d,\n"
           "the load on CPU %d; medians of 5 rounds. This takes about 15 seconds.\n",
           b->cpu_server, b->cpu_load);
    for (size_t i = 0; i < sizeof conns / sizeof conns[0]; i++) {
        s.n = 0;
        add_reeve(b, &s, "reeve", 1);
        add_raw(b, &s, "raw_uring");
        add_raw(b, &s, "raw_epoll");
        struct bench_load load = echo_load(b, conns[i], 1);
        load.warmup = 0.1;
        load.seconds = 0.35;
        fflush(stdout);
        if (!take_turns(b, &s, "the demo", &load, 5, b->cpu_load == b->cpu_server))
            return true;
        demo_table(&s, conns[i]);
    }
    printf("\nCompare the ratios, not the figures: they hold for this machine, this minute.\n"
           "Again, with more rounds and every case:  %s/bench_echo\n", b->bindir);
    return true;
}

static int option(const char *name, const char *value)
{
    if (!strcmp(name, "--demo")) {
        demo = true;
        return 1;
    }
    if (!strcmp(name, "--workers") && value) {
        stall_workers = atoi(value);
        if (stall_workers >= 1 && stall_workers <= BENCH_CPUS_MAX)
            return 2;
        fprintf(stderr, "bench_echo: --workers takes 1 to %d\n", BENCH_CPUS_MAX);
        exit(1);
    }
    if (!strcmp(name, "--server") && value) {
        server_override = value;
        return 2;
    }
    return 0;
}

int main(int argc, char **argv)
{
    static const struct bench_case cases[] = {
        { .name = "64B_x1", .run = run_echo, .arg = 1 },
        { .name = "64B_x50", .run = run_echo, .arg = 50 },
        { .name = "64B_x500", .run = run_echo, .arg = 500 },
        { .name = "64B_x500_w2", .run = run_two_workers, .arg = 500 },
        { .name = "allocs", .run = run_allocs, .arg = 500 },
        { .name = "stall_64pct", .run = run_stall_64pct },
        { .name = "stall_rare", .run = run_stall_rare },
        { .name = "idle_10k", .run = run_idle_memory, .arg = 10000 },
        { .name = "idle_wakeups", .run = run_idle_wakeups, .arg = 100 },
    };
    static const struct bench_program program = {
        .name = "echo", .cases = cases, .cases_n = sizeof cases / sizeof cases[0],
        .option = option, .instead = run_demo,
        .usage = "  --server PATH  measure this server instead of reeve's echo example\n"
                 "  --workers N  of the stall cases (2); load and connections grow with them\n"
                 "  --demo       a table to look at, in 15 to 20 seconds\n",
    };
    return bench_main(&program, argc, argv);
}
