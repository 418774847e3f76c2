//! Comparing two moments of one process: who made what grew, how sure that is, or why nobody can be named.
//!
//! The sums come from [`super::diff`] and [`super::goroutines`]; here they are judged and put into words. Growth names, size
//! does not: the function that leaks holds most of the healthy heap too, so without a baseline nobody is named. Bytes of a
//! profile are never set against RSS or a limit, because pages that nothing touched count in one and not in the other.

use super::blocked;
use super::class::Class;
use super::counts::Counts;
use super::diff::{Growth, Row, comparable};
use super::dump::Dump;
use super::goroutines::{Group, Groups};
use super::language::{Language, language};
use super::look::{Looks, Pace};
use super::mistakes;
use super::names;
use super::read::Profile;
use super::words::{bytes, none_stands_out, percent, rest, sentence, time};

mod evidence;
mod outside;

/// Go's sampling period when the profile does not tell, in bytes (`runtime.MemProfileRate`).
const DEFAULT_PERIOD: i64 = 512 << 10;

/// z² for z = 3. Sampling every `period` bytes leaves an error of about √(bytes × period), so growth below z² × period is
/// within three standard deviations of nothing: 4.5 MiB at Go's 512 KiB.
const NOISE: i64 = 9;

/// From this share of the growth on a name may be sure, and from the second on it stands alone.
const SURE: f64 = 0.6;
const STANDS_OUT: f64 = 0.3;

/// Fewer more goroutines than this are not named as a leak of their own.
const MANY_GOROUTINES: i64 = 100;

/// Culprits kept.
const MAX_CULPRITS: usize = 10;

/// What a culprit's growth is counted in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unit {
    /// Of the heap.
    #[default]
    Bytes,
    /// Its objects are goroutines; its bytes are only the least that their stacks take.
    Goroutines,
}

/// One leaking allocation: the first frame outside runtime and standard library, and the application frame that made it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Culprit {
    /// The leaf as people say it: `statsd.newStatsdBuffer`.
    pub function: String,
    pub file: String,
    pub line: i64,
    pub grew_bytes: i64,
    pub grew_objects: i64,
    /// Of all positive growth, 0 to 1.
    pub share: f64,
    /// The application frame that made it: `main.handleJob`; empty when the stack holds no application frame.
    pub made_by: String,
    pub made_by_file: String,
    pub made_by_line: i64,
    /// What `made_by` called to get there: `statsd.New`; empty when it allocated by itself.
    pub via: String,
    /// Full function names, leaf first.
    pub stack: Vec<String>,
    pub unit: Unit,
}

/// How sure a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confidence {
    High,
    Medium,
    /// Several share the growth and none stands out: the top three are listed.
    Low,
    /// Nobody can be named; the sentence says why.
    Unknown,
}

/// What two moments of one process say together.
#[derive(Clone, Debug, PartialEq)]
pub struct Naming {
    pub confidence: Confidence,
    pub class: Class,
    /// "`statsd.newStatsdBuffer` grew 148 MiB (92 % of heap growth), made in `main.handleJob`" or why there is none.
    pub sentence: String,
    /// Largest growth first, at most ten.
    pub culprits: Vec<Culprit>,
    /// (kind, words): goroutine groups that grew, what did not grow, what else was seen.
    pub evidence: Vec<(String, String)>,
    /// The usual mend, where the culprit is known to have one.
    pub remedy: Option<&'static str>,
}

/// What is known of two moments.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The healthy heap.
    pub base: Option<&'a Profile>,
    pub now: &'a Profile,
    /// Goroutines of (base, now), if they were pulled.
    pub goroutines: Option<(Option<&'a Profile>, &'a Profile)>,
    /// Go's `goroutineleak` of now: those that can never go on.
    pub leaked: Option<&'a Profile>,
    /// A full dump of now.
    pub dump: Option<&'a Dump>,
    /// How much RSS grew between the two.
    pub rss_growth_bytes: Option<u64>,
    /// How many more descriptors, threads and clients there are.
    pub counts: Counts,
    /// Looks of now and of earlier rounds: growth that went on since makes a name surer, growth that ended less sure.
    pub looks: Looks<'a>,
    /// Between base and now; zero or less where it is not known.
    pub seconds: f64,
}

impl<'a> Input<'a> {
    /// Two heaps and the time between them, with nothing known beside.
    pub fn of_heaps(base: Option<&'a Profile>, now: &'a Profile, seconds: f64) -> Self {
        Input {
            base,
            now,
            goroutines: None,
            leaked: None,
            dump: None,
            rss_growth_bytes: None,
            counts: Counts::default(),
            looks: Looks::default(),
            seconds,
        }
    }
}

impl Naming {
    /// Whether somebody is named, be it among three.
    pub fn is_named(&self) -> bool {
        self.confidence != Confidence::Unknown && !self.culprits.is_empty()
    }
}

