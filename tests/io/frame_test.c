/* SPDX-License-Identifier: MIT */
/*
 * frame_test.c -- records come out of a stream as they went in, wherever it was cut, and stay where
 * they arrived.
 *
 * A reader that has taken all there was, by REEVE_POLL, and is sent one more piece, gets that piece
 * as one buffer: so a test says where the stream is cut. What must come out is what a naive reader
 * finds that has the whole stream in one array.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <reeve/frame.h>

#include "io/buf.h"
#include "mem/fault.h"
#include "tests/io/pair.h"

#if defined(__SANITIZE_THREAD__)
enum { SLOWER = 8 };
#elif defined(__SANITIZE_ADDRESS__)
enum { SLOWER = 3 };
#else
enum { SLOWER = 1 };
#endif

#define SOON reeve_in(2 * REEVE_MS)

/* ---- a naive reader -------------------------------------------------------------------------- */

/* How to call a reader; and the whole stream. */
struct framing {
    const char *delim; /* NULL: by length; "\n" with line set: lines */
    bool line;
    int how;
    size_t record_max;
};

static int call(struct reeve_reader *r, const struct framing *f, struct reeve_record *rec,
                reeve_time until)
{
    if (f->line)
        return reeve_reader_line(r, rec, until);
    if (f->delim)
        return reeve_reader_until(r, f->delim, strlen(f->delim), rec, until);
    return reeve_reader_sized(r, f->how, rec, until);
}

/* What came out, in order: for each record its bytes, "|", "!" for one that was too long. */
struct outcome {
    char text[4096];
    size_t len;
};

static void add(struct outcome *o, const void *data, size_t len, char mark)
{
    CHECK_LT(o->len + len + 1, sizeof o->text);
    if (len > 0)
        memcpy(o->text + o->len, data, len);
    o->len += len;
    o->text[o->len++] = mark;
}

static size_t number(const unsigned char *p, size_t n, bool big)
{
    size_t x = 0;
    for (size_t i = 0; i < n; i++)
        x = x * 256 + p[big ? i : n - 1 - i];
    return x;
}

/* The length of the number in front, and the number; 0: it is not complete. */
static size_t naive_length(const struct framing *f, const unsigned char *p, size_t left,
                           size_t *ret_len)
{
    static const struct { size_t bytes; bool big; } form[] = {
        [REEVE_LEN_8] = { 1, true },     [REEVE_LEN_16BE] = { 2, true },
        [REEVE_LEN_16LE] = { 2, false }, [REEVE_LEN_32BE] = { 4, true },
        [REEVE_LEN_32LE] = { 4, false }, [REEVE_LEN_64BE] = { 8, true },
        [REEVE_LEN_64LE] = { 8, false },
    };
    if (f->how == REEVE_LEN_VARINT) {
        *ret_len = 0;
        for (size_t i = 0; i < left; i++) {
            *ret_len |= (size_t)(p[i] & 127) << (7 * i);
            if (p[i] < 128)
                return i + 1;
        }
        return 0;
    }
    size_t n = form[f->how].bytes;
    if (left < n)
        return 0;
    *ret_len = number(p, n, form[f->how].big);
    return n;
}

static void naive(const struct framing *f, const unsigned char *p, size_t left, struct outcome *o)
{
    o->len = 0;
    while (left > 0) {
        size_t head = 0, len, end;
        if (f->delim) {
            const unsigned char *d = memmem(p, left, f->delim, strlen(f->delim));
            if (!d)
                break;
            len = (size_t)(d - p);
            end = len + strlen(f->delim);
            if (f->line && len > 0 && p[len - 1] == '\r')
                len--;
        } else {
            head = naive_length(f, p, left, &len);
            if (head == 0 || left - head < len)
                break;
            end = head + len;
        }
        if (len > f->record_max)
            add(o, NULL, 0, '!');
        else
            add(o, p + head, len, '|');
        p += end;
        left -= end;
    }
    add(o, NULL, 0, left > 0 ? '?' : '.');
}

/* ---- every cut ------------------------------------------------------------------------------- */

