/* SPDX-License-Identifier: MIT */
/*
 * bench_buf.c -- what it costs to work inside a leased buffer.
 *
 *     bench_buf [--json] [--quick] [--case NAME]...
 *
 *     buf_cursor    lines of 64 bytes from a socket, CPU time per line: looked at where they
 *                   arrived (reeve_reader_line), against the same task reading into an array and
 *                   copying each line out of it (reeve_read, memchr, memcpy)
 *     buf_compact   a line of 64 bytes written behind those that are unread, one read in front, in
 *                   a buffer of 16 KiB that is nearly full: reeve_cursor_write, which compacts when
 *                   it must, against moving the rest to the front each time
 *
 * Both sides of a case run in turns, each in a process of its own.
 */
#include <reeve/reeve.h>
#include <reeve/frame.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/bench/harness.h"

enum { LINE = 64, LINES = 1 << 20, CHUNK = 1000 * LINE, BUF = 16384, KEPT = 250, ROUNDS = 3 };

static int cpu_of_sender;

static void must(const char *what, long r)
{
    if (r >= 0)
        return;
    fprintf(stderr, "bench_buf: %s: %s\n", what, strerror((int)-r));
    exit(1);
}

static int64_t cpu_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* ---- buf_cursor ------------------------------------------------------------------------------ */

static char chunk[CHUNK];

static void *send_lines(void *arg)
{
    int fd = *(int *)arg;
    bench_pin(cpu_of_sender);
    for (size_t left = (size_t)LINES * LINE; left > 0;) {
        ssize_t n = send(fd, chunk, left < CHUNK ? left : CHUNK, MSG_NOSIGNAL);
        must("send", n);
        left -= (size_t)n;
        if (n % CHUNK && left > 0) { /* the rest of it, so that lines stay whole */
            size_t rest = CHUNK - (size_t)n;
            for (; rest > 0; rest -= (size_t)n, left -= (size_t)n)
                must("send", n = send(fd, chunk + CHUNK - rest, rest, MSG_NOSIGNAL));
        }
    }
    close(fd);
    return NULL;
}

/* Each takes LINES lines from fd and returns how many bytes they had. */

static size_t take_in_place(int fd)
{
    struct reeve_reader in = { .fd = fd };
    struct reeve_record line;
    size_t bytes = 0;
    int r;
    while ((r = reeve_reader_line(&in, &line, 0)) > 0)
        bytes += line.len + (line.data[0] != 'x');
    must("reeve_reader_line", r);
    reeve_reader_finish(&in);
    return bytes;
}

static size_t take_copied(int fd)
{
    static char buf[BUF], line[2 * LINE];
    size_t bytes = 0, kept = 0;
    ssize_t n;
    while ((n = reeve_read(fd, buf, sizeof buf, 0)) > 0) {
        for (char *at = buf, *end = buf + n; at < end;) {
            char *newline = memchr(at, '\n', (size_t)(end - at));
            size_t len = (size_t)((newline ? newline : end) - at);
            memcpy(line + kept, at, len);
            kept += len;
            at += len;
            if (newline) {
                bytes += kept + (line[0] != 'x');
                kept = 0;
                at++;
            }
        }
    }
    must("reeve_read", (long)n);
    return bytes;
}

struct job {
    size_t (*take)(int fd);
    double ns;
};

static int stream(void *arg)
{
    struct job *job = arg;
    struct sockaddr_in at;
    socklen_t len = sizeof at;
    pthread_t sender;
    int door = reeve_listen("127.0.0.1:0", 0);
    must("reeve_listen", door);
    getsockname(door, (struct sockaddr *)&at, &len);
    int peer = socket(AF_INET, SOCK_STREAM, 0);
    if (peer < 0 || connect(peer, (struct sockaddr *)&at, len) < 0)
        must("connect", -1);
    int fd = reeve_accept(door, 0);
    must("reeve_accept", fd);
    for (size_t i = 0; i < CHUNK; i++)
        chunk[i] = i % LINE == LINE - 1 ? '\n' : 'x';
    must("pthread_create", -pthread_create(&sender, NULL, send_lines, &peer));
    int64_t begun = cpu_now();
    size_t bytes = job->take(fd);
    job->ns = (double)(cpu_now() - begun) / LINES;
    pthread_join(sender, NULL);
    must("what arrived", bytes == (size_t)LINES * (LINE - 1) ? 0 : -1);
    reeve_close(fd);
    reeve_close(door);
    return 0;
}

