/* SPDX-License-Identifier: MIT */
/*
 * pool.c -- object pools: magazines of their own for workers, one depot for all.
 *
 *     worker's magazine <-- batches --> depot (array, under a lock)
 *                                         ^
 *     returned without a magazine --> back (Concurrency Kit's stack)
 *
 * Borrowing and returning work on the magazine of the caller's seat: an array, no lock, no atomic
 * read-modify-write. An empty magazine takes half of what it holds from the depot, a full one gives
 * its older half: one memcpy of pointers under a lock of some 20 ns, shared by half a magazine of
 * calls. Lock-free lists of whole magazines would cost a double-width swap and magazines that are
 * never freed, and need one that is empty at hand whenever a full one goes; they would save less
 * than a nanosecond a call.
 *
 * Who has no magazine, mostly a thread that is no worker, returns by one push to a stack that is
 * only ever taken whole (the one mode of it that needs neither generations nor deferred freeing),
 * so that he never waits for a preempted holder of the lock. He borrows from the depot.
 *
 * (1) Idle objects never number more than idle_max: magazines take their capacity out of `room`
 *     when they are made, at most half of it in all; what goes to depot or back takes its place
 *     there before it goes, and what finds none is freed.
 * (2) objects counts what exists: raised before memory is asked for, lowered when it is freed.
 * (3) No hook is called with a lock held, or between looking a magazine up and being done with it:
 *     a hook may wait, and its task go on as another worker.
 * (4) Magazines and tables live as long as the pool. A table that has become too small stays, for
 *     those who still read it.
 * (5) A return frees a few objects at most, DROPS_MAX, however many are too many; only who was
 *     asked to trim frees all that he has at hand.
 * (6) In a child of fork a pool works on; what was in the hands of the parent's other threads is
 *     lost. Every change of the depot is one store of depot_n, behind the pointers it counts.
 *
 *     made -> live             [rv_pool_get_slow]
 *     live -> in a magazine    [rv_pool_put]         in a magazine -> live    [rv_pool_get]
 *     in a magazine -> depot   [give]                depot -> in a magazine   [take, make_mag]
 *     live -> back             [rv_pool_put_slow]    back -> depot            [collect]
 *     idle, or live and no room -> freed             [destroy_object]
 *
 * Threads: init, finish - one, while nobody else uses the pool; the rest - any.
 */
#include "mem/pool.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "mem/alloc.h"
#include "mem/die.h"
#include "mem/fault.h"
#include "mem/forked.h"
#include "mem/prof.h"
#include "mem/stack.h"

#ifdef RV_ASAN
#include <sanitizer/asan_interface.h>
#endif

#define BYTES_MAX ((size_t)1 << 30)
#define ALIGN_MAX ((size_t)1 << 20)
#define ALIGN_MIN ((size_t)16)
#define IDLE_MAX (1U << 24)
#define IDLE_BYTES ((size_t)16 << 20)   /* of a pool whose creator did not say */
#define IDLE_LEAST 16
#define IDLE_MOST 1024
#define SEATS_FIRST 16
#define DROPS_MAX 8U

_Static_assert(sizeof(struct rv_pool_head) % ALIGN_MIN == 0, "an object behind it is aligned");
_Static_assert(offsetof(struct rv_pool_head, link) % sizeof(void *) == 0, "links are words");

/* ---- what is done to idle objects ------------------------------------------------------------ */

#ifdef RV_DEBUG
enum { STALE = 0xdf, FRESH = 0xcd, GUARD_BYTES = 16, GUARD = 0xfd };

