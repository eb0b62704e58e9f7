/* SPDX-License-Identifier: MIT */
/*
 * loan.pml -- the loan of a stuck worker's state, as sched/loan.c does it: is it ever touched by
 * two at once, and does what has completed get through?
 *
 *     owner     computes for long, with calls of reeve in between; at last it computes until all
 *               completions have been dispatched, which only the thieves can do      [rv_rt_enter]
 *     handler   the signal handler on the owner's thread: while it runs the owner does not, and
 *               both use one store buffer                                        [rv_loan_called]
 *     thief     an idle worker, twice: looks, signals, takes, sleeps  [rv_loan_look, rv_loan_take]
 *     kernel    completes COMPLETIONS requests. A completion is task work first (TASKRUN); it gets
 *               into the ring's queue only while the owner's thread is inside an enter
 *
 *     NONE -> LENT  handler       LENT -> TAKEN  thief       TAKEN -> NONE     thief
 *                                 LENT -> NONE   owner       TAKEN -> AWAITED  owner
 *                                                            AWAITED -> NONE   thief, who wakes it
 *
 * What is lent is one word, DATA, a count modulo 2 that each of its users loads and stores one
 * higher: whoever does not see what the one before did, or meets another, makes it wrong. Thieves
 * tick only while no signal is under way and nothing is lent, so what must wake a thief has to.
 * Of the announcement before a sleep only the word `parked` is here, without the count that
 * publish_parked() raises behind it.
 *
 * Properties: DATA is right at each use; never two users; the handler lends NONE only; and when
 * nothing can move any more all is dispatched and the owner has come back from its last wait.
 *
 * Switches. WEAK_RMW: see memory.pml. With each of these the model must fail:
 *     NO_IN_RT_CHECK       the handler lends whatever its thread was doing
 *     NO_ENTRY_CHECK       the owner enters reeve without looking at the loan
 *     NO_ENTRY_BARRIER     the look comes before the mark, as a compiler might have it
 *     NO_TAKE_BACK         the owner that finds LENT goes on without taking it back
 *     NO_AWAIT             the owner that finds TAKEN goes on
 *     NO_AWAITED           it sleeps without saying so
 *     NO_FUTEX_WAKE        who gives back does not wake it
 *     NO_FETCH             the handler lends without entering the ring
 *     NO_CALLER_WAKE       the handler does not wake who called
 *     NO_LAST_LOOK         a thief does not look at the loan between its announcement and its sleep
 *     NO_THIEF_FENCE       nor puts a fence between them
 *     NO_HANDLER_FENCE     the handler looks for the sleeper without a fence (needs WEAK_RMW)
 */
#ifndef ROUNDS
#define ROUNDS 1 /* calls of reeve before the long wait */
#endif
#ifndef THIEVES
#define THIEVES 2
#endif
#ifndef COMPLETIONS
#define COMPLETIONS 1
#endif

/* The words. */
#define STATE 1         /* loan.state */
#define CALLED 2        /* loan.called */
#define DATA 3          /* all that is lent */
#define TAIL 4          /* completions in the queue, counted from the start; the kernel's */
#define HEAD 5          /* of these, dispatched; whoever may touch what is lent */
#define PARKED(t) (5 + (t)) /* of thief t, 1 or 2 */
#define WORDS 8
#define NP 3 /* 0: the owner's thread, 1 and 2: the thieves */

#include "memory.pml"

#define NONE 0
#define LENT 1
#define TAKEN 2
#define AWAITED 3

byte done;     /* kernel: completed */
byte taskwork; /* of these, not yet in the queue */
byte uses;     /* of what is lent so far, modulo 2 */
byte users;    /* right now */
bool in_rt = true; /* the thread's own mark, so it needs no word */
bool signalled, in_handler, finished;
bool futex_woken;
bool latch[3];

/* ---- what is lent ---------------------------------------------------------------------------- */

/* Uses it, and dispatches what is in the queue. */
inline touch()
{
    d_step {
        ROOM(me);
        users++;
        assert(users == 1);
        v = VIEW(DATA);
        assert(v == uses);
        uses = 1 - uses;
        append(DATA, uses)
    };
    d_step {
        ROOM(me);
        v = VIEW(TAIL);
        append(HEAD, v);
        v = 0;
        users--
    }
}

/* io_uring_enter(2) by the owner's thread: task work becomes completions. */
inline enter_ring()
{
    d_step {
        ROOM(me);
        v = VIEW(TAIL) + taskwork;
        append(TAIL, v);
        taskwork = 0;
        v = 0
    }
}

/* ---- the owner ------------------------------------------------------------------------------- */

inline await_holder()
{
#ifdef NO_AWAITED
    got = true;
#else
    cas(STATE, TAKEN, AWAITED, got);
#endif
    do
    :: got && VIEW(STATE) != NONE -> futex_woken -> futex_woken = false /* FUTEX_WAIT */
    :: !got || VIEW(STATE) == NONE -> break
    od;
    got = false
}

#ifdef NO_TAKE_BACK
#define TAKE_BACK LENT
#else
#define TAKE_BACK NONE
#endif

