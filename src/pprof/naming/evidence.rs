//! What a naming says beside its sentence, and why there is none: words for what the sums show.

use super::super::look::Pace;
use super::super::words::{bytes, signed, span, units_of};
use super::super::{blocked, mistakes, names};
use super::{Case, Language, Profile, Row};

/// Why a stripped program names nobody.
pub(super) const NO_SYMBOLS: &str = "not nameable: the profile has no symbols, only addresses; leave the program's symbols in (strip = false) \
     and have the profile symbolised where it is made (jemalloc_pprof: feature `symbolize`)";

impl Case<'_> {
    pub(super) fn why_not(&self, base: &Profile) -> String {
        // A program that never links the memory profiler serves such a profile (golang/go#68136).
        if self.input.now.is_empty() {
            let fix = match self.language {
                Language::Go => "does the app sample memory (runtime.MemProfileRate)?",
                _ => "is the profiler of the app started?",
            };
            return format!("not nameable: the heap profile is empty; {fix}");
        }
        if self.is_untold(base) {
            return "not nameable yet: no garbage collection between the two profiles".into();
        }
        let (net, floor) = (self.growth.net_bytes, bytes(self.floor()));
        if net >= self.floor() || self.is_outside_heap(10) {
            return format!("not nameable: {}", self.outside());
        }
        if net <= 0 {
            return format!("not nameable yet: the heap did not grow ({}; {floor} of growth needed)", signed(net));
        }
        format!("not nameable yet: too little growth ({}; {floor} needed)", bytes(net))
    }

    /// (kind, words), as [`super::Naming::evidence`] holds them.
    pub(super) fn evidence(&self) -> Vec<(String, String)> {
        let mut all = Vec::new();
        let mut say = |kind: &str, words: String| all.push((kind.to_owned(), words));
        if let Some(groups) = &self.groups {
            let compared = self.input.goroutines.is_some_and(|(base, _)| base.is_some());
            say("goroutines", groups.words(compared).unwrap_or_else(|| "goroutines do not pile up".into()));
        }
        if let Some(leaked) = self.input.leaked {
            say("goroutineleak", blocked::leaked_words(leaked));
        }
        let creators = self.input.dump.zip(self.groups.as_ref());
        if let Some(words) = creators.and_then(|(dump, groups)| blocked::creators_words(dump, groups)) {
            say("created_by", words);
        }
        if self.input.base.is_none() {
            return all;
        }
        if let Some(top) = self.growth.rows.first().filter(|row| row.bytes >= self.floor()) {
            if let Some(units) = self.units_of(top) {
                say("unit", units_of(units, top.bytes / units.0, self.input.seconds));
            }
            if let Some(path) = self.path(top) {
                say("path", path);
            }
            if let Some(module) = names::module(&top.leaf.file) {
                say("module", module);
            }
            if let Some((kind, words)) = pace_words(self.pace(top)) {
                say(kind, words);
            }
        }
        for (kind, words) in self.input.counts.words(self.units()) {
            say(kind, words);
        }
        if let Some(last) = self.growth.rows.last().filter(|row| row.bytes <= -self.floor()) {
            say("shrank", format!("`{}` {}", names::short(&last.leaf.function), signed(last.bytes)));
        }
        if self.is_outside_heap(3) {
            say("memory", self.outside().into());
            self.garbage_words().into_iter().for_each(|words| say("allocated", words));
        }
        all
    }

    /// How many units there are more, by what piles up in equal steps; `None` where nothing does.
    fn units(&self) -> Option<i64> {
        let beside = || self.growth.rows.first().and_then(|top| self.lockstep_of(top));
        self.piled_up().or_else(beside)?.first().map(|group| group.grew)
    }

    /// What holds a row's growth, and how many more there are of it: StatsD clients are counted as such.
    fn units_of(&self, row: &Row) -> Option<(i64, &'static str)> {
        let units = self.lockstep_of(row).and_then(|groups| groups.first()).map(|group| group.grew);
        let clients = self.input.counts.clients(units);
        match clients.filter(|_| mistakes::makes_a_statsd_client(self.growth.stack(row))) {
            Some(clients) => Some((clients, "StatsD clients")),
            None => Some((units?, "units")),
        }
    }

    /// The app's own frames from the owner outwards: "`cache.Fill` ← `main.handleJob` ← `main.main`".
    fn path(&self, row: &Row) -> Option<String> {
        let app = self.growth.stack(row).filter(|frame| names::kind(frame) == names::Kind::App);
        let mut frames: Vec<String> =
            app.take(64).map(|frame| format!("`{}`", names::short(&frame.function))).collect();
        frames.dedup();
        frames.truncate(5);
        (frames.len() > 1).then(|| frames.join(" ← "))
    }
}

/// (kind, words): what the looks of earlier rounds say of the growth.
fn pace_words(pace: Pace) -> Option<(&'static str, String)> {
    let and_memory = |stands: bool| if stands { ", and memory stands" } else { ", but memory grows on" };
    match pace {
        Pace::Untold => None,
        Pace::Grows { by, seconds } => {
            let words = format!("it grew another {} since a look {} ago, more than all else", bytes(by), span(seconds));
            Some(("agreement", words))
        }
        Pace::Slowed { by, seconds, memory_stands } => {
            let slow = format!("it grew only {} since a look {} ago", bytes(by), span(seconds));
            Some(("standstill", slow + and_memory(memory_stands)))
        }
        Pace::Stopped { seconds, memory_stands } => {
            let still = format!("it has not grown since a look {} ago", span(seconds));
            Some(("standstill", still + and_memory(memory_stands)))
        }
    }
}

/// The end of the sentence on goroutines that pile up no more.
pub(super) fn rest_of_goroutines(pace: Pace) -> String {
    match pace {
        Pace::Stopped { seconds, .. } => format!("; no more came for {}", span(seconds)),
        Pace::Slowed { by, seconds, .. } => format!("; only {by} of them in the last {}", span(seconds)),
        Pace::Grows { .. } | Pace::Untold => String::new(),
    }
}
