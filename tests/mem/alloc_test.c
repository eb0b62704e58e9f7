/* SPDX-License-Identifier: MIT */
/*
 * alloc_test.c -- the doors to memory: what they promise, and that each can be made to refuse.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <pthread.h>
#include <sys/mman.h>

#include "mem/alloc.h"
#include "mem/fault.h"
#include "tests/mem/segv.h"

TEST(blocks_are_aligned_as_asked)
{
    for (size_t align = 1; align <= 65536; align *= 2) {
        unsigned char *block = rv_alloc_aligned(100, align);
        CHECK(block != NULL);
        CHECK_EQ((uintptr_t)block % align, 0);
        memset(block, 0xa5, 100);
        rv_free(block);
    }
}

TEST(zeroed_blocks_are_zero_even_where_dirty_ones_were_freed)
{
    static const unsigned char zero[4096];
    for (int i = 0; i < 100; i++) {
        void *dirty = rv_alloc(sizeof zero);
        CHECK(dirty != NULL);
        memset(dirty, 0xff, sizeof zero);
        rv_free(dirty);
        void *clean = rv_alloc_zero(sizeof zero);
        CHECK(clean != NULL);
        CHECK_MEM_EQ(clean, zero, sizeof zero);
        rv_free(clean);
    }
}

TEST(a_block_of_nothing_is_a_block)
{
    void *a = rv_alloc(0), *b = rv_alloc_zero(0), *c = rv_alloc_aligned(0, 64);
    CHECK(a != NULL && b != NULL && c != NULL);
    rv_free(a);
    rv_free(b);
    rv_free(c);
    rv_free(NULL);
}

static void *free_it(void *block)
{
    rv_free(block);
    return NULL;
}

TEST(any_thread_may_free)
{
    pthread_t thread;
    void *block = rv_alloc(1000);
    CHECK(block != NULL);
    CHECK_EQ(pthread_create(&thread, NULL, free_it, block), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
}

TEST(bytes_are_rounded_up_to_pages)
{
    size_t page = rv_page_bytes();
    CHECK_EQ(page & (page - 1), 0);
    CHECK_EQ(rv_page_round(0), 0);
    CHECK_EQ(rv_page_round(1), page);
    CHECK_EQ(rv_page_round(page), page);
    CHECK_EQ(rv_page_round(page + 1), 2 * page);
}

static size_t pages_resident(unsigned char *start, size_t bytes)
{
    size_t n = 0, pages = bytes / rv_page_bytes();
    unsigned char *in = malloc(pages);
    CHECK(in != NULL);
    CHECK_EQ(mincore(start, bytes, in), 0);
    for (size_t i = 0; i < pages; i++)
        n += in[i] & 1;
    free(in);
    return n;
}

TEST(a_lazy_mapping_is_zero_and_costs_what_is_touched)
{
    const size_t bytes = (size_t)64 << 20;
    unsigned char *p = rv_map_lazy(bytes);
    CHECK(p != NULL);
    CHECK_EQ(madvise(p, bytes, MADV_NOHUGEPAGE), 0);
    CHECK_EQ(pages_resident(p, bytes), 0);
    CHECK_EQ(p[bytes / 2], 0);
    p[0] = p[bytes - 1] = 1;
    CHECK_EQ(pages_resident(p, bytes), 3);
    rv_unmap(p, bytes);
}

static void poke(void *p)
{
    *(volatile unsigned char *)p = 1;
}

TEST(a_reservation_is_out_of_reach_until_committed)
{
    const size_t page = rv_page_bytes(), bytes = (size_t)1 << 30;
    unsigned char *p = rv_map_reserve(bytes);
    CHECK(p != NULL);
    CHECK(dies_by_segv(poke, p));
    CHECK_EQ(rv_map_commit(p, 4 * page), 0);
    CHECK(!dies_by_segv(poke, p));
    CHECK(dies_by_segv(poke, p + 4 * page));
    CHECK_EQ(p[4 * page - 1], 0);
    rv_unmap(p, bytes);
    CHECK_EQ(mincore(p, page, &(unsigned char){0}), -1);
}

TEST(unmapping_nothing_is_fine)
{
    long before = pages_mapped();
    rv_unmap(NULL, 4096);
    CHECK_EQ(pages_mapped(), before);
}

TEST(each_door_can_be_made_to_refuse)
{
    if (!rv_fault_available())
        SKIP("built without RV_FAULTS");
    void *page = rv_map_reserve(1);
    CHECK(page != NULL);
    rv_fault_fail_nth(1);
    CHECK(rv_alloc(1) == NULL);
    rv_fault_fail_nth(1);
    CHECK(rv_alloc_zero(1) == NULL);
    rv_fault_fail_nth(1);
    CHECK(rv_alloc_aligned(1, 64) == NULL);
    CHECK_STR_EQ(rv_fault_last_name(), "alloc");
    rv_fault_fail_nth(1);
    CHECK(rv_map_lazy(1) == NULL);
    CHECK_STR_EQ(rv_fault_last_name(), "map.lazy");
    rv_fault_fail_nth(1);
    CHECK(rv_map_reserve(1) == NULL);
    CHECK_STR_EQ(rv_fault_last_name(), "map.reserve");
    rv_fault_fail_nth(1);
    CHECK_EQ(rv_map_commit(page, 1), -ENOMEM);
    CHECK_STR_EQ(rv_fault_last_name(), "map.commit");
    rv_unmap(page, 1);
}
