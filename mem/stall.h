/* SPDX-License-Identifier: MIT */
/*
 * stall.h -- threads that stand still at random, for builds that look for races.
 *
 * What lies between two steps of a thread is hardly ever seen by another one, until a thread is
 * preempted just there on a busy machine. With REEVE_STALLS the compiler calls these two at the
 * beginning and the end of every function of the library (-finstrument-functions), and now and
 * then they sleep, for as long as a preemption may last. Nothing in the code says so, and no other
 * build knows of it.
 */
#ifndef RV_MEM_STALL_H
#define RV_MEM_STALL_H

void __cyg_profile_func_enter(void *function, void *caller);
void __cyg_profile_func_exit(void *function, void *caller);

#endif
