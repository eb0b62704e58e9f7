/* SPDX-License-Identifier: MIT */
/*
 * sim_seeds.h -- runs a scenario under many seeds, and names the one that failed.
 *
 *     REEVE_SIM_SEEDS=100000 .../sim_test        more seeds than by default
 *     REEVE_SIM_SEED=1234 .../sim_test NAME      that one alone; what a failure prints
 *     REEVE_SIM_TRACE=1                          with it: every event, on standard error
 *
 * The seeds run in a process of their own, so that whatever ends it is traced to its seed.
 */
#ifndef TESTS_IO_SIM_SEEDS_H
#define TESTS_IO_SIM_SEEDS_H

#include "tests/check.h"

#include <inttypes.h>
#include <sys/mman.h>

#include "io/sim.h"

#define SEEDS_SECONDS 270 /* below those of the test itself */

/* Sanitizers take their time; and on the one thread of a simulation nobody sees another stall. */
#if defined(RV_STALLS)
#define SEEDS_SHARE 100
#elif defined(RV_TSAN)
#define SEEDS_SHARE 10
#elif defined(RV_ASAN)
#define SEEDS_SHARE 2
#else
#define SEEDS_SHARE 1
#endif

/* A scenario: sets up `opts`, runs it and checks what came of it. */
typedef void seeds_run(uint64_t seed, struct rv_sim_opts *opts, struct rv_sim_result *ret);

/* What all seeds of a test saw together, shared with the process that runs them. */
struct seeds_state {
    uint64_t seed;
    struct rv_sim_result sum;
};

static inline uint64_t seeds_number(const char *name, uint64_t otherwise)
{
    const char *value = getenv(name);
    return value && *value ? strtoull(value, NULL, 0) : otherwise;
}

/* A number that looks nothing like the seed (splitmix64). */
static inline uint64_t seeds_mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static inline void seeds_print(void *ctx, const struct rv_sim_event *e)
{
    (void)ctx;
    fprintf(stderr, "%8" PRIu64 " %12" PRId64 " w%d %-8s %" PRIu64 " %" PRId64 "\n", e->count,
            e->now_ns, (int)e->worker, rv_sim_event_name(e->kind), e->index, e->result);
}

static inline void seeds_tell(void *ctx, const char *sentence)
{
    (void)ctx;
    fprintf(stderr, "  %s\n", sentence);
}

/* Runs it to its end and checks what holds for every scenario. */
static inline void seeds_simulate(struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    opts->tell = seeds_tell;
    int r = rv_sim_run(opts, ret);
    if (r == -EDEADLK)
        check_failed(__FILE__, __LINE__, "stuck after %" PRIu64 " events, %" PRId64 " ns: "
                     "nothing can run and nothing will complete", ret->events, ret->virtual_ns);
    CHECK_EQ(r, 0);
    CHECK_EQ(ret->leaks.tasks, 0);
    CHECK_EQ(ret->leaks.ops, 0);
    CHECK_EQ(ret->leaks.leases, 0);
    CHECK_EQ(ret->leaks.fds, 0);
    CHECK_EQ(ret->leaks.stacks, 0);
}

static inline void seeds_add(struct rv_sim_result *sum, const struct rv_sim_result *one)
{
    sum->events += one->events;
    sum->turns += one->turns;
    sum->virtual_ns += one->virtual_ns;
    sum->seen.faults += one->seen.faults;
    sum->seen.cancels_won += one->seen.cancels_won;
    sum->seen.cancels_lost += one->seen.cancels_lost;
    sum->seen.resets += one->seen.resets;
    sum->seen.steals += one->seen.steals;
    sum->seen.parks += one->seen.parks;
    sum->seen.wakes += one->seen.wakes;
    sum->seen.expired += one->seen.expired;
    sum->seen.skipped += one->seen.skipped;
    sum->seen.inline_runs += one->seen.inline_runs;
    sum->seen.starved += one->seen.starved;
}

static inline void seeds_one(struct seeds_state *state, uint64_t seed, seeds_run *run)
{
    struct rv_sim_opts opts = { .seed = seed };
    struct rv_sim_result result;
    state->seed = seed;
    if (seeds_number("REEVE_SIM_TRACE", 0))
        opts.trace = seeds_print;
    run(seed, &opts, &result);
    seeds_add(&state->sum, &result);
}

static inline void seeds_explain(const struct seeds_state *state, int status)
{
    fprintf(stderr, "seed %" PRIu64 " failed (%s %d). To replay it:\n"
            "    REEVE_SIM_SEED=%" PRIu64 " %s --no-fork %s\n", state->seed,
            WIFSIGNALED(status) ? "signal" : "status",
            WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), state->seed,
            program_invocation_name, check.running);
}

/* Runs the seeds 1 .. n, or the one of REEVE_SIM_SEED. True if it was all of them: then *ret_sum
 * tells what they saw. */
static inline bool seeds_all(uint64_t n, seeds_run *run, struct rv_sim_result *ret_sum)
{
    uint64_t only = seeds_number("REEVE_SIM_SEED", 0);
    n = seeds_number("REEVE_SIM_SEEDS", n / SEEDS_SHARE);
    struct seeds_state *state = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE,
                                     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(state != MAP_FAILED);
    if (only) {
        seeds_one(state, only, run);
        return false;
    }
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(n <= 5000 ? SEEDS_SECONDS : 0);
        for (uint64_t seed = 1; seed <= n; seed++)
            seeds_one(state, seed, run);
        exit(0);
    }
    int status;
    if (n > 5000)
        alarm(0);
    CHECK_EQ(waitpid(child, &status, 0), child);
    if (status != 0)
        seeds_explain(state, status);
    CHECK_EQ(status, 0);
    *ret_sum = state->sum;
    return n >= 200; /* fewer need not have seen everything */
}

#endif
