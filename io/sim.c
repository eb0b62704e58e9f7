/* SPDX-License-Identifier: MIT */
/*
 * sim.c -- the world of a simulation: its dice, its clock, and whose turn it is.
 *
 * Each worker has a thread, which is a context on a stack of its own; the calling thread's own
 * context is the world. A turn is one switch there and one back:
 *
 *     world: what is due happens -> draw one of those that can go on -> its turn -> ...
 *            nobody can          -> the clock goes to the next thing due, or the next park's end
 *            and there is none   -> stuck: -EDEADLK
 *
 * (1) Every decision comes from one generator (splitmix64), and nothing else that differs from run
 *     to run is ever looked at: no address, no real time, no counter of the CPU.
 * (2) The clock stands still while somebody can go on, but for what a turn takes in runs that say
 *     so. It may overshoot: then several things are late together, as on a busy machine.
 * (3) A worker that can go on does at some point: one that was frozen gets its turn as soon as
 *     nobody else can have it.
 *
 * Threads: one.
 */
#include "io/sim.h"

#include <errno.h>
#include <string.h>

#include "io/fdtab.h"
#include "io/proc.h"
#include "io/sim_world.h"
#include "mem/alloc.h"
#include "mem/die.h"
#include "sched/context.h"
#include "sched/sched.h"
#include "sched/wait.h"

#define THREAD_STACK_CLASS 2 /* 256 KiB */
#define START_NS (1000 * REEVE_SEC)
#define LIMIT_NS (INT64_C(86400) * REEVE_SEC)
#define TURNS_AT_ONE_TIME 2000000u
#define FREEZE_TURNS 300
#define FOREIGN_CALLS 16 /* of 1024 turns */
#define FOREIGN_LAST_CALLS 64
#define LOOKS 256 /* of 1024 turns: who waits at a real descriptor looks again */

struct rv_sim *rv_sim_world;
static struct rv_sim *stuck; /* worlds that nobody can take down any more */

/* ---- dice ------------------------------------------------------------------------------------ */

/* splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static uint64_t draw64(struct rv_sim *sim)
{
    sim->rng += UINT64_C(0x9e3779b97f4a7c15);
    return mix(sim->rng);
}

uint32_t rv_sim_draw(uint32_t below)
{
    return below < 2 ? 0 : (uint32_t)((draw64(rv_sim_world) >> 32) * below >> 32);
}

bool rv_sim_chance(uint32_t rate)
{
    return rate != 0 && rv_sim_draw(1024) < rate;
}

int64_t rv_sim_delay(void)
{
    uint32_t how = rv_sim_draw(16);
    int64_t most = rv_sim_world->latency_ns;
    if (how < 8)
        return 0;
    if (how == 15)
        most *= 20;
    return most > 0 ? rv_sim_draw((uint32_t)most) : 0;
}

bool rv_sim_canary_now(enum rv_sim_canary which)
{
    struct rv_sim *sim = rv_sim_world;
    return sim->opts.canary == which && ++sim->canary_count % sim->opts.canary_every == 0;
}

/* ---- events ---------------------------------------------------------------------------------- */

void rv_sim_record(uint32_t kind, uint32_t worker, uint64_t index, int64_t result)
{
    struct rv_sim *sim = rv_sim_world;
    struct rv_sim_result *r = &sim->result;
    uint64_t h = r->hash;
    h = mix(h ^ (uint64_t)kind << 32 ^ worker);
    h = mix(h ^ index);
    h = mix(h ^ (uint64_t)result);
    r->hash = mix(h ^ (uint64_t)sim->now);
    r->events++;
    if (sim->opts.trace) {
        struct rv_sim_event e = { r->events, sim->now, kind, worker, index, result };
        sim->opts.trace(sim->opts.trace_ctx, &e);
    }
}

