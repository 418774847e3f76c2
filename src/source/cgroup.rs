//! The app's memory cgroup: what it uses, and the limit at which it is killed. Version 1, version 2, or both mounted (hybrid:
//! then whichever holds the memory controller).
//!
//! A container sees only its own cgroup at `/sys/fs/cgroup`, so ours tells our limit and not the app's. The app's is reached
//! through `/proc/PID/root`, which takes the same user *and* group; or through a mount of the host's tree. Where a cgroup lies
//! below a mount is worked out from `/proc/PID/cgroup` and `mountinfo`; the kernel writes both relative to *our* cgroup
//! namespace, so they fit one another, and a path with `..` left in it leads outside of the mount and is not followed.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

use super::process::{Held, read_text};

/// Levels looked at above the app's cgroup. Kubernetes makes four or five.
const MAX_LEVELS: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

impl Version {
    fn limit_file(self) -> &'static str {
        match self {
            Version::V1 => "memory.limit_in_bytes",
            Version::V2 => "memory.max",
        }
    }

    fn usage_file(self) -> &'static str {
        match self {
            Version::V1 => "memory.usage_in_bytes",
            Version::V2 => "memory.current",
        }
    }

    /// The file with the counter `oom_kill`.
    pub fn kill_file(self) -> &'static str {
        match self {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        }
    }
}

/// One cgroup on the way from the app's up to the mount.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Level {
    /// Absolute, or relative to the held process directory (`root/sys/fs/cgroup/…`).
    dir: PathBuf,
    /// The sidecar is in it too, so its usage is not the app's alone.
    ours: bool,
}

/// The app's memory cgroup and those above it that can be seen, innermost first, never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    pub version: Version,
    levels: Vec<Level>,
}

/// Why the cgroup could not be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// The files are there and may not be read.
    Denied,
    Absent,
}

/// What one look at the cgroup brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub limit_bytes: Option<u64>,
    /// Where the limit was read, in words; `""` without one.
    pub limit_source: &'static str,
    /// Of the cgroup that has the limit; `None` when it has none, cannot be read, or holds the sidecar as well.
    pub unreclaimable_bytes: Option<u64>,
    pub working_set_bytes: Option<u64>,
    /// All that is charged to the cgroup that has the limit, and pages read from disk again in the app's own so far.
    pub usage_bytes: Option<u64>,
    pub major_faults: Option<u64>,
}

/// Finds the memory cgroup of `held`.
///
/// `mount` is a place to look at last, where the host's tree may be mounted (`/sys/fs/cgroup` as a rule).
///
/// # Errors
/// Tells a missing right from a missing file.
pub fn resolve(held: &Held, proc: &Path, mount: &Path) -> Result<Memory, Unreachable> {
    let (version, path) =
        held.text("cgroup", 64 * 1024).ok().and_then(|text| membership(&text)).ok_or(Unreachable::Absent)?;
    let own_text = |file: &str| {
        File::open(proc.join("self").join(file)).and_then(|file| read_text(file, 1 << 20)).unwrap_or_default()
    };
    let own = membership(&own_text("cgroup")).filter(|(own, _)| *own == version).map(|(_, path)| path);
    let theirs = held.text("mountinfo", 1 << 20).unwrap_or_default();
    let through_process =
        mounts(&theirs, version).map(|(root, point)| (root, Path::new("root").join(point.trim_start_matches('/'))));
    let ours = own_text("mountinfo");
    let through_us = mounts(&ours, version).map(|(root, point)| (root, PathBuf::from(point)));
    let fallback = match version {
        Version::V1 => mount.join("memory"),
        Version::V2 => mount.to_owned(),
    };
    let mut outcome = Unreachable::Absent;
    for (root, point) in through_process.chain(through_us).chain([("/", fallback)]) {
        let Some(levels) = levels(&path, root, &point, own.as_deref()) else { continue };
        match held.file(&levels[0].dir.join("memory.stat")) {
            Ok(_) => return Ok(Memory { version, levels }),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => outcome = Unreachable::Denied,
            Err(_) => {}
        }
    }
    Err(outcome)
}

/// The line of `/proc/PID/cgroup` that the memory controller goes by.
fn membership(text: &str) -> Option<(Version, PathBuf)> {
    let lines = || text.lines().filter_map(|line| line.splitn(3, ':').collect::<Vec<_>>().try_into().ok());
    let first = lines().find(|[_, controllers, _]: &[&str; 3]| controllers.split(',').any(|name| name == "memory"));
    let second = || lines().find(|[id, controllers, _]: &[&str; 3]| *id == "0" && controllers.is_empty());
    let clean = |path: &str| PathBuf::from(path.strip_suffix(" (deleted)").unwrap_or(path));
    first
        .map(|[_, _, path]| (Version::V1, clean(path)))
        .or_else(|| second().map(|[_, _, path]| (Version::V2, clean(path))))
}

/// The mounts of `mountinfo` that show memory cgroups: (root within the hierarchy, mount point).
fn mounts(text: &str, version: Version) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(move |line| {
        let (mount, rest) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, point) = (mount.next()?, mount.next()?);
        let mut rest = rest.split(' ');
        let (kind, options) = (rest.next()?, rest.nth(1)?);
        let fits = match version {
            Version::V1 => kind == "cgroup" && options.split(',').any(|option| option == "memory"),
            Version::V2 => kind == "cgroup2",
        };
        fits.then_some((root, point))
    })
}

