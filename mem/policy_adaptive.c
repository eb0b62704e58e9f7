/* SPDX-License-Identifier: MIT */
/*
 * policy_adaptive.c -- W-TinyLFU: a window for what is new, a main part for what is popular, and a
 * border between them that goes where hits are.
 *
 * After Einziger, Friedman and Manes (TinyLFU, 2017) and Einziger, Eytan, Friedman and Manes,
 * "Adaptive software cache management" (2018).
 *
 *     new -> window -> probation <-> protected
 *
 *     new -> window                  [adaptive_insert]
 *     window -> probation            the window's oldest, when the window is too large [settle]
 *     probation -> protected         a hit      [adaptive_hit]
 *     protected -> probation         its oldest, when it has more than its share [adaptive_hit]
 *     probation -> gone              its oldest, or the newcomer from the window if that one is not
 *                                    seen more often [contest]
 *
 * (1) Each use of a key, hit or insert, is counted in the sketch.
 * (2) The border climbs along the slope of hits over size, which is measured on both sides of it.
 *     What the window would keep if it were larger shows in misses of newcomers refused a short
 *     time ago: regrets. What the main part would lose shows in hits of probation: gains. Each
 *     divided by the places that it was seen on. A comparison of hit ratios before and after a
 *     step, as in the paper, needs long samples until it sees more than noise.
 * (3) The longer things stay as they are, the longer are the samples of the sketch: frequencies get
 *     more exact. Many regrets mean that other keys are popular now: half is forgotten at once.
 * (4) The refused are remembered by hash, an eighth as many as there are entries.
 * (5) A window that grows does so as new ones enter and the main part's oldest leave; one that
 *     shrinks gives at most MOVES at each insert. No operation pays for all of it.
 *
 * Threads: whoever holds the shard's lock.
 */
#include "mem/policy.h"

enum { WINDOW = RV_QUEUE_A, PROBATION = RV_QUEUE_B, PROTECTED = RV_QUEUE_C, MOVES = 32 };

#define PROTECTED_SHARE 0.8     /* of the main part */
#define STEP 0.4                /* at most, in a period: that is as many requests as entries */
#define WINDOW_MIN 0.01
#define WINDOW_SMALL 0.05       /* one larger than this has grown */
#define WINDOW_MAX 0.99
#define MARGIN 1.25             /* so much more a place in the window must promise */
#define WORSE 0.05              /* a ratio so much lower than before the growth is worse */
#define MUCH 0.25               /* of the misses regretted, and not few: the sketch is outdated */
#define TIE_HEAT 6              /* who is seen so often may win by chance, against attacks */

enum { REFUSED_PART = 8, REFUSED_MIN = 16, LOW_MAX = 3, PAUSE_MIN = 4, PAUSE_MAX = 64 };

static uint32_t draw(struct rv_policy *p)
{
    uint32_t x = p->climb.random;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return p->climb.random = x;
}

static bool list_over(const struct rv_policy *p, const struct rv_list *list, double share)
{
    return list->weight > rv_share(p->bytes_max, share) ||
           list->count > rv_share(p->entries_max, share);
}

/* The oldest of the main part, which is not this one; NULL: there is none. */
static struct rv_node *main_victim(struct rv_policy *p, const struct rv_node *not_this)
{
    struct rv_node *node = rv_list_oldest(&p->b);
    if (node != NULL && node == not_this)
        node = node->prev == &p->b.head ? NULL : node->prev;
    return node != NULL ? node : rv_list_oldest(&p->c);
}

/* One of the two leaves. Who is not seen more often than the one already there does not stay: of
 * things used equally often it is no gain to exchange one for another. */
static struct rv_node *contest(struct rv_policy *p, struct rv_node *newcomer)
{
    struct rv_node *victim = main_victim(p, newcomer);
    if (victim == NULL)
        return newcomer;
    unsigned its = rv_sketch_estimate(&p->sketch, newcomer->hash);
    unsigned theirs = rv_sketch_estimate(&p->sketch, victim->hash);
    bool stays = its > theirs || (its >= TIE_HEAT && draw(p) % 128 == 0);
    return stays ? victim : newcomer;
}

/* Outside of inserts: the main part's oldest, or the window's. */
static struct rv_node *adaptive_evict(struct rv_policy *p)
{
    struct rv_node *node = main_victim(p, NULL);
    if (node == NULL)
        node = rv_list_oldest(&p->a);
    RV_ASSERT(node != NULL);
    rv_policy_take(p, node);
    return node;
}

