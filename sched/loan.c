/* SPDX-License-Identifier: MIT */
/*
 * loan.c -- the I/O of a worker whose task computes for long.
 *
 * A ring is entered by its worker alone, and its completions do not even exist until it is: the
 * kernel makes them inside the owner's own system call. So a task that computes for 20 ms, or that
 * calls something that blocks, would keep every connection of its worker waiting, and every timer,
 * while other workers idle. Another worker cannot enter the ring. But it can send the owner's
 * thread a signal, and the handler, which runs on that thread, can: it makes the completions
 * exist, and then lends the worker's state to whoever has time for it. All of it is undone, or
 * awaited, when the owner comes back to reeve code.
 *
 *     NONE    -> LENT     [rv_loan_called]  the handler, between two instructions of user code
 *     LENT    -> TAKEN    [rv_loan_take]    an idle worker, the holder, acts for the owner
 *     TAKEN   -> NONE     [rv_loan_take]    and is done
 *     LENT    -> NONE     [rv_loan_back]    the owner is back before anybody came
 *     TAKEN   -> AWAITED  [rv_loan_back]    the owner is back, and sleeps until
 *     AWAITED -> NONE     [rv_loan_take]    the holder is done and wakes it
 *
 * The owner's thread is in reeve code while in_rt is set: the scheduler always, a call of a task
 * from rv_rt_enter() to rv_rt_leave(). in_rt goes with what runs: a switch of stacks happens inside
 * reeve code on both sides, so the mark that a call found when it began is put back when it ends,
 * on whatever worker that is.
 *
 * What is lent, and so needs a mark wherever a task's own call comes to it:
 *
 *     the ring's queues (not its enter), the ops on it, the streams that live on it, its buffers:
 *     whatever is called with a struct rv_io_worker
 *     the heap of timers and its published minimum
 *     the reading end of the inbox
 *     the lists of pinned tasks, the heaps of dated ones, and what is published of them
 *
 * What is not lent, and needs none: magazines, clock and counters (they belong to a thread: the
 * holder uses its own), cur, hook, spare and the running stack (of no use to it), ring, deque and
 * slot (stolen from as ever), scopes, wait words and fd slots (shared anyhow). So a plain spawn, an
 * inline join and whatever only wakes somebody cost nothing.
 *
 * (1) The loan is given only by the handler, on the owner's thread, with in_rt clear and the loan
 *     NONE; so while in_rt is set and rv_rt_enter() is done, the loan is NONE and stays so.
 * (2) Who made it TAKEN, and nobody else, touches what is lent until it makes it NONE again. Each
 *     hand-over is a release that the next one acquires: the owner's before LENT, the holder's
 *     before NONE, which the owner sees in rv_rt_enter() or in the handler.
 * (3) What the holder wakes becomes ready on the holder. What is pinned goes to the owner's own
 *     list and stays there.
 * (4) The holder enters no ring but its own. What it queues on the owner's leaves with the owner's
 *     next enter, which may be in a handler.
 * (5) One signal is under way to a worker at a time: `called` is set by its sender and cleared by
 *     the handler. It names the sender, whom the handler wakes if it has gone to sleep meanwhile.
 *     Sleeper: publishes that it is parked, fences, looks for offered loans. Handler: offers,
 *     fences, looks whether it is parked. One of the two sees the other.
 * (6) The handler takes no lock, allocates nothing, runs on an alternate stack, and leaves errno.
 *     Nothing that it touches is touched by code without a mark.
 *
 * Threads: enter, leave, back, attach, detach - the worker's; called - the worker's, in a handler;
 * look, offered, take - another worker's.
 */
#include "sched/loan.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mem/die.h"
#include "sched/park.h"
#include "sched/pick.h"
#include "sched/wait.h"

enum { SPINS = 200 };

