/* SPDX-License-Identifier: MIT */
/*
 * cache_load.c -- loads: one for each key, for all who want it.
 *
 * A load belongs to nobody who waits for it. It is a flight, in a task of its own in the runtime's
 * outermost scope; who wants the key is in the flight's queue, with a deadline of his own, and
 * leaves it when he must. What a flight brings fills the cache, waited for or not.
 *
 *     (none)   -> begun      [rv_cache_await, _refresh]   listed under its key, where others join
 *     begun    -> detached   [rv_cache_detach]  the key was put, removed, cleared: it fills nothing
 *     begun, detached -> landed   [land]        what it brought is in the cache or refused; who
 *                                               waits has a pin of it, or the error
 *     landed   -> freed      [land]
 *
 * (1) A flight is listed, joined, detached and landed under its shard's lock. Who is about to list
 *     one looks into the table again, under that lock: between a miss and that somebody may have
 *     put the key.
 * (2) It fills only while it is listed and the cache is of its generation: nothing that was changed
 *     since it began is covered by what it read before.
 * (3) Who waits is in the queue until the flight lands, which takes him out with a pin of his own.
 *     So nobody but its task refers to a flight that has landed.
 *
 * Threads: await - a task; refresh, detach - any; land - the flight's task.
 */
#include <errno.h>
#include <string.h>

#include "mem/alloc.h"
#include "mem/die.h"
#include "mem/fault.h"
#include "runtime/cache_flight.h"
#include "runtime/cache_task.h"
#include "sched/scope.h"
#include "sched/sync.h"

struct waiter {
    struct rv_waiter w; /* first: the queue's */
    struct rv_cache_entry *e;
    int error;
};

/* ---- landing --------------------------------------------------------------------------------- */

/* An error that is about the key; others only say how things stand here. */
static bool is_answer(int error)
{
    return error != -ECANCELED && error != -ENOMEM && error != -EDEADLK;
}

/* The entry was never in the table, and is lent all the same: as if it had been and were gone. */
static void make_stray(struct reeve_cache *c, struct rv_cache_entry *e)
{
    rv_store_relaxed(&e->in.cause, (uint8_t)REEVE_DROP_REFUSED);
    rv_store_relaxed(&e->in.pins, 1u);
    rv_add_relaxed(&c->table.lent, e->in.node.weight);
}

/* Takes up to RV_WAKES_MAX out of the queue, with what they came for. */
static int grant_some(struct rv_flight *f, int error, struct rv_wake *ret_wakes)
{
    struct rv_waiter *n;
    int k = 0;
    while (k < RV_WAKES_MAX && (n = rv_waitq_pop(&f->waiting)) != NULL) {
        struct waiter *me = (struct waiter *)n;
        me->error = error;
        if (error == 0) {
            me->e = f->e;
            rv_table_pin(&f->e->in);
        }
        ret_wakes[k++] = rv_waiter_grant(n);
    }
    return k;
}

/* Under the lock, which is let go of. Wakes all but the last few, whom it leaves to the caller:
 * how many. */
static int grant_all(struct rv_cache_shard *sh, struct rv_flight *f, int error,
                     struct rv_wake ret_wakes[RV_WAKES_MAX])
{
    for (;;) {
        int k = grant_some(f, error, ret_wakes);
        bool last = f->waiting.first == NULL;
        rv_cache_unlock(sh);
        if (last)
            return k;
        rv_wake_all(ret_wakes, k);
        rv_cache_lock(sh);
    }
}

/* Puts what was loaded, or the error; false: it may not, or cannot. */
static bool fill(struct reeve_cache *c, struct rv_cache_shard *sh, struct rv_flight *f,
                 struct rv_entry **gone)
{
    bool listed = f->listed;
    if (listed)
        rv_flight_unlist(sh, f);
    if (!listed || (f->e->error != 0 && f->refresh))
        return false; /* a failed refresh leaves the value as it is */
    return rv_cache_enter(c, sh, f->e, RV_PUT_PINNED, gone) == 0;
}

/* error 0: the entry has been filled. took: so many ns; < 0: load was not asked. */
static void land(struct rv_flight *f, int error, int64_t took)
{
    struct reeve_cache *c = f->cache;
    struct rv_cache_entry *e = f->e;
    struct rv_cache_shard *sh = rv_cache_shard(c, e->in.key.hash);
    struct rv_entry *gone = NULL;
    bool keep = error == 0 || (c->o.negative_ns > 0 && took >= 0 && is_answer(error));
    if (error != 0 && keep)
        rv_cache_entry_fail(c, e, error);
    rv_cache_lock(sh);
    bool in = false;
    if (keep)
        in = fill(c, sh, f, &gone);
    else if (f->listed)
        rv_flight_unlist(sh, f);
    if (!in && error == 0)
        make_stray(c, e);
    struct rv_wake wakes[RV_WAKES_MAX];
    int k = grant_all(sh, f, error, wakes);
    /* All is settled when the last of those who waited runs. */
    if (in || error == 0)
        rv_cache_unpin(c, e);
    else
        rv_free(e);
    rv_cache_let_go(c, gone);
    rv_flight_retire(c, f, took);
    rv_wake_all(wakes, k);
    rv_cache_over(c);
}

/* ---- the task -------------------------------------------------------------------------------- */

