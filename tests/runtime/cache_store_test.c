/* SPDX-License-Identifier: MIT */
/*
 * cache_store_test.c -- the calls on a store: what they find, what they say when something is
 * short, and many of them at a time.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mount.h>

#include "mem/fault.h"
#include "sched/sched.h"
#include "tests/io/seccomp.h"
#include "tests/runtime/cache_store_play.h"

static struct rv_key key_from(const char *text)
{
    return (struct rv_key){ .data = text, .len = strlen(text) };
}

static int put_text(struct rv_store *s, const char *key, const char *value)
{
    struct rv_key k = key_from(key);
    return rv_store_put(s, &k, value, strlen(value), 0, LONG);
}

/* The value must be that; NULL: there must be none. */
static void check_text(struct rv_store *s, const char *key, const char *value)
{
    struct rv_key k = key_from(key);
    void *data = NULL;
    size_t len = 0;
    int r = rv_store_get(s, &k, &data, &len, NULL, LONG);
    CHECK_EQ(r, value ? 0 : -ENOENT);
    if (value == NULL)
        return;
    CHECK_EQ(len, strlen(value));
    CHECK_MEM_EQ(data, value, len);
    reeve_free(data);
}

/* Maps are taken down by the pool, in its own time, and have descriptors. */
static void await_no_maps(void)
{
    struct reeve_map_stats maps;
    while (reeve_map_stats(&maps), maps.live > 0)
        CHECK_OK(reeve_sleep(0));
}

/* ---- what is found --------------------------------------------------------------------------- */

static int basics(void *arg)
{
    struct rv_store *s = open_store(SMALL);
    struct rv_key a = key_from("a");
    (void)arg;
    check_text(s, "a", NULL);
    CHECK_EQ(rv_store_remove(s, &a), -ENOENT);
    CHECK_EQ(put_text(s, "a", "one"), 0);
    CHECK_EQ(put_text(s, "b", ""), 0);
    CHECK_EQ(put_text(s, "", "of no key"), 0);
    check_text(s, "a", "one");
    check_text(s, "b", "");
    check_text(s, "", "of no key");
    CHECK_EQ(put_text(s, "a", "another"), 0);
    check_text(s, "a", "another");
    CHECK_EQ(stats_of(s).entries, 3);
    CHECK_EQ(rv_store_remove(s, &a), 0);
    CHECK_EQ(rv_store_remove(s, &a), -ENOENT);
    check_text(s, "a", NULL);
    CHECK_EQ(rv_store_clear(s), 0);
    check_text(s, "b", NULL);
    CHECK_EQ(put_text(s, "b", "again"), 0);
    check_text(s, "b", "again");
    struct rv_store_stats st = stats_of(s);
    CHECK_EQ(st.hits, 5);
    CHECK_EQ(st.misses, 3);
    CHECK_EQ(st.inserts, 5);
    CHECK_EQ(st.removes, 1);
    CHECK_EQ(st.entries, 1);
    CHECK_EQ(st.bytes_max, 16384);
    CHECK_GE(st.bytes, 6);
    CHECK_EQ(st.evictions + st.expired + st.torn + st.dropped + st.discards, 0);
    rv_store_stats_reset(s);
    st = stats_of(s);
    CHECK_EQ(st.hits + st.misses + st.inserts + st.removes, 0);
    CHECK_EQ(st.entries, 1);
    CHECK_EQ(rv_store_flush(s, LONG), 0);
    rv_store_close(s, LONG);
    rv_store_close(NULL, LONG);
    return 0;
}

TEST(what_was_put_is_found_until_it_is_replaced_or_removed)
{
    RUN(basics, .workers = 1);
}

