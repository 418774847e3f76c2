//! The spool's work on a folder, a job at a time: list, write, read, remove. Blocking, and without a decision of its own: what
//! to do comes in as a [`Job`], what came of it goes out as [`Done`].
//!
//! A file gets its name only when all of it is on disk, and the names are made durable once for all files of a job.

use std::collections::{HashMap, HashSet};
use std::io;

use bytes::Bytes;

use super::record::{self, HEAD, Head, Kind, MAX_FILE, name, parse};
use crate::datadog::{self, Payload};
use crate::sink::storage::{Opener, Storage};

/// The second that the last partial flush was stamped with, and its checksum.
const STAMP: &str = "last_partial";
const STAMP_UNFINISHED: &str = "last_partial.new";

/// Done in this order, so that what is removed makes room first.
#[derive(Debug, Default)]
pub(in crate::sink) struct Job {
    pub remove: Vec<u64>,
    pub stamp: Option<i64>,
    pub write: Vec<Write>,
    pub load: Vec<Load>,
}

impl Job {
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.stamp.is_none() && self.write.is_empty() && self.load.is_empty()
    }
}

#[derive(Debug)]
pub(in crate::sink) struct Write {
    pub file: u64,
    pub sequence: u64,
    pub tried: bool,
    pub payload: Payload,
}

#[derive(Debug)]
pub(in crate::sink) struct Load {
    /// The item's, which comes back with the result.
    pub id: u64,
    pub file: u64,
    /// Which part of it, as in [`Item`](crate::sink::queue::Item).
    pub part: u64,
    /// Note on disk that the intake may have it from now on.
    pub mark: bool,
}

