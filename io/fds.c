/* SPDX-License-Identifier: MIT */
/*
 * fds.c -- pipes, and signals as a descriptor.
 *
 * Neither needs more of reeve than its reads: what is here saves the steps that are forgotten.
 *
 * (1) A signal that is not blocked in every thread is not read but delivered, and mostly kills. A
 *     task runs when the program's threads exist, so it comes too late to block anything.
 * (2) A fault is the business of the thread that caused it: blocked, the kernel would kill without
 *     asking, and no descriptor ever says so.
 *
 * Threads: open, pipe - any; next - tasks.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <reeve/fd.h>
#include <reeve/net.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "sched/worker.h"

#define PIPE_BYTES_MAX ((size_t)1 << 30)

/* A call of the system as -errno, with errno as before. */
static int said(int r, int saved)
{
    int error = errno;
    errno = saved;
    return r < 0 ? -error : r;
}

/* ---- pipes ----------------------------------------------------------------------------------- */

/* As near to `bytes` as the system allows an ordinary user; what the pipe holds at least. */
static int set_capacity(int fd, size_t bytes)
{
    int saved = errno, has = said(fcntl(fd, F_GETPIPE_SZ), saved);
    for (; bytes > (size_t)has; bytes /= 2) {
        int r = said(fcntl(fd, F_SETPIPE_SZ, (int)bytes), saved);
        if (r != -EPERM && r != -ENOMEM)
            return r;
    }
    return has;
}

int reeve_pipe(int ret_fds[2], size_t bytes)
{
    int ends[2], saved = errno;
    if (bytes > PIPE_BYTES_MAX)
        return -EINVAL;
    int r = said(pipe2(ends, O_CLOEXEC), saved);
    if (r < 0)
        return r;
    r = set_capacity(ends[1], bytes);
    if (r < 0) {
        close(ends[0]);
        close(ends[1]);
        return r;
    }
    ret_fds[0] = ends[0];
    ret_fds[1] = ends[1];
    return r;
}

/* ---- signals --------------------------------------------------------------------------------- */

static int make_set(sigset_t *set, const int *signals, size_t n)
{
    static const int never[] = { SIGKILL, SIGSTOP, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP };
    int saved = errno, r = n == 0 ? -EINVAL : 0;
    sigemptyset(set);
    for (size_t i = 0; i < n && r == 0; i++)
        r = said(sigaddset(set, signals[i]), saved);
    for (size_t i = 0; i < sizeof never / sizeof *never && r == 0; i++)
        if (sigismember(set, never[i]))
            r = -EINVAL;
    return r;
}

int reeve_signal_open(const int *signals, size_t n)
{
    sigset_t set;
    struct rv_worker *w = rv_worker_self();
    if (w && w->cur) /* (1) */
        return -EPERM;
    int r = make_set(&set, signals, n);
    if (r < 0)
        return r;
    int saved = errno, fd = said(signalfd(-1, &set, SFD_CLOEXEC), saved);
    if (fd < 0)
        return fd;
    pthread_sigmask(SIG_BLOCK, &set, NULL); /* it fails for no valid argument */
    return fd;
}

int reeve_signal_next(int fd, reeve_time until)
{
    struct signalfd_siginfo info;
    ssize_t n = reeve_read(fd, &info, sizeof info, until);
    if (n < 0)
        return (int)n;
    return n == (ssize_t)sizeof info ? (int)info.ssi_signo : -EINVAL;
}
