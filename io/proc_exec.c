/* SPDX-License-Identifier: MIT */
/*
 * proc_exec.c -- from an argv to a process that runs it.
 *
 * The child begins in our memory, on a stack of its own in struct rv_launch, while the thread that
 * made it stands still (CLONE_VM, CLONE_VFORK): nothing is copied, however large this process is,
 * and what the child finds it just writes down for us. It goes on as
 *
 *     own descriptors -> own group -> folder -> descriptors as listed -> CPUs -> signals -> execve
 *
 * and its first failure is the launch's. How long the thread stands still was measured: 63 to 76
 * us, less than a worker's pass, where a bare vfork and execve take 48 to 57 (9 of the difference
 * are the signals, 7 /dev/null, 4 to 6 the pidfd, 3 the group). Without CLONE_VFORK it were
 * 17; but then the child shares a running thread's thread-local memory, and what would tell when it
 * is done is the end of a pipe, which any fork of the host that comes in between holds open. A hop
 * to the offload pool and back is two wakes, 80 us, of 490 for all of /bin/true: so a worker
 * does it itself where the program is known to be at hand (proc.c), and a file that has to come
 * from a disk (200 us from a fast one) is the pool's.
 *
 * (1) Until execve the child runs nothing but this file: no libc, no lock, no thread-local word, no
 *     instrumentation. All of these belong to the thread that stands still.
 * (2) It shares our descriptors only until its first call, which gives it a table of its own, cut
 *     off above those it was given. So a launch costs the same with 20,000 connections open as with
 *     none: 0.49 ms where vfork and execve, which copy and close them all, need 2.0. (Not where it
 *     is given a high number, as a run's pipes have then.) Where that call fails it must not touch
 *     another descriptor.
 * (3) What is left is marked close-on-exec and not closed: the kernel closes it after our thread
 *     has been let go.
 * (4) Handlers of signals are reset as the child is made, so none of the host's can run in it;
 *     where there is no clone3 all signals are blocked until the child has reset them. What the
 *     host ignores it would go on to ignore, so it resets the ordinary signals one by one: asking
 *     first would cost as much, 0.3 us each.
 * (5) Its exit signal is none until execve, which makes it SIGCHLD: a launch that fails never
 *     happened, as far as the host can see.
 *
 * Threads: any; the calling one stands still.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <reeve/cpus.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io/proc.h"
#include "mem/alloc.h"
#include "mem/die.h"
#include "mem/fault.h"

#if !defined(__x86_64__)
#error "The first steps of a child process are written for x86-64."
#endif

enum { STACK_BYTES = 2048, STD_FDS = 3, ORDINARY = 31, SIGNALS = 64 };

struct rv_launch {
    char *const *argv, *const *envp;
    const char *cwd;
    const char *paths; /* to be tried in turn: each ends with a 0, the last is empty */
    unsigned n;        /* descriptors it gets, 3 at least */
    int fds[REEVE_EXEC_FDS_MAX];
    unsigned above; /* all that it is given lies below */
    bool set_cpus;
    bool old_clone; /* its handlers are the host's until it resets them: (4) */
    cpu_set_t cpus;
    int error; /* by the child: -errno */
    unsigned char stack[STACK_BYTES] __attribute__((aligned(16)));
    char text[]; /* the paths */
};

/* ---- the child's side: (1) ------------------------------------------------------------------- */

#if defined(__clang__)
#define CHILD __attribute__((disable_sanitizer_instrumentation))
#else
#define CHILD __attribute__((no_sanitize("address", "thread", "undefined")))
#endif

CHILD static inline long call4(long nr, long a, long b, long c, long d)
{
    long r;
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall"
                     : "=a"(r)
                     : "0"(nr), "D"(a), "S"(b), "d"(c), "r"(r10)
                     : "rcx", "r11", "memory");
    return r;
}

CHILD static inline long call3(long nr, long a, long b, long c)
{
    return call4(nr, a, b, c, 0);
}

/* Every descriptor that is listed to its number; those in the way make room first. */
CHILD static long place_given(struct rv_launch *l)
{
    long r = 0;
    for (unsigned i = 0; i < l->n; i++)
        if (l->fds[i] >= 0 && l->fds[i] < (int)l->n && l->fds[i] != (int)i) {
            r = call3(SYS_fcntl, l->fds[i], F_DUPFD_CLOEXEC, (long)l->n);
            if (r < 0)
                return r;
            l->fds[i] = (int)r;
        }
    for (unsigned i = 0; i < l->n && r >= 0; i++) {
        if (l->fds[i] == (int)i)
            r = call3(SYS_fcntl, i, F_SETFD, 0);
        else if (l->fds[i] >= 0)
            r = call3(SYS_dup3, l->fds[i], i, 0);
    }
    return r;
}

