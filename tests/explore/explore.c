/* SPDX-License-Identifier: MIT */
/*
 * explore.c -- the explorer: one execution after the other, each by other decisions.
 *
 * An execution begins with the state put back and every thread at its start. Whenever the running
 * thread comes to a point, the options there are listed, always in the same order; the execution
 * takes the one that the search wants and goes on. The search is a stack of (option, of how many):
 * the next execution takes the next option at the last place that has one left. So the stack is all
 * that is kept, and any execution can be made again from it.
 *
 *     running    -> running      option GO
 *     running    -> ready        SWITCH: preempted, which costs; or blocked, done: then it is free
 *     blocked    -> ready        woken, or its time has come
 *     spinning   -> ready        another thread has written something
 *
 * (1) The bounds grow: all executions without preemptions come first, then those with one. What is
 *     found is found at the least number that shows it.
 * (2) The options at a point depend on nothing but the decisions before it, and on which words are
 *     known to be shared; if that grows the search begins again.
 * (3) A preemption before an access is tried only as long as it makes a difference. If nobody has
 *     touched the same word in a way that conflicts when the thread goes on, the access could as
 *     well have come before the preemption: that is another execution, preempted at the next point
 *     or at none, which is tried too. So this one ends here. (Not after a store has stayed in a
 *     buffer, nor where the access is a store that could: it may then be seen later.)
 * (4) A schedule names the points at which the first option was not taken, by the number of the
 *     step. That does not depend on (2), so a replay needs neither the bounds nor the search.
 *
 * Threads: one.
 */
#include "tests/explore/world.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

#include "mem/die.h"
#include "mem/local.h"
#include "sched/context.h"
#include "tests/check.h"
#include "tests/explore/explore.h"

enum { STACK_BYTES = 256 * 1024, STEPS_MAX = 20000, DECISIONS_MAX = 65536, BUFFER_MAX = 16 };
enum { WORDS_MAX = 1 << 15, OPTIONS_MAX = 64, REPLAY_MAX = 256, PCT_DEPTH = 3 };
enum { OUTCOMES_MAX = 4096 };

const char *explore_replay, *explore_random;

enum state { READY, BLOCKED, SPINNING, DONE };

struct store {
    void *p;
    uint64_t v;
    unsigned size;
};

struct fiber {
    void *sp;
    unsigned char *low, *top;   /* of the stack that it was on when it was left */
    void *asan_fake;
    unsigned char *stack;       /* that it begins on */
};

struct thread {
    struct fiber fiber;
    enum state state;
    uint32_t *word;             /* BLOCKED on it */
    int64_t until;
    uint64_t blocked_at;        /* when it began to sleep: who came first is woken first */
    const char *what;
    bool woken;
    uint64_t seen;              /* SPINNING: how often others had written when it last looked */
    uint64_t writes;            /* its own */
    struct store buffer[BUFFER_MAX];
    unsigned buffered;
    unsigned priority;          /* in random executions */
    void (*handler)(void);      /* of a signal that has not come yet */
    bool handling;              /* it is in such a handler; others wait until that has returned */
    struct rv_local *local;
    const char *at;             /* where its last access was */
    const void *next;           /* the word that it was preempted before touching; NULL: none */
    bool next_writes, next_met; /* how; and that somebody did what conflicts with it */
};

/* STORES: may stay in the buffer. */
enum access { READS, STORES, CHANGES };

enum kind { GO, SWITCH, TIMEOUT, DRAIN, VALUE };

struct option {
    enum kind kind;
    uint8_t thread;             /* VALUE: the value */
    uint8_t keep;               /* so many stores stay in the buffer of the one that is left */
};

struct decision {
    uint32_t step;
    uint16_t chosen, count;
    struct option taken;
};

/* An atomic word that was touched, in any execution. */
struct word {
    const void *p;
    uint8_t readers, writers;   /* a bit for each thread */
    bool shared;
};

static struct {
    const struct explore *model;
    struct explore_result *ret;
    unsigned nthreads;
    struct thread thread[EXPLORE_THREADS_MAX + 1];  /* and one for finish() */
    bool finishing;
    struct fiber outside;
    struct fiber *left;         /* the one that switched last */
    int current;                /* -1: outside */
    int64_t now;
    uint64_t writes;
    uint32_t step;
    bool failed, redundant;

    struct decision decision[DECISIONS_MAX];
    uint32_t depth, known;      /* decisions made in this execution; to be made as before */
    unsigned preemptions, delays;   /* the bounds */
    unsigned preempted, delayed;    /* in this execution */
    bool moved;                 /* the running thread has touched a shared word in this turn */

    struct word word[WORDS_MAX];
    unsigned words, shared;
    bool learned;               /* a word became shared: the search is not complete */

    struct option option[OPTIONS_MAX];
    unsigned options;

    bool replaying, tracing;
    struct {
        uint32_t step;
        struct option option;
    } replay[REPLAY_MAX];
    unsigned replays, replayed;

    bool random;
    uint64_t rng;
    uint32_t change[PCT_DEPTH];
    struct rv_local *outside_local;
    uint64_t outcome[OUTCOMES_MAX];
    unsigned char *statics;     /* a copy of all other variables of the program */
    unsigned char *before;      /* another one, as they were before setup() */
} ex = { .current = -1 };

