/* SPDX-License-Identifier: MIT */
/*
 * addr.h -- addresses as people write them, without asking a name server.
 */
#ifndef RV_IO_ADDR_H
#define RV_IO_ADDR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

struct rv_io_driver;

#define RV_ADDR_NAME_MAX 253 /* the longest name that DNS can carry */

/* What an address says: which kind of socket, and where. */
struct rv_addr {
    int type;       /* SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET */
    socklen_t len;  /* of `to`; 0: it is a name, and somebody has to be asked for its numbers */
    uint16_t port;  /* of a name */
    struct sockaddr_storage to;
    char name[RV_ADDR_NAME_MAX + 1]; /* "": none */
};

/* Takes an address apart; it never waits. Understood are
 *     127.0.0.1:80  [::1]:80  [fe80::1%eth0]:80  localhost:80 (127.0.0.1)  *:80 (listening only)
 *     example.org:80       not when listening: a name
 *     udp:...              datagrams to each of these
 *     unix:/run/x  unixgram:x  unixpacket:x      a path, as long as sun_path has room for
 *     unix:@x  unix:@      a name that is no file; any free one (listening only)
 * "*" is every address of this machine: [::], on which the listener must turn IPV6_V6ONLY off to
 * serve IPv4 as well, or 0.0.0.0 where the kernel has no IPv6. Port 0, "any free one", is for
 * listening only; so is "@" alone. `listening` is also for sockets that are bound to receive.
 *
 * 0; -EINVAL: malformed (no port, a port past 65535, "*" or port 0 when not listening, no path,
 * anything left over); -ENAMETOOLONG: the path; -EAFNOSUPPORT: a name, when listening; -ENODEV:
 * there is no such interface. *ret is untouched on failure. Any thread. */
int rv_addr_read(const char *text, bool listening, struct rv_addr *ret);

/* The same for TCP alone: -EAFNOSUPPORT for names and for every other kind. */
int rv_addr_parse(const char *text, bool listening, struct sockaddr_storage *ret,
                  socklen_t *ret_len);

/* Back to words, "127.0.0.1:80" "[::1]:80" "unix:/run/x" "unix:@x" (a socket without a name:
 * "unix:"), with a 0 at the end. Their length; -ENOSPC: cap is too small; -EAFNOSUPPORT, -EINVAL:
 * it is no such address. Any thread. */
int rv_addr_text(const struct sockaddr *addr, socklen_t len, char *ret_text, size_t cap);

/* Makes a socket with the options that every socket of ours has, and binds it to an address that
 * has numbers; listens if backlog > 0. The fd or -errno. A socket file of nobody is replaced: see
 * addr_bind.c. Any thread. */
int rv_addr_bind(const struct rv_io_driver *driver, const struct rv_addr *a, int backlog);

#endif
