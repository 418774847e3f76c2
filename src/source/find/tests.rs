//! Pods as process tables, and the rule that must find the app in each.

use super::*;
use crate::source::fixture::Fixture;
use crate::source::process::table;

const TCP_HEAD: &str =
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

fn tcp(port: u16, state: &str, uid: u32, inode: u64) -> String {
    format!(
        "   0: 0100007F:{port:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 {uid:5}        0 {inode} 1 0000000000000000 100 0 0 10 0\n"
    )
}

/// A pod with a shared process namespace: pause, ourselves with a child, and the app with a child.
fn pod() -> Fixture {
    let fixture = Fixture::new();
    fixture.process(1, 0, "pause");
    fixture.process(20, 0, "oomwatch");
    fixture.process(21, 20, "helper");
    fixture.process(10, 0, "worker");
    fixture.process(11, 10, "child");
    fixture.status(10, 10001, 10001, 1, 1, 1);
    fixture.own(20);
    fixture
}

fn resident(fixture: &Fixture, pid: i32, parent: i32, name: &str, pages: u64) {
    fixture.process(pid, parent, name);
    let line =
        fixture.stat_line(pid, parent, name, 'S', 0, 1000).replace(" 1000000 256 ", &format!(" 1000000 {pages} "));
    fixture.write(&format!("proc/{pid}/stat"), &line);
}

fn search(fixture: &Fixture, wanted: &Wanted) -> Result<Found, String> {
    find(&fixture.proc(), &table(&fixture.proc()).unwrap(), wanted)
}

fn check(fixture: &Fixture, wanted: &Wanted, pid: i32, strength: Strength, rule: &str) {
    let found = search(fixture, wanted).unwrap();
    assert_eq!((found.pid, found.strength, found.rule.as_str()), (pid, strength, rule));
}

fn port() -> Wanted {
    Wanted { pprof_port: Some(6060), ..Wanted::default() }
}

#[test]
fn the_only_other_tree_is_the_app() {
    check(&pod(), &Wanted::default(), 10, Strength::Guess, "the only process tree besides the sidecar's");
}

#[test]
fn the_largest_of_several_trees_is_taken_and_the_others_are_named() {
    let fixture = pod();
    resident(&fixture, 30, 0, "envoy", 25_600);
    let mib = |pages: u64| (pages * procfs::page_size()) >> 20;
    let rule =
        format!("the largest resident memory among 2 process trees; runners-up: worker (pid 10, {} MiB)", mib(256));
    check(&fixture, &Wanted::default(), 30, Strength::Guess, &rule);
    // A tree counts as a whole.
    resident(&fixture, 12, 11, "grandchild", 51_200);
    assert_eq!(search(&fixture, &Wanted::default()).unwrap().pid, 10);
}

#[test]
fn the_owner_of_the_pprof_port_beats_the_largest() {
    let fixture = pod();
    resident(&fixture, 30, 0, "envoy", 25_600);
    fixture.write("proc/net/tcp", &(TCP_HEAD.to_owned() + &tcp(6060, "01", 0, 5) + &tcp(6060, "0A", 10001, 99)));
    fixture.socket(30, 3, 98);
    fixture.socket(10, 3, 99);
    let found = search(&fixture, &port()).unwrap();
    assert_eq!((found.pid, found.strength), (10, Strength::Port));
    assert!(found.rule.starts_with("it listens on the pprof port 6060; runners-up: envoy (pid 30, "), "{}", found.rule);
}

#[test]
fn without_the_list_of_files_the_ports_user_narrows_the_choice() {
    let fixture = pod();
    resident(&fixture, 30, 0, "envoy", 25_600);
    fixture.status(30, 1337, 1337, 100, 100, 1);
    fixture.write("proc/net/tcp6", &(TCP_HEAD.to_owned() + &tcp(6060, "0A", 10001, 99)));
    check(
        &fixture,
        &port(),
        10,
        Strength::Guess,
        "the only process tree of the user that owns the pprof port besides the sidecar's",
    );
}

