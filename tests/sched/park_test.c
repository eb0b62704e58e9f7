/* SPDX-License-Identifier: MIT */
/*
 * park_test.c -- sched/park.c: who sleeps, for how long, and who is woken by what.
 *
 * First the protocol step by step on one thread: an engine whose park runs a function of the test,
 * so that things happen while the worker sleeps. Then threads that try to lose a wake-up.
 */
#define CHECK_MAIN
#include "tests/sched/host.h"

/* ---- step by step ---- */

/* What the next parks are to do, and what they did. */
static struct {
    void (*asleep)(struct host *h, struct rv_worker *w);
    unsigned parks;
    int64_t until; /* of the last one */
} stage;

static void stage_park(struct rv_worker *w, int64_t until)
{
    CHECK_EQ(rv_load_relaxed(&w->parked), 1);
    stage.parks++;
    stage.until = until;
    if (stage.asleep) {
        void (*asleep)(struct host *h, struct rv_worker *w) = stage.asleep;
        stage.asleep = NULL;
        asleep(w->sched->io, w);
    }
}

static struct rv_engine stage_engine;

static struct host *begin(uint32_t workers)
{
    struct host *h = host_create_with(&(struct host_opts){ .workers = workers, .virtual = true });
    stage_engine = host_virtual_engine;
    stage_engine.park = stage_park;
    h->s.engine = &stage_engine;
    memset(&stage, 0, sizeof stage);
    return h;
}

static void end(struct host *h)
{
    rv_local_set(NULL);
    CHECK_EQ(host_run_on(h, host_nothing, NULL), 0);
    host_destroy(h);
}

/* The worker has nothing to do: it parks, and `asleep` happens meanwhile. True if it slept. */
static bool park(struct host *h, uint32_t i, void (*asleep)(struct host *h, struct rv_worker *w))
{
    struct rv_worker *w = h->s.workers[i];
    unsigned before = stage.parks;
    uint64_t counted = rv_load_relaxed(&w->n.parks);
    stage.asleep = asleep;
    rv_local_set(&w->local);
    rv_park(w);
    bool slept = stage.parks > before;
    CHECK_EQ(rv_load_relaxed(&w->n.parks) - counted, slept);
    CHECK_EQ(rv_load_relaxed(&w->parked), 0);
    stage.asleep = NULL;
    return slept;
}

static unsigned wakes(struct host *h)
{
    unsigned n = 0;
    for (uint32_t i = 0; i < h->s.nworkers; i++)
        n += rv_load_relaxed(&h->latch[i]);
    return n;
}

static void forget_wakes(struct host *h)
{
    for (uint32_t i = 0; i < h->s.nworkers; i++)
        rv_store_relaxed(&h->latch[i], 0u);
}

static struct rv_task *make(struct host *h)
{
    struct rv_task *t;
    CHECK_OK(rv_task_make(&h->s, NULL, h->s.work, &(struct reeve_spawn){ .fn = host_nothing },
                          false, &t));
    rv_add_relaxed(&h->s.posted, (uint64_t)1);
    return t;
}

/* Puts a task where thieves can find it, without a word to anybody. */
static void queue(struct host *h, uint32_t i)
{
    struct rv_task *t = make(h);
    uint64_t entry = rv_entry(rv_task_gen(t), rv_task_index(&h->s, t), true);
    CHECK(rv_deque_push(&h->s.workers[i]->lane[RV_NORMAL].deque, entry));
}

TEST(a_worker_alone_sleeps_until_its_next_timer)
{
    struct host *h = begin(1);
    CHECK(park(h, 0, NULL));
    CHECK_EQ(stage.until, RV_NEVER);
    rv_timer_push(h->s.workers[0], (struct rv_timer){ 12345, 0, 0 });
    CHECK(park(h, 0, NULL));
    CHECK_EQ(stage.until, 12345);
    rv_timers_pop(&h->s.workers[0]->timers);
    end(h);
}

static void nothing_called(struct rv_worker *w, struct rv_call_msg *m)
{
    (void)w, (void)m;
}

