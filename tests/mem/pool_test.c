/* SPDX-License-Identifier: MIT */
/*
 * pool_test.c -- object pools: one owner at a time, hooks at the right moments, a bound on what
 * lies idle, and whoever misuses one is told.
 *
 * Most tests play several workers on one thread, by lending it one record after another.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <pthread.h>
#include <reeve/mem.h>
#include <reeve/pool.h>

#include "mem/fault.h"
#include "mem/pool.h"

#ifdef RV_ASAN
#include <sanitizer/asan_interface.h>
#endif

enum { WORKERS = 3 };

static struct rv_local worker[WORKERS];

/* From now on this thread is that worker; -1: none. */
static void be(int i)
{
    rv_local_set(i < 0 ? NULL : &worker[i]);
}

static reeve_pool *pool_with(const struct reeve_pool_opts *opts)
{
    reeve_pool *pool = NULL;
    CHECK_OK(reeve_pool_create(&pool, opts));
    return pool;
}

static struct reeve_pool_stats stats_of(reeve_pool *pool)
{
    struct reeve_pool_stats s;
    reeve_pool_stats(pool, &s);
    return s;
}

static void *borrow(reeve_pool *pool)
{
    void *object = reeve_pool_borrow(pool);
    CHECK(object != NULL);
    return object;
}

static void borrow_many(reeve_pool *pool, void **objects, int n)
{
    for (int i = 0; i < n; i++)
        objects[i] = borrow(pool);
}

static void return_many(reeve_pool *pool, void **objects, int n)
{
    for (int i = 0; i < n; i++)
        reeve_pool_return(pool, objects[i]);
}

/* ---- what it promises ------------------------------------------------------------------------ */

TEST(options_that_make_no_sense_are_refused)
{
    static const struct reeve_pool_opts bad[] = {
        { .bytes = 0 },
        { .bytes = ((size_t)1 << 30) + 1 },
        { .bytes = SIZE_MAX },
        { .bytes = 8, .align = 3 },
        { .bytes = 8, .align = (size_t)1 << 21 },
        { .bytes = 8, .idle_max = (1U << 24) + 1 },
        { .bytes = 8, .idle_max = 4, .prefault = 5 },
        { .bytes = 8, .idle_max = 40, .objects_max = 4, .prefault = 5 },
    };
    reeve_pool *untouched = (reeve_pool *)(uintptr_t)64, *pool = untouched;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_EQ(reeve_pool_create(&pool, &bad[i]), -EINVAL);
    CHECK_EQ(reeve_pool_create(&pool, NULL), -EINVAL);
    CHECK(pool == untouched);
    reeve_pool_destroy(NULL);
}

TEST(what_was_returned_last_is_borrowed_next)
{
    reeve_pool *pool = pool_with(&(struct reeve_pool_opts){ .bytes = 100 });
    be(0);
    void *a = borrow(pool), *b = borrow(pool);
    CHECK(a != b);
    reeve_pool_return(pool, a);
    reeve_pool_return(pool, b);
    CHECK(reeve_pool_borrow(pool) == b);
    CHECK(reeve_pool_borrow(pool) == a);
    struct reeve_pool_stats s = stats_of(pool);
    CHECK_EQ(s.hits, 2);
    CHECK_EQ(s.misses, 2);
    CHECK_EQ(s.returned, 2);
    CHECK_EQ(s.live, 2);
    CHECK_EQ(s.idle, 0);
    CHECK_EQ(s.peak, 2);
    CHECK(s.hit_rate == 0.5);
    reeve_pool_return(pool, a);
    reeve_pool_return(pool, b);
    reeve_pool_return(pool, NULL);
    reeve_pool_destroy(pool);
}

TEST(objects_are_aligned_as_asked_and_all_theirs)
{
    for (size_t align = 1; align <= (size_t)1 << 20; align *= 4)
        for (size_t bytes = 1; bytes < 6000; bytes = bytes * 3 + 1) {
            void *objects[5];
            reeve_pool *pool = pool_with(&(struct reeve_pool_opts){
                .bytes = bytes, .align = align, .idle_max = 4 });
            borrow_many(pool, objects, 5);
            for (int i = 0; i < 5; i++) {
                CHECK_EQ((uintptr_t)objects[i] % align, 0);
                CHECK_EQ((uintptr_t)objects[i] % 16, 0);
                memset(objects[i], 0x5a + i, bytes);
            }
            for (int i = 0; i < 5; i++)
                for (size_t at = 0; at < bytes; at++)
                    CHECK_EQ(((unsigned char *)objects[i])[at], 0x5a + i);
            return_many(pool, objects, 5);
            reeve_pool_destroy(pool);
        }
}

