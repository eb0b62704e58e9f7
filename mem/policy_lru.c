/* SPDX-License-Identifier: MIT */
/*
 * policy_lru.c -- least recently used: one list in the order of the last use.
 *
 * Threads: whoever holds the shard's lock.
 */
#include "mem/policy.h"

static struct rv_node *lru_evict(struct rv_policy *p)
{
    struct rv_node *node = rv_list_oldest(&p->a);
    RV_ASSERT(node != NULL);
    rv_policy_take(p, node);
    return node;
}

static void lru_insert(struct rv_policy *p, struct rv_node *node, struct rv_node **victims)
{
    rv_policy_make_room(p, node->weight, 1, victims);
    rv_policy_enter(p, node, RV_QUEUE_A);
}

static void lru_hit(struct rv_policy *p, struct rv_node *node)
{
    rv_policy_move(p, node, RV_QUEUE_A);
}

const struct rv_policy_ops rv_policy_lru = {
    .insert = lru_insert,
    .evict = lru_evict,
    .hit = lru_hit,
};
