# SPDX-License-Identifier: MIT
#
# canaries.cmake -- the bugs that the explorer must find: explore_canary(NAME TEST SOURCES FILE FROM
# TO ...), see explore.cmake. canary_test.c has the claim for each.

explore_canary(deque_pop_without_fence deque "" sched/deque.h
  [[(void)rv_xchg_seqcst(&d->bottom, b);]]
  [[rv_store_release(&d->bottom, b);]])

explore_canary(deque_last_entry_without_swap deque "" sched/deque.h
  [[if (!rv_cas_seqcst(&d->top, &t, b + 1))
            e = 0;]]
  [[rv_store_seqcst(&d->top, b + 1);]])

explore_canary(runq_steal_without_swap runq "" sched/runq.h
  [[if (!rv_cas(&victim->head, &h, h + n))
            continue;]]
  [[rv_store_release(&victim->head, h + n);]])

explore_canary(runq_steal_copies_too_late runq "" sched/runq.h
  [[uint64_t first = rv_load_relaxed(&victim->slots[h % RV_RUNQ_SLOTS]);]]
  [[uint64_t was = h;
        if (!rv_cas(&victim->head, &was, h + n)) {
            h = was;
            continue;
        }
        uint64_t first = rv_load_relaxed(&victim->slots[h % RV_RUNQ_SLOTS]);]]
  [[if (!rv_cas(&victim->head, &h, h + n))
            continue;]]
  [[]])

explore_canary(inbox_lost_message inbox "" sched/inbox.h
  [[return (ck_stack_entry_t *)rv_xchg_acq_rel(&in->head, 0);]]
  [[uintptr_t all = rv_load_acquire(&in->head);
    rv_store_release(&in->head, 0);
    return (ck_stack_entry_t *)all;]])

explore_canary(lock_release_without_wake lock "" mem/lock.h
  [[if (__builtin_expect(seen == 2, 0))
        rv_lock_wake(lock);]]
  [[(void)seen;]])

explore_canary(lock_taken_by_two lock "" mem/lock.c
  [[while (rv_xchg_acq_rel(&lock->word, 2U) != 0)]]
  [[while (rv_load_acquire(&lock->word) != 0 || rv_xchg_acq_rel(&lock->word, 2U) > 2)]])

# The announcement is a read-modify-write, which fences on x86 whatever stands below it: so both go.
explore_canary(park_without_fence park "" sched/park.c
  [[rv_store_relaxed(&w->parked, PARKED);
    rv_add_acq_rel(&s->nparked, 1u);]]
  [[rv_add_acq_rel(&s->nparked, 1u);
    rv_store_relaxed(&w->parked, PARKED);]]
  [[rv_fence_seqcst(); /* pairs with the fences in rv_wake_worker() and rv_wake_one() */]]
  [[]])

