/* SPDX-License-Identifier: MIT */
/*
 * table_tasks_test.c -- the table under tasks that move from worker to worker while they have
 * entries pinned, in one runtime after another, with a foreign thread at work on the same table.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <pthread.h>
#include <reeve/reeve.h>

#include "tests/bench/traces.h"
#include "tests/mem/table_items.h"

enum { TASKS = 16, ROUNDS = 300, RUNTIMES = 2, WORKERS = 3, KEYS = 400, STEADY = 20 };
enum { BYTES = 100000, ENTRIES = 120, SHARDS = 4 };

static struct {
    struct rv_table table;
    reeve_chan *chan;       /* of pinned entries; NULL: they stay with who found them */
    bool bounded;           /* the capacity is reached; else the steady keys stay */
    RV_ATOMIC(uint64_t) finds, seed;
} t;

/* Key k has values k << 32 | anything. */
static void is_whole(struct rv_entry *e, uint64_t k)
{
    struct item *item = (struct item *)e;
    for (uint64_t v = 0; v < 4; v++)
        CHECK_EQ(item->value[v] - v, item->value[0]);
    CHECK_EQ(item->value[0] >> 32, k);
    CHECK_EQ(rv_load_relaxed(&item->dropped), 0);
}

static void is_within(void)
{
    CHECK(!rv_hold_any());
    if (!t.bounded)
        return;
    CHECK_LE(rv_table_weight(&t.table), BYTES);
    CHECK_LE(rv_table_count(&t.table), ENTRIES);
}

/* Looks, keeps what it found across a wait, and lets another task give it back if t.chan is set. */
static void find(uint64_t k, bool in_task, bool take)
{
    struct rv_key key = rv_table_key(&t.table, &k, sizeof k);
    struct rv_entry *e = rv_table_find(&t.table, &key), *gone = NULL;
    CHECK(e != NULL || k >= STEADY || t.bounded);
    if (e == NULL)
        return;
    is_whole(e, k);
    if (in_task)
        CHECK_EQ(reeve_sleep(0), 0);
    is_whole(e, k);
    rv_add_relaxed(&t.finds, UINT64_C(1));
    if (take && k >= STEADY && rv_table_take(&t.table, e, OWN_CAUSE, &gone))
        CHECK_EQ(drop_all(&t.table, gone, OWN_CAUSE, NULL), 1);
    is_whole(e, k);
    if (in_task && t.chan != NULL) {
        CHECK_OK(reeve_chan_send(t.chan, &e, 0));
        CHECK_OK(reeve_chan_recv(t.chan, &e, 0));
        is_whole(e, ((struct item *)e)->value[0] >> 32);
    }
    unpin(&t.table, e);
}

static void one_round(struct trace_random *r, uint64_t i, bool in_task)
{
    uint64_t k = trace_draw(r) % KEYS, what = trace_draw(r) % 16;
    struct rv_entry *gone = NULL;
    if (what < 9) {
        find(k, in_task, what == 0);
    } else if (what < 13 || k < STEADY) {
        put(&t.table, &k, sizeof k, k << 32 | i, trace_weight(k + i % 3));
    } else if (what < 15 || !t.bounded) {
        drop(&t.table, &k, sizeof k);
    } else {
        rv_table_evict(&t.table, (unsigned)k % SHARDS, 3, OWN_CAUSE, &gone);
        drop_all(&t.table, gone, OWN_CAUSE, NULL);
        rv_table_sweep(&t.table);
    }
    is_within();
}

static int work(void *arg)
{
    struct trace_random r = { rv_add_relaxed(&t.seed, UINT64_C(1)) };
    (void)arg;
    for (uint64_t i = 0; i < ROUNDS; i++)
        one_round(&r, i, true);
    return 0;
}

static int all_work(void *arg)
{
    reeve_group g = { 0 };
    for (int i = 0; i < TASKS; i++)
        CHECK_OK(reeve_go(work, arg, .group = &g));
    CHECK_OK(reeve_group_wait(&g, 0));
    return 0;
}

static void *work_outside(void *arg)
{
    struct trace_random r = { 4711 };
    (void)arg;
    for (uint64_t i = 0; i < ROUNDS * 4; i++)
        one_round(&r, i, false);
    return NULL;
}

/* All that was made is dropped once and freed once: close_table() looks. */
static void in_runtimes(int policy, bool bounded, bool swapping)
{
    pthread_t outside;
    t.bounded = bounded;
    t.chan = swapping ? reeve_chan_create(sizeof(struct rv_entry *), TASKS) : NULL;
    CHECK_EQ(t.chan != NULL, swapping);
    open_table(&t.table, SHARDS, policy, bounded ? BYTES : 0, bounded ? ENTRIES : 1 << 20);
    for (uint64_t k = 0; k < STEADY; k++)
        put(&t.table, &k, sizeof k, k << 32, 1);
    CHECK_EQ(pthread_create(&outside, NULL, work_outside, NULL), 0);
    for (int i = 0; i < RUNTIMES; i++) {
        reeve *rt;
        CHECK_OK(reeve_create(&rt, &(struct reeve_opts){ .workers = WORKERS }));
        CHECK_OK(reeve_call(rt, all_work, NULL, 0));
        CHECK_OK(reeve_shutdown(rt, LONG));
        reeve_destroy(rt);
    }
    CHECK_EQ(pthread_join(outside, NULL), 0);
    CHECK_GT(rv_load_relaxed(&t.finds), 0);
    for (unsigned s = 0; s < SHARDS; s++)
        rv_policy_check(&t.table.shards[s].policy);
    reeve_chan_destroy(t.chan);
    close_table(&t.table);
}

TEST(tasks_that_move_find_only_what_is_whole_and_all_of_it_is_freed_once)
{
    for (int policy = RV_POLICY_S3FIFO; policy <= RV_POLICY_ADAPTIVE; policy++)
        in_runtimes(policy, true, false);
}

TEST(what_one_task_found_another_gives_back_on_another_worker)
{
    for (int policy = RV_POLICY_S3FIFO; policy <= RV_POLICY_ADAPTIVE; policy++)
        in_runtimes(policy, true, true);
}

/* Nothing is evicted, and the sets move because of what is removed. */
TEST(tasks_always_find_what_is_always_there)
{
    in_runtimes(RV_POLICY_S3FIFO, false, false);
    in_runtimes(RV_POLICY_ADAPTIVE, false, true);
}
