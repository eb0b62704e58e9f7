/* SPDX-License-Identifier: MIT */
/*
 * caps.c -- finding out what this kernel's io_uring can do, and saying why it will not.
 *
 * A ring is made as a worker would make it, used for a moment, and thrown away.
 *
 * (1) Versions are printed and never compared. Each answer is a flag that was granted, an opcode in
 *     the kernel's own table, or something done once whose effect was looked at.
 * (2) What is kept for the process is what the kernel can do; what a caller or the environment
 *     switches off is taken away from each copy.
 * (3) Only a complete answer is kept. A refusal may be over at the next call: another limit, a
 *     descriptor freed.
 * (4) A trial that cannot be set up (no socket to be had) fails the probe; a trial that was set up
 *     and does not show the effect answers no.
 *
 *     EMPTY -> FILLING   the first thread that has a complete answer    [keep]
 *     FILLING -> FULL    the same thread; from then on all copy         [keep]
 *
 * Whoever finds anything but FULL asks the kernel itself. Nobody waits for anybody, so a process
 * that forks meanwhile is none the worse.
 *
 * Threads: any, for everything.
 */
#include "io/caps.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "io/ring.h"
#include "mem/fault.h"
#include "mem/rv_atomic.h"

#define ARRAY_LEN(a) (sizeof(a) / sizeof *(a))

/* ---- the list -------------------------------------------------------------------------------- */

struct cap {
    const char *name;
    size_t in_caps, in_off;
    const char *what;
};

#define CAP(field) #field, offsetof(struct rv_caps, field), offsetof(struct rv_caps_off, field)

static const struct cap list[] = {
    { CAP(defer_taskrun), "completions wait until the worker asks for them" },
    { CAP(single_issuer), "one thread per ring, held to it by the kernel" },
    { CAP(taskrun_flag), "user space sees that completions are due" },
    { CAP(coop_taskrun), "completions without interrupts, in place of defer_taskrun" },
    { CAP(submit_all), "a bad request does not hold up those behind it" },
    { CAP(registered_ring_fd), "cheaper calls into the kernel" },
    { CAP(no_iowait), "parked workers do not show up as waiting for a disk" },
    { CAP(abs_timer), "parking until an absolute time" },
    { CAP(buf_ring), "buffers that the kernel picks from (required)" },
    { CAP(recv_multishot), "one request receives for the life of a connection (required)" },
    { CAP(recv_optlen), "the kernel bounds what one connection may take" },
    { CAP(accept_multishot), "one request accepts for the life of a listener" },
    { CAP(send_msg_ring), "waking a worker from any thread, without an eventfd" },
    { CAP(clone_buffers), "one registration of file buffers for all workers" },
    { CAP(min_timeout), "waiting for several completions, but not for long" },
    { CAP(recvsend_bundle), "several buffers in one completion" },
    { CAP(send_zc), "sending without a copy" },
    { CAP(waitid), "waiting for processes without a thread" },
    { CAP(ftruncate), "truncating without a thread" },
    { CAP(guard_install), "guard pages that cost no mapping" },
    { CAP(rwf_nosignal), "writing to a broken pipe without SIGPIPE" },
};

/* All of struct rv_caps_off is in the list, but for io_uring itself. */
_Static_assert((ARRAY_LEN(list) + 1) * sizeof(bool) == sizeof(struct rv_caps_off),
               "a capability is missing from the list");

static bool *caps_field(struct rv_caps *caps, const struct cap *c)
{
    return (bool *)((char *)caps + c->in_caps);
}

static bool *off_field(struct rv_caps_off *off, const struct cap *c)
{
    return (bool *)((char *)off + c->in_off);
}

/* ---- what is switched off -------------------------------------------------------------------- */

static bool same(const char *word, size_t len, const char *name)
{
    return strlen(name) == len && memcmp(word, name, len) == 0;
}

static void switch_off(struct rv_caps_off *off, const char *word, size_t len)
{
    if (same(word, len, "io_uring"))
        off->io_uring = true;
    if (same(word, len, "optlen"))
        off->recv_optlen = true;
    for (size_t i = 0; i < ARRAY_LEN(list); i++)
        if (same(word, len, list[i].name))
            *off_field(off, &list[i]) = true;
}

