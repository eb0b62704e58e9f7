/* SPDX-License-Identifier: MIT */
/*
 * sim_real.c -- descriptors that the simulation does not play: files, pipes, Unix sockets and
 * programs.
 *
 * They are the process's own, and what is done to them is done, by the one thread there is and
 * never so that it waits. All that differs from run to run is when, how much at a time, and what
 * fails, which the world draws.
 *
 * (1) A real descriptor changes only because of a step of the world: a task's turn, a request, a
 *     call of the pool. So who found nothing to do there looks again after the next step, and when
 *     nobody takes one any more nothing will ever change.
 * (2) Programs are the exception, and take no part in the clock. Before anybody looks, they have
 *     done whatever they could do by themselves, and sleep or have ended: so what is found does not
 *     depend on how fast they are. That holds for programs that wait for nothing but their input
 *     and output; one that sleeps by the clock, or for a child of its own, is as good as dead here.
 *     A signal finds them so, too: rv_proc_before_kill().
 *     What programs do to each other is not drawn, and so may differ from run to run. In a chain
 *     whose pipes fill up, reader and writer are both able to go on, and in what pieces the bytes
 *     come out, or whether the writer is done before its reader ends, is a race; and one that
 *     writes to a program that ends unasked is ended by SIGPIPE, or was quicker. So who wants the
 *     same run again feeds a chain less than a pipe holds, page by page (a page takes one place of
 *     sixteen even if it is half full: 32 KiB at most), and makes nothing of how any but the last
 *     of its programs ended. A program by itself may have as many bytes as it likes.
 * (3) No call waits: a pipe that is ready takes a page at least, and sockets and splices are told.
 *
 * Threads: the simulation's.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "io/proc.h"
#include "io/req.h"
#include "io/sim_world.h"
#include "io/uring_compat.h"
#include "mem/die.h"

#define PAGE 4096u
#define PROGRAMS 64u

bool rv_sim_is_real(int fd)
{
    return fd < RV_SIM_FD_FIRST;
}

/* ---- programs -------------------------------------------------------------------------------- */

/* How often the program has gone to sleep, if it sleeps or has ended; -1: it runs. */
static int64_t sleeps(pid_t pid)
{
    char path[64], line[256], state = 'Z';
    int64_t times = 0;
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, "State:", 6) == 0)
            state = line[6 + strspn(line + 6, " \t")];
        else if (strncmp(line, "voluntary_ctxt_switches:", 24) == 0)
            times = atoll(line + 24);
    }
    if (f)
        fclose(f);
    return state == 'S' || state == 'Z' || state == 'X' ? times : -1;
}

/* The sum over all programs; -1: one of them runs. */
static int64_t all_sleeps(const pid_t *pids, unsigned n)
{
    int64_t sum = 0;
    for (unsigned i = 0; i < n; i++) {
        int64_t times = sleeps(pids[i]);
        if (times < 0)
            return -1;
        sum += times;
    }
    return sum;
}

/* Two looks that find them all asleep, and nobody has slept in between: who was woken by another
 * that the first look came to later runs at the second, or has slept once more. */
void rv_sim_settle(void)
{
    struct rv_sim *sim = rv_sim_world;
    struct rv_proc_counts counts;
    pid_t pids[PROGRAMS];
    rv_proc_counts(&counts);
    if (counts.started == counts.ended || sim->settled == sim->steps)
        return;
    sim->settled = sim->steps;
    unsigned n = rv_proc_alive(pids, PROGRAMS);
    RV_MUST(n < PROGRAMS);
    int64_t before, now = -1;
    do {
        before = now;
        now = all_sleeps(pids, n);
        if (now < 0)
            sched_yield();
    } while (now < 0 || now != before);
}

/* ---- calls that do not wait ------------------------------------------------------------------ */

/* 0: an eventfd, a timerfd, a signalfd, an inotify. What is not open is taken for a file: the call
 * says so. */
static mode_t kind_of(int fd)
{
    struct stat st;
    return fstat(fd, &st) < 0 ? S_IFREG : st.st_mode & S_IFMT;
}

static bool never_waits(mode_t kind)
{
    return kind == S_IFREG || kind == S_IFDIR || kind == S_IFBLK;
}

static int socket_type(int fd)
{
    int type = -1;
    socklen_t len = sizeof type;
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 ? -1 : type;
}

bool rv_sim_real_stream(int fd)
{
    return socket_type(fd) == SOCK_STREAM;
}

bool rv_sim_real_messages(int fd)
{
    int type = socket_type(fd);
    return type >= 0 && type != SOCK_STREAM;
}

bool rv_sim_real_ready(int fd, short events)
{
    struct pollfd p = { .fd = fd, .events = events };
    rv_sim_settle();
    return poll(&p, 1, 0) != 0; /* what is wrong with it the call says */
}

/* The answer of a call that was not to wait. */
static int32_t told(ssize_t n)
{
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return RV_SIM_WAIT;
    rv_sim_world->steps++;
    return n < 0 ? -errno : (int32_t)n;
}

int32_t rv_sim_real_recv(int fd, void *to, uint32_t len, uint32_t flags)
{
    rv_sim_settle();
    int32_t n = told(recv(fd, to, len, (int)((flags & ~(uint32_t)MSG_WAITALL) | MSG_DONTWAIT)));
    if (n > 0 && rv_sim_canary_now(RV_SIM_WRONG_BYTE))
        *(unsigned char *)to ^= 0x20;
    return n;
}

int32_t rv_sim_real_send(int fd, const void *from, uint32_t len, uint32_t flags)
{
    rv_sim_settle();
    flags &= ~(uint32_t)MSG_WAITALL;
    return told(send(fd, from, len, (int)(flags | MSG_DONTWAIT | MSG_NOSIGNAL)));
}

