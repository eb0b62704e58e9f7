/* SPDX-License-Identifier: MIT */
/*
 * dial_test.c -- dialling names: the first address that answers wins, and nothing is left of the
 * others, whenever and however the call ends. And Unix sockets, dialled and listened on.
 *
 * An address that hangs is a listener whose backlog is full. One that refuses is one of the
 * loopback network on which nobody listens.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include "io/dial.h"
#include "mem/fault.h"
#include "tests/io/names.h"
#include "tests/io/sim_seeds.h"


/* ---- places to dial -------------------------------------------------------------------------- */

static int open_fds(void)
{
    int n = 0;
    for (int fd = 0; fd < 1024; fd++)
        n += is_open(fd);
    return n;
}

static uint16_t port_of(int fd)
{
    return ntohs(address_of(fd).sin_port); /* it lies where that of IPv6 does */
}

/* Listens on 127.0.0.1 and says where, as HOST:PORT. */
static int alive(const char *host, char ret_addr[64])
{
    int fd = (int)CHECK_OK(reeve_listen("127.0.0.1:0", 0));
    snprintf(ret_addr, 64, "%s:%u", host, port_of(fd));
    return fd;
}

/* A listener on another address of the same port, of which no connection comes back. */
struct hung {
    int fd, peers[2];
};

static struct hung hang(const char *ip, uint16_t port)
{
    struct hung h;
    char addr[64];
    struct sockaddr_storage to;
    socklen_t len = sizeof to;
    snprintf(addr, sizeof addr, strchr(ip, ':') ? "[%s]:%u" : "%s:%u", ip, port);
    h.fd = (int)CHECK_OK(reeve_listen(addr, 1));
    CHECK_EQ(getsockname(h.fd, (struct sockaddr *)&to, &len), 0);
    for (int i = 0; i < 2; i++) {
        h.peers[i] = socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        CHECK_EQ(connect(h.peers[i], (struct sockaddr *)&to, len), 0);
    }
    for (struct tcp_info info = { 0 }; info.tcpi_unacked < 2; sched_yield()) { /* are there */
        socklen_t size = sizeof info;
        CHECK_EQ(getsockopt(h.fd, IPPROTO_TCP, TCP_INFO, &info, &size), 0);
    }
    return h;
}

static void hung_close(struct hung *h)
{
    for (int i = 0; i < 2; i++)
        close(h->peers[i]);
    CHECK_EQ(reeve_close(h->fd), 0);
}

static bool have_ipv6(void)
{
    struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    bool have = fd >= 0 && bind(fd, (struct sockaddr *)&in6, sizeof in6) == 0;
    if (fd >= 0)
        close(fd);
    return have;
}

/* The listener's end of that connection. Before it may lie one that came about while its dial gave
 * it up. */
static int accept_other_end(int listener, int fd)
{
    for (;;) {
        int other = (int)CHECK_OK(reeve_accept(listener, LONG));
        struct sockaddr_in is;
        socklen_t len = sizeof is;
        if (getpeername(other, (struct sockaddr *)&is, &len) == 0 &&
            is.sin_port == address_of(fd).sin_port)
            return other;
        CHECK_EQ(reeve_close(other), 0);
    }
}

/* Both ends of the dialled connection work, and it goes to the listener. */
static void check_talks(int fd, int listener)
{
    int other = accept_other_end(listener, fd), on = 0;
    socklen_t len = sizeof on;
    char buf[8];
    CHECK_EQ(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    CHECK_EQ(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, &len), 0);
    CHECK_EQ(on, 1);
    CHECK_EQ(reeve_write(fd, "ping", 4, LONG), 4);
    CHECK_EQ(reeve_read(other, buf, sizeof buf, LONG), 4);
    CHECK_EQ(reeve_write(other, "pong", 4, LONG), 4);
    CHECK_EQ(reeve_read(fd, buf, sizeof buf, LONG), 4);
    CHECK_MEM_EQ(buf, "pong", 4);
    CHECK_EQ(reeve_close(other), 0);
    CHECK_EQ(reeve_close(fd), 0);
}

/* ---- who wins -------------------------------------------------------------------------------- */

static int one_address(void *arg)
{
    (void)arg;
    char addr[64];
    playing()->now = played_now; /* the name stays known */
    int listener = alive("One.TEST", addr);
    PLAY(.host = "one.test", .addr = { "127.0.0.1" });
    for (int i = 0; i < 2; i++)
        check_talks((int)CHECK_OK(reeve_dial(addr, LONG)), listener);
    CHECK_EQ(rv_load_relaxed(&play.calls), 1);
    CHECK_EQ(reeve_close(listener), 0);
    play.n = 0;
    rv_store_relaxed(&play.calls, 0u);
    return 0;
}

