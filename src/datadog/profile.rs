//! Profiles as Datadog's profiling intake takes them: one multipart form with an event and the profiles it speaks of.
//!
//! The form is dd-trace-go's (`profiler/upload.go`): a part `event` that lists the attachments, then each attachment under its
//! canonical name, because the viewer finds them by that. Bodies go through untouched; the backend tells gzip by its first bytes.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use serde::Serialize;

use super::rules;
use super::stable::stable_hash;
use crate::pprof::language::Language;

/// Where an Agent takes the form and passes it on under its own key.
pub const AGENT_PROFILES: &str = "/profiling/v1/input";
/// Where the intake takes it, below `https://intake.profile.<site>`.
pub const INTAKE_PROFILES: &str = "/api/v2/profile";

/// What an upload may weigh: beyond 10 MiB libdatadog's own uploader gives up, and no larger one is documented.
pub const MAX_UPLOAD: usize = 8 << 20;

/// The views add profiles up by the minute, and expect one of a minute.
const PERIOD: Duration = Duration::from_secs(60);

/// The process that a profile was taken of.
#[derive(Clone, Copy, Debug)]
pub struct Process<'a> {
    pub service: &'a str,
    /// Left out in Agent mode, where the Agent adds its own.
    pub host: Option<&'a str>,
    /// `key:value`; those of the settings.
    pub tags: &'a [String],
    pub pid: i32,
    /// With the pid it is the identity of a process.
    pub incarnation: u64,
    pub language: Language,
}

/// Why and when.
#[derive(Clone, Copy, Debug)]
pub struct Occasion<'a> {
    /// Unix seconds of the last profile.
    pub taken_at: f64,
    /// The kind of the incident.
    pub trigger: &'a str,
    pub incident: &'a str,
    /// Uploads of this process before this one.
    pub sequence: u64,
}

impl Language {
    /// Family, runtime and language, as the tracers of each say them (dd-trace-go, dd-trace-js, libdatadog).
    fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Language::Go => ("go", "go", "go"),
            Language::Node => ("node", "nodejs", "javascript"),
            Language::Rust => ("native", "native", "rust"),
        }
    }
}

/// A request's body and its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileForm {
    pub content_type: String,
    pub body: Bytes,
}

#[derive(Serialize)]
struct EventJson<'a> {
    attachments: Vec<&'a str>,
    tags_profiler: String,
    start: String,
    end: String,
    family: &'static str,
    version: &'static str,
    info: InfoJson,
}

#[derive(Serialize)]
struct InfoJson {
    profiler: ProfilerJson,
}

#[derive(Serialize)]
struct ProfilerJson {
    activation: &'static str,
    ssi: SsiJson,
    settings: SettingsJson,
}

#[derive(Serialize)]
struct SsiJson {
    mechanism: &'static str,
}

#[derive(Serialize)]
struct SettingsJson {}

/// The form of the attachments (canonical name, bytes). `boundary` is to be unguessable, so that no profile can hold it.
pub fn profile_form(
    process: Process<'_>,
    occasion: Occasion<'_>,
    attachments: &[(&str, Bytes)],
    boundary: &str,
) -> ProfileForm {
    let end = UNIX_EPOCH + Duration::from_secs_f64(occasion.taken_at.max(PERIOD.as_secs_f64()));
    let profiler = ProfilerJson { activation: "manual", ssi: SsiJson { mechanism: "none" }, settings: SettingsJson {} };
    let event = EventJson {
        attachments: attachments.iter().map(|(name, _)| *name).collect(),
        tags_profiler: tags(process, occasion).join(","),
        start: humantime::format_rfc3339_nanos(end - PERIOD).to_string(),
        end: humantime::format_rfc3339_nanos(end).to_string(),
        family: process.language.words().0,
        version: "4",
        info: InfoJson { profiler },
    };
    let event = serde_json::to_vec(&event).expect("strings and lists of strings always serialise");
    let mut body = Vec::with_capacity(event.len() + attachments.iter().map(|it| it.1.len() + 256).sum::<usize>() + 512);
    part(&mut body, boundary, ("event", "event.json"), "application/json", &event);
    for (name, bytes) in attachments {
        part(&mut body, boundary, (name, name), "application/octet-stream", bytes);
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    ProfileForm { content_type: format!("multipart/form-data; boundary={boundary}"), body: body.into() }
}

fn part(body: &mut Vec<u8>, boundary: &str, (name, file): (&str, &str), kind: &str, bytes: &[u8]) {
    let head = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{file}\"\r\nContent-Type: {kind}\r\n\r\n"
    );
    body.extend_from_slice(head.as_bytes());
    body.extend_from_slice(bytes);
    body.extend_from_slice(b"\r\n");
}

