/* SPDX-License-Identifier: MIT */
/*
 * proc.c -- started programs: who may start one, how they are waited for, and that none is left.
 *
 * All programs of this process, whichever runtime started them, are in one table. A handle is a
 * place in it and the generation of that place, so one that is used too late finds that out.
 *
 *     FREE    -> LIVE      [enter]            the generation is the handle's
 *     LIVE    -> AWAITED   [claim]            a task waits for its end
 *     AWAITED -> LIVE      [unclaim]          it waited in vain
 *     LIVE, AWAITED -> FREE [rv_proc_reap]    the generation grows, the place is another's
 *
 * (1) A program's number, and its group's, are its own until it is reaped. So signals are sent, and
 *     it is reaped, under the lock of its place: no signal can go to whoever has the number next.
 * (2) Its end is seen by polling its pidfd, in the ring. A WAITID request of the ring would say
 *     nothing of CPU time and memory, so a system call would have to follow it anyway; and all who
 *     wait so stand in one queue of the process, which each program's end walks through: pidfds
 *     have a queue each. WAITID is for the one case in which a pidfd says too early that there is
 *     something to reap: when somebody else traces the program.
 * (3) Places are handed out by a semaphore, so there is always a free one for who has a permit.
 *     Who needs several takes them one after the other, and no other such task does meanwhile: two
 *     that each hold half of the last ones would wait for each other.
 * (4) Only who was quick a moment ago is started here: launching holds the thread, see proc_exec.c.
 *     The table of names is a hint: names that collide, or change, only cost a hop to the pool, or
 *     one slow start.
 *
 * Threads: kill, pid - any; enter - the one that launches, which may be the pool's; all else -
 * tasks.
 */
#include "io/proc.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <reeve/offload.h>
#include <reeve/sync.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io/io.h"
#include "io/req.h"
#include "io/uring_compat.h"
#include "mem/die.h"
#include "mem/fault.h"
#include "mem/lock.h"
#include "mem/rv_atomic.h"
#include "sched/offload.h"
#include "sched/sched.h"
#include "sched/wait.h"

#define QUICK_NS REEVE_MS /* a program that started within this is at hand */
#define WARM_S 10u        /* and for so long */
#define SLOW_MAX 2u       /* unless it was slow so often in a row: once, the CPU was just busy */

struct place {
    struct rv_lock lock;
    uint32_t gen; /* even: free */
    bool awaited;
    pid_t pid;
    int pidfd;
    struct reeve_sem *permits; /* posted when it is reaped; NULL: none */
    uint32_t next;             /* of the free ones */
};

static struct {
    pthread_once_t once;
    struct reeve_sem room;   /* (3) */
    struct reeve_mutex many; /* held by who takes several */
    struct rv_lock lock;     /* guards the two below */
    uint32_t free, fresh;    /* the free ones that were used, by index + 1; the others */
    struct place place[REEVE_PROGRAMS_MAX];
} table = { .once = PTHREAD_ONCE_INIT };

static struct {
    RV_ATOMIC(uint64_t) started, ended, refused, pooled;
} count;

void rv_proc_counts(struct rv_proc_counts *ret_counts)
{
    *ret_counts = (struct rv_proc_counts){
        .ended = rv_load_relaxed(&count.ended), /* first: never more than were started */
        .started = rv_load_relaxed(&count.started),
        .refused = rv_load_relaxed(&count.refused),
        .pooled = rv_load_relaxed(&count.pooled),
    };
}

/* ---- the table ------------------------------------------------------------------------------- */

static void make_room(void)
{
    RV_MUST(reeve_sem_init(&table.room, REEVE_PROGRAMS_MAX, REEVE_PROGRAMS_MAX) == 0);
}

