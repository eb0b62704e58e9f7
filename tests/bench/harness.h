/* SPDX-License-Identifier: MIT */
/**
 * harness.h -- what every benchmark program shares: cases, samples, results, servers, peers.
 *
 * A program is a table of cases and one call:
 *
 *     static double yield(void *ctx) { ...one repetition...; return ns_per_op; }
 *     static const struct bench_case cases[] = { { .name = "yield", .once = yield } };
 *     int main(int argc, char **argv)
 *     {
 *         return bench_main(&(struct bench_program){ "sched", cases, 1 }, argc, argv);
 *     }
 *
 * Options of every program: --json (one object per line on stdout), --quick (ends within 30 s
 * without --peers), --peers (also builds and runs the peers that are installed), --case NAME (may
 * be repeated), --list. Results go to stdout; what was skipped, and why, to stderr.
 *
 * A result is a metric of a case: reeve's value, and a peer's when there is one. Each is the median
 * of its samples; `ratio` is the quotient of the two medians, reeve / peer. The human table adds
 * each side's spread. In JSON a line without a peer has no `peer` and no `ratio`, and its `value`
 * repeats `reeve`.
 *
 * Nothing here needs the library. All of it is for one thread.
 */
#ifndef TESTS_BENCH_HARNESS_H
#define TESTS_BENCH_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { BENCH_SAMPLES_MAX = 64, BENCH_REPS = 10, BENCH_PATH = 4096, BENCH_CPUS_MAX = 64 };

/* ---- samples ------------------------------------------------------------------------------- */

/** Some measurements of one thing; {0} is none. More than BENCH_SAMPLES_MAX are not kept. */
struct bench_samples {
    double v[BENCH_SAMPLES_MAX];
    int n;
};

/** Adds one. */
void bench_add(struct bench_samples *s, double value);

/** Median, smallest, largest; 0 when there are none. */
double bench_median(const struct bench_samples *s);
double bench_min(const struct bench_samples *s);
double bench_max(const struct bench_samples *s);

/** Monotonic nanoseconds. */
int64_t bench_now(void);

/** The calling thread, and those it starts, stay on this CPU. */
void bench_pin(int cpu);

/**
 * Calls `once(ctx)` one time that does not count, then `reps` times, and adds what it returns, the
 * nanoseconds per operation, to `s`. A negative return says that it failed, and ends it: -EIO.
 */
int bench_ns(struct bench_samples *s, double (*once)(void *ctx), void *ctx, int reps);

/**
 * The same in a child process, so that nothing that ran before weighs on it and a crash ends only
 * it. `cpu` >= 0 pins the child. If `rss` is not NULL, the child's peak of resident memory in bytes
 * is added to it. 0, or -EIO: it did not end well.
 */
int bench_ns_alone(struct bench_samples *s, struct bench_samples *rss, double (*once)(void *ctx),
                   void *ctx, int reps, int cpu);

/* ---- programs and cases -------------------------------------------------------------------- */

struct bench;

/** One row of a program's table. Either `once` or `run` is set. */
struct bench_case {
    const char *name;
    /**
     * One repetition: does the work, returns nanoseconds per operation, a negative number if it
     * failed (and has said why on stderr). The harness repeats it in a child process (one that
     * does not count, then BENCH_REPS), with --peers in turns with the go and tokio programs if
     * they have a case of this name, and emits `ns_per_op`.
     */
    double (*once)(void *ctx);
    /** Also emit `rss_bytes`, the peak of resident memory in the repetitions (with `once`). */
    bool rss;
    /** `once` and its peers may use every CPU; else, unless the name ends in "_w2", just one. */
    bool wide;
    /** Does everything itself, with the functions below. */
    void (*run)(struct bench *b, const struct bench_case *c);
    /** Passed to `once`; free for `run` to use. */
    void *ctx;
    long arg;
};

struct bench_program {
    const char *name; /**< "echo": what JSON says as "bench" */
    const struct bench_case *cases;
    size_t cases_n;
    /**
     * Options of the program's own, or NULL. Is given an option and what follows it (NULL at the
     * end); returns how many arguments it took: 0 is unknown, 1, or 2.
     */
    int (*option)(const char *name, const char *value);
    const char *usage; /**< lines about those options, or NULL */
    /** Called instead of the cases if it returns true; for other modes such as --demo. */
    bool (*instead)(struct bench *b);
};

/** What a run is about; read it, do not write it. */
struct bench {
    const struct bench_program *program;
    bool json, quick, peers;
    int cpu_server, cpu_load; /**< the first two CPUs we may use; equal if there is only one */
    int cpus[BENCH_CPUS_MAX]; /**< all CPUs we may use, in order */
    int cpus_n;
    bool raised;              /**< we may run processes at a raised priority */
    bool realtime;            /**< and at a real-time one */
    char bindir[BENCH_PATH];  /**< the folder of this program: .../tests/bench */
    char source[BENCH_PATH];  /**< tests/bench in the source tree; "" if it was not found */
    char peerdir[BENCH_PATH]; /**< bindir/peers, where peers are built */
    int64_t begun;
    int failures;             /**< cases that could not be measured */
    const char *last_case;    /**< whose rows the table shows */
};

/** Parses, runs the cases that were asked for. Returns main's result: 0, or 1 if one failed. */
int bench_main(const struct bench_program *program, int argc, char **argv);

/** False once a --quick run without --peers has used up its time: leave out further rounds. */
bool bench_time_left(const struct bench *b);