TEST(a_name_is_dialled_in_either_case_and_asked_for_once)
{
    RUN(one_address, .workers = 1);
    RUN(one_address, .workers = 2);
}

/* The last address is alive, and what was open before is open after. */
static int passes_over(void *arg)
{
    (void)arg;
    char addr[64];
    struct rv_resolver *r = playing();
    r->now = played_now; /* the name stays known */
    int listener = alive("many.test", addr), before = open_fds();
    for (int i = 0; i < 3; i++)
        check_talks((int)CHECK_OK(reeve_dial(addr, LONG)), listener);
    while (open_fds() != before)
        CHECK_EQ(reeve_sleep(0), 0);
    CHECK_EQ(reeve_close(listener), 0);
    return 0;
}

TEST(addresses_that_refuse_are_passed_over)
{
    PLAY(.host = "many.test",
         .addr = { "::1", "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.1" });
    RUN(passes_over, .workers = 1);
    RUN(passes_over, .workers = 2);
}

TEST(an_address_that_this_host_cannot_reach_is_passed_over)
{
    PLAY(.host = "many.test", .addr = { "255.255.255.255", "127.0.0.1" });
    RUN(passes_over, .workers = 1);
}

/* The first address hangs, the second is alive. */
static int outruns(const char *hanging)
{
    char addr[64];
    playing();
    PLAY(.host = "two.test", .addr = { hanging, "127.0.0.1" });
    int listener = alive("two.test", addr);
    struct hung h = hang(hanging, port_of(listener));
    int before = open_fds();
    reeve_time start = reeve_now();
    int fd = (int)CHECK_OK(reeve_dial(addr, LONG));
    CHECK_GE(reeve_now() - start, RV_DIAL_DELAY_NS); /* it had its chance */
    CHECK_EQ(open_fds(), before + 1);                /* its socket is closed */
    check_talks(fd, listener);
    hung_close(&h);
    CHECK_EQ(reeve_close(listener), 0);
    play.n = 0;
    return 0;
}

static int outruns_ipv4(void *arg)
{
    (void)arg;
    return outruns("127.0.0.2");
}

static int outruns_ipv6(void *arg)
{
    (void)arg;
    return outruns("::1");
}

TEST(an_address_that_hangs_is_outrun_by_the_next_and_its_socket_closed)
{
    RUN(outruns_ipv4, .workers = 1);
    RUN(outruns_ipv4, .workers = 2);
}

TEST(a_dead_ipv6_does_not_hold_up_ipv4)
{
    if (!have_ipv6())
        SKIP("this host has no IPv6");
    RUN(outruns_ipv6, .workers = 1);
}

static int dial_fails(void *arg)
{
    static const struct {
        const char *host;
        int result;
    } one[] = {
        { "refused.test", -ECONNREFUSED }, { "useful.test", -ECONNREFUSED },
        { "local.test", -ENETUNREACH },    { "none.test", -ENOENT },
        { "failed.test", -EREMOTEIO },     { "nobody.test", -EAGAIN },
    };
    (void)arg;
    char addr[64];
    int before = open_fds();
    playing();
    PLAY(.host = "refused.test", .addr = { "127.0.0.2", "127.0.0.3", "::1" });
    PLAY(.host = "useful.test", .addr = { "255.255.255.255", "127.0.0.2" });
    PLAY(.host = "local.test", .addr = { "255.255.255.255", "224.0.0.1" });
    PLAY(.host = "none.test", .error = -ENOENT);
    PLAY(.host = "failed.test", .error = -EREMOTEIO);
    PLAY(.host = "nobody.test", .error = -EAGAIN);
    int elsewhere = alive("", addr); /* so nobody has that port on all addresses */
    uint16_t port = port_of(elsewhere);
    for (unsigned i = 0; i < sizeof one / sizeof *one; i++) {
        snprintf(addr, sizeof addr, "%s:%u", one[i].host, port);
        CHECK_EQ(reeve_dial(addr, LONG), one[i].result);
    }
    CHECK_EQ(reeve_dial("none.test:0", LONG), -EINVAL);
    CHECK_EQ(reeve_close(elsewhere), 0);
    CHECK_EQ(open_fds(), before);
    return 0;
}

TEST(of_many_errors_the_first_that_tells_of_the_other_side_is_returned)
{
    RUN(dial_fails, .workers = 1);
    play.n = 0;
    RUN(dial_fails, .workers = 2);
}