#define LINE_OF(member) (offsetof(struct reeve_pool, member) / RV_CACHE_LINE)

TEST(what_all_read_and_what_some_write_lies_on_different_lines)
{
    CHECK_EQ(_Alignof(struct reeve_pool), RV_CACHE_LINE);
    CHECK_EQ(LINE_OF(seats), LINE_OF(table));
    CHECK_LT(LINE_OF(source), LINE_OF(lock));
    CHECK_LT(LINE_OF(live), LINE_OF(lock));
    CHECK_LT(LINE_OF(depot), LINE_OF(room));
    CHECK_LT(LINE_OF(depot_n), LINE_OF(room));
    reeve_pool *pool = pool_with(&(struct reeve_pool_opts){ .bytes = 64 });
    for (int i = 0; i < 2; i++) {
        be(i);
        reeve_pool_return(pool, borrow(pool));
        CHECK_EQ((uintptr_t)rv_pool_mag_at(pool, worker[i].seat) % RV_CACHE_LINE, 0);
    }
    CHECK(rv_pool_mag_at(pool, worker[0].seat) != rv_pool_mag_at(pool, worker[1].seat));
    CHECK_EQ((uintptr_t)pool % RV_CACHE_LINE, 0);
    reeve_pool_destroy(pool);
}

/* ---- hooks ----------------------------------------------------------------------------------- */

struct thing {
    uint64_t born, resets;
    unsigned char rest[48];
};

static struct {
    uint64_t inits, resets, finishes;
    uint64_t fail_after; /* so many inits; 0: none fails */
} hooks;

static int thing_init(void *ctx, void *object)
{
    static const struct thing zero;
    CHECK(ctx == &hooks);
    CHECK_MEM_EQ(object, &zero, sizeof zero);
    if (hooks.fail_after > 0 && hooks.inits >= hooks.fail_after)
        return -ENOSPC;
    ((struct thing *)object)->born = ++hooks.inits;
    return 7;
}

static void thing_reset(void *ctx, void *object)
{
    CHECK(ctx == &hooks);
    hooks.resets++;
    ((struct thing *)object)->resets++;
}

static void thing_finish(void *ctx, void *object)
{
    CHECK(ctx == &hooks);
    CHECK_NE(((struct thing *)object)->born, 0);
    hooks.finishes++;
}

static reeve_pool *things(unsigned idle_max, unsigned prefault)
{
    hooks.inits = hooks.resets = hooks.finishes = 0;
    return pool_with(&(struct reeve_pool_opts){ .bytes = sizeof(struct thing),
                                                .idle_max = idle_max,
                                                .prefault = prefault,
                                                .ctx = &hooks,
                                                .init = thing_init,
                                                .reset = thing_reset,
                                                .finish = thing_finish });
}

TEST(init_runs_once_reset_at_each_return_and_finish_at_the_end)
{
    reeve_pool *pool = things(0, 0);
    be(0);
    for (uint64_t i = 0; i < 10; i++) {
        struct thing *t = borrow(pool);
        CHECK_EQ(t->born, 1);
        CHECK_EQ(t->resets, i);
        reeve_pool_return(pool, t);
    }
    CHECK_EQ(hooks.inits, 1);
    CHECK_EQ(hooks.resets, 10);
    CHECK_EQ(hooks.finishes, 0);
    reeve_pool_destroy(pool);
    CHECK_EQ(hooks.finishes, 1);
}

TEST(an_init_that_fails_leaves_no_object)
{
    reeve_pool *pool = things(0, 0), *none = NULL;
    hooks.fail_after = 1;
    struct thing *t = borrow(pool);
    for (int i = 0; i < 5; i++)
        CHECK(reeve_pool_borrow(pool) == NULL);
    struct reeve_pool_stats s = stats_of(pool);
    CHECK_EQ(s.refused, 5);
    CHECK_EQ(s.live, 1);
    CHECK_EQ(s.misses, 1);
    reeve_pool_return(pool, t);
    CHECK(reeve_pool_borrow(pool) == t); /* no init is needed for that one */
    reeve_pool_return(pool, t);
    reeve_pool_destroy(pool);
    CHECK_EQ(hooks.finishes, 1);

    hooks.inits = hooks.finishes = 0;
    hooks.fail_after = 3;
    struct reeve_pool_opts o = { .bytes = sizeof(struct thing), .prefault = 5, .ctx = &hooks,
                                 .init = thing_init, .finish = thing_finish };
    CHECK_EQ(reeve_pool_create(&none, &o), -ENOSPC);
    CHECK(none == NULL);
    CHECK_EQ(hooks.finishes, 3);
}

