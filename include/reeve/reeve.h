/* SPDX-License-Identifier: MIT */
/** reeve.h -- tasks that read like threads, io_uring that reads like read(2).
 *
 * Inside a task every call looks blocking; while it waits, its worker runs other tasks.
 *
 *     static int hello(void *arg) { return (int)reeve_write(1, arg, strlen(arg), 0); }
 *     int main(void) { return reeve_run(hello, "hello\n") < 0; }
 *
 * What holds for every function:
 * - >= 0 is success, < 0 is -errno. Nothing sets errno. An output ret_x is untouched on failure.
 * - A function can suspend its task only if it takes a reeve_time deadline. It ends with
 *   -ETIMEDOUT once that passes and with -ECANCELED once its task is cancelled, and does nothing of
 *   the kind before the kernel has let go of the memory lent to it. A result that was already there
 *   beats both.
 * - `typedef` is opaque and ours; a plain `struct` is transparent and yours, and zero in each of
 *   its fields is the default.
 * - Misuse (a double join, a wait outside a task, a lease returned twice) is not an error code: one
 *   sentence on stderr, then abort, in release builds too.
 * - After a wait the task may be on another thread: read libc's errno, and anything thread-local,
 *   before it, never across it.
 *
 * Where the manual goes on: time.h deadlines; task.h spawn, join, cancel, groups; net.h sockets;
 * socket.h messages and descriptors that travel; buf.h leased buffers; cursor.h working in one;
 * frame.h records out of streams; serve.h servers; file.h files and logs; map.h mapped files and a
 * cache of them; fd.h pipes, signals, waiting for any fd, copying between two; proc.h programs;
 * runtime.h starting, posting to, and stopping a runtime; sync.h locks; chan.h channels; watch.h a
 * value for many; offload.h calls that block; mem.h memory and its profiler;
 * pool.h object pools; cache.h caches; cpus.h CPUs and lists of them.
 */
#ifndef REEVE_REEVE_H
#define REEVE_REEVE_H

#include <reeve/time.h>
#include <reeve/task.h>
#include <reeve/net.h>
#include <reeve/socket.h>
#include <reeve/buf.h>
#include <reeve/cursor.h>
#include <reeve/frame.h>
#include <reeve/serve.h>
#include <reeve/file.h>
#include <reeve/map.h>
#include <reeve/mem.h>
#include <reeve/pool.h>
#include <reeve/cache.h>
#include <reeve/fd.h>
#include <reeve/bytes.h>
#include <reeve/proc.h>
#include <reeve/runtime.h>
#include <reeve/sync.h>
#include <reeve/chan.h>
#include <reeve/watch.h>
#include <reeve/offload.h>
#include <reeve/cpus.h>

#endif /* REEVE_REEVE_H */
