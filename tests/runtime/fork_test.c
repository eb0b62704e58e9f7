/* SPDX-License-Identifier: MIT */
/*
 * fork_test.c -- a process that forks while it runs a runtime: its child gets clear errors and may
 * begin anew, and the parent notices nothing.
 */
#define CHECK_MAIN
#include "tests/io/pair.h"

#include <reeve/sync.h>
#include <sys/wait.h>


static int nothing(void *arg)
{
    (void)arg;
    return 7;
}

/* What the child says by its exit status: 0, or which check failed. */
static int must(bool holds, int line)
{
    if (!holds)
        fprintf(stderr, "child: line %d\n", line);
    return holds;
}
#define MUST(holds)                                                                                \
    do {                                                                                           \
        if (!must(holds, __LINE__))                                                                \
            _exit(1);                                                                              \
    } while (0)

static int await_child(pid_t child)
{
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    return status;
}

/* A server of one connection that sends back what comes. */
struct host {
    struct pair p;
    atomic_int echoed;
};

static int echoes(void *arg)
{
    struct host *h = arg;
    char buf[64];
    ssize_t n;
    h->p = pair_make();
    atomic_store(&h->echoed, 1);
    while ((n = reeve_read(h->p.fd, buf, sizeof buf, 0)) > 0)
        CHECK_EQ(reeve_write(h->p.fd, buf, (size_t)n, 0), n);
    pair_close(&h->p);
    return (int)n;
}

static void ask(const struct host *h)
{
    char c = 0;
    CHECK_EQ(send(h->p.peer, "x", 1, MSG_NOSIGNAL), 1);
    CHECK_EQ(recv(h->p.peer, &c, 1, 0), 1);
    CHECK_EQ(c, 'x');
}

static int locks(void *arg)
{
    struct reeve_mutex *m = arg;
    int r = reeve_mutex_lock(m, 0);
    if (r == 0)
        reeve_mutex_unlock(m);
    return r;
}

static void child_of(reeve *rt, const struct host *h)
{
    struct reeve_mutex mutex = { 0 };
    alarm(CHECK_SECONDS);
    MUST(reeve_post(rt, &(struct reeve_spawn){ .fn = nothing }) == -ECHILD);
    MUST(reeve_call(rt, nothing, NULL, 0) == -ECHILD);
    MUST(reeve_shutdown(rt, 0) == -ECHILD);
    reeve_destroy(rt);
    MUST(reeve_self() == NULL);
    MUST(reeve_now() > 0);
    MUST(reeve_close(h->p.fd) == 0); /* its own copy */
    MUST(fcntl(h->p.fd, F_GETFD) < 0);
    MUST(reeve_run(nothing, NULL, .workers = 2) == 7);
    MUST(reeve_run(locks, &mutex, .workers = 1) == 0);
    _exit(0);
}

TEST(a_child_gets_clear_errors_and_begins_anew_and_the_parent_goes_on)
{
    struct host h = { 0 };
    reeve *rt;
    uring_or_skip();
#if defined(RV_TSAN)
    SKIP("ThreadSanitizer allows no threads in a child of fork");
#endif
    CHECK_EQ(reeve_create(&rt, &(struct reeve_opts){ .workers = 2 }), 0);
    CHECK_EQ(reeve_post(rt, &(struct reeve_spawn){ .fn = echoes, .arg = &h }), 0);
    while (!atomic_load(&h.echoed))
        sched_yield();
    for (int i = 0; i < 5; i++) {
        ask(&h);
        pid_t child = fork();
        CHECK_GE(child, 0);
        if (child == 0)
            child_of(rt, &h);
        ask(&h);
        CHECK_EQ(await_child(child), 0);
        ask(&h);
        CHECK_EQ(reeve_call(rt, nothing, NULL, LONG), 7);
    }
    CHECK_EQ(shutdown(h.p.peer, SHUT_WR), 0);
    CHECK_EQ(reeve_shutdown(rt, LONG), 0);
    reeve_destroy(rt);
}

static int forks_and(void *arg)
{
    bool returns = *(bool *)arg;
    fflush(NULL);
    pid_t child = fork();
    CHECK_GE(child, 0);
    if (child > 0) {
        int status = await_child(child);
        CHECK_EQ(reeve_sleep(reeve_in(REEVE_MS)), 0);
        return status;
    }
    alarm(CHECK_SECONDS);
    close(2); /* it will complain */
    if (returns)
        return 0;
    (void)reeve_sleep(0);
    _exit(0);
}

TEST(a_task_that_forked_ends_in_the_child_by_a_sentence_if_not_by_exit)
{
    uring_or_skip();
    for (int returns = 0; returns < 2; returns++) {
        bool how = returns;
        int status = reeve_run(forks_and, &how, .workers = 2);
        CHECK(WIFSIGNALED(status));
        CHECK_EQ(WTERMSIG(status), SIGABRT);
    }
}
