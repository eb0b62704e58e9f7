/* SPDX-License-Identifier: MIT */
/*
 * file_read.c -- random reads of 4 KiB, by 64 tasks or by one.
 *
 * All tasks run on one worker, so they share their counts without atomics.
 */
#include <errno.h>
#include <reeve/file.h>
#include <reeve/reeve.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/bench/bench_file.h"

/* How to read: bits. */
enum { DIRECT = 1, PLAIN = 2, ALONE = 4 };

enum { LOOK_EVERY = 64 }; /* reads, at the clock */

struct reads {
    const struct file_test *file;
    long how;
    double seconds;
    struct file_turn *turn; /* the result */
    int64_t end;
    bool over;
    uint64_t done;
};

struct reader {
    struct reads *all;
    struct reeve_buf *buf; /* NULL: memory instead */
    void *memory;
    uint64_t random;
};

static uint64_t random_offset(struct reader *r)
{
    uint64_t x = r->random;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    r->random = x;
    uint64_t pages = r->all->file->bytes / FILE_PAGE;
    return (x >> 32) * pages >> 32 << 12;
}

static void count(struct reads *all, ssize_t n)
{
    file_must(n == FILE_PAGE ? 0 : n < 0 ? n : -EIO);
    if (++all->done % LOOK_EVERY == 0 && bench_now() >= all->end)
        all->over = true;
}

static int read_on(void *arg)
{
    struct reader *r = arg;
    struct reads *all = r->all;
    int fd = all->how & DIRECT ? all->file->direct_fd : all->file->fd;
    while (!all->over)
        count(all, r->buf ? reeve_buf_pread(fd, r->buf, random_offset(r), 0)
                          : reeve_pread(fd, r->memory, FILE_PAGE, random_offset(r), 0));
    return 0;
}

static void set_up(struct reader *r, struct reads *all, uint64_t number)
{
    *r = (struct reader){ .all = all, .random = (number + 1) * UINT64_C(0x9E3779B97F4A7C15) };
    if (all->how & PLAIN)
        r->memory = aligned_alloc(FILE_PAGE, FILE_PAGE);
    else
        file_must(reeve_buf_borrow_aligned(&r->buf, FILE_PAGE, 0));
    file_must(r->memory || r->buf ? 0 : -ENOMEM);
}

static void tear_down(struct reader *r)
{
    reeve_buf_return(r->buf);
    free(r->memory);
}

static int read_all(void *arg)
{
    struct reads *all = arg;
    static struct reader readers[FILE_TASKS];
    int n = all->how & ALONE ? 1 : FILE_TASKS;
    reeve_group g = { 0 };
    for (int i = 0; i < n; i++)
        set_up(&readers[i], all, (uint64_t)i);
    struct file_clock begun = file_clock_begin();
    all->end = begun.at + (int64_t)(all->seconds * 1e9);
    if (all->how & ALONE)
        read_on(&readers[0]);
    for (int i = 0; i < n && !(all->how & ALONE); i++)
        file_must(reeve_go(read_on, &readers[i], .group = &g));
    file_must(reeve_group_wait(&g, 0));
    file_clock_end(&begun, (double)all->done, all->turn);
    for (int i = 0; i < n; i++)
        tear_down(&readers[i]);
    return 0;
}

static void read_for(void *ctx, double s, struct file_turn *ret_turn)
{
    struct reads all = *(struct reads *)ctx;
    all.seconds = s;
    all.turn = ret_turn;
    file_in_task(read_all, &all);
}

/* pread(2), by a thread. */
static void raw_read_for(void *ctx, double s, struct file_turn *ret_turn)
{
    struct reads all = *(struct reads *)ctx;
    struct reader r = { .all = &all, .memory = aligned_alloc(FILE_PAGE, FILE_PAGE), .random = 1 };
    file_must(r.memory ? 0 : -ENOMEM);
    struct file_clock begun = file_clock_begin();
    all.end = begun.at + (int64_t)(s * 1e9);
    while (!all.over)
        count(&all, pread(all.file->fd, r.memory, FILE_PAGE, (off_t)random_offset(&r)));
    file_clock_end(&begun, (double)all.done, ret_turn);
    free(r.memory);
}

static int turn(struct bench *b, const struct file_side *side, struct file_turn *ret_turn)
{
    struct reads all = { .file = file_test(b), .how = side->kind };
    return file_turn_alone(b, read_for, &all, side->kind & DIRECT, ret_turn);
}

static int raw_turn(struct bench *b, const struct file_side *side, struct file_turn *ret_turn)
{
    struct reads all = { .file = file_test(b), .how = side->kind };
    return file_turn_alone(b, raw_read_for, &all, false, ret_turn);
}

/* ---- the cases ------------------------------------------------------------------------------- */

/* The page cache as it should be; false: there is no file. */
static bool prepare(struct bench *b, bool direct)
{
    const struct file_test *f = file_test(b);
    if (f)
        file_cache(f, !direct);
    return f;
}

static const struct file_metrics rate_and_cpu = { .cpu = "cpu_ns_per_req", .rate = "ops_per_s" };

void file_read_direct(struct bench *b, const struct bench_case *c)
{
    struct file_side sides[] = {
        { .name = "reeve", .turn = turn, .kind = DIRECT },
        { .name = "fio", .turn = file_fio_turn, .kind = FILE_FIO_DIRECT },
        { .name = "fio_batched", .turn = file_fio_turn,
          .kind = FILE_FIO_DIRECT | FILE_FIO_BATCHED },
    };
    if (prepare(b, true))
        file_compare(b, c->name, sides, 3, &rate_and_cpu);
}

void file_read_cached(struct bench *b, const struct bench_case *c)
{
    struct file_side sides[] = {
        { .name = "reeve", .turn = turn },
        { .name = "fio", .turn = file_fio_turn },
        { .name = "fio_batched", .turn = file_fio_turn, .kind = FILE_FIO_BATCHED },
        { .name = "fio_psync", .turn = file_fio_turn, .kind = FILE_FIO_PSYNC },
    };
    if (prepare(b, false))
        file_compare(b, c->name, sides, 4, &rate_and_cpu);
}

void file_read_fixed(struct bench *b, const struct bench_case *c)
{
    long how = c->arg ? DIRECT : 0;
    struct file_side sides[] = {
        { .name = "reeve", .turn = turn, .kind = how },
        { .name = "plain", .turn = turn, .kind = how | PLAIN },
    };
    if (prepare(b, c->arg))
        file_compare(b, c->name, sides, 2, &rate_and_cpu);
}

void file_read_one(struct bench *b, const struct bench_case *c)
{
    static const struct file_metrics ns = { .ns = "ns_per_op" };
    struct file_side sides[] = {
        { .name = "reeve", .turn = turn, .kind = ALONE | PLAIN },
        { .name = "pread", .turn = raw_turn },
    };
    if (prepare(b, false))
        file_compare(b, c->name, sides, 2, &ns);
}
