/* SPDX-License-Identifier: MIT */
/*
 * cache_store_file_test.c -- checksums, and what is where in the file of a store.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include "runtime/cache_store_file.h"

TEST(a_sum_tells_every_change_of_a_byte_at_every_length)
{
    unsigned char bytes[200];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(i * 37);
    for (size_t len = 1; len <= sizeof bytes; len++) {
        uint64_t whole = rv_store_sum(5, bytes, len);
        CHECK(whole != rv_store_sum(6, bytes, len));
        CHECK(whole != rv_store_sum(5, bytes, len - 1));
        for (size_t i = 0; i < len; i++) {
            bytes[i] ^= (unsigned char)(1 << i % 8);
            CHECK(rv_store_sum(5, bytes, len) != whole);
            bytes[i] ^= (unsigned char)(1 << i % 8);
        }
        CHECK(rv_store_sum(5, bytes, len) == whole);
    }
    CHECK(rv_store_sum(5, "\0", 1) != rv_store_sum(5, "\0\0", 2)); /* nor does it skip zeroes */
    CHECK(rv_store_sum(5, NULL, 0) == rv_store_sum(5, "x", 0));
}

/* What a program finds on disk must be what another one wrote: the sum may not change. */
TEST(the_sum_is_that_of_version_1)
{
    unsigned char bytes[100];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)i;
    if (__BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__)
        SKIP("the figures are those of the other byte order");
    CHECK_EQ(rv_store_sum(0, NULL, 0), (int64_t)UINT64_C(0x8a3cf4470d20f1a9));
    CHECK_EQ(rv_store_sum(1, bytes, 7), (int64_t)UINT64_C(0xd668c1c5ccfa007a));
    CHECK_EQ(rv_store_sum(1, bytes, 100), (int64_t)UINT64_C(0x11b40ef40ad418d6));
}

TEST(a_slot_holds_at_its_own_place_only)
{
    struct rv_store_file f = { .shift = 12, .segments = 4, .seed = 99 }, other = f;
    struct rv_store_slot slot = { .entry = { .hash = 1, .at = 4096, .size = 50, .sum = 2 } };
    rv_store_slot_seal(&f, &slot, 3);
    CHECK(rv_store_slot_ok(&f, &slot, 3));
    CHECK(!rv_store_slot_ok(&f, &slot, 4));
    other.seed = 98;
    CHECK(!rv_store_slot_ok(&other, &slot, 3));
    for (size_t i = 0; i < sizeof slot; i++) {
        struct rv_store_slot changed = slot;
        ((unsigned char *)&changed)[i] ^= 0x10;
        CHECK(!rv_store_slot_ok(&f, &changed, 3));
    }
    memset(&slot, 0, sizeof slot);
    CHECK(!rv_store_slot_ok(&f, &slot, 0));
}

TEST(positions_go_round_the_ring)
{
    struct rv_store_file f = { .shift = 12, .segments = 5 };
    CHECK_EQ(rv_store_bytes(&f), 4096 + 5 * 4096);
    for (uint64_t seq = 1; seq < 20; seq++) {
        uint64_t at = (seq << 12) + 48;
        CHECK_EQ(rv_store_seq(&f, at | RV_STORE_CLEAR), seq);
        CHECK_EQ(rv_store_within(&f, at | RV_STORE_REMOVAL), 48);
        CHECK_EQ(rv_store_offset(&f, at | RV_STORE_REMOVAL), 4096 + seq % 5 * 4096 + 48);
        CHECK_EQ(rv_store_slot_offset(&f, seq, 0), 4096 + (seq % 5 + 1) * 4096 - 32);
    }
}
