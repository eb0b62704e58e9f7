/* SPDX-License-Identifier: MIT */
/*
 * loan_test.c -- the loan's states and marks, one step after another, on an engine that only notes
 * what is asked of it. That real rings and signals do what is hoped is tested in
 * runtime/rescue_test.c.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <semaphore.h>

#include "sched/loan.h"
#include "sched/signal.h"
#include "tests/sched/host.h"

/* ---- an engine that takes notes -------------------------------------------------------------- */

static struct {
    uint32_t fetches, collects, messages;
    struct rv_worker *by; /* who acts for worker 0 */
    sem_t collecting, go_on;
    bool slow; /* collect waits for go_on */
} notes;

static RV_ATOMIC(uint32_t) something_is_due;

static bool note_due(struct rv_worker *w)
{
    return w->index == 0 && rv_load_relaxed(&something_is_due);
}

static void note_fetch(struct rv_worker *w)
{
    CHECK_EQ(rv_worker_self(), w);
    CHECK_EQ(rv_load_relaxed(&w->loan.state), RV_LOAN_NONE);
    notes.fetches++;
}

static void note_stand_in(struct rv_worker *w, struct rv_worker *by)
{
    CHECK_GE(rv_load_relaxed(&w->loan.state), RV_LOAN_TAKEN);
    notes.by = by;
}

static bool note_collect(struct rv_worker *w)
{
    CHECK_NE(notes.by, w);
    notes.collects++;
    if (notes.slow) {
        sem_post(&notes.collecting);
        CHECK_EQ(sem_wait(&notes.go_on), 0);
    }
    return true;
}

static void note_message(struct rv_worker *w, struct rv_msg *m)
{
    CHECK_EQ(w->index, 0);
    CHECK_EQ(m->kind, RV_MSG_IO);
    CHECK_NE(notes.by, w);
    notes.messages++;
}

static const struct rv_engine noting_engine = {
    .name = "noting",
    .reap = host_reap,
    .busy = host_busy,
    .park = host_park,
    .wake = host_wake,
    .cancel = host_cancel,
    .message = note_message,
    .due = note_due,
    .fetch = note_fetch,
    .stand_in = note_stand_in,
    .collect = note_collect,
};

/* A scheduler that nobody drives; the calling thread is its worker 0. */
static struct host *stage(uint32_t workers)
{
    struct host *h = host_create(workers, 100);
    h->s.engine = &noting_engine;
    h->s.rescue_ns = 200 * REEVE_US;
    h->s.pid = getpid();
    sem_init(&notes.collecting, 0, 0);
    sem_init(&notes.go_on, 0, 0);
    rv_worker_bind(h->s.workers[0]);
    return h;
}

static void strike(struct host *h)
{
    rv_worker_unbind(h->s.workers[0]);
    h->spoilt = true;
    host_destroy(h);
}

/* As if worker 1 had sent a signal that has just come. */
static void signal_comes(struct rv_worker *w)
{
    rv_store_relaxed(&w->loan.called, 2u);
    rv_loan_called(w);
    CHECK_EQ(rv_load_relaxed(&w->loan.called), 0);
}

static uint32_t state_of(struct rv_worker *w)
{
    return rv_load_relaxed(&w->loan.state);
}

/* ---- giving ---------------------------------------------------------------------------------- */

TEST(a_worker_is_in_reeve_code_from_its_beginning)
{
    struct host *h = stage(2);
    struct rv_worker *w = h->s.workers[0];
    CHECK_EQ(rv_load_relaxed(&w->loan.in_rt), 1);
    signal_comes(w);
    CHECK_EQ(state_of(w), RV_LOAN_NONE);
    strike(h);
}

TEST(a_signal_in_reeve_code_lends_nothing_but_ends_the_pass_soon)
{
    struct host *h = stage(2);
    struct rv_worker *w = h->s.workers[0];
    rv_rt_leave(w, 0);
    uint32_t was = rv_rt_enter(w);
    CHECK_EQ(was, 0);
    signal_comes(w);
    CHECK_EQ(state_of(w), RV_LOAN_NONE);
    CHECK_EQ(notes.fetches, 0);
    CHECK_EQ(rv_load_relaxed(&w->resched), 1);
    strike(h);
}

