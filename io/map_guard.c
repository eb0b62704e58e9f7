/* SPDX-License-Identifier: MIT */
/*
 * map_guard.c -- the handler of SIGBUS that a program may ask for.
 *
 * A page of a mapped file that is behind the file's end by now cannot be had, and who touches it is
 * interrupted by SIGBUS. The handler looks the address up among the maps, puts a page of zeroes
 * there, marks the map, and returns: the instruction is done again, reads a zero, and goes on. No
 * jump is made out of the handler, so no code has to be ready for one, whatever it holds or however
 * deep it is in somebody's parser; the mark is asked for where it matters.
 *
 *     nobody's -> ours           [reeve_map_guard, the first]     what was there is kept
 *     ours -> as it was          [reeve_map_unguard, the last]
 *     ours, another one on top   [reeve_map_unguard, the last]    stays, and passes all on
 *
 * (1) Only what the kernel says of an address (BUS_ADRERR) within a map is ours. Failing memory,
 *     accesses that are not aligned, signals that somebody sent, addresses elsewhere: all of that
 *     goes on to who was there before, and if that was the default, it ends the process, at the
 *     instruction that was at fault.
 * (2) The handler takes no lock and allocates nothing: it reads records that are never unmapped,
 *     and makes two system calls, statx and mmap. errno stays.
 * (3) Several threads may fault on one map. Each puts zeroes in place, over zeroes perhaps.
 * (4) `before` changes only while `users` is 0 and our handler is not installed, or has nothing to
 *     do with it any more.
 *
 * Threads: guard, unguard - any; the handler - any.
 */
#include <errno.h>
#include <pthread.h>
#include <reeve/map.h>
#include <signal.h>
#include <stddef.h>

#include "io/map.h"
#include "mem/die.h"
#include "mem/rv_atomic.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static RV_ATOMIC(uint32_t) users; /* changes under the lock */
static bool installed;            /* under the lock: ours is somewhere in the chain */
static struct sigaction before;   /* who was there; published by `users` */

/* To its end, by the default action: at a fault of its own the thread repeats it. */
static void end_process(int number, const siginfo_t *info)
{
    struct sigaction plain = { .sa_handler = SIG_DFL };
    sigaction(number, &plain, NULL);
    if (info->si_code <= 0)
        raise(number); /* blocked up to the return from the handler */
}

static void pass_on(int number, siginfo_t *info, void *context)
{
    if (before.sa_flags & SA_SIGINFO)
        before.sa_sigaction(number, info, context);
    else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN)
        before.sa_handler(number);
    else if (before.sa_handler == SIG_DFL || info->si_code > 0) /* a fault cannot be ignored */
        end_process(number, info);
}

static void handler(int number, siginfo_t *info, void *context)
{
    int saved = errno;
    bool guarded = rv_load_acquire(&users) > 0; /* pairs with reeve_map_guard() */
    if (!guarded || info->si_code != BUS_ADRERR || !rv_map_mend((uintptr_t)info->si_addr))
        pass_on(number, info, context);
    errno = saved;
}

/* Under the lock. */
static int install(void)
{
    struct sigaction ours = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK };
    sigfillset(&ours.sa_mask);
    if (sigaction(SIGBUS, NULL, &before) < 0)
        return -errno;
    rv_store_release(&users, 1u); /* publishes `before`; pairs with the load in handler() */
    if (sigaction(SIGBUS, &ours, NULL) < 0) {
        int r = -errno;
        rv_store_release(&users, 0u);
        return r;
    }
    installed = true;
    return 0;
}

int reeve_map_guard(void)
{
    int saved = errno, r = 0;
    pthread_mutex_lock(&lock);
    if (installed)
        (void)rv_add_acq_rel(&users, 1u);
    else
        r = install();
    pthread_mutex_unlock(&lock);
    errno = saved;
    return r;
}

void reeve_map_unguard(void)
{
    struct sigaction now;
    int saved = errno;
    pthread_mutex_lock(&lock);
    if (rv_load_relaxed(&users) == 0)
        rv_die("reeve_map_unguard was called more often than reeve_map_guard.");
    if (rv_sub_acq_rel(&users, 1u) == 1 && sigaction(SIGBUS, NULL, &now) == 0 &&
        now.sa_flags & SA_SIGINFO && now.sa_sigaction == handler)
        installed = sigaction(SIGBUS, &before, NULL) < 0;
    pthread_mutex_unlock(&lock);
    errno = saved;
}
