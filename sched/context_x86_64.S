/* SPDX-License-Identifier: MIT */
/*
 * context_x86_64.S -- the context switch for x86-64 System V. context_x86_64.h says why it is
 * jumped to, not called.
 *
 * A parked context is a stack pointer to what a called function must preserve:
 *
 *     sp + 184   the stack of the function that switched
 *     sp +  56   its red zone, 128 bytes
 *     sp +  48   where it goes on               (a fresh one: rv_context_start)
 *     sp +  40   rbp                            (a fresh one: 0)
 *     sp +  32   rbx                            (a fresh one: the entry function)
 *     sp +   0   r15, r14, r13, r12
 *
 * The two control words that the ABI also calls preserved, of MXCSR and of the x87, are left alone;
 * context.h tells the user so.
 *
 * Indirect-branch tracking is supported: what is reached by a plain jump or call begins with
 * endbr64, and the jump to where a context goes on is exempt (notrack). Shadow stacks are not, so
 * the note at the end claims the first only, and the linker drops the second for the program.
 */
#if defined(__x86_64__)

    .text

/*
 * rax: where the caller goes on; rdi: void **save_sp; rsi: void *load_sp.
 *
 * Until rsp changes, the unwind rules are those of the context that leaves, and every register is
 * found in its frame; from then on those of the one that arrives, all in place already.
 */
    .globl  rv_context_jump
    .hidden rv_context_jump
    .type   rv_context_jump, @function
    .p2align 5
rv_context_jump:
    .cfi_startproc
    .cfi_def_cfa %rsp, 0
    .cfi_register %rip, %rax
    endbr64
    leaq    -184(%rsp), %rsp
    .cfi_def_cfa_offset 184
    movq    %rax, 48(%rsp)
    .cfi_rel_offset %rip, 48
    movq    %rbp, 40(%rsp)
    .cfi_rel_offset %rbp, 40
    movq    %rbx, 32(%rsp)
    .cfi_rel_offset %rbx, 32
    movq    %r12, 24(%rsp)
    .cfi_rel_offset %r12, 24
    movq    %r13, 16(%rsp)
    .cfi_rel_offset %r13, 16
    movq    %r14, 8(%rsp)
    .cfi_rel_offset %r14, 8
    movq    %r15, 0(%rsp)
    .cfi_rel_offset %r15, 0
    movq    %rsp, (%rdi)
    movq    48(%rsi), %rcx
    movq    40(%rsi), %rbp
    movq    32(%rsi), %rbx
    movq    24(%rsi), %r12
    movq    16(%rsi), %r13
    movq    8(%rsi), %r14
    movq    0(%rsi), %r15
    leaq    184(%rsi), %rsp
    .cfi_def_cfa_offset 0
    .cfi_register %rip, %rcx
    .cfi_same_value %rbp
    .cfi_same_value %rbx
    .cfi_same_value %r12
    .cfi_same_value %r13
    .cfi_same_value %r14
    .cfi_same_value %r15
    notrack jmpq *%rcx
    .cfi_endproc
    .size   rv_context_jump, . - rv_context_jump

/*
 * Where a fresh context goes on: calls the entry function, which does not return. It has no caller,
 * and the unwind rules say so: backtraces end here. The nop is for unwinders, which look up the
 * instruction before the address where a parked context goes on.
 */
    .p2align 4
    .cfi_startproc
    .cfi_undefined %rip
    nop
    .globl  rv_context_start
    .hidden rv_context_start
    .type   rv_context_start, @function
rv_context_start:
    endbr64
    callq   *%rbx
    ud2
    .cfi_endproc
    .size   rv_context_start, . - rv_context_start

/* A program property: compatible with indirect-branch tracking, and with nothing else. */
    .section .note.gnu.property, "a"
    .p2align 3
    .long   4                   /* bytes of the name */
    .long   16                  /* bytes of the property */
    .long   5                   /* NT_GNU_PROPERTY_TYPE_0 */
    .asciz  "GNU"
    .long   0xc0000002          /* GNU_PROPERTY_X86_FEATURE_1_AND */
    .long   4
    .long   1                   /* IBT */
    .long   0

#endif

    .section .note.GNU-stack, "", @progbits