/* ---- contexts ---- */

static void arrived(struct fiber *self)
{
#if defined(RV_ASAN)
    const void *low;
    size_t bytes;
    __sanitizer_finish_switch_fiber(self->asan_fake, &low, &bytes);
    ex.left->low = (unsigned char *)(uintptr_t)low;
    ex.left->top = ex.left->low + bytes;
#else
    (void)self;
#endif
}

/* Leaves `from`, which may be on any stack by now: the code in a model switches stacks itself. */
static void swap(struct fiber *from, struct fiber *to)
{
    ex.left = from;
#if defined(RV_ASAN)
    __sanitizer_start_switch_fiber(&from->asan_fake, to->low, (size_t)(to->top - to->low));
#endif
    rv_context_swap(&from->sp, to->sp);
    arrived(from);
}

static struct fiber *fiber_of(int i)
{
    return i < 0 ? &ex.outside : &ex.thread[i].fiber;
}

static void go_to(int i)
{
    struct fiber *from = fiber_of(ex.current);
    ex.current = i;
    swap(from, fiber_of(i));
}

/* No thread of the model runs: setup() or finish() does. */
static bool is_alone(void)
{
    return ex.current < 0 || ex.finishing;
}

int explore_self(void)
{
    return is_alone() ? -1 : ex.current;
}

/* The thread-local word of mem/local.c, one for each thread of the model. */
struct rv_local *rv_local_get(void)
{
    return ex.current < 0 ? ex.outside_local : ex.thread[ex.current].local;
}

void rv_local_set(struct rv_local *local)
{
    if (ex.current < 0)
        ex.outside_local = local;
    else
        ex.thread[ex.current].local = local;
}

/* ---- what was found ---- */

static const char *name_of(int i)
{
    return i < 0 ? "outside" : ex.finishing ? "at the end" : ex.model->threads[i].name;
}

static void fail(const char *why)
{
    bool by_thread = ex.current >= 0;
    if (!ex.failed)
        snprintf(ex.ret->why, sizeof ex.ret->why, "%s%s%s", by_thread ? name_of(ex.current) : "",
                 by_thread ? ": " : "", why);
    ex.failed = true;
    if (ex.current >= 0)
        go_to(-1); /* for ever */
}

_Noreturn void explore_fail(const char *fmt, ...)
{
    char text[400];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (ex.current < 0 || ex.model == NULL) {
        fprintf(stderr, "explore: %s: %s\n", ex.model ? ex.model->name : "no model", text);
        abort();
    }
    fail(text);
    abort();
}

/* Where RV_MUST and RV_ASSERT of the code lead, in place of mem/die.c. */
_Noreturn void rv_die(const char *fmt, ...)
{
    char text[400];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (ex.current >= 0)
        fail(text);
    fprintf(stderr, "explore: %s: %s\n", ex.model ? ex.model->name : "no model", text);
    abort();
}

