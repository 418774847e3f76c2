//! What is bounded, and that sums stay exact at the bounds: contexts, names, bytes, spellings.

use proptest::prelude::*;

use super::*;

#[test]
fn too_many_contexts_fold_by_name_with_exact_sums() {
    let settings = Settings { max_contexts: 10, tags: vec!["env:p".into()], ..Settings::default() };
    let mut aggregator = Aggregator::new(settings);
    for round in 0..2 {
        for n in 0..1000 {
            let expected = if n < 10 { Recorded::Aggregated } else { Recorded::Folded };
            let line = format!("a:1|c|#n:{n}");
            assert_eq!(aggregator.record_line(T0 + f64::from(round), line.as_bytes()), Taken::Metric(expected));
        }
    }
    let stats = aggregator.stats();
    assert_eq!((stats.aggregated, stats.overflowed, stats.contexts, stats.sample_error()), (20, 1980, 11, 0));
    assert_eq!(aggregator.top(1), [TopName { name: "a".into(), samples: 2000, contexts: 11 }]);
    let window = aggregator.flush(T0 + 10.0);
    let overflow: Vec<_> =
        window.points.iter().filter(|p| p.context.tags().next() == Some("oomwatch_overflow:true")).collect();
    assert_eq!(
        (overflow.len(), overflow[0].value, overflow[0].context.joined_tags()),
        (1, 198.0, "oomwatch_overflow:true,env:p")
    );
    assert!(window.points.iter().filter(|p| p.value == 0.2).count() == 10, "known contexts stay exact");
}

#[test]
fn a_folded_timestamped_count_goes_into_the_bucket_so_that_the_sum_stays_exact() {
    let (found, stats) =
        run(Settings { max_contexts: 0, ..Settings::default() }, b"a:10|c|#n:1|T1700000003\na:20|c|#n:2|T1700000003");
    assert_eq!((found, stats.overflowed), (vec!["a rate/10 3 #oomwatch_overflow:true".to_owned()], 2));
}

#[test]
fn too_many_names_fold_by_type() {
    let mut aggregator = Aggregator::new(Settings { max_contexts: 0, ..Settings::default() });
    for n in 0..300 {
        aggregator.record_line(T0, format!("a{n}:1|c").as_bytes());
        aggregator.record_line(T0, format!("b{n}:1|d").as_bytes());
    }
    assert_eq!(aggregator.stats().contexts, 258);
    let window = aggregator.flush(T0 + 10.0);
    let sum: f64 = window.points.iter().map(|p| p.value * 10.0).sum();
    let last =
        window.points.iter().find(|p| p.context.name() == "oomwatch.overflow.counter").expect("one for the type");
    assert_eq!((sum.round(), last.value), (300.0, 17.2));
    assert_eq!(window.sketches.iter().map(|s| s.sketch.count).sum::<u64>(), 300);
}

#[test]
fn the_byte_budget_holds_against_every_way_to_grow() {
    let max_bytes = 100_000;
    for mode in [Mode::Intake, Mode::Agent] {
        let mut aggregator = Aggregator::new(Settings { max_bytes, mode, ..Settings::default() });
        for n in 0..20_000u32 {
            for line in [
                format!("c{n}:1|c|#t:{n}"),
                format!("s:{n}|s"),
                format!("h:{n}.5|h"),
                format!("d:{n}|d|@0.0000001"),
                format!("r:1|ms|@0.{}", n + 1),
                "g:1|g|T1700000003".to_owned(),
            ] {
                aggregator.record_line(T0, line.as_bytes());
            }
            let overflow = 258 * 1000;
            assert!(aggregator.stats().bytes <= (max_bytes + overflow) as u64);
        }
        let stats = aggregator.stats();
        assert_eq!(stats.sample_error(), 0);
        assert!(stats.dropped(Reason::Memory) > 0 && stats.overflowed > 0);
        let window = aggregator.flush(T0 + 10.0);
        assert!(points_in(&window) > 0);
    }
}

#[test]
fn spellings_of_one_context_are_bounded_and_stay_one_context() {
    let mut aggregator = Aggregator::new(Settings { max_contexts: 4, ..Settings::default() });
    for n in 0..1000 {
        let line = format!("a:1|c|#x,y{}", ",y".repeat(n));
        assert_eq!(aggregator.record_line(T0, line.as_bytes()), Taken::Metric(Recorded::Aggregated));
    }
    assert_eq!(aggregator.stats().contexts, 1);
    assert!(aggregator.stats().bytes < 2000);
    assert_eq!(aggregator.flush(T0 + 10.0).points[0].value, 100.0);
}

#[test]
fn a_flood_of_contexts_is_forgotten_and_its_memory_given_back() {
    let mut aggregator = Aggregator::new(Settings::default());
    for n in 0..9000 {
        aggregator.record_line(T0, format!("a:1|g|#n:{n}").as_bytes());
    }
    aggregator.record_line(T0 + 29.0, b"kept:1|g");
    aggregator.flush(T0 + 30.0);
    assert_eq!(aggregator.stats().contexts, 1);
    aggregator.record_line(T0 + 31.0, b"kept:2|g");
    aggregator.record_line(T0 + 31.0, b"a:3|g|#n:5");
    assert_eq!(describe(&aggregator.flush(T0 + 40.0)).len(), 2);
}

#[test]
fn our_own_metrics_are_never_refused_and_count_nowhere() {
    let settings = Settings { max_contexts: 0, max_bytes: 0, namespace: "app".into(), ..Settings::default() };
    let mut aggregator = Aggregator::new(Settings { tags: vec!["env:p".into()], ..settings });
    aggregator.record_own(T0, "oomwatch.dropped", 2.0, true, Some("reason:nan"));
    aggregator.record_own(T0, "oomwatch.dropped", 3.0, true, Some("reason:nan"));
    aggregator.record_own(T0, "oomwatch.self.rss", 7.0, false, None);
    aggregator.record_own(T0, "oomwatch.self.rss", f64::NAN, false, None);
    let found = describe(&aggregator.flush(T0 + 10.0));
    assert_eq!(found, ["oomwatch.dropped count/10 5 #reason:nan,env:p", "oomwatch.self.rss gauge 7 #env:p"]);
    assert_eq!((aggregator.stats().samples, aggregator.stats().points_flushed), (0, 2));
}

proptest! {
    #[test]
    fn any_bytes_at_any_time_leave_the_books_balanced(
        lines in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..40), any::<f64>()), 0..40),
        texts in proptest::collection::vec("[ab]:[0-9e.:infa\\-]{1,8}\\|(c|g|s|h|ms|d)(\\|@[0-9.e\\-]{1,5})?(\\|#[a,:]{0,5})?(\\|T[0-9]{1,10})?", 0..40),
        agent in any::<bool>(),
    ) {
        let mode = if agent { Mode::Agent } else { Mode::Intake };
        let mut aggregator = Aggregator::new(Settings { mode, max_contexts: 3, max_bytes: 5000, ..Settings::default() });
        for (line, now) in lines {
            aggregator.record_line(now, &line);
        }
        for text in texts {
            aggregator.record_line(1_700_000_000.0, text.as_bytes());
        }
        let window = aggregator.flush_all(1_700_000_001.0);
        prop_assert!(window.points.iter().all(|point| point.value.is_finite()));
        prop_assert!(window.sketches.iter().all(|point| point.sketch.sum.is_finite() && point.sketch.avg.is_finite()));
        let stats = aggregator.stats();
        prop_assert_eq!((stats.line_error(), stats.sample_error()), (0, 0));
    }
}
