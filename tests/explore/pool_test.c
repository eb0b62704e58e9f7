/* SPDX-License-Identifier: MIT */
/*
 * pool_test.c -- object pools in every order: what strangers return while workers exchange with the
 * depot and somebody trims.
 *
 * The code is mem/pool.c itself. Who borrows an object writes his name into it and takes it out
 * again before he returns it; so an object with two owners is found, and at the end the books must
 * agree with what there is, and no more may lie idle than allowed.
 */
#include "tests/explore/explore_main.h"

#include <reeve/pool.h>

#include "mem/die.h"
#include "mem/local.h"
#include "mem/pool.h"

enum { OBJECTS = 4 };

struct thing {
    RV_ATOMIC(uint32_t) owner;
};

static struct {
    reeve_pool *pool;
    struct rv_local record[2];
    struct thing *held[OBJECTS];    /* borrowed in setup(), for the threads to return */
    unsigned idle_max;
} m;

static struct thing *borrow(void)
{
    struct thing *t = reeve_pool_borrow(m.pool);
    RV_MUST(t != NULL);
    RV_MUST(rv_xchg_relaxed(&t->owner, 2U + (uint32_t)explore_self()) == 0);
    return t;
}

static void give_back(struct thing *t)
{
    RV_MUST(rv_xchg_relaxed(&t->owner, 0U) != 0); /* a swap, as the pool sums what is in memory */
    reeve_pool_return(m.pool, t);
}

/* What has an init keeps its bytes while it is idle; they are 0 at first: nobody's. */
static int init_thing(void *ctx, void *object)
{
    (void)ctx;
    (void)object;
    return 0;
}

/* A pool, two workers with a seat and a magazine each, and objects on loan. */
static void prepare(unsigned idle_max, unsigned held)
{
    m.idle_max = idle_max;
    struct reeve_pool_opts o = { .bytes = sizeof(struct thing),
                                 .idle_max = idle_max,
                                 .init = init_thing };
    RV_MUST(reeve_pool_create(&m.pool, &o) == 0);
    for (unsigned i = 0; i < 2; i++) {
        rv_local_set(&m.record[i]);
        reeve_pool_return(m.pool, reeve_pool_borrow(m.pool));
    }
    for (unsigned i = 0; i < 2; i++) {
        rv_local_set(&m.record[i]);
        RV_MUST(reeve_pool_clear(m.pool) == 1);
    }
    rv_local_set(NULL);
    for (unsigned i = 0; i < held; i++)
        m.held[i] = borrow();
}

static void strangers_setup(void)
{
    prepare(8, 2);
}

static void full_setup(void)
{
    prepare(6, 4);
}

/* Returns what arg says is held. */
static void returns(void *arg)
{
    give_back(m.held[(uintptr_t)arg]);
}

static void worker(uintptr_t i)
{
    rv_local_set(&m.record[i]);
}

static void borrows_twice(void *arg)
{
    worker((uintptr_t)arg);
    struct thing *a = borrow(), *b = borrow();
    RV_MUST(a != b);
    give_back(a);
    give_back(b);
    rv_local_set(NULL);
}

static void borrows_once(void *arg)
{
    worker((uintptr_t)arg);
    give_back(borrow());
    rv_local_set(NULL);
}

static void returns_two_as_worker(void *arg)
{
    uintptr_t i = (uintptr_t)arg;
    worker(i);
    give_back(m.held[2 * i]);
    give_back(m.held[2 * i + 1]);
    rv_local_set(NULL);
}

/* One more than its magazine holds: it gives some to the depot. */
static void returns_three_as_worker(void *arg)
{
    worker((uintptr_t)arg);
    for (int i = 0; i < 3; i++)
        give_back(m.held[i]);
    rv_local_set(NULL);
}

static void clears(void *arg)
{
    (void)arg;
    reeve_pool_clear(m.pool);
}

static void books_agree(void)
{
    struct reeve_pool_stats s;
    reeve_pool_stats(m.pool, &s);
    RV_MUST(s.live == 0);
    RV_MUST(s.idle <= m.idle_max);
    RV_MUST(s.idle == rv_load_relaxed(&m.pool->objects));
    RV_MUST(s.hits + s.misses == s.returned);
    explore_note(s.idle * 16 + s.dropped);
    reeve_pool_destroy(m.pool);     /* dies if anything is missing */
}

static const struct explore strangers = {
    .name = "pool: two strangers return, a worker borrows",
    .setup = strangers_setup,
    .threads = { { "stranger", returns, (void *)0 },
                 { "stranger", returns, (void *)1 },
                 { "worker", borrows_twice, (void *)0 } },
    .finish = books_agree,
    .preemptions = 4,
    .delays = 1,
};

TEST(what_strangers_return_has_one_owner)
{
    explore(&strangers);
}

static const struct explore takers = {
    .name = "pool: a stranger returns, two workers and a stranger borrow",
    .setup = strangers_setup,
    .threads = { { "stranger", returns, (void *)0 },
                 { "worker 0", borrows_once, (void *)0 },
                 { "worker 1", borrows_once, (void *)1 },
                 { "stranger", returns, (void *)1 } },
    .finish = books_agree,
    .preemptions = 2,
    .delays = 1,
};

TEST(what_comes_back_is_taken_by_one)
{
    explore(&takers);
}

static const struct explore full = {
    .name = "pool: all return at once, more than may lie idle",
    .setup = full_setup,
    .threads = { { "worker 0", returns_two_as_worker, (void *)0 },
                 { "stranger", returns, (void *)2 },
                 { "stranger", returns, (void *)3 } },
    .finish = books_agree,
    .preemptions = 4,
    .delays = 1,
};

TEST(never_more_lie_idle_than_allowed)
{
    explore(&full);
}

static void exchange_setup(void)
{
    prepare(8, 4);
    RV_MUST(rv_pool_mag_at(m.pool, m.record[0].seat)->cap == 2);
}

static const struct explore exchange = {
    .name = "pool: a worker gives to the depot, another takes, a stranger returns",
    .setup = exchange_setup,
    .threads = { { "giver", returns_three_as_worker, (void *)0 },
                 { "taker", borrows_twice, (void *)1 },
                 { "stranger", returns, (void *)3 } },
    .finish = books_agree,
    .preemptions = 3,
    .delays = 1,
};

TEST(what_workers_exchange_through_the_depot_has_one_owner)
{
    explore(&exchange);
}

static const struct explore trimmed = {
    .name = "pool: somebody clears it meanwhile",
    .setup = strangers_setup,
    .threads = { { "stranger", returns, (void *)0 },
                 { "worker", borrows_twice, (void *)0 },
                 { "trimmer", clears, NULL },
                 { "stranger", returns, (void *)1 } },
    .finish = books_agree,
    .preemptions = 2,
    .delays = 1,
};

TEST(clearing_frees_only_what_is_idle)
{
    explore(&trimmed);
}
