/* SPDX-License-Identifier: MIT */
/*
 * select_test.c -- sched/select.c: one case of many, a fair choice, and never two.
 */
#define CHECK_MAIN
#include "tests/sched/host.h"

#include <reeve/chan.h>

#include "sched/chan.h"

enum { UNSET = 1234 };

/* Races are run for so many rounds, or on a machine that is busy with other things for so long. */
static int64_t enough_at(void)
{
    return rv_clock_ns() + 2 * REEVE_SEC;
}
static bool is_enough(int64_t at, uint32_t round)
{
    return round % 32 == 31 && rv_clock_ns() > at;
}

static reeve_chan *ints(size_t cap)
{
    reeve_chan *c = reeve_chan_create(sizeof(int64_t), cap);
    CHECK(c != NULL);
    return c;
}

static void put_int(reeve_chan *c, int64_t v)
{
    CHECK_EQ(reeve_chan_send(c, &v, REEVE_POLL), 0);
}

static int64_t take_int(reeve_chan *c)
{
    int64_t v = -1;
    int r = reeve_chan_recv(c, &v, REEVE_POLL);
    return r < 0 ? r : v;
}

/* ---- what is ready now: any thread ---- */

TEST(bad_input_is_refused)
{
    reeve_chan *c = ints(1);
    int64_t v = 0;
    struct reeve_case one = { .chan = c, .recv = &v, .ret_result = UNSET };
    struct reeve_case both = { .chan = c, .recv = &v, .send = &v };
    static struct reeve_case too_many[65536];
    CHECK_EQ(reeve_chan_select(NULL, 0, 0), -EINVAL);
    CHECK_EQ(reeve_chan_select(&one, 0, REEVE_POLL), -EINVAL);
    CHECK_EQ(reeve_chan_select(&one, -1, 0), -EINVAL);
    CHECK_EQ(reeve_chan_select(&both, 1, REEVE_POLL), -EINVAL);
    CHECK_EQ(reeve_chan_select(too_many, 65536, REEVE_POLL), -EINVAL);
    CHECK_EQ(reeve_chan_select(too_many, 65535, REEVE_POLL), -ETIMEDOUT);
    CHECK_DIES("reeve_chan_select was called outside a task", reeve_chan_select(&one, 1, 0));
    CHECK_EQ(one.ret_result, UNSET);
    reeve_chan_destroy(c);
}

TEST(only_a_ready_case_is_done_and_only_it_is_touched)
{
    reeve_chan *empty = ints(1), *full = ints(1), *meet = ints(0), *ready = ints(2);
    put_int(full, 1);
    int64_t v[4] = { -1, -2, -3, -4 };
    struct reeve_case c[] = {
        { .ret_result = UNSET },
        { .chan = empty, .recv = &v[0], .ret_result = UNSET },
        { .chan = full, .send = &v[1], .ret_result = UNSET },
        { .chan = meet, .send = &v[1], .ret_result = UNSET },
        { .chan = meet, .recv = &v[2], .ret_result = UNSET },
        { .chan = ready, .recv = &v[3], .ret_result = UNSET },
    };
    CHECK_EQ(reeve_chan_select(c, 6, REEVE_POLL), -ETIMEDOUT);
    for (int64_t i = 10; i < 20; i++) {
        put_int(ready, i);
        CHECK_EQ(reeve_chan_select(c, 6, REEVE_POLL), 5);
        CHECK_EQ(v[3], i);
        CHECK_EQ(c[5].ret_result, 0);
        for (int k = 0; k < 5; k++)
            CHECK_EQ(c[k].ret_result, UNSET);
        CHECK_EQ(v[0] + v[1] + v[2], -6);
    }
    CHECK_EQ(reeve_chan_select(c, 6, REEVE_POLL), -ETIMEDOUT);
    CHECK_EQ(take_int(full), 1);
    CHECK_EQ(reeve_chan_select(c, 6, REEVE_POLL), 2);
    CHECK_EQ(take_int(full), -2);
    reeve_chan_destroy(empty);
    reeve_chan_destroy(full);
    reeve_chan_destroy(meet);
    reeve_chan_destroy(ready);
}

