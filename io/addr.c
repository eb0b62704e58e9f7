/* SPDX-License-Identifier: MIT */
/*
 * addr.c -- from "host:port" to a socket address, without asking a name server.
 *
 * (1) The whole text is accounted for: host, colon, port, end. What is left over is an error, never
 *     ignored: a server must not listen somewhere its administrator did not write.
 * (2) Nothing is guessed. Short IPv4 forms ("127.1"), octal digits, an IPv6 address without its
 *     brackets and service names are refused.
 *
 * Threads: any.
 */
#include "io/addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define HOST_MAX 253 /* the longest name that DNS can carry */

struct parts {
    char host[HOST_MAX + 1];
    bool bracketed;
    uint16_t port;
};

/* One to five digits and nothing else, at most 65535. */
static int parse_port(const char *text, uint16_t *ret)
{
    unsigned port = 0;
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 5 || text[digits] != '\0')
        return -EINVAL;
    for (size_t i = 0; i < digits; i++)
        port = port * 10 + (unsigned)(text[i] - '0');
    if (port > 65535)
        return -EINVAL;
    *ret = (uint16_t)port;
    return 0;
}

/* Takes the text apart at the colon before the port. */
static int split(const char *text, struct parts *ret)
{
    ret->bracketed = text[0] == '[';
    const char *host = ret->bracketed ? text + 1 : text;
    size_t len = strcspn(host, ret->bracketed ? "]" : ":");
    const char *end = host + len;
    if (ret->bracketed && *end == ']')
        end++;
    if (len == 0 || len > HOST_MAX || *end != ':')
        return -EINVAL;
    memcpy(ret->host, host, len);
    ret->host[len] = '\0';
    return parse_port(end + 1, &ret->port);
}

/* The number of the interface in "%eth0" or "%2"; 0 for "". */
static int parse_zone(const char *zone, uint32_t *ret)
{
    uint64_t index = 0;
    if (*zone++ == '\0')
        return 0;
    size_t digits = strspn(zone, "0123456789");
    if (*zone == '\0' || digits > 9)
        return -EINVAL;
    for (size_t i = 0; i < digits; i++)
        index = index * 10 + (uint64_t)(zone[i] - '0');
    if (zone[digits] != '\0')
        index = if_nametoindex(zone);
    if (index == 0)
        return -ENODEV;
    *ret = (uint32_t)index;
    return 0;
}

static int parse_ipv6(struct parts *p, struct sockaddr_in6 *ret)
{
    struct sockaddr_in6 addr = { .sin6_family = AF_INET6, .sin6_port = htons(p->port) };
    char *zone = p->host + strcspn(p->host, "%");
    char percent = *zone;
    *zone = '\0';
    if (inet_pton(AF_INET6, p->host, &addr.sin6_addr) != 1)
        return -EINVAL;
    *zone = percent;
    int e = parse_zone(zone, &addr.sin6_scope_id);
    if (e == 0)
        *ret = addr;
    return e;
}

/* Whether this could be a name: letters, digits, '-', '_' and '.', and not all digits and dots. */
static bool is_name(const char *host)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789-_.";
    return host[strspn(host, allowed)] == '\0' && host[strspn(host, "0123456789.")] != '\0';
}

static int parse_ipv4(const struct parts *p, struct sockaddr_in *ret)
{
    struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons(p->port) };
    if (strcasecmp(p->host, "localhost") == 0)
        addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    else if (inet_pton(AF_INET, p->host, &addr.sin_addr) != 1)
        return is_name(p->host) ? -EAFNOSUPPORT : -EINVAL;
    *ret = addr;
    return 0;
}

/* A kernel may come without IPv6; any other trouble shows again, and better, when listening. */
static bool have_ipv6(void)
{
    int before = errno;
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool missing = fd < 0 && errno == EAFNOSUPPORT;
    if (fd >= 0)
        close(fd);
    errno = before;
    return !missing;
}

static void store(const void *addr, socklen_t len, struct sockaddr_storage *ret, socklen_t *ret_len)
{
    *ret = (struct sockaddr_storage){ 0 };
    memcpy(ret, addr, len);
    *ret_len = len;
}

int rv_addr_parse(const char *text, bool listening, struct sockaddr_storage *ret,
                  socklen_t *ret_len)
{
    if (strncmp(text, "unix:", 5) == 0 || strncmp(text, "udp:", 4) == 0)
        return -EAFNOSUPPORT;
    struct parts parts;
    int e = split(text, &parts);
    if (e < 0)
        return e;
    bool any = !parts.bracketed && strcmp(parts.host, "*") == 0;
    if (!listening && (any || parts.port == 0))
        return -EINVAL;
    if (any)
        strcpy(parts.host, have_ipv6() ? "::" : "0.0.0.0");

    if (strchr(parts.host, ':')) {
        struct sockaddr_in6 addr;
        if ((e = parse_ipv6(&parts, &addr)) == 0)
            store(&addr, sizeof addr, ret, ret_len);
    } else if (!parts.bracketed) {
        struct sockaddr_in addr;
        if ((e = parse_ipv4(&parts, &addr)) == 0)
            store(&addr, sizeof addr, ret, ret_len);
    } else {
        e = -EINVAL; /* brackets are for IPv6 */
    }
    return e;
}
