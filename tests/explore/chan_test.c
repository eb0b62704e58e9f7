/* SPDX-License-Identifier: MIT */
/*
 * chan_test.c -- channels and select, in every order: each element comes out once, in its sender's
 * order, and nobody waits for what is there.
 */
#include "tests/explore/explore_main.h"
#include "tests/explore/task_model.h"

#include <reeve/chan.h>

static reeve_chan *chan[2];
static uint64_t got[8];
static uint32_t received;

static void send(int c, uint64_t v)
{
    RV_MUST(reeve_chan_send(chan[c], &v, 0) == 0);
}

static void keep(uint64_t v)
{
    RV_MUST(v >= 1 && v < 8);
    got[received++] = v;
    for (uint32_t i = 0; i + 1 < received; i++)
        RV_MUST(got[i] != v);
}

static void receive(int c)
{
    uint64_t v = 0;
    RV_MUST(reeve_chan_recv(chan[c], &v, 0) == 0);
    keep(v);
}

static void create(int c, size_t capacity)
{
    chan[c] = reeve_chan_create(sizeof(uint64_t), capacity);
    RV_MUST(chan[c] != NULL);
}

/* The channels are empty and nobody waits. */
static void empty(void)
{
    uint64_t v;
    for (int i = 0; i < 2; i++)
        if (chan[i]) {
            int r = reeve_chan_recv(chan[i], &v, REEVE_POLL);
            RV_MUST(r == -ETIMEDOUT || r == -EPIPE);
            reeve_chan_destroy(chan[i]);
        }
}

/* ---- one sender, one receiver ---- */

static int send_three(void *arg)
{
    (void)arg;
    for (uint64_t v = 1; v <= 3; v++)
        send(0, v);
    return 0;
}

static int receive_three(void *arg)
{
    (void)arg;
    for (int i = 0; i < 3; i++)
        receive(0);
    return 0;
}

static void three_in_order(void)
{
    RV_MUST(received == 3 && got[0] == 1 && got[1] == 2 && got[2] == 3);
    empty();
}

static void one_slot(void)
{
    create(0, 1);
    model_task(0, send_three);
    model_task(1, receive_three);
}

static const struct explore buffered = {
    .name = "chan: one slot",
    .setup = one_slot,
    .threads = { MODEL_TASK(0), MODEL_TASK(1) },
    .finish = three_in_order,
    .preemptions = 3,
    .delays = 1,
};

TEST(elements_pass_a_slot_in_order)
{
    explore(&buffered);
}

static void no_slot(void)
{
    create(0, 0);
    model_task(0, send_three);
    model_task(1, receive_three);
}

static const struct explore rendezvous = {
    .name = "chan: rendezvous",
    .setup = no_slot,
    .threads = { MODEL_TASK(0), MODEL_TASK(1) },
    .finish = three_in_order,
    .preemptions = 3,
    .delays = 1,
};

TEST(elements_pass_from_hand_to_hand_in_order)
{
    explore(&rendezvous);
}

/* ---- two senders ---- */

static int send_one(void *arg)
{
    (void)arg;
    send(0, 1);
    return 0;
}

static int send_two(void *arg)
{
    (void)arg;
    send(0, 2);
    send(0, 3);
    return 0;
}

static void all_three(void)
{
    RV_MUST(received == 3);
    empty();
}

static void two_senders_one_slot(void)
{
    create(0, 1);
    model_task(0, send_one);
    model_task(1, send_two);
    model_task(2, receive_three);
}

static const struct explore two_senders = {
    .name = "chan: two senders",
    .setup = two_senders_one_slot,
    .threads = { MODEL_TASK(0), MODEL_TASK(1), MODEL_TASK(2) },
    .finish = all_three,
    .preemptions = 2,
};

TEST(two_senders_share_a_slot)
{
    explore(&two_senders);
}

/* ---- close, deadline and cancellation ---- */

static int close_it(void *arg)
{
    (void)arg;
    reeve_chan_close(chan[0]);
    return 0;
}

static int send_or_closed(void *arg)
{
    uint64_t v = 1;
    (void)arg;
    int r = reeve_chan_send(chan[0], &v, 0);
    RV_MUST(r == 0 || r == -EPIPE);
    return r;
}

static int receive_or_closed(void *arg)
{
    uint64_t v = 0;
    (void)arg;
    int r = reeve_chan_recv(chan[0], &v, 0);
    RV_MUST(r == 0 || r == -EPIPE);
    if (r == 0)
        keep(v);
    return r;
}

static void what_was_sent_came(void)
{
    uint64_t v;
    while (reeve_chan_recv(chan[0], &v, REEVE_POLL) == 0)
        keep(v);
    RV_MUST(received == (model.result[0] == 0));
    empty();
}

static void closed_slot(void)
{
    create(0, 1);
    model_task(0, send_or_closed);
    model_task(1, receive_or_closed);
    model_task(2, close_it);
}

static void closed_rendezvous(void)
{
    create(0, 0);
    model_task(0, send_or_closed);
    model_task(1, receive_or_closed);
    model_task(2, close_it);
}

