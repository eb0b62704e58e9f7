/* SPDX-License-Identifier: MIT */
/*
 * inbox_test.c -- messages from two senders to one worker, in every order.
 *
 * Explored is the inbox that sanitizer builds use, spelled in the atomics of rv_atomic.h: the same
 * two operations as Concurrency Kit's.
 */
#include "tests/explore/explore_main.h"

#include "mem/die.h"
#include "sched/inbox.h"

enum { SENDERS = 2, EACH = 2 };

static struct {
    struct rv_inbox in;
    struct rv_msg msg[SENDERS][EACH];
    uint32_t next[SENDERS];     /* the number that must come next from each */
    uint32_t got;
} m;

static void drain(void)
{
    struct rv_msg *msg = rv_inbox_drain(&m.in);
    while (msg) {
        struct rv_msg *next = rv_msg_next(msg);
        RV_MUST(msg->kind < SENDERS);
        RV_MUST(msg->aux == m.next[msg->kind]); /* in the order of its sender, none twice */
        m.next[msg->kind]++;
        m.got++;
        msg = next;
    }
}

static void send_each(void *arg)
{
    uint32_t me = (uint32_t)(uintptr_t)arg;
    for (uint32_t i = 0; i < EACH; i++) {
        m.msg[me][i].kind = (uint8_t)me;
        m.msg[me][i].aux = i;
        rv_inbox_push(&m.in, &m.msg[me][i]);
    }
}

static void drain_three_times(void *arg)
{
    (void)arg;
    for (int i = 0; i < 3; i++)
        drain();
}

static void all_came(void)
{
    drain();
    RV_MUST(rv_inbox_empty(&m.in));
    RV_MUST(m.got == SENDERS * EACH);
}

static const struct explore two_senders = {
    .name = "inbox: two senders",
    .threads = { { "consumer", drain_three_times, NULL },
                 { "sender 0", send_each, (void *)0 },
                 { "sender 1", send_each, (void *)1 } },
    .finish = all_came,
    .preemptions = 5,
    .delays = 2,
};

TEST(every_message_comes_once_in_its_senders_order)
{
    explore(&two_senders);
}

/* A message is sent again as soon as it was drained. */
static void send_again(void *arg)
{
    (void)arg;
    for (int i = 0; i < 3; i++) {
        struct rv_msg *msg = rv_inbox_drain(&m.in);
        while (msg) {
            struct rv_msg *next = rv_msg_next(msg);
            m.got++;
            if (msg->aux++ == 0)
                rv_inbox_push(&m.in, msg);
            msg = next;
        }
    }
}

static void both_sent_again(void)
{
    send_again(NULL);
    RV_MUST(rv_inbox_empty(&m.in));
    RV_MUST(m.got == 4);
}

static void send_one(void *arg)
{
    rv_inbox_push(&m.in, &m.msg[(uintptr_t)arg][0]);
}

static const struct explore again = {
    .name = "inbox: sent again when drained",
    .threads = { { "consumer", send_again, NULL },
                 { "sender 0", send_one, (void *)0 },
                 { "sender 1", send_one, (void *)1 } },
    .finish = both_sent_again,
    .preemptions = 5,
    .delays = 2,
};

TEST(a_drained_message_may_be_sent_again)
{
    explore(&again);
}
