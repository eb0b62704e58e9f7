/* SPDX-License-Identifier: MIT */
/*
 * msg_segments_test.c -- datagrams sent and received many at a time, with the kernel's help and
 * without.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <fcntl.h>
#include <netinet/udp.h>
#include <reeve/socket.h>

#include "tests/io/pair.h"


enum { SEGMENT = 100, BYTES = 20050 };

static unsigned char data[BYTES], got[1 << 16];

static int bound(struct sockaddr_in *ret_at)
{
    int fd = (int)CHECK_OK(reeve_bind("udp:127.0.0.1:0")), room = 1 << 22;
    CHECK_EQ(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room), 0);
    *ret_at = address_of(fd);
    return fd;
}

/* Receives len bytes of the pattern as single datagrams of `segment` bytes. */
static void check_datagrams(int fd, size_t len, size_t segment)
{
    for (size_t at = 0; at < len; at += segment) {
        size_t expected = len - at < segment ? len - at : segment;
        CHECK_EQ(reeve_recvfrom(fd, got, sizeof got, NULL, NULL, LONG), (ssize_t)expected);
        check_pattern(got, expected, at);
    }
    CHECK_EQ(reeve_recvfrom(fd, got, sizeof got, NULL, NULL, REEVE_POLL), -ETIMEDOUT);
}

static int cut(void *arg)
{
    (void)arg;
    struct sockaddr_in a_at, b_at;
    int a = bound(&a_at), b = bound(&b_at);
    struct sockaddr *to = (struct sockaddr *)&b_at;
    static const size_t lengths[] = { 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 6400, 6401, 12800,
                                      BYTES };
    fill_pattern(data, sizeof data, 0);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        CHECK_EQ(reeve_send_segments(a, data, lengths[i], SEGMENT, to, sizeof b_at, LONG),
                 (ssize_t)lengths[i]);
        check_datagrams(b, lengths[i], SEGMENT);
    }
    CHECK_EQ(connect(a, to, sizeof b_at), 0);
    CHECK_EQ(reeve_send_segments(a, data, BYTES, 7000, NULL, 0, LONG), BYTES);
    check_datagrams(b, BYTES, 7000);
    CHECK_EQ(reeve_send_segments(a, data, 0, SEGMENT, NULL, 0, LONG), 0);
    CHECK_EQ(reeve_send_segments(a, data, 10, 0, NULL, 0, LONG), -EINVAL);
    CHECK_EQ(reeve_send_segments(-1, data, 10, 5, NULL, 0, LONG), -EBADF);
    static char large[65600];
    CHECK_EQ(reeve_send_segments(a, large, sizeof large, 65508, NULL, 0, LONG), -EMSGSIZE);
    CHECK_EQ(reeve_close(a), 0);
    CHECK_EQ(reeve_close(b), 0);
    return 0;
}

TEST(a_long_message_leaves_as_datagrams_of_the_segments_size)
{
    RUN(cut, .workers = 1);
    RUN(cut, .workers = 2);
}

/* The kernel cuts nothing whose checksums it is told to leave out, and refuses the message. */
static int refused_to_cut(void *arg)
{
    (void)arg;
    struct sockaddr_in a_at, b_at;
    int a = bound(&a_at), b = bound(&b_at), one = 1;
    struct sockaddr *to = (struct sockaddr *)&b_at;
    CHECK_EQ(setsockopt(a, SOL_SOCKET, SO_NO_CHECK, &one, sizeof one), 0);
    fill_pattern(data, sizeof data, 0);
    CHECK_EQ(reeve_send_segments(a, data, BYTES, SEGMENT, to, sizeof b_at, LONG), BYTES);
    check_datagrams(b, BYTES, SEGMENT);
    CHECK_EQ(reeve_close(a), 0);
    CHECK_EQ(reeve_close(b), 0);
    return 0;
}

TEST(without_the_kernels_help_they_go_out_one_by_one)
{
    RUN(refused_to_cut, .workers = 1);
    RUN(refused_to_cut, .workers = 2);
}

