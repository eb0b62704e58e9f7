/* SPDX-License-Identifier: MIT */
/*
 * bench_file.c -- files: random reads, from the file to a socket, and a log that many append to.
 *
 *     bench_file [--json] [--quick] [--case NAME]...
 *
 * Each side of a comparison runs in a process of its own, on one CPU, and they take turns in short
 * rounds. CPU time is the whole process's, with that of the kernel's threads that work for it. A
 * disk, most of all a virtual one, does not deliver evenly: operations per second need many rounds,
 * CPU time per operation fewer.
 *
 *     case            one operation                                   peers
 *     direct_4k_qd64  64 tasks read 4 KiB at random past the page     fio fio_batched
 *                     cache (O_DIRECT), into buffers the ring knows
 *     cached_4k_qd64  the same from the page cache                    fio fio_batched fio_psync
 *     fixed_vs_plain  the first, against memory that the ring does    plain
 *     fixed_cached    not know; and the second                        plain
 *     pread_1         one task reads 4 KiB from the page cache        pread
 *     file_to_socket  a MiB, from the page cache to a TCP             sendfile
 *                     connection, whose other end discards it
 *     log_fsync_64    64 tasks append 128 bytes each and wait until   fsync_each fsync_threads
 *                     they are durable; the log writes zeroes ahead
 *     log_fsync_grow  the same without zeroes                         fsync_each fsync_threads
 *     fdatasync_1     the same of one thread that is alone: a write and an fdatasync
 *
 * fio reads with io_uring, one job, 64 under way, fixed buffers and a registered file, and takes no
 * time stamp per read (gtod_reduce); fio_batched submits 16 at a time and collects as many;
 * fio_psync is a loop of pread(2). Where there is no fio, its lines have no peer. fsync_each: 64
 * tasks that each write and fdatasync for themselves; fsync_threads: the same with 64 threads.
 */
#include "tests/bench/bench_file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <reeve/reeve.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/statfs.h>
#include <unistd.h>

enum { ROUNDS = 15, QUICK_ROUNDS = 3, MIB = 1 << 20, FULL_MIB = 256, QUICK_MIB = 64 };
enum { REST_MS = 450, BRIEFLY = 8 };

void file_must(long r)
{
    if (r >= 0)
        return;
    fprintf(stderr, "bench_file: %s\n", strerror((int)-r));
    _exit(1);
}

void file_must_sys(long r)
{
    file_must(r < 0 ? -errno : 0);
}

/* ---- the test file --------------------------------------------------------------------------- */

/* File systems in memory take O_DIRECT, too, and mean nothing by it. */
static bool is_memory(int fd)
{
    struct statfs st;
    return fstatfs(fd, &st) < 0 || st.f_type == TMPFS_MAGIC || st.f_type == RAMFS_MAGIC;
}

static bool has_room(int fd, size_t bytes)
{
    struct statfs st;
    return fstatfs(fd, &st) == 0 && (uint64_t)st.f_bavail * (uint64_t)st.f_bsize > 2 * bytes;
}

/* Data that no disk and no file system can make less of. */
static int fill(int fd, size_t bytes)
{
    uint64_t x = 88172645463325252u;
    uint64_t *block = malloc(MIB);
    int r = block ? 0 : -ENOMEM;
    for (size_t at = 0; at < bytes && r == 0; at += MIB) {
        for (size_t i = 0; i < MIB / sizeof *block; i++) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            block[i] = x;
        }
        if (pwrite(fd, block, MIB, (off_t)at) != MIB)
            r = -EIO;
    }
    free(block);
    return r == 0 && fsync(fd) < 0 ? -errno : r;
}

/* A page of it past the page cache. */
static bool reads_direct(int fd)
{
    void *page = aligned_alloc(FILE_PAGE, FILE_PAGE);
    bool read = page && pread(fd, page, FILE_PAGE, 0) == FILE_PAGE;
    free(page);
    return read;
}

