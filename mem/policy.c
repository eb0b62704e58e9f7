/* SPDX-License-Identifier: MIT */
/*
 * policy.c -- what all policies share: their lists, their capacity, the ring of hits.
 *
 *     hits   | node | node | - | node | ...      the next hit goes to tail, modulo the size
 *
 * (1) bytes <= bytes_max and entries <= entries_max after every operation.
 * (2) A node is in one queue, the one it names, or in none.
 * (3) Readers write into the ring with plain relaxed stores: of two that do so at once one hit may
 *     be lost, nothing else. What a drain takes out is looked at only if its node is in a queue:
 *     a node that was removed may still be noted, but its memory is there (policy.h, rule 2).
 *
 *     none -> a queue     [rv_policy_insert, rv_policy_replace]
 *     queue -> queue      [the policy's hit, its evict]
 *     a queue -> none     [rv_policy_remove, rv_policy_evict, rv_policy_replace]
 *
 * Threads: touch - any; all others - whoever holds the shard's lock.
 */
#include "mem/policy.h"

#include <errno.h>
#include <string.h>

static const struct rv_policy_ops *const all_ops[] = { &rv_policy_s3fifo, &rv_policy_lru,
                                                       &rv_policy_sieve, &rv_policy_adaptive };

static inline const struct rv_policy_ops *ops_of(const struct rv_policy *p)
{
    return all_ops[p->kind];
}

static inline bool has_ring(const struct rv_policy *p)
{
    return p->kind == RV_POLICY_LRU || p->kind == RV_POLICY_ADAPTIVE;
}

void rv_list_init(struct rv_list *list)
{
    *list = (struct rv_list){0};
    list->head.next = list->head.prev = &list->head;
}

static int init_own(struct rv_policy *p, size_t entries, uint32_t seed)
{
    if (p->kind == RV_POLICY_S3FIFO)
        return rv_ghost_init(&p->ghost, entries);
    if (p->kind != RV_POLICY_ADAPTIVE)
        return 0;
    p->climb = (struct rv_climb){ .pause = 4, .usual = 1, .random = seed | 1 };
    return rv_sketch_init(&p->sketch, entries);
}

int rv_policy_init(struct rv_policy *p, enum rv_policy_kind kind, size_t bytes_max,
                   size_t entries_max, size_t entries, uint32_t seed)
{
    if ((bytes_max == 0 && entries_max == 0) || kind < RV_POLICY_S3FIFO ||
        kind > RV_POLICY_ADAPTIVE)
        return -EINVAL;
    memset(p, 0, sizeof *p);
    p->kind = kind;
    p->bytes_max = bytes_max > 0 ? bytes_max : SIZE_MAX;
    p->entries_max = entries_max > 0 ? entries_max : SIZE_MAX;
    rv_list_init(&p->a);
    rv_list_init(&p->b);
    rv_list_init(&p->c);
    return init_own(p, entries > 0 ? entries : 64, seed);
}

void rv_policy_finish(struct rv_policy *p)
{
    rv_ghost_finish(&p->ghost);
    rv_sketch_finish(&p->sketch);
}

/* Takes the ring's nodes out, in order; how many. */
static unsigned take_hits(struct rv_policy *p, struct rv_node *ret_nodes[RV_HITS])
{
    uint32_t oldest = rv_load_relaxed(&p->tail);
    unsigned n = 0;
    for (uint32_t i = 0; i < RV_HITS; i++) {
        RV_ATOMIC(struct rv_node *) *at = &p->hits[(oldest + i) % RV_HITS];
        struct rv_node *node = rv_load_relaxed(at);
        if (node == NULL)
            continue;
        rv_store_relaxed(at, (struct rv_node *)NULL);
        __builtin_prefetch(node);
        ret_nodes[n++] = node;
    }
    return n;
}

