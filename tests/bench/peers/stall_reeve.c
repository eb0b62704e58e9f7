/* SPDX-License-Identifier: MIT */
/*
 * stall_reeve.c -- reeve's echo server with handlers that compute for a while: see stall.h.
 *
 *     stall_reeve HOST:PORT [--workers N] [--cpu LIST] [--stall BYTES] [--rescue on|off] [--stats]
 *
 * The handler is written as one would write it: it computes where it stands, hands nothing to other
 * threads, and yields to nobody. What it holds up is the runtime's business. --rescue off turns off
 * the signal by which others fetch the completions of a worker that is stuck in user code.
 *
 * SIGTERM or SIGINT: it drains and ends with status 0.
 */
#include <reeve/reeve.h>

#include "raw.h"
#include "stall.h"

static struct raw_opts opts;

/* Answers the requests in a buffer one by one: who is behind a stall in it waits for that. */
static ssize_t answer(int fd, struct reeve_buf *buf, struct stall *stall)
{
    size_t n;
    while ((n = stall_next(stall, opts.stall_bytes, buf->data, buf->len)) < buf->len) {
        ssize_t r = reeve_write(fd, buf->data, n, reeve_in(10 * REEVE_SEC));
        if (r < 0) {
            reeve_buf_return(buf);
            return r;
        }
        buf->data += n;
        buf->len -= n;
    }
    return reeve_buf_send(fd, buf, reeve_in(10 * REEVE_SEC));
}

static int handler(int fd, void *ctx)
{
    struct stall stall = { 0 };
    struct reeve_buf *buf;
    ssize_t n;
    (void)ctx;
    while ((n = reeve_buf_recv(fd, &buf, 0)) > 0)
        if ((n = answer(fd, buf, &stall)) < 0)
            break;
    return (int)n;
}

static void listening(int fd, void *ctx)
{
    (void)ctx;
    raw_announce(fd);
}

static int serve(void *arg)
{
    return reeve_serve_with(
        &(struct reeve_serve){ .addr = arg, .handler = handler, .listening = listening }, 0);
}

static void print_stats(reeve *runtime)
{
    struct reeve_stats st;
    reeve_stats(runtime, &st);
    printf("stats enters=%llu sqes=%llu cqes=%llu passes=%llu parks=%llu wakes_sent=%llu "
           "steals_tried=%llu steals_got=%llu rescue_signals=%llu loans_given=%llu "
           "loans_taken=%llu\n",
           (unsigned long long)st.enters, (unsigned long long)st.sqes, (unsigned long long)st.cqes,
           (unsigned long long)st.passes, (unsigned long long)st.parks,
           (unsigned long long)st.wakes_sent, (unsigned long long)st.steals_tried,
           (unsigned long long)st.steals_got, (unsigned long long)st.rescue_signals,
           (unsigned long long)st.loans_given, (unsigned long long)st.loans_taken);
}

int main(int argc, char **argv)
{
    sigset_t ends;
    reeve *runtime;
    int signo;
    opts = raw_parse(argc, argv);
    if (!opts.stall_bytes)
        opts.stall_bytes = 64;
    if (opts.cpus_n && opts.cpus_n < opts.threads)
        raw_die("%s: fewer CPUs than workers", argv[0]);
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigprocmask(SIG_BLOCK, &ends, NULL); /* before any thread is made: they inherit it */
    int r = reeve_create(&runtime, &(struct reeve_opts){
                                       .fn = serve,
                                       .arg = (void *)(uintptr_t)opts.addr,
                                       .name = "stall",
                                       .workers = (unsigned)opts.threads,
                                       .cpus = opts.cpus_n ? opts.cpus : NULL,
                                       .rescue_signal = opts.rescue_off ? -1 : 0,
                                   });
    if (r < 0)
        raw_die("%s: cannot start: %s", argv[0], strerror(-r));
    sigwait(&ends, &signo);
    r = reeve_shutdown(runtime, 0);
    if (opts.stats)
        print_stats(runtime);
    reeve_destroy(runtime);
    return r < 0;
}
