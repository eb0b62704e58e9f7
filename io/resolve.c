/* SPDX-License-Identifier: MIT */
/*
 * resolve.c -- names: asked once, by a thread that may block, for all who want to know.
 *
 * A lookup cannot be bounded: getaddrinfo returns when it likes. So it belongs to nobody. It lives
 * in an entry on the heap, of which there is one for each name; who wants the name is in the
 * entry's list of waiters, with a deadline of his own, and leaves it whenever he must. What becomes
 * of a lookup that everybody has left goes into the cache.
 *
 *     (none) -> IDLE    [find_or_add]  nothing is known
 *     IDLE   -> LINED   [line_up]      somebody waits; nothing is known, or it is too old
 *     LINED  -> ASKED   [start_some]   the pool has it
 *     LINED  -> (none)  [settle]       all have left before it was asked; or IDLE
 *     ASKED  -> IDLE    [finish]       answered, or the pool failed
 *     IDLE   -> (none)  [settle]       nobody uses it, and it is not worth keeping or one too many
 *
 * (1) An entry is freed when it is IDLE and has no users. Users are those who wait and those who
 *     were woken and have not read the answer yet. So finish() lets go of the entry before it wakes
 *     them: who has the answer finds the cache tidied up.
 * (2) A waiter lies on its task's stack. It is linked and unlinked under the lock; who unlinks it
 *     to wake it takes the token along and does not touch it again.
 * (3) The answer changes under the lock, as a whole. Who was woken may find a newer one than he was
 *     woken for, never a part.
 * (4) At most half of the pool's threads look names up: when no name server answers, the other half
 *     still serves the rest of the program. So abandoned lookups are bounded too, and the entries
 *     are, by that, the waiting tasks and known_max.
 * (5) One thread at a time gives lookups to the pool, and looks for more before it stops. A pool
 *     that cannot make a thread fails a lookup inside rv_offload_start(), and what follows from
 *     that must not nest.
 *
 * The two families come in one answer, with getaddrinfo and with c-ares alike. So there is nothing
 * to wait for when one is there and the other is not (RFC 8305's resolution delay).
 *
 * Threads: resolve - a task; ask, answered - a thread of the pool, the latter perhaps a task's;
 * create, destroy - one.
 */
#include "io/resolve.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>

#include "mem/alloc.h"
#include "mem/die.h"
#include "sched/clock.h"
#include "sched/offload.h"
#include "sched/wait.h"

#define TTL_NS (30 * REEVE_SEC)
#define TTL_MAX_NS (300 * REEVE_SEC) /* a name server's word is not trusted for longer */
#define NEGATIVE_NS (1 * REEVE_SEC)
#define KNOWN_MAX 256u

/* A task that waits, on its stack; or the head of a list of those. */
struct waiter {
    struct waiter *next, *prev; /* a circle; NULL: it is in no list */
    uint64_t token;
    uint32_t home;
};

enum entry_state { IDLE, LINED, ASKED };

struct rv_entry {
    struct rv_entry *chain;       /* in its bucket */
    struct rv_entry *next, *prev; /* LINED: in the line; IDLE without users: among the known */
    struct rv_resolver *r;
    enum entry_state state;
    uint32_t hash;
    uint32_t users; /* see (1) */
    struct waiter waiters;
    int error;              /* the answer: 0, and the names; or -errno */
    int64_t expires;        /* by the resolver's clock; 0: it is known to nobody */
    struct rv_names names;
    struct rv_offload_job job;
    int asked_error;        /* the lookup's, while it is ASKED */
    struct rv_names asked;
    char name[RV_ADDR_NAME_MAX + 1];
};

/* ---- answers --------------------------------------------------------------------------------- */

static bool take_apart(const struct sockaddr *addr, struct rv_host *ret)
{
    *ret = (struct rv_host){ .family = addr->sa_family };
    if (addr->sa_family == AF_INET) {
        memcpy(ret->bytes, &((const struct sockaddr_in *)(const void *)addr)->sin_addr, 4);
    } else if (addr->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const void *)addr;
        memcpy(ret->bytes, &in6->sin6_addr, 16);
        ret->scope = in6->sin6_scope_id;
    } else {
        return false;
    }
    return true;
}

void rv_names_add(struct rv_names *names, const struct sockaddr *addr)
{
    struct rv_host host;
    if (!take_apart(addr, &host))
        return;
    bool other = names->n > 0 && host.family != names->host[0].family;
    uint32_t rank = 2 * names->seen[other]++ + other;
    uint32_t at = names->n;
    while (at > 0 && names->host[at - 1].rank > rank)
        at--;
    if (at == RV_NAMES_MAX)
        return;
    uint32_t kept = names->n < RV_NAMES_MAX ? names->n : RV_NAMES_MAX - 1;
    memmove(&names->host[at + 1], &names->host[at], (kept - at) * sizeof host);
    host.rank = rank < UINT16_MAX ? (uint16_t)rank : UINT16_MAX;
    names->host[at] = host;
    names->n = kept + 1;
}

