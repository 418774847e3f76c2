//! The Agent's behaviour, bytes in and window out. Most rows were run through the parser and the wire of the real dogstatsd
//! (DataDog/datadog-agent, January 2025); where we differ, the row says so.

mod limits;
mod rules;

use super::*;

/// A bucket start.
const T0: f64 = 1_700_000_000.0;

/// Lines in one bucket under `settings`, then the flush after it, as text that names only what is not the default.
fn run(settings: Settings, input: &[u8]) -> (Vec<String>, Stats) {
    let mut aggregator = Aggregator::new(settings);
    for line in crate::statsd::lines(input) {
        aggregator.record_line(T0 + 1.0, line);
    }
    let window = aggregator.flush(T0 + 10.0);
    let stats = aggregator.stats();
    assert_eq!((stats.line_error(), stats.sample_error()), (0, 0));
    (describe(&window), stats)
}

fn describe(window: &Window) -> Vec<String> {
    let points = window.points.iter().map(|point| {
        let form = match point.form {
            Form::Gauge => "gauge".to_owned(),
            Form::Rate => format!("rate/{}", point.interval_seconds),
            Form::Count => format!("count/{}", point.interval_seconds),
        };
        let at = if point.timestamp == T0 as i64 { String::new() } else { format!(" @{}", point.timestamp) };
        format!(
            "{}{} {form} {}{at}{}",
            point.context.name(),
            point.suffix.text(),
            point.value,
            identity(&point.context)
        )
    });
    let sketches = window.sketches.iter().map(|point| {
        let sketch = &point.sketch;
        let keys: Vec<String> = sketch.bins.iter().map(|bin| format!("{}:{}", bin.key, bin.n)).collect();
        format!("{} sketch n={} sum={} {}", point.context.name(), sketch.count, sketch.sum, keys.join(" "))
    });
    let raw = window
        .raw
        .iter()
        .map(|raw| format!("{} raw {} @{}{}", raw.context.name(), raw.values, raw.sample_rate, identity(&raw.context)));
    let mut all: Vec<String> = points.chain(sketches).chain(raw).collect();
    all.sort();
    all
}

fn identity(context: &Context) -> String {
    let mut text = String::new();
    if !context.joined_tags().is_empty() {
        text += &format!(" #{}", context.joined_tags());
    }
    if context.host() != Host::Default {
        text += &format!(" {:?}", context.host());
    }
    if !context.origin().is_empty() {
        text += &format!(" |{}", context.origin());
    }
    text
}

fn check(input: &str, expected: &[&str]) {
    assert_eq!(run(Settings::default(), input.as_bytes()).0, expected, "{input:?}");
}

fn check_drops(input: &str, reason: Reason, count: u64, expected: &[&str]) {
    let (found, stats) = run(Settings::default(), input.as_bytes());
    assert_eq!(
        (found.as_slice(), stats.dropped(reason)),
        (&expected.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()[..], count),
        "{input:?}"
    );
}

#[test]
fn each_type_leaves_as_the_agent_sends_it() {
    check("page.views:1|c", &["page.views rate/10 0.1"]);
    check("temp:10|g\ntemp:-5|g", &["temp gauge -5"]);
    check("temp:10|g\ntemp:+5|g", &["temp gauge 5"]);
    check(
        "q:1:2:3|h",
        &["q.95percentile gauge 3", "q.avg gauge 2", "q.count rate/10 0.3", "q.max gauge 3", "q.median gauge 2"],
    );
    check(
        "q:1:2:3|ms",
        &["q.95percentile gauge 3", "q.avg gauge 2", "q.count rate/10 0.3", "q.max gauge 3", "q.median gauge 2"],
    );
    check("q:1::3|d", &["q sketch n=2 sum=4 1338:1 1409:1"]);
    check("u:abc:def|s\nu:abc|s\nu:abc|s", &["u gauge 2"]);
}

#[test]
fn sample_rates_weigh_sums_and_nothing_else() {
    check("a:1|c|@0.5", &["a rate/10 0.2"]);
    check("a:5|g|@0.1\nu:x|s|@0.1", &["a gauge 5", "u gauge 1"]);
    check("q:10|d|@0.3", &[&format!("q sketch n=3 sum={} 1487:3", 10.0 * (1.0 / 0.3))]);
    // Ours: the Agent says avg 11.11 here, count 0.3.
    check(
        "q:10|h|@0.3",
        &[
            "q.95percentile gauge 10",
            "q.avg gauge 10",
            &format!("q.count rate/10 {}", 1.0 / 0.3 / 10.0),
            "q.max gauge 10",
            "q.median gauge 10",
        ],
    );
}

