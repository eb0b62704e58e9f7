/* SPDX-License-Identifier: MIT */
/*
 * rv_atomic.c -- the word that stands for fences where fences are not seen.
 *
 * It is used under ThreadSanitizer only (see rv_atomic.h) and defined always, because a source file
 * of ISO C declares something.
 * Threads: any.
 */
#include "mem/rv_atomic.h"

extern RV_ATOMIC(uint32_t) rv_fence_word;
RV_ATOMIC(uint32_t) rv_fence_word;
