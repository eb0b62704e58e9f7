/* SPDX-License-Identifier: MIT */
/*
 * uring_compat.h -- the io_uring interface past liburing 2.3, under names of our own.
 *
 * Debian 12 has liburing 2.3 and the headers of Linux 6.1; the kernel that runs us may know more.
 * What it knows is probed (io/caps.h), so its numbers must be here at compile time. They carry our
 * prefix and are never guarded by #ifndef: opcodes are enum values, which the preprocessor does not
 * see, and a newer header that has the same number under the kernel's name does not collide with
 * ours. The numbers are kernel ABI (include/uapi/linux/io_uring.h, linux/mman.h and linux/fs.h) and
 * never change.
 *
 * A trap: liburing 2.3 corrupts the rings when NO_SQARRAY, NO_MMAP, CQE_MIXED or SQ_REWIND
 * passes through its set-up. Ours (io/ring.c) does not know those flags, and refuses them.
 */
#ifndef RV_IO_URING_COMPAT_H
#define RV_IO_URING_COMPAT_H

#include <linux/io_uring.h>
#include <stdint.h>
#include <string.h>

/* Features, params.features. The number behind each is the first Linux that sets it. */
#define RV_URING_FEAT_REG_REG_RING    (1u << 13) /* 6.3 */
#define RV_URING_FEAT_RECVSEND_BUNDLE (1u << 14) /* 6.10 */
#define RV_URING_FEAT_MIN_TIMEOUT     (1u << 15) /* 6.12 */
#define RV_URING_FEAT_RW_ATTR         (1u << 16) /* 6.13 */
#define RV_URING_FEAT_NO_IOWAIT       (1u << 17) /* 6.15 */

/* Set-up flags. Our ring layer takes none of them; they are here to be recognised. */
#define RV_URING_SETUP_NO_MMAP            (1u << 14) /* 6.5 */
#define RV_URING_SETUP_REGISTERED_FD_ONLY (1u << 15) /* 6.5 */
#define RV_URING_SETUP_NO_SQARRAY         (1u << 16) /* 6.6 */
#define RV_URING_SETUP_HYBRID_IOPOLL      (1u << 17) /* 6.13 */
#define RV_URING_SETUP_CQE_MIXED          (1u << 18) /* 6.18 */

/* Flags of io_uring_enter. */
#define RV_URING_ENTER_ABS_TIMER   (1u << 5) /* 6.12: the timeout is a time of CLOCK_MONOTONIC */
#define RV_URING_ENTER_EXT_ARG_REG (1u << 6) /* 6.13 */
#define RV_URING_ENTER_NO_IOWAIT   (1u << 7) /* 6.15: a parked thread is not "waiting for a disk" */

/* Opcodes of io_uring_register. 11 and 12 are older than 2.3, which declares functions for them
 * that Debian 12's library does not export. */
enum {
    RV_URING_REGISTER_RESTRICTIONS = 11,
    RV_URING_REGISTER_ENABLE_RINGS = 12,
    RV_URING_REGISTER_PBUF_STATUS = 26,   /* 6.8 */
    RV_URING_REGISTER_NAPI = 27,          /* 6.9 */
    RV_URING_UNREGISTER_NAPI = 28,        /* 6.9 */
    RV_URING_REGISTER_CLOCK = 29,         /* 6.12 */
    RV_URING_REGISTER_CLONE_BUFFERS = 30, /* 6.12 */
    RV_URING_REGISTER_SEND_MSG_RING = 31, /* 6.13 */
    RV_URING_REGISTER_RESIZE_RINGS = 33,  /* 6.13 */
    RV_URING_REGISTER_MEM_REGION = 34,    /* 6.13 */
};

/* Opcodes of requests. */
enum {
    RV_URING_OP_READ_MULTISHOT = 49,   /* 6.7 */
    RV_URING_OP_WAITID = 50,           /* 6.7 */
    RV_URING_OP_FUTEX_WAIT = 51,       /* 6.7 */
    RV_URING_OP_FUTEX_WAKE = 52,       /* 6.7 */
    RV_URING_OP_FUTEX_WAITV = 53,      /* 6.7 */
    RV_URING_OP_FIXED_FD_INSTALL = 54, /* 6.8 */
    RV_URING_OP_FTRUNCATE = 55,        /* 6.9 */
    RV_URING_OP_BIND = 56,             /* 6.11 */
    RV_URING_OP_LISTEN = 57,           /* 6.11 */
    RV_URING_OP_RECV_ZC = 58,          /* 6.15 */
    RV_URING_OP_EPOLL_WAIT = 59,       /* 6.15 */
    RV_URING_OP_READV_FIXED = 60,      /* 6.15 */
    RV_URING_OP_WRITEV_FIXED = 61,     /* 6.15 */
    RV_URING_OP_PIPE = 62,             /* 6.16 */
};

