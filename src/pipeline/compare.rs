//! Profiles as pulled become a naming: read, compare with the baselines, say who. Runs on a blocking thread, because gunzip and
//! merge of a large profile take tens of milliseconds.

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::baselines::{Baseline, Baselines};
use super::incident::KeptProfile;
use crate::pprof::naming::{self, Input};
use crate::pprof::{Counts, Dump, Look, Looks, Naming, Profile, read};

/// Everything a naming is made of.
#[derive(Debug)]
pub struct Material {
    pub baselines: Baselines,
    pub heap: Bytes,
    /// A collection came right before the heap.
    pub collected: bool,
    pub goroutines: Option<Bytes>,
    /// Go's `goroutineleak` of the same round.
    pub leaked: Option<Bytes>,
    pub dump: Option<Arc<Dump>>,
    /// When the round began: only looks from before it confirm anything.
    pub began: Duration,
    /// The baseline that an earlier step of the round named somebody by.
    pub named_by: Option<Duration>,
    /// When the heap was taken, on the clock of [`Baseline::at`].
    pub at: Duration,
    pub rss_bytes: u64,
    pub counts: Counts,
}

/// A naming, and the baseline that it was made against.
#[derive(Clone, Debug)]
pub struct Compared {
    pub naming: Naming,
    pub against: Option<KeptProfile>,
    /// When that baseline was taken, where somebody is named.
    pub named_by: Option<Duration>,
    /// What later rounds compare with, where the heap is of a collection.
    pub look: Option<Look>,
}

/// Compares the heap with the baselines, newest first, until somebody is named. When nobody is, the oldest comparison speaks.
///
/// # Errors
/// When the heap cannot be read, in words.
pub fn compare(material: &Material) -> Result<Compared, String> {
    Ok(compare_read(material, &read_heap(&material.heap)?))
}

/// The same of a heap that is read already.
pub fn compare_read(material: &Material, now: &Profile) -> Compared {
    let mut unread = Unread::default();
    let goroutines = unread.beside(material.goroutines.as_ref());
    let leaked = unread.beside(material.leaked.as_ref());
    // Made before a baseline is read: both differences at once would be too much memory.
    let look = material.collected.then(|| Look::of(material.at, material.rss_bytes, now, goroutines.as_ref()));
    let present = Present { material, now, goroutines, leaked, look };
    let mut told = None;
    for baseline in material.baselines.in_turn(material.named_by) {
        let named = told.as_ref().is_some_and(|it: &Compared| it.named_by.is_some());
        if named && baseline.goroutines.is_none() {
            continue;
        }
        let Some(base) = unread.base(baseline, now) else { continue };
        let before = present.goroutines.as_ref().and(unread.beside(baseline.goroutines.as_ref()));
        let compared = present.compare(Some((baseline, &base)), before.as_ref());
        // What the goroutines would say of it may be sayable by an older baseline.
        let is_whole = before.is_some() || present.goroutines.is_none();
        if compared.naming.is_named() && is_whole {
            return compared.with(material, unread);
        }
        told = told.filter(|_| named).or(Some(compared));
    }
    told.unwrap_or_else(|| present.compare(None, None)).with(material, unread)
}

impl Compared {
    fn with(mut self, material: &Material, unread: Unread) -> Self {
        let lack = material.baselines.lack().map(|words| ("baseline".to_owned(), words));
        self.naming.evidence.extend(unread.0.into_iter().chain(lack));
        self
    }
}

/// The app as it is, read.
struct Present<'a> {
    material: &'a Material,
    now: &'a Profile,
    goroutines: Option<Profile>,
    leaked: Option<Profile>,
    look: Option<Look>,
}

