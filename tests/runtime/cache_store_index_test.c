/* SPDX-License-Identifier: MIT */
/*
 * cache_store_index_test.c -- the index of a store against an array of all that should be in it.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include "mem/fault.h"
#include "runtime/cache_store_index.h"

enum { HASHES = 600, SEGMENTS = 4, SHIFT = 12 };

static struct rv_store_file file = { .segments = SEGMENTS, .shift = SHIFT };

static uint64_t next_random(void)
{
    static uint64_t state = 7;
    state = state * UINT64_C(6364136223846793005) + 1442695040888963407;
    return state >> 29;
}

/* So that many begin their search at the same few places, and some at the end of the array. */
static uint64_t hash_of(uint32_t i)
{
    return (uint64_t)i << 40 | (i % 3 == 0 ? 15 : i % 5);
}

static void set(struct rv_store_index *x, uint64_t hash, uint64_t at, uint64_t was)
{
    struct rv_store_entry old = { 0 }, entry = { .hash = hash, .at = at };
    CHECK_EQ(rv_store_index_reserve(x, hash), 0);
    CHECK_EQ(rv_store_index_set(x, &entry, &old), was != 0);
    CHECK_EQ(old.at, was);
}

static void check_all(struct rv_store_index *x, const uint64_t *model)
{
    for (uint32_t i = 0; i < HASHES; i++) {
        struct rv_store_entry e = { 0 };
        CHECK_EQ(rv_store_index_find(x, hash_of(i), &e), model[i] != 0);
        CHECK_EQ(e.at, model[i]);
    }
}

/* Sets, drops, and segments that are overwritten, which makes what was in them stale. */
TEST(the_index_finds_what_was_set_last_and_is_not_stale)
{
    struct rv_store_index x;
    uint64_t model[HASHES] = { 0 }, seq = 1, at = 0;
    CHECK_EQ(rv_store_index_init(&x, &file), 0);
    rv_store_release(&x.seqs[1], seq);
    for (uint32_t n = 0; n < 60000; n++) {
        uint32_t i = (uint32_t)(next_random() % HASHES);
        uint64_t dice = next_random() % 1000;
        struct rv_store_entry old = { 0 };
        if (dice < 700) {
            at = (seq << SHIFT) + (at + 8) % (1 << SHIFT);
            set(&x, hash_of(i), at, model[i]);
            model[i] = at;
        } else if (dice < 995) {
            CHECK_EQ(rv_store_index_drop(&x, hash_of(i), &old), model[i] != 0);
            CHECK_EQ(old.at, model[i]);
            model[i] = 0;
        } else {
            seq++;
            at = 0;
            rv_store_release(&x.seqs[seq % SEGMENTS], seq);
            for (uint32_t k = 0; k < HASHES; k++)
                if (model[k] >> SHIFT == seq - SEGMENTS)
                    model[k] = 0;
        }
        if (n % 64 == 0)
            check_all(&x, model);
    }
    rv_store_release(&x.floor, (seq + 1) << SHIFT); /* all of it */
    memset(model, 0, sizeof model);
    check_all(&x, model);
    rv_store_index_finish(&x);
    rv_store_index_finish(&x); /* {0} */
}

/* What is stale makes room: an index of few live entries stays small, however many went by. */
TEST(stale_entries_do_not_make_the_index_grow)
{
    struct rv_store_index x;
    CHECK_EQ(rv_store_index_init(&x, &file), 0);
    for (uint64_t seq = 1; seq < 3000; seq++) {
        rv_store_release(&x.seqs[seq % SEGMENTS], seq);
        for (uint64_t i = 0; i < 10; i++)
            set(&x, next_random() << 13 | i, (seq << SHIFT) + 8 * i, 0);
    }
    CHECK_LE(x.shards[0].cap, 256);
    rv_store_index_finish(&x);
}

TEST(an_index_without_memory_says_so_and_keeps_what_it_has)
{
    struct rv_store_index x;
    uint64_t set_upto = 0;
    if (!rv_fault_available())
        SKIP("built without fault points");
    for (uint64_t n = 1; n < 3; n++) {
        rv_fault_only("alloc");
        rv_fault_fail_nth(n);
        CHECK_EQ(rv_store_index_init(&x, &file), -ENOMEM);
        rv_fault_off();
    }
    CHECK_EQ(rv_store_index_init(&x, &file), 0);
    rv_store_release(&x.seqs[1], (uint64_t)1);
    for (uint64_t i = 1; i < 500; i++) {
        rv_fault_only("alloc");
        rv_fault_fail_nth(1);
        int r = rv_store_index_reserve(&x, i << 32);
        rv_fault_off();
        CHECK(r == 0 || r == -ENOMEM);
        set_upto += r == 0;
        if (r == 0)
            set(&x, i << 32, (1 << SHIFT) + 8 * i, 0);
        else
            CHECK_EQ(rv_store_index_reserve(&x, i << 32), 0);
        for (uint64_t k = 1; k < i; k += 7) {
            struct rv_store_entry e;
            bool found = rv_store_index_find(&x, k << 32, &e);
            CHECK(!found || e.at == (1 << SHIFT) + 8 * k);
        }
    }
    CHECK_GT(set_upto, 450);
    CHECK_LT(set_upto, 499);
    rv_store_index_finish(&x);
}
