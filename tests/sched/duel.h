/* SPDX-License-Identifier: MIT */
/*
 * duel.h -- two tasks that do something at the same moment, again and again.
 *
 * Each has a worker of its own. They meet before every round by looking at each other's count, and
 * one of them tarries a little, another while in each round: so that in the course of the rounds
 * every step of the one falls together with every step of the other. What goes wrong only when two
 * steps coincide, and then for good (a wake-up that is lost when nobody else comes along), shows.
 */
#ifndef TESTS_SCHED_DUEL_H
#define TESTS_SCHED_DUEL_H

#include "tests/sched/host.h"

struct duel {
    /* What each does in a round. Neither may wait for the other's next round. */
    void (*strike)(void *ctx, int who, uint32_t round);
    void *ctx;
    int64_t enough; /* the time when it ends early, on a machine that is busy with much else */
    RV_ATOMIC(uint32_t) begun[2], next, last;
};

static inline int duel_fights(void *arg)
{
    struct duel *d = arg;
    int me = (int)rv_add_relaxed(&d->next, 1u);
    for (uint32_t round = 1; round <= rv_load_relaxed(&d->last); round++) {
        if (me == 0 && round % 64 == 0 && rv_clock_ns() > d->enough)
            rv_store_relaxed(&d->last, round); /* seen by who meets us in this round */
        rv_store_release(&d->begun[me], round); /* pairs with the other's load */
        for (uint32_t spins = 1; rv_load_acquire(&d->begun[!me]) < round; spins++) {
            rv_cpu_relax();
            if (spins % 1024 == 0) /* its thread may not be running at all */
                CHECK_OK(reeve_sleep(reeve_in(REEVE_US)));
        }
        uint32_t tarry = me == (int)(round & 1) ? round / 2 % 40 : 0;
        for (volatile uint32_t i = 0; i < tarry; i++)
            ;
        d->strike(d->ctx, me, round);
    }
    return 0;
}

static inline int duel_begins(void *arg)
{
    reeve_group g = { 0 };
    CHECK_OK(reeve_go(duel_fights, arg, .group = &g, .worker = 1));
    CHECK_OK(reeve_go(duel_fights, arg, .group = &g, .worker = 2));
    return reeve_group_wait(&g, 0);
}

static inline void duel(void (*strike)(void *ctx, int who, uint32_t round), void *ctx,
                        uint32_t rounds)
{
    struct duel d = { .strike = strike, .ctx = ctx, .last = host_times(rounds) };
    d.enough = rv_clock_ns() + 30 * REEVE_SEC;
    CHECK_EQ(host_run(2, 100, duel_begins, &d), 0);
}

#endif
