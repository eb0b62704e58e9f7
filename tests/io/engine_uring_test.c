/* SPDX-License-Identifier: MIT */
/*
 * engine_uring_test.c -- the engine as its worker sees it: waking, reaping, ending, and what it
 * does without the things that older kernels lack.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <linux/magic.h>
#include <reeve/file.h>
#include <sys/eventfd.h>
#include <sys/vfs.h>

#include "io/ring.h"
#include "tests/io/pair.h"
#include "tests/io/scratch.h"


/* ---- waking ---------------------------------------------------------------------------------- */

static int answer(void *arg)
{
    return (int)(intptr_t)arg;
}

static void call_often(unsigned workers)
{
    reeve *rt;
    uring_or_skip();
    CHECK_EQ(reeve_create(&rt, &(struct reeve_opts){ .workers = workers }), 0);
    for (int i = 0; i < 300; i++)
        CHECK_EQ(reeve_call(rt, answer, (void *)(intptr_t)i, LONG), i);
    CHECK_EQ(reeve_shutdown(rt, LONG), 0);
    reeve_destroy(rt);
}

TEST(a_sleeping_worker_is_woken_from_outside)
{
    call_often(1);
    call_often(2);
}

TEST(a_sleeping_worker_is_woken_through_its_eventfd_too)
{
    setenv("REEVE_CAPS_OFF", "send_msg_ring", 1);
    call_often(1);
    call_often(2);
}

/* ---- kernels that lack something ------------------------------------------------------------- */

static int echo_once(void *arg)
{
    struct pair *p = arg;
    struct reeve_buf *b = NULL;
    for (int i = 0; i < 50; i++) {
        ssize_t n = reeve_buf_recv(p->fd, &b, LONG);
        CHECK_EQ(n, 4);
        CHECK_EQ(reeve_buf_send(p->fd, b, LONG), 4);
    }
    return 0;
}

static int echo(void *arg)
{
    (void)arg;
    enum { PAIRS = 8 };
    struct pair p[PAIRS];
    struct reeve_group g = { 0 };
    for (int i = 0; i < PAIRS; i++) {
        p[i] = pair_make();
        CHECK_EQ(reeve_spawn(NULL, echo_once, &p[i], .group = &g), 0);
    }
    for (int r = 0; r < 50; r++) {
        char buf[8];
        for (int i = 0; i < PAIRS; i++)
            peer_send(p[i].peer, "echo", 4);
        for (int i = 0; i < PAIRS; i++) {
            while (recv(p[i].peer, buf, sizeof buf, MSG_DONTWAIT) != 4)
                CHECK_EQ(reeve_sleep(0), 0);
            CHECK_MEM_EQ(buf, "echo", 4);
        }
    }
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    for (int i = 0; i < PAIRS; i++)
        pair_close(&p[i]);
    return 0;
}

#define OLD_KERNEL                                                                                 \
    "defer_taskrun,coop_taskrun,taskrun_flag,single_issuer,submit_all,registered_ring_fd,"         \
    "no_iowait,abs_timer,send_msg_ring,optlen,accept_multishot,rwf_nosignal,guard_install"

TEST(what_a_kernel_lacks_costs_time_and_nothing_else)
{
    static const char *const lacking[] = {
        "",
        "defer_taskrun",
        "defer_taskrun,coop_taskrun",
        "taskrun_flag",
        "single_issuer",
        "submit_all",
        "registered_ring_fd",
        "no_iowait",
        "abs_timer",
        "send_msg_ring",
        "optlen",
        "accept_multishot",
        OLD_KERNEL,
    };
    for (size_t i = 0; i < sizeof lacking / sizeof *lacking; i++) {
        setenv("REEVE_CAPS_OFF", lacking[i], 1);
        RUN(echo, .workers = 1);
        RUN(echo, .workers = 2);
    }
}

/* ---- reaping --------------------------------------------------------------------------------- */

