/* SPDX-License-Identifier: MIT */
/*
 * pipeline_test.c -- the pipeline server of examples/, from outside: what it acknowledged is in its
 * file, whatever its clients, its subscribers and its file are like, and however it ends.
 *
 * Each test starts the program as anybody would and talks to it by plain sockets.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <libgen.h>
#include <limits.h>
#include <sys/stat.h>

#include "tests/runtime/server.h"

/* ---- the program ----------------------------------------------------------------------------- */

struct program {
    pid_t pid;
    int said_fd;        /* its standard error */
    char said[16384];
    size_t said_len;
    int port, subscribe_port;
    char folder[64], out[96];
};

static void path_of_program(char *ret, size_t cap)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    CHECK_GT(n, 0);
    self[n] = '\0';
    CHECK_LT(snprintf(ret, cap, "%s/../../examples/pipeline", dirname(self)), (int)cap);
    if (access(ret, X_OK) < 0)
        SKIP("the examples are not built");
}

/* Reads on what it says until that has the text in it, or its end. */
static bool await_said(struct program *p, const char *text)
{
    while (!strstr(p->said, text)) {
        CHECK_LT(p->said_len, sizeof p->said - 1);
        ssize_t n = read(p->said_fd, p->said + p->said_len, sizeof p->said - 1 - p->said_len);
        CHECK_GE(n, 0);
        if (n == 0)
            return false;
        p->said_len += (size_t)n;
        p->said[p->said_len] = '\0';
    }
    return true;
}

static int await_port(struct program *p, const char *who)
{
    char text[64];
    int port;
    snprintf(text, sizeof text, "%s on 127.0.0.1:", who);
    if (!await_said(p, text))
        check_failed(__FILE__, __LINE__, "it ended, and said \"%s\"", p->said);
    CHECK_EQ(sscanf(strstr(p->said, text) + strlen(text), "%d", &port), 1);
    return port;
}

static void make_folder(struct program *p)
{
    *p = (struct program){ .folder = "/tmp/pipeline_test.XXXXXX" };
    CHECK(mkdtemp(p->folder));
    snprintf(p->out, sizeof p->out, "%s/out", p->folder);
}

enum { ARGS_MAX = 24 };

/* Starts it with these arguments besides its address; NULL ends them. */
static void launch(struct program *p, const char *const *more)
{
    static char path[PATH_MAX + 64];
    const char *args[ARGS_MAX] = { path, "127.0.0.1:0" };
    int ends[2], n = 2;
    uring_or_skip();
    path_of_program(path, sizeof path);
    while (*more && n < ARGS_MAX - 1)
        args[n++] = *more++;
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    p->pid = fork();
    CHECK_OK(p->pid);
    if (p->pid == 0) {
        dup2(ends[1], STDERR_FILENO);
        execv(path, (char *const *)args);
        _exit(127);
    }
    close(ends[1]);
    p->said_fd = ends[0];
}

/* With an output file, and further options. It listens when this returns. */
#define START(p, ...)                                                                              \
    do {                                                                                           \
        make_folder(p);                                                                            \
        start(p, (const char *const[]){ "--out", (p)->out, "--drain", "100", __VA_ARGS__, NULL }); \
    } while (0)

static void start(struct program *p, const char *const *more)
{
    launch(p, more);
    p->port = await_port(p, "clients");
    for (; *more; more++)
        if (strcmp(*more, "--subscribe") == 0)
            p->subscribe_port = await_port(p, "subscribers");
}

/* It has been told to end, or ends by itself: its exit status, and all that it said. */
static int await_end(struct program *p)
{
    int status;
    CHECK(!await_said(p, "\x01"));
    CHECK_EQ(waitpid(p->pid, &status, 0), p->pid);
    close(p->said_fd);
    if (!WIFEXITED(status))
        check_failed(__FILE__, __LINE__, "status 0x%x; it said \"%s\"", (unsigned)status, p->said);
    return WEXITSTATUS(status);
}

static void stop_well(struct program *p)
{
    CHECK_EQ(kill(p->pid, SIGTERM), 0);
    int status = await_end(p);
    if (status != 0)
        check_failed(__FILE__, __LINE__, "status %d; it said \"%s\"", status, p->said);
}

static void clean_up(struct program *p)
{
    unlink(p->out);
    CHECK_EQ(rmdir(p->folder), 0);
}

