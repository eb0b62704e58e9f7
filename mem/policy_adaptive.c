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
 *     probation -> gone              its weakest, or the newcomer from the window if that one was
 *                                    not used more often [contest]
 *
 * (1) Each use of a key, hit or insert, is counted: by the node itself, and while the key is not in
 *     by the sketch, to which the node leaves its count.
 * (2) The border climbs along the slope of hits over size, which is measured on both sides of it.
 *     What the window would keep if it were larger shows in misses of newcomers refused a short
 *     time ago: regrets. What the main part would lose shows in hits of probation: gains. Each
 *     divided by the places that it was seen on. A comparison of hit ratios before and after a
 *     step, as in the paper, needs long samples until it sees more than noise.
 * (3) Samples are long, so that counts are exact where things stay as they are. More misses than
 *     usual with many regrets among them mean that other keys are popular now: half is forgotten at
 *     once. A scan brings misses, but no regrets.
 * (4) The oldest on probation is the least used of those that were the oldest or next to it since
 *     the last one left: of these two, the one that was used more often goes back to the front.
 *     Without that, one who wins his contests keeps all behind him safe, however weak they are.
 * (5) The refused are remembered by hash, an eighth as many as there are entries.
 * (6) A window that grows does so as new ones enter and the main part's oldest leave; one that
 *     shrinks gives at most MOVES at each insert. No operation pays for all of it.
 *
 * Threads: whoever holds the shard's lock.
 */
#include "mem/policy.h"

enum { WINDOW = RV_QUEUE_A, PROBATION = RV_QUEUE_B, PROTECTED = RV_QUEUE_C, MOVES = 32 };

#define PROTECTED_SHARE 0.8     /* of the main part */
#define STEP 0.4                /* at most, in a period: that is as many requests as entries */
#define WINDOW_MIN 0.001        /* but one entry */
#define WINDOW_SMALL 0.05       /* one larger than this has grown */
#define WINDOW_MAX 0.99
#define WORSE 0.05              /* a ratio so much lower than before the growth is worse */
#define MORE 0.05               /* misses than usual: something has changed */

enum { REFUSED_PART = 8, REFUSED_MIN = 16, LOW_MAX = 4, PAUSE_MIN = 4, PAUSE_MAX = 64 };
enum { PERIOD_MIN = 256, SMOOTH = 16, REGRETS_PART = 32 };

/* Who is used so often may win by chance, once in so many contests: against attacks. */
enum { TIE_USES = 6, TIE_ONE_IN = 1024 };

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
    return list->weight > rv_policy_share(p->bytes_max, share) ||
           list->count > rv_policy_share(p->entries_max, share);
}

static unsigned uses_of(const struct rv_policy *p, const struct rv_node *node)
{
    return rv_sketch_aged(&p->sketch, node->uses, node->age);
}

static void set_uses(struct rv_policy *p, struct rv_node *node, unsigned uses)
{
    node->uses = (uint16_t)(uses < UINT16_MAX ? uses : UINT16_MAX);
    node->age = p->sketch.age;
}

static void adaptive_leave(struct rv_policy *p, struct rv_node *node, struct rv_node *heir)
{
    if (heir != NULL)
        set_uses(p, heir, uses_of(p, node));
    else
        rv_sketch_raise(&p->sketch, node->hash, uses_of(p, node));
}

/* The oldest of the main part, which is not this one; NULL: there is none. */
static struct rv_node *main_victim(struct rv_policy *p, const struct rv_node *not_this)
{
    struct rv_node *node = rv_list_oldest(&p->b);
    if (node != NULL && node == not_this)
        node = node->prev == &p->b.head ? NULL : node->prev;
    return node != NULL ? node : rv_list_oldest(&p->c);
}

/* The same, after one step of (4). */
static struct rv_node *weakest(struct rv_policy *p, const struct rv_node *newcomer)
{
    struct rv_node *oldest = main_victim(p, newcomer);
    if (oldest == NULL || oldest->queue != PROBATION)
        return oldest;
    struct rv_node *next = oldest->prev;
    if (next == newcomer || next == &p->b.head)
        return oldest;
    bool weaker = uses_of(p, next) < uses_of(p, oldest);
    rv_policy_move(p, weaker ? oldest : next, PROBATION);
    return weaker ? next : oldest;
}

