/* SPDX-License-Identifier: MIT */
/*
 * 05_client.c -- a server and its client in one program.
 *
 * Run build/release/examples/05_client; you will see:
 *
 *     Hello, A!
 *     Hello, B!
 *     Hello, C!
 *
 * The server takes a free port. Once it listens, a client dials it, three times, and then shuts the
 * runtime down: servers drain, and when the root task has returned, the program ends.
 */
#include <reeve/reeve.h>
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#define SOON reeve_in(5 * REEVE_SEC)

static int greet(int fd, void *ctx)
{
    (void)ctx;
    char name, text[] = "Hello, ?!\n";
    ssize_t n = reeve_read(fd, &name, 1, SOON);
    text[7] = name;
    return n > 0 ? (int)reeve_write(fd, text, strlen(text), SOON) : (int)n;
}

static int client(void *addr)
{
    ssize_t n = 0;
    for (char name = 'A', text[64]; name <= 'C' && n >= 0; name++) {
        int fd = reeve_dial(addr, SOON);
        n = fd < 0 ? fd : reeve_write(fd, &name, 1, SOON);
        while (n > 0 && (n = reeve_read(fd, text, sizeof text, SOON)) > 0)
            fwrite(text, 1, (size_t)n, stdout);
        reeve_close(fd);
    }
    if (n < 0)
        fprintf(stderr, "05_client: the client: %s\n", strerror((int)-n));
    return reeve_shutdown(reeve_self(), 0);
}

static void listening(int fd, void *ctx)
{
    (void)ctx;
    struct sockaddr_in in;
    char addr[32];
    getsockname(fd, (struct sockaddr *)&in, &(socklen_t){ sizeof in });
    snprintf(addr, sizeof addr, "127.0.0.1:%d", ntohs(in.sin_port));
    if (reeve_go(client, addr, .copy = sizeof addr) < 0)
        reeve_shutdown(reeve_self(), 0);
}

static int serve(void *addr)
{
    return reeve_serve_with(
        &(struct reeve_serve){ .addr = addr, .handler = greet, .listening = listening }, 0);
}

int main(void)
{
    int r = reeve_run(serve, "127.0.0.1:0");
    return r < 0 ? fprintf(stderr, "05_client: %s\n", strerror(-r)), 1 : 0;
}