TEST(a_worker_that_finds_work_when_it_looks_again_does_not_sleep)
{
    struct host *h = begin(3);
    struct rv_call_msg call = { .fn = nothing_called };
    struct rv_worker *w = h->s.workers[0];
    rv_store_relaxed(&h->s.sentinel, 3u); /* somebody else ticks */
    CHECK(park(h, 0, NULL));
    CHECK_EQ(stage.until, RV_NEVER);

    struct rv_task *t = make(h);
    t->msg.kind = RV_MSG_FRESH;
    rv_inject(&h->s, &t->msg);
    CHECK(!park(h, 0, NULL));
    rv_worker_bind(w);
    CHECK(rv_worker_step(w));
    CHECK(park(h, 0, NULL));

    rv_send(&h->s, w, &call.msg, RV_MSG_CALL);
    CHECK(!park(h, 0, NULL));
    CHECK(rv_worker_step(w));
    CHECK(park(h, 0, NULL));

    queue(h, 0);
    CHECK(!park(h, 0, NULL));
    CHECK(rv_worker_step(w));
    CHECK(park(h, 0, NULL));

    queue(h, 1); /* another's, which only a sleep without end must not overlook */
    CHECK(!park(h, 0, NULL));
    CHECK(rv_steal(w, false));
    CHECK(rv_worker_step(w));
    CHECK(park(h, 0, NULL));

    rv_store_relaxed(&h->s.stopping, 1u);
    CHECK(!park(h, 0, NULL));
    rv_store_relaxed(&h->s.stopping, 0u);
    rv_store_relaxed(&h->s.sentinel, 0u);
    rv_dispatch_finish(w);
    rv_worker_unbind(w);
    end(h);
}

static struct rv_call_msg calls[2];

static void is_sent_two_messages(struct host *h, struct rv_worker *w)
{
    rv_local_set(NULL);
    for (int i = 0; i < 2; i++) {
        calls[i].fn = nothing_called;
        rv_send(&h->s, w, &calls[i].msg, RV_MSG_CALL);
        CHECK_EQ(rv_load_relaxed(&h->latch[w->index]), 1);
        CHECK_EQ(wakes(h), 1);
    }
    CHECK_EQ(rv_load_relaxed(&h->s.foreign_wakes), 1); /* one system call for both */
    CHECK_EQ(rv_load_relaxed(&h->s.nparked), 0);
    CHECK_EQ(rv_load_relaxed(&h->s.searching), 0);
    rv_local_set(&w->local);
}

TEST(a_message_wakes_its_parked_target_once)
{
    struct host *h = begin(3);
    CHECK(park(h, 1, is_sent_two_messages));
    rv_local_set(NULL);
    rv_send(&h->s, h->s.workers[2], &(struct rv_call_msg){ .fn = nothing_called }.msg, RV_MSG_CALL);
    CHECK_EQ(rv_load_relaxed(&h->s.foreign_wakes), 1); /* that one was not parked */
    for (uint32_t i = 0; i < 3; i++) {
        rv_worker_bind(h->s.workers[i]);
        rv_worker_step(h->s.workers[i]);
        rv_dispatch_finish(h->s.workers[i]);
        rv_worker_unbind(h->s.workers[i]);
    }
    rv_store_relaxed(&h->s.sentinel, 0u);
    end(h);
}

static void somebody_posts(struct host *h, struct rv_worker *w)
{
    rv_local_set(NULL);
    for (int i = 0; i < 2; i++) {
        struct rv_task *t = make(h);
        t->msg.kind = RV_MSG_FRESH;
        rv_inject(&h->s, &t->msg);
        rv_wake_one(&h->s);
        CHECK_EQ(wakes(h), 1); /* the second relies on the search of the first */
        CHECK_EQ(rv_load_relaxed(&h->s.searching), 1);
    }
    rv_local_set(&w->local);
}

