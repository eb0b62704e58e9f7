/* SPDX-License-Identifier: MIT */
/*
 * map_test.c -- mapped files: what they show, what they write, and what they say when the file
 * beneath them is not what it was.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <sched.h>
#include <stddef.h>
#include <sys/mount.h>
#include <sys/vfs.h>

#include "io/map.h"
#include "mem/fault.h"
#include "tests/io/map_files.h"
#include "tests/io/seccomp.h"

#define RW (REEVE_MAP_WRITE)
#define TMPFS_MAGIC 0x01021994

/* ---- open and close -------------------------------------------------------------------------- */

static int shows(void *arg)
{
    static const size_t sizes[] = { 1, 4095, 4096, 4097, 100000, 3 * MIB + 17 };
    (void)arg;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct reeve_map m;
        const char *path = file("file", sizes[i]);
        CHECK_EQ(reeve_map_open(&m, path, REEVE_MAP_READ, 0, LONG), 0);
        CHECK_EQ(m.len, sizes[i]);
        CHECK_EQ(reeve_map_fetch(&m, 0, m.len, LONG), 0);
        check_map(&m, 0);
        CHECK_EQ(reeve_map_ok(&m), 0);
        reeve_map_close(&m);
        CHECK(m.data == NULL);
        CHECK_EQ(m.len, 0);
        reeve_map_close(&m); /* of {0}: nothing */
    }
    reeve_map_close(NULL);
    await_no_maps();
    return 0;
}

TEST(a_map_shows_the_file)
{
    RUN(shows, .workers = 1);
    RUN(shows, .workers = 2);
}

static int parts(void *arg)
{
    struct reeve_map m;
    const char *path = file("file", 10 * PAGE);
    (void)arg;
    CHECK_EQ(reeve_map_open(&m, path, REEVE_MAP_READ, 5000, LONG), 0);
    CHECK_EQ(m.len, 5000);
    check_map(&m, 0);
    CHECK_EQ(reeve_map_fetch(&m, 0, 5001, LONG), -ERANGE);
    reeve_map_close(&m);
    CHECK_EQ(reeve_map_open(&m, path, RW, 5000, LONG), 0);
    reeve_map_close(&m);
    CHECK_EQ(reeve_map_open(&m, path, RW | REEVE_MAP_CREATE, 5000, LONG), 0);
    CHECK_EQ(m.len, 5000);
    reeve_map_close(&m);
    await_no_maps();
    CHECK_EQ(size_of(path), 10 * PAGE);
    return 0;
}

TEST(a_longer_file_is_never_shortened)
{
    RUN(parts, .workers = 1);
}

static int creates(void *arg)
{
    struct reeve_map m;
    struct stat st;
    const char *path = path_of("new"), *sparse = path_of("sparse");
    (void)arg;
    CHECK_EQ(reeve_map_open(&m, path, RW, 0, LONG), -ENOENT);
    CHECK_EQ(reeve_map_open(&m, path, RW | REEVE_MAP_CREATE, MIB + 1, LONG), 0);
    CHECK_EQ(m.len, MIB + 1);
    CHECK_EQ(stat(path, &st), 0);
    CHECK_EQ(st.st_size, MIB + 1);
    CHECK_GE(st.st_blocks * 512, MIB + 1);
    CHECK_EQ(reeve_map_prepare(&m, 0, m.len, LONG), 0);
    memset(m.data, 'x', m.len);
    CHECK_EQ(reeve_map_flush(&m, 0, m.len, LONG), 0);
    reeve_map_close(&m);
    CHECK_EQ(reeve_map_open(&m, path, RW | REEVE_MAP_CREATE, 2 * MIB, LONG), 0); /* longer */
    CHECK_EQ(((char *)m.data)[MIB], 'x');
    CHECK_EQ(((char *)m.data)[MIB + 1], 0);
    reeve_map_close(&m);
    CHECK_EQ(reeve_map_open(&m, sparse, RW | REEVE_MAP_CREATE | REEVE_MAP_SPARSE, 64 * MIB, LONG),
             0);
    CHECK_EQ(stat(sparse, &st), 0);
    CHECK_EQ(st.st_size, 64 * MIB);
    CHECK_LT(st.st_blocks * 512, MIB);
    reeve_map_close(&m);
    CHECK_EQ(reeve_map_open(&m, path_of("empty"), RW | REEVE_MAP_CREATE, 0, LONG), 0);
    CHECK_EQ(m.len, 0);
    await_no_maps();
    return 0;
}

TEST(a_file_is_made_and_made_longer_with_its_blocks_or_without)
{
    RUN(creates, .workers = 1);
}

static int errors(void *arg)
{
    struct reeve_map m = { .len = 4711 };
    const char *path = file("file", 100), *fifo = path_of("fifo");
    (void)arg;
    unsigned before = fds_open();
    CHECK_EQ(mkfifo(fifo, 0600), 0);
    CHECK_EQ(reeve_map_open(&m, NULL, 0, 0, LONG), -EINVAL);
    CHECK_EQ(reeve_map_open(&m, path, 1 << 20, 0, LONG), -EINVAL);
    CHECK_EQ(reeve_map_open(&m, path, REEVE_MAP_CREATE, 0, LONG), -EINVAL);
    CHECK_EQ(reeve_map_open(&m, path, RW | REEVE_MAP_CREATE | REEVE_MAP_PRIVATE, 0, LONG), -EINVAL);
    CHECK_EQ(reeve_map_open(&m, path, RW | REEVE_MAP_SPARSE, 0, LONG), -EINVAL);
    CHECK_EQ(reeve_map_open(&m, folder, 0, 0, LONG), -ENODEV);
    CHECK_EQ(reeve_map_open(&m, folder, RW, 0, LONG), -EISDIR);
    CHECK_EQ(reeve_map_open(&m, fifo, 0, 0, LONG), -ENODEV); /* and it does not wait for a writer */
    CHECK_EQ(reeve_map_open(&m, "/dev/null", 0, 0, LONG), -ENODEV);
    CHECK_EQ(reeve_map_open(&m, path, 0, 101, LONG), -ERANGE);
    CHECK_EQ(reeve_map_open(&m, path, RW, 101, LONG), -ERANGE);
    CHECK_EQ(reeve_map_open(&m, path, RW | REEVE_MAP_CREATE, SIZE_MAX, LONG), -EFBIG);
    CHECK_EQ(reeve_map_open(&m, path, REEVE_MAP_SEALED, 0, LONG), -EPERM);
    CHECK_EQ(reeve_map_open(&m, path, 0, 0, REEVE_POLL), -ETIMEDOUT);
    CHECK_EQ(reeve_map_open_fd(&m, -1, 0, 0, LONG), -EBADF);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK_EQ(reeve_map_open_fd(&m, fd, RW, 0, LONG), -EACCES);
    close(fd);
    CHECK_EQ(m.len, 4711); /* untouched on failure */
    CHECK_EQ(fds_open(), before);
    CHECK_EQ(maps_live(), 0);
    CHECK_EQ(size_of(path), 100);
    return 0;
}