static double run_stream(size_t (*take)(int fd))
{
    struct job job = { .take = take };
    must("reeve_run", reeve_run(stream, &job, .workers = 1));
    return job.ns;
}

static double stream_in_place(void *ctx)
{
    (void)ctx;
    return run_stream(take_in_place);
}

static double stream_copied(void *ctx)
{
    (void)ctx;
    return run_stream(take_copied);
}

/* ---- buf_compact ----------------------------------------------------------------------------- */

static double began_at(int64_t begun)
{
    return (double)(bench_now() - begun) / (4.0 * LINES);
}

static int compact_by_cursor(void *arg)
{
    struct reeve_cursor c = { .buf = NULL };
    must("reeve_buf_borrow", reeve_buf_borrow(&c.buf, 0));
    for (int i = 0; i < KEPT; i++)
        must("reeve_cursor_write", (long)reeve_cursor_write(&c, chunk, LINE));
    int64_t begun = bench_now();
    for (int i = 0; i < 4 * LINES; i++) {
        reeve_cursor_advance(&c, LINE);
        must("reeve_cursor_write", (long)reeve_cursor_write(&c, chunk, LINE));
    }
    *(double *)arg = began_at(begun);
    reeve_buf_return(reeve_cursor_take(&c));
    return 0;
}

static double by_cursor(void *ctx)
{
    double ns = -1;
    (void)ctx;
    must("reeve_run", reeve_run(compact_by_cursor, &ns, .workers = 1));
    return ns;
}

static double by_memmove(void *ctx)
{
    static char buf[BUF];
    char *volatile at = buf;
    (void)ctx;
    int64_t begun = bench_now();
    for (int i = 0; i < 4 * LINES; i++) {
        memmove(at, at + LINE, (KEPT - 1) * LINE);
        memcpy(at + (KEPT - 1) * LINE, chunk, LINE);
    }
    return began_at(begun);
}

/* ---- the program ----------------------------------------------------------------------------- */

struct sides {
    double (*ours)(void *ctx), (*theirs)(void *ctx);
    const char *peer;
};

static void compare(struct bench *b, const struct bench_case *c)
{
    const struct sides *s = c->ctx;
    struct bench_samples ours = { .n = 0 }, theirs = { .n = 0 };
    cpu_of_sender = b->cpu_load;
    for (int i = 0; i < ROUNDS && (i == 0 || bench_time_left(b)); i++)
        if (bench_ns_alone(&ours, NULL, s->ours, NULL, 2, b->cpu_server) < 0 ||
            bench_ns_alone(&theirs, NULL, s->theirs, NULL, 2, b->cpu_server) < 0) {
            bench_fail(b, c->name, "a side did not end well");
            return;
        }
    bench_emit(b, c->name, "ns_per_line", &ours, s->peer, &theirs);
}

static struct sides cursor = { stream_in_place, stream_copied, "copied_lines" };
static struct sides compact = { by_cursor, by_memmove, "memmove" };

static const struct bench_case cases[] = {
    { .name = "buf_cursor", .run = compare, .ctx = &cursor },
    { .name = "buf_compact", .run = compare, .ctx = &compact },
};

int main(int argc, char **argv)
{
    static const struct bench_program program = { .name = "buf",
                                                  .cases = cases,
                                                  .cases_n = sizeof cases / sizeof cases[0] };
    return bench_main(&program, argc, argv);
}
