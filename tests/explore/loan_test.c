/* SPDX-License-Identifier: MIT */
/*
 * loan_test.c -- the loan of a stuck worker's state: its owner, the handler of the signal on the
 * owner's thread, and the holder, in every order.
 *
 * The code is loan.c itself; the engine is a place where only one may be. The signal comes to the
 * owner's thread wherever that was left, which may be in the middle of reeve code. How sleepers
 * announce themselves is park.c's, in few words here.
 */
#include "tests/explore/explore_main.h"

#include "mem/die.h"
#include "sched/loan.h"
#include "sched/pick.h"
#include "sched/wait.h"
#include "tests/explore/world.h"

enum { OWNER, HOLDER, OTHER, WORKERS };

static struct {
    struct rv_sched s;
    struct rv_worker w[WORKERS];
    struct rv_worker *workers[WORKERS];
    RV_ATOMIC(uint32_t) latch[WORKERS];
    RV_ATOMIC(uint32_t) inside, noise, taken;
    uint32_t fetched;
} m;

/* ---- the place, and the engine ---- */

/* Only one may be here; there are points between coming and going. */
static void be_alone(void)
{
    RV_MUST(rv_add_relaxed(&m.inside, 1u) == 0);
    RV_MUST(rv_sub_relaxed(&m.inside, 1u) == 1);
}

static void fetch(struct rv_worker *w)
{
    RV_MUST(w == &m.w[OWNER]);
    be_alone();
    m.fetched++;
}

static bool collect(struct rv_worker *of)
{
    RV_MUST(of == &m.w[OWNER]);
    be_alone();
    be_alone();
    rv_store_release(&m.taken, 1u);
    return true;
}

static void stand_in(struct rv_worker *of, struct rv_worker *by)
{
    RV_MUST(of == &m.w[OWNER] && by != NULL);
}

static bool due(struct rv_worker *of)
{
    return of == &m.w[OWNER];
}

static void wake(struct rv_worker *to)
{
    (void)rv_xchg_acq_rel(&m.latch[to->index], 1u);
    explore_wake(&m.latch[to->index], 1);
}

static const struct rv_engine engine = { .name = "place",
                                         .fetch = fetch,
                                         .collect = collect,
                                         .stand_in = stand_in,
                                         .due = due,
                                         .wake = wake };

/* ---- in place of park.c, worker.c, wait.c and ready.c ---- */

void rv_wake_quietly(struct rv_sched *s, struct rv_worker *to)
{
    uint32_t parked = 1;
    rv_fence_seqcst();
    if (rv_cas(&to->parked, &parked, 0))
        s->engine->wake(to);
}

int64_t rv_worker_now(struct rv_worker *w)
{
    (void)w;
    return INT64_C(1000000000);
}

void rv_wait_timers_for(struct rv_worker *by, struct rv_worker *of, int64_t now)
{
    (void)by, (void)of, (void)now;
    be_alone();
}

void rv_task_message_for(struct rv_worker *by, struct rv_worker *of, struct rv_msg *msg)
{
    (void)by, (void)of;
    rv_die("rv_task_message_for: message %u was never sent.", msg->kind);
}

/* ---- the threads ---- */

static void on_signal(void)
{
    RV_MUST(explore_self() == OWNER);
    rv_loan_called(&m.w[OWNER]);
}

static void setup(void)
{
    world_handler = on_signal;
    m.s.engine = &engine;
    m.s.workers = m.workers;
    m.s.nworkers = WORKERS;
    m.s.rescue_ns = 1; /* whoever does nothing between two looks is stuck */
    for (uint32_t i = 0; i < WORKERS; i++) {
        m.workers[i] = &m.w[i];
        m.w[i].sched = &m.s;
        m.w[i].index = i;
        rv_store_relaxed(&m.w[i].loan.timer_at, INT64_MAX);
        rv_store_relaxed(&m.w[i].loan.tid, (int32_t)i + 1);
        rv_store_relaxed(&m.w[i].loan.in_rt, 1u);
    }
    rv_store_relaxed(&m.w[OWNER].loan.in_rt, 0u); /* it runs a task */
}

static void call_reeve(void)
{
    struct rv_worker *w = &m.w[OWNER];
    uint32_t was = rv_rt_enter(w);
    be_alone();
    uint32_t inner = rv_rt_enter(w); /* marks nest */
    be_alone();
    rv_rt_leave(w, inner);
    be_alone();
    rv_rt_leave(w, was);
}

static void compute_and_call(void *arg)
{
    (void)arg;
    for (int i = 0; i < 2; i++) {
        (void)rv_load_relaxed(&m.noise); /* the user's code, where the signal finds it */
        call_reeve();
    }
    (void)rv_load_relaxed(&m.noise);
    rv_rt_enter(&m.w[OWNER]); /* and back to the scheduler for good */
    be_alone();
}

static void look_three_times(void *arg)
{
    struct rv_worker *w = &m.w[(uintptr_t)arg];
    rv_store_relaxed(&m.noise, 1u);
    for (int i = 0; i < 3; i++)
        (void)rv_loan_look(w);
}

static void all_is_back(void)
{
    RV_MUST(rv_load_relaxed(&m.w[OWNER].loan.state) == RV_LOAN_NONE);
    RV_MUST(rv_load_relaxed(&m.inside) == 0);
    RV_MUST(rv_load_relaxed(&m.w[OWNER].n.loans_given) == m.fetched);
}

static const struct explore one_holder = {
    .name = "loan: owner and holder",
    .setup = setup,
    .threads = { { "owner", compute_and_call, NULL },
                 { "holder", look_three_times, (void *)HOLDER } },
    .finish = all_is_back,
    .preemptions = 5,
};

static const struct explore two_holders = {
    .name = "loan: owner and two who would hold",
    .setup = setup,
    .threads = { { "owner", compute_and_call, NULL },
                 { "holder", look_three_times, (void *)HOLDER },
                 { "other", look_three_times, (void *)OTHER } },
    .finish = all_is_back,
    .preemptions = 3,
};

TEST(owner_and_holder_are_never_both_in)
{
    explore(&one_holder);
    explore(&two_holders);
}

/* ---- (5): who called sleeps when the loan comes ---- */

static void compute_until_rescued(void *arg)
{
    (void)arg;
    while (rv_load_acquire(&m.taken) == 0)
        rv_cpu_relax();
    rv_rt_enter(&m.w[OWNER]);
    be_alone();
}

static void look_and_sleep(void *arg)
{
    struct rv_worker *w = &m.w[(uintptr_t)arg];
    while (rv_load_acquire(&m.taken) == 0) {
        if (rv_loan_look(w))
            continue;
        rv_store_relaxed(&w->parked, 1u);
        rv_fence_seqcst();
        if (!rv_loan_offered(w))
            explore_wait(&m.latch[w->index], 0, RV_NEVER, "its park");
        (void)rv_xchg_acq_rel(&m.latch[w->index], 0u);
        rv_store_relaxed(&w->parked, 0u);
    }
}

static const struct explore sleeper = {
    .name = "loan: the holder sleeps",
    .setup = setup,
    .threads = { { "owner", compute_until_rescued, NULL },
                 { "holder", look_and_sleep, (void *)HOLDER } },
    .finish = all_is_back,
    .preemptions = 4,
    .delays = 1,
};

TEST(a_loan_is_taken_by_who_has_gone_to_sleep)
{
    explore(&sleeper);
}
