/* SPDX-License-Identifier: MIT */
/*
 * pipeline_file.c -- the last stage: windows into the file, and only then word to their clients.
 *
 * A window becomes lines of "KEY COUNT SUM MIN MAX", and these one record of a log: a disk that
 * fills up in the midst of it leaves nothing of it behind. What is no regular file is written to.
 * When the file fails, the stage goes on to empty its channel, so that nobody waits for it, and
 * tells every client that what it sent is not filed; the program ends.
 */
#include "pipeline.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROW_TEXT_MAX = KEY_BYTES + 3 * 25 + 22 };

static struct text *text_of(const struct window *w)
{
    struct text *t = need(sizeof *t + (size_t)w->nrows * ROW_TEXT_MAX + 1);
    atomic_init(&t->refs, 1);
    t->len = 0;
    for (unsigned i = 0; i < w->nrows; i++) {
        const struct row *r = &w->rows[i];
        t->len += (size_t)snprintf(t->bytes + t->len, ROW_TEXT_MAX + 1,
                                   "%s %llu %.15g %.15g %.15g\n", r->key,
                                   (unsigned long long)r->count, r->sum, r->min, r->max);
    }
    return t;
}

/* 0, or why it is not in the file. */
static int file(struct pipeline *p, const struct text *t)
{
    int64_t r;
    if (t->len == 0)
        return 0; /* the filter has kept nothing */
    if (!p->log)
        r = reeve_write(p->out, t->bytes, t->len, 0);
    else if (p->sync)
        r = reeve_log_append(p->log, t->bytes, t->len, 0);
    else
        r = reeve_log_append_later(p->log, t->bytes, t->len, 0);
    return r < 0 ? (int)r : 0;
}

static int open_log(struct pipeline *p)
{
    struct reeve_log_opts how = { .path = p->out_path, .mode = 0644 };
    return p->out >= 0 ? 0 : reeve_log_open(&p->log, &how, 0);
}

/* Every client gets its reference back, and an answer. */
static void tell_clients(struct window *w, bool filed)
{
    for (unsigned i = 0; i < w->nfiled; i++) {
        if (filed)
            client_filed(w->filed[i].client, w->filed[i].lines);
        else
            client_failed(w->filed[i].client);
    }
    w->nfiled = 0;
}

int file_task(void *pipeline)
{
    struct pipeline *p = pipeline;
    struct window *w;
    int failed = open_log(p), r;
    if (failed < 0)
        reeve_chan_send(p->end, &failed, REEVE_POLL);
    while ((r = reeve_chan_recv(p->windows, &w, 0)) == 0) {
        struct text *t = text_of(w);
        if (failed == 0 && (failed = file(p, t)) < 0)
            reeve_chan_send(p->end, &failed, REEVE_POLL);
        tell_clients(w, failed == 0);
        if (failed == 0) {
            count(&p->records, w->records);
            count(&p->windows_filed, 1);
            count(&p->rows, w->nrows);
            count(&p->bytes, t->len);
            publish(p, t);
        }
        text_release(t);
        window_release(w);
    }
    if (r == -EPIPE)
        r = 0;
    int closed = reeve_log_close(p->log, 0);
    return failed < 0 ? failed : r < 0 ? r : closed;
}
