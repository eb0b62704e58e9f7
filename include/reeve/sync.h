/* SPDX-License-Identifier: MIT */
/** sync.h -- where tasks meet: mutex, reader-writer lock, condition, semaphore, once, barrier, wait
 * group.
 *
 * They suspend the task and never its thread, so they may be held across any wait, and a task may
 * take one on one worker and give it back on another. Each is a struct of yours, in memory of
 * yours. {0} is ready for use, except for a barrier, which has to know how many it waits for; there
 * is nothing to destroy. None may be copied or moved while it is in use, or go away before every
 * call on it has returned; a mutex, a semaphore and a wait group may go as soon as the last of
 * those who wait has what it came for.
 *
 * What holds for all of them:
 * - What is to be had at once is given at once, even to a task that is cancelled, or late.
 * - Otherwise the call waits until `until` (0: the task's own deadline, if it has one; REEVE_POLL:
 *   not at all) and returns -ETIMEDOUT once that has passed, or -ECANCELED once the task is
 *   cancelled; then it is as if it had not been called. What was granted meanwhile beats both.
 * - Who waits is served first come, first served.
 * - What cannot wait (post, signal, broadcast, add, done, init) may be called from any thread, one
 *   that is not the runtime's included. The rest is for tasks: outside one it aborts. Tasks of
 *   several runtimes may meet on one object.
 * - As long as nobody has to wait, a call is one or two atomic operations on one word.
 */
#ifndef REEVE_SYNC_H
#define REEVE_SYNC_H

#include <reeve/task.h>
#include <reeve/time.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** One holder at a time. {0} is unlocked.
 *
 * An unlock does not hand the lock over: it calls the first waiter, and whoever asks before that
 * one runs may have the lock. That is what makes a contended lock fast. But nobody is passed over
 * for long: once a called waiter has found the lock taken again, or after 16 others, the next
 * unlock hands the lock to the one who has waited longest.
 *
 * While a task of a better class waits, the holder runs in that class, up to its unlock (if both
 * are tasks of one runtime). A holder that begins to wait for a second lock does so in the class
 * that it has by then; what it is lent later, that lock's holder does not get. */
struct reeve_mutex {
    uintptr_t opaque[2];
};

/** Locks it. 0: the task holds it. -ETIMEDOUT, -ECANCELED: it does not. A task that holds it
 * already: abort.
 *     if ((r = reeve_mutex_lock(&m, 0)) < 0) return r;
 *     balance += amount;
 *     reeve_mutex_unlock(&m); */
REEVE_API int reeve_mutex_lock(struct reeve_mutex *mutex, reeve_time until);

/** Unlocks it. It never waits. Only the task that holds it may (any other, or nobody holds it:
 * abort). */
REEVE_API void reeve_mutex_unlock(struct reeve_mutex *mutex);

/** Many readers or one writer. {0} is unlocked. Readers and writers queue together: a waiting
 * writer stops new readers, and the readers behind it are let in together, so neither starves the
 * other. So a reader must not ask for a second read lock: with a writer waiting in between it would
 * wait for itself. */
struct reeve_rwlock {
    uint64_t opaque[3];
};

/** Locks it for reading, beside other readers. 0: locked. -ETIMEDOUT, -ECANCELED: not. The task
 * that holds it for writing: abort. */
REEVE_API int reeve_rwlock_read(struct reeve_rwlock *lock, reeve_time until);

/** Locks it for writing, alone. 0: locked. -ETIMEDOUT, -ECANCELED: not. The task that holds it for
 * writing: abort. */
REEVE_API int reeve_rwlock_write(struct reeve_rwlock *lock, reeve_time until);

/** Undoes one read or write. It never waits. A write lock is unlocked by the task that holds it
 * (any other: abort), a read lock by whichever task; nobody holds it: abort. */
REEVE_API void reeve_rwlock_unlock(struct reeve_rwlock *lock);

/** Where tasks wait for something to become true that a mutex guards. {0} is ready.
 *     while (r == 0 && queue.len == 0) r = reeve_cond_wait(&c, &m, until); */
struct reeve_cond {
    uint64_t opaque[3];
};

