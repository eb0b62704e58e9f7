/* SPDX-License-Identifier: MIT */
/*
 * cache_peers.c -- two to compare the policies with: `smart`, a score, and `belady`, the optimum.
 *
 * Both keep what is in the cache in a heap, the next to go on top.
 *
 * smart: the score of an entry is 0.4 recency + 0.4 frequency + 0.2 (1 + ln count), as proposed for
 * "smart" caches. Where recency and frequency are taken when the entry is used, both always are 1:
 * what is left is the count, kept for every key for ever. The lowest score goes; of equals the one
 * that has been in for longest.
 *
 * belady: whose next use is farthest away goes, the newcomer among them (Belady 1966). It has to
 * know the future, and no policy can do better where all entries weigh the same.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/bench/bench_cache.h"

/* Ids by rank, the lowest first. */
struct heap {
    uint32_t *id;
    size_t *place;      /* by id: where it is, plus one; 0: it is not in */
    uint64_t *rank;     /* by id */
    size_t n;
};

static void put_at(struct heap *h, size_t i, uint32_t id)
{
    h->id[i] = id;
    h->place[id] = i + 1;
}

static void sink(struct heap *h, size_t i)
{
    uint32_t id = h->id[i];
    for (size_t child; (child = 2 * i + 1) < h->n; i = child) {
        if (child + 1 < h->n && h->rank[h->id[child + 1]] < h->rank[h->id[child]])
            child++;
        if (h->rank[h->id[child]] >= h->rank[id])
            break;
        put_at(h, i, h->id[child]);
    }
    put_at(h, i, id);
}

static void rise(struct heap *h, size_t i)
{
    uint32_t id = h->id[i];
    for (; i > 0 && h->rank[h->id[(i - 1) / 2]] > h->rank[id]; i = (i - 1) / 2)
        put_at(h, i, h->id[(i - 1) / 2]);
    put_at(h, i, id);
}

static void heap_push(struct heap *h, uint32_t id)
{
    h->id[h->n++] = id;
    rise(h, h->n - 1);
}

static void heap_pop(struct heap *h)
{
    h->place[h->id[0]] = 0;
    h->n--;
    if (h->n == 0)
        return;
    h->id[0] = h->id[h->n];
    sink(h, 0);
}

/* Its rank is another now. */
static void heap_fix(struct heap *h, uint32_t id)
{
    sink(h, h->place[id] - 1);
    rise(h, h->place[id] - 1);
}

static size_t smart_hits(const struct cache_trace *t, struct heap *h, size_t entries)
{
    uint64_t *count = cache_array(t->n, sizeof *count);
    size_t hits = 0;
    for (size_t i = 0; i < t->len; i++) {
        uint32_t id = t->id[i];
        uint64_t entered = (uint32_t)h->rank[id];
        count[id]++;
        if (h->place[id] != 0) {
            hits++;
            h->rank[id] = count[id] << 32 | entered;
            heap_fix(h, id);
            continue;
        }
        if (h->n == entries)
            heap_pop(h);
        h->rank[id] = count[id] << 32 | i;
        heap_push(h, id);
    }
    free(count);
    return hits;
}

static size_t belady_hits(const struct cache_trace *t, struct heap *h, size_t entries)
{
    uint64_t *next = cache_array(t->len, sizeof *next), *use = cache_array(t->n, sizeof *use);
    size_t hits = 0;
    memset(use, 0xff, t->n * sizeof *use);      /* never */
    for (size_t i = t->len; i-- > 0; use[t->id[i]] = i)
        next[i] = use[t->id[i]];
    for (size_t i = 0; i < t->len; i++) {
        uint32_t id = t->id[i];
        h->rank[id] = ~next[i];
        if (h->place[id] != 0) {
            hits++;
            heap_fix(h, id);
            continue;
        }
        heap_push(h, id);
        if (h->n > entries)
            heap_pop(h);
    }
    free(next);
    free(use);
    return hits;
}

double cache_peer_ratio(enum cache_who who, const struct cache_trace *t, size_t entries)
{
    struct heap h = { .id = cache_array(entries + 1, sizeof *h.id),
                      .place = cache_array(t->n, sizeof *h.place),
                      .rank = cache_array(t->n, sizeof *h.rank) };
    size_t hits = who == CACHE_SMART ? smart_hits(t, &h, entries) : belady_hits(t, &h, entries);
    free(h.id);
    free(h.place);
    free(h.rank);
    return 100.0 * (double)hits / (double)t->len;
}
