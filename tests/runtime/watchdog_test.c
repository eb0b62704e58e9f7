/* SPDX-License-Identifier: MIT */
/*
 * watchdog_test.c -- sched/watchdog.c: who keeps a worker for too long is reported, once, with its
 * name and where it is; who yields is not.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <sched.h>

#include "runtime/runtime.h"
#include "sched/watchdog.h"
#include "tests/runtime/server.h"

enum { REPORTS = 64 };

/* What was reported; written by the watchdog's thread. */
struct report {
    char task[32];
    const void *site;
    int64_t ns;
    unsigned worker, nframes;
    uint64_t unreported;
    void *frames[64];
};

static struct report reports[REPORTS];
static RV_ATOMIC(uint32_t) nreports;
static int ctx;

static void note_stall(void *arg, const struct reeve_stall *stall)
{
    uint32_t n = rv_load_relaxed(&nreports);
    CHECK_EQ(arg, &ctx);
    CHECK_EQ(rv_worker_self(), NULL);
    CHECK_LT(n, REPORTS);
    CHECK_LE(stall->nframes, 64);
    struct report *r = &reports[n];
    snprintf(r->task, sizeof r->task, "%s", stall->task ? stall->task : "-");
    r->site = stall->spawn_site;
    r->ns = stall->ns;
    r->worker = stall->worker;
    r->nframes = stall->nframes;
    r->unreported = stall->unreported;
    for (unsigned i = 0; i < stall->nframes; i++)
        r->frames[i] = stall->frames[i];
    rv_store_release(&nreports, n + 1);
}

static uint32_t reported(void)
{
    return rv_load_acquire(&nreports);
}

/* One turn of a loop that computes. ThreadSanitizer holds signals back until a call it knows. */
static inline void compute(void)
{
#if defined(RV_TSAN)
    nanosleep(&(struct timespec){ 0, 10000 }, NULL);
#else
    for (int i = 0; i < 100; i++)
        rv_cpu_relax();
#endif
}

static reeve *watched(unsigned workers, int64_t stall_ns)
{
    reeve *rt;
    uring_or_skip();
    CHECK_OK(reeve_create(&rt, &(struct reeve_opts){ .workers = workers,
                                                     .rescue_signal = workers % 2 ? -1 : 0,
                                                     .stall_ns = stall_ns,
                                                     .on_stall = note_stall,
                                                     .stall_ctx = &ctx }));
    return rt;
}

/* ---- what a report says ---------------------------------------------------------------------- */

/* A thread that gets no CPU is stuck, too, wherever it is, and may be late with its answer. So
 * there may be other reports than that of the task that is meant to be stuck; and there may be none
 * of what it does, but one of how it began. It then yields, and is stuck anew, until it has been
 * told of as it should be. */
static struct report *told;

/* Whether the address lies in a function: none here is longer, not even with a sanitizer. */
static bool lies_in(const void *at, reeve_fn *fn)
{
    return (uintptr_t)at - (uintptr_t)fn < 1024;
}

/* Whether a report, from the given one on, is of the task of this name while it was in fn; NULL: it
 * says nothing. */
static bool is_told(uint32_t from, const char *name, reeve_fn *fn)
{
    for (; from < reported(); from++) {
        struct report *r = &reports[from];
        bool in = fn == NULL && r->nframes == 0;
        for (unsigned i = 0; i < r->nframes && fn; i++)
            in |= lies_in(r->frames[i], fn);
        if (!in || strcmp(r->task, name) != 0)
            continue;
        told = r;
        return true;
    }
    return false;
}

/* Until there are more reports than that, or perhaps there will be none of this stall: there are so
 * many in a second and no more. */
static bool is_enough(uint32_t from, int64_t since)
{
    return reported() > from || rv_clock_ns() - since > 2 * REEVE_SEC;
}

__attribute__((noinline)) static int stuck_until_told(void *name)
{
    for (uint32_t from = reported(); !is_told(from, name, stuck_until_told);) {
        CHECK_OK(reeve_sleep(REEVE_POLL));
        from = reported();
        for (int64_t since = rv_clock_ns(); !is_enough(from, since);)
            compute();
    }
    return 0;
}

