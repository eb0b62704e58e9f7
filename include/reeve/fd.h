/* SPDX-License-Identifier: MIT */
/** fd.h -- everything else that has a descriptor, and moving bytes between any two of them.
 *
 * A pipe, an eventfd, a timerfd, a signalfd, an inotify, a pidfd, a terminal: each is a plain fd,
 * read and written by reeve_read and reeve_write (net.h), closed by reeve_close or close(2), and
 * waited for by reeve_wait_fd. It may be blocking or not: the task waits, its thread does not. What
 * a read of each kind says, and what has to be known:
 *
 *     eventfd    8 bytes, the count, which is then 0 again (EFD_SEMAPHORE: 1, less 1). A buffer of
 *                less than 8 bytes is -EINVAL. Writing 8 bytes adds.
 *     timerfd    8 bytes, how often it has expired since the last read. A task that only wants to
 *                sleep takes reeve_sleep: a timerfd is for clocks that are set (CLOCK_REALTIME,
 *                TFD_TIMER_CANCEL_ON_SET, then -ECANCELED says that the clock was set).
 *     pidfd      not to be read: POLLIN says that the process has ended, waitid(P_PIDFD) how.
 *     signalfd   reeve_signal_next, below; or whole struct signalfd_siginfo by reeve_read.
 *     inotify    reeve_inotify_next, below; or records of different lengths by reeve_read.
 *
 * What you make yourself, make it with its CLOEXEC flag. The errors that every waiting call has
 * (-EBADF, -ECANCELED, -ETIMEDOUT, -ENOMEM) are in net.h.
 */
#ifndef REEVE_FD_H
#define REEVE_FD_H

#include <reeve/time.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- waiting ----------------------------------------------------------------------- */

/** Waits until fd is ready for one of `events` (POLLIN, POLLOUT, POLLPRI, POLLRDHUP), for libraries
 * that own their socket: libpq, hiredis, c-ares, OpenSSL. Put the library into its non-blocking
 * mode, let it try, and wait for what it wants. Several tasks may wait on one fd. REEVE_POLL asks
 * once. A regular file is always ready.
 *
 * > 0: what is ready, POLLERR and POLLHUP included, which need not be asked for. Errors of its own:
 * -EINVAL: an event that poll(2) does not know; -EBUSY: to be readable, on a socket of reeve's from
 * which reeve has begun to read: what came may be in its buffers already, and the descriptor does
 * not tell.
 *     while ((r = PQconnectPoll(pg)) == PGRES_POLLING_READING || r == PGRES_POLLING_WRITING)
 *         if ((e = reeve_wait_fd(PQsocket(pg), r == PGRES_POLLING_READING ? POLLIN : POLLOUT,
 *                                until)) < 0) return e; */
REEVE_API int reeve_wait_fd(int fd, short events, reeve_time until);

/* ---- from one descriptor to another ------------------------------------------------ */

/** Moves up to len bytes from one descriptor to another, inside the kernel where it can; len 0 or
 * SIZE_MAX: until the end. Both are anything that can be read or written, but datagram sockets;
 * files at their position, which moves along. It returns when len bytes are there, at the end of
 * `from`, or when something went wrong, with the bytes moved so far; so, as with a read, what went
 * wrong is what the next call returns, and to the end one calls until 0:
 *     while ((n = reeve_copy(conn, file, 0, until)) > 0)
 *         sent += n;
 *
 * No byte is lost: what was not delivered is still in `from`, or, on a socket of reeve's, is what
 * the next read returns. (From a terminal or another device, which can be neither put back nor
 * looked at before it is taken, what was read, at most one buffer, is written before a deadline or
 * a cancellation ends the call, and lost if `to` fails.) For that to hold nobody else reads from
 * `from` meanwhile: on a socket of reeve's they get -EBUSY. What others write to `to` waits until
 * the call is over. A socket of reeve's is in non-blocking mode afterwards, which reeve itself does
 * not notice. REEVE_POLL moves what can be moved at once; between a file and anything but a socket
 * that it is sent to, that is nothing: others do that work.
 *
 * > 0: bytes; 0: the end. < 0: nothing was moved: what reeve_read would say of `from`, or
 * reeve_write of `to` (-EPIPE, never SIGPIPE); -EINVAL: a datagram socket, or both the same file or
 * pipe; -EISDIR; -EBUSY: another task reads from `from`; -ENOSPC, -EFBIG, -EIO ... of files. */
REEVE_API ssize_t reeve_copy(int to, int from, size_t len, reeve_time until);

