/* SPDX-License-Identifier: MIT */
/*
 * preset_reeve.c -- an echo server that leaves everything to a preset.
 *
 *     preset_reeve HOST:PORT [--preset balanced|throughput|latency]
 *
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

struct root {
    const char *addr;
    int signals;
};

static int root(void *arg)
{
    struct root *r = arg;
    int result = reeve_go(watch, &r->signals);
    return result < 0 ? result
                      : reeve_serve_with(&(struct reeve_serve){ .addr = r->addr,
                                                                .handler = echo,
                                                                .listening = listening },
                                         0);
}

/* Takes "--preset NAME" out of the arguments. */
static int take_preset(int *argc, char **argv)
{
    static const char *const names[] = { [REEVE_BALANCED] = "balanced",
                                         [REEVE_THROUGHPUT] = "throughput",
                                         [REEVE_LATENCY] = "latency" };
    for (int i = 1; i + 1 < *argc; i++) {
        if (strcmp(argv[i], "--preset") != 0)
            continue;
        for (int p = 0; p < (int)(sizeof names / sizeof names[0]); p++)
            if (strcmp(argv[i + 1], names[p]) == 0) {
                memmove(&argv[i], &argv[i + 2], (size_t)(*argc - i - 1) * sizeof *argv);
                *argc -= 2;
                return p;
            }
        raw_die("%s: there is no preset '%s'", argv[0], argv[i + 1]);
    }
    return REEVE_BALANCED;
}

int main(int argc, char **argv)
{
    int preset = take_preset(&argc, argv);
    struct raw_opts opts = raw_parse(argc, argv);
    struct root r = { opts.addr, raw_signals() };
    int result = reeve_run(root, &r, .preset = preset);
    if (result < 0)
        raw_die("%s: %s", argv[0], strerror(-result));
    return 0;
}
