/* SPDX-License-Identifier: MIT */
/*
 * world.h -- what code in a model sees of the world. Every file of a model is compiled with this
 * included first, and with WORLD_INSIDE defined; the explorer itself sees the real one.
 *
 * The kernel, the clocks and the allocator are the explorer's: futexes put a model's threads to
 * sleep, time stands still while they run, and memory comes from an arena that is put back before
 * each execution, at the same addresses. The code itself is not changed for it.
 */
#ifndef TESTS_EXPLORE_WORLD_H
#define TESTS_EXPLORE_WORLD_H

#ifndef __ASSEMBLER__

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

long world_syscall(long nr, ...);
int world_clock_gettime(clockid_t clock, struct timespec *ret_time);
unsigned long long world_rdtsc(void);
void *world_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset);
int world_munmap(void *start, size_t bytes);
int world_mprotect(void *start, size_t bytes, int prot);
int world_madvise(void *start, size_t bytes, int advice);
void *world_malloc(size_t bytes);
void *world_calloc(size_t n, size_t bytes);
int world_posix_memalign(void **ret_block, size_t align, size_t bytes);
void world_free(void *block);
int world_relax(void);
int world_getattr(pthread_t thread, pthread_attr_t *ret_attr);

/* ---- for explore.c ---- */

/* Forgets everything; the arena is empty. */
void world_clear(void);
/* Remembers the arena as it is, and puts it back. */
void world_save(void);
void world_restore(void);
/* Its own variables, which are not to be put back. */
struct world_own {
    unsigned char *start, *end;
};
struct world_own world_own(void);
/* In explore.c, for world.c: says in which execution it happened. */
void explore_crashed(void);

/* What a signal sent by tgkill() runs; the thread's number is its index and 1. */
extern void (*world_handler)(void);

/* Whether membarrier is there; false: it is refused, as by an old kernel. */
extern bool world_light_fences;

#if defined(WORLD_INSIDE)
#define syscall(...) world_syscall(__VA_ARGS__)
#define clock_gettime(clock, ret) world_clock_gettime(clock, ret)
#define __builtin_ia32_rdtsc() world_rdtsc()
#define mmap(...) world_mmap(__VA_ARGS__)
#define munmap(start, bytes) world_munmap(start, bytes)
#define mprotect(start, bytes, prot) world_mprotect(start, bytes, prot)
#define madvise(start, bytes, advice) world_madvise(start, bytes, advice)
#define malloc(bytes) world_malloc(bytes)
#define calloc(n, bytes) world_calloc(n, bytes)
#define posix_memalign(ret, align, bytes) world_posix_memalign(ret, align, bytes)
#define free(block) world_free(block)
#define sched_yield() world_relax()
#define nanosleep(time, left) ((void)(time), world_relax())
#define pthread_getattr_np(thread, ret) world_getattr(thread, ret)
#endif

#endif /* __ASSEMBLER__ */
#endif
