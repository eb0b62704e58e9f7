/* SPDX-License-Identifier: MIT */
/*
 * chan_test.c -- sched/chan.c: order, bounds, ends of waits, and that each element arrives once.
 */
#define CHECK_MAIN
#include "tests/sched/host.h"

#include <reeve/chan.h>

#include "sched/chan.h"

/* Races are run for so many rounds, or on a machine that is busy with other things for so long. */
static int64_t enough_at(void)
{
    return rv_clock_ns() + 2 * REEVE_SEC;
}
static bool is_enough(int64_t at, uint32_t round)
{
    return round % 32 == 31 && rv_clock_ns() > at;
}

static int run_virtual(reeve_fn *fn)
{
    return host_run_virtual(1, fn, NULL);
}

/* A number through a channel of int64_t. */
static int send_int(reeve_chan *c, int64_t v, reeve_time until)
{
    return reeve_chan_send(c, &v, until);
}

static int64_t recv_int(reeve_chan *c, reeve_time until)
{
    int64_t v = -1000;
    int r = reeve_chan_recv(c, &v, until);
    return r < 0 ? r : v;
}

/* ---- without waiting: any thread ---- */

TEST(a_full_channel_refuses_and_an_empty_one_too)
{
    static const size_t caps[] = { 1, 2, 3, 7, 64 };
    for (size_t k = 0; k < sizeof caps / sizeof *caps; k++) {
        reeve_chan *c = reeve_chan_create(sizeof(int64_t), caps[k]);
        CHECK(c != NULL);
        int64_t in = 0, out = 0;
        for (int round = 0; round < 5; round++) {
            for (size_t i = 0; i < caps[k]; i++)
                CHECK_EQ(send_int(c, in++, REEVE_POLL), 0);
            CHECK_EQ(send_int(c, -1, REEVE_POLL), -ETIMEDOUT);
            for (size_t i = 0; i < caps[k] - (size_t)(round % 2); i++)
                CHECK_EQ(recv_int(c, REEVE_POLL), out++);
            for (; out < in; out++)
                CHECK_EQ(recv_int(c, REEVE_POLL), out);
            CHECK_EQ(recv_int(c, REEVE_POLL), -ETIMEDOUT);
        }
        reeve_chan_destroy(c);
    }
}

TEST(elements_of_every_size_arrive_whole)
{
    static const size_t sizes[] = { 1, 3, 7, 8, 9, 16, 100, 5000 };
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        unsigned char sent[5000], got[5001];
        reeve_chan *c = reeve_chan_create(sizes[k], 3);
        CHECK(c != NULL);
        for (int i = 0; i < 20; i++) {
            memset(sent, i, sizes[k]);
            sent[sizes[k] - 1] ^= 0x55;
            memset(got, 0xee, sizeof got);
            CHECK_EQ(reeve_chan_send(c, sent, REEVE_POLL), 0);
            CHECK_EQ(reeve_chan_recv(c, got, REEVE_POLL), 0);
            CHECK_MEM_EQ(sent, got, sizes[k]);
            CHECK_EQ(got[sizes[k]], 0xee);
        }
        reeve_chan_destroy(c);
    }
}

TEST(signals_have_no_bytes)
{
    reeve_chan *c = reeve_chan_create(0, 2);
    CHECK_EQ(reeve_chan_send(c, NULL, REEVE_POLL), 0);
    CHECK_EQ(reeve_chan_send(c, "", REEVE_POLL), 0);
    CHECK_EQ(reeve_chan_send(c, NULL, REEVE_POLL), -ETIMEDOUT);
    CHECK_EQ(reeve_chan_recv(c, NULL, REEVE_POLL), 0);
    CHECK_EQ(reeve_chan_recv(c, NULL, REEVE_POLL), 0);
    CHECK_EQ(reeve_chan_recv(c, NULL, REEVE_POLL), -ETIMEDOUT);
    reeve_chan_destroy(c);
    c = reeve_chan_create(0, SIZE_MAX); /* they need no memory, however many */
    CHECK(c != NULL);
    CHECK_EQ(reeve_chan_send(c, NULL, REEVE_POLL), 0);
    reeve_chan_destroy(c);
}

TEST(an_element_can_be_dropped_but_not_made_up)
{
    reeve_chan *c = reeve_chan_create(sizeof(int64_t), 2);
    CHECK_EQ(reeve_chan_send(c, NULL, REEVE_POLL), -EINVAL);
    CHECK_EQ(send_int(c, 1, REEVE_POLL), 0);
    CHECK_EQ(send_int(c, 2, REEVE_POLL), 0);
    CHECK_EQ(reeve_chan_recv(c, NULL, REEVE_POLL), 0);
    CHECK_EQ(recv_int(c, REEVE_POLL), 2);
    reeve_chan_destroy(c);
}

TEST(a_closed_channel_is_drained_first)
{
    for (size_t cap = 0; cap < 4; cap++) {
        reeve_chan *c = reeve_chan_create(sizeof(int64_t), cap);
        for (size_t i = 0; i < cap; i++)
            CHECK_EQ(send_int(c, (int64_t)i, REEVE_POLL), 0);
        reeve_chan_close(c);
        reeve_chan_close(c);
        CHECK_EQ(send_int(c, -1, REEVE_POLL), -EPIPE);
        CHECK_EQ(send_int(c, -1, 0), -EPIPE);
        for (size_t i = 0; i < cap; i++)
            CHECK_EQ(recv_int(c, 0), i);
        int64_t untouched = 77;
        CHECK_EQ(reeve_chan_recv(c, &untouched, REEVE_POLL), -EPIPE);
        CHECK_EQ(reeve_chan_recv(c, &untouched, 0), -EPIPE);
        CHECK_EQ(untouched, 77);
        CHECK_EQ(send_int(c, -1, 0), -EPIPE);
        reeve_chan_destroy(c);
    }
}

