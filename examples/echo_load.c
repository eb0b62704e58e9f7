/* SPDX-License-Identifier: MIT */
/*
 * echo_load.c -- loads an echo server: closed loop, every byte checked, latency percentiles.
 *
 *     echo_load 127.0.0.1:7000 --conns 500 --seconds 5 --cpu 1
 *     echo_load 127.0.0.1:7000 --idle 10000 --conns 0 --seconds 60
 *     echo_load 127.0.0.1:7000 --pid $(pidof echo)       adds the server's CPU time per request
 *
 * Each connection sends a message, waits until exactly that message has come back, sends the next.
 * It is a program of its own, in plain C over epoll, so that it measures any server alike. It has
 * to be cheap itself: per request one recv, one send, two clock reads, one compare, no allocation.
 *
 * (1) Message k of connection c is a window of one random pattern; where it begins depends on both.
 *     Nothing is written per request, yet a lost, doubled, late or crossed byte is a mismatch.
 * (2) Edge triggered: a receive that fills less than the buffer has emptied the socket. The buffer
 *     is one byte longer than a message, so a whole reply is always such a receive, and a server
 *     that sends too much is caught.
 * (3) A pass takes in every reply that is there, then sends all the next requests. So the server
 *     meets bursts, as from many clients, and has one to work on while the load reads replies;
 *     taking turns one by one, the two would put each other to sleep and wake each other.
 *     The clock is read when a reply is in, and again just before the next request goes out.
 * (4) A request counts if its reply came inside the measured window. At the end no request is
 *     begun; those under way have GRACE_NS to finish, or are errors.
 * (5) The server's CPU time comes from perf's task clock where we may use it, else from schedstat.
 *     On a busy machine schedstat says too little: once a thread is about to be preempted, what it
 *     still runs in the kernel is charged to the next one, and a server on io_uring stays in the
 *     kernel for whole batches (seen: two thirds lost, with a load of higher priority on its CPU).
 *
 * Latency is measured in a closed loop: a stalled server also stalls the load, so the tail is that
 * of a client that waits its turn, not that of arrivals at a fixed rate.
 *
 * Threads: each owns its epoll, its connections and its histogram; thread 0 also reads the server's
 * CPU time at both ends of the window. `config` is written before they start; they meet at two
 * barriers, between which thread 0 sets the window.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/perf_event.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SEC INT64_C(1000000000)
#define GRACE_NS (5 * SEC)

enum {
    THREADS_MAX = 64,
    CONNS_MAX = 1000000,
    SIZE_MAX_BYTES = 64 << 20,
    EVENTS = 512,
    WINDOWS = 4096,           /* messages begin at so many offsets of the pattern */
    CHUNK = 256 << 10,        /* at most so much per recv */
    BLOCKING_MAX = 16 << 10,  /* one connection with messages this small needs no epoll */
    TICK_MS = 100,            /* how long a silent server may delay the look at the clock */
    METER_THREADS = 256,
};

struct config {
    const char *addr;
    int64_t conns, size, threads, idle, pid;
    double seconds, warmup;
    int cpus[THREADS_MAX];
    int cpus_n;
    bool json, histogram;
};

/* A log-linear histogram: 128 buckets per power of two, so a value is known to 0.8 %. */

enum { SUB_BITS = 7, SUB = 1 << SUB_BITS, BUCKETS = (64 - SUB_BITS + 1) << SUB_BITS };

struct histogram {
    uint64_t count, max;
    uint64_t buckets[BUCKETS];
};

static void histogram_add(struct histogram *h, uint64_t value)
{
    unsigned shift = value < SUB ? 0 : 63 - SUB_BITS - (unsigned)__builtin_clzll(value);
    h->buckets[shift * SUB + (value >> shift)]++;
    h->count++;
    if (value > h->max)
        h->max = value;
}

static uint64_t bucket_low(unsigned i)
{
    unsigned shift = i < 2 * SUB ? 0 : i / SUB - 1;
    return (uint64_t)(i - shift * SUB) << shift;
}

