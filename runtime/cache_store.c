/* SPDX-License-Identifier: MIT */
/*
 * cache_store.c -- a store: opening and closing it, and the calls on it.
 *
 * (1) A get looks its key up in the index, copies what is there out of the file without a lock, and
 *     then believes it or not: its check holds its position and its key, so what was overwritten or
 *     is being overwritten is seen to be something else. If it is, the index is asked again: still
 *     the same entry, then the file is damaged; another, then that one is read.
 * (2) What a put says may not outlive what it replaces: a put that fails removes.
 * (3) The file is locked by flock(2) on a description that the map shares; it is unlocked before
 *     that is gone, since the map may live a moment longer.
 *
 * Locks: that of the log for a record's copying; those of the index for a few entries. Nothing is
 * held across a suspension.
 * Threads: open, close - tasks; the rest - any.
 */
#include "runtime/cache_store.h"

#include <errno.h>
#include <fcntl.h>
#include <reeve/mem.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "mem/alloc.h"
#include "mem/die.h"
#include "mem/fault.h"
#include "runtime/cache_store_log.h"
#include "runtime/cache_store_scan.h"
#include "sched/scope.h"

#define SEGMENT_LOW ((size_t)64 << 10)
#define SEGMENT_HIGH ((size_t)1 << 20)
#define GETS_MAX 8 /* entries that a get follows, each replaced while it was read */

/* ---- opening --------------------------------------------------------------------------------- */

struct opening {
    struct rv_store *s;
    const struct rv_store_opts *opts;
    bool had_bytes; /* that are worth nothing: they are not of this size */
};

static int64_t wall_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * REEVE_SEC + now.tv_nsec;
}

static size_t segment_for(size_t bytes)
{
    size_t segment = SEGMENT_HIGH;
    while (segment > SEGMENT_LOW && segment > bytes / 32)
        segment /= 2;
    while (segment > RV_STORE_SEGMENT_MIN && segment > bytes / RV_STORE_SEGMENTS_MIN)
        segment /= 2;
    return segment;
}

static int set_geometry(struct rv_store_file *f, const struct rv_store_opts *opts)
{
    size_t segment = opts->segment_bytes ? opts->segment_bytes : segment_for(opts->bytes);
    if (opts->path == NULL || opts->bytes == 0 || segment < RV_STORE_SEGMENT_MIN ||
        segment > RV_STORE_SEGMENT_MAX || (segment & (segment - 1)) != 0)
        return -EINVAL;
    size_t segments = opts->bytes / segment + (opts->bytes % segment != 0);
    if (segments < RV_STORE_SEGMENTS_MIN)
        segments = RV_STORE_SEGMENTS_MIN;
    if (segments > RV_STORE_SEGMENTS_MAX)
        return -EINVAL;
    f->segments = (uint32_t)segments;
    f->shift = (unsigned)__builtin_ctzll(segment);
    return 0;
}

/* All of it has blocks, so that no write ever finds the disk full, unless this file system cannot.
 * What is not of the right size is emptied first. */
static int fit_file(struct opening *o, int fd)
{
    struct stat st;
    off_t bytes = (off_t)rv_store_bytes(&o->s->file);
    int r;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -ENODEV;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK ? -EBUSY : -errno;
    o->had_bytes = st.st_size > 0 && st.st_size != bytes;
    if (o->had_bytes && ftruncate(fd, 0) < 0)
        return -errno;
    do
        r = RV_FAULT("store.grow") ? (errno = ENOSPC, -1) : fallocate(fd, 0, 0, bytes);
    while (r < 0 && errno == EINTR);
    if (r < 0 && errno == EOPNOTSUPP)
        r = ftruncate(fd, bytes);
    return r < 0 ? -errno : 0;
}

static int open_file(void *arg)
{
    struct opening *o = arg;
    int saved = errno;
    int fd = open(o->opts->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600);
    int r = fd < 0 ? -errno : fit_file(o, fd);
    if (r == 0)
        o->s->file.fd = fd;
    else if (fd >= 0)
        close(fd);
    errno = saved;
    return r;
}

static void let_go(struct rv_store *s)
{
    int saved = errno;
    if (s->file.fd >= 0) {
        (void)flock(s->file.fd, LOCK_UN); /* see (3) */
        close(s->file.fd);
    }
    s->file.fd = -1;
    errno = saved;
}

/* An empty store under a new head: whatever is in the file is of another seed. */
static int begin_anew(struct opening *o)
{
    struct rv_store *s = o->s;
    rv_store_index_finish(&s->index);
    int r = rv_store_index_init(&s->index, &s->file);
    if (r < 0)
        return r;
    memset(s->places, 0, s->file.segments * sizeof *s->places);
    rv_store_relaxed(&s->entries, (uint64_t)0);
    rv_store_relaxed(&s->bytes, (uint64_t)0);
    s->end = (struct rv_store_end){ 0 };
    s->next = 1;
    rv_store_head_new(&s->file, o->opts->tag);
    return 0;
}