static const struct explore closing = {
    .name = "chan: send, receive and close",
    .setup = closed_slot,
    .threads = { MODEL_TASK(0), MODEL_TASK(1), MODEL_TASK(2) },
    .finish = what_was_sent_came,
    .preemptions = 2,
    .delays = 1,
};

static const struct explore closing_rendezvous = {
    .name = "chan: rendezvous and close",
    .setup = closed_rendezvous,
    .threads = { MODEL_TASK(0), MODEL_TASK(1), MODEL_TASK(2) },
    .finish = what_was_sent_came,
    .preemptions = 3,
};

TEST(a_close_loses_nothing_that_was_sent)
{
    explore(&closing);
    explore(&closing_rendezvous);
}

static int receive_in_time(void *arg)
{
    uint64_t v = 0;
    (void)arg;
    int r = reeve_chan_recv(chan[0], &v, explore_now() + 1000);
    RV_MUST(r == 0 || r == -ETIMEDOUT || r == -ECANCELED);
    if (r == 0)
        keep(v);
    return r;
}

static int poll_to_send(void *arg)
{
    uint64_t v = 1;
    (void)arg;
    int r = reeve_chan_send(chan[0], &v, REEVE_POLL);
    RV_MUST(r == 0 || r == -ETIMEDOUT);
    return r;
}

static int cancel_one(void *arg)
{
    (void)arg;
    model_cancel(1);
    return 0;
}

static void timed_rendezvous(void)
{
    create(0, 0);
    model_task(0, poll_to_send);
    model_task(1, receive_in_time);
    model_task(2, cancel_one);
}

/* What a poll handed over was received, although deadline and cancellation came at the same time.
 * */
static const struct explore timed = {
    .name = "chan: a receiver that gives up",
    .setup = timed_rendezvous,
    .threads = { MODEL_TASK(0), MODEL_TASK(1), MODEL_TASK(2) },
    .finish = what_was_sent_came,
    .preemptions = 3,
};

TEST(an_element_is_not_lost_to_a_receiver_that_gives_up)
{
    explore(&timed);
}

/* ---- select ---- */

static int select_two(void *arg)
{
    (void)arg;
    for (int i = 0; i < 2; i++) {
        uint64_t v = 0;
        struct reeve_case cases[] = { { .chan = chan[0], .recv = &v },
                                      { .chan = chan[1], .recv = &v } };
        int r = reeve_chan_select(cases, 2, 0);
        RV_MUST(r == 0 || r == 1);
        RV_MUST(cases[r].ret_result == 0);
        RV_MUST(v == (uint64_t)r + 1); /* what was sent on that channel */
        keep(v);
    }
    return 0;
}

static int send_first(void *arg)
{
    (void)arg;
    send(0, 1);
    return 0;
}

static int send_second(void *arg)
{
    (void)arg;
    send(1, 2);
    return 0;
}

static void both_came(void)
{
    RV_MUST(received == 2);
    empty();
}

static void select_from(size_t capacity)
{
    create(0, capacity);
    create(1, capacity);
    model_task(0, select_two);
    model_task(1, send_first);
    model_task(2, send_second);
}

static void select_buffered(void)
{
    select_from(1);
}

static void select_rendezvous(void)
{
    select_from(0);
}

static const struct explore select_from_slots = {
    .name = "select: two channels with a slot",
    .setup = select_buffered,
    .threads = { MODEL_TASK(0), MODEL_TASK(1), MODEL_TASK(2) },
    .finish = both_came,
    .preemptions = 2,
};

static const struct explore select_from_hands = {
    .name = "select: two channels without",
    .setup = select_rendezvous,
    .threads = { MODEL_TASK(0), MODEL_TASK(1), MODEL_TASK(2) },
    .finish = both_came,
    .preemptions = 2,
};

TEST(a_select_takes_one_of_two)
{
    explore(&select_from_slots);
    explore(&select_from_hands);
}

/* Two selects, each of which may send or receive, meet each other. */
static int select_either(void *arg)
{
    (void)arg;
    unsigned me = (unsigned)explore_self();
    uint64_t out = me + 1, in = 0;
    struct reeve_case cases[] = { { .chan = chan[0], .send = &out },
                                  { .chan = chan[0], .recv = &in } };
    int r = reeve_chan_select(cases, 2, 0);
    RV_MUST(r == 0 || r == 1);
    RV_MUST(cases[r].ret_result == 0);
    model.count[r]++;
    if (r == 1)
        RV_MUST(in == 2 - me);
    return 0;
}

static void two_selects(void)
{
    create(0, 0);
    model_task(0, select_either);
    model_task(1, select_either);
}

static void met(void)
{
    RV_MUST(model.count[0] == 1 && model.count[1] == 1);
    empty();
}

static const struct explore meeting = {
    .name = "select: two selects meet",
    .setup = two_selects,
    .threads = { MODEL_TASK(0), MODEL_TASK(1) },
    .finish = met,
    .preemptions = 3,
    .delays = 1,
};

TEST(two_selects_meet_each_other)
{
    explore(&meeting);
}