TEST(a_closed_channel_is_ready)
{
    for (size_t cap = 0; cap < 3; cap++) {
        reeve_chan *c = ints(cap);
        int64_t v = 6;
        struct reeve_case out = { .chan = c, .send = &v }, in = { .chan = c, .recv = &v };
        for (size_t i = 0; i < cap; i++)
            put_int(c, 5);
        reeve_chan_close(c);
        CHECK_EQ(reeve_chan_select(&out, 1, 0), 0);
        CHECK_EQ(out.ret_result, -EPIPE);
        for (size_t i = 0; i < cap; i++) {
            in.ret_result = UNSET;
            CHECK_EQ(reeve_chan_select(&in, 1, 0), 0);
            CHECK_EQ(in.ret_result, 0);
            CHECK_EQ(v, 5);
        }
        v = 6;
        CHECK_EQ(reeve_chan_select(&in, 1, 0), 0);
        CHECK_EQ(in.ret_result, -EPIPE);
        CHECK_EQ(v, 6);
        reeve_chan_destroy(c);
    }
}

TEST(signals_can_be_sent_and_received)
{
    reeve_chan *c = reeve_chan_create(0, 1);
    struct reeve_case out = { .chan = c, .send = c }, in = { .chan = c };
    CHECK_EQ(reeve_chan_select(&in, 1, REEVE_POLL), -ETIMEDOUT);
    CHECK_EQ(reeve_chan_select(&out, 1, REEVE_POLL), 0);
    CHECK_EQ(reeve_chan_select(&out, 1, REEVE_POLL), -ETIMEDOUT);
    CHECK_EQ(reeve_chan_select(&in, 1, REEVE_POLL), 0);
    reeve_chan_destroy(c);
}

/* ---- the choice is fair ---- */

enum { CASES = 5, DRAWS = 10000 };

/* Chi-square of n counts that should be equal. */
static double chi_square(const int counts[], int n)
{
    double sum = 0, chi = 0;
    for (int i = 0; i < n; i++)
        sum += counts[i];
    for (int i = 0; i < n; i++)
        chi += (counts[i] - sum / n) * (counts[i] - sum / n) / (sum / n);
    return chi;
}

/* Every set of at least two ready cases: each of those is as likely as the others, and so whatever
 * lies between them. With that many draws the chance that a fair choice is taken for an unfair one
 * is less than one in ten thousand per set, and the numbers drawn are the same in every run. */
static int draws(void *arg)
{
    static const double bound[CASES + 1] = { 0, 0, 17, 20, 23, 26 };
    (void)arg;
    reeve_chan *chans[CASES];
    struct reeve_case c[CASES];
    for (unsigned set = 1; set < 1u << CASES; set++) {
        int n = 0, counts[CASES] = { 0 }, of_ready[CASES];
        for (int i = 0; i < CASES; i++) {
            chans[i] = ints(1);
            c[i] = (struct reeve_case){ .chan = chans[i] };
            if (set >> i & 1)
                put_int(chans[i], i);
        }
        for (uint32_t k = 0; k < host_times(DRAWS); k++) {
            int i = (int)CHECK_OK(reeve_chan_select(c, CASES, 0));
            counts[i]++;
            put_int(chans[i], i);
        }
        for (int i = 0; i < CASES; i++)
            if (set >> i & 1)
                of_ready[n++] = counts[i];
            else
                CHECK_EQ(counts[i], 0);
        CHECK(n == 1 || chi_square(of_ready, n) < bound[n]);
        for (int i = 0; i < CASES; i++)
            reeve_chan_destroy(chans[i]);
    }
    return 0;
}

TEST(each_ready_case_is_as_likely)
{
    CHECK_EQ(host_run_virtual(1, draws, NULL), 0);
}

