//! Uploads the profiles of incidents: to an Agent's trace port or its Unix socket, or straight to the profiling intake.
//!
//! One upload is under way at a time, tried three times and then given up: a profile is also on disk, and the next
//! round brings another. Each upload ends under one result of `oomwatch.profile.uploads`. The API key goes to the intake alone;
//! an Agent has its own.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, Response, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::complaints::Complaints;
use super::connect::{Connector, Proxy, connector};
use super::key::Key;
use super::outcome::chain;
use super::random;
use super::tunnel::Tunnel;
use crate::datadog::{AGENT_PROFILES, INTAKE_PROFILES, Occasion, Process, ProfileForm, profile_form};
use crate::pipeline::{StopTime, Upload};
use crate::secret::Secret;
use crate::telemetry;

/// dd-trace-go makes two and tries again a minute later with new profiles; ours are few.
const ATTEMPTS: u32 = 3;
/// Before the second attempt, and four times as long before the third; the upper half of each is random.
const PAUSE: Duration = Duration::from_secs(2);
/// One attempt, as in dd-trace-go.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The file of the key is waited for so long.
const KEY_TIME: Duration = Duration::from_secs(1);
/// How often a wait looks whether the sidecar is told to stop.
const LOOK: Duration = Duration::from_millis(100);
const US: &str = concat!("oomwatch/", env!("CARGO_PKG_VERSION"));

/// Where uploads go.
#[derive(Clone, Debug)]
pub enum To {
    /// `http://host:8126`; no slash at its end.
    Agent(String),
    AgentSocket(PathBuf),
    Intake {
        base_url: String,
        api_key: Secret,
        api_key_file: Option<PathBuf>,
        ca_file: Option<PathBuf>,
        proxy: Proxy,
    },
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub to: To,
    pub hostname: Option<String>,
    /// How long after the stop an upload may still be under way.
    pub drain: Duration,
    pub stopped: StopTime,
}

/// The task that uploads.
#[derive(Debug)]
pub struct Uploader {
    settings: Settings,
    way: Way,
    complaints: Complaints,
    /// What a fault leaves behind is found here. Set when an upload is taken from the queue, empty once it has its result.
    under_way: Option<Upload>,
    /// [`PAUSE`], but for tests.
    pause: Duration,
}

enum Way {
    Agent(Uri),
    AgentSocket(PathBuf),
    Direct(Uri, KeyInUse, Client<HttpsConnector<HttpConnector>, Full<Bytes>>),
    Tunnel(Uri, KeyInUse, Client<HttpsConnector<Tunnel>, Full<Bytes>>),
}

impl std::fmt::Debug for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Way::Agent(uri) | Way::Direct(uri, ..) | Way::Tunnel(uri, ..) => write!(f, "{uri}"),
            Way::AgentSocket(path) => write!(f, "{}", path.display()),
        }
    }
}

/// How an attempt ended that did not deliver.
#[derive(Debug, PartialEq, Eq)]
struct Failed {
    result: &'static str,
    words: String,
}

impl Uploader {
    /// # Errors
    /// A sentence about an address, a proxy or a CA file that cannot be used.
    pub fn new(settings: Settings) -> Result<Uploader, String> {
        let way = match &settings.to {
            To::Agent(base) => Way::Agent(address(base, AGENT_PROFILES)?),
            To::AgentSocket(path) => Way::AgentSocket(path.clone()),
            To::Intake { base_url, api_key, api_key_file, ca_file, proxy } => {
                let uri = address(base_url, INTAKE_PROFILES)?;
                let key = KeyInUse::new(Key::new(api_key.clone(), api_key_file.clone()));
                let build = || Client::builder(TokioExecutor::new());
                match connector(&uri, ca_file.as_deref(), proxy)? {
                    Connector::Direct(connector) => Way::Direct(uri, key, build().build(connector)),
                    Connector::Tunnel(connector, _) => Way::Tunnel(uri, key, build().build(connector)),
                }
            }
        };
        Ok(Uploader { settings, way, complaints: Complaints::default(), under_way: None, pause: PAUSE })
    }

