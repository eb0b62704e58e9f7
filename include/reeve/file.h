/* SPDX-License-Identifier: MIT */
/** file.h -- files as plain file descriptors, and an append-only log on top of them.
 *
 * Every call here looks blocking and suspends the task only: the kernel's ring does the work, and
 * what it cannot do a thread of the offload pool does (offload.h). Descriptors are CLOEXEC. They
 * stay plain: fcntl, flock, passing to other C code, all work, and so does every call here on an fd
 * that was opened elsewhere. Close with reeve_close (net.h) what other tasks may be using:
 * operations in flight end first, and the number is not reused under them.
 *
 * Errors that every call here has, besides its own: -EBADF: fd is not open, or is being closed;
 * -ECANCELED: the task is cancelled, or reeve_close(fd) came while it waited; -ETIMEDOUT; -ENOMEM,
 * also where the kernel cannot make the thread that is to do it (RLIMIT_NPROC); and what the file
 * system reports (-EIO, -ENOSPC, -EACCES, ...). A disk cannot be told to stop: an
 * operation that is past its deadline, and has begun, is waited for, and its result returned. An
 * error after the deadline so means that nothing is under way any more, not that nothing was done.
 * Outside a task: abort.
 *
 * Offsets and lengths are bytes; an offset above INT64_MAX, or a transfer that would pass it, is
 * -ERANGE.
 */
#ifndef REEVE_FILE_H
#define REEVE_FILE_H

#include <reeve/buf.h>
#include <reeve/time.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

struct statx; /* <sys/stat.h>, with _GNU_SOURCE */

/* ---- opening --------------------------------------------------------------------------------- */

/** Opens a file: open(2) with O_CLOEXEC. mode: of a file that is created, less the umask.
 *
 * The fd, or what open(2) reports: -ENOENT, -EISDIR, -EMFILE, ... A named pipe waits for its other
 * end, unless flags has O_NONBLOCK. (With that, or with O_RDWR, an open that need not wait for a
 * disk is also a little cheaper.) Who waits so keeps one of the kernel's threads, of which a worker
 * has four for each CPU: more such waits than that hold up what else needs one, the opens of the
 * pipes' other ends too. So bound them, or give them deadlines. Cancelled or late: either the fd is
 * returned after all, or there is none.
 *     int fd = reeve_open(path, O_RDONLY, 0, 0);
 *     n = fd < 0 ? fd : reeve_pread(fd, buf, sizeof buf, 0, 0); */
REEVE_API int reeve_open(const char *path, int flags, mode_t mode, reeve_time until);

/** How to open a file. */
struct reeve_open {
    const char *path;
    int dir;          /* where a relative path begins; 0: in the working directory */
    int flags;        /* O_*; 0: O_RDONLY. O_CLOEXEC is always added */
    mode_t mode;      /* of a file that is created */
    uint64_t resolve; /* RESOLVE_* of <linux/openat2.h>; 0: any path */
};

/** The same with everything that openat2(2) offers. RESOLVE_BENEATH keeps a path that a stranger
 * chose inside dir: whatever leads out of it, "..", a link, an absolute path, is -EXDEV.
 * (Descriptor 0 cannot be a dir here; who has one there duplicates it.) -EINVAL: also for flags
 * that contradict each other, which open(2) ignores.
 *     fd = reeve_open_with(&(struct reeve_open){ .path = name, .dir = root,
 *                                                .resolve = RESOLVE_BENEATH }, 0); */
REEVE_API int reeve_open_with(const struct reeve_open *how, reeve_time until);

/* ---- reading and writing --------------------------------------------------------------------- */

/** Reads len bytes at off; the file's position is neither used nor moved. Fewer only where the file
 * ends.
 *
 * The number of bytes; 0: off is the end or beyond it, or len is 0. -errno: what buf holds is
 * undefined. Errors of its own: -EISDIR. On a pipe or a socket there are no offsets: use
 * reeve_read. A file opened with O_DIRECT takes multiples of its device's block size only, from
 * memory that is aligned to it (-EINVAL): see reeve_buf_borrow_aligned. */
