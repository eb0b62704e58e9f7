/* SPDX-License-Identifier: MIT */
/*
 * days_test.c -- bad days on a real ring: every operation of every call fails in every way,
 * operations are cancelled while they complete and closed while they run, a byte comes at a time.
 */
#define CHECK_MAIN
#include "tests/io/days.h"

#include <stdatomic.h>

#include "io/ring.h"

/* ---- the engine of days.h -------------------------------------------------------------------- */

/* There is room for all that is said here, on both sides. */
static void make_streams(struct day *d)
{
    d->p = pair_make();
    struct sockaddr_in in = address_of(d->p.listener);
    snprintf(d->at, sizeof d->at, "127.0.0.1:%d", ntohs(in.sin_port));
    d->foreign = d->p.peer;
    d->foreign_peer = d->p.fd;
}

static void plain_say(struct day *d, int fd)
{
    size_t len = strlen(d->text);
    for (; d->said < d->due; d->said += len)
        CHECK_EQ(send(fd, d->text, len, MSG_NOSIGNAL), (ssize_t)len);
}

static void plain_listen(struct day *d)
{
    d->hearing = true;
}

static void plain_heard(struct day *d, size_t n)
{
    CHECK(d->hearing);
    for (size_t want = d->heard_n + n; d->heard_n < want;) {
        ssize_t got = recv(d->p.peer, d->heard + d->heard_n, sizeof d->heard - d->heard_n,
                           MSG_DONTWAIT);
        if (got < 0)
            CHECK_EQ(reeve_sleep(0), 0); /* a busy kernel takes its time */
        else
            d->heard_n += (size_t)got;
    }
}

static void plain_connect(struct day *d)
{
    keep(d, peer_connect(d->p.listener));
}

static int listen_everywhere(uint16_t *ret_port)
{
    int fd = (int)CHECK_OK(reeve_listen("0.0.0.0:0", 0));
    *ret_port = ntohs(address_of(fd).sin_port);
    return fd;
}

/* ---- completions that say what they like ----------------------------------------------------- */

#define NOP_INJECT_RESULT 1u /* sqe->nop_flags, Linux 6.10: the result is sqe->len */

/* One of the next operations is not made, and completes with this result. */
static struct {
    struct rv_io_driver driver; /* the real one, but for `queue` and `send_now` */
    const struct rv_io_driver *real;
    const struct row *row;
    bool armed;
    unsigned skip;
    int result;
    struct answered answered;
    struct rv_req nop; /* what is done in its place */
} inject;

/* Notes which operation it is; whether it may say that. */
static bool is_to_be(const struct rv_op *op)
{
    struct answered *a = &inject.answered;
    if (!inject.armed || op->kind == RV_OPK_NUDGE || inject.skip-- > 0)
        return false;
    inject.armed = false;
    a->code = op->code;
    a->opcode = op->code == RV_OP_REQUEST ? ((const struct rv_req *)op->addr)->opcode : 0;
    a->met = may_say(inject.row, *a, inject.result);
    return a->met;
}

/* The real one writes the request down before it returns, unless its queue is full. */
static void queue(struct rv_io_worker *iw, struct rv_op *op)
{
    if (!is_to_be(op)) {
        inject.real->queue(iw, op);
        return;
    }
    uint8_t code = op->code;
    void *addr = op->addr;
    op->code = RV_OP_REQUEST;
    op->addr = &inject.nop;
    inject.real->queue(iw, op);
    op->code = code;
    op->addr = addr;
}

static void tell(unsigned skip, int result)
{
    struct rv_io_worker *iw = my_io();
    inject.real = iw->driver;
    inject.driver = *iw->driver;
    inject.driver.queue = queue;
    inject.driver.send_now = NULL;
    iw->driver = &inject.driver;
    inject.nop = (struct rv_req){ .opcode = IORING_OP_NOP,
                                  .fd = -1,
                                  .len = (uint32_t)result,
                                  .op_flags = NOP_INJECT_RESULT };
    inject.skip = skip;
    inject.result = result;
    inject.answered = (struct answered){ 0 };
    inject.armed = true;
}

