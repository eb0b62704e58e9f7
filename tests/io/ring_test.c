/* SPDX-License-Identifier: MIT */
/*
 * ring_test.c -- the ring layer, and the facts about io_uring that the layers above rely on.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>

#include "io/caps.h"
#include "io/ring.h"
#include "mem/fault.h"
#include "tests/io/uring.h"

#define MS INT64_C(1000000)

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static struct rv_caps caps;

static void need_uring(void)
{
    uring_or_skip();
    CHECK_OK(rv_caps_probe(&caps, NULL));
}

/* A ring owned by this thread. */
static void open_ring(struct rv_ring *r, unsigned sq, unsigned cq)
{
    need_uring();
    CHECK_OK(rv_ring_init(r, sq, cq, RV_RING_FLAGS, &caps.off));
    CHECK_OK(rv_ring_enable(r));
}

static void nop(struct rv_ring *r, uint64_t user_data)
{
    struct io_uring_sqe *sqe = rv_ring_sqe(r);
    CHECK(sqe);
    io_uring_prep_nop(sqe);
    sqe->user_data = user_data;
}

/* Waits for one completion. */
static struct rv_cqe next(struct rv_ring *r)
{
    struct rv_cqe cqe;
    while (rv_ring_peek(r, &cqe, 1) == 0)
        CHECK_OK(rv_ring_enter(r, 1, 0, RV_RING_FOREVER));
    return cqe;
}

static void run_thread(void *(*fn)(void *), void *arg)
{
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, fn, arg), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
}

/* ---- submitting and reaping ------------------------------------------------------------------ */

TEST(a_batch_completes_in_one_enter_and_in_order)
{
    struct rv_ring r;
    struct rv_cqe cqe[32];
    open_ring(&r, 32, 64);
    for (unsigned i = 0; i < 20; i++)
        nop(&r, 100 + i);
    CHECK_EQ(rv_ring_unsubmitted(&r), 20);
    CHECK(!rv_ring_has_cqe(&r));
    CHECK_EQ(rv_ring_enter(&r, 0, 0, RV_RING_NOW), 20);
    CHECK_EQ(rv_ring_unsubmitted(&r), 0);
    CHECK(rv_ring_has_cqe(&r));
    CHECK_EQ(rv_ring_peek(&r, cqe, 5), 5);
    CHECK_EQ(rv_ring_peek(&r, cqe + 5, 27), 15);
    CHECK(!rv_ring_has_cqe(&r));
    CHECK_EQ(rv_ring_peek(&r, cqe, 32), 0);
    for (unsigned i = 0; i < 20; i++) {
        CHECK_EQ(cqe[i].user_data, 100 + i);
        CHECK_EQ(cqe[i].res, 0);
    }
    CHECK_EQ(r.enters, 1);
    CHECK_EQ(r.sqes, 20);
    CHECK_EQ(r.cqes, 20);
    CHECK_EQ(r.overflows, 0);
    rv_ring_finish(&r);
}

TEST(a_full_sq_hands_out_null_until_an_enter)
{
    struct rv_ring r;
    struct rv_cqe cqe[16];
    open_ring(&r, 8, 16);
    CHECK_EQ(r.sq_entries, 8);
    for (unsigned i = 0; i < 8; i++) {
        CHECK_EQ(rv_ring_space(&r), 8 - i);
        nop(&r, i);
    }
    CHECK_EQ(rv_ring_space(&r), 0);
    CHECK(!rv_ring_sqe(&r));
    CHECK(!rv_ring_sqe(&r));
    CHECK_EQ(rv_ring_enter(&r, 0, 0, RV_RING_NOW), 8);
    CHECK_EQ(rv_ring_space(&r), 8);
    CHECK(rv_ring_sqe(&r));
    CHECK_EQ(rv_ring_peek(&r, cqe, 16), 8);
    rv_ring_finish(&r);
}

TEST(an_sqe_is_handed_out_all_zero)
{
    static const struct io_uring_sqe zero;
    struct rv_ring r;
    struct rv_cqe cqe[8];
    open_ring(&r, 4, 8);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 4; i++) {
            struct io_uring_sqe *sqe = rv_ring_sqe(&r);
            CHECK(sqe);
            CHECK_MEM_EQ(sqe, &zero, sizeof zero);
            memset(sqe, 0xff, sizeof *sqe);
            memset(sqe, 0, 4); /* a NOP without flags; its file descriptor and rest are nobody's */
        }
        rv_ring_enter(&r, 0, 0, RV_RING_NOW);
        CHECK_EQ(rv_ring_peek(&r, cqe, 8), 4);
    }
    rv_ring_finish(&r);
}

TEST(the_queues_wrap_and_stay_in_order)
{
    struct rv_ring r;
    open_ring(&r, 8, 16);
    uint64_t sent = 0, seen = 0;
    while (seen < 20000) {
        struct rv_cqe cqe[5];
        for (unsigned i = 0; i <= sent % 7; i++)
            if (rv_ring_space(&r) > 0 && sent - seen < 16)
                nop(&r, sent++);
        CHECK_OK(rv_ring_enter(&r, 0, 0, RV_RING_NOW));
        unsigned n = rv_ring_peek(&r, cqe, 5);
        for (unsigned i = 0; i < n; i++)
            CHECK_EQ(cqe[i].user_data, seen++);
    }
    CHECK_EQ(r.cqes, seen);
    CHECK_EQ(r.sqes, sent);
    CHECK_EQ(r.overflows, 0);
    rv_ring_finish(&r);
}

