/* SPDX-License-Identifier: MIT */
/*
 * map_files.h -- what the tests of mapped files share: files of their own, that vanish with the
 * test, and a door at which the threads of the offload pool can be stopped.
 */
#ifndef TESTS_IO_MAP_FILES_H
#define TESTS_IO_MAP_FILES_H

#include <linux/futex.h>
#include <reeve/map.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "mem/alloc.h"
#include "sched/offload.h"
#include "sched/sched.h"
#include "tests/io/pair.h"


enum { PAGE = 4096, MIB = 1 << 20 };

/* ---- files ---- */

static char folder[64];
static pid_t folder_owner;

static inline void remove_folder(void)
{
    char command[128];
    if (getpid() != folder_owner)
        return;
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    if (system(command) != 0)
        perror(command);
}

/* A path in a folder of this test's own; good until the fourth call after this one. Not for several
 * threads at a time. */
static inline const char *path_of(const char *name)
{
    static char paths[4][128];
    static unsigned turn;
    if (folder[0] == '\0') {
        snprintf(folder, sizeof folder, "/tmp/reeve-map-XXXXXX");
        CHECK(mkdtemp(folder));
        folder_owner = getpid();
        atexit(remove_folder);
    }
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

/* The file has that many bytes of the pattern (pair.h), beginning at `at`. A plain descriptor. */
static inline int file_of(const char *path, size_t len, uint64_t at)
{
    static unsigned char block[65536];
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    CHECK_GE(fd, 0);
    for (size_t done = 0; done < len;) {
        size_t n = len - done < sizeof block ? len - done : sizeof block;
        fill_pattern(block, n, at + done);
        CHECK_EQ(write(fd, block, n), (ssize_t)n);
        done += n;
    }
    return fd;
}

static inline const char *file(const char *name, size_t len)
{
    const char *path = path_of(name);
    close(file_of(path, len, 0));
    return path;
}

static inline off_t size_of(const char *path)
{
    struct stat st;
    CHECK_EQ(stat(path, &st), 0);
    return st.st_size;
}

/* Drops the file from the page cache. False: this file system keeps it. */
static inline bool make_cold(int fd)
{
    unsigned char there = 1;
    struct stat st;
    CHECK_EQ(fsync(fd), 0);
    CHECK_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
    CHECK_EQ(fstat(fd, &st), 0);
    for (off_t at = 0; at < st.st_size; at += PAGE) {
        void *p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, at);
        CHECK(p != MAP_FAILED);
        CHECK_EQ(mincore(p, PAGE, &there), 0);
        munmap(p, PAGE);
        if (there & 1)
            return false;
    }
    return true;
}

static inline void check_map(const struct reeve_map *m, uint64_t at)
{
    check_pattern(m->data, m->len, at);
}

static inline uint64_t maps_live(void)
{
    struct reeve_map_stats st;
    reeve_map_stats(&st);
    return st.live;
}

/* Large maps are taken down by the pool, in its own time. */
static inline void await_no_maps(void)
{
    while (maps_live() > 0)
        CHECK_OK(reeve_sleep(0));
}

static inline unsigned fds_open(void)
{
    unsigned n = 0;
    for (int fd = 0; fd < 1024; fd++)
        n += is_open(fd);
    return n;
}

/* ---- the pool ---- */

static inline struct rv_offload_stats pool(void)
{
    struct rv_offload_stats st;
    rv_offload_stats(rv_worker_self()->sched->offload, &st);
    return st;
}

static inline void await_pool(uint64_t run, uint64_t queued)
{
    while (pool().run != run || pool().queued != queued)
        CHECK_OK(reeve_sleep(0));
}

/* Where a thread of the pool stops. {0} is closed. */
struct door {
    RV_ATOMIC(uint32_t) open;
};

static inline int stop_at(void *arg)
{
    struct door *d = arg;
    while (rv_load_acquire(&d->open) == 0) /* pairs with open_door() */
        syscall(SYS_futex, &d->open, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
    return 0;
}

static inline void open_door(struct door *d)
{
    rv_store_release(&d->open, 1u);
    syscall(SYS_futex, &d->open, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

/* A task that keeps a thread of the pool at a door. */
static inline int wait_at(void *arg)
{
    return reeve_offload(stop_at, arg, 0);
}

#endif
