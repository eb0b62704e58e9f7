/* SPDX-License-Identifier: MIT */
/*
 * echo_load.h -- what the files of echo_load share.
 *
 *     echo_load.c          the command line, the threads, the report
 *     echo_load_loop.c     when requests begin: closed loop, open loop, the measured window
 *     echo_load_conn.c     a connection: opening, messages, sending, checking replies
 *     echo_load_meter.c    the server's CPU time
 *     echo_load_math.h     histogram, random numbers, schedule
 *     echo_load_test.c     --self-test
 */
#ifndef EXAMPLES_ECHO_LOAD_H
#define EXAMPLES_ECHO_LOAD_H

#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <time.h>

#include "echo_load_math.h"

#define SEC INT64_C(1000000000)

enum {
    THREADS_MAX = 64,
    EVENTS = 512,
    WINDOWS = 4096,          /* messages begin at so many offsets of the pattern */
    CHUNK = 256 << 10,       /* at most so much per recv */
    BLOCKING_MAX = 16 << 10, /* one connection with messages this small needs no epoll */
    SPIN_SIZE_MAX = 4096,    /* messages that carry a spin time are put together one by one */
    SPIN_HEADER = 4,         /* microseconds, the lowest byte first */
    TICK_MS = 100,           /* how long a silent server may delay the look at the clock */
};

struct config {
    const char *addr;
    int64_t conns, size, threads, idle, pid;
    double seconds, warmup;
    double rate; /* requests per second, all connections together; 0: closed loop */
    bool poisson;
    int64_t seed, queue, spin_us;
    double spin_share;
    bool spin_even;
    int64_t nice; /* NICE_AS_IS: not to be changed */
    int cpus[THREADS_MAX];
    int cpus_n;
    bool json, histogram;
};

enum { NICE_AS_IS = 100 };

struct request {
    int64_t begun;    /* when, or in an open loop when it was due */
    uint32_t spin_us; /* what it asks the server for */
};

/*
 * Messages are numbered: made <= as scheduled or in closed loop begun, sent <= out, got <= back.
 * got <= sent <= made, made - got <= depth. The one that is partly out is number `sent`, the one
 * that is partly back is number `got`.
 */
struct conn {
    int fd; /* -1: failed */
    uint32_t id;
    uint32_t made, sent, got;
    uint32_t sent_bytes, got_bytes;
    struct request *requests; /* number k is at [k % depth] */
};

struct loader {
    int index;
    pthread_t thread;
    int ep;
    bool blocking; /* one connection, small messages: recv waits, epoll is not needed */
    struct conn *conns;
    uint32_t conns_n, lost;
    uint64_t under_way;
    struct request *requests;   /* all connections' */
    uint32_t depth;             /* how many requests of a connection may be under way */
    struct conn *ready[EVENTS]; /* closed loop: their reply is in, the next request is due */
    int ready_n;
    struct schedule schedule; /* open loop */
    struct arrival next;
    struct share spins;
    int64_t origin; /* the clock when the schedule began */
    unsigned char *buf;
    size_t buf_bytes;
    unsigned char composed[SPIN_SIZE_MAX];
    uint64_t requests_all; /* warm-up and the last ones too */
    uint64_t dropped;      /* in the window, because the connection's queue was full or it failed */
    uint64_t errors;
    char first_error[160];
    int64_t measured_ns, cpu_ns;
    int64_t server_cpu_ns;             /* thread 0 */
    struct histogram latency, spun;    /* of plain requests, and of those that asked for a spin */
    struct histogram lag;              /* how much later than due a request was begun */
};

extern struct config config;
extern struct addrinfo *target;
extern unsigned char *pattern;
extern int64_t begin_ns, end_ns; /* of the measured window */
extern atomic_bool interrupted; /* by a signal, on whichever thread it came */

_Noreturn void die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static inline int64_t clock_ns(clockid_t id)
{
    struct timespec ts;
    clock_gettime(id, &ts);
    return ts.tv_sec * SEC + ts.tv_nsec;
}

/* ---- echo_load_conn.c ---- */

void pattern_make(void);
/** A connected socket, blocking, with time limits. */
int connect_once(void);
void conn_open(struct loader *l, struct conn *c, uint32_t id);
/** Counts an error, closes the connection and gives up what was under way on it. */
void conn_fail(struct loader *l, struct conn *c, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/** Begins a request that counts from `at`; there must be room for it (made - got < depth). */
void request_begin(struct loader *l, struct conn *c, int64_t at);
/** Waits at most `ns` for something to happen, and takes in the replies that are there. */
void take_replies(struct loader *l, struct epoll_event *events, int64_t ns);
/** Holds a connection that has done one exchange, so that the server has really set it up. */
int idle_open(unsigned char *reply);

/* ---- echo_load_loop.c ---- */

/** A thread's life from its connections to the last reply; thread 0 calls it itself. */
void *loader_run(void *arg);
/** Before any thread starts. */
void loop_init(void);

/* ---- echo_load_meter.c ---- */

void meter_open(void);
/** What the server's threads have run, ns; only differences mean something. */
int64_t meter_read(void);
/** "perf" or "schedstat". */
const char *meter_name(void);

/* ---- echo_load_test.c ---- */

/** 0, or 1 and what is wrong on stderr. */
int self_test(void);

#endif