TEST(a_full_cq_overflows_is_counted_and_loses_nothing)
{
    static unsigned char seen[500];
    struct rv_ring r;
    struct rv_cqe cqe[16];
    open_ring(&r, 8, 16);
    CHECK_EQ(r.cq_entries, 16);
    unsigned sent = 0, got = 0;
    while (sent < sizeof seen) {
        struct io_uring_sqe *sqe = rv_ring_sqe(&r);
        if (!sqe) {
            int n = rv_ring_enter(&r, 0, 0, RV_RING_NOW);
            if (n == -EBUSY || n == -EAGAIN)
                break; /* a kernel that refuses more before the CQ is reaped */
            CHECK_EQ(n, 8);
            continue;
        }
        io_uring_prep_nop(sqe);
        sqe->user_data = sent++;
    }
    CHECK(rv_ring_overflowed(&r));
    CHECK_GT(r.overflows, 0);
    while (got < sent) {
        unsigned n = rv_ring_peek(&r, cqe, 16);
        for (unsigned i = 0; i < n; i++) {
            CHECK_EQ(seen[cqe[i].user_data], 0);
            seen[cqe[i].user_data] = 1;
        }
        got += n;
        CHECK_OK(rv_ring_enter(&r, got < sent, 0, RV_RING_FOREVER));
    }
    CHECK_EQ(got, sent);
    CHECK(!rv_ring_overflowed(&r));
    CHECK(!rv_ring_has_cqe(&r));
    CHECK_EQ(r.cqes, sent);
    rv_ring_finish(&r);
}

TEST(a_submission_cut_short_by_a_bad_request_goes_on_behind_it)
{
    need_uring();
    struct rv_caps_off off = caps.off;
    struct rv_ring r;
    struct rv_cqe cqe[8];
    off.submit_all = true; /* without it the kernel stops behind a request that it refuses */
    CHECK_OK(rv_ring_init(&r, 8, 16, RV_RING_FLAGS, &off));
    CHECK_EQ(r.flags & IORING_SETUP_SUBMIT_ALL, 0);
    CHECK_OK(rv_ring_enable(&r));
    for (unsigned i = 0; i < 7; i++) {
        nop(&r, i);
        if (i == 2 || i == 3)
            r.sq_slots[i].opcode = 255;
    }
    CHECK_EQ(rv_ring_enter(&r, 7, 0, RV_RING_FOREVER), 7);
    CHECK_GT(r.enters, 1);
    CHECK_EQ(rv_ring_peek(&r, cqe, 8), 7);
    for (unsigned i = 0; i < 7; i++) {
        CHECK_EQ(cqe[i].user_data, i);
        CHECK_EQ(cqe[i].res, i == 2 || i == 3 ? -EINVAL : 0);
    }
    rv_ring_finish(&r);
}

TEST(no_submit_leaves_the_sqes_where_they_are)
{
    struct rv_ring r;
    open_ring(&r, 8, 16);
    nop(&r, 7);
    CHECK_EQ(rv_ring_enter(&r, 0, RV_RING_NO_SUBMIT, RV_RING_NOW), 0);
    CHECK(!rv_ring_has_cqe(&r));
    CHECK_EQ(rv_ring_unsubmitted(&r), 1);
    CHECK_EQ(rv_ring_enter(&r, 0, 0, RV_RING_NOW), 1);
    CHECK_EQ(next(&r).user_data, 7);
    rv_ring_finish(&r);
}

TEST(a_submission_alone_makes_no_completion_that_was_due)
{
    struct rv_ring r;
    int pair[2];
    char byte;
    open_ring(&r, 8, 16);
    CHECK_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    io_uring_prep_recv(rv_ring_sqe(&r), pair[0], &byte, 1, 0);
    CHECK_EQ(rv_ring_submit(&r), 1);
    CHECK_EQ(rv_ring_submit(&r), 0);
    CHECK_EQ(r.enters, 2);
    CHECK_EQ(r.sqes, 1);
    CHECK_EQ(send(pair[1], "x", 1, 0), 1);
    nop(&r, 7); /* answered at once */
    CHECK_EQ(rv_ring_submit(&r), 1);
    if (r.flags & IORING_SETUP_DEFER_TASKRUN) {
        CHECK(rv_ring_taskrun(&r));
        CHECK_EQ(next(&r).user_data, 7);
        CHECK(!rv_ring_has_cqe(&r));
        CHECK_EQ(rv_ring_enter(&r, 1, 0, RV_RING_FOREVER), 0);
        CHECK_EQ(next(&r).res, 1);
        CHECK_EQ(byte, 'x');
    }
    rv_ring_finish(&r);
}

TEST(completions_of_a_deferred_ring_wait_for_an_enter)
{
    struct rv_ring r;
    int pair[2];
    char byte;
    open_ring(&r, 8, 16);
    if (!(r.flags & IORING_SETUP_DEFER_TASKRUN))
        SKIP("the ring is not deferred");
    CHECK_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    io_uring_prep_recv(rv_ring_sqe(&r), pair[0], &byte, 1, 0);
    CHECK_EQ(rv_ring_enter(&r, 0, 0, RV_RING_NOW), 1);
    CHECK(!rv_ring_taskrun(&r));
    CHECK_EQ(send(pair[1], "x", 1, 0), 1);
    CHECK(rv_ring_taskrun(&r));
    CHECK(!rv_ring_has_cqe(&r));
    CHECK_EQ(rv_ring_enter(&r, 0, 0, RV_RING_NOW), 0);
    CHECK(!rv_ring_taskrun(&r));
    CHECK(rv_ring_has_cqe(&r));
    CHECK_EQ(next(&r).res, 1);
    CHECK_EQ(byte, 'x');
    rv_ring_finish(&r);
}

