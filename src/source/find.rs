//! Decides which process is the app, and says by which rule.
//!
//! The rules, strongest first: what the settings ask for; the owner of the pprof port; the only process tree that is not ours;
//! the largest. A guess is never silent: the rule is put in words, with the runners-up. The port needs the list of the app's
//! open files, so the same user; without it the port's uid still narrows the choice.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::process::{Entry, Held, plain, tree};

/// What the settings say about the target. All `None` means: guess.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub pid: Option<i32>,
    pub name: Option<String>,
    pub cmdline: Option<regex_lite::Regex>,
    pub pprof_port: Option<u16>,
}

/// How much the finding can be trusted. A guess is looked at again; see the sampler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strength {
    Guess,
    Port,
    Asked,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub pid: i32,
    pub start: u64,
    pub name: String,
    pub rule: String,
    pub strength: Strength,
}

/// Runners-up named in a rule's words.
const RUNNERS_UP: usize = 3;

/// Rows of `/proc/net/tcp` read in search of the listener.
const MAX_ROWS: usize = 65_536;

/// Finds the target in `table`, or says in words why there is none.
///
/// # Errors
/// The sentence for people: what was looked for, and what was there.
pub fn find(proc: &Path, table: &[Entry], wanted: &Wanted) -> Result<Found, String> {
    let own = own_pid(proc);
    let ancestors = ancestors(table, own);
    if wanted.pid.is_some() || wanted.name.is_some() || wanted.cmdline.is_some() {
        return asked(proc, table, wanted, own, &ancestors);
    }
    let ours = own.map_or_else(Vec::new, |own| tree(table, own));
    // Another oomwatch is no app: the doctor runs beside the sidecar.
    let name = table.iter().find(|entry| Some(entry.pid) == own).map(|entry| &entry.name);
    let family =
        |entry: &Entry| ours.contains(&entry.pid) || ancestors.contains(&entry.pid) || Some(&entry.name) == name;
    let strangers = |entry: &&Entry| entry.lives && !family(entry);
    let candidates: Vec<&Entry> = table.iter().filter(strangers).filter(|entry| !is_pause(proc, entry)).collect();
    if candidates.is_empty() {
        return Err("no process besides the sidecar's own can be seen".to_owned());
    }
    let listeners = wanted.pprof_port.map(|port| listeners(proc, port)).unwrap_or_default();
    if let Some(owner) = port_owner(proc, &candidates, &listeners) {
        let port = wanted.pprof_port.unwrap_or_default();
        return Ok(found(owner, format!("it listens on the pprof port {port}"), &candidates, Strength::Port));
    }
    let uid = |entry: &&&Entry| Held::open(proc, entry.pid).and_then(|held| held.status().uid);
    let by_uid: Vec<&Entry> = candidates
        .iter()
        .filter(|entry| uid(entry).is_some_and(|uid| listeners.iter().any(|row| row.uid == uid)))
        .copied()
        .collect();
    let narrowed = if by_uid.is_empty() { "" } else { " of the user that owns the pprof port" };
    let candidates = if by_uid.is_empty() { candidates } else { by_uid };
    Ok(largest(table, &candidates, narrowed))
}

/// Our own number as this `/proc` counts: it may be another namespace's.
fn own_pid(proc: &Path) -> Option<i32> {
    std::fs::read_link(proc.join("self")).ok()?.to_str()?.parse().ok()
}

fn ancestors(table: &[Entry], of: Option<i32>) -> Vec<i32> {
    let mut chain = Vec::new();
    let mut pid = of;
    while let Some(entry) = pid.and_then(|pid| table.iter().find(|entry| entry.pid == pid)) {
        if chain.contains(&entry.parent) || entry.parent == 0 {
            break;
        }
        chain.push(entry.parent);
        pid = Some(entry.parent);
    }
    chain
}

/// The process that holds a pod's namespaces open: `/pause` of Kubernetes, `/catatonit -P` of podman.
fn is_pause(proc: &Path, entry: &Entry) -> bool {
    let arguments = || Held::open(proc, entry.pid).map(|held| held.arguments()).unwrap_or_default();
    match entry.name.as_str() {
        "pause" => true,
        "catatonit" => arguments().iter().any(|argument| argument == "-P"),
        _ => false,
    }
}

