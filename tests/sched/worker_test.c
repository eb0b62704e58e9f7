/* SPDX-License-Identifier: MIT */
/*
 * worker_test.c -- sched/worker.c: what one pass of a worker does, and when it ends.
 *
 * The tests make the passes themselves, on a worker that no driver has.
 */
#define CHECK_MAIN
#include "tests/sched/host.h"

static RV_ATOMIC(unsigned) runs;

static int count(void *arg)
{
    (void)arg;
    rv_add_relaxed(&runs, 1u);
    return 0;
}

/* A scheduler whose first worker this thread is. */
static struct host *begin(const struct host_opts *o)
{
    struct host *h = host_create_with(o);
    rv_store_relaxed(&runs, 0u);
    for (uint32_t i = 0; i < h->s.nworkers; i++)
        rv_worker_bind(h->s.workers[i]);
    rv_local_set(&h->s.workers[0]->local);
    return h;
}

/* Runs what is left and takes it down. */
static void end(struct host *h)
{
    rv_local_set(NULL);
    for (uint32_t i = 0; i < h->s.nworkers; i++)
        rv_worker_unbind(h->s.workers[i]);
    CHECK_EQ(host_run_on(h, host_nothing, NULL), 0);
    host_destroy(h);
}

static void post(struct host *h, reeve_fn *fn, void *arg)
{
    CHECK_OK(rv_sched_post(&h->s, &(struct reeve_spawn){ .fn = fn, .arg = arg }));
}

/* ---- one pass ---- */

TEST(a_pass_with_nothing_to_do_returns_false)
{
    struct host *h = begin(&(struct host_opts){ .virtual = true });
    struct rv_worker *w = h->s.workers[0];
    for (int i = 0; i < 3; i++) {
        CHECK(!rv_worker_has_work(w));
        CHECK(!rv_worker_step(w));
    }
    CHECK_EQ(rv_worker_until(w), RV_NEVER);
    CHECK_EQ(rv_load_relaxed(&w->n.passes), 3);
    CHECK_EQ(rv_load_relaxed(&w->n.picks), 0);
    end(h);
}

TEST(a_pass_ends_after_its_picks)
{
    struct host *h = begin(&(struct host_opts){ .virtual = true, .pass_picks = 7 });
    struct rv_worker *w = h->s.workers[0];
    for (int i = 0; i < 20; i++)
        post(h, count, NULL);
    for (unsigned pass = 1; pass <= 2; pass++) {
        CHECK(rv_worker_has_work(w));
        CHECK(rv_worker_step(w));
        CHECK_EQ(rv_load_relaxed(&runs), 7 * pass);
    }
    CHECK(rv_worker_step(w));
    CHECK_EQ(rv_load_relaxed(&runs), 20);
    CHECK(!rv_worker_step(w));
    end(h);
}

static int burn(void *arg)
{
    int64_t end = rv_clock_ns() + REEVE_MS;
    while (rv_clock_ns() < end)
        rv_cpu_relax();
    return count(arg);
}

TEST(a_pass_ends_when_its_time_is_used_up)
{
    struct host *h = begin(&(struct host_opts){ .workers = 1, .pass_ns = 100 * REEVE_US });
    struct rv_worker *w = h->s.workers[0];
    for (int i = 0; i < 40; i++)
        post(h, burn, NULL);
    unsigned before = 0;
    while (before < 40) {
        CHECK(rv_worker_step(w));
        CHECK_LE(rv_load_relaxed(&runs) - before, 9); /* the clock is looked at every 8th pick */
        CHECK_GT(rv_load_relaxed(&runs), before);
        before = rv_load_relaxed(&runs);
    }
    end(h);
}

static int spawns_burners(void *arg)
{
    reeve_task *t;
    (void)arg;
    for (int i = 0; i < 30; i++) {
        CHECK_OK(reeve_spawn(&t, burn, NULL));
        CHECK_OK(reeve_join(t, NULL, 0));
    }
    return 0;
}

TEST(a_pass_that_joins_inline_ends_when_its_time_is_used_up)
{
    struct host *h = begin(&(struct host_opts){ .workers = 1, .pass_ns = 100 * REEVE_US });
    struct rv_worker *w = h->s.workers[0];
    post(h, spawns_burners, NULL);
    unsigned before = 0;
    while (before < 30) {
        CHECK(rv_worker_step(w));
        CHECK_LE(rv_load_relaxed(&runs) - before, 9);
        before = rv_load_relaxed(&runs);
    }
    end(h);
}