void rv_caps_off_env(struct rv_caps_off *off)
{
    const char *word = getenv("REEVE_CAPS_OFF");
    while (word && *word) {
        size_t len = strcspn(word, ", ");
        switch_off(off, word, len);
        word += len + (word[len] != '\0');
    }
}

/* Takes away what is switched off, and what does not work without it. */
static void apply_off(struct rv_caps *caps, const struct rv_caps_off *off)
{
    caps->off = *off;
    for (size_t i = 0; i < ARRAY_LEN(list); i++)
        if (*off_field(&caps->off, &list[i]))
            *caps_field(caps, &list[i]) = false;
    caps->coop_taskrun = caps->coop_taskrun && caps->taskrun_flag;
    caps->defer_taskrun = caps->defer_taskrun && caps->single_issuer && caps->taskrun_flag;
    caps->taskrun_flag = caps->defer_taskrun || caps->coop_taskrun;
    caps->recv_multishot = caps->recv_multishot && caps->buf_ring;
    caps->recv_optlen = caps->recv_optlen && caps->recv_multishot;
}

/* What we cannot do without and this kernel has not, in words; NULL: it has all. */
static const char *lacking(const struct rv_caps *caps)
{
    static const struct {
        uint32_t feature;
        const char *words;
    } needed[] = {
        { IORING_FEAT_NODROP, "keeping completions that the queue has no room for (5.5)" },
        { IORING_FEAT_SUBMIT_STABLE, "requests that are read when submitted (5.5)" },
        { IORING_FEAT_FAST_POLL, "waiting for sockets without a thread (5.7)" },
        { IORING_FEAT_EXT_ARG, "waiting with a timeout (5.11)" },
    };
    for (size_t i = 0; i < ARRAY_LEN(needed); i++)
        if (!(caps->features & needed[i].feature))
            return needed[i].words;
    if (!caps->buf_ring)
        return "rings of provided buffers (5.19)";
    return caps->recv_multishot ? NULL : "multishot receive (6.0)";
}

/* ---- trials ---------------------------------------------------------------------------------- */

/* A trial's completions come at once or, where a kernel does not do what it should, never. */
#define TRIAL_NS INT64_C(1000000000)

#define BUFS 16
#define BUF_BYTES 64
#define GROUP 1

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* Each trial has its own user_data, lest one that failed leaves a completion to the next. */
enum { TRIAL_OPTLEN = 1, TRIAL_MULTISHOT, TRIAL_ACCEPT, TRIAL_MSG };

/* The trial's next completion. 0; -ETIME: none came; -errno of the enter. */
static int next_cqe(struct rv_ring *r, uint64_t trial, struct rv_cqe *ret)
{
    int64_t until = now_ns() + TRIAL_NS;
    for (;;) {
        if (rv_ring_peek(r, ret, 1) == 1) {
            if (ret->user_data == trial)
                return 0;
            continue;
        }
        if (now_ns() >= until)
            return -ETIME;
        int e = rv_ring_enter(r, 1, 0, until);
        if (e < 0)
            return e;
    }
}

struct received {
    uint32_t bytes;
    bool more;    /* a completion announced others */
    int32_t last; /* res of the one that announced none; 1 if that never came */
};

/* Receives by multishot what lies in `fd` and is followed by the end. optlen 0: all of it. */
static int receive(struct rv_ring *r, int fd, uint64_t trial, uint32_t optlen, struct received *got)
{
    struct io_uring_sqe *sqe = rv_ring_sqe(r);
    io_uring_prep_recv(sqe, fd, NULL, 0, 0);
    sqe->ioprio = RV_URING_RECV_MULTISHOT;
    sqe->flags = IOSQE_BUFFER_SELECT;
    sqe->buf_group = GROUP;
    sqe->user_data = trial;
    if (optlen)
        rv_uring_sqe_optlen(sqe, optlen);
    *got = (struct received){ .last = 1 };
    for (;;) {
        struct rv_cqe cqe;
        int e = next_cqe(r, trial, &cqe);
        if (e < 0)
            return e == -ETIME ? 0 : e;
        got->bytes += cqe.res > 0 ? (uint32_t)cqe.res : 0;
        if (!(cqe.flags & RV_URING_CQE_F_MORE)) {
            got->last = cqe.res;
            return 0;
        }
        got->more = true;
    }
}