/* A counter that it has printed at its end. */
static unsigned long long counter(const struct program *p, const char *name)
{
    char text[64];
    unsigned long long n = 0;
    snprintf(text, sizeof text, " %s=", name);
    const char *at = strstr(p->said, text);
    if (!at || sscanf(at + strlen(text), "%llu", &n) != 1)
        check_failed(__FILE__, __LINE__, "no counter %s in \"%s\"", name, p->said);
    return n;
}

/* ---- what is in the file --------------------------------------------------------------------- */

struct sums {
    unsigned long long rows, count;
    double sum, min, max;
};

static char *read_file(const char *path, size_t *ret_len)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK_OK(fd);
    CHECK_EQ(fstat(fd, &st), 0);
    char *text = malloc((size_t)st.st_size + 1);
    CHECK(text);
    size_t len = 0;
    for (ssize_t n; (n = read(fd, text + len, (size_t)st.st_size - len)) > 0; len += (size_t)n)
        ;
    text[len] = '\0';
    close(fd);
    *ret_len = len;
    return text;
}

/* All rows of one key, or of all keys. */
static struct sums sums_of(const char *text, const char *key)
{
    struct sums s = { .min = 1e300, .max = -1e300 };
    for (const char *at = text; *at; at = strchr(at, '\n') + 1) {
        struct sums row;
        char name[64];
        CHECK(strchr(at, '\n')); /* no half of a line */
        CHECK_EQ(sscanf(at, "%63s %llu %lf %lf %lf\n", name, &row.count, &row.sum, &row.min,
                        &row.max),
                 5);
        if (key && strcmp(name, key) != 0)
            continue;
        s.rows++;
        s.count += row.count;
        s.sum += row.sum;
        s.min = row.min < s.min ? row.min : s.min;
        s.max = row.max > s.max ? row.max : s.max;
    }
    return s;
}

static struct sums file_sums(const struct program *p, const char *key)
{
    size_t len;
    char *text = read_file(p->out, &len);
    struct sums s = sums_of(text, key);
    free(text);
    return s;
}

/* ---- clients --------------------------------------------------------------------------------- */

/* What a client was told so far. */
struct answers {
    char text[4096];
    size_t len;
    unsigned long long ok; /* the last */
    unsigned errors;
    char last_error[128];
};

/* Reads once and takes apart what has come. False: the end, or a reset. */
static bool read_answers(int fd, struct answers *a)
{
    ssize_t n = recv(fd, a->text + a->len, sizeof a->text - 1 - a->len, 0);
    if (n <= 0)
        return false;
    a->len += (size_t)n;
    a->text[a->len] = '\0';
    char *at = a->text, *end;
    while ((end = strchr(at, '\n'))) {
        unsigned long long ok;
        *end = '\0';
        if (sscanf(at, "ok %llu", &ok) == 1) {
            CHECK_GT(ok, a->ok);
            a->ok = ok;
        } else {
            CHECK_EQ(strncmp(at, "error", 5), 0);
            a->errors++;
            snprintf(a->last_error, sizeof a->last_error, "%.120s", at);
        }
        at = end + 1;
    }
    a->len = strlen(at);
    memmove(a->text, at, a->len + 1);
    return true;
}

static void await_ok(int fd, struct answers *a, unsigned long long lines)
{
    while (a->ok < lines)
        CHECK(read_answers(fd, a));
    CHECK_EQ(a->ok, lines);
}

static void say(int fd, const char *text)
{
    peer_send(fd, text, strlen(text));
}

TEST(what_is_acknowledged_is_in_the_file)
{
    static struct program p;
    struct answers a = { .len = 0 };
    START(&p, "--workers", "2", "--every", "20");
    int fd = peer_connect(p.port);
    say(fd, "cpu 3\ncpu 5.5\nroom.kitchen -21.25\ndebug.noise 1\ncpu 1e1\n");
    await_ok(fd, &a, 5);
    struct sums cpu = file_sums(&p, "cpu"), room = file_sums(&p, "room.kitchen"); /* now */
    CHECK_EQ(cpu.count, 3);
    CHECK(cpu.sum == 18.5 && cpu.min == 3 && cpu.max == 10);
    CHECK(room.count == 1 && room.sum == -21.25);
    CHECK_EQ(file_sums(&p, NULL).count, 4);
    CHECK_EQ(a.errors, 0);
    say(fd, "cpu 2\n");
    CHECK_EQ(shutdown(fd, SHUT_WR), 0);
    await_ok(fd, &a, 6); /* who has nothing more to say is answered, and then let go */
    CHECK(!read_answers(fd, &a));
    close(fd);
    stop_well(&p);
    CHECK_EQ(counter(&p, "lines"), 6);
    CHECK_EQ(counter(&p, "filtered"), 1);
    CHECK_EQ(counter(&p, "records"), 5);
    CHECK_EQ(counter(&p, "copied_bytes"), 0);
    clean_up(&p);
}

