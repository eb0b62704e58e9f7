/* SPDX-License-Identifier: MIT */
/*
 * fdtab_test.c -- closing: who is told, and when the number is free.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <sched.h>
#include <sys/eventfd.h>

#include "io/fdtab.h"
#include "tests/io/pair.h"


struct reading {
    int fd;
    ssize_t result;
    char buf[32];
};

static int read_some(void *arg)
{
    struct reading *r = arg;
    r->result = reeve_read(r->fd, r->buf, sizeof r->buf, LONG);
    return 0;
}

static int accept_one(void *arg)
{
    struct reading *r = arg;
    r->result = reeve_accept(r->fd, LONG);
    return 0;
}

static int wakes(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    struct reading r = { .fd = p.fd }, a = { .fd = p.listener };
    struct reeve_group g = { 0 };
    CHECK_EQ(reeve_spawn(NULL, read_some, &r, .group = &g), 0);
    CHECK_EQ(reeve_spawn(NULL, accept_one, &a, .group = &g), 0);
    await_waiter(p.fd, A_READER);
    await_waiter(p.listener, AN_OP);
    CHECK_EQ(reeve_close(p.fd), 0);
    CHECK_EQ(reeve_close(p.listener), 0);
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    CHECK_EQ(r.result, -ECANCELED);
    CHECK_EQ(a.result, -ECANCELED);
    await_closed(p.fd);
    await_closed(p.listener);
    CHECK_EQ(recv(p.peer, r.buf, 1, 0), 0);
    close(p.peer);
    return 0;
}

TEST(a_close_wakes_who_waits_and_then_frees_the_number)
{
    RUN(wakes, .workers = 1);
    RUN(wakes, .workers = 2);
}

static int at_once(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    char c;
    CHECK_EQ(reeve_read(p.fd, &c, 1, REEVE_POLL), -ETIMEDOUT); /* a stream is in flight now */
    CHECK_EQ(reeve_close(p.fd), 0);
    CHECK(is_open(p.fd)); /* its op has not ended, for nobody has entered the kernel */
    CHECK_EQ(recv(p.peer, &c, 1, 0), 0);
    await_closed(p.fd);
    p.fd = -1;
    pair_close(&p);
    return 0;
}

TEST(a_connection_is_shut_down_at_once_though_the_number_is_not_free)
{
    RUN(at_once, .workers = 1);
}

static int write_much(void *arg)
{
    struct reading *r = arg;
    static char much[1 << 20];
    r->result = reeve_write(r->fd, much, sizeof much, LONG);
    return 0;
}

static int close_full_pipe(void *arg)
{
    (void)arg;
    int ends[2];
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    struct reading r = { .fd = ends[1] };
    reeve_task *t;
    CHECK_EQ(reeve_spawn(&t, write_much, &r), 0);
    await_waiter(ends[1], AN_OP);
    CHECK_EQ(reeve_sleep(reeve_in(REEVE_MS)), 0);
    CHECK_EQ(reeve_close(ends[1]), 0);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(r.result, -ECANCELED);
    await_closed(ends[1]);
    CHECK_EQ(reeve_close(ends[0]), 0);
    return 0;
}

TEST(a_close_ends_a_write_to_a_pipe_that_nobody_reads)
{
    RUN(close_full_pipe, .workers = 1);
    RUN(close_full_pipe, .workers = 2);
}

static int says_ebadf(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    char c;
    struct reeve_buf *b = NULL;
    CHECK_EQ(reeve_read(p.fd, &c, 1, REEVE_POLL), -ETIMEDOUT); /* a stream is in flight now */
    CHECK_EQ(reeve_close(p.fd), 0);
    if (is_open(p.fd)) {
        CHECK_EQ(reeve_read(p.fd, &c, 1, LONG), -EBADF);
        CHECK_EQ(reeve_buf_recv(p.fd, &b, LONG), -EBADF);
        CHECK_EQ(reeve_write(p.fd, &c, 1, LONG), -EBADF);
        CHECK_EQ(reeve_accept(p.fd, LONG), -EBADF);
        CHECK_EQ(reeve_close(p.fd), -EBADF);
    }
    await_closed(p.fd);
    CHECK_EQ(reeve_read(p.fd, &c, 1, LONG), -EBADF);
    CHECK_EQ(reeve_write(p.fd, &c, 1, LONG), -EBADF);
    CHECK_EQ(reeve_accept(p.fd, LONG), -EBADF);
    CHECK_EQ(reeve_close(p.fd), -EBADF);
    CHECK_EQ(reeve_close(-1), -EBADF);
    CHECK_EQ(reeve_close(INT_MAX), -EBADF);
    CHECK_EQ(reeve_read(-1, &c, 1, LONG), -EBADF);
    CHECK_EQ(reeve_write(-1, &c, 1, LONG), -EBADF);
    CHECK_EQ(reeve_accept(-1, LONG), -EBADF);
    CHECK_EQ(reeve_buf_recv(-1, &b, LONG), -EBADF);
    p.fd = -1;
    pair_close(&p);
    return 0;
}