/* ---- the end in every state ------------------------------------------------------------------ */

struct call {
    const char *addr;
    reeve_time until;
    int result;
};

static int dial_it(void *arg)
{
    struct call *c = arg;
    c->result = reeve_dial(c->addr, c->until);
    return 0;
}

/* Dials in a task of its own, and cancels it when `when` says so. Its result. */
static int cancelled_dial(const char *addr, bool (*when)(int before), int before)
{
    struct call c = { .addr = addr, .result = -ECANCELED }; /* it may never start */
    reeve_task *t;
    CHECK_EQ(reeve_spawn(&t, dial_it, &c), 0);
    while (!when(before))
        CHECK_EQ(reeve_sleep(0), 0);
    reeve_cancel(t);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    return c.result;
}

static bool at_once(int before)
{
    (void)before;
    return true;
}

static bool while_asked(int before)
{
    (void)before;
    return rv_load_relaxed(&play.name[0].inside) == 1;
}

static bool with_one_attempt(int before)
{
    return open_fds() >= before + 1; /* the next may begin before this is seen */
}

static bool with_two_attempts(int before)
{
    return open_fds() >= before + 2;
}

static bool with_three_attempts(int before)
{
    return open_fds() == before + 3;
}

/* Both ends: the call says why, and no socket is open then. */
static int ends_everywhere(void *arg)
{
    static bool (*const when[])(int before) = { at_once, with_one_attempt, with_two_attempts,
                                                with_three_attempts };
    (void)arg;
    char addr[64];
    playing();
    struct played *slow = PLAY(.host = "slow.test", .gated = true, .addr = { "127.0.0.1" });
    PLAY(.host = "hung.test", .addr = { "127.0.0.2", "127.0.0.3", "127.0.0.4" });
    int listener = alive("hung.test", addr);
    struct hung h[3] = { hang("127.0.0.2", port_of(listener)), hang("127.0.0.3", port_of(listener)),
                         hang("127.0.0.4", port_of(listener)) };
    int before = open_fds();
    CHECK_EQ(cancelled_dial("slow.test:80", while_asked, before), -ECANCELED);
    CHECK_EQ(reeve_dial("slow.test:80", reeve_in(3 * REEVE_MS)), -ETIMEDOUT);
    await_inside(slow, 1);
    for (unsigned i = 0; i < sizeof when / sizeof *when; i++) {
        CHECK_EQ(cancelled_dial(addr, when[i], before), -ECANCELED);
        CHECK_EQ(open_fds(), before);
    }
    for (int i = 0; i < 3; i++) {
        reeve_time until = reeve_in(i * RV_DIAL_DELAY_NS + 10 * REEVE_MS);
        CHECK_EQ(reeve_dial(addr, until), -ETIMEDOUT);
        CHECK_GE(reeve_now(), until);
        CHECK_EQ(open_fds(), before);
    }
    CHECK_EQ(reeve_dial(addr, REEVE_POLL), -ETIMEDOUT);
    CHECK_EQ(open_fds(), before);
    set_gate(true);
    for (int i = 0; i < 3; i++)
        hung_close(&h[i]);
    CHECK_EQ(reeve_close(listener), 0);
    return 0;
}

TEST(a_dial_is_cancelled_or_late_in_every_state_and_leaves_no_socket)
{
    RUN(ends_everywhere, .workers = 1);
    play.n = 0;
    set_gate(false);
    RUN(ends_everywhere, .workers = 2);
}

/* The deadline of the task bounds its attempts, which are tasks below it. */
static int own_deadline(void *arg)
{
    (void)arg;
    char addr[64];
    playing();
    PLAY(.host = "hung.test", .addr = { "127.0.0.2", "127.0.0.3" });
    int listener = alive("hung.test", addr);
    struct hung h[2] = { hang("127.0.0.2", port_of(listener)),
                         hang("127.0.0.3", port_of(listener)) };
    int before = open_fds();
    struct call c = { .addr = addr, .until = LONG, .result = -ETIMEDOUT }; /* it may never start */
    reeve_task *t;
    CHECK_EQ(reeve_spawn(&t, dial_it, &c, .deadline = reeve_in(20 * REEVE_MS)), 0);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(c.result, -ETIMEDOUT);
    CHECK_EQ(open_fds(), before);
    for (int i = 0; i < 2; i++)
        hung_close(&h[i]);
    CHECK_EQ(reeve_close(listener), 0);
    return 0;
}

