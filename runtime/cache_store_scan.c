/* SPDX-License-Identifier: MIT */
/*
 * cache_store_scan.c -- finding again what is in the file of a store, and nothing that is not.
 *
 * The slots are read, not the records: those are checked by whoever gets them. The marks of each
 * segment lead to the one before it, and say where that ended:
 *
 *     place     3      0      1      2
 *            | 4711 | 4712 | 4713 | 4714 |     the head; each names its predecessor and its end
 *                <------<-----<------+
 *
 * The segments are gone through from the oldest to the newest, and what their slots say is done
 * again: values, removals, clears.
 *
 * (1) What is missing may have been a removal, or a newer value, of anything before it. So where
 *     something is missing that was there, all before it is given up: the floor rises. What is left
 *     is what the store held at the end of the log, less some. Nothing is given up for a slot that
 *     its record can replace, nor for a record, whose slot still says that the key has changed, nor
 *     for one of two marks.
 * (2) What was there: slots before other slots; slots that the marks of the next segment count;
 *     segments that the marks of others name; all up to the end, if the file was closed. Otherwise
 *     nobody knows where the log ended, and an end that is missing is an earlier moment.
 * (3) When the file was not closed, writes may have been lost that came later than some that were
 *     not. So nothing is added where those may still lie about: the next segment has a number that
 *     no lost one can have had, since a log does not go round its ring LAPS_LOST times before any
 *     of it reaches the disk.
 *
 * Threads: one.
 */
#include "runtime/cache_store_scan.h"

#include <errno.h>
#include <string.h>

#include "mem/alloc.h"
#include "mem/die.h"

#define SLOTS_AT_ONCE 512u
#define LAPS_LOST 256u
#define STEP_BYTES ((size_t)4 << 20)

#define SLOT_BYTES sizeof(struct rv_store_slot)
#define RECORD_BYTES sizeof(struct rv_store_record)

static size_t segment_bytes(const struct rv_store_scan *c)
{
    return (size_t)1 << c->store->file.shift;
}

static struct rv_store_found *found_at(struct rv_store_scan *c, uint64_t seq)
{
    return &c->found[rv_store_place(&c->store->file, seq)];
}

static bool is_marked(struct rv_store_scan *c, uint64_t seq)
{
    return found_at(c, seq)->seq == seq;
}

static void lost(struct rv_store_scan *c, uint64_t n)
{
    struct rv_store *s = c->store;
    rv_store_relaxed(&s->torn, rv_load_relaxed(&s->torn) + n);
}

/* See (1). */
static void give_up_before(struct rv_store_scan *c, uint64_t position)
{
    struct rv_store *s = c->store;
    if (position <= rv_load_relaxed(&s->index.floor))
        return;
    rv_store_relaxed(&s->index.floor, position);
    rv_store_relaxed(&s->discards, (uint64_t)1);
}

/* ---- slots ---- */

static uint32_t slots_at_once(const struct rv_store_scan *c)
{
    size_t all = segment_bytes(c) / SLOT_BYTES;
    return all < SLOTS_AT_ONCE ? (uint32_t)all : SLOTS_AT_ONCE;
}

/* A slot as it is in the file; what cannot be read is zeroes. */
static const struct rv_store_slot *slot_of(struct rv_store_scan *c, uint64_t seq, uint32_t idx)
{
    uint32_t n = slots_at_once(c), first = idx / n * n;
    if (c->slots_seq != seq || c->slots_first != first) {
        struct iovec to = { c->slots, n * SLOT_BYTES };
        size_t offset = rv_store_slot_offset(&c->store->file, seq, first + n - 1);
        if (rv_store_read(&c->store->file, &to, 1, offset) < 0)
            memset(c->slots, 0, to.iov_len);
        c->slots_seq = seq;
        c->slots_first = first;
    }
    return &c->slots[n - 1 - (idx - first)];
}

/* Whether it can be: there is room for it and for the record before it. */
static bool is_within(const struct rv_store_scan *c, size_t end, uint32_t idx)
{
    return end + RECORD_BYTES + ((size_t)idx + 1) * SLOT_BYTES <= segment_bytes(c);
}

static bool is_valid(struct rv_store_scan *c, const struct rv_store_slot *slot, uint64_t seq,
                     uint32_t idx)
{
    const struct rv_store_file *f = &c->store->file;
    return slot->entry.at >> f->shift == seq && rv_store_slot_ok(f, slot, idx);
}

