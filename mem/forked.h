/* SPDX-License-Identifier: MIT */
/*
 * forked.h -- what is left of the library in a child that fork(2) made.
 *
 * A child has its parent's memory and one thread. The workers are not there, and their rings are
 * the parent's. So a child belongs to no runtime, and whatever was the process's own is put back to
 * what it was before the first one; a runtime that was made before knows that it is only a copy.
 */
#ifndef RV_MEM_FORKED_H
#define RV_MEM_FORKED_H

#include <stdint.h>

/* Has this called in every child from now on, on its one thread, before fork returns there: it may
 * make system calls and write memory, and takes no locks. Each function once. Any thread. */
void rv_fork_hook(void (*child)(void));

/* How many forks lie between this process and the first that used the library. */
uint32_t rv_forks(void);

#endif