/** The middle of the bucket that holds the value below which `share` of all values lie. */
static double histogram_at(const struct histogram *h, double share)
{
    uint64_t rank = (uint64_t)(share * (double)h->count), seen = 0;
    for (unsigned i = 0; i < BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen > rank) {
            double middle = (double)(bucket_low(i) + bucket_low(i + 1)) / 2;
            return middle < (double)h->max ? middle : (double)h->max;
        }
    }
    return (double)h->max;
}

static void histogram_merge(struct histogram *to, const struct histogram *from)
{
    for (unsigned i = 0; i < BUCKETS; i++)
        to->buckets[i] += from->buckets[i];
    to->count += from->count;
    if (from->max > to->max)
        to->max = from->max;
}

/** One line per quarter of a power of two, empty ones left out. */
static void histogram_print(const struct histogram *h)
{
    uint64_t seen = 0;
    for (unsigned i = 0; i < BUCKETS; i += SUB / 4) {
        uint64_t n = 0;
        for (unsigned k = i; k < i + SUB / 4 && k < BUCKETS; k++)
            n += h->buckets[k];
        if (!n)
            continue;
        seen += n;
        double share = (double)n / (double)h->count;
        printf("  %10.1f us %10" PRIu64 " %8.4f %% ", (double)bucket_low(i) / 1e3, n,
               100 * (double)seen / (double)h->count);
        for (int bar = (int)(share * 100); bar > 0; bar--)
            putchar('#');
        putchar('\n');
    }
}

struct conn {
    int fd;
    bool under_way;
    uint32_t id, seq;
    uint32_t sent, got; /* bytes of the current message */
    int64_t begun;
};

/* The server's CPU time: a task clock for each of its threads, or none and schedstat instead. */
struct meter {
    int fds[METER_THREADS];
    int n;
};

struct loader {
    int index;
    pthread_t thread;
    int ep;
    bool blocking; /* one connection, small messages: recv waits, epoll is not needed */
    struct conn *conns;
    uint32_t conns_n, under_way, lost;
    struct conn *ready[EVENTS]; /* their reply is in, the next request is due */
    int ready_n;
    unsigned char *buf;
    size_t buf_bytes;
    uint64_t requests_all; /* warm-up and the last ones too */
    uint64_t errors;
    char first_error[160];
    int64_t measured_ns, cpu_ns;
    int64_t server_cpu_ns; /* thread 0 */
    struct histogram latency;
};

static struct config config = { .conns = 50, .size = 64, .threads = 1, .seconds = 5, .warmup = 1 };
static unsigned char *pattern;
static struct addrinfo *target;
static struct meter meter;
static pthread_barrier_t all_open;
static int64_t begin_ns, end_ns; /* set by thread 0 between two barriers */
static volatile sig_atomic_t interrupted;

static _Noreturn void die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("echo_load: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(1);
}

static int64_t clock_ns(clockid_t id)
{
    struct timespec ts;
    clock_gettime(id, &ts);
    return ts.tv_sec * SEC + ts.tv_nsec;
}

/* From the scheduler's own account of a thread; 0 if it has just ended. */
static uint64_t schedstat_ns(const char *tid)
{
    char path[300];
    uint64_t ns = 0;
    snprintf(path, sizeof path, "/proc/%" PRId64 "/task/%s/schedstat", config.pid, tid);
    FILE *f = fopen(path, "re");
    if (f && fscanf(f, "%" SCNu64, &ns) != 1)
        ns = 0;
    if (f)
        fclose(f);
    return ns;
}

/* A task clock counts user and kernel time alike; exclude_kernel only asks for fewer rights. */
static int task_clock_open(const char *tid)
{
    struct perf_event_attr attr = {
        .type = PERF_TYPE_SOFTWARE, .size = sizeof attr, .config = PERF_COUNT_SW_TASK_CLOCK,
        .inherit = 1, .exclude_kernel = 1, .exclude_hv = 1,
    };
    return (int)syscall(SYS_perf_event_open, &attr, atoi(tid), -1, -1, PERF_FLAG_FD_CLOEXEC);
}

