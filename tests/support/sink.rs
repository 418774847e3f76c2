//! The intake sink by itself with its two ends, points to feed it, and certificates for the other side.
#![allow(dead_code, missing_debug_implementations, reason = "each test crate uses its own part of the kit")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use oomwatch::aggregate::{Context, Form, Host, Kind, Point, Suffix, Window};
use oomwatch::pipeline::{Outgoing, wall_clock};
use oomwatch::secret::Secret;
use oomwatch::sink::intake::{Intake, Settings};
use oomwatch::snapshot::OutputPart;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

pub const SOON: Duration = Duration::from_secs(10);

/// A running sink and its two ends.
pub struct Rig {
    input: Option<mpsc::Sender<Outgoing>>,
    pub status: watch::Receiver<Arc<OutputPart>>,
    tasks: JoinSet<()>,
}

impl Rig {
    pub fn start(settings: Settings) -> Rig {
        let (input, output) = mpsc::channel(256);
        let (send, status) = watch::channel(Arc::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(Intake::new(settings).unwrap().run(output, send));
        Rig { input: Some(input), status, tasks }
    }

    pub async fn send(&self, outgoing: Outgoing) {
        self.input.as_ref().unwrap().send(outgoing).await.unwrap();
    }

    pub async fn until(&mut self, what: &str, mut condition: impl FnMut(&OutputPart) -> bool) {
        let held = timeout(SOON, self.status.wait_for(|part| condition(part))).await;
        assert!(held.is_ok(), "not in time: {what}");
        drop(held);
        self.check_identity();
    }

    fn check_identity(&self) {
        let part = self.status.borrow();
        assert_eq!(part.identities.get("I4"), Some(&0), "{part:?}");
    }

    /// Closes the input and waits for the end.
    pub async fn end(&mut self) -> Arc<OutputPart> {
        self.input = None;
        timeout(SOON, self.tasks.join_next()).await.expect("the sink ends").unwrap().unwrap();
        self.check_identity();
        self.status.borrow().clone()
    }
}

/// Settings with waits short enough for a test.
pub fn settings(url: &str) -> Settings {
    let mut settings = Settings::new(url, Secret::new("key"));
    settings.hostname = Some("host".to_owned());
    settings.policy.base = Duration::from_millis(20);
    settings.policy.longest = Duration::from_millis(200);
    settings.key_poll = Duration::from_millis(50);
    settings
}

pub fn now() -> i64 {
    wall_clock() as i64
}

pub fn context(name: &str) -> Arc<Context> {
    Arc::new(Context::new(Kind::Counter, name, Host::Default, "a:b", ""))
}

/// `n` counters named `c0`, `c1`, … of 3 each.
pub fn window(n: u64) -> Window {
    let points = (0..n)
        .map(|n| Point {
            context: context(&format!("c{n}")),
            suffix: Suffix::None,
            form: Form::Count,
            value: 3.0,
            timestamp: now(),
            interval_seconds: 10,
        })
        .collect();
    Window { points, ..Window::default() }
}

/// A certificate authority of its own.
pub struct Authority {
    issuer: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
    /// What `datadog.ca_file` wants.
    pub file: PathBuf,
}

impl Authority {
    pub fn new(dir: &Path) -> Authority {
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "an authority of the tests");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
        let file = dir.join("ca.pem");
        std::fs::write(&file, issuer.pem()).unwrap();
        Authority { issuer, file }
    }

    /// A server with a certificate for this name.
    pub fn server(&self, name: &str) -> rustls::ServerConfig {
        self.server_with(name, |_| {})
    }

    /// The same, with a change to the certificate before it is signed.
    pub fn server_with(&self, name: &str, change: impl FnOnce(&mut rcgen::CertificateParams)) -> rustls::ServerConfig {
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut params);
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        server(leaf.der().clone(), &key)
    }
}

/// A server whose certificate is signed by itself.
pub fn self_signed(name: &str) -> rustls::ServerConfig {
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
    server(leaf.der().clone(), &key)
}

fn server(leaf: rustls::pki_types::CertificateDer<'static>, key: &rcgen::KeyPair) -> rustls::ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    config.with_no_client_auth().with_single_cert(vec![leaf], key).unwrap()
}
