/* SPDX-License-Identifier: MIT */
/*
 * Loads: one for all who ask, each of whom waits as long as he likes.
 *
 * A load of the tests stops at a gate, a semaphore, which the test opens when it has seen what it
 * wants to see. So no test depends on how long anything takes.
 */
#define CHECK_MAIN
#include "tests/runtime/cache_box.h"

#include "mem/fault.h"
#include "runtime/cache_flight.h"

static struct reeve_sem begun, gate, ended;
static atomic_long loads, load_result;
static reeve_cache *the_cache;

static void open_gate(unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        CHECK_OK(reeve_sem_post(&gate));
}

static void init_gates(void)
{
    CHECK_OK(reeve_sem_init(&begun, 0, 100000));
    CHECK_OK(reeve_sem_init(&gate, 0, 100000));
    CHECK_OK(reeve_sem_init(&ended, 0, 100000));
    atomic_store(&loads, 0);
    atomic_store(&load_result, 0);
}

static uint64_t number_of(struct reeve_bytes key)
{
    uint64_t number;
    CHECK_EQ(key.len, sizeof number);
    memcpy(&number, key.data, sizeof number);
    return number;
}

/* Stops at the gate; then a box whose round is the number of the load, or load_result. */
static int gated_load(void *ctx, struct reeve_bytes key, struct reeve_value *ret)
{
    (void)ctx;
    long n = atomic_fetch_add(&loads, 1) + 1;
    CHECK_OK(reeve_sem_post(&begun));
    int r = reeve_sem_wait(&gate, 0);
    if (r == 0)
        r = (int)atomic_load(&load_result);
    if (r >= 0)
        *ret = box_new(number_of(key), (uint64_t)n);
    CHECK_OK(reeve_sem_post(&ended));
    return r;
}

/* The same without a gate. */
static int plain_load(void *ctx, struct reeve_bytes key, struct reeve_value *ret)
{
    (void)ctx;
    long n = atomic_fetch_add(&loads, 1) + 1;
    int r = (int)atomic_load(&load_result);
    if (r >= 0)
        *ret = box_new(number_of(key), (uint64_t)n);
    return r;
}

static const struct reeve_cache_opts gated = { .load = gated_load, .drop = box_drop };
static const struct reeve_cache_opts plain = { .load = plain_load, .drop = box_drop };

/* Runs a test under one worker and under several. */
static void with_loads(struct reeve_cache_opts opts, void (*test)(reeve_cache *))
{
    for (unsigned workers = 1; workers <= 3; workers += 2) {
        init_gates();
        with_cache_on(workers, (struct cached){ opts, test, false });
    }
}

struct asker {
    uint64_t key;
    reeve_time until;
    int64_t result;
};

static int ask(void *arg)
{
    struct asker *a = arg;
    a->result = get(the_cache, a->key, a->until);
    return 0;
}

static reeve_task *spawn_asker(struct asker *a)
{
    reeve_task *t;
    CHECK_OK(reeve_spawn(&t, ask, a));
    return t;
}

/* Until so many tasks wait for loads besides those that began them. */
static void wait_shared(reeve_cache *c, uint64_t n)
{
    struct reeve_cache_stats s;
    do {
        CHECK_OK(reeve_sleep(0));
        reeve_cache_stats(c, &s);
    } while (s.shared < n);
}

/* Until no load is under way: one has been counted before its end is settled. */
static void wait_landed(reeve_cache *c)
{
    for (bool any = true; any;) {
        CHECK_OK(reeve_sleep(0));
        rv_lock_acquire(&c->lock);
        any = c->flights != NULL;
        rv_lock_release(&c->lock);
    }
}

static void thousand(reeve_cache *c)
{
    enum { N = 1000 };
    static struct asker a[N];
    static reeve_task *t[N];
    the_cache = c;
    for (int i = 0; i < N; i++) {
        a[i] = (struct asker){ .key = 7 };
        t[i] = spawn_asker(&a[i]);
    }
    wait_shared(c, N - 1);
    open_gate(1);
    for (int i = 0; i < N; i++) {
        CHECK_OK(reeve_join(t[i], NULL, 0));
        CHECK_EQ(a[i].result, 1);
    }
    CHECK_EQ(atomic_load(&loads), 1);
    struct reeve_cache_stats s;
    reeve_cache_stats(c, &s);
    CHECK_EQ(s.loads, 1);
    CHECK_EQ(s.load_errors, 0);
}

