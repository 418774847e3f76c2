//! A test that runs itself again inside a pod in a can (`tests/can`), and what everybody in there may read and run.

use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{OOMWATCH, root};

/// Sidecar and app run as the same user and group, as the manifests have it.
pub const USER: u32 = 10_001;

pub fn is_inside() -> bool {
    std::env::var_os("CAN_CGROUP").is_some()
}

/// Runs the test of that name once more, inside a can whose app has this much memory. Where none can be made, says so.
pub fn again_inside(test: &str, memory: u64) {
    let status = Command::new("bash")
        .arg(root().join("tests/can/in-can.sh"))
        .args(["--memory", &memory.to_string(), "--uid", &USER.to_string(), "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .status()
        .unwrap();
    if status.code() == Some(77) {
        assert!(std::env::var_os("CI").is_none(), "{test}: this machine cannot make a pod in a can, see above");
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: this machine cannot make a pod in a can, see above");
        return;
    }
    assert!(status.success(), "inside the can: {status}");
}

/// A folder that the user of the can may enter, apart from a checkout that only its owner may: programs, and `profiles`.
pub struct Stage {
    dir: tempfile::TempDir,
}

impl Stage {
    /// With the sidecar, and the app as `app`.
    pub fn new(app: &Path) -> Stage {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::create_dir(dir.path().join("profiles")).unwrap();
        chown(dir.path().join("profiles"), Some(USER), Some(USER)).unwrap();
        for (from, name) in [(Path::new(OOMWATCH), "oomwatch"), (app, "app")] {
            std::fs::copy(from, dir.path().join(name)).unwrap();
        }
        Stage { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The sidecar's command, as the can's user.
    pub fn oomwatch(&self) -> Command {
        let mut command = Command::new(self.path("oomwatch"));
        command.uid(USER).gid(USER);
        command
    }

    /// The sidecar's command as that user, in a cgroup and a cgroup mount of its own, as a container has it.
    pub fn oomwatch_as(&self, uid: u32) -> Command {
        let mut command = Command::new("bash");
        command.arg(root().join("tests/can/in-can.sh")).args(["sidecar", &uid.to_string()]).arg(self.path("oomwatch"));
        command
    }

    /// The app's command below the limit; what is waited for is the app itself, which the script becomes.
    pub fn app(&self) -> Command {
        let mut command = Command::new("bash");
        command.arg(root().join("tests/can/in-can.sh")).arg("app").arg(self.path("app"));
        command
    }
}
