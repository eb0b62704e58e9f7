/* SPDX-License-Identifier: MIT */
/*
 * cache_flight.c -- the flights of a cache.
 *
 * (1) A flight is in the list of its key's head while others may join it, under the shard's lock;
 *     and in that of all flights until it is retired, under the cache's, by which destroy finds
 *     those that it has to cancel.
 * (2) Loads that wait for loads. A task of a flight, its load's or one below it, that waits for
 *     another flight is an edge between the two; an edge that would close a circle is -EDEADLK
 *     instead. The flight of a task is found among its owners, which outlive it; a flight lands
 *     only when all tasks of its load are done. Circles that lead through another cache, or through
 *     tasks that the load only talks to, are not seen.
 * (3) An edge outlives the flight that it leads to by as long as the task takes that waited; so who
 *     retires a flight blanks the edges to it.
 *
 * Threads: any, with the locks that are named.
 */
#include "runtime/cache_flight.h"

#include <string.h>

#include "mem/alloc.h"
#include "mem/die.h"
#include "sched/scope.h"

/* So far up a task looks for the load that it belongs to. */
enum { OWNERS_MAX = 256 };

const char rv_flight_task[] = "cache load";

/* ---- flights by key: under the shard's lock -------------------------------------------------- */

static struct rv_flight **head_of(struct rv_cache_shard *sh, uint64_t hash)
{
    return &sh->flights[hash % RV_FLIGHT_HEADS];
}

static bool is_for(const struct rv_flight *f, const struct rv_key *key)
{
    const struct rv_key *own = &f->e->in.key;
    return own->hash == key->hash && own->len == key->len &&
           (key->len == 0 || memcmp(own->data, key->data, key->len) == 0);
}

void rv_flight_unlist(struct rv_cache_shard *sh, struct rv_flight *f)
{
    struct rv_flight **at = head_of(sh, f->e->in.key.hash);
    while (*at != f)
        at = &(*at)->next;
    *at = f->next;
    f->listed = false;
}

void rv_cache_detach(struct rv_cache_shard *sh, const struct rv_key *key)
{
    for (struct rv_flight *f = *head_of(sh, key->hash); f != NULL; f = f->next)
        if (is_for(f, key)) {
            rv_flight_unlist(sh, f);
            return;
        }
}

struct rv_flight *rv_flight_find(struct reeve_cache *c, struct rv_cache_shard *sh,
                                 const struct rv_key *key)
{
    struct rv_flight *f = *head_of(sh, key->hash);
    while (f != NULL && !is_for(f, key))
        f = f->next;
    if (f == NULL || f->e->gen == rv_load_acquire(&c->gen))
        return f;
    rv_flight_unlist(sh, f); /* what it brings is not wanted any more */
    return NULL;
}

/* ---- our tasks, under the cache's lock ------------------------------------------------------- */

void rv_cache_begin(struct reeve_cache *c)
{
    rv_lock_acquire(&c->lock);
    c->busy++;
    rv_lock_release(&c->lock);
}

void rv_cache_over(struct reeve_cache *c)
{
    struct rv_sched *s = c->sched;
    rv_lock_acquire(&c->lock);
    RV_ASSERT(c->busy > 0);
    uint64_t waiter = --c->busy == 0 ? c->waiter : 0;
    rv_lock_release(&c->lock); /* the cache may be gone */
    if (waiter != 0) {
        struct rv_worker *w = rv_worker_self();
        rv_wait_fire(s, w != NULL && w->sched == s ? w : NULL, waiter, RV_WOKEN, UINT32_MAX);
    }
}

/* The lock is held. Loads that have not started yet will find `cancelling`. */
static void cancel_all(struct reeve_cache *c)
{
    c->cancelling = true;
    for (struct rv_flight *f = c->flights; f != NULL; f = f->next_all)
        if (f->task != NULL)
            rv_cancel(c->sched, rv_worker_self(), f->task, f->task_gen);
}

void rv_cache_quiet(struct reeve_cache *c, reeve_time until)
{
    struct rv_task *cur = rv_worker_self()->cur;
    bool masked = rv_load_relaxed(&cur->ctl) & RV_CTL_MASKED;
    int64_t end = rv_deadline(cur, until);
    rv_wait_mask(cur, true);
    for (;;) {
        struct rv_worker *w = rv_worker_self();
        rv_lock_acquire(&c->lock);
        c->waiter = c->busy > 0 ? rv_wait_arm(c->sched, cur, 0) : 0;
        bool quiet = c->waiter == 0;
        rv_lock_release(&c->lock);
        if (quiet)
            break;
        (void)rv_wait_check(c->sched, cur);
        if (rv_wait_park(w, cur, end) != RV_TIMED_OUT)
            continue;
        rv_lock_acquire(&c->lock);
        cancel_all(c);
        rv_lock_release(&c->lock);
        end = RV_NEVER;
    }
    if (!masked)
        rv_wait_mask(cur, false);
}

