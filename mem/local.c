/* SPDX-License-Identifier: MIT */
/*
 * local.c -- the library's only thread-local word. local.h says why it hides behind calls.
 *
 * (1) initial-exec: one load at a fixed offset from the thread pointer; no lazy allocation, so it
 *     may be read in a signal handler. The eight bytes come from the loader's static reserve when
 *     the library is opened by dlopen.
 * (2) The empty asm in the reader claims to touch memory: without it a compiler that sees the body
 *     (one file, link-time optimisation) may conclude that two calls return the same.
 * (3) rv_local_peek() names the word in its asm, where no compiler sees it: hence the attributes
 *     that keep link-time optimisation from renaming it or leaving it out.
 * Threads: each its own.
 */
#include "mem/local.h"

#if defined(__clang__)
#define UNSEEN __attribute__((noinline))
#define KEPT __attribute__((used, visibility("hidden")))
#else
#define UNSEEN __attribute__((noinline, noclone, noipa))
#define KEPT __attribute__((used, externally_visible, visibility("hidden")))
#endif

extern __thread struct rv_local *rv_local_word; /* nobody else may name it in C */
KEPT __thread struct rv_local *rv_local_word __attribute__((tls_model("initial-exec")));

UNSEEN struct rv_local *rv_local_get(void)
{
    __asm__ volatile("" ::: "memory");
    return rv_local_word;
}

UNSEEN void rv_local_set(struct rv_local *local)
{
    __asm__ volatile("" ::: "memory");
    rv_local_word = local;
}
