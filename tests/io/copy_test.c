/* SPDX-License-Identifier: MIT */
/*
 * copy_test.c -- from every kind of descriptor to every other, and no byte lost on the way.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <poll.h>
#include <reeve/fd.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "tests/io/pair.h"

#define SOON reeve_in(2 * REEVE_MS)

enum { LARGE = 3000001, SMALL = 70000 };

/* ---- ends ------------------------------------------------------------------------------------ */

/* A memory file does not say what is cached, so it is treated as one that is on a disk. */
enum kind { FILE_END, MEMORY_END, APPEND_END, PIPE_END, UNIX_END, TCP_END, OURS_END, KINDS };

/* One end for reeve_copy, and the other, which a thread writes to or reads from. */
struct end {
    enum kind kind;
    int fd, other;
    int listener; /* OURS_END */
};

static int make_file(int flags)
{
    char path[] = "/tmp/reeve_copy_XXXXXX";
    int fd = mkostemp(path, O_CLOEXEC | flags);
    CHECK_GE(fd, 0);
    CHECK_EQ(unlink(path), 0);
    return fd;
}

/* Two connected TCP sockets that reeve knows nothing of. */
static void tcp_pair(int fds[2])
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
    socklen_t len = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_GE(listener, 0);
    CHECK_EQ(bind(listener, (struct sockaddr *)&at, sizeof at), 0);
    CHECK_EQ(listen(listener, 1), 0);
    CHECK_EQ(getsockname(listener, (struct sockaddr *)&at, &len), 0);
    fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_EQ(connect(fds[0], (struct sockaddr *)&at, sizeof at), 0);
    fds[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    CHECK_GE(fds[1], 0);
    close(listener);
}

static struct end make_end(enum kind kind, bool to_write)
{
    struct end e = { kind, -1, -1, -1 };
    int fds[2];
    switch (kind) {
    case FILE_END:
    case APPEND_END:
        e.fd = make_file(kind == APPEND_END ? O_APPEND : 0);
        break;
    case MEMORY_END:
        e.fd = memfd_create("copy_test", MFD_CLOEXEC);
        break;
    case PIPE_END:
        CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
        e.fd = fds[to_write];
        e.other = fds[!to_write];
        break;
    case UNIX_END:
        CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        e.fd = fds[0];
        e.other = fds[1];
        break;
    case TCP_END:
        tcp_pair(fds);
        e.fd = fds[0];
        e.other = fds[1];
        break;
    default: {
        struct pair p = pair_make();
        e.fd = p.fd;
        e.other = p.peer;
        e.listener = p.listener;
    }
    }
    return e;
}

static void close_end(struct end *e)
{
    if (e->fd >= 0)
        CHECK_EQ(reeve_close(e->fd), 0);
    if (e->other >= 0)
        close(e->other);
    if (e->listener >= 0)
        CHECK_EQ(reeve_close(e->listener), 0);
    e->fd = e->other = e->listener = -1;
}

/* A thread on the other side: writes the pattern from `at` on, or reads and checks it. */
struct side {
    struct end *end;
    size_t at, len;
    bool keep_open;
    pthread_t thread;
};

static void *feed(void *arg)
{
    struct side *s = arg;
    unsigned char buf[50000];
    while (s->len > 0) {
        size_t n = s->len < sizeof buf ? s->len : sizeof buf;
        fill_pattern(buf, n, s->at);
        ssize_t w = write(s->end->other, buf, n);
        CHECK_GT(w, 0);
        s->at += (size_t)w;
        s->len -= (size_t)w;
    }
    if (!s->keep_open) {
        close(s->end->other);
        s->end->other = -1;
    }
    return NULL;
}

static void *drink(void *arg)
{
    struct side *s = arg;
    static _Thread_local unsigned char buf[50000];
    ssize_t n;
    while ((n = read(s->end->other, buf, sizeof buf)) > 0) {
        check_pattern(buf, (size_t)n, s->at + s->len);
        s->len += (size_t)n;
    }
    CHECK_EQ(n, 0);
    return NULL;
}

/* The end as a source of len bytes of the pattern. */
static void begin_feed(struct side *s, struct end *e, size_t len)
{
    *s = (struct side){ .end = e, .len = len };
    if (e->kind > APPEND_END) {
        CHECK_EQ(pthread_create(&s->thread, NULL, feed, s), 0);
        return;
    }
    unsigned char *data = malloc(len);
    fill_pattern(data, len, 0);
    CHECK_EQ(pwrite(e->fd, data, len, 0), (ssize_t)len);
    free(data);
}

static void end_feed(struct side *s)
{
    if (s->end->kind > APPEND_END)
        join_thread(s->thread);
}

static void begin_drink(struct side *s, struct end *e)
{
    *s = (struct side){ .end = e };
    if (e->kind > APPEND_END)
        CHECK_EQ(pthread_create(&s->thread, NULL, drink, s), 0);
}

/* Closes the end, and says how many bytes came through; each was checked. */
static size_t end_drink(struct side *s)
{
    if (s->end->kind > APPEND_END) {
        CHECK_EQ(reeve_close(s->end->fd), 0);
        s->end->fd = -1;
        join_thread(s->thread);
        return s->len;
    }
    struct stat st;
    CHECK_EQ(fstat(s->end->fd, &st), 0);
    unsigned char *data = malloc((size_t)st.st_size + 1);
    CHECK_EQ(pread(s->end->fd, data, (size_t)st.st_size, 0), st.st_size);
    check_pattern(data, (size_t)st.st_size, 0);
    free(data);
    return (size_t)st.st_size;
}