const char *rv_sim_event_name(uint32_t kind)
{
    static const char *const names[] = {
        [RV_SIM_RAN] = "ran",
        [RV_SIM_PARK] = "park",
        [RV_SIM_UNPARK] = "unpark",
        [RV_SIM_WAKE] = "wake",
        [RV_SIM_QUEUE] = "queue",
        [RV_SIM_SUBMIT] = "submit",
        [RV_SIM_CANCEL] = "cancel",
        [RV_SIM_POST] = "post",
        [RV_SIM_DISPATCH] = "dispatch",
        [RV_SIM_PROVIDE] = "provide",
        [RV_SIM_CALL] = "call",
        [RV_SIM_ARRIVE] = "arrive",
        [RV_SIM_BREAK] = "break",
        [RV_SIM_FAULT] = "fault",
        [RV_SIM_CLOCK] = "clock",
        [RV_SIM_NOTE] = "note",
    };
    bool known = kind < sizeof names / sizeof *names && names[kind];
    return known ? names[kind] : "?";
}

struct rv_sched *rv_sim_sched(void)
{
    return rv_sim_world->sched;
}

void rv_sim_note(uint64_t index, int64_t result)
{
    struct rv_sim_worker *sw = rv_sim_world->turn;
    rv_sim_record(RV_SIM_NOTE, sw ? sw->w->index : UINT32_MAX, index, result);
}

void rv_sim_at(int64_t at, uint32_t kind, uint32_t index, uint64_t gen)
{
    struct rv_sim *sim = rv_sim_world;
    struct rv_sim_due due = { at, draw64(sim), gen, kind, index };
    RV_MUST(rv_sim_heap_push(&sim->heap, &due) == 0);
}

/* What is due happens; all of it, or the first few. */
static void let_happen(struct rv_sim *sim, bool all)
{
    while (sim->heap.n > 0 && sim->heap.due[0].at <= sim->now) {
        struct rv_sim_due due = rv_sim_heap_pop(&sim->heap);
        if (due.kind == RV_SIM_DUE_TRY || due.kind == RV_SIM_DUE_CANCEL)
            rv_sim_op_due(&due);
        else if (due.kind == RV_SIM_DUE_CALL)
            rv_sim_pool_due(&due);
        else
            rv_sim_file_due(&due);
        if (!all && rv_sim_chance(128))
            return;
    }
}

/* ---- answers ---- */

void rv_sim_answer(unsigned skip, int result)
{
    struct rv_sim *sim = rv_sim_world;
    sim->answering = true;
    sim->answer_skips = skip;
    sim->answer = result;
}

bool rv_sim_answered(int *ret_opcode)
{
    struct rv_sim *sim = rv_sim_world;
    bool met = !sim->answering;
    if (met && ret_opcode)
        *ret_opcode = sim->answered_opcode;
    sim->answering = false;
    return met;
}

/* ---- turns ----------------------------------------------------------------------------------- */

void rv_sim_leave(void)
{
    struct rv_sim *sim = rv_sim_world;
    struct rv_sim_worker *sw = sim->turn;
    RV_MUST(sw != NULL);
    sw->at = sw->w->on;
    rv_switch(sw->at, &sim->main);
}

void rv_sim_preempt(void)
{
    rv_sim_leave();
}

void rv_sim_leave_sometimes(void)
{
    const struct rv_sim *sim = rv_sim_world;
    if (sim->turn && sim->turn->w->cur && rv_sim_chance(sim->preempts))
        rv_sim_leave();
}

static void give_turn(struct rv_sim *sim, struct rv_sim_worker *sw)
{
    struct rv_worker *w = sw->w;
    sim->turn = sw;
    rv_local_set(&w->local);
    rv_switch(&sim->main, sw->at);
    rv_local_set(NULL);
    sim->turn = NULL;
    sim->turns++;
    sim->steps++;
    rv_sim_settle();
    sim->turns_since_clock++;
    if (sim->creep_ns)
        sim->now += rv_sim_draw((uint32_t)sim->creep_ns);
    rv_sim_record(RV_SIM_RAN, w->index, rv_load_relaxed(&w->n.picks),
                  (int64_t)rv_load_relaxed(&w->n.steals_got));
}

