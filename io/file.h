/* SPDX-License-Identifier: MIT */
/*
 * file.h -- what the calls of <reeve/file.h> share.
 */
#ifndef RV_IO_FILE_H
#define RV_IO_FILE_H

#include <reeve/file.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io/io.h"
#include "io/req.h"
#include "sched/wait.h"

/* All of the pieces, at off; n is any number. Reads are short at the end of the file only. Bytes or
 * -errno, as the public calls say. In a task, in reeve code; the worker may have changed. */
ssize_t rv_file_transfer(bool write, int fd, const struct iovec *pieces, size_t n, uint64_t off,
                         int64_t until);

/* fdatasync, or fsync. */
int rv_file_sync(int fd, bool data_only, int64_t until);

/* Opens, and enters the number in the fd table. The fd, or -errno. */
int rv_file_open(const struct reeve_open *how, int64_t until);

int rv_file_truncate(int fd, uint64_t len, int64_t until);
int rv_file_stat(int fd, struct statx *ret, int64_t until);

/* Cleanup that must be waited for: from begin to end neither deadline nor cancellation ends a wait
 * of the running task. */
static inline bool rv_masked_begin(void)
{
    struct rv_task *t = rv_worker_self()->cur;
    bool was = rv_load_relaxed(&t->ctl) & RV_CTL_MASKED;
    if (!was)
        rv_wait_mask(t, true);
    return was;
}
static inline void rv_masked_end(bool was)
{
    if (!was)
        rv_wait_mask(rv_worker_self()->cur, false);
}

#endif
