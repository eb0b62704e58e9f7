/* SPDX-License-Identifier: MIT */
/*
 * mapcache_test.c -- many maps: one for each file, whoever asks; never more than the bound; and the
 * right one to go.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include "mem/fault.h"
#include "tests/io/map_files.h"

#define NEVER (-1) /* of check_ns: the file is not looked at again */
#define ALWAYS 1   /* 1 ns: it is, each time */

static reeve_maps *maps; /* of the test */

static void make_maps(struct reeve_maps_opts opts)
{
    CHECK_EQ(reeve_maps_create(&maps, &opts), 0);
}

static struct reeve_maps_stats stats(void)
{
    struct reeve_maps_stats st;
    reeve_maps_stats(maps, &st);
    return st;
}

/* Everything has been returned: closes them, and sees that nothing stays mapped. */
static void end_maps(void)
{
    CHECK_EQ(stats().pinned, 0);
    CHECK_EQ(stats().pinned_bytes, 0);
    reeve_maps_destroy(maps);
    await_no_maps();
}

static const struct reeve_map *borrow(const char *path)
{
    const struct reeve_map *m = NULL;
    CHECK_EQ(reeve_maps_borrow(maps, path, &m, LONG), 0);
    return m;
}

/* Files of that many pages: "f0", "f1" ... */
static void make_files(int n, size_t pages)
{
    char name[16];
    for (int i = 0; i < n; i++) {
        snprintf(name, sizeof name, "f%d", i);
        file(name, pages * PAGE);
    }
}

static const char *nth(int i)
{
    char name[16];
    snprintf(name, sizeof name, "f%d", i);
    return path_of(name);
}

/* Where several tasks ask for it. */
static char shared_path[128];
static void share(const char *path)
{
    snprintf(shared_path, sizeof shared_path, "%s", path);
}

/* ---- one map for all ------------------------------------------------------------------------- */

static int shared(void *arg)
{
    (void)arg;
    make_files(2, 3);
    make_maps((struct reeve_maps_opts){ .check_ns = NEVER });
    const struct reeve_map *a = borrow(nth(0)), *b = borrow(nth(0)), *c = borrow(nth(1));
    CHECK(a == b);
    CHECK(a != c);
    check_map(a, 0);
    struct reeve_maps_stats st = stats();
    CHECK_EQ(st.hits, 1);
    CHECK_EQ(st.misses, 2);
    CHECK_EQ(st.maps, 2);
    CHECK_EQ(st.bytes, 6 * PAGE);
    CHECK_EQ(st.pinned, 2);
    CHECK_EQ(st.pinned_bytes, 6 * PAGE);
    reeve_maps_return(maps, a);
    CHECK_EQ(stats().pinned, 2);
    reeve_maps_return(maps, b);
    reeve_maps_return(maps, c);
    reeve_maps_return(maps, NULL);
    CHECK_EQ(stats().pinned, 0);
    CHECK_EQ(stats().maps, 2); /* kept for the next who asks */
    CHECK(borrow(nth(0)) == a);
    reeve_maps_return(maps, a);
    CHECK_EQ(stats().hits, 2);
    end_maps();
    return 0;
}

TEST(who_asks_for_one_file_gets_one_map)
{
    RUN(shared, .workers = 1);
}

enum { MANY = 100 };
static RV_ATOMIC(uint32_t) here;
static const struct reeve_map *got[MANY];

static int ask(void *arg)
{
    uintptr_t i = (uintptr_t)arg;
    got[i] = borrow(shared_path);
    (void)rv_add_acq_rel(&here, 1u);
    while (rv_load_acquire(&here) < MANY)
        CHECK_OK(reeve_sleep(0));
    check_map(got[i], 0);
    reeve_maps_return(maps, got[i]);
    return 0;
}

static int at_once(void *arg)
{
    reeve_group g = { 0 };
    struct door d = { 0 };
    reeve_task *t;
    (void)arg;
    share(file("file", 10 * PAGE));
    make_maps((struct reeve_maps_opts){ .check_ns = NEVER });
    rv_store_relaxed(&here, 0u);
    CHECK_EQ(reeve_spawn(&t, wait_at, &d), 0); /* the pool's one thread: nobody opens it yet */
    await_pool(1, 0);
    for (uintptr_t i = 0; i < MANY; i++)
        CHECK_EQ(reeve_go(ask, (void *)i, .group = &g), 0);
    await_pool(1, 1);
    open_door(&d);
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    for (int i = 1; i < MANY; i++)
        CHECK(got[i] == got[0]);
    CHECK_EQ(stats().misses, 1);
    CHECK_EQ(stats().hits, MANY - 1);
    CHECK_EQ(pool().run, 2); /* the door, and one file that was opened */
    CHECK_EQ(maps_live(), 1);
    end_maps();
    return 0;
}

