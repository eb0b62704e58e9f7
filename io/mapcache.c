/* SPDX-License-Identifier: MIT */
/*
 * mapcache.c -- many maps: each file mapped once, for all who ask, within a bound of bytes.
 *
 * A table from name to entry, a list of the entries that nobody has borrowed, the one that was
 * returned longest ago first, and a queue of those who wait for room. One lock guards all of it;
 * what takes time (looking at a file, mapping, unmapping, waiting) happens without the lock, by
 * the one task that has made the entry busy, while others who want it wait for that task.
 *
 *     nothing -> busy      [reeve_maps_borrow, reeve_maps_add]  its maker opens the file
 *     busy    -> ready     [loaded]    pinned by its maker, and by all who waited
 *     busy    -> nothing   [failed]    all who waited hear why, or try again
 *     ready   -> busy      [check]     pinned: a look at the file is due
 *     ready   -> nothing   [room_for]  idle, and its room is needed
 *     ready   -> old       [unlist]    the file is another one now; out of the table, still pinned
 *     old     -> nothing   [unpin]     the last pin is gone
 *
 *     in the table: busy, ready     idle list: ready, no pins, in the table
 *
 * (1) bytes and maps count what is mapped, and what room was granted to but is not mapped yet. They
 *     never exceed their bounds.
 * (2) Room is granted in the order of asking: while somebody waits, nobody else gets any. Whenever
 *     something is given back (a pin, a grant that was not used, a place in the queue), the first
 *     in line is looked at: settle().
 * (3) Maps are closed after their bytes were given away, but before the task that got them maps
 *     anything: it closes them itself, or who gave them to it has done so before it wakes it.
 * (4) A pinned entry is not freed, a busy one is pinned or belongs to its maker, and who waits for
 *     one does not touch it after being granted its result.
 * (5) The loader's own end (deadline, cancellation, no room for it) is not the file's: those who
 *     waited for it try themselves.
 *
 * Threads: borrow, add - tasks; return, remove, stats - any; create, destroy - one.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "io/map.h"
#include "mem/alloc.h"
#include "mem/die.h"
#include "mem/lock.h"
#include "sched/sync.h"

#define BYTES_MAX ((size_t)1 << 30)
#define MAPS_MAX 1024u
#define TRY_AGAIN 1 /* to one who waits for a busy entry */

struct entry {
    struct reeve_map map; /* first: what is borrowed */
    struct reeve_maps *maps;
    struct entry *chain;         /* the next of its bucket */
    struct entry *newer, *older; /* in the idle list; newer alone: in a list of those to close */
    struct rv_waitq waiting;     /* for it not to be busy */
    struct rv_map_id id;
    reeve_time looked;           /* when the file was last seen to be this one */
    size_t charge;
    uint64_t hash;
    uint32_t pins;
    bool busy, listed, added;
    char name[];
};

struct reeve_maps {
    struct rv_lock lock; /* guards all but the options */
    struct entry *oldest, *newest;
    struct rv_waitq room; /* who waits for some: struct asker */
    size_t bytes, idle_bytes;
    uint32_t maps, idle_maps;
    size_t pinned_bytes;
    uint32_t pinned;
    uint64_t hits, misses, changes, evictions, waits;

    size_t bytes_max;
    uint32_t maps_max, mask; /* of the table */
    int flags;
    int64_t check_ns;
    bool full_fails;
    struct entry *table[];
};

/* On the stacks of those who wait: for an entry, for room. */
struct asker {
    struct rv_waiter w; /* first */
    int result;
    size_t charge;
};

/* ---- under the lock ---- */

static uint64_t hash_of(const char *name)
{
    uint64_t h = UINT64_C(14695981039346656037); /* FNV-1a */
    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * UINT64_C(1099511628211);
    return h ^ h >> 32;
}

static struct entry *find(struct reeve_maps *c, const char *name, uint64_t hash)
{
    struct entry *e = c->table[hash & c->mask];
    while (e && (e->hash != hash || strcmp(e->name, name) != 0))
        e = e->chain;
    return e;
}

static void list(struct reeve_maps *c, struct entry *e)
{
    RV_ASSERT(!e->listed);
    struct entry **bucket = &c->table[e->hash & c->mask];
    e->chain = *bucket;
    *bucket = e;
    e->listed = true;
}

static void unlist(struct reeve_maps *c, struct entry *e)
{
    RV_ASSERT(e->listed);
    struct entry **at = &c->table[e->hash & c->mask];
    while (*at != e)
        at = &(*at)->chain;
    *at = e->chain;
    e->listed = false;
}

