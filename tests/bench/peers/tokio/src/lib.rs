// SPDX-License-Identifier: MIT

//! What the two programs share: their command line, their CPUs, the runtime.

pub mod many;

use std::process::exit;

pub struct Opts {
    pub workers: usize,
    pub words: Vec<String>,
}

pub fn die(message: &str) -> ! {
    eprintln!("{message}");
    exit(1)
}

/// Everything but `--workers N` and `--cpu LIST` is in `words`.
pub fn parse() -> Opts {
    let mut opts = Opts { workers: 1, words: Vec::new() };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        if arg == "--workers" {
            opts.workers = match args.next().and_then(|s| s.parse().ok()) {
                Some(n) if n > 0 => n,
                _ => die("--workers takes a number from 1"),
            };
        } else if arg == "--cpu" {
            pin(&args.next().unwrap_or_default());
        } else if arg.starts_with('-') {
            die(&format!("what is '{arg}'? options: --workers N, --cpu LIST"));
        } else {
            opts.words.push(arg);
        }
    }
    opts
}

/// This thread runs on the CPUs of the list from now on; threads that it starts inherit that.
fn pin(list: &str) {
    // SAFETY: an all-zero cpu_set_t is the empty set, CPU_SET is given numbers below its size, and
    // the kernel only reads the set.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for word in list.split(',') {
            match word.parse::<usize>() {
                Ok(cpu) if cpu < libc::CPU_SETSIZE as usize => libc::CPU_SET(cpu, &mut set),
                _ => die("--cpu takes numbers with commas between them"),
            }
        }
        if libc::sched_setaffinity(0, std::mem::size_of_val(&set), &set) != 0 {
            die("cannot run on these CPUs");
        }
    }
}

pub fn runtime(workers: usize) -> tokio::runtime::Runtime {
    let built = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_io()
        .build();
    built.unwrap_or_else(|e| die(&format!("cannot start the runtime: {e}")))
}
