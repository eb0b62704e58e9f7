/* SPDX-License-Identifier: MIT */
/*
 * table_test.c -- the concurrent table: its keys, its pins, its capacity, and threads at once.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <pthread.h>
#include <time.h>

#include "mem/fault.h"
#include "tests/bench/traces.h"
#include "tests/mem/table_items.h"

static struct rv_table table;

/* ---- the hash ---- */

/* The example of the paper (2-4, appendix A), and what CPython's SipHash-1-3 says under a key of
 * zeros. */
TEST(the_hash_is_siphash)
{
    unsigned char bytes[15];
    struct rv_seed paper = { UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908) };
    struct rv_seed zero = { 0, 0 };
    for (unsigned char i = 0; i < 15; i++)
        bytes[i] = i;
    CHECK(rv_siphash(paper, 2, 4, bytes, 15) == UINT64_C(0xa129ca6149be45e5));
    CHECK(rv_hash(zero, bytes, 15) == UINT64_C(0xf30eb725bb91c9ea));
    CHECK(rv_hash(zero, "a", 1) == UINT64_C(0x407448d2b89b1813));
    CHECK(rv_hash(zero, "abcdefgh", 8) == UINT64_C(0x3f7b849c0b8e35ea));
    CHECK(rv_hash(zero, "0123456789abcdef\0", 17) == UINT64_C(0xf1006383337b5c14));
    CHECK(rv_siphash(zero, 1, 3, bytes, 15) == rv_hash(zero, bytes, 15));
    CHECK(rv_seed_random().k0 != rv_seed_random().k0);
}

/* ---- keys ---- */

TEST(keys_may_be_empty_and_hold_nuls)
{
    open_table(&table, 1, RV_POLICY_LRU, 0, 100);
    put(&table, NULL, 0, 1, 1);
    put(&table, "\0", 1, 2, 1);
    put(&table, "\0\0", 2, 3, 1);
    put(&table, "a\0b", 3, 4, 1);
    put(&table, "a\0c", 3, 5, 1);
    put(&table, "a", 1, 6, 1);
    CHECK(has(&table, "", 0, 1));
    CHECK(has(&table, "\0", 1, 2));
    CHECK(has(&table, "\0\0", 2, 3));
    CHECK(has(&table, "a\0b", 3, 4));
    CHECK(has(&table, "a\0c", 3, 5));
    CHECK(has(&table, "a", 1, 6));
    CHECK(!has(&table, "\0\0\0", 3, 0));
    CHECK(drop(&table, NULL, 0));
    CHECK(!drop(&table, NULL, 0));
    CHECK_EQ(rv_table_count(&table), 5);
    close_table(&table);
}

TEST(a_table_without_limits_or_with_odd_shards_is_refused)
{
    struct rv_table_opts opts = { .release = free_item };
    CHECK_EQ(rv_table_init(&table, &opts), -EINVAL);
    opts.entries_max = 10;
    opts.shards = 3;
    CHECK_EQ(rv_table_init(&table, &opts), -EINVAL);
    opts.shards = 2048;
    CHECK_EQ(rv_table_init(&table, &opts), -EINVAL);
    opts.shards = 1;
    opts.policy = 17;
    CHECK_EQ(rv_table_init(&table, &opts), -EINVAL);
    struct rv_table none = {0};
    rv_table_finish(&none);
}

/* ---- what happens to entries ---- */

TEST(who_has_it_pinned_keeps_it_whole_whatever_happens_to_it)
{
    open_table(&table, 1, RV_POLICY_S3FIFO, 0, 4);
    put(&table, "k", 1, 100, 7);
    struct rv_key key = rv_table_key(&table, "k", 1);
    struct rv_entry *e = rv_table_find(&table, &key);
    CHECK(e);
    CHECK_EQ(put(&table, "k", 1, 200, 7), 1);   /* replaced */
    CHECK_EQ(rv_table_lent(&table), 7);
    CHECK_EQ(rv_entry_cause(e), RV_CAUSE_REPLACED);
    for (uint64_t i = 0; i < 500; i++)          /* and a lot of others come and go */
        put(&table, &i, sizeof i, i, 1);
    rv_table_sweep(&table);
    CHECK_EQ(((struct item *)e)->value[3], 103);
    CHECK_EQ(rv_load_relaxed(&((struct item *)e)->dropped), 0);
    rv_table_pin(e);
    unpin(&table, e);
    CHECK_EQ(rv_table_lent(&table), 7);
    unpin(&table, e);
    CHECK_EQ(rv_table_lent(&table), 0);
    close_table(&table);
}