static int few_enters(void *arg)
{
    CHECK_EQ(echo(arg), 0);
    struct rv_sched *s = my_io()->io->sched;
    uint64_t passes = 0, parks = 0;
    for (uint32_t i = 0; i < s->nworkers; i++) {
        passes += rv_load_relaxed(&s->workers[i]->n.passes);
        parks += rv_load_relaxed(&s->workers[i]->n.parks);
    }
    /* One for each pass, one for each sleep; again only to fetch what one enter left over. */
    CHECK_LE(COUNTER(enters), passes + parks + COUNTER(cqes) / 20);
    CHECK_GE(COUNTER(sqes), 400);
    return 0;
}

TEST(the_kernel_is_entered_once_a_pass)
{
    RUN(few_enters, .workers = 1);
}

enum { FLOOD = 5000 }; /* more than a completion queue holds */

static int count_down(void *arg)
{
    uint64_t value;
    CHECK_EQ(reeve_read(*(int *)arg, &value, sizeof value, 0), 8); /* a sanitizer takes its time */
    return 0;
}

static int overflow(void *arg)
{
    (void)arg;
    static int fds[FLOOD];
    struct rlimit lim;
    struct reeve_group g = { 0 };
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &lim), 0);
    lim.rlim_cur = lim.rlim_max;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &lim), 0);
    if (lim.rlim_max < FLOOD + 100)
        SKIP("too few descriptors are allowed here");
    for (int i = 0; i < FLOOD; i++) {
        fds[i] = (int)CHECK_OK(eventfd(0, EFD_CLOEXEC));
        CHECK_EQ(reeve_spawn(NULL, count_down, &fds[i], .group = &g), 0);
    }
    while (COUNTER(sqes) < FLOOD)
        CHECK_EQ(reeve_sleep(0), 0);
    const uint64_t one = 1;
    for (int i = 0; i < FLOOD; i++) /* without task switches: all complete inside these calls */
        CHECK_EQ(write(fds[i], &one, sizeof one), 8);
    CHECK_EQ(reeve_group_wait(&g, 0), 0);
    CHECK_GE(COUNTER(overflows), 1);
    for (int i = 0; i < FLOOD; i++)
        close(fds[i]);
    return 0;
}

/* ---- feeding a disk -------------------------------------------------------------------------- */

enum { READERS = 32, PAGE = 4096, PAGES = 64 };

struct readers {
    int fd, reads; /* of each */
    uint64_t sqes, passes; /* of the one worker, when a reader began that was the pass's first */
    bool look, fed;
};

static uint64_t passes(void)
{
    return rv_load_relaxed(&my_io()->w->n.passes);
}

/* Requests have gone out since another reader of the same pass looked. */
static void look_whether_fed(struct readers *r)
{
    if (r->passes == passes())
        r->fed |= COUNTER(sqes) > r->sqes;
    r->passes = passes();
    r->sqes = COUNTER(sqes);
}

static int read_pages(void *arg)
{
    struct readers *r = arg;
    struct reeve_buf *b = NULL;
    unsigned seed = 1;
    CHECK_EQ(reeve_buf_borrow_aligned(&b, PAGE, LONG), 0);
    for (int i = 0; i < r->reads; i++) {
        uint64_t at = (uint64_t)rand_r(&seed) % PAGES * PAGE;
        if (r->look)
            look_whether_fed(r);
        CHECK_EQ(reeve_buf_pread(r->fd, b, at, LONG), PAGE);
        check_pattern(b->data, PAGE, at);
    }
    reeve_buf_return(b);
    return 0;
}

static void let_them_read(struct readers *r)
{
    struct reeve_group g = { 0 };
    for (int i = 0; i < READERS; i++)
        CHECK_EQ(reeve_spawn(NULL, read_pages, r, .group = &g), 0);
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
}

