/* SPDX-License-Identifier: MIT */
/*
 * req_test.c -- requests that their caller writes out: by the ring, by the pool, and that the two
 * mean the same.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <linux/openat2.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include "io/op.h"
#include "io/req.h"
#include "io/uring_compat.h"
#include "tests/io/pair.h"
#include "tests/io/scratch.h"
#include "tests/turns.h"

#define SOON reeve_in(2 * REEVE_MS)

/* As a public call would do it. */
static int run_req(const struct rv_req *q, reeve_time until)
{
    uint32_t was;
    struct rv_io_worker *iw = rv_io_enter("run_req", &was);
    int r = rv_req_run(iw, q, until);
    rv_io_exit(was);
    return r;
}

/* Whether the ring knows this request from now on. */
static void set_known(unsigned opcode, bool known)
{
    struct rv_caps *caps = &my_io()->io->caps;
    uint64_t bit = UINT64_C(1) << (opcode % 64);
    caps->ops[opcode / 64] = known ? caps->ops[opcode / 64] | bit : caps->ops[opcode / 64] & ~bit;
    if (opcode == RV_URING_OP_FTRUNCATE)
        caps->ftruncate = known;
    if (opcode == RV_URING_OP_WAITID)
        caps->waitid = known;
}

static void forget_opcode(unsigned opcode)
{
    set_known(opcode, false);
}

/* ---- plain equals ring ----------------------------------------------------------------------- */

enum { WORLD = 64 }; /* bytes of everything that a request may change and we look at */

/* What each opcode is tried on; made anew for each try, so that both find the same. */
struct world {
    int file;      /* "0123456789abcdef", at position 4 */
    int pipe[2];   /* holds "piped" */
    int other[2];  /* empty */
    int pair[2];   /* datagrams; [0] has "gram" waiting */
    char buf[WORLD];
    struct iovec pieces[2];
    struct msghdr msg;
    char control[64];
    struct statx st;
    struct open_how how;
};

static void world_make(struct world *w)
{
    memset(w, 0, sizeof *w);
    scratch_file(scratch("file"), "0123456789abcdef", 16);
    w->file = open(scratch("file"), O_RDWR | O_CLOEXEC);
    CHECK_GE(w->file, 0);
    CHECK_EQ(lseek(w->file, 4, SEEK_SET), 4);
    CHECK_EQ(pipe2(w->pipe, O_CLOEXEC), 0);
    CHECK_EQ(pipe2(w->other, O_CLOEXEC), 0);
    CHECK_EQ(write(w->pipe[1], "piped", 5), 5);
    CHECK_EQ(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, w->pair), 0);
    CHECK_EQ(send(w->pair[1], "gram", 4, 0), 4);
    w->pieces[0] = (struct iovec){ w->buf, 3 };
    w->pieces[1] = (struct iovec){ w->buf + 8, 4 };
    w->msg = (struct msghdr){ .msg_iov = w->pieces, .msg_iovlen = 2 };
}