TEST(the_disk_is_waited_for_where_that_is_asked)
{
    static struct program p;
    struct answers a = { .len = 0 };
    START(&p, "--sync", "--drop", "");
    int fd = peer_connect(p.port);
    say(fd, "a 1\ndebug.b 2\n");
    await_ok(fd, &a, 2);
    CHECK_EQ(file_sums(&p, NULL).count, 2);
    close(fd);
    stop_well(&p);
    clean_up(&p);
}

TEST(a_malformed_line_is_an_error_to_its_client_and_to_nobody_else)
{
    static const char *const bad[] = {
        "noise", " 1", "key ", "key 1 2", "key one", "key nan", "key inf", "key 0x10", "key 1e999",
        "key -", "k\ty 1", "k\xc3\xa9y 1", "", "key 1 ",
        "a.key.of.forty.bytes.is.too.long.by.one1 1",
        "key 0000000000000000000000000000000000000001",
    };
    static struct program p;
    struct answers a = { .len = 0 }, b = { .len = 0 };
    START(&p, "--workers", "2", "--every", "5");
    int fd = peer_connect(p.port), other = peer_connect(p.port);
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char wanted[32];
        say(fd, bad[i]);
        say(fd, "\n");
        say(other, "fine 1\n");
        while (a.errors <= i)
            CHECK(read_answers(fd, &a));
        snprintf(wanted, sizeof wanted, "error %u: ", i + 1);
        CHECK_EQ(strncmp(a.last_error, wanted, strlen(wanted)), 0);
        await_ok(other, &b, i + 1);
    }
    unsigned long long n = sizeof bad / sizeof bad[0];
    await_ok(fd, &a, n);
    static char large[100000];
    memset(large, 'x', sizeof large - 1); /* one line, in many buffers */
    say(fd, large);
    say(fd, "\nfine 1\nunfinished 1");
    CHECK_EQ(shutdown(fd, SHUT_WR), 0);
    while (read_answers(fd, &a))
        ;
    CHECK_EQ(a.ok, n + 3);
    CHECK_EQ(a.errors, n + 2);
    CHECK_STR_EQ(strstr(a.last_error, ": "), ": it does not end");
    CHECK_EQ(b.errors, 0);
    close(fd);
    close(other);
    stop_well(&p);
    CHECK_EQ(counter(&p, "malformed"), n + 2);
    CHECK_EQ(file_sums(&p, NULL).count, n + 1);
    clean_up(&p);
}

enum { MANY = 300 };

TEST(more_clients_and_keys_than_a_window_holds_are_several_windows)
{
    static struct program p;
    static struct answers a[MANY];
    static int fd[MANY];
    /* nothing but its bounds closes a window */
    START(&p, "--workers", "2", "--window", "1000000", "--every", "1000000");
    for (int i = 0; i < MANY; i++) {
        char text[64];
        fd[i] = peer_connect(p.port);
        snprintf(text, sizeof text, "key.%d 1\nkey.all 1\n", i);
        say(fd[i], text);
    }
    int told = 0;
    while (told == 0) { /* whoever is in the first window hears of it */
        struct pollfd some[MANY];
        for (int i = 0; i < MANY; i++)
            some[i] = (struct pollfd){ .fd = fd[i], .events = POLLIN };
        told = poll(some, MANY, -1);
    }
    CHECK_GT(told, 0);
    for (int k = 0; k < 2000; k++) {
        char text[64];
        snprintf(text, sizeof text, "more.%d 1\n", k);
        say(fd[0], text);
    }
    while (a[0].ok < 2 + 900) /* 1024 keys less a batch are enough for a window */
        CHECK(read_answers(fd[0], &a[0]));
    CHECK_EQ(kill(p.pid, SIGTERM), 0);
    for (int i = 0; i < MANY; i++) {
        while (read_answers(fd[i], &a[i]))
            ;
        CHECK_EQ(a[i].ok, i == 0 ? 2002 : 2);
        close(fd[i]);
    }
    CHECK_EQ(await_end(&p), 0);
    CHECK_EQ(file_sums(&p, NULL).count, 2 * MANY + 2000);
    CHECK_EQ(file_sums(&p, "key.all").count, MANY);
    CHECK_EQ(file_sums(&p, "more.1999").count, 1);
    clean_up(&p);
}

