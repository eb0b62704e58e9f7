/* SPDX-License-Identifier: MIT */
/*
 * file_rw_test.c -- transfers at offsets: complete, short only at the end, and bounded in time.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <limits.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include <reeve/file.h>

#include "tests/io/pair.h"
#include "tests/io/scratch.h"

#define SOON reeve_in(2 * REEVE_MS)

/* ---- one piece ------------------------------------------------------------------------------- */

static int odd_sizes(void *arg)
{
    (void)arg;
    static const size_t sizes[] = { 1, 2, 511, 512, 513, 4095, 4097, 65537, 1000003 };
    int fd = reeve_open(scratch("file"), O_RDWR | O_CREAT, 0600, LONG);
    unsigned char *buf = malloc(1000003 + 2);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t len = sizes[i];
        uint64_t off = len * 7 + 3;
        fill_pattern(buf + 1, len, off);
        CHECK_EQ(reeve_pwrite(fd, buf + 1, len, off, LONG), (ssize_t)len);
        memset(buf, 0xa5, len + 2);
        CHECK_EQ(reeve_pread(fd, buf + 1, len, off, LONG), (ssize_t)len);
        check_pattern(buf + 1, len, off);
        CHECK_EQ(buf[0], 0xa5); /* and nothing beside it */
        CHECK_EQ(buf[len + 1], 0xa5);
    }
    free(buf);
    CHECK_EQ(reeve_close(fd), 0);
    return 0;
}

TEST(any_size_at_any_offset_comes_back_equal)
{
    RUN(odd_sizes, .workers = 1);
}

static int ends(void *arg)
{
    (void)arg;
    char buf[32];
    scratch_file(scratch("file"), "0123456789", 10);
    int fd = reeve_open(scratch("file"), O_RDWR, 0, LONG);
    CHECK_EQ(reeve_pread(fd, buf, 10, 0, LONG), 10);
    CHECK_EQ(reeve_pread(fd, buf, sizeof buf, 4, LONG), 6);
    CHECK_MEM_EQ(buf, "456789", 6);
    CHECK_EQ(reeve_pread(fd, buf, sizeof buf, 10, LONG), 0);
    CHECK_EQ(reeve_pread(fd, buf, sizeof buf, UINT64_C(1) << 40, LONG), 0);
    CHECK_EQ(reeve_pread(fd, buf, 0, 0, LONG), 0);
    CHECK_EQ(reeve_pwrite(fd, buf, 0, 0, LONG), 0);
    CHECK_EQ(reeve_pwrite(fd, "end", 3, 20, LONG), 3);
    CHECK_EQ(reeve_pread(fd, buf, sizeof buf, 8, LONG), 15);
    CHECK_MEM_EQ(buf, "89\0\0\0\0\0\0\0\0\0\0end", 15);
    CHECK_EQ(reeve_close(fd), 0);
    return 0;
}

TEST(a_read_is_short_at_the_end_only)
{
    RUN(ends, .workers = 1);
}

static int refused(void *arg)
{
    (void)arg;
    char buf[8] = { 0 };
    const uint64_t far = (uint64_t)INT64_MAX;
    scratch_file(scratch("file"), "x", 1);
    int fd = reeve_open(scratch("file"), O_RDONLY, 0, LONG);
    int sink = reeve_open(scratch("file"), O_WRONLY, 0, LONG);
    int dir = reeve_open(scratch(""), O_RDONLY | O_DIRECTORY, 0, LONG);
    struct iovec vast[] = { { buf, SSIZE_MAX }, { buf, 1 } };
    CHECK_EQ(reeve_pread(fd, buf, 1, far + 1, LONG), -ERANGE);
    CHECK_EQ(reeve_pread(fd, buf, 8, far - 7, LONG), -ERANGE);
    CHECK_EQ(reeve_pread(fd, buf, 8, far - 8, LONG), 0);
    CHECK_EQ(reeve_pread(fd, buf, 1, UINT64_MAX, LONG), -ERANGE); /* not the position */
    CHECK_EQ(reeve_pwrite(sink, buf, 8, far - 7, LONG), -ERANGE);
    CHECK_EQ(reeve_pwrite(fd, buf, 1, 0, LONG), -EBADF);
    CHECK_EQ(reeve_pread(sink, buf, 1, 0, LONG), -EBADF);
    CHECK_EQ(reeve_pread(dir, buf, 1, 0, LONG), -EISDIR);
    CHECK_EQ(reeve_pread(-1, buf, 1, 0, LONG), -EBADF);
    CHECK_EQ(reeve_pread(AT_FDCWD, buf, 1, 0, LONG), -EBADF);
    CHECK_EQ(reeve_pread(1 << 19, buf, 1, 0, LONG), -EBADF);
    CHECK_EQ(reeve_pread(RV_FDS_MAX + 5, buf, 1, 0, LONG), -EBADF);
    CHECK_EQ(reeve_pread(fd, (void *)8, 1, 0, LONG), -EFAULT);
    CHECK_EQ(reeve_pwritev(sink, vast, 2, 0, LONG), -EINVAL);
    CHECK_EQ(reeve_preadv(fd, vast, -1, 0, LONG), -EINVAL);
    CHECK_EQ(reeve_preadv(fd, NULL, 0, 0, LONG), 0);
    CHECK_EQ(reeve_close(fd), 0);
    CHECK_EQ(reeve_close(sink), 0);
    CHECK_EQ(reeve_close(dir), 0);
    CHECK_EQ(reeve_pread(fd, buf, 1, 0, LONG), -EBADF);
    return 0;
}