TEST(a_locked_take_drains_first_too)
{
    reeve_chan *c = reeve_chan_create(sizeof(int64_t), 1);
    struct rv_chan_waiter *served;
    int64_t v = 0;
    CHECK_EQ(send_int(c, 4, REEVE_POLL), 0);
    reeve_chan_close(c);
    rv_chan_lock(c);
    CHECK_EQ(rv_chan_put(c, &v, &served), -EPIPE);
    CHECK_EQ(rv_chan_take(c, &v, &served), 0);
    CHECK_EQ(v, 4);
    CHECK_EQ(rv_chan_take(c, &v, &served), -EPIPE);
    rv_chan_unlock(c);
    reeve_chan_destroy(c);
}

TEST(a_size_that_overflows_is_refused)
{
    CHECK(reeve_chan_create(SIZE_MAX, 2) == NULL);
    CHECK(reeve_chan_create(2, SIZE_MAX) == NULL);
    CHECK(reeve_chan_create(SIZE_MAX / 2 + 1, 2) == NULL);
    CHECK(reeve_chan_create(1, SIZE_MAX) == NULL);
    CHECK(reeve_chan_create(1, SIZE_MAX - 100) == NULL);
    CHECK(reeve_chan_create((size_t)1 << 32, (size_t)1 << 31) == NULL);
    reeve_chan_destroy(NULL);
}

TEST(without_memory_there_is_no_channel)
{
    if (!rv_fault_available())
        SKIP("built without fault points");
    bool failed;
    for (uint64_t n = 1;; n++) {
        rv_fault_fail_nth(n);
        reeve_chan *c = reeve_chan_create(8, 8);
        failed = rv_fault_last_name() != NULL;
        rv_fault_off();
        CHECK_EQ(c == NULL, failed);
        reeve_chan_destroy(c);
        if (!failed)
            break;
        CHECK_LT(n, 10);
    }
}

TEST(waiting_outside_a_task_aborts)
{
    reeve_chan *c = reeve_chan_create(sizeof(int64_t), 1), *meet = reeve_chan_create(0, 0);
    CHECK_DIES("reeve_chan_recv was called outside a task", recv_int(c, 0));
    CHECK_DIES("reeve_chan_recv was called outside a task", reeve_chan_recv(meet, NULL, 0));
    CHECK_DIES("reeve_chan_send was called outside a task", reeve_chan_send(meet, NULL, 0));
    CHECK_EQ(send_int(c, 1, 0), 0); /* nothing to wait for */
    CHECK_DIES("reeve_chan_send was called outside a task", send_int(c, 1, reeve_in(REEVE_SEC)));
    reeve_chan_destroy(c);
    reeve_chan_destroy(meet);
}

/* ---- who waits is served in order ---- */

enum { MANY = 40 };

struct queue {
    reeve_chan *c;
    int64_t next;    /* of the senders */
    int64_t got[MANY];
    int results[MANY];
    int n;
};

static int sends_its_number(void *arg)
{
    struct queue *q = arg;
    int64_t mine = q->next++;
    int r = send_int(q->c, mine, 0);
    q->results[mine] = r;
    return 0;
}

static int notes_what_it_gets(void *arg)
{
    struct queue *q = arg;
    int64_t mine = q->next++, v = -1;
    int r = reeve_chan_recv(q->c, &v, 0);
    q->results[mine] = r;
    q->got[mine] = v;
    return 0;
}

/* Spawns n tasks that call fn, one after the other, so that they queue in this order. */
static void queue_up(struct queue *q, reeve_group *g, reeve_fn *fn, int n)
{
    memset(q->results, 1, sizeof q->results);
    for (int i = 0; i < n; i++) {
        CHECK_OK(reeve_go(fn, q, .group = g));
        while (q->next <= i)
            CHECK_OK(reeve_sleep(0));
    }
}

static int senders_are_served_in_order(void *arg)
{
    size_t cap = *(size_t *)arg;
    struct queue q = { .c = reeve_chan_create(sizeof(int64_t), cap) };
    reeve_group g = { 0 };
    queue_up(&q, &g, sends_its_number, MANY);
    CHECK_EQ(send_int(q.c, -7, REEVE_POLL), -ETIMEDOUT);
    for (int64_t i = 0; i < MANY; i++) {
        CHECK_EQ(recv_int(q.c, REEVE_POLL), i);
        /* Nobody overtakes who waits: the gap is the next waiter's at once. */
        if (i + (int64_t)cap < MANY - 1)
            CHECK_EQ(send_int(q.c, -7, REEVE_POLL), -ETIMEDOUT);
    }
    CHECK_OK(reeve_group_wait(&g, 0));
    for (int i = 0; i < MANY; i++)
        CHECK_EQ(q.results[i], 0);
    reeve_chan_destroy(q.c);
    return 0;
}

