/* SPDX-License-Identifier: MIT */
#define CHECK_MAIN
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