/**
 * Emits one line: a table row, or JSON. `peer` NULL: none. A peer that has no sample, or whose
 * median is 0, cannot be compared; then the line has no peer.
 */
void bench_emit(struct bench *b, const char *case_name, const char *metric,
                const struct bench_samples *reeve, const char *peer,
                const struct bench_samples *theirs);

/** The same for one value without a peer. */
void bench_emit_value(struct bench *b, const char *case_name, const char *metric, double value);

/** Says on stderr what is left out and why. */
void bench_skip(const char *what, const char *why, ...) __attribute__((format(printf, 2, 3)));

/** The same, and the program will end with status 1. */
void bench_fail(struct bench *b, const char *what, const char *why, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- processes ----------------------------------------------------------------------------- */

/** A child with its stdout and stderr in one pipe; it is killed if we die. */
struct bench_proc {
    pid_t pid;
    int out, pidfd;
    char said[8192]; /**< what it printed, the beginning, with a 0 at the end */
    size_t said_n;
};

struct bench_spawn {
    const char *const *argv; /**< argv[0] is a path */
    const int *cpus;         /**< where it may run; NULL: anywhere */
    int cpus_n;
    int nice;                /**< tried, not insisted on */
    int fifo;                /**< a real-time priority, tried before nice; 0: none */
};

/** Starts it with its descriptor limit raised to the hard one. 0, or -errno. */
int bench_start(struct bench_proc *p, const struct bench_spawn *how);

/**
 * Waits until it has printed `text` or `ms` have passed; 0, -EPIPE if it ended first, -ETIMEDOUT.
 * `*ret_at`, if not NULL, is where the text begins in p->said.
 */
int bench_await(struct bench_proc *p, const char *text, int ms, const char **ret_at);

/**
 * Sends `signo` (0: none), reads the rest of its output, waits `ms` for its end, then kills it.
 * Its exit status; -signal if one ended it.
 */
int bench_stop(struct bench_proc *p, int signo, int ms);

/** CPU time of all its threads, ns (schedstat); resident bytes; voluntary context switches. */
uint64_t bench_cpu_ns(pid_t pid);
uint64_t bench_rss(pid_t pid);
uint64_t bench_switches(pid_t pid);

/** This process: its peak of resident memory begins anew now; that peak, in bytes. */
void bench_peak_reset(void);
uint64_t bench_peak(void);

/** The number after `key` in `text` ("enters=12", "\"x\":3.1", "enters 12"), or `otherwise`. */
double bench_number(const char *text, const char *key, double otherwise);

/* ---- echo servers under load --------------------------------------------------------------- */

struct bench_server {
    const char *path;
    int workers;
    const int *cpus; /**< pinned before exec, and passed as --cpu */
    int cpus_n;
    bool stats;      /**< pass --stats */
    bool shared_cpu; /**< the load runs there too: it gets the higher priority */
    /**
     * Run at a real-time priority where we may, below that of a load that is realtime too: so what
     * else goes on on this machine delays neither, and latencies are those of the server.
     */
    bool realtime;
    const char *const *more; /**< further arguments, up to a NULL; or NULL */
};

/** Starts `PATH 127.0.0.1:PORT --workers N --cpu LIST`; `addr`: where it listens. 0, or -errno. */
int bench_server_start(struct bench *b, struct bench_proc *p, const struct bench_server *how,
                       char addr[64]);

struct bench_load {
    int conns, idle, threads, size;
    double warmup, seconds;
    int cpus[BENCH_CPUS_MAX];
    int cpus_n;
    pid_t watch;    /**< whose CPU time to report; 0: nobody's */
    bool realtime;  /**< as for a server */
    double rate;    /**< open loop, so many requests per second; 0: closed loop */
    int seed;       /**< of its schedule */
    int spin_us;    /**< not 0: some requests ask the server to spin so long, */
    double share;   /**< this share of them, */
    bool even;      /**< evenly spread, not drawn at random */
    bool plain;     /**< the percentiles are to be those of the requests that do not spin */
};

/** What echo_load measured; see its --json, and its source for where CPU time comes from. */
struct bench_loaded {
    double cpu_ns_per_req, req_per_s, p50_us, p99_us, p999_us, requests_all, load_cpu_ns_per_req;
    double dropped, lag_p99_us; /**< open loop: how many, and how late the load itself was */
};

/** Starts echo_load and returns once all its connections are open. 0, or -errno. */
int bench_load_start(struct bench *b, struct bench_proc *p, const char *addr,
                     const struct bench_load *load);

/** Runs it to its end. 0, or -EIO: it failed, and said so on stderr. */
int bench_load_run(struct bench *b, const char *addr, const struct bench_load *load,
                   struct bench_loaded *ret_loaded);

/* ---- peers in other languages -------------------------------------------------------------- */

/**
 * Builds "go_echo", "go_sched", "tokio_echo" or "tokio_sched" into b->peerdir, once per run. The
 * path of the program, or NULL: not asked for (--peers) or not possible, which is said once.
 */
const char *bench_peer(struct bench *b, const char *name);

/**
 * One run of the "go" or "tokio" scheduler program for one case ("yield_w2" is its "yield" with two
 * workers). Adds its median and its peak of resident memory; false if it has no such case or is not
 * there. `cpu` >= 0 pins it.
 */
bool bench_peer_case(struct bench *b, const char *peer, const char *case_name, int cpu,
                     struct bench_samples *ns, struct bench_samples *rss);

#endif
