/* SPDX-License-Identifier: MIT */
/*
 * sim_mail_test.c -- messages under the simulated engine: UDP that is played, and Unix sockets.
 */
#define CHECK_MAIN
#include "tests/io/sim_canary.h"
#include "tests/io/sim_mail.h"

#include <reeve/net.h>

#define QUIET 600
#define WILD 700

TEST(every_message_arrives_once_whole_and_in_order)
{
    struct rv_sim_result sum;
    seeds_all(QUIET, mail_run_quiet, &sum);
}

/* What all runs of this process came to. */
static uint32_t cut, failed, late, lost;

static void wild_and_counted(uint64_t seed, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    mail_run_wild(seed, opts, ret);
    cut += mail.cut;
    failed += mail.failed;
    late += mail.late;
    for (int i = 0; i < mail.boxes; i++)
        lost += mail.box[i].sent - mail.box[i].got;
    if (seed != WILD)
        return;
    CHECK_GT(cut, 100);
    CHECK_GT(failed, 100);
    CHECK_GT(late, 100);
    CHECK_GT(lost, 100);
}

TEST(what_was_not_sent_never_arrives_and_what_was_not_received_is_still_there)
{
    struct rv_sim_result sum;
    if (!seeds_all(WILD, wild_and_counted, &sum))
        return;
    CHECK_GT(sum.seen.faults, 0);
    CHECK_GT(sum.seen.cancels_won, 0);
    CHECK_GT(sum.seen.cancels_lost, 0);
}

TEST(the_same_seed_gives_the_same_run)
{
    static seeds_run *const runs[] = { mail_run_quiet, mail_run_wild };
    for (uint64_t seed = 1; seed <= 60 / SEEDS_SHARE; seed++) {
        struct rv_sim_opts one = { .seed = seed }, two = { .seed = seed };
        struct rv_sim_result first, second;
        runs[seed % 2](seed, &one, &first);
        free(malloc(seed * 4096)); /* addresses do not matter */
        runs[seed % 2](seed, &two, &second);
        CHECK_EQ(first.hash, second.hash);
        CHECK_EQ(first.events, second.events);
        CHECK_EQ(first.virtual_ns, second.virtual_ns);
    }
}

/* ---- planted bugs ---------------------------------------------------------------------------- */

TEST(a_lost_completion_is_noticed)
{
    CHECK_GE(times_noticed(mail_run_quiet, RV_SIM_DROP_COMPLETION, 40), CANARY_SEEDS / 2);
}

TEST(a_completion_that_comes_twice_is_noticed)
{
    CHECK_GE(times_noticed(mail_run_quiet, RV_SIM_TWICE_COMPLETION, 40), CANARY_SEEDS / 2);
}

TEST(a_lost_wake_up_is_noticed)
{
    CHECK_GE(times_noticed(mail_run_quiet, RV_SIM_DROP_WAKE, 2), CANARY_SEEDS / 8);
}

TEST(a_wrong_byte_is_noticed)
{
    CHECK_GE(times_noticed(mail_run_quiet, RV_SIM_WRONG_BYTE, 20), CANARY_SEEDS / 2);
}

TEST(a_buffer_used_before_it_came_home_is_noticed)
{
    CHECK_GE(times_noticed(mail_run_quiet, RV_SIM_EARLY_BUFFER, 2), CANARY_SEEDS / 2);
}

TEST(without_a_planted_bug_the_same_runs_are_sound)
{
    CHECK_EQ(times_noticed(mail_run_quiet, RV_SIM_SOUND, 0), 0);
    CHECK_EQ(times_noticed(mail_run_wild, RV_SIM_SOUND, 0), 0);
}

/* ---- what the network is like ---------------------------------------------------------------- */

static reeve_fn *scenario;
static uint16_t loses;

static void run_scenario(uint64_t seed, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    (void)seed;
    opts->fn = scenario;
    opts->faults.shorter = 300;
    opts->faults.lose = loses;
    seeds_simulate(opts, ret);
    CHECK_EQ(ret->result, 0);
}

