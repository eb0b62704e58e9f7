/* SPDX-License-Identifier: MIT */
/*
 * file.c -- files and their names: one request to the ring for each call.
 *
 * Nothing here waits in a system call of its own. What a file system cannot do without waiting the
 * kernel gives to threads of its own; a request that is queued there can be cancelled, one that has
 * begun is waited for.
 *
 * (1) A descriptor that was opened is entered in the fd table before anybody else learns its
 *     number: what the slot holds of a socket that had the number, and was closed behind our back,
 *     would else be read as this file's.
 * (2) A cancelled open that succeeded all the same is a success: the caller gets its fd.
 * (3) The ring tries an open as if O_NONBLOCK were asked for, and gives it to a thread only if the
 *     name is not cached: so a named pipe would wait for its other end now and then. Where that may
 *     be, the try is left out.
 *
 * Threads: tasks.
 */
#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>

#include "io/fdtab.h"
#include "io/uring_compat.h"

#define ADVISE_MAX (UINT32_C(1) << 30) /* older rings have 32 bits for a length */

/* The frame of a call that is one request. */
static int call(const char *name, const struct rv_req *q, reeve_time until)
{
    uint32_t was;
    struct rv_io_worker *iw = rv_io_enter(name, &was);
    int r = rv_req_run(iw, q, until);
    rv_io_exit(was);
    return r;
}

/* ---- opening --------------------------------------------------------------------------------- */

/* See (3): what is no named pipe, or does not wait as one, is tried at once. */
static uint8_t sqe_flags(int flags)
{
    bool at_once = (flags & O_ACCMODE) == O_RDWR || flags & (O_NONBLOCK | O_PATH | O_DIRECTORY) ||
                   (flags & O_CREAT && flags & O_EXCL);
    return at_once ? 0 : IOSQE_ASYNC;
}

static int opened(int fd)
{
    if (fd >= 0)
        rv_fd_file_made(rv_io_self(), fd); /* (1) */
    return fd;
}

int reeve_open(const char *path, int flags, mode_t mode, reeve_time until)
{
    uint32_t was;
    struct rv_io_worker *iw = rv_io_enter("reeve_open", &was);
    struct rv_req q = { .opcode = IORING_OP_OPENAT,
                        .sqe_flags = sqe_flags(flags),
                        .fd = AT_FDCWD,
                        .addr = rv_req_ptr(path),
                        .len = (uint32_t)mode,
                        .op_flags = (uint32_t)(flags | O_CLOEXEC) };
    int fd = opened(rv_req_run(iw, &q, until));
    rv_io_exit(was);
    return fd;
}

int rv_file_open(const struct reeve_open *how, int64_t until)
{
    struct open_how words = { .flags = (uint32_t)(how->flags | O_CLOEXEC),
                              .mode = how->mode,
                              .resolve = how->resolve };
    struct rv_req q = { .opcode = IORING_OP_OPENAT2,
                        .sqe_flags = sqe_flags(how->flags),
                        .fd = how->dir ? how->dir : AT_FDCWD,
                        .addr = rv_req_ptr(how->path),
                        .off = rv_req_ptr(&words),
                        .len = sizeof words };
    return opened(rv_req_run(rv_io_self(), &q, until));
}

int reeve_open_with(const struct reeve_open *how, reeve_time until)
{
    uint32_t was;
    rv_io_enter("reeve_open_with", &was);
    int fd = rv_file_open(how, until);
    rv_io_exit(was);
    return fd;
}

/* ---- open files ------------------------------------------------------------------------------ */

int rv_file_sync(int fd, bool data_only, int64_t until)
{
    struct rv_req q = { .opcode = IORING_OP_FSYNC,
                        .fd = fd,
                        .op_flags = data_only ? IORING_FSYNC_DATASYNC : 0 };
    return rv_req_run(rv_io_self(), &q, until);
}

