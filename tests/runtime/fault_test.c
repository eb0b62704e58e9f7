/* SPDX-License-Identifier: MIT */
/*
 * fault_test.c -- a runtime from creation to destruction while something fails, and on kernels that
 * can less.
 *
 * The walk lets the n-th fault point fail, for every n until none is reached any more: each
 * allocation, mapping, thread, ring call, descriptor. Whatever happens then, there is no crash, no
 * hang (each wait would time out, which is no documented answer here), nothing leaks, what was
 * spawned was started or skipped once, and the errors are those of the manual.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include "mem/fault.h"
#include "runtime/runtime.h"
#include "tests/runtime/server.h"

/* ---- the scene ------------------------------------------------------------------------------- */

enum { CLIENTS = 3, BIG_COPY = 1000, ECHO_LEN = 3000 };

struct scene {
    RV_ATOMIC(int) port;    /* of its server; < 0: there is none, and why */
    RV_ATOMIC(int) spawned; /* tasks that were spawned or posted with success */
    RV_ATOMIC(int) ran, skipped;
    RV_ATOMIC(int) echoed; /* clients that came through */
    int result;            /* of the root task */
};

/* What may come out where something cannot be had, here or at the other end of a connection. */
static int documented(int r)
{
    static const int errors[] = { ENOMEM, EAGAIN,     EMFILE,       ENOBUFS,     ECANCELED,
                                  EPIPE,  ECONNRESET, ECONNREFUSED, ECONNABORTED };
    bool found = r >= 0;
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        found = found || r == -errors[i];
    if (!found)
        check_failed(__FILE__, __LINE__, "%d (%s) is not documented, after a failure of %s", r,
                     strerror(-r), rv_fault_last_name() ? rv_fault_last_name() : "nothing");
    return r;
}

static void listening(int fd, void *ctx)
{
    struct scene *s = ctx;
    struct sockaddr_in in;
    socklen_t len = sizeof in;
    CHECK_EQ(getsockname(fd, (struct sockaddr *)&in, &len), 0);
    rv_store_release(&s->port, (int)ntohs(in.sin_port));
}

static int serve_echo(int fd, void *ctx)
{
    (void)ctx;
    int r = echo_until_end(fd);
    return r == -ESHUTDOWN ? r : documented(r); /* the drain may come before the client's end */
}

static int serve_scene(void *arg)
{
    struct scene *s = arg;
    rv_add_acq_rel(&s->ran, 1);
    int r = documented(reeve_serve_with(
        &(struct reeve_serve){
            .addr = "127.0.0.1:0", .handler = serve_echo, .ctx = s, .listening = listening },
        0));
    rv_store_release(&s->port, r < 0 ? r : -ECANCELED);
    return r;
}

static void skip_server(void *arg)
{
    struct scene *s = arg;
    rv_add_acq_rel(&s->skipped, 1);
    rv_store_release(&s->port, -ENOMEM);
}

/* What each client gets a copy of; it is too large to lie in a descriptor. */
struct client {
    struct scene *scene;
    int port;
    char rest[BIG_COPY];
};

static ssize_t read_exactly(int fd, char *buf, size_t len)
{
    for (size_t at = 0; at < len;) {
        ssize_t n = reeve_read(fd, buf + at, len - at, LONG);
        if (n <= 0)
            return n < 0 ? n : -EPIPE;
        at += (size_t)n;
    }
    return 0;
}

static int write_and_read(int fd)
{
    char out[ECHO_LEN], back[ECHO_LEN];
    fill_pattern((unsigned char *)out, sizeof out, (uint64_t)fd);
    ssize_t r = reeve_write(fd, out, sizeof out, LONG);
    if (r >= 0)
        r = read_exactly(fd, back, sizeof back);
    if (r >= 0)
        CHECK_MEM_EQ(out, back, sizeof out);
    return (int)r;
}

static int send_and_receive(int fd)
{
    struct reeve_buf *buf;
    int r = reeve_buf_borrow(&buf, LONG);
    if (r < 0)
        return r;
    memcpy(buf->data, "buffer", buf->len = 6);
    ssize_t n = reeve_buf_send(fd, buf, LONG);
    if (n >= 0)
        n = reeve_buf_recv(fd, &buf, LONG);
    if (n > 0)
        reeve_buf_return(buf);
    return n == 0 ? -EPIPE : (int)n;
}

static int client(void *arg)
{
    struct client *c = arg;
    char addr[32];
    rv_add_acq_rel(&c->scene->ran, 1);
    for (int i = 0; i < BIG_COPY; i++)
        CHECK_EQ(c->rest[i], (char)i);
    snprintf(addr, sizeof addr, "127.0.0.1:%d", c->port);
    int fd = reeve_dial(addr, LONG);
    if (fd < 0)
        return documented(fd);
    int r = write_and_read(fd);
    if (r >= 0)
        r = documented(reeve_sleep(reeve_in(REEVE_US)));
    if (r >= 0)
        r = send_and_receive(fd);
    CHECK_EQ(reeve_close(fd), 0);
    rv_add_acq_rel(&c->scene->echoed, r >= 0);
    return documented(r);
}

