/* SPDX-License-Identifier: MIT */
/*
 * sched_preset.c -- what the presets make of one server.
 *
 * An echo server that is told a preset and nothing else, on one CPU, the load on another. How many
 * requests a second it answers is measured with 64 connections that all ask as fast as they can;
 * how long they take, p50, p99 and p99.9, with 5 000 requests a second whatever the server does,
 * counted from when they were due, beside four tasks that always have work: who looks at its I/O
 * seldom then answers late. The three presets take turns, so the first case measures for all.
 */
#include "tests/bench/bench_sched.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>

enum { PRESETS = 3, CONNS = 64, RATE = 5000, STOP_MS = 10000 };

static const char *const names[PRESETS] = { "balanced", "throughput", "latency" };

static struct {
    struct bench_samples rate, p50, p99, p999;
} of[PRESETS];

/* The server under one load. */
static int load_once(struct bench *b, int preset, double rate, int seed,
                     struct bench_loaded *ret_got)
{
    char path[BENCH_PATH + 64], addr[64];
    const char *more[] = { "--preset", names[preset], "--chores", rate > 0 ? "4" : "0", NULL };
    struct bench_proc p;
    snprintf(path, sizeof path, "%s/preset_reeve", b->peerdir);
    struct bench_server server = {
        .path = path, .workers = 1, .cpus = &b->cpu_server, .cpus_n = 1, .more = more
    };
    struct bench_load load = { .conns = CONNS,
                               .rate = rate,
                               .seed = seed,
                               .warmup = 0.1,
                               .seconds = b->quick ? 0.4 : 2,
                               .cpus = { b->cpu_load },
                               .cpus_n = 1 };
    if (bench_server_start(b, &p, &server, addr) < 0)
        return -EIO;
    int r = bench_load_run(b, addr, &load, ret_got);
    int status = bench_stop(&p, SIGTERM, STOP_MS);
    if (status != 0)
        bench_fail(b, path, "it ended with status %d. It said: %s", status, p.said);
    return r < 0 || status != 0 ? -EIO : 0;
}

static int measure_all(struct bench *b)
{
    struct bench_loaded got;
    int rounds = b->quick ? 1 : 5;
    for (int round = 0; round < rounds; round++)
        for (int i = 0; i < PRESETS; i++) {
            if (load_once(b, i, 0, round + 1, &got) < 0)
                return -EIO;
            bench_add(&of[i].rate, got.req_per_s);
            if (load_once(b, i, RATE, round + 1, &got) < 0)
                return -EIO;
            bench_add(&of[i].p50, got.p50_us);
            bench_add(&of[i].p99, got.p99_us);
            bench_add(&of[i].p999, got.p999_us);
        }
    return 0;
}

void sched_preset(struct bench *b, const struct bench_case *c)
{
    static bool tried;
    if (!tried && measure_all(b) < 0)
        bench_fail(b, c->name, "the server or its load failed");
    tried = true;
    if (of[c->arg].p999.n == 0)
        return;
    bench_emit(b, c->name, "req_per_s", &of[c->arg].rate, NULL, NULL);
    bench_emit(b, c->name, "p50_us", &of[c->arg].p50, NULL, NULL);
    bench_emit(b, c->name, "p99_us", &of[c->arg].p99, NULL, NULL);
    bench_emit(b, c->name, "p999_us", &of[c->arg].p999, NULL, NULL);
}
