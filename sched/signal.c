/* SPDX-License-Identifier: MIT */
/*
 * signal.c -- the one signal that reeve uses: taken from those that nobody uses, given back at the
 * end.
 *
 * It is always sent to one thread, that of a worker, for one of two reasons: the worker's I/O is to
 * be fetched (loan.c), or somebody wants to see where it is stuck (watchdog.c). The handler asks
 * the worker which.
 *
 *     default -> ours      [rv_signal_take, the first]
 *     ours    -> default   [rv_signal_give, the last]
 *
 * (1) A task's stack promises its bytes to the task, so the handler runs on an alternate stack. It
 *     never switches from it.
 * (2) A signal that is under way while the handler goes would end the process. So threads come back
 *     to what they were, and eat what is left, before that.
 * (3) The handler blocks all other signals: none of the program's handlers runs on top of it.
 *
 * Threads: take, give - any; attach, detach - the thread itself.
 */
#include "sched/signal.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include "mem/alloc.h"
#include "mem/die.h"
#include "mem/fault.h"
#include "sched/loan.h"
#include "sched/watchdog.h"

/* Real-time signals near the lower end are what programs take first. */
enum { FIRST_OFFSET = 10, SIGNALS = 65, STACK_BYTES = 64 * 1024 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    unsigned users;
    struct sigaction before;
} taken[SIGNALS]; /* under the lock */

static void handler(int number, siginfo_t *info, void *context)
{
    (void)number, (void)info;
    int before = errno;
    struct rv_worker *w = rv_worker_self();
    if (w) {
        rv_watch_called(w, context);
        rv_loan_called(w);
    }
    errno = before;
}

static bool is_free(int number)
{
    struct sigaction now;
    return sigaction(number, NULL, &now) == 0 && !(now.sa_flags & SA_SIGINFO) &&
           now.sa_handler == SIG_DFL;
}

/* Under the lock. */
static int install(int number)
{
    struct sigaction ours = { .sa_sigaction = handler,
                              .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART };
    if (taken[number].users == 0) {
        if (!is_free(number))
            return -EBUSY;
        sigfillset(&ours.sa_mask);
        if (sigaction(number, &ours, &taken[number].before) < 0)
            return -EINVAL;
    }
    taken[number].users++;
    return number;
}

/* Under the lock. One that another runtime has is as good as any. */
static int install_first(void)
{
    for (int number = SIGRTMIN; number <= SIGRTMAX; number++)
        if (taken[number].users > 0)
            return install(number);
    for (int number = SIGRTMIN + FIRST_OFFSET; number <= SIGRTMAX; number++)
        if (is_free(number))
            return install(number);
    for (int number = SIGRTMIN; number < SIGRTMIN + FIRST_OFFSET; number++)
        if (is_free(number))
            return install(number);
    return -EBUSY;
}

static bool may_be_handled(int number)
{
    static const int never[] = { SIGKILL, SIGSTOP, SIGSEGV, SIGBUS, SIGFPE,
                                 SIGILL,  SIGTRAP, SIGABRT, SIGSYS };
    for (size_t i = 0; i < sizeof never / sizeof *never; i++)
        if (number == never[i])
            return false;
    struct sigaction now;
    return number > 0 && number < SIGNALS && sigaction(number, NULL, &now) == 0;
}

int rv_signal_take(int want)
{
    if (want != 0 && !may_be_handled(want))
        return -EINVAL;
    pthread_mutex_lock(&lock);
    int r = want ? install(want) : install_first();
    pthread_mutex_unlock(&lock);
    return r;
}

void rv_signal_give(int number)
{
    struct sigaction now;
    pthread_mutex_lock(&lock);
    RV_MUST(taken[number].users > 0);
    if (--taken[number].users == 0 && sigaction(number, NULL, &now) == 0 &&
        now.sa_flags & SA_SIGINFO && now.sa_sigaction == handler)
        sigaction(number, &taken[number].before, NULL);
    pthread_mutex_unlock(&lock);
}

/* An alternate stack, unless the thread has one: that is its owner's, and will do. */
static int add_stack(struct rv_signal_thread *th)
{
    stack_t now;
    if (sigaltstack(NULL, &now) < 0 || !(now.ss_flags & SS_DISABLE))
        return 0;
    long least = sysconf(_SC_SIGSTKSZ); /* the registers of large CPUs */
    th->stack_bytes = least > STACK_BYTES ? (size_t)least : STACK_BYTES;
    th->stack = rv_map_lazy(th->stack_bytes);
    if (th->stack == NULL)
        return -ENOMEM;
    stack_t ours = { .ss_sp = th->stack, .ss_size = th->stack_bytes };
    RV_MUST(sigaltstack(&ours, NULL) == 0);
    return 0;
}

int rv_signal_attach(struct rv_signal_thread *th, int number)
{
    *th = (struct rv_signal_thread){ 0 };
    int r = add_stack(th);
    if (r < 0)
        return r;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, number);
    RV_MUST(pthread_sigmask(SIG_UNBLOCK, &set, &th->mask) == 0);
    th->number = number;
    return 0;
}

void rv_signal_detach(struct rv_signal_thread *th)
{
    if (th->number == 0)
        return;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, th->number);
    RV_MUST(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
    while (sigtimedwait(&set, NULL, &(struct timespec){ 0, 0 }) > 0)
        ;
    RV_MUST(pthread_sigmask(SIG_SETMASK, &th->mask, NULL) == 0);
    if (th->stack) {
        stack_t none = { .ss_flags = SS_DISABLE };
        RV_MUST(sigaltstack(&none, NULL) == 0);
        rv_unmap(th->stack, th->stack_bytes);
    }
    *th = (struct rv_signal_thread){ 0 };
}
