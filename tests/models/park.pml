/* SPDX-License-Identifier: MIT */
/*
 * park.pml -- sleeping and waking, as sched/park.c does it: does work ever wait beside a sleeper?
 *
 * Two workers, each in the loop of rv_worker_run(), and what one of these switches gives them:
 *
 *     POST    jobs A and B, each posted by a thread of its own        [rv_inject, rv_wake_one]
 *     SPAWN   job A, posted; it pushes C onto its worker's deque       [rv_deque_push, rv_notify]
 *     SEND    job M, sent to the inbox of worker 0                     [rv_send]
 *
 * A, once it runs, holds its worker until B (C) has run: a task that computes for long. So whoever
 * relies on "that worker will look again soon" is caught out. Everything ends: the workers find no
 * more work, and sleep. When nothing can move any more, judge() demands that all jobs have run and
 * that the counts are those of an idle runtime; a lost wake-up is an assertion that fails there.
 * The sentinel is left out where nothing can be stolen. Memory is that of memory.pml.
 *
 * Further switches; with each NO_ the model must fail, with the others it must hold:
 *     WEAK_RMW               read-modify-writes are no fences: memory.pml
 *     PRODUCER_FENCES        no membarrier: rv_notify() has a fence of its own
 *     NO_SENDER_FENCE        rv_wake_worker() without its fence      (needs WEAK_RMW to hurt)
 *     NO_POSTER_FENCE        rv_wake_one() without its fence         (WEAK_RMW)
 *     NO_PARKER_FENCE        publish_parked() without its fence      (WEAK_RMW)
 *     NO_LEAVER_FENCE        rv_found_work() without its fence       (WEAK_RMW)
 *     NO_PRODUCER_FENCE      with PRODUCER_FENCES: rv_notify() without the fence
 *     NO_MEMBARRIER          heavy_fence() is only the caller's own
 *     NO_RESCAN              a parker does not look again after its announcement
 *     NO_BACK_OUT_DUTY       who counted a searcher and could not claim it only takes that back
 *     NO_LAST_SEARCHER       the last searcher to find work does not look at the injector again
 *     NO_EARLY_LEAVE         a searcher leaves the search after the task that it found, not before
 *     NO_LATCH               a wake that comes before the sleep is forgotten
 */
#ifndef NW
#define NW 2 /* workers */
#endif
#define PRODUCERS 2
#define NP (NW + PRODUCERS) /* who has a store buffer */

/* ---- memory ---------------------------------------------------------------------------------- */

/* The words. 0 is no word: an empty place in a buffer. */
#define PARKED(w) (1 + (w))      /* w->parked */
#define BOTTOM(w) (1 + NW + (w)) /* w->deque.bottom; one job passes through it */
#define TOP(w) (1 + 2 * NW + (w))
#define INBOX(w) (1 + 3 * NW + (w)) /* w->inbox */
#define SENTINEL (1 + 4 * NW)       /* s->sentinel */
#define NPARKED (2 + 4 * NW)
#define SEARCHING (3 + 4 * NW)
#define LEN (4 + 4 * NW) /* s->injector.len; its lock is not modelled: see inject() */
#define WORDS (5 + 4 * NW)

#include "memory.pml"

/* ---- jobs ------------------------------------------------------------------------------------ */

mtype = { NONE, JOB_A, JOB_B, JOB_C, JOB_M };

chan injector = [2] of { mtype };
bool queued_m;
bool ran_a, ran_b, ran_c, ran_m; /* has been started */
bool latch[NW]; /* the engine's latched wake */
#ifdef NO_LATCH
bool asleep[NW];
#endif
bool stop;

#ifdef POST
#define RAN_ALL (ran_a && ran_b)
#else
#ifdef SPAWN
#ifdef SEND
#define RAN_ALL (ran_a && ran_c && ran_m)
#else
#define RAN_ALL (ran_a && ran_c)
#endif
#else
#define RAN_ALL ran_m
#endif
#endif


/* ---- park.c, as seen by a waker -------------------------------------------------------------- */

#define IS_PARKED 1         /* PARKED */
#define CLAIMED_TO_SEARCH 2
#define CLAIMED 3

/* What follows claim_parked()'s first look at the word; got says whether it was claimed. */
inline claim_parked(to, claim)
{
    cas(PARKED(to), IS_PARKED, claim, got);
    if
    :: got -> add(NPARKED, -1)
    :: else
    fi
}

inline wake(to) /* engine->wake */
{
#ifdef NO_LATCH
    latch[to] = asleep[to]
#else
    latch[to] = true
#endif
}

inline rv_wake_worker(to)
{
#ifndef NO_SENDER_FENCE
    fence();
#endif
    if
    :: VIEW(PARKED(to)) == IS_PARKED ->
        claim_parked(to, CLAIMED);
        if
        :: got -> wake(to)
        :: else
        fi
    :: else
    fi
}

