/* SPDX-License-Identifier: MIT */
/*
 * policy_sieve.c -- SIEVE: a queue in order of entry, and a hand that walks from old to new.
 *
 * After Zhang, Yang, Yue, Vigfusson and Rashmi, "SIEVE is simpler than LRU" (2024). Whom the hand
 * finds used it spares, and forgets that; the first unused goes, and the hand stays there. Nothing
 * moves: new ones enter behind it at the front, and those that were spared stay where they are.
 *
 * (1) hand is a node of the queue or NULL, which means the oldest.
 *
 * Threads: whoever holds the shard's lock; the heat of nodes - any.
 */
#include "mem/policy.h"

/* The hand leaves a node for the next newer one. */
static void step_over(struct rv_policy *p, const struct rv_node *node)
{
    p->hand = node->prev == &p->a.head ? NULL : node->prev;
}

static struct rv_node *sieve_evict(struct rv_policy *p)
{
    struct rv_node *node = p->hand != NULL ? p->hand : rv_list_oldest(&p->a);
    RV_ASSERT(node != NULL);
    while (rv_load_relaxed(&node->heat) != 0) {
        rv_store_relaxed(&node->heat, (uint8_t)0);
        step_over(p, node);
        node = p->hand != NULL ? p->hand : rv_list_oldest(&p->a);
    }
    step_over(p, node);
    rv_policy_take(p, node);
    return node;
}

static void sieve_insert(struct rv_policy *p, struct rv_node *node, struct rv_node **victims)
{
    rv_policy_make_room(p, node->weight, 1, victims);
    rv_policy_enter(p, node, RV_QUEUE_A);
}

static void sieve_leave(struct rv_policy *p, struct rv_node *node, struct rv_node *heir)
{
    if (p->hand != node)
        return;
    if (heir != NULL)
        p->hand = heir;
    else
        step_over(p, node);
}

const struct rv_policy_ops rv_policy_sieve = {
    .insert = sieve_insert,
    .evict = sieve_evict,
    .leave = sieve_leave,
};
