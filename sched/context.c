/* SPDX-License-Identifier: MIT */
/*
 * context.c -- building, adopting and ending contexts; what the sanitizers are told of them.
 *
 * A fresh context is a frame as rv_context_swap() leaves one, at the top of its stack. The switch
 * that loads it goes on in rv_context_start, which calls the entry function. How the frame looks is
 * the architecture's, see context_x86_64.h.
 *
 * AddressSanitizer is told the bounds of each stack at each switch. It may keep the locals of a
 * context in a "fake stack", which is saved in st->asan_fake and freed when the context ends.
 *
 * ThreadSanitizer sees a context as a fiber: an identity with a clock and a call stack of its own.
 * What it is told:
 * (1) One edge for each switch: what happened on `from` before it happens before what `to` does
 *     after it. That is the hand-over of the thread itself, and on it rests all that belongs to a
 *     thread and is used by whatever context runs there: the worker, its queues, its magazines.
 * (2) No edge from a context's suspension to its resumption on another thread, but the one that the
 *     scheduler makes: the thread that left the context publishes it, the other one takes it.
 *     Without these two steps it is a race, of (3).
 * (3) That a switch writes from->sp, as `from`, and reads to->sp before it leaves `from`. The
 *     assembly is invisible, so a context published too early, before it has been left, would not
 *     be noticed; with this it is reported as a race on sp.
 * Two tasks that run one after the other on one worker are therefore ordered for ThreadSanitizer,
 * like two critical sections: races between tasks show when they run on different workers.
 *
 * Threads: see context.h.
 */
#include "sched/context.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#if defined(RV_ASAN)
#include <sanitizer/asan_interface.h>
#endif

/* A thread's stack is taken to reach this far at least below the frame that adopts it. */
#define THREAD_BYTES_MIN ((size_t)64 * 1024)

void rv_context_build(struct rv_stack *st, void (*entry)(void))
{
    RV_MUST((uintptr_t)st->top % 64 == 0);
    RV_MUST((size_t)(st->top - st->low) >= 1024);
    st->sp = rv_context_lay(st->top, entry);
    st->asan_fake = NULL;
#if defined(RV_TSAN)
    st->tsan_fiber = __tsan_create_fiber(0);
    RV_MUST(st->tsan_fiber != NULL);
#endif
}

#if defined(RV_ASAN)
/* Frees the fake stack of a parked context. The sanitizer frees one only when its owner leaves for
 * ever: so pretend to be the context for a moment, leave it, and be oneself again. */
__attribute__((no_sanitize("address"))) static void free_fake(struct rv_stack *st)
{
    void *mine;
    const void *low;
    size_t bytes;
    __sanitizer_start_switch_fiber(&mine, st->low, (size_t)(st->top - st->low));
    __sanitizer_finish_switch_fiber(st->asan_fake, &low, &bytes);
    __sanitizer_start_switch_fiber(NULL, low, bytes);
    __sanitizer_finish_switch_fiber(mine, NULL, NULL);
}
#endif

void rv_context_retire(struct rv_stack *st)
{
    if (!st->sp)
        return;
#if defined(RV_ASAN)
    if (st->asan_fake)
        free_fake(st);
    /* The frames left there never return: nobody else takes their red zones away. */
    __asan_unpoison_memory_region(st->low, (size_t)(st->top - st->low));
#endif
#if defined(RV_TSAN)
    RV_ASSERT(st->tsan_fiber != __tsan_get_current_fiber());
    __tsan_destroy_fiber(st->tsan_fiber);
#endif
    st->tsan_fiber = NULL;
    st->asan_fake = NULL;
    st->sp = NULL;
}

/* The bounds of the calling thread's stack; false: they cannot be found out (for the main thread
 * that takes /proc). */
static bool thread_bounds(unsigned char **ret_low, unsigned char **ret_top)
{
    pthread_attr_t attr;
    void *low;
    size_t bytes;
    if (pthread_getattr_np(pthread_self(), &attr) != 0)
        return false;
    bool known = pthread_attr_getstack(&attr, &low, &bytes) == 0 && bytes > 0;
    (void)pthread_attr_destroy(&attr);
    if (known) {
        *ret_low = low;
        *ret_top = (unsigned char *)low + bytes;
    }
    return known;
}

void rv_context_adopt(struct rv_stack *self)
{
    unsigned char *here = __builtin_frame_address(0);
    int saved_errno = errno;
    if (!thread_bounds(&self->low, &self->top) || here < self->low || here >= self->top) {
        self->low = here - THREAD_BYTES_MIN;
        self->top = here + 4096 - (uintptr_t)here % 4096;
    }
    errno = saved_errno;
    self->sp = NULL;
    self->asan_fake = NULL;
#if defined(RV_TSAN)
    self->tsan_fiber = __tsan_get_current_fiber();
#else
    self->tsan_fiber = NULL;
#endif
    RV_MUST(self->low < self->top);
}

#if defined(RV_TSAN)
/* The order matters: what comes after the release is not part of the edge. */
void *rv_context_hand_over(struct rv_stack *from, struct rv_stack *to)
{
    void *load_sp = to->sp;
    RV_MUST(load_sp != NULL);
    from->sp = NULL;
    __tsan_release(&to->tsan_fiber);
    return load_sp;
}
#endif
