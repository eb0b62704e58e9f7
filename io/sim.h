/* SPDX-License-Identifier: MIT */
/*
 * sim.h -- the simulated engine: the whole library on one thread, with a seed in place of chance.
 *
 * rv_sim_run() runs a root task on a scheduler whose workers take turns on the calling thread,
 * whose clock is a number, and whose kernel is played by io/sim_*.c. Everything that is left open
 * elsewhere
 * (which worker goes on and how far, who steals, when data arrives and how much of it, what
 * completes first, which cancellation comes too late, which call fails) is drawn from one
 * generator. The same seed gives the same run, to the last event; a failure is replayed by its
 * seed.
 *
 *     struct rv_sim_opts o = { .seed = 7, .workers = 3, .fn = root, .arg = &scenario };
 *     struct rv_sim_result got;
 *     CHECK_EQ(rv_sim_run(&o, &got), 0);
 *
 * One simulation at a time in a process. TCP and UDP are played: their descriptors are numbers of
 * its own, see RV_SIM_FD_FIRST, their addresses those of reeve_listen, reeve_bind and reeve_dial.
 * Files, pipes, Unix sockets and programs are real ones, and so are their descriptors; but when a
 * request for one is performed, how much of it, and how it fails, is drawn (io/sim_real.c says what
 * a program may do). Blocking calls have a pool, whose threads are played.
 */
#ifndef RV_IO_SIM_H
#define RV_IO_SIM_H

#include <reeve/task.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io/io.h"

extern const struct rv_engine rv_engine_sim;
extern const struct rv_io_driver rv_io_driver_sim;

/* The kernel hands out the lowest free number: a process would have to have this many files open
 * before one of them met a simulated one. */
#define RV_SIM_FD_FIRST 2048

/* How often things go wrong: in so many of 1024 occasions; 0: never. */
struct rv_sim_faults {
    uint16_t eintr;    /* a call is interrupted: EINTR */
    uint16_t eagain;   /* it says EAGAIN although it was to wait */
    uint16_t nomem;    /* ENOMEM */
    uint16_t nobufs;   /* ENOBUFS: no buffer to pick, no room to queue */
    uint16_t mfile;    /* EMFILE or ENFILE, by accept and socket */
    uint16_t abort;    /* a connection is gone before it was accepted: ECONNABORTED */
    uint16_t refuse;   /* connect fails: ECONNREFUSED, ENETUNREACH, ETIMEDOUT */
    uint16_t reset;    /* a connection breaks: ECONNRESET at both ends */
    uint16_t pipe;     /* the receiver vanishes under a send: EPIPE */
    uint16_t unmulti;  /* a multishot request ends although all is well */
    uint16_t shorter;  /* a transfer is shorter than it could be */
    uint16_t one_byte; /* a connection delivers byte by byte */
    uint16_t disk;     /* a file cannot be written, or synced: EIO or ENOSPC */
    uint16_t lose;     /* a datagram does not arrive; 0: who sends waits until there is room */
    uint16_t reorder;  /* it overtakes others */
};

/* Bugs planted on purpose, to see that a harness notices: every so many-th time. */
enum rv_sim_canary {
    RV_SIM_SOUND,
    RV_SIM_DROP_COMPLETION,  /* a completion never comes */
    RV_SIM_TWICE_COMPLETION, /* a last completion comes twice */
    RV_SIM_DROP_WAKE,        /* a sleeping worker is not woken */
    RV_SIM_WRONG_BYTE,       /* a byte arrives changed */
    RV_SIM_EARLY_BUFFER,     /* a provided buffer is picked before it was given back */
};

/* What happens, in the order in which it does. */
enum rv_sim_event_kind {
    RV_SIM_RAN = 1,  /* a worker gave up its turn; its picks and steals until then */
    RV_SIM_PARK,     /* it sleeps; until when */
    RV_SIM_UNPARK,
    RV_SIM_WAKE,     /* somebody wakes it */
    RV_SIM_QUEUE,    /* an op; its code */
    RV_SIM_SUBMIT,   /* the kernel has it */
    RV_SIM_CANCEL,   /* its cancellation is asked for */
    RV_SIM_POST,     /* it completes; the result */
    RV_SIM_DISPATCH, /* its worker hears of that */
    RV_SIM_PROVIDE,  /* a buffer comes back; its id */
    RV_SIM_CALL,     /* a call of the system: which, and what it says */
    RV_SIM_ARRIVE,   /* data gets there; socket, how much */
    RV_SIM_BREAK,    /* a connection is reset; socket */
    RV_SIM_FAULT,    /* a fault was injected: op, the errno */
    RV_SIM_CLOCK,    /* time goes on */
    RV_SIM_NOTE,     /* the test's own, rv_sim_note() */
};