TEST(causes_and_absent_and_pinned_puts)
{
    struct rv_entry *gone = NULL;
    unsigned of;
    open_table(&table, 1, RV_POLICY_LRU, 0, 2);
    struct item *a = make_item(&table, "a", 1, 1, 1), *a2 = make_item(&table, "a", 1, 2, 1);
    CHECK_OK(rv_table_put(&table, &a->entry, RV_PUT_PINNED, &gone));
    CHECK_EQ(rv_table_put(&table, &a2->entry, RV_PUT_ABSENT, &gone), -EEXIST);
    CHECK(gone == NULL);
    CHECK_OK(rv_table_put(&table, &a2->entry, 0, &gone));
    CHECK_EQ(drop_all(&table, gone, RV_CAUSE_REPLACED, &of), 1);
    CHECK_EQ(of, 1);
    CHECK(!rv_table_take(&table, &a->entry, OWN_CAUSE, &gone)); /* it is not in any more */
    unpin(&table, &a->entry);
    put(&table, "b", 1, 3, 1);
    gone = NULL;
    CHECK_OK(rv_table_put(&table, &make_item(&table, "c", 1, 4, 1)->entry, 0, &gone));
    CHECK_EQ(drop_all(&table, gone, RV_CAUSE_EVICTED, &of), 1);
    CHECK_EQ(of, 1);
    struct rv_key key = rv_table_key(&table, "c", 1);
    struct rv_entry *c = rv_table_peek(&table, &key);
    gone = NULL;
    CHECK(rv_table_take(&table, c, OWN_CAUSE + 3, &gone));
    CHECK_EQ(drop_all(&table, gone, OWN_CAUSE + 3, &of), 1);
    CHECK_EQ(of, 1);
    unpin(&table, c);
    close_table(&table);
}

TEST(what_is_larger_than_a_shard_does_not_go_in)
{
    struct rv_entry *gone = NULL;
    open_table(&table, 4, RV_POLICY_ADAPTIVE, 4000, 0);
    struct item *big = make_item(&table, "big", 3, 1, 1001);
    CHECK_EQ(rv_table_put(&table, &big->entry, 0, &gone), -E2BIG);
    big->entry.node.weight = 1000;
    CHECK_OK(rv_table_put(&table, &big->entry, RV_PUT_PINNED, &gone));
    drop_all(&table, gone, 0, NULL);
    unpin(&table, &big->entry);
    close_table(&table);
}

TEST(giving_a_pin_back_twice_ends_the_process)
{
    open_table(&table, 1, RV_POLICY_LRU, 0, 4);
    put(&table, "a", 1, 1, 1);
    struct rv_key key = rv_table_key(&table, "a", 1);
    CHECK_DIES("rv_entry_cause(e) != RV_CAUSE_NONE", {
        struct rv_entry *e = rv_table_find(&table, &key);
        unpin(&table, e);
        unpin(&table, e);
    });
    close_table(&table);
}

