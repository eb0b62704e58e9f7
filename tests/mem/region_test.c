/* SPDX-License-Identifier: MIT */
/*
 * region_test.c -- the arena: no byte is two blocks', spans go from one kind to another, what is
 * promised about pages holds, and blocks that are nobody's are guarded in builds that check.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <pthread.h>
#include <sys/mman.h>

#include "mem/alloc.h"
#include "mem/fault.h"
#include "mem/region.h"
#include "mem/stack.h"

#ifdef RV_ASAN
#include <sanitizer/asan_interface.h>
#endif

enum { KINDS = 4, STEP_SPANS = 4 };

static const size_t block_bytes[KINDS] = { 80, 1040, 16400, 65552 };
static struct rv_region region;

static void make(size_t bytes, bool prefault)
{
    CHECK_OK(rv_region_init(&region, &(struct rv_region_how){ .bytes = bytes,
                                                              .prefault = prefault,
                                                              .block_bytes = block_bytes,
                                                              .kinds = KINDS }));
}

static void *take(uint32_t kind)
{
    void *block = rv_region_take(&region, kind);
    CHECK(block != NULL);
    CHECK(rv_region_owns(&region, block));
    CHECK(rv_region_owns(&region, (char *)block + block_bytes[kind] - 1));
    CHECK_EQ((uintptr_t)block % 16, 0);
    return block;
}

/* All blocks of that kind that there are, linked; how many. */
static size_t take_all(uint32_t kind, void **ret_first)
{
    size_t n = 0;
    *ret_first = NULL;
    for (void **block; (block = rv_region_take(&region, kind)) != NULL; n++) {
        *block = *ret_first;
        *ret_first = block;
    }
    return n;
}

static void give_all(void *first)
{
    while (first != NULL) {
        void *next = *(void **)first;
        rv_region_give(&region, first);
        first = next;
    }
}

static size_t blocks_in(size_t spans, uint32_t kind)
{
    return spans * (RV_REGION_SPAN / block_bytes[kind]);
}

/* ---- what it promises ------------------------------------------------------------------------ */

TEST(what_makes_no_sense_is_refused)
{
    static const size_t odd[] = { 80, 100 }, little[] = { 8 }, much[] = { RV_REGION_SPAN + 16 };
    static const struct rv_region_how bad[] = {
        { .bytes = 0, .block_bytes = block_bytes, .kinds = KINDS },
        { .bytes = RV_REGION_MAX + 1, .block_bytes = block_bytes, .kinds = KINDS },
        { .bytes = 1, .block_bytes = block_bytes, .kinds = RV_REGION_KINDS + 1 },
        { .bytes = 1, .block_bytes = odd, .kinds = 2 },
        { .bytes = 1, .block_bytes = little, .kinds = 1 },
        { .bytes = 1, .block_bytes = much, .kinds = 1 },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_EQ(rv_region_init(&region, &bad[i]), -EINVAL);
    CHECK(region.base == NULL);
    CHECK(!rv_region_owns(&region, &region));
    CHECK(!rv_region_owns(&region, NULL));
    rv_region_finish(&region);
    CHECK_EQ(rv_region_cool(&region), 0);
    CHECK_EQ(rv_region_used(&region), 0);
}

TEST(it_is_as_large_as_asked_and_then_full)
{
    for (uint32_t kind = 0; kind < KINDS; kind++) {
        void *blocks;
        make(1, false);
        CHECK_EQ(region.bytes, RV_REGION_STEP);
        CHECK_EQ((uintptr_t)region.base % RV_REGION_STEP, 0);
        CHECK_EQ(take_all(kind, &blocks), blocks_in(STEP_SPANS, kind));
        CHECK_EQ(rv_region_used(&region), blocks_in(STEP_SPANS, kind) * block_bytes[kind]);
        CHECK_EQ(region.misses, 1);
        CHECK(rv_region_take(&region, (kind + 1) % KINDS) == NULL);
        CHECK_EQ(region.misses, 2);
        give_all(blocks);
        CHECK_EQ(rv_region_used(&region), 0);
        rv_region_finish(&region);
        CHECK(region.base == NULL);
    }
}

TEST(a_span_that_is_empty_again_is_any_kinds)
{
    make(RV_REGION_STEP, false);
    for (int round = 0; round < 3; round++)
        for (uint32_t kind = 0; kind < KINDS; kind++) {
            void *blocks;
            CHECK_EQ(take_all(kind, &blocks), blocks_in(STEP_SPANS, kind));
            give_all(blocks);
        }
    void *kept = take(0), *rest;
    CHECK_EQ(take_all(3, &rest), blocks_in(STEP_SPANS - 1, 3)); /* one span is not empty */
    CHECK_EQ(rv_region_used(&region), blocks_in(STEP_SPANS - 1, 3) * block_bytes[3] + 80);
    rv_region_give(&region, kept);
    void *one = take(3);
    rv_region_give(&region, one);
    give_all(rest);
    rv_region_finish(&region);
}

TEST(what_came_back_last_is_taken_next)
{
    make(RV_REGION_STEP, false);
    void *a = take(1), *b = take(1), *c = take(1);
    rv_region_give(&region, a);
    rv_region_give(&region, b);
    CHECK(take(1) == b);
    CHECK(take(1) == a);
    rv_region_give(&region, a);
    rv_region_give(&region, b);
    rv_region_give(&region, c);
    rv_region_finish(&region);
}

/* ---- at random, against what is known -------------------------------------------------------- */

enum { LIVE = 3000, STEPS = 60000 };

struct mine {
    unsigned char *at;
    uint32_t kind;
    unsigned char tag;
};

static uint64_t random_state = 88172645463325252u;

static unsigned random_below(unsigned n)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (unsigned)(random_state >> 33) % n;
}

