/* SPDX-License-Identifier: MIT */
/*
 * runtime.c -- a runtime from beginning to end: making it, its threads, and the orderly end.
 *
 *     made -> running   [rv_runtime_start]   every worker's thread has attached its engine
 *     running -> closing [rv_runtime_close]  posts are refused, servers drain
 *     closing -> over   [on_done]            the last task of the work is done; who waits in
 *     reeve_shutdown is told over -> stopped   [rv_runtime_join]    the workers have left their
 *     loops
 *
 * (1) A shutdown called inside a task cannot wait for the end, which includes that task. A keeper,
 *     a task outside the work, sleeps until the deadline and cancels then; the end of the work
 *     wakes it.
 * (2) Threads of ours block all signals that are not about their own faults: a signal belongs to
 *     the host's threads. SIGPIPE with them: a broken pipe is an -EPIPE. The one that rescue and
 *     watchdog use is ours.
 * (3) That signal is given back when nobody is left who could send it, and the thread that was lent
 *     to us has eaten what was under way to it.
 *
 * Threads: make, free, start, join - one; the rest - any.
 */
#include "runtime/runtime.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "mem/alloc.h"
#include "mem/die.h"
#include "mem/fault.h"
#include "mem/forked.h"
#include "mem/thread.h"
#include "sched/cpus.h"
#include "sched/loan.h"
#include "sched/scope.h"
#include "sched/wait.h"
#include "sched/watchdog.h"

/* The work is done: tells reeve_shutdown, and the keeper. Called by whichever thread was last. */
static void on_done(struct rv_sched *s, struct rv_worker *w)
{
    struct reeve *rt = (struct reeve *)s;
    pthread_mutex_lock(&rt->lock);
    rt->over = true;
    uint64_t keeper = rt->keeper;
    rt->keeper = 0;
    pthread_cond_broadcast(&rt->changed);
    pthread_mutex_unlock(&rt->lock);
    if (keeper)
        rv_wait_fire(s, w, keeper, RV_WOKEN, UINT32_MAX);
}

/* The signal for rescue and watchdog, where they are wanted. A program that has taken every signal
 * does without rescue, unless it asked for one; the watchdog is asked for. 0 or -errno. */
static int take_signal(struct reeve *rt, const struct rv_config *config)
{
    struct rv_sched *s = &rt->sched;
    bool rescue = s->nworkers > 1 && config->rescue_signal >= 0;
    if (!rescue && config->stall_ns == 0)
        return 0;
    int number = rv_signal_take(config->rescue_signal > 0 ? config->rescue_signal : 0);
    if (number < 0)
        return config->rescue_signal > 0 || config->stall_ns ? number : 0;
    s->pid = getpid();
    s->signal = number;
    s->rescue_ns = rescue ? config->rescue_ns : 0;
    return 0;
}

int rv_runtime_make(struct reeve **ret_rt, const struct rv_config *config)
{
    struct reeve *rt = rv_alloc_aligned(sizeof *rt, RV_CACHE_LINE);
    if (rt == NULL)
        return -ENOMEM;
    memset(rt, 0, sizeof *rt);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&rt->lock, NULL);
    pthread_cond_init(&rt->changed, &attr);
    pthread_condattr_destroy(&attr);

    struct rv_sched_opts opts = config->sched;
    struct rv_caps_off off = { 0 };
    opts.engine = &rv_engine_uring;
    rv_caps_off_env(&off);
    opts.no_guard_install = off.guard_install;
    int r = rv_sched_init(&rt->sched, &opts);
    rt->sched.on_done = on_done;
    cpu_set_t cpus;
    rv_cpus_allowed(&cpus);
    rv_offload_init(&rt->offload, config->offload_max, config->name, config->cpus ? &cpus : NULL);
    rt->sched.offload = &rt->offload;
    if (r == 0)
        r = take_signal(rt, config);
    if (r == 0)
        r = rv_io_create(&rt->io, &rt->sched, &config->io);
    if (r == 0 && (rt->threads = rv_alloc_zero(opts.workers * sizeof *rt->threads)) == NULL)
        r = -ENOMEM;
    if (r < 0) {
        rv_runtime_free(rt);
        return r;
    }
    *ret_rt = rt;
    return 0;
}

