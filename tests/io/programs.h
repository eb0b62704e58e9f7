/* SPDX-License-Identifier: MIT */
/*
 * programs.h -- what the tests of programs share: short words for them, and proof that none is
 * left.
 */
#ifndef TESTS_IO_PROGRAMS_H
#define TESTS_IO_PROGRAMS_H

#include <dirent.h>
#include <reeve/proc.h>

#include "tests/io/pair.h"

#define ARGV(...) ((char *const[]){ __VA_ARGS__, NULL })
#define SH(script) ARGV("/bin/sh", "-c", script)

/* Not one child is left, dead or alive. */
static inline void check_no_children(void)
{
    CHECK_EQ(waitpid(-1, NULL, WNOHANG | __WALL), -1);
    CHECK_EQ(errno, ECHILD);
}

static inline int count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    CHECK(dir);
    int n = 0;
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

/* Runs a program that must do well, and returns what it said. */
static inline const char *said(const struct reeve_exec *exec)
{
    static char text[4096];
    struct reeve_io io = { .out = text, .out_max = sizeof text - 1 };
    CHECK_EQ(reeve_proc_run(exec, &io, LONG), 0);
    CHECK_EQ(io.status, 0);
    text[io.out_len] = '\0';
    return text;
}

/* Waits until nobody holds the other end of a pipe any more. */
static inline void await_last_writer(int fd)
{
    char byte;
    ssize_t n;
    while ((n = reeve_read(fd, &byte, 1, LONG)) > 0)
        continue;
    CHECK_EQ(n, 0);
}

/* Waits for a byte in a pipe. */
static inline void await_byte(int fd)
{
    char byte;
    CHECK_EQ(reeve_read(fd, &byte, 1, LONG), 1);
}

#endif
