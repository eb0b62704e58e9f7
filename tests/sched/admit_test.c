/* SPDX-License-Identifier: MIT */
/*
 * admit_test.c -- sched/admit.c: who is let in.
 */
#define CHECK_MAIN
#include "sched/admit.h"
#include "tests/sched/host.h"

#define INTERVAL (100 * REEVE_MS)

static struct rv_admission bounds;

static struct host *with_bounds(void)
{
    struct host *h = host_create_with(&(struct host_opts){ .virtual = true });
    h->s.admission = rv_alloc_zero(sizeof bounds);
    CHECK(h->s.admission != NULL);
    h->s.admission->waiting_max[RV_NORMAL] = 5;
    h->s.admission->delay_max = 10 * REEVE_MS;
    return h;
}

TEST(so_many_of_a_class_may_wait_and_no_more)
{
    struct host *h = with_bounds();
    for (int i = 0; i < 5; i++)
        CHECK_EQ(rv_admit(&h->s, RV_NORMAL, 1), 0);
    CHECK_EQ(rv_admit(&h->s, RV_NORMAL, 1), -EAGAIN);
    CHECK_EQ(rv_admit(&h->s, RV_HIGH, 1), 0); /* has no bound */
    rv_admit_started(&h->s, RV_NORMAL);
    CHECK_EQ(rv_admit(&h->s, RV_NORMAL, 1), 0);
    CHECK_EQ(rv_admit(&h->s, RV_NORMAL, 1), -EAGAIN);
    CHECK_EQ(rv_load_relaxed(&h->s.admission->of[RV_NORMAL].refused), 2);
    CHECK_EQ(rv_load_relaxed(&h->s.admission->of[RV_NORMAL].waiting), 5);
    host_destroy(h);
}

static int admitted(struct host *h, int64_t now)
{
    int r = rv_admit(&h->s, RV_HIGH, now);
    if (r == 0)
        rv_admit_started(&h->s, RV_HIGH);
    return r;
}

static void sample(struct host *h, int64_t now, int64_t delay)
{
    h->s.workers[0]->now = now;
    rv_admit_sample(h->s.workers[0], RV_HIGH, (uint64_t)delay);
}

TEST(a_queue_that_is_long_for_a_moment_refuses_nobody)
{
    struct host *h = with_bounds();
    int64_t now = REEVE_SEC;
    for (int i = 0; i < 100; i++, now += REEVE_MS) {
        sample(h, now, 50 * REEVE_MS);
        CHECK_EQ(admitted(h, now), 0);
    }
    sample(h, now, 5 * REEVE_MS); /* one is enough */
    for (int i = 0; i < 99; i++, now += REEVE_MS) {
        sample(h, now, 50 * REEVE_MS);
        CHECK_EQ(admitted(h, now), 0);
    }
    host_destroy(h);
}

TEST(a_standing_queue_refuses_until_it_moves_or_is_over)
{
    struct host *h = with_bounds();
    int64_t now = REEVE_SEC;
    for (int i = 0; i < 11; i++, now += 10 * REEVE_MS)
        sample(h, now, 11 * REEVE_MS);
    CHECK_EQ(admitted(h, now), -EAGAIN);
    sample(h, now, 10 * REEVE_MS);
    CHECK_EQ(admitted(h, now), 0);
    for (int i = 0; i < 11; i++, now += 10 * REEVE_MS)
        sample(h, now, 11 * REEVE_MS);
    CHECK_EQ(admitted(h, now), -EAGAIN);
    CHECK_EQ(admitted(h, now + INTERVAL), 0); /* nobody waited since then */
    host_destroy(h);
}

static RV_ATOMIC(unsigned) runs;

static int counts(void *arg)
{
    (void)arg;
    rv_add_relaxed(&runs, 1u);
    return 0;
}

TEST(posts_beyond_the_bound_are_refused_and_the_others_all_run)
{
    struct host *h = with_bounds();
    rv_store_relaxed(&runs, 0u);
    int let_in = 0;
    for (int i = 0; i < 20; i++)
        let_in += rv_sched_post(&h->s, &(struct reeve_spawn){ .fn = counts }) == 0;
    CHECK_EQ(let_in, 5);
    for (int i = 0; i < 20; i++) /* another class, without a bound */
        CHECK_OK(rv_sched_post(&h->s,
                               &(struct reeve_spawn){ .fn = counts, .priority = REEVE_LOW }));
    rv_sched_close(&h->s);
    host_run_virtual_on(h);
    CHECK_EQ(rv_load_relaxed(&runs), 25);
    for (unsigned c = 0; c < RV_CLASSES; c++)
        CHECK_EQ(rv_load_relaxed(&h->s.admission->of[c].waiting), 0);
    host_destroy(h);
}
