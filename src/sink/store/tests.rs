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

/// Saved, and found to be a profile, which was compared with `base`.
async fn evidence(store: &mut Store, kind: &'static str, incident: &str, base: Option<&str>) -> String {
    let id = store.save(new(kind, 10, Pin::Incident(incident.to_owned()))).await.unwrap();
    store.settle(&id, true, base).await;
    id
}

async fn baseline(store: &mut Store, kind: &'static str) -> String {
    let id = store.save(new(kind, 10, Pin::Baseline)).await.unwrap();
    store.settle(&id, true, None).await;
    id
}

fn pinned(store: &Store) -> Vec<&str> {
    store.kept.iter().filter(|kept| kept.pins.any()).map(|kept| kept.id.as_str()).collect()
}

/// The profiles of a folder.
fn files(dir: &Path) -> usize {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".pb.gz")).count()
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
    assert_eq!(files(dir.path()), 0);
}

/// A sidecar that starts anew under a full quota: what the last incident needs is the oldest there is.
#[tokio::test]
async fn pins_and_reasons_outlive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut before = store(Some(dir.path()), 1_000, 8, 100).await;
    let old = baseline(&mut before, "heap_gc").await;
    let base = baseline(&mut before, "heap_gc").await;
    let plain = evidence(&mut before, "heap", "i1", Some(&base)).await;
    let gc = evidence(&mut before, "heap_gc", "i1", Some(&base)).await;
    let goroutines = evidence(&mut before, "goroutine", "i1", Some(&base)).await;
    let newer = baseline(&mut before, "heap_gc").await;
    let listed = before.list();
    drop(before);
    let mut after = store(Some(dir.path()), 1_000, 8, 100).await;
    assert_eq!(after.list(), listed, "reasons and times are those of before");
    for _ in 0..20 {
        after.save(new("heap", 10, Pin::None)).await.unwrap();
    }
    assert_eq!(
        has(&after, &[&old, &base, &plain, &gc, &goroutines, &newer]).await,
        [false, true, false, true, true, true]
    );
    assert_eq!(files(dir.path()), 8);
}

#[tokio::test]
async fn a_plain_heap_stays_until_a_readable_one_after_a_collection_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut store_ = store(Some(dir.path()), 1_000, 3, 100).await;
    let plain = evidence(&mut store_, "heap", "i1", None).await;
    for _ in 0..5 {
        store_.save(new("heap", 10, Pin::None)).await.unwrap();
    }
    assert!(store_.read(&plain).await.is_some(), "the kill came first: it is all there is");
    drop(store_);
    let mut store_ = store(Some(dir.path()), 1_000, 3, 100).await;
    let broken = store_.save(new("heap_gc", 10, Pin::Incident("i1".into()))).await.unwrap();
    assert_eq!(pinned(&store_), [&plain, &broken], "not read yet: both stay");
    store_.settle(&broken, false, None).await;
    assert_eq!(pinned(&store_), [&plain]);
    let gc = evidence(&mut store_, "heap_gc", "i1", None).await;
    assert_eq!(pinned(&store_), [&gc]);
    let second = evidence(&mut store_, "heap", "i1", None).await;
    assert_eq!(pinned(&store_), [&gc, &second], "the next round has begun");
}

#[tokio::test]
async fn an_answer_that_is_no_profile_takes_no_pin() {
    let dir = tempfile::tempdir().unwrap();
    let mut store_ = store(Some(dir.path()), 1_000, 9, 100).await;
    let well = baseline(&mut store_, "heap_gc").await;
    let gc = evidence(&mut store_, "heap_gc", "i1", None).await;
    for (kind, pin) in
        [("heap_gc", Pin::Baseline), ("heap_gc", Pin::Incident("i1".into())), ("heap", Pin::Incident("i2".into()))]
    {
        let broken = store_.save(new(kind, 10, pin)).await.unwrap();
        assert_eq!(pinned(&store_), [&well, &gc, &broken]);
        // The sidecar ends before it was read.
        store_ = store(Some(dir.path()), 1_000, 9, 100).await;
        assert_eq!(pinned(&store_), [&well, &gc, &broken]);
        store_.settle(&broken, false, None).await;
        assert_eq!(pinned(&store_), [&well, &gc]);
    }
}

/// What nobody came to read is let go as soon as something newer can be read, and never piles up.
#[tokio::test]
async fn unread_profiles_do_not_pile_up() {
    let mut store = store(None, 1_000, 20, 1_000).await;
    for incident in ["i1", "i2", "i3", "i4"] {
        for kind in ["heap", "heap_gc", "goroutine"] {
            store.save(new(kind, 10, Pin::Incident(incident.into()))).await.unwrap();
        }
    }
    assert_eq!(pinned(&store).len(), 3, "those of the last incident");
    let gc = evidence(&mut store, "heap_gc", "i5", None).await;
    assert_eq!(pinned(&store), [&gc]);
}