static int load(struct reeve_cache *c, const struct rv_key *key, struct reeve_value *ret_value,
                int64_t *ret_took)
{
    int r = rv_l3_get(c, key, ret_value);
    if (r != -ENOENT || c->o.load == NULL)
        return r;
    int64_t from = rv_worker_now(rv_worker_self());
    r = c->o.load(c->o.ctx, (struct reeve_bytes){ key->data, key->len }, ret_value);
    rv_scope_wait(r); /* no task of it outlives the flight */
    if (r >= 0 && c->o.blocks && ret_value->data == NULL && ret_value->len > 0)
        r = -EINVAL;
    int64_t took = rv_worker_now(rv_worker_self()) - from;
    *ret_took = took > 0 ? took : 0;
    rv_cache_count(c, RV_CC_LOADS, 1);
    rv_cache_count(c, RV_CC_LOAD_NS, (uint64_t)*ret_took);
    if (r < 0)
        rv_cache_count(c, RV_CC_LOAD_ERRORS, 1);
    return r < 0 ? r : 0;
}

static int run_load(void *arg)
{
    struct rv_flight *f = *(struct rv_flight **)arg;
    struct reeve_cache *c = f->cache;
    struct rv_task *t = rv_worker_self()->cur;
    struct reeve_value value = { 0 };
    int64_t took = -1;
    if (c->o.load_ns > 0)
        t->deadline = reeve_in(c->o.load_ns);
    int r = rv_flight_started(f) ? -ECANCELED : load(c, &f->e->in.key, &value, &took);
    /* From here on no task below this one belongs to the load: drop may start some, which outlive
     * the flight. None is there now that could be looking. */
    memset(arg, 0, sizeof f);
    if (r == 0)
        rv_cache_entry_fill(c, f->e, value);
    if (r == 0 && took < 0 && c->o.load != NULL && c->o.refresh_ns > 0)
        rv_store_relaxed(&f->e->soft, c->now()); /* from L3, and nobody knows how old it is */
    land(f, r, took);
    return r;
}

static void skip_load(void *arg)
{
    land(*(struct rv_flight **)arg, -ECANCELED, -1);
}

static void start(struct rv_flight *f)
{
    int r = rv_cache_spawn(f->cache->sched, &(struct reeve_spawn){ .fn = run_load,
                                                                   .arg = &f,
                                                                   .copy = sizeof f,
                                                                   .skipped = skip_load,
                                                                   .name = rv_flight_task });
    if (r < 0)
        land(f, r, -1);
}

/* ---- who wants the key ----------------------------------------------------------------------- */

/* The flight to wait for, with the shard's lock held; begun: it is *spare, and has to be started.
 * NULL, and no lock: *ret_entry is there after all, or there is no memory. */
static struct rv_flight *join(struct reeve_cache *c, struct rv_cache_shard *sh,
                              const struct rv_key *key, struct rv_flight **spare,
                              struct rv_cache_entry **ret_entry)
{
    *ret_entry = NULL;
    rv_cache_lock(sh);
    struct rv_flight *f = rv_flight_find(c, sh, key);
    if (f != NULL)
        return f;
    rv_cache_unlock(sh);
    *spare = RV_FAULT("cache.flight") ? NULL : rv_flight_new(c, key);
    if (*spare == NULL)
        return NULL;
    rv_cache_lock(sh);
    f = rv_flight_find(c, sh, key);
    if (f != NULL)
        return f;
    struct rv_entry *in = rv_table_peek(&c->table, key); /* (1) */
    if (in != NULL) {
        rv_cache_unlock(sh);
        *ret_entry = rv_cache_entry(in);
        return NULL;
    }
    rv_flight_list(c, sh, *spare);
    return *spare;
}

int rv_cache_await(struct reeve_cache *c, const struct rv_key *key,
                   struct rv_cache_entry **ret_entry, reeve_time until)
{
    struct rv_worker *w = rv_worker_self();
    struct rv_cache_shard *sh = rv_cache_shard(c, key->hash);
    struct waiter me = { .error = 0 };
    struct rv_edge edge;
    struct rv_flight *spare = NULL;
    int64_t end;
    if (w == NULL || w->cur == NULL)
        return -ENOTSUP;
    int r = rv_wait_bound(w, until, &end);
    if (r < 0)
        return r;
    struct rv_flight *f = join(c, sh, key, &spare, ret_entry), *from;
    if (f == NULL) {
        rv_flight_free(spare);
        return *ret_entry != NULL ? 1 : -ENOMEM;
    }
    bool begun = f == spare;
    if (!begun)
        rv_cache_count(c, RV_CC_SHARED, 1);
    from = rv_flight_own(c, w);
    if (from != NULL && !rv_edge_add(c, &edge, from, f)) {
        rv_cache_unlock(sh);
        rv_flight_free(spare);
        return -EDEADLK;
    }
    rv_waiter_begin(w, &me.w);
    rv_waitq_add(&f->waiting, &me.w);
    rv_cache_unlock(sh);
    if (begun)
        start(f);
    else
        rv_flight_free(spare);
    int why = rv_wait_park(w, w->cur, end);
    rv_cache_lock(sh);
    if (!me.w.granted)
        rv_waitq_remove(&f->waiting, &me.w);
    rv_cache_unlock(sh);
    if (from != NULL)
        rv_edge_remove(c, &edge);
    if (!me.w.granted)
        return rv_wait_error(why);
    *ret_entry = me.e;
    return me.error;
}

void rv_cache_refresh(struct reeve_cache *c, const struct rv_key *key)
{
    struct rv_cache_shard *sh = rv_cache_shard(c, key->hash);
    struct rv_flight *f = rv_flight_new(c, key);
    if (f == NULL)
        return; /* the next try comes */
    f->refresh = true;
    rv_cache_lock(sh);
    bool begin = rv_flight_find(c, sh, key) == NULL;
    if (begin)
        rv_flight_list(c, sh, f);
    rv_cache_unlock(sh);
    if (!begin) {
        rv_flight_free(f);
        return;
    }
    rv_cache_count(c, RV_CC_REFRESHES, 1);
    start(f);
}