/* The system call, with errno as before; never inlined: errno's address must not be kept. */
__attribute__((noinline)) static int call(long nr, long a, long b, long c)
{
    int before = errno;
    long r = syscall(nr, a, b, c, 0L, 0L, 0L);
    if (r < 0) {
        r = -errno;
        errno = before;
    }
    return (int)r;
}

/* ---- the owner ------------------------------------------------------------------------------- */

/* Sleeps until the holder is done. */
static void await_holder(struct rv_worker *w)
{
    RV_ATOMIC(uint32_t) *state = &w->loan.state;
    for (unsigned i = 0; i < SPINS; i++) {
        if (rv_load_acquire(state) == RV_LOAN_NONE)
            return;
        rv_cpu_relax();
    }
    uint32_t taken = RV_LOAN_TAKEN;
    if (!rv_cas(state, &taken, (uint32_t)RV_LOAN_AWAITED)) {
        RV_ASSERT(taken == RV_LOAN_NONE);
        return;
    }
    while (rv_load_acquire(state) == RV_LOAN_AWAITED) /* pairs with the exchange of who holds it */
        call(SYS_futex, (long)(intptr_t)state, FUTEX_WAIT_PRIVATE, RV_LOAN_AWAITED);
}

void rv_loan_back(struct rv_worker *w)
{
    RV_ASSERT(rv_load_relaxed(&w->loan.in_rt) == 1);
    uint32_t lent = RV_LOAN_LENT;
    if (!rv_cas(&w->loan.state, &lent, (uint32_t)RV_LOAN_NONE) && lent != RV_LOAN_NONE)
        await_holder(w);
    RV_ASSERT(rv_load_relaxed(&w->loan.state) == RV_LOAN_NONE);
    /* what has completed meanwhile waits in its ring */
    rv_store_relaxed(&w->resched, (uint32_t)RV_RESCHED_NOW);
}

void rv_loan_called(struct rv_worker *w)
{
    struct rv_loan *l = &w->loan;
    uint32_t who = rv_xchg_acq_rel(&l->called, 0u); /* pairs with summon() */
    if (who == 0)
        return;
    uint32_t none = RV_LOAN_NONE;
    /* The acquire pairs with the release in rv_loan_take(): the owner may not have been back since
     * the last time. */
    if (rv_load_relaxed(&l->in_rt) || rv_load_acquire(&l->state) != RV_LOAN_NONE) {
        rv_store_relaxed(&w->resched, (uint32_t)RV_RESCHED_NOW);
        return;
    }
    w->sched->engine->fetch(w);
    rv_count(&w->n.loans_given, 1);
    /* Releases all that this thread has done to what is lent; pairs with rv_loan_take(). */
    RV_MUST(rv_cas(&l->state, &none, (uint32_t)RV_LOAN_LENT));
    rv_wake_quietly(w->sched, w->sched->workers[who - 1]); /* see (5) */
}

void rv_loan_attach(struct rv_worker *w)
{
    rv_store_release(&w->loan.tid, (int32_t)gettid());
}

void rv_loan_detach(struct rv_worker *w)
{
    rv_store_release(&w->loan.tid, 0);
}

/* ---- who looks after the others -------------------------------------------------------------- */

/* The worker has picked nothing, and made no pass, since a look that is long enough ago. Two who
 * look at once may get it wrong, which costs a signal. */
static bool is_stuck(struct rv_worker *of, int64_t now)
{
    struct rv_loan *l = &of->loan;
    uint64_t did = rv_load_relaxed(&of->n.picks) + rv_load_relaxed(&of->n.inline_runs) +
                   rv_load_relaxed(&of->n.passes);
    if (rv_load_relaxed(&of->parked) != 0)
        return false;
    if (did != rv_load_relaxed(&l->seen)) {
        rv_store_relaxed(&l->seen, did);
        rv_store_relaxed(&l->seen_at, now);
        return false;
    }
    /* Clocks of workers lag behind the kernel's, by which they sleep. */
    return now - rv_load_relaxed(&l->seen_at) >= of->sched->rescue_ns - RV_FASTCLOCK_LAG_NS;
}