TEST(what_cannot_be_mapped_is_an_error_and_leaves_nothing)
{
    RUN(errors, .workers = 1);
}

static int from_fd(void *arg)
{
    struct reeve_map m;
    (void)arg;
    int fd = file_of(path_of("file"), 9000, 5);
    CHECK_EQ(reeve_map_open_fd(&m, fd, RW, 0, LONG), 0);
    CHECK_EQ(close(fd), 0); /* the caller's; the map has its own */
    check_map(&m, 5);
    CHECK_EQ(reeve_map_flush(&m, 0, m.len, LONG), 0);
    reeve_map_close(&m);
    return 0;
}

TEST(an_open_file_is_mapped_and_stays_its_owners)
{
    RUN(from_fd, .workers = 1);
}

static int no_bytes(void *arg)
{
    struct reeve_map m = { .len = 1 }, zero = { 0 };
    char byte;
    (void)arg;
    CHECK_EQ(reeve_map_open(&m, file("file", 0), RW, 0, LONG), 0);
    for (int i = 0; i < 2; i++) {
        const struct reeve_map *e = i ? &zero : &m;
        CHECK(e->data == NULL);
        CHECK_EQ(e->len, 0);
        CHECK_EQ(reeve_map_fetch(e, 0, 0, LONG), 0);
        CHECK_EQ(reeve_map_fetch(e, 0, 1, LONG), -ERANGE);
        CHECK_EQ(reeve_map_fetch(e, 1, 0, LONG), -ERANGE);
        CHECK_EQ(reeve_map_read(e, 0, &byte, 0, LONG), 0);
        CHECK_EQ(reeve_map_read(e, 0, &byte, 1, LONG), -ERANGE);
        CHECK_EQ(reeve_map_flush(e, 0, 0, LONG), 0);
        CHECK_EQ(reeve_map_advise(e, 0, 0, REEVE_MAP_HINT_DONE, LONG), 0);
        CHECK_EQ(reeve_map_ok(e), 0);
    }
    reeve_map_close(&m);
    reeve_map_close(&zero);
    return 0;
}

TEST(a_file_of_no_bytes_is_a_map_of_no_bytes)
{
    RUN(no_bytes, .workers = 1);
}

/* ---- bounds ---------------------------------------------------------------------------------- */

static int by_fetch(const struct reeve_map *m, size_t off, size_t len)
{
    return reeve_map_fetch(m, off, len, LONG);
}

static int by_prepare(const struct reeve_map *m, size_t off, size_t len)
{
    return reeve_map_prepare(m, off, len, LONG);
}

static char scratch[3 * PAGE];

static int by_read(const struct reeve_map *m, size_t off, size_t len)
{
    return reeve_map_read(m, off, scratch, len, LONG);
}

static int by_write(const struct reeve_map *m, size_t off, size_t len)
{
    return reeve_map_write(m, off, scratch, len, LONG);
}

static int by_flush(const struct reeve_map *m, size_t off, size_t len)
{
    return reeve_map_flush(m, off, len, LONG);
}

static int by_start(const struct reeve_map *m, size_t off, size_t len)
{
    return reeve_map_flush_start(m, off, len, LONG);
}

static int by_hint(const struct reeve_map *m, size_t off, size_t len)
{
    return reeve_map_advise(m, off, len, REEVE_MAP_HINT_SEQUENTIAL, LONG);
}

static int by_done(const struct reeve_map *m, size_t off, size_t len)
{
    return reeve_map_advise(m, off, len, REEVE_MAP_HINT_DONE, LONG);
}

static int (*const uses[])(const struct reeve_map *, size_t, size_t) = {
    by_fetch, by_prepare, by_read, by_write, by_flush, by_start, by_hint, by_done,
};
enum { USES = sizeof uses / sizeof *uses };

static int bounds(void *arg)
{
    struct reeve_map m;
    const size_t len = 2 * PAGE + 100;
    (void)arg;
    CHECK_EQ(reeve_map_open(&m, file("file", len), RW, 0, LONG), 0);
    for (int i = 0; i < USES; i++) {
        static const size_t edges[] = { 0, 1, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, 2 * PAGE + 99 };
        for (size_t k = 0; k < sizeof edges / sizeof *edges; k++) {
            CHECK_EQ(uses[i](&m, edges[k], len - edges[k]), 0);
            CHECK_EQ(uses[i](&m, edges[k], 1), 0);
            CHECK_EQ(uses[i](&m, edges[k], len - edges[k] + 1), -ERANGE);
            CHECK_EQ(uses[i](&m, edges[k], SIZE_MAX), -ERANGE);
            if (edges[k] > 0) /* the sum is 0 */
                CHECK_EQ(uses[i](&m, edges[k], SIZE_MAX - edges[k] + 1), -ERANGE);
        }
        CHECK_EQ(uses[i](&m, len, 0), 0);
        CHECK_EQ(uses[i](&m, len, 1), -ERANGE);
        CHECK_EQ(uses[i](&m, len + 1, 0), -ERANGE);
        CHECK_EQ(uses[i](&m, SIZE_MAX, 1), -ERANGE);
        CHECK_EQ(uses[i](&m, SIZE_MAX, SIZE_MAX), -ERANGE);
    }
    reeve_map_close(&m);
    return 0;
}