static struct answered told(void)
{
    my_io()->driver = inject.real;
    inject.armed = false;
    return inject.answered;
}

static int walks_the_table(void *arg)
{
    (void)arg;
    for (size_t i = 0; i < ROWS; i++) {
        unsigned skip = 0, met = 1;
        for (inject.row = &rows[i]; met > 0; skip++) {
            met = 0;
            for (int k = 0; k < RESULTS; k++)
                met += day_cell(inject.row, results[k], skip).met;
            CHECK_LT(skip, DAY_OPS);
        }
        if ((skip == 1) != !!(rows[i].how & POOLED))
            check_failed(__FILE__, __LINE__, "%s met %u operations", rows[i].name, skip - 1);
    }
    return 0;
}

static bool can_inject(void)
{
    struct rv_ring ring;
    if (rv_ring_init(&ring, 8, 16, 0, NULL) < 0)
        return false;
    struct io_uring_sqe *sqe = rv_ring_sqe(&ring);
    sqe->opcode = IORING_OP_NOP;
    sqe->fd = -1;
    sqe->len = (uint32_t)-EIO;
    sqe->rw_flags = NOP_INJECT_RESULT;
    struct rv_cqe cqe;
    CHECK_OK(rv_ring_enter(&ring, 1, 0, RV_RING_FOREVER));
    bool can = rv_ring_peek(&ring, &cqe, 1) == 1 && cqe.res == -EIO;
    rv_ring_finish(&ring);
    return can;
}

TEST(every_operation_may_fail_in_every_way)
{
    uring_or_skip();
    day_begin();
    if (!can_inject())
        SKIP("this kernel does not complete operations as it is told (Linux 6.10)");
    RUN(walks_the_table, .workers = 1);
}

/* ---- completions beyond the queue ------------------------------------------------------------ */

TEST(of_a_hundred_thousand_completions_into_sixteen_places_none_is_lost_and_none_comes_twice)
{
    enum { OPS = 100000, BATCH = 100 };
    static unsigned char seen[OPS];
    struct rv_ring ring;
    uring_or_skip();
    CHECK_OK(rv_ring_init(&ring, 8, 16, IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP, NULL));
    uint32_t made = 0, got = 0;
    bool overflowed = false;
    while (got < OPS) {
        for (uint32_t i = 0; i < BATCH && made < OPS && made - got < 4 * BATCH; i++) {
            struct io_uring_sqe *sqe = rv_ring_sqe(&ring);
            if (!sqe) {
                int r = rv_ring_enter(&ring, 0, 0, RV_RING_NOW);
                CHECK(r >= 0 || r == -EBUSY);
                if (r < 0)
                    break;
                continue;
            }
            sqe->opcode = IORING_OP_NOP;
            sqe->fd = -1;
            sqe->user_data = made++;
        }
        int r = rv_ring_enter(&ring, made > got, 0, RV_RING_FOREVER);
        CHECK(r >= 0 || r == -EBUSY);
        overflowed |= rv_ring_overflowed(&ring);
        struct rv_cqe cqe[7];
        for (unsigned i = 0, n = rv_ring_peek(&ring, cqe, 7); i < n; i++, got++) {
            CHECK_LT(cqe[i].user_data, made);
            CHECK_EQ(seen[cqe[i].user_data]++, 0);
        }
    }
    CHECK(overflowed);
    rv_ring_finish(&ring);
}

/* ---- cancelled while it completes ------------------------------------------------------------ */

enum { CANARY = 0x5a, ROUND = 32 };

struct race {
    int ends[2];
    uint32_t rounds, completed, cancelled, timed_out;
};

struct racer {
    struct race *race;
    unsigned char before[32], buf[32], after[32];
    ssize_t result;
};

static int reads_with_canaries(void *arg)
{
    struct racer *me = arg;
    me->result = reeve_read(me->race->ends[0], me->buf, sizeof me->buf, LONG);
    return 0;
}

