/* SPDX-License-Identifier: MIT */
/*
 * arena_test.c -- aligned buffers: cut and melted, lent in order, and known to every ring.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <reeve/file.h>

#include "io/arena.h"
#include "mem/fault.h"
#include "tests/io/pair.h"
#include "tests/io/scratch.h"

#define SOON reeve_in(2 * REEVE_MS)

enum { KIB = 1024, MIB = 1024 * KIB };

static struct rv_arena_stats stats(void)
{
    struct rv_arena_stats st;
    rv_arena_stats(my_io()->io, &st);
    return st;
}

static struct reeve_buf *borrow(size_t bytes)
{
    struct reeve_buf *b = NULL;
    CHECK_EQ(reeve_buf_borrow_aligned(&b, bytes, LONG), 0);
    return b;
}

/* ---- lending --------------------------------------------------------------------------------- */

static int shapes(void *arg)
{
    (void)arg;
    static const size_t asked[] = { 1, 4096, 4097, 10000, 65536, 262145 };
    static const size_t given[] = { 4096, 4096, 8192, 16384, 65536, 524288 };
    struct reeve_buf *b = NULL;
    CHECK_EQ(stats().bytes, 0); /* nothing is pinned for who has no use for it */
    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
        b = borrow(asked[i]);
        CHECK_EQ(b->cap, given[i]);
        CHECK_EQ(b->len, 0);
        CHECK_EQ((uintptr_t)b->data % 4096, 0);
        memset(b->data, 1, b->cap);
        reeve_buf_return(b);
    }
    size_t all = stats().bytes;
    CHECK_EQ(all, 2 * MIB);
    b = borrow(all); /* it has melted to one block again */
    CHECK_EQ(b->cap, all);
    reeve_buf_return(b);
    CHECK_EQ(reeve_buf_borrow_aligned(&b, 0, LONG), -EINVAL);
    CHECK_EQ(reeve_buf_borrow_aligned(&b, all + 1, LONG), -ERANGE);
    CHECK_EQ(reeve_buf_borrow_aligned(&b, SIZE_MAX, LONG), -ERANGE);
    return 0;
}

TEST(blocks_are_aligned_and_large_enough)
{
    CHECK_EQ(setrlimit(RLIMIT_MEMLOCK, &(struct rlimit){ 8 * MIB, 8 * MIB }), 0);
    RUN(shapes, .workers = 1);
}

enum { HELD = 60, CUTS = 20000 };

/* Each block is filled with its number; whoever overlaps it destroys that. */
static int cuts(void *arg)
{
    (void)arg;
    struct reeve_buf *held[HELD] = { 0 };
    uint64_t seed = 1;
    unsigned refused = 0;
    for (int i = 0; i < CUTS; i++) {
        seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
        unsigned at = (unsigned)(seed >> 33) % HELD;
        struct reeve_buf *b = held[at];
        if (b) {
            for (size_t k = 0; k < b->cap; k += 1024)
                CHECK_EQ(b->data[k], at);
            reeve_buf_return(b);
            held[at] = NULL;
            continue;
        }
        size_t bytes = (size_t)1 << (12 + (seed >> 50) % 8);
        int r = reeve_buf_borrow_aligned(&held[at], bytes, REEVE_POLL);
        CHECK(r == 0 || r == -ETIMEDOUT);
        refused += r < 0;
        if (r == 0)
            memset(held[at]->data, (int)at, held[at]->cap);
    }
    CHECK_GT(refused, 0); /* it was full now and then */
    for (int i = 0; i < HELD; i++)
        reeve_buf_return(held[i]);
    reeve_buf_return(borrow(stats().bytes));
    return 0;
}

TEST(no_two_blocks_overlap_and_all_melt_again)
{
    RUN(cuts, .workers = 1);
}

struct borrowing {
    size_t bytes;
    reeve_time until;
    int result, order;
};
static RV_ATOMIC(int) order; /* on two workers both may be served at once */