static int asks_for_a_boundary(void *arg)
{
    rv_store_relaxed(&rv_worker_self()->resched, 1u);
    return count(arg);
}

TEST(a_pass_ends_when_somebody_asks_for_it)
{
    struct host *h = begin(&(struct host_opts){ .virtual = true });
    struct rv_worker *w = h->s.workers[0];
    post(h, count, NULL);
    post(h, asks_for_a_boundary, NULL);
    post(h, count, NULL);
    CHECK(rv_worker_step(w));
    CHECK_EQ(rv_load_relaxed(&runs), 2);
    CHECK(rv_worker_step(w)); /* which forgot the wish */
    CHECK_EQ(rv_load_relaxed(&runs), 3);
    end(h);
}

/* ---- the inbox ---- */

struct call {
    struct rv_call_msg m;
    unsigned *order, at;
    unsigned again;
};

static void is_called(struct rv_worker *w, struct rv_call_msg *m)
{
    struct call *c = (struct call *)m;
    CHECK(rv_worker_self() == w);
    CHECK(w->cur == NULL);
    c->at = ++*c->order;
    if (c->again-- > 1) /* it may be sent again at once: the next pass gets it */
        rv_send(w->sched, w, &m->msg, RV_MSG_CALL);
}

TEST(messages_are_handled_in_the_order_in_which_they_were_sent)
{
    struct host *h = begin(&(struct host_opts){ .virtual = true });
    struct rv_worker *w = h->s.workers[0];
    struct call c[5];
    unsigned order = 0;
    for (int i = 0; i < 5; i++) {
        c[i] = (struct call){ .m.fn = is_called, .order = &order, .again = 1 };
        rv_send(&h->s, w, &c[i].m.msg, RV_MSG_CALL);
    }
    CHECK(rv_worker_has_work(w));
    CHECK(rv_worker_step(w));
    for (unsigned i = 0; i < 5; i++)
        CHECK_EQ(c[i].at, i + 1);
    CHECK(!rv_worker_step(w));
    end(h);
}

TEST(a_message_that_is_sent_again_while_it_is_handled_comes_once_a_pass)
{
    struct host *h = begin(&(struct host_opts){ .virtual = true });
    struct rv_worker *w = h->s.workers[0];
    unsigned order = 0;
    struct call c = { .m.fn = is_called, .order = &order, .again = 5 };
    rv_send(&h->s, w, &c.m.msg, RV_MSG_CALL);
    for (unsigned pass = 1; pass <= 5; pass++) {
        CHECK(rv_worker_step(w));
        CHECK_EQ(order, pass);
    }
    CHECK(!rv_worker_step(w));
    end(h);
}

static struct rv_msg *engine_got;

static void engine_message(struct rv_worker *w, struct rv_msg *m)
{
    (void)w;
    engine_got = m;
}

TEST(messages_of_the_io_kinds_go_to_the_engine)
{
    struct host *h = begin(&(struct host_opts){ .virtual = true });
    struct rv_engine engine = host_virtual_engine;
    struct rv_msg m = { 0 };
    engine.message = engine_message;
    h->s.engine = &engine;
    rv_send(&h->s, h->s.workers[0], &m, RV_MSG_IO + 3);
    CHECK(rv_worker_step(h->s.workers[0]));
    CHECK(engine_got == &m);
    CHECK_EQ(m.kind, RV_MSG_IO + 3);
    end(h);
}

static int is_sent_there(void *arg)
{
    *(uint32_t *)arg = rv_worker_self()->index;
    return count(NULL);
}

TEST(a_task_pinned_to_another_worker_starts_when_that_one_looks_into_its_inbox)
{
    struct host *h = begin(&(struct host_opts){ .workers = 2, .virtual = true });
    uint32_t where = 99;
    CHECK_OK(rv_sched_post(&h->s, &(struct reeve_spawn){ .fn = is_sent_there, .arg = &where,
                                                         .worker = 2 }));
    CHECK(!rv_worker_step(h->s.workers[0]));
    CHECK(rv_worker_has_work(h->s.workers[1]));
    rv_local_set(&h->s.workers[1]->local);
    CHECK(rv_worker_step(h->s.workers[1]));
    CHECK_EQ(where, 1);
    rv_local_set(&h->s.workers[0]->local);
    end(h);
}

