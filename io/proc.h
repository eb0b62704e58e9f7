/* SPDX-License-Identifier: MIT */
/*
 * proc.h -- programs: from an argv to a process, and to what is left of it.
 *
 *     proc_exec.c   struct rv_launch: a process made and turned into the program
 *     proc.c        the table of programs: handles, the bound, waiting, killing, reaping
 *     proc_run.c    running programs on bytes, alone or in a chain
 */
#ifndef RV_IO_PROC_H
#define RV_IO_PROC_H

#include <reeve/proc.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct rv_io_worker;

/* ---- proc_exec.c ---- */

struct rv_launch;

/* Checks it all and prepares it: fds NULL: exec's own; else these fds_n. inherited: the CPUs of a
 * program that asks for none; NULL: those of the thread that launches it. What exec points to is
 * used until finish. 0, -EINVAL, -ENOMEM. */
int rv_launch_prepare(struct rv_launch **ret_launch, const struct reeve_exec *exec, const int *fds,
                      unsigned fds_n, const cpu_set_t *inherited);
/* Starts it and waits until it is the program, or has failed to become it. Once. Any thread. 0, or
 * what reeve_proc_start says. */
int rv_launch_run(struct rv_launch *launch, pid_t *ret_pid, int *ret_pidfd);
/* NULL is fine. */
void rv_launch_finish(struct rv_launch *launch);

/* The name that the program was asked for by. */
const char *rv_launch_name(const struct rv_launch *launch);

/* ---- proc.c ---- */

/* Of this process, since it began. */
struct rv_proc_counts {
    uint64_t started; /* programs */
    uint64_t ended; /* of these, waited for; the others are alive, or ended and nobody has asked */
    uint64_t refused; /* starts that failed: the kernel's refusals, not bad arguments */
    uint64_t pooled;  /* starts by the offload pool, refused or not */
};
void rv_proc_counts(struct rv_proc_counts *ret_counts);

/* For the simulator. The programs that have not been reaped, cap of them at most: how many. And: no
 * program was ever started here, as far as the guess goes how long that takes. And: before each
 * signal to a program fn is called, which sees to how far it has come by then; NULL: nothing is. */
unsigned rv_proc_alive(pid_t *ret_pids, unsigned cap);
void rv_proc_forget(void);
void rv_proc_before_kill(void (*fn)(void));

/* Waits for a permit of the semaphore (NULL: none is needed) and for n places in the table. 0,
 * -ETIMEDOUT, -ECANCELED. */
int rv_proc_admit(struct reeve_sem *permits, unsigned n, reeve_time until);
/* Gives n places back that were not used, and the permit. */
void rv_proc_dismiss(struct reeve_sem *permits, unsigned n);

/* The CPUs of a program that asks for none, where those of its worker would not do, because that is
 * pinned; else NULL. */
const cpu_set_t *rv_proc_cpus(const struct rv_io_worker *iw);

/* Starts what is prepared, in a place that was waited for; on success the place is the program's.
 * permits: posted when it has been reaped; NULL: by its caller. */
int rv_proc_launch(reeve_proc **ret_proc, struct rv_launch *launch, struct reeve_sem *permits,
                   reeve_time until);

/* Waits for the end of a program, and leaves it unreaped: its number is its own, signals to its
 * group go nowhere else. 0, -ETIMEDOUT, -ECANCELED, -ENOMEM. One task at a time. */
int rv_proc_await(reeve_proc *proc, reeve_time until);
/* The same for a program that is about to end: past cancellation and deadlines. */
void rv_proc_await_end(reeve_proc *proc);
/* What is left of an ended program; its handle is gone. 0, -ECHILD. */
int rv_proc_reap(reeve_proc *proc, struct reeve_ended *ret_ended);

#endif
