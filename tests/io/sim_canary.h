/* SPDX-License-Identifier: MIT */
/*
 * sim_canary.h -- runs a scenario with a bug planted in the simulation, and counts how often it
 * notices: a harness that cannot fail proves nothing.
 */
#ifndef TESTS_IO_SIM_CANARY_H
#define TESTS_IO_SIM_CANARY_H

#include "tests/io/sim_seeds.h"

#include <fcntl.h>

/* Under the thread sanitizer each process takes a second to end. */
#ifdef RV_TSAN
#define CANARY_SEEDS 8
#else
#define CANARY_SEEDS 24
#endif

/* The run ended badly, in a process of its own that keeps silent about it. */
static inline bool is_noticed(seeds_run *run, uint64_t seed, enum rv_sim_canary canary,
                              unsigned every)
{
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        int null = open("/dev/null", O_WRONLY);
        setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
        dup2(null, STDERR_FILENO);
        struct rv_sim_opts opts = { .seed = seed, .canary = canary, .canary_every = every };
        struct rv_sim_result result;
        run(seed, &opts, &result);
        _exit(0);
    }
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    return status != 0;
}

/* Of CANARY_SEEDS runs. */
static inline int times_noticed(seeds_run *run, enum rv_sim_canary canary, unsigned every)
{
    int noticed = 0;
    for (uint64_t seed = 1; seed <= CANARY_SEEDS; seed++)
        noticed += is_noticed(run, seed, canary, every);
    return noticed;
}

#endif