TEST(calls_on_a_closed_descriptor_say_so)
{
    RUN(says_ebadf, .workers = 1);
}

static int reuse(void *arg)
{
    (void)arg;
    int listener = (int)CHECK_OK(reeve_listen("127.0.0.1:0", 0)), before = -1, same = 0;
    for (int i = 0; i < 200; i++) {
        char text[32], buf[64];
        int peer = peer_connect(listener);
        int fd = (int)CHECK_OK(reeve_accept(listener, LONG));
        same += fd == before;
        before = fd;
        snprintf(text, sizeof text, "hello %d", i);
        peer_send(peer, text, strlen(text));
        ssize_t n = reeve_read(fd, buf, sizeof buf, LONG);
        CHECK_EQ(n, (ssize_t)strlen(text));
        CHECK_MEM_EQ(buf, text, (size_t)n);
        peer_send(peer, "nobody reads this", 17);
        if (i % 2)
            CHECK_EQ(reeve_sleep(0), 0);
        CHECK_EQ(reeve_close(fd), 0);
        if (i % 3)
            await_closed(fd);
        close(peer);
    }
    CHECK_GE(same, 50);
    CHECK_EQ(reeve_close(listener), 0);
    return 0;
}

TEST(a_number_handed_out_again_delivers_only_its_own_data)
{
    RUN(reuse, .workers = 1);
    RUN(reuse, .workers = 2);
}

/* ---- races ----------------------------------------------------------------------------------- */

static int close_it(void *arg)
{
    CHECK_EQ(reeve_close(*(int *)arg), 0);
    return 0;
}

static int race(void *arg)
{
    (void)arg;
    int listener = (int)CHECK_OK(reeve_listen("127.0.0.1:0", 0));
    for (int i = 0; i < 400; i++) {
        int peer = peer_connect(listener);
        int fd = (int)CHECK_OK(reeve_accept(listener, LONG));
        struct reading r = { .fd = fd };
        struct reeve_group g = { 0 };
        if (i % 4 == 0)
            CHECK_EQ(reeve_read(fd, r.buf, 1, REEVE_POLL), -ETIMEDOUT);
        CHECK_EQ(reeve_spawn(NULL, read_some, &r, .group = &g, .worker = 1 + i % 2), 0);
        if (i % 3 == 0)
            CHECK_EQ(reeve_sleep(0), 0);
        CHECK_EQ(reeve_spawn(NULL, close_it, &fd, .group = &g, .worker = 1 + i / 2 % 2), 0);
        if (i % 5 == 0)
            peer_send(peer, "data", 4);
        CHECK_EQ(reeve_group_wait(&g, LONG), 0);
        CHECK(r.result == -ECANCELED || r.result == -EBADF || r.result == 4);
        char c;
        ssize_t n = recv(peer, &c, 1, 0); /* shut down at once; reset where data was unread */
        CHECK(n == 0 || (n < 0 && errno == ECONNRESET));
        close(peer);
        await_closed(fd);
    }
    CHECK_EQ(reeve_close(listener), 0);
    return 0;
}

TEST(a_close_may_race_with_reads_on_every_worker)
{
    RUN(race, .workers = 2);
}

static void *close_from_outside(void *arg)
{
    CHECK_EQ(reeve_close(*(int *)arg), 0);
    return NULL;
}

