/* SPDX-License-Identifier: MIT */
/*
 * sim_tasks.h -- the scenario of tasks: a wood in which every tree does what comes to its mind.
 *
 * Each task spawns others, into its own scope, into groups of its own or into the one it belongs
 * to; joins, cancels, sleeps, fails, is expired or cancelled, all by the seed. What it learns
 * about the others is checked against what task.h and time.h promise.
 */
#ifndef TESTS_IO_SIM_TASKS_H
#define TESTS_IO_SIM_TASKS_H

#include "tests/io/sim_seeds.h"

#include <reeve/reeve.h>

#include "mem/fault.h"
#include "sched/sched.h"

#define TREES 200
#define HANDLES 6
#define GROUPS 2
#define COPY_MOST 600

struct wood;

/* A group lives on its owner's stack; what is known about it lives here. */
struct grove {
    reeve_group *group;  /* NULL: waited for */
    int owner;           /* the tree whose groups it is one of */
    int failed;          /* members without a handle that failed since the last wait */
    int64_t cancelled;   /* when; 0: not */
};

struct tree {
    struct wood *wood;
    int id;
    int scope;           /* the tree in whose scope or group it is; -1: posted */
    int grove;           /* the group; -1: the tree's own scope */
    bool handle;
    bool started, skipped, over;
    int result;
    reeve_time deadline; /* 0: none */
    int64_t cancelled;   /* reeve_cancel was called for it; 0: not */
    size_t copy;
};

struct wood {
    struct tree tree[TREES];
    struct grove grove[TREES * GROUPS];
    int trees, groves;
    unsigned workers;
    int busy;            /* how much the trees do */
};

/* What a task gets: its tree, and bytes that it must find unchanged. */
struct seedling {
    struct tree *tree;
    unsigned char bytes[COPY_MOST];
};

static unsigned char tree_byte(const struct tree *t, size_t i)
{
    return (unsigned char)(t->id * 31 + (int)i * 7 + 1);
}

static void tree_check_copy(const struct seedling *s)
{
    size_t header = offsetof(struct seedling, bytes);
    for (size_t i = header; i < s->tree->copy; i++)
        CHECK_EQ(s->bytes[i - header], tree_byte(s->tree, i));
}

static bool tree_done(const struct tree *t)
{
    return t->skipped || t->over;
}

/* The tree is in the scope of `above`, or of something in there. */
static bool tree_below(const struct wood *w, const struct tree *t, int above)
{
    for (int id = t->scope; id >= 0; id = w->tree[id].scope)
        if (id == above)
            return true;
    return false;
}

/* No task outlives its scope. */
static void tree_check_scope_done(const struct wood *w, int above)
{
    for (int i = 0; i < w->trees; i++)
        if (tree_below(w, &w->tree[i], above))
            CHECK(tree_done(&w->tree[i]));
}

/* The earlier of two times; 0 is none. */
static int64_t first_of(int64_t a, int64_t b)
{
    return !a || (b && b < a) ? b : a;
}

/* Since when the tree is cancelled, itself or with somebody above it; 0: it is not. */
static int64_t tree_cancelled(const struct wood *w, const struct tree *t)
{
    int64_t first = 0;
    for (;; t = &w->tree[t->scope]) {
        first = first_of(first, t->cancelled);
        first = first_of(first, t->grove >= 0 ? w->grove[t->grove].cancelled : 0);
        if (t->scope < 0)
            return first;
    }
}

static int tree_grow(void *arg);

static void tree_wither(void *arg)
{
    struct seedling *s = arg;
    tree_check_copy(s);
    CHECK(!s->tree->started);
    CHECK(!s->tree->skipped);
    s->tree->skipped = true;
    rv_sim_note((uint64_t)s->tree->id, -1);
}

/* Any time from the past to two milliseconds ahead; 0: none. By the simulation's clock on threads
 * that are no workers, too: there reeve_in() would go by the real one, no run like another. */
static reeve_time some_time(void)
{
    int64_t now = rv_sched_now(rv_sim_sched());
    switch (rv_sim_draw(6)) {
    case 0: return 0;
    case 1: return REEVE_POLL;
    case 2: return now + rv_sim_draw(100);
    case 3: return now + rv_sim_draw(20000);
    default: return now + rv_sim_draw(2000000);
    }
}

