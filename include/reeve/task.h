/* SPDX-License-Identifier: MIT */
/** task.h -- tasks: spawn, join, cancel; groups.
 *
 * A task is a function with a stack of its own while it needs one. It costs a small descriptor
 * until it first runs, so a million queued ones are no trouble. It may move to another worker's
 * thread at any wait, unless it is pinned (.worker).
 *
 * Tasks are structured: none outlives the scope it was spawned in. Every task has a scope, and what
 * it spawns without naming a group goes there. When its function returns >= 0 the scope is waited
 * for; when it returns < 0 the scope is cancelled first. Only then is the task done. A child that
 * fails in a task's own scope is counted and nobody else hears of it (one failed handler does not
 * take the server down); a reeve_group is a scope whose failures count.
 *
 * Who may call: everything here is called inside a task and aborts outside one, except what
 * says otherwise. Threads that are not the runtime's use reeve_post and reeve_call (runtime.h).
 */
#ifndef REEVE_TASK_H
#define REEVE_TASK_H

#include <reeve/time.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** The handle of a task: a number in disguise, never an address. A handle that is used too late is
 * recognised, not followed. */
typedef struct reeve_task reeve_task;

/** A task's function. It returns >= 0, or -errno for failure. */
typedef int reeve_fn(void *arg);

/** A scope of its own. {0} is an empty group. It is owned by the task that makes the first spawn
 * into it: the owner alone waits for it, and has to; members may spawn into it too. A task that
 * ends while it owns a group that was not waited for aborts the program. It must not move in memory
 * while it has members. */
typedef struct reeve_group {
    uint64_t opaque;
} reeve_group;

/** Classes of priority. 0 stands for the spawner's; the root task and posted ones are NORMAL. */
enum { REEVE_LOW = 1, REEVE_NORMAL, REEVE_HIGH, REEVE_URGENT };

/** How to spawn. Zero is always the default; only fn is needed. */
struct reeve_spawn {
    reeve_fn *fn;
    void *arg;

    /** n > 0: the task gets a copy of the n bytes at arg, made before the spawn returns and freed
     * with the task; 64 KiB at most. 0: the task gets arg itself. */
    size_t copy;

    /** REEVE_LOW .. REEVE_URGENT; 0: the spawner's. A better class goes first, wherever it waits,
     * but cannot starve the others: HIGH gets at least 1 of 8 picks of a worker, NORMAL 1 of 16,
     * LOW 1 of 32. Nobody is interrupted: see reeve_need_resched. */
    int priority;

    /** Bounds every wait of the task and is inherited by its children. 0: the spawner's; otherwise
     * the earlier of the two; never negative. If it passes before the task starts, the task never
     * starts. A task that was given one goes by it: within a class the earliest deadline first. */
    reeve_time deadline;

    /** 1 + index: the task starts on that worker and stays there. 0: anywhere. */
    int worker;

    /** How much stack the task may use, 4 KiB .. 1 MiB. 0: the runtime's (reeve_opts). */
    size_t stack_bytes;

    /** The scope. NULL: the spawner's own. */
    reeve_group *group;

    /** Called with arg (or the copy) instead of fn if the task never starts, because its deadline
     * passed, it was cancelled, the runtime shut down, or no stack could be had; so that what arg
     * owns can be released. It runs outside any task: a call that waits or spawns aborts there;
     * reeve_close and reeve_buf_return are fine. NULL: nothing is called. */
    void (*skipped)(void *arg);

    /** For people who look at the program. It must live as long as the task: a literal. */
    const char *name;
};

/** Spawns a task as *how says. It does not run yet when this returns, and the spawner goes on.
 *
 * ret_task NULL: nobody will join it. Otherwise *ret_task is its handle, good until it is joined or
 * the scope ends, whichever comes first; leaving it unjoined is allowed.
 *
 * 0: spawned; from now on either fn or skipped is called, exactly once. -EAGAIN: tasks_max tasks
 * are alive. -ENOMEM. -E2BIG: copy is above 64 KiB. -EINVAL: no fn, copy without arg, a
 * negative deadline, or priority, worker or stack_bytes out of range. A spawn into a cancelled
 * scope succeeds, and the task is skipped. */