/* The numbers that are not listed: /dev/null, or nothing. */
CHILD static long place_missing(struct rv_launch *l)
{
    long null = -1, r = 0;
    for (unsigned i = 0; i < STD_FDS && r >= 0; i++) {
        if (l->fds[i] >= 0)
            continue;
        if (null < 0)
            r = null = call3(SYS_openat, AT_FDCWD, (long)"/dev/null", O_RDWR | O_CLOEXEC);
        if (r >= 0) /* its own number may be one of those, or must not stay */
            r = null == (long)i ? call3(SYS_fcntl, i, F_SETFD, 0) : call3(SYS_dup3, null, i, 0);
    }
    for (unsigned i = STD_FDS; i < l->n; i++)
        if (l->fds[i] < 0)
            call3(SYS_close, i, 0, 0); /* it may be open no more: that is as well */
    return r;
}

CHILD static long place_fds(struct rv_launch *l)
{
    long r = place_given(l);
    if (r >= 0)
        r = place_missing(l);
    if (r >= 0 && l->above > l->n) /* what made room is marked already */
        r = call3(SYS_close_range, l->n, ~0U, CLOSE_RANGE_CLOEXEC); /* (3) */
    return r;
}

/* Signals 1 .. last to their defaults: (4). */
CHILD static void reset_signals(int last)
{
    const unsigned long action[4] = { 0, 0, 0, 0 }; /* as the kernel sees it: SIG_DFL, no flags */
    for (int sig = 1; sig <= last; sig++)
        if (sig != SIGKILL && sig != SIGSTOP)
            call4(SYS_rt_sigaction, sig, (long)action, 0, sizeof(unsigned long));
}

/* Tries the paths in turn, as a shell looks for a program. */
CHILD static long execute(const struct rv_launch *l)
{
    long denied = 0, r = -ENOENT;
    for (const char *p = l->paths; *p;) {
        r = call3(SYS_execve, (long)p, (long)l->argv, (long)l->envp);
        if (r == -EACCES)
            denied = r;
        else if (r != -ENOENT && r != -ENOTDIR && r != -ENAMETOOLONG)
            return r;
        while (*p++)
            continue;
    }
    return denied ? denied : r;
}

/* What the child does; it returns only to say why it is not the program. */
CHILD static long become(struct rv_launch *l)
{
    unsigned long none = 0;
    long r = call3(SYS_close_range, l->above, ~0U, CLOSE_RANGE_UNSHARE); /* (2) */
    if (r >= 0)
        r = call3(SYS_setpgid, 0, 0, 0);
    if (r >= 0 && l->cwd)
        r = call3(SYS_chdir, (long)l->cwd, 0, 0);
    if (r >= 0)
        r = place_fds(l);
    if (r >= 0 && l->set_cpus)
        r = call3(SYS_sched_setaffinity, 0, sizeof l->cpus, (long)&l->cpus);
    if (r < 0)
        return r;
    reset_signals(l->old_clone ? SIGNALS : ORDINARY);
    call4(SYS_rt_sigprocmask, SIG_SETMASK, (long)&none, 0, sizeof none);
    return execute(l);
}

CHILD static void child_main(struct rv_launch *l)
{
    l->error = (int)become(l);
    for (;;)
        call3(SYS_exit_group, 127, 0, 0);
}

/* The system call that makes the child, which begins in child_main(l) on the stack that the call
 * was given. It must not return into this frame, which is our thread's. */
static long make(long nr, long a, long b, long c, struct rv_launch *l)
{
    long r;
    register void (*begin)(struct rv_launch *) __asm__("r8") = child_main;
    register struct rv_launch *arg __asm__("r9") = l;
    __asm__ volatile("xorl %%r10d, %%r10d\n\t"
                     "syscall\n\t"
                     "testq %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "xorl %%ebp, %%ebp\n\t"
                     "movq %%r9, %%rdi\n\t"
                     "callq *%%r8\n\t"
                     "hlt\n"
                     "1:"
                     : "=a"(r)
                     : "0"(nr), "D"(a), "S"(b), "d"(c), "r"(begin), "r"(arg)
                     : "rcx", "r10", "r11", "memory", "cc");
    return r;
}

/* ---- our side -------------------------------------------------------------------------------- */

#define CHILD_FLAGS ((unsigned long)CLONE_VM | CLONE_VFORK | CLONE_FILES | CLONE_PIDFD)

/* Where there is no clone3: old sandboxes refuse it. */
static long make_by_clone(struct rv_launch *l, int *pidfd)
{
    unsigned long all = ~0UL, was = 0;
    l->old_clone = true;
    call4(SYS_rt_sigprocmask, SIG_SETMASK, (long)&all, (long)&was, sizeof all);
    long r = make(SYS_clone, (long)CHILD_FLAGS, (long)(l->stack + STACK_BYTES), (long)pidfd, l);
    call4(SYS_rt_sigprocmask, SIG_SETMASK, (long)&was, 0, sizeof was);
    return r;
}

