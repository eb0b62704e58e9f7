/* SPDX-License-Identifier: MIT */
/*
 * ring.h -- one io_uring, and nothing that knows what its requests mean.
 *
 *     struct io_uring_sqe *sqe = rv_ring_sqe(r);
 *     io_uring_prep_nop(sqe);
 *     sqe->user_data = 42;
 *     rv_ring_enter(r, 1, 0, RV_RING_FOREVER);
 *     struct rv_cqe cqe[16];
 *     unsigned n = rv_ring_peek(r, cqe, 16);
 *
 * Threads: a ring has one owner, the thread that called rv_ring_enable(). Everything here is the
 * owner's, but for these: init by anyone, who may register things until the ring is enabled;
 * rv_ring_taskrun(), rv_ring_overflowed() and rv_ring_is_due() by anyone; rv_ring_msg() by anyone,
 * to any ring; rv_ring_sqe(), has_cqe and peek also by a thread that the owner lends the ring to
 * (then the lending must synchronise): all but entering.
 */
#ifndef RV_IO_RING_H
#define RV_IO_RING_H

#include <liburing.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#include "io/uring_compat.h"

struct rv_caps;
struct rv_caps_off;

#define RV_RING_FOREVER INT64_MAX   /* until: no limit */
#define RV_RING_NOW INT64_C(-1)     /* until: do not wait at all */
#define RV_RING_NO_SUBMIT (1u << 0) /* flag of rv_ring_enter */

/* What every worker wants; see rv_ring_init(). */
#define RV_RING_FLAGS                                                                              \
    (IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG |         \
     IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_R_DISABLED)

/* A completion. The kernel's own type ends in a flexible array, so ISO C has no arrays of it. */
struct rv_cqe {
    uint64_t user_data;
    int32_t res;
    uint32_t flags;
};

struct rv_ring {
    /* Set by init and enable, constant from then on. */
    int fd;               /* what other threads name in rv_ring_msg() */
    int enter_fd;         /* fd, or its index among the owner's registered rings */
    uint32_t enter_flags; /* IORING_ENTER_REGISTERED_RING when it is an index */
    uint32_t flags;       /* IORING_SETUP_* that the kernel granted */
    uint32_t features;
    uint32_t sq_entries, sq_mask, cq_entries, cq_mask;
    bool may_register_fd, no_iowait;
    pid_t owner; /* thread id, 0 before enable */
    struct io_uring_sqe *sq_slots;
    const struct rv_cqe *cq_slots;
    uint32_t *k_sq_head, *k_sq_tail, *k_sq_flags, *k_cq_head, *k_cq_tail, *k_cq_flags; /* shared */
    void *rings; /* the mapping that holds all but the SQEs; NULL: no ring */
    size_t rings_bytes, sqes_bytes;

    /* Written by the owner. */
    uint32_t sq_head;   /* up to here the kernel has taken SQEs, as of the last enter */
    uint32_t sq_tail;   /* up to here rv_ring_sqe() has handed them out */
    bool abs_timer;     /* until the kernel refuses one */
    uint64_t enters;    /* system calls made */
    uint64_t sqes;      /* requests that the kernel took */
    uint64_t overflows; /* enters that left completions behind because the CQ was full */

    /* Written by whoever reaps. */
    uint32_t cq_head;
    uint64_t cqes; /* completions that peek handed out */
};

/* Loads and stores of the words that the kernel shares. Its half of each pair is smp_load_acquire()
 * and smp_store_release(); no back end of rv_atomic.h has anything to see here. */