static void make_idle(struct reeve_maps *c, struct entry *e)
{
    e->newer = NULL;
    e->older = c->newest;
    *(c->newest ? &c->newest->newer : &c->oldest) = e;
    c->newest = e;
    c->idle_bytes += e->charge;
    c->idle_maps++;
}

static void unmake_idle(struct reeve_maps *c, struct entry *e)
{
    *(e->older ? &e->older->newer : &c->oldest) = e->newer;
    *(e->newer ? &e->newer->older : &c->newest) = e->older;
    c->idle_bytes -= e->charge;
    c->idle_maps--;
}

/* Adds it to those to be closed. */
static void doom(struct entry *e, struct entry **closing)
{
    e->newer = *closing;
    *closing = e;
}

static void uncharge(struct reeve_maps *c, size_t charge)
{
    RV_ASSERT(c->maps > 0 && c->bytes >= charge);
    c->bytes -= charge;
    c->maps--;
}

/* The first pin counts it as pinned; the last takes it back and leaves it idle, or old and gone. */
static void pin(struct reeve_maps *c, struct entry *e)
{
    if (e->pins++ > 0)
        return;
    c->pinned++;
    c->pinned_bytes += e->charge;
}

static void unpin(struct reeve_maps *c, struct entry *e, struct entry **closing)
{
    if (--e->pins > 0)
        return;
    c->pinned--;
    c->pinned_bytes -= e->charge;
    if (e->listed) {
        make_idle(c, e);
        return;
    }
    uncharge(c, e->charge);
    doom(e, closing);
}

/* Grants room, closing what is idle if that is enough; otherwise nothing is closed. */
static bool room_for(struct reeve_maps *c, size_t charge, struct entry **closing)
{
    if (c->bytes - c->idle_bytes > c->bytes_max - charge || c->maps - c->idle_maps >= c->maps_max)
        return false;
    while (c->bytes > c->bytes_max - charge || c->maps >= c->maps_max) {
        struct entry *e = c->oldest;
        unmake_idle(c, e);
        unlist(c, e);
        uncharge(c, e->charge);
        doom(e, closing);
        c->evictions++;
    }
    c->bytes += charge;
    c->maps++;
    return true;
}

/* Without the lock. */
static void close_all(struct entry *e)
{
    while (e) {
        struct entry *next = e->newer;
        reeve_map_close(&e->map);
        rv_free(e);
        e = next;
    }
}

/* The lock is held, and is let go of: closes what is to be closed, and gives room to those who wait
 * for it, in their order, while there is any. */
static void settle(struct reeve_maps *c, struct entry *closing)
{
    for (;;) {
        struct rv_wake wakes[RV_WAKES_MAX];
        struct rv_waiter *first;
        int n = 0;
        while (n < RV_WAKES_MAX && (first = c->room.first) != NULL &&
               room_for(c, ((struct asker *)first)->charge, &closing))
            wakes[n++] = rv_waiter_grant(rv_waitq_pop(&c->room));
        rv_lock_release(&c->lock);
        close_all(closing);
        closing = NULL;
        rv_wake_all(wakes, n);
        if (n < RV_WAKES_MAX)
            return;
        rv_lock_acquire(&c->lock);
    }
}

/* The entry is busy no more. Tells those who waited, and pins it for each if the result is 0. The
 * lock is held, and is let go of at times, but held again in the end. */
static void tell(struct reeve_maps *c, struct entry *e, int result)
{
    e->busy = false;
    while (e->waiting.first) {
        struct rv_wake wakes[RV_WAKES_MAX];
        int n = 0;
        while (n < RV_WAKES_MAX && e->waiting.first) {
            struct asker *it = (struct asker *)rv_waitq_pop(&e->waiting);
            it->result = result;
            if (result == 0) {
                pin(c, e);
                c->hits++;
            }
            wakes[n++] = rv_waiter_grant(&it->w);
        }
        rv_lock_release(&c->lock);
        rv_wake_all(wakes, n);
        rv_lock_acquire(&c->lock);
    }
}

/* ---- waiting ---- */

/* Waits in a queue; the lock is held, and is let go of. 0: granted. Else the lock is held again, to
 * put right what the place in the queue stood for. */