TEST(each_ready_case_is_as_likely_outside_a_task)
{
    draws(NULL);
}

/* ---- waiting ---- */

/* A task that selects once among n cases. */
struct selects {
    struct reeve_case *c;
    int n;
    reeve_time until;
    int r;
    bool began;
};

static int selects_once(void *arg)
{
    struct selects *a = arg;
    a->began = true;
    a->r = reeve_chan_select(a->c, a->n, a->until);
    return 0;
}

static reeve_task *start(struct selects *a)
{
    reeve_task *t;
    a->began = false;
    a->r = UNSET;
    CHECK_OK(reeve_spawn(&t, selects_once, a));
    while (!a->began)
        CHECK_OK(reeve_sleep(0));
    CHECK_OK(reeve_sleep(0));
    CHECK_EQ(a->r, UNSET);
    return t;
}

static int waits_for_each_in_turn(void *arg)
{
    (void)arg;
    for (size_t cap = 0; cap < 2; cap++) {
        for (int which = 0; which < 12; which++) {
            reeve_chan *chans[12];
            struct reeve_case c[13] = { { .chan = NULL } };
            int64_t out = 70, in = -1;
            for (int i = 0; i < 12; i++) { /* even ones receive, odd ones send; more than eight */
                chans[i] = ints(cap);
                c[i] = (struct reeve_case){ .chan = chans[i], .ret_result = UNSET };
                if (i % 2 == 0)
                    c[i].recv = &in;
                else
                    c[i].send = &out;
                for (size_t k = 0; i % 2 && k < cap; k++)
                    put_int(chans[i], 1);
            }
            struct selects a = { .c = c, .n = 13 };
            reeve_task *t = start(&a);
            if (which % 2 == 0) {
                put_int(chans[which], 55);
            } else {
                CHECK_EQ(take_int(chans[which]), cap ? 1 : 70);
                if (cap)
                    CHECK_EQ(take_int(chans[which]), 70);
            }
            CHECK_OK(reeve_join(t, NULL, 0));
            CHECK_EQ(a.r, which);
            for (int i = 0; i < 12; i++) {
                CHECK_EQ(c[i].ret_result, i == which ? 0 : UNSET);
                reeve_chan_destroy(chans[i]); /* no record is left in any */
            }
            CHECK_EQ(in, which % 2 == 0 ? 55 : -1);
        }
    }
    return 0;
}

TEST(a_waiting_select_is_served_through_any_case)
{
    CHECK_EQ(host_run_virtual(1, waits_for_each_in_turn, NULL), 0);
    CHECK_EQ(host_run_virtual(2, waits_for_each_in_turn, NULL), 0);
}

static int ends_without_a_case(void *arg)
{
    (void)arg;
    for (size_t cap = 0; cap < 2; cap++) {
        reeve_chan *x = ints(cap), *y = ints(cap);
        int64_t in;
        struct reeve_case c[] = { { .chan = x, .recv = &in }, { .chan = y, .recv = &in }, { 0 } };
        reeve_time at = reeve_in(REEVE_MS);
        CHECK_EQ(reeve_chan_select(c, 3, at), -ETIMEDOUT);
        CHECK_EQ(reeve_now(), at);
        CHECK_EQ(reeve_chan_select(c + 2, 1, reeve_in(REEVE_MS)), -ETIMEDOUT);
        struct selects a = { .c = c, .n = 3 };
        reeve_task *t = start(&a);
        reeve_cancel(t);
        CHECK_OK(reeve_join(t, NULL, 0));
        CHECK_EQ(a.r, -ECANCELED);
        t = start(&a);
        reeve_chan_close(y);
        CHECK_OK(reeve_join(t, NULL, 0));
        CHECK_EQ(a.r, 1);
        CHECK_EQ(c[1].ret_result, -EPIPE);
        CHECK_EQ(c[0].ret_result, 0);
        reeve_chan_destroy(x);
        reeve_chan_destroy(y);
    }
    return 0;
}

