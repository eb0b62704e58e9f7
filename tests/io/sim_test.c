/* SPDX-License-Identifier: MIT */
/*
 * sim_test.c -- the library under the simulated engine, thousands of times, each time differently.
 */
#define CHECK_MAIN
#include "tests/io/sim_echo.h"
#include "tests/io/sim_tasks.h"

TEST(tasks_keep_their_promises_under_every_seed)
{
    struct rv_sim_result sum;
    if (!seeds_all(800, wood_run, &sum))
        return;
    CHECK_GT(sum.seen.steals, 0);
    CHECK_GT(sum.seen.parks, 0);
    CHECK_GT(sum.seen.wakes, 0);
    CHECK_GT(sum.seen.expired, 0);
    CHECK_GT(sum.seen.skipped, 0);
    CHECK_GT(sum.seen.inline_runs, 0);
}

TEST(undisturbed_clients_get_every_byte_back)
{
    struct rv_sim_result sum;
    seeds_all(600, echo_run_quiet, &sum);
}

TEST(faults_and_cancellations_lose_and_repeat_nothing)
{
    struct rv_sim_result sum;
    if (!seeds_all(1000, echo_run_wild, &sum))
        return;
    CHECK_GT(sum.seen.faults, 0);
    CHECK_GT(sum.seen.resets, 0);
    CHECK_GT(sum.seen.starved, 0);
    CHECK_GT(sum.seen.cancels_won, 0);
    CHECK_GT(sum.seen.cancels_lost, 0);
}

TEST(a_server_in_one_call_serves_everybody)
{
    struct rv_sim_result sum;
    seeds_all(300, serve_run_quiet, &sum);
}

TEST(a_server_in_one_call_ends_in_order_whatever_happens)
{
    struct rv_sim_result sum;
    seeds_all(500, serve_run_wild, &sum);
}
