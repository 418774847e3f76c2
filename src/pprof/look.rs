//! What one look at the app found, kept small, so that a later look can tell what has grown since.
//!
//! Two differences against one old baseline contain one another: that both name the same function says nothing. What grew after
//! the first of them says more: a leak goes on, a cache that is full does not.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::time::Duration;

use super::diff::Growth;
use super::goroutines::{Group, Groups};
use super::names;
use super::read::{Frame, Profile};

/// Goroutines come and go: fewer more of them say nothing.
const MIN_GOROUTINES: i64 = 10;

/// A quarter of what came before in the same time is a strong slowing.
const SLOW: f64 = 0.25;

/// One look at the app after a collection. A thousand numbers of heap and of goroutines at most.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Look {
    /// On the caller's clock.
    pub at: Duration,
    pub rss_bytes: u64,
    heap: Held,
    goroutines: Option<Held>,
}

/// What is held, by a hash of who holds it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Held {
    of: BTreeMap<u64, i64>,
    /// Who is not listed holds at most so much.
    least: i64,
}

impl Look {
    /// What the app holds in `heap`, which must be of a collection just done, and in `goroutines` where they were pulled.
    pub fn of(at: Duration, rss_bytes: u64, heap: &Profile, goroutines: Option<&Profile>) -> Look {
        Look { at, rss_bytes, heap: Held::bytes(heap), goroutines: goroutines.map(Held::goroutines) }
    }
}

impl Held {
    fn bytes(heap: &Profile) -> Held {
        let growth = Growth::between(None, heap);
        let rows = growth.rows.iter().filter(|row| row.bytes > 0);
        Held::listed(rows.map(|row| (of_pair(row.leaf, row.owner), row.bytes)), growth.left_out)
    }

    fn goroutines(now: &Profile) -> Held {
        let groups = Groups::between(None, now);
        Held::listed(groups.groups.iter().map(|group| (of_group(group), group.grew)), groups.left_out)
    }

    fn listed(all: impl Iterator<Item = (u64, i64)>, left_out: usize) -> Held {
        let (mut of, mut least) = (BTreeMap::new(), i64::MAX);
        for (who, held) in all {
            let sum = of.entry(who).or_insert(0_i64);
            (*sum, least) = (sum.saturating_add(held), least.min(held));
        }
        Held { of, least: if left_out > 0 { least } else { 0 } }
    }

    fn since(&self, earlier: &Held, who: u64) -> i64 {
        let now = self.of.get(&who).copied().unwrap_or(0);
        now.saturating_sub(earlier.of.get(&who).copied().unwrap_or(earlier.least))
    }

    /// Whether nobody has grown by more.
    fn is_top(&self, earlier: &Held, who: u64) -> bool {
        let most = self.of.keys().map(|it| self.since(earlier, *it)).max();
        most.is_some_and(|most| self.since(earlier, who) >= most)
    }
}

/// How what grew since the baseline went on after an earlier look.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Pace {
    /// There was no such look, or too little time since.
    #[default]
    Untold,
    /// It grew on, as nothing else did.
    Grows { by: i64, seconds: f64 },
    /// By far less than at its pace before.
    Slowed { by: i64, seconds: f64, memory_stands: bool },
    /// Not by more than noise, though at its pace before it would have.
    Stopped { seconds: f64, memory_stands: bool },
}

impl Pace {
    pub fn goes_on(self) -> bool {
        matches!(self, Pace::Grows { .. })
    }

    /// It came to rest, or nearly.
    pub fn rests(self) -> bool {
        matches!(self, Pace::Slowed { .. } | Pace::Stopped { .. })
    }

    /// And memory stands with it.
    pub fn is_full(self) -> bool {
        matches!(self, Pace::Slowed { memory_stands: true, .. } | Pace::Stopped { memory_stands: true, .. })
    }
}

/// The looks of now and before, and the time since the baseline that growth is measured from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Looks<'a> {
    /// Of now; `None` where the heap at hand may be older than its pull.
    pub now: Option<&'a Look>,
    /// Oldest first; of earlier rounds, for a look agrees with itself.
    pub earlier: &'a [Look],
}

