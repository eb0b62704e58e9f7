/* SPDX-License-Identifier: MIT */
/*
 * ring_fault_test.c -- a runtime whose ring calls fail: each set-up, mapping, registration, message
 * and enter once, and enters again and again.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <dirent.h>

#include "mem/fault.h"
#include "tests/io/pair.h"

#define LONG reeve_in(20 * REEVE_SEC)

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
