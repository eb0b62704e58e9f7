/* SPDX-License-Identifier: MIT */
/*
 * cache_store_scan_test.c -- what is found again after the end of a process, and after damage.
 *
 * The claim in all of them: never another value than the last of its key, nor one that was removed;
 * and where the latest writes themselves were undone, nothing but what counted at one moment.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <time.h>

#include "tests/runtime/cache_store_play.h"

/* ---- restarts -------------------------------------------------------------------------------- */

static int restarts(void *arg)
{
    struct rv_store_opts opts = SMALL;
    uint32_t found = 0;
    (void)arg;
    for (uint32_t i = 0; i < rounds(300); i++) {
        struct rv_store *s = open_store(opts);
        CHECK_EQ(stats_of(s).discards, 0);
        CHECK_EQ(stats_of(s).torn, 0);
        uint32_t here = check_current(s);
        CHECK_EQ(stats_of(s).entries, here);
        play(s, (uint32_t)chance(150), (struct played){ .len_max = 1 + chance(600) });
        uint32_t before = check_current(s);
        CHECK_EQ(stats_of(s).entries, before);
        rv_store_close(s, LONG);
        s = open_store(opts); /* closed: nothing of it is lost */
        CHECK_EQ(check_current(s), before);
        found += before;
        rv_store_close(s, LONG);
    }
    CHECK_GT(found, rounds(300) * 5);
    return 0;
}

TEST(what_was_stored_is_found_after_a_restart_and_nothing_else)
{
    RUN(restarts, .workers = 1);
}

static int roomy(void *arg)
{
    struct rv_store_opts opts = { .path = store_path(), .bytes = 16 * MIB };
    (void)arg;
    for (uint32_t i = 0; i < 10; i++) {
        struct rv_store *s = open_store(opts);
        CHECK_EQ(check_current(s), count_current());
        play(s, 300, (struct played){ .len_max = 3000 });
        CHECK_EQ(check_current(s), count_current());
        CHECK_EQ(stats_of(s).entries, count_current());
        CHECK_EQ(stats_of(s).evictions, 0);
        rv_store_close(s, LONG);
    }
    return 0;
}

TEST(where_there_is_room_everything_is_kept)
{
    RUN(roomy, .workers = 1);
}

/* ---- the end of the process at any moment ---------------------------------------------------- */

/* The process ends between two calls: the file as it is then, taken while the store is open. */
static int ends_between(void *arg)
{
    struct rv_store_opts opts = SMALL;
    uint32_t found = 0;
    (void)arg;
    for (uint32_t i = 0; i < rounds(400); i++) {
        struct rv_store *s = open_store(opts);
        play(s, (uint32_t)chance(40), (struct played){ 0 });
        uint32_t here = check_current(s);
        struct image im = take_image(opts.path);
        rv_store_close(s, LONG);
        put_image(opts.path, &im);
        free(im.bytes);
        s = open_store(opts);
        CHECK_EQ(stats_of(s).torn, 0);
        CHECK_EQ(check_current(s), here); /* all of it */
        found += here;
        im = take_image(opts.path); /* and it ends again, before anything was done */
        rv_store_close(s, LONG);
        put_image(opts.path, &im);
        free(im.bytes);
    }
    CHECK_GT(found, rounds(400));
    return 0;
}

TEST(the_end_of_the_process_between_two_calls_loses_nothing)
{
    RUN(ends_between, .workers = 1);
}

/* What the killed process had begun and what it had ended, in memory that both share. */
struct journal {
    RV_ATOMIC(uint32_t) begun, ended; /* events */
    uint32_t most;                    /* where it waits for its end, if that has not come yet */
    struct {
        uint32_t key, put;
    } events[HISTORY_MAX / 16];
};

static int until_killed(void *arg)
{
    struct journal *j = arg;
    struct rv_store_opts opts = { .path = store_path(), .bytes = MIB, .segment_bytes = 65536 };
    struct rv_store *s = open_store(opts);
    while (rv_load_relaxed(&j->begun) < j->most) {
        uint32_t event = rv_load_relaxed(&j->begun) + 1, k = (uint32_t)chance(KEYS);
        bool put = chance(4) != 0;
        j->events[event].key = k;
        j->events[event].put = put;
        rv_store_release(&j->begun, event); /* pairs with the acquire in note_journal() */
        if (put)
            CHECK_EQ(put_event(s, k, event, VALUE_HEAD + chance(4000)), 0);
        else
            remove_key(s, k);
        rv_store_release(&j->ended, event); /* the same */
    }
    while (pause() < 0)
        ;
    return 0;
}

