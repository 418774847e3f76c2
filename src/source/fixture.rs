//! A `/proc` and cgroup files made of plain files in a temporary folder, for the tests of this folder.

use std::path::{Path, PathBuf};

pub(super) struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    pub fn new() -> Fixture {
        let fixture = Fixture { dir: tempfile::tempdir().unwrap() };
        fixture.write("proc/meminfo", "MemTotal:       16777216 kB\nMemFree:  1 kB\n");
        fixture.write("proc/uptime", "100.00 50.00\n");
        fixture
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn proc(&self) -> PathBuf {
        self.path().join("proc")
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub fn remove(&self, path: &str) {
        std::fs::remove_dir_all(self.path().join(path)).unwrap();
    }

    /// A live process that started 1000 ticks after boot; [`Fixture::status`] gives it memory.
    pub fn process(&self, pid: i32, parent: i32, name: &str) {
        self.process_state(pid, parent, name, 'S', 0);
    }

    pub fn process_state(&self, pid: i32, parent: i32, name: &str, state: char, flags: u32) {
        self.write(&format!("proc/{pid}/stat"), &self.stat_line(pid, parent, name, state, flags, 1000));
        self.write(&format!("proc/{pid}/limits"), LIMITS);
        self.write(&format!("proc/{pid}/cmdline"), &format!("/bin/{name}\0--flag\0"));
        std::fs::create_dir_all(self.path().join(format!("proc/{pid}/fd"))).unwrap();
    }

    /// The size in field 24 is 256 pages for a start.
    pub fn stat_line(&self, pid: i32, parent: i32, name: &str, state: char, flags: u32, start: u64) -> String {
        format!(
            "{pid} ({name}) {state} {parent} {pid} {pid} 0 -1 {flags} 0 0 0 0 1 1 0 0 20 0 1 0 {start} 1000000 256 18446744073709551615 \
             1 1 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
        )
    }

    pub fn status(&self, pid: i32, uid: u32, gid: u32, rss_mib: u64, anon_mib: u64, threads: u64) {
        let (rss, anon) = (rss_mib * 1024, anon_mib * 1024);
        self.write(
            &format!("proc/{pid}/status"),
            &format!(
                "Name:\tx\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nGid:\t{gid}\t{gid}\t{gid}\t{gid}\nVmRSS:\t{rss} kB\nRssAnon:\t{anon} kB\n\
                 RssFile:\t0 kB\nRssShmem:\t4 kB\nThreads:\t{threads}\n"
            ),
        );
    }

    /// Makes an open socket of a process.
    pub fn socket(&self, pid: i32, fd: u32, inode: u64) {
        let path = self.path().join(format!("proc/{pid}/fd/{fd}"));
        std::os::unix::fs::symlink(format!("socket:[{inode}]"), path).unwrap();
    }

    /// Makes `proc/self` point at `pid`.
    pub fn own(&self, pid: i32) {
        std::os::unix::fs::symlink(pid.to_string(), self.proc().join("self")).unwrap();
    }
}

const LIMITS: &str = "\
Limit                     Soft Limit           Hard Limit           Units     
Max cpu time              unlimited            unlimited            seconds   
Max file size             unlimited            unlimited            bytes     
Max data size             unlimited            unlimited            bytes     
Max stack size            8388608              unlimited            bytes     
Max core file size        0                    unlimited            bytes     
Max resident set          unlimited            unlimited            bytes     
Max processes             96365                96365                processes 
Max open files            1024                 524288               files     
Max locked memory         8388608              8388608              bytes     
Max address space         unlimited            unlimited            bytes     
Max file locks            unlimited            unlimited            locks     
Max pending signals       96365                96365                signals   
Max msgqueue size         819200               819200               bytes     
Max nice priority         0                    0                    
Max realtime priority     0                    0                    
Max realtime timeout      unlimited            unlimited            us        
";
