/* SPDX-License-Identifier: MIT */
/*
 * select.c -- one of several sends and receives.
 *
 * First every case is tried by itself, in a random order; each order is as likely as any other, so
 * of those that are ready each is as likely to come first. If none is, all channels are locked at
 * once, in the order of their addresses, and every case is tried again. If still none can be done
 * the task queues a record for each case and waits.
 *
 * (1) All records of a select name one wait, and who ends it decides. Who serves a record claims
 *     that wait first, under the lock of the record's queue, and moves the element under the same
 *     lock. So no two cases are done, and none after the select has given up.
 * (2) A task tries cases only while it has no record in any queue. So whoever serves has nothing of
 *     his own to claim: there is one compare-and-swap, not two, and nothing to undo. And nobody
 *     meets himself.
 * (3) The last look at all cases and the queueing of all are under all locks: nothing that makes a
 *     case ready comes in between.
 * (4) Everybody takes locks in one order (chan.h), so nobody waits in a circle. Two selects that
 *     want the same channels take turns.
 * (5) Before it returns the select takes its other records out of their queues.
 *
 * Threads: any with REEVE_POLL; tasks.
 */
#include <errno.h>

#include "mem/alloc.h"
#include "sched/chan.h"
#include "sched/pick.h"

enum { CASES_MAX = 65535, CASES_STACK = 8 };

/* What a select needs for one case; order and chans are lists of their own. */
struct slot {
    struct rv_chan_waiter record;
    struct reeve_chan *chan; /* the distinct channels, by address */
    int order;
};

struct select {
    struct reeve_case *cases;
    struct slot *slots;
    int n;
    int chans; /* how many distinct channels */
    struct rv_choice choice;
};

/* ---- which first ---- */

/* For threads without a worker: Weyl's sequence, mixed (splitmix64, Steele et al. 2014). */
static uint32_t foreign_random(void)
{
    static RV_ATOMIC(uint64_t) drawn;
    uint64_t x = rv_add_relaxed(&drawn, UINT64_C(0x9e3779b97f4a7c15));
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)(x >> 32);
}

static void shuffle(struct select *sel)
{
    struct rv_worker *w = rv_worker_self();
    for (int i = 0; i < sel->n; i++)
        sel->slots[i].order = i;
    for (int i = sel->n - 1; i > 0; i--) {
        uint64_t r = w ? rv_random(w) : foreign_random();
        int j = (int)(r * (uint64_t)(i + 1) >> 32);
        int other = sel->slots[j].order;
        sel->slots[j].order = sel->slots[i].order;
        sel->slots[i].order = other;
    }
}

/* ---- cases that can be done now ---- */

/* Does the first that can be done and returns its index, or -EAGAIN. */
static int try_each(struct select *sel)
{
    for (int k = 0; k < sel->n; k++) {
        int i = sel->slots[k].order;
        struct reeve_case *it = &sel->cases[i];
        if (it->chan == NULL)
            continue;
        int r = it->send ? reeve_chan_send(it->chan, it->send, REEVE_POLL)
                         : reeve_chan_recv(it->chan, it->recv, REEVE_POLL);
        if (r != -ETIMEDOUT) {
            it->ret_result = r;
            return i;
        }
    }
    return -EAGAIN;
}

/* The same with all channels locked. */
static int try_locked(struct select *sel, struct rv_chan_waiter **ret_served)
{
    for (int k = 0; k < sel->n; k++) {
        int i = sel->slots[k].order;
        struct reeve_case *it = &sel->cases[i];
        if (it->chan == NULL)
            continue;
        int r = it->send ? rv_chan_put(it->chan, it->send, ret_served)
                         : rv_chan_take(it->chan, it->recv, ret_served);
        if (r != -EAGAIN) {
            it->ret_result = r;
            return i;
        }
    }
    return -EAGAIN;
}

/* ---- all channels at once ---- */

static void sift_down(struct slot *slots, int at, int n)
{
    struct reeve_chan *chan = slots[at].chan;
    for (int kid; (kid = 2 * at + 1) < n; at = kid) {
        if (kid + 1 < n && slots[kid].chan < slots[kid + 1].chan)
            kid++;
        if (slots[kid].chan <= chan)
            break;
        slots[at].chan = slots[kid].chan;
    }
    slots[at].chan = chan;
}

