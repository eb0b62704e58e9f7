/* SPDX-License-Identifier: MIT */
/*
 * engine_sim.c -- the simulated engine as a worker sees it: the two tables.
 *
 * It promises what the io_uring engine promises, and nothing that one does not: a pass may submit
 * only some of what is queued and dispatch only some of what has completed, in another order; a
 * park may end for no reason; a cancellation may take its time.
 *
 * (1) A worker gives up its turn in reap and in park, and between announcing a park and its last
 *     look around, which ends in busy; and sometimes where a task queues an op, sends, or makes,
 *     shuts down or closes a socket. At these points it holds no lock. They are where a real
 *     thread would be inside the kernel, or where what others do then matters most.
 * (2) A wake is latched: it ends the park under way, or the next one.
 * (3) Everything that completes does so in reap or detach, never inside queue or cancel.
 *
 * Threads: all workers take turns on one thread.
 */
#include <errno.h>
#include <string.h>

#include "io/sim_world.h"
#include "mem/alloc.h"
#include "mem/die.h"
#include "sched/pick.h"

#define BUSY_LEAVES 256     /* of 1024 looks around before a park */
#define SUBMIT_LEAVES 128   /* of 1024 passes, between submitting and dispatching */
#define WAKES_UNASKED 32    /* of 1024 parks */
#define DETACH_ROUNDS 100000
#define CQES_FIRST 64 /* room for completions; more is made as needed */

/* ---- struct rv_engine ------------------------------------------------------------------------ */

static int attach(struct rv_worker *w)
{
    (void)w;
    return 0;
}

/* Takes a completion out of the queue: any, but of one op the first. */
static struct rv_sim_cqe take_cqe(struct rv_sim_worker *sw)
{
    uint32_t i = rv_sim_draw(sw->cq_n), first = 0;
    while (sw->cq[first].id != sw->cq[i].id)
        first++;
    struct rv_sim_cqe cqe = sw->cq[first];
    sw->cq_n--;
    memmove(&sw->cq[first], &sw->cq[first + 1], (sw->cq_n - first) * sizeof *sw->cq);
    return cqe;
}

static void dispatch(struct rv_sim_worker *sw, uint32_t n)
{
    for (; n > 0; n--) {
        struct rv_sim_cqe cqe = take_cqe(sw);
        rv_sim_record(RV_SIM_DISPATCH, sw->w->index, (uint32_t)cqe.id >> 4, cqe.res);
        rv_op_complete(sw->iw, cqe.id, cqe.res, cqe.flags);
    }
}

static bool reap(struct rv_worker *w, uint32_t ready)
{
    struct rv_sim *sim = rv_sim_world;
    struct rv_sim_worker *sw = rv_sim_worker_of(w);
    (void)ready;
    rv_sim_leave();
    rv_sim_submit(sw, false);
    if (rv_sim_chance(SUBMIT_LEAVES))
        rv_sim_leave();
    uint32_t n = rv_sim_chance(512) ? sw->cq_n : rv_sim_draw(sw->cq_n + 1);
    dispatch(sw, n);
    if (sim->sched->nworkers > 1 && rv_load_relaxed(&w->slot) == 0 && rv_sim_chance(sim->steals))
        rv_steal(w, rv_sim_chance(512));
    return n > 0;
}

static bool busy(struct rv_worker *w)
{
    struct rv_sim_worker *sw = rv_sim_worker_of(w);
    if (rv_load_relaxed(&w->parked) != 0 && rv_sim_chance(BUSY_LEAVES))
        rv_sim_leave();
    return sw->sq_n != 0 || sw->cq_n != 0;
}

static void park(struct rv_worker *w, int64_t until)
{
    struct rv_sim_worker *sw = rv_sim_worker_of(w);
    rv_sim_submit(sw, true);
    rv_sim_record(RV_SIM_PARK, w->index, sw->woken, until);
    rv_sim_world->result.seen.parks++;
    if (!rv_sim_chance(WAKES_UNASKED)) {
        sw->until = until;
        sw->parked = true;
        rv_sim_leave(); /* until there is a completion or a wake, or the time has come */
        sw->parked = false;
    }
    sw->woken = false;
    rv_sim_record(RV_SIM_UNPARK, w->index, sw->cq_n, 0);
}

static void wake(struct rv_worker *target)
{
    struct rv_sim_worker *sw = rv_sim_worker_of(target);
    rv_sim_record(RV_SIM_WAKE, target->index, sw->parked, sw->woken);
    rv_sim_world->result.seen.wakes++;
    if (!rv_sim_canary_now(RV_SIM_DROP_WAKE))
        sw->woken = true;
}

static int64_t now(struct rv_sched *s)
{
    (void)s;
    return rv_sim_world->now;
}

/* Ends every op of this worker, wherever it is. */
static void end_ops(struct rv_sim_worker *sw)
{
    struct rv_sim *sim = rv_sim_world;
    uint32_t n = rv_load_relaxed(&sim->io->ops.fresh);
    rv_sim_submit(sw, true);
    for (uint32_t i = 0; i < n; i++) {
        struct rv_sim_op *k = &sim->ops[i];
        if (k->sw != sw || k->state != RV_SIM_OP_HELD)
            continue;
        k->cancel = true;
        rv_sim_op_cancel(k);
    }
}