#[tokio::test]
async fn a_lost_or_damaged_index_loses_pins_and_reasons_and_no_profile() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join(index::NAME);
    let mut before = store(Some(dir.path()), 1_000, 9, 100).await;
    let ids = [baseline(&mut before, "heap_gc").await, evidence(&mut before, "heap", "i1", None).await];
    let whole = std::fs::read(&index).unwrap();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&index).unwrap().permissions()) & 0o777,
        0o600
    );
    let mut damaged = vec![Vec::new(), b"[]".to_vec(), vec![0; 3 << 20]];
    damaged.extend((0..whole.len()).step_by(7).map(|at| whole[..at].to_vec()));
    damaged.extend((0..whole.len()).step_by(5).map(|at| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    }));
    for bytes in damaged {
        std::fs::write(&index, &bytes).unwrap();
        let after = store(Some(dir.path()), 1_000, 9, 100).await;
        assert_eq!(has(&after, &[&ids[0], &ids[1]]).await, [true, true]);
        assert!(pinned(&after).is_empty() && after.list().iter().all(|it| it.reason.is_empty()));
    }
    std::fs::write(&index, &whole).unwrap();
    assert_eq!(pinned(&store(Some(dir.path()), 1_000, 9, 100).await), [&ids[0], &ids[1]]);
}

#[tokio::test]
async fn a_torn_profile_is_not_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let mut before = store(Some(dir.path()), 1_000, 9, 100).await;
    let id = baseline(&mut before, "heap").await;
    let file = dir.path().join(format!("{id}.heap.pb.gz"));
    std::fs::write(&file, [7; 9]).unwrap();
    assert_eq!(before.read(&id).await, None, "torn while we run");
    let after = store(Some(dir.path()), 1_000, 9, 100).await;
    assert!(after.list().is_empty() && !file.exists());
}

/// The kill may come between any two steps: what is there then is what the next start finds.
#[tokio::test]
async fn a_step_that_fails_leaves_whole_files_only() {
    use crate::sink::spool::testing::{CREATE, Faults, RENAME, SYNC, WRITE, faulty};
    let dir = tempfile::tempdir().unwrap();
    let id = baseline(&mut store(Some(dir.path()), 1_000, 9, 100).await, "heap_gc").await;
    let faults = std::sync::Arc::new(Faults::default());
    let mut folder = faulty(dir.path(), &faults)().unwrap();
    for step in [CREATE, WRITE, SYNC, RENAME] {
        faults.set(step, nix::errno::Errno::EIO);
        assert!(store_dir::write(&mut *folder, &"b".repeat(16), "heap", b"profile").is_err());
        assert!(index::write(&mut *folder, b"other").is_err());
        faults.heal();
        let after = store(Some(dir.path()), 1_000, 9, 100).await;
        assert_eq!((pinned(&after), after.list().len()), (vec![id.as_str()], 1));
    }
}

#[tokio::test]
async fn the_oldest_that_is_not_pinned_goes_first_and_a_pin_gives_way_to_pins_only() {
    let dir = tempfile::tempdir().unwrap();
    for dir in [Some(dir.path()), None] {
        let mut store = store(dir, 30, 20, if dir.is_none() { 30 } else { 5 }).await;
        let a = baseline(&mut store, "heap").await;
        let b = store.save(new("heap", 10, Pin::None)).await.unwrap();
        let c = evidence(&mut store, "heap_gc", "i1", None).await;
        let d = evidence(&mut store, "goroutine", "i1", None).await;
        assert_eq!(has(&store, &[&a, &b, &c, &d]).await, [true, false, true, true]);
        let words = store.save(new("heap", 10, Pin::None)).await.unwrap_err();
        assert!(words.contains("must stay") || words.contains("larger than"), "{words}");
        assert_eq!(has(&store, &[&a, &c, &d]).await, [true, true, true], "a profile without a pin moves none");
        let e = store.save(new("heap_gc", 20, Pin::Incident("i2".into()))).await.unwrap();
        assert_eq!(has(&store, &[&a, &c, &d, &e]).await, [false, false, true, true], "a pin does, the oldest first");
    }
}

#[tokio::test]
async fn the_last_baseline_of_a_kind_the_last_incident_and_its_base_are_pinned() {
    let mut store = store(None, 1_000, 20, 1_000).await;
    let mut first = String::new();
    for incident in ["i1", "i2"] {
        for round in 0..3 {
            for kind in ["heap", "heap_gc", "goroutine"] {
                let id = baseline(&mut store, kind).await;
                if (incident, round, kind) == ("i2", 0, "heap_gc") {
                    first = id;
                }
            }
            for kind in ["heap", "heap_gc", "goroutine"] {
                evidence(&mut store, kind, incident, Some(&first)).await;
            }
        }
    }
    assert_eq!(pinned(&store).len(), 6, "{:?}", store.kept);
    assert!(pinned(&store).contains(&first.as_str()), "the older one that it was compared with");
    let of = |incident: &str| {
        store.kept.iter().filter(|it| it.pins.incident.as_ref().is_some_and(|it| it.0 == incident)).count()
    };
    assert_eq!((of("i1"), of("i2")), (0, 3));
}

#[tokio::test]
async fn what_is_forgotten_is_gone_from_list_and_folder() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(Some(dir.path()), 1_000, 20, 1_000).await;
    let (a, b) = (store.save(profile(1, true)).await.unwrap(), store.save(profile(2, false)).await.unwrap());
    let listed: Vec<(String, u64)> = store.list().into_iter().map(|it| (it.id, it.bytes)).collect();
    assert_eq!(listed, [(b.clone(), 2), (a.clone(), 1)], "newest first");
    assert!(store.forget(&a).await && !store.forget(&a).await && !store.forget("../x").await);
    assert_eq!((store.list().len(), files(dir.path())), (1, 1));
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
