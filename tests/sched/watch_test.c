/* SPDX-License-Identifier: MIT */
/*
 * watch_test.c -- sched/watch.c: values are whole, versions grow, and nobody sleeps through a set.
 */
#define CHECK_MAIN
#include "tests/sched/host.h"

#include <reeve/watch.h>

/* ---- without waiting ---- */

TEST(a_new_cell_is_zero_at_version_zero)
{
    static const size_t sizes[] = { 0, 1, 7, 8, 9, 100 };
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        unsigned char got[101], zero[101] = { 0 }, sent[101];
        reeve_watch *w = reeve_watch_create(sizes[k]);
        CHECK(w != NULL);
        memset(got, 0xee, sizeof got);
        CHECK_EQ(reeve_watch_get(w, got), 0);
        CHECK_MEM_EQ(got, zero, sizes[k]);
        CHECK_EQ(got[sizes[k]], 0xee);
        for (uint64_t v = 1; v < 5; v++) {
            memset(sent, (int)v, sizeof sent);
            sent[0] ^= 0x80;
            CHECK_EQ(reeve_watch_set(w, sent), 0);
            memset(got, 0xee, sizeof got);
            CHECK_EQ(reeve_watch_get(w, got), v);
            CHECK_MEM_EQ(got, sent, sizes[k]);
            CHECK_EQ(got[sizes[k]], 0xee);
            CHECK_EQ(reeve_watch_get(w, NULL), v);
        }
        reeve_watch_destroy(w);
    }
}

TEST(a_poll_sees_each_version_once)
{
    reeve_watch *w = reeve_watch_create(sizeof(int));
    uint64_t seen = 0;
    int v = 7, one = 1, two = 2;
    CHECK_EQ(reeve_watch_wait(w, &v, &seen, REEVE_POLL), -ETIMEDOUT);
    CHECK_EQ(v, 7);
    CHECK_EQ(seen, 0);
    CHECK_EQ(reeve_watch_set(w, &one), 0);
    CHECK_EQ(reeve_watch_set(w, &two), 0);
    CHECK_EQ(reeve_watch_wait(w, &v, &seen, REEVE_POLL), 0);
    CHECK_EQ(v, 2);
    CHECK_EQ(seen, 2);
    CHECK_EQ(reeve_watch_wait(w, &v, &seen, REEVE_POLL), -ETIMEDOUT);
    seen = 1;
    CHECK_EQ(reeve_watch_wait(w, NULL, &seen, 0), 0);
    CHECK_EQ(seen, 2);
    reeve_watch_destroy(w);
}

TEST(a_closed_cell_shows_its_last_value_first)
{
    reeve_watch *w = reeve_watch_create(sizeof(int));
    uint64_t seen = 0;
    int v = 0, one = 1;
    CHECK_EQ(reeve_watch_set(w, &one), 0);
    reeve_watch_close(w);
    reeve_watch_close(w);
    CHECK_EQ(reeve_watch_set(w, &one), -EPIPE);
    CHECK_EQ(reeve_watch_wait(w, &v, &seen, 0), 0);
    CHECK_EQ(v, 1);
    v = 9;
    CHECK_EQ(reeve_watch_wait(w, &v, &seen, 0), -EPIPE);
    CHECK_EQ(reeve_watch_wait(w, &v, &seen, REEVE_POLL), -EPIPE);
    CHECK_EQ(v, 9);
    CHECK_EQ(seen, 1);
    CHECK_EQ(reeve_watch_get(w, &v), 1);
    CHECK_EQ(v, 1);
    reeve_watch_destroy(w);
}

TEST(bad_input_is_refused)
{
    reeve_watch *w = reeve_watch_create(4), *bare = reeve_watch_create(0);
    uint64_t seen = 0;
    CHECK_EQ(reeve_watch_set(w, NULL), -EINVAL);
    CHECK_EQ(reeve_watch_set(bare, NULL), 0);
    CHECK_EQ(reeve_watch_get(bare, NULL), 1);
    CHECK(reeve_watch_create(SIZE_MAX) == NULL);
    CHECK(reeve_watch_create(SIZE_MAX - 60) == NULL);
    CHECK_DIES("reeve_watch_wait was called outside a task", reeve_watch_wait(w, NULL, &seen, 0));
    reeve_watch_destroy(w);
    reeve_watch_destroy(bare);
    reeve_watch_destroy(NULL);
}

