//! Profiles as pulled become a naming: read, compare with the baselines, say who. Runs on a blocking thread, because gunzip and
//! merge of a large profile take tens of milliseconds.

use std::io::Cursor;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::incident::KeptProfile;
use crate::pprof::naming::{self, Input};
use crate::pprof::{Dump, Naming, Profile, read};

/// Healthy heaps kept to compare with; beyond that the most crowded in time goes.
const BASELINES: usize = 8;

/// Bytes of them all; the newest is kept in any case.
const BASELINE_BYTES: usize = 4 << 20;

/// A heap of the app from a better time, as pulled (2–4 KB each on small apps).
#[derive(Clone, Debug)]
pub struct Baseline {
    /// Time since the task began.
    pub at: Duration,
    pub bytes: Bytes,
    /// RSS at that time.
    pub rss_bytes: u64,
    /// Open descriptors at that time.
    pub fds: Option<u64>,
    /// Where it is kept, so that the page can offer it as the base of a difference.
    pub kept: Option<KeptProfile>,
}

/// What the present is compared with. Belongs to one incarnation of the app.
#[derive(Clone, Debug, Default)]
pub struct Baselines {
    /// Oldest first.
    heaps: Vec<Baseline>,
    pub goroutines: Option<Bytes>,
    /// The only heap is that of first sight: the next healthy one replaces it.
    provisional: bool,
}

impl Baselines {
    pub fn first_sight(&mut self, baseline: Baseline) {
        if self.heaps.is_empty() {
            self.heaps.push(baseline);
            self.provisional = true;
        }
    }

    /// Adds a healthy heap. The kept ones are spaced by powers of two in age, so that a slow leak finds one old enough and a
    /// fast one finds one recent enough.
    pub fn healthy(&mut self, baseline: Baseline) {
        if std::mem::take(&mut self.provisional) {
            self.heaps.clear();
        }
        let now = baseline.at;
        self.heaps.push(baseline);
        let bytes = |heaps: &[Baseline]| heaps.iter().map(|it| it.bytes.len()).sum::<usize>();
        while self.heaps.len() > BASELINES || self.heaps.len() > 1 && bytes(&self.heaps) > BASELINE_BYTES {
            let age = |index: usize| (now.saturating_sub(self.heaps[index].at)).as_secs_f64() + 1.0;
            let crowded = (1..self.heaps.len() - 1)
                .min_by(|a, b| (age(a - 1) / age(a + 1)).total_cmp(&(age(b - 1) / age(b + 1))));
            self.heaps.remove(crowded.unwrap_or(0));
        }
    }
}

/// Everything a naming is made of.
#[derive(Debug)]
pub struct Material {
    pub baselines: Baselines,
    pub heap: Bytes,
    pub goroutines: Option<Bytes>,
    /// Go's `goroutineleak` of the same round.
    pub leaked: Option<Bytes>,
    pub dump: Option<Arc<Dump>>,
    pub previous: Option<Naming>,
    /// When the heap was taken, on the clock of [`Baseline::at`].
    pub at: Duration,
    pub rss_bytes: u64,
    pub fds: Option<u64>,
}

/// A naming, and the baseline that it was made against.
#[derive(Clone, Debug)]
pub struct Compared {
    pub naming: Naming,
    pub against: Option<KeptProfile>,
}

/// Compares the heap with the baselines, newest first, until somebody is named: growth since the newest is the leak alone,
/// and only a slow leak needs an older one. When nobody is, the oldest comparison speaks.
///
/// # Errors
/// When the heap cannot be read, in words.
pub fn compare(material: &Material) -> Result<Compared, String> {
    let now = read_heap(&material.heap, read::MAX_MEMORY)?;
    let mut unread = Vec::new();
    // A goroutine profile that cannot be read takes nothing from what the heaps say.
    let mut read = |bytes: &Option<Bytes>| {
        let read = read::read_from(Cursor::new(bytes.as_ref()?), read::MAX_INFLATED, read::MAX_BESIDE);
        read.map_err(|fault| unread.push(("goroutines".to_owned(), format!("a profile of them is not used: {fault}"))))
            .ok()
    };
    let (before, after) = (read(&material.baselines.goroutines), read(&material.goroutines));
    let goroutines = after.as_ref().map(|after| (before.as_ref(), after));
    let leaked = read(&material.leaked);
    let beside = Beside { goroutines, leaked: leaked.as_ref() };
    let mut latest = None;
    for baseline in material.baselines.heaps.iter().rev() {
        let base = match read_heap(&baseline.bytes, now.memory_beside()) {
            Ok(base) => base,
            Err(words) => {
                unread.push(("heap".to_owned(), format!("a baseline is not used: {words}")));
                continue;
            }
        };
        let naming = name(material, Some((baseline, &base)), &now, beside);
        let compared = Compared { naming, against: baseline.kept.clone() }.with(&unread);
        if compared.naming.is_named() {
            return Ok(compared);
        }
        latest = Some(compared);
    }
    Ok(latest.unwrap_or_else(|| Compared { naming: name(material, None, &now, beside), against: None }.with(&unread)))
}

