//! The line: who goes first, who goes overboard, and that the sums are what is in it.

use proptest::prelude::*;

use super::*;

fn item(sequence: u64, bytes: usize, urgent: bool, endpoint: Endpoint) -> Item {
    let payload = Payload { endpoint, body: vec![0; bytes].into(), points: 2, created_at: 0, urgent };
    Item::new(sequence, payload, sequence, Instant::now())
}

fn series(sequence: u64) -> Item {
    item(sequence, 10, false, Endpoint::Series)
}

/// Takes it in without a disk: what had to go for it.
fn push(queue: &mut Queue, item: Item, under_way: u64) -> Vec<Item> {
    let mut gone = queue.push(item);
    gone.extend(queue.shrink(under_way, false));
    gone
}

fn sequences(items: &[Item]) -> Vec<u64> {
    items.iter().map(|item| item.sequence).collect()
}

#[test]
fn urgent_goes_first_then_the_newest() {
    let mut queue = Queue::new(1_000);
    for sequence in 0..3 {
        queue.push(series(sequence));
    }
    queue.push(item(3, 10, true, Endpoint::Events));
    queue.push(series(4));
    let order: Vec<u64> = std::iter::from_fn(|| queue.take(false, |_| true)).map(|item| item.sequence).collect();
    assert_eq!(order, [3, 4, 2, 1, 0]);
    assert_eq!((queue.bytes(), queue.points()), (0, 0));
}

#[test]
fn an_app_that_floods_events_keeps_its_metrics() {
    let mut queue = Queue::new(100);
    queue.push(series(0));
    let mut gone = Vec::new();
    for sequence in 1..20 {
        gone.extend(queue.push(item(sequence, 10, false, Endpoint::Events)));
    }
    assert_eq!(sequences(&gone), (1..18).collect::<Vec<_>>(), "a quarter of the room holds two of them");
    let order: Vec<u64> = std::iter::from_fn(|| queue.take(false, |_| true)).map(|item| item.sequence).collect();
    assert_eq!(order, [0, 19, 18], "points first, though they are older");
}

#[test]
fn over_budget_the_oldest_that_is_not_urgent_goes() {
    let mut queue = Queue::new(30);
    queue.push(item(0, 10, true, Endpoint::Events));
    queue.push(series(1));
    queue.push(series(2));
    assert_eq!(sequences(&push(&mut queue, series(3), 0)), [1]);
    assert_eq!(sequences(&push(&mut queue, series(4), 10)), [2, 3], "what is under way counts");
    assert_eq!(queue.points(), 2);
}

#[test]
fn what_comes_back_takes_its_old_place() {
    let mut queue = Queue::new(20);
    queue.push(series(5));
    queue.push(series(6));
    assert_eq!(sequences(&push(&mut queue, series(1), 0)), [1], "the oldest is what came back");
}

#[test]
fn a_blocked_endpoint_is_passed_over_unless_urgent_for_the_first_time() {
    let mut queue = Queue::new(1_000);
    queue.push(item(0, 1, false, Endpoint::Checks));
    queue.push(series(1));
    let mut pressing = item(2, 1, true, Endpoint::Events);
    queue.push(pressing.clone());
    let open = |endpoint| endpoint == Endpoint::Checks;
    assert_eq!(queue.take(true, open).map(|item| item.sequence), Some(2));
    pressing.tried = true;
    queue.push(pressing);
    assert_eq!(queue.take(true, open), None);
    assert_eq!(queue.take(false, open).map(|item| item.sequence), Some(0));
    assert_eq!(queue.take(false, open), None);
}

#[test]
fn what_is_on_disk_lets_go_of_its_body_and_is_read_again_in_its_turn() {
    let mut queue = Queue::new(20);
    for sequence in 0..4 {
        queue.push(series(sequence));
        queue.change(sequence, |item| item.place = Place::Disk(sequence));
    }
    assert_eq!((queue.memory(), queue.bytes()), (40, 40));
    assert_eq!(queue.shrink(0, false), [], "nothing is lost that is on disk");
    assert_eq!((queue.memory(), queue.bytes()), (20, 40));
    assert_eq!(sequences(&Vec::from_iter(queue.take(false, |_| true))), [3]);
    assert_eq!(queue.load(20, |_| true).map(|item| item.sequence), Some(1));
    assert_eq!(queue.load(20, |_| true).map(|item| item.sequence), Some(0));
    assert_eq!(queue.load(20, |_| true), None, "each is read once");
}

#[test]
fn an_urgent_one_takes_the_place_of_any_other_on_disk_and_a_series_that_of_older_ones() {
    let mut queue = Queue::new(100);
    for (sequence, urgent) in [(1, true), (2, false), (3, false)] {
        queue.push(item(sequence, 10, urgent, Endpoint::Events));
        queue.change(sequence, |item| item.place = Place::Disk(sequence));
    }
    assert_eq!(queue.evict(2, false), None, "neither the urgent one nor a newer one");
    let mut evict = |sequence, urgent| queue.evict(sequence, urgent).map(|item| item.sequence);
    assert_eq!((evict(3, false), evict(0, true), evict(0, true), evict(2, true)), (Some(2), Some(3), None, Some(1)));
}

proptest! {
    #[test]
    fn bytes_and_points_are_what_is_in_it(steps in prop::collection::vec((0_u8..3, 0_u64..50, 0_usize..40, any::<bool>()), 0..80)) {
        let mut queue = Queue::new(200);
        for (step, sequence, bytes, urgent) in steps {
            match step {
                0 | 1 => { push(&mut queue, item(sequence, bytes, urgent, Endpoint::Series), 0); }
                _ => { queue.take(false, |_| true); }
            }
            let all = || queue.urgent.iter().chain(&queue.backlog);
            prop_assert_eq!(queue.bytes, all().map(|item| item.payload.body.len() as u64).sum::<u64>());
            prop_assert_eq!(queue.points, all().map(points).sum::<u64>());
            prop_assert!(queue.bytes <= 200);
            prop_assert!(queue.backlog.iter().is_sorted_by_key(|item| item.sequence));
        }
    }
}