static void trace(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void trace(const char *fmt, ...)
{
    if (!ex.tracing)
        return;
    va_list args;
    va_start(args, fmt);
    fprintf(stderr, "  %5" PRIu32 " %-10s ", ex.step, name_of(ex.current));
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
}

/* "tests/../sched/park.c:12" without its folders. */
static const char *short_of(const char *where)
{
    const char *slash = where ? strrchr(where, '/') : NULL;
    return slash ? slash + 1 : where ? where : "?";
}

/* ---- stores ---- */

static void put(void *p, unsigned size, uint64_t v)
{
    switch (size) {
    case 1:
        *(uint8_t *)p = (uint8_t)v;
        break;
    case 2:
        *(uint16_t *)p = (uint16_t)v;
        break;
    case 4:
        *(uint32_t *)p = (uint32_t)v;
        break;
    default:
        *(uint64_t *)p = v;
    }
}

static uint64_t get(const void *p, unsigned size)
{
    switch (size) {
    case 1:
        return *(const uint8_t *)p;
    case 2:
        return *(const uint16_t *)p;
    case 4:
        return *(const uint32_t *)p;
    default:
        return *(const uint64_t *)p;
    }
}

/* Makes a store of this thread visible to all. */
static void write_out(struct thread *t, void *p, unsigned size, uint64_t v)
{
    put(p, size, v);
    t->writes++;
    ex.writes++;
}

static void drain_one(struct thread *t)
{
    struct store s = t->buffer[0];
    t->buffered--;
    memmove(t->buffer, t->buffer + 1, t->buffered * sizeof s);
    write_out(t, s.p, s.size, s.v);
}

static void drain_to(struct thread *t, unsigned keep)
{
    while (t->buffered > keep)
        drain_one(t);
}

/* ---- which words are shared ---- */

static struct word *word_at(const void *p)
{
    uint32_t h = (uint32_t)(((uintptr_t)p * UINT64_C(0x9e3779b97f4a7c15)) >> 40) % WORDS_MAX;
    while (ex.word[h].p != NULL && ex.word[h].p != p)
        h = (h + 1) % WORDS_MAX;
    struct word *w = &ex.word[h];
    if (w->p == NULL) {
        w->p = p;
        if (++ex.words > WORDS_MAX / 2)
            explore_fail("touches more words than the explorer can follow");
    }
    return w;
}

static bool is_shared(const void *p, bool writes)
{
    struct word *w = word_at(p);
    uint8_t me = (uint8_t)(1u << ex.current);
    w->readers |= me;
    if (writes)
        w->writers |= me;
    uint8_t all = w->readers;
    if (!w->shared && w->writers != 0 && (all & (all - 1)) != 0) {
        w->shared = true;
        ex.shared++;
        ex.learned = true;
    }
    return w->shared;
}

/* ---- options ---- */

static void add(enum kind kind, unsigned thread, unsigned keep)
{
    if (ex.options == OPTIONS_MAX)
        explore_fail("has more options at one point than the explorer can list");
    ex.option[ex.options++] = (struct option){ kind, (uint8_t)thread, (uint8_t)keep };
}

static bool can_run(const struct thread *t)
{
    return t->state == READY || (t->state == BLOCKED && t->woken) ||
           (t->state == BLOCKED && t->until <= ex.now) ||
           (t->state == SPINNING && (ex.writes - t->writes > t->seen ||
                                    (t->handler && !t->handling)));
}

/* Sleeps until a time that may come early. */
static bool is_timed(const struct thread *t)
{
    return t->state == BLOCKED && !can_run(t) && t->until != INT64_MAX;
}

/* How many stores the running thread may leave in its buffer when it is left. */
static unsigned keep_most(void)
{
    return ex.delayed < ex.delays ? ex.thread[ex.current].buffered : 0;
}

/* The options where the running thread could go on. Before its first access in this turn it has
 * done nothing that others could see: its turn need not have begun. */
static void list_preemptions(void)
{
    if (ex.preempted >= ex.preemptions)
        return;
    bool begun = ex.moved || ex.replaying || ex.model->everything;
    unsigned keep = keep_most();
    for (unsigned i = 0; i < ex.nthreads; i++) {
        if ((int)i == ex.current)
            continue;
        for (unsigned k = 0; begun && k <= keep && can_run(&ex.thread[i]); k++)
            add(SWITCH, i, k);
        for (unsigned k = 0; k <= keep && is_timed(&ex.thread[i]); k++)
            add(TIMEOUT, i, k);
        if (ex.thread[i].buffered)
            add(DRAIN, i, 0);
    }
}

/* The options where it cannot. None: nobody can. */
static void list_switches(void)
{
    int64_t first = INT64_MAX;
    for (unsigned i = 0; i < ex.nthreads; i++) {
        bool can = (int)i != ex.current && can_run(&ex.thread[i]);
        for (unsigned k = 0; can && k <= keep_most(); k++)
            add(SWITCH, i, k);
        if (is_timed(&ex.thread[i]) && ex.thread[i].until < first)
            first = ex.thread[i].until;
    }
    bool none = ex.options == 0;
    for (unsigned i = 0; i < ex.nthreads; i++) {
        bool free = none && ex.thread[i].until == first;
        if (is_timed(&ex.thread[i]) && (free || (!none && ex.preempted < ex.preemptions)))
            add(TIMEOUT, i, 0);
        if (!none && (int)i != ex.current && ex.thread[i].buffered &&
            ex.preempted < ex.preemptions)
            add(DRAIN, i, 0);
    }
}

/* ---- decisions ---- */

static uint64_t draw(void)
{
    ex.rng ^= ex.rng << 13;
    ex.rng ^= ex.rng >> 7;
    ex.rng ^= ex.rng << 17;
    return ex.rng;
}

/* What a random execution takes: of the threads that could run, the one of the highest priority. */
static unsigned take_random(void)
{
    unsigned best = 0, top = 0;
    for (unsigned i = 0; i < ex.options; i++) {
        struct option o = ex.option[i];
        if (o.kind == VALUE || o.kind == DRAIN)
            return (unsigned)(draw() % ex.options);
        unsigned p = 2 * ex.thread[o.kind == GO ? (unsigned)ex.current : o.thread].priority;
        if (o.kind == TIMEOUT)
            p = ex.options > 1 && draw() % 16 ? 0 : p;
        if (i == 0 || p > top || (p == top && draw() % 4 == 0)) {
            best = i;
            top = p;
        }
    }
    return best;
}

static unsigned take_replayed(void)
{
    if (ex.replayed == ex.replays || ex.replay[ex.replayed].step != ex.step)
        return 0;
    struct option want = ex.replay[ex.replayed].option;
    for (unsigned i = 0; i < ex.options; i++)
        if (ex.option[i].kind == want.kind && ex.option[i].thread == want.thread &&
            ex.option[i].keep == want.keep) {
            ex.replayed++;
            return i;
        }
    return 0;
}

static struct option take_as_decided(void)
{
    if (ex.depth == DECISIONS_MAX)
        explore_fail("makes more decisions than the explorer can keep");
    struct decision *d = &ex.decision[ex.depth++];
    if (ex.depth <= ex.known) {
        if (d->count != ex.options || d->step != ex.step)
            explore_fail("is not deterministic: %u options at step %" PRIu32 ", before they were "
                         "%u at step %" PRIu32,
                         ex.options, ex.step, d->count, d->step);
    } else {
        *d = (struct decision){ .step = ex.step, .count = (uint16_t)ex.options };
        if (ex.replaying)
            d->chosen = (uint16_t)take_replayed();
        else if (ex.random)
            d->chosen = (uint16_t)take_random();
    }
    return d->taken = ex.option[d->chosen];
}

static struct option decide(void)
{
    return ex.options == 1 ? ex.option[0] : take_as_decided();
}

/* The running thread touches the word now. For those preempted before they did: see (3). */
static void meet(const void *p, bool writes)
{
    for (unsigned i = 0; i < ex.nthreads; i++)
        if (ex.thread[i].next == p && (writes || ex.thread[i].next_writes))
            ex.thread[i].next_met = true;
}

/* Another thread goes on. Returns when this one does. */
static void run_instead(struct option o)
{
    unsigned i = o.thread;
    trace("                                    -> %s", name_of((int)i));
    ex.thread[i].state = READY;
    ex.moved = o.kind == TIMEOUT; /* the clock has moved, which others can see */
    go_to((int)i);
}

/* The running thread is left: its stores become visible but for those that stay. */
static void leave_buffer(struct option o)
{
    struct thread *self = &ex.thread[ex.current];
    if (o.keep) {
        trace("the newest %u of its %u stores stay in the buffer", o.keep, self->buffered);
        ex.delayed++;
    }
    drain_to(self, o.keep);
}

static void time_out(unsigned i)
{
    struct thread *t = &ex.thread[i];
    t->woken = false;
    if (t->until > ex.now)
        ex.now = t->until;
    meet(&ex.now, true);
    meet(t->word, true); /* it is not there any more for who would wake it */
}

/* It goes on where it was preempted. */
static void end_if_redundant(struct thread *self, bool stores)
{
    self->next = NULL;
    bool may_be_late = ex.delays > 0 && (stores || ex.delayed > 0);
    if (self->next_met || ex.replaying || ex.random || may_be_late || ex.model->everything)
        return;
    ex.redundant = true;
    go_to(-1);
}

/* The thread goes on: first of all in the handler of a signal that came meanwhile. */
static bool take_signal(struct thread *self)
{
    bool any = false;
    while (self->handler && !self->handling) {
        void (*handler)(void) = self->handler;
        self->handler = NULL;
        self->next = NULL;
        self->handling = any = true;
        trace("is interrupted");
        handler();
        trace("goes on after the interruption");
        self->handling = false;
    }
    return any;
}

/* Before an access: does the running thread go on? */
static void may_switch(const void *p, enum access access)
{
    struct thread *self = &ex.thread[ex.current];
    for (;;) {
        ex.options = 0;
        add(GO, 0, 0);
        list_preemptions();
        struct option o = decide();
        if (o.kind == GO)
            return;
        ex.preempted++;
        if (o.kind == DRAIN) {
            trace("the oldest store of %s becomes visible", name_of(o.thread));
            drain_one(&ex.thread[o.thread]);
            continue;
        }
        self->next = p;
        self->next_writes = access != READS;
        self->next_met = false;
        leave_buffer(o);
        if (o.kind == TIMEOUT)
            time_out(o.thread);
        run_instead(o);
        if (!take_signal(self))
            end_if_redundant(self, access == STORES);
        return;
    }
}

static const char *state_of(const struct thread *t)
{
    return t->state == SPINNING ? "spins" : t->what;
}

/* Nobody can run: who waits for what. */
static void stuck(void)
{
    char text[400];
    size_t len = (size_t)snprintf(text, sizeof text, "all threads wait:");
    for (unsigned i = 0; i < ex.nthreads && len < sizeof text; i++)
        if (ex.thread[i].state != DONE)
            len += (size_t)snprintf(text + len, sizeof text - len, " %s (%s, after %s)",
                                    name_of((int)i), state_of(&ex.thread[i]),
                                    short_of(ex.thread[i].at));
    fail(text);
}

/* Nobody can run, and no time comes: the end, well or not. */
static void no_more(void)
{
    bool all_done = true;
    for (unsigned i = 0; i < ex.nthreads; i++)
        all_done &= ex.thread[i].state == DONE;
    if (!all_done)
        stuck();
    go_to(-1);
}

/* Makes all stores visible: somebody may wait for one. The running thread's come first, since the
 * others' have stayed in their buffers for as long as can be. */
static void drain_all(void)
{
    drain_to(&ex.thread[ex.current], 0);
    for (unsigned i = 0; i < ex.nthreads; i++)
        drain_to(&ex.thread[i], 0);
}

/* It is left for the thread of this option, which may be itself: then its time has come. */
static void switch_to(struct option o)
{
    leave_buffer(o);
    if (o.kind == TIMEOUT) {
        for (unsigned i = 0; i < ex.nthreads; i++)
            if (can_run(&ex.thread[i])) { /* so it comes early */
                ex.preempted++;
                break;
            }
        time_out(o.thread);
        if (o.thread == (unsigned)ex.current) {
            ex.thread[ex.current].state = READY;
            return;
        }
    }
    run_instead(o);
    take_signal(&ex.thread[ex.current]);
}

/* The running thread cannot go on. Returns when it can, unless it is done. */
static void must_switch(void)
{
    struct thread *self = &ex.thread[ex.current];
    struct option o = { DRAIN, 0, 0 };
    bool drained = false;
    for (ex.step++; o.kind == DRAIN;) {
        if (self->state != DONE && can_run(self)) {
            self->state = READY;
            take_signal(self);
            return;
        }
        ex.options = 0;
        list_switches();
        if (ex.options > 0) {
            o = decide();
            if (o.kind == DRAIN) {
                ex.preempted++;
                drain_to(self, 0); /* the other order was possible before its last access */
                drain_one(&ex.thread[o.thread]);
            }
        } else if (drained) {
            no_more();
            return;
        } else {
            drain_all();
            drained = true;
        }
    }
    switch_to(o);
}

void explore_interrupt(unsigned i, void (*handler)(void))
{
    if ((int)i == ex.current || i >= ex.nthreads)
        explore_fail("interrupts itself or nobody");
    meet(ex.thread[i].next, true); /* it is not the same any more whether it goes on before this */
    ex.thread[i].handler = handler;
}

unsigned explore_choose(unsigned n)
{
    if (is_alone())
        return 0;
    ex.step++;
    ex.options = 0;
    for (unsigned i = 0; i < n; i++)
        add(VALUE, i, 0);
    return decide().thread;
}

void explore_note(uint64_t outcome)
{
    uint64_t i = 0, n = ex.ret->outcomes;
    while (i < n && ex.outcome[i] != outcome)
        i++;
    if (i < n)
        return;
    if (n == OUTCOMES_MAX)
        explore_fail("has more outcomes than the explorer can keep");
    ex.outcome[ex.ret->outcomes++] = outcome;
    ex.ret->outcomes_sum += (outcome + 1) * UINT64_C(0x9e3779b97f4a7c15);
}

/* ---- points ---- */

static void lower_priority(void)
{
    for (unsigned i = 0; i < PCT_DEPTH; i++)
        if (ex.change[i] == ex.step)
            ex.thread[ex.current].priority = i + 1;
}

/* Before each access. */
static void point(const void *p, enum access access, const char *where)
{
    unsigned limit = ex.model->steps_max ? ex.model->steps_max : STEPS_MAX;
    ex.thread[ex.current].at = where;
    if (++ex.step > limit)
        explore_fail("the execution does not end: %u steps, at %s", limit, short_of(where));
    if (ex.random)
        lower_priority();
    if (!is_shared(p, access != READS) && !ex.replaying && !ex.model->everything)
        return;
    may_switch(p, access);
    ex.moved = true;
    meet(p, access != READS);
}

/* What the thread sees there: its own stores first. */
static uint64_t look(const struct thread *self, const void *p, unsigned size)
{
    for (unsigned i = self->buffered; i-- > 0;)
        if (self->buffer[i].p == p)
            return self->buffer[i].v;
    return get(p, size);
}

uint64_t explore_load(const void *p, unsigned size, const char *where)
{
    if (is_alone())
        return get(p, size);
    point(p, READS, where);
    uint64_t v = look(&ex.thread[ex.current], p, size);
    trace("load  %#8" PRIx64 "  %p  %s", v, p, short_of(where));
    return v;
}

void explore_store(void *p, unsigned size, uint64_t v, bool strong, const char *where)
{
    if (is_alone()) {
        put(p, size, v);
        return;
    }
    point(p, strong || ex.model->delays == 0 ? CHANGES : STORES, where);
    struct thread *self = &ex.thread[ex.current];
    trace("store %#8" PRIx64 "  %p  %s", v, p, short_of(where));
    if (ex.model->delays == 0 || strong) {
        drain_to(self, 0);
        write_out(self, p, size, v);
        return;
    }
    if (self->buffered == BUFFER_MAX)
        drain_one(self);
    self->buffer[self->buffered++] = (struct store){ p, v, size };
}

static uint64_t apply(enum explore_op op, uint64_t a, uint64_t b)
{
    switch (op) {
    case EXPLORE_XCHG:
        return b;
    case EXPLORE_ADD:
        return a + b;
    case EXPLORE_SUB:
        return a - b;
    case EXPLORE_OR:
        return a | b;
    case EXPLORE_AND:
        return a & b;
    }
    abort();
}

uint64_t explore_rmw(void *p, unsigned size, enum explore_op op, uint64_t v, const char *where)
{
    static const char *const name[] = { "xchg", "add", "sub", "or", "and" };
    if (is_alone()) {
        uint64_t was = get(p, size);
        put(p, size, apply(op, was, v));
        return was;
    }
    point(p, CHANGES, where);
    struct thread *self = &ex.thread[ex.current];
    drain_to(self, 0);
    uint64_t was = get(p, size);
    write_out(self, p, size, apply(op, was, v));
    trace("%-5s %#8" PRIx64 "  %p  %s (was %#" PRIx64 ")", name[op], v, p, short_of(where), was);
    return was;
}

bool explore_cas(void *p, unsigned size, void *expected, uint64_t v, const char *where)
{
    if (!is_alone()) {
        point(p, CHANGES, where);
        drain_to(&ex.thread[ex.current], 0);
    }
    uint64_t was = get(p, size);
    bool same = was == get(expected, size);
    if (!same)
        put(expected, size, was);
    else if (is_alone())
        put(p, size, v);
    else
        write_out(&ex.thread[ex.current], p, size, v);
    trace("cas   %#8" PRIx64 "  %p  %s (%s, was %#" PRIx64 ")", v, p, short_of(where),
          same ? "done" : "refused", was);
    return same;
}

void explore_fence(bool strong)
{
    if (is_alone() || !strong)
        return;
    drain_to(&ex.thread[ex.current], 0);
    trace("fence");
}

void explore_membarrier(void)
{
    static uint32_t everybody;
    if (is_alone())
        return;
    point(&everybody, CHANGES, "membarrier");
    for (unsigned i = 0; i < ex.nthreads; i++)
        drain_to(&ex.thread[i], 0);
    trace("membarrier");
}

void explore_relax(void)
{
    if (is_alone())
        return;
    struct thread *self = &ex.thread[ex.current];
    uint64_t others = ex.writes - self->writes;
    if (others > self->seen) {
        self->seen = others; /* something new: look again before waiting */
        return;
    }
    self->state = SPINNING;
    trace("waits for somebody to write");
    must_switch();
    self->seen = ex.writes - self->writes;
}

int64_t explore_now(void)
{
    if (!is_alone())
        point(&ex.now, READS, "the time");
    return ex.now;
}

bool explore_wait(uint32_t *word, uint32_t expected, int64_t until, const char *what)
{
    if (is_alone())
        explore_fail("waits outside its threads");
    struct thread *self = &ex.thread[ex.current];
    point(word, CHANGES, what);
    if (until != INT64_MAX)
        is_shared(&ex.now, true); /* its end moves the clock: before or after who looks at it */
    if (look(self, word, sizeof *word) != expected) {
        trace("does not sleep: %s", what);
        return true;
    }
    self->state = BLOCKED;
    self->word = word;
    self->until = until;
    self->what = what;
    self->woken = false;
    self->blocked_at = ex.step;
    trace("sleeps: %s", what);
    must_switch();
    trace("%s: %s", self->woken ? "woken" : "its time has come", what);
    return self->woken;
}

int explore_wake(uint32_t *word, int most)
{
    int n = 0;
    if (!is_alone()) {
        point(word, CHANGES, "wake");
        drain_to(&ex.thread[ex.current], 0); /* a store before it is seen by who is woken */
    }
    while (n < most) {
        struct thread *first = NULL;
        for (unsigned i = 0; i < ex.nthreads; i++) {
            struct thread *t = &ex.thread[i];
            if (t->state == BLOCKED && !t->woken && t->word == word &&
                (!first || t->blocked_at < first->blocked_at))
                first = t;
        }
        if (!first)
            break;
        first->woken = true;
        drain_to(first, 0); /* going to sleep took the lock that finding it took */
        n++;
        trace("wakes %s", name_of((int)(first - ex.thread)));
    }
    return n;
}

/* ---- the state, put back ---- */

extern unsigned char __data_start[], _end[];

/* Word by word, past whatever a sanitizer has put between the variables. */
#if defined(RV_ASAN)
__attribute__((no_sanitize("address"), noinline))
#endif
static void copy_raw(unsigned char *to, const unsigned char *from, size_t bytes)
{
    volatile unsigned char *p = to;
    volatile uint64_t *words = (volatile uint64_t *)(void *)to;
    const uint64_t *source = (const uint64_t *)(const void *)from;
    size_t n = ((uintptr_t)to | (uintptr_t)from) % sizeof *words ? 0 : bytes / sizeof *words;
    for (size_t i = 0; i < n; i++)
        words[i] = source[i];
    for (size_t i = n * sizeof *words; i < bytes; i++)
        p[i] = from[i];
}

/* Copies the program's variables, but not the explorer's, to or from `copy`. A static variable deep
 * in the code under test is part of the model too. */
static void copy_statics(unsigned char *copy, bool save)
{
    struct world_own world = world_own();
    unsigned char *hole[2][2] = { { (unsigned char *)&ex, (unsigned char *)(&ex + 1) },
                                  { world.start, world.end } };
    int first = hole[1][0] < hole[0][0];
    unsigned char *from = __data_start;
    for (int i = 0; i <= 2; i++) {
        unsigned char *to = i == 2 ? _end : hole[i ^ first][0];
        size_t at = (size_t)(from - __data_start);
        copy_raw(save ? copy + at : from, save ? from : copy + at, (size_t)(to - from));
        from = i == 2 ? _end : hole[i ^ first][1];
    }
}

/* As they were before the model's setup(), for the next model. */
static void save_before(void)
{
    size_t bytes = (size_t)(_end - __data_start);
    if (ex.statics == NULL) {
        ex.statics = malloc(bytes);
        ex.before = malloc(bytes);
    }
    if (ex.statics == NULL || ex.before == NULL)
        explore_fail("no memory for a copy of its state");
    copy_statics(ex.before, true);
}

static void save_state(void)
{
    world_save();
    copy_statics(ex.statics, true);
}

static void restore_state(void)
{
    world_restore();
    copy_statics(ex.statics, false);
}

/* ---- one execution ---- */

static void thread_main(void)
{
    arrived(fiber_of(ex.current));
    if (ex.finishing) {
        ex.model->finish();
        go_to(-1);
    }
    const struct explore_thread *t = &ex.model->threads[ex.current];
    take_signal(&ex.thread[ex.current]);
    t->run(t->arg);
    ex.thread[ex.current].state = DONE;
    trace("is done");
    must_switch();
    abort(); /* it is not the next execution's thread */
}

/* A thread's context begins anew; what was on its stack is forgotten. */
static void build(struct thread *t)
{
    struct fiber *f = &t->fiber;
    if (f->stack == NULL) {
        f->stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                        0);
        if (f->stack == MAP_FAILED)
            explore_fail("no memory for a stack");
    }
#if defined(RV_ASAN)
    __asan_unpoison_memory_region(f->stack, STACK_BYTES);
#endif
    f->low = f->stack;
    f->top = f->stack + STACK_BYTES;
    f->asan_fake = NULL;
    f->sp = rv_context_lay(f->top, thread_main);
}

