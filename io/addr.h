/* SPDX-License-Identifier: MIT */
/*
 * addr.h -- addresses as people write them, without asking a name server.
 */
#ifndef RV_IO_ADDR_H
#define RV_IO_ADDR_H

#include <stdbool.h>
#include <sys/socket.h>

/* Turns text into a socket address; it never waits. Understood are
 *     127.0.0.1:80  [::1]:80  [fe80::1%eth0]:80  localhost:80 (127.0.0.1)  *:80 (listening only)
 * "*" is every address of this machine: [::], on which the listener must turn IPV6_V6ONLY off to
 * serve IPv4 as well, or 0.0.0.0 where the kernel has no IPv6. Port 0, "any free one", is for
 * listening only.
 *
 * 0; -EINVAL: malformed (no port, a port past 65535, "*" or port 0 when not listening, anything
 * left over); -EAFNOSUPPORT: a name, or a "unix:" or "udp:" address; -ENODEV: there is no such
 * interface. *ret and *ret_len are untouched on failure. Any thread. */
int rv_addr_parse(const char *text, bool listening, struct sockaddr_storage *ret,
                  socklen_t *ret_len);

#endif
