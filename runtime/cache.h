/* SPDX-License-Identifier: MIT */
/*
 * cache.h -- a cache from inside: entries, shards, loads, the workers' fronts.
 *
 *     reeve_cache --- table (mem/table.h): L2
 *       |  |  |
 *       |  |  fronts, one for each worker --- slots --- tickets, each a pin of an entry: L1
 *       |  l3: a store (cache_store.h)
 *       shards, as many as the table's: a lock, loads under way, a wheel of times
 *
 * (1) All changes of the table happen under the lock of the key's shard, together with what has to
 *     change with them: loads that must not fill any more, times, the record in L3. Lookups take no
 *     lock. The lock comes before the table's and before the cache's own.
 * (2) What left the table is a list (mem/table.h). It is settled under that lock and let go of
 *     after it: drop runs with nothing held.
 * (3) An entry is current while it is in the table (no cause), of the cache's generation, and not
 *     expired. Whoever lends it has looked at all three.
 */
#ifndef RV_RUNTIME_CACHE_H
#define RV_RUNTIME_CACHE_H

#include <reeve/cache.h>

#include "mem/forked.h"
#include "mem/lock.h"
#include "mem/table.h"
#include "runtime/cache_wheel.h"
#include "sched/waitq.h"

enum { RV_CAUSE_EXPIRED = REEVE_DROP_EXPIRED, RV_CAUSE_CLEARED = REEVE_DROP_CLEARED };
_Static_assert((int)REEVE_DROP_REPLACED == RV_CAUSE_REPLACED, "the table's causes are ours");
_Static_assert((int)REEVE_DROP_EVICTED == RV_CAUSE_EVICTED, "the table's causes are ours");
_Static_assert((int)REEVE_DROP_EXPIRED == RV_CAUSE_OWN, "the table's causes are ours");

/* What is counted, by each worker for itself. */
enum {
    RV_CC_L1_HITS,
    RV_CC_L1_MISSES,
    RV_CC_L1_INSERTS,
    RV_CC_L1_REMOVES,
    RV_CC_L1_EVICTIONS,
    RV_CC_L2_HITS,
    RV_CC_L2_MISSES,
    RV_CC_L2_INSERTS,
    RV_CC_L3_INSERTS,
    RV_CC_NEGATIVE,
    RV_CC_LOADS,
    RV_CC_LOAD_ERRORS,
    RV_CC_LOAD_NS,
    RV_CC_REFRESHES,
    RV_CC_SHARED,
    RV_CC_GONE,                              /* out of the table, by cause */
    RV_CC_DROPPED = RV_CC_GONE + REEVE_DROP_CAUSES, /* values, by cause */
    RV_CC_COUNT = RV_CC_DROPPED + REEVE_DROP_CAUSES
};

/* Never changed once it is in the table, but for the atomic fields and its place in the wheel. */
struct rv_cache_entry {
    struct rv_entry in; /* first */
    struct reeve_cache *cache;
    void *data;
    size_t len;
    uint64_t gen;              /* the cache's when it was asked for */
    RV_ATOMIC(int64_t) soft;   /* until then nobody needs to look at the clock twice; RV_NEVER */
    RV_ATOMIC(uint32_t) fronts; /* workers that may have it in L1: bit index % 32 */
    int error;                 /* 0: it has a value; or it remembers this */
    struct rv_spoke spoke;     /* its expiry, RV_NEVER: none; in the shard's wheel */
    unsigned char key[];
};
_Static_assert(sizeof(struct rv_cache_entry) <= REEVE_CACHE_ENTRY_BYTES, "as the manual says");

struct rv_flight;

enum { RV_FLIGHT_HEADS = 64 };

struct rv_cache_shard {
    struct rv_lock lock RV_ALIGNED_LINE;
    uint64_t gen;           /* the wheel's old ones are of generations before this */
    struct rv_wheel wheel;  /* all that is in the table's shard */
    struct rv_flight *flights[RV_FLIGHT_HEADS]; /* by the key's hash */
};