TEST(a_hundred_tasks_that_ask_for_one_name_at_once_map_it_once)
{
    RUN(at_once, .workers = 1, .offload_max = 1);
    RUN(at_once, .workers = 2, .offload_max = 1);
}

struct asking {
    const struct reeve_map *map;
    reeve_time until;
    int result;
};

static int ask_for(void *arg)
{
    struct asking *a = arg;
    a->result = reeve_maps_borrow(maps, shared_path, &a->map, a->until);
    return 0;
}

static int not_there(void *arg)
{
    struct asking a[5];
    reeve_task *t[5];
    (void)arg;
    share(path_of("later"));
    unlink(shared_path);
    make_maps((struct reeve_maps_opts){ .check_ns = NEVER });
    for (int i = 0; i < 5; i++) {
        a[i] = (struct asking){ .until = LONG };
        CHECK_EQ(reeve_spawn(&t[i], ask_for, &a[i]), 0);
    }
    for (int i = 0; i < 5; i++) {
        CHECK_EQ(reeve_join(t[i], NULL, LONG), 0);
        CHECK_EQ(a[i].result, -ENOENT);
        CHECK(a[i].map == NULL); /* untouched on failure */
    }
    CHECK_EQ(stats().maps, 0);
    CHECK_EQ(stats().bytes, 0);
    file("later", PAGE);
    reeve_maps_return(maps, borrow(shared_path)); /* a failure is not kept */
    end_maps();
    return 0;
}

TEST(a_file_that_is_not_there_is_everybodys_error_and_asked_for_again)
{
    RUN(not_there, .workers = 1);
    RUN(not_there, .workers = 2);
}

/* Who opens it gives up; those who waited for that go on by themselves. */
static int maker_gives_up(void *arg)
{
    struct asking a[4];
    reeve_task *t[4], *blocker;
    struct door d = { 0 };
    (void)arg;
    share(file("file", PAGE));
    make_maps((struct reeve_maps_opts){ .check_ns = NEVER });
    uint64_t run = pool().run;
    CHECK_EQ(reeve_spawn(&blocker, wait_at, &d), 0);
    await_pool(run + 1, 0);
    for (int i = 0; i < 4; i++) {
        a[i] = (struct asking){ .until = i == 3 ? reeve_in(5 * REEVE_MS) : LONG };
        CHECK_EQ(reeve_spawn(&t[i], ask_for, &a[i], .worker = 1), 0);
        if (i == 0)
            await_pool(run + 1, 1); /* the first is the one that opens it */
    }
    CHECK_EQ(reeve_join(t[3], NULL, LONG), 0);
    CHECK_EQ(a[3].result, -ETIMEDOUT);
    reeve_cancel(t[0]);
    CHECK_EQ(reeve_join(t[0], NULL, LONG), 0);
    CHECK_EQ(a[0].result, -ECANCELED);
    await_pool(run + 1, 1); /* another one is in its place */
    CHECK_EQ(stats().misses, 2);
    open_door(&d);
    for (int i = 1; i < 3; i++) {
        CHECK_EQ(reeve_join(t[i], NULL, LONG), 0);
        CHECK_EQ(a[i].result, 0);
        reeve_maps_return(maps, a[i].map);
    }
    CHECK_EQ(reeve_join(blocker, NULL, LONG), 0);
    CHECK_EQ(stats().misses, 2);
    end_maps();
    return 0;
}

TEST(when_who_opens_a_file_gives_up_those_who_wait_go_on)
{
    RUN(maker_gives_up, .workers = 1, .offload_max = 1);
    RUN(maker_gives_up, .workers = 2, .offload_max = 1);
}

/* ---- room ------------------------------------------------------------------------------------ */

/* What the cache should do, in the plainest words: lists that are searched from one end. */
enum { FILES = 12, ROOM = 16, MAPS = 6 };
struct model {
    int order[FILES], mapped; /* those that are mapped, the one returned longest ago first */
    int pins[FILES];
    size_t pages[FILES], used;
    uint64_t hits, misses, evictions;
};

static int place_in(const struct model *m, int f)
{
    for (int i = 0; i < m->mapped; i++)
        if (m->order[i] == f)
            return i;
    return -1;
}

static void take_out(struct model *m, int at)
{
    m->mapped--;
    memmove(&m->order[at], &m->order[at + 1], sizeof m->order[0] * (size_t)(m->mapped - at));
}

static bool evict_one(struct model *m)
{
    for (int i = 0; i < m->mapped; i++)
        if (m->pins[m->order[i]] == 0) {
            m->used -= m->pages[m->order[i]];
            m->evictions++;
            take_out(m, i);
            return true;
        }
    return false;
}

static int model_borrow(struct model *m, int f)
{
    if (place_in(m, f) >= 0) {
        m->hits++;
        m->pins[f]++;
        return 0;
    }
    m->misses++;
    struct model before = *m;
    while (m->used + m->pages[f] > ROOM || m->mapped >= MAPS)
        if (!evict_one(m)) {
            *m = before; /* what would not be enough is not closed */
            return -EAGAIN;
        }
    m->order[m->mapped++] = f;
    m->used += m->pages[f];
    m->pins[f]++;
    return 0;
}

