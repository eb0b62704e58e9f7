/* SPDX-License-Identifier: MIT */
/*
 * log.c -- appends of many tasks, in few writes and fewer syncs.
 *
 * There is no task of the log's own: of those who wait one is told to do the work for all. What
 * waits is a record on its task's stack, and it goes through two queues:
 *
 *     waiting --[a batch, one write]--> unsynced --[one fdatasync]--> done
 *                                   '-> done, if it need not be durable
 *
 *     WAITING  -> gone      [await]          its deadline passed, or its task was cancelled
 *     WAITING  -> TAKEN     [start_write]    its task leads the next batch, and
 *                           [fill_batch]     it is part of that
 *     TAKEN    -> UNSYNCED  [wrote]          written, and to be durable
 *     TAKEN    -> DONE      [wrote]          written, and that is enough; or the write failed
 *     UNSYNCED -> DONE      [synced]
 *     SYNCING  -> DONE, or gone              a task that only asks for a sync: it has no record
 *
 * While a sync runs no batch of durable records is begun: they would have to wait for the next sync
 * anyway, so they gather. That is what makes few writes and few syncs of many appends.
 *
 * (1) One write and one sync are under way at a time. Who leads one has been told so under the lock
 *     (`lead`), and cannot be cancelled until it is over: others wait for it.
 * (2) `written` grows with each write that succeeded, so records stand without gaps. What a failed
 *     write left behind it is cut off at once; if that cannot be, the log is spoilt.
 * (3) A sync that failed spoils the log. The kernel reports a page that could not be written once,
 *     then takes it for clean; so another sync that succeeds says nothing about it.
 * (4) Whoever is in `waiting` or in `unsynced` has a write or a sync under way whose end looks at
 *     both queues. The end of a write begins a sync first, the end of a sync a write first: so
 *     neither can starve the other.
 * (5) Where zeroes are wanted ahead, a batch that would end beyond them is preceded by more. They
 *     are no part of the log: `written` stays behind them, the cut of (2) takes them along, and the
 *     close cuts them off. Records that replace zeroes change neither the file's length nor its
 *     extents, so a sync of them writes no journal. Measured, 64 tasks and 128 bytes each, on ext4:
 *     150 to 190 us for a batch and its sync; where the file grows 200 to 2500, by what else the
 *     journal has to carry. Space that is only reserved (FALLOC_FL_KEEP_SIZE) is in between: the
 *     first write to it changes its extent. One write with RWF_DSYNC takes as long as a write and a
 *     sync. A second group under way while the first is synced was not tried: each would carry half
 *     as many records, and flushes of a device take turns.
 * (6) A record is its task's own again once it is DONE, and the lock was let go of.
 *
 * Threads: tasks, of any runtimes.
 */
#include <errno.h>
#include <fcntl.h>
#include <reeve/net.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "io/file.h"
#include "mem/alloc.h"
#include "mem/die.h"
#include "mem/fault.h"
#include "mem/lock.h"
#include "sched/dispatch.h"
#include "sched/loan.h"
#include "sched/sync.h"

#define BATCH_RECORDS 1024u /* IOV_MAX: more would need a second request */
#define BATCH_BYTES (UINT64_C(1) << 20)
#define UNSYNCED_BYTES (UINT64_C(8) << 20)
#define RECORD_MAX (UINT64_C(1) << 30)
#define ZEROES ((size_t)64 << 10) /* of one piece */
#define AHEAD_MAX (BATCH_RECORDS / 2 * ZEROES)
#define AHEAD_ALIGN UINT64_C(4096) /* so that a page is not written both as zeroes and as the end */
#define WORTH_ZEROES 8             /* times a batch: else the zeroes cost more than they save */
#define MODE 0600

enum state { WAITING, TAKEN, UNSYNCED, SYNCING, DONE };
enum lead { NOTHING, A_WRITE, A_SYNC };

struct record {
    struct rv_waiter w; /* first; sched NULL: its task has never slept here */
    struct record *next; /* in a batch */
    const void *data;
    size_t len;
    uint64_t end;   /* where it ends in the file, once it is written */
    bool later;     /* being written is enough */
    enum state state;
    enum lead lead; /* what its task has to do now */
    int result;
};

struct reeve_log {
    int fd;
    uint64_t batch_bytes, unsynced_bytes;
    struct rv_lock lock;
    /* Under the lock. */
    struct rv_waitq waiting, unsynced; /* the latter in the order of their ends */
    uint64_t later_waiting;            /* how many of those who wait need not be durable */
    uint64_t written, synced;          /* the file's length, and how much of it is durable */
    bool writing, syncing;
    int error;                         /* not 0: spoilt, and why */
    struct reeve_log_stats n;
    /* The writer's. */
    uint64_t ahead, zeroed;             /* how many zeroes to write, and up to where they are */
    struct iovec pieces[BATCH_RECORDS];
};