impl Compared {
    fn with(mut self, evidence: &[(String, String)]) -> Self {
        self.naming.evidence.extend_from_slice(evidence);
        self
    }
}

/// Profiles of goroutines beside the heaps.
#[derive(Clone, Copy)]
struct Beside<'a> {
    /// Of the healthy app, and of now.
    goroutines: Option<(Option<&'a Profile>, &'a Profile)>,
    leaked: Option<&'a Profile>,
}

fn name(material: &Material, base: Option<(&Baseline, &Profile)>, now: &Profile, beside: Beside) -> Naming {
    naming::name(&Input {
        base: base.map(|it| it.1),
        now,
        goroutines: beside.goroutines,
        leaked: beside.leaked,
        dump: material.dump.as_deref(),
        rss_growth_bytes: base.map(|it| material.rss_bytes.saturating_sub(it.0.rss_bytes)),
        fds_growth: base.and_then(|it| Some(material.fds?.cast_signed() - it.0.fds?.cast_signed())),
        previous: material.previous.as_ref(),
        seconds: base.map_or(0.0, |it| material.at.saturating_sub(it.0.at).as_secs_f64()),
    })
}

/// In-use bytes of a heap profile.
///
/// # Errors
/// When the bytes are not a heap profile, in words.
pub fn live_heap(bytes: &[u8]) -> Result<u64, String> {
    let profile = read_heap(bytes, read::MAX_MEMORY)?;
    let index = profile.type_index("inuse_space").ok_or("the profile has no inuse_space: is it a heap profile?")?;
    Ok(u64::try_from(profile.total(index)).unwrap_or(0))
}

fn read_heap(bytes: &[u8], max_memory: usize) -> Result<Profile, String> {
    read::read_from(Cursor::new(bytes), read::MAX_INFLATED, max_memory)
        .map_err(|fault| format!("read heap profile: {fault}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Baseline {
        Baseline { at: Duration::from_secs(seconds), bytes: Bytes::new(), rss_bytes: 0, fds: None, kept: None }
    }

    #[test]
    fn the_first_healthy_heap_replaces_the_one_of_first_sight() {
        let mut baselines = Baselines::default();
        baselines.first_sight(at(0));
        baselines.first_sight(at(1));
        assert_eq!(baselines.heaps.len(), 1);
        baselines.healthy(at(60));
        assert_eq!(baselines.heaps[0].at, Duration::from_secs(60));
        baselines.healthy(at(360));
        assert_eq!(baselines.heaps.len(), 2);
    }

    #[test]
    fn large_baselines_are_fewer() {
        let mut baselines = Baselines::default();
        for n in 0..20 {
            baselines.healthy(Baseline { bytes: vec![0; 1 << 20].into(), ..at(300 * n) });
        }
        assert_eq!((baselines.heaps.len(), baselines.heaps[0].at), (4, Duration::ZERO));
        baselines.healthy(Baseline { bytes: vec![0; 9 << 20].into(), ..at(9_000) });
        assert_eq!((baselines.heaps.len(), baselines.heaps[0].at), (1, Duration::from_secs(9_000)));
    }

    #[test]
    fn baselines_stay_few_and_keep_the_oldest_and_a_recent_one() {
        let mut baselines = Baselines::default();
        for n in 0..200 {
            baselines.healthy(at(300 * n));
        }
        let ages: Vec<_> = baselines.heaps.iter().map(|it| 199 - it.at.as_secs() / 300).collect();
        assert_eq!(ages.len(), BASELINES);
        assert_eq!((ages[0], ages[7]), (199, 0));
        assert!(ages[4] < 60 && ages[6] < 10, "spread over ages: {ages:?}");
    }
}