TEST(without_memory_there_is_no_cell)
{
    if (!rv_fault_available())
        SKIP("built without fault points");
    rv_fault_fail_nth(1);
    CHECK(reeve_watch_create(8) == NULL);
    CHECK(rv_fault_last_name() != NULL);
    rv_fault_off();
}

/* ---- waiting ---- */

enum { MANY = 40 };

struct watchers {
    reeve_watch *w;
    reeve_time until;
    int r, v;
    uint64_t seen;
    int woken, waiting;
};

static int watches_once(void *arg)
{
    struct watchers *a = arg;
    uint64_t seen = a->seen;
    int v = -1;
    a->waiting++;
    a->r = reeve_watch_wait(a->w, &v, &seen, a->until);
    if (a->r == 0) {
        a->v = v;
        a->seen = seen;
        a->woken++;
    }
    return 0;
}

static int wakes_all(void *arg)
{
    (void)arg;
    struct watchers a = { .w = reeve_watch_create(sizeof(int)) };
    reeve_group g = { 0 };
    for (int i = 0; i < MANY; i++)
        CHECK_OK(reeve_go(watches_once, &a, .group = &g));
    while (a.waiting < MANY)
        CHECK_OK(reeve_sleep(0));
    CHECK_OK(reeve_sleep(0));
    CHECK_EQ(a.woken, 0);
    CHECK_EQ(reeve_watch_set(a.w, &(int){ 11 }), 0);
    CHECK_EQ(reeve_watch_set(a.w, &(int){ 12 }), 0);
    CHECK_OK(reeve_group_wait(&g, 0));
    CHECK_EQ(a.woken, MANY);
    CHECK_EQ(a.v, 12);
    CHECK_EQ(a.seen, 2);
    reeve_watch_destroy(a.w);
    return 0;
}

TEST(a_set_wakes_all_who_wait)
{
    CHECK_EQ(host_run_virtual(1, wakes_all, NULL), 0);
    CHECK_EQ(host_run_virtual(3, wakes_all, NULL), 0);
}

static int close_wakes_all(void *arg)
{
    (void)arg;
    struct watchers a = { .w = reeve_watch_create(sizeof(int)) };
    reeve_group g = { 0 };
    for (int i = 0; i < MANY; i++)
        CHECK_OK(reeve_go(watches_once, &a, .group = &g));
    while (a.waiting < MANY)
        CHECK_OK(reeve_sleep(0));
    reeve_watch_close(a.w);
    CHECK_OK(reeve_group_wait(&g, 0));
    CHECK_EQ(a.woken, 0);
    CHECK_EQ(a.r, -EPIPE);
    reeve_watch_destroy(a.w);
    return 0;
}

TEST(a_close_wakes_all_who_wait)
{
    CHECK_EQ(host_run_virtual(1, close_wakes_all, NULL), 0);
}

static int waits_end(void *arg)
{
    (void)arg;
    struct watchers a = { .w = reeve_watch_create(sizeof(int)) };
    uint64_t seen = 0;
    reeve_time at = reeve_in(REEVE_MS);
    CHECK_EQ(reeve_watch_wait(a.w, NULL, &seen, at), -ETIMEDOUT);
    CHECK_EQ(reeve_now(), at);
    reeve_task *t;
    for (int set = 0; set < 2; set++) { /* what was set beats a cancellation that comes after it */
        a.waiting = 0;
        CHECK_OK(reeve_spawn(&t, watches_once, &a));
        while (a.waiting == 0)
            CHECK_OK(reeve_sleep(0));
        CHECK_OK(reeve_sleep(0));
        if (set)
            CHECK_EQ(reeve_watch_set(a.w, &(int){ 3 }), 0);
        reeve_cancel(t);
        CHECK_OK(reeve_join(t, NULL, 0));
        CHECK_EQ(a.r, set ? 0 : -ECANCELED);
    }
    CHECK_EQ(a.v, 3);
    reeve_watch_destroy(a.w); /* nobody is left in the queue */
    return 0;
}

