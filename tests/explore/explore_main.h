/* SPDX-License-Identifier: MIT */
/*
 * explore_main.h -- what a test of the explorer includes instead of check.h: its main() knows two
 * more arguments.
 *
 *     x_test NAME --no-fork --replay LIST    makes the one execution LIST and prints its accesses
 *     x_test [NAME ...] --random SEED        makes random executions instead of all
 *
 * LIST is what a failure printed: STEP:THREAD, a switch to that thread at that step; STEP:tTHREAD,
 * its time comes; STEP:dTHREAD, a store of it becomes visible; STEP:vN, explore_choose() gives N;
 * +K, so many stores stay in the buffer of the thread that is left.
 */
#ifndef TESTS_EXPLORE_EXPLORE_MAIN_H
#define TESTS_EXPLORE_EXPLORE_MAIN_H

#define CHECK_MAIN
#define main check_main
#include "tests/check.h"
#undef main

#include "tests/explore/explore.h"

int main(int argc, char **argv)
{
    int n = 1;
    for (int i = 1; i < argc; i++) {
        const char **value = strcmp(argv[i], "--replay") == 0   ? &explore_replay
                             : strcmp(argv[i], "--random") == 0 ? &explore_random
                                                                : NULL;
        if (value && i + 1 < argc)
            *value = argv[++i];
        else
            argv[n++] = argv[i];
    }
    argv[n] = NULL;
    return check_main(n, argv);
}

#endif