static int other_kinds(void *arg)
{
    (void)arg;
    int fds[2];
    CHECK_EQ(reeve_socket_pair(SOCK_DGRAM, fds), 0);
    fill_pattern(data, sizeof data, 0);
    CHECK_EQ(reeve_send_segments(fds[0], data, 450, SEGMENT, NULL, 0, LONG), 450);
    for (size_t at = 0; at < 450; at += SEGMENT) {
        size_t segment = 0;
        CHECK_EQ(reeve_recv_segments(fds[1], got, sizeof got, &segment, NULL, NULL, LONG),
                 at < 400 ? SEGMENT : 50);
        CHECK_EQ(segment, at < 400 ? SEGMENT : 50);
        check_pattern(got, segment, at);
    }
    CHECK_EQ(reeve_close(fds[0]), 0);
    CHECK_EQ(reeve_close(fds[1]), 0);
    return 0;
}

TEST(datagrams_that_are_none_of_udp_are_cut_too)
{
    RUN(other_kinds, .workers = 1);
}

/* Where the size of a segment is expected there is room for one descriptor, too. */
static int with_descriptors(void *arg)
{
    (void)arg;
    int fds[2], given = open("/dev/null", O_RDONLY | O_CLOEXEC);
    size_t segment;
    CHECK_GE(given, 0);
    CHECK_EQ(reeve_socket_pair(SOCK_DGRAM, fds), 0);
    int lowest = dup(given);
    for (int i = 0; i < 2; i++)
        CHECK_EQ(reeve_fd_send(fds[0], &given, 1, "token", 5, LONG), 5);
    close(lowest);
    CHECK_EQ(reeve_recv_segments(fds[1], got, sizeof got, &segment, NULL, NULL, LONG), 5);
    CHECK_EQ(segment, 5);
    CHECK_EQ(reeve_recv_segments(fds[1], got, 4, &segment, NULL, NULL, LONG), -EMSGSIZE);
    CHECK_EQ(dup(given), lowest); /* nobody has it */
    close(lowest);
    close(given);
    CHECK_EQ(reeve_close(fds[0]), 0);
    CHECK_EQ(reeve_close(fds[1]), 0);
    return 0;
}

TEST(a_descriptor_that_comes_unasked_is_closed)
{
    RUN(with_descriptors, .workers = 1);
    RUN(with_descriptors, .workers = 2);
}

static int gathered(void *arg)
{
    (void)arg;
    struct sockaddr_in a_at, b_at;
    struct sockaddr_storage from;
    socklen_t from_len;
    int a = bound(&a_at), b = bound(&b_at), one = 1;
    struct sockaddr *to = (struct sockaddr *)&b_at;
    size_t at = 0, calls = 0;
    if (setsockopt(b, IPPROTO_UDP, UDP_GRO, &one, sizeof one) < 0)
        SKIP("this kernel has no UDP_GRO");
    fill_pattern(data, sizeof data, 0);
    CHECK_EQ(reeve_send_segments(a, data, BYTES, SEGMENT, to, sizeof b_at, LONG), BYTES);
    while (at < BYTES) {
        size_t segment = 0;
        ssize_t n = reeve_recv_segments(b, got, sizeof got, &segment, &from, &from_len, LONG);
        CHECK_GT(n, 0);
        CHECK(segment == SEGMENT || (segment == (size_t)n && at + segment == BYTES));
        CHECK_EQ(from_len, sizeof a_at);
        CHECK_MEM_EQ(&from, &a_at, sizeof a_at);
        check_pattern(got, (size_t)n, at);
        at += (size_t)n;
        calls++;
    }
    CHECK_EQ(at, BYTES);
    CHECK_LT(calls, BYTES / SEGMENT); /* some of them came together */
    CHECK_EQ(reeve_sendto(a, data, 10, to, sizeof b_at, LONG), 10);
    size_t segment = 0;
    CHECK_EQ(reeve_recv_segments(b, got, sizeof got, &segment, NULL, NULL, LONG), 10);
    CHECK_EQ(segment, 10);
    CHECK_EQ(reeve_send_segments(a, data, 300, SEGMENT, to, sizeof b_at, LONG), 300);
    segment = 4711;
    CHECK_EQ(reeve_recv_segments(b, got, 250, &segment, NULL, NULL, LONG), -EMSGSIZE);
    CHECK_EQ(segment, 4711);
    CHECK_EQ(reeve_close(a), 0);
    CHECK_EQ(reeve_close(b), 0);
    return 0;
}

TEST(datagrams_that_came_together_are_told_apart_by_their_size)
{
    RUN(gathered, .workers = 1);
    RUN(gathered, .workers = 2);
}