static void begin_execution(void)
{
    restore_state();
    ex.now = INT64_C(1000000000);
    ex.writes = ex.step = ex.depth = 0;
    ex.preempted = ex.delayed = 0;
    ex.moved = ex.failed = ex.redundant = false;
    ex.replayed = 0;
    for (unsigned i = 0; i < ex.nthreads; i++) {
        struct thread *t = &ex.thread[i];
        t->state = READY;
        t->seen = t->writes = 0;
        t->buffered = 0;
        t->local = NULL;
        t->at = NULL;
        t->what = NULL;
        t->next = NULL;
        t->handler = NULL;
        t->handling = false;
        t->priority = PCT_DEPTH + 1 + (unsigned)(draw() % 1000);
        build(t);
    }
    for (unsigned i = 0; ex.random && i < PCT_DEPTH; i++)
        ex.change[i] = (uint32_t)(draw() % (ex.ret->steps ? ex.ret->steps : 100));
}

static void execute(void)
{
    begin_execution();
    ex.options = 0;
    for (unsigned i = 0; i < ex.nthreads; i++)
        add(SWITCH, i, 0);
    go_to(decide().thread);
    if (!ex.failed && !ex.redundant && ex.model->finish) {
        for (unsigned i = 0; i < ex.nthreads; i++)
            drain_to(&ex.thread[i], 0);
        ex.finishing = true;
        build(&ex.thread[ex.nthreads]);
        go_to((int)ex.nthreads);
        ex.finishing = false;
    }
    ex.ret->executions++;
    if (ex.step > ex.ret->steps || ex.failed)
        ex.ret->steps = ex.step;
}

