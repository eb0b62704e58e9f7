/* SPDX-License-Identifier: MIT */
/*
 * bench_proc.c -- what programs cost: starting one and waiting for it, many at a time, a chain.
 *
 *     bench_proc [--json] [--quick] [--case NAME]...
 *
 * The peer of a start is the least that a process can do: vfork, execve, waitpid in a loop. It
 * hands down every descriptor that is not close-on-exec, its signals and its group, and holds its
 * thread while it waits; ours does none of that. The peer of a chain is the shell's pipeline. Sides
 * take turns in processes of their own.
 *
 *     case                one operation
 *     start_wait          /bin/true, started and waited for; one CPU: time, and CPU time of both
 *     start_wait_fds      the same, with 10,000 descriptors open in the process that starts it
 *     start_wait_1..1000  so many at once, per program; all CPUs
 *     chain_3             1 GiB (--quick: 128 MiB) through head | cat | cat; all CPUs
 *     feed_collect        64 MiB fed to cat and collected from it, per MiB; all CPUs; no peer
 */
#include "tests/bench/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <reeve/proc.h>
#include <reeve/reeve.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROUNDS = 15, QUICK_ROUNDS = 5, IN_TURN = 100, MANY_FDS = 10000, FEED_MIB = 64 };

static char *const true_argv[] = { "/bin/true", NULL };

static void must(int r)
{
    if (r < 0) {
        fprintf(stderr, "bench_proc: %s\n", strerror(-r));
        _exit(1);
    }
}

static void must_sys(long r)
{
    must(r < 0 ? -errno : 0);
}

/* What else runs here would be measured too: both sides go before it, if they may. */
static void raise_priority(void)
{
    enum { RAISED_NICE = -10 };
    setpriority(PRIO_PROCESS, 0, RAISED_NICE);
}

static bool count_cpu;

/* The time: by the clock, or of the CPU, this process's and that of the programs it waited for. */
static int64_t ticks(void)
{
    struct rusage ru[2];
    int64_t us = 0;
    if (!count_cpu)
        return bench_now();
    must_sys(getrusage(RUSAGE_SELF, &ru[0]));
    must_sys(getrusage(RUSAGE_CHILDREN, &ru[1]));
    for (int i = 0; i < 2; i++)
        us += (int64_t)(ru[i].ru_utime.tv_sec + ru[i].ru_stime.tv_sec) * 1000000 +
              ru[i].ru_utime.tv_usec + ru[i].ru_stime.tv_usec;
    return us * 1000;
}

/* ---- the peer -------------------------------------------------------------------------------- */

static pid_t raw_start(char *const *argv)
{
    pid_t pid = vfork();
    if (pid == 0) {
        execve(argv[0], argv, environ);
        _exit(127);
    }
    must_sys(pid);
    return pid;
}

static void raw_wait(pid_t pid)
{
    int status;
    must_sys(waitpid(pid, &status, 0));
    must(status == 0 ? 0 : -EIO);
}

static double raw_in_turn(void *ctx)
{
    (void)ctx;
    raise_priority();
    int64_t t0 = ticks();
    for (int i = 0; i < IN_TURN; i++)
        raw_wait(raw_start(true_argv));
    return (double)(ticks() - t0) / IN_TURN;
}

static double raw_at_once(void *ctx)
{
    long n = *(long *)ctx, total = 0;
    raise_priority();
    int64_t t0 = ticks();
    for (; total < IN_TURN || total < n; total += n) {
        pid_t pid[1024];
        for (long i = 0; i < n; i++)
            pid[i] = raw_start(true_argv);
        for (long i = 0; i < n; i++)
            raw_wait(pid[i]);
    }
    return (double)(ticks() - t0) / (double)total;
}

/* ---- ours ------------------------------------------------------------------------------------ */

struct call {
    void (*run)(long n);
    long n;
    double ns;
};

static int timed(void *arg)
{
    struct call *c = arg;
    int64_t t0 = ticks();
    c->run(c->n);
    c->ns = (double)(ticks() - t0);
    return 0;
}

