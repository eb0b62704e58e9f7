/* SPDX-License-Identifier: MIT */
/*
 * cache_store_log.c -- adding to the log of a store, and getting room for it ahead of need.
 *
 * A worker must not wait for a disk. To write to a page of a map that is not in memory is to read
 * it first; so the pool makes the pages of the next segment ready to be written to while the head
 * is being filled. (When the kernel has written a page back it makes it read-only, and the next
 * write to it is a fault again; but the page is there, and the fault reads nothing.)
 *
 * (1) One call of rv_store_write() adds a record: its bytes, then its slot. So what is cut short is
 *     a record without a slot at the end of the log.
 * (2) A record is in the file before the index knows of it, and both happen under the lock: the
 *     order in the index is the order in the log.
 * (3) Before the first byte of a segment is overwritten, `seqs` says that what it held is gone, and
 *     before anything follows from that, the file says so too: the marks. So what was evicted is
 *     found neither now nor after a restart, and to remove it needs no record.
 * (4) What cannot be written breaks the store: nobody finds anything any more, here or, as far as
 *     the file can still be told, after a restart. A removal is never silently lost.
 * (5) At most one job is on its way, and it holds a reference.
 *
 * Threads: add, drop, drop_all - under the lock; the rest - any, without it.
 */
#include "runtime/cache_store_log.h"

#include <errno.h>
#include <sys/mman.h>

#include "mem/alloc.h"
#include "mem/die.h"

#define POPULATE_WRITE 23 /* MADV_POPULATE_WRITE, Linux 5.14; newer than the oldest headers */

#define SLOT_BYTES sizeof(struct rv_store_slot)
#define RECORD_BYTES sizeof(struct rv_store_record)

size_t rv_store_record_max(const struct rv_store_file *f)
{
    return ((size_t)1 << f->shift) - (RV_STORE_MARKS + 1) * SLOT_BYTES;
}

static uint64_t position(const struct rv_store_file *f, uint64_t seq, size_t within)
{
    return (seq << f->shift) + within;
}

uint64_t rv_store_end_at(const struct rv_store *s)
{
    return s->end.seq ? position(&s->file, s->end.seq, s->end.within) : 0;
}

static void add_to(RV_ATOMIC(uint64_t) *count, uint64_t n)
{
    rv_store_relaxed(count, rv_load_relaxed(count) + n);
}

/* ---- what is live ---- */

static void count(struct rv_store *s, const struct rv_store_entry *e, bool in)
{
    struct rv_store_held *held =
        &s->places[rv_store_place(&s->file, rv_store_seq(&s->file, e->at))];
    RV_ASSERT(in || held->entries > 0);
    uint32_t one = in ? 1u : UINT32_MAX;
    uint64_t bytes = in ? e->size : 0 - (uint64_t)e->size;
    held->entries += one;
    held->bytes += bytes;
    add_to(&s->entries, in ? 1 : UINT64_MAX);
    add_to(&s->bytes, bytes);
}

/* All that a place holds is gone. */
static void vacate(struct rv_store *s, uint32_t place)
{
    struct rv_store_held *held = &s->places[place];
    add_to(&s->entries, 0 - (uint64_t)held->entries);
    add_to(&s->bytes, 0 - held->bytes);
    *held = (struct rv_store_held){ 0 };
}

static int break_it(struct rv_store *s)
{
    rv_store_relaxed(&s->broken, 1u);
    for (uint32_t i = 0; i < s->file.segments; i++)
        vacate(s, i);
    s->file.head.floor = UINT64_MAX;
    (void)rv_store_head_write(&s->file);
    return -EIO;
}

/* ---- segments ---- */

static bool has_room(const struct rv_store *s, size_t size)
{
    size_t slots = (s->end.slots + 1) * SLOT_BYTES;
    if (s->end.seq == 0 || s->end.sealed)
        return false;
    return s->end.within + rv_store_words(size) + slots <= (size_t)1 << s->file.shift;
}

