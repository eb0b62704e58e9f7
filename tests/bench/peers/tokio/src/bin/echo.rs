// SPDX-License-Identifier: MIT

//! The echo server that one writes with tokio: a task and a 4 KiB buffer per connection.
//!
//!     echo HOST:PORT [--cpu LIST] [--workers N]
//!
//! Prints "listening on HOST:PORT" when clients may connect. SIGTERM ends it.

use reeve_bench_tokio::{die, parse, runtime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn echo(mut stream: TcpStream) {
    let mut buf = vec![0u8; 4096];
    while let Ok(n) = stream.read(&mut buf).await {
        if n == 0 || stream.write_all(&buf[..n]).await.is_err() {
            return;
        }
    }
}

async fn serve(addr: String) -> std::io::Result<()> {
    let door = TcpListener::bind(&addr).await?;
    println!("listening on {}", door.local_addr()?);
    loop {
        let (stream, _) = door.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(echo(stream));
    }
}

fn main() {
    let opts = parse();
    if opts.words.len() != 1 {
        die("usage: HOST:PORT [--cpu LIST] [--workers N]");
    }
    // The accept loop is a task too: the thread in block_on does nothing but wait.
    let serving = serve(opts.words[0].clone());
    let ended = runtime(opts.workers).block_on(async { tokio::spawn(serving).await });
    die(&format!("echo: {ended:?}"))
}
