/* SPDX-License-Identifier: MIT */
/*
 * context_x86_64.h -- the architecture's half of context.h, for x86-64 System V; another one is a
 * pair of files like this and context_x86_64.S, with the same three names.
 *
 * A switch is entered by a jump and left by a jump, because of how CPUs predict returns. They keep
 * a stack of return addresses. A switch that is called and left by ret has that stack wrong at
 * each ret; one that is called and left by a jump leaves an entry behind, and every return above
 * it goes wrong. Without a call nothing is disturbed: the callers' returns are predicted on both
 * sides. Measured for a round trip between contexts eight calls deep: 38, 49 and 28 ns.
 */
#ifndef RV_SCHED_CONTEXT_X86_64_H
#define RV_SCHED_CONTEXT_X86_64_H

#include <stdint.h>
#include <string.h>

#include "mem/die.h"

/* What a parked context is: st->sp points to this. Above it lies the red zone of the function that
 * switched, which it may use without moving rsp. */
struct rv_context_frame {
    uint64_t r15, r14, r13, r12, rbx, rbp;
    uint64_t rip;
    unsigned char red_zone[128];
};
_Static_assert(sizeof(struct rv_context_frame) == 184, "context_x86_64.S knows its layout");

/* Where a fresh context begins; calls the function in rbx. In context_x86_64.S, not callable. */
void rv_context_start(void);

#if defined(__APX_F__)
#error "r16 to r31 would have to be added to what a switch clobbers."
#endif
#if defined(__AVX512F__)
#define RV_CLOBBERS_AVX512                                                                         \
    , "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25",    \
        "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31", "k1", "k2", "k3", "k4", "k5", "k6",  \
        "k7"
#else
#define RV_CLOBBERS_AVX512
#endif

/* Saves the caller's context in *save_sp and goes on with the one whose pointer is load_sp; returns
 * when somebody loads what is in *save_sp. Clobbers what a function call does. Use rv_switch(). */
static inline __attribute__((always_inline)) void rv_context_swap(void **save_sp, void *load_sp)
{
    __asm__ volatile("leaq 1f(%%rip), %%rax\n\t"
                     "jmp rv_context_jump\n"
                     "1:"
                     : "+D"(save_sp), "+S"(load_sp)
                     :
                     : "rax", "rcx", "rdx", "r8", "r9", "r10", "r11", "xmm0", "xmm1", "xmm2",
                       "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
                       "xmm12", "xmm13", "xmm14", "xmm15", "st", "st(1)", "st(2)", "st(3)",
                       "st(4)", "st(5)", "st(6)", "st(7)", "cc", "memory" RV_CLOBBERS_AVX512);
}

/* Puts a context at the top of a stack that will call entry(), and returns its pointer. rsp must be
 * a multiple of 16 where it calls. rbp = 0 ends walks along frame pointers. The line above stays
 * free for what unwinders and debuggers read beyond the outermost frame. */
static inline void *rv_context_lay(unsigned char *top, void (*entry)(void))
{
    struct rv_context_frame frame = {
        .rbx = (uint64_t)(uintptr_t)entry,
        .rip = (uint64_t)(uintptr_t)rv_context_start,
    };
    unsigned char *end = top - 64;
    RV_ASSERT((uintptr_t)end % 16 == 0);
    memset(end, 0, 64);
    memcpy(end - sizeof frame, &frame, sizeof frame);
    return end - sizeof frame;
}

#endif