static int wrong_options(void *arg)
{
    struct rv_store *s = NULL;
    struct rv_store_opts opts = SMALL;
    int fds = fds_open();
    (void)arg;
    opts.bytes = 0;
    CHECK_EQ(rv_store_open(&s, &opts, LONG), -EINVAL);
    opts = SMALL;
    opts.path = NULL;
    CHECK_EQ(rv_store_open(&s, &opts, LONG), -EINVAL);
    for (size_t i = 0; i < 4; i++) {
        opts = SMALL;
        opts.segment_bytes = ((size_t[]){ 1, 2048, 5000, (size_t)1 << 31 })[i];
        CHECK_EQ(rv_store_open(&s, &opts, LONG), -EINVAL);
    }
    opts = SMALL;
    opts.bytes = SIZE_MAX;
    CHECK_EQ(rv_store_open(&s, &opts, LONG), -EINVAL);
    opts = SMALL;
    opts.path = "/nowhere/at/all";
    CHECK_EQ(rv_store_open(&s, &opts, LONG), -ENOENT);
    opts.path = "/tmp";
    CHECK_EQ(rv_store_open(&s, &opts, LONG), -EISDIR);
    opts.path = "/dev/null";
    CHECK_EQ(rv_store_open(&s, &opts, LONG), -ENODEV);
    opts = SMALL;
    CHECK_EQ(rv_store_open(&s, &opts, REEVE_POLL), -ETIMEDOUT);
    CHECK(s == NULL); /* untouched */
    CHECK_EQ(fds_open(), fds);
    opts.bytes = 1; /* the smallest there is */
    opts.segment_bytes = 0;
    s = open_store(opts);
    CHECK_EQ(put_text(s, "a", "b"), 0);
    check_text(s, "a", "b");
    CHECK_EQ(stats_of(s).bytes_max, 4 * PAGE);
    rv_store_close(s, LONG);
    return 0;
}

TEST(what_cannot_be_opened_is_an_error_and_leaves_nothing)
{
    RUN(wrong_options, .workers = 1);
}

static int no_pool(void *arg)
{
    struct rv_store *s = NULL;
    struct rv_store_opts opts = SMALL;
    (void)arg;
    CHECK_EQ(rv_store_open(&s, &opts, LONG), -ENOTSUP);
    return 0;
}

TEST(a_runtime_without_a_pool_has_no_store)
{
    RUN(no_pool, .workers = 1, .offload_max = REEVE_NONE);
}

/* Of any length up to the largest; a larger one takes what it was to replace with it. */
static int sizes(void *arg)
{
    struct rv_store *s = open_store(SMALL);
    (void)arg;
    for (uint32_t k = 0; k < 6; k++) {
        struct rv_key key = key_of(k);
        size_t most = rv_store_fits(s, key.len);
        CHECK_GT(most, 3000);
        for (size_t len = most; len > most - 20; len--) {
            CHECK_EQ(put_event(s, k, len, len), 0);
            CHECK_EQ(get_event(s, k), len);
        }
        CHECK_EQ(put_event(s, k, 1, most + 1), -E2BIG);
        CHECK_EQ(get_event(s, k), 0);
        CHECK_EQ(remove_key(s, k), -ENOENT);
    }
    char *bytes = calloc(1, PAGE);
    struct rv_key long_key = { .data = bytes, .len = 3900 };
    CHECK_EQ(rv_store_put(s, &long_key, "x", 1, 0, LONG), 0);
    long_key.len = PAGE;
    CHECK_EQ(rv_store_put(s, &long_key, "x", 1, 0, LONG), -E2BIG);
    CHECK_EQ(rv_store_fits(s, PAGE), 0);
    CHECK_EQ(rv_store_fits(s, SIZE_MAX), 0);
    rv_store_close(s, LONG);
    free(bytes);
    return 0;
}

TEST(records_up_to_a_segment_are_taken_and_larger_ones_refused)
{
    RUN(sizes, .workers = 1);
}

static int evicts(void *arg)
{
    struct rv_store_opts opts = { .path = store_path(), .bytes = MIB, .segment_bytes = 65536 };
    struct rv_store *s = open_store(opts);
    struct rv_key key = { .len = 4 };
    unsigned char value[1000];
    uint32_t found = 0, n = 5000;
    (void)arg;
    for (uint32_t i = 0; i < n; i++) {
        key.data = &i;
        make_value(value, sizeof value, i, i + 1);
        CHECK_EQ(rv_store_put(s, &key, value, sizeof value, 0, LONG), 0);
    }
    struct rv_store_stats st = stats_of(s);
    CHECK_EQ(st.entries + st.evictions, n);
    CHECK_LE(st.bytes, st.bytes_max);
    CHECK_GT(st.entries, MIB / 1100 * 14 / 16);
    for (uint32_t i = 0; i < n; i++) { /* the newest are there, the oldest are not */
        void *data;
        size_t len;
        key.data = &i;
        int r = rv_store_get(s, &key, &data, &len, NULL, LONG);
        CHECK_EQ(r, i < n - st.entries ? -ENOENT : 0);
        if (r < 0)
            continue;
        CHECK_EQ(event_of(data, len, i), i + 1);
        reeve_free(data);
        found++;
    }
    CHECK_EQ(found, st.entries);
    rv_store_close(s, LONG);
    s = open_store(opts);
    CHECK_EQ(stats_of(s).entries, found);
    CHECK_EQ(stats_of(s).bytes, st.bytes);
    rv_store_close(s, LONG);
    return 0;
}

