/* SPDX-License-Identifier: MIT */
/*
 * pipeline_clients.c -- the first stage: a task for each client frames and parses what it sends.
 *
 * Lines are parsed where the kernel put them; what goes on is the parsed record. A batch goes on
 * when it is full, or when nothing more has arrived: nobody waits for a neighbour.
 *
 * What the client is told, by a second task, because the first may be waiting for room:
 *
 *     ok N              the first N lines of this connection are dealt with: those that the filter
 *                       keeps are in the file, and will be there after a restart
 *     error N: REASON   line N is not a record, and was passed over
 *     error: REASON     the file failed: what was not acknowledged may be lost
 *
 * A batch in the pipeline refers to its client, which may be gone by the time it is filed: the
 * record goes with its last reference, the socket with the first task.
 */
#include "pipeline.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define ANSWER_NS (10 * REEVE_SEC) /* a client that does not read its answers is no client */

struct client {
    atomic_uint refs;
    int fd; /* for the client's own two tasks */
    reeve_chan *wake;
    atomic_ullong filed; /* lines */
    atomic_ullong last;  /* lines, once there will be no more; until then UINT64_MAX */
    atomic_bool failed;
};

static struct client *client_create(int fd)
{
    struct client *c = need(sizeof *c);
    *c = (struct client){ .fd = fd, .wake = reeve_chan_create(0, 1) };
    atomic_init(&c->refs, 1);
    atomic_init(&c->last, UINT64_MAX);
    if (c->wake)
        return c;
    free(c);
    return NULL;
}

void client_release(struct client *c)
{
    if (!c || atomic_fetch_sub(&c->refs, 1) > 1)
        return;
    reeve_chan_destroy(c->wake);
    free(c);
}

/* One signal is enough, however often something happens. */
static void wake(struct client *c)
{
    reeve_chan_send(c->wake, NULL, REEVE_POLL);
}

void client_filed(struct client *c, uint64_t lines)
{
    atomic_store(&c->filed, lines);
    wake(c);
    client_release(c);
}

void client_failed(struct client *c)
{
    atomic_store(&c->failed, true);
    wake(c);
    client_release(c);
}

/* ---- parsing --------------------------------------------------------------------------------- */

const char *parse_line(const struct reeve_record *line, struct record *ret)
{
    const unsigned char *space = memchr(line->data, ' ', line->len);
    size_t key = space ? (size_t)(space - line->data) : line->len, value = line->len - key;
    char digits[32], *end;
    if (!space)
        return "no value";
    if (key == 0 || key >= KEY_BYTES)
        return "a key has 1 to 39 bytes";
    for (size_t i = 0; i < key; i++)
        if (line->data[i] < '!' || line->data[i] > '~')
            return "a key is of printable characters";
    if (value >= sizeof digits)
        return "the value is too long";
    memcpy(digits, space + 1, --value);
    digits[value] = '\0';
    if (digits[strspn(digits, "0123456789.+-eE")])
        return "the value is no number";
    ret->value = strtod(digits, &end);
    if (end == digits || *end || !isfinite(ret->value))
        return "the value is no number";
    memset(ret->key, 0, sizeof ret->key);
    memcpy(ret->key, line->data, key);
    return NULL;
}

/* ---- the task that reads --------------------------------------------------------------------- */

struct intake {
    struct pipeline *p;
    struct client *c;
    struct reeve_reader in;
    struct batch batch;
    uint64_t passed_on; /* lines */
};

static int pass_on(struct intake *in)
{
    if (in->batch.lines == in->passed_on)
        return 0;
    atomic_fetch_add(&in->c->refs, 1);
    int r = reeve_chan_send(in->p->parsed, &in->batch, 0); /* full: this client waits */
    if (r < 0)
        client_release(in->c);
    in->passed_on = in->batch.lines;
    in->batch.n = 0;
    return r;
}

