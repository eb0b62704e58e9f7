/* SPDX-License-Identifier: MIT */
/*
 * names.h -- name lookups that a test plays: which answer, when, and how often it was asked for.
 *
 *     play_names((struct played){ .host = "slow.test", .gated = true, .addr = { "::1" } });
 *     ...                                 // in a task; lookups of slow.test stop at the gate
 *     open_gate();
 *
 * A host that was not played is 127.0.0.1. Nothing here touches the network.
 */
#ifndef TESTS_IO_NAMES_H
#define TESTS_IO_NAMES_H

#include "io/resolve.h"
#include "tests/io/pair.h"

enum { PLAYED_MAX = 16, PLAYED_ADDRS = 40 };

struct played {
    const char *host;
    const char *addr[PLAYED_ADDRS]; /* in the order of preference */
    int error;                      /* the answer, if there are none */
    int64_t ttl_ns;                 /* 0: it does not tell; < 0: 0 */
    bool gated;                     /* the lookup stops until the gate opens */
    RV_ATOMIC(uint32_t) inside, calls;
};

static struct {
    struct played name[PLAYED_MAX];
    unsigned n;
    pthread_mutex_t lock;
    pthread_cond_t opened;
    bool open; /* under the lock */
    RV_ATOMIC(uint32_t) calls;
    RV_ATOMIC(int64_t) now_ns; /* the cache's clock, see played_now() */
} play = { .lock = PTHREAD_MUTEX_INITIALIZER, .opened = PTHREAD_COND_INITIALIZER };

static inline void add_address(struct rv_names *names, const char *text)
{
    struct sockaddr_storage to = { .ss_family = strchr(text, ':') ? AF_INET6 : AF_INET };
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&to;
    struct sockaddr_in *in = (struct sockaddr_in *)&to;
    void *where = to.ss_family == AF_INET ? (void *)&in->sin_addr : (void *)&in6->sin6_addr;
    CHECK_EQ(inet_pton(to.ss_family, text, where), 1);
    rv_names_add(names, (struct sockaddr *)&to);
}

static inline struct played *played_host(const char *host)
{
    for (unsigned i = 0; i < play.n; i++)
        if (strcmp(play.name[i].host, host) == 0)
            return &play.name[i];
    return NULL;
}

static inline void stop_at_gate(struct played *p)
{
    pthread_mutex_lock(&play.lock);
    rv_add_relaxed(&p->inside, 1u);
    while (!play.open)
        pthread_cond_wait(&play.opened, &play.lock);
    rv_sub_relaxed(&p->inside, 1u);
    pthread_mutex_unlock(&play.lock);
}

/* A rv_lookup_fn. */
static inline int played_lookup(const char *host, struct rv_names *ret)
{
    struct played *p = played_host(host);
    rv_add_relaxed(&play.calls, 1u);
    if (!p) {
        add_address(ret, "127.0.0.1");
        return 0;
    }
    rv_add_relaxed(&p->calls, 1u);
    if (p->gated)
        stop_at_gate(p);
    for (unsigned i = 0; i < PLAYED_ADDRS && p->addr[i]; i++)
        add_address(ret, p->addr[i]);
    if (p->ttl_ns)
        ret->ttl_ns = p->ttl_ns > 0 ? p->ttl_ns : 0;
    return p->addr[0] ? 0 : p->error;
}

/* Before any task asks. */
static inline struct played *play_name(const struct played *name)
{
    CHECK_LT(play.n, PLAYED_MAX);
    memcpy(&play.name[play.n], name, sizeof *name);
    return &play.name[play.n++];
}
#define PLAY(...) play_name(&(struct played){ __VA_ARGS__ })

static inline void set_gate(bool open)
{
    pthread_mutex_lock(&play.lock);
    play.open = open;
    pthread_cond_broadcast(&play.opened);
    pthread_mutex_unlock(&play.lock);
}

static inline int64_t played_now(void)
{
    return rv_load_relaxed(&play.now_ns);
}

/* The resolver of the calling task's runtime, which plays from now on. */
static inline struct rv_resolver *playing(void)
{
    struct rv_resolver *r = my_io()->io->resolver;
    r->lookup = played_lookup;
    return r;
}

/* Lets others run until so many lookups of that name stand at the gate. */
static inline void await_inside(struct played *p, uint32_t n)
{
    while (rv_load_relaxed(&p->inside) != n)
        CHECK_OK(reeve_sleep(0));
}

/* The same until a counter of the resolver has come so far. */
static inline void await_count(RV_ATOMIC(uint64_t) *counter, uint64_t n)
{
    while (rv_load_relaxed(counter) < n)
        CHECK_OK(reeve_sleep(0));
}

/* As a dial does it. */
static inline int resolve(const char *host, struct rv_names *ret, reeve_time until)
{
    uint32_t was;
    struct rv_io_worker *iw = rv_io_enter("resolve", &was);
    int r = rv_resolve(iw->io->resolver, host, ret, until);
    rv_io_exit(was);
    return r;
}

#endif