TEST(a_thousand_tasks_that_miss_one_key_make_one_load)
{
    with_loads(gated, thousand);
}

static void own_ends(reeve_cache *c)
{
    the_cache = c;
    struct asker a = { .key = 1 }, late = { .key = 1 }, cancelled = { .key = 1 };
    reeve_task *first = spawn_asker(&a);
    CHECK_OK(reeve_sem_wait(&begun, 0));
    reeve_task *gone = spawn_asker(&cancelled);
    wait_shared(c, 1);
    CHECK_EQ(get(c, 1, REEVE_POLL), -ETIMEDOUT);
    late.until = reeve_in(REEVE_MS);
    reeve_task *short_of_time = spawn_asker(&late);
    CHECK_OK(reeve_join(short_of_time, NULL, 0));
    CHECK_EQ(late.result, -ETIMEDOUT);
    reeve_cancel(gone);
    CHECK_OK(reeve_join(gone, NULL, 0));
    CHECK_EQ(cancelled.result, -ECANCELED);
    open_gate(1);
    CHECK_OK(reeve_join(first, NULL, 0));
    CHECK_EQ(a.result, 1);
    CHECK_EQ(atomic_load(&loads), 1);
}

TEST(each_who_waits_leaves_by_his_own_deadline_or_cancellation)
{
    with_loads(gated, own_ends);
}

static void abandon(reeve_cache *c)
{
    the_cache = c;
    struct asker a = { .key = 1 };
    reeve_task *t = spawn_asker(&a);
    CHECK_OK(reeve_sem_wait(&begun, 0));
    reeve_cancel(t);
    CHECK_OK(reeve_join(t, NULL, 0));
    CHECK_EQ(a.result, -ECANCELED);
    open_gate(1);
    CHECK_EQ(get(c, 1, 0), 1);
    CHECK_EQ(atomic_load(&loads), 1);
}

TEST(a_load_that_all_have_left_fills_the_cache)
{
    with_loads(gated, abandon);
}

static void fail_once(reeve_cache *c)
{
    struct reeve_cache_stats s;
    atomic_store(&load_result, -EREMOTEIO);
    CHECK_EQ(get(c, 1, 0), -EREMOTEIO);
    CHECK_EQ(get(c, 1, 0), -EREMOTEIO);
    atomic_store(&load_result, 0);
    CHECK_EQ(get(c, 1, 0), 3);
    CHECK_EQ(get(c, 1, 0), 3);
    reeve_cache_stats(c, &s);
    CHECK_EQ(s.loads, 3);
    CHECK_EQ(s.load_errors, 2);
}

TEST(an_error_is_for_those_who_wait_and_nobody_else)
{
    with_loads(plain, fail_once);
}

static void remember_error(reeve_cache *c)
{
    struct reeve_cache_stats s;
    atomic_store(&load_result, -EREMOTEIO);
    for (int i = 0; i < 5; i++)
        CHECK_EQ(get(c, 1, 0), -EREMOTEIO);
    CHECK_EQ(atomic_load(&loads), 1);
    atomic_store(&load_result, 0);
    CHECK_EQ(drop_key(c, 1), -ENOENT); /* but it is forgotten */
    CHECK_EQ(get(c, 1, 0), 2);
    atomic_store(&load_result, -EREMOTEIO);
    CHECK_EQ(get(c, 2, 0), -EREMOTEIO);
    atomic_store(&load_result, 0);
    clock_pass(REEVE_SEC - 1);
    CHECK_EQ(get(c, 2, 0), -EREMOTEIO);
    clock_pass(1);
    CHECK_EQ(get(c, 2, 0), 4);
    atomic_store(&load_result, -ENOMEM); /* says nothing about the key */
    CHECK_EQ(get(c, 3, 0), -ENOMEM);
    atomic_store(&load_result, -EREMOTEIO);
    CHECK_EQ(get(c, 3, 0), -EREMOTEIO);
    CHECK_OK(put(c, 3, 33));
    CHECK_EQ(get(c, 3, 0), 33);
    reeve_cache_stats(c, &s);
    CHECK_EQ(s.negative_hits, 5);
}