TEST(marks_nest)
{
    struct host *h = stage(2);
    struct rv_worker *w = h->s.workers[0];
    rv_rt_leave(w, 0);
    uint32_t outer = rv_rt_enter(w), inner = rv_rt_enter(w);
    rv_rt_leave(w, inner);
    signal_comes(w);
    CHECK_EQ(state_of(w), RV_LOAN_NONE);
    rv_rt_leave(w, outer);
    signal_comes(w);
    CHECK_EQ(state_of(w), RV_LOAN_LENT);
    strike(h);
}

TEST(a_signal_in_a_tasks_own_code_fetches_and_lends)
{
    struct host *h = stage(2);
    struct rv_worker *w = h->s.workers[0];
    rv_rt_leave(w, 0);
    signal_comes(w);
    CHECK_EQ(state_of(w), RV_LOAN_LENT);
    CHECK_EQ(notes.fetches, 1);
    CHECK_EQ(rv_load_relaxed(&w->n.loans_given), 1);
    signal_comes(w); /* it is lent already */
    CHECK_EQ(notes.fetches, 1);
    CHECK_EQ(rv_load_relaxed(&w->n.loans_given), 1);
    strike(h);
}

TEST(a_signal_that_no_worker_sent_lends_nothing)
{
    struct host *h = stage(2);
    struct rv_worker *w = h->s.workers[0];
    rv_rt_leave(w, 0);
    rv_loan_called(w);
    CHECK_EQ(state_of(w), RV_LOAN_NONE);
    CHECK_EQ(notes.fetches, 0);
    strike(h);
}

TEST(who_lends_wakes_who_asked_if_he_sleeps)
{
    struct host *h = stage(2);
    struct rv_worker *w = h->s.workers[0], *asker = h->s.workers[1];
    rv_rt_leave(w, 0);
    rv_store_relaxed(&asker->parked, 1u);
    rv_store_relaxed(&h->s.nparked, 1u);
    signal_comes(w);
    CHECK_EQ(rv_load_relaxed(&h->latch[1]), 1);
    CHECK_EQ(rv_load_relaxed(&h->s.nparked), 0);
    CHECK(rv_loan_offered(asker));
    CHECK(!rv_loan_offered(w));
    strike(h);
}

/* ---- the owner comes back -------------------------------------------------------------------- */

TEST(a_loan_that_nobody_took_is_taken_back)
{
    struct host *h = stage(2);
    struct rv_worker *w = h->s.workers[0];
    rv_rt_leave(w, 0);
    signal_comes(w);
    rv_store_relaxed(&w->resched, 0u);
    rv_rt_enter(w);
    CHECK_EQ(state_of(w), RV_LOAN_NONE);
    CHECK_EQ(rv_load_relaxed(&w->resched), 1);
    CHECK(!rv_loan_take(h->s.workers[1], w));
    CHECK_EQ(notes.collects, 0);
    strike(h);
}

static void *take(void *arg)
{
    struct host *h = arg;
    rv_worker_bind(h->s.workers[1]);
    CHECK(rv_loan_take(h->s.workers[1], h->s.workers[0]));
    CHECK_EQ(rv_load_relaxed(&h->s.workers[1]->n.loans_taken), 1);
    rv_worker_unbind(h->s.workers[1]);
    return NULL;
}

static void *release_when_awaited(void *arg)
{
    struct host *h = arg;
    while (state_of(h->s.workers[0]) != RV_LOAN_AWAITED)
        sched_yield();
    sem_post(&notes.go_on);
    return NULL;
}

TEST(an_owner_sleeps_until_the_holder_is_done)
{
    struct host *h = stage(2);
    struct rv_worker *w = h->s.workers[0];
    pthread_t holder, releaser;
    notes.slow = true;
    rv_rt_leave(w, 0);
    signal_comes(w);
    CHECK_EQ(pthread_create(&holder, NULL, take, h), 0);
    CHECK_EQ(sem_wait(&notes.collecting), 0);
    CHECK_EQ(state_of(w), RV_LOAN_TAKEN);
    CHECK_EQ(notes.by, h->s.workers[1]);
    CHECK(!rv_loan_take(h->s.workers[1], w)); /* once */
    CHECK_EQ(pthread_create(&releaser, NULL, release_when_awaited, h), 0);
    rv_rt_enter(w);
    CHECK_EQ(state_of(w), RV_LOAN_NONE);
    CHECK_EQ(notes.by, w);
    CHECK_EQ(pthread_join(holder, NULL), 0);
    CHECK_EQ(pthread_join(releaser, NULL), 0);
    strike(h);
}

