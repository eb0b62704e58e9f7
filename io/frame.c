/* SPDX-License-Identifier: MIT */
/*
 * frame.c -- records out of a byte stream, where they lie.
 *
 *     part: the beginning of a record | at: what came behind it, in the newest buffer
 *     ---- `have` bytes, of which the first `part_len` are in memory of the reader's own ----
 *
 * Each way of framing is one question about these bytes: do they hold a whole record, and where
 * does it end? If they do, it is handed out, from `at` alone whenever `part` is empty. If not, what
 * is in `at` is moved behind `part`, its buffer goes home, and the next one is waited for.
 *
 *     between records  -> within one       [keep_all]    part_len > 0
 *     within one       -> between records  [hand_out]    `part` is the record, and spent
 *     within one       -> passing over     [too_long]    skip > 0, or skip_delim
 *     passing over     -> between records  [pass_over]
 *
 * (1) `part` holds no whole record, and no whole delimiter. So a delimiter is looked for in `at`,
 *     and across the seam: every byte is looked at once, however small the pieces are. This is so
 *     for the rule that has brought it there, and another one is refused: own.rule.
 * (2) What is handed out stays where it is until the next call: it lies in the buffer under `at`,
 *     or in `part`, which is spent then. Both are let go at the beginning of a call or later.
 * (3) Nothing is taken before it is certain what becomes of it: a call that fails for want of
 *     memory, or of data, changes nothing but how the bytes are divided between `part` and `at`.
 * (4) `part` grows with the data that has come, not with the length that a peer has announced.
 * (5) While records longer than allowed are passed over, `part` has at most the bytes that may be
 *     the beginning of the delimiter.
 *
 * Threads: one task at a time.
 */
#include <reeve/frame.h>

#include <errno.h>
#include <string.h>

#include "io/buf.h"
#include "mem/alloc.h"
#include "mem/die.h"

enum { RECORD_MAX = 64 * 1024, DELIM_MAX = 256, VARINT_MAX = 10, PART_MIN = 256 };

enum kind { DELIMITED, SIZED, COUNTED };

/* What the caller wants. */
struct rule {
    enum kind kind;
    const unsigned char *delim;
    size_t delim_len;
    bool line;    /* a "\r" before the delimiter belongs to it */
    int how;      /* SIZED: the length's form */
    uint64_t len; /* COUNTED */
};

/* The record in the bytes at hand: it begins behind `head` of them, and `all` of them are done with
 * when it is. */
struct found {
    size_t head;
    uint64_t len, all;
};

static size_t limit(const struct reeve_reader *r)
{
    return r->record_max ? r->record_max : RECORD_MAX;
}

static size_t have(const struct reeve_reader *r)
{
    return r->own.part_len + reeve_cursor_data(&r->own.at);
}

/* reeve_cursor_view() without its questions: this cursor nobody else has touched. */
static inline unsigned char *view(const struct reeve_reader *r, size_t *ret_len)
{
    const struct reeve_cursor *c = &r->own.at;
    *ret_len = c->write - c->read;
    return c->buf ? ((const struct rv_lease *)c->buf)->mem + c->read : NULL;
}

static unsigned char byte_at(const struct reeve_reader *r, size_t i)
{
    size_t len, old = r->own.part_len;
    return i < old ? r->own.part[i] : view(r, &len)[i - old];
}

/* ---- moving ---------------------------------------------------------------------------------- */

static void drop_part(struct reeve_reader *r)
{
    rv_free(r->own.part);
    r->own.part = NULL;
    r->own.part_len = r->own.part_cap = 0;
}

static int grow_part(struct reeve_reader *r, size_t need)
{
    if (need <= r->own.part_cap)
        return 0;
    size_t cap = r->own.part_cap ? 2 * r->own.part_cap : PART_MIN;
    if (cap < need)
        cap = need;
    unsigned char *bigger = rv_alloc(cap);
    if (!bigger)
        return -ENOMEM;
    if (r->own.part_len > 0)
        memcpy(bigger, r->own.part, r->own.part_len);
    rv_free(r->own.part);
    r->own.part = bigger;
    r->own.part_cap = cap;
    return 0;
}

