/* SPDX-License-Identifier: MIT */
/*
 * sim_test.c -- the library under the simulated engine, thousands of times, each time differently.
 */
#define CHECK_MAIN
#include "tests/io/sim_canary.h"
#include "tests/io/sim_echo.h"
#include "tests/io/sim_files.h"
#include "tests/io/sim_sink.h"
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

TEST(a_crowd_beyond_every_queue_gets_through)
{
    struct rv_sim_result sum;
    seeds_all(60, crowd_run, &sum);
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

TEST(streams_share_a_handful_of_buffers)
{
    struct rv_sim_result sum;
    if (seeds_all(300, sink_run, &sum))
        CHECK_GT(sum.seen.starved, 0);
}

TEST(starving_streams_may_be_left_and_cancelled)
{
    struct rv_sim_result sum;
    if (seeds_all(300, sink_run_wild, &sum))
        CHECK_GT(sum.seen.cancels_won, 0);
}

TEST(what_a_log_has_promised_stands_in_its_file)
{
    struct rv_sim_result sum;
    seeds_all(200, files_run_quiet, &sum);
}

TEST(disks_that_fail_take_nothing_back)
{
    struct rv_sim_result sum;
    if (!seeds_all(400, files_run_wild, &sum))
        return;
    CHECK_GT(sum.seen.faults, 0);
    CHECK_GT(sum.seen.cancels_lost, 0); /* a disk cannot be told to stop */
}

/* ---- the simulation itself ------------------------------------------------------------------- */

#define SAMPLED 50

static seeds_run *const scenarios[] = { wood_run, echo_run_wild, serve_run_wild };
#define SCENARIOS (sizeof scenarios / sizeof *scenarios)

static struct rv_sim_result run_scenario(size_t which, uint64_t seed)
{
    struct rv_sim_opts opts = { .seed = seed };
    struct rv_sim_result result;
    scenarios[which](seed, &opts, &result);
    return result;
}

TEST(the_same_seed_gives_the_same_run)
{
    for (size_t i = 0; i < SCENARIOS; i++)
        for (uint64_t seed = 1; seed <= SAMPLED; seed++) {
            struct rv_sim_result one = run_scenario(i, seed * 17);
            free(malloc(seed * 4096)); /* addresses do not matter */
            struct rv_sim_result two = run_scenario(i, seed * 17);
            CHECK_EQ(one.hash, two.hash);
            CHECK_EQ(one.events, two.events);
            CHECK_EQ(one.turns, two.turns);
            CHECK_EQ(one.virtual_ns, two.virtual_ns);
        }
}

/* Another process has other addresses, another history, another time. */
TEST(the_same_seed_gives_the_same_run_in_another_process)
{
    uint64_t *hash = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(hash != MAP_FAILED);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        run_scenario(0, 3);
        for (size_t i = 0; i < SCENARIOS; i++)
            hash[i] = run_scenario(i, 99).hash;
        _exit(0);
    }
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
    for (size_t i = 0; i < SCENARIOS; i++)
        CHECK_EQ(run_scenario(i, 99).hash, hash[i]);
}

TEST(different_seeds_give_different_runs)
{
    uint64_t hash[SAMPLED];
    for (uint64_t seed = 0; seed < SAMPLED; seed++) {
        hash[seed] = run_scenario(0, seed + 1).hash;
        for (uint64_t i = 0; i < seed; i++)
            CHECK_NE(hash[i], hash[seed]);
    }
}

static int sleep_long(void *arg)
{
    (void)arg;
    return reeve_sleep(reeve_in(10 * 3600 * REEVE_SEC));
}

TEST(hours_of_sleep_take_no_time)
{
    struct rv_sim_opts opts = { .seed = 1, .fn = sleep_long };
    struct rv_sim_result result;
    int64_t before = reeve_now();
    seeds_simulate(&opts, &result);
    CHECK_EQ(result.result, 0);
    CHECK_GE(result.virtual_ns, 10 * 3600 * REEVE_SEC);
    CHECK_LT(reeve_now() - before, 3600 * REEVE_SEC);
}

static void count_sentences(void *ctx, const char *sentence)
{
    CHECK(sentence[0] != '\0');
    ++*(int *)ctx;
}

static int wait_for_ever(void *arg)
{
    int l = (int)CHECK_OK(reeve_listen("127.0.0.1:7000", 0));
    (void)arg;
    return reeve_accept(l, 0);
}

TEST(a_run_in_which_nothing_can_happen_any_more_is_stuck)
{
    int sentences = 0;
    struct rv_sim_opts opts = { .seed = 5, .workers = 3, .fn = wait_for_ever,
                                .tell = count_sentences, .trace_ctx = &sentences };
    struct rv_sim_result result;
    CHECK_EQ(rv_sim_run(&opts, &result), -EDEADLK);
    CHECK_GE(sentences, 3 + 1 + 1); /* workers, the op, the socket */
}

static int spin_for_ever(void *arg)
{
    while (reeve_sleep(0) == 0)
        rv_sim_note(0, arg != NULL);
    return 0;
}

TEST(a_run_that_does_not_end_is_a_loop)
{
    struct rv_sim_opts opts = { .seed = 5, .workers = 2, .fn = spin_for_ever };
    struct rv_sim_result result;
    CHECK_EQ(rv_sim_run(&opts, &result), -ELOOP);
}

