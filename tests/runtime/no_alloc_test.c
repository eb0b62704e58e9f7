/* SPDX-License-Identifier: MIT */
/*
 * no_alloc_test.c -- a server that is warm asks for no memory: neither of the library's allocator
 * and mappings, which count what they are asked for, nor of libc's malloc, which this file replaces
 * by one that counts.
 *
 * One worker, so that how much is under way at a time is up to the client: one thread with plain
 * sockets, which has as many requests and connections when it warms the server as later, or more.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <reeve/mem.h>

#include "mem/alloc.h"
#include "tests/runtime/server.h"

enum { CONNS = 8, REQUESTS = 10000, WARM = 1000, REQUEST_BYTES = 64 };

/* ---- who asks for memory --------------------------------------------------------------------- */

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && defined(__GLIBC__)
static RV_ATOMIC(uint64_t) mallocs;

extern void *__libc_malloc(size_t bytes);
extern void *__libc_calloc(size_t n, size_t bytes);
extern void *__libc_realloc(void *block, size_t bytes);
extern void *__libc_memalign(size_t align, size_t bytes);

void *malloc(size_t bytes)
{
    rv_add_relaxed(&mallocs, 1U);
    return __libc_malloc(bytes);
}

void *calloc(size_t n, size_t bytes)
{
    rv_add_relaxed(&mallocs, 1U);
    return __libc_calloc(n, bytes);
}

void *realloc(void *block, size_t bytes)
{
    rv_add_relaxed(&mallocs, 1U);
    return __libc_realloc(block, bytes);
}

void *aligned_alloc(size_t align, size_t bytes)
{
    rv_add_relaxed(&mallocs, 1U);
    return __libc_memalign(align, bytes);
}

int posix_memalign(void **ret_block, size_t align, size_t bytes)
{
    void *block = aligned_alloc(align, bytes);
    if (block != NULL)
        *ret_block = block;
    return block != NULL ? 0 : ENOMEM;
}

static uint64_t of_libc(void)
{
    return rv_load_relaxed(&mallocs);
}
#else
static uint64_t of_libc(void)
{
    return 0;   /* a sanitizer's own malloc stands there */
}
#endif

static uint64_t asked(void)
{
    return rv_alloc_requests() + of_libc();
}

TEST(every_way_to_ask_is_counted)
{
    uint64_t before = rv_alloc_requests(), libc = of_libc();
    void *volatile block = reeve_alloc(100);
    CHECK_GT(rv_alloc_requests(), before);  /* there was no pool of that size yet */
    before = rv_alloc_requests();
    reeve_free(block);
    block = reeve_alloc(100);
    CHECK_EQ(rv_alloc_requests(), before);
    reeve_free(block);
    struct reeve_memory memory;
    reeve_memory_stats(&memory);
    CHECK_EQ(memory.heap_requests, rv_alloc_requests());
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && defined(__GLIBC__)
    block = malloc(100);
    CHECK_EQ(of_libc(), libc + 1);
    free(block);
#endif
    (void)libc;
}

/* ---- the echo -------------------------------------------------------------------------------- */

/* So many requests over all connections, as many under way at a time as there are. */
static void ask(const int *fds, unsigned requests)
{
    unsigned char data[REQUEST_BYTES], back[REQUEST_BYTES];
    for (unsigned done = 0; done < requests; done += CONNS) {
        fill_pattern(data, sizeof data, done);
        for (int i = 0; i < CONNS; i++)
            peer_send(fds[i], data, sizeof data);
        for (int i = 0; i < CONNS; i++) {
            peer_receive(fds[i], back, sizeof back);
            CHECK_MEM_EQ(back, data, sizeof data);
        }
    }
}

TEST(ten_thousand_echoes_allocate_nothing)
{
    int fds[CONNS];
    struct server sv = { .how.handler = echo };
    server_start(&sv, 1);
    for (int i = 0; i < CONNS; i++)
        fds[i] = peer_connect(sv.port);
    ask(fds, WARM);
    uint64_t before = asked();
    ask(fds, REQUESTS);
    CHECK_EQ(asked() - before, 0);
    for (int i = 0; i < CONNS; i++)
        close(fds[i]);
    CHECK_EQ(server_stop(&sv), 0);
    server_end(&sv);
}

/* A connection for each request: accepting, a task and its stack, the end of both. */
static void ask_anew(int port, unsigned requests)
{
    unsigned char data[REQUEST_BYTES];
    for (unsigned i = 0; i < requests; i++) {
        fill_pattern(data, sizeof data, i);
        int fd = peer_connect(port);
        peer_echo(fd, data, sizeof data);
        CHECK_EQ(shutdown(fd, SHUT_WR), 0);
        peer_end(fd);
    }
}

TEST(a_thousand_connections_allocate_nothing)
{
    int fds[CONNS];
    struct server sv = { .how.handler = echo };
    server_start(&sv, 1);
    for (int i = 0; i < CONNS; i++)     /* more at a time than there ever are below */
        fds[i] = peer_connect(sv.port);
    ask(fds, WARM);
    for (int i = 0; i < CONNS; i++) {
        CHECK_EQ(shutdown(fds[i], SHUT_WR), 0);
        peer_end(fds[i]);
    }
    ask_anew(sv.port, WARM);
    uint64_t before = asked();
    ask_anew(sv.port, 1000);
    CHECK_EQ(asked() - before, 0);
    CHECK_EQ(server_stop(&sv), 0);
    server_end(&sv);
}

/* ---- inside one runtime ---------------------------------------------------------------------- */

struct ends {
    int fd[2];
    unsigned requests;
};

static int echo_here(void *arg)
{
    return echo_until_end(((struct ends *)arg)->fd[0]);
}

static int ask_here(void *arg)
{
    struct ends *e = arg;
    unsigned char data[REQUEST_BYTES], back[REQUEST_BYTES];
    for (unsigned i = 0; i < e->requests; i++) {
        fill_pattern(data, sizeof data, i);
        CHECK_EQ(reeve_write(e->fd[1], data, sizeof data, LONG), (ssize_t)sizeof data);
        CHECK_EQ(reeve_read(e->fd[1], back, sizeof back, LONG), (ssize_t)sizeof back);
        CHECK_MEM_EQ(back, data, sizeof data);
    }
    return 0;
}

static int play_pair(void *arg)
{
    struct ends e = { .requests = WARM };
    (void)arg;
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, e.fd), 0);
    reeve_task *server, *client;
    CHECK_OK(reeve_spawn(&server, echo_here, &e));
    for (int round = 0; round < 2; round++) {
        uint64_t before = asked();
        CHECK_OK(reeve_spawn(&client, ask_here, &e));
        CHECK_OK(reeve_join(client, NULL, 0));
        CHECK(round == 0 || asked() == before);
        e.requests = REQUESTS;
    }
    CHECK_OK(reeve_close(e.fd[1]));
    CHECK_OK(reeve_join(server, NULL, 0));
    return reeve_close(e.fd[0]);
}

TEST(both_ends_in_one_runtime_allocate_nothing)
{
    uring_or_skip();
    CHECK_EQ(reeve_run(play_pair, NULL, .workers = 1), 0);
}