static int wait_in(struct reeve_maps *c, struct rv_waitq *q, struct asker *me, reeve_time until)
{
    struct rv_worker *w = rv_worker_self();
    int64_t end;
    int r = rv_wait_bound(w, until, &end);
    if (r < 0)
        return r;
    rv_waiter_begin(w, &me->w);
    rv_waitq_add(q, &me->w);
    rv_lock_release(&c->lock);
    int why = rv_wait_park(w, w->cur, end);
    if (why == RV_WOKEN)
        return 0;
    rv_lock_acquire(&c->lock);
    if (!me->w.granted) {
        rv_waitq_remove(q, &me->w);
        return rv_wait_error(why);
    }
    rv_lock_release(&c->lock);
    return 0;
}

/* Room for a map of that size is the caller's after 0. Without the lock. */
static int ask_for_room(struct reeve_maps *c, size_t charge, reeve_time until)
{
    struct entry *closing = NULL;
    struct asker me = { .charge = charge };
    if (charge > c->bytes_max)
        return -EFBIG;
    rv_lock_acquire(&c->lock);
    if (c->room.first == NULL && room_for(c, charge, &closing)) {
        rv_lock_release(&c->lock);
        close_all(closing);
        return 0;
    }
    if (c->full_fails) {
        rv_lock_release(&c->lock);
        return -EAGAIN;
    }
    c->waits++;
    int r = wait_in(c, &c->room, &me, until);
    if (r < 0)
        settle(c, NULL); /* the next in line may want less */
    return r;
}

/* ---- loading ---- */

static struct entry *make_entry(struct reeve_maps *c, const char *name, uint64_t hash)
{
    size_t len = strlen(name) + 1;
    struct entry *e = rv_alloc_zero(sizeof *e + len);
    if (e == NULL)
        return NULL;
    e->maps = c;
    e->hash = hash;
    memcpy(e->name, name, len);
    return e;
}

/* Nobody hears of this entry again but those who wait for it. The lock is held, and is let go of.
 * Returns the error. */
static int failed(struct reeve_maps *c, struct entry *e, int error, int to_others)
{
    unlist(c, e);
    tell(c, e, to_others);
    rv_lock_release(&c->lock);
    rv_free(e);
    return error;
}

/* Opens the file for an entry that its caller has made, listed and marked busy. 0: it is ready, and
 * pinned for the caller. Otherwise it is gone. */
static int load(struct reeve_maps *c, struct entry *e, struct rv_map_source *src, reeve_time until)
{
    bool its_own = true; /* the failure is this task's, not the file's: see (5) */
    int r = reeve_offload(rv_map_look, src, until);
    if (r < 0)
        its_own = !src->ran;
    size_t charge = rv_map_charge(src->len);
    if (r == 0 && (r = ask_for_room(c, charge, until)) < 0) {
        its_own = r != -EFBIG;
        rv_map_drop(src);
    } else if (r == 0 && (r = rv_map_make(&e->map, src)) < 0) {
        its_own = false;
        rv_lock_acquire(&c->lock);
        uncharge(c, charge);
        settle(c, NULL);
    }
    rv_lock_acquire(&c->lock);
    if (r < 0)
        return failed(c, e, r, its_own ? TRY_AGAIN : r);
    e->charge = charge;
    e->id = src->id;
    e->looked = reeve_now();
    pin(c, e);
    tell(c, e, 0);
    rv_lock_release(&c->lock);
    return 0;
}

/* The file of the cache at the name's path. */
static int load_path(struct reeve_maps *c, struct entry *e, reeve_time until)
{
    struct rv_map_source src = { .path = e->name, .fd = -1, .flags = c->flags };
    return load(c, e, &src, until);
}

/* ---- is it still the same file? ---- */

struct look {
    const char *path;
    struct rv_map_id id;
    bool ran;
};

static int look_at(void *arg)
{
    struct look *l = arg;
    l->ran = true;
    return rv_map_identify(l->path, &l->id);
}

/* Writing through a map changes the time, and the map shows it anyway. */
static bool is_same(int flags, const struct rv_map_id *a, const struct rv_map_id *b)
{
    bool written = flags & REEVE_MAP_WRITE && !(flags & REEVE_MAP_PRIVATE);
    bool at_one_time = a->mtime_s == b->mtime_s && a->mtime_ns == b->mtime_ns;
    return a->dev == b->dev && a->ino == b->ino && a->size == b->size && (written || at_one_time);
}

/* The file is not the entry's any more. The lock is held, and is let go of: the entry is old, those
 * who waited try again, and find the next one, which is listed if there is one. */