static void skip_client(void *arg)
{
    rv_add_acq_rel(&((struct client *)arg)->scene->skipped, 1);
}

static int clients(struct scene *s, int port)
{
    reeve_group g = { 0 };
    struct client c = { .scene = s, .port = port };
    for (int i = 0; i < BIG_COPY; i++)
        c.rest[i] = (char)i;
    for (int i = 0; i < CLIENTS; i++) {
        int r =
            documented(reeve_go(client, &c, .copy = sizeof c, .group = &g, .skipped = skip_client));
        rv_add_acq_rel(&s->spawned, r == 0);
    }
    return documented(reeve_group_wait(&g, 0));
}

/* A server and its clients, all of them tasks of one runtime. */
static int play(void *arg)
{
    struct scene *s = arg;
    reeve_task *server;
    int port, r = reeve_spawn(&server, serve_scene, s, .skipped = skip_server);
    if (r < 0)
        return s->result = documented(r);
    rv_add_acq_rel(&s->spawned, 1);
    while ((port = rv_load_acquire(&s->port)) == 0)
        CHECK_EQ(reeve_sleep(0), 0);
    r = port > 0 ? clients(s, port) : port;
    reeve_cancel(server);
    CHECK_EQ(reeve_join(server, NULL, LONG), 0);
    return s->result = r;
}

static int be_posted(void *arg)
{
    rv_add_acq_rel(&((struct scene *)arg)->ran, 1);
    return 0;
}

static void be_skipped(void *arg)
{
    rv_add_acq_rel(&((struct scene *)arg)->skipped, 1);
}

/* The whole life of a runtime of the program's own. */
static struct scene live_by_create(void)
{
    struct scene s = { 0 };
    reeve *rt;
    int r = documented(reeve_create(
        &rt, &(struct reeve_opts){ .workers = 2, .tasks_max = 100, .bufs = 8, .buf_bytes = 1024 }));
    s.result = r;
    if (r < 0)
        return s;
    r = documented(
        reeve_post(rt, &(struct reeve_spawn){ .fn = be_posted, .arg = &s, .skipped = be_skipped }));
    rv_add_acq_rel(&s.spawned, r == 0);
    r = reeve_call(rt, play, &s, 0);
    s.result = documented(r);
    r = reeve_shutdown(rt, 0);
    CHECK_EQ(r, 0);
    reeve_destroy(rt);
    return s;
}

/* The same by reeve_run, whose start-up errors come before the root has run. */
static struct scene live_by_run(void)
{
    struct scene s = { .result = INT_MAX };
    int r = reeve_run(play, &s, .workers = 2, .tasks_max = 100, .bufs = 8, .buf_bytes = 1024);
    documented(r);
    if (s.result == INT_MAX) /* it has not run */
        CHECK_LT(r, 0);
    else
        CHECK_EQ(r, s.result);
    s.result = r;
    return s;
}

/* ---- the walk -------------------------------------------------------------------------------- */

static void check_scene(const struct scene *s, bool failed)
{
    CHECK_EQ(s->ran + s->skipped, s->spawned);
    if (failed)
        return;
    CHECK_OK(s->result);
    CHECK_EQ(s->echoed, CLIENTS);
    CHECK_EQ(s->skipped, 0);
}

/* Each point whose name starts so fails once. Sanitized builds look at every few only, beginning
 * with another one each time. */
static void walk(const char *start, struct scene (*live)(void))
{
    if (!rv_fault_available())
        SKIP("built without fault points");
    uring_or_skip();
    struct scene s = live();
    check_scene(&s, false);
    s = live();
    struct census was = census_take(), is;
    static unsigned walks;
    uint64_t failures = 0, step = SLOWER > 1 ? SLOWER / 2 : 1, n = 1 + walks++ % step;
    for (bool failed = true; failed; n += step) {
        rv_fault_only(start);
        rv_fault_fail_nth(n);
        s = live();
        const char *name = rv_fault_last_name();
        failed = name != NULL;
        rv_fault_off();
        failures += failed;
        check_scene(&s, failed);
        census_compare(&was);
    }
    is = census_take();
    CHECK_LE(is.maps, was.maps + 40 * SLOWER); /* an allocator's own */
    CHECK_LE(is.mapped_kib, was.mapped_kib + 256 * 1024);
    CHECK_GT(failures, 0);
}

TEST(a_life_survives_each_failure_of_memory)
{
    walk("alloc", live_by_create);
}

TEST(a_life_survives_each_failure_of_a_mapping)
{
    walk("map.", live_by_create);
}

TEST(a_life_survives_each_failure_of_a_thread)
{
    walk("thread.", live_by_create);
}

TEST(a_life_survives_each_failure_to_get_a_descriptor)
{
    walk("task.take", live_by_create);
}

