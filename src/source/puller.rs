//! Pulls profiles from the app's pprof endpoint, one at a time, and checks that what came is one.
//!
//! The address comes from the settings alone and stays in the pod unless a host is allowed by name; link-local and metadata
//! addresses never are. A pull is bounded in time and bytes (see [`Bounds`]) because the app is ill when we ask, and may be
//! anything. A gzip body is inflated as it comes and kept only as it came, so that a bomb ends after a few kilobytes of it; a
//! plain one is gzipped as it comes.

use std::io::{self, BufRead, BufReader, Read};
use std::net::IpAddr;

use hyper::StatusCode;
use tokio::sync::mpsc;
use tokio::time::Instant;

mod body;

use super::fetch::{self, Answer, Bounds, Keep, Origin};
use crate::pipeline::{Index, ProfileKind, PullFailed, PullReply, PullRequest, Pulled};
use crate::pprof;
use body::{Body, Text};

/// What a profile may inflate to; the reader's own cap is the same (`pprof`).
const MAX_INFLATED: u64 = 64 << 20;

/// What a text of all goroutines may have (below 2,000 of them it is one or two MiB), and what an index page.
const MAX_TEXT: (usize, usize) = (8 << 20, 1 << 20);

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
        match kind {
            ProfileKind::Index => Ok(Pulled::Index(index(&self.text(path, MAX_TEXT.1).await?.body.0))),
            ProfileKind::GoroutineDump => self.dump(path).await,
            _ => self.profile(path).await,
        }
    }

    async fn get<K: Keep>(&self, path: &str, bounds: Bounds, body: K) -> Result<Answer<K>, PullFailed> {
        accepted(fetch::get(&self.origin, path, bounds, body).await?, &self.origin, path)
    }

    async fn text(&self, path: &str, max: usize) -> Result<Answer<Text>, PullFailed> {
        let bounds = Bounds { bytes: self.bounds.bytes.min(max), ..self.bounds };
        self.get(path, bounds, Text::default()).await
    }

    async fn dump(&self, path: &str) -> Result<Pulled, PullFailed> {
        let answer = self.text(path, MAX_TEXT.0).await?;
        if pprof::dump::is_dump(&answer.body.0) {
            return Ok(Pulled::Dump(answer.body.0.into()));
        }
        Err(fetch::failed("not_a_profile", not_a_profile(&answer.content_type, &self.origin, path)))
    }

    async fn profile(&self, path: &str) -> Result<Pulled, PullFailed> {
        let Answer { body, content_type, .. } = self.get(path, self.bounds, Body::default()).await?;
        let checked = tokio::task::spawn_blocking(move || {
            let (bytes, came_plain) = body.finish()?;
            Ok((check(&bytes, came_plain), bytes))
        });
        let broken = |_| fetch::failed("not_a_profile", "the profile broke its reader".to_owned());
        let (checked, bytes) = checked.await.map_err(broken)??;
        let is_html = content_type.starts_with("text/html");
        match checked {
            Ok(()) if !is_html => Ok(Pulled::Profile(bytes)),
            Err(Fault::Truncated) if !is_html => {
                Err(fetch::failed("truncated", format!("the profile at {path} ends in the middle")))
            }
            _ => Err(fetch::failed("not_a_profile", not_a_profile(&content_type, &self.origin, path))),
        }
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn not_a_profile(content_type: &str, origin: &Origin, path: &str) -> String {
    let kind = if content_type.is_empty() { "something" } else { content_type };
    format!("{}{path} answers {kind} that is no profile: point profile.url at the app's /debug/pprof", origin.base)
}

/// Passes a 200 and turns every other answer into what to do about it.
fn accepted<K>(answer: Answer<K>, origin: &Origin, path: &str) -> Result<Answer<K>, PullFailed> {
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

/// A profile is a protobuf message, and gzipped by now. Inflates without keeping anything.
fn check(body: &[u8], came_plain: bool) -> Result<(), Fault> {
    if body.is_empty() {
        return Err(Fault::Truncated);
    }
    let inflated = flate2::read::MultiGzDecoder::new(body);
    if came_plain {
        return check_message(&mut BufReader::new(inflated));
    }
    let mut inflated = inflated.take(MAX_INFLATED);
    let mut head = [0; 1];
    inflated.read_exact(&mut head).map_err(|error| fault(&error))?;
    if !is_tag(u64::from(head[0])) {
        return Err(Fault::Foreign);
    }
    io::copy(&mut inflated, &mut io::sink()).map_err(|error| fault(&error)).map(drop)
}

fn fault(error: &io::Error) -> Fault {
    if error.kind() == io::ErrorKind::UnexpectedEof { Fault::Truncated } else { Fault::Foreign }
}

/// Fields 1 to 15 of `perftools.profiles.Profile`, as number or as bytes.
fn is_tag(tag: u64) -> bool {
    (1..=15).contains(&(tag >> 3)) && matches!(tag & 7, 0 | 2)
}

/// Walks over the top fields of a message that did not come compressed.
fn check_message(rest: &mut impl BufRead) -> Result<(), Fault> {
    while !rest.fill_buf().map_err(|error| fault(&error))?.is_empty() {
        let tag = varint(rest)?;
        if !is_tag(tag) {
            return Err(Fault::Foreign);
        }
        let value = varint(rest)?;
        if tag & 7 == 2 {
            let passed = io::copy(&mut rest.by_ref().take(value), &mut io::sink()).map_err(|error| fault(&error))?;
            if passed < value {
                return Err(Fault::Truncated);
            }
        }
    }
    Ok(())
}

fn varint(rest: &mut impl Read) -> Result<u64, Fault> {
    let (mut value, mut byte) = (0, [0]);
    for shift in (0..64).step_by(7) {
        rest.read_exact(&mut byte).map_err(|error| fault(&error))?;
        value |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] < 0x80 {
            return Ok(value);
        }
    }
    Err(Fault::Foreign)
}

#[cfg(test)]
mod tests;
