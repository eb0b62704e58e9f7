/* SPDX-License-Identifier: MIT */
/*
 * cache_store_play.h -- what the tests of the store share: keys, values that say which put they are
 * of, and a history of all that was done, against which what is found is held.
 *
 *     played = play(s, 100);                   // puts, removes, clears at random
 *     check_current(s);                        // finds nothing but the last of each key
 */
#ifndef TESTS_RUNTIME_CACHE_STORE_PLAY_H
#define TESTS_RUNTIME_CACHE_STORE_PLAY_H

#include <reeve/reeve.h>
#include <sys/mman.h>

#include "mem/alloc.h"
#include "runtime/cache_store_log.h"
#include "tests/io/scratch.h"
#include "tests/io/uring.h"


/* Runs fn as the root task; it must return 0. */
#define RUN(fn, ...)                                                                               \
    do {                                                                                           \
        uring_or_skip();                                                                           \
        CHECK_EQ(reeve_run(fn, NULL, __VA_ARGS__), 0);                                             \
    } while (0)

enum { PAGE = 4096, MIB = 1 << 20 };

enum { KEYS = 48, HISTORY_MAX = 1 << 20, VALUE_HEAD = 12 };

/* ---- chance ---- */

static uint64_t chance_state = 1;

static inline uint64_t chance(uint64_t below)
{
    chance_state ^= chance_state << 13;
    chance_state ^= chance_state >> 7;
    chance_state ^= chance_state << 17;
    return (chance_state * UINT64_C(0x2545f4914f6cdd1d) >> 11) % below;
}

/* As many as a sanitizer leaves time for. */
static inline uint32_t rounds(uint32_t n)
{
#if defined(RV_TSAN)
    return (n + 15) / 16;
#elif defined(__SANITIZE_ADDRESS__)
    return (n + 3) / 4;
#else
    return n;
#endif
}

/* ---- keys and values ---- */

/* Key 0 has no bytes; the others are full of NULs, some differ from others in nothing else. */
static unsigned char key_bytes[KEYS][32];

__attribute__((constructor)) static void make_keys(void)
{
    for (uint32_t k = 0; k < KEYS; k++)
        key_bytes[k][0] = (unsigned char)(k / 3);
}

static inline struct rv_key key_of(uint32_t k)
{
    return (struct rv_key){ .data = key_bytes[k], .len = k == 0 ? 0 : 1 + k / 3 % 20 + k % 3 };
}

static inline unsigned char value_byte(uint64_t event, size_t i)
{
    uint64_t x = (event + 1) * UINT64_C(0x9e3779b97f4a7c15) + i * UINT64_C(0xc2b2ae3d27d4eb4f);
    return (unsigned char)(x >> 56);
}

static inline void make_value(unsigned char *value, size_t len, uint32_t k, uint64_t event)
{
    memcpy(value, &k, 4);
    memcpy(value + 4, &event, 8);
    for (size_t i = VALUE_HEAD; i < len; i++)
        value[i] = value_byte(event, i);
}

/* Which put it is of; it is all of that one's value, and of nothing else. */
static inline uint64_t event_of(const unsigned char *value, size_t len, uint32_t k)
{
    uint32_t key;
    uint64_t event;
    CHECK_GE(len, VALUE_HEAD);
    memcpy(&key, value, 4);
    memcpy(&event, value + 4, 8);
    CHECK_EQ(key, k);
    for (size_t i = VALUE_HEAD; i < len; i++)
        CHECK_EQ(value[i], value_byte(event, i));
    return event;
}

static inline int put_event(struct rv_store *s, uint32_t k, uint64_t event, size_t len)
{
    struct rv_key key = key_of(k);
    unsigned char *value = malloc(len);
    CHECK(value && len >= VALUE_HEAD);
    make_value(value, len, k, event);
    int r = rv_store_put(s, &key, value, len, 0, LONG);
    free(value);
    return r;
}

/* 0: nothing is found. */
static inline uint64_t get_event(struct rv_store *s, uint32_t k)
{
    struct rv_key key = key_of(k);
    void *data = NULL;
    size_t len = 0;
    int64_t expires = 1;
    int r = rv_store_get(s, &key, &data, &len, &expires, LONG);
    if (r == -ENOENT)
        return 0;
    CHECK_EQ(r, 0);
    CHECK_EQ(expires, 0);
    uint64_t event = event_of(data, len, k);
    CHECK_NE(event, 0);
    reeve_free(data);
    return event;
}

static inline int remove_key(struct rv_store *s, uint32_t k)
{
    struct rv_key key = key_of(k);
    return rv_store_remove(s, &key);
}

static inline struct rv_store_stats stats_of(struct rv_store *s)
{
    struct rv_store_stats st;
    rv_store_stats(s, &st);
    return st;
}

/* ---- history ---- */