/// The settings name it: then our own children are allowed, since a demonstration starts its app itself.
fn asked(proc: &Path, table: &[Entry], wanted: &Wanted, own: Option<i32>, ancestors: &[i32]) -> Result<Found, String> {
    let open = |entry: &&Entry| entry.lives && Some(entry.pid) != own;
    if let Some(pid) = wanted.pid {
        let entry = table.iter().filter(open).find(|entry| entry.pid == pid);
        return entry
            .map(|entry| found(entry, format!("watch.pid = {pid}"), &[], Strength::Asked))
            .ok_or_else(|| format!("watch.pid = {pid}: no such process can be seen"));
    }
    let mut words = Vec::new();
    words.extend(wanted.name.as_ref().map(|name| format!("watch.name = {name:?}")));
    words.extend(wanted.cmdline.as_ref().map(|pattern| format!("watch.cmdline = {:?}", pattern.as_str())));
    let words = words.join(" and ");
    let matches = |entry: &&Entry| fits(proc, entry, wanted);
    let all: Vec<&Entry> =
        table.iter().filter(open).filter(|entry| !ancestors.contains(&entry.pid)).filter(matches).collect();
    // A server that forks workers of its own name is watched as a whole, from the top.
    let top = all.iter().filter(|entry| !all.iter().any(|other| other.pid == entry.parent));
    let best = top.max_by_key(|entry| (entry.resident_bytes, std::cmp::Reverse(entry.pid)));
    best.map(|best| found(best, words.clone(), &all, Strength::Asked))
        .ok_or_else(|| format!("{words}: no process matches"))
}

fn fits(proc: &Path, entry: &Entry, wanted: &Wanted) -> bool {
    let arguments = Held::open(proc, entry.pid).map(|held| held.arguments()).unwrap_or_default();
    let binary = arguments.first().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    // The kernel keeps 15 bytes of a name; the whole one stands in the first argument.
    let name = wanted.name.as_ref().is_none_or(|name| entry.name == *name || binary == name);
    name && wanted.cmdline.as_ref().is_none_or(|pattern| pattern.is_match(&arguments.join(" ")))
}

/// A listening row of `/proc/net/tcp{,6}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listener {
    inode: u64,
    uid: u32,
}

fn listeners(proc: &Path, port: u16) -> Vec<Listener> {
    let open = |name: &str| File::open(proc.join("net").join(name)).ok();
    let files = ["tcp", "tcp6"].into_iter().filter_map(open);
    files.flat_map(|file| parse_listeners(BufReader::new(file.take(64 << 20)), port)).collect()
}

fn parse_listeners(table: impl BufRead, port: u16) -> Vec<Listener> {
    let row = |line: String| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (local, state) = (words.next()?, words.nth(1)?);
        // 0A is TCP_LISTEN.
        let ours = state == "0A" && u16::from_str_radix(local.rsplit_once(':')?.1, 16) == Ok(port);
        let (uid, inode) = (words.nth(3)?.parse().ok()?, words.nth(1)?.parse().ok()?);
        ours.then_some(Listener { inode, uid })
    };
    table.lines().map_while(Result::ok).take(MAX_ROWS).filter_map(row).collect()
}

fn port_owner<'a>(proc: &Path, candidates: &[&'a Entry], listeners: &[Listener]) -> Option<&'a Entry> {
    if listeners.is_empty() {
        return None;
    }
    let sockets = |entry: &Entry| Held::open(proc, entry.pid).and_then(|held| held.sockets()).unwrap_or_default();
    let owns = |entry: &&&Entry| sockets(entry).iter().any(|inode| listeners.iter().any(|row| row.inode == *inode));
    candidates.iter().find(owns).copied()
}

/// The only tree among the candidates, or that with the most memory.
fn largest(table: &[Entry], candidates: &[&Entry], narrowed: &str) -> Found {
    let is_root = |entry: &&&Entry| !candidates.iter().any(|other| other.pid == entry.parent && other.pid != entry.pid);
    let whole = |root: &Entry| -> u64 {
        let pids = tree(table, root.pid);
        table.iter().filter(|entry| pids.contains(&entry.pid)).map(|entry| entry.resident_bytes).sum()
    };
    let mut roots: Vec<&Entry> = candidates.iter().filter(is_root).copied().collect();
    if roots.is_empty() {
        roots = candidates.to_vec();
    }
    roots.sort_by_key(|root| (std::cmp::Reverse(whole(root)), root.pid));
    let rule = match roots.len() {
        1 => format!("the only process tree{narrowed} besides the sidecar's"),
        count => format!("the largest resident memory among {count} process trees{narrowed}"),
    };
    found(roots[0], rule, &roots, Strength::Guess)
}

fn found(entry: &Entry, rule: String, others: &[&Entry], strength: Strength) -> Found {
    let mut others: Vec<&&Entry> = others.iter().filter(|other| other.pid != entry.pid).collect();
    others.sort_by_key(|other| (std::cmp::Reverse(other.resident_bytes), other.pid));
    let words: Vec<String> = others
        .iter()
        .take(RUNNERS_UP)
        .map(|other| format!("{} (pid {}, {} MiB)", plain(&other.name), other.pid, other.resident_bytes >> 20))
        .collect();
    let rule = if words.is_empty() { rule } else { format!("{rule}; runners-up: {}", words.join(", ")) };
    Found { pid: entry.pid, start: entry.start, name: plain(&entry.name), rule, strength }
}

#[cfg(test)]
mod tests;
