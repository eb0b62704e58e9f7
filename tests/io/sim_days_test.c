/* SPDX-License-Identifier: MIT */
/*
 * sim_days_test.c -- bad days in the simulation: every operation of every call completes in every
 * way.
 *
 * The table is days.h. Each cell is a run of its own: a row, a seed, how many operations of the
 * call go well, and what the next one says. The first cell of a column tells which operation that
 * is, and so which results it may say; the others have to meet the same one, since a seed is a run.
 * A column that meets none has come to the end of the call.
 *
 *     REEVE_DAY="row workers seed skip result" .../sim_days_test    one cell; what a failure prints
 *     REEVE_SIM_TRACE=1                                             with it: every event
 *     REEVE_SIM_SEEDS=100                                           more seeds than by default
 */
#define CHECK_MAIN
#include "tests/io/sim_seeds.h"

#include "tests/io/days.h"

#include "io/sim_world.h"

#define AT "127.0.0.1:7900"
#define PORT 7901
#define AWHILE reeve_in(REEVE_MS)

enum { OPS = 1 << 16, SEEDS = SEEDS_SHARE > 2 ? 1 : 2 };

/* What the process that walks shares with the one that waits for it. */
struct walk {
    unsigned row, workers, skip;
    uint64_t seed;
    int result;
    uint64_t cells, columns;
    uint64_t met[ROWS];          /* operations */
    bool code[RV_OP_CODES];      /* those that were met */
    bool opcode[UINT8_MAX + 1];
};

static struct walk *walk;
static struct answered cell;     /* the last one */
static struct rv_sim_result run; /* and what came of it */
static uint8_t code_of[OPS];     /* of the operations that were queued, by their index */
static uint8_t code_met;

/* ---- the engine of days.h -------------------------------------------------------------------- */

static void make_streams(struct day *d)
{
    int fds[2];
    snprintf(d->at, sizeof d->at, "%s", AT);
    d->p.listener = (int)CHECK_OK(reeve_listen(AT, 0));
    d->p.peer = (int)CHECK_OK(reeve_dial(AT, LONG));
    d->p.fd = (int)CHECK_OK(reeve_accept(d->p.listener, LONG));
    CHECK_EQ(rv_sim_pair(fds), 0);
    d->foreign = fds[0];
    d->foreign_peer = fds[1];
}

/* What there is room for. */
static bool say_some(struct day *d)
{
    size_t len = strlen(d->text);
    while (d->said < d->due) {
        size_t at = d->said % len;
        int32_t n = rv_sim_send(rv_sim_file_of(d->speaker), d->text + at, (uint32_t)(len - at));
        if (n == RV_SIM_WAIT)
            return false;
        d->said += (size_t)CHECK_OK(n);
    }
    return true;
}

static int says(void *arg)
{
    struct day *d = arg;
    while (!say_some(d))
        if (reeve_sleep(AWHILE) < 0)
            break;
    d->saying = false;
    return 0;
}

static void plain_say(struct day *d, int fd)
{
    d->speaker = fd;
    if (d->saying || say_some(d))
        return;
    d->saying = true;
    someone(d, says);
}

static int hears(void *arg)
{
    struct day *d = arg;
    int r = 0;
    while (r == 0) {
        uint32_t room = (uint32_t)(sizeof d->heard - d->heard_n);
        int32_t n = rv_sim_recv(rv_sim_file_of(d->p.peer), d->heard + d->heard_n, room);
        if (n == RV_SIM_WAIT)
            r = reeve_sleep(AWHILE);
        else if (n <= 0)
            break;
        else
            d->heard_n += (size_t)n;
    }
    return 0;
}

static void plain_listen(struct day *d)
{
    if (!d->hearing)
        someone(d, hears);
    d->hearing = true;
}

static void plain_heard(struct day *d, size_t n)
{
    (void)n;
    while (rv_sim_file_of(d->p.peer)->in.sent > 0)
        CHECK_EQ(reeve_sleep(AWHILE), 0);
}

static void plain_connect(struct day *d)
{
    keep(d, reeve_dial(d->at, LONG));
}