static void check_canaries(const struct racer *me)
{
    for (size_t i = 0; i < sizeof me->before; i++) {
        CHECK_EQ(me->before[i], CANARY);
        CHECK_EQ(me->after[i], CANARY);
    }
    for (size_t i = me->result > 0 ? (size_t)me->result : 0; i < sizeof me->buf; i++)
        CHECK_EQ(me->buf[i], CANARY); /* nothing came in without being told */
}

/* Each round reads, writes and cancels at about the same time. What was written is read by
 * somebody, once; and once a read has returned, its memory is written no more. */
static int races(void *arg)
{
    struct race *race = arg;
    unsigned seed = 7;
    uint64_t sent = 0, got = 0;
    static struct racer racer[ROUND];
    for (uint32_t i = 0; i < race->rounds; i++) {
        struct racer *me = &racer[i % ROUND];
        reeve_task *t;
        if (i >= ROUND)
            check_canaries(me); /* long after it has returned */
        memset(me, CANARY, sizeof *me);
        me->race = race;
        me->result = 0;
        CHECK_OK(reeve_spawn(&t, reads_with_canaries, me));
        int how = rand_r(&seed) % 8;
        if (how & 1)
            CHECK_EQ(reeve_sleep(0), 0);
        if (how & 4) {
            reeve_cancel(t);
            if (rand_r(&seed) % 8 == 0) /* the kernel hears of it before there is a byte */
                CHECK_EQ(reeve_sleep(reeve_in(10 * REEVE_US)), 0);
        }
        unsigned char byte = (unsigned char)sent;
        CHECK_EQ(write(race->ends[1], &byte, 1), 1);
        sent++;
        if (how & 2)
            CHECK_EQ(reeve_sleep(0), 0);
        reeve_cancel(t);
        CHECK_OK(reeve_join(t, NULL, LONG));
        for (ssize_t b = 0; b < me->result; b++)
            CHECK_EQ(me->buf[b], (unsigned char)(got + (uint64_t)b));
        got += me->result > 0 ? (uint64_t)me->result : 0;
        race->completed += me->result > 0;
        race->cancelled += me->result == -ECANCELED;
        CHECK(me->result > 0 || me->result == -ECANCELED || me->result == 0);
        if (sent - got > 20) {
            unsigned char rest[64];
            ssize_t n = reeve_read(race->ends[0], rest, sizeof rest, LONG);
            for (ssize_t b = 0; b < n; b++)
                CHECK_EQ(rest[b], (unsigned char)(got + (uint64_t)b));
            got += (uint64_t)CHECK_OK(n);
        }
    }
    return 0;
}

static int races_in_a_pipe(void *arg)
{
    struct race race = { .rounds = *(uint32_t *)arg };
    CHECK_EQ(pipe2(race.ends, O_CLOEXEC), 0);
    CHECK_EQ(races(&race), 0);
    CHECK_GT(race.completed, 0);
    CHECK_GT(race.cancelled, 0);
    close(race.ends[0]);
    close(race.ends[1]);
    return 0;
}

static int races_in_a_stream(void *arg)
{
    struct pair p = pair_make();
    struct race race = { .rounds = *(uint32_t *)arg, .ends = { p.fd, p.peer } };
    CHECK_EQ(races(&race), 0);
    CHECK_GT(race.completed, 0);
    CHECK_GT(race.cancelled, 0);
    pair_close(&p);
    return 0;
}

TEST(two_hundred_thousand_cancellations_race_with_completions)
{
    uint32_t n = 50000;
    uring_or_skip();
    for (unsigned workers = 1; workers <= 2; workers++) {
        CHECK_EQ(reeve_run(races_in_a_pipe, &n, .workers = workers), 0);
        CHECK_EQ(reeve_run(races_in_a_stream, &n, .workers = workers), 0);
    }
}

/* ---- closed while it runs -------------------------------------------------------------------- */

struct closing {
    struct day day;
    ssize_t result;
    int which;
    atomic_bool begun;
};

