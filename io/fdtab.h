/* SPDX-License-Identifier: MIT */
/*
 * fdtab.h -- what reeve knows about each file descriptor of the process.
 *
 * One table for all runtimes, since the numbers are the process's: a mapping indexed by fd, touched
 * where fds are. A slot is never freed, so looking at one needs no care; what it says is under its
 * lock, which is a bit of its first word.
 */
#ifndef RV_IO_FDTAB_H
#define RV_IO_FDTAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stddef.h>
#include <stdint.h>

#include "mem/rv_atomic.h"

struct rv_io_driver;
struct rv_io_worker;
struct rv_lease;
struct rv_op;
struct rv_reader;
struct rv_turn;

/* Linux's own default bound (fs.nr_open). An fd beyond it works, but as a foreign one. */
#define RV_FDS_MAX (1u << 20)

/* The word: generation << 32 | ops in flight << RV_FD_COUNT_SHIFT | flags. */
enum {
    RV_FD_LOCK = 1,     /* held by whoever set it; the word is written by plain stores meanwhile */
    RV_FD_OURS = 2,     /* made by reeve */
    RV_FD_STREAM = 4,   /* and a connected stream socket: it is read through a stream */
    RV_FD_CLOSING = 8,  /* no more ops; the last one out closes it */
    RV_FD_READER = 16,  /* somebody copies from the first unread lease */
    RV_FD_WRITER = 32,  /* somebody sends */
    RV_FD_DRAIN = 64,   /* reads that would wait end with -ESHUTDOWN */
    RV_FD_ARMED = 128,  /* the stream receives, or will without being asked again */
    RV_FD_ENDED = 256,  /* it has ended, as `end` says */
    RV_FD_IDLE = 512,   /* idle_ns is set */
    RV_FD_TURNS = 1024, /* somebody waits for his turn to send */
    RV_FD_STARVED = 2048, /* the stream waits for buffers */
};
#define RV_FD_COUNT_SHIFT 12
#define RV_FD_COUNT_ONE   (UINT64_C(1) << RV_FD_COUNT_SHIFT)
#define RV_FD_COUNT_MASK  (UINT64_C(0xfffff) << RV_FD_COUNT_SHIFT)

struct rv_fd {
    /* All that a message which comes in and its answer touch. */
    RV_ALIGNED_LINE RV_ATOMIC(uint64_t) word;
    /* who waits for data; without the lock, for prefetching */
    RV_ATOMIC(struct rv_reader *) reader;
    RV_ATOMIC(uint64_t) token;            /* and its wait's, the same */
    struct rv_lease *first, *last;        /* received and not read */
    struct rv_op *stream;                 /* the receiving op; NULL: none yet, or it has ended */
    struct rv_op *sending;                /* the writer's op */
    struct rv_op *ops;                    /* the other ops in flight */

    struct rv_turn *turns;                /* who waits to send: the last, whose next is the first */
    const struct rv_io_driver *driver;    /* closes it */
    int64_t idle_ns;                      /* what deadline 0 means to a read */
    /* which socket this was when it was made; debug builds only */
    uint64_t cookie;
    uint32_t unread_bufs;
    int32_t accept_next;                  /* in an acceptor's list: the next fd, or -1 */
    uint64_t unread_bytes;
    int32_t end;                          /* the stream's: 1 its end, else -errno */
};
_Static_assert(sizeof(struct rv_fd) == 128, "a slot is two cache lines");

extern struct rv_fd *rv_fd_table;

/* Makes the table, once per process; it stays. 0 or -ENOMEM. */
int rv_fd_table_init(void);

/* NULL: not a descriptor, or beyond the table. */
static inline struct rv_fd *rv_fd_slot(int fd)
{
    return (unsigned)fd < RV_FDS_MAX ? &rv_fd_table[fd] : NULL;
}

static inline int rv_fd_number(const struct rv_fd *f)
{
    return (int)(f - rv_fd_table);
}

uint64_t rv_fd_lock_slow(struct rv_fd *f);

