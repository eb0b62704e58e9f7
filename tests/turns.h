/* SPDX-License-Identifier: MIT */
/*
 * turns.h -- for tests in which other tasks of the same worker must have had their turn.
 *
 * One yield is not enough: where it ends the worker's pass, who yielded may be picked again before
 * a task that was spawned just now. Rings and deques are served in turn, so after a few yields each
 * task that was ready has run until it waited. Where a worker has many tasks, and on several
 * workers, a test waits for a sign of life instead.
 */
#ifndef TESTS_TURNS_H
#define TESTS_TURNS_H

#include <reeve/time.h>

#include "tests/check.h"

enum { TURNS = 8 };

static inline void give_turns(void)
{
    for (int i = 0; i < TURNS; i++)
        CHECK_EQ(reeve_sleep(0), 0);
}

#endif