TEST(the_oldest_records_make_room_for_the_newest)
{
    RUN(evicts, .workers = 1);
}

/* ---- time ------------------------------------------------------------------------------------ */

static RV_ATOMIC(int64_t) played_now;

static int64_t now_played(void)
{
    return rv_load_relaxed(&played_now);
}

static int expires(void *arg)
{
    struct rv_store_opts opts = SMALL;
    int64_t when = 0;
    void *data;
    size_t len;
    (void)arg;
    opts.now = now_played;
    rv_store_relaxed(&played_now, INT64_C(1000));
    struct rv_store *s = open_store(opts);
    struct rv_key a = key_from("a");
    CHECK_EQ(rv_store_put(s, &a, "short", 5, 2000, LONG), 0);
    CHECK_EQ(put_text(s, "b", "for ever"), 0);
    CHECK_EQ(rv_store_get(s, &a, &data, &len, &when, LONG), 0);
    CHECK_EQ(when, 2000);
    reeve_free(data);
    static const struct {
        int64_t now;
        bool there;
    } clock[] = { { 1999, true }, { 2000, false }, { 1500, true },  { INT64_MAX, false },
                  { 0, true },    { -5000, true }, { 3000, false }, { 1999, true } };
    uint64_t gone = 0;
    for (size_t i = 0; i < sizeof clock / sizeof *clock; i++) {
        rv_store_relaxed(&played_now, clock[i].now);
        check_text(s, "a", clock[i].there ? "short" : NULL);
        check_text(s, "b", "for ever");
        gone += !clock[i].there;
        CHECK_EQ(stats_of(s).expired, gone);
        rv_store_close(s, LONG);
        s = open_store(opts);
        check_text(s, "a", clock[i].there ? "short" : NULL);
        gone = !clock[i].there;
    }
    rv_store_relaxed(&played_now, INT64_C(5000));
    CHECK_EQ(rv_store_remove(s, &a), 0);
    rv_store_relaxed(&played_now, INT64_C(0)); /* back: it was removed all the same */
    check_text(s, "a", NULL);
    rv_store_close(s, LONG);
    return 0;
}

TEST(a_record_is_not_found_once_its_time_is_over_on_the_wall_clock_across_restarts)
{
    RUN(expires, .workers = 1);
}

/* ---- one at a time --------------------------------------------------------------------------- */

static int busy_here(void *arg)
{
    struct rv_store_opts opts = SMALL;
    struct rv_store *s = open_store(opts), *other = NULL;
    (void)arg;
    CHECK_EQ(put_text(s, "a", "mine"), 0);
    CHECK_EQ(rv_store_open(&other, &opts, LONG), -EBUSY);
    opts.bytes *= 4; /* and nothing was done to it */
    CHECK_EQ(rv_store_open(&other, &opts, LONG), -EBUSY);
    check_text(s, "a", "mine");
    rv_store_close(s, LONG);
    s = open_store(SMALL); /* at once */
    check_text(s, "a", "mine");
    rv_store_close(s, LONG);
    return 0;
}

TEST(a_store_that_is_open_is_busy)
{
    RUN(busy_here, .workers = 1);
}

static int hold_open(void *arg)
{
    const int *ends = arg;
    struct rv_store *s = open_store(SMALL);
    CHECK_EQ(put_text(s, "a", "theirs"), 0);
    CHECK_EQ(write(ends[1], "x", 1), 1);
    while (pause() < 0) /* until it is killed */
        ;
    return 0;
}