/* Takes the lock and returns the word, lock bit clear. */
static inline uint64_t rv_fd_lock(struct rv_fd *f)
{
    uint64_t word = rv_load_relaxed(&f->word);
    /* Acquires; pairs with the release in rv_fd_unlock(). */
    if (__builtin_expect(!(word & RV_FD_LOCK) && rv_cas(&f->word, &word, word | RV_FD_LOCK), 1))
        return word;
    return rv_fd_lock_slow(f);
}

/* Publishes everything done under the lock, and the word; pairs with rv_fd_lock(). */
static inline void rv_fd_unlock(struct rv_fd *f, uint64_t word)
{
    rv_store_release(&f->word, word);
}

/* Debug builds: the number must still be the socket that reeve made, or somebody used close(2), and
 * the process ends. Under the lock. */
void rv_fd_check_cookie(const struct rv_fd *f, uint64_t word);
/* For tests of what other builds do then. */
void rv_fd_check_switch(bool on);
static inline void rv_fd_check(const struct rv_fd *f, uint64_t word)
{
#ifdef RV_DEBUG
    rv_fd_check_cookie(f, word);
#else
    (void)f;
    (void)word;
#endif
}

static inline uint32_t rv_fd_gen(uint64_t word)
{
    return (uint32_t)(word >> 32);
}

/* Unlocks, and if this was the last op of a closing fd, closes it. */
void rv_fd_settle_closing(struct rv_fd *f, uint64_t word);
static inline void rv_fd_settle(struct rv_fd *f, uint64_t word)
{
    if (__builtin_expect(word & RV_FD_CLOSING, 0))
        rv_fd_settle_closing(f, word);
    else
        rv_fd_unlock(f, word);
}

/* The kernel has just handed out this number to us. flags: RV_FD_STREAM or 0. Whatever the slot
 * still holds of an earlier socket, closed behind our back, is cut off. 0; -EMFILE: beyond the
 * table. ret_gen may be NULL. */
int rv_fd_made(struct rv_io_worker *iw, int fd, unsigned flags, uint32_t *ret_gen);

/* The same for a number that is no socket but a file: it stays a foreign one, written by write and
 * closed by anybody. Only what the slot still holds of an earlier socket is cut off. */
void rv_fd_file_made(struct rv_io_worker *iw, int fd);

/* An op is about to be queued for op->fd, or has completed. enter: 0; -EBADF: closing. f may be
 * NULL, and nothing is done. leave says whether a close cut in. */
int rv_fd_enter(struct rv_fd *f, struct rv_op *op);
bool rv_fd_leave(struct rv_fd *f, struct rv_op *op);

/* reeve_close. gen 0: whatever the fd is now; else only if it is still that one. iw NULL: a
 * foreign thread. */
int rv_fd_close(struct rv_io_worker *iw, int fd, uint32_t gen);

/* reeve_adopt and reeve_fd_release; iw NULL: a foreign thread, which cannot release. The latter in
 * a task; the worker may have changed. */
int rv_fd_adopt(struct rv_io_worker *iw, int fd);
int rv_fd_release(struct rv_io_worker *iw, int fd, int64_t until);

/* Adds an op to the slot's list, and takes it out. Under the lock. */
void rv_fd_link(struct rv_fd *f, struct rv_op *op);
void rv_fd_unlink(struct rv_fd *f, struct rv_op *op);

/* For a server: what deadline 0 means to a read; and the beginning of a drain. gen as above. */
void rv_fd_set_idle(int fd, uint32_t gen, int64_t idle_ns);
/* Data, or the end, waits in the socket itself: nobody has received it yet. */
bool rv_fd_pending(const struct rv_fd *f);
void rv_fd_drain(struct rv_io_worker *iw, int fd, uint32_t gen);

/* The runtime goes: its streams end, and their fds become plain ones. No worker runs. */
void rv_fd_forget(const struct rv_io_worker *workers, uint32_t n);

#endif
