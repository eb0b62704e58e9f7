/* SPDX-License-Identifier: MIT */
/*
 * msg_bufs.c -- several leases at once.
 *
 * A message that is longer than a buffer comes in several, and each that is sent alone costs a
 * request and a wait: with 64 KiB messages that is most of the cost. Taken together they are one
 * request.
 *
 * (1) recvv waits for the first lease only, and takes no more than are unread: what it does not
 *     take keeps its order.
 * (2) sendv gives every lease home, once, whatever happened.
 *
 * Threads: tasks.
 */
#include <errno.h>
#include <reeve/socket.h>

#include "io/buf.h"
#include "io/fdtab.h"
#include "io/io.h"
#include "io/rw.h"
#include "io/stream.h"
#include "mem/die.h"
#include "sched/wait.h"

static ssize_t take(struct rv_io_worker *iw, struct rv_fd *f, struct reeve_buf **ret_bufs,
                    size_t max, size_t *ret_n, reeve_time deadline)
{
    struct rv_lease *first;
    int r = rv_wait_check(iw->io->sched, iw->w->cur);
    if (r < 0)
        return r;
    uint64_t word = rv_fd_lock(f);
    uint32_t gen = rv_fd_gen(word);
    if (!(word & RV_FD_STREAM)) {
        rv_fd_unlock(f, word);
        return -EBADF; /* it was a stream a moment ago */
    }
    rv_fd_check(f, word);
    ssize_t len = rv_stream_take(iw, f, word, deadline, &first); /* unlocks */
    if (len <= 0)
        return len;
    ret_bufs[0] = &first->pub;
    size_t n = 1;
    if (max > 1)
        n += rv_stream_take_more(rv_io_self(), f, gen, ret_bufs + 1, max - 1);
    for (size_t i = 1; i < n; i++)
        len += (ssize_t)ret_bufs[i]->len;
    *ret_n = n;
    return len;
}

ssize_t reeve_buf_recvv(int fd, struct reeve_buf **ret_bufs, size_t max, size_t *ret_n,
                        reeve_time deadline)
{
    struct rv_fd *f = rv_fd_table_init() == 0 ? rv_fd_slot(fd) : NULL;
    if (max == 0)
        return -EINVAL;
    if (!f || !(rv_load_relaxed(&f->word) & RV_FD_STREAM)) {
        ssize_t len = reeve_buf_recv(fd, ret_bufs, deadline);
        if (len > 0)
            *ret_n = 1;
        return len;
    }
    uint32_t was;
    struct rv_io_worker *iw = rv_io_enter("reeve_buf_recvv", &was);
    ssize_t len = take(iw, f, ret_bufs, max, ret_n, deadline);
    rv_io_exit(was);
    return len;
}

/* Its bytes as a piece to send. */
static struct iovec piece_of(struct reeve_buf *buf)
{
    const struct rv_lease *l = rv_lease_of(buf, "reeve_buf_sendv");
    if (buf->data < l->mem || buf->len > buf->cap ||
        (size_t)(buf->data - l->mem) > buf->cap - buf->len)
        rv_die("reeve_buf_sendv was given data outside its buffer.");
    return (struct iovec){ buf->data, buf->len };
}

ssize_t reeve_buf_sendv(int fd, struct reeve_buf *const *bufs, size_t n, reeve_time deadline)
{
    struct iovec pieces[REEVE_BUFS_MAX];
    size_t sum = 0;
    uint32_t was;
    if (n == 1)
        return reeve_buf_send(fd, bufs[0], deadline);
    struct rv_io_worker *iw = rv_io_enter("reeve_buf_sendv", &was);
    ssize_t len = rv_wait_check(iw->io->sched, iw->w->cur);
    if (len == 0 && n > REEVE_BUFS_MAX)
        len = -EINVAL;
    if (len == 0 && fd < 0)
        len = -EBADF;
    for (size_t i = 0; i < n; i++) {
        struct iovec piece = piece_of(bufs[i]);
        sum += piece.iov_len;
        if (i < REEVE_BUFS_MAX)
            pieces[i] = piece;
    }
    if (len == 0 && sum > 0)
        len = rv_send_iov(iw, fd, rv_deadline(iw->w->cur, deadline), pieces, n);
    iw = rv_io_self();
    for (size_t i = 0; i < n; i++)
        rv_lease_return(iw, rv_lease_of(bufs[i], "reeve_buf_sendv")); /* (2) */
    rv_io_exit(was);
    return len;
}