/* Moves the first len bytes of `at` behind `part`. 0 or -ENOMEM. */
static int keep(struct reeve_reader *r, size_t len)
{
    int e = grow_part(r, r->own.part_len + len);
    if (e < 0)
        return e;
    if (len > 0)
        reeve_cursor_read(&r->own.at, r->own.part + r->own.part_len, len);
    r->own.part_len += len;
    r->copied += len;
    return 0;
}

static int keep_all(struct reeve_reader *r)
{
    return keep(r, reeve_cursor_data(&r->own.at));
}

/* Drops all but the last len bytes. 0 or -ENOMEM. */
static int keep_end(struct reeve_reader *r, size_t len)
{
    size_t fresh = reeve_cursor_data(&r->own.at);
    size_t old = len > fresh ? len - fresh : 0; /* of these, in `part` */
    int e = grow_part(r, len);
    if (e < 0)
        return e;
    if (old < r->own.part_len) {
        memmove(r->own.part, r->own.part + r->own.part_len - old, old);
        r->own.part_len = old;
    }
    if (fresh > len)
        reeve_cursor_advance(&r->own.at, fresh - len);
    return keep_all(r);
}

static void return_buffer(struct reeve_reader *r)
{
    reeve_buf_return(reeve_cursor_take(&r->own.at));
}

/* Everything at hand is in `part`: waits for more. > 0, 0 at the end of the stream, -errno. */
static int refill(struct reeve_reader *r, reeve_time until)
{
    struct reeve_buf *buf;
    RV_ASSERT(reeve_cursor_empty(&r->own.at));
    return_buffer(r);
    if (r->own.part_len == 0)
        drop_part(r);
    ssize_t n = reeve_buf_recv(r->fd, &buf, until);
    if (n > 0)
        r->own.at = reeve_cursor_over(buf);
    return n > 0 ? 1 : (int)n;
}

/* ---- finding --------------------------------------------------------------------------------- */

/* Where the first delimiter begins that ends in `at`, counted from the beginning of `part`; false:
 * there is none. The longer its part before the seam, the earlier it begins. */
static bool find_delim(const struct reeve_reader *r, const struct rule *rule, size_t *ret_start)
{
    size_t fresh, old = r->own.part_len, n = rule->delim_len;
    const unsigned char *at = view(r, &fresh);
    if (fresh == 0)
        return false;
    for (size_t before = old < n - 1 ? old : n - 1; before > 0; before--) {
        const unsigned char *tail = r->own.part + old - before;
        if (fresh >= n - before && memcmp(tail, rule->delim, before) == 0 &&
            memcmp(at, rule->delim + before, n - before) == 0) {
            *ret_start = old - before;
            return true;
        }
    }
    const unsigned char *p = n == 1 ? memchr(at, rule->delim[0], fresh)
                                    : memmem(at, fresh, rule->delim, n);
    if (p)
        *ret_start = old + (size_t)(p - at);
    return p != NULL;
}

/* The number of `len` bytes in front. */
static uint64_t read_number(const struct reeve_reader *r, size_t len, bool big)
{
    uint64_t n = 0;
    for (size_t i = 0; i < len; i++)
        n = n << 8 | byte_at(r, big ? i : len - 1 - i);
    return n;
}

/* Each of these: 1 found, 0 not enough data, -errno. */

static int read_varint(const struct reeve_reader *r, struct found *f)
{
    f->len = 0;
    for (size_t i = 0; i < VARINT_MAX; i++) {
        if (i == have(r))
            return 0;
        unsigned char byte = byte_at(r, i);
        if (i == VARINT_MAX - 1 && byte > 1) /* 9 * 7 bits, and one more */
            break;
        f->len |= (uint64_t)(byte & 0x7f) << (7 * i);
        f->head = i + 1;
        if (!(byte & 0x80))
            return 1;
    }
    return -EBADMSG;
}