/** Unlocks the mutex, waits for a signal or a broadcast, and locks the mutex again: whatever it
 * returns, the task holds it. Locking it again takes as long as it takes, past the deadline and
 * under cancellation. A signal may come for no good reason, so wait in a loop.
 *
 * 0: signalled. -ETIMEDOUT, -ECANCELED: not signalled; with REEVE_POLL, or when the task is
 * cancelled already, the mutex was not unlocked at all. A mutex that the task does not hold: abort.
 * Those who wait at one time may use different mutexes. */
REEVE_API int reeve_cond_wait(struct reeve_cond *cond, struct reeve_mutex *mutex,
                              reeve_time until);

/** Ends the wait of the one who has waited longest; nobody waits: does nothing. The caller need not
 * hold the mutex, but what it signals must have been changed under it. A task that has to wait for
 * the mutex now is not woken for that: it queues where it is. */
REEVE_API void reeve_cond_signal(struct reeve_cond *cond);

/** The same for all who wait. They get the mutex one after the other. */
REEVE_API void reeve_cond_broadcast(struct reeve_cond *cond);

/** Permits to take and give back. {0} has none, and no maximum. */
struct reeve_sem {
    uint64_t opaque[3];
};

/** value permits, never more than max. 0; -EINVAL: max is 0, or value above it. Nobody uses it
 * meanwhile. */
REEVE_API int reeve_sem_init(struct reeve_sem *sem, uint32_t value, uint32_t max);

/** Takes a permit. 0: it has one. -ETIMEDOUT, -ECANCELED: it has not. A permit that is posted while
 * tasks wait goes to the first of them, and nobody can get in before it. */
REEVE_API int reeve_sem_wait(struct reeve_sem *sem, reeve_time until);

/** Adds a permit, taken before or not. Any thread. 0; -EINVAL: there would be more than max, and
 * nothing changed. */
REEVE_API int reeve_sem_post(struct reeve_sem *sem);

/** Something that is done once. {0} is not yet done. */
struct reeve_once {
    uint64_t opaque[3];
};

/** Runs fn(arg), unless that was done before. Whoever comes while it runs waits for it; `until`
 * bounds that wait, and not fn itself. fn may wait.
 *
 * 0: fn has been run, by this call or by another, and what it wrote can be read. < 0: fn failed, in
 * this call or in the one that was waited for, with this error; it counts as not done, and the next
 * call runs it again. Or -ETIMEDOUT, -ECANCELED: the run that was waited for goes on. fn calling
 * this on the same once, in the same task: abort. Once it is done, any thread may call this.
 *     if ((r = reeve_once_run(&loaded, load, NULL, 0)) < 0) return r; */
REEVE_API int reeve_once_run(struct reeve_once *once, reeve_fn *fn, void *arg, reeve_time until);

/** Where n tasks wait for each other, again and again. It must be initialised. */
struct reeve_barrier {
    uint64_t opaque[3];
};

/** 0; -EINVAL: n is 0. Nobody uses it meanwhile. */
REEVE_API int reeve_barrier_init(struct reeve_barrier *barrier, uint32_t n);

/** Waits until n tasks have come, then all of them go on and it starts anew. 1: the caller was the
 * last to come. 0: it was not. -ETIMEDOUT, -ECANCELED: it has left and is not counted. One that was
 * not initialised: abort. */
REEVE_API int reeve_barrier_wait(struct reeve_barrier *barrier, reeve_time until);

/** A count of what is under way, and a wait until there is nothing. {0} counts nothing. */
struct reeve_waitgroup {
    uint64_t opaque[3];
};

/** Counts n more. To be called before the work can be done, or a waiter may find 0 too early. */
REEVE_API void reeve_waitgroup_add(struct reeve_waitgroup *group, uint32_t n);

/** Counts one less; at 0 all who wait go on. Any thread. Below 0: abort. */
REEVE_API void reeve_waitgroup_done(struct reeve_waitgroup *group);

/** Waits until the count is 0. 0: it was, and what was done before each done can be read.
 * -ETIMEDOUT, -ECANCELED. */
REEVE_API int reeve_waitgroup_wait(struct reeve_waitgroup *group, reeve_time until);

#ifdef __cplusplus
}
#endif
#endif /* REEVE_SYNC_H */