static uint64_t sum_of(const unsigned char *object, size_t bytes)
{
    uint64_t sum = bytes, word;
    for (; bytes >= sizeof word; bytes -= sizeof word, object += sizeof word) {
        memcpy(&word, object, sizeof word);
        sum = (sum ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        sum ^= sum >> 29;
    }
    for (; bytes > 0; bytes--)
        sum = (sum ^ *object++) * UINT64_C(0x100000001b3);
    return sum;
}

static bool has_state(const struct reeve_pool *pool)
{
    return pool->init != NULL || pool->reset != NULL || pool->finish != NULL;
}

static void check_guard(const struct reeve_pool *pool, const unsigned char *object)
{
    for (size_t i = 0; i < GUARD_BYTES; i++)
        if (object[pool->bytes + i] != GUARD)
            rv_die("Pool %s: an object was written beyond its end, by %zu bytes or more.",
                   pool->name, i + 1);
}
#else
enum { GUARD_BYTES = 0 };
#endif

/* AddressSanitizer marks eight bytes at a time, from the first. */
static size_t whole_words(size_t bytes)
{
    return (bytes + 7) & ~(size_t)7;
}

void rv_pool_seal(struct reeve_pool *pool, void *object)
{
#ifdef RV_DEBUG
    check_guard(pool, object);
    if (!has_state(pool))
        memset(object, STALE, pool->bytes);
    rv_pool_head(object)->sum = sum_of(object, pool->bytes);
#endif
#ifdef RV_ASAN
    ASAN_POISON_MEMORY_REGION(object, whole_words(pool->bytes));
#endif
    (void)pool;
    (void)object;
}

/* As it was when it was sealed. */
static void open_seal(struct reeve_pool *pool, void *object)
{
#ifdef RV_ASAN
    ASAN_UNPOISON_MEMORY_REGION(object, whole_words(pool->bytes));
#endif
#ifdef RV_DEBUG
    if (rv_pool_head(object)->sum != sum_of(object, pool->bytes))
        rv_die("Pool %s: an object was written to after it was returned.", pool->name);
#endif
    (void)pool;
    (void)object;
}

void rv_pool_unseal(struct reeve_pool *pool, void *object)
{
    open_seal(pool, object);
#ifdef RV_DEBUG
    if (!has_state(pool))
        memset(object, FRESH, pool->bytes);
#endif
}

/* ---- objects --------------------------------------------------------------------------------- */

static size_t block_bytes(const struct reeve_pool *pool)
{
    return pool->offset + whole_words(pool->bytes) + GUARD_BYTES;
}

size_t rv_pool_block_bytes(size_t bytes)
{
    return sizeof(struct rv_pool_head) + whole_words(bytes) + GUARD_BYTES;
}

static void free_block(struct reeve_pool *pool, void *object)
{
    unsigned char *block = (unsigned char *)object - pool->offset;
    rv_pool_head(object)->owner = 0;    /* it is found out if it comes back */
    if (pool->source != NULL)
        pool->source->give(pool, block, block_bytes(pool));
    else
        rv_free(block);
    rv_pool_freed(block_bytes(pool));
    rv_sub_relaxed(&pool->objects, 1U);
}

/* An idle object ends. */
static void destroy_object(struct reeve_pool *pool, void *object)
{
    RV_ASSERT(rv_pool_head(object)->owner == ((uintptr_t)pool + RV_POOL_IDLE));
    open_seal(pool, object);
    if (pool->finish != NULL)
        pool->finish(pool->ctx, object);
    free_block(pool, object);
}

static void destroy_all(struct reeve_pool *pool, void *const *objects, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        destroy_object(pool, objects[i]);
}

/* Takes a place among the objects that may exist. */
static bool count_one(struct reeve_pool *pool)
{
    uint64_t objects = rv_add_relaxed(&pool->objects, 1U) + 1;
    if (pool->objects_max > 0 && objects > pool->objects_max) {
        rv_sub_relaxed(&pool->objects, 1U);
        return false;
    }
    uint64_t peak = rv_load_relaxed(&pool->peak);
    while (objects > peak && !rv_cas_relaxed(&pool->peak, &peak, objects))
        continue;
    return true;
}

static void *new_block(struct reeve_pool *pool)
{
    if (pool->source != NULL)
        return pool->source->take(pool, block_bytes(pool));
    if (pool->align <= ALIGN_MIN)
        return rv_alloc_zero(block_bytes(pool));
    unsigned char *block = rv_alloc_aligned(block_bytes(pool), pool->align);
    if (block != NULL)
        memset(block, 0, block_bytes(pool));
    return block;
}

/* A new object, on loan. 0, -EAGAIN: there are too many, -ENOMEM, or what init said. */
static int make_object(struct reeve_pool *pool, void **ret_object)
{
    if (!count_one(pool))
        return -EAGAIN;
    unsigned char *block = new_block(pool);
    if (block == NULL) {
        rv_sub_relaxed(&pool->objects, 1U);
        return -ENOMEM;
    }
    rv_pool_held(block_bytes(pool));
    void *object = block + pool->offset;
    *rv_pool_head(object) = (struct rv_pool_head){ .owner = pool->live };
#ifdef RV_DEBUG
    memset((unsigned char *)object + pool->bytes, GUARD, GUARD_BYTES);
#endif
    int r = pool->init != NULL ? pool->init(pool->ctx, object) : 0;
    if (r < 0) {
        free_block(pool, object);
        return r;
    }
    *ret_object = object;
    return 0;
}

/* ---- the depot, and what comes back without a magazine --------------------------------------- */

/* Takes room for up to want idle objects; for how many. */
static uint32_t reserve(struct reeve_pool *pool, uint32_t want)
{
    int64_t before = rv_sub_relaxed(&pool->room, (int64_t)want);
    int64_t granted = before < 0 ? 0 : before < (int64_t)want ? before : (int64_t)want;
    if (granted < (int64_t)want)
        rv_add_relaxed(&pool->room, (int64_t)want - granted);
    RV_ASSERT(granted >= 0);
    RV_ASSERT(granted <= (int64_t)want);
    return (uint32_t)granted;
}

static void unreserve(struct reeve_pool *pool, uint32_t n)
{
    int64_t before = rv_add_relaxed(&pool->room, (int64_t)n);
    RV_ASSERT(before + (int64_t)n <= (int64_t)pool->idle_max);
    (void)before;
}

/* As in sched/inbox.h: ThreadSanitizer and the explorer cannot see into Concurrency Kit. */
#if defined(RV_TSAN) || defined(RV_ATOMIC_BACKEND)

static bool back_is_empty(struct reeve_pool *pool)
{
    return rv_load_relaxed(&pool->back) == 0;
}

static void push_back(struct reeve_pool *pool, ck_stack_entry_t *link)
{
    uintptr_t newest = rv_load_relaxed(&pool->back);
    do
        link->next = (ck_stack_entry_t *)newest;
    while (!rv_cas(&pool->back, &newest, (uintptr_t)link)); /* pairs with take_back() */
}

static ck_stack_entry_t *take_back(struct reeve_pool *pool)
{
    return (ck_stack_entry_t *)rv_xchg_acq_rel(&pool->back, 0);
}

#else

static bool back_is_empty(struct reeve_pool *pool)
{
    return ck_pr_load_ptr(&pool->back.head) == NULL;
}

static void push_back(struct reeve_pool *pool, ck_stack_entry_t *link)
{
    ck_stack_push_upmc(&pool->back, link);
}

static ck_stack_entry_t *take_back(struct reeve_pool *pool)
{
    return ck_stack_batch_pop_upmc(&pool->back);
}

#endif

static void *object_of(ck_stack_entry_t *link)
{
    unsigned char *head = (unsigned char *)link - offsetof(struct rv_pool_head, link);
    return (struct rv_pool_head *)(void *)head + 1;
}

/* Under the lock: what came back moves to the depot, where it has room already. */
static void collect(struct reeve_pool *pool)
{
    if (back_is_empty(pool))
        return;
    uint32_t n = rv_load_relaxed(&pool->depot_n);
    for (ck_stack_entry_t *link = take_back(pool); link != NULL; link = link->next) {
        RV_ASSERT(n < pool->idle_max);
        pool->depot[n++] = object_of(link);
    }
    rv_store_release(&pool->depot_n, n); /* for a child of fork: after the pointers */
}

/* Moves up to want idle objects out; how many. Their room is the caller's to give back. */
static uint32_t take_locked(struct reeve_pool *pool, void **ret_objects, uint32_t want)
{
    RV_ASSERT(rv_lock_is_held(&pool->lock));
    RV_ASSERT(want <= RV_POOL_MAG_MAX);
    if (rv_load_relaxed(&pool->depot_n) < want)
        collect(pool);
    uint32_t have = rv_load_relaxed(&pool->depot_n), n = have < want ? have : want;
    memcpy(ret_objects, pool->depot + have - n, n * sizeof *ret_objects);
    rv_store_release(&pool->depot_n, have - n);
    return n;
}

static uint32_t take(struct reeve_pool *pool, void **ret_objects, uint32_t want)
{
    if (rv_load_relaxed(&pool->depot_n) == 0 && back_is_empty(pool))
        return 0;
    rv_lock_acquire(&pool->lock);
    uint32_t n = take_locked(pool, ret_objects, want);
    rv_lock_release(&pool->lock);
    unreserve(pool, n);
    return n;
}

/* Moves idle objects to the depot, the last ones if there is not room for all; how many. */
static uint32_t give(struct reeve_pool *pool, void *const *objects, uint32_t n)
{
    uint32_t granted = reserve(pool, n);
    if (granted == 0)
        return 0;
    rv_lock_acquire(&pool->lock);
    uint32_t have = rv_load_relaxed(&pool->depot_n);
    RV_MUST(have + granted <= pool->idle_max);
    memcpy(pool->depot + have, objects + (n - granted), granted * sizeof *objects);
    rv_store_release(&pool->depot_n, have + granted); /* for a child of fork: after the pointers */
    rv_lock_release(&pool->lock);
    return granted;
}

/* ---- magazines ------------------------------------------------------------------------------- */

struct rv_pool_mag rv_pool_no_mag;

static bool is_mag(const struct rv_pool_mag *mag)
{
    return mag != &rv_pool_no_mag;
}

static void count(RV_ATOMIC(uint64_t) *of_the_owner, uint64_t n)
{
    rv_store_relaxed(of_the_owner, rv_load_relaxed(of_the_owner) + n);
}

/* Under the lock: makes the table long enough for seat. */
static int grow_table(struct reeve_pool *pool, uint32_t seat)
{
    uint32_t have = rv_load_relaxed(&pool->seats), want = have > 0 ? have : SEATS_FIRST, i = 0;
    if (seat < have)
        return 0;
    while (want <= seat)
        want *= 2;
    rv_pool_slot *old = rv_load_relaxed(&pool->table), *table = rv_alloc(want * sizeof *table);
    if (table == NULL)
        return -ENOMEM;
    for (; i < want; i++)
        rv_store_relaxed(&table[i], i < have ? rv_load_relaxed(&old[i]) : &rv_pool_no_mag);
    for (i = 0; pool->tables[i] != NULL; i++)
        RV_ASSERT(i < RV_POOL_TABLES - 1);
    pool->tables[i] = table;
    rv_store_release(&pool->table, table);  /* both pair with rv_pool_mag_of() */
    rv_store_release(&pool->seats, want);
    return 0;
}

/* Under the lock: how many objects a new magazine is to hold, and their room. (1): what it takes
 * from the depot at once leaves room there for the rest. */
static uint32_t claim_cap(struct reeve_pool *pool, void **objects, uint32_t *ret_n)
{
    uint32_t left = rv_load_relaxed(&pool->mags_left), cap = left / 2;
    RV_ASSERT(rv_lock_is_held(&pool->lock));
    RV_ASSERT(left <= pool->idle_max / 2);
    if (cap > RV_POOL_MAG_MAX)
        cap = RV_POOL_MAG_MAX;
    *ret_n = cap > 0 ? take_locked(pool, objects, cap) : 0;
    cap = *ret_n + reserve(pool, cap - *ret_n);
    rv_store_relaxed(&pool->mags_left, left - cap);
    return cap;
}

/* Under the lock: the magazine of a seat that had none, unless there is no memory or no room. */
static struct rv_pool_mag *make_mag(struct reeve_pool *pool, uint32_t seat)
{
    void *objects[RV_POOL_MAG_MAX];
    uint32_t n;
    if (rv_load_relaxed(&pool->mags_left) < 2 || grow_table(pool, seat) < 0)
        return &rv_pool_no_mag;
    size_t bytes = sizeof(struct rv_pool_mag) + RV_POOL_MAG_MAX * sizeof(void *);
    struct rv_pool_mag *mag = rv_alloc_aligned(bytes, RV_CACHE_LINE);
    if (mag == NULL)
        return &rv_pool_no_mag;
    memset(mag, 0, bytes);
    mag->cap = claim_cap(pool, objects, &n);
    if (mag->cap == 0) {
        rv_free(mag);
        return &rv_pool_no_mag;
    }
    memcpy(mag->object, objects, n * sizeof *objects);
    rv_store_relaxed(&mag->n, n);
    rv_store_relaxed(&mag->moved, n);
    rv_store_relaxed(&mag->limit, mag->cap);
    rv_store_relaxed(&mag->follow_at,
                     rv_prof_on() ? rv_prof_gap(pool->bytes) : UINT64_MAX);
    rv_store_release(&rv_load_relaxed(&pool->table)[seat], mag); /* pairs with rv_pool_mag_at() */
    return mag;
}

/* The caller's magazine, made if need be; or the one that stands for none. */
static struct rv_pool_mag *own_mag(struct reeve_pool *pool)
{
    struct rv_local *local = rv_local_get();
    struct rv_pool_mag *mag = rv_pool_mag_of(pool, local);
    if (is_mag(mag) || local == NULL)
        return mag;
    uint32_t seat = rv_seat_take(local);
    mag = rv_pool_mag_of(pool, local);  /* an earlier holder of the seat may have left one */
    if (is_mag(mag) || seat == RV_SEAT_NONE || rv_load_relaxed(&pool->mags_left) < 2)
        return mag;
    rv_lock_acquire(&pool->lock);
    mag = make_mag(pool, seat);
    rv_lock_release(&pool->lock);
    return mag;
}

/* Takes all that is in a magazine of the caller's, to be destroyed; how many. */
static uint32_t empty_mag(struct rv_pool_mag *mag, void **ret_objects)
{
    uint32_t n = (uint32_t)rv_load_relaxed(&mag->n);
    memcpy(ret_objects, mag->object, n * sizeof *ret_objects);
    rv_store_relaxed(&mag->n, 0);
    rv_store_relaxed(&mag->limit, mag->cap);
    count(&mag->moved, -(uint64_t)n);
    count(&mag->dropped, n);
    return n;
}

/* ---- the slow halves ------------------------------------------------------------------------- */

static void mark_followed(struct reeve_pool *pool, void *object, const void *site)
{
    struct rv_pool_head *head = rv_pool_head(object);
    RV_ASSERT(head->owner == pool->live);
    head->mark = rv_prof_took(site, pool->bytes, rv_prof_weight(pool->bytes));
    head->owner = (uintptr_t)pool + RV_POOL_FOLLOWED;
}

void *rv_pool_follow(struct reeve_pool *pool, struct rv_pool_mag *mag, void *object,
                     const void *site)
{
    uint64_t at = rv_load_relaxed(&mag->follow_at);
    bool on = rv_prof_on();
    uint64_t next = on ? rv_load_relaxed(&mag->hits) + rv_prof_gap(pool->bytes) : UINT64_MAX;
    rv_cas_relaxed(&mag->follow_at, &at, next);     /* fails if the profiler has just begun anew */
    if (on)
        mark_followed(pool, object, site);
    return object;
}

/* Objects that were taken without a magazine, or made. */
static void follow_shared(struct reeve_pool *pool, void *object, const void *site)
{
    if (!rv_prof_on() || rv_sub_relaxed(&pool->follow_in, 1) > 1)
        return;
    rv_store_relaxed(&pool->follow_in, (int64_t)rv_prof_gap(pool->bytes));
    mark_followed(pool, object, site);
}

/* An idle object out of the caller's magazine, which takes some from the depot if it is empty. */
static void *take_by_mag(struct reeve_pool *pool, struct rv_pool_mag *mag)
{
    uint32_t n = (uint32_t)rv_load_relaxed(&mag->n);
    if (n == 0)
        count(&mag->moved, n = take(pool, mag->object, (mag->cap + 1) / 2));
    if (n == 0)
        return NULL;
    rv_store_relaxed(&mag->n, n - 1);
    count(&mag->hits, 1);
    return mag->object[n - 1];
}

void *rv_pool_get_slow(struct reeve_pool *pool, const void *site)
{
    void *object = NULL;
    struct rv_pool_mag *mag = own_mag(pool);
    if (is_mag(mag))
        object = take_by_mag(pool, mag);
    else if (take(pool, &object, 1) > 0)
        rv_add_relaxed(&pool->hits, 1U);
    if (object != NULL) {
        rv_pool_unseal(pool, object);
        rv_pool_head(object)->owner = pool->live;
        if (is_mag(mag) && rv_load_relaxed(&mag->hits) < rv_load_relaxed(&mag->follow_at))
            return object;
        if (is_mag(mag))
            return rv_pool_follow(pool, mag, object, site);
    } else if (make_object(pool, &object) == 0) {
        rv_add_relaxed(&pool->misses, 1U);
    } else {
        rv_add_relaxed(&pool->refused, 1U);
        return NULL;
    }
    follow_shared(pool, object, site);
    return object;
}

/* An object comes back that has more to do than others, or should not come back. */
void rv_pool_ask(struct reeve_pool *pool, void *object)
{
    struct rv_pool_head *head = rv_pool_head(object);
    const char *call = pool->source != NULL ? "reeve_free" : "reeve_pool_return";
    if (head->owner == (uintptr_t)pool + RV_POOL_IDLE)
        rv_die("%s: this object of pool %s was returned twice.", call, pool->name);
    if (head->owner == (uintptr_t)pool + RV_POOL_FOLLOWED)
        rv_prof_gave(head->mark, pool->bytes);
    else if (head->owner != pool->live)
        rv_die("%s: this object is not on loan from pool %s.", call, pool->name);
    head->owner = pool->live;
    if (pool->reset != NULL)
        pool->reset(pool->ctx, object);
}

/* Without a magazine. */
static void put_shared(struct reeve_pool *pool, void *object)
{
    rv_add_relaxed(&pool->returned, 1U);
    if (reserve(pool, 1) > 0) {
        push_back(pool, &rv_pool_head(object)->link);
        return;
    }
    rv_add_relaxed(&pool->dropped, 1U);
    destroy_object(pool, object);
}

/* Makes room in a full magazine, by giving its older half to the depot: the younger is what the
 * caches hold. If the depot has no room for any, a few of that half are to be freed; how many. */
static uint32_t make_room(struct reeve_pool *pool, struct rv_pool_mag *mag, void **ret_drops)
{
    uint32_t n = (uint32_t)rv_load_relaxed(&mag->n), half = (n + 1) / 2, drops = 0;
    uint32_t gone = give(pool, mag->object, half);
    if (gone == 0)
        gone = drops = half < DROPS_MAX ? half : DROPS_MAX;
    uint32_t keep = half - gone;
    memcpy(ret_drops, mag->object + keep, drops * sizeof *ret_drops);
    memmove(mag->object + keep, mag->object + half, (n - half) * sizeof *ret_drops);
    rv_store_relaxed(&mag->n, n - gone);
    count(&mag->moved, -(uint64_t)gone);
    count(&mag->dropped, drops);
    return drops;
}

void rv_pool_put_slow(struct reeve_pool *pool, void *object)
{
    void *out[RV_POOL_MAG_MAX];
    struct rv_pool_mag *mag = own_mag(pool);
    if (!is_mag(mag)) {
        put_shared(pool, object);
        return;
    }
    uint32_t drops = 0;
    RV_ASSERT(rv_load_relaxed(&mag->n) <= mag->cap);
    if (rv_load_relaxed(&mag->limit) == 0)      /* as trim_seat() wished */
        drops = empty_mag(mag, out);
    else if (rv_load_relaxed(&mag->n) == mag->cap)
        drops = make_room(pool, mag, out);
    size_t n = rv_load_relaxed(&mag->n);
    mag->object[n] = object;
    rv_store_relaxed(&mag->n, n + 1);
    destroy_all(pool, out, drops);
}

/* ---- trimming -------------------------------------------------------------------------------- */

/* Frees up to `most` idle objects of depot and back; how many. */
static size_t trim_depot(struct reeve_pool *pool, size_t most)
{
    void *out[RV_POOL_MAG_MAX];
    size_t freed = 0;
    while (freed < most) {
        size_t want = most - freed < RV_POOL_MAG_MAX ? most - freed : RV_POOL_MAG_MAX;
        uint32_t n = take(pool, out, (uint32_t)want);
        if (n == 0)
            break;
        rv_add_relaxed(&pool->dropped, n);
        destroy_all(pool, out, n);
        freed += n;
    }
    return freed;
}

/* The magazine of a seat if it can be had, else its holder is asked. How many were freed. */
static size_t trim_seat(struct reeve_pool *pool, uint32_t seat)
{
    void *out[RV_POOL_MAG_MAX];
    struct rv_pool_mag *mag = rv_pool_mag_at(pool, seat);
    if (!is_mag(mag))
        return 0;
    struct rv_local *local = rv_local_get();
    bool own = local != NULL && local->seat == seat, vacant = !own && rv_seat_try(seat);
    if (!own && !vacant) {
        rv_store_relaxed(&mag->limit, 0U); /* a wish: the holder sees it when it returns one */
        return 0;
    }
    uint32_t n = empty_mag(mag, out);
    if (vacant)
        rv_seat_give(seat);
    destroy_all(pool, out, n);
    return n;
}

size_t reeve_pool_trim(reeve_pool *pool, size_t idle)
{
    struct reeve_pool_stats now;
    reeve_pool_stats(pool, &now);
    if (now.idle <= idle)
        return 0;
    size_t excess = (size_t)now.idle - idle, freed = trim_depot(pool, excess);
    for (uint32_t i = 1; freed < excess && i < rv_load_acquire(&pool->seats); i++)
        freed += trim_seat(pool, i);
    return freed;
}

size_t reeve_pool_clear(reeve_pool *pool)
{
    return reeve_pool_trim(pool, 0);
}

/* ---- from beginning to end ------------------------------------------------------------------- */

static bool is_sane(const struct reeve_pool_opts *o)
{
    return o->bytes > 0 && o->bytes <= BYTES_MAX && o->align <= ALIGN_MAX &&
           (o->align & (o->align - 1)) == 0 && o->idle_max <= IDLE_MAX;
}

static uint32_t usual_idle(size_t bytes)
{
    size_t n = IDLE_BYTES / bytes;
    return n < IDLE_LEAST ? IDLE_LEAST : n > IDLE_MOST ? IDLE_MOST : (uint32_t)n;
}

/* Each page is there afterwards, and its bytes are what they were. */
static void touch(volatile unsigned char *object, size_t bytes)
{
    for (size_t at = 0, page = rv_page_bytes(); at < bytes; at += page)
        object[at] = object[at];
}

static int prefault(struct reeve_pool *pool, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        void *object;
        int r = make_object(pool, &object);
        if (r < 0)
            return r;
        touch(object, pool->bytes);
        rv_pool_head(object)->owner = (uintptr_t)pool + RV_POOL_IDLE;
        rv_pool_seal(pool, object);
        RV_MUST(give(pool, &object, 1) == 1);
    }
    return 0;
}

