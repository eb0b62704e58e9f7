/* SPDX-License-Identifier: MIT */
/*
 * op_test.c -- ops complete once, whatever is asked of them meanwhile.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include "io/op.h"
#include "tests/io/pair.h"

#define SOON reeve_in(2 * REEVE_MS)

enum { MANY = 700 }; /* more than a submission queue holds */

/* ---- names ----------------------------------------------------------------------------------- */

static int names(void *arg)
{
    (void)arg;
    struct rv_io_worker *iw = my_io();
    uint64_t seen[64];
    for (int i = 0; i < 64; i++) {
        struct rv_op *op = rv_op_take(iw, RV_OPK_TASK, RV_OP_NOP, -1);
        CHECK(op != NULL);
        seen[i] = rv_op_id(iw->io, op);
        CHECK_NE(seen[i], 0);
        CHECK_EQ(seen[i] & 15, RV_OPK_TASK);
        CHECK(rv_op_of(iw->io, seen[i]) == op);
        for (int j = 0; j < i; j++)
            CHECK_NE(seen[i], seen[j]);
        rv_op_release(iw, op);
        rv_op_cancel(iw->io->sched, iw->w, seen[i]); /* stale: no op of anybody's */
    }
    return 0;
}

TEST(an_id_names_one_use_of_an_op_and_never_another)
{
    RUN(names, .workers = 1);
}

static int stray(void *arg)
{
    (void)arg;
    struct rv_io_worker *iw = my_io();
    struct rv_op *op = rv_op_take(iw, RV_OPK_TASK, RV_OP_NOP, -1);
    uint64_t id = rv_op_id(iw->io, op);
    rv_op_release(iw, op);
    rv_op_complete(iw, id, 0, 0);
    return 0;
}

TEST(a_completion_of_an_op_that_is_over_ends_the_process)
{
    uring_or_skip();
    CHECK_DIES("not in flight", reeve_run(stray, NULL, .workers = 1));
}

static int twice(void *arg)
{
    (void)arg;
    struct rv_io_worker *iw = my_io();
    struct rv_op *op = rv_op_take(iw, RV_OPK_TASK, RV_OP_NOP, -1);
    rv_op_queue(iw, op);
    rv_op_complete(iw, rv_op_id(iw->io, op), 0, 0);
    rv_op_complete(iw, rv_op_id(iw->io, op), 0, 0);
    return 0;
}

TEST(a_second_completion_ends_the_process)
{
    uring_or_skip();
    CHECK_DIES("not in flight", reeve_run(twice, NULL, .workers = 1));
}

/* ---- results, deadlines, cancellations ------------------------------------------------------- */

static int result_wins(void *arg)
{
    (void)arg;
    int ends[2];
    char buf[8];
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    CHECK_EQ(reeve_read(ends[0], buf, sizeof buf, REEVE_POLL), -ETIMEDOUT);
    CHECK_EQ(write(ends[1], "data", 4), 4);
    CHECK_EQ(reeve_read(ends[0], buf, sizeof buf, REEVE_POLL), 4);
    CHECK_EQ(reeve_read(ends[0], buf, sizeof buf, SOON), -ETIMEDOUT);
    CHECK_EQ(write(ends[1], "kept", 4), 4);
    CHECK_EQ(reeve_read(ends[0], buf, sizeof buf, SOON), 4);
    CHECK_MEM_EQ(buf, "kept", 4);
    close(ends[0]);
    close(ends[1]);
    return 0;
}

TEST(a_result_counts_even_past_the_deadline)
{
    RUN(result_wins, .workers = 1);
}

struct reading {
    int fd;
    ssize_t result;
    char c;
};

static int read_one(void *arg)
{
    struct reading *r = arg;
    r->result = reeve_read(r->fd, &r->c, 1, LONG);
    return 0;
}

static int cancel_elsewhere(void *arg)
{
    (void)arg;
    int ends[2];
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    for (int i = 0; i < 300; i++) {
        struct reading r = { .fd = ends[0] };
        reeve_task *t;
        CHECK_EQ(reeve_spawn(&t, read_one, &r, .worker = 1 + i % 2), 0);
        if (i % 4 > 1)
            CHECK_EQ(reeve_sleep(reeve_in(20 * REEVE_US)), 0);
        reeve_cancel(t);
        CHECK_EQ(reeve_join(t, NULL, LONG), 0);
        CHECK(r.result == -ECANCELED || r.result == 0);
    }
    close(ends[0]);
    close(ends[1]);
    return 0;
}

