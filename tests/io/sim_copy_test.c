/* SPDX-License-Identifier: MIT */
/*
 * sim_copy_test.c -- copies, writes and waits on real descriptors, under the simulation's clock and
 * its draws.
 *
 * A line is a source with a producer, a sink with a consumer, and a task that copies from one to
 * the other, in pieces, with deadlines, and reads some of it itself in between:
 *
 *     producer -> feed | from -> copies -> to | drain -> consumer
 *                             '-> tee -> log | log_drain -> consumer
 *
 * What was fed and what arrived is counted by plain calls that do not wait, so both are known
 * exactly. Each call that says that it moved n bytes leaves a piece: where they began in the source
 * and how many they were. Afterwards what arrived is those pieces, one behind the other, and what
 * the source still has goes on where the last one ended. Files and pipes and foreign sockets keep a
 * duplicate for that, which the closes that are drawn do not touch.
 *
 * Somebody else writes records into the sink: whole, and only where no call was under way. Where
 * the source was closed other descriptors take over its number at once, and hold poison, which is
 * neither a record nor what a source has.
 */
#define CHECK_MAIN
#include "tests/io/scratch.h"
#include "tests/io/sim_seeds.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <reeve/fd.h>
#include <reeve/reeve.h>
#include <reeve/socket.h>
#include <string.h>
#include <sys/socket.h>

#define LINES 4
#define SOURCE_MOST 120000u
#define RECORD_UNIT 64u  /* bytes of a record, times its length */
#define RECORDS 6
#define RECORD_MOST 40u  /* units */
#define SINK_MOST (SOURCE_MOST + RECORDS * (RECORD_MOST * RECORD_UNIT + 1))
#define PIECES 20000
#define POISON 0xfe
#define FILLING 0xff
#define GIVES_UP 8 /* failures without progress */

/* Files are in memory, so that what is cached does not depend on what else the machine does; but
 * for DISK_END, which only runs that nobody compares have. */
enum kind { MEMORY_END, APPEND_END, PIPE_END, UNIX_END, OURS_END, DEVICE_END, DISK_END };

struct copies;

struct piece {
    uint32_t at, len;
};

struct arrived {
    unsigned char *bytes;
    uint32_t n;
    struct piece *piece;
    uint32_t pieces;
};

struct line {
    struct copies *all;
    int id;
    enum kind from_kind, to_kind;
    int from, from_dup, feed, to, to_dup, drain, log, log_drain;
    int to_flags;
    uint32_t total, fed; /* bytes of the source; of these there already */
    uint32_t at;         /* bytes of the source that somebody has taken */
    uint32_t teed;       /* up to there they are in the log */
    uint32_t records;
    bool shares;         /* `to` is the other line's `from`, `drain` its `feed` */
    bool shared;         /* and that is this line */
    bool noisy;
    bool fed_all, over, ended, from_closed, to_closed, cancelled, left;
    reeve_task *copier, *producer, *consumer, *logger, *noise;
    struct arrived sink, logged;
};

struct copies {
    bool wild;  /* memory runs out, disks fail, answers are odd, receivers leave */
    bool cruel; /* there are closes and cancellations */
    bool disks;
    int lines, answers, zeros, poison[16], poisons;
    struct line line[LINES];
};

/* ---- bytes ----------------------------------------------------------------------------------- */

/* Seven bits: records have the eighth. */
static unsigned char source_byte(const struct line *l, uint32_t at)
{
    uint32_t x = (at ^ at >> 7) + (uint32_t)l->id * 1000003u;
    return l->from_kind == DEVICE_END ? 0 : (unsigned char)((x * 0x9e3779b1u) >> 25);
}

static void source_bytes(const struct line *l, uint32_t at, unsigned char *bytes, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        bytes[i] = source_byte(l, at + i);
}

static void check_source(const struct line *l, uint32_t at, const unsigned char *bytes, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (bytes[i] != source_byte(l, at + i))
            check_failed(__FILE__, __LINE__, "line %d, %d to %d: byte %u of the source is %d",
                         l->id, l->from_kind, l->to_kind, at + i, bytes[i]);
}

static void add_piece(struct arrived *a, uint32_t at, uint32_t n)
{
    CHECK_LT(a->pieces, PIECES);
    a->piece[a->pieces++] = (struct piece){ at, n };
}

/* A record that begins here, with nothing in between. Its length; 0: only a part of it is there. */
static uint32_t check_record(const struct arrived *a, uint32_t i)
{
    uint32_t len = 1 + (a->bytes[i] & 0x7fu) * RECORD_UNIT;
    for (uint32_t k = 1; k < len && i + k < a->n; k++)
        CHECK_EQ(a->bytes[i + k], FILLING);
    return i + len <= a->n ? len : 0;
}

/* What arrived is all pieces in their order, or the first of them. */
static void check_arrived(const struct line *l, const struct arrived *a, uint32_t records,
                          bool to_the_end)
{
    uint32_t k = 0, in = 0, found = 0;
    for (uint32_t i = 0; i < a->n;) {
        if (a->bytes[i] & 0x80) {
            CHECK_EQ(in, 0); /* no call was under way */
            CHECK(a->bytes[i] < POISON);
            uint32_t len = check_record(a, i);
            CHECK(len > 0 || !to_the_end);
            i += len ? len : a->n - i;
            found++;
            continue;
        }
        CHECK_LT(k, a->pieces);
        check_source(l, a->piece[k].at + in, &a->bytes[i++], 1);
        if (++in == a->piece[k].len) {
            in = 0;
            k++;
        }
    }
    if (to_the_end) {
        CHECK_EQ(k, a->pieces);
        CHECK_EQ(found, records);
    }
}