/* Calls that wait, each on a descriptor that is about to be closed. */
static int waits(void *arg)
{
    struct closing *c = arg;
    struct day *d = &c->day;
    struct reeve_buf *b;
    atomic_store(&c->begun, true);
    switch (c->which) {
    case 0:
        c->result = reeve_read(d->p.fd, d->buf, 8, LONG);
        break;
    case 1:
        c->result = reeve_buf_recv(d->p.fd, &b, LONG);
        if (c->result > 0) /* late, from the next owner of the number */
            reeve_buf_return(b);
        break;
    case 2:
        c->result = reeve_accept(d->p.listener, LONG);
        break;
    case 3:
        c->result = reeve_read(d->pipe[0], d->buf, 8, LONG);
        break;
    case 4:
        c->result = reeve_recvfrom(d->dgram[1], d->buf, 8, NULL, NULL, LONG);
        break;
    case 5: /* for either: the number's next owner may be the end that is written to */
        c->result = reeve_wait_fd(d->pipe[0], POLLIN | POLLOUT, LONG);
        break;
    case 6:
        c->result = reeve_pread(d->file, d->buf, 1, 0, LONG); /* of a pipe it would wait for more */
        break;
    default:
        c->result = reeve_fdatasync(d->file, LONG);
        break;
    }
    return 0;
}

static int *fd_of(struct closing *c)
{
    struct day *d = &c->day;
    int *fds[] = { &d->p.fd,     &d->p.fd,    &d->p.listener, &d->pipe[0],
                   &d->dgram[1], &d->pipe[0], &d->file,       &d->file };
    return fds[c->which];
}

static unsigned stats_workers(void)
{
    return my_io()->io->sched->nworkers;
}

/* Closes in mid-call, and makes descriptors at once that may get the same number. */
static int closes_and_reuses(void *arg)
{
    static struct closing c;
    unsigned seed = 3;
    (void)arg;
    for (int i = 0; i < 4000; i++) {
        reeve_task *t;
        int again[2];
        set_up(&c.day);
        make_streams(&c.day);
        c.which = i % 8;
        atomic_store(&c.begun, false);
        CHECK_OK(reeve_spawn(&t, waits, &c));
        while (!atomic_load(&c.begun))
            CHECK_EQ(reeve_sleep(0), 0);
        for (int n = rand_r(&seed) % 4; n > 0; n--)
            CHECK_EQ(reeve_sleep(0), 0);
        int *fd = fd_of(&c);
        CHECK_EQ(reeve_close(*fd), 0);
        CHECK_OK(reeve_pipe(again, 0));
        CHECK_EQ(write(again[1], "x", 1), 1); /* who reads it has the wrong descriptor */
        CHECK_OK(reeve_join(t, NULL, LONG));
        /* On another worker it may have come when the number was the other's already. */
        bool late = stats_workers() > 1 && (c.result >= 0 || c.result == -ENOTSOCK ||
                                            c.result == -EINVAL || c.result == -ESPIPE);
        if (c.result != -ECANCELED && c.result != -EBADF && !(c.which >= 6 && c.result >= 0) &&
            !late)
            check_failed(__FILE__, __LINE__, "call %d said %zd", c.which, c.result);
        char x;
        ssize_t left = reeve_read(again[0], &x, 1, REEVE_POLL);
        CHECK(left == 1 || (stats_workers() > 1 && c.result == 1));
        CHECK_EQ(reeve_close(again[0]), 0);
        CHECK_EQ(reeve_close(again[1]), 0);
        *fd = (int)CHECK_OK(fcntl(c.day.event, F_DUPFD_CLOEXEC, 0)); /* for tear_down */
        tear_down(&c.day);
    }
    return 0;
}

TEST(a_close_may_race_with_every_operation_and_with_the_reuse_of_the_number)
{
    RUN(closes_and_reuses, .workers = 1);
    RUN(closes_and_reuses, .workers = 2);
}

/* ---- a byte at a time ------------------------------------------------------------------------ */

enum { MANY_BYTES = 64 << 20, CHUNK = 64 << 10 };