TEST(a_cancellation_finds_its_op_on_whichever_worker)
{
    RUN(cancel_elsewhere, .workers = 2);
}

struct crowd {
    int (*ends)[2];
    struct reading *r;
};

static struct crowd crowd_make(struct reeve_group *g)
{
    struct crowd c = { calloc(MANY, sizeof *c.ends), calloc(MANY, sizeof *c.r) };
    struct rlimit lim;
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &lim), 0);
    lim.rlim_cur = lim.rlim_max;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &lim), 0);
    if (lim.rlim_max < 2 * MANY + 100)
        SKIP("too few descriptors are allowed here");
    for (int i = 0; i < MANY; i++) {
        CHECK_EQ(pipe2(c.ends[i], O_CLOEXEC), 0);
        c.r[i].fd = c.ends[i][0];
        CHECK_EQ(reeve_spawn(NULL, read_one, &c.r[i], .group = g), 0);
    }
    return c;
}

static void crowd_free(struct crowd *c)
{
    for (int i = 0; i < MANY; i++) {
        close(c->ends[i][0]);
        close(c->ends[i][1]);
    }
    free(c->ends);
    free(c->r);
}

static int queue_full(void *arg)
{
    (void)arg;
    struct reeve_group g = { 0 };
    struct crowd c = crowd_make(&g);
    while (COUNTER(ops) < MANY)
        CHECK_EQ(reeve_sleep(0), 0);
    for (int i = 0; i < MANY; i++)
        CHECK_EQ(write(c.ends[i][1], (char[]){ (char)i }, 1), 1);
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    for (int i = 0; i < MANY; i++) {
        CHECK_EQ(c.r[i].result, 1);
        CHECK_EQ(c.r[i].c, (char)i);
    }
    CHECK_GE(COUNTER(backlogged), 1);
    crowd_free(&c);
    return 0;
}

TEST(a_full_submission_queue_delays_and_loses_nothing)
{
    /* One pass that starts them all: more requests than the queue holds, at once. */
    RUN(queue_full, .workers = 1, .pass_picks = 4 * MANY, .pass_ns = 60 * REEVE_SEC);
}

static int cancel_all(void *arg)
{
    (void)arg;
    struct reeve_group g = { 0 };
    struct crowd c = crowd_make(&g);
    while (COUNTER(ops) < MANY)
        CHECK_EQ(reeve_sleep(0), 0);
    reeve_group_cancel(&g);
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    for (int i = 0; i < MANY; i++)
        CHECK_EQ(c.r[i].result, -ECANCELED);
    crowd_free(&c);
    return 0;
}

TEST(no_cancellation_is_dropped_when_the_queue_is_full)
{
    RUN(cancel_all, .workers = 1, .pass_picks = 4 * MANY, .pass_ns = 60 * REEVE_SEC);
    RUN(cancel_all, .workers = 1);
    RUN(cancel_all, .workers = 2);
}

static int race(void *arg)
{
    (void)arg;
    int ends[2];
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    unsigned seed = 7, sent = 0, got = 0;
    for (int i = 0; i < 500; i++) {
        struct reading r = { .fd = ends[0] };
        reeve_task *t;
        CHECK_EQ(reeve_spawn(&t, read_one, &r), 0);
        if (rand_r(&seed) % 2)
            CHECK_EQ(reeve_sleep(0), 0);
        CHECK_EQ(write(ends[1], "x", 1), 1);
        sent++;
        if (rand_r(&seed) % 2)
            reeve_cancel(t);
        CHECK_EQ(reeve_join(t, NULL, LONG), 0);
        got += r.result == 1;
        CHECK(r.result == 1 || r.result == -ECANCELED || r.result == 0);
    }
    char rest[1024];
    while (got < sent) {
        ssize_t n = reeve_read(ends[0], rest, sizeof rest, LONG);
        CHECK_GT(n, 0);
        got += (unsigned)n;
    }
    CHECK_EQ(got, sent);
    CHECK_EQ(reeve_read(ends[0], rest, 1, REEVE_POLL), -ETIMEDOUT);
    close(ends[0]);
    close(ends[1]);
    return 0;
}

TEST(a_cancelled_read_either_returns_its_byte_or_leaves_it_in_the_pipe)
{
    RUN(race, .workers = 1);
    RUN(race, .workers = 2);
}
