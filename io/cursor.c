/* SPDX-License-Identifier: MIT */
/*
 * cursor.c -- two positions in a leased buffer.
 *
 * (1) read <= write <= cap, counted from where the lease's memory begins and not from its `data`:
 *     what has been read from a stream already has moved `data` on, and `cap` has not shrunk.
 * (2) The record behind the public buffer says where its memory begins, and whether it is on lease
 *     at all; whoever calls with another one is stopped before he writes into it.
 * (3) An empty cursor stands at the beginning, so that a buffer that is filled and emptied in turns
 *     is never compacted.
 *
 * Threads: one at a time.
 */
#include <reeve/cursor.h>

#include <errno.h>
#include <string.h>

#include "io/buf.h"
#include "mem/die.h"

static struct rv_lease *lease_of(const struct reeve_cursor *c, const char *call)
{
    struct rv_lease *l = rv_lease_of(c->buf, call);
    if (__builtin_expect(c->read > c->write || c->write > l->pub.cap, 0))
        rv_die("%s was given a cursor whose positions are outside its buffer.", call);
    return l;
}

struct reeve_cursor reeve_cursor_over(struct reeve_buf *buf)
{
    struct reeve_cursor c = { .buf = buf };
    if (!buf)
        return c;
    struct rv_lease *l = rv_lease_of(buf, "reeve_cursor_over");
    if (buf->data < l->mem || buf->len > buf->cap ||
        (size_t)(buf->data - l->mem) > buf->cap - buf->len)
        rv_die("reeve_cursor_over was given a buffer with data outside of it.");
    c.read = (size_t)(buf->data - l->mem);
    c.write = c.read + buf->len;
    return c;
}

struct reeve_buf *reeve_cursor_take(struct reeve_cursor *c)
{
    struct reeve_buf *buf = c->buf;
    if (!buf)
        return NULL;
    struct rv_lease *l = lease_of(c, "reeve_cursor_take");
    buf->data = l->mem + c->read;
    buf->len = c->write - c->read;
    *c = (struct reeve_cursor){ 0 };
    return buf;
}

size_t reeve_cursor_data(const struct reeve_cursor *c)
{
    return c->write - c->read;
}

size_t reeve_cursor_space(const struct reeve_cursor *c)
{
    return c->buf ? c->buf->cap - (c->write - c->read) : 0;
}

bool reeve_cursor_empty(const struct reeve_cursor *c)
{
    return c->write == c->read;
}

bool reeve_cursor_full(const struct reeve_cursor *c)
{
    return reeve_cursor_space(c) == 0;
}

unsigned char *reeve_cursor_view(const struct reeve_cursor *c, size_t *ret_len)
{
    if (ret_len)
        *ret_len = c->write - c->read;
    return c->buf ? lease_of(c, "reeve_cursor_view")->mem + c->read : NULL;
}

void reeve_cursor_advance(struct reeve_cursor *c, size_t len)
{
    if (__builtin_expect(len > c->write - c->read, 0))
        rv_die("reeve_cursor_advance was to pass over %zu bytes where there are %zu.", len,
               c->write - c->read);
    c->read += len;
    if (c->read == c->write) /* (3) */
        c->read = c->write = 0;
}

unsigned char *reeve_cursor_room(const struct reeve_cursor *c, size_t *ret_len)
{
    if (ret_len)
        *ret_len = c->buf ? c->buf->cap - c->write : 0;
    return c->buf ? lease_of(c, "reeve_cursor_room")->mem + c->write : NULL;
}

void reeve_cursor_commit(struct reeve_cursor *c, size_t len)
{
    size_t room;
    reeve_cursor_room(c, &room);
    if (__builtin_expect(len > room, 0))
        rv_die("reeve_cursor_commit was told of %zu bytes where there is room for %zu.", len, room);
    c->write += len;
}

ssize_t reeve_cursor_peek(const struct reeve_cursor *c, void *buf, size_t len)
{
    size_t data;
    const unsigned char *from = reeve_cursor_view(c, &data);
    size_t n = len < data ? len : data;
    if (n > 0)
        memcpy(buf, from, n);
    return (ssize_t)n;
}

ssize_t reeve_cursor_read(struct reeve_cursor *c, void *buf, size_t len)
{
    ssize_t n = reeve_cursor_peek(c, buf, len);
    reeve_cursor_advance(c, (size_t)n);
    return n;
}

ssize_t reeve_cursor_write(struct reeve_cursor *c, const void *data, size_t len)
{
    size_t room;
    unsigned char *to = reeve_cursor_room(c, &room);
    if (len > reeve_cursor_space(c))
        return -EAGAIN;
    if (len > room) {
        reeve_cursor_compact(c);
        to = reeve_cursor_room(c, &room);
    }
    RV_ASSERT(len <= room);
    if (len > 0)
        memcpy(to, data, len);
    c->write += len;
    return (ssize_t)len;
}

void reeve_cursor_compact(struct reeve_cursor *c)
{
    if (c->read == 0)
        return;
    unsigned char *mem = lease_of(c, "reeve_cursor_compact")->mem;
    size_t len = c->write - c->read;
    memmove(mem, mem + c->read, len);
    c->read = 0;
    c->write = len;
}
