/* SPDX-License-Identifier: MIT */
/*
 * pipeline_stages.c -- the stages in the middle: what is let through, and what it comes to.
 *
 * Each is one task that reads a channel until it is closed and empty, and then closes the one it
 * writes: so the end of the first stage becomes the end of the last, with everything in between.
 * One task each keeps every client's batches in order, and with them the meaning of "ok N".
 */
#include "pipeline.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- filter: not what begins with p->drop ---------------------------------------------------- */

static void keep_some(struct pipeline *p, struct batch *b)
{
    size_t prefix = strlen(p->drop);
    unsigned kept = 0;
    for (unsigned i = 0; i < b->n; i++)
        if (prefix == 0 || strncmp(b->records[i].key, p->drop, prefix) != 0)
            b->records[kept++] = b->records[i];
    count(&p->filtered, b->n - kept);
    b->n = kept; /* 0 of them go on too: their client wants to hear of them */
}

int filter_task(void *pipeline)
{
    struct pipeline *p = pipeline;
    struct batch b;
    int r;
    while ((r = reeve_chan_recv(p->parsed, &b, 0)) == 0) {
        keep_some(p, &b);
        if ((r = reeve_chan_send(p->kept, &b, 0)) < 0) {
            client_release(b.client);
            break;
        }
    }
    reeve_chan_close(p->kept);
    return r == -EPIPE ? 0 : r;
}

/* ---- aggregate: windows of so many records, or so long --------------------------------------- */

static struct window *window_open(void)
{
    struct window *w = need(sizeof *w);
    w->records = w->nrows = w->nfiled = 0;
    memset(w->index, 0, sizeof w->index);
    return w;
}

void window_release(struct window *w)
{
    for (unsigned i = 0; i < w->nfiled; i++)
        client_release(w->filed[i].client);
    free(w);
}

/* FNV-1a. */
static uint32_t hash(const char *key)
{
    uint32_t h = 0x811c9dc5;
    while (*key)
        h = (h ^ (unsigned char)*key++) * 0x01000193;
    return h;
}

/* The row of this key, a new one if there is none. */
static struct row *row_of(struct window *w, const char *key)
{
    uint32_t slots = sizeof w->index / sizeof w->index[0];
    for (uint32_t i = hash(key) % slots;; i = (i + 1) % slots) {
        struct row *row = w->index[i] ? &w->rows[w->index[i] - 1] : &w->rows[w->nrows];
        if (w->index[i] && strcmp(row->key, key) != 0)
            continue;
        if (!w->index[i]) {
            w->index[i] = (uint16_t)++w->nrows;
            *row = (struct row){ .count = 0 };
            memcpy(row->key, key, sizeof row->key);
        }
        return row;
    }
}

static void add_record(struct window *w, const struct record *r)
{
    struct row *row = row_of(w, r->key);
    row->min = row->count == 0 || r->value < row->min ? r->value : row->min;
    row->max = row->count == 0 || r->value > row->max ? r->value : row->max;
    row->sum += r->value;
    row->count++;
    w->records++;
}

/* The batch's reference to its client goes to the window, once for each client. */
static void add_batch(struct window *w, const struct batch *b)
{
    for (unsigned i = 0; i < b->n; i++)
        add_record(w, &b->records[i]);
    for (unsigned i = 0; i < w->nfiled; i++)
        if (w->filed[i].client == b->client) {
            w->filed[i].lines = b->lines;
            client_release(b->client);
            return;
        }
    w->filed[w->nfiled].client = b->client;
    w->filed[w->nfiled++].lines = b->lines;
}

/* Whether another batch might be too much. */
static bool full(const struct pipeline *p, const struct window *w)
{
    return w->records >= p->window_records || w->nrows > ROWS_MAX - BATCH_LINES ||
           w->nfiled == FILED_MAX;
}

/* The next batch; -ETIMEDOUT: the window has been open for long enough. */
static int next_batch(struct pipeline *p, struct window *w, struct batch *b, bool *hurry)
{
    int r = reeve_chan_recv(p->kept, b, w->nfiled ? w->closes : 0);
    if (r == 0 && !b->client) {
        *hurry = true;
        return -ETIMEDOUT;
    }
    if (r == 0) {
        if (w->nfiled == 0)
            w->closes = reeve_in(*hurry ? REEVE_MS : p->every_ns);
        add_batch(w, b);
    }
    return r;
}

int aggregate_task(void *pipeline)
{
    struct pipeline *p = pipeline;
    struct window *w = window_open();
    struct batch b;
    bool hurry = false;
    int r;
    do {
        r = next_batch(p, w, &b, &hurry);
        bool over = r == -ETIMEDOUT || r == -EPIPE || (r == 0 && full(p, w));
        if (over && w->nfiled) {
            int sent = reeve_chan_send(p->windows, &w, 0);
            if (sent == 0)
                w = window_open();
            else
                r = sent;
        }
    } while (r == 0 || r == -ETIMEDOUT);
    window_release(w);
    reeve_chan_close(p->windows);
    return r == -EPIPE ? 0 : r;
}