/* The nodes and their neighbours are in no cache, as a rule: all are fetched before one is used. */
void rv_policy_drain(struct rv_policy *p)
{
    struct rv_node *nodes[RV_HITS];
    if (!has_ring(p))
        return;
    unsigned n = take_hits(p, nodes);
    for (unsigned i = 0; i < n; i++) {
        __builtin_prefetch(nodes[i]->prev, 1);
        __builtin_prefetch(nodes[i]->next, 1);
    }
    for (unsigned i = 0; i < n; i++)
        if (nodes[i]->queue != RV_QUEUE_NONE)
            ops_of(p)->hit(p, nodes[i]);
}

static void is_within(const struct rv_policy *p)
{
    RV_ASSERT(p->bytes <= p->bytes_max);
    RV_ASSERT(p->entries <= p->entries_max);
    RV_ASSERT(p->entries == p->a.count + p->b.count + p->c.count);
    RV_ASSERT(p->bytes == p->a.weight + p->b.weight + p->c.weight);
}

void rv_policy_make_room(struct rv_policy *p, size_t bytes, size_t entries,
                         struct rv_node **victims)
{
    RV_ASSERT(bytes <= p->bytes_max && entries <= p->entries_max);
    while (rv_policy_over(p, bytes, entries))
        rv_victim_push(victims, ops_of(p)->evict(p));
}

void rv_policy_insert(struct rv_policy *p, struct rv_node *node, struct rv_node **victims)
{
    RV_MUST(rv_policy_fits(p, node->weight));
    rv_policy_drain(p);
    node->queue = RV_QUEUE_NONE;
    rv_store_relaxed(&node->heat, (uint8_t)0);
    ops_of(p)->insert(p, node, victims);
    is_within(p);
}

/* It stands where the old one stood, before anything is evicted for what it weighs more: that may
 * be this very node. */
void rv_policy_replace(struct rv_policy *p, struct rv_node *old, struct rv_node *node,
                       struct rv_node **victims)
{
    RV_MUST(rv_policy_fits(p, node->weight));
    rv_policy_drain(p);
    uint8_t queue = old->queue;
    struct rv_list *list = rv_policy_list(p, queue);
    if (ops_of(p)->leave != NULL)
        ops_of(p)->leave(p, old, node);
    node->queue = queue;
    rv_store_relaxed(&node->heat, rv_load_relaxed(&old->heat));
    node->prev = old->prev;
    node->next = old->next;
    node->prev->next = node->next->prev = node;
    old->queue = RV_QUEUE_NONE;
    list->weight += node->weight - old->weight;
    p->bytes += node->weight - old->weight;
    rv_policy_touch(p, node);
    rv_policy_drain(p);
    while (rv_policy_over(p, 0, 0))
        rv_victim_push(victims, ops_of(p)->evict(p));
    is_within(p);
}

void rv_policy_remove(struct rv_policy *p, struct rv_node *node)
{
    if (ops_of(p)->leave != NULL)
        ops_of(p)->leave(p, node, NULL);
    rv_policy_take(p, node);
    is_within(p);
}

struct rv_node *rv_policy_evict(struct rv_policy *p)
{
    rv_policy_drain(p);
    struct rv_node *node = p->entries > 0 ? ops_of(p)->evict(p) : NULL;
    is_within(p);
    return node;
}

static void check_list(const struct rv_list *list, uint8_t queue)
{
    size_t count = 0, weight = 0;
    for (const struct rv_node *n = list->head.next; n != &list->head; n = n->next) {
        RV_MUST(n->queue == queue);
        RV_MUST(n->next->prev == n && n->prev->next == n);
        count++;
        weight += n->weight;
    }
    RV_MUST(count == list->count);
    RV_MUST(weight == list->weight);
}

void rv_policy_check(const struct rv_policy *p)
{
    check_list(&p->a, RV_QUEUE_A);
    check_list(&p->b, RV_QUEUE_B);
    check_list(&p->c, RV_QUEUE_C);
    RV_MUST(p->entries == p->a.count + p->b.count + p->c.count);
    RV_MUST(p->bytes == p->a.weight + p->b.weight + p->c.weight);
    RV_MUST(p->entries <= p->entries_max);
    RV_MUST(p->bytes <= p->bytes_max);
}