static int read_length(const struct reeve_reader *r, int how, struct found *f)
{
    static const unsigned char bytes[] = {
        [REEVE_LEN_8] = 1,    [REEVE_LEN_16BE] = 2, [REEVE_LEN_16LE] = 2, [REEVE_LEN_32BE] = 4,
        [REEVE_LEN_32LE] = 4, [REEVE_LEN_64BE] = 8, [REEVE_LEN_64LE] = 8,
    };
    if (how == REEVE_LEN_VARINT)
        return read_varint(r, f);
    f->head = bytes[how];
    if (have(r) < f->head)
        return 0;
    f->len = read_number(r, f->head,
                         how == REEVE_LEN_16BE || how == REEVE_LEN_32BE || how == REEVE_LEN_64BE);
    return 1;
}

static int find_delimited(const struct reeve_reader *r, const struct rule *rule, struct found *f)
{
    size_t start, undecided = rule->delim_len - 1 + rule->line;
    if (!find_delim(r, rule, &start))
        return have(r) > undecided && have(r) - undecided > limit(r) ? -EMSGSIZE : 0;
    f->head = 0;
    f->all = start + rule->delim_len;
    f->len = start - (rule->line && start > 0 && byte_at(r, start - 1) == '\r');
    return f->len > limit(r) ? -EMSGSIZE : 1;
}

static int find_sized(const struct reeve_reader *r, const struct rule *rule, struct found *f)
{
    int e = 1;
    f->head = 0;
    f->len = rule->len;
    if (rule->kind == SIZED)
        e = read_length(r, rule->how, f);
    if (e <= 0)
        return e;
    f->all = f->len < UINT64_MAX - f->head ? f->head + f->len : UINT64_MAX;
    if (f->len > limit(r))
        return -EMSGSIZE;
    return f->all <= have(r);
}

/* A number that only this rule has (FNV-1a, of all that matters in it). */
static uint64_t name_of(const struct rule *rule)
{
    uint64_t words[] = { rule->kind, rule->line, (uint64_t)rule->how, rule->len };
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    const unsigned char *bytes = (const unsigned char *)words;
    for (size_t i = 0; i < sizeof words; i++)
        h = (h ^ bytes[i]) * UINT64_C(0x100000001b3);
    for (size_t i = 0; i < rule->delim_len; i++)
        h = (h ^ rule->delim[i]) * UINT64_C(0x100000001b3);
    return h;
}

/* Whether the call before stopped within a record. */
static bool within(const struct reeve_reader *r)
{
    return r->own.part_len > 0 || r->own.skip_delim;
}

/* ---- records --------------------------------------------------------------------------------- */

static int hand_out(struct reeve_reader *r, const struct found *f, struct reeve_record *ret)
{
    size_t all = (size_t)f->all;
    unsigned char *start;
    size_t len;
    if (r->own.part_len == 0) {
        start = view(r, &len);
        reeve_cursor_advance(&r->own.at, all);
    } else {
        int e = keep(r, all - r->own.part_len);
        if (e < 0)
            return e;
        start = r->own.part;
        r->own.spent = true;
    }
    *ret = (struct reeve_record){ start + f->head, (size_t)f->len };
    return 1;
}

static void drop(struct reeve_reader *r, uint64_t len)
{
    size_t fresh = reeve_cursor_data(&r->own.at);
    size_t now = len < fresh ? (size_t)len : fresh;
    reeve_cursor_advance(&r->own.at, now);
    r->own.skip = len - now;
}

/* The record in front is longer than allowed; f->all is 0 if nobody knows how long. */
static int too_long(struct reeve_reader *r, const struct rule *rule, const struct found *f)
{
    if (f->all == 0) {
        int e = keep_end(r, rule->delim_len - 1);
        if (e < 0)
            return e;
        r->own.skip_delim = true;
        r->own.rule = name_of(rule);
        return -EMSGSIZE;
    }
    uint64_t left = f->all - r->own.part_len;
    r->own.part_len = 0;
    drop(r, left);
    return -EMSGSIZE;
}

/* 1: nothing is left to pass over; 0: not enough data; -errno. */
static int pass_over(struct reeve_reader *r, const struct rule *rule)
{
    size_t start;
    if (r->own.skip > 0)
        drop(r, r->own.skip);
    if (!r->own.skip_delim)
        return r->own.skip == 0;
    if (!find_delim(r, rule, &start))
        return keep_end(r, rule->delim_len - 1);
    reeve_cursor_advance(&r->own.at, start + rule->delim_len - r->own.part_len);
    r->own.part_len = 0;
    r->own.skip_delim = false;
    return 1;
}

