/* SPDX-License-Identifier: MIT */
/*
 * echo_load_loop.c -- when requests begin: after the reply (closed loop), or when due (open loop).
 *
 * Closed loop: each connection sends a message, waits until exactly that message has come back,
 * sends the next. A stalled server also stalls the load, so the tail of the latency is that of a
 * client that waits its turn.
 *
 * Open loop (--rate): a schedule fixed beforehand says when each request is due and on which
 * connection, whatever the server does. Latency is counted from when it was due, so what a stall
 * delays counts with all of its delay, and nothing is omitted because the load was waiting too.
 *
 * (1) Closed: a pass takes in every reply that is there, then sends all the next requests. So the
 *     server meets bursts, as from many clients, and has one to work on while the load reads
 *     replies; taking turns one by one, the two would put each other to sleep and wake each other.
 *     The clock is read when a reply is in, and again just before the next request goes out.
 * (2) Open: a request whose predecessor on the connection is still unanswered is sent all the same:
 *     pipelined. If it were held back until that reply, the wait would count but not be the
 *     server's alone: it would add our own wake-up and another way through the socket, and hide
 *     from the server work that has arrived, so that it could not spread it, or batch it.
 * (3) Open: what is due while a connection has --queue requests under way is dropped and counted.
 *     offered = answered + dropped + lost with an error.
 * (4) A request counts if its reply came inside the measured window (closed), or if it was due
 *     there (open). At the end no request is begun; those under way have GRACE_NS to finish, or are
 *     errors.
 * (5) What the load itself delays counts as the server's latency. So it is measured (lag: how much
 *     later than due a request was begun) and kept small: timers without slack, and with --nice a
 *     short time slice, so that a load that wakes up is not made to wait for a busy server.
 *
 * Threads: each owns its epoll, its connections, its schedule and its histograms; thread 0 also
 * reads the server's CPU time at both ends of the window. They meet at two barriers, between which
 * thread 0 sets the window.
 */
#include "echo_load.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define GRACE_NS (5 * SEC)
#define TICK_NS (TICK_MS * INT64_C(1000000))

enum { SLICE_NS = 100000 };

int64_t begin_ns, end_ns; /* set by thread 0 between two barriers */
static pthread_barrier_t all_open;

void loop_init(void)
{
    pthread_barrier_init(&all_open, NULL, (unsigned)config.threads);
}

/* ---- the two loops --------------------------------------------------------------------------- */

static void closed_pass(struct loader *l, struct epoll_event *events)
{
    take_replies(l, events, TICK_NS);
    bool more = !interrupted && clock_ns(CLOCK_MONOTONIC) < end_ns;
    for (int i = 0; i < l->ready_n && more; i++)
        request_begin(l, l->ready[i], clock_ns(CLOCK_MONOTONIC));
    l->ready_n = 0;
}

static void closed_begin(struct loader *l)
{
    for (uint32_t i = 0; i < l->conns_n; i++)
        request_begin(l, &l->conns[i], clock_ns(CLOCK_MONOTONIC));
}

static void open_begin(struct loader *l)
{
    l->schedule = schedule_make(config.poisson, config.rate, (uint64_t)config.seed,
                                (uint32_t)l->index, (uint32_t)config.threads, l->conns_n,
                                (uint32_t)config.conns);
    l->origin = begin_ns - (int64_t)(config.warmup * 1e9);
    l->next = schedule_next(&l->schedule);
}

/* Begins what is due. Returns when something is to be done again: the next request, or the end. */
static int64_t open_due(struct loader *l, int64_t now)
{
    int64_t due;
    while ((due = l->origin + l->next.at_ns) <= now && due < end_ns) {
        struct conn *c = &l->conns[l->next.conn];
        bool counts = due >= begin_ns;
        if (c->fd < 0 || c->made - c->got >= l->depth) {
            l->dropped += counts;
        } else {
            if (counts)
                histogram_add(&l->lag, (uint64_t)(clock_ns(CLOCK_MONOTONIC) - due));
            request_begin(l, c, due);
        }
        l->next = schedule_next(&l->schedule);
    }
    if (due < end_ns)
        return due;
    return now < end_ns ? end_ns : INT64_MAX;
}

static void open_pass(struct loader *l, struct epoll_event *events)
{
    int64_t now = clock_ns(CLOCK_MONOTONIC);
    int64_t wait = (interrupted ? INT64_MAX : open_due(l, now)) - clock_ns(CLOCK_MONOTONIC);
    take_replies(l, events, wait < 0 ? 0 : wait < TICK_NS ? wait : TICK_NS);
}

static void pass(struct loader *l, struct epoll_event *events)
{
    if (config.rate > 0)
        open_pass(l, events);
    else
        closed_pass(l, events);
}