static struct place *take_place(void)
{
    rv_lock_acquire(&table.lock);
    uint32_t i = table.free;
    if (i)
        table.free = table.place[i - 1].next;
    else
        i = ++table.fresh;
    rv_lock_release(&table.lock);
    RV_MUST(i <= REEVE_PROGRAMS_MAX); /* (3) */
    return &table.place[i - 1];
}

static void give_place(struct place *p)
{
    rv_lock_acquire(&table.lock);
    p->next = table.free;
    table.free = (uint32_t)(p - table.place) + 1;
    rv_lock_release(&table.lock);
    RV_MUST(reeve_sem_post(&table.room) == 0);
}

static reeve_proc *handle_of(const struct place *p)
{
    uint64_t index = (uint64_t)(p - table.place) + 1;
    return (reeve_proc *)(uintptr_t)((uint64_t)p->gen << 32 | index);
}

/* The place of a program that has not been reaped, locked; NULL: it has. */
static struct place *lock_place(reeve_proc *proc)
{
    uint64_t word = (uint64_t)(uintptr_t)proc, index = (uint32_t)word;
    if (index == 0 || index > REEVE_PROGRAMS_MAX)
        return NULL;
    struct place *p = &table.place[index - 1];
    rv_lock_acquire(&p->lock);
    if (p->gen == (uint32_t)(word >> 32) && p->gen % 2 == 1)
        return p;
    rv_lock_release(&p->lock);
    return NULL;
}

static _Noreturn void misused(const char *call)
{
    rv_die("%s was given a program that has been waited for already.", call);
}

int rv_proc_admit(struct reeve_sem *permits, unsigned n, reeve_time until)
{
    RV_MUST(pthread_once(&table.once, make_room) == 0);
    int r = permits ? reeve_sem_wait(permits, until) : 0;
    if (r < 0)
        return r;
    bool many = n > 1;
    unsigned got = 0;
    r = many ? reeve_mutex_lock(&table.many, until) : 0;
    bool locked = many && r == 0;
    while (r == 0 && got < n)
        if ((r = reeve_sem_wait(&table.room, until)) == 0)
            got++;
    if (locked)
        reeve_mutex_unlock(&table.many);
    if (r < 0)
        rv_proc_dismiss(permits, got);
    return r;
}

void rv_proc_dismiss(struct reeve_sem *permits, unsigned n)
{
    for (; n > 0; n--)
        RV_MUST(reeve_sem_post(&table.room) == 0);
    if (permits)
        reeve_sem_post(permits); /* the caller's: more than its maximum is the caller's mistake */
}

/* ---- starting -------------------------------------------------------------------------------- */

enum { NAMES = 256 };
/* hash << 32 | how often it was slow since << 24 | the second in which it was quick. Racing writers
 * only lose a hint. */
static RV_ATOMIC(uint64_t) warm[NAMES];
#define SECONDS 0xffffffu
#define SLOW_ONE (UINT64_C(1) << 24)

static uint32_t hash_of(const char *name)
{
    uint32_t h = 2166136261u; /* Fowler, Noll and Vo's, 1a */
    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * 16777619u;
    return h;
}

static bool is_warm(uint32_t hash, int64_t now)
{
    uint64_t seen = rv_load_relaxed(&warm[hash % NAMES]);
    uint32_t age = ((uint32_t)(now / REEVE_SEC) - (uint32_t)seen) & SECONDS;
    return seen >> 32 == hash && (seen >> 24 & 0xff) < SLOW_MAX && age <= WARM_S;
}

static void remember(uint32_t hash, int64_t now, bool quick)
{
    RV_ATOMIC(uint64_t) *word = &warm[hash % NAMES];
    if (quick)
        rv_store_relaxed(word, (uint64_t)hash << 32 | ((uint32_t)(now / REEVE_SEC) & SECONDS));
    else if (is_warm(hash, now))
        rv_store_relaxed(word, rv_load_relaxed(word) + SLOW_ONE);
}

void rv_proc_forget(void)
{
    for (int i = 0; i < NAMES; i++)
        rv_store_relaxed(&warm[i], (uint64_t)0);
}

