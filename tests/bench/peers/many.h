/* SPDX-License-Identifier: MIT */
/*
 * many.h -- room for many datagrams in one call, for the UDP echo servers.
 */
#ifndef TESTS_BENCH_PEERS_MANY_H
#define TESTS_BENCH_PEERS_MANY_H

#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum { MANY = 64, MANY_BYTES = 2048 };

struct many {
    struct mmsghdr msgs[MANY];
    struct iovec pieces[MANY];
    struct sockaddr_storage from[MANY];
    unsigned char bytes[MANY][MANY_BYTES];
};

/** Everything as a receiver wants it. */
static inline void many_reset(struct many *m)
{
    for (int i = 0; i < MANY; i++) {
        m->pieces[i] = (struct iovec){ m->bytes[i], MANY_BYTES };
        m->msgs[i].msg_hdr = (struct msghdr){
            .msg_name = &m->from[i], .msg_namelen = sizeof m->from[i],
            .msg_iov = &m->pieces[i], .msg_iovlen = 1,
        };
    }
}

/** The first n, which were received, as a sender wants them. */
static inline void many_turn(struct many *m, int n)
{
    for (int i = 0; i < n; i++) {
        m->pieces[i].iov_len = m->msgs[i].msg_len;
        m->msgs[i].msg_hdr.msg_flags = 0;
    }
}

#endif