/* ---- waiting --------------------------------------------------------------------------------- */

static void check_timed_wait(struct rv_ring *r)
{
    int64_t until = now() + 20 * MS;
    CHECK_EQ(rv_ring_enter(r, 1, 0, until), 0);
    CHECK_GE(now(), until);
    CHECK(!rv_ring_has_cqe(r));
    uint64_t enters = r->enters;
    CHECK_EQ(rv_ring_enter(r, 1, 0, 1), 0); /* long past */
    CHECK_EQ(r->enters, enters + 1);
    nop(r, 1);
    until = now() + 20 * MS;
    CHECK_EQ(rv_ring_enter(r, 2, 0, until), 1); /* the request was taken; two never complete */
    CHECK_GE(now(), until);
    CHECK_EQ(next(r).user_data, 1);
}

TEST(a_stale_promise_of_work_is_gone_after_one_enter)
{
    struct rv_ring r;
    open_ring(&r, 8, 16);
    if (!(r.flags & IORING_SETUP_TASKRUN_FLAG))
        SKIP("no TASKRUN_FLAG here");
    /* What the kernel leaves behind when the owner runs work between its addition and the flag. */
    __atomic_fetch_or(r.k_sq_flags, IORING_SQ_TASKRUN, __ATOMIC_SEQ_CST);
    CHECK(rv_ring_taskrun(&r));
    CHECK_OK(rv_ring_enter(&r, 0, 0, RV_RING_NOW));
    CHECK(!rv_ring_taskrun(&r));
    rv_ring_finish(&r);
}

TEST(a_timed_wait_ends_when_its_time_has_come)
{
    struct rv_ring r;
    open_ring(&r, 8, 16);
    check_timed_wait(&r);
    CHECK_EQ(r.abs_timer, caps.abs_timer);
    rv_ring_finish(&r);
}

TEST(a_timed_wait_works_without_absolute_timers_and_registered_fds)
{
    need_uring();
    struct rv_caps_off off = { .abs_timer = true, .registered_ring_fd = true, .no_iowait = true };
    struct rv_ring r;
    CHECK_OK(rv_ring_init(&r, 8, 16, RV_RING_FLAGS, &off));
    CHECK_OK(rv_ring_enable(&r));
    CHECK_EQ(r.enter_fd, r.fd);
    CHECK_EQ(r.enter_flags, 0);
    CHECK(!r.no_iowait);
    check_timed_wait(&r);
    CHECK(!r.abs_timer);
    rv_ring_finish(&r);
}

TEST(now_does_not_wait_whatever_is_asked_for)
{
    struct rv_ring r;
    open_ring(&r, 8, 16);
    CHECK_EQ(rv_ring_enter(&r, 16, 0, RV_RING_NOW), 0); /* would never end if it waited */
    CHECK_EQ(rv_ring_enter(&r, 16, 0, 0), 0);
    rv_ring_finish(&r);
}

static void ignore_signal(int signo)
{
    (void)signo;
}

TEST(a_signal_ends_a_wait_without_an_error)
{
    struct rv_ring r;
    timer_t timer;
    struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 };
    struct itimerspec often = { .it_value.tv_nsec = 1000000, .it_interval.tv_nsec = 1000000 };
    open_ring(&r, 8, 16);
    CHECK_OK(sigaction(SIGUSR1, &(struct sigaction){ .sa_handler = ignore_signal }, NULL));
    CHECK_OK(timer_create(CLOCK_MONOTONIC, &event, &timer));
    CHECK_OK(timer_settime(timer, 0, &often, NULL));
    errno = EXDEV;
    CHECK_EQ(rv_ring_enter(&r, 1, 0, RV_RING_FOREVER), 0);
    CHECK_EQ(errno, EXDEV);
    CHECK(!rv_ring_has_cqe(&r));
    timer_delete(timer);
    rv_ring_finish(&r);
}

static struct {
    struct rv_ring ring;
    pthread_barrier_t armed;
    int out;
} frozen;

static void rescue(int signo)
{
    (void)signo;
    if (rv_ring_enter(&frozen.ring, 0, RV_RING_NO_SUBMIT, RV_RING_NOW) < 0)
        abort();
}

static void *spin(void *arg)
{
    char byte;
    (void)arg;
    CHECK_OK(rv_ring_enable(&frozen.ring));
    io_uring_prep_recv(rv_ring_sqe(&frozen.ring), frozen.out, &byte, 1, 0);
    CHECK_EQ(rv_ring_enter(&frozen.ring, 0, 0, RV_RING_NOW), 1);
    nop(&frozen.ring, 2); /* not submitted yet: none of the handler's business */
    pthread_barrier_wait(&frozen.armed);
    while (!rv_ring_has_cqe(&frozen.ring)) /* no system call: only the handler's makes it true */
        ;
    CHECK_EQ(next(&frozen.ring).res, 1);
    CHECK_EQ(rv_ring_unsubmitted(&frozen.ring), 1);
    CHECK_EQ(next(&frozen.ring).user_data, 2);
    return NULL;
}

