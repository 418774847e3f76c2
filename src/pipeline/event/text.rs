//! The text of an event, for somebody who is woken by it: what is wrong and until when, who made it, what grew and what did not,
//! how sure that is, what to do, and how to see more. One line for each, in that order.
//!
//! Names come from the app's profiles, so they may hold anything: what is quoted loses its Markdown, and each line has a bound.
//! What does not fit is left out by whole lines, the least important first.

use std::fmt::Write;
use std::time::Duration;

use super::super::footing::{Stand, counts};
use super::super::incident::{Incident, KeptProfile, State};
use super::super::said::Turn;
use super::super::words::{Identity, bytes, clean, clock, duration, sureness};
use super::{Scene, cut};
use crate::detect::AlertKind;
use crate::pprof::{Class, Culprit, Unit};

/// Datadog's 4,000 less the frame.
const ROOM: usize = 3_980;
/// Of a verdict, and of any other sentence that quotes names.
const VERDICT: usize = 1_000;
const SENTENCE: usize = 300;

/// A line and what it is worth: the highest rank is left out first.
struct Line(u8, String);

pub(super) fn text(incident: &Incident, turn: &Turn, scene: &Scene) -> String {
    let look = how_to_look(incident, scene.who);
    let told = fit(&lines(incident, turn, scene), ROOM.saturating_sub(look.chars().count()));
    format!("%%% \n{told}{look} %%%")
}

/// The lines that there is room for, in their order.
fn fit(lines: &[Line], room: usize) -> String {
    let mut by_worth: Vec<usize> = (0..lines.len()).collect();
    by_worth.sort_by_key(|at| lines[*at].0);
    let mut left = room;
    by_worth.retain(|at| {
        let length = lines[*at].1.chars().count() + 1;
        let fits = length <= left;
        left -= if fits { length } else { 0 };
        fits
    });
    by_worth.sort_unstable();
    by_worth.iter().fold(String::new(), |text, at| text + &lines[*at].1 + "\n")
}

fn lines(incident: &Incident, turn: &Turn, scene: &Scene) -> Vec<Line> {
    let mut all = vec![Line(0, format!("**{}**\n", said(&incident.verdict, VERDICT)))];
    all.push(Line(0, format!("{}\n", numbers(incident, scene))));
    all.extend(since_last(turn, scene.now).map(|words| Line(0, item(&words))));
    all.extend(culprits(incident));
    all.extend(growth(incident, scene).map(|words| Line(1, item(&words))));
    all.extend(sure(incident, scene).map(|words| Line(2, item(&words))));
    all.extend(evidence(incident));
    all.extend(to_do(incident, scene).map(|words| Line(1, item(&words))));
    all.extend(difference(incident, scene.who).map(|words| Line(3, item(&words))));
    all.extend(
        incident
            .alerts
            .values()
            .map(|alert| Line(4, item(&format!("rule `{}`: {}", alert.rule, said(&alert.evidence, SENTENCE))))),
    );
    all.extend(if_expected(incident).map(|words| Line(5, item(words))));
    all
}

fn item(words: &str) -> String {
    format!("- {words}")
}

/// What is new, where the verdict does not show it.
fn since_last(turn: &Turn, now: f64) -> Option<String> {
    match turn {
        Turn::Renamed(before) => Some(format!("told before: `{}`; a later look says otherwise", tick(before))),
        Turn::Surer => Some("told before as likely; now it is sure".to_owned()),
        Turn::Nearer { left, told_at } => {
            let told_at = clock(*told_at, now);
            Some(format!("worse: when last told, at {told_at}, the limit was {} away", duration(*left)))
        }
        Turn::Opened | Turn::Unnamed | Turn::Named | Turn::Critical | Turn::Ended => None,
    }
}

