/* SPDX-License-Identifier: MIT */
/*
 * sim_echo.h -- the scenario of an echo server and its clients.
 *
 * The server sends back what comes in, by one of three kinds of handlers. Each client knows every
 * byte that it must get. Some clients are closed, cancelled or vanish in the middle; in runs with
 * faults everybody may be disturbed, and what then arrived must still be a beginning of what was
 * sent. In runs without, an undisturbed client gets all of it, to the last byte.
 */
#ifndef TESTS_IO_SIM_ECHO_H
#define TESTS_IO_SIM_ECHO_H

#include "tests/io/sim_seeds.h"

#include <reeve/reeve.h>

#include "mem/fault.h"
#include "runtime/runtime.h"

#define CLIENTS 6
#define CONNS 64
#define PARCELS 4
#define FRAME_HEAD 4
#define FRAME_MOST 200

enum client_kind {
    CLIENT_BYTES,  /* one long stream */
    CLIENT_FRAMES, /* several tasks write to one socket: each call's bytes stay together */
    CLIENT_CLOSED, /* closed by another task while it reads and writes; of either kind before */
    CLIENT_GONE,   /* closes without having read */
};

struct echo;

struct client {
    struct echo *echo;
    int id, fd;
    enum client_kind kind;
    bool framed;
    uint32_t total, got;  /* bytes to write in all; read so far */
    int writers;
    bool started, skipped, over;
    bool broken;          /* something failed: not everything will come back */
    bool closed;          /* fd is not its own any more */
    unsigned char frame[FRAME_HEAD + FRAME_MOST];
    uint32_t frame_got;
};

struct conn {
    struct echo *echo;
    int id, fd;
};

struct echo {
    char addr[32];
    bool faulty;     /* calls fail, connections break */
    bool shaky;      /* tasks are cancelled */
    int listener;
    int clients;
    struct client client[CLIENTS];
    bool served;     /* by reeve_serve_with() */
    struct reeve *runtime;
    int handling, handling_most;       /* its handlers that run */
    unsigned conns_max;
    int conns;
    struct {
        bool started, skipped, over;
    } conn[CONNS];
    struct reeve_buf *parcel[PARCELS]; /* leases that somebody outside gives back */
    int to_close;                      /* a descriptor that somebody outside closes; 0: none */
    uint64_t compared;                 /* bytes */
};

static unsigned char echo_byte(int key, uint32_t i)
{
    return (unsigned char)((uint32_t)key * 37 + i * 11 + (i >> 8) * 3 + 1);
}

/* An error that net.h allows for, and none that the library has to deal with itself. */
static void check_error(const struct echo *e, ssize_t r, bool reading)
{
    CHECK_LT(r, 0);
    CHECK_NE(r, -EINTR);
    CHECK_NE(r, -EAGAIN);
    CHECK_NE(r, -EINVAL);
    if (reading)
        CHECK_NE(r, -ENOBUFS);
    if (!e->faulty)
        CHECK(r == -ECANCELED || r == -ETIMEDOUT || r == -EBADF || r == -ECONNRESET ||
              r == -EPIPE);
}

/* A pause, in which others do something. */
static void dawdle(void)
{
    switch (rv_sim_draw(8)) {
    case 0: reeve_sleep(0); break;
    case 1: reeve_sleep(reeve_in(rv_sim_draw(5000))); break;
    case 2: reeve_sleep(reeve_in(rv_sim_draw(3000000))); break;
    case 3: rv_sim_preempt(); break;
    default: break;
    }
}

/* ---- the server ------------------------------------------------------------------------------ */

/* A lease on its way through another task. */
struct errand {
    int fd;
    struct reeve_buf *buf;
};

static int run_errand(void *arg)
{
    const struct errand *a = arg;
    dawdle();
    return (int)reeve_buf_send(a->fd, a->buf, 0);
}

static void skip_errand(void *arg)
{
    reeve_buf_return(((const struct errand *)arg)->buf);
}

static ssize_t send_by_another(int fd, struct reeve_buf *buf)
{
    struct errand a = { fd, buf };
    reeve_task *t;
    int r = reeve_spawn(&t, run_errand, &a, .copy = sizeof a, .skipped = skip_errand);
    if (r < 0) {
        CHECK_EQ(r, -EAGAIN);
        reeve_buf_return(buf);
        return r;
    }
    int result, joined = reeve_join(t, &result, 0);
    return joined < 0 ? joined : result;
}