/* Against a plain array of what ought to be there; through many moves of the sets, up and down. */
static void against_a_model(int policy, unsigned shards, uint64_t seed)
{
    enum { KEYS = 3000 };
    static uint64_t there[KEYS];
    struct trace_random r = { seed };
    size_t count = 0;
    memset(there, 0, sizeof there);
    open_table(&table, shards, policy, 0, 1 << 20);
    for (int i = 0; i < 120000; i++) {
        uint32_t k = (uint32_t)(trace_draw(&r) % KEYS), what = (uint32_t)(trace_draw(&r) % 8);
        bool shrinking = i / 20000 % 2;
        CHECK(there[k] ? has(&table, &k, sizeof k, there[k]) : !has(&table, &k, sizeof k, 0));
        if (what < (shrinking ? 2 : 5)) {
            CHECK_EQ(put(&table, &k, sizeof k, (uint64_t)i + 1, 1), there[k] != 0);
            count += there[k] == 0;
            there[k] = (uint64_t)i + 1;
        } else if (what < 7) {
            CHECK_EQ(drop(&table, &k, sizeof k), there[k] != 0);
            count -= there[k] != 0;
            there[k] = 0;
        }
        CHECK_EQ(rv_table_count(&table), count);
    }
    close_table(&table);
}

TEST(it_holds_what_was_put_and_not_removed)
{
    against_a_model(RV_POLICY_LRU, 1, 1);
    against_a_model(RV_POLICY_SIEVE, 4, 2);
    against_a_model(RV_POLICY_S3FIFO, 1, 3);
    against_a_model(RV_POLICY_ADAPTIVE, 16, 4);
}

TEST(weight_and_count_never_exceed_the_capacity)
{
    for (int policy = RV_POLICY_S3FIFO; policy <= RV_POLICY_ADAPTIVE; policy++) {
        struct trace_random r = { 9 };
        open_table(&table, 4, policy, 100000, 300);
        for (int i = 0; i < 40000; i++) {
            uint64_t k = trace_draw(&r) % 1500;
            if (!has(&table, &k, sizeof k, k) || i % 7 == 0)
                put(&table, &k, sizeof k, k, trace_weight(k + (uint64_t)i % 3));
            else if (i % 11 == 0)
                drop(&table, &k, sizeof k);
            CHECK_LE(rv_table_weight(&table), 100000);
            CHECK_LE(rv_table_count(&table), 300);
        }
        for (unsigned s = 0; s < 4; s++)
            rv_policy_check(&table.shards[s].policy);
        close_table(&table);
    }
}

static double hits_of(unsigned shards, int policy)
{
    enum { LEN = 150000, UNIVERSE = 20000, CAPACITY = 4096 };
    static uint64_t keys[LEN];
    size_t hits = 0;
    if (keys[0] == 0)
        trace_make(TRACE_ZIPF, keys, LEN, UNIVERSE, 1.0, 3);
    open_table(&table, shards, policy, 0, CAPACITY);
    for (size_t i = 0; i < LEN; i++) {
        bool hit = has(&table, &keys[i], sizeof keys[i], keys[i]);
        hits += hit;
        if (!hit)
            put(&table, &keys[i], sizeof keys[i], keys[i], 1);
        CHECK_LE(rv_table_count(&table), CAPACITY);
    }
    close_table(&table);
    return 100.0 * (double)hits / LEN;
}

TEST(a_table_of_sixteen_shards_hits_as_often_as_one_within_half_a_point)
{
    for (int policy = RV_POLICY_S3FIFO; policy <= RV_POLICY_ADAPTIVE; policy++) {
        double one = hits_of(1, policy), sixteen = hits_of(16, policy);
        printf("policy %d: one shard %.2f %%, sixteen %.2f %%\n", policy, one, sixteen);
        CHECK(fabs(one - sixteen) <= 0.5);
        CHECK(one > 50);
    }
}