TEST(the_deadline_of_its_task_ends_a_race)
{
    RUN(own_deadline, .workers = 1);
}

static int polls(void *arg)
{
    (void)arg;
    char addr[64];
    playing()->now = played_now; /* the name stays known */
    PLAY(.host = "two.test", .addr = { "127.0.0.2", "127.0.0.1" });
    int listener = alive("two.test", addr);
    CHECK_EQ(reeve_dial(addr, REEVE_POLL), -ETIMEDOUT); /* nobody knows the name */
    CHECK_EQ(rv_load_relaxed(&play.calls), 0);
    check_talks((int)CHECK_OK(reeve_dial(addr, LONG)), listener);
    int fd;
    while ((fd = reeve_dial(addr, REEVE_POLL)) == -ETIMEDOUT) /* the kernel's answer is mostly */
        continue;                                             /* there at once */
    check_talks((int)CHECK_OK(fd), listener);
    CHECK_EQ(reeve_close(listener), 0);
    return 0;
}

TEST(a_poll_tries_each_address_of_a_known_name_once)
{
    RUN(polls, .workers = 1);
}

/* ---- want of tasks, memory, descriptors ------------------------------------------------------ */

static int wait_for_ever(void *arg)
{
    (void)arg;
    return reeve_sleep(LONG);
}

static int no_tasks(void *arg)
{
    (void)arg;
    char addr[64];
    struct reeve_group g = { 0 };
    playing();
    PLAY(.host = "three.test", .addr = { "127.0.0.2", "127.0.0.3", "127.0.0.1" });
    int listener = alive("three.test", addr), r;
    while ((r = reeve_spawn(NULL, wait_for_ever, NULL, .group = &g)) == 0)
        ;
    CHECK_EQ(r, -EAGAIN);
    check_talks((int)CHECK_OK(reeve_dial(addr, LONG)), listener);
    reeve_group_cancel(&g);
    CHECK_LT(reeve_group_wait(&g, LONG), 0);
    CHECK_EQ(reeve_close(listener), 0);
    return 0;
}

TEST(where_no_task_can_be_had_the_addresses_are_tried_one_after_the_other)
{
    RUN(no_tasks, .workers = 1, .tasks_max = 256);
}

static int no_memory(void *arg)
{
    (void)arg;
    char addr[64];
    playing();
    PLAY(.host = "two.test", .addr = { "127.0.0.2", "127.0.0.1" });
    int listener = alive("two.test", addr), before = open_fds(), failed = 0;
    for (uint64_t n = 1;; n++) {
        rv_fault_fail_nth(n);
        int fd = reeve_dial(addr, LONG);
        const char *name = rv_fault_last_name();
        rv_fault_off();
        failed += name && fd < 0;
        if (fd >= 0)
            check_talks(fd, listener);
        else
            CHECK(name && (fd == -ENOMEM || fd == -EAGAIN));
        while (open_fds() != before)
            CHECK_EQ(reeve_sleep(0), 0);
        if (!name)
            break;
    }
    CHECK_GT(failed, 0);
    CHECK_EQ(reeve_close(listener), 0);
    return 0;
}

TEST(a_dial_that_lacks_memory_fails_or_does_without_and_leaves_nothing)
{
    if (!rv_fault_available())
        SKIP("this build has no fault points");
    RUN(no_memory, .workers = 1);
}

static int no_descriptors(void *arg)
{
    (void)arg;
    char addr[64];
    struct rlimit lim, was;
    playing();
    PLAY(.host = "two.test", .addr = { "127.0.0.2", "127.0.0.1" });
    int listener = alive("two.test", addr);
    CHECK_EQ(reeve_close((int)CHECK_OK(reeve_dial(addr, LONG))), 0);
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &was), 0);
    lim = was;
    lim.rlim_cur = 0;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &lim), 0);
    int r = reeve_dial(addr, LONG);
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &was), 0);
    CHECK_EQ(r, -EMFILE);
    CHECK_EQ(reeve_close(listener), 0);
    return 0;
}

TEST(a_dial_without_descriptors_says_so)
{
    RUN(no_descriptors, .workers = 1);
}

/* ---- many ------------------------------------------------------------------------------------ */

enum { CROWD = 200 };