static void under_many_seeds(reeve_fn *fn)
{
    struct rv_sim_result sum;
    scenario = fn;
    seeds_all(60, run_scenario, &sum);
}

static int bind_to(const char *text)
{
    return (int)CHECK_OK(reeve_bind(text));
}

static int dial_to(const char *text)
{
    return (int)CHECK_OK(reeve_dial(text, 0));
}

static int send_long(void *arg)
{
    static unsigned char bytes[65508], got[sizeof bytes];
    int box = bind_to("udp:127.0.0.1:7000"), way = dial_to("udp:127.0.0.1:7000");
    (void)arg;
    CHECK_EQ(reeve_sendto(way, bytes, 65508, NULL, 0, 0), -EMSGSIZE);
    bytes[65506] = 'x';
    CHECK_EQ(reeve_sendto(way, bytes, 65507, NULL, 0, 0), 65507);
    CHECK_EQ(reeve_recvfrom(box, got, sizeof got, NULL, NULL, 0), 65507);
    CHECK_MEM_EQ(got, bytes, 65507);
    CHECK_EQ(reeve_recvfrom(box, got, sizeof got, NULL, NULL, reeve_in(REEVE_SEC)), -ETIMEDOUT);
    CHECK_EQ(reeve_close(way), 0);
    return reeve_close(box);
}

TEST(a_message_that_is_too_long_is_not_sent)
{
    under_many_seeds(send_long);
}

static int write_to_nobody(void *arg)
{
    struct sockaddr_storage to;
    socklen_t to_len;
    char byte;
    int way = dial_to("udp:127.0.0.1:7000"), loose = bind_to("udp:127.0.0.1:7001");
    (void)arg;
    CHECK_EQ(reeve_sendto(way, "a", 1, NULL, 0, 0), 1);
    CHECK_EQ(reeve_recvfrom(way, &byte, 1, NULL, NULL, 0), -ECONNREFUSED);
    CHECK_EQ(reeve_recvfrom(way, &byte, 1, NULL, NULL, reeve_in(REEVE_SEC)), -ETIMEDOUT);
    CHECK_EQ(reeve_sendto(way, "a", 1, NULL, 0, 0), 1);
    CHECK(reeve_wait_fd(way, POLLIN, 0) & POLLERR);
    CHECK_EQ(reeve_sendto(way, "a", 1, NULL, 0, 0), -ECONNREFUSED);
    CHECK_EQ(reeve_addr_parse("udp:127.0.0.1:7000", &to, &to_len), 0);
    CHECK_EQ(reeve_sendto(loose, "a", 1, (struct sockaddr *)&to, to_len, 0), 1);
    CHECK_EQ(reeve_recvfrom(loose, &byte, 1, NULL, NULL, reeve_in(REEVE_SEC)), -ETIMEDOUT);
    CHECK_EQ(reeve_sendto(loose, "a", 1, NULL, 0, 0), -EDESTADDRREQ);
    CHECK_EQ(reeve_bind("udp:*:7001"), -EADDRINUSE);
    CHECK_EQ(reeve_close(loose), 0);
    CHECK_EQ(reeve_close(bind_to("udp:*:7001")), 0);
    return reeve_close(way);
}

TEST(a_message_to_nobody_comes_back_to_who_is_connected)
{
    under_many_seeds(write_to_nobody);
}

static int fill_it_up(void *arg)
{
    int box = bind_to("udp:[::1]:7000"), way = dial_to("udp:[::1]:7000"), sent = 0, got;
    (void)arg;
    struct msghdr msg = { .msg_iov = &(struct iovec){ &sent, sizeof sent }, .msg_iovlen = 1 };
    CHECK(reeve_wait_fd(way, POLLOUT, 0) & POLLOUT);
    while (reeve_sendmsg(way, &msg, MSG_DONTWAIT, 0) > 0)
        sent++;
    CHECK(sent > 0 && sent <= 32);
    CHECK_EQ(reeve_wait_fd(way, POLLOUT, reeve_in(REEVE_SEC)), -ETIMEDOUT);
    CHECK_EQ(reeve_sendmsg(way, &msg, 0, reeve_in(REEVE_SEC)), -ETIMEDOUT);
    for (int i = 0; i < sent; i++) {
        CHECK_EQ(reeve_wait_fd(box, POLLIN, 0), POLLIN);
        CHECK_EQ(reeve_recvfrom(box, &got, sizeof got, NULL, NULL, 0), sizeof got);
        CHECK_EQ(got, i);
    }
    CHECK(reeve_wait_fd(way, POLLIN | POLLOUT, 0) & POLLOUT);
    CHECK_EQ(reeve_recvfrom(box, &got, sizeof got, NULL, NULL, reeve_in(REEVE_SEC)), -ETIMEDOUT);
    CHECK_EQ(reeve_close(way), 0);
    return reeve_close(box);
}

