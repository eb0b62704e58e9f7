/* SPDX-License-Identifier: MIT */
/*
 * pick_test.c -- sched/pick.c: the order in which a worker runs its tasks, and that none is lost
 * where one queue spills into the next.
 */
#define CHECK_MAIN
#include "tests/sched/host.h"

/* Who ran, in order. One thread: virtual time. */
static struct {
    char text[4096];
    unsigned n;
} ran;

static void note(char who)
{
    CHECK_LT(ran.n, sizeof ran.text - 1);
    ran.text[ran.n++] = who;
    ran.text[ran.n] = '\0';
}

static void note_nothing(void)
{
    memset(&ran, 0, sizeof ran);
}

static int notes(void *arg)
{
    note(*(const char *)arg);
    return 0;
}

static int notes_its_turns(void *arg)
{
    const char *name = arg;
    for (int i = 0; i < name[1] - '0'; i++) {
        note(name[0]);
        CHECK_OK(reeve_sleep(0));
    }
    return 0;
}

/* ---- the order ---- */

static int spawns_five(void *arg)
{
    (void)arg;
    for (int i = 0; i < 5; i++)
        CHECK_OK(reeve_go(notes, &"abcde"[i]));
    return 0;
}

TEST(fresh_tasks_run_newest_first)
{
    note_nothing();
    CHECK_EQ(host_run_virtual(1, spawns_five, NULL), 0);
    CHECK_STR_EQ(ran.text, "edcba");
}

static int spawns_yielders(void *arg)
{
    (void)arg;
    for (int i = 0; i < 3; i++)
        CHECK_OK(reeve_go(notes_its_turns, (void *)(uintptr_t)&"a5b5c5"[2 * i]));
    return 0;
}

TEST(tasks_that_yield_take_turns_in_the_order_in_which_they_came)
{
    host_needs_order();
    note_nothing();
    CHECK_EQ(host_run_virtual(1, spawns_yielders, NULL), 0);
    CHECK_EQ(ran.n, 15);
    for (unsigned i = ran.n - 9; i + 3 < ran.n; i++) /* once all have begun */
        CHECK_EQ(ran.text[i], ran.text[i + 3]);
}

static int waits_and_notes(void *arg)
{
    CHECK_OK(host_wait(arg, 0));
    note('w');
    return 0;
}

static int wakes_one_among_many(void *arg)
{
    struct host_event e = { 0 };
    (void)arg;
    CHECK_OK(reeve_go(waits_and_notes, &e));
    for (int i = 0; i < 5; i++)
        CHECK_OK(reeve_go(notes_its_turns, (void *)(uintptr_t)"y9"));
    while (ran.n < 10)
        reeve_sleep(0);
    note_nothing();
    host_set(host_self(), &e);
    reeve_sleep(0);
    CHECK_EQ(ran.text[0], 'w');
    return 0;
}

TEST(the_task_just_woken_by_the_running_one_runs_next)
{
    note_nothing();
    CHECK_EQ(host_run_virtual(1, wakes_one_among_many, NULL), 0);
}

static int wakes_three(void *arg)
{
    struct host_event e[3] = { 0 };
    (void)arg;
    for (int i = 0; i < 3; i++)
        CHECK_OK(reeve_go(host_waiter, &e[i], .name = &"abc"[i]));
    CHECK_OK(reeve_sleep(reeve_in(REEVE_US)));
    for (int i = 0; i < 3; i++)
        host_set(host_self(), &e[i]);
    CHECK_EQ(rv_queued(rv_worker_self()), 3); /* the slot and, in order, the ring */
    CHECK_NE(rv_load_relaxed(&rv_worker_self()->slot), 0);
    CHECK_EQ(rv_runq_len(&rv_worker_self()->lane[RV_NORMAL].ring), 2);
    return 0;
}

TEST(of_several_just_woken_the_last_has_the_slot_and_the_others_queue)
{
    CHECK_EQ(host_run_virtual(1, wakes_three, NULL), 0);
}

