/* SPDX-License-Identifier: MIT */
/*
 * wait.pml -- the wait word, as sched/wait.c uses it: is each wait ended once, by who may end it?
 *
 *     task      waits twice; after each wait it may run on another worker            [rv_wait_arm,
 *               (store buffers 0 and 1)                                               rv_wait_park]
 *     context   what runs next on the worker that the task has left                [rv_wait_parked]
 *     waker     holds the token of the first wait, and fires it, however late        [rv_wait_fire]
 *     timer     the first wait's deadline; its entry comes up, however late             [timer_due]
 *     canceller sets the flag, then kicks                                [rv_cancel, rv_wait_kick]
 *
 * Nobody but the canceller may end the second wait. The word is the arm number (from 1) and one of
 *
 *     IDLE   -> ARMED    task          ARMED  -> PARKED   context
 *     ARMED  -> FIRED    anyone        PARKED -> FIRED    anyone, who makes it ready
 *     FIRED  -> IDLE     task
 *
 * Properties: ready once a wait, and not while it runs; the second wait is cancelled, never woken
 * nor timed out; when nothing can move any more the task has run to its end.
 *
 * Switches; with each of these the model must fail:
 *     NO_ARM_CHECK      a token ends whatever wait it finds
 *     NO_UNTIL_RESET    arming leaves the last wait's deadline in place
 *     NO_FLAG_LOOK      the context does not look at the flag after it has set PARKED
 *     KICK_FIRST        the canceller kicks before it has set the flag
 *     PLAIN_PARKED      PARKED is stored, not swapped in
 *     ALWAYS_READY      who fires makes ready, wherever it found the wait
 *     WEAK_RMW          see memory.pml: the flag and the word are each swapped in, then the other
 *                       is looked at, and only on x86 is that a fence between
 */
#define WW 1    /* t->ww: arm number * 4 + state */
#define UNTIL 2 /* t->run.until */
#define CTL 3   /* t->ctl: 1 cancelled */
#define READY 4 /* the queue that the task is in, if any */
#define WORDS 5
#define NP 5 /* 0 and 1: workers; 2: waker; 3: timer; 4: canceller */

#include "memory.pml"

#define IDLE 0
#define ARMED 1
#define PARKED 2
#define FIRED 3
#define NEVER 0
#define DUE 1

#define BY_WAKER 2
#define BY_TIMER 3
#define BY_CANCEL 4

bool told;      /* the waker has the token */
bool armed_timer;
byte left;      /* the task has left the stack of worker left - 1 */
byte running = true;
byte ended_by;  /* the reason in the word */
bool finished;

/* rv_ready_on */
inline make_ready()
{
    d_step {
        MAY_RMW(READY);
        assert(VIEW(READY) == 0 && !running);
        put(READY, 1)
    }
}

/* ok = ended the wait that the token, an arm number, names */
inline rv_wait_fire(token, reason)
{
    do
    ::  atomic {
            ww = VIEW(WW);
            if
#ifndef NO_ARM_CHECK
            :: ww / 4 != token -> break
#endif
            :: ww % 4 != ARMED && ww % 4 != PARKED -> break
            :: else
            fi
        };
        d_step {
            MAY_RMW(WW);
            ok = (VIEW(WW) == ww);
            if
            :: ok -> put(WW, (ww / 4) * 4 + FIRED); ended_by = reason
            :: else
            fi
        };
        if
        :: ok ->
            if
#ifdef ALWAYS_READY
            :: true -> make_ready()
#else
            :: ww % 4 == PARKED -> make_ready()
            :: else
#endif
            fi;
            break
        :: else
        fi
    od;
    atomic { ok = false; ww = 0 }
}

/* look = the word of the wait that the task is in, 0 none; until with it */
inline look_at_wait()
{
    do
    ::  atomic {
            look = VIEW(WW);
            if
            :: look % 4 != ARMED && look % 4 != PARKED -> look = 0; break
            :: else
            fi
        };
        until = VIEW(UNTIL);
        if
        :: VIEW(WW) == look -> break
        :: else
        fi
    od
}

inline rv_wait_kick()
{
    look_at_wait();
    if
    :: look != 0 ->
        if
        :: VIEW(CTL) == 1 -> rv_wait_fire(look / 4, BY_CANCEL)
        :: else
        fi
    :: else
    fi;
    atomic { look = 0; until = 0 }
}

proctype task()
{
    byte me, arm;
    do
    :: arm < 2 ->
        arm++;
#ifndef NO_UNTIL_RESET
        store(UNTIL, NEVER);
#endif
        store(WW, arm * 4 + ARMED);
        if
        :: arm == 1 -> store(UNTIL, DUE); armed_timer = true; told = true
        :: else
        fi;
        atomic { running = false; left = me + 1 }; /* rv_suspend */
        d_step { /* the queue's next */
            VIEW(READY) == 1 && MAY_RMW(READY) ->
            assert(!running);
            put(READY, 0);
            running = true
        };
        assert(VIEW(WW) == arm * 4 + FIRED);
        assert(arm == 1 || ended_by == BY_CANCEL);
        store(WW, arm * 4 + IDLE);
        atomic { EMPTY(me) -> me = 1 - me } /* on, by the other worker */
    :: arm == 2 -> break
    od;
    finished = true
}

/* rv_wait_parked(), on each worker in turn */
proctype context(byte me)
{
    byte ww, look, until;
    bool ok;
end:
    do
    ::  atomic { left == me + 1 -> left = 0 };
        ww = VIEW(WW);
#ifdef PLAIN_PARKED
        ok = (ww % 4 == ARMED);
        if
        :: ok -> store(WW, (ww / 4) * 4 + PARKED)
        :: else
        fi;
#else
        d_step {
            MAY_RMW(WW);
            ok = (ww % 4 == ARMED && VIEW(WW) == ww);
            if
            :: ok -> put(WW, (ww / 4) * 4 + PARKED)
            :: else
            fi
        };
#endif
        if
        :: !ok -> make_ready() /* rv_ready_fifo */
        :: ok ->
#ifndef NO_FLAG_LOOK
            if
            :: VIEW(CTL) == 1 -> ok = false; rv_wait_kick()
            :: else
            fi
#else
            skip
#endif
        fi;
        atomic { ok = false; ww = 0 }
    od
}

proctype waker(byte me)
{
    byte ww;
    bool ok;
    told;
    rv_wait_fire(1, BY_WAKER)
}

proctype timer(byte me)
{
    byte ww, look, until;
    bool ok;
    armed_timer;
    look_at_wait();
    if
    :: look != 0 && until == DUE -> rv_wait_fire(look / 4, BY_TIMER)
    :: else
    fi
}

proctype canceller(byte me)
{
    byte ww, look, until;
    bool ok;
#ifdef KICK_FIRST
    look_at_wait();
    if
    :: look != 0 -> rv_wait_fire(look / 4, BY_CANCEL)
    :: else
    fi;
    add(CTL, 1)
#else
    add(CTL, 1);
    rv_wait_kick()
#endif
}

proctype judge()
{
    timeout;
    assert(finished && mem[WW] == 2 * 4 + IDLE && mem[READY] == 0)
}

init
{
    atomic {
        run task();
        run context(0);
        run context(1);
        run waker(2);
        run timer(3);
        run canceller(4);
        run judge()
    }
}