static int crowd(void *arg)
{
    (void)arg;
    char addr[64];
    playing();
    struct played *p = PLAY(.host = "slow.test", .gated = true,
                            .addr = { "127.0.0.2", "127.0.0.1" });
    int listener = alive("slow.test", addr), before = open_fds();
    struct call c[CROWD];
    struct reeve_group g = { 0 };
    for (int i = 0; i < CROWD; i++) {
        c[i] = (struct call){ .addr = addr };
        CHECK_EQ(reeve_spawn(NULL, dial_it, &c[i], .group = &g), 0);
    }
    await_count(&my_io()->io->resolver->shared, CROWD - 1);
    set_gate(true);
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    for (int i = 0; i < CROWD; i++) {
        CHECK_GE(c[i].result, 0);
        CHECK_EQ(reeve_close((int)CHECK_OK(reeve_accept(listener, LONG))), 0);
        CHECK_EQ(reeve_close(c[i].result), 0);
    }
    CHECK_EQ(rv_load_relaxed(&p->calls), 1);
    while (open_fds() != before)
        CHECK_EQ(reeve_sleep(0), 0);
    CHECK_EQ(reeve_close(listener), 0);
    return 0;
}

TEST(a_crowd_dials_one_name_with_one_lookup)
{
    RUN(crowd, .workers = 2);
}

/* Cancels and deadlines that fall into a race at any moment: a connection, or nothing, and no
 * socket is left. */
static int any_moment(void *arg)
{
    (void)arg;
    char addr[64];
    playing()->now = played_now; /* asked for once: no lookup goes on when this ends */
    PLAY(.host = "three.test", .addr = { "127.0.0.2", "127.0.0.3", "127.0.0.1" });
    int listener = alive("three.test", addr), before = open_fds(), made = 0, ended = 0;
    reeve_time end = reeve_in(500 * REEVE_MS);
    for (uint32_t i = 0; reeve_now() < end || made == 0 || ended == 0; i++) {
        struct call c = { .addr = addr,
                          .until = i % 2 ? reeve_in(i * 7919 % 300000) : LONG,
                          .result = i % 2 ? -ETIMEDOUT : -ECANCELED }; /* if it never starts */
        reeve_task *t;
        CHECK_EQ(reeve_spawn(&t, dial_it, &c), 0);
        if (i % 2 == 0) {
            CHECK_EQ(reeve_sleep(reeve_in(i * 7919 % 300000)), 0);
            reeve_cancel(t);
        }
        CHECK_EQ(reeve_join(t, NULL, LONG), 0);
        if (c.result >= 0) {
            made++;
            CHECK_EQ(reeve_close((int)CHECK_OK(reeve_accept(listener, LONG))), 0);
            CHECK_EQ(reeve_close(c.result), 0);
        } else {
            ended++;
            CHECK_EQ(c.result, i % 2 ? -ETIMEDOUT : -ECANCELED);
            /* a connection that came too late may lie in the backlog: its other end is closed */
            int late = reeve_accept(listener, REEVE_POLL);
            if (late >= 0)
                CHECK_EQ(reeve_close(late), 0);
        }
        while (open_fds() != before)
            CHECK_EQ(reeve_sleep(0), 0);
    }
    CHECK_EQ(reeve_close(listener), 0);
    play.n = 0;
    return 0;
}

TEST(a_race_may_end_at_any_moment)
{
    RUN(any_moment, .workers = 1);
    RUN(any_moment, .workers = 2);
}

/* A race that was cancelled before its last attempt began says that it was cancelled, although
 * every other attempt was refused by then. */
static int cancelled_at_once(void *arg)
{
    (void)arg;
    char addr[64];
    playing()->now = played_now;
    PLAY(.host = "dead.test", .addr = { "127.0.0.2", "127.0.0.3", "127.0.0.4" });
    int listener = alive("dead.test", addr); /* on 127.0.0.1, which is none of them */
    for (uint32_t i = 0; i < 2000; i++) {
        struct call c = { .addr = addr, .until = LONG, .result = -ECANCELED };
        reeve_task *t;
        CHECK_EQ(reeve_spawn(&t, dial_it, &c), 0);
        for (uint32_t n = i * 7919 % 64; n > 0; n--)
            CHECK_EQ(reeve_sleep(0), 0);
        reeve_cancel(t);
        CHECK_EQ(reeve_join(t, NULL, LONG), 0);
        CHECK(c.result == -ECANCELED || c.result == -ECONNREFUSED);
    }
    CHECK_EQ(reeve_close(listener), 0);
    play.n = 0;
    return 0;
}

TEST(an_attempt_that_never_began_is_no_want_of_memory)
{
    RUN(cancelled_at_once, .workers = 1);
    RUN(cancelled_at_once, .workers = 2);
    RUN(cancelled_at_once, .workers = 4);
}

/* ---- Unix sockets ---------------------------------------------------------------------------- */

