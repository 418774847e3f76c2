//! Trees of files in the shapes that container runtimes make, one a test.

use super::*;
use crate::source::fixture::Fixture;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
const TOTAL: u64 = 16 * GIB;

const V2_STAT: &str = "anon 1\nactive_file 1000\ninactive_file 300\nslab_reclaimable 20\n";
const V1_STAT: &str = "cache 1\nactive_file 7\ninactive_file 7\nhierarchical_memory_limit 9223372036854771712\ntotal_active_file 1000\ntotal_inactive_file 300\n";

const V2_MOUNT: &str = "30 20 0:26 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate\n";
const V1_MOUNT: &str = "29 20 0:25 / /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n30 20 0:26 / /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";

/// What a container with its own cgroup namespace shows of itself.
const INSIDE: &str = "proc/10/root/sys/fs/cgroup";

fn v2(fixture: &Fixture, dir: &str, limit: &str, usage: u64) {
    fixture.write(&format!("{dir}/memory.max"), limit);
    fixture.write(&format!("{dir}/memory.current"), &usage.to_string());
    fixture.write(&format!("{dir}/memory.stat"), V2_STAT);
}

fn v1(fixture: &Fixture, dir: &str, limit: u64, usage: u64) {
    fixture.write(&format!("{dir}/memory.limit_in_bytes"), &format!("{limit}\n"));
    fixture.write(&format!("{dir}/memory.usage_in_bytes"), &format!("{usage}\n"));
    fixture.write(&format!("{dir}/memory.stat"), V1_STAT);
}

fn app(cgroup: &str, mountinfo: &str) -> Fixture {
    let fixture = Fixture::new();
    fixture.process(10, 1, "worker");
    fixture.write("proc/10/cgroup", cgroup);
    fixture.write("proc/10/mountinfo", mountinfo);
    fixture
}

/// Gives the sidecar a cgroup, as the app's `/proc` shows it.
fn sidecar(fixture: &Fixture, cgroup: &str) {
    fixture.process(20, 1, "oomwatch");
    fixture.write("proc/20/cgroup", cgroup);
    fixture.own(20);
}

fn found(fixture: &Fixture) -> Result<(Held, Memory), Unreachable> {
    let held = Held::open(&fixture.proc(), 10).unwrap();
    let memory = resolve(&held, &fixture.proc(), &fixture.path().join("mount"))?;
    Ok((held, memory))
}

fn figures(fixture: &Fixture) -> Figures {
    let (held, memory) = found(fixture).unwrap();
    memory.figures(&held, TOTAL).unwrap()
}

fn check(fixture: &Fixture, limit: Option<u64>, source: &str, unreclaimable: Option<u64>, working_set: Option<u64>) {
    let figures = figures(fixture);
    assert_eq!((figures.limit_bytes, figures.limit_source), (limit, source));
    assert_eq!((figures.unreclaimable_bytes, figures.working_set_bytes), (unreclaimable, working_set));
}

#[test]
fn v2_container_with_its_own_namespace() {
    let fixture = app("0::/../app\n", &V2_MOUNT.replace(" / ", " /../app "));
    v2(&fixture, INSIDE, "268435456\n", 100 * MIB);
    sidecar(&fixture, "0::/\n");
    let usage = 100 * MIB;
    check(&fixture, Some(256 * MIB), "memory.max of the app's cgroup", Some(usage - 1320), Some(usage - 300));
}

#[test]
fn v1_container_with_its_own_namespace() {
    let fixture = app("5:cpu,cpuacct:/../app\n4:memory:/../app\n0::/\n", &V1_MOUNT.replace(" / ", " /../app "));
    v1(&fixture, &format!("{INSIDE}/memory"), 64 * MIB, 10 * MIB);
    let usage = 10 * MIB;
    check(&fixture, Some(64 * MIB), "memory.limit_in_bytes of the app's cgroup", Some(usage - 1300), Some(usage - 300));
}