static int leave_things(void *arg)
{
    CHECK_OK(reeve_listen("127.0.0.1:7000", 0));
    return reeve_buf_borrow(arg, 0);
}

TEST(what_is_left_over_is_counted)
{
    static struct reeve_buf *left;
    struct rv_sim_opts opts = { .seed = 5, .fn = leave_things, .arg = &left };
    struct rv_sim_result result;
    CHECK_EQ(rv_sim_run(&opts, &result), 0);
    CHECK_EQ(result.leaks.fds, 1);
    CHECK_EQ(result.leaks.leases, 1);
    CHECK_EQ(result.leaks.tasks, 0);
}

static int read_until_cancelled(void *arg)
{
    unsigned char byte;
    while (reeve_read(*(int *)arg, &byte, 1, 0) > 0)
        ;
    return 0;
}

/* Ends with open sockets, armed streams and unread data. */
static int walk_out(void *arg)
{
    static const unsigned char bytes[300];
    int *fd = arg;
    fd[0] = (int)CHECK_OK(reeve_listen("127.0.0.1:7000", 0));
    fd[1] = (int)CHECK_OK(reeve_dial("127.0.0.1:7000", 0));
    fd[2] = (int)CHECK_OK(reeve_accept(fd[0], 0));
    for (int i = 1; i <= 2; i++)
        CHECK_EQ(reeve_go(read_until_cancelled, &fd[i]), 0);
    CHECK_EQ(reeve_write(fd[1], bytes, sizeof bytes, 0), sizeof bytes);
    CHECK_EQ(reeve_sleep(reeve_in(rv_sim_draw(20000))), 0);
    return -ECANCELED;
}

/* The next runtime of the process gets the same numbers for other sockets, and they work. */
TEST(sockets_left_open_by_one_runtime_do_not_disturb_the_next)
{
    for (uint64_t seed = 1; seed <= 60; seed++) {
        int fd[3];
        struct rv_sim_opts opts = { .seed = seed, .fn = walk_out, .arg = fd };
        struct rv_sim_result result;
        CHECK_EQ(rv_sim_run(&opts, &result), 0);
        CHECK_EQ(result.leaks.fds, 3);
        CHECK_EQ(result.leaks.ops, 0);
        CHECK_EQ(result.leaks.tasks, 0);
        CHECK_EQ(result.leaks.stacks, 0);
        run_scenario(1, seed);
    }
}

static int sleep_a_little(void *arg)
{
    (void)arg;
    return reeve_sleep(reeve_in(1000));
}

TEST(a_simulation_that_lacks_memory_fails_and_leaves_nothing)
{
    struct rv_sim_opts opts = { .seed = 3, .workers = 2, .fn = sleep_a_little };
    struct rv_sim_result result;
    if (!rv_fault_available())
        SKIP("this build has no fault points");
    for (uint64_t n = 1;; n++) {
        rv_fault_fail_nth(n);
        int r = rv_sim_run(&opts, &result);
        const char *failed = rv_fault_last_name();
        rv_fault_off();
        if (!failed) {
            CHECK_EQ(r, 0);
            CHECK_EQ(result.result, 0);
            CHECK_GT(n, 20);
            return;
        }
        CHECK(r == -ENOMEM || r == 0); /* not started; or the root had to do without */
    }
}

static int run_inside(void *arg)
{
    (void)arg;
    struct rv_sim_opts opts = { .seed = 1, .fn = sleep_long };
    struct rv_sim_result result;
    return rv_sim_run(&opts, &result);
}

TEST(one_simulation_runs_at_a_time)
{
    struct rv_sim_opts opts = { .seed = 1, .fn = run_inside };
    struct rv_sim_result result;
    CHECK_EQ(rv_sim_run(&opts, &result), 0);
    CHECK_EQ(result.result, -EBUSY);
}

/* ---- planted bugs: a harness that cannot fail proves nothing --------------------------------- */

TEST(a_lost_completion_is_noticed)
{
    CHECK_GE(times_noticed(echo_run_quiet, RV_SIM_DROP_COMPLETION, 40), CANARY_SEEDS / 2);
}

TEST(a_completion_that_comes_twice_is_noticed)
{
    CHECK_GE(times_noticed(echo_run_quiet, RV_SIM_TWICE_COMPLETION, 40), CANARY_SEEDS / 2);
}

TEST(a_lost_wake_up_is_noticed)
{
    CHECK_GE(times_noticed(wood_run, RV_SIM_DROP_WAKE, 2), CANARY_SEEDS / 8);
}

TEST(a_wrong_byte_is_noticed)
{
    CHECK_GE(times_noticed(echo_run_quiet, RV_SIM_WRONG_BYTE, 20), CANARY_SEEDS / 2);
}

TEST(a_buffer_used_before_it_came_home_is_noticed)
{
    CHECK_GE(times_noticed(echo_run_quiet, RV_SIM_EARLY_BUFFER, 20), CANARY_SEEDS / 2);
}

TEST(without_a_planted_bug_the_same_runs_are_sound)
{
    CHECK_EQ(times_noticed(wood_run, RV_SIM_SOUND, 0), 0);
    CHECK_EQ(times_noticed(echo_run_quiet, RV_SIM_SOUND, 0), 0);
    CHECK_EQ(times_noticed(echo_run_wild, RV_SIM_SOUND, 0), 0);
}