static int write_slot(struct rv_store_scan *c, uint64_t seq, uint32_t idx,
                      struct rv_store_slot *slot)
{
    struct rv_store_file *f = &c->store->file;
    rv_store_slot_seal(f, slot, idx);
    struct iovec from = { slot, sizeof *slot };
    c->slots_seq = 0; /* read again */
    return rv_store_write(f, &from,
                          &(struct rv_store_target){ rv_store_slot_offset(f, seq, idx), 1 }, 1);
}

/* ---- marks ---- */

/* Both are asked; one is enough, and the other is made good. */
static int look_at_marks(struct rv_store_scan *c, uint32_t place)
{
    struct rv_store_file *f = &c->store->file;
    struct rv_store_slot marks[RV_STORE_MARKS], *good = NULL;
    struct iovec to = { marks, sizeof marks };
    bool ok[RV_STORE_MARKS] = { false };
    if (rv_store_read(f, &to, 1, rv_store_slot_offset(f, place, RV_STORE_MARKS - 1)) < 0)
        return 0;
    for (uint32_t i = 0; i < RV_STORE_MARKS; i++) {
        struct rv_store_slot *mark = &marks[RV_STORE_MARKS - 1 - i];
        uint64_t seq = mark->entry.at >> f->shift;
        ok[i] = rv_store_slot_ok(f, mark, i) && rv_store_place(f, seq) == place &&
                (mark->entry.at & RV_STORE_KINDS) == RV_STORE_MARK;
        if (ok[i] && (good == NULL || mark->entry.at > good->entry.at))
            good = mark;
    }
    if (good == NULL)
        return 0;
    c->found[place] = (struct rv_store_found){ .seq = good->entry.at >> f->shift,
                                               .before = good->entry.hash,
                                               .slots = good->entry.size };
    for (uint32_t i = 0; i < RV_STORE_MARKS; i++) {
        const struct rv_store_slot *mark = &marks[RV_STORE_MARKS - 1 - i];
        if (ok[i] && mark->entry.at == good->entry.at)
            continue;
        struct rv_store_slot again = *good;
        lost(c, 1);
        if (write_slot(c, c->found[place].seq, i, &again) < 0)
            return -EIO;
    }
    return 0;
}

/* The marks of the head may be what is missing, and slots of it be there. 0: none are. */
static uint64_t seek_unmarked(struct rv_store_scan *c, uint64_t newest, uint64_t next)
{
    const struct rv_store_file *f = &c->store->file;
    uint64_t seq = 0;
    for (uint32_t idx = 0; is_within(c, 0, idx); idx++) {
        const struct rv_store_slot *slot = slot_of(c, next, idx);
        uint64_t its = slot->entry.at >> f->shift;
        if (its > newest && its > seq && rv_store_place(f, its) == rv_store_place(f, next) &&
            rv_store_slot_ok(f, slot, idx))
            seq = its;
    }
    c->slots_seq = 0;
    return seq;
}

/* From the newest back, as far as the marks lead and nothing was overwritten. */
static void make_chain(struct rv_store_scan *c)
{
    struct rv_store *s = c->store;
    uint64_t seq = 0;
    for (uint32_t i = 0; i < s->file.segments; i++)
        if (c->found[i].seq > seq)
            seq = c->found[i].seq;
    uint64_t unmarked = seek_unmarked(c, seq, seq + 1);
    if (unmarked)
        seq = unmarked;
    while (seq != 0 && rv_load_relaxed(&s->index.seqs[rv_store_place(&s->file, seq)]) == 0) {
        const struct rv_store_found *found = found_at(c, seq);
        rv_store_relaxed(&s->index.seqs[rv_store_place(&s->file, seq)], seq);
        c->chain[c->length++] = seq;
        if (found->seq != seq || found->before <= rv_load_relaxed(&s->index.floor))
            break;
        uint64_t before = found->before >> s->file.shift;
        if (before >= seq || found_at(c, before)->seq > before)
            break; /* it was overwritten, by one that is in the chain */
        seq = before;
    }
    c->left = c->length;
}

/* ---- segments ---- */