TEST(an_error_is_remembered_for_negative_ns)
{
    struct reeve_cache_opts o = plain;
    o.negative_ns = REEVE_SEC;
    with_loads(o, remember_error);
}

/* ---- soft times ---- */

static void refresh(reeve_cache *c)
{
    the_cache = c;
    open_gate(1);
    CHECK_EQ(get(c, 1, 0), 1);
    CHECK_OK(reeve_sem_wait(&begun, 0));
    clock_pass(REEVE_SEC);
    for (int i = 0; i < 10; i++) /* the old one, while one load is under way */
        CHECK_EQ(get(c, 1, 0), 1);
    CHECK_OK(reeve_sem_wait(&begun, 0));
    CHECK_EQ(atomic_load(&loads), 2);
    open_gate(1);
    while (get(c, 1, 0) != 2)
        CHECK_OK(reeve_sleep(0));
    /* A failure leaves it, and the next try is a second later. */
    atomic_store(&load_result, -EREMOTEIO);
    clock_pass(REEVE_SEC);
    open_gate(1);
    CHECK_EQ(get(c, 1, 0), 2);
    CHECK_OK(reeve_sem_wait(&begun, 0));
    struct reeve_cache_stats s;
    do {
        CHECK_OK(reeve_sleep(0));
        reeve_cache_stats(c, &s);
    } while (s.load_errors == 0);
    wait_landed(c); /* while it is listed no other begins */
    CHECK_EQ(get(c, 1, 0), 2);
    CHECK_EQ(atomic_load(&loads), 3);
    clock_pass(REEVE_SEC);
    atomic_store(&load_result, 0);
    open_gate(1);
    CHECK_EQ(get(c, 1, 0), 2);
    while (get(c, 1, 0) != 4)
        CHECK_OK(reeve_sleep(0));
    reeve_cache_stats(c, &s);
    CHECK_EQ(s.refreshes, 3);
    clock_pass(10 * REEVE_SEC); /* too old for that */
    open_gate(1);
    CHECK_EQ(get(c, 1, 0), 5);
}

TEST(who_meets_an_ageing_value_gets_it_and_one_load_begins)
{
    struct reeve_cache_opts o = gated;
    o.refresh_ns = REEVE_SEC;
    o.ttl_ns = 10 * REEVE_SEC;
    with_loads(o, refresh);
}

/* ---- circles ---- */

enum { OWN = 1, BY_CHILD, CHAIN_A, CHAIN_B, CHAIN_C, LEAF };
static atomic_int circle_errors;

static int ask_own(void *arg)
{
    (void)arg;
    return (int)get(the_cache, BY_CHILD, 0);
}

/* Each asks for the next one; the last for the first. */
static int nested_load(void *ctx, struct reeve_bytes key, struct reeve_value *ret)
{
    (void)ctx;
    static const uint64_t next[] = { 0, OWN, 0, CHAIN_B, CHAIN_C, CHAIN_A };
    uint64_t number = number_of(key);
    int64_t r = 0;
    atomic_fetch_add(&loads, 1);
    if (number == BY_CHILD) {
        reeve_task *t;
        int result;
        CHECK_OK(reeve_spawn(&t, ask_own, NULL));
        CHECK_OK(reeve_join(t, &result, 0));
        r = result;
    } else if (number < LEAF) {
        r = get(the_cache, next[number], 0);
    } else if (number > LEAF && number < 100) {
        r = get(the_cache, number - 1, 0); /* no circle: down to the leaf */
    }
    if (r < 0) {
        CHECK_EQ(r, -EDEADLK);
        atomic_fetch_add(&circle_errors, 1);
        return (int)r;
    }
    *ret = box_new(number, number);
    return 0;
}