static void the_searcher_finds_work(struct host *h, struct rv_worker *w)
{
    struct rv_worker *searcher = h->s.workers[0];
    struct rv_task *t = make(h);
    t->msg.kind = RV_MSG_FRESH;
    rv_inject(&h->s, &t->msg); /* by one who relied on the search */
    rv_local_set(&searcher->local);
    rv_found_work(searcher);
    CHECK(!searcher->searching);
    CHECK_EQ(rv_load_relaxed(&h->latch[w->index]), 1);
    CHECK_EQ(rv_load_relaxed(&h->s.searching), 1);
    rv_local_set(&w->local);
}

TEST(a_post_wakes_one_searcher_and_the_last_to_find_work_wakes_the_next)
{
    struct host *h = begin(2);
    rv_store_relaxed(&h->s.sentinel, 9u); /* somebody else ticks */
    CHECK(park(h, 0, somebody_posts));
    CHECK(h->s.workers[0]->searching);
    forget_wakes(h);
    for (int i = 0; i < 2; i++) { /* it takes them both */
        struct rv_msg *m = rv_injector_take(&h->s, RV_NORMAL);
        CHECK(m != NULL);
        rv_send(&h->s, h->s.workers[0], m, RV_MSG_FRESH);
    }
    CHECK(park(h, 1, the_searcher_finds_work));
    CHECK(h->s.workers[1]->searching);
    rv_found_work(h->s.workers[1]);
    rv_store_relaxed(&h->s.sentinel, 0u);
    end(h);
}

/* ---- the sentinel ---- */

TEST(an_idle_worker_beside_a_running_one_ticks_ever_more_slowly_and_then_sleeps_for_good)
{
    struct host *h = begin(2);
    const int64_t ticks_us[] = { 200, 400, 800, 1600, 3200, 6400, 10000 };
    for (unsigned i = 0; i < 7; i++) {
        reeve_time now = rv_load_relaxed(&h->now);
        CHECK(park(h, 0, NULL));
        CHECK_EQ(rv_load_relaxed(&h->s.sentinel), 1);
        CHECK_EQ(stage.until - now, ticks_us[i] * REEVE_US);
    }
    CHECK(park(h, 0, NULL)); /* a full tick saw nobody pick anything */
    CHECK_EQ(stage.until, RV_NEVER);
    CHECK_EQ(rv_load_relaxed(&h->s.sentinel), 0);
    end(h);
}

TEST(a_sentinel_goes_on_while_somebody_works)
{
    struct host *h = begin(2);
    for (unsigned i = 0; i < 50; i++) {
        rv_count(&h->s.workers[1]->n.picks, 1);
        reeve_time now = rv_load_relaxed(&h->now);
        CHECK(park(h, 0, NULL));
        CHECK_EQ(rv_load_relaxed(&h->s.sentinel), 1);
        if (i >= 6)
            CHECK_EQ(stage.until - now, 10000 * REEVE_US);
    }
    end(h);
}

TEST(a_sentinels_timer_that_is_sooner_than_its_tick_wakes_it)
{
    struct host *h = begin(2);
    reeve_time at = rv_load_relaxed(&h->now) + 5;
    rv_timer_push(h->s.workers[0], (struct rv_timer){ at, 0, 0 });
    CHECK(park(h, 0, NULL));
    CHECK_EQ(stage.until, at);
    rv_timers_pop(&h->s.workers[0]->timers);
    end(h);
}

static void another_goes_idle(struct host *h, struct rv_worker *w)
{
    CHECK_EQ(rv_load_relaxed(&h->s.sentinel), w->index + 1);
    CHECK(park(h, 1, NULL));
    CHECK_EQ(stage.until, RV_NEVER);
    CHECK_EQ(rv_load_relaxed(&h->s.sentinel), w->index + 1);
    rv_local_set(&w->local);
}

TEST(one_sentinel_is_enough)
{
    struct host *h = begin(3);
    CHECK(park(h, 0, another_goes_idle));
    end(h);
}

