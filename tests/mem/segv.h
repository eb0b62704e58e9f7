/* SPDX-License-Identifier: MIT */
/*
 * segv.h -- whether touching memory kills: asked in a child process, so that the asker lives.
 */
#ifndef TESTS_MEM_SEGV_H
#define TESTS_MEM_SEGV_H

#include "tests/check.h"

/* True: the act was ended by SIGSEGV. False: it came to its end. Anything else fails the test. */
static inline bool dies_by_segv(void (*act)(void *), void *arg)
{
    int status;
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        signal(SIGSEGV, SIG_DFL);
        act(arg);
        _exit(0);
    }
    CHECK_EQ(waitpid(child, &status, 0), child);
    if (WIFSIGNALED(status)) {
        CHECK_EQ(WTERMSIG(status), SIGSEGV);
        return true;
    }
    CHECK_EQ(WEXITSTATUS(status), 0);
    return false;
}

/* Pages of address space this process has; what was mapped and not unmapped shows here. */
static inline long pages_mapped(void)
{
    long pages = -1;
    FILE *f = fopen("/proc/self/statm", "r");
    CHECK(f != NULL);
    CHECK_EQ(fscanf(f, "%ld", &pages), 1);
    fclose(f);
    return pages;
}

#endif
