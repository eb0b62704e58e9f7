/* SPDX-License-Identifier: MIT */
/** proc.h -- programs: start one and wait for it; run one on bytes; chain several.
 *
 * A program is an argv, never a line for a shell: nothing in it is quoted, split or expanded. It
 * starts clean: with the descriptors that it is given and no other, no signal blocked, no
 * ordinary one (1 .. 31) ignored, and a process group of its own, so that what it starts can be
 * ended together with it.
 *
 * Waiting for a program suspends the task and keeps no thread. Starting one holds the worker for
 * as long as the kernel takes to replace a process by a program that it has at hand (0.07 ms where
 * it was measured); a program that was not started within the last ten seconds, or took long then,
 * is started by a thread of the offload pool (offload.h), because its file may have to come from a
 * disk or a network.
 *
 * Bounds: REEVE_PROGRAMS_MAX programs are alive at a time in a process, all runtimes together;
 * whoever wants one more waits. A bound of your own is a semaphore, see reeve_exec.permits.
 *
 * Signals: SIGCHLD comes to this process as the kernel sends it, and is ignored by default. A host
 * that sets it to SIG_IGN, or that waits for children which it did not start (wait, waitpid(-1)),
 * takes our programs' statuses away; they are then reported as -ECHILD.
 */
#ifndef REEVE_PROC_H
#define REEVE_PROC_H

#include <reeve/bytes.h>
#include <reeve/time.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct reeve_placer; /* cpus.h */
struct reeve_sem;    /* sync.h */

enum {
    REEVE_PROGRAMS_MAX = 1024, /* alive at a time, see above */
    REEVE_CHAIN_MAX = 16,      /* programs in a chain */
    REEVE_EXEC_FDS_MAX = 64,   /* descriptors given to a program */
};

/** A started program: a number in disguise, never an address. One that is used too late is
 * recognised, not followed. */
typedef struct reeve_proc reeve_proc;

/** What to start. Only argv is needed; zero is always the default. All of it is lent until the call
 * returns. */
struct reeve_exec {
    /** The program and its arguments, then NULL. A program without a slash in its name is looked
     * for in the folders of this process's PATH (unset: /usr/local/bin, /usr/bin, /bin). A script
     * needs its #! line. */
    char *const *argv;

    /** Its environment, then NULL. NULL: the environment of this process, which nobody may be
     * changing meanwhile. */
    char *const *envp;

    /** Its descriptors: fds[i] of ours becomes its i; -1: /dev/null for 0, 1 and 2, none for the
     * others. What is not listed it does not have, whether it is marked close-on-exec or not; 0, 1
     * and 2 are /dev/null. One of ours may be given several times. */
    const int *fds;
    unsigned fds_n;

    /** Its working directory, from which a relative argv[0] is looked up, too. NULL: ours. */
    const char *cwd;

    /** The CPUs it may run on. 0: those that this process may use, whatever the workers are pinned
     * to. */
    const int *cpus;
    unsigned cpus_n;

    /** Or: one CPU, the placer's next (cpus.h). Programs of one placer are spread over its list. */
    struct reeve_placer *placer;

    /** A permit of this semaphore is held from before the start until the program has been waited
     * for (a whole chain holds one, the first program's). It is waited for. NULL: none is needed.
     *     static struct reeve_sem four;  // reeve_sem_init(&four, 4, 4) before the first use */
    struct reeve_sem *permits;
};

/** How a program ended, and what it had used. */
struct reeve_ended {
    int status;     /* as waitpid gives it: WIFEXITED(status), WEXITSTATUS(status) ... */
    int64_t cpu_ns; /* CPU time, its own and that of its children which it waited for */
    /** The most memory it had resident at a time. 0: unknown, because it was less than what this
     * process itself has had: until it is replaced, the kernel counts ours as the program's. */
    size_t peak_bytes;
};

/** Starts a program. It has become the program when this returns: what cannot be executed is
 * reported here.
 *
 * 0, and *ret_proc is its handle, which has to be waited for (or stopped) by somebody: until then
 * its number stays taken, and one of REEVE_PROGRAMS_MAX. -ENOENT, -EACCES, -ENOEXEC, -ENOTDIR,
 * -E2BIG and what else execve(2) and chdir(2) say of the program, or of cwd; -EBADF: one of the
 * fds; -EINVAL: no argv, a CPU out of range or not to be had, too many fds, or both cpus and a
 * placer; -EAGAIN: the kernel's bound on processes; -EMFILE, -ENFILE, -ENOMEM; -ETIMEDOUT,
 * -ECANCELED: not started, it waited for a permit, a place or the pool (for which it does not wait
 * with REEVE_POLL: then the worker starts it, if it can be had at once). Outside a task: abort.
 *     reeve_proc *p;
 *     int fds[] = { -1, log, log };
 *     char *const argv[] = { "make", "-j2", NULL };
 *     r = reeve_proc_start(&p, &(struct reeve_exec){ .argv = argv, .fds = fds, .fds_n = 3 }, 0);
 *     if (r == 0) r = reeve_proc_wait(p, &ended, reeve_in(60 * REEVE_SEC)); */
REEVE_API int reeve_proc_start(reeve_proc **ret_proc, const struct reeve_exec *exec,
                               reeve_time until);

