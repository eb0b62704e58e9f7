/* SPDX-License-Identifier: MIT */
/*
 * sched_many.c -- the benchmarks of tokio's multi-thread scheduler, rebuilt.
 *
 * What they do is what tokio's benches/rt_multi_threaded.rs does, with one worker per CPU; the
 * peer program does it with tokio. The time is taken on a thread that is no worker, from before the
 * first spawn until that thread knows that all is done. One operation is: spawn_many_*, a task;
 * yield_many, a yield; ping_pong, a pair of tasks and two messages; chained_spawn, a link.
 *
 *     spawn_many_local    10 000 tasks spawned by a task
 *     ..._remote_idle     10 000 tasks posted by this thread to workers that sleep
 *     ..._remote_busy1    the same while two tasks per CPU compute 10 us and yield, for ever
 *     ..._remote_busy2    1 000 tasks while one task per CPU computes 10 us and spawns the next
 *     yield_many          200 tasks of 1 000 yields, posted by this thread
 *     ping_pong           1 000 tasks, each with a child that answers its message
 *     chained_spawn       a task that spawns a task that spawns ... 1 000 deep
 */
#include "tests/bench/bench_sched.h"

#include <errno.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <unistd.h>

enum { SPAWNS = 10000, SPAWNS_BUSY2 = 1000, PINGS = 1000, LINKS = 1000 };
enum { TASKS = 200, YIELDS = 1000, STALL_NS = 10000, ROUND_NS = 100000000 };

static atomic_long left; /* of what has to be done */
static sem_t all_done;   /* for the thread that waits */
static atomic_bool busy; /* the tasks in the background go on */
static atomic_long stallers;

static int count_down(void *arg)
{
    (void)arg;
    if (atomic_fetch_sub_explicit(&left, 1, memory_order_acq_rel) == 1)
        sem_post(&all_done);
    return 0;
}

static void wait_for_all(void)
{
    while (sem_wait(&all_done) < 0)
        continue;
}

/* The runtime, one worker per CPU. */
static reeve *begin(void)
{
    static reeve *rt;
    if (rt == NULL) {
        sched_must(sem_init(&all_done, 0, 0));
        rt = sched_runtime(0);
    }
    return rt;
}

/* Does it `times` times; the mean of an operation in ns. */
static double repeat(void (*once)(reeve *), int times, double ops)
{
    reeve *rt = begin();
    int64_t t0 = bench_now();
    for (int i = 0; i < times; i++)
        once(rt);
    return (double)(bench_now() - t0) / times / ops;
}

/* ---- many spawns ----------------------------------------------------------------------------- */

static int spawn_here(void *arg)
{
    (void)arg;
    for (int i = 0; i < SPAWNS; i++)
        sched_must(reeve_go(count_down, NULL));
    return 0;
}

static void spawn_many_local(reeve *rt)
{
    atomic_store(&left, SPAWNS);
    sched_must(reeve_post(rt, &(struct reeve_spawn){ .fn = spawn_here }));
    wait_for_all();
}

double sched_spawn_many_local(void *ctx)
{
    (void)ctx;
    return repeat(spawn_many_local, 10, SPAWNS);
}

/* How many of the tasks that are posted at a time, see enough_for(). */
static int posts = SPAWNS;

static void spawn_many_remote(reeve *rt)
{
    atomic_store(&left, posts);
    for (int i = 0; i < posts; i++)
        sched_must(reeve_post(rt, &(struct reeve_spawn){ .fn = count_down }));
    wait_for_all();
}

double sched_spawn_many_remote_idle(void *ctx)
{
    (void)ctx;
    return repeat(spawn_many_remote, 5, SPAWNS);
}

/* ---- ... while the workers are busy ---------------------------------------------------------- */

static void stall(void)
{
    int64_t until = bench_now() + STALL_NS;
    while (bench_now() < until)
        sched_yield();
}

static void staller_ends(void)
{
    if (atomic_fetch_sub(&stallers, 1) == 1)
        sem_post(&all_done);
}

static int stall_and_yield(void *arg)
{
    (void)arg;
    while (atomic_load_explicit(&busy, memory_order_relaxed)) {
        reeve_sleep(0);
        stall();
    }
    staller_ends();
    return 0;
}

/* Posted, as a task in the scope of its predecessor would keep that one alive for ever. */
static int stall_and_respawn(void *arg)
{
    if (!atomic_load_explicit(&busy, memory_order_relaxed)) {
        staller_ends();
        return 0;
    }
    stall();
    sched_must(
        reeve_post(reeve_self(), &(struct reeve_spawn){ .fn = stall_and_respawn, .arg = arg }));
    return 0;
}

