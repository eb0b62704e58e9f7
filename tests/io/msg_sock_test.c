/* SPDX-License-Identifier: MIT */
/*
 * msg_sock_test.c -- sockets of every kind: made, connected, shut down; and addresses as a program
 * uses them.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <reeve/socket.h>
#include <sys/resource.h>

#include "tests/io/names.h"
#include "tests/io/pair.h"


static int next_fd(void)
{
    int fd = dup(0);
    CHECK_GE(fd, 0);
    close(fd);
    return fd;
}

TEST(a_bound_socket_needs_no_runtime)
{
    int fd = (int)CHECK_OK(reeve_bind("udp:127.0.0.1:0"));
    CHECK_NE(address_of(fd).sin_port, 0);
    CHECK_EQ(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    CHECK_EQ(reeve_close(fd), 0);
}

TEST(what_cannot_be_bound_says_why_and_leaves_no_descriptor)
{
    char text[200] = "unixgram:/", port[48];
    int next = next_fd();
    memset(text + 10, 'p', 107);
    CHECK_EQ(reeve_bind(text), -ENAMETOOLONG);
    CHECK_EQ(reeve_bind("127.0.0.1:0"), -EINVAL); /* connections */
    CHECK_EQ(reeve_bind("unix:@x"), -EINVAL);
    CHECK_EQ(reeve_bind("unixpacket:@x"), -EINVAL);
    CHECK_EQ(reeve_bind("udp:127.0.0.1"), -EINVAL);
    CHECK_EQ(reeve_bind("udp:example.org:53"), -EAFNOSUPPORT);
    CHECK_EQ(reeve_bind("unixgram:/no/such/place"), -ENOENT);
    CHECK_EQ(reeve_bind("udp:192.0.2.1:0"), -EADDRNOTAVAIL);
    CHECK_EQ(next_fd(), next);
    int fd = (int)CHECK_OK(reeve_bind("udp:127.0.0.1:0"));
    snprintf(port, sizeof port, "udp:127.0.0.1:%u", ntohs(address_of(fd).sin_port));
    CHECK_EQ(reeve_bind(port), -EADDRINUSE);
    CHECK_EQ(reeve_close(fd), 0);
}

TEST(a_pair_comes_whole_or_not_at_all)
{
    int fds[2] = { 4711, 4711 }, next = next_fd();
    CHECK_EQ(reeve_socket_pair(SOCK_RAW, fds), -EINVAL);
    CHECK_EQ(fds[0], 4711);
    struct rlimit old, few;
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
    few = (struct rlimit){ (rlim_t)next + 1, old.rlim_max };
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
    CHECK_EQ(reeve_socket_pair(SOCK_STREAM, fds), -EMFILE);
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
    CHECK_EQ(next_fd(), next);
    CHECK_EQ(fds[1], 4711);
    CHECK_EQ(reeve_socket_pair(SOCK_DGRAM, fds), 0);
    CHECK_EQ(reeve_close(fds[0]), 0);
    CHECK_EQ(reeve_close(fds[1]), 0);
}

/* ---- Unix connections ------------------------------------------------------------------------ */

