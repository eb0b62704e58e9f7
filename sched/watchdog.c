/* SPDX-License-Identifier: MIT */
/*
 * watchdog.c -- who keeps a worker for too long, and where.
 *
 * A thread comes round four times per stall_ns and compares each worker's counters with what they
 * were. A worker that is not parked and has done nothing for that long is asked where it is, by a
 * signal: the handler, on the worker's own thread, knows the running task and can walk its stack.
 *
 *     NOTHING  -> ASKED      [ask]              the watchdog, before it sends the signal
 *     ASKED    -> ANSWERING  [rv_watch_called]  the handler
 *     ANSWERING -> ANSWERED  [rv_watch_called]  and the watchdog is told
 *     ANSWERED -> NOTHING    [ask]              it has read the answer
 *     ASKED    -> NOTHING    [ask]              no answer: the thread sleeps in the kernel, say
 *
 * (1) While it is ASKED nobody writes the answer; from ANSWERING to ANSWERED the handler does, from
 *     then on the watchdog reads it.
 * (2) A stall is reported once, and at most REPORTS_MAX in a second; the rest are counted, and the
 *     next report says how many.
 * (3) on_stall is called by the watchdog's thread, never in a handler.
 * (4) The unwinder is loaded before the first signal: its first use allocates. The walk ends where
 *     a task's stack begins: context_x86_64.S says so to every unwinder.
 *
 * Threads: start, stop - one, while no worker runs; called - the worker's, in a handler; all else -
 * the watchdog's.
 */
#include "sched/watchdog.h"

#include <errno.h>
#include <execinfo.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "mem/alloc.h"
#include "mem/die.h"
#include "mem/fault.h"
#include "sched/task.h"

enum { FRAMES_MAX = 48, LOOKS = 4, REPORTS_MAX = 10 };
#define LOOK_MIN_NS REEVE_MS
#define LOOK_MAX_NS REEVE_SEC
#define ANSWER_NS (50 * REEVE_MS) /* how long a thread may take to take a signal */

enum { NOTHING, ASKED, ANSWERING, ANSWERED };

/* What the watchdog knows of one worker. */
struct rv_watched {
    RV_ATOMIC(uint32_t) state;

    /* The answer. */
    const char *task;
    const void *site;
    bool in_task; /* or in one's `skipped`: not in the scheduler */
    int nframes;
    void *frames[FRAMES_MAX];

    /* The watchdog's own. */
    uint64_t did;
    int64_t since;
    bool reported;
};

struct rv_watchdog {
    struct rv_sched *sched;
    int64_t stall_ns;
    void (*on_stall)(void *ctx, const struct reeve_stall *stall);
    void *ctx;
    struct rv_watched *workers;
    sem_t answered;
    pthread_t thread;

    pthread_mutex_t lock; /* guards stop */
    pthread_cond_t changed;
    bool stop;

    int64_t second; /* when the second began in which so many were reported */
    unsigned in_second;
    uint64_t unreported;
    RV_ATOMIC(uint64_t) stalls;
};

/* ---- the handler ----------------------------------------------------------------------------- */