TEST(deadlines_and_cancellation_end_a_wait)
{
    CHECK_EQ(host_run_virtual(1, waits_end, NULL), 0);
}

static int destroys_under_a_waiter(void *arg)
{
    (void)arg;
    struct watchers a = { .w = reeve_watch_create(sizeof(int)) };
    CHECK_OK(reeve_go(watches_once, &a));
    while (a.waiting == 0)
        CHECK_OK(reeve_sleep(0));
    CHECK_OK(reeve_sleep(0));
    reeve_watch_destroy(a.w);
    return 0;
}

TEST(destroying_under_a_waiter_aborts)
{
    CHECK_DIES("a task still waits on the cell",
               host_run_virtual(1, destroys_under_a_waiter, NULL));
}

/* ---- with several workers and a foreign thread ---- */

enum { WORDS = 24, WATCHERS = 6 };

/* Every word of a value is its version, so that a torn one shows. */
struct wide {
    uint64_t word[WORDS];
    unsigned char odd; /* the last word of the cell is not full */
};

struct storm {
    reeve_watch *w;
    uint64_t sets;
    int64_t until; /* fewer sets on a machine that is busy with other things */
    bool lockstep; /* the setter waits until all have seen a value */
    RV_ATOMIC(uint32_t) ready;
    RV_ATOMIC(bool) over;
};

static void check_whole(const struct wide *v, uint64_t version)
{
    for (int i = 0; i < WORDS; i++)
        CHECK_EQ(v->word[i], version);
    CHECK_EQ(v->odd, (unsigned char)version);
}

static void set_to(struct storm *s, uint64_t version)
{
    struct wide v;
    memset(&v, 0, sizeof v);
    for (int i = 0; i < WORDS; i++)
        v.word[i] = version;
    v.odd = (unsigned char)version;
    CHECK_EQ(reeve_watch_set(s->w, &v), 0);
}

static int watches_the_storm(void *arg)
{
    struct storm *s = arg;
    struct wide v;
    uint64_t seen = 0;
    for (uint32_t n = 0;; n++) {
        uint64_t before = seen;
        rv_add_acq_rel(&s->ready, 1u);
        int r;
        while ((r = reeve_watch_wait(s->w, &v, &seen, n % 3 ? 0 : reeve_in(3000))) == -ETIMEDOUT)
            CHECK_EQ(seen, before);
        if (r == -EPIPE)
            break;
        CHECK_EQ(r, 0);
        CHECK_LT(before, seen);
        if (s->lockstep)
            CHECK_EQ(seen, before + 1); /* none was slept through */
        check_whole(&v, seen);
    }
    CHECK_EQ(seen, s->sets); /* the last one was seen before the close */
    return 0;
}

static int sets_in_lockstep(void *arg)
{
    struct storm *s = arg;
    for (uint64_t v = 1; v <= s->sets; v++) {
        if (v % 32 == 0 && rv_clock_ns() > s->until)
            s->sets = v;
        while (rv_load_acquire(&s->ready) < v * WATCHERS)
            CHECK_OK(reeve_sleep(0));
        set_to(s, v);
    }
    reeve_watch_close(s->w);
    return 0;
}

static int has_a_storm(void *arg)
{
    struct storm *s = arg;
    reeve_group g = { 0 };
    for (int i = 0; i < WATCHERS; i++)
        CHECK_OK(reeve_go(watches_the_storm, s, .group = &g));
    if (s->lockstep)
        CHECK_OK(reeve_go(sets_in_lockstep, s, .group = &g));
    CHECK_OK(reeve_group_wait(&g, 0));
    return 0;
}