TEST(objects_made_at_once_are_hits)
{
    void *objects[40];
    reeve_pool *pool = things(40, 40);
    CHECK_EQ(hooks.inits, 40);
    CHECK_EQ(stats_of(pool).idle, 40);
    be(0);
    borrow_many(pool, objects, 40);
    struct reeve_pool_stats s = stats_of(pool);
    CHECK_EQ(s.hits, 40);
    CHECK_EQ(s.misses, 0);
    CHECK_EQ(s.live, 40);
    CHECK_EQ(s.idle, 0);
    return_many(pool, objects, 40);
    CHECK_EQ(stats_of(pool).idle, 40);
    reeve_pool_destroy(pool);
    CHECK_EQ(hooks.finishes, 40);
}

/* A hook that waits may go on as another worker, and use the pool there. */
static void reset_elsewhere(void *ctx, void *object)
{
    static bool inside;
    (void)object;
    be(1);
    if (!inside) {
        inside = true;
        reeve_pool *pool = *(reeve_pool **)ctx;
        reeve_pool_return(pool, borrow(pool));
        inside = false;
    }
}

TEST(a_hook_may_go_on_as_another_worker)
{
    reeve_pool *pool = NULL;
    struct reeve_pool_opts o = { .bytes = 64, .ctx = &pool, .reset = reset_elsewhere };
    CHECK_OK(reeve_pool_create(&pool, &o));
    void *objects[200];
    be(0);
    borrow_many(pool, objects, 200);
    for (int i = 0; i < 200; i++) {
        be(i % 2 ? 0 : 2);
        reeve_pool_return(pool, objects[i]);
    }
    struct reeve_pool_stats s = stats_of(pool);
    CHECK_EQ(s.live, 0);
    CHECK_EQ(s.returned, 400);
    CHECK_EQ(s.hits + s.misses, 400);
    CHECK_EQ(s.idle, s.peak);
    reeve_pool_destroy(pool);
}

static reeve_pool *looked_at;

static int look_init(void *ctx, void *object)
{
    (void)ctx;
    (void)object;
    return looked_at != NULL ? (int)(stats_of(looked_at).idle & 0) : 0;
}

static void look(void *ctx, void *object)
{
    struct reeve_memory memory;
    (void)ctx;
    (void)object;
    stats_of(looked_at);            /* takes the pool's lock, */
    reeve_memory_stats(&memory);    /* and that of the list */
}

TEST(hooks_run_with_no_lock_held)
{
    void *objects[300];
    struct reeve_pool_opts o = { .bytes = 8, .idle_max = 100, .prefault = 10, .init = look_init,
                                 .reset = look, .finish = look };
    CHECK_OK(reeve_pool_create(&looked_at, &o));
    for (int as = -1; as < 2; as++) {
        be(as);
        borrow_many(looked_at, objects, 300);
        return_many(looked_at, objects, 300);
    }
    CHECK_GT(reeve_pool_clear(looked_at), 0);
    be(0);
    reeve_pool_return(looked_at, borrow(looked_at));
    reeve_pool_destroy(looked_at);
}

/* ---- bounds ---------------------------------------------------------------------------------- */

TEST(never_more_lie_idle_than_allowed)
{
    static const unsigned bounds[] = { 1, 2, 3, 7, 16, 100, 500 };
    for (size_t b = 0; b < sizeof bounds / sizeof *bounds; b++) {
        void *objects[600];
        reeve_pool *pool = things(bounds[b], bounds[b]);
        for (int round = 0; round < 3; round++) {
            for (int i = 0; i < 600; i++) {
                be(i % (WORKERS + 1) - 1);
                objects[i] = borrow(pool);
            }
            for (int i = 0; i < 600; i++) {
                be((i / 7) % (WORKERS + 1) - 1);
                reeve_pool_return(pool, objects[i]);
                CHECK_LE(stats_of(pool).idle, bounds[b]);
                CHECK_EQ(stats_of(pool).live, 599 - i);
                CHECK_EQ(hooks.inits - hooks.finishes, 599 - i + stats_of(pool).idle);
            }
        }
        struct reeve_pool_stats s = stats_of(pool);
        CHECK_EQ(s.dropped, hooks.finishes);
        CHECK_GE(s.idle, bounds[b] / 2); /* the depot was full at last */
        reeve_pool_destroy(pool);
        CHECK_EQ(hooks.inits, hooks.finishes);
    }
}