TEST(where_nothing_is_lost_who_sends_waits_for_room)
{
    under_many_seeds(fill_it_up);
}

static int poll_connections(void *arg)
{
    char byte = 0;
    struct msghdr msg = { .msg_iov = &(struct iovec){ &byte, 1 }, .msg_iovlen = 1 };
    int listener = (int)CHECK_OK(reeve_listen("127.0.0.1:7000", 0)), fds[2];
    (void)arg;
    CHECK_EQ(reeve_wait_fd(listener, POLLIN, reeve_in(REEVE_SEC)), -ETIMEDOUT);
    int way = dial_to("127.0.0.1:7000");
    CHECK_EQ(reeve_wait_fd(listener, POLLIN | POLLOUT, 0), POLLIN);
    CHECK_EQ(reeve_close((int)CHECK_OK(reeve_accept(listener, 0))), 0);
    CHECK_EQ(rv_sim_pair(fds), 0);
    CHECK_EQ(reeve_wait_fd(fds[0], POLLIN | POLLOUT, 0), POLLOUT);
    CHECK_EQ(reeve_wait_fd(fds[0], POLLIN, reeve_in(REEVE_SEC)), -ETIMEDOUT);
    CHECK_EQ(reeve_sendto(fds[1], "x", 1, NULL, 0, 0), 1);
    CHECK_EQ(reeve_wait_fd(fds[0], POLLIN, 0), POLLIN);
    CHECK_EQ(reeve_recvmsg(fds[0], &msg, 0, 0), 1);
    CHECK_EQ(byte, 'x');
    CHECK_EQ(reeve_socket_shutdown(fds[1], SHUT_WR), 0);
    CHECK_EQ(reeve_wait_fd(fds[0], POLLIN | POLLRDHUP, 0), POLLIN | POLLRDHUP);
    CHECK_EQ(reeve_recvmsg(fds[0], &msg, 0, 0), 0);
    CHECK_EQ(reeve_close(fds[0]), 0);
    CHECK_EQ(reeve_close(fds[1]), 0);
    CHECK_EQ(reeve_close(way), 0);
    return reeve_close(listener);
}

TEST(connections_are_polled_as_poll_would)
{
    under_many_seeds(poll_connections);
}

/* ---- a message without bytes, and a close ---------------------------------------------------- */

static int send_nothing(void *arg)
{
    return (int)reeve_sendto(*(int *)arg, "", 0, NULL, 0, 0);
}

/* Whether it was sent is told even if the socket is closed at that moment. */
static int send_nothing_and_close(void *arg)
{
    int box = bind_to("udp:127.0.0.1:7000"), way = dial_to("udp:127.0.0.1:7000"), r;
    char byte;
    reeve_task *t;
    (void)arg;
    CHECK_OK(reeve_spawn(&t, send_nothing, &way));
    CHECK_EQ(reeve_sleep(reeve_in(rv_sim_draw(3000))), 0);
    CHECK_EQ(reeve_close(way), 0);
    CHECK_OK(reeve_join(t, &r, 0));
    ssize_t n = reeve_recvfrom(box, &byte, 1, NULL, NULL, reeve_in(10 * REEVE_SEC));
    CHECK_EQ(n, r == 0 ? 0 : -ETIMEDOUT);
    return reeve_close(box);
}

TEST(a_message_without_bytes_that_went_out_under_a_close_was_sent)
{
    struct rv_sim_result sum;
    scenario = send_nothing_and_close;
    seeds_all(200, run_scenario, &sum);
}

