/* SPDX-License-Identifier: MIT */
/*
 * cache_flight.h -- loads under way: by key, all of them, and which waits for which.
 *
 *     (none)   -> begun      [rv_cache_await, rv_cache_refresh]  listed under its key: others join
 *     begun    -> detached   [rv_cache_detach]  the key was put, removed, cleared: it fills nothing
 *     begun, detached -> landed -> freed        [land, in cache_load.c]
 *
 * Threads: any, with the locks that are named.
 */
#ifndef RV_RUNTIME_CACHE_FLIGHT_H
#define RV_RUNTIME_CACHE_FLIGHT_H

#include "runtime/cache.h"

/* The name of a flight's task, and by its address the mark of one. The task has a pointer to the
 * flight as its own copy of an argument; NULL: its load is over. */
extern const char rv_flight_task[];

/* A flight that waits for another, while one of its tasks does; on that task's stack. */
struct rv_edge {
    struct rv_flight *to; /* NULL: it has landed */
    struct rv_edge *next_from, **at_from, *next_to, **at_to;
};

struct rv_flight {
    struct rv_flight *next; /* under its head, while it is listed */
    struct reeve_cache *cache;
    struct rv_cache_entry *e; /* its key, and room for what it brings */
    struct rv_waitq waiting;
    bool listed, refresh;

    /* Under the cache's lock. */
    struct rv_flight *next_all, **at_all;
    struct rv_task *task; /* NULL: it has not started */
    uint32_t task_gen;
    struct rv_edge *from_here, *to_here;
    uint64_t looked; /* the search that has been here */
};

/* NULL: no memory. */
struct rv_flight *rv_flight_new(struct reeve_cache *c, const struct rv_key *key);
/* One that nobody has seen; NULL is fine. */
void rv_flight_free(struct rv_flight *f);

/* Under the shard's lock: the one to join; NULL: there is none, or none of this generation. */
struct rv_flight *rv_flight_find(struct reeve_cache *c, struct rv_cache_shard *sh,
                                 const struct rv_key *key);
void rv_flight_list(struct reeve_cache *c, struct rv_cache_shard *sh, struct rv_flight *f);
void rv_flight_unlist(struct rv_cache_shard *sh, struct rv_flight *f);

/* Its task has started. True: the cache is ending, and the load is not to begin. */
bool rv_flight_started(struct rv_flight *f);
/* It has landed, nobody can find it, and it goes. took: so many ns. */
void rv_flight_retire(struct reeve_cache *c, struct rv_flight *f, int64_t took);

/* The flight that the running task belongs to; NULL: none of this cache. */
struct rv_flight *rv_flight_own(struct reeve_cache *c, struct rv_worker *w);
/* False: it would close a circle. Under the lock of the shard of `to`, which so has not landed. */
bool rv_edge_add(struct reeve_cache *c, struct rv_edge *e, struct rv_flight *from,
                 struct rv_flight *to);
void rv_edge_remove(struct reeve_cache *c, struct rv_edge *e);

#endif