void rv_runtime_free(struct reeve *rt)
{
    rv_offload_finish(&rt->offload); /* first: what it runs may know of the rest */
    if (rt->sched.signal)
        rv_signal_give(rt->sched.signal);
    rv_io_destroy(rt->io);
    rv_sched_finish(&rt->sched);
    rv_free(rt->threads);
    pthread_cond_destroy(&rt->changed);
    pthread_mutex_destroy(&rt->lock);
    rv_free(rt);
}

static void pin(int cpu)
{
    if (cpu < 0)
        return;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    pthread_setaffinity_np(pthread_self(), sizeof set,
                           &set); /* a CPU taken away meanwhile: then anywhere */
}

/* Makes the calling thread the worker's. 0 or -errno; then it is nobody's. */
static int attach(struct rv_thread *th)
{
    struct reeve *rt = th->rt;
    struct rv_worker *w = rt->sched.workers[th->worker];
    rv_worker_bind(w);
    int r = rt->sched.signal ? rv_signal_attach(&th->signals, rt->sched.signal) : 0;
    if (r == 0)
        r = rt->sched.engine->attach(w);
    if (r == 0)
        rv_loan_attach(w);
    pthread_mutex_lock(&rt->lock);
    th->attached = r < 0 ? r : 1;
    pthread_cond_broadcast(&rt->changed);
    pthread_mutex_unlock(&rt->lock);
    if (r < 0)
        rv_worker_unbind(w);
    return r;
}

/* Works until the runtime stops, and lets the thread go; it can still be sent signals. */
static void drive(struct rv_thread *th)
{
    struct rv_sched *s = &th->rt->sched;
    struct rv_worker *w = s->workers[th->worker];
    rv_worker_run(w);
    rv_loan_detach(w);
    s->engine->detach(w);
    rv_worker_unbind(w);
}

static void *thread_main(void *arg)
{
    struct rv_thread *th = arg;
    pthread_setname_np(pthread_self(), th->name);
    pin(th->cpu);
    if (attach(th) == 0)
        drive(th);
    rv_signal_detach(&th->signals); /* a stray one finds it blocked, as it was born */
    return NULL;
}

static int start_thread(struct rv_thread *th)
{
    if (RV_FAULT("thread.create"))
        return -EAGAIN;
    int r = rv_thread_start(&th->thread, thread_main, th); /* see (2) */
    th->started = r == 0;
    return r;
}

static int wait_attached(struct reeve *rt, uint32_t first)
{
    int r = 0;
    pthread_mutex_lock(&rt->lock);
    for (uint32_t i = first; i < rt->sched.nworkers; i++) {
        while (rt->threads[i].started && rt->threads[i].attached == 0)
            pthread_cond_wait(&rt->changed, &rt->lock);
        if (rt->threads[i].attached < 0)
            r = rt->threads[i].attached;
    }
    pthread_mutex_unlock(&rt->lock);
    return r;
}

int rv_runtime_start(struct reeve *rt, const struct rv_config *config, uint32_t first)
{
    int r = 0;
    if (config->stall_ns)
        r = rv_watchdog_start(&rt->sched, config->stall_ns, config->on_stall, config->stall_ctx);
    for (uint32_t i = 0; i < rt->sched.nworkers; i++) {
        struct rv_thread *th = &rt->threads[i];
        th->rt = rt;
        th->worker = i;
        th->cpu = config->cpus ? config->cpus[i] : -1;
        snprintf(th->name, sizeof th->name, "%.10s/%u", config->name, i % RV_WORKERS_MAX);
        if (r == 0 && i >= first)
            r = start_thread(th);
    }
    int attached = wait_attached(rt, first);
    if (r == 0)
        r = attached;
    if (r < 0) {
        rv_sched_close(&rt->sched);
        rv_runtime_join(rt);
    }
    return r;
}

void rv_runtime_join(struct reeve *rt)
{
    for (uint32_t i = 0; i < rt->sched.nworkers; i++) {
        if (rt->threads[i].started)
            pthread_join(rt->threads[i].thread, NULL);
        rt->threads[i].started = false;
    }
    rv_watchdog_stop(&rt->sched);
}

void rv_runtime_close(struct reeve *rt)
{
    pthread_mutex_lock(&rt->lock);
    if (!rt->draining) {
        rt->draining = true;
        rv_servers_drain(rt);
    }
    pthread_mutex_unlock(&rt->lock);
    rv_sched_close(&rt->sched);
}

