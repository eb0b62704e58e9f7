/* SPDX-License-Identifier: MIT */
/*
 * sched_class.c -- what priorities and deadlines do, and what they cost.
 *
 * urgent_delay: how long a task of class URGENT waits from its post to its start while tasks of
 * class NORMAL, 10 us long, saturate every worker; urgent_timer: the same for one that a timer
 * wakes. One CPU is left to the thread that posts, if there are two: so its own wake-ups are not
 * part of the delay.
 *
 * low_share: which part of the picks LOW tasks get while URGENT ones would take all.
 *
 * edf_*: 40 streams of tasks on one worker, each with a period of 4 to 20 ms by the end of which
 * the task of that period must be done. edf_feasible has a load of 0.8, and all streams begin at
 * once, again and again: in the order in which they come 7 of 100 tasks would be late. Nothing need
 * be late: no task is longer than 0.4 ms, so what must be done in any L >= 4 ms takes at most
 * 0.8 L + 0.4 ms. edf_overload has a load of 1.3, periods and phases at random, and much has to be
 * dropped: what counts is the time that went into tasks which ended in time, as a part of all time.
 * fifo_overload is the same without telling the deadlines to the runtime.
 *
 * classes_cost: what NORMAL tasks cost, beside the same with a library built without classes.
 */
#include "tests/bench/bench_sched.h"

#include <errno.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { SPIN_NS = 10000, BACKGROUND = 4, SAMPLES = 500, APART_NS = 400000 };
enum { FIFO = 10 };

/* The tasks in the background have had enough. */
static atomic_bool stop;

static void pause_ns(int64_t ns)
{
    nanosleep(&(struct timespec){ ns / REEVE_SEC, ns % REEVE_SEC }, NULL);
}

/* To be called before each round. Where we may, the workers run at a real-time priority: what is
 * measured here is who goes first within the runtime, and not on the machine. The kernel takes a
 * CPU away from those who use all of it for a second, so after each round there is a rest. */
static void begin_round(void)
{
    struct sched_param fifo = { .sched_priority = FIFO };
    sched_setscheduler(0, SCHED_FIFO, &fifo);
    pause_ns(200 * REEVE_MS);
}

static void emit_alone(struct bench *b, const struct bench_case *c, const char *metric,
                       double (*once)(void *), void *ctx, int cpu)
{
    struct bench_samples s = { 0 };
    if (bench_ns_alone(&s, NULL, once, ctx, b->quick ? 1 : 5, cpu) < 0)
        bench_fail(b, c->name, "the process that measured it did not end well");
    else
        bench_emit(b, c->name, metric, &s, NULL, NULL);
}

/* ---- the delay of the urgent ----------------------------------------------------------------- */

static int64_t delay[SAMPLES];
static atomic_long busy;
static sem_t over;

static unsigned spare_one_cpu(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 1 ? (unsigned)n - 1 : 1;
}

static int ascending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static double p99_us(void)
{
    qsort(delay, SAMPLES, sizeof delay[0], ascending);
    return (double)delay[SAMPLES * 99 / 100] / 1000;
}

static void leave(void)
{
    if (atomic_fetch_sub(&busy, 1) == 1)
        sem_post(&over);
}

static int compute(void *arg)
{
    (void)arg;
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        sched_spin(SPIN_NS);
        reeve_sleep(0);
    }
    return 0;
}

static int saturate(void *arg)
{
    reeve_group group = { 0 };
    for (unsigned i = 0; i < *(unsigned *)arg * BACKGROUND; i++)
        sched_must(reeve_go(compute, NULL, .group = &group));
    int r = reeve_group_wait(&group, 0);
    leave();
    return r;
}

/* Its argument holds when it was posted. */
static int urgent(void *arg)
{
    int64_t *sample = arg;
    *sample = bench_now() - *sample;
    leave();
    return 0;
}

/* Sleeps again and again, and notes how late it woke. */
static int urgent_sleeper(void *arg)
{
    (void)arg;
    for (int i = 0; i < SAMPLES; i++) {
        reeve_time at = reeve_in(APART_NS + i % 16 * 1000);
        sched_must(reeve_sleep(at));
        delay[i] = bench_now() - at;
    }
    leave();
    return 0;
}

static void post(unsigned workers, reeve_fn *fn, void *arg, int priority)
{
    atomic_fetch_add(&busy, 1);
    sched_must(reeve_post(sched_runtime(workers),
                          &(struct reeve_spawn){ .fn = fn, .arg = arg, .priority = priority }));
}

