/* SPDX-License-Identifier: MIT */
/*
 * sim_world.h -- what the files of the simulation share: the world, its clock, and its kernel.
 *
 *     sim.c          the world: draws, events, the clock, whose turn it is; rv_sim_run
 *     engine_sim.c   what a worker sees of it: the two tables
 *     sim_op.c       what becomes of an op once it is the kernel's
 *     sim_net.c      sockets; sim_dgram.c: those of datagrams
 *     sim_real.c     descriptors that are not played; sim_pool.c: the pool for calls that block
 *     sim_heap.c     what is due; sim_tell.c: how things stand when it got stuck
 *
 * A worker's thread is a context of its own, on a stack of its own, that runs rv_worker_run() just
 * as a real one would. It gives up its turn where a real thread would enter the kernel: in reap and
 * in park, between the announcement of a park and the last look at the queues, and where a task of
 * a test says so. There the world's own context decides who goes on.
 *
 *     struct rv_sim      one op ---> file (waits there until it can do something) ---> cq of its
 *     worker
 *                        events: (time, what) in a heap: try the op, cancel it, bytes arrive, reset
 */
#ifndef RV_IO_SIM_WORLD_H
#define RV_IO_SIM_WORLD_H

#include <sys/socket.h>

#include "io/sim.h"
#include "mem/stack.h"
#include "sched/offload.h"

/* "Not now": what an attempt says when the op has to wait. No errno and no length. */
#define RV_SIM_WAIT INT32_MIN

/* ---- things that are due at a time ----------------------------------------------------------- */

enum rv_sim_due_kind {
    RV_SIM_DUE_TRY,
    RV_SIM_DUE_CANCEL,
    RV_SIM_DUE_ARRIVE,
    RV_SIM_DUE_BREAK,
    RV_SIM_DUE_CALL, /* a thread of the pool gets on */
};

struct rv_req;

struct rv_sim_due {
    int64_t at;
    uint64_t tie;    /* drawn: what is due at one time comes in any order */
    uint64_t gen;    /* the op's id, the file's cookie: another one by then, and it is void */
    uint32_t kind;   /* enum rv_sim_due_kind */
    uint32_t index;  /* of the op, of the file, of the thread */
};

struct rv_sim_heap {
    struct rv_sim_due *due;
    uint32_t n, cap;
};

/* ---- sockets --------------------------------------------------------------------------------- */

enum rv_sim_file_kind {
    RV_SIM_FREE,
    RV_SIM_PLAIN,      /* made, perhaps bound */
    RV_SIM_CONNECTING, /* a connect waits for room in the listener's queue */
    RV_SIM_LISTENER,
    RV_SIM_STREAM,
    RV_SIM_DGRAM,
};

/* What has been shut down, in rv_sim_file.shut. */
#define RV_SIM_SHUT_READ 1
#define RV_SIM_SHUT_WRITE 2

/* One direction of a connection, seen from its reader.
 *
 *     head                                  cap
 *      | arrived       | on the way   | room |
 *       '------------ sent ----------'                 */
struct rv_sim_pipe {
    unsigned char *bytes;
    uint32_t cap, head, sent, arrived;
    bool fin;      /* no more will be sent */
    bool eof;      /* and the reader knows */
    bool moving;   /* an arrival is due */
    bool one_byte; /* they arrive one by one */
};

struct rv_sim_mail; /* a datagram */

/* The datagrams for one socket, see sim_dgram.c. */
struct rv_sim_box {
    struct rv_sim_mail *first;
    uint32_t n, arrived, cap;
    bool moving;  /* an arrival is due */
    bool crowded; /* somebody waits for room */
};

struct rv_sim_file {
    uint8_t kind;              /* enum rv_sim_file_kind */
    uint8_t shut;              /* RV_SIM_SHUT_* */
    bool dead;                 /* the connection was reset */
    bool breaking;             /* a reset is due */
    int err;                   /* what the next op hears of that */
    int fd;                    /* -1: none any more, or not yet */
    uint32_t refs;             /* the fd, a listener's queue, ops */
    uint32_t ops_held;         /* of these, ops */
    uint64_t cookie;           /* never the same for two sockets of a run */
    struct rv_sim_file *peer;
    struct rv_sim_pipe in;
    struct sockaddr_storage addr;
    socklen_t addr_len;        /* 0: not bound */
    struct rv_sim_box box;
    struct sockaddr_storage to; /* whom a socket of datagrams is connected to */
    socklen_t to_len;          /* 0: nobody */
    struct rv_sim_file *queue_first, *queue_last, *queue_next; /* connected and not accepted */
    uint32_t queued, backlog;
    struct rv_sim_op *ops;     /* waiting here */
};

/* ---- ops ------------------------------------------------------------------------------------- */

enum rv_sim_op_state {
    RV_SIM_OP_NONE,
    RV_SIM_OP_QUEUED, /* by its worker; the kernel has not seen it */
    RV_SIM_OP_HELD,   /* the kernel's, until its last completion is posted */
};