REEVE_API ssize_t reeve_pread(int fd, void *buf, size_t len, uint64_t off, reeve_time until);

/** Writes all of it at off. len, or -errno: then some of it may have been written. (A file opened
 * with O_APPEND is appended to, wherever off points.) */
REEVE_API ssize_t reeve_pwrite(int fd, const void *buf, size_t len, uint64_t off, reeve_time until);

/** The same for n pieces of memory, one after the other, as if they were one; n is any number >= 0.
 * -EINVAL: n < 0, or the pieces are longer than SSIZE_MAX together. */
REEVE_API ssize_t reeve_preadv(int fd, const struct iovec *pieces, int n, uint64_t off,
                               reeve_time until);
REEVE_API ssize_t reeve_pwritev(int fd, const struct iovec *pieces, int n, uint64_t off,
                                reeve_time until);

/** Waits until everything written to the file before is on the disk: its data, size and times; with
 * reeve_fdatasync only what is needed to read it again. 0 or -errno.
 *
 * After an error (-EIO, -ENOSPC) the kernel has dropped what it could not write, and a second call
 * that says 0 does not mean that it is there: treat what was written since the last success as
 * lost. A new file's name is another matter: sync its directory, too. */
REEVE_API int reeve_fsync(int fd, reeve_time until);
REEVE_API int reeve_fdatasync(int fd, reeve_time until);

/** Reserves space, or gives it back: fallocate(2) with FALLOC_FL_* in flags; 0: reserves, and lets
 * the file grow to off + len. 0; -EOPNOTSUPP: not on this file system; -ENOSPC, -EFBIG. */
REEVE_API int reeve_fallocate(int fd, int flags, uint64_t off, uint64_t len, reeve_time until);

/** Makes the file len bytes long: cuts it, or appends zeroes. 0; -EINVAL: not open for writing, or
 * no file. */
REEVE_API int reeve_ftruncate(int fd, uint64_t len, reeve_time until);

/** How a file will be used, from now on or once. */
enum reeve_file_use {
    REEVE_FILE_NORMAL,     /* as it comes */
    REEVE_FILE_SEQUENTIAL, /* from front to back: read far ahead */
    REEVE_FILE_RANDOM,     /* here and there: read nothing ahead */
    REEVE_FILE_WILL_NEED,  /* soon: read this part now, without waiting for it */
    REEVE_FILE_DONE_WITH,  /* not again soon: drop what the cache holds of this part */
};

/** Tells the kernel, which may ignore it. The first three are about the whole file; len 0: up to
 * the end. 0; -EINVAL: no such use; -ESPIPE: a pipe or a socket. */
REEVE_API int reeve_file_use(int fd, enum reeve_file_use use, uint64_t off, uint64_t len,
                             reeve_time until);

/* ---- names ----------------------------------------------------------------------------------- */

/** What is known about a file: statx(2), everything that stat(2) has and the time of its birth.
 * Links are followed. 0 or -errno, and *ret is untouched. */
REEVE_API int reeve_stat(const char *path, struct statx *ret, reeve_time until);
REEVE_API int reeve_fstat(int fd, struct statx *ret, reeve_time until);

/** Gives a file another name, and replaces what had it. 0; -EXDEV: on another file system. */
REEVE_API int reeve_rename(const char *from, const char *to, reeve_time until);

/** Gives a file a second name; a link that holds a path. 0; -EEXIST; -EXDEV, -EPERM. */
REEVE_API int reeve_link(const char *from, const char *to, reeve_time until);
REEVE_API int reeve_symlink(const char *target, const char *path, reeve_time until);

/** Removes a name that is no directory; an empty directory. 0; -ENOENT; -EISDIR, -ENOTDIR,
 * -ENOTEMPTY. */
REEVE_API int reeve_unlink(const char *path, reeve_time until);
REEVE_API int reeve_rmdir(const char *path, reeve_time until);

/** Makes a directory. 0; -EEXIST, -ENOENT. */
REEVE_API int reeve_mkdir(const char *path, mode_t mode, reeve_time until);