/// Where memory stands and until when, how long the app has been seen, and its counts where [`growth`] has nothing to hold them
/// against.
fn numbers(incident: &Incident, scene: &Scene) -> String {
    let figures = scene.figures;
    if figures.memory_bytes == 0 {
        return String::new();
    }
    let mut parts = vec![match figures.limit_bytes {
        Some(limit) if limit > 0 => {
            let share = figures.memory_bytes as f64 / limit as f64 * 100.0;
            format!("memory {} of {} ({share:.0} %)", bytes(figures.memory_bytes), bytes(limit))
        }
        _ => format!("memory {}, no limit known", bytes(figures.memory_bytes)),
    }];
    if let Some(slope) = figures.slope_bytes_per_second.filter(|slope| *slope > 0.0) {
        parts.push(format!("{} a minute", bytes((slope * 60.0) as u64)));
    }
    if let Some(left) = figures.time_to_limit.filter(|_| incident.is_open()) {
        let at = clock(scene.now + left.as_secs_f64(), scene.now);
        parts.push(format!("at this rate the kill comes in {}, at {at}", duration(left)));
    }
    parts.extend(scene.footing.age(scene.now).map(|age| format!("watched for {}", duration(seconds(age)))));
    parts.extend(scene.footing.first_seen.filter(|_| figures.restarts > 0).map(|since| {
        let times = if figures.restarts == 1 { "once".to_owned() } else { format!("{} times", figures.restarts) };
        format!("restarted {times} since {}", clock(since, scene.now))
    }));
    if scene.footing.stand(incident.opened_at, scene.now).is_none() {
        parts.extend(counts(figures).iter().filter_map(|(what, n)| n.map(|n| format!("{n} {what}"))));
    }
    parts.join(" · ")
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(0.0, 1e9))
}

fn culprits(incident: &Incident) -> Vec<Line> {
    let naming = incident.naming.iter().filter(|naming| naming.is_named());
    let three = naming.flat_map(|naming| naming.culprits.iter().take(3));
    three.zip([0, 3, 3]).map(|(it, rank)| Line(rank, item(&culprit(it)))).collect()
}

fn culprit(it: &Culprit) -> String {
    let mut text = format!("`{}`", tick(&it.function));
    let (owner, file, line) = match it.made_by.as_str() {
        "" => ("", &it.file, it.line),
        owner => (owner, &it.made_by_file, it.made_by_line),
    };
    if !owner.is_empty() && owner != it.function {
        let made = if it.unit == Unit::Goroutines { "in" } else { "made by" };
        let _ = write!(text, " {made} `{}`", tick(owner));
    }
    if !file.is_empty() {
        let _ = write!(text, " ({}:{line})", said(file, 160));
    }
    let share = it.share.clamp(0.0, 1.0) * 100.0;
    match it.unit {
        Unit::Bytes => {
            let grew = bytes(it.grew_bytes.max(0).unsigned_abs());
            let _ = write!(text, " grew {grew}, {share:.0} % of the growth");
        }
        Unit::Goroutines => {
            let _ = write!(text, ": {} more goroutines, {share:.0} % of their growth", it.grew_objects);
        }
    }
    text
}

/// What else grew since the app was well, and what did not, which rules causes out.
fn growth(incident: &Incident, scene: &Scene) -> Option<String> {
    let stand = scene.footing.stand(incident.opened_at, scene.now)?;
    let ((grew, stood), since) = (stand.against(scene.figures), since(stand, scene.now));
    match (grew.is_empty(), stood.is_empty()) {
        (true, true) => None,
        (true, false) => Some(format!("did not grow {since}: {}", stood.join(", "))),
        (false, true) => Some(format!("grew {since}: {}", grew.join(", "))),
        (false, false) => Some(format!("grew {since}: {}; did not grow: {}", grew.join(", "), stood.join(", "))),
    }
}

fn since(stand: &Stand, now: f64) -> String {
    let what = if stand.healthy { "it was well" } else { "it was first seen" };
    format!("since {what}, {} ago", duration(seconds(now - stand.at)))
}