static int busy_there(void *arg)
{
    struct rv_store *s = NULL;
    struct rv_store_opts opts = SMALL;
    (void)arg;
    CHECK_EQ(rv_store_open(&s, &opts, LONG), -EBUSY);
    return 0;
}

static int free_again(void *arg)
{
    struct rv_store *s = open_store(SMALL);
    (void)arg;
    check_text(s, "a", "theirs");
    rv_store_close(s, LONG);
    return 0;
}

TEST(a_store_that_another_process_has_is_busy_until_that_ends)
{
    int ends[2], status;
    char byte;
    uring_or_skip();
    store_path();
    CHECK_EQ(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    CHECK_GE(child, 0);
    if (child == 0)
        _exit(reeve_run(hold_open, ends, .workers = 1));
    CHECK_EQ(read(ends[0], &byte, 1), 1);
    CHECK_EQ(reeve_run(busy_there, NULL, .workers = 1), 0);
    kill(child, SIGKILL);
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(reeve_run(free_again, NULL, .workers = 1), 0);
}

/* ---- many at a time -------------------------------------------------------------------------- */

enum { PARTS = 4, PART_KEYS = KEYS / PARTS };

/* Each key is changed by one part only; all read all. */
static struct {
    struct rv_store *s;
    uint32_t n;
    RV_ATOMIC(uint64_t) begun[KEYS], ended[KEYS]; /* changes of the key; odd: a removal */
    RV_ATOMIC(uint64_t) found;
    RV_ATOMIC(uint32_t) done;
} crowd;

/* Whatever is found is a value that counted at some moment between the two looks. */
static void read_any(uint32_t k)
{
    uint64_t least = rv_load_acquire(&crowd.ended[k]); /* pairs with change_own() */
    uint64_t event = get_event(crowd.s, k);
    uint64_t most = rv_load_acquire(&crowd.begun[k]);
    if (event == 0)
        return;
    CHECK(event >= least && event <= most && event % 2 == 0);
    rv_add_relaxed(&crowd.found, (uint64_t)1);
}

static void change_own(uint32_t k, uint64_t *dice)
{
    *dice = *dice * UINT64_C(6364136223846793005) + 1442695040888963407;
    uint64_t last = rv_load_relaxed(&crowd.ended[k]), roll = *dice >> 33;
    bool put = roll % 4 != 0;
    uint64_t next = last + 1 + (put == (last % 2 == 0)); /* even: a put */
    rv_store_release(&crowd.begun[k], next);
    if (put) {
        int r = put_event(crowd.s, k, next, VALUE_HEAD + roll / 4 % 1500);
        CHECK_EQ(r, 0);
    } else {
        int r = remove_key(crowd.s, k);
        CHECK(r == 0 || r == -ENOENT);
    }
    rv_store_release(&crowd.ended[k], next);
}

static int take_part(void *arg)
{
    uint32_t part = (uint32_t)(uintptr_t)arg;
    uint64_t dice = part + 1;
    for (uint32_t i = 0; i < crowd.n; i++) {
        change_own(part * PART_KEYS + i % PART_KEYS, &dice);
        for (uint32_t j = 0; j < 3; j++)
            read_any((uint32_t)((dice >> (35 + j)) % KEYS));
    }
    rv_add_acq_rel(&crowd.done, 1u); /* pairs with the acquire in in_crowd() */
    return 0;
}

static void *take_part_outside(void *arg)
{
    take_part(arg);
    return NULL;
}

static int in_crowd(void *arg)
{
    struct rv_store_opts opts = { .path = store_path(), .bytes = 1, .segment_bytes = 16384 };
    pthread_t threads[2];
    reeve_task *tasks[2];
    (void)arg;
    crowd.s = open_store(opts);
    crowd.n = rounds(6000);
    for (uintptr_t i = 0; i < 2; i++) {
        CHECK_OK(reeve_spawn(&tasks[i], take_part, (void *)i));
        CHECK_EQ(pthread_create(&threads[i], NULL, take_part_outside, (void *)(i + 2)), 0);
    }
    while (rv_load_acquire(&crowd.done) < PARTS)
        CHECK_OK(reeve_sleep(0));
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(reeve_join(tasks[i], NULL, LONG), 0);
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    }
    CHECK_GT(rv_load_relaxed(&crowd.found), crowd.n / 4);
    CHECK_EQ(stats_of(crowd.s).torn, 0);
    CHECK_GT(stats_of(crowd.s).evictions, 0);
    for (uint32_t k = 0; k < KEYS; k++) {
        uint64_t event = get_event(crowd.s, k);
        CHECK(event == 0 || event == rv_load_relaxed(&crowd.ended[k]));
    }
    uint64_t entries = stats_of(crowd.s).entries;
    rv_store_close(crowd.s, LONG);
    crowd.s = open_store(opts);
    CHECK_EQ(stats_of(crowd.s).entries, entries);
    rv_store_close(crowd.s, LONG);
    return 0;
}

