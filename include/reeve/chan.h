/* SPDX-License-Identifier: MIT */
/** chan.h -- channels: tasks hand values to each other, and wait for each other.
 *
 * A channel carries elements of one size, by copy, in the order in which they were sent. It holds
 * up to `capacity` of them; with capacity 0 nothing is held: a send waits until its element is
 * received (a rendezvous). With elem_bytes 0 there is nothing to copy and a channel carries
 * signals. Those who wait are served in the order in which they came.
 *
 * Every wait ends in one of four ways: 0, the element was handed over; -EPIPE, the channel is
 * closed; -ETIMEDOUT; -ECANCELED. An element that was handed over is never taken back: what was
 * transferred beats deadline and cancellation, so nothing is lost and nothing arrives twice. What
 * can be done at once is done, by a cancelled task too.
 *
 * Who may call: tasks, of any worker and of several runtimes on one channel. Outside a task
 * everything works that does not wait: create, close, destroy, and send, recv and select with
 * REEVE_POLL, on any thread. A call that would have to wait there aborts.
 *
 * Of two tasks that never run out of elements none has to wait; so that others get their turn, a
 * call with another deadline than REEVE_POLL now and then ends with a yield.
 */
#ifndef REEVE_CHAN_H
#define REEVE_CHAN_H

#include <reeve/time.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A channel. It belongs to whoever created it, and is destroyed once. */
typedef struct reeve_chan reeve_chan;

/** A channel for elements of elem_bytes bytes (0: signals) that holds `capacity` of them (0: a
 * rendezvous). NULL: no memory for capacity * elem_bytes bytes and some 400 more; all of it is
 * taken now. */
REEVE_API reeve_chan *reeve_chan_create(size_t elem_bytes, size_t capacity);

/** Sends a copy of the elem_bytes bytes at elem; waits while the channel is full. With elem_bytes 0
 * elem is not looked at.
 *
 * 0: it is in the channel, or with its receiver. Not sent: -EPIPE the channel is closed, or was
 * while the task waited; -ETIMEDOUT until passed (REEVE_POLL: full right now); -ECANCELED the task
 * is cancelled; -EINVAL elem is NULL though elements have bytes.
 *     struct job j = { .id = 7 };
 *     if (reeve_chan_send(jobs, &j, reeve_in(REEVE_SEC)) < 0) drop(&j); */
REEVE_API int reeve_chan_send(reeve_chan *chan, const void *elem, reeve_time until);

/** Receives the oldest element into the elem_bytes bytes at elem; waits while there is none. elem
 * NULL: the element is dropped.
 *
 * 0: received. Otherwise *elem is untouched: -EPIPE the channel is closed and empty; -ETIMEDOUT
 * until passed (REEVE_POLL: empty right now); -ECANCELED the task is cancelled.
 *     while (reeve_chan_recv(jobs, &j, 0) == 0) run(&j); */
REEVE_API int reeve_chan_recv(reeve_chan *chan, void *elem, reeve_time until);

/** One of the things that a select may do. {0} is never ready. */
struct reeve_case {
    /** NULL: this case is never ready. */
    reeve_chan *chan;

    /** Not NULL: the case sends the element at send. Where elem_bytes is 0 it is not looked at, and
     * any address will do, the channel's own for one. */
    const void *send;

    /** With send NULL the case receives, into recv; NULL: and drops the element. */
    void *recv;

    /** Set in the case that ran, and only there: 0 the element was handed over; -EPIPE the channel
     * is closed (a receive: and empty). */
    int ret_result;
};

/** Does one of the n cases, the first that can be done; waits until one can. Of several that are
 * ready now each is as likely as the others. A closed channel is ready. A channel may occur in
 * several cases, in both directions too: a select does not hand over to itself.
 *
 * >= 0: the index of the case that was done, its ret_result set. Otherwise no case was done and
 * none was touched: -ETIMEDOUT until passed (REEVE_POLL: none is ready right now); -ECANCELED the
 * task is cancelled; -EINVAL n < 1, n > 65535, or a case with both send and recv; -ENOMEM (only
 * with n > 8).
 *     struct reeve_case c[] = { { .chan = jobs, .recv = &j }, { .chan = quit } };
 *     switch (reeve_chan_select(c, 2, 0)) { case 0: run(&j); break; case 1: return 0; } */
REEVE_API int reeve_chan_select(struct reeve_case *cases, int n, reeve_time until);

/** Nothing is sent any more: sends fail with -EPIPE, those that wait included. What the channel
 * holds can still be received; then receivers get -EPIPE too. Everybody who waits is woken. A
 * second close does nothing. Any thread; it does not wait. */
REEVE_API void reeve_chan_close(reeve_chan *chan);

/** Frees the channel and the elements in it. Nobody uses it any more; a task that still waits on it
 * aborts the program. Who received the last element, or was received from, may destroy at once: the
 * other side has let go by then. NULL: does nothing. Any thread. */
REEVE_API void reeve_chan_destroy(reeve_chan *chan);

#ifdef __cplusplus
}
#endif
#endif /* REEVE_CHAN_H */
