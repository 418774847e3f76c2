//! Where the app stood while it was well: what the figures of an incident are held against. Pure.
//!
//! The footing is the first look a minute into a life at an app that is well; before that the first look of all. A life that was
//! first seen in the middle of its leak has a bad footing, so every sentence says what it is and from when.

use super::Figures;

/// In seconds: so old a healthy app has warmed up; and a stand that was taken so shortly before the alarm says nothing yet.
const WARM: f64 = 60.0;
/// Two looks closer than this tell nothing of growth.
const APART: f64 = 10.0;

/// Of the life that runs, or that ended last.
#[derive(Clone, Debug, Default)]
pub struct Footing {
    /// Unix seconds of the first life that this sidecar saw, and of this one.
    pub first_seen: Option<f64>,
    began: Option<f64>,
    first: Option<Stand>,
    well: Option<Stand>,
}

/// The figures of one moment; counts that were not known yet come later.
#[derive(Clone, Debug)]
pub struct Stand {
    pub at: f64,
    pub figures: Figures,
    /// The app was warm and well.
    pub healthy: bool,
}

impl Footing {
    pub fn appeared(&mut self, now: f64) {
        let first_seen = self.first_seen.or(Some(now));
        *self = Footing { first_seen, began: Some(now), ..Footing::default() };
    }

    pub fn see(&mut self, figures: &Figures, now: f64) {
        let began = *self.began.get_or_insert(now);
        let stand = |healthy| Stand { at: now, figures: figures.clone(), healthy };
        self.first.get_or_insert_with(|| stand(false));
        if figures.healthy && now - began >= WARM {
            self.well.get_or_insert_with(|| stand(true));
        }
        if figures.healthy {
            [&mut self.first, &mut self.well].into_iter().flatten().for_each(|stand| stand.complete(figures));
        }
    }

    /// How long this life has been seen.
    pub fn age(&self, now: f64) -> Option<f64> {
        self.began.map(|began| (now - began).max(0.0))
    }

    /// What to hold the figures of an incident against that opened at a time.
    pub fn stand(&self, opened_at: f64, now: f64) -> Option<&Stand> {
        let well = self.well.as_ref().filter(|stand| opened_at - stand.at >= WARM);
        // A story of the sidecar before this one began before anything was seen.
        let first = self.first.as_ref().filter(|stand| stand.at <= opened_at);
        well.or(first).filter(|stand| now - stand.at >= APART)
    }
}

impl Stand {
    fn complete(&mut self, figures: &Figures) {
        let counts = &mut self.figures;
        counts.statsd_clients = counts.statsd_clients.or(figures.statsd_clients);
        counts.goroutines = counts.goroutines.or(figures.goroutines);
        counts.threads = counts.threads.or(figures.threads);
        counts.fds = counts.fds.or(figures.fds);
    }

    /// What grew since, and what did not: only counts that are known at both times.
    pub fn against(&self, now: &Figures) -> (Vec<String>, Vec<String>) {
        let (mut grew, mut stood) = (Vec::new(), Vec::new());
        for ((what, before), (_, after)) in counts(&self.figures).into_iter().zip(counts(now)) {
            let Some((before, after)) = before.zip(after) else { continue };
            // The come and go of a healthy app.
            if after > before + (before / 10).max(3) {
                grew.push(format!("{what} {before} → {after}"));
            } else {
                stood.push(format!("{what} ({after})"));
            }
        }
        (grew, stood)
    }
}

/// Everything that is counted, in words.
pub fn counts(figures: &Figures) -> [(&'static str, Option<u64>); 4] {
    [
        ("StatsD clients", figures.statsd_clients),
        ("goroutines", figures.goroutines),
        ("threads", figures.threads),
        ("file descriptors", figures.fds),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(memory_mib: u64, clients: u64, healthy: bool) -> Figures {
        Figures { memory_bytes: memory_mib << 20, statsd_clients: Some(clients), healthy, ..Figures::default() }
    }

    #[test]
    fn the_first_look_of_all_gives_way_to_the_healthy_one_a_minute_in() {
        let mut footing = Footing::default();
        footing.appeared(1_000.0);
        for second in 0..200_u32 {
            let at = 1_000.0 + f64::from(second);
            footing.see(&seen(10 + u64::from(second), 2, second < 150), at);
        }
        let stand = footing.stand(1_150.0, 1_200.0).map(|it| (it.at, it.figures.memory_bytes >> 20, it.healthy));
        assert_eq!(stand, Some((1_060.0, 70, true)));
        let early = footing.stand(1_100.0, 1_200.0).map(|it| (it.at, it.healthy));
        assert_eq!(early, Some((1_000.0, false)), "a stand of the moment before the alarm tells nothing");
        footing.appeared(2_000.0);
        footing.see(&seen(5, 1, true), 2_000.0);
        assert!(footing.stand(2_001.0, 2_001.0).is_none() && footing.stand(2_001.0, 2_030.0).is_some());
        assert_eq!((footing.first_seen, footing.age(2_030.0)), (Some(1_000.0), Some(30.0)));
    }

    #[test]
    fn what_did_not_grow_is_told_beside_what_did_and_what_is_not_known_is_not() {
        let mut footing = Footing::default();
        footing.see(&seen(10, 2, true), 0.0);
        footing.see(&Figures { goroutines: Some(30), ..seen(10, 2, true) }, 5.0);
        let now = Figures { goroutines: Some(33), threads: Some(9), ..seen(200, 312, false) };
        let (grew, stood) = footing.stand(50.0, 60.0).expect("a stand").against(&now);
        assert_eq!((grew, stood), (vec!["StatsD clients 2 → 312".to_owned()], vec!["goroutines (33)".to_owned()]));
    }
}