TEST(a_return_frees_a_few_at_most)
{
    enum { FEW = 8, N = 1000 };
    static void *objects[N];
    reeve_pool *pool = things(200, 0);
    be(0);
    borrow_many(pool, objects, N);
    for (int i = 0; i < N; i++) {
        uint64_t before = hooks.finishes;
        reeve_pool_return(pool, objects[i]);
        CHECK_LE(hooks.finishes - before, FEW);
    }
    CHECK_GE(hooks.finishes, N - 200);
    CHECK_LE(stats_of(pool).idle, 200);
    reeve_pool_destroy(pool);
}

TEST(never_more_exist_than_allowed)
{
    void *objects[10];
    reeve_pool *pool = pool_with(&(struct reeve_pool_opts){ .bytes = 8, .objects_max = 10 });
    be(0);
    borrow_many(pool, objects, 10);
    CHECK(reeve_pool_borrow(pool) == NULL);
    CHECK_EQ(stats_of(pool).refused, 1);
    reeve_pool_return(pool, objects[9]);
    CHECK(reeve_pool_borrow(pool) == objects[9]);
    return_many(pool, objects, 10);
    CHECK_EQ(stats_of(pool).peak, 10);
    reeve_pool_destroy(pool);
}

TEST(trimming_leaves_so_many_and_clearing_none)
{
    void *objects[300];
    reeve_pool *pool = things(300, 0);
    be(0);
    borrow_many(pool, objects, 300);
    return_many(pool, objects, 300);
    uint64_t idle = stats_of(pool).idle;
    CHECK_EQ(reeve_pool_trim(pool, 300), 0);
    CHECK_EQ(reeve_pool_trim(pool, 150), idle - 150);
    CHECK_EQ(stats_of(pool).idle, 150);
    CHECK_EQ(reeve_pool_clear(pool), 150);
    CHECK_EQ(stats_of(pool).idle, 0);
    CHECK_EQ(hooks.finishes, 300);
    CHECK_EQ(stats_of(pool).dropped, 300);
    CHECK_EQ(reeve_pool_clear(pool), 0);
    void *again = borrow(pool);
    CHECK_EQ(stats_of(pool).misses, 301);
    reeve_pool_return(pool, again);
    reeve_pool_destroy(pool);
}

TEST(a_busy_worker_lets_go_of_its_own_when_it_next_returns_one)
{
    void *objects[20];
    reeve_pool *pool = things(100, 0);
    be(1);
    borrow_many(pool, objects, 20);
    return_many(pool, objects, 19);
    be(0);
    CHECK_EQ(reeve_pool_clear(pool), 0); /* worker 1 has them all, and could use them right now */
    CHECK_EQ(stats_of(pool).idle, 19);
    be(1);
    reeve_pool_return(pool, objects[19]);
    CHECK_EQ(stats_of(pool).idle, 1);
    CHECK_EQ(hooks.finishes, 19);
    borrow_many(pool, objects, 20);
    return_many(pool, objects, 20);
    CHECK_EQ(stats_of(pool).idle, 20); /* asked once, it keeps its own again */
    reeve_pool_destroy(pool);
}

TEST(what_a_worker_left_behind_is_trimmed_or_goes_to_the_next)
{
    struct rv_local first = { 0 }, second = { 0 };
    void *objects[20];
    reeve_pool *pool = things(100, 0);
    rv_local_set(&first);
    borrow_many(pool, objects, 20);
    return_many(pool, objects, 20);
    uint32_t seat = first.seat;
    rv_seat_leave(&first);
    rv_local_set(&second);
    void *object = borrow(pool);
    CHECK_EQ(second.seat, seat);
    CHECK_EQ(stats_of(pool).misses, 20);
    CHECK_EQ(stats_of(pool).hits, 1);
    reeve_pool_return(pool, object);
    rv_seat_leave(&second);
    be(-1);
    CHECK_EQ(reeve_pool_clear(pool), 20);
    CHECK_EQ(stats_of(pool).idle, 0);
    reeve_pool_destroy(pool);
}