/* The child's number, once it has become the program or has said why not; -errno. */
static long make_child(struct rv_launch *l, int *pidfd)
{
    struct clone_args how = { .flags = CHILD_FLAGS | CLONE_CLEAR_SIGHAND,
                              .pidfd = (uintptr_t)pidfd,
                              .stack = (uintptr_t)l->stack,
                              .stack_size = STACK_BYTES };
    if (RV_FAULT("proc.fork"))
        return -EAGAIN;
    long r = RV_FAULT("proc.clone3") ? -ENOSYS : make(SYS_clone3, (long)&how, sizeof how, 0, l);
    return r == -ENOSYS || r == -EPERM ? make_by_clone(l, pidfd) : r;
}

int rv_launch_run(struct rv_launch *l, pid_t *ret_pid, int *ret_pidfd)
{
    int pidfd = -1, saved = errno;
    long pid = make_child(l, &pidfd);
    if (pid < 0)
        return (int)pid;
    RV_MUST(pidfd >= 0);
    int error = l->error;
    if (error == 0) {
        *ret_pid = (pid_t)pid;
        *ret_pidfd = pidfd;
        return 0;
    }
    /* It is on its way out, and nobody else can see it: (5). */
    while (waitpid((pid_t)pid, NULL, __WALL) < 0 && errno == EINTR)
        continue;
    syscall(SYS_close, pidfd); /* libc did not open it either */
    errno = saved;
    return error;
}

/* ---- preparing ------------------------------------------------------------------------------- */

/* Where to look for a program without a slash in its name. */
static const char *folders(void)
{
    const char *path = getenv("PATH");
    return path && *path ? path : "/usr/local/bin:/usr/bin:/bin";
}

/* Writes the paths, or with text NULL only says how long they are. */
static size_t write_paths(char *text, const char *name)
{
    size_t at = 0, len = strlen(name) + 1;
    const char *p = strchr(name, '/') || len == 1 ? "" : folders();
    if (*p == '\0' && len > 1) {
        if (text)
            memcpy(text, name, len);
        at = len;
    }
    for (size_t n; *p; p += n + (p[n] == ':')) {
        n = strcspn(p, ":");
        if (n == 0)
            continue;
        if (text) {
            memcpy(text + at, p, n);
            text[at + n] = '/';
            memcpy(text + at + n + 1, name, len);
        }
        at += n + 1 + len;
    }
    if (text)
        text[at] = '\0';
    return at + 1;
}

static int prepare_cpus(struct rv_launch *l, const struct reeve_exec *exec,
                        const cpu_set_t *inherited)
{
    CPU_ZERO(&l->cpus);
    l->set_cpus = exec->cpus_n > 0 || exec->placer || inherited;
    if (exec->cpus_n > 0 && (exec->placer || !exec->cpus))
        return -EINVAL;
    for (unsigned i = 0; i < exec->cpus_n; i++) {
        if (exec->cpus[i] < 0 || exec->cpus[i] >= CPU_SETSIZE)
            return -EINVAL;
        CPU_SET(exec->cpus[i], &l->cpus);
    }
    if (exec->placer) {
        int cpu = reeve_placer_next(exec->placer);
        if (cpu < 0)
            return cpu;
        CPU_SET(cpu, &l->cpus);
    }
    if (inherited && !exec->placer && exec->cpus_n == 0)
        l->cpus = *inherited;
    return 0;
}

static int prepare_fds(struct rv_launch *l, const int *fds, unsigned n)
{
    if (n > REEVE_EXEC_FDS_MAX || (n > 0 && !fds))
        return -EINVAL;
    l->n = n < STD_FDS ? STD_FDS : n;
    for (unsigned i = 0; i < l->n; i++) {
        l->fds[i] = i < n ? fds[i] : -1;
        if (l->fds[i] < -1)
            return -EBADF;
        if (l->fds[i] >= (int)l->above)
            l->above = (unsigned)l->fds[i] + 1;
    }
    return 0;
}

int rv_launch_prepare(struct rv_launch **ret_launch, const struct reeve_exec *exec, const int *fds,
                      unsigned fds_n, const cpu_set_t *inherited)
{
    if (!exec || !exec->argv || !exec->argv[0])
        return -EINVAL;
    struct rv_launch *l = rv_alloc(sizeof *l + write_paths(NULL, exec->argv[0]));
    if (!l)
        return -ENOMEM;
    l->argv = exec->argv;
    l->envp = exec->envp ? exec->envp : environ;
    l->cwd = exec->cwd;
    l->paths = l->text;
    l->above = 0;
    l->old_clone = false;
    l->error = 0;
    int r = prepare_fds(l, fds ? fds : exec->fds, fds ? fds_n : exec->fds_n);
    if (r == 0)
        r = prepare_cpus(l, exec, inherited);
    if (r < 0) {
        rv_free(l);
        return r;
    }
    write_paths(l->text, exec->argv[0]);
    *ret_launch = l;
    return 0;
}

void rv_launch_finish(struct rv_launch *l)
{
    rv_free(l);
}

const char *rv_launch_name(const struct rv_launch *l)
{
    return l->argv[0];
}
