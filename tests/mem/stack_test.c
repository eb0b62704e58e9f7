/* SPDX-License-Identifier: MIT */
/*
 * stack_test.c -- stacks have their size, their guards and one page; hot, cold, limited, shared.
 *
 * What depends on the kernel runs twice: with its guards, and as if it were an old one. Overflows
 * happen in child processes.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <pthread.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "mem/alloc.h"
#include "mem/stack.h"
#include "tests/mem/segv.h"

#ifdef RV_ASAN
#include <sanitizer/asan_interface.h>
#endif

#if defined(RV_TSAN) || defined(RV_ASAN)
enum { MANY = 4000 };           /* each stack costs them memory of their own */
#else
enum { MANY = 40000 };
#endif

static struct rv_stack_pool pool;
static struct rv_stack_mag mine;

static void start(uint32_t stacks_max, bool old_kernel)
{
    CHECK_OK(rv_stack_pool_init(&pool, stacks_max, old_kernel));
}

static void start_with_guards(uint32_t stacks_max)
{
    start(stacks_max, false);
    if (!pool.guard_install)
        SKIP("this kernel has no MADV_GUARD_INSTALL");
}

static struct rv_stack *take(unsigned class)
{
    struct rv_stack *st = rv_stack_take(&pool, &mine, class);
    CHECK(st != NULL);
    return st;
}

static void stop(void)
{
    rv_stack_mag_flush(&pool, &mine);
    rv_stack_pool_finish(&pool);
}

/* The pages of memory in a slot. Not by its record: a cold stack has none. */
static size_t pages_resident(unsigned class, uint32_t index)
{
    unsigned char in[1024];
    size_t bytes = pool.depot[class].slot_bytes, page = rv_page_bytes(), n = 0;
    unsigned char *slot = pool.depot[class].base + index * bytes;
    CHECK_LE(bytes / page, sizeof in);
    CHECK_EQ(mincore(slot, bytes, in), 0);
    for (size_t i = 0; i < bytes / page; i++)
        n += in[i] & 1;
    return n;
}

TEST(a_class_is_the_smallest_that_promises_enough)
{
    CHECK_EQ(rv_stack_class(0), -EINVAL);
    CHECK_EQ(rv_stack_class(4095), -EINVAL);
    CHECK_EQ(rv_stack_class(4096), 0);
    CHECK_EQ(rv_stack_class(16384), 0);
    CHECK_EQ(rv_stack_class(16385), 1);
    CHECK_EQ(rv_stack_class(65536), 1);
    CHECK_EQ(rv_stack_class(65537), 2);
    CHECK_EQ(rv_stack_class(262145), 3);
    CHECK_EQ(rv_stack_class(1 << 20), 3);
    CHECK_EQ(rv_stack_class((1 << 20) + 1), -EINVAL);
    CHECK_EQ(rv_stack_promise(0), 16384);
    CHECK_EQ(rv_stack_promise(3), 1 << 20);
}

TEST(all_of_a_stack_can_be_written_and_it_is_thrice_its_promise)
{
    for (int old_kernel = 0; old_kernel < 2; old_kernel++) {
        for (unsigned class = 0; class < RV_STACK_CLASSES; class++) {
            start(20, old_kernel);
            for (int i = 0; i < 20; i++) {
                struct rv_stack *st = take(class);
                CHECK_EQ(st->class, class);
                CHECK_EQ((uintptr_t)st->top % 64, 0);
                CHECK_GE(st->top - st->low, 3 * rv_stack_promise(class));
                CHECK_EQ(rv_stack_room(st, st->top), st->top - st->low);
                CHECK_EQ(rv_stack_room(st, st->low + 5), 5);
                memset(st->low, 0xcc, (size_t)(st->top - st->low));
                rv_stack_give(&pool, i % 3 ? NULL : &mine, st);
                take(class);
            }
            stop();
        }
    }
}

TEST(an_idle_stack_holds_one_page)
{
    for (int old_kernel = 0; old_kernel < 2; old_kernel++) {
        start(100, old_kernel);
        struct rv_stack *st[100];
        for (int i = 0; i < 100; i++) {
            st[i] = take(1);
            memset(st[i]->top - 2000, 1, 2000);     /* the shallow frames of a parked task */
        }
        for (int i = 0; i < 100; i++)
            rv_stack_give(&pool, &mine, st[i]);
        for (int i = 0; i < 100; i++)
            CHECK_EQ(pages_resident(1, st[i]->index), 1);
        stop();
    }
}