fn tags(process: Process<'_>, occasion: Occasion<'_>) -> Vec<String> {
    let runtime_id = runtime_id(process.pid, process.incarnation, process.host.unwrap_or_default(), process.tags);
    let mut tags = vec![format!("service:{}", process.service)];
    tags.extend(process.host.map(|host| format!("host:{host}")));
    let (_, runtime, language) = process.language.words();
    tags.extend([format!("runtime:{runtime}"), format!("language:{language}"), "runtime_os:linux".to_owned()]);
    tags.push(format!("runtime-id:{runtime_id}"));
    tags.push(format!("process_id:{}", process.pid));
    tags.push(format!("profile_seq:{}", occasion.sequence));
    tags.push(format!("profiler_version:oomwatch-{}", env!("CARGO_PKG_VERSION")));
    tags.push(format!("oomwatch_trigger:{}", occasion.trigger));
    tags.push(format!("oomwatch_incident:{}", occasion.incident));
    let own = process.tags.iter().filter(|tag| !tag.starts_with("service:")).map(String::as_str);
    let all: Vec<String> = tags.iter().map(String::as_str).chain(own).map(plain).collect();
    rules::tags(all.iter().map(String::as_str)).0
}

/// The list is joined by commas, so no tag may hold one.
fn plain(tag: &str) -> String {
    tag.chars().map(|sign| if sign == ',' || sign.is_control() { '_' } else { sign }).collect()
}