static RV_ATOMIC(void (*)(void)) before_kill;

void rv_proc_before_kill(void (*fn)(void))
{
    rv_store_relaxed(&before_kill, fn);
}

unsigned rv_proc_alive(pid_t *ret_pids, unsigned cap)
{
    unsigned n = 0;
    rv_lock_acquire(&table.lock);
    uint32_t fresh = table.fresh;
    rv_lock_release(&table.lock);
    for (uint32_t i = 0; i < fresh && n < cap; i++) {
        struct place *p = &table.place[i];
        rv_lock_acquire(&p->lock);
        if (p->gen % 2 == 1)
            ret_pids[n++] = p->pid;
        rv_lock_release(&p->lock);
    }
    return n;
}

struct start {
    struct rv_sched *sched; /* whose clock says what is quick */
    struct rv_launch *launch;
    struct reeve_sem *permits;
    reeve_proc *proc;
    bool begun;
};

/* The program is in the table as soon as there is one, whoever hears of it when. */
static reeve_proc *enter(pid_t pid, int pidfd, struct reeve_sem *permits)
{
    struct place *p = take_place();
    rv_lock_acquire(&p->lock);
    RV_MUST(p->gen % 2 == 0);
    p->gen++;
    p->awaited = false;
    p->pid = pid;
    p->pidfd = pidfd;
    p->permits = permits;
    reeve_proc *proc = handle_of(p);
    rv_lock_release(&p->lock);
    return proc;
}

/* On a worker, or on a thread of the pool. */
static int start_here(void *arg)
{
    struct start *s = arg;
    uint32_t hash = hash_of(rv_launch_name(s->launch));
    pid_t pid;
    int pidfd;
    s->begun = true;
    int64_t t0 = rv_sched_now(s->sched);
    int r = rv_launch_run(s->launch, &pid, &pidfd);
    int64_t now = rv_sched_now(s->sched);
    if (r < 0)
        return r;
    remember(hash, now, now - t0 <= QUICK_NS);
    s->proc = enter(pid, pidfd, s->permits);
    rv_add_relaxed(&count.started, (uint64_t)1);
    return 0;
}

/* See (4). What the pool cannot take, for want of threads, and what must be done now, is done here
 * as well. */
static int start_somewhere(struct start *s, reeve_time until)
{
    if (until < 0 || is_warm(hash_of(rv_launch_name(s->launch)), reeve_now()))
        return start_here(s);
    int r = reeve_offload(start_here, s, until);
    rv_add_relaxed(&count.pooled, (uint64_t)s->begun);
    if (!s->begun && (r == -ENOTSUP || r == -EAGAIN || r == -ENOMEM))
        return start_here(s);
    return r;
}

int rv_proc_launch(reeve_proc **ret_proc, struct rv_launch *launch, struct reeve_sem *permits,
                   reeve_time until)
{
    struct start s = { .sched = rv_worker_self()->sched, .launch = launch, .permits = permits };
    int r = start_somewhere(&s, until);
    rv_add_relaxed(&count.refused, (uint64_t)(r < 0));
    if (r == 0)
        *ret_proc = s.proc;
    return r;
}

int reeve_proc_start(reeve_proc **ret_proc, const struct reeve_exec *exec, reeve_time until)
{
    struct rv_io_worker *iw = rv_io_in_task("reeve_proc_start");
    struct rv_launch *launch;
    int r = rv_wait_check(iw->io->sched, iw->w->cur);
    if (r < 0)
        return r;
    r = rv_launch_prepare(&launch, exec, NULL, 0, rv_proc_cpus(iw));
    if (r < 0)
        return r;
    r = rv_proc_admit(exec->permits, 1, until);
    if (r == 0) {
        r = rv_proc_launch(ret_proc, launch, exec->permits, until);
        if (r < 0)
            rv_proc_dismiss(exec->permits, 1);
    }
    rv_launch_finish(launch);
    return r;
}