static bool can_go_on(const struct rv_sim *sim, const struct rv_sim_worker *sw)
{
    if (sw->ended)
        return false;
    return !sw->parked || sw->woken || sw->cq_n > 0 || sw->until <= sim->now;
}

/* Draws one of those that can go on, frozen ones only if there is no other; NULL: nobody can. */
static struct rv_sim_worker *draw_worker(struct rv_sim *sim, struct rv_sim_worker *last)
{
    struct rv_sim_worker *able[RV_WORKERS_MAX], *frozen = NULL;
    uint32_t n = 0;
    for (uint32_t i = 0; i < sim->sched->nworkers; i++) {
        struct rv_sim_worker *sw = &sim->workers[i];
        if (!can_go_on(sim, sw))
            continue;
        if (sw->frozen > sim->turns)
            frozen = sw;
        else
            able[n++] = sw;
    }
    if (n == 0)
        return frozen;
    if (last && last->frozen <= sim->turns && can_go_on(sim, last) && rv_sim_chance(sim->sticky))
        return last;
    struct rv_sim_worker *sw = able[rv_sim_draw(n)];
    if (n > 1 && rv_sim_chance(sim->freezes))
        sw->frozen = sim->turns + 1 + rv_sim_draw(FREEZE_TURNS); /* after this turn */
    return sw;
}

/* Nobody can go on: on to the next time at which something happens. False: nothing ever will. */
static bool advance_clock(struct rv_sim *sim)
{
    int64_t next = sim->heap.n > 0 ? sim->heap.due[0].at : RV_NEVER;
    for (uint32_t i = 0; i < sim->sched->nworkers; i++) {
        const struct rv_sim_worker *sw = &sim->workers[i];
        if (!sw->ended && sw->parked && sw->until < next)
            next = sw->until;
    }
    if (next == RV_NEVER)
        return false;
    RV_MUST(next > sim->now);
    sim->now = next;
    if (rv_sim_chance(256) && sim->latency_ns > 0)
        sim->now += rv_sim_draw((uint32_t)sim->latency_ns);
    sim->turns_since_clock = 0;
    rv_sim_record(RV_SIM_CLOCK, UINT32_MAX, 0, sim->now - sim->start);
    return true;
}

static bool all_ended(const struct rv_sim *sim)
{
    for (uint32_t i = 0; i < sim->sched->nworkers; i++)
        if (!sim->workers[i].ended)
            return false;
    return true;
}

static void call_foreign(struct rv_sim *sim)
{
    if (sim->opts.foreign && !sim->root_done)
        sim->opts.foreign(sim->opts.arg);
}

/* Nothing will ever happen by itself. But somebody outside may do something. */
static bool ask_outside(struct rv_sim *sim)
{
    for (int i = 0; i < FOREIGN_LAST_CALLS; i++) {
        call_foreign(sim);
        if (sim->heap.n > 0 || draw_worker(sim, NULL))
            return true;
    }
    return false;
}

/* The world turns until every worker's thread has ended. */
static int run(struct rv_sim *sim)
{
    int64_t limit = sim->opts.limit_ns ? sim->opts.limit_ns : LIMIT_NS;
    struct rv_sim_worker *sw = NULL;
    while (!all_ended(sim)) {
        let_happen(sim, false);
        sw = draw_worker(sim, sw);
        if (!sw || rv_sim_chance(LOOKS))
            rv_sim_look();
        if (!sw) {
            let_happen(sim, true);
            sw = draw_worker(sim, NULL);
            if (!sw && !advance_clock(sim) && !ask_outside(sim))
                return -EDEADLK;
        }
        if (sw)
            give_turn(sim, sw);
        if (sim->now - sim->start > limit || sim->turns_since_clock > TURNS_AT_ONE_TIME)
            return -ELOOP;
        if (rv_sim_chance(FOREIGN_CALLS))
            call_foreign(sim);
    }
    return 0;
}

/* ---- threads and the root task ----------------------------------------------------------------
 * */

