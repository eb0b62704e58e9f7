/* SPDX-License-Identifier: MIT */
/*
 * caps.h -- what this kernel's io_uring can do, found out by trying.
 *
 * Nothing is concluded from a version: distributions port features back, and containers take them
 * away. Flags are tried until the kernel stops refusing, opcodes come from its own table, and
 * whatever could be half there is used once and its effect looked at.
 */
#ifndef RV_IO_CAPS_H
#define RV_IO_CAPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What to treat as absent though it may be there: for tests of the paths that older kernels take,
 * and to live with a kernel's bug. All false: use everything. Each field is named after the one it
 * clears in struct rv_caps, where it is explained. The environment adds to it:
 *     REEVE_CAPS_OFF="recv_optlen,send_msg_ring,guard_install"
 * ("optlen" is short for recv_optlen; unknown names are ignored). */
struct rv_caps_off {
    bool io_uring; /* no system call is made at all: some sandboxes kill for the first one */
    bool defer_taskrun, single_issuer, taskrun_flag, coop_taskrun, submit_all;
    bool registered_ring_fd, no_iowait, abs_timer;
    bool buf_ring, recv_multishot, recv_optlen, accept_multishot;
    bool send_msg_ring, clone_buffers, min_timeout, recvsend_bundle, send_zc, waitid, ftruncate;
    bool guard_install, rwf_nosignal;
};

#define RV_CAPS_OPS 256

struct rv_caps {
    char release[65];               /* the kernel's name for itself, for people */
    uint32_t features;              /* IORING_FEAT_* as the kernel said them, whatever `off` says */
    uint64_t ops[RV_CAPS_OPS / 64]; /* one bit per opcode: ask rv_caps_op() */
    struct rv_caps_off off; /* argument and environment together: give it to rv_ring_init() */

    /* How rings are set up. rv_ring_init() finds these out for itself; here to be seen. */
    bool defer_taskrun;      /* completions are made when the owner enters, and only then */
    bool single_issuer;      /* one thread submits, and the kernel holds us to it */
    bool taskrun_flag;       /* user space can see that an enter would make completions */
    bool coop_taskrun;       /* completions are made at the owner's next system call */
    bool submit_all;         /* a bad request does not hold up those behind it */
    bool registered_ring_fd; /* enter by index, without looking the fd up */
    bool no_iowait;          /* a parked worker does not count as waiting for a disk */
    bool abs_timer;          /* a park takes an absolute time: one clock read less */

    /* Receiving and accepting: each was done once, on a socket pair. */
    bool buf_ring;       /* provided buffer rings; required */
    bool recv_multishot; /* required */
    bool recv_optlen;    /* the kernel ends a multishot recv after so many bytes */
    bool accept_multishot;

    /* Between rings, and the rest of io_uring. */
    bool send_msg_ring;   /* wake a ring from a thread that has none; else an eventfd does it */
    bool clone_buffers;   /* one registration of buffers serves all rings */
    bool min_timeout;     /* a wait for several completions may end early, after a shorter time */
    bool recvsend_bundle; /* several buffers in one completion */
    bool send_zc, waitid, ftruncate; /* these requests are known */

    /* Not io_uring, but found out in the same way. */
    bool guard_install; /* guard pages that cost no mapping */
    bool rwf_nosignal;  /* a write to a broken pipe without SIGPIPE */
};

/* Fills *ret. `off` may be NULL. The kernel is asked once per process; later calls copy what was
 * found, less what the call and the environment switch off. Costs a millisecond the first time. Any
 * thread.
 *
 * 0; -EOPNOTSUPP: io_uring is there but lacks something we cannot do without (what Linux 6.1 has);
 * -ENOSYS, -EPERM, -EACCES, -ENOMEM, -EMFILE, -ENFILE ...: the kernel's own refusal. A refusal is
 * not remembered. *ret is untouched on failure. */
int rv_caps_probe(struct rv_caps *ret, const struct rv_caps_off *off);

/* Adds to *off what the environment switches off. */
void rv_caps_off_env(struct rv_caps_off *off);

/* Whether the kernel knows this opcode of requests. */
static inline bool rv_caps_op(const struct rv_caps *caps, unsigned opcode)
{
    return opcode < RV_CAPS_OPS && (caps->ops[opcode / 64] >> (opcode % 64) & 1);
}

/* Prints a table for people: name, yes or no or off, what it is good for. Blocks as write(2) does.
 * 0 or -errno. */
int rv_caps_write(const struct rv_caps *caps, int fd);

/* 0 when io_uring works here; else -errno (as rv_caps_probe) and one sentence that names the cause
 * and the remedy, cut to cap bytes with its final 0. Asks the kernel anew each time. Any thread. */
int rv_uring_refused(char *sentence, size_t cap);

/* What the sentence depends on, besides the error. */
struct rv_uring_facts {
    const char *release;          /* of the kernel */
    const char *call;             /* the system call that failed */
    const char *lacks;            /* what we need and the kernel has not; NULL: not known */
    int disabled;                 /* the sysctl kernel.io_uring_disabled; -1: there is none */
    int group;                    /* the sysctl kernel.io_uring_group; -1: nobody's */
    bool seccomp;                 /* a filter is in force on this thread */
    uint64_t memlock_kib, nofile; /* the soft limits; UINT64_MAX: none */
};

/* The wording: -errno and the circumstances to one sentence. Pure. */
void rv_uring_sentence(int error, const struct rv_uring_facts *facts, char *sentence, size_t cap);

#endif