/* Something waits for the worker that others could do for it. */
static bool is_needed(struct rv_worker *of, int64_t now)
{
    return of->sched->engine->due(of) || !rv_inbox_empty(&of->inbox) ||
           rv_load_relaxed(&of->loan.timer_at) <= now;
}

/* Sends the signal, unless one is under way. */
static void summon(struct rv_worker *w, struct rv_worker *of, int64_t now)
{
    struct rv_sched *s = w->sched;
    struct rv_loan *l = &of->loan;
    uint32_t nobody = 0;
    int32_t tid = rv_load_acquire(&l->tid); /* pairs with rv_loan_attach() */
    if (tid == 0 || !rv_cas(&l->called, &nobody, w->index + 1))
        return;
    rv_store_relaxed(&l->seen_at, now);
    if (call(SYS_tgkill, s->pid, tid, s->signal) < 0)
        rv_store_release(&l->called, 0u); /* too many are queued, or it is gone */
    else
        rv_count(&w->n.rescue_signals, 1);
    w->tick_shift = 0; /* it may be stuck for much longer: look again soon */
}

bool rv_loan_look(struct rv_worker *w)
{
    struct rv_sched *s = w->sched;
    bool took = false;
    if (s->rescue_ns == 0)
        return false;
    int64_t now = rv_worker_now(w);
    for (uint32_t i = 0; i < s->nworkers; i++) {
        struct rv_worker *of = s->workers[i];
        if (of == w)
            continue;
        if (rv_load_relaxed(&of->loan.state) == RV_LOAN_LENT)
            took |= rv_loan_take(w, of);
        else if (is_stuck(of, now) && is_needed(of, now))
            summon(w, of, now);
    }
    return took;
}

bool rv_loan_offered(struct rv_worker *w)
{
    struct rv_sched *s = w->sched;
    for (uint32_t i = 0; s->rescue_ns != 0 && i < s->nworkers; i++)
        if (s->workers[i] != w && rv_load_relaxed(&s->workers[i]->loan.state) == RV_LOAN_LENT)
            return true;
    return false;
}

/* ---- the holder ------------------------------------------------------------------------------ */

/* A message that came for the owner. */
static void deliver(struct rv_worker *by, struct rv_worker *of, struct rv_msg *m)
{
    if (m->kind >= RV_MSG_IO) {
        of->sched->engine->message(of, m);
    } else if (m->kind == RV_MSG_CALL) {
        struct rv_call_msg *c = (struct rv_call_msg *)m;
        c->fn(of, c);
    } else {
        rv_task_message_for(by, of, m); /* (3) */
    }
}

bool rv_loan_take(struct rv_worker *by, struct rv_worker *of)
{
    struct rv_sched *s = by->sched;
    uint32_t lent = RV_LOAN_LENT;
    RV_ASSERT(by != of && by->cur == NULL);
    if (!rv_cas(&of->loan.state, &lent, (uint32_t)RV_LOAN_TAKEN))
        return false;
    s->engine->stand_in(of, by);
    s->engine->collect(of);
    for (struct rv_msg *next, *m = rv_inbox_drain(&of->inbox); m; m = next) {
        next = rv_msg_next(m); /* handling it may send it on */
        deliver(by, of, m);
    }
    rv_wait_timers_for(by, of, rv_worker_now(by));
    s->engine->stand_in(of, of);
    /* Releases what was done here; pairs with rv_rt_enter() and await_holder(). */
    if (rv_xchg_acq_rel(&of->loan.state, (uint32_t)RV_LOAN_NONE) == RV_LOAN_AWAITED)
        call(SYS_futex, (long)(intptr_t)&of->loan.state, FUTEX_WAKE_PRIVATE, 1);
    rv_count(&by->n.loans_taken, 1);
    return true;
}