socklen_t rv_host_sockaddr(const struct rv_host *host, uint16_t port, struct sockaddr_storage *ret)
{
    *ret = (struct sockaddr_storage){ .ss_family = host->family };
    if (host->family == AF_INET) {
        struct sockaddr_in *in = (struct sockaddr_in *)ret;
        in->sin_port = htons(port);
        memcpy(&in->sin_addr, host->bytes, 4);
        return sizeof *in;
    }
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ret;
    in6->sin6_port = htons(port);
    in6->sin6_scope_id = host->scope;
    memcpy(&in6->sin6_addr, host->bytes, 16);
    return sizeof *in6;
}

int rv_lookup_error(int eai, int error)
{
    switch (eai) {
    case EAI_NONAME:
    case EAI_NODATA:
    case EAI_ADDRFAMILY:
    case EAI_FAMILY:
        return -ENOENT;
    case EAI_AGAIN:
        return -EAGAIN;
    case EAI_FAIL:
        return -EREMOTEIO;
    case EAI_MEMORY:
        return -ENOMEM;
    case EAI_SYSTEM:
        return error > 0 ? -error : -EREMOTEIO;
    default:
        return -EINVAL; /* a name that cannot be one */
    }
}

int rv_lookup_libc(const char *host, struct rv_names *ret_names)
{
    struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM }, *list;
    int eai = getaddrinfo(host, NULL, &hints, &list);
    if (eai != 0)
        return rv_lookup_error(eai, errno);
    for (const struct addrinfo *one = list; one; one = one->ai_next)
        rv_names_add(ret_names, one->ai_addr);
    freeaddrinfo(list);
    return ret_names->n > 0 ? 0 : -ENOENT;
}

/* Something that was said about the name. Anything else only says how things stand here. */
static bool is_answer(int error)
{
    return error == 0 || error == -ENOENT || error == -EAGAIN || error == -EREMOTEIO;
}

static bool is_fresh(const struct rv_resolver *r, const struct rv_entry *e)
{
    return e->expires > 0 && r->now() < e->expires;
}

static int64_t lifetime(const struct rv_resolver *r, int error, const struct rv_names *names)
{
    if (error < 0)
        return r->negative_ns;
    if (names->ttl_ns < 0)
        return r->ttl_ns;
    return names->ttl_ns < TTL_MAX_NS ? names->ttl_ns : TTL_MAX_NS;
}

/* ---- lists: under the lock ------------------------------------------------------------------- */

static void push_waiter(struct rv_entry *e, struct waiter *me)
{
    me->next = &e->waiters;
    me->prev = e->waiters.prev;
    me->prev->next = e->waiters.prev = me;
}

static void unlink_waiter(struct waiter *me)
{
    me->next->prev = me->prev;
    me->prev->next = me->next;
    me->next = NULL;
}

/* Moves all of them to a list of their own. */
static void take_waiters(struct rv_entry *e, struct waiter *ret_head)
{
    ret_head->next = ret_head->prev = ret_head;
    if (e->waiters.next == &e->waiters)
        return;
    *ret_head = e->waiters;
    ret_head->next->prev = ret_head->prev->next = ret_head;
    e->waiters.next = e->waiters.prev = &e->waiters;
}

/* Behind `before`, or to the front if that is NULL. */
static void link_entry(struct rv_entry **first, struct rv_entry **last, struct rv_entry *e,
                       struct rv_entry *before)
{
    e->prev = before;
    e->next = before ? before->next : *first;
    *(e->prev ? &e->prev->next : first) = e;
    *(e->next ? &e->next->prev : last) = e;
}

static void unlink_entry(struct rv_entry **first, struct rv_entry **last, struct rv_entry *e)
{
    *(e->prev ? &e->prev->next : first) = e->next;
    *(e->next ? &e->next->prev : last) = e->prev;
}

static void unlink_known(struct rv_resolver *r, struct rv_entry *e)
{
    unlink_entry(&r->known_first, &r->known_last, e);
    r->known--;
}

/* Out of its bucket: nobody finds it any more. */
static struct rv_entry *unhash(struct rv_resolver *r, struct rv_entry *e)
{
    struct rv_entry **at = &r->bucket[e->hash % RV_RESOLVER_BUCKETS];
    RV_ASSERT(e->users == 0 && e->state == IDLE);
    while (*at != e)
        at = &(*at)->chain;
    *at = e->chain;
    return e;
}