static ssize_t echo_leases(int fd, bool by_another)
{
    struct reeve_buf *b;
    ssize_t n;
    while ((n = reeve_buf_recv(fd, &b, 0)) > 0) {
        CHECK_EQ(n, b->len);
        dawdle();
        n = by_another ? send_by_another(fd, b) : reeve_buf_send(fd, b, 0);
        if (n < 0)
            break;
    }
    return n;
}

static ssize_t echo_copies(int fd)
{
    unsigned char bytes[300];
    size_t most = 1 + rv_sim_draw(sizeof bytes);
    ssize_t n;
    while ((n = reeve_read(fd, bytes, most, 0)) > 0) {
        ssize_t sent = reeve_write(fd, bytes, (size_t)n, 0);
        if (sent < 0)
            return sent;
        CHECK_EQ(sent, n);
    }
    return n;
}

static int handle(void *arg)
{
    const struct conn *c = arg;
    struct echo *e = c->echo;
    CHECK(!e->conn[c->id].started && !e->conn[c->id].skipped);
    e->conn[c->id].started = true;
    uint32_t how = rv_sim_draw(3);
    ssize_t r = how == 0 ? echo_copies(c->fd) : echo_leases(c->fd, how == 1);
    if (r < 0 && r != -EAGAIN) /* which a spawn may say */
        check_error(e, r, false);
    CHECK_EQ(reeve_close(c->fd), 0);
    e->conn[c->id].over = true;
    rv_sim_note((uint64_t)c->id, r);
    return 0;
}

static void handle_not(void *arg)
{
    const struct conn *c = arg;
    CHECK(!c->echo->conn[c->id].started && !c->echo->conn[c->id].skipped);
    c->echo->conn[c->id].skipped = true;
    CHECK_EQ(reeve_close(c->fd), 0);
}

static int accept_conns(void *arg)
{
    struct echo *e = arg;
    for (;;) {
        int fd = reeve_accept(e->listener, rv_sim_chance(100) ? reeve_in(rv_sim_draw(2000000)) : 0);
        if (fd == -ETIMEDOUT)
            continue;
        if (fd < 0) {
            CHECK(e->faulty || fd == -ECANCELED);
            CHECK(fd != -ECONNABORTED && fd != -EINTR);
            if (reeve_sleep(reeve_in(REEVE_MS)) < 0)
                return 0;
            continue;
        }
        struct conn c = { e, e->conns, fd };
        if (e->conns == CONNS || reeve_go(handle, &c, .copy = sizeof c, .skipped = handle_not) < 0)
            CHECK_EQ(reeve_close(fd), 0);
        else
            e->conns++;
    }
}

/* One task that accepts, or two from one listener. */
static int serve(void *arg)
{
    struct echo *e = arg;
    reeve_group second = { 0 };
    int l;
    while ((l = reeve_listen(e->addr, 1 + (int)rv_sim_draw(4))) < 0) {
        CHECK(e->faulty && (l == -EMFILE || l == -ENFILE));
        if (reeve_sleep(reeve_in(REEVE_MS)) < 0)
            return 0;
    }
    e->listener = l;
    if (rv_sim_chance(512))
        CHECK_EQ(reeve_go(accept_conns, e, .group = &second), 0);
    accept_conns(e);
    int r = reeve_group_wait(&second, 0);
    CHECK(r == 0 || r == -ECANCELED);
    CHECK_EQ(reeve_close(l), 0);
    return 0;
}

/* ---- the same in one call -------------------------------------------------------------------- */

static int handle_served(int fd, void *ctx)
{
    struct echo *e = ctx;
    e->handling++;
    e->handling_most = e->handling > e->handling_most ? e->handling : e->handling_most;
    if (e->conns_max)
        CHECK_LE(e->handling, e->conns_max);
    uint32_t how = rv_sim_draw(3);
    ssize_t r = how == 0 ? echo_copies(fd) : echo_leases(fd, how == 1);
    if (r < 0 && r != -EAGAIN && r != -ESHUTDOWN)
        check_error(e, r, false);
    e->handling--;
    return (int)r;
}

static void listening(int fd, void *ctx)
{
    ((struct echo *)ctx)->listener = fd;
}

