/* SPDX-License-Identifier: MIT */
/*
 * explore.h -- runs a small concurrent program in every order that matters.
 *
 * A model is up to six threads over some state. Its threads are contexts on one OS thread, and
 * every atomic access of reeve's own code (mem/rv_atomic.h, with the back end beside this file) is
 * a point where another one may go on. The explorer runs the model again and again, each time
 * taking another decision at the last point where there is one left: depth first, first without
 * preemptions, then with one, with two. A switch where a thread blocks or ends is free.
 *
 *     static struct { struct rv_runq q; } m;
 *     static const struct explore pop_and_steal = {
 *         .name = "pop and steal", .setup = fill,
 *         .threads = { { "owner", pop }, { "thief", steal } }, .finish = all_there,
 *         .preemptions = 3 };
 *     TEST(an_entry_is_taken_once) { explore(&pop_and_steal); }
 *
 * What it finds: a broken RV_MUST or RV_ASSERT, in the code or in the model; threads that all wait
 * (a lost wake-up); a run that does not end. It prints the decisions, the accesses that led there,
 * and the list by which the same run is made again:
 *
 *     runq_test an_entry_is_taken_once --no-fork --replay '17:1,42:0'
 *
 * With .delays it has store buffers, as x86 has: a store is seen by its own thread at once and by
 * the others later, in the order of the stores; a read-modify-write, a sequentially consistent
 * store or fence, and the end of the thread's turn empty the buffer. A turn may also end with the
 * newest stores still in it, until the thread goes on; that costs one of the delays.
 * Between plain, acquire and release accesses it makes no difference: what depends on a CPU that
 * reorders more than x86 does is not found.
 *
 * (1) A point costs a decision only if it touches what two threads touch and one of them writes.
 *     Which words these are is learned on the way, and learning another one starts the search
 *     again. A preemption before any other access would do the same as one before the next shared.
 * (2) A model must be deterministic but for the order of its threads. Its state, all static
 *     variables of the program and what it took from the allocators of mem/, is put back before
 *     each execution, and to what it was before setup() at the end.
 * (3) Who spins says rv_cpu_relax(): it then waits until another thread has written something.
 *
 * Threads of a model have 256 KiB of stack. The clock stands still while any of them can run.
 */
#ifndef TESTS_EXPLORE_EXPLORE_H
#define TESTS_EXPLORE_EXPLORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { EXPLORE_THREADS_MAX = 6 };

struct explore_thread {
    const char *name;
    void (*run)(void *arg);
    void *arg;
};

struct explore {
    const char *name;
    void (*setup)(void);    /* called once; alone. Each execution begins with what it left. */
    struct explore_thread threads[EXPLORE_THREADS_MAX];
    void (*finish)(void);   /* called after each execution; alone */
    unsigned preemptions;   /* as many, and fewer, are tried in each execution */
    unsigned delays;        /* so many turns may end with stores in the buffer; 0: there is none */
    unsigned steps_max;     /* in one execution; 0: 20000. One that does not end is an error. */
    uint64_t executions_max; /* 0: no limit; reaching it is an error: raise it, or ask for less */
    bool expect_failure;    /* of the explorer's own tests: it must find something */
    bool everything;        /* and: leaves out no execution within the bounds */
};

struct explore_result {
    bool failed, complete;
    unsigned preemptions, delays;   /* the bounds at which it failed */
    unsigned steps;                 /* of the longest execution, or of the one that failed */
    unsigned words;                 /* shared, of those that were touched */
    uint64_t executions;
    uint64_t outcomes, outcomes_sum; /* of explore_note(): how many different ones, and their sum */
    char why[512];
    char schedule[512];             /* what --replay takes */
};

/* Explores the model. Prints what it finds on standard error. */
void explore_run(const struct explore *model, struct explore_result *ret);

/* The same as a claim: the test fails if anything was found, or if not all could be tried. Under
 * AddressSanitizer with one preemption less, unless EXPLORE_ALL is in the environment. With
 * `--replay LIST` it makes that one execution and prints it; with `--random SEED` it makes
 * executions_max (or 10000) random ones, by randomly changing priorities (PCT). */
void explore(const struct explore *model);

/* What the command line asks for; see explore_main.h. */
extern const char *explore_replay;
extern const char *explore_random;

/* ---- for the threads of a model ---- */

/* Ends the execution with this sentence as what was found. */
_Noreturn void explore_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* One of 0 .. n - 1; every one is tried. */
unsigned explore_choose(unsigned n);

/* Sleeps while *word is `expected`, until explore_wake() or the time; like futex(2). `until` in ns,
 * INT64_MAX: no limit. False: the time has come. `what` names it in reports. */
bool explore_wait(uint32_t *word, uint32_t expected, int64_t until, const char *what);
/* Wakes so many of those that sleep on the word, who came first first. Returns how many. */
int explore_wake(uint32_t *word, int most);

/* Thread i runs this before anything else when it goes on, wherever it was left; but not in the
 * middle of another such call. */
void explore_interrupt(unsigned i, void (*handler)(void));

/* The time, ns. It jumps when all threads sleep; or earlier, which costs a preemption. */
int64_t explore_now(void);

/* Notes what came out of an execution, for the result. */
void explore_note(uint64_t outcome);

/* The index of the running thread; -1: none, this is setup() or finish(). */
int explore_self(void);

/* ---- for the back end: every access of an atomic word ---- */

/* where: "file:line". size: 1, 2, 4 or 8 bytes. strong: sequentially consistent. */
uint64_t explore_load(const void *p, unsigned size, const char *where);
void explore_store(void *p, unsigned size, uint64_t v, bool strong, const char *where);

enum explore_op { EXPLORE_XCHG, EXPLORE_ADD, EXPLORE_SUB, EXPLORE_OR, EXPLORE_AND };
/* Returns what was there. */
uint64_t explore_rmw(void *p, unsigned size, enum explore_op op, uint64_t v, const char *where);
bool explore_cas(void *p, unsigned size, void *expected, uint64_t v, const char *where);
void explore_fence(bool strong);
void explore_relax(void);
/* A full fence in every thread. */
void explore_membarrier(void);

#endif