static int foreign_thread(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    struct reading r = { .fd = p.fd };
    reeve_task *t;
    pthread_t thread;
    CHECK_EQ(reeve_spawn(&t, read_some, &r), 0);
    await_waiter(p.fd, A_READER);
    CHECK_EQ(pthread_create(&thread, NULL, close_from_outside, &p.fd), 0);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(r.result, -ECANCELED);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    await_closed(p.fd);
    p.fd = -1;
    pair_close(&p);
    return 0;
}

TEST(any_thread_may_close)
{
    RUN(foreign_thread, .workers = 1);
}

/* ---- the moment before the number is free ---------------------------------------------------- */

/* A slot says "foreign" just before the number is free. What a call finds there then must not be
 * the file that is going: it would wait on it for ever. */
static int spied, vacated, emptied;
static struct rv_io_driver spy;

static int spy_vacate(int fd, int nowhere)
{
    struct rv_op op = { .fd = fd };
    if (fd == spied) {
        vacated++;
        CHECK_EQ(rv_fd_enter(rv_fd_slot(fd), &op), -EBADF);
        CHECK_EQ(rv_fd_close(NULL, fd, 0), -EBADF);
    }
    return rv_io_driver_uring.vacate(fd, nowhere);
}

static int spy_close(int fd)
{
    char c;
    if (fd == spied) {
        struct rv_op op = { .fd = fd };
        CHECK_EQ(rv_fd_enter(rv_fd_slot(fd), &op), 0);
        CHECK(is_open(fd));
        emptied = recv(fd, &c, 1, MSG_DONTWAIT) == -1 && errno == EBADF;
        rv_fd_leave(rv_fd_slot(fd), &op);
    }
    return rv_io_driver_uring.close(fd);
}

static void *close_spied(void *arg)
{
    (void)arg;
    CHECK_EQ(reeve_close(spied), 0);
    return NULL;
}

static void look_on(int fd, bool from_outside, bool expect)
{
    pthread_t thread;
    spied = fd;
    vacated = emptied = 0;
    if (!from_outside)
        close_spied(NULL);
    else if (pthread_create(&thread, NULL, close_spied, NULL) == 0)
        CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(vacated, expect);
    CHECK_EQ(emptied, expect);
    CHECK(!is_open(fd));
    CHECK_EQ(reeve_close(fd), -EBADF);
}

static int goes_first(void *arg)
{
    (void)arg;
    bool many = my_io()->io->sched->nworkers > 1;
    spy = rv_io_driver_uring;
    spy.vacate = spy_vacate;
    spy.close = spy_close;
    for (int i = 0; i < 4; i++) {
        struct pair p = pair_make();
        bool from_outside = i % 2, ours = i / 2;
        int fd = p.fd;
        if (!ours) {
            fd = eventfd(1, EFD_CLOEXEC);
            struct rv_op op = { .fd = fd }; /* as if somebody used it before */
            CHECK_EQ(rv_fd_enter(rv_fd_slot(fd), &op), 0);
            rv_fd_leave(rv_fd_slot(fd), &op);
        }
        rv_fd_slot(fd)->driver = &spy;
        look_on(fd, from_outside, many || from_outside);
        if (ours)
            p.fd = -1;
        pair_close(&p);
    }
    return 0;
}

TEST(the_file_leaves_its_number_before_anybody_may_use_that_again)
{
    RUN(goes_first, .workers = 1);
    RUN(goes_first, .workers = 2);
}

/* ---- descriptors from elsewhere -------------------------------------------------------------- */

static int foreign_fd(void *arg)
{
    (void)arg;
    int fd = eventfd(0, EFD_CLOEXEC);
    struct reading r = { .fd = fd };
    reeve_task *t;
    CHECK_EQ(reeve_spawn(&t, read_some, &r), 0);
    await_waiter(fd, AN_OP);
    CHECK_EQ(reeve_close(fd), 0);
    CHECK_EQ(reeve_close(fd), -EBADF);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(r.result, -ECANCELED);
    CHECK(!is_open(fd));
    fd = eventfd(0, EFD_CLOEXEC);
    CHECK_EQ(reeve_close(fd), 0);
    CHECK(!is_open(fd));
    return 0;
}

TEST(a_descriptor_from_elsewhere_can_be_closed_here)
{
    RUN(foreign_fd, .workers = 1);
}