/* Sends four buffers' worth to a fresh socket pair, closes the sender, and receives. */
static int try_recv(struct rv_ring *r, uint64_t trial, uint32_t optlen, struct received *got)
{
    static const char bytes[4 * BUF_BYTES];
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    ssize_t sent = send(pair[0], bytes, sizeof bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
    close(pair[0]);
    int e = sent == (ssize_t)sizeof bytes ? receive(r, pair[1], trial, optlen, got) : -EIO;
    close(pair[1]);
    return e;
}

static int try_buffers(struct rv_ring *r, struct rv_caps *caps)
{
    static char memory[BUFS * BUF_BYTES]; /* only zeros are ever received into it */
    struct rv_bufring br;
    int e = rv_bufring_init(r, &br, BUFS, GROUP);
    if (e < 0)
        return e == -EINVAL ? 0 : e;
    for (unsigned i = 0; i < BUFS; i++)
        rv_bufring_add(&br, memory + i * BUF_BYTES, BUF_BYTES, (uint16_t)i);
    rv_bufring_publish(&br);
    caps->buf_ring = true;

    const uint32_t all = 4 * BUF_BYTES, half = 2 * BUF_BYTES;
    struct received got;
    e = try_recv(r, TRIAL_OPTLEN, half, &got);
    if (e == 0)
        caps->recv_optlen = got.more && got.bytes == half && got.last == BUF_BYTES;
    if (e == 0)
        e = try_recv(r, TRIAL_MULTISHOT, 0, &got);
    if (e == 0)
        caps->recv_multishot = got.more && got.bytes == all && got.last == 0;
    rv_bufring_finish(r, &br);
    return e;
}

/* One client of a multishot accept: says whether it was accepted and others may come. */
static int try_client(struct rv_ring *r, const struct sockaddr_un *addr, socklen_t len, bool *ret)
{
    struct rv_cqe cqe;
    int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (client < 0)
        return -errno;
    int e = connect(client, (const struct sockaddr *)addr, len) < 0 ? -EIO : 0;
    if (e == 0)
        e = next_cqe(r, TRIAL_ACCEPT, &cqe);
    close(client);
    *ret = e == 0 && cqe.res >= 0 && (cqe.flags & RV_URING_CQE_F_MORE);
    if (e == 0 && cqe.res >= 0)
        close(cqe.res);
    return e == -ETIME ? 0 : e;
}

/* Two clients of one multishot accept. The address is one that the kernel makes up. */
static int try_accept(struct rv_ring *r, struct rv_caps *caps)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    socklen_t len = sizeof(sa_family_t);
    int door = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (door < 0)
        return -errno;
    bool ok = bind(door, (struct sockaddr *)&addr, len) == 0 && listen(door, 2) == 0;
    len = sizeof addr;
    if (!ok || getsockname(door, (struct sockaddr *)&addr, &len) < 0) {
        close(door);
        return -EIO;
    }
    struct io_uring_sqe *sqe = rv_ring_sqe(r);
    io_uring_prep_accept(sqe, door, NULL, NULL, SOCK_CLOEXEC);
    sqe->ioprio = RV_URING_ACCEPT_MULTISHOT;
    sqe->user_data = TRIAL_ACCEPT;
    int e = try_client(r, &addr, len, &caps->accept_multishot);
    if (e == 0 && caps->accept_multishot)
        e = try_client(r, &addr, len, &caps->accept_multishot);
    close(door);
    return e;
}

static int try_msg(struct rv_ring *r, struct rv_caps *caps)
{
    struct rv_cqe cqe;
    caps->send_msg_ring = true;
    int e = rv_ring_msg(caps, r->fd, TRIAL_MSG);
    caps->send_msg_ring = e == 0;
    if (e < 0)
        return e == -ENOMEM ? e : 0;
    e = next_cqe(r, TRIAL_MSG, &cqe);
    caps->send_msg_ring = e == 0;
    return e == -ETIME ? 0 : e;
}