static void check_mine(const struct mine *m)
{
    for (size_t i = 0; i < block_bytes[m->kind]; i += 13)
        CHECK_EQ(m->at[i], m->tag);
    CHECK_EQ(m->at[block_bytes[m->kind] - 1], m->tag);
}

TEST(no_byte_belongs_to_two_blocks)
{
    static struct mine mine[LIVE];
    uint64_t used = 0;
    unsigned n = 0, refused = 0;
    make(4 * RV_REGION_STEP, false);
    for (int step = 0; step < STEPS; step++) {
        bool more = random_below(LIVE) > n / 2 && n < LIVE;
        struct mine *m = &mine[more ? n : random_below(n)];
        if (!more) {
            check_mine(m);
            used -= block_bytes[m->kind];
            rv_region_give(&region, m->at);
            *m = mine[--n];
            continue;
        }
        uint32_t dice = random_below(100);
        *m = (struct mine){ .kind = dice < 70 ? 0 : dice < 93 ? 1 : dice < 99 ? 2 : 3,
                            .tag = (unsigned char)step };
        m->at = rv_region_take(&region, m->kind);
        if (m->at == NULL) {
            refused++;
            continue;
        }
        memset(m->at, m->tag, block_bytes[m->kind]);
        used += block_bytes[m->kind];
        n++;
        CHECK_EQ(rv_region_used(&region), used);
    }
    CHECK_GT(refused, 0);
    for (; n > 0; n--) {
        check_mine(&mine[n - 1]);
        rv_region_give(&region, mine[n - 1].at);
    }
    CHECK_EQ(rv_region_used(&region), 0);
    CHECK_EQ(region.misses, refused);
    rv_region_finish(&region);
}

/* ---- threads --------------------------------------------------------------------------------- */

enum { THREADS = 3, ROUNDS = 20000, SHELF = 64 };

static RV_ATOMIC(uintptr_t) shelf[SHELF];

