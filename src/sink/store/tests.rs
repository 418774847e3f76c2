//! The store over real folders: what stays, what goes, and what a failing disk leaves.

use std::path::Path;

use tokio::sync::oneshot;

use super::*;

fn profile(bytes: usize, pinned: bool) -> NewProfile {
    new("heap", bytes, if pinned { Pin::Baseline } else { Pin::None })
}

fn new(kind: &'static str, bytes: usize, pin: Pin) -> NewProfile {
    NewProfile { kind, reason: "test".to_owned(), bytes: vec![7; bytes].into(), taken_at: 9.0, pin }
}

async fn store(dir: Option<&Path>, max_size: u64, max_files: usize, max_memory: u64) -> Store {
    let mut store = Store::new(Settings { dir: dir.map(Path::to_owned), max_size, max_files, max_memory });
    store.open().await;
    store
}

async fn has(store: &Store, ids: &[&String]) -> Vec<bool> {
    let mut has = Vec::new();
    for id in ids {
        has.push(store.read(id).await.is_some());
    }
    has
}

#[tokio::test]
async fn a_saved_profile_is_read_by_its_id_over_the_channel() {
    let dir = tempfile::tempdir().unwrap();
    let (send, requests) = mpsc::channel(4);
    let (saved, id) = oneshot::channel();
    let running = Store::new(Settings { dir: Some(dir.path().to_owned()), ..Settings::default() }).run(requests);
    let asking = async move {
        send.send(StoreRequest::Save { profile: profile(5, false), reply: saved }).await.unwrap();
        let id = id.await.unwrap().unwrap();
        assert!(dir.path().join(format!("{id}.heap.pb.gz")).exists());
        for (id, found) in [(id, true), ("../secret".to_owned(), false), ("0".repeat(16), false)] {
            let (reply, bytes) = oneshot::channel();
            send.send(StoreRequest::Read { id, reply }).await.unwrap();
            assert_eq!(bytes.await.unwrap().is_some(), found);
        }
    };
    tokio::join!(running, asking);
}

#[tokio::test]
async fn profiles_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let id = store(Some(dir.path()), 100, 5, 100).await.save(profile(9, true)).await.unwrap();
    assert_eq!(store(Some(dir.path()), 100, 5, 100).await.read(&id).await, Some(vec![7; 9].into()));
    let smaller = store(Some(dir.path()), 5, 5, 100).await;
    assert_eq!(smaller.read(&id).await, None, "a smaller limit holds from the start");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn the_oldest_that_is_not_pinned_goes_first_and_a_pin_gives_way_to_pins_only() {
    let dir = tempfile::tempdir().unwrap();
    for dir in [Some(dir.path()), None] {
        let mut store = store(dir, 30, 20, if dir.is_none() { 30 } else { 5 }).await;
        let a = store.save(new("heap", 10, Pin::Baseline)).await.unwrap();
        let b = store.save(new("heap", 10, Pin::None)).await.unwrap();
        let c = store.save(new("heap_gc", 10, Pin::Incident("i1".into()))).await.unwrap();
        let d = store.save(new("goroutine", 10, Pin::Incident("i1".into()))).await.unwrap();
        assert_eq!(has(&store, &[&a, &b, &c, &d]).await, [true, false, true, true]);
        let words = store.save(new("heap", 10, Pin::None)).await.unwrap_err();
        assert!(words.contains("must stay") || words.contains("larger than"), "{words}");
        assert_eq!(has(&store, &[&a, &c, &d]).await, [true, true, true], "a profile without a pin moves none");
        let e = store.save(new("heap_gc", 20, Pin::Incident("i2".into()))).await.unwrap();
        assert_eq!(has(&store, &[&a, &c, &d, &e]).await, [false, false, true, true], "a pin does, the oldest first");
    }
}

#[tokio::test]
async fn the_last_baseline_of_a_kind_and_the_last_incident_are_pinned() {
    let mut store = store(None, 1_000, 20, 1_000).await;
    for incident in ["i1", "i2"] {
        for _ in 0..3 {
            for kind in ["heap", "heap_gc", "goroutine"] {
                store.save(new(kind, 1, Pin::Baseline)).await.unwrap();
            }
            for kind in ["heap_gc", "goroutine"] {
                store.save(new(kind, 1, Pin::Incident(incident.into()))).await.unwrap();
            }
        }
    }
    let pins: Vec<&Pin> = store.kept.iter().map(|kept| &kept.pin).filter(|pin| **pin != Pin::None).collect();
    assert_eq!(pins.len(), 5, "{pins:?}");
    assert!(pins.contains(&&Pin::Incident("i2".into())) && !pins.contains(&&Pin::Incident("i1".into())));
}

#[tokio::test]
async fn what_is_forgotten_is_gone_from_list_and_folder() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(Some(dir.path()), 1_000, 20, 1_000).await;
    let (a, b) = (store.save(profile(1, true)).await.unwrap(), store.save(profile(2, false)).await.unwrap());
    let listed: Vec<(String, u64)> = store.list().into_iter().map(|it| (it.id, it.bytes)).collect();
    assert_eq!(listed, [(b.clone(), 2), (a.clone(), 1)], "newest first");
    assert!(store.forget(&a).await && !store.forget(&a).await && !store.forget("../x").await);
    assert_eq!((store.list().len(), std::fs::read_dir(dir.path()).unwrap().count()), (1, 1));
}

#[tokio::test]
async fn the_number_of_profiles_is_bounded() {
    let mut store = store(None, 1_000, 2, 1_000).await;
    let ids = [store.save(profile(1, false)).await.unwrap(), store.save(profile(1, false)).await.unwrap()];
    let last = store.save(profile(1, false)).await.unwrap();
    assert_eq!(has(&store, &[&ids[0], &ids[1], &last]).await, [false, true, true]);
}

#[tokio::test]
async fn a_disk_that_fails_leaves_memory_and_then_words() {
    let dir = tempfile::tempdir().unwrap();
    let inside = dir.path().join("profiles");
    let mut store = store(Some(&inside), 1_000, 5, 10).await;
    std::fs::remove_dir_all(&inside).unwrap();
    let id = store.save(profile(10, false)).await.unwrap();
    assert_eq!(store.read(&id).await, Some(vec![7; 10].into()));
    let words = store.save(profile(11, false)).await.unwrap_err();
    assert!(words.contains("the disk failed") && words.contains("profile.max_memory"), "{words}");
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_leaves_memory() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut store = store(Some(&file.path().join("profiles")), 1_000, 5, 10).await;
    assert!(store.save(profile(10, false)).await.is_ok());
}
