/* SPDX-License-Identifier: MIT */
/*
 * runq_test.c -- the ring of woken tasks, with four slots, in every order.
 *
 * Whatever the owner and the thieves do, each entry that went in comes out once; what is left in
 * the rings at the end is taken out alone.
 */
#include "tests/explore/explore_main.h"

#include "mem/die.h"
#include "sched/runq.h"

enum { ENTRIES = 12 };

static struct {
    struct rv_runq q;           /* the victim's */
    struct rv_runq own[2];      /* the thieves' */
    uint8_t got[ENTRIES + 1];   /* how often each entry came out */
    uint32_t pushed;            /* entries 1 .. pushed went in */
} m;

static void take(uint64_t e)
{
    RV_MUST(e >= 1 && e <= ENTRIES);
    m.got[e]++;
    RV_MUST(m.got[e] == 1);
}

static bool push(void)
{
    if (!rv_runq_push(&m.q, m.pushed + 1))
        return false;
    m.pushed++;
    return true;
}

static bool pop(struct rv_runq *q)
{
    uint64_t e = rv_runq_pop(q);
    if (e)
        take(e);
    return e != 0;
}

static void steal(uint32_t thief)
{
    uint64_t first = 0;
    uint32_t n = rv_runq_steal(&m.q, &m.own[thief], &first);
    if (n)
        take(first);
    RV_MUST(n <= RV_RUNQ_SLOTS);
}

/* Nothing is lost: what did not come out is still there. */
static void empty_all(void)
{
    struct rv_runq *const all[] = { &m.q, &m.own[0], &m.own[1] };
    for (int i = 0; i < 3; i++)
        while (pop(all[i]))
            ;
    for (uint32_t e = 1; e <= m.pushed; e++)
        RV_MUST(m.got[e] == 1);
    RV_MUST(rv_runq_len(&m.q) == 0);
}

static void fill_up_to(uint32_t n)
{
    while (m.pushed < n)
        RV_MUST(push());
}

static void three(void)
{
    fill_up_to(3);
}

static void full(void)
{
    fill_up_to(RV_RUNQ_SLOTS);
    RV_MUST(!push());
}

/* ---- owner and thief ---- */

static void owner_pushes_and_pops(void *arg)
{
    (void)arg;
    push();
    pop(&m.q);
    push();
    pop(&m.q);
    push();
}

static void thief_steals_twice(void *arg)
{
    uint32_t me = (uint32_t)(uintptr_t)arg;
    steal(me);
    pop(&m.own[me]);
    steal(me);
}

static const struct explore owner_and_thief = {
    .name = "runq: owner and thief",
    .setup = three,
    .threads = { { "owner", owner_pushes_and_pops, NULL },
                 { "thief", thief_steals_twice, (void *)0 } },
    .finish = empty_all,
    .preemptions = 4,
    .delays = 2,
};

TEST(an_entry_comes_out_once_whoever_takes_it)
{
    explore(&owner_and_thief);
}

/* ---- two thieves ---- */

static void owner_pops_twice(void *arg)
{
    (void)arg;
    pop(&m.q);
    pop(&m.q);
}

static void thief_steals(void *arg)
{
    steal((uint32_t)(uintptr_t)arg);
}

static const struct explore two_thieves = {
    .name = "runq: two thieves",
    .setup = full,
    .threads = { { "owner", owner_pops_twice, NULL },
                 { "thief 0", thief_steals, (void *)0 },
                 { "thief 1", thief_steals, (void *)1 } },
    .finish = empty_all,
    .preemptions = 5,
    .delays = 2,
};

TEST(two_thieves_never_take_the_same_half)
{
    explore(&two_thieves);
}

/* ---- a full ring and slots that are used again ---- */

static void owner_wraps(void *arg)
{
    (void)arg;
    for (int i = 0; i < 5; i++) {
        if (!push()) /* what the caller would spill */
            pop(&m.q);
    }
}

static const struct explore wrap = {
    .name = "runq: slots used again under a slow thief",
    .setup = full,
    .threads = { { "owner", owner_wraps, NULL },
                 { "thief", thief_steals_twice, (void *)0 } },
    .finish = empty_all,
    .preemptions = 4,
    .delays = 2,
};

TEST(a_slot_is_not_used_again_before_its_thief_has_read_it)
{
    explore(&wrap);
}

/* ---- a thief that is robbed itself ---- */

static void chain_first(void *arg)
{
    (void)arg;
    steal(0);
    pop(&m.own[0]);
}

static void chain_second(void *arg)
{
    uint64_t first = 0;
    (void)arg;
    if (rv_runq_steal(&m.own[0], &m.own[1], &first))
        take(first);
    pop(&m.own[1]);
}

static const struct explore chained = {
    .name = "runq: a thief is robbed",
    .setup = full,
    .threads = { { "owner", owner_pops_twice, NULL },
                 { "thief", chain_first, NULL },
                 { "thief's thief", chain_second, NULL } },
    .finish = empty_all,
    .preemptions = 4,
    .delays = 1,
};

TEST(what_was_stolen_can_be_stolen_again)
{
    explore(&chained);
}
