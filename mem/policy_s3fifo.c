/* SPDX-License-Identifier: MIT */
/*
 * policy_s3fifo.c -- S3-FIFO: a small queue in which most die young, a main one, and ghosts.
 *
 * After Yang, Zhang, Qiu, Yue and Rashmi, "FIFO queues are all you need for cache eviction" (2023).
 *
 *     new -> small          [s3_insert]      small -> main   hit twice or more      [from_small]
 *     remembered -> main    [s3_insert]      small -> gone, remembered as a ghost   [from_small]
 *                                            main -> main, one hit less             [from_main]
 *                                            main -> gone   no hit left             [from_main]
 *
 * (1) The small queue gives while it has a tenth of the capacity or more, or the main one is empty.
 * (2) As many ghosts are remembered as entries are in the cache when one is added, at least 8.
 *
 * Threads: whoever holds the shard's lock; the heat of nodes - any.
 */
#include "mem/policy.h"

#define SMALL 0.1
enum { SMALL_Q = RV_QUEUE_A, MAIN_Q = RV_QUEUE_B, GHOSTS_MIN = 8 };

/* One that leaves from the small queue, or NULL: all that were there are in the main one now. */
static struct rv_node *from_small(struct rv_policy *p)
{
    struct rv_node *node;
    while ((node = rv_list_oldest(&p->a)) != NULL) {
        if (rv_load_relaxed(&node->heat) <= 1) {
            rv_policy_take(p, node);
            rv_ghost_push(&p->ghost, node->hash,
                          p->entries > GHOSTS_MIN ? p->entries : GHOSTS_MIN);
            return node;
        }
        rv_store_relaxed(&node->heat, (uint8_t)0);
        rv_policy_move(p, node, MAIN_Q);
    }
    return NULL;
}

static struct rv_node *from_main(struct rv_policy *p)
{
    for (;;) {
        struct rv_node *node = rv_list_oldest(&p->b);
        uint8_t heat = rv_load_relaxed(&node->heat);
        if (heat == 0) {
            rv_policy_take(p, node);
            return node;
        }
        rv_store_relaxed(&node->heat, (uint8_t)(heat - 1));
        rv_policy_move(p, node, MAIN_Q);
    }
}

static struct rv_node *s3_evict(struct rv_policy *p)
{
    RV_ASSERT(p->entries > 0);
    bool large = p->a.weight >= rv_policy_share(p->bytes_max, SMALL) ||
                 p->a.count >= rv_policy_share(p->entries_max, SMALL);
    struct rv_node *node = large || p->b.count == 0 ? from_small(p) : NULL;
    return node != NULL ? node : from_main(p);
}

static void s3_insert(struct rv_policy *p, struct rv_node *node, struct rv_node **victims)
{
    bool known = rv_ghost_take(&p->ghost, node->hash);
    rv_policy_make_room(p, node->weight, 1, victims);
    rv_policy_enter(p, node, known ? MAIN_Q : SMALL_Q);
}

const struct rv_policy_ops rv_policy_s3fifo = {
    .insert = s3_insert,
    .evict = s3_evict,
};