static void begin_background(unsigned *workers)
{
    static bool made;
    if (!made)
        sched_must(sem_init(&over, 0, 0));
    made = true;
    begin_round();
    *workers = spare_one_cpu();
    atomic_store(&stop, false);
    post(*workers, saturate, workers, REEVE_NORMAL);
    pause_ns(REEVE_MS);
}

/* Ends the background once the urgent are through, and waits for it. */
static void wait_until_over(void)
{
    while (atomic_load(&busy) > 1)
        pause_ns(REEVE_MS);
    atomic_store(&stop, true);
    while (sem_wait(&over) < 0)
        continue;
}

static double delay_of_posts(void *ctx)
{
    unsigned workers;
    (void)ctx;
    begin_background(&workers);
    for (int i = 0; i < SAMPLES; i++) {
        pause_ns(APART_NS);
        delay[i] = bench_now();
        post(workers, urgent, &delay[i], REEVE_URGENT);
    }
    wait_until_over();
    return p99_us();
}

static double delay_of_timers(void *ctx)
{
    unsigned workers;
    (void)ctx;
    begin_background(&workers);
    post(workers, urgent_sleeper, NULL, REEVE_URGENT);
    wait_until_over();
    return p99_us();
}

void sched_urgent(struct bench *b, const struct bench_case *c)
{
    emit_alone(b, c, "p99_us", c->arg ? delay_of_timers : delay_of_posts, NULL, -1);
}

/* ---- the share of the low -------------------------------------------------------------------- */

enum { SHARE_MS = 100, SHARE_TASKS = 4, SHARE_SPIN_NS = 1000 };

static int take_picks(void *arg)
{
    long *picks = arg; /* one worker: one thread */
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        ++*picks;
        sched_spin(SHARE_SPIN_NS);
        reeve_sleep(0);
    }
    return 0;
}

static int share(void *arg)
{
    long picks[2] = { 0, 0 };
    reeve_group group = { 0 };
    atomic_store(&stop, false);
    for (int i = 0; i < SHARE_TASKS; i++) {
        sched_must(reeve_go(take_picks, &picks[0], .priority = REEVE_LOW, .group = &group));
        sched_must(reeve_go(take_picks, &picks[1], .priority = REEVE_URGENT, .group = &group));
    }
    sched_must(reeve_sleep(reeve_in(SHARE_MS * REEVE_MS)));
    atomic_store(&stop, true);
    *(double *)arg = (double)picks[0] / (double)(picks[0] + picks[1]);
    return reeve_group_wait(&group, 0);
}

static double share_of_low(void *ctx)
{
    double low = -1;
    (void)ctx;
    begin_round();
    sched_must(reeve_call(sched_runtime(1), share, &low, 0));
    return low;
}

void sched_low_share(struct bench *b, const struct bench_case *c)
{
    emit_alone(b, c, "share", share_of_low, NULL, b->cpu_server);
}

/* ---- deadlines ------------------------------------------------------------------------------- */

enum { STREAMS = 40, JOBS_MAX = 8192 };

/* A task that comes at a time, computes for so long, and has to be done by its deadline. */
struct job {
    int64_t comes, cost, deadline;
    bool in_time;
};

struct jobs {
    struct job *job;
    int n;
    int64_t horizon;
    bool at_once; /* the streams begin together */
    bool tell;    /* the runtime knows the deadlines */
};

/* Knuth's generator for MMIX. */
static uint64_t draw(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *seed >> 33;
}

static int by_arrival(const void *a, const void *b)
{
    int64_t x = ((const struct job *)a)->comes, y = ((const struct job *)b)->comes;
    return (x > y) - (x < y);
}

/* The same each time: periods and first arrivals are drawn from a fixed seed. */
static void draw_jobs(struct jobs *jobs, double load)
{
    static const int64_t some_ms[] = { 4, 5, 8, 10, 20 }; /* they all meet every 40 ms */
    uint64_t seed = 20;
    jobs->n = 0;
    for (int s = 0; s < STREAMS; s++) {
        int64_t period = jobs->at_once ? some_ms[draw(&seed) % 5] * REEVE_MS
                                       : (4000 + (int64_t)(draw(&seed) % 16000)) * REEVE_US;
        int64_t cost = (int64_t)((double)period * load / STREAMS);
        int64_t at = jobs->at_once ? 0 : (int64_t)(draw(&seed) % (uint64_t)period);
        for (; at + period <= jobs->horizon && jobs->n < JOBS_MAX; at += period)
            jobs->job[jobs->n++] = (struct job){ at, cost, at + period, false };
    }
    qsort(jobs->job, (size_t)jobs->n, sizeof jobs->job[0], by_arrival);
}