inline rv_rt_enter()
{
#ifdef NO_ENTRY_BARRIER
    s = VIEW(STATE);
    in_rt = true;
#else
    in_rt = true;
    s = VIEW(STATE);
#endif
#ifndef NO_ENTRY_CHECK
    if
    :: s != NONE ->
        cas(STATE, LENT, TAKE_BACK, got);
        if
        :: got -> got = false
        :: else ->
#ifndef NO_AWAIT
            await_holder()
#else
            skip
#endif
        fi
    :: else
    fi;
#endif
    s = 0
}

proctype owner() provided (!in_handler)
{
    byte me = 0, s, v, round;
    bool got;
    do
    ::  touch(); /* reeve code */
        if /* a pass of the scheduler enters the ring; a call of the task's does not */
        :: round == 0 -> enter_ring(); touch()
        :: true
        fi;
        in_rt = false; /* rv_rt_leave: on with the user's code */
        if
        :: round < ROUNDS -> round++
        :: round == ROUNDS -> VIEW(HEAD) == COMPLETIONS; round++
        fi;
        rv_rt_enter();
        if
        :: round > ROUNDS -> break
        :: else
        fi
    od;
    touch();
    finished = true
}

/* ---- the handler ----------------------------------------------------------------------------- */

inline wake_caller()
{
#ifdef NO_CALLER_WAKE
    skip
#else
#ifndef NO_HANDLER_FENCE
    fence();
#endif
    if /* rv_wake_quietly() */
    :: VIEW(PARKED(who)) == 1 ->
        cas(PARKED(who), 1, 2, got);
        if
        :: got -> latch[who] = true
        :: else
        fi;
        got = false
    :: else
    fi
#endif
}

proctype handler()
{
    byte me = 0, who, v;
    bool got;
end:
    do
    ::  atomic { signalled -> signalled = false; in_handler = true };
        d_step {
            MAY_RMW(CALLED);
            who = VIEW(CALLED);
            put(CALLED, 0)
        };
        if
        :: who == 0
#ifdef NO_IN_RT_CHECK
        :: who != 0 && VIEW(STATE) != NONE
        :: who != 0 && VIEW(STATE) == NONE ->
#else
        :: who != 0 && (in_rt || VIEW(STATE) != NONE)
        :: who != 0 && !in_rt && VIEW(STATE) == NONE ->
#endif
#ifndef NO_FETCH
            enter_ring();
#endif
            cas(STATE, NONE, LENT, got);
            assert(got);
            got = false;
            wake_caller()
        fi;
        atomic { who = 0; in_handler = false }
    od
}

/* ---- thieves --------------------------------------------------------------------------------- */

inline rv_loan_take()
{
    cas(STATE, LENT, TAKEN, got);
    if
    :: got ->
        touch();
        d_step { /* an exchange */
            MAY_RMW(STATE);
            v = VIEW(STATE);
            assert(v == TAKEN || v == AWAITED);
            put(STATE, NONE)
        };
#ifndef NO_FUTEX_WAKE
        if
        :: v == AWAITED -> fence(); futex_woken = true /* FUTEX_WAKE, which is a fence itself */
        :: else
        fi;
#endif
        atomic { v = 0; got = false }
    :: else
    fi
}

/* Something waits for the owner, who is in its own code. */
#define NEEDED (!in_rt && (taskwork != 0 || VIEW(TAIL) != VIEW(HEAD)))

inline rv_loan_look()
{
    if
    :: VIEW(STATE) == LENT -> rv_loan_take()
    :: VIEW(STATE) != LENT && NEEDED ->
        cas(CALLED, 0, me, got); /* summon() */
        if
        :: got -> atomic { signalled = true; got = false }
        :: else
        fi
    :: VIEW(STATE) != LENT && !NEEDED
    fi
}

inline rv_park()
{
    store(PARKED(me), 1);
#ifndef NO_THIEF_FENCE
    fence();
#endif
    if
#ifndef NO_LAST_LOOK
    :: VIEW(STATE) == LENT /* rv_loan_offered() */
    :: VIEW(STATE) != LENT ->
#else
    :: true ->
#endif
        if
        :: latch[me] -> latch[me] = false
        :: mem[CALLED] == 0 && mem[STATE] == NONE && !in_handler && NEEDED /* a tick */
        :: finished -> goto out
        fi
    fi;
    atomic { /* unpark() */
        MAY_RMW(PARKED(me));
        put(PARKED(me), 0)
    }
}

proctype thief(byte me)
{
    byte v;
    bool got;
    do
    ::  rv_loan_look();
        rv_park()
    od;
out:
    skip
}

/* ---- the kernel ------------------------------------------------------------------------------ */

proctype kernel()
{
    do
    :: atomic { done < COMPLETIONS -> done++; taskwork++ }
    :: done == COMPLETIONS -> break
    od
}

proctype judge()
{
    timeout;
    assert(finished);
    assert(mem[HEAD] == COMPLETIONS && mem[STATE] == NONE && mem[DATA] == uses)
}

init
{
    atomic {
        run owner();
        run handler();
        run thief(1);
#if THIEVES > 1
        run thief(2);
#endif
        run kernel();
        run judge()
    }
}

ltl dispatched { [] (done == COMPLETIONS -> <> finished) }
