/* SPDX-License-Identifier: MIT */
/*
 * slab_test.c -- order, content, limits and hand-over of the objects of a slab.
 *
 * The traffic test lets threads pass objects around and checks on each that it has one holder.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <pthread.h>

#include "mem/slab.h"
#include "tests/mem/segv.h"

struct object {
    uint64_t word[8];
};

static struct rv_slab slab;
static struct rv_mag mine, theirs;

static void start(uint32_t cap)
{
    CHECK_OK(rv_slab_init(&slab, sizeof(struct object), cap, "slab"));
}

TEST(fresh_objects_come_in_ascending_order_and_are_zero)
{
    static const struct object zero;
    start(100000);
    for (uint32_t i = 0; i < 100000; i++) {
        uint32_t idx = rv_slab_take(&slab, i % 1000 == 7 ? NULL : &mine);
        CHECK_NE(idx, RV_NIL);
        CHECK_MEM_EQ(rv_slab_at(&slab, idx), &zero, sizeof zero);
        memset(rv_slab_at(&slab, idx), 0xee, sizeof zero);
    }
    rv_slab_finish(&slab);
    mine.n = 0;
    start(1000);
    for (uint32_t i = 0; i < 1000; i++)
        CHECK_EQ(rv_slab_take(&slab, &mine), i);
    rv_slab_finish(&slab);
}

TEST(objects_lie_side_by_side_on_their_alignment)
{
    CHECK_OK(rv_slab_init(&slab, 100, 50, "slab"));
    CHECK_EQ(slab.bytes, 112);
    CHECK_EQ((uintptr_t)rv_slab_at(&slab, 0) % 4096, 0);
    CHECK_EQ((char *)rv_slab_at(&slab, 49) - (char *)rv_slab_at(&slab, 0), 49 * 112);
    rv_slab_finish(&slab);
}

TEST(the_last_given_is_the_first_taken)
{
    start(10000);
    uint32_t a = rv_slab_take(&slab, &mine), b = rv_slab_take(&slab, &mine);
    rv_slab_give(&slab, &mine, a);
    rv_slab_give(&slab, &mine, b);
    CHECK_EQ(rv_slab_take(&slab, &mine), b);
    CHECK_EQ(rv_slab_take(&slab, &mine), a);
    rv_slab_give(&slab, NULL, b);
    rv_slab_give(&slab, NULL, a);
    CHECK_EQ(rv_slab_take(&slab, NULL), a);
    rv_slab_finish(&slab);
}

TEST(an_object_keeps_its_content_while_it_is_free)
{
    enum { N = 5000 };
    start(N);
    for (uint32_t i = 0; i < N; i++) {
        struct object *o = rv_slab_at(&slab, rv_slab_take(&slab, &mine));
        for (int w = 0; w < 8; w++)
            o->word[w] = i * 8 + (unsigned)w;
    }
    for (uint32_t i = 0; i < N; i++)
        rv_slab_give(&slab, &mine, i);
    rv_mag_flush(&slab, &mine);
    for (uint32_t i = 0; i < N; i++) {
        const struct object *o = rv_slab_at(&slab, i);
        for (int w = 0; w < 8; w++)
            CHECK_EQ(o->word[w], i * 8 + (unsigned)w);
    }
    rv_slab_finish(&slab);
}

TEST(a_full_slab_says_nil_until_something_is_given_back)
{
    static const uint32_t caps[] = {1, 2, 63, 1000, 20000};
    for (size_t c = 0; c < sizeof caps / sizeof caps[0]; c++) {
        for (int foreign = 0; foreign < 2; foreign++) {
            struct rv_mag *mag = foreign ? NULL : &mine;
            start(caps[c]);
            for (uint32_t i = 0; i < caps[c]; i++)
                CHECK_LT(rv_slab_take(&slab, mag), caps[c]);
            CHECK_EQ(rv_slab_take(&slab, mag), RV_NIL);
            CHECK_EQ(rv_slab_live(&slab), caps[c]);
            rv_slab_give(&slab, mag, caps[c] - 1);
            CHECK_EQ(rv_slab_take(&slab, mag), caps[c] - 1);
            CHECK_EQ(rv_slab_take(&slab, mag), RV_NIL);
            rv_slab_finish(&slab);
        }
    }
}

TEST(a_magazine_of_a_small_slab_withholds_little)
{
    start(8);
    uint32_t a = rv_slab_take(&slab, &mine);
    for (int i = 0; i < 7; i++)
        CHECK_NE(rv_slab_take(&slab, &theirs), RV_NIL);
    rv_slab_give(&slab, &mine, a);
    CHECK_LE(mine.n, 2);
    rv_slab_finish(&slab);
}

TEST(what_one_magazine_flushes_another_takes)
{
    enum { N = 20000 };
    static bool seen[N];
    start(N);
    for (uint32_t i = 0; i < N; i++)
        CHECK_EQ(rv_slab_take(&slab, &mine), i);
    CHECK_EQ(rv_slab_take(&slab, &theirs), RV_NIL);
    for (uint32_t i = 0; i < N; i++)
        rv_slab_give(&slab, &mine, i);
    CHECK_LE(mine.n, RV_MAG_MAX);
    CHECK_EQ(rv_slab_live(&slab), mine.n);
    rv_mag_flush(&slab, &mine);
    CHECK_EQ(mine.n, 0);
    CHECK_EQ(rv_slab_live(&slab), 0);
    for (uint32_t i = 0; i < N; i++) {
        uint32_t idx = rv_slab_take(&slab, &theirs);
        CHECK_LT(idx, N);
        CHECK(!seen[idx]);
        seen[idx] = true;
    }
    rv_slab_finish(&slab);
}

TEST(giving_twice_dies)
{
#ifdef RV_DEBUG
    const char *sentence = "slab: object 0 was given back twice.";
#else
    const char *sentence = "does not hold";
#endif
    start(1000);
    uint32_t idx = rv_slab_take(&slab, NULL);
    rv_slab_give(&slab, NULL, idx);
    CHECK_DIES(sentence, rv_slab_give(&slab, NULL, idx));
    rv_slab_finish(&slab);
}

TEST(sizes_and_counts_out_of_range_are_refused)
{
    CHECK_EQ(rv_slab_init(&slab, 0, 10, "slab"), -EINVAL);
    CHECK_EQ(rv_slab_init(&slab, 64, 0, "slab"), -EINVAL);
    CHECK_EQ(rv_slab_init(&slab, 64, (1U << 31) + 1, "slab"), -EINVAL);
    CHECK_EQ(rv_slab_init(&slab, (1U << 20) + 1, 10, "slab"), -EINVAL);
    CHECK(slab.base == NULL);
    rv_slab_finish(&slab);
}

TEST(a_failed_take_or_init_leaves_everything_as_it_was)
{
    if (!rv_fault_available())
        SKIP("built without RV_FAULTS");
    int r = 0;
    uint64_t n;
    long before = pages_mapped();
    for (n = 1; rv_fault_fail_nth(n), r = rv_slab_init(&slab, 64, 1 << 20, "slab.x"), r < 0; n++) {
        CHECK_EQ(r, -ENOMEM);
        CHECK(rv_fault_last_name() != NULL);
        CHECK_EQ(pages_mapped(), before);
    }
    CHECK_EQ(n, 3);             /* its own point and the mapping */
    rv_fault_fail_nth(2);
    CHECK_EQ(rv_slab_take(&slab, &mine), 0);
    CHECK_EQ(rv_slab_take(&slab, &mine), RV_NIL);
    CHECK_STR_EQ(rv_fault_last_name(), "slab.x");
    CHECK_EQ(rv_slab_take(&slab, &mine), 1);
    rv_slab_finish(&slab);
    CHECK_EQ(pages_mapped(), before);
}