/* ---- waking: the lock is held ---------------------------------------------------------------- */

struct wakes {
    struct rv_wake of[RV_WAKES_MAX + 2]; /* two leaders may be called behind the others */
    int n;
};

static void flush_wakes(struct reeve_log *log, struct wakes *wakes)
{
    rv_lock_release(&log->lock);
    rv_wake_all(wakes->of, wakes->n);
    wakes->n = 0;
    rv_lock_acquire(&log->lock);
}

/* Has the record's task look at it. Who is awake and leads has an old token, which does nothing. */
static void call(struct wakes *wakes, const struct record *rec)
{
    if (rec->w.sched)
        wakes->of[wakes->n++] = rv_waiter_wake(&rec->w);
}

/* It may be gone when this returns, if it is not the caller's own. */
static void finish(struct reeve_log *log, struct wakes *wakes, struct record *rec, int result)
{
    rec->result = result;
    rec->state = DONE;
    call(wakes, rec);
    if (wakes->n == RV_WAKES_MAX)
        flush_wakes(log, wakes);
}

/* The first of those who wait, no longer in the queue. */
static struct record *pop_waiting(struct reeve_log *log)
{
    struct record *rec = (struct record *)rv_waitq_pop(&log->waiting);
    if (rec)
        log->later_waiting -= rec->later;
    return rec;
}

/* Everybody who waits for a sync up to this end. */
static void finish_synced(struct reeve_log *log, struct wakes *wakes, uint64_t end, int result)
{
    struct rv_waitq *q = &log->unsynced;
    while (q->first && ((struct record *)q->first)->end <= end)
        finish(log, wakes, (struct record *)rv_waitq_pop(q), result);
}

static void spoil(struct reeve_log *log, struct wakes *wakes, int error)
{
    struct record *rec;
    log->error = error;
    while ((rec = pop_waiting(log)) != NULL)
        finish(log, wakes, rec, error);
    finish_synced(log, wakes, UINT64_MAX, error);
}

/* ---- who does what next: the lock is held ---------------------------------------------------- */

static void start_write(struct reeve_log *log, struct wakes *wakes)
{
    if (!log->waiting.first || log->writing || (log->syncing && !log->later_waiting))
        return;
    struct record *first = pop_waiting(log);
    first->state = TAKEN;
    first->next = NULL;
    log->writing = true;
    first->lead = A_WRITE;
    call(wakes, first);
}

/* The rest of the batch: who has come since, as far as it goes. */
static void fill_batch(struct reeve_log *log, struct record *first)
{
    struct record *rec;
    uint64_t bytes = first->len;
    unsigned n = 1;
    for (struct record *last = first; n < BATCH_RECORDS; last = rec, n++) {
        rec = (struct record *)log->waiting.first;
        if (!rec || bytes + rec->len > log->batch_bytes)
            break;
        pop_waiting(log);
        rec->state = TAKEN;
        rec->next = NULL;
        last->next = rec;
        bytes += rec->len;
    }
}

static void start_sync(struct reeve_log *log, struct wakes *wakes)
{
    if (!log->unsynced.first || log->syncing)
        return;
    struct record *rec = (struct record *)rv_waitq_pop(&log->unsynced);
    log->syncing = true;
    rec->lead = A_SYNC;
    call(wakes, rec);
}

/* ---- what a leader does ---------------------------------------------------------------------- */

/* The batch has been written, or not. The lock is held, and let go of now and then. */
static void wrote(struct reeve_log *log, struct record *first, int result)
{
    struct wakes wakes = { .n = 0 };
    struct record *next;
    for (struct record *rec = first; rec; rec = next) {
        next = rec->next;
        int error = result < 0 ? result : log->error;
        if (error == 0) {
            log->written += rec->len;
            log->n.records++;
            log->n.bytes += rec->len;
        }
        rec->end = log->written;
        rec->later &= log->written - log->synced <= log->unsynced_bytes;
        if (error < 0 || rec->later) {
            finish(log, &wakes, rec, error);
        } else {
            rec->state = UNSYNCED;
            rv_waitq_add(&log->unsynced, &rec->w);
        }
    }
    log->writing = false;
    start_sync(log, &wakes); /* (4) */
    start_write(log, &wakes);
    flush_wakes(log, &wakes);
}