TEST(a_transfer_that_cannot_be_is_refused)
{
    RUN(refused, .workers = 1);
}

/* ---- vectors --------------------------------------------------------------------------------- */

enum { PIECES = 3000, GAP = 3 };
_Static_assert(PIECES > 2 * IOV_MAX, "more than two requests take");

static size_t piece_len(size_t i)
{
    return i % 7 == 3 ? 0 : 1 + i * 31 % 61; /* some are empty */
}

/* Pieces of odd sizes with a gap behind each; the sum of their lengths. */
static size_t cut_up(struct iovec *v, unsigned char *mem)
{
    size_t total = 0, at = 0;
    for (size_t i = 0; i < PIECES; i++) {
        v[i] = (struct iovec){ mem + at, piece_len(i) };
        total += v[i].iov_len;
        at += v[i].iov_len + GAP;
    }
    return total;
}

static unsigned char vector_mem[PIECES * (61 + GAP)];

static void fill_pieces(struct iovec *v)
{
    size_t at = 0;
    for (size_t i = 0; i < PIECES; at += v[i++].iov_len)
        fill_pattern(v[i].iov_base, v[i].iov_len, at);
}

static void check_pieces(const struct iovec *v, size_t total)
{
    size_t at = 0;
    for (size_t i = 0; i < PIECES; i++) {
        size_t len = at + v[i].iov_len <= total ? v[i].iov_len : total > at ? total - at : 0;
        check_pattern(v[i].iov_base, len, at);
        at += v[i].iov_len;
        for (int k = 0; k < GAP; k++)
            CHECK_EQ(((unsigned char *)v[i].iov_base)[v[i].iov_len + (size_t)k], 0xa5);
    }
}

static int vectors(void *arg)
{
    (void)arg;
    struct iovec *v = malloc(sizeof *v * PIECES), *copy = malloc(sizeof *v * PIECES);
    int fd = reeve_open(scratch("file"), O_RDWR | O_CREAT, 0600, LONG);
    memset(vector_mem, 0xa5, sizeof vector_mem);
    size_t total = cut_up(v, vector_mem);
    memcpy(copy, v, sizeof *v * PIECES);
    fill_pieces(v);
    CHECK_EQ(reeve_pwritev(fd, v, PIECES, 11, LONG), (ssize_t)total);
    CHECK_MEM_EQ(v, copy, sizeof *v * PIECES); /* the array is as it was */

    unsigned char *plain = malloc(total);
    CHECK_EQ(reeve_pread(fd, plain, total, 11, LONG), (ssize_t)total);
    check_pattern(plain, total, 0);
    memset(vector_mem, 0xa5, sizeof vector_mem);
    CHECK_EQ(reeve_preadv(fd, v, PIECES, 11, LONG), (ssize_t)total);
    check_pieces(v, total);
    CHECK_EQ(reeve_ftruncate(fd, 11 + total / 2, LONG), 0);
    memset(vector_mem, 0xa5, sizeof vector_mem);
    CHECK_EQ(reeve_preadv(fd, v, PIECES, 11, LONG), (ssize_t)(total / 2));
    check_pieces(v, total / 2);
    CHECK_EQ(reeve_close(fd), 0);
    free(plain);
    free(copy);
    free(v);
    return 0;
}

TEST(a_vector_longer_than_iov_max_is_one_transfer)
{
    RUN(vectors, .workers = 1);
}

