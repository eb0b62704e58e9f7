/* SPDX-License-Identifier: MIT */
/** cpus.h -- CPUs: which ones there are for this process, lists of them, and taking turns on them.
 *
 * A list of CPUs is an array of their numbers as the kernel counts them, 0 .. 1023. It is what
 * reeve_opts.cpus wants. Nothing here waits or needs a runtime; everything may be called on any
 * thread, inside a task or not.
 */
#ifndef REEVE_CPUS_H
#define REEVE_CPUS_H

#include <reeve/time.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Reads a list as people and the kernel write it: numbers and ranges between commas, no blanks,
 * "0-3,8,10-11". The order is kept, and so is a CPU that is named twice: it gets two turns.
 *
 * How many are in cpus now, at least 1; or -EINVAL: it is NULL, empty or malformed, a range runs
 * backwards, or a number is above 1023; -ERANGE: there are more than cap. Then cpus is untouched.
 *     int cpus[64], n = reeve_cpus_parse("0-3,8", cpus, 64);
 *     if (n > 0) r = reeve_run(serve, NULL, .workers = (unsigned)n, .cpus = cpus); */
REEVE_API int reeve_cpus_parse(const char *list, int *cpus, unsigned cap);

/** The CPUs that this process may use: those of the calling thread's affinity mask, but no more
 * than the CPU quota of its cgroup pays for at a time. (A worker that is pinned sees its own CPU
 * alone: ask before you start a runtime.) They come in the order in which work spreads best: one
 * CPU of each core before any second one, and what shares a NUMA node, then a last-level cache,
 * side by side.
 *
 * How many are in cpus now, at least 1; cap of them if there are more. -EINVAL: cap is 0; -ENOMEM.
 *     int cpus[64], n = reeve_cpus_usable(cpus, 64); */
REEVE_API int reeve_cpus_usable(int *cpus, unsigned cap);

/** Deals out the CPUs of a list in turn, for programs and threads that are to be spread over them.
 * {0} is one without a list. It must not move while others use it. */
struct reeve_placer {
    const int *cpus; /* lent */
    unsigned count;
    uint64_t opaque;
};

/** Begins at the start of a list of count CPUs, which must outlive the placer's use. 0; or -EINVAL:
 * the list is empty, or a number in it is out of range; then *placer is untouched. */
REEVE_API int reeve_placer_init(struct reeve_placer *placer, const int *cpus, unsigned count);

/** The next CPU; after the last one comes the first. Any number of threads at a time: each call
 * takes one turn. -EINVAL: it has no list. */
REEVE_API int reeve_placer_next(struct reeve_placer *placer);

#ifdef __cplusplus
}
#endif
#endif /* REEVE_CPUS_H */