explore_canary(park_without_looking_again park "" sched/park.c
  [[if (!rescan(w, many && tick == RV_NEVER)) {]]
  [[if (!rescan(w, many && tick == RV_NEVER) || true) {]])

explore_canary(park_without_membarrier park "" sched/park.c
  [[RV_MUST(membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0);]]
  [[(void)0;]])

explore_canary(notify_without_fence park sched/spawn.c sched/park.h
  [[rv_fence_seqcst(); /* pairs with the fence in park.c */]]
  [[(void)0;]])

explore_canary(last_searcher_leaves_silently park "" sched/park.c
  [[return rv_load_relaxed(&s->injector.len) != 0;]]
  [[return false;]])

explore_canary(search_left_after_the_task park "" sched/worker.c
  [[rv_found_work(w);
            rv_loan_watch(w->sched);]]
  [[rv_loan_watch(w->sched);]])

explore_canary(claim_without_swap park "" sched/park.c
  [[if (rv_load_relaxed(&to->parked) != PARKED || !rv_cas(&to->parked, &parked, claim))
        return false;]]
  [[if (rv_load_relaxed(&to->parked) != parked)
        return false;
    rv_store_release(&to->parked, claim);]])

explore_canary(parked_without_looking_at_the_flag wait "" sched/wait.c
  [[if (rv_load_acquire(&t->ctl) & RV_CTL_CANCELLED)
        rv_wait_kick(w->sched, w, t);]]
  [[]])

explore_canary(parked_over_fired wait "" sched/wait.c
  [[if ((ww & WW_STATE) != RV_WW_ARMED || !rv_cas(&t->ww, &ww, parked)) {]]
  [[bool late = (ww & WW_STATE) != RV_WW_ARMED;
    if (!late)
        rv_store_release(&t->ww, parked);
    if (late) {]])

explore_canary(fire_without_arm_number wait "" sched/wait.c
  [[if ((uint32_t)(ww >> WW_ARM_SHIFT) != (uint32_t)token)
            return RV_WW_IDLE;]]
  [[]])

explore_canary(done_without_joiner join "" sched/task.c
  [[uint32_t st = rv_or_acq_rel(&t->st, RV_ST_DONE);]]
  [[uint32_t st = rv_load_acquire(&t->st);
    rv_store_release(&t->st, st | RV_ST_DONE);]])

explore_canary(cancel_without_generation join "" sched/cancel.c
  [[if ((uint32_t)(ctl >> 32) != gen || ctl & RV_CTL_CANCELLED)]]
  [[if (ctl & RV_CTL_CANCELLED)]])

explore_canary(link_without_looking_at_the_scope join "" sched/scope.c
  [[if (rv_load_relaxed(&scope->ctl) & RV_CTL_CANCELLED &&]]
  [[if (false &&]])

explore_canary(scope_left_without_its_last_child join "" sched/scope.c
  [[int64_t left = rv_sub_acq_rel(&scope->live, 1) - 1;]]
  [[int64_t left = rv_load_relaxed(&scope->live) - 1;
        rv_store_release(&scope->live, left);]])

explore_canary(mutex_called_leaves_it_free mutex "" sched/mutex.c
  [[if (n->woken && is_free(seen)) {]]
  [[if (stay && n->woken && is_free(seen)) {]])

explore_canary(mutex_queued_without_another_look mutex "" sched/mutex.c
  [[} while (!rv_cas(&m->word, &seen, seen | ask));
    rv_waiter_begin(w, &n->w);]]
  [[} while (false);
    rv_store_release(&m->word, seen | ask);
    rv_waiter_begin(w, &n->w);]])

explore_canary(chan_full_without_another_look chan "" sched/chan.c
  [[if (!c->closed && rv_load_acquire(&c->in.pos) - rv_load_relaxed(&c->out.pos) == c->cap)
        return true;]]
  [[if (!c->closed)
        return true;]])

explore_canary(chan_empty_without_another_look chan "" sched/chan.c
  [[bool empty = rv_load_relaxed(&c->in.pos) == rv_load_acquire(&c->out.pos);]]
  [[bool empty = true;]])

explore_canary(chan_serves_who_gave_up chan "" sched/chan.c
  [[if (__builtin_expect(was == RV_WW_IDLE, 0))
            continue;]]
  [[]])

explore_canary(grace_without_another_look_at_the_phase grace "" sched/grace.c
  [[if ((rv_load_seqcst(&phase) & 1) == p)]]
  [[if (p <= 1)]])

explore_canary(select_queues_what_became_ready chan "" sched/select.c
  [[r = try_locked(sel, &served);]]
  [[r = -EAGAIN;]])

explore_canary(loan_not_asked_back loan "" sched/loan.h
  [[if (__builtin_expect(rv_load_acquire(&w->loan.state) != RV_LOAN_NONE, 0))
        rv_loan_back(w);]]
  [[]])

explore_canary(loan_not_awaited loan "" sched/loan.c
  [[if (!rv_cas(&w->loan.state, &lent, (uint32_t)RV_LOAN_NONE) && lent != RV_LOAN_NONE)
        await_holder(w);
    RV_ASSERT(rv_load_relaxed(&w->loan.state) == RV_LOAN_NONE);]]
  [[(void)rv_cas(&w->loan.state, &lent, (uint32_t)RV_LOAN_NONE);]])

explore_canary(loan_given_in_reeve_code loan "" sched/loan.c
  [[if (rv_load_relaxed(&l->in_rt) || ]]
  [[if (]])

explore_canary(loan_ended_without_wake loan "" sched/loan.c
  [[if (rv_xchg_acq_rel(&of->loan.state, (uint32_t)RV_LOAN_NONE) == RV_LOAN_AWAITED)]]
  [[if (rv_xchg_acq_rel(&of->loan.state, (uint32_t)RV_LOAN_NONE) > RV_LOAN_AWAITED)]])

explore_canary(loan_offered_to_a_sleeper loan "" sched/loan.c
  [[rv_wake_quietly(w->sched, w->sched->workers[who - 1]);]]
  [[(void)who;]])

explore_canary(pool_back_taken_in_two_steps pool "" mem/pool.c
  [[return (ck_stack_entry_t *)rv_xchg_acq_rel(&pool->back, 0);]]
  [[uintptr_t all = rv_load_acquire(&pool->back);
    rv_store_release(&pool->back, 0);
    return (ck_stack_entry_t *)all;]])

explore_canary(pool_room_taken_in_two_steps pool "" mem/pool.c
  [[int64_t before = rv_sub_relaxed(&pool->room, (int64_t)want);]]
  [[int64_t before = rv_load_relaxed(&pool->room);
    rv_store_relaxed(&pool->room, before - (int64_t)want);]])

explore_canary(pool_collected_without_lock pool "" mem/pool.c
  [[if (rv_load_relaxed(&pool->depot_n) == 0 && back_is_empty(pool))
        return 0;]]
  [[if (rv_load_relaxed(&pool->depot_n) == 0 && back_is_empty(pool))
        return 0;
    collect(pool);]])

explore_canary(table_miss_believed_at_once table "" mem/table.c
  [[if (rv_load_relaxed(&s->cur) == cur)]]
  [[if (cur != NULL)]])

explore_canary(table_sides_in_the_other_order table "" mem/table.c
  [[rv_store_release(&s->old, cur);     /* pairs with look(); the order is (2) */
    rv_store_release(&s->cur, side);]]
  [[rv_store_release(&s->cur, side);
    rv_store_release(&s->old, cur);]])

explore_canary(table_ended_entry_pinned table "" mem/table.c
  [[while (pins != 0)]]
  [[while (true)]])

explore_canary(table_read_without_a_section table "" mem/table.c
  [[struct rv_epoch_slot *in = rv_epoch_enter(&t->epoch);
    struct rv_entry *e = look_and_pin(s, key);
    bool full = e != NULL && rv_policy_touch(&s->policy, &e->node);
    rv_epoch_leave(in);]]
  [[struct rv_entry *e = look_and_pin(s, key);
    bool full = e != NULL && rv_policy_touch(&s->policy, &e->node);]])

explore_canary(pool_given_without_lock pool "" mem/pool.c
  [[rv_lock_acquire(&pool->lock);
    uint32_t have = rv_load_relaxed(&pool->depot_n);
    RV_MUST(have]]
  [[uint32_t have = rv_load_relaxed(&pool->depot_n);
    RV_MUST(have]]
  [[rv_lock_release(&pool->lock);
    return granted;]]
  [[return granted;]])

explore_canary(bias_closed_without_swap bias "" mem/bias.h
  [[int64_t left = rv_add_acq_rel(&b->elsewhere, add) + add; /* pairs with give_elsewhere */]]
  [[int64_t left = rv_load_acquire(&b->elsewhere) + add;
    rv_store_release(&b->elsewhere, left);]])
