/* SPDX-License-Identifier: MIT */
/*
 * 11_dial.c -- connects to a host by its name, sends a line and prints what comes back.
 *
 * Run build/release/examples/11_dial, which answers itself; you will see:
 *
 *     HELLO, YOU!
 *
 * Or ask somebody else: 11_dial HOST:PORT LINE. The name is looked up on a thread of its own while
 * other tasks go on, its addresses are tried in turns of IPv6 and IPv4, and the first that answers
 * is taken. All of it together has two seconds.
 */
#include <reeve/reeve.h>
#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

static int ask(const char *addr, const char *line)
{
    char text[512];
    reeve_time until = reeve_in(2 * REEVE_SEC);
    int fd = reeve_dial(addr, until);
    if (fd < 0) /* -ENOENT: there is no such name; -ECONNREFUSED: nobody listens there; ... */
        return fd;
    int len = snprintf(text, sizeof text, "%.500s\n", line);
    ssize_t n = reeve_write(fd, text, (size_t)len, until);
    while (n > 0 && (n = reeve_read(fd, text, sizeof text, until)) > 0)
        fwrite(text, 1, (size_t)n, stdout);
    reeve_close(fd);
    return (int)n;
}

/* The other side of a conversation with oneself: it says it again, in capitals. */
static int shout(void *listener)
{
    char text[512];
    int fd = reeve_accept(*(int *)listener, 0);
    ssize_t n = fd < 0 ? fd : reeve_read(fd, text, sizeof text, reeve_in(REEVE_SEC));
    for (ssize_t i = 0; i < n; i++)
        text[i] = (char)toupper((unsigned char)text[i]);
    n = n > 0 ? reeve_write(fd, text, (size_t)n, reeve_in(REEVE_SEC)) : n;
    reeve_close(fd);
    return (int)n;
}

static int root(void *arg)
{
    char **argv = arg, addr[32];
    if (argv[1])
        return ask(argv[1], argv[2] ? argv[2] : "");
    int listener = reeve_listen("127.0.0.1:0", 0), r; /* a port that is free */
    if (listener < 0 || (r = reeve_go(shout, &listener, .copy = sizeof listener)) < 0)
        return listener < 0 ? listener : r;
    struct sockaddr_in in;
    getsockname(listener, (struct sockaddr *)&in, &(socklen_t){ sizeof in });
    snprintf(addr, sizeof addr, "localhost:%d", ntohs(in.sin_port));
    r = ask(addr, "Hello, you!");
    reeve_close(listener);
    return r;
}

int main(int argc, char **argv)
{
    int r = reeve_run(root, argc > 0 ? argv : (char *[]){ NULL, NULL });
    return r < 0 ? fprintf(stderr, "11_dial: %s\n", strerror(-r)), 1 : 0;
}
