/* SPDX-License-Identifier: MIT */
/*
 * pipeline.h -- what flows through the pipeline server, and who owns it meanwhile.
 *
 *     client tasks -batches-> filter -batches-> aggregate -windows-> file -texts-> subscribers
 *       frame, parse                                                  |
 *            ^---------------- how many lines are in the file --------'
 *
 * Every arrow to the right is a bounded channel, and whoever sends into a full one waits: a slow
 * file stops the aggregation, that the filter, that the client tasks, which no longer read, and TCP
 * stops the clients. The arrow back, and the last one, never wait: the first is one number, which a
 * later one makes obsolete, and a subscriber whose queue is full is dropped.
 *
 * A batch, and what follows from it, holds a reference to its client.
 */
#ifndef EXAMPLES_PIPELINE_H
#define EXAMPLES_PIPELINE_H

#include <reeve/reeve.h>
#include <reeve/file.h>
#include <reeve/frame.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    LINE_MAX_BYTES = 256, /* of a record as it comes in */
    KEY_BYTES = 40,       /* of its key, with a final 0 */
    BATCH_LINES = 64,
    ROWS_MAX = 1024,      /* keys of one window */
    FILED_MAX = 256,      /* clients of one window */
};

/* "KEY VALUE\n", parsed. */
struct record {
    char key[KEY_BYTES];
    double value;
};

struct client;

/* Some lines of one client that came one after another. One without a client has no lines: the end
 * is near, windows should not be kept open. */
struct batch {
    struct client *client;
    uint64_t lines; /* with this batch so many of the client's lines are dealt with */
    unsigned n;
    struct record records[BATCH_LINES];
};

/* What the records of one key came to. */
struct row {
    char key[KEY_BYTES];
    uint64_t count;
    double sum, min, max;
};

/* The records of a stretch of time, by key. */
struct window {
    uint64_t records;
    reeve_time closes;
    unsigned nrows, nfiled;
    struct row rows[ROWS_MAX];
    struct {
        struct client *client;
        uint64_t lines;
    } filed[FILED_MAX]; /* whom to tell when it is in the file, and what */
    uint16_t index[2 * ROWS_MAX]; /* by a hash of the key: 1 + its row */
};

/* The lines that a window becomes; shared by the subscribers. */
struct text {
    atomic_uint refs;
    size_t len;
    char bytes[];
};

struct subscriber;

struct pipeline {
    /* options */
    const char *addr, *subscribe_addr, *out_path, *drop;
    unsigned workers, window_records, queue_max;
    int64_t every_ns, drain_ns;
    bool sync;

    int out;        /* -1: there is a log instead, because FILE is a regular file */
    reeve_log *log; /* the last stage's */
    int signals;
    reeve_chan *parsed, *kept; /* of struct batch */
    reeve_chan *windows;       /* of struct window * */
    reeve_chan *end;           /* of int: why to stop; 0: a signal */
    struct reeve_mutex hub;    /* guards what follows */
    struct subscriber *subscribers;
    bool hub_closed;
    atomic_llong read_until;   /* 0; or the end is near, and no client is read after that */

    /* counters, in the order of the stages */
    atomic_ullong clients, lines, malformed, copied;
    atomic_ullong filtered, records, windows_filed, rows, bytes, subscribed, dropped;
};

static inline void count(atomic_ullong *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* Memory, or the end of the program. */
void *need(size_t bytes);

/* ---- pipeline_clients.c */

int client_task(int fd, void *pipeline);

/* "KEY VALUE" into *ret. NULL, or what is wrong with it. */
const char *parse_line(const struct reeve_record *line, struct record *ret);

/* So many of the client's lines are in the file; or never will be. Gives the reference back, as
 * release does; NULL has none. */
void client_filed(struct client *c, uint64_t lines);
void client_failed(struct client *c);
void client_release(struct client *c);

/* ---- pipeline_stages.c */

int filter_task(void *pipeline);
int aggregate_task(void *pipeline);

/* ---- pipeline_file.c */

int file_task(void *pipeline);
void window_release(struct window *w);

/* ---- pipeline_subscribers.c */

int subscriber_task(int fd, void *pipeline);
void publish(struct pipeline *p, struct text *text);
void close_hub(struct pipeline *p);
void text_release(struct text *t);

#endif
