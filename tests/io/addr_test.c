/* SPDX-License-Identifier: MIT */
/*
 * addr_test.c -- addresses as people write them: what is taken, what is refused, and why; and back
 * to words.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "io/addr.h"
#include "tests/io/seccomp.h"

/* The address as numbers and port, "::1 80", or the error. */
static const char *parse(const char *text, bool listening)
{
    static char words[INET6_ADDRSTRLEN + 40];
    struct sockaddr_storage addr;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)&addr;
    struct sockaddr_in *four = (struct sockaddr_in *)&addr;
    char host[INET6_ADDRSTRLEN];
    socklen_t len;
    int e = rv_addr_parse(text, listening, &addr, &len);
    if (e < 0) {
        snprintf(words, sizeof words, "%s", strerrorname_np(-e));
    } else if (addr.ss_family == AF_INET6) {
        CHECK_EQ(len, sizeof *six);
        inet_ntop(AF_INET6, &six->sin6_addr, host, sizeof host);
        snprintf(words, sizeof words, "%s %u", host, ntohs(six->sin6_port));
    } else {
        CHECK_EQ(addr.ss_family, AF_INET);
        CHECK_EQ(len, sizeof *four);
        inet_ntop(AF_INET, &four->sin_addr, host, sizeof host);
        snprintf(words, sizeof words, "%s %u", host, ntohs(four->sin_port));
    }
    return words;
}

struct line {
    const char *text, *dialed, *listened;
};

static void check_line(const char *text, bool listening, const char *expected)
{
    const char *got = parse(text, listening);
    if (strcmp(got, expected) != 0)
        check_failed(__FILE__, __LINE__, "\"%s\", %s: %s, not %s", text,
                     listening ? "listening" : "dialing", got, expected);
}

static void check_lines(const struct line *lines, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        check_line(lines[i].text, false, lines[i].dialed);
        check_line(lines[i].text, true, lines[i].listened);
    }
}

#define CHECK_LINES(lines) check_lines(lines, sizeof(lines) / sizeof *(lines))

TEST(numeric_addresses_are_understood)
{
    static const struct line lines[] = {
        { "127.0.0.1:80", "127.0.0.1 80", "127.0.0.1 80" },
        { "0.0.0.0:65535", "0.0.0.0 65535", "0.0.0.0 65535" },
        { "255.255.255.255:1", "255.255.255.255 1", "255.255.255.255 1" },
        { "10.0.0.1:00080", "10.0.0.1 80", "10.0.0.1 80" },
        { "[::1]:80", "::1 80", "::1 80" },
        { "[::]:443", ":: 443", ":: 443" },
        { "[2001:db8::7]:8080", "2001:db8::7 8080", "2001:db8::7 8080" },
        { "[::ffff:1.2.3.4]:5", "::ffff:1.2.3.4 5", "::ffff:1.2.3.4 5" },
        { "localhost:7000", "127.0.0.1 7000", "127.0.0.1 7000" },
        { "LocalHost:7000", "127.0.0.1 7000", "127.0.0.1 7000" },
    };
    CHECK_LINES(lines);
}

TEST(port_zero_is_for_listening_only)
{
    static const struct line lines[] = {
        { "127.0.0.1:0", "EINVAL", "127.0.0.1 0" },
        { "[::1]:0", "EINVAL", "::1 0" },
        { "localhost:000", "EINVAL", "127.0.0.1 0" },
    };
    CHECK_LINES(lines);
}