/* All that can be had by now. */
static void take_all(struct reeve_reader *r, const struct framing *f, struct outcome *o,
                     reeve_time until)
{
    struct reeve_record rec;
    for (;;) {
        int e = call(r, f, &rec, until);
        if (e == 1) {
            add(o, rec.data, rec.len, '|');
            memset(rec.data, '#', rec.len); /* it is ours to change */
        } else if (e == -EMSGSIZE) {
            add(o, NULL, 0, '!');
        } else if (e == -ETIMEDOUT) {
            return;
        } else {
            CHECK(e == 0 || e == -EPROTO);
            add(o, NULL, 0, e == 0 ? '.' : '?');
            CHECK_EQ(call(r, f, &rec, until), e); /* the end stays the end */
            return;
        }
    }
}

static int socket_pair_of_streams(int *ret_peer)
{
    int ends[2];
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    *ret_peer = ends[1];
    return ends[0];
}

/* Sends the stream in pieces that end at the cuts. */
static void cut_and_compare(const struct framing *f, const void *stream, size_t len,
                            const size_t *cuts, size_t ncuts, const struct outcome *wanted)
{
    struct reeve_reader r = { .record_max = f->record_max };
    struct outcome o = { .len = 0 };
    int peer;
    r.fd = socket_pair_of_streams(&peer);
    for (size_t i = 0, at = 0; i <= ncuts; i++) {
        size_t end = i < ncuts ? cuts[i] : len;
        if (end > at)
            peer_send(peer, (const char *)stream + at, end - at);
        take_all(&r, f, &o, REEVE_POLL);
        at = end;
    }
    close(peer);
    take_all(&r, f, &o, LONG);
    if (o.len != wanted->len || memcmp(o.text, wanted->text, o.len) != 0)
        check_failed(__FILE__, __LINE__, "cut at %zu and %zu: \"%.*s\", not \"%.*s\"", cuts[0],
                     ncuts > 1 ? cuts[1] : len, (int)o.len, o.text, (int)wanted->len,
                     wanted->text);
    reeve_reader_finish(&r);
    close(r.fd);
}

static void every_cut(const struct framing *f, const void *stream, size_t len)
{
    struct outcome wanted;
    naive(f, stream, len, &wanted);
    for (size_t a = 0; a <= len; a++)
        for (size_t b = a; b <= len; b += SLOWER)
            cut_and_compare(f, stream, len, (size_t[]){ a, b }, 2, &wanted);
    size_t each[128];
    CHECK_LE(len, 128);
    for (size_t i = 0; i < len; i++)
        each[i] = i;
    cut_and_compare(f, stream, len, each, len, &wanted);
}

static int cut_lines(void *arg)
{
    static const char text[] = "one\r\n\n\r\r\ntwo three\n12345678\r\n123456789\n1234567890\r\nx";
    struct framing f = { .delim = "\n", .line = true, .record_max = 8 };
    (void)arg;
    every_cut(&f, text, sizeof text - 1);
    every_cut(&f, text, sizeof text - 2); /* which ends with a line */
    return 0;
}

TEST(lines_are_the_same_wherever_the_stream_is_cut)
{
    RUN(cut_lines, .workers = 1);
}

static int cut_delimited(void *arg)
{
    static const char text[] = "ab--a-b---c-----dddddddd--eeeeeeeee----------";
    (void)arg;
    every_cut(&(struct framing){ .delim = "--", .record_max = 8 }, text, sizeof text - 1);
    every_cut(&(struct framing){ .delim = "---", .record_max = 8 }, text, sizeof text - 1);
    every_cut(&(struct framing){ .delim = "-", .record_max = 3 }, text, sizeof text - 1);
    static const char http[] = "GET / H\r\nA: b\r\n\r\nPUT\r\n\r\r\n\r\n\r\n\r\nlong long\r\n\r\n";
    every_cut(&(struct framing){ .delim = "\r\n\r\n", .record_max = 14 }, http, sizeof http - 1);
    return 0;
}

TEST(delimited_records_are_the_same_wherever_the_stream_is_cut)
{
    RUN(cut_delimited, .workers = 1);
}

