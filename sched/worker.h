/* SPDX-License-Identifier: MIT */
/*
 * worker.h -- a worker, the scheduler that owns the workers, and the one step that every driver
 * calls.
 *
 * Fields are grouped by who writes them. Other threads read only: the published line, `parked`,
 * the inbox, the slot, the loan, and the two stealable queues. Who holds the loan does more, see
 * loan.c.
 */
#ifndef RV_SCHED_WORKER_H
#define RV_SCHED_WORKER_H

#include <stdbool.h>
#include <stdint.h>

#include "mem/local.h"
#include "mem/lock.h"
#include "mem/rv_atomic.h"
#include "mem/slab.h"
#include "mem/stack.h"
#include "sched/clock.h"
#include "sched/deque.h"
#include "sched/engine.h"
#include "sched/hists.h"
#include "sched/inbox.h"
#include "sched/lane.h"
#include "sched/task.h"
#include "sched/timers.h"

#define RV_WORKERS_MAX 1024u

/* For the few functions on the path of every switch that the compiler would not inline by itself.
 * */
#define RV_ALWAYS static inline __attribute__((always_inline))

enum { RV_RESCHED_NOW = 1, RV_RESCHED_WATCH = 2 };

/* Kinds of inbox messages. */
enum {
    RV_MSG_FRESH = 1, /* a task to start here (spawned on this worker, or posted) */
    RV_MSG_READY,     /* a woken task to resume here */
    RV_MSG_CALL,      /* struct rv_call_msg: a function to run on this worker, outside any task */
    RV_MSG_IO = 16,   /* this kind and above belong to the engine */
};

struct rv_call_msg {
    struct rv_msg msg;
    void (*fn)(struct rv_worker *w, struct rv_call_msg *m);
};

/* Plain counters of one worker, summed by whoever shows them; relaxed atomics so that reading them
 * is no race. */
struct rv_counters {
    RV_ATOMIC(uint64_t)
    spawned, cancelled, skipped, inline_runs, passes, parks, wakes_sent, steals_tried, steals_got,
        timers_fired, picks, asked, boosts, rescue_signals, loans_given, loans_taken;
    RV_ATOMIC(uint64_t)
    started[RV_CLASSES], completed[RV_CLASSES], failed[RV_CLASSES], expired[RV_CLASSES],
        late[RV_CLASSES];
};

/* Whether the worker's state is lent to another worker, and what that one looks at; see loan.c. */
struct rv_loan {
    RV_ATOMIC(uint32_t) state;   /* enum rv_loan_state; also a futex */
    RV_ATOMIC(uint32_t) in_rt;   /* 1: its thread is in reeve code; for it and its handlers */
    RV_ATOMIC(uint32_t) called;  /* index + 1 of who has sent it a signal that has not come yet */
    RV_ATOMIC(int32_t) tid;      /* of its thread; 0: it has none */
    RV_ATOMIC(int64_t) timer_at; /* its earliest timer */
    RV_ATOMIC(uint64_t) seen;    /* what it had done at the last look, written by who looks; */
    RV_ATOMIC(int64_t) seen_at;  /* and when that was new */
};

/* What the next context does for the one that has just left its stack. */
enum rv_hook { RV_HOOK_NONE, RV_HOOK_PARK, RV_HOOK_YIELD, RV_HOOK_STACK };