void rv_runtime_cancel(struct reeve *rt)
{
    struct rv_worker *w = rv_worker_self();
    pthread_mutex_lock(&rt->lock);
    rt->cancelled = rt->cancelled || !rt->over;
    pthread_mutex_unlock(&rt->lock);
    rv_sched_cancel(&rt->sched, w && w->sched == &rt->sched ? w : NULL);
}

/* The root task of reeve_run: when it is done, so is everything else. */
struct root {
    struct reeve *rt;
    reeve_fn *fn;
    void *arg;
};

static int run_root(void *arg)
{
    struct root *root = arg;
    reeve_task *t;
    int result, r = reeve_spawn(&t, root->fn, root->arg, .name = "root");
    if (r == 0) {
        while (reeve_join(t, &result, 0) <
               0) /* cancelled: so is the child, whose end we still want */
            rv_wait_mask(rv_worker_self()->cur, true);
        r = result;
    }
    root->rt->root_result = r;
    rv_runtime_close(root->rt);
    rv_runtime_cancel(root->rt);
    return 0;
}

/* No stack was to be had for it. */
static void skip_root(void *arg)
{
    struct root *root = arg;
    root->rt->root_result = -ENOMEM;
    rv_runtime_close(root->rt);
}

/* Runs the root task in a runtime whose other workers have started, and ends it. Nothing is posted
 * before all workers are there: what fails until then, fails before the root has run. */
static int run_as_worker_0(struct reeve *rt, struct root *root)
{
    struct rv_thread *th = &rt->threads[0];
    int r = attach(th);
    bool attached = r == 0;
    if (attached)
        r = rv_sched_post(&rt->sched, &(struct reeve_spawn){ .fn = run_root,
                                                             .arg = root,
                                                             .skipped = skip_root });
    if (r < 0)
        rv_sched_close(&rt->sched);
    if (attached)
        drive(th);
    rv_runtime_join(rt);
    rv_signal_detach(&th->signals); /* (3) */
    return r < 0 ? r : rt->root_result;
}

int reeve_run_with(const struct reeve_opts *opts)
{
    if (opts == NULL || opts->fn == NULL)
        return -EINVAL;
    if (rv_worker_self() != NULL)
        return -EDEADLK;
    struct rv_config config;
    struct reeve *rt;
    int r = rv_config_fill(&config, opts);
    if (r == 0)
        r = rv_runtime_make(&rt, &config);
    if (r < 0)
        return r;
    cpu_set_t was;
    bool repin = opts->cpus && pthread_getaffinity_np(pthread_self(), sizeof was, &was) == 0;
    rt->borrowed = true;
    r = rv_runtime_start(rt, &config, 1);
    if (r == 0) {
        pin(rt->threads[0].cpu);
        r = run_as_worker_0(rt, &(struct root){ rt, opts->fn, opts->arg });
    }
    if (repin)
        pthread_setaffinity_np(pthread_self(), sizeof was, &was);
    rv_runtime_free(rt);
    return r;
}

reeve *reeve_self(void)
{
    struct rv_worker *w = rv_worker_self();
    return w && w->cur ? (reeve *)w->sched : NULL;
}

int reeve_create(reeve **ret_runtime, const struct reeve_opts *opts)
{
    struct rv_config config;
    struct reeve *rt;
    int r = rv_config_fill(&config, opts);
    if (r == 0)
        r = rv_runtime_make(&rt, &config);
    if (r < 0)
        return r;
    r = rv_runtime_start(rt, &config, 0);
    if (r == 0 && opts && opts->fn) {
        r = rv_sched_post(
            &rt->sched, &(struct reeve_spawn){ .fn = opts->fn, .arg = opts->arg, .name = "root" });
        if (r < 0) {
            rv_sched_close(&rt->sched);
            rv_runtime_join(rt);
        }
    }
    if (r < 0)
        rv_runtime_free(rt);
    else
        *ret_runtime = rt;
    return r;
}

