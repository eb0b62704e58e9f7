/* SPDX-License-Identifier: MIT */
/*
 * file_rw.c -- reading and writing files at offsets, all of it.
 *
 * A transfer is a list of pieces, most often one. As many whole pieces as the kernel takes go into
 * one vectored request, by the caller's own array; where a request stopped inside a piece, the rest
 * of that piece goes alone, and then the array again. So nothing is copied and nothing is changed
 * in it, however many there are.
 *
 *     pieces  [0][1][2][3]..................[n-1]
 *              '--done--'|  '-- next request --'
 *                        at: the rest of piece 2 first
 *
 * (1) A short read that is not the end is followed by another one; only nothing at all is the end.
 * (2) Direct I/O reads whole blocks. Where the file ends inside one, the read is short, and what
 *     follows would begin inside a block, which some file systems refuse with -EINVAL before they
 *     see that there is nothing there. So -EINVAL behind such a read is the end.
 * (3) Each request is made on the worker where the task is then; a fixed one is legal on all.
 *
 * Threads: tasks.
 */
#include <errno.h>
#include <limits.h>
#include <sys/uio.h>

#include "io/arena.h"
#include "io/file.h"
#include "io/uring_compat.h"
#include "mem/die.h"

/* bytes of one request: the kernel stops at 2^31 less a page */
#define PIECE_MAX (UINT32_C(1) << 30)
#define SECTOR 512u                   /* no device has smaller blocks */

struct transfer {
    bool write;
    int fd;
    uint64_t off;
    const struct rv_lease *lease; /* whose memory it is; NULL: nobody's */
    const struct iovec *pieces;
    size_t n, at; /* the first piece that is not done */
    size_t inside; /* what of it is done */
    uint64_t done, total;
};

/* The bytes of all pieces; -EINVAL. */
static ssize_t add_up(const struct iovec *pieces, size_t n)
{
    size_t total = 0;
    for (size_t i = 0; i < n; i++) {
        if (pieces[i].iov_len > (size_t)SSIZE_MAX - total)
            return -EINVAL;
        total += pieces[i].iov_len;
    }
    return (ssize_t)total;
}

static void advance(struct transfer *t, uint64_t bytes)
{
    t->done += bytes;
    while (t->at < t->n && bytes >= t->pieces[t->at].iov_len - t->inside) {
        bytes -= t->pieces[t->at++].iov_len - t->inside;
        t->inside = 0;
    }
    t->inside += bytes;
}

static uint8_t opcode_of(const struct transfer *t, struct rv_io_worker *iw, bool vector)
{
    if (vector)
        return t->write ? IORING_OP_WRITEV : IORING_OP_READV;
    if (t->lease && rv_arena_fixed(iw, t->lease))
        return t->write ? IORING_OP_WRITE_FIXED : IORING_OP_READ_FIXED;
    return t->write ? IORING_OP_WRITE : IORING_OP_READ;
}

/* The next request: what it came to. */
static int go_on(const struct transfer *t, int64_t until)
{
    struct rv_io_worker *iw = rv_io_self(); /* (3) */
    const struct iovec *v = &t->pieces[t->at];
    size_t left = t->n - t->at, rest = v->iov_len - t->inside;
    bool vector = left > 1 && t->inside == 0;
    struct rv_req q = { .fd = t->fd, .off = t->off + t->done, .disk = true };
    if (vector) {
        q.addr = rv_req_ptr(v);
        q.len = left < IOV_MAX ? (uint32_t)left : IOV_MAX;
    } else {
        q.addr = rv_req_ptr((char *)v->iov_base + t->inside);
        q.len = rest < PIECE_MAX ? (uint32_t)rest : PIECE_MAX;
    }
    q.opcode = opcode_of(t, iw, vector);
    if (t->write && iw->io->caps.rwf_nosignal)
        q.op_flags = RV_RWF_NOSIGNAL;
    return rv_req_run(iw, &q, until);
}

static ssize_t run(struct transfer *t, int64_t until)
{
    struct rv_worker *w = rv_worker_self();
    int r = rv_wait_check(w->sched, w->cur);
    if (r < 0)
        return r;
    if (t->off > INT64_MAX || t->total > INT64_MAX - t->off)
        return -ERANGE;
    advance(t, 0); /* over pieces that are empty */
    while (t->done < t->total) {
        r = go_on(t, until);
        if (r == -EINVAL && !t->write && t->done % SECTOR) /* (2) */
            break;
        if (r < 0)
            return r;
        if (r == 0 && t->write)
            return -EIO; /* no progress, and no reason */
        if (r == 0)
            break;
        advance(t, (uint64_t)r);
    }
    return (ssize_t)t->done;
}

