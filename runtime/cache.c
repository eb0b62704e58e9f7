/* SPDX-License-Identifier: MIT */
/*
 * cache.c -- the calls of cache.h.
 *
 *     borrow: L1 --- L2 --- a load, which looks into L3 first
 *               hit    hit: current? else it is taken out, and a miss
 *
 * (1) Invalid at once: the generation of the cache is in every entry. To raise it is to invalidate
 *     all of them, in L1 and L2, and what loads that are under way will bring.
 * (2) No record of before an invalidation is in L3 after it: records are written under a shard's
 *     lock, of current entries; the generation is raised, all locks are taken once, and only then
 *     L3 is cleared. A load of the new generation does not look into L3 until that is done.
 * (3) A soft time that has come is moved on by whoever finds it first, and he alone begins the
 *     refresh. If that fails, the next one to find it comes refresh_ns later.
 *
 * Threads: create, destroy, warm - a task; the rest - any.
 */
#include "runtime/cache.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mem/alloc.h"
#include "mem/die.h"
#include "sched/scope.h"

enum { ENTRIES = 1000, SHARDS_MAX = 1024, SHARDS = 64, SHARD_ENTRIES = 1024, L1 = 1024 };
#define ENTRIES_MAX (SIZE_MAX >> 8) /* sizes that are made of it do not overflow */
#define SHARD_BYTES ((size_t)1 << 20)
#define L3_BYTES ((size_t)64 << 20)

/* ---- borrowing ------------------------------------------------------------------------------- */

/* What was found, pinned: may it be lent? True: yes. Else it is out of the table and unpinned. */
static bool is_current(struct reeve_cache *c, struct rv_cache_entry *e)
{
    if (e->gen != rv_load_acquire(&c->gen)) {
        rv_cache_take(c, e, RV_CAUSE_CLEARED);
        return false;
    }
    int64_t soft = rv_load_relaxed(&e->soft);
    if (soft == RV_NEVER)
        return true;
    int64_t now = c->now();
    if (now >= e->spoke.expires) {
        rv_cache_take(c, e, RV_CAUSE_EXPIRED);
        return false;
    }
    if (now < soft || soft == e->spoke.expires)
        return true;
    int64_t next = c->o.refresh_ns < e->spoke.expires - now ? now + c->o.refresh_ns
                                                            : e->spoke.expires;
    if (rv_cas_relaxed(&e->soft, &soft, next)) /* (3) */
        rv_cache_refresh(c, &e->in.key);
    return true;
}

/* Lends it, if it is a value. */
static int lend(struct reeve_cache *c, struct rv_cache_entry *e, bool found,
                struct reeve_value *ret_value)
{
    int error = e->error;
    if (error != 0) {
        rv_cache_count(c, RV_CC_NEGATIVE, 1);
        rv_cache_unpin(c, e);
        return error;
    }
    struct rv_cache_front *f = rv_cache_front(c);
    if (found && f != NULL && f->slots != NULL)
        rv_front_admit(f, e, ret_value);
    else
        rv_cache_lend(c, e, ret_value);
    return 0;
}

static __attribute__((noinline)) int borrow(struct reeve_cache *c, const struct rv_key *key,
                                            struct reeve_value *ret_value, reeve_time until)
{
    struct rv_entry *in = rv_table_find(&c->table, key);
    struct rv_cache_entry *e = rv_cache_entry(in);
    if (in != NULL && is_current(c, e)) {
        rv_cache_count(c, RV_CC_L2_HITS, 1);
        return lend(c, e, true, ret_value);
    }
    rv_cache_count(c, RV_CC_L2_MISSES, 1);
    for (;;) {
        if (c->o.load == NULL && c->store == NULL)
            return -ENOENT;
        int r = rv_cache_await(c, key, &e, until);
        if (r < 0)
            return r;
        if (r == 0 || is_current(c, e))
            return lend(c, e, false, ret_value);
    }
}

int reeve_cache_borrow(reeve_cache *c, struct reeve_bytes key, struct reeve_value *ret_value,
                       reeve_time until)
{
    if (__builtin_expect(c->forks != rv_forks(), 0))
        return -ECHILD;
    struct rv_key k = rv_table_key(&c->table, key.data, key.len);
    struct rv_cache_front *f = rv_cache_front(c);
    if (f != NULL && f->slots != NULL && rv_front_lend(f, &k, ret_value))
        return 0;
    return borrow(c, &k, ret_value, until);
}