/* Fills in a new tree and how to spawn it; NULL: the wood is full. `me` NULL: it is posted. */
static struct tree *tree_sow(struct wood *w, const struct tree *me, struct seedling *s,
                             struct reeve_spawn *how)
{
    if (w->trees == TREES)
        return NULL;
    struct tree *t = &w->tree[w->trees];
    *t = (struct tree){ .wood = w, .id = w->trees, .scope = me ? me->id : -1, .grove = -1 };
    reeve_time given = rv_sim_chance(200) ? some_time() : 0;
    t->deadline = given > 0 ? given : 0;
    if (me && me->deadline && (!t->deadline || me->deadline < t->deadline))
        t->deadline = me->deadline;
    static const size_t bytes[] = { 8, 47, 48, 49, 64, COPY_MOST };
    t->copy = bytes[rv_sim_draw(6)];
    s->tree = t;
    for (size_t i = sizeof s->tree; i < t->copy; i++)
        s->bytes[i - sizeof s->tree] = tree_byte(t, i);
    *how = (struct reeve_spawn){
        .fn = tree_grow, .arg = s, .copy = t->copy, .skipped = tree_wither,
        .deadline = given > 0 ? given : 0,
        .priority = rv_sim_chance(100) ? (int)rv_sim_draw(5) : 0,
        .worker = rv_sim_chance(100) ? 1 + (int)rv_sim_draw(w->workers) : 0,
        .stack_bytes = rv_sim_chance(100) ? 16384 : 0,
    };
    return t;
}

/* What a running tree has in hand. */
struct hands {
    struct wood *wood;
    struct tree *me;
    reeve_task *task[HANDLES];
    struct tree *of[HANDLES];   /* NULL: no handle there */
    bool joined[HANDLES];       /* the handle is over; cancelling it does nothing */
    reeve_group group[GROUPS];
    int grove[GROUPS];          /* -1: not begun */
};

static void do_spawn(struct hands *h)
{
    struct wood *w = h->wood;
    struct seedling s;
    struct reeve_spawn how;
    struct tree *t = tree_sow(w, h->me, &s, &how);
    if (!t)
        return;
    int own = (int)rv_sim_draw(GROUPS), slot = (int)rv_sim_draw(HANDLES);
    int where = (int)rv_sim_draw(3);
    bool mine = where == 1;
    if (mine)
        how.group = &h->group[own];
    else if (where == 2 && h->me->grove >= 0)
        how.group = w->grove[h->me->grove].group;
    t->handle = rv_sim_chance(512) && (!h->of[slot] || h->joined[slot]);
    int begun = mine && h->grove[own] < 0 ? w->groves : -1;
    if (begun >= 0)
        w->grove[begun] = (struct grove){ .group = &h->group[own], .owner = h->me->id };
    if (how.group)
        t->grove = begun >= 0 ? begun : mine ? h->grove[own] : h->me->grove;
    if (t->grove >= 0)
        t->scope = w->grove[t->grove].owner;
    w->trees++;
    int r = reeve_spawn_with(t->handle ? &h->task[slot] : NULL, &how);
    if (r < 0) {
        CHECK_EQ(r, -EAGAIN);
        CHECK(!t->started && !t->skipped);
        t->skipped = true; /* for the count at the end */
        t->scope = -1;
    }
    /* The group's record is made by the attempt, even if there was no task left. */
    if (begun >= 0 && h->group[own].opaque) {
        h->grove[own] = begun;
        w->groves++;
    }
    if (r == 0 && t->handle) {
        h->of[slot] = t;
        h->joined[slot] = false;
    }
}

static void check_joined(const struct hands *h, const struct tree *t, int result)
{
    CHECK(tree_done(t));
    tree_check_scope_done(h->wood, t->id);
    if (t->over)
        CHECK_EQ(result, t->result);
    else
        CHECK(result == -ECANCELED || result == -ETIMEDOUT || result == -ENOMEM);
}

/* False: the task is cancelled. */
static bool do_join(struct hands *h)
{
    int slot = (int)rv_sim_draw(HANDLES), result = 12345;
    if (!h->of[slot] || h->joined[slot])
        return true;
    reeve_time until = some_time();
    int r = reeve_join(h->task[slot], &result, until);
    if (r == 0) {
        h->joined[slot] = true;
        check_joined(h, h->of[slot], result);
        return true;
    }
    CHECK_EQ(result, 12345);
    if (r == -ECANCELED)
        return false;
    CHECK_EQ(r, -ETIMEDOUT);
    reeve_time now = reeve_now(), own = h->me->deadline;
    CHECK((until && until <= now) || (own && own <= now));
    return true;
}