static inline uint32_t rv_ring_load(const uint32_t *word)
{
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static inline void rv_ring_store(uint32_t *word, uint32_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}

/* Makes a ring of sq submission and cq completion entries (0: twice sq), rounded up to powers of
 * two. `want` is RV_RING_FLAGS or fewer of them. Where the kernel refuses the lot, one goes after
 * another, newest first; r->flags says what is left. DEFER_TASKRUN needs SINGLE_ISSUER, and
 * TASKRUN_FLAG too: without that word nobody could tell that completions are due. COOP_TASKRUN
 * takes its place. `off` (may be NULL) names what not to try. The memory is not inherited by fork,
 * the fd not by exec.
 *
 * An ordinary user's rings are charged to RLIMIT_MEMLOCK (256 and 4096 entries: 86 KiB), and for
 * some 30 ms after they were closed. So this may block, for half a second at most, and ends with a
 * smaller CQ than asked for, down to twice sq, rather than with -ENOMEM: see r->cq_entries.
 *
 * 0; -EINVAL: too old a kernel; -EOPNOTSUPP: one without IORING_FEAT_SINGLE_MMAP, NODROP or
 * EXT_ARG; -ENOSYS, -EPERM, -ENOMEM, -EMFILE, ... as io_uring_setup(2) and mmap(2). *r is {0} on
 * failure. */
int rv_ring_init(struct rv_ring *r, unsigned sq, unsigned cq, unsigned want,
                 const struct rv_caps_off *off);

/* The calling thread becomes the owner; it registers the ring's fd for itself where that is
 * possible. Needed also when `want` had no R_DISABLED. 0 or -errno. */
int rv_ring_enable(struct rv_ring *r);

/* Closes the ring. The owner should do it; from elsewhere the owner's registered index stays taken
 * until that thread ends. Requests in flight are cancelled by the kernel, some time later: their
 * memory must stay, so drain first. A ring that is {0} is fine, and *r is {0} afterwards. */
void rv_ring_finish(struct rv_ring *r);

/* How many handed-out SQEs the kernel has not taken. */
static inline unsigned rv_ring_unsubmitted(const struct rv_ring *r)
{
    return r->sq_tail - r->sq_head;
}

/* How many more rv_ring_sqe() will hand out before an enter: links must go into one submission. */
static inline unsigned rv_ring_space(const struct rv_ring *r)
{
    return r->sq_entries - rv_ring_unsubmitted(r);
}

/* The next free SQE, all zero; NULL when the SQ is full (enter, then ask again). Fill it before the
 * next enter: there is no giving back. */
static inline struct io_uring_sqe *rv_ring_sqe(struct rv_ring *r)
{
    if (rv_ring_unsubmitted(r) == r->sq_entries)
        return NULL;
    struct io_uring_sqe *sqe = &r->sq_slots[r->sq_tail & r->sq_mask];
    __atomic_store_n(&r->sq_tail, r->sq_tail + 1, __ATOMIC_RELAXED); /* for rv_ring_is_due() */
    memset(sqe, 0, sizeof *sqe);
    return sqe;
}

/* Submits every SQE, runs the completions that are due (a DEFER_TASKRUN kernel: 20 of them, or
 * min_complete if that is more), and, when min_complete is not 0, waits until so many are in the
 * CQ, a signal, or `until` (absolute CLOCK_MONOTONIC ns, RV_RING_FOREVER, or RV_RING_NOW and
 * anything else <= 0: no wait, whatever min_complete says). With RV_RING_NO_SUBMIT SQEs stay where
 * they are. Without a wait it is async-signal-safe, on the owner's thread, while the owner is not
 * itself in a function of this file.
 *
 * >= 0: so many SQEs were taken; a timeout and a signal are no errors: look at the CQ. -EAGAIN,
 * -EBUSY: out of memory or too much in flight: SQEs may be left over; reap, then call again.
 * -EBADFD: not enabled; -EEXIST: not the owner; the kernel's -errno else. */
int rv_ring_enter(struct rv_ring *r, unsigned min_complete, unsigned flags, int64_t until);

/* Submits every SQE and does no more: completions that are due stay due, but for those of requests
 * that could be answered at once. For who is not done yet, and wants these to begin. >= 0: so many
 * were taken; -errno: the next enter will take the rest, or say what is wrong. */
int rv_ring_submit(struct rv_ring *r);

/* Whether peek would find something. */
static inline bool rv_ring_has_cqe(const struct rv_ring *r)
{
    /* Pairs with the kernel's release of the tail: what it published is then readable. */
    return rv_ring_load(r->k_cq_tail) != r->cq_head;
}

/* Clears the flag, right before an enter that runs what it stands for. The kernel adds work first
 * and sets the flag afterwards: when the owner runs the work in between, a flag stays behind with
 * nothing under it, and an enter that finds no work leaves it there. Who believed it would enter
 * for ever. Whatever is added from here on sets it again, and so does what the enter leaves over;
 * the kernel changes the word by atomic operations only. */
static inline void rv_ring_clear_taskrun(struct rv_ring *r)
{
    __atomic_fetch_and(r->k_sq_flags, ~(uint32_t)IORING_SQ_TASKRUN, __ATOMIC_SEQ_CST);
}

/* Whether an enter would make completions that do not exist yet. False on a ring without
 * TASKRUN_FLAG, whose completions come by themselves. Any thread. */
static inline bool rv_ring_taskrun(const struct rv_ring *r)
{
    return rv_ring_load(r->k_sq_flags) & IORING_SQ_TASKRUN;
}

/* Whether the kernel keeps completions that the CQ had no room for: reap, then enter. Any thread.
 * */
static inline bool rv_ring_overflowed(const struct rv_ring *r)
{
    return rv_ring_load(r->k_sq_flags) & IORING_SQ_CQ_OVERFLOW;
}

/* Whether an enter, or a peek, by its owner would bring about anything: requests to submit,
 * completions to make or to reap. A hint, for who sees that the owner does neither. Any thread. */
static inline bool rv_ring_is_due(const struct rv_ring *r)
{
    return rv_ring_load(r->k_sq_flags) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW) ||
           rv_ring_load(r->k_cq_tail) != rv_ring_load(r->k_cq_head) ||
           rv_ring_load(r->k_sq_head) != __atomic_load_n(&r->sq_tail, __ATOMIC_RELAXED);
}