void reeve_cache_return(reeve_cache *c, struct reeve_value value)
{
    if (value.opaque == 0)
        rv_die("reeve_cache_return was given a value that was not borrowed.");
    if (c->forks != rv_forks())
        return;
    if (rv_front_lent(&value)) {
        rv_front_return(c, &value);
        return;
    }
    struct rv_cache_entry *e = (struct rv_cache_entry *)value.opaque;
    if (e->cache != c || e->data != value.data)
        rv_die("reeve_cache_return was given a value that is not on loan from this cache.");
    rv_cache_unpin(c, e);
}

/* ---- changing -------------------------------------------------------------------------------- */

int reeve_cache_put(reeve_cache *c, struct reeve_bytes key, struct reeve_value value)
{
    if (c->forks != rv_forks())
        return -ECHILD;
    if (c->o.blocks && value.data == NULL && value.len > 0)
        return -EINVAL;
    struct rv_key k = rv_table_key(&c->table, key.data, key.len);
    struct rv_cache_shard *sh = rv_cache_shard(c, k.hash);
    struct rv_entry *gone = NULL;
    struct rv_cache_entry *e = rv_cache_entry_new(c, &k);
    if (e == NULL)
        return -ENOMEM;
    rv_cache_entry_fill(c, e, value);
    rv_cache_lock(sh);
    int r = rv_cache_enter(c, sh, e, 0, &gone);
    if (r == 0)
        rv_cache_detach(sh, &k);
    rv_cache_unlock(sh);
    rv_cache_let_go(c, gone);
    if (r < 0)
        rv_free(e);
    return r;
}

int reeve_cache_remove(reeve_cache *c, struct reeve_bytes key)
{
    if (c->forks != rv_forks())
        return -ECHILD;
    struct rv_key k = rv_table_key(&c->table, key.data, key.len);
    struct rv_cache_shard *sh = rv_cache_shard(c, k.hash);
    struct rv_entry *gone = NULL;
    rv_cache_lock(sh);
    rv_cache_detach(sh, &k);
    bool there = rv_table_remove(&c->table, &k, REEVE_DROP_REMOVED, &gone);
    if (there) {
        const struct rv_cache_entry *e = rv_cache_entry(gone);
        there = e->error == 0 && e->gen == rv_load_acquire(&c->gen) &&
                (e->spoke.expires == RV_NEVER || c->now() < e->spoke.expires);
        rv_cache_settle(c, gone, NULL);
    }
    there |= rv_l3_remove(c, &k);
    rv_cache_unlock(sh);
    rv_cache_let_go(c, gone);
    return there ? 0 : -ENOENT;
}

void reeve_cache_invalidate(reeve_cache *c)
{
    if (c->forks != rv_forks())
        return;
    if (c->store != NULL)
        rv_add_relaxed(&c->l3_closed, 1u); /* who sees the new generation sees it: rv_l3_get() */
    rv_add_acq_rel(&c->gen, (uint64_t)1); /* pairs with every look at it */
    if (c->store == NULL)
        return;
    for (unsigned i = 0; i < c->table.shards_n; i++) { /* (2) */
        rv_cache_lock(&c->shards[i]);
        rv_cache_unlock(&c->shards[i]);
    }
    rv_l3_clear(c);
    rv_sub_acq_rel(&c->l3_closed, 1u); /* releases; pairs with rv_l3_get() */
}

/* All that is in a shard now goes, a few under each hold of its lock. When the cache is closed
 * nobody else is there, and what goes to L3 may be waited for: then without the lock. */
static void empty_shard(struct reeve_cache *c, unsigned i, unsigned cause)
{
    enum { MOST = 64 };
    struct rv_cache_shard *sh = &c->shards[i];
    size_t left = rv_load_relaxed(&c->table.shards[i].count);
    unsigned n = 1;
    while (left > 0 && n > 0) {
        struct rv_entry *gone = NULL;
        if (cause != REEVE_DROP_CLOSED)
            rv_cache_lock(sh);
        n = rv_table_evict(&c->table, i, left < MOST ? (unsigned)left : MOST, cause, &gone);
        rv_cache_settle(c, gone, NULL);
        if (cause != REEVE_DROP_CLOSED)
            rv_cache_unlock(sh);
        rv_cache_let_go(c, gone);
        left -= n;
    }
}

void reeve_cache_clear(reeve_cache *c)
{
    if (c->forks != rv_forks())
        return;
    reeve_cache_invalidate(c);
    for (unsigned i = 0; i < c->table.shards_n; i++)
        empty_shard(c, i, RV_CAUSE_CLEARED);
    rv_table_sweep(&c->table);
}