/* ---- ends ------------------------------------------------------------------------------------ */

static bool is_file(enum kind k)
{
    return k == MEMORY_END || k == APPEND_END || k == DISK_END;
}

static bool is_socket(enum kind k)
{
    return k == UNIX_END || k == OURS_END;
}

static enum kind draw_kind(const struct copies *all, bool to)
{
    static const enum kind kinds[] = { PIPE_END, UNIX_END, OURS_END, PIPE_END,  UNIX_END,
                                       OURS_END, MEMORY_END, DEVICE_END, APPEND_END };
    enum kind k = kinds[rv_sim_draw(9)];
    if (all->disks && is_file(k) && rv_sim_chance(512))
        return DISK_END;
    return k == APPEND_END && !to ? MEMORY_END : k;
}

static int make_file(enum kind k)
{
    int fd;
    if (k == DISK_END) {
        fd = open(scratch("end"), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        CHECK_EQ(unlink(scratch("end")), 0);
    } else {
        fd = memfd_create("sim_copy_test", MFD_CLOEXEC);
    }
    CHECK_GE(fd, 0);
    if (k == APPEND_END)
        CHECK_EQ(fcntl(fd, F_SETFL, O_APPEND), 0);
    return fd;
}

/* Two ends: one for the copies, one for the task at its other side. */
static void make_ends(enum kind k, bool to, int *ret_fd, int *ret_other)
{
    static const size_t sizes[] = { 0, 0, 4096, 65536, 1 << 18 };
    int fds[2] = { -1, -1 }, room = (int)(2048u << rv_sim_draw(8));
    if (k == PIPE_END) {
        CHECK_OK(reeve_pipe(fds, sizes[rv_sim_draw(5)]));
        CHECK_EQ(fcntl(fds[!to], F_SETFL, O_NONBLOCK), 0);
        *ret_fd = fds[to];
        *ret_other = fds[!to];
        return;
    }
    if (k == UNIX_END) {
        int flags = rv_sim_chance(300) ? SOCK_NONBLOCK : 0;
        CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0, fds), 0);
    } else if (k == OURS_END) {
        CHECK_EQ(reeve_socket_pair(SOCK_STREAM, fds), 0);
    } else {
        fds[0] = k == DEVICE_END ? open(to ? "/dev/null" : "/dev/zero", O_RDWR | O_CLOEXEC)
                                 : make_file(k);
        CHECK_GE(fds[0], 0);
    }
    for (int i = 0; i < 2 && is_socket(k) && room < 100000; i++)
        CHECK_EQ(setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &room, sizeof room), 0);
    *ret_fd = fds[0];
    *ret_other = fds[1];
}

static void fill_file(const struct line *l)
{
    static unsigned char bytes[SOURCE_MOST];
    source_bytes(l, 0, bytes, l->total);
    CHECK_EQ(pwrite(l->from, bytes, l->total, 0), l->total);
}

static int duplicate(int fd)
{
    return (int)CHECK_OK(fcntl(fd, F_DUPFD_CLOEXEC, 0));
}

static void make_line(struct copies *all, int id, enum kind from, enum kind to)
{
    static unsigned char sunk[LINES][SINK_MOST], logged[LINES][SOURCE_MOST];
    static struct piece pieces[2][LINES][PIECES];
    static const uint32_t most[] = { 3000, 40000, SOURCE_MOST };
    struct line *l = &all->line[id], *other = id > 0 ? l - 1 : NULL;
    *l = (struct line){ .all = all, .id = id, .from_kind = from, .to_kind = to, .from_dup = -1,
                        .to_dup = -1, .log = -1, .log_drain = -1,
                        .sink = { .bytes = sunk[id], .piece = pieces[0][id] },
                        .logged = { .bytes = logged[id], .piece = pieces[1][id] } };
    l->total = rv_sim_draw(most[rv_sim_draw(3)]);
    make_ends(from, false, &l->from, &l->feed);
    if (other && is_socket(to) && other->from_kind == to && rv_sim_chance(700)) {
        l->shares = other->shared = true;
        l->to = other->from;
        l->drain = other->feed;
    } else {
        make_ends(to, true, &l->to, &l->drain);
    }
    if (is_file(from))
        fill_file(l);
    if (from != OURS_END)
        l->from_dup = duplicate(l->from);
    if (to != OURS_END)
        l->to_dup = duplicate(l->to);
    l->to_flags = fcntl(l->to, F_GETFL);
    if (from == PIPE_END && rv_sim_chance(512))
        make_ends(PIPE_END, true, &l->log, &l->log_drain);
    l->noisy = !all->wild && to != DEVICE_END && rv_sim_chance(300);
}

static void close_one(int *fd)
{
    if (*fd >= 0)
        CHECK_EQ(close(*fd), 0);
    *fd = -1;
}

static void close_ours(int fd, bool closed)
{
    if (fd >= 0 && !closed)
        CHECK_EQ(reeve_close(fd), 0);
}