/* In a runtime that lives as long as this process, so that only its first use is cold. */
static double measure(void (*run)(long n), long n, unsigned workers)
{
    static reeve *rt;
    struct call c = { run, n, 0 };
    raise_priority();
    if (!rt)
        must(reeve_create(&rt, &(struct reeve_opts){ .workers = workers }));
    must(reeve_call(rt, timed, &c, 0));
    return c.ns;
}

static int start_and_wait(void *arg)
{
    (void)arg;
    reeve_proc *p;
    struct reeve_ended ended;
    must(reeve_proc_start(&p, &(struct reeve_exec){ .argv = true_argv }, 0));
    must(reeve_proc_wait(p, &ended, 0));
    must(ended.status == 0 ? 0 : -EIO);
    return 0;
}

static void in_turn(long n)
{
    for (long i = 0; i < n; i++)
        start_and_wait(NULL);
}

static double reeve_in_turn(void *ctx)
{
    (void)ctx;
    return measure(in_turn, IN_TURN, 1) / IN_TURN;
}

static void at_once(long n)
{
    for (long total = 0; total < IN_TURN || total < n; total += n) {
        reeve_group g = { 0 };
        for (long i = 0; i < n; i++)
            must(reeve_go(start_and_wait, NULL, .group = &g));
        must(reeve_group_wait(&g, 0));
    }
}

static double reeve_at_once(void *ctx)
{
    long n = *(long *)ctx, total = (IN_TURN + n - 1) / n * n;
    return measure(at_once, n, 1) / (double)total;
}

/* ---- starting -------------------------------------------------------------------------------- */

/* Both sides in turns, each round in processes of their own, whose first time does not count. */
static void compare(struct bench *b, const char *name, const char *metric, double (*ours)(void *),
                    double (*theirs)(void *), void *ctx, int cpu)
{
    struct bench_samples a = { .n = 0 }, z = { .n = 0 };
    int rounds = b->quick ? QUICK_ROUNDS : ROUNDS;
    for (int i = 0; i < rounds && (i == 0 || bench_time_left(b)); i++)
        if (bench_ns_alone(&a, NULL, ours, ctx, 1, cpu) < 0 ||
            bench_ns_alone(&z, NULL, theirs, ctx, 1, cpu) < 0) {
            bench_fail(b, name, "the process that measured it did not end well");
            return;
        }
    bench_emit(b, name, metric, &a, "raw_vfork", &z);
}

static void start_wait(struct bench *b, const struct bench_case *c)
{
    compare(b, c->name, "ns_per_op", reeve_in_turn, raw_in_turn, NULL, b->cpu_server);
    count_cpu = true;
    compare(b, c->name, "cpu_ns_per_req", reeve_in_turn, raw_in_turn, NULL, b->cpu_server);
    count_cpu = false;
}

static void start_wait_fds(struct bench *b, const struct bench_case *c)
{
    struct rlimit lim;
    must_sys(getrlimit(RLIMIT_NOFILE, &lim));
    rlim_t was = lim.rlim_cur;
    lim.rlim_cur = lim.rlim_max;
    if (lim.rlim_max < MANY_FDS + 1000 || setrlimit(RLIMIT_NOFILE, &lim) < 0) {
        bench_skip(c->name, "a process may open only %llu files here",
                   (unsigned long long)lim.rlim_max);
        return;
    }
    int first = open("/dev/null", O_RDONLY | O_CLOEXEC), last = first;
    must_sys(first);
    while (last < MANY_FDS)
        must_sys(last = fcntl(first, F_DUPFD_CLOEXEC, last + 1));
    compare(b, c->name, "ns_per_op", reeve_in_turn, raw_in_turn, NULL, b->cpu_server);
    for (; last >= first; last--)
        close(last);
    lim.rlim_cur = was;
    must_sys(setrlimit(RLIMIT_NOFILE, &lim));
}

static void start_wait_many(struct bench *b, const struct bench_case *c)
{
    long n = c->arg;
    compare(b, c->name, "ns_per_op", reeve_at_once, raw_at_once, &n, -1);
}