static void converse(const char *addr, bool borders)
{
    char buf[16];
    int listener = (int)CHECK_OK(reeve_listen(addr, 0));
    int a = (int)CHECK_OK(reeve_dial(addr, LONG)), b = (int)CHECK_OK(reeve_accept(listener, LONG));
    CHECK_EQ(fcntl(a, F_GETFD) & fcntl(b, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    CHECK_EQ(reeve_write(a, "one", 3, LONG), 3);
    CHECK_EQ(reeve_write(a, "two", 3, LONG), 3);
    if (borders) {
        CHECK_EQ(reeve_recvfrom(b, buf, sizeof buf, NULL, NULL, LONG), 3);
        CHECK_EQ(reeve_recvfrom(b, buf, 2, NULL, NULL, LONG), -EMSGSIZE);
    } else {
        read_exactly(b, buf, 6);
        CHECK_MEM_EQ(buf, "onetwo", 6);
    }
    CHECK_EQ(reeve_write(b, "back", 4, LONG), 4);
    CHECK_EQ(reeve_read(a, buf, sizeof buf, LONG), 4);
    CHECK_EQ(reeve_socket_shutdown(a, SHUT_WR), 0);
    CHECK_EQ(reeve_read(b, buf, sizeof buf, LONG), 0);
    CHECK_EQ(reeve_write(b, "late", 4, LONG), 4);
    CHECK_EQ(reeve_read(a, buf, sizeof buf, LONG), 4);
    CHECK_EQ(reeve_close(b), 0);
    CHECK_EQ(reeve_read(a, buf, sizeof buf, LONG), 0);
    CHECK_EQ(reeve_close(a), 0);
    CHECK_EQ(reeve_close(listener), 0);
}

static int unix_connections(void *arg)
{
    (void)arg;
    char dir[] = "/tmp/reeve-sock-XXXXXX", text[64];
    CHECK(mkdtemp(dir));
    for (int again = 0; again < 2; again++) { /* the second time the file is there */
        snprintf(text, sizeof text, "unix:%s/socket", dir);
        converse(text, false);
        snprintf(text, sizeof text, "unixpacket:%s/socket", dir);
        converse(text, true);
    }
    snprintf(text, sizeof text, "unix:@%s", dir);
    converse(text, false);
    snprintf(text, sizeof text, "%s/socket", dir);
    CHECK_EQ(unlink(text), 0);
    CHECK_EQ(rmdir(dir), 0);
    return 0;
}

TEST(unix_connections_work_as_those_of_tcp)
{
    RUN(unix_connections, .workers = 1);
    RUN(unix_connections, .workers = 2);
}

static int dialled(void *arg)
{
    (void)arg;
    char buf[8], text[48];
    int a = (int)CHECK_OK(reeve_bind("udp:127.0.0.1:0"));
    snprintf(text, sizeof text, "udp:127.0.0.1:%u", ntohs(address_of(a).sin_port));
    int b = (int)CHECK_OK(reeve_dial(text, LONG));
    CHECK_EQ(fcntl(b, F_GETFD), FD_CLOEXEC);
    CHECK_EQ(reeve_sendto(b, "hi", 2, NULL, 0, LONG), 2);
    CHECK_EQ(reeve_recvfrom(a, buf, sizeof buf, NULL, NULL, LONG), 2);
    CHECK_EQ(reeve_dial("unixgram:/no/such/socket", LONG), -ENOENT);
    CHECK_EQ(reeve_close(a), 0);
    CHECK_EQ(reeve_close(b), 0);
    return 0;
}

TEST(a_datagram_socket_can_be_dialled)
{
    RUN(dialled, .workers = 1);
}

static int dial_refused(void *arg)
{
    (void)arg;
    char dir[] = "/tmp/reeve-sock-XXXXXX", text[64], buf[4];
    CHECK(mkdtemp(dir));
    snprintf(text, sizeof text, "unix:%s/socket", dir);
    CHECK_EQ(reeve_dial(text, LONG), -ENOENT);
    CHECK_EQ(reeve_close((int)CHECK_OK(reeve_listen(text, 0))), 0);
    CHECK_EQ(reeve_dial(text, LONG), -ECONNREFUSED);
    CHECK_EQ(reeve_dial("unix:@", LONG), -EINVAL);
    CHECK_EQ(unlink(text + 5), 0);
    CHECK_EQ(rmdir(dir), 0);
    int fds[2];
    CHECK_EQ(reeve_socket_pair(SOCK_STREAM, fds), 0);
    CHECK_EQ(reeve_write(fds[0], "pair", 4, LONG), 4);
    CHECK_EQ(reeve_read(fds[1], buf, 4, LONG), 4);
    CHECK_EQ(reeve_close(fds[0]), 0);
    CHECK_EQ(reeve_write(fds[1], "pair", 4, LONG), -EPIPE); /* and no signal */
    CHECK_EQ(reeve_close(fds[1]), 0);
    return 0;
}

TEST(a_unix_socket_without_its_other_side_says_so)
{
    RUN(dial_refused, .workers = 1);
}

/* ---- the end --------------------------------------------------------------------------------- */

static int shut(void *arg)
{
    (void)arg;
    int fds[2], ends[2], alone = (int)CHECK_OK(reeve_listen("127.0.0.1:0", 0));
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    struct pair p = pair_make();
    CHECK_EQ(reeve_socket_shutdown(-1, SHUT_WR), -EBADF);
    CHECK_EQ(reeve_socket_shutdown(900, SHUT_WR), -EBADF);
    CHECK_EQ(reeve_socket_shutdown(ends[0], SHUT_WR), -ENOTSOCK);
    CHECK_EQ(reeve_socket_shutdown(p.fd, 9), -EINVAL);
    int udp = (int)CHECK_OK(reeve_bind("udp:127.0.0.1:0"));
    CHECK_EQ(reeve_socket_shutdown(udp, SHUT_WR), -ENOTCONN);
    CHECK_EQ(reeve_socket_pair(SOCK_SEQPACKET, fds), 0);
    CHECK_EQ(reeve_socket_shutdown(fds[0], SHUT_RDWR), 0);
    CHECK_EQ(reeve_sendto(fds[0], "x", 1, NULL, 0, LONG), -EPIPE);
    CHECK_EQ(reeve_close(fds[0]), 0);
    CHECK_EQ(reeve_close(fds[1]), 0);
    CHECK_EQ(reeve_close(udp), 0);
    CHECK_EQ(reeve_close(alone), 0);
    CHECK_EQ(reeve_socket_shutdown(alone, SHUT_WR), -EBADF);
    pair_close(&p);
    close(ends[0]);
    close(ends[1]);
    return 0;
}

TEST(a_shutdown_that_cannot_be_says_why)
{
    RUN(shut, .workers = 1);
}

static int read_end(void *arg)
{
    char buf[4];
    return (int)reeve_read(*(int *)arg, buf, sizeof buf, LONG);
}

static int reader_shut(void *arg)
{
    (void)arg;
    struct pair p = pair_make();
    int result = 1;
    reeve_task *t;
    CHECK_OK(reeve_spawn(&t, read_end, &p.fd));
    await_waiter(p.fd, A_READER);
    CHECK_EQ(reeve_socket_shutdown(p.fd, SHUT_RD), 0);
    CHECK_EQ(reeve_join(t, &result, LONG), 0);
    CHECK_EQ(result, 0);
    pair_close(&p);
    return 0;
}

TEST(shutting_the_reading_side_ends_its_reader)
{
    RUN(reader_shut, .workers = 1);
    RUN(reader_shut, .workers = 2);
}

/* ---- addresses ------------------------------------------------------------------------------- */

TEST(an_address_is_parsed_and_written_without_a_runtime)
{
    struct sockaddr_storage to, before;
    socklen_t len = 4711;
    char text[64];
    memset(&to, 0x5a, sizeof to);
    before = to;
    CHECK_EQ(reeve_addr_parse("udp:example.org:53", &to, &len), -EAFNOSUPPORT);
    CHECK_EQ(reeve_addr_parse("udp:*:53", &to, &len), -EINVAL);
    CHECK_EQ(len, 4711);
    CHECK_MEM_EQ(&to, &before, sizeof to);
    CHECK_EQ(reeve_addr_parse("udp:[::1]:53", &to, &len), 0);
    CHECK_EQ(len, sizeof(struct sockaddr_in6));
    CHECK_EQ(reeve_addr_text((struct sockaddr *)&to, len, text, sizeof text), 8);
    CHECK_STR_EQ(text, "[::1]:53");
}

/* ---- names ----------------------------------------------------------------------------------- */

static int by_name(void *arg)
{
    (void)arg;
    char addr[64], buf[16];
    struct sockaddr_storage to = { 0 }, from;
    socklen_t len = 0, from_len = sizeof from;
    playing()->now = played_now; /* what was asked for stays known */
    PLAY(.host = "both.test", .addr = { "::1", "127.0.0.1" });
    PLAY(.host = "six.test", .addr = { "::1" });
    PLAY(.host = "none.test", .error = -ENOENT);
    int server = (int)CHECK_OK(reeve_bind("udp:127.0.0.1:0"));
    int client = (int)CHECK_OK(reeve_bind("udp:127.0.0.1:0"));
    snprintf(addr, sizeof addr, "udp:Both.TEST:%u", ntohs(address_of(server).sin_port));
    CHECK_EQ(reeve_addr_lookup(addr, AF_INET, &to, &len, LONG), 0);
    CHECK_EQ(len, sizeof(struct sockaddr_in));
    CHECK_EQ(reeve_sendto(client, "ping", 4, (struct sockaddr *)&to, len, LONG), 4);
    CHECK_EQ(reeve_recvfrom(server, buf, sizeof buf, &from, &from_len, LONG), 4);
    CHECK_EQ(((struct sockaddr_in *)&from)->sin_port, address_of(client).sin_port);
    CHECK_EQ(reeve_addr_lookup(addr, AF_UNSPEC, &to, &len, REEVE_POLL), 0); /* known already */
    CHECK_EQ(to.ss_family, AF_INET6);
    CHECK_EQ(len, sizeof(struct sockaddr_in6));
    CHECK_EQ(reeve_addr_lookup("six.test:1", AF_INET, &to, &len, LONG), -EAFNOSUPPORT);
    CHECK_EQ(reeve_addr_lookup("none.test:1", AF_INET, &to, &len, LONG), -ENOENT);
    CHECK_EQ(reeve_addr_lookup("none.test", AF_INET, &to, &len, LONG), -EINVAL);
    CHECK_EQ(reeve_addr_lookup("new.test:1", AF_INET, &to, &len, REEVE_POLL), -ETIMEDOUT);
    CHECK_EQ(to.ss_family, AF_INET6); /* untouched */
    CHECK_EQ(reeve_addr_lookup("udp:127.0.0.1:7", AF_INET6, &to, &len, LONG), -EAFNOSUPPORT);
    CHECK_EQ(reeve_addr_lookup("udp:127.0.0.1:7", AF_INET, &to, &len, REEVE_POLL), 0);
    CHECK_EQ(((struct sockaddr_in *)&to)->sin_port, htons(7));
    CHECK_EQ(reeve_close(server), 0);
    CHECK_EQ(reeve_close(client), 0);
    return 0;
}

TEST(datagrams_are_sent_to_a_host_by_its_name)
{
    RUN(by_name, .workers = 1);
}

static int dialled_by_name(void *arg)
{
    (void)arg;
    char addr[64], buf[16];
    struct sockaddr_storage from;
    socklen_t from_len = sizeof from;
    playing();
    /* To a broadcast address the kernel knows no way for such a socket. */
    PLAY(.host = "first.test", .addr = { "255.255.255.255", "127.0.0.1" });
    PLAY(.host = "nowhere.test", .addr = { "255.255.255.255" });
    int server = (int)CHECK_OK(reeve_bind("udp:127.0.0.1:0")), next = next_fd();
    snprintf(addr, sizeof addr, "udp:first.test:%u", ntohs(address_of(server).sin_port));
    int fd = (int)CHECK_OK(reeve_dial(addr, LONG));
    CHECK_EQ(reeve_write(fd, "ping", 4, LONG), 4);
    CHECK_EQ(reeve_recvfrom(server, buf, sizeof buf, &from, &from_len, LONG), 4);
    CHECK_EQ(reeve_sendto(server, "pong!", 5, (struct sockaddr *)&from, from_len, LONG), 5);
    CHECK_EQ(reeve_read(fd, buf, sizeof buf, LONG), 5);
    CHECK_EQ(reeve_close(fd), 0);
    CHECK_EQ(reeve_dial("udp:nowhere.test:1", LONG), -EACCES);
    CHECK_EQ(reeve_dial("unknown.test:1", REEVE_POLL), -ETIMEDOUT);
    CHECK_EQ(next_fd(), next);
    CHECK_EQ(reeve_close(server), 0);
    return 0;
}

TEST(a_name_is_dialled_for_datagrams_at_the_first_address_that_can_be_reached)
{
    RUN(dialled_by_name, .workers = 1);
    play.n = 0;
    RUN(dialled_by_name, .workers = 2);
}

/* A link-local address on the loopback interface, to which there is no way, then one that is
 * refused to us. */
static int no_way_then_refused(const char *host, struct rv_names *ret)
{
    struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_scope_id = 1 };
    (void)host;
    CHECK_EQ(inet_pton(AF_INET6, "fe80::1", &in6.sin6_addr), 1);
    rv_names_add(ret, (struct sockaddr *)&in6);
    add_address(ret, "255.255.255.255");
    return 0;
}

static int says_most(void *arg)
{
    (void)arg;
    int alone = reeve_dial("udp:[fe80::1%1]:9", LONG);
    my_io()->io->resolver->lookup = no_way_then_refused;
    if (alone != -ENETUNREACH && alone != -EAFNOSUPPORT && alone != -EADDRNOTAVAIL)
        SKIP("there is a way to link-local addresses on the loopback interface");
    CHECK_EQ(reeve_dial("udp:refused.test:9", LONG), -EACCES);
    return 0;
}

TEST(of_datagram_addresses_that_fail_the_error_that_tells_of_the_other_side_is_said)
{
    RUN(says_most, .workers = 1);
}