TEST(no_memory_leaves_everything_as_it_was)
{
    if (!rv_fault_available())
        SKIP("built without fault points");
    struct rv_table_opts opts = { .shards = 2, .entries_max = 4000, .release = free_item };
    for (int policy = RV_POLICY_S3FIFO; policy <= RV_POLICY_ADAPTIVE; policy++) {
        opts.policy = policy;
        for (uint64_t n = 1;; n++) {
            rv_fault_fail_nth(n);
            int r = rv_table_init(&table, &opts);
            bool failed = rv_fault_last_name() != NULL;
            rv_fault_off();
            if (!failed) {
                CHECK_OK(r);
                break;
            }
            CHECK_EQ(r, -ENOMEM);
        }
        uint32_t in = 0;
        for (uint32_t k = 0; k < 3000; k++) {
            struct rv_entry *gone = NULL;
            struct item *item = make_item(&table, &k, sizeof k, k, 1);
            rv_fault_fail_nth(1 + k % 3);
            int r = rv_table_put(&table, &item->entry, 0, &gone);
            rv_fault_off();
            CHECK(r == 0 || r == -ENOMEM);
            if (r == -ENOMEM)
                CHECK_OK(rv_table_put(&table, &item->entry, 0, &gone));
            in += r == 0;
            drop_all(&table, gone, 0, NULL);
            CHECK(has(&table, &k, sizeof k, k));
        }
        CHECK_GT(in, 0);
        CHECK_EQ(rv_table_count(&table), 3000);
        close_table(&table);
    }
}

/* ---- attacks ---- */

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

enum { ATTACK = 100000 };

/* Puts them all; the longest way that any of them had to go. How long it took is printed only. */
static size_t put_all(struct rv_table *t, const uint64_t *keys)
{
    static uint64_t took[ATTACK];
    size_t most = 0;
    for (size_t i = 0; i < ATTACK; i++) {
        struct timespec a, b;
        clock_gettime(CLOCK_MONOTONIC, &a);
        put(t, &keys[i], sizeof keys[i], i, 1);
        clock_gettime(CLOCK_MONOTONIC, &b);
        took[i] = (uint64_t)((b.tv_sec - a.tv_sec) * 1000000000 + b.tv_nsec - a.tv_nsec);
        if (i % 100 == 99 || i == ATTACK - 1) {
            size_t reach = rv_table_reach(t);   /* of a set that is left, with the next: no less */
            most = reach > most ? reach : most;
        }
    }
    qsort(took, ATTACK, sizeof took[0], by_value);
    printf("put: p50 %d ns, p99 %d ns, p99.9 %d ns, max %d ns; at most %zu places looked at\n",
           (int)took[ATTACK / 2], (int)took[ATTACK / 100 * 99], (int)took[ATTACK / 1000 * 999],
           (int)took[ATTACK - 1], most);
    return most;
}

/* Keys that collide under one seed are chosen by an attacker who knows that seed. In a table that
 * has another one they are keys like any others: no put has to look at more than a few places, so
 * the ninety-ninth of a hundred has not either. In a table with that very seed all of them go to
 * one shard. */
TEST(a_hundred_thousand_keys_that_collide_elsewhere_are_no_burden)
{
    enum { FEW = 24 };
    static uint64_t keys[ATTACK];
    struct rv_seed known = { 1, 2 };
    size_t n = 0, most = 0;
    for (uint64_t k = 0; n < ATTACK; k++)       /* the same top 4 and low 4 bits: one in 256 */
        if ((rv_hash(known, &k, sizeof k) & UINT64_C(0xf00000000000000f)) == 0)
            keys[n++] = k;
    open_table(&table, 16, RV_POLICY_S3FIFO, 0, 1 << 22);
    CHECK_LE(put_all(&table, keys), FEW);
    for (unsigned i = 0; i < 16; i++)
        most = table.shards[i].policy.entries > most ? table.shards[i].policy.entries : most;
    CHECK_LT(most, ATTACK / 16 * 5 / 4);        /* they went to all shards */
    for (size_t i = 0; i < ATTACK; i += 37)
        CHECK(has(&table, &keys[i], sizeof keys[i], i));
    close_table(&table);

    CHECK_OK(rv_table_init(&table, &(struct rv_table_opts){ .shards = 16, .entries_max = 1 << 22,
                                                            .seed = &known,
                                                            .release = free_item }));
    put_all(&table, keys);
    CHECK_EQ(table.shards[0].policy.entries, ATTACK);
    close_table(&table);
}