/* Writes a length as `how` says. */
static size_t put_length(unsigned char *to, int how, uint64_t n)
{
    static const size_t bytes[] = { 0, 1, 2, 2, 4, 4, 8, 8 };
    static const bool big[] = { false, true, true, false, true, false, true, false };
    size_t i = 0;
    if (how == REEVE_LEN_VARINT) {
        for (; n > 127; n >>= 7)
            to[i++] = (unsigned char)(n | 128);
        to[i++] = (unsigned char)n;
        return i;
    }
    for (; i < bytes[how]; i++)
        to[i] = (unsigned char)(n >> (8 * (big[how] ? bytes[how] - 1 - i : i)));
    return i;
}

static int cut_sized(void *arg)
{
    static const size_t sizes[] = { 3, 0, 1, 8, 9, 2 };
    (void)arg;
    for (int how = REEVE_LEN_8; how <= REEVE_LEN_VARINT; how++) {
        unsigned char stream[128];
        size_t len = 0;
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            len += put_length(stream + len, how, sizes[i]);
            memset(stream + len, 'a' + (int)i, sizes[i]);
            len += sizes[i];
        }
        every_cut(&(struct framing){ .how = how, .record_max = 8 }, stream, len);
        every_cut(&(struct framing){ .how = how, .record_max = 8 }, stream, len - 1);
    }
    return 0;
}

TEST(sized_records_are_the_same_wherever_the_stream_is_cut)
{
    RUN(cut_sized, .workers = 1);
}

/* ---- long streams, any sizes ----------------------------------------------------------------- */

enum { RECORDS = 3000 / SLOWER, RECORD_MAX = 5000 };

static uint32_t draw(uint32_t *state, uint32_t below)
{
    *state = *state * 1664525 + 1013904223;
    return (*state >> 8) % below;
}

static size_t draw_size(uint32_t *state)
{
    return draw(state, 8) ? draw(state, 100) : draw(state, RECORD_MAX + 1);
}

/* The i-th record's bytes: no "\n", no "\r". */
static void fill_record(unsigned char *to, size_t len, uint64_t i)
{
    for (size_t k = 0; k < len; k++)
        to[k] = (unsigned char)('A' + pattern(i * 7919 + k) % 26);
}

struct sender {
    int fd, how; /* how 0: lines */
};

static void *send_records(void *arg)
{
    struct sender *s = arg;
    static unsigned char buf[1 << 20];
    uint32_t sizes = 17, pieces = 23;
    size_t len = 0;
    for (uint64_t i = 0; i < RECORDS; i++) {
        size_t n = draw_size(&sizes);
        if (s->how)
            len += put_length(buf + len, s->how, n);
        fill_record(buf + len, n, i);
        len += n;
        if (!s->how)
            buf[len++] = '\n';
        if (len < sizeof buf - 2 * RECORD_MAX && i + 1 < RECORDS)
            continue;
        for (size_t at = 0; at < len;) {
            size_t piece = draw(&pieces, 3) ? 1 + draw(&pieces, 2000) : 1 + draw(&pieces, 60000);
            piece = piece < len - at ? piece : len - at;
            peer_send(s->fd, buf + at, piece);
            at += piece;
        }
        len = 0;
    }
    shutdown(s->fd, SHUT_WR);
    return NULL;
}

static void long_stream(int how)
{
    struct pair p = pair_make();
    struct sender s = { p.peer, how };
    struct reeve_reader r = { .fd = p.fd, .record_max = RECORD_MAX };
    struct reeve_record rec;
    static unsigned char wanted[RECORD_MAX];
    uint32_t sizes = 17;
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, send_records, &s), 0);
    for (uint64_t i = 0; i < RECORDS; i++) {
        size_t n = draw_size(&sizes);
        fill_record(wanted, n, i);
        CHECK_EQ(how ? reeve_reader_sized(&r, how, &rec, LONG) : reeve_reader_line(&r, &rec, LONG),
                 1);
        CHECK_EQ(rec.len, n);
        CHECK_MEM_EQ(rec.data, wanted, n);
    }
    CHECK_EQ(reeve_reader_line(&r, &rec, LONG), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    reeve_reader_finish(&r);
    pair_close(&p);
}

