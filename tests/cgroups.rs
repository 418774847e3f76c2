//! The app's cgroup in the shapes that kernel, kubelet and container runtimes give it: trees of files in the formats of
//! `Documentation/admin-guide/cgroup-v2.rst`, one a row, read by the sidecar's own looker. Version 1 is read live in
//! `tests/sampler.rs`, with a real kill.
#![allow(clippy::unwrap_used)]

#[path = "cgroups/tree.rs"]
mod tree;

use std::time::Duration;

use oomwatch::pipeline::{Gone, Observation};
use oomwatch::source::sampler::Looker;
use tree::{MIB, Tree};

/// What a look must bring; sizes in MiB.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Seen {
    limit: Option<u64>,
    /// The words that say where the limit was read.
    source: &'static str,
    /// What the rules go by; `None` is a gap.
    memory: Option<u64>,
    kills: Option<u64>,
    gone: Option<Gone>,
}

/// The app's own cgroup with 256 MiB, 140 used, 3 of them page cache that can go.
const OWN: Seen =
    Seen { limit: Some(256), source: "memory.max of the app's cgroup", memory: Some(137), kills: Some(0), gone: None };
const ABOVE: &str = "memory.max of a cgroup above the app's";
/// Without a limit: the machine's memory is one, and the process's own anonymous pages are what is held against it.
const NO_LIMIT: Seen = Seen {
    limit: Some(16_384),
    source: "the machine's memory: the app has no limit of its own",
    memory: Some(PROCESS),
    ..OWN
};
const PROCESS: u64 = 100;

/// A tree as it is found, what a look sees of it, and what happens next with what is seen then.
struct Row {
    name: &'static str,
    grow: fn(&Tree),
    seen: Seen,
    then: &'static [Step],
}

/// What happens to a tree, and what is seen of it after.
type Step = (fn(&Tree), Seen);

const fn row(name: &'static str, grow: fn(&Tree), seen: Seen) -> Row {
    Row { name, grow, seen, then: &[] }
}