static void the_last_goes_idle(struct host *h, struct rv_worker *w)
{
    rv_store_relaxed(&h->s.sentinel, 0u);
    CHECK(park(h, 1, NULL));
    CHECK_EQ(stage.until, RV_NEVER); /* nobody runs, so nobody has to tick */
    CHECK_EQ(rv_load_relaxed(&h->s.sentinel), 0);
    rv_local_set(&w->local);
}

TEST(the_last_worker_to_fall_idle_sleeps_without_a_tick)
{
    struct host *h = begin(2);
    CHECK(park(h, 0, the_last_goes_idle));
    end(h);
}

static void another_spawns(struct host *h, struct rv_worker *w)
{
    struct rv_worker *busy = h->s.workers[1];
    rv_local_set(&busy->local);
    rv_store_relaxed(&h->s.sentinel, 2u);
    rv_notify(busy); /* somebody ticks: nothing to do */
    CHECK_EQ(wakes(h), 0);
    rv_store_relaxed(&h->s.sentinel, 0u);
    rv_notify(busy);
    CHECK_EQ(rv_load_relaxed(&h->s.sentinel), w->index + 1);
    CHECK_EQ(rv_load_relaxed(&h->latch[w->index]), 1);
    CHECK_EQ(rv_load_relaxed(&busy->n.wakes_sent), 1);
    rv_notify(busy);
    CHECK_EQ(rv_load_relaxed(&busy->n.wakes_sent), 1);
    rv_local_set(&w->local);
}

TEST(stealable_work_makes_a_parked_worker_the_sentinel_if_there_is_none)
{
    struct host *h = begin(2);
    rv_notify(h->s.workers[1]); /* nobody is parked: nothing to do */
    CHECK_EQ(rv_load_relaxed(&h->s.sentinel), 0);
    rv_store_relaxed(&h->s.sentinel, 2u); /* so that it is not the sentinel already */
    CHECK(park(h, 0, another_spawns));
    CHECK_EQ(rv_load_relaxed(&h->s.sentinel), 1);
    /* It looks, finds nothing, and ticks from the start. */
    reeve_time now = rv_load_relaxed(&h->now);
    CHECK(park(h, 0, NULL));
    CHECK_EQ(stage.until - now, 200 * REEVE_US);
    end(h);
}

static void the_sentinel_finds_work(struct host *h, struct rv_worker *w)
{
    struct rv_worker *sentinel = h->s.workers[0];
    rv_local_set(&sentinel->local);
    queue(h, 2);
    rv_found_work(sentinel);
    CHECK_EQ(rv_load_relaxed(&h->s.sentinel), w->index + 1); /* there is more: the next one ticks */
    CHECK_EQ(rv_load_relaxed(&h->latch[w->index]), 1);
    rv_local_set(&w->local);
}

TEST(a_sentinel_that_finds_work_hands_over_if_there_is_more)
{
    struct host *h = begin(3);
    rv_store_relaxed(&h->s.sentinel, 1u);
    CHECK(park(h, 1, the_sentinel_finds_work));
    end(h);
}

static void much_waits(struct host *h, struct rv_worker *w)
{
    struct rv_worker *busy = h->s.workers[1];
    rv_local_set(&busy->local);
    rv_store_relaxed(&h->s.sentinel, 2u);
    rv_share(busy); /* nothing waits */
    CHECK_EQ(wakes(h), 0);
    for (int i = 0; i < 4; i++)
        queue(h, 1);
    busy->mean_tsc = 12 * h->s.us_tsc; /* 48 us of work: not worth a wake */
    rv_share(busy);
    CHECK_EQ(wakes(h), 0);
    busy->mean_tsc = 13 * h->s.us_tsc;
    rv_share(busy);
    CHECK_EQ(wakes(h), 1);
    CHECK_EQ(rv_load_relaxed(&h->s.searching), 1);
    rv_local_set(&w->local);
}

TEST(a_worker_shares_what_takes_longer_than_a_wake)
{
    struct host *h = begin(2);
    CHECK(park(h, 0, much_waits));
    CHECK(h->s.workers[0]->searching);
    rv_local_set(&h->s.workers[0]->local);
    rv_store_relaxed(&h->s.sentinel, 0u);
    rv_found_work(h->s.workers[0]);
    end(h);
}