/* The program counter that the signal interrupted. */
static const void *interrupted_at(const void *context)
{
#if defined(__x86_64__)
    return (const void *)((const ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
    return (const void *)((const ucontext_t *)context)->uc_mcontext.pc;
#else
    (void)context;
    return NULL;
#endif
}

void rv_watch_called(struct rv_worker *w, void *context)
{
    struct rv_watchdog *dog = w->sched->watchdog;
    if (dog == NULL)
        return;
    struct rv_watched *q = &dog->workers[w->index];
    uint32_t asked = ASKED;
    if (!rv_cas(&q->state, &asked, (uint32_t)ANSWERING)) /* pairs with ask() */
        return;
    struct rv_task *t = w->cur;
    q->task = t ? t->name : NULL;
    q->site = t ? w->sched->sites[rv_task_index(w->sched, t)] : NULL;
    q->in_task = t != NULL || !rv_load_relaxed(&w->loan.in_rt);
    q->nframes = 0;
    if (q->in_task) {
        int n = backtrace(q->frames, FRAMES_MAX), first = 0;
        const void *pc = interrupted_at(context);
        for (int i = 0; i < n && first == 0; i++)
            if (q->frames[i] == pc)
                first = i; /* what is above it is ours */
        q->nframes = n - first;
        memmove(q->frames, q->frames + first, (size_t)(n - first) * sizeof *q->frames);
    }
    rv_store_release(&q->state, (uint32_t)ANSWERED); /* publishes the answer; pairs with ask() */
    sem_post(&dog->answered);
}

/* ---- the watchdog ---------------------------------------------------------------------------- */

static bool await_answer(struct rv_watchdog *dog, struct rv_watched *q)
{
    int64_t until = rv_clock_ns() + ANSWER_NS;
    struct timespec ts = { until / REEVE_SEC, until % REEVE_SEC };
    int r;
    while ((r = sem_clockwait(&dog->answered, CLOCK_MONOTONIC, &ts)) < 0 && errno == EINTR)
        ;
    uint32_t asked = ASKED;
    if (r < 0 && rv_cas(&q->state, &asked, (uint32_t)NOTHING))
        return false;
    while (r < 0 && (r = sem_wait(&dog->answered)) < 0) /* the handler is just at it */
        RV_MUST(errno == EINTR);
    return true;
}

/* Whether the worker has said where it is. */
static bool ask(struct rv_watchdog *dog, struct rv_worker *w, struct rv_watched *q)
{
    struct rv_sched *s = dog->sched;
    int32_t tid = rv_load_acquire(&w->loan.tid);
    if (tid == 0)
        return false;
    rv_store_release(&q->state, (uint32_t)ASKED); /* pairs with rv_watch_called() */
    if (syscall(SYS_tgkill, s->pid, tid, s->signal) < 0) {
        rv_store_relaxed(&q->state, (uint32_t)NOTHING);
        return false;
    }
    if (!await_answer(dog, q))
        return false;
    RV_MUST(rv_load_acquire(&q->state) == ANSWERED); /* pairs with rv_watch_called() */
    rv_store_relaxed(&q->state, (uint32_t)NOTHING);
    return true;
}

static void report(struct rv_watchdog *dog, struct rv_worker *w, struct rv_watched *q, bool known,
                   int64_t now)
{
    q->reported = true;
    rv_add_relaxed(&dog->stalls, (uint64_t)1);
    if (now - dog->second >= REEVE_SEC) {
        dog->second = now;
        dog->in_second = 0;
    }
    if (dog->in_second++ >= REPORTS_MAX) {
        dog->unreported++;
        return;
    }
    struct reeve_stall stall = { .task = known ? q->task : NULL,
                                 .spawn_site = known ? q->site : NULL,
                                 .ns = now - q->since,
                                 .worker = w->index,
                                 .frames = q->frames,
                                 .nframes = known ? (unsigned)q->nframes : 0,
                                 .unreported = dog->unreported };
    dog->unreported = 0;
    dog->on_stall(dog->ctx, &stall);
}

static void look_at(struct rv_watchdog *dog, struct rv_worker *w, struct rv_watched *q)
{
    int64_t now = rv_clock_ns();
    uint64_t did = rv_load_relaxed(&w->n.picks) + rv_load_relaxed(&w->n.inline_runs) +
                   rv_load_relaxed(&w->n.passes) + rv_load_relaxed(&w->n.parks);
    if (did != q->did || rv_load_relaxed(&w->parked) != 0) {
        q->did = did;
        q->since = rv_clock_ns(); /* not `now`: this thread may have stood still before it looked */
        q->reported = false;
        return;
    }
    if (q->reported || now - q->since < dog->stall_ns || rv_load_relaxed(&w->loan.tid) == 0)
        return;
    bool known = ask(dog, w, q);
    if (!known || q->in_task)
        report(dog, w, q, known, now);
    else
        q->since = now; /* a long way through the scheduler, not a task */
}

/* Sleeps until the next look. False: there is none. */
static bool wait(struct rv_watchdog *dog, int64_t ns)
{
    int64_t until = rv_clock_ns() + ns;
    struct timespec ts = { until / REEVE_SEC, until % REEVE_SEC };
    int r = 0;
    pthread_mutex_lock(&dog->lock);
    while (!dog->stop && r == 0)
        r = pthread_cond_timedwait(&dog->changed, &dog->lock, &ts);
    bool stop = dog->stop;
    pthread_mutex_unlock(&dog->lock);
    return !stop;
}

static void *watch(void *arg)
{
    struct rv_watchdog *dog = arg;
    struct rv_sched *s = dog->sched;
    int64_t ns = dog->stall_ns / LOOKS;
    ns = ns < LOOK_MIN_NS ? LOOK_MIN_NS : ns > LOOK_MAX_NS ? LOOK_MAX_NS : ns;
    pthread_setname_np(pthread_self(), "reeve/watchdog");
    while (wait(dog, ns))
        for (uint32_t i = 0; i < s->nworkers; i++)
            look_at(dog, s->workers[i], &dog->workers[i]);
    return NULL;
}

/* ---- its beginning and its end --------------------------------------------------------------- */

static void preload_unwinder(void)
{
    void *frames[1];
    (void)backtrace(frames, 1);
}

static void release(struct rv_watchdog *dog)
{
    sem_destroy(&dog->answered);
    pthread_cond_destroy(&dog->changed);
    pthread_mutex_destroy(&dog->lock);
    rv_free(dog->workers);
    rv_free(dog);
}

/* With every signal blocked: they are for the program's threads. */
static int start_thread(struct rv_watchdog *dog)
{
    sigset_t all, was;
    if (RV_FAULT("thread.create"))
        return -EAGAIN;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &was);
    int r = pthread_create(&dog->thread, NULL, watch, dog);
    pthread_sigmask(SIG_SETMASK, &was, NULL);
    return -r;
}

int rv_watchdog_start(struct rv_sched *s, int64_t stall_ns,
                      void (*on_stall)(void *ctx, const struct reeve_stall *stall), void *ctx)
{
    RV_ASSERT(s->signal > 0 && s->watchdog == NULL);
    struct rv_watchdog *dog = rv_alloc_zero(sizeof *dog);
    if (dog == NULL)
        return -ENOMEM;
    dog->sched = s;
    dog->stall_ns = stall_ns;
    dog->on_stall = on_stall;
    dog->ctx = ctx;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&dog->changed, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&dog->lock, NULL);
    sem_init(&dog->answered, 0, 0);
    dog->workers = rv_alloc_zero(s->nworkers * sizeof *dog->workers);
    s->sites = rv_map_lazy(s->tasks.cap * sizeof *s->sites);
    preload_unwinder();
    s->watchdog = dog;
    int r = dog->workers && s->sites ? start_thread(dog) : -ENOMEM;
    if (r < 0) {
        release(dog);
        s->watchdog = NULL;
    }
    return r;
}

void rv_watchdog_stop(struct rv_sched *s)
{
    struct rv_watchdog *dog = s->watchdog;
    if (dog) {
        pthread_mutex_lock(&dog->lock);
        dog->stop = true;
        pthread_cond_signal(&dog->changed);
        pthread_mutex_unlock(&dog->lock);
        pthread_join(dog->thread, NULL);
        s->watchdog = NULL;
        release(dog);
    }
    if (s->sites)
        rv_unmap(s->sites, s->tasks.cap * sizeof *s->sites);
    s->sites = NULL;
}

uint64_t rv_watchdog_stalls(const struct rv_sched *s)
{
    return s->watchdog ? rv_load_relaxed(&s->watchdog->stalls) : 0;
}