/* last = it was the last one, and somebody may have relied on it */
inline leave_search()
{
    d_step {
        MAY_RMW(SEARCHING);
        seen = VIEW(SEARCHING);
        last = (seen == 1);
        put(SEARCHING, seen - 1);
        seen = 0
    };
    if
    :: last ->
#ifndef NO_LEAVER_FENCE
        fence();
#endif
        last = (VIEW(LEN) != 0)
    :: else
    fi
}

inline rv_wake_one()
{
    do
    ::
#ifndef NO_POSTER_FENCE
        fence();
#endif
        if
        :: VIEW(NPARKED) == 0 -> break
        :: else
        fi;
        if
        :: VIEW(SEARCHING) != 0 -> break
        :: else
        fi;
        do
        :: i == NW -> break
        :: d_step { i < NW && VIEW(PARKED(i)) != IS_PARKED -> i++ }
        :: i < NW && VIEW(PARKED(i)) == IS_PARKED ->
            add(SEARCHING, 1);
            claim_parked(i, CLAIMED_TO_SEARCH);
            if
            :: got -> wake(i); break
            :: else ->
#ifdef NO_BACK_OUT_DUTY
                add(SEARCHING, -1);
                i++
#else
                leave_search();
                if
                :: last -> break
                :: else -> i++
                fi
#endif
            fi
        od;
        if
        :: last -> last = false; i = 0 /* look again */
        :: else -> break
        fi
    od;
    atomic { i = 0; got = false }
}

inline heavy_fence()
{
    fence();
#if !defined(PRODUCER_FENCES) && !defined(NO_MEMBARRIER)
    do /* membarrier(2) */
    :: d_step { i < NP && EMPTY(i) -> i++ }
    :: atomic { i == NP -> i = 0; break }
    od
#endif
}

inline rv_notify_slow()
{
    i = 0;
    do
    :: i == NW -> break
    :: d_step { i < NW && VIEW(PARKED(i)) != IS_PARKED -> i++ }
    :: i < NW && VIEW(PARKED(i)) == IS_PARKED ->
        cas(SENTINEL, 0, i + 1, got);
        if
        :: !got -> break
        :: else
        fi;
        claim_parked(i, CLAIMED);
        if
        :: got -> wake(i); break
        :: else -> /* it woke up by itself */
            store(SENTINEL, 0);
            i = 0;
            heavy_fence();
            if
            :: VIEW(NPARKED) == 0 -> break
            :: else /* look again */
            fi
        fi
    od;
    atomic { i = 0; got = false }
}

inline rv_notify()
{
#if defined(PRODUCER_FENCES) && !defined(NO_PRODUCER_FENCE)
    fence();
#endif
    if
    :: VIEW(SENTINEL) == 0 ->
        if
        :: VIEW(NPARKED) != 0 -> rv_notify_slow()
        :: else
        fi
    :: else
    fi
}

/* rv_inject(). Under the injector's lock, which nobody can look into: what remains to be seen is
 * one change of len, with an atomic operation, the release of the lock, behind it. */
inline inject(job)
{
    d_step {
        MAY_RMW(LEN);
        injector!job;
        seen = VIEW(LEN);
        put(LEN, seen + 1);
        seen = 0
    }
}

/* ---- park.c, as seen by a worker ------------------------------------------------------------- */

#define QUEUED(w) (VIEW(BOTTOM(w)) - VIEW(TOP(w)))

/* some = others have work in their queues */
inline queued_elsewhere()
{
    do
    :: d_step { i < NW -> some = some || (i != me && QUEUED(i) != 0); i++ }
    :: atomic { i == NW -> i = 0; break }
    od
}

inline resign()
{
    store(SENTINEL, 0);
    heavy_fence();
    queued_elsewhere();
    if
    :: some ->
        some = false;
        if
        :: VIEW(NPARKED) != 0 -> rv_notify_slow()
        :: else
        fi
    :: else
    fi
}

inline rv_found_work()
{
#ifdef SPAWN
    if
    :: VIEW(SENTINEL) == me + 1 -> resign()
    :: else
    fi;
#endif
    if
    :: searching ->
        searching = false;
#ifdef NO_LAST_SEARCHER
        add(SEARCHING, -1)
#else
        leave_search();
        if
        :: last -> last = false; rv_wake_one()
        :: else
        fi
#endif
    :: else
    fi
}

/* The back-off is left out: a sentinel may resign at any tick. */
inline sentinel_until()
{
    if
    :: VIEW(SENTINEL) == me + 1 ->
        if
        :: resign()
        :: ticks = true
        fi
    :: else ->
        if
        :: VIEW(NPARKED) + 1 < NW -> cas(SENTINEL, 0, me + 1, ticks)
        :: else
        fi
    fi
}

inline publish_parked()
{
    store(PARKED(me), IS_PARKED);
    add(NPARKED, 1);
    if
    :: searching -> searching = false; add(SEARCHING, -1)
    :: else
    fi;
#ifndef NO_PARKER_FENCE
    fence()
#endif
}

