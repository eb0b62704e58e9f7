/* SPDX-License-Identifier: MIT */
/*
 * ring_fault_test.c -- a runtime whose ring calls fail: each set-up, mapping, registration, message
 * and enter once, and enters again and again.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <dirent.h>
#include <reeve/fd.h>
#include <reeve/file.h>

#include "mem/fault.h"
#include "tests/io/pair.h"
#include "tests/io/scratch.h"


static int open_fds(void)
{
    int n = 0;
    DIR *dir = opendir("/proc/self/fd");
    CHECK(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

/* The mappings that hold rings: what /proc says. */
static int ring_maps(void)
{
    char line[512];
    int n = 0;
    FILE *maps = fopen("/proc/self/maps", "re");
    CHECK(maps);
    while (fgets(line, sizeof line, maps))
        n += strstr(line, "io_uring") != NULL;
    fclose(maps);
    return n;
}

static int echo_rounds(int rounds, void (*each)(int round))
{
    struct pair p = pair_make();
    for (int i = 0; i < rounds; i++) {
        struct reeve_buf *b = NULL;
        char back[8];
        if (each)
            each(i);
        peer_send(p.peer, "echo", 4);
        CHECK_EQ(reeve_buf_recv(p.fd, &b, LONG), 4);
        CHECK_EQ(reeve_buf_send(p.fd, b, LONG), 4);
        CHECK_EQ(recv(p.peer, back, sizeof back, 0), 4);
        CHECK_EQ(reeve_sleep(reeve_in(i % 4 * 50 * REEVE_US)), 0);
    }
    pair_close(&p);
    return 0;
}

static int few_echoes(void *arg)
{
    (void)arg;
    return echo_rounds(3, NULL);
}

/* ---- starting -------------------------------------------------------------------------------- */

/* Set-up, mappings and registrations come before any task runs. */
static void walk(const char *points, unsigned workers)
{
    CHECK_EQ(reeve_run(few_echoes, NULL, .workers = workers), 0); /* what stays for good is there */
    int fds = open_fds(), maps = ring_maps();
    for (uint64_t n = 1;; n++) {
        reeve *rt = NULL;
        rv_fault_only(points);
        rv_fault_fail_nth(n);
        int r = reeve_create(&rt, &(struct reeve_opts){ .workers = workers });
        const char *what = rv_fault_last_name();
        rv_fault_off();
        if (r >= 0) { /* it did without, or nothing failed */
            CHECK_EQ(reeve_call(rt, few_echoes, NULL, LONG), 0);
            CHECK_EQ(reeve_shutdown(rt, LONG), 0);
            reeve_destroy(rt);
        } else {
            CHECK(what != NULL);
            CHECK(r == -ENOMEM || r == -EAGAIN);
            CHECK(rt == NULL);
        }
        CHECK_EQ(open_fds(), fds);
        CHECK_EQ(ring_maps(), maps);
        CHECK(what || n > workers); /* each ring has its point at least */
        if (!what)
            return;
        CHECK_LT(n, 1000);
    }
}

TEST(a_ring_that_cannot_be_set_up_is_an_error_at_the_start_and_leaks_nothing)
{
    uring_or_skip();
    if (!rv_fault_available())
        SKIP("built without RV_FAULTS");
    walk("ring.setup", 1);
    walk("ring.setup", 2);
    walk("ring.mmap", 1);
    walk("ring.mmap", 2);
}

TEST(each_registration_may_fail_at_the_start)
{
    uring_or_skip();
    if (!rv_fault_available())
        SKIP("built without RV_FAULTS");
    walk("ring.register", 1);
    walk("ring.register", 2);
}

/* ---- running --------------------------------------------------------------------------------- */

static const char *point;
static RV_ATOMIC(int) fired;

/* One of the next few fails; most of them after the others have been counted off. */
static void arm_point(int round)
{
    rv_add_acq_rel(&fired, rv_fault_last_name() != NULL);
    rv_fault_only(point);
    rv_fault_fail_nth(1 + (uint64_t)round % 5);
}

static int echoes(void *arg)
{
    (void)arg;
    int r = echo_rounds(200, arm_point);
    rv_fault_off();
    return r;
}

