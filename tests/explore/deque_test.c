/* SPDX-License-Identifier: MIT */
/*
 * deque_test.c -- the deque of fresh tasks, with four slots, in every order, with store buffers.
 *
 * The owner pushes, pops, looks and takes the oldest; thieves steal. Each entry comes out once, and
 * none is lost.
 */
#include "tests/explore/explore_main.h"

#include "mem/die.h"
#include "sched/deque.h"

enum { ENTRIES = 12 };

static struct {
    struct rv_deque d;
    RV_ATOMIC(uint64_t) slots[4];
    uint8_t got[ENTRIES + 1];
    uint32_t pushed;
} m;

static void take(uint64_t e)
{
    if (e == 0)
        return;
    RV_MUST(e <= ENTRIES);
    m.got[e]++;
    RV_MUST(m.got[e] == 1);
}

static void push(void)
{
    if (rv_deque_push(&m.d, m.pushed + 1))
        m.pushed++;
}

static void pop(void)
{
    take(rv_deque_pop(&m.d));
}

static void steal(void)
{
    bool lost;
    uint64_t e = rv_deque_steal(&m.d, &lost);
    RV_MUST(!lost || e == 0);
    take(e);
}

static void fill(uint32_t n)
{
    m.d.slots = m.slots;
    m.d.mask = 3;
    for (uint32_t i = 0; i < n; i++)
        push();
    RV_MUST(m.pushed == n);
}

static void one(void)
{
    fill(1);
}

static void two(void)
{
    fill(2);
}

static void full(void)
{
    fill(4);
    RV_MUST(!rv_deque_push(&m.d, 5));
}

static void empty_it(void)
{
    while (rv_deque_len(&m.d))
        pop();
    for (uint32_t e = 1; e <= m.pushed; e++)
        RV_MUST(m.got[e] == 1);
}

static void pops_three(void *arg)
{
    (void)arg;
    pop();
    push();
    pop();
    pop();
}

static void steals(void *arg)
{
    (void)arg;
    steal();
}

static void steals_twice(void *arg)
{
    (void)arg;
    steal();
    steal();
}

static const struct explore last_entry = {
    .name = "deque: the last entry",
    .setup = one,
    .threads = { { "owner", pops_three, NULL }, { "thief", steals_twice, NULL } },
    .finish = empty_it,
    .preemptions = 5,
    .delays = 3,
};

TEST(the_last_entry_goes_to_one_of_them)
{
    explore(&last_entry);
}

static const struct explore two_thieves = {
    .name = "deque: two thieves",
    .setup = two,
    .threads = { { "owner", pops_three, NULL },
                 { "thief 0", steals, NULL },
                 { "thief 1", steals, NULL } },
    .finish = empty_it,
    .preemptions = 4,
    .delays = 2,
};

TEST(two_thieves_and_the_owner_share_two_entries)
{
    explore(&two_thieves);
}

static void wraps(void *arg)
{
    (void)arg;
    push();
    pop();
    push();
    push();
    take(rv_deque_take_oldest(&m.d));
    push();
}

static const struct explore wrap = {
    .name = "deque: full, and used again",
    .setup = full,
    .threads = { { "owner", wraps, NULL }, { "thief", steals_twice, NULL } },
    .finish = empty_it,
    .preemptions = 5,
    .delays = 2,
};

TEST(a_slot_is_not_used_again_while_its_entry_can_be_stolen)
{
    explore(&wrap);
}

/* The owner decides by what it sees whether to pop: then it must get that, or nothing. */
static void peeks_and_pops(void *arg)
{
    (void)arg;
    for (int i = 0; i < 2; i++) {
        uint64_t seen = rv_deque_peek(&m.d), e;
        if (seen == 0)
            return;
        e = rv_deque_pop(&m.d);
        RV_MUST(e == seen || e == 0);
        take(e);
    }
}

static const struct explore peek = {
    .name = "deque: peek, then pop",
    .setup = two,
    .threads = { { "owner", peeks_and_pops, NULL }, { "thief", steals_twice, NULL } },
    .finish = empty_it,
    .preemptions = 5,
    .delays = 3,
};

TEST(a_pop_gives_what_was_seen_or_nothing)
{
    explore(&peek);
}