static uint64_t amount(void)
{
#if defined(RV_TSAN) || defined(RV_ASAN) || defined(__SANITIZE_ADDRESS__)
    return MANY_BYTES / 32;
#elif defined(RV_DEBUG)
    return MANY_BYTES / 16; /* each read asks the kernel which socket it is */
#else
    return MANY_BYTES;
#endif
}

static void *sends_all(void *arg)
{
    static unsigned char chunk[CHUNK];
    for (uint64_t at = 0; at < amount(); at += CHUNK) {
        fill_pattern(chunk, CHUNK, at);
        for (size_t done = 0; done < CHUNK;) {
            ssize_t n = send(*(int *)arg, chunk + done, CHUNK - done, MSG_NOSIGNAL);
            CHECK_GT(n, 0);
            done += (size_t)n;
        }
    }
    return NULL;
}

static int reads_bytes(void *arg)
{
    struct pair p = pair_make();
    pthread_t thread;
    (void)arg;
    CHECK_EQ(pthread_create(&thread, NULL, sends_all, &p.peer), 0);
    for (uint64_t at = 0; at < amount(); at++) {
        unsigned char byte;
        CHECK_EQ(reeve_read(p.fd, &byte, 1, LONG), 1);
        if (byte != pattern(at))
            check_pattern(&byte, 1, at);
    }
    CHECK_EQ(pthread_join(thread, NULL), 0);
    pair_close(&p);
    return 0;
}

TEST(sixty_four_mebibytes_arrive_byte_by_byte)
{
    RUN(reads_bytes, .workers = 1);
}

/* ---- those who never listen ------------------------------------------------------------------ */

enum { TALKERS = 16 };

static int echo(void *arg)
{
    int fd = *(int *)arg;
    struct reeve_buf *b;
    ssize_t n;
    while ((n = reeve_buf_recv(fd, &b, 0)) > 0)
        if ((n = reeve_buf_send(fd, b, 0)) < 0)
            break;
    return 0;
}

/* Everybody asks for as long as the socket takes it, and hears nothing of the answers. */
static bool ask_all(struct pair p[TALKERS])
{
    static char much[1 << 14];
    bool any = false;
    for (int i = 0; i < TALKERS; i++)
        any |= send(p[i].peer, much, sizeof much, MSG_DONTWAIT | MSG_NOSIGNAL) > 0;
    return any;
}