static void model_return(struct model *m, int f)
{
    if (--m->pins[f] > 0)
        return;
    take_out(m, place_in(m, f));
    m->order[m->mapped++] = f;
}

static int by_chance(void *arg)
{
    struct model m = { 0 };
    const struct reeve_map *map[FILES];
    uint64_t x = 88172645463325252u ^ (uint64_t)(uintptr_t)arg;
    char name[16];
    int refused = 0;
    make_maps((struct reeve_maps_opts){ .bytes_max = ROOM * PAGE, .maps_max = MAPS,
                                        .check_ns = NEVER, .full_fails = true });
    for (int f = 0; f < FILES; f++) {
        m.pages[f] = (size_t)f / 2 + 1; /* 1 .. 6 */
        snprintf(name, sizeof name, "f%d", f);
        file(name, m.pages[f] * PAGE - (f % 2 ? 100 : 0)); /* whole pages count */
    }
    for (int step = 0; step < 6000; step++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        int f = (int)(x % FILES);
        if (x >> 32 & 1 && m.pins[f] > 0) {
            model_return(&m, f);
            reeve_maps_return(maps, map[f]);
        } else if (m.pins[f] < 3) {
            const struct reeve_map *now = NULL;
            int want = model_borrow(&m, f), r = reeve_maps_borrow(maps, nth(f), &now, LONG);
            CHECK_EQ(r, want);
            refused += r < 0;
            if (r == 0 && m.pins[f] > 1)
                CHECK(now == map[f]);
            if (r == 0) {
                map[f] = now;
                check_pattern(now->data, 64, 0);
            }
        }
        struct reeve_maps_stats st = stats();
        CHECK_EQ(st.hits, m.hits);
        CHECK_EQ(st.misses, m.misses);
        CHECK_EQ(st.evictions, m.evictions);
        CHECK_EQ(st.bytes, m.used * PAGE);
        CHECK_EQ(st.maps, m.mapped);
    }
    CHECK_GT(refused, 100);
    CHECK_GT(m.evictions, 200);
    CHECK_GT(m.hits, 500);
    for (int f = 0; f < FILES; f++)
        for (; m.pins[f] > 0; m.pins[f]--)
            reeve_maps_return(maps, map[f]);
    end_maps();
    return 0;
}

TEST(the_one_returned_longest_ago_goes_first_as_in_a_plain_model)
{
    uring_or_skip();
    for (uintptr_t seed = 1; seed <= 3; seed++)
        CHECK_EQ(reeve_run(by_chance, (void *)(seed * 0x9e3779b9), .workers = 1), 0);
}

static int too_large(void *arg)
{
    const struct reeve_map *m = NULL;
    (void)arg;
    make_maps((struct reeve_maps_opts){ .bytes_max = 2 * PAGE, .check_ns = NEVER });
    unsigned before = fds_open();
    CHECK_EQ(reeve_maps_borrow(maps, file("file", 2 * PAGE + 1), &m, LONG), -EFBIG);
    CHECK_EQ(fds_open(), before);
    reeve_maps_return(maps, borrow(file("file", 2 * PAGE)));
    end_maps();
    return 0;
}

TEST(a_file_that_never_fits_is_efbig)
{
    RUN(too_large, .workers = 1);
}

static int empties(void *arg)
{
    (void)arg;
    make_files(4, 0);
    make_maps((struct reeve_maps_opts){ .bytes_max = 2 * PAGE, .check_ns = NEVER });
    for (int i = 0; i < 4; i++) {
        const struct reeve_map *m = borrow(nth(i));
        CHECK_EQ(m->len, 0);
        CHECK_EQ(reeve_map_fetch(m, 0, 0, LONG), 0);
        reeve_maps_return(maps, m);
    }
    CHECK_EQ(stats().maps, 2);
    CHECK_EQ(stats().evictions, 2);
    end_maps();
    return 0;
}

TEST(a_file_of_no_bytes_counts_too)
{
    RUN(empties, .workers = 1);
}

static void await_waits(uint64_t n)
{
    while (stats().waits != n)
        CHECK_OK(reeve_sleep(0));
}

struct want {
    int file;
    const struct reeve_map *map;
    int result, turn;
    reeve_time until;
};
static RV_ATOMIC(uint32_t) turns;
static char paths[8][128];

static int want_it(void *arg)
{
    struct want *w = arg;
    w->result = reeve_maps_borrow(maps, paths[w->file], &w->map, w->until);
    w->turn = (int)rv_add_acq_rel(&turns, 1u);
    return 0;
}