static int serve_in_one_call(void *arg)
{
    struct echo *e = arg;
    int64_t idle[] = { 0, 0, 1 + rv_sim_draw(5000000) };
    int64_t drain[] = { 0, -1, 1 + rv_sim_draw(5000000) };
    struct reeve_serve how = {
        .addr = e->addr, .handler = handle_served, .ctx = e, .listening = listening,
        .backlog = 1 + (int)rv_sim_draw(4), .conns_max = e->conns_max ? e->conns_max : 4000,
        .idle_ns = e->shaky ? idle[rv_sim_draw(3)] : 0, .drain_ns = drain[rv_sim_draw(3)],
    };
    bool limited = e->shaky && rv_sim_chance(256);
    for (;;) {
        int r = reeve_serve_with(&how, limited ? reeve_in(rv_sim_draw(20000000)) : 0);
        CHECK_EQ(e->handling, 0);
        if (e->listener)
            return r;
        CHECK(e->faulty && (r == -EMFILE || r == -ENFILE));
        if (reeve_sleep(reeve_in(REEVE_MS)) < 0)
            return 0;
    }
}

/* Somebody asks for an orderly end, or cancels. */
static int end_serving(struct echo *e, reeve_task *server)
{
    int result, drains = e->served && rv_sim_chance(512);
    if (drains) {
        pthread_mutex_lock(&e->runtime->lock);
        rv_servers_drain(e->runtime);
        pthread_mutex_unlock(&e->runtime->lock);
    } else {
        reeve_cancel(server);
    }
    CHECK_EQ(reeve_join(server, &result, 0), 0);
    return result;
}

/* As much of a runtime as serve looks at. */
static struct reeve *make_runtime(unsigned workers)
{
    struct reeve *rt = aligned_alloc(RV_CACHE_LINE, (sizeof *rt + 63) / 64 * 64);
    CHECK(rt);
    memset(rt, 0, sizeof *rt);
    rt->threads = calloc(workers, sizeof *rt->threads);
    CHECK(rt->threads);
    CHECK_EQ(pthread_mutex_init(&rt->lock, NULL), 0);
    return rt;
}

static void free_runtime(struct reeve *rt)
{
    CHECK_EQ(rv_load_relaxed(&rt->conns_live), 0);
    CHECK(rt->servers == NULL);
    pthread_mutex_destroy(&rt->lock);
    free(rt->threads);
    free(rt);
}

/* ---- clients: writing ------------------------------------------------------------------------ */

/* In one call, or by way of a lease. */
static ssize_t write_some(struct client *c, const unsigned char *bytes, size_t n)
{
    if (rv_sim_chance(700))
        return reeve_write(c->fd, bytes, n, 0);
    struct reeve_buf *b;
    int r = reeve_buf_borrow(&b, 0);
    if (r < 0)
        return r;
    CHECK_EQ(b->len, 0);
    CHECK_LE(n, b->cap);
    memcpy(b->data, bytes, n);
    b->len = n;
    if (c->closed) { /* while this waited */
        reeve_buf_return(b);
        return -ECANCELED;
    }
    return reeve_buf_send(c->fd, b, 0);
}

static bool wrote(struct client *c, ssize_t r, size_t n)
{
    if (r == (ssize_t)n)
        return true;
    check_error(c->echo, r, false);
    c->broken = true;
    return false;
}

static int write_bytes(void *arg)
{
    struct client *c = arg;
    unsigned char bytes[256];
    for (uint32_t at = 0; at < c->total && !c->closed;) {
        uint32_t n = 1 + rv_sim_draw(sizeof bytes);
        n = n < c->total - at ? n : c->total - at;
        for (uint32_t i = 0; i < n; i++)
            bytes[i] = echo_byte(c->id, at + i);
        if (!wrote(c, write_some(c, bytes, n), n))
            break;
        at += n;
        dawdle();
    }
    if (!c->closed)
        rv_io_driver_sim.shutdown(c->fd, SHUT_WR);
    return 0;
}

