/* SPDX-License-Identifier: MIT */
/*
 * traps_test.c -- what io_uring does that its users have stumbled over, where no other test of this
 * folder is named after it.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <errno.h>
#include <reeve/serve.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

#include "tests/io/pair.h"


/* ---- an overflow of the completion queue ends multishots ------------------------------------- */

enum { FLOOD = 5000 /* more than a completion queue holds */, OLD = 16, FRESH = 8, TEXT = 3000 };

static int count_down(void *arg)
{
    uint64_t value;
    CHECK_EQ(reeve_read(*(int *)arg, &value, sizeof value, 0), 8);
    return 0;
}

static int echo(int fd, void *ctx)
{
    (void)ctx;
    struct reeve_buf *b;
    ssize_t n;
    while ((n = reeve_buf_recv(fd, &b, 0)) > 0)
        if ((n = reeve_buf_send(fd, b, 0)) < 0)
            break;
    return (int)n;
}

static void listening(int fd, void *ctx)
{
    *(int *)ctx = fd;
}

static int serve(void *arg)
{
    return reeve_serve_with(&(struct reeve_serve){ .addr = "127.0.0.1:0", .handler = echo,
                                                   .listening = listening, .ctx = arg }, 0);
}

/* The answers to what all have sent so far, byte by byte. */
static void hear_all(const int *fd, int n, uint64_t at)
{
    unsigned char back[TEXT];
    for (int i = 0; i < n; i++) {
        for (size_t got = 0; got < TEXT;) {
            ssize_t len = recv(fd[i], back + got, TEXT - got, MSG_DONTWAIT);
            CHECK(len > 0 || (len < 0 && errno == EAGAIN));
            got += len > 0 ? (size_t)len : 0;
            CHECK_EQ(reeve_sleep(0), 0);
        }
        check_pattern(back, TEXT, at);
    }
}

static void say_all(const int *fd, int n, uint64_t at)
{
    unsigned char text[TEXT];
    fill_pattern(text, TEXT, at);
    for (int i = 0; i < n; i++)
        peer_send(fd[i], text, TEXT);
}

/* Without a task switch: all of it completes before anything is reaped. */
static void flood(int *fds, int *client, int listener)
{
    const uint64_t one = 1;
    for (int i = 0; i < FLOOD; i++)
        CHECK_EQ(write(fds[i], &one, sizeof one), 8);
    say_all(client, OLD, 1);
    for (int i = OLD; i < OLD + FRESH; i++)
        client[i] = peer_connect(listener);
    say_all(client + OLD, FRESH, 1);
}

static int overflows(void *arg)
{
    (void)arg;
    static int fds[FLOOD];
    int client[OLD + FRESH], listener = -1;
    struct reeve_group g = { 0 };
    reeve_task *server;
    CHECK_EQ(reeve_spawn(&server, serve, &listener), 0);
    while (listener < 0)
        CHECK_EQ(reeve_sleep(0), 0);
    for (int i = 0; i < OLD; i++)
        client[i] = peer_connect(listener);
    say_all(client, OLD, 0);
    hear_all(client, OLD, 0);
    uint64_t sqes = COUNTER(sqes);
    for (int i = 0; i < FLOOD; i++) {
        fds[i] = (int)CHECK_OK(eventfd(0, EFD_CLOEXEC));
        CHECK_EQ(reeve_spawn(NULL, count_down, &fds[i], .group = &g), 0);
    }
    while (COUNTER(sqes) - sqes < FLOOD)
        CHECK_EQ(reeve_sleep(0), 0);
    uint64_t arms = COUNTER(arms);
    flood(fds, client, listener);
    CHECK_EQ(reeve_group_wait(&g, 0), 0);
    hear_all(client, OLD + FRESH, 1);
    CHECK_GE(COUNTER(overflows), 1);
    CHECK_GE(COUNTER(arms), arms + FRESH);
    int late = peer_connect(listener); /* who accepts goes on, too */
    say_all(&late, 1, 2);
    say_all(client, OLD + FRESH, 2);
    hear_all(client, OLD + FRESH, 2);
    hear_all(&late, 1, 2);
    close(late);
    for (int i = 0; i < OLD + FRESH; i++)
        close(client[i]);
    for (int i = 0; i < FLOOD; i++)
        close(fds[i]);
    reeve_cancel(server);
    CHECK_EQ(reeve_join(server, NULL, LONG), 0);
    return 0;
}

TEST(multishots_that_an_overflow_has_ended_are_made_again_and_lose_nothing)
{
    struct rlimit lim;
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &lim), 0);
    lim.rlim_cur = lim.rlim_max;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &lim), 0);
    if (lim.rlim_max < FLOOD + 200)
        SKIP("too few descriptors are allowed here");
    /* A ring whose completions come by themselves: a deferred one makes no more than it has room
     * for. */
    setenv("REEVE_CAPS_OFF", "defer_taskrun,coop_taskrun,taskrun_flag", 1);
    RUN(overflows, .workers = 1);
}

/* ---- descriptors are looked up when a request is issued, not when it is queued --------------- */

/* A request is queued, and in the same pass its number gets another socket: the data of that one is
 * not taken. */
static int read_one(void *arg)
{
    char c;
    ssize_t n = reeve_read(*(int *)arg, &c, 1, LONG);
    return n == 1 ? c : (int)n;
}

static int queued_then_reused(void *arg)
{
    (void)arg;
    for (int round = 0; round < 200; round++) {
        int old[2], fresh[2], result = 0;
        reeve_task *t;
        CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, old), 0);
        int number = old[0];
        bool begun = round % 2;
        CHECK_EQ(reeve_spawn(&t, read_one, &number), 0);
        if (begun)
            await_waiter(number, AN_OP);
        CHECK_EQ(reeve_close(number), 0);
        CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fresh), 0);
        peer_send(fresh[1], "f", 1);
        peer_send(fresh[0], "f", 1);
        CHECK_EQ(reeve_join(t, &result, LONG), 0);
        /* Who comes after the close reads from whatever has the number then. */
        bool other = fresh[0] == number || fresh[1] == number;
        CHECK(result == -ECANCELED || (!begun && (result == -EBADF || (other && result == 'f'))));
        close(fresh[0]);
        close(fresh[1]);
        close(old[1]);
    }
    return 0;
}

TEST(a_request_never_takes_the_data_of_the_next_owner_of_its_number)
{
    RUN(queued_then_reused, .workers = 1);
    RUN(queued_then_reused, .workers = 2);
}