static void world_end(struct world *w)
{
    int fds[] = { w->file, w->pipe[0], w->pipe[1], w->other[0], w->other[1], w->pair[0],
                  w->pair[1] };
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        close(fds[i]);
    static const char *const names[] = { "file", "new", "made" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        remove(scratch(names[i]));
}

/* All that can be seen of it afterwards, in text. */
static void world_tell(struct world *w, int r, bool is_fd, char *text, size_t cap)
{
    struct stat st;
    char held[WORLD] = { 0 }, in_pipe[WORLD] = { 0 }, in_other[WORLD] = { 0 }, gram[WORLD] = { 0 };
    bool new = lstat(scratch("new"), &st) == 0;
    bool made = lstat(scratch("made"), &st) == 0 && S_ISDIR(st.st_mode);
    bool old = lstat(scratch("file"), &st) == 0;
    CHECK_EQ(fstat(w->file, &st), 0);
    CHECK_GE(pread(w->file, held, sizeof held - 1, 0), 0);
    for (int i = 0; i < 2; i++) {
        int *p = i ? w->other : w->pipe;
        fcntl(p[0], F_SETFL, O_NONBLOCK);
        if (read(p[0], i ? in_other : in_pipe, WORLD - 1) < 0)
            CHECK_EQ(errno, EAGAIN);
    }
    if (recv(w->pair[1], gram, sizeof gram - 1, MSG_DONTWAIT) < 0)
        CHECK_EQ(errno, EAGAIN);
    for (int i = 0; i < WORLD; i++)
        w->buf[i] = w->buf[i] ? w->buf[i] : '.';
    if (is_fd && r >= 0) {
        CHECK_EQ(fcntl(r, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
        close(r);
        r = 1000;
    }
    snprintf(text, cap,
             "result %d, buffer %.*s, file %s of %lld at %lld, pipe %s, other %s, gram %s, new %d, "
             "directory %d, name %d, statx %llu %u",
             r, WORLD, w->buf, held, (long long)st.st_size,
             (long long)lseek(w->file, 0, SEEK_CUR), in_pipe, in_other, gram, new, made, old,
             (unsigned long long)w->st.stx_size, w->st.stx_mode);
}

/* One request, as a function of the world that it is made for. */
struct trial {
    const char *name;
    unsigned opcode;
    void (*write_out)(struct world *w, struct rv_req *q);
    bool is_fd;
};

#define WRITES_OUT(name) static void name(struct world *w, struct rv_req *q)

WRITES_OUT(a_nop)
{
    (void)w;
    q->fd = -1;
}
WRITES_OUT(a_read)
{
    *q = (struct rv_req){ .fd = w->file, .addr = rv_req_ptr(w->buf), .len = 6, .off = 2 };
}
WRITES_OUT(a_read_at_the_position)
{
    *q = (struct rv_req){ .fd = w->file, .addr = rv_req_ptr(w->buf), .len = 6, .off = UINT64_MAX };
}
WRITES_OUT(a_read_at_the_end)
{
    *q = (struct rv_req){ .fd = w->file, .addr = rv_req_ptr(w->buf), .len = 6, .off = 14 };
}
WRITES_OUT(a_read_of_a_bad_fd)
{
    *q = (struct rv_req){ .fd = 1 << 19, .addr = rv_req_ptr(w->buf), .len = 6 };
}
WRITES_OUT(a_read_of_a_pipe)
{
    *q = (struct rv_req){ .fd = w->pipe[0], .addr = rv_req_ptr(w->buf), .len = 9, .off = 3 };
}
WRITES_OUT(a_vector)
{
    *q = (struct rv_req){ .fd = w->file, .addr = rv_req_ptr(w->pieces), .len = 2, .off = 1 };
}
WRITES_OUT(a_write)
{
    memcpy(w->buf, "WRITE", 5);
    *q = (struct rv_req){ .fd = w->file, .addr = rv_req_ptr(w->buf), .len = 5, .off = 14 };
}
WRITES_OUT(a_written_vector)
{
    memcpy(w->buf, "one", 3);
    memcpy(w->buf + 8, "two!", 4);
    *q = (struct rv_req){ .fd = w->file, .addr = rv_req_ptr(w->pieces), .len = 2, .off = 3 };
}
WRITES_OUT(a_sent_message)
{
    memcpy(w->buf, "one", 3);
    memcpy(w->buf + 8, "two!", 4);
    *q = (struct rv_req){ .fd = w->pair[0],
                          .addr = rv_req_ptr(&w->msg),
                          .len = 1,
                          .op_flags = MSG_NOSIGNAL };
}
WRITES_OUT(a_received_message)
{
    *q = (struct rv_req){ .fd = w->pair[0], .addr = rv_req_ptr(&w->msg), .len = 1 };
}
WRITES_OUT(a_poll)
{
    *q = (struct rv_req){ .fd = w->pipe[0], .op_flags = POLLIN | POLLPRI };
}
WRITES_OUT(a_poll_of_a_bad_fd)
{
    (void)w;
    *q = (struct rv_req){ .fd = 1 << 19, .op_flags = POLLIN };
}
WRITES_OUT(a_sync)
{
    *q = (struct rv_req){ .fd = w->file, .op_flags = IORING_FSYNC_DATASYNC };
}
WRITES_OUT(a_sync_of_a_pipe)
{
    *q = (struct rv_req){ .fd = w->pipe[0] };
}
WRITES_OUT(a_range_sync)
{
    *q = (struct rv_req){ .fd = w->file, .len = 8, .op_flags = SYNC_FILE_RANGE_WRITE };
}
WRITES_OUT(an_allocation)
{
    *q = (struct rv_req){ .fd = w->file, .off = 10, .addr = 90 };
}
WRITES_OUT(an_empty_allocation)
{
    *q = (struct rv_req){ .fd = w->file, .off = 10 };
}
WRITES_OUT(an_advice)
{
    *q = (struct rv_req){ .fd = w->file, .op_flags = POSIX_FADV_WILLNEED };
}
WRITES_OUT(an_advice_to_a_pipe)
{
    *q = (struct rv_req){ .fd = w->pipe[0], .op_flags = POSIX_FADV_RANDOM };
}
WRITES_OUT(advice_on_memory)
{
    static _Alignas(4096) char page[4096];
    (void)w;
    *q = (struct rv_req){ .fd = -1,
                          .addr = rv_req_ptr(page),
                          .len = sizeof page,
                          .op_flags = MADV_NORMAL };
}
WRITES_OUT(a_truncation)
{
    *q = (struct rv_req){ .fd = w->file, .off = 7 };
}
WRITES_OUT(a_splice)
{
    *q = (struct rv_req){ .fd_in = w->pipe[0],
                          .addr = UINT64_MAX,
                          .fd = w->file,
                          .off = 2,
                          .len = 5 };
}
WRITES_OUT(a_tee)
{
    *q = (struct rv_req){ .fd_in = w->pipe[0], .fd = w->other[1], .len = 5 };
}
WRITES_OUT(an_open)
{
    (void)w;
    *q = (struct rv_req){ .fd = AT_FDCWD,
                          .addr = rv_req_ptr(scratch("new")),
                          .len = 0600,
                          .op_flags = O_RDWR | O_CREAT | O_CLOEXEC };
}
WRITES_OUT(an_open_of_nothing)
{
    (void)w;
    *q = (struct rv_req){ .fd = AT_FDCWD, .addr = rv_req_ptr(scratch("new")) };
}
WRITES_OUT(an_open_with_options)
{
    w->how = (struct open_how){ .flags = O_RDONLY | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS };
    *q = (struct rv_req){ .fd = AT_FDCWD,
                          .addr = rv_req_ptr(scratch("file")),
                          .off = rv_req_ptr(&w->how),
                          .len = sizeof w->how };
}
WRITES_OUT(a_stat)
{
    *q = (struct rv_req){ .fd = AT_FDCWD,
                          .addr = rv_req_ptr(scratch("file")),
                          .off = rv_req_ptr(&w->st),
                          .len = STATX_SIZE | STATX_MODE };
}
WRITES_OUT(a_new_name)
{
    (void)w;
    *q = (struct rv_req){ .fd = AT_FDCWD,
                          .addr = rv_req_ptr(scratch("file")),
                          .len = (uint32_t)AT_FDCWD,
                          .off = rv_req_ptr(scratch("new")) };
}
WRITES_OUT(a_name_of_nothing)
{
    (void)w;
    *q = (struct rv_req){ .fd = AT_FDCWD,
                          .addr = rv_req_ptr(scratch("nothing")),
                          .len = (uint32_t)AT_FDCWD,
                          .off = rv_req_ptr(scratch("new")) };
}
WRITES_OUT(a_symbolic_link)
{
    (void)w;
    *q = (struct rv_req){ .fd = AT_FDCWD,
                          .addr = rv_req_ptr("file"),
                          .off = rv_req_ptr(scratch("new")) };
}
WRITES_OUT(a_removal)
{
    (void)w;
    *q = (struct rv_req){ .fd = AT_FDCWD, .addr = rv_req_ptr(scratch("file")) };
}
WRITES_OUT(a_directory)
{
    (void)w;
    *q = (struct rv_req){ .fd = AT_FDCWD, .addr = rv_req_ptr(scratch("made")), .len = 0700 };
}

static const struct trial trials[] = {
    { "nop", IORING_OP_NOP, a_nop, false },
    { "read", IORING_OP_READ, a_read, false },
    { "read at the position", IORING_OP_READ, a_read_at_the_position, false },
    { "read at the end", IORING_OP_READ, a_read_at_the_end, false },
    { "read of a bad fd", IORING_OP_READ, a_read_of_a_bad_fd, false },
    { "read of a pipe at an offset", IORING_OP_READ, a_read_of_a_pipe, false },
    { "readv", IORING_OP_READV, a_vector, false },
    { "write", IORING_OP_WRITE, a_write, false },
    { "writev", IORING_OP_WRITEV, a_written_vector, false },
    { "sendmsg", IORING_OP_SENDMSG, a_sent_message, false },
    { "recvmsg", IORING_OP_RECVMSG, a_received_message, false },
    { "poll", IORING_OP_POLL_ADD, a_poll, false },
    { "poll of a bad fd", IORING_OP_POLL_ADD, a_poll_of_a_bad_fd, false },
    { "fsync", IORING_OP_FSYNC, a_sync, false },
    { "fsync of a pipe", IORING_OP_FSYNC, a_sync_of_a_pipe, false },
    { "sync_file_range", IORING_OP_SYNC_FILE_RANGE, a_range_sync, false },
    { "fallocate", IORING_OP_FALLOCATE, an_allocation, false },
    { "fallocate of nothing", IORING_OP_FALLOCATE, an_empty_allocation, false },
    { "fadvise", IORING_OP_FADVISE, an_advice, false },
    { "fadvise of a pipe", IORING_OP_FADVISE, an_advice_to_a_pipe, false },
    { "madvise", IORING_OP_MADVISE, advice_on_memory, false },
    { "ftruncate", RV_URING_OP_FTRUNCATE, a_truncation, false },
    { "splice", IORING_OP_SPLICE, a_splice, false },
    { "tee", IORING_OP_TEE, a_tee, false },
    { "openat", IORING_OP_OPENAT, an_open, true },
    { "openat of nothing", IORING_OP_OPENAT, an_open_of_nothing, true },
    { "openat2", IORING_OP_OPENAT2, an_open_with_options, true },
    { "statx", IORING_OP_STATX, a_stat, false },
    { "renameat", IORING_OP_RENAMEAT, a_new_name, false },
    { "renameat of nothing", IORING_OP_RENAMEAT, a_name_of_nothing, false },
    { "linkat", IORING_OP_LINKAT, a_new_name, false },
    { "symlinkat", IORING_OP_SYMLINKAT, a_symbolic_link, false },
    { "unlinkat", IORING_OP_UNLINKAT, a_removal, false },
    { "mkdirat", IORING_OP_MKDIRAT, a_directory, false },
};

/* Which way a request goes. */
enum way { BY_RING, BY_CALL, BY_POOL, WAYS };

static int go(const struct rv_req *q, enum way way)
{
    if (way == BY_CALL)
        return rv_req_plain(q);
    uint64_t ops = rv_load_relaxed(&my_io()->n.ops);
    if (way == BY_POOL)
        forget_opcode(q->opcode);
    int r = run_req(q, LONG);
    if (way == BY_POOL) /* and nobody asked the ring */
        CHECK_EQ(rv_load_relaxed(&my_io()->n.ops), ops);
    return r;
}

static int alike(void *arg)
{
    (void)arg;
    char told[WAYS][1024];
    for (size_t i = 0; i < sizeof trials / sizeof *trials; i++) {
        const struct trial *t = &trials[i];
        if (!rv_req_known(my_io()->io, t->opcode)) {
            printf("(the ring does not know %s)\n", t->name);
            continue;
        }
        for (enum way way = 0; way < WAYS; way++) {
            struct world w;
            struct rv_req q = { 0 };
            world_make(&w);
            t->write_out(&w, &q);
            q.opcode = (uint8_t)t->opcode;
            int r = go(&q, way);
            world_tell(&w, r, t->is_fd, told[way], sizeof told[way]);
            world_end(&w);
            set_known(t->opcode, true);
        }
        for (enum way way = BY_CALL; way < WAYS; way++)
            if (strcmp(told[BY_RING], told[way]) != 0)
                check_failed(__FILE__, __LINE__, "%s: the ring: %s; way %d: %s", t->name,
                             told[BY_RING], way, told[way]);
    }
    return 0;
}

TEST(a_request_comes_to_the_same_by_the_ring_the_pool_and_the_call)
{
    RUN(alike, .workers = 1);
}

static int unheard_of(void *arg)
{
    (void)arg;
    struct rv_req q = { .opcode = 250, .fd = -1 };
    CHECK_EQ(rv_req_plain(&q), -EINVAL);
    CHECK_EQ(run_req(&q, LONG), -EINVAL);
    return 0;
}

TEST(an_opcode_that_nobody_knows_is_an_error)
{
    RUN(unheard_of, .workers = 1);
}

static int child_gone(void *arg)
{
    (void)arg;
    for (int known = 1; known >= 0; known--) {
        pid_t child = fork();
        if (child == 0)
            _exit(7);
        if (!known)
            forget_opcode(RV_URING_OP_WAITID);
        siginfo_t info = { 0 };
        struct rv_req q = { .opcode = RV_URING_OP_WAITID,
                            .fd = child,
                            .len = P_PID,
                            .off = rv_req_ptr(&info),
                            .fd_in = WEXITED };
        CHECK_EQ(run_req(&q, LONG), 0);
        CHECK_EQ(info.si_pid, child);
        CHECK_EQ(info.si_status, 7);
    }
    return 0;
}

TEST(a_child_is_waited_for_by_its_number_which_is_no_descriptor)
{
    RUN(child_gone, .workers = 1);
}

/* ---- cancellation, deadlines, closing -------------------------------------------------------- */

struct reading {
    struct rv_req q;
    reeve_time until;
    char buf[8];
    bool begun;
    int result;
};

static int read_in_task(void *arg)
{
    struct reading *r = arg;
    r->begun = true;
    r->result = run_req(&r->q, r->until);
    return 0;
}

/* A read of a pipe that has nothing: it waits for ever. */
static struct reading endless(int fd, reeve_time until)
{
    return (struct reading){ .q = { .opcode = IORING_OP_READ, .fd = fd, .len = 8 },
                             .until = until,
                             .result = 1 };
}

static int ended(void *arg)
{
    (void)arg;
    int ends[2];
    reeve_task *t;
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    struct reading r = endless(ends[0], SOON);
    r.q.addr = rv_req_ptr(r.buf);
    read_in_task(&r);
    CHECK_EQ(r.result, -ETIMEDOUT);
    r.until = REEVE_POLL;
    read_in_task(&r);
    CHECK_EQ(r.result, -ETIMEDOUT);
    r.until = LONG;
    CHECK_EQ(reeve_spawn(&t, read_in_task, &r), 0);
    await_waiter(ends[0], AN_OP);
    reeve_cancel(t);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(r.result, -ECANCELED);
    CHECK_EQ(reeve_spawn(&t, read_in_task, &r), 0);
    await_waiter(ends[0], AN_OP);
    CHECK_EQ(reeve_close(ends[0]), 0);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(r.result, -ECANCELED);
    await_closed(ends[0]);
    close(ends[1]);
    return 0;
}

TEST(a_request_ends_by_deadline_cancellation_and_close)
{
    RUN(ended, .workers = 1);
    RUN(ended, .workers = 2);
}

static int beaten(void *arg)
{
    (void)arg;
    int ends[2];
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    CHECK_EQ(write(ends[1], "here", 4), 4);
    struct reading r = endless(ends[0], REEVE_POLL);
    r.q.addr = rv_req_ptr(r.buf);
    read_in_task(&r);
    CHECK_EQ(r.result, 4); /* late, and done all the same */
    CHECK_MEM_EQ(r.buf, "here", 4);
    close(ends[0]);
    close(ends[1]);
    return 0;
}

TEST(a_result_beats_a_deadline_that_has_passed)
{
    RUN(beaten, .workers = 1);
}

/* By the pool a read of an empty pipe holds a thread until there is something. */
static int held(void *arg)
{
    (void)arg;
    int ends[2];
    reeve_task *t;
    forget_opcode(IORING_OP_READ);
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    struct reading r = endless(ends[0], LONG);
    r.q.addr = rv_req_ptr(r.buf);
    CHECK_EQ(reeve_spawn(&t, read_in_task, &r), 0);
    await_waiter(ends[0], AN_OP);
    CHECK_EQ(reeve_close(ends[0]), 0);
    CHECK_EQ(reeve_close(ends[0]), -EBADF);
    CHECK_EQ(is_open(ends[0]), true); /* the call has it, and nobody else gets the number */
    CHECK_EQ(run_req(&r.q, LONG), -EBADF);
    CHECK_EQ(write(ends[1], "late", 4), 4);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(r.result, 4);
    CHECK_MEM_EQ(r.buf, "late", 4);
    await_closed(ends[0]);
    close(ends[1]);
    return 0;
}

TEST(a_descriptor_stays_open_while_the_pool_uses_it)
{
    RUN(held, .workers = 1);
    RUN(held, .workers = 2);
}

static int second_closed(void *arg)
{
    (void)arg;
    int ends[2], extra = eventfd(0, EFD_CLOEXEC);
    reeve_task *t;
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    struct reading r = endless(ends[0], LONG);
    r.q.addr = rv_req_ptr(r.buf);
    r.q.also = extra + 1;
    CHECK_EQ(reeve_spawn(&t, read_in_task, &r), 0);
    await_waiter(ends[0], AN_OP);
    CHECK_EQ(reeve_close(extra), 0);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(r.result, -ECANCELED);
    await_closed(extra);
    close(ends[0]);
    close(ends[1]);
    return 0;
}

TEST(a_second_descriptor_whose_close_comes_ends_the_request)
{
    RUN(second_closed, .workers = 1);
    RUN(second_closed, .workers = 2);
}

/* What is tried before it is cancelled has been done, and says so. */
static int done_and_closed(void *arg)
{
    (void)arg;
    for (int i = 0; i < 50; i++) {
        reeve_task *t;
        struct reading r = { .until = LONG };
        int fd = memfd_create("req_test", MFD_CLOEXEC);
        r.q = (struct rv_req){ .opcode = IORING_OP_FADVISE, .fd = fd };
        r.q.op_flags = POSIX_FADV_RANDOM;
        CHECK_EQ(reeve_spawn(&t, read_in_task, &r), 0);
        while (!r.begun)
            CHECK_EQ(reeve_sleep(0), 0);
        /* it has asked, and mostly the ring has not been entered */
        CHECK_EQ(reeve_close(fd), 0);
        CHECK_EQ(reeve_join(t, NULL, LONG), 0);
        CHECK_EQ(r.result, 0);
        await_closed(fd);
    }
    return 0;
}

TEST(what_was_done_while_its_descriptor_was_closed_is_told_as_done)
{
    RUN(done_and_closed, .workers = 1);
}

static int cancelled_before(void *arg)
{
    (void)arg;
    struct rv_req q = { .opcode = IORING_OP_NOP, .fd = -1 };
    while (reeve_sleep(0) == 0)
        ;
    CHECK_EQ(run_req(&q, LONG), -ECANCELED);
    return 0;
}

static int cancels(void *arg)
{
    (void)arg;
    reeve_task *t;
    CHECK_EQ(reeve_spawn(&t, cancelled_before, NULL), 0);
    give_turns();
    reeve_cancel(t);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    return 0;
}

TEST(a_cancelled_task_makes_no_request)
{
    RUN(cancels, .workers = 1);
}

static int no_pool(void *arg)
{
    (void)arg;
    struct rv_req q = { .opcode = IORING_OP_NOP, .fd = -1 };
    forget_opcode(IORING_OP_NOP);
    CHECK_EQ(run_req(&q, LONG), -ENOTSUP);
    return 0;
}

TEST(without_a_pool_what_the_ring_does_not_know_is_an_error)
{
    RUN(no_pool, .workers = 1, .offload_max = REEVE_NONE);
}

/* ---- the kernel's threads -------------------------------------------------------------------- */

/* A sync is for a thread of the kernel's. */
static int without_threads(void *arg)
{
    int fd = *(int *)arg;
    struct rlimit was, none;
    CHECK_EQ(getrlimit(RLIMIT_NPROC, &was), 0);
    none = (struct rlimit){ 0, was.rlim_max };
    CHECK_EQ(setrlimit(RLIMIT_NPROC, &none), 0);
    uint64_t retries = COUNTER(retries);
    CHECK_EQ(reeve_fsync(fd, LONG), -ENOMEM);
    CHECK_GT(COUNTER(retries), retries);
    CHECK_EQ(setrlimit(RLIMIT_NPROC, &was), 0);
    CHECK_EQ(reeve_fsync(fd, LONG), 0);
    return 0;
}

TEST(a_thread_that_the_kernel_cannot_make_is_no_cancellation)
{
    uring_or_skip();
    int fd = memfd_create("sync", MFD_CLOEXEC);
    CHECK_GE(fd, 0);
    /* The limit is none for root. This thread alone: it is the worker. */
    if (geteuid() == 0 && syscall(SYS_setresuid, 65534, 65534, 65534) < 0)
        SKIP("this process cannot be anybody but root");
    CHECK_EQ(reeve_run(without_threads, &fd, .workers = 1), 0);
    close(fd);
}