static int receivers_are_served_in_order(void *arg)
{
    size_t cap = *(size_t *)arg;
    struct queue q = { .c = reeve_chan_create(sizeof(int64_t), cap) };
    reeve_group g = { 0 };
    queue_up(&q, &g, notes_what_it_gets, MANY);
    for (int64_t i = 0; i < MANY; i++) {
        CHECK_EQ(send_int(q.c, i, REEVE_POLL), 0);
        CHECK_EQ(recv_int(q.c, REEVE_POLL), -ETIMEDOUT); /* it is a waiter's already */
    }
    CHECK_OK(reeve_group_wait(&g, 0));
    for (int i = 0; i < MANY; i++) {
        CHECK_EQ(q.results[i], 0);
        CHECK_EQ(q.got[i], i);
    }
    reeve_chan_destroy(q.c);
    return 0;
}

TEST(who_waits_is_served_in_order_and_not_overtaken)
{
    for (size_t cap = 0; cap < 4; cap++) {
        CHECK_EQ(host_run_virtual(1, senders_are_served_in_order, &cap), 0);
        CHECK_EQ(host_run_virtual(1, receivers_are_served_in_order, &cap), 0);
        CHECK_EQ(host_run_virtual(3, senders_are_served_in_order, &cap), 0);
        CHECK_EQ(host_run_virtual(3, receivers_are_served_in_order, &cap), 0);
    }
}

static int close_wakes_all(void *arg)
{
    size_t cap = *(size_t *)arg;
    for (int receivers = 0; receivers < 2; receivers++) {
        struct queue q = { .c = reeve_chan_create(sizeof(int64_t), cap) };
        reeve_group g = { 0 };
        for (size_t i = 0; !receivers && i < cap; i++)
            CHECK_EQ(send_int(q.c, 100, REEVE_POLL), 0);
        queue_up(&q, &g, receivers ? notes_what_it_gets : sends_its_number, MANY);
        reeve_chan_close(q.c);
        CHECK_OK(reeve_group_wait(&g, 0));
        for (int i = 0; i < MANY; i++)
            CHECK_EQ(q.results[i], -EPIPE);
        for (size_t i = 0; !receivers && i < cap; i++) /* theirs were not sent */
            CHECK_EQ(recv_int(q.c, REEVE_POLL), 100);
        CHECK_EQ(recv_int(q.c, REEVE_POLL), -EPIPE);
        reeve_chan_destroy(q.c);
    }
    return 0;
}

TEST(a_close_wakes_all_who_wait)
{
    for (size_t cap = 0; cap < 3; cap++)
        CHECK_EQ(host_run_virtual(1, close_wakes_all, &cap), 0);
}

static int one_waits_while_it_is_destroyed(void *arg)
{
    struct queue q = { .c = reeve_chan_create(sizeof(int64_t), *(size_t *)arg) };
    reeve_group g = { 0 };
    queue_up(&q, &g, notes_what_it_gets, 1);
    reeve_chan_destroy(q.c);
    return 0;
}

TEST(destroying_under_a_waiter_aborts)
{
    for (size_t cap = 0; cap < 2; cap++)
        CHECK_DIES("a task still waits on the channel",
                   host_run_virtual(1, one_waits_while_it_is_destroyed, &cap));
}

/* ---- waits that end without a transfer, and those that do not ---- */

static int deadlines_hold(void *arg)
{
    size_t cap = *(size_t *)arg;
    reeve_chan *c = reeve_chan_create(sizeof(int64_t), cap);
    reeve_time at = reeve_in(REEVE_MS);
    CHECK_EQ(recv_int(c, at), -ETIMEDOUT);
    CHECK_EQ(reeve_now(), at);
    CHECK_EQ(recv_int(c, reeve_now() - 1), -ETIMEDOUT); /* past, not negative */
    for (size_t i = 0; i < cap; i++)
        CHECK_EQ(send_int(c, (int64_t)i, 0), 0);
    at = reeve_in(REEVE_MS);
    CHECK_EQ(send_int(c, -1, at), -ETIMEDOUT);
    CHECK_EQ(reeve_now(), at);
    for (size_t i = 0; i < cap; i++)
        CHECK_EQ(recv_int(c, 0), i);
    CHECK_EQ(recv_int(c, REEVE_POLL), -ETIMEDOUT);
    reeve_chan_destroy(c);
    return 0;
}

TEST(a_deadline_ends_the_wait_and_leaves_nothing_behind)
{
    for (size_t cap = 0; cap < 3; cap++)
        CHECK_EQ(host_run_virtual(1, deadlines_hold, &cap), 0);
}

/* One task that waits, and what comes of it. */
struct waits {
    reeve_chan *c;
    bool sends;
    reeve_time until;
    int64_t value;
    int r;
};

static int waits_once(void *arg)
{
    struct waits *a = arg;
    a->r = a->sends ? reeve_chan_send(a->c, &a->value, a->until)
                    : reeve_chan_recv(a->c, &a->value, a->until);
    return 0;
}

static reeve_task *start_waiting(struct waits *a)
{
    reeve_task *t;
    CHECK_OK(reeve_spawn(&t, waits_once, a));
    CHECK_OK(reeve_sleep(0));
    CHECK_OK(reeve_sleep(0));
    CHECK(rv_chan_queue(a->c, a->sends)->first != NULL);
    return t;
}

static int cancels_who_waits(void *arg)
{
    size_t cap = *(size_t *)arg;
    for (int sends = 0; sends < 2; sends++) {
        struct waits a = { .c = reeve_chan_create(sizeof(int64_t), cap), .sends = sends };
        for (size_t i = 0; sends && i < cap; i++)
            CHECK_EQ(send_int(a.c, 5, 0), 0);
        reeve_task *t = start_waiting(&a);
        reeve_cancel(t);
        CHECK_OK(reeve_join(t, NULL, 0));
        CHECK_EQ(a.r, -ECANCELED);
        for (size_t i = 0; sends && i < cap; i++)
            CHECK_EQ(recv_int(a.c, 0), 5);
        CHECK_EQ(recv_int(a.c, REEVE_POLL), -ETIMEDOUT);
        if (cap == 0)
            CHECK_EQ(send_int(a.c, 1, REEVE_POLL), -ETIMEDOUT);
        reeve_chan_destroy(a.c);
    }
    return 0;
}