#[test]
fn a_port_of_our_own_is_nobody_elses() {
    let fixture = pod();
    fixture.write("proc/net/tcp", &(TCP_HEAD.to_owned() + &tcp(6060, "0A", 0, 99)));
    fixture.socket(20, 3, 99);
    assert_eq!(search(&fixture, &port()).unwrap().strength, Strength::Guess);
}

#[test]
fn what_the_settings_ask_for_is_found_or_told_missing() {
    let fixture = pod();
    let named = |name: &str| Wanted { name: Some(name.to_owned()), ..Wanted::default() };
    check(&fixture, &named("worker"), 10, Strength::Asked, "watch.name = \"worker\"");
    check(&fixture, &Wanted { pid: Some(11), ..Wanted::default() }, 11, Strength::Asked, "watch.pid = 11");
    let pattern = regex_lite::Regex::new("^/bin/work.*--flag$").unwrap();
    check(
        &fixture,
        &Wanted { cmdline: Some(pattern), ..Wanted::default() },
        10,
        Strength::Asked,
        "watch.cmdline = \"^/bin/work.*--flag$\"",
    );
    assert_eq!(search(&fixture, &named("api")).unwrap_err(), "watch.name = \"api\": no process matches");
    assert!(search(&fixture, &named("oomwatch")).is_err(), "never ourselves");
    assert!(search(&fixture, &Wanted { pid: Some(20), ..Wanted::default() }).is_err(), "not even when asked");
    assert_eq!(search(&fixture, &named("helper")).unwrap().pid, 21, "a child that is asked for");
}

#[test]
fn a_name_that_the_kernel_cut_is_compared_with_the_whole_one() {
    let fixture = pod();
    fixture.process(40, 0, "payments-reconc");
    fixture.write("proc/40/cmdline", "/srv/payments-reconciler\0");
    let wanted = Wanted { name: Some("payments-reconciler".into()), ..Wanted::default() };
    assert_eq!(search(&fixture, &wanted).unwrap().pid, 40);
}

#[test]
fn of_a_server_and_its_forks_the_top_one_is_taken() {
    let fixture = pod();
    fixture.process(40, 0, "nginx");
    resident(&fixture, 41, 40, "nginx", 90_000);
    let wanted = Wanted { name: Some("nginx".into()), ..Wanted::default() };
    assert_eq!(search(&fixture, &wanted).unwrap().pid, 40);
}

#[test]
fn our_parents_the_dead_kernel_threads_and_pauses_are_no_candidates() {
    let fixture = Fixture::new();
    fixture.process(1, 0, "init");
    fixture.process(5, 1, "sh");
    fixture.process(20, 5, "oomwatch");
    fixture.process_state(30, 0, "kthreadd", 'S', 0x0020_0000);
    fixture.process_state(31, 0, "dead", 'Z', 0);
    fixture.process(32, 0, "pause");
    fixture.process(33, 0, "catatonit");
    fixture.write("proc/33/cmdline", "/catatonit\0-P\0");
    fixture.own(20);
    assert_eq!(search(&fixture, &Wanted::default()).unwrap_err(), "no process besides the sidecar's own can be seen");
    // A sibling that the same shell started is one.
    fixture.process(40, 5, "worker");
    assert_eq!(search(&fixture, &Wanted::default()).unwrap().pid, 40);
}

#[test]
fn a_name_with_control_characters_is_escaped() {
    let fixture = pod();
    fixture.process(10, 0, "wor\u{1b}[2Jker");
    assert_eq!(search(&fixture, &Wanted::default()).unwrap().name, "wor\\u{1b}[2Jker");
}

#[test]
fn rows_of_nonsense_list_no_listener() {
    for text in ["", "\n\n", "x\n0: 1 2 0A\n", "0: zz:17AC 0:0 0A a b c d e f\n"] {
        assert_eq!(parse_listeners(text.as_bytes(), 6060), [], "{text:?}");
    }
}