/* Sends this text over and over until nothing more goes for a while, or `most` bytes have gone. */
static size_t send_until_stopped(int fd, const char *text, size_t most)
{
    static char large[30000];
    size_t sent = 0, len = strlen(text);
    for (size_t i = 0; i < sizeof large; i++)
        large[i] = text[i % len];
    CHECK_EQ(sizeof large % len, 0);
    struct pollfd room = { .fd = fd, .events = POLLOUT };
    while (sent < most && poll(&room, 1, 300 * SLOWER) == 1) {
        size_t at = sent % sizeof large;
        ssize_t n = send(fd, large + at, sizeof large - at, MSG_NOSIGNAL | MSG_DONTWAIT);
        CHECK(n > 0 || errno == EAGAIN);
        sent += n > 0 ? (size_t)n : 0;
    }
    return sent;
}

enum { STOPPED_MOST = 128 << 20 };

TEST(a_client_that_never_reads_its_answers_stops_itself_and_nobody_else)
{
    static struct program p;
    struct answers a = { .len = 0 };
    START(&p, "--workers", "2", "--every", "5");
    int bad = peer_connect(p.port), fd = peer_connect(p.port);
    CHECK_LT(send_until_stopped(bad, "oh\n", STOPPED_MOST), STOPPED_MOST);
    for (unsigned i = 1; i <= 20; i++) {
        say(fd, "here 1\n");
        await_ok(fd, &a, i);
    }
    close(bad);
    close(fd);
    stop_well(&p);
    CHECK_EQ(file_sums(&p, NULL).count, 20);
    clean_up(&p);
}

/* ---- ending in mid-stream -------------------------------------------------------------------- */

/* A client that sends "cK 0", "cK 1", ... and so on until it is stopped. */
struct flood {
    int fd, k;
    unsigned long long lines_max, sent; /* whole lines, at least */
    struct answers answers;
    RV_ATOMIC(unsigned long long) acked;
    pthread_t writer, reader;
};

static void *flood_write(void *arg)
{
    struct flood *f = arg;
    char text[4096];
    uint32_t random = 7 * (uint32_t)f->k + 1;
    unsigned long long i = 0;
    while (i < f->lines_max) {
        size_t len = 0, lines = 0;
        while (len < sizeof text - 64 && i + lines < f->lines_max)
            len += (size_t)snprintf(text + len, 64, "c%d %llu\n", f->k, i + lines++);
        for (size_t at = 0; at < len;) {
            random = random * 1664525 + 1013904223;
            size_t piece = 1 + (random >> 8) % 3000;
            ssize_t n = send(f->fd, text + at, piece < len - at ? piece : len - at, MSG_NOSIGNAL);
            if (n < 0) {
                f->sent = i + lines; /* at most */
                return NULL;
            }
            at += (size_t)n;
        }
        i += lines;
    }
    f->sent = i;
    shutdown(f->fd, SHUT_WR);
    return NULL;
}

static void *flood_read(void *arg)
{
    struct flood *f = arg;
    while (read_answers(f->fd, &f->answers))
        rv_store_relaxed(&f->acked, f->answers.ok);
    shutdown(f->fd, SHUT_RDWR); /* so that the writer ends, too */
    return NULL;
}

static void flood_start(struct flood *f, int k, int port, unsigned long long lines_max)
{
    *f = (struct flood){ .fd = peer_connect(port), .k = k, .lines_max = lines_max };
    CHECK_EQ(pthread_create(&f->writer, NULL, flood_write, f), 0);
    CHECK_EQ(pthread_create(&f->reader, NULL, flood_read, f), 0);
}

static void flood_join(struct flood *f)
{
    CHECK_EQ(pthread_join(f->writer, NULL), 0);
    CHECK_EQ(pthread_join(f->reader, NULL), 0);
    close(f->fd);
    CHECK_EQ(f->answers.errors, 0);
}