/* The kernel's record of the op with the same index. */
struct rv_sim_op {
    struct rv_op *op;
    uint64_t id;
    struct rv_sim_worker *sw;
    struct rv_sim_file *file;
    struct rv_sim_op *next, *prev; /* at that file; before that, in the queue */
    uint64_t moved;                /* bytes, so far */
    uint32_t tries;
    uint8_t state;                 /* enum rv_sim_op_state */
    uint8_t faults;                /* that it had, also in earlier rounds of the same op */
    bool waits;                    /* at a real descriptor, where it found nothing to do */
    uint64_t seen;                 /* the number of the world's steps by then */
    bool tried, armed, cancel;
};

struct rv_sim_cqe {
    uint64_t id;
    int32_t res;
    uint32_t flags;
};

/* ---- the pool for calls that block ----------------------------------------------------------- */

#define RV_SIM_CALLS 3 /* threads that it seems to have */

struct rv_sim_call {
    struct rv_offload_job *job; /* begun, and not over */
    int result;
    bool called;                /* the result is there */
    bool due;
};

/* ---- workers and the world ------------------------------------------------------------------- */

struct rv_sim_worker {
    struct rv_worker *w;
    struct rv_io_worker *iw;
    struct rv_stack *thread;       /* the stack of its thread */
    struct rv_stack *at;           /* what it will go on with */
    int64_t until;                 /* of its park */
    uint64_t frozen;               /* no turn before this one: its thread has no CPU */
    bool parked, woken, ended;
    struct rv_sim_op *sq_first, *sq_last; /* queued, in order */
    uint32_t sq_n;
    struct rv_sim_cqe *cq;
    uint32_t cq_n, cq_cap;
    uint32_t *provided;            /* ids, a ring of group.bufs */
    uint32_t provided_first, provided_n;
};

struct rv_sim {
    struct rv_sim_opts opts;
    struct rv_sched *sched;
    struct rv_io *io;
    struct rv_stack main;          /* the world's own context: the calling thread's */
    struct rv_stack_pool threads;
    struct rv_sim_worker *workers;
    struct rv_sim_worker *turn;    /* whose it is; NULL: the world's */
    uint64_t turns;
    uint64_t turns_since_clock;
    uint64_t steps;                /* turns, and whatever else may change a real descriptor */
    uint64_t settled;              /* the step after which programs were waited for */
    uint32_t real_waits;           /* ops that wait at real descriptors */

    uint64_t rng;
    int64_t now, start;
    struct rv_sim_heap heap;

    /* Drawn once per run. */
    uint32_t sticky;               /* of 1024: the same worker goes on */
    uint32_t freezes;              /* of 1024: a worker loses its CPU for long */
    uint32_t steals;               /* of 1024: a worker steals although it need not */
    /* of 1024 calls of a task that reach the kernel: it loses its CPU */
    uint32_t preempts;
    int64_t latency_ns;            /* things take up to so long */
    int64_t creep_ns;              /* and so does a turn */
    uint64_t canary_count;

    struct rv_sim_op *ops;         /* by index */
    size_t ops_bytes;
    struct rv_sim_file *files;
    uint32_t files_max, fds_max;
    uint32_t *fds;                 /* file index + 1 of RV_SIM_FD_FIRST + i; 0: closed */
    uint64_t cookies;
    uint16_t port_next;
    struct rv_offload offload;
    struct rv_sim_call calls[RV_SIM_CALLS];

    bool answering;                /* rv_sim_answer() */
    uint32_t answer_skips;
    int32_t answer;
    uint8_t answered_opcode;

    bool root_done;
    int root_result;
    struct rv_sim_result result;
    struct rv_sim *next_stuck;
};

/* The world that is simulated now; NULL: none. Of the one thread that does. */
extern struct rv_sim *rv_sim_world;

static inline struct rv_sim_worker *rv_sim_worker_of(struct rv_worker *w)
{
    return rv_io_of(w)->engine;
}

/* ---- sim.c ----------------------------------------------------------------------------------- */

/* Records that something happened. */
void rv_sim_record(uint32_t kind, uint32_t worker, uint64_t index, int64_t result);
/* A delay, often none. */
int64_t rv_sim_delay(void);
/* Makes something due. */
void rv_sim_at(int64_t at, uint32_t kind, uint32_t index, uint64_t gen);
/* The worker whose turn it is gives it up; returns when it has the next one. */
void rv_sim_leave(void);
/* The same sometimes, inside a call of the system or of the driver, made by a task without a lock.
 * */
void rv_sim_leave_sometimes(void);
/* True every so many-th time, if that is the bug to plant. */
bool rv_sim_canary_now(enum rv_sim_canary which);

/* sim_heap.c. init, with room for the first few, and push: 0 or -ENOMEM. */
int rv_sim_heap_init(struct rv_sim_heap *h);
int rv_sim_heap_push(struct rv_sim_heap *h, const struct rv_sim_due *due);
struct rv_sim_due rv_sim_heap_pop(struct rv_sim_heap *h);

/* sim_tell.c: how things stand, to opts.tell. */
void rv_sim_tell(struct rv_sim *sim);

/* ---- sim_op.c -------------------------------------------------------------------------------- */

