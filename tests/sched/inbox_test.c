/* SPDX-License-Identifier: MIT */
/*
 * inbox_test.c -- sched/inbox.h: nothing lost, nothing twice, each producer's order kept.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <pthread.h>
#include <sched.h>

#include "sched/inbox.h"

TEST(messages_come_in_the_order_of_their_pushes)
{
    struct rv_inbox in = {0};
    struct rv_msg m[10];
    CHECK(rv_inbox_empty(&in));
    CHECK(rv_inbox_drain(&in) == NULL);
    for (uint32_t n = 1; n <= 10; n++) {
        for (uint32_t i = 0; i < n; i++) {
            m[i] = (struct rv_msg){.kind = 7, .aux = i};
            rv_inbox_push(&in, &m[i]);
            CHECK(!rv_inbox_empty(&in));
        }
        struct rv_msg *got = rv_inbox_drain(&in);
        CHECK(rv_inbox_empty(&in));
        for (uint32_t i = 0; i < n; i++, got = rv_msg_next(got)) {
            CHECK_EQ(got, &m[i]);
            CHECK_EQ(got->kind, 7);
            CHECK_EQ(got->aux, i);
        }
        CHECK(got == NULL);
    }
}

TEST(a_message_may_be_sent_again_while_its_batch_is_walked)
{
    struct rv_inbox in = {0};
    struct rv_msg m[3] = {{.aux = 0}, {.aux = 1}, {.aux = 2}};
    for (int i = 0; i < 3; i++)
        rv_inbox_push(&in, &m[i]);
    for (int round = 0; round < 100; round++) {
        uint32_t i = 0;
        for (struct rv_msg *got = rv_inbox_drain(&in), *next; got; got = next, i++) {
            next = rv_msg_next(got);
            CHECK_EQ(got->aux, i);
            rv_inbox_push(&in, got);
        }
        CHECK_EQ(i, 3);
    }
}

TEST(an_inbox_has_its_cache_line_to_itself)
{
    struct rv_inbox in[2];
    CHECK_EQ(sizeof in, 128);
    CHECK_EQ((uintptr_t)&in[0] % 64, 0);
}

/* ---- many producers ---- */

enum { PRODUCERS = 4, EACH = 100000, POOL = 64 };

/* A message that goes back to its producer through `home` when it was read. */
struct letter {
    struct rv_msg msg;
    RV_ATOMIC(bool) home;
    uint64_t text;              /* plain memory: the push publishes it */
};

static struct rv_inbox inbox;
static struct letter letters[PRODUCERS][POOL];

static void *produce(void *arg)
{
    uintptr_t id = (uintptr_t)arg;
    for (uint32_t n = 0; n < EACH; n++) {
        struct letter *l = &letters[id][n % POOL];
        while (!rv_load_acquire(&l->home))      /* pairs with the consumer's release */
            sched_yield();
        rv_store_relaxed(&l->home, false);
        l->msg.kind = (uint8_t)id;
        l->msg.aux = n;
        l->text = (uint64_t)n << 8 | id;
        rv_inbox_push(&inbox, &l->msg);
    }
    return NULL;
}

static void consume(uint32_t got[PRODUCERS], struct rv_msg *m)
{
    struct letter *l = (struct letter *)m;
    CHECK_LT(m->kind, PRODUCERS);
    CHECK_EQ(m->aux, got[m->kind]);
    CHECK_EQ(l->text, (uint64_t)m->aux << 8 | m->kind);
    got[m->kind]++;
    rv_store_release(&l->home, true);
}

TEST(each_producers_messages_arrive_once_and_in_order)
{
    pthread_t threads[PRODUCERS];
    uint32_t got[PRODUCERS] = {0};
    for (int p = 0; p < PRODUCERS; p++)
        for (int i = 0; i < POOL; i++)
            rv_store_relaxed(&letters[p][i].home, true);
    for (uintptr_t p = 0; p < PRODUCERS; p++)
        CHECK_EQ(pthread_create(&threads[p], NULL, produce, (void *)p), 0);
    for (uint32_t total = 0; total < PRODUCERS * EACH;) {
        struct rv_msg *m = rv_inbox_drain(&inbox);
        if (!m)
            sched_yield();
        for (struct rv_msg *next; m; m = next, total++) {
            next = rv_msg_next(m);
            consume(got, m);
        }
    }
    for (int p = 0; p < PRODUCERS; p++) {
        CHECK_EQ(pthread_join(threads[p], NULL), 0);
        CHECK_EQ(got[p], EACH);
    }
    CHECK(rv_inbox_empty(&inbox));
}