/* The file has the first n lines of this client, n at least what was acknowledged. */
static void check_flood(const char *text, const struct flood *f)
{
    char key[16];
    snprintf(key, sizeof key, "c%d", f->k);
    struct sums s = sums_of(text, key);
    CHECK_GE(s.count, f->answers.ok);
    CHECK_LE(s.count, f->sent);
    double n = (double)s.count;
    if (s.count > 0)
        CHECK(s.sum == n * (n - 1) / 2 && s.min == 0 && s.max == n - 1);
}

enum { FLOODS = 4 };

TEST(a_sigterm_in_mid_stream_loses_nothing_that_was_acknowledged)
{
    static struct program p;
    static struct flood f[FLOODS];
    START(&p, "--workers", "2", "--window", "700", "--every", "5");
    for (int i = 0; i < FLOODS; i++)
        flood_start(&f[i], i, p.port, ULLONG_MAX);
    for (int i = 0; i < FLOODS; i++)
        AWAIT(rv_load_relaxed(&f[i].acked) >= times(2000));
    stop_well(&p); /* in the midst of it: nobody has stopped sending */
    size_t len;
    char *text = read_file(p.out, &len);
    for (int i = 0; i < FLOODS; i++) {
        flood_join(&f[i]);
        CHECK_GT(f[i].answers.ok, 0);
        check_flood(text, &f[i]);
    }
    CHECK_EQ(sums_of(text, NULL).count, counter(&p, "records"));
    CHECK_EQ(len, counter(&p, "bytes"));
    free(text);
    clean_up(&p);
}

TEST(a_sigkill_in_mid_stream_loses_nothing_that_was_acknowledged)
{
    static struct program p;
    static struct flood f[FLOODS];
    int status;
    START(&p, "--workers", "2", "--window", "700", "--every", "5");
    for (int i = 0; i < FLOODS; i++)
        flood_start(&f[i], i, p.port, ULLONG_MAX);
    for (int i = 0; i < FLOODS; i++)
        AWAIT(rv_load_relaxed(&f[i].acked) >= times(2000));
    CHECK_EQ(kill(p.pid, SIGKILL), 0);
    CHECK_EQ(waitpid(p.pid, &status, 0), p.pid);
    size_t len;
    char *text = read_file(p.out, &len), *end = strrchr(text, '\n');
    CHECK(end);
    end[1] = '\0'; /* of what was not acknowledged there may be half of a line */
    for (int i = 0; i < FLOODS; i++) {
        flood_join(&f[i]);
        CHECK_GT(f[i].answers.ok, 0);
        check_flood(text, &f[i]);
    }
    free(text);
    close(p.said_fd);
    clean_up(&p);
}

TEST(what_everybody_sent_is_acknowledged_and_in_the_file)
{
    static struct program p;
    static struct flood f[FLOODS];
    START(&p, "--workers", "2", "--window", "500", "--every", "5");
    for (int i = 0; i < FLOODS; i++)
        flood_start(&f[i], i, p.port, times(20000));
    for (int i = 0; i < FLOODS; i++)
        flood_join(&f[i]);
    stop_well(&p);
    size_t len;
    char *text = read_file(p.out, &len);
    for (int i = 0; i < FLOODS; i++) {
        CHECK_EQ(f[i].answers.ok, times(20000));
        CHECK_EQ(f[i].sent, times(20000));
        check_flood(text, &f[i]);
    }
    free(text);
    clean_up(&p);
}

TEST(clients_that_vanish_harm_nobody)
{
    static struct program p;
    struct answers a = { .len = 0 };
    START(&p, "--workers", "2", "--every", "5");
    int fd = peer_connect(p.port);
    for (int i = 0; i < 50; i++) {
        int gone = peer_connect(p.port);
        say(gone, i % 2 ? "gone 1\ngone 2\nhalf a li" : "gone 1\n");
        if (i % 3 == 0)
            close(gone);
        else
            peer_reset(gone);
        say(fd, "here 1\n");
        await_ok(fd, &a, (unsigned)i + 1);
    }
    close(fd);
    stop_well(&p);
    CHECK_EQ(file_sums(&p, "here").count, 50);
    clean_up(&p);
}

/* ---- subscribers ----------------------------------------------------------------------------- */

static const char heading[] = "# KEY COUNT SUM MIN MAX\n";

struct listener {
    int fd;
    char *text;
    size_t cap;
    RV_ATOMIC(size_t) len;
    pthread_t thread;
};