REEVE_API int reeve_spawn_with(reeve_task **ret_task, const struct reeve_spawn *how);

#ifndef __cplusplus /* C++ fills the struct and calls _with */

/** reeve_spawn(&task, fn, arg [, .deadline = ..., .copy = ..., any field]) */
#define reeve_spawn(ret_task, f, ...)                                                              \
    reeve_spawn_with(ret_task, &(struct reeve_spawn){ .fn = (f), .arg = __VA_ARGS__ })

/** The same for a task that nobody will join.
 *     if (reeve_go(greet, &fd, .copy = sizeof fd, .skipped = close_it) < 0) reeve_close(fd); */
#define reeve_go(f, ...) reeve_spawn(NULL, f, __VA_ARGS__)

#endif

/** Waits until the task is done: its function has returned and its scope is empty. One that has not
 * started yet may run right here, on the joiner's stack; that is what makes spawn and join cheap.
 *
 * 0: done, and the handle is freed. *ret_result (which may be NULL) is what its function returned;
 * or, if it never started, -ETIMEDOUT (its deadline passed), -ECANCELED (cancelled or shut down) or
 * -ENOMEM (no stack). < 0: not done, and the handle is as good as before, join again: -ETIMEDOUT
 * until passed, -ECANCELED the joiner is cancelled. Joining twice, by two tasks at a time, or
 * oneself: abort.
 *     reeve_task *t;
 *     if (reeve_spawn(&t, count, &part) == 0 && reeve_join(t, &n, 0) == 0) total += n; */
REEVE_API int reeve_join(reeve_task *task, int *ret_result, reeve_time until);

/** Cancels the task and, through its scope and the groups it owns, everything below it: their waits
 * fail with -ECANCELED from now on, those they are in included, and what has not started never
 * starts (except what a task further down queued while it has not waited for anything since: that
 * starts, and its first wait fails). It sticks. A task that computes on is not interrupted. On a
 * task that is over, joined or not, this does nothing. It does not wait: join it for that. */
REEVE_API void reeve_cancel(reeve_task *task);

/** Waits until every member of the group is done; members that have not started may run right here.
 * Only the group's owner calls it (another task: abort). The first member without a handle that
 * fails cancels the rest; what a member with a handle returns is its joiner's business.
 *
 * When this returns, whatever it returns, all members are done and the group is empty, ready to be
 * used again. 0: nobody failed. < 0: that first failure, for which a member counts that never
 * started (-ECANCELED, -ETIMEDOUT or -ENOMEM, as in reeve_join); or -ETIMEDOUT: until passed, upon
 * which the members were cancelled and waited for; or -ECANCELED: the owner is cancelled, and so
 * were they. (So it returns late when a member computes on.)
 *     reeve_group g = {0};
 *     for (int i = 0; i < n; i++) reeve_go(fetch, &url[i], .group = &g);
 *     return reeve_group_wait(&g, reeve_in(5 * REEVE_SEC)); */
REEVE_API int reeve_group_wait(reeve_group *group, reeve_time until);

/** Cancels every member, as reeve_cancel does. The owner or a member calls it. An empty group: does
 * nothing. It does not wait. */
REEVE_API void reeve_group_cancel(reeve_group *group);

/** For the end of a task that is cancelled or late: its waits work again until then, and so do
 * those of what it spawns from now on. `until` takes the place of the task's deadline, and there is
 * no way back: when it has passed, waits fail with -ETIMEDOUT. Does not wait. 0; -EINVAL: until is
 * not above 0.
 *     if (r == -ECANCELED && reeve_shield(reeve_in(REEVE_SEC)) == 0)
 *         reeve_write(fd, "bye\n", 4, 0); */
REEVE_API int reeve_shield(reeve_time until);

/** True if a task that computes had better let others run, by reeve_sleep(0): it has had its time,
 * a task of a better class waits, or I/O has completed that such a task waits for. Costs a few ns.
 *     for (i = 0; i < n; i++) { hash(&block[i]); if (reeve_need_resched()) reeve_sleep(0); } */
REEVE_API bool reeve_need_resched(void);

#ifdef __cplusplus
}
#endif
#endif /* REEVE_TASK_H */
