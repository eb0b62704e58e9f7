/* SPDX-License-Identifier: MIT */
/** watch.h -- a watch cell: the latest value of something, and waiting for it to change.
 *
 * One cell holds one value of a fixed size, all of whose bytes are 0 at first. Whoever sets it
 * overwrites the value; whoever waits is woken by every set, and sees the latest value, perhaps not
 * each one in between. Versions tell them apart: 0 before the first set, and one more with each.
 *
 * A value is always seen whole, with the version that belongs to it. Reading takes no lock, as long
 * as no set comes in between.
 *
 * Who may call: everything but a wait that has to wait, on any thread; waiting is for tasks, of any
 * number of runtimes.
 */
#ifndef REEVE_WATCH_H
#define REEVE_WATCH_H

#include <reeve/time.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A watch cell. It belongs to whoever created it, and is destroyed once. */
typedef struct reeve_watch reeve_watch;

/** A cell for values of `bytes` bytes (0: nothing but versions). NULL: no memory. */
REEVE_API reeve_watch *reeve_watch_create(size_t bytes);

/** Makes the bytes at value the latest value, and wakes everybody who waits. With no bytes, value
 * is not looked at. 0; -EPIPE: the cell is closed, nothing was set; -EINVAL: value is NULL though
 * it has bytes. It does not wait. */
REEVE_API int reeve_watch_set(reeve_watch *watch, const void *value);

/** Copies the latest value to value (NULL: copies nothing) and returns its version. It does not
 * wait, and works on a closed cell. */
REEVE_API uint64_t reeve_watch_get(reeve_watch *watch, void *value);

/** Waits until the latest version is another than *version; then copies the latest value to value
 * (NULL: copies nothing) and stores its version in *version.
 *
 * 0: done. Otherwise neither was touched: -EPIPE the cell is closed, and its last value is version
 * *version; -ETIMEDOUT until passed (REEVE_POLL: it is the latest); -ECANCELED the task is
 * cancelled. A newer value beats all of these.
 *     uint64_t seen = 0;
 *     while (reeve_watch_wait(config, &c, &seen, 0) == 0) apply(&c); */
REEVE_API int reeve_watch_wait(reeve_watch *watch, void *value, uint64_t *version,
                               reeve_time until);

/** Nothing is set any more. Who waits, or will, gets what he has not seen yet, then -EPIPE. A
 * second close does nothing. It does not wait. */
REEVE_API void reeve_watch_close(reeve_watch *watch);

/** Frees the cell. Nobody uses it any more; a task that still waits on it aborts the program. NULL:
 * does nothing. */
REEVE_API void reeve_watch_destroy(reeve_watch *watch);

#ifdef __cplusplus
}
#endif
#endif /* REEVE_WATCH_H */