TEST(tasks_and_threads_at_once_never_see_what_does_not_count)
{
    RUN(in_crowd, .workers = 2);
}

TEST(tasks_of_one_worker_and_threads_never_see_what_does_not_count)
{
    RUN(in_crowd, .workers = 1);
}

/* ---- waiting --------------------------------------------------------------------------------- */

/* Where a thread of the pool stops, on a lock that is held. */
static struct rv_lock door;

static int stop_at_door(void *arg)
{
    RV_ATOMIC(uint32_t) *there = arg;
    rv_store_release(there, 1u); /* pairs with close_pool() */
    rv_lock_acquire(&door);
    rv_lock_release(&door);
    return 0;
}

static RV_ATOMIC(uint32_t) at_door;

static int wait_at_door(void *arg)
{
    return reeve_offload(stop_at_door, arg, 0);
}

/* The pool's only thread is stopped. */
static reeve_task *close_pool(void)
{
    reeve_task *t = NULL;
    rv_lock_init_held(&door);
    rv_store_relaxed(&at_door, 0u);
    CHECK_OK(reeve_spawn(&t, wait_at_door, (void *)(uintptr_t)&at_door));
    while (rv_load_acquire(&at_door) == 0)
        CHECK_OK(reeve_sleep(0));
    return t;
}

static void open_pool(reeve_task *t)
{
    rv_lock_release(&door);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
}

static int put_now(struct rv_store *s, uint32_t k, size_t len)
{
    static const char zeroes[4000];
    struct rv_key key = key_of(k);
    return rv_store_put(s, &key, zeroes, len, 0, REEVE_POLL);
}

static int no_room(void *arg)
{
    struct rv_store *s = open_store(SMALL);
    uint32_t n = 0;
    int r = 0;
    (void)arg;
    CHECK_EQ(put_event(s, 7, 1, 100), 0);
    CHECK_EQ(put_event(s, 8, 1, 100), 0);
    reeve_task *stopped = close_pool();
    while ((r = put_now(s, 1, 1000)) == 0) /* what is prepared is used up */
        CHECK_LT(++n, 20);
    CHECK_EQ(r, -EAGAIN);
    CHECK_EQ(stats_of(s).dropped, 1);
    struct rv_key one = key_of(1);
    void *data;
    size_t len;
    CHECK_EQ(rv_store_get(s, &one, &data, &len, NULL, REEVE_POLL), -ENOENT);
    CHECK_EQ(get_event(s, 7), 1);
    CHECK_EQ(put_now(s, 7, 3000), -EAGAIN);
    CHECK_EQ(get_event(s, 7), 0);  /* nor the older one */
    CHECK_EQ(remove_key(s, 8), 0); /* removing never waits for room */
    CHECK_EQ(get_event(s, 8), 0);
    struct rv_key nine = key_of(9);
    CHECK_EQ(rv_store_put(s, &nine, "x", 1, 0, reeve_in(REEVE_MS)), 0); /* a little is left */
    while ((r = rv_store_put(s, &nine, (const char[3000]){ 0 }, 3000, 0, reeve_in(1))) == 0)
        ;
    CHECK_EQ(r, -ETIMEDOUT);
    open_pool(stopped);
    CHECK_EQ(put_event(s, 1, 5, 3000), 0); /* waits for room */
    CHECK_EQ(get_event(s, 1), 5);
    rv_store_close(s, LONG);
    s = open_store(SMALL);
    CHECK_EQ(get_event(s, 1), 5);
    CHECK_EQ(get_event(s, 7) + get_event(s, 8) + get_event(s, 9), 0);
    rv_store_close(s, LONG);
    return 0;
}