/* Whether the file was ever used: by a store, or by something else of the same size. */
static bool is_blank(struct rv_store *s)
{
    static const char zeroes[RV_STORE_HEAD_BYTES];
    char head[RV_STORE_HEAD_BYTES];
    struct iovec to = { head, sizeof head };
    return rv_store_read(&s->file, &to, 1, 0) == 0 && memcmp(head, zeroes, sizeof head) == 0;
}

/* 1: there is a log to be read; 0: there is none. */
static int read_head(void *arg)
{
    struct opening *o = arg;
    struct rv_store *s = o->s;
    if (rv_store_head_read(&s->file, o->opts->tag) && s->file.head.floor != UINT64_MAX)
        return 1;
    if (o->had_bytes || !is_blank(s))
        rv_store_relaxed(&s->discards, (uint64_t)1);
    return begin_anew(o);
}

static int finish_open(void *arg)
{
    struct rv_store *s = arg;
    s->file.head.end = 0;
    s->file.head.next = s->next;
    s->file.head.floor = rv_load_relaxed(&s->index.floor);
    int r = rv_store_head_write(&s->file);
    if (r == 0)
        rv_store_prepare(s);
    return r;
}

static int scan_all(struct opening *o, reeve_time until)
{
    struct rv_store_scan scan = { .store = o->s };
    int r;
    do
        r = reeve_offload(rv_store_scan_step, &scan, until);
    while (r > 0);
    rv_store_scan_finish(&scan);
    if (r != -EBADMSG)
        return r;
    rv_store_relaxed(&o->s->discards, (uint64_t)1);
    return begin_anew(o);
}

static int open_it(struct opening *o, reeve_time until)
{
    struct rv_store *s = o->s;
    int r = reeve_offload(open_file, o, until);
    if (r < 0)
        return r;
    r = reeve_map_open_fd(&s->file.map, s->file.fd, REEVE_MAP_WRITE, rv_store_bytes(&s->file),
                          until);
    if (r == 0)
        r = rv_store_index_init(&s->index, &s->file);
    s->places = rv_alloc_zero(s->file.segments * sizeof *s->places);
    if (r == 0 && s->places == NULL)
        r = -ENOMEM;
    if (r == 0)
        r = reeve_offload(read_head, o, until);
    if (r > 0)
        r = scan_all(o, until);
    return r < 0 ? r : reeve_offload(finish_open, s, until);
}

int rv_store_open(struct rv_store **ret_store, const struct rv_store_opts *opts, reeve_time until)
{
    struct rv_worker *w = rv_in_task("rv_store_open");
    struct rv_store_file file = { .fd = -1 };
    int r = set_geometry(&file, opts);
    if (r < 0)
        return r;
    struct rv_store *s = rv_alloc_aligned(sizeof *s, _Alignof(struct rv_store));
    if (s == NULL)
        return -ENOMEM;
    memset((void *)s, 0, sizeof *s);
    s->file = file;
    s->now = opts->now ? opts->now : wall_now;
    s->offload = w->sched->offload;
    rv_store_relaxed(&s->refs, 1u);
    struct opening o = { .s = s, .opts = opts };
    r = open_it(&o, until);
    if (r < 0) {
        let_go(s);
        rv_store_unref(s);
        return r;
    }
    *ret_store = s;
    return 0;
}

/* ---- closing --------------------------------------------------------------------------------- */

static int write_end(void *arg)
{
    struct rv_store *s = arg;
    rv_lock_acquire(&s->lock);
    if (!s->closed && !rv_load_relaxed(&s->broken)) {
        s->file.head.end = rv_store_end_at(s);
        s->file.head.next = s->next;
        (void)rv_store_head_write(&s->file); /* if it fails: it was not closed */
    }
    s->closed = true;
    rv_lock_release(&s->lock);
    return 0;
}

void rv_store_close(struct rv_store *s, reeve_time until)
{
    if (s == NULL)
        return;
    if (reeve_offload(write_end, s, until) < 0)
        (void)write_end(s); /* nobody wants to wait, and there is not much to wait for */
    (void)reeve_map_flush_start(&s->file.map, 0, s->file.map.len, until);
    let_go(s);
    rv_store_unref(s);
}

int rv_store_flush(struct rv_store *s, reeve_time until)
{
    if (rv_load_relaxed(&s->broken))
        return -EIO;
    return reeve_map_flush(&s->file.map, 0, s->file.map.len, until);
}

/* ---- get ------------------------------------------------------------------------------------- */

static bool in_task(void)
{
    struct rv_worker *w = rv_worker_self();
    return w && w->cur;
}

