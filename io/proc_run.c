/* SPDX-License-Identifier: MIT */
/*
 * proc_run.c -- running programs on bytes: one, or a chain of them.
 *
 *        io->in --> feeder ==> a ==> b ==> c ==> collector --> io->out
 *                              \\    |    //
 *                                ==>  collector --> io->err         ==> is a pipe
 *
 * Feeder and collectors are tasks, so none of them can make another wait: a program that writes
 * before it reads, or reads nothing at all, stops nobody. The task that called waits for the
 * programs' ends first, then for the ends of what they write; whatever ends that early, an error of
 * a collector, a deadline, a cancellation, kills the programs, and then everything ends by itself.
 *
 * (1) No program is reaped before the run is over. So the groups' numbers are theirs throughout,
 *     and the last kill reaches what they left behind in their groups, too.
 * (2) The read end of the input's pipe stays open here while there is a feeder: a write can find
 *     the pipe full and wait, and is then cancelled at the end, but it can never find it without a
 *     reader. So there is no SIGPIPE, on any kernel.
 * (3) The feeder copies. The other way, vmsplice, lends the pages themselves; but whoever reads the
 *     pipe by splice or tee keeps them, in another pipe or a socket, when this one has run empty,
 *     and nobody tells us for how long. They could never be written again, only given away for new
 *     ones: and fresh pages cost more than the copy (512 MiB in pieces of 256 KiB: 216 ms by
 *     copying, 496 ms with new pages each time, 68 ms if it were safe to use them again).
 * (4) Between two programs there is a pipe and nothing else.
 * (5) A run ends even if an operation of its own says what is not so: a pump that is told of an
 *     error, whichever, kills the programs, and one that is told of an end closes its pipe, so that
 *     who goes on writing gets SIGPIPE and not stuck.
 *
 * Threads: the calling task, and three that it spawns; skipped - any.
 */
#include <errno.h>
#include <fcntl.h>
#include <reeve/net.h>
#include <reeve/sync.h>
#include <reeve/task.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "io/io.h"
#include "io/proc.h"
#include "mem/alloc.h"
#include "mem/fault.h"
#include "mem/rv_atomic.h"
#include "sched/wait.h"

enum { STD_FDS = 3, SCRAP_BYTES = 1024 };

struct run;

/* One stream of the run, and the task that moves it. */
struct pump {
    struct run *run;
    int fd; /* our end of its pipe; -1: there is none */
    unsigned char *data;
    size_t len, max; /* moved; to be moved, or room */
    bool more;       /* what did not fit was there */
};

struct run {
    struct reeve_io *io;
    size_t n, started;
    struct rv_launch *launch[REEVE_CHAIN_MAX];
    reeve_proc *proc[REEVE_CHAIN_MAX];
    int between[REEVE_CHAIN_MAX][2];   /* [i]: from program i to the next */
    int in_read, out_write, err_write; /* the programs' ends */
    struct pump in, out, err;
    struct reeve_waitgroup collecting;
    reeve_group pumps;
    RV_ATOMIC(int) error; /* the first one of a pump */
};

/* Why the running task has to end, 0: it does not. */
static int has_to_end(void)
{
    struct rv_worker *w = rv_worker_self();
    int r = rv_wait_check(w->sched, w->cur);
    return r == 0 && rv_deadline(w->cur, 0) <= reeve_now() ? -ETIMEDOUT : r;
}

static void kill_all(struct run *run, int signo)
{
    for (size_t i = 0; i < run->started; i++)
        reeve_proc_kill(run->proc[i], signo); /* it may have changed its user: then it stays */
}

/* ---- pumps ----------------------------------------------------------------------------------- */

/* The run has gone wrong: what it runs ends now, and the caller sees that. */
static void fail(struct run *run, int error)
{
    int none = 0;
    if (rv_cas(&run->error, &none, error)) /* pairs with why_failed() */
        kill_all(run, SIGKILL);
}

/* The same in a pump. If it is only late, or cancelled, the caller is so too, and will know what to
 * do. But it is not the error that tells: an operation may say so of its own accord. */
static void fail_in(struct run *run, int error)
{
    int none = 0;
    if (has_to_end())
        rv_cas(&run->error, &none, error); /* pairs with why_failed() */
    else
        fail(run, error);
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        reeve_close(*fd);
    *fd = -1;
}

