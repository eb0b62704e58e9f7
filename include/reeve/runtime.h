/* SPDX-License-Identifier: MIT */
/** runtime.h -- a runtime: run it, or keep it beside your own threads and post to it.
 *
 * A runtime is a set of workers, each a thread with an io_uring of its own. reeve_run is for
 * programs that are reeve programs; reeve_create, _post, _call, _shutdown and _destroy are for
 * programs that have threads of their own. A process may hold several runtimes.
 */
#ifndef REEVE_RUNTIME_H
#define REEVE_RUNTIME_H

#include <reeve/task.h>
#include <reeve/time.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct reeve reeve;

/** Where 0 means a default, this means none at all. */
#define REEVE_NONE UINT_MAX

/** What a runtime should be good at. */
enum { REEVE_BALANCED, REEVE_THROUGHPUT, REEVE_LATENCY };

/** What a runtime is made of. Zero is the default everywhere. */
struct reeve_opts {
    /** The root task. reeve_run needs it; with reeve_create NULL means that all work is posted. */
    reeve_fn *fn;
    void *arg;

    /** REEVE_BALANCED, _THROUGHPUT or _LATENCY. Validated; it has no effect in this version. */
    int preset;

    /** Of its threads, as ps and gdb show them: NAME/0, NAME/1 ... NULL: "reeve". */
    const char *name;

    /** Number of workers, 1024 at most. 0: one per CPU that this process may use (by affinity and
     * cgroup quota). */
    unsigned workers;

    /** Worker i runs on CPU cpus[i]; as many entries as workers, which must be given then. It is
     * read during the call only. NULL: not pinned. */
    const int *cpus;

    /** As many tasks as can surely be alive at a time, 0: 1 Mi. Beyond that spawn and post say
     * -EAGAIN, at the latest when each worker holds some more (128). */
    unsigned tasks_max;

    /** Threads for calls that block. In this version it is validated and has no effect. */
    unsigned offload_max;

    /** What a task may use of its stack unless its spawn says otherwise, 4 KiB .. 1 MiB. 0: 64 KiB.
     * Address space is reserved generously, memory is taken only as it is touched. */
    size_t stack_bytes;

    /** The size of a leased buffer, 0: 16 KiB; and how many each worker has, 0: 1024. */
    size_t buf_bytes, bufs;

    /** Every how many picks a worker serves posted and oldest work first. 0: 61. */
    unsigned injector_every;

    /** A worker looks at its I/O after this many picks, 0: 61; or this much time, 0: 100 us. */
    unsigned pass_picks;
    int64_t pass_ns;

    /** A signal used to fetch completions for a worker that is stuck in user code. 0: the default;
     * -1: off. In this version it is validated and has no effect. */
    int rescue_signal;

    /** You turn worker 0 in your own loop. It comes with reeve_turn; until then -ENOTSUP. */
    bool embed;
};

/** Runs a runtime in the calling thread, which becomes worker 0, until the root task is done, and
 * takes it down again.
 *
 * The root task's result; or why the runtime could not start, before fn ran: -EINVAL: no fn, or an
 * option out of range; -ENOTSUP: embed; -ENOSYS, -EPERM, -EOPNOTSUPP: no io_uring that will do
 * (reeve_check says why, and the remedy); -ENOMEM, -EAGAIN, -EMFILE: memory, threads or descriptors
 * are short; -EDEADLK: called inside a task.
 *     int r = reeve_run(serve, "127.0.0.1:7000", .workers = 4);
 *     return r < 0 ? fprintf(stderr, "echo: %s\n", strerror(-r)), 1 : 0; */
REEVE_API int reeve_run_with(const struct reeve_opts *opts);

#ifndef __cplusplus /* C++ fills the struct and calls _with */

/** reeve_run(fn, arg [, .workers = ..., any field of struct reeve_opts]) */
#define reeve_run(f, ...) reeve_run_with(&(struct reeve_opts){ .fn = (f), .arg = __VA_ARGS__ })

#endif

/** The runtime of the calling task; NULL outside a task. */
REEVE_API reeve *reeve_self(void);

/** Starts a runtime with all its workers in threads of their own. opts NULL: all defaults. If it
 * has a root task, that has been posted when this returns. *ret_runtime is yours: reeve_destroy it.
 * 0, or the start-up errors of reeve_run_with. */
REEVE_API int reeve_create(reeve **ret_runtime, const struct reeve_opts *opts);

/** Can reeve run here? 0, or -errno, and then a sentence for people with the cause and the remedy
 * is in sentence, cut to cap bytes with its final 0. Any thread.
 *     char why[256];
 *     if (reeve_check(why, sizeof why) < 0) return fprintf(stderr, "%s\n", why), 1; */
