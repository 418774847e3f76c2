//! Pulls profiles from the app's pprof endpoint, one at a time, and checks that what came is one.
//!
//! The address comes from the settings alone and stays in the pod unless a host is allowed by name; link-local and metadata
//! addresses never are. A pull is bounded in time and bytes (see [`Bounds`]) because the app is ill when we ask, and may be
//! anything. A gzip body is inflated as it comes and kept only as it came, so that a bomb ends after a few kilobytes of it.

use std::net::IpAddr;

use bytes::Bytes;
use hyper::StatusCode;
use tokio::sync::mpsc;
use tokio::time::Instant;

mod inflation;

use super::fetch::{self, Answer, Bounds, Origin};
use crate::pipeline::{Index, ProfileKind, PullFailed, PullReply, PullRequest, Pulled};
use crate::pprof;
use inflation::Inflation;

/// What a profile may inflate to; the reader's own cap is the same (`pprof`).
const MAX_INFLATED: u64 = 64 << 20;

/// What a text of all goroutines may have: below 2,000 of them it is one or two MiB.
const MAX_DUMP: usize = 8 << 20;

/// `[profile]` of the settings, as far as pulling goes.
#[derive(Clone, Default)]
pub struct Settings {
    /// Base address: `http://127.0.0.1:6060/debug/pprof`.
    pub url: String,
    /// Hosts off the loopback that may be asked, as they stand in the address.
    pub allow_hosts: Vec<String>,
    /// Sent as `Authorization: Bearer …` to that address and nowhere else.
    pub bearer: Option<String>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bearer = self.bearer.as_ref().map(|_| "***");
        out.debug_struct("Settings")
            .field("url", &self.url)
            .field("allow_hosts", &self.allow_hosts)
            .field("bearer", &bearer)
            .finish()
    }
}

/// The task that pulls.
#[derive(Debug)]
pub struct Puller {
    origin: Origin,
    bounds: Bounds,
}

impl Puller {
    /// Checks the address.
    ///
    /// # Errors
    /// A sentence that names what would be accepted.
    pub fn new(settings: &Settings) -> Result<Puller, String> {
        let origin = Origin::new(&settings.url, settings.bearer.as_deref())?;
        if !is_loopback(&origin.host)
            && !settings.allow_hosts.iter().any(|host| host.eq_ignore_ascii_case(&origin.host))
        {
            let host = &origin.host;
            return Err(format!(
                "profile.url: {host} is not on the loopback: expected 127.0.0.1, [::1] or localhost, or {host:?} in profile.allow_hosts"
            ));
        }
        if origin.host.parse::<IpAddr>().is_ok_and(fetch::is_forbidden) {
            return Err(format!(
                "profile.url: {} is a link-local, metadata or unspecified address and is never asked",
                origin.host
            ));
        }
        Ok(Puller { origin, bounds: Bounds::default() })
    }

    /// The same with other bounds, for tests and tools.
    #[must_use]
    pub fn within(mut self, bounds: Bounds) -> Puller {
        self.bounds = bounds;
        self
    }

    /// Answers requests, one after another, until nobody can send any. May be run again after a fault.
    pub async fn run(&self, requests: &mut mpsc::Receiver<PullRequest>) {
        while let Some(PullRequest { kind, mut reply }) = requests.recv().await {
            let begun = Instant::now();
            tokio::select! {
                outcome = self.pull(kind) => {
                    let answer = PullReply { kind, took: begun.elapsed(), outcome };
                    // Who asked may have given up in this very moment: then nobody misses the answer.
                    let _ = reply.send(answer);
                }
                // Who asked is gone, with the app or at the stop: a slow answer must hold up neither the next nor the drain.
                () = reply.closed() => {}
            }
        }
    }

    /// The port of the endpoint when it is on the loopback: the sampler finds the app by its owner.
    pub fn local_port(&self) -> Option<u16> {
        is_loopback(&self.origin.host).then_some(self.origin.port)
    }

