/* SPDX-License-Identifier: MIT */
/*
 * file_send.c -- a file to a TCP connection: two programs that send, and this one, which discards.
 *
 * The senders (peers/copy_reeve.c, peers/sendfile.c) say what it cost them. On a loopback
 * connection that is more than sending: the sender's CPU also does what the network would.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/bench/bench_file.h"

enum { SEND_MS = 30000, DISCARD = 256 << 10, SEND_MIB = 1024, SEND_QUICK_MIB = 256 };

enum kind { COPY, SENDFILE };

static int listen_here(struct sockaddr_in *ret_at)
{
    socklen_t len = sizeof *ret_at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    *ret_at = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
    if (fd < 0 || bind(fd, (struct sockaddr *)ret_at, len) < 0 || listen(fd, 1) < 0 ||
        getsockname(fd, (struct sockaddr *)ret_at, &len) < 0)
        return -errno;
    return fd;
}

/* The whole of one connection. */
static int discard(int listener)
{
    static char block[DISCARD];
    int fd = accept(listener, NULL, NULL);
    ssize_t n;
    if (fd < 0)
        return -errno;
    while ((n = read(fd, block, sizeof block)) > 0)
        continue;
    close(fd);
    return n < 0 ? -EIO : 0;
}

static int transfer(struct bench *b, int listener, const char *const *argv, struct bench_proc *p)
{
    struct bench_spawn how = { .argv = argv, .cpus = &b->cpu_server, .cpus_n = 1,
                               .nice = b->raised ? -10 : 0 };
    /* A sender that ends before it connects must not leave us waiting. */
    struct timeval bound = { .tv_sec = 10 };
    setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &bound, sizeof bound);
    int r = bench_start(p, &how);
    if (r < 0)
        return r;
    r = discard(listener);
    int status = bench_stop(p, 0, SEND_MS);
    if (r == 0 && status == 0)
        return 0;
    bench_skip(argv[0], "it ended with status %d. It said: %s", status, p->said);
    return -EIO;
}

static int turn(struct bench *b, const struct file_side *side, struct file_turn *ret_turn)
{
    static struct bench_proc p;
    struct sockaddr_in at;
    char path[BENCH_PATH + 64], addr[64], mib[16];
    snprintf(path, sizeof path, "%s/%s", b->peerdir,
             side->kind == COPY ? "copy_reeve" : "sendfile");
    snprintf(mib, sizeof mib, "%d", b->quick ? SEND_QUICK_MIB : SEND_MIB);
    const char *argv[] = { path, addr, file_test(b)->path, mib, NULL };
    int listener = listen_here(&at);
    if (listener < 0)
        return listener;
    snprintf(addr, sizeof addr, "127.0.0.1:%d", ntohs(at.sin_port));
    int r = transfer(b, listener, argv, &p);
    close(listener);
    *ret_turn = (struct file_turn){
        .cpu_ns = bench_number(p.said, "cpu_ns_per_mib", 0),
        .per_s = bench_number(p.said, "mb_per_s", 0),
    };
    return r < 0 ? r : ret_turn->cpu_ns > 0 ? 0 : -EIO;
}

void file_send(struct bench *b, const struct bench_case *c)
{
    static const struct file_metrics metrics = { .cpu = "cpu_ns_per_mib", .rate = "mb_per_s" };
    struct file_side sides[] = {
        { .name = "reeve", .turn = turn, .kind = COPY },
        { .name = "sendfile", .turn = turn, .kind = SENDFILE },
    };
    const struct file_test *f = file_test(b);
    if (!f)
        return;
    file_cache(f, true);
    bench_pin(b->cpu_load);
    if (b->raised)
        setpriority(PRIO_PROCESS, 0, -10);
    file_compare(b, c->name, sides, 2, &metrics);
    if (b->raised)
        setpriority(PRIO_PROCESS, 0, 0);
}
