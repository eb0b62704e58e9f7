/* SPDX-License-Identifier: MIT */
/*
 * wait.c -- how a task waits, and who may end it.
 *
 * A task has one wait word: an arm number, which grows by one with each wait and never starts
 * again, and a state. A token is descriptor index and arm number together; whoever holds one may
 * end that wait and no other, however late they come. So completions, deadlines, cancellations and
 * joins need no lock between them: the one whose compare-and-swap wins ends the wait.
 *
 *     IDLE   -> ARMED    [rv_wait_arm]      the task, still running, publishes its token
 *     ARMED  -> PARKED   [rv_wait_parked]   its stack has been left: the next context says so
 *     ARMED  -> FIRED    [rv_wait_fire]     ended before that: the next context makes it ready
 *     PARKED -> FIRED    [rv_wait_fire]     ended: the one who fired makes it ready
 *     ARMED  -> IDLE     [rv_wait_disarm]   it turned out that there was nothing to wait for
 *     FIRED  -> IDLE     [rv_wait_park]     the task runs again and reads the reason
 *
 * (1) A task is made ready exactly once per wait: by the winner if it saw PARKED, else by the
 *     context that failed to set PARKED.
 * (2) Cancellation sets the task's flag, then looks at the wait word; a parking task sets PARKED,
 *     then looks at its flag. Both are atomic read-modify-writes first, so one of the two sees the
 *     other.
 * (3) While an op is waited for, deadline and cancellation go to the engine and only the op's
 *     final completion fires.
 * (4) A timer entry belongs to the descriptor: "look at its wait at this time". It is valid while
 *     the timer word names its worker and its number, so an entry on another worker's heap is
 *     dropped when it comes up. armed_at is read and written by the task alone: the worker that
 *     puts an entry off, to where the wait that it finds ends, says so in the word.
 *
 * Threads: arm, disarm, check, park - the running task; fire, kick - anyone; timers - the worker,
 * or the holder of its loan.
 */
#include "sched/wait.h"

#include <errno.h>

#include "mem/die.h"
#include "sched/dispatch.h"
#include "sched/loan.h"
#include "sched/pick.h"
#include "sched/scope.h"

#define SUSPEND 0
#define WW_STATE 3u
#define WW_REASON_SHIFT 2
#define WW_ARM_SHIFT 4
/* In the timer word: the entry was put off, so armed_at is not its time any more. */
#define TIMER_LATER ((uint64_t)1 << 63)

void rv_wait_mask(struct rv_task *t, bool on)
{
    if (on)
        rv_or_acq_rel(&t->ctl, (uint64_t)RV_CTL_MASKED);
    else
        rv_and_acq_rel(&t->ctl, ~(uint64_t)RV_CTL_MASKED);
}

uint64_t rv_wait_arm(struct rv_sched *s, struct rv_task *t, uint64_t op)
{
    uint64_t ww = rv_load_relaxed(&t->ww);
    RV_ASSERT((ww & WW_STATE) == RV_WW_IDLE);
    uint64_t arm = (ww >> WW_ARM_SHIFT) + 1;
    if (t->flags & RV_TF_TIMED_OUT)
        t->flags &= (uint8_t)~RV_TF_TIMED_OUT;
    rv_store_release(&t->run.op, op);
    /* An old entry on another worker's heap must not see the last wait's. */
    rv_store_release(&t->run.until, RV_NEVER);
    /* Publishes both; pairs with the acquire in rv_wait_kick(). */
    rv_store_release(&t->ww, arm << WW_ARM_SHIFT | RV_WW_ARMED);
    return (uint64_t)rv_task_index(s, t) << 32 | (uint32_t)arm;
}

bool rv_wait_disarm(struct rv_task *t)
{
    uint64_t ww = rv_load_acquire(&t->ww); /* pairs with rv_wait_fire(), as in rv_wait_park() */
    bool unfired = (ww & WW_STATE) == RV_WW_ARMED && rv_cas(&t->ww, &ww, ww & ~(uint64_t)0xf);
    if (!unfired)
        rv_store_relaxed(&t->ww, ww & ~(uint64_t)0xf);
    return unfired;
}