static void circles(reeve_cache *c)
{
    the_cache = c;
    CHECK_EQ(get(c, OWN, 0), -EDEADLK);
    CHECK_EQ(get(c, BY_CHILD, 0), -EDEADLK);
    CHECK_EQ(get(c, CHAIN_A, 0), -EDEADLK);
    CHECK_EQ(atomic_load(&loads), 5);
    CHECK_EQ(get(c, LEAF + 20, 0), LEAF + 20);
    CHECK_EQ(atomic_load(&loads), 5 + 21);
}

TEST(a_load_that_would_wait_for_itself_is_told)
{
    with_loads((struct reeve_cache_opts){ .load = nested_load, .negative_ns = REEVE_SEC },
               circles);
}

static int ask_chain(void *arg)
{
    int64_t r = get(the_cache, *(uint64_t *)arg, 0);
    CHECK(r == -EDEADLK);
    return 0;
}

static void circle_from_all_sides(reeve_cache *c)
{
    static uint64_t keys[] = { CHAIN_A, CHAIN_B, CHAIN_C };
    the_cache = c;
    for (int round = 0; round < 50; round++) {
        reeve_group g = { 0 };
        for (int i = 0; i < 3; i++)
            CHECK_OK(reeve_go(ask_chain, &keys[i], .group = &g));
        CHECK_OK(reeve_group_wait(&g, 0));
    }
}

TEST(a_circle_of_loads_that_all_begin_at_once_is_broken)
{
    with_loads((struct reeve_cache_opts){ .load = nested_load }, circle_from_all_sides);
}

/* ---- changes while a load is under way ---- */

static void changes(reeve_cache *c)
{
    the_cache = c;
    for (int how = 0; how < 4; how++) {
        uint64_t key = 10 + (uint64_t)how;
        long before = atomic_load(&loads), refused = dropped(REEVE_DROP_REFUSED);
        struct asker a = { .key = key };
        reeve_task *t = spawn_asker(&a);
        CHECK_OK(reeve_sem_wait(&begun, 0));
        if (how == 0)
            CHECK_EQ(drop_key(c, key), -ENOENT);
        else if (how == 1)
            CHECK_OK(put(c, key, 777));
        else if (how == 2)
            reeve_cache_clear(c);
        else
            reeve_cache_invalidate(c);
        if (how == 1)
            CHECK_EQ(get(c, key, 0), 777); /* does not wait for the load */
        open_gate(1);
        CHECK_OK(reeve_join(t, NULL, 0));
        CHECK_EQ(a.result, before + 1); /* who asked before gets what was found */
        CHECK_EQ(dropped(REEVE_DROP_REFUSED), refused + 1);
        open_gate(how == 1 ? 0 : 1);
        CHECK_EQ(get(c, key, 0), how == 1 ? 777 : before + 2);
        if (how != 1)
            CHECK_OK(reeve_sem_wait(&begun, 0));
    }
}

TEST(what_was_loaded_before_a_change_does_not_come_back_after_it)
{
    with_loads(gated, changes);
}

static void join_after_removal(reeve_cache *c)
{
    the_cache = c;
    struct asker before = { .key = 1 }, after = { .key = 1 };
    reeve_task *t = spawn_asker(&before);
    CHECK_OK(reeve_sem_wait(&begun, 0));
    CHECK_EQ(drop_key(c, 1), -ENOENT);
    reeve_task *u = spawn_asker(&after);
    CHECK_OK(reeve_sem_wait(&begun, 0)); /* it loads anew */
    open_gate(2);
    CHECK_OK(reeve_join(t, NULL, 0));
    CHECK_OK(reeve_join(u, NULL, 0));
    CHECK_EQ(before.result + after.result, 1 + 2);
    CHECK_EQ(atomic_load(&loads), 2);
    CHECK_EQ(get(c, 1, 0), after.result);
}

TEST(who_asks_after_a_removal_does_not_join_the_load_of_before)
{
    with_loads(gated, join_after_removal);
}

static void load_too_large(reeve_cache *c)
{
    struct reeve_value v;
    uint64_t key = 1;
    long refused = dropped(REEVE_DROP_REFUSED);
    CHECK_OK(reeve_cache_borrow(c, key_of(&key), &v, 0));
    CHECK_EQ(box_of(v)->key, 1);
    struct reeve_cache_stats s;
    reeve_cache_stats(c, &s);
    CHECK_GT(s.lent_bytes, 100);
    CHECK_EQ(s.l2.entries, 0);
    CHECK_EQ(dropped(REEVE_DROP_REFUSED), refused);
    reeve_cache_return(c, v);
    CHECK_EQ(dropped(REEVE_DROP_REFUSED), refused + 1);
    CHECK_EQ(get(c, 1, 0), 2);
}