static int borrow_in_task(void *arg)
{
    struct borrowing *w = arg;
    struct reeve_buf *b;
    w->result = reeve_buf_borrow_aligned(&b, w->bytes, w->until);
    w->order = 1 + rv_add_relaxed(&order, 1);
    if (w->result == 0)
        reeve_buf_return(b);
    return 0;
}

static void await_waits(uint64_t n)
{
    while (stats().waits < n)
        CHECK_EQ(reeve_sleep(0), 0);
}

static int in_order(void *arg)
{
    (void)arg;
    size_t all = stats().bytes;
    struct reeve_buf *first = borrow(4096);
    all = stats().bytes;
    uint64_t waits = stats().waits;
    struct borrowing large = { all, LONG, 1, 0 }, small = { 4096, LONG, 1, 0 };
    reeve_task *t, *u;
    rv_store_relaxed(&order, 0);
    CHECK_EQ(reeve_spawn(&t, borrow_in_task, &large), 0);
    await_waits(waits + 1);
    CHECK_EQ(reeve_spawn(&u, borrow_in_task, &small), 0); /* there would be room for it */
    await_waits(waits + 2);
    struct reeve_buf *b;
    CHECK_EQ(reeve_buf_borrow_aligned(&b, 4096, REEVE_POLL), -ETIMEDOUT);
    reeve_buf_return(first);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(reeve_join(u, NULL, LONG), 0);
    CHECK_EQ(large.result, 0);
    CHECK_EQ(small.result, 0);
    CHECK_LT(large.order, small.order);
    return 0;
}

TEST(a_large_wish_is_not_passed_by_small_ones)
{
    RUN(in_order, .workers = 1);
}

static int leaving(void *arg)
{
    (void)arg;
    struct reeve_buf *first = borrow(4096);
    uint64_t waits = stats().waits;
    struct borrowing large = { stats().bytes, LONG, 1, 0 }, small = { 4096, LONG, 1, 0 };
    reeve_task *t, *u;
    CHECK_EQ(reeve_spawn(&t, borrow_in_task, &large), 0);
    await_waits(waits + 1);
    CHECK_EQ(reeve_spawn(&u, borrow_in_task, &small), 0);
    await_waits(waits + 2);
    reeve_cancel(t); /* who was behind it is served now, though nothing came home */
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(large.result, -ECANCELED);
    CHECK_EQ(reeve_join(u, NULL, LONG), 0);
    CHECK_EQ(small.result, 0);
    large.until = SOON;
    borrow_in_task(&large);
    CHECK_EQ(large.result, -ETIMEDOUT);
    reeve_buf_return(first);
    return 0;
}

TEST(who_leaves_the_queue_lets_the_next_go_on)
{
    RUN(leaving, .workers = 1);
    RUN(leaving, .workers = 2);
}

static void *return_elsewhere(void *buf)
{
    reeve_buf_return(buf);
    return NULL;
}