/* The slot that a foreign close(2) leaves behind does not stand in the way of the next owner. */
static int abandoned(void *arg)
{
    (void)arg;
    int listener = (int)CHECK_OK(reeve_listen("127.0.0.1:0", 0));
    int ends[2];
    char buf[8];
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    struct reading r = { .fd = ends[0] };
    reeve_task *t;
    uint64_t sqes = COUNTER(sqes);
    CHECK_EQ(reeve_spawn(&t, read_some, &r), 0);
    while (COUNTER(sqes) == sqes) /* until the kernel has it */
        CHECK_EQ(reeve_sleep(0), 0);
    int peer = peer_connect(listener);
    close(ends[0]);
    int fd = (int)CHECK_OK(reeve_accept(listener, LONG));
    CHECK_EQ(fd, ends[0]);
    peer_send(peer, "mine", 4);
    CHECK_EQ(reeve_read(fd, buf, sizeof buf, LONG), 4);
    CHECK_MEM_EQ(buf, "mine", 4);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(r.result, -ECANCELED);
    CHECK_EQ(reeve_close(fd), 0);
    CHECK_EQ(reeve_close(listener), 0);
    close(ends[1]);
    close(peer);
    return 0;
}

TEST(an_op_on_a_number_that_changed_hands_disturbs_nobody)
{
    RUN(abandoned, .workers = 1);
}

/* ---- orphans --------------------------------------------------------------------------------- */

static int orphaned(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    int orphans = 0, workers = (int)my_io()->io->sched->nworkers;
    rv_fd_check_switch(false);
    for (int i = 0; i < 100; i++) {
        char text[32], buf[64];
        struct reading r = { .fd = p.fd };
        reeve_task *t = NULL;
        int peer = peer_connect(p.listener);
        CHECK_EQ(reeve_read(p.fd, buf, 1, REEVE_POLL), -ETIMEDOUT); /* the kernel receives ahead */
        if (i % 3 == 0) { /* somebody waits for it, too */
            CHECK_EQ(reeve_spawn(&t, read_some, &r, .worker = 1 + i % workers), 0);
            await_waiter(p.fd, A_READER);
        }
        close(p.fd);
        if (i % 2)
            CHECK_EQ(reeve_sleep(0), 0);
        int fd = (int)CHECK_OK(reeve_accept(p.listener, LONG));
        orphans += fd == p.fd;
        snprintf(text, sizeof text, "mine %d", i);
        peer_send(p.peer, "the old one's", 13); /* it has no end yet: the kernel still listens */
        peer_send(peer, text, strlen(text));
        CHECK_EQ(reeve_read(fd, buf, sizeof buf, LONG), (ssize_t)strlen(text));
        CHECK_MEM_EQ(buf, text, strlen(text));
        CHECK_EQ(reeve_read(fd, buf, sizeof buf, REEVE_POLL), -ETIMEDOUT);
        CHECK_EQ(reeve_write(fd, "yours", 5, LONG), 5);
        CHECK_EQ(recv(peer, buf, 5, MSG_WAITALL), 5);
        if (t && fd == p.fd) {
            CHECK_EQ(reeve_join(t, NULL, LONG), 0);
            CHECK_EQ(r.result, -ECANCELED);
        }
        while (recv(p.peer, buf, sizeof buf, MSG_DONTWAIT) < 0 && errno == EAGAIN)
            CHECK_EQ(reeve_sleep(0), 0); /* until the last use of the old socket has ended */
        close(p.peer);
        p.fd = fd;
        p.peer = peer;
    }
    CHECK_EQ(orphans, 100);
    pair_close(&p);
    rv_fd_check_switch(true);
    return 0;
}

TEST(a_number_closed_behind_our_back_and_made_again_never_sees_the_old_data)
{
    RUN(orphaned, .workers = 1);
    RUN(orphaned, .workers = 2);
}

/* ---- to and from elsewhere ------------------------------------------------------------------- */

static void foreign_pair(int ends[2])
{
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
}

static int adopts(void *arg)
{
    (void)arg;
    int ends[2];
    struct reeve_buf *b = NULL;
    foreign_pair(ends);
    CHECK_EQ(reeve_adopt(ends[0]), 0);
    CHECK_EQ(reeve_adopt(ends[0]), -EEXIST);
    peer_send(ends[1], "hello", 5);
    CHECK_EQ(reeve_buf_recv(ends[0], &b, LONG), 5);
    CHECK_EQ(reeve_buf_send(ends[0], b, LONG), 5);
    CHECK(rv_fd_slot(ends[0])->stream != NULL);
    char buf[8];
    CHECK_EQ(recv(ends[1], buf, sizeof buf, 0), 5);
    CHECK_EQ(reeve_close(ends[0]), 0);
    CHECK_EQ(recv(ends[1], buf, sizeof buf, 0), 0);
    close(ends[1]);
    return 0;
}