static void go_on(const char *which)
{
    uring_or_skip();
    if (!rv_fault_available())
        SKIP("built without RV_FAULTS");
    for (unsigned workers = 1; workers <= 2; workers++) {
        point = which;
        rv_store_relaxed(&fired, 0);
        CHECK_EQ(reeve_run(echoes, NULL, .workers = workers), 0);
        if (rv_load_relaxed(&fired) < 20)
            check_failed(__FILE__, __LINE__, "%s failed %d times only", which,
                         rv_load_relaxed(&fired));
    }
}

TEST(an_enter_that_finds_the_kernel_short_of_something_is_made_again)
{
    go_on("ring.enter");
}

TEST(an_enter_that_is_interrupted_is_made_again)
{
    go_on("enter.intr");
}

TEST(an_enter_that_finds_completions_waiting_takes_them_first)
{
    go_on("enter.busy");
}

/* A wake that cannot be sent as a message goes by the eventfd. */
static int answer(void *arg)
{
    return (int)(intptr_t)arg;
}

TEST(a_message_that_cannot_be_sent_is_replaced_by_the_eventfd)
{
    uring_or_skip();
    if (!rv_fault_available())
        SKIP("built without RV_FAULTS");
    reeve *rt;
    CHECK_EQ(reeve_create(&rt, &(struct reeve_opts){ .workers = 2 }), 0);
    for (int i = 0; i < 200; i++) {
        rv_fault_only("ring.msg");
        rv_fault_fail_nth(1);
        CHECK_EQ(reeve_call(rt, answer, (void *)(intptr_t)i, LONG), i);
    }
    rv_fault_off();
    CHECK_EQ(reeve_shutdown(rt, LONG), 0);
    reeve_destroy(rt);
}

/* Every n-th ring call of a whole life, from the first to the last. */
static int one_life(void)
{
    return reeve_run(few_echoes, NULL, .workers = 2);
}

TEST(the_nth_ring_call_may_fail_for_every_n)
{
    uring_or_skip();
    if (!rv_fault_available())
        SKIP("built without RV_FAULTS");
    CHECK_EQ(one_life(), 0);
    int fds = open_fds(), maps = ring_maps();
    for (uint64_t n = 1; n < 400; n++) {
        rv_fault_only("ring.");
        rv_fault_fail_nth(n);
        int r = one_life();
        bool reached = rv_fault_last_name() != NULL;
        rv_fault_off();
        CHECK(r == 0 || r == -ENOMEM || r == -EAGAIN);
        CHECK_EQ(open_fds(), fds);
        CHECK_EQ(ring_maps(), maps);
        if (!reached)
            return;
    }
}

/* ---- files ----------------------------------------------------------------------------------- */

enum { FILE_TASKS = 8, FILE_PAGE = 4096 };

static char pages_path[512]; /* for all threads: scratch() is for one */

/* Its own page of the file: written, synced, read back through a block that the ring knows. */
static int page_by_page(void *arg)
{
    int i = (int)(intptr_t)arg, fd = reeve_open(pages_path, O_RDWR | O_CREAT, 0600, LONG);
    struct reeve_buf *b = NULL;
    uint64_t at = (uint64_t)i * FILE_PAGE;
    CHECK_GE(fd, 0);
    CHECK_EQ(reeve_buf_borrow_aligned(&b, FILE_PAGE, LONG), 0);
    fill_pattern(b->data, FILE_PAGE, at);
    b->len = FILE_PAGE;
    CHECK_EQ(reeve_buf_pwrite(fd, b, at, LONG), FILE_PAGE);
    CHECK_EQ(i == 0 ? reeve_fdatasync(fd, LONG) : 0, 0);
    memset(b->data, 0, FILE_PAGE);
    CHECK_EQ(reeve_buf_pread(fd, b, at, LONG), FILE_PAGE);
    check_pattern(b->data, FILE_PAGE, at);
    struct iovec halves[2] = { { b->data, 100 }, { b->data + 100, FILE_PAGE - 100 } };
    CHECK_EQ(reeve_preadv(fd, halves, 2, at, LONG), FILE_PAGE);
    check_pattern(b->data, FILE_PAGE, at);
    reeve_buf_return(b);
    CHECK_EQ(reeve_close(fd), 0);
    return 0;
}