static void make_paths(size_t pages)
{
    make_files(8, pages);
    for (int i = 0; i < 8; i++)
        snprintf(paths[i], sizeof paths[i], "%s", nth(i));
    rv_store_relaxed(&turns, 0u);
}

/* Two are borrowed, and there is room for two. */
static int waits(void *arg)
{
    struct want w[4];
    reeve_task *t[4];
    (void)arg;
    make_paths(1);
    make_maps((struct reeve_maps_opts){ .bytes_max = 2 * PAGE, .check_ns = NEVER });
    const struct reeve_map *a = borrow(nth(0)), *b = borrow(nth(1));
    for (int i = 0; i < 4; i++) {
        uint64_t before = stats().waits;
        w[i] = (struct want){ .file = 2 + i, .until = i == 1 ? reeve_in(5 * REEVE_MS) : LONG };
        CHECK_EQ(reeve_spawn(&t[i], want_it, &w[i]), 0);
        while (stats().waits == before && !(i == 1 && rv_load_acquire(&turns) == 1))
            CHECK_OK(reeve_sleep(0)); /* the second may be late before it can wait */
    }
    CHECK_EQ(reeve_join(t[1], NULL, LONG), 0);
    CHECK_EQ(w[1].result, -ETIMEDOUT);
    reeve_cancel(t[0]);
    CHECK_EQ(reeve_join(t[0], NULL, LONG), 0);
    CHECK_EQ(w[0].result, -ECANCELED);
    CHECK(borrow(nth(0)) == a); /* what is mapped is had, whoever waits */
    reeve_maps_return(maps, a);
    CHECK_EQ(rv_load_relaxed(&turns), 2);
    reeve_maps_return(maps, a);
    CHECK_EQ(reeve_join(t[2], NULL, LONG), 0); /* the next in line */
    CHECK_EQ(w[2].result, 0);
    CHECK_EQ(rv_load_relaxed(&turns), 3);
    reeve_maps_return(maps, b);
    CHECK_EQ(reeve_join(t[3], NULL, LONG), 0);
    CHECK_EQ(w[3].result, 0);
    CHECK_EQ(stats().bytes, 2 * PAGE);
    CHECK_EQ(stats().evictions, 2);
    reeve_maps_return(maps, w[2].map);
    reeve_maps_return(maps, w[3].map);
    end_maps();
    return 0;
}

TEST(who_finds_no_room_waits_for_it_and_who_came_first_gets_it_first)
{
    RUN(waits, .workers = 1);
    RUN(waits, .workers = 2);
}

/* The first in line wants more than there is; when it leaves, the next finds enough. */
static int leaves_the_line(void *arg)
{
    struct want large = { .file = 6, .until = LONG }, small = { .file = 2, .until = LONG };
    reeve_task *t, *u;
    (void)arg;
    make_paths(1);
    file("f6", 3 * PAGE);
    make_maps((struct reeve_maps_opts){ .bytes_max = 3 * PAGE, .check_ns = NEVER });
    const struct reeve_map *a = borrow(nth(0)), *b = borrow(nth(1));
    CHECK_EQ(reeve_spawn(&t, want_it, &large), 0);
    await_waits(1);
    CHECK_EQ(reeve_spawn(&u, want_it, &small), 0);
    await_waits(2); /* there is a page, but not for who comes last */
    reeve_maps_return(maps, a);
    CHECK_EQ(rv_load_relaxed(&turns), 0);
    reeve_cancel(t);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(large.result, -ECANCELED);
    CHECK_EQ(reeve_join(u, NULL, LONG), 0);
    CHECK_EQ(small.result, 0);
    CHECK(borrow(nth(0)) == a); /* nothing had to go for that */
    reeve_maps_return(maps, a);
    reeve_maps_return(maps, b);
    reeve_maps_return(maps, small.map);
    end_maps();
    return 0;
}

TEST(who_leaves_the_line_lets_the_next_one_look)
{
    RUN(leaves_the_line, .workers = 1);
    RUN(leaves_the_line, .workers = 2);
}

static int fails_at_once(void *arg)
{
    const struct reeve_map *m = NULL;
    (void)arg;
    make_files(2, 1);
    make_maps((struct reeve_maps_opts){ .bytes_max = PAGE, .full_fails = true });
    const struct reeve_map *a = borrow(nth(0));
    unsigned before = fds_open();
    CHECK_EQ(reeve_maps_borrow(maps, nth(1), &m, LONG), -EAGAIN);
    CHECK_EQ(fds_open(), before);
    reeve_maps_return(maps, a);
    reeve_maps_return(maps, borrow(nth(1)));
    end_maps();
    return 0;
}

TEST(with_full_fails_no_room_is_eagain)
{
    RUN(fails_at_once, .workers = 1);
}

/* ---- files that change ----------------------------------------------------------------------- */

/* The way to replace a file: written beside it, and renamed. */
static void replace(const char *name, size_t len, uint64_t at)
{
    const char *path = path_of(name), *beside = path_of("beside");
    close(file_of(beside, len, at));
    CHECK_EQ(rename(beside, path), 0);
}