static void leave_old(struct reeve_maps *c, struct entry *e, struct entry *next, int to_others)
{
    struct entry *closing = NULL;
    unlist(c, e);
    if (next)
        list(c, next);
    tell(c, e, to_others);
    unpin(c, e, &closing);
    settle(c, closing);
}

/* Looks at the file of an entry that its caller has pinned and marked busy. 0: it is the same, and
 * the pin is the caller's. 1: it is another; *spare is used up, listed in its place and busy, and
 * the caller is to load it. */
static int check(struct reeve_maps *c, struct entry *e, struct entry *spare, reeve_time until)
{
    struct look l = { .path = e->name };
    struct entry *closing = NULL;
    int r = reeve_offload(look_at, &l, until);
    rv_lock_acquire(&c->lock);
    if (r < 0 && !l.ran) {
        tell(c, e, TRY_AGAIN);
        unpin(c, e, &closing);
        settle(c, closing);
    } else if (r < 0) {
        leave_old(c, e, NULL, r); /* there is no such file now */
    } else if (is_same(c->flags, &l.id, &e->id) && reeve_map_ok(&e->map) == 0) {
        e->looked = reeve_now();
        c->hits++;
        tell(c, e, 0);
        rv_lock_release(&c->lock);
    } else {
        spare->busy = true;
        c->changes++;
        c->misses++;
        leave_old(c, e, spare, TRY_AGAIN);
        r = 1;
    }
    return r;
}

/* ---- borrow, return ---- */

static bool is_due(const struct reeve_maps *c, const struct entry *e)
{
    if (e->added)
        return false;
    if (reeve_map_ok(&e->map) < 0) /* whatever its file is by now */
        return true;
    return c->check_ns >= 0 && reeve_now() - e->looked >= c->check_ns;
}

/* What to do about a name, found out and begun under the lock. */
enum step { NEED_SPARE, HAVE, LOAD, CHECK, WAITED, GIVE_UP };

static void take(struct reeve_maps *c, struct entry *e)
{
    if (e->pins == 0)
        unmake_idle(c, e);
    pin(c, e);
}

/* *ret_e: the entry; the spare one, if it was put to use. *ret_r: of WAITED and GIVE_UP. */
static enum step next_step(struct reeve_maps *c, const char *name, uint64_t hash,
                           struct entry *spare, struct entry **ret_e, int *ret_r, reeve_time until)
{
    enum step step;
    rv_lock_acquire(&c->lock);
    struct entry *e = *ret_e = find(c, name, hash);
    if (e && e->busy) {
        struct asker me = { 0 };
        *ret_r = wait_in(c, &e->waiting, &me, until);
        if (*ret_r < 0) {
            rv_lock_release(&c->lock);
            return GIVE_UP;
        }
        *ret_r = me.result;
        return WAITED;
    }
    bool due = e && is_due(c, e);
    if ((e == NULL || due) && spare == NULL) {
        step = NEED_SPARE;
    } else if (e == NULL) {
        step = LOAD;
        *ret_e = spare;
        spare->busy = true;
        list(c, spare);
        c->misses++;
    } else {
        take(c, e);
        e->busy = due;
        step = due ? CHECK : HAVE;
        c->hits += !due;
    }
    rv_lock_release(&c->lock);
    return step;
}

/* Goes on until the name's entry is pinned for the caller, or there is an error. *spare is an entry
 * of this name that may be put to use; NULL then. */
static int borrow(struct reeve_maps *c, const char *name, uint64_t hash, struct entry **spare,
                  struct entry **ret_e, reeve_time until)
{
    for (;;) {
        int r = 0;
        switch (next_step(c, name, hash, *spare, ret_e, &r, until)) {
        case NEED_SPARE:
            *spare = make_entry(c, name, hash);
            if (*spare == NULL)
                return -ENOMEM;
            break;
        case LOAD:
            *spare = NULL;
            return load_path(c, *ret_e, until);
        case CHECK:
            r = check(c, *ret_e, *spare, until);
            if (r <= 0)
                return r;
            *ret_e = *spare;
            *spare = NULL;
            return load_path(c, *ret_e, until);
        case WAITED:
            if (r != TRY_AGAIN)
                return r;
            break;
        case GIVE_UP:
            return r;
        case HAVE:
            return 0;
        }
    }
}

int reeve_maps_borrow(reeve_maps *c, const char *path, const struct reeve_map **ret_map,
                      reeve_time until)
{
    struct entry *spare = NULL, *e;
    rv_in_task("reeve_maps_borrow");
    if (path == NULL)
        return -EINVAL;
    int r = borrow(c, path, hash_of(path), &spare, &e, until);
    rv_free(spare);
    if (r < 0)
        return r;
    *ret_map = &e->map;
    return 0;
}

