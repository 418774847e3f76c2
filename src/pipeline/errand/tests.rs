//! One errand beside a store that writes down what it is told.

use super::super::baselines::Baseline;
use super::*;
use crate::pprof::testing::{encode, goroutines, heap};

const MIB: i64 = 1 << 20;
const STACK: &[&str] = &["main.grow /app/main.go 7"];

/// What the store heard: saved with which pin, settled how.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    saved: Vec<(&'static str, Pin)>,
    settled: Vec<(bool, Option<String>)>,
}

async fn storekeeper(mut requests: mpsc::Receiver<StoreRequest>) -> Heard {
    let mut heard = Heard::default();
    while let Some(request) = requests.recv().await {
        match request {
            StoreRequest::Save { profile, reply } => {
                heard.saved.push((profile.kind, profile.pin));
                let _ = reply.send(Ok("00000000000000aa".to_owned()));
            }
            StoreRequest::Settle { readable, base, .. } => heard.settled.push((readable, base)),
            StoreRequest::Read { .. } | StoreRequest::Forget { .. } | StoreRequest::List { .. } => panic!("not asked"),
        }
    }
    heard
}

/// How the errand ended when the app answers so, beside a healthy heap of an earlier time.
async fn ran(kind: ProfileKind, purpose: Purpose, incident: Option<&str>, bytes: bytes::Bytes) -> (Done, Heard) {
    let ((pulls, mut pulls_in), (store, store_in)) = (mpsc::channel::<PullRequest>(1), mpsc::channel(4));
    let mut baselines = Baselines::default();
    let kept =
        KeptProfile { id: "00000000000000bb".into(), kind: "heap", reason: "baseline".into(), taken_at: 0.0, bytes: 1 };
    let heap = encode(&heap(&[(STACK, MIB)]));
    baselines.healthy(Baseline::new(Duration::ZERO, heap, Some(kept), &Figures::default()));
    let errand = Errand {
        step: Step { kind, purpose },
        reason: "memory_growth".to_owned(),
        incident: incident.map(str::to_owned),
        pulls,
        store,
        clock: || 1_000.0,
        at: Duration::from_secs(60),
        baselines,
        round: Round::default(),
        figures: Figures { rss_bytes: 100 << 20, ..Figures::default() },
        reading: ReadingPlace::default(),
    };
    let app = async move {
        let PullRequest { kind, reply } = pulls_in.recv().await.expect("a pull");
        let _ = reply.send(PullReply { kind, took: Duration::ZERO, outcome: Ok(Pulled::Profile(bytes)) });
    };
    let (done, heard, ()) = tokio::join!(errand.run(), storekeeper(store_in), app);
    (done, heard)
}

#[tokio::test]
async fn evidence_is_settled_once_it_is_read_with_what_it_was_compared_with() {
    for kind in [ProfileKind::Heap, ProfileKind::HeapAfterGc] {
        let (done, heard) = ran(kind, Purpose::Evidence, Some("i1"), encode(&heap(&[(STACK, 90 * MIB)]))).await;
        assert!(done.kept.is_some() && done.naming.is_some_and(|it| it.is_ok()));
        let saved = vec![(kind.label(), Pin::Incident("i1".into()))];
        assert_eq!(heard, Heard { saved, settled: vec![(true, Some("00000000000000bb".into()))] });
    }
}

#[tokio::test]
async fn a_heap_that_cannot_be_read_is_settled_as_such_and_no_evidence() {
    for purpose in [Purpose::Evidence, Purpose::Baseline] {
        let (done, heard) = ran(ProfileKind::HeapAfterGc, purpose, Some("i1"), vec![0x0a; 300].into()).await;
        assert!(done.kept.is_none() && matches!(done.outcome, Err(PullFailed { reason: "not_a_profile", .. })));
        assert_eq!((heard.saved.len(), heard.settled), (1, vec![(false, None)]));
    }
}

#[tokio::test]
async fn goroutines_that_cannot_be_read_are_settled_as_such() {
    let good = encode(&goroutines(&[(STACK, 9)]));
    for (bytes, readable) in [(good, true), (vec![0x0a; 300].into(), false)] {
        let (done, heard) = ran(ProfileKind::Goroutine, Purpose::Evidence, Some("i1"), bytes).await;
        assert!(done.outcome.is_ok());
        assert_eq!(heard.settled, [(readable, None)]);
    }
}

#[tokio::test]
async fn what_was_asked_for_by_hand_is_not_pinned() {
    let (_, heard) = ran(ProfileKind::Heap, Purpose::Evidence, None, encode(&heap(&[(STACK, MIB)]))).await;
    assert_eq!(heard, Heard { saved: vec![("heap", Pin::None)], settled: Vec::new() });
}

#[test]
fn a_round_holds_eight_mebibytes_and_a_heap_gives_way_to_the_next() {
    let profile = |mib: usize| bytes::Bytes::from(vec![0; mib << 20]);
    let mut round = Round::default();
    let mut take = |kind, mib| round.take(kind, Duration::ZERO, profile(mib));
    assert!(take(ProfileKind::Heap, 8) && take(ProfileKind::HeapAfterGc, 6));
    assert!(!take(ProfileKind::Goroutine, 3) && take(ProfileKind::Goroutine, 2));
    assert!(!take(ProfileKind::GoroutineLeak, 1), "it is full");
    assert!(take(ProfileKind::Goroutine, 1) && take(ProfileKind::GoroutineLeak, 1));
    assert!(round.collected && round.goroutines.is_some_and(|it| it.len() == 1 << 20));
}
