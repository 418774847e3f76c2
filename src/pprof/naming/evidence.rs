//! What a naming says beside its sentence, and why there is none: words for what the sums show.

use super::super::words::{bytes, signed, units_of};
use super::super::{blocked, names};
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
            if let Some(units) = self.lockstep_of(top).and_then(|groups| groups.first()).map(|group| group.grew) {
                say("unit", units_of(units, top.bytes / units, self.input.seconds));
            }
            if let Some(path) = self.path(top) {
                say("path", path);
            }
            if let Some(module) = names::module(&top.leaf.file) {
                say("module", module);
            }
            if self.agrees(top) {
                say("agreement", "an earlier difference named the same function".into());
            }
        }
        if let Some(last) = self.growth.rows.last().filter(|row| row.bytes <= -self.floor()) {
            say("shrank", format!("`{}` {}", names::short(&last.leaf.function), signed(last.bytes)));
        }
        if self.is_outside_heap(3) {
            say("memory", self.outside().into());
        }
        all
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

    fn outside(&self) -> &'static str {
        match self.language {
            Language::Go => "most of the growth is outside the Go heap",
            Language::Node => "most of the growth is outside the V8 heap",
            Language::Rust => "most of the growth is outside the profiled heap",
        }
    }
}