TEST(deadline_cancellation_and_close_end_a_select)
{
    CHECK_EQ(host_run_virtual(1, ends_without_a_case, NULL), 0);
}

/* A case was done, and the select not yet woken, when something else would end its wait. */
static int served_then_cancelled(void *arg)
{
    (void)arg;
    for (int late = 0; late < 2; late++) {
        reeve_chan *x = ints(0), *y = ints(1);
        int64_t in = -1, v = 9;
        struct reeve_case c[] = { { .chan = x, .recv = &in }, { .chan = y, .recv = &in } };
        struct selects a = { .c = c, .n = 2 };
        reeve_task *t = start(&a);
        struct rv_chan_waiter *served;
        rv_chan_lock(y);
        CHECK_EQ(rv_chan_put(y, &v, &served), 0);
        rv_chan_unlock(y);
        CHECK_EQ(reeve_chan_send(x, &v, REEVE_POLL), -ETIMEDOUT); /* it is not to be had twice */
        CHECK(!rv_wait_fire(served->w.sched, rv_worker_self(), served->w.token,
                            late ? RV_TIMED_OUT : RV_CANCELLED, UINT32_MAX));
        rv_chan_wake(served);
        CHECK_OK(reeve_join(t, NULL, 0));
        CHECK_EQ(a.r, 1);
        CHECK_EQ(in, 9);
        CHECK_EQ(take_int(y), -ETIMEDOUT);
        reeve_chan_destroy(x);
        reeve_chan_destroy(y);
    }
    return 0;
}

TEST(a_case_that_was_done_beats_deadline_and_cancellation)
{
    CHECK_EQ(host_run_virtual(1, served_then_cancelled, NULL), 0);
}

static int passes_by_the_served(void *arg)
{
    (void)arg;
    for (size_t cap = 0; cap < 2; cap++) {
        reeve_chan *x = ints(cap), *y = ints(cap);
        int64_t in = -1, second = -1;
        struct reeve_case c[] = { { .chan = x, .recv = &in }, { .chan = y, .recv = &in } };
        struct reeve_case behind = { .chan = y, .recv = &second };
        struct selects a = { .c = c, .n = 2 }, b = { .c = &behind, .n = 1 };
        reeve_task *t = start(&a), *u = start(&b);
        put_int(x, 1); /* the first select's; it has not run since */
        put_int(y, 2); /* so this is for the one behind it */
        CHECK_OK(reeve_join(t, NULL, 0));
        CHECK_OK(reeve_join(u, NULL, 0));
        CHECK_EQ(a.r, 0);
        CHECK_EQ(in, 1);
        CHECK_EQ(second, 2);
        reeve_chan_destroy(x);
        reeve_chan_destroy(y);
    }
    return 0;
}

TEST(a_select_that_was_served_is_passed_by)
{
    CHECK_EQ(host_run_virtual(1, passes_by_the_served, NULL), 0);
}

/* The full channel's gap is not the served select's either. */
static int refills_past_the_served(void *arg)
{
    (void)arg;
    reeve_chan *x = ints(1), *y = ints(1);
    put_int(x, 1);
    put_int(y, 2);
    int64_t out = 30;
    struct reeve_case c[] = { { .chan = x, .send = &out }, { .chan = y, .send = &out } };
    struct selects a = { .c = c, .n = 2 };
    reeve_task *t = start(&a);
    CHECK_EQ(take_int(x), 1);
    CHECK_EQ(take_int(y), 2);
    put_int(y, 4); /* there is room: its record there counts no more */
    CHECK_EQ(take_int(x), 30);
    CHECK_EQ(take_int(y), 4);
    CHECK_EQ(take_int(y), -ETIMEDOUT);
    CHECK_OK(reeve_join(t, NULL, 0));
    CHECK_EQ(a.r, 0);
    reeve_chan_destroy(x);
    reeve_chan_destroy(y);
    return 0;
}

