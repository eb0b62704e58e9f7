/* SPDX-License-Identifier: MIT */
/*
 * ring.c -- one io_uring: its set-up, its two queues, and the only place that enters it.
 *
 * The kernel shares two mappings with us. Indexes run freely and are masked at each use; whoever
 * advances one publishes it with a release that the other side acquires.
 *
 *     rings:  SQ head, tail, flags | CQ head, tail, flags | CQEs ... | SQ array ...
 *     slots:  SQE 0, SQE 1, ...
 *
 *             kernel advances         we advance
 *     SQ      head (has taken)        tail (has filled; published by enter, not before)
 *     CQ      tail (has posted)       head (has copied; once per batch)
 *
 * (1) The SQ array is filled 1:1 once, so slot i of the SQ is always SQE i. Rings without an array
 *     are never asked for: old helper libraries write the array anyway, over the heads and tails.
 * (2) sq_head <= SQ head <= SQ tail <= sq_tail <= sq_head + sq_entries: a slot is handed out again
 *     only after an enter in which the kernel took it.
 * (3) Every enter but rv_ring_submit()'s says GETEVENTS: on a DEFER_TASKRUN ring completions are
 *     made nowhere else.
 * (4) A registered index belongs to the thread that registered it, so it is used and given back
 *     by the owner only. Naming it on another thread would name a ring of that thread.
 * (5) For ordinary users the kernel charges a ring's memory to RLIMIT_MEMLOCK, which all their
 *     processes share, and gives it back only some time after close (measured on 6.18: 86 KiB for
 *     256 and 4096 entries, 25 to 30 ms). So lack of memory is waited out for PATIENCE_MS, once in
 *     a row, and what still does not fit is tried with a smaller CQ.
 * (6) Once a ring is set up, errno is left alone. Its address is constant for the compiler, which
 *     may keep it across a switch of stacks and so across threads: one function that is never
 *     inlined touches it.
 *
 *     no ring -> disabled                [rv_ring_init]
 *     disabled -> owned                  [rv_ring_enable]
 *     disabled, owned -> no ring         [rv_ring_finish]
 *
 * Threads: see ring.h.
 */
#include "io/ring.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "io/caps.h"
#include "mem/die.h"
#include "mem/fault.h"
#include "mem/rv_atomic.h"

#define SEC_NS 1000000000
#define PATIENCE_MS 511 /* 1 + 2 + 4 + ... + 256 */

/* The flags that a kernel may lack, newest first: 6.1, 6.0, 5.19, 5.18. */
static const unsigned peel[] = {
    IORING_SETUP_DEFER_TASKRUN,
    IORING_SETUP_SINGLE_ISSUER,
    IORING_SETUP_COOP_TASKRUN,
    IORING_SETUP_SUBMIT_ALL,
};

#define FLAGS_KNOWN (RV_RING_FLAGS | IORING_SETUP_COOP_TASKRUN)
#define FEATURES_NEEDED (IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG)

_Static_assert(sizeof(struct rv_cqe) == sizeof(struct io_uring_cqe), "the CQ is an array of these");
_Static_assert(offsetof(struct rv_cqe, res) == offsetof(struct io_uring_cqe, res), "same layout");
_Static_assert(offsetof(struct rv_cqe, flags) == offsetof(struct io_uring_cqe, flags),
               "same layout");
_Static_assert(sizeof(struct io_uring_sqe) == 64, "no flag that makes SQEs longer is ever used");
_Static_assert(offsetof(struct io_uring_sqe, file_index) == RV_URING_SQE_OPTLEN_AT,
               "optlen shares the bytes of file_index");

/* ---- system calls ---------------------------------------------------------------------------- */