REEVE_API int reeve_check(char *sentence, size_t cap);

/** Spawns a task from outside, from any thread at all (a task may post too). It belongs to the
 * runtime's own scope: it has no handle, inherits no deadline, and is of NORMAL priority unless
 * *how says otherwise. how->group must be NULL.
 *
 * 0: either fn or skipped will be called, exactly once. -EAGAIN: tasks_max tasks are alive;
 * -ESHUTDOWN: the runtime is shutting down; -EINVAL, -E2BIG, -ENOMEM: as for reeve_spawn_with. */
REEVE_API int reeve_post(reeve *runtime, const struct reeve_spawn *how);

/** Runs fn(arg) in a task and blocks the calling thread for the result. The deadline becomes the
 * task's: it never starts after it, and its waits fail. The call returns when the task is done,
 * late if fn computes on, because arg may be on the caller's stack.
 *
 * fn's result; or -ETIMEDOUT, -ECANCELED, -ENOMEM: it never started; -EAGAIN, -ESHUTDOWN: it was
 * not posted; -EDEADLK: called inside a task. */
REEVE_API int reeve_call(reeve *runtime, reeve_fn *fn, void *arg, reeve_time until);

/** Ends a runtime in order: refuses posts, drains every server (serve.h), waits for the root task
 * and for what was posted; when until has passed (0: no bound), cancels what is left and waits for
 * that. Blocks the calling thread. Inside a task of this runtime it starts the same and returns 0
 * at once. Calling it again is allowed: an earlier deadline counts.
 *
 * 0: everything ended by itself. -ETIMEDOUT: something had to be cancelled. */
REEVE_API int reeve_shutdown(reeve *runtime, reeve_time until);

/** Takes a runtime down: shuts it down with REEVE_POLL if that has not been done, joins its
 * threads, frees everything, leases included. No other thread may use it any more. NULL: does
 * nothing. Inside a task of this runtime: abort. */
REEVE_API void reeve_destroy(reeve *runtime);

/** What happened so far: sums over all workers. Each is a plain counter that only grows, except the
 * gauges (workers and those that end in _live). They are read while the workers go on, so they are
 * not a snapshot of one moment. */
struct reeve_stats {
    /* tasks */
    uint64_t workers;     /* gauge: as many as there are */
    uint64_t spawned;     /* by spawn, post and call, the root task included */
    uint64_t started;     /* function entered */
    uint64_t completed;   /* function returned and scope empty */
    uint64_t cancelled;   /* never started: cancelled or shut down */
    uint64_t expired;     /* never started: deadline passed in the queue */
    uint64_t skipped;     /* never started, for any reason */
    uint64_t failed;      /* returned < 0 */
    uint64_t tasks_live;  /* gauge: spawned and not yet over */
    /* gauge: stacks that belong to a task, or lie ready at hand of a worker */
    uint64_t stacks_live;

    /* scheduling */
    uint64_t polls;        /* picks: a task was started or resumed */
    uint64_t inline_runs;  /* children run by their joiner, on its stack */
    uint64_t passes;       /* rounds of picks that ended in one submit-and-reap */
    uint64_t parks;        /* times a worker went to sleep */
    uint64_t wakes_sent;   /* wake-ups sent to a sleeping worker */
    uint64_t steals_tried; /* looks into another worker's queues */
    uint64_t steals_got;   /* of these, with something in hand */
    uint64_t injected;     /* tasks that came through the shared queue */
    uint64_t timers_fired; /* deadlines and sleeps that came to pass */

    /* the rings */
    uint64_t enters;       /* io_uring_enter calls */
    uint64_t sqes;         /* operations submitted */
    uint64_t cqes;         /* completions reaped */
    uint64_t cq_overflows; /* completions that the kernel had to keep back */
    uint64_t enobufs;      /* receives that found no buffer and waited */
    uint64_t lease_waits;  /* borrows that had to wait */
    uint64_t heap_leases;  /* leases that were served from the heap */

    /* servers */
    uint64_t conns_live; /* gauge: connections with a handler */
    uint64_t accepted;   /* connections accepted */
    uint64_t shed;       /* connections refused or delayed at conns_max */
    uint64_t emfile;     /* times accepting paused for want of descriptors */
};

/** Adds up the counters of all workers. Any thread. */
REEVE_API void reeve_stats(reeve *runtime, struct reeve_stats *ret_stats);

#ifdef __cplusplus
}
#endif
#endif /* REEVE_RUNTIME_H */