struct rv_flight *rv_flight_new(struct reeve_cache *c, const struct rv_key *key)
{
    struct rv_flight *f = rv_alloc_zero(sizeof *f);
    if (f == NULL)
        return NULL;
    f->cache = c;
    f->e = rv_cache_entry_new(c, key);
    if (f->e != NULL)
        return f;
    rv_free(f);
    return NULL;
}

void rv_flight_free(struct rv_flight *f)
{
    if (f == NULL)
        return;
    rv_free(f->e);
    rv_free(f);
}

void rv_flight_list(struct reeve_cache *c, struct rv_cache_shard *sh, struct rv_flight *f)
{
    struct rv_flight **head = head_of(sh, f->e->in.key.hash);
    f->next = *head;
    *head = f;
    f->listed = true;
    rv_lock_acquire(&c->lock);
    f->next_all = c->flights;
    f->at_all = &c->flights;
    if (c->flights != NULL)
        c->flights->at_all = &f->next_all;
    c->flights = f;
    c->busy++;
    rv_lock_release(&c->lock);
}

/* ---- edges: under the cache's lock ----------------------------------------------------------- */

struct rv_flight *rv_flight_own(struct reeve_cache *c, struct rv_worker *w)
{
    struct rv_sched *s = w->sched;
    struct rv_task *t = w->cur;
    if (s != c->sched)
        return NULL;
    for (int i = 0; i < OWNERS_MAX; i++) {
        struct rv_flight *f;
        if (t->name == rv_flight_task) {
            memcpy(&f, t->copy, sizeof f);
            if (f != NULL && f->cache == c)
                return f;
        }
        if (t->parent == RV_NIL)
            return NULL;
        t = rv_task_at(s, t->parent);
    }
    return NULL;
}

/* Whether `f` waits for `goal`, perhaps by way of others. */
static bool waits_for(struct rv_flight *f, const struct rv_flight *goal, uint64_t look, int depth)
{
    if (f == goal)
        return true;
    if (f->looked == look || depth == 0)
        return false;
    f->looked = look;
    for (struct rv_edge *e = f->from_here; e != NULL; e = e->next_from)
        if (e->to != NULL && waits_for(e->to, goal, look, depth - 1))
            return true;
    return false;
}

static void link_edge(struct rv_edge *e, struct rv_flight *from, struct rv_flight *to)
{
    e->to = to;
    e->next_from = from->from_here;
    e->at_from = &from->from_here;
    if (e->next_from != NULL)
        e->next_from->at_from = &e->next_from;
    from->from_here = e;
    e->next_to = to->to_here;
    e->at_to = &to->to_here;
    if (e->next_to != NULL)
        e->next_to->at_to = &e->next_to;
    to->to_here = e;
}

bool rv_edge_add(struct reeve_cache *c, struct rv_edge *e, struct rv_flight *from,
                 struct rv_flight *to)
{
    enum { DEPTH = 64 };
    rv_lock_acquire(&c->lock);
    bool circle = waits_for(to, from, ++c->nested, DEPTH);
    if (!circle)
        link_edge(e, from, to);
    rv_lock_release(&c->lock);
    return !circle;
}

void rv_edge_remove(struct reeve_cache *c, struct rv_edge *e)
{
    rv_lock_acquire(&c->lock);
    if (e->next_from != NULL)
        e->next_from->at_from = e->at_from;
    *e->at_from = e->next_from;
    if (e->to != NULL) {
        if (e->next_to != NULL)
            e->next_to->at_to = e->at_to;
        *e->at_to = e->next_to;
    }
    rv_lock_release(&c->lock);
}

bool rv_flight_started(struct rv_flight *f)
{
    struct reeve_cache *c = f->cache;
    struct rv_task *t = rv_worker_self()->cur;
    rv_lock_acquire(&c->lock);
    f->task = t;
    f->task_gen = rv_task_gen(t);
    bool over = c->cancelling;
    rv_lock_release(&c->lock);
    return over;
}

void rv_flight_retire(struct reeve_cache *c, struct rv_flight *f, int64_t took)
{
    rv_lock_acquire(&c->lock);
    RV_ASSERT(f->from_here == NULL);
    for (struct rv_edge *e = f->to_here; e != NULL; e = e->next_to)
        e->to = NULL;
    if (f->next_all != NULL)
        f->next_all->at_all = f->at_all;
    *f->at_all = f->next_all;
    if (took > 0 && (uint64_t)took > c->load_ns_max)
        c->load_ns_max = (uint64_t)took;
    rv_lock_release(&c->lock);
    rv_free(f);
}
