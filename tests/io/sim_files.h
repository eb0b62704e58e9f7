/* SPDX-License-Identifier: MIT */
/*
 * sim_files.h -- the scenario of files: tasks that append to one log, and each to a part of one
 * file, while disks fail, transfers fall short, and deadlines pass.
 *
 * The files are real. What the log has promised is looked for in its file afterwards: each record
 * whose append returned where it began stands there, none stands over another, and what was refused
 * is nowhere.
 */
#ifndef TESTS_IO_SIM_FILES_H
#define TESTS_IO_SIM_FILES_H

#include "tests/io/scratch.h"
#include "tests/io/sim_seeds.h"

#include <reeve/file.h>
#include <reeve/reeve.h>

#define SCRIBES 8
#define RECORDS 24
#define RECORD_MOST 200u
#define PART 5000u

struct files;

struct scribe {
    struct files *files;
    int id;
    struct {
        int64_t at; /* where it was said to begin, or -errno */
        uint32_t len;
    } record[RECORDS];
    unsigned char part[PART]; /* what its part of the file holds, if known */
    bool known;
};

struct files {
    bool wild;
    int scribes;
    reeve_log *log;
    int fd;
    int spoilt; /* the error of a sync that failed: the log's end */
    struct scribe scribe[SCRIBES];
};

/* Byte i of a record: who wrote it, which, and what comes next. */
static unsigned char record_byte(int id, int n, uint32_t i)
{
    return (unsigned char)(id * 61 + n * 17 + (int)i * 3 + 1);
}

static reeve_time sometimes_soon(const struct files *f)
{
    return f->wild && rv_sim_chance(300) ? reeve_in(rv_sim_draw(20000)) : 0;
}

static bool may_fail(const struct files *f, int64_t r)
{
    return f->wild && (r == -ETIMEDOUT || r == -ECANCELED || r == -ENOMEM || r == -EIO ||
                       r == -ENOSPC || r == -EINTR || r == -EAGAIN);
}

static void append_one(struct scribe *me, int n)
{
    struct files *f = me->files;
    unsigned char bytes[RECORD_MOST];
    uint32_t len = 1 + rv_sim_draw(RECORD_MOST);
    for (uint32_t i = 0; i < len; i++)
        bytes[i] = record_byte(me->id, n, i);
    bool later = rv_sim_chance(200);
    reeve_time until = sometimes_soon(f);
    int64_t at = later ? reeve_log_append_later(f->log, bytes, len, until)
                       : reeve_log_append(f->log, bytes, len, until);
    CHECK(at >= 0 || may_fail(f, at));
    me->record[n].at = at;
    me->record[n].len = len;
    if (later && rv_sim_chance(500)) {
        int r = reeve_log_sync(f->log, sometimes_soon(f));
        CHECK(r == 0 || may_fail(f, r));
    }
}

/* Writes somewhere in its part, and reads some of it. */
static void use_part(struct scribe *me)
{
    struct files *f = me->files;
    uint32_t from = rv_sim_draw(PART), len = 1 + rv_sim_draw(PART - from);
    uint64_t at = (uint64_t)me->id * PART + from;
    unsigned char bytes[PART];
    memset(bytes, (int)rv_sim_draw(256), len);
    struct iovec two[] = { { bytes, len / 3 }, { bytes + len / 3, len - len / 3 } };
    ssize_t n = rv_sim_chance(512) ? reeve_pwrite(f->fd, bytes, len, at, sometimes_soon(f))
                                   : reeve_pwritev(f->fd, two, 2, at, sometimes_soon(f));
    CHECK(n == (ssize_t)len || may_fail(f, n));
    if (n > 0)
        memcpy(me->part + from, bytes, len);
    else
        me->known = false; /* some of it may be there */
    n = reeve_pread(f->fd, bytes, len, at, 0);
    CHECK(n == (ssize_t)len || may_fail(f, n));
    if (n > 0 && me->known)
        CHECK_EQ(memcmp(bytes, me->part + from, len), 0);
    if (rv_sim_chance(200)) {
        int r = reeve_fdatasync(f->fd, sometimes_soon(f));
        CHECK(r == 0 || may_fail(f, r));
    }
}