static int long_streams(void *arg)
{
    (void)arg;
    long_stream(0);
    long_stream(REEVE_LEN_32BE);
    long_stream(REEVE_LEN_VARINT);
    return 0;
}

TEST(a_long_stream_comes_out_as_it_went_in)
{
    RUN(long_streams, .workers = 1);
    RUN(long_streams, .workers = 2, .buf_bytes = 1024);
}

/* ---- no copies, no calls --------------------------------------------------------------------- */

static uint64_t enters(void)
{
    struct reeve_stats st;
    reeve_stats(reeve_self(), &st);
    return st.enters;
}

enum { LINES = 200, LINE = 64 }; /* 12800 bytes: one buffer */

static int in_place(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    struct reeve_reader r = { .fd = p.fd };
    struct reeve_record rec;
    static char text[LINES * LINE];
    memset(text, 'x', sizeof text);
    for (int i = 0; i < LINES; i++)
        text[i * LINE + LINE - 1] = '\n';
    peer_send(p.peer, text, sizeof text);
    CHECK_EQ(reeve_reader_line(&r, &rec, LONG), 1);
    const struct rv_lease *l = (const struct rv_lease *)r.own.at.buf;
    CHECK(l != NULL);
    CHECK(rec.data == l->mem); /* where the kernel put it */
    uint64_t before = enters();
    for (int i = 1; i < LINES; i++) {
        CHECK_EQ(reeve_reader_line(&r, &rec, REEVE_POLL), 1);
        CHECK(rec.data == l->mem + i * LINE);
        CHECK_EQ(rec.len, LINE - 1);
    }
    CHECK_EQ(enters(), before); /* and the kernel was not asked again */
    CHECK_EQ(r.copied, 0);
    CHECK(r.own.part == NULL);
    reeve_reader_finish(&r);
    pair_close(&p);
    return 0;
}

TEST(records_of_one_buffer_are_neither_copied_nor_asked_for)
{
    RUN(in_place, .workers = 1);
}

static int across(void *arg)
{
    (void)arg;
    struct reeve_reader r = { 0 };
    struct reeve_record rec;
    int peer;
    r.fd = socket_pair_of_streams(&peer);
    peer_send(peer, "whole\nbroken ", 13);
    CHECK_EQ(reeve_reader_line(&r, &rec, LONG), 1);
    CHECK_EQ(reeve_reader_line(&r, &rec, REEVE_POLL), -ETIMEDOUT);
    CHECK_EQ(r.copied, 7);
    peer_send(peer, "line\nwhole\n", 11);
    CHECK_EQ(reeve_reader_line(&r, &rec, LONG), 1);
    CHECK_EQ(rec.len, 11);
    CHECK_MEM_EQ(rec.data, "broken line", 11);
    CHECK_EQ(r.copied, 12); /* that line with its end, and nothing else */
    CHECK_EQ(reeve_reader_line(&r, &rec, LONG), 1);
    CHECK(rec.data == ((struct rv_lease *)r.own.at.buf)->mem + 5);
    CHECK_EQ(r.copied, 12);
    reeve_reader_finish(&r);
    close(r.fd);
    close(peer);
    return 0;
}

TEST(only_a_record_across_two_buffers_is_copied)
{
    RUN(across, .workers = 1);
}

static int read_a_line(void *arg)
{
    struct reeve_record rec;
    return reeve_reader_line(arg, &rec, LONG);
}

static int idle(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    struct reeve_reader r = { .fd = p.fd };
    struct reeve_record rec;
    reeve_task *t;
    int result;
    peer_send(p.peer, "a\nb", 3);
    CHECK_EQ(reeve_reader_line(&r, &rec, LONG), 1);
    CHECK_EQ(my_io()->group.free, 3);
    CHECK_EQ(reeve_spawn(&t, read_a_line, &r), 0);
    await_waiter(p.fd, A_READER);
    CHECK_EQ(my_io()->group.free, 4); /* only "b" is kept, and elsewhere */
    peer_send(p.peer, "c\n", 2);
    CHECK_EQ(reeve_join(t, &result, LONG), 0);
    CHECK_EQ(result, 1);
    CHECK_EQ(reeve_spawn(&t, read_a_line, &r), 0);
    await_waiter(p.fd, A_READER);
    CHECK_EQ(my_io()->group.free, 4);
    CHECK(r.own.part == NULL);
    CHECK_EQ(shutdown(p.peer, SHUT_WR), 0);
    CHECK_EQ(reeve_join(t, &result, LONG), 0);
    CHECK_EQ(result, 0);
    reeve_reader_finish(&r);
    pair_close(&p);
    return 0;
}