/* Lists the distinct channels by address (heapsort: any number of cases may come). */
static void list_chans(struct select *sel)
{
    struct slot *slots = sel->slots;
    int n = 0;
    for (int i = 0; i < sel->n; i++)
        if (sel->cases[i].chan)
            slots[n++].chan = sel->cases[i].chan;
    for (int i = n / 2 - 1; i >= 0; i--)
        sift_down(slots, i, n);
    for (int end = n - 1; end > 0; end--) {
        struct reeve_chan *last = slots[end].chan;
        slots[end].chan = slots[0].chan;
        slots[0].chan = last;
        sift_down(slots, 0, end);
    }
    sel->chans = 0;
    for (int i = 0; i < n; i++)
        if (sel->chans == 0 || slots[i].chan != slots[sel->chans - 1].chan)
            slots[sel->chans++].chan = slots[i].chan;
}

static void lock_all(struct select *sel)
{
    for (int i = 0; i < sel->chans; i++)
        rv_chan_lock(sel->slots[i].chan);
}

static void unlock_all(struct select *sel)
{
    for (int i = sel->chans - 1; i >= 0; i--)
        rv_chan_unlock(sel->slots[i].chan);
}

/* ---- waiting ---- */

/* Under all locks: one wait, a record of it for every case. */
static void queue_all(struct select *sel, struct rv_worker *w)
{
    uint64_t token = rv_wait_arm(w->sched, w->cur, 0);
    rv_choice_init(&sel->choice);
    for (int i = 0; i < sel->n; i++) {
        struct reeve_case *it = &sel->cases[i];
        struct rv_chan_waiter *me = &sel->slots[i].record;
        if (it->chan == NULL)
            continue;
        me->w.sched = w->sched;
        me->w.token = token;
        me->w.granted = false;
        me->choice = &sel->choice;
        me->index = (uint32_t)i;
        if (it->send)
            me->from = it->send;
        else
            me->to = it->recv;
        rv_waitq_add(rv_chan_queue(it->chan, it->send != NULL), &me->w);
    }
}

/* The wait is over, for `why`: takes the records back, and says which case was done. */
static int settle(struct select *sel, int why)
{
    bool none = why != RV_WOKEN;
    if (!none)
        rv_choice_await(&sel->choice);
    int won = none ? -1 : (int)sel->choice.won;
    RV_ASSERT(none || (won >= 0 && won < sel->n));
    for (int i = 0; i < sel->n; i++) {
        struct reeve_case *it = &sel->cases[i];
        if (it->chan && i != won)
            rv_chan_withdraw(it->chan, it->send != NULL, &sel->slots[i].record);
    }
    if (none)
        return rv_chan_error(why);
    sel->cases[won].ret_result = sel->slots[won].record.result;
    return won;
}

static int wait_for_one(struct select *sel, reeve_time until)
{
    struct rv_worker *w = rv_in_task("reeve_chan_select");
    struct rv_task *t = w->cur;
    struct rv_chan_waiter *served = NULL;
    int r = rv_wait_check(w->sched, t);
    if (r < 0)
        return r;
    list_chans(sel);
    lock_all(sel);
    r = try_locked(sel, &served);
    if (r == -EAGAIN)
        queue_all(sel, w);
    unlock_all(sel);
    if (r == -EAGAIN)
        return settle(sel, rv_wait_park(w, t, rv_deadline(t, until)));
    if (served)
        rv_chan_wake(served);
    return r;
}

static int run(struct select *sel, reeve_time until)
{
    shuffle(sel);
    int r = try_each(sel);
    if (r != -EAGAIN)
        return r;
    return until < 0 ? -ETIMEDOUT : wait_for_one(sel, until);
}

int reeve_chan_select(struct reeve_case *cases, int n, reeve_time until)
{
    if (n < 1 || n > CASES_MAX)
        return -EINVAL;
    for (int i = 0; i < n; i++)
        if (cases[i].send && cases[i].recv)
            return -EINVAL;
    struct select sel = { .cases = cases, .n = n };
    if (n <= CASES_STACK) {
        struct slot slots[CASES_STACK];
        sel.slots = slots;
        return run(&sel, until);
    }
    if ((sel.slots = rv_alloc((size_t)n * sizeof *sel.slots)) == NULL)
        return -ENOMEM;
    int r = run(&sel, until);
    rv_free(sel.slots);
    return r;
}