/** Waits until the program has ended.
 *
 * 0: it has, *ret_ended (which may be NULL) says how, and the handle is freed. -ECHILD: it has, but
 * somebody else took its status; the handle is freed. -ETIMEDOUT, -ECANCELED, -ENOMEM: it runs on,
 * and the handle is as good as before. Waiting twice, or two tasks at a time: abort. Outside a
 * task: abort. */
REEVE_API int reeve_proc_wait(reeve_proc *proc, struct reeve_ended *ret_ended, reeve_time until);

/** Sends a signal to the program and to all of its group: what it started itself, unless that has
 * left the group. It never waits. Any thread, inside a task or not.
 *
 * 0; -ESRCH: it has been waited for; -EINVAL: no such signal; -EPERM: it has changed its user. */
REEVE_API int reeve_proc_kill(reeve_proc *proc, int signo);

/** Ends the program: SIGTERM now, SIGKILL at `until` if it still runs, both to its whole group.
 * With REEVE_POLL, or in a task that is cancelled, SIGKILL at once; 0: at the task's own deadline,
 * if it has one. Then waits for its end, which is certain now, so this works in a cancelled task
 * too and needs no shield: it is how to give up a program.
 *
 * 0 or -ECHILD, and the handle is freed, as in reeve_proc_wait. */
REEVE_API int reeve_proc_stop(reeve_proc *proc, struct reeve_ended *ret_ended, reeve_time until);

/** The program's process number, for messages. Use it for nothing else: once the program was waited
 * for it may be another one's. -ESRCH: it was. Any thread. */
REEVE_API pid_t reeve_proc_pid(reeve_proc *proc);

/** What a run reads and writes: filled in by you, and completed by the call whatever it returns. */
struct reeve_io {
    /** Its input, then the end. None: /dev/null. The memory is copied into the pipe, by the kernel
     * and once. (A page that is lent to a pipe instead can be read through it long after the pipe
     * has run empty, so it could never be used again.) To pass on a file or a socket without any
     * copy give it in exec->fds. */
    struct reeve_bytes in;

    /** Where its output goes, and that of its descriptor 2. NULL: /dev/null, or what exec->fds
     * says. */
    void *out, *err;
    size_t out_max, err_max;

    /** More output than that: false: the program is killed, -E2BIG. true: it may go on, and what it
     * writes beyond is read and thrown away. */
    bool cut;

    /** What it gets at its deadline, or when the task is cancelled: SIGTERM, and SIGKILL so many ns
     * later. 0: SIGKILL at once. */
    int64_t grace_ns;

    /** NULL; or for each program of a chain, in its order, how it ended. */
    struct reeve_ended *each;

    /* By the call. */
    size_t out_len, err_len; /* how much is in out and err */
    bool out_cut, err_cut;   /* there was more */
    int status;              /* the last program's */
    int64_t cpu_ns;          /* of all of them */
    size_t peak_bytes;       /* the largest that is known */
};

/** Runs a program from its start to its end: feeds it io->in, collects what it writes, all at once,
 * so that no amount of either makes it stand still. The run is over when the program has ended and
 * its output has: somebody it started may still be writing. A program that ends, or closes its
 * input, before having read all of it is no error.
 *
 * 0: it ended; io->status says how. Otherwise the whole group was killed, and what had been read by
 * then is in io: -ETIMEDOUT; -ECANCELED; -E2BIG: more output than there is room for, see cut;
 * -EAGAIN: also tasks_max; -ENOMEM. Or it was not started: what reeve_proc_start says; -EINVAL:
 * also output without a place for it, or input, output or errors that exec->fds gives too. When it
 * returns the program has been waited for, whatever it returns. That may take past the deadline: by
 * grace_ns, and by what the kernel needs to end the program. Outside a task: abort.
 *     struct reeve_io io = { .in = { text, len }, .out = buf, .out_max = sizeof buf };
 *     char *const argv[] = { "sort", "-u", NULL };
 *     r = reeve_proc_run(&(struct reeve_exec){ .argv = argv }, &io, reeve_in(5 * REEVE_SEC)); */
REEVE_API int reeve_proc_run(const struct reeve_exec *exec, struct reeve_io *io, reeve_time until);

/** Runs n programs, each of which reads what the one before writes, as a shell's a | b | c does.
 * Between them the bytes go from program to program; this process does not see them. io->in is for
 * the first, io->out comes from the last, io->err from all of them. The first may be given its
 * input, and the last its output, by its fds: then no byte passes through this process.
 *
 * A program that ends early ends the others as in a shell: by the end of their input, or by SIGPIPE
 * when they write. The result is as in reeve_proc_run; -EINVAL: n is 0; -E2BIG also: n is above
 * REEVE_CHAIN_MAX, and nothing ran. If one of them cannot be started none runs on.
 *     struct reeve_exec chain[] = { { .argv = zcat }, { .argv = sort }, { .argv = uniq } };
 *     r = reeve_proc_chain(chain, 3, &io, reeve_in(60 * REEVE_SEC)); */
REEVE_API int reeve_proc_chain(const struct reeve_exec *execs, size_t n, struct reeve_io *io,
                               reeve_time until);

#ifdef __cplusplus
}
#endif
#endif /* REEVE_PROC_H */
