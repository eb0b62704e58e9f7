/* SPDX-License-Identifier: MIT */
/*
 * 05_client.c -- a server and its client in one program.
 *
 * Run build/release/examples/05_client; you will see:
 *
 *     Hello, A!
 *     Hello, B!
 *
 * The client, when it is through, shuts the runtime down: the server drains, and reeve_run returns.
 */
#include <reeve/reeve.h>
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

static int greet(int fd, void *ctx)
{
    (void)ctx;
    char text[] = "Hello, ?!\n";
    ssize_t n = reeve_read(fd, &text[7], 1, 0);
    return n > 0 ? (int)reeve_write(fd, text, strlen(text), reeve_in(5 * REEVE_SEC)) : (int)n;
}

static int client(void *addr)
{
    ssize_t n = 0;
    for (char name = 'A', text[64]; name <= 'B' && n >= 0; name++) {
        int fd = reeve_dial(addr, 0);
        n = fd < 0 ? fd : reeve_write(fd, &name, 1, 0);
        while (n > 0 && (n = reeve_read(fd, text, sizeof text, 0)) > 0)
            fwrite(text, 1, (size_t)n, stdout);
        reeve_close(fd);
    }
    reeve_shutdown(reeve_self(), 0);
    return n < 0 ? printf("the client: %s\n", strerror((int)-n)), (int)n : 0;
}

static void listening(int fd, void *ctx)
{
    (void)ctx;
    struct sockaddr_in in;
    char addr[32];
    getsockname(fd, (struct sockaddr *)&in, &(socklen_t){ sizeof in });
    snprintf(addr, sizeof addr, "127.0.0.1:%d", ntohs(in.sin_port));
    if (reeve_go(client, addr, .copy = sizeof addr, .deadline = reeve_in(5 * REEVE_SEC)) < 0)
        reeve_shutdown(reeve_self(), 0);
}

static int serve(void *addr)
{
    struct reeve_serve how = { .addr = addr, .handler = greet, .listening = listening };
    return reeve_serve_with(&how, 0);
}

int main(void)
{
    int r = reeve_run(serve, "127.0.0.1:0"); /* a port that is free */
    return r < 0 ? fprintf(stderr, "05_client: %s\n", strerror(-r)), 1 : 0;
}