/*     | writer | number | length, 2 bytes | bytes ...     */
static int write_frames(void *arg)
{
    struct client *c = arg;
    unsigned char frame[FRAME_HEAD + FRAME_MOST];
    int frames = (int)(c->total / FRAME_MOST);
    for (int i = 0; i < frames && !c->closed && !c->broken; i++) {
        uint32_t n = 1 + rv_sim_draw(FRAME_MOST);
        int key = (int)rv_sim_draw(256);
        frame[0] = (unsigned char)key;
        frame[1] = (unsigned char)i;
        frame[2] = (unsigned char)n;
        frame[3] = (unsigned char)(n >> 8);
        for (uint32_t k = 0; k < n; k++)
            frame[FRAME_HEAD + k] = echo_byte(key + i, k);
        if (!wrote(c, write_some(c, frame, FRAME_HEAD + n), FRAME_HEAD + n))
            break;
        dawdle();
    }
    if (--c->writers == 0 && !c->closed)
        rv_io_driver_sim.shutdown(c->fd, SHUT_WR);
    return 0;
}

/* ---- clients: reading ------------------------------------------------------------------------ */

static void check_frame_byte(struct client *c, unsigned char byte)
{
    unsigned char *f = c->frame;
    f[c->frame_got++] = byte;
    if (c->frame_got < FRAME_HEAD)
        return;
    uint32_t n = f[2] + (uint32_t)f[3] * 256;
    CHECK(n >= 1 && n <= FRAME_MOST);
    if (c->frame_got > FRAME_HEAD)
        CHECK_EQ(byte, echo_byte(f[0] + f[1], c->frame_got - FRAME_HEAD - 1));
    if (c->frame_got == FRAME_HEAD + n)
        c->frame_got = 0;
}

/* What came back is what was sent. Once a writer has failed, frames may be torn. */
static void check_bytes_of(struct client *c, const unsigned char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++, c->got++)
        if (!c->framed)
            CHECK_EQ(bytes[i], echo_byte(c->id, c->got));
        else if (!c->broken)
            check_frame_byte(c, bytes[i]);
    c->echo->compared += n;
}

static void give_back(struct echo *e, struct reeve_buf *b)
{
    uint32_t where = rv_sim_draw(2 * PARCELS);
    if (where < PARCELS && !e->parcel[where])
        e->parcel[where] = b;
    else
        reeve_buf_return(b);
}

static ssize_t read_some(struct client *c, reeve_time until)
{
    unsigned char bytes[300];
    struct reeve_buf *b;
    ssize_t n;
    if (rv_sim_chance(512)) {
        n = reeve_read(c->fd, bytes, 1 + rv_sim_draw(rv_sim_chance(512) ? 8 : sizeof bytes), until);
        if (n > 0)
            check_bytes_of(c, bytes, (size_t)n);
        return n;
    }
    n = reeve_buf_recv(c->fd, &b, until);
    if (n > 0) {
        if (rv_sim_chance(100))
            dawdle();
        check_bytes_of(c, b->data, (size_t)n);
        give_back(c->echo, b);
    }
    return n;
}

static void read_back(struct client *c)
{
    while (!c->closed) {
        reeve_time until = rv_sim_chance(800) ? 0
                           : rv_sim_chance(512) ? REEVE_POLL
                                                : reeve_in(rv_sim_draw(200000));
        ssize_t n = read_some(c, until);
        if (n == 0)
            return;
        if (n == -ETIMEDOUT && until != 0) {
            if (until > 0)
                CHECK_GE(reeve_now(), until);
            if (reeve_sleep(reeve_in(1000)) < 0)
                return;
        } else if (n < 0) {
            check_error(c->echo, n, true);
            c->broken = true;
            return;
        }
    }
}

/* ---- clients: from dial to close ------------------------------------------------------------- */

static int close_it(void *arg)
{
    struct client *c = arg;
    reeve_sleep(reeve_in(rv_sim_draw(3000000)));
    c->closed = true;
    CHECK_EQ(reeve_close(c->fd), 0);
    return 0;
}

static void close_client(struct client *c)
{
    struct echo *e = c->echo;
    if (c->closed)
        return;
    c->closed = true;
    if (!e->to_close && rv_sim_chance(256))
        e->to_close = c->fd;
    else
        CHECK_EQ(reeve_close(c->fd), 0);
}

static int dial(struct client *c)
{
    struct echo *e = c->echo;
    for (int tries = 0; tries < 5; tries++) {
        int fd = reeve_dial(e->addr, rv_sim_chance(200) ? reeve_in(rv_sim_draw(2000000)) : 0);
        if (fd >= 0)
            return fd;
        CHECK_NE(fd, -EINTR);
        CHECK(e->faulty || e->shaky || fd == -ETIMEDOUT);
        if (reeve_sleep(reeve_in(REEVE_MS)) < 0)
            return fd;
    }
    return reeve_dial(e->addr, 0);
}