#[test]
fn hybrid_goes_by_the_hierarchy_that_has_the_memory_controller() {
    let both = format!("{V1_MOUNT}31 20 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
    let fixture = app("4:memory:/pod/app\n1:name=systemd:/x\n0::/unified\n", &both);
    v1(&fixture, &format!("{INSIDE}/memory/pod/app"), 64 * MIB, 10 * MIB);
    fixture.write(&format!("{INSIDE}/unified/unified/memory.stat"), "");
    assert_eq!(found(&fixture).unwrap().1.version, Version::V1);
    assert_eq!(figures(&fixture).limit_bytes, Some(64 * MIB));
}

#[test]
fn a_mount_that_shows_the_container_at_its_root_needs_no_namespace() {
    let fixture = app("4:memory:/kubepods/pod1/app\n", &V1_MOUNT.replace(" / ", " /kubepods/pod1/app "));
    v1(&fixture, &format!("{INSIDE}/memory"), 64 * MIB, 10 * MIB);
    assert_eq!(figures(&fixture).limit_bytes, Some(64 * MIB));
}

#[test]
fn the_tightest_ancestor_counts_and_its_usage_with_it() {
    let fixture = app("0::/pod/app/nested\n", V2_MOUNT);
    v2(&fixture, INSIDE, "max\n", 9 * GIB);
    v2(&fixture, &format!("{INSIDE}/pod"), "536870912\n", 300 * MIB);
    v2(&fixture, &format!("{INSIDE}/pod/app"), "268435456\n", 200 * MIB);
    v2(&fixture, &format!("{INSIDE}/pod/app/nested"), "max\n", 100 * MIB);
    let usage = 200 * MIB;
    check(&fixture, Some(256 * MIB), "memory.max of a cgroup above the app's", Some(usage - 1320), Some(usage - 300));
}

#[test]
fn a_limit_that_holds_the_sidecar_too_gives_no_usage_of_the_app() {
    let fixture = app("0::/pod/app\n", V2_MOUNT);
    v2(&fixture, &format!("{INSIDE}/pod"), "268435456\n", 200 * MIB);
    v2(&fixture, &format!("{INSIDE}/pod/app"), "max\n", 100 * MIB);
    sidecar(&fixture, "0::/pod/oomwatch\n");
    check(&fixture, Some(256 * MIB), "memory.max of a cgroup above the app's", None, None);
}

#[test]
fn no_limit_is_none_whatever_it_is_written_as() {
    for limit in ["max\n", "9223372036854771712\n", "17179869184\n", "0\n", "", "-1\n", "huge\n"] {
        let fixture = app("0::/app\n", V2_MOUNT);
        v2(&fixture, &format!("{INSIDE}/app"), limit, MIB);
        assert_eq!(figures(&fixture), Figures::default(), "{limit:?}");
    }
}

#[test]
fn a_limit_changed_while_it_runs_is_seen_at_the_next_look() {
    let fixture = app("0::/app\n", V2_MOUNT);
    v2(&fixture, &format!("{INSIDE}/app"), "268435456\n", MIB);
    let (held, memory) = found(&fixture).unwrap();
    v2(&fixture, &format!("{INSIDE}/app"), "536870912\n", MIB);
    assert_eq!(memory.figures(&held, TOTAL).unwrap().limit_bytes, Some(512 * MIB));
}

#[test]
fn v1_tells_a_limit_of_an_ancestor_that_no_mount_shows() {
    let fixture = app("4:memory:/../app\n", &V1_MOUNT.replace(" / ", " /../app "));
    v1(&fixture, &format!("{INSIDE}/memory"), GIB, 10 * MIB);
    fixture.write(&format!("{INSIDE}/memory/memory.stat"), &V1_STAT.replace("9223372036854771712", "536870912"));
    check(&fixture, Some(512 * MIB), "hierarchical_memory_limit of the app's cgroup", None, None);
}

#[test]
fn the_hosts_tree_serves_when_the_apps_own_mount_cannot_be_reached() {
    let fixture = app("0::/pod/app\n", V2_MOUNT);
    v2(&fixture, "mount/pod/app", "268435456\n", MIB);
    assert_eq!(figures(&fixture).limit_bytes, Some(256 * MIB));
    let fixture = app("4:memory:/pod/app\n", V1_MOUNT);
    v1(&fixture, "mount/memory/pod/app", 64 * MIB, MIB);
    assert_eq!(figures(&fixture).limit_bytes, Some(64 * MIB));
}

#[test]
fn a_path_outside_of_our_namespace_never_leads_to_our_own_limit() {
    let fixture = app("0::/../app\n", V2_MOUNT);
    v2(&fixture, "mount", "33554432\n", MIB);
    v2(&fixture, "app", "33554432\n", MIB);
    assert_eq!(found(&fixture).unwrap_err(), Unreachable::Absent);
}

#[test]
fn files_that_vanish_in_the_middle_are_unknown_and_not_zero() {
    let fixture = app("0::/app\n", V2_MOUNT);
    v2(&fixture, &format!("{INSIDE}/app"), "268435456\n", MIB);
    let (held, memory) = found(&fixture).unwrap();
    std::fs::remove_file(fixture.path().join(format!("{INSIDE}/app/memory.current"))).unwrap();
    let figures = memory.figures(&held, TOTAL).unwrap();
    assert_eq!((figures.limit_bytes, figures.unreclaimable_bytes), (Some(256 * MIB), None));
    fixture.remove(&format!("{INSIDE}/app"));
    assert_eq!(memory.figures(&held, TOTAL), None);
}

#[test]
fn nonsense_in_the_kernels_files_is_absent() {
    for (cgroup, mounts) in
        [("", V2_MOUNT), ("0::", ""), ("::\n:\n0:memory", V2_MOUNT), ("0::/app\n", "a b c\n - \n1 2 - cgroup2\n")]
    {
        let fixture = app(cgroup, mounts);
        assert_eq!(found(&fixture).unwrap_err(), Unreachable::Absent, "{cgroup:?}");
    }
}