/* Event e: what happened to the key; events begin at 1. The key KEYS stands for all. */
static struct {
    uint32_t last;
    uint32_t current[KEYS]; /* the put that counts; 0: none */
    uint32_t since[KEYS];   /* the last event, a removal too */
    uint8_t key[HISTORY_MAX];
    uint32_t ended[HISTORY_MAX]; /* of a put: the event that ended it; 0: none has */
} history;

static inline void end_current(uint32_t k, uint32_t event)
{
    if (history.current[k])
        history.ended[history.current[k]] = event;
    history.current[k] = 0;
    history.since[k] = event;
}

static inline uint32_t note(uint32_t k, bool put)
{
    uint32_t event = ++history.last;
    CHECK_LT(event, HISTORY_MAX);
    history.key[event] = (uint8_t)k;
    for (uint32_t i = 0; i < KEYS; i++)
        if (k == KEYS || i == k)
            end_current(i, event);
    if (put)
        history.current[k] = event;
    return event;
}

struct played {
    size_t len_max; /* of values; 0: 200 */
    bool no_clears;
    bool alike; /* all records of values have the same size */
};

static inline void play_one(struct rv_store *s, struct played how)
{
    uint32_t k = (uint32_t)chance(KEYS), what = (uint32_t)chance(100);
    size_t most = how.len_max ? how.len_max : 200;
    if (what < 70) {
        uint32_t event = note(k, true);
        size_t len = how.alike ? 64 - key_of(k).len : VALUE_HEAD + chance(most);
        CHECK_EQ(put_event(s, k, event, len), 0);
    } else if (what < 99 || how.no_clears) {
        note(k, false);
        int r = remove_key(s, k);
        CHECK(r == 0 || r == -ENOENT);
    } else {
        note(KEYS, false);
        CHECK_EQ(rv_store_clear(s), 0);
    }
}

static inline void play(struct rv_store *s, uint32_t n, struct played how)
{
    for (uint32_t i = 0; i < n; i++)
        play_one(s, how);
}

/* Nothing is found but what counts; how much of that is. */
static inline uint32_t check_current(struct rv_store *s)
{
    uint32_t found = 0;
    for (uint32_t k = 0; k < KEYS; k++) {
        uint64_t event = get_event(s, k);
        if (event == 0)
            continue;
        CHECK_EQ(event, history.current[k]);
        found++;
    }
    return found;
}

static inline uint32_t count_current(void)
{
    uint32_t n = 0;
    for (uint32_t k = 0; k < KEYS; k++)
        n += history.current[k] != 0;
    return n;
}

/* All that is found counted at one moment: at that of the last put that is found. Returns it. */
static inline uint64_t check_one_moment(struct rv_store *s)
{
    uint64_t found[KEYS], moment = 0;
    for (uint32_t k = 0; k < KEYS; k++) {
        found[k] = get_event(s, k);
        if (found[k] > moment)
            moment = found[k];
    }
    for (uint32_t k = 0; k < KEYS; k++) {
        if (found[k] == 0)
            continue;
        CHECK_EQ(history.key[found[k]], k);
        uint32_t ended = history.ended[found[k]];
        CHECK(ended == 0 || ended > moment);
    }
    return moment;
}

/* ---- stores and files ---- */

#define SMALL                                                                                      \
    ((struct rv_store_opts){ .bytes = 16384, .segment_bytes = PAGE, .path = store_path() })
#define IN_MEMORY                                                                                  \
    ((struct rv_store_opts){ .bytes = 16384, .segment_bytes = PAGE, .path = memory_path() })

static inline const char *store_path(void)
{
    static char path[512];
    if (path[0] == '\0')
        snprintf(path, sizeof path, "%.500s", scratch("store"));
    return path;
}

/* A file in memory: for tests that open it ten thousand times, and would wait for a disk. */
static inline const char *memory_path(void)
{
    static char path[64];
    if (path[0] == '\0') {
        int fd = memfd_create("reeve-test", MFD_CLOEXEC);
        CHECK_GE(fd, 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    return path;
}

static inline off_t size_of(const char *path)
{
    struct stat st;
    CHECK_EQ(stat(path, &st), 0);
    return st.st_size;
}

static inline struct rv_store *open_store(struct rv_store_opts opts)
{
    struct rv_store *s = NULL;
    CHECK_EQ(rv_store_open(&s, &opts, LONG), 0);
    return s;
}

struct image {
    size_t len;
    unsigned char *bytes;
};

static inline struct image take_image(const char *path)
{
    struct image im = { .len = (size_t)size_of(path) };
    im.bytes = malloc(im.len + 1);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0 && im.bytes);
    CHECK_EQ(pread(fd, im.bytes, im.len, 0), (ssize_t)im.len);
    close(fd);
    return im;
}

/* The file is that, and as long. */
static inline void put_image(const char *path, const struct image *im)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK_GE(fd, 0);
    CHECK_EQ(pwrite(fd, im->bytes, im->len, 0), (ssize_t)im->len);
    CHECK_EQ(ftruncate(fd, (off_t)im->len), 0);
    close(fd);
}

#endif