/* ---- a thread -------------------------------------------------------------------------------- */

static void pin(int index)
{
    if (!config.cpus_n)
        return;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(config.cpus[index % config.cpus_n], &set);
    if (sched_setaffinity(0, sizeof set, &set) < 0)
        die("cannot run on CPU %d: %s", config.cpus[index % config.cpus_n], strerror(errno));
}

/* What sched_setattr(2) takes; the headers of some systems clash over it. */
struct attr {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

/* See (5). A kernel before 6.12 ignores the slice. */
static void hurry(int index)
{
    prctl(PR_SET_TIMERSLACK, 1ul);
    if (config.nice == NICE_AS_IS)
        return;
    struct attr attr = {
        .size = sizeof attr, .policy = SCHED_OTHER,
        .nice = (int32_t)config.nice, .runtime = SLICE_NS,
    };
    if (syscall(SYS_sched_setattr, 0, &attr, 0) < 0 && index == 0)
        fprintf(stderr,
                "echo_load: cannot run at nice %" PRId64 ": %s; where the server keeps its CPU "
                "busy, latencies include our own waiting\n",
                config.nice, strerror(errno));
}

static void loader_open(struct loader *l)
{
    pin(l->index);
    hurry(l->index);
    l->ep = epoll_create1(EPOLL_CLOEXEC);
    bool large = config.size >= CHUNK || config.rate > 0;
    l->buf_bytes = (size_t)(large ? CHUNK : config.size) + 1;
    l->buf = malloc(l->buf_bytes);
    l->depth = config.rate > 0 ? (uint32_t)config.queue : 1;
    l->requests = calloc((size_t)l->conns_n * l->depth + 1, sizeof *l->requests);
    l->spins = share_make(config.spin_share, config.spin_even, (uint64_t)config.seed,
                          (uint32_t)l->index, (uint32_t)config.threads);
    if (l->ep < 0 || !l->buf || !l->requests)
        die("cannot set up a thread: %s", strerror(errno));
    l->blocking = config.rate == 0 && l->conns_n == 1 && config.size <= BLOCKING_MAX;
    for (uint32_t i = 0; i < l->conns_n; i++) {
        l->conns[i].requests = l->requests + (size_t)i * l->depth;
        conn_open(l, &l->conns[i], (uint32_t)l->index + i * (uint32_t)config.threads);
    }
}

/* Thread 0, once every thread has its connections. */
static void window_open(void)
{
    if (config.json) {
        printf("{\"event\":\"open\",\"conns\":%" PRId64 ",\"idle\":%" PRId64 "}\n", config.conns,
               config.idle);
        fflush(stdout);
    }
    begin_ns = clock_ns(CLOCK_MONOTONIC) + (int64_t)(config.warmup * 1e9);
    end_ns = begin_ns + (int64_t)(config.seconds * 1e9);
}

static void finish(struct loader *l, struct epoll_event *events, int64_t now)
{
    while (l->under_way && clock_ns(CLOCK_MONOTONIC) < now + GRACE_NS)
        pass(l, events);
    for (uint32_t i = 0; i < l->conns_n; i++)
        if (l->conns[i].made != l->conns[i].got)
            conn_fail(l, &l->conns[i], "a reply did not come");
}

static void measure(struct loader *l, struct epoll_event *events)
{
    int64_t now = clock_ns(CLOCK_MONOTONIC), from = now, cpu = 0;
    bool measuring = false, watch = l->index == 0 && config.pid;
    if (config.rate > 0 && l->conns_n)
        open_begin(l);
    else
        closed_begin(l);
    while (now < end_ns && !interrupted && (l->lost < l->conns_n || !l->conns_n)) {
        if (!measuring && now >= begin_ns) {
            measuring = true;
            from = now;
            cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID);
            l->server_cpu_ns = watch ? meter_read() : 0;
        }
        pass(l, events);
        now = clock_ns(CLOCK_MONOTONIC);
    }
    if (measuring) {
        l->server_cpu_ns = watch ? meter_read() - l->server_cpu_ns : 0;
        l->cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu;
        l->measured_ns = (now < end_ns ? now : end_ns) - from;
    }
    if (config.rate > 0 && l->conns_n && !interrupted)
        (void)open_due(l, end_ns - 1); /* what came due while this thread stood still: (3) */
    finish(l, events, now);
}

void *loader_run(void *arg)
{
    struct loader *l = arg;
    struct epoll_event events[EVENTS];
    loader_open(l);
    pthread_barrier_wait(&all_open);
    if (l->index == 0)
        window_open();
    pthread_barrier_wait(&all_open);
    measure(l, events);
    return NULL;
}
