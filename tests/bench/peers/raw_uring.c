/* SPDX-License-Identifier: MIT */
/*
 * raw_uring.c -- the ceiling: an echo server with nothing between it and io_uring.
 *
 * One multishot accept, one multishot receive per connection into a ring of provided buffers, a
 * send from the very buffer that was received, one io_uring_enter per pass that submits, reaps and
 * waits. It has no timeouts, no fairness and no limits, so it is what a runtime on io_uring costs
 * when everything but the kernel is free.
 *
 *     raw_uring HOST:PORT [--cpu LIST] [--threads N]
 *
 * SIGTERM ends it; it then prints "enters N requests M", where N counts calls of io_uring_enter.
 *
 * (1) A connection has at most one send in flight, so bytes stay in order. What it has received at
 *     the end of a pass goes out in one send, up to BATCH buffers: a large message is not sent in
 *     pieces that wait for each other.
 * (2) A descriptor is closed only when neither a receive nor a send of its is in flight: its number
 *     cannot be reused under a completion that is still to come.
 * (3) A buffer is either the kernel's (free) or in exactly one queue; the first `in_flight` of a
 *     queue are being sent.
 * (4) A receive that found no buffer waits in `starved` until an eighth of them is free: one that
 *     is armed on an empty ring fails at once, so arming it earlier would spin.
 *
 * With --threads N the first thread accepts and deals connections round robin, by messages to the
 * other rings.
 * Threads: a row of `conns` belongs to the thread that was dealt its descriptor, everything else to
 * its own thread.
 */
#include "raw.h"

#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>

enum { SQ = 512, CQ = 4096, BUFS = 1024, BUF_BYTES = 16384, BGID = 1, BATCH = 8 };
enum { NONE = 0xffff };
enum op { OP_ACCEPT = 1, OP_RECV, OP_SEND, OP_RETRY, OP_SIGNAL, OP_ADOPT, OP_STOP };

struct conn {
    uint16_t head, tail; /* received buffers; NONE: empty */
    uint8_t in_flight;   /* so many of them, from the head, are being sent */
    bool receiving;      /* a multishot receive is armed, or waits in starved */
    bool broken;         /* the peer is gone: drop what is queued */
    bool due;            /* is in the list of those that send at the end of the pass */
    uint32_t bytes;      /* in flight */
    int due_next, starved_next; /* descriptors, -1: the last one */
};

/* A send of several buffers; the rows of connections that never need one are never touched. */
struct batch {
    struct msghdr msg;
    struct iovec iov[BATCH];
};

struct server {
    struct io_uring ring;
    struct io_uring_buf_ring *br;
    unsigned char *bufs;
    unsigned added;      /* buffers put into br, not yet published */
    unsigned free_n;     /* buffers the kernel holds */
    int due, due_last;   /* list of descriptors in the order of arrival, -1: empty */
    int starved;         /* another */
    bool stop;
    uint64_t enters, requests;
    unsigned dealt;
    uint16_t next[BUFS];
    uint32_t len[BUFS];
    int index;
    pthread_t thread;
};

static struct raw_opts opts;
static struct server *servers;
static struct conn *conns;
static struct batch *batches;
static size_t conns_n;
static int door, signals;
static pthread_barrier_t rings_ready;

static uint64_t tag(enum op op, unsigned bid, int fd)
{
    return (uint64_t)op << 56 | (uint64_t)bid << 32 | (uint32_t)fd;
}

static struct io_uring_sqe *sqe_get(struct server *s)
{
    struct io_uring_sqe *sqe;
    while (!(sqe = io_uring_get_sqe(&s->ring))) {
        s->enters++;
        int r = io_uring_submit(&s->ring);
        if (r < 0 && r != -EINTR && r != -EAGAIN && r != -EBUSY)
            raw_die("io_uring_enter: %s", strerror(-r));
    }
    return sqe;
}