static int complain(struct intake *in, const char *why)
{
    char text[128];
    int n = snprintf(text, sizeof text, "error %llu: %s\n", (unsigned long long)in->batch.lines,
                     why);
    count(&in->p->malformed, 1);
    ssize_t r = reeve_write(in->c->fd, text, (size_t)n, reeve_in(ANSWER_NS));
    return r < 0 ? (int)r : 0;
}

/* A line has come, or something that should have been one. */
static int take_line(struct intake *in, const struct reeve_record *line, const char *why)
{
    count(&in->p->lines, 1);
    in->batch.lines++;
    if (!why)
        why = parse_line(line, &in->batch.records[in->batch.n]);
    if (!why)
        in->batch.n++;
    int r = why ? complain(in, why) : 0;
    if (r == 0 && in->batch.lines - in->passed_on == BATCH_LINES)
        r = pass_on(in);
    return r;
}

/* Whether the program ends, and a client that never pauses has had its time. */
static bool enough(const struct pipeline *p)
{
    reeve_time until = atomic_load_explicit(&p->read_until, memory_order_relaxed);
    return until != 0 && reeve_now() >= until;
}

/* Until the client has no more to say, or the server drains and nothing is pending: -ESHUTDOWN. */
static int take_in(struct intake *in)
{
    struct reeve_record line;
    while (!enough(in->p)) {
        bool pending = in->batch.lines > in->passed_on;
        int r = reeve_reader_line(&in->in, &line, pending ? REEVE_POLL : 0);
        if (r == 1)
            r = take_line(in, &line, NULL);
        else if (r == -EMSGSIZE)
            r = take_line(in, NULL, "longer than 256 bytes");
        else if (r == -ETIMEDOUT && pending)
            r = pass_on(in);
        else if (r == -EPROTO)
            return take_line(in, NULL, "it does not end");
        else
            return r;
        if (r < 0)
            return r;
    }
    return -ESHUTDOWN;
}

/* ---- the task that answers ------------------------------------------------------------------- */

static int say(struct client *c, const char *text)
{
    ssize_t n = reeve_write(c->fd, text, strlen(text), reeve_in(ANSWER_NS));
    return n < 0 ? (int)n : 0;
}

/* Until all that was read is acknowledged, or cannot be. */
static int answer(void *arg)
{
    struct client *c = arg; /* with a reference */
    unsigned long long told = 0;
    char text[32];
    int r = 0;
    while (r == 0 && atomic_load(&c->last) != told) {
        unsigned long long filed = atomic_load(&c->filed);
        if (atomic_load(&c->failed)) {
            say(c, "error: the file failed\n");
            r = -EIO;
        } else if (filed > told) {
            snprintf(text, sizeof text, "ok %llu\n", filed);
            told = filed;
            r = say(c, text);
        } else {
            r = reeve_chan_recv(c->wake, NULL, 0);
        }
    }
    if (r < 0)
        shutdown(c->fd, SHUT_RDWR); /* and the other task reads no more */
    client_release(c);
    return r;
}

static void never_answered(void *arg)
{
    client_release(arg);
}

int client_task(int fd, void *pipeline)
{
    struct pipeline *p = pipeline;
    struct client *c = client_create(fd);
    reeve_task *answers;
    if (!c)
        return -ENOMEM;
    struct intake in = { .p = p, .c = c, .batch.client = c };
    in.in = (struct reeve_reader){ .fd = fd, .record_max = LINE_MAX_BYTES };
    count(&p->clients, 1);
    atomic_fetch_add(&c->refs, 1);
    int r = reeve_spawn(&answers, answer, c, .skipped = never_answered, .name = "answers");
    if (r < 0) {
        client_release(c);
    } else {
        r = take_in(&in);
        if (pass_on(&in) == 0) {
            atomic_store(&c->last, in.batch.lines);
            wake(c);
        } else {
            reeve_cancel(answers);
        }
        reeve_join(answers, NULL, 0);
    }
    count(&p->copied, in.in.copied);
    reeve_reader_finish(&in.in);
    client_release(c);
    return r == -ESHUTDOWN ? 0 : r;
}
