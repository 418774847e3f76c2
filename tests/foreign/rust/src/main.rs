//! A Rust service that leaks and serves its heap profile by `jemalloc_pprof`, under the path of Go's net/http/pprof. Prints the port
//! of its profiles; grows by PARTS × 128 KiB ten times a second once it was told to (POST /leak).

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// As the documentation of `jemalloc_pprof` has it: one sample for each 512 KiB.
#[unsafe(export_name = "malloc_conf")]
pub static MALLOC_CONF: &[u8] = b"prof:true,prof_active:true,lg_prof_sample:19\0";

static LEAKING: AtomicBool = AtomicBool::new(false);

/// What every job brought, by its number; nobody takes it out again.
static REMEMBERED: Mutex<Option<HashMap<u64, Vec<u64>>>> = Mutex::new(None);

mod jobs {
    use super::*;

    pub struct Worker<T> {
        pub done: T,
    }

    impl<T: Into<u64> + Copy> Worker<T> {
        #[inline(never)]
        pub fn handle_job(&self, job: u64) {
            remember(self.done.into() + job);
        }
    }

    #[inline(never)]
    fn remember(job: u64) {
        let mut all = REMEMBERED.lock().expect("nobody panics with it");
        all.get_or_insert_default().insert(job, vec![job + 1; 16 * 1024]);
    }
}

fn work() {
    let parts: u64 = std::env::var("PARTS").ok().and_then(|parts| parts.parse().ok()).unwrap_or(8);
    let mut job = 0;
    let worker = jobs::Worker { done: 0_u32 };
    loop {
        std::thread::sleep(Duration::from_millis(100));
        for _ in 0..if LEAKING.load(Ordering::Relaxed) { parts } else { 0 } {
            job += 1;
            worker.handle_job(job);
        }
    }
}

fn heap() -> Option<Vec<u8>> {
    jemalloc_pprof::PROF_CTL.as_ref()?.blocking_lock().dump_pprof().ok()
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let path = request.split(' ').nth(1).and_then(|path| path.split('?').next()).unwrap_or_default();
    let body = match path {
        "/leak" => {
            LEAKING.store(true, Ordering::Relaxed);
            Some(Vec::new())
        }
        "/debug/pprof/heap" => heap(),
        _ => None,
    };
    let status = if body.is_some() { "200 OK" } else { "404 Not Found" };
    let body = body.unwrap_or_default();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    stream.write_all(&body)
}

fn main() -> std::io::Result<()> {
    // Large enough to be sampled: a profile of the healthy service has a stack of it, for which the profiler reads its symbols.
    let table = vec![1_u64; 1 << 19];
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?.port());
    std::thread::spawn(work);
    // Ends with its standard input, so that a test that is killed leaves nothing behind.
    std::thread::spawn(|| {
        let _ended = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    for stream in listener.incoming() {
        let _gone = answer(stream?);
    }
    drop(table);
    Ok(())
}
