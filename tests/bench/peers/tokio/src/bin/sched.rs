// SPDX-License-Identifier: MIT

//! The scheduler benchmarks with tokio, case by case what bench_sched does.
//!
//!     sched [--workers N] [--cpu LIST] [CASE...]
//!
//! Prints "CASE ns_per_op rss_bytes": the median of 7 rounds after one that does not count, and the
//! peak of resident memory during the case. One operation is: yield, a yield; spawn_join, a task
//! spawned and awaited; spawn_1M, one of a million tasks that are all spawned, then all awaited;
//! skynet_1M, one of the million leaves of the tree. Those of many.rs have one worker per CPU,
//! whatever --workers says.

use reeve_bench_tokio::many::{workers, Case, CASES};
use reeve_bench_tokio::{die, parse, runtime};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

const ROUNDS: usize = 7;
const MILLION: u64 = 1_000_000;

async fn yields() -> u64 {
    for _ in 0..MILLION {
        tokio::task::yield_now().await;
    }
    MILLION
}

async fn spawn_join() -> u64 {
    const N: u64 = 200_000;
    for i in 0..N {
        if tokio::spawn(async move { i }).await.ok() != Some(i) {
            die("a task returned something else");
        }
    }
    N
}

async fn spawn_million() -> u64 {
    let spawn = |i| tokio::spawn(async move { i });
    let tasks: Vec<JoinHandle<u64>> = (0..MILLION).map(spawn).collect();
    for (i, task) in tasks.into_iter().enumerate() {
        if task.await.ok() != Some(i as u64) {
            die("a task returned something else");
        }
    }
    MILLION
}

fn skynet(first: u64, size: u64) -> Pin<Box<dyn Future<Output = u64> + Send>> {
    Box::pin(async move {
        if size == 1 {
            return first;
        }
        let mut below = Vec::with_capacity(10);
        for i in 0..10 {
            below.push(tokio::spawn(skynet(first + i * size / 10, size / 10)));
        }
        let mut sum = 0;
        for task in below {
            sum += task.await.unwrap_or_else(|_| die("a task failed"));
        }
        sum
    })
}

async fn skynet_million() -> u64 {
    if skynet(0, MILLION).await != MILLION * (MILLION - 1) / 2 {
        die("skynet adds up to something else");
    }
    MILLION
}

/// The peak of resident memory starts again from what is resident now.
fn peak_reset() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

async fn run<F: Future<Output = u64>>(name: &str, round: impl Fn() -> F) {
    peak_reset();
    round().await;
    let mut ns = Vec::new();
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        let ops = round().await;
        ns.push(begin.elapsed().as_nanos() as f64 / ops as f64);
    }
    ns.sort_by(|a, b| a.total_cmp(b));
    println!("{name} {:.2} {}", ns[ROUNDS / 2], peak());
}

/// Ends the program if a round takes longer than this: tokio 1.24 may never come to what was
/// spawned from outside while tasks on all workers spawn their successors.
const ROUND_MAX: Duration = Duration::from_secs(15);

fn watch(case: &'static str, rounds: Arc<AtomicUsize>) {
    std::thread::spawn(move || loop {
        let before = rounds.load(Ordering::Relaxed);
        std::thread::sleep(ROUND_MAX);
        if rounds.load(Ordering::Relaxed) == before {
            die(&format!("{case}: a round has not ended after {} s", ROUND_MAX.as_secs()));
        }
    });
}

/// The same for one of many.rs.
fn run_many(case: &Case) {
    let rt = runtime(workers());
    let rounds = Arc::new(AtomicUsize::new(0));
    watch(case.name, rounds.clone());
    let busy = Arc::new(AtomicBool::new(true));
    if let Some(beside) = case.beside {
        beside(&rt, &busy);
    }
    peak_reset();
    (case.round)(&rt);
    let mut ns = Vec::new();
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        for _ in 0..case.times {
            (case.round)(&rt);
            rounds.fetch_add(1, Ordering::Relaxed);
        }
        ns.push(begin.elapsed().as_nanos() as f64 / (case.times * case.ops) as f64);
    }
    busy.store(false, Ordering::Relaxed);
    ns.sort_by(|a, b| a.total_cmp(b));
    println!("{} {:.2} {}", case.name, ns[ROUNDS / 2], peak());
}

async fn run_all(wanted: Vec<String>) {
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|w| w == name);
    if is_wanted("yield") {
        run("yield", yields).await;
    }
    if is_wanted("spawn_join") {
        run("spawn_join", spawn_join).await;
    }
    if is_wanted("spawn_1M") {
        run("spawn_1M", spawn_million).await;
    }
    if is_wanted("skynet_1M") {
        run("skynet_1M", skynet_million).await;
    }
}

fn main() {
    let opts = parse();
    for case in &CASES {
        if opts.words.is_empty() || opts.words.iter().any(|w| w == case.name) {
            run_many(case);
        }
    }
    // A task of its own: so it runs on a worker and spawns into that worker's own queue.
    let all = run_all(opts.words);
    let ended = runtime(opts.workers).block_on(async { tokio::spawn(all).await });
    if ended.is_err() {
        die("sched: the benchmark ended early");
    }
}