TEST(an_adopted_socket_is_read_ahead_and_closed_like_one_of_ours)
{
    RUN(adopts, .workers = 1);
    RUN(adopts, .workers = 2);
}

static int refuses(void *arg)
{
    (void)arg;
    int ends[2];
    CHECK_EQ(reeve_adopt(-1), -EBADF);
    CHECK_EQ(reeve_adopt(INT_MAX), -EBADF);
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    CHECK_EQ(reeve_adopt(ends[0]), -ENOTSOCK);
    close(ends[0]);
    CHECK_EQ(reeve_adopt(ends[0]), -EBADF);
    close(ends[1]);
    CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    CHECK_EQ(reeve_adopt(ends[0]), -EPROTOTYPE);
    close(ends[0]);
    close(ends[1]);
    foreign_pair(ends);
    struct reading r = { .fd = ends[0] };
    reeve_task *t;
    CHECK_EQ(reeve_spawn(&t, read_some, &r), 0);
    await_waiter(ends[0], AN_OP);
    CHECK_EQ(reeve_adopt(ends[0]), -EBUSY);
    peer_send(ends[1], "x", 1);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(r.result, 1);
    CHECK_EQ(reeve_adopt(ends[0]), 0);
    struct pair p = pair_make();
    CHECK_EQ(reeve_adopt(p.fd), -EEXIST);
    CHECK_EQ(reeve_adopt(p.listener), -EEXIST);
    pair_close(&p);
    CHECK_EQ(reeve_close(ends[0]), 0);
    close(ends[1]);
    return 0;
}

TEST(what_cannot_be_adopted_is_told_why)
{
    RUN(refuses, .workers = 1);
}

TEST(adopting_needs_no_runtime)
{
    int ends[2];
    foreign_pair(ends);
    CHECK_EQ(reeve_adopt(ends[0]), 0);
    CHECK_EQ(reeve_adopt(ends[0]), -EEXIST);
    CHECK_EQ(reeve_close(ends[0]), 0);
    close(ends[1]);
}

static int releases(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    char buf[16];
    for (int i = 0; i < 50; i++) { /* there and back, with and without a stream in flight */
        if (i % 2)
            CHECK_EQ(reeve_read(p.fd, buf, sizeof buf, REEVE_POLL), -ETIMEDOUT);
        CHECK_EQ(reeve_fd_release(p.fd, i % 3 ? LONG : REEVE_POLL), 0);
        CHECK(!rv_fd_slot(p.fd)->stream);
        CHECK_EQ(rv_load_relaxed(&rv_fd_slot(p.fd)->word) & UINT32_MAX, 0);
        peer_send(p.peer, "plain", 5);
        CHECK_EQ(recv(p.fd, buf, sizeof buf, 0), 5); /* by system calls, at once */
        CHECK_EQ(reeve_fd_release(p.fd, LONG), 0);
        CHECK_EQ(reeve_adopt(p.fd), 0);
        peer_send(p.peer, "ours", 4);
        read_exactly(p.fd, buf, 4);
        CHECK_MEM_EQ(buf, "ours", 4);
    }
    CHECK_EQ(reeve_fd_release(p.fd, LONG), 0);
    CHECK_EQ(reeve_fd_release(p.listener, LONG), 0);
    close(p.fd);
    CHECK_EQ(reeve_fd_release(p.fd, LONG), -EBADF);
    CHECK_EQ(reeve_fd_release(-1, LONG), -EBADF);
    CHECK_EQ(reeve_adopt(p.listener), 0);
    p.fd = -1;
    pair_close(&p);
    return 0;
}

TEST(a_released_socket_is_a_plain_one_and_may_be_adopted_again)
{
    RUN(releases, .workers = 1);
    RUN(releases, .workers = 2);
}