static int never_listen(void *arg)
{
    (void)arg;
    struct pair p[TALKERS], q = pair_make();
    struct rv_io *io = my_io()->io;
    struct reeve_group g = { 0 };
    char back[4];
    int small = 1 << 13, quiet = 0;
    CHECK_EQ(reeve_go(echo, &q.fd, .group = &g), 0);
    for (int i = 0; i < TALKERS; i++) {
        p[i] = pair_make();
        CHECK_EQ(setsockopt(p[i].peer, SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
        CHECK_EQ(setsockopt(p[i].fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
        CHECK_EQ(reeve_go(echo, &p[i].fd, .group = &g), 0);
    }
    for (int round = 0; quiet < 20; round++) {
        quiet = ask_all(p) ? 0 : quiet + 1; /* in the end nobody can say a word more */
        CHECK_LT(round, 5000);
        peer_send(q.peer, "ping", 4);
        while (recv(q.peer, back, 4, MSG_PEEK | MSG_DONTWAIT) != 4) /* who listens is served */
            CHECK_EQ(reeve_sleep(0), 0);
        CHECK_EQ(recv(q.peer, back, 4, 0), 4);
    }
    uint32_t unread = 0;
    for (int i = 0; i < TALKERS; i++) {
        const struct rv_fd *f = rv_fd_slot(p[i].fd);
        CHECK_LE(f->unread_bytes, io->stream_bytes_max * 3 / 2 + io->buf_bytes);
        unread += f->unread_bufs;
    }
    CHECK_GT(unread, 0);
    CHECK_LE(my_io()->group.bufs - my_io()->group.free, unread + TALKERS + 1); /* one is sent */
    CHECK_EQ(io->borrow.out, 0);
    CHECK_EQ(io->borrow.extra, 0);
    for (int i = 0; i < TALKERS; i++)
        CHECK_EQ(reeve_close(p[i].fd), 0);
    CHECK_EQ(reeve_close(q.fd), 0);
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    CHECK_EQ(my_io()->group.free, my_io()->group.bufs);
    for (int i = 0; i < TALKERS; i++) {
        await_closed(p[i].fd);
        p[i].fd = -1;
        pair_close(&p[i]);
    }
    await_closed(q.fd);
    q.fd = -1;
    pair_close(&q);
    return 0;
}

TEST(clients_that_ask_and_never_listen_cost_their_watermark_and_stop_nobody)
{
    RUN(never_listen, .workers = 1, .bufs = 256, .buf_bytes = 4096);
}

/* ---- broken ends ----------------------------------------------------------------------------- */

static struct reeve_buf *some_lease(void)
{
    struct reeve_buf *b;
    CHECK_EQ(reeve_buf_borrow(&b, LONG), 0);
    b->len = 100;
    return b;
}

static void write_to_broken(int fd, bool socket, bool messages)
{
    static char text[100];
    struct iovec piece[2] = { { text, 10 }, { text + 50, 10 } };
    struct msghdr msg = { .msg_iov = piece, .msg_iovlen = 2 };
    struct reeve_buf *both[2] = { some_lease(), some_lease() };
    int source[2];
    CHECK_EQ(reeve_write(fd, text, sizeof text, LONG), -EPIPE);
    CHECK_EQ(reeve_sendv(fd, piece, 2, LONG), -EPIPE);
    CHECK_EQ(reeve_buf_send(fd, some_lease(), LONG), -EPIPE);
    CHECK_EQ(reeve_buf_sendv(fd, both, 2, LONG), -EPIPE);
    CHECK_OK(reeve_pipe(source, 0));
    CHECK_EQ(reeve_write(source[1], text, 50, LONG), 50);
    if (!messages)
        CHECK_EQ(reeve_copy(fd, source[0], 50, LONG), -EPIPE);
    if (!socket)
        CHECK_EQ(reeve_tee(fd, source[0], 50, LONG), -EPIPE);
    if (socket) {
        CHECK_EQ(reeve_sendmsg(fd, &msg, 0, LONG), -EPIPE);
        CHECK_EQ(reeve_sendto(fd, text, 10, NULL, 0, LONG), -EPIPE);
        CHECK_EQ(reeve_fd_send(fd, source, 1, text, 10, LONG), -EPIPE);
    }
    CHECK_EQ(reeve_close(source[0]), 0);
    CHECK_EQ(reeve_close(source[1]), 0);
}

/* SIGPIPE would end the process: nobody handles it here. */
static int all_broken(void *arg)
{
    (void)arg;
    int ends[2];
    CHECK_EQ(signal(SIGPIPE, SIG_DFL), SIG_DFL);
    for (int type = 0; type < 4; type++) {
        static const int types[] = { SOCK_STREAM, SOCK_SEQPACKET, SOCK_STREAM, 0 };
        if (types[type])
            CHECK_EQ(reeve_socket_pair(types[type], ends), 0);
        else
            CHECK_OK(reeve_pipe(ends, 0));
        if (type == 2) /* not one of ours */
            CHECK_EQ(reeve_fd_release(ends[1], LONG), 0);
        CHECK_EQ(reeve_close(ends[0]), 0);
        while (is_open(ends[0]))
            CHECK_EQ(reeve_sleep(0), 0);
        write_to_broken(ends[1], types[type] != 0, types[type] == SOCK_SEQPACKET);
        CHECK_EQ(reeve_close(ends[1]), 0);
    }
    return 0;
}

TEST(no_call_raises_sigpipe)
{
    RUN(all_broken, .workers = 1);
    RUN(all_broken, .workers = 2);
    RUN(all_broken, .workers = 1, .zc_bytes = 1);
}