struct rv_worker {
    struct rv_local local; /* first: the TLS pointer leads here */
    struct rv_sched *sched;
    struct rv_task *cur;    /* the innermost running task; NULL in the scheduler's own context */
    struct rv_stack *on;    /* the stack that is running */
    struct rv_stack *spare; /* a parked context waiting for the next fresh task */
    struct rv_task *start;  /* the fresh task that the spare context is to run */
    struct rv_task *hook_task;
    struct rv_stack *hook_stack;
    enum rv_hook hook;
    int32_t budget; /* picks left in this pass */
    uint32_t index;
    uint32_t slot_run;    /* picks in a row that the slot won */
    int32_t injector_in;  /* picks until the injector is served first */
    uint32_t ready;       /* RV_READY_*: what may hold work besides NORMAL's queues */
    uint32_t hidden;      /* of these, heaps that hold nothing but pinned tasks */
    uint8_t skipped[RV_CLASSES]; /* picks in a row that a class has been passed over */
    int64_t now;          /* the clock at the start of this pass */
    uint64_t pass_tsc;    /* and the TSC */
    int32_t clock_mask;   /* the clock is looked at when budget & this is 0 */
    uint64_t mean_tsc;    /* smoothed run time of a pick; 0: unknown */
    struct rv_timers timers;
    uint32_t rng;
    uint32_t tick_shift;          /* the sentinel's back-off */
    uint64_t tick_picks;          /* the others' picks at its last tick */
    bool elders;    /* serving the injector first is this turn, not the next */
    bool searching;               /* counted in sched->searching */
    struct rv_stack thread_stack; /* the scheduler's own context */
    void *io;                     /* the engine's per-worker state */
    struct rv_fastclock clock;
    struct rv_counters n;
    struct rv_hists *hists; /* lazily touched memory */
    /* One queued entry at a time is watched: which, and when it was queued. 0: none. */
    uint64_t sample, sample_tsc;
    int64_t sample_at;
    unsigned sample_class;
    uint64_t run_tsc;       /* when the pick being timed began; 0: none is */
    unsigned run_class;
    uint64_t dated_tsc;     /* when a task taken from a heap began to run; 0: none did */
    struct rv_lane *dated_lane;
    struct rv_call_msg ask; /* to another worker: share your deadlines; see heap.c */

    RV_ALIGNED_LINE RV_ATOMIC(
        uint32_t) parked;        /* 1: in its engine's park, or about to be; see park.c */
    /* RESCHED_NOW: somebody wants a pass boundary; _WATCH: better tasks wait for I/O of ours. */
    RV_ATOMIC(uint32_t) resched;
    RV_ATOMIC(uint64_t) slot;    /* the entry just woken by the running task */
    RV_ATOMIC(uint64_t) slot_tsc;
    struct rv_loan loan;
    RV_ATOMIC(uint32_t) asking;  /* `ask` is under way */
    RV_ATOMIC(uint32_t) promote; /* somebody who is queued here was boosted; see boost.c */
    RV_ATOMIC(uint32_t) urgent_io; /* waits for I/O of this worker's by tasks above NORMAL */

    /* The published line, written only when it changes: `ready` and the earliest deadline of the
     * best class that has any. What thieves look at. */
    RV_ALIGNED_LINE RV_ATOMIC(uint32_t) shown;
    RV_ATOMIC(int64_t) shown_deadline;

    struct rv_inbox inbox;
    struct rv_lane lane[RV_CLASSES];
    uint64_t *sieve; /* as large as the deque, touched only where sifting it needs room */
    size_t sieve_bytes;
};

/* The shared queue: a list and a heap for each class; see injector.c. */
struct rv_injector {
    struct rv_lock lock;
    RV_ATOMIC(uint32_t) len;   /* of all of it */
    RV_ATOMIC(uint64_t) total; /* that ever came through */
    struct {
        struct rv_msg *head, *tail;
        RV_ATOMIC(uint32_t) len;      /* of the list */
        RV_ATOMIC(int64_t) earliest;  /* of the heap; RV_NEVER: empty */
        struct rv_timers heap;
        /* One message at a time is watched: which, and when it came. */
        const struct rv_msg *sample;
        int64_t sample_at;
    } of[RV_CLASSES];
    /* As struct rv_worker's `ready`. On a line of its own: every pick reads it, few write it. */
    RV_ALIGNED_LINE RV_ATOMIC(uint32_t) ready;
};