TEST(a_gap_is_not_filled_from_a_select_that_was_served)
{
    CHECK_EQ(host_run_virtual(1, refills_past_the_served, NULL), 0);
}

/* ---- a channel in several cases ---- */

static int does_not_meet_itself(void *arg)
{
    (void)arg;
    for (size_t cap = 0; cap < 2; cap++) {
        reeve_chan *c = ints(cap), *d = ints(0);
        int64_t out = 1, in = -1, other = -1;
        struct reeve_case both[] = { { .chan = c, .send = &out }, { .chan = c, .recv = &in },
                                     { .chan = c, .recv = &in },  { .chan = d, .recv = &other },
                                     { .chan = c, .send = &out } };
        if (cap == 0) {
            CHECK_EQ(reeve_chan_select(both, 5, REEVE_POLL), -ETIMEDOUT);
            CHECK_EQ(reeve_chan_select(both, 5, reeve_in(REEVE_MS)), -ETIMEDOUT);
        } else { /* through the slot it may: one after the other */
            int r = reeve_chan_select(both, 5, 0);
            CHECK(r == 0 || r == 4);
            r = reeve_chan_select(both, 5, 0);
            CHECK(r == 1 || r == 2);
            CHECK_EQ(in, 1);
        }
        struct selects a = { .c = both, .n = cap ? 0 : 5 };
        if (cap == 0) {
            reeve_task *t = start(&a);
            int64_t v = 77;
            struct reeve_case one[] = { { .chan = c, .recv = &v }, { .chan = c, .send = &v } };
            int r = (int)CHECK_OK(reeve_chan_select(one, 2, 0));
            CHECK_OK(reeve_join(t, NULL, 0));
            CHECK(r == 0 ? a.r == 0 || a.r == 4 : a.r == 1 || a.r == 2);
            CHECK_EQ(r == 0 ? v : in, r == 0 ? 1 : 77);
        }
        reeve_chan_destroy(c);
        reeve_chan_destroy(d);
    }
    return 0;
}

TEST(a_select_does_not_meet_itself_but_others)
{
    for (int i = 0; i < 10; i++)
        CHECK_EQ(host_run_virtual(1, does_not_meet_itself, NULL), 0);
}

static int lacks_memory(void *arg)
{
    (void)arg;
    struct reeve_case c[9] = { { 0 } };
    CHECK_EQ(reeve_chan_select(c, 9, REEVE_POLL), -ETIMEDOUT);
    rv_fault_only("alloc");
    rv_fault_fail_nth(1);
    CHECK_EQ(reeve_chan_select(c, 8, REEVE_POLL), -ETIMEDOUT); /* needs none */
    CHECK_EQ(reeve_chan_select(c, 9, REEVE_POLL), -ENOMEM);
    rv_fault_off();
    return 0;
}

TEST(more_than_eight_cases_need_memory)
{
    if (!rv_fault_available())
        SKIP("built without fault points");
    CHECK_EQ(host_run_virtual(1, lacks_memory, NULL), 0);
}

/* ---- with several workers ---- */

/* Two that are each ready for what the other one offers, on the same two channels. */
struct crossing {
    reeve_chan *c[2];
    uint32_t rounds;
    int64_t until;
    bool apart;
};

struct crosser {
    struct crossing *x;
    int side;
    int64_t moved[2];
};

static int crosses(void *arg)
{
    struct crosser *me = arg;
    struct crossing *x = me->x;
    int64_t in, out = me->side + 1;
    for (uint32_t i = 0; i < x->rounds && !is_enough(x->until, i); i++) {
        struct reeve_case c[] = { { .chan = x->c[me->side], .send = &out },
                                  { .chan = x->c[!me->side], .recv = &in } };
        if (i % 2) { /* in the other order */
            struct reeve_case swap = c[0];
            c[0] = c[1];
            c[1] = swap;
        }
        int r = (int)CHECK_OK(reeve_chan_select(c, 2, 0));
        if (c[r].ret_result == -EPIPE)
            break;
        CHECK_EQ(c[r].ret_result, 0);
        me->moved[c[r].send == NULL]++;
        if (c[r].send == NULL)
            CHECK_EQ(in, 2 - me->side);
    }
    reeve_chan_close(x->c[0]);
    reeve_chan_close(x->c[1]);
    return 0;
}