static uint64_t hash_of(const struct rv_store *s, const struct rv_key *key)
{
    return rv_hash(s->file.head.seed, key->data, key->len);
}

static void add_one(RV_ATOMIC(uint64_t) *count)
{
    (void)rv_add_relaxed(count, (uint64_t)1);
}

/* What was read of a record. */
struct reading {
    struct rv_store_entry entry;
    struct rv_store_record record;
    char *block; /* the value, then the key */
    size_t len;  /* of the value */
};

static int read_record(struct rv_store *s, struct reading *rd, size_t key_len, reeve_time until)
{
    struct iovec to[] = { { &rd->record, sizeof rd->record },
                          { rd->block + rd->len, key_len },
                          { rd->block, rd->len } };
    size_t offset = rv_store_offset(&s->file, rd->entry.at);
    if (rv_store_read_now(&s->file, to, 3, offset) == 0)
        return 0;
    int r = in_task() ? reeve_map_fetch(&s->file.map, offset, rd->entry.size, until) : 0;
    return r < 0 ? r : rv_store_read(&s->file, to, 3, offset);
}

/* It is what the entry said. */
static bool is_whole(const struct rv_store *s, const struct reading *rd, size_t key_len)
{
    const struct rv_store_record *r = &rd->record;
    if (r->at != rd->entry.at || r->key_len != key_len || r->value_len != rd->len)
        return false;
    uint64_t content = rv_store_sum(s->file.seed, rd->block + rd->len, key_len);
    content = rv_store_sum(content, rd->block, rd->len);
    return r->check == rv_store_record_check(&s->file, r, content) &&
           (uint32_t)r->check == rd->entry.sum;
}

/* 0: it is the key's, and whole; -ENOENT; -EAGAIN: it is not what it should be. The block is freed
 * if it is not 0. */
static int read_value(struct rv_store *s, struct reading *rd, const struct rv_key *key,
                      reeve_time until)
{
    size_t rest = rd->entry.size - sizeof rd->record;
    if (rest < key->len)
        return -ENOENT; /* of another key with the same hash */
    rd->len = rest - key->len;
    rd->block = reeve_alloc(rest);
    if (rd->block == NULL)
        return -ENOMEM;
    int r = read_record(s, rd, key->len, until);
    if (r == 0 && !is_whole(s, rd, key->len))
        r = -EAGAIN;
    if (r == 0 && key->len > 0 && memcmp(rd->block + rd->len, key->data, key->len) != 0)
        r = -ENOENT;
    if (r < 0)
        reeve_free(rd->block);
    return r;
}

/* What the index has is damaged, or has been replaced meanwhile; see (1). */
static bool is_damaged(struct rv_store *s, const struct rv_store_entry *read)
{
    struct rv_store_entry now;
    return rv_store_index_find(&s->index, read->hash, &now) && now.at == read->at;
}

static int find(struct rv_store *s, struct reading *rd, const struct rv_key *key, uint64_t hash,
                reeve_time until)
{
    for (int i = 0; i < GETS_MAX; i++) {
        if (rv_load_relaxed(&s->broken))
            return -EIO;
        if (!rv_store_index_find(&s->index, hash, &rd->entry))
            return -ENOENT;
        int r = read_value(s, rd, key, until);
        if (r != -EAGAIN)
            return r;
        if (is_damaged(s, &rd->entry)) {
            add_one(&rv_store_shard(&s->index, hash)->n.torn);
            return -ENOENT;
        }
    }
    return -ENOENT; /* replaced faster than read: a miss at some moment between */
}

int rv_store_get(struct rv_store *s, const struct rv_key *key, void **ret_data, size_t *ret_len,
                 int64_t *ret_expires_ns, reeve_time until)
{
    struct reading rd;
    uint64_t hash = hash_of(s, key);
    struct rv_store_gets *n = &rv_store_shard(&s->index, hash)->n;
    int r = find(s, &rd, key, hash, until);
    if (r == 0 && rd.record.expires_ns != 0 && s->now() >= rd.record.expires_ns) {
        add_one(&n->expired);
        reeve_free(rd.block);
        r = -ENOENT;
    }
    add_one(r == 0 ? &n->hits : &n->misses);
    if (r < 0)
        return r;
    *ret_data = rd.block;
    *ret_len = rd.len;
    if (ret_expires_ns)
        *ret_expires_ns = rd.record.expires_ns;
    return 0;
}

int rv_store_fetch(struct rv_store *s, const struct rv_key *key, reeve_time until)
{
    struct rv_store_entry e;
    if (rv_load_relaxed(&s->broken))
        return -EIO;
    if (!in_task() || !rv_store_index_find(&s->index, hash_of(s, key), &e))
        return 0;
    return reeve_map_fetch(&s->file.map, rv_store_offset(&s->file, e.at), e.size, until);
}

/* ---- changes --------------------------------------------------------------------------------- */