TEST(a_cancelled_waiter_leaves_the_queue)
{
    for (size_t cap = 0; cap < 3; cap++)
        CHECK_EQ(host_run_virtual(1, cancels_who_waits, &cap), 0);
}

/* Something other than who served it would end its wait. */
static void end_wait(struct rv_chan_waiter *n, bool late)
{
    CHECK(!rv_wait_fire(n->w.sched, rv_worker_self(), n->w.token,
                       late ? RV_TIMED_OUT : RV_CANCELLED, UINT32_MAX));
}

/* The other side has served the waiter and not yet woken it when something else wants to end the
 * wait. */
static int serves_then_cancels(void *arg)
{
    size_t cap = *(size_t *)arg;
    for (int sends = 0; sends < 2; sends++) {
        for (int late = 0; late < 2; late++) {
            struct waits a = { .c = reeve_chan_create(sizeof(int64_t), cap), .sends = sends };
            for (size_t i = 0; sends && i < cap; i++)
                CHECK_EQ(send_int(a.c, 5, 0), 0);
            a.value = sends ? 8 : -1;
            reeve_task *t = start_waiting(&a);
            int64_t v = 9;
            struct rv_chan_waiter *served;
            rv_chan_lock(a.c);
            CHECK_EQ(sends ? rv_chan_take(a.c, &v, &served) : rv_chan_put(a.c, &v, &served), 0);
            rv_chan_unlock(a.c);
            CHECK(served != NULL);
            end_wait(served, late);
            rv_chan_wake(served); /* a wait that is over */
            CHECK_OK(reeve_join(t, NULL, 0));
            CHECK_EQ(a.r, 0);
            if (!sends)
                CHECK_EQ(a.value, 9);
            else if (cap == 0)
                CHECK_EQ(v, 8);
            for (size_t i = 0; sends && i < cap; i++)
                CHECK_EQ(recv_int(a.c, REEVE_POLL), i + 1 == cap ? 8 : 5);
            CHECK_EQ(recv_int(a.c, REEVE_POLL), -ETIMEDOUT);
            reeve_chan_destroy(a.c);
        }
    }
    return 0;
}

/* The same, and the channel is gone by the time the waiter runs. */
static int serves_and_destroys(void *arg)
{
    size_t cap = *(size_t *)arg;
    for (int sends = 0; sends < (cap ? 1 : 2); sends++) {
        struct waits a = { .c = reeve_chan_create(sizeof(int64_t), cap), .sends = sends };
        reeve_task *t = start_waiting(&a);
        int64_t v = 9;
        struct rv_chan_waiter *served;
        rv_chan_lock(a.c);
        CHECK_EQ(sends ? rv_chan_take(a.c, &v, &served) : rv_chan_put(a.c, &v, &served), 0);
        rv_chan_unlock(a.c);
        end_wait(served, false);
        memset(a.c, 0xee, sizeof *a.c); /* whoever took a lock now would not get it */
        rv_free(a.c);
        rv_chan_wake(served);
        CHECK_OK(reeve_join(t, NULL, 0));
        CHECK_EQ(a.r, 0);
    }
    return 0;
}

TEST(who_was_served_does_not_come_back_to_the_channel)
{
    for (size_t cap = 0; cap < 2; cap++)
        CHECK_EQ(host_run_virtual(1, serves_and_destroys, &cap), 0);
}

TEST(what_was_transferred_beats_deadline_and_cancellation)
{
    for (size_t cap = 0; cap < 3; cap++)
        CHECK_EQ(host_run_virtual(1, serves_then_cancels, &cap), 0);
}

static int goes_on_cancelled(void *arg)
{
    reeve_chan *c = arg;
    CHECK_EQ(reeve_sleep(reeve_in(REEVE_SEC)), -ECANCELED);
    CHECK_EQ(send_int(c, 3, 0), 0);
    CHECK_EQ(recv_int(c, 0), 3);
    CHECK_EQ(recv_int(c, 0), -ECANCELED);
    CHECK_EQ(recv_int(c, REEVE_POLL), -ETIMEDOUT);
    CHECK_EQ(send_int(c, 4, 0), 0);
    CHECK_EQ(send_int(c, 5, 0), -ECANCELED);
    return 0;
}

static int cancels_one(void *arg)
{
    (void)arg;
    reeve_chan *c = reeve_chan_create(sizeof(int64_t), 1);
    reeve_task *t;
    CHECK_OK(reeve_spawn(&t, goes_on_cancelled, c));
    CHECK_OK(reeve_sleep(0));
    reeve_cancel(t);
    CHECK_OK(reeve_join(t, NULL, 0));
    CHECK_EQ(recv_int(c, 0), 4);
    reeve_chan_destroy(c);
    return 0;
}

TEST(a_cancelled_task_does_what_it_need_not_wait_for)
{
    CHECK_EQ(run_virtual(cancels_one), 0);
}

/* ---- fairness ---- */

struct streams {
    reeve_chan *c;
    RV_ATOMIC(bool) over;
};