/** The same with directories to begin in (AT_FDCWD: the working directory) and flags: of statx(2)
 * AT_* and STATX_*, of renameat2(2) RENAME_*, of linkat(2) AT_*, of unlinkat(2) AT_REMOVEDIR. */
REEVE_API int reeve_stat_at(int dir, const char *path, int flags, unsigned mask, struct statx *ret,
                            reeve_time until);
REEVE_API int reeve_rename_at(int from_dir, const char *from, int to_dir, const char *to,
                              unsigned flags, reeve_time until);
REEVE_API int reeve_link_at(int from_dir, const char *from, int to_dir, const char *to, int flags,
                            reeve_time until);
REEVE_API int reeve_symlink_at(const char *target, int dir, const char *path, reeve_time until);
REEVE_API int reeve_unlink_at(int dir, const char *path, int flags, reeve_time until);
REEVE_API int reeve_mkdir_at(int dir, const char *path, mode_t mode, reeve_time until);

/* ---- reading directories --------------------------------------------------------------------- */

/** An open directory, for one task at a time. */
typedef struct reeve_dir reeve_dir;

/** One entry. The name is the directory's, valid until the next call on it. */
struct reeve_dir_entry {
    const char *name;
    uint64_t inode;
    unsigned char type; /* DT_REG, DT_DIR, ... of <dirent.h>; DT_UNKNOWN: ask reeve_stat */
};

/** Opens a directory for reading. 0; -ENOENT, -ENOTDIR, -EMFILE. */
REEVE_API int reeve_dir_open(reeve_dir **ret_dir, const char *path, reeve_time until);

/** The next entry, in no order; "." and ".." are left out. Entries are fetched many at a time, by a
 * thread of the offload pool; most calls find one and do not wait at all.
 *
 * 1: *ret_entry is one; 0: there are no more; -EBUSY: another task is reading; -ENOTSUP: the
 * runtime has no offload pool; -ENOENT: the directory was removed.
 *     while ((r = reeve_dir_read(d, &e, 0)) > 0)
 *         puts(e.name); */
REEVE_API int reeve_dir_read(reeve_dir *dir, struct reeve_dir_entry *ret_entry, reeve_time until);

/** Closes it. NULL is fine; while another task reads: abort. */
REEVE_API void reeve_dir_close(reeve_dir *dir);

/* ---- direct I/O: aligned buffers ------------------------------------------------------------- */

/** Borrows an empty buffer for files: its memory is aligned to 4096 bytes, as O_DIRECT wants it,
 * and cap is `bytes` rounded up to 4096 times a power of two. All of them together, and so the
 * largest, are 2 MiB, or a quarter of RLIMIT_MEMLOCK where that is less; that memory is pinned and
 * made known to the kernel when the first is borrowed, and reads and writes of it cost less on any
 * worker. Where it cannot be pinned they cost what others do. A buffer is returned like any other
 * (buf.h), and may be sent, too.
 *
 * 0; -EINVAL: bytes is 0; -ERANGE: more than there is; -ETIMEDOUT, -ECANCELED: none came home in
 * time; -ENOMEM. */
REEVE_API int reeve_buf_borrow_aligned(struct reeve_buf **ret_buf, size_t bytes, reeve_time until);

/** Fills a buffer, of whatever kind, from off on: up to cap bytes, fewer only where the file ends.
 * data and len then say what was read. The buffer stays yours.
 *
 * The number of bytes, and otherwise as reeve_pread; after an error len is 0.
 *     if ((r = reeve_buf_borrow_aligned(&b, 4096, 0)) < 0) return r;
 *     n = reeve_buf_pread(fd, b, page * 4096, 0); */
REEVE_API ssize_t reeve_buf_pread(int fd, struct reeve_buf *buf, uint64_t off, reeve_time until);

/** Writes the len bytes at data, all of them, at off. The buffer stays yours. Otherwise as
 * reeve_pwrite. */
REEVE_API ssize_t reeve_buf_pwrite(int fd, struct reeve_buf *buf, uint64_t off, reeve_time until);

/* ---- an append-only log ---------------------------------------------------------------------- */