/* What a worker's thread does, as in a real runtime. It ends by never being switched to again. */
static void thread_main(void)
{
    struct rv_worker *w = rv_worker_self();
    const struct rv_engine *e = w->sched->engine;
    rv_switch_entered(&w->thread_stack);
    RV_MUST(e->attach(w) == 0);
    rv_worker_run(w);
    e->detach(w);
    rv_sim_worker_of(w)->ended = true;
    rv_sim_leave();
    rv_die("simulation: the thread of worker %u had ended.", w->index);
}

static int make_threads(struct rv_sim *sim)
{
    rv_context_adopt(&sim->main);
    int r = rv_stack_pool_init(&sim->threads, sim->sched->nworkers, false);
    for (uint32_t i = 0; i < sim->sched->nworkers && r == 0; i++) {
        struct rv_sim_worker *sw = &sim->workers[i];
        struct rv_worker *w = sim->sched->workers[i];
        sw->w = w;
        w->rng = (uint32_t)draw64(sim) | 1;
        sw->thread = rv_stack_take(&sim->threads, NULL, THREAD_STACK_CLASS);
        if (!sw->thread) {
            r = -ENOMEM;
            break;
        }
        rv_context_build(sw->thread, thread_main);
        w->thread_stack = *sw->thread;
        w->on = &w->thread_stack;
        sw->at = w->on;
    }
    return r;
}

static void finish_threads(struct rv_sim *sim)
{
    for (uint32_t i = 0; i < sim->sched->nworkers; i++) {
        struct rv_sim_worker *sw = &sim->workers[i];
        if (!sw->thread)
            continue;
        rv_context_retire(&sw->w->thread_stack);
        sw->w->on = NULL;
        sw->thread->sp = NULL;
        sw->thread->asan_fake = NULL;
        sw->thread->tsan_fiber = NULL;
        rv_stack_give(&sim->threads, NULL, sw->thread);
    }
    rv_stack_pool_finish(&sim->threads);
}

static void end_root(struct rv_sim *sim, int result)
{
    sim->root_result = result;
    sim->root_done = true;
    rv_sched_close(sim->sched);
    rv_sched_cancel(sim->sched, rv_worker_self());
}

/* As in a runtime: the root is a child, so that it is known when it is done with all its children.
 * */
static int run_root(void *arg)
{
    struct rv_sim *sim = arg;
    reeve_task *t;
    int result = 0;
    int r = reeve_spawn(&t, sim->opts.fn, sim->opts.arg, .name = "root");
    if (r == 0) {
        while (reeve_join(t, &result, 0) < 0)
            rv_wait_mask(rv_worker_self()->cur, true);
        r = result;
    }
    end_root(sim, r);
    return 0;
}

static void skip_root(void *arg)
{
    end_root(arg, -ENOMEM); /* there was no stack for it */
}

/* ---- what was left over ---------------------------------------------------------------------- */

/* Those that the kernel has, that lie ready for it, and that it never had. One that lies there
 * twice makes a circle of the shelf: more than all is enough. */
static int64_t leases_home(const struct rv_group *g, uint32_t provided)
{
    int64_t n = provided + (int64_t)(g->bufs - g->fresh);
    for (const struct rv_lease *l = g->shelf; l && n <= g->bufs; l = rv_lease_next(l))
        n++;
    return n;
}

static int64_t leases_out(struct rv_sim *sim)
{
    int64_t out = sim->io->borrow.out;
    for (uint32_t i = 0; i < sim->sched->nworkers; i++)
        out += sim->io->bufs -
               leases_home(&sim->io->workers[i].group, sim->workers[i].provided_n);
    return out;
}