/* A worker's own; see cache_front.c. */
struct rv_cache_front {
    struct reeve_cache *cache;
    struct rv_worker *worker;
    struct rv_slot *slots;      /* sets of four; NULL: it has no L1 */
    uint32_t *door;             /* hashes that were seen in L2 once */
    uint32_t mask, door_mask;   /* of sets; of the door */
    RV_ATOMIC(uint64_t) entries, bytes;
    RV_ATOMIC(uint64_t) counts[RV_CC_COUNT];
    RV_ALIGNED_LINE RV_ATOMIC(uint32_t) asked; /* a task is under way that sweeps it */
};

/* {0} is the real thing. */
struct rv_cache_tweaks {
    int64_t (*now)(void);       /* instead of reeve_now() */
    const struct rv_seed *seed; /* of the table */
};

struct rv_store;

struct reeve_cache {
    struct rv_table table; /* first: it is aligned to lines */
    struct reeve_cache_opts o; /* completed */
    struct rv_sched *sched;
    int64_t (*now)(void);
    uint32_t forks;
    uint8_t heat_max;      /* so hot, an entry is no hotter; 0: hits go through a ring */
    struct rv_cache_front **fronts; /* by worker */
    struct rv_cache_shard *shards;
    struct rv_store *store; /* NULL: no L3 */
    reeve_time closed_at;  /* destroy's deadline */

    RV_ALIGNED_LINE RV_ATOMIC(uint64_t) gen;
    RV_ATOMIC(uint32_t) l3_failed; /* its file cannot be trusted any more */
    RV_ATOMIC(uint32_t) l3_closed; /* invalidations that have not cleared it yet */

    /* Under the lock. */
    RV_ALIGNED_LINE struct rv_lock lock;
    unsigned busy;             /* tasks of ours: loads, sweeps */
    bool cancelling;           /* loads that begin now are over at once */
    uint64_t waiter;           /* destroy's wait for busy to be 0; 0: none */
    struct rv_flight *flights; /* all that run */
    uint64_t nested;           /* looks for a circle of loads */
    uint64_t load_ns_max;
    uint64_t base[RV_CC_COUNT]; /* the counts at the last reset */
    RV_ALIGNED_LINE RV_ATOMIC(uint64_t) counts[RV_CC_COUNT]; /* of who has no front */
};

int rv_cache_create(reeve_cache **ret_cache, const struct reeve_cache_opts *opts,
                    const struct rv_cache_tweaks *tweaks, reeve_time until);

static inline struct rv_cache_shard *rv_cache_shard(struct reeve_cache *c, uint64_t hash)
{
    return &c->shards[rv_table_shard(&c->table, hash) - c->table.shards];
}

static inline struct rv_cache_entry *rv_cache_entry(struct rv_entry *e)
{
    return (struct rv_cache_entry *)(void *)e;
}

/* The calling worker's; NULL: a stranger's thread. Good until the task may suspend. */
static inline struct rv_cache_front *rv_cache_front(struct reeve_cache *c)
{
    struct rv_worker *w = rv_worker_self();
    return w != NULL && w->sched == c->sched ? c->fronts[w->index] : NULL;
}

static inline void rv_cache_count(struct reeve_cache *c, unsigned what, uint64_t n)
{
    struct rv_cache_front *f = rv_cache_front(c);
    if (f != NULL)
        rv_count(&f->counts[what], n);
    else
        rv_add_relaxed(&c->counts[what], n);
}

static inline void rv_cache_lock(struct rv_cache_shard *sh)
{
    rv_lock_acquire(&sh->lock);
}

static inline void rv_cache_unlock(struct rv_cache_shard *sh)
{
    rv_lock_release(&sh->lock);
}

/* ---- cache_entry.c: entries, from the first to the last ---- */

/* With a copy of the key, of the cache's present generation; NULL: no memory. */
struct rv_cache_entry *rv_cache_entry_new(struct reeve_cache *c, const struct rv_key *key);
/* Fills in value, weight and times. Calls the user's weigh. */
void rv_cache_entry_fill(struct reeve_cache *c, struct rv_cache_entry *e, struct reeve_value value);
void rv_cache_entry_fail(struct reeve_cache *c, struct rv_cache_entry *e, int error);
/* Under the shard's lock, from which *gone is let go of afterwards: drops what has expired and what
 * was invalidated, a little; puts the entry, as rv_table_put(); settles what that displaced. What
 * is to be pinned was loaded: -ESTALE if that began before an invalidation. */