/* ---- schedules as text ---- */

static void write_schedule(char *ret_text, size_t cap)
{
    static const char kind[] = { ' ', ' ', 't', 'd', 'v' };
    size_t len = 0;
    ret_text[0] = '\0';
    for (uint32_t i = 0; i < ex.depth && len < cap; i++) {
        struct decision *d = &ex.decision[i];
        struct option o = d->taken;
        if (d->chosen == 0)
            continue;
        len += (size_t)snprintf(ret_text + len, cap - len, "%s%" PRIu32 ":", len ? "," : "",
                                d->step);
        if (len < cap && o.kind != SWITCH)
            ret_text[len++] = kind[o.kind];
        if (len < cap)
            len += (size_t)snprintf(ret_text + len, cap - len, "%u", o.thread);
        if (len < cap && o.keep)
            len += (size_t)snprintf(ret_text + len, cap - len, "+%u", o.keep);
    }
}

static void read_schedule(const char *text)
{
    ex.replays = 0;
    while (*text && ex.replays < REPLAY_MAX) {
        char *end;
        struct option o = { SWITCH, 0, 0 };
        ex.replay[ex.replays].step = (uint32_t)strtoul(text, &end, 10);
        if (*end++ != ':')
            break;
        o.kind = *end == 't' ? TIMEOUT : *end == 'd' ? DRAIN : *end == 'v' ? VALUE : SWITCH;
        end += o.kind != SWITCH;
        o.thread = (uint8_t)strtoul(end, &end, 10);
        if (*end == '+')
            o.keep = (uint8_t)strtoul(end + 1, &end, 10);
        ex.replay[ex.replays++].option = o;
        text = end + (*end == ',');
    }
}

