/* SPDX-License-Identifier: MIT */
/** frame.h -- records out of a byte stream: lines, delimited records, records after their length.
 *
 * A reader takes what comes in from an fd apart into records and hands out each of them where the
 * kernel put it. Only a record that lies across two buffers is copied, into memory of the reader's
 * own. Records that came together are handed out one after another without a system call.
 *
 *     struct reeve_reader in = { .fd = fd, .record_max = 4096 };
 *     struct reeve_record line;
 *     while ((r = reeve_reader_line(&in, &line, reeve_in(30 * REEVE_SEC))) > 0)
 *         handle(line.data, line.len);
 *     reeve_reader_finish(&in);
 *
 * The calls may be mixed on one reader: a line that says how long the body is, then its bytes.
 *
 * Every call returns 1 and a record; or 0: the stream ended where a record would begin; or an error
 * that has lost nothing, after which the same call goes on where this one stopped:
 * -EPROTO: the stream ended within a record; reeve_reader_rest has its beginning.
 * -EMSGSIZE: a record longer than record_max, said once for each, as soon as that is sure. The next
 *     call passes over what is left of it, and goes on with the record behind it. Who has no use
 *     for such a peer closes.
 * -ENOMEM: no memory for a record that lies across two buffers.
 * -EINVAL: the call before stopped within a record that was to end otherwise (by another delimiter,
 *     after another number of bytes). reeve_reader_rest takes it as it is.
 * What else reeve_buf_recv says (buf.h, net.h), -ETIMEDOUT and -ECANCELED among it. Records at hand
 * are handed out whatever the deadline; REEVE_POLL takes what has arrived.
 *
 * Who owns: a record is the caller's, to read and to change, until the next call on its reader. The
 * fd is lent; nobody else reads it meanwhile. A reader belongs to one task at a time. While it
 * waits between two records it holds no buffer and no memory; within a record, only that part.
 */
#ifndef REEVE_FRAME_H
#define REEVE_FRAME_H

#include <reeve/cursor.h>
#include <reeve/time.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A record: its bytes, without what delimits them or said how many they are. */
struct reeve_record {
    unsigned char *data;
    size_t len;
};

/** A reader. Zero is the default; fd is needed. */
struct reeve_reader {
    int fd;            /* as for reeve_buf_recv; what it cannot read ahead works too */
    size_t record_max; /* bytes that a record may have; 0: 64 KiB */

    /** Bytes that were copied because their record lay across two buffers. It only grows. */
    uint64_t copied;

    /** The reader's. */
    struct reeve_reader_own {
        struct reeve_cursor at; /* what has not been looked at, in the buffer where it arrived */
        unsigned char *part;    /* the beginning of a record whose rest is still to come */
        size_t part_len, part_cap;
        uint64_t rule;          /* what it was to end with */
        uint64_t skip;          /* bytes to pass over */
        bool spent, skip_delim;
    } own;
};

/** The next line, without its "\n" or "\r\n". A last line that has neither: -EPROTO. */
REEVE_API int reeve_reader_line(struct reeve_reader *reader, struct reeve_record *ret_line,
                                reeve_time until);

/** The next record that ends with these len bytes, 1 .. 256, which are not part of it. Otherwise
 * -EINVAL. */
REEVE_API int reeve_reader_until(struct reeve_reader *reader, const void *delim, size_t len,
                                 struct reeve_record *ret_record, reeve_time until);

/** How the length of a record is written in front of it: a number of 1, 2, 4 or 8 bytes, the most
 * or the least significant first; or seven bits in each byte, the least significant first, the
 * eighth bit set in all but the last. */
enum {
    REEVE_LEN_8 = 1, REEVE_LEN_16BE, REEVE_LEN_16LE, REEVE_LEN_32BE, REEVE_LEN_32LE, REEVE_LEN_64BE,
    REEVE_LEN_64LE, REEVE_LEN_VARINT
};

/** The next record, behind its length. -EINVAL: `how` is none of the above. -EBADMSG: the varint
 * has more than 64 bits; there is no way on from there, and the call says so again. */
REEVE_API int reeve_reader_sized(struct reeve_reader *reader, int how,
                                 struct reeve_record *ret_record, reeve_time until);

/** The next len bytes as one record. */
REEVE_API int reeve_reader_bytes(struct reeve_reader *reader, size_t len,
                                 struct reeve_record *ret_record, reeve_time until);

/** What was received and not handed out yet, as one record: the beginning of a record that never
 * ended, or what the other side said in another protocol. It does not wait. 1; 0: nothing; -ENOMEM,
 * as above. */
REEVE_API int reeve_reader_rest(struct reeve_reader *reader, struct reeve_record *ret_record);

/** Gives back what the reader holds; what it has not handed out is lost. The fd stays open. {0} and
 * NULL: nothing to do. */
REEVE_API void reeve_reader_finish(struct reeve_reader *reader);

#ifdef __cplusplus
}
#endif
#endif /* REEVE_FRAME_H */
