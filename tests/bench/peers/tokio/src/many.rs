// SPDX-License-Identifier: MIT

//! What tokio's own benches/rt_multi_threaded.rs measures, with one worker per CPU: bench_sched's
//! sched_many.c is the same with reeve. One round is as many operations as there, timed on a thread
//! that is no worker.
//!
//! tokio's `spawn_many_local` spawns from `block_on`, that is from a thread that is no worker; here
//! it is a task that spawns, as the name says and as it is with reeve. It takes as long.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{mpsc, Arc};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

const SPAWNS: usize = 10_000;
const SPAWNS_BUSY2: usize = 1_000;
const TASKS: usize = 200;
const YIELDS: usize = 1_000;
const PINGS: usize = 1_000;
const LINKS: usize = 1_000;
const STALL: Duration = Duration::from_micros(10);

/// A case: what it needs running beside it, one round, how many operations that is, and how many
/// rounds make a sample.
pub struct Case {
    pub name: &'static str,
    pub round: fn(&Runtime),
    pub ops: usize,
    pub times: usize,
    pub beside: Option<fn(&Runtime, &Arc<AtomicBool>)>,
}

const fn case(name: &'static str, round: fn(&Runtime), ops: usize, times: usize) -> Case {
    Case { name, round, ops, times, beside: None }
}

pub const CASES: [Case; 7] = [
    case("spawn_many_local", spawn_many_local, SPAWNS, 10),
    case("spawn_many_remote_idle", spawn_many_remote, SPAWNS, 5),
    Case {
        beside: Some(stall_and_yield),
        ..case("spawn_many_remote_busy1", spawn_many_remote, SPAWNS, 3)
    },
    Case {
        beside: Some(stall_and_respawn),
        ..case("spawn_many_remote_busy2", spawn_many_remote_busy2, SPAWNS_BUSY2, 1)
    },
    case("yield_many", yield_many, TASKS * YIELDS, 3),
    case("ping_pong", ping_pong, PINGS, 20),
    case("chained_spawn", chained_spawn, LINKS, 20),
];

pub fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

fn spawn_many_local(rt: &Runtime) {
    let (tx, rx) = mpsc::sync_channel(1);
    let left = Arc::new(AtomicUsize::new(SPAWNS));
    rt.spawn(async move {
        for _ in 0..SPAWNS {
            let (tx, left) = (tx.clone(), left.clone());
            tokio::spawn(async move {
                if left.fetch_sub(1, Relaxed) == 1 {
                    tx.send(()).unwrap();
                }
            });
        }
    });
    rx.recv().unwrap();
}

fn spawn_remote(rt: &Runtime, n: usize) {
    let handles: Vec<_> = (0..n).map(|_| rt.spawn(async {})).collect();
    rt.block_on(async {
        for handle in handles {
            handle.await.unwrap();
        }
    });
}

fn spawn_many_remote(rt: &Runtime) {
    spawn_remote(rt, SPAWNS);
}

fn spawn_many_remote_busy2(rt: &Runtime) {
    spawn_remote(rt, SPAWNS_BUSY2);
}

fn stall() {
    let begin = Instant::now();
    while begin.elapsed() < STALL {
        std::thread::yield_now();
    }
}

fn stall_and_yield(rt: &Runtime, busy: &Arc<AtomicBool>) {
    for _ in 0..2 * workers() {
        let busy = busy.clone();
        rt.spawn(async move {
            while busy.load(Relaxed) {
                tokio::task::yield_now().await;
                stall();
            }
        });
    }
}

fn respawn(busy: Arc<AtomicBool>) {
    tokio::spawn(async {
        if busy.load(Relaxed) {
            stall();
            respawn(busy);
        }
    });
}

fn stall_and_respawn(rt: &Runtime, busy: &Arc<AtomicBool>) {
    for _ in 0..workers() {
        let busy = busy.clone();
        rt.spawn(async { respawn(busy) });
    }
}

fn yield_many(rt: &Runtime) {
    let (tx, rx) = mpsc::sync_channel(TASKS);
    for _ in 0..TASKS {
        let tx = tx.clone();
        rt.spawn(async move {
            for _ in 0..YIELDS {
                tokio::task::yield_now().await;
            }
            tx.send(()).unwrap();
        });
    }
    for _ in 0..TASKS {
        rx.recv().unwrap();
    }
}

fn ping_pong(rt: &Runtime) {
    let (done, wait) = mpsc::sync_channel(1);
    let left = Arc::new(AtomicUsize::new(PINGS));
    rt.spawn(async move {
        for _ in 0..PINGS {
            let (left, done) = (left.clone(), done.clone());
            tokio::spawn(async move {
                let (to, from_us) = oneshot::channel();
                let (back, from_it) = oneshot::channel();
                tokio::spawn(async move {
                    from_us.await.unwrap();
                    back.send(()).unwrap();
                });
                to.send(()).unwrap();
                from_it.await.unwrap();
                if left.fetch_sub(1, Relaxed) == 1 {
                    done.send(()).unwrap();
                }
            });
        }
    });
    wait.recv().unwrap();
}

fn next_link(done: mpsc::SyncSender<()>, below: usize) {
    if below == 0 {
        done.send(()).unwrap();
    } else {
        tokio::spawn(async move { next_link(done, below - 1) });
    }
}

fn chained_spawn(rt: &Runtime) {
    let (done, wait) = mpsc::sync_channel(1);
    rt.spawn(async move { next_link(done, LINKS) });
    wait.recv().unwrap();
}
