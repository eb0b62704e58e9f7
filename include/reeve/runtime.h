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

/** A task that keeps its worker for too long, as on_stall of struct reeve_opts gets to know it. It
 * and what it points to are good during the call only. */
struct reeve_stall {
    /** The task's name; NULL: it has none, or none that could be found out. */
    const char *task;

    /** The code address of the spawn that made it, for addr2line or a debugger; NULL: it was
     * posted, is a server's connection, or unknown. */
    const void *spawn_site;

    /** For how long already, and on which worker. */
    int64_t ns;
    unsigned worker;

    /** Where it is, innermost call first, for backtrace_symbols or addr2line. nframes 0: its thread
     * did not answer within 50 ms; it sleeps in the kernel, then. */
    void *const *frames;
    unsigned nframes;

    /** Stalls since the last report that were counted and not reported. */
    uint64_t unreported;
};

/** What a runtime is made of. Zero is the default everywhere. */
struct reeve_opts {
    /** The root task. reeve_run needs it; with reeve_create NULL means that all work is posted. */
    reeve_fn *fn;
    void *arg;

    /** What injector_every, pass_picks and pass_ns are when they are 0, and when a sleeping worker
     * is woken to take over what waits behind another:
     *     REEVE_BALANCED    61, 61, 100 us; for 50 us of work
     *     REEVE_THROUGHPUT  61, 244, 500 us; for 200 us: fewer, larger rounds
     *     REEVE_LATENCY     31, 16, 25 us; for 5 us: I/O is looked at more often, at its price */
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

    /** Threads for calls that block (offload.h), 4096 at most. They are made as calls need them and
     * go when they are idle. 0: 4 for each CPU that this process may use; REEVE_NONE: none, and
     * such calls say -ENOTSUP. */
    unsigned offload_max;

    /** What a task may use of its stack unless its spawn says otherwise, 4 KiB .. 1 MiB. 0: 64 KiB.
     * Address space is reserved generously, memory is taken only as it is touched. */
    size_t stack_bytes;

    /** The size of a leased buffer, 0: 16 KiB; and how many each worker has, 0: 1024. */
    size_t buf_bytes, bufs;

    /** Every how many picks a worker serves posted work first. 0: the preset's. */
    unsigned injector_every;

    /** A worker looks at its I/O after this many picks, or this much time. 0: the preset's. */
    unsigned pass_picks;
    int64_t pass_ns;

    /** Where work enters (reeve_post, reeve_call, the connections of a server) it is refused, with
     * -EAGAIN or by closing the connection, when as many of its class have entered and not yet
     * started. By class, LOW first; 0: no bound. */
    unsigned waiting_max[4];

    /** The same when the queue of its class stands: for 100 ms all that were watched have waited
     * longer than this. 0: no bound. */
    int64_t delay_max_ns;

    /** While a task computes for long, or blocks its thread, other workers do its worker's I/O:
     * they send that thread a signal, whose handler fetches what has completed. 0: by a real-time
     * signal that nobody handles, or not at all if there is none; > 0: by this one; -1: not at all.
     * With one worker there is nobody to do it. The signal is taken when the runtime starts and
     * given back when it ends; several runtimes share one. Taken by somebody else: -EBUSY. No
     * signal, or one that means a fault: -EINVAL.
     *
     * While it is on, a task's own calls that sleep in the kernel for more than rescue_ns, such as
     * nanosleep, poll and epoll_wait, may end early with EINTR: call them again, or reeve's.
     * Others, such as read, go on by themselves. */
    int rescue_signal;

    /** How long a worker must have been busy with one task before that is done, 0: 200 us. */
    int64_t rescue_ns;

    /** A watchdog: on_stall is called when a task has kept its worker for stall_ns without waiting,
     * yielding or joining, once for each time and at most ten times a second. It is called on a
     * thread of its own, which comes round four times in stall_ns; it may post, but not wait for
     * the runtime. Both or none: -EINVAL. The stuck thread is asked where it is by the signal of
     * rescue_signal (of 0, if that is -1), so what is said there of EINTR holds; none free: -EBUSY.
     *     .stall_ns = 100 * REEVE_MS, .on_stall = print_stall */
    int64_t stall_ns;
    void (*on_stall)(void *ctx, const struct reeve_stall *stall);
    void *stall_ctx;

