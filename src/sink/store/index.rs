//! What a profile's name does not say: why it was pulled and why it stays. One small file beside the profiles, whole or not there.
//!
//! A profile is on disk before the index tells of it. What the index does not name is kept as well, without a reason or a pin; what
//! it names and is not there is forgotten; a file of another size than it says was torn by somebody and is removed.

use std::io;

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::Kept;
use super::pins::Pins;
use crate::sink::storage::Storage;
use crate::sink::{sealed, whole};

pub(super) const NAME: &str = "oomwatch.profiles";
const UNFINISHED: &str = ".unfinished-oomwatch.profiles";
const MAGIC: &str = "oomwatch-profiles";
const VERSION: u32 = 1;
/// Ten thousand entries; what is more stays without.
const MAX_BYTES: u64 = 2 << 20;

/// A line of the index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub id: String,
    pub kind: String,
    pub reason: String,
    pub taken_at: f64,
    pub bytes: u64,
    #[serde(flatten)]
    pub pins: Pins,
}

/// Empty where there is none, or none that can be used, which is said.
pub(super) fn read(folder: &mut dyn Storage) -> Vec<Entry> {
    let (reason, why) = match whole::read(folder, NAME, MAX_BYTES) {
        Ok(bytes) => match parse(&bytes) {
            Ok(entries) => return entries,
            Err(fault) => fault,
        },
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(fault) => ("read", fault.to_string()),
    };
    warn!(reason, "the index of profile.dir cannot be used: profiles stay, the reasons and pins of them do not: {why}");
    Vec::new()
}

fn parse(bytes: &[u8]) -> Result<Vec<Entry>, (&'static str, String)> {
    let body = sealed::open(MAGIC, VERSION, bytes)?;
    serde_json::from_slice(body).map_err(|fault| ("damaged", fault.to_string()))
}

/// The bytes of the index of what is on disk: the newest, as many as there is room for.
pub(super) fn encode(kept: &[Kept]) -> Vec<u8> {
    let on_disk = kept.iter().rev().filter(|kept| kept.memory.is_none()).map(|kept| Entry {
        id: kept.id.clone(),
        kind: kept.kind.clone(),
        reason: kept.reason.clone(),
        taken_at: kept.taken_at,
        bytes: kept.bytes,
        pins: kept.pins.clone(),
    });
    let mut room = MAX_BYTES as usize - 64;
    let lines = on_disk.map_while(|entry| {
        let line = serde_json::to_string(&entry).expect("numbers and text have a form in JSON");
        room = room.checked_sub(line.len() + 2)?;
        Some(line)
    });
    let body = format!("[{}]\n", lines.collect::<Vec<_>>().join(",\n"));
    sealed::seal(MAGIC, VERSION, body.as_bytes())
}

pub(super) fn write(folder: &mut dyn Storage, bytes: &[u8]) -> io::Result<()> {
    // What a kill left under its name goes first.
    whole::remove(folder, UNFINISHED)?;
    whole::write(folder, UNFINISHED, NAME, bytes)
}