size_t reeve_cache_expire(reeve_cache *c, size_t most)
{
    enum { MOST = 64 };
    size_t n = 0;
    if (c->forks != rv_forks())
        return 0;
    for (unsigned i = 0; i < c->table.shards_n && n < most; i++) {
        /* What came due together with what has expired is looked at too: each entry once. */
        size_t looks = rv_load_relaxed(&c->table.shards[i].count);
        for (bool more = true; more && n < most;) {
            struct rv_entry *gone = NULL;
            unsigned some = most - n < MOST ? (unsigned)(most - n) : MOST;
            rv_cache_lock(&c->shards[i]);
            unsigned got = rv_cache_reap(c, &c->shards[i], some, &gone);
            more = got > 0 || (looks > 0 && rv_wheel_spilled(&c->shards[i].wheel));
            rv_cache_unlock(&c->shards[i]);
            rv_cache_let_go(c, gone);
            n += got;
            looks -= looks < some ? looks : some;
        }
    }
    return n;
}

/* ---- creating -------------------------------------------------------------------------------- */

static unsigned default_shards(const struct reeve_cache_opts *o)
{
    size_t by_entries = o->entries_max > 0 ? o->entries_max / SHARD_ENTRIES : SHARDS;
    size_t by_bytes = o->bytes_max > 0 ? o->bytes_max / SHARD_BYTES : SHARDS;
    size_t most = by_entries < by_bytes ? by_entries : by_bytes;
    unsigned n = 1;
    while (n < SHARDS && 2 * n <= most)
        n *= 2;
    return n;
}

/* 0 or -EINVAL. */
static int complete(struct reeve_cache_opts *o)
{
    if (o->policy < REEVE_S3FIFO || o->policy > REEVE_ADAPTIVE || o->levels > 3)
        return -EINVAL;
    if (o->ttl_ns < 0 || o->refresh_ns < 0 || o->negative_ns < 0 || o->load_ns < 0)
        return -EINVAL;
    if (o->refresh_ns > 0 && o->ttl_ns > 0 && o->refresh_ns >= o->ttl_ns)
        return -EINVAL;
    if (o->shards > SHARDS_MAX || (o->shards & (o->shards - 1)) != 0 || o->l1_entries > 65536)
        return -EINVAL;
    if (o->levels == 3 && o->l3_path == NULL)
        return -EINVAL;
    if (o->entries_max > ENTRIES_MAX || o->entries > ENTRIES_MAX)
        return -EINVAL;
    if (o->bytes_max == 0 && o->entries_max == 0)
        o->entries_max = ENTRIES;
    while (o->entries_max > 0 && o->shards > o->entries_max)
        o->shards /= 2; /* each has one at least, and there are not to be more */
    if (o->shards == 0)
        o->shards = default_shards(o);
    if (o->levels == 0)
        o->levels = 2;
    if (o->l1_entries == 0) /* with room to spare, as few keys share a set then */
        o->l1_entries = o->entries_max > 0 && o->entries_max < L1 / 4
                            ? 4 * (unsigned)o->entries_max : L1;
    if (o->l3_bytes == 0)
        o->l3_bytes = L3_BYTES;
    o->blocks |= o->levels == 3;
    return 0;
}

static void release(void *ctx, struct rv_entry *in)
{
    (void)ctx;
    rv_free(rv_cache_entry(in));
}

/* What is there of a cache in which nothing is any more. */
static void free_cache(struct reeve_cache *c)
{
    for (uint32_t i = 0; c->fronts != NULL && i < c->sched->nworkers; i++)
        rv_front_destroy(c->fronts[i]);
    if (c->table.shards != NULL)
        rv_table_finish(&c->table);
    rv_free(c->fronts);
    rv_free(c->shards);
    rv_free(c);
}

static int make_parts(struct reeve_cache *c, const struct rv_cache_tweaks *tweaks)
{
    struct rv_table_opts opts = { .shards = c->o.shards,
                                  .policy = c->o.policy,
                                  .bytes_max = c->o.bytes_max,
                                  .entries_max = c->o.entries_max,
                                  .entries = c->o.entries,
                                  .release = release,
                                  .seed = tweaks->seed };
    int r = rv_table_init(&c->table, &opts);
    if (r < 0)
        return r;
    uint32_t workers = c->sched->nworkers;
    c->shards = rv_alloc_aligned(c->o.shards * sizeof *c->shards, RV_CACHE_LINE);
    if (c->shards == NULL)
        return -ENOMEM;
    memset(c->shards, 0, c->o.shards * sizeof *c->shards);
    for (unsigned i = 0; i < c->o.shards; i++)
        rv_wheel_init(&c->shards[i].wheel, c->now());
    c->fronts = rv_alloc_zero(workers * sizeof(*c->fronts));
    if (c->fronts == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < workers && r == 0; i++)
        r = rv_front_create(&c->fronts[i], c, c->sched->workers[i]);
    return r;
}