/* Calls `thread` for each thread of the server; its results add up, unless one is negative. */
static int64_t meter_each(int64_t (*thread)(struct meter *m, const char *tid), struct meter *m)
{
    char path[64];
    int64_t sum = 0;
    snprintf(path, sizeof path, "/proc/%" PRId64 "/task", config.pid);
    DIR *dir = opendir(path);
    if (!dir)
        die("cannot read %s: %s (is --pid right?)", path, strerror(errno));
    for (struct dirent *e; sum >= 0 && (e = readdir(dir));) {
        int64_t n = e->d_name[0] == '.' ? 0 : thread(m, e->d_name);
        sum = n < 0 ? n : sum + n;
    }
    closedir(dir);
    return sum;
}

static int64_t meter_add(struct meter *m, const char *tid)
{
    int fd = m->n < METER_THREADS ? task_clock_open(tid) : -1;
    if (fd < 0)
        return -1;
    m->fds[m->n++] = fd;
    return 0;
}

static int64_t meter_schedstat(struct meter *m, const char *tid)
{
    (void)m;
    return (int64_t)schedstat_ns(tid);
}

static void meter_open(struct meter *m)
{
    if (meter_each(meter_add, m) == 0 && m->n > 0)
        return;
    while (m->n > 0)
        close(m->fds[--m->n]);
}

/* What the server's threads have run, ns; only differences mean something (5). */
static int64_t meter_read(struct meter *m)
{
    int64_t sum = 0;
    if (!m->n)
        return meter_each(meter_schedstat, m);
    for (int i = 0; i < m->n; i++) {
        int64_t ns;
        if (read(m->fds[i], &ns, sizeof ns) == sizeof ns)
            sum += ns;
    }
    return sum;
}

static const unsigned char *message(const struct conn *c)
{
    return pattern + ((c->seq * 61 + c->id * 577) & (WINDOWS - 1));
}

static void fail(struct loader *l, struct conn *c, const char *fmt, ...)
{
    if (!l->errors++) {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(l->first_error, sizeof l->first_error, fmt, ap);
        va_end(ap);
    }
    close(c->fd);
    c->fd = -1;
    l->lost++;
    l->under_way -= c->under_way;
    c->under_way = false;
}

/* Sends until the message is out or the socket is full; its next edge goes on from there. */
static void send_some(struct loader *l, struct conn *c)
{
    while (c->sent < config.size) {
        ssize_t n = send(c->fd, message(c) + c->sent, (size_t)config.size - c->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            if (errno != EAGAIN)
                fail(l, c, "send: %s", strerror(errno));
            return;
        }
        c->sent += (uint32_t)n;
    }
}

static void request_begin(struct loader *l, struct conn *c)
{
    c->sent = c->got = 0;
    c->seq++;
    c->begun = clock_ns(CLOCK_MONOTONIC);
    c->under_way = true;
    l->under_way++;
    send_some(l, c);
}

static void request_end(struct loader *l, struct conn *c)
{
    int64_t now = clock_ns(CLOCK_MONOTONIC);
    c->under_way = false;
    l->under_way--;
    l->requests_all++;
    if (now >= begin_ns && now < end_ns)
        histogram_add(&l->latency, (uint64_t)(now - c->begun));
    l->ready[l->ready_n++] = c; /* at most one per event: there is room */
}

static void receive(struct loader *l, struct conn *c)
{
    ssize_t n;
    do {
        n = recv(c->fd, l->buf, l->buf_bytes, 0);
        if (n < 0) {
            if (errno != EAGAIN && errno != EINTR)
                fail(l, c, "recv: %s", strerror(errno));
            return;
        }
        if (n == 0) {
            fail(l, c, "the server closed a connection");
        } else if (!c->under_way || n > config.size - c->got) {
            fail(l, c, "mismatch: more bytes came back than were sent");
        } else if (memcmp(l->buf, message(c) + c->got, (size_t)n) != 0) {
            fail(l, c, "mismatch: message %" PRIu32 " came back changed, near byte %" PRIu32,
                 c->seq, c->got);
        } else {
            c->got += (uint32_t)n;
            if (c->got == config.size)
                request_end(l, c);
        }
    } while (c->fd >= 0 && (size_t)n == l->buf_bytes);
}