/* ---- foreign sockets ------------------------------------------------------------------------- */

/* Through memory it would take a request for each 16 KiB at least. */
static int splices_in(void *arg)
{
    enum { QUEUED = 128 << 10, PIPE = 1 << 20, FEW = 3 };
    static unsigned char data[QUEUED];
    int fds[2], out[2], room = QUEUED;
    (void)arg;
    fill_pattern(data, sizeof data, 0);
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    CHECK_EQ(setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof room), 0);
    ssize_t n = send(fds[1], data, sizeof data, MSG_DONTWAIT);
    CHECK_GE(n, 64 << 10);
    close(fds[1]);
    CHECK_EQ(pipe2(out, O_CLOEXEC), 0);
    CHECK_GE(fcntl(out[1], F_SETPIPE_SZ, PIPE), PIPE);
    int flags = fcntl(fds[0], F_GETFL);
    uint64_t before = COUNTER(ops);
    CHECK_EQ(reeve_copy(out[1], fds[0], (size_t)n, LONG), n);
    CHECK_LE(COUNTER(ops) - before, FEW);
    CHECK_EQ(fcntl(fds[0], F_GETFL), flags);
    CHECK_EQ(reeve_copy(out[1], fds[0], 1, LONG), 0);
    CHECK_EQ(read(out[0], data, sizeof data), n);
    check_pattern(data, (size_t)n, 0);
    CHECK_EQ(reeve_close(fds[0]), 0);
    close(out[0]);
    CHECK_EQ(reeve_close(out[1]), 0);
    return 0;
}

TEST(a_foreign_socket_is_spliced_into_a_pipe)
{
    RUN(splices_in, .workers = 1);
}

struct leg {
    int from, to;
    ssize_t n;
};

static RV_ATOMIC(bool) leg_moved;

/* A deadline may have passed before anything moves: again, until one of them has moved some. */
static int copies_leg(void *arg)
{
    struct leg *l = arg;
    do
        l->n = reeve_copy(l->to, l->from, SMALL, SOON);
    while (l->n == -ETIMEDOUT && !rv_load_relaxed(&leg_moved));
    rv_store_relaxed(&leg_moved, true);
    return 0;
}

