/* SPDX-License-Identifier: MIT */
/*
 * msg_vec_test.c -- several pieces at once, on everything that has an fd.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <reeve/socket.h>
#include <sys/mman.h>

#include "tests/io/pair.h"

#define SOON reeve_in(2 * REEVE_MS)
#define COUNT(v) (sizeof(v) / sizeof *(v))

/* ---- what arrives ---------------------------------------------------------------------------- */

static void both_ways(int from, int to)
{
    char a[4], b[1], c[16];
    struct iovec out[] = { { "one", 3 }, { NULL, 0 }, { "twenty", 6 }, { "!", 1 } };
    struct iovec in[] = { { NULL, 0 }, { a, 4 }, { b, 1 }, { c, sizeof c } };
    CHECK_EQ(reeve_sendv(from, out, COUNT(out), LONG), 10);
    CHECK_EQ(reeve_recvv(to, in, COUNT(in), LONG), 10);
    CHECK_MEM_EQ(a, "onet", 4);
    CHECK_MEM_EQ(b, "w", 1);
    CHECK_MEM_EQ(c, "enty!", 5);
}

static int every_kind(void *arg)
{
    (void)arg;
    static const int types[] = { SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET };
    int fds[2];
    for (size_t i = 0; i < COUNT(types); i++) {
        CHECK_EQ(reeve_socket_pair(types[i], fds), 0);
        both_ways(fds[0], fds[1]);
        CHECK_EQ(reeve_close(fds[0]), 0);
        CHECK_EQ(reeve_close(fds[1]), 0);
        CHECK_EQ(socketpair(AF_UNIX, types[i], 0, fds), 0); /* not ours */
        both_ways(fds[0], fds[1]);
        close(fds[0]);
        close(fds[1]);
    }
    CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
    both_ways(fds[1], fds[0]);
    close(fds[0]);
    close(fds[1]);
    return 0;
}

TEST(pieces_arrive_in_order_over_everything_that_has_an_fd)
{
    RUN(every_kind, .workers = 1);
    RUN(every_kind, .workers = 2);
}

static int a_file(void *arg)
{
    (void)arg;
    char a[3], b[20];
    struct iovec out[] = { { "one", 3 }, { "twenty", 6 } }, in[] = { { a, 3 }, { b, 20 } };
    int file = memfd_create("vec", MFD_CLOEXEC);
    CHECK_EQ(reeve_sendv(file, out, 2, LONG), 9);
    CHECK_EQ(reeve_sendv(file, out, 1, LONG), 3); /* behind it */
    CHECK_EQ(lseek(file, 0, SEEK_SET), 0);
    CHECK_EQ(reeve_recvv(file, in, 2, LONG), 12);
    CHECK_MEM_EQ(a, "one", 3);
    CHECK_MEM_EQ(b, "twentyone", 9);
    CHECK_EQ(reeve_recvv(file, in, 2, LONG), 0);
    close(file);
    return 0;
}

TEST(a_file_is_written_and_read_at_its_position)
{
    RUN(a_file, .workers = 1);
}

/* ---- streams --------------------------------------------------------------------------------- */

/* What came in several pieces fills the places to the brim, whatever borders it came in. */
static int filled(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    static unsigned char sent[60000], got[60000];
    fill_pattern(sent, sizeof sent, 0);
    for (size_t round = 0; round < 20; round++) {
        size_t take = 1 + round * 997;
        peer_send(p.peer, sent, sizeof sent);
        for (size_t at = 0; at < sizeof sent;) {
            size_t left = sizeof sent - at, a = take < left ? take : left, b = left - a;
            struct iovec in[] = { { got + at, a }, { NULL, 0 }, { got + at + a, b } };
            ssize_t n = reeve_recvv(p.fd, in, 3, LONG);
            CHECK_GT(n, 0);
            at += (size_t)n;
        }
        check_pattern(got, sizeof got, 0);
    }
    pair_close(&p);
    return 0;
}

TEST(places_of_any_size_take_a_stream_without_a_gap)
{
    RUN(filled, .workers = 1);
    RUN(filled, .workers = 2);
}

static int only_the_first_waits(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    char a[2], b[8];
    struct iovec in[] = { { a, 2 }, { b, 8 } };
    peer_send(p.peer, "xyz", 3);
    CHECK_EQ(reeve_recvv(p.fd, in, 2, LONG), 3);
    CHECK_EQ(reeve_recvv(p.fd, in, 2, SOON), -ETIMEDOUT);
    peer_send(p.peer, "uv", 2);
    CHECK_EQ(reeve_recvv(p.fd, in, 2, LONG), 2); /* the first place is full, and that is enough */
    close(p.peer);
    p.peer = -1;
    CHECK_EQ(reeve_recvv(p.fd, in, 2, LONG), 0);
    pair_close(&p);
    return 0;
}

TEST(only_the_first_byte_is_waited_for)
{
    RUN(only_the_first_waits, .workers = 1);
    RUN(only_the_first_waits, .workers = 2);
}

enum { WRITERS = 4, ROUNDS = 40, PIECES = 100, PIECE = 300 };

struct writer {
    int fd, number;
};

static int write_vectors(void *arg)
{
    struct writer *w = arg;
    unsigned char data[PIECE];
    struct iovec v[PIECES];
    memset(data, w->number, sizeof data);
    for (int i = 0; i < PIECES; i++)
        v[i] = (struct iovec){ data, PIECE };
    for (int round = 0; round < ROUNDS; round++)
        if (round % 2)
            CHECK_EQ(reeve_sendv(w->fd, v, PIECES, LONG), PIECES * PIECE);
        else
            CHECK_EQ(reeve_write(w->fd, data, PIECE, LONG), PIECE);
    return 0;
}