TEST(malformed_addresses_are_refused)
{
    static const struct line lines[] = {
        { "", "EINVAL", "EINVAL" },
        { ":", "EINVAL", "EINVAL" },
        { ":80", "EINVAL", "EINVAL" },
        { "80", "EINVAL", "EINVAL" },
        { "127.0.0.1", "EINVAL", "EINVAL" },
        { "127.0.0.1:", "EINVAL", "EINVAL" },
        { "127.0.0.1:65536", "EINVAL", "EINVAL" },
        { "127.0.0.1:99999", "EINVAL", "EINVAL" },
        { "127.0.0.1:4294967376", "EINVAL", "EINVAL" },
        { "127.0.0.1:-1", "EINVAL", "EINVAL" },
        { "127.0.0.1:+80", "EINVAL", "EINVAL" },
        { "127.0.0.1: 80", "EINVAL", "EINVAL" },
        { "127.0.0.1:80 ", "EINVAL", "EINVAL" },
        { " 127.0.0.1:80", "EINVAL", "EINVAL" },
        { "127.0.0.1:80x", "EINVAL", "EINVAL" },
        { "127.0.0.1:0x50", "EINVAL", "EINVAL" },
        { "127.0.0.1:http", "EINVAL", "EINVAL" },
        { "127.0.0.1:80:90", "EINVAL", "EINVAL" },
        { "127.0.0.1:80\n", "EINVAL", "EINVAL" },
        { "127.1:80", "EINVAL", "EINVAL" },
        { "256.0.0.1:80", "EINVAL", "EINVAL" },
        { "127.0.0.1.5:80", "EINVAL", "EINVAL" },
        { "127.0.0.01:80", "EINVAL", "EINVAL" },
        { "2130706433:80", "EINVAL", "EINVAL" },
        { "::1:80", "EINVAL", "EINVAL" },
        { "[::1]", "EINVAL", "EINVAL" },
        { "[::1]80", "EINVAL", "EINVAL" },
        { "[::1:80", "EINVAL", "EINVAL" },
        { "[]:80", "EINVAL", "EINVAL" },
        { "[", "EINVAL", "EINVAL" },
        { "[::1]]:80", "EINVAL", "EINVAL" },
        { "[[::1]]:80", "EINVAL", "EINVAL" },
        { "[::1::]:80", "EINVAL", "EINVAL" },
        { "[:::]:80", "EINVAL", "EINVAL" },
        { "[127.0.0.1]:80", "EINVAL", "EINVAL" },
        { "[*]:80", "EINVAL", "EINVAL" },
        { "[localhost]:80", "EINVAL", "EINVAL" },
        { "[::1%]:80", "EINVAL", "EINVAL" },
        { "**:80", "EINVAL", "EINVAL" },
        { "a b:80", "EINVAL", "EINVAL" },
        { "exa\xc3\xa4mple:80", "EINVAL", "EINVAL" },
        { "example.com:", "EINVAL", "EINVAL" },
        { "example.com:70000", "EINVAL", "EINVAL" },
        { "http://example.com:80", "EINVAL", "EINVAL" },
    };
    CHECK_LINES(lines);
}

TEST(names_and_other_kinds_of_sockets_are_not_supported)
{
    static const struct line lines[] = {
        { "example.com:80", "EAFNOSUPPORT", "EAFNOSUPPORT" },
        { "db-1_x:5432", "EAFNOSUPPORT", "EAFNOSUPPORT" },
        { "localhost.:80", "EAFNOSUPPORT", "EAFNOSUPPORT" },
        { "1.2.3.4.example:80", "EAFNOSUPPORT", "EAFNOSUPPORT" },
        { "unix:/run/x", "EAFNOSUPPORT", "EAFNOSUPPORT" },
        { "unix:", "EAFNOSUPPORT", "EAFNOSUPPORT" },
        { "udp:127.0.0.1:53", "EAFNOSUPPORT", "EAFNOSUPPORT" },
    };
    CHECK_LINES(lines);
}

TEST(every_length_up_to_absurd_ones_is_handled)
{
    for (size_t len = 1; len < 2000; len += 1 + (len > 260) * len / 9) {
        char *text = malloc(len + 4);
        CHECK(text);
        memset(text, 'a', len);
        memcpy(text + len, ":80", 4);
        CHECK_STR_EQ(parse(text, true), len <= 253 ? "EAFNOSUPPORT" : "EINVAL");
        memset(text, ':', len);
        text[0] = '[';
        CHECK_STR_EQ(parse(text, true), "EINVAL");
        memset(text, '8', len + 3);
        memcpy(text, "1:", 2);
        CHECK_STR_EQ(parse(text, true), "EINVAL");
        free(text);
    }
}