static int sync_file(const char *name, int fd, bool data_only, reeve_time until)
{
    uint32_t was;
    rv_io_enter(name, &was);
    int r = rv_file_sync(fd, data_only, until);
    rv_io_exit(was);
    return r;
}

int reeve_fsync(int fd, reeve_time until)
{
    return sync_file("reeve_fsync", fd, false, until);
}

int reeve_fdatasync(int fd, reeve_time until)
{
    return sync_file("reeve_fdatasync", fd, true, until);
}

int reeve_fallocate(int fd, int flags, uint64_t off, uint64_t len, reeve_time until)
{
    struct rv_req q = { .opcode = IORING_OP_FALLOCATE,
                        .fd = fd,
                        .off = off,
                        .addr = len,
                        .len = (uint32_t)flags };
    if (off > INT64_MAX || len > INT64_MAX - off)
        return -ERANGE;
    return call("reeve_fallocate", &q, until);
}

int rv_file_truncate(int fd, uint64_t len, int64_t until)
{
    struct rv_req q = { .opcode = RV_URING_OP_FTRUNCATE, .fd = fd, .off = len };
    return len > INT64_MAX ? -ERANGE : rv_req_run(rv_io_self(), &q, until);
}

int reeve_ftruncate(int fd, uint64_t len, reeve_time until)
{
    uint32_t was;
    rv_io_enter("reeve_ftruncate", &was);
    int r = rv_file_truncate(fd, len, until);
    rv_io_exit(was);
    return r;
}

static const int advice[] = {
    [REEVE_FILE_NORMAL] = POSIX_FADV_NORMAL,       [REEVE_FILE_SEQUENTIAL] = POSIX_FADV_SEQUENTIAL,
    [REEVE_FILE_RANDOM] = POSIX_FADV_RANDOM,       [REEVE_FILE_WILL_NEED] = POSIX_FADV_WILLNEED,
    [REEVE_FILE_DONE_WITH] = POSIX_FADV_DONTNEED,
};

static int advise(int fd, enum reeve_file_use use, uint64_t off, uint64_t len, int64_t until)
{
    if ((unsigned)use >= sizeof advice / sizeof *advice)
        return -EINVAL;
    if (off > INT64_MAX || len > INT64_MAX - off)
        return -ERANGE;
    uint64_t done = 0;
    int r;
    do {
        uint64_t left = len - done;
        struct rv_req q = { .opcode = IORING_OP_FADVISE,
                            .fd = fd,
                            .off = off + done,
                            .len = left < ADVISE_MAX ? (uint32_t)left : ADVISE_MAX,
                            .op_flags = (uint32_t)advice[use] };
        r = rv_req_run(rv_io_self(), &q, until);
        done += q.len;
    } while (r >= 0 && done < len && use >= REEVE_FILE_WILL_NEED);
    return r;
}

int reeve_file_use(int fd, enum reeve_file_use use, uint64_t off, uint64_t len, reeve_time until)
{
    uint32_t was;
    rv_io_enter("reeve_file_use", &was);
    int r = advise(fd, use, off, len, until);
    rv_io_exit(was);
    return r;
}

/* ---- names ----------------------------------------------------------------------------------- */

/* Where a second directory begins, if it is another one than the first: see struct rv_req. */
static int32_t also(int dir, int first)
{
    return dir >= 0 && dir != first ? dir + 1 : 0;
}

static struct rv_req stat_request(int dir, const char *path, int flags, unsigned mask,
                                  struct statx *ret)
{
    return (struct rv_req){ .opcode = IORING_OP_STATX,
                            .fd = dir,
                            .addr = rv_req_ptr(path),
                            .off = rv_req_ptr(ret),
                            .len = mask,
                            .op_flags = (uint32_t)flags };
}

int reeve_stat_at(int dir, const char *path, int flags, unsigned mask, struct statx *ret,
                  reeve_time until)
{
    struct rv_req q = stat_request(dir, path, flags, mask, ret);
    return call("reeve_stat_at", &q, until);
}