/* Makes sure that this worker looks at the task's wait at `until`, or before. */
static void arm_timer(struct rv_worker *w, struct rv_task *t, int64_t until)
{
    uint64_t word = rv_load_relaxed(&t->timer);
    if (word >> 32 == w->index + 1 && t->armed_at <= until)
        return;
    uint32_t seq = (uint32_t)word + 1;
    t->armed_at = until;
    rv_store_relaxed(&t->timer, (uint64_t)(w->index + 1) << 32 | seq);
    rv_timer_push(w, (struct rv_timer){ until, rv_task_index(w->sched, t), seq });
}

static bool timer_is_live(void *ctx, const struct rv_timer *e)
{
    struct rv_worker *w = ctx;
    struct rv_task *t = rv_task_at(w->sched, e->task);
    uint64_t word = rv_load_relaxed(&t->timer) & ~TIMER_LATER;
    return word == ((uint64_t)(w->index + 1) << 32 | e->seq);
}

void rv_timer_push(struct rv_worker *w, struct rv_timer e)
{
    if (e.at < rv_load_relaxed(&w->loan.timer_at))
        rv_store_relaxed(&w->loan.timer_at, e.at);
    if (rv_timers_want_sweep(&w->timers))
        rv_timers_sweep(&w->timers, timer_is_live, w);
    if (rv_timers_push(&w->timers, e))
        return;
    rv_timers_sweep(&w->timers, timer_is_live, w);
    /* One live entry a descriptor, and the heap has room for as many: a full one must hold stale
     * entries. */
    RV_MUST(rv_timers_push(&w->timers, e));
}

/* In reeve code. Sees to it that the wait ends at `until`. Not SUSPEND: it has ended. */
static int arm_until(struct rv_worker *w, struct rv_task *t, int64_t until)
{
    if (until != RV_NEVER) {
        if (until > w->now) {
            arm_timer(w, t, until);
        } else if (rv_load_relaxed(&t->run.op) != 0) {
            t->flags |= RV_TF_TIMED_OUT;
            w->sched->engine->cancel(w->sched, w, rv_load_relaxed(&t->run.op));
        } else {
            return rv_wait_disarm(t) ? RV_TIMED_OUT : RV_WOKEN;
        }
    }
    rv_store_release(&t->run.until, until);
    return SUSPEND;
}

int rv_wait_park(struct rv_worker *w, struct rv_task *t, int64_t until)
{
    RV_ASSERT(w->cur == t);
    uint32_t was = rv_rt_enter(w);
    int over = arm_until(w, t, until);
    if (over == SUSPEND)
        w = rv_suspend(w, RV_HOOK_PARK);
    rv_rt_leave(w, was);
    if (over != SUSPEND)
        return over;

    /* Pairs with the compare-and-swap in rv_wait_fire(): what came before it is ours to read. Where
     * it found PARKED the queues have told us already, where it found ARMED nobody has. */
    uint64_t ww = rv_load_acquire(&t->ww);
    RV_ASSERT((ww & WW_STATE) == RV_WW_FIRED);
    rv_store_relaxed(&t->ww, ww & ~(uint64_t)0xf);
    int why = (int)(ww >> WW_REASON_SHIFT & 3);
    /* Another worker's clock may have said so, or it was not the clock at all: a stream ends a wait
     * early to have its reader look again, and `until` may be far away, or RV_NEVER. */
    if (why == RV_TIMED_OUT || t->flags & RV_TF_TIMED_OUT)
        rv_fastclock_doubt(&w->clock);
    return why;
}

int rv_wait_why(struct rv_sched *s, struct rv_task *t)
{
    (void)s;
    if (t->flags & RV_TF_TIMED_OUT)
        return -ETIMEDOUT;
    uint64_t ctl = rv_load_relaxed(&t->ctl);
    return rv_is_cancelled(ctl) ? -ECANCELED : 0;
}

