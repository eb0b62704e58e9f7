/* SPDX-License-Identifier: MIT */
/*
 * sizes_test.c -- blocks of any size: where they are from, that they are nobody else's, and that
 * the books are kept.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <pthread.h>
#include <reeve/mem.h>

#include "mem/alloc.h"
#include "mem/fault.h"
#include "mem/local.h"
#include "mem/pool_seat.h"
#include "mem/sizes.h"

static struct reeve_memory memory(void)
{
    struct reeve_memory m;
    reeve_memory_stats(&m);
    return m;
}

static void *alloc(size_t bytes)
{
    void *block = reeve_alloc(bytes);
    CHECK(block != NULL);
    return block;
}

TEST(a_size_is_the_smallest_that_holds_what_was_asked)
{
    CHECK_EQ(rv_size_bytes(0), 64);
    CHECK_EQ(rv_size_bytes(1), 96);
    CHECK_EQ(rv_size_bytes(2), 128);
    CHECK_EQ(rv_size_bytes(RV_SIZES - 1), RV_SIZES_MAX);
    for (size_t bytes = 0; bytes <= RV_SIZES_MAX; bytes++) {
        uint32_t class = rv_size_class(bytes);
        CHECK_LT(class, RV_SIZES);
        CHECK_GE(rv_size_bytes(class), bytes);
        CHECK(class == 0 || rv_size_bytes(class - 1) < bytes);
    }
}

TEST(a_block_is_all_of_what_was_asked)
{
    struct rv_local local = { 0 };
    for (int as_worker = 0; as_worker < 2; as_worker++) {
        rv_local_set(as_worker ? &local : NULL);
        for (size_t bytes = 0; bytes < 300000; bytes += bytes / 3 + 1) {
            unsigned char *a = alloc(bytes), *b = alloc(bytes);
            CHECK_EQ((uintptr_t)a % 16, 0);
            memset(a, 1, bytes);
            memset(b, 2, bytes);
            for (size_t i = 0; i < bytes; i++)
                CHECK(a[i] == 1 && b[i] == 2);
            reeve_free(a);
            reeve_free(b);
        }
    }
    reeve_free(NULL);
    CHECK_EQ(memory().live_bytes, 0);
    CHECK_EQ(memory().live_objects, 0);
}

TEST(blocks_are_aligned_as_asked)
{
    for (size_t align = 1; align <= (size_t)1 << 20; align *= 2)
        for (size_t bytes = 0; bytes < 200000; bytes = bytes * 4 + 1) {
            unsigned char *block = reeve_alloc_aligned(bytes, align);
            CHECK(block != NULL);
            CHECK_EQ((uintptr_t)block % align, 0);
            CHECK_EQ((uintptr_t)block % 16, 0);
            memset(block, 3, bytes);
            reeve_free(block);
        }
    CHECK_EQ(memory().live_bytes, 0);
}

/* mimalloc 2.0 gets some of these wrong. */
TEST(the_allocator_aligns_every_size)
{
    for (size_t align = 16; align <= (size_t)1 << 20; align *= 2)
        for (size_t bytes = 1; bytes < 300000; bytes += bytes < 1100 ? 1 : bytes / 5) {
            void *a = rv_alloc_aligned(bytes, align), *b = rv_alloc_aligned(bytes, align);
            CHECK(a != NULL && b != NULL);
            CHECK_EQ((uintptr_t)a % align, 0);
            CHECK_EQ((uintptr_t)b % align, 0);
            rv_free(a);
            rv_free(b);
        }
}

TEST(requests_that_make_no_sense_get_nothing)
{
    CHECK(reeve_alloc_aligned(64, 0) == NULL);
    CHECK(reeve_alloc_aligned(64, 48) == NULL);
    CHECK(reeve_alloc_aligned(64, (size_t)1 << 21) == NULL);
    CHECK(reeve_alloc_aligned(SIZE_MAX, 64) == NULL);
    CHECK(reeve_alloc_aligned(SIZE_MAX - 100, 1) == NULL);
    CHECK(reeve_alloc(SIZE_MAX) == NULL);
    CHECK(reeve_alloc(SIZE_MAX / 2) == NULL);
    CHECK_EQ(memory().allocations, 0);
}