static int append_mine(void *arg)
{
    CHECK_GE(reeve_log_append(arg, "12345678", 8, LONG), 0);
    return 0;
}

static int copy_out(void *arg)
{
    int from = reeve_open(pages_path, O_RDONLY, 0, LONG), ends[2];
    static unsigned char back[FILE_TASKS * FILE_PAGE];
    (void)arg;
    CHECK_GE(from, 0);
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    CHECK_EQ(reeve_copy(ends[1], from, sizeof back, LONG), sizeof back);
    CHECK_EQ(read(ends[0], back, sizeof back), sizeof back);
    check_pattern(back, sizeof back, 0);
    close(ends[0]);
    CHECK_EQ(reeve_close(ends[1]), 0);
    CHECK_EQ(reeve_close(from), 0);
    return 0;
}

static int with_files(void *arg)
{
    struct reeve_group g = { 0 };
    reeve_log *log = NULL;
    struct reeve_log_opts opts = { .path = scratch("log"), .ahead_bytes = FILE_PAGE };
    struct statx st;
    CHECK_EQ(reeve_log_open(&log, &opts, LONG), 0);
    for (intptr_t i = 0; i < FILE_TASKS; i++) {
        CHECK_OK(reeve_spawn(NULL, page_by_page, (void *)i, .group = &g));
        CHECK_OK(reeve_spawn(NULL, append_mine, log, .group = &g));
    }
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    CHECK_EQ(reeve_log_close(log, LONG), 0);
    CHECK_EQ(reeve_stat(scratch("log"), &st, LONG), 0);
    CHECK_EQ(st.stx_size, FILE_TASKS * 8);
    CHECK_EQ(copy_out(arg), 0);
    CHECK_EQ(reeve_unlink(scratch("log"), LONG), 0);
    return reeve_unlink(pages_path, LONG);
}

/* Every request is made again where its enter failed, and comes to the same. */
TEST(under_files_the_nth_ring_call_may_fail_for_every_n)
{
    static const char *const points[] = { "ring.", "enter." };
    uring_or_skip();
    if (!rv_fault_available())
        SKIP("built without RV_FAULTS");
    snprintf(pages_path, sizeof pages_path, "%.500s", scratch("pages"));
    CHECK_EQ(reeve_run(with_files, NULL, .workers = 2), 0);
    int fds = open_fds(), maps = ring_maps();
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        uint64_t n = 1;
        for (bool reached = true; reached && n < 400; n++) {
            rv_fault_only(points[i]);
            rv_fault_fail_nth(n);
            int r = reeve_run(with_files, NULL, .workers = 2);
            reached = rv_fault_last_name() != NULL;
            rv_fault_off();
            CHECK(r == 0 || r == -ENOMEM || r == -EAGAIN);
            CHECK_EQ(open_fds(), fds);
            CHECK_EQ(ring_maps(), maps);
        }
        CHECK_GT(n, 10); /* many have failed before none did */
    }
}

static int reads_only(void *arg)
{
    struct reeve_group g = { 0 };
    (void)arg;
    for (intptr_t i = 0; i < FILE_TASKS; i++)
        CHECK_OK(reeve_spawn(NULL, page_by_page, (void *)i, .group = &g));
    return reeve_group_wait(&g, LONG);
}

TEST(transfers_that_could_not_begin_at_once_begin_at_the_end_of_the_pass)
{
    uring_or_skip();
    if (!rv_fault_available())
        SKIP("built without RV_FAULTS");
    snprintf(pages_path, sizeof pages_path, "%.500s", scratch("pages"));
    uint64_t n = 1;
    /* Again until one at least has failed: where the files open one after another, no pass has so
     * many transfers that they begin at once. */
    for (bool reached = true; reached || n == 1; n += reached) {
        rv_fault_only("ring.submit");
        rv_fault_fail_nth(n);
        CHECK_EQ(reeve_run(reads_only, NULL, .workers = 1), 0);
        reached = rv_fault_last_name() != NULL;
        rv_fault_off();
        CHECK_LT(n, 1000);
    }
}