/* Looks at what is there. 1: a record; 0: more data is needed, and all that is here is in `part`;
 * -errno. */
static int look(struct reeve_reader *r, const struct rule *rule, struct reeve_record *ret)
{
    struct found f = { 0 };
    int e = pass_over(r, rule);
    if (e <= 0)
        return e;
    e = rule->kind == DELIMITED ? find_delimited(r, rule, &f) : find_sized(r, rule, &f);
    if (e > 0)
        return hand_out(r, &f, ret);
    if (e == -EMSGSIZE)
        return too_long(r, rule, &f);
    return e < 0 ? e : keep_all(r);
}

/* What was handed out by the call before is no longer needed: (2). */
static void let_go(struct reeve_reader *r)
{
    if (r->own.spent) {
        r->own.part_len = 0;
        r->own.spent = false;
    }
}

static int next_record(struct reeve_reader *r, const struct rule *rule, struct reeve_record *ret,
                       reeve_time until)
{
    let_go(r);
    if (within(r) && name_of(rule) != r->own.rule)
        return -EINVAL;
    for (;;) {
        int e = look(r, rule, ret);
        if (e != 0)
            return e;
        if (within(r))
            r->own.rule = name_of(rule);
        e = refill(r, until);
        if (e < 0)
            return e;
        if (e == 0)
            return within(r) || r->own.skip > 0 ? -EPROTO : 0;
    }
}

/* What most lines are: whole, and in the newest buffer. The others are for next_record(). */
static inline bool line_at_hand(struct reeve_reader *r, struct reeve_record *ret)
{
    struct reeve_reader_own *own = &r->own;
    size_t len;
    unsigned char *at = view(r, &len), *newline;
    if (len == 0 || own->part_len > 0 || own->skip > 0 || own->skip_delim)
        return false;
    newline = memchr(at, '\n', len);
    if (!newline || (size_t)(newline - at) > limit(r))
        return false;
    own->at.read += (size_t)(newline + 1 - at);
    ret->data = at;
    ret->len = (size_t)(newline - at) - (newline > at && newline[-1] == '\r');
    return true;
}

int reeve_reader_line(struct reeve_reader *reader, struct reeve_record *ret_line, reeve_time until)
{
    static const unsigned char newline = '\n';
    static const struct rule rule = { DELIMITED, &newline, 1, true, 0, 0 };
    if (line_at_hand(reader, ret_line))
        return 1;
    return next_record(reader, &rule, ret_line, until);
}

int reeve_reader_until(struct reeve_reader *reader, const void *delim, size_t len,
                       struct reeve_record *ret_record, reeve_time until)
{
    if (!delim || len == 0 || len > DELIM_MAX)
        return -EINVAL;
    struct rule rule = { .kind = DELIMITED, .delim = delim, .delim_len = len };
    return next_record(reader, &rule, ret_record, until);
}

int reeve_reader_sized(struct reeve_reader *reader, int how, struct reeve_record *ret_record,
                       reeve_time until)
{
    if (how < REEVE_LEN_8 || how > REEVE_LEN_VARINT)
        return -EINVAL;
    struct rule rule = { .kind = SIZED, .how = how };
    return next_record(reader, &rule, ret_record, until);
}

int reeve_reader_bytes(struct reeve_reader *reader, size_t len, struct reeve_record *ret_record,
                       reeve_time until)
{
    struct rule rule = { .kind = COUNTED, .len = len };
    return next_record(reader, &rule, ret_record, until);
}

int reeve_reader_rest(struct reeve_reader *reader, struct reeve_record *ret_record)
{
    struct reeve_reader *r = reader;
    let_go(r);
    if (r->own.skip_delim) /* `part` is of what is being passed over */
        r->own.part_len = 0;
    r->own.skip = 0;
    r->own.skip_delim = false;
    struct found all = { .len = have(r), .all = have(r) };
    return all.all > 0 ? hand_out(r, &all, ret_record) : 0;
}

void reeve_reader_finish(struct reeve_reader *reader)
{
    if (!reader)
        return;
    return_buffer(reader);
    drop_part(reader);
    reader->own = (struct reeve_reader_own){ 0 };
}