static int changes(void *arg)
{
    const struct reeve_map *none = NULL;
    (void)arg;
    share(file("file", 2 * PAGE));
    make_maps((struct reeve_maps_opts){ .check_ns = ALWAYS });
    const struct reeve_map *a = borrow(shared_path);
    CHECK(borrow(shared_path) == a); /* looked at, and the same */
    reeve_maps_return(maps, a);
    CHECK_EQ(stats().hits, 1);
    CHECK_EQ(stats().changes, 0);
    replace("file", 3 * PAGE, 1000);
    const struct reeve_map *b = borrow(shared_path);
    CHECK(b != a);
    check_map(a, 0); /* who has the old map keeps it */
    check_map(b, 1000);
    CHECK_EQ(stats().changes, 1);
    CHECK_EQ(stats().maps, 2);
    CHECK_EQ(stats().bytes, 5 * PAGE);
    reeve_maps_return(maps, a);
    CHECK_EQ(stats().maps, 1); /* and nobody asks for that one again */
    CHECK_EQ(stats().bytes, 3 * PAGE);
    reeve_maps_return(maps, b);
    replace("file", 3 * PAGE, 2000);
    const struct reeve_map *c = borrow(shared_path);
    check_map(c, 2000);
    CHECK_EQ(stats().maps, 1);
    int fd = open(shared_path, O_RDWR | O_CLOEXEC); /* shorter in place: another size */
    CHECK_EQ(ftruncate(fd, PAGE), 0);
    close(fd);
    const struct reeve_map *d = borrow(shared_path);
    CHECK_EQ(d->len, PAGE);
    CHECK_EQ(reeve_map_fetch(c, 0, c->len, LONG), -EIO);
    CHECK_EQ(unlink(shared_path), 0);
    CHECK_EQ(reeve_maps_borrow(maps, shared_path, &none, LONG), -ENOENT);
    check_map(d, 2000);
    reeve_maps_return(maps, c);
    reeve_maps_return(maps, d);
    CHECK_EQ(stats().maps, 0);
    CHECK_EQ(stats().bytes, 0);
    end_maps();
    return 0;
}

TEST(a_changed_file_is_mapped_anew_for_who_asks_from_then_on)
{
    RUN(changes, .workers = 1);
}

static int changes_in_time_only(void *arg)
{
    struct timespec old[2] = { { .tv_sec = 1000 }, { .tv_sec = 1000 } };
    (void)arg;
    share(file("file", PAGE));
    make_maps((struct reeve_maps_opts){ .check_ns = ALWAYS });
    const struct reeve_map *a = borrow(shared_path);
    CHECK_EQ(utimensat(AT_FDCWD, shared_path, old, 0), 0);
    const struct reeve_map *b = borrow(shared_path);
    CHECK(a != b);
    reeve_maps_return(maps, a);
    reeve_maps_return(maps, b);
    end_maps();
    make_maps((struct reeve_maps_opts){ .check_ns = ALWAYS, .flags = REEVE_MAP_WRITE });
    a = borrow(shared_path);
    CHECK_EQ(reeve_map_write(a, 0, "new", 3, LONG), 0);
    CHECK_EQ(reeve_map_flush(a, 0, 3, LONG), 0);
    CHECK(borrow(shared_path) == a); /* writing through it makes it no other */
    reeve_maps_return(maps, a);
    reeve_maps_return(maps, a);
    end_maps();
    return 0;
}

TEST(a_new_time_is_a_change_unless_the_maps_are_for_writing)
{
    RUN(changes_in_time_only, .workers = 1);
}

/* The file is as it was, to the nanosecond; but the map has zeroes in it. */
static int broken(void *arg)
{
    struct stat st;
    (void)arg;
    int fd = file_of(path_of("file"), 3 * PAGE, 0);
    share(path_of("file"));
    CHECK_EQ(fstat(fd, &st), 0);
    make_maps((struct reeve_maps_opts){ .check_ns = NEVER });
    CHECK_EQ(reeve_map_guard(), 0);
    const struct reeve_map *a = borrow(shared_path);
    CHECK_EQ(ftruncate(fd, 0), 0);
    CHECK_EQ(((volatile char *)a->data)[PAGE], 0);
    close(file_of(shared_path, 3 * PAGE, 0));
    CHECK_EQ(futimens(fd, (struct timespec[2]){ st.st_atim, st.st_mtim }), 0);
    const struct reeve_map *b = borrow(shared_path);
    CHECK(a != b);
    check_map(b, 0);
    CHECK_EQ(reeve_map_ok(a), -EIO);
    CHECK_EQ(reeve_map_ok(b), 0);
    reeve_maps_return(maps, a);
    reeve_maps_return(maps, b);
    reeve_map_unguard();
    close(fd);
    end_maps();
    return 0;
}

