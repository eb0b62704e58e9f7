/* SPDX-License-Identifier: MIT */
/**
 * bench_file.h -- what the files of bench_file share: sides that take turns, and the test file.
 */
#ifndef TESTS_BENCH_BENCH_FILE_H
#define TESTS_BENCH_BENCH_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/bench/harness.h"

enum { FILE_PAGE = 4096, FILE_TASKS = 64, FILE_SIDES_MAX = 4 };

/** The file that is read: full of data, and without a name, so it cannot be left behind. */
struct file_test {
    char dir[BENCH_PATH]; /**< where it is: on a disk, as far as one can tell */
    char path[64];        /**< of it, for other programs, while this one lives */
    int fd, direct_fd;    /**< through the page cache; past it (O_DIRECT) */
    size_t bytes;
};

/** Makes it at the first call; NULL: no folder here will do, which is said once. */
const struct file_test *file_test(struct bench *b);

/** Has the page cache hold all of it, or nothing. */
void file_cache(const struct file_test *f, bool held);

/** What one turn of one side came to. */
struct file_turn {
    double cpu_ns, ns; /**< per operation: of the CPU, the whole process's; by the clock */
    double per_s;      /**< operations */
};

struct file_side {
    const char *name; /**< as JSON calls the peer; reeve comes first */
    /** 0; -ENOENT: it is not there, which it has said; another error: it failed. */
    int (*turn)(struct bench *b, const struct file_side *side, struct file_turn *ret_turn);
    long kind;        /**< for `turn` to use */
    bool absent;
    struct bench_samples cpu, ns, rate;
};

/** How the three figures are called; NULL: left out. */
struct file_metrics {
    const char *cpu, *ns, *rate;
    int shorter; /**< turns so many times shorter, and as many times more rounds; 0: 1 */
};

/** Gives the sides their turns, in rounds, and emits the medians of the first and each other. */
void file_compare(struct bench *b, const char *case_name, struct file_side *sides, int n,
                  const struct file_metrics *metrics);

/** How long a turn of the comparison under way is to take, in seconds. */
double file_turn_s(const struct bench *b);

/** Works for so many seconds; ends the process if it fails. */
typedef void file_work(void *ctx, double seconds, struct file_turn *ret_turn);

/** A turn in a process of its own, on the server's CPU and at a raised priority where we may. It
 * works twice, the first time briefly, and if `rest` is set lets the disk rest in between, for as
 * long as fio takes to start: a disk whose rate is limited gives more to who comes after that. */
int file_turn_alone(struct bench *b, file_work *work, void *ctx, bool rest,
                    struct file_turn *ret_turn);

/** Ends the process with a sentence if r is an error. */
void file_must(long r);
void file_must_sys(long r);

/** From begin to end: the clock, and the CPU time of all threads of this process. */
struct file_clock {
    int64_t at, cpu;
};
struct file_clock file_clock_begin(void);
void file_clock_end(const struct file_clock *begun, double ops, struct file_turn *ret_turn);

/** Calls run(arg) in a task of this process's runtime, which has one worker. */
void file_in_task(int (*run)(void *arg), void *arg);

/* ---- the cases ---- */

/* file_read.c; c->arg of the latter: whether the page cache is passed by */
void file_read_direct(struct bench *b, const struct bench_case *c);
void file_read_cached(struct bench *b, const struct bench_case *c);
void file_read_fixed(struct bench *b, const struct bench_case *c);
void file_read_one(struct bench *b, const struct bench_case *c);

/* file_fio.c: side->kind says which */
enum { FILE_FIO_DIRECT = 1, FILE_FIO_BATCHED = 2, FILE_FIO_PSYNC = 4 };
int file_fio_turn(struct bench *b, const struct file_side *side, struct file_turn *ret_turn);

/* file_log.c; c->arg of the first: whether the log writes zeroes ahead */
void file_log_fsync(struct bench *b, const struct bench_case *c);
void file_log_fdatasync(struct bench *b, const struct bench_case *c);

/* file_send.c */
void file_send(struct bench *b, const struct bench_case *c);

#endif