int rv_pool_init(struct reeve_pool *pool, const struct reeve_pool_opts *o)
{
    RV_ASSERT((uintptr_t)pool % RV_CACHE_LINE == 0);
    if (o == NULL || !is_sane(o))
        return -EINVAL;
    uint32_t idle_max = o->idle_max > 0 ? o->idle_max : usual_idle(o->bytes);
    if (o->prefault > idle_max || (o->objects_max > 0 && o->prefault > o->objects_max))
        return -EINVAL;
    void **depot = rv_alloc(idle_max * sizeof *depot);
    if (depot == NULL)
        return -ENOMEM;
    size_t head = sizeof(struct rv_pool_head);
    pool->align = o->align > ALIGN_MIN ? o->align : ALIGN_MIN;
    pool->offset = (head + pool->align - 1) & ~(pool->align - 1);
    pool->bytes = o->bytes;
    pool->idle_max = idle_max;
    pool->objects_max = o->objects_max;
    pool->ctx = o->ctx;
    pool->init = o->init;
    pool->reset = o->reset;
    pool->finish = o->finish;
    pool->live = (uintptr_t)pool + (o->reset != NULL ? RV_POOL_LOUD : RV_POOL_LIVE);
    pool->forks = rv_forks();
    pool->depot = depot;
    snprintf(pool->name, sizeof pool->name, "%s", o->name != NULL ? o->name : "pool");
    rv_store_relaxed(&pool->room, (int64_t)idle_max);
    rv_store_relaxed(&pool->mags_left, idle_max / 2);
    rv_pool_list_add(pool);
    int r = prefault(pool, o->prefault);
    if (r < 0)
        rv_pool_finish(pool);
    return r;
}

