/* SPDX-License-Identifier: MIT */
/*
 * cache_store_file.c -- checksums of a store's file, its head, and reading and writing it.
 *
 * What is read goes by preadv2(RWF_NOWAIT), which asks whether it is in memory, copies and notices
 * a file that became shorter, all in one call of 0.8 us; asking mincore(2) and copying out of the
 * map takes 2.7 us. What is written goes to the map by process_vm_writev(2) on this very process:
 * 1.4 us into pages that were prepared, against 4.3 us of pwrite(2) on ext4, which besides would
 * make a shortened file longer. Neither raises SIGBUS: where a touch would, they say EFAULT, or
 * read less. Both see the same pages.
 *
 * (1) Whatever the file holds, these functions read and write within it, and say so if they cannot.
 * (2) Checks are seeded with what is in the head and nowhere else, so bytes that come from another
 *     file, an earlier life of this one, or a value, are never taken for a slot or a record.
 * (3) A check differs for sure if one word differs: each step of the sum is a bijection of the word
 *     for a given state, and of the state for a given word. Else with probability 1 - 2^-64.
 *
 * The lanes of the sum are those of xxHash (Yann Collet).
 * Threads: any.
 */
#include "runtime/cache_store_file.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mem/die.h"
#include "mem/fault.h"

#define MAGIC UINT64_C(0x31334c2d65766572) /* "reve-L31" where the lowest byte comes first */
#define VERSION 1u
#define ORDER 0x01020304u
#define COPY_AT ((size_t)2048) /* in another sector than the first */

#define PRIME_1 UINT64_C(0x9e3779b185ebca87)
#define PRIME_2 UINT64_C(0xc2b2ae3d27d4eb4f)
#define PRIME_3 UINT64_C(0x165667b19e3779f9)
#define PRIME_4 UINT64_C(0x85ebca77c2b2ae63)

static_assert(sizeof(struct rv_store_slot) == 32, "the layout is that of the file");
static_assert(sizeof(struct rv_store_record) == 40, "and has no holes");
static_assert(sizeof(struct rv_store_head) == 96, "and fits its place");

/* ---- sums ---- */

static inline uint64_t turn(uint64_t v, unsigned bits)
{
    return v << bits | v >> (64 - bits);
}

static inline uint64_t word_at(const unsigned char *p)
{
    uint64_t word;
    memcpy(&word, p, 8);
    return word;
}

static inline uint64_t lane(uint64_t state, uint64_t word)
{
    return turn(state + word * PRIME_2, 31) * PRIME_1;
}

static inline uint64_t fold(uint64_t state, uint64_t word)
{
    return turn(state ^ lane(0, word), 27) * PRIME_1 + PRIME_4;
}

static inline uint64_t finish(uint64_t v)
{
    v = (v ^ v >> 33) * PRIME_2;
    v = (v ^ v >> 29) * PRIME_3;
    return v ^ v >> 32;
}

uint64_t rv_store_sum(uint64_t begun, const void *data, size_t len)
{
    const unsigned char *p = data;
    uint64_t sum = fold(begun, len), last = 0;
    if (len >= 32) {
        uint64_t v[4] = { sum + PRIME_1, sum + PRIME_2, sum, sum - PRIME_1 };
        for (; len >= 32; p += 32, len -= 32)
            for (int i = 0; i < 4; i++)
                v[i] = lane(v[i], word_at(p + 8 * i));
        for (int i = 0; i < 4; i++)
            sum = fold(sum, v[i]);
    }
    for (; len >= 8; p += 8, len -= 8)
        sum = fold(sum, word_at(p));
    if (len > 0) {
        memcpy(&last, p, len);
        sum = fold(sum, last);
    }
    return finish(sum);
}

uint64_t rv_store_record_check(const struct rv_store_file *f, const struct rv_store_record *r,
                               uint64_t content)
{
    uint64_t sum = fold(f->seed, content);
    sum = fold(sum, r->at);
    sum = fold(sum, r->hash);
    sum = fold(sum, (uint64_t)r->expires_ns);
    return finish(fold(sum, (uint64_t)r->key_len << 32 | r->value_len));
}

static uint64_t slot_check(const struct rv_store_file *f, const struct rv_store_entry *e,
                           uint32_t idx)
{
    uint64_t sum = fold(~f->seed, idx);
    sum = fold(sum, e->hash);
    sum = fold(sum, e->at);
    return finish(fold(sum, (uint64_t)e->size << 32 | e->sum));
}

void rv_store_slot_seal(const struct rv_store_file *f, struct rv_store_slot *slot, uint32_t idx)
{
    slot->check = slot_check(f, &slot->entry, idx);
}

bool rv_store_slot_ok(const struct rv_store_file *f, const struct rv_store_slot *slot, uint32_t idx)
{
    return slot->entry.at != 0 && slot->check == slot_check(f, &slot->entry, idx);
}

/* ---- the head ---- */