int rv_cache_create(reeve_cache **ret_cache, const struct reeve_cache_opts *opts,
                    const struct rv_cache_tweaks *tweaks, reeve_time until)
{
    struct rv_worker *w = rv_in_task("reeve_cache_create");
    if (opts == NULL)
        return -EINVAL;
    struct reeve_cache_opts o = *opts;
    int r = complete(&o);
    if (r < 0)
        return r;
    struct reeve_cache *c = rv_alloc_aligned(sizeof *c, RV_CACHE_LINE);
    if (c == NULL)
        return -ENOMEM;
    memset(c, 0, sizeof *c);
    c->o = o;
    c->sched = w->sched;
    c->forks = rv_forks();
    c->now = tweaks->now != NULL ? tweaks->now : reeve_now;
    c->heat_max = o.policy == REEVE_S3FIFO ? 3 : o.policy == REEVE_SIEVE ? 1 : 0;
    r = make_parts(c, tweaks);
    if (r == 0)
        r = rv_l3_open(c, until);
    if (r < 0) {
        free_cache(c);
        return r;
    }
    *ret_cache = c;
    return 0;
}

int reeve_cache_create(reeve_cache **ret_cache, const struct reeve_cache_opts *opts,
                       reeve_time until)
{
    return rv_cache_create(ret_cache, opts, &(struct rv_cache_tweaks){ 0 }, until);
}

void reeve_cache_destroy(reeve_cache *c, reeve_time until)
{
    if (c == NULL || c->forks != rv_forks())
        return;
    struct rv_worker *w = rv_in_task("reeve_cache_destroy");
    if (w->sched != c->sched)
        rv_die("reeve_cache_destroy was called in a task of another runtime than "
               "reeve_cache_create.");
    struct rv_task *cur = w->cur;
    bool masked = rv_load_relaxed(&cur->ctl) & RV_CTL_MASKED;
    until = rv_deadline(cur, until);
    rv_wait_mask(cur, true); /* what goes to L3 goes there from a cancelled task too */
    rv_cache_quiet(c, until);
    c->closed_at = until;
    for (unsigned i = 0; i < c->table.shards_n; i++)
        while (rv_load_relaxed(&c->table.shards[i].count) > 0)
            empty_shard(c, i, REEVE_DROP_CLOSED);
    rv_cache_quiet(c, until); /* sweeps of what has just gone */
    rv_l3_close(c, until);
    for (uint32_t i = 0; i < c->sched->nworkers; i++) {
        rv_front_destroy(c->fronts[i]);
        c->fronts[i] = NULL;
    }
    if (rv_table_lent(&c->table) != 0)
        rv_die("reeve_cache_destroy: a value is still borrowed.");
    free_cache(c);
    if (!masked)
        rv_wait_mask(cur, false);
}

/* ---- warming --------------------------------------------------------------------------------- */

struct warming {
    struct reeve_cache *cache;
    const struct reeve_bytes *keys;
    size_t n;
    RV_ATOMIC(size_t) next;
    RV_ATOMIC(int) error; /* the first */
};

static int warm_some(void *arg)
{
    struct warming *job = arg;
    size_t i;
    while ((i = rv_add_relaxed(&job->next, (size_t)1)) < job->n) {
        struct reeve_value value;
        int none = 0, r = reeve_cache_borrow(job->cache, job->keys[i], &value, 0);
        if (r == 0)
            reeve_cache_return(job->cache, value);
        else
            rv_cas(&job->error, &none, r);
        /* Else the task is at its end, and not one key's load. */
        if (r < 0 && rv_wait_check(rv_worker_self()->sched, rv_worker_self()->cur) < 0)
            return r;
    }
    return 0;
}

int reeve_cache_warm(reeve_cache *c, const struct reeve_bytes keys[], size_t n, reeve_time until)
{
    enum { AT_ONCE = 64 };
    struct warming job = { .cache = c, .keys = keys, .n = n };
    reeve_group group = { 0 };
    rv_in_task("reeve_cache_warm");
    if (c->o.load == NULL)
        return -EINVAL;
    size_t tasks = n < AT_ONCE ? n : AT_ONCE, begun = 0;
    int r = 0;
    while (begun < tasks && r == 0) {
        r = reeve_spawn_with(NULL, &(struct reeve_spawn){ .fn = warm_some,
                                                          .arg = &job,
                                                          .group = &group,
                                                          .name = "cache warm" });
        begun += r == 0;
    }
    if (begun == 0)
        return r; /* nothing to do, or no task for it */
    r = reeve_group_wait(&group, until);
    return r < 0 ? r : rv_load_relaxed(&job.error);
}