impl Looks<'_> {
    /// How a pair that grew by so much in so many seconds goes on; less than `floor` is noise.
    pub(super) fn of_heap(&self, (leaf, owner): (&Frame, Option<&Frame>), grew: i64, seconds: f64, floor: i64) -> Pace {
        self.pace(|look| Some(&look.heap), of_pair(leaf, owner), Course { grew, seconds, floor })
    }

    /// The same of goroutines that stand in one place.
    pub(super) fn of_group(&self, group: &Group, seconds: f64) -> Pace {
        let course = Course { grew: group.grew, seconds, floor: MIN_GOROUTINES };
        self.pace(|look| look.goroutines.as_ref(), of_group(group), course)
    }

    /// The latest look that can tell does.
    fn pace(&self, held: fn(&Look) -> Option<&Held>, who: u64, course: Course) -> Pace {
        let Some((now, of_now)) = self.now.and_then(|look| Some((look, held(look)?))) else { return Pace::Untold };
        let ago = |look: &Look| now.at.saturating_sub(look.at).as_secs_f64();
        // What was seen before the baseline is no part of what grew since.
        let earlier = self.earlier.iter().rev().filter(|look| look.at < now.at && ago(look) <= course.seconds);
        let seen: Vec<(&Look, &Held)> = earlier.filter_map(|look| Some((look, held(look)?))).collect();
        let tells = |(look, earlier): &(&Look, &Held)| {
            let stands = now.rss_bytes <= look.rss_bytes.saturating_add((look.rss_bytes / 10).max(4 << 20));
            let pace = course.pace(of_now.since(earlier, who), ago(look), stands);
            let confirmed = !pace.goes_on() || of_now.is_top(earlier, who);
            (pace != Pace::Untold && confirmed).then_some(pace)
        };
        match seen.iter().find_map(tells).unwrap_or_default() {
            Pace::Stopped { memory_stands, seconds } => {
                let still = seen.iter().take_while(|it| of_now.since(it.1, who) < course.floor).last();
                Pace::Stopped { memory_stands, seconds: still.map_or(seconds, |it| ago(it.0)) }
            }
            pace => pace,
        }
    }
}

/// What is known of one that grew.
#[derive(Clone, Copy)]
struct Course {
    grew: i64,
    seconds: f64,
    floor: i64,
}

impl Course {
    /// By what came in the last seconds, of which there were `ago`.
    fn pace(self, by: i64, ago: f64, memory_stands: bool) -> Pace {
        let before = self.seconds - ago;
        let expected = if before >= 1.0 { self.grew.saturating_sub(by).max(0) as f64 / before * ago } else { 0.0 };
        let slow = (by as f64) < expected * SLOW;
        match by >= self.floor {
            true if slow => Pace::Slowed { by, seconds: ago, memory_stands },
            true => Pace::Grows { by, seconds: ago },
            false if slow && expected >= self.floor as f64 => Pace::Stopped { seconds: ago, memory_stands },
            false => Pace::Untold,
        }
    }
}

fn of_pair(leaf: &Frame, owner: Option<&Frame>) -> u64 {
    let name = |frame: &Frame| (names::without_types(&frame.function), names::file_of_bare(frame).to_owned());
    hash(&(name(leaf), owner.map(name)))
}

fn of_group(group: &Group) -> u64 {
    hash(&group.leaf().map(|leaf| (&leaf.function, names::file_of_bare(leaf))))
}