/* Two that wake each other always find the slot; a third yields beside them. */
static uint64_t ball[2];

static int plays_ball(void *arg)
{
    unsigned me = (unsigned)(uintptr_t)arg;
    for (int i = 0; i < 100; i++) {
        struct rv_worker *w = rv_worker_self();
        struct rv_task *t = w->cur;
        note((char)('p' + me));
        uint64_t other = ball[!me];
        ball[!me] = 0;
        ball[me] = i < 99 ? rv_wait_arm(w->sched, t, 0) : 0;
        if (other)
            rv_wait_fire(w->sched, w, other, RV_WOKEN, UINT32_MAX);
        if (ball[me])
            CHECK_EQ(rv_wait_park(w, t, RV_NEVER), RV_WOKEN);
    }
    return 0;
}

static int watches_a_game(void *arg)
{
    (void)arg;
    for (uintptr_t me = 0; me < 2; me++)
        CHECK_OK(reeve_go(plays_ball, (void *)me));
    unsigned in_a_row = 0, most = 0;
    for (unsigned seen = 0; ran.n < 190;) {
        CHECK_OK(reeve_sleep(0));
        in_a_row = ran.n - seen;
        most = in_a_row > most ? in_a_row : most;
        seen = ran.n;
    }
    return (int)most;
}

TEST(the_slot_wins_three_times_in_a_row_at_most)
{
    note_nothing();
    /* One pick from the ring, then three from the slot; and once at the start, two fresh ones. */
    int most = host_run_virtual(1, watches_a_game, NULL);
    CHECK_GE(most, 4);
    CHECK_LE(most, 5);
    CHECK_EQ(ran.n, 200);
}

/* ---- nobody starves ---- */

static bool stop_growing;

static int grows(void *arg)
{
    (void)arg;
    note('g');
    if (!stop_growing)
        CHECK_OK(reeve_go(grows, NULL));
    return 0;
}

static int yields_beside_growth(void *arg)
{
    (void)arg;
    stop_growing = false;
    CHECK_OK(reeve_go(grows, NULL));
    for (unsigned i = 1; i <= 100; i++) {
        CHECK_OK(reeve_sleep(0));
        CHECK_LE(ran.n, 2 * i);
        CHECK_GE(ran.n + 2, i / 2);
    }
    stop_growing = true;
    return 0;
}

TEST(woken_tasks_and_a_growing_tree_of_fresh_ones_take_turns)
{
    host_needs_order();
    note_nothing();
    CHECK_EQ(host_run_virtual(1, yields_beside_growth, NULL), 0);
}

/* Posts as a thread does that is no worker. */
static int post_from_outside(struct host *h, const struct reeve_spawn *how)
{
    struct rv_worker *w = rv_worker_self();
    rv_local_set(NULL);
    int r = rv_sched_post(&h->s, how);
    rv_local_set(&w->local);
    return r;
}

static int joins_beside_posts(void *arg)
{
    int every = *(int *)arg;
    for (int round = 0; round < 20; round++) {
        note_nothing();
        CHECK_OK(post_from_outside(host_self(),
                                   &(struct reeve_spawn){ .fn = notes, .arg = (void *)"p" }));
        for (int i = 0; ran.n == 0; i++) {
            reeve_task *t;
            CHECK_OK(reeve_spawn(&t, host_nothing, NULL));
            CHECK_OK(reeve_join(t, NULL, 0));
            CHECK_LE(i, every + 61 + 4);
        }
    }
    return 0;
}

TEST(posted_tasks_are_served_although_spawns_and_joins_never_end)
{
    int every = 61;
    CHECK_EQ(host_run_virtual(1, joins_beside_posts, &every), 0);
    every = 200;
    CHECK_EQ(host_run_with(&(struct host_opts){ .injector_every = 200, .virtual = true },
                           joins_beside_posts, &every),
             0);
}