static int empty_vectors(void *arg)
{
    (void)arg;
    struct iovec *v = calloc(PIECES, sizeof *v); /* all empty ... */
    char c = 0;
    scratch_file(scratch("file"), "x", 1);
    int fd = reeve_open(scratch("file"), O_RDONLY, 0, LONG);
    CHECK_EQ(reeve_preadv(fd, v, PIECES, 0, LONG), 0);
    v[PIECES - 1] = (struct iovec){ &c, 1 }; /* ... but for the last */
    CHECK_EQ(reeve_preadv(fd, v, PIECES, 0, LONG), 1);
    CHECK_EQ(c, 'x');
    CHECK_EQ(reeve_close(fd), 0);
    free(v);
    return 0;
}

TEST(empty_pieces_are_not_taken_for_the_end)
{
    RUN(empty_vectors, .workers = 1);
}

/* A pipe takes and gives what fits: transfers stop inside pieces. */
struct drain {
    int fd;
    size_t total;
};

static void *drain_pattern(void *arg)
{
    struct drain *d = arg;
    static unsigned char buf[7001];
    ssize_t n;
    while ((n = read(d->fd, buf, sizeof buf)) > 0) {
        check_pattern(buf, (size_t)n, d->total);
        d->total += (size_t)n;
    }
    CHECK_EQ(n, 0);
    return NULL;
}

enum { LARGE = 3, LARGE_LEN = 333333 };

static int in_parts(void *arg)
{
    (void)arg;
    int fds[2];
    pthread_t thread;
    struct iovec v[LARGE];
    CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
    for (int i = 0; i < LARGE; i++) {
        v[i] = (struct iovec){ malloc(LARGE_LEN), LARGE_LEN };
        fill_pattern(v[i].iov_base, LARGE_LEN, (uint64_t)i * LARGE_LEN);
    }
    struct drain d = { .fd = fds[0] };
    CHECK_EQ(pthread_create(&thread, NULL, drain_pattern, &d), 0);
    CHECK_EQ(reeve_pwritev(fds[1], v, LARGE, 0, LONG), LARGE * LARGE_LEN);
    close(fds[1]);
    join_thread(thread);
    CHECK_EQ(d.total, LARGE * LARGE_LEN);
    close(fds[0]);
    for (int i = 0; i < LARGE; i++)
        free(v[i].iov_base);
    return 0;
}

TEST(a_transfer_that_stops_inside_a_piece_goes_on_there)
{
    RUN(in_parts, .workers = 1);
    RUN(in_parts, .workers = 2);
}

static void *feed_pattern(void *arg)
{
    int fd = *(int *)arg;
    unsigned char buf[997];
    for (size_t at = 0; at < (size_t)LARGE * LARGE_LEN;) {
        size_t left = (size_t)LARGE * LARGE_LEN - at, len = left < sizeof buf ? left : sizeof buf;
        fill_pattern(buf, len, at);
        CHECK_EQ(write(fd, buf, len), (ssize_t)len);
        at += len;
    }
    close(fd);
    return NULL;
}

static int read_in_parts(void *arg)
{
    (void)arg;
    int fds[2];
    pthread_t thread;
    struct iovec v[LARGE];
    CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
    for (int i = 0; i < LARGE; i++)
        v[i] = (struct iovec){ malloc(LARGE_LEN + 100), LARGE_LEN + (i == LARGE - 1 ? 100 : 0) };
    CHECK_EQ(pthread_create(&thread, NULL, feed_pattern, &fds[1]), 0);
    CHECK_EQ(reeve_preadv(fds[0], v, LARGE, 0, LONG), LARGE * LARGE_LEN);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    for (int i = 0; i < LARGE; i++) {
        check_pattern(v[i].iov_base, LARGE_LEN, (uint64_t)i * LARGE_LEN);
        free(v[i].iov_base);
    }
    close(fds[0]);
    return 0;
}

TEST(a_short_read_that_is_not_the_end_goes_on)
{
    RUN(read_in_parts, .workers = 1);
    RUN(read_in_parts, .workers = 2);
}

/* ---- time and other tasks -------------------------------------------------------------------- */

static int write_nowhere(void *arg)
{
    int fds[2];
    (void)arg;
    CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
    close(fds[0]);
    if (my_io()->io->caps.rwf_nosignal)
        CHECK_EQ(reeve_pwrite(fds[1], "x", 1, 0, LONG), -EPIPE);
    close(fds[1]);
    return 0;
}

TEST(a_write_to_a_broken_pipe_raises_no_signal)
{
    RUN(write_nowhere, .workers = 1);
}