/* ---- threads ---- */

/* Foreign threads post in bursts, with pauses in which the workers fall asleep more or less deep.
 * A wake-up lost is a post that never runs, and a test that never ends. */
enum { POSTERS = 3, POSTS_MAX = 60000 };

struct storm {
    struct host *h;
    RV_ATOMIC(uint8_t) runs[POSTERS * POSTS_MAX];
    RV_ATOMIC(unsigned) ran, next, posters;
    unsigned each, pause_every;
    struct host_event over;
};

static int is_posted(void *arg)
{
    struct storm *s = *(struct storm **)arg;
    uintptr_t i = ((uintptr_t *)arg)[1];
    CHECK_EQ(rv_add_relaxed(&s->runs[i], 1), 0);
    if (i % 16 == 0)
        CHECK_OK(reeve_sleep(i % 32 ? 0 : reeve_in(50 * REEVE_US)));
    if (rv_add_acq_rel(&s->ran, 1u) + 1 == POSTERS * s->each)
        host_set(s->h, &s->over);
    return 0;
}

static void *posts_in_bursts(void *arg)
{
    struct storm *s = arg;
    unsigned me = rv_add_relaxed(&s->next, 1u), seed = me + 1;
    for (uintptr_t i = 0; i < s->each; i++) {
        uintptr_t what[2] = { (uintptr_t)s, me * s->each + i };
        struct reeve_spawn how = { .fn = is_posted, .arg = what, .copy = sizeof what };
        int r;
        seed = seed * 1664525u + 1013904223u;
        how.worker = seed >> 30 ? 0 : 1 + (int)((seed >> 20) % s->h->s.nworkers);
        while ((r = rv_sched_post(&s->h->s, &how)) == -EAGAIN)
            sched_yield();
        CHECK_EQ(r, 0);
        if ((seed >> 16) % s->pause_every == 0)
            usleep((seed >> 8) % 4 ? (seed >> 10) % 300 : 12000);
    }
    return NULL;
}

static int weathers_the_storm(void *arg)
{
    return host_wait(&((struct storm *)arg)->over, 0);
}

static void run_storm(uint32_t workers, bool light_fences, unsigned each, unsigned pause_every)
{
    struct storm *s = calloc(1, sizeof *s);
    pthread_t threads[POSTERS];
    CHECK(s != NULL);
    s->h = host_create(workers, 2000);
    s->h->s.light_fences &= light_fences;
    s->each = each;
    s->pause_every = pause_every;
    for (int i = 0; i < POSTERS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, posts_in_bursts, s), 0);
    CHECK_EQ(host_run_on(s->h, weathers_the_storm, s), 0);
    for (int i = 0; i < POSTERS; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    for (unsigned i = 0; i < POSTERS * each; i++)
        CHECK_EQ(rv_load_relaxed(&s->runs[i]), 1);
    host_destroy(s->h);
    free(s);
}

TEST(posts_in_bursts_from_foreign_threads_run_once_each)
{
    run_storm(4, true, host_times(20000), 100);
    run_storm(4, true, host_times(2000), 4);
}

TEST(posts_in_bursts_run_once_each_without_the_kernels_light_fences)
{
    run_storm(4, false, host_times(20000), 100);
    run_storm(4, false, host_times(2000), 4);
}

TEST(posts_to_a_single_worker_run_once_each)
{
    run_storm(1, true, host_times(20000), 50);
}

/* Chains of wake-ups from worker to worker, with everybody asleep in between. */
struct relay {
    unsigned left;
    struct host_event done;
};

static int passes_on(void *arg)
{
    struct relay *r = arg;
    if (r->left-- == 0) {
        host_set(host_self(), &r->done);
        return 0;
    }
    uint32_t me = rv_worker_self()->index, n = rv_worker_self()->sched->nworkers;
    CHECK_OK(reeve_go(passes_on, r, .worker = 1 + (int)((me + 1) % n)));
    return 0;
}