const cpu_set_t *rv_proc_cpus(const struct rv_io_worker *iw)
{
    const struct rv_offload *o = iw->io->sched->offload;
    return o && o->spread ? &o->cpus : NULL;
}

/* ---- signals --------------------------------------------------------------------------------- */

int reeve_proc_kill(reeve_proc *proc, int signo)
{
    void (*fn)(void) = rv_load_relaxed(&before_kill);
    if (__builtin_expect(fn != NULL, 0))
        fn();
    struct place *p = lock_place(proc);
    if (!p)
        return -ESRCH;
    int saved = errno;
    int r = kill(-p->pid, signo) < 0 ? -errno : 0; /* (1) */
    if (getpgid(p->pid) != p->pid) /* it has left its group, and may have done so before */
        r = kill(p->pid, signo) < 0 ? -errno : 0;
    rv_lock_release(&p->lock);
    errno = saved;
    return r;
}

pid_t reeve_proc_pid(reeve_proc *proc)
{
    struct place *p = lock_place(proc);
    if (!p)
        return -ESRCH;
    pid_t pid = p->pid;
    rv_lock_release(&p->lock);
    return pid;
}

/* ---- waiting --------------------------------------------------------------------------------- */

/* The one who waits; its pidfd, which stays open as long. */
static int claim(reeve_proc *proc, const char *call)
{
    struct place *p = lock_place(proc);
    if (!p)
        misused(call);
    if (p->awaited)
        rv_die("%s was given a program that another task waits for.", call);
    p->awaited = true;
    int fd = p->pidfd;
    rv_lock_release(&p->lock);
    return fd;
}

static void unclaim(reeve_proc *proc)
{
    struct place *p = lock_place(proc);
    RV_MUST(p);
    p->awaited = false;
    rv_lock_release(&p->lock);
}

static int request(const struct rv_req *req, reeve_time until)
{
    uint32_t was;
    struct rv_io_worker *iw = rv_io_enter("reeve_proc_wait", &was);
    int r = rv_req_run(iw, req, until);
    rv_io_exit(was);
    return r;
}

/* A poll that ends and has seen nothing says nothing: who believed it would not kill what he has to
 * kill, and wait for ever. */
static int await(int pidfd, reeve_time until)
{
    struct rv_req end = { .opcode = IORING_OP_POLL_ADD, .fd = pidfd, .op_flags = POLLIN };
    int r = 0;
    while (r == 0)
        r = request(&end, until);
    return r < 0 ? r : 0;
}

int rv_proc_await(reeve_proc *proc, reeve_time until)
{
    int fd = claim(proc, "reeve_proc_run");
    int r = await(fd, until);
    unclaim(proc);
    return r;
}

/* Past everything that may end a wait early: what is awaited was killed. Without memory for an
 * operation it is tried again until somebody else's has completed. */
static void await_past_all(int pidfd, int (*step)(int, reeve_time))
{
    struct rv_task *t = rv_worker_self()->cur;
    bool masked = rv_load_relaxed(&t->ctl) & RV_CTL_MASKED;
    if (!masked)
        rv_wait_mask(t, true);
    while (step(pidfd, 0) < 0)
        reeve_sleep(reeve_in(REEVE_MS));
    if (!masked)
        rv_wait_mask(t, false);
}

void rv_proc_await_end(reeve_proc *proc)
{
    await_past_all(claim(proc, "reeve_proc_run"), await);
    unclaim(proc);
}

/* A program begins in our memory, so what the kernel gives as its peak is at least what ours was by
 * then. It does not count exactly, so a little more than ours may be ours too: 0 then. */
static size_t peak_of(const struct rusage *program)
{
    struct rusage ours;
    RV_MUST(getrusage(RUSAGE_SELF, &ours) == 0);
    bool hidden = program->ru_maxrss <= ours.ru_maxrss + ours.ru_maxrss / 8;
    return hidden ? 0 : (size_t)program->ru_maxrss * 1024;
}

