/* SPDX-License-Identifier: MIT */
/*
 * bias.h -- a count of loans that costs the thread that lends almost nothing.
 *
 *     rv_bias_open(&b);
 *     rv_bias_take(&b);                                  // the owner lends
 *     rv_bias_give(&b);                                  // it came back to the owner
 *     if (rv_bias_give_elsewhere(&b)) ... it is over     // it came back to anybody else
 *     if (rv_bias_close(&b)) ... it is over              // the owner lends no more
 *
 * What the owner lends, and what comes back to it, is counted in a plain word. What comes back on
 * another thread is subtracted from a shared one, which starts so high that it does not get to 0
 * that way. When the owner has done with it the two are added, and whoever brings the sum to 0, the
 * owner or he who returns the last, knows that it is over: once. (Biased reference counting, Choi,
 * Shull and Torrellas 2018.)
 *
 *     open   -> closed  [close: something is out]
 *     open   -> over    [close: nothing is]
 *     closed -> over    [give_elsewhere: it was the last]
 *
 * (1) What is given before it is over was taken before that: over there everything that was done
 *     with it has been seen.
 * (2) A closed one is given back `elsewhere` by everybody, its owner among them.
 *
 * Threads: open, take, give, close, is_open - the owner; give_elsewhere - any.
 */
#ifndef RV_MEM_BIAS_H
#define RV_MEM_BIAS_H

#include <stdbool.h>
#include <stdint.h>

#include "mem/die.h"
#include "mem/rv_atomic.h"

#define RV_BIAS (INT64_C(1) << 48)

struct rv_bias {
    int64_t here; /* lent, less what came back to the owner */
    bool closed;
    RV_ALIGNED_LINE RV_ATOMIC(int64_t) elsewhere;
};

static inline void rv_bias_open(struct rv_bias *b)
{
    b->here = 0;
    b->closed = false;
    rv_store_relaxed(&b->elsewhere, RV_BIAS);
}

static inline bool rv_bias_is_open(const struct rv_bias *b)
{
    return !b->closed;
}

static inline void rv_bias_take(struct rv_bias *b)
{
    RV_ASSERT(!b->closed);
    RV_ASSERT(b->here < RV_BIAS / 2);
    b->here++;
}

/* False, and nothing happens: more came back than was lent. */
static inline bool rv_bias_give(struct rv_bias *b)
{
    RV_ASSERT(!b->closed);
    if (b->here == 0)
        return false;
    b->here--;
    return true;
}

/* True: that was the last one, and the owner had closed it. */
static inline bool rv_bias_give_elsewhere(struct rv_bias *b)
{
    /* Pairs with close, and with itself: see (1). */
    int64_t was = rv_sub_acq_rel(&b->elsewhere, INT64_C(1));
    RV_ASSERT(was > 0);
    return was == 1;
}

/* True: nothing is out. */
static inline bool rv_bias_close(struct rv_bias *b)
{
    RV_ASSERT(!b->closed);
    b->closed = true;
    int64_t add = b->here - RV_BIAS;
    int64_t left = rv_add_acq_rel(&b->elsewhere, add) + add; /* pairs with give_elsewhere */
    RV_ASSERT(left >= 0);
    return left == 0;
}

#endif