static int selects_meet_selects(void *arg)
{
    struct crossing *x = arg;
    struct crosser a = { .x = x, .side = 0 }, b = { .x = x, .side = 1 };
    reeve_group g = { 0 };
    int there = x->apart ? 2 : 0; /* on another CPU, or wherever it comes to run */
    CHECK_OK(reeve_go(crosses, &a, .group = &g, .worker = x->apart ? 1 : 0));
    CHECK_OK(reeve_go(crosses, &b, .group = &g, .worker = there));
    CHECK_OK(reeve_group_wait(&g, 0));
    CHECK_EQ(a.moved[0], b.moved[1]);
    CHECK_EQ(b.moved[0], a.moved[1]);
    CHECK_GE(a.moved[0] + a.moved[1], x->rounds < 31 ? x->rounds : 31);
    return 0;
}

TEST(selects_on_each_others_channels_all_meet)
{
    for (uint32_t workers = 1; workers <= 4; workers++) {
        struct crossing x = { .rounds = host_times(20000), .until = enough_at() };
        x.apart = workers == 2;
        x.c[0] = ints(0);
        x.c[1] = ints(0);
        CHECK_EQ(host_run(workers, 100, selects_meet_selects, &x), 0);
        reeve_chan_destroy(x.c[0]);
        reeve_chan_destroy(x.c[1]);
    }
}

/* Tasks that select among all channels, in both directions, with deadlines that pass, while some
 * are cancelled: what was sent is received once. */
enum { CHANS = 3, PEERS = 8 };

struct storm {
    reeve_chan *c[CHANS];
    uint32_t each;
    int64_t until;
    RV_ATOMIC(uint32_t) next;
    RV_ATOMIC(uint64_t) sent, received;
    RV_ATOMIC(unsigned char) *seen; /* per element: 1 its case was done, 2 received */
};

static void note_received(struct storm *s, uint64_t v)
{
    CHECK_EQ(rv_or_relaxed(&s->seen[v], (unsigned char)2) & 2, 0);
    rv_add_relaxed(&s->received, (uint64_t)1);
}

static int storms(void *arg)
{
    struct storm *s = arg;
    uint32_t me = rv_add_relaxed(&s->next, 1u);
    for (uint32_t i = 0; i < s->each && !is_enough(s->until, i); i++) {
        uint64_t out = (uint64_t)me * s->each + i, in[CHANS];
        struct reeve_case c[2 * CHANS + 4] = { { 0 } };
        int n = (me + i) % 3 == 0 ? 2 * CHANS + 4 : 2 * CHANS; /* on the heap, on the stack */
        for (int k = 0; k < CHANS; k++) {
            c[k] = (struct reeve_case){ .chan = s->c[k], .recv = &in[k] };
            c[CHANS + k] = (struct reeve_case){ .chan = s->c[CHANS - 1 - k], .send = &out };
        }
        int from = me % 4 == 0 ? CHANS : 0; /* some only send */
        reeve_time until = i % 5 == 0 ? REEVE_POLL : reeve_in((int64_t)(i % 7) * 1000);
        int r = reeve_chan_select(c + from, n - from, until);
        if (r == -ECANCELED)
            return 0;
        if (r == -ETIMEDOUT)
            continue;
        r = (int)CHECK_OK(r) + from;
        CHECK_EQ(c[r].ret_result, 0);
        if (r >= CHANS) {
            rv_or_relaxed(&s->seen[out], (unsigned char)1);
            rv_add_relaxed(&s->sent, (uint64_t)1);
        } else {
            note_received(s, in[r]);
        }
    }
    return 0;
}