/* The two marks lie one before the other, the second one first. */
static int write_marks(struct rv_store *s, uint64_t seq)
{
    struct rv_store_slot marks[RV_STORE_MARKS];
    for (uint32_t i = 0; i < RV_STORE_MARKS; i++) {
        struct rv_store_slot *mark = &marks[RV_STORE_MARKS - 1 - i];
        mark->entry = (struct rv_store_entry){ .hash = rv_store_end_at(s),
                                               .at = position(&s->file, seq, 0) | RV_STORE_MARK,
                                               .size = s->end.slots };
        rv_store_slot_seal(&s->file, mark, i);
    }
    struct iovec from = { marks, sizeof marks };
    size_t offset = rv_store_slot_offset(&s->file, seq, RV_STORE_MARKS - 1);
    return rv_store_write(&s->file, &from, &(struct rv_store_target){ offset, 1 }, 1);
}

/* See (3). */
static int begin(struct rv_store *s)
{
    uint64_t seq = s->next;
    uint32_t place = rv_store_place(&s->file, seq);
    RV_ASSERT(seq > s->end.seq);
    rv_store_release(&s->index.seqs[place], seq); /* pairs with rv_store_is_live() */
    add_to(&s->evictions, s->places[place].entries);
    vacate(s, place);
    if (write_marks(s, seq) < 0)
        return break_it(s);
    s->end = (struct rv_store_end){ .seq = seq, .slots = RV_STORE_MARKS };
    s->next = seq + 1;
    s->next_ready = false;
    return 0;
}

/* ---- records ---- */

static const uint64_t no_bytes; /* what fills a word */

static int write_record(struct rv_store *s, const struct rv_store_item *item,
                        struct rv_store_entry *ret_entry)
{
    struct rv_store_file *f = &s->file;
    uint64_t at = position(f, s->end.seq, s->end.within) | item->kind;
    size_t size = RECORD_BYTES + item->key_len + item->len;
    struct rv_store_record r = { .at = at,
                                 .hash = item->hash,
                                 .expires_ns = item->expires_ns,
                                 .key_len = (uint32_t)item->key_len,
                                 .value_len = (uint32_t)item->len };
    r.check = rv_store_record_check(f, &r, item->content);
    struct rv_store_slot slot = { .entry = { item->hash, at, (uint32_t)size, (uint32_t)r.check } };
    rv_store_slot_seal(f, &slot, s->end.slots);
    struct iovec from[] = { { &r, sizeof r },
                            { (void *)(uintptr_t)item->key, item->key_len },
                            { (void *)(uintptr_t)item->data, item->len },
                            { (void *)(uintptr_t)&no_bytes, rv_store_words(size) - size },
                            { &slot, sizeof slot } };
    struct rv_store_target to[] = { { rv_store_offset(f, at), 4 },
                                    { rv_store_slot_offset(f, s->end.seq, s->end.slots), 1 } };
    if (rv_store_write(f, from, to, 2) < 0)
        return break_it(s);
    s->end.within += rv_store_words(size);
    s->end.slots++;
    *ret_entry = slot.entry;
    return 0;
}

int rv_store_add(struct rv_store *s, const struct rv_store_item *item)
{
    size_t size = RECORD_BYTES + item->key_len + item->len;
    struct rv_store_entry entry, old;
    RV_ASSERT(size <= rv_store_record_max(&s->file));
    RV_ASSERT(!s->closed);
    if (rv_load_relaxed(&s->broken))
        return -EIO;
    if (!has_room(s, size) && !s->next_ready)
        return -EAGAIN;
    if (rv_store_index_reserve(&s->index, item->hash) < 0)
        return -ENOMEM;
    int r = has_room(s, size) ? 0 : begin(s);
    if (r == 0)
        r = write_record(s, item, &entry);
    if (r < 0)
        return r;
    if (rv_store_index_set(&s->index, &entry, &old))
        count(s, &old, false);
    count(s, &entry, true);
    add_to(&s->inserts, 1);
    return 0;
}

