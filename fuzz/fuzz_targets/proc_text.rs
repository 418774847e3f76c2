//! What the kernel, or another process by its own name and arguments, may write into `/proc` and cgroup files.
//!
//! An input is the files' texts, divided by the separator, in the order of [`FILES`]; they are written into a folder in memory and read
//! as the sampler reads them.
#![no_main]

use std::borrow::Cow;
use std::cell::RefCell;
use std::path::{Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use oomwatch::source::census::{self, MAX_ROWS, Ours};
use oomwatch::source::process::{self, Held, Status};
use oomwatch::source::{cgroup, find};

const FILES: [&str; 15] = [
    STAT,
    "proc/7/status",
    "proc/7/cgroup",
    "proc/7/mountinfo",
    "proc/7/statm",
    "proc/7/limits",
    "proc/7/cmdline",
    "proc/self/cgroup",
    "proc/self/mountinfo",
    "proc/net/udp",
    "proc/net/tcp",
    "cgroup/app/memory.stat",
    "cgroup/app/memory.max",
    "cgroup/app/memory.current",
    "proc/net/unix",
];

/// Of this file an input has the name only, of which a process may make anything: procfs panics on a line that ends after it,
/// which no kernel writes.
const STAT: &str = "proc/7/stat";
const STAT_REST: &[u8] = b") S 1 7 7 0 -1 4194304 90 0 0 0 0 0 0 0 20 0 3 0 4711 2457600 150 18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n";

/// ASCII's record separator; NUL divides the arguments of a command line.
const SEPARATOR: u8 = 0x1e;

/// Version 1 lies in a folder of its own.
const V1: [(&str, &str); 3] = [
    ("memory.stat", "memory.stat"),
    ("memory.max", "memory.limit_in_bytes"),
    ("memory.current", "memory.usage_in_bytes"),
];

const TOTAL: u64 = 8 << 30;

thread_local! {
    static ROOT: RefCell<Option<PathBuf>> = const { RefCell::new(None) };
}

fuzz_target!(|input: &[u8]| {
    let root = root();
    write(&root, input);
    let proc = root.join("proc");
    pure(&String::from_utf8_lossy(input));
    let census =
        census::take(&proc, &Ours { ports: vec![8125], inodes: vec![77], unixgram: Some(99), connections: Some(1) });
    // The rows of two tables, one reference count, one connection.
    let most = 2 * MAX_ROWS as u64 + u64::from(u32::MAX) + 1;
    assert!(census.clients.is_none_or(|clients| clients <= most), "{census:?}");
    let table = process::table(&proc).expect("the folder is there");
    if let Ok(found) = find::find(&proc, &table, &find::Wanted { pprof_port: Some(6060), ..Default::default() }) {
        assert!(!found.rule.chars().any(char::is_control) && !found.name.chars().any(char::is_control), "{found:?}");
    }
    if let Some(held) = Held::open(&proc, 7) {
        look(&held, &proc, &root.join("cgroup"));
    }
});

fn pure(text: &str) {
    let _ = Status::parse(text);
    let _ = cgroup::field(text, "inactive_file");
    assert!(!process::plain(text).chars().any(char::is_control));
}

fn look(held: &Held, proc: &Path, mount: &Path) {
    let usage = held.usage();
    let _ = (usage.plus(usage), held.arguments(), held.fd_limit(), held.sockets(), held.lives(), held.name());
    let Ok(memory) = cgroup::resolve(held, proc, mount) else { return };
    let Some(figures) = memory.figures(held, TOTAL) else { return };
    assert!(figures.limit_bytes.is_none_or(|limit| limit > 0 && limit < TOTAL), "{figures:?}");
    assert_eq!(figures.limit_bytes.is_some(), !figures.limit_source.is_empty());
}

/// A folder of this process, made once in `TMPDIR`, which `dev/fuzz` puts into memory.
fn root() -> PathBuf {
    ROOT.with_borrow_mut(|root| root.get_or_insert_with(make).clone())
}

fn make() -> PathBuf {
    let root = std::env::temp_dir().join(format!("oomwatch-fuzz-{}", std::process::id()));
    for folder in ["proc/7/fd", "proc/self", "proc/net", "cgroup/app", "cgroup/memory/app"] {
        std::fs::create_dir_all(root.join(folder)).expect("make the folder of the files");
    }
    root
}

fn write(root: &Path, input: &[u8]) {
    let mut texts = input.split(|byte| *byte == SEPARATOR);
    for file in FILES {
        let mut text = Cow::Borrowed(texts.next().unwrap_or_default());
        if file == STAT {
            text = [b"7 (", &text[..text.len().min(15)], STAT_REST].concat().into();
        }
        let text = &*text;
        std::fs::write(root.join(file), text).expect("write into the folder");
        for (_, v1) in V1.iter().filter(|(name, _)| file.ends_with(name)) {
            std::fs::write(root.join("cgroup/memory/app").join(v1), text).expect("write into the folder");
        }
    }
}
