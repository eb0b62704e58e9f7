/* SPDX-License-Identifier: MIT */
/*
 * signal.h -- the one signal that reeve uses, and how threads of workers receive it.
 */
#ifndef RV_SCHED_SIGNAL_H
#define RV_SCHED_SIGNAL_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

#include "sched/worker.h"

/* Reserves a signal for a runtime: number `want`, or, if that is 0, the first real-time signal that
 * has its default action. Runtimes of one process share it. Its number; -EBUSY: somebody else
 * handles it (0: all of them); -EINVAL: no signal that can be handled, or one that means a fault.
 * Any thread. */
int rv_signal_take(int want);
/* Gives it back; the last one restores what was there. No thread of a runtime's may be sent it any
 * more. Any thread. */
void rv_signal_give(int number);

/* What a thread was before it could receive the signal. */
struct rv_signal_thread {
    int number;     /* 0: nothing was changed */
    sigset_t mask;
    void *stack;    /* the alternate one, ours; NULL: it had one */
    size_t stack_bytes;
};

/* The calling thread can receive the signal, on an alternate stack, until detach. 0 or -ENOMEM. */
int rv_signal_attach(struct rv_signal_thread *th, int number);
/* No signal is sent to it any more; what is still under way is eaten. */
void rv_signal_detach(struct rv_signal_thread *th);

#endif