static int sends_to_itself(void *arg)
{
    struct streams *a = arg;
    for (int64_t i = 0; !rv_load_relaxed(&a->over); i++) {
        CHECK_EQ(send_int(a->c, i, 0), 0);
        CHECK_EQ(recv_int(a->c, 0), i);
    }
    return 0;
}

static int ends_the_stream(void *arg)
{
    rv_store_relaxed(&((struct streams *)arg)->over, true);
    return 0;
}

static int runs_a_stream(void *arg)
{
    (void)arg;
    struct streams a = { .c = reeve_chan_create(sizeof(int64_t), 8) };
    reeve_group g = { 0 };
    CHECK_OK(reeve_go(ends_the_stream, &a, .group = &g));
    sends_to_itself(&a);
    CHECK_OK(reeve_group_wait(&g, 0));
    reeve_chan_destroy(a.c);
    return 0;
}

TEST(a_task_that_never_has_to_wait_lets_others_run)
{
    CHECK_EQ(host_run(1, 100, runs_a_stream, NULL), 0);
}

/* ---- each element arrives once ---- */

enum { PEERS = 6 };

struct traffic {
    struct host *h;
    reeve_chan *c;
    uint32_t each;              /* elements that a producer tries to send */
    int64_t until;              /* or until then */
    bool impatient;             /* with deadlines so short that many calls fail */
    RV_ATOMIC(uint32_t) next;   /* producer */
    RV_ATOMIC(uint32_t) sent, received, producing;
    RV_ATOMIC(unsigned char) *seen; /* per element: 1 its send said 0, 2 received */
    reeve_task *peers[2 * PEERS];
};

static reeve_time impatience(const struct traffic *t, uint32_t i)
{
    return !t->impatient ? 0 : i % 7 == 0 ? REEVE_POLL : reeve_in((int64_t)(i % 5) * 2000);
}

static int produces(void *arg)
{
    struct traffic *t = arg;
    uint32_t me = rv_add_relaxed(&t->next, 1u);
    for (uint32_t i = 0; i < t->each && !is_enough(t->until, i); i++) {
        uint64_t v = (uint64_t)me << 32 | i;
        int r = reeve_chan_send(t->c, &v, impatience(t, i));
        if (r == 0) {
            rv_or_relaxed(&t->seen[me * t->each + i], (unsigned char)1);
            rv_add_relaxed(&t->sent, 1u);
        }
        CHECK(r == 0 || r == -EPIPE || r == -ECANCELED || (t->impatient && r == -ETIMEDOUT));
        if (r == -ECANCELED || r == -EPIPE)
            break;
    }
    if (rv_sub_acq_rel(&t->producing, 1u) == 1)
        reeve_chan_close(t->c);
    return 0;
}

static int consumes(void *arg)
{
    struct traffic *t = arg;
    int64_t last[PEERS];
    memset(last, -1, sizeof last);
    for (uint32_t i = 0;; i++) {
        uint64_t v;
        int r = reeve_chan_recv(t->c, &v, impatience(t, i));
        if (r == -EPIPE || r == -ECANCELED)
            return 0;
        if (r == -ETIMEDOUT && t->impatient)
            continue;
        CHECK_EQ(r, 0);
        uint32_t from = (uint32_t)(v >> 32), n = (uint32_t)v;
        CHECK_LT(from, PEERS);
        CHECK_LT(last[from], n); /* of one producer, in its order */
        last[from] = n;
        CHECK_EQ(rv_or_relaxed(&t->seen[from * t->each + n], (unsigned char)2) & 2, 0);
        rv_add_relaxed(&t->received, 1u);
    }
}

static int has_traffic(void *arg)
{
    struct traffic *t = arg;
    reeve_group g = { 0 };
    rv_store_relaxed(&t->producing, (uint32_t)PEERS);
    for (int i = 0; i < PEERS; i++) {
        CHECK_OK(reeve_spawn(&t->peers[i], produces, t, .group = &g));
        CHECK_OK(reeve_spawn(&t->peers[PEERS + i], consumes, t, .group = &g));
    }
    CHECK_OK(reeve_group_wait(&g, 0));
    return 0;
}

/* What was sent was received, once; what is left in the channel was sent too. */
static void settle_accounts(struct traffic *t, bool drained)
{
    uint64_t v;
    while (reeve_chan_recv(t->c, &v, REEVE_POLL) == 0) {
        CHECK(!drained);
        CHECK_EQ(rv_or_relaxed(&t->seen[(v >> 32) * t->each + (uint32_t)v], 2) & 2, 0);
        rv_add_relaxed(&t->received, 1u);
    }
    for (uint32_t i = 0; i < PEERS * t->each; i++)
        CHECK(rv_load_relaxed(&t->seen[i]) == 0 || rv_load_relaxed(&t->seen[i]) == 3);
    CHECK_EQ(rv_load_relaxed(&t->sent), rv_load_relaxed(&t->received));
}

static void run_traffic(uint32_t workers, size_t cap, bool impatient, int64_t until)
{
    struct traffic t = { .impatient = impatient, .each = host_times(5000), .until = until };
    t.c = reeve_chan_create(sizeof(uint64_t), cap);
    t.seen = rv_alloc_zero(PEERS * t.each);
    CHECK_EQ(host_run(workers, 100, has_traffic, &t), 0);
    settle_accounts(&t, true);
    if (cap > 0 || !impatient) /* without a buffer perhaps no two have met in time */
        CHECK_GT(rv_load_relaxed(&t.sent), 0);
    reeve_chan_destroy(t.c);
    rv_free((void *)t.seen);
}