/// Names the leak, or says why it cannot.
pub fn name(input: &Input) -> Naming {
    let groups = input.goroutines.map(|(base, now)| Groups::between(base, now));
    let language = language(&input.now.frames);
    let case = Case { input, growth: Growth::between(input.base, input.now), groups, language };
    let mut naming = case.judge();
    naming.evidence.extend(naming.class.words(language).map(|words| ("class".to_owned(), words.to_owned())));
    naming.evidence.extend(case.evidence());
    naming
}

/// The sums of one comparison, beside what was asked.
struct Case<'a> {
    input: &'a Input<'a>,
    growth: Growth<'a>,
    groups: Option<Groups<'a>>,
    language: Language,
}

impl<'a> Case<'a> {
    fn judge(&self) -> Naming {
        if self.has_no_symbols() {
            return unknown(evidence::NO_SYMBOLS.into());
        }
        let Some(base) = self.input.base else { return self.without_base() };
        if let Err(words) = comparable(base, self.input.now) {
            return unknown(words);
        }
        let (heap, goroutines) = (self.heap_leak(), self.goroutine_leak());
        let stacks =
            goroutines.as_ref().map_or(0, |it| it.culprits.iter().map(|it| it.grew_bytes).fold(0, i64::saturating_add));
        match (heap, goroutines) {
            (Some(naming), _) if self.growth.grown_bytes >= stacks => naming,
            (Some(heap), Some(mut naming)) => {
                naming.evidence.push(("heap".into(), heap.sentence));
                naming
            }
            (None, Some(mut naming)) => {
                naming.evidence.push(("heap".into(), self.why_not(base)));
                naming
            }
            (heap, None) => heap.unwrap_or_else(|| self.nobody(base)),
        }
    }

    /// Without a healthy moment to compare with, the largest holder may be as large in health.
    fn without_base(&self) -> Naming {
        let holds = |row: &Row| {
            let name = names::short(&row.leaf.function);
            format!("`{name}` holds {} ({})", bytes(row.bytes), percent(self.growth.share(row)))
        };
        let holders: Vec<String> = self.growth.rows.iter().filter(|row| row.bytes > 0).take(3).map(holds).collect();
        let Some(first) = holders.first() else {
            return unknown("no healthy baseline, and the heap profile is empty".into());
        };
        let mut naming = unknown(format!("no healthy baseline: {first} of the heap, but it may do so in health too"));
        naming.evidence.push(("heap".into(), holders.join(", ")));
        naming
    }

    fn heap_leak(&self) -> Option<Naming> {
        let top = self.growth.rows.first().filter(|row| row.bytes > 0)?;
        let (share, pace) = (self.growth.share(top), self.pace(top));
        let corroborated = self.lockstep_of(top).is_some() || pace.goes_on();
        let enough = self.growth.net_bytes >= self.floor();
        if top.bytes < self.floor() && !enough || !corroborated && (!enough || self.is_outside_heap(10)) {
            return None;
        }
        let grown = self.growth.rows.iter().filter(|row| row.bytes > 0);
        let culprits: Vec<Culprit> = grown.take(MAX_CULPRITS).map(|row| self.growth.culprit(row)).collect();
        let confidence = match share {
            _ if share >= SURE && corroborated && enough && !pace.rests() && !self.is_outside_heap(3) => {
                Confidence::High
            }
            _ if share >= STANDS_OUT => Confidence::Medium,
            _ => Confidence::Low,
        };
        let sentence = match confidence {
            Confidence::Low => none_stands_out(&culprits, self.growth.grown_bytes, self.input.seconds),
            _ => sentence(&culprits[0], self.input.seconds) + &rest(pace),
        };
        let remedy = if confidence == Confidence::Low { None } else { self.remedy_of(top) };
        let class = self.class_of(top);
        Some(Naming { confidence, class, sentence, culprits, evidence: Vec::new(), remedy })
    }