static void take_replies(struct loader *l, struct epoll_event *events)
{
    if (l->blocking) {
        receive(l, &l->conns[0]);
        return;
    }
    int n = epoll_wait(l->ep, events, EVENTS, TICK_MS);
    for (int i = 0; i < n; i++) {
        struct conn *c = events[i].data.ptr;
        if ((events[i].events & EPOLLOUT) && c->under_way)
            send_some(l, c);
        if ((events[i].events & ~(uint32_t)EPOLLOUT) && c->fd >= 0)
            receive(l, c);
    }
}

static void pass(struct loader *l, struct epoll_event *events)
{
    take_replies(l, events);
    bool more = !interrupted && clock_ns(CLOCK_MONOTONIC) < end_ns;
    for (int i = 0; i < l->ready_n && more; i++)
        request_begin(l, l->ready[i]);
    l->ready_n = 0;
}

static int connect_once(void)
{
    int one = 1, fd = socket(target->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("cannot open another socket: %s (see ulimit -n)", strerror(errno));
    struct timeval limit = { .tv_sec = 5 };
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (connect(fd, target->ai_addr, target->ai_addrlen) < 0)
        die("cannot connect to %s: %s%s", config.addr, strerror(errno),
            errno == ECONNREFUSED ? " (is the server running?)" : "");
    return fd;
}

static void conn_open(struct loader *l, struct conn *c, uint32_t id)
{
    *c = (struct conn){ .fd = connect_once(), .id = id };
    if (l->blocking) {
        struct timeval tick = { .tv_usec = TICK_MS * 1000 };
        setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &tick, sizeof tick);
        return;
    }
    struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c };
    if (fcntl(c->fd, F_SETFL, O_NONBLOCK) < 0 || epoll_ctl(l->ep, EPOLL_CTL_ADD, c->fd, &ev) < 0)
        die("cannot watch a connection: %s", strerror(errno));
}

/* Holds a connection that has done one exchange, so that the server has really set it up. */
static int idle_open(unsigned char *reply)
{
    int fd = connect_once();
    if (send(fd, pattern, (size_t)config.size, MSG_NOSIGNAL) != (ssize_t)config.size)
        die("cannot send on an idle connection: %s", strerror(errno));
    for (int64_t got = 0; got < config.size;) {
        ssize_t n = recv(fd, reply, (size_t)(config.size - got), 0);
        if (n <= 0)
            die("no reply on an idle connection: %s", n ? strerror(errno) : "closed");
        if (memcmp(reply, pattern + got, (size_t)n) != 0)
            die("mismatch: a message came back changed on an idle connection");
        got += n;
    }
    return fd;
}

static void pin(int index)
{
    if (!config.cpus_n)
        return;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(config.cpus[index % config.cpus_n], &set);
    if (sched_setaffinity(0, sizeof set, &set) < 0)
        die("cannot run on CPU %d: %s", config.cpus[index % config.cpus_n], strerror(errno));
}

static void loader_open(struct loader *l)
{
    pin(l->index);
    l->ep = epoll_create1(EPOLL_CLOEXEC);
    l->buf_bytes = (size_t)(config.size < CHUNK ? config.size : CHUNK) + 1;
    l->buf = malloc(l->buf_bytes);
    if (l->ep < 0 || !l->buf)
        die("cannot set up a thread: %s", strerror(errno));
    l->blocking = l->conns_n == 1 && config.size <= BLOCKING_MAX;
    for (uint32_t i = 0; i < l->conns_n; i++)
        conn_open(l, &l->conns[i], (uint32_t)l->index + i * (uint32_t)config.threads);
}

/* Thread 0, once every thread has its connections. */
static void window_open(void)
{
    if (config.json) {
        printf("{\"event\":\"open\",\"conns\":%" PRId64 ",\"idle\":%" PRId64 "}\n", config.conns,
               config.idle);
        fflush(stdout);
    }
    begin_ns = clock_ns(CLOCK_MONOTONIC) + (int64_t)(config.warmup * 1e9);
    end_ns = begin_ns + (int64_t)(config.seconds * 1e9);
}