TEST(a_put_that_may_not_wait_is_dropped_and_leaves_nothing_older)
{
    RUN(no_room, .workers = 1, .offload_max = 1);
}

/* Out of the page cache; not where a file system keeps it there. */
static bool make_cold(const char *path)
{
    unsigned char there = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK_GE(fd, 0);
    CHECK_EQ(fsync(fd), 0);
    CHECK_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
    for (off_t at = 0; at < size_of(path) && !(there & 1); at += PAGE) {
        void *p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, at);
        CHECK(p != MAP_FAILED);
        CHECK_EQ(mincore(p, PAGE, &there), 0);
        munmap(p, PAGE);
    }
    close(fd);
    return !(there & 1);
}

static int cold(void *arg)
{
    struct rv_store_opts opts = { .path = store_path(), .bytes = 4 * MIB, .segment_bytes = MIB };
    struct rv_store *s = open_store(opts);
    uint32_t waits = 0;
    (void)arg;
    for (uint32_t k = 0; k < KEYS; k++)
        CHECK_EQ(put_event(s, k, k + 1, 60000), 0);
    CHECK_EQ(stats_of(s).entries, KEYS);
    rv_store_close(s, LONG);
    await_no_maps(); /* what is mapped stays in memory */
    if (!make_cold(opts.path))
        SKIP("this file system keeps files in memory");
    s = open_store(opts);
    for (uint32_t k = 0; k < KEYS; k++) {
        struct rv_key key = key_of(k);
        void *data = NULL;
        size_t len;
        int r = rv_store_get(s, &key, &data, &len, NULL, REEVE_POLL);
        CHECK(r == 0 || r == -ETIMEDOUT);
        waits += r < 0;
        if (r == 0)
            reeve_free(data);
        else if (k % 2 == 0)
            CHECK_EQ(rv_store_fetch(s, &key, LONG), 0);
        CHECK_EQ(get_event(s, k), k + 1);
    }
    CHECK_GT(waits, 0);
    CHECK_EQ(stats_of(s).torn, 0);
    CHECK_EQ(rv_store_fetch(s, &(struct rv_key){ .data = "none", .len = 4 }, REEVE_POLL), 0);
    rv_store_close(s, LONG);
    return 0;
}

TEST(what_is_not_in_memory_is_waited_for_or_refused)
{
    RUN(cold, .workers = 1);
}

/* ---- when something is short ----------------------------------------------------------------- */

/* Whatever fails, an error is said, and nothing is left or lost that counts. */
static int faults(void *arg)
{
    struct rv_store_opts opts = SMALL;
    struct rv_store *s = open_store(opts);
    (void)arg;
    CHECK_EQ(put_event(s, 1, note(1, true), 100), 0);
    rv_store_close(s, LONG);
    await_no_maps();
    int fds = fds_open();
    for (const char *const *only = (const char *const[]){ "store.", "alloc", "map.", NULL }; *only;
         only++) {
        for (uint64_t n = 1;; n++) {
            s = NULL;
            rv_fault_only(*only);
            rv_fault_fail_nth(n);
            int r = rv_store_open(&s, &opts, LONG);
            const char *failed = rv_fault_last_name();
            rv_fault_off();
            CHECK(r == 0 || r == -ENOMEM || r == -EIO || r == -ENOSPC || r == -EAGAIN);
            CHECK(failed || r == 0);
            if (r == 0) {
                CHECK_LE(check_current(s), 1);
                CHECK_EQ(put_event(s, 1, note(1, true), 100), 0);
                rv_store_close(s, LONG);
            }
            if (!failed)
                break;
            CHECK_LT(n, 1000);
        }
    }
    await_no_maps();
    CHECK_EQ(fds_open(), fds);
    return 0;
}

TEST(an_open_that_fails_anywhere_leaves_nothing_and_can_be_repeated)
{
    if (!rv_fault_available())
        SKIP("built without fault points");
    RUN(faults, .workers = 1);
}

