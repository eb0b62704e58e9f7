/* SPDX-License-Identifier: MIT */
/*
 * prof_test.c -- the profiler: exact when it follows everything, near the truth when it samples,
 * and nothing when it is off.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <pthread.h>
#include <reeve/mem.h>
#include <reeve/pool.h>

#include "mem/local.h"
#include "mem/pool_seat.h"
#include "mem/prof.h"

#define NOINLINE __attribute__((noinline))

static struct rv_local local;

/* Two call sites; the empty asm keeps the calls from being tail calls. */
static NOINLINE void *take_here(reeve_pool *pool)
{
    void *object = reeve_pool_borrow(pool);
    __asm__ volatile("" ::: "memory");
    return object;
}

static NOINLINE void *take_there(size_t bytes)
{
    void *block = reeve_alloc(bytes);
    __asm__ volatile("" ::: "memory");
    return block;
}

/* One of the two calls above, which are some 20 bytes apart at least. */
static bool is_here(const void *site)
{
    uintptr_t at = (uintptr_t)site, here = (uintptr_t)take_here, there = (uintptr_t)take_there;
    return at > here && at < here + 200 && (there < here || at < there);
}

static reeve_pool *pool_of(size_t bytes)
{
    reeve_pool *pool = NULL;
    CHECK_OK(reeve_pool_create(&pool, &(struct reeve_pool_opts){ .bytes = bytes }));
    return pool;
}

TEST(nothing_is_booked_while_it_is_off)
{
    struct reeve_memory_site site;
    reeve_pool *pool = pool_of(64);
    reeve_memory_profile_stop();
    CHECK_EQ(reeve_memory_profile_read(&site, 1), 0);
    reeve_pool_return(pool, take_here(pool));
    reeve_free(take_there(100000));
    CHECK_EQ(reeve_memory_profile_read(&site, 1), 0);
    CHECK_OK(reeve_memory_profile_start(1));
    reeve_memory_profile_stop();
    reeve_pool_return(pool, take_here(pool));
    reeve_free(take_there(100000));
    CHECK_EQ(reeve_memory_profile_read(&site, 1), 0);
    reeve_pool_destroy(pool);
}

TEST(it_runs_once_at_a_time)
{
    CHECK_OK(reeve_memory_profile_start(0));
    CHECK_EQ(reeve_memory_profile_start(0), -EBUSY);
    reeve_memory_profile_stop();
    CHECK_OK(reeve_memory_profile_start(0));
    reeve_memory_profile_stop();
}

TEST(following_everything_is_exact)
{
    void *objects[10], *blocks[5];
    struct reeve_memory_site site[4];
    reeve_pool *pool = pool_of(640);
    for (int as_worker = 0; as_worker < 2; as_worker++) {
        rv_local_set(as_worker ? &local : NULL);
        CHECK_OK(reeve_memory_profile_start(1));
        for (int i = 0; i < 10; i++)
            objects[i] = take_here(pool);
        for (int i = 0; i < 5; i++)
            blocks[i] = take_there(i < 4 ? 1000 : 100000);
        for (int i = 0; i < 4; i++)
            reeve_pool_return(pool, objects[i]);
        for (int i = 0; i < 3; i++)
            objects[i] = take_here(pool);
        CHECK_EQ(reeve_memory_profile_read(site, 4), 2);
        CHECK(!is_here(site[0].site));
        CHECK_EQ(site[0].live_bytes, 4 * 1024 + 100000);
        CHECK_EQ(site[0].live_objects, 5);
        CHECK_EQ(site[0].peak_bytes, 4 * 1024 + 100000);
        CHECK(is_here(site[1].site));
        CHECK_EQ(site[1].live_objects, 9);
        CHECK_EQ(site[1].live_bytes, 9 * 640);
        CHECK_EQ(site[1].peak_bytes, 10 * 640);
        CHECK_EQ(site[1].objects, 13);
        CHECK_EQ(site[1].bytes, 13 * 640);
        reeve_memory_profile_stop();
        for (int i = 0; i < 10; i++)
            if (i != 3)
                reeve_pool_return(pool, objects[i]);
        for (int i = 0; i < 5; i++)
            reeve_free(blocks[i]);
        CHECK_EQ(reeve_memory_profile_read(site, 4), 2);
        CHECK_EQ(site[0].live_bytes + site[1].live_bytes, 0);
        CHECK_EQ(site[0].live_objects + site[1].live_objects, 0);
    }
    reeve_pool_destroy(pool);
}

TEST(what_an_earlier_run_followed_is_not_booked)
{
    struct reeve_memory_site site[2];
    reeve_pool *pool = pool_of(64);
    CHECK_OK(reeve_memory_profile_start(1));
    void *old = take_here(pool);
    reeve_memory_profile_stop();
    CHECK_OK(reeve_memory_profile_start(1));
    void *new = take_here(pool);
    reeve_pool_return(pool, old);
    CHECK_EQ(reeve_memory_profile_read(site, 2), 1);
    CHECK_EQ(site[0].live_objects, 1);
    CHECK_EQ(site[0].objects, 1);
    reeve_pool_return(pool, new);
    reeve_memory_profile_stop();
    reeve_pool_destroy(pool);
}