static int yields_beside_posts(void *arg)
{
    (void)arg;
    stop_growing = false;
    CHECK_OK(reeve_go(grows, NULL));
    for (int round = 0; round < 10; round++) {
        static const char posted[] = "p";
        note_nothing();
        struct reeve_spawn how = { .fn = notes, .arg = (void *)(uintptr_t)posted };
        CHECK_OK(post_from_outside(host_self(), &how));
        for (int i = 0; strchr(ran.text, 'p') == NULL; i++) {
            CHECK_OK(reeve_sleep(0));
            CHECK_LE(i, 62);
        }
    }
    stop_growing = true;
    return 0;
}

TEST(posted_tasks_are_served_although_others_are_always_ready)
{
    CHECK_EQ(host_run_virtual(1, yields_beside_posts, NULL), 0);
}

static int joins_above_an_old_one(void *arg)
{
    (void)arg;
    for (int round = 0; round < 20; round++) {
        note_nothing();
        CHECK_OK(reeve_go(notes, (void *)(uintptr_t)"o"));
        for (int i = 0; ran.n == 0; i++) {
            reeve_task *t;
            CHECK_OK(reeve_spawn(&t, host_nothing, NULL));
            CHECK_OK(reeve_join(t, NULL, 0));
            CHECK_LE(i, 17 * 61);
        }
    }
    return 0;
}

TEST(the_oldest_fresh_task_is_served_although_newer_ones_keep_coming)
{
    CHECK_EQ(host_run_virtual(1, joins_above_an_old_one, NULL), 0);
}

/* ---- nothing is lost where a queue is full ---- */

enum { CROWD = 1000 };

static int waits_for_its_group(void *arg)
{
    (void)arg;
    int r = reeve_sleep(reeve_in(3600 * REEVE_SEC));
    CHECK_EQ(r, -ECANCELED);
    note_nothing();
    ++*(unsigned *)host_self()->arg;
    return r;
}

static int wakes_a_crowd(void *arg)
{
    reeve_group g = { 0 };
    (void)arg;
    for (int i = 0; i < CROWD; i++)
        CHECK_OK(reeve_go(waits_for_its_group, NULL, .group = &g, .stack_bytes = 4096));
    CHECK_OK(reeve_sleep(reeve_in(REEVE_US)));
    reeve_group_cancel(&g);
    CHECK_EQ(rv_queued(rv_worker_self()), RV_RUNQ_SLOTS + 1); /* one in the slot */
    CHECK_EQ(rv_load_relaxed(&host_self()->s.injector.len), CROWD - RV_RUNQ_SLOTS - 1);
    CHECK_EQ(reeve_group_wait(&g, 0), -ECANCELED);
    return 0;
}

TEST(more_woken_tasks_than_the_ring_holds_spill_into_the_injector)
{
    unsigned woken = 0;
    CHECK_EQ(host_run_with(&(struct host_opts){ .tasks_max = CROWD + 10, .virtual = true },
                           wakes_a_crowd, &woken),
             0);
    CHECK_EQ(woken, CROWD);
}

static int sleeps_till(void *arg)
{
    CHECK_OK(reeve_sleep(*(reeve_time *)arg));
    ++*(unsigned *)host_self()->arg;
    return 0;
}

static int all_sleep_till(void *arg)
{
    static reeve_time until;
    (void)arg;
    for (int round = 0; round < 3; round++) {
        until = reeve_in(REEVE_SEC);
        for (int i = 0; i < CROWD; i++)
            CHECK_OK(reeve_go(sleeps_till, &until, .stack_bytes = 4096));
        CHECK_OK(reeve_sleep(until + 1));
    }
    return 0;
}

TEST(more_timers_come_up_at_once_than_the_ring_holds)
{
    unsigned woken = 0;
    CHECK_EQ(host_run_with(&(struct host_opts){ .tasks_max = CROWD + 10, .virtual = true },
                           all_sleep_till, &woken),
             0);
    CHECK_EQ(woken, 3 * CROWD);
    woken = 0;
    CHECK_EQ(host_run_with(&(struct host_opts){ .workers = 3, .tasks_max = CROWD + 10,
                                                .virtual = true },
                           all_sleep_till, &woken),
             0);
    CHECK_EQ(woken, 3 * CROWD);
}