static void note_journal(const struct journal *j, uint32_t upto)
{
    while (history.last < upto) {
        uint32_t next = history.last + 1;
        note(j->events[next].key, j->events[next].put);
    }
}

static int after_kill(void *arg)
{
    struct journal *j = arg;
    struct rv_store_opts opts = { .path = store_path(), .bytes = MIB, .segment_bytes = 65536 };
    struct rv_store *s = open_store(opts);
    uint32_t begun = rv_load_acquire(&j->begun), ended = rv_load_acquire(&j->ended);
    CHECK_LE(begun - ended, 1);
    uint32_t open_key = begun > ended ? j->events[begun].key : KEYS;
    note_journal(j, ended);
    for (uint32_t k = 0; k < KEYS; k++) {
        uint64_t event = get_event(s, k);
        CHECK(event == 0 || event == history.current[k] || (k == open_key && event == begun));
    }
    CHECK_GT(stats_of(s).entries, KEYS / 3);
    /* What was under way is settled, for the next of them. */
    if (begun > ended) {
        note_journal(j, begun);
        remove_key(s, open_key);
        note(open_key, false);
        j->events[history.last].key = open_key;
        j->events[history.last].put = 0;
    }
    rv_store_release(&j->begun, history.last);
    rv_store_release(&j->ended, history.last);
    rv_store_close(s, LONG);
    return 0;
}

static void run_and_kill(struct journal *j, uint32_t events)
{
    int status = 0;
    uint32_t kill_at = rv_load_acquire(&j->ended) + events;
    j->most = kill_at + 1000;
    CHECK_LT(j->most, HISTORY_MAX / 16);
    fflush(NULL);
    pid_t child = fork();
    CHECK_GE(child, 0);
    if (child == 0)
        _exit(reeve_run(until_killed, j, .workers = 1) == 0 ? 0 : 1);
    while (rv_load_acquire(&j->ended) < kill_at) {
        CHECK_EQ(waitpid(child, &status, WNOHANG), 0); /* it did not end by itself */
        nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
    }
    kill(child, SIGKILL);
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFSIGNALED(status));
}

/* History and journal of all children are this process's; so the check is made here, by a runtime
 * of its own each time. */