TEST(a_broken_map_is_not_given_out_again)
{
    RUN(broken, .workers = 1);
}

static int trusts(void *arg)
{
    (void)arg;
    share(file("file", PAGE));
    make_maps((struct reeve_maps_opts){ .check_ns = 1000 * REEVE_SEC });
    const struct reeve_map *a = borrow(shared_path);
    uint64_t run = pool().run;
    replace("file", PAGE, 1);
    CHECK(borrow(shared_path) == a);
    CHECK_EQ(pool().run, run); /* no look, no trip to the pool */
    reeve_maps_return(maps, a);
    reeve_maps_return(maps, a);
    end_maps();
    return 0;
}

TEST(a_map_is_given_out_without_a_look_while_it_is_fresh)
{
    RUN(trusts, .workers = 1);
}

/* One looks at the file, and others wait for what it finds. */
static int look_together(void *arg)
{
    struct asking a[5];
    reeve_task *t[5], *blocker;
    struct door d = { 0 };
    bool changed = arg != NULL;
    share(file("file", PAGE));
    make_maps((struct reeve_maps_opts){ .check_ns = ALWAYS });
    const struct reeve_map *first = borrow(shared_path);
    reeve_maps_return(maps, first);
    uint64_t run = pool().run;
    CHECK_EQ(reeve_spawn(&blocker, wait_at, &d), 0);
    await_pool(run + 1, 0);
    for (int i = 0; i < 5; i++) {
        a[i] = (struct asking){ .until = LONG };
        CHECK_EQ(reeve_spawn(&t[i], ask_for, &a[i], .worker = 1), 0);
        if (i == 0)
            await_pool(run + 1, 1);
    }
    CHECK_EQ(reeve_sleep(reeve_in(REEVE_MS)), 0);
    if (changed)
        replace("file", PAGE, 1000);
    reeve_cancel(t[0]); /* who looked gives up, and another one does it */
    CHECK_EQ(reeve_join(t[0], NULL, LONG), 0);
    CHECK_EQ(a[0].result, -ECANCELED);
    open_door(&d);
    for (int i = 1; i < 5; i++) {
        CHECK_EQ(reeve_join(t[i], NULL, LONG), 0);
        CHECK_EQ(a[i].result, 0);
        check_map(a[i].map, changed ? 1000 : 0);
    }
    CHECK_EQ(reeve_join(blocker, NULL, LONG), 0);
    CHECK_EQ(stats().changes, changed);
    CHECK_EQ(stats().pinned, 1);
    for (int i = 1; i < 5; i++)
        reeve_maps_return(maps, a[i].map);
    CHECK_EQ(stats().maps, 1);
    end_maps();
    return 0;
}

TEST(one_looks_at_a_file_for_all_who_ask)
{
    uring_or_skip();
    for (unsigned workers = 1; workers <= 2; workers++)
        for (uintptr_t changed = 0; changed <= 1; changed++)
            CHECK_EQ(reeve_run(look_together, (void *)changed, .workers = workers,
                               .offload_max = 1), 0);
}

/* ---- names ----------------------------------------------------------------------------------- */

static int named(void *arg)
{
    const struct reeve_map *none = NULL;
    (void)arg;
    make_files(3, 1);
    make_maps((struct reeve_maps_opts){ .bytes_max = 2 * PAGE, .check_ns = ALWAYS });
    CHECK_EQ(reeve_maps_borrow(maps, "state", &none, LONG), -ENOENT);
    CHECK_EQ(reeve_maps_add(maps, "state", path_of("state"), REEVE_MAP_WRITE | REEVE_MAP_CREATE,
                            100, LONG), 0);
    CHECK_EQ(reeve_maps_add(maps, "state", nth(0), 0, 0, LONG), -EEXIST);
    CHECK_EQ(reeve_maps_add(maps, "other", path_of("missing"), 0, 0, LONG), -ENOENT);
    CHECK_EQ(reeve_maps_add(maps, "other", nth(0), 1 << 20, 0, LONG), -EINVAL);
    CHECK_EQ(reeve_maps_add(maps, "other", NULL, 0, 0, LONG), -EINVAL);
    CHECK_EQ(reeve_maps_add(maps, NULL, nth(0), 0, 0, LONG), -EINVAL);
    CHECK_EQ(reeve_maps_borrow(maps, NULL, &none, LONG), -EINVAL);
    const struct reeve_map *a = borrow("state");
    CHECK_EQ(a->len, 100);
    CHECK_EQ(reeve_map_write(a, 0, "kept", 4, LONG), 0);
    reeve_maps_return(maps, a);
    for (int i = 0; i < 3; i++) /* there is room for one beside it, and it does not go */
        reeve_maps_return(maps, borrow(nth(i)));
    CHECK_EQ(stats().evictions, 2);
    CHECK_EQ(stats().pinned, 1);
    CHECK(borrow("state") == a);
    CHECK_MEM_EQ(a->data, "kept", 4);
    CHECK_EQ(reeve_maps_remove(maps, "state"), 0);
    CHECK_EQ(reeve_maps_remove(maps, "state"), -ENOENT);
    CHECK_EQ(reeve_maps_remove(maps, nth(2)), -ENOENT); /* is mapped, but was not added */
    CHECK_EQ(reeve_maps_remove(maps, NULL), -ENOENT);
    CHECK_MEM_EQ(a->data, "kept", 4); /* who has it keeps it */
    CHECK_EQ(reeve_maps_borrow(maps, "state", &none, LONG), -ENOENT);
    CHECK_EQ(reeve_maps_add(maps, "state", nth(2), 0, 0, REEVE_POLL), -ETIMEDOUT);
    reeve_maps_return(maps, a);
    CHECK_EQ(reeve_maps_add(maps, nth(0), nth(1), 0, 0, LONG), 0); /* a name that is a path */
    a = borrow(nth(0));
    check_map(a, 0);
    CHECK_EQ(reeve_maps_remove(maps, nth(0)), 0);
    CHECK_EQ(stats().pinned, 1);
    const struct reeve_map *b = borrow(nth(0)); /* the path again */
    CHECK(a != b);
    reeve_maps_return(maps, a);
    CHECK_EQ(stats().maps, 1);
    reeve_maps_return(maps, b);
    end_maps();
    return 0;
}