static void loader_measure(struct loader *l, struct epoll_event *events)
{
    int64_t now = clock_ns(CLOCK_MONOTONIC), from = now, cpu = 0;
    bool measuring = false, watch = l->index == 0 && config.pid;
    for (uint32_t i = 0; i < l->conns_n; i++)
        request_begin(l, &l->conns[i]);
    while (now < end_ns && !interrupted && (l->lost < l->conns_n || !l->conns_n)) {
        if (!measuring && now >= begin_ns) {
            measuring = true;
            from = now;
            cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID);
            l->server_cpu_ns = watch ? meter_read(&meter) : 0;
        }
        pass(l, events);
        now = clock_ns(CLOCK_MONOTONIC);
    }
    if (measuring) {
        l->server_cpu_ns = watch ? meter_read(&meter) - l->server_cpu_ns : 0;
        l->cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu;
        l->measured_ns = (now < end_ns ? now : end_ns) - from;
    }
    while (l->under_way && clock_ns(CLOCK_MONOTONIC) < now + GRACE_NS)
        pass(l, events);
    for (uint32_t i = 0; i < l->conns_n; i++)
        if (l->conns[i].under_way)
            fail(l, &l->conns[i], "a reply did not come");
}

static void *loader_run(void *arg)
{
    struct loader *l = arg;
    struct epoll_event events[EVENTS];
    loader_open(l);
    pthread_barrier_wait(&all_open);
    if (l->index == 0)
        window_open();
    pthread_barrier_wait(&all_open);
    loader_measure(l, events);
    return NULL;
}

static const char usage[] =
    "usage: echo_load HOST:PORT [options]\n"
    "  --conns N      connections that send (50)\n"
    "  --size BYTES   message size (64)\n"
    "  --seconds S    measured time (5), after\n"
    "  --warmup S     time that does not count (1)\n"
    "  --threads N    threads that share the connections (1)\n"
    "  --cpu LIST     thread i runs on the i-th of these CPUs: --cpu 1 or --cpu 2,3\n"
    "  --idle N       open N more connections, one exchange each, and hold them\n"
    "  --pid PID      also report that process's CPU time per request\n"
    "  --histogram    print the latencies' distribution\n"
    "  --json         print one JSON object (after one when all connections are open)\n"
    "Ends early on SIGINT or SIGTERM. Exit status 1 if anything went wrong.\n";

static int64_t number(const char *option, const char *value, int64_t min, int64_t max)
{
    char *end;
    errno = 0;
    int64_t n = strtoll(value, &end, 10);
    if (errno || end == value || *end || n < min || n > max)
        die("%s takes a whole number from %" PRId64 " to %" PRId64 ", not '%s'", option, min, max,
            value);
    return n;
}

static double seconds(const char *option, const char *value, double min)
{
    char *end;
    double s = strtod(value, &end);
    if (end == value || *end || !(s >= min && s <= 86400))
        die("%s takes seconds from %g to 86400, not '%s'", option, min, value);
    return s;
}

static void parse_cpus(const char *list)
{
    for (const char *s = list;;) {
        char *end;
        long cpu = strtol(s, &end, 10);
        if (end == s || cpu < 0 || cpu >= CPU_SETSIZE || (*end && *end != ',') ||
            config.cpus_n == THREADS_MAX)
            die("--cpu takes numbers with commas between them, not '%s'", list);
        config.cpus[config.cpus_n++] = (int)cpu;
        if (!*end)
            return;
        s = end + 1;
    }
}

static void parse_value(const char *option, const char *value)
{
    if (!strcmp(option, "--conns"))
        config.conns = number(option, value, 0, CONNS_MAX);
    else if (!strcmp(option, "--size"))
        config.size = number(option, value, 1, SIZE_MAX_BYTES);
    else if (!strcmp(option, "--threads"))
        config.threads = number(option, value, 1, THREADS_MAX);
    else if (!strcmp(option, "--idle"))
        config.idle = number(option, value, 0, CONNS_MAX);
    else if (!strcmp(option, "--pid"))
        config.pid = number(option, value, 1, INT32_MAX);
    else if (!strcmp(option, "--seconds"))
        config.seconds = seconds(option, value, 0.01);
    else if (!strcmp(option, "--warmup"))
        config.warmup = seconds(option, value, 0);
    else if (!strcmp(option, "--cpu"))
        parse_cpus(value);
    else
        die("there is no option %s\n%s", option, usage);
}