static int listen_everywhere(uint16_t *ret_port)
{
    char at[32];
    snprintf(at, sizeof at, "0.0.0.0:%d", PORT);
    *ret_port = PORT;
    return reeve_listen(at, 0);
}

static void tell(unsigned skip, int result)
{
    rv_sim_answer(skip, result);
}

static struct answered told(void)
{
    int opcode = 0;
    struct answered a = { .met = rv_sim_answered(&opcode) };
    if (a.met) {
        a.code = code_met;
        a.opcode = (uint8_t)opcode;
    } else {
        rv_sim_answer(UINT_MAX, 0);
    }
    return a;
}

/* ---- one cell -------------------------------------------------------------------------------- */

static void watch(void *ctx, const struct rv_sim_event *e)
{
    if (seeds_number("REEVE_SIM_TRACE", 0))
        seeds_print(ctx, e);
    if (e->kind != RV_SIM_QUEUE && e->kind != RV_SIM_FAULT)
        return;
    CHECK_LT(e->index, OPS);
    if (e->kind == RV_SIM_QUEUE)
        code_of[e->index] = (uint8_t)e->result;
    else
        code_met = code_of[e->index];
}

static int root(void *arg)
{
    (void)arg;
    cell = day_cell(&rows[walk->row], walk->result, walk->skip);
    return 0;
}

/* Every second seed has transfers fall short by themselves. */
static struct answered run_cell(int result)
{
    const struct row *row = &rows[walk->row];
    bool shorter = walk->seed % 2 == 0 && !(row->how & PROGRAMS);
    struct rv_sim_opts opts = {
        .seed = walk->seed, .workers = walk->workers, .fn = root, .buf_bytes = 4096,
        .trace = watch, .faults = { .shorter = shorter ? 300 : 0 },
    };
    int fds = fds_open();
    walk->result = result;
    walk->cells++;
    seeds_simulate(&opts, &run);
    CHECK_EQ(run.result, 0);
    CHECK_EQ(fds_open(), fds);
    CHECK_EQ(waitpid(-1, NULL, WNOHANG), -1);
    CHECK_EQ(errno, ECHILD);
    return cell;
}

/* ---- the table ------------------------------------------------------------------------------- */

/* All results of one operation of the row, or every third one where they take long. False: it has
 * no such operation. */
static bool walk_column(void)
{
    const struct row *row = &rows[walk->row];
    struct answered a = run_cell(results[0]);
    if (!a.met)
        return false;
    walk->columns++;
    walk->met[walk->row]++;
    walk->code[a.code] = true;
    walk->opcode[a.opcode] |= a.code == RV_OP_REQUEST;
    for (int i = 1; i < RESULTS; i++) {
        bool turn = SEEDS_SHARE <= 2 || (walk->row + walk->skip + (unsigned)i) % 3 == 0;
        if (!turn || !may_say(row, a, results[i]))
            continue;
        struct answered b = run_cell(results[i]);
        CHECK(b.met);
        CHECK_EQ(b.code, a.code);
        CHECK_EQ(b.opcode, a.opcode);
    }
    return true;
}

static void walk_row(uint64_t seeds)
{
    static const unsigned workers[] = { 2, 3, 1 };
    for (walk->seed = 1; walk->seed <= seeds; walk->seed++) {
        walk->workers = workers[walk->seed % 3];
        walk->skip = 0;
        while (walk_column())
            CHECK_LT(++walk->skip, DAY_OPS);
        struct rv_sim_result before = run;
        run_cell(results[0]); /* a seed is a run */
        CHECK_EQ(run.events, before.events);
        CHECK_EQ(run.hash, before.hash);
        CHECK_EQ(run.virtual_ns, before.virtual_ns);
    }
}

static void replay(const char *which)
{
    CHECK_EQ(sscanf(which, "%u %u %" SCNu64 " %u %d", &walk->row, &walk->workers, &walk->seed,
                    &walk->skip, &walk->result), 5);
    CHECK_LT(walk->row, ROWS);
    run_cell(walk->result);
}

/* What is walked is not the disk. */
static void in_memory(void)
{
    if (access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 0);
}

/* In a process of its own, so that whatever ends it is traced to its cell. False: it was but one
 * cell. */