/* Somebody may have been the last to use it: it is kept, or not. What the caller frees once he has
 * let go of the lock; NULL: nothing. */
static struct rv_entry *settle(struct rv_resolver *r, struct rv_entry *e)
{
    if (e->users > 0 || e->state == ASKED)
        return NULL;
    if (e->state == LINED)
        unlink_entry(&r->line_first, &r->line_last, e);
    e->state = IDLE;
    if (!is_fresh(r, e))
        return unhash(r, e);
    link_entry(&r->known_first, &r->known_last, e, NULL);
    if (++r->known <= r->known_max)
        return NULL;
    e = r->known_last;
    unlink_known(r, e);
    return unhash(r, e);
}

/* ---- the lookup ------------------------------------------------------------------------------ */

/* Stores the answer and wakes those who wait for it. asked: it is one; else the pool failed. */
static void finish(struct rv_entry *e, int error, bool asked)
{
    struct rv_resolver *r = e->r;
    struct waiter head;
    rv_lock_acquire(&r->lock);
    RV_ASSERT(e->state == ASKED && r->asked > 0);
    r->asked--;
    e->state = IDLE;
    e->error = error;
    e->names = e->asked;
    bool keep = asked && is_answer(error);
    e->expires = keep ? r->now() + lifetime(r, error, &e->names) : 0;
    take_waiters(e, &head);
    struct rv_entry *dead = settle(r, e);
    while (head.next != &head) {
        uint64_t token = head.next->token;
        uint32_t home = head.next->home;
        unlink_waiter(head.next);
        rv_lock_release(&r->lock); /* (2) */
        rv_wait_fire(r->sched, NULL, token, RV_WOKEN, home);
        rv_lock_acquire(&r->lock);
    }
    rv_lock_release(&r->lock);
    rv_free(dead);
}

static int ask(void *arg)
{
    struct rv_entry *e = arg;
    rv_names_init(&e->asked);
    e->asked_error = e->r->lookup(e->name, &e->asked);
    RV_ASSERT(e->asked_error < 0 || e->asked.n > 0);
    return 0;
}

/* The next lookup for the pool, if it may have one more. Under the lock. */
static struct rv_entry *next_in_line(struct rv_resolver *r)
{
    struct rv_entry *e = r->line_first;
    const struct rv_offload *pool = r->sched->offload;
    uint32_t half = pool && pool->max > 1 ? pool->max / 2 : 1;
    if (!e || r->asked >= (r->asked_max ? r->asked_max : half))
        return NULL;
    unlink_entry(&r->line_first, &r->line_last, e);
    e->state = ASKED;
    r->asked++;
    rv_count(&r->lookups, 1);
    return e;
}

static void start_some(struct rv_resolver *r)
{
    struct rv_entry *e;
    rv_lock_acquire(&r->lock);
    if (r->starting) { /* (5) */
        rv_lock_release(&r->lock);
        return;
    }
    r->starting = true;
    while ((e = next_in_line(r)) != NULL) {
        rv_lock_release(&r->lock);
        int error = rv_offload_start(r->sched->offload, &e->job);
        if (error < 0)
            finish(e, error, false);
        rv_lock_acquire(&r->lock);
    }
    r->starting = false;
    rv_lock_release(&r->lock);
}

static void answered(struct rv_offload_job *job, int result)
{
    struct rv_entry *e = (struct rv_entry *)((char *)job - offsetof(struct rv_entry, job));
    struct rv_resolver *r = e->r;
    finish(e, result < 0 ? result : e->asked_error, result >= 0);
    start_some(r);
}

/* ---- who wants to know ----------------------------------------------------------------------- */

/* FNV-1a. */
static uint32_t hash_of(const char *name)
{
    uint32_t hash = 2166136261u;
    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * 16777619u;
    return hash;
}

static struct rv_entry *find(const struct rv_resolver *r, const char *name, uint32_t hash)
{
    struct rv_entry *e = r->bucket[hash % RV_RESOLVER_BUCKETS];
    while (e && (e->hash != hash || strcmp(e->name, name) != 0))
        e = e->chain;
    return e;
}

static struct rv_entry *make(struct rv_resolver *r, const char *name, uint32_t hash)
{
    struct rv_entry *e = rv_alloc_zero(sizeof *e);
    if (!e)
        return NULL;
    e->r = r;
    e->hash = hash;
    e->waiters.next = e->waiters.prev = &e->waiters;
    e->job = (struct rv_offload_job){ .fn = ask, .arg = e, .done = answered };
    strcpy(e->name, name);
    return e;
}