TEST(a_loaded_value_that_does_not_fit_is_lent_all_the_same)
{
    struct reeve_cache_opts o = plain;
    o.bytes_max = 100;
    with_loads(o, load_too_large);
}

/* ---- tasks that drop starts ---- */

static atomic_int asked, answer, owned;

static int ask_anew(void *arg)
{
    (void)arg;
    atomic_fetch_add(&owned, rv_flight_own(the_cache, rv_worker_self()) != NULL);
    int64_t r = get(the_cache, 1000, 0);
    atomic_store(&answer, r < 0 ? (int)r : 0);
    atomic_fetch_add(&asked, 1);
    CHECK_OK(reeve_sem_post(&ended));
    return 0;
}

static void start_at_drop(void *ctx, struct reeve_value value, int cause)
{
    box_drop(ctx, value, cause);
    if (cause == REEVE_DROP_EVICTED && atomic_load(&asked) == 0)
        CHECK_OK(reeve_go(ask_anew, NULL));
}

/* The second load evicts what the first one brought, so its task drops that. */
static void load_and_drop(reeve_cache *c)
{
    the_cache = c;
    atomic_store(&asked, 0);
    CHECK_GE(get(c, 1, 0), 0);
    CHECK_GE(get(c, 2, 0), 0);
    CHECK_OK(reeve_sem_wait(&ended, 0));
    CHECK_EQ(atomic_load(&answer), 0);
    CHECK_EQ(atomic_load(&owned), 0);
}

TEST(a_task_that_drop_starts_is_none_of_the_load)
{
    init_gates();
    with_cache((struct reeve_cache_opts){ .entries_max = 1,
                                          .shards = 1,
                                          .load = plain_load,
                                          .drop = start_at_drop },
               load_and_drop);
}

static int load_nonsense(void *ctx, struct reeve_bytes key, struct reeve_value *ret)
{
    (void)ctx;
    (void)key;
    *ret = (struct reeve_value){ .len = 10 };
    return 0;
}

static void nonsense(reeve_cache *c)
{
    CHECK_EQ(get(c, 1, 0), -EINVAL);
}

TEST(a_load_that_brings_a_length_without_a_block_has_failed)
{
    with_loads((struct reeve_cache_opts){ .load = load_nonsense, .blocks = true }, nonsense);
}

/* ---- warming, ending ---- */

static void warm(reeve_cache *c)
{
    enum { N = 300 };
    static uint64_t numbers[N];
    static struct reeve_bytes keys[N];
    for (uint64_t i = 0; i < N; i++) {
        numbers[i] = i / 2; /* each twice */
        keys[i] = key_of(&numbers[i]);
    }
    CHECK_OK(put(c, 5, 5));
    CHECK_OK(reeve_cache_warm(c, keys, N, 0));
    CHECK_EQ(atomic_load(&loads), N / 2 - 1);
    CHECK_OK(reeve_cache_warm(c, keys, N, 0));
    CHECK_OK(reeve_cache_warm(c, NULL, 0, 0));
    CHECK_EQ(atomic_load(&loads), N / 2 - 1);
    for (uint64_t i = 0; i < N / 2; i++)
        CHECK_GT(get(c, i, REEVE_POLL), 0);
    reeve_cache_clear(c);
    atomic_store(&load_result, -EREMOTEIO);
    CHECK_EQ(reeve_cache_warm(c, keys, N, 0), -EREMOTEIO);
    CHECK_GE(atomic_load(&loads), N - 2); /* all were tried */
}

TEST(warming_loads_what_is_not_there)
{
    with_loads(plain, warm);
}

static void warm_in_vain(reeve_cache *c)
{
    uint64_t number = 1;
    struct reeve_bytes key = key_of(&number);
    CHECK_EQ(reeve_cache_warm(c, &key, 1, reeve_in(REEVE_MS)), -ETIMEDOUT);
    open_gate(1);
    CHECK_EQ(get(c, 1, 0), 1);
}