    /// Uploads until nobody can send any more, and at the stop no longer than the drain lasts. May be run again after a fault:
    /// the upload that was under way is given up.
    pub async fn run(&mut self, uploads: &mut mpsc::Receiver<Upload>) {
        if let Some(left) = self.under_way.take() {
            self.tell(&left, Err(broken()));
        }
        while let Some(upload) = uploads.recv().await {
            self.under_way = Some(upload.clone());
            let (stopped, drain) = (self.settings.stopped.clone(), self.settings.drain);
            let outcome = tokio::select! {
                outcome = self.deliver(&upload) => outcome,
                () = over(&stopped, drain) => Err(shutdown()),
            };
            self.under_way = None;
            self.tell(&upload, outcome);
        }
    }

    async fn deliver(&mut self, upload: &Upload) -> Result<(), Failed> {
        let form = self.form(upload);
        let mut pause = self.pause;
        for _ in 1..ATTEMPTS {
            match self.attempt(&form).await {
                Err(failed) if failed.result == "unreachable" => {}
                settled => return settled,
            }
            if wait(&self.settings.stopped, pause.mul_f64(0.5 + 0.5 * random::unit())).await.is_break() {
                return Err(shutdown());
            }
            pause *= 4;
        }
        self.attempt(&form).await
    }

    fn form(&self, upload: &Upload) -> ProfileForm {
        let process = Process {
            service: &upload.app,
            host: self.settings.hostname.as_deref(),
            tags: &upload.tags,
            pid: upload.target.pid,
            incarnation: upload.target.incarnation,
            language: upload.language,
        };
        let occasion = Occasion {
            taken_at: upload.taken_at,
            trigger: upload.trigger,
            incident: &upload.incident,
            sequence: upload.sequence,
        };
        profile_form(process, occasion, &upload.profiles, &format!("oomwatch-{}{}", random::hex(), random::hex()))
    }

    async fn attempt(&mut self, form: &ProfileForm) -> Result<(), Failed> {
        match timeout(TIMEOUT, self.post(form)).await {
            Ok(Ok(response)) => judge(&response),
            Ok(Err(words)) => Err(unreachable(&words)),
            Err(_) => Err(unreachable(&format!("no answer within {} s", TIMEOUT.as_secs()))),
        }
    }

    async fn post(&mut self, form: &ProfileForm) -> Result<Response<Incoming>, String> {
        match &mut self.way {
            Way::Agent(uri) => {
                let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
                let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await;
                let host = uri.authority().map(|it| it.as_str()).unwrap_or_default();
                once(stream, request(uri.path(), form)?, host).await
            }
            Way::AgentSocket(path) => {
                once(UnixStream::connect(path).await, request(AGENT_PROFILES, form)?, "localhost").await
            }
            Way::Direct(uri, key, client) => {
                let request = keyed(uri, key, form).await?;
                client.request(request).await.map_err(|error| chain(&error))
            }
            Way::Tunnel(uri, key, client) => {
                let request = keyed(uri, key, form).await?;
                client.request(request).await.map_err(|error| chain(&error))
            }
        }
    }

    fn tell(&mut self, upload: &Upload, outcome: Result<(), Failed>) {
        let result = outcome.as_ref().err().map_or("sent", |failed| failed.result);
        telemetry::count(&telemetry::PROFILE_UPLOADS, Some(result)).increment(1);
        match outcome {
            Ok(()) => {
                info!(incident = %upload.incident, profiles = upload.profiles.len(), "profiles uploaded to Datadog");
            }
            Err(Failed { words, .. }) if self.complaints.add(result, 1, Instant::now()).is_some() => {
                warn!(incident = %upload.incident, result, "profiles not uploaded: {words}");
            }
            Err(_) => {}
        }
    }
}

fn address(base: &str, path: &str) -> Result<Uri, String> {
    format!("{}{path}", base.trim_end_matches('/')).parse().map_err(|error| format!("{base}: {error}"))
}

fn request(uri: &str, form: &ProfileForm) -> Result<Request<Full<Bytes>>, String> {
    Request::post(uri)
        .header(CONTENT_TYPE, &form.content_type)
        .header(USER_AGENT, US)
        .header("dd-evp-origin", "oomwatch")
        .header("dd-evp-origin-version", env!("CARGO_PKG_VERSION"))
        .body(Full::new(form.body.clone()))
        .map_err(|error| error.to_string())
}