TEST(who_waits_holds_no_buffer)
{
    RUN(idle, .workers = 1, .bufs = 4);
}

/* ---- mixed, and wrong ------------------------------------------------------------------------ */

static int header_and_body(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    struct reeve_reader r = { .fd = p.fd };
    struct reeve_record rec;
    static const char text[] = "length 11\r\n\r\nthe\nbody it\x05" "boxed" "tail";
    peer_send(p.peer, text, sizeof text - 1);
    CHECK_EQ(reeve_reader_line(&r, &rec, LONG), 1);
    CHECK_EQ(rec.len, 9);
    CHECK_EQ(reeve_reader_line(&r, &rec, LONG), 1);
    CHECK_EQ(rec.len, 0);
    CHECK_EQ(reeve_reader_bytes(&r, 11, &rec, LONG), 1);
    CHECK_EQ(rec.len, 11);
    CHECK_MEM_EQ(rec.data, "the\nbody it", 11);
    CHECK_EQ(reeve_reader_bytes(&r, 0, &rec, LONG), 1);
    CHECK_EQ(rec.len, 0);
    CHECK_EQ(reeve_reader_sized(&r, REEVE_LEN_8, &rec, LONG), 1);
    CHECK_MEM_EQ(rec.data, "boxed", 5);
    CHECK_EQ(reeve_reader_rest(&r, &rec), 1);
    CHECK_EQ(rec.len, 4);
    CHECK_MEM_EQ(rec.data, "tail", 4);
    CHECK_EQ(reeve_reader_rest(&r, &rec), 0);
    reeve_reader_finish(&r);
    reeve_reader_finish(&r);
    reeve_reader_finish(NULL);
    pair_close(&p);
    return 0;
}

TEST(ways_of_framing_are_mixed_on_one_stream)
{
    RUN(header_and_body, .workers = 1);
}

static int other_rule(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    struct reeve_reader r = { .fd = p.fd, .record_max = 6 };
    struct reeve_record rec = { NULL, 7 };
    CHECK_EQ(reeve_reader_until(&r, "", 0, &rec, LONG), -EINVAL);
    CHECK_EQ(reeve_reader_until(&r, NULL, 1, &rec, LONG), -EINVAL);
    CHECK_EQ(reeve_reader_sized(&r, 0, &rec, LONG), -EINVAL);
    CHECK_EQ(reeve_reader_sized(&r, REEVE_LEN_VARINT + 1, &rec, LONG), -EINVAL);
    pair_send(&p, "abcd", 4);
    CHECK_EQ(reeve_reader_line(&r, &rec, SOON), -ETIMEDOUT);
    CHECK_EQ(reeve_reader_bytes(&r, 2, &rec, LONG), -EINVAL); /* it is within a line */
    CHECK_EQ(reeve_reader_until(&r, "\n", 1, &rec, LONG), -EINVAL);
    CHECK_EQ(reeve_reader_sized(&r, REEVE_LEN_8, &rec, LONG), -EINVAL);
    CHECK_EQ(reeve_reader_bytes(&r, 2, &rec, LONG), -EINVAL);
    CHECK(rec.data == NULL);
    CHECK_EQ(rec.len, 7); /* untouched by all that */
    CHECK_EQ(reeve_reader_rest(&r, &rec), 1);
    CHECK_MEM_EQ(rec.data, "abcd", 4);
    peer_send(p.peer, "too long--short--", 17);
    CHECK_EQ(reeve_reader_until(&r, "+-", 2, &rec, LONG), -EMSGSIZE);
    CHECK_EQ(reeve_reader_until(&r, "--", 2, &rec, LONG), -EINVAL); /* that was another one */
    CHECK_EQ(reeve_reader_rest(&r, &rec), 0);
    reeve_reader_finish(&r);
    pair_close(&p);
    return 0;
}