static int fails_at(struct rv_store *s, uint64_t n, const char *only, uint32_t k)
{
    rv_fault_only(only);
    rv_fault_fail_nth(n);
    uint32_t event = note(k, true);
    int r = put_event(s, k, event, 100);
    rv_fault_off();
    if (r < 0)
        note(k, false);
    return r;
}

static int no_memory(void *arg)
{
    struct rv_store_opts opts = SMALL;
    struct rv_store *s = open_store(opts);
    uint32_t failed = 0;
    (void)arg;
    for (uint32_t i = 0; i < 40; i++) { /* the index grows with some of these */
        int r = fails_at(s, 1, "alloc", i);
        CHECK(r == 0 || r == -ENOMEM);
        failed += r < 0;
        if (r < 0)
            CHECK_EQ(fails_at(s, 0, NULL, i), 0);
    }
    CHECK_GT(failed, 0);
    CHECK_GT(check_current(s), 20);
    struct rv_key key = key_of(3);
    void *data;
    size_t len;
    rv_fault_only("alloc");
    rv_fault_fail_nth(1);
    int r = rv_store_get(s, &key, &data, &len, NULL, LONG);
    CHECK(r == -ENOMEM || r == 0); /* blocks may be at hand */
    rv_fault_off();
    if (r == 0)
        reeve_free(data);
    CHECK_EQ(get_event(s, 3), history.current[3]);
    rv_store_close(s, LONG);
    return 0;
}

TEST(a_put_without_memory_leaves_nothing_older)
{
    if (!rv_fault_available())
        SKIP("built without fault points");
    RUN(no_memory, .workers = 1);
}

/* The disk cannot be written to, at any moment: what could not be removed is not found. */
static int no_disk(void *arg)
{
    struct rv_store_opts opts = SMALL;
    (void)arg;
    for (uint64_t n = 1; n < 4; n++) {
        struct rv_store *s = open_store(opts);
        play(s, 60, (struct played){ 0 });
        rv_fault_only("store.write");
        rv_fault_fail_nth(n);
        int r = 0;
        for (uint32_t i = 0; r == 0; i++) {
            uint32_t k = i % KEYS;
            note(k, false);
            r = remove_key(s, k);
            r = r == -ENOENT ? 0 : r;
            CHECK_LT(i, KEYS);
        }
        CHECK_EQ(r, -EIO);
        rv_fault_off();
        struct rv_key key = key_of(40);
        void *data;
        size_t len;
        CHECK_EQ(rv_store_get(s, &key, &data, &len, NULL, LONG), -EIO);
        CHECK_EQ(rv_store_put(s, &key, "x", 1, 0, LONG), -EIO);
        CHECK_EQ(rv_store_remove(s, &key), -EIO);
        CHECK_EQ(rv_store_clear(s), -EIO);
        CHECK_EQ(rv_store_fetch(s, &key, LONG), -EIO);
        CHECK_EQ(rv_store_flush(s, LONG), -EIO);
        CHECK_EQ(stats_of(s).entries, 0);
        rv_store_close(s, LONG);
        note(KEYS, false);
        s = open_store(opts); /* the head could be written: all is gone */
        CHECK_EQ(check_current(s), 0);
        CHECK_EQ(stats_of(s).discards, 1);
        rv_store_close(s, LONG);
    }
    return 0;
}

TEST(a_removal_that_cannot_be_written_takes_all_with_it)
{
    if (!rv_fault_available())
        SKIP("built without fault points");
    RUN(no_disk, .workers = 1);
}