/// The key, whose file may hold another by now.
struct KeyInUse {
    key: Key,
    /// The file being read, once at most: its volume may hang.
    reading: JoinSet<Option<Secret>>,
}

impl KeyInUse {
    fn new(key: Key) -> KeyInUse {
        KeyInUse { key, reading: JoinSet::new() }
    }

    /// Looks into the file, and goes on with the key in hand when that takes long.
    async fn refresh(&mut self) {
        if self.reading.is_empty()
            && let Some(read) = self.key.reader()
        {
            self.reading.spawn_blocking(read);
        }
        if let Ok(Some(read)) = timeout(KEY_TIME, self.reading.join_next()).await {
            self.key.take(read.ok().flatten());
        }
    }
}

async fn keyed(uri: &Uri, key: &mut KeyInUse, form: &ProfileForm) -> Result<Request<Full<Bytes>>, String> {
    key.refresh().await;
    let mut request = request(&uri.to_string(), form)?;
    request.headers_mut().insert("dd-api-key", key.key.header().ok_or("there is no API key")?);
    Ok(request)
}

/// One exchange over a connection of its own, which ends with it: uploads are minutes apart.
async fn once<S>(
    stream: std::io::Result<S>,
    mut request: Request<Full<Bytes>>,
    host: &str,
) -> Result<Response<Incoming>, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let words = |error: &dyn std::fmt::Display| error.to_string();
    request.headers_mut().insert(HOST, HeaderValue::from_str(host).map_err(|error| words(&error))?);
    let io = TokioIo::new(stream.map_err(|error| words(&error))?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(|error| words(&error))?;
    let response = sender.send_request(request);
    tokio::pin!(response, connection);
    tokio::select! {
        response = &mut response => response.map_err(|error| chain(&error)),
        // The connection may end with the answer in hand.
        _ = &mut connection => response.await.map_err(|error| chain(&error)),
    }
}

/// The status tells all there is; the body is left unread.
fn judge(response: &Response<Incoming>) -> Result<(), Failed> {
    let html = response.headers().get(CONTENT_TYPE).is_some_and(|it| it.as_bytes().starts_with(b"text/html"));
    let status = response.status().as_u16();
    let refused = |words: &str| Err(Failed { result: "refused", words: format!("status {status}: {words}") });
    match status {
        200..=299 if !html => Ok(()),
        200..=299 => refused("a page of HTML, so that was not Datadog; look for a proxy in between"),
        300..=399 => refused("redirects are not followed; check datadog.agent.trace or datadog.profile_url"),
        401 | 403 => refused("the API key was refused; check it, and that it belongs to datadog.site"),
        404 => refused("no profiles are taken there; check the address, and that the Agent is 7.20 or newer"),
        408 | 429 | 500..=599 => Err(unreachable(&format!("status {status}"))),
        _ => refused("the profiles were not taken"),
    }
}

fn unreachable(words: &str) -> Failed {
    Failed {
        result: "unreachable",
        words: format!("{words}; check datadog.agent.trace, datadog.profile_url and egress rules"),
    }
}

fn shutdown() -> Failed {
    Failed { result: "shutdown", words: "the sidecar was told to stop".to_owned() }
}

fn broken() -> Failed {
    Failed { result: "broken", words: "the task that uploads had a fault and was begun again".to_owned() }
}

/// Ends when the drain does.
async fn over(stopped: &StopTime, drain: Duration) {
    while stopped.get().is_none_or(|since| since.elapsed() < drain) {
        sleep(LOOK).await;
    }
}

/// Waits, unless the sidecar is told to stop: then there is no time for another attempt.
async fn wait(stopped: &StopTime, pause: Duration) -> std::ops::ControlFlow<()> {
    let until = Instant::now() + pause;
    while Instant::now() < until {
        if stopped.get().is_some() {
            return std::ops::ControlFlow::Break(());
        }
        sleep(LOOK.min(until.saturating_duration_since(Instant::now()))).await;
    }
    std::ops::ControlFlow::Continue(())
}

#[cfg(test)]
mod tests;