__attribute__((noinline)) static int spawn_stuck(void *name)
{
    reeve_task *t;
    CHECK_OK(reeve_spawn(&t, stuck_until_told, name, .name = name,
                         .worker = (int)rv_worker_self()->index + 1));
    return reeve_join(t, NULL, 0);
}

TEST(a_stuck_task_is_reported_with_its_name_its_spawn_and_where_it_is)
{
    static char name[] = "stuck";
    for (unsigned workers = 1; workers <= 2; workers++) {
        rv_store_relaxed(&nreports, 0u);
        reeve *rt = watched(workers, 30 * REEVE_MS);
        CHECK_OK(reeve_post(rt, &(struct reeve_spawn){ .fn = spawn_stuck,
                                                       .arg = name,
                                                       .worker = (int)workers }));
        CHECK_EQ(reeve_shutdown(rt, 0), 0);
        CHECK_GE(stats_of(rt).stalls, reported());
        reeve_destroy(rt);
        CHECK_GE(told->ns, 30 * REEVE_MS);
        CHECK_EQ(told->worker, workers - 1);
        CHECK(lies_in(told->site, spawn_stuck));
        CHECK_GT(told->nframes, 1);
        CHECK_LT(told->nframes, 40); /* the walk ended where the stack begins */
    }
}

static int stuck_below(void *arg)
{
    reeve_task *t;
    CHECK_OK(reeve_spawn(&t, stuck_until_told, arg, .name = arg));
    return reeve_join(t, NULL, 0);
}

TEST(a_child_that_its_joiner_runs_is_the_one_that_is_stuck)
{
    static char name[] = "child";
    reeve *rt = watched(1, 20 * REEVE_MS);
    CHECK_OK(reeve_post(rt, &(struct reeve_spawn){ .fn = stuck_below,
                                                   .arg = name,
                                                   .name = "parent" }));
    CHECK_EQ(reeve_shutdown(rt, 0), 0);
    reeve_destroy(rt);
    CHECK(lies_in(told->site, stuck_below));
}

static int sleep_unnoticed(void *arg)
{
    sigset_t all, was;
    sigfillset(&all);
    for (uint32_t from = reported(); !is_told(from, arg, NULL);) {
        CHECK_OK(reeve_sleep(REEVE_POLL));
        CHECK_EQ(pthread_sigmask(SIG_SETMASK, &all, &was), 0);
        from = reported();
        for (int64_t since = rv_clock_ns(); !is_enough(from, since);)
            sched_yield();
        CHECK_EQ(pthread_sigmask(SIG_SETMASK, &was, NULL), 0);
    }
    return 0;
}

TEST(a_thread_that_does_not_answer_is_reported_without_details)
{
    static char nobody[] = "-";
    reeve *rt = watched(1, 20 * REEVE_MS);
    CHECK_OK(reeve_post(rt, &(struct reeve_spawn){ .fn = sleep_unnoticed,
                                                   .arg = nobody,
                                                   .name = "deaf" }));
    CHECK_EQ(reeve_shutdown(rt, 0), 0);
    reeve_destroy(rt);
    CHECK_EQ(told->nframes, 0);
    CHECK_EQ(told->worker, 0);
}

/* ---- how often ------------------------------------------------------------------------------- */

static int stuck_twice(void *name)
{
    for (int i = 0; i < 2; i++) {
        stuck_until_told(name);
        uint32_t n = reported();
        for (int64_t end = rv_clock_ns() + 200 * REEVE_MS; rv_clock_ns() < end;)
            compute();
        CHECK_LE(reported() - n, 1); /* this one's, if what was told was of the stall before it */
    }
    return 0;
}

TEST(a_stall_is_reported_once_and_the_next_one_again)
{
    static char name[] = "twice";
    reeve *rt = watched(1, 20 * REEVE_MS);
    CHECK_OK(reeve_post(rt, &(struct reeve_spawn){ .fn = stuck_twice, .arg = name, .name = name }));
    CHECK_EQ(reeve_shutdown(rt, 0), 0);
    CHECK_GE(stats_of(rt).stalls, 2);
    reeve_destroy(rt);
    CHECK_GE(reported(), 2);
}

static int stuck_until_counted(void *arg)
{
    while (stats_of(*(reeve **)arg).stalls < 14)
        sched_yield();
    return 0;
}