static void close_line(struct line *l)
{
    close_ours(l->from, l->from_closed);
    if (!l->shares)
        close_ours(l->to, l->to_closed);
    if (is_socket(l->from_kind))
        close_ours(l->feed, false);
    if (!l->shares && l->drain >= 0)
        close_ours(l->drain, l->left);
    close_ours(l->log_drain, false);
    close_one(&l->from_dup);
    close_one(&l->to_dup);
}

/* No more will be written there. */
static void end_writing(enum kind k, int fd)
{
    if (k == PIPE_END)
        CHECK_EQ(reeve_close(fd), 0);
    else if (is_socket(k))
        shutdown(fd, SHUT_WR);
}

/* ---- producers and consumers ----------------------------------------------------------------- */

static reeve_time some_time(void)
{
    return reeve_in(INT64_C(1) << rv_sim_draw(25));
}

static void pause_sometimes(uint32_t rate)
{
    if (rv_sim_chance(rate))
        (void)reeve_sleep(some_time());
}

/* Until it is ready, or for a while. */
static void wait_for(const struct line *l, int fd, short events)
{
    bool long_enough = !l->all->wild && !l->all->cruel && rv_sim_chance(700);
    if (rv_sim_chance(300)) {
        (void)reeve_sleep(some_time());
        return;
    }
    int r = reeve_wait_fd(fd, events, long_enough ? 0 : some_time());
    CHECK(r > 0 || !long_enough);
    CHECK(r > 0 || r == -ETIMEDOUT || l->all->wild);
}

static ssize_t write_plainly(enum kind k, int fd, const void *bytes, uint32_t n)
{
    ssize_t sent = is_socket(k) ? send(fd, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL)
                                : write(fd, bytes, n);
    return sent < 0 ? -errno : sent;
}

static ssize_t read_plainly(enum kind k, int fd, void *bytes, uint32_t n)
{
    ssize_t got = is_socket(k) ? recv(fd, bytes, n, MSG_DONTWAIT) : read(fd, bytes, n);
    return got < 0 ? -errno : got;
}

static int produce(void *arg)
{
    struct line *l = arg;
    unsigned char bytes[8192];
    uint32_t most = 1 + rv_sim_draw(sizeof bytes), pauses = rv_sim_draw(300);
    bool patient = !l->all->wild && !l->all->cruel && rv_sim_chance(300);
    while (l->fed < l->total && !l->over) {
        uint32_t n = 1 + rv_sim_draw(most);
        n = n < l->total - l->fed ? n : l->total - l->fed;
        source_bytes(l, l->fed, bytes, n);
        ssize_t sent = patient ? reeve_write(l->feed, bytes, n, 0)
                               : write_plainly(l->from_kind, l->feed, bytes, n);
        if (patient)
            CHECK_EQ(sent, n);
        if (sent == -EAGAIN) {
            wait_for(l, l->feed, POLLOUT);
        } else if (sent < 0) {
            CHECK_EQ(sent, -EPIPE);
            CHECK(l->from_closed);
            break;
        } else {
            l->fed += (uint32_t)sent;
        }
        pause_sometimes(pauses);
    }
    l->fed_all = true;
    end_writing(l->from_kind, l->feed);
    return 0;
}

/* The receiver goes away. */
static void leave(struct line *l)
{
    l->left = true;
    CHECK_EQ(reeve_close(l->drain), 0);
}

static int consume(void *arg)
{
    struct line *l = arg;
    uint32_t most = 1 + rv_sim_draw(10000), pauses = rv_sim_draw(500);
    bool patient = !l->all->wild && !l->shares && rv_sim_chance(300);
    bool leaves = l->all->wild && !l->shares && rv_sim_chance(150);
    for (;;) {
        struct arrived *a = &l->sink;
        uint32_t n = 1 + rv_sim_draw(most);
        CHECK_LT(a->n, SINK_MOST + 1);
        n = n < SINK_MOST - a->n ? n : SINK_MOST - a->n;
        ssize_t got = patient ? reeve_read(l->drain, a->bytes + a->n, n, 0)
                              : read_plainly(l->to_kind, l->drain, a->bytes + a->n, n);
        if (got == -EAGAIN) {
            wait_for(l, l->drain, POLLIN);
        } else if (CHECK_OK(got) == 0) {
            return 0;
        } else {
            a->n += (uint32_t)got;
        }
        if (leaves && rv_sim_chance(30)) {
            leave(l);
            return 0;
        }
        pause_sometimes(pauses);
    }
}

static int consume_log(void *arg)
{
    struct line *l = arg;
    struct arrived *a = &l->logged;
    for (;;) {
        ssize_t n = read_plainly(PIPE_END, l->log_drain, a->bytes + a->n,
                                 1 + rv_sim_draw(SOURCE_MOST - a->n));
        if (n == -EAGAIN)
            wait_for(l, l->log_drain, POLLIN);
        else if (CHECK_OK(n) == 0)
            return 0;
        else
            a->n += (uint32_t)n;
        pause_sometimes(200);
    }
}

/* Records, each in one call. */
static int make_noise(void *arg)
{
    struct line *l = arg;
    static unsigned char record[LINES][1 + RECORD_MOST * RECORD_UNIT];
    for (int i = 0; i < RECORDS; i++) {
        (void)reeve_sleep(some_time());
        uint32_t units = rv_sim_draw(RECORD_MOST + 1), len = 1 + units * RECORD_UNIT;
        memset(record[l->id], FILLING, len);
        record[l->id][0] = (unsigned char)(0x80 | units);
        CHECK_EQ(reeve_write(l->to, record[l->id], len, 0), len);
        l->records++;
    }
    return 0;
}