/* Those who are ready run first, such as everybody whom the last sync has woken: else the batch
 * would be the first one's record, and they would wait for its sync before their own. */
static void let_others_append(void)
{
    rv_rt_leave(rv_worker_self(), 0);
    rv_yield(rv_worker_self());
    rv_rt_begin(rv_worker_self());
}

/* Makes the file so long, and no longer. */
static int cut(struct reeve_log *log, uint64_t end)
{
    int r = rv_file_truncate(log->fd, end, RV_NEVER);
    if (r >= 0)
        log->zeroed = end;
    return RV_FAULT("log.cut") ? -EIO : r;
}

/* A write beyond this limit would raise a signal. */
static bool may_be_so_long(uint64_t end)
{
    struct rlimit most;
    return getrlimit(RLIMIT_FSIZE, &most) == 0 && end <= most.rlim_cur;
}

/* Has the file hold zeroes where the batch will be and some way beyond, see (5). Where that cannot
 * be, for want of space most likely, it goes without them from then on. 0, or why what the attempt
 * left behind it cannot be cut off. */
static int write_zeroes(struct reeve_log *log, uint64_t at, uint64_t bytes)
{
    static const unsigned char zeroes[ZEROES];
    uint64_t end = (at + bytes + log->ahead + AHEAD_ALIGN - 1) & ~(AHEAD_ALIGN - 1);
    if (at + bytes <= log->zeroed || log->ahead / WORTH_ZEROES < bytes)
        return 0;
    unsigned n = 0;
    ssize_t r = may_be_so_long(end) ? 0 : -EFBIG;
    for (uint64_t i = log->zeroed; i < end; i += log->pieces[n++].iov_len)
        log->pieces[n] = (struct iovec){ (void *)(uintptr_t)zeroes,
                                         end - i < ZEROES ? (size_t)(end - i) : ZEROES };
    if (r == 0)
        r = RV_FAULT("log.ahead") ? -ENOSPC
                                  : rv_file_transfer(true, log->fd, log->pieces, n, log->zeroed,
                                                     RV_NEVER);
    if (r >= 0) {
        log->zeroed = end;
        return 0;
    }
    log->ahead = 0;
    return cut(log, at);
}

/* Writes the batch at the end of the log; what a failed write left behind it is cut off. A negative
 * *ret_cut: that could not be. */
static ssize_t write_batch(struct reeve_log *log, const struct record *first, uint64_t at,
                           int *ret_cut)
{
    uint64_t bytes = 0;
    unsigned n = 0;
    for (const struct record *rec = first; rec; rec = rec->next)
        bytes += rec->len;
    ssize_t r = *ret_cut = write_zeroes(log, at, bytes);
    if (r < 0)
        return r;
    for (const struct record *rec = first; rec; rec = rec->next)
        log->pieces[n++] = (struct iovec){ (void *)(uintptr_t)rec->data, rec->len };
    r = RV_FAULT("log.write") ? -EIO
                              : rv_file_transfer(true, log->fd, log->pieces, n, at, RV_NEVER);
    if (r < 0)
        *ret_cut = cut(log, at); /* (2) */
    else if (log->zeroed < at + bytes)
        log->zeroed = at + bytes;
    return r;
}

/* The caller leads the batch that begins with its record. The lock is held. */
static void lead_write(struct reeve_log *log, struct record *first)
{
    first->lead = NOTHING;
    rv_lock_release(&log->lock);
    let_others_append();
    rv_lock_acquire(&log->lock);
    fill_batch(log, first);
    uint64_t at = log->written;
    log->n.writes++;
    rv_lock_release(&log->lock);
    int cut;
    ssize_t r = write_batch(log, first, at, &cut);
    rv_lock_acquire(&log->lock);
    struct wakes wakes = { .n = 0 };
    if (cut < 0 && log->error == 0)
        spoil(log, &wakes, (int)r);
    if (wakes.n)
        flush_wakes(log, &wakes);
    wrote(log, first, r < 0 ? (int)r : 0);
}

/* The caller leads a sync. The lock is held. */
static void lead_sync(struct reeve_log *log, struct record *me)
{
    uint64_t end = log->written;
    me->lead = NOTHING;
    log->n.syncs++;
    rv_lock_release(&log->lock);
    int r = RV_FAULT("log.sync") ? -EIO : rv_file_sync(log->fd, true, RV_NEVER);
    rv_lock_acquire(&log->lock);
    struct wakes wakes = { .n = 0 };
    log->syncing = false;
    if (r < 0 && log->error == 0)
        spoil(log, &wakes, r); /* (3) */
    if (log->error == 0)
        log->synced = end;
    finish(log, &wakes, me, log->error);
    finish_synced(log, &wakes, end, log->error);
    start_write(log, &wakes); /* (4) */
    if (!log->writing)
        start_sync(log, &wakes);
    flush_wakes(log, &wakes);
}