/* One segment, while it is gone through. */
struct pass {
    uint64_t seq;
    uint32_t idx;
    uint32_t slots; /* that it has, if that is known, else UINT32_MAX */
    uint32_t bad;   /* slots since the last good one */
    size_t end;     /* of the last good one's record */
    uint32_t good;  /* slots up to the last good one */
};

static int apply(struct rv_store_scan *c, const struct rv_store_entry *e)
{
    struct rv_store *s = c->store;
    struct rv_store_entry old;
    switch (e->at & RV_STORE_KINDS) {
    case RV_STORE_VALUE:
        if (rv_store_index_reserve(&s->index, e->hash) < 0)
            return -ENOMEM;
        (void)rv_store_index_set(&s->index, e, &old);
        return 0;
    case RV_STORE_REMOVAL:
        (void)rv_store_index_drop(&s->index, e->hash, &old);
        return 0;
    default: /* a clear; marks are not among them */
        if (e->at > rv_load_relaxed(&s->index.floor))
            rv_store_relaxed(&s->index.floor, e->at);
        return 0;
    }
}

static uint64_t content_of(const struct rv_store_file *f, const struct rv_store_record *r,
                           const char *bytes)
{
    uint64_t sum = rv_store_sum(f->seed, bytes, r->key_len);
    return r->at & RV_STORE_KINDS ? sum : rv_store_sum(sum, bytes + r->key_len, r->value_len);
}

/* The slot of the record that begins here, if there is one: 0, -ENOENT, -ENOMEM. */
static int recover(struct rv_store_scan *c, const struct pass *p, struct rv_store_slot *ret_slot)
{
    const struct rv_store_file *f = &c->store->file;
    struct rv_store_record r;
    size_t offset = rv_store_start(f, p->seq) + p->end;
    struct iovec to = { &r, sizeof r };
    if (!is_within(c, p->end, p->idx) || rv_store_read(f, &to, 1, offset) < 0)
        return -ENOENT;
    size_t len = (size_t)r.key_len + r.value_len;
    size_t room = segment_bytes(c) - p->end - RECORD_BYTES - ((size_t)p->idx + 1) * SLOT_BYTES;
    if ((r.at & ~RV_STORE_KINDS) != (p->seq << f->shift) + p->end || len > room ||
        (r.at & RV_STORE_KINDS) >= RV_STORE_MARK)
        return -ENOENT;
    char *bytes = rv_alloc(len > 0 ? len : 1);
    if (bytes == NULL)
        return -ENOMEM;
    to = (struct iovec){ bytes, len };
    bool whole = (len == 0 || rv_store_read(f, &to, 1, offset + RECORD_BYTES) == 0) &&
                 r.check == rv_store_record_check(f, &r, content_of(f, &r, bytes));
    rv_free(bytes);
    if (!whole)
        return -ENOENT;
    *ret_slot = (struct rv_store_slot){ .entry = { r.hash, r.at, (uint32_t)(RECORD_BYTES + len),
                                                   (uint32_t)r.check } };
    return 0;
}

/* A slot that is good, and before it perhaps some that are not. */
static int take(struct rv_store_scan *c, struct pass *p, const struct rv_store_entry *e)
{
    const struct rv_store_file *f = &c->store->file;
    size_t within = rv_store_within(f, e->at);
    if (p->bad > 0 || within != p->end) {
        lost(c, p->bad);
        give_up_before(c, (p->seq << f->shift) + within);
    }
    p->bad = 0;
    p->good = p->idx + 1;
    p->end = within + rv_store_words(e->size);
    return apply(c, e);
}

/* 1: taken, 0: not good, or an error. */
static int take_slot(struct rv_store_scan *c, struct pass *p)
{
    struct rv_store_slot slot = *slot_of(c, p->seq, p->idx);
    int r;
    if (is_valid(c, &slot, p->seq, p->idx) && (slot.entry.at & RV_STORE_KINDS) != RV_STORE_MARK) {
        r = take(c, p, &slot.entry);
        return r < 0 ? r : 1;
    }
    if (p->bad > 0)
        return 0; /* nobody knows where its record begins */
    r = recover(c, p, &slot);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    lost(c, 1);
    r = write_slot(c, p->seq, p->idx, &slot);
    if (r == 0)
        r = take(c, p, &slot.entry);
    return r < 0 ? r : 1;
}

