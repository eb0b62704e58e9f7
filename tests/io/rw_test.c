/* SPDX-License-Identifier: MIT */
/*
 * rw_test.c -- writing all of it, reading what is there, on sockets and on what is none.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <sys/eventfd.h>
#include <sys/mman.h>

#include "io/fdtab.h"
#include "io/rw.h"
#include "tests/io/pair.h"

#define SOON reeve_in(2 * REEVE_MS)

enum { ABYSS = 32 << 20 };
static char abyss[ABYSS]; /* more than any peer takes that does not read */

/* ---- all of it ------------------------------------------------------------------------------- */

struct receiver {
    int fd;
    size_t total;
};

static void *receive_pattern(void *arg)
{
    struct receiver *r = arg;
    static unsigned char buf[30000];
    ssize_t n;
    while ((n = recv(r->fd, buf, sizeof buf, 0)) > 0) {
        check_pattern(buf, (size_t)n, r->total);
        r->total += (size_t)n;
    }
    CHECK_EQ(n, 0);
    return NULL;
}

enum { LARGE = 8 << 20 };

static int large(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    struct receiver r = { .fd = p.peer };
    pthread_t thread;
    unsigned char *data = malloc(LARGE);
    fill_pattern(data, LARGE, 0);
    CHECK_EQ(pthread_create(&thread, NULL, receive_pattern, &r), 0);
    CHECK_EQ(reeve_write(p.fd, data, LARGE, LONG), LARGE);
    CHECK_EQ(reeve_close(p.fd), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(r.total, LARGE);
    free(data);
    p.fd = -1;
    pair_close(&p);
    return 0;
}

TEST(a_write_is_complete_whatever_its_size)
{
    RUN(large, .workers = 1);
}

struct writing {
    int fd;
    char letter;
    size_t len;
    ssize_t result;
    reeve_time until;
};

static int write_letters(void *arg)
{
    struct writing *w = arg;
    char *text = malloc(w->len);
    memset(text, w->letter, w->len);
    w->result = reeve_write(w->fd, text, w->len, w->until);
    free(text);
    return 0;
}

enum { WRITERS = 6, LETTERS = 700000 };

static void *receive_letters(void *arg)
{
    int fd = *(int *)arg;
    static char buf[50000];
    size_t seen[256] = { 0 }, total = 0;
    char now = 0;
    while (total < (size_t)WRITERS * LETTERS) {
        ssize_t n = recv(fd, buf, sizeof buf, 0);
        CHECK_GT(n, 0);
        for (ssize_t i = 0; i < n; i++) {
            if (buf[i] != now) /* the one before is complete, or nobody was */
                CHECK(now == 0 || seen[(unsigned char)now] == LETTERS);
            now = buf[i];
            seen[(unsigned char)now]++;
        }
        total += (size_t)n;
    }
    return NULL;
}

static int together(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    struct writing w[WRITERS];
    struct reeve_group g = { 0 };
    pthread_t thread;
    for (int i = 0; i < WRITERS; i++) {
        w[i] = (struct writing){ p.fd, (char)('a' + i), LETTERS, 0, LONG };
        CHECK_EQ(reeve_spawn(NULL, write_letters, &w[i], .group = &g), 0);
    }
    CHECK_EQ(reeve_sleep(SOON), 0);
    CHECK_EQ(pthread_create(&thread, NULL, receive_letters, &p.peer), 0);
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    for (int i = 0; i < WRITERS; i++)
        CHECK_EQ(w[i].result, LETTERS);
    pair_close(&p);
    return 0;
}

TEST(the_bytes_of_each_write_stay_together)
{
    RUN(together, .workers = 1);
    RUN(together, .workers = 2);
}

/* ---- together -------------------------------------------------------------------------------- */

enum { QUEUED = 20, STUCK = 4 << 20 };

/* The first writer is stuck; the others queue. Then the peer reads all. */
static int coalesced(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    struct writing first = { p.fd, '*', STUCK, 0, LONG }, w[QUEUED];
    reeve_task *t, *u[QUEUED];
    CHECK_EQ(reeve_spawn(&t, write_letters, &first), 0);
    await_waiter(p.fd, AN_OP);
    for (int i = 0; i < QUEUED; i++) {
        w[i] = (struct writing){ p.fd, (char)('a' + i), (size_t)(100 + i), 0, LONG };
        CHECK_EQ(reeve_spawn(&u[i], write_letters, &w[i]), 0);
        await_asleep(u[i]); /* behind the others */
    }
    uint64_t before = COUNTER(ops);
    static char buf[65536];
    size_t total = STUCK, got = 0;
    for (int i = 0; i < QUEUED; i++)
        total += w[i].len;
    size_t seen[256] = { 0 };
    char now = '*';
    while (got < total) {
        ssize_t n = recv(p.peer, buf, sizeof buf, MSG_DONTWAIT);
        for (ssize_t i = 0; i < n; i++) {
            if (buf[i] != now) /* in their order, and whole */
                CHECK_EQ(seen[(unsigned char)now], now == '*' ? STUCK : w[now - 'a'].len);
            now = buf[i];
            seen[(unsigned char)now]++;
        }
        got += n > 0 ? (size_t)n : 0;
        CHECK_EQ(reeve_sleep(0), 0);
    }
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(first.result, STUCK);
    for (int i = 0; i < QUEUED; i++) {
        CHECK_EQ(reeve_join(u[i], NULL, LONG), 0);
        CHECK_EQ(w[i].result, (ssize_t)w[i].len);
        CHECK_EQ(seen['a' + i], w[i].len);
    }
    CHECK_LE(COUNTER(ops) - before, 12); /* far fewer than there were writes */
    pair_close(&p);
    return 0;
}

TEST(queued_writes_go_out_together_and_each_is_told_its_own_result)
{
    RUN(coalesced, .workers = 1);
    RUN(coalesced, .workers = 2);
}

/* A connection into which not one byte more fits until the peer reads. */
static struct pair full_pair(void)
{
    struct pair p = pair_make(); /* of TCP, whose buffers grow: only its listener is used */
    int ends[2];
    CHECK_EQ(reeve_close(p.fd), 0);
    close(p.peer);
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    CHECK_EQ(reeve_adopt(ends[0]), 0);
    p.fd = ends[0];
    p.peer = ends[1];
    while (send(p.fd, abyss, 65536, MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
        ;
    return p;
}

/* Taken along by a request that is stuck, one leaves at its own deadline, one is cancelled; the
 * others come through. */
static int leave_early(void *arg)
{
    (void)arg;
    struct pair p = full_pair();
    struct rv_writer turn;
    CHECK_EQ(rv_writer_begin(my_io(), p.fd, INT64_MAX, &turn), 0);
    struct writing w[5];
    reeve_task *t[5];
    for (int i = 0; i < 5; i++) {
        w[i] = (struct writing){ p.fd, (char)('a' + i), 1000, 0, LONG };
        w[i].until = i == 2 ? reeve_in(50 * REEVE_MS) : LONG;
        CHECK_EQ(reeve_spawn(&t[i], write_letters, &w[i]), 0);
        await_asleep(t[i]);
    }
    CHECK_EQ(rv_writer_end(my_io(), &turn), false); /* the first takes the others along */
    await_waiter(p.fd, AN_OP);
    CHECK_EQ(reeve_join(t[2], NULL, LONG), 0);
    CHECK_EQ(w[2].result, -ETIMEDOUT);
    reeve_cancel(t[3]);
    CHECK_EQ(reeve_join(t[3], NULL, LONG), 0);
    CHECK_EQ(w[3].result, -ECANCELED);
    static char buf[65536];
    size_t seen[256] = { 0 };
    while (seen['a'] + seen['b'] + seen['e'] < 3000) {
        ssize_t n = recv(p.peer, buf, sizeof buf, MSG_DONTWAIT);
        for (ssize_t i = 0; i < n; i++)
            seen[(unsigned char)buf[i]]++;
        CHECK_EQ(reeve_sleep(0), 0);
    }
    for (int i = 0; i < 5; i++) {
        CHECK_EQ(seen['a' + i], i == 2 || i == 3 ? 0 : 1000);
        if (i == 2 || i == 3)
            continue;
        CHECK_EQ(reeve_join(t[i], NULL, LONG), 0);
        CHECK_EQ(w[i].result, 1000);
    }
    pair_close(&p);
    return 0;
}

TEST(who_was_taken_along_leaves_at_his_deadline_and_the_others_get_on)
{
    RUN(leave_early, .workers = 1);
    RUN(leave_early, .workers = 2, NO_RESCUE);
}

/* Taken along, and the deadline passes at about the time at which the peer reads: whichever comes
 * first, who is told that his time was over has bytes that did not go out, and who is told that all
 * went out is right. */
static int late_or_not(void *arg)
{
    (void)arg;
    enum { LETTERS_EACH = 3000 };
    static char buf[65536];
    unsigned seed = 1;
    for (int round = 0; round < 200; round++) {
        struct pair p = full_pair();
        struct rv_writer turn;
        struct writing w[3];
        reeve_task *t[3];
        size_t seen[256] = { 0 };
        reeve_time until = reeve_in(rand_r(&seed) % 300 * REEVE_US);
        CHECK_EQ(rv_writer_begin(my_io(), p.fd, INT64_MAX, &turn), 0);
        for (int i = 0; i < 3; i++) {
            w[i] = (struct writing){ p.fd, (char)('a' + i), LETTERS_EACH, 0, LONG };
            w[i].until = i == 1 ? until : LONG;
            CHECK_EQ(reeve_spawn(&t[i], write_letters, &w[i]), 0);
        }
        CHECK_EQ(reeve_sleep(0), 0); /* they queue */
        rv_writer_end(my_io(), &turn);
        for (int n = rand_r(&seed) % 4; n > 0; n--)
            CHECK_EQ(reeve_sleep(0), 0);
        while (seen['a'] + seen['c'] < 2 * LETTERS_EACH) {
            ssize_t n = recv(p.peer, buf, sizeof buf, MSG_DONTWAIT);
            for (ssize_t i = 0; i < n; i++)
                seen[(unsigned char)buf[i]]++;
            CHECK_EQ(reeve_sleep(0), 0);
        }
        for (int i = 0; i < 3; i++)
            CHECK_EQ(reeve_join(t[i], NULL, LONG), 0);
        for (ssize_t n; (n = recv(p.peer, buf, sizeof buf, MSG_DONTWAIT)) > 0;)
            for (ssize_t i = 0; i < n; i++)
                seen[(unsigned char)buf[i]]++;
        CHECK_EQ(w[0].result, LETTERS_EACH);
        CHECK_EQ(w[2].result, LETTERS_EACH);
        if (w[1].result == -ETIMEDOUT)
            CHECK_LT(seen['b'], LETTERS_EACH);
        else
            CHECK_EQ(w[1].result, LETTERS_EACH);
        CHECK(w[1].result < 0 || seen['b'] == LETTERS_EACH);
        pair_close(&p);
    }
    return 0;
}

TEST(a_passenger_is_told_that_his_time_is_over_only_if_bytes_of_his_did_not_go_out)
{
    RUN(late_or_not, .workers = 1);
    RUN(late_or_not, .workers = 2, NO_RESCUE);
}

static int closed_together(void *arg)
{
    (void)arg;
    struct pair p = full_pair();
    struct rv_writer turn;
    struct writing w[5];
    reeve_task *t[5];
    CHECK_EQ(rv_writer_begin(my_io(), p.fd, INT64_MAX, &turn), 0);
    for (int i = 0; i < 5; i++) {
        w[i] = (struct writing){ p.fd, (char)('a' + i), 1000, 0, LONG };
        CHECK_EQ(reeve_spawn(&t[i], write_letters, &w[i]), 0);
        await_asleep(t[i]);
    }
    CHECK_EQ(rv_writer_end(my_io(), &turn), false);
    await_waiter(p.fd, AN_OP);
    CHECK_EQ(reeve_close(p.fd), 0);
    for (int i = 0; i < 5; i++) {
        CHECK_EQ(reeve_join(t[i], NULL, LONG), 0);
        CHECK_EQ(w[i].result, -ECANCELED);
    }
    await_closed(p.fd);
    p.fd = -1;
    pair_close(&p);
    return 0;
}

TEST(a_close_ends_those_who_are_on_their_way_together)
{
    RUN(closed_together, .workers = 1);
    RUN(closed_together, .workers = 2, NO_RESCUE);
}

/* ---- pieces ---------------------------------------------------------------------------------- */

enum { PIECES = 150 };

static size_t cut(struct iovec piece[PIECES], unsigned char *data)
{
    size_t at = 0;
    unsigned seed = 7;
    for (int i = 0; i < PIECES; i++) {
        size_t n = (size_t)rand_r(&seed) % (i % 10 == 3 ? 40000 : 50); /* some are empty */
        piece[i] = (struct iovec){ data + at, n };
        at += n;
    }
    fill_pattern(data, at, 0);
    return at;
}

static int in_pieces(void *arg)
{
    (void)arg;
    static unsigned char data[PIECES * 40000];
    struct iovec piece[PIECES], was[PIECES];
    size_t total = cut(piece, data);
    struct pair p = pair_make();
    struct receiver r = { .fd = p.peer };
    pthread_t thread;
    memcpy(was, piece, sizeof was);
    CHECK_EQ(pthread_create(&thread, NULL, receive_pattern, &r), 0);
    CHECK_EQ(rv_send_iov(my_io(), p.fd, INT64_MAX, piece, PIECES), (ssize_t)total);
    CHECK_MEM_EQ(was, piece, sizeof was);
    CHECK_EQ(rv_send_iov(my_io(), p.fd, INT64_MAX, piece, 0), 0);
    CHECK_EQ(shutdown(p.fd, SHUT_WR), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(r.total, total);
    CHECK_EQ(rv_send_iov(my_io(), p.fd, INT64_MAX, piece, PIECES), -EPIPE);
    CHECK_EQ(rv_send_iov(my_io(), -1, INT64_MAX, piece, PIECES), -EBADF);
    pair_close(&p);

    int fd = memfd_create("pieces", MFD_CLOEXEC);
    CHECK_EQ(rv_send_iov(my_io(), fd, INT64_MAX, piece, PIECES), (ssize_t)total);
    static unsigned char back[PIECES * 40000];
    CHECK_EQ(pread(fd, back, sizeof back, 0), (ssize_t)total);
    check_pattern(back, total, 0);
    close(fd);
    return 0;
}

TEST(any_number_of_pieces_is_sent_as_one)
{
    RUN(in_pieces, .workers = 1);
}

static int stuck_pieces(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    struct iovec piece[2] = { { abyss, sizeof abyss }, { abyss, 1 } };
    CHECK_EQ(rv_send_iov(my_io(), p.fd, reeve_in(20 * REEVE_MS), piece, 2), -ETIMEDOUT);
    pair_close(&p);
    return 0;
}

TEST(pieces_for_a_peer_that_never_reads_time_out)
{
    RUN(stuck_pieces, .workers = 1);
}

/* ---- peers that do not read ------------------------------------------------------------------ */

static int stuck(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    struct writing first = { p.fd, 'a', 32u << 20, 0, LONG }, turn = { p.fd, 'b', 10, 0, SOON };
    struct writing later = { p.fd, 'c', 10, 0, LONG };
    reeve_task *t, *u;
    CHECK_EQ(reeve_spawn(&t, write_letters, &first), 0);
    await_waiter(p.fd, AN_OP);
    CHECK_EQ(write_letters(&turn), 0);
    CHECK_EQ(turn.result, -ETIMEDOUT); /* of its turn: nothing of it was sent */
    CHECK_EQ(reeve_spawn(&u, write_letters, &later), 0);
    await_waiter(p.fd, A_TURN);
    reeve_cancel(u);
    CHECK_EQ(reeve_join(u, NULL, LONG), 0);
    CHECK_EQ(later.result, -ECANCELED);
    reeve_cancel(t);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(first.result, -ECANCELED);
    CHECK_EQ(shutdown(p.fd, SHUT_WR), 0);
    static char buf[65536];
    ssize_t n;
    while ((n = recv(p.peer, buf, sizeof buf, 0)) > 0)
        for (ssize_t i = 0; i < n; i++)
            CHECK_EQ(buf[i], 'a');
    pair_close(&p);
    return 0;
}

TEST(who_waits_for_his_turn_leaves_at_his_deadline_with_nothing_sent)
{
    RUN(stuck, .workers = 1);
    RUN(stuck, .workers = 2);
}

static int slow(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    struct writing w = { p.fd, 'a', 32u << 20, 0, reeve_in(20 * REEVE_MS) };
    CHECK_EQ(write_letters(&w), 0);
    CHECK_EQ(w.result, -ETIMEDOUT);
    pair_close(&p);
    return 0;
}

TEST(a_write_to_a_peer_that_never_reads_times_out)
{
    RUN(slow, .workers = 1);
}

static RV_ATOMIC(int) begun;

static int write_abyss(void *arg)
{
    struct writing *w = arg;
    rv_add_acq_rel(&begun, 1);
    w->result = reeve_write(w->fd, abyss, sizeof abyss, LONG);
    return 0;
}

static int closed_while_writing(void *arg)
{
    bool alone = my_io()->io->sched->nworkers == 1;
    (void)arg;
    struct pair p = pair_make();
    struct writing w[3];
    struct reeve_group g = { 0 };
    rv_store_relaxed(&begun, 0);
    for (int i = 0; i < 3; i++) {
        w[i] = (struct writing){ .fd = p.fd };
        CHECK_EQ(reeve_spawn(NULL, write_abyss, &w[i], .group = &g), 0);
    }
    while (rv_load_acquire(&begun) < 3)
        CHECK_EQ(reeve_sleep(0), 0);
    CHECK_EQ(reeve_close(p.fd), 0);
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    for (int i = 0; i < 3; i++) /* on another worker one may come too late to wait at all */
        CHECK(w[i].result == -ECANCELED || (!alone && w[i].result == -EBADF));
    await_closed(p.fd);
    p.fd = -1;
    pair_close(&p);
    return 0;
}

TEST(a_close_ends_the_writer_and_those_behind_it)
{
    RUN(closed_while_writing, .workers = 1);
    RUN(closed_while_writing, .workers = 2);
}

static int broken(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    peer_reset(p.peer);
    p.peer = -1;
    ssize_t n;
    while ((n = reeve_write(p.fd, "x", 1, LONG)) == 1)
        ;
    CHECK(n == -EPIPE || n == -ECONNRESET);
    CHECK_EQ(reeve_write(p.fd, "x", 1, LONG), -EPIPE);
    pair_close(&p);
    return 0;
}

TEST(a_broken_connection_is_an_error_and_no_signal)
{
    RUN(broken, .workers = 1);
}

/* ---- what is no socket ----------------------------------------------------------------------- */

static int pipes(void *arg)
{
    (void)arg;
    int ends[2];
    char buf[8];
    struct reeve_buf *b = NULL;
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    CHECK_EQ(reeve_write(ends[1], "pipe", 4, LONG), 4);
    CHECK_EQ(reeve_read(ends[0], buf, sizeof buf, LONG), 4);
    CHECK_MEM_EQ(buf, "pipe", 4);
    CHECK_EQ(reeve_write(ends[1], "lease", 5, LONG), 5);
    CHECK_EQ(reeve_buf_recv(ends[0], &b, LONG), 5);
    CHECK_MEM_EQ(b->data, "lease", 5);
    CHECK_EQ(reeve_buf_send(ends[1], b, LONG), 5);
    CHECK_EQ(reeve_read(ends[0], buf, sizeof buf, LONG), 5);
    CHECK_EQ(reeve_close(ends[1]), 0);
    CHECK_EQ(reeve_read(ends[0], buf, sizeof buf, LONG), 0);
    CHECK_EQ(reeve_buf_recv(ends[0], &b, LONG), 0);
    CHECK_EQ(reeve_close(ends[0]), 0);
    return 0;
}

TEST(a_pipe_is_read_and_written_like_a_socket)
{
    RUN(pipes, .workers = 1);
}

static int broken_pipe(void *arg)
{
    (void)arg;
    if (!my_io()->io->caps.rwf_nosignal)
        SKIP("this kernel raises SIGPIPE for a broken pipe, whoever asks");
    int ends[2];
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    close(ends[0]);
    CHECK_EQ(reeve_write(ends[1], "x", 1, LONG), -EPIPE);
    close(ends[1]);
    return 0;
}

TEST(a_broken_pipe_is_an_error_and_no_signal)
{
    RUN(broken_pipe, .workers = 1);
}

static int full_pipe(void *arg)
{
    (void)arg;
    int ends[2];
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    struct writing w = { ends[1], 'p', 1 << 20, 0, LONG };
    reeve_task *t;
    static char buf[4096];
    CHECK_EQ(reeve_spawn(&t, write_letters, &w), 0);
    for (size_t at = 0; at < w.len;) {
        ssize_t n = reeve_read(ends[0], buf, sizeof buf, LONG);
        CHECK_GT(n, 0);
        at += (size_t)n;
    }
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(w.result, 1 << 20);
    CHECK_EQ(reeve_close(ends[0]), 0);
    CHECK_EQ(reeve_close(ends[1]), 0);
    return 0;
}

TEST(a_write_larger_than_a_pipe_goes_through_in_pieces)
{
    RUN(full_pipe, .workers = 1);
}

static int files(void *arg)
{
    (void)arg;
    int fd = memfd_create("rw_test", MFD_CLOEXEC);
    char buf[16];
    CHECK_EQ(reeve_write(fd, "one two", 7, LONG), 7);
    CHECK_EQ(reeve_write(fd, " three", 6, LONG), 6);
    CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
    CHECK_EQ(reeve_read(fd, buf, 4, LONG), 4);
    CHECK_EQ(reeve_read(fd, buf, sizeof buf, LONG), 9);
    CHECK_MEM_EQ(buf, "two three", 9);
    CHECK_EQ(reeve_read(fd, buf, sizeof buf, LONG), 0);
    CHECK_EQ(reeve_close(fd), 0);
    uint64_t count = 3;
    fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    CHECK_EQ(reeve_read(fd, &count, sizeof count, SOON), -ETIMEDOUT);
    CHECK_EQ(reeve_write(fd, &count, sizeof count, LONG), 8);
    count = 0;
    CHECK_EQ(reeve_read(fd, &count, sizeof count, LONG), 8);
    CHECK_EQ(count, 3);
    CHECK_EQ(reeve_close(fd), 0);
    return 0;
}

TEST(files_are_read_and_written_at_their_position)
{
    RUN(files, .workers = 1);
}

static int foreign_socket(void *arg)
{
    (void)arg;
    int ends[2];
    char buf[8];
    struct reeve_buf *b = NULL;
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    CHECK_EQ(reeve_write(ends[1], "hello", 5, LONG), 5);
    CHECK_EQ(reeve_buf_recv(ends[0], &b, LONG), 5);
    CHECK_MEM_EQ(b->data, "hello", 5);
    CHECK_EQ(reeve_buf_recv(ends[0], &b, SOON) == -ETIMEDOUT, true);
    CHECK_EQ(reeve_buf_send(ends[0], b, LONG), 5);
    CHECK_EQ(reeve_read(ends[1], buf, sizeof buf, LONG), 5);
    CHECK_EQ(reeve_read(ends[1], buf, sizeof buf, SOON), -ETIMEDOUT);
    CHECK_EQ(rv_fd_slot(ends[0])->stream == NULL, true);
    close(ends[1]);
    CHECK_EQ(reeve_write(ends[0], "x", 1, LONG), -EPIPE);
    CHECK_EQ(reeve_buf_recv(ends[0], &b, LONG), 0);
    CHECK_EQ(reeve_close(ends[0]), 0);
    return 0;
}

TEST(a_socket_from_elsewhere_is_read_without_reading_ahead)
{
    RUN(foreign_socket, .workers = 1);
    RUN(foreign_socket, .workers = 1, .bufs = 1);
}

static int nothing(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    char c;
    CHECK_EQ(reeve_read(p.fd, &c, 0, LONG), 0);
    CHECK_EQ(reeve_write(p.fd, &c, 0, LONG), 0);
    pair_close(&p);
    return 0;
}

TEST(nothing_is_read_and_written_at_once)
{
    RUN(nothing, .workers = 1);
}