TEST(every_element_arrives_once_and_in_its_senders_order)
{
    static const size_t caps[] = { 0, 1, 3, 64 };
    int64_t until = enough_at();
    for (size_t k = 0; k < 4; k++)
        for (uint32_t workers = 1; workers <= 4; workers++)
            run_traffic(workers, caps[k], false, until);
}

TEST(elements_whose_deadlines_pass_arrive_once_or_were_not_sent)
{
    static const size_t caps[] = { 0, 1, 3, 64 };
    int64_t until = enough_at();
    for (size_t k = 0; k < 4; k++)
        for (uint32_t workers = 2; workers <= 4; workers += 2)
            run_traffic(workers, caps[k], true, until);
}

/* Peers are cancelled in the middle of it, one after the other; the last one closes. */
static int has_cancelled_traffic(void *arg)
{
    struct traffic *t = arg;
    reeve_group g = { 0 };
    rv_store_relaxed(&t->producing, (uint32_t)PEERS);
    for (int i = 0; i < PEERS; i++) {
        CHECK_OK(reeve_spawn(&t->peers[i], produces, t, .group = &g));
        CHECK_OK(reeve_spawn(&t->peers[PEERS + i], consumes, t, .group = &g));
    }
    for (int i = 0; i < 2 * PEERS; i++) {
        uint32_t goal = (uint32_t)(i + 1) * t->each / 8;
        for (int turns = 0; turns < 200 && rv_load_relaxed(&t->received) < goal; turns++)
            CHECK_OK(reeve_sleep(0));
        reeve_cancel(t->peers[i % 2 ? PEERS + i / 2 : i / 2]);
    }
    for (int i = 0; i < 2 * PEERS; i++) {
        int r;
        CHECK_OK(reeve_join(t->peers[i], &r, 0));
        if (i < PEERS && r == -ECANCELED && rv_sub_acq_rel(&t->producing, 1u) == 1)
            reeve_chan_close(t->c); /* it never started */
    }
    reeve_group_wait(&g, 0);
    return 0;
}

TEST(elements_of_cancelled_tasks_arrive_once_or_were_not_sent)
{
    static const size_t caps[] = { 0, 1, 3, 64 };
    int64_t until = enough_at();
    for (uint32_t round = 0; round < host_times(40) && rv_clock_ns() < until; round++) {
        struct traffic t = { .impatient = round & 1, .each = 2000, .until = until };
        t.c = reeve_chan_create(sizeof(uint64_t), caps[round % 4]);
        t.seen = rv_alloc_zero(PEERS * t.each);
        CHECK_EQ(host_run(2 + round % 3, 100, has_cancelled_traffic, &t), 0);
        settle_accounts(&t, false);
        reeve_chan_destroy(t.c);
        rv_free((void *)t.seen);
    }
}

/* ---- close against send ---- */

static int closes_it(void *arg)
{
    struct traffic *t = arg;
    for (uint32_t i = 0; rv_load_relaxed(&t->received) < t->each / 4; i++) {
        if (is_enough(t->until, i))
            break;
        CHECK_OK(reeve_sleep(0));
    }
    reeve_chan_close(t->c);
    return 0;
}

static int has_closed_traffic(void *arg)
{
    struct traffic *t = arg;
    reeve_group g = { 0 };
    CHECK_OK(reeve_go(closes_it, t, .group = &g));
    CHECK_OK(has_traffic(t));
    CHECK_OK(reeve_group_wait(&g, 0));
    return 0;
}

TEST(a_close_loses_nothing_that_was_sent)
{
    static const size_t caps[] = { 0, 1, 3, 64 };
    int64_t until = enough_at();
    for (uint32_t round = 0; round < host_times(80) && rv_clock_ns() < until; round++) {
        struct traffic t = { .each = 1000, .until = until };
        t.c = reeve_chan_create(sizeof(uint64_t), caps[round % 4]);
        t.seen = rv_alloc_zero(PEERS * t.each);
        CHECK_EQ(host_run(2 + round % 3, 100, has_closed_traffic, &t), 0);
        settle_accounts(&t, true);
        reeve_chan_destroy(t.c);
        rv_free((void *)t.seen);
    }
}

struct handshake {
    RV_ATOMIC(reeve_chan *) c; /* for the thread, which takes it */
    RV_ATOMIC(bool) over;
};

/* The next channel, or NULL: it is over. */
static reeve_chan *take_over(struct handshake *s)
{
    reeve_chan *c;
    while ((c = rv_xchg_acq_rel(&s->c, NULL)) == NULL) {
        if (rv_load_relaxed(&s->over))
            return NULL;
        sched_yield();
    }
    return c;
}

static void *closes_each(void *arg)
{
    reeve_chan *c;
    while ((c = take_over(arg)) != NULL)
        reeve_chan_close(c);
    return NULL;
}

static int waits_for_the_close(void *arg)
{
    struct handshake *s = arg;
    int64_t until = enough_at();
    for (uint32_t i = 0; i < host_times(30000) && !is_enough(until, i); i++) {
        reeve_chan *c = reeve_chan_create(sizeof(int64_t), i % 3);
        bool sends = i & 1;
        for (size_t k = 0; sends && k < i % 3; k++)
            CHECK_EQ(send_int(c, 1, REEVE_POLL), 0);
        rv_store_release(&s->c, c);
        for (uint32_t k = 0; k < i % 61; k++)
            rv_cpu_relax();
        CHECK_EQ(sends ? send_int(c, 2, 0) : recv_int(c, 0), -EPIPE);
        reeve_chan_destroy(c);
    }
    rv_store_relaxed(&s->over, true);
    return 0;
}

