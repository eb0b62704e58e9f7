/* SPDX-License-Identifier: MIT */
/*
 * policy_reference.h -- every policy a second time, as its paper says it, with arrays and walks
 * over all of them: to be compared with, not to be fast.
 *
 * Keys are numbers 0 .. n - 1 here, of which each has its weight. Nothing of mem/ is used.
 */
#ifndef TESTS_MEM_POLICY_REFERENCE_H
#define TESTS_MEM_POLICY_REFERENCE_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Newest first. */
struct ref_queue {
    uint32_t *id;
    size_t n, bytes;
};

enum ref_kind { REF_S3FIFO, REF_LRU, REF_SIEVE, REF_ADAPTIVE, REF_SMART, REF_SMART_SHORT };

struct ref {
    enum ref_kind kind;
    size_t bytes_max, entries_max;
    const size_t *weight;               /* by id */
    struct ref_queue q[3];
    uint8_t *heat;                      /* by id */
    uint32_t hand;                      /* an id, or UINT32_MAX */
    uint32_t *ghosts;                   /* every push, and at the end */
    size_t ghosts_n, ghosts_cap;
    size_t ghosts_kept;                 /* the last so many count */
    uint64_t *count;                    /* by id, for ever: smart; halved at times: adaptive */
    size_t n, most;                     /* ids; entries at any time, at least 32 */
    uint64_t seen, random;
    size_t requests, misses, regrets, gains;
    double window, base, usual, last;
    unsigned low, hold, pause;
    uint32_t *victims;                  /* of the last request, in order */
    size_t victims_n;
};

static inline void *ref_array(size_t n, size_t bytes)
{
    void *p = calloc(n + 1, bytes);
    if (p == NULL)
        abort();
    return p;
}

static inline void ref_init(struct ref *r, enum ref_kind kind, size_t bytes_max, size_t entries_max,
                            const size_t *weight, size_t n)
{
    memset(r, 0, sizeof *r);
    r->kind = kind;
    r->bytes_max = bytes_max > 0 ? bytes_max : SIZE_MAX;
    r->entries_max = entries_max > 0 ? entries_max : SIZE_MAX;
    r->weight = weight;
    r->n = n;
    r->most = 32;
    r->usual = 1;
    r->pause = 4;
    for (int i = 0; i < 3; i++)
        r->q[i].id = ref_array(n, sizeof *r->q[i].id);
    r->heat = ref_array(n, 1);
    r->count = ref_array(n, sizeof *r->count);
    r->victims = ref_array(n, sizeof *r->victims);
    r->hand = UINT32_MAX;
    r->window = 0.001;
}

static inline void ref_finish(struct ref *r)
{
    for (int i = 0; i < 3; i++)
        free(r->q[i].id);
    free(r->heat);
    free(r->ghosts);
    free(r->count);
    free(r->victims);
}

static inline size_t ref_bytes(const struct ref *r)
{
    return r->q[0].bytes + r->q[1].bytes + r->q[2].bytes;
}

static inline size_t ref_entries(const struct ref *r)
{
    return r->q[0].n + r->q[1].n + r->q[2].n;
}

static inline ptrdiff_t ref_find(const struct ref_queue *q, uint32_t id)
{
    for (size_t i = 0; i < q->n; i++)
        if (q->id[i] == id)
            return (ptrdiff_t)i;
    return -1;
}

static inline void ref_push(struct ref *r, int q, uint32_t id)
{
    memmove(r->q[q].id + 1, r->q[q].id, r->q[q].n * sizeof id);
    r->q[q].id[0] = id;
    r->q[q].n++;
    r->q[q].bytes += r->weight[id];
}

static inline uint32_t ref_cut(struct ref *r, int q, size_t i)
{
    uint32_t id = r->q[q].id[i];
    memmove(r->q[q].id + i, r->q[q].id + i + 1, (r->q[q].n - i - 1) * sizeof id);
    r->q[q].n--;
    r->q[q].bytes -= r->weight[id];
    return id;
}