/** Duplicates up to len bytes from one pipe into another, without taking them out of the first and
 * without copying: the next call begins at the same byte. Waits until there is something, and room
 * for it. Take what it duplicated out of `from` (reeve_copy, reeve_read) before calling again.
 *
 * > 0: bytes; 0: the end, or len is 0. -EINVAL: one is not a pipe, or both are the same; -EPIPE.
 *     if ((n = reeve_tee(log, in, SIZE_MAX, 0)) > 0) n = reeve_copy(out, in, (size_t)n, 0); */
REEVE_API ssize_t reeve_tee(int to, int from, size_t len, reeve_time until);

/* ---- pipes ------------------------------------------------------------------------- */

/** Makes a pipe, CLOEXEC: ret_fds[0] to read from, ret_fds[1] to write to. bytes: how much it
 * should hold; 0: the system's default, usually 64 KiB. Where the system does not allow so much, it
 * is as much as it does. Any thread.
 *
 * What it holds, in bytes; or -EMFILE, -ENFILE, -ENOMEM, -EINVAL: more than 1 GiB. */
REEVE_API int reeve_pipe(int ret_fds[2], size_t bytes);

/* ---- signals ----------------------------------------------------------------------- */

/** Makes a descriptor that n signals are read from, CLOEXEC, and blocks them in the calling thread,
 * so that they are not delivered in any other way. Threads inherit that from who makes them: call
 * it first thing in main, before reeve_run and before any library starts threads. Programs that you
 * start by fork and exec inherit it too: unblock them there (proc.h does).
 *
 * The fd; or -EINVAL: no signal, or one that cannot be blocked (SIGKILL, SIGSTOP) or that reeve
 * leaves to the thread that caused it (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP); -EPERM: called in
 * a task, which is too late; -EMFILE, -ENFILE, -ENOMEM.
 *     int signals = reeve_signal_open((int[]){ SIGTERM, SIGINT, SIGHUP }, 3); */
REEVE_API int reeve_signal_open(const int *signals, size_t n);

/** Waits for the next signal from reeve_signal_open and returns its number. Of one kind of signal
 * that came several times meanwhile there is one. -EINVAL: not a descriptor of signals. */
REEVE_API int reeve_signal_next(int fd, reeve_time until);

/* ---- changes to files -------------------------------------------------------------- */

/** What watches files and directories, inotify(7), for one task at a time. The memory is yours. */
struct reeve_inotify {
    int fd;             /* to close from elsewhere, or to wait for along with others */
    uint32_t is_open;
    uint32_t at, end;   /* what was read and not handed out */
    uint64_t buf[512];
};

struct reeve_inotify_event {
    int watch;          /* as reeve_inotify_add returned it; -1 with IN_Q_OVERFLOW */
    uint32_t mask;      /* IN_* of sys/inotify.h */
    uint32_t cookie;    /* joins IN_MOVED_FROM and IN_MOVED_TO */
    const char *name;   /* in the directory that is watched; "": the watched thing itself.
                           In the struct reeve_inotify, until the next call */
};

/** Begins, and ends: close does nothing to a {0}, and gives nothing to who waits there but
 * -ECANCELED. 0; -EMFILE (fs.inotify.max_user_instances too), -ENFILE, -ENOMEM. */
REEVE_API int reeve_inotify_open(struct reeve_inotify *n);
REEVE_API void reeve_inotify_close(struct reeve_inotify *n);

/** Watches a path for the IN_* in mask. Looking the path up may wait for a disk, so it is done on
 * the offload pool. A number >= 1 that names the watch, the same again for the same file; -EINVAL,
 * -ENOENT, -EACCES, -ENOSPC (fs.inotify.max_user_watches) and what else inotify_add_watch(2) says,
 * and the errors of reeve_offload. */
REEVE_API int reeve_inotify_add(struct reeve_inotify *n, const char *path, uint32_t mask,
                                reeve_time until);
/** 0, or -EINVAL: no such watch. A last event, IN_IGNORED, says that it is gone. */
REEVE_API int reeve_inotify_remove(struct reeve_inotify *n, int watch);

/** Waits for the next event. IN_Q_OVERFLOW says that events were lost, since nobody read them: look
 * at everything anew. 0, or the errors of reeve_read.
 *     while ((r = reeve_inotify_next(&n, &e, 0)) == 0)
 *         if (e.mask & (IN_CLOSE_WRITE | IN_MOVED_TO | IN_Q_OVERFLOW)) reload(e.name); */
REEVE_API int reeve_inotify_next(struct reeve_inotify *n, struct reeve_inotify_event *ret_event,
                                 reeve_time until);

#ifdef __cplusplus
}
#endif
#endif /* REEVE_FD_H */