/* Makes the execution again, and shows it. */
static void show(const char *schedule)
{
    read_schedule(schedule);
    ex.replaying = ex.tracing = true;
    ex.random = false;
    ex.known = 0;
    ex.preemptions = ex.delays = UINT32_MAX;
    execute();
    ex.replaying = ex.tracing = false;
}

/* ---- the search ---- */

/* Turns to the next option of the last decision that has one. False: there is none. */
static bool next_execution(void)
{
    while (ex.depth > 0) {
        struct decision *d = &ex.decision[ex.depth - 1];
        if (++d->chosen < d->count) {
            ex.known = ex.depth;
            return true;
        }
        ex.depth--;
    }
    return false;
}

/* All executions within the bounds. False: something was found, or there are too many. */
static bool search(void)
{
    do {
        ex.known = 0;
        ex.learned = false;
        do {
            execute();
            if (ex.failed)
                return false;
            if (ex.model->executions_max && ex.ret->executions >= ex.model->executions_max)
                return false;
        } while (!ex.learned && next_execution());
    } while (ex.learned);
    return true;
}

static void prepare(const struct explore *model, struct explore_result *ret)
{
    *ret = (struct explore_result){ 0 };
    ex.model = model;
    ex.ret = ret;
    ex.current = -1;
    ex.rng = 88172645463325252u;
    ex.words = ex.shared = 0;
    memset(ex.word, 0, sizeof ex.word);
    for (ex.nthreads = 0; ex.nthreads < EXPLORE_THREADS_MAX; ex.nthreads++)
        if (model->threads[ex.nthreads].run == NULL)
            break;
    world_clear();
    save_before();
    if (model->setup)
        model->setup();
    save_state();
}