static int runs_relays(void *arg)
{
    struct relay relays[3];
    (void)arg;
    for (unsigned i = 0; i < 3; i++) {
        relays[i] = (struct relay){ .left = host_times(3000) };
        CHECK_OK(reeve_go(passes_on, &relays[i], .worker = 1 + (int)i));
    }
    for (unsigned i = 0; i < 3; i++)
        CHECK_OK(host_wait(&relays[i].done, 0));
    return 0;
}

TEST(messages_between_workers_always_wake_their_targets)
{
    CHECK_EQ(host_run(4, 10000, runs_relays, NULL), 0);
}

/* One worker computes and never makes a pass; what it has queued must not wait for it, whether the
 * others are awake, tick, or sleep for good. */
static int adds_one(void *arg)
{
    rv_add_acq_rel((RV_ATOMIC(unsigned) *)arg, 1u);
    return 0;
}

static int waits_and_adds_one(void *arg)
{
    CHECK_OK(reeve_sleep(0));
    return adds_one(arg);
}

static int computes(void *arg)
{
    RV_ATOMIC(unsigned) *n = arg;
    for (unsigned round = 1; round <= host_times(800); round++) {
        CHECK_OK(reeve_go(waits_and_adds_one, arg));
        while (rv_load_acquire(n) < round)
            sched_yield();
        if (round % 8 == 0)
            usleep(round % 64 ? 300 : 40000); /* this worker's thread, and the others' sleep */
    }
    return 0;
}

TEST(no_worker_sleeps_for_good_while_work_is_queued_elsewhere)
{
    for (int light = 0; light < 2; light++) {
        RV_ATOMIC(unsigned) n = 0;
        struct host *h = host_create(4, 1000);
        h->s.light_fences &= light;
        CHECK_EQ(host_run_on(h, computes, (void *)&n), 0);
        host_destroy(h);
    }
}

/* An idle scheduler: after some work all its workers sleep, and none wakes up for nothing. */
struct idle {
    struct host *h;
    struct host_event over;
};

static bool all_sleep_for_good(struct host *h)
{
    return rv_load_relaxed(&h->s.nparked) == 4 && rv_load_relaxed(&h->s.sentinel) == 0 &&
           rv_load_relaxed(&h->s.searching) == 0;
}

/* Until it has seen them all asleep for a while, in which nobody woke up. A busy machine may delay
 * the last ticks; if there is no last one, the test's time limit comes. */
static void *watches_the_idle(void *arg)
{
    struct idle *idle = arg;
    struct host *h = idle->h;
    for (bool idle_all_along = false; !idle_all_along;) {
        uint64_t looks = rv_load_relaxed(&h->looks), passes = host_counts(h).passes;
        bool asleep = all_sleep_for_good(h);
        usleep(300000);
        idle_all_along = asleep && all_sleep_for_good(h) && rv_load_relaxed(&h->looks) == looks &&
                         host_counts(h).passes == passes;
    }
    host_set(h, &idle->over);
    return NULL;
}

static int falls_idle(void *arg)
{
    struct idle *idle = arg;
    pthread_t watcher;
    RV_ATOMIC(unsigned) n = 0;
    for (int i = 0; i < 100; i++)
        CHECK_OK(reeve_go(waits_and_adds_one, (void *)&n));
    CHECK_OK(reeve_sleep(reeve_in(5 * REEVE_MS)));
    while (rv_load_acquire(&n) < 100)
        CHECK_OK(reeve_sleep(reeve_in(REEVE_MS)));
    CHECK_EQ(pthread_create(&watcher, NULL, watches_the_idle, idle), 0);
    CHECK_OK(host_wait(&idle->over, 0)); /* and the wake-up from outside comes through */
    CHECK_EQ(pthread_join(watcher, NULL), 0);
    return 0;
}

TEST(an_idle_scheduler_makes_no_wake_ups)
{
    struct idle idle = { .h = host_create(4, 1000) };
    CHECK_EQ(host_run_on(idle.h, falls_idle, &idle), 0);
    host_destroy(idle.h);
}