/// How sure the name is, and what else it could be.
fn sure(incident: &Incident, scene: &Scene) -> Option<String> {
    let Some(naming) = incident.own_naming() else {
        return incident.pull_failure.as_ref().map(|failure| format!("no profile: {}", said(failure, SENTENCE)));
    };
    let mut text = format!("how sure: {}", sureness(naming.confidence));
    if incident.state == State::Recovered {
        return Some(text);
    }
    let _ = write!(text, "; the other reading: {}", other_reading(naming.class));
    let standing = seconds(scene.now - incident.opened_at);
    if incident.is_open() && standing >= Duration::from_secs(600) {
        let _ = write!(text, ", though the alarm has stood for {}", duration(standing));
    }
    Some(text)
}

fn other_reading(class: Class) -> &'static str {
    match class {
        Class::HeapLeak => "a cache that is still filling, which levels off",
        Class::UnclosedHandle => "a pool on its way to its full size, which levels off",
        Class::GoroutineLeak => "work that waits for something slow, which ends when that answers",
        Class::CacheFills => "a leak that pauses, and grows on with the work that feeds it",
        Class::Garbage => "memory of C code or mappings, which no profile of Go shows",
        Class::OutsideGoHeap => "what the runtime takes for itself, such as stacks and its own tables",
        Class::Unknown => "a cache that is still filling, or more load",
    }
}

/// What the profiles say beside the name. The class of a heap leak ends in its other reading, which stands above already.
fn evidence(incident: &Incident) -> Vec<Line> {
    let mut lines = Vec::new();
    for (kind, words) in incident.naming.iter().flat_map(|naming| &naming.evidence) {
        let is_class = kind == "class";
        let words = if is_class { words.split("; a cache").next().unwrap_or(words) } else { words };
        let rank = if is_class { 2 } else { 6 };
        // "goroutines +312 in …" says its kind itself.
        let kind = if words.starts_with(kind.as_str()) { String::new() } else { format!("{}: ", said(kind, 40)) };
        lines.push(Line(rank, item(&format!("{kind}{}", said(words, SENTENCE)))));
    }
    lines
}

/// The usual mend, and the time that a restart buys.
fn to_do(incident: &Incident, scene: &Scene) -> Option<String> {
    let remedy = incident.naming.as_ref().and_then(|naming| naming.remedy);
    let mend = remedy.map(|remedy| format!("the usual mend: {}", said(remedy, SENTENCE)));
    let parts: Vec<String> = mend.into_iter().chain(restart(incident, scene)).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// From where memory stood while the app was well to the limit, at the rate of now. Without a rate, a limit or such a stand
/// nothing is promised.
fn restart(incident: &Incident, scene: &Scene) -> Option<String> {
    let figures = scene.figures;
    let rate = figures.slope_bytes_per_second.filter(|rate| *rate > 0.0)?;
    let base = scene.footing.stand(incident.opened_at, scene.now)?.figures.memory_bytes;
    let room = figures.limit_bytes?.checked_sub(base).filter(|_| base < figures.memory_bytes)?;
    let time = duration(seconds(room as f64 / rate));
    match incident.state {
        State::Open | State::Named => {
            Some(format!("a restart now buys about {time} at this rate, from {} up to the limit", bytes(base)))
        }
        State::Killed => {
            Some(format!("at that rate the next life lasts about {time}, from {} up to the limit", bytes(base)))
        }
        State::Recovered => None,
    }
}

/// The command that shows the difference, where two profiles of it are kept.
fn difference(incident: &Incident, who: &Identity) -> Option<String> {
    let is_heap = |it: &&KeptProfile| it.kind.starts_with("heap");
    let is_base = |it: &&KeptProfile| matches!(it.reason.as_str(), "baseline" | "first_sight");
    let heaps = || incident.profiles.iter().rev().filter(is_heap);
    let base = heaps().find(is_base)?;
    let now = heaps().find(|it| it.kind == "heap_gc" && !is_base(it)).or_else(|| heaps().find(|it| !is_base(it)))?;
    let Some(dir) = &who.profile_dir else {
        let page = cut(who.page_url.trim_end_matches('/'), 200);
        let (base, now) = (&base.id, &now.id);
        return Some(format!(
            "the difference, with the page in reach: `curl -sO {page}/api/profiles/{base} -O {page}/api/profiles/{now} && \
             oomwatch profile diff {base} {now}`"
        ));
    };
    let file = |it: &KeptProfile| format!("{}/{}.{}.pb.gz", cut(&tick(&dir.to_string_lossy()), 200), it.id, it.kind);
    let inside = who.pod.as_ref().map_or("oomwatch".to_owned(), |pod| {
        format!("kubectl {}exec {} -c oomwatch -- /oomwatch", namespace(who), clean(pod, 253))
    });
    Some(format!("the difference: `{inside} profile diff {} {}`", file(base), file(now)))
}

/// How to have it silent the next time: growth of memory alone can be declared.
fn if_expected(incident: &Incident) -> Option<&'static str> {
    (incident.is_open() && incident.standing.contains_key(&AlertKind::MemoryGrowth)).then_some(
        "if this growth is expected: set `alert.expected` (or `OOMWATCH_ALERT__EXPECTED`) to the size that is known to be \
         reached; growth up to it raises notices only",
    )
}