impl Present<'_> {
    /// `before`: the goroutines of the baseline's moment.
    fn compare(&self, base: Option<(&Baseline, &Profile)>, before: Option<&Profile>) -> Compared {
        let Material { baselines, began, at, rss_bytes, counts, dump, .. } = self.material;
        let naming = naming::name(&Input {
            base: base.map(|it| it.1),
            now: self.now,
            goroutines: self.goroutines.as_ref().map(|after| (before, after)),
            leaked: self.leaked.as_ref(),
            dump: dump.as_deref(),
            rss_growth_bytes: base.map(|it| rss_bytes.saturating_sub(it.0.rss_bytes)),
            counts: base.map_or_else(Counts::default, |it| counts.since(it.0.counts)),
            looks: Looks { now: self.look.as_ref(), earlier: baselines.looks_before(*began) },
            seconds: base.map_or(0.0, |it| at.saturating_sub(it.0.at).as_secs_f64()),
        });
        let named_by = base.map(|it| it.0.at).filter(|_| naming.is_named());
        Compared { naming, against: base.and_then(|it| it.0.kept.clone()), named_by, look: self.look.clone() }
    }
}

/// What could not be read, as evidence: it takes nothing from what the rest says.
#[derive(Default)]
struct Unread(Vec<(String, String)>);

impl Unread {
    fn base(&mut self, baseline: &Baseline, now: &Profile) -> Option<Profile> {
        let read = read_within(&baseline.heap, now.memory_beside());
        read.map_err(|words| self.say("heap", format!("a baseline is not used: {words}"))).ok()
    }

    fn beside(&mut self, bytes: Option<&Bytes>) -> Option<Profile> {
        let read = read::read_from(Cursor::new(bytes?), read::MAX_INFLATED, read::MAX_BESIDE);
        read.map_err(|fault| self.say("goroutines", format!("a profile of them is not used: {fault}"))).ok()
    }

    fn say(&mut self, kind: &str, words: String) {
        let said = (kind.to_owned(), words);
        if !self.0.contains(&said) {
            self.0.push(said);
        }
    }
}

/// In-use bytes of a heap profile.
///
/// # Errors
/// When it is not a heap profile, in words.
pub fn live_heap(profile: &Profile) -> Result<u64, String> {
    let index = profile.type_index("inuse_space").ok_or("the profile has no inuse_space: is it a heap profile?")?;
    Ok(u64::try_from(profile.total(index)).unwrap_or(0))
}

/// A heap profile of now.
///
/// # Errors
/// When the bytes are not a profile, in words.
pub fn read_heap(bytes: &[u8]) -> Result<Profile, String> {
    read_within(bytes, read::MAX_MEMORY)
}