TEST(neighbours_start_at_different_cache_lines)
{
    bool seen[64] = {false};
    int lines = 0;
    start(16, false);
    for (int i = 0; i < 16; i++) {
        unsigned line = (uintptr_t)take(0)->top / 64 % 64;
        lines += !seen[line];
        seen[line] = true;
    }
    CHECK_EQ(lines, 16);
    stop();
}

/* ---- overflow -------------------------------------------------------------------------------- */

/* Writes downwards like frames do, to one cache line below the low end. */
static void run_over(void *arg)
{
    struct rv_stack *st = arg;
    for (volatile unsigned char *p = st->top - 1; p >= st->low - 64; p--)
        *p = 0x5a;
}

TEST(running_over_dies_on_the_guard)
{
    start_with_guards(40);
    for (int i = 0; i < 40; i++)
        CHECK(dies_by_segv(run_over, take(i % RV_STACK_CLASSES)));
    stop();
}

TEST(a_guard_outlives_cooling)
{
    start_with_guards(10);
    memset(pool.hot_max, 0, sizeof pool.hot_max);
    for (int i = 0; i < 10; i++) {
        struct rv_stack *st = take(0);
        rv_stack_give(&pool, NULL, st);
        CHECK(dies_by_segv(run_over, rv_stack_take(&pool, NULL, 0)));
    }
    stop();
}

static volatile int left = INT32_MAX;

/* Not a tail call: each frame's array lives on until the frames below it are done. */
static __attribute__((noinline)) int recurse(volatile int *above)
{
    volatile int here[32];
    here[0] = *above + 1;
    return left-- > 0 ? recurse(here) + here[0] : 0;
}

static void recurse_forever(void)
{
    volatile int start_at = 0;
    left = recurse(&start_at);
}

static void recurse_on(void *arg)
{
    static ucontext_t main_context, task;
    struct rv_stack *st = arg;
    getcontext(&task);
    task.uc_stack.ss_sp = st->low;
    task.uc_stack.ss_size = (size_t)(st->top - st->low);
    task.uc_link = &main_context;
    makecontext(&task, recurse_forever, 0);
    swapcontext(&main_context, &task);
}

TEST(endless_recursion_dies_on_the_guard)
{
#ifdef RV_TSAN
    SKIP("ThreadSanitizer does not follow swapcontext");
#endif
    start_with_guards(4);
    for (unsigned class = 0; class < RV_STACK_CLASSES; class++)
        CHECK(dies_by_segv(recurse_on, take(class)));
    stop();
}

TEST(on_old_kernels_every_eighth_stack_dies_on_a_guard_and_the_others_when_given_back)
{
    struct rv_stack *st[24];
    start(24, true);
    CHECK(!pool.guard_install);
    for (int i = 0; i < 24; i++)
        st[i] = take(1);
    for (int i = 0; i < 24; i++) {
        CHECK_EQ(st[i]->index, i);
        CHECK_EQ(dies_by_segv(run_over, st[i]), i % 8 == 0);
        if (i % 8 != 0)
            CHECK_DIES("a task overflowed its stack",
                       { run_over(st[i]); rv_stack_give(&pool, &mine, st[i]); });
    }
    for (int i = 0; i < 24; i++)
        rv_stack_give(&pool, &mine, st[i]);
    stop();
}

TEST(on_old_kernels_the_stack_below_notices_too)
{
    start(24, true);
    take(0);
    struct rv_stack *below = take(0), *above = take(0);
    CHECK_DIES("a task overflowed its stack",
               { run_over(above); rv_stack_give(&pool, &mine, below); });
    CHECK_DIES("a task overflowed its stack",
               { memset(below, 0x5a, sizeof *below); rv_stack_give(&pool, &mine, below); });
    stop();
}

TEST(on_old_kernels_running_over_into_a_cold_stack_is_noticed)
{
    start(24, true);
    memset(pool.hot_max, 0, sizeof pool.hot_max);
    struct rv_stack *first = take(0), *below = take(0), *above = take(0);
    rv_stack_give(&pool, NULL, below);
    CHECK_DIES("a task overflowed its stack", { run_over(above); take(0); });
    CHECK_DIES("a task overflowed its stack",
               { run_over(above); rv_stack_give(&pool, NULL, above); });
    rv_stack_give(&pool, NULL, above);
    rv_stack_give(&pool, NULL, first);
    stop();
}

/* ---- hot and cold ---------------------------------------------------------------------------- */