/* ---- waiting --------------------------------------------------------------------------------- */

/* Nothing has begun for its sake, so it may leave. Where it waits. */
static struct rv_waitq *may_leave(struct reeve_log *log, const struct record *me)
{
    if (me->lead != NOTHING)
        return NULL;
    return me->state == WAITING   ? &log->waiting
           : me->state == SYNCING ? &log->unsynced
                                  : NULL;
}

/* Until there is something to lead, or the record is done. The lock is held, and still is
 * afterwards. 0; -ETIMEDOUT, -ECANCELED: it has left. */
static int await(struct reeve_log *log, struct record *me, int64_t until)
{
    while (me->lead == NOTHING && me->state != DONE) {
        struct rv_worker *w = rv_worker_self();
        bool leaves = may_leave(log, me), was = false;
        rv_waiter_begin(w, &me->w);
        rv_lock_release(&log->lock);
        if (!leaves)
            was = rv_masked_begin();
        int why = rv_wait_park(w, w->cur, leaves ? until : RV_NEVER);
        if (!leaves)
            rv_masked_end(was);
        rv_lock_acquire(&log->lock);
        struct rv_waitq *q = why == RV_WOKEN || me->state == DONE ? NULL : may_leave(log, me);
        if (q) {
            rv_waitq_remove(q, &me->w);
            log->later_waiting -= q == &log->waiting && me->later;
            return rv_wait_error(why);
        }
    }
    return 0;
}

/* The whole way of a record that is in its queue. The lock is held and comes back released. */
static int see_through(struct reeve_log *log, struct record *me, int64_t until)
{
    int r;
    while ((r = await(log, me, until)) == 0 && me->state != DONE) {
        bool was = rv_masked_begin(); /* (1) */
        if (me->lead == A_WRITE)
            lead_write(log, me);
        else
            lead_sync(log, me);
        rv_masked_end(was);
    }
    rv_lock_release(&log->lock);
    return r < 0 ? r : me->result;
}

/* Tells who has been called, but for the caller's own record. */
static void tell(struct reeve_log *log, struct wakes *wakes)
{
    if (wakes->n)
        flush_wakes(log, wakes);
}

static int64_t append(struct reeve_log *log, const void *data, size_t len, bool later,
                      int64_t until)
{
    struct rv_worker *w = rv_worker_self();
    struct record me = { .data = data, .len = len, .later = later, .state = WAITING };
    struct wakes wakes = { .n = 0 };
    int r = rv_wait_check(w->sched, w->cur);
    if (r < 0)
        return r;
    if (len > RECORD_MAX)
        return -ERANGE;
    rv_lock_acquire(&log->lock);
    if (log->error < 0 || len == 0) {
        int64_t at = log->error < 0 ? log->error : (int64_t)log->written;
        rv_lock_release(&log->lock);
        return at;
    }
    rv_waitq_add(&log->waiting, &me.w);
    log->later_waiting += later;
    start_write(log, &wakes);
    tell(log, &wakes);
    r = see_through(log, &me, rv_deadline(w->cur, until));
    return r < 0 ? r : (int64_t)(me.end - len);
}

static int sync_all(struct reeve_log *log, int64_t until)
{
    struct rv_worker *w = rv_worker_self();
    struct record me = { .state = SYNCING };
    struct wakes wakes = { .n = 0 };
    int r = rv_wait_check(w->sched, w->cur);
    if (r < 0)
        return r;
    rv_lock_acquire(&log->lock);
    if (log->error < 0 || log->synced == log->written) {
        r = log->error;
        rv_lock_release(&log->lock);
        return r;
    }
    me.end = log->written;
    rv_waitq_add(&log->unsynced, &me.w);
    start_sync(log, &wakes);
    tell(log, &wakes);
    return see_through(log, &me, rv_deadline(w->cur, until));
}

/* ---- the public calls ------------------------------------------------------------------------ */

int64_t reeve_log_append(reeve_log *log, const void *record, size_t len, reeve_time until)
{
    uint32_t was;
    rv_io_enter("reeve_log_append", &was);
    int64_t at = append(log, record, len, false, until);
    rv_io_exit(was);
    return at;
}

int64_t reeve_log_append_later(reeve_log *log, const void *record, size_t len, reeve_time until)
{
    uint32_t was;
    rv_io_enter("reeve_log_append_later", &was);
    int64_t at = append(log, record, len, true, until);
    rv_io_exit(was);
    return at;
}