/* So many, or, where a task takes so long that a round would take longer than ROUND_NS, fewer. */
static int enough_for(int n)
{
    enum { FEW = 100 };
    posts = FEW;
    double each = repeat(spawn_many_remote, 1, FEW);
    if (each * n > ROUND_NS)
        n = (int)(ROUND_NS / each);
    return n > FEW ? n : FEW;
}

static double while_busy(reeve_fn *staller, int n, int tasks)
{
    static int enough;
    atomic_store(&busy, true);
    atomic_store(&stallers, n);
    for (int i = 0; i < n; i++)
        sched_must(reeve_post(begin(), &(struct reeve_spawn){ .fn = staller }));
    if (enough == 0)
        enough = enough_for(tasks);
    posts = enough;
    double ns = repeat(spawn_many_remote, posts == tasks ? 3 : 1, posts);
    atomic_store(&busy, false);
    wait_for_all();
    return ns;
}

static int workers(void)
{
    struct reeve_stats stats;
    reeve_stats(begin(), &stats);
    return (int)stats.workers;
}

double sched_spawn_many_remote_busy1(void *ctx)
{
    (void)ctx;
    return while_busy(stall_and_yield, 2 * workers(), SPAWNS);
}

double sched_spawn_many_remote_busy2(void *ctx)
{
    (void)ctx;
    return while_busy(stall_and_respawn, workers(), SPAWNS_BUSY2);
}

/* ---- yields ---------------------------------------------------------------------------------- */

static int yield_often(void *arg)
{
    for (int i = 0; i < YIELDS; i++)
        reeve_sleep(0);
    return count_down(arg);
}

static void yield_many(reeve *rt)
{
    atomic_store(&left, TASKS);
    for (int i = 0; i < TASKS; i++)
        sched_must(reeve_post(rt, &(struct reeve_spawn){ .fn = yield_often }));
    wait_for_all();
}

double sched_yield_many(void *ctx)
{
    (void)ctx;
    return repeat(yield_many, 3, (double)TASKS * YIELDS);
}

/* ---- messages to and fro --------------------------------------------------------------------- */

struct wires {
    reeve_chan *there, *back;
};

static reeve_chan *make_wire(void)
{
    reeve_chan *c = reeve_chan_create(0, 1);
    if (c == NULL)
        sched_must(-ENOMEM);
    return c;
}

static int pong(void *arg)
{
    struct wires wires = *(struct wires *)arg;
    sched_must(reeve_chan_recv(wires.there, NULL, 0));
    sched_must(reeve_chan_send(wires.back, NULL, 0));
    return 0;
}

static int ping(void *arg)
{
    struct wires wires = { make_wire(), make_wire() };
    sched_must(reeve_go(pong, &wires));
    sched_must(reeve_chan_send(wires.there, NULL, 0));
    sched_must(reeve_chan_recv(wires.back, NULL, 0));
    reeve_chan_destroy(wires.there);
    reeve_chan_destroy(wires.back);
    return count_down(arg);
}

static int spawn_pings(void *arg)
{
    (void)arg;
    for (int i = 0; i < PINGS; i++)
        sched_must(reeve_go(ping, NULL));
    return 0;
}

static void ping_pong(reeve *rt)
{
    atomic_store(&left, PINGS);
    sched_must(reeve_post(rt, &(struct reeve_spawn){ .fn = spawn_pings }));
    wait_for_all();
}

double sched_ping_pong(void *ctx)
{
    (void)ctx;
    return repeat(ping_pong, 20, PINGS);
}

/* ---- a chain --------------------------------------------------------------------------------- */

/* All links are members of one group: in the scope of its predecessor, each would keep it alive.
 * Only one link is there at a time, so they share what they know. */
struct chain {
    reeve_group group;
    int below;
};

static int next_link(void *arg)
{
    struct chain *chain = arg;
    if (chain->below-- == 0)
        return count_down(NULL);
    return reeve_go(next_link, chain, .group = &chain->group);
}

static int first_link(void *arg)
{
    struct chain chain = { .below = LINKS };
    (void)arg;
    next_link(&chain);
    return reeve_group_wait(&chain.group, 0);
}

static void chained_spawn(reeve *rt)
{
    atomic_store(&left, 1);
    sched_must(reeve_post(rt, &(struct reeve_spawn){ .fn = first_link }));
    wait_for_all();
}

double sched_chained_spawn(void *ctx)
{
    (void)ctx;
    return repeat(chained_spawn, 20, LINKS);
}