static inline unsigned claim(struct rv_task *t, uint64_t token, unsigned reason)
{
    uint64_t ww = rv_load_acquire(&t->ww);
    for (;;) {
        unsigned state = ww & WW_STATE;
        if ((uint32_t)(ww >> WW_ARM_SHIFT) != (uint32_t)token)
            return RV_WW_IDLE;
        if (state != RV_WW_ARMED && state != RV_WW_PARKED)
            return RV_WW_IDLE;
        uint64_t fired = (ww & ~(uint64_t)0xf) | RV_WW_FIRED | (uint64_t)reason << WW_REASON_SHIFT;
        if (rv_cas(&t->ww, &ww, fired))
            return state;
    }
}

unsigned rv_wait_claim(struct rv_sched *s, uint64_t token, unsigned reason)
{
    return claim(rv_task_at(s, (uint32_t)(token >> 32)), token, reason);
}

bool rv_wait_fire(struct rv_sched *s, struct rv_worker *w, uint64_t token, unsigned reason,
                  uint32_t home)
{
    struct rv_task *t = rv_task_at(s, (uint32_t)(token >> 32));
    unsigned was = claim(t, token, reason);
    if (was == RV_WW_PARKED) /* else rv_wait_parked() will find FIRED */
        rv_ready_on(s, w, t, home);
    return was != RV_WW_IDLE;
}

/* The wait that the task is in, its wait word and what goes with it read as one; 0: none. Nothing
 * keeps the task from ending meanwhile, and its descriptor from being used again: then the word has
 * changed. For that each store of until and op, and of what shares memory with them, is a release;
 * they pair with the two acquires here. */
static uint64_t look_at_wait(struct rv_task *t, int64_t *ret_until, uint64_t *ret_op)
{
    for (;;) {
        uint64_t ww = rv_load_acquire(&t->ww); /* pairs with the release in rv_wait_arm() */
        unsigned state = ww & WW_STATE;
        if (state != RV_WW_ARMED && state != RV_WW_PARKED)
            return 0;
        *ret_until = rv_load_acquire(&t->run.until);
        *ret_op = rv_load_acquire(&t->run.op);
        if (rv_load_relaxed(&t->ww) == ww)
            return ww;
    }
}

void rv_wait_kick(struct rv_sched *s, struct rv_worker *w, struct rv_task *t)
{
    int64_t until;
    uint64_t op, ww = look_at_wait(t, &until, &op);
    if (ww == 0)
        return;
    /* Read after the wait word: if the task that was cancelled is over, and its descriptor used
     * again, then whoever waits there now has no such flag. */
    if (!rv_is_cancelled(rv_load_acquire(&t->ctl)))
        return;
    uint64_t token = (uint64_t)rv_task_index(s, t) << 32 | (uint32_t)(ww >> WW_ARM_SHIFT);
    if (op != 0)
        s->engine->cancel(s, w, op); /* a stale op is no op of anybody's */
    else
        rv_wait_fire(s, w, token, RV_CANCELLED, UINT32_MAX);
}

void rv_wait_parked(struct rv_worker *w, struct rv_task *t)
{
    uint64_t ww = rv_load_relaxed(&t->ww);
    uint64_t parked = (ww & ~(uint64_t)0xf) | RV_WW_PARKED;
    if ((ww & WW_STATE) != RV_WW_ARMED || !rv_cas(&t->ww, &ww, parked)) {
        rv_ready_fifo(w->sched, w, t);
        return;
    }
    /* Stored PARKED before this load; pairs with the flag's read-modify-write in cancel.c. From
     * here the task may be running elsewhere: the kick holds on to nothing but the arm number. */
    if (rv_load_acquire(&t->ctl) & RV_CTL_CANCELLED)
        rv_wait_kick(w->sched, w, t);
}

