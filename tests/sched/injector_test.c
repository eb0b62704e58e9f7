/* SPDX-License-Identifier: MIT */
/*
 * injector_test.c -- sched/injector.c: lists in order, heaps by deadline, from and to any thread.
 */
#define CHECK_MAIN
#include "sched/pick.h"
#include "tests/sched/host.h"

static struct rv_task tasks[100]; /* as much of a task as the injector looks at */

static struct rv_msg *task_of(uint32_t i, unsigned class, int64_t deadline, uint8_t kind)
{
    struct rv_task *t = &tasks[i];
    rv_set_kind(t, class + 1, 1);
    t->deadline = deadline;
    t->flags = deadline ? RV_TF_DATED : 0;
    t->msg.kind = kind;
    return &t->msg;
}

TEST(what_was_injected_comes_out_once_in_its_order)
{
    struct host *h = host_create(1, 10);
    CHECK(rv_injector_take(&h->s, RV_NORMAL) == NULL);
    for (int round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < 100; i++) {
            rv_inject(&h->s, task_of(i, RV_NORMAL, 0, i % 2 ? RV_MSG_FRESH : RV_MSG_READY));
            CHECK_EQ(rv_load_relaxed(&h->s.injector.len), i + 1);
        }
        for (uint32_t i = 0; i < 100; i++) {
            struct rv_msg *m = rv_injector_take(&h->s, RV_NORMAL);
            CHECK(m == &tasks[i].msg);
            CHECK_EQ(m->kind, i % 2 ? RV_MSG_FRESH : RV_MSG_READY);
            CHECK_EQ(rv_load_relaxed(&h->s.injector.len), 99 - i);
        }
        CHECK(rv_injector_take(&h->s, RV_NORMAL) == NULL);
    }
    CHECK_EQ(rv_load_relaxed(&h->s.injector.total), 300);
    host_destroy(h);
}

TEST(each_class_has_a_list_of_its_own_and_shows_whether_it_is_empty)
{
    struct host *h = host_create(1, 10);
    struct rv_injector *in = &h->s.injector;
    for (uint32_t i = 0; i < 8; i++)
        rv_inject(&h->s, task_of(i, i % 4, 0, RV_MSG_READY));
    /* NORMAL is looked at in any case, so that it is empty is not worth a bit. */
    CHECK_EQ(rv_load_relaxed(&in->ready), RV_READY_QUEUES(RV_LOW) | RV_READY_QUEUES(RV_HIGH) |
                                              RV_READY_QUEUES(RV_URGENT));
    for (unsigned c = 0; c < 4; c++) {
        CHECK(rv_injector_take(&h->s, c) == &tasks[c].msg);
        CHECK(rv_injector_take(&h->s, c) == &tasks[c + 4].msg);
        CHECK(rv_injector_take(&h->s, c) == NULL);
        CHECK(!(rv_load_relaxed(&in->ready) & RV_READY_QUEUES(c)));
    }
    CHECK_EQ(rv_load_relaxed(&in->len), 0);
    host_destroy(h);
}

TEST(tasks_with_deadlines_come_out_earliest_first)
{
    struct host *h = host_create(1, 10);
    struct rv_injector *in = &h->s.injector;
    CHECK_EQ(rv_load_relaxed(&in->of[RV_HIGH].earliest), RV_NEVER);
    CHECK_EQ(rv_injector_take_dated(&h->s, RV_HIGH), 0);
    for (uint32_t i = 0; i < 100; i++) {
        struct rv_timer e = rv_heap_entry(1000 + i * 37 % 100, rv_entry(7, i, i % 2));
        rv_inject_dated(&h->s, RV_HIGH, &e, 1);
    }
    CHECK_EQ(rv_load_relaxed(&in->ready), RV_READY_HEAP(RV_HIGH));
    CHECK(rv_injector_take(&h->s, RV_HIGH) == NULL); /* they are in no list */
    for (uint32_t i = 0; i < 100; i++) {
        CHECK_EQ(rv_load_relaxed(&in->of[RV_HIGH].earliest), 1000 + i);
        uint64_t e = rv_injector_take_dated(&h->s, RV_HIGH);
        uint32_t who = rv_entry_index(e);
        CHECK_EQ(who * 37 % 100, i);
        CHECK_EQ(e, rv_entry(7, who, who % 2));
    }
    CHECK_EQ(rv_load_relaxed(&in->ready), 0);
    CHECK_EQ(rv_load_relaxed(&in->len), 0);
    host_destroy(h);
}