TEST(the_last_given_is_taken_first_with_its_context)
{
    start(100, false);
    struct rv_stack *a = take(1), *b = take(1), *other = take(2);
    CHECK(a->sp == NULL && b->sp == NULL);
    a->sp = a->top - 64;
    rv_stack_give(&pool, &mine, b);
    rv_stack_give(&pool, &mine, other);
    rv_stack_give(&pool, &mine, a);
    CHECK(take(1) == a);
    CHECK(a->sp == a->top - 64);
    CHECK(take(1) == b);
    CHECK(take(2) == other);
    stop();
}

TEST(red_zones_of_abandoned_frames_are_gone_when_a_stack_is_taken_again)
{
#ifdef RV_ASAN
    start(10, false);
    struct rv_stack *st = take(0);
    __asan_poison_memory_region(st->top - 1024, 512);
    rv_stack_give(&pool, &mine, st);
    CHECK(take(0) == st);
    CHECK(__asan_region_is_poisoned(st->low, (size_t)(st->top - st->low)) == NULL);
    stop();
#else
    SKIP("built without AddressSanitizer");
#endif
}

static uint32_t trimmed[256];     /* their indices */
static uint32_t trimmed_n;

static void on_trim(struct rv_stack *st)
{
    CHECK_LT(trimmed_n, 256);
    trimmed[trimmed_n++] = st->index;
}

TEST(above_the_mark_stacks_go_cold_and_hold_no_memory)
{
    struct rv_stack *st[100];
    struct rv_stack_stats s;
    for (int old_kernel = 0; old_kernel < 2; old_kernel++) {
        trimmed_n = 0;
        start(100, old_kernel);
        pool.hot_max[0] = 32;
        pool.on_trim = on_trim;
        for (int i = 0; i < 100; i++) {
            st[i] = take(0);
            st[i]->sp = st[i]->low;
            memset(st[i]->low, 1, (size_t)(st[i]->top - st[i]->low));
        }
        for (int i = 0; i < 100; i++)
            rv_stack_give(&pool, &mine, st[i]);
        rv_stack_mag_flush(&pool, &mine);
        rv_stack_pool_stats(&pool, &s);
        CHECK_EQ(s.created, 100);
        CHECK_EQ(s.live, 0);
        CHECK_LE(s.hot, 32);
        CHECK_EQ(s.cold, 100 - s.hot);
        CHECK_EQ(s.trimmed, s.cold);
        CHECK_EQ(trimmed_n, s.cold);
        for (uint32_t i = 0; i < trimmed_n; i++)
            CHECK_EQ(pages_resident(0, trimmed[i]), 0);
        for (uint32_t i = 0; i < s.hot; i++)
            CHECK(take(0)->sp != NULL);
        for (uint32_t i = 0; i < s.cold; i++) {
            struct rv_stack *again = take(0);
            CHECK(again->sp == NULL);
            CHECK_EQ(*again->low, 0);
            CHECK_EQ(again->top[-1], 0);
        }
        CHECK(rv_stack_take(&pool, &mine, 0) == NULL);
        stop();
    }
}

TEST(stacks_in_locked_memory_serve_again_after_going_cold)
{
    for (int old_kernel = 0; old_kernel < 2; old_kernel++) {
        start(20, old_kernel);
        memset(pool.hot_max, 0, sizeof pool.hot_max);
        for (int i = 0; i < 20; i++) {
            struct rv_stack *st = take(0);
            if (mlock(st->low, (size_t)(st->top - st->low)) < 0)
                SKIP("memory may not be locked here");
            st->sp = st->low;
            rv_stack_give(&pool, NULL, st);
            CHECK(take(0) == st);
            CHECK(st->sp == NULL);
        }
        stop();
    }
}

TEST(trimming_keeps_the_youngest)
{
    struct rv_stack *st[100];
    struct rv_stack_stats s;
    start(100, false);
    pool.on_trim = on_trim;
    for (int i = 0; i < 100; i++)
        st[i] = take(0);
    for (int i = 0; i < 100; i++)
        rv_stack_give(&pool, NULL, st[i]);
    CHECK_EQ(rv_stack_pool_trim(&pool, 10, 50), 50);
    CHECK_EQ(rv_stack_pool_trim(&pool, 10, UINT32_MAX), 40);
    CHECK_EQ(rv_stack_pool_trim(&pool, 10, UINT32_MAX), 0);
    rv_stack_pool_stats(&pool, &s);
    CHECK_EQ(s.hot, 10);
    CHECK_EQ(s.cold, 90);
    CHECK_EQ(trimmed_n, 90);
    for (int i = 99; i >= 90; i--)
        CHECK(rv_stack_take(&pool, NULL, 0) == st[i]);
    stop();
}