/* ---- asking over a network that loses -------------------------------------------------------- */

#define ASKERS 5
#define QUESTIONS 12

struct question {
    int asker, n, again;
};

static int answer_all(void *arg)
{
    struct sockaddr_storage from;
    socklen_t len;
    struct question q;
    int fd = *(int *)arg;
    for (;;) {
        ssize_t n = reeve_recvfrom(fd, &q, sizeof q, &from, &len, 0);
        if (n == -ECANCELED)
            return 0;
        CHECK_EQ(n, sizeof q);
        n = reeve_sendto(fd, &q, sizeof q, (struct sockaddr *)&from, len, 0);
        CHECK_EQ(n, sizeof q);
    }
}

/* Again and again until there is an answer; those to earlier questions may come late. */
static void ask(int fd, int asker, int n)
{
    struct question got, q = { asker, n, 0 };
    for (;; q.again++) {
        CHECK_LT(q.again, 1000);
        CHECK_EQ(reeve_sendto(fd, &q, sizeof q, NULL, 0, 0), sizeof q);
        reeve_time until = reeve_in(3 * REEVE_SEC);
        ssize_t r;
        do {
            r = reeve_recvfrom(fd, &got, sizeof got, NULL, NULL, until);
            if (r == -ETIMEDOUT)
                break;
            CHECK_EQ(r, sizeof got);
            CHECK_EQ(got.asker, asker);
            CHECK(got.n < n || (got.n == n && got.again <= q.again));
        } while (got.n < n);
        if (r > 0)
            return;
    }
}

static int ask_all(void *arg)
{
    int fd = dial_to("udp:127.0.0.1:7000");
    for (int n = 0; n < QUESTIONS; n++)
        ask(fd, *(int *)arg, n);
    return reeve_close(fd);
}

static int ask_and_answer(void *arg)
{
    int fd = bind_to(rv_sim_chance(512) ? "udp:*:7000" : "udp:127.0.0.1:7000"), id[ASKERS];
    reeve_task *server, *asker[ASKERS];
    (void)arg;
    CHECK_OK(reeve_spawn(&server, answer_all, &fd));
    for (int i = 0; i < ASKERS; i++) {
        id[i] = i;
        CHECK_OK(reeve_spawn(&asker[i], ask_all, &id[i]));
    }
    for (int i = 0; i < ASKERS; i++)
        CHECK_OK(reeve_join(asker[i], NULL, 0));
    reeve_cancel(server);
    CHECK_OK(reeve_join(server, NULL, 0));
    return reeve_close(fd);
}

TEST(who_asks_again_gets_an_answer_however_much_is_lost)
{
    loses = 300;
    under_many_seeds(ask_and_answer);
}

/* ---- Unix sockets with names ----------------------------------------------------------------- */

#define CALLERS 8

static void unix_address(char text[64], const char *kind)
{
    snprintf(text, 64, "%s:@reeve-sim-mail-%d", kind, (int)getpid());
}

static int call_unix(void *arg)
{
    char byte = 0;
    int fd = dial_to(arg);
    CHECK_EQ(reeve_write(fd, "?", 1, 0), 1);
    CHECK_EQ(reeve_read(fd, &byte, 1, 0), 1);
    CHECK_EQ(byte, '!');
    return reeve_close(fd);
}

/* More callers than there is room for: some of them wait to be connected. */
static int serve_unix(void *arg)
{
    static const char *const kinds[] = { "unix", "unixpacket" };
    char text[64], byte;
    reeve_task *t[CALLERS];
    (void)arg;
    unix_address(text, kinds[rv_sim_draw(2)]);
    int listener = (int)CHECK_OK(reeve_listen(text, 1));
    for (int i = 0; i < CALLERS; i++)
        CHECK_OK(reeve_spawn(&t[i], call_unix, text));
    CHECK_EQ(reeve_sleep(reeve_in(rv_sim_draw(20000))), 0);
    for (int i = 0; i < CALLERS; i++) {
        int fd = (int)CHECK_OK(reeve_accept(listener, 0));
        CHECK_EQ(reeve_read(fd, &byte, 1, 0), 1);
        CHECK_EQ(reeve_write(fd, "!", 1, 0), 1);
        CHECK_EQ(reeve_close(fd), 0);
    }
    CHECK_EQ(reeve_accept(listener, reeve_in(REEVE_SEC)), -ETIMEDOUT);
    for (int i = 0; i < CALLERS; i++)
        CHECK_OK(reeve_join(t[i], NULL, 0));
    return reeve_close(listener);
}

