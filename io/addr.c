/* SPDX-License-Identifier: MIT */
/*
 * addr.c -- from "host:port" or "unix:/path" to a socket address, without asking a name server, and
 * back.
 *
 * (1) The whole text is accounted for: host, colon, port, end. What is left over is an error, never
 *     ignored: a server must not listen somewhere its administrator did not write.
 * (2) Nothing is guessed. Short IPv4 forms ("127.1"), octal digits, an IPv6 address without its
 *     brackets and service names are refused.
 * (3) A path always ends with its 0 inside sun_path, though the kernel would do without: what reads
 *     the address back with string functions must not run on.
 *
 * Threads: any.
 */
#include "io/addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/un.h>
#include <unistd.h>

struct parts {
    char host[RV_ADDR_NAME_MAX + 1];
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
    if (len == 0 || len > RV_ADDR_NAME_MAX || *end != ':')
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

static void store(const void *addr, size_t len, struct rv_addr *ret)
{
    memcpy(&ret->to, addr, len);
    ret->len = (socklen_t)len;
}

static int read_inet(const char *text, bool listening, struct rv_addr *ret)
{
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
            store(&addr, sizeof addr, ret);
        return e;
    }
    if (parts.bracketed)
        return -EINVAL; /* brackets are for IPv6 */
    struct sockaddr_in addr;
    if ((e = parse_ipv4(&parts, &addr)) == 0)
        store(&addr, sizeof addr, ret);
    if (e != -EAFNOSUPPORT || listening)
        return e;
    strcpy(ret->name, parts.host);
    ret->port = parts.port;
    return 0;
}

static int read_unix(const char *path, bool listening, struct rv_addr *ret)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    size_t len = strlen(path), head = offsetof(struct sockaddr_un, sun_path);
    bool abstract = path[0] == '@';
    if (len == 0 || (abstract && len == 1 && !listening))
        return -EINVAL;
    if (len > sizeof un.sun_path - 1) /* (3) */
        return -ENAMETOOLONG;
    memcpy(un.sun_path, path, len);
    if (abstract)
        un.sun_path[0] = '\0';
    if (abstract && len == 1) /* the family alone: the kernel chooses */
        store(&un, head, ret);
    else
        store(&un, head + len + !abstract, ret);
    return 0;
}

int rv_addr_read(const char *text, bool listening, struct rv_addr *ret)
{
    static const struct {
        const char *prefix;
        int type;
        int (*read)(const char *text, bool listening, struct rv_addr *ret);
    } kinds[] = {
        { "unix:", SOCK_STREAM, read_unix },
        { "unixgram:", SOCK_DGRAM, read_unix },
        { "unixpacket:", SOCK_SEQPACKET, read_unix },
        { "udp:", SOCK_DGRAM, read_inet },
        { "", SOCK_STREAM, read_inet },
    };
    size_t kind = 0;
    while (strncmp(text, kinds[kind].prefix, strlen(kinds[kind].prefix)) != 0)
        kind++;
    struct rv_addr a = { .type = kinds[kind].type };
    int e = kinds[kind].read(text + strlen(kinds[kind].prefix), listening, &a);
    if (e == 0)
        *ret = a;
    return e;
}

int rv_addr_parse(const char *text, bool listening, struct sockaddr_storage *ret,
                  socklen_t *ret_len)
{
    struct rv_addr a = { .type = SOCK_STREAM };
    if (strncmp(text, "unix:", 5) == 0 || strncmp(text, "udp:", 4) == 0)
        return -EAFNOSUPPORT;
    int e = read_inet(text, listening, &a);
    if (e < 0 || a.len == 0)
        return e < 0 ? e : -EAFNOSUPPORT;
    *ret = a.to;
    *ret_len = a.len;
    return 0;
}

/* ---- back to words --------------------------------------------------------------------------- */

#define TEXT_MAX 128 /* the longest is "unix:" and a whole sun_path */

static int text_of_ipv4(const struct sockaddr_in *in, char *text)
{
    char host[INET_ADDRSTRLEN];
    inet_ntop(AF_INET, &in->sin_addr, host, sizeof host);
    return snprintf(text, TEXT_MAX, "%s:%u", host, ntohs(in->sin_port));
}

static int text_of_ipv6(const struct sockaddr_in6 *in6, char *text)
{
    char host[INET6_ADDRSTRLEN], name[IF_NAMESIZE], zone[IF_NAMESIZE + 16] = "";
    unsigned index = in6->sin6_scope_id;
    int before = errno;
    inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof host);
    if (index != 0 && if_indextoname(index, name))
        snprintf(zone, sizeof zone, "%%%s", name);
    else if (index != 0)
        snprintf(zone, sizeof zone, "%%%u", index);
    errno = before;
    return snprintf(text, TEXT_MAX, "[%s%s]:%u", host, zone, ntohs(in6->sin6_port));
}

/* What is not to be printed in a name that is no file shows as '?'. */
static int text_of_unix(const struct sockaddr_un *un, size_t path_len, char *text)
{
    char path[sizeof un->sun_path + 1] = "";
    memcpy(path, un->sun_path, path_len);
    if (path_len > 0 && path[0] == '\0') {
        path[0] = '@';
        for (size_t i = 1; i < path_len; i++)
            if (path[i] < ' ' || path[i] > '~')
                path[i] = '?';
    }
    return snprintf(text, TEXT_MAX, "unix:%s", path);
}

int rv_addr_text(const struct sockaddr *addr, socklen_t len, char *ret_text, size_t cap)
{
    char text[TEXT_MAX];
    size_t head = offsetof(struct sockaddr_un, sun_path);
    int family = len >= sizeof addr->sa_family ? addr->sa_family : -1, n = -EINVAL;
    if (family == AF_INET && len >= sizeof(struct sockaddr_in))
        n = text_of_ipv4((const struct sockaddr_in *)addr, text);
    else if (family == AF_INET6 && len >= sizeof(struct sockaddr_in6))
        n = text_of_ipv6((const struct sockaddr_in6 *)addr, text);
    else if (family == AF_UNIX && len >= head && len <= sizeof(struct sockaddr_un))
        n = text_of_unix((const struct sockaddr_un *)addr, len - head, text);
    else if (family != AF_INET && family != AF_INET6 && family != AF_UNIX && family >= 0)
        n = -EAFNOSUPPORT;
    if (n >= 0 && (size_t)n >= cap)
        return -ENOSPC;
    if (n >= 0)
        memcpy(ret_text, text, (size_t)n + 1);
    return n;
}
