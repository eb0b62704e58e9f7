/* SPDX-License-Identifier: MIT */
/** cursor.h -- reading and writing inside one leased buffer.
 *
 * A cursor keeps two positions in a buffer's memory: what lies between them has been written and
 * not been read yet.
 *
 *     | read already | data | never written |
 *     0            read   write            cap
 *
 * Parsers look at the data where it is (view, then advance), writers fill the memory behind it
 * (room, then commit); read, peek and write copy. Only reeve_cursor_write and reeve_cursor_compact
 * move bytes inside the buffer.
 *
 * Who owns: the lease stays its holder's. While a cursor is over it, the cursor's positions count,
 * and the buffer's own data and len only once reeve_cursor_take has set them. Nothing here waits
 * or needs a runtime; a cursor is for one task or thread at a time. A buffer that is not on lease,
 * and a position beyond what there is: abort.
 *
 *     struct reeve_cursor c = { .buf = borrowed };            // an empty buffer, to be filled
 *     if (reeve_cursor_write(&c, line, len) < 0)              // it is full: send it
 *         n = reeve_buf_send(fd, reeve_cursor_take(&c), 0);
 */
#ifndef REEVE_CURSOR_H
#define REEVE_CURSOR_H

#include <reeve/buf.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Positions in a leased buffer, in bytes from the beginning of its memory. { .buf = b } is an
 * empty one over all of b; {0} is over nothing: it has neither data nor space. */
struct reeve_cursor {
    struct reeve_buf *buf;
    size_t read, write; /* read <= write <= buf->cap */
};

/** A cursor whose data is what buf says it holds: its len bytes at data. NULL: over nothing. */
REEVE_API struct reeve_cursor reeve_cursor_over(struct reeve_buf *buf);

/** The way back: the buffer, its data and len set to what has not been read, ready to be sent; the
 * cursor is over nothing then. NULL: it was before. */
REEVE_API struct reeve_buf *reeve_cursor_take(struct reeve_cursor *c);

/** How many bytes there are to read, and how many a write would still take. */
REEVE_API size_t reeve_cursor_data(const struct reeve_cursor *c);
REEVE_API size_t reeve_cursor_space(const struct reeve_cursor *c);

/** Nothing to read; nothing more to write. */
REEVE_API bool reeve_cursor_empty(const struct reeve_cursor *c);
REEVE_API bool reeve_cursor_full(const struct reeve_cursor *c);

/** The data where it lies, *ret_len bytes of it (ret_len may be NULL), good until the next call
 * that moves bytes or gives the buffer away. Never NULL, unless the cursor is over nothing. */
REEVE_API unsigned char *reeve_cursor_view(const struct reeve_cursor *c, size_t *ret_len);

/** Passes over len bytes of data, len <= reeve_cursor_data(). */
REEVE_API void reeve_cursor_advance(struct reeve_cursor *c, size_t len);

/** The memory behind the data, *ret_len bytes (ret_len may be NULL), to be filled in place, by
 * snprintf for one; compact first to have all the space there. commit makes the first len of them
 * data, len <= *ret_len. */
REEVE_API unsigned char *reeve_cursor_room(const struct reeve_cursor *c, size_t *ret_len);
REEVE_API void reeve_cursor_commit(struct reeve_cursor *c, size_t len);

/** Copies up to len bytes of data into buf; read passes over them, peek does not. How many, 0 when
 * there are none. */
REEVE_API ssize_t reeve_cursor_read(struct reeve_cursor *c, void *buf, size_t len);
REEVE_API ssize_t reeve_cursor_peek(const struct reeve_cursor *c, void *buf, size_t len);

/** Appends len bytes, all or none, and compacts only when it must. len, or -EAGAIN: there is less
 * space than that. */
REEVE_API ssize_t reeve_cursor_write(struct reeve_cursor *c, const void *data, size_t len);

/** Moves the data to the beginning of the buffer, so that all its space is behind it. */
REEVE_API void reeve_cursor_compact(struct reeve_cursor *c);

#ifdef __cplusplus
}
#endif
#endif /* REEVE_CURSOR_H */