/* after: the one that was begun next; 0: none, it is the head. */
static int scan_segment(struct rv_store_scan *c, uint64_t seq, uint64_t after)
{
    struct rv_store *s = c->store;
    const struct rv_store_found *next = after && is_marked(c, after) ? found_at(c, after) : NULL;
    struct pass p = { .seq = seq, .slots = next ? next->slots : UINT32_MAX };
    if (!is_marked(c, seq))
        give_up_before(c, seq << s->file.shift);
    p.good = RV_STORE_MARKS;
    for (p.idx = RV_STORE_MARKS; p.idx < p.slots && is_within(c, p.end, p.idx); p.idx++) {
        int r = take_slot(c, &p);
        if (r < 0)
            return r;
        p.bad += r == 0;
    }
    uint64_t end = (seq << s->file.shift) + p.end;
    if (next && (p.good != p.slots || end != next->before)) {
        lost(c, p.slots > p.good ? p.slots - p.good : 0);
        give_up_before(c, next->before);
    }
    if (after == 0)
        s->end = (struct rv_store_end){ .seq = seq, .slots = p.good, .within = p.end };
    return 0;
}

/* ---- the whole ---- */

static void count_all(struct rv_store *s)
{
    uint64_t entries = 0, bytes = 0;
    for (uint32_t i = 0; i < rv_store_shards(&s->index); i++) {
        const struct rv_store_shard *sh = &s->index.shards[i];
        for (uint32_t j = 0; j < sh->cap; j++) {
            const struct rv_store_entry *e = &sh->entries[j];
            if (e->at == 0 || !rv_store_is_live(&s->index, e->at))
                continue;
            uint32_t place = rv_store_place(&s->file, rv_store_seq(&s->file, e->at));
            s->places[place].entries++;
            s->places[place].bytes += e->size;
            entries++;
            bytes += e->size;
        }
    }
    rv_store_relaxed(&s->entries, entries);
    rv_store_relaxed(&s->bytes, bytes);
}

/* See (3). The place in the ring is the one after the head's in any case. */
static int conclude(struct rv_store_scan *c)
{
    struct rv_store *s = c->store;
    const struct rv_store_head *head = &s->file.head;
    uint64_t n = s->file.segments, next = s->end.seq + 1;
    if (head->end != 0 && head->end != rv_store_end_at(s))
        return -EBADMSG;
    if (head->next > next)
        next += (head->next - next + n - 1) / n * n;
    if (head->end == 0 && s->end.seq != 0)
        next += LAPS_LOST * n;
    if (next >> (62 - s->file.shift) != 0)
        return -EBADMSG;
    s->next = next;
    s->end.sealed = next != s->end.seq + 1;
    count_all(s);
    return 0;
}

static int start(struct rv_store_scan *c)
{
    uint32_t n = c->store->file.segments;
    c->found = rv_alloc_zero(n * sizeof *c->found);
    c->chain = rv_alloc_zero(n * sizeof *c->chain);
    c->slots = rv_alloc(slots_at_once(c) * SLOT_BYTES);
    rv_store_relaxed(&c->store->index.floor, c->store->file.head.floor);
    return c->found && c->chain && c->slots ? 1 : -ENOMEM;
}

/* The marks of a place or the slots of a segment; or what comes between and after. 1: there is
 * more. *cost: bytes that it may have read. */
static int advance(struct rv_store_scan *c, size_t *cost)
{
    uint32_t n = c->store->file.segments;
    if (c->slots == NULL)
        return start(c);
    if (c->looked < n) {
        *cost += RV_STORE_SEGMENT_MIN;
        int r = look_at_marks(c, c->looked++);
        if (r == 0 && c->looked == n)
            make_chain(c);
        return r < 0 ? r : 1;
    }
    if (c->left == 0)
        return conclude(c);
    uint32_t i = --c->left;
    *cost += segment_bytes(c);
    int r = scan_segment(c, c->chain[i], i > 0 ? c->chain[i - 1] : 0);
    return r < 0 ? r : 1;
}

int rv_store_scan_step(void *arg)
{
    size_t cost = 0;
    int r = 1;
    while (r > 0 && cost < STEP_BYTES)
        r = advance(arg, &cost);
    return r;
}

void rv_store_scan_finish(struct rv_store_scan *c)
{
    rv_free(c->found);
    rv_free(c->chain);
    rv_free(c->slots);
}