static int release_busy(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    struct reading r = { .fd = p.fd };
    reeve_task *t;
    char c;
    CHECK_EQ(reeve_spawn(&t, read_some, &r), 0);
    await_waiter(p.fd, A_READER);
    CHECK_EQ(reeve_fd_release(p.fd, LONG), -EBUSY); /* a reader waits */
    peer_send(p.peer, "for it", 6);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(r.result, 6);
    peer_send(p.peer, "unread", 6);
    CHECK_EQ(reeve_read(p.fd, &c, 1, LONG), 1);
    CHECK_EQ(reeve_fd_release(p.fd, LONG), -EBUSY);
    read_exactly(p.fd, r.buf, 5);
    CHECK_MEM_EQ(r.buf, "nread", 5);
    CHECK_EQ(reeve_fd_release(p.fd, LONG), 0);
    struct reading w = { .fd = p.listener };
    CHECK_EQ(reeve_spawn(&t, accept_one, &w), 0);
    await_waiter(p.listener, AN_OP);
    CHECK_EQ(reeve_fd_release(p.listener, LONG), -EBUSY); /* an op is in flight */
    reeve_cancel(t);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    close(p.fd);
    p.fd = -1;
    pair_close(&p);
    return 0;
}

TEST(what_is_in_use_or_unread_is_not_released)
{
    RUN(release_busy, .workers = 1);
    RUN(release_busy, .workers = 2);
}

static int release_it(void *arg)
{
    struct reading *r = arg;
    r->result = reeve_fd_release(r->fd, LONG);
    return 0;
}

/* A release against a close, a reader and data, on every worker: one of them wins, and what came is
 * in the socket or was read. */
static int release_race(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    char buf[8];
    for (int i = 0; i < 300; i++) {
        struct reading r = { .fd = p.fd }, l = { .fd = p.fd };
        struct reeve_group g = { 0 };
        CHECK_EQ(reeve_read(p.fd, buf, sizeof buf, REEVE_POLL), -ETIMEDOUT);
        CHECK_EQ(reeve_spawn(NULL, release_it, &l, .group = &g, .worker = 1 + i % 2), 0);
        if (i % 3 == 0)
            CHECK_EQ(reeve_sleep(0), 0);
        CHECK_EQ(reeve_spawn(NULL, read_some, &r, .group = &g, .worker = 1 + i / 2 % 2), 0);
        peer_send(p.peer, "data", 4);
        CHECK_EQ(reeve_group_wait(&g, LONG), 0);
        CHECK(l.result == 0 || l.result == -EBUSY);
        CHECK(r.result == 4 || r.result == -EBUSY);
        if (r.result == -EBUSY && l.result == 0)
            CHECK_EQ(recv(p.fd, buf, sizeof buf, 0), 4);
        else if (r.result == -EBUSY)
            read_exactly(p.fd, buf, 4);
        if (l.result == 0)
            CHECK_EQ(reeve_adopt(p.fd), 0);
    }
    pair_close(&p);
    return 0;
}

TEST(a_release_may_race_with_reads_and_loses_nothing)
{
    RUN(release_race, .workers = 2);
}

static int release_and_close(void *arg)
{
    (void)arg;
    int listener = (int)CHECK_OK(reeve_listen("127.0.0.1:0", 0));
    for (int i = 0; i < 200; i++) {
        int peer = peer_connect(listener);
        int fd = (int)CHECK_OK(reeve_accept(listener, LONG));
        struct reading l = { .fd = fd };
        struct reeve_group g = { 0 };
        char c;
        CHECK_EQ(reeve_read(fd, &c, 1, REEVE_POLL), -ETIMEDOUT);
        CHECK_EQ(reeve_spawn(NULL, release_it, &l, .group = &g, .worker = 1 + i % 2), 0);
        if (i % 3 == 0)
            CHECK_EQ(reeve_sleep(0), 0);
        CHECK_EQ(reeve_spawn(NULL, close_it, &fd, .group = &g, .worker = 1 + i / 2 % 2), 0);
        CHECK_EQ(reeve_group_wait(&g, LONG), 0);
        CHECK(l.result == 0 || l.result == -ECANCELED || l.result == -EBADF);
        await_closed(fd);
        close(peer);
    }
    CHECK_EQ(reeve_close(listener), 0);
    return 0;
}

TEST(a_release_may_race_with_a_close)
{
    RUN(release_and_close, .workers = 2);
}

#ifdef RV_DEBUG
static const bool debug = true;
#else
static const bool debug;
#endif