static struct reeve_ended ended_of(int status, const struct rusage *ru)
{
    int64_t us = (int64_t)(ru->ru_utime.tv_sec + ru->ru_stime.tv_sec) * 1000000 +
                 ru->ru_utime.tv_usec + ru->ru_stime.tv_usec;
    return (
        struct reeve_ended){ .status = status, .cpu_ns = us * REEVE_US, .peak_bytes = peak_of(ru) };
}

/* 0, -ECHILD, and the place is free; -EAGAIN: somebody traces it, and has to let it go first. */
static int try_reap(reeve_proc *proc, struct reeve_ended *ret_ended)
{
    struct place *p = lock_place(proc);
    struct rusage ru;
    int status, saved = errno;
    RV_MUST(p);
    /* (1) */
    pid_t pid = RV_FAULT("proc.traced") ? 0 : wait4(p->pid, &status, WNOHANG | __WALL, &ru);
    if (pid == 0) {
        rv_lock_release(&p->lock);
        return -EAGAIN;
    }
    int r = pid < 0 ? -errno : 0;
    RV_MUST(pid == p->pid || r == -ECHILD);
    p->gen++;
    int fd = p->pidfd;
    struct reeve_sem *permits = p->permits;
    rv_lock_release(&p->lock);
    if (r == 0 && ret_ended)
        *ret_ended = ended_of(status, &ru);
    syscall(SYS_close, fd); /* libc did not open it either */
    errno = saved;
    rv_add_relaxed(&count.ended, (uint64_t)1);
    give_place(p);
    if (permits)
        reeve_sem_post(permits);
    return r;
}

/* Waits until a traced program that has ended can be reaped: see (2). */
static int await_tracer(int pidfd, reeve_time until)
{
    siginfo_t info = { 0 };
    struct rv_req end = { .opcode = RV_URING_OP_WAITID,
                          .fd = pidfd,
                          .len = P_PIDFD,
                          .off = rv_req_ptr(&info),
                          .fd_in = WEXITED | WNOWAIT | __WALL };
    int r = request(&end, until);
    return r == -ECHILD || r > 0 ? 0 : r;
}

int rv_proc_reap(reeve_proc *proc, struct reeve_ended *ret_ended)
{
    int r = try_reap(proc, ret_ended);
    if (r != -EAGAIN)
        return r;
    struct place *p = lock_place(proc);
    int fd = p->pidfd;
    rv_lock_release(&p->lock);
    while ((r = try_reap(proc, ret_ended)) == -EAGAIN)
        await_past_all(fd, await_tracer);
    return r;
}

int reeve_proc_wait(reeve_proc *proc, struct reeve_ended *ret_ended, reeve_time until)
{
    rv_io_in_task("reeve_proc_wait");
    int fd = claim(proc, "reeve_proc_wait"), r = await(fd, until);
    while (r == 0) {
        r = try_reap(proc, ret_ended);
        if (r != -EAGAIN)
            return r;
        r = await_tracer(fd, until);
    }
    unclaim(proc);
    return r;
}

int reeve_proc_stop(reeve_proc *proc, struct reeve_ended *ret_ended, reeve_time until)
{
    struct rv_io_worker *iw = rv_io_in_task("reeve_proc_stop");
    int fd = claim(proc, "reeve_proc_stop");
    int r = until < 0 ? -ETIMEDOUT : rv_wait_check(iw->io->sched, iw->w->cur);
    if (r == 0) {
        reeve_proc_kill(proc, SIGTERM);
        r = await(fd, until);
    }
    if (r < 0) {
        reeve_proc_kill(proc, SIGKILL);
        await_past_all(fd, await);
    }
    return rv_proc_reap(proc, ret_ended);
}