/* The queue that holds it, and where; -1: none. */
static inline int ref_where(const struct ref *r, uint32_t id, size_t *ret_at)
{
    for (int q = 0; q < 3; q++) {
        ptrdiff_t i = ref_find(&r->q[q], id);
        if (i < 0)
            continue;
        *ret_at = (size_t)i;
        return q;
    }
    return -1;
}

static inline bool ref_fits(const struct ref *r, size_t bytes, size_t entries)
{
    return ref_bytes(r) + bytes <= r->bytes_max && ref_entries(r) + entries <= r->entries_max;
}

static inline void ref_victim(struct ref *r, uint32_t id)
{
    r->victims[r->victims_n++] = id;
}

/* ---- SIEVE ---- */

static inline void ref_sieve_evict(struct ref *r)
{
    ptrdiff_t i = r->hand == UINT32_MAX ? -1 : ref_find(&r->q[0], r->hand);
    if (i < 0)
        i = (ptrdiff_t)r->q[0].n - 1;
    while (r->heat[r->q[0].id[i]]) {
        r->heat[r->q[0].id[i]] = 0;
        i = i > 0 ? i - 1 : (ptrdiff_t)r->q[0].n - 1;
    }
    r->hand = i > 0 ? r->q[0].id[i - 1] : UINT32_MAX;
    ref_victim(r, ref_cut(r, 0, (size_t)i));
}

/* ---- S3-FIFO ---- */

static inline bool ref_ghost_take(struct ref *r, uint32_t id)
{
    size_t first = r->ghosts_n > r->ghosts_kept ? r->ghosts_n - r->ghosts_kept : 0;
    for (size_t i = first; i < r->ghosts_n; i++) {
        if (r->ghosts[i] != id)
            continue;
        r->ghosts[i] = UINT32_MAX;
        return true;
    }
    return false;
}

static inline void ref_ghost_push(struct ref *r, uint32_t id, size_t keep)
{
    if (r->ghosts_n == r->ghosts_cap) {
        r->ghosts_cap = r->ghosts_cap * 2 + 1024;
        r->ghosts = realloc(r->ghosts, r->ghosts_cap * sizeof *r->ghosts);
        if (r->ghosts == NULL)
            abort();
    }
    r->ghosts[r->ghosts_n++] = id;
    /* What was forgotten once does not come back when more may be remembered again. */
    r->ghosts_kept = keep < r->ghosts_kept + 1 ? keep : r->ghosts_kept + 1;
}

static inline void ref_s3_evict(struct ref *r)
{
    size_t tenth_bytes = r->bytes_max == SIZE_MAX ? SIZE_MAX : (size_t)((double)r->bytes_max * 0.1);
    size_t tenth = r->entries_max == SIZE_MAX ? SIZE_MAX : (size_t)((double)r->entries_max * 0.1);
    bool small = r->q[0].bytes >= (tenth_bytes ? tenth_bytes : 1) ||
                 r->q[0].n >= (tenth ? tenth : 1) || r->q[1].n == 0;
    while (small && r->q[0].n > 0) {
        uint32_t id = ref_cut(r, 0, r->q[0].n - 1);
        if (r->heat[id] <= 1) {
            size_t there = ref_entries(r);
            ref_ghost_push(r, id, there > 8 ? there : 8);
            ref_victim(r, id);
            return;
        }
        r->heat[id] = 0;
        ref_push(r, 1, id);
    }
    for (;;) {
        uint32_t id = ref_cut(r, 1, r->q[1].n - 1);
        if (r->heat[id] == 0) {
            ref_victim(r, id);
            return;
        }
        r->heat[id]--;
        ref_push(r, 1, id);
    }
}

/* ---- the documents' score ---- */