static void parse(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            fputs(usage, stdout);
            exit(0);
        } else if (!strcmp(argv[i], "--json")) {
            config.json = true;
        } else if (!strcmp(argv[i], "--histogram")) {
            config.histogram = true;
        } else if (argv[i][0] != '-') {
            if (config.addr)
                die("two addresses: %s and %s", config.addr, argv[i]);
            config.addr = argv[i];
        } else if (i + 1 == argc) {
            die("%s is the last word: an option lacks its value\n%s", argv[i], usage);
        } else {
            parse_value(argv[i], argv[i + 1]);
            i++;
        }
    }
    if (!config.addr)
        die("which server? give its address as HOST:PORT\n%s", usage);
    if (!config.conns && !config.idle)
        die("--conns 0 without --idle would do nothing");
    if (config.threads > config.conns)
        config.threads = config.conns ? config.conns : 1;
}

static void resolve(void)
{
    char host[256];
    const char *colon = strrchr(config.addr, ':');
    if (!colon || colon == config.addr || !colon[1])
        die("'%s' is not an address; write HOST:PORT, like 127.0.0.1:7000", config.addr);
    size_t len = (size_t)(colon - config.addr);
    bool bracketed = config.addr[0] == '[' && config.addr[len - 1] == ']';
    snprintf(host, sizeof host, "%.*s", (int)(bracketed ? len - 2 : len), config.addr + bracketed);
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
    int r = getaddrinfo(host, colon + 1, &hints, &target);
    if (r)
        die("cannot resolve %s: %s", config.addr, gai_strerror(r));
}

static void files_max(void)
{
    struct rlimit lim;
    getrlimit(RLIMIT_NOFILE, &lim);
    lim.rlim_cur = lim.rlim_max;
    setrlimit(RLIMIT_NOFILE, &lim);
    if (lim.rlim_cur != RLIM_INFINITY &&
        (rlim_t)(config.conns + config.idle + config.threads + 16) > lim.rlim_cur)
        die("%" PRId64 " connections need more descriptors than the limit of %llu (ulimit -Hn)",
            config.conns + config.idle, (unsigned long long)lim.rlim_cur);
}

static void pattern_make(void)
{
    size_t bytes = (size_t)config.size + WINDOWS;
    pattern = malloc(bytes);
    if (!pattern)
        die("out of memory");
    uint64_t x = 0x9e3779b97f4a7c15;
    for (size_t i = 0; i < bytes; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        pattern[i] = (unsigned char)(x >> 32);
    }
}

static void report(const struct loader *t, uint64_t idle_closed)
{
    const struct histogram *h = &t->latency;
    double s = (double)t->measured_ns / 1e9;
    double n = h->count ? (double)h->count : 1;
    double rate = s > 0 ? (double)h->count / s : 0;
    double p50 = histogram_at(h, 0.5) / 1e3, p90 = histogram_at(h, 0.9) / 1e3;
    double p99 = histogram_at(h, 0.99) / 1e3, p999 = histogram_at(h, 0.999) / 1e3;
    double max = (double)h->max / 1e3;
    if (config.json) {
        printf("{\"conns\":%" PRId64 ",\"idle\":%" PRId64 ",\"size\":%" PRId64 ",\"seconds\":%.3f,"
               "\"requests\":%" PRIu64 ",\"requests_all\":%" PRIu64 ",\"errors\":%" PRIu64
               ",\"idle_closed\":%" PRIu64 ",\"req_per_s\":%.0f,\"p50_us\":%.2f,\"p90_us\":%.2f,"
               "\"p99_us\":%.2f,\"p999_us\":%.2f,\"max_us\":%.2f,\"load_cpu_ns_per_req\":%.0f",
               config.conns, config.idle, config.size, s, h->count,
               t->requests_all + (uint64_t)config.idle, t->errors, idle_closed, rate, p50, p90, p99,
               p999, max, (double)t->cpu_ns / n);
        if (config.pid)
            printf(",\"server_cpu_ns_per_req\":%.1f,\"cpu_clock\":\"%s\"",
                   (double)t->server_cpu_ns / n, meter.n ? "perf" : "schedstat");
        puts("}");
        return;
    }
    printf("%s: %" PRId64 " connections, messages of %" PRId64 " bytes, %.2f s", config.addr,
           config.conns, config.size, s);
    if (config.idle)
        printf(", %" PRId64 " more held idle (%" PRIu64 " closed by the server)", config.idle,
               idle_closed);
    printf("\n  requests/s  %.0f\n", rate);
    printf("  latency     p50 %.1f us   p90 %.1f us   p99 %.1f us   p99.9 %.1f us   max %.1f us\n",
           p50, p90, p99, p999, max);
    if (config.pid)
        printf("  server CPU  %.0f ns per request, %.0f %% of one CPU (%s)\n",
               (double)t->server_cpu_ns / n, (double)t->server_cpu_ns / 1e7 / s,
               meter.n ? "perf task clock" : "schedstat");
    printf("  load CPU    %.0f ns per request\n", (double)t->cpu_ns / n);
    printf("  errors      %" PRIu64 "\n", t->errors);
    if (config.histogram)
        histogram_print(h);
}