static void *listen_on(void *arg)
{
    struct listener *l = arg;
    ssize_t n;
    while ((n = recv(l->fd, l->text + l->len, l->cap - l->len, 0)) > 0)
        rv_store_release(&l->len, l->len + (size_t)n);
    CHECK_EQ(n, 0); /* its end is an orderly one */
    return NULL;
}

static size_t size_of(const char *path)
{
    struct stat st;
    CHECK_EQ(stat(path, &st), 0);
    return (size_t)st.st_size;
}

/* A subscriber that the server has in its list, with little room in the kernel. */
static int subscribe(const struct program *p)
{
    char text[sizeof heading] = "";
    int small = 4096, fd = peer_socket();
    CHECK_EQ(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small), 0);
    CHECK_OK(peer_try(fd, p->subscribe_port));
    peer_receive(fd, text, sizeof heading - 1);
    CHECK_STR_EQ(text, heading);
    return fd;
}

/* 500 keys that were never there before. */
static unsigned long long send_round(int fd, unsigned long long at)
{
    static char text[500 * 40];
    size_t len = 0;
    for (int i = 0; i < 500; i++)
        len += (size_t)snprintf(text + len, 40, "a.rather.long.key.%llu 1\n", at++);
    peer_send(fd, text, len);
    return at;
}

TEST(a_subscriber_that_never_reads_is_dropped_and_the_others_get_all)
{
    static struct program p;
    struct answers a = { .len = 0 };
    struct listener good = { .cap = 64 << 20 };
    START(&p, "--workers", "2", "--subscribe", "127.0.0.1:0", "--queue", "8", "--window", "500",
          "--every", "1000");
    int fd = peer_connect(p.port), bad = subscribe(&p);
    good.text = malloc(good.cap);
    CHECK(good.text);
    good.fd = subscribe(&p);
    CHECK_EQ(pthread_create(&good.thread, NULL, listen_on, &good), 0);
    struct pollfd gone = { .fd = bad, .events = POLLRDHUP };
    unsigned long long sent = 0;
    while (poll(&gone, 1, 0) == 0) {
        sent = send_round(fd, sent);
        await_ok(fd, &a, sent); /* it waits for nobody */
        AWAIT(rv_load_acquire(&good.len) == size_of(p.out));
    }
    CHECK(gone.revents & (POLLRDHUP | POLLHUP | POLLERR));
    sent = send_round(fd, sent);
    await_ok(fd, &a, sent);
    close(fd);
    stop_well(&p);
    CHECK_EQ(pthread_join(good.thread, NULL), 0);
    size_t len;
    char *text = read_file(p.out, &len);
    CHECK_EQ(good.len, len);
    CHECK_MEM_EQ(good.text, text, len);
    CHECK_EQ(sums_of(text, NULL).count, sent);
    CHECK_EQ(counter(&p, "subscribers"), 2);
    CHECK_EQ(counter(&p, "dropped_subscribers"), 1);
    free(text);
    free(good.text);
    close(good.fd);
    close(bad);
    clean_up(&p);
}

/* ---- files that are slow, or fail ------------------------------------------------------------ */

static const char line[] = "some.key.of.some.length 12345\n";
enum { LINE = sizeof line - 1 };

static size_t resident_kib(pid_t pid)
{
    char path[64], text[256];
    size_t kib = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *f = fopen(path, "re");
    CHECK(f);
    while (fgets(text, sizeof text, f))
        if (sscanf(text, "VmRSS: %zu", &kib) == 1)
            break;
    fclose(f);
    CHECK_GT(kib, 0);
    return kib;
}

