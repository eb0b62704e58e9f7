/* SPDX-License-Identifier: MIT */
/*
 * policy.h -- which entry of a cache goes next: LRU, SIEVE, S3FIFO, ADAPTIVE.
 *
 * A policy orders nodes that live inside the entries of one shard, each with a weight, and never
 * lets their sum, or their number, exceed the capacity: who inserts gets the victims and takes them
 * out of the table.
 *
 *     rv_policy_touch(p, n)                a hit
 *     rv_policy_insert(p, n, &victims)     a new one; or _replace(p, old, n, &victims)
 *     rv_policy_remove(p, n)               gone for another reason
 *     rv_policy_evict(p)                   gives the next victim
 *
 * A hit happens while others read, without the shard's lock: SIEVE and S3FIFO note it in the node,
 * and only when that changes something. LRU and ADAPTIVE put the node into a ring of hits, in which
 * a hit may get lost among many; under the lock the ring is worked off, in order. By itself that
 * happens whenever the policy is asked for something, and touch says when it ought to.
 *
 * (1) touch: between finding the node and leaving the section (epoch.h) in which it was found.
 * (2) Before the memory of a removed node is given back, and after all such sections are over, the
 *     ring is drained: it may hold the node until then. rv_table does that.
 * (3) Whoever works alone, without sections, drains before it frees.
 *
 * How a cache uses it: through a table, see table.h. A cache of one thread's own may use it alone.
 *
 * Threads: touch - any; all others - whoever holds the shard's lock.
 */
#ifndef RV_MEM_POLICY_H
#define RV_MEM_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mem/die.h"
#include "mem/policy_ghost.h"
#include "mem/policy_sketch.h"
#include "mem/rv_atomic.h"

enum rv_policy_kind { RV_POLICY_S3FIFO, RV_POLICY_LRU, RV_POLICY_SIEVE, RV_POLICY_ADAPTIVE };

/* 0 of a removed node or one that is in no policy; the other numbers are the policy's. */
enum { RV_QUEUE_NONE, RV_QUEUE_A, RV_QUEUE_B, RV_QUEUE_C };

struct rv_node {
    RV_ATOMIC(uint8_t) heat;            /* hits noted, as far as the policy wants to know */
    uint8_t queue;
    uint8_t age;                        /* ADAPTIVE: how often was forgotten when `uses` was true */
    uint16_t uses;                      /* ADAPTIVE: in the sample, see policy_sketch.h */
    struct rv_node *prev, *next;        /* prev: towards where nodes enter; victims: by next */
    size_t weight;                      /* set before insert */
    uint64_t hash;                      /* of its key; the same */
};

/* A ring around its head: head.next entered last, head.prev first. */
struct rv_list {
    struct rv_node head;
    size_t count, weight;
};

enum { RV_HITS = 64 };

struct rv_climb {
    double window;              /* the share of the window, 0 .. 1 */
    size_t requests, misses;    /* of this period */
    size_t regrets;             /* misses of what the window had to give away a short time ago */
    size_t gains;               /* hits of what would leave the main part next */
    double base;                /* the hit ratio when the window began to grow */
    double usual;               /* the share of misses, smoothed */
    unsigned low;               /* periods in which it was worse, and not getting better, */
    double last;                /* than in the period before */
    unsigned hold, pause;       /* periods before it may grow again; and those of the next time */
    uint32_t random;
};

struct rv_policy {
    enum rv_policy_kind kind;
    size_t bytes_max, entries_max;      /* SIZE_MAX: no limit */
    size_t bytes, entries;              /* of all queues */

    struct rv_list a, b, c;             /* LRU, SIEVE: a. S3FIFO: small, main. ADAPTIVE: window, */
    struct rv_node *hand;               /* probation, protected. SIEVE's hand; NULL: at the end */
    struct rv_ghost ghost;              /* S3FIFO; ADAPTIVE: refused newcomers */
    struct rv_sketch sketch;            /* ADAPTIVE, and its window: */
    struct rv_climb climb;

    RV_ATOMIC(uint32_t) tail RV_ALIGNED_LINE;   /* where the next hit goes; readers write here */
    RV_ATOMIC(struct rv_node *) hits[RV_HITS];
};

/* 0 as a maximum: no limit, but not both. entries: how many are expected; 0: nobody knows. 0,
 * -EINVAL, -ENOMEM. seed: for the few random decisions of ADAPTIVE. */
int rv_policy_init(struct rv_policy *p, enum rv_policy_kind kind, size_t bytes_max,
                   size_t entries_max, size_t entries, uint32_t seed);
void rv_policy_finish(struct rv_policy *p);

/* Whether a node of this weight can be inserted at all. */
static inline bool rv_policy_fits(const struct rv_policy *p, size_t weight)
{
    return weight <= p->bytes_max;
}

/* The node, which fits, becomes one of the policy's. Victims are pushed in front of *victims,
 * linked by next: perhaps many, and perhaps the node itself. */
void rv_policy_insert(struct rv_policy *p, struct rv_node *node, struct rv_node **victims);

