/* SPDX-License-Identifier: MIT */
/*
 * bias_test.c -- loans that come back to their owner and to others, in every order.
 *
 * The code is mem/bias.h itself. The owner lends one thing several times, passes loans on to two
 * others, and closes its account while these are still out. Who has a loan looks whether the thing
 * is there; who learns that it is over takes it away.
 */
#include "tests/explore/explore_main.h"

#include "mem/bias.h"
#include "mem/die.h"

static struct {
    struct rv_bias bias;
    RV_ATOMIC(uint32_t) there;      /* the thing */
    RV_ATOMIC(uint32_t) passed[2];  /* a loan for each of the others */
    RV_ATOMIC(uint32_t) ends;       /* how often it was over */
} m;

static void begin(void)
{
    rv_bias_open(&m.bias);
    rv_store_relaxed(&m.there, 1u);
}

static void use(void)
{
    RV_MUST(rv_load_relaxed(&m.there) == 1);
}

static void over(void)
{
    rv_add_relaxed(&m.ends, 1u);
    rv_store_relaxed(&m.there, 0u);
}

/* Lends to each of n others, uses one loan itself, and closes while it is out or after. */
static void owner(unsigned n, bool keeps)
{
    for (unsigned i = 0; i < n; i++) {
        rv_bias_take(&m.bias);
        rv_store_release(&m.passed[i], 1u); /* pairs with other() */
    }
    rv_bias_take(&m.bias);
    use();
    if (!keeps)
        RV_MUST(rv_bias_give(&m.bias));
    if (rv_bias_close(&m.bias))
        over();
    if (!keeps)
        return;
    use();
    if (rv_bias_give_elsewhere(&m.bias))
        over();
}

static void other(void *arg)
{
    unsigned i = (unsigned)(uintptr_t)arg;
    while (rv_load_acquire(&m.passed[i]) == 0) /* pairs with owner() */
        rv_cpu_relax();
    use();
    if (rv_bias_give_elsewhere(&m.bias))
        over();
}

static void lends_to_one(void *arg)
{
    (void)arg;
    owner(1, false);
}

static void lends_to_two(void *arg)
{
    (void)arg;
    owner(2, false);
}

static void closes_with_one_of_its_own(void *arg)
{
    (void)arg;
    owner(2, true);
}

static void once(void)
{
    RV_MUST(rv_load_relaxed(&m.ends) == 1);
    RV_MUST(rv_load_relaxed(&m.bias.elsewhere) == 0);
}

static const struct explore one = {
    .name = "bias: one other",
    .setup = begin,
    .threads = { { "owner", lends_to_one, NULL }, { "other", other, (void *)0 } },
    .finish = once,
    .preemptions = 4,
    .delays = 2,
};

static const struct explore two = {
    .name = "bias: two others",
    .setup = begin,
    .threads = { { "owner", lends_to_two, NULL },
                 { "one", other, (void *)0 },
                 { "two", other, (void *)1 } },
    .finish = once,
    .preemptions = 4,
    .delays = 2,
};

static const struct explore own = {
    .name = "bias: one of its own",
    .setup = begin,
    .threads = { { "owner", closes_with_one_of_its_own, NULL },
                 { "one", other, (void *)0 },
                 { "two", other, (void *)1 } },
    .finish = once,
    .preemptions = 4,
    .delays = 2,
};

TEST(what_one_other_returns_is_over_once)
{
    explore(&one);
}

TEST(what_two_others_return_is_over_once_and_not_before)
{
    explore(&two);
}

TEST(an_owner_may_close_while_it_has_a_loan_itself)
{
    explore(&own);
}