/* ---- copies ---------------------------------------------------------------------------------- */

/* Whether it may have come to that. */
static bool may_fail(const struct line *l, ssize_t n, reeve_time until)
{
    const struct copies *all = l->all;
    if (n == -ETIMEDOUT)
        return until != 0;
    if (n == -ECANCELED && (l->from_closed || l->to_closed || l->cancelled))
        return true;
    if (n == -EBADF && (l->from_closed || l->to_closed))
        return true;
    if ((n == -EPIPE || n == -ECONNRESET) && (l->left || l->to_closed))
        return true;
    return all->wild && (n == -ENOMEM || n == -EIO || n == -ENOSPC || all->answers > 0);
}

/* The source said that it ends. */
static void check_end(struct line *l)
{
    bool rightly = l->at == l->fed && (l->fed_all || is_file(l->from_kind));
    CHECK(rightly || l->all->zeros > 0);
    l->ended = rightly;
}

static void check_ends(const struct line *l)
{
    if (is_file(l->from_kind))
        CHECK_EQ(lseek(l->from_dup, 0, SEEK_CUR), l->at);
    if (l->to_dup >= 0)
        CHECK_EQ(fcntl(l->to_dup, F_GETFL), l->to_flags);
}

static ssize_t tee_once(struct line *l, reeve_time until)
{
    ssize_t n = reeve_tee(l->log, l->from, 1 + rv_sim_draw(30000), until);
    if (n > 0) {
        add_piece(&l->logged, l->at, (uint32_t)n);
        l->teed = l->at + (uint32_t)n;
    }
    return n;
}

static ssize_t read_once(struct line *l, reeve_time until)
{
    unsigned char bytes[600];
    uint32_t most = 1 + rv_sim_draw(sizeof bytes);
    if (l->from_kind == DEVICE_END)
        most = l->total - l->at < most ? l->total - l->at : most;
    ssize_t n = reeve_read(l->from, bytes, most, until);
    if (n > 0) {
        check_source(l, l->at, bytes, (uint32_t)n);
        l->at += (uint32_t)n;
    }
    return n;
}

static ssize_t copy_once(struct line *l, reeve_time until)
{
    size_t len = rv_sim_chance(300) ? 0 : 1 + rv_sim_draw(20000);
    if (l->from_kind == DEVICE_END && (len == 0 || len > l->total - l->at))
        len = l->total - l->at;
    ssize_t n = reeve_copy(l->to, l->from, len, until);
    if (n > 0) {
        CHECK(len == 0 || n <= (ssize_t)len);
        add_piece(&l->sink, l->at, (uint32_t)n);
        l->at += (uint32_t)n;
    }
    check_ends(l);
    return n;
}

static ssize_t call_once(struct line *l)
{
    reeve_time until = rv_sim_chance(300) ? some_time() : rv_sim_chance(100) ? REEVE_POLL : 0;
    ssize_t n;
    if (l->log >= 0 && l->at >= l->teed && rv_sim_chance(500))
        n = tee_once(l, until);
    else
        n = rv_sim_chance(100) ? read_once(l, until) : copy_once(l, until);
    rv_sim_note((uint64_t)l->id, n);
    if (n < 0)
        CHECK(may_fail(l, n, until));
    return n;
}

static int copy_line(void *arg)
{
    struct line *l = arg;
    for (int failed = 0; failed < GIVES_UP && !l->from_closed && !l->to_closed;) {
        if (l->from_kind == DEVICE_END && l->at == l->total)
            break;
        ssize_t n = call_once(l);
        if (n == 0)
            check_end(l);
        if (l->ended)
            break;
        failed = n > 0 || n == -ETIMEDOUT ? 0 : failed + 1;
        pause_sometimes(100);
    }
    return 0;
}

/* ---- what comes in between ------------------------------------------------------------------- */

/* Whoever still uses the number that was closed finds this. */
static void poison(struct copies *all)
{
    unsigned char bytes[3000];
    int fds[2];
    if (all->poisons + 2 > (int)(sizeof all->poison / sizeof *all->poison))
        return;
    memset(bytes, POISON, sizeof bytes);
    CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
    CHECK_EQ(write(fds[1], bytes, sizeof bytes), sizeof bytes);
    all->poison[all->poisons++] = fds[0];
    all->poison[all->poisons++] = fds[1];
}

static void close_from(struct line *l)
{
    if (l->shared || l->from_closed)
        return;
    l->from_closed = true;
    CHECK_EQ(reeve_close(l->from), 0);
    poison(l->all);
}

static void close_to(struct line *l)
{
    if (l->shares || l->noisy || l->to_closed)
        return;
    l->to_closed = true;
    CHECK_EQ(reeve_close(l->to), 0);
    poison(l->all);
}

static void answer(struct copies *all)
{
    static const int answers[] = { 0, EIO, ENOMEM, ECANCELED, EINTR, EAGAIN, ENOBUFS, EFAULT,
                                   ECONNRESET, EPIPE, ENOSPC, EMFILE, EINVAL, EOPNOTSUPP };
    int which = answers[rv_sim_draw(sizeof answers / sizeof *answers)];
    all->answers++;
    all->zeros += which == 0;
    rv_sim_answer(rv_sim_draw(20), -which);
}

