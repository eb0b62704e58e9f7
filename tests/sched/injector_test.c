/* SPDX-License-Identifier: MIT */
/*
 * injector_test.c -- sched/injector.c: first in, first out, from any thread to any thread.
 */
#define CHECK_MAIN
#include "tests/sched/host.h"

TEST(what_was_injected_comes_out_once_in_its_order)
{
    struct host *h = host_create(1, 10);
    static struct rv_msg m[100];
    CHECK(rv_injector_take(&h->s) == NULL);
    for (int round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < 100; i++) {
            m[i].kind = i % 2 ? RV_MSG_FRESH : RV_MSG_READY;
            rv_inject(&h->s, &m[i]);
            CHECK_EQ(rv_load_relaxed(&h->s.injector.len), i + 1);
        }
        for (uint32_t i = 0; i < 100; i++) {
            CHECK(rv_injector_take(&h->s) == &m[i]);
            CHECK_EQ(m[i].kind, i % 2 ? RV_MSG_FRESH : RV_MSG_READY);
            CHECK_EQ(rv_load_relaxed(&h->s.injector.len), 99 - i);
        }
        CHECK(rv_injector_take(&h->s) == NULL);
    }
    CHECK_EQ(rv_load_relaxed(&h->s.injector.total), 300);
    host_destroy(h);
}

TEST(taking_and_injecting_may_alternate_in_any_way)
{
    struct host *h = host_create(1, 10);
    static struct rv_msg m[16];
    uint32_t in = 0, out = 0, seed = 1;
    while (out < 100000) {
        seed = seed * 1664525u + 1013904223u;
        if (seed >> 31 && in - out < 16) {
            m[in % 16].kind = RV_MSG_READY;
            rv_inject(&h->s, &m[in++ % 16]);
        } else {
            struct rv_msg *expected = in == out ? NULL : &m[out % 16];
            CHECK(rv_injector_take(&h->s) == expected);
            out += expected != NULL;
        }
    }
    while (rv_injector_take(&h->s))
        out++;
    CHECK_EQ(in, out);
    host_destroy(h);
}

/* Several threads inject what is theirs, several take; a message that was taken belongs to who took
 * it, who sends it home. */
enum { THREADS = 3, EACH = 64 };

struct parcel {
    struct rv_msg msg;
    RV_ATOMIC(bool) home;
    uint64_t journeys; /* plain: the hand-over orders it */
};

struct market {
    struct host *h;
    struct parcel parcel[THREADS][EACH];
    RV_ATOMIC(unsigned) next, sellers;
    RV_ATOMIC(uint64_t) taken;
};

static void *sells(void *arg)
{
    struct market *m = arg;
    struct parcel *mine = m->parcel[rv_add_relaxed(&m->next, 1u)];
    for (uint32_t i = 0; i < host_times(300000);) {
        struct parcel *p = &mine[i % EACH];
        if (!rv_load_acquire(&p->home)) { /* pairs with the store in buys() */
            sched_yield();
            continue;
        }
        rv_store_relaxed(&p->home, false);
        p->journeys++;
        p->msg.kind = RV_MSG_READY;
        rv_inject(&m->h->s, &p->msg);
        i++;
    }
    rv_sub_acq_rel(&m->sellers, 1u);
    return NULL;
}

static void *buys(void *arg)
{
    struct market *m = arg;
    for (;;) {
        bool over = rv_load_acquire(&m->sellers) == 0;
        struct rv_msg *msg = rv_injector_take(&m->h->s);
        if (msg) {
            struct parcel *p = (struct parcel *)msg;
            p->journeys += UINT64_C(1) << 32;
            rv_add_relaxed(&m->taken, (uint64_t)1);
            rv_store_release(&p->home, true);
        } else if (over) {
            return NULL;
        } else {
            sched_yield();
        }
    }
}

TEST(each_message_goes_from_one_thread_to_one_other)
{
    struct market *m = calloc(1, sizeof *m);
    pthread_t threads[2 * THREADS];
    uint64_t each = host_times(300000), journeys = 0;
    CHECK(m != NULL);
    m->h = host_create(1, 10);
    rv_store_relaxed(&m->sellers, (unsigned)THREADS);
    for (int i = 0; i < THREADS; i++)
        for (int k = 0; k < EACH; k++)
            rv_store_relaxed(&m->parcel[i][k].home, true);
    for (int i = 0; i < 2 * THREADS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, i % 2 ? buys : sells, m), 0);
    for (int i = 0; i < 2 * THREADS; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    CHECK_EQ(rv_load_relaxed(&m->taken), THREADS * each);
    for (int i = 0; i < THREADS; i++)
        for (int k = 0; k < EACH; k++) {
            uint64_t j = m->parcel[i][k].journeys;
            CHECK_EQ(j >> 32, j & UINT32_MAX);
            journeys += j >> 32;
        }
    CHECK_EQ(journeys, THREADS * each);
    CHECK_EQ(rv_load_relaxed(&m->h->s.injector.total), THREADS * each);
    host_destroy(m->h);
    free(m);
}
