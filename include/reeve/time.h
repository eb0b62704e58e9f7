/* SPDX-License-Identifier: MIT */
/** time.h -- one type for every point in time: absolute, monotonic, nanoseconds.
 *
 * Deadlines are absolute so that they compose: a function passes its own on to everything it calls
 * and nobody subtracts. A task may have a deadline too (task.h); what counts in a wait is the
 * earlier one, the argument or the task's own.
 */
#ifndef REEVE_TIME_H
#define REEVE_TIME_H

#include <stdint.h>

/** Marks what the shared library exports. */
#define REEVE_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

/** A point on CLOCK_MONOTONIC in nanoseconds. As a deadline: 0 is the task's own, and none if it
 * has none; a time already past, any negative one included, means now or not at all. */
typedef int64_t reeve_time;

#define REEVE_US INT64_C(1000)
#define REEVE_MS INT64_C(1000000)
#define REEVE_SEC INT64_C(1000000000)

/** A deadline already past: the call does what it can do at once, or says -ETIMEDOUT. */
#define REEVE_POLL INT64_C(-1)

/** The time now; always > 0. Any thread, inside a task or not. Workers keep clocks of their own,
 * never ahead of CLOCK_MONOTONIC and less than 10 us behind it: for one task time does not go
 * back, while two tasks that run at once may differ by that much. */
REEVE_API reeve_time reeve_now(void);

/** The time ns from now. It saturates instead of wrapping and is never 0: reeve_in(INT64_MAX) never
 * comes, reeve_in(0) and less are past when they are used.
 *     n = reeve_read(fd, buf, sizeof buf, reeve_in(30 * REEVE_SEC)); */
REEVE_API reeve_time reeve_in(int64_t ns);

/** Suspends the task until that time. 0, or a time already past, is a yield: whoever is ready on
 * this worker runs before the task goes on. (So 0 is not the task's own deadline here.)
 *
 * 0: the time has come, or the yield is over. -ECANCELED: the task is cancelled. -ETIMEDOUT: its
 * own deadline passed first. A yield happens in any case and returns these two as well, so that a
 * task which only computes can learn that it should stop. Outside a task: abort. */
REEVE_API int reeve_sleep(reeve_time until);

#ifdef __cplusplus
}
#endif
#endif /* REEVE_TIME_H */