static void count_leaks(struct rv_sim *sim, uint32_t tasks_before)
{
    struct rv_sched *s = sim->sched;
    struct rv_sim_result *r = &sim->result;
    struct rv_stack_stats stacks;
    for (uint32_t i = 0; i < s->nworkers; i++) {
        rv_mag_flush(&s->tasks, &s->workers[i]->local.task_mag);
        rv_mag_flush(&sim->io->ops, &s->workers[i]->local.op_mag);
        rv_stack_mag_flush(&s->stacks, &s->workers[i]->local.stack_mag);
    }
    rv_stack_pool_stats(&s->stacks, &stacks);
    r->leaks.tasks = (int64_t)rv_slab_live(&s->tasks) - tasks_before;
    r->leaks.ops = rv_slab_live(&sim->io->ops);
    r->leaks.stacks = (int64_t)stacks.live;
    r->leaks.fds = rv_sim_net_open(sim);
    r->leaks.leases = leases_out(sim);
}

static uint64_t expired(struct rv_counters *n)
{
    uint64_t sum = 0;
    for (unsigned c = 0; c < RV_CLASSES; c++)
        sum += rv_load_relaxed(&n->expired[c]);
    return sum;
}

static void sum_up(struct rv_sim *sim)
{
    struct rv_sim_result *r = &sim->result;
    r->result = sim->root_result;
    r->turns = sim->turns;
    r->virtual_ns = sim->now - sim->start;
    for (uint32_t i = 0; i < sim->sched->nworkers; i++) {
        struct rv_counters *n = &sim->sched->workers[i]->n;
        r->seen.steals += rv_load_relaxed(&n->steals_got);
        r->seen.expired += expired(n);
        r->seen.skipped += rv_load_relaxed(&n->skipped);
        r->seen.inline_runs += rv_load_relaxed(&n->inline_runs);
    }
}

/* ---- from beginning to end ------------------------------------------------------------------- */

/* What a run is like, apart from what happens in it. */
static void draw_manners(struct rv_sim *sim, struct rv_sched_opts *so)
{
    static const int32_t picks[] = { 1, 2, 3, 8, 61 };
    static const uint32_t every[] = { 2, 3, 7, 61 };
    static const int64_t latency[] = { 0, 1000, 50000, 1000000, 50000000 };
    static const int64_t creep[] = { 0, 0, 100, 20000 };
    static const uint32_t rates[] = { 0, 0, 256, 900 };
    so->pass_picks = picks[rv_sim_draw(5)];
    so->injector_every = every[rv_sim_draw(4)];
    sim->latency_ns = latency[rv_sim_draw(5)];
    sim->creep_ns = creep[rv_sim_draw(4)];
    sim->sticky = rates[rv_sim_draw(4)];
    sim->freezes = rates[rv_sim_draw(4)] / 64;
    sim->steals = rates[rv_sim_draw(4)] / 4;
    sim->preempts = rates[rv_sim_draw(4)] / 8;
}

/* A signal finds programs as far as they could get, and so does the next one. */
static void settle_before_kill(void)
{
    if (!rv_sim_world)
        return;
    rv_sim_world->steps++;
    rv_sim_settle();
}

static int make_sched(struct rv_sim *sim)
{
    const struct rv_sim_opts *o = &sim->opts;
    int stack_class = rv_stack_class(o->stack_bytes ? o->stack_bytes : 65536);
    struct rv_sched_opts so = {
        .engine = &rv_engine_sim,
        .workers = o->workers ? o->workers : 1 + rv_sim_draw(4),
        .tasks_max = o->tasks_max ? o->tasks_max : 4096,
        .stack_class = (uint8_t)stack_class,
        .pass_ns = 0,
    };
    if (stack_class < 0)
        return stack_class;
    draw_manners(sim, &so);
    sim->sched = o->sched;
    if (!sim->sched) {
        sim->sched = rv_alloc_aligned(sizeof *sim->sched, RV_CACHE_LINE);
        if (!sim->sched)
            return -ENOMEM;
        memset(sim->sched, 0, sizeof *sim->sched);
    }
    int r = rv_sched_init(sim->sched, &so);
    sim->sched->random = true;
    rv_sim_pool_init(sim);
    rv_proc_forget();
    rv_proc_before_kill(settle_before_kill);
    return r;
}