/* >= 0 or -errno; errno is as before. See (6). */
__attribute__((noinline)) static int call(long number, const long arg[6])
{
    int before = errno;
    long ret = syscall(number, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
    if (ret >= 0)
        return (int)ret;
    ret = -errno;
    errno = before;
    return (int)ret;
}

static int sys_setup(unsigned entries, struct io_uring_params *p)
{
    return call(__NR_io_uring_setup, (long[6]){ (long)entries, (long)(intptr_t)p });
}

/* No fault points here: what gives something back must not be told that it failed. */
static int sys_register(int fd, unsigned opcode, const void *arg, unsigned nr)
{
    return call(__NR_io_uring_register,
                (long[6]){ fd, (long)opcode, (long)(intptr_t)arg, (long)nr });
}

/* A mapping that children do not inherit: they would submit to their parent's ring. */
static int map(size_t bytes, int flags, int fd, off_t at, void **ret)
{
    if (RV_FAULT("ring.mmap"))
        return -ENOMEM;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, at);
    if (p == MAP_FAILED)
        return -errno;
    if (madvise(p, bytes, MADV_DONTFORK) < 0) {
        int r = -errno;
        munmap(p, bytes);
        return r;
    }
    *ret = p;
    return 0;
}

/* ---- set-up ---------------------------------------------------------------------------------- */

/* The most of `may` that goes together. */
static unsigned settle(unsigned may)
{
    if (!(may & IORING_SETUP_TASKRUN_FLAG))
        may &= ~(IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN);
    if (!(may & IORING_SETUP_SINGLE_ISSUER))
        may &= ~IORING_SETUP_DEFER_TASKRUN;
    if (may & IORING_SETUP_DEFER_TASKRUN)
        may &= ~IORING_SETUP_COOP_TASKRUN;
    if (!(may & (IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN)))
        may &= ~IORING_SETUP_TASKRUN_FLAG;
    return may;
}

static unsigned switched_off(const struct rv_caps_off *off)
{
    if (!off)
        return 0;
    return (off->defer_taskrun ? IORING_SETUP_DEFER_TASKRUN : 0) |
           (off->single_issuer ? IORING_SETUP_SINGLE_ISSUER : 0) |
           (off->taskrun_flag ? IORING_SETUP_TASKRUN_FLAG : 0) |
           (off->coop_taskrun ? IORING_SETUP_COOP_TASKRUN : 0) |
           (off->submit_all ? IORING_SETUP_SUBMIT_ALL : 0);
}

/* Set by a wait for memory that was in vain, cleared by the next ring that needs none: of a hundred
 * rings that do not fit the limit, the first waits for all. A hint: relaxed. */
static RV_ATOMIC(uint32_t) in_vain;

/* Sleeps a little, and longer each time. False once PATIENCE_MS are used up. See (5). */
static bool wait_for_memory(unsigned *waited_ms)
{
    unsigned ms = *waited_ms + 1;
    if (*waited_ms >= PATIENCE_MS)
        rv_store_relaxed(&in_vain, 1);
    if (rv_load_relaxed(&in_vain))
        return false;
    nanosleep(&(struct timespec){ .tv_nsec = ms * 1000000L }, NULL);
    *waited_ms += ms;
    return true;
}

/* Asks for less and less until the kernel agrees. The fd, or -errno. */
static int set_up_flags(unsigned sq, unsigned cq, unsigned may, struct io_uring_params *ret)
{
    for (;;) {
        *ret = (struct io_uring_params){ .flags = settle(may), .cq_entries = cq };
        int fd = sys_setup(sq, ret);
        if (fd != -EINVAL)
            return fd;
        unsigned dropped = 0;
        for (size_t i = 0; i < sizeof peel / sizeof *peel && !dropped; i++)
            dropped = ret->flags & peel[i];
        if (!dropped)
            return -EINVAL;
        may &= ~dropped;
    }
}

/* The same with patience, then with half the CQ, down to the kernel's default of twice the SQ. */
static int set_up(unsigned sq, unsigned cq, unsigned may, struct io_uring_params *ret)
{
    unsigned waited_ms = 0;
    int fd;
    do {
        fd = set_up_flags(sq, cq, may, ret);
    } while (fd == -ENOMEM && wait_for_memory(&waited_ms));
    if (fd >= 0)
        rv_store_relaxed(&in_vain, 0);
    while (fd == -ENOMEM && cq / 2 >= 2 * (uint64_t)sq) {
        cq /= 2;
        fd = set_up_flags(sq, cq, may, ret);
    }
    return fd;
}

