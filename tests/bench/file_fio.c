/* SPDX-License-Identifier: MIT */
/*
 * file_fio.c -- random reads by fio (Debian's package of that name), as a peer.
 *
 * Its own account of its CPU time is taken, which leaves out what it needs to start. It takes no
 * time stamps of single reads: neither do we.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tests/bench/bench_file.h"

enum { FIO_MS = 20000, FIO_ARGS = 32 };

static const char *const plain[] = { "--ioengine=io_uring", "--fixedbufs=1", "--registerfiles=1" };
static const char *const batched[] = { "--iodepth_batch_submit=16",
                                       "--iodepth_batch_complete_max=16" };
static const char *const psync[] = { "--ioengine=psync" };

static int run(struct bench *b, const char *const *argv, struct bench_proc *p)
{
    struct bench_spawn how = { .argv = argv, .cpus = &b->cpu_server, .cpus_n = 1,
                               .nice = b->raised ? -10 : 0 };
    int r = bench_start(p, &how);
    return r < 0 ? r : bench_stop(p, 0, FIO_MS);
}

/* Of what it printed, as JSON: the first job is the only one, and begins with its reads. */
static int figures(const char *said, struct file_turn *ret_turn)
{
    const char *reads = strstr(said, "\"read\" :");
    if (!reads)
        return -EIO;
    double ops = bench_number(reads, "\"total_ios\"", 0);
    double ms = bench_number(reads, "\"runtime\"", 0);
    double user = bench_number(reads, "\"usr_cpu\"", 0);
    double sys = bench_number(reads, "\"sys_cpu\"", 0);
    double job_ms = bench_number(reads, "\"job_runtime\"", 0);
    if (ops <= 0 || ms <= 0 || job_ms <= 0)
        return -EIO;
    *ret_turn = (struct file_turn){
        .cpu_ns = (user + sys) / 100 * job_ms * 1e6 / ops,
        .ns = ms * 1e6 / ops,
        .per_s = ops * 1000 / ms,
    };
    return 0;
}

static int add(const char **argv, int n, const char *const *more, size_t count)
{
    for (size_t i = 0; i < count; i++)
        argv[n++] = more[i];
    return n;
}

int file_fio_turn(struct bench *b, const struct file_side *side, struct file_turn *ret_turn)
{
    const struct file_test *f = file_test(b);
    static struct bench_proc p;
    char file[128], size[64], runtime[64];
    const char *argv[FIO_ARGS] = {
        "/bin/sh", "-c", "command -v fio >/dev/null || exit 127; exec fio \"$@\"", "fio",
        "--name=reads", "--rw=randread", "--bs=4k", "--iodepth=64", "--numjobs=1", "--thread",
        "--norandommap", "--gtod_reduce=1", "--invalidate=0", "--time_based",
        "--output-format=json", file, size, runtime,
        side->kind & FILE_FIO_DIRECT ? "--direct=1" : "--direct=0",
    };
    int n = 0;
    while (argv[n])
        n++;
    snprintf(file, sizeof file, "--filename=%s", f->path);
    snprintf(size, sizeof size, "--size=%zu", f->bytes);
    snprintf(runtime, sizeof runtime, "--runtime=%dms", (int)(file_turn_s(b) * 1000));
    if (side->kind & FILE_FIO_PSYNC)
        n = add(argv, n, psync, sizeof psync / sizeof *psync);
    else
        n = add(argv, n, plain, sizeof plain / sizeof *plain);
    if (side->kind & FILE_FIO_BATCHED)
        add(argv, n, batched, sizeof batched / sizeof *batched);
    int r = run(b, argv, &p);
    if (r == 0 && figures(p.said, ret_turn) == 0)
        return 0;
    if (r == 127)
        bench_skip(side->name, "there is no fio here (Debian's package fio)");
    else
        bench_skip(side->name, "fio ended with status %d. It said: %.400s", r, p.said);
    return -ENOENT;
}