/* Takes a block, signs it, puts it on the shelf, and gives back the one that was there. */
static void *swap_blocks(void *arg)
{
    uint64_t seed = (uint64_t)(uintptr_t)arg;
    for (int i = 0; i < ROUNDS; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        uint32_t kind = (uint32_t)(seed >> 40) % KINDS;
        uint64_t *block = rv_region_take(&region, kind);
        if (block != NULL) {
            block[0] = kind;
            block[1] = seed;
            block[block_bytes[kind] / 8 - 1] = seed;
        }
        block = (uint64_t *)rv_xchg_acq_rel(&shelf[(seed >> 20) % SHELF], (uintptr_t)block);
        if (block == NULL)
            continue;
        CHECK_LT(block[0], KINDS);
        CHECK_EQ(block[1], block[block_bytes[block[0]] / 8 - 1]);
        rv_region_give(&region, block);
    }
    return NULL;
}

TEST(blocks_that_others_give_back_are_never_shared)
{
    pthread_t thread[THREADS];
    make(RV_REGION_STEP, false);    /* little, so that spans change hands */
    for (uintptr_t i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&thread[i], NULL, swap_blocks, (void *)(i + 1)), 0);
    for (int i = 0; i < 100; i++)
        rv_region_cool(&region);
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_join(thread[i], NULL), 0);
    for (int i = 0; i < SHELF; i++)
        if (rv_load_acquire(&shelf[i]) != 0)
            rv_region_give(&region, (void *)rv_load_acquire(&shelf[i]));
    CHECK_EQ(rv_region_used(&region), 0);
    for (uint32_t kind = 0; kind < KINDS; kind++) {
        void *blocks;   /* and nothing was lost */
        CHECK_EQ(take_all(kind, &blocks), blocks_in(STEP_SPANS, kind));
        give_all(blocks);
    }
    rv_region_finish(&region);
}

/* ---- pages ----------------------------------------------------------------------------------- */

static size_t pages_resident(void)
{
    static unsigned char in[(4 * RV_REGION_STEP) / 4096];
    size_t n = 0, pages = region.bytes / rv_page_bytes();
    CHECK_LE(pages, sizeof in);
    CHECK_EQ(mincore(region.base, region.bytes, in), 0);
    for (size_t i = 0; i < pages; i++)
        n += in[i] & 1;
    return n;
}

TEST(a_prefaulted_one_is_all_there_and_stays)
{
    void *blocks;
    make(RV_REGION_STEP, true);
    size_t pages = region.bytes / rv_page_bytes();
    CHECK_EQ(pages_resident(), pages);
    take_all(2, &blocks);
    give_all(blocks);
    CHECK_EQ(rv_region_cool(&region), 0);
    CHECK_EQ(pages_resident(), pages);
    rv_region_finish(&region);
}

TEST(another_costs_what_is_touched_and_gives_it_back)
{
    void *blocks;
    make(RV_REGION_STEP, false);
    CHECK_EQ(madvise(region.base, region.bytes, MADV_NOHUGEPAGE), 0);
    CHECK_EQ(pages_resident(), 0);
    take_all(0, &blocks);
    CHECK_GE(pages_resident(), region.bytes / rv_page_bytes() - STEP_SPANS);
    void *kept = blocks;
    give_all(*(void **)kept);
    CHECK_EQ(rv_region_cool(&region), (STEP_SPANS - 1) * RV_REGION_SPAN);
    CHECK_LE(pages_resident(), RV_REGION_SPAN / rv_page_bytes());
    CHECK_GE(pages_resident(), 1);
    rv_region_give(&region, kept);
    rv_region_cool(&region);
    CHECK_EQ(pages_resident(), 0);
    CHECK_EQ(take_all(3, &blocks), blocks_in(STEP_SPANS, 3));
    give_all(blocks);
    rv_region_finish(&region);
}

TEST(asking_for_huge_pages_harms_nobody)
{
    void *blocks;
    CHECK_OK(rv_region_init(&region, &(struct rv_region_how){ .bytes = 3 << 20,
                                                              .prefault = true,
                                                              .huge_pages = true,
                                                              .block_bytes = block_bytes,
                                                              .kinds = KINDS }));
    CHECK_EQ(region.bytes, 2 * RV_REGION_STEP);
    CHECK_EQ(pages_resident(), region.bytes / rv_page_bytes());
    CHECK_EQ(take_all(1, &blocks), blocks_in(2 * STEP_SPANS, 1));
    give_all(blocks);
    rv_region_finish(&region);
}