static size_t rings_bytes(const struct io_uring_params *p)
{
    size_t sq = p->sq_off.array + (size_t)p->sq_entries * sizeof(uint32_t);
    size_t cq = p->cq_off.cqes + (size_t)p->cq_entries * sizeof(struct rv_cqe);
    return sq > cq ? sq : cq;
}

/* Notes where in the mapping everything lies. */
static void lay_out(struct rv_ring *r, const struct io_uring_params *p)
{
    char *base = r->rings;
    r->k_sq_head = (uint32_t *)(base + p->sq_off.head);
    r->k_sq_tail = (uint32_t *)(base + p->sq_off.tail);
    r->k_sq_flags = (uint32_t *)(base + p->sq_off.flags);
    r->k_cq_head = (uint32_t *)(base + p->cq_off.head);
    r->k_cq_tail = (uint32_t *)(base + p->cq_off.tail);
    r->k_cq_flags = (uint32_t *)(base + p->cq_off.flags);
    r->cq_slots = (const struct rv_cqe *)(base + p->cq_off.cqes);
    r->sq_entries = p->sq_entries;
    r->sq_mask = p->sq_entries - 1;
    r->cq_entries = p->cq_entries;
    r->cq_mask = p->cq_entries - 1;
    RV_MUST(p->sq_off.array != 0); /* (1) */
    uint32_t *array = (uint32_t *)(base + p->sq_off.array);
    for (uint32_t i = 0; i < p->sq_entries; i++)
        array[i] = i;
}

static int map_rings(struct rv_ring *r, const struct io_uring_params *p)
{
    void *sqes = NULL;
    r->rings_bytes = rings_bytes(p);
    r->sqes_bytes = (size_t)p->sq_entries * sizeof(struct io_uring_sqe);
    int e = map(r->sqes_bytes, MAP_SHARED | MAP_POPULATE, r->fd, (off_t)IORING_OFF_SQES, &sqes);
    if (e < 0)
        return e;
    e = map(r->rings_bytes, MAP_SHARED | MAP_POPULATE, r->fd, (off_t)IORING_OFF_SQ_RING, &r->rings);
    if (e < 0) {
        munmap(sqes, r->sqes_bytes);
        return e;
    }
    r->sq_slots = sqes;
    lay_out(r, p);
    return 0;
}

int rv_ring_init(struct rv_ring *r, unsigned sq, unsigned cq, unsigned want,
                 const struct rv_caps_off *off)
{
    RV_MUST(sq > 0);
    RV_MUST((want & ~FLAGS_KNOWN) == 0);
    *r = (struct rv_ring){ 0 };
    if (RV_FAULT("ring.setup"))
        return -ENOMEM;
    unsigned may = want | (want & IORING_SETUP_DEFER_TASKRUN ? IORING_SETUP_COOP_TASKRUN : 0);
    may &= ~switched_off(off);
    may = cq ? may | IORING_SETUP_CQSIZE : may & ~IORING_SETUP_CQSIZE;

    struct io_uring_params p;
    struct rv_ring made = { 0 };
    made.fd = set_up(sq, cq, may, &p);
    if (made.fd < 0)
        return made.fd;
    int e = -EOPNOTSUPP;
    if ((p.features & FEATURES_NEEDED) == FEATURES_NEEDED)
        e = map_rings(&made, &p);
    if (e < 0) {
        close(made.fd);
        return e;
    }
    made.enter_fd = made.fd;
    made.flags = p.flags;
    made.features = p.features;
    made.may_register_fd = !(off && off->registered_ring_fd);
    made.no_iowait = (p.features & RV_URING_FEAT_NO_IOWAIT) && !(off && off->no_iowait);
    made.abs_timer = !(off && off->abs_timer);
    *r = made;
    return 0;
}

/* Saves the kernel the look-up of our fd at each enter. A kernel without it, or a thread that has
 * all its 16 places taken, goes on by fd. */