/* The entry of w's has come up: end the wait, look again later, or forget it. */
static void timer_due(struct rv_worker *by, struct rv_worker *w, struct rv_timer e, int64_t now)
{
    struct rv_sched *s = w->sched;
    struct rv_task *t = rv_task_at(s, e.task);
    uint64_t word = (uint64_t)(w->index + 1) << 32 | e.seq;
    uint64_t seen = rv_load_relaxed(&t->timer);
    if ((seen & ~TIMER_LATER) != word)
        return;
    int64_t until;
    uint64_t op, ww = look_at_wait(t, &until, &op);
    if (ww == 0)
        until = RV_NEVER;
    if (until > now && until != RV_NEVER) {
        if (rv_cas(&t->timer, &seen, word | TIMER_LATER))
            rv_timer_push(w, (struct rv_timer){ until, e.task, e.seq });
        return;
    }
    rv_cas(&t->timer, &seen, word & UINT32_MAX); /* the number stays: it never repeats */
    if (until == RV_NEVER)
        return;
    rv_count(&by->n.timers_fired, 1);
    if (op != 0) {
        t->flags |= RV_TF_TIMED_OUT; /* its op is on this ring, so it runs only after this */
        s->engine->cancel(s, w, op);
    } else {
        rv_wait_fire(s, by, (uint64_t)e.task << 32 | (uint32_t)(ww >> WW_ARM_SHIFT), RV_TIMED_OUT,
                     UINT32_MAX);
    }
}

/* Takes up to n timers that are due off the heap, and asks for the memory that firing them and
 * running their tasks will need: those have slept, and are in no near cache. How many. */
static uint32_t pop_due(struct rv_worker *of, int64_t now, struct rv_timer *due, uint32_t n)
{
    enum { LINES = 4 };
    const struct rv_timer *min;
    uint32_t k = 0;
    for (; k < n && (min = rv_timers_min(&of->timers)) != NULL && min->at <= now; k++) {
        due[k] = rv_timers_pop(&of->timers);
        const unsigned char *t = (const unsigned char *)rv_task_at(of->sched, due[k].task);
        __builtin_prefetch(t, 1);
        __builtin_prefetch(t + RV_CACHE_LINE, 1);
    }
    for (uint32_t i = 0; k > 1 && i < k; i++) { /* nothing is read through the pointer */
        struct rv_task *t = rv_task_at(of->sched, due[i].task);
        const unsigned char *record = (const unsigned char *)rv_load_relaxed(&t->run.stack);
        const unsigned char *frames = record - (size_t)rv_load_relaxed(&t->depth) * RV_CACHE_LINE;
        __builtin_prefetch(record);
        for (int l = 0; l < LINES; l++)
            __builtin_prefetch(frames + l * RV_CACHE_LINE, 1);
    }
    return k;
}

void rv_wait_timers_for(struct rv_worker *by, struct rv_worker *of, int64_t now)
{
    enum { AHEAD = 16 };
    struct rv_timer due[AHEAD];
    /* What finds no room in the ring would go through the injector and its lock. The rest is for
     * the next pass, but some go at each: they may be of a better class. */
    uint32_t room = rv_runq_room(&by->lane[RV_NORMAL].ring), n;
    uint32_t most = room > AHEAD ? room : AHEAD;
    do {
        n = pop_due(of, now, due, most < AHEAD ? most : AHEAD);
        for (uint32_t i = 0; i < n; i++)
            timer_due(by, of, due[i], now);
        most -= n;
    } while (n > 0 && most > 0);
    const struct rv_timer *min = rv_timers_min(&of->timers);
    int64_t next = min ? min->at : RV_NEVER;
    if (rv_load_relaxed(&of->loan.timer_at) != next)
        rv_store_relaxed(&of->loan.timer_at, next);
}

void rv_wait_timers(struct rv_worker *w)
{
    rv_wait_timers_for(w, w, w->now);
}