#[test]
fn tags_are_a_set_and_special_ones_are_taken_out() {
    check("a:1|c|#", &["a rate/10 0.1"]);
    check("a:1|c|#,,", &["a rate/10 0.1"]);
    check("a:1|c|#x,y\na:1|c|#y,x,x", &["a rate/10 0.2 #x,y"]);
    check("a:1|c|#X\na:1|c|#x", &["a rate/10 0.1 #X", "a rate/10 0.1 #x"]);
    check("a:1|c|#host:web1,env:p", &["a rate/10 0.1 #env:p Named(\"web1\")"]);
    check("a:1|c|#host:,env:p", &["a rate/10 0.1 #env:p None"]);
    check("a:1|c|#dd.internal.entity_id:U1,dd.internal.card:low,k:v", &["a rate/10 0.1 #k:v"]);
    check("a:1|c||#x", &["a rate/10 0.1 #x"]);
    // The origin does not split a series at the intake: the same series twice would overwrite itself.
    check("a:1|c|c:abc\na:1|c|c:in-42\na:1|c|c:in-xyz\na:1|c|e:it-0|card:odd", &["a rate/10 0.4"]);
}

#[test]
fn one_name_with_two_types_is_two_series() {
    // Ours: in the Agent both land in the object of the first type.
    check("a:1|c\na:7|g", &["a gauge 7", "a rate/10 0.1"]);
}

#[test]
fn timestamped_samples_pass_by_the_buckets() {
    check("a:7|g|T1700000003", &["a gauge 7 @1700000003"]);
    check("a:20|c|@0.5|T1699999999", &["a rate/10 2 @1699999999"]);
    check("a:1|c|T1700000003\na:1|c", &["a rate/10 0.1", "a rate/10 0.1 @1700000003"]);
    for input in ["a:5|h|T1700000003", "a:5|d|T1700000003", "a:5|s|T1700000003", "a:5|ms|T1700000003"] {
        check_drops(input, Reason::Timestamp, 1, &[]);
    }
    check_drops("a:5|c|T1699990000\na:5:6|g|T1700000700", Reason::Timestamp, 3, &[]);
    check_drops("a:inf|g|T1700000003", Reason::Nan, 1, &[]);
}

#[test]
fn nothing_that_is_not_finite_gets_in() {
    // Ours: the Agent sends a 0 for the context.
    check_drops("a:inf|c", Reason::Nan, 1, &[]);
    check_drops("a:NaN|g\na:1|g", Reason::Nan, 1, &["a gauge 1"]);
    check_drops("a:1:nan:2|c", Reason::Nan, 1, &["a rate/10 0.3"]);
    check_drops("a:1e308:1e308|c", Reason::Nan, 1, &[&format!("a rate/10 {}", 1e307)]);
    check_drops("q:1e308|d|@0.1", Reason::Nan, 1, &[]);
    for rate in ["0", "2", "-1", "1e-300", "nan", "inf"] {
        check_drops(&format!("a:1:2|c|@{rate}\nb:1|h|@{rate}"), Reason::Rate, 3, &[]);
    }
    check_drops("a:1e309|c", Reason::ParseValue, 1, &[]);
}

#[test]
fn a_bad_line_costs_only_itself() {
    let (found, stats) = run(Settings::default(), b"a:1|c\r\nb:2|c\n\nbad\nc:3|c\n");
    assert_eq!(found, ["a rate/10 0.1", "b rate/10 0.2", "c rate/10 0.3"]);
    assert_eq!((stats.lines, stats.metrics, stats.blank, stats.dropped(Reason::ParseType)), (5, 3, 1, 1));
    check_drops("q:|c\n:1|c", Reason::ParseName, 1, &[]);
    check_drops("a:1|x\na:1|C", Reason::ParseType, 2, &[]);
    check_drops("a:1|c|@x", Reason::ParseRate, 1, &[]);
    check_drops("a:1|c|T-1", Reason::ParseTimestamp, 1, &[]);
    check_drops("_e{9,9}:x|y", Reason::ParseEvent, 1, &[]);
    check_drops("_sc|x|9", Reason::ParseCheck, 1, &[]);
}

