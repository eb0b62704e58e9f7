/* SPDX-License-Identifier: MIT */
/*
 * die.c -- one sentence, then abort.
 *
 * (1) Nothing is allocated and no lock is taken: memory may be the thing that is broken.
 * (2) The sentence goes out in one write(2), so that threads dying together do not mix theirs.
 * Threads: any, on any stack with about 1 KiB left.
 */
#include "mem/die.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define SENTENCE_BYTES 512

_Noreturn void rv_die(const char *fmt, ...)
{
    char text[SENTENCE_BYTES] = "reeve: ";
    const size_t start = sizeof "reeve: " - 1, room = sizeof text - start - 1;
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text + start, room, fmt, args);
    va_end(args);
    size_t len = start + (n < 0 ? 0 : (size_t)n < room ? (size_t)n : room - 1);
    text[len++] = '\n';
    if (write(STDERR_FILENO, text, len) < 0)
        abort();                /* nobody reads it; there is nothing else to tell */
    abort();
}