static uint64_t head_check(const struct rv_store_head *h)
{
    const unsigned char *rest = (const unsigned char *)h + sizeof h->check;
    return rv_store_sum(MAGIC, rest, sizeof *h - sizeof h->check);
}

static void seed_checks(struct rv_store_file *f)
{
    f->seed = rv_hash(f->head.seed, "checks", 6);
}

static bool is_ours(const struct rv_store_file *f, const struct rv_store_head *h, uint64_t tag)
{
    return h->magic == MAGIC && h->version == VERSION && h->order == ORDER &&
           h->check == head_check(h) && h->tag == tag &&
           h->segment_bytes == (uint64_t)1 << f->shift && h->segments == f->segments;
}

bool rv_store_head_read(struct rv_store_file *f, uint64_t tag)
{
    bool found = false;
    for (int i = 0; i < 2; i++) {
        struct rv_store_head h;
        struct iovec to = { &h, sizeof h };
        if (rv_store_read(f, &to, 1, i ? COPY_AT : 0) < 0 || !is_ours(f, &h, tag))
            continue;
        if (!found || h.serial > f->head.serial)
            f->head = h;
        found = true;
    }
    seed_checks(f);
    return found;
}

void rv_store_head_new(struct rv_store_file *f, uint64_t tag)
{
    f->head = (struct rv_store_head){ .magic = MAGIC,
                                      .version = VERSION,
                                      .order = ORDER,
                                      .segment_bytes = (uint64_t)1 << f->shift,
                                      .segments = f->segments,
                                      .tag = tag,
                                      .seed = rv_seed_random() };
    seed_checks(f);
}

int rv_store_head_write(struct rv_store_file *f)
{
    f->head.serial++;
    f->head.check = head_check(&f->head);
    struct iovec from[] = { { &f->head, sizeof f->head }, { &f->head, sizeof f->head } };
    struct rv_store_target to[] = { { 0, 1 }, { COPY_AT, 1 } };
    return rv_store_write(f, from, to, 2);
}

/* ---- writing ---- */

static size_t length_of(const struct iovec *v, unsigned n)
{
    size_t len = 0;
    for (unsigned i = 0; i < n; i++)
        len += v[i].iov_len;
    return len;
}

static bool into_map(struct rv_store_file *f, const struct iovec *from,
                     const struct rv_store_target *to, unsigned targets)
{
    struct iovec mapped[RV_STORE_TARGETS_MAX];
    unsigned pieces = 0;
    for (unsigned i = 0; i < targets; i++) {
        size_t len = length_of(from + pieces, to[i].pieces);
        RV_MUST(to[i].offset <= f->map.len && len <= f->map.len - to[i].offset);
        mapped[i] = (struct iovec){ (char *)f->map.data + to[i].offset, len };
        pieces += to[i].pieces;
    }
    ssize_t n = process_vm_writev(getpid(), from, pieces, mapped, targets, 0);
    if (n < 0 && (errno == EPERM || errno == ENOSYS))
        f->by_fd = true; /* a filter of system calls; it will not change its mind */
    return n >= 0 && (size_t)n == length_of(mapped, targets);
}

/* The file must not become longer by this. */
static bool into_file(struct rv_store_file *f, const struct iovec *from,
                      const struct rv_store_target *to, unsigned targets)
{
    struct stat st;
    if (fstat(f->fd, &st) < 0 || (uint64_t)st.st_size < f->map.len)
        return false;
    for (unsigned i = 0; i < targets; i++) {
        ssize_t n = pwritev(f->fd, from, (int)to[i].pieces, (off_t)to[i].offset);
        if (n < 0 || (size_t)n != length_of(from, to[i].pieces))
            return false;
        from += to[i].pieces;
    }
    return true;
}

int rv_store_write(struct rv_store_file *f, const struct iovec *from,
                   const struct rv_store_target *to, unsigned targets)
{
    int saved = errno;
    bool done = false;
    if (RV_FAULT("store.write"))
        return -EIO;
    if (!f->by_fd)
        done = into_map(f, from, to, targets);
    if (!done)
        done = into_file(f, from, to, targets);
    errno = saved;
    return done ? 0 : -EIO;
}

/* ---- reading ---- */

int rv_store_read_now(const struct rv_store_file *f, const struct iovec *to, int n, size_t offset)
{
    int saved = errno;
    ssize_t got = preadv2(f->fd, to, n, (off_t)offset, RWF_NOWAIT);
    errno = saved;
    return got >= 0 && (size_t)got == length_of(to, (unsigned)n) ? 0 : -EAGAIN;
}

int rv_store_read(const struct rv_store_file *f, const struct iovec *to, int n, size_t offset)
{
    int saved = errno;
    ssize_t got;
    if (RV_FAULT("store.read"))
        return -EIO;
    do
        got = preadv(f->fd, to, n, (off_t)offset);
    while (got < 0 && errno == EINTR);
    errno = saved;
    return got >= 0 && (size_t)got == length_of(to, (unsigned)n) ? 0 : -EIO;
}
