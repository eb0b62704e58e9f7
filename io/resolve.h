/* SPDX-License-Identifier: MIT */
/*
 * resolve.h -- from a host's name to its addresses, which a thread of the offload pool finds out.
 *
 *     struct rv_names names;
 *     int r = rv_resolve(io->resolver, "example.org", &names, until);   // a task; it may wait
 *     for (uint32_t i = 0; r >= 0 && i < names.n; i++) ... names.host[i] ...
 */
#ifndef RV_IO_RESOLVE_H
#define RV_IO_RESOLVE_H

#include <netdb.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "io/addr.h"
#include "mem/lock.h"
#include "mem/rv_atomic.h"

struct rv_entry;
struct rv_sched;

#define RV_NAMES_MAX 16u     /* addresses of one name that are of interest */
#define RV_RESOLVER_BUCKETS 256u

/* An address without a port. */
struct rv_host {
    uint16_t family;         /* AF_INET, AF_INET6 */
    uint16_t rank;           /* its place if every address of both families were taken */
    uint32_t scope;          /* of a link-local IPv6 address */
    unsigned char bytes[16]; /* as in the packet; of IPv4 the first 4 */
};

/* What a name means: addresses in the order in which they are to be tried. */
struct rv_names {
    uint32_t n;
    uint32_t seen[2];        /* so many were added: of the first one's family, of the other */
    int64_t ttl_ns;          /* how long this is true; < 0: nobody said */
    struct rv_host host[RV_NAMES_MAX];
};

static inline void rv_names_init(struct rv_names *names)
{
    *names = (struct rv_names){ .ttl_ns = -1 };
}

/* Adds an address, called in the order of preference. Families take turns, beginning with the first
 * one's (RFC 8305, section 4), and beyond RV_NAMES_MAX the last ones of that order fall off; so a
 * name with very many addresses of one family keeps those of the other. What is neither IPv4 nor
 * IPv6 is left out. */
void rv_names_add(struct rv_names *names, const struct sockaddr *addr);

/* With a port, as the kernel wants it; its length. */
socklen_t rv_host_sockaddr(const struct rv_host *host, uint16_t port, struct sockaddr_storage *ret);

/* Asks whoever knows, on a thread that it may block. 0: *ret_names, which rv_names_init() has
 * prepared, has one address at least; else, and *ret_names is of no interest: -ENOENT: there is no
 * such name, or it has no address; -EAGAIN: no name server answers; -EREMOTEIO: one says that it
 * failed; -ENOMEM, -EMFILE and the like: it could not be asked. */
typedef int rv_lookup_fn(const char *host, struct rv_names *ret_names);

/* By the host's own means, getaddrinfo(3): it honours /etc/hosts and nsswitch.conf, and does not
 * tell how long its answer is true. */
int rv_lookup_libc(const char *host, struct rv_names *ret_names);
/* What its errors mean to us, with the errno that belongs to EAI_SYSTEM. */
int rv_lookup_error(int eai, int error);

#ifdef RV_CARES
/* By the c-ares library, which knows how long its answers are true, and gives up by itself. */
int rv_lookup_cares(const char *host, struct rv_names *ret_names);
/* The same from other name servers, "127.0.0.1:5353,..."; NULL: those of the system. */
int rv_lookup_cares_from(const char *servers, const char *host, struct rv_names *ret_names);
#endif

struct rv_resolver {
    struct rv_sched *sched;
    /* Tests set these before the first call. */
    rv_lookup_fn *lookup;
    int64_t (*now)(void);    /* the cache's clock */
    int64_t ttl_ns;          /* where the answer does not tell */
    int64_t negative_ns;     /* how long there is no such name */
    uint32_t known_max;      /* names in the cache that nobody uses */
    uint32_t asked_max;      /* lookups at a time; 0: half of the pool's threads */

    struct rv_lock lock;     /* guards what follows */
    bool starting;           /* somebody gives lookups to the pool */
    uint32_t asked;          /* lookups that the pool has */
    uint32_t known;
    struct rv_entry *line_first, *line_last;   /* lookups that wait for others to end */
    struct rv_entry *known_first, *known_last; /* nobody uses them: the latest used first */
    struct rv_entry *bucket[RV_RESOLVER_BUCKETS];

    /* Written under the lock, read by anyone. */
    RV_ATOMIC(uint64_t) lookups; /* begun */
    RV_ATOMIC(uint64_t) hits;    /* answered from the cache */
    RV_ATOMIC(uint64_t) shared;  /* waited for a lookup that somebody else had asked for */
};

/* The scheduler's offload pool is used, if it has one when a name is asked for. 0 or -ENOMEM. */
int rv_resolver_create(struct rv_resolver **ret_r, struct rv_sched *s);
/* The pool has been finished, and no task waits. NULL is fine. */
void rv_resolver_destroy(struct rv_resolver *r);

/* The addresses of a host (at most RV_ADDR_NAME_MAX long, in lower case) for the running task, in
 * reeve code. Many who ask for one name share one lookup, each by its own deadline. A deadline that
 * has passed still gets what is in the cache. The worker may have changed.
 *
 * 0; what rv_lookup_fn says; -ETIMEDOUT, -ECANCELED, -ENOMEM; -ENOTSUP: there is no offload pool;
 * -EAGAIN: it could not make a thread; -ESHUTDOWN: it is being finished. */
int rv_resolve(struct rv_resolver *r, const char *host, struct rv_names *ret, int64_t deadline);

#endif
