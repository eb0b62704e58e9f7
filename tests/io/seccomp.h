/* SPDX-License-Identifier: MIT */
/*
 * seccomp.h -- a filter that makes one system call fail, as a container's profile does.
 *
 * It holds for the rest of the process and its children: each test runs in a process of its own.
 */
#ifndef TESTS_IO_SECCOMP_H
#define TESTS_IO_SECCOMP_H

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "tests/check.h"

#define SECCOMP_ANY_ARGUMENT (-1)

/* From now on the call returns `error` where its first argument is `first`. */
static inline void seccomp_refuse(long number, int first, int error)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)first, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ((unsigned)error & SECCOMP_RET_DATA)),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    if (first == SECCOMP_ANY_ARGUMENT)
        code[3] = (struct sock_filter)BPF_STMT(BPF_JMP | BPF_JA, 0);
    struct sock_fprog program = { .len = sizeof code / sizeof *code, .filter = code };
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
        SKIP("this kernel or sandbox takes no seccomp filter from us");
}

#endif