/* ---- fork, no memory, misuse ----------------------------------------------------------------- */

TEST(in_a_child_of_fork_nothing_is_taken_any_more)
{
    make(RV_REGION_STEP, false);
    uint64_t *mine = take(1);
    mine[0] = 77;
    rv_lock_acquire(&region.kind[1].lock);  /* as another thread may hold it just then */
    pid_t child = fork();
    CHECK_OK(child);
    if (child == 0) {
        CHECK_EQ(mine[0], 77);
        CHECK(rv_region_take(&region, 1) == NULL);
        rv_region_give(&region, mine);
        CHECK_EQ(rv_region_cool(&region), 0);
        CHECK_EQ(mine[0], 77);
        rv_region_finish(&region);
        _exit(42);
    }
    rv_lock_release(&region.kind[1].lock);
    int status;
    CHECK_OK(waitpid(child, &status, 0));
    CHECK(WIFEXITED(status));
    CHECK_EQ(WEXITSTATUS(status), 42);
    CHECK_EQ(mine[0], 77);
    rv_region_give(&region, mine);
    rv_region_finish(&region);
}

TEST(it_survives_every_failing_allocation)
{
    if (!rv_fault_available())
        SKIP("built without RV_FAULTS");
    uint64_t n = 1;
    for (bool failed = true; failed; n++) {
        void *block = NULL;
        rv_fault_fail_nth(n);
        int r = rv_region_init(&region, &(struct rv_region_how){ .bytes = 1,
                                                                 .prefault = true,
                                                                 .block_bytes = block_bytes,
                                                                 .kinds = KINDS });
        if (r == 0)
            block = rv_region_take(&region, 0);
        failed = rv_fault_last_name() != NULL;
        rv_fault_off();
        CHECK(failed || block != NULL);
        CHECK(r == 0 || r == -ENOMEM);
        CHECK((r == 0) == (region.base != NULL));
        if (block != NULL)
            rv_region_give(&region, block);
        rv_region_finish(&region);
    }
    CHECK_EQ(n - 1, 5); /* the mapping, the spans, the pages, a block, nothing */
}

TEST(giving_back_what_is_no_block_dies)
{
    make(RV_REGION_STEP, false);
    char *block = take(1);
    CHECK_DIES("does not hold", rv_region_give(&region, block + 16));
    rv_region_give(&region, block);
    rv_region_finish(&region);
}

TEST(what_is_nobodys_is_guarded_in_builds_that_check)
{
#if defined(RV_ASAN) || defined(RV_DEBUG)
    make(RV_REGION_STEP, false);
    volatile unsigned char *other = take(1), *block = take(1);
    rv_region_give(&region, (void *)(uintptr_t)block);
#if defined(RV_ASAN)
    CHECK(__asan_address_is_poisoned((void *)(uintptr_t)(block + 8)));
    CHECK(__asan_address_is_poisoned((void *)(uintptr_t)(block + 1039)));
    CHECK(__asan_address_is_poisoned((void *)(uintptr_t)(block + 1040)));  /* never out */
    CHECK(!__asan_address_is_poisoned((void *)(uintptr_t)(other + 1039)));
    CHECK(take(1) == (void *)(uintptr_t)block);
    CHECK(!__asan_address_is_poisoned((void *)(uintptr_t)(block + 8)));
    rv_region_give(&region, (void *)(uintptr_t)block);
#else
    CHECK_DIES("written to after it was freed", {
        region.forks++;     /* a child takes nothing otherwise */
        block[1039] ^= 1;
        take(1);
    });
#endif
    rv_region_give(&region, (void *)(uintptr_t)other);
    rv_region_finish(&region);
#else
    SKIP("built without RV_DEBUG");
#endif
}