/* ---- four threads that take, hand on, and give back what others took ------------------------- */

enum { THREADS = 4, BOXES = 64, ROUNDS = 60000, CAP = 600 };

static struct {
    RV_ATOMIC(uint32_t) box[BOXES];     /* index + 1, or 0 */
    RV_ATOMIC(uint32_t) held[CAP];
    RV_ATOMIC(uint32_t) nils;
} traffic;

/* The words are plain: if two threads ever hold one object, ThreadSanitizer sees it too. */
static void stamp(uint32_t idx)
{
    struct object *o = rv_slab_at(&slab, idx);
    CHECK_EQ(rv_xchg_relaxed(&traffic.held[idx], 1U), 0);
    for (int w = 0; w < 8; w++)
        o->word[w] = idx * 31U + (unsigned)w;
}

static void check_stamp_and_give(struct rv_mag *mag, uint32_t idx)
{
    struct object *o = rv_slab_at(&slab, idx);
    for (int w = 0; w < 8; w++)
        CHECK_EQ(o->word[w], idx * 31U + (unsigned)w);
    CHECK_EQ(rv_xchg_relaxed(&traffic.held[idx], 0U), 1);
    rv_slab_give(&slab, mag, idx);
}

/* The last of the threads has no magazine. */
static void *run_traffic(void *arg)
{
    uint32_t me = (uint32_t)(uintptr_t)arg, state = me * 2654435761U + 1;
    struct rv_mag own = {0}, *mag = me + 1 < THREADS ? &own : NULL;
    for (int i = 0; i < ROUNDS; i++) {
        state = state * 1664525U + 1013904223U;
        uint32_t idx = rv_slab_take(&slab, mag);
        if (idx == RV_NIL)
            rv_add_relaxed(&traffic.nils, 1U);
        else
            stamp(idx);
        /* Hands the object on through the box; pairs with the same exchange on other threads. */
        uint32_t other = rv_xchg_acq_rel(&traffic.box[state >> 26], idx == RV_NIL ? 0 : idx + 1);
        if (other != 0)
            check_stamp_and_give(mag, other - 1);
    }
    rv_mag_flush(&slab, &own);
    return NULL;
}

TEST(no_object_is_lost_or_held_twice_when_threads_pass_them_around)
{
    pthread_t thread[THREADS];
    start(CAP);
    for (uintptr_t i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&thread[i], NULL, run_traffic, (void *)i), 0);
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_join(thread[i], NULL), 0);
    for (int i = 0; i < BOXES; i++) {
        uint32_t left = rv_load_relaxed(&traffic.box[i]);
        if (left != 0)
            check_stamp_and_give(NULL, left - 1);
    }
    CHECK_EQ(rv_slab_live(&slab), 0);
    for (uint32_t i = 0; i < CAP; i++)
        CHECK_NE(rv_slab_take(&slab, NULL), RV_NIL);
    CHECK_EQ(rv_slab_take(&slab, NULL), RV_NIL);
    rv_slab_finish(&slab);
}