/* Both find enough in it; who comes second must not wait for more with his pipe locked. */
static int two_readers(void *arg)
{
    static unsigned char data[32 << 10];
    int fds[2], out[2][2];
    struct leg leg[2];
    reeve_task *t[2];
    size_t all = 0;
    (void)arg;
    tcp_pair(fds);
    rv_store_relaxed(&leg_moved, false);
    CHECK_EQ(send(fds[1], data, sizeof data, 0), sizeof data);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(pipe2(out[i], O_CLOEXEC), 0);
        leg[i] = (struct leg){ fds[0], out[i][1], 0 };
        CHECK_EQ(reeve_spawn(&t[i], copies_leg, &leg[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(reeve_join(t[i], NULL, LONG), 0);
        CHECK(leg[i].n > 0 || leg[i].n == -ETIMEDOUT);
        CHECK_EQ(fcntl(out[i][0], F_SETFL, O_NONBLOCK), 0);
        for (ssize_t n; (n = read(out[i][0], data, sizeof data)) > 0;)
            all += (size_t)n;
        CHECK_EQ(reeve_close(out[i][1]), 0);
        close(out[i][0]);
    }
    CHECK_GT(all, 0);
    CHECK_EQ(reeve_close(fds[0]), 0);
    close(fds[1]);
    return 0;
}

TEST(two_who_copy_from_one_foreign_socket_stop_no_worker)
{
    RUN(two_readers, .workers = 1);
    RUN(two_readers, .workers = 2);
}

/* However much there is: who polls has no time for a thread of the kernel's. */
static int polled_in(void *arg)
{
    enum { QUEUED = 48 << 10, ROUNDS = QUEUED };
    static unsigned char data[QUEUED];
    size_t total = 0;
    int fds[2], out[2];
    (void)arg;
    fill_pattern(data, sizeof data, 0);
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    CHECK_EQ(send(fds[1], data, sizeof data, MSG_DONTWAIT), QUEUED);
    CHECK_EQ(pipe2(out, O_CLOEXEC), 0);
    for (int i = 0; i < ROUNDS && total < QUEUED; i++) {
        ssize_t n = reeve_copy(out[1], fds[0], QUEUED - total, REEVE_POLL);
        CHECK_GT(n, 0);
        total += (size_t)n;
    }
    CHECK_EQ(read(out[0], data, sizeof data), QUEUED);
    check_pattern(data, QUEUED, 0);
    CHECK_EQ(reeve_copy(out[1], fds[0], 1, REEVE_POLL), -ETIMEDOUT);
    close(fds[1]);
    close(out[0]);
    CHECK_EQ(reeve_close(fds[0]), 0);
    CHECK_EQ(reeve_close(out[1]), 0);
    return 0;
}

TEST(a_poll_moves_what_a_foreign_socket_has_into_a_pipe)
{
    RUN(polled_in, .workers = 1);
    RUN(polled_in, .workers = 2);
}

/* ---- every pair ------------------------------------------------------------------------------ */

static int every_pair(void *arg)
{
    size_t bytes = *(size_t *)arg;
    for (int k = 0; k < KINDS * KINDS; k++) {
        struct end from = make_end((enum kind)(k / KINDS), false);
        struct end to = make_end((enum kind)(k % KINDS), true);
        struct side feeding, drinking;
        begin_feed(&feeding, &from, bytes);
        begin_drink(&drinking, &to);
        size_t total = 0;
        ssize_t n;
        while ((n = reeve_copy(to.fd, from.fd, 0, LONG)) > 0)
            total += (size_t)n;
        CHECK_EQ(n, 0);
        CHECK_EQ(total, bytes);
        end_feed(&feeding);
        CHECK_EQ(end_drink(&drinking), bytes);
        if (from.kind < PIPE_END)
            CHECK_EQ(lseek(from.fd, 0, SEEK_CUR), (off_t)bytes);
        close_end(&from);
        close_end(&to);
    }
    return 0;
}

TEST(every_kind_of_descriptor_is_copied_to_every_other)
{
    static const size_t sizes[] = { 1, SMALL, LARGE };
    uring_or_skip();
    for (unsigned workers = 1; workers <= 2; workers++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            CHECK_EQ(reeve_run(every_pair, (void *)(uintptr_t)&sizes[i], .workers = workers), 0);
}

/* As many as asked for, and the rest is where it was. */
static int bounded(void *arg)
{
    (void)arg;
    for (int k = 0; k < KINDS * KINDS; k++) {
        struct end from = make_end((enum kind)(k / KINDS), false);
        struct end to = make_end((enum kind)(k % KINDS), true);
        struct side feeding, drinking;
        unsigned char rest[1000];
        begin_feed(&feeding, &from, SMALL);
        begin_drink(&drinking, &to);
        CHECK_EQ(reeve_copy(to.fd, from.fd, 1, LONG), 1);
        CHECK_EQ(reeve_copy(to.fd, from.fd, SMALL - 1001, LONG), SMALL - 1001);
        read_exactly(from.fd, rest, sizeof rest);
        check_pattern(rest, sizeof rest, SMALL - 1000);
        CHECK_EQ(reeve_copy(to.fd, from.fd, SIZE_MAX, LONG), 0);
        CHECK_EQ(reeve_read(from.fd, rest, sizeof rest, LONG), 0);
        end_feed(&feeding);
        CHECK_EQ(end_drink(&drinking), SMALL - 1000);
        close_end(&from);
        close_end(&to);
    }
    return 0;
}

TEST(it_takes_no_more_than_it_was_asked_for)
{
    RUN(bounded, .workers = 1);
    RUN(bounded, .workers = 2);
}

/* What reeve received before the copy comes first. */
static int received_ahead(void *arg)
{
    (void)arg;
    for (int kind = 0; kind < KINDS; kind++) {
        struct end from = make_end(OURS_END, false), to = make_end((enum kind)kind, true);
        struct side feeding, drinking;
        unsigned char first[10];
        begin_feed(&feeding, &from, LARGE);
        read_exactly(from.fd, first, sizeof first); /* it receives ahead now */
        check_pattern(first, sizeof first, 0);
        begin_drink(&drinking, &to);
        CHECK_EQ(reeve_write(to.fd, first, sizeof first, LONG), (ssize_t)sizeof first);
        CHECK_EQ(reeve_copy(to.fd, from.fd, LARGE / 2, LONG), LARGE / 2);
        unsigned char next[3000];
        read_exactly(from.fd, next, sizeof next); /* and so it does again */
        check_pattern(next, sizeof next, sizeof first + LARGE / 2);
        CHECK_EQ(reeve_write(to.fd, next, sizeof next, LONG), (ssize_t)sizeof next);
        ssize_t n, total = (ssize_t)sizeof first + LARGE / 2 + (ssize_t)sizeof next;
        while ((n = reeve_copy(to.fd, from.fd, 0, LONG)) > 0)
            total += n;
        CHECK_EQ(n, 0);
        CHECK_EQ(total, LARGE);
        CHECK_EQ(reeve_read(from.fd, first, 1, LONG), 0);
        end_feed(&feeding);
        CHECK_EQ(end_drink(&drinking), LARGE);
        close_end(&from);
        close_end(&to);
    }
    return 0;
}

TEST(what_was_received_ahead_is_copied_first_and_reading_goes_on_after_it)
{
    RUN(received_ahead, .workers = 1);
    RUN(received_ahead, .workers = 2);
    RUN(received_ahead, .workers = 2, .buf_bytes = 256, .bufs = 16);
}

/* ---- special sources ------------------------------------------------------------------------- */

static int special(void *arg)
{
    (void)arg;
    char expected[4096], got[4096];
    int proc = open("/proc/self/status", O_RDONLY | O_CLOEXEC), file = make_file(0);
    ssize_t len = pread(proc, expected, sizeof expected, 0);
    ssize_t n = reeve_copy(file, proc, 0, LONG);
    CHECK_GT(n, 100);
    CHECK_EQ(pread(file, got, sizeof got, 0), n);
    CHECK_GT(len, 100);
    CHECK_MEM_EQ(got, expected, 5); /* "Name:" */
    close(proc);
    int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC), null = open("/dev/null", O_WRONLY);
    CHECK_EQ(reeve_copy(null, zero, LARGE, LONG), LARGE);
    CHECK_EQ(lseek(file, 0, SEEK_SET), 0);
    CHECK_EQ(reeve_copy(null, file, 0, LONG), n);
    CHECK_EQ(reeve_copy(file, zero, 10000, LONG), 10000);
    int memory = memfd_create("copy_test", MFD_CLOEXEC); /* another file system */
    CHECK_EQ(lseek(file, 0, SEEK_SET), 0);
    CHECK_EQ(reeve_copy(memory, file, 0, LONG), n + 10000);
    CHECK_EQ(pread(memory, got, sizeof got, 0), (ssize_t)sizeof got);
    CHECK_MEM_EQ(got, expected, 5);
    int event = eventfd(0, EFD_CLOEXEC);
    CHECK_EQ(eventfd_write(event, 7), 0);
    CHECK_EQ(reeve_copy(file, event, 8, LONG), 8);
    close(event);
    close(memory);
    close(file);
    close(zero);
    close(null);
    return 0;
}

TEST(what_cannot_be_spliced_goes_through_memory)
{
    RUN(special, .workers = 1);
}

static int cold(void *arg)
{
    (void)arg;
    struct end from = make_end(FILE_END, false), to = make_end(OURS_END, true);
    struct side feeding, drinking;
    begin_feed(&feeding, &from, LARGE);
    CHECK_EQ(fsync(from.fd), 0);
    CHECK_EQ(posix_fadvise(from.fd, 0, 0, POSIX_FADV_DONTNEED), 0);
    begin_drink(&drinking, &to);
    CHECK_EQ(reeve_copy(to.fd, from.fd, 0, LONG), LARGE);
    CHECK_EQ(end_drink(&drinking), LARGE);
    close_end(&from);
    close_end(&to);
    return 0;
}

TEST(a_file_that_is_not_in_memory_is_waited_for)
{
    RUN(cold, .workers = 1);
}

static int wrong(void *arg)
{
    (void)arg;
    int file = make_file(0), ends[2], dgram = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    CHECK_EQ(write(file, "x", 1), 1);
    CHECK_EQ(lseek(file, 0, SEEK_SET), 0);
    CHECK_EQ(reeve_copy(-1, file, 1, LONG), -EBADF);
    CHECK_EQ(reeve_copy(file, -1, 1, LONG), -EBADF);
    CHECK_EQ(reeve_copy(1 << 19, file, 1, LONG), -EBADF);
    CHECK_EQ(reeve_copy(ends[1], dgram, 1, LONG), -EINVAL);
    CHECK_EQ(reeve_copy(dgram, ends[0], 1, LONG), -EINVAL);
    CHECK_EQ(reeve_copy(ends[1], ends[0], 1, LONG), -EINVAL);
    CHECK_EQ(reeve_copy(file, file, 1, LONG), -EINVAL);
    CHECK_EQ(reeve_copy(ends[0], file, 1, LONG), -EBADF); /* the wrong end */
    CHECK_EQ(reeve_copy(file, ends[1], 1, LONG), -EBADF);
    int directory = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK_EQ(reeve_copy(ends[1], directory, 1, LONG), -EISDIR);
    int readable = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    CHECK_EQ(reeve_copy(readable, file, 1, LONG), -EBADF);
    CHECK_EQ(lseek(file, 0, SEEK_CUR), 0);
    close(readable);
    close(directory);
    close(dgram);
    close(file);
    close(ends[0]);
    close(ends[1]);
    return 0;
}

TEST(what_cannot_be_copied_is_refused_and_nothing_is_moved)
{
    RUN(wrong, .workers = 1);
    CHECK_DIES("reeve_copy", reeve_copy(1, 0, 1, 0));
}

/* ---- errors, deadlines, cancellations -------------------------------------------------------- */

/* A receiver who never reads, then does: what was said to be moved came through, and the file goes
 * on behind it. */
static int stuck(void *arg)
{
    (void)arg;
    for (int k = 0; k < 2 * (KINDS - PIPE_END); k++) {
        struct end from = make_end(k % 2 ? FILE_END : MEMORY_END, false);
        struct end to = make_end((enum kind)(PIPE_END + k / 2), true);
        struct side feeding, drinking;
        begin_feed(&feeding, &from, 16 << 20);
        ssize_t n = 0, some;
        do { /* a call may be over before it has begun: on a busy machine 20 ms are nothing */
            some = reeve_copy(to.fd, from.fd, 0, reeve_in(20 * REEVE_MS));
            CHECK(some > 0 || some == -ETIMEDOUT);
            n += some > 0 ? some : 0;
            CHECK_EQ(lseek(from.fd, 0, SEEK_CUR), n);
        } while (some > 0 || n == 0);
        CHECK_LT(n, 16 << 20);
        some = reeve_copy(to.fd, from.fd, 0, REEVE_POLL);
        CHECK(some > 0 || some == -ETIMEDOUT);
        n += some > 0 ? some : 0;
        CHECK_EQ(lseek(from.fd, 0, SEEK_CUR), n);
        begin_drink(&drinking, &to);
        CHECK_EQ(reeve_copy(to.fd, from.fd, 0, LONG), (16 << 20) - n);
        CHECK_EQ(end_drink(&drinking), 16 << 20);
        close_end(&from);
        close_end(&to);
    }
    return 0;
}

TEST(a_deadline_ends_it_with_what_was_moved_and_the_next_call_says_why)
{
    RUN(stuck, .workers = 1);
    RUN(stuck, .workers = 2);
}

static int silent(void *arg)
{
    (void)arg;
    for (int k = PIPE_END * KINDS; k < KINDS * KINDS; k++) {
        struct end from = make_end((enum kind)(k / KINDS), false);
        struct end to = make_end((enum kind)(k % KINDS), true);
        CHECK_EQ(reeve_copy(to.fd, from.fd, 0, SOON), -ETIMEDOUT);
        CHECK_EQ(reeve_copy(to.fd, from.fd, 0, REEVE_POLL), -ETIMEDOUT);
        CHECK_EQ(write(from.other, "abc", 3), 3);
        CHECK_EQ(reeve_copy(to.fd, from.fd, 3, LONG), 3);
        close_end(&from);
        close_end(&to);
    }
    return 0;
}

TEST(a_source_that_is_silent_ends_by_deadline)
{
    RUN(silent, .workers = 1);
}

/* By number: the test gives an end up, and forgets it, while this may not have begun. */
struct copying {
    int to, from;
    size_t moved;
    ssize_t result;
};

static int copy_in_task(void *arg)
{
    struct copying *c = arg;
    while ((c->result = reeve_copy(c->to, c->from, 0, LONG)) > 0)
        c->moved += (size_t)c->result;
    return 0;
}

/* Reads what is left in the source, with the pattern going on at `at`. How much. */
static size_t read_rest(struct end *from, size_t at)
{
    static unsigned char buf[60000];
    size_t total = 0;
    ssize_t n;
    while ((n = reeve_read(from->fd, buf, sizeof buf, LONG)) > 0) {
        check_pattern(buf, (size_t)n, at + total);
        total += (size_t)n;
    }
    CHECK_EQ(n, 0);
    return total;
}

enum { CANCELS = 5, CANCEL_BYTES = 1 << 20 };

/* The receiver is slow, so the cancellation comes at any point of a copy. */
static void *sip(void *arg)
{
    struct side *s = arg;
    static _Thread_local unsigned char buf[9000];
    ssize_t n;
    for (int i = 0; (n = read(s->end->other, buf, sizeof buf)) > 0; i++) {
        check_pattern(buf, (size_t)n, s->len);
        s->len += (size_t)n;
        if (i % 4 == 0)
            sched_yield();
    }
    CHECK_EQ(n, 0);
    return NULL;
}

static int cancelled(void *arg)
{
    unsigned seed = *(unsigned *)arg;
    for (int k = 0; k < CANCELS * KINDS * (KINDS - PIPE_END); k++) {
        struct end from = make_end((enum kind)(k % KINDS), false);
        struct end to = make_end((enum kind)(PIPE_END + k / KINDS % (KINDS - PIPE_END)), true);
        struct side feeding, sipping = { .end = &to };
        struct copying c = { to.fd, from.fd, 0, -ECANCELED }; /* it may not even begin */
        reeve_task *t;
        begin_feed(&feeding, &from, CANCEL_BYTES);
        CHECK_EQ(pthread_create(&sipping.thread, NULL, sip, &sipping), 0);
        CHECK_EQ(reeve_spawn(&t, copy_in_task, &c), 0);
        CHECK_EQ(reeve_sleep(reeve_in((int64_t)(rand_r(&seed) % 3000) * REEVE_US)), 0);
        reeve_cancel(t);
        CHECK_EQ(reeve_join(t, NULL, LONG), 0);
        CHECK(c.result == -ECANCELED || (c.result == 0 && c.moved == CANCEL_BYTES));
        CHECK_EQ(read_rest(&from, c.moved), CANCEL_BYTES - c.moved);
        end_feed(&feeding);
        CHECK_EQ(reeve_close(to.fd), 0);
        to.fd = -1;
        join_thread(sipping.thread);
        CHECK_EQ(sipping.len, c.moved);
        close_end(&from);
        close_end(&to);
    }
    return 0;
}

TEST(a_cancellation_at_any_point_loses_no_byte)
{
    uring_or_skip();
    for (unsigned workers = 1; workers <= 2; workers++)
        CHECK_EQ(reeve_run(cancelled, &workers, .workers = workers), 0);
}

/* What was received ahead and taken out of the socket is read afterwards, in its order. */
static int put_back(void *arg)
{
    (void)arg;
    for (int kind = PIPE_END; kind < KINDS; kind++) {
        struct end from = make_end(OURS_END, false), to = make_end((enum kind)kind, true);
        struct side feeding;
        unsigned char first[1];
        begin_feed(&feeding, &from, 12 << 20);
        read_exactly(from.fd, first, 1);
        ssize_t n, total = 1;
        while ((n = reeve_copy(to.fd, from.fd, 0, reeve_in(20 * REEVE_MS))) > 0)
            total += n;
        CHECK_EQ(n, -ETIMEDOUT); /* nobody reads */
        CHECK_LT(total, 12 << 20);
        CHECK_EQ(read_rest(&from, (size_t)total), (12u << 20) - (size_t)total);
        end_feed(&feeding);
        close_end(&from);
        close_end(&to);
    }
    return 0;
}

TEST(what_the_receiver_did_not_take_is_read_again_from_the_stream)
{
    RUN(put_back, .workers = 1);
    RUN(put_back, .workers = 2);
    RUN(put_back, .workers = 2, .buf_bytes = 256, .bufs = 16);
}

static int broken(void *arg)
{
    (void)arg;
    for (int k = 0; k < KINDS * (KINDS - PIPE_END); k++) {
        struct end from = make_end((enum kind)(k % KINDS), false);
        struct end to = make_end((enum kind)(PIPE_END + k / KINDS), true);
        struct side feeding;
        begin_feed(&feeding, &from, SMALL / 2);
        end_feed(&feeding);
        if (to.kind == OURS_END)
            peer_reset(to.other);
        else
            close(to.other);
        to.other = -1;
        ssize_t n;
        size_t moved = 0;
        while ((n = reeve_copy(to.fd, from.fd, 100, LONG)) > 0) {
            moved += (size_t)n;
            if (to.kind >= TCP_END) /* a reset needs its time */
                CHECK_EQ(poll(&(struct pollfd){ .fd = to.fd }, 1, -1), 1);
        }
        CHECK(n == -EPIPE || n == -ECONNRESET);
        CHECK_EQ(reeve_copy(to.fd, from.fd, 0, LONG), -EPIPE);
        CHECK_EQ(read_rest(&from, moved), SMALL / 2 - moved);
        close_end(&from);
        close_end(&to);
    }
    return 0;
}

TEST(a_broken_receiver_is_an_error_and_no_signal_and_costs_no_byte)
{
    RUN(broken, .workers = 1);
    RUN(broken, .workers = 2);
}

static int closed(void *arg)
{
    unsigned seed = *(unsigned *)arg;
    for (int k = 0; k < 4 * KINDS * KINDS; k++) {
        struct end from = make_end((enum kind)(k % KINDS), false);
        struct end to = make_end((enum kind)(k / KINDS % KINDS), true);
        struct side feeding = { .end = &from, .len = 30000, .keep_open = true };
        struct copying c = { to.fd, from.fd, 0, 0 };
        reeve_task *t;
        if (from.kind > APPEND_END)
            feed(&feeding); /* it finds room for that */
        CHECK_EQ(reeve_spawn(&t, copy_in_task, &c), 0);
        if (rand_r(&seed) % 2)
            CHECK_EQ(reeve_sleep(reeve_in((int64_t)(rand_r(&seed) % 500) * REEVE_US)), 0);
        int *which = rand_r(&seed) % 2 ? &to.fd : &from.fd, fd = *which;
        CHECK_EQ(reeve_close(fd), 0);
        CHECK_EQ(reeve_join(t, NULL, LONG), 0);
        CHECK(c.result == -ECANCELED || c.result == -EBADF || c.result == 0);
        await_closed(fd);
        *which = -1;
        close_end(&from);
        close_end(&to);
    }
    return 0;
}

TEST(a_close_of_either_end_ends_it_and_frees_the_number)
{
    uring_or_skip();
    for (unsigned workers = 1; workers <= 2; workers++)
        CHECK_EQ(reeve_run(closed, &workers, .workers = workers), 0);
}

/* ---- together -------------------------------------------------------------------------------- */

/* Both directions of a proxy at once, between two clients. */
static int proxy(void *arg)
{
    (void)arg;
    struct end a = make_end(OURS_END, false), b = make_end(OURS_END, false);
    struct copying there = { b.fd, a.fd, 0, 0 }, back = { a.fd, b.fd, 0, 0 };
    struct side feed_a = { .end = &a, .len = LARGE, .keep_open = true };
    struct side feed_b = { .end = &b, .len = LARGE, .keep_open = true };
    struct side drink_a = { .end = &a }, drink_b = { .end = &b };
    reeve_task *t, *u;
    CHECK_EQ(reeve_spawn(&t, copy_in_task, &there), 0);
    CHECK_EQ(reeve_spawn(&u, copy_in_task, &back), 0);
    CHECK_EQ(pthread_create(&drink_a.thread, NULL, drink, &drink_a), 0);
    CHECK_EQ(pthread_create(&drink_b.thread, NULL, drink, &drink_b), 0);
    CHECK_EQ(pthread_create(&feed_a.thread, NULL, feed, &feed_a), 0);
    CHECK_EQ(pthread_create(&feed_b.thread, NULL, feed, &feed_b), 0);
    end_feed(&feed_a);
    end_feed(&feed_b);
    CHECK_EQ(shutdown(a.other, SHUT_WR), 0);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(shutdown(b.fd, SHUT_WR), 0);
    join_thread(drink_b.thread);
    CHECK_EQ(shutdown(b.other, SHUT_WR), 0);
    CHECK_EQ(reeve_join(u, NULL, LONG), 0);
    CHECK_EQ(shutdown(a.fd, SHUT_WR), 0);
    join_thread(drink_a.thread);
    CHECK_EQ(there.moved, LARGE);
    CHECK_EQ(back.moved, LARGE);
    CHECK_EQ(drink_a.len, LARGE);
    CHECK_EQ(drink_b.len, LARGE);
    close_end(&a);
    close_end(&b);
    return 0;
}

TEST(a_proxy_copies_both_directions_at_once)
{
    RUN(proxy, .workers = 2);
}

static int second(void *arg)
{
    (void)arg;
    struct end from = make_end(OURS_END, false), to = make_end(UNIX_END, true);
    struct copying c = { to.fd, from.fd, 0, 0 };
    reeve_task *t;
    char byte;
    CHECK_EQ(reeve_spawn(&t, copy_in_task, &c), 0);
    await_waiter(from.fd, AN_OP);
    CHECK_EQ(reeve_read(from.fd, &byte, 1, LONG), -EBUSY);
    CHECK_EQ(reeve_copy(to.fd, from.fd, 1, SOON), -ETIMEDOUT); /* of its turn to write */
    CHECK_EQ(fcntl(to.fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    reeve_cancel(t);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(c.result, -ECANCELED);
    CHECK_EQ(fcntl(to.fd, F_GETFL) & O_NONBLOCK, 0); /* as it was: it is not ours */
    CHECK_EQ(write(from.other, "x", 1), 1);
    CHECK_EQ(reeve_read(from.fd, &byte, 1, LONG), 1);
    close_end(&from);
    close_end(&to);
    return 0;
}

TEST(who_copies_is_the_one_reader_and_the_one_writer)
{
    RUN(second, .workers = 1);
}

/* The flags of a foreign socket are looked at when it is one's turn: while the one before copies
 * they are not as they will be. Were it blocking under the second, nobody would read on the other
 * side, for there is one worker. */
static int waits_its_turn(void *arg)
{
    (void)arg;
    struct end to = make_end(UNIX_END, true), from[2];
    struct copying c[2];
    reeve_task *t[2];
    enum { BYTES = 1 << 20 };
    unsigned char *data = malloc(BYTES);
    for (int i = 0; i < 2; i++) {
        from[i] = make_end(FILE_END, false);
        fill_pattern(data, BYTES, 0);
        CHECK_EQ(pwrite(from[i].fd, data, BYTES, 0), BYTES);
        c[i] = (struct copying){ to.fd, from[i].fd, 0, 0 };
        CHECK_EQ(reeve_spawn(&t[i], copy_in_task, &c[i]), 0);
        while (!(fcntl(to.fd, F_GETFL) & O_NONBLOCK)) /* the first has begun */
            CHECK_EQ(reeve_sleep(0), 0);
    }
    for (int i = 0; i < 10; i++) /* the second looks, and waits for its turn */
        CHECK_EQ(reeve_sleep(0), 0);
    for (int i = 0; i < 2; i++) {
        memset(data, 0, BYTES);
        for (size_t at = 0; at < BYTES;) {
            ssize_t n = reeve_read(to.other, data + at, BYTES - at, LONG);
            CHECK_GT(n, 0);
            at += (size_t)n;
        }
        check_pattern(data, BYTES, 0);
    }
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(reeve_join(t[i], NULL, LONG), 0);
        CHECK_EQ(c[i].moved, BYTES);
        close_end(&from[i]);
    }
    CHECK_EQ(fcntl(to.fd, F_GETFL) & O_NONBLOCK, 0);
    free(data);
    close_end(&to);
    return 0;
}

TEST(a_copy_that_waited_for_its_turn_does_not_stop_its_worker)
{
    RUN(waits_its_turn, .workers = 1);
}

/* What waits for its turn keeps the number of its source: if that is closed, nothing that is opened
 * then is taken for it. */
static int closed_in_the_queue(void *arg)
{
    (void)arg;
    struct end silent = make_end(PIPE_END, false), from = make_end(OURS_END, false);
    struct end to = make_end(PIPE_END, true), other;
    struct copying c[2] = { { to.fd, silent.fd, 0, 0 }, { to.fd, from.fd, 0, 0 } };
    reeve_task *t[2];
    char byte;
    CHECK_EQ(reeve_spawn(&t[0], copy_in_task, &c[0]), 0);
    CHECK_EQ(write(silent.other, "x", 1), 1);
    CHECK_EQ(reeve_read(to.other, &byte, 1, LONG), 1); /* the first has the turn */
    CHECK_EQ(reeve_spawn(&t[1], copy_in_task, &c[1]), 0);
    await_waiter(to.fd, A_TURN);
    int fd = from.fd;
    CHECK_EQ(reeve_close(fd), 0);
    for (int i = 0; i < 10; i++)
        CHECK_EQ(reeve_sleep(0), 0);
    other = make_end(PIPE_END, false); /* of the lowest free number */
    CHECK_NE(other.fd, fd);
    CHECK_EQ(write(other.other, "x", 1), 1);
    reeve_cancel(t[0]);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(reeve_join(t[i], NULL, LONG), 0);
        CHECK_EQ(c[i].result, -ECANCELED);
    }
    await_closed(fd);
    CHECK_EQ(reeve_read(to.other, &byte, 1, REEVE_POLL), -ETIMEDOUT);
    from.fd = -1;
    close_end(&silent);
    close_end(&from);
    close_end(&other);
    close_end(&to);
    return 0;
}

TEST(a_source_that_is_closed_while_a_copy_waits_for_its_turn_is_no_other)
{
    RUN(closed_in_the_queue, .workers = 1);
    RUN(closed_in_the_queue, .workers = 2);
}

static int ticks;
static bool over;

static int tick(void *arg)
{
    (void)arg;
    while (!over) {
        ticks++;
        CHECK_EQ(reeve_sleep(0), 0);
    }
    return 0;
}

/* From a full pipe into one that has room for all of it nothing ever waits. */
static int fair(void *arg)
{
    (void)arg;
    enum { BYTES = 1 << 20 };
    int from[2], to[2];
    reeve_task *t;
    if (reeve_pipe(from, BYTES) < BYTES || reeve_pipe(to, BYTES) < BYTES)
        SKIP("this system allows no pipes of 1 MiB");
    unsigned char *data = malloc(BYTES);
    fill_pattern(data, BYTES, 0);
    CHECK_EQ(write(from[1], data, BYTES), BYTES);
    CHECK_EQ(reeve_spawn(&t, tick, NULL), 0);
    while (ticks == 0) /* from then on it has its turn whenever the copy lets others run */
        CHECK_EQ(reeve_sleep(0), 0);
    int before = ticks;
    CHECK_EQ(reeve_copy(to[1], from[0], BYTES, LONG), BYTES);
    CHECK_GE(ticks - before, BYTES / (256 << 10) - 1); /* once between any two pieces */
    over = true;
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    memset(data, 0, BYTES);
    read_exactly(to[0], data, BYTES);
    check_pattern(data, BYTES, 0);
    free(data);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(reeve_close(from[i]), 0);
        CHECK_EQ(reeve_close(to[i]), 0);
    }
    return 0;
}

TEST(others_run_between_the_pieces)
{
    RUN(fair, .workers = 1);
}

/* ---- devices --------------------------------------------------------------------------------- */

static int copy_count(void *arg)
{
    struct leg *l = arg;
    l->n = reeve_copy(l->to, l->from, sizeof(uint64_t), LONG);
    return 0;
}

/* What was read from a device that is closed then is on its way, and arrives. */
static int closed_device(void *arg)
{
    (void)arg;
    static char full[1 << 20];
    struct end to = make_end(PIPE_END, true);
    int count = eventfd(7, EFD_CLOEXEC);
    struct leg leg = { count, to.fd, 0 };
    reeve_task *t;
    uint64_t got = 0;
    CHECK_EQ(fcntl(to.fd, F_SETFL, O_NONBLOCK), 0);
    ssize_t n = write(to.fd, full, sizeof full);
    CHECK_GT(n, 0);
    CHECK_EQ(reeve_spawn(&t, copy_count, &leg), 0);
    while (poll(&(struct pollfd){ .fd = count, .events = POLLIN }, 1, 0) > 0)
        CHECK_EQ(reeve_sleep(0), 0);
    for (int i = 0; i < 10; i++) /* it waits for room */
        CHECK_EQ(reeve_sleep(0), 0);
    CHECK_EQ(reeve_close(count), 0);
    for (int i = 0; i < 10; i++)
        CHECK_EQ(reeve_sleep(0), 0);
    read_exactly(to.other, full, (size_t)n);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(leg.n, sizeof got);
    read_exactly(to.other, &got, sizeof got);
    CHECK_EQ(got, 7);
    await_closed(count);
    close_end(&to);
    return 0;
}

TEST(what_a_device_gave_arrives_although_it_is_closed)
{
    RUN(closed_device, .workers = 1);
    RUN(closed_device, .workers = 2);
}

/* ---- tee ------------------------------------------------------------------------------------- */

static int tee_twice(void *arg)
{
    struct copying *c = arg;
    c->result = reeve_tee(c->to, c->from, 100, LONG);
    return 0;
}

static int tees(void *arg)
{
    (void)arg;
    char buf[16];
    struct end from = make_end(PIPE_END, false), to = make_end(PIPE_END, true);
    struct end file = make_end(FILE_END, true);
    struct copying c = { to.fd, from.fd, 0, 0 };
    reeve_task *t;
    CHECK_EQ(reeve_tee(to.fd, from.fd, 10, SOON), -ETIMEDOUT);
    CHECK_EQ(reeve_tee(to.fd, from.fd, 10, REEVE_POLL), -ETIMEDOUT);
    CHECK_EQ(reeve_tee(file.fd, from.fd, 10, LONG), -EINVAL);
    CHECK_EQ(reeve_tee(to.fd, to.other, 10, LONG), -EINVAL);
    CHECK_EQ(reeve_tee(to.fd, -1, 10, LONG), -EBADF);
    CHECK_EQ(reeve_tee(to.fd, from.fd, 0, LONG), 0);
    CHECK_EQ(write(from.other, "abcdef", 6), 6);
    CHECK_EQ(reeve_tee(to.fd, from.fd, 4, LONG), 4);
    CHECK_EQ(reeve_tee(to.fd, from.fd, SIZE_MAX, LONG), 6); /* nothing was taken out */
    CHECK_EQ(reeve_read(to.other, buf, sizeof buf, LONG), 10);
    CHECK_MEM_EQ(buf, "abcdabcdef", 10);
    CHECK_EQ(reeve_read(from.fd, buf, sizeof buf, LONG), 6);
    CHECK_EQ(reeve_spawn(&t, tee_twice, &c), 0);
    await_waiter(from.fd, AN_OP);
    CHECK_EQ(write(from.other, "x", 1), 1);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(c.result, 1);
    CHECK_EQ(reeve_read(from.fd, buf, sizeof buf, LONG), 1);
    CHECK_EQ(reeve_spawn(&t, tee_twice, &c), 0);
    await_waiter(from.fd, AN_OP);
    reeve_cancel(t);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(c.result, -ECANCELED);
    close(from.other);
    from.other = -1;
    CHECK_EQ(reeve_tee(to.fd, from.fd, 10, LONG), 0);
    close_end(&from);
    from = make_end(PIPE_END, false);
    CHECK_EQ(write(from.other, "x", 1), 1);
    close(to.other);
    to.other = -1;
    CHECK_EQ(reeve_tee(to.fd, from.fd, 10, LONG), -EPIPE);
    close_end(&from);
    close_end(&to);
    close_end(&file);
    return 0;
}

TEST(a_tee_duplicates_and_takes_nothing_out)
{
    RUN(tees, .workers = 1);
    RUN(tees, .workers = 2);
}

static int tee_closed(void *arg)
{
    (void)arg;
    for (int i = 0; i < 100; i++) {
        struct end from = make_end(PIPE_END, false), to = make_end(PIPE_END, true);
        struct copying c = { to.fd, from.fd, 0, 0 };
        reeve_task *t;
        CHECK_EQ(reeve_spawn(&t, tee_twice, &c), 0);
        if (i % 2)
            reeve_sleep(0);
        int fd = i % 3 ? from.fd : to.fd;
        CHECK_EQ(reeve_close(fd), 0);
        if (i % 3)
            from.fd = -1;
        else
            close(from.other), from.other = -1; /* it waits for that end, perhaps */
        CHECK_EQ(reeve_join(t, NULL, LONG), 0);
        CHECK(c.result == -ECANCELED || c.result == -EBADF || c.result == 0);
        await_closed(fd);
        if (i % 3 == 0)
            to.fd = -1;
        close_end(&from);
        close_end(&to);
    }
    return 0;
}

TEST(a_close_ends_a_tee)
{
    RUN(tee_closed, .workers = 1);
    RUN(tee_closed, .workers = 2);
}