/* Moves up to max completions to out and says how many. They are copied and the head is advanced
 * once, before anybody acts on one: what they lead to may enter this ring again. */
static inline unsigned rv_ring_peek(struct rv_ring *r, struct rv_cqe *out, unsigned max)
{
    unsigned n = rv_ring_load(r->k_cq_tail) - r->cq_head; /* pairs as in rv_ring_has_cqe() */
    if (n > max)
        n = max;
    if (n == 0)
        return 0;
    for (unsigned i = 0; i < n; i++)
        out[i] = r->cq_slots[(r->cq_head + i) & r->cq_mask];
    r->cq_head += n;
    r->cqes += n;
    rv_ring_store(r->k_cq_head, r->cq_head); /* frees the slots; pairs with the kernel's acquire */
    return n;
}

/* Switches the registered eventfd's signals off and on. The owner. */
static inline void rv_ring_mute_eventfd(struct rv_ring *r, bool mute)
{
    rv_ring_store(r->k_cq_flags, mute ? IORING_CQ_EVENTFD_DISABLED : 0);
}

/* io_uring_register(2) on this ring; >= 0 or -errno. -EEXIST: enabled, and not by this thread. */
int rv_ring_register(struct rv_ring *r, unsigned opcode, const void *arg, unsigned nr);

/* Posts a completion {user_data, 0, 0} to the ring with this fd, which wakes its owner if that is
 * parked there; the caller needs no ring. 0; -ENOSYS: not on this kernel (caps->send_msg_ring), use
 * an eventfd; -EBADFD: not enabled yet; -EOVERFLOW, -ENOMEM: not delivered. Any thread. */
int rv_ring_msg(const struct rv_caps *caps, int target_fd, uint64_t user_data);

/*
 * A ring of buffers from which the kernel picks one per received piece, under a group id. The
 * ring's memory is ours, the buffers are the caller's; an entry belongs to the kernel from publish
 * until the completion that names its bid.
 *
 *     entry 0          entry 1          ...
 *     addr len bid T   addr len bid -         T: the tail, in the bytes that an entry leaves unused
 */
struct rv_bufring {
    struct io_uring_buf_ring *br;
    unsigned entries, mask;
    uint16_t tail; /* ahead of the published one by what was added since */
    uint16_t bgid;
};

/* Registers an empty ring of `entries` (a power of two, at most 32768). Charged and waited for as a
 * ring is. 0; -ENOMEM; -EEXIST: the
 * group is in use; -EINVAL; -ENOSYS. *br is {0} on failure. The owner, or whoever made the ring,
 * while it is disabled. */
int rv_bufring_init(struct rv_ring *r, struct rv_bufring *br, unsigned entries, uint16_t bgid);

/* Unregisters and unmaps; afterwards the kernel picks no buffer of it. Before or after
 * rv_ring_finish(); {0} is fine. Same threads as init. */
void rv_bufring_finish(struct rv_ring *r, struct rv_bufring *br);

/* Puts a buffer behind the others; the kernel sees it at the next publish. There must be room:
 * never add a bid that is already in. */
static inline void rv_bufring_add(struct rv_bufring *br, void *addr, uint32_t len, uint16_t bid)
{
    struct io_uring_buf *b = &br->br->bufs[br->tail++ & br->mask];
    b->addr = (uint64_t)(uintptr_t)addr; /* field by field: the fourth one is the tail in entry 0 */
    b->len = len;
    b->bid = bid;
}

/* Hands the kernel what was added since. */
static inline void rv_bufring_publish(struct rv_bufring *br)
{
    /* Publishes the entries; pairs with the kernel's acquire of the tail. */
    __atomic_store_n(&br->br->tail, br->tail, __ATOMIC_RELEASE);
}

#endif