static int from_a_thread(void *arg)
{
    (void)arg;
    struct reeve_buf *first = borrow(4096);
    struct borrowing large = { stats().bytes, LONG, 1, 0 };
    uint64_t waits = stats().waits;
    reeve_task *t;
    pthread_t thread;
    CHECK_EQ(reeve_spawn(&t, borrow_in_task, &large), 0);
    await_waits(waits + 1);
    CHECK_EQ(pthread_create(&thread, NULL, return_elsewhere, first), 0);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(large.result, 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    return 0;
}

TEST(a_block_comes_home_from_any_thread)
{
    RUN(from_a_thread, .workers = 1);
}

enum { CROWD = 40, CROWD_ROUNDS = 50 };

static int one_of_many(void *arg)
{
    unsigned char mark = (unsigned char)(uintptr_t)arg;
    uint64_t seed = mark;
    for (int i = 0; i < CROWD_ROUNDS; i++) {
        seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
        struct reeve_buf *b = NULL;
        reeve_time until = seed >> 60 ? LONG : reeve_in((int64_t)(seed >> 50 & 0xfff));
        int r = reeve_buf_borrow_aligned(&b, (size_t)4096 << (seed >> 40) % 8, until);
        if (r < 0) {
            CHECK_EQ(r, -ETIMEDOUT);
            continue;
        }
        memset(b->data, mark, b->cap);
        CHECK_EQ(reeve_sleep(0), 0);
        for (size_t k = 0; k < b->cap; k += 512)
            CHECK_EQ(b->data[k], mark);
        reeve_buf_return(b);
    }
    return 0;
}

static int crowd(void *arg)
{
    (void)arg;
    struct reeve_group g = { 0 };
    for (uintptr_t i = 1; i <= CROWD; i++)
        CHECK_EQ(reeve_spawn(NULL, one_of_many, (void *)i, .group = &g), 0);
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    reeve_buf_return(borrow(stats().bytes));
    return 0;
}

TEST(a_crowd_of_borrowers_shares_what_there_is)
{
    RUN(crowd, .workers = 1);
    RUN(crowd, .workers = 2);
}

static int misuse(void *arg)
{
    (void)arg;
    struct reeve_buf *b = borrow(4096);
    reeve_buf_return(b);
    reeve_buf_return(b);
    return 0;
}

static int outside(void *arg)
{
    (void)arg;
    struct reeve_buf *b = borrow(4096);
    b->len = 4096;
    b->data += 1;
    reeve_buf_pwrite(0, b, 0, LONG);
    return 0;
}

TEST(a_block_that_is_not_on_loan_is_refused)
{
    uring_or_skip();
    CHECK_DIES("has been returned already", { reeve_run(misuse, NULL, .workers = 1); });
    CHECK_DIES("data outside its buffer", { reeve_run(outside, NULL, .workers = 1); });
}

/* ---- direct I/O ------------------------------------------------------------------------------ */

enum { PAGES = 64, PAGE = 4096 };

/* A file for direct I/O that holds the pattern. */
static int direct_file(size_t len)
{
    unsigned char *data = malloc(len);
    fill_pattern(data, len, 0);
    scratch_file(scratch("file"), data, len);
    free(data);
    int fd = reeve_open(scratch("file"), O_RDWR | O_DIRECT, 0, LONG);
    if (fd == -EINVAL)
        SKIP("this file system has no direct I/O");
    CHECK_GE(fd, 0);
    return fd;
}

static int direct(void *arg)
{
    (void)arg;
    int fd = direct_file(PAGES * PAGE);
    struct reeve_buf *b = borrow(16 * KIB);
    for (uint64_t at = 0; at < PAGES; at += 4) {
        CHECK_EQ(reeve_buf_pread(fd, b, at * PAGE, LONG), 16 * KIB);
        CHECK_EQ(b->len, 16 * KIB);
        check_pattern(b->data, b->len, at * PAGE);
    }
    b->data += PAGE; /* a part of it */
    b->len = 2 * PAGE;
    fill_pattern(b->data, b->len, 7777);
    CHECK_EQ(reeve_buf_pwrite(fd, b, 8 * PAGE, LONG), 2 * PAGE);
    CHECK_EQ(reeve_buf_pread(fd, b, 8 * PAGE, LONG), 16 * KIB); /* into all of it again */
    check_pattern(b->data, 2 * PAGE, 7777);
    check_pattern(b->data + 2 * PAGE, 2 * PAGE, 10 * PAGE);
    CHECK_EQ(stats().plain, 0);
    CHECK_EQ(stats().fixed, PAGES / 4 + 2);
    CHECK_EQ(stats().registered, true);
    reeve_buf_return(b);
    CHECK_EQ(reeve_close(fd), 0);
    return 0;
}

TEST(direct_transfers_of_blocks_are_fixed_ones)
{
    RUN(direct, .workers = 1);
}

static int last_block(void *arg)
{
    (void)arg;
    int fd = direct_file(3 * PAGE + 100);
    struct reeve_buf *b = borrow(2 * PAGE);
    CHECK_EQ(reeve_buf_pread(fd, b, 2 * PAGE, LONG), PAGE + 100);
    check_pattern(b->data, PAGE + 100, 2 * PAGE);
    CHECK_EQ(b->len, PAGE + 100);
    CHECK_EQ(reeve_buf_pread(fd, b, 4 * PAGE, LONG), 0);
    CHECK_EQ(b->len, 0);
    int r = (int)reeve_buf_pread(fd, b, 1, LONG); /* not on a block */
    CHECK(r == -EINVAL || r == 2 * PAGE);         /* some file systems do not mind */
    CHECK_EQ(reeve_buf_pread(fd, b, (uint64_t)INT64_MAX, LONG), -ERANGE);
    CHECK_EQ(reeve_close(fd), 0);
    CHECK_EQ(reeve_buf_pread(fd, b, 0, LONG), -EBADF);
    CHECK_EQ(b->len, 0);
    CHECK_EQ(reeve_buf_pwrite(-1, b, 0, LONG), 0); /* nothing of it */
    b->len = 1;
    CHECK_EQ(reeve_buf_pwrite(-1, b, 0, LONG), -EBADF);
    reeve_buf_return(b);
    return 0;
}

TEST(a_direct_read_is_short_where_the_file_ends)
{
    RUN(last_block, .workers = 1);
}

/* ---- cancelled while they complete ----------------------------------------------------------- */

enum { CANARY = 0x5a, RACERS = 8, PIPE_PAGES = 12 };

struct fixed_reader {
    struct reeve_buf *buf;
    int fd;
    uint64_t off;
    ssize_t result;
};

static int read_fixed(void *arg)
{
    struct fixed_reader *r = arg;
    r->result = reeve_buf_pread(r->fd, r->buf, r->off, LONG);
    return 0;
}

static bool all_bytes_are(const struct reeve_buf *b, unsigned char byte)
{
    for (size_t i = 0; i < PAGE; i++)
        if (b->data[i] != byte)
            return false;
    return true;
}

static void write_page(int fd, unsigned char byte)
{
    unsigned char page[PAGE];
    memset(page, byte, sizeof page);
    CHECK_EQ(write(fd, page, sizeof page), PAGE); /* as a whole: no more than PIPE_BUF */
}

/* What is left in the pipe, each page once and in order. */
static void drain_pages(struct fixed_reader *r, unsigned char *next, unsigned char end)
{
    for (; *next != end; ++*next) {
        CHECK_EQ(read_fixed(r), 0);
        CHECK_EQ(r->result, PAGE);
        CHECK(all_bytes_are(r->buf, *next));
    }
}

/* Each round reads, writes and cancels at about the same time. Each page is read by somebody, once;
 * and once a read has returned, its block is written no more. */
static int race_in_a_pipe(void *arg)
{
    int rounds = *(int *)arg, ends[2], completed = 0;
    struct fixed_reader r[RACERS];
    unsigned char sent = 0, got = 0;
    unsigned seed = 7;
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    for (int i = 0; i < RACERS; i++)
        r[i] = (struct fixed_reader){ .buf = borrow(PAGE), .fd = ends[0] };
    for (int i = 0; i < RACERS; i++)
        memset(r[i].buf->data, CANARY, PAGE);
    for (int i = 0; i < rounds; i++) {
        struct fixed_reader *me = &r[i % RACERS];
        reeve_task *t;
        int how = rand_r(&seed) % 8;
        CHECK(all_bytes_are(me->buf, CANARY)); /* long after the last read of it */
        me->result = -ECANCELED; /* so it stays if the task never runs */
        CHECK_EQ(reeve_spawn(&t, read_fixed, me), 0);
        if (how & 1)
            CHECK_EQ(reeve_sleep(0), 0);
        if (how & 4)
            reeve_cancel(t);
        write_page(ends[1], sent++);
        if (how & 2)
            CHECK_EQ(reeve_sleep(0), 0);
        reeve_cancel(t);
        CHECK_OK(reeve_join(t, NULL, LONG));
        CHECK(me->result == PAGE || me->result == -ECANCELED);
        CHECK(all_bytes_are(me->buf, me->result == PAGE ? got : CANARY));
        got += me->result == PAGE;
        completed += me->result == PAGE;
        if ((unsigned char)(sent - got) >= PIPE_PAGES) {
            drain_pages(me, &got, sent);
            completed++;
        }
        memset(me->buf->data, CANARY, PAGE);
    }
    drain_pages(&r[0], &got, sent);
    CHECK_GT(completed, 0);
    CHECK_EQ(stats().plain, 0);
    CHECK_GE(stats().fixed, completed);
    for (int i = 0; i < RACERS; i++)
        reeve_buf_return(r[i].buf);
    close(ends[0]);
    close(ends[1]);
    return 0;
}

TEST(cancellations_race_with_fixed_reads_of_a_pipe)
{
    int rounds = 20000;
    uring_or_skip();
    for (unsigned workers = 1; workers <= 2; workers++)
        CHECK_EQ(reeve_run(race_in_a_pipe, &rounds, .workers = workers), 0);
}

/* A disk does not let go of a read that it has begun: the block is the kernel's until then. */
static int race_on_a_disk(void *arg)
{
    enum { ROUNDS = 1500 };
    (void)arg;
    int fd = direct_file(PAGES * PAGE);
    struct fixed_reader r[RACERS];
    unsigned seed = 7;
    for (int i = 0; i < RACERS; i++) {
        r[i] = (struct fixed_reader){ .buf = borrow(PAGE), .fd = fd };
        memset(r[i].buf->data, CANARY, PAGE);
    }
    for (int i = 0; i < ROUNDS; i++) {
        struct fixed_reader *me = &r[i % RACERS];
        reeve_task *t;
        me->off = (uint64_t)rand_r(&seed) % PAGES * PAGE;
        CHECK(all_bytes_are(me->buf, CANARY));
        me->result = -ECANCELED; /* so it stays if the task never runs */
        CHECK_EQ(reeve_spawn(&t, read_fixed, me), 0);
        for (int turns = rand_r(&seed) % 4; turns > 0; turns--)
            CHECK_EQ(reeve_sleep(0), 0);
        reeve_cancel(t);
        CHECK_OK(reeve_join(t, NULL, LONG));
        CHECK(me->result == PAGE || me->result == -ECANCELED);
        if (me->result == PAGE)
            check_pattern(me->buf->data, PAGE, me->off);
        memset(me->buf->data, CANARY, PAGE);
    }
    for (int i = 0; i < RACERS; i++)
        reeve_buf_return(r[i].buf);
    CHECK_EQ(reeve_close(fd), 0);
    return 0;
}

TEST(cancellations_race_with_fixed_reads_of_a_disk)
{
    RUN(race_on_a_disk, .workers = 1);
    RUN(race_on_a_disk, .workers = 2);
}

static int other_leases(void *arg)
{
    (void)arg;
    struct reeve_buf *b;
    scratch_file(scratch("file"), "plain text", 10);
    int fd = reeve_open(scratch("file"), O_RDWR, 0, LONG);
    CHECK_EQ(reeve_buf_borrow(&b, LONG), 0); /* any lease will do */
    CHECK_EQ(reeve_buf_pread(fd, b, 6, LONG), 4);
    CHECK_MEM_EQ(b->data, "text", 4);
    CHECK_EQ(reeve_buf_pwrite(fd, b, 0, LONG), 4);
    CHECK_EQ(reeve_buf_pread(fd, b, 0, LONG), 10);
    CHECK_MEM_EQ(b->data, "textn text", 10);
    reeve_buf_return(b);
    CHECK_EQ(stats().bytes, 0);
    b = borrow(PAGE); /* and an aligned one may be sent */
    struct pair p = pair_make();
    char got[10];
    CHECK_EQ(reeve_buf_pread(fd, b, 0, LONG), 10);
    CHECK_EQ(reeve_buf_send(p.fd, b, LONG), 10);
    CHECK_EQ(recv(p.peer, got, sizeof got, MSG_WAITALL), 10);
    CHECK_MEM_EQ(got, "textn text", 10);
    reeve_buf_return(borrow(stats().bytes)); /* it came home */
    pair_close(&p);
    CHECK_EQ(reeve_close(fd), 0);
    return 0;
}

TEST(leases_of_all_kinds_are_read_into_written_and_sent)
{
    RUN(other_leases, .workers = 1);
}

enum { READERS = 24, READS = 60 };

/* Reads into one block from wherever it happens to run. */
static int roam(void *arg)
{
    int fd = *(int *)arg;
    struct reeve_buf *b = borrow(PAGE);
    uint64_t seed = (uintptr_t)b;
    for (int i = 0; i < READS; i++) {
        seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
        uint64_t page = (seed >> 33) % PAGES;
        ssize_t n = reeve_buf_pread(fd, b, page * PAGE, i % 5 ? LONG : REEVE_POLL);
        if (n == -ETIMEDOUT)
            continue;
        CHECK_EQ(n, PAGE);
        check_pattern(b->data, PAGE, page * PAGE);
        if (i % 7 == 0)
            CHECK_EQ(reeve_sleep(0), 0);
    }
    reeve_buf_return(b);
    return 0;
}

static int roaming(void *arg)
{
    struct rv_arena_stats *want = arg;
    int fd = direct_file(PAGES * PAGE);
    struct reeve_group g = { 0 };
    for (int i = 0; i < READERS; i++)
        CHECK_EQ(reeve_spawn(NULL, roam, &fd, .group = &g), 0);
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    CHECK_EQ(reeve_close(fd), 0);
    *want = stats();
    return 0;
}

static struct rv_arena_stats roam_with(unsigned workers)
{
    struct rv_arena_stats st = { 0 };
    uring_or_skip();
    CHECK_EQ(reeve_run(roaming, &st, .workers = workers), 0);
    return st;
}

TEST(fixed_reads_stay_legal_on_every_worker)
{
    struct rv_arena_stats st = roam_with(2);
    CHECK_EQ(st.plain, 0);
    CHECK_GE(st.fixed, (uint64_t)READERS * READS);
    CHECK_EQ(st.rings_plain, 0);
#ifdef RV_FORCE_MIGRATE
    CHECK_EQ(st.rings, 2);
#endif
}

/* ---- bad days -------------------------------------------------------------------------------- */

TEST(a_kernel_that_cannot_clone_registers_with_each_ring)
{
    CHECK_EQ(setenv("REEVE_CAPS_OFF", "clone_buffers", 1), 0);
    struct rv_arena_stats st = roam_with(2);
    CHECK_GT(st.fixed, 0);
    CHECK_EQ(st.plain, 0);
    CHECK_EQ(st.registered, true);
}

TEST(a_small_limit_of_locked_memory_makes_the_arena_small)
{
    CHECK_EQ(setrlimit(RLIMIT_MEMLOCK, &(struct rlimit){ 2 * MIB, 2 * MIB }), 0);
    struct rv_arena_stats st = roam_with(1);
    CHECK_EQ(st.bytes, 512 * KIB);
    CHECK_EQ(st.plain, 0);
    CHECK_EQ(setrlimit(RLIMIT_MEMLOCK, &(struct rlimit){ MIB / 2, MIB / 2 }), 0);
    st = roam_with(1);
    CHECK_EQ(st.bytes, 2 * MIB); /* not worth pinning: all of it, as plain memory */
    CHECK_EQ(st.registered, false);
    CHECK_EQ(st.fixed, 0);
    CHECK_GT(st.plain, 0);
}

static int with_faults(void *arg)
{
    const char *where = arg;
    int fd = direct_file(PAGES * PAGE);
    struct reeve_buf *b = NULL;
    rv_fault_only(where);
    rv_fault_fail_nth(1);
    CHECK_EQ(reeve_buf_borrow_aligned(&b, PAGE, LONG), 0);
    CHECK_EQ(reeve_buf_pread(fd, b, 5 * PAGE, LONG), PAGE);
    CHECK(rv_fault_last_name());
    rv_fault_off();
    check_pattern(b->data, PAGE, 5 * PAGE);
    CHECK_EQ(reeve_buf_pread(fd, b, 6 * PAGE, LONG), PAGE); /* and it is not tried again */
    check_pattern(b->data, PAGE, 6 * PAGE);
    CHECK_EQ(stats().fixed, 0);
    CHECK_EQ(stats().plain, 2);
    reeve_buf_return(b);
    CHECK_EQ(reeve_close(fd), 0);
    return 0;
}

TEST(memory_that_cannot_be_pinned_is_used_plainly)
{
    static char *const where[] = { "arena.register", "arena.fix", "ring.register", "ring.mmap" };
    if (!rv_fault_available())
        SKIP("built without fault points");
    uring_or_skip();
    for (size_t i = 0; i < sizeof where / sizeof *where; i++)
        CHECK_EQ(reeve_run(with_faults, where[i], .workers = 1), 0);
}

static int nth_fault(void *arg)
{
    struct reeve_buf *b = NULL;
    int fd = direct_file(PAGES * PAGE), r = -1, failed = 0;
    rv_fault_only(arg);
    for (uint64_t n = 1; r < 0; n++) {
        rv_fault_fail_nth(n);
        r = reeve_buf_borrow_aligned(&b, PAGE, LONG);
        CHECK(r == 0 || (r == -ENOMEM && rv_fault_last_name()));
        failed += r < 0;
    }
    rv_fault_off();
    CHECK_GT(failed, 0);
    CHECK_EQ(reeve_buf_pread(fd, b, 0, LONG), PAGE);
    check_pattern(b->data, PAGE, 0);
    reeve_buf_return(b);
    CHECK_EQ(reeve_close(fd), 0);
    return 0;
}

TEST(an_arena_that_could_not_be_made_is_made_at_the_next_borrow)
{
    if (!rv_fault_available())
        SKIP("built without fault points");
    uring_or_skip();
    CHECK_EQ(reeve_run(nth_fault, "alloc", .workers = 1), 0);
    CHECK_EQ(reeve_run(nth_fault, "map.lazy", .workers = 1), 0);
}

static int poolless(void *arg)
{
    (void)arg;
    reeve_buf_return(borrow(PAGE));
    CHECK_GT(stats().bytes, 0);
    return 0;
}

TEST(an_arena_needs_no_pool)
{
    RUN(poolless, .workers = 1, .offload_max = REEVE_NONE);
}

static int first_borrow(void *arg)
{
    (void)arg;
    struct reeve_buf *b;
    CHECK_EQ(reeve_buf_borrow_aligned(&b, PAGE, LONG), 0);
    reeve_buf_return(b);
    return 0;
}

static int at_once(void *arg)
{
    (void)arg;
    struct reeve_group g = { 0 };
    for (int i = 0; i < 20; i++)
        CHECK_EQ(reeve_spawn(NULL, first_borrow, NULL, .group = &g), 0);
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    return 0;
}

TEST(the_first_borrowers_make_one_arena_together)
{
    RUN(at_once, .workers = 2);
}