    /// One pull, now.
    ///
    /// # Errors
    /// With a reason and words for people.
    pub async fn pull(&self, kind: ProfileKind) -> Result<Pulled, PullFailed> {
        let path = match kind {
            ProfileKind::Heap => "/heap",
            ProfileKind::HeapAfterGc => "/heap?gc=1",
            ProfileKind::Goroutine => "/goroutine",
            ProfileKind::GoroutineLeak => "/goroutineleak",
            ProfileKind::GoroutineDump => "/goroutine?debug=2",
            ProfileKind::Index => "/",
        };
        let mut bounds = self.bounds;
        if kind == ProfileKind::GoroutineDump {
            bounds.bytes = bounds.bytes.min(MAX_DUMP);
        }
        let answer = fetch::get(&self.origin, path, bounds, Inflation::default()).await?;
        let answer = accepted(answer, &self.origin, path)?;
        if kind == ProfileKind::Index {
            return Ok(Pulled::Index(index(&answer.body)));
        }
        if kind == ProfileKind::GoroutineDump && pprof::dump::is_dump(&answer.body) {
            return Ok(Pulled::Dump(answer.body));
        }
        let is_html = answer.content_type.starts_with("text/html");
        let body = answer.body.clone();
        let checked = tokio::task::spawn_blocking(move || check(&body)).await;
        match checked {
            Ok(Ok(())) if !is_html => Ok(Pulled::Profile(answer.body)),
            Ok(Err(Fault::Truncated)) if !is_html => {
                Err(fetch::failed("truncated", format!("the profile at {path} ends in the middle")))
            }
            _ => Err(fetch::failed("not_a_profile", not_a_profile(&answer, &self.origin, path))),
        }
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn not_a_profile(answer: &Answer, origin: &Origin, path: &str) -> String {
    let kind = if answer.content_type.is_empty() { "something" } else { &answer.content_type };
    format!("{}{path} answers {kind} that is no profile: point profile.url at the app's /debug/pprof", origin.base)
}

/// Passes a 200 and turns every other answer into what to do about it.
fn accepted(answer: Answer, origin: &Origin, path: &str) -> Result<Answer, PullFailed> {
    let status = answer.status;
    if status == StatusCode::OK {
        return Ok(answer);
    }
    let place = format!("{} at {}{path}", status.as_u16(), origin.base);
    if status.is_redirection() {
        let location = if answer.location.is_empty() { "nowhere" } else { &answer.location };
        return Err(fetch::failed(
            "redirect",
            format!("{place} leads to {location}: redirects are not followed, set profile.url to the last address"),
        ));
    }
    let advice = match status {
        StatusCode::NOT_FOUND => "import net/http/pprof and serve it on 127.0.0.1:6060, or set profile.url",
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "set profile.bearer_file to a file with the token that it asks for"
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            "the app is too busy to answer; the next round tries again"
        }
        _ => "look into the app's log for the cause",
    };
    Err(fetch::failed("status", format!("{place}: {advice}")))
}

fn index(html: &[u8]) -> Index {
    let leak_profile = html.windows(20).any(|part| part == b"goroutineleak?debug=");
    Index { goroutines: goroutines(html), leak_profile }
}

/// The goroutine count of the index page: `<td>19</td><td><a href='goroutine?debug=1'>goroutine</a></td>`, whatever the
/// quotes, spaces and tags between number and link.
fn goroutines(html: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(html);
    let links = text.match_indices("goroutine?debug=").map(|(place, _)| &text[..place]);
    let before = links.into_iter().find(|before| before.ends_with(['\'', '"', '=', '/']))?;
    let cell = before.rsplit_once('<')?.0;
    let digits = cell.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number = digits.rsplit(|c: char| !c.is_ascii_digit()).next()?;
    is_markup(&cell[digits.len()..]).then(|| number.parse().ok()).flatten()
}

/// Nothing but tags and space.
fn is_markup(text: &str) -> bool {
    text.split('<').enumerate().all(|(index, part)| {
        let after = if index == 0 { Some(part) } else { part.split_once('>').map(|(_, after)| after) };
        after.is_some_and(|after| after.trim().is_empty())
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Truncated,
    Foreign,
}

/// A profile is a protobuf message, gzipped as a rule. Inflates without keeping anything.
fn check(body: &Bytes) -> Result<(), Fault> {
    if body.is_empty() {
        return Err(Fault::Truncated);
    }
    if !body.starts_with(&[0x1f, 0x8b]) {
        return check_message(body);
    }
    let mut inflated = std::io::Read::take(flate2::read::MultiGzDecoder::new(body.as_ref()), MAX_INFLATED);
    let mut head = [0; 1];
    let fault = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Fault::Truncated,
        _ => Fault::Foreign,
    };
    std::io::Read::read_exact(&mut inflated, &mut head).map_err(fault)?;
    if !is_tag(u64::from(head[0])) {
        return Err(Fault::Foreign);
    }
    std::io::copy(&mut inflated, &mut std::io::sink()).map_err(fault).map(drop)
}

/// Fields 1 to 15 of `perftools.profiles.Profile`, as number or as bytes.
fn is_tag(tag: u64) -> bool {
    (1..=15).contains(&(tag >> 3)) && matches!(tag & 7, 0 | 2)
}

/// Walks over the top fields of a message that was not compressed.
fn check_message(mut rest: &[u8]) -> Result<(), Fault> {
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        if !is_tag(tag) {
            return Err(Fault::Foreign);
        }
        let value = varint(&mut rest)?;
        if tag & 7 == 2 {
            let length = usize::try_from(value).map_err(|_| Fault::Foreign)?;
            rest = rest.get(length..).ok_or(Fault::Truncated)?;
        }
    }
    Ok(())
}

fn varint(rest: &mut &[u8]) -> Result<u64, Fault> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first().ok_or(Fault::Truncated)?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Fault::Foreign)
}

#[cfg(test)]
mod tests;