/* The scheduler: runtime/ embeds it as the first member of struct reeve. */
struct rv_sched {
    const struct rv_engine *engine;
    void *io; /* the engine's state for all workers */
    struct rv_offload *offload; /* for calls that block; NULL: none */
    struct rv_worker **workers;
    uint32_t nworkers;
    uint32_t tasks_max;
    uint8_t stack_class;
    uint8_t plain_kind; /* a NORMAL task with a stack of that class */
    bool light_fences; /* membarrier makes a parker's fence reach the producers */
    bool random;       /* tests: picks in any order that the queues allow */
    uint32_t forks;      /* of which process it is: rv_forks() there */
    int32_t pid, signal; /* the process, and what is sent to a worker's thread; see signal.c */
    int64_t rescue_ns; /* how long a worker may do nothing that can be seen; 0: nobody looks */
    struct rv_watchdog *watchdog; /* NULL: there is none */
    const void **sites; /* with a watchdog: where each task was spawned, by its index */
    int32_t pass_picks;
    uint32_t injector_every;
    uint64_t pass_tsc; /* a pass in TSC ticks; 0: not timed */
    uint64_t us_tsc;   /* TSC ticks in a microsecond */
    uint64_t worth_tsc; /* so much work waiting is worth waking a worker for */
    struct rv_slab tasks;
    struct rv_stack_pool stacks;
    struct rv_injector injector;
    struct rv_task *work, *keep; /* the two outermost scopes; see sched.c */
    void (*on_done)(struct rv_sched *s,
                    struct rv_worker *w); /* the work is done; the workers still run */
    void *owner;                          /* the runtime that this is part of */
    struct rv_admission *admission; /* see admit.c; NULL: whoever comes is let in */
    RV_ATOMIC(uint32_t) closing, ended;
    RV_ATOMIC(uint64_t) posted;
    RV_ATOMIC(int64_t) ease_at;  /* when surplus stacks are let go cold; 0: there were none */
    RV_ATOMIC(uint32_t) classes; /* others than NORMAL, or deadlines, were ever used */
    RV_ALIGNED_LINE RV_ATOMIC(uint32_t) nparked;
    RV_ATOMIC(uint32_t) searching;
    RV_ATOMIC(uint32_t) sentinel;      /* worker index + 1 of the one that ticks; 0: none */
    RV_ATOMIC(uint32_t) stopping;      /* workers leave their loop when idle */
    RV_ATOMIC(uint64_t) foreign_wakes; /* wakes sent by foreign threads */
};

/* The worker of the calling thread, NULL on a foreign one. Never inlined: its value changes across
 * a suspension. */
static inline struct rv_worker *rv_worker_self(void)
{
    return (struct rv_worker *)rv_local_get();
}

static inline struct rv_task *rv_task_at(struct rv_sched *s, uint32_t idx)
{
    RV_ASSERT(idx < s->tasks.cap);
    return (struct rv_task *)s->tasks.base + idx;
}
static inline uint32_t rv_task_index(struct rv_sched *s, const struct rv_task *t)
{
    return (uint32_t)(t - (const struct rv_task *)s->tasks.base);
}

/* Counters have one writer, so a load and a store do. */
static inline void rv_count(RV_ATOMIC(uint64_t) * c, uint64_t n)
{
    rv_store_relaxed(c, rv_load_relaxed(c) + n);
}

/* ---- worker.c: one pass ---- */

int rv_worker_init(struct rv_worker *w, struct rv_sched *s, uint32_t index);
void rv_worker_finish(struct rv_worker *w);
/* Binds the calling thread to the worker (thread driver: once; the simulator: before each step)
 * and unbinds it. */
void rv_worker_bind(struct rv_worker *w);
void rv_worker_unbind(struct rv_worker *w);
/* One pass: inbox, timers, picks within the budget, one submit-and-reap. Never blocks. Returns
 * true if anything ran or was dispatched. */
bool rv_worker_step(struct rv_worker *w);
/* True if the worker has something to run or dispatch right now, by its own queues. */
bool rv_worker_has_work(struct rv_worker *w);
/* Until when it may idle: its next timer, RV_NEVER. */
int64_t rv_worker_until(struct rv_worker *w);
/* Gives a thread to the worker until the scheduler stops: the thread driver. */
void rv_worker_run(struct rv_worker *w);
int64_t rv_worker_now(struct rv_worker *w);

/* ---- park.c ---- */

void rv_park(struct rv_worker *w);
void rv_wake_one(struct rv_sched *s); /* after publishing stealable or injected work */
void rv_wake_worker(struct rv_sched *s, struct rv_worker *to); /* after publishing into its inbox */
/* The same in a signal handler: not counted. */
void rv_wake_quietly(struct rv_sched *s, struct rv_worker *to);
void rv_fences_init(struct rv_sched *s);
/* Sends a message to a worker's inbox and wakes it if it is parked. Any thread. */
void rv_send(struct rv_sched *s, struct rv_worker *to, struct rv_msg *m, uint8_t kind);

#endif