static int feed(void *arg)
{
    struct pump *p = arg;
    ssize_t n = reeve_write(p->fd, p->data + p->len, p->max - p->len, 0);
    if (n < 0)
        fail_in(p->run, (int)n);
    close_fd(&p->fd);
    return 0;
}

/* Reads on where there is no room: 0 at the end, or an error. */
static ssize_t read_beyond(struct pump *p, bool cut)
{
    unsigned char scrap[SCRAP_BYTES];
    ssize_t n;
    while ((n = reeve_read(p->fd, scrap, sizeof scrap, 0)) > 0) {
        p->more = true;
        if (!cut)
            return -E2BIG;
    }
    return n;
}

static int collect(void *arg)
{
    struct pump *p = arg;
    ssize_t n = 1;
    while (n > 0 && p->len < p->max) {
        n = reeve_read(p->fd, p->data + p->len, p->max - p->len, 0);
        p->len += n > 0 ? (size_t)n : 0;
    }
    if (n > 0)
        n = read_beyond(p, p->run->io->cut);
    if (n < 0)
        fail_in(p->run, (int)n);
    close_fd(&p->fd); /* who writes on, if that was no end, is not to wait for a reader */
    reeve_waitgroup_done(&p->run->collecting);
    return 0;
}

/* There was no stack for it, or the caller was cancelled, or late: see why_failed(). */
static void never_fed(void *arg)
{
    struct pump *p = arg;
    fail(p->run, -ENOMEM);
}

static void never_collected(void *arg)
{
    struct pump *p = arg;
    fail(p->run, -ENOMEM);
    reeve_waitgroup_done(&p->run->collecting);
}

static int start_pump(struct run *run, struct pump *p, reeve_fn *fn, void (*skipped)(void *))
{
    if (p->fd < 0)
        return 0;
    bool collects = fn == collect;
    if (collects)
        reeve_waitgroup_add(&run->collecting, 1);
    int r = reeve_go(fn, p, .group = &run->pumps, .skipped = skipped, .name = "program's pipe");
    if (r < 0 && collects)
        reeve_waitgroup_done(&run->collecting);
    return r;
}

static int start_pumps(struct run *run)
{
    int r = start_pump(run, &run->in, feed, never_fed);
    if (r == 0)
        r = start_pump(run, &run->out, collect, never_collected);
    if (r == 0)
        r = start_pump(run, &run->err, collect, never_collected);
    return r;
}

/* ---- pipes ----------------------------------------------------------------------------------- */

static int make_pipe(int *ret_read, int *ret_write)
{
    int ends[2], saved = errno;
    errno = EMFILE;
    /* Not by libc, as it is not closed by libc: who watches one would have to see the other. */
    long made = RV_FAULT("proc.pipe") ? -1 : syscall(SYS_pipe2, ends, O_CLOEXEC);
    int r = made < 0 ? -errno : 0;
    errno = saved;
    if (r == 0) {
        *ret_read = ends[0];
        *ret_write = ends[1];
    }
    return r;
}

/* What the empty pipe takes at once: often that is all, and no task is needed for it. */
static void fill(struct run *run)
{
    struct pump *p = &run->in;
    struct iovec v = { p->data, p->max };
    int saved = errno;
    ssize_t n = pwritev2(p->fd, &v, 1, -1, RWF_NOWAIT);
    errno = saved;
    p->len = n > 0 ? (size_t)n : 0;
    if (p->len < p->max)
        return;
    close_fd(&p->fd);
    close_fd(&run->in_read); /* (2) has lapsed; the program has a copy, or will have */
}

static int make_pipes(struct run *run)
{
    struct reeve_io *io = run->io;
    int r = 0;
    if (io->in.len)
        r = make_pipe(&run->in_read, &run->in.fd);
    if (r == 0 && io->out)
        r = make_pipe(&run->out.fd, &run->out_write);
    if (r == 0 && io->err)
        r = make_pipe(&run->err.fd, &run->err_write);
    for (size_t i = 0; r == 0 && i + 1 < run->n; i++)
        r = make_pipe(&run->between[i][0], &run->between[i][1]);
    return r;
}