TEST(who_was_lent_a_better_class_moves_into_its_list)
{
    struct host *h = host_create(1, 10);
    for (uint32_t i = 0; i < 10; i++)
        rv_inject(&h->s, task_of(i, i % 2 ? RV_NORMAL : RV_LOW, 0, RV_MSG_READY));
    rv_or_acq_rel(&tasks[4].ctl, (uint64_t)REEVE_URGENT << RV_CTL_LENT_SHIFT);
    rv_or_acq_rel(&tasks[7].ctl, (uint64_t)REEVE_URGENT << RV_CTL_LENT_SHIFT);
    rv_injector_promote(&h->s);
    CHECK(rv_injector_take(&h->s, RV_URGENT) == &tasks[4].msg);
    CHECK(rv_injector_take(&h->s, RV_URGENT) == &tasks[7].msg);
    CHECK(rv_injector_take(&h->s, RV_URGENT) == NULL);
    for (uint32_t i = 0; i < 10; i++)
        if (i != 4 && i != 7)
            CHECK(rv_injector_take(&h->s, i % 2 ? RV_NORMAL : RV_LOW) == &tasks[i].msg);
    CHECK_EQ(rv_load_relaxed(&h->s.injector.len), 0);
    host_destroy(h);
}

TEST(taking_and_injecting_may_alternate_in_any_way)
{
    struct host *h = host_create(1, 10);
    uint32_t in = 0, out = 0, seed = 1;
    while (out < 100000) {
        seed = seed * 1664525u + 1013904223u;
        if (seed >> 31 && in - out < 16) {
            rv_inject(&h->s, task_of(in++ % 16, RV_NORMAL, 0, RV_MSG_READY));
        } else {
            struct rv_msg *expected = in == out ? NULL : &tasks[out % 16].msg;
            CHECK(rv_injector_take(&h->s, RV_NORMAL) == expected);
            out += expected != NULL;
        }
    }
    while (rv_injector_take(&h->s, RV_NORMAL))
        out++;
    CHECK_EQ(in, out);
    host_destroy(h);
}

/* Several threads inject what is theirs, several take; a message that was taken belongs to who took
 * it, who sends it home. */
enum { THREADS = 3, EACH = 64 };

struct parcel {
    struct rv_task task;
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
        p->task.msg.kind = RV_MSG_READY;
        rv_inject(&m->h->s, &p->task.msg);
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
        struct rv_msg *msg = rv_injector_take(&m->h->s, RV_NORMAL);
        if (msg) {
            struct parcel *p = (struct parcel *)rv_task_of_msg(msg);
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
    struct market *m = aligned_alloc(64, (sizeof *m + 63) / 64 * 64);
    pthread_t threads[2 * THREADS];
    uint64_t each = host_times(300000), journeys = 0;
    CHECK(m != NULL);
    memset(m, 0, sizeof *m);
    m->h = host_create(1, 10);
    rv_store_relaxed(&m->sellers, (unsigned)THREADS);
    for (int i = 0; i < THREADS; i++)
        for (int k = 0; k < EACH; k++) {
            rv_set_kind(&m->parcel[i][k].task, REEVE_NORMAL, 1);
            rv_store_relaxed(&m->parcel[i][k].home, true);
        }
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