static void register_fd(struct rv_ring *r)
{
    struct io_uring_rsrc_update where = { .offset = UINT32_MAX, .data = (uint64_t)r->fd };
    if (!r->may_register_fd || rv_ring_register(r, IORING_REGISTER_RING_FDS, &where, 1) != 1)
        return;
    r->enter_fd = (int)where.offset;
    r->enter_flags = IORING_ENTER_REGISTERED_RING;
}

int rv_ring_enable(struct rv_ring *r)
{
    RV_MUST(r->rings);
    RV_MUST(r->owner == 0);
    if (r->flags & IORING_SETUP_R_DISABLED) {
        int e = rv_ring_register(r, RV_URING_REGISTER_ENABLE_RINGS, NULL, 0);
        if (e < 0)
            return e;
    }
    r->owner = gettid();
    register_fd(r);
    return 0;
}

void rv_ring_finish(struct rv_ring *r)
{
    if (!r->rings)
        return;
    if (r->enter_flags && r->owner == gettid()) { /* (4) */
        struct io_uring_rsrc_update where = { .offset = (uint32_t)r->enter_fd };
        sys_register(r->fd, IORING_UNREGISTER_RING_FDS, &where, 1);
    }
    munmap(r->sq_slots, r->sqes_bytes);
    munmap(r->rings, r->rings_bytes);
    close(r->fd);
    *r = (struct rv_ring){ 0 };
}

/* ---- entering -------------------------------------------------------------------------------- */

static int64_t monotonic_ns(void)
{
    struct timespec t;
    RV_MUST(clock_gettime(CLOCK_MONOTONIC, &t) == 0);
    return t.tv_sec * (int64_t)SEC_NS + t.tv_nsec;
}

/* The one io_uring_enter. Waits if min_complete is not 0; `until` is then > 0. */
static int enter_once(struct rv_ring *r, unsigned submit, unsigned min_complete, int64_t until)
{
    if (RV_FAULT("ring.enter"))
        return -EAGAIN;
    if (RV_FAULT("enter.busy"))
        return -EBUSY;
    if (RV_FAULT("enter.intr"))
        return -EINTR;
    unsigned flags = IORING_ENTER_GETEVENTS | r->enter_flags;
    struct __kernel_timespec time;
    struct io_uring_getevents_arg ext = { .ts = (uint64_t)(uintptr_t)&time };
    long arg = 0, arg_bytes = _NSIG / 8;
    if (min_complete && r->no_iowait)
        flags |= RV_URING_ENTER_NO_IOWAIT;
    if (min_complete && until != RV_RING_FOREVER) {
        int64_t ns = r->abs_timer ? until : until - monotonic_ns();
        time.tv_sec = ns > 0 ? ns / SEC_NS : 0;
        time.tv_nsec = ns > 0 ? ns % SEC_NS : 0;
        flags |= IORING_ENTER_EXT_ARG | (r->abs_timer ? RV_URING_ENTER_ABS_TIMER : 0);
        arg = (long)(intptr_t)&ext;
        arg_bytes = sizeof ext;
    }
    if (rv_ring_taskrun(r))
        rv_ring_clear_taskrun(r);
    long args[6] = { r->enter_fd, (long)submit, (long)min_complete, (long)flags, arg, arg_bytes };
    int n = call(__NR_io_uring_enter, args);
    r->enters++;
    if (n == -EINVAL && (flags & RV_URING_ENTER_ABS_TIMER)) {
        r->abs_timer = false; /* an unknown flag is refused before anything is done */
        return enter_once(r, submit, min_complete, until);
    }
    return n;
}

/* What became of one enter, in the ring's own words and counters. */
static void account(struct rv_ring *r)
{
    uint32_t head = rv_ring_load(r->k_sq_head); /* the slots before it may be filled anew, (2) */
    r->sqes += head - r->sq_head;
    r->sq_head = head;
    RV_ASSERT(rv_ring_unsubmitted(r) <= r->sq_entries);
    if (rv_ring_overflowed(r))
        r->overflows++;
}