/* sqe->ioprio of send and recv. */
#define RV_URING_RECVSEND_POLL_FIRST   (1u << 0) /* 5.19 */
#define RV_URING_RECV_MULTISHOT        (1u << 1) /* 6.0 */
#define RV_URING_RECVSEND_FIXED_BUF    (1u << 2) /* 6.0 */
#define RV_URING_SEND_ZC_REPORT_USAGE  (1u << 3) /* 6.2 */
#define RV_URING_RECVSEND_BUNDLE       (1u << 4) /* 6.10 */
#define RV_URING_NOTIF_USAGE_ZC_COPIED (1u << 31) /* res of the notification: the kernel copied */

/* sqe->ioprio of accept. */
#define RV_URING_ACCEPT_MULTISHOT  (1u << 0) /* 5.19 */
#define RV_URING_ACCEPT_DONTWAIT   (1u << 1) /* 6.10 */
#define RV_URING_ACCEPT_POLL_FIRST (1u << 2) /* 6.10 */

/* sqe->cancel_flags, sqe->timeout_flags, sqe->msg_ring_flags. */
#define RV_URING_CANCEL_USERDATA     (1u << 4) /* 6.6 */
#define RV_URING_CANCEL_OP           (1u << 5) /* 6.6 */
#define RV_URING_TIMEOUT_MULTISHOT   (1u << 6) /* 6.4 */
#define RV_URING_MSG_RING_FLAGS_PASS (1u << 1) /* 6.3 */

/* sqe->splice_flags. */
#define RV_URING_SPLICE_F_FD_IN_FIXED (1u << 31) /* 5.7 */

/* cqe->flags. */
#define RV_URING_CQE_F_BUFFER        (1u << 0)
#define RV_URING_CQE_F_MORE          (1u << 1)
#define RV_URING_CQE_F_SOCK_NONEMPTY (1u << 2) /* 5.19: a recv left bytes behind */
#define RV_URING_CQE_F_NOTIF         (1u << 3)
#define RV_URING_CQE_F_BUF_MORE      (1u << 4) /* 6.12 */
#define RV_URING_CQE_BUFFER_SHIFT    16

/* struct io_uring_buf_reg, its 16 bits behind bgid (2.3 calls them pad). */
#define RV_URING_PBUF_RING_MMAP (1u << 0) /* 6.4 */
#define RV_URING_PBUF_RING_INC  (1u << 1) /* 6.12 */

/* struct io_uring_clone_buffers. */
#define RV_URING_CLONE_SRC_REGISTERED (1u << 0)

/* Of other interfaces, for the same reason. */
#define RV_MADV_GUARD_INSTALL 102       /* 6.13 */
#define RV_MADV_GUARD_REMOVE  103       /* 6.13 */
#define RV_RWF_NOSIGNAL       (1u << 8) /* 6.18: EPIPE without SIGPIPE */

/* Byte offset of the field that 2.3 knows as file_index and newer headers call optlen too. */
#define RV_URING_SQE_OPTLEN_AT 44

/* Arms a multishot recv that the kernel itself ends after `bytes`; only where caps.recv_optlen:
 * older kernels answer -EINVAL. The last completion may pass the limit by less than one buffer. */
static inline void rv_uring_sqe_optlen(struct io_uring_sqe *sqe, uint32_t bytes)
{
    memcpy((char *)sqe + RV_URING_SQE_OPTLEN_AT, &bytes, sizeof bytes);
}

/* The buffer that a completion with CQE_F_BUFFER used. */
static inline uint16_t rv_uring_cqe_bid(uint32_t cqe_flags)
{
    return (uint16_t)(cqe_flags >> RV_URING_CQE_BUFFER_SHIFT);
}

/* Argument of CLONE_BUFFERS. All zero but src_fd: clones every buffer, to the same indexes. */
struct rv_uring_clone_buffers {
    uint32_t src_fd, flags, src_off, dst_off, nr, pad[3];
};

#endif