struct rv_sim_op *rv_sim_op_of(const struct rv_op *op);
/* The kernel takes queued ops: all of them, or the first few. */
void rv_sim_submit(struct rv_sim_worker *sw, bool all);
/* What was due for an op has come. */
void rv_sim_op_due(const struct rv_sim_due *due);
/* The op ends now, one way or the other; it was tried. */
void rv_sim_op_cancel(struct rv_sim_op *k);
/* send(2) that does not wait: bytes, or -errno. */
ssize_t rv_sim_send_now(int fd, const void *data, size_t len);
/* Ops that wait at the file may get on. */
void rv_sim_ready(struct rv_sim_file *f);
/* Those that wait at real descriptors look again, if the world has moved since they last did. */
void rv_sim_look(void);

/* ---- sim_real.c ------------------------------------------------------------------------------ */

/* Descriptors below RV_SIM_FD_FIRST are the process's own. None of these waits: RV_SIM_WAIT. */
bool rv_sim_is_real(int fd);
bool rv_sim_real_stream(int fd);
/* A socket that keeps the borders of messages. */
bool rv_sim_real_messages(int fd);
bool rv_sim_real_ready(int fd, short events);
int32_t rv_sim_real_recv(int fd, void *to, uint32_t len, uint32_t flags);
int32_t rv_sim_real_send(int fd, const void *from, uint32_t len, uint32_t flags);
/* abort: the next connection is lost instead. */
int32_t rv_sim_real_accept(int fd, bool abort);
/* What a request comes to; some: less of it may be done. */
int32_t rv_sim_real_request(const struct rv_req *q, uint32_t (*some)(uint32_t len));
/* Programs have done what they can do by themselves. */
void rv_sim_settle(void);

/* ---- sim_pool.c ------------------------------------------------------------------------------ */

void rv_sim_pool_init(struct rv_sim *sim);
void rv_sim_pool_due(const struct rv_sim_due *due);
/* What runs has an end, what is queued fails. */
void rv_sim_pool_finish(struct rv_sim *sim);

/* ---- sim_net.c ------------------------------------------------------------------------------- */

int rv_sim_net_init(struct rv_sim *sim);
void rv_sim_net_finish(struct rv_sim *sim);
uint32_t rv_sim_net_open(const struct rv_sim *sim);
struct rv_sim_file *rv_sim_file_of(int fd);
void rv_sim_file_drop(struct rv_sim_file *f);
void rv_sim_file_due(const struct rv_sim_due *due);

/* What Linux would say, or RV_SIM_WAIT. abort: the next connection is lost instead. */
int32_t rv_sim_accept(struct rv_sim_file *f, bool abort);
int32_t rv_sim_connect(struct rv_sim_file *f, const struct sockaddr *addr, socklen_t len);
int32_t rv_sim_recv(struct rv_sim_file *f, void *to, uint32_t len);
int32_t rv_sim_send(struct rv_sim_file *f, const void *from, uint32_t len);
/* A recv would not wait. */
bool rv_sim_readable(const struct rv_sim_file *f);
/* What poll(2) tells of it, POLLERR and POLLHUP too. */
short rv_sim_poll(struct rv_sim_file *f);
/* The connection breaks, here now and over there soon. */
void rv_sim_break(struct rv_sim_file *f, int err);

/* A port that nobody has, in the network's order; and what addresses are. */
uint16_t rv_sim_free_port(void);
uint16_t *rv_sim_port_of(struct sockaddr_storage *a);
bool rv_sim_is_any(const struct sockaddr_storage *a);
/* What is sent to `to` reaches the socket bound to `at`. */
bool rv_sim_meets(struct sockaddr_storage *at, struct sockaddr_storage *to);

int rv_sim_sys_socket(int family, int type, int protocol);
int rv_sim_sys_bind(int fd, const struct sockaddr *addr, socklen_t len);
int rv_sim_sys_listen(int fd, int backlog);
int rv_sim_sys_setsockopt(int fd, int level, int name, const void *value, socklen_t len);
int rv_sim_sys_shutdown(int fd, int how);
int rv_sim_sys_close(int fd);
int rv_sim_sys_socket_type(int fd);
int rv_sim_sys_cookie(int fd, uint64_t *ret_cookie);

/* ---- sim_dgram.c ----------------------------------------------------------------------------- */

/* For files that are RV_SIM_DGRAM: a fresh one, the end of one, and what is due for it. */
void rv_sim_mail_open(struct rv_sim_file *f);
void rv_sim_mail_drop(struct rv_sim_file *f);
void rv_sim_mail_due(struct rv_sim_file *f, const struct rv_sim_due *due);
/* What Linux would say, or RV_SIM_WAIT. */
int32_t rv_sim_mail_connect(struct rv_sim_file *f, const struct sockaddr *addr, socklen_t len);
int32_t rv_sim_mail_send(struct rv_sim_file *f, const struct msghdr *m);
int32_t rv_sim_mail_recv(struct rv_sim_file *f, struct msghdr *m, uint32_t flags);
short rv_sim_mail_poll(struct rv_sim_file *f);

#endif