static bool do_sleep(struct hands *h)
{
    reeve_time before = reeve_now(), until = some_time();
    int64_t cancelled = tree_cancelled(h->wood, h->me);
    int r = reeve_sleep(until);
    reeve_time now = reeve_now();
    CHECK(now >= before);
    if (r == -ECANCELED)
        return false;
    if (r == -ETIMEDOUT) {
        CHECK(h->me->deadline && h->me->deadline <= now);
        return true;
    }
    CHECK_EQ(r, 0);
    CHECK(now >= until);
    CHECK(!cancelled); /* it came before this wait began */
    cancelled = tree_cancelled(h->wood, h->me);
    CHECK(!cancelled || cancelled >= until || until <= before);
    return true;
}

static void do_cancel(struct hands *h)
{
    int slot = (int)rv_sim_draw(HANDLES);
    if (!h->of[slot])
        return;
    if (!tree_done(h->of[slot]) && !h->of[slot]->cancelled)
        h->of[slot]->cancelled = reeve_now();
    reeve_cancel(h->task[slot]);
}

static void do_group_cancel(struct hands *h)
{
    int own = (int)rv_sim_draw(GROUPS);
    if (h->grove[own] >= 0) {
        struct grove *g = &h->wood->grove[h->grove[own]];
        g->cancelled = g->cancelled ? g->cancelled : reeve_now();
    }
    reeve_group_cancel(&h->group[own]);
}

static void do_group_wait(struct hands *h, int own)
{
    struct wood *w = h->wood;
    int grove = h->grove[own];
    int r = reeve_group_wait(&h->group[own], some_time());
    if (grove < 0) {
        CHECK_EQ(r, 0);
        return;
    }
    for (int i = 0; i < w->trees; i++) {
        if (w->tree[i].grove != grove)
            continue;
        CHECK(tree_done(&w->tree[i]));
        tree_check_scope_done(w, i);
    }
    if (w->grove[grove].failed)
        CHECK_LT(r, 0);
    if (r < 0 && !w->grove[grove].failed) /* -ENOMEM: there was no stack for a member */
        CHECK(r == -ETIMEDOUT || r == -ECANCELED || r == -ENOMEM);
    w->grove[grove].group = NULL;
    h->grove[own] = -1;
    CHECK_EQ(h->group[own].opaque, 0);
    /* Handles of members are gone with the group. */
    for (int i = 0; i < HANDLES; i++)
        if (h->of[i] && h->of[i]->grove == grove)
            h->joined[i] = true;
}

/* One thing; false: the task has learnt that it is cancelled. */
static bool do_something(struct hands *h)
{
    switch (rv_sim_draw(12)) {
    case 0:
    case 1:
    case 2:
    case 3:
        do_spawn(h);
        return true;
    case 4:
    case 5:
        return do_join(h);
    case 6:
    case 7:
        return do_sleep(h);
    case 8:
        do_cancel(h);
        return true;
    case 9:
        rv_sim_preempt();
        return true;
    case 10:
        if (rv_sim_chance(256))
            do_group_cancel(h);
        return true;
    default:
        do_group_wait(h, (int)rv_sim_draw(GROUPS));
        return true;
    }
}

static void tree_begins(const struct wood *w, struct tree *t)
{
    CHECK(!t->started);
    CHECK(!t->skipped);
    t->started = true;
    rv_sim_note((uint64_t)t->id, 1);
    if (t->deadline)
        CHECK_LT(reeve_now(), t->deadline); /* else it had never started */
    /* What has not started never starts. (Its owner may have been cancelled through somebody
     * further up: if it computes on, its children may still start, and learn of it when they
     * wait.) */
    CHECK_EQ(t->cancelled, 0);
    if (t->grove >= 0)
        CHECK_EQ(w->grove[t->grove].cancelled, 0);
    else if (t->scope >= 0)
        CHECK_EQ(w->tree[t->scope].cancelled, 0);
}

static int tree_grow(void *arg)
{
    struct seedling *s = arg;
    struct tree *me = s->tree;
    struct wood *w = me->wood;
    struct hands h = { .wood = w, .me = me, .grove = { -1, -1 } };
    tree_begins(w, me);
    tree_check_copy(s);
    int things = (int)rv_sim_draw((uint32_t)w->busy);
    while (things-- > 0) {
        if (do_something(&h))
            continue;
        int again = reeve_sleep(0); /* cancellation sticks */
        CHECK(again == -ECANCELED || again == -ETIMEDOUT);
        break;
    }
    for (int own = 0; own < GROUPS; own++)
        do_group_wait(&h, own);
    tree_check_copy(s);
    int r = rv_sim_chance(200) ? -(int)(1 + rv_sim_draw(100)) : (int)rv_sim_draw(100);
    if (me->grove >= 0 && !me->handle && r < 0)
        w->grove[me->grove].failed++;
    me->result = r;
    me->over = true;
    rv_sim_note((uint64_t)me->id, r);
    return r;
}

