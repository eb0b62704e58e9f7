/* SPDX-License-Identifier: MIT */
/*
 * thread.h -- starting a thread of the library's own.
 */
#ifndef RV_MEM_THREAD_H
#define RV_MEM_THREAD_H

#include <pthread.h>

/* Starts main(arg) in a new thread, which its owner joins. It begins with all signals blocked but
 * those about its own faults, because a signal is for the host's threads; its broken pipes are
 * plain -EPIPE. 0 or -errno, mostly -EAGAIN. Any thread. */
int rv_thread_start(pthread_t *ret_thread, void *(*main)(void *), void *arg);

#endif
