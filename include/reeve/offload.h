/* SPDX-License-Identifier: MIT */
/** offload.h -- calls that block a thread: name lookups, compression, a library without sockets of
 * its own.
 *
 * A task that blocks its thread blocks every other task of that worker. Such a call goes to the
 * runtime's offload pool: threads of its own, at most offload_max (runtime.h), made when a call
 * finds none idle and gone after ten idle seconds. Calls beyond that wait in a queue, first come,
 * first served; each is a waiting task, so tasks_max bounds it.
 */
#ifndef REEVE_OFFLOAD_H
#define REEVE_OFFLOAD_H

#include <reeve/task.h>
#include <reeve/time.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Runs fn(arg) on a thread of the pool, where it may block, and waits for it.
 *
 * While the call is in the queue, its deadline or the cancellation of its task takes it out again,
 * and fn never runs. Once fn has begun it is waited for, however long it takes, because arg may lie
 * on the caller's stack: then the call returns late, with what fn returned. Bound fn itself.
 *
 * fn is not in a task: it may call what works on any thread (reeve_now, reeve_post), and a call
 * that waits or spawns aborts. Signals do not reach its thread. It runs after everything that the
 * caller did before, and before everything it does after.
 *
 * What fn returned; or, and then fn has not run: -ECANCELED; -ETIMEDOUT: the deadline passed before
 * fn could begin; -EAGAIN, -ENOMEM: the pool has no thread, and could not make one; -ENOTSUP: the
 * runtime has no pool (offload_max is REEVE_NONE); -ESHUTDOWN: it is being destroyed; -EINVAL: no
 * fn. Who must tell these from fn's own errors lets fn leave a mark in *arg. Outside a task: abort.
 *     struct lookup l = { .host = host };
 *     int r = reeve_offload(resolve, &l, reeve_in(2 * REEVE_SEC)); */
REEVE_API int reeve_offload(reeve_fn *fn, void *arg, reeve_time until);

#ifdef __cplusplus
}
#endif
#endif /* REEVE_OFFLOAD_H */