static int closed_behind_our_back(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    char c;
    CHECK_EQ(reeve_read(p.fd, &c, 1, REEVE_POLL), -ETIMEDOUT);
    close(p.fd);
    return (int)reeve_read(p.fd, &c, 1, LONG);
}

TEST(debug_builds_notice_a_close_behind_our_back)
{
    uring_or_skip();
    if (!debug)
        SKIP("not a debug build");
    CHECK_DIES("close it with reeve_close", reeve_run(closed_behind_our_back, NULL, .workers = 1));
}

TEST(closing_needs_no_runtime)
{
    int ends[2];
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    CHECK_EQ(reeve_close(ends[0]), 0);
    CHECK_EQ(reeve_close(ends[0]), -EBADF);
    CHECK_EQ(reeve_close(ends[1]), 0);
    int fd = (int)CHECK_OK(reeve_listen("127.0.0.1:0", 0));
    CHECK_EQ(reeve_close(fd), 0);
    CHECK(!is_open(fd));
}

/* ---- runtimes come and go -------------------------------------------------------------------- */

static int left_open;

static int leave_open(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    char c;
    CHECK_EQ(reeve_read(p.fd, &c, 1, REEVE_POLL), -ETIMEDOUT);
    CHECK_EQ(reeve_close(p.listener), 0);
    left_open = p.fd;
    return p.peer;
}

static int go_on(void *arg)
{
    char buf[8];
    CHECK_EQ(reeve_read(left_open, buf, sizeof buf, LONG), 5);
    CHECK_EQ(reeve_write(left_open, "again", 5, LONG), 5);
    CHECK_EQ(recv(*(int *)arg, buf, sizeof buf, 0), 5);
    return 0;
}

TEST(a_connection_outlives_its_runtime_and_goes_on_in_the_next)
{
    uring_or_skip();
    int peer = (int)CHECK_OK(reeve_run(leave_open, NULL, .workers = 2));
    CHECK(is_open(left_open));
    peer_send(peer, "hello", 5);
    CHECK_EQ(reeve_run(go_on, &peer, .workers = 1), 0);
    CHECK_EQ(reeve_close(left_open), 0);
    CHECK(!is_open(left_open));
    close(peer);
}

/* ---- two runtimes ---------------------------------------------------------------------------- */

static int two_fd, two_peer, two_listener;

static int open_two(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    char c;
    CHECK_EQ(reeve_read(p.fd, &c, 1, REEVE_POLL), -ETIMEDOUT); /* the stream lives here */
    two_fd = p.fd;
    two_peer = p.peer;
    two_listener = p.listener;
    return 0;
}

static int read_two(void *arg)
{
    (void)arg;
    char buf[8];
    CHECK_EQ(reeve_read(two_fd, buf, sizeof buf, LONG), 5);
    CHECK_MEM_EQ(buf, "hello", 5);
    return 0;
}

static void *wait_in_another(void *arg)
{
    CHECK_EQ(reeve_call(arg, read_two, NULL, LONG), 0);
    return NULL;
}

TEST(a_reader_goes_on_when_the_runtime_of_its_stream_ends)
{
    uring_or_skip();
    for (int i = 0; i < 10; i++) {
        reeve *home, *other;
        pthread_t thread;
        CHECK_EQ(reeve_create(&home, &(struct reeve_opts){ .workers = 1 }), 0);
        CHECK_EQ(reeve_create(&other, &(struct reeve_opts){ .workers = 1 }), 0);
        CHECK_EQ(reeve_call(home, open_two, NULL, LONG), 0);
        CHECK_EQ(pthread_create(&thread, NULL, wait_in_another, other), 0);
        struct rv_fd *f = rv_fd_slot(two_fd);
        while (!rv_load_relaxed(&f->reader))
            sched_yield();
        CHECK_EQ(reeve_shutdown(home, LONG), 0);
        reeve_destroy(home);
        peer_send(two_peer, "hello", 5);
        CHECK_EQ(pthread_join(thread, NULL), 0);
        CHECK_EQ(reeve_shutdown(other, LONG), 0);
        reeve_destroy(other);
        CHECK_EQ(reeve_close(two_fd), 0);
        CHECK_EQ(reeve_close(two_listener), 0);
        close(two_peer);
    }
}