/* Room for what cannot wait. */
static int add_now(struct rv_store *s, const struct rv_store_item *item)
{
    struct rv_store_entry entry;
    int r = has_room(s, RECORD_BYTES) ? 0 : begin(s);
    return r < 0 ? r : write_record(s, item, &entry);
}

int rv_store_drop(struct rv_store *s, uint64_t hash)
{
    struct rv_store_item item = { .kind = RV_STORE_REMOVAL,
                                  .hash = hash,
                                  .content = rv_store_sum(s->file.seed, NULL, 0) };
    struct rv_store_entry old;
    RV_ASSERT(!s->closed);
    if (rv_load_relaxed(&s->broken))
        return -EIO;
    if (!rv_store_index_find(&s->index, hash, &old))
        return -ENOENT;
    int r = add_now(s, &item);
    if (r == 0 && rv_store_index_drop(&s->index, hash, &old)) /* if it was not evicted by this */
        count(s, &old, false);
    return r;
}

int rv_store_drop_all(struct rv_store *s)
{
    struct rv_store_item item = { .kind = RV_STORE_CLEAR,
                                  .content = rv_store_sum(s->file.seed, NULL, 0) };
    RV_ASSERT(!s->closed);
    if (rv_load_relaxed(&s->broken))
        return -EIO;
    int r = add_now(s, &item);
    if (r < 0)
        return r;
    rv_store_release(&s->index.floor, rv_store_end_at(s)); /* pairs with rv_store_is_live() */
    for (uint32_t i = 0; i < s->file.segments; i++)
        vacate(s, i);
    return 0;
}

/* ---- ahead of need ---- */

void rv_store_prepare(struct rv_store *s)
{
    int saved = errno;
    rv_lock_acquire(&s->lock);
    uint64_t seq = s->next;
    bool done = s->next_ready || rv_load_relaxed(&s->broken);
    rv_lock_release(&s->lock);
    if (done)
        return;
    /* If it fails, the writes that follow tell why, or do it by themselves. */
    size_t start = rv_store_start(&s->file, seq), page = rv_page_bytes();
    size_t first = start & ~(page - 1), end = start + ((size_t)1 << s->file.shift);
    (void)madvise((char *)s->file.map.data + first, end - first, POPULATE_WRITE);
    rv_lock_acquire(&s->lock);
    if (s->next == seq)
        s->next_ready = true;
    rv_lock_release(&s->lock);
    errno = saved;
}

void rv_store_unref(struct rv_store *s)
{
    if (rv_sub_acq_rel(&s->refs, 1u) > 1) /* orders what the other did before the freeing */
        return;
    reeve_map_close(&s->file.map);
    rv_store_index_finish(&s->index);
    rv_free(s->places);
    rv_free(s);
}

static int run_job(void *arg)
{
    rv_store_prepare(arg);
    return 0;
}

static void job_done(struct rv_offload_job *job, int result)
{
    struct rv_store *s = job->arg;
    (void)result; /* where there was no thread for it, the next put asks again */
    rv_lock_acquire(&s->lock);
    s->preparing = false;
    rv_lock_release(&s->lock);
    rv_store_unref(s);
}

void rv_store_prepare_soon(struct rv_store *s)
{
    rv_lock_acquire(&s->lock);
    bool start = !s->next_ready && !s->preparing && !s->closed;
    if (start) {
        s->preparing = true;
        (void)rv_add_relaxed(&s->refs, 1u);
        s->job = (struct rv_offload_job){ .fn = run_job, .arg = s, .done = job_done };
    }
    rv_lock_release(&s->lock);
    if (start && rv_offload_start(s->offload, &s->job) < 0)
        job_done(&s->job, 0);
}