static int named_returned(void *arg)
{
    (void)arg;
    make_files(1, 1);
    make_maps((struct reeve_maps_opts){ 0 });
    CHECK_EQ(reeve_maps_add(maps, "a", nth(0), 0, 0, LONG), 0);
    reeve_maps_destroy(maps); /* what was added need not be removed first */
    await_no_maps();
    return 0;
}

TEST(a_map_is_had_by_the_name_that_it_was_added_under)
{
    RUN(named, .workers = 1);
    RUN(named_returned, .workers = 1);
}

/* ---- misuse, want, threads ------------------------------------------------------------------- */

TEST(options_out_of_range_are_einval)
{
    reeve_maps *none = NULL;
    struct reeve_maps_opts wrong[] = { { .flags = 1 << 20 },
                                       { .flags = REEVE_MAP_WRITE | REEVE_MAP_CREATE },
                                       { .maps_max = 65537 } };
    for (int i = 0; i < 3; i++)
        CHECK_EQ(reeve_maps_create(&none, &wrong[i]), -EINVAL);
    CHECK(none == NULL);
    CHECK_EQ(reeve_maps_create(&none, NULL), 0);
    reeve_maps_destroy(none);
    reeve_maps_destroy(NULL);
}

static int destroy_borrowed(void *arg)
{
    (void)arg;
    borrow(shared_path);
    reeve_maps_destroy(maps);
    return 0;
}

static int return_twice(void *arg)
{
    const struct reeve_map *m = borrow(shared_path);
    (void)arg;
    reeve_maps_return(maps, m);
    reeve_maps_return(maps, m);
    return 0;
}

static int return_added(void *arg)
{
    (void)arg;
    CHECK_EQ(reeve_maps_add(maps, "a", shared_path, 0, 0, LONG), 0);
    const struct reeve_map *m = borrow("a");
    reeve_maps_return(maps, m);
    reeve_maps_return(maps, m); /* the table's own */
    return 0;
}

static int destroy_old(void *arg)
{
    (void)arg;
    borrow(shared_path);
    replace("file", PAGE, 9);
    reeve_maps_return(maps, borrow(shared_path));
    reeve_maps_destroy(maps);
    return 0;
}

TEST(what_is_borrowed_is_returned_once_and_before_the_end)
{
    uring_or_skip();
    share(file("file", PAGE));
    make_maps((struct reeve_maps_opts){ .check_ns = ALWAYS });
    CHECK_DIES("still borrowed", reeve_run(destroy_borrowed, NULL, .workers = 1));
    CHECK_DIES("not borrowed", reeve_run(return_twice, NULL, .workers = 1));
    CHECK_DIES("not borrowed", reeve_run(return_added, NULL, .workers = 1));
    CHECK_DIES("old map is still borrowed", reeve_run(destroy_old, NULL, .workers = 1));
    CHECK_DIES("reeve_maps_borrow", reeve_maps_borrow(maps, "x", NULL, 0));
    reeve_maps_destroy(maps);
}

/* Fails each point of that name in turn; how many there are. */
static int fail_each(const char *points, int file)
{
    const struct reeve_map *m = NULL;
    unsigned before = fds_open();
    uint64_t mapped = stats().maps;
    int failures = 0;
    rv_fault_only(points);
    for (;;) {
        rv_fault_fail_nth((uint64_t)failures + 1);
        int r = reeve_maps_borrow(maps, nth(file), &m, LONG);
        if (rv_fault_last_name() == NULL) {
            CHECK_EQ(r, 0);
            break;
        }
        failures++;
        CHECK(r == -ENOMEM || r == -EAGAIN);
        CHECK_EQ(stats().pinned, 0);
        CHECK_EQ(stats().maps, mapped);
        CHECK_EQ(fds_open(), before);
    }
    rv_fault_off();
    reeve_maps_return(maps, m);
    return failures;
}