static int run_client(void *arg)
{
    struct client *c = arg;
    struct echo *e = c->echo;
    reeve_group writers = { 0 };
    CHECK(!c->started && !c->skipped);
    c->started = true;
    c->fd = dial(c);
    if (c->fd < 0) {
        CHECK(e->faulty || e->shaky);
        c->over = true;
        return 0;
    }
    c->writers = c->framed ? 1 + (int)rv_sim_draw(3) : 1;
    for (int i = c->writers; i > 0; i--)
        CHECK_EQ(reeve_go(c->framed ? write_frames : write_bytes, c, .group = &writers), 0);
    if (c->kind == CLIENT_CLOSED)
        CHECK_EQ(reeve_go(close_it, c, .group = &writers), 0);
    if (c->kind == CLIENT_GONE)
        reeve_sleep(reeve_in(rv_sim_draw(1000000)));
    else
        read_back(c);
    if (c->kind == CLIENT_GONE || c->broken)
        reeve_group_cancel(&writers);
    int r = reeve_group_wait(&writers, 0);
    CHECK(r == 0 || r == -ECANCELED);
    close_client(c);
    c->over = true;
    rv_sim_note((uint64_t)c->id, c->got);
    return 0;
}

static void skip_client(void *arg)
{
    struct client *c = arg;
    CHECK(!c->started && !c->skipped);
    c->skipped = true;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static void cancel_some(struct echo *e, reeve_task *const clients[])
{
    for (int i = 0; e->shaky && i < 3; i++) {
        reeve_sleep(reeve_in(rv_sim_draw(4000000)));
        reeve_cancel(clients[rv_sim_draw((uint32_t)e->clients)]);
    }
}

/* In builds with fault points: one of the next ops is not to be had. */
static void arm_faults(const struct echo *e)
{
    if (!e->faulty || !rv_fault_available() || rv_sim_chance(512))
        return;
    rv_fault_only("io.op");
    rv_fault_fail_nth(1 + rv_sim_draw(60));
}

/* Taken first: whoever is outside may come while the close is under way. */
static void close_left_over(struct echo *e)
{
    int fd = e->to_close;
    e->to_close = 0;
    if (fd)
        CHECK_EQ(reeve_close(fd), 0);
}

static int echo_root(void *arg)
{
    struct echo *e = arg;
    reeve_task *server, *clients[CLIENTS];
    arm_faults(e);
    CHECK_EQ(reeve_spawn(&server, e->served ? serve_in_one_call : serve, e), 0);
    while (!e->listener)
        CHECK_EQ(reeve_sleep(reeve_in(10000)), 0);
    for (int i = 0; i < e->clients; i++)
        CHECK_EQ(reeve_spawn(&clients[i], run_client, &e->client[i], .skipped = skip_client), 0);
    cancel_some(e, clients);
    bool early = e->shaky && rv_sim_chance(512);
    int served = early ? end_serving(e, server) : 0;
    for (int i = 0; i < e->clients; i++)
        CHECK_EQ(reeve_join(clients[i], NULL, 0), 0);
    if (!early)
        served = end_serving(e, server);
    if (!e->shaky && !e->faulty)
        CHECK(served == 0 || served == -ECANCELED); /* that one: a handler had no time to end */
    for (int i = 0; i < PARCELS; i++)
        reeve_buf_return(e->parcel[i]);
    memset(e->parcel, 0, sizeof e->parcel);
    close_left_over(e);
    return 0;
}

/* Somebody outside: gives leases back, closes. */
static void echo_foreign(void *arg)
{
    struct echo *e = arg;
    uint32_t which = rv_sim_draw(PARCELS);
    reeve_buf_return(e->parcel[which]);
    e->parcel[which] = NULL;
    close_left_over(e);
    if (rv_sim_chance(100))
        arm_faults(e);
}

static struct rv_sim_faults some_faults(uint64_t x)
{
    static const uint16_t rates[] = { 0, 4, 20, 60 };
    struct rv_sim_faults f = { 0 };
    uint16_t *rate = (uint16_t *)&f;
    for (size_t i = 0; i < sizeof f / sizeof *rate; i++, x /= 4)
        rate[i] = rates[x % 4];
    return f;
}

/* Who the clients are and what the run is like, by the seed. */
static void echo_plan(struct echo *e, uint64_t seed, struct rv_sim_opts *opts)
{
    static const uint32_t totals[] = { 0, 1, 100, 1000, 1000, 4000, 9000 };
    static const enum client_kind kinds[2][8] = {
        { CLIENT_BYTES, CLIENT_BYTES, CLIENT_BYTES, CLIENT_BYTES, CLIENT_FRAMES, CLIENT_FRAMES,
          CLIENT_CLOSED, CLIENT_GONE },
        { CLIENT_BYTES, CLIENT_BYTES, CLIENT_BYTES, CLIENT_FRAMES, CLIENT_CLOSED, CLIENT_CLOSED,
          CLIENT_CLOSED, CLIENT_GONE },
    };
    uint64_t x = seeds_mix(seed);
    snprintf(e->addr, sizeof e->addr, "%s:%d", seed % 5 ? "127.0.0.1" : "[::1]",
             7000 + (int)(seed % 100));
    e->clients = 1 + (int)(x % CLIENTS);
    for (int i = 0; i < e->clients; i++) {
        uint64_t y = seeds_mix(x + (uint64_t)i);
        enum client_kind kind = kinds[e->shaky][y % 8];
        e->client[i] = (struct client){
            .echo = e, .id = i, .kind = kind, .total = totals[y / 8 % 7],
            .framed = kind == CLIENT_FRAMES || (kind == CLIENT_CLOSED && y / 64 % 2),
        };
    }
    opts->bufs = 1024; /* both ends hold some while they wait for each other */
    opts->fds_max = e->faulty && x % 3 == 0 ? 6 : 0;
    opts->faults.shorter = (uint16_t)(x / 32 % 3 * 400);
    opts->faults.one_byte = (uint16_t)(x / 96 % 3 * 100);
    opts->fn = echo_root;
    opts->arg = e;
    opts->foreign = echo_foreign;
}

static void echo_check(const struct echo *e)
{
    for (int i = 0; i < e->conns; i++) {
        CHECK(e->conn[i].started != e->conn[i].skipped);
        CHECK_EQ(e->conn[i].started, e->conn[i].over);
    }
    for (int i = 0; i < e->clients; i++) {
        const struct client *c = &e->client[i];
        CHECK(c->started != c->skipped);
        CHECK_EQ(c->started, c->over);
        if (c->skipped)
            CHECK(e->shaky);
        if (e->faulty || e->shaky || c->kind > CLIENT_FRAMES)
            continue;
        CHECK(!c->broken);
        CHECK_EQ(c->frame_got, 0);
        if (c->kind == CLIENT_BYTES)
            CHECK_EQ(c->got, c->total);
    }
}

static void echo_simulate(uint64_t seed, struct rv_sim_opts *opts, struct rv_sim_result *ret,
                          bool served, bool faulty, bool shaky)
{
    static struct echo e;
    e = (struct echo){ .faulty = faulty, .shaky = shaky, .served = served };
    if (faulty)
        opts->faults = some_faults(seeds_mix(~seed));
    echo_plan(&e, seed, opts);
    if (served) {
        opts->workers = 1 + (unsigned)(seed % 4);
        e.conns_max = (unsigned)(seed % 3);
        e.runtime = make_runtime(opts->workers);
        opts->sched = &e.runtime->sched;
    }
    seeds_simulate(opts, ret);
    rv_fault_off();
    CHECK_EQ(ret->result, 0);
    echo_check(&e);
    if (served)
        free_runtime(e.runtime);
}

/* Nothing goes wrong: everybody gets everything. */
static void echo_run_quiet(uint64_t seed, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    echo_simulate(seed, opts, ret, false, false, false);
}

/* Tasks are cancelled, calls fail, connections break. */
static void echo_run_wild(uint64_t seed, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    echo_simulate(seed, opts, ret, false, seed % 4 != 0, seed % 4 != 1);
}

/* The server is reeve_serve_with(). */
static void serve_run_quiet(uint64_t seed, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    echo_simulate(seed, opts, ret, true, false, false);
}

static void serve_run_wild(uint64_t seed, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    echo_simulate(seed, opts, ret, true, seed % 4 != 0, seed % 4 != 1);
}

#endif
