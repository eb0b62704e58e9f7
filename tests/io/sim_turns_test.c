/* SPDX-License-Identifier: MIT */
/*
 * sim_turns_test.c -- many writers to one socket under the simulated engine.
 */
#define CHECK_MAIN
#include "tests/io/sim_turns.h"

/* Sees how many requests took others along. */
static uint64_t requests;

static void see_request(void *ctx, const struct rv_sim_event *e)
{
    (void)ctx;
    requests += e->kind == RV_SIM_QUEUE && e->result == RV_OP_REQUEST;
}

static void quiet_and_seen(uint64_t seed, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    if (!opts->trace)
        opts->trace = see_request;
    turns_run_quiet(seed, opts, ret);
    if (seed == 400)
        CHECK_GT(requests, 400);
}

TEST(the_bytes_of_each_call_stay_together_whoever_sends_them)
{
    struct rv_sim_result sum;
    if (seeds_all(600, quiet_and_seen, &sum))
        CHECK_GT(sum.seen.faults, 0);
}

static void wild_and_late(uint64_t seed, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    turns_run_wild(seed, opts, ret);
    if (seed == 1000)
        CHECK_GT(turns_timed_out, 100);
}

TEST(who_leaves_while_others_take_him_along_loses_nobody_elses_bytes)
{
    struct rv_sim_result sum;
    if (!seeds_all(1500, wild_and_late, &sum))
        return;
    CHECK_GT(sum.seen.cancels_won, 0);
    CHECK_GT(sum.seen.cancels_lost, 0);
}