TEST(without_a_seat_everything_works)
{
    static struct rv_local crowd[RV_SEATS + 1];
    void *objects[50];
    for (int i = 0; i <= RV_SEATS; i++)
        rv_seat_take(&crowd[i]);
    CHECK_EQ(crowd[RV_SEATS].seat, RV_SEAT_NONE);
    reeve_pool *pool = things(20, 0);
    rv_local_set(&crowd[RV_SEATS]);
    borrow_many(pool, objects, 50);
    return_many(pool, objects, 50);
    CHECK_EQ(stats_of(pool).idle, 20);
    rv_local_set(&crowd[RV_SEATS - 2]); /* the last seat: the table must be long enough */
    borrow_many(pool, objects, 50);
    return_many(pool, objects, 50);
    CHECK_LE(stats_of(pool).idle, 20);
    be(-1);
    for (int i = 0; i <= RV_SEATS; i++)
        rv_seat_leave(&crowd[i]);
    reeve_pool_destroy(pool);
}

/* ---- against a naive model ------------------------------------------------------------------- */

enum { LIVE_MAX = 400, STEPS = 60000 };

static uint64_t random_state = 88172645463325252u;

static unsigned random_below(unsigned n)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (unsigned)(random_state >> 33) % n;
}

/* What is true after every step, whatever the workers did: objects neither vanish nor appear. */
static void model_holds(reeve_pool *pool, uint64_t borrowed, uint64_t returned, unsigned idle_max)
{
    struct reeve_pool_stats s = stats_of(pool);
    CHECK_EQ(s.hits + s.misses, borrowed);
    CHECK_EQ(s.returned, returned);
    CHECK_EQ(s.live, borrowed - returned);
    CHECK_EQ(s.live + s.idle, hooks.inits - hooks.finishes);
    CHECK_EQ(s.dropped, hooks.finishes);
    CHECK_LE(s.idle, idle_max);
    CHECK_EQ(s.misses + 5, hooks.inits); /* 5 were made at once */
}

TEST(any_sequence_of_calls_keeps_the_books)
{
    static struct thing *live[LIVE_MAX];
    static uint64_t resets[LIVE_MAX + STEPS];
    unsigned n = 0, want = 0;
    uint64_t borrowed = 0, returned = 0;
    reeve_pool *pool = things(120, 5);
    for (int step = 0; step < STEPS; step++) {
        be((int)random_below(WORKERS + 1) - 1);
        if (random_below(200) == 0)
            want = random_below(LIVE_MAX);
        if (random_below(2000) == 0)
            reeve_pool_trim(pool, random_below(100));
        if (n < want) {
            struct thing *t = live[n++] = borrow(pool);
            CHECK_EQ(t->resets, resets[t->born]);   /* as its last owner left it */
            CHECK_EQ(t->rest[0], 0);                /* and nobody has it now */
            t->rest[0] = 1;
            borrowed++;
        } else if (n > 0) {
            unsigned i = random_below(n);
            struct thing *t = live[i];
            live[i] = live[--n];
            t->rest[0] = 0;
            resets[t->born]++;
            reeve_pool_return(pool, t);
            returned++;
        }
        model_holds(pool, borrowed, returned, 120);
    }
    while (n > 0)
        reeve_pool_return(pool, live[--n]);
    reeve_pool_destroy(pool);
    CHECK_EQ(hooks.inits, hooks.finishes);
}

/* ---- threads --------------------------------------------------------------------------------- */

enum { THREADS = 4, ROUNDS = 30000, SHELF = 64 };

static struct {
    reeve_pool *pool;
    RV_ATOMIC(uintptr_t) shelf[SHELF]; /* objects on their way from one thread to another */
    pthread_barrier_t barrier;
} shared;

/* Each object in the thread's hands is nobody else's: a plain counter in it is never lost. */
static void exchange(uint64_t seed)
{
    for (int i = 0; i < ROUNDS; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        uint64_t *object = borrow(shared.pool);
        object[0] = seed;
        object[1] = ~seed;
        RV_ATOMIC(uintptr_t) *place = &shared.shelf[(seed >> 40) % SHELF];
        uint64_t *other = (uint64_t *)rv_xchg_acq_rel(place, (uintptr_t)object);
        if (other != NULL) {
            CHECK_EQ(other[0], ~other[1]);
            reeve_pool_return(shared.pool, other);
        }
        if (i % 1000 == 999)
            reeve_pool_trim(shared.pool, 10);
    }
}