/* Within a tenth: some 1600 samples stray by less than two percent. */
static void is_near(uint64_t estimate, uint64_t truth)
{
    CHECK_GT(estimate, truth - truth / 10);
    CHECK_LT(estimate, truth + truth / 10);
}

TEST(samples_come_near_the_truth)
{
    enum { N = 100000, KEPT = 50000 };
    static void *objects[KEPT];
    struct reeve_memory_site site;
    reeve_pool *pool = pool_of(1024);
    for (int as_worker = 0; as_worker < 2; as_worker++) {
        rv_local_set(as_worker ? &local : NULL);
        CHECK_OK(reeve_memory_profile_start(64 << 10));
        for (int i = 0; i < N; i++) {
            void *object = take_here(pool);
            if (i % 2 == 0)
                objects[i / 2] = object;
            else
                reeve_pool_return(pool, object);
        }
        CHECK_EQ(reeve_memory_profile_read(&site, 1), 1);
        is_near(site.objects, N);
        is_near(site.bytes, (uint64_t)N * 1024);
        is_near(site.live_objects, KEPT);
        is_near(site.peak_bytes, (uint64_t)KEPT * 1024);
        for (int i = 0; i < KEPT; i++)
            reeve_pool_return(pool, objects[i]);
        CHECK_EQ(reeve_memory_profile_read(&site, 1), 1);
        CHECK_EQ(site.live_objects, 0);
        reeve_memory_profile_stop();
    }
    reeve_pool_destroy(pool);
}

TEST(aligned_blocks_are_sampled_by_their_bytes)
{
    enum { N = 40000 };
    struct reeve_memory_site site;
    CHECK_OK(reeve_memory_profile_start(64 << 10));
    for (int i = 0; i < N; i++) {
        void *block = reeve_alloc_aligned(4096, 4096);
        CHECK(block != NULL);
        reeve_free(block);
    }
    reeve_memory_profile_stop();
    CHECK_EQ(reeve_memory_profile_read(&site, 1), 1);
    is_near(site.bytes, (uint64_t)N * 4096);
    CHECK_EQ(site.live_bytes, 0);
}

TEST(sites_that_find_no_place_are_booked_together)
{
    enum { SITES = 6000 };
    static struct reeve_memory_site site[SITES];
    CHECK_OK(reeve_memory_profile_start(1));
    for (uintptr_t i = 1; i <= SITES; i++)
        for (int k = 0; k < 2; k++)
            rv_prof_took((const void *)(i * 5), 10, 3);
    size_t n = reeve_memory_profile_read(site, SITES);
    CHECK_LE(n, 4096);
    CHECK_GT(n, 3000);
    uint64_t bytes = 0, unknown = 0;
    for (size_t i = 0; i < n; i++) {
        CHECK(i == 0 || site[i - 1].live_bytes >= site[i].live_bytes);
        CHECK(site[i].site == NULL || site[i].bytes == 2 * 30);
        bytes += site[i].bytes;
        unknown += site[i].site == NULL;
    }
    CHECK_EQ(bytes, SITES * 2 * 30);
    CHECK_EQ(unknown, 1);
    CHECK_EQ(reeve_memory_profile_read(NULL, 0), n);
    reeve_memory_profile_stop();
}

TEST(a_short_list_holds_the_largest)
{
    struct reeve_memory_site site[3];
    CHECK_OK(reeve_memory_profile_start(1));
    for (uintptr_t i = 1; i <= 100; i++)
        rv_prof_took((const void *)(i * 16), i * 7 % 101, 1);
    CHECK_EQ(reeve_memory_profile_read(site, 3), 100);
    for (uint64_t i = 0; i < 3; i++)
        CHECK_EQ(site[i].live_bytes, 100 - i);
    reeve_memory_profile_stop();
}

/* ---- threads --------------------------------------------------------------------------------- */

enum { THREADS = 3, ROUNDS = 20000 };

static struct {
    reeve_pool *pool;
    RV_ATOMIC(uintptr_t) place;
    RV_ATOMIC(uint32_t) left;
} shared;

static void *pass_on(void *arg)
{
    struct rv_local own = { 0 };
    rv_local_set(arg ? &own : NULL);
    for (int i = 0; i < ROUNDS; i++)
        reeve_pool_return(shared.pool, (void *)rv_xchg_acq_rel(
                                           &shared.place, (uintptr_t)take_here(shared.pool)));
    rv_local_set(NULL);
    rv_seat_leave(&own);
    rv_sub_acq_rel(&shared.left, 1U);
    return NULL;
}

TEST(starting_and_stopping_while_others_work_does_no_harm)
{
    struct reeve_memory_site site;
    pthread_t thread[THREADS];
    shared.pool = pool_of(64);
    rv_store_relaxed(&shared.left, THREADS);
    for (uintptr_t i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&thread[i], NULL, pass_on, (void *)i), 0);
    while (rv_load_acquire(&shared.left) > 0) {
        CHECK_OK(reeve_memory_profile_start(512));
        reeve_memory_profile_read(&site, 1);
        reeve_memory_profile_stop();
    }
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_join(thread[i], NULL), 0);
    reeve_pool_return(shared.pool, (void *)rv_load_acquire(&shared.place));
    reeve_pool_destroy(shared.pool);
}
