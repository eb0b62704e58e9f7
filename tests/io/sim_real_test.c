/* SPDX-License-Identifier: MIT */
/*
 * sim_real_test.c -- what the simulation does not play: descriptors of the process, blocking calls
 * and programs, under its clock and its draws.
 */
#define CHECK_MAIN
#include "tests/io/sim_seeds.h"

#include <errno.h>
#include <poll.h>
#include <reeve/fd.h>
#include <reeve/offload.h>
#include <reeve/proc.h>
#include <reeve/reeve.h>
#include <reeve/socket.h>
#include <string.h>
#include <sys/uio.h>

#define SEEDS 60
#define BYTES 20000u

static reeve_fn *scenario;

/* Twice: a run depends on its seed alone. */
static void run_twice(uint64_t seed, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    (void)seed;
    opts->fn = scenario;
    opts->faults.shorter = 300;
    for (int i = 0; i < 2; i++) {
        struct rv_sim_result before = *ret;
        seeds_simulate(opts, ret);
        CHECK_EQ(ret->result, 0);
        if (i == 0)
            continue;
        CHECK_EQ(ret->events, before.events);
        CHECK_EQ(ret->hash, before.hash);
        CHECK_EQ(ret->virtual_ns, before.virtual_ns);
    }
}

static void under_many_seeds(reeve_fn *fn)
{
    struct rv_sim_result sum;
    scenario = fn;
    seeds_all(SEEDS, run_twice, &sum);
}

static unsigned char byte_at(size_t i)
{
    return (unsigned char)(i * 31 + i / 251);
}

/* ---- pipes and pairs ------------------------------------------------------------------------- */

static int write_all(void *arg)
{
    static unsigned char bytes[BYTES];
    for (size_t i = 0; i < BYTES; i++)
        bytes[i] = byte_at(i);
    CHECK_EQ(reeve_write(*(int *)arg, bytes, BYTES, 0), BYTES);
    return reeve_close(*(int *)arg);
}

static void read_all(int fd)
{
    unsigned char some[1000];
    size_t at = 0;
    ssize_t n;
    while ((n = CHECK_OK(reeve_read(fd, some, sizeof some, 0))) > 0)
        for (ssize_t i = 0; i < n; i++)
            CHECK_EQ(some[i], byte_at(at++));
    CHECK_EQ(at, BYTES);
}

static int through_a_pipe(void *arg)
{
    int fds[2];
    (void)arg;
    CHECK_OK(reeve_pipe(fds, 0));
    CHECK_EQ(reeve_go(write_all, &fds[1]), 0);
    read_all(fds[0]);
    return reeve_close(fds[0]);
}

TEST(bytes_go_through_a_pipe)
{
    under_many_seeds(through_a_pipe);
}

static int through_a_stream(void *arg)
{
    int fds[2];
    (void)arg;
    CHECK_EQ(reeve_socket_pair(SOCK_STREAM, fds), 0);
    CHECK_EQ(reeve_go(write_all, &fds[1]), 0);
    read_all(fds[0]);
    return reeve_close(fds[0]);
}

TEST(bytes_go_through_a_unix_stream)
{
    under_many_seeds(through_a_stream);
}

static int send_some(void *arg)
{
    for (int i = 0; i < 300; i++)
        CHECK_EQ(reeve_sendto(*(int *)arg, &i, sizeof i, NULL, 0, 0), sizeof i);
    return 0;
}

static int through_messages(void *arg)
{
    int fds[2], got;
    reeve_task *t;
    (void)arg;
    CHECK_EQ(reeve_socket_pair(SOCK_DGRAM, fds), 0);
    CHECK_EQ(reeve_spawn(&t, send_some, &fds[1]), 0);
    for (int i = 0; i < 300; i++) {
        CHECK_EQ(reeve_recvfrom(fds[0], &got, sizeof got, NULL, NULL, 0), sizeof got);
        CHECK_EQ(got, i);
    }
    CHECK_EQ(reeve_recvfrom(fds[0], &got, sizeof got, NULL, NULL, reeve_in(50)), -ETIMEDOUT);
    CHECK_EQ(reeve_join(t, NULL, 0), 0);
    CHECK_EQ(reeve_close(fds[0]), 0);
    return reeve_close(fds[1]);
}

TEST(messages_keep_their_borders_and_their_order)
{
    under_many_seeds(through_messages);
}

static int wait_in_vain(void *arg)
{
    int fds[2];
    (void)arg;
    CHECK_OK(reeve_pipe(fds, 0));
    reeve_time until = reeve_in(REEVE_SEC);
    CHECK_EQ(reeve_wait_fd(fds[0], POLLIN, until), -ETIMEDOUT);
    CHECK_GE(reeve_now(), until);
    CHECK_EQ(reeve_close(fds[0]), 0);
    return reeve_close(fds[1]);
}

