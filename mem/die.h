/* SPDX-License-Identifier: MIT */
/*
 * die.h -- the end of the process, for broken invariants and misuse; never for errors.
 *
 * RV_MUST(cond) stays in release: misuse by the caller, memory that is certainly corrupt, system
 * calls that cannot fail. RV_ASSERT(cond) is for what only a bug of ours can break; it is checked
 * in builds with RV_DEBUG and not evaluated in others. One condition each. Where the user made
 * the mistake, say which in a sentence: if (!cond) rv_die("reeve_join: ...").
 */
#ifndef RV_MEM_DIE_H
#define RV_MEM_DIE_H

#include <stddef.h>

/* Writes "reeve: " and one sentence to standard error, then aborts. Allocates nothing. */
_Noreturn void rv_die(const char *fmt, ...)
    __attribute__((format(printf, 1, 2), cold, noinline));

#define RV_MUST(cond)                                                                              \
    (__builtin_expect(!(cond), 0)                                                                  \
         ? rv_die("%s:%d: `%s` does not hold.", __FILE__, __LINE__, #cond)                         \
         : (void)0)

#ifdef RV_DEBUG
#define RV_ASSERT(cond) RV_MUST(cond)
#else
#define RV_ASSERT(cond) ((void)sizeof((cond) ? 1 : 0))
#endif

#endif