/* How many refused newcomers are remembered. */
static size_t refused_max(const struct rv_policy *p)
{
    size_t part = p->entries / REFUSED_PART;
    return part > REFUSED_MIN ? part : REFUSED_MIN;
}

/* One of the two leaves. */
static void contest_for(struct rv_policy *p, struct rv_node *newcomer, struct rv_node **victims)
{
    struct rv_node *loser = contest(p, newcomer);
    rv_policy_take(p, loser);
    rv_victim_push(victims, loser);
    if (loser == newcomer)
        rv_ghost_push(&p->ghost, loser->hash, refused_max(p));
}

/* Brings window and whole back to their sizes. */
static void settle(struct rv_policy *p, struct rv_node **victims)
{
    struct rv_node *newcomer = NULL;
    for (unsigned i = 0; i < MOVES && list_over(p, &p->a, p->climb.window); i++) {
        newcomer = rv_list_oldest(&p->a);
        rv_policy_move(p, newcomer, PROBATION);
        while (newcomer->queue != RV_QUEUE_NONE && rv_policy_over(p, 0, 0))
            contest_for(p, newcomer, victims);
    }
    while (rv_policy_over(p, 0, 0))
        rv_victim_push(victims, adaptive_evict(p));
}

/* Takes a window back that grew and did not do what its growth promised: then the slope is that of
 * another hill, as in a loop somewhat longer than the cache. For a while it does not grow again. */
static void think_again(struct rv_climb *c, double ratio)
{
    c->low = c->window > WINDOW_SMALL && ratio < c->base - WORSE ? c->low + 1 : 0;
    if (c->window > WINDOW_SMALL && ratio > c->base + WORSE)
        c->pause = PAUSE_MIN;
    if (c->low < LOW_MAX)
        return;
    c->window = WINDOW_MIN;
    c->low = 0;
    c->hold = c->pause;
    c->pause = c->pause < PAUSE_MAX ? 2 * c->pause : PAUSE_MAX;
}

/* At the end of a period: the border moves towards where a place is worth more. */
static void climb(struct rv_policy *p)
{
    struct rv_climb *c = &p->climb;
    double ratio = 1 - (double)c->misses / (double)c->requests, was = c->window;
    double there = (double)c->regrets / (double)refused_max(p);
    double here = MARGIN * (double)c->gains / (double)(p->b.count + 1);
    if (c->hold > 0)
        c->hold--;
    else if (there + here > 0)
        c->window += STEP * (there - here) / (there + here);
    if (c->window < WINDOW_MIN)
        c->window = WINDOW_MIN;
    if (c->window > WINDOW_MAX)
        c->window = WINDOW_MAX;
    if (was <= WINDOW_SMALL && c->window > WINDOW_SMALL)
        c->base = ratio;
    think_again(c, ratio);
    if ((double)c->regrets > MUCH * (double)c->misses && c->regrets > c->requests / 8)
        rv_sketch_halve(&p->sketch);
    c->requests = c->misses = c->regrets = c->gains = 0;
}

static void count(struct rv_policy *p, const struct rv_node *node)
{
    rv_sketch_add(&p->sketch, node->hash);
    if (++p->climb.requests >= p->sketch.entries)
        climb(p);
}

static void adaptive_hit(struct rv_policy *p, struct rv_node *node)
{
    p->climb.gains += node->queue == PROBATION;
    count(p, node);
    rv_policy_move(p, node, node->queue == WINDOW ? WINDOW : PROTECTED);
    double share = (1 - p->climb.window) * PROTECTED_SHARE;
    for (unsigned i = 0; i < MOVES && p->c.count > 1 && list_over(p, &p->c, share); i++)
        rv_policy_move(p, rv_list_oldest(&p->c), PROBATION);
}

static void adaptive_insert(struct rv_policy *p, struct rv_node *node, struct rv_node **victims)
{
    p->climb.misses++;
    p->climb.regrets += rv_ghost_take(&p->ghost, node->hash);
    count(p, node);
    rv_policy_enter(p, node, WINDOW);
    rv_sketch_grow(&p->sketch, p->entries);
    settle(p, victims);
}

const struct rv_policy_ops rv_policy_adaptive = {
    .insert = adaptive_insert,
    .evict = adaptive_evict,
    .hit = adaptive_hit,
};