static int unix_talks(const char *addr)
{
    int listener = (int)CHECK_OK(reeve_listen(addr, 0));
    int fd = (int)CHECK_OK(reeve_dial(addr, LONG));
    int other = (int)CHECK_OK(reeve_accept(listener, LONG));
    char buf[8];
    CHECK_EQ(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    CHECK_EQ(fcntl(other, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    CHECK_EQ(reeve_write(fd, "pi", 2, LONG), 2);
    CHECK_EQ(reeve_write(fd, "ng", 2, LONG), 2);
    bool packets = strncmp(addr, "unixpacket:", 11) == 0;
    CHECK_EQ(reeve_read(other, buf, packets ? sizeof buf : 2, LONG), 2);
    CHECK_MEM_EQ(buf, "pi", 2);
    CHECK_EQ(reeve_read(other, buf, sizeof buf, LONG), 2);
    CHECK_MEM_EQ(buf, "ng", 2);
    CHECK_EQ(reeve_close(fd), 0);
    CHECK_EQ(reeve_read(other, buf, sizeof buf, LONG), 0);
    CHECK_EQ(reeve_close(other), 0);
    return listener;
}

static int unix_all(void *arg)
{
    (void)arg;
    char dir[] = "/tmp/reeve-dial-XXXXXX", addr[128], path[64];
    CHECK(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/s", dir);
    static const char *const kinds[] = { "unix", "unixpacket" };
    for (int i = 0; i < 2; i++) {
        snprintf(addr, sizeof addr, "%s:%s", kinds[i], path);
        CHECK_EQ(reeve_dial(addr, LONG), -ENOENT);
        CHECK_EQ(reeve_close(unix_talks(addr)), 0);
        CHECK_EQ(reeve_dial(addr, LONG), -ECONNREFUSED); /* the file is still there */
        CHECK_EQ(reeve_close(unix_talks(addr)), 0);      /* and is taken over */
        CHECK_EQ(unlink(path), 0);
        snprintf(addr, sizeof addr, "%s:@reeve-dial-%d", kinds[i], (int)getpid());
        CHECK_EQ(reeve_close(unix_talks(addr)), 0);
    }
    memset(addr, 'x', sizeof addr);
    memcpy(addr, "unix:", 5);
    addr[sizeof addr - 1] = '\0';
    CHECK_EQ(reeve_dial(addr, LONG), -ENAMETOOLONG);
    CHECK_EQ(reeve_listen(addr, 0), -ENAMETOOLONG);
    CHECK_EQ(reeve_dial("unixgram:@x", LONG), -ECONNREFUSED);
    CHECK_EQ(reeve_listen("unixgram:@x", 0), -EAFNOSUPPORT);
    CHECK_EQ(rmdir(dir), 0);
    return 0;
}

TEST(unix_sockets_are_listened_on_dialled_and_talk)
{
    RUN(unix_all, .workers = 1);
    RUN(unix_all, .workers = 2);
}

static int unix_hangs(void *arg)
{
    (void)arg;
    char addr[64];
    snprintf(addr, sizeof addr, "unix:@reeve-dial-%d", (int)getpid());
    int listener = (int)CHECK_OK(reeve_listen(addr, 1)), full[2], before = open_fds();
    for (int i = 0; i < 2; i++)
        full[i] = (int)CHECK_OK(reeve_dial(addr, LONG)); /* the backlog is full now */
    CHECK_EQ(reeve_dial(addr, reeve_in(10 * REEVE_MS)), -ETIMEDOUT);
    CHECK_EQ(cancelled_dial(addr, with_three_attempts, before), -ECANCELED);
    struct call c = { .addr = addr };
    reeve_task *t;
    CHECK_EQ(reeve_spawn(&t, dial_it, &c), 0);
    while (open_fds() != before + 3)
        CHECK_EQ(reeve_sleep(0), 0);
    CHECK_EQ(reeve_close((int)CHECK_OK(reeve_accept(listener, LONG))), 0); /* room for it */
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_GE(c.result, 0);
    CHECK_EQ(reeve_close(c.result), 0);
    for (int i = 0; i < 2; i++)
        CHECK_EQ(reeve_close(full[i]), 0);
    CHECK_EQ(reeve_close(listener), 0);
    return 0;
}

TEST(a_unix_listener_whose_backlog_is_full_is_waited_for)
{
    RUN(unix_hangs, .workers = 1);
}

/* ---- simulated: time is exact, and everything goes wrong ------------------------------------- */

enum { SIM_PORT = 7000, SIM_HUNG = 3 };

/* The simulated places: .1 is alive, .2 .3 .4 hang, others refuse. */
struct sim_places {
    int alive, hung[SIM_HUNG], peer[SIM_HUNG][2];
};

static void sim_close(int fd)
{
    if (fd >= 0)
        CHECK_EQ(reeve_close(fd), 0);
}

static bool sim_open(struct sim_places *p)
{
    char addr[64];
    memset(p, 0xff, sizeof *p);
    snprintf(addr, sizeof addr, "127.0.0.1:%d", SIM_PORT);
    p->alive = reeve_listen(addr, 64);
    bool ok = p->alive >= 0;
    for (int i = 0; i < SIM_HUNG; i++) {
        snprintf(addr, sizeof addr, "127.0.0.%d:%d", i + 2, SIM_PORT);
        p->hung[i] = reeve_listen(addr, 1);
        for (int j = 0; j < 2 && p->hung[i] >= 0; j++)
            p->peer[i][j] = reeve_dial(addr, 0);
        ok = ok && p->peer[i][0] >= 0 && p->peer[i][1] >= 0;
    }
    return ok;
}

static void sim_shut(struct sim_places *p)
{
    sim_close(p->alive);
    for (int i = 0; i < SIM_HUNG; i++) {
        sim_close(p->hung[i]);
        sim_close(p->peer[i][0]);
        sim_close(p->peer[i][1]);
    }
}

/* When attempts started, and when one was found to have failed. */
static struct {
    int64_t at[64];
    bool start[64];
    unsigned n;
} heard;

static void sim_hear(void *ctx, const struct rv_sim_event *e)
{
    (void)ctx;
    int32_t result = (int32_t)e->result;
    bool start = e->kind == RV_SIM_QUEUE && result == RV_OP_CONNECT;
    bool failed = e->kind == RV_SIM_DISPATCH && result < 0 && result != -ECANCELED;
    if ((!start && !failed) || heard.n == 64)
        return;
    heard.at[heard.n] = e->now_ns;
    heard.start[heard.n++] = start;
}

/* A few turns of the workers between a decision and the start; and simulated threads oversleep. */
#define SIM_SLACK (150 * REEVE_MS)

/* Each attempt must have started when one had failed, or else RV_DIAL_DELAY_NS after the one
 * before. How many there were. */
static unsigned check_starts(void)
{
    int64_t last = 0, failed = INT64_MAX;
    unsigned starts = 0;
    bool unclear = true; /* the first; and after one that had both reasons */
    for (unsigned i = 0; i < heard.n; i++) {
        if (!heard.start[i]) {
            failed = heard.at[i] < failed ? heard.at[i] : failed;
            continue;
        }
        int64_t due = last + RV_DIAL_DELAY_NS, at = heard.at[i];
        bool both = at > due && at > failed;
        due = failed < due ? failed : due;
        if (!unclear) {
            CHECK_GT(at, due - SIM_SLACK);
            CHECK_LT(at, due + SIM_SLACK);
        }
        unclear = both;
        last = at;
        failed = INT64_MAX;
        starts++;
    }
    return starts;
}

/* Dials these, and checks when and how many. The result. */
static int sim_dial(unsigned attempts, const char *const *text)
{
    struct rv_names names;
    rv_names_init(&names);
    while (*text)
        add_address(&names, *text++);
    heard.n = 0;
    int fd = rv_dial_names(&names, SIM_PORT, reeve_in(60 * REEVE_SEC));
    CHECK_EQ(check_starts(), attempts);
    return fd;
}

#define SIM_DIAL(attempts, ...)                                                                    \
    sim_dial(attempts, (const char *const[]){ __VA_ARGS__, NULL })

static int sim_exact(void *arg)
{
    (void)arg;
    struct sim_places p;
    CHECK(sim_open(&p));
    sim_close((int)CHECK_OK(SIM_DIAL(4, "127.0.0.7", "::1", "127.0.0.8", "127.0.0.1")));
    sim_close((int)CHECK_OK(SIM_DIAL(2, "127.0.0.2", "127.0.0.1")));
    sim_close((int)CHECK_OK(SIM_DIAL(3, "127.0.0.2", "127.0.0.3", "127.0.0.1")));
    sim_close((int)CHECK_OK(SIM_DIAL(4, "127.0.0.4", "127.0.0.3", "127.0.0.2", "127.0.0.1")));
    /* a failure starts the next at once, beside one that hangs */
    sim_close((int)CHECK_OK(SIM_DIAL(3, "127.0.0.2", "127.0.0.7", "127.0.0.1")));
    CHECK_EQ(SIM_DIAL(2, "127.0.0.7", "127.0.0.8"), -ECONNREFUSED);
    reeve_time until = reeve_in(60 * REEVE_SEC);
    CHECK_EQ(SIM_DIAL(2, "127.0.0.2", "127.0.0.7"), -ETIMEDOUT);
    CHECK_GE(reeve_now(), until);
    sim_shut(&p);
    return 0;
}

static void exact_run(uint64_t seed, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    (void)seed;
    opts->fn = sim_exact;
    opts->trace = sim_hear;
    seeds_simulate(opts, ret);
    CHECK_EQ(ret->result, 0);
}

TEST(each_attempt_has_its_delay_and_no_more_and_a_failure_ends_it)
{
    struct rv_sim_result sum;
    seeds_all(300, exact_run, &sum);
}

/* Names of random places, dialled by tasks that are cancelled or late at random. */
enum { SIM_TASKS = 6 };

struct sim_call {
    struct rv_names names;
    bool hopeful; /* one address is alive */
    reeve_time until;
    int result;
};

static int sim_call(void *arg)
{
    struct sim_call *c = arg;
    c->result = rv_dial_names(&c->names, SIM_PORT, c->until);
    if (c->result >= 0) {
        CHECK(c->hopeful);
        rv_sim_preempt();
        sim_close(c->result);
    }
    return 0;
}

static void sim_draw_names(struct sim_call *c)
{
    rv_names_init(&c->names);
    uint32_t n = 1 + rv_sim_draw(6);
    for (uint32_t i = 0; i < n; i++) {
        char text[32];
        uint32_t place = 1 + rv_sim_draw(6);
        c->hopeful = c->hopeful || place == 1;
        snprintf(text, sizeof text, rv_sim_chance(200) ? "::%u" : "127.0.0.%u", place + 100);
        if (text[0] == '1')
            snprintf(text, sizeof text, "127.0.0.%u", place);
        add_address(&c->names, text);
    }
}

static int sim_accepts(void *arg)
{
    struct sim_places *p = arg;
    for (;;) {
        int fd = reeve_accept(p->alive, 0);
        if (fd == -ECANCELED || fd == -EBADF)
            return 0;
        sim_close(fd);
    }
}

static int sim_wild(void *arg)
{
    (void)arg;
    struct sim_places p;
    struct sim_call c[SIM_TASKS];
    reeve_task *t[SIM_TASKS], *server;
    if (!sim_open(&p)) { /* a fault was there before the races */
        sim_shut(&p);
        return 0;
    }
    CHECK_EQ(reeve_spawn(&server, sim_accepts, &p), 0);
    for (int i = 0; i < SIM_TASKS; i++) {
        c[i] = (struct sim_call){ .until = rv_sim_chance(512) ? reeve_in(rv_sim_draw(2000000000))
                                                              : LONG };
        if (rv_sim_chance(50))
            c[i].until = REEVE_POLL;
        sim_draw_names(&c[i]);
        CHECK_EQ(reeve_spawn(&t[i], sim_call, &c[i]), 0);
    }
    for (int i = 0; i < SIM_TASKS; i++) {
        if (rv_sim_chance(512)) {
            CHECK_EQ(reeve_sleep(reeve_in(rv_sim_draw(400000000))), 0);
            reeve_cancel(t[i]);
        }
        CHECK_EQ(reeve_join(t[i], NULL, 0), 0);
        rv_sim_note((uint64_t)i, c[i].result < 0 ? c[i].result : 0);
    }
    reeve_cancel(server);
    CHECK_EQ(reeve_join(server, NULL, 0), 0);
    sim_shut(&p);
    return 0;
}

static void wild_run(uint64_t seed, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    opts->fn = sim_wild;
    if (seeds_mix(seed) % 2)
        opts->faults = (struct rv_sim_faults){ .eintr = 20, .eagain = 20, .nomem = 10, .mfile = 10,
                                               .abort = 20, .refuse = 60 };
    seeds_simulate(opts, ret);
    CHECK_EQ(ret->result, 0);
}

TEST(races_end_in_every_order_under_faults_and_leave_nothing)
{
    struct rv_sim_result sum;
    if (seeds_all(3000, wild_run, &sum)) {
        CHECK_GT(sum.seen.faults, 0);
        CHECK_GT(sum.seen.cancels_won, 0);
        CHECK_GT(sum.seen.cancels_lost, 0);
        CHECK_GT(sum.seen.steals, 0);
    }
}