/* One of the two leaves. Who is not used more often than the one already there does not stay: of
 * things used equally often it is no gain to exchange one for another. */
static struct rv_node *contest(struct rv_policy *p, struct rv_node *newcomer)
{
    struct rv_node *victim = weakest(p, newcomer);
    if (victim == NULL)
        return newcomer;
    unsigned its = uses_of(p, newcomer), theirs = uses_of(p, victim);
    bool stays = its > theirs || (its >= TIE_USES && draw(p) % TIE_ONE_IN == 0);
    return stays ? victim : newcomer;
}

static void drop(struct rv_policy *p, struct rv_node *node)
{
    adaptive_leave(p, node, NULL);
    rv_policy_take(p, node);
}

/* Outside of inserts: the main part's oldest, or the window's. */
static struct rv_node *adaptive_evict(struct rv_policy *p)
{
    struct rv_node *node = main_victim(p, NULL);
    if (node == NULL)
        node = rv_list_oldest(&p->a);
    RV_ASSERT(node != NULL);
    drop(p, node);
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
    drop(p, loser);
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
 * another hill, as in a loop somewhat longer than the cache. For a while it does not grow again.
 * After other keys became popular it is worse for a while too, but getting better. */
static void think_again(struct rv_climb *c, double ratio)
{
    bool getting_better = ratio > c->last;
    c->last = ratio;
    if (c->window <= WINDOW_SMALL || ratio >= c->base - WORSE)
        c->low = 0;
    else if (!getting_better)
        c->low++;
    if (c->window > WINDOW_SMALL && ratio > c->base + WORSE)
        c->pause = PAUSE_MIN;
    if (c->low < LOW_MAX)
        return;
    c->window = WINDOW_MIN;
    c->low = 0;
    c->hold = c->pause;
    c->pause = c->pause < PAUSE_MAX ? 2 * c->pause : PAUSE_MAX;
}

/* Whether other keys are popular now: (3). */
static bool changed(struct rv_climb *c)
{
    double misses = (double)c->misses / (double)c->requests;
    bool more = misses > c->usual + MORE && c->regrets > c->requests / REGRETS_PART;
    c->usual += (misses - c->usual) / SMOOTH;
    return more;
}

/* At the end of a period: the border moves towards where a place is worth more. */
static void climb(struct rv_policy *p)
{
    struct rv_climb *c = &p->climb;
    double ratio = 1 - (double)c->misses / (double)c->requests, was = c->window;
    double there = (double)c->regrets / (double)refused_max(p);
    double here = (double)c->gains / (double)(p->b.count + 1);
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
    if (changed(c))
        rv_sketch_halve(&p->sketch);
    c->requests = c->misses = c->regrets = c->gains = 0;
}

/* A use of a node that had so many. */
static void count(struct rv_policy *p, struct rv_node *node, unsigned uses)
{
    set_uses(p, node, uses + 1);
    rv_sketch_use(&p->sketch);
    p->climb.requests++;
    if (p->climb.requests >= p->sketch.entries && p->climb.requests >= PERIOD_MIN)
        climb(p);
}

static void adaptive_hit(struct rv_policy *p, struct rv_node *node)
{
    p->climb.gains += node->queue == PROBATION;
    count(p, node, uses_of(p, node));
    rv_policy_move(p, node, node->queue == WINDOW ? WINDOW : PROTECTED);
    double share = (1 - p->climb.window) * PROTECTED_SHARE;
    for (unsigned i = 0; i < MOVES && p->c.count > 1 && list_over(p, &p->c, share); i++)
        rv_policy_move(p, rv_list_oldest(&p->c), PROBATION);
}

static void adaptive_insert(struct rv_policy *p, struct rv_node *node, struct rv_node **victims)
{
    p->climb.misses++;
    p->climb.regrets += rv_ghost_take(&p->ghost, node->hash);
    count(p, node, rv_sketch_estimate(&p->sketch, node->hash));
    rv_policy_enter(p, node, WINDOW);
    settle(p, victims);
    rv_sketch_grow(&p->sketch, p->entries);
}

const struct rv_policy_ops rv_policy_adaptive = {
    .insert = adaptive_insert,
    .evict = adaptive_evict,
    .hit = adaptive_hit,
    .leave = adaptive_leave,
};