/* ---- timers, and what a driver asks ---- */

static int sleeps_till(void *arg)
{
    CHECK_OK(reeve_sleep(*(reeve_time *)arg));
    return count(NULL);
}

TEST(the_driver_is_told_until_when_the_worker_may_idle)
{
    struct host *h = begin(&(struct host_opts){ .virtual = true });
    struct rv_worker *w = h->s.workers[0];
    static reeve_time at[] = { 3 * REEVE_SEC, 2 * REEVE_SEC, 4 * REEVE_SEC };
    for (int i = 0; i < 3; i++)
        post(h, sleeps_till, &at[i]);
    CHECK(rv_worker_step(w));
    for (unsigned i = 2; i <= 4; i++) {
        CHECK_EQ(rv_worker_until(w), i * REEVE_SEC);
        CHECK(!rv_worker_step(w));
        rv_store_relaxed(&h->now, i * REEVE_SEC - 1);
        CHECK(!rv_worker_step(w)); /* not yet */
        rv_store_relaxed(&h->now, i * REEVE_SEC);
        CHECK(rv_worker_step(w));
        CHECK_EQ(rv_load_relaxed(&runs), i - 1);
    }
    CHECK_EQ(rv_worker_until(w), RV_NEVER);
    CHECK_EQ(rv_load_relaxed(&w->n.timers_fired), 3);
    end(h);
}

static unsigned reaps;
static uint32_t ready_seen;
static bool busy_answer;

static bool counting_reap(struct rv_worker *w, uint32_t ready)
{
    (void)w;
    reaps++;
    ready_seen = ready;
    return busy_answer;
}

static bool told_busy(struct rv_worker *w)
{
    (void)w;
    return busy_answer;
}

TEST(the_engine_reaps_once_a_pass_and_is_told_how_much_is_ready)
{
    struct host *h = begin(&(struct host_opts){ .virtual = true, .pass_picks = 5 });
    struct rv_engine engine = host_virtual_engine;
    struct rv_worker *w = h->s.workers[0];
    engine.reap = counting_reap;
    engine.busy = told_busy;
    h->s.engine = &engine;
    for (int i = 0; i < 12; i++) {
        struct rv_task *t; /* into the deque, as a running task would */
        CHECK_OK(rv_task_make(&h->s, w, h->s.work, &(struct reeve_spawn){ .fn = count }, false,
                              &t));
        rv_add_relaxed(&h->s.posted, (uint64_t)1);
        rv_fresh(&h->s, w, t);
    }
    CHECK(rv_worker_step(w));
    CHECK_EQ(reaps, 1);
    CHECK_EQ(ready_seen, 7);
    CHECK(rv_worker_step(w));
    CHECK(rv_worker_step(w));
    CHECK_EQ(reaps, 3);
    CHECK_EQ(ready_seen, 0);
    CHECK(!rv_worker_step(w));
    busy_answer = true;
    CHECK(rv_worker_has_work(w));
    CHECK(rv_worker_step(w));
    busy_answer = false;
    CHECK(!rv_worker_has_work(w));
    end(h);
}

TEST(work_in_any_queue_is_work)
{
    struct host *h = begin(&(struct host_opts){ .virtual = true });
    struct rv_worker *w = h->s.workers[0];
    struct rv_task *t;
    static const struct reeve_spawn plain = { .fn = count }, pinned = { .fn = count, .worker = 1 };
    for (int queue = 0; queue < 5; queue++) {
        CHECK(!rv_worker_has_work(w));
        CHECK_OK(rv_task_make(&h->s, w, h->s.work, queue == 2 ? &pinned : &plain, false, &t));
        rv_add_relaxed(&h->s.posted, (uint64_t)1);
        if (queue == 0)
            rv_fresh(&h->s, w, t); /* the deque */
        else if (queue == 1)
            rv_fresh(&h->s, NULL, t); /* the injector */
        else if (queue == 2)
            rv_fresh(&h->s, w, t); /* the pinned ones */
        else if (queue == 3)
            rv_fresh_on(&h->s, w, t, 0); /* the ring */
        else
            rv_send(&h->s, w, &t->msg, RV_MSG_FRESH); /* the inbox */
        CHECK(rv_worker_has_work(w));
        CHECK(rv_worker_step(w));
        CHECK_EQ(rv_load_relaxed(&runs), queue + 1);
    }
    end(h);
}