/* The deque has room for all tasks there can be; so its end is moved closer. */
enum { DEQUE_SLOTS = 8 };

struct spill {
    RV_ATOMIC(unsigned) runs;
};

static int counts_a_run(void *arg)
{
    rv_add_relaxed(&((struct spill *)arg)->runs, 1u);
    return 0;
}

static int spawns_beyond_the_deque(void *arg)
{
    struct spill *s = arg;
    reeve_task *t[100];
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 100; i++)
            CHECK_OK(reeve_spawn(i % 2 ? &t[i] : NULL, counts_a_run, s));
        for (int i = 1; i < 100; i += 2)
            CHECK_OK(reeve_join(t[round % 2 ? i : 100 - i], NULL, 0));
    }
    return 0;
}

static void run_with_short_deques(const struct host_opts *o)
{
    struct spill s = { 0 };
    struct host *h = host_create_with(o);
    uint64_t mask = h->s.workers[0]->lane[RV_NORMAL].deque.mask;
    for (uint32_t i = 0; i < h->s.nworkers; i++)
        h->s.workers[i]->lane[RV_NORMAL].deque.mask = DEQUE_SLOTS - 1;
    CHECK_EQ(host_run_on(h, spawns_beyond_the_deque, &s), 0);
    for (uint32_t i = 0; i < h->s.nworkers; i++)
        h->s.workers[i]->lane[RV_NORMAL].deque.mask = mask;
    CHECK_EQ(rv_load_relaxed(&s.runs), 2000);
    if (o->virtual) /* real thieves may be faster than who fills the deque */
        CHECK_GT(rv_load_relaxed(&h->s.injector.total), 1000 / 2);
    host_destroy(h);
}

TEST(a_full_deque_spills_into_the_injector_and_nothing_is_lost)
{
    run_with_short_deques(&(struct host_opts){ .virtual = true });
    run_with_short_deques(&(struct host_opts){ .workers = 3, .virtual = true });
    run_with_short_deques(&(struct host_opts){ .workers = 3 });
}

/* Two tasks take turns on one deque and each buries what the other has claimed already. */
static int joins_in_turn(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < 20000; i++) {
        reeve_task *t, *kept;
        CHECK_OK(reeve_spawn(&kept, host_nothing, NULL));
        CHECK_OK(reeve_spawn(&t, host_nothing, NULL));
        CHECK_OK(reeve_join(kept, NULL, 0));
        reeve_sleep(0);
        CHECK_OK(reeve_join(t, NULL, 0));
    }
    return 0;
}

static int two_join_in_turn(void *arg)
{
    CHECK_OK(reeve_go(joins_in_turn, arg));
    CHECK_OK(reeve_go(joins_in_turn, arg));
    return 0;
}

TEST(entries_that_two_tasks_bury_for_each_other_do_not_fill_the_slab)
{
    CHECK_EQ(host_run_virtual(1, two_join_in_turn, NULL), 0);
    CHECK_EQ(host_run(2, 1000, two_join_in_turn, NULL), 0);
}

/* ---- pinned ---- */

static int stays(void *arg)
{
    uint32_t home = *(uint32_t *)arg;
    for (int i = 0; i < 1000; i++) {
        CHECK_EQ(rv_worker_self()->index, home);
        CHECK_OK(reeve_sleep(i % 100 ? 0 : reeve_in(REEVE_US)));
    }
    return 0;
}

static int wanders(void *arg)
{
    (void)arg;
    for (int i = 0; i < 1000; i++)
        CHECK_OK(reeve_sleep(0));
    return 0;
}