/// One UUID for each start of a process, the same over restarts and builds of the sidecar: version 8, which is for makings of
/// one's own.
fn runtime_id(pid: i32, incarnation: u64, host: &str, tags: &[String]) -> String {
    let process = format!("{pid}\0{incarnation}\0{host}\0{}", tags.join("\0"));
    let half = |salt: u8| stable_hash(std::iter::once(salt).chain(process.bytes()));
    let bits = u128::from(half(1)) << 64 | u128::from(half(2));
    let bits = bits & !(0xf << 76) | (8 << 76);
    let bits = bits & !(0b11 << 62) | (0b10 << 62);
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(tags: &[String]) -> Process<'_> {
        Process { service: "receipts", host: Some("node-1"), tags, pid: 7, incarnation: 4_711, language: Language::Go }
    }

    const OCCASION: Occasion<'static> =
        Occasion { taken_at: 1_700_000_060.25, trigger: "client_leak", incident: "6553f10001", sequence: 3 };

    /// (head, body) of each part.
    fn parts(form: &ProfileForm) -> Vec<(String, Vec<u8>)> {
        let boundary = form.content_type.strip_prefix("multipart/form-data; boundary=").expect("a form");
        let mut parts = Vec::new();
        let mut rest = &form.body[..];
        let find = |text: &[u8], wanted: &[u8]| text.windows(wanted.len()).position(|it| it == wanted);
        let open = format!("--{boundary}\r\n");
        while let Some(after) = rest.strip_prefix(open.as_bytes()) {
            let head = find(after, b"\r\n\r\n").expect("a head ends");
            let end = find(after, format!("\r\n--{boundary}").as_bytes()).expect("a part ends");
            parts.push((String::from_utf8_lossy(&after[..head]).into_owned(), after[head + 4..end].to_vec()));
            rest = &after[end + 2..];
        }
        assert_eq!(rest, format!("--{boundary}--\r\n").as_bytes());
        parts
    }

    #[test]
    fn the_form_has_every_field_that_the_viewer_needs() {
        let own = ["team:a,b".to_owned(), "env:prod".to_owned(), "version:7".to_owned(), "pod_name:p-1".to_owned()];
        let (heap, goroutines) = (Bytes::from_static(b"\x1f\x8b\r\n--heap"), Bytes::from_static(b"\x1f\x8bg"));
        let attachments = [("heap.pprof", heap.clone()), ("goroutines.pprof", goroutines.clone())];
        let form = profile_form(process(&own), OCCASION, &attachments, "b0");
        let parts = parts(&form);
        let head = |name: &str, file: &str, kind: &str| {
            format!("Content-Disposition: form-data; name=\"{name}\"; filename=\"{file}\"\r\nContent-Type: {kind}")
        };
        assert_eq!(parts.len(), 3);
        assert_eq!(parts[0].0, head("event", "event.json", "application/json"));
        assert_eq!(parts[1], (head("heap.pprof", "heap.pprof", "application/octet-stream"), heap.to_vec()));
        let kind = "application/octet-stream";
        assert_eq!(parts[2], (head("goroutines.pprof", "goroutines.pprof", kind), goroutines.to_vec()));
        let event: serde_json::Value = serde_json::from_slice(&parts[0].1).expect("JSON");
        let tags = event["tags_profiler"].as_str().expect("text").to_owned();
        let expected = serde_json::json!({
            "version": "4", "family": "go", "start": "2023-11-14T22:13:20.250000000Z",
            "end": "2023-11-14T22:14:20.250000000Z", "attachments": ["heap.pprof", "goroutines.pprof"],
            "tags_profiler": tags,
            "info": {"profiler": {"activation": "manual", "ssi": {"mechanism": "none"}, "settings": {}}},
        });
        assert_eq!(event, expected);
        let id = runtime_id(7, 4_711, "node-1", &own);
        let version = env!("CARGO_PKG_VERSION");
        let words = format!(
            "service:receipts,host:node-1,runtime:go,language:go,runtime_os:linux,runtime-id:{id},process_id:7,profile_seq:3,\
             profiler_version:oomwatch-{version},oomwatch_trigger:client_leak,oomwatch_incident:6553f10001,team:a_b,env:prod,\
             version:7,pod_name:p-1"
        );
        assert_eq!(tags, words);
    }

    #[test]
    fn without_a_host_the_agent_adds_its_own() {
        let form = profile_form(Process { host: None, ..process(&[]) }, OCCASION, &[], "b0");
        assert!(!String::from_utf8_lossy(&form.body).contains("host:"));
    }

    #[test]
    fn the_runtime_id_is_a_uuid_of_the_process_start() {
        let id = runtime_id(7, 1, "h", &[]);
        assert_eq!(id, "6c73fba5-a53e-88ea-a639-2bb5accbb77b", "another build says the same");
        assert!(
            id != runtime_id(7, 2, "h", &[]) && id != runtime_id(8, 1, "h", &[]) && id != runtime_id(7, 1, "i", &[])
        );
        let bytes = id.as_bytes();
        assert_eq!((id.len(), bytes[8], bytes[13], bytes[14]), (36, b'-', b'-', b'8'));
        assert!(b"89ab".contains(&bytes[19]), "{id}");
    }

    #[test]
    fn each_language_has_the_words_of_its_own_tracer() {
        for (language, family, tag) in [
            (Language::Node, "node", "runtime:nodejs,language:javascript"),
            (Language::Rust, "native", "language:rust"),
        ] {
            let form = profile_form(Process { language, ..process(&[]) }, OCCASION, &[], "b0");
            let body = String::from_utf8_lossy(&form.body).into_owned();
            assert!(body.contains(&format!("\"family\":\"{family}\"")) && body.contains(tag), "{body}");
        }
    }

    #[test]
    fn any_time_makes_a_form() {
        for taken_at in [f64::NAN, -1.0, 0.0, 1e9] {
            profile_form(process(&[]), Occasion { taken_at, ..OCCASION }, &[], "b0");
        }
    }
}
