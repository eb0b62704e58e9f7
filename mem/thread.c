/* SPDX-License-Identifier: MIT */
/*
 * thread.c -- a thread of the library's own: as quiet a guest in the process as it can be.
 *
 * (1) The signals are blocked in the creator, before there is a thread, and the new one inherits
 *     that: at no moment could it take a signal that is meant for the host. What a thread does
 *     wrong itself is not blocked, since then the kernel would kill the process without a word to
 *     the host's handler; nor is SIGPROF, so that profilers see the thread.
 * Threads: any.
 */
#include "mem/thread.h"

#include <signal.h>
#include <stddef.h>

#include "mem/die.h"

int rv_thread_start(pthread_t *ret_thread, void *(*main)(void *), void *arg)
{
    static const int own[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGPROF };
    sigset_t all, was;
    pthread_t thread;
    sigfillset(&all);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        sigdelset(&all, own[i]);
    RV_MUST(pthread_sigmask(SIG_SETMASK, &all, &was) == 0); /* (1) */
    int r = pthread_create(&thread, NULL, main, arg);
    RV_MUST(pthread_sigmask(SIG_SETMASK, &was, NULL) == 0);
    if (r == 0)
        *ret_thread = thread;
    return -r;
}