#[test]
fn events_and_checks_are_handed_back_and_counted() {
    let mut aggregator = Aggregator::new(Settings { tags: vec!["env:p".into()], ..Settings::default() });
    let Taken::Event(event) = aggregator.record_line(T0, b"_e{5,4}:title|text|#a:b,host:h1") else {
        panic!("no event")
    };
    assert_eq!((event.title.as_str(), event.host.as_deref()), ("title", Some("h1")));
    assert_eq!(event.tags, ["a:b", "env:p"]);
    let Taken::Check(check) = aggregator.record_line(T0, b"_sc|agent.up|0") else { panic!("no check") };
    assert_eq!(check.tags, ["env:p"]);
    assert_eq!((aggregator.stats().events, aggregator.stats().checks, aggregator.stats().line_error()), (1, 1, 0));
}

#[test]
fn the_namespace_spares_the_agents_prefixes() {
    let settings = Settings { namespace: "app".into(), ..Settings::default() };
    let (found, _) = run(settings, b"a:1|c\njvm.heap:1|g\ndatadog.dogstatsd.client.metrics:1|c");
    assert_eq!(found, ["app.a rate/10 0.1", "datadog.dogstatsd.client.metrics rate/10 0.1", "jvm.heap gauge 1"]);
}

#[test]
fn unified_tags_are_added_where_the_key_is_absent() {
    let settings = Settings { tags: vec!["env:prod".into(), "service:s".into()], ..Settings::default() };
    let (found, _) = run(settings, b"a:1|c\na:1|c|#env:prod\na:1|c|#env:dev");
    assert_eq!(found, ["a rate/10 0.1 #env:dev,service:s", "a rate/10 0.2 #env:prod,service:s"]);
}

#[test]
fn counters_can_leave_as_counts() {
    let settings = Settings { counters: Counters::Count, ..Settings::default() };
    let (found, _) = run(settings, b"a:3|c|@0.5");
    assert_eq!(found, ["a count/10 6"]);
}

#[test]
fn bytes_that_are_not_utf8_are_replaced() {
    let (found, _) = run(Settings::default(), b"a\xff:1|c|#k:\xfe");
    assert_eq!(found, ["a\u{fffd} rate/10 0.1 #k:\u{fffd}"]);
}

#[test]
fn an_agent_behind_us_gets_counts_and_raw_samples() {
    let settings = || Settings { mode: Mode::Agent, ..Settings::default() };
    let (found, _) = run(
        settings(),
        b"a:1|c|@0.5|c:x\na:1|c|c:x\na:1|c|c:y\ng:1:2|g\nq:1.50:2|h\nq:3|h\nq:4|h|@0.5\nu:a:b|s\nu:a:b|s\nd:1|d|#host:h,dd.internal.card:low",
    );
    let expected = [
        "a count/10 1 |c:y",
        "a count/10 3 |c:x",
        "d raw 1 @1 #host:h,dd.internal.card:low",
        "g gauge 2",
        "q raw 1.50:2:3 @1",
        "q raw 4 @0.5",
        "u raw a:b @1",
    ];
    assert_eq!(found, expected);
    let mut aggregator = Aggregator::new(settings());
    aggregator.record_line(T0, b"a:1|c|T1700000003");
    let window = aggregator.flush(T0 + 10.0);
    let point = &window.points[0];
    assert_eq!(
        (point.form, point.value, point.timestamp, point.interval_seconds),
        (Form::Count, 1.0, 1_700_000_003, 0)
    );
    assert_eq!(aggregator.flush(T0 + 20.0), Window::default(), "the Agent fills zeros, not we");
}

#[test]
fn a_hundred_thousand_mixed_samples_add_up_exactly() {
    let mut aggregator = Aggregator::new(Settings::default());
    let (mut rates, mut sketched, mut counted) = (0.0, 0u64, 0.0);
    for second in 0..100u32 {
        let now = T0 + f64::from(second) + 0.5;
        for n in 0..250 {
            let line = format!("c:1|c|#k:{}\nc:0.1|c|@0.1\nd:{n}|d\nh:{n}|h|@0.5", n % 7);
            for line in crate::statsd::lines(line.as_bytes()) {
                assert_eq!(aggregator.record_line(now, line), Taken::Metric(Recorded::Aggregated));
            }
        }
    }
    let window = aggregator.flush_all(T0 + 100.0);
    for point in &window.points {
        match (point.form, point.suffix.text()) {
            (Form::Rate, "") => rates += point.value * 10.0,
            (Form::Rate, _) => counted += point.value * 10.0,
            _ => {}
        }
    }
    window.sketches.iter().for_each(|point| sketched += point.sketch.count);
    assert_eq!((rates, counted, sketched), (50_000.0, 50_000.0, 25_000));
    assert_eq!(aggregator.stats().aggregated, 100_000);
}