/* A fifo in the place of the file; opened for reading, so that the program can open it, too. */
static int make_fifo(struct program *p)
{
    make_folder(p);
    CHECK_EQ(mkfifo(p->out, 0600), 0);
    int fd = open(p->out, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    CHECK_OK(fd);
    CHECK_EQ(fcntl(fd, F_SETFL, 0), 0);
    return fd;
}

static void *drain_fifo(void *arg)
{
    struct listener *l = arg;
    ssize_t n;
    while ((n = read(l->fd, l->text + l->len, l->cap - l->len)) > 0)
        rv_store_relaxed(&l->len, l->len + (size_t)n);
    return NULL;
}

TEST(a_slow_file_stops_its_clients_at_their_sockets)
{
    static struct program p;
    struct answers a = { .len = 0 };
    struct listener l = { .cap = 64 << 20 };
    l.fd = make_fifo(&p);
    /* each record a window, and a line in the file */
    start(&p, (const char *const[]){ "--out", p.out, "--window", "1", "--workers", "2", "--drain",
                                     "100", NULL });
    size_t before = resident_kib(p.pid);
    int fd = peer_connect(p.port);
    size_t sent = send_until_stopped(fd, line, STOPPED_MOST);
    CHECK_LT(sent, STOPPED_MOST); /* or nothing would ever have stopped it */
    if (SLOWER == 1) /* a sanitizer has memory of its own */
        CHECK_LT(resident_kib(p.pid), before + 16 * 1024);
    l.text = malloc(l.cap);
    CHECK(l.text);
    CHECK_EQ(pthread_create(&l.thread, NULL, drain_fifo, &l), 0);
    if (sent % LINE)
        say(fd, line + sent % LINE);
    unsigned long long lines = (sent + LINE - 1) / LINE;
    await_ok(fd, &a, lines); /* and it goes on from there */
    close(fd);
    stop_well(&p);
    CHECK_EQ(pthread_join(l.thread, NULL), 0);
    l.text[l.len] = '\0';
    CHECK_EQ(sums_of(l.text, NULL).count, lines);
    free(l.text);
    close(l.fd);
    clean_up(&p);
}

TEST(a_file_that_is_stuck_cannot_keep_the_program)
{
    static struct program p;
    struct answers a = { .len = 0 };
    int fifo = make_fifo(&p);
    start(&p, (const char *const[]){ "--out", p.out, "--window", "1", "--drain", "1", NULL });
    int fd = peer_connect(p.port);
    CHECK_LT(send_until_stopped(fd, line, STOPPED_MOST), STOPPED_MOST);
    CHECK_EQ(kill(p.pid, SIGTERM), 0);
    CHECK_EQ(await_end(&p), 1);
    while (read_answers(fd, &a))
        ;
    CHECK_EQ(fcntl(fifo, F_SETFL, O_NONBLOCK), 0);
    struct listener l = { .fd = fifo, .cap = 4 << 20 };
    l.text = malloc(l.cap + 1);
    CHECK(l.text);
    drain_fifo(&l);
    l.text[l.len] = '\0';
    char *end = strrchr(l.text, '\n');
    CHECK(end);
    end[1] = '\0'; /* what was given up may have been half of a line */
    CHECK_GE(sums_of(l.text, NULL).count, a.ok);
    free(l.text);
    close(fd);
    close(fifo);
    clean_up(&p);
}

TEST(a_file_that_fails_ends_the_program_and_acknowledges_nothing)
{
    static struct program p;
    struct answers a = { .len = 0 };
    make_folder(&p);
    start(&p, (const char *const[]){ "--out", "/dev/full", "--every", "5", NULL });
    int fd = peer_connect(p.port);
    say(fd, "key 1\n");
    while (read_answers(fd, &a))
        ;
    CHECK_EQ(a.ok, 0);
    CHECK_STR_EQ(a.last_error, "error: the file failed");
    CHECK_EQ(await_end(&p), 1);
    CHECK(strstr(p.said, strerror(ENOSPC)));
    CHECK_EQ(counter(&p, "records"), 0);
    close(fd);
    clean_up(&p);
}

/* ---- starting -------------------------------------------------------------------------------- */

TEST(what_keeps_it_from_starting_is_said)
{
    static struct program p, other;
    char addr[32];
    START(&p, "--every", "5");
    snprintf(addr, sizeof addr, "127.0.0.1:%d", p.port);
    make_folder(&other);
    launch(&other, (const char *const[]){ "--out", other.out, "--subscribe", addr, NULL });
    CHECK_EQ(await_end(&other), 1);
    CHECK(strstr(other.said, strerror(EADDRINUSE)));
    clean_up(&other);
    make_folder(&other);
    launch(&other, (const char *const[]){ "--out", other.folder, NULL });
    CHECK_EQ(await_end(&other), 1);
    CHECK(strstr(other.said, strerror(EISDIR)));
    other.said_len = 0;
    launch(&other, (const char *const[]){ "--queue", "0", NULL });
    CHECK_EQ(await_end(&other), 2);
    CHECK_EQ(rmdir(other.folder), 0);
    stop_well(&p);
    clean_up(&p);
}