TEST(a_killed_process_loses_only_what_it_was_doing)
{
    uring_or_skip();
    struct journal *j =
        mmap(NULL, sizeof *j, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(j != MAP_FAILED);
    store_path();
    for (uint32_t i = 0; i < rounds(32); i++) {
        chance_state = 1000 + i;
        run_and_kill(j, 200 + (uint32_t)chance(600));
        CHECK_EQ(reeve_run(after_kill, j, .workers = 1), 0);
    }
}

/* ---- one place that is damaged --------------------------------------------------------------- */

/* A file with evictions, replaced values, removals, a clear; as it is after a crash, and closed. */
static void make_eventful(struct rv_store_opts opts, struct image *ret_open,
                          struct image *ret_closed)
{
    struct rv_store *s = open_store(opts);
    play(s, 100, (struct played){ .len_max = 60 });
    note(KEYS, false);
    CHECK_EQ(rv_store_clear(s), 0);
    while (stats_of(s).evictions == 0 || stats_of(s).entries < 20)
        play(s, 10, (struct played){ .len_max = 60, .no_clears = true });
    *ret_open = take_image(opts.path);
    rv_store_close(s, LONG);
    *ret_closed = take_image(opts.path);
}

static struct image eventful(struct rv_store_opts opts)
{
    struct image open_one, closed_one;
    make_eventful(opts, &open_one, &closed_one);
    free(open_one.bytes);
    return closed_one;
}

static uint32_t count_found(struct rv_store_opts opts, const struct image *im)
{
    put_image(opts.path, im);
    struct rv_store *s = open_store(opts);
    uint32_t found = check_current(s);
    rv_store_close(s, LONG);
    return found;
}

/* Changes byte i; what is found afterwards is less by one record at most. */
static uint32_t flip_one(struct rv_store_opts opts, struct image *im, size_t i, uint32_t whole)
{
    unsigned char was = im->bytes[i];
    im->bytes[i] ^= chance(2) ? 0xff : (unsigned char)(1 << chance(8));
    put_image(opts.path, im);
    im->bytes[i] = was;
    struct rv_store *s = open_store(opts);
    uint32_t found = check_current(s);
    struct rv_store_stats st = stats_of(s);
    CHECK_GE(found + 1, whole);
    CHECK_EQ(st.discards, 0);
    if (found < whole)
        CHECK_EQ(st.torn, 1);
    rv_store_close(s, LONG);
    return whole - found;
}

static int flips(void *arg)
{
    struct rv_store_opts opts = IN_MEMORY;
    struct image im[2];
    uint32_t lost = 0, step = rounds(100) < 100 ? 100 / rounds(100) : 1;
    (void)arg;
    make_eventful(opts, &im[0], &im[1]);
    uint32_t whole = count_found(opts, &im[0]);
    CHECK_GE(whole, 20);
    CHECK_EQ(count_found(opts, &im[1]), whole);
    for (size_t i = chance(step); i < im[0].len; i += step)
        if (i >= PAGE || i % 2048 < sizeof(struct rv_store_head)) /* the rest is never looked at */
            lost += flip_one(opts, &im[chance(2)], i, whole);
    CHECK_GT(lost, 100 / step); /* it does hit records */
    free(im[0].bytes);
    free(im[1].bytes);
    return 0;
}

TEST(a_changed_byte_anywhere_costs_one_record_at_most)
{
    RUN(flips, .workers = 1);
}

/* A few slots, or a part of a record, never reached the disk; all that came after did. */
static int holes(void *arg)
{
    struct rv_store_opts opts = IN_MEMORY;
    uint32_t found = 0, images = 1 + rounds(7);
    (void)arg;
    for (uint32_t i = 0; i < images; i++) {
        struct image im[2];
        make_eventful(opts, &im[0], &im[1]);
        struct image bad = { im[0].len, malloc(im[0].len) };
        CHECK(bad.bytes);
        for (size_t at = 0; at < bad.len; at += 64) {
            memcpy(bad.bytes, im[0].bytes, bad.len);
            memset(bad.bytes + at, 0, 64);
            put_image(opts.path, &bad);
            struct rv_store *s = open_store(opts);
            found += check_current(s);
            rv_store_close(s, LONG);
        }
        free(bad.bytes);
        free(im[0].bytes);
        free(im[1].bytes);
    }
    CHECK_GT(found, images * 320 * 10);
    return 0;
}

TEST(a_removal_that_reached_the_disk_holds_though_something_before_it_did_not)
{
    RUN(holes, .workers = 1);
}

/* ---- the length ------------------------------------------------------------------------------ */

static int lengths(void *arg)
{
    struct rv_store_opts opts = IN_MEMORY;
    struct image im = eventful(opts), part = im;
    uint32_t whole = count_found(opts, &im);
    (void)arg;
    CHECK_GT(whole, 0);
    for (size_t len = 0; len < im.len; len += 1 + chance(rounds(16) < 16 ? 60 : 8)) {
        part.len = len;
        put_image(opts.path, &part);
        struct rv_store *s = open_store(opts);
        CHECK_EQ(check_current(s), 0);
        CHECK_EQ(stats_of(s).discards, len > 0);
        CHECK_EQ(put_event(s, 1, history.current[1], 100), 0);
        rv_store_close(s, LONG);
        CHECK_EQ(size_of(opts.path), (off_t)im.len);
    }
    part = im;
    part.bytes = realloc(im.bytes, im.len + 100);
    part.len += 100;
    put_image(opts.path, &part); /* and one that is longer */
    struct rv_store *s = open_store(opts);
    CHECK_EQ(check_current(s), 0);
    CHECK_EQ(stats_of(s).discards, 1);
    rv_store_close(s, LONG);
    free(part.bytes);
    return 0;
}

TEST(a_file_of_another_length_begins_anew)
{
    RUN(lengths, .workers = 1);
}

/* ---- much that is damaged -------------------------------------------------------------------- */

static void damage(struct image *im)
{
    for (uint64_t n = 1 + chance(6); n > 0; n--) {
        size_t at = chance(im->len), len = 1 + chance(chance(2) ? 40 : 5000);
        uint64_t how = chance(3);
        if (len > im->len - at)
            len = im->len - at;
        size_t from = chance(im->len - len + 1);
        for (size_t i = 0; i < len && how < 2; i++)
            im->bytes[at + i] = how == 0 ? 0 : (unsigned char)chance(256);
        if (how == 2) /* bytes of another place */
            memmove(im->bytes + at, im->bytes + from, len);
    }
}

static int damaged(void *arg)
{
    struct rv_store_opts opts = IN_MEMORY;
    uint32_t found = 0;
    (void)arg;
    for (uint32_t round = 0; round < 4; round++) {
        struct image im = eventful(opts), bad = im;
        bad.bytes = malloc(im.len);
        CHECK(bad.bytes);
        for (uint32_t i = 0; i < rounds(800); i++) {
            memcpy(bad.bytes, im.bytes, im.len);
            damage(&bad);
            put_image(opts.path, &bad);
            struct rv_store *s = open_store(opts);
            found += check_current(s);
            rv_store_close(s, LONG);
        }
        free(bad.bytes);
        free(im.bytes);
    }
    CHECK_GT(found, rounds(800));
    return 0;
}

TEST(no_damage_to_a_closed_file_ever_shows_a_value_that_does_not_count)
{
    RUN(damaged, .workers = 1);
}

/* ---- writes that never reached the disk ------------------------------------------------------ */

enum { MOMENTS = 12 };

/* The file as it was at many moments, by which time it was opened and closed and crashed. */
static void live_through(struct rv_store_opts opts, struct image moments[MOMENTS])
{
    struct rv_store *s = open_store(opts);
    for (int i = 0; i < MOMENTS; i++) {
        play(s, 1 + (uint32_t)chance(60), (struct played){ .len_max = 1 + chance(300) });
        moments[i] = take_image(opts.path);
        if (chance(4) != 0)
            continue;
        rv_store_close(s, LONG);
        if (chance(2))
            put_image(opts.path, &moments[i]); /* it was not closed after all */
        s = open_store(opts);
    }
    rv_store_close(s, LONG);
}

/* Each block as it was at some moment, mostly a late one. */
static void mix(struct image *out, const struct image moments[MOMENTS])
{
    size_t block = chance(2) ? 4096 : 512;
    uint64_t late = MOMENTS - 1 - chance(3), spread = 1 + chance(4), often = 2 + chance(10);
    for (size_t at = 0; at < out->len; at += block) {
        uint64_t i = chance(often) == 0 ? late - chance(spread) : late;
        memcpy(out->bytes + at, moments[i].bytes + at, block);
    }
}

static int mixed(void *arg)
{
    struct rv_store_opts opts = IN_MEMORY;
    uint64_t found = 0;
    (void)arg;
    for (uint32_t round = 0; round < 4 * rounds(16); round++) {
        struct image moments[MOMENTS];
        live_through(opts, moments);
        struct image out = { moments[0].len, malloc(moments[0].len) };
        CHECK(out.bytes);
        for (uint32_t i = 0; i < 60; i++) {
            mix(&out, moments);
            put_image(opts.path, &out);
            struct rv_store *s = open_store(opts);
            found += check_one_moment(s) > 0;
            rv_store_close(s, LONG);
            s = open_store(opts); /* and what was decided then holds */
            check_one_moment(s);
            rv_store_close(s, LONG);
        }
        for (int i = 0; i < MOMENTS; i++)
            free(moments[i].bytes);
        free(out.bytes);
        CHECK_EQ(truncate(opts.path, 0), 0);
    }
    CHECK_GT(found, 60 * rounds(16));
    return 0;
}

TEST(after_lost_writes_all_that_is_found_counted_at_one_moment)
{
    RUN(mixed, .workers = 1);
}

/* What is found now is what counts from now on. */
static void settle(struct rv_store *s)
{
    for (uint32_t k = 0; k < KEYS; k++) {
        uint64_t event = get_event(s, k);
        if (event == history.current[k])
            continue;
        if (history.current[k])
            end_current(k, history.last);
        history.current[k] = (uint32_t)event;
        history.ended[event] = 0;
    }
}

/* As if the process ended here. */
static struct rv_store *crash(struct rv_store *s, struct rv_store_opts opts)
{
    struct image im = take_image(opts.path);
    rv_store_close(s, LONG);
    put_image(opts.path, &im);
    free(im.bytes);
    return open_store(opts);
}

/* A life loses some of its writes, and the next goes on in what is left of the file, with records
 * of the same sizes at perhaps the same places. */
static int undone(void *arg)
{
    struct rv_store_opts opts = IN_MEMORY;
    uint32_t found = 0;
    (void)arg;
    for (uint32_t round = 0; round < rounds(400); round++) {
        struct played how = { .alike = round % 2, .no_clears = round % 4 < 2 };
        struct image moments[2];
        struct rv_store *s = open_store(opts);
        check_current(s);
        play(s, (uint32_t)chance(30), how);
        moments[0] = take_image(opts.path);
        play(s, 1 + (uint32_t)chance(60), how);
        moments[1] = take_image(opts.path);
        rv_store_close(s, LONG);
        for (size_t at = 0; at < moments[0].len; at += 512)
            if (chance(3) == 0)
                memcpy(moments[0].bytes + at, moments[1].bytes + at, 512);
        put_image(opts.path, &moments[0]);
        s = open_store(opts);
        check_one_moment(s);
        settle(s);
        play(s, (uint32_t)chance(20), how);
        uint32_t here = check_current(s);
        s = crash(s, opts);
        CHECK_EQ(check_current(s), here);
        found += here;
        rv_store_close(s, LONG);
        free(moments[0].bytes);
        free(moments[1].bytes);
    }
    CHECK_GT(found, rounds(400));
    return 0;
}

TEST(nothing_of_a_life_that_was_undone_comes_back)
{
    RUN(undone, .workers = 1);
}

/* ---- foreign files --------------------------------------------------------------------------- */

static void check_foreign(struct rv_store_opts opts, bool foreign)
{
    struct rv_store *s = open_store(opts);
    CHECK_EQ(check_current(s) == 0, foreign);
    CHECK_EQ(stats_of(s).discards, foreign);
    rv_store_close(s, LONG);
}

static int foreign(void *arg)
{
    struct rv_store_opts opts = SMALL, other = opts;
    struct image im = eventful(opts);
    (void)arg;
    other.tag = 1;
    check_foreign(other, true);
    check_foreign(opts, true); /* it was overwritten */
    put_image(opts.path, &im);
    check_foreign(opts, false);
    other = opts;
    other.bytes *= 2; /* the ring is another one */
    check_foreign(other, true);
    put_image(opts.path, &im);
    other = opts;
    other.segment_bytes = 8192;
    check_foreign(other, true);
    for (uint32_t i = 0; i < 2; i++) { /* noise; text */
        for (size_t b = 0; b < im.len; b++)
            im.bytes[b] = i ? "All work and no play. "[b % 22] : (unsigned char)chance(256);
        put_image(opts.path, &im);
        check_foreign(opts, true);
    }
    free(im.bytes);
    return 0;
}

TEST(a_foreign_file_begins_anew)
{
    RUN(foreign, .workers = 1);
}

/* A head of another version or byte order, with a check that is right. */
static int other_heads(void *arg)
{
    struct rv_store_opts opts = SMALL;
    struct image im = eventful(opts);
    (void)arg;
    for (uint32_t i = 0; i < 3; i++) {
        struct rv_store_head h;
        memcpy(&h, im.bytes, sizeof h);
        h.version += i == 0;
        h.order = i == 1 ? 0x04030201 : h.order;
        h.magic += i == 2;
        unsigned char *rest = (unsigned char *)&h + sizeof h.check;
        uint64_t begun = UINT64_C(0x31334c2d65766572); /* what a head's sum begins with */
        h.check = rv_store_sum(begun, rest, sizeof h - sizeof h.check);
        struct image other = { im.len, malloc(im.len) };
        memcpy(other.bytes, im.bytes, im.len);
        memcpy(other.bytes, &h, sizeof h);
        memcpy(other.bytes + 2048, &h, sizeof h);
        put_image(opts.path, &other);
        check_foreign(opts, true);
        free(other.bytes);
        put_image(opts.path, &im); /* the same, with nothing changed */
        check_foreign(opts, false);
    }
    free(im.bytes);
    return 0;
}

TEST(another_version_or_byte_order_is_foreign)
{
    RUN(other_heads, .workers = 1);
}