int rv_ring_enter(struct rv_ring *r, unsigned min_complete, unsigned flags, int64_t until)
{
    RV_ASSERT((flags & ~RV_RING_NO_SUBMIT) == 0);
    unsigned submit = 0;
    int taken = 0, n;
    if (until <= 0)
        min_complete = 0;
    if (!(flags & RV_RING_NO_SUBMIT)) {
        rv_ring_store(r->k_sq_tail, r->sq_tail); /* publishes the SQEs to the kernel's acquire */
        submit = rv_ring_unsubmitted(r);
    }
    /* The kernel waits only in an enter that took all it was given: going on with the rest after a
     * partial submission waits once at most. */
    do {
        n = enter_once(r, submit, min_complete, until);
        account(r);
        if (n == -EBADR)
            rv_die("the kernel had no memory for an io_uring completion and dropped it; whoever "
                   "waits for it would wait forever.");
        if (n == -EINTR || n == -ETIME)
            return taken;
        if (n < 0)
            return n;
        taken += n;
        submit -= (unsigned)n < submit ? (unsigned)n : submit;
    } while (submit && n > 0);
    return taken;
}

int rv_ring_submit(struct rv_ring *r)
{
    if (RV_FAULT("ring.submit"))
        return -EAGAIN;
    rv_ring_store(r->k_sq_tail, r->sq_tail); /* as in rv_ring_enter() */
    long args[6] = { r->enter_fd, (long)rv_ring_unsubmitted(r), 0, (long)r->enter_flags };
    int n = call(__NR_io_uring_enter, args);
    r->enters++;
    account(r);
    return n;
}

/* ---- registering, messages ------------------------------------------------------------------- */

int rv_ring_register(struct rv_ring *r, unsigned opcode, const void *arg, unsigned nr)
{
    RV_MUST(r->rings);
    if (RV_FAULT("ring.register"))
        return -ENOMEM;
    return sys_register(r->fd, opcode, arg, nr);
}

int rv_ring_msg(const struct rv_caps *caps, int target_fd, uint64_t user_data)
{
    if (!caps->send_msg_ring)
        return -ENOSYS;
    if (RV_FAULT("ring.msg"))
        return -ENOMEM;
    struct io_uring_sqe sqe = {
        .opcode = IORING_OP_MSG_RING,
        .fd = target_fd,
        .off = user_data,
    };
    return sys_register(-1, RV_URING_REGISTER_SEND_MSG_RING, &sqe, 1);
}

/* ---- provided buffers ------------------------------------------------------------------------ */

static size_t bufring_bytes(unsigned entries)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t bytes = (size_t)entries * sizeof(struct io_uring_buf);
    return (bytes + page - 1) & ~(page - 1);
}

int rv_bufring_init(struct rv_ring *r, struct rv_bufring *br, unsigned entries, uint16_t bgid)
{
    RV_MUST(entries > 0 && entries <= 32768);
    RV_MUST((entries & (entries - 1)) == 0);
    *br = (struct rv_bufring){ 0 };
    void *memory = NULL;
    int e = map(bufring_bytes(entries), MAP_PRIVATE | MAP_ANONYMOUS, -1, 0, &memory);
    if (e < 0)
        return e;
    struct io_uring_buf_reg reg = {
        .ring_addr = (uint64_t)(uintptr_t)memory,
        .ring_entries = entries,
        .bgid = bgid,
    };
    unsigned waited_ms = 0;
    do {
        e = rv_ring_register(r, IORING_REGISTER_PBUF_RING, &reg, 1);
    } while (e == -ENOMEM && wait_for_memory(&waited_ms));
    if (e < 0) {
        munmap(memory, bufring_bytes(entries));
        return e;
    }
    *br = (struct rv_bufring){ memory, entries, entries - 1, 0, bgid };
    return 0;
}

void rv_bufring_finish(struct rv_ring *r, struct rv_bufring *br)
{
    if (!br->br)
        return;
    if (r->rings) {
        struct io_uring_buf_reg reg = { .bgid = br->bgid };
        RV_MUST(sys_register(r->fd, IORING_UNREGISTER_PBUF_RING, &reg, 1) == 0);
    }
    munmap(br->br, bufring_bytes(br->entries));
    *br = (struct rv_bufring){ 0 };
}