/* The programs' ends: only they have them from now on, so each end is seen. */
static void close_theirs(struct run *run)
{
    close_fd(&run->out_write);
    close_fd(&run->err_write);
    for (size_t i = 0; i + 1 < run->n; i++) {
        close_fd(&run->between[i][0]);
        close_fd(&run->between[i][1]);
    }
}

static void close_ours(struct run *run)
{
    close_fd(&run->in.fd);
    close_fd(&run->in_read);
    close_fd(&run->out.fd);
    close_fd(&run->err.fd);
}

/* ---- preparing ------------------------------------------------------------------------------- */

static bool gives(const struct reeve_exec *e, unsigned fd)
{
    return fd < e->fds_n && e->fds && e->fds[fd] >= 0;
}

/* Nothing has two sources or two destinations. */
static bool is_sound(const struct reeve_exec *execs, size_t n, const struct reeve_io *io)
{
    if ((!io->out && io->out_max) || (!io->err && io->err_max) || (!io->in.data && io->in.len))
        return false;
    if (io->grace_ns < 0)
        return false;
    for (size_t i = 0; i < n; i++) {
        bool in = i > 0 || io->in.len, out = i + 1 < n || io->out;
        if ((in && gives(&execs[i], 0)) || (out && gives(&execs[i], 1)) ||
            (io->err && gives(&execs[i], 2)))
            return false;
    }
    return true;
}

/* Program i with the pipes' ends among its descriptors. */
static int prepare_one(struct run *run, const struct reeve_exec *e, size_t i, const cpu_set_t *cpus)
{
    int fds[REEVE_EXEC_FDS_MAX] = { -1, -1, -1 };
    unsigned n = e->fds_n > STD_FDS ? e->fds_n : STD_FDS;
    if (n > REEVE_EXEC_FDS_MAX || (e->fds_n && !e->fds))
        return -EINVAL;
    for (unsigned k = 0; k < e->fds_n; k++)
        fds[k] = e->fds[k];
    int in = i == 0 ? run->in_read : run->between[i - 1][0];
    int out = i + 1 == run->n ? run->out_write : run->between[i][1];
    const int ends[STD_FDS] = { in, out, run->err_write };
    for (unsigned k = 0; k < STD_FDS; k++)
        if (ends[k] >= 0)
            fds[k] = ends[k];
    return rv_launch_prepare(&run->launch[i], e, fds, n, cpus);
}

static int prepare_all(struct run *run, const struct reeve_exec *execs)
{
    const cpu_set_t *cpus = rv_proc_cpus(rv_io_self());
    int r = 0;
    for (size_t i = 0; r == 0 && i < run->n; i++)
        r = prepare_one(run, &execs[i], i, cpus);
    return r;
}

static void begin(struct run *run, struct reeve_io *io, size_t n)
{
    memset(run, 0, sizeof *run);
    run->io = io;
    run->n = n;
    run->in_read = run->out_write = run->err_write = -1;
    run->in = (struct pump){ run, -1, (void *)(uintptr_t)io->in.data, 0, io->in.len, false };
    run->out = (struct pump){ run, -1, io->out, 0, io->out_max, false };
    run->err = (struct pump){ run, -1, io->err, 0, io->err_max, false };
    for (size_t i = 0; i < REEVE_CHAIN_MAX; i++)
        run->between[i][0] = run->between[i][1] = -1;
    io->out_len = io->err_len = 0;
    io->out_cut = io->err_cut = false;
    io->status = 0;
    io->cpu_ns = 0;
    io->peak_bytes = 0;
    if (io->each)
        memset(io->each, 0, n * sizeof *io->each);
}

/* ---- running --------------------------------------------------------------------------------- */

/* In places that were waited for. Others have a turn between two starts. */
static int launch_all(struct run *run, reeve_time until)
{
    int r = 0;
    while (r == 0 && run->started < run->n) {
        size_t i = run->started;
        r = i > 0 ? reeve_sleep(0) : 0;
        if (r == 0)
            r = rv_proc_launch(&run->proc[i], run->launch[i], NULL, until);
        run->started += r == 0;
    }
    return r;
}

/* What a pump met. One that was never started cannot tell whether the caller is late or cancelled;
 * the caller can. */