/* ---- chains ---------------------------------------------------------------------------------- */

static char bytes_text[32];

static void chain_once(long n)
{
    (void)n;
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    must_sys(null);
    char *const head[] = { "head", "-c", bytes_text, "/dev/zero", NULL };
    char *const cat[] = { "cat", NULL };
    struct reeve_exec chain[] = { { .argv = head },
                                  { .argv = cat },
                                  { .argv = cat, .fds = (int[]){ -1, null }, .fds_n = 2 } };
    struct reeve_io io = { .grace_ns = 0 };
    must(reeve_proc_chain(chain, 3, &io, 0));
    must(io.status == 0 ? 0 : -EIO);
    close(null);
}

static double reeve_chain(void *ctx)
{
    (void)ctx;
    return measure(chain_once, 1, 1);
}

static double shell_chain(void *ctx)
{
    (void)ctx;
    char line[128];
    snprintf(line, sizeof line, "head -c %s /dev/zero | cat | cat >/dev/null", bytes_text);
    char *const argv[] = { "/bin/sh", "-c", line, NULL };
    raise_priority();
    int64_t t0 = ticks();
    raw_wait(raw_start(argv));
    return (double)(ticks() - t0);
}

static void chain_3(struct bench *b, const struct bench_case *c)
{
    struct bench_samples a = { .n = 0 }, z = { .n = 0 }, mb = { .n = 0 }, shell_mb = { .n = 0 };
    double mib = b->quick ? 128 : 1024;
    int rounds = b->quick ? QUICK_ROUNDS : ROUNDS;
    snprintf(bytes_text, sizeof bytes_text, "%.0f", mib * 1048576);
    for (int i = 0; i < rounds && (i == 0 || bench_time_left(b)); i++)
        if (bench_ns_alone(&a, NULL, reeve_chain, NULL, 1, -1) < 0 ||
            bench_ns_alone(&z, NULL, shell_chain, NULL, 1, -1) < 0) {
            bench_fail(b, c->name, "the process that measured it did not end well");
            return;
        }
    for (int i = 0; i < a.n && i < z.n; i++) {
        bench_add(&mb, mib * 1048.576 / (a.v[i] / 1e6));
        bench_add(&shell_mb, mib * 1048.576 / (z.v[i] / 1e6));
    }
    bench_emit(b, c->name, "ns_per_op", &a, "shell", &z);
    bench_emit(b, c->name, "mb_per_s", &mb, "shell", &shell_mb);
}

static void feed_once(long n)
{
    static unsigned char *data;
    size_t len = (size_t)n << 20;
    if (!data) {
        data = malloc(2 * len);
        must(data ? 0 : -ENOMEM);
        memset(data, 1, 2 * len);
    }
    char *const cat[] = { "cat", NULL };
    struct reeve_io io = { .in = { data, len }, .out = data + len, .out_max = len };
    must(reeve_proc_run(&(struct reeve_exec){ .argv = cat }, &io, 0));
    must(io.out_len == len ? 0 : -EIO);
}

static double feed_collect(void *ctx)
{
    (void)ctx;
    return measure(feed_once, FEED_MIB, 1) / FEED_MIB;
}

static const struct bench_case cases[] = {
    { .name = "start_wait", .run = start_wait },
    { .name = "start_wait_fds", .run = start_wait_fds },
    { .name = "start_wait_1", .run = start_wait_many, .arg = 1 },
    { .name = "start_wait_10", .run = start_wait_many, .arg = 10 },
    { .name = "start_wait_100", .run = start_wait_many, .arg = 100 },
    { .name = "start_wait_1000", .run = start_wait_many, .arg = 1000 },
    { .name = "chain_3", .run = chain_3 },
    { .name = "feed_collect", .once = feed_collect, .wide = true },
};

int main(int argc, char **argv)
{
    return bench_main(&(struct bench_program){ .name = "proc",
                                               .cases = cases,
                                               .cases_n = sizeof cases / sizeof *cases },
                      argc, argv);
}