static int has_a_storm(void *arg)
{
    struct storm *s = arg;
    reeve_task *t[PEERS];
    for (int i = 0; i < PEERS; i++)
        CHECK_OK(reeve_spawn(&t[i], storms, s));
    for (int i = 0; i < PEERS; i += 3) {
        CHECK_OK(reeve_sleep(reeve_in(500 * REEVE_US)));
        reeve_cancel(t[i]);
    }
    for (int i = 0; i < PEERS; i++)
        CHECK_OK(reeve_join(t[i], NULL, 0));
    return 0;
}

TEST(what_selects_send_arrives_once)
{
    int64_t until = enough_at();
    for (uint32_t round = 0; round < 12 && rv_clock_ns() < until; round++) {
        struct storm s = { .each = host_times(4000), .until = until };
        for (size_t i = 0; i < CHANS; i++)
            s.c[i] = ints(round % 2 ? i : 0);
        s.seen = rv_alloc_zero((size_t)PEERS * s.each);
        CHECK_EQ(host_run(2 + round % 3, 100, has_a_storm, &s), 0);
        for (int i = 0; i < CHANS; i++) {
            uint64_t v;
            while (reeve_chan_recv(s.c[i], &v, REEVE_POLL) == 0)
                note_received(&s, v);
            reeve_chan_destroy(s.c[i]);
        }
        for (size_t i = 0; i < (size_t)PEERS * s.each; i++)
            CHECK(rv_load_relaxed(&s.seen[i]) == 0 || rv_load_relaxed(&s.seen[i]) == 3);
        CHECK_EQ(rv_load_relaxed(&s.sent), rv_load_relaxed(&s.received));
        rv_free((void *)s.seen);
    }
}

/* ---- a thread that is no worker ---- */

static void *feeds_selects(void *arg)
{
    struct storm *s = arg;
    uint64_t v = 0;
    for (; v < s->each && !is_enough(s->until, (uint32_t)v); v++) {
        struct reeve_case c[CHANS];
        int r;
        for (int k = 0; k < CHANS; k++)
            c[k] = (struct reeve_case){ .chan = s->c[k], .send = &v };
        while ((r = reeve_chan_select(c, CHANS, REEVE_POLL)) == -ETIMEDOUT)
            sched_yield();
        CHECK_EQ(c[CHECK_OK(r)].ret_result, 0);
    }
    for (int k = 0; k < CHANS; k++)
        reeve_chan_close(s->c[k]);
    rv_store_relaxed(&s->sent, v);
    return NULL;
}

static int is_fed(void *arg)
{
    struct storm *s = arg;
    int open = CHANS;
    struct reeve_case c[CHANS];
    uint64_t in;
    for (int k = 0; k < CHANS; k++)
        c[k] = (struct reeve_case){ .chan = s->c[k], .recv = &in };
    while (open > 0) {
        int r = (int)CHECK_OK(reeve_chan_select(c, CHANS, 0));
        if (c[r].ret_result == 0) {
            note_received(s, in);
        } else {
            CHECK_EQ(c[r].ret_result, -EPIPE);
            c[r].chan = NULL;
            open--;
        }
    }
    return 0;
}

TEST(a_thread_that_is_no_worker_selects)
{
    for (size_t cap = 0; cap < 3; cap++) {
        struct storm s = { .each = host_times(5000), .until = enough_at() };
        pthread_t feeder;
        for (size_t i = 0; i < CHANS; i++)
            s.c[i] = ints(cap);
        s.seen = rv_alloc_zero(s.each);
        CHECK_EQ(pthread_create(&feeder, NULL, feeds_selects, &s), 0);
        CHECK_EQ(host_run(2, 100, is_fed, &s), 0);
        CHECK_EQ(pthread_join(feeder, NULL), 0);
        CHECK_EQ(rv_load_relaxed(&s.received), rv_load_relaxed(&s.sent));
        for (int i = 0; i < CHANS; i++)
            reeve_chan_destroy(s.c[i]);
        rv_free((void *)s.seen);
    }
}