/* The entry of that name, with the lock held; NULL, and it is not: out of memory. */
static struct rv_entry *find_or_add(struct rv_resolver *r, const char *name)
{
    uint32_t hash = hash_of(name);
    rv_lock_acquire(&r->lock);
    struct rv_entry *e = find(r, name, hash);
    if (e)
        return e;
    rv_lock_release(&r->lock);
    struct rv_entry *fresh = make(r, name, hash);
    if (!fresh)
        return NULL;
    rv_lock_acquire(&r->lock);
    e = find(r, name, hash);
    if (e) { /* somebody else was faster */
        rv_free(fresh);
        return e;
    }
    fresh->chain = r->bucket[hash % RV_RESOLVER_BUCKETS];
    r->bucket[hash % RV_RESOLVER_BUCKETS] = fresh;
    /* as if it had been known: its user takes it out of there */
    link_entry(&r->known_first, &r->known_last, fresh, NULL);
    r->known++;
    return fresh;
}

/* The same as a user of it. */
static struct rv_entry *enter(struct rv_resolver *r, const char *name)
{
    struct rv_entry *e = find_or_add(r, name);
    if (!e)
        return NULL;
    if (e->users == 0 && e->state == IDLE)
        unlink_known(r, e);
    e->users++;
    return e;
}

/* Ends that, and lets go of the lock. */
static void leave(struct rv_resolver *r, struct rv_entry *e)
{
    RV_ASSERT(e->users > 0);
    e->users--;
    struct rv_entry *dead = settle(r, e);
    rv_lock_release(&r->lock);
    rv_free(dead);
}

static int read_answer(struct rv_resolver *r, struct rv_entry *e, struct rv_names *ret)
{
    int error = e->error;
    if (error >= 0)
        *ret = e->names;
    leave(r, e);
    return error;
}

/* Sees to it that the name is looked up. Under the lock. */
static void line_up(struct rv_resolver *r, struct rv_entry *e)
{
    if (e->state != IDLE) {
        rv_count(&r->shared, 1);
        return;
    }
    e->state = LINED;
    link_entry(&r->line_first, &r->line_last, e, r->line_last);
}

int rv_resolve(struct rv_resolver *r, const char *host, struct rv_names *ret, int64_t deadline)
{
    struct rv_worker *w = rv_worker_self();
    struct rv_task *t = w->cur;
    RV_ASSERT(strlen(host) <= RV_ADDR_NAME_MAX);
    int64_t until = rv_deadline(t, deadline);
    int error = rv_wait_check(r->sched, t);
    if (error < 0)
        return error;
    bool late = until != RV_NEVER && until <= rv_worker_now(w);
    struct rv_entry *e = enter(r, host);
    if (!e)
        return -ENOMEM;
    if (is_fresh(r, e)) {
        rv_count(&r->hits, 1);
        return read_answer(r, e, ret);
    }
    if (late) {
        leave(r, e);
        return -ETIMEDOUT;
    }
    struct waiter me = { .home = w->index, .token = rv_wait_arm(r->sched, t, 0) };
    push_waiter(e, &me);
    line_up(r, e);
    rv_lock_release(&r->lock);
    start_some(r);
    int why = rv_wait_park(w, t, until);
    rv_lock_acquire(&r->lock);
    if (!me.next) /* an answer beats a deadline */
        return read_answer(r, e, ret);
    unlink_waiter(&me);
    leave(r, e);
    return why == RV_TIMED_OUT ? -ETIMEDOUT : -ECANCELED;
}

/* ---- the resolver ---------------------------------------------------------------------------- */

int rv_resolver_create(struct rv_resolver **ret_r, struct rv_sched *s)
{
    struct rv_resolver *r = rv_alloc_zero(sizeof *r);
    if (!r)
        return -ENOMEM;
    r->sched = s;
#ifdef RV_CARES
    r->lookup = rv_lookup_cares;
#else
    r->lookup = rv_lookup_libc;
#endif
    r->now = rv_clock_ns;
    r->ttl_ns = TTL_NS;
    r->negative_ns = NEGATIVE_NS;
    r->known_max = KNOWN_MAX;
    *ret_r = r;
    return 0;
}

void rv_resolver_destroy(struct rv_resolver *r)
{
    if (!r)
        return;
    RV_MUST(r->asked == 0 && !r->line_first);
    while (r->known_first) {
        struct rv_entry *e = r->known_first;
        unlink_known(r, e);
        rv_free(unhash(r, e));
    }
    rv_free(r);
}