int reeve_stat(const char *path, struct statx *ret, reeve_time until)
{
    struct rv_req q = stat_request(AT_FDCWD, path, 0, STATX_BASIC_STATS | STATX_BTIME, ret);
    return call("reeve_stat", &q, until);
}

int rv_file_stat(int fd, struct statx *ret, int64_t until)
{
    /* A negative number would be a directory to begin in. */
    struct rv_req q = stat_request(fd < 0 ? -1 : fd, "", AT_EMPTY_PATH,
                                   STATX_BASIC_STATS | STATX_BTIME, ret);
    return rv_req_run(rv_io_self(), &q, until);
}

int reeve_fstat(int fd, struct statx *ret, reeve_time until)
{
    uint32_t was;
    rv_io_enter("reeve_fstat", &was);
    int r = rv_file_stat(fd, ret, until);
    rv_io_exit(was);
    return r;
}

int reeve_rename_at(int from_dir, const char *from, int to_dir, const char *to, unsigned flags,
                    reeve_time until)
{
    struct rv_req q = { .opcode = IORING_OP_RENAMEAT,
                        .fd = from_dir,
                        .addr = rv_req_ptr(from),
                        .len = (uint32_t)to_dir,
                        .off = rv_req_ptr(to),
                        .op_flags = flags,
                        .also = also(to_dir, from_dir) };
    return call("reeve_rename", &q, until);
}

int reeve_rename(const char *from, const char *to, reeve_time until)
{
    return reeve_rename_at(AT_FDCWD, from, AT_FDCWD, to, 0, until);
}

int reeve_link_at(int from_dir, const char *from, int to_dir, const char *to, int flags,
                  reeve_time until)
{
    struct rv_req q = { .opcode = IORING_OP_LINKAT,
                        .fd = from_dir,
                        .addr = rv_req_ptr(from),
                        .len = (uint32_t)to_dir,
                        .off = rv_req_ptr(to),
                        .op_flags = (uint32_t)flags,
                        .also = also(to_dir, from_dir) };
    return call("reeve_link", &q, until);
}

int reeve_link(const char *from, const char *to, reeve_time until)
{
    return reeve_link_at(AT_FDCWD, from, AT_FDCWD, to, 0, until);
}

int reeve_symlink_at(const char *target, int dir, const char *path, reeve_time until)
{
    struct rv_req q = { .opcode = IORING_OP_SYMLINKAT,
                        .fd = dir,
                        .addr = rv_req_ptr(target),
                        .off = rv_req_ptr(path) };
    return call("reeve_symlink", &q, until);
}

int reeve_symlink(const char *target, const char *path, reeve_time until)
{
    return reeve_symlink_at(target, AT_FDCWD, path, until);
}

int reeve_unlink_at(int dir, const char *path, int flags, reeve_time until)
{
    struct rv_req q = { .opcode = IORING_OP_UNLINKAT,
                        .fd = dir,
                        .addr = rv_req_ptr(path),
                        .op_flags = (uint32_t)flags };
    return call("reeve_unlink", &q, until);
}

int reeve_unlink(const char *path, reeve_time until)
{
    return reeve_unlink_at(AT_FDCWD, path, 0, until);
}

int reeve_rmdir(const char *path, reeve_time until)
{
    return reeve_unlink_at(AT_FDCWD, path, AT_REMOVEDIR, until);
}

int reeve_mkdir_at(int dir, const char *path, mode_t mode, reeve_time until)
{
    struct rv_req q = { .opcode = IORING_OP_MKDIRAT,
                        .fd = dir,
                        .addr = rv_req_ptr(path),
                        .len = (uint32_t)mode };
    return call("reeve_mkdir", &q, until);
}

int reeve_mkdir(const char *path, mode_t mode, reeve_time until)
{
    return reeve_mkdir_at(AT_FDCWD, path, mode, until);
}