static struct readers open_pages(int flags)
{
    static unsigned char data[PAGES * PAGE];
    fill_pattern(data, sizeof data, 0);
    scratch_file(scratch("pages"), data, sizeof data);
    int fd = open(scratch("pages"), O_RDONLY | O_CLOEXEC | flags);
    if (fd < 0 && errno == EINVAL)
        SKIP("this file system has no direct I/O");
    CHECK_GE(fd, 0);
    return (struct readers){ .fd = fd, .reads = 1 };
}

static int direct_reads(void *arg)
{
    (void)arg;
    struct readers r = open_pages(O_DIRECT);
    struct statfs st;
    CHECK_EQ(fstatfs(r.fd, &st), 0);
    if (st.f_type == TMPFS_MAGIC)
        SKIP("there is no disk behind this file");
    r.look = true;
    for (int i = 0; i < 1000 && !r.fed; i++) /* a pass may be over early */
        let_them_read(&r);
    CHECK(r.fed);
    close(r.fd);
    return 0;
}

TEST(direct_transfers_begin_before_the_pass_is_over)
{
    RUN(direct_reads, .workers = 1);
}

static int cached_reads(void *arg)
{
    (void)arg;
    struct readers r = open_pages(0);
    r.reads = 300;
    let_them_read(&r);
    uint64_t passed = passes(), entered = COUNTER(enters);
    uint64_t parked = rv_load_relaxed(&my_io()->w->n.parks);
    let_them_read(&r);
    uint64_t least = passes() - passed + rv_load_relaxed(&my_io()->w->n.parks) - parked;
    /* Tried now and then, in vain: once in a thousand. */
    CHECK_LE(COUNTER(enters) - entered, least + READERS * 300 / 100);
    close(r.fd);
    return 0;
}

TEST(transfers_that_the_page_cache_answers_are_not_hurried)
{
    RUN(cached_reads, .workers = 1);
}

static int reads_of_both(void *arg)
{
    (void)arg;
    struct readers r = open_pages(O_DIRECT), cached = open_pages(0);
    struct reeve_group g = { 0 };
    r.reads = cached.reads = 20;
    for (int i = 0; i < 2 * READERS; i++)
        CHECK_EQ(reeve_spawn(NULL, read_pages, i % 2 ? &r : &cached, .group = &g), 0);
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    close(r.fd);
    close(cached.fd);
    return 0;
}

TEST(transfers_are_fed_to_rings_of_every_kind)
{
    static const char *const lacking[] = { "", "defer_taskrun", "defer_taskrun,coop_taskrun",
                                           "single_issuer", "submit_all", OLD_KERNEL };
    for (size_t i = 0; i < sizeof lacking / sizeof *lacking; i++) {
        setenv("REEVE_CAPS_OFF", lacking[i], 1);
        RUN(reads_of_both, .workers = 1);
        RUN(reads_of_both, .workers = 2);
    }
}

TEST(completions_that_the_queue_had_no_room_for_are_counted_and_come)
{
    setenv("REEVE_CAPS_OFF", "defer_taskrun,coop_taskrun,taskrun_flag", 1);
    RUN(overflow, .workers = 1);
}

/* ---- the end --------------------------------------------------------------------------------- */

static int leave_streams(void *arg)
{
    (void)arg;
    char c;
    for (int i = 0; i < 20; i++) {
        struct pair p = pair_make();
        CHECK_EQ(reeve_read(p.fd, &c, 1, REEVE_POLL), -ETIMEDOUT);
    }
    return 0;
}

TEST(a_runtime_ends_with_streams_in_flight)
{
    RUN(leave_streams, .workers = 1);
    RUN(leave_streams, .workers = 2);
}

TEST(a_thread_may_run_one_runtime_after_another)
{
    struct rv_ring r;
    for (int i = 0; i < 40; i++) /* a thread has 16 places for ring indexes */
        RUN(echo, .workers = 1);
    CHECK_OK(rv_ring_init(&r, 8, 0, RV_RING_FLAGS, NULL));
    CHECK_OK(rv_ring_enable(&r));
    CHECK_NE(r.enter_flags, 0); /* there is one left, so each was given back */
    rv_ring_finish(&r);
}
