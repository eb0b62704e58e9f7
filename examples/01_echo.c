/* SPDX-License-Identifier: MIT */
/*
 * 01_echo.c -- the smallest server: what comes in goes out again.
 *
 * Run build/release/examples/01_echo, then talk to it: `nc 127.0.0.1 7000`. Behind these lines: a
 * task per connection, one multishot receive each, no byte copied, idle and slow peers bounded,
 * connections placed over all CPUs.
 */
#include <reeve/reeve.h>
#include <stdio.h>
#include <string.h>

static int echo(int fd, void *ctx)
{
    (void)ctx;
    struct reeve_buf *buf;
    ssize_t n;
    while ((n = reeve_buf_recv(fd, &buf, reeve_in(30 * REEVE_SEC))) > 0)
        if ((n = reeve_buf_send(fd, buf, reeve_in(5 * REEVE_SEC))) < 0)
            break;
    return (int)n;
}

static int serve(void *addr)
{
    return reeve_serve_with(&(struct reeve_serve){ .addr = addr, .handler = echo }, 0);
}

int main(void)
{
    int r = reeve_run(serve, "127.0.0.1:7000");
    return r < 0 ? fprintf(stderr, "echo: %s\n", strerror(-r)), 1 : 0;
}