TEST(a_star_listens_on_every_address_of_both_families)
{
    CHECK_STR_EQ(parse("*:80", false), "EINVAL");
    struct sockaddr_storage addr;
    socklen_t len;
    CHECK_OK(rv_addr_parse("*:0", true, &addr, &len));
    if (addr.ss_family != AF_INET6)
        SKIP("this kernel has no IPv6");
    CHECK_STR_EQ(parse("*:80", true), ":: 80");

    int off = 0, door = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_OK(setsockopt(door, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off));
    CHECK_OK(bind(door, (struct sockaddr *)&addr, len));
    CHECK_OK(listen(door, 1));
    CHECK_OK(getsockname(door, (struct sockaddr *)&addr, &len));

    char text[32];
    snprintf(text, sizeof text, "localhost:%u", ntohs(((struct sockaddr_in6 *)&addr)->sin6_port));
    CHECK_OK(rv_addr_parse(text, false, &addr, &len));
    int client = socket(addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_OK(connect(client, (struct sockaddr *)&addr, len));
    close(client);
    close(door);
}

TEST(a_star_falls_back_to_ipv4_where_there_is_no_ipv6)
{
    seccomp_refuse(__NR_socket, AF_INET6, EAFNOSUPPORT);
    CHECK_EQ(socket(AF_INET6, SOCK_STREAM, 0), -1);
    errno = EXDEV;
    CHECK_STR_EQ(parse("*:80", true), "0.0.0.0 80");
    CHECK_EQ(errno, EXDEV);
}

TEST(a_zone_names_an_interface_by_name_or_number)
{
    struct sockaddr_storage addr;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)&addr;
    socklen_t len;
    char name[IF_NAMESIZE], text[64];
    if (!if_indextoname(1, name))
        SKIP("there is no interface number 1");
    snprintf(text, sizeof text, "[fe80::1%%%s]:80", name);
    CHECK_OK(rv_addr_parse(text, false, &addr, &len));
    CHECK_EQ(six->sin6_scope_id, 1);
    CHECK_OK(rv_addr_parse("[fe80::1%7]:80", false, &addr, &len));
    CHECK_EQ(six->sin6_scope_id, 7);
    CHECK_STR_EQ(parse("[fe80::1%no-such-one]:80", false), "ENODEV");
    CHECK_STR_EQ(parse("[fe80::1%0]:80", false), "ENODEV");
    CHECK_STR_EQ(parse("[fe80::1%99999999999]:80", false), "EINVAL");
}

TEST(outputs_are_untouched_on_failure)
{
    struct sockaddr_storage addr, before;
    socklen_t len = 4711;
    memset(&addr, 0x5a, sizeof addr);
    before = addr;
    static const char *const bad[] = {
        "x", "*:0", "a:80", "[::1%no-such-one]:80", "[1.2.3.4]:80", "127.0.0.1:65536", "unix:x"
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK_LT(rv_addr_parse(bad[i], false, &addr, &len), 0);
        CHECK_EQ(len, 4711);
        CHECK_MEM_EQ(&addr, &before, sizeof addr);
    }
}

/* ---- other kinds ----------------------------------------------------------------------------- */

/* What rv_addr_read makes of it: its kind and words, or the error. */
static const char *readout(const char *text, bool listening)
{
    static char words[400];
    static const char *const kinds[] = { "?", "stream", "dgram", "?", "?", "seqpacket" };
    struct rv_addr a;
    int e = rv_addr_read(text, listening, &a);
    if (e < 0) {
        snprintf(words, sizeof words, "%s", strerrorname_np(-e));
        return words;
    }
    int n = snprintf(words, sizeof words, "%s ", kinds[a.type]);
    if (a.len == 0)
        snprintf(words + n, sizeof words - (size_t)n, "name %s %u", a.name, a.port);
    else
        CHECK_OK(rv_addr_text((struct sockaddr *)&a.to, a.len, words + n, 256));
    return words;
}

static void check_readouts(const struct line *lines, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        CHECK_STR_EQ(readout(lines[i].text, false), lines[i].dialed);
        CHECK_STR_EQ(readout(lines[i].text, true), lines[i].listened);
    }
}

TEST(the_kind_of_socket_stands_in_front)
{
    static const struct line lines[] = {
        { "127.0.0.1:80", "stream 127.0.0.1:80", "stream 127.0.0.1:80" },
        { "udp:127.0.0.1:53", "dgram 127.0.0.1:53", "dgram 127.0.0.1:53" },
        { "udp:[::1]:53", "dgram [::1]:53", "dgram [::1]:53" },
        { "udp:localhost:53", "dgram 127.0.0.1:53", "dgram 127.0.0.1:53" },
        { "udp:127.0.0.1:0", "EINVAL", "dgram 127.0.0.1:0" },
        { "udp:127.0.0.1", "EINVAL", "EINVAL" },
        { "udp:", "EINVAL", "EINVAL" },
        { "udp:udp:1", "dgram name udp 1", "EAFNOSUPPORT" },
        { "unix:/run/x", "stream unix:/run/x", "stream unix:/run/x" },
        { "unix:x", "stream unix:x", "stream unix:x" },
        { "unix:./@x", "stream unix:./@x", "stream unix:./@x" },
        { "unix:@x y", "stream unix:@x y", "stream unix:@x y" },
        { "unixgram:/run/x", "dgram unix:/run/x", "dgram unix:/run/x" },
        { "unixpacket:@x", "seqpacket unix:@x", "seqpacket unix:@x" },
        { "unix:@", "EINVAL", "stream unix:" },
        { "unixgram:@", "EINVAL", "dgram unix:" },
        { "unix:", "EINVAL", "EINVAL" },
    };
    check_readouts(lines, sizeof lines / sizeof *lines);
}

