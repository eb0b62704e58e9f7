/* SPDX-License-Identifier: MIT */
/*
 * memory.pml -- a memory that is not sequentially consistent; the models include it.
 *
 * Spin's own variables are: each process sees every store at once. Here are words mem[1] to
 * mem[WORDS - 1], and NP processes that reach them by the operations below, named after those of
 * mem/rv_atomic.h. In each, `me` is the number of the calling process, 0 to NP - 1.
 *
 *     store    goes into the process's own buffer, a FIFO, and from there to memory at any time
 *     VIEW     a load: the process's own newest store to that word, or memory
 *     fence    waits until the buffer is empty
 *     add, cas, and whatever is spelled { MAY_RMW(a); ... VIEW(a) ...; put(a, x) }: read-modify-
 *              writes. They are fences, too, as on x86, where each is a locked instruction. With
 *              WEAK_RMW they go through the buffer as stores do, and hold their word until they
 *              have left it: later loads overtake them. C11 promises no more of acq_rel, and
 *              machines with load-linked and store-conditional do it.
 *
 * Buffers are short; a store that finds its buffer full waits.
 */
#ifdef WEAK_RMW
#define DEPTH 4
#else
#define DEPTH 2
#endif

byte mem[WORDS];
byte seen; /* what a read-modify-write read */
byte at[NP * DEPTH];  /* the buffers: to which word, */
byte val[NP * DEPTH]; /* and what */

#define AT(p, n) at[(p) * DEPTH + (n)]
#define VAL(p, n) val[(p) * DEPTH + (n)]

#define EMPTY(p) (AT(p, 0) == 0)
#define ROOM(p) (AT(p, DEPTH - 1) == 0)

/* What process me sees in word a: its own newest store to it, or memory. */
#ifdef WEAK_RMW
#define VIEW(a)                                                                                    \
    (AT(me, 3) == (a) -> VAL(me, 3) : (AT(me, 2) == (a) -> VAL(me, 2) :                            \
    (AT(me, 1) == (a) -> VAL(me, 1) : (AT(me, 0) == (a) -> VAL(me, 0) : mem[a]))))
#else
#define VIEW(a)                                                                                    \
    (AT(me, 1) == (a) -> VAL(me, 1) : (AT(me, 0) == (a) -> VAL(me, 0) : mem[a]))
#endif

inline append(a, x)
{
    if
    :: AT(me, 0) == 0 -> AT(me, 0) = a; VAL(me, 0) = x
    :: AT(me, 0) != 0 && AT(me, 1) == 0 -> AT(me, 1) = a; VAL(me, 1) = x
#ifdef WEAK_RMW
    :: AT(me, 1) != 0 && AT(me, 2) == 0 -> AT(me, 2) = a; VAL(me, 2) = x
    :: AT(me, 2) != 0 && AT(me, 3) == 0 -> AT(me, 3) = a; VAL(me, 3) = x
#endif
    fi
}

/* rv_store_relaxed, rv_store_release. */
inline store(a, x)
{
    d_step {
        ROOM(me);
        append(a, x)
    }
}

/* A read-modify-write is atomic { MAY_RMW(a); ... VIEW(a) ...; put(a, x) }. */
#ifdef WEAK_RMW
byte held[WORDS]; /* by whom (1 more), while a read-modify-write is on its way to memory */
#define MAY_RMW(a) (ROOM(me) && (held[a] == 0 || held[a] == me + 1))
inline put(a, x)
{
    append(a, x);
    held[a] = me + 1
}
#else
#define MAY_RMW(a) EMPTY(me)
inline put(a, x)
{
    mem[a] = x
}
#endif

inline add(a, d) /* rv_add_acq_rel, rv_sub_acq_rel */
{
    d_step {
        MAY_RMW(a);
        seen = VIEW(a);
        put(a, seen + d);
        seen = 0
    }
}

inline cas(a, old, new, ret_ok) /* rv_cas */
{
    d_step {
        MAY_RMW(a);
        ret_ok = (VIEW(a) == old);
        if
        :: ret_ok -> put(a, new)
        :: else
        fi
    }
}

inline fence() /* rv_fence_seqcst */
{
    EMPTY(me)
}

#ifdef WEAK_RMW
#define MAY_FLUSH(p) (!EMPTY(p) && (held[AT(p, 0)] == 0 || held[AT(p, 0)] == p + 1))
#else
#define MAY_FLUSH(p) (!EMPTY(p))
#endif

/* The oldest entry of a buffer reaches memory. */
inline flush(p)
{
    d_step {
        MAY_FLUSH(p);
#ifdef WEAK_RMW
        if /* lets go of the word, unless another of its writes follows */
        :: held[AT(p, 0)] == p + 1 && AT(p, 1) != AT(p, 0) &&
           AT(p, 2) != AT(p, 0) && AT(p, 3) != AT(p, 0) -> held[AT(p, 0)] = 0
        :: else
        fi;
#endif
        mem[AT(p, 0)] = VAL(p, 0);
        AT(p, 0) = AT(p, 1);
        VAL(p, 0) = VAL(p, 1);
#ifdef WEAK_RMW
        AT(p, 1) = AT(p, 2);
        VAL(p, 1) = VAL(p, 2);
        AT(p, 2) = AT(p, 3);
        VAL(p, 2) = VAL(p, 3);
#endif
        AT(p, DEPTH - 1) = 0;
        VAL(p, DEPTH - 1) = 0
    }
}

active proctype memory()
{
end:
    do
    :: flush(0)
    :: flush(1)
#if NP > 2
    :: flush(2)
#endif
#if NP > 3
    :: flush(3)
#endif
#if NP > 4
    :: flush(4)
#endif
    od
}