static void interfere(struct copies *all)
{
    struct line *l = &all->line[rv_sim_draw((uint32_t)all->lines)];
    uint32_t what = rv_sim_draw(16);
    if (all->wild && what < 6)
        answer(all);
    if (!all->cruel)
        return;
    if (what == 6 || what == 7) {
        close_from(l);
    } else if (what == 8 || what == 9) {
        close_to(l);
    } else if (what < 13) {
        l->cancelled = true;
        reeve_cancel(l->copier);
    }
}

/* ---- from beginning to end ------------------------------------------------------------------- */

static void start_line(struct line *l)
{
    CHECK_EQ(reeve_spawn(&l->copier, copy_line, l), 0);
    if (l->from_kind == PIPE_END || is_socket(l->from_kind)) {
        CHECK_EQ(reeve_spawn(&l->producer, produce, l), 0);
    } else {
        l->fed = l->total;
    }
    if (l->drain >= 0)
        CHECK_EQ(reeve_spawn(&l->consumer, consume, l), 0);
    if (l->log >= 0)
        CHECK_EQ(reeve_spawn(&l->logger, consume_log, l), 0);
    if (l->noisy)
        CHECK_EQ(reeve_spawn(&l->noise, make_noise, l), 0);
}

static void join(reeve_task *t)
{
    if (t)
        CHECK_EQ(reeve_join(t, NULL, 0), 0);
}

/* Who was cancelled leaves something that others can go on with. */
static void join_copier(struct line *l)
{
    join(l->copier);
    bool again = l->cancelled && !l->ended && !l->from_closed && !l->to_closed;
    l->cancelled = false;
    if (again && rv_sim_chance(700)) {
        CHECK_EQ(reeve_spawn(&l->copier, copy_line, l), 0);
        join(l->copier);
    }
}

static void end_line(struct line *l)
{
    join(l->noise);
    l->over = true;
    join(l->producer);
    if (!l->to_closed || is_socket(l->to_kind))
        end_writing(l->to_kind, l->to_dup >= 0 && is_socket(l->to_kind) ? l->to_dup : l->to);
    if (l->to_kind == PIPE_END) {
        l->to_closed = true;
        close_one(&l->to_dup);
    }
    if (l->log >= 0)
        CHECK_EQ(reeve_close(l->log), 0);
    join(l->consumer);
    join(l->logger);
}

/* What nobody has taken is still there, all of it. */
static void check_rest(struct line *l)
{
    static unsigned char bytes[SOURCE_MOST];
    ssize_t n;
    if (is_file(l->from_kind)) {
        CHECK_EQ(lseek(l->from_dup, 0, SEEK_CUR), l->at);
        return;
    }
    if (l->from_kind == DEVICE_END || (l->from_kind == OURS_END && l->from_closed))
        return;
    if (l->from_kind != OURS_END)
        while ((n = CHECK_OK(read(l->from_dup, bytes, sizeof bytes))) > 0) {
            check_source(l, l->at, bytes, (uint32_t)n);
            l->at += (uint32_t)n;
        }
    else
        for (int failed = 0; (n = read_once(l, 0)) != 0 && failed < GIVES_UP;)
            failed += n < 0;
    bool broken = l->from_kind == OURS_END && l->all->wild && (n < 0 || l->all->zeros > 0);
    if (!broken)
        CHECK_EQ(l->at, l->fed);
}

static void check_line(struct line *l)
{
    struct arrived *a = &l->sink;
    if (is_file(l->to_kind)) {
        a->n = (uint32_t)CHECK_OK(pread(l->to_dup, a->bytes, SINK_MOST, 0));
        CHECK(l->to_kind == APPEND_END || lseek(l->to_dup, 0, SEEK_CUR) == (off_t)a->n);
    }
    if (l->to_kind != DEVICE_END)
        check_arrived(l, a, l->records, !l->left);
    if (l->log_drain >= 0)
        check_arrived(l, &l->logged, 0, true);
    check_rest(l);
    if (!l->all->wild && !l->all->cruel)
        CHECK(l->from_kind == DEVICE_END || l->ended);
}

static int copies_root(void *arg)
{
    struct copies *all = arg;
    for (int i = 0; i < all->lines; i++)
        make_line(all, i, draw_kind(all, false), draw_kind(all, true));
    for (int i = 0; i < all->lines; i++)
        start_line(&all->line[i]);
    for (uint32_t n = rv_sim_draw(24); n > 0; n--) {
        (void)reeve_sleep(some_time());
        interfere(all);
    }
    for (int i = 0; i < all->lines; i++)
        join_copier(&all->line[i]);
    (void)rv_sim_answered(NULL);
    for (int i = 0; i < all->lines; i++)
        end_line(&all->line[i]);
    for (int i = 0; i < all->lines; i++)
        check_line(&all->line[i]);
    for (int i = 0; i < all->lines; i++)
        close_line(&all->line[i]);
    for (int i = 0; i < all->poisons; i++)
        close_one(&all->poison[i]);
    return 0;
}