static void on_signal(int signo)
{
    (void)signo;
    interrupted = 1;
}

/* How many of the idle connections the server has closed meanwhile. */
static uint64_t idle_closed(const int *fds)
{
    uint64_t closed = 0;
    for (int64_t i = 0; i < config.idle; i++) {
        char byte;
        ssize_t n = recv(fds[i], &byte, 1, MSG_DONTWAIT | MSG_PEEK);
        closed += n == 0 || (n < 0 && errno != EAGAIN);
    }
    return closed;
}

static int *idle_open_all(void)
{
    int *fds = calloc((size_t)config.idle + 1, sizeof *fds);
    unsigned char *reply = malloc((size_t)config.size);
    if (!fds || !reply)
        die("out of memory");
    for (int64_t i = 0; i < config.idle; i++)
        fds[i] = idle_open(reply);
    free(reply);
    return fds;
}

static void run_all(struct loader *loaders)
{
    pthread_barrier_init(&all_open, NULL, (unsigned)config.threads);
    for (int64_t i = 0; i < config.threads; i++) {
        struct loader *l = &loaders[i];
        l->index = (int)i;
        l->conns_n = (uint32_t)(config.conns / config.threads);
        l->conns_n += i < config.conns % config.threads;
        l->conns = calloc(l->conns_n + 1, sizeof *l->conns);
        if (!l->conns)
            die("out of memory");
        if (i && pthread_create(&l->thread, NULL, loader_run, l))
            die("cannot start thread %d", (int)i);
    }
    loader_run(&loaders[0]);
    struct loader *t = &loaders[0];
    for (int64_t i = 1; i < config.threads; i++) {
        pthread_join(loaders[i].thread, NULL);
        histogram_merge(&t->latency, &loaders[i].latency);
        t->requests_all += loaders[i].requests_all;
        t->cpu_ns += loaders[i].cpu_ns;
        if (!t->errors)
            memcpy(t->first_error, loaders[i].first_error, sizeof t->first_error);
        t->errors += loaders[i].errors;
    }
}

static void clean_up(struct loader *loaders, int *idle)
{
    for (int64_t i = 0; i < config.threads; i++) {
        free(loaders[i].conns);
        free(loaders[i].buf);
    }
    free(loaders);
    free(idle);
    free(pattern);
    freeaddrinfo(target);
}

int main(int argc, char **argv)
{
    parse(argc, argv);
    resolve();
    files_max();
    pattern_make();
    struct sigaction sa = { .sa_handler = on_signal }; /* no SA_RESTART: waits end at once */
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    struct loader *loaders = calloc((size_t)config.threads, sizeof *loaders);
    if (!loaders)
        die("out of memory");
    if (config.pid)
        meter_open(&meter);
    pin(0);
    int *idle = idle_open_all();
    run_all(loaders);
    report(&loaders[0], idle_closed(idle));
    bool failed = loaders[0].errors != 0;
    if (failed)
        fprintf(stderr, "echo_load: %" PRIu64 " errors, the first: %s\n", loaders[0].errors,
                loaders[0].first_error);
    clean_up(loaders, idle); /* sockets are closed by the exit */
    return failed;
}