size_t rv_store_fits(const struct rv_store *s, size_t key_len)
{
    size_t most = rv_store_record_max(&s->file) - sizeof(struct rv_store_record);
    return key_len < most ? most - key_len : 0;
}

int rv_store_remove(struct rv_store *s, const struct rv_key *key)
{
    uint64_t hash = hash_of(s, key);
    rv_lock_acquire(&s->lock);
    int r = rv_store_drop(s, hash);
    bool hungry = !s->next_ready;
    if (r == 0)
        add_one(&s->removes);
    rv_lock_release(&s->lock);
    if (hungry)
        rv_store_prepare_soon(s);
    return r;
}

int rv_store_clear(struct rv_store *s)
{
    rv_lock_acquire(&s->lock);
    int r = rv_store_drop_all(s);
    bool hungry = !s->next_ready;
    rv_lock_release(&s->lock);
    if (hungry)
        rv_store_prepare_soon(s);
    return r;
}

static int prepare(void *arg)
{
    rv_store_prepare(arg);
    return 0;
}

static int await_room(struct rv_store *s, reeve_time until)
{
    if (until < 0)
        return -EAGAIN;
    return in_task() ? reeve_offload(prepare, s, until) : prepare(s);
}

/* 0, or why it was not added. */
static int add(struct rv_store *s, const struct rv_store_item *item, reeve_time until)
{
    for (;;) {
        rv_lock_acquire(&s->lock);
        int r = rv_store_add(s, item);
        bool hungry = !s->next_ready;
        rv_lock_release(&s->lock);
        if (hungry && (r != -EAGAIN || until < 0))
            rv_store_prepare_soon(s);
        if (r != -EAGAIN)
            return r;
        r = await_room(s, until);
        if (r < 0) {
            add_one(&s->dropped);
            return r;
        }
    }
}

int rv_store_put(struct rv_store *s, const struct rv_key *key, const void *data, size_t len,
                 int64_t expires_ns, reeve_time until)
{
    struct rv_store_item item = { .kind = RV_STORE_VALUE,
                                  .hash = hash_of(s, key),
                                  .key = key->data,
                                  .key_len = key->len,
                                  .data = data,
                                  .len = len,
                                  .expires_ns = expires_ns };
    size_t most = rv_store_record_max(&s->file) - sizeof(struct rv_store_record);
    int r = -E2BIG;
    if (key->len <= most && len <= most - key->len) {
        item.content = rv_store_sum(rv_store_sum(s->file.seed, key->data, key->len), data, len);
        r = add(s, &item, until);
    }
    if (r == 0 || r == -EIO)
        return r;
    rv_lock_acquire(&s->lock);
    int gone = rv_store_drop(s, item.hash); /* see (2) */
    rv_lock_release(&s->lock);
    return gone == -EIO ? -EIO : r;
}

/* ---- statistics ------------------------------------------------------------------------------ */

void rv_store_stats(struct rv_store *s, struct rv_store_stats *ret_stats)
{
    struct rv_store_stats st = { .inserts = rv_load_relaxed(&s->inserts),
                                 .removes = rv_load_relaxed(&s->removes),
                                 .evictions = rv_load_relaxed(&s->evictions),
                                 .torn = rv_load_relaxed(&s->torn),
                                 .dropped = rv_load_relaxed(&s->dropped),
                                 .discards = rv_load_relaxed(&s->discards),
                                 .bytes = rv_load_relaxed(&s->bytes),
                                 .bytes_max = (uint64_t)s->file.segments << s->file.shift,
                                 .entries = rv_load_relaxed(&s->entries) };
    for (uint32_t i = 0; i < rv_store_shards(&s->index); i++) {
        struct rv_store_gets *n = &s->index.shards[i].n;
        st.hits += rv_load_relaxed(&n->hits);
        st.misses += rv_load_relaxed(&n->misses);
        st.expired += rv_load_relaxed(&n->expired);
        st.torn += rv_load_relaxed(&n->torn);
    }
    *ret_stats = st;
}

void rv_store_stats_reset(struct rv_store *s)
{
    RV_ATOMIC(uint64_t) *const counts[] = { &s->inserts, &s->removes, &s->evictions,
                                            &s->torn,    &s->dropped, &s->discards };
    rv_lock_acquire(&s->lock);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        rv_store_relaxed(counts[i], (uint64_t)0);
    rv_lock_release(&s->lock);
    for (uint32_t i = 0; i < rv_store_shards(&s->index); i++) {
        struct rv_store_gets *n = &s->index.shards[i].n;
        rv_store_relaxed(&n->hits, (uint64_t)0);
        rv_store_relaxed(&n->misses, (uint64_t)0);
        rv_store_relaxed(&n->expired, (uint64_t)0);
        rv_store_relaxed(&n->torn, (uint64_t)0);
    }
}
