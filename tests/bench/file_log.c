/* SPDX-License-Identifier: MIT */
/*
 * file_log.c -- records that have to be durable, appended by many tasks.
 *
 * The peers write each record to its own place behind the last one and sync it themselves, all in
 * one file; the file system and the kernel may put their syncs together, and do. Each turn has a
 * file of its own, that grows.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <reeve/file.h>
#include <reeve/reeve.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "tests/bench/bench_file.h"

/* What a sync takes varies tenfold within seconds where others use the disk, too: so many short
 * turns, for every side to meet the same disk in the middle. */
enum { RECORD = 128, SHORTER = 4, AHEAD = 1 << 20 };

enum kind { LOG, LOG_AHEAD, EACH, THREADS, ONE };

struct appends {
    enum kind kind;
    char path[BENCH_PATH + 64];
    double seconds;
    struct file_turn *turn; /* the result */
    int64_t end;
    reeve_log *log; /* or */
    int fd;
    atomic_ulong place, done; /* of the next record; how many are durable */
};

static const char record[RECORD] = "what happened";

static off_t next_place(struct appends *a)
{
    return (off_t)atomic_fetch_add(&a->place, RECORD);
}

static bool goes_on(struct appends *a)
{
    return bench_now() < a->end;
}

/* ---- those who append ------------------------------------------------------------------------ */

static int to_log(void *arg)
{
    struct appends *a = arg;
    for (; goes_on(a); atomic_fetch_add(&a->done, 1))
        file_must(reeve_log_append(a->log, record, RECORD, 0));
    return 0;
}

static int in_task(void *arg)
{
    struct appends *a = arg;
    for (; goes_on(a); atomic_fetch_add(&a->done, 1)) {
        file_must(reeve_pwrite(a->fd, record, RECORD, (uint64_t)next_place(a), 0));
        file_must(reeve_fdatasync(a->fd, 0));
    }
    return 0;
}

static void *in_thread(void *arg)
{
    struct appends *a = arg;
    for (; goes_on(a); atomic_fetch_add(&a->done, 1)) {
        file_must_sys(pwrite(a->fd, record, RECORD, next_place(a)));
        file_must_sys(fdatasync(a->fd));
    }
    return NULL;
}

/* ---- all of them ----------------------------------------------------------------------------- */

static int tasks(void *arg)
{
    struct appends *a = arg;
    reeve_group g = { 0 };
    bool log = a->kind == LOG || a->kind == LOG_AHEAD;
    struct reeve_log_opts opts = { .path = a->path,
                                   .ahead_bytes = a->kind == LOG_AHEAD ? AHEAD : 0 };
    if (log)
        file_must(reeve_log_open(&a->log, &opts, 0));
    struct file_clock begun = file_clock_begin();
    a->end = begun.at + (int64_t)(a->seconds * 1e9);
    for (int i = 0; i < FILE_TASKS; i++)
        file_must(reeve_go(log ? to_log : in_task, a, .group = &g));
    file_must(reeve_group_wait(&g, 0));
    file_clock_end(&begun, (double)atomic_load(&a->done), a->turn);
    return log ? reeve_log_close(a->log, 0) : 0;
}

static void threads(struct appends *a)
{
    pthread_t thread[FILE_TASKS];
    int n = a->kind == ONE ? 1 : FILE_TASKS;
    struct file_clock begun = file_clock_begin();
    a->end = begun.at + (int64_t)(a->seconds * 1e9);
    for (int i = 0; i < n; i++)
        file_must(-pthread_create(&thread[i], NULL, in_thread, a));
    for (int i = 0; i < n; i++)
        pthread_join(thread[i], NULL);
    file_clock_end(&begun, (double)atomic_load(&a->done), a->turn);
}

static void append_for(void *ctx, double s, struct file_turn *ret_turn)
{
    struct appends *a = ctx;
    a->seconds = s;
    a->turn = ret_turn;
    atomic_store(&a->done, 0);
    a->fd = open(a->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    file_must_sys(a->fd);
    if (a->kind == THREADS || a->kind == ONE)
        threads(a);
    else
        file_in_task(tasks, a);
    close(a->fd);
}

static int turn(struct bench *b, const struct file_side *side, struct file_turn *ret_turn)
{
    struct appends a = { .kind = (enum kind)side->kind };
    snprintf(a.path, sizeof a.path, "%s/bench_file_log.%d", file_test(b)->dir, (int)getpid());
    int r = file_turn_alone(b, append_for, &a, false, ret_turn);
    unlink(a.path);
    return r;
}

void file_log_fsync(struct bench *b, const struct bench_case *c)
{
    static const struct file_metrics rate = {
        .rate = "ops_per_s", .cpu = "cpu_ns_per_req", .shorter = SHORTER
    };
    struct file_side sides[] = {
        { .name = "reeve", .turn = turn, .kind = c->arg ? LOG_AHEAD : LOG },
        { .name = "fsync_each", .turn = turn, .kind = EACH },
        { .name = "fsync_threads", .turn = turn, .kind = THREADS },
    };
    if (file_test(b))
        file_compare(b, c->name, sides, 3, &rate);
}

void file_log_fdatasync(struct bench *b, const struct bench_case *c)
{
    static const struct file_metrics ns = { .ns = "ns_per_op", .shorter = SHORTER };
    struct file_side one = { .name = "fdatasync", .turn = turn, .kind = ONE };
    if (file_test(b))
        file_compare(b, c->name, &one, 1, &ns);
}