TEST(the_books_say_what_is_live_idle_and_was)
{
    struct rv_local local = { 0 };
    rv_local_set(&local);
    void *small = alloc(1000), *same = alloc(1024), *large = alloc(100000);
    void *aligned = reeve_alloc_aligned(100, 4096);
    struct reeve_memory m = memory();
    CHECK_EQ(m.live_bytes, 1024 + 1024 + 100000 + 100);
    CHECK_EQ(m.live_objects, 4);
    CHECK_EQ(m.allocations, 4);
    CHECK_EQ(m.frees, 0);
    CHECK_EQ(m.idle_bytes, 0);
    CHECK_GE(m.peak_bytes, m.live_bytes);
    CHECK_LT(m.peak_bytes, m.live_bytes + 10000);
    uint64_t peak = m.peak_bytes;
    reeve_free(small);
    reeve_free(same);
    reeve_free(large);
    reeve_free(aligned);
    m = memory();
    CHECK_EQ(m.live_bytes, 0);
    CHECK_EQ(m.live_objects, 0);
    CHECK_EQ(m.idle_bytes, 2048);
    CHECK_EQ(m.frees, 4);
    CHECK_EQ(m.peak_bytes, peak);
}

TEST(each_size_is_a_pool_in_the_list)
{
    struct reeve_memory_pool pools[4];
    CHECK_EQ(reeve_memory_pools(pools, 4), 0);
    void *a = alloc(65), *b = alloc(4000);
    memset(pools, 0xff, sizeof pools);
    CHECK_EQ(reeve_memory_pools(pools, 1), 2);
    CHECK_EQ(reeve_memory_pools(NULL, 0), 2);
    CHECK_EQ(pools[1].bytes, SIZE_MAX);
    CHECK_EQ(reeve_memory_pools(pools, 4), 2);
    CHECK_STR_EQ(pools[0].name, "alloc 4096");
    CHECK_EQ(pools[0].bytes, 4096);
    CHECK_EQ(pools[0].live, 1);
    CHECK_EQ(pools[0].misses, 1);
    CHECK_STR_EQ(pools[1].name, "alloc 96");
    reeve_free(a);
    reeve_free(b);
}

TEST(in_steady_state_nothing_is_allocated)
{
    struct rv_local local = { 0 };
    void *blocks[30];
    struct reeve_memory_pool pool;
    rv_local_set(&local);
    for (int round = 0; round < 1000; round++) {
        for (int i = 0; i < 30; i++)
            blocks[i] = alloc(2000);
        for (int i = 0; i < 30; i++)
            reeve_free(blocks[i]);
    }
    CHECK_EQ(reeve_memory_pools(&pool, 1), 1);
    CHECK_EQ(pool.misses, 30);
    CHECK_EQ(pool.hits, 30000 - 30);
}

/* ---- threads, at random ---------------------------------------------------------------------- */

#if defined(RV_TSAN)
enum { ROUNDS = 5000 };
#else
enum { ROUNDS = 20000 };
#endif
enum { THREADS = 3, SHELF = 64 };

static RV_ATOMIC(uintptr_t) shelf[SHELF];

struct block {
    uint64_t bytes, tag;
    unsigned char rest[];
};

/* Takes a block of a random size, puts it on the shelf, and frees the one that was there, which
 * another thread may have put there. */
static void *swap_blocks(void *arg)
{
    struct rv_local local = { 0 };
    uint64_t seed = (uint64_t)(uintptr_t)arg;
    if (seed > 1)
        rv_local_set(&local);
    for (int i = 0; i < ROUNDS; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        size_t bytes = sizeof(struct block) + (seed >> 33) % ((uint64_t)16 << (seed >> 60));
        struct block *b = seed >> 63 ? reeve_alloc_aligned(bytes, 64) : reeve_alloc(bytes);
        CHECK(b != NULL);
        b->bytes = bytes;
        b->tag = ~seed;
        memset(b->rest, (int)bytes, bytes - sizeof *b);
        b->tag = seed;
        b = (struct block *)rv_xchg_acq_rel(&shelf[(seed >> 20) % SHELF], (uintptr_t)b);
        if (b == NULL)
            continue;
        for (size_t at = 0; at < b->bytes - sizeof *b; at += 61)
            CHECK_EQ(b->rest[at], (unsigned char)b->bytes);
        reeve_free(b);
    }
    rv_local_set(NULL);
    rv_seat_leave(&local);
    return NULL;
}

static void swap_in_threads(void)
{
    pthread_t thread[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&thread[i], NULL, swap_blocks, (void *)(i + 1)), 0);
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_join(thread[i], NULL), 0);
    for (int i = 0; i < SHELF; i++)
        reeve_free((void *)rv_load_acquire(&shelf[i]));
    struct reeve_memory m = memory();
    CHECK_EQ(m.live_bytes, 0);
    CHECK_EQ(m.live_objects, 0);
    CHECK_EQ(m.allocations, THREADS * ROUNDS);
    CHECK_EQ(m.frees, THREADS * ROUNDS);
}

TEST(blocks_that_others_free_are_never_shared)
{
    swap_in_threads();
}