static void *exchange_as_worker(void *arg)
{
    struct rv_local local = { 0 };
    rv_local_set(&local);
    exchange((uint64_t)(uintptr_t)arg);
    rv_local_set(NULL);
    rv_seat_leave(&local);
    return NULL;
}

static void *exchange_as_stranger(void *arg)
{
    exchange((uint64_t)(uintptr_t)arg);
    return NULL;
}

TEST(threads_that_pass_objects_on_never_share_one)
{
    pthread_t thread[THREADS];
    shared.pool = pool_with(&(struct reeve_pool_opts){ .bytes = 64, .idle_max = 60 });
    for (uintptr_t i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&thread[i], NULL, i == 0 ? exchange_as_stranger
                                                         : exchange_as_worker,
                                (void *)(i + 1)), 0);
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_join(thread[i], NULL), 0);
    for (int i = 0; i < SHELF; i++)
        reeve_pool_return(shared.pool, (void *)rv_load_acquire(&shared.shelf[i]));
    struct reeve_pool_stats s = stats_of(shared.pool);
    CHECK_EQ(s.live, 0);
    CHECK_EQ(s.hits + s.misses, THREADS * ROUNDS);
    CHECK_EQ(s.returned, THREADS * ROUNDS);
    CHECK_LE(s.idle, 60);
    CHECK_EQ(s.misses, s.idle + s.dropped);
    reeve_pool_destroy(shared.pool);
}

static void *return_there(void *object)
{
    reeve_pool_return(shared.pool, object);
    return NULL;
}