static bool walk_all(unsigned how)
{
    const char *which = getenv("REEVE_DAY");
    int status;
    in_memory();
    scratch("");
    day_begin();
    walk = mmap(NULL, sizeof *walk, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(walk != MAP_FAILED);
    if (which) {
        replay(which);
        return false;
    }
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(SEEDS_SECONDS);
        for (walk->row = 0; walk->row < ROWS; walk->row++)
            if ((rows[walk->row].how & (PROGRAMS | RING_ONLY)) == how)
                walk_row(seeds_number("REEVE_SIM_SEEDS", SEEDS));
        exit(0);
    }
    CHECK_EQ(waitpid(child, &status, 0), child);
    if (status != 0)
        fprintf(stderr, "%s (status 0x%x). To replay it:\n"
                "    REEVE_DAY=\"%u %u %" PRIu64 " %u %d\" %s --no-fork %s\n",
                rows[walk->row].name, (unsigned)status, walk->row, walk->workers, walk->seed,
                walk->skip, walk->result, program_invocation_name, check.running);
    CHECK_EQ(status, 0);
    printf("# %" PRIu64 " cells, %" PRIu64 " operations\n", walk->cells, walk->columns);
    return true;
}

/* Every row has met an operation, but those that have none; and so many cells there are at least.
 */
static void check_walk(unsigned how, uint64_t cells)
{
    for (unsigned i = 0; i < ROWS; i++) {
        bool none = walk->met[i] == 0, may = rows[i].how & POOLED;
        if ((rows[i].how & (PROGRAMS | RING_ONLY)) == how && none != may)
            check_failed(__FILE__, __LINE__, "%s met %" PRIu64 " operations", rows[i].name,
                         walk->met[i]);
    }
    CHECK_GE(walk->cells, cells);
}

/* Not here: ACCEPT_MULTI, which is a server's; SEND_ZC, which is not played. */
static const uint8_t codes[] = { RV_OP_ACCEPT, RV_OP_CONNECT, RV_OP_RECV, RV_OP_RECV_PICK,
                                 RV_OP_RECV_MULTI, RV_OP_SEND, RV_OP_READ, RV_OP_WRITE,
                                 RV_OP_REQUEST };

/* Not here: READ_FIXED and WRITE_FIXED, for which nothing is pinned; CONNECT, which is for Unix
 * sockets; WAITID, which is for programs that somebody traces. */
static const uint8_t opcodes[] = {
    IORING_OP_READV,     IORING_OP_WRITEV,    IORING_OP_FSYNC,     IORING_OP_POLL_ADD,
    IORING_OP_SENDMSG,   IORING_OP_RECVMSG,   IORING_OP_FALLOCATE, IORING_OP_OPENAT,
    IORING_OP_STATX,     IORING_OP_READ,      IORING_OP_WRITE,     IORING_OP_FADVISE,
    IORING_OP_OPENAT2,   IORING_OP_SPLICE,    IORING_OP_RENAMEAT,  IORING_OP_UNLINKAT,
    IORING_OP_MKDIRAT,   IORING_OP_SYMLINKAT, IORING_OP_LINKAT,    RV_URING_OP_FTRUNCATE,
};

static void check_codes(void)
{
    for (size_t i = 0; i < sizeof codes; i++)
        if (!walk->code[codes[i]])
            check_failed(__FILE__, __LINE__, "nobody queued an operation of code %d", codes[i]);
    for (size_t i = 0; i < sizeof opcodes; i++)
        if (!walk->opcode[opcodes[i]])
            check_failed(__FILE__, __LINE__, "nobody made a request %d", opcodes[i]);
}

TEST(every_operation_of_every_call_may_fail_in_every_way)
{
    if (!walk_all(0))
        return;
    check_walk(0, SEEDS_SHARE > 2 ? 600 : 1700 * SEEDS);
    check_codes();
}

TEST(every_operation_of_programs_may_fail_in_every_way)
{
    if (!walk_all(PROGRAMS))
        return;
    check_walk(PROGRAMS, SEEDS_SHARE > 2 ? 50 : 130 * SEEDS);
    CHECK(walk->opcode[IORING_OP_POLL_ADD]);
    CHECK(walk->code[RV_OP_READ]);
    CHECK(walk->code[RV_OP_WRITE]);
}