TEST(a_life_survives_each_failure_to_get_a_stack)
{
    walk("stack.", live_by_create);
}

TEST(a_life_survives_each_failure_to_get_an_operation)
{
    walk("io.op", live_by_create);
}

TEST(a_life_survives_each_failure_to_make_a_ring)
{
    walk("ring.setup", live_by_create);
    walk("ring.mmap", live_by_create);
    walk("ring.register", live_by_create);
}

TEST(a_life_survives_each_failure_to_enter_or_wake_a_ring)
{
    walk("ring.enter", live_by_create);
    walk("ring.msg", live_by_create);
}

/* Two workers do not do things in the same order each time, so the n-th is not always the same. */
TEST(a_life_survives_each_failure_of_anything)
{
    for (unsigned i = 0; i < times(10) + 1; i++)
        walk(NULL, live_by_create);
}

TEST(a_run_survives_each_failure_of_anything)
{
    for (unsigned i = 0; i < times(10) + 1; i++)
        walk(NULL, live_by_run);
}

/* ---- kernels that can less ------------------------------------------------------------------- */

static const char *const optional[] = {
    "defer_taskrun", "single_issuer",      "taskrun_flag",     "coop_taskrun",
    "submit_all",    "registered_ring_fd", "no_iowait",        "abs_timer",
    "optlen",        "recv_optlen",        "accept_multishot", "send_msg_ring",
    "clone_buffers", "min_timeout",        "recvsend_bundle",  "send_zc",
    "waitid",        "ftruncate",          "guard_install",    "rwf_nosignal",
};
enum { OPTIONAL = sizeof optional / sizeof *optional };

static void live_without(const char *off)
{
    CHECK_EQ(setenv("REEVE_CAPS_OFF", off, 1), 0);
    struct scene s = live_by_create();
    check_scene(&s, false);
    s = live_by_run();
    check_scene(&s, false);
}

TEST(all_works_without_any_one_of_the_optional_capabilities)
{
    uring_or_skip();
    for (int i = 0; i < OPTIONAL; i++)
        live_without(optional[i]);
}

TEST(all_works_with_nothing_but_what_is_required)
{
    uring_or_skip();
    char all[512] = "";
    for (int i = 0; i < OPTIONAL; i++) {
        strcat(all, i ? "," : "");
        strcat(all, optional[i]);
    }
    live_without(all);
    struct rv_caps caps;
    CHECK_EQ(rv_caps_probe(&caps, NULL), 0);
    CHECK(!caps.defer_taskrun && !caps.coop_taskrun && !caps.single_issuer && !caps.submit_all);
    CHECK(!caps.registered_ring_fd && !caps.no_iowait && !caps.abs_timer && !caps.recv_optlen);
    CHECK(!caps.accept_multishot && !caps.send_msg_ring && !caps.guard_install);
    for (unsigned i = 0; i < times(20); i++)
        live_without(all);
}

/* Many echoes between many tasks, two workers, and the caller's thread. */
TEST(a_busy_server_works_with_nothing_but_what_is_required)
{
    enum { PEERS = 20, ROUNDS = 50 };
    CHECK_EQ(setenv("REEVE_CAPS_OFF",
                    "defer_taskrun,coop_taskrun,taskrun_flag,single_issuer,submit_all,abs_timer,"
                    "registered_ring_fd,no_iowait,optlen,accept_multishot,send_msg_ring,"
                    "guard_install,rwf_nosignal",
                    1),
             0);
    struct server sv = { .how.handler = echo };
    server_start(&sv, 2);
    static char out[ROUNDS * 80];
    fill_pattern((unsigned char *)out, sizeof out, 1);
    int fd[PEERS];
    for (int i = 0; i < PEERS; i++)
        fd[i] = peer_connect(sv.port);
    for (int round = 1; round <= ROUNDS; round++)
        for (int i = 0; i < PEERS; i++)
            peer_echo(fd[i], out, (size_t)round * 80);
    for (int i = 0; i < PEERS; i++)
        close(fd[i]);
    CHECK_EQ(server_stop(&sv), 0);
    server_end(&sv);
}

static int must_not_run(void *arg)
{
    (void)arg;
    check_failed(__FILE__, __LINE__, "ran without what it cannot do without");
}

TEST(without_what_is_required_nothing_starts)
{
    uring_or_skip();
    static const char *const required[] = { "buf_ring", "recv_multishot" };
    for (int i = 0; i < 2; i++) {
        reeve *rt;
        CHECK_EQ(setenv("REEVE_CAPS_OFF", required[i], 1), 0);
        CHECK_EQ(reeve_run(must_not_run, NULL), -EOPNOTSUPP);
        CHECK_EQ(reeve_create(&rt, NULL), -EOPNOTSUPP);
    }
    CHECK_EQ(setenv("REEVE_CAPS_OFF", "io_uring", 1), 0);
    CHECK_EQ(reeve_run(must_not_run, NULL), -ENOSYS);
}