TEST(at_most_ten_are_reported_in_a_second_and_the_rest_are_counted)
{
    enum { STUCK = 14 };
    int64_t began = rv_clock_ns();
    reeve *rt = watched(STUCK, 20 * REEVE_MS);
    for (int i = 1; i <= STUCK; i++)
        CHECK_OK(reeve_post(rt, &(struct reeve_spawn){
                                    .fn = stuck_until_counted, .arg = &rt, .worker = i }));
    CHECK_EQ(reeve_shutdown(rt, 0), 0);
    uint64_t stalls = stats_of(rt).stalls;
    reeve_destroy(rt);
    CHECK_GE(stalls, STUCK);
    CHECK_LE(reported(), stalls);
    CHECK_LE(reported(), 10 * (1 + (rv_clock_ns() - began) / REEVE_SEC));
    uint64_t told = reported();
    for (uint32_t i = 0; i < reported(); i++)
        told += reports[i].unreported;
    CHECK_LE(told, stalls);
}

/* ---- who is not reported --------------------------------------------------------------------- */

static int yield_for_long(void *arg)
{
    for (int64_t end = reeve_in(*(int64_t *)arg); reeve_now() < end;)
        CHECK_OK(reeve_sleep(REEVE_POLL));
    return 0;
}

static int nothing(void *arg)
{
    (void)arg;
    return 0;
}

static int compute_and_join(void *arg)
{
    reeve_task *t;
    for (int64_t end = reeve_in(*(int64_t *)arg); reeve_now() < end;) {
        CHECK_OK(reeve_spawn(&t, nothing, NULL));
        CHECK_OK(reeve_join(t, NULL, 0));
    }
    return 0;
}

/* Who is taken for stuck is reported each time. A thread that had no CPU for a second is reported,
 * too, but not each time. */
TEST(who_yields_or_joins_or_sleeps_is_not_stuck)
{
    int64_t lasts = 2500 * REEVE_MS;
    do {
        rv_store_relaxed(&nreports, 0u);
        reeve *rt = watched(3, REEVE_SEC); /* the third has nothing to do */
        CHECK_OK(reeve_post(rt, &(struct reeve_spawn){
                                    .fn = yield_for_long, .arg = &lasts, .worker = 1 }));
        CHECK_OK(reeve_post(rt, &(struct reeve_spawn){
                                    .fn = compute_and_join, .arg = &lasts, .worker = 2 }));
        CHECK_EQ(reeve_shutdown(rt, 0), 0);
        reeve_destroy(rt);
    } while (reported() > 0);
}

/* ---- beginning and end ----------------------------------------------------------------------- */

static void ignore(void *arg, const struct reeve_stall *stall)
{
    (void)arg, (void)stall;
}

TEST(a_watchdog_needs_both_a_time_and_a_callback)
{
    reeve *rt;
    uring_or_skip();
    CHECK_EQ(reeve_create(&rt, &(struct reeve_opts){ .stall_ns = REEVE_MS }), -EINVAL);
    CHECK_EQ(reeve_create(&rt, &(struct reeve_opts){ .on_stall = ignore }), -EINVAL);
    CHECK_EQ(reeve_create(&rt, &(struct reeve_opts){ .stall_ns = -1, .on_stall = ignore }),
             -EINVAL);
}

static void handle(int number)
{
    (void)number;
}

TEST(a_watchdog_without_a_free_signal_is_refused)
{
    reeve *rt;
    uring_or_skip();
    for (int i = SIGRTMIN; i <= SIGRTMAX; i++)
        signal(i, handle);
    struct reeve_opts opts = { .workers = 1, .stall_ns = REEVE_MS, .on_stall = ignore };
    CHECK_EQ(reeve_create(&rt, &opts), -EBUSY);
    opts.rescue_signal = SIGUSR2;
    CHECK_OK(reeve_create(&rt, &opts));
    reeve_destroy(rt);
}

TEST(a_watchdog_leaves_nothing_behind)
{
    uring_or_skip();
    struct reeve_opts opts = { .fn = nothing, .workers = 2, .stall_ns = REEVE_MS };
    opts.on_stall = ignore;
    CHECK_EQ(reeve_run_with(&opts), 0);
    struct census was = census_take();
    for (unsigned i = 0; i < times(20); i++)
        CHECK_EQ(reeve_run_with(&opts), 0);
    census_compare(&was);
}