static int try_opcodes(struct rv_ring *r, struct rv_caps *caps)
{
    size_t bytes = sizeof(struct io_uring_probe) + RV_CAPS_OPS * sizeof(struct io_uring_probe_op);
    if (RV_FAULT("caps.probe"))
        return -ENOMEM;
    struct io_uring_probe *probe = calloc(1, bytes);
    if (!probe)
        return -ENOMEM;
    int e = rv_ring_register(r, IORING_REGISTER_PROBE, probe, RV_CAPS_OPS);
    for (unsigned i = 0; e >= 0 && i < probe->ops_len; i++)
        if (probe->ops[i].flags & IO_URING_OP_SUPPORTED)
            caps->ops[i / 64] |= UINT64_C(1) << (i % 64);
    free(probe);
    caps->send_zc = rv_caps_op(caps, IORING_OP_SEND_ZC);
    caps->waitid = rv_caps_op(caps, RV_URING_OP_WAITID);
    caps->ftruncate = rv_caps_op(caps, RV_URING_OP_FTRUNCATE);
    return e;
}

/* A second ring: the flags that the first one had no use for, and a clone of its buffers. */
static int try_second(struct rv_ring *first, struct rv_caps *caps)
{
    static char page[4096];
    const unsigned want = IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
    struct rv_ring second;
    int e = rv_ring_init(&second, 1, 0, want, NULL);
    if (e < 0)
        return e;
    caps->coop_taskrun = second.flags & IORING_SETUP_COOP_TASKRUN;
    struct iovec one = { page, sizeof page };
    struct rv_uring_clone_buffers clone = { .src_fd = (uint32_t)first->fd };
    if (rv_ring_register(first, IORING_REGISTER_BUFFERS, &one, 1) == 0)
        caps->clone_buffers =
            rv_ring_register(&second, RV_URING_REGISTER_CLONE_BUFFERS, &clone, 1) == 0;
    rv_ring_finish(&second);
    return 0;
}

/* A page behind a guard cannot be read: write(2) from it fails. */
static bool try_guard(int pipe_in)
{
    size_t bytes = (size_t)sysconf(_SC_PAGESIZE);
    void *page = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return false;
    bool works = madvise(page, bytes, RV_MADV_GUARD_INSTALL) == 0 && write(pipe_in, page, 1) < 0 &&
                 errno == EFAULT;
    munmap(page, bytes);
    return works;
}

static int try_rest(struct rv_caps *caps)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    struct iovec one = { (char[1]){ 0 }, 1 };
    caps->rwf_nosignal = pwritev2(ends[1], &one, 1, -1, RV_RWF_NOSIGNAL) == 1;
    caps->guard_install = try_guard(ends[1]);
    close(ends[0]);
    close(ends[1]);
    return 0;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static void note_flags(const struct rv_ring *r, struct rv_caps *caps)
{
    caps->features = r->features;
    caps->defer_taskrun = r->flags & IORING_SETUP_DEFER_TASKRUN;
    caps->single_issuer = r->flags & IORING_SETUP_SINGLE_ISSUER;
    caps->taskrun_flag = r->flags & IORING_SETUP_TASKRUN_FLAG;
    caps->submit_all = r->flags & IORING_SETUP_SUBMIT_ALL;
    caps->registered_ring_fd = r->enter_flags & IORING_ENTER_REGISTERED_RING;
    caps->no_iowait = r->features & RV_URING_FEAT_NO_IOWAIT;
    caps->min_timeout = r->features & RV_URING_FEAT_MIN_TIMEOUT;
    caps->recvsend_bundle = r->features & RV_URING_FEAT_RECVSEND_BUNDLE;
}

static int ask_ring(struct rv_ring *r, struct rv_caps *caps, const char **ret_call)
{
    *ret_call = "io_uring_register";
    int e = rv_ring_enable(r);
    if (e < 0)
        return e;
    note_flags(r, caps);
    e = try_opcodes(r, caps);
    if (e < 0)
        return e;
    *ret_call = "io_uring_enter";
    e = rv_ring_enter(r, 1, 0, 1); /* until the first nanosecond after boot: refused, or over */
    if (e < 0)
        return e;
    caps->abs_timer = r->abs_timer;
    if ((e = try_msg(r, caps)) < 0 || (e = try_buffers(r, caps)) < 0 ||
        (e = try_accept(r, caps)) < 0)
        return e;
    *ret_call = "io_uring_setup";
    return try_second(r, caps);
}