static void copies_simulate(struct rv_sim_opts *opts, struct rv_sim_result *ret, bool wild,
                            bool cruel, bool disks)
{
    static struct copies all;
    uint64_t x = seeds_mix(opts->seed + 77);
    int before = fds_open();
    all = (struct copies){ .wild = wild, .cruel = cruel, .disks = disks,
                           .lines = 1 + (int)(x % LINES) };
    opts->fn = copies_root;
    opts->arg = &all;
    opts->faults.shorter = (uint16_t)(x / 8 % 4 * 150);
    opts->faults.eintr = cruel ? 20 : 0;
    opts->faults.eagain = cruel ? 20 : 0;
    opts->faults.nomem = wild ? (uint16_t)(x / 32 % 3 * 8) : 0;
    opts->faults.disk = wild ? (uint16_t)(x / 128 % 3 * 15) : 0;
    opts->bufs = (size_t)1 << x / 1024 % 5;
    opts->limit_ns = 1000 * REEVE_SEC;
    seeds_simulate(opts, ret);
    CHECK_EQ(ret->result, 0);
    CHECK_EQ(fds_open(), before);
}

static void copies_quiet(uint64_t seed, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    (void)seed;
    copies_simulate(opts, ret, false, false, true);
}

static void copies_cruel(uint64_t seed, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    (void)seed;
    copies_simulate(opts, ret, false, true, true);
}

static void copies_wild(uint64_t seed, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    copies_simulate(opts, ret, true, seed % 3 > 0, true);
}

TEST(copies_lose_repeat_and_disorder_nothing)
{
    struct rv_sim_result sum;
    seeds_all(200, copies_quiet, &sum);
}

TEST(closes_and_cancellations_of_copies_cost_no_byte)
{
    struct rv_sim_result sum;
    if (!seeds_all(300, copies_cruel, &sum))
        return;
    CHECK_GT(sum.seen.cancels_won, 0);
    CHECK_GT(sum.seen.cancels_lost, 0);
}

TEST(whatever_goes_wrong_in_a_copy_costs_no_byte)
{
    struct rv_sim_result sum;
    if (!seeds_all(400, copies_wild, &sum))
        return;
    CHECK_GT(sum.seen.faults, 0);
}

static void copies_twice(uint64_t seed, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    struct rv_sim_opts again = *opts;
    struct rv_sim_result before;
    copies_simulate(opts, &before, seed % 2, true, false);
    copies_simulate(&again, ret, seed % 2, true, false);
    CHECK_EQ(ret->hash, before.hash);
    CHECK_EQ(ret->events, before.events);
    CHECK_EQ(ret->virtual_ns, before.virtual_ns);
}

TEST(a_copy_depends_on_its_seed_alone)
{
    struct rv_sim_result sum;
    seeds_all(60, copies_twice, &sum);
}

/* Sockets that are played are numbers, and nothing that the kernel could copy from or to. */
static int copy_played(void *arg)
{
    int pair[2], fds[2];
    (void)arg;
    CHECK_EQ(rv_sim_pair(pair), 0);
    CHECK_OK(reeve_pipe(fds, 0));
    CHECK_EQ(write(fds[1], "x", 1), 1);
    CHECK_EQ(reeve_copy(pair[0], fds[0], 0, 0), -EBADF);
    CHECK_EQ(reeve_copy(fds[1], pair[0], 0, 0), -EBADF);
    CHECK_EQ(reeve_tee(pair[0], fds[0], 1, 0), -EBADF);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(reeve_close(pair[i]), 0);
        CHECK_EQ(reeve_close(fds[i]), 0);
    }
    return 0;
}

TEST(a_socket_that_is_played_is_not_copied)
{
    struct rv_sim_opts opts = { .seed = 1, .fn = copy_played };
    struct rv_sim_result result;
    seeds_simulate(&opts, &result);
    CHECK_EQ(result.result, 0);
}

/* ---- several writers ------------------------------------------------------------------------- */

#define WRITERS 5
#define CALLS 12
#define HEAD 4 /* bytes: who, which call, and 14 bits of length */
#define WORD_MOST 5000u

struct writers;

struct writer {
    struct writers *all;
    int id, calls, last;
    uint32_t len[CALLS];
    int seen[CALLS];
    bool failed[CALLS];
    reeve_task *task;
};

/* They write to one descriptor, and what each call wrote is in one piece, in the order of their
 * calls; of a call that failed it is the first part, or nothing. */
struct writers {
    bool wild;
    enum kind kind;
    int fd, drain, writers;
    struct writer writer[WRITERS];
    unsigned char bytes[WRITERS * CALLS * (HEAD + WORD_MOST)];
    uint32_t n;
};

static unsigned char word_byte(int id, int call, uint32_t i)
{
    return (unsigned char)((uint32_t)(id * 37 + call * 11) + i * 3 + i / 128) & 0x7f;
}

static ssize_t write_word(struct writer *w, int call)
{
    unsigned char bytes[HEAD + WORD_MOST];
    uint32_t len = w->len[call] = rv_sim_draw(rv_sim_chance(300) ? WORD_MOST : 200);
    bytes[0] = (unsigned char)(0x80 | w->id);
    bytes[1] = (unsigned char)call;
    bytes[2] = len & 0x7f;
    bytes[3] = (unsigned char)(len >> 7);
    for (uint32_t i = 0; i < len; i++)
        bytes[HEAD + i] = word_byte(w->id, call, i);
    size_t all = HEAD + len, first = rv_sim_draw((uint32_t)all + 1);
    struct iovec pieces[] = { { bytes, first }, { bytes, 0 }, { bytes + first, all - first } };
    reeve_time until = w->all->wild && rv_sim_chance(300) ? some_time() : 0;
    ssize_t n = rv_sim_chance(512) ? reeve_write(w->all->fd, bytes, all, until)
                                   : reeve_sendv(w->all->fd, pieces, 3, until);
    CHECK(n == (ssize_t)all || (w->all->wild && n < 0));
    return n;
}