TEST(callers_wait_for_a_unix_listener_with_little_room)
{
    under_many_seeds(serve_unix);
}

/* ---- every call, every error ----------------------------------------------------------------- */

struct pair {
    enum mail_kind kind;
    int from, to;
};

typedef ssize_t message_call(struct pair *p, char *bytes, size_t len);

static ssize_t by_sendto(struct pair *p, char *bytes, size_t len)
{
    return reeve_sendto(p->from, bytes, len, NULL, 0, 0);
}

static ssize_t by_sendmsg(struct pair *p, char *bytes, size_t len)
{
    struct iovec piece[] = { { bytes, 1 }, { bytes + 1, len - 1 } };
    return reeve_sendmsg(p->from, &(struct msghdr){ .msg_iov = piece, .msg_iovlen = 2 }, 0, 0);
}

static ssize_t by_sendv(struct pair *p, char *bytes, size_t len)
{
    struct iovec piece[] = { { bytes, 1 }, { bytes + 1, len - 1 } };
    return reeve_sendv(p->from, piece, 2, 0);
}

static ssize_t by_sendmmsg(struct pair *p, char *bytes, size_t len)
{
    struct iovec piece = { bytes, len };
    struct mmsghdr m = { .msg_hdr = { .msg_iov = &piece, .msg_iovlen = 1 } };
    int r = reeve_sendmmsg(p->from, &m, 1, 0, 0);
    return r == 1 ? (ssize_t)m.msg_len : r;
}

static ssize_t by_segments(struct pair *p, char *bytes, size_t len)
{
    return reeve_send_segments(p->from, bytes, len, len, NULL, 0, 0);
}

static ssize_t by_write(struct pair *p, char *bytes, size_t len)
{
    return reeve_write(p->from, bytes, len, 0);
}

static ssize_t by_leases(struct pair *p, char *bytes, size_t len)
{
    struct reeve_buf *buf[2];
    for (int i = 0; i < 2; i++)
        CHECK_EQ(reeve_buf_borrow(&buf[i], 0), 0);
    buf[0]->len = 1;
    buf[1]->len = len - 1;
    memcpy(buf[0]->data, bytes, 1);
    memcpy(buf[1]->data, bytes + 1, len - 1);
    return reeve_buf_sendv(p->from, buf, 2, 0);
}

static ssize_t by_lease(struct pair *p, char *bytes, size_t len)
{
    struct reeve_buf *buf;
    CHECK_EQ(reeve_buf_borrow(&buf, 0), 0);
    memcpy(buf->data, bytes, buf->len = len);
    return reeve_buf_send(p->from, buf, 0);
}

static ssize_t by_fd_send(struct pair *p, char *bytes, size_t len)
{
    int token = make_token(1, 2);
    ssize_t n = reeve_fd_send(p->from, &token, 1, bytes, len, 0);
    CHECK_EQ(reeve_close(token), 0);
    return n;
}

static ssize_t by_recvfrom(struct pair *p, char *bytes, size_t len)
{
    struct sockaddr_storage from;
    socklen_t from_len;
    return reeve_recvfrom(p->to, bytes, len, &from, &from_len, 0);
}

static ssize_t by_recvmsg(struct pair *p, char *bytes, size_t len)
{
    struct iovec piece[] = { { bytes, 1 }, { bytes + 1, len - 1 } };
    return reeve_recvmsg(p->to, &(struct msghdr){ .msg_iov = piece, .msg_iovlen = 2 }, 0, 0);
}

