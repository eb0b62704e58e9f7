/* SPDX-License-Identifier: MIT */
/*
 * preset_reeve.c -- an echo server that leaves everything to a preset.
 *
 *     preset_reeve HOST:PORT [--preset balanced|throughput|latency] [--chores N]
 *
 * Chores are tasks beside the connections that always have work: 5 us of it, then a yield.
 * Its workers are those that the preset makes of the CPUs it may run on; --workers and --cpu, which
 * all servers here take, change nothing. SIGTERM or SIGINT: it drains and ends with status 0.
 */
#include <reeve/reeve.h>

#include "raw.h"

static int echo(int fd, void *ctx)
{
    (void)ctx;
    struct reeve_buf *buf;
    ssize_t n;
    while ((n = reeve_buf_recv(fd, &buf, 0)) > 0)
        if ((n = reeve_buf_send(fd, buf, reeve_in(10 * REEVE_SEC))) < 0)
            break;
    return (int)n;
}

static void listening(int fd, void *ctx)
{
    (void)ctx;
    raw_announce(fd);
}

/* Waits for a signal, and then for no more connections. */
static int watch(void *signals)
{
    struct signalfd_siginfo info;
    ssize_t n = reeve_read(*(int *)signals, &info, sizeof info, 0);
    return n < 0 ? (int)n : reeve_shutdown(reeve_self(), reeve_in(5 * REEVE_SEC));
}

/* Until it is cancelled. */
static int chore(void *arg)
{
    (void)arg;
    int r = 0;
    while (r == 0) {
        reeve_time end = reeve_in(5 * REEVE_US);
        while (reeve_now() < end)
            ;
        r = reeve_sleep(0);
    }
    return r == -ECANCELED ? 0 : r;
}

struct root {
    const char *addr;
    int signals, chores;
};

static int root(void *arg)
{
    struct root *r = arg;
    reeve_group chores = { 0 };
    struct reeve_serve how = { .addr = r->addr, .handler = echo, .listening = listening };
    int result = reeve_go(watch, &r->signals);
    for (int i = 0; i < r->chores && result >= 0; i++)
        result = reeve_go(chore, NULL, .group = &chores);
    if (result >= 0)
        result = reeve_serve_with(&how, 0);
    reeve_group_cancel(&chores);
    (void)reeve_group_wait(&chores, 0);
    return result;
}

/* Takes "NAME VALUE" out of the arguments: the value, or NULL. */
static const char *take(int *argc, char **argv, const char *name)
{
    for (int i = 1; i + 1 < *argc; i++) {
        if (strcmp(argv[i], name) != 0)
            continue;
        const char *value = argv[i + 1];
        memmove(&argv[i], &argv[i + 2], (size_t)(*argc - i - 1) * sizeof *argv);
        *argc -= 2;
        return value;
    }
    return NULL;
}

/* The preset that the arguments name. */
static int take_preset(int *argc, char **argv)
{
    static const char *const names[] = { [REEVE_BALANCED] = "balanced",
                                         [REEVE_THROUGHPUT] = "throughput",
                                         [REEVE_LATENCY] = "latency" };
    const char *name = take(argc, argv, "--preset");
    if (name == NULL)
        return REEVE_BALANCED;
    for (int p = 0; p < (int)(sizeof names / sizeof names[0]); p++)
        if (strcmp(name, names[p]) == 0)
            return p;
    raw_die("%s: there is no preset '%s'", argv[0], name);
}

int main(int argc, char **argv)
{
    int preset = take_preset(&argc, argv);
    const char *chores = take(&argc, argv, "--chores");
    struct raw_opts opts = raw_parse(argc, argv);
    struct root r = { opts.addr, raw_signals(), chores ? atoi(chores) : 0 };
    int result = reeve_run(root, &r, .preset = preset);
    if (result < 0)
        raw_die("%s: %s", argv[0], strerror(-result));
    return 0;
}
