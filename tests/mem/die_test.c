/* SPDX-License-Identifier: MIT */
/*
 * die_test.c -- what is said before the process ends, and what is evaluated when.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include "mem/die.h"

TEST(the_last_words_are_one_sentence_with_the_name_before_it)
{
    CHECK_DIES("reeve: 7 of nine.\n", rv_die("%d of %s.", 7, "nine"));
}

TEST(an_endless_sentence_is_cut_and_still_ends_its_line)
{
    static char text[2000];
    memset(text, 'x', sizeof text - 1);
    CHECK_DIES("xxx\n", rv_die("%s", text));
}

TEST(a_broken_must_names_the_condition)
{
    volatile int two = 2;
    CHECK_DIES("die_test.c", RV_MUST(two == 3));
    CHECK_DIES("`two == 3` does not hold.", RV_MUST(two == 3));
}

TEST(a_must_that_holds_is_evaluated_once)
{
    int times = 0;
    RV_MUST(++times == 1);
    CHECK_EQ(times, 1);
}

TEST(an_assert_is_evaluated_in_debug_builds_only)
{
    int times = 0;
    RV_ASSERT(++times == 1);
#ifdef RV_DEBUG
    CHECK_EQ(times, 1);
    CHECK_DIES("`times == 2`", RV_ASSERT(times == 2));
#else
    CHECK_EQ(times, 0);
    RV_ASSERT(times == 2);
#endif
}