const ROWS: [Row; 23] = [
    row("no limit", |t| t.own("max", 140), NO_LIMIT),
    row("a limit", |t| t.own("268435456", 140), OWN),
    row(
        "a limit of the pod below that of the container, seen through the host's tree",
        |t| {
            t.member("/kubepods/pod7/app", "/kubepods/pod7/oomwatch");
            t.host("kubepods", "max", 9_000);
            t.host("kubepods/pod7", "134217728", 120);
            t.host("kubepods/pod7/app", "268435456", 90);
        },
        // The sidecar is below that limit too, so what counts of the app is its own.
        Seen { limit: Some(128), source: ABOVE, memory: Some(PROCESS), ..OWN },
    ),
    row(
        "a limit of the container below that of the pod",
        |t| {
            t.member("/kubepods/pod7/app", "/kubepods/pod7/oomwatch");
            t.host("kubepods", "max", 9_000);
            t.host("kubepods/pod7", "536870912", 150);
            t.host("kubepods/pod7/app", "268435456", 140);
        },
        OWN,
    ),
    row(
        "a namespace of its own, two levels up and down from ours",
        |t| {
            t.member("/../../pod7/app", "/");
            t.mount("/../../pod7/app");
            t.inside("", "268435456", 140);
        },
        OWN,
    ),
    row(
        "a cgroup that the app made for itself below the container's",
        |t| {
            t.member("/../app/workers", "/");
            t.mount("/../app");
            t.inside("", "268435456", 140);
            t.inside("/workers", "max", 100);
        },
        Seen { source: ABOVE, ..OWN },
    ),
    Row {
        name: "a limit raised while it runs, as a vertical autoscaler does in place",
        grow: |t| t.own("268435456", 140),
        seen: OWN,
        then: &[(|t| t.own("536870912", 140), Seen { limit: Some(512), ..OWN })],
    },
    Row {
        name: "a limit lowered below what is used",
        grow: |t| t.own("268435456", 140),
        seen: OWN,
        then: &[(|t| t.own("67108864", 140), Seen { limit: Some(64), ..OWN })],
    },
    Row {
        name: "a limit taken away and given again",
        grow: |t| t.own("268435456", 140),
        seen: OWN,
        then: &[(|t| t.own("max", 140), NO_LIMIT), (|t| t.own("268435456", 140), OWN)],
    },
    Row {
        name: "one file that vanishes in the middle is a gap, and no jump to another figure",
        grow: |t| t.own("268435456", 140),
        seen: OWN,
        then: &[
            (|t| t.remove("/memory.stat"), Seen { memory: None, ..NO_LIMIT }),
            (|t| t.own("268435456", 150), Seen { memory: Some(147), ..OWN }),
        ],
    },
    Row {
        name: "the kill counter that can no longer be read (ENODEV on a kernel) is no kill",
        grow: |t| t.own("268435456", 140),
        seen: OWN,
        then: &[(
            |t| {
                t.break_held("/memory.events");
                t.end();
            },
            Seen { limit: None, source: "", memory: None, kills: None, gone: Some(Gone::Ended) },
        )],
    },
    Row {
        name: "the folder goes with the process, and the held counter tells the kill",
        grow: |t| t.own("268435456", 250),
        seen: Seen { memory: Some(247), ..OWN },
        then: &[(
            |t| {
                t.events("", [40, 9, 1, 1, 0]);
                t.end();
            },
            Seen { limit: None, source: "", memory: None, kills: Some(1), gone: Some(Gone::OomKilled) },
        )],
    },
    Row {
        name: "memory.oom.group: all processes of the container are killed as one, and that is one end",
        grow: |t| {
            t.own("268435456", 250);
            t.write("/memory.oom.group", "1\n");
        },
        seen: Seen { memory: Some(247), ..OWN },
        then: &[
            (
                |t| {
                    t.events("", [0, 31, 1, 3, 1]);
                    t.end();
                },
                Seen { limit: None, source: "", memory: None, kills: Some(3), gone: Some(Gone::OomKilled) },
            ),
            (|t| t.come_back(), OWN),
        ],
    },
    Row {
        name: "a kill below the app's cgroup stands in memory.events and not in memory.events.local",
        grow: |t| {
            t.own("268435456", 140);
            t.write("/memory.events.local", &tree::events([0, 0, 0, 0, 0]));
        },
        seen: OWN,
        then: &[(|t| t.events("", [0, 5, 1, 1, 0]), Seen { kills: Some(1), ..OWN })],
    },
    row(
        "memory.high throttles and does not kill: the limit is memory.max",
        |t| {
            t.own("268435456", 140);
            t.write("/memory.high", "146800640\n");
        },
        OWN,
    ),
    row(
        "swap is no part of usage or limit",
        |t| {
            t.own("268435456", 140);
            t.write("/memory.swap.max", "1073741824\n");
            t.write("/memory.swap.current", "524288000\n");
            t.write("/memory.swap.events", "high 0\nmax 0\nfail 0\n");
        },
        OWN,
    ),
    row(
        "hybrid: the memory controller on version 2, the others on version 1",
        |t| {
            t.membership("5:cpu,cpuacct:/../app\n1:name=systemd:/../app\n0::/../app\n");
            t.mounts(
                "29 20 0:25 /../app /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n\
                 30 20 0:26 /../app /sys/fs/cgroup/unified ro - cgroup2 cgroup rw,nsdelegate\n",
            );
            t.inside("/unified", "268435456", 140);
        },
        OWN,
    ),
    row(
        "hybrid: the memory controller on version 1",
        |t| {
            t.membership("9:memory:/../app\n1:name=systemd:/../app\n0::/../app\n");
            t.mounts(
                "29 20 0:25 /../app /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n\
                 30 20 0:26 /../app /sys/fs/cgroup/unified ro - cgroup2 cgroup rw,nsdelegate\n",
            );
            t.inside("/unified", "max", 1);
            t.version_1("/memory", "268435456", 140);
        },
        Seen { source: "memory.limit_in_bytes of the app's cgroup", ..OWN },
    ),
    row(
        "the kubelet with systemd, seen through the host's tree",
        |t| {
            let pod = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod2f6e1a90_7c1d_4e8e_9f39_5d0b2a6f4c11.slice";
            t.member(&format!("/{pod}/cri-containerd-9d1c.scope"), &format!("/{pod}/cri-containerd-77ab.scope"));
            t.host("kubepods.slice", "15032385536", 9_000);
            t.host("kubepods.slice/kubepods-burstable.slice", "max", 8_000);
            t.host(pod, "max", 150);
            t.host(&format!("{pod}/cri-containerd-9d1c.scope"), "268435456", 140);
        },
        OWN,
    ),
    row(
        "the kubelet with cgroupfs, seen through the host's tree",
        |t| {
            let pod = "kubepods/burstable/pod2f6e1a90-7c1d-4e8e-9f39-5d0b2a6f4c11";
            t.member(&format!("/{pod}/9d1c"), &format!("/{pod}/77ab"));
            t.host("kubepods", "15032385536", 9_000);
            t.host("kubepods/burstable", "max", 8_000);
            t.host(pod, "max", 150);
            t.host(&format!("{pod}/9d1c"), "268435456", 140);
        },
        OWN,
    ),
    row(
        "numbers that are none",
        |t| {
            t.own("99999999999999999999999", 140);
            t.write("/memory.current", "many\n");
            t.write("/memory.events", "oom_kill\nlow x\n\noom_kill -1\n");
        },
        Seen { kills: None, ..NO_LIMIT },
    ),
    Row {
        name: "files that are empty, as those of a cgroup that is being torn down",
        grow: |t| t.own("268435456", 140),
        seen: OWN,
        then: &[(
            |t| {
                for file in ["/memory.max", "/memory.current", "/memory.stat"] {
                    t.write(file, "");
                }
            },
            NO_LIMIT,
        )],
    },
    row(
        "a cgroup without the memory controller",
        |t| {
            t.write("/cgroup.controllers", "cpu pids\n");
            t.write("/cgroup.procs", "10\n");
        },
        Seen { kills: None, ..NO_LIMIT },
    ),
];

#[test]
fn twenty_three_trees_of_cgroups_are_read_as_they_are_meant() {
    for row in &ROWS {
        let tree = Tree::new();
        (row.grow)(&tree);
        let mut looker = Looker::new(tree.settings());
        assert_eq!(seen(&mut looker, 0), row.seen, "{}", row.name);
        for (step, (happens, expected)) in row.then.iter().enumerate() {
            happens(&tree);
            assert_eq!(seen(&mut looker, step as u64 + 1), *expected, "{}, step {}", row.name, step + 1);
        }
    }
}

fn seen(looker: &mut Looker, second: u64) -> Seen {
    let Observation { reading, limit_source, oom_kills, gone, .. } = looker.look(Duration::from_secs(second));
    let mib = |bytes: Option<u64>| bytes.map(|bytes| bytes / MIB);
    Seen {
        limit: mib(reading.limit_bytes),
        source: limit_source,
        memory: mib(reading.memory_bytes),
        kills: oom_kills.map(|kills| kills.count),
        gone,
    }
}