static ssize_t by_recvv(struct pair *p, char *bytes, size_t len)
{
    struct iovec piece[] = { { bytes, 1 }, { bytes + 1, len - 1 } };
    return reeve_recvv(p->to, piece, 2, 0);
}

static ssize_t by_recvmmsg(struct pair *p, char *bytes, size_t len)
{
    struct iovec piece[] = { { bytes, len }, { bytes, len } };
    struct mmsghdr m[] = { { .msg_hdr = { .msg_iov = &piece[0], .msg_iovlen = 1 } },
                           { .msg_hdr = { .msg_iov = &piece[1], .msg_iovlen = 1 } } };
    int r = reeve_recvmmsg(p->to, m, 2, 0, 0);
    return r == 1 ? (ssize_t)m[0].msg_len : r;
}

static ssize_t by_recv_segments(struct pair *p, char *bytes, size_t len)
{
    size_t segment;
    return reeve_recv_segments(p->to, bytes, len, &segment, NULL, NULL, 0);
}

static ssize_t by_read(struct pair *p, char *bytes, size_t len)
{
    return reeve_read(p->to, bytes, len, 0);
}

static ssize_t by_lease_received(struct pair *p, char *bytes, size_t len)
{
    struct reeve_buf *buf;
    ssize_t n = reeve_buf_recv(p->to, &buf, 0);
    if (n <= 0)
        return n;
    CHECK_EQ(buf->len, len);
    memcpy(bytes, buf->data, buf->len);
    reeve_buf_return(buf);
    return n;
}

static ssize_t by_fd_recv(struct pair *p, char *bytes, size_t len)
{
    int fd;
    size_t n = 0;
    ssize_t r = reeve_fd_recv(p->to, &fd, 1, &n, bytes, len, 0);
    if (r > 0 && n == 1)
        CHECK_EQ(reeve_close(fd), 0);
    return r;
}

enum {
    SENDS = 1,
    UNIXLY = 2,   /* over Unix sockets only */
    SPARES = 4,   /* ENOBUFS is no error: it does without the kernel's buffers */
    IN_PARTS = 8, /* it goes on until all is out, and to send nothing is an error */
    WHOLE = 16,   /* it asks for no number: a datagram that went out went out whole */
};

static const struct message_row {
    const char *name;
    message_call *call;
    int flags;
} rows[] = {
    { "sendto", by_sendto, SENDS },
    { "sendmsg", by_sendmsg, SENDS },
    { "sendv", by_sendv, SENDS },
    { "sendmmsg", by_sendmmsg, SENDS },
    { "send_segments", by_segments, SENDS | WHOLE },
    { "write", by_write, SENDS | IN_PARTS },
    { "buf_send", by_lease, SENDS | IN_PARTS },
    { "buf_sendv", by_leases, SENDS | IN_PARTS },
    { "fd_send", by_fd_send, SENDS | UNIXLY },
    { "recvfrom", by_recvfrom, 0 },
    { "recvmsg", by_recvmsg, 0 },
    { "recvv", by_recvv, 0 },
    { "recvmmsg", by_recvmmsg, 0 },
    { "recv_segments", by_recv_segments, 0 },
    { "read", by_read, 0 },
    { "buf_recv", by_lease_received, SPARES },
    { "fd_recv", by_fd_recv, UNIXLY },
};
#define ROWS (sizeof rows / sizeof *rows)

static const int errors[] = { ECANCELED, EINTR,  ENOMEM, EAGAIN, ECONNRESET, EPIPE,       ENOBUFS,
                              EMFILE,    EIO,    EFAULT, ENOSPC, EMSGSIZE,   ECONNREFUSED };
#define ERRORS (sizeof errors / sizeof *errors)

/* The operation of the call answers -error: the call says so or, where that means "again", does it
 * again. What was not sent is not there, and what was not received still is. */