TEST(a_table_that_nobody_gave_a_size_grows_by_and_by)
{
    enum { KEYS = 200000 };
    static uint64_t took[KEYS];
    CHECK_OK(rv_table_init(&table, &(struct rv_table_opts){ .shards = 1, .policy = RV_POLICY_SIEVE,
                                                            .bytes_max = 1 << 30,
                                                            .release = free_item }));
    for (uint64_t i = 0; i < KEYS; i++) {
        struct timespec a, b;
        clock_gettime(CLOCK_MONOTONIC, &a);
        put(&table, &i, sizeof i, i, 1);
        clock_gettime(CLOCK_MONOTONIC, &b);
        took[i] = (uint64_t)((b.tv_sec - a.tv_sec) * 1000000000 + b.tv_nsec - a.tv_nsec);
    }
    qsort(took, KEYS, sizeof took[0], by_value);
    printf("growing put: p50 %d ns, p99 %d ns, p99.9 %d ns, max %d ns\n", (int)took[KEYS / 2],
           (int)took[KEYS / 100 * 99], (int)took[KEYS / 1000 * 999], (int)took[KEYS - 1]);
    CHECK_EQ(rv_table_count(&table), KEYS);
    for (uint64_t i = 0; i < KEYS; i += 101)
        CHECK(has(&table, &i, sizeof i, i));
    close_table(&table);
}

/* ---- threads ---- */

enum { THREADS = 4, HOT = 400 };

static RV_ATOMIC(uint64_t) finds, misses_of_steady;

/* Key k has values k << 32 | anything: a torn or freed one shows. Keys below 20 are put before and
 * then only replaced, never removed, so they are found always: the capacity is not reached. */
static void *hammer(void *arg)
{
    struct trace_random r = { (uint64_t)(uintptr_t)arg };
    for (int i = 0; i < 20000; i++) {
        uint64_t k = trace_draw(&r) % HOT, what = trace_draw(&r) % 16;
        struct rv_key key = rv_table_key(&table, &k, sizeof k);
        if (what < 10) {
            struct rv_entry *e = rv_table_find(&table, &key);
            rv_add_relaxed(&misses_of_steady, (uint64_t)(e == NULL && k < 20));
            if (e == NULL)
                continue;
            struct item *item = (struct item *)e;
            for (uint64_t v = 0; v < 4; v++)
                CHECK_EQ(item->value[v] - v, item->value[0]);
            CHECK_EQ(item->value[0] >> 32, k);
            CHECK_EQ(rv_load_relaxed(&item->dropped), 0);
            rv_add_relaxed(&finds, UINT64_C(1));
            struct rv_entry *gone = NULL;
            if (what == 0 && k >= 20 && rv_table_take(&table, e, OWN_CAUSE, &gone))
                drop_all(&table, gone, OWN_CAUSE, NULL);
            unpin(&table, e);
        } else if (what < 14 || k < 20) {
            put(&table, &k, sizeof k, k << 32 | (uint32_t)i, 1);
        } else {
            drop(&table, &k, sizeof k);
        }
    }
    return NULL;
}

static void many_threads(int policy, unsigned shards, size_t entries)
{
    pthread_t thread[THREADS];
    open_table(&table, shards, policy, 0, entries);
    for (uint64_t k = 0; k < 20; k++)
        put(&table, &k, sizeof k, k << 32, 1);
    for (uintptr_t i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&thread[i], NULL, hammer, (void *)(i + 1)), 0);
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_join(thread[i], NULL), 0);
    if (entries > HOT * shards)
        CHECK_EQ(rv_load_relaxed(&misses_of_steady), 0);
    rv_store_relaxed(&misses_of_steady, UINT64_C(0));
    CHECK_GT(rv_load_relaxed(&finds), 0);
    for (unsigned s = 0; s < shards; s++)
        rv_policy_check(&table.shards[s].policy);
    close_table(&table);
}