/* Asks the kernel. On failure *ret_call is the system call that failed. */
static int ask(struct rv_caps *ret, const char **ret_call)
{
    struct rv_caps caps = { 0 };
    struct utsname name;
    struct rv_ring r;
    uname(&name);
    snprintf(caps.release, sizeof caps.release, "%s", name.release);
    *ret_call = "io_uring_setup";
    int e = rv_ring_init(&r, 16, 64, RV_RING_FLAGS, NULL);
    if (e == 0) {
        e = ask_ring(&r, &caps, ret_call);
        rv_ring_finish(&r);
    }
    if (e == 0) {
        *ret_call = "pipe2";
        e = try_rest(&caps);
    }
    if (e == 0)
        *ret = caps;
    return e == -EINVAL ? -EOPNOTSUPP : e;
}

enum { EMPTY, FILLING, FULL };

static struct {
    RV_ATOMIC(uint32_t) state;
    struct rv_caps caps; /* written while FILLING, by one thread; read when FULL */
} kept;

static void keep(const struct rv_caps *caps)
{
    uint32_t empty = EMPTY;
    if (!rv_cas_relaxed(&kept.state, &empty, FILLING))
        return;
    kept.caps = *caps;
    rv_store_release(&kept.state, FULL); /* publishes kept.caps; pairs with the load in recall() */
}

static bool recall(struct rv_caps *ret)
{
    if (rv_load_acquire(&kept.state) != FULL) /* pairs with the store in keep() */
        return false;
    *ret = kept.caps;
    return true;
}

int rv_caps_probe(struct rv_caps *ret, const struct rv_caps_off *off)
{
    struct rv_caps_off all = off ? *off : (struct rv_caps_off){ 0 };
    struct rv_caps caps;
    const char *call;
    rv_caps_off_env(&all);
    if (all.io_uring)
        return -ENOSYS;
    if (!recall(&caps)) {
        int e = ask(&caps, &call);
        if (e < 0)
            return e;
        keep(&caps);
    }
    apply_off(&caps, &all);
    if (lacking(&caps))
        return -EOPNOTSUPP;
    *ret = caps;
    return 0;
}

/* ---- for people ------------------------------------------------------------------------------ */

struct text {
    char *at;
    size_t len, cap;
};

__attribute__((format(printf, 2, 3))) static void put(struct text *t, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(t->at + t->len, t->cap - t->len, fmt, args);
    va_end(args);
    size_t room = t->cap - t->len - 1;
    t->len += n < 0 ? 0 : (size_t)n < room ? (size_t)n : room;
}

