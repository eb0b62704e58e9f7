/* SPDX-License-Identifier: MIT */
/*
 * pair.h -- what the tests of the io layer share: a runtime to run in, and a connection of which
 * one end is reeve's and the other a plain socket that the test drives by system calls.
 *
 * On loopback a connect is complete before anybody accepts and a send has mostly arrived when it
 * returns, so most tests need no second thread. Mostly: a busy kernel leaves it to a thread of its
 * own. Who then looks without waiting sends by pair_send().
 */
#ifndef TESTS_IO_PAIR_H
#define TESTS_IO_PAIR_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <reeve/reeve.h>
#include <sched.h>
#include <sys/socket.h>
#include <time.h>

#include "io/fdtab.h"
#include "io/io.h"
#include "sched/scope.h"
#include "sched/wait.h"
#include "sched/worker.h"
#include "tests/check.h"
#include "tests/io/uring.h"

struct pair {
    int listener; /* reeve's */
    int fd;       /* reeve's, accepted */
    int peer;     /* plain, blocking */
};

/* Runs fn as the root task; it must return 0. */
#define RUN(fn, ...)                                                                               \
    do {                                                                                           \
        uring_or_skip();                                                                           \
        CHECK_EQ(reeve_run(fn, NULL, __VA_ARGS__), 0);                                             \
    } while (0)

/* For a test that calls functions of the library's inside: it does so without the marks of the
 * public calls, so nobody may stand in for its worker meanwhile (sched/loan.h). */
#define NO_RESCUE .rescue_signal = -1

/* In turns on one worker and on two. */
#define RUN_BOTH(fn)                                                                               \
    do {                                                                                           \
        RUN(fn, .workers = 1);                                                                     \
        RUN(fn, .workers = 2);                                                                     \
    } while (0)

static inline struct rv_io_worker *my_io(void)
{
    return rv_io_of(rv_worker_self());
}

/* One counter of the calling task's runtime, over all workers. */
#define COUNTER(field) counter_sum(offsetof(struct rv_io_counters, field))
static inline uint64_t counter_sum(size_t offset)
{
    struct rv_io *io = my_io()->io;
    uint64_t sum = 0;
    for (uint32_t i = 0; i < io->sched->nworkers; i++)
        sum += rv_load_relaxed((RV_ATOMIC(uint64_t) *)((char *)&io->workers[i].n + offset));
    return sum;
}

static inline struct sockaddr_in address_of(int listener)
{
    struct sockaddr_in in;
    socklen_t len = sizeof in;
    CHECK_EQ(getsockname(listener, (struct sockaddr *)&in, &len), 0);
    return in;
}

/* A plain socket, connected to the listener. */
static inline int peer_connect(int listener)
{
    struct sockaddr_in in = address_of(listener);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    CHECK_GE(fd, 0);
    CHECK_EQ(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one), 0);
    CHECK_EQ(connect(fd, (struct sockaddr *)&in, sizeof in), 0);
    return fd;
}

static inline struct pair pair_make(void)
{
    struct pair p;
    p.listener = (int)CHECK_OK(reeve_listen("127.0.0.1:0", 0));
    p.peer = peer_connect(p.listener);
    p.fd = (int)CHECK_OK(reeve_accept(p.listener, LONG));
    return p;
}

static inline void pair_close(struct pair *p)
{
    if (p->fd >= 0)
        CHECK_EQ(reeve_close(p->fd), 0);
    if (p->peer >= 0)
        close(p->peer);
    CHECK_EQ(reeve_close(p->listener), 0);
}

static inline void peer_send(int fd, const void *data, size_t len)
{
    CHECK_EQ(send(fd, data, len, MSG_NOSIGNAL), (ssize_t)len);
}

/* How many bytes have come in at a TCP socket, read or not: tcpi_bytes_received, which the struct
 * of older libcs ends before. */
static inline uint64_t bytes_come(int fd)
{
    uint64_t info[17];
    socklen_t len = sizeof info;
    CHECK_EQ(getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &len), 0);
    CHECK_EQ(len, sizeof info);
    return info[16];
}

/* Sends, and returns when all of it has come in. What was sent before has. */
static inline void pair_send(const struct pair *p, const void *data, size_t len)
{
    uint64_t before = bytes_come(p->fd);
    peer_send(p->peer, data, len);
    while (bytes_come(p->fd) < before + len)
        sched_yield();
}

/* The next close sends a reset instead of an end. */
static inline void peer_reset(int fd)
{
    struct linger now = { .l_onoff = 1 };
    CHECK_EQ(setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now), 0);
    CHECK_EQ(close(fd), 0);
}

/* Reads exactly len bytes by reeve_read, in whatever pieces they come. */
static inline void read_exactly(int fd, void *buf, size_t len)
{
    for (size_t at = 0; at < len;) {
        ssize_t n = reeve_read(fd, (char *)buf + at, len - at, LONG);
        CHECK_GT(n, 0);
        at += (size_t)n;
    }
}

/* Byte i of a stream that no shift of itself matches. */
static inline unsigned char pattern(uint64_t i)
{
    i ^= i >> 7;
    i *= UINT64_C(0x9e3779b97f4a7c15);
    return (unsigned char)(i >> 40);
}

static inline void fill_pattern(unsigned char *buf, size_t len, uint64_t at)
{
    for (size_t i = 0; i < len; i++)
        buf[i] = pattern(at + i);
}

static inline void check_pattern(const unsigned char *buf, size_t len, uint64_t at)
{
    for (size_t i = 0; i < len; i++)
        if (buf[i] != pattern(at + i))
            check_failed(__FILE__, __LINE__, "byte %llu of the stream is wrong",
                         (unsigned long long)(at + i));
}

/* Lets others run until a task waits for data from fd, for its turn to write to it, or for an op.
 * */
enum waiting { A_READER, A_TURN, AN_OP };
static inline void await_waiter(int fd, enum waiting what)
{
    struct rv_fd *f = rv_fd_slot(fd);
    for (;;) {
        uint64_t word = rv_fd_lock(f);
        bool there = what == A_READER ? f->reader != NULL
                     : what == A_TURN ? f->turns != NULL
                                      : f->ops != NULL || f->sending != NULL;
        rv_fd_unlock(f, word);
        if (there)
            return;
        CHECK_EQ(reeve_sleep(0), 0);
    }
}

/* Lets others run until a task has begun and waits, or is over. For a task that waits nowhere but
 * where it is to be found. */
static inline void await_asleep(const reeve_task *handle)
{
    struct rv_task *t = rv_task_of(my_io()->io->sched, handle, "await_asleep");
    while ((rv_load_acquire(&t->ww) & 3) != RV_WW_PARKED &&
           !(rv_load_acquire(&t->st) & RV_ST_DONE))
        CHECK_EQ(reeve_sleep(0), 0);
}

/* Whether the number is open, in the eyes of the kernel. */
static inline bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

/* Lets completions come in until the number is free. */
static inline void await_closed(int fd)
{
    while (is_open(fd))
        reeve_sleep(0);
}

/* Waits for a thread as a task. To stand still in pthread_join would keep the worker out of its
 * ring: of a request that a thread of the kernel's has made the last reference to the file may be
 * given back at the next entry only, long after its completion, and so the reader of a pipe that
 * was closed meanwhile would not see its end. */
static inline void join_thread(pthread_t thread)
{
    int r;
    while ((r = pthread_tryjoin_np(thread, NULL)) == EBUSY)
        CHECK_OK(reeve_sleep(reeve_in(REEVE_MS / 10)));
    CHECK_EQ(r, 0);
}

#endif