void reeve_maps_return(reeve_maps *c, const struct reeve_map *map)
{
    struct entry *e = (struct entry *)(uintptr_t)map, *closing = NULL;
    if (e == NULL)
        return;
    rv_lock_acquire(&c->lock);
    if (e->maps != c || e->pins <= (e->added ? 1u : 0u))
        rv_die("reeve_maps_return was given a map that is not borrowed from there.");
    unpin(c, e, &closing);
    settle(c, closing);
}

/* ---- maps under names ---- */

int reeve_maps_add(reeve_maps *c, const char *name, const char *path, int flags, size_t len,
                   reeve_time until)
{
    rv_in_task("reeve_maps_add");
    int r = name && path ? rv_map_flags(flags) : -EINVAL;
    if (r < 0)
        return r;
    struct entry *e = make_entry(c, name, hash_of(name));
    if (e == NULL)
        return -ENOMEM;
    rv_lock_acquire(&c->lock);
    if (find(c, name, e->hash)) {
        rv_lock_release(&c->lock);
        rv_free(e);
        return -EEXIST;
    }
    e->busy = e->added = true;
    list(c, e);
    rv_lock_release(&c->lock);
    struct rv_map_source src = { .path = path, .fd = -1, .flags = flags, .len = len };
    return load(c, e, &src, until); /* the pin that this leaves is the table's */
}

int reeve_maps_remove(reeve_maps *c, const char *name)
{
    struct entry *closing = NULL;
    rv_lock_acquire(&c->lock);
    struct entry *e = name ? find(c, name, hash_of(name)) : NULL;
    if (e == NULL || !e->added || e->busy) {
        rv_lock_release(&c->lock);
        return -ENOENT;
    }
    unlist(c, e);
    e->added = false; /* its pins are those of borrowers alone now */
    unpin(c, e, &closing);
    settle(c, closing);
    return 0;
}

/* ---- the cache ---- */

int reeve_maps_create(reeve_maps **ret_maps, const struct reeve_maps_opts *opts)
{
    struct reeve_maps_opts o = opts ? *opts : (struct reeve_maps_opts){ 0 };
    uint32_t maps_max = o.maps_max ? o.maps_max : MAPS_MAX, buckets = 16;
    if (maps_max > RV_MAPS_MAX || o.flags & REEVE_MAP_CREATE || rv_map_flags(o.flags) < 0)
        return -EINVAL;
    while (buckets < maps_max)
        buckets *= 2;
    struct reeve_maps *c = rv_alloc_zero(sizeof *c + sizeof c->table[0] * buckets);
    if (c == NULL)
        return -ENOMEM;
    c->bytes_max = o.bytes_max ? o.bytes_max : BYTES_MAX;
    c->maps_max = maps_max;
    c->mask = buckets - 1;
    c->flags = o.flags;
    c->check_ns = o.check_ns ? o.check_ns : REEVE_SEC;
    c->full_fails = o.full_fails;
    *ret_maps = c;
    return 0;
}

void reeve_maps_destroy(reeve_maps *c)
{
    struct entry *closing = NULL;
    if (c == NULL)
        return;
    rv_lock_acquire(&c->lock);
    for (uint32_t i = 0; i <= c->mask; i++)
        for (struct entry *e = c->table[i]; e; e = e->chain) {
            if (e->busy || e->pins != (e->added ? 1u : 0u))
                rv_die("reeve_maps_destroy was called while a map is still borrowed.");
            uncharge(c, e->charge);
            doom(e, &closing);
        }
    if (c->maps != 0)
        rv_die("reeve_maps_destroy was called while an old map is still borrowed.");
    rv_lock_release(&c->lock);
    close_all(closing);
    rv_free(c);
}

void reeve_maps_stats(reeve_maps *c, struct reeve_maps_stats *ret_stats)
{
    rv_lock_acquire(&c->lock);
    *ret_stats = (struct reeve_maps_stats){
        .hits = c->hits,
        .misses = c->misses,
        .changes = c->changes,
        .evictions = c->evictions,
        .waits = c->waits,
        .maps = c->maps,
        .bytes = c->bytes,
        .pinned = c->pinned,
        .pinned_bytes = c->pinned_bytes,
    };
    rv_lock_release(&c->lock);
}