#[test]
fn an_idle_counter_says_zero_until_it_expires_and_a_gauge_says_nothing() {
    let mut aggregator = Aggregator::new(Settings::default());
    aggregator.record_line(T0 + 3.0, b"a:1|c");
    aggregator.record_line(T0 + 3.0, b"g:1|g");
    let mut points = Vec::new();
    for flush in 1..=40 {
        points.extend(aggregator.flush(T0 + f64::from(flush * 10)).points);
    }
    let of = |name: &str| -> Vec<(i64, f64)> {
        points.iter().filter(|p| p.context.name() == name).map(|p| (p.timestamp - T0 as i64, p.value)).collect()
    };
    let zeros = (1..=30).map(|n| (n * 10, 0.0));
    assert_eq!(of("a"), std::iter::once((0, 0.1)).chain(zeros).collect::<Vec<_>>());
    assert_eq!(of("g"), [(0, 1.0)]);
    assert_eq!(
        (aggregator.stats().contexts, aggregator.stats().bytes),
        (0, 0),
        "forgotten, with every byte given back"
    );
}

#[test]
fn skipped_buckets_get_their_zeros_in_one_flush() {
    let mut aggregator = Aggregator::new(Settings::default());
    aggregator.record_line(T0 + 3.0, b"a:1|c");
    let stamps: Vec<i64> = aggregator.flush(T0 + 55.0).points.iter().map(|p| p.timestamp - T0 as i64).collect();
    assert_eq!(stamps, [0, 10, 20, 30, 40]);
    assert_eq!(
        aggregator.flush(T0 + 3e3).points.len(),
        26,
        "from 50 to 300: zeros end with the expiry however long the gap"
    );
}

#[test]
fn a_sample_after_the_end_of_its_bucket_lands_in_the_next() {
    let mut aggregator = Aggregator::new(Settings::default());
    aggregator.record_line(T0 + 9.9, b"a:1|g");
    aggregator.record_line(T0 + 10.1, b"a:2|g");
    let values = |window: Window| window.points.iter().map(|p| (p.timestamp - T0 as i64, p.value)).collect::<Vec<_>>();
    assert_eq!(values(aggregator.flush(T0 + 10.2)), [(0, 1.0)]);
    assert_eq!(values(aggregator.flush(T0 + 20.2)), [(10, 2.0)]);
}

#[test]
fn a_partial_flush_never_uses_a_buckets_start_or_a_second_twice() {
    let mut aggregator = Aggregator::new(Settings::default());
    let mut stamps = Vec::new();
    for _ in 0..3 {
        aggregator.record_line(T0 + 10.0, b"a:1|c");
        stamps.extend(aggregator.flush_all(T0 + 10.0).points.iter().map(|p| p.timestamp - T0 as i64));
    }
    assert_eq!(stamps, [11, 12, 13]);
    let mut aggregator = Aggregator::new(Settings::default());
    aggregator.record_line(T0 + 14.0, b"a:1|c");
    assert_eq!(aggregator.flush_all(T0 + 17.8).points[0].timestamp, T0 as i64 + 17);
}

#[test]
fn a_clock_set_back_a_little_stays_in_the_bucket_and_a_lot_begins_anew() {
    let mut aggregator = Aggregator::new(Settings::default());
    aggregator.record_line(T0 + 100.0, b"a:1|c");
    aggregator.record_line(T0 + 50.0, b"a:1|c");
    assert_eq!(aggregator.flush(T0 + 60.0), Window::default());
    aggregator.record_line(T0 - 1000.0, b"a:1|c");
    let window = aggregator.flush_all(T0 - 995.0);
    let found: Vec<(i64, f64)> = window.points.iter().map(|p| (p.timestamp - T0 as i64, p.value)).collect();
    assert_eq!(found, [(-995, 0.3)], "what was open is stamped by the clock of now");
    aggregator.record_line(T0 - 990.0, b"a:1|c");
    // An hour later nobody would take it under its old stamp.
    let windows = [aggregator.flush(T0 + 10_000.0), aggregator.flush(T0 + 10_010.0)];
    let points = windows.iter().flat_map(|window| window.points.iter().filter(|p| p.value > 0.0));
    let found: Vec<(i64, f64)> = points.map(|p| (p.timestamp - T0 as i64, p.value)).collect();
    assert_eq!(found, [(10_000, 0.1)]);
}