static int write_words(void *arg)
{
    struct writer *w = arg;
    for (; w->calls < CALLS; w->calls++) {
        w->failed[w->calls] = write_word(w, w->calls) < 0;
        pause_sometimes(300);
    }
    return 0;
}

static int read_words(void *arg)
{
    struct writers *all = arg;
    uint32_t most = 1 + rv_sim_draw(3000), pauses = rv_sim_draw(400);
    for (ssize_t n = 1; n != 0;) {
        unsigned char *at = all->bytes + all->n;
        uint32_t len = 1 + rv_sim_draw(most), room = (uint32_t)sizeof all->bytes - all->n;
        if (room == 0)
            len = 0; /* all there can be, and the end */
        else if (len > room)
            len = room;
        uint32_t first = rv_sim_draw(len + 1);
        struct iovec pieces[] = { { at, first }, { at + first, len - first } };
        reeve_time until = rv_sim_chance(200) ? some_time() : 0;
        n = rv_sim_chance(512) ? reeve_read(all->drain, at, len, until)
                               : reeve_recvv(all->drain, pieces, 2, until);
        CHECK(n >= 0 || (n == -ETIMEDOUT && until != 0) || all->wild);
        all->n += n > 0 ? (uint32_t)n : 0;
        pause_sometimes(pauses);
    }
    return 0;
}

/* One call's bytes, up to the next one's: k of them. */
static void check_word(struct writers *all, const unsigned char *word, uint32_t k)
{
    CHECK_LT(word[0] & 0x7f, all->writers);
    struct writer *w = &all->writer[word[0] & 0x7f];
    int call = k > 1 ? word[1] : w->last + 1;
    CHECK_GT(call, w->last);
    CHECK_LT(call, CALLS);
    w->last = call;
    for (uint32_t i = HEAD; i < k; i++)
        CHECK_EQ(word[i], word_byte(w->id, call, i - HEAD));
    CHECK_LE(k, HEAD + w->len[call]);
    if (k == HEAD + w->len[call])
        w->seen[call]++;
    else if (k > 1)
        CHECK(w->failed[call]);
}

static void check_words(struct writers *all)
{
    uint32_t k;
    for (int i = 0; i < all->writers; i++)
        all->writer[i].last = -1;
    for (uint32_t at = 0; at < all->n; at += k) {
        CHECK(all->bytes[at] & 0x80);
        for (k = 1; at + k < all->n && !(all->bytes[at + k] & 0x80); k++)
            ;
        check_word(all, all->bytes + at, k);
    }
    for (int i = 0; i < all->writers; i++)
        for (int c = 0; c < all->writer[i].calls; c++)
            CHECK(all->writer[i].seen[c] == 1 || all->writer[i].failed[c]);
}

static int writers_root(void *arg)
{
    struct writers *all = arg;
    reeve_task *reader;
    make_ends(all->kind, true, &all->fd, &all->drain);
    CHECK_EQ(reeve_spawn(&reader, read_words, all), 0);
    for (int i = 0; i < all->writers; i++) {
        all->writer[i] = (struct writer){ .all = all, .id = i };
        CHECK_EQ(reeve_spawn(&all->writer[i].task, write_words, &all->writer[i]), 0);
    }
    if (all->wild && rv_sim_chance(400)) {
        (void)reeve_sleep(some_time());
        reeve_cancel(all->writer[rv_sim_draw((uint32_t)all->writers)].task);
    }
    for (int i = 0; i < all->writers; i++)
        join(all->writer[i].task);
    CHECK_EQ(reeve_close(all->fd), 0);
    join(reader);
    CHECK_EQ(reeve_close(all->drain), 0);
    check_words(all);
    return 0;
}

static void writers_simulate(struct rv_sim_opts *opts, struct rv_sim_result *ret, bool wild)
{
    static const enum kind kinds[] = { PIPE_END, UNIX_END, PIPE_END, OURS_END };
    static struct writers all;
    uint64_t x = seeds_mix(opts->seed + 5);
    int before = fds_open();
    memset(&all, 0, sizeof all);
    all.wild = wild;
    all.kind = kinds[x % (wild ? 3 : 4)];
    all.writers = 1 + (int)(x / 8 % WRITERS);
    opts->fn = writers_root;
    opts->arg = &all;
    opts->limit_ns = 1000 * REEVE_SEC;
    opts->faults.shorter = (uint16_t)(x / 64 % 4 * 150);
    opts->faults.eintr = 20;
    opts->faults.eagain = 20;
    opts->faults.nomem = wild ? 10 : 0;
    opts->faults.disk = wild ? 10 : 0;
    seeds_simulate(opts, ret);
    CHECK_EQ(ret->result, 0);
    CHECK_EQ(fds_open(), before);
}

static void writers_quiet(uint64_t seed, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    (void)seed;
    writers_simulate(opts, ret, false);
}

static void writers_wild(uint64_t seed, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    (void)seed;
    writers_simulate(opts, ret, true);
}

TEST(what_one_call_writes_stays_together_in_a_pipe_too)
{
    struct rv_sim_result sum;
    seeds_all(200, writers_quiet, &sum);
}

TEST(who_fails_or_leaves_disturbs_no_other_writer)
{
    struct rv_sim_result sum;
    if (seeds_all(200, writers_wild, &sum))
        CHECK_GT(sum.seen.cancels_won, 0);
}