fn read_within(bytes: &[u8], max_memory: usize) -> Result<Profile, String> {
    read::read_from(Cursor::new(bytes), read::MAX_INFLATED, max_memory)
        .map_err(|fault| format!("read heap profile: {fault}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pprof::testing::{encode, goroutines, heap};
    use crate::pprof::{Class, Confidence};

    const KIB: i64 = 1 << 10;
    const PUT: &[&str] = &["example.com/shop/cache.(*Cache).Put /app/cache/cache.go 12", "main.main /app/main.go 90"];
    const LOOP: &[&str] =
        &["runtime.selectgo runtime/select.go 1", "example.com/shop/cache.(*Cache).loop /app/cache/cache.go 40"];

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn bytes_of(kib: i64) -> Bytes {
        encode(&heap(&[(PUT, kib * KIB)]))
    }

    fn waiting(count: i64) -> Bytes {
        encode(&goroutines(&[(LOOP, count)]))
    }

    /// One unit of half a MiB a minute for 80 minutes; looked at in the beginning and five minutes ago.
    fn slow(with_goroutines: &[u64]) -> Baselines {
        let mut baselines = Baselines::default();
        for (at, units) in [(0, 0), (75 * 60, 75)] {
            baselines.healthy(Baseline { at: seconds(at), heap: bytes_of(512 * units + 1), ..Baseline::default() });
            if with_goroutines.contains(&at) {
                baselines.goroutines(seconds(at + 1), waiting(units + 1));
            }
        }
        baselines
    }

    fn material(baselines: Baselines, at: u64, kib: i64, count: Option<i64>) -> Material {
        Material {
            baselines,
            heap: bytes_of(kib),
            collected: true,
            goroutines: count.map(waiting),
            leaked: None,
            dump: None,
            began: seconds(at),
            named_by: None,
            at: seconds(at),
            rss_bytes: 100 << 20,
            counts: Counts::default(),
        }
    }

    fn said(compared: &Compared, kind: &str) -> Vec<String> {
        let of_kind = compared.naming.evidence.iter().filter(|it| it.0 == kind);
        of_kind.map(|it| it.1.clone()).collect()
    }

    #[test]
    fn units_of_a_slow_leak_are_counted_over_the_time_that_their_bytes_are() {
        let now = |with: &[u64]| compare(&material(slow(with), 80 * 60, 512 * 80 + 1, Some(81))).expect("a heap");
        let both = now(&[0, 75 * 60]);
        assert_eq!(said(&both, "unit"), ["80 units of about 512 KiB of heap each, 1 more a minute"]);
        let newest_alone = now(&[75 * 60]);
        assert!(said(&newest_alone, "unit").is_empty(), "{:?}", newest_alone.naming);
        assert!(newest_alone.naming.is_named(), "the heap names all the same");
    }

    #[test]
    fn a_baseline_with_goroutines_is_asked_where_the_newest_has_none() {
        let mut baselines = slow(&[0]);
        baselines.healthy(Baseline { at: seconds(78 * 60), heap: bytes_of(512 * 78 + 1), ..Baseline::default() });
        let compared = compare(&material(baselines, 100 * 60, 512 * 100 + 1, Some(101))).expect("a heap");
        assert_eq!(compared.named_by, Some(Duration::ZERO));
        assert_eq!(said(&compared, "unit"), ["100 units of about 512 KiB of heap each, 1 more a minute"]);
    }

    #[test]
    fn four_rounds_that_see_the_same_heap_are_no_sure_leak() {
        let mut baselines = Baselines::default();
        baselines.healthy(Baseline { at: seconds(60), heap: bytes_of(1), ..Baseline::default() });
        let mut last = None;
        for at in [130, 190, 310, 550] {
            let compared = compare(&material(baselines.clone(), at, 36 << 10, None)).expect("a heap");
            baselines.looked(seconds(at), compared.look.clone().expect("of a collection"));
            assert_eq!(compared.naming.confidence, Confidence::Medium, "{}", compared.naming.sentence);
            last = Some(compared);
        }
        let last = last.expect("rounds");
        assert_eq!(last.naming.class, Class::CacheFills);
        assert!(last.naming.sentence.ends_with("it has not grown for 7 min"), "{}", last.naming.sentence);
        assert!(said(&last, "agreement").is_empty());
    }

    #[test]
    fn a_round_that_sees_more_of_the_same_is_sure() {
        let mut baselines = Baselines::default();
        baselines.healthy(Baseline { at: seconds(60), heap: bytes_of(1), ..Baseline::default() });
        let first = compare(&material(baselines.clone(), 130, 36 << 10, None)).expect("a heap");
        baselines.looked(seconds(130), first.look.expect("of a collection"));
        let of_one_round = Material { began: seconds(130), ..material(baselines.clone(), 131, 60 << 10, None) };
        assert_eq!(compare(&of_one_round).expect("a heap").naming.confidence, Confidence::Medium, "of the same round");
        let second = compare(&material(baselines.clone(), 190, 72 << 10, None)).expect("a heap");
        assert_eq!(second.naming.confidence, Confidence::High);
        assert_eq!(said(&second, "agreement"), ["it grew another 36 MiB since a look 60 s ago, more than all else"]);
        let plain = Material { collected: false, ..material(baselines, 190, 72 << 10, None) };
        let plain = compare(&plain).expect("a heap");
        assert_eq!((plain.naming.confidence, plain.look), (Confidence::Medium, None), "it may be older than the look");
    }

    #[test]
    fn that_no_baseline_could_be_kept_is_said() {
        let mut baselines = Baselines::default();
        baselines.healthy(Baseline { heap: vec![0; 16 << 20].into(), ..Baseline::default() });
        let compared = compare(&material(baselines, 60, 36 << 10, None)).expect("a heap");
        assert!(!compared.naming.is_named());
        assert!(said(&compared, "baseline")[0].contains("is 16 MiB"), "{:?}", compared.naming.evidence);
    }
}