/* 0.4 recency + 0.4 frequency + 0.2 (1 + ln count), where recency and frequency are always 1.
 * Counts are kept for ever, or (SHORT) as long as the entry. The lowest goes; of equals the
 * oldest. */
static inline void ref_smart_evict(struct ref *r)
{
    size_t worst = r->q[0].n - 1;
    double least = INFINITY;
    for (size_t i = r->q[0].n; i-- > 0;) {
        double score = 0.4 + 0.4 + 0.2 * (1 + log((double)r->count[r->q[0].id[i]]));
        if (score < least) {
            least = score;
            worst = i;
        }
    }
    ref_victim(r, ref_cut(r, 0, worst));
}

/* ---- W-TinyLFU ---- */

static inline void ref_halve(struct ref *r)
{
    for (size_t i = 0; i < r->n; i++)
        r->count[i] /= 2;
    r->seen /= 2;
}

static inline size_t ref_refused_max(const struct ref *r)
{
    size_t part = ref_entries(r) / 8;
    return part > 16 ? part : 16;
}

static inline void ref_adaptive_climb(struct ref *r)
{
    double missed = (double)r->misses / (double)r->requests, was = r->window;
    double there = (double)r->regrets / (double)ref_refused_max(r);
    double here = (double)r->gains / (double)(r->q[1].n + 1);
    if (r->hold > 0)
        r->hold--;
    else if (there + here > 0)
        r->window = fmin(0.99, fmax(0.001, r->window + 0.4 * (there - here) / (there + here)));
    if (was <= 0.05 && r->window > 0.05)
        r->base = 1 - missed;
    if (r->window <= 0.05 || 1 - missed >= r->base - 0.05)
        r->low = 0;
    else
        r->low += 1 - missed <= r->last;
    r->last = 1 - missed;
    if (r->window > 0.05 && 1 - missed > r->base + 0.05)
        r->pause = 4;
    if (r->low == 4) {
        r->window = 0.001;
        r->low = 0;
        r->hold = r->pause;
        r->pause = r->pause < 64 ? 2 * r->pause : 64;
    }
    if (missed > r->usual + 0.05 && r->regrets > r->requests / 32)
        ref_halve(r);
    r->usual += (missed - r->usual) / 16;
    r->requests = r->misses = r->regrets = r->gains = 0;
}

/* Counts a use; at the end of each sample all counts are halved. */
static inline void ref_adaptive_count(struct ref *r, uint32_t id)
{
    size_t entries = ref_entries(r);
    r->most = entries > r->most ? entries : r->most;
    r->count[id]++;
    if (++r->seen >= 256 * r->most)
        ref_halve(r);
    if (++r->requests >= r->most && r->requests >= 256)
        ref_adaptive_climb(r);
}

static inline bool ref_over(const struct ref *r, int q, double share)
{
    size_t bytes = r->bytes_max == SIZE_MAX ? SIZE_MAX : (size_t)((double)r->bytes_max * share);
    size_t n = r->entries_max == SIZE_MAX ? SIZE_MAX : (size_t)((double)r->entries_max * share);
    return r->q[q].bytes > (bytes ? bytes : 1) || r->q[q].n > (n ? n : 1);
}

static inline void ref_refuse(struct ref *r, size_t at)
{
    uint32_t id = ref_cut(r, 1, at);
    ref_victim(r, id);
    ref_ghost_push(r, id, ref_refused_max(r));
}

/* Of the two oldest on probation, the newcomer aside, the one used more often goes to the front. */
static inline void ref_turn(struct ref *r, uint32_t newcomer)
{
    const uint32_t *id = r->q[1].id;
    size_t n = r->q[1].n;
    if (n > 2 && id[n - 1] != newcomer && id[n - 2] != newcomer)
        ref_push(r, 1, ref_cut(r, 1, r->count[id[n - 2]] < r->count[id[n - 1]] ? n - 1 : n - 2));
}