/* Each run of one writer's bytes is a whole number of writes. */
static void check_runs(int fd)
{
    static unsigned char got[1 << 16];
    size_t run = 0;
    int before = -1;
    ssize_t n;
    while ((n = recv(fd, got, sizeof got, MSG_DONTWAIT)) != 0) {
        CHECK(n > 0 || errno == EAGAIN);
        for (ssize_t i = 0; i < n; i++) {
            if (got[i] != before) {
                CHECK_EQ(run % PIECE, 0);
                CHECK(run == 0 || run == PIECE || run >= PIECES * PIECE);
                before = got[i];
                run = 0;
            }
            run++;
        }
        CHECK_EQ(reeve_sleep(0), 0);
    }
    CHECK_EQ(run % PIECE, 0);
}

static int check_runs_of(void *arg)
{
    check_runs(*(int *)arg);
    return 0;
}

static int together(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    struct writer w[WRITERS];
    reeve_task *t[WRITERS], *reader;
    for (int i = 0; i < WRITERS; i++) {
        w[i] = (struct writer){ p.fd, i + 1 };
        CHECK_OK(reeve_spawn(&t[i], write_vectors, &w[i]));
    }
    CHECK_OK(reeve_spawn(&reader, check_runs_of, &p.peer));
    for (int i = 0; i < WRITERS; i++)
        CHECK_EQ(reeve_join(t[i], NULL, LONG), 0);
    CHECK_EQ(reeve_socket_shutdown(p.fd, SHUT_WR), 0);
    CHECK_EQ(reeve_join(reader, NULL, LONG), 0);
    pair_close(&p);
    return 0;
}

TEST(the_pieces_of_one_call_stay_together_among_other_writers)
{
    RUN(together, .workers = 1);
    RUN(together, .workers = 2);
}

/* ---- what is refused ------------------------------------------------------------------------- */

static int refused(void *arg)
{
    (void)arg;
    static char big[70000];
    char a[2], b[2];
    int fds[2];
    struct iovec two[] = { { a, 2 }, { b, 2 } }, many[1100], large = { big, sizeof big };
    struct iovec wrap[] = { { a, SIZE_MAX / 2 }, { b, 2 } };
    for (size_t i = 0; i < COUNT(many); i++)
        many[i] = (struct iovec){ big + i, 1 };
    struct pair p = pair_make();
    CHECK_EQ(reeve_sendv(-1, two, 2, LONG), -EBADF);
    CHECK_EQ(reeve_recvv(-1, two, 2, LONG), -EBADF);
    CHECK_EQ(reeve_sendv(900, two, 2, LONG), -EBADF);
    CHECK_EQ(reeve_recvv(900, two, 2, LONG), -EBADF);
    CHECK_EQ(reeve_sendv(p.fd, wrap, 2, LONG), -EINVAL);
    CHECK_EQ(reeve_recvv(p.fd, wrap, 2, LONG), -EINVAL);
    CHECK_EQ(reeve_sendv(p.fd, NULL, 0, LONG), 0);
    CHECK_EQ(reeve_recvv(p.fd, NULL, 0, LONG), 0);
    CHECK_EQ(reeve_sendv(p.fd, many, COUNT(many), LONG), COUNT(many)); /* more than IOV_MAX */
    CHECK_EQ(recv(p.peer, big, COUNT(many), MSG_WAITALL), COUNT(many));

    CHECK_EQ(reeve_socket_pair(SOCK_DGRAM, fds), 0);
    CHECK_EQ(reeve_sendv(fds[0], many, COUNT(many), LONG), -EMSGSIZE);
    CHECK_EQ(reeve_sendv(fds[0], &large, 1, LONG), sizeof big);
    CHECK_EQ(reeve_recvv(fds[1], two, 2, LONG), -EMSGSIZE); /* the rest is lost, and said to be */
    CHECK_EQ(reeve_sendv(fds[0], NULL, 0, LONG), 0); /* a message without bytes */
    CHECK_EQ(reeve_recvv(fds[1], two, 2, LONG), 0);
    CHECK_EQ(reeve_close(fds[0]), 0);
    CHECK_EQ(reeve_close(fds[1]), 0);
    pair_close(&p);
    return 0;
}

TEST(vectors_that_cannot_be_say_why)
{
    RUN(refused, .workers = 1);
}

static int receive_vector(void *arg)
{
    char a[2], b[2];
    struct iovec two[] = { { a, 2 }, { b, 2 } };
    return (int)reeve_recvv(*(int *)arg, two, 2, LONG);
}

static int ended_early(void *arg)
{
    (void)arg;
    int fds[2], result = 0;
    for (int kind = 0; kind < 3; kind++)
        for (int close_it = 0; close_it < 2; close_it++) {
            reeve_task *t;
            if (kind == 2)
                CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
            else
                CHECK_EQ(reeve_socket_pair(kind ? SOCK_DGRAM : SOCK_STREAM, fds), 0);
            CHECK_OK(reeve_spawn(&t, receive_vector, &fds[0]));
            await_waiter(fds[0], kind ? AN_OP : A_READER);
            if (close_it)
                CHECK_EQ(reeve_close(fds[0]), 0);
            else
                reeve_cancel(t);
            CHECK_EQ(reeve_join(t, &result, LONG), 0);
            CHECK_EQ(result, -ECANCELED);
            if (!close_it)
                CHECK_EQ(reeve_close(fds[0]), 0);
            CHECK_EQ(reeve_close(fds[1]), 0);
            await_closed(fds[0]);
        }
    return 0;
}

TEST(a_vector_that_waits_ends_with_its_task_and_its_fd)
{
    RUN(ended_early, .workers = 1);
    RUN(ended_early, .workers = 2);
}
