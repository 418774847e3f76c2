//! What the present of an app is compared with: heaps and goroutines from better times, and small notes of earlier looks. They
//! belong to one incarnation of the app and share one budget of bytes, which nothing exceeds.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::incident::KeptProfile;
use super::{Degraded, Figures};
use crate::pprof::{Counts, Look};

/// Moments kept to compare with; beyond that the most crowded in time goes.
const BASELINES: usize = 8;

/// Bytes of them all, heaps and goroutines, as pulled. What is larger is not kept.
pub(super) const BASELINE_BYTES: usize = 4 << 20;

/// Goroutines pulled within this time after a heap are of the same moment.
const PAIR: Duration = Duration::from_secs(60);

/// Looks kept: the first, and the latest ones.
const LOOKS: usize = 4;

/// One moment of the app from a better time: its heap as pulled (2–4 KB on small apps), and what else was known.
#[derive(Clone, Debug, Default)]
pub struct Baseline {
    /// Time since the task began.
    pub at: Duration,
    pub heap: Bytes,
    /// Of the same moment; `None` where they were not pulled.
    pub goroutines: Option<Bytes>,
    /// RSS at that time.
    pub rss_bytes: u64,
    pub counts: Counts,
    /// Where it is kept, so that the page can offer it as the base of a difference.
    pub kept: Option<KeptProfile>,
}

impl Baseline {
    pub fn new(at: Duration, heap: Bytes, kept: Option<KeptProfile>, figures: &Figures) -> Self {
        Self { at, heap, goroutines: None, rss_bytes: figures.rss_bytes, counts: counts(figures), kept }
    }

    fn weight(&self) -> usize {
        self.heap.len() + self.goroutines.as_ref().map_or(0, Bytes::len)
    }
}

/// The counts that figures know.
pub(super) fn counts(figures: &Figures) -> Counts {
    let signed = |count: Option<u64>| count.and_then(|count| i64::try_from(count).ok());
    Counts {
        fds: signed(figures.fds),
        threads: signed(figures.threads),
        statsd_clients: signed(figures.statsd_clients),
    }
}

/// What the present is compared with. Belongs to one incarnation of the app.
#[derive(Clone, Debug, Default)]
pub struct Baselines {
    /// Oldest first.
    moments: Vec<Baseline>,
    /// The only heap is that of first sight: the next healthy one replaces it.
    provisional: bool,
    /// Bytes of the last profile that was too large to be kept.
    too_large: Option<usize>,
    /// Oldest first. Errands borrow them.
    looks: Arc<Vec<Look>>,
}

impl Baselines {
    pub fn first_sight(&mut self, baseline: Baseline) {
        if self.moments.is_empty() && self.fits(baseline.heap.len()) {
            self.moments.push(baseline);
            self.provisional = true;
        }
    }

    /// Adds a healthy heap. The kept ones are spaced by powers of two in age, so that a slow leak finds one old enough and a
    /// fast one finds one recent enough.
    pub fn healthy(&mut self, baseline: Baseline) {
        if !self.fits(baseline.heap.len()) {
            return;
        }
        if std::mem::take(&mut self.provisional) {
            self.moments.clear();
        }
        self.moments.push(baseline);
        self.thin_out();
    }

    /// Adds the goroutines of the moment of the newest heap. Those of another moment are compared with nothing: growth of one
    /// span divided by growth of another is a number that means nothing.
    pub fn goroutines(&mut self, at: Duration, bytes: Bytes) {
        let Some(newest) = self.moments.last_mut().filter(|it| at.saturating_sub(it.at) <= PAIR) else { return };
        if !self.provisional && newest.goroutines.is_none() && newest.heap.len() + bytes.len() <= BASELINE_BYTES {
            newest.goroutines = Some(bytes);
            self.thin_out();
        }
    }

    fn fits(&mut self, bytes: usize) -> bool {
        let fits = bytes <= BASELINE_BYTES;
        self.too_large = (!fits).then_some(bytes);
        fits
    }

    /// The newest always stays, for alone it fits.
    fn thin_out(&mut self) {
        let Some(now) = self.moments.last().map(|it| it.at) else { return };
        let bytes = |moments: &[Baseline]| moments.iter().map(Baseline::weight).sum::<usize>();
        while self.moments.len() > BASELINES || self.moments.len() > 1 && bytes(&self.moments) > BASELINE_BYTES {
            let age = |index: usize| (now.saturating_sub(self.moments[index].at)).as_secs_f64() + 1.0;
            let crowded = (1..self.moments.len() - 1)
                .min_by(|a, b| (age(a - 1) / age(a + 1)).total_cmp(&(age(b - 1) / age(b + 1))));
            self.moments.remove(crowded.unwrap_or(0));
        }
    }

    /// Newest first: growth since the newest is the leak alone, and only a slow leak needs an older one. What named somebody
    /// in the same round comes before all.
    pub fn in_turn(&self, named_by: Option<Duration>) -> Vec<&Baseline> {
        let mut all: Vec<&Baseline> = self.moments.iter().rev().collect();
        all.sort_by_key(|it| Some(it.at) != named_by);
        all
    }

    /// Notes a look of the round that began then. It looks again when more of it has come: the last word counts.
    pub fn looked(&mut self, began: Duration, look: Look) {
        let looks = Arc::make_mut(&mut self.looks);
        looks.retain(|it| it.at < began);
        looks.push(look);
        if looks.len() > LOOKS {
            looks.remove(1);
        }
    }

    /// Those from before a time, oldest first.
    pub fn looks_before(&self, at: Duration) -> &[Look] {
        &self.looks[..self.looks.partition_point(|look| look.at < at)]
    }