/* A vector's first piece alone, as a plain read or write. */
static bool one_piece(struct rv_req *q)
{
    if (q->opcode != IORING_OP_READV && q->opcode != IORING_OP_WRITEV)
        return true;
    const struct iovec *v = (const struct iovec *)(uintptr_t)q->addr;
    uint32_t n = q->len, i = 0;
    while (i < n && v[i].iov_len == 0)
        i++;
    if (i == n)
        return false;
    q->opcode = q->opcode == IORING_OP_READV ? IORING_OP_READ : IORING_OP_WRITE;
    q->addr = rv_req_ptr(v[i].iov_base);
    q->len = v[i].iov_len < UINT32_MAX ? (uint32_t)v[i].iov_len : UINT32_MAX;
    return true;
}

/* The system call of the same meaning. What it says of a reader that has gone it says as an error
 * alone. */
static int32_t plainly(const struct rv_req *q)
{
    sigset_t broken, was;
    sigemptyset(&broken);
    sigaddset(&broken, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &broken, &was);
    int32_t n = rv_req_plain(q);
    if (n == -EPIPE && !sigismember(&was, SIGPIPE))
        sigtimedwait(&broken, NULL, &(struct timespec){ 0 });
    pthread_sigmask(SIG_SETMASK, &was, NULL);
    if (n == -EAGAIN)
        return RV_SIM_WAIT;
    rv_sim_world->steps++;
    return n;
}

static int32_t move_bytes(struct rv_req *q, bool write, uint32_t (*some)(uint32_t))
{
    mode_t kind = kind_of(q->fd);
    if (never_waits(kind)) {
        if (q->opcode != IORING_OP_READV && q->opcode != IORING_OP_WRITEV)
            q->len = some(q->len);
        return plainly(q);
    }
    if (!one_piece(q))
        return plainly(q);
    if (!rv_sim_real_ready(q->fd, write ? POLLOUT : POLLIN))
        return RV_SIM_WAIT;
    if (kind != 0 && !rv_sim_real_messages(q->fd))
        q->len = some(write && q->len > PAGE ? PAGE : q->len); /* (3) */
    return plainly(q);
}

int32_t rv_sim_real_accept(int fd, bool abort)
{
    if (!rv_sim_real_ready(fd, POLLIN))
        return RV_SIM_WAIT;
    int32_t r = told(accept4(fd, NULL, NULL, SOCK_CLOEXEC));
    if (r >= 0 && abort) {
        close(r);
        return -ECONNABORTED;
    }
    return r;
}

/* It says EAGAIN where the listener has no room. */
static int32_t connect_now(const struct rv_req *q)
{
    int flags = fcntl(q->fd, F_GETFL);
    if (flags < 0)
        return -errno;
    fcntl(q->fd, F_SETFL, flags | O_NONBLOCK);
    const struct sockaddr *to = (const struct sockaddr *)(uintptr_t)q->addr;
    int32_t r = told(connect(q->fd, to, (socklen_t)q->off));
    fcntl(q->fd, F_SETFL, flags);
    return r;
}

/* A message, and the canary for what is received. */
static int32_t message_now(struct rv_req *q)
{
    const struct msghdr *m = (const struct msghdr *)(uintptr_t)q->addr;
    q->op_flags = (q->op_flags & ~(uint32_t)MSG_WAITALL) | MSG_DONTWAIT;
    rv_sim_settle();
    int32_t n = plainly(q);
    if (q->opcode == IORING_OP_RECVMSG && n > 0 && m->msg_iov[0].iov_len > 0 &&
        rv_sim_canary_now(RV_SIM_WRONG_BYTE))
        *(unsigned char *)m->msg_iov[0].iov_base ^= 0x20;
    return n;
}

static int32_t poll_now(const struct rv_req *q)
{
    struct pollfd p = { .fd = q->fd, .events = (short)q->op_flags };
    rv_sim_settle();
    int r = poll(&p, 1, 0);
    return r == 0 ? RV_SIM_WAIT : r < 0 ? -errno : p.revents & POLLNVAL ? -EBADF : p.revents;
}

/* It says 0 and tells of nobody if nobody is there yet. */
static int32_t wait_now(struct rv_req *q)
{
    siginfo_t none = { 0 }, *info = (siginfo_t *)(uintptr_t)q->off;
    info = info ? info : &none;
    info->si_pid = 0;
    q->off = rv_req_ptr(info);
    q->fd_in |= WNOHANG;
    rv_sim_settle();
    int32_t r = plainly(q);
    return r == 0 && info->si_pid == 0 ? RV_SIM_WAIT : r;
}

int32_t rv_sim_real_request(const struct rv_req *request, uint32_t (*some)(uint32_t))
{
    struct rv_req q = *request;
    switch (q.opcode) {
    case IORING_OP_READ:
    case IORING_OP_READV:
    case IORING_OP_READ_FIXED:
        return move_bytes(&q, false, some);
    case IORING_OP_WRITE:
    case IORING_OP_WRITEV:
    case IORING_OP_WRITE_FIXED:
        return move_bytes(&q, true, some);
    case IORING_OP_SENDMSG:
    case IORING_OP_RECVMSG:
        return message_now(&q);
    case IORING_OP_CONNECT:
        return connect_now(&q);
    case IORING_OP_SPLICE:
    case IORING_OP_TEE:
        q.op_flags |= SPLICE_F_NONBLOCK;
        q.len = some(q.len);
        rv_sim_settle();
        return plainly(&q);
    case IORING_OP_POLL_ADD:
        return poll_now(&q);
    case RV_URING_OP_WAITID:
        return wait_now(&q);
    default:
        return plainly(&q);
    }
}