/* Sleeps until the shutdown's deadline, and cancels what is left then. See (1). */
static int keep(void *arg)
{
    struct reeve *rt = arg;
    struct rv_worker *w = rv_worker_self();
    struct rv_task *t = w->cur;
    for (;;) {
        pthread_mutex_lock(&rt->lock);
        reeve_time at = rt->cancel_at;
        bool over = rt->over;
        if (!over)
            rt->keeper = rv_wait_arm(&rt->sched, t, 0);
        pthread_mutex_unlock(&rt->lock);
        if (over)
            return 0;
        int why = rv_wait_park(w, t, at ? at : RV_NEVER);
        w = rv_worker_self();
        pthread_mutex_lock(&rt->lock);
        rt->keeper = 0;
        bool due = !rt->over && why == RV_TIMED_OUT && rt->cancel_at == at;
        if (due)
            rt->cancel_at = 0;
        pthread_mutex_unlock(&rt->lock);
        if (due)
            rv_runtime_cancel(rt);
    }
}

/* There is no stack for a keeper: better to cancel too early than never. */
static void skip_keeper(void *arg)
{
    struct reeve *rt = arg;
    pthread_mutex_lock(&rt->lock);
    bool due = rt->cancel_at != 0;
    rt->keeping = false;
    pthread_mutex_unlock(&rt->lock);
    if (due)
        rv_runtime_cancel(rt);
}

/* Tells the keeper of a new deadline; the first to ask makes it. 0, or -EAGAIN: it could not, and
 * nothing has begun. */
static int ask_keeper(struct reeve *rt, reeve_time until)
{
    pthread_mutex_lock(&rt->lock);
    if (until && (rt->cancel_at == 0 || until < rt->cancel_at))
        rt->cancel_at = until;
    bool make = !rt->keeping;
    rt->keeping = true;
    uint64_t keeper = rt->keeper;
    rt->keeper = 0;
    pthread_mutex_unlock(&rt->lock);
    if (keeper)
        rv_wait_fire(&rt->sched, rv_worker_self(), keeper, RV_WOKEN, UINT32_MAX);
    if (!make)
        return 0;
    int r = rv_sched_keep(&rt->sched, &(struct reeve_spawn){ .fn = keep,
                                                             .arg = rt,
                                                             .skipped = skip_keeper,
                                                             .name = "keeper" });
    if (r < 0) {
        pthread_mutex_lock(&rt->lock);
        rt->keeping = false; /* the next call tries again */
        pthread_mutex_unlock(&rt->lock);
    }
    return r;
}

/* Waits until the work is done; false: the time has come before. */
static bool wait_over(struct reeve *rt, reeve_time until)
{
    struct timespec ts = { until / REEVE_SEC, until % REEVE_SEC };
    int r = 0;
    pthread_mutex_lock(&rt->lock);
    while (!rt->over && r == 0)
        r = until ? pthread_cond_timedwait(&rt->changed, &rt->lock, &ts)
                  : pthread_cond_wait(&rt->changed, &rt->lock);
    bool over = rt->over;
    pthread_mutex_unlock(&rt->lock);
    return over;
}

int reeve_shutdown(reeve *rt, reeve_time until)
{
    if (rt->sched.forks != rv_forks())
        return -ECHILD;
    struct rv_worker *w = rv_worker_self();
    if (w && w->sched == &rt->sched) {
        int r = ask_keeper(rt, until < 0 ? 1 : until);
        if (r == 0)
            rv_runtime_close(rt);
        return r;
    }
    rv_runtime_close(rt);
    if (until >= 0 ? !wait_over(rt, until) : !wait_over(rt, 1)) {
        rv_runtime_cancel(rt);
        wait_over(rt, 0);
    }
    pthread_mutex_lock(&rt->lock);
    bool cancelled = rt->cancelled;
    pthread_mutex_unlock(&rt->lock);
    return cancelled ? -ETIMEDOUT : 0;
}

void reeve_destroy(reeve *rt)
{
    if (rt == NULL || rt->sched.forks != rv_forks()) /* a copy: nothing of it can be ended here */
        return;
    struct rv_worker *w = rv_worker_self();
    if (w && w->sched == &rt->sched)
        rv_die("reeve_destroy was called inside a task of the runtime that it would destroy.");
    pthread_mutex_lock(&rt->lock);
    bool draining = rt->draining;
    pthread_mutex_unlock(&rt->lock);
    reeve_shutdown(rt, draining ? 0 : REEVE_POLL);
    rv_runtime_join(rt);
    rv_runtime_free(rt);
}