/// The folders from the cgroup at `path` up to the mount that shows `root` at `point`.
fn levels(path: &Path, root: &str, point: &Path, own: Option<&Path>) -> Option<Vec<Level>> {
    let below = path.strip_prefix(root).ok()?;
    if below.components().any(|part| part == Component::ParentDir) {
        return None;
    }
    let ours = |path: &Path| own.is_some_and(|own| own.starts_with(path));
    let folders = below.ancestors().zip(path.ancestors());
    let levels = folders.map(|(below, path)| Level { dir: point.join(below), ours: ours(path) });
    Some(levels.take(MAX_LEVELS).collect())
}

impl Memory {
    /// Opens the file with the kill counter of the app's own cgroup.
    ///
    /// # Errors
    /// As opening a file does.
    pub fn kill_counter(&self, held: &Held) -> io::Result<File> {
        held.file(&self.levels[0].dir.join(self.version.kill_file()))
    }

    /// Opens a file of the cgroup with the tightest limit.
    pub fn at_limit(&self, held: &Held, total: u64, file: &str) -> Option<File> {
        let (_, index) = self.tightest(held, total)?;
        held.file(&self.levels[index].dir.join(file)).ok()
    }

    fn tightest(&self, held: &Held, total: u64) -> Option<(u64, usize)> {
        let limits =
            self.levels.iter().enumerate().filter_map(|(index, level)| Some((self.limit(held, level)?, index)));
        limits.filter(|(limit, _)| *limit < total).min()
    }

    /// Reads usage and limit. `None` when the cgroup has gone or moved: resolve again.
    ///
    /// `total` is the machine's memory: a limit at or above it is none.
    pub fn figures(&self, held: &Held, total: u64) -> Option<Figures> {
        let stat = self.stat(held, 0)?;
        let tightest = self.tightest(held, total);
        let faults = match self.version {
            Version::V1 => "total_pgmajfault",
            Version::V2 => "pgmajfault",
        };
        let seen = Figures { major_faults: field(&stat, faults), ..Figures::default() };
        // Version 1 tells the tightest limit of all ancestors, also of those that no mount shows us.
        let hidden = (self.version == Version::V1).then(|| field(&stat, "hierarchical_memory_limit")).flatten();
        if let Some(limit) = hidden.filter(|hidden| *hidden < tightest.map_or(total, |(limit, _)| limit)) {
            let limit_source = "hierarchical_memory_limit of the app's cgroup";
            return Some(Figures { limit_bytes: Some(limit), limit_source, ..seen });
        }
        let Some((limit, index)) = tightest else { return Some(seen) };
        let mut figures = Figures { limit_bytes: Some(limit), limit_source: self.source(index), ..seen };
        figures.usage_bytes = self.number(held, &self.levels[index], self.version.usage_file());
        if !self.levels[index].ours {
            let usage = figures.usage_bytes.and_then(|usage| self.parts(held, index, usage));
            (figures.unreclaimable_bytes, figures.working_set_bytes) = usage.unzip();
        }
        Some(figures)
    }

    fn source(&self, index: usize) -> &'static str {
        match (self.version, index) {
            (Version::V1, 0) => "memory.limit_in_bytes of the app's cgroup",
            (Version::V1, _) => "memory.limit_in_bytes of a cgroup above the app's",
            (Version::V2, 0) => "memory.max of the app's cgroup",
            (Version::V2, _) => "memory.max of a cgroup above the app's",
        }
    }

    /// (unreclaimable, working set): usage without what the kernel can drop at once, and as the kubelet counts it.
    fn parts(&self, held: &Held, index: usize, usage: u64) -> Option<(u64, u64)> {
        let stat = self.stat(held, index)?;
        let names: &[&str] = match self.version {
            Version::V1 => &["total_active_file", "total_inactive_file"],
            Version::V2 => &["active_file", "inactive_file", "slab_reclaimable"],
        };
        let reclaimable: u64 = names.iter().filter_map(|name| field(&stat, name)).fold(0, u64::saturating_add);
        let inactive = field(&stat, names[1]).unwrap_or(0);
        Some((usage.saturating_sub(reclaimable), usage.saturating_sub(inactive)))
    }

    fn limit(&self, held: &Held, level: &Level) -> Option<u64> {
        // "max" is no number, hence no limit. Zero is what a cgroup shows while it is being torn down.
        self.number(held, level, self.version.limit_file()).filter(|limit| *limit > 0)
    }

    fn number(&self, held: &Held, level: &Level, file: &str) -> Option<u64> {
        read_text(held.file(&level.dir.join(file)).ok()?, 64).ok()?.trim().parse().ok()
    }

    fn stat(&self, held: &Held, index: usize) -> Option<String> {
        read_text(held.file(&self.levels[index].dir.join("memory.stat")).ok()?, 64 * 1024).ok()
    }
}

/// The value of a `name value` line.
pub fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    value.trim().parse().ok()
}

#[cfg(test)]
mod tests;