TEST(a_stranger_returns_and_a_worker_borrows_it)
{
    pthread_t thread;
    shared.pool = pool_with(&(struct reeve_pool_opts){ .bytes = 64 });
    be(0);
    void *object = borrow(shared.pool);
    CHECK_EQ(pthread_create(&thread, NULL, return_there, object), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(stats_of(shared.pool).idle, 1);
    CHECK(reeve_pool_borrow(shared.pool) == object);
    reeve_pool_return(shared.pool, object);
    reeve_pool_destroy(shared.pool);
}

TEST(a_child_of_fork_may_use_the_pool)
{
    reeve_pool *pool = pool_with(&(struct reeve_pool_opts){ .bytes = 64, .prefault = 10 });
    be(0);
    void *object = borrow(pool);
    rv_lock_acquire(&pool->lock); /* as another thread may hold it just then */
    pid_t child = fork();
    CHECK_OK(child);
    if (child == 0) {
        CHECK(rv_local_get() == NULL);
        void *own = borrow(pool);
        reeve_pool_return(pool, own);
        reeve_pool_return(pool, object);
        borrow(pool);
        reeve_pool_destroy(pool);
        _exit(42);
    }
    rv_lock_release(&pool->lock);
    int status;
    CHECK_OK(waitpid(child, &status, 0));
    CHECK(WIFEXITED(status));
    CHECK_EQ(WEXITSTATUS(status), 42);
    reeve_pool_return(pool, object);
    reeve_pool_destroy(pool);
}

/* ---- no memory, and misuse ------------------------------------------------------------------- */

static int use(reeve_pool **ret_pool)
{
    struct reeve_pool_opts o = { .bytes = 64, .prefault = 2 };
    void *objects[100];
    int n = 0, r = reeve_pool_create(ret_pool, &o);
    if (r < 0)
        return r;
    while (n < 100 && (objects[n] = reeve_pool_borrow(*ret_pool)) != NULL)
        n++;
    return_many(*ret_pool, objects, n);
    return n == 100 ? 0 : -ENOMEM;
}

TEST(it_survives_every_failing_allocation)
{
    if (!rv_fault_available())
        SKIP("built without RV_FAULTS");
    uint64_t n = 1;
    for (;; n++) {
        reeve_pool *pool = NULL;
        worker[0] = (struct rv_local){ 0 };
        be(0);
        rv_fault_fail_nth(n);
        int r = use(&pool);
        bool failed = rv_fault_last_name() != NULL;
        rv_fault_off();
        CHECK(r == 0 || (failed && r == -ENOMEM));  /* a magazine is not missed */
        if (pool != NULL) {
            CHECK_EQ(stats_of(pool).live, 0);
            reeve_pool_destroy(pool);
        }
        rv_seat_leave(&worker[0]);
        if (!failed)
            break;
    }
    CHECK_GT(n, 100);
}

TEST(returning_twice_dies)
{
    reeve_pool *pool = pool_with(&(struct reeve_pool_opts){ .bytes = 64, .name = "sessions" });
    for (int as = -1; as < 1; as++) {
        be(as);
        void *object = borrow(pool);
        reeve_pool_return(pool, object);
        CHECK_DIES("object of pool sessions was returned twice",
                   reeve_pool_return(pool, object));
    }
    reeve_pool_destroy(pool);
}

TEST(returning_what_is_not_from_the_pool_dies)
{
    reeve_pool *pool = pool_with(&(struct reeve_pool_opts){ .bytes = 64, .name = "a" });
    reeve_pool *other = pool_with(&(struct reeve_pool_opts){ .bytes = 64, .name = "b" });
    _Alignas(16) unsigned char mine[64 + 64] = { 0 };
    void *object = borrow(other);
    CHECK_DIES("not on loan from pool a", reeve_pool_return(pool, object));
    CHECK_DIES("not on loan from pool a", reeve_pool_return(pool, mine + 64));
    reeve_pool_return(other, object);
    reeve_pool_destroy(pool);
    reeve_pool_destroy(other);
}

TEST(destroying_a_pool_with_borrowed_objects_dies)
{
    CHECK_DIES("pool p has 2 on loan", {
        reeve_pool *pool = pool_with(&(struct reeve_pool_opts){ .bytes = 64, .name = "p" });
        void *objects[3];
        borrow_many(pool, objects, 3);
        reeve_pool_return(pool, objects[1]);
        reeve_pool_destroy(pool);
    });
}

/* An idle object that is written to is found: at once, or when it is borrowed again. */
static void idle_is_guarded(reeve_pool *pool, int as, size_t at)
{
    be(as);
    volatile unsigned char *object = borrow(pool);
    reeve_pool_return(pool, (void *)(uintptr_t)object);
#if defined(RV_ASAN)
    CHECK(__asan_address_is_poisoned((void *)(uintptr_t)(object + at)));
    CHECK(reeve_pool_borrow(pool) == object);
    CHECK(!__asan_address_is_poisoned((void *)(uintptr_t)(object + at)));
    reeve_pool_return(pool, (void *)(uintptr_t)object);
#else
    CHECK_DIES("was written to after it was returned", {
        be(as); /* a child of fork is nobody at first */
        object[at] ^= 1;
        borrow(pool);
    });
#endif
}

TEST(an_idle_object_is_guarded_in_builds_that_check)
{
#if !defined(RV_DEBUG)
    SKIP("built without RV_DEBUG");
#endif
    reeve_pool *plain = pool_with(&(struct reeve_pool_opts){ .bytes = 61 }), *kept = things(0, 0);
    for (int as = -1; as < 1; as++) {
        idle_is_guarded(plain, as, 0);
        idle_is_guarded(plain, as, 60);
        idle_is_guarded(kept, as, 8);
    }
    reeve_pool_destroy(plain);
    reeve_pool_destroy(kept);
}

TEST(writing_beyond_the_end_dies_in_builds_that_check)
{
#if defined(RV_DEBUG)
    reeve_pool *pool = pool_with(&(struct reeve_pool_opts){ .bytes = 61 });
    volatile unsigned char *object = borrow(pool);
    CHECK_DIES("was written beyond its end", {
        object[61] = 0;
        reeve_pool_return(pool, (void *)(uintptr_t)object);
    });
    reeve_pool_return(pool, (void *)(uintptr_t)object);
    reeve_pool_destroy(pool);
#else
    SKIP("built without RV_DEBUG");
#endif
}

TEST(what_a_plain_object_held_is_gone_in_builds_that_check)
{
#if defined(RV_DEBUG)
    reeve_pool *pool = pool_with(&(struct reeve_pool_opts){ .bytes = 32 });
    be(0);
    unsigned char *object = borrow(pool);
    memset(object, 7, 32);
    reeve_pool_return(pool, object);
    CHECK(reeve_pool_borrow(pool) == object);
    for (int i = 0; i < 32; i++)
        CHECK_EQ(object[i], 0xcd);
    reeve_pool_return(pool, object);
    reeve_pool_destroy(pool);
#else
    SKIP("built without RV_DEBUG");
#endif
}
