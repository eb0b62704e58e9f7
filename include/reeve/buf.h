/* SPDX-License-Identifier: MIT */
/** buf.h -- zero copy: buffers on lease.
 *
 * Received data is handed over where the kernel put it: the buffer is lent, to be parsed in place,
 * sent on, or given to another task, and goes home when it is returned. A connection that is idle
 * holds no buffer at all.
 *
 * Who owns: each buffer is on lease to whoever got it last, until reeve_buf_return or
 * reeve_buf_send takes it, once. The memory is the runtime's and ends with it. A lease held for
 * long is no error, but the supply is bounded (reeve_opts.bufs): waiting is what borrow does when
 * there is none left.
 */
#ifndef REEVE_BUF_H
#define REEVE_BUF_H

#include <reeve/time.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A leased buffer. While it is yours, data and len may be set to any part of its memory (skip a
 * header, cut a tail); cap and opaque are not yours to change. */
struct reeve_buf {
    unsigned char *data; /* the bytes */
    size_t len;          /* how many of them mean something; send sends these */
    size_t cap;          /* how many there is room for, from where data stood at first */
    uintptr_t opaque[2];
};

/** Borrows an empty buffer: len 0, cap the runtime's buf_bytes. None free: waits.
 * 0, or -ETIMEDOUT, -ECANCELED, -ENOMEM. Outside a task: abort.
 *     struct reeve_buf *b;
 *     if ((r = reeve_buf_borrow(&b, 0)) < 0) return r;
 *     b->len = fill(b->data, b->cap);
 *     return (int)reeve_buf_send(fd, b, 0); */
REEVE_API int reeve_buf_borrow(struct reeve_buf **ret_buf, reeve_time until);

/** Receives what is there from a stream socket, at least one byte, into a buffer that the kernel
 * picks once the data has come.
 *
 * > 0: the number of bytes, and *ret_buf is yours with that len. 0: the end of the stream, and no
 * buffer. < 0: no buffer either, and the errors of reeve_read (net.h). Running out of buffers is
 * not an error: the data waits in the kernel until some come home. While a program keeps more than
 * half of them for longer than a tenth of a second, it comes in memory of the heap instead, which
 * is slower, up to as much again. */
REEVE_API ssize_t reeve_buf_recv(int fd, struct reeve_buf **ret_buf, reeve_time until);

/** Sends the len bytes at data, all of them, and takes the lease whatever it returns. Otherwise as
 * reeve_write (net.h): len, or -errno, after which an unknown part was sent.
 *     while ((n = reeve_buf_recv(fd, &b, 0)) > 0)
 *         if ((n = reeve_buf_send(fd, b, 0)) < 0) break; */
REEVE_API ssize_t reeve_buf_send(int fd, struct reeve_buf *buf, reeve_time until);

/** Gives a buffer back unsent. Any thread; NULL: does nothing; a buffer that is not on lease:
 * abort. */
REEVE_API void reeve_buf_return(struct reeve_buf *buf);

#ifdef __cplusplus
}
#endif
#endif /* REEVE_BUF_H */