static void accept_arm(struct server *s)
{
    struct io_uring_sqe *sqe = sqe_get(s);
    io_uring_prep_multishot_accept(sqe, door, NULL, NULL, SOCK_CLOEXEC);
    io_uring_sqe_set_data64(sqe, tag(OP_ACCEPT, 0, door));
}

/* Out of descriptors: arming at once would spin. */
static void accept_later(struct server *s)
{
    static struct __kernel_timespec retry = { .tv_nsec = 100000000 };
    struct io_uring_sqe *sqe = sqe_get(s);
    io_uring_prep_timeout(sqe, &retry, 0, 0);
    io_uring_sqe_set_data64(sqe, tag(OP_RETRY, 0, 0));
}

static void recv_arm(struct server *s, int fd)
{
    struct io_uring_sqe *sqe = sqe_get(s);
    io_uring_prep_recv_multishot(sqe, fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = BGID;
    io_uring_sqe_set_data64(sqe, tag(OP_RECV, 0, fd));
    conns[fd].receiving = true;
}

static unsigned char *buf_at(struct server *s, unsigned bid)
{
    return s->bufs + (size_t)bid * BUF_BYTES;
}

/* Puts a buffer back; the pass publishes all of them with one store. */
static void buf_return(struct server *s, unsigned bid)
{
    io_uring_buf_ring_add(s->br, buf_at(s, bid), BUF_BYTES, (unsigned short)bid,
                          io_uring_buf_ring_mask(BUFS), (int)s->added++);
    s->free_n++;
}

/* The connection has something to send and nothing in flight: its turn comes in pass_end(). */
static void send_due(struct server *s, int fd)
{
    struct conn *c = &conns[fd];
    if (c->due || c->in_flight)
        return;
    c->due = true;
    c->due_next = -1;
    if (s->due < 0)
        s->due = fd;
    else
        conns[s->due_last].due_next = fd;
    s->due_last = fd;
}

static void send_queue(struct server *s, int fd)
{
    struct conn *c = &conns[fd];
    struct batch *b = &batches[fd];
    unsigned bid = c->head, n = 1;
    struct io_uring_sqe *sqe = sqe_get(s);
    c->bytes = s->len[bid];
    if (s->next[bid] == NONE) {
        io_uring_prep_send(sqe, fd, buf_at(s, bid), c->bytes, MSG_WAITALL | MSG_NOSIGNAL);
    } else {
        b->iov[0] = (struct iovec){ buf_at(s, bid), s->len[bid] };
        for (; n < BATCH && (bid = s->next[bid]) != NONE; n++) {
            b->iov[n] = (struct iovec){ buf_at(s, bid), s->len[bid] };
            c->bytes += s->len[bid];
        }
        b->msg = (struct msghdr){ .msg_iov = b->iov, .msg_iovlen = n };
        io_uring_prep_sendmsg(sqe, fd, &b->msg, MSG_WAITALL | MSG_NOSIGNAL);
    }
    c->in_flight = (uint8_t)n;
    io_uring_sqe_set_data64(sqe, tag(OP_SEND, 0, fd));
}

/* Closes once nothing is in flight (2). */
static void close_if_done(int fd)
{
    struct conn *c = &conns[fd];
    if (c->receiving || c->head != NONE)
        return;
    close(fd);
}

static void adopt(struct server *s, int fd)
{
    if ((size_t)fd >= conns_n)
        raw_die("descriptor %d is beyond the table of %zu", fd, conns_n);
    conns[fd] = (struct conn){ .head = NONE, .tail = NONE, .due_next = -1, .starved_next = -1 };
    recv_arm(s, fd);
}

static void tell(struct server *s, struct server *other, enum op op, int fd)
{
    struct io_uring_sqe *sqe = sqe_get(s);
    io_uring_prep_msg_ring(sqe, other->ring.ring_fd, (unsigned)fd, tag(op, 0, fd), 0);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    io_uring_sqe_set_data64(sqe, tag(OP_ADOPT, 1, fd)); /* seen only when it failed */
}

static void on_accept(struct server *s, const struct io_uring_cqe *cqe)
{
    if (cqe->res >= 0) {
        struct server *to = &servers[s->dealt++ % (unsigned)opts.threads];
        if (to == s)
            adopt(s, cqe->res);
        else
            tell(s, to, OP_ADOPT, cqe->res);
    } else if (cqe->res != -ECONNABORTED && cqe->res != -EMFILE && cqe->res != -ENFILE &&
               cqe->res != -ENOBUFS && cqe->res != -ENOMEM) {
        raw_die("accept: %s", strerror(-cqe->res));
    }
    if (cqe->flags & IORING_CQE_F_MORE)
        return;
    if (cqe->res >= 0 || cqe->res == -ECONNABORTED)
        accept_arm(s);
    else
        accept_later(s);
}

static void on_recv(struct server *s, int fd, const struct io_uring_cqe *cqe)
{
    struct conn *c = &conns[fd];
    if (cqe->flags & IORING_CQE_F_BUFFER) {
        unsigned bid = cqe->flags >> IORING_CQE_BUFFER_SHIFT;
        s->free_n--;
        if (cqe->res <= 0 || c->broken) {
            buf_return(s, bid);
        } else {
            s->requests++;
            s->len[bid] = (uint32_t)cqe->res;
            s->next[bid] = NONE;
            if (c->head == NONE)
                c->head = (uint16_t)bid;
            else
                s->next[c->tail] = (uint16_t)bid;
            c->tail = (uint16_t)bid;
            send_due(s, fd);
        }
    }
    if (cqe->flags & IORING_CQE_F_MORE)
        return;
    bool again = cqe->res > 0 || cqe->res == -EAGAIN || cqe->res == -EINTR;
    if (again && !c->broken) {
        recv_arm(s, fd);
    } else if (cqe->res == -ENOBUFS && !c->broken) {
        c->starved_next = s->starved; /* still counts as receiving, see (2) and (4) */
        s->starved = fd;
    } else {
        c->receiving = false;
        close_if_done(fd);
    }
}

static void on_send(struct server *s, int fd, int res)
{
    struct conn *c = &conns[fd];
    if (res != (int)c->bytes && !c->broken) {
        c->broken = true;
        shutdown(fd, SHUT_RDWR); /* ends the receive */
    }
    for (; c->head != NONE && (c->in_flight || c->broken); c->in_flight -= c->in_flight != 0) {
        unsigned bid = c->head;
        c->head = s->next[bid];
        buf_return(s, bid);
    }
    if (c->head != NONE)
        send_due(s, fd);
    else
        close_if_done(fd);
}

static void on_cqe(struct server *s, const struct io_uring_cqe *cqe)
{
    uint64_t data = cqe->user_data;
    int fd = (int)(uint32_t)data;
    switch ((enum op)(data >> 56)) {
    case OP_RECV:
        on_recv(s, fd, cqe);
        break;
    case OP_SEND:
        on_send(s, fd, cqe->res);
        break;
    case OP_ACCEPT:
        on_accept(s, cqe);
        break;
    case OP_RETRY:
        accept_arm(s);
        break;
    case OP_ADOPT:
        if (data >> 32 & 1)
            raw_die("message to another ring: %s", strerror(-cqe->res));
        adopt(s, fd);
        break;
    case OP_SIGNAL:
        for (int i = 1; i < opts.threads; i++)
            tell(s, &servers[i], OP_STOP, 0);
        s->stop = true;
        break;
    case OP_STOP:
        s->stop = true;
        break;
    }
}

/* One pass is behind us: send what came in, publish the buffers, let in who waited for one. */
static void pass_end(struct server *s)
{
    while (s->due >= 0) {
        int fd = s->due;
        s->due = conns[fd].due_next;
        conns[fd].due = false;
        send_queue(s, fd);
    }
    if (s->added) {
        io_uring_buf_ring_advance(s->br, (int)s->added);
        s->added = 0;
    }
    while (s->starved >= 0 && s->free_n >= BUFS / 8) {
        int fd = s->starved;
        s->starved = conns[fd].starved_next;
        if (conns[fd].broken) {
            conns[fd].receiving = false;
            close_if_done(fd);
        } else {
            recv_arm(s, fd);
        }
    }
}

static void ring_open(struct server *s)
{
    struct io_uring_params p = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                 IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
        .cq_entries = CQ,
    };
    int r = io_uring_queue_init_params(SQ, &s->ring, &p);
    if (r < 0)
        raw_die("io_uring_setup: %s", strerror(-r));
    r = io_uring_register_ring_fd(&s->ring);
    if (r < 0)
        raw_die("io_uring_register_ring_fd: %s", strerror(-r));
    s->br = mmap(NULL, BUFS * sizeof(struct io_uring_buf), PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    s->bufs = mmap(NULL, (size_t)BUFS * BUF_BYTES, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (s->br == MAP_FAILED || s->bufs == MAP_FAILED)
        raw_die("mmap: %s", strerror(errno));
    struct io_uring_buf_reg reg = {
        .ring_addr = (uintptr_t)s->br, .ring_entries = BUFS, .bgid = BGID,
    };
    r = io_uring_register_buf_ring(&s->ring, &reg, 0);
    if (r < 0)
        raw_die("io_uring_register_buf_ring: %s", strerror(-r));
    io_uring_buf_ring_init(s->br);
    s->due = s->starved = -1;
    for (unsigned bid = 0; bid < BUFS; bid++)
        buf_return(s, bid);
    pass_end(s);
}

static void *serve(void *arg)
{
    struct server *s = arg;
    raw_pin(&opts, s->index);
    ring_open(s);
    pthread_barrier_wait(&rings_ready);
    if (s->index == 0) {
        accept_arm(s);
        struct io_uring_sqe *sqe = sqe_get(s);
        io_uring_prep_poll_add(sqe, signals, POLLIN);
        io_uring_sqe_set_data64(sqe, tag(OP_SIGNAL, 0, 0));
        raw_announce(door);
    }
    while (!s->stop) {
        s->enters++;
        int r = io_uring_submit_and_wait(&s->ring, 1);
        if (r < 0 && r != -EINTR && r != -EAGAIN && r != -EBUSY)
            raw_die("io_uring_enter: %s", strerror(-r));
        struct io_uring_cqe *cqe;
        unsigned head, n = 0;
        io_uring_for_each_cqe(&s->ring, head, cqe) {
            on_cqe(s, cqe);
            n++;
        }
        io_uring_cq_advance(&s->ring, n);
        pass_end(s);
    }
    io_uring_submit(&s->ring); /* the stop messages, if it is ours to send them */
    return NULL;
}

int main(int argc, char **argv)
{
    opts = raw_parse(argc, argv);
    conns_n = raw_fds_max();
    conns = calloc(conns_n, sizeof *conns);
    batches = calloc(conns_n, sizeof *batches);
    servers = calloc((size_t)opts.threads, sizeof *servers);
    if (!conns || !batches || !servers)
        raw_die("out of memory");
    signals = raw_signals();
    door = raw_listen(opts.addr);
    pthread_barrier_init(&rings_ready, NULL, (unsigned)opts.threads);
    for (int i = 0; i < opts.threads; i++)
        servers[i].index = i;
    for (int i = 1; i < opts.threads; i++)
        if (pthread_create(&servers[i].thread, NULL, serve, &servers[i]))
            raw_die("cannot start thread %d", i);
    serve(&servers[0]); /* a process of one thread: its descriptors are looked up without atomics */
    uint64_t enters = servers[0].enters, requests = servers[0].requests;
    for (int i = 1; i < opts.threads; i++) {
        pthread_join(servers[i].thread, NULL);
        enters += servers[i].enters;
        requests += servers[i].requests;
    }
    printf("enters %llu requests %llu\n", (unsigned long long)enters, (unsigned long long)requests);
    return 0;
}