/* ---- what the holder does -------------------------------------------------------------------- */

static struct rv_worker *called_for;

static void note_call(struct rv_worker *w, struct rv_call_msg *m)
{
    (void)m;
    called_for = w;
}

/* As the holder of worker 0's loan, on this thread. */
static void hold(struct host *h)
{
    struct rv_worker *w = h->s.workers[0], *by = h->s.workers[1];
    rv_rt_leave(w, 0);
    signal_comes(w);
    rv_local_set(&by->local);
    CHECK(rv_loan_take(by, w));
    rv_local_set(&w->local);
    CHECK_EQ(state_of(w), RV_LOAN_NONE);
    rv_rt_enter(w);
}

TEST(messages_for_the_owner_are_handled_on_its_behalf)
{
    struct host *h = stage(2);
    struct rv_worker *w = h->s.workers[0];
    struct rv_msg io = { 0 };
    struct rv_call_msg call = { .fn = note_call };
    rv_send(&h->s, w, &io, RV_MSG_IO);
    rv_send(&h->s, w, &call.msg, RV_MSG_CALL);
    hold(h);
    CHECK_EQ(notes.messages, 1);
    CHECK_EQ(called_for, w);
    CHECK(rv_inbox_empty(&w->inbox));
    strike(h);
}

TEST(tasks_sent_to_the_owner_go_to_the_holder_unless_they_are_pinned)
{
    struct host *h = stage(2);
    struct rv_worker *w = h->s.workers[0];
    struct reeve_spawn free_one = { .fn = host_nothing };
    struct reeve_spawn pinned = { .fn = host_nothing, .worker = 1 };
    struct rv_task *a, *b;
    CHECK_OK(rv_task_make(&h->s, NULL, h->s.work, &free_one, false, &a));
    CHECK_OK(rv_task_make(&h->s, NULL, h->s.work, &pinned, false, &b));
    rv_send(&h->s, w, &a->msg, RV_MSG_FRESH);
    rv_send(&h->s, w, &b->msg, RV_MSG_FRESH);
    hold(h);
    CHECK_EQ(rv_queued(w), 1);
    CHECK_EQ(rv_queued(h->s.workers[1]), 1);
    bool fresh;
    CHECK_EQ(rv_pick(w, &fresh), b);
    CHECK_EQ(rv_pick(h->s.workers[1], &fresh), a);
    strike(h);
}

/* ---- who is looked after --------------------------------------------------------------------- */

static RV_ATOMIC(uint32_t) signals_seen;

static void see_signal(int number)
{
    (void)number;
    rv_add_relaxed(&signals_seen, 1u);
}

/* Worker 0 is this thread, and signals to it are counted. Worker 1 looks. */
static struct host *stage_looks(void)
{
    struct host *h = stage(2);
    h->s.signal = SIGUSR1;
    CHECK(signal(SIGUSR1, see_signal) != SIG_ERR);
    rv_loan_attach(h->s.workers[0]);
    rv_store_relaxed(&something_is_due, 1u);
    return h;
}

/* Waits until what was seen at the last look is old enough. */
static void grow_old(struct host *h)
{
    int64_t until = rv_clock_ns() + h->s.rescue_ns;
    while (rv_clock_ns() < until)
        ;
}

static void look(struct host *h)
{
    rv_loan_look(h->s.workers[1]);
}

static uint64_t sent(struct host *h)
{
    return rv_load_relaxed(&h->s.workers[1]->n.rescue_signals);
}

TEST(who_has_done_nothing_between_two_looks_is_sent_one_signal)
{
    struct host *h = stage_looks();
    struct rv_worker *w = h->s.workers[0];
    rv_count(&w->n.picks, 1);
    look(h);
    CHECK_EQ(sent(h), 0);
    grow_old(h);
    look(h);
    CHECK_EQ(sent(h), 1);
    CHECK_EQ(rv_load_relaxed(&signals_seen), 1);
    CHECK_EQ(rv_load_relaxed(&w->loan.called), 2);
    grow_old(h);
    look(h); /* that one is still under way, for all we know */
    CHECK_EQ(sent(h), 1);
    rv_loan_called(w);
    grow_old(h);
    look(h);
    CHECK_EQ(sent(h), 2);
    strike(h);
}