/* The node, which fits, takes the place of an old one, which leaves; it counts as a hit. */
void rv_policy_replace(struct rv_policy *p, struct rv_node *old, struct rv_node *node,
                       struct rv_node **victims);

void rv_policy_remove(struct rv_policy *p, struct rv_node *node);

/* The next to go, which leaves; NULL: there is none. */
struct rv_node *rv_policy_evict(struct rv_policy *p);

/* Works off the noted hits. */
void rv_policy_drain(struct rv_policy *p);

/* Walks all of it; debug and tests. Aborts on what is wrong. */
void rv_policy_check(const struct rv_policy *p);

/* A hit. True: the ring is full, and should be drained before the next. */
static inline bool rv_policy_touch(struct rv_policy *p, struct rv_node *node)
{
    if (p->kind == RV_POLICY_S3FIFO || p->kind == RV_POLICY_SIEVE) {
        uint8_t heat = rv_load_relaxed(&node->heat), most = p->kind == RV_POLICY_S3FIFO ? 3 : 1;
        if (heat < most)
            rv_store_relaxed(&node->heat, (uint8_t)(heat + 1)); /* two at once may count as one */
        return false;
    }
    uint32_t at = rv_load_relaxed(&p->tail);
    rv_store_relaxed(&p->hits[at % RV_HITS], node);     /* the same: one of two is lost */
    rv_store_relaxed(&p->tail, at + 1);
    return (at + 1) % RV_HITS == 0;
}

/* ---- for the policies ---- */

void rv_list_init(struct rv_list *list);

/* Its bookkeeping in the list and in the policy is the caller's to see to, where it moves. */
static inline void rv_list_push(struct rv_list *list, struct rv_node *node, uint8_t queue)
{
    RV_ASSERT(node->queue == RV_QUEUE_NONE);
    node->next = list->head.next;
    node->prev = &list->head;
    node->next->prev = node;
    list->head.next = node;
    list->count++;
    list->weight += node->weight;
    node->queue = queue;
}

static inline void rv_list_take(struct rv_list *list, struct rv_node *node)
{
    RV_ASSERT(node->queue != RV_QUEUE_NONE);
    RV_ASSERT(list->count > 0 && list->weight >= node->weight);
    node->prev->next = node->next;
    node->next->prev = node->prev;
    list->count--;
    list->weight -= node->weight;
    node->queue = RV_QUEUE_NONE;
}

/* Who entered first; NULL: nobody. */
static inline struct rv_node *rv_list_oldest(struct rv_list *list)
{
    return list->count > 0 ? list->head.prev : NULL;
}

/* A share of a maximum, at least 1. */
static inline size_t rv_policy_share(size_t max, double share)
{
    size_t part = max == SIZE_MAX ? SIZE_MAX : (size_t)((double)max * share);
    return part > 0 ? part : 1;
}

/* Whether so much more does not fit in. */
static inline bool rv_policy_over(const struct rv_policy *p, size_t bytes, size_t entries)
{
    return p->bytes > p->bytes_max - bytes || p->entries > p->entries_max - entries;
}

struct rv_policy_ops {
    void (*insert)(struct rv_policy *, struct rv_node *, struct rv_node **victims);
    struct rv_node *(*evict)(struct rv_policy *);       /* takes it off its list */
    void (*hit)(struct rv_policy *, struct rv_node *);  /* a hit that comes from the ring */
    void (*leave)(struct rv_policy *, struct rv_node *, struct rv_node *heir);  /* or NULL */
};

extern const struct rv_policy_ops rv_policy_lru, rv_policy_sieve, rv_policy_s3fifo,
    rv_policy_adaptive;

/* The list that a queue's number stands for. */
static inline struct rv_list *rv_policy_list(struct rv_policy *p, uint8_t queue)
{
    RV_ASSERT(queue != RV_QUEUE_NONE);
    return queue == RV_QUEUE_A ? &p->a : queue == RV_QUEUE_B ? &p->b : &p->c;
}

/* Enters a node, or takes one out, with the bookkeeping of list and policy. */
static inline void rv_policy_enter(struct rv_policy *p, struct rv_node *node, uint8_t queue)
{
    rv_list_push(rv_policy_list(p, queue), node, queue);
    p->bytes += node->weight;
    p->entries++;
}

static inline void rv_policy_take(struct rv_policy *p, struct rv_node *node)
{
    rv_list_take(rv_policy_list(p, node->queue), node);
    p->bytes -= node->weight;
    p->entries--;
}

/* To the front of a queue, its own or another. */
static inline void rv_policy_move(struct rv_policy *p, struct rv_node *node, uint8_t queue)
{
    rv_list_take(rv_policy_list(p, node->queue), node);
    rv_list_push(rv_policy_list(p, queue), node, queue);
}

/* Evicts until so much more fits in. */
void rv_policy_make_room(struct rv_policy *p, size_t bytes, size_t entries,
                         struct rv_node **victims);

static inline void rv_victim_push(struct rv_node **victims, struct rv_node *node)
{
    RV_ASSERT(node->queue == RV_QUEUE_NONE);
    node->next = *victims;
    *victims = node;
}

#endif