/* some = there is something to stay up for */
inline rescan()
{
#ifdef NO_RESCAN
    some = false
#else
    some = (QUEUED(me) != 0 || VIEW(INBOX(me)) != 0);
    if
    :: !some -> some = (VIEW(LEN) != 0)
    :: else
    fi
#ifdef SPAWN
    ;
    if
    :: !some && !ticks -> queued_elsewhere()
    :: else
    fi
#endif
#endif
}

inline unpark()
{
    d_step {
        MAY_RMW(PARKED(me));
        was = VIEW(PARKED(me));
        assert(was != 0);
        put(PARKED(me), 0);
        searching = (was == CLAIMED_TO_SEARCH)
    };
    if
    :: was == IS_PARKED -> add(NPARKED, -1)
    :: else
    fi;
    was = 0
}

inline rv_park()
{
#ifdef SPAWN
    sentinel_until();
#endif
    publish_parked();
#ifdef SPAWN
    if
    :: !ticks && VIEW(SENTINEL) == 0 -> heavy_fence()
    :: else
    fi;
#endif
    rescan();
    if
    :: some
    :: else -> /* engine->park */
#ifdef NO_LATCH
        asleep[me] = true;
#endif
        if
        :: latch[me] -> latch[me] = false
        :: ticks
        :: stop -> goto stopped
        fi
#ifdef NO_LATCH
        ; asleep[me] = false
#endif
    fi;
    some = false;
    ticks = false;
    unpark()
}

/* ---- worker.c -------------------------------------------------------------------------------- */

inline run_job()
{
    if
    :: job == JOB_A ->
        assert(!ran_a);
        ran_a = true;
#ifdef SPAWN
        store(BOTTOM(me), 1); /* rv_deque_push */
        rv_notify();
        ran_c /* computes meanwhile */
#endif
#ifdef POST
        ran_b
#endif
    :: job == JOB_B -> assert(!ran_b); ran_b = true
    :: job == JOB_C -> assert(!ran_c); ran_c = true
    :: job == JOB_M -> assert(!ran_m); ran_m = true
    fi
}

/* What proves the queues themselves is elsewhere; here taking from one is one step.
 *
 * The next job of its own: inbox, deque, injector. */
inline pick()
{
    if
    :: d_step { VIEW(INBOX(me)) != 0 && MAY_RMW(INBOX(me)) -> put(INBOX(me), 0); job = JOB_M }
    :: VIEW(INBOX(me)) == 0 ->
        if
        :: d_step { QUEUED(me) != 0 && MAY_RMW(TOP(me)) -> put(TOP(me), 1); job = JOB_C }
        :: QUEUED(me) == 0 ->
            if
            :: d_step {
                VIEW(LEN) != 0 && MAY_RMW(LEN) ->
                injector?job;
                seen = VIEW(LEN);
                put(LEN, seen - 1);
                seen = 0
               }
            :: VIEW(LEN) == 0
            fi
        fi
    fi
}

inline rv_steal()
{
    do
    :: d_step { i < NW && (i == me || QUEUED(i) == 0) -> i++ }
    :: d_step {
        i < NW && i != me && QUEUED(i) != 0 && MAY_RMW(TOP(i)) ->
        put(TOP(i), 1);
        job = JOB_C;
        i = NW
       }
    :: atomic { i == NW -> i = 0; break }
    od
}

proctype worker(byte me)
{
    byte i, was;
    mtype job = NONE;
    bool got, some, ticks, searching, last;
    do
    ::  pick();
#ifdef SPAWN
        if
        :: job == NONE -> rv_steal()
        :: else
        fi;
#endif
        if
        :: job != NONE ->
#ifdef NO_EARLY_LEAVE
            run_job();
            rv_found_work();
#else
            rv_found_work();
            run_job();
#endif
            job = NONE
        :: else -> rv_park()
        fi
    od;
stopped:
    skip
}

/* ---- producers: foreign threads -------------------------------------------------------------- */

#if defined(POST) || defined(SPAWN)
proctype poster(byte me; mtype job)
{
    byte i;
    bool got, last;
    inject(job);
    rv_wake_one()
}
#endif

#ifdef SEND
proctype sender(byte me; byte to)
{
    bool got;
    d_step { /* rv_inbox_push */
        MAY_RMW(INBOX(to));
        put(INBOX(to), 1);
        queued_m = true
    };
    rv_wake_worker(to)
}
#endif

proctype judge()
{
    timeout;
    assert(RAN_ALL);
    assert(mem[NPARKED] == NW && mem[SEARCHING] == 0 && mem[SENTINEL] == 0);
    stop = true
}

init
{
    atomic {
        run worker(0);
        run worker(1);
#if NW == 3
        run worker(2);
#endif
#if defined(POST) || defined(SPAWN)
        run poster(NW, JOB_A);
#endif
#ifdef POST
        run poster(NW + 1, JOB_B);
#endif
#ifdef SEND
        run sender(NW + 1, 0);
#endif
        run judge()
    }
}

ltl sent { [] (queued_m -> <> ran_m) }
