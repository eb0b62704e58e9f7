/* SPDX-License-Identifier: MIT */
/*
 * server.h -- what the tests of the runtime share: a server to start and to stop, plain sockets
 * that talk to it, and a census of what the process holds.
 *
 * The server is a task of a runtime with threads of its own, so a test is the program around it: it
 * connects with system calls, looks at the counters, and waits for events on semaphores.
 */
#ifndef TESTS_RUNTIME_SERVER_H
#define TESTS_RUNTIME_SERVER_H

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <reeve/reeve.h>
#include <semaphore.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>

#include "mem/rv_atomic.h"
#include "tests/check.h"
#include "tests/io/uring.h"

#if defined(__SANITIZE_THREAD__)
enum { SLOWER = 8 };
#elif defined(__SANITIZE_ADDRESS__)
enum { SLOWER = 2 };
#else
enum { SLOWER = 1 };
#endif


/* A number of repetitions, fewer where a sanitizer makes each one slow. */
static inline unsigned times(unsigned n)
{
    return n / SLOWER ? n / SLOWER : 1;
}

static inline void pause_ms(long ms)
{
    nanosleep(&(struct timespec){ ms / 1000, ms % 1000 * 1000000 }, NULL);
}

/* Looks again and again until cond holds; the test's time limit is the limit. */
#define AWAIT(cond)                                                                                \
    while (!(cond))                                                                                \
    pause_ms(1)

static inline void await_sem(sem_t *sem)
{
    while (sem_wait(sem) < 0)
        CHECK_EQ(errno, EINTR);
}

static inline struct reeve_stats stats_of(reeve *rt)
{
    struct reeve_stats st;
    reeve_stats(rt, &st);
    return st;
}

/* ---- what the process holds ------------------------------------------------------------------ */

struct census {
    unsigned fds, threads, rings; /* rings: mappings of io_urings */
    unsigned maps;
    uint64_t mapped_kib;
};

static inline unsigned count_entries(const char *folder)
{
    DIR *dir = opendir(folder);
    CHECK(dir);
    unsigned n = 0;
    struct dirent *entry;
    while ((entry = readdir(dir)) != NULL)
        n += entry->d_name[0] != '.';
    closedir(dir);
    return n;
}

static inline struct census census_take(void)
{
    struct census c = { .fds = count_entries("/proc/self/fd"),
                        .threads = count_entries("/proc/self/task") };
    FILE *maps = fopen("/proc/self/maps", "re");
    CHECK(maps);
    char line[4096];
    while (fgets(line, sizeof line, maps)) {
        unsigned long from, to;
        CHECK_EQ(sscanf(line, "%lx-%lx", &from, &to), 2);
        c.maps++;
        c.mapped_kib += (to - from) / 1024;
        c.rings += strstr(line, "io_uring") != NULL;
    }
    fclose(maps);
    return c;
}

/* All that is counted exactly is as it was. A thread that was joined may be listed a little longer,
 * so that is waited for; and there may have been such a one before, too. */
static inline void census_compare(const struct census *was)
{
    struct census is = census_take();
    while (is.threads > was->threads) {
        pause_ms(1);
        is = census_take();
    }
    CHECK_EQ(is.fds, was->fds);
    CHECK_EQ(is.rings, was->rings);
}

/* ---- plain peers ----------------------------------------------------------------------------- */

static inline int peer_socket(void)
{
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_OK(fd);
    CHECK_EQ(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one), 0);
    return fd;
}

/* 0 or -errno. */
static inline int peer_try(int fd, int port)
{
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_port = htons((uint16_t)port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    return connect(fd, (struct sockaddr *)&to, sizeof to) < 0 ? -errno : 0;
}

static inline int peer_connect(int port)
{
    int fd = peer_socket();
    CHECK_OK(peer_try(fd, port));
    return fd;
}

static inline void peer_send(int fd, const void *data, size_t len)
{
    for (size_t at = 0; at < len;) {
        ssize_t n = send(fd, (const char *)data + at, len - at, MSG_NOSIGNAL);
        CHECK_GT(n, 0);
        at += (size_t)n;
    }
}

static inline void peer_receive(int fd, void *data, size_t len)
{
    for (size_t at = 0; at < len;) {
        ssize_t n = recv(fd, (char *)data + at, len - at, 0);
        CHECK_GT(n, 0);
        at += (size_t)n;
    }
}

/* One round: what is sent comes back. */
static inline void peer_echo(int fd, const void *data, size_t len)
{
    static _Thread_local char back[4096];
    CHECK_LE(len, sizeof back);
    peer_send(fd, data, len);
    peer_receive(fd, back, len);
    CHECK_MEM_EQ(back, data, len);
}

/* The server closes; nothing comes before that. */
static inline void peer_end(int fd)
{
    char byte;
    CHECK_EQ(recv(fd, &byte, 1, 0), 0);
    close(fd);
}

/* The close sends a reset instead of an end. */
static inline void peer_reset(int fd)
{
    struct linger now = { .l_onoff = 1 };
    CHECK_EQ(setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now), 0);
    close(fd);
}

