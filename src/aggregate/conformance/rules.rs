//! Mapper, filters and copies in their places: mapped first, then the namespace, then what is left out.

use std::collections::BTreeMap;

use super::*;

fn mapper() -> Mapper {
    let tags = BTreeMap::from([("kind".to_owned(), "$1".to_owned()), ("host".to_owned(), "$2".to_owned())]);
    let with_host = Rule::wildcard("job.*.on.*", "job.run", &mut tags.iter()).unwrap();
    let tags = BTreeMap::from([("kind".to_owned(), "$1".to_owned())]);
    let done = Rule::wildcard("job.*.done", "job.done", &mut tags.iter()).unwrap();
    Mapper { profiles: vec![Profile { prefix: "job.".into(), rules: vec![with_host, done] }] }
}

fn filter(names: &[&str], tags: &[(&str, TagAction, &[&str])]) -> Filter {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let rules = tags.iter().map(|(metric, action, tags)| TagRule {
        metric: (*metric).to_owned(),
        action: *action,
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
    });
    let defaults = Settings::default();
    Filter::new(&names, false, rules, &defaults.histogram_aggregates, &defaults.histogram_percentiles)
}

#[test]
fn names_are_mapped_and_the_mappers_tags_come_last() {
    let settings = || Settings { mapper: mapper(), ..Settings::default() };
    let lines = b"job.mail.done:1|c|#a:b\njob.mail.done:1|c|#a:b\njob.done:1|c|#kind:mail,a:b\njob.other:1|c";
    let (found, _) = run(settings(), lines);
    assert_eq!(found, ["job.done rate/10 0.3 #a:b,kind:mail", "job.other rate/10 0.1"]);
    let (found, _) = run(settings(), b"job.x.on.web1:1|g");
    assert_eq!(found, ["job.run gauge 1 #kind:x Named(\"web1\")"], "special tags of the mapper are special");
}

#[test]
fn the_namespace_is_put_before_the_mapped_name_and_filters_see_both() {
    let settings = || Settings {
        mapper: mapper(),
        namespace: "app".into(),
        filter: filter(&["app.job.done", "job.x.done"], &[]),
        ..Settings::default()
    };
    let (found, stats) = run(settings(), b"job.x.done:1:2|c\njob.x.done:1|h\njob.x:1|c");
    assert_eq!(found, ["app.job.x rate/10 0.1"]);
    assert_eq!((stats.samples, stats.aggregated, stats.dropped(Reason::Filtered), stats.contexts), (4, 1, 3, 1));
}

#[test]
fn a_name_left_out_stays_left_out_and_costs_one_spelling() {
    let mut aggregator = Aggregator::new(Settings { filter: filter(&["a"], &[]), ..Settings::default() });
    for second in 0..400 {
        for line in [&b"a:1|c|#x"[..], b"b:1|g"] {
            aggregator.record_line(T0 + f64::from(second), line);
        }
        aggregator.flush(T0 + f64::from(second));
    }
    let stats = aggregator.stats();
    assert_eq!((stats.dropped(Reason::Filtered), stats.contexts, stats.sample_error()), (400, 1, 0));
    aggregator.flush(T0 + 1000.0);
    assert_eq!(aggregator.stats().bytes, 0, "the spelling is forgotten like any other");
}

#[test]
fn a_suffixed_entry_takes_out_one_series_of_a_histogram() {
    let settings = Settings { filter: filter(&["q.max", "q.95percentile", "r"], &[]), ..Settings::default() };
    let (found, stats) = run(settings, b"q:1|h\nq.max:7|g\nr:1|ms");
    assert_eq!(found, ["q.avg gauge 1", "q.count rate/10 0.1", "q.median gauge 1"]);
    assert_eq!(
        (stats.dropped(Reason::FilteredPoints), stats.dropped(Reason::Filtered), stats.points_flushed),
        (2, 2, 3)
    );
}

#[test]
fn contexts_that_are_equal_without_their_tags_are_one() {
    let rules: &[(&str, TagAction, &[&str])] = &[
        ("a", TagAction::Exclude, &["user"]),
        ("b", TagAction::Include, &["queue"]),
        ("b", TagAction::Include, &["x"]),
    ];
    let settings =
        |mode| Settings { filter: filter(&[], rules), tags: vec!["env:p".into()], mode, ..Settings::default() };
    let lines =
        b"a:1|c|#user:1,k:v\na:1|c|#user:2,k:v\na:1|c|#k:v\nb:1|c|#queue:q,z,host:h\nb:1|c|#x,queue:q\nc:1|c|#user:1";
    let (found, _) = run(settings(Mode::Intake), lines);
    assert_eq!(
        found,
        [
            "a rate/10 0.3 #k:v,env:p",
            "b rate/10 0.1 #queue:q,env:p Named(\"h\")",
            "b rate/10 0.1 #x,queue:q,env:p",
            "c rate/10 0.1 #user:1,env:p",
        ]
    );
    let (found, _) = run(settings(Mode::Agent), b"b:1|c|#queue:q,z,host:h,dd.internal.card:low");
    assert_eq!(found, ["b count/10 1 #queue:q,host:h,dd.internal.card:low,env:p"], "what speaks to the Agent stays");
}

#[test]
fn histograms_are_copied_to_distributions_and_counted_once() {
    let copying = |max_bytes| Settings { copy_histograms: true, max_bytes, ..Settings::default() };
    let (found, stats) = run(copying(16 << 20), b"q:1:3:nan|h|@0.5\nt:2|ms\nd:5|d\ng:1|g");
    let sketches: Vec<_> = found.iter().filter(|line| line.contains("sketch")).collect();
    assert_eq!(
        sketches,
        ["d sketch n=1 sum=5 1442:1", "q sketch n=4 sum=8 1338:2 1409:2", "t sketch n=1 sum=2 1383:1"]
    );
    assert!(found.iter().any(|line| line == "q.max gauge 3"));
    assert_eq!((stats.samples, stats.aggregated, stats.dropped(Reason::Copy)), (6, 5, 0));
    let (_, stats) = run(copying(0), b"q:1:3|h");
    assert_eq!((stats.dropped(Reason::Memory), stats.dropped(Reason::Copy), stats.samples), (2, 2, 2));
}