static int do_job(void *arg)
{
    struct job *job = arg;
    sched_spin(job->cost);
    job->in_time = bench_now() <= job->deadline;
    return 0;
}

/* Spawns each when it comes, before anything else runs. Not as members of a group: one that is too
 * late to start would count as failed there, and cancel the others. */
static int let_come(void *arg)
{
    struct jobs *jobs = arg;
    int64_t t0 = reeve_now();
    for (int i = 0; i < jobs->n; i++) {
        struct job *job = &jobs->job[i];
        job->deadline += t0;
        if (reeve_now() < t0 + job->comes)
            sched_must(reeve_sleep(t0 + job->comes));
        sched_must(reeve_go(do_job, job, .priority = REEVE_NORMAL,
                            .deadline = jobs->tell ? job->deadline : 0));
    }
    return 0;
}

static int run_jobs(void *arg)
{
    reeve_task *t;
    sched_must(reeve_spawn(&t, let_come, arg, .priority = REEVE_URGENT));
    return reeve_join(t, NULL, 0);
}

struct edf {
    double load;
    bool at_once, tell;
    int64_t horizon;
};

/* Of a load that can be borne, the part of the tasks that were in time; of one that cannot, the
 * part of the time that was spent on such. */

static double edf(void *ctx)
{
    const struct edf *how = ctx;
    static struct job job[JOBS_MAX];
    struct jobs jobs = { job, 0, how->horizon, how->at_once, how->tell };
    draw_jobs(&jobs, how->load);
    begin_round();
    sched_must(reeve_call(sched_runtime(1), run_jobs, &jobs, 0));
    double tasks = 0, ns = 0;
    for (int i = 0; i < jobs.n; i++) {
        tasks += job[i].in_time;
        ns += job[i].in_time ? (double)job[i].cost : 0;
    }
    return how->load > 1 ? ns / (double)jobs.horizon : tasks / jobs.n;
}

void sched_edf(struct bench *b, const struct bench_case *c)
{
    struct edf how[] = {
        [SCHED_FEASIBLE] = { 0.8, true, true, 0 },
        [SCHED_OVERLOAD] = { 1.3, false, true, 0 },
        [SCHED_FIFO_OVERLOAD] = { 1.3, false, false, 0 },
    };
    how[c->arg].horizon = (b->quick ? 400 : 800) * REEVE_MS;
    emit_alone(b, c, "share", edf, &how[c->arg], b->cpu_server);
}

/* ---- what they cost -------------------------------------------------------------------------- */

enum { COSTS = 5, COST_ROUNDS = 9 };
static const char *const cost_names[COSTS] = { "spawn_join", "yield", "switch", "fib", "spawn" };

/* One run of a peer: the nanoseconds of each. */
static int run_peer(struct bench *b, const char *name, double *ret_ns)
{
    char command[BENCH_PATH + 128];
    snprintf(command, sizeof command, "taskset -c %d '%s/%s'", b->cpu_server, b->peerdir, name);
    FILE *f = popen(command, "r");
    if (!f)
        return -EIO;
    int n = 0;
    while (n < COSTS && fscanf(f, "%lf", &ret_ns[n]) == 1)
        n++;
    return pclose(f) == 0 && n == COSTS ? 0 : -EIO;
}

void sched_classes_cost(struct bench *b, const struct bench_case *c)
{
    double with[COSTS], without[COSTS]; /* the best: what disturbs a run only ever adds to it */
    for (int round = 0; round < (b->quick ? 3 : COST_ROUNDS); round++) {
        double ours[COSTS], one[COSTS];
        if (run_peer(b, "classes_one", one) < 0) {
            bench_skip("classes_one", "it is not built, or does not run here");
            return;
        }
        if (run_peer(b, "classes_reeve", ours) < 0) {
            bench_fail(b, c->name, "classes_reeve does not run");
            return;
        }
        for (int i = 0; i < COSTS; i++) {
            with[i] = round == 0 || ours[i] < with[i] ? ours[i] : with[i];
            without[i] = round == 0 || one[i] < without[i] ? one[i] : without[i];
        }
    }
    for (int i = 0; i < COSTS; i++) {
        struct bench_samples ours = { 0 }, one = { 0 };
        char metric[32];
        snprintf(metric, sizeof metric, "%s_ns", cost_names[i]);
        bench_add(&ours, with[i]);
        bench_add(&one, without[i]);
        bench_emit(b, c->name, metric, &ours, "one_class", &one);
    }
}