static int scribe(void *arg)
{
    struct scribe *me = arg;
    for (int n = 0; n < RECORDS; n++) {
        append_one(me, n);
        if (rv_sim_chance(300))
            use_part(me);
        if (rv_sim_chance(100))
            (void)reeve_sleep(reeve_in(rv_sim_draw(10000)));
    }
    return 0;
}

static int open_files(struct files *f)
{
    const struct reeve_log_opts opts = { .path = scratch("log"),
                                         .batch_bytes = rv_sim_chance(512) ? 512 : 0,
                                         .unsynced_bytes = rv_sim_chance(512) ? 1000 : 0,
                                         .ahead_bytes = rv_sim_chance(512) ? 8192 : 0 };
    static const unsigned char nothing[SCRIBES * PART];
    int r;
    while ((r = reeve_log_open(&f->log, &opts, 0)) < 0)
        CHECK(may_fail(f, r));
    while ((f->fd = reeve_open(scratch("parts"), O_RDWR | O_CREAT, 0600, 0)) < 0)
        CHECK(may_fail(f, f->fd));
    ssize_t n;
    while ((n = reeve_pwrite(f->fd, nothing, sizeof nothing, 0, 0)) < 0)
        CHECK(may_fail(f, n));
    return 0;
}

static int files_root(void *arg)
{
    struct files *f = arg;
    reeve_task *t[SCRIBES];
    open_files(f);
    for (int i = 0; i < f->scribes; i++) {
        f->scribe[i] = (struct scribe){ .files = f, .id = i, .known = true };
        CHECK_OK(reeve_spawn(&t[i], scribe, &f->scribe[i]));
    }
    if (f->wild && rv_sim_chance(512)) {
        (void)reeve_sleep(reeve_in(rv_sim_draw(50000)));
        reeve_cancel(t[rv_sim_draw((uint32_t)f->scribes)]);
    }
    for (int i = 0; i < f->scribes; i++)
        CHECK_OK(reeve_join(t[i], NULL, 0));
    int r = reeve_log_close(f->log, 0);
    CHECK(r == 0 || may_fail(f, r));
    CHECK_EQ(reeve_close(f->fd), 0);
    return 0;
}

/* What was promised is there, once, and nothing else but what nobody knows of. */
static void check_log(const struct files *f)
{
    static unsigned char all[SCRIBES * RECORDS * RECORD_MOST], used[sizeof all];
    int fd = open(scratch("log"), O_RDONLY | O_CLOEXEC);
    CHECK_GE(fd, 0);
    ssize_t size = read(fd, all, sizeof all);
    close(fd);
    CHECK_GE(size, 0);
    memset(used, 0, sizeof used);
    for (int s = 0; s < f->scribes; s++)
        for (int n = 0; n < RECORDS; n++) {
            int64_t at = f->scribe[s].record[n].at;
            uint32_t len = f->scribe[s].record[n].len;
            if (at < 0)
                continue;
            CHECK_LE(at + len, size);
            for (uint32_t i = 0; i < len; i++) {
                CHECK_EQ(all[at + i], record_byte(s, n, i));
                CHECK_EQ(used[at + i]++, 0);
            }
        }
    if (!f->wild)
        CHECK(memchr(used, 0, sizeof used) == NULL || !memchr(used, 0, (size_t)size));
}

/* The files are in memory where that is possible: what is played is not the disk, and its syncs
 * would take as long as whatever else the machine writes. */
static void in_memory(void)
{
    if (access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 0);
}

static void files_run(bool wild, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    static struct files files;
    in_memory();
    unlink(scratch("log"));
    unlink(scratch("parts"));
    files = (struct files){ .wild = wild, .scribes = 1 + (int)(seeds_mix(opts->seed) % SCRIBES) };
    opts->fn = files_root;
    opts->arg = &files;
    opts->faults.shorter = 200;
    if (wild) {
        opts->faults.eintr = 20;
        opts->faults.eagain = 20;
        opts->faults.nomem = 5;
        opts->faults.disk = seeds_mix(opts->seed + 1) % 3 == 0 ? 0 : 10;
    }
    seeds_simulate(opts, ret);
    check_log(&files);
}

static void files_run_quiet(uint64_t seed, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    (void)seed;
    files_run(false, opts, ret);
}

static void files_run_wild(uint64_t seed, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    (void)seed;
    files_run(true, opts, ret);
}

#endif