static bool make_in(struct file_test *f, const char *dir)
{
    char name[BENCH_PATH + 64];
    snprintf(name, sizeof name, "%s/bench_file.XXXXXX", dir);
    f->direct_fd = -1;
    f->fd = mkostemp(name, O_CLOEXEC);
    if (f->fd < 0)
        return false;
    unlink(name);
    snprintf(f->path, sizeof f->path, "/proc/%d/fd/%d", (int)getpid(), f->fd);
    snprintf(f->dir, sizeof f->dir, "%s", dir);
    if (!is_memory(f->fd) && has_room(f->fd, f->bytes) && fill(f->fd, f->bytes) == 0)
        f->direct_fd = open(f->path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (f->direct_fd >= 0 && reads_direct(f->direct_fd))
        return true;
    if (f->direct_fd >= 0)
        close(f->direct_fd);
    close(f->fd);
    return false;
}

const struct file_test *file_test(struct bench *b)
{
    static struct file_test f;
    static bool tried, made;
    const char *dirs[] = { getenv("TMPDIR"), "/var/tmp", "/tmp", b->bindir };
    f.bytes = (size_t)(b->quick ? QUICK_MIB : FULL_MIB) * MIB;
    for (size_t i = 0; !tried && !made && i < sizeof dirs / sizeof *dirs; i++)
        made = dirs[i] && make_in(&f, dirs[i]);
    if (!tried && !made)
        bench_skip("files", "neither $TMPDIR nor /var/tmp, /tmp, %s is on a disk that takes "
                   "O_DIRECT and has %zu MiB", b->bindir, 2 * f.bytes / MIB);
    tried = true;
    return made ? &f : NULL;
}

void file_cache(const struct file_test *f, bool held)
{
    static char block[MIB];
    posix_fadvise(f->fd, 0, 0, POSIX_FADV_DONTNEED);
    for (size_t at = 0; held && at < f->bytes; at += sizeof block)
        if (pread(f->fd, block, sizeof block, (off_t)at) != sizeof block)
            bench_skip("the page cache", "the file could not be read: %s", strerror(errno));
}

/* ---- taking turns ---------------------------------------------------------------------------- */

static int shorter = 1; /* of the comparison under way */

double file_turn_s(const struct bench *b)
{
    return (b->quick ? 0.25 : 0.5) / shorter;
}

static void emit(struct bench *b, const char *case_name, const struct file_metrics *m,
                 const struct file_side *ours, const struct file_side *theirs)
{
    if (m->cpu)
        bench_emit(b, case_name, m->cpu, &ours->cpu, theirs->name, &theirs->cpu);
    if (m->ns)
        bench_emit(b, case_name, m->ns, &ours->ns, theirs->name, &theirs->ns);
    if (m->rate)
        bench_emit(b, case_name, m->rate, &ours->rate, theirs->name, &theirs->rate);
}

/* One side's turn; false: it failed, and there is nothing to compare. */
static bool take_turn(struct bench *b, const char *case_name, struct file_side *side)
{
    struct file_turn t;
    int r = side->absent ? -ENOENT : side->turn(b, side, &t);
    if (r == -ENOENT) {
        side->absent = true;
        return true;
    }
    if (r < 0) {
        bench_fail(b, case_name, "%s could not be measured", side->name);
        return false;
    }
    bench_add(&side->cpu, t.cpu_ns);
    bench_add(&side->ns, t.ns);
    bench_add(&side->rate, t.per_s);
    return true;
}

void file_compare(struct bench *b, const char *case_name, struct file_side *sides, int n,
                  const struct file_metrics *metrics)
{
    shorter = metrics->shorter ? metrics->shorter : 1;
    int rounds = (b->quick ? QUICK_ROUNDS : ROUNDS) * shorter;
    for (int round = 0; round < rounds && (round == 0 || bench_time_left(b)); round++)
        for (int i = 0; i < n; i++)
            if (!take_turn(b, case_name, &sides[i]))
                return;
    int peers = 0;
    for (int i = 1; i < n; i++)
        if (!sides[i].absent && ++peers)
            emit(b, case_name, metrics, &sides[0], &sides[i]);
    if (peers == 0)
        emit(b, case_name, metrics, &sides[0], &(struct file_side){ .name = NULL });
}

/* ---- a turn in a process of its own ---------------------------------------------------------- */

struct alone {
    file_work *work;
    void *ctx;
    double seconds;
    bool raise, rest, warm;
    struct file_turn *shared; /* with that process */
};

static double run_alone(void *ctx)
{
    enum { RAISED_NICE = -10 };
    struct alone *a = ctx;
    if (a->raise)
        setpriority(PRIO_PROCESS, 0, RAISED_NICE);
    if (a->warm && a->rest)
        usleep(REST_MS * 1000);
    a->work(a->ctx, a->warm ? a->seconds : a->seconds / BRIEFLY, a->shared);
    a->warm = true;
    return a->shared->ns;
}

int file_turn_alone(struct bench *b, file_work *work, void *ctx, bool rest,
                    struct file_turn *ret_turn)
{
    struct bench_samples ns = { .n = 0 };
    struct file_turn *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE,
                                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return -errno;
    struct alone a = { work, ctx, file_turn_s(b), b->raised, rest, false, shared };
    int r = bench_ns_alone(&ns, NULL, run_alone, &a, 1, b->cpu_server);
    *ret_turn = *shared;
    munmap(shared, sizeof *shared);
    return r;
}

static int64_t cpu_now(void)
{
    struct rusage ru;
    file_must_sys(getrusage(RUSAGE_SELF, &ru));
    return (int64_t)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) * 1000000000 +
           (int64_t)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) * 1000;
}

struct file_clock file_clock_begin(void)
{
    return (struct file_clock){ bench_now(), cpu_now() };
}

void file_clock_end(const struct file_clock *begun, double ops, struct file_turn *ret_turn)
{
    struct file_clock now = file_clock_begin();
    *ret_turn = (struct file_turn){
        .cpu_ns = (double)(now.cpu - begun->cpu) / ops,
        .ns = (double)(now.at - begun->at) / ops,
        .per_s = ops * 1e9 / (double)(now.at - begun->at),
    };
}

void file_in_task(int (*run)(void *arg), void *arg)
{
    static reeve *rt;
    if (!rt)
        file_must(reeve_create(&rt, &(struct reeve_opts){ .workers = 1 }));
    file_must(reeve_call(rt, run, arg, 0));
}

static const struct bench_case cases[] = {
    { .name = "direct_4k_qd64", .run = file_read_direct },
    { .name = "cached_4k_qd64", .run = file_read_cached },
    { .name = "fixed_vs_plain", .run = file_read_fixed, .arg = true },
    { .name = "fixed_cached", .run = file_read_fixed, .arg = false },
    { .name = "pread_1", .run = file_read_one },
    { .name = "file_to_socket", .run = file_send },
    { .name = "log_fsync_64", .run = file_log_fsync, .arg = true },
    { .name = "log_fsync_grow", .run = file_log_fsync, .arg = false },
    { .name = "fdatasync_1", .run = file_log_fdatasync },
};

int main(int argc, char **argv)
{
    return bench_main(&(struct bench_program){ .name = "file",
                                               .cases = cases,
                                               .cases_n = sizeof cases / sizeof *cases },
                      argc, argv);
}