/* The listener is gone. The server does not notice who looks: nothing connects. */
static inline void await_closed_door(int port)
{
    struct sockaddr_in at = { .sin_family = AF_INET,
                              .sin_port = htons((uint16_t)port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    for (;;) {
        int one = 1, fd = peer_socket();
        CHECK_EQ(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one), 0);
        int r = bind(fd, (struct sockaddr *)&at, sizeof at) < 0 ? -errno : 0;
        close(fd);
        if (r == 0)
            return;
        CHECK_EQ(r, -EADDRINUSE);
        pause_ms(1);
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

/* ---- a server -------------------------------------------------------------------------------- */

struct server {
    struct reeve_serve how; /* addr: "127.0.0.1:0" if not given; ctx is this record */
    int64_t lasts_ns;       /* its deadline; 0: none */
    reeve *rt;
    int stop_fd, go_fd; /* eventfds: one ends the server, the other lets handlers go on */
    int port, result;
    sem_t listening, ended, event;    /* the last is the test's own */
    RV_ATOMIC(int) live, most, total; /* handlers, for those that count themselves */
};

static inline void server_listening(int fd, void *ctx)
{
    struct server *sv = ctx;
    struct sockaddr_in in;
    socklen_t len = sizeof in;
    CHECK_EQ(getsockname(fd, (struct sockaddr *)&in, &len), 0);
    sv->port = ntohs(in.sin_port);
    sem_post(&sv->listening);
}

static inline void signal_fd(int fd, uint64_t n)
{
    CHECK_EQ(write(fd, &n, sizeof n), (ssize_t)sizeof n);
}

/* In a task: waits for the n-th part of what signal_fd() put there (the eventfds count down). */
static inline int await_fd(int fd)
{
    uint64_t one;
    ssize_t n = reeve_read(fd, &one, sizeof one, 0);
    return n < 0 ? (int)n : 0;
}

static inline int server_serve(void *arg)
{
    struct server *sv = arg;
    sv->result = reeve_serve_with(&sv->how, sv->lasts_ns ? reeve_in(sv->lasts_ns) : 0);
    signal_fd(sv->stop_fd, 1);
    sem_post(&sv->ended);
    return 0;
}

static inline int server_main(void *arg)
{
    reeve_task *serving;
    CHECK_OK(reeve_spawn(&serving, server_serve, arg));
    await_fd(((struct server *)arg)->stop_fd);
    reeve_cancel(serving);
    return 0;
}

/* Fills in the record and starts the server; it does not listen yet when this returns. */
static inline void server_post(struct server *sv, reeve *rt)
{
    sv->rt = rt;
    sv->how.ctx = sv;
    if (!sv->how.listening)
        sv->how.listening = server_listening;
    if (!sv->how.addr)
        sv->how.addr = "127.0.0.1:0";
    sv->stop_fd = (int)CHECK_OK(eventfd(0, EFD_CLOEXEC));
    sv->go_fd = (int)CHECK_OK(eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE));
    sem_init(&sv->listening, 0, 0);
    sem_init(&sv->ended, 0, 0);
    sem_init(&sv->event, 0, 0);
    CHECK_OK(reeve_post(rt, &(struct reeve_spawn){ .fn = server_main, .arg = sv }));
}

/* A runtime with this server in it, which listens when this returns. */
static inline void server_start(struct server *sv, unsigned workers)
{
    reeve *rt;
    uring_or_skip();
    CHECK_OK(reeve_create(&rt, &(struct reeve_opts){ .workers = workers }));
    server_post(sv, rt);
    await_sem(&sv->listening);
}

static inline void server_cancel(struct server *sv)
{
    signal_fd(sv->stop_fd, 1);
}

/* What it returned, once it has. */
static inline int server_wait(struct server *sv)
{
    await_sem(&sv->ended);
    return sv->result;
}

static inline int server_stop(struct server *sv)
{
    server_cancel(sv);
    return server_wait(sv);
}

/* The server has ended. */
static inline void server_free(struct server *sv)
{
    close(sv->stop_fd);
    close(sv->go_fd);
    sem_destroy(&sv->listening);
    sem_destroy(&sv->ended);
    sem_destroy(&sv->event);
}

/* It has ended: takes down everything, which must end by itself. */
static inline void server_end(struct server *sv)
{
    CHECK_EQ(reeve_shutdown(sv->rt, 0), 0);
    reeve_destroy(sv->rt);
    server_free(sv);
}

/* ---- handlers -------------------------------------------------------------------------------- */

static inline void handler_enters(struct server *sv)
{
    int live = rv_add_acq_rel(&sv->live, 1) + 1, most = rv_load_relaxed(&sv->most);
    while (most < live && !rv_cas(&sv->most, &most, live))
        ;
    rv_add_acq_rel(&sv->total, 1);
}

static inline void handler_leaves(struct server *sv)
{
    rv_sub_acq_rel(&sv->live, 1);
}

/* Echoes until the end; what ended it. */
static inline int echo_until_end(int fd)
{
    struct reeve_buf *buf;
    ssize_t n;
    while ((n = reeve_buf_recv(fd, &buf, 0)) > 0)
        if ((n = reeve_buf_send(fd, buf, LONG)) < 0)
            break;
    return (int)n;
}

static inline int echo(int fd, void *ctx)
{
    struct server *sv = ctx;
    handler_enters(sv);
    int r = echo_until_end(fd);
    handler_leaves(sv);
    return r;
}

#endif