static int in_want(void *arg)
{
    (void)arg;
    reeve_maps_return(maps, borrow(nth(0))); /* the table of records is made */
    CHECK_EQ(fail_each("map.", 1), 2);       /* the record, the mapping */
    CHECK_EQ(fail_each("alloc", 2), 1);      /* the entry */
    return 0;
}

TEST(every_want_of_memory_is_an_error_and_leaves_nothing)
{
    if (!rv_fault_available())
        SKIP("built without fault points");
    make_files(3, 1);
    make_maps((struct reeve_maps_opts){ .check_ns = NEVER });
    RUN(in_want, .workers = 1);
    reeve_maps_destroy(maps);
}

static void *return_from_afar(void *arg)
{
    reeve_maps_return(maps, arg);
    return NULL;
}

static int afar(void *arg)
{
    struct want w = { .file = 1, .until = LONG };
    pthread_t thread;
    reeve_task *t;
    (void)arg;
    make_paths(1);
    make_maps((struct reeve_maps_opts){ .bytes_max = PAGE, .check_ns = NEVER });
    const struct reeve_map *a = borrow(nth(0));
    CHECK_EQ(reeve_spawn(&t, want_it, &w), 0);
    await_waits(1);
    CHECK_EQ(pthread_create(&thread, NULL, return_from_afar, (void *)(uintptr_t)a), 0);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(w.result, 0);
    reeve_maps_return(maps, w.map);
    end_maps();
    return 0;
}

TEST(a_map_is_returned_from_any_thread_and_who_waits_for_its_room_is_woken)
{
    RUN(afar, .workers = 1);
}

/* ---- all of it at once ----------------------------------------------------------------------- */

enum { TASKS = 24, STEPS = 60 };
static RV_ATOMIC(uint32_t) over;

static int wander(void *arg)
{
    uint64_t x = (uint64_t)(uintptr_t)arg * 0x9e3779b97f4a7c15 + 1;
    for (int i = 0; i < STEPS || stats().changes < STEPS; i++) {
        const struct reeve_map *m;
        unsigned char buf[600];
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        reeve_time until = x >> 40 & 7 ? LONG : reeve_in((int64_t)(x >> 50 & 255) * REEVE_US);
        int r = reeve_maps_borrow(maps, paths[x % 8], &m, until);
        CHECK(r == 0 || r == -ETIMEDOUT);
        CHECK_LE(stats().bytes, 6 * PAGE);
        if (r < 0)
            continue;
        if (m->len >= sizeof buf && reeve_map_read(m, 0, buf, sizeof buf, LONG) == 0)
            for (size_t k = 1; k < sizeof buf; k++)
                CHECK_EQ(buf[k], buf[0]); /* each version of a file is one letter, all through */
        if (x >> 33 & 1)
            CHECK_OK(reeve_sleep(0));
        reeve_maps_return(maps, m);
    }
    return 0;
}

/* Replaces the files, one after the other. */
static void *edit(void *arg)
{
    char beside[160], page[2 * PAGE];
    (void)arg;
    snprintf(beside, sizeof beside, "%s.new", paths[0]);
    for (unsigned i = 0; rv_load_acquire(&over) == 0; i++) {
        size_t len = (i * 7 % 5 + 1) * 1000;
        memset(page, 'a' + (int)(i % 26), sizeof page);
        int fd = open(beside, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        CHECK_EQ(write(fd, page, len), (ssize_t)len);
        close(fd);
        CHECK_EQ(rename(beside, paths[i % 8]), 0);
    }
    return NULL;
}

static int wanderers(void *arg)
{
    reeve_group g = { 0 };
    pthread_t thread;
    (void)arg;
    make_paths(0);
    make_maps((struct reeve_maps_opts){ .bytes_max = 6 * PAGE, .maps_max = 5,
                                        .check_ns = 50 * REEVE_US });
    rv_store_relaxed(&over, 0u);
    CHECK_EQ(pthread_create(&thread, NULL, edit, NULL), 0);
    for (uintptr_t i = 0; i < TASKS; i++)
        CHECK_EQ(reeve_go(wander, (void *)(i + 1), .group = &g), 0);
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    rv_store_release(&over, 1u);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_GT(stats().changes, 0);
    CHECK_GT(stats().evictions, 0);
    end_maps();
    return 0;
}

TEST(many_tasks_wander_through_files_that_change_and_the_bound_holds)
{
    RUN(wanderers, .workers = 1);
    RUN(wanderers, .workers = 2);
}