static void check_row(struct pair *p, const struct message_row *row, int error)
{
    char bytes[10] = "a message", got[10] = "";
    bool again = error == EINTR || error == EAGAIN || error == ECANCELED ||
                 (row->flags & SPARES && error == ENOBUFS);
    ssize_t expected = again ? (ssize_t)sizeof bytes : -error;
    if (!(row->flags & SENDS))
        CHECK_EQ(by_sendto(p, bytes, sizeof bytes), sizeof bytes);
    rv_sim_answer(0, -error);
    ssize_t n = row->call(p, row->flags & SENDS ? bytes : got, sizeof bytes);
    if (n != expected || !rv_sim_answered(NULL))
        check_failed(__FILE__, __LINE__, "%s, kind %d, error %d: %zd", row->name, p->kind, error,
                     n);
    if (row->flags & SENDS && !again) {
        int late = (int)reeve_recvfrom(p->to, got, sizeof got, NULL, NULL, reeve_in(REEVE_SEC));
        CHECK_EQ(late, -ETIMEDOUT);
        CHECK_EQ(row->call(p, bytes, sizeof bytes), sizeof bytes);
    }
    if (row->flags & SENDS)
        CHECK_EQ(by_recvfrom(p, got, sizeof got), sizeof got);
    else if (!again)
        CHECK_EQ(row->call(p, got, sizeof got), sizeof got);
    CHECK_MEM_EQ(got, bytes, sizeof bytes);
}

/* The operation answers that so many of 10 bytes were moved, which were none. It ends, and what
 * comes next is as before. */
static void answer_count(struct pair *p, const struct message_row *row, int count)
{
    char bytes[10] = "a message", got[10];
    ssize_t expected = count;
    if (row->flags & WHOLE || (row->flags & IN_PARTS && count > 0))
        expected = sizeof bytes;
    else if (row->flags & IN_PARTS)
        expected = -EIO;
    rv_sim_answer(0, count);
    ssize_t n = row->call(p, bytes, sizeof bytes);
    if (n != expected || !rv_sim_answered(NULL))
        check_failed(__FILE__, __LINE__, "%s, kind %d, %d bytes: %zd", row->name, p->kind, count,
                     n);
    do
        n = reeve_recvfrom(p->to, got, sizeof got, NULL, NULL, reeve_in(REEVE_SEC));
    while (n > 0); /* the rest went out as a message of its own */
    CHECK_EQ(n, -ETIMEDOUT);
    CHECK_EQ(by_sendto(p, bytes, sizeof bytes), sizeof bytes);
    CHECK_EQ(by_recvfrom(p, got, sizeof got), sizeof got);
}

static void walk_all_rows(struct pair *p)
{
    for (size_t i = 0; i < ROWS; i++) {
        if (p->kind == UDP4 && rows[i].flags & UNIXLY)
            continue;
        for (size_t e = 0; e < ERRORS; e++)
            check_row(p, &rows[i], errors[e]);
        answer_count(p, &rows[i], 0);
        if (!(rows[i].flags & SPARES)) /* which cannot be: without a buffer nothing was received */
            answer_count(p, &rows[i], 3);
    }
}

static int walk_the_table(void *arg)
{
    static const enum mail_kind kinds[] = { UDP4, UNIX_DGRAM, UNIX_PACKET };
    (void)arg;
    for (size_t k = 0; k < 3; k++) {
        struct pair p = { .kind = kinds[k] };
        int fds[2];
        if (p.kind == UDP4) {
            p.to = bind_to("udp:127.0.0.1:7000");
            p.from = dial_to("udp:127.0.0.1:7000");
        } else {
            CHECK_EQ(reeve_socket_pair(k == 1 ? SOCK_DGRAM : SOCK_SEQPACKET, fds), 0);
            p.to = fds[0];
            p.from = fds[1];
        }
        walk_all_rows(&p);
        CHECK_EQ(reeve_close(p.from), 0);
        CHECK_EQ(reeve_close(p.to), 0);
    }
    return 0;
}

TEST(every_call_says_every_error_and_loses_nothing)
{
    int before = open_files_now();
    struct rv_sim_result result;
    for (uint64_t seed = 1; seed <= 20 / SEEDS_SHARE; seed++) {
        struct rv_sim_opts opts = { .seed = seed, .fn = walk_the_table };
        seeds_simulate(&opts, &result);
        CHECK_EQ(result.result, 0);
    }
    CHECK_EQ(open_files_now(), before);
}