TEST(nobody_sleeps_through_a_set)
{
    for (uint32_t workers = 1; workers <= 4; workers++) {
        struct storm s = { .sets = host_times(4000), .lockstep = true };
        s.until = rv_clock_ns() + REEVE_SEC;
        s.w = reeve_watch_create(offsetof(struct wide, odd) + 1);
        CHECK_EQ(host_run(workers, 100, has_a_storm, &s), 0);
        reeve_watch_destroy(s.w);
    }
}

static void *sets_from_outside(void *arg)
{
    struct storm *s = arg;
    for (uint64_t v = 1; v <= s->sets; v++) {
        if (v % 32 == 0 && rv_clock_ns() > s->until)
            s->sets = v;
        set_to(s, v);
    }
    reeve_watch_close(s->w);
    return NULL;
}

static void *reads_from_outside(void *arg)
{
    struct storm *s = arg;
    struct wide v;
    uint64_t last = 0;
    while (!rv_load_relaxed(&s->over)) {
        uint64_t version = reeve_watch_get(s->w, &v);
        CHECK_LE(last, version);
        check_whole(&v, version);
        last = version;
    }
    return NULL;
}

TEST(values_are_seen_whole)
{
    for (uint32_t workers = 1; workers <= 2; workers++) {
        struct storm s = { .sets = host_times(100000), .until = rv_clock_ns() + REEVE_SEC };
        pthread_t setter, reader;
        s.w = reeve_watch_create(offsetof(struct wide, odd) + 1);
        CHECK_EQ(pthread_create(&setter, NULL, sets_from_outside, &s), 0);
        CHECK_EQ(pthread_create(&reader, NULL, reads_from_outside, &s), 0);
        CHECK_EQ(host_run(workers, 100, has_a_storm, &s), 0);
        rv_store_relaxed(&s.over, true);
        CHECK_EQ(pthread_join(setter, NULL), 0);
        CHECK_EQ(pthread_join(reader, NULL), 0);
        reeve_watch_destroy(s.w);
    }
}

/* ---- a set and a close just when somebody is about to wait ---- */

struct handshake {
    RV_ATOMIC(reeve_watch *) w; /* for the thread, which takes it */
    RV_ATOMIC(reeve_watch *) back;
    RV_ATOMIC(bool) over;
};

static void *sets_and_closes_each(void *arg)
{
    struct handshake *s = arg;
    for (;;) {
        reeve_watch *w;
        while ((w = rv_xchg_acq_rel(&s->w, NULL)) == NULL) {
            if (rv_load_relaxed(&s->over))
                return NULL;
            sched_yield();
        }
        CHECK_EQ(reeve_watch_set(w, &(int){ 5 }), 0);
        reeve_watch_close(w);
        rv_store_release(&s->back, w);
    }
}

static int waits_for_each(void *arg)
{
    struct handshake *s = arg;
    int64_t until = rv_clock_ns() + 2 * REEVE_SEC;
    for (uint32_t i = 0; i < host_times(30000) && (i % 32 || rv_clock_ns() < until); i++) {
        reeve_watch *w = reeve_watch_create(sizeof(int));
        uint64_t seen = 0;
        int v = 0;
        rv_store_release(&s->w, w);
        for (uint32_t k = 0; k < i % 61; k++)
            rv_cpu_relax();
        CHECK_EQ(reeve_watch_wait(w, &v, &seen, 0), 0);
        CHECK_EQ(v, 5);
        CHECK_EQ(seen, 1);
        CHECK_EQ(reeve_watch_wait(w, &v, &seen, 0), -EPIPE);
        while (rv_xchg_acq_rel(&s->back, NULL) == NULL)
            sched_yield();
        reeve_watch_destroy(w);
    }
    rv_store_relaxed(&s->over, true);
    return 0;
}

TEST(a_set_just_before_the_wait_is_seen_and_then_the_close)
{
    struct handshake s = { 0 };
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, sets_and_closes_each, &s), 0);
    CHECK_EQ(host_run(1, 100, waits_for_each, &s), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
}