TEST(a_signal_handler_reaps_for_a_thread_that_never_enters)
{
    need_uring();
    pthread_t thread;
    int pair[2];
    CHECK_OK(sigaction(SIGUSR1, &(struct sigaction){ .sa_handler = rescue }, NULL));
    CHECK_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    frozen.out = pair[0];
    CHECK_OK(rv_ring_init(&frozen.ring, 8, 16, RV_RING_FLAGS, &caps.off));
    CHECK_EQ(pthread_barrier_init(&frozen.armed, NULL, 2), 0);
    CHECK_EQ(pthread_create(&thread, NULL, spin, NULL), 0);
    pthread_barrier_wait(&frozen.armed);
    CHECK_EQ(send(pair[1], "x", 1, 0), 1);
    CHECK_EQ(pthread_kill(thread, SIGUSR1), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    rv_ring_finish(&frozen.ring);
}

/* ---- set-up and ownership -------------------------------------------------------------------- */

TEST(each_flag_can_be_done_without)
{
    unsetenv("REEVE_CAPS_OFF"); /* caps is to say what the kernel can do */
    need_uring();
    for (unsigned bits = 0; bits < 32; bits++) {
        struct rv_caps_off off = {
            .defer_taskrun = bits & 1,
            .single_issuer = bits & 2,
            .taskrun_flag = bits & 4,
            .coop_taskrun = bits & 8,
            .submit_all = bits & 16,
        };
        struct rv_ring r;
        CHECK_OK(rv_ring_init(&r, 8, 16, RV_RING_FLAGS, &off));
        CHECK_OK(rv_ring_enable(&r));
        bool defer = r.flags & IORING_SETUP_DEFER_TASKRUN;
        bool coop = r.flags & IORING_SETUP_COOP_TASKRUN;
        bool single = r.flags & IORING_SETUP_SINGLE_ISSUER;
        bool all = r.flags & IORING_SETUP_SUBMIT_ALL;
        CHECK_EQ(defer, caps.defer_taskrun && !(bits & 7));
        CHECK_EQ(single, caps.single_issuer && !(bits & 2));
        CHECK_EQ(coop, caps.coop_taskrun && !defer && !(bits & 12));
        CHECK_EQ(all, caps.submit_all && !(bits & 16));
        CHECK_EQ(!!(r.flags & IORING_SETUP_TASKRUN_FLAG), defer || coop);
        nop(&r, bits);
        CHECK_EQ(next(&r).user_data, bits);
        rv_ring_finish(&r);
    }
}

TEST(the_best_flags_are_granted_where_the_kernel_has_them)
{
    struct rv_ring r;
    open_ring(&r, 8, 16);
    CHECK_EQ(!!(r.flags & IORING_SETUP_DEFER_TASKRUN), caps.defer_taskrun);
    CHECK_EQ(!!(r.flags & IORING_SETUP_SINGLE_ISSUER), caps.single_issuer);
    CHECK_EQ(!!(r.flags & IORING_SETUP_TASKRUN_FLAG), caps.taskrun_flag);
    CHECK_EQ(!!(r.flags & IORING_SETUP_SUBMIT_ALL), caps.submit_all);
    CHECK_EQ(r.enter_flags != 0, caps.registered_ring_fd);
    CHECK_EQ(r.no_iowait, caps.no_iowait);
    rv_ring_finish(&r);
}

TEST(sizes_are_rounded_up_and_clamped)
{
    need_uring();
    struct rv_ring r;
    CHECK_OK(rv_ring_init(&r, 5, 33, RV_RING_FLAGS, NULL));
    CHECK_EQ(r.sq_entries, 8);
    CHECK_EQ(r.cq_entries, 64);
    rv_ring_finish(&r);
    CHECK_OK(rv_ring_init(&r, 4, 0, RV_RING_FLAGS, NULL));
    CHECK_EQ(r.cq_entries, 8);
    rv_ring_finish(&r);
    CHECK_OK(rv_ring_init(&r, 1u << 30, 1u << 30, RV_RING_FLAGS, NULL));
    CHECK_GE(r.sq_entries, 4096);
    CHECK_GE(r.cq_entries, r.sq_entries);
    rv_ring_finish(&r);
}

TEST(flags_that_change_the_layout_are_refused)
{
    struct rv_ring r;
    CHECK_DIES("does not hold",
               rv_ring_init(&r, 8, 16, RV_RING_FLAGS | RV_URING_SETUP_NO_SQARRAY, NULL));
    CHECK_DIES("does not hold", rv_ring_init(&r, 8, 16, RV_RING_FLAGS | IORING_SETUP_CQE32, NULL));
}

TEST(finishing_no_ring_does_nothing)
{
    struct rv_ring r = { 0 };
    CHECK_EQ(dup2(open("/dev/null", O_RDWR), STDIN_FILENO), STDIN_FILENO);
    rv_ring_finish(&r); /* whose fd is 0 */
    CHECK_OK(fcntl(STDIN_FILENO, F_GETFD));
    open_ring(&r, 8, 16);
    int fd = r.fd;
    rv_ring_finish(&r);
    CHECK(!r.rings);
    CHECK_EQ(fcntl(fd, F_GETFD), -1);
    rv_ring_finish(&r);
    CHECK_OK(fcntl(STDIN_FILENO, F_GETFD));
}

TEST(finishing_gives_the_registered_index_back)
{
    struct rv_ring r;
    for (unsigned i = 0; i < 100; i++) { /* a thread has 16 */
        open_ring(&r, 1, 2);
        CHECK_EQ(r.enter_flags != 0, caps.registered_ring_fd);
        nop(&r, i);
        CHECK_EQ(next(&r).user_data, i);
        rv_ring_finish(&r);
    }
}

TEST(a_thread_with_too_many_rings_enters_the_rest_by_fd)
{
    need_uring();
    struct rv_ring r[24];
    for (unsigned i = 0; i < 24; i++) {
        open_ring(&r[i], 1, 2);
        nop(&r[i], i);
    }
    for (unsigned i = 0; i < 24; i++)
        CHECK_EQ(next(&r[i]).user_data, i);
    CHECK_EQ(r[23].enter_flags, 0);
    CHECK_EQ(r[23].enter_fd, r[23].fd);
    for (unsigned i = 0; i < 24; i++)
        rv_ring_finish(&r[i]);
}

static void *finish_elsewhere(void *ring)
{
    struct rv_ring mine;
    open_ring(&mine, 1, 2);
    CHECK_EQ(mine.enter_fd == ((struct rv_ring *)ring)->enter_fd, caps.registered_ring_fd);
    rv_ring_finish(ring);
    nop(&mine, 5);
    CHECK_EQ(next(&mine).user_data, 5);
    rv_ring_finish(&mine);
    return NULL;
}

TEST(a_thread_that_finishes_anothers_ring_keeps_its_own_registered)
{
    need_uring();
    struct rv_ring r;
    struct rv_caps_off off = caps.off;
    off.single_issuer = true; /* of a single issuer's ring the kernel itself takes care */
    CHECK_OK(rv_ring_init(&r, 1, 2, RV_RING_FLAGS, &off));
    CHECK_OK(rv_ring_enable(&r));
    run_thread(finish_elsewhere, &r);
    CHECK(!r.rings);
}

static void *enter_elsewhere(void *ring)
{
    struct rv_ring copy = *(struct rv_ring *)ring;
    copy.enter_fd = copy.fd; /* the index means nothing on this thread */
    copy.enter_flags = 0;
    if (copy.flags & IORING_SETUP_DEFER_TASKRUN)
        CHECK_EQ(rv_ring_enter(&copy, 0, 0, RV_RING_NOW), -EEXIST);
    copy.sq_tail++; /* a slot of zeros: a NOP */
    CHECK_EQ(rv_ring_enter(&copy, 0, 0, RV_RING_NOW), -EEXIST);
    CHECK_EQ(rv_ring_register(&copy, IORING_UNREGISTER_EVENTFD, NULL, 0), -EEXIST);
    return NULL;
}

TEST(a_single_issuer_ring_refuses_other_threads)
{
    struct rv_ring r;
    open_ring(&r, 8, 16);
    if (!(r.flags & IORING_SETUP_SINGLE_ISSUER))
        SKIP("the ring may have several issuers");
    run_thread(enter_elsewhere, &r);
    rv_ring_finish(&r);
}

static void *own_ring(void *ring)
{
    struct rv_ring *r = ring;
    CHECK_OK(rv_ring_enable(r));
    CHECK_EQ(r->owner, gettid());
    CHECK_EQ(r->enter_flags != 0, caps.registered_ring_fd);
    nop(r, 3);
    CHECK_EQ(next(r).user_data, 3);
    rv_ring_finish(r);
    return NULL;
}

TEST(a_disabled_ring_belongs_to_the_thread_that_enables_it)
{
    need_uring();
    struct rv_ring r;
    CHECK_OK(rv_ring_init(&r, 8, 16, RV_RING_FLAGS, &caps.off));
    CHECK_EQ(rv_ring_enter(&r, 0, 0, RV_RING_NOW), -EBADFD);
    run_thread(own_ring, &r);
    CHECK(!r.rings);
}

TEST(a_ring_is_enabled_once)
{
    struct rv_ring r;
    open_ring(&r, 8, 16);
    CHECK_DIES("does not hold", rv_ring_enable(&r));
    rv_ring_finish(&r);
}

TEST(a_child_inherits_neither_the_fd_across_exec_nor_the_memory)
{
    struct rv_ring r;
    unsigned char resident;
    open_ring(&r, 8, 16);
    CHECK_EQ(fcntl(r.fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    CHECK_OK(mincore(r.rings, 1, &resident));
    CHECK_OK(mincore(r.sq_slots, 1, &resident));
    pid_t child = fork();
    if (child == 0) {
        bool gone = mincore(r.rings, 1, &resident) < 0 && errno == ENOMEM &&
                    mincore(r.sq_slots, 1, &resident) < 0 && errno == ENOMEM;
        _exit(gone ? 0 : 1);
    }
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
    rv_ring_finish(&r);
}

/* Makes this process one of a user who has nothing else, and who may lock so much memory. */
static void become_somebody(rlim_t memlock_bytes)
{
    uring_or_skip(); /* and asks before there is a limit */
    if (geteuid() != 0)
        SKIP("only root can become a user who has no other rings");
    struct rlimit limit = { memlock_bytes, memlock_bytes };
    CHECK_OK(setrlimit(RLIMIT_MEMLOCK, &limit));
    uid_t id = 100000 + (uid_t)getpid();
    if (setresgid(id, id, id) < 0 || setresuid(id, id, id) < 0)
        SKIP("this user namespace has no user for each process");
}

TEST(an_ordinary_user_may_open_and_close_rings_in_a_row)
{
    become_somebody(1 << 20); /* for some ten rings; what is closed counts for a while */
    for (unsigned i = 0; i < 60; i++) {
        struct rv_ring r;
        struct rv_bufring br;
        CHECK_OK(rv_ring_init(&r, 256, 4096, RV_RING_FLAGS, NULL));
        CHECK_OK(rv_bufring_init(&r, &br, 1024, 1));
        rv_bufring_finish(&r, &br);
        rv_ring_finish(&r);
    }
}

TEST(a_cq_that_does_not_fit_the_limit_on_locked_memory_is_made_smaller)
{
    become_somebody(60 << 10);
    struct rv_ring r, second;
    CHECK_OK(rv_ring_init(&r, 256, 4096, RV_RING_FLAGS, NULL));
    CHECK_EQ(r.sq_entries, 256);
    CHECK_LE(r.cq_entries, 4096);
    CHECK_GE(r.cq_entries, 512);
    if (r.cq_entries == 4096)
        SKIP("this kernel charges nobody for rings");
    CHECK_OK(rv_ring_enable(&r));
    nop(&r, 1);
    CHECK_EQ(next(&r).user_data, 1);
    CHECK_EQ(rv_ring_init(&second, 256, 4096, RV_RING_FLAGS, NULL), -ENOMEM);
    CHECK(!second.rings);
    rv_ring_finish(&r);
}

/* ---- faults ---------------------------------------------------------------------------------- */

static unsigned open_files(void)
{
    unsigned n = 0;
    DIR *dir = opendir("/proc/self/fd");
    CHECK(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

static unsigned ring_mappings(void)
{
    char line[512];
    unsigned n = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    CHECK(maps);
    while (fgets(line, sizeof line, maps))
        n += strstr(line, "io_uring") != NULL;
    fclose(maps);
    return n;
}

/* All that a ring does in its life; the first error. */
static int live(void)
{
    struct rv_ring r;
    struct rv_bufring br = { 0 };
    struct rv_cqe cqe;
    int e = rv_ring_init(&r, 8, 16, RV_RING_FLAGS, &caps.off);
    if (e < 0) {
        CHECK(!r.rings);
        return e;
    }
    e = rv_bufring_init(&r, &br, 8, 3);
    CHECK_EQ(e < 0, !br.br);
    if (e == 0)
        e = rv_ring_enable(&r);
    if (e == 0) {
        nop(&r, 9);
        e = rv_ring_enter(&r, 1, 0, RV_RING_FOREVER);
    }
    if (e >= 0) {
        CHECK_EQ(e, 1);
        CHECK_EQ(rv_ring_peek(&r, &cqe, 1), 1);
    }
    if (e >= 0 && caps.send_msg_ring)
        e = rv_ring_msg(&caps, r.fd, 1);
    rv_bufring_finish(&r, &br);
    rv_ring_finish(&r);
    return e;
}

TEST(every_failing_call_is_reported_and_leaves_nothing_open)
{
    need_uring();
    if (!rv_fault_available())
        SKIP("built without RV_FAULTS");
    CHECK_OK(live());
    unsigned before = open_files(), failed = 0;
    for (uint64_t n = 1;; n++) {
        rv_fault_only("ring.");
        rv_fault_fail_nth(n);
        int e = live();
        const char *name = rv_fault_last_name();
        rv_fault_off();
        if (!name)
            break;
        failed += e < 0;
        /* No error: the ring is entered by its fd, buffers are registered at the second try. */
        CHECK(e < 0 || strcmp(name, "ring.register") == 0);
        CHECK_EQ(open_files(), before);
        CHECK_EQ(ring_mappings(), 0);
    }
    CHECK_GE(failed, 6); /* set-up, three mappings, enabling, entering */
}

/* ---- waking ---------------------------------------------------------------------------------- */

struct parked {
    struct rv_ring ring;
    pthread_barrier_t enabled;
    struct rv_cqe woken_by;
};

static void *park(void *arg)
{
    struct parked *p = arg;
    CHECK_OK(rv_ring_enable(&p->ring));
    pthread_barrier_wait(&p->enabled);
    p->woken_by = next(&p->ring);
    return NULL;
}

TEST(a_message_from_a_thread_without_a_ring_wakes_a_parked_one)
{
    need_uring();
    if (!caps.send_msg_ring)
        SKIP("the kernel has no SEND_MSG_RING");
    struct parked p = { .woken_by = { 0 } };
    pthread_t thread;
    CHECK_OK(rv_ring_init(&p.ring, 8, 16, RV_RING_FLAGS, &caps.off));
    CHECK_EQ(rv_ring_msg(&caps, p.ring.fd, 1), -EBADFD);
    CHECK_EQ(pthread_barrier_init(&p.enabled, NULL, 2), 0);
    CHECK_EQ(pthread_create(&thread, NULL, park, &p), 0);
    pthread_barrier_wait(&p.enabled);
    CHECK_OK(rv_ring_msg(&caps, p.ring.fd, UINT64_C(0xfedcba9876543210)));
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(p.woken_by.user_data, UINT64_C(0xfedcba9876543210));
    CHECK_EQ(p.woken_by.res, 0);
    CHECK_EQ(p.woken_by.flags, 0);
    rv_ring_finish(&p.ring);
}

TEST(a_message_is_refused_where_it_is_switched_off)
{
    need_uring();
    struct rv_caps none;
    CHECK_OK(rv_caps_probe(&none, &(struct rv_caps_off){ .send_msg_ring = true }));
    CHECK_EQ(rv_ring_msg(&none, -1, 1), -ENOSYS);
}

TEST(a_message_to_what_is_no_ring_is_an_error)
{
    need_uring();
    if (!caps.send_msg_ring)
        SKIP("the kernel has no SEND_MSG_RING");
    CHECK_LT(rv_ring_msg(&caps, -1, 1), 0);
    CHECK_LT(rv_ring_msg(&caps, STDERR_FILENO, 1), 0);
}

static bool signalled(int eventfd_)
{
    uint64_t n;
    return read(eventfd_, &n, sizeof n) == sizeof n;
}

TEST(a_registered_eventfd_wakes_poll_for_a_deferred_ring)
{
    need_uring();
    struct rv_ring r;
    struct rv_cqe cqe;
    char byte;
    int pair[2], bell = (int)CHECK_OK(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    CHECK_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    CHECK_OK(rv_ring_init(&r, 8, 16, RV_RING_FLAGS, &caps.off));
    CHECK_OK(rv_ring_register(&r, IORING_REGISTER_EVENTFD, &bell, 1)); /* while it is disabled */
    CHECK_OK(rv_ring_enable(&r));
    io_uring_prep_recv(rv_ring_sqe(&r), pair[0], &byte, 1, 0);
    CHECK_EQ(rv_ring_enter(&r, 0, 0, RV_RING_NOW), 1);
    CHECK(!signalled(bell));
    CHECK_EQ(send(pair[1], "x", 1, 0), 1);
    CHECK_EQ(poll(&(struct pollfd){ .fd = bell, .events = POLLIN }, 1, -1), 1);
    CHECK_OK(rv_ring_enter(&r, 0, 0, RV_RING_NOW));
    CHECK_EQ(rv_ring_peek(&r, &cqe, 1), 1);
    while (signalled(bell))
        ;

    rv_ring_mute_eventfd(&r, true);
    nop(&r, 1);
    CHECK_EQ(rv_ring_enter(&r, 0, 0, RV_RING_NOW), 1);
    CHECK(!signalled(bell));
    rv_ring_mute_eventfd(&r, false);
    nop(&r, 2);
    CHECK_EQ(rv_ring_enter(&r, 0, 0, RV_RING_NOW), 1);
    CHECK(signalled(bell));
    rv_ring_finish(&r);
}

TEST(the_fd_of_a_deferred_ring_is_readable_to_a_poll_that_does_not_wait)
{
    struct rv_ring r;
    open_ring(&r, 8, 16);
    struct pollfd p = { .fd = r.fd, .events = POLLIN };
    CHECK_EQ(poll(&p, 1, 0), 0);
    nop(&r, 1);
    CHECK_EQ(rv_ring_enter(&r, 0, 0, RV_RING_NOW), 1);
    CHECK_EQ(poll(&p, 1, 0), 1);
    rv_ring_finish(&r);
}

/* ---- provided buffers ------------------------------------------------------------------------ */

#define GROUP 7
#define BUFS 4
#define BUF_BYTES 128

struct stream {
    struct rv_ring ring;
    struct rv_bufring br;
    int in, out; /* we send into in, the ring receives from out */
    char bufs[BUFS][BUF_BYTES];
};

static void give(struct stream *s, unsigned bid)
{
    rv_bufring_add(&s->br, s->bufs[bid], BUF_BYTES, (uint16_t)bid);
    rv_bufring_publish(&s->br);
}

static void open_stream(struct stream *s)
{
    int pair[2];
    open_ring(&s->ring, 8, 64);
    CHECK_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
    s->in = pair[0];
    s->out = pair[1];
    CHECK_OK(rv_bufring_init(&s->ring, &s->br, BUFS, GROUP));
    CHECK_EQ(s->br.entries, BUFS);
    for (unsigned i = 0; i < BUFS; i++)
        rv_bufring_add(&s->br, s->bufs[i], BUF_BYTES, (uint16_t)i);
    rv_bufring_publish(&s->br);
}

static void close_stream(struct stream *s)
{
    rv_bufring_finish(&s->ring, &s->br);
    rv_bufring_finish(&s->ring, &s->br);
    rv_ring_finish(&s->ring);
    close(s->in);
    close(s->out);
}

static void arm(struct stream *s, uint32_t optlen)
{
    struct io_uring_sqe *sqe = rv_ring_sqe(&s->ring);
    CHECK(sqe);
    io_uring_prep_recv(sqe, s->out, NULL, 0, 0);
    sqe->ioprio = RV_URING_RECV_MULTISHOT;
    sqe->flags = IOSQE_BUFFER_SELECT;
    sqe->buf_group = GROUP;
    if (optlen)
        rv_uring_sqe_optlen(sqe, optlen);
    CHECK_OK(rv_ring_enter(&s->ring, 0, 0, RV_RING_NOW));
}

/* In one piece. */
static void send_numbers(struct stream *s, uint32_t first, unsigned n)
{
    uint32_t numbers[2 * BUFS * BUF_BYTES / sizeof(uint32_t)];
    CHECK_LE(n * sizeof *numbers, sizeof numbers);
    for (uint32_t i = 0; i < n; i++)
        numbers[i] = first + i;
    CHECK_EQ(send(s->in, numbers, n * sizeof *numbers, 0), n * sizeof *numbers);
}

/* The numbers in the completion's buffer go on where `expected` stands; returns where they end. */
static uint32_t check_numbers(struct stream *s, struct rv_cqe cqe, uint32_t expected)
{
    CHECK_GT(cqe.res, 0);
    CHECK(cqe.flags & RV_URING_CQE_F_BUFFER);
    CHECK_EQ((unsigned)cqe.res % sizeof(uint32_t), 0);
    unsigned bid = rv_uring_cqe_bid(cqe.flags);
    CHECK_LT(bid, BUFS);
    for (int at = 0; at < cqe.res; at += (int)sizeof(uint32_t)) {
        uint32_t value;
        memcpy(&value, s->bufs[bid] + at, sizeof value);
        CHECK_EQ(value, expected);
        expected++;
    }
    return expected;
}

TEST(a_multishot_recv_fills_the_provided_buffers_in_ring_order)
{
    struct stream s;
    open_stream(&s);
    arm(&s, 0);
    uint32_t seen = 0;
    for (unsigned round = 0; round < 100; round++) {
        send_numbers(&s, seen, 3);
        struct rv_cqe cqe = next(&s.ring);
        CHECK(cqe.flags & RV_URING_CQE_F_MORE);
        CHECK_EQ(rv_uring_cqe_bid(cqe.flags), round % BUFS);
        seen = check_numbers(&s, cqe, seen);
        CHECK_EQ(seen, 3 * (round + 1));
        give(&s, round % BUFS);
    }
    CHECK_OK(shutdown(s.in, SHUT_WR));
    struct rv_cqe end = next(&s.ring);
    CHECK_EQ(end.res, 0);
    CHECK_EQ(end.flags & RV_URING_CQE_F_MORE, 0);
    close_stream(&s);
}

TEST(running_out_of_buffers_ends_a_multishot_recv_with_enobufs_and_loses_nothing)
{
    const unsigned total = 2 * BUFS * BUF_BYTES / sizeof(uint32_t);
    struct stream s;
    open_stream(&s);
    arm(&s, 0);
    send_numbers(&s, 0, total);
    uint32_t seen = 0;
    unsigned dry = 0;
    while (seen < total) {
        struct rv_cqe cqe = next(&s.ring);
        if (cqe.res == -ENOBUFS) {
            CHECK_EQ(cqe.flags & RV_URING_CQE_F_MORE, 0);
            CHECK_EQ(cqe.flags & RV_URING_CQE_F_BUFFER, 0);
            for (unsigned i = 0; i < BUFS; i++)
                give(&s, i);
            arm(&s, 0);
            dry++;
        } else {
            seen = check_numbers(&s, cqe, seen);
        }
    }
    CHECK_GE(dry, 1);
    close_stream(&s);
}

TEST(arming_without_a_buffer_fails_at_once_though_nothing_has_come)
{
    struct stream s;
    open_stream(&s);
    arm(&s, 0);
    send_numbers(&s, 0, BUFS * BUF_BYTES / sizeof(uint32_t));
    uint32_t seen = 0;
    while (seen < BUFS * BUF_BYTES / sizeof(uint32_t))
        seen = check_numbers(&s, next(&s.ring), seen);
    io_uring_prep_cancel64(rv_ring_sqe(&s.ring), 0, IORING_ASYNC_CANCEL_ANY);
    CHECK_OK(rv_ring_enter(&s.ring, 0, 0, RV_RING_NOW));
    struct rv_cqe cqe;
    while (rv_ring_taskrun(&s.ring))
        CHECK_OK(rv_ring_enter(&s.ring, 0, 0, RV_RING_NOW));
    while (rv_ring_peek(&s.ring, &cqe, 1) == 1)
        ;
    arm(&s, 0);
    cqe = next(&s.ring);
    CHECK_EQ(cqe.res, -ENOBUFS);
    CHECK_EQ(cqe.flags & RV_URING_CQE_F_MORE, 0);
    close_stream(&s);
}

TEST(optlen_makes_the_kernel_end_a_multishot_recv)
{
    struct stream s;
    open_stream(&s);
    if (!caps.recv_optlen)
        SKIP("the kernel has no recv_optlen");
    const uint32_t total = BUFS * BUF_BYTES / sizeof(uint32_t);
    send_numbers(&s, 0, total);
    uint32_t seen = 0;
    for (unsigned half = 1; half <= 2; half++) {
        arm(&s, 2 * BUF_BYTES);
        struct rv_cqe cqe = next(&s.ring);
        CHECK(cqe.flags & RV_URING_CQE_F_MORE);
        seen = check_numbers(&s, cqe, seen);
        cqe = next(&s.ring);
        CHECK_EQ(cqe.flags & RV_URING_CQE_F_MORE, 0);
        seen = check_numbers(&s, cqe, seen);
        CHECK_EQ(seen, half * total / 2);
        CHECK(!rv_ring_has_cqe(&s.ring));
        CHECK(!rv_ring_taskrun(&s.ring));
    }
    close_stream(&s);
}

TEST(a_group_is_registered_once_and_free_again_after_finish)
{
    struct rv_ring r;
    struct rv_bufring a, b;
    open_ring(&r, 8, 16);
    CHECK_OK(rv_bufring_init(&r, &a, 1, 1));
    CHECK_EQ(rv_bufring_init(&r, &b, 1, 1), -EEXIST);
    CHECK(!b.br);
    rv_bufring_finish(&r, &b);
    rv_bufring_finish(&r, &a);
    CHECK_OK(rv_bufring_init(&r, &a, 32768, 1));
    rv_ring_finish(&r);
    rv_bufring_finish(&r, &a);
}

TEST(a_group_of_absurd_size_is_misuse)
{
    struct rv_ring r;
    struct rv_bufring br;
    open_ring(&r, 8, 16);
    CHECK_DIES("does not hold", rv_bufring_init(&r, &br, 0, 1));
    CHECK_DIES("does not hold", rv_bufring_init(&r, &br, 3, 1));
    CHECK_DIES("does not hold", rv_bufring_init(&r, &br, 65536, 1));
    rv_ring_finish(&r);
}