static int why_failed(struct run *run)
{
    int error = rv_load_acquire(&run->error); /* pairs with fail() */
    int r = error == -ENOMEM ? has_to_end() : 0;
    return r < 0 ? r : error;
}

/* Waits for all ends. 0, or why not. */
static int supervise(struct run *run, reeve_time until)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < run->started; i++)
        r = rv_proc_await(run->proc[i], until);
    if (r == 0)
        r = reeve_waitgroup_wait(&run->collecting, until);
    return r < 0 ? r : why_failed(run);
}

/* The programs end, whatever they think of it. The caller masks cancellation and deadlines. */
static void end_all(struct run *run, int64_t grace_ns)
{
    if (grace_ns > 0) {
        int r = 0;
        reeve_time until = reeve_in(grace_ns);
        kill_all(run, SIGTERM);
        for (size_t i = 0; r == 0 && i < run->started; i++)
            r = rv_proc_await(run->proc[i], until);
    }
    kill_all(run, SIGKILL);
    for (size_t i = 0; i < run->started; i++)
        rv_proc_await_end(run->proc[i]);
}

static int reap_all(struct run *run)
{
    struct reeve_io *io = run->io;
    int result = 0;
    for (size_t i = 0; i < run->started; i++) {
        struct reeve_ended ended = { 0 };
        int r = rv_proc_reap(run->proc[i], &ended);
        if (r < 0)
            result = r;
        if (io->each)
            io->each[i] = ended;
        io->status = ended.status;
        io->cpu_ns += ended.cpu_ns;
        if (ended.peak_bytes > io->peak_bytes)
            io->peak_bytes = ended.peak_bytes;
    }
    return result;
}

/* All of it runs; to its end, or to ours. */
static int finish(struct run *run, int r, reeve_time until)
{
    struct rv_task *t = rv_worker_self()->cur;
    if (r == 0)
        r = start_pumps(run);
    if (r == 0)
        r = supervise(run, until);
    bool masked = rv_load_relaxed(&t->ctl) & RV_CTL_MASKED;
    if (!masked)
        rv_wait_mask(t, true);
    if (r < 0)
        end_all(run, r == -ETIMEDOUT || r == -ECANCELED ? run->io->grace_ns : 0);
    if (run->pumps.opaque) {
        reeve_group_cancel(&run->pumps);
        reeve_group_wait(&run->pumps, 0);
    }
    if (!masked)
        rv_wait_mask(t, false);
    int lost = reap_all(run);
    run->io->out_len = run->out.len;
    run->io->err_len = run->err.len;
    run->io->out_cut = run->out.more;
    run->io->err_cut = run->err.more;
    return r < 0 ? r : lost;
}

static int run_all(struct run *run, const struct reeve_exec *execs, reeve_time until)
{
    int r = make_pipes(run);
    if (r == 0)
        r = prepare_all(run, execs);
    if (r == 0)
        r = rv_proc_admit(execs[0].permits, (unsigned)run->n, until);
    if (r < 0)
        return r;
    r = launch_all(run, until);
    close_theirs(run);
    rv_proc_dismiss(NULL, (unsigned)(run->n - run->started));
    if (r == 0 && run->in.fd >= 0)
        fill(run);
    r = finish(run, r, until);
    rv_proc_dismiss(execs[0].permits, 0);
    return r;
}

int reeve_proc_chain(const struct reeve_exec *execs, size_t n, struct reeve_io *io,
                     reeve_time until)
{
    struct rv_io_worker *iw = rv_io_in_task("reeve_proc_chain");
    int r = rv_wait_check(iw->io->sched, iw->w->cur);
    if (!io || !execs || n == 0)
        return -EINVAL;
    if (n > REEVE_CHAIN_MAX)
        return -E2BIG;
    struct run *run = rv_alloc(sizeof *run);
    if (!run)
        return -ENOMEM;
    begin(run, io, n);
    if (r == 0)
        r = is_sound(execs, n, io) ? run_all(run, execs, until) : -EINVAL;
    close_theirs(run);
    close_ours(run);
    for (size_t i = 0; i < n; i++)
        rv_launch_finish(run->launch[i]);
    rv_free(run);
    return r;
}

int reeve_proc_run(const struct reeve_exec *exec, struct reeve_io *io, reeve_time until)
{
    return reeve_proc_chain(exec, 1, io, until);
}
