/* SPDX-License-Identifier: MIT */
/** serve.h -- a server in one call: listen, accept, place, shed, drain.
 *
 *     static int echo(int fd, void *ctx) { ... read and write until the end ...; return 0; }
 *     static int serve(void *addr)
 *     {
 *         return reeve_serve_with(&(struct reeve_serve){ .addr = addr, .handler = echo }, 0);
 *     }
 */
#ifndef REEVE_SERVE_H
#define REEVE_SERVE_H

#include <reeve/time.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Handles one connection, in a task of its own. fd is lent: serve closes it after the handler has
 * returned and the tasks that it spawned are done. What it returns is counted if negative, and ends
 * nothing but this connection. */
typedef int reeve_handler(int fd, void *ctx);

/** How to serve. Zero is the default; addr and handler are needed. */
struct reeve_serve {
    const char *addr;       /* as for reeve_listen; read before the first wait */
    reeve_handler *handler; /* called once per connection, on many threads at a time */
    void *ctx;              /* handed to it as it is */

    /** Called once, in the serving task, when connections can come in: getsockname on fd tells the
     * port that "host:0" became. fd is lent, and stays serve's. NULL: nobody needs to know. */
    void (*listening)(int fd, void *ctx);

    /** How many connections may be open. At the limit no more are accepted: they wait in the
     * kernel's backlog until one ends. 0: what RLIMIT_NOFILE leaves after 64 for other uses. */
    unsigned conns_max;

    /** What deadline 0 means for a read on such a connection: this long from its beginning, then
     * -ETIMEDOUT. 0: no limit beyond the task's own deadline. */
    int64_t idle_ns;

    /** How long a drain lasts at most. 0: 10 s. Negative: connections are cancelled at once. */
    int64_t drain_ns;

    int backlog; /* 0: 4096 */
};

/** Listens and serves until its task is cancelled, the runtime shuts down (reeve_shutdown), or
 * until passes. New connections go to the less loaded of two workers picked at random. When
 * descriptors run out it stops accepting for a while and counts that (reeve_stats), and goes on.
 *
 * The end is always a drain, which loses nothing that was acknowledged: the listener closes; a
 * handler's read that finds nothing pending returns -ESHUTDOWN; all other calls of the handlers
 * work as before, and the cancellation of this task does not reach them yet. Whoever is not done
 * after drain_ns is cancelled and waited for. No handler runs when this returns.
 *
 * 0: drained, and every handler ended by itself. -ECANCELED: some had to be cancelled. -ETIMEDOUT:
 * it was the deadline that ended it. -EINVAL: no addr, no handler, not an address. What else
 * reeve_listen says, before anything was served. Outside a task: abort. */
REEVE_API int reeve_serve_with(const struct reeve_serve *how, reeve_time until);

#ifdef __cplusplus
}
#endif
#endif /* REEVE_SERVE_H */