/* The bounds in the order in which they are tried. */
static bool raise_bounds(void)
{
    if (ex.delays < ex.model->delays) {
        ex.delays++;
        return true;
    }
    if (ex.preemptions == ex.model->preemptions)
        return false;
    ex.preemptions++;
    ex.delays = 0;
    return true;
}

static void run_all(void)
{
    ex.preemptions = ex.delays = 0;
    do {
        if (!search())
            return;
    } while (raise_bounds());
    ex.ret->complete = true;
}

static void run_random(uint64_t seed)
{
    uint64_t n = ex.model->executions_max ? ex.model->executions_max : 10000;
    ex.random = true;
    ex.preemptions = ex.delays = UINT32_MAX;
    for (uint64_t i = 0; i < n && !ex.failed; i++) {
        ex.rng = (seed + i) * UINT64_C(0x9e3779b97f4a7c15) + 1;
        ex.known = 0;
        execute();
    }
    ex.random = false;
    ex.ret->complete = !ex.failed;
}

/* What was found, and how to find it again. */
static void report(void)
{
    struct explore_result r = *ex.ret; /* showing it is another execution */
    if (ex.model->expect_failure)
        return;
    fprintf(stderr,
            "explore: %s: %s\n"
            "  after %" PRIu64 " executions, at %u preemptions and %u delays, %u steps; again by\n"
            "  --no-fork --replay '%s'\n",
            ex.model->name, r.why, r.executions, r.preemptions, r.delays, r.steps,
            r.schedule[0] ? r.schedule : ",");
    show(r.schedule);
    *ex.ret = r;
}