TEST(nobody_sleeps_through_a_close)
{
    struct handshake s = { 0 };
    pthread_t closer;
    CHECK_EQ(pthread_create(&closer, NULL, closes_each, &s), 0);
    CHECK_EQ(host_run(1, 100, waits_for_the_close, &s), 0);
    CHECK_EQ(pthread_join(closer, NULL), 0);
}

/* ---- a wait that ends in the middle of its transfer ---- */

enum { LARGE = 1 << 16 }; /* words: moving them takes longer than many a deadline */

struct large {
    reeve_chan *c;
    bool sends; /* the task */
    uint64_t moved, at_thread;
    RV_ATOMIC(bool) over;
};

static void fill_large(uint64_t *words, uint64_t n)
{
    for (int i = 0; i < LARGE; i++)
        words[i] = n;
}

static void check_large(const uint64_t *words, uint64_t n)
{
    for (int i = 0; i < LARGE; i++)
        CHECK_EQ(words[i], n);
}

static int moves_large_ones(void *arg)
{
    struct large *a = arg;
    int64_t until = enough_at();
    uint64_t *words = rv_alloc(LARGE * sizeof *words);
    for (uint32_t i = 0; i < host_times(5000) && rv_clock_ns() < until; i++) {
        reeve_time soon = reeve_in((int64_t)(i % 40) * 5000);
        if (a->sends)
            fill_large(words, a->moved);
        int r = a->sends ? reeve_chan_send(a->c, words, soon) : reeve_chan_recv(a->c, words, soon);
        CHECK(r == 0 || r == -ETIMEDOUT);
        if (r == 0 && !a->sends)
            check_large(words, a->moved);
        a->moved += r == 0;
        /* the other side reads no more of them, so this cannot be seen */
        fill_large(words, UINT64_MAX);
    }
    rv_store_relaxed(&a->over, true);
    rv_free(words);
    return 0;
}

static void *moves_them_outside(void *arg)
{
    struct large *a = arg;
    uint64_t *words = rv_alloc(LARGE * sizeof *words);
    while (!rv_load_relaxed(&a->over)) {
        if (!a->sends)
            fill_large(words, a->at_thread);
        int r;
        while ((r = a->sends ? reeve_chan_recv(a->c, words, REEVE_POLL)
                             : reeve_chan_send(a->c, words, REEVE_POLL)) == -ETIMEDOUT &&
               !rv_load_relaxed(&a->over))
            sched_yield();
        if (r == 0 && a->sends)
            check_large(words, a->at_thread);
        a->at_thread += r == 0;
    }
    rv_free(words);
    return NULL;
}

TEST(a_deadline_in_the_middle_of_a_transfer_waits_for_its_end)
{
    for (int sends = 0; sends < 2; sends++) {
        struct large a = { .sends = sends };
        pthread_t thread;
        a.c = reeve_chan_create(LARGE * sizeof(uint64_t), 0);
        CHECK_EQ(pthread_create(&thread, NULL, moves_them_outside, &a), 0);
        CHECK_EQ(host_run(1, 100, moves_large_ones, &a), 0);
        CHECK_EQ(pthread_join(thread, NULL), 0);
        CHECK_EQ(a.moved, a.at_thread);
        reeve_chan_destroy(a.c);
    }
}

/* ---- foreign threads, other runtimes ---- */

static void *produces_from_outside(void *arg)
{
    struct traffic *t = arg;
    uint32_t me = rv_add_relaxed(&t->next, 1u);
    for (uint32_t i = 0; i < t->each && !is_enough(t->until, i); i++) {
        uint64_t v = (uint64_t)me << 32 | i;
        while (reeve_chan_send(t->c, &v, REEVE_POLL) == -ETIMEDOUT)
            sched_yield();
        rv_or_relaxed(&t->seen[me * t->each + i], (unsigned char)1);
        rv_add_relaxed(&t->sent, 1u);
    }
    if (rv_sub_acq_rel(&t->producing, 1u) == 1)
        reeve_chan_close(t->c);
    return NULL;
}

static int consumes_what_comes_from_outside(void *arg)
{
    struct traffic *t = arg;
    reeve_group g = { 0 };
    for (int i = 0; i < 2; i++)
        CHECK_OK(reeve_go(consumes, t, .group = &g));
    return reeve_group_wait(&g, 0);
}

TEST(threads_that_are_no_workers_send_and_close)
{
    static const size_t caps[] = { 0, 1, 16 };
    for (size_t k = 0; k < 3; k++) {
        struct traffic t = { .each = host_times(3000), .until = enough_at(), .producing = 2 };
        pthread_t threads[2];
        t.c = reeve_chan_create(sizeof(uint64_t), caps[k]);
        t.seen = rv_alloc_zero(PEERS * t.each);
        for (int i = 0; i < 2; i++)
            CHECK_EQ(pthread_create(&threads[i], NULL, produces_from_outside, &t), 0);
        CHECK_EQ(host_run(2, 100, consumes_what_comes_from_outside, &t), 0);
        for (int i = 0; i < 2; i++)
            pthread_join(threads[i], NULL);
        settle_accounts(&t, true);
        reeve_chan_destroy(t.c);
        rv_free((void *)t.seen);
    }
}