TEST(bounds_are_erange_and_no_sum_overflows)
{
    RUN(bounds, .workers = 1);
}

/* ---- fetching -------------------------------------------------------------------------------- */

static int fetches(void *arg)
{
    struct reeve_map m;
    int fd = file_of(path_of("file"), 6 * MIB + 5, 0);
    (void)arg;
    if (!make_cold(fd))
        SKIP("this file system does not let go of its pages");
    CHECK_EQ(reeve_map_open(&m, path_of("file"), 0, 0, LONG), 0);
    CHECK_EQ(reeve_map_fetch(&m, 100000, 1000, REEVE_POLL), -ETIMEDOUT);
    uint64_t run = pool().run;
    CHECK_EQ(reeve_map_fetch(&m, 0, m.len, LONG), 0);
    CHECK_EQ(pool().run, run + 2); /* in pieces of 4 MiB */
    for (size_t at = 0; at < m.len; at += MIB) {
        size_t n = m.len - at < MIB ? m.len - at : MIB;
        CHECK_EQ(reeve_map_fetch(&m, at, n, REEVE_POLL), 0);
    }
    CHECK_EQ(pool().run, run + 2);
    CHECK_EQ(reeve_map_fetch(&m, 0, MIB + 1, REEVE_POLL), -ETIMEDOUT); /* more than it looks at */
    check_map(&m, 0);
    reeve_map_close(&m);
    close(fd);
    return 0;
}

TEST(a_fetch_brings_a_cold_file_and_the_next_one_finds_it_without_the_pool)
{
    RUN(fetches, .workers = 1);
}

struct fetch {
    const struct reeve_map *m;
    reeve_time until;
    int result;
};

static int fetch_all(void *arg)
{
    struct fetch *f = arg;
    f->result = reeve_map_fetch(f->m, 0, f->m->len, f->until);
    return 0;
}

/* One thread in the pool. What is in its queue is thrown out; the piece that runs is waited for,
 * and the next one is not begun. */
static int in_vain(void *arg)
{
    struct reeve_map m;
    struct door first = { 0 }, second = { 0 };
    reeve_task *t, *one, *two;
    (void)arg;
    int fd = file_of(path_of("file"), 12 * MIB, 0);
    close(fd);
    CHECK_EQ(reeve_map_open(&m, path_of("file"), 0, 0, LONG), 0);
    uint64_t run = pool().run;
    CHECK_EQ(reeve_spawn(&one, wait_at, &first), 0);
    await_pool(run + 1, 0);
    struct fetch f = { .m = &m, .until = reeve_in(5 * REEVE_MS) };
    CHECK_EQ(fetch_all(&f), 0);
    CHECK_EQ(f.result, -ETIMEDOUT);
    f.until = LONG;
    CHECK_EQ(reeve_spawn(&t, fetch_all, &f), 0);
    await_pool(run + 1, 1);
    CHECK_EQ(reeve_spawn(&two, wait_at, &second), 0);
    await_pool(run + 1, 2);
    open_door(&first);
    await_pool(run + 3, 1); /* both doors and a piece have begun; the next piece waits */
    reeve_cancel(t);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(f.result, -ECANCELED);
    open_door(&second);
    CHECK_EQ(reeve_join(one, NULL, LONG), 0);
    CHECK_EQ(reeve_join(two, NULL, LONG), 0);
    CHECK_EQ(pool().run, run + 3);
    reeve_map_close(&m);
    return 0;
}

TEST(a_deadline_or_a_cancellation_ends_a_fetch_between_two_pieces)
{
    RUN(in_vain, .workers = 1, .offload_max = 1);
    RUN(in_vain, .workers = 2, .offload_max = 1);
}

enum { BEGUN = 1 };

static int after_cancel(void *arg)
{
    struct fetch *f = arg;
    f->result = BEGUN;
    while (reeve_sleep(0) == 0)
        ;
    f->result = reeve_map_fetch(f->m, 0, f->m->len, 0);
    return 0;
}

static int there_anyway(void *arg)
{
    struct reeve_map m;
    reeve_task *t;
    (void)arg;
    CHECK_EQ(reeve_map_open(&m, file("file", MIB), 0, 0, LONG), 0);
    CHECK_EQ(reeve_map_fetch(&m, 0, m.len, LONG), 0);
    struct fetch f = { .m = &m };
    CHECK_EQ(reeve_spawn(&t, after_cancel, &f), 0);
    while (f.result != BEGUN) /* who is cancelled before never begins */
        CHECK_EQ(reeve_sleep(0), 0);
    reeve_cancel(t);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(f.result, 0);
    reeve_map_close(&m);
    return 0;
}

TEST(what_is_in_memory_is_had_even_by_a_task_that_is_cancelled)
{
    RUN(there_anyway, .workers = 1);
}

/* mincore tells a stranger that everything is there. */
static int as_a_stranger(void *arg)
{
    struct reeve_map mine, m;
    const char *path = arg;
    CHECK_EQ(reeve_map_open(&mine, path, 0, 0, LONG), 0);
    CHECK_EQ(reeve_map_fetch(&mine, 0, mine.len, LONG), 0);
    CHECK_EQ(reeve_map_fetch(&mine, 0, mine.len, REEVE_POLL), 0);
    CHECK_EQ(setuid(65534), 0);
    CHECK_EQ(reeve_map_open(&m, path, 0, 0, LONG), 0);
    CHECK_EQ(reeve_map_fetch(&m, 0, m.len, REEVE_POLL), -ETIMEDOUT);
    CHECK_EQ(reeve_map_fetch(&mine, 0, mine.len, REEVE_POLL), -ETIMEDOUT); /* opened before */
    uint64_t run = pool().run;
    CHECK_EQ(reeve_map_fetch(&m, 0, m.len, LONG), 0);
    CHECK_EQ(pool().run, run + 1);
    check_map(&m, 0);
    reeve_map_close(&m);
    reeve_map_close(&mine);
    return 0;
}