TEST(a_name_to_be_asked_for_comes_with_its_port_and_is_not_for_listening)
{
    static const struct line lines[] = {
        { "example.org:80", "stream name example.org 80", "EAFNOSUPPORT" },
        { "udp:db-1_x:5432", "dgram name db-1_x 5432", "EAFNOSUPPORT" },
        { "example.org:0", "EINVAL", "EAFNOSUPPORT" },
        { "example.org:http", "EINVAL", "EINVAL" },
        { "[example.org]:80", "EINVAL", "EINVAL" },
    };
    check_readouts(lines, sizeof lines / sizeof *lines);
}

TEST(a_path_that_does_not_fit_is_too_long_and_not_cut)
{
    struct sockaddr_un un;
    char text[300];
    struct rv_addr a;
    for (size_t len = 1; len < 250; len++) {
        for (int at = 0; at < 2; at++) {
            int n = snprintf(text, sizeof text, "unix:%c", at ? '@' : '/');
            memset(text + n, 'p', len);
            text[(size_t)n + len] = '\0';
            int e = rv_addr_read(text, false, &a);
            CHECK_EQ(e, len + 1 < sizeof un.sun_path ? 0 : -ENAMETOOLONG);
            if (e == 0)
                CHECK_EQ(a.len, offsetof(struct sockaddr_un, sun_path) + len + 1 + !at);
        }
    }
}

TEST(what_was_read_is_untouched_on_failure)
{
    struct rv_addr a, before;
    memset(&a, 0x5a, sizeof a);
    before = a;
    static const char *const bad[] = { "x", "udp:*:0", "unix:", "unix:@", "[::1]", "a:b", "a:0" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK_LT(rv_addr_read(bad[i], false, &a), 0);
        CHECK_MEM_EQ(&a, &before, sizeof a);
    }
}

/* ---- back to words --------------------------------------------------------------------------- */

TEST(every_address_comes_back_as_it_was_written)
{
    static const char *const texts[] = { "127.0.0.1:80",          "0.0.0.0:0",  "[::]:0",
                                         "[fe80::1%4000000]:443", "unix:/a b",  "unix:@x",
                                         "[2001:db8::7]:65535",   "unix:rel/x", "unix:~" };
    char words[128];
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct rv_addr a;
        CHECK_OK(rv_addr_read(texts[i], true, &a));
        size_t len = strlen(texts[i]);
        const struct sockaddr *to = (const struct sockaddr *)&a.to;
        CHECK_EQ(rv_addr_text(to, a.len, words, sizeof words), len);
        CHECK_STR_EQ(words, texts[i]);
        CHECK_EQ(rv_addr_text(to, a.len, words, len + 1), len);
        memset(words, 0x5a, sizeof words);
        CHECK_EQ(rv_addr_text(to, a.len, words, len), -ENOSPC);
        CHECK_EQ(words[0], 0x5a);
    }
}

TEST(addresses_that_are_none_have_no_words)
{
    struct sockaddr_storage a = { .ss_family = AF_NETLINK };
    struct sockaddr *any = (struct sockaddr *)&a;
    struct sockaddr_un *un = (struct sockaddr_un *)&a;
    char words[128];
    CHECK_EQ(rv_addr_text(any, sizeof a, words, sizeof words), -EAFNOSUPPORT);
    a.ss_family = AF_INET;
    CHECK_EQ(rv_addr_text(any, sizeof(struct sockaddr_in) - 1, words, sizeof words), -EINVAL);
    a.ss_family = AF_INET6;
    CHECK_EQ(rv_addr_text(any, sizeof(struct sockaddr_in6) - 1, words, sizeof words), -EINVAL);
    CHECK_EQ(rv_addr_text(any, 0, words, sizeof words), -EINVAL);
    CHECK_EQ(rv_addr_text(any, 1, words, sizeof words), -EINVAL);
    a.ss_family = AF_UNIX;
    CHECK_EQ(rv_addr_text(any, sizeof *un + 1, words, sizeof words), -EINVAL);
    CHECK_OK(rv_addr_text(any, sizeof(sa_family_t), words, sizeof words));
    CHECK_STR_EQ(words, "unix:");
    memset(un->sun_path, 'x', sizeof un->sun_path); /* the kernel does without the 0 */
    CHECK_EQ(rv_addr_text(any, sizeof *un, words, sizeof words), 5 + sizeof un->sun_path);
    memcpy(un->sun_path, "\0a\0\nb", 5);
    CHECK_OK(rv_addr_text(any, offsetof(struct sockaddr_un, sun_path) + 5, words, sizeof words));
    CHECK_STR_EQ(words, "unix:@a??b");
}