TEST(warming_ends_at_its_deadline_and_the_load_goes_on)
{
    with_loads(gated, warm_in_vain);
}

/* A cache in which a load runs that nobody waits for any more. */
static reeve_cache *with_a_load_left_alone(void)
{
    reeve_cache *c;
    struct asker a = { .key = 1 };
    CHECK_OK(reeve_cache_create(&c, &gated, 0));
    the_cache = c;
    reeve_task *t = spawn_asker(&a);
    CHECK_OK(reeve_sem_wait(&begun, 0));
    reeve_cancel(t);
    CHECK_OK(reeve_join(t, NULL, 0));
    return c;
}

static int end_in_time(void *arg)
{
    (void)arg;
    reeve_cache *c = with_a_load_left_alone();
    open_gate(1);
    reeve_cache_destroy(c, 0); /* waits for the load */
    CHECK_OK(reeve_sem_wait(&ended, REEVE_POLL));
    boxes_are_gone();
    CHECK_EQ(atomic_load(&boxes_made), 1);
    return 0;
}

TEST(destroy_waits_for_loads_that_still_run)
{
    init_gates();
    CHECK_OK(reeve_run(end_in_time, NULL, .workers = 2));
}

static int end_at_once(void *arg)
{
    (void)arg;
    reeve_cache *c = with_a_load_left_alone();
    reeve_cache_destroy(c, reeve_in(REEVE_MS)); /* the gate stays shut */
    CHECK_OK(reeve_sem_wait(&ended, REEVE_POLL));
    boxes_are_gone();
    CHECK_EQ(atomic_load(&boxes_made), 0);
    return 0;
}

TEST(destroy_cancels_loads_at_its_deadline)
{
    init_gates();
    CHECK_OK(reeve_run(end_at_once, NULL, .workers = 2));
}

static void limited(reeve_cache *c)
{
    CHECK_EQ(get(c, 1, 0), -ETIMEDOUT); /* the load's wait at the gate ended */
}

TEST(a_load_is_late_after_load_ns)
{
    struct reeve_cache_opts o = gated;
    o.load_ns = REEVE_MS;
    with_loads(o, limited);
}

/* ---- no memory ---- */

static int use_all(void *arg)
{
    bool timed = *(bool *)arg;
    struct reeve_cache_opts o = plain;
    reeve_cache *c;
    o.entries_max = 20;
    o.l1_entries = 8;
    o.levels = 2;
    if (timed) {
        o.ttl_ns = REEVE_SEC;
        o.refresh_ns = REEVE_MS;
        o.negative_ns = REEVE_SEC;
    }
    int r = rv_cache_create(&c, &o, &(struct rv_cache_tweaks){ .now = clock_now }, 0);
    if (r < 0) {
        CHECK(r == -ENOMEM || r == -EAGAIN);
        return r;
    }
    for (uint64_t i = 0; i < 60; i++) {
        int64_t got = get(c, i % 20, 0);
        CHECK(got > 0 || got == -ENOMEM || got == -EAGAIN);
        r = put(c, i, i);
        CHECK(r == 0 || r == -ENOMEM);
        if (i % 16 == 0)
            clock_pass(2 * REEVE_MS);
        if (i == 40)
            reeve_cache_invalidate(c);
        drop_key(c, i / 2);
    }
    reeve_cache_destroy(c, 0);
    boxes_are_gone();
    return 0;
}

static int fail_each(void *arg)
{
    for (uint64_t n = 1;; n++) {
        rv_fault_fail_nth(n);
        use_all(arg);
        const char *failed = rv_fault_last_name();
        rv_fault_off();
        if (failed == NULL)
            return 0;
    }
}

TEST(nothing_is_lost_when_memory_is)
{
    if (!rv_fault_available())
        SKIP("the library was built without RV_FAULTS");
    for (int timed = 0; timed < 2; timed++) {
        bool times = timed;
        init_gates();
        CHECK_OK(reeve_run(fail_each, &times, .workers = 1));
    }
}