TEST(threads_find_only_what_is_whole_and_all_of_it_is_freed_once)
{
    for (int policy = RV_POLICY_S3FIFO; policy <= RV_POLICY_ADAPTIVE; policy++) {
        many_threads(policy, 1, 100);
        many_threads(policy, 4, 100);
    }
}

/* With one shard that is never full the sets move again and again, because of what is deleted. */
TEST(what_is_always_there_is_always_found_while_sets_move)
{
    many_threads(RV_POLICY_S3FIFO, 1, 100000);
    many_threads(RV_POLICY_LRU, 1, 100000);
}

/* ---- sections ---- */

struct thing {
    ck_epoch_entry_t entry;
    RV_ATOMIC(uint32_t) freed;
};

static void free_thing(ck_epoch_entry_t *entry)
{
    rv_store_relaxed(&((struct thing *)entry)->freed, 1u);
}

static void run_list(ck_stack_t *list)
{
    for (ck_stack_entry_t *at = CK_STACK_FIRST(list), *next; at != NULL; at = next) {
        ck_epoch_entry_t *e = (void *)((char *)at - offsetof(ck_epoch_entry_t, stack_entry));
        next = CK_STACK_NEXT(at);
        e->function(e);
    }
    ck_stack_init(list);
}

TEST(nothing_leaves_a_limbo_while_a_section_is_open_that_began_before)
{
    static struct rv_limbo limbo;
    struct rv_epoch ep;
    struct rv_local worker = {0};
    ck_stack_t list = CK_STACK_INITIALIZER;
    CHECK_OK(rv_epoch_init(&ep));
    rv_limbo_init(&ep, &limbo);
    for (int as_worker = 0; as_worker < 2; as_worker++) {
        rv_local_set(as_worker ? &worker : NULL);
        struct thing thing = { .freed = 0 };
        struct rv_epoch_slot *in = rv_epoch_enter(&ep), *inner = rv_epoch_enter(&ep);
        CHECK_EQ(in == inner, as_worker);
        rv_limbo_put(&limbo, &thing.entry, free_thing);
        rv_epoch_leave(inner);
        for (int i = 0; i < 10; i++)
            rv_limbo_poll(&limbo, &list);
        run_list(&list);
        CHECK_EQ(rv_load_relaxed(&thing.freed), 0);
        rv_epoch_leave(in);
        rv_limbo_take_all(&limbo, &list);
        run_list(&list);
        CHECK_EQ(rv_load_relaxed(&thing.freed), 1);
    }
    rv_local_set(NULL);
    rv_epoch_finish(&ep);
}

static struct rv_epoch shared_epoch;

static void *enter_often(void *arg)
{
    struct rv_local worker = {0};
    if (arg != NULL)
        rv_local_set(&worker);
    for (int i = 0; i < 2000; i++) {
        struct rv_epoch_slot *in = rv_epoch_enter(&shared_epoch);
        CHECK_GT(in->record.active, 0);
        rv_epoch_leave(in);
    }
    rv_local_set(NULL);
    return NULL;
}

TEST(more_threads_than_records_share_them)
{
    enum { MANY = 80 };
    pthread_t thread[MANY];
    CHECK_OK(rv_epoch_init(&shared_epoch));
    for (uintptr_t i = 0; i < MANY; i++)
        CHECK_EQ(pthread_create(&thread[i], NULL, enter_often, (void *)(i % 2)), 0);
    for (int i = 0; i < MANY; i++)
        CHECK_EQ(pthread_join(thread[i], NULL), 0);
    rv_epoch_finish(&shared_epoch);
}

TEST(debug_builds_know_what_a_thread_holds)
{
#ifdef RV_HOLDS
    struct rv_epoch ep;
    CHECK_OK(rv_epoch_init(&ep));
    CHECK(!rv_hold_any());
    struct rv_epoch_slot *in = rv_epoch_enter(&ep);
    CHECK(rv_hold_any());
    rv_epoch_leave(in);
    CHECK(!rv_hold_any());
    rv_epoch_finish(&ep);
#else
    SKIP("built without RV_DEBUG");
#endif
}