int reeve_log_sync(reeve_log *log, reeve_time until)
{
    uint32_t was;
    rv_io_enter("reeve_log_sync", &was);
    int r = sync_all(log, until);
    rv_io_exit(was);
    return r;
}

void reeve_log_stats(reeve_log *log, struct reeve_log_stats *ret_stats)
{
    rv_lock_acquire(&log->lock);
    struct reeve_log_stats n = log->n;
    const struct rv_waiter *first = log->waiting.first, *at = first;
    if (first)
        do
            n.waiting++;
        while ((at = at->next) != first);
    rv_lock_release(&log->lock);
    *ret_stats = n;
}

/* ---- opening and closing --------------------------------------------------------------------- */

/* A new name is durable once its directory is synced. */
static int sync_parent(const char *path, int64_t until)
{
    const char *slash = strrchr(path, '/');
    size_t len = slash ? (size_t)(slash - path) + 1 : 0; /* with the slash: it may be the root */
    char *parent = rv_alloc(len + 2);
    if (!parent)
        return -ENOMEM;
    memcpy(parent, path, len);
    memcpy(parent + len, ".", 2);
    struct reeve_open how = { .path = parent, .flags = O_RDONLY | O_DIRECTORY };
    int fd = rv_file_open(&how, until);
    rv_free(parent);
    if (fd < 0)
        return fd;
    int r = rv_file_sync(fd, false, until);
    reeve_close(fd);
    return r == -EINVAL ? 0 : r; /* a file system that has nothing to sync there */
}

static int set_up(struct reeve_log *log, const struct reeve_log_opts *opts, int64_t until)
{
    struct statx st;
    int r = rv_file_stat(log->fd, &st, until);
    if (r >= 0 && !S_ISREG(st.stx_mode))
        r = -EINVAL;
    if (r >= 0)
        r = rv_file_sync(log->fd, false, until);
    if (r >= 0)
        r = sync_parent(opts->path, until);
    if (r < 0)
        return r;
    log->written = log->synced = log->zeroed = st.stx_size;
    log->ahead = opts->ahead_bytes < AHEAD_MAX ? opts->ahead_bytes : AHEAD_MAX;
    log->batch_bytes = opts->batch_bytes ? opts->batch_bytes : BATCH_BYTES;
    log->unsynced_bytes = opts->unsynced_bytes ? opts->unsynced_bytes : UNSYNCED_BYTES;
    rv_lock_init(&log->lock);
    return 0;
}

static int open_log(struct reeve_log **ret_log, const struct reeve_log_opts *opts, int64_t until)
{
    struct reeve_open how = { .path = opts->path,
                              .flags = O_WRONLY | O_CREAT,
                              .mode = opts->mode ? opts->mode : MODE };
    struct reeve_log *log = rv_alloc_zero(sizeof *log);
    if (!log)
        return -ENOMEM;
    int r = log->fd = rv_file_open(&how, until);
    if (r >= 0) {
        r = set_up(log, opts, until);
        if (r < 0)
            reeve_close(log->fd);
    }
    if (r < 0)
        rv_free(log);
    else
        *ret_log = log;
    return r < 0 ? r : 0;
}

int reeve_log_open(reeve_log **ret_log, const struct reeve_log_opts *opts, reeve_time until)
{
    uint32_t was;
    rv_io_enter("reeve_log_open", &was);
    int r = opts->path ? open_log(ret_log, opts, until) : -EINVAL;
    rv_io_exit(was);
    return r;
}

/* What nobody has appended goes, whatever has happened; and it must not come back. */
static int cut_zeroes(struct reeve_log *log, int64_t until)
{
    if (log->zeroed == log->written)
        return 0;
    bool was = rv_masked_begin();
    int r = cut(log, log->written);
    rv_masked_end(was);
    return r < 0 ? r : rv_file_sync(log->fd, false, until);
}

int reeve_log_close(reeve_log *log, reeve_time until)
{
    if (!log)
        return 0;
    uint32_t was;
    rv_io_enter("reeve_log_close", &was);
    rv_lock_acquire(&log->lock);
    bool used = log->writing || log->syncing || log->waiting.first || log->unsynced.first;
    rv_lock_release(&log->lock);
    if (used)
        rv_die("reeve_log_close was called while another task uses the log.");
    int r = sync_all(log, until), zeroes = cut_zeroes(log, until);
    rv_io_exit(was);
    reeve_close(log->fd);
    rv_free(log);
    return r < 0 ? r : zeroes;
}
