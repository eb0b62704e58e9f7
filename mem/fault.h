/* SPDX-License-Identifier: MIT */
/*
 * fault.h -- fault points: places that can be told to fail, so that every error path is run.
 *
 *     if (RV_FAULT("timer.heap"))
 *         return -ENOMEM;
 *
 * Every allocation, mapping, thread creation and ring call has one. Without RV_FAULTS the point is
 * the constant 0. With it, a disarmed point costs one relaxed load. A test arms the n-th point
 * from now, runs the thing, and repeats with n + 1 until nothing failed any more:
 *
 *     for (n = 1; rv_fault_fail_nth(n), r = thing(), rv_fault_last_name(); n++)
 *         CHECK(r == -ENOMEM);
 *
 * Names are string literals, "module" or "module.what". Threads: any; the setters - one.
 */
#ifndef RV_MEM_FAULT_H
#define RV_MEM_FAULT_H

#include <stdbool.h>
#include <stdint.h>

#include "mem/rv_atomic.h"

#ifdef RV_FAULTS
#define RV_FAULT(name) (rv_load_relaxed(&rv_fault_armed) != 0 && rv_fault_reached(name))
#else
#define RV_FAULT(name) ((void)(name), 0)
#endif

extern RV_ATOMIC(uint32_t) rv_fault_armed;
bool rv_fault_reached(const char *name);        /* behind RV_FAULT */

/* Whether the library was built with RV_FAULTS; otherwise the calls below do nothing. */
bool rv_fault_available(void);

/* Arms: the n-th point reached from now fails, once. 0: none fails, but all are counted. */
void rv_fault_fail_nth(uint64_t n);

/* Disarms, and forgets the name given to rv_fault_only(). */
void rv_fault_off(void);

/* From the next arming on only points whose names start with this count; NULL: all. Lent. */
void rv_fault_only(const char *start);

/* The points reached since arming. */
uint64_t rv_fault_count(void);

/* The name of the point that failed since arming; NULL: none has. */
const char *rv_fault_last_name(void);

#endif