/* Somebody shortens the file while it is open. */
static int shortened(void *arg)
{
    struct rv_store_opts opts = { .path = arg, .bytes = MIB, .segment_bytes = 65536 };
    struct rv_key key = key_of(0);
    void *data;
    size_t len;
    for (off_t left = 0; left < MIB; left += 200000 + (off_t)chance(5000)) {
        struct rv_store *s = open_store(opts);
        note(KEYS, false);
        CHECK_EQ(rv_store_clear(s), 0);
        for (uint32_t k = 0; k < KEYS; k++)
            CHECK_EQ(put_event(s, k, note(k, true), 18000), 0);
        CHECK_EQ(truncate(opts.path, left), 0);
        uint32_t errors = 0;
        for (uint32_t k = 0; k < KEYS; k++) {
            key = key_of(k);
            int r = rv_store_get(s, &key, &data, &len, NULL, LONG);
            errors += r == -EIO;
            CHECK(r == 0 || r == -EIO || r == -ENOENT);
            if (r == 0) {
                CHECK_EQ(event_of(data, len, k), history.current[k]);
                reeve_free(data);
            }
        }
        CHECK_GT(errors, 0);
        int r = 0;
        for (uint32_t i = 0; i < 100 && r == 0; i++)
            r = put_event(s, i % KEYS, note(i % KEYS, true), 18000);
        CHECK_EQ(r, -EIO);
        CHECK_EQ(rv_store_remove(s, &key), -EIO);
        rv_store_close(s, LONG);
        CHECK_EQ(size_of(opts.path), left); /* nor did anything make it longer */
        s = open_store(opts);
        CHECK_EQ(check_current(s), 0);
        rv_store_close(s, LONG);
    }
    return 0;
}

TEST(a_file_that_is_shortened_under_us_is_an_error_and_no_crash)
{
    uring_or_skip();
    CHECK_EQ(reeve_run(shortened, (void *)(uintptr_t)store_path(), .workers = 1), 0);
    CHECK_EQ(reeve_run(shortened, (void *)(uintptr_t)memory_path(), .workers = 1), 0);
}

static int too_large(void *arg)
{
    struct rv_store *s = NULL;
    struct rv_store_opts opts = { .path = arg, .bytes = 8 * MIB };
    int r = rv_store_open(&s, &opts, LONG);
    CHECK(r == -EFBIG || r == -ENOSPC);
    opts.bytes = 32768; /* and with less it works */
    s = open_store(opts);
    CHECK_EQ(put_text(s, "a", "b"), 0);
    check_text(s, "a", "b");
    rv_store_close(s, LONG);
    return 0;
}

TEST(a_file_that_may_not_be_that_long_is_an_error)
{
    uring_or_skip();
    signal(SIGXFSZ, SIG_IGN);
    store_path();
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &(struct rlimit){ MIB, MIB }), 0);
    CHECK_EQ(reeve_run(too_large, (void *)(uintptr_t)store_path(), .workers = 1), 0);
}

TEST(a_full_disk_is_an_error_at_open_and_not_a_crash_later)
{
    uring_or_skip();
    char path[600], disk[520];
    snprintf(disk, sizeof disk, "%.500s", scratch("disk"));
    snprintf(path, sizeof path, "%s/file", disk);
    CHECK_EQ(mkdir(disk, 0755), 0);
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("reeve-test", disk, "tmpfs", 0, "size=64k") < 0)
        SKIP("only root can have a small disk of its own");
    CHECK_EQ(reeve_run(too_large, path, .workers = 1), 0);
    CHECK_EQ(umount2(disk, MNT_DETACH), 0);
}

static int by_fd(void *arg)
{
    struct rv_store *s = open_store(SMALL);
    (void)arg;
    play(s, 500, (struct played){ 0 });
    CHECK_GT(check_current(s), 0);
    rv_store_close(s, LONG);
    s = open_store(SMALL);
    CHECK_GT(check_current(s), 0);
    rv_store_close(s, LONG);
    return 0;
}

TEST(it_works_where_the_system_call_that_writes_to_maps_is_forbidden)
{
    seccomp_refuse(SYS_process_vm_writev, SECCOMP_ANY_ARGUMENT, EPERM);
    RUN(by_fd, .workers = 1);
}

/* What the file says is counted once more by other means: nothing is left of descriptors, maps. */
static int leaves_nothing(void *arg)
{
    int fds = fds_open();
    (void)arg;
    for (int i = 0; i < 20; i++) {
        struct rv_store *s = open_store(SMALL);
        play(s, 100, (struct played){ 0 });
        rv_store_close(s, i % 2 ? LONG : REEVE_POLL);
    }
    await_no_maps();
    CHECK_EQ(fds_open(), fds);
    return 0;
}

TEST(a_closed_store_leaves_no_descriptor_and_no_map)
{
    RUN(leaves_nothing, .workers = 1);
}