TEST(within_a_record_another_rule_is_refused)
{
    RUN(other_rule, .workers = 1);
}

static int bad_varint(void *arg)
{
    static const unsigned char most[] = "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    static const unsigned char more[] = "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02";
    (void)arg;
    for (size_t cut = 0; cut <= 10; cut++) {
        struct reeve_reader r = { .record_max = 10 };
        struct reeve_record rec;
        int peer;
        r.fd = socket_pair_of_streams(&peer);
        if (cut > 0) {
            peer_send(peer, more, cut);
            CHECK_EQ(reeve_reader_sized(&r, REEVE_LEN_VARINT, &rec, REEVE_POLL),
                     cut < 10 ? -ETIMEDOUT : -EBADMSG);
        }
        if (cut < 10)
            peer_send(peer, more + cut, 10 - cut);
        CHECK_EQ(reeve_reader_sized(&r, REEVE_LEN_VARINT, &rec, LONG), -EBADMSG);
        CHECK_EQ(reeve_reader_sized(&r, REEVE_LEN_VARINT, &rec, LONG), -EBADMSG);
        CHECK_EQ(reeve_reader_rest(&r, &rec), 1);
        CHECK_EQ(rec.len, 10);
        CHECK_MEM_EQ(rec.data, more, 10);
        peer_send(peer, most, 10); /* the longest there is: 2^64 - 1 */
        CHECK_EQ(reeve_reader_sized(&r, REEVE_LEN_VARINT, &rec, LONG), -EMSGSIZE);
        peer_send(peer, most, 10);
        CHECK_EQ(reeve_reader_sized(&r, REEVE_LEN_VARINT, &rec, REEVE_POLL), -ETIMEDOUT);
        close(peer);
        CHECK_EQ(reeve_reader_sized(&r, REEVE_LEN_VARINT, &rec, LONG), -EPROTO);
        reeve_reader_finish(&r);
        close(r.fd);
    }
    return 0;
}

TEST(a_length_of_more_than_64_bits_is_an_error_and_the_largest_is_too_long)
{
    RUN(bad_varint, .workers = 1);
}

static int announced(void *arg)
{
    (void)arg;
    struct reeve_reader r = { .record_max = SIZE_MAX };
    struct reeve_record rec;
    int peer;
    r.fd = socket_pair_of_streams(&peer);
    peer_send(peer, "\x7f\xff\xff\xff\xff\xff\xff\xff" "a few bytes", 19);
    CHECK_EQ(reeve_reader_sized(&r, REEVE_LEN_64BE, &rec, REEVE_POLL), -ETIMEDOUT);
    CHECK_LE(r.own.part_cap, 256); /* not the 8 EiB that it says will come */
    reeve_reader_finish(&r);
    close(r.fd);
    close(peer);
    return 0;
}

TEST(memory_grows_with_what_has_come_and_not_with_what_was_announced)
{
    RUN(announced, .workers = 1);
}

/* ---- waits that end otherwise ---------------------------------------------------------------- */

static int cancelled_reader(void *arg)
{
    struct reeve_record rec;
    int e = reeve_reader_line(arg, &rec, LONG);
    CHECK_EQ(e, -ECANCELED);
    return 0;
}