static int make_io(struct rv_sim *sim)
{
    const struct rv_sim_opts *o = &sim->opts;
    sim->workers = rv_alloc_zero(sim->sched->nworkers * sizeof *sim->workers);
    if (!sim->workers)
        return -ENOMEM;
    for (uint32_t i = 0; i < sim->sched->nworkers; i++)
        sim->workers[i].w = sim->sched->workers[i];
    int r = rv_sim_net_init(sim);
    if (r < 0)
        return r;
    struct rv_io_opts io = { .driver = &rv_io_driver_sim, .bufs = o->bufs ? o->bufs : 8,
                             .buf_bytes = o->buf_bytes ? o->buf_bytes : 256 };
    r = rv_io_create(&sim->io, sim->sched, &io);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < sim->sched->nworkers; i++) { /* few at a time here and there */
        uint32_t window = UINT32_C(1) << mix(o->seed + i) % 8;
        if (window < sim->io->workers[i].group.window)
            sim->io->workers[i].group.window = window;
    }
    sim->ops_bytes = sizeof *sim->ops * sim->io->ops.cap;
    sim->ops = rv_map_lazy(sim->ops_bytes);
    return sim->ops ? 0 : -ENOMEM;
}

/* What the runtime left open is closed as its owner would close it; or the number would still be
 * known as that socket's when another world has it. */
static void close_what_is_left(const struct rv_sim *sim)
{
    for (uint32_t i = 0; sim->fds && i < sim->fds_max; i++)
        if (sim->fds[i] != 0)
            RV_MUST(rv_fd_close(NULL, RV_SIM_FD_FIRST + (int)i, 0) == 0);
}

static void take_down(struct rv_sim *sim)
{
    if (sim->workers && sim->io)
        finish_threads(sim);
    rv_proc_before_kill(NULL);
    rv_sim_pool_finish(sim);
    rv_io_destroy(sim->io);
    close_what_is_left(sim);
    if (sim->sched)
        rv_sched_finish(sim->sched);
    if (sim->sched != sim->opts.sched)
        rv_free(sim->sched);
    rv_sim_net_finish(sim);
    rv_unmap(sim->ops, sim->ops_bytes);
    rv_free(sim->workers);
    rv_free(sim->heap.due);
    rv_sim_world = NULL;
    rv_free(sim);
}

static int make_world(struct rv_sim **ret_sim, const struct rv_sim_opts *opts)
{
    struct rv_sim *sim = rv_alloc_zero(sizeof *sim);
    if (!sim)
        return -ENOMEM;
    sim->opts = *opts;
    sim->opts.canary_every = opts->canary_every ? opts->canary_every : 50;
    sim->fds_max = opts->fds_max ? opts->fds_max : 256;
    sim->rng = mix(opts->seed);
    sim->now = sim->start = START_NS;
    rv_sim_world = sim;
    int r = rv_sim_heap_init(&sim->heap);
    if (r == 0)
        r = make_sched(sim);
    if (r == 0)
        r = make_io(sim);
    if (r == 0)
        r = make_threads(sim);
    if (r < 0)
        take_down(sim);
    else
        *ret_sim = sim;
    return r;
}

int rv_sim_run(const struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    struct rv_sim *sim;
    if (!opts->fn)
        return -EINVAL;
    if (rv_sim_world)
        return -EBUSY;
    int r = make_world(&sim, opts);
    if (r < 0)
        return r;
    struct reeve_spawn root = { .fn = run_root, .arg = sim, .skipped = skip_root };
    uint32_t tasks_before = rv_slab_live(&sim->sched->tasks);
    r = rv_sched_post(sim->sched, &root);
    if (r < 0)
        end_root(sim, r);
    r = run(sim);
    sum_up(sim);
    if (r == 0)
        count_leaks(sim, tasks_before);
    else
        rv_sim_tell(sim);
    *ret = sim->result;
    if (r == 0) {
        take_down(sim);
    } else { /* the stacks of its tasks are in use for ever */
        sim->next_stuck = stuck;
        stuck = sim;
        rv_sim_world = NULL;
    }
    return r;
}