/** A file that many tasks append records to. What they append at about the same time is written by
 * one write and made durable by one fdatasync, so a hundred tasks cost the disk hardly more than
 * one. Records are bytes; how long one is, and whether it is whole, is for you to put into it.
 *
 * Order and place: records stand in the file one after the other, in the order in which their
 * appends were called, without gaps; each append says where.
 *
 * The torn tail: after a crash everything is there whose append returned, before the crash, as
 * durable. What comes behind it may be there, be missing, or be there in part, with zeroes or
 * garbage in between. So a reader checks each record (a length and a checksum do), stops at the
 * first that is wrong, and cuts the file there (reeve_ftruncate) before it is opened as a log
 * again.
 *
 * Zeroes ahead: a file that grows has its length and its place on the disk written at each sync,
 * which most often costs more than the data. With ahead_bytes (1 MiB, say) the log writes so many
 * zeroes at a time ahead of small batches, and then replaces them: syncs take a half of the time or
 * less. Until it is closed the file is longer than its records then, and after a crash, the
 * process's own too, zeroes are what comes behind them. At most 32 MiB; where there is no space for
 * them, or a limit on the size of files, the log does without.
 *
 * Bounds: a record waits in its own task and its own memory, so what waits is bounded by the tasks;
 * nothing is buffered. Who appends faster than the disk can take waits. */
typedef struct reeve_log reeve_log;

struct reeve_log_opts {
    const char *path;       /* made if it is not there; appended to if it is */
    mode_t mode;            /* of a file that is made; 0: 0600 */
    size_t batch_bytes;     /* that one write takes, or a single longer record; 0: 1 MiB */
    size_t unsynced_bytes;  /* written and not durable, at most: then "later" waits; 0: 8 MiB */
    size_t ahead_bytes;     /* of zeroes behind the last record, see below; 0: none */
};

/** Opens a log. While it is open, the file is the log's alone. When this returns, the file and its
 * name are durable.
 *
 * 0; -EINVAL: no path; -EISDIR, -EACCES, ... */
REEVE_API int reeve_log_open(reeve_log **ret_log, const struct reeve_log_opts *opts,
                             reeve_time until);

/** Appends a record and waits until it is durable. Any number of tasks.
 *
 * Where in the file it begins, >= 0; len 0: nothing is appended, and where the file ends.
 * -ETIMEDOUT, -ECANCELED: while it waited for its turn; nothing of it was or will be written. Once
 * its write has begun the record is waited for. Another error: the disk's. If it was the write's
 * (-ENOSPC), nothing of the batch remains in the file, and the log goes on. If it was the sync's,
 * nobody knows what is on the disk: the log is spoilt, and this and every later append returns that
 * error; nothing is tried again. Close it, read the file back, and start anew. */
REEVE_API int64_t reeve_log_append(reeve_log *log, const void *record, size_t len,
                                   reeve_time until);

/** The same, but returns when the record has been written and not yet synced: it survives this
 * process, not the machine. reeve_log_sync, or any durable append after it, makes it durable. */
REEVE_API int64_t reeve_log_append_later(reeve_log *log, const void *record, size_t len,
                                         reeve_time until);

/** Waits until everything whose append has returned is durable. 0, or -errno; -ETIMEDOUT and
 * -ECANCELED: it may not be. */
REEVE_API int reeve_log_sync(reeve_log *log, reeve_time until);

/** Syncs, closes the file and frees the log, whatever it returns. Nobody uses it any more: while an
 * append waits, abort. 0, also for NULL; -errno: what was appended "later" may not be durable, or
 * zeroes may be left behind the last record. */
REEVE_API int reeve_log_close(reeve_log *log, reeve_time until);

/** What a log has done so far. */
struct reeve_log_stats {
    uint64_t records, bytes;
    uint64_t writes, syncs; /* how many it took */
    uint64_t waiting;       /* records whose write has not begun, now */
};
REEVE_API void reeve_log_stats(reeve_log *log, struct reeve_log_stats *ret_stats);

#ifdef __cplusplus
}
#endif
#endif /* REEVE_FILE_H */