TEST(blocks_of_an_arena_that_others_free_are_never_shared)
{
    CHECK_OK(reeve_memory_setup(&(struct reeve_memory_opts){ .arena_bytes = 8 << 20,
                                                             .idle_bytes = 10000 }));
    swap_in_threads();
    reeve_memory_trim(0);
    CHECK_EQ(memory().arena_used_bytes, 0);
}

/* ---- an arena, bounds, trimming -------------------------------------------------------------- */

static void set_up(const struct reeve_memory_opts *opts)
{
    CHECK_OK(reeve_memory_setup(opts));
}

TEST(it_is_set_up_once_and_before_the_first_block)
{
    static const struct reeve_memory_opts good = { .arena_bytes = 1 };
    CHECK_EQ(reeve_memory_setup(NULL), -EINVAL);
    CHECK_EQ(reeve_memory_setup(&(struct reeve_memory_opts){ .prefault = true }), -EINVAL);
    CHECK_EQ(reeve_memory_setup(&(struct reeve_memory_opts){ .huge_pages = true }), -EINVAL);
    CHECK_EQ(reeve_memory_setup(&(struct reeve_memory_opts){ .arena_bytes = SIZE_MAX }), -EINVAL);
    CHECK_EQ(memory().arena_bytes, 0);
    set_up(&good);
    CHECK_EQ(memory().arena_bytes, 2 << 20);
    CHECK_EQ(reeve_memory_setup(&good), -EBUSY);
}

TEST(it_is_too_late_to_set_up_when_there_are_blocks)
{
    static const size_t bytes[] = { 10, 100000 };
    for (int i = 0; i < 2; i++) {
        pid_t child = fork();
        CHECK_OK(child);
        if (child == 0) {
            reeve_free(alloc(bytes[i]));
            CHECK_EQ(reeve_memory_setup(&(struct reeve_memory_opts){ .idle_bytes = 1 }), -EBUSY);
            _exit(42);
        }
        int status;
        CHECK_OK(waitpid(child, &status, 0));
        CHECK_EQ(status, 42 << 8);
    }
}

TEST(setting_up_survives_every_failing_allocation)
{
    if (!rv_fault_available())
        SKIP("built without RV_FAULTS");
    int r = -ENOMEM;
    for (uint64_t n = 1; r < 0; n++) {
        rv_fault_fail_nth(n);
        r = reeve_memory_setup(&(struct reeve_memory_opts){ .arena_bytes = 1, .prefault = true });
        CHECK(r == 0 || (r == -ENOMEM && rv_fault_last_name() != NULL));
        rv_fault_off();
        CHECK(r == 0 || memory().arena_bytes == 0);
    }
    reeve_free(alloc(100));
}

/* Takes blocks of that size until they have so many bytes; linked. */
static void *take_bytes(size_t bytes, size_t each)
{
    void *first = NULL;
    for (size_t taken = 0; taken < bytes; taken += each) {
        void **block = alloc(each);
        *block = first;
        first = block;
    }
    return first;
}

static void free_all(void *first)
{
    while (first != NULL) {
        void *next = *(void **)first;
        reeve_free(first);
        first = next;
    }
}

TEST(blocks_are_from_the_arena_until_it_is_full)
{
    static const size_t sizes[] = { 64, 1000, 4096, 65536 };
    struct rv_local local = { 0 };
    set_up(&(struct reeve_memory_opts){ .arena_bytes = 2 << 20, .prefault = true });
    rv_local_set(&local);
    for (int i = 0; i < 4; i++) {
        uint64_t requests = memory().heap_requests, misses = memory().arena_misses;
        void *some = take_bytes(128 << 10, sizes[i]);
        CHECK_LE(memory().heap_requests - requests, 3); /* a depot, a table, a magazine */
        CHECK_GE(memory().arena_used_bytes, 128 << 10);
        CHECK_EQ(memory().arena_misses, misses);
        void *much = take_bytes(3 << 20, sizes[i]);
        CHECK_GT(memory().arena_misses, misses);
        CHECK_LE(memory().arena_used_bytes, 2 << 20);
        CHECK_EQ(memory().live_bytes, 0 + memory().live_objects * rv_size_bytes(
                                              rv_size_class(sizes[i])));
        free_all(much);
        free_all(some);
        reeve_memory_trim(0);
        CHECK_EQ(memory().arena_used_bytes, 0);
        CHECK_EQ(memory().idle_bytes, 0);
        CHECK_EQ(memory().live_bytes, 0);
    }
    rv_local_set(NULL);
}