/* The window's oldest goes to the main part, which is full, and fights for its place there. */
static inline void ref_adaptive_contest(struct ref *r, uint32_t newcomer)
{
    size_t at;
    while (!ref_fits(r, 0, 0) && ref_where(r, newcomer, &at) >= 0) {
        ref_turn(r, newcomer);
        ref_where(r, newcomer, &at);
        int q = r->q[1].n > 1 ? 1 : 2;
        if (r->q[q].n == 0) {
            ref_victim(r, ref_cut(r, 1, at));
            continue;
        }
        size_t last = r->q[q].n - 1;
        last -= q == 1 && at == last;
        r->random = r->random * UINT64_C(6364136223846793005) + 1442695040888963407;
        bool lucky = r->count[newcomer] >= 6 && (r->random >> 33 & 1023) == 0;
        if (lucky || r->count[newcomer] > r->count[r->q[q].id[last]])
            ref_victim(r, ref_cut(r, q, last));
        else
            ref_refuse(r, at);
    }
}

static inline void ref_adaptive_insert(struct ref *r, uint32_t id)
{
    r->misses++;
    r->regrets += ref_ghost_take(r, id);
    ref_adaptive_count(r, id);
    ref_push(r, 0, id);
    while (ref_over(r, 0, r->window)) {
        uint32_t newcomer = ref_cut(r, 0, r->q[0].n - 1);
        ref_push(r, 1, newcomer);
        ref_adaptive_contest(r, newcomer);
    }
    while (!ref_fits(r, 0, 0)) {
        int q = r->q[1].n > 0 ? 1 : r->q[2].n > 0 ? 2 : 0;
        ref_victim(r, ref_cut(r, q, r->q[q].n - 1));
    }
}

static inline void ref_adaptive_hit(struct ref *r, uint32_t id, int q, size_t at)
{
    r->gains += q == 1;
    ref_adaptive_count(r, id);
    ref_cut(r, q, at);
    ref_push(r, q == 0 ? 0 : 2, id);
    while (r->q[2].n > 1 && ref_over(r, 2, (1 - r->window) * 0.8))
        ref_push(r, 1, ref_cut(r, 2, r->q[2].n - 1));
}

/* ---- one request ---- */

static inline void ref_insert(struct ref *r, uint32_t id)
{
    bool known = r->kind == REF_S3FIFO && ref_ghost_take(r, id);
    r->heat[id] = 0;
    if (r->kind == REF_ADAPTIVE) {
        ref_adaptive_insert(r, id);
        return;
    }
    while (!ref_fits(r, r->weight[id], 1)) {
        if (r->kind == REF_LRU)
            ref_victim(r, ref_cut(r, 0, r->q[0].n - 1));
        else if (r->kind == REF_SIEVE)
            ref_sieve_evict(r);
        else if (r->kind == REF_S3FIFO)
            ref_s3_evict(r);
        else
            ref_smart_evict(r);
    }
    ref_push(r, known ? 1 : 0, id);
}

/* Whether it was a hit; what left for it is in victims. Too large ones are not kept. */
static inline bool ref_request(struct ref *r, uint32_t id)
{
    size_t at = 0;
    int q = ref_where(r, id, &at);
    r->victims_n = 0;
    if (r->kind == REF_SMART_SHORT && q < 0)
        r->count[id] = 0;
    if (r->kind >= REF_SMART)
        r->count[id]++;
    if (q < 0) {
        if (r->weight[id] <= r->bytes_max)
            ref_insert(r, id);
        return false;
    }
    if (r->kind == REF_LRU)
        ref_push(r, 0, ref_cut(r, 0, at));
    else if (r->kind == REF_SIEVE)
        r->heat[id] = 1;
    else if (r->kind == REF_S3FIFO)
        r->heat[id] += r->heat[id] < 3;
    else if (r->kind == REF_ADAPTIVE)
        ref_adaptive_hit(r, id, q, at);
    return true;
}

#endif