int rv_cache_enter(struct reeve_cache *c, struct rv_cache_shard *sh, struct rv_cache_entry *e,
                   unsigned how, struct rv_entry **gone);
/* Under the lock: what has left the table leaves all else. first: of the list; end: what was in it
 * before, and is settled. */
void rv_cache_settle(struct reeve_cache *c, struct rv_entry *first, struct rv_entry *end);
/* Expired ones, into *gone, settled; at most `most`. */
unsigned rv_cache_reap(struct reeve_cache *c, struct rv_cache_shard *sh, unsigned most,
                       struct rv_entry **gone);
/* Removes this very entry, which the caller has pinned, and lets go of that pin. */
void rv_cache_take(struct reeve_cache *c, struct rv_cache_entry *e, unsigned cause);
/* Without the lock: the table's pins of what left it are given back. */
void rv_cache_let_go(struct reeve_cache *c, struct rv_entry *gone);
/* Gives a pin back. */
void rv_cache_unpin(struct reeve_cache *c, struct rv_cache_entry *e);
/* The last pin was given back: drops the value. */
void rv_cache_end(struct reeve_cache *c, struct rv_cache_entry *e);
/* What is lent; what is left of its time. */
void rv_cache_lend(struct reeve_cache *c, struct rv_cache_entry *e, struct reeve_value *ret_value);
int64_t rv_cache_left(struct reeve_cache *c, int64_t expires);

/* ---- cache_load.c ---- */

/* The key is not there: waits for a load of it, which begins if there is none. 0: *ret_entry is
 * pinned for the caller. 1: the same, but it was there after all, and is to be looked at. < 0. */
int rv_cache_await(struct reeve_cache *c, const struct rv_key *key,
                   struct rv_cache_entry **ret_entry, reeve_time until);
/* Begins a load in the background, if there is none. */
void rv_cache_refresh(struct reeve_cache *c, const struct rv_key *key);

/* ---- cache_flight.c ---- */

/* Under the shard's lock: a load of that key does not fill the cache any more. */
void rv_cache_detach(struct rv_cache_shard *sh, const struct rv_key *key);
/* A task of ours begins; it is over: the last that it does to the cache. */
void rv_cache_begin(struct reeve_cache *c);
void rv_cache_over(struct reeve_cache *c);
/* Waits until all are over; cancels them after that time. */
void rv_cache_quiet(struct reeve_cache *c, reeve_time until);

/* ---- cache_front.c ---- */

int rv_front_create(struct rv_cache_front **ret_front, struct reeve_cache *c, struct rv_worker *w);
/* Gives back all it has. Nobody uses it any more. */
void rv_front_destroy(struct rv_cache_front *f);
/* Lends what the calling worker's front has under that key. */
bool rv_front_lend(struct rv_cache_front *f, const struct rv_key *key,
                   struct reeve_value *ret_value);
/* Lends an entry that the caller has pinned, by way of the front if that takes it. */
void rv_front_admit(struct rv_cache_front *f, struct rv_cache_entry *e,
                    struct reeve_value *ret_value);
/* Takes a value back that was lent by a front. */
void rv_front_return(struct reeve_cache *c, const struct reeve_value *value);
static inline bool rv_front_lent(const struct reeve_value *value)
{
    return value->opaque & 1;
}
/* Has the fronts let go of an entry that is gone. */
void rv_front_ask(struct reeve_cache *c, uint32_t fronts);

/* ---- cache_level3.c; each does nothing where there is no L3 ---- */

int rv_l3_open(struct reeve_cache *c, reeve_time until);
void rv_l3_close(struct reeve_cache *c, reeve_time until);
/* In a task, which may wait. 0; -ENOENT; another error. */
int rv_l3_get(struct reeve_cache *c, const struct rv_key *key, struct reeve_value *ret_value);
/* Under the lock of the key's shard; with a deadline other than REEVE_POLL in a task, without. */
void rv_l3_demote(struct reeve_cache *c, struct rv_cache_entry *e, reeve_time until);
/* Under the lock. Whether it was there. */
bool rv_l3_remove(struct reeve_cache *c, const struct rv_key *key);
void rv_l3_clear(struct reeve_cache *c);
void rv_l3_stats(struct reeve_cache *c, struct reeve_cache_level *ret_level);
void rv_l3_stats_reset(struct reeve_cache *c);

#endif