ssize_t rv_file_transfer(bool write, int fd, const struct iovec *pieces, size_t n, uint64_t off,
                         int64_t until)
{
    ssize_t total = add_up(pieces, n);
    if (total < 0)
        return total;
    struct transfer t = {
        .write = write, .fd = fd, .off = off, .pieces = pieces, .n = n, .total = (uint64_t)total
    };
    return run(&t, until);
}

static ssize_t transfer(const char *call, bool write, int fd, const struct iovec *pieces, int n,
                        uint64_t off, reeve_time until)
{
    uint32_t was;
    rv_io_enter(call, &was);
    ssize_t r = n < 0 ? -EINVAL : rv_file_transfer(write, fd, pieces, (size_t)n, off, until);
    rv_io_exit(was);
    return r;
}

ssize_t reeve_pread(int fd, void *buf, size_t len, uint64_t off, reeve_time until)
{
    struct iovec one = { buf, len };
    return transfer("reeve_pread", false, fd, &one, 1, off, until);
}

ssize_t reeve_pwrite(int fd, const void *buf, size_t len, uint64_t off, reeve_time until)
{
    struct iovec one = { (void *)(uintptr_t)buf, len };
    return transfer("reeve_pwrite", true, fd, &one, 1, off, until);
}

ssize_t reeve_preadv(int fd, const struct iovec *pieces, int n, uint64_t off, reeve_time until)
{
    return transfer("reeve_preadv", false, fd, pieces, n, off, until);
}

ssize_t reeve_pwritev(int fd, const struct iovec *pieces, int n, uint64_t off, reeve_time until)
{
    return transfer("reeve_pwritev", true, fd, pieces, n, off, until);
}

/* ---- leased buffers -------------------------------------------------------------------------- */

static ssize_t lease_transfer(bool write, int fd, const struct rv_lease *l, struct iovec one,
                              uint64_t off, int64_t until)
{
    struct transfer t = { .write = write,
                          .fd = fd,
                          .off = off,
                          .lease = l,
                          .pieces = &one,
                          .n = 1,
                          .total = one.iov_len };
    return run(&t, until);
}

ssize_t reeve_buf_pread(int fd, struct reeve_buf *buf, uint64_t off, reeve_time until)
{
    uint32_t was;
    rv_io_enter("reeve_buf_pread", &was);
    struct rv_lease *l = rv_lease_of(buf, "reeve_buf_pread");
    buf->data = l->mem;
    buf->len = 0;
    struct iovec whole = { l->mem, buf->cap };
    ssize_t n = lease_transfer(false, fd, l, whole, off, until);
    if (n > 0)
        buf->len = (size_t)n;
    rv_io_exit(was);
    return n;
}

ssize_t reeve_buf_pwrite(int fd, struct reeve_buf *buf, uint64_t off, reeve_time until)
{
    uint32_t was;
    rv_io_enter("reeve_buf_pwrite", &was);
    struct rv_lease *l = rv_lease_of(buf, "reeve_buf_pwrite");
    if (buf->data < l->mem || buf->len > buf->cap ||
        (size_t)(buf->data - l->mem) > buf->cap - buf->len)
        rv_die("reeve_buf_pwrite was given data outside its buffer.");
    ssize_t n = lease_transfer(true, fd, l, (struct iovec){ buf->data, buf->len }, off, until);
    rv_io_exit(was);
    return n;
}

int reeve_buf_borrow_aligned(struct reeve_buf **ret_buf, size_t bytes, reeve_time until)
{
    uint32_t was;
    struct rv_io_worker *iw = rv_io_enter("reeve_buf_borrow_aligned", &was);
    struct rv_lease *l = NULL;
    int r = rv_wait_check(iw->io->sched, iw->w->cur);
    if (r == 0)
        r = rv_arena_borrow(&l, bytes, rv_deadline(iw->w->cur, until));
    rv_io_exit(was);
    if (r == 0)
        *ret_buf = &l->pub;
    return r;
}
