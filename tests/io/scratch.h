/* SPDX-License-Identifier: MIT */
/*
 * scratch.h -- a folder of a test's own, gone when the test ends, and what tests of files ask
 * first.
 */
#ifndef TESTS_IO_SCRATCH_H
#define TESTS_IO_SCRATCH_H

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "tests/check.h"

static char scratch_root[256];
static pid_t scratch_owner;

static inline int scratch_remove_one(const char *path, const struct stat *st, int type,
                                     struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

static inline void scratch_remove(void)
{
    if (getpid() == scratch_owner)
        nftw(scratch_root, scratch_remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* The path of a file in there, in one of eight buffers that are used in turns. One that holds this
 * path already is not written again: the kernel may be reading it, for a request of before. */
static inline const char *scratch(const char *name)
{
    static char paths[8][512];
    static unsigned turn;
    char now[512];
    if (!scratch_owner) {
        const char *tmp = getenv("TMPDIR");
        snprintf(scratch_root, sizeof scratch_root, "%s/reeve-test-XXXXXX", tmp ? tmp : "/tmp");
        CHECK(mkdtemp(scratch_root));
        scratch_owner = getpid();
        atexit(scratch_remove);
    }
    snprintf(now, sizeof now, "%s/%s", scratch_root, name);
    for (int i = 0; i < 8; i++)
        if (strcmp(paths[i], now) == 0)
            return paths[i];
    char *path = paths[turn++ % 8];
    memcpy(path, now, strlen(now) + 1);
    return path;
}

/* Makes a file that holds these bytes. */
static inline void scratch_file(const char *path, const void *data, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK_GE(fd, 0);
    CHECK_EQ(write(fd, data, len), (ssize_t)len);
    close(fd);
}

/* How many descriptors this process has open. */
static inline int fds_open(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = 0;
    CHECK(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n - 3; /* "." and ".." and the directory itself */
}

#endif