TEST(where_the_kernel_does_not_tell_what_is_in_memory_the_pool_fetches)
{
    uring_or_skip();
    if (geteuid() != 0)
        SKIP("only root can become another user");
    const char *path = file("file", 10 * PAGE);
    CHECK_EQ(chmod(folder, 0755), 0);
    int status;
    pid_t child = fork(); /* there is no way back to being root, whose folder it is */
    CHECK_GE(child, 0);
    if (child == 0)
        exit(-reeve_run(as_a_stranger, (void *)(uintptr_t)path, .workers = 1));
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
}

static int without_pool(void *arg)
{
    struct reeve_map m;
    CHECK_EQ(reeve_map_open(&m, arg, 0, 0, LONG), -ENOTSUP);
    return 0;
}

TEST(without_a_pool_nothing_is_mapped)
{
    uring_or_skip();
    const char *path = file("file", 100);
    CHECK_EQ(reeve_run(without_pool, (void *)(uintptr_t)path, .workers = 1,
                       .offload_max = REEVE_NONE), 0);
}

/* ---- copying --------------------------------------------------------------------------------- */

static int copies(void *arg)
{
    static const size_t sizes[] = { 1, 100, PAGE, 65536, 256 << 10, (256 << 10) + 1, 9 * MIB };
    struct reeve_map m;
    unsigned char *buf = malloc(10 * MIB);
    (void)arg;
    CHECK_EQ(reeve_map_open(&m, path_of("file"), RW | REEVE_MAP_CREATE, 10 * MIB, LONG), 0);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (size_t off = 0; off < 5000; off += 1234) {
            size_t n = sizes[i];
            fill_pattern(buf, n, off + i);
            CHECK_EQ(reeve_map_write(&m, off, buf, n, LONG), 0);
            memset(buf, 0, n);
            CHECK_EQ(reeve_map_read(&m, off, buf, n, LONG), 0);
            check_pattern(buf, n, off + i);
            check_pattern((unsigned char *)m.data + off, n, off + i);
        }
    int fd = open(path_of("file"), O_RDONLY | O_CLOEXEC);
    CHECK_EQ(pread(fd, buf, 1000, 3702), 1000);
    CHECK_MEM_EQ(buf, (char *)m.data + 3702, 1000);
    close(fd);
    reeve_map_close(&m);
    CHECK_EQ(reeve_map_open(&m, path_of("file"), 0, 0, LONG), 0);
    CHECK_EQ(reeve_map_write(&m, 0, buf, 1, LONG), -EINVAL);
    CHECK_EQ(reeve_map_prepare(&m, 0, 1, LONG), -EINVAL);
    CHECK_EQ(reeve_map_flush(&m, 0, 1, LONG), -EINVAL);
    CHECK_EQ(reeve_map_flush_start(&m, 0, 1, LONG), -EINVAL);
    reeve_map_close(&m);
    free(buf);
    return 0;
}

TEST(what_is_copied_in_comes_out_whatever_its_size)
{
    RUN(copies, .workers = 1);
    RUN(copies, .workers = 2);
}

static int stays_here(void *arg)
{
    struct reeve_map m, other;
    const char *path = file("file", 3 * PAGE);
    (void)arg;
    CHECK_EQ(reeve_map_open(&m, path, RW | REEVE_MAP_PRIVATE, 0, LONG), 0);
    CHECK_EQ(reeve_map_open(&other, path, 0, 0, LONG), 0);
    CHECK_EQ(reeve_map_prepare(&m, 0, PAGE, LONG), 0);
    memset(m.data, 'x', 100);
    CHECK_EQ(reeve_map_write(&m, PAGE, "mine", 4, LONG), 0);
    CHECK_EQ(reeve_map_read(&m, PAGE, scratch, 4, LONG), 0);
    CHECK_MEM_EQ(scratch, "mine", 4);
    check_map(&other, 0);
    CHECK_EQ(reeve_map_flush(&m, 0, 1, LONG), -EINVAL);
    CHECK_EQ(reeve_map_flush_start(&m, 0, 1, LONG), -EINVAL);
    CHECK_EQ(reeve_map_advise(&m, 0, m.len, REEVE_MAP_HINT_DONE, LONG), -EINVAL);
    CHECK_EQ(((char *)m.data)[99], 'x');
    reeve_map_close(&m);
    reeve_map_close(&other);
    return 0;
}

TEST(what_is_written_to_a_private_map_stays_in_it)
{
    RUN(stays_here, .workers = 1);
}

static int refused(void *arg)
{
    struct reeve_map m;
    (void)arg;
    CHECK_EQ(reeve_map_open(&m, file("file", 100), RW, 0, LONG), 0);
    seccomp_refuse(SYS_process_vm_readv, SECCOMP_ANY_ARGUMENT, EPERM);
    CHECK_EQ(reeve_map_read(&m, 0, scratch, 10, LONG), -EPERM);
    CHECK_EQ(reeve_map_fetch(&m, 0, 100, LONG), 0);
    reeve_map_close(&m);
    return 0;
}

TEST(a_sandbox_that_forbids_the_copying_is_an_error)
{
    RUN(refused, .workers = 1);
}

/* ---- files that become shorter --------------------------------------------------------------- */