/// What came of a job.
#[derive(Debug, Default)]
pub(in crate::sink) struct Done {
    pub removed: Vec<u64>,
    /// Files that could not be removed.
    pub stuck: Vec<u64>,
    pub written: Vec<u64>,
    pub unwritten: Vec<Unwritten>,
    pub loaded: Vec<(u64, Loaded)>,
    /// The stamp is on disk.
    pub stamped: Option<i64>,
    /// What failed first, in words.
    pub fault: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(in crate::sink) struct Unwritten {
    pub file: u64,
    /// Something of it may have stayed on disk.
    pub left: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(in crate::sink) enum Loaded {
    Body(Bytes),
    /// Not what was written: it will not become better.
    Corrupt,
    /// The disk failed; it may be well later.
    Failed,
}

/// What a folder holds at the start.
#[derive(Debug, Default)]
pub(in crate::sink) struct Found {
    pub records: Vec<FoundRecord>,
    pub corrupt_files: u64,
    /// In those of them whose head could still be read.
    pub corrupt_points: u64,
    /// The next number that no file has.
    pub next_file: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sink) struct FoundRecord {
    pub file: u64,
    pub tried: bool,
    pub head: Head,
}

#[derive(Debug)]
pub(in crate::sink) struct Disk {
    storage: Box<dyn Storage>,
}

impl Disk {
    /// Opens the folder and reads the heads of what is in it.
    pub fn open(opener: Opener) -> io::Result<(Disk, Found)> {
        let mut disk = Disk { storage: opener()? };
        let found = disk.find()?;
        disk.probe()?;
        Ok((disk, found))
    }

    /// A folder in which nothing can be written is as good as none, and better told now than in an outage. A full disk is no
    /// such thing: it may be emptied.
    fn probe(&mut self) -> io::Result<()> {
        let probe = name(u64::MAX, Kind::Unfinished);
        let _ = self.storage.remove(&probe);
        match self.storage.create(&probe).and_then(|_| self.storage.remove(&probe)) {
            Err(error)
                if matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied) =>
            {
                Err(error)
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn find(&mut self) -> io::Result<Found> {
        let mut found = Found::default();
        let (mut files, mut heads) = (HashSet::new(), HashMap::new());
        for name in self.storage.list()? {
            let Some((file, kind)) = parse(&name) else { continue };
            if kind == Kind::Unfinished {
                let _ = self.storage.remove(&name);
                continue;
            }
            found.next_file = found.next_file.max(file.saturating_add(1));
            let head = self.head(&name);
            match head {
                Ok((head, length)) if head.file_length() == length && files.insert(file) => {
                    if let Some(first) = heads.insert(head, found.records.len()) {
                        // Written twice, because the first could neither be made sure of nor removed.
                        heads.insert(head, first);
                        found.records[first].tried |= kind == Kind::Tried;
                        let _ = self.storage.remove(&name);
                        continue;
                    }
                    found.records.push(FoundRecord { file, tried: kind == Kind::Tried, head });
                }
                torn => {
                    found.corrupt_files += 1;
                    if let Ok((head, _)) = &torn
                        && head.endpoint.carries_points()
                    {
                        found.corrupt_points = found.corrupt_points.saturating_add(head.points);
                    }
                    if torn.as_ref().err().is_none_or(is_lasting) {
                        // A directory stays: it is in nobody's way.
                        let _ = self.storage.remove(&name);
                    }
                }
            }
        }
        Ok(found)
    }

    fn head(&mut self, name: &str) -> io::Result<(Head, u64)> {
        let (bytes, length) = self.storage.read(name, HEAD)?;
        let head = Head::decode(&bytes).ok_or(io::ErrorKind::InvalidData)?;
        Ok((head, length))
    }

    pub fn perform(&mut self, job: Job) -> Done {
        let mut done = Done::default();
        for file in job.remove {
            match self.remove(file) {
                Ok(()) => done.removed.push(file),
                Err(error) => {
                    done.stuck.push(file);
                    note(&mut done, "remove a payload", &error);
                }
            }
        }
        if let Some(stamp) = job.stamp {
            match self.write_stamp(stamp) {
                Ok(()) => done.stamped = Some(stamp),
                Err(error) => note(&mut done, "write the stamp of the last flush", &error),
            }
        }
        self.write_all(job.write, &mut done);
        for load in job.load {
            let loaded = self.load(&load, &mut done);
            done.loaded.push((load.id, loaded));
        }
        done
    }

    /// Under whatever name it has. Removing needs no room on the disk.
    fn remove(&mut self, file: u64) -> io::Result<()> {
        let mut result = Ok(());
        for kind in Kind::ALL {
            match self.storage.remove(&name(file, kind)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => result = Err(error),
                _ => {}
            }
        }
        result
    }

    /// All of them or, from the first that fails, none: a disk that is full for one is full for the next.
    fn write_all(&mut self, writes: Vec<Write>, done: &mut Done) {
        let mut good: Vec<u64> = Vec::new();
        let mut result = Ok(());
        for write in &writes {
            if result.is_ok() {
                result = self.write(write);
                if result.is_ok() {
                    good.push(write.file);
                }
            }
        }
        if let Err(error) = &result {
            note(done, "write a payload", error);
        }
        if !good.is_empty()
            && let Err(error) = self.storage.sync_names()
        {
            note(done, "write the folder", &error);
            good.clear();
        }
        for Write { file, .. } in writes {
            if good.contains(&file) {
                done.written.push(file);
            } else {
                let left = self.remove(file).is_err();
                done.unwritten.push(Unwritten { file, left });
            }
        }
    }

    fn write(&mut self, write: &Write) -> io::Result<()> {
        let unfinished = name(write.file, Kind::Unfinished);
        let head = Head::of(&write.payload, write.sequence).encode();
        self.write_through(&unfinished, &[&head, &write.payload.body])?;
        self.storage.rename(&unfinished, &name(write.file, if write.tried { Kind::Tried } else { Kind::Waiting }))
    }

    fn write_through(&mut self, name: &str, parts: &[&[u8]]) -> io::Result<()> {
        let mut file = self.storage.create(name)?;
        for part in parts {
            self.storage.write(&mut file, part)?;
        }
        self.storage.sync(&file)
    }

    fn write_stamp(&mut self, stamp: i64) -> io::Result<()> {
        let bytes = stamp.to_le_bytes();
        let _ = self.storage.remove(STAMP_UNFINISHED);
        self.write_through(STAMP_UNFINISHED, &[&bytes, &crc32fast::hash(&bytes).to_le_bytes()])?;
        self.storage.rename(STAMP_UNFINISHED, STAMP)?;
        self.storage.sync_names()
    }

    fn load(&mut self, load: &Load, done: &mut Done) -> Loaded {
        let (waiting, tried) = (name(load.file, Kind::Waiting), name(load.file, Kind::Tried));
        if load.mark {
            // It has that name already, or the mark is lost: neither keeps it from being sent.
            let _ = self.storage.rename(&waiting, &tried);
        }
        let read = match self.storage.read(&tried, MAX_FILE) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.storage.read(&waiting, MAX_FILE),
            other => other,
        };
        match read {
            Ok((bytes, _)) => record::decode(&bytes)
                .and_then(|(head, body)| part(head.payload(body), load.part))
                .map_or(Loaded::Corrupt, |part| Loaded::Body(part.body)),
            Err(error) if is_lasting(&error) => Loaded::Corrupt,
            Err(error) => {
                note(done, "read a payload", &error);
                Loaded::Failed
            }
        }
    }
}

/// The part of this number, cut out as it was when the whole was too large.
fn part(whole: Payload, number: u64) -> Option<Payload> {
    let turns = (0..number.ilog2()).rev().map(|bit| number >> bit & 1);
    turns.into_iter().try_fold(whole, |payload, turn| {
        let (left, right) = datadog::split(&payload)?;
        Some(if turn == 0 { left } else { right })
    })
}

/// The second of the last partial flush that a folder knows of.
pub(in crate::sink) fn read_stamp(storage: &mut dyn Storage) -> Option<i64> {
    let (bytes, _) = storage.read(STAMP, 12).ok()?;
    let bytes: [u8; 12] = bytes.try_into().ok()?;
    let (stamp, checksum) = bytes.split_at(8);
    (crc32fast::hash(stamp).to_le_bytes() == checksum).then(|| i64::from_le_bytes(stamp.try_into().unwrap_or_default()))
}

/// Gone, a directory, a symlink: not to be read later either.
fn is_lasting(error: &io::Error) -> bool {
    let symlink = error.raw_os_error() == Some(nix::errno::Errno::ELOOP as i32);
    symlink
        || matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData | io::ErrorKind::IsADirectory)
}

fn note(done: &mut Done, what: &str, error: &io::Error) {
    if done.fault.is_none() {
        done.fault = Some(format!("{what}: {error}"));
    }
}