static void free_mags(struct reeve_pool *pool)
{
    for (uint32_t i = 0; i < rv_load_relaxed(&pool->seats); i++) {
        struct rv_pool_mag *mag = rv_pool_mag_at(pool, i);
        if (!is_mag(mag))
            continue;
        destroy_all(pool, mag->object, (uint32_t)rv_load_relaxed(&mag->n));
        rv_free(mag);
    }
    for (uint32_t i = 0; i < RV_POOL_TABLES; i++)
        rv_free(pool->tables[i]);
}

void rv_pool_finish(struct reeve_pool *pool)
{
    rv_pool_list_remove(pool);
    trim_depot(pool, SIZE_MAX);
    free_mags(pool);
    rv_free(pool->depot);
    uint64_t left = rv_load_relaxed(&pool->objects);
    if (left > 0 && pool->forks == rv_forks())
        rv_die("reeve_pool_destroy: pool %s has %llu on loan.", pool->name,
               (unsigned long long)left);
}

int reeve_pool_create(reeve_pool **ret_pool, const struct reeve_pool_opts *opts)
{
    struct reeve_pool *pool = rv_alloc_aligned(sizeof *pool, RV_CACHE_LINE);
    if (pool == NULL)
        return -ENOMEM;
    memset(pool, 0, sizeof *pool);
    int r = rv_pool_init(pool, opts);
    if (r < 0) {
        rv_free(pool);
        return r;
    }
    *ret_pool = pool;
    return 0;
}

void reeve_pool_destroy(reeve_pool *pool)
{
    if (pool == NULL)
        return;
    rv_pool_finish(pool);
    rv_free(pool);
}

/* Not inlined, even over files: the profiler books on the address to which it returns. */
__attribute__((noinline)) void *reeve_pool_borrow(reeve_pool *pool)
{
    return rv_pool_get(pool);
}

/* Nor is this one: what it reads in its own line is the thread's. */
__attribute__((noinline)) void reeve_pool_return(reeve_pool *pool, void *object)
{
    if (object != NULL)
        rv_pool_put(pool, object);
}