/* ---- waits and closes ------------------------------------------------------------------------ */

#define WATCHED 6
#define WAITERS 3

/* A descriptor that some wait for: to be readable, and it is silent; to be writable, and it is
 * full. */
struct watched {
    enum kind kind;
    int fd, other;
    short events;
    bool ready, closed;
    struct waiter {
        struct watched *d;
        reeve_task *task;
        bool cancelled;
    } waiter[WAITERS];
};

struct watching {
    struct watched d[WATCHED];
    int decoy[2 * WATCHED], decoys;
    bool begun;
};

static int await_readiness(void *arg)
{
    struct waiter *me = arg;
    struct watched *d = me->d;
    while (!d->closed) {
        reeve_time until = rv_sim_chance(300) ? some_time() : 0;
        int r = reeve_wait_fd(d->fd, d->events, until);
        rv_sim_note((uint64_t)d->fd, r);
        if (r > 0) {
            CHECK(d->ready);
            CHECK(r & d->events);
        } else {
            CHECK((r == -ETIMEDOUT && until != 0) ||
                  (r == -ECANCELED && (d->closed || me->cancelled)));
        }
        if (me->cancelled || (d->ready && rv_sim_chance(512)))
            break;
        (void)reeve_sleep(some_time());
    }
    return 0;
}

static void make_watched(struct watched *d)
{
    static char full[1 << 16];
    bool write_end = rv_sim_chance(400);
    d->kind = rv_sim_chance(512) ? PIPE_END : UNIX_END;
    make_ends(d->kind, write_end, &d->fd, &d->other);
    d->events = write_end ? POLLOUT : POLLIN;
    if (!write_end)
        return;
    int flags = fcntl(d->fd, F_GETFL);
    CHECK_EQ(fcntl(d->fd, F_SETFL, flags | O_NONBLOCK), 0);
    while (write(d->fd, full, sizeof full) > 0)
        ;
    CHECK_EQ(fcntl(d->fd, F_SETFL, flags), 0);
}

static void make_ready(struct watched *d)
{
    static char some[1 << 18];
    if (d->ready || d->closed)
        return;
    d->ready = true;
    if (d->events == POLLIN)
        CHECK_EQ(write(d->other, "x", 1), 1);
    else
        while (read_plainly(d->kind, d->other, some, sizeof some) > 0)
            ;
}

/* What takes over the number, if it is free too early, is ready for both. */
static void close_watched(struct watching *all, struct watched *d)
{
    int fds[2];
    if (d->closed)
        return;
    d->closed = true;
    CHECK_EQ(reeve_close(d->fd), 0);
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    CHECK_EQ(write(fds[0], "x", 1), 1);
    CHECK_EQ(write(fds[1], "x", 1), 1);
    all->decoy[all->decoys++] = fds[0];
    all->decoy[all->decoys++] = fds[1];
}

static void close_from_outside(void *arg)
{
    struct watching *all = arg;
    if (all->begun && rv_sim_chance(50))
        close_watched(all, &all->d[rv_sim_draw(WATCHED)]);
}

static int watching_root(void *arg)
{
    struct watching *all = arg;
    for (int i = 0; i < WATCHED; i++)
        make_watched(&all->d[i]);
    for (int i = 0; i < WATCHED * WAITERS; i++) {
        struct waiter *w = &all->d[i / WAITERS].waiter[i % WAITERS];
        w->d = &all->d[i / WAITERS];
        CHECK_EQ(reeve_spawn(&w->task, await_readiness, w), 0);
    }
    all->begun = true;
    for (uint32_t n = rv_sim_draw(20); n > 0; n--) {
        struct watched *d = &all->d[rv_sim_draw(WATCHED)];
        struct waiter *w = &d->waiter[rv_sim_draw(WAITERS)];
        uint32_t what = rv_sim_draw(4);
        pause_sometimes(700);
        if (what == 0) {
            close_watched(all, d);
        } else if (what == 1) {
            w->cancelled = true;
            reeve_cancel(w->task);
        } else {
            make_ready(d);
        }
    }
    for (int i = 0; i < WATCHED; i++)
        close_watched(all, &all->d[i]);
    all->begun = false;
    for (int i = 0; i < WATCHED * WAITERS; i++)
        join(all->d[i / WAITERS].waiter[i % WAITERS].task);
    for (int i = 0; i < WATCHED; i++)
        close_one(&all->d[i].other);
    for (int i = 0; i < all->decoys; i++)
        close_one(&all->decoy[i]);
    return 0;
}

static void watching_run(uint64_t seed, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    static struct watching all;
    int before = fds_open();
    (void)seed;
    all = (struct watching){ 0 };
    opts->fn = watching_root;
    opts->arg = &all;
    opts->limit_ns = 1000 * REEVE_SEC;
    opts->foreign = close_from_outside;
    opts->faults.eintr = 20;
    opts->faults.eagain = 20;
    seeds_simulate(opts, ret);
    CHECK_EQ(ret->result, 0);
    CHECK_EQ(fds_open(), before);
}

TEST(a_wait_ends_with_its_own_descriptor_and_no_other)
{
    struct rv_sim_result sum;
    if (!seeds_all(300, watching_run, &sum))
        return;
    CHECK_GT(sum.seen.cancels_won, 0);
    CHECK_GT(sum.seen.cancels_lost, 0);
}
