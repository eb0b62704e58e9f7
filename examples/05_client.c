/* SPDX-License-Identifier: MIT */
/*
 * 05_client.c -- a server and its client in one program.
 *
 * Run build/release/examples/05_client; you will see:
 *
 *     Hello, client A!
 *     Hello, client B!
 *     Hello, client C!
 *
 * The server takes a port that is free. Once it listens, the client dials it; when that is through,
 * it cancels the server, which is how a server is asked to drain and to end.
 */
#include <reeve/reeve.h>
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

static reeve_task *server;

static int greet(int fd, void *ctx)
{
    (void)ctx;
    char name, text[64];
    ssize_t n = reeve_read(fd, &name, 1, reeve_in(5 * REEVE_SEC));
    if (n > 0)
        n = snprintf(text, sizeof text, "Hello, client %c!\n", name);
    return n > 0 ? (int)reeve_write(fd, text, (size_t)n, reeve_in(5 * REEVE_SEC)) : (int)n;
}

static int client(void *addr)
{
    ssize_t n = 0;
    for (char name = 'A', text[64]; name <= 'C' && n >= 0; name++) {
        int fd = reeve_dial(addr, reeve_in(5 * REEVE_SEC));
        n = fd < 0 ? fd : reeve_write(fd, &name, 1, 0);
        while (n > 0 && (n = reeve_read(fd, text, sizeof text, reeve_in(5 * REEVE_SEC))) > 0)
            printf("%.*s", (int)n, text);
        reeve_close(fd);
    }
    reeve_cancel(server);
    return (int)n;
}

static void listening(int fd, void *ret_client)
{
    struct sockaddr_in in;
    socklen_t len = sizeof in;
    char addr[32];
    getsockname(fd, (struct sockaddr *)&in, &len);
    snprintf(addr, sizeof addr, "127.0.0.1:%d", ntohs(in.sin_port));
    if (reeve_spawn(ret_client, client, addr, .copy = sizeof addr) < 0)
        reeve_cancel(server);
}

static int serve(void *arg)
{
    reeve_task *task = NULL;
    int failed = 0, r;
    r = reeve_serve_with(&(struct reeve_serve){ .addr = "127.0.0.1:0", .handler = greet }, 0);
    return r;
}
