/* SPDX-License-Identifier: MIT */
/*
 * allocs_reeve.c -- reeve's echo server, which counts what it asks for memory once it is warm.
 *
 *     allocs_reeve HOST:PORT [--workers N] [--cpu LIST]
 *
 * The first WARM requests are not looked at: they fill what is filled once. With the request that
 * ends them, and with the one that comes COUNTED later, the handler reads the library's own counter
 * of requests to the allocator and to the kernel, and then says, once:
 *
 *     counted requests=100000 heap_requests=0
 *
 * The handler is the echo example's. SIGTERM or SIGINT: it drains and ends with status 0.
 */
#include <reeve/mem.h>
#include <reeve/reeve.h>
#include <stdatomic.h>

#include "raw.h"

enum { WARM = 20000, COUNTED = 100000 };

static atomic_ulong requests, heap_requests_before;

static uint64_t heap_requests(void)
{
    struct reeve_memory m;
    reeve_memory_stats(&m);
    return m.heap_requests;
}

/* Two workers may be here at a time, but only one of them with a given number. */
static void count(void)
{
    unsigned long n = atomic_fetch_add(&requests, 1) + 1;
    if (n == WARM)
        atomic_store(&heap_requests_before, heap_requests());
    if (n != WARM + COUNTED)
        return;
    uint64_t asked = heap_requests() - atomic_load(&heap_requests_before);
    printf("counted requests=%d heap_requests=%llu\n", COUNTED, (unsigned long long)asked);
    fflush(stdout);
}

static int handler(int fd, void *ctx)
{
    struct reeve_buf *buf;
    ssize_t n;
    (void)ctx;
    while ((n = reeve_buf_recv(fd, &buf, 0)) > 0) {
        if ((n = reeve_buf_send(fd, buf, reeve_in(10 * REEVE_SEC))) < 0)
            break;
        count();
    }
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

int main(int argc, char **argv)
{
    sigset_t ends;
    reeve *runtime;
    int signo;
    struct raw_opts opts = raw_parse(argc, argv);
    if (opts.cpus_n && opts.cpus_n < opts.threads)
        raw_die("%s: fewer CPUs than workers", argv[0]);
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigprocmask(SIG_BLOCK, &ends, NULL); /* before any thread is made: they inherit it */
    int r = reeve_create(&runtime, &(struct reeve_opts){
                                       .fn = serve,
                                       .arg = (void *)(uintptr_t)opts.addr,
                                       .name = "allocs",
                                       .workers = (unsigned)opts.threads,
                                       .cpus = opts.cpus_n ? opts.cpus : NULL,
                                   });
    if (r < 0)
        raw_die("%s: cannot start: %s", argv[0], strerror(-r));
    sigwait(&ends, &signo);
    r = reeve_shutdown(runtime, 0);
    reeve_destroy(runtime);
    return r < 0;
}