TEST(who_picks_sleeps_or_owes_nothing_is_left_alone)
{
    struct host *h = stage_looks();
    struct rv_worker *w = h->s.workers[0];
    rv_count(&w->n.picks, 1);
    for (int i = 0; i < 4; i++) { /* it picks */
        look(h);
        grow_old(h);
        rv_count(&w->n.picks, 1);
    }
    look(h);
    rv_store_relaxed(&w->parked, 1u); /* it sleeps */
    grow_old(h);
    look(h);
    rv_store_relaxed(&w->parked, 0u);
    rv_store_relaxed(&something_is_due, 0u); /* nothing waits for it */
    grow_old(h);
    look(h);
    CHECK_EQ(sent(h), 0);
    rv_store_relaxed(&w->loan.timer_at, rv_worker_now(h->s.workers[1])); /* a timer is due */
    look(h);
    CHECK_EQ(sent(h), 1);
    strike(h);
}

TEST(a_worker_without_a_thread_is_left_alone)
{
    struct host *h = stage_looks();
    rv_loan_detach(h->s.workers[0]);
    rv_count(&h->s.workers[0]->n.picks, 1);
    look(h);
    grow_old(h);
    look(h);
    CHECK_EQ(sent(h), 0);
    CHECK_EQ(rv_load_relaxed(&h->s.workers[0]->loan.called), 0);
    strike(h);
}

TEST(an_offered_loan_is_taken_by_who_looks)
{
    struct host *h = stage_looks();
    struct rv_worker *w = h->s.workers[0];
    rv_rt_leave(w, 0);
    signal_comes(w);
    rv_local_set(&h->s.workers[1]->local);
    CHECK(rv_loan_look(h->s.workers[1]));
    rv_local_set(&w->local);
    CHECK_EQ(notes.collects, 1);
    CHECK_EQ(state_of(w), RV_LOAN_NONE);
    CHECK(!rv_loan_look(h->s.workers[1]));
    strike(h);
}

/* ---- marks where tasks run ------------------------------------------------------------------- */

static void check_out(void)
{
    CHECK_EQ(rv_load_relaxed(&rv_worker_self()->loan.in_rt), 0);
}

static int child(void *arg)
{
    check_out();
    CHECK_OK(reeve_sleep(REEVE_POLL));
    check_out();
    return arg ? -EIO : 0;
}

static void skipped(void *arg)
{
    check_out();
    *(bool *)arg = true;
}

static int visit_everything(void *arg)
{
    struct host_event never = { 0 };
    reeve_group g = { 0 };
    reeve_task *t;
    bool was_skipped = false;
    check_out();
    for (int i = 0; i < 50; i++) {
        int where = i % ((int)host_self()->s.nworkers + 1);
        CHECK_OK(reeve_spawn(&t, child, i % 2 ? arg : NULL, .worker = where));
        check_out();
        if (i % 5 == 0)
            CHECK_OK(reeve_sleep(reeve_in(REEVE_MS)));
        check_out();
        CHECK_OK(reeve_join(t, NULL, 0));
        check_out();
    }
    for (int i = 0; i < 10; i++)
        CHECK_OK(reeve_go(child, NULL, .group = &g));
    check_out();
    CHECK_OK(reeve_group_wait(&g, 0));
    check_out();
    CHECK_OK(reeve_spawn(&t, host_waiter, &never));
    CHECK_OK(reeve_sleep(reeve_in(REEVE_MS)));
    reeve_cancel(t);
    check_out();
    CHECK_OK(reeve_join(t, NULL, 0));
    CHECK_OK(reeve_spawn(&t, child, &was_skipped, .skipped = skipped, .deadline = 1));
    CHECK_OK(reeve_join(t, NULL, 0));
    CHECK(was_skipped);
    check_out();
    return 0;
}

TEST(a_tasks_own_code_is_never_inside_a_mark)
{
    for (uint32_t workers = 1; workers <= 3; workers++) {
        int here;
        CHECK_EQ(host_run(workers, 1000, visit_everything, &here), 0);
        CHECK_EQ(host_run_virtual(workers, visit_everything, &here), 0);
    }
}