    /** reeve_buf_send sends leases of at least so many bytes without copying them (SEND_ZC), and
     * each goes home when the network card has sent it. It costs a second completion for each, so
     * it pays from some 10 KiB on, and only on links that can do it: on loopback the kernel copies
     * all the same. Measure. 0: never. */
    size_t zc_bytes;

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
 * -ESHUTDOWN: the runtime is shutting down; -ECHILD: this is a child of fork, and the runtime its
 * parent's (see reeve_destroy); -EINVAL, -E2BIG, -ENOMEM: as for reeve_spawn_with. */
REEVE_API int reeve_post(reeve *runtime, const struct reeve_spawn *how);

/** Runs fn(arg) in a task and blocks the calling thread for the result. The deadline becomes the
 * task's: it never starts after it, and its waits fail. The call returns when the task is done,
 * late if fn computes on, because arg may be on the caller's stack.
 *
 * fn's result; or -ETIMEDOUT, -ECANCELED, -ENOMEM: it never started; -EAGAIN, -ESHUTDOWN: it was
 * not posted; -EDEADLK: called inside a task; -ECHILD as above. */
REEVE_API int reeve_call(reeve *runtime, reeve_fn *fn, void *arg, reeve_time until);

/** Ends a runtime in order: refuses posts, drains every server (serve.h), waits for the root task
 * and for what was posted; when until has passed (0: no bound), cancels what is left and waits for
 * that. Blocks the calling thread. Inside a task of this runtime it starts the same and returns 0
 * at once. Calling it again is allowed: an earlier deadline counts.
 *
 * 0: everything ended by itself. -ETIMEDOUT: something had to be cancelled. Inside a task also
 * -EAGAIN: there is no room for the task that watches over the end; nothing was begun. -ECHILD. */
REEVE_API int reeve_shutdown(reeve *runtime, reeve_time until);

/** Takes a runtime down: shuts it down with REEVE_POLL if that has not been done, joins its
 * threads, frees everything, leases included. No other thread may use it any more. NULL: does
 * nothing. Inside a task of this runtime: abort.
 *
 * After fork(2) the child has no workers and belongs to no runtime, wherever it was forked: in it,
 * reeve_post, reeve_call and reeve_shutdown say -ECHILD, this does nothing, descriptors are plain
 * ones, and a task that forked must not return (_exit, or exec). It may make runtimes of its own.
 * The parent notices nothing. */
REEVE_API void reeve_destroy(reeve *runtime);

/** Times that were measured, ns. One pick in 64 is: `count` is how many samples there are. */
struct reeve_times {
    uint64_t count, min, mean, p50, p90, p95, p99, p999, max;
};

/** What happened to the tasks of one class. */
struct reeve_class_stats {
    uint64_t started, completed, failed; /* as in struct reeve_stats */
    uint64_t expired;                    /* never started: deadline passed in the queue */
    uint64_t late;                       /* returned after its deadline had passed */
    uint64_t refused;                    /* not let in: waiting_max, delay_max_ns */
    uint64_t active;                     /* gauge: started and not yet over */
    struct reeve_times delay;            /* from ready to running */
    struct reeve_times run;              /* at a stretch, until it waits or ends */
};

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

    /* calls that block (offload.h) */
    uint64_t offloads;             /* whose function has begun */
    uint64_t offloads_removed;     /* given up while they were queued */
    uint64_t offload_threads_peak; /* as many threads as the pool ever had */
    uint64_t offload_threads_live; /* gauge: as many as it has */
    uint64_t offload_queued_live;  /* gauge: calls that wait for one */
    uint64_t lookups;              /* of names (reeve_dial) that the pool was asked for */
    uint64_t lookups_known;        /* that were not needed: the answer was remembered */
    uint64_t lookups_shared;       /* or somebody else had asked already */

    /* aligned buffers for files (reeve_buf_borrow_aligned) */
    uint64_t aligned_bytes_live; /* gauge: their memory; 0: none was ever borrowed */
    uint64_t aligned_fixed;      /* reads and writes of them that spared pinning pages */
    uint64_t aligned_plain;      /* that did not, because the kernel could not pin the memory */
    uint64_t aligned_waits;      /* borrowers that had to wait */

    /* programs (proc.h), of the whole process */
    uint64_t programs_started, programs_ended;
    uint64_t programs_refused; /* that could not be started */
    uint64_t programs_pooled;  /* started by a thread of the offload pool */
    uint64_t programs_live;    /* gauge: started and not yet waited for */

    /* workers that are kept busy by one task */
    uint64_t rescue_signals; /* sent to their threads */
    uint64_t loans_given;    /* times that such a thread fetched its I/O for others */
    uint64_t loans_taken;    /* times that another worker then did it */
    uint64_t stalls;         /* seen by the watchdog, reported or not */

    /* the rings */
    uint64_t enters;       /* io_uring_enter calls */
    uint64_t sqes;         /* operations submitted */
    uint64_t cqes;         /* completions reaped */
    uint64_t cq_overflows; /* completions that the kernel had to keep back */
    uint64_t enobufs;      /* receives that found no buffer and waited */
    uint64_t lease_waits;  /* borrows that had to wait */
    uint64_t heap_recvs;   /* received into the heap: leases stayed away (buf.h) */
    uint64_t sends_along;  /* writes that went out with another's, which they had waited for */
    uint64_t heap_leases;  /* leases that were served from the heap */
    uint64_t zc_sent;      /* leases sent without copying (zc_bytes) */
    uint64_t zc_copied;    /* of these, those that the kernel copied all the same, if it tells */
    uint64_t zc_plain;     /* leases that were to be sent so and had to be copied: the socket, the
                              kernel or its memory did not allow it */

    /* servers */
    uint64_t conns_live; /* gauge: connections with a handler */
    uint64_t accepted;   /* connections accepted */
    uint64_t shed;       /* connections refused or delayed at conns_max */
    uint64_t emfile;     /* times accepting paused for want of descriptors */

    /* priorities */
    uint64_t boosts;                   /* a better class was lent to the holder of a lock */
    struct reeve_class_stats classes[4]; /* LOW first */
};

/** Adds up the counters of all workers. Any thread. */
REEVE_API void reeve_stats(reeve *runtime, struct reeve_stats *ret_stats);

#ifdef __cplusplus
}
#endif
#endif /* REEVE_RUNTIME_H */