static int interrupted(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    struct reeve_reader r = { .fd = p.fd };
    struct reeve_record rec;
    reeve_task *t;
    peer_send(p.peer, "al", 2);
    CHECK_EQ(reeve_reader_line(&r, &rec, SOON), -ETIMEDOUT);
    CHECK_EQ(reeve_spawn(&t, cancelled_reader, &r), 0);
    await_waiter(p.fd, A_READER);
    reeve_cancel(t);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    peer_send(p.peer, "l\nof", 4);
    CHECK_EQ(reeve_reader_line(&r, &rec, LONG), 1);
    CHECK_EQ(rec.len, 3);
    CHECK_MEM_EQ(rec.data, "all", 3);
    CHECK_EQ(shutdown(p.peer, SHUT_WR), 0);
    CHECK_EQ(reeve_reader_line(&r, &rec, LONG), -EPROTO);
    CHECK_EQ(reeve_reader_line(&r, &rec, LONG), -EPROTO);
    CHECK_EQ(reeve_reader_rest(&r, &rec), 1);
    CHECK_EQ(rec.len, 2);
    CHECK_MEM_EQ(rec.data, "of", 2);
    CHECK_EQ(reeve_reader_line(&r, &rec, LONG), 0);
    reeve_reader_finish(&r);
    pair_close(&p);
    return 0;
}

TEST(a_wait_that_ends_early_loses_nothing)
{
    RUN(interrupted, .workers = 1);
    RUN(interrupted, .workers = 2);
}

static int short_of_memory(void *arg)
{
    (void)arg;
    struct framing f = { .delim = "\r\n", .record_max = 300 };
    static char text[2000];
    size_t len = 0, failures = 0;
    for (size_t i = 0; i < 12; i++) { /* every fourth is too long */
        size_t n = i % 4 == 3 ? 310 : 20 * i;
        memset(text + len, 'a' + (int)i, n);
        memcpy(text + len + n, "\r\n", 2);
        len += n + 2;
    }
    struct outcome wanted;
    naive(&f, (unsigned char *)text, len, &wanted);
    for (uint64_t nth = 1;; nth++) {
        struct reeve_reader r = { .record_max = f.record_max };
        struct outcome o = { .len = 0 };
        struct reeve_record rec = { NULL, 0 };
        int peer;
        r.fd = socket_pair_of_streams(&peer);
        rv_fault_only("alloc");
        rv_fault_fail_nth(nth);
        for (size_t at = 0; at < len; at += 71) {
            peer_send(peer, text + at, len - at < 71 ? len - at : 71);
            int e;
            while ((e = call(&r, &f, &rec, REEVE_POLL)) != -ETIMEDOUT) {
                CHECK(e == 1 || e == -EMSGSIZE || e == -ENOMEM);
                failures += e == -ENOMEM;
                if (e != -ENOMEM)
                    add(&o, rec.data, e == 1 ? rec.len : 0, e == 1 ? '|' : '!');
            }
        }
        bool failed = rv_fault_last_name() != NULL;
        rv_fault_off();
        close(peer);
        take_all(&r, &f, &o, LONG);
        CHECK_EQ(o.len, wanted.len);
        CHECK_MEM_EQ(o.text, wanted.text, o.len);
        reeve_reader_finish(&r);
        close(r.fd);
        if (!failed)
            break;
    }
    if (rv_fault_available())
        CHECK_GE(failures, 2);
    return 0;
}

TEST(without_memory_a_call_fails_and_the_next_one_goes_on)
{
    RUN(short_of_memory, .workers = 1);
}

static int64_t kernel_clock(void)
{
    struct timespec t;
    CHECK_EQ(clock_gettime(CLOCK_MONOTONIC, &t), 0);
    return t.tv_sec * REEVE_SEC + t.tv_nsec;
}

static int poll_and_look_at_the_clock(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    struct reeve_reader r = { .fd = p.fd };
    struct reeve_record rec;
    for (int i = 0; i < 10; i++) {
        peer_send(p.peer, "line\nhal", 8);
        while (reeve_reader_line(&r, &rec, REEVE_POLL) == 1)
            ;
        peer_send(p.peer, "f\n", 2);
        CHECK_EQ(reeve_reader_line(&r, &rec, LONG), 1);
        reeve_time now = reeve_now(); /* before the kernel is asked */
        CHECK_LE(now, kernel_clock());
    }
    reeve_reader_finish(&r);
    pair_close(&p);
    return 0;
}

TEST(time_is_what_it_was_after_a_look_that_found_nothing)
{
    RUN(poll_and_look_at_the_clock, .workers = 1);
    RUN(poll_and_look_at_the_clock, .workers = 2);
}