TEST(no_more_than_bytes_max_is_ever_had)
{
    enum { MAX = 1 << 20, MOST = 30000 };
    static void *blocks[MOST];
    struct rv_local local = { 0 };
    set_up(&(struct reeve_memory_opts){ .arena_bytes = 4 << 20, .bytes_max = MAX });
    rv_local_set(&local);
    for (size_t each = 40; each < 400000; each = each * 5 / 2) {
        int n = 0;
        while (n < MOST && (blocks[n] = reeve_alloc(each)) != NULL)
            n++;
        struct reeve_memory m = memory();
        CHECK_LT(n, MOST);
        CHECK_LE(m.live_bytes + m.idle_bytes, MAX);
        CHECK_LE(m.peak_bytes, MAX);
        CHECK_EQ(m.live_objects, n); /* what lay idle of the size before has made room */
        CHECK_GE(m.live_bytes * 3 / 2 + 2 * each, MAX / 2);
        CHECK(reeve_alloc(MAX) == NULL);
        CHECK(reeve_alloc_aligned(64, MAX / 2) == NULL);
        reeve_free(blocks[--n]);
        CHECK((blocks[n] = reeve_alloc(each)) != NULL);
        while (n >= 0)
            reeve_free(blocks[n--]);
        CHECK_EQ(memory().live_bytes, 0);
    }
    CHECK_EQ(memory().live_objects, 0);
    reeve_memory_trim(0);
    void *large = alloc(MAX - 1000);
    CHECK(reeve_alloc(2000) == NULL);
    reeve_free(large);
    reeve_free(alloc(2000));
    rv_local_set(NULL);
}

TEST(so_much_lies_idle_of_each_size_as_asked)
{
    struct rv_local local = { 0 };
    set_up(&(struct reeve_memory_opts){ .idle_bytes = 100000 });
    for (int as_worker = 0; as_worker < 2; as_worker++) {
        rv_local_set(as_worker ? &local : NULL);
        reeve_memory_trim(0);
        free_all(take_bytes(1 << 20, 64));
        CHECK_LE(memory().idle_bytes, 100000);
        CHECK_GE(memory().idle_bytes, 50000);
        free_all(take_bytes(1 << 20, 65536));
        CHECK_LE(memory().idle_bytes, 100000 + 2 * 65536); /* two blocks at least */
        CHECK_GE(memory().idle_bytes, 50000 + 65536);
    }
    rv_local_set(NULL);
}

TEST(trimming_frees_the_largest_first_and_leaves_as_much_as_asked)
{
    struct rv_local local = { 0 };
    CHECK_EQ(reeve_memory_trim(0), 0);
    free_all(take_bytes(40 * 64, 64));
    free_all(take_bytes(40 * 1024, 1024));
    free_all(take_bytes(10 * 65536, 65536));
    uint64_t idle = memory().idle_bytes;
    CHECK_EQ(idle, 40 * 64 + 40 * 1024 + 10 * 65536);
    CHECK_EQ(reeve_memory_trim(idle), 0);
    CHECK_EQ(reeve_memory_trim(idle - 1), 65536);
    CHECK_EQ(memory().idle_bytes, idle - 65536);
    CHECK_EQ(reeve_memory_trim(41 * 1024), 9 * 65536 + 2 * 1024);
    CHECK_EQ(memory().idle_bytes, 40 * 64 + 38 * 1024);
    CHECK_EQ(reeve_memory_trim(0), 40 * 64 + 38 * 1024);
    CHECK_EQ(memory().idle_bytes, 0);
    rv_local_set(&local);   /* what is at hand is freed at once, if it is the caller's */
    free_all(take_bytes(10 * 1024, 1024));
    CHECK_EQ(memory().idle_bytes, 10 * 1024);
    CHECK_EQ(reeve_memory_trim(0), 10 * 1024);
    rv_local_set(NULL);
}

/* ---- no memory, and misuse ------------------------------------------------------------------- */

TEST(without_memory_there_is_no_block)
{
    static const size_t sizes[] = { 1, 5000, 100000 };
    if (!rv_fault_available())
        SKIP("built without RV_FAULTS");
    struct rv_local local = { 0 };
    rv_local_set(&local);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        bool failed = true;
        for (uint64_t n = 1; failed; n++) {
            rv_fault_fail_nth(n);
            void *block = reeve_alloc(sizes[i]);
            failed = rv_fault_last_name() != NULL;
            rv_fault_off();
            CHECK(failed || block != NULL);
            reeve_free(block);
        }
    }
    CHECK_EQ(memory().live_objects, 0);
}

TEST(freeing_twice_dies)
{
    void *block = alloc(100);
    reeve_free(block);
    CHECK_DIES("returned twice", reeve_free(block));
}

TEST(freeing_what_is_not_from_here_dies)
{
    _Alignas(16) unsigned char mine[128] = { 0 };
    CHECK_DIES("not from reeve_alloc", reeve_free(mine + 64));
    unsigned char *block = alloc(200);
    memset(block, 0, 200);
    CHECK_DIES("not from reeve_alloc", reeve_free(block + 64));
    reeve_free(block);
}