TEST(easing_leaves_each_class_what_it_is_to_keep)
{
    struct rv_stack *st[2][60];
    struct rv_stack_stats s;
    start(100, false);
    pool.on_trim = on_trim;
    pool.hot_keep[0] = 5, pool.hot_keep[1] = 20;
    CHECK(!rv_stack_pool_is_warm(&pool));
    for (int i = 0; i < 60; i++) {
        st[0][i] = take(0);
        st[1][i] = take(1);
    }
    CHECK(!rv_stack_pool_is_warm(&pool)); /* those in use are none of its business */
    for (int i = 0; i < 60; i++) {
        rv_stack_give(&pool, NULL, st[0][i]);
        rv_stack_give(&pool, NULL, st[1][i]);
    }
    CHECK(rv_stack_pool_is_warm(&pool));
    CHECK_EQ(rv_stack_pool_ease(&pool, 30), 30);
    CHECK(rv_stack_pool_is_warm(&pool));
    CHECK_EQ(rv_stack_pool_ease(&pool, UINT32_MAX), 65);
    CHECK(!rv_stack_pool_is_warm(&pool));
    CHECK_EQ(rv_stack_pool_ease(&pool, UINT32_MAX), 0);
    rv_stack_pool_stats(&pool, &s);
    CHECK_EQ(s.hot, 25);
    CHECK_EQ(s.cold, 95);
    stop();
}

TEST(the_pool_shows_each_hot_stack_to_on_trim_before_it_ends)
{
    start(50, false);
    pool.on_trim = on_trim;
    struct rv_stack *st[50];
    for (int i = 0; i < 50; i++)
        st[i] = take(i % 2 ? 0 : 3);
    for (int i = 0; i < 50; i++)
        rv_stack_give(&pool, &mine, st[i]);
    CHECK_EQ(trimmed_n, 0);
    stop();
    CHECK_EQ(trimmed_n, 50);
}

/* ---- limits ---------------------------------------------------------------------------------- */

TEST(past_the_limit_there_is_none_until_one_is_given_back)
{
    struct rv_stack *st[3];
    struct rv_stack_stats s;
    start(3, false);
    for (int i = 0; i < 3; i++)
        st[i] = take(1);
    CHECK(rv_stack_take(&pool, &mine, 1) == NULL);
    CHECK(rv_stack_take(&pool, NULL, 1) == NULL);
    take(0);
    rv_stack_pool_stats(&pool, &s);
    CHECK_EQ(s.refused, 2);
    CHECK_EQ(s.live, 4);
    rv_stack_give(&pool, NULL, st[1]);
    CHECK(take(1) == st[1]);
    stop();
}

TEST(limits_out_of_range_are_refused)
{
    CHECK_EQ(rv_stack_pool_init(&pool, 0, false), -EINVAL);
    CHECK_EQ(rv_stack_pool_init(&pool, (1U << 24) + 1, false), -EINVAL);
    rv_stack_pool_finish(&pool);
}

static long mappings(void)
{
    long lines = 0;
    FILE *f = fopen("/proc/self/maps", "r");
    CHECK(f != NULL);
    for (int c; (c = getc(f)) != EOF;)
        lines += c == '\n';
    fclose(f);
    return lines;
}

TEST(many_stacks_are_few_mappings)
{
    long before = mappings();
    start_with_guards(MANY);
    for (int i = 0; i < MANY; i++)
        take(0);
    CHECK_LE(mappings() - before, 20);
    stop();
    start(MANY, true);
    for (int i = 0; i < MANY; i++)
        take(0);
    CHECK_LE(mappings() - before, MANY / 8 * 2 + 20);
    stop();
    CHECK_LE(mappings() - before, 20);
}

TEST(with_little_address_space_there_are_fewer_stacks)
{
#if defined(RV_TSAN) || defined(RV_ASAN)
    SKIP("sanitizers need more address space than a limit leaves");
#endif
    rlim_t limit = ((rlim_t)pages_mapped() + 65536) * rv_page_bytes();
    CHECK_EQ(setrlimit(RLIMIT_AS, &(struct rlimit){limit, limit}), 0);
    start(1 << 20, false);
    uint32_t n = 0;
    while (rv_stack_take(&pool, &mine, 1) != NULL)
        n++;
    CHECK_GE(n, 256);
    CHECK_LT(n, 4096);
    stop();
}