int rv_caps_write(const struct rv_caps *caps, int fd)
{
    char bytes[4096];
    struct text t = { bytes, 0, sizeof bytes };
    struct rv_caps copy = *caps;
    put(&t, "io_uring of Linux %s, features 0x%x\n", caps->release, caps->features);
    for (size_t i = 0; i < ARRAY_LEN(list); i++) {
        bool off = *off_field(&copy.off, &list[i]), on = *caps_field(&copy, &list[i]);
        put(&t, "  %-18s  %-3s  %s\n", list[i].name, off ? "off" : on ? "yes" : "no", list[i].what);
    }
    for (size_t done = 0; done < t.len;) {
        ssize_t n = write(fd, bytes + done, t.len - done);
        if (n < 0 && errno != EINTR)
            return -errno;
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

#define ALLOW "io_uring_setup, io_uring_enter and io_uring_register"

static void say_eperm(const struct rv_uring_facts *f, struct text *t)
{
    if (f->disabled == 2)
        put(t, "io_uring is switched off on this machine by the sysctl kernel.io_uring_disabled = "
               "2; as root, run `sysctl -w kernel.io_uring_disabled=0`.");
    else if (f->disabled == 1)
        put(t,
            "io_uring is kept for privileged processes by the sysctl kernel.io_uring_disabled = "
            "1; as root, run `sysctl -w kernel.io_uring_disabled=0`, or put this user into the "
            "group whose number the sysctl kernel.io_uring_group holds (now %d).",
            f->group);
    else
        put(t,
            "a seccomp profile forbids %s, as the default one of Docker does; run the container "
            "with a profile that allows " ALLOW ", or with --security-opt seccomp=unconfined.",
            f->call);
}

static void say_enosys(const struct rv_uring_facts *f, struct text *t)
{
    if (f->seccomp)
        put(t,
            "%s does not exist for this process, which runs under a seccomp filter or in a "
            "sandbox; let that allow " ALLOW ".",
            f->call);
    else
        put(t,
            "this kernel (Linux %s) has no io_uring; run one with CONFIG_IO_URING, 6.1 or "
            "newer.",
            f->release);
}

/* Memory, descriptors, files: what ran out, and the limit on it. */
static void say_limit(int error, const struct rv_uring_facts *f, struct text *t)
{
    uint64_t limit = error == -ENOMEM ? f->memlock_kib : f->nofile;
    char now[24] = "unlimited";
    if (limit != UINT64_MAX)
        snprintf(now, sizeof now, "%" PRIu64, limit);
    if (error == -ENOMEM)
        put(t,
            "there is no memory for an io_uring; raise the limit on locked memory (`ulimit -l`, "
            "now %s, in KiB; LimitMEMLOCK= in a systemd unit), or free some memory.",
            now);
    else if (error == -EMFILE)
        put(t,
            "this process has no file descriptor left for an io_uring; raise the limit "
            "(`ulimit -n`, now %s; LimitNOFILE= in a systemd unit).",
            now);
    else
        put(t, "this machine has no open file left for an io_uring; raise the sysctl "
               "fs.file-max.");
}

void rv_uring_sentence(int error, const struct rv_uring_facts *f, char *sentence, size_t cap)
{
    struct text t = { sentence, 0, cap };
    if (cap == 0)
        return;
    sentence[0] = '\0';
    if (error == -EPERM)
        say_eperm(f, &t);
    else if (error == -ENOSYS)
        say_enosys(f, &t);
    else if (error == -EACCES)
        put(&t, "a security module such as SELinux denies %s; let it grant this program io_uring.",
            f->call);
    else if (error == -ENOMEM || error == -EMFILE || error == -ENFILE)
        say_limit(error, f, &t);
    else if (error == -EOPNOTSUPP)
        put(&t, "the io_uring of this kernel (Linux %s) lacks %s; run Linux 6.1 or newer.",
            f->release, f->lacks ? f->lacks : "the flags that a ring is set up with");
    else
        put(&t,
            "io_uring does not work here: %s failed with error %d (%s); run Linux 6.1 or newer "
            "and allow " ALLOW ".",
            f->call, -error, strerrordesc_np(-error));
}

/* The number behind `key` in a small file of /proc; `otherwise` if there is none. */
static int proc_number(const char *path, const char *key, int otherwise)
{
    char bytes[4096];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return otherwise;
    ssize_t n = read(fd, bytes, sizeof bytes - 1);
    close(fd);
    bytes[n > 0 ? n : 0] = '\0';
    const char *at = n > 0 ? strstr(bytes, key) : NULL;
    return at ? (int)strtol(at + strlen(key), NULL, 10) : otherwise;
}

static uint64_t limit_of(int resource, uint64_t unit)
{
    struct rlimit l;
    if (getrlimit(resource, &l) < 0 || l.rlim_cur == RLIM_INFINITY)
        return UINT64_MAX;
    return l.rlim_cur / unit;
}

static void explain(int error, const char *call, const char *lacks, char *sentence, size_t cap)
{
    struct utsname name;
    uname(&name);
    struct rv_uring_facts facts = {
        .release = name.release,
        .call = call,
        .lacks = lacks,
        .disabled = proc_number("/proc/sys/kernel/io_uring_disabled", "", -1),
        .group = proc_number("/proc/sys/kernel/io_uring_group", "", -1),
        .seccomp = proc_number("/proc/thread-self/status", "\nSeccomp:", 0) > 0,
        .memlock_kib = limit_of(RLIMIT_MEMLOCK, 1024),
        .nofile = limit_of(RLIMIT_NOFILE, 1),
    };
    rv_uring_sentence(error, &facts, sentence, cap);
}

int rv_uring_refused(char *sentence, size_t cap)
{
    struct rv_caps_off off = { 0 };
    struct rv_caps caps;
    const char *call, *lacks = NULL;
    rv_caps_off_env(&off);
    if (off.io_uring) {
        snprintf(sentence, cap,
                 "io_uring is switched off by the environment; take it out of the "
                 "variable REEVE_CAPS_OFF.");
        return -ENOSYS;
    }
    int e = ask(&caps, &call);
    if (e == 0) {
        apply_off(&caps, &off);
        lacks = lacking(&caps);
        e = lacks ? -EOPNOTSUPP : 0;
    }
    if (e < 0)
        explain(e, call, lacks, sentence, cap);
    return e;
}