TEST(a_wait_for_nothing_ends_with_its_deadline)
{
    under_many_seeds(wait_in_vain);
}

static int wait_for_ever(void *arg)
{
    int *fds = arg;
    CHECK_OK(reeve_pipe(fds, 0));
    return reeve_wait_fd(fds[0], POLLIN, 0);
}

TEST(a_pipe_that_nobody_writes_to_is_stuck)
{
    int fds[2];
    struct rv_sim_opts opts = { .seed = 5, .workers = 2, .fn = wait_for_ever, .arg = fds };
    struct rv_sim_result result;
    CHECK_EQ(rv_sim_run(&opts, &result), -EDEADLK);
}

/* ---- calls that block ------------------------------------------------------------------------ */

static int add_one(void *arg)
{
    return ++*(int *)arg;
}

static int call_once(void *arg)
{
    int r = reeve_offload(add_one, arg, rv_sim_chance(512) ? reeve_in(rv_sim_draw(20000)) : 0);
    CHECK(r > 0 || r == -ETIMEDOUT || r == -ECANCELED);
    return r > 0;
}

static int call_many(void *arg)
{
    reeve_task *t[20];
    int ran = 0, counted = 0, one;
    (void)arg;
    for (int i = 0; i < 20; i++)
        CHECK_EQ(reeve_spawn(&t[i], call_once, &ran), 0);
    CHECK_EQ(reeve_sleep(reeve_in(rv_sim_draw(20000))), 0);
    for (int i = 0; i < 20; i++) {
        if (rv_sim_chance(300))
            reeve_cancel(t[i]);
        CHECK_EQ(reeve_join(t[i], &one, 0), 0);
        counted += one == 1;
    }
    CHECK_EQ(counted, ran); /* who was told that it expired did not have it called */
    rv_sim_note(0, ran);
    return 0;
}

TEST(blocking_calls_are_made_or_taken_back)
{
    under_many_seeds(call_many);
}

/* ---- programs -------------------------------------------------------------------------------- */

static int run_cat(void *arg)
{
    static char in[BYTES], out[BYTES];
    char *const argv[] = { "cat", NULL };
    struct reeve_io io = { .in = { in, BYTES }, .out = out, .out_max = BYTES };
    (void)arg;
    for (size_t i = 0; i < BYTES; i++)
        in[i] = (char)byte_at(i);
    CHECK_EQ(reeve_proc_run(&(struct reeve_exec){ .argv = argv }, &io, 0), 0);
    CHECK_EQ(io.out_len, BYTES);
    CHECK_EQ(memcmp(in, out, BYTES), 0);
    return 0;
}

TEST(a_program_gives_back_what_it_is_fed)
{
    under_many_seeds(run_cat);
}

static int run_in_vain(void *arg)
{
    char *const argv[] = { "cat", NULL };
    int fds[2];
    reeve_proc *p;
    struct reeve_ended ended;
    (void)arg;
    CHECK_OK(reeve_pipe(fds, 0));
    int in[] = { fds[0] };
    struct reeve_exec cat = { .argv = argv, .fds = in, .fds_n = 1 };
    CHECK_EQ(reeve_proc_start(&p, &cat, 0), 0);
    CHECK_EQ(reeve_proc_wait(p, &ended, reeve_in(REEVE_SEC)), -ETIMEDOUT);
    CHECK_EQ(reeve_close(fds[1]), 0); /* the end of its input is the end of it */
    CHECK_EQ(reeve_proc_wait(p, &ended, 0), 0);
    CHECK_EQ(ended.status, 0);
    return reeve_close(fds[0]);
}

TEST(a_program_waits_for_the_world_and_the_world_for_it)
{
    under_many_seeds(run_in_vain);
}

/* ---- answers --------------------------------------------------------------------------------- */

static int answered_read(void *arg)
{
    int fds[2];
    char byte;
    (void)arg;
    CHECK_OK(reeve_pipe(fds, 0));
    CHECK_EQ(reeve_write(fds[1], "x", 1, 0), 1);
    rv_sim_answer(0, -EIO);
    CHECK_EQ(reeve_read(fds[0], &byte, 1, 0), -EIO);
    CHECK(rv_sim_answered(NULL));
    CHECK_EQ(reeve_read(fds[0], &byte, 1, 0), 1);
    rv_sim_answer(1, -EIO);
    CHECK_EQ(reeve_write(fds[1], "x", 1, 0), 1);
    CHECK(!rv_sim_answered(NULL));
    CHECK_EQ(reeve_close(fds[0]), 0);
    return reeve_close(fds[1]);
}

TEST(an_operation_answers_what_it_is_told)
{
    under_many_seeds(answered_read);
}