    /// Why there is no baseline although one was pulled, in words.
    pub fn lack(&self) -> Option<String> {
        let bytes = self.too_large.filter(|_| self.moments.is_empty())?;
        let (size, kept) = (super::words::bytes(bytes as u64), super::words::bytes(BASELINE_BYTES as u64));
        Some(format!("no baseline is kept: the heap profile of the app is {size}, and up to {kept} are kept in memory"))
    }

    /// The same, for the page.
    pub fn degraded(&self) -> Option<Degraded> {
        let fix = "growth since a better time cannot be told: compare stored profiles with `oomwatch profile diff`";
        self.lack().map(|why| Degraded { what: "baseline".to_owned(), why, fix: fix.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pprof::testing::heap;

    fn at(seconds: u64) -> Baseline {
        Baseline { at: Duration::from_secs(seconds), ..Baseline::default() }
    }

    fn of(seconds: u64, mebibytes: usize) -> Baseline {
        Baseline { heap: vec![0; mebibytes << 20].into(), ..at(seconds) }
    }

    fn weight(baselines: &Baselines) -> usize {
        baselines.moments.iter().map(Baseline::weight).sum()
    }

    #[test]
    fn the_first_healthy_heap_replaces_the_one_of_first_sight() {
        let mut baselines = Baselines::default();
        baselines.first_sight(at(0));
        baselines.first_sight(at(1));
        assert_eq!(baselines.moments.len(), 1);
        baselines.healthy(at(60));
        assert_eq!(baselines.moments[0].at, Duration::from_secs(60));
        baselines.healthy(at(360));
        assert_eq!(baselines.moments.len(), 2);
    }

    #[test]
    fn large_baselines_are_fewer() {
        let mut baselines = Baselines::default();
        for n in 0..20 {
            baselines.healthy(of(300 * n, 1));
        }
        assert_eq!((baselines.moments.len(), baselines.moments[0].at), (4, Duration::ZERO));
        baselines.healthy(of(9_000, 4));
        assert_eq!((baselines.moments.len(), baselines.moments[0].at), (1, Duration::from_secs(9_000)));
    }

    #[test]
    fn no_baseline_is_too_large_for_the_budget_and_it_is_said() {
        let mut baselines = Baselines::default();
        baselines.first_sight(of(0, 16));
        baselines.healthy(of(60, 16));
        assert_eq!(weight(&baselines), 0);
        assert_eq!(
            baselines.lack().as_deref(),
            Some("no baseline is kept: the heap profile of the app is 16 MiB, and up to 4.0 MiB are kept in memory")
        );
        baselines.healthy(of(360, 3));
        baselines.healthy(of(660, 16));
        assert_eq!((weight(&baselines), baselines.lack()), (3 << 20, None), "an older one that fits stays");
        baselines.goroutines(Duration::from_secs(361), vec![0; 2 << 20].into());
        assert_eq!(weight(&baselines), 3 << 20, "goroutines count too");
        baselines.goroutines(Duration::from_secs(361), vec![0; 1 << 20].into());
        assert_eq!(weight(&baselines), 4 << 20);
        baselines.healthy(of(960, 2));
        assert_eq!((weight(&baselines), baselines.moments.len()), (2 << 20, 1));
    }

    #[test]
    fn goroutines_belong_to_the_heap_of_their_moment() {
        let mut baselines = Baselines::default();
        baselines.healthy(at(60));
        baselines.goroutines(Duration::from_secs(61), Bytes::from_static(b"of 61"));
        baselines.healthy(at(360));
        // The heap of 660 was not had.
        baselines.goroutines(Duration::from_secs(661), Bytes::from_static(b"of 661"));
        let seen: Vec<_> = baselines.moments.iter().map(|it| it.goroutines.as_deref()).collect();
        assert_eq!(seen, [Some(&b"of 61"[..]), None]);
    }

    #[test]
    fn baselines_stay_few_and_keep_the_oldest_and_a_recent_one() {
        let mut baselines = Baselines::default();
        for n in 0..200 {
            baselines.healthy(at(300 * n));
        }
        let ages: Vec<_> = baselines.moments.iter().map(|it| 199 - it.at.as_secs() / 300).collect();
        assert_eq!(ages.len(), BASELINES);
        assert_eq!((ages[0], ages[7]), (199, 0));
        assert!(ages[4] < 60 && ages[6] < 10, "spread over ages: {ages:?}");
    }

    #[test]
    fn what_named_somebody_comes_first_then_the_newest() {
        let mut baselines = Baselines::default();
        [60, 360, 660].into_iter().for_each(|second| baselines.healthy(at(second)));
        let turns = |named_by| baselines.in_turn(named_by).iter().map(|it| it.at.as_secs()).collect::<Vec<_>>();
        assert_eq!(turns(None), [660, 360, 60]);
        assert_eq!(turns(Some(Duration::from_secs(360))), [360, 660, 60]);
    }

    #[test]
    fn the_first_look_and_the_latest_are_kept_and_a_round_has_one() {
        let mut baselines = Baselines::default();
        let look = |second: u64, rss| Look::of(Duration::from_secs(second), rss, &heap(&[]), None);
        (1..=6).for_each(|second| baselines.looked(Duration::from_secs(second), look(second, 1)));
        baselines.looked(Duration::from_secs(6), look(7, 2));
        let all = baselines.looks_before(Duration::MAX);
        let seen: Vec<_> = all.iter().map(|it| (it.at.as_secs(), it.rss_bytes)).collect();
        assert_eq!(seen, [(1, 1), (4, 1), (5, 1), (7, 2)]);
        assert_eq!(baselines.looks_before(Duration::from_secs(6)).len(), 3);
    }
}