static void detach(struct rv_worker *w)
{
    struct rv_sim_worker *sw = rv_sim_worker_of(w);
    rv_io_leave(sw->iw);
    for (uint32_t round = 0; sw->iw->inflight > 0; round++) {
        if (round == DETACH_ROUNDS)
            rv_die("simulation, seed %llu: worker %u leaves, and %u operations do not end.",
                   (unsigned long long)rv_sim_world->opts.seed, w->index, sw->iw->inflight);
        end_ops(sw);
        dispatch(sw, sw->cq_n);
    }
    rv_io_left(sw->iw);
}

const struct rv_engine rv_engine_sim = {
    .name = "simulation",
    .attach = attach,
    .detach = detach,
    .reap = reap,
    .busy = busy,
    .park = park,
    .wake = wake,
    .cancel = rv_op_cancel,
    .message = rv_io_message,
    .now = now,
};

/* ---- struct rv_io_driver --------------------------------------------------------------------- */

/* What the kernel has differs from run to run. */
static int probe(struct rv_caps *ret_caps, const struct rv_caps_off *off)
{
    (void)off;
    *ret_caps = (struct rv_caps){
        .accept_multishot = rv_sim_chance(768),
        .recv_optlen = rv_sim_chance(768),
        .ftruncate = true, /* what requests need: there is no pool that would step in */
        .waitid = true,
    };
    memset(ret_caps->ops, 0xff, sizeof ret_caps->ops);
    return 0;
}

static void stop(struct rv_io_worker *iw)
{
    struct rv_sim_worker *sw = iw->engine;
    if (!sw)
        return;
    rv_free(sw->provided);
    rv_free(sw->cq);
    sw->provided = NULL;
    sw->cq = NULL;
    sw->cq_n = sw->cq_cap = 0;
    iw->engine = NULL;
}

static int start(struct rv_io_worker *iw)
{
    struct rv_sim_worker *sw = &rv_sim_world->workers[iw->w->index];
    iw->engine = sw;
    sw->iw = iw;
    sw->provided = rv_alloc(iw->group.bufs * sizeof *sw->provided);
    sw->cq_cap = CQES_FIRST;
    sw->cq = rv_alloc(sw->cq_cap * sizeof *sw->cq);
    if (sw->provided && sw->cq)
        return 0;
    stop(iw);
    return -ENOMEM;
}

static void queue(struct rv_io_worker *iw, struct rv_op *op)
{
    struct rv_sim_worker *sw = iw->engine;
    struct rv_sim_op *k = rv_sim_op_of(op);
    uint64_t id = rv_op_id(iw->io, op);
    RV_MUST(k->state == RV_SIM_OP_NONE);
    RV_MUST(rv_sim_world->turn == sw);
    *k = (struct rv_sim_op){ .op = op, .id = id, .sw = sw, .state = RV_SIM_OP_QUEUED,
                             .faults = k->id == id ? k->faults : 0 };
    if (sw->sq_last)
        sw->sq_last->next = k;
    else
        sw->sq_first = k;
    sw->sq_last = k;
    sw->sq_n++;
    rv_sim_record(RV_SIM_QUEUE, iw->w->index, (uint32_t)id >> 4, op->code);
    rv_sim_leave_sometimes();
}

static ssize_t send_now(struct rv_io_worker *iw, int fd, const void *data, size_t len)
{
    (void)iw;
    rv_sim_leave_sometimes();
    return rv_sim_send_now(fd, data, len);
}

static void cancel(struct rv_io_worker *iw, struct rv_op *op)
{
    struct rv_sim *sim = rv_sim_world;
    struct rv_sim_op *k = rv_sim_op_of(op);
    RV_MUST(sim->turn == iw->engine);
    rv_sim_record(RV_SIM_CANCEL, iw->w->index, (uint32_t)k->id >> 4, k->state);
    if (k->state == RV_SIM_OP_NONE) { /* it has completed; nobody here knows it yet */
        sim->result.seen.cancels_lost++;
        return;
    }
    k->cancel = true;
    if (k->state == RV_SIM_OP_HELD)
        rv_sim_at(sim->now + rv_sim_delay(), RV_SIM_DUE_CANCEL, (uint32_t)(k - sim->ops), k->id);
}

/* From here until it is picked the buffer is the kernel's: what somebody still reads there is not
 * what it was. */
static void provide(struct rv_io_worker *iw, uint32_t id)
{
    struct rv_sim_worker *sw = iw->engine;
    const struct rv_group *g = &iw->group;
    RV_MUST(id < g->bufs);
    RV_MUST(sw->provided_n < g->bufs);
    for (uint32_t i = 0; i < sw->provided_n; i++)
        RV_MUST(sw->provided[(sw->provided_first + i) % g->bufs] != id);
    memset(g->base + (size_t)id * g->bytes, 0xdb, g->bytes);
    sw->provided[(sw->provided_first + sw->provided_n++) % g->bufs] = id;
    rv_sim_record(RV_SIM_PROVIDE, iw->w->index, id, sw->provided_n);
}

const struct rv_io_driver rv_io_driver_sim = {
    .name = "simulation",
    .probe = probe,
    .start = start,
    .stop = stop,
    .queue = queue,
    .cancel = cancel,
    .send_now = send_now,
    .provide = provide,
    .socket = rv_sim_sys_socket,
    .bind = rv_sim_sys_bind,
    .listen = rv_sim_sys_listen,
    .setsockopt = rv_sim_sys_setsockopt,
    .shutdown = rv_sim_sys_shutdown,
    .close = rv_sim_sys_close,
    .socket_type = rv_sim_sys_socket_type,
    .cookie = rv_sim_sys_cookie,
};
