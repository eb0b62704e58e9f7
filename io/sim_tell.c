/* SPDX-License-Identifier: MIT */
/*
 * sim_tell.c -- what a simulation that got stuck can tell: who sleeps, which ops wait where, which
 * bytes nobody reads.
 *
 * One sentence at a time, to opts.tell. Threads: the simulation's.
 */
#include <stdarg.h>
#include <stdio.h>

#include "io/fdtab.h"
#include "io/sim_world.h"
#include "sched/pick.h"

static void __attribute__((format(printf, 2, 3))) tell(struct rv_sim *sim, const char *fmt, ...)
{
    char sentence[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(sentence, sizeof sentence, fmt, args);
    va_end(args);
    sim->opts.tell(sim->opts.trace_ctx, sentence);
}

static void tell_worker(struct rv_sim *sim, const struct rv_sim_worker *sw)
{
    struct rv_worker *w = sw->w;
    tell(sim,
         "worker %u: %s, until %lld, woken %d, frozen %d; queued %u (ready %x, shown %x), "
         "inbox %s; completions %u, requests %u; buffers: %u with the kernel, %u free by its own "
         "count, of %u; streams that starve: %s",
         w->index, sw->ended ? "ended" : sw->parked ? "parked" : "running",
         sw->until == INT64_MAX ? -1LL : (long long)sw->until, sw->woken, sw->frozen > sim->turns,
         rv_queued(w), w->ready, rv_load_relaxed(&w->shown),
         rv_inbox_empty(&w->inbox) ? "empty" : "NOT EMPTY", sw->cq_n, sw->sq_n,
         sw->provided_n, sw->iw->group.free, sw->iw->group.bufs,
         sw->iw->starved_first ? "some" : "none");
}

static void tell_op(struct rv_sim *sim, const struct rv_sim_op *k)
{
    if (k->state == RV_SIM_OP_NONE)
        return;
    tell(sim, "op %u: code %u, kind %u, fd %d, worker %u, %s%s%s, %llu bytes so far",
         (unsigned)(k - sim->ops), k->op->code, k->op->kind, k->op->fd, k->sw->w->index,
         k->state == RV_SIM_OP_QUEUED ? "queued" : "held", k->armed ? ", a try is due" : "",
         k->cancel ? ", cancelled" : "", (unsigned long long)k->moved);
}

static void tell_file(struct rv_sim *sim, struct rv_sim_file *f)
{
    static const char *const kinds[] = { "free", "plain", "connecting", "listens", "stream",
                                         "datagrams" };
    if (f->kind == RV_SIM_FREE)
        return;
    struct rv_fd *slot = f->fd >= 0 ? rv_fd_slot(f->fd) : NULL;
    tell(sim, "socket %llu: fd %d, %s%s, peer %llu, %u of %u bytes arrived, room for %u%s%s, "
         "shut %u, %u ops; its slot says %#llx, unread %u leases, a reader: %s, writers: %s",
         (unsigned long long)f->cookie, f->fd,
         kinds[f->kind],
         f->dead ? ", reset" : "", f->peer ? (unsigned long long)f->peer->cookie : 0ULL,
         f->in.arrived, f->in.sent, f->in.cap - f->in.sent, f->in.fin ? ", the end was sent" : "",
         f->in.eof ? " and arrived" : "", f->shut, f->ops_held,
         slot ? (unsigned long long)rv_load_relaxed(&slot->word) : 0ULL,
         slot ? slot->unread_bufs : 0, slot && slot->reader ? "waits" : "none",
         slot && slot->turns ? "wait" : "none");
    if (f->kind == RV_SIM_DGRAM)
        tell(sim, "socket %llu: %u of %u messages arrived, room for %u, connected to %s",
             (unsigned long long)f->cookie, f->box.arrived, f->box.n, f->box.cap - f->box.n,
             f->to_len ? "somebody" : "nobody");
}

void rv_sim_tell(struct rv_sim *sim)
{
    if (!sim->opts.tell)
        return;
    for (uint32_t i = 0; i < sim->sched->nworkers; i++)
        tell_worker(sim, &sim->workers[i]);
    uint32_t ops = rv_load_relaxed(&sim->io->ops.fresh);
    for (uint32_t i = 0; i < ops; i++)
        tell_op(sim, &sim->ops[i]);
    for (uint32_t i = 0; i < sim->files_max; i++)
        tell_file(sim, &sim->files[i]);
    tell(sim, "injector: %u; sentinel: worker %d; %u sleep, %u search; tasks and scopes: %u",
         rv_load_relaxed(&sim->sched->injector.len),
         (int)rv_load_relaxed(&sim->sched->sentinel) - 1, rv_load_relaxed(&sim->sched->nparked),
         rv_load_relaxed(&sim->sched->searching), rv_slab_live(&sim->sched->tasks));
}
