//! Gathers the profiles of a round for Datadog and hands them on when the round is over, in one piece: Datadog's viewer shows
//! heap and goroutines of one moment together.
//!
//! It never waits: uploads are the least important thing that leaves, and what finds the queue full is lost and counted. A
//! round that ends early, with the app, hands on what it has.

use bytes::Bytes;
use tokio::sync::mpsc;
use tracing::warn;

use super::ledger::Ledger;
use super::{ProfileKind, Target, WallClock};
use crate::datadog::MAX_UPLOAD;
use crate::pprof::language::Language;
use crate::telemetry;

/// The profiles of one round on their way to Datadog.
#[derive(Clone, Debug)]
pub struct Upload {
    pub target: Target,
    /// The app as events call it.
    pub app: String,
    /// Of everything that is sent: env, version, pod and the settings' own.
    pub tags: Vec<String>,
    /// Label of the incident's kind, and its id.
    pub trigger: &'static str,
    pub incident: String,
    /// Unix seconds of the last profile.
    pub taken_at: f64,
    /// Uploads of this target before this one.
    pub sequence: u64,
    pub language: Language,
    /// By the names that Datadog knows: one heap and two profiles of goroutines at most.
    pub profiles: Vec<(&'static str, Bytes)>,
}

/// What the investigation holds back until a round is over.
#[derive(Debug)]
pub struct Outbox {
    /// `None` when nothing is to be uploaded.
    uploads: Option<mpsc::Sender<Upload>>,
    /// At most three profiles, whose bytes the round holds anyway: 8 MiB.
    pending: Option<Upload>,
    sequence: u64,
}

impl Outbox {
    pub fn new(uploads: Option<mpsc::Sender<Upload>>) -> Outbox {
        Outbox { uploads, pending: None, sequence: 0 }
    }

    /// Another process: what was gathered of the last one goes, and the count begins anew.
    pub fn appeared(&mut self) {
        self.close();
        self.sequence = 0;
    }

    /// Takes a profile of the round under way; `about` is what the upload is called, without its profiles. A heap after a
    /// collection takes the place of the plain one, which stands in only when the app did not live that long.
    pub fn add(&mut self, kind: ProfileKind, bytes: Bytes, about: impl FnOnce() -> Option<Upload>) {
        let Some(name) = attachment(kind).filter(|_| self.uploads.is_some()) else { return };
        let Some(fresh) = about() else { return };
        let mut profiles = self.pending.take().map(|pending| pending.profiles).unwrap_or_default();
        profiles.retain(|(known, _)| *known != name);
        profiles.push((name, bytes));
        self.pending = Some(Upload { profiles, sequence: self.sequence, ..fresh });
    }

    /// The round is over: hands on what there is.
    pub fn close(&mut self) {
        let (Some(upload), Some(uploads)) = (self.pending.take(), &self.uploads) else { return };
        let bytes: usize = upload.profiles.iter().map(|(_, bytes)| bytes.len()).sum();
        if bytes > MAX_UPLOAD {
            warn!(bytes, "profiles not uploaded: together they are larger than {MAX_UPLOAD} bytes");
            return lost("too_large");
        }
        match uploads.try_send(upload) {
            Ok(()) => self.sequence += 1,
            Err(mpsc::error::TrySendError::Full(_)) => {
                warn!("profiles not uploaded: those of an earlier round still wait to be sent");
                lost("queue_full");
            }
            Err(mpsc::error::TrySendError::Closed(_)) => lost("shutdown"),
        }
    }
}

/// What an upload of this moment is called. Without an open incident there is no reason for one.
pub fn about(ledger: &Ledger, target: &Target, language: Language, clock: WallClock) -> Option<Upload> {
    let incident = ledger.open.as_ref()?;
    Some(Upload {
        target: target.clone(),
        app: ledger.app.clone(),
        tags: ledger.who.tags.clone(),
        trigger: incident.kind.label(),
        incident: incident.id.clone(),
        taken_at: clock(),
        sequence: 0,
        language,
        profiles: Vec::new(),
    })
}

fn lost(result: &'static str) {
    telemetry::count(&telemetry::PROFILE_UPLOADS, Some(result)).increment(1);
}

/// The name that Datadog's viewer looks for (dd-trace-go, `profiler/profile.go`).
fn attachment(kind: ProfileKind) -> Option<&'static str> {
    match kind {
        ProfileKind::Heap | ProfileKind::HeapAfterGc => Some("heap.pprof"),
        ProfileKind::Goroutine => Some("goroutines.pprof"),
        ProfileKind::GoroutineLeak => Some("goroutineleak.pprof"),
        // Arguments of functions stand in it.
        ProfileKind::GoroutineDump | ProfileKind::Index => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> Option<Upload> {
        let target = Target { pid: 7, name: "worker".into(), rule: String::new(), incarnation: 1 };
        let (app, incident) = ("worker".to_owned(), "i1".to_owned());
        Some(Upload {
            target,
            app,
            tags: Vec::new(),
            trigger: "client_leak",
            incident,
            taken_at: 9.0,
            sequence: 0,
            language: Language::Go,
            profiles: Vec::new(),
        })
    }

    fn names(upload: &Upload) -> Vec<(&'static str, &[u8])> {
        upload.profiles.iter().map(|(name, bytes)| (*name, &bytes[..])).collect()
    }

    #[test]
    fn a_round_goes_out_in_one_piece_with_the_heap_after_the_collection() {
        let (send, mut sent) = mpsc::channel(2);
        let mut outbox = Outbox::new(Some(send));
        outbox.add(ProfileKind::Heap, Bytes::from_static(b"plain"), about);
        outbox.add(ProfileKind::HeapAfterGc, Bytes::from_static(b"gc"), about);
        outbox.add(ProfileKind::Goroutine, Bytes::from_static(b"g"), about);
        assert!(sent.try_recv().is_err());
        outbox.close();
        outbox.close();
        let upload = sent.try_recv().expect("one upload");
        assert_eq!(names(&upload), [("heap.pprof", &b"gc"[..]), ("goroutines.pprof", b"g")]);
        assert!(sent.try_recv().is_err());
    }

    #[test]
    fn a_round_that_the_kill_cut_short_gives_its_plain_heap() {
        let (send, mut sent) = mpsc::channel(2);
        let mut outbox = Outbox::new(Some(send));
        for sequence in 0..2 {
            outbox.add(ProfileKind::Heap, Bytes::from_static(b"plain"), about);
            outbox.close();
            let upload = sent.try_recv().expect("an upload");
            assert_eq!((names(&upload), upload.sequence), (vec![("heap.pprof", &b"plain"[..])], sequence));
        }
        outbox.add(ProfileKind::Heap, Bytes::from_static(b"last"), about);
        outbox.appeared();
        assert_eq!((sent.try_recv().expect("the last of the old").sequence, outbox.sequence), (2, 0));
    }

    #[test]
    fn what_is_too_large_or_finds_no_room_is_left_and_nothing_waits() {
        let (send, mut sent) = mpsc::channel(1);
        let mut outbox = Outbox::new(Some(send));
        outbox.add(ProfileKind::Heap, vec![0; MAX_UPLOAD + 1].into(), about);
        outbox.close();
        assert!(sent.try_recv().is_err());
        for _ in 0..2 {
            outbox.add(ProfileKind::Heap, Bytes::from_static(b"x"), about);
            outbox.close();
        }
        assert!(sent.try_recv().is_ok() && sent.try_recv().is_err());
        let mut off = Outbox::new(None);
        off.add(ProfileKind::Heap, Bytes::from_static(b"x"), || panic!("nobody asks when it is off"));
        off.close();
    }
}