struct rv_sim_event {
    uint64_t count;  /* which event of the run */
    int64_t now_ns;
    uint32_t kind;
    uint32_t worker; /* UINT32_MAX: nobody's */
    uint64_t index;  /* of the op, the socket, the buffer */
    int64_t result;
};

struct rv_sim_opts {
    uint64_t seed;
    unsigned workers;     /* 0: 1 to 4, by the seed */
    unsigned tasks_max;   /* 0: 4096 */
    reeve_fn *fn;         /* the root task */
    void *arg;
    size_t bufs;          /* per worker, 0: 8 */
    size_t buf_bytes;     /* 0: 256 */
    size_t stack_bytes;   /* what a task may use, 0: 64 KiB */
    unsigned fds_max;     /* 0: 256 */
    int64_t limit_ns;     /* virtual time that a run may take, 0: a day */
    /* Zeroed, cache-aligned memory for the scheduler, which is the beginning of something larger;
     * for tests of what expects it to be a runtime's. NULL: the simulation has its own. */
    struct rv_sched *sched;
    struct rv_sim_faults faults;
    enum rv_sim_canary canary;
    unsigned canary_every; /* 0: 50 */

    /* Called now and then between two turns, and when nothing else will happen: what a thread that
     * is no worker does. */
    void (*foreign)(void *arg);
    /* Sees every event. It must not call reeve. */
    void (*trace)(void *ctx, const struct rv_sim_event *event);
    /* Hears, sentence by sentence, how things stand when a run gets stuck. */
    void (*tell)(void *ctx, const char *sentence);
    void *trace_ctx;
};

struct rv_sim_result {
    int result;          /* the root task's */
    uint64_t hash;       /* of all events */
    uint64_t events;
    uint64_t turns;      /* of workers */
    int64_t virtual_ns;  /* that went by */
    struct {
        int64_t tasks, ops, leases, fds, stacks;
    } leaks;             /* what was left over */
    struct {
        uint64_t faults;       /* injected */
        uint64_t cancels_won;  /* an op ended with -ECANCELED */
        uint64_t cancels_lost; /* it had completed, or did so instead */
        uint64_t resets, steals, parks, wakes, expired, skipped, inline_runs, starved;
    } seen;              /* so that a test can tell that it tests something */
};

/* Runs fn(arg) as the root task until it is done and everything is quiet, and takes it all down.
 *
 * 0: it came to an end; result and leaks are for the caller to judge. -EDEADLK: nothing can run,
 * nothing will complete and no timer is armed, but the root is not done: a wake-up or a completion
 * was lost. -ELOOP: it runs for ever, by limit_ns or without time going on. In these two cases *ret
 * tells of the run so far, and the stacks of the tasks are left as they are: end the process soon.
 * -EINVAL, -ENOMEM, -EBUSY: another simulation runs; it did not start, and *ret is untouched. */
int rv_sim_run(const struct rv_sim_opts *opts, struct rv_sim_result *ret);

/* For the tasks of a simulation, and for opts.foreign. */

/* A number below `below`, from the generator that decides everything. */
uint32_t rv_sim_draw(uint32_t below);
/* True in rate of 1024 cases. */
bool rv_sim_chance(uint32_t rate);
/* The thread of the calling worker loses its CPU for a while, here; the others go on. The caller
 * holds no lock. */
void rv_sim_preempt(void);
/* After `skip` more, an operation that a task or a stream of a task's queues is not performed, and
 * completes with this result: one row of the fault table. answered: whether it has come to that,
 * and (ret_opcode, may be NULL) which IORING_OP_* of a struct rv_req it was, 0: it was none; from
 * then on nothing is answered any more. */
void rv_sim_answer(unsigned skip, int result);
bool rv_sim_answered(int *ret_opcode);
/* Two connected stream sockets that reeve did not make. 0 or -EMFILE, -ENFILE, -ENOMEM. */
int rv_sim_pair(int ret_fds[2]);
/* Mixes something that the test did into the hash. */
void rv_sim_note(uint64_t index, int64_t result);

/* The scheduler that is simulated, for what a foreign thread may do with one. */
struct rv_sched *rv_sim_sched(void);

const char *rv_sim_event_name(uint32_t kind);

#endif