static int shorter(void *arg)
{
    struct reeve_map m;
    (void)arg;
    int fd = file_of(path_of("file"), 8 * PAGE, 0);
    CHECK_EQ(reeve_map_open_fd(&m, fd, RW, 0, LONG), 0);
    CHECK_EQ(reeve_map_fetch(&m, 0, m.len, LONG), 0);
    CHECK_EQ(ftruncate(fd, 2 * PAGE + 100), 0);
    for (int i = 0; i < USES; i++) {
        if (uses[i] == by_hint || uses[i] == by_done)
            continue; /* they read and write nothing */
        CHECK_EQ(uses[i](&m, 0, 2 * PAGE + 100), 0);
        CHECK_EQ(uses[i](&m, 0, 2 * PAGE + 101), -EIO); /* within the last page: nothing faults */
        CHECK_EQ(uses[i](&m, 2 * PAGE + 100, 1), -EIO);
        CHECK_EQ(uses[i](&m, 3 * PAGE, 1), -EIO);
        CHECK_EQ(uses[i](&m, 7 * PAGE, PAGE), -EIO);
        CHECK_EQ(uses[i](&m, 0, 3 * PAGE), -EIO);
    }
    CHECK_EQ(size_of(path_of("file")), 2 * PAGE + 100); /* writing did not make it longer */
    CHECK_EQ(reeve_map_ok(&m), 0); /* nobody touched what is gone */
    CHECK_EQ(ftruncate(fd, 8 * PAGE), 0);
    CHECK_EQ(reeve_map_fetch(&m, 0, m.len, LONG), 0); /* it is there again, as zeroes */
    CHECK_EQ(((char *)m.data)[4 * PAGE], 0);
    reeve_map_close(&m);
    close(fd);
    return 0;
}

TEST(a_file_that_became_shorter_is_an_error_to_every_call_and_no_crash)
{
    RUN(shorter, .workers = 1);
    RUN(shorter, .workers = 2);
}

static int private_shorter(void *arg)
{
    struct reeve_map m;
    (void)arg;
    int fd = file_of(path_of("file"), 4 * PAGE, 0);
    CHECK_EQ(reeve_map_open_fd(&m, fd, RW | REEVE_MAP_PRIVATE, 0, LONG), 0);
    CHECK_EQ(reeve_map_write(&m, 3 * PAGE, "mine", 4, LONG), 0);
    CHECK_EQ(ftruncate(fd, PAGE), 0);
    CHECK_EQ(reeve_map_read(&m, 3 * PAGE, scratch, 4, LONG), -EIO); /* what was written there too */
    CHECK_EQ(reeve_map_read(&m, 0, scratch, PAGE, LONG), 0);
    reeve_map_close(&m);
    close(fd);
    return 0;
}

TEST(a_private_map_of_a_file_that_became_shorter_is_no_different)
{
    RUN(private_shorter, .workers = 1);
}

static int sends(void *arg)
{
    struct pair p = pair_make();
    struct reeve_map m;
    (void)arg;
    int fd = file_of(path_of("file"), 2 * PAGE, 0), ends[2];
    CHECK_EQ(reeve_map_open_fd(&m, fd, 0, 0, LONG), 0);
    CHECK_EQ(ftruncate(fd, 0), 0);
    CHECK_EQ(reeve_write(p.fd, m.data, m.len, LONG), -EFAULT);
    CHECK_EQ(pipe(ends), 0);
    CHECK_EQ(reeve_write(ends[1], m.data, m.len, LONG), -EFAULT);
    close(ends[0]);
    close(ends[1]);
    close(fd);
    reeve_map_close(&m);
    pair_close(&p);
    return 0;
}

TEST(sending_what_is_gone_is_efault_and_no_crash)
{
    RUN(sends, .workers = 1);
    RUN(sends, .workers = 2);
}

enum { SERVED = 60, SERVED_BYTES = 512 << 10 };

struct served {
    int fd, peer;
    RV_ATOMIC(uint32_t) begun;
};

static void *cut_and_drain(void *arg)
{
    struct served *s = arg;
    static char buf[16384];
    bool cut = false;
    rv_store_release(&s->begun, 1u);
    while (recv(s->peer, buf, sizeof buf, 0) > 0)
        if (!cut) {
            CHECK_EQ(ftruncate(s->fd, PAGE), 0); /* while the rest is being sent */
            cut = true;
        }
    return NULL;
}

