/* SPDX-License-Identifier: MIT */
/**
 * bench_sched.h -- what the files of bench_sched share: a runtime per process, a measured task.
 *
 * Each repetition of a case runs in a child process (see harness.h), whose one runtime lives as
 * long as it does: so the first round warms everything up.
 */
#ifndef TESTS_BENCH_BENCH_SCHED_H
#define TESTS_BENCH_BENCH_SCHED_H

#include <reeve/chan.h>
#include <reeve/reeve.h>
#include <reeve/sync.h>

#include "tests/bench/harness.h"

/** This process's runtime with that many workers, made at the first call; 0: one per CPU. */
reeve *sched_runtime(unsigned workers);

/** The same with options of one's own. */
reeve *sched_runtime_with(const struct reeve_opts *opts);

/** Ends the process with a sentence if r is an error. */
void sched_must(int r);

/** Calls run(n) in a task and returns how long that took, ns / ops; negative: it failed. */
double sched_measure(unsigned workers, void (*run)(long), long n, double ops);

/** Computes for so long. */
void sched_spin(int64_t ns);

/* ---- sched_fork.c: trees of tasks ---- */

double sched_skynet(void *two_workers);
double sched_fib(void *two_workers);
double sched_nqueens(void *two_workers);
double sched_matmul(void *two_workers);
/** Those of them that c->arg says, with one and with two workers in turns. */
enum { SCHED_SKYNET, SCHED_FIB, SCHED_NQUEENS, SCHED_MATMUL };
void sched_two_workers(struct bench *b, const struct bench_case *c);

/* ---- sched_many.c: the scheduler benchmarks of tokio ---- */

double sched_spawn_many_local(void *ctx);
double sched_spawn_many_remote_idle(void *ctx);
double sched_spawn_many_remote_busy1(void *ctx);
double sched_spawn_many_remote_busy2(void *ctx);
double sched_yield_many(void *ctx);
double sched_ping_pong(void *ctx);
double sched_chained_spawn(void *ctx);

/* ---- sched_meet.c: channels and the mutex ---- */

double sched_chan_roundtrip(void *ctx);
/** c->arg: 0 one producer, 1 two, 2 eight. */
void sched_chan_producers(struct bench *b, const struct bench_case *c);
double sched_mutex(void *ctx);
double sched_mutex_w2(void *ctx);

/* ---- sched_class.c: priorities and deadlines ---- */

/** c->arg: 0 posted, 1 woken by a timer. */
void sched_urgent(struct bench *b, const struct bench_case *c);
void sched_low_share(struct bench *b, const struct bench_case *c);
enum { SCHED_FEASIBLE, SCHED_OVERLOAD, SCHED_FIFO_OVERLOAD };
void sched_edf(struct bench *b, const struct bench_case *c);
void sched_classes_cost(struct bench *b, const struct bench_case *c);

/* ---- sched_preset.c ---- */

/** c->arg: the preset. */
void sched_preset(struct bench *b, const struct bench_case *c);

/* ---- sched_sleep.c ---- */

void sched_sleepers(struct bench *b, const struct bench_case *c);

#endif