struct reading {
    int fd;
    reeve_time until;
    ssize_t result;
};

static int read_in_task(void *arg)
{
    struct reading *r = arg;
    char buf[16];
    r->result = reeve_pread(r->fd, buf, sizeof buf, 0, r->until);
    return 0;
}

static int ended(void *arg)
{
    (void)arg;
    int fds[2];
    reeve_task *t;
    CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
    struct reading r = { fds[0], SOON, 0 };
    read_in_task(&r);
    CHECK_EQ(r.result, -ETIMEDOUT);
    CHECK_EQ(write(fds[1], "part", 4), 4);
    r.until = SOON;
    read_in_task(&r); /* some of it, and then the deadline */
    CHECK_EQ(r.result, -ETIMEDOUT);
    r.until = LONG;
    CHECK_EQ(reeve_spawn(&t, read_in_task, &r), 0);
    await_waiter(fds[0], AN_OP);
    reeve_cancel(t);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(r.result, -ECANCELED);
    CHECK_EQ(reeve_spawn(&t, read_in_task, &r), 0);
    await_waiter(fds[0], AN_OP);
    CHECK_EQ(reeve_close(fds[0]), 0);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(r.result, -ECANCELED);
    await_closed(fds[0]);
    close(fds[1]);
    return 0;
}

TEST(a_transfer_ends_by_deadline_cancellation_and_close)
{
    RUN(ended, .workers = 1);
    RUN(ended, .workers = 2);
}

static int cached(void *arg)
{
    (void)arg;
    char buf[4];
    scratch_file(scratch("file"), "here", 4);
    int fd = reeve_open(scratch("file"), O_RDONLY, 0, LONG);
    if (preadv2(fd, &(struct iovec){ buf, 4 }, 1, 0, RWF_NOWAIT) != 4)
        SKIP("this file system does not read without waiting");
    CHECK_EQ(reeve_pread(fd, buf, 4, 0, REEVE_POLL), 4);
    CHECK_MEM_EQ(buf, "here", 4);
    CHECK_EQ(reeve_close(fd), 0);
    return 0;
}

TEST(what_the_cache_holds_is_read_at_once_or_never)
{
    RUN(cached, .workers = 1);
}

enum { STORMERS = 24, STORM_ROUNDS = 30, PART = 3000 };

struct stormer {
    int fd, index;
    uint64_t wrong;
};

/* Writes and reads back its own part of the file under deadlines that often have passed; what was
 * reported as done is there, and nothing but the buffer was touched. */
static int storm(void *arg)
{
    struct stormer *s = arg;
    unsigned char buf[PART + 32];
    uint64_t off = (uint64_t)s->index * PART, seed = (uint64_t)s->index + 1;
    for (int i = 0; i < STORM_ROUNDS; i++) {
        seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
        int64_t ns = (int64_t)(seed >> 33) % (200 * REEVE_US);
        memset(buf, 0xa5, sizeof buf);
        fill_pattern(buf + 16, PART, off);
        ssize_t n = reeve_pwrite(s->fd, buf + 16, PART, off, i % 3 ? reeve_in(ns) : LONG);
        CHECK(n == PART || n == -ETIMEDOUT || n == -ECANCELED);
        bool there = n == PART || i > 0;
        n = reeve_pread(s->fd, buf + 16, PART, off, i % 2 ? reeve_in(ns) : LONG);
        CHECK(n == -ETIMEDOUT || n == -ECANCELED || !there || n == PART);
        if (n == PART && there)
            check_pattern(buf + 16, PART, off);
        for (int k = 0; k < 16; k++)
            CHECK(buf[k] == 0xa5 && buf[PART + 16 + k] == 0xa5);
        if (n == -ECANCELED)
            break;
    }
    return 0;
}

static int storms(void *arg)
{
    (void)arg;
    struct stormer s[STORMERS];
    struct reeve_group g = { 0 };
    int fd = reeve_open(scratch("file"), O_RDWR | O_CREAT | O_TRUNC, 0600, LONG);
    CHECK_EQ(reeve_ftruncate(fd, STORMERS * PART, LONG), 0);
    for (int i = 0; i < STORMERS; i++) {
        s[i] = (struct stormer){ .fd = fd, .index = i };
        CHECK_EQ(reeve_spawn(NULL, storm, &s[i], .group = &g), 0);
    }
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    CHECK_EQ(reeve_close(fd), 0);
    return 0;
}

TEST(transfers_under_deadlines_touch_their_buffers_only)
{
    RUN(storms, .workers = 1);
    RUN(storms, .workers = 2);
}