    /// What the row's code is known for; else what the goroutines are that pile up beside it.
    fn remedy_of(&self, row: &Row) -> Option<&'static str> {
        let beside = || self.piled_up()?.iter().find_map(mistakes::of_library);
        mistakes::of_heap(self.growth.stack(row)).or_else(beside)
    }

    fn class_of(&self, row: &Row) -> Class {
        match self.piled_up() {
            Some(groups) => mistakes::of_goroutines(groups, self.input.counts),
            None if mistakes::makes_a_handle(self.growth.stack(row), self.input.counts) => Class::UnclosedHandle,
            None if self.pace(row).is_full() => Class::CacheFills,
            None => Class::HeapLeak,
        }
    }

    /// The goroutines that pile up in equal steps, where they are too many for the come and go of requests.
    fn piled_up(&self) -> Option<&[Group<'a>]> {
        let (Some((Some(_), _)), Some(groups)) = (self.input.goroutines, &self.groups) else { return None };
        let lockstep = groups.lockstep();
        let grew = sum(lockstep);
        (grew >= MANY_GOROUTINES && groups.net >= grew / 2).then_some(lockstep)
    }

    /// Goroutines that pile up while the heap does not: their stacks are memory that no heap profile shows.
    fn goroutine_leak(&self) -> Option<Naming> {
        let (lockstep, groups) = (self.piled_up()?, self.groups.as_ref()?);
        let (first, grew) = (lockstep.first()?, sum(lockstep));
        let share = grew as f64 / groups.grown as f64;
        let culprits: Vec<Culprit> = lockstep.iter().take(MAX_CULPRITS).map(|it| it.culprit(groups.grown)).collect();
        let pace = self.input.looks.of_group(first, self.input.seconds);
        let confirmed = pace.goes_on() || !pace.rests() && self.is_blocked_for_good(lockstep);
        let confidence = match share {
            _ if share >= SURE && confirmed => Confidence::High,
            _ if share >= STANDS_OUT => Confidence::Medium,
            _ => return None,
        };
        let waits = first.waits_on().map_or(String::new(), |on| format!(", waiting on {on}"));
        let sentence = format!(
            "{grew} more goroutines stand in `{}` ({} of goroutine growth){}{waits}{}",
            culprits[0].function,
            percent(share),
            time(self.input.seconds),
            evidence::rest_of_goroutines(pace)
        );
        let (class, remedy) = (mistakes::of_goroutines(lockstep, self.input.counts), mistakes::of_goroutine(first));
        Some(Naming { confidence, class, sentence, culprits, evidence: Vec::new(), remedy })
    }

    fn is_blocked_for_good(&self, groups: &[Group]) -> bool {
        self.input.leaked.is_some_and(|leaked| blocked::confirms(leaked, groups))
    }

    /// What grew most is an address: a stripped program, or a profile that was not symbolised.
    fn has_no_symbols(&self) -> bool {
        let most = self.growth.rows.first().filter(|row| row.bytes >= self.floor());
        most.is_some_and(|row| names::is_address(&row.leaf.function))
    }

    /// Nobody is named, and why.
    fn nobody(&self, base: &Profile) -> Naming {
        let class =
            if self.is_outside_heap(10) && !self.is_untold(base) { self.class_outside() } else { Class::Unknown };
        Naming { class, ..unknown(self.why_not(base)) }
    }

    /// The two profiles are of one collection, so the second says nothing of what came after.
    fn is_untold(&self, base: &Profile) -> bool {
        self.input.looks.now.is_none() && self.growth.is_nothing() && same_allocations(base, self.input.now)
    }

    /// The lockstep groups, when they run code of a package that stands in the row's stack between leaf and owner.
    fn lockstep_of(&self, row: &Row) -> Option<&[Group<'a>]> {
        let (Some((Some(_), _)), Some(groups)) = (self.input.goroutines, &self.groups) else { return None };
        let packages: Vec<&str> = [Some(row.leaf), row.via, row.owner]
            .into_iter()
            .flatten()
            .filter(|frame| matches!(names::kind(frame), names::Kind::Dependency | names::Kind::App))
            .map(|frame| names::package(&frame.function))
            .collect();
        let lockstep = groups.lockstep();
        let related =
            |group: &Group| group.leaf().is_some_and(|leaf| packages.contains(&names::package(&leaf.function)));
        (!lockstep.is_empty() && lockstep.iter().any(related)).then_some(lockstep)
    }

    /// How a row's growth went on since the looks before.
    fn pace(&self, row: &Row) -> Pace {
        self.input.looks.of_heap((row.leaf, row.owner), row.bytes, self.input.seconds, self.floor())
    }

    fn floor(&self) -> i64 {
        let period = if self.input.now.period > 0 { self.input.now.period } else { DEFAULT_PERIOD };
        period.saturating_mul(NOISE)
    }
}

fn unknown(sentence: String) -> Naming {
    Naming {
        confidence: Confidence::Unknown,
        class: Class::Unknown,
        sentence,
        culprits: Vec::new(),
        evidence: Vec::new(),
        remedy: None,
    }
}

/// All that was ever allocated, in bytes.
fn allocated(profile: &Profile) -> Option<i64> {
    profile.type_index("alloc_space").map(|index| profile.total(index))
}

/// Whether the counts of all that was ever allocated are the same too: they move only with a garbage collection.
fn same_allocations(base: &Profile, now: &Profile) -> bool {
    allocated(base) == allocated(now)
}

fn sum(groups: &[Group]) -> i64 {
    groups.iter().fold(0_i64, |sum, group| sum.saturating_add(group.grew))
}

#[cfg(test)]
mod tests;