fn hash(who: &impl std::hash::Hash) -> u64 {
    foldhash::quality::FixedState::default().hash_one(who)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{goroutines, heap};
    use super::*;

    const MIB: i64 = 1 << 20;
    const LEAK: &[&str] = &["main.put /app/main.go 5", "main.main /app/main.go 9"];
    const OTHER: &[&str] = &["main.other /app/main.go 6"];
    const FLOOR: i64 = 4 * MIB;

    /// (second, bytes of the leak, bytes of another, RSS).
    fn look(&(at, leak, other, rss): &(u64, i64, i64, u64)) -> Look {
        Look::of(Duration::from_secs(at), rss << 20, &heap(&[(LEAK, leak * MIB), (OTHER, other * MIB)]), None)
    }

    /// The baseline is of second 0 and holds nothing.
    fn pace(earlier: &[(u64, i64, i64, u64)], now: (u64, i64, i64, u64)) -> Pace {
        let (held, frames) = (heap(&[(LEAK, MIB)]), now);
        let earlier: Vec<Look> = earlier.iter().map(look).collect();
        let now = look(&now);
        let looks = Looks { now: Some(&now), earlier: &earlier };
        looks.of_heap((&held.frames[0], Some(&held.frames[0])), frames.1 * MIB, frames.0 as f64, FLOOR)
    }

    #[test]
    fn a_leak_goes_on_and_what_is_full_does_not() {
        assert_eq!(pace(&[], (120, 72, 0, 100)), Pace::Untold);
        assert_eq!(pace(&[(60, 36, 0, 100)], (120, 72, 0, 140)), Pace::Grows { by: 36 * MIB, seconds: 60.0 });
        let stopped = |seconds| Pace::Stopped { seconds, memory_stands: true };
        assert_eq!(pace(&[(60, 36, 0, 100)], (120, 36, 0, 100)), stopped(60.0));
        assert_eq!(pace(&[(60, 36, 0, 100), (120, 36, 0, 100)], (240, 37, 0, 100)), stopped(180.0));
        assert_eq!(
            pace(&[(60, 36, 0, 100)], (120, 36, 0, 180)),
            Pace::Stopped { seconds: 60.0, memory_stands: false },
            "something else grows"
        );
        let slowed = Pace::Slowed { by: 5 * MIB, seconds: 60.0, memory_stands: true };
        assert_eq!(pace(&[(60, 36, 0, 100)], (120, 41, 0, 104)), slowed);
    }

    #[test]
    fn too_little_time_tells_nothing_and_an_older_look_is_asked() {
        assert_eq!(pace(&[(4_800, 40, 0, 100)], (4_860, 40, 0, 100)), Pace::Untold, "half a MiB a minute");
        let slow = pace(&[(4_000, 33, 0, 100), (4_800, 40, 0, 100)], (4_860, 41, 0, 100));
        assert_eq!(slow, Pace::Grows { by: 8 * MIB, seconds: 860.0 });
    }

    #[test]
    fn another_that_grew_more_since_confirms_nothing() {
        assert_eq!(pace(&[(60, 36, 0, 100)], (120, 72, 50, 200)), Pace::Untold);
    }

    #[test]
    fn looks_from_before_the_baseline_are_passed_over() {
        let (now, earlier) = (look(&(120, 72, 0, 100)), [look(&(60, 72, 0, 100))]);
        let (held, looks) = (heap(&[(LEAK, MIB)]), Looks { now: Some(&now), earlier: &earlier });
        let pace = looks.of_heap((&held.frames[0], Some(&held.frames[0])), 36 * MIB, 30.0, FLOOR);
        assert_eq!(pace, Pace::Untold);
    }

    #[test]
    fn goroutines_are_looked_at_alike() {
        let look = |at: u64, count: i64| {
            Look::of(Duration::from_secs(at), 0, &heap(&[]), Some(&goroutines(&[(LEAK, count), (OTHER, 3)])))
        };
        let profile = goroutines(&[(LEAK, 300)]);
        let group = Groups::between(None, &profile).groups[0].clone();
        let pace = |then, now| {
            let (earlier, now) = ([look(30, then)], look(60, now));
            Looks { now: Some(&now), earlier: &earlier }.of_group(&group, 60.0)
        };
        assert_eq!(pace(150, 300), Pace::Grows { by: 150, seconds: 30.0 });
        assert_eq!(pace(300, 300), Pace::Stopped { seconds: 30.0, memory_stands: true });
    }

    #[test]
    fn a_look_keeps_a_thousand_numbers_and_takes_no_more_for_new() {
        let names: Vec<String> = (0..3_000).map(|n| format!("main.f{n} /app/main.go {n}")).collect();
        let stacks: Vec<[&str; 1]> = names.iter().map(|it| [it.as_str()]).collect();
        let samples: Vec<(&[&str], i64)> = stacks.iter().zip(1..).map(|(it, n)| (&it[..], n * 1_024)).collect();
        let held = Held::bytes(&heap(&samples));
        assert_eq!((held.of.len(), held.least), (1_000, 1_024), "the most and the least are kept");
        assert_eq!(held.since(&held, 7), -1_024);
    }
}