static void *consumes_outside(void *arg)
{
    struct traffic *t = arg;
    uint64_t v;
    int r;
    while ((r = reeve_chan_recv(t->c, &v, REEVE_POLL)) != -EPIPE) {
        if (r == -ETIMEDOUT) {
            sched_yield();
            continue;
        }
        CHECK_EQ(r, 0);
        CHECK_EQ(rv_or_relaxed(&t->seen[(v >> 32) * t->each + (uint32_t)v], 2) & 2, 0);
        rv_add_relaxed(&t->received, 1u);
    }
    return NULL;
}

static int produces_for_outside(void *arg)
{
    struct traffic *t = arg;
    reeve_group g = { 0 };
    for (int i = 0; i < 2; i++)
        CHECK_OK(reeve_go(produces, t, .group = &g));
    return reeve_group_wait(&g, 0);
}

TEST(threads_that_are_no_workers_receive)
{
    static const size_t caps[] = { 0, 1, 16 };
    for (size_t k = 0; k < 3; k++) {
        struct traffic t = { .each = host_times(3000), .until = enough_at(), .producing = 2 };
        pthread_t threads[2];
        t.c = reeve_chan_create(sizeof(uint64_t), caps[k]);
        t.seen = rv_alloc_zero(PEERS * t.each);
        for (int i = 0; i < 2; i++)
            CHECK_EQ(pthread_create(&threads[i], NULL, consumes_outside, &t), 0);
        CHECK_EQ(host_run(2, 100, produces_for_outside, &t), 0);
        for (int i = 0; i < 2; i++)
            pthread_join(threads[i], NULL);
        settle_accounts(&t, true);
        reeve_chan_destroy(t.c);
        rv_free((void *)t.seen);
    }
}

struct pair {
    reeve_chan *there, *back;
    uint32_t n;
    int64_t until;
};

static int answers(void *arg)
{
    struct pair *p = arg;
    int64_t v;
    while ((v = recv_int(p->there, 0)) != -EPIPE)
        CHECK_EQ(send_int(p->back, v + 1, 0), 0);
    return 0;
}

static int asks(void *arg)
{
    struct pair *p = arg;
    for (uint32_t i = 0; i < p->n && !is_enough(p->until, i); i++) {
        CHECK_EQ(send_int(p->there, i, 0), 0);
        CHECK_EQ(recv_int(p->back, 0), i + 1);
    }
    reeve_chan_close(p->there);
    return 0;
}

static void *another_runtime(void *arg)
{
    CHECK_EQ(host_run(1, 100, answers, arg), 0);
    return NULL;
}

TEST(tasks_of_two_runtimes_meet)
{
    for (size_t cap = 0; cap < 2; cap++) {
        struct pair p = { .n = host_times(2000), .until = enough_at() };
        p.there = reeve_chan_create(sizeof(int64_t), cap);
        p.back = reeve_chan_create(sizeof(int64_t), cap);
        pthread_t other;
        CHECK_EQ(pthread_create(&other, NULL, another_runtime, &p), 0);
        CHECK_EQ(host_run(2, 100, asks, &p), 0);
        CHECK_EQ(pthread_join(other, NULL), 0);
        reeve_chan_destroy(p.there);
        reeve_chan_destroy(p.back);
    }
}

/* ---- the end of a channel ---- */

static int replies(void *arg)
{
    reeve_chan *reply = arg;
    send_int(reply, 42, 0);
    return 0;
}

static int asks_for_replies(void *arg)
{
    size_t cap = *(size_t *)arg;
    int64_t until = enough_at();
    for (uint32_t i = 0; i < host_times(20000) && !is_enough(until, i); i++) {
        reeve_group g = { 0 };
        reeve_chan *reply = reeve_chan_create(sizeof(int64_t), cap);
        CHECK(reply != NULL);
        CHECK_OK(reeve_go(replies, reply, .group = &g));
        if (i % 2)
            CHECK_OK(reeve_sleep(0));
        while (i % 4 == 3 && rv_load_acquire(&reply->in.pos) == 0 && cap)
            CHECK_OK(reeve_sleep(0));
        CHECK_EQ(recv_int(reply, 0), 42);
        reeve_chan_destroy(reply); /* the other side may still be on its way out of the send */
        CHECK_OK(reeve_group_wait(&g, 0));
    }
    return 0;
}

TEST(who_has_received_may_destroy_at_once)
{
    for (size_t cap = 0; cap < 2; cap++)
        CHECK_EQ(host_run(3, 100, asks_for_replies, &cap), 0);
}

static void *sends_one_each(void *arg)
{
    reeve_chan *c;
    for (int64_t i = 0; (c = take_over(arg)) != NULL; i++)
        CHECK_EQ(send_int(c, i, REEVE_POLL), 0);
    return NULL;
}

TEST(a_thread_that_has_received_may_destroy_at_once)
{
    struct handshake s = { 0 };
    pthread_t sender;
    CHECK_EQ(pthread_create(&sender, NULL, sends_one_each, &s), 0);
    int64_t until = enough_at();
    for (uint32_t i = 0; i < host_times(20000) && !is_enough(until, i); i++) {
        reeve_chan *c = reeve_chan_create(sizeof(int64_t), 1);
        int64_t v;
        rv_store_release(&s.c, c);
        for (int tries = 0; (v = recv_int(c, REEVE_POLL)) == -ETIMEDOUT; tries++)
            if (tries > 100)
                sched_yield();
        CHECK_EQ(v, i);
        reeve_chan_destroy(c);
    }
    rv_store_relaxed(&s.over, true);
    CHECK_EQ(pthread_join(sender, NULL), 0);
}
