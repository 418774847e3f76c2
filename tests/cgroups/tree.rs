//! A `/proc` and a cgroup tree made of plain files: the app is process 10, the sidecar process 20.

use std::path::PathBuf;

use oomwatch::source::sampler::Settings;

pub const MIB: u64 = 1 << 20;

/// The app's own view of its cgroup file system.
const INSIDE: &str = "proc/10/root/sys/fs/cgroup";

const STAT: &str = "anon 134217728\nfile 8388608\nkernel 2097152\nkernel_stack 131072\npagetables 524288\nsec_pagetables 0\n\
    percpu 1024\nsock 4096\nvmalloc 0\nshmem 1048576\nzswap 0\nzswapped 0\nfile_mapped 1048576\nfile_dirty 0\nfile_writeback 0\n\
    swapcached 0\nanon_thp 0\nfile_thp 0\nshmem_thp 0\ninactive_anon 0\nactive_anon 134217728\ninactive_file 2097152\n\
    active_file 524288\nunevictable 0\nslab_reclaimable 524288\nslab_unreclaimable 262144\nslab 786432\nworkingset_refault_anon 0\n\
    workingset_refault_file 12\npgscan 0\npgsteal 0\npgfault 40000\npgmajfault 3\nthp_fault_alloc 0\nthp_collapse_alloc 0\n";

const STAT_1: &str = "cache 8388608\nrss 134217728\nmapped_file 1048576\nswap 0\npgfault 40000\ninactive_file 1\nactive_file 1\n\
    hierarchical_memory_limit 268435456\nhierarchical_memsw_limit 9223372036854771712\ntotal_cache 8388608\n\
    total_rss 134217728\ntotal_inactive_file 2097152\ntotal_active_file 1048576\ntotal_unevictable 0\n";

/// `memory.events`: high, max, oom, oom_kill, oom_group_kill.
pub fn events([high, max, oom, kill, group]: [u64; 5]) -> String {
    format!("low 0\nhigh {high}\nmax {max}\noom {oom}\noom_kill {kill}\noom_group_kill {group}\nsock_throttled 0\n")
}

pub struct Tree {
    dir: tempfile::TempDir,
}

impl Tree {
    /// An app in a container with a cgroup namespace of its own, whose folder is still empty.
    pub fn new() -> Tree {
        let tree = Tree { dir: tempfile::tempdir().unwrap() };
        tree.put("proc/meminfo", "MemTotal:       16777216 kB\n");
        tree.put("proc/uptime", "100.00 50.00\n");
        tree.put("proc/vmstat", "nr_free_pages 1\noom_kill 7\n");
        tree.process(1, "pause", 10);
        tree.process(20, "oomwatch", 10);
        std::os::unix::fs::symlink("20", tree.path("proc/self")).unwrap();
        tree.member("/../app", "/");
        tree.app(1000);
        tree
    }

    fn app(&self, start: u64) {
        self.process(10, "worker", start);
        let status = "Uid:\t1\t1\t1\t1\nGid:\t1\t1\t1\t1\nVmRSS:\t122880 kB\nRssAnon:\t102400 kB\nRssShmem:\t0 kB\nThreads:\t8\n";
        self.put("proc/10/status", status);
        self.mount("/../app");
    }

    pub fn settings(&self) -> Settings {
        Settings { pid: Some(10), proc: self.path("proc"), cgroup_mount: self.path("host"), ..Settings::default() }
    }

    fn process(&self, pid: i32, name: &str, start: u64) {
        let stat = format!(
            "{pid} ({name}) S 0 {pid} {pid} 0 -1 0 0 0 0 0 1 1 0 0 20 0 1 0 {start} 1000000 256 18446744073709551615 1 1 0 0 0 0 \
             0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
        );
        self.put(&format!("proc/{pid}/stat"), &stat);
        std::fs::create_dir_all(self.path(&format!("proc/{pid}/fd"))).unwrap();
    }

    /// Where the app and the sidecar stand, as the sidecar's `/proc` shows it.
    pub fn member(&self, app: &str, sidecar: &str) {
        self.membership(&format!("0::{app}\n"));
        self.put("proc/20/cgroup", &format!("0::{sidecar}\n"));
    }

    pub fn membership(&self, text: &str) {
        self.put("proc/10/cgroup", text);
    }

    /// The app's mount shows this cgroup at its root.
    pub fn mount(&self, root: &str) {
        self.mounts(&format!("30 20 0:26 {root} /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate\n"));
    }

    pub fn mounts(&self, text: &str) {
        self.put("proc/10/mountinfo", text);
    }

    /// The container's own cgroup: limit as the file has it, usage in MiB.
    pub fn own(&self, limit: &str, used: u64) {
        self.inside("", limit, used);
    }

    /// A cgroup in the app's own view, below its mount.
    pub fn inside(&self, below: &str, limit: &str, used: u64) {
        self.cgroup(&format!("{INSIDE}{below}"), limit, used);
    }

    /// A cgroup in the host's tree, of which the app's own mount shows nothing.
    pub fn host(&self, path: &str, limit: &str, used: u64) {
        self.mounts("");
        self.cgroup(&format!("host/{path}"), limit, used);
    }

    fn cgroup(&self, dir: &str, limit: &str, used: u64) {
        self.put(&format!("{dir}/memory.max"), &format!("{limit}\n"));
        self.put(&format!("{dir}/memory.current"), &format!("{}\n", used * MIB));
        self.put(&format!("{dir}/memory.stat"), STAT);
        self.put(&format!("{dir}/memory.high"), "max\n");
        self.put(&format!("{dir}/memory.oom.group"), "0\n");
        self.put(&format!("{dir}/memory.events"), &events([0; 5]));
    }

    pub fn version_1(&self, below: &str, limit: &str, used: u64) {
        let dir = format!("{INSIDE}{below}");
        self.put(&format!("{dir}/memory.limit_in_bytes"), &format!("{limit}\n"));
        self.put(&format!("{dir}/memory.usage_in_bytes"), &format!("{}\n", used * MIB));
        self.put(&format!("{dir}/memory.stat"), STAT_1);
        self.put(&format!("{dir}/memory.oom_control"), "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n");
    }

    /// Writes into the app's own view.
    pub fn write(&self, below: &str, text: &str) {
        self.put(&format!("{INSIDE}{below}"), text);
    }

    pub fn events(&self, below: &str, counts: [u64; 5]) {
        self.write(&format!("{below}/memory.events"), &events(counts));
    }

    pub fn remove(&self, below: &str) {
        std::fs::remove_file(self.path(&format!("{INSIDE}{below}"))).unwrap();
    }

    /// Leaves nothing to read in a file that is held open.
    pub fn break_held(&self, below: &str) {
        self.write(below, "");
    }

    /// The process is gone, and all paths below it.
    pub fn end(&self) {
        std::fs::remove_dir_all(self.path("proc/10")).unwrap();
    }

    /// The container's next life, with a cgroup of its own.
    pub fn come_back(&self) {
        self.membership("0::/../app\n");
        self.app(2000);
        self.own("268435456", 140);
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}