fn how_to_look(incident: &Incident, who: &Identity) -> String {
    let mut text = String::from("\n");
    let last = incident.profiles.iter().rev().take(3).rev();
    let kept: Vec<String> = last.map(|profile| format!("`{}` ({})", profile.id, profile.kind)).collect();
    if !kept.is_empty() {
        let _ = writeln!(text, "Kept by the sidecar: {}.", kept.join(", "));
    }
    let link = format!("{}/#/incident/{}", cut(who.page_url.trim_end_matches('/'), 500), incident.id);
    if who.public_url {
        let _ = writeln!(text, "{link}");
        return text;
    }
    let pod = clean(who.pod.as_deref().unwrap_or("POD"), 253);
    let _ = writeln!(text, "`kubectl {}port-forward {pod} {}`, then {link}", namespace(who), who.page_port);
    text
}

fn namespace(who: &Identity) -> String {
    who.namespace.as_deref().map_or(String::new(), |name| format!("-n {} ", clean(name, 63)))
}

/// A sentence that is not ours, without its Markdown and with a bound.
fn said(text: &str, limit: usize) -> String {
    cut(&escape(text), limit)
}

/// A `%%%` would end the block: no two percent signs are left side by side.
fn escape_percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '%' && out.ends_with('%') {
            out.push('\u{200b}');
        }
        out.push(c);
    }
    out
}

/// Markdown's own signs lose their meaning. Our sentences quote names in backticks, which go: escaped they would only be noise.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars().filter(|c| !c.is_control() && *c != '`') {
        if matches!(c, '*' | '_' | '[' | ']' | '<' | '>' | '#' | '|' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    escape_percent(&out)
}

fn tick(text: &str) -> String {
    escape_percent(&clean(text, 120).replace('`', "'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out_of_the_block_or_its_markdown() {
        assert_eq!(escape("a_b*c`d`%%%%e\nf"), "a\\_b\\*cd%\u{200b}%\u{200b}%\u{200b}%ef");
        assert!(!tick("%%%%%%`").contains("%%"));
        assert_eq!(clean("a\u{7}b\nc", 2), "ab");
    }

    #[test]
    fn of_what_does_not_fit_the_least_important_goes_and_the_order_stays() {
        let lines = [Line(0, "one".into()), Line(5, "two".into()), Line(1, "three".into()), Line(5, "4".into())];
        assert_eq!(fit(&lines, 100), "one\ntwo\nthree\n4\n");
        assert_eq!(fit(&lines, 12), "one\nthree\n4\n");
        assert_eq!(fit(&lines, 3), "4\n");
        assert_eq!(fit(&lines, 0), "");
    }
}