/* The code under test died of a signal. */
void explore_crashed(void)
{
    char schedule[512];
    if (ex.model == NULL)
        return;
    write_schedule(schedule, sizeof schedule);
    fprintf(stderr, "explore: %s: %s crashed after %s; --no-fork --replay '%s'\n", ex.model->name,
            name_of(ex.current), short_of(ex.current < 0 ? NULL : ex.thread[ex.current].at),
            schedule[0] ? schedule : ",");
}

void explore_run(const struct explore *model, struct explore_result *ret)
{
    prepare(model, ret);
    if (explore_replay)
        show(explore_replay);
    else if (explore_random)
        run_random(strtoull(explore_random, NULL, 0));
    else
        run_all();
    ret->failed = ex.failed;
    ret->preemptions = ex.preempted;
    ret->delays = ex.delayed;
    ret->words = ex.shared;
    if (ex.failed) {
        write_schedule(ret->schedule, sizeof ret->schedule);
        if (!explore_replay)
            report();
    }
    copy_statics(ex.before, false);
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* A sanitizer makes each execution some thirty times as long: one preemption less, then, but for
 * canaries, which must be found at what they need. */
static struct explore affordable(const struct explore *model)
{
    struct explore m = *model;
#if defined(RV_ASAN)
    if (getenv("EXPLORE_ALL") == NULL && m.preemptions > 1)
        m.preemptions--;
    if (getenv("EXPLORE_ALL") == NULL && m.delays > 1)
        m.delays = 1;
#endif
    return m;
}

void explore(const struct explore *model)
{
    struct explore_result r;
    struct explore m = affordable(model);
#if defined(RV_TSAN)
    SKIP("one thread runs them all: there is nothing for ThreadSanitizer to see");
#endif
    double start = seconds();
    explore_run(&m, &r);
    if (r.failed)
        fprintf(stderr, "explore: %s: found at %u preemptions and %u delays, ", model->name,
                r.preemptions, r.delays);
    else
        fprintf(stderr, "explore: %s: holds, ", model->name);
    fprintf(stderr, "%" PRIu64 " executions, <= %u steps, %u shared words, %.2f s\n", r.executions,
            r.steps, r.words, seconds() - start);
    if (explore_replay)
        return;
    if (r.failed != model->expect_failure)
        check_failed(__FILE__, __LINE__, "%s: %s", model->name,
                     r.failed ? r.why : "found nothing, and there is something");
    if (!r.failed && !r.complete)
        check_failed(__FILE__, __LINE__, "%s: more than %" PRIu64 " executions", model->name,
                     r.executions);
}