static int wood_root(void *arg)
{
    struct wood *w = arg;
    struct hands h = { .wood = w, .me = &w->tree[0], .grove = { -1, -1 } };
    *h.me = (struct tree){ .wood = w, .scope = -1, .grove = -1, .started = true };
    w->trees = 1;
    for (int i = 0; i < 4; i++)
        do_spawn(&h);
    for (int i = 0; i < 60; i++)
        if (!do_something(&h))
            break;
    for (int own = 0; own < GROUPS; own++)
        do_group_wait(&h, own);
    h.me->over = true;
    return rv_sim_chance(200) ? -EIO : 0;
}

/* Between two turns, on a thread that is no worker: posts. */
static void wood_foreign(void *arg)
{
    struct wood *w = arg;
    struct seedling s;
    struct reeve_spawn how;
    if (w->trees > 0 && rv_fault_available() && rv_sim_chance(200)) {
        rv_fault_only(rv_sim_chance(512) ? "stack.take" : "task.take");
        rv_fault_fail_nth(1 + rv_sim_draw(40));
    }
    if (w->trees == 0 || rv_sim_chance(900))
        return;
    struct tree *t = tree_sow(w, NULL, &s, &how);
    if (!t)
        return;
    w->trees++;
    int r = rv_sched_post(rv_sim_sched(), &how);
    if (r < 0) {
        CHECK(r == -EAGAIN || r == -ESHUTDOWN);
        t->skipped = true;
    }
}

/* ---- a crowd --------------------------------------------------------------------------------- */

/* More tasks ready at a time than a worker's ring holds; joined in the order of their spawns, which
 * is the wrong end of the deque. */
#define CROWD 700

struct crowd {
    reeve_time all_at;
    int ran;
};

static int crowd_one(void *arg)
{
    struct crowd *c = arg;
    for (int i = 0; i < 3; i++)
        CHECK_EQ(reeve_sleep(0), 0);
    CHECK_EQ(reeve_sleep(c->all_at), 0);
    CHECK_EQ(reeve_sleep(0), 0);
    return ++c->ran;
}

static int crowd_none(void *arg)
{
    return ++((struct crowd *)arg)->ran;
}

static int crowd_root(void *arg)
{
    struct crowd *c = arg;
    reeve_task *one[CROWD];
    int result;
    c->all_at = reeve_in(5 * REEVE_MS);
    for (int i = 0; i < CROWD; i++) {
        int where = rv_sim_chance(100) ? 1 : 0;
        reeve_fn *fn = i % 3 ? crowd_one : crowd_none;
        CHECK_EQ(reeve_spawn(&one[i], fn, c, .worker = where), 0);
    }
    for (int i = 0; i < CROWD; i++)
        CHECK_EQ(reeve_join(one[i], &result, 0), 0);
    return c->ran;
}

static void crowd_run(uint64_t seed, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    struct crowd c = { 0 };
    opts->workers = 1 + (unsigned)(seed % 3);
    opts->stack_bytes = 16384;
    opts->fn = crowd_root;
    opts->arg = &c;
    seeds_simulate(opts, ret);
    CHECK_EQ(ret->result, CROWD);
}

static void wood_run(uint64_t seed, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    static struct wood wood;
    memset(&wood, 0, sizeof wood);
    wood.workers = opts->workers ? opts->workers : 1 + (unsigned)(seed % 4);
    wood.busy = 6 + (int)(seed / 4 % 20);
    opts->workers = wood.workers;
    opts->tasks_max = seed % 7 == 0 ? 20 : 1000;
    opts->stack_bytes = seed % 3 ? 16384 : 65536;
    opts->fn = wood_root;
    opts->arg = &wood;
    opts->foreign = wood_foreign;
    seeds_simulate(opts, ret);
    rv_fault_off();
    for (int i = 1; i < wood.trees; i++) {
        CHECK(wood.tree[i].started != wood.tree[i].skipped);
        CHECK_EQ(wood.tree[i].started, wood.tree[i].over);
    }
}

#endif