static int serves(void *arg)
{
    int cut_short = 0;
    (void)arg;
    for (int i = 0; i < SERVED; i++) {
        struct pair p = pair_make();
        struct reeve_map m;
        struct served s = { .peer = p.peer };
        pthread_t thread;
        int small = 64 << 10;
        s.fd = file_of(path_of("file"), SERVED_BYTES, 0);
        CHECK_EQ(setsockopt(p.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
        CHECK_EQ(setsockopt(p.peer, SOL_SOCKET, SO_RCVBUF, &small, sizeof small), 0);
        CHECK_EQ(reeve_map_open_fd(&m, s.fd, 0, 0, LONG), 0);
        CHECK_EQ(pthread_create(&thread, NULL, cut_and_drain, &s), 0);
        ssize_t n = reeve_write(p.fd, m.data, m.len, LONG);
        CHECK(n == SERVED_BYTES || n == -EFAULT);
        cut_short += n == -EFAULT;
        reeve_map_close(&m);
        CHECK_EQ(reeve_close(p.fd), 0);
        p.fd = -1;
        CHECK_EQ(pthread_join(thread, NULL), 0);
        close(s.fd);
        pair_close(&p);
    }
    CHECK_GT(cut_short, 0);
    return 0;
}

TEST(a_file_that_is_cut_short_while_it_is_served_costs_one_connection)
{
    RUN(serves, .workers = 1);
}

static int sealed(void *arg)
{
    struct reeve_map m;
    (void)arg;
    int fd = memfd_create("sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK_GE(fd, 0);
    CHECK_EQ(ftruncate(fd, 2 * PAGE), 0);
    CHECK_EQ(reeve_map_open_fd(&m, fd, REEVE_MAP_SEALED, 0, LONG), -EPERM);
    CHECK_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
    CHECK_EQ(reeve_map_open_fd(&m, fd, RW | REEVE_MAP_SEALED, 0, LONG), 0);
    CHECK_EQ(ftruncate(fd, PAGE), -1);
    CHECK_EQ(reeve_map_write(&m, PAGE, "safe", 4, LONG), 0);
    CHECK_MEM_EQ((char *)m.data + PAGE, "safe", 4);
    CHECK_EQ(reeve_map_flush(&m, 0, m.len, LONG), 0);
    reeve_map_close(&m);
    close(fd);
    return 0;
}

TEST(a_sealed_map_is_of_a_file_that_nobody_can_shorten)
{
    RUN(sealed, .workers = 1);
}

/* ---- to the disk ----------------------------------------------------------------------------- */

static void check_in_another_process(const char *path, size_t len, uint64_t at)
{
    int status;
    pid_t child = fork();
    CHECK_GE(child, 0);
    if (child == 0) { /* has one thread, and calls only the system */
        static unsigned char block[PAGE];
        int fd = open(path, O_RDONLY);
        for (size_t done = 0; done < len;) {
            ssize_t n = read(fd, block, sizeof block);
            if (n <= 0)
                _exit(1);
            for (ssize_t i = 0; i < n; i++)
                if (block[i] != pattern(at + done + (size_t)i))
                    _exit(2);
            done += (size_t)n;
        }
        _exit(0);
    }
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
}

static int flushes(void *arg)
{
    struct reeve_map m;
    const char *path = path_of("file");
    const size_t len = 20 * MIB + 300; /* two pieces */
    (void)arg;
    CHECK_EQ(reeve_map_open(&m, path, RW | REEVE_MAP_CREATE, len, LONG), 0);
    CHECK_EQ(reeve_map_prepare(&m, 0, len, LONG), 0);
    fill_pattern(m.data, len, 77);
    CHECK_EQ(reeve_map_flush(&m, 0, len, LONG), 0);
    check_in_another_process(path, len, 77);
    CHECK_EQ(reeve_map_flush(&m, 5000, 10, LONG), 0);
    CHECK_EQ(reeve_map_flush(&m, 0, len, REEVE_POLL), -ETIMEDOUT);
    reeve_map_close(&m);
    return 0;
}

TEST(what_was_flushed_another_process_reads)
{
    RUN(flushes, .workers = 1);
}

struct cache_range {
    uint64_t off, len;
};
struct cache_counts {
    uint64_t cached, dirty, under_way, evicted, recently;
};

/* False: this kernel or file system does not tell. */
static bool counts_of(int fd, struct cache_counts *ret)
{
    struct cache_range all = { 0, 0 };
    return syscall(451 /* cachestat, Linux 6.5 */, fd, &all, ret, 0) == 0;
}

static int starts(void *arg)
{
    struct reeve_map m;
    struct cache_counts n;
    struct statfs fs;
    (void)arg;
    int fd = file_of(path_of("file"), 8 * MIB, 0);
    CHECK_EQ(fstatfs(fd, &fs), 0);
    CHECK_EQ(fsync(fd), 0);
    if (fs.f_type == TMPFS_MAGIC || !counts_of(fd, &n))
        SKIP("this system does not tell which pages are to be written");
    CHECK_EQ(reeve_map_open_fd(&m, fd, RW, 0, LONG), 0);
    CHECK_EQ(reeve_map_prepare(&m, 0, m.len, LONG), 0);
    memset(m.data, 'x', m.len);
    CHECK(counts_of(fd, &n));
    uint64_t dirty = n.dirty;
    CHECK_GT(dirty, 0);
    CHECK_EQ(reeve_map_flush_start(&m, 0, m.len, LONG), 0);
    CHECK(counts_of(fd, &n));
    /* Under way, or over; but for what the system itself was writing while we wrote to it: that is
     * passed over. */
    CHECK_LE(n.dirty, dirty / 2);
    CHECK_EQ(reeve_map_flush(&m, 0, m.len, LONG), 0);
    CHECK(counts_of(fd, &n));
    CHECK_EQ(n.under_way, 0);
    reeve_map_close(&m);
    close(fd);
    return 0;
}

TEST(a_write_back_is_started_as_msync_async_would_not)
{
    RUN(starts, .workers = 1);
}

static int on_full_disk(void *arg)
{
    struct reeve_map m;
    const char *path = arg;
    CHECK_EQ(reeve_map_open(&m, path, RW | REEVE_MAP_CREATE, 64 * PAGE, LONG), -ENOSPC);
    CHECK_EQ(unlink(path), 0);
    CHECK_EQ(reeve_map_open(&m, path, RW | REEVE_MAP_CREATE | REEVE_MAP_SPARSE, 64 * PAGE, LONG),
             0);
    CHECK_EQ(reeve_map_prepare(&m, 0, 4 * PAGE, LONG), 0);
    CHECK_EQ(reeve_map_prepare(&m, 0, 64 * PAGE, LONG), -EIO);
    CHECK_EQ(reeve_map_write(&m, 63 * PAGE, "x", 1, LONG), -EIO);
    CHECK_EQ(reeve_map_guard(), 0);
    memset((char *)m.data + 60 * PAGE, 'x', PAGE); /* a hole, and nothing to fill it with */
    CHECK_EQ(reeve_map_ok(&m), -EIO);
    reeve_map_unguard();
    reeve_map_close(&m);
    return 0;
}

TEST(a_full_disk_is_an_error_where_blocks_are_wanted_and_not_a_crash_later)
{
    uring_or_skip();
    char path[160], disk[140];
    snprintf(disk, sizeof disk, "%s", path_of("disk"));
    snprintf(path, sizeof path, "%s/file", disk);
    CHECK_EQ(mkdir(disk, 0755), 0);
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("reeve-test", disk, "tmpfs", 0, "size=64k") < 0)
        SKIP("only root can have a small disk of its own");
    CHECK_EQ(reeve_run(on_full_disk, path, .workers = 1), 0);
    CHECK_EQ(umount2(disk, MNT_DETACH), 0);
}

/* ---- hints ----------------------------------------------------------------------------------- */

static int hints(void *arg)
{
    struct reeve_map m;
    int fd = file_of(path_of("file"), MIB, 0);
    (void)arg;
    bool cold = make_cold(fd);
    CHECK_EQ(reeve_map_open_fd(&m, fd, RW | REEVE_MAP_HUGE, 0, LONG), 0);
    for (int h = REEVE_MAP_HINT_NORMAL; h <= REEVE_MAP_HINT_DONE; h++) {
        int r = reeve_map_advise(&m, 5000, m.len - 10000, (enum reeve_map_hint)h, LONG);
        CHECK(r == 0 || (r == -ENOTSUP && h == REEVE_MAP_HINT_HUGE));
        bool pool_does = h >= REEVE_MAP_HINT_WILL_NEED;
        r = reeve_map_advise(&m, 0, m.len, (enum reeve_map_hint)h, REEVE_POLL);
        CHECK(r == (pool_does ? -ETIMEDOUT : 0) || r == -ENOTSUP);
    }
    CHECK_EQ(reeve_map_advise(&m, 0, 1, (enum reeve_map_hint)99, LONG), -EINVAL);
    CHECK_EQ(reeve_map_advise(&m, 0, 1, (enum reeve_map_hint)-1, LONG), -EINVAL);
    memset(m.data, 'y', m.len);
    CHECK_EQ(reeve_map_flush(&m, 0, m.len, LONG), 0);
    CHECK_EQ(reeve_map_advise(&m, 0, m.len, REEVE_MAP_HINT_DONE, LONG), 0);
    if (cold)
        CHECK_EQ(reeve_map_fetch(&m, 0, m.len, REEVE_POLL), -ETIMEDOUT);
    CHECK_EQ(reeve_map_fetch(&m, 0, m.len, LONG), 0);
    for (size_t i = 0; i < m.len; i++)
        CHECK(((char *)m.data)[i] == 'y');
    reeve_map_close(&m);
    close(fd);
    return 0;
}

TEST(hints_are_taken_and_done_lets_the_memory_go_and_loses_nothing)
{
    RUN(hints, .workers = 1);
}

static int takes_back(void *arg)
{
    struct reeve_map m;
    (void)arg;
    CHECK_EQ(reeve_map_open(&m, file("file", 16 * PAGE), 0, 0, LONG), 0);
    const struct rv_map *r = (const struct rv_map *)m.opaque[0];
    CHECK(!rv_map_is_random(r, 0, m.len));
    CHECK_EQ(reeve_map_advise(&m, 4 * PAGE, 2 * PAGE, REEVE_MAP_HINT_RANDOM, REEVE_POLL), 0);
    CHECK_EQ(reeve_map_advise(&m, 9 * PAGE + 1, 1, REEVE_MAP_HINT_RANDOM, REEVE_POLL), 0);
    CHECK(rv_map_is_random(r, 0, m.len));
    CHECK(rv_map_is_random(r, 4 * PAGE, 1));
    CHECK(rv_map_is_random(r, 9 * PAGE, 1));
    CHECK(!rv_map_is_random(r, 0, 4 * PAGE));
    CHECK(!rv_map_is_random(r, 10 * PAGE, 6 * PAGE));
    CHECK_EQ(reeve_map_advise(&m, 4 * PAGE, 5 * PAGE, REEVE_MAP_HINT_NORMAL, REEVE_POLL), 0);
    CHECK(rv_map_is_random(r, 9 * PAGE, 1)); /* that was not all of it */
    CHECK_EQ(reeve_map_advise(&m, 4 * PAGE, 6 * PAGE, REEVE_MAP_HINT_NORMAL, REEVE_POLL), 0);
    CHECK(!rv_map_is_random(r, 0, m.len));
    CHECK_EQ(reeve_map_advise(&m, 0, m.len, REEVE_MAP_HINT_RANDOM, REEVE_POLL), 0);
    CHECK(rv_map_is_random(r, 15 * PAGE, 1));
    CHECK_EQ(reeve_map_advise(&m, 0, m.len, REEVE_MAP_HINT_SEQUENTIAL, REEVE_POLL), 0);
    CHECK(!rv_map_is_random(r, 0, m.len));
    CHECK_EQ(reeve_map_fetch(&m, 0, m.len, LONG), 0);
    reeve_map_close(&m);
    return 0;
}

TEST(what_was_said_to_be_used_at_random_is_taken_back_by_the_next_hint)
{
    RUN(takes_back, .workers = 1);
}

static int keeps_neighbours(void *arg)
{
    struct reeve_map m;
    (void)arg;
    int fd = file_of(path_of("file"), 4 * PAGE, 0);
    bool cold = make_cold(fd);
    CHECK_EQ(reeve_map_open_fd(&m, fd, 0, 0, LONG), 0);
    CHECK_EQ(reeve_map_fetch(&m, 0, m.len, LONG), 0);
    CHECK_EQ(reeve_map_advise(&m, 100, 2 * PAGE, REEVE_MAP_HINT_DONE, LONG), 0);
    CHECK_EQ(reeve_map_fetch(&m, 0, PAGE, REEVE_POLL), 0);
    CHECK_EQ(reeve_map_fetch(&m, 2 * PAGE, 2 * PAGE, REEVE_POLL), 0);
    if (cold)
        CHECK_EQ(reeve_map_fetch(&m, PAGE, 1, REEVE_POLL), -ETIMEDOUT);
    reeve_map_close(&m);
    close(fd);
    return 0;
}

TEST(done_drops_no_page_that_lies_in_the_range_only_in_part)
{
    RUN(keeps_neighbours, .workers = 1);
}

/* ---- misuse, want, ends ---------------------------------------------------------------------- */

static int use_closed(void *arg)
{
    struct reeve_map m, copy;
    CHECK_EQ(reeve_map_open(&m, arg, 0, 0, LONG), 0);
    copy = m;
    reeve_map_close(&m);
    return reeve_map_fetch(&copy, 0, 1, LONG);
}

static int close_twice(void *arg)
{
    struct reeve_map m, copy;
    CHECK_EQ(reeve_map_open(&m, arg, 0, 0, LONG), 0);
    copy = m;
    reeve_map_close(&m);
    CHECK_EQ(reeve_map_open(&m, arg, 0, 0, LONG), 0); /* the same record again */
    reeve_map_close(&copy);
    return 0;
}

static int close_in_use(void *arg)
{
    struct reeve_map m;
    struct door d = { 0 };
    CHECK_EQ(reeve_map_open(&m, arg, 0, 0, LONG), 0);
    struct fetch f = { .m = &m, .until = LONG };
    CHECK_EQ(reeve_go(wait_at, &d), 0);
    await_pool(2, 0);
    CHECK_EQ(reeve_go(fetch_all, &f), 0);
    await_pool(2, 1);
    reeve_map_close(&m);
    return 0;
}

TEST(a_closed_map_that_is_used_and_a_used_map_that_is_closed_end_the_program)
{
    uring_or_skip();
    void *path = (void *)(uintptr_t)file("file", 2 * MIB); /* more than a fetch looks at */
    CHECK_DIES("used after reeve_map_close", reeve_run(use_closed, path, .workers = 1));
    CHECK_DIES("used after reeve_map_close", reeve_run(close_twice, path, .workers = 1));
    CHECK_DIES("while another call on the map waits",
               reeve_run(close_in_use, path, .workers = 1, .offload_max = 1));
}

TEST(a_call_that_waits_aborts_outside_a_task)
{
    struct reeve_map m = { 0 };
    CHECK_DIES("reeve_map_open", reeve_map_open(&m, "/", 0, 0, 0));
    CHECK_DIES("reeve_map_fetch", reeve_map_fetch(&m, 0, 0, 0));
}

static int open_close(void *arg)
{
    struct reeve_map m;
    int r = reeve_map_open(&m, arg, 0, 0, LONG);
    if (r == 0)
        reeve_map_close(&m);
    return r;
}

static int in_want(void *arg)
{
    unsigned before = fds_open();
    const char *name;
    CHECK_EQ(open_close(arg), 0); /* the table of records is made before the count begins */
    int failures = 0;
    rv_fault_only("map.");
    do {
        rv_fault_fail_nth((uint64_t)++failures);
        int r = open_close(arg);
        name = rv_fault_last_name();
        if (name && strcmp(name, "map.record") == 0)
            CHECK_EQ(r, -EAGAIN); /* as many maps as may be */
        else
            CHECK_EQ(r, name ? -ENOMEM : 0);
    } while (name);
    rv_fault_off();
    CHECK_EQ(failures, 3);
    CHECK_EQ(fds_open(), before);
    CHECK_EQ(maps_live(), 0);
    return 0;
}

TEST(every_want_of_memory_is_an_error_and_leaks_no_descriptor)
{
    uring_or_skip();
    if (!rv_fault_available())
        SKIP("built without fault points");
    void *path = (void *)(uintptr_t)file("file", 100);
    CHECK_EQ(reeve_run(in_want, path, .workers = 1), 0);
}

/* The pool takes a large one down while everybody goes on; at the runtime's end, who ends it. */
static int large(void *arg)
{
    struct reeve_map m[4];
    struct door d = { 0 };
    struct reeve_map_stats st;
    reeve_task *t;
    (void)arg;
    for (int i = 0; i < 4; i++)
        CHECK_EQ(reeve_map_open(&m[i], path_of("file"), 0, 0, LONG), 0);
    uint64_t run = pool().run;
    CHECK_EQ(reeve_spawn(&t, wait_at, &d), 0);
    await_pool(run + 1, 0);
    reeve_map_close(&m[0]);
    reeve_map_stats(&st);
    CHECK_EQ(st.live, 4);
    CHECK_EQ(st.live_bytes, 4 * 4 * MIB);
    open_door(&d);
    while (maps_live() > 3)
        CHECK_OK(reeve_sleep(0));
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    for (int i = 1; i < 4; i++)
        reeve_map_close(&m[i]);
    return 0;
}

TEST(a_large_map_is_taken_down_by_the_pool_and_none_is_left_at_the_end)
{
    file("file", 4 * MIB);
    RUN(large, .workers = 1, .offload_max = 1);
    struct reeve_map_stats st;
    reeve_map_stats(&st);
    CHECK_EQ(st.live, 0);
    CHECK_EQ(st.live_bytes, 0);
}

/* ---- many at a time -------------------------------------------------------------------------- */

enum { MANY = 40, ROUNDS = 20 };
static char shared_path[128];

static int open_read_close(void *arg)
{
    struct reeve_map m;
    unsigned char buf[5000];
    uint32_t x = (uint32_t)(uintptr_t)arg * 2654435761u + 1;
    for (int i = 0; i < ROUNDS; i++) {
        CHECK_EQ(reeve_map_open(&m, shared_path, 0, 0, LONG), 0);
        x = x * 1664525u + 1013904223u;
        size_t off = x % (m.len - sizeof buf);
        CHECK_EQ(reeve_map_read(&m, off, buf, sizeof buf, LONG), 0);
        check_pattern(buf, sizeof buf, off);
        CHECK_EQ(reeve_map_fetch(&m, off, sizeof buf, LONG), 0);
        check_pattern((unsigned char *)m.data + off, sizeof buf, off);
        reeve_map_close(&m);
    }
    return 0;
}

static int many(void *arg)
{
    reeve_group g = { 0 };
    (void)arg;
    for (uintptr_t i = 0; i < MANY; i++)
        CHECK_EQ(reeve_go(open_read_close, (void *)i, .group = &g), 0);
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    await_no_maps();
    return 0;
}

TEST(many_tasks_map_and_read_at_a_time)
{
    snprintf(shared_path, sizeof shared_path, "%s", file("file", 2 * MIB));
    RUN(many, .workers = 1);
    RUN(many, .workers = 2);
}