TEST(a_million_stacks_of_each_class_can_be_promised)
{
#if defined(RV_TSAN) || defined(RV_ASAN)
    SKIP("sanitizers leave too little address space");
#endif
    start(1 << 20, false);
    for (unsigned class = 0; class < RV_STACK_CLASSES; class++) {
        memset(take(class)->low, 1, rv_stack_promise(class));
        CHECK_EQ(pool.depot[class].cap, 1 << 20);
    }
    stop();
}

TEST(a_take_that_fails_anywhere_leaves_nothing_behind)
{
    if (!rv_fault_available())
        SKIP("built without RV_FAULTS");
    for (int round = 0; round < 4; round++) {
        bool old_kernel = round & 1;
        uint32_t stacks_max = round & 2 ? 64 : 1;   /* of 1 there is no half to fall back to */
        long before = pages_mapped();
        uint64_t n;
        int refused = 0;
        for (n = 1;; n++) {
            rv_fault_fail_nth(n);
            start(stacks_max, old_kernel);
            struct rv_stack *st = rv_stack_take(&pool, &mine, 2);
            bool failed = rv_fault_last_name() != NULL;
            refused += st == NULL;
            CHECK(st != NULL || failed);
            if (st == NULL && n % 2)
                st = take(2);
            if (st == NULL) {               /* every second time it ends here */
                stop();
                CHECK_EQ(pages_mapped(), before);
                continue;
            }
            memset(st->low, 1, (size_t)(st->top - st->low));
            rv_stack_give(&pool, &mine, st);
            stop();
            CHECK_EQ(pages_mapped(), before);
            if (!failed)
                break;
        }
        CHECK_GE(refused, 3);   /* the take itself, the commit, the guard, the lists */
    }
}

/* ---- threads --------------------------------------------------------------------------------- */

enum { THREADS = 4, BOXES = 32, ROUNDS = 20000, STACKS = 300 };

static RV_ATOMIC(struct rv_stack *) box[BOXES];

/* Plain writes at both ends: if two threads ever hold one stack, ThreadSanitizer sees it too. */
static void stamp(struct rv_stack *st)
{
    memset(st->low, (int)st->index & 0xff, 64);
    memset(st->top - 512, (int)st->index & 0xff, 512);
    st->next = st;
    st->sp = st->top - 512;
}

static void check_stamp_and_give(struct rv_stack_mag *mag, struct rv_stack *st)
{
    CHECK(st->next == st);
    CHECK(st->sp == st->top - 512);
    CHECK_EQ(*st->low, st->index & 0xff);
    CHECK_EQ(st->top[-1], st->index & 0xff);
    rv_stack_give(&pool, mag, st);
}

/* The last of the threads has no magazine. Every thread is idle now and then, and trims. */
static void *run_traffic(void *arg)
{
    uint32_t me = (uint32_t)(uintptr_t)arg, state = me * 2654435761U + 1;
    struct rv_stack_mag own = {0}, *mag = me + 1 < THREADS ? &own : NULL;
    for (int i = 0; i < ROUNDS; i++) {
        state = state * 1664525U + 1013904223U;
        struct rv_stack *st = state >> 31 ? rv_stack_take(&pool, mag, state >> 30 & 1) : NULL;
        if (st != NULL)
            stamp(st);
        /* Hands the stack on through the box; pairs with the same exchange on other threads. */
        st = rv_xchg_acq_rel(&box[state >> 20 & (BOXES - 1)], st);
        if (st != NULL)
            check_stamp_and_give(mag, st);
        if (i % 1000 == 0)
            rv_stack_pool_trim(&pool, 4, 8);
    }
    rv_stack_mag_flush(&pool, &own);
    return NULL;
}

static void pass_stacks_around(bool old_kernel)
{
    pthread_t thread[THREADS];
    struct rv_stack_stats s;
    start(STACKS, old_kernel);
    pool.hot_max[0] = pool.hot_max[1] = 8;
    for (uintptr_t i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&thread[i], NULL, run_traffic, (void *)i), 0);
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_join(thread[i], NULL), 0);
    for (int i = 0; i < BOXES; i++) {
        struct rv_stack *st = rv_load_relaxed(&box[i]);
        if (st != NULL)
            check_stamp_and_give(NULL, st);
    }
    rv_stack_pool_stats(&pool, &s);
    CHECK_EQ(s.live, 0);
    CHECK_EQ(s.refused, 0);
    CHECK_GT(s.trimmed, 0);
    stop();
}

TEST(no_stack_is_lost_or_held_twice_when_threads_pass_them_around)
{
    pass_stacks_around(false);
}

TEST(nor_on_old_kernels)
{
    pass_stacks_around(true);
}