static int spawns_the_pinned(void *arg)
{
    static const uint32_t homes[] = { 0, 1, 2, 3 };
    (void)arg;
    for (int i = 0; i < 40; i++) {
        reeve_task *t;
        CHECK_OK(reeve_spawn(i % 3 ? &t : NULL, stays, (void *)(uintptr_t)&homes[i % 4],
                             .worker = 1 + i % 4));
        CHECK_OK(reeve_go(wanders, NULL));
        if (i % 15 == 1)
            CHECK_OK(reeve_join(t, NULL, 0));
    }
    return 0;
}

TEST(a_pinned_task_stays_on_its_worker)
{
    CHECK_EQ(host_run_virtual(4, spawns_the_pinned, NULL), 0);
    CHECK_EQ(host_run(4, 1000, spawns_the_pinned, NULL), 0);
}

static int yields_beside_the_pinned(void *arg)
{
    (void)arg;
    int here = (int)rv_worker_self()->index + 1;
    for (int i = 0; i < 3; i++) {
        CHECK_OK(reeve_go(notes_its_turns, (void *)(uintptr_t)"p9", .worker = here));
        CHECK_OK(reeve_go(notes_its_turns, (void *)(uintptr_t)"r9"));
        CHECK_OK(reeve_go(notes_its_turns, (void *)(uintptr_t)"r9"));
    }
    for (int i = 0; i < 4; i++)
        CHECK_OK(reeve_go(notes, (void *)(uintptr_t)"f"));
    return 0;
}

TEST(pinned_tasks_and_others_take_turns)
{
    note_nothing();
    CHECK_EQ(host_run_virtual(1, yields_beside_the_pinned, NULL), 0);
    CHECK_EQ(ran.n, 27 + 54 + 4);
    unsigned half = 0;
    for (unsigned i = 0; i < 27 + 27; i++)
        half += ran.text[i] == 'p';
    CHECK_GE(half, 10); /* neither kind waits until the other is through */
    CHECK_LE(half, 26);
}

static int starts_anywhere(void *arg)
{
    *(uint32_t *)arg = rv_worker_self()->index;
    CHECK_EQ(rv_worker_self()->cur->pin, 0);
    return 0;
}

static int places_fresh_ones(void *arg)
{
    struct rv_worker *w = rv_worker_self();
    struct rv_sched *s = w->sched;
    (void)arg;
    for (uint32_t where = 0; where < 4; where++) {
        uint32_t started = 99;
        struct rv_task *t;
        w = rv_worker_self();
        CHECK_OK(rv_task_make(s, w, w->cur,
                              &(struct reeve_spawn){ .fn = starts_anywhere, .arg = &started },
                              false, &t));
        rv_count(&w->n.spawned, 1);
        rv_fresh_on(s, w, t, where);
        CHECK_OK(reeve_sleep(reeve_in(REEVE_MS)));
        CHECK_EQ(started, where);
    }
    return 0;
}

TEST(a_fresh_task_can_be_started_on_another_worker)
{
    CHECK_EQ(host_run_virtual(4, places_fresh_ones, NULL), 0);
}

/* A thief puts what it has stolen into its slot, and that may be a task that has no stack yet. */
static int waits_beside_a_fresh_slot(void *arg)
{
    struct rv_worker *w = rv_worker_self();
    (void)arg;
    note_nothing();
    CHECK_OK(reeve_go(notes, (void *)"f"));
    uint64_t entry = rv_deque_pop(&w->lane[RV_NORMAL].deque);
    CHECK(rv_entry_fresh(entry));
    rv_store_relaxed(&w->slot, entry);
    CHECK_EQ(reeve_sleep(reeve_in(REEVE_US)), 0);
    CHECK_STR_EQ(ran.text, "f");
    return 0;
}

TEST(a_task_that_waits_starts_the_fresh_one_in_the_slot)
{
    CHECK_EQ(host_run_virtual(1, waits_beside_a_fresh_slot, NULL), 0);
    CHECK_EQ(host_run_virtual(2, waits_beside_a_fresh_slot, NULL), 0);
}
